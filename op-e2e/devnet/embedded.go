package devnet

import (
	"context"
	"path/filepath"

	"github.com/ethereum/go-ethereum/log"

	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-service/client"
	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// embeddedEngine is one chain's op-geth in this process.
type embeddedEngine struct {
	node *embedded.Node
}

var _ opnodeconfig.L2EndpointSetup = (*embeddedEngine)(nil)

// smallCache is for many engines on one machine.
var smallCache = embedded.Cache{Database: 16, State: 16, Snapshot: 16}

// startEmbedded opens the same files as startGeth: a directory can change its mode.
func startEmbedded(cfg engineConfig) (*embeddedEngine, error) {
	public := &embedded.Listen{Port: cfg.Port}
	ec := embedded.Config{
		Chain: sequence.ChainID(cfg.Chain), Genesis: cfg.Genesis, DataDir: filepath.Join(cfg.Dir, gethDir), JWTSecret: cfg.JWT,
		Archive: cfg.Archive, Ingress: cfg.Ingress, HTTP: public, WS: public, Log: cfg.Log.New("service", "op-geth", "chain", cfg.Chain),
	}
	if cfg.Small {
		ec.Cache = smallCache
	}
	if p := cfg.P2P; p != nil {
		ec.P2P = &embedded.P2P{Listen: embedded.Listen{Port: p.Port}, Key: p.Key, Peers: p.Peers}
	}
	n, err := embedded.Start(ec)
	if err != nil {
		return nil, err
	}
	return &embeddedEngine{node: n}, nil
}

func (e *embeddedEngine) HTTP() string { return e.node.HTTPEndpoint() }
func (e *embeddedEngine) WS() string   { return e.node.WSEndpoint() }
func (e *embeddedEngine) Auth() string { return e.node.AuthEndpoint() }

// Check and Setup make it an op-node's L2 endpoint. All of the Engine API is served in the process, and
// the client is a new one for each start of a virtual node, which closes it.
func (e *embeddedEngine) Check() error { return nil }

func (e *embeddedEngine) Setup(_ context.Context, _ log.Logger, cfg *rollup.Config, _ opmetrics.RPCMetricer) (client.RPC, *sources.EngineClientConfig, error) {
	return client.NewBaseRPCClient(e.node.Stack().Attach(), client.WithCallTimeout(callTimeout)), sources.EngineClientDefaultConfig(cfg), nil
}

func (e *embeddedEngine) Stop(context.Context) error { return e.node.Close() }
