package devnet

import (
	"context"
	"path/filepath"

	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// embeddedEngine is one chain's op-geth in this process.
type embeddedEngine struct {
	node *embedded.Node
}

// startEmbedded opens the same files as startGeth: a directory can change its mode.
func startEmbedded(chain uint64, g *core.Genesis, dir string, jwt [32]byte, port int, l log.Logger) (*embeddedEngine, error) {
	public := &embedded.Listen{Port: port}
	n, err := embedded.Start(embedded.Config{
		Chain: sequence.ChainID(chain), Genesis: g, DataDir: filepath.Join(dir, gethDir), JWTSecret: jwt,
		HTTP: public, WS: public, Log: l.New("service", "op-geth", "chain", chain),
	})
	if err != nil {
		return nil, err
	}
	return &embeddedEngine{node: n}, nil
}

func (e *embeddedEngine) HTTP() string { return e.node.HTTPEndpoint() }
func (e *embeddedEngine) WS() string   { return e.node.WSEndpoint() }
func (e *embeddedEngine) Auth() string { return e.node.AuthEndpoint() }

func (e *embeddedEngine) Stop(context.Context) error { return e.node.Close() }
