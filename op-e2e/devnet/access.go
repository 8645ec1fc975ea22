package devnet

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
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

// EngineRPC and EngineWS are a chain's public RPC; EngineAuth is its Engine API.
func (d *Devnet) EngineRPC(chain uint64) string  { return d.engines[chain].HTTP() }
func (d *Devnet) EngineWS(chain uint64) string   { return d.engines[chain].WS() }
func (d *Devnet) EngineAuth(chain uint64) string { return d.engines[chain].Auth() }

// NodeURL serves the super roots; NodeRPC is a chain's op-node. They stay the same when
// the node is restarted.
func (d *Devnet) NodeURL() string { return fmt.Sprintf("http://127.0.0.1:%d", d.nodePort) }
func (d *Devnet) NodeRPC(chain uint64) string {
	return d.NodeURL() + "/" + strconv.FormatUint(chain, 10)
}

// SharedSequencerURL serves sharedseq.
func (d *Devnet) SharedSequencerURL() string { return fmt.Sprintf("http://127.0.0.1:%d", d.seqPort) }

// EngineProcess is a chain's op-geth process, nil if it is embedded.
func (d *Devnet) EngineProcess(chain uint64) *Geth {
	g, _ := d.engines[chain].(*Geth)
	return g
}

// Eth is a client of a chain's public RPC. It belongs to the devnet.
func (d *Devnet) Eth(chain uint64) (*ethclient.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.eth[chain]; c != nil {
		return c, nil
	}
	e := d.engines[chain]
	if e == nil {
		return nil, fmt.Errorf("no chain %d", chain)
	}
	c, err := ethclient.DialContext(context.Background(), e.HTTP())
	if err != nil {
		return nil, fmt.Errorf("engine of chain %d: %w", chain, err)
	}
	d.eth[chain] = c
	return c, nil
}

// Rollup is a client of a chain's op-node. It belongs to the devnet.
func (d *Devnet) Rollup(chain uint64) *sources.RollupClient { return d.rollups[chain] }

// SuperNode is a client of the super root RPC. It belongs to the devnet.
func (d *Devnet) SuperNode() *sources.SuperNodeClient { return d.superNode }

// Sequencer is a client of sharedseq. It belongs to the devnet.
func (d *Devnet) Sequencer(ctx context.Context) (*rpc.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sequencer == nil {
		c, err := rpc.Dial(ctx, d.SharedSequencerURL())
		if err != nil {
			return nil, err
		}
		d.sequencer = c
	}
	return d.sequencer, nil
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

func enginesOf(auth map[uint64]string, jwt [32]byte) map[sequence.ChainID]config.Engine {
	out := map[sequence.ChainID]config.Engine{}
	for id, u := range auth {
		out[sequence.ChainID(id)] = config.Engine{URL: u, JWT: eth.Bytes32(jwt)}
	}
	return out
}
