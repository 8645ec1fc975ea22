package devnet

import (
	"context"

	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// Dir is where the devnet's data is.
func (d *Devnet) Dir() string { return d.dir }

// Chains are the rollups' chain IDs, ascending.
func (d *Devnet) Chains() []uint64 { return d.chains }

// L1 is the devnet's L1.
func (d *Devnet) L1() *L1 { return d.l1 }

// Genesis is what all started from.
func (d *Devnet) Genesis() *genesis.Output { return d.genesis }

// Keys are the keys of all roles.
func (d *Devnet) Keys() *genesis.Keys { return d.keys }

// Operators are those of the set as it began; Operator is one of them, from 0. The devnet's
// own methods mean the first one. Joiner is one that is not in it: the caller starts it, and
// has a change of the set take it in.
func (d *Devnet) Operators() []*Operator        { return d.ops }
func (d *Devnet) Operator(i int) *Operator      { return d.ops[i] }
func (d *Devnet) Joiner(i int) *Operator        { return d.joiners[i] }
func (d *Devnet) EngineRPC(chain uint64) string { return d.ops[0].EngineRPC(chain) }
func (d *Devnet) EngineWS(chain uint64) string  { return d.ops[0].EngineWS(chain) }

// NodeURL serves the super roots; NodeRPC is a chain's op-node. They stay the same when
// the node is restarted.
func (d *Devnet) NodeURL() string             { return d.ops[0].NodeURL() }
func (d *Devnet) NodeRPC(chain uint64) string { return d.ops[0].NodeRPC(chain) }

// SharedSequencerURL serves sharedseq.
func (d *Devnet) SharedSequencerURL() string { return d.ops[0].SharedSequencerURL() }

// EngineProcess is a chain's op-geth process, nil if it is embedded.
func (d *Devnet) EngineProcess(chain uint64) *Geth { return d.ops[0].EngineProcess(chain) }

// Eth is a client of a chain's public RPC. It belongs to the devnet.
func (d *Devnet) Eth(chain uint64) (*ethclient.Client, error) { return d.ops[0].Eth(chain) }

// Rollup is a client of a chain's op-node. It belongs to the devnet.
func (d *Devnet) Rollup(chain uint64) *sources.RollupClient { return d.ops[0].Rollup(chain) }

// SuperNode is a client of the super root RPC. It belongs to the devnet.
func (d *Devnet) SuperNode() *sources.SuperNodeClient { return d.ops[0].SuperNode() }

// Sequencer is a client of sharedseq. It belongs to the devnet.
func (d *Devnet) Sequencer(ctx context.Context) (*rpc.Client, error) { return d.ops[0].Sequencer(ctx) }

// StartOperator and StopOperator start and stop an operator, with its engines.
func (d *Devnet) StartOperator(ctx context.Context, i int) error { return d.ops[i].Start(ctx) }
func (d *Devnet) StopOperator(ctx context.Context, i int) error  { return d.ops[i].Stop(ctx) }

// StartNode runs the first operator's op-node with the shared sequencer, for tests that
// stopped it with StopNode, which leaves the engines. It comes back at the same ports.
func (d *Devnet) StartNode(ctx context.Context) error { return d.ops[0].StartNode(ctx) }
func (d *Devnet) StopNode(ctx context.Context) error  { return d.ops[0].StopNode(ctx) }

// StartGeth runs another op-geth of a chain, of any version, on a directory of its own beside
// the devnet's. Its caller stops it.
func (d *Devnet) StartGeth(ctx context.Context, chain uint64, binary, dir string) (*Geth, error) {
	return startGeth(ctx, gethConfig{Binary: binary, engineConfig: engineConfig{
		Chain: chain, Genesis: d.genesis.L2[chain], Dir: dir, JWT: devnetJWT(), Log: d.log,
	}})
}

// GenesisDir is where the files of the rollups' genesis are.
func (d *Devnet) GenesisDir() string { return genesisPath(d.dir) }

// FreePorts are ports that nothing listens on.
func FreePorts(n int) ([]int, error) {
	p := newPorts()
	out := make([]int, n)
	for i := range out {
		out[i] = p.next(0)
	}
	return out, p.err
}

// StartLoad sends rate transfers a second to every chain, from a user that nothing else uses.
func (d *Devnet) StartLoad(rate int) (*Load, error) {
	from, err := User(loadUser)
	if err != nil {
		return nil, err
	}
	var targets []LoadTarget
	for _, id := range d.chains {
		targets = append(targets, LoadTarget{Chain: id, RPC: d.EngineRPC(id), From: from})
	}
	return StartLoad(targets, rate, d.log), nil
}

// loadUser is the development account the load is sent from.
const loadUser = genesis.Users - 1
