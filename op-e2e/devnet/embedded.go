package devnet

import (
	"context"
	"path/filepath"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// embeddedEngine is one chain's op-geth in this process.
type embeddedEngine struct {
	node *embedded.Node
}

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

func (e *embeddedEngine) Stop(context.Context) error { return e.node.Close() }
