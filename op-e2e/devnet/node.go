package devnet

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"
	"github.com/urfave/cli/v2"

	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	opnodeflags "github.com/ethereum-optimism/optimism/op-node/flags"
	"github.com/ethereum-optimism/optimism/op-node/p2p"
	p2pcli "github.com/ethereum-optimism/optimism/op-node/p2p/cli"
	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sync"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
	opsigner "github.com/ethereum-optimism/optimism/op-service/signer"
	"github.com/ethereum-optimism/optimism/op-service/sources"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// l1Endpoints are what an op-node needs of L1.
type l1Endpoints struct {
	Config *params.ChainConfig
	RPC    string
	Beacon string
}

// nodeConfig is what an op-node, sequencing or not, is made from.
type nodeConfig struct {
	Dir     string
	L1      l1Endpoints
	Genesis *genesis.Output
	Engines map[uint64]string // authenticated RPC
	JWT     [32]byte
	// Embedded are engines of this process that op-node reaches without a socket.
	Embedded map[uint64]*embeddedEngine
	Port     int // of the nodes' RPC; 0 takes a free one
	Metrics  int // port; 0: none are served
	// ConfDepth is how many L1 blocks behind the L1 head a block's origin stays.
	ConfDepth uint64
	// L1Poll is how often L1's head is asked for; 0: 100 ms.
	L1Poll time.Duration
	// Sequence switches the shared sequencer on.
	Sequence bool
	// P2P switches gossip on. Signers are the keys that sign blocks, by chain.
	P2P     bool
	Signers map[uint64]*ecdsa.PrivateKey
}

const defaultL1Poll = 100 * time.Millisecond

// callTimeout bounds op-node's calls to an engine; op-node's default.
const callTimeout = 10 * time.Second

// config makes the op-node's configuration without the shared sequencer's own part.
func (c *nodeConfig) config() (*config.Config, error) {
	out := &config.Config{
		Host: &snconfig.CLIConfig{
			DataDir: c.Dir, L1NodeAddr: c.L1.RPC, L1BeaconAddr: c.L1.Beacon, L1HTTPPollInterval: cmp.Or(c.L1Poll, defaultL1Poll),
			RPCConfig:     oprpc.CLIConfig{ListenAddr: "127.0.0.1", ListenPort: c.Port, EnableAdmin: true},
			MetricsConfig: opmetrics.CLIConfig{Enabled: c.Metrics != 0, ListenAddr: "127.0.0.1", ListenPort: c.Metrics},
		},
		Nodes: map[eth.ChainID]*opnodeconfig.Config{},
	}
	for id, auth := range c.Engines {
		var l2 opnodeconfig.L2EndpointSetup = &opnodeconfig.L2EndpointConfig{L2EngineAddr: auth, L2EngineJWTSecret: c.JWT, L2EngineCallTimeout: callTimeout}
		if e, ok := c.Embedded[id]; ok {
			l2 = e
		}
		n := &opnodeconfig.Config{
			L1: &opnodeconfig.L1EndpointConfig{
				L1NodeAddr: c.L1.RPC, L1RPCKind: sources.RPCKindStandard, BatchSize: 20,
				HttpPollInterval: cmp.Or(c.L1Poll, defaultL1Poll), MaxConcurrency: 10,
			},
			L1ChainConfig:       c.L1.Config,
			L2:                  l2,
			DependencySet:       c.Genesis.DepSet,
			Beacon:              &opnodeconfig.L1BeaconEndpointConfig{BeaconAddr: c.L1.Beacon},
			Driver:              driver.Config{SequencerEnabled: c.Sequence, SequencerConfDepth: c.ConfDepth},
			Rollup:              *c.Genesis.Rollup[id],
			RPC:                 oprpc.CLIConfig{ListenAddr: "127.0.0.1", EnableAdmin: true},
			L1EpochPollInterval: 2 * time.Second,
			Sync:                sync.Config{SyncMode: sync.CLSync},
			ConfigPersistence:   opnodeconfig.DisabledConfigPersistence{},
		}
		if c.P2P {
			var err error
			if n.P2P, err = p2pConfig(c.Genesis.Rollup[id].BlockTime); err != nil {
				return nil, fmt.Errorf("p2p of chain %d: %w", id, err)
			}
			if key := c.Signers[id]; key != nil {
				n.P2PSigner = &p2p.PreparedSigner{Signer: opsigner.NewLocalSigner(key)}
			}
		}
		if err := n.Check(); err != nil {
			return nil, fmt.Errorf("op-node of chain %d: %w", id, err)
		}
		out.Nodes[eth.ChainIDFromUInt64(id)] = n
		out.Host.Chains = append(out.Host.Chains, id)
	}
	return out, nil
}

// p2pConfig is upstream's default network stack, on a free port of this machine and
// without discovery: peers are connected by RPC.
func p2pConfig(blockTime uint64) (*p2p.Config, error) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	for _, f := range opnodeflags.P2PFlags(opnodeflags.EnvVarPrefix) {
		if err := f.Apply(set); err != nil {
			return nil, err
		}
	}
	id, err := crypto.GenerateKey()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		opnodeflags.NoDiscoveryName: "true", opnodeflags.BootnodesName: "",
		opnodeflags.AdvertiseIPName: "127.0.0.1", opnodeflags.ListenIPName: "127.0.0.1",
		opnodeflags.AdvertiseTCPPortName: "0", opnodeflags.ListenTCPPortName: "0",
		opnodeflags.AdvertiseUDPPortName: "0", opnodeflags.ListenUDPPortName: "0",
		opnodeflags.DiscoveryPathName: "memory", opnodeflags.PeerstorePathName: "memory",
		opnodeflags.P2PPrivRawName: hex.EncodeToString(crypto.FromECDSA(id)),
	} {
		if err := set.Set(name, value); err != nil {
			return nil, err
		}
	}
	return p2pcli.NewConfig(cli.NewContext(&cli.App{}, set, nil), blockTime)
}

// ConnectPeers makes each chain's op-node of one node a peer of the other's.
func ConnectPeers(ctx context.Context, a, b interface{ NodeRPC(chain uint64) string }, chains []uint64, l log.Logger) error {
	for _, id := range chains {
		ca, err := p2pClient(ctx, a.NodeRPC(id), l)
		if err != nil {
			return fmt.Errorf("chain %d: %w", id, err)
		}
		cb, err := p2pClient(ctx, b.NodeRPC(id), l)
		if err != nil {
			return fmt.Errorf("chain %d: %w", id, err)
		}
		self, err := ca.Self(ctx)
		if err != nil {
			return fmt.Errorf("chain %d: %w", id, err)
		}
		if len(self.Addresses) == 0 {
			return fmt.Errorf("chain %d: %w", id, errors.New("the peer has no address"))
		}
		if err := cb.ConnectPeer(ctx, self.Addresses[0]); err != nil {
			return fmt.Errorf("chain %d: connect: %w", id, err)
		}
		if err := WaitFor(ctx, fmt.Sprintf("the peers of chain %d", id), func(ctx context.Context) (bool, error) {
			dump, err := cb.Peers(ctx, true)
			return err == nil && len(dump.Peers) > 0, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// chainIDs are the keys in the sequencer's type.
func chainIDs(ids []uint64) []sequence.ChainID {
	out := make([]sequence.ChainID, len(ids))
	for i, id := range ids {
		out[i] = sequence.ChainID(id)
	}
	return out
}
