package devnet

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p/enode"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// devnetJWT protects the engines' authenticated ports. Only a devnet's own tools reach
// them; the secret is as public as the keys.
func devnetJWT() [32]byte { return crypto.Keccak256Hash([]byte("op-shared-sequencer devnet")) }

// localOperator is an operator in this process: its engines, which may be processes of
// their own, and its op-node. Not for concurrent use.
type localOperator struct {
	plan    *operatorPlan
	genesis *genesis.Output
	keys    *genesis.Keys
	log     log.Logger
	// sequencer and options change what the op-node is given. May be nil.
	sequencer func(*config.SharedSequencer)
	options   func(*service.Options)
	// fail is told when the op-node asks to be stopped.
	fail func(error)

	engines map[uint64]l2Engine
	node    *service.Service
}

// startEngines opens all engines at once: each takes half a second.
func (o *localOperator) startEngines(ctx context.Context) error {
	made, errs := make([]l2Engine, len(o.plan.Chains)), make([]error, len(o.plan.Chains))
	var wg sync.WaitGroup
	for i, id := range o.plan.Chains {
		wg.Go(func() { made[i], errs[i] = o.startEngine(ctx, id) })
	}
	wg.Wait()
	o.engines = map[uint64]l2Engine{}
	for i, id := range o.plan.Chains {
		if errs[i] == nil {
			o.engines[id] = made[i]
			o.plan.Engine[id] = urlPort(made[i].HTTP())
		}
	}
	return errors.Join(errs...)
}

func (o *localOperator) startEngine(ctx context.Context, id uint64) (l2Engine, error) {
	cfg := engineConfig{
		Chain: id, Genesis: o.genesis.L2[id], Dir: filepath.Join(o.plan.Dir, "engines", strconv.FormatUint(id, 10)), JWT: devnetJWT(),
		Port: o.plan.Engine[id], Small: o.plan.Small, Archive: o.plan.Archive, Log: o.log,
	}
	if o.plan.Filter {
		cfg.Ingress = localURL(o.plan.RPC)
	}
	if port, ok := o.plan.EngineP2P[id]; ok {
		p2p := &engineP2P{Port: port}
		var err error
		if p2p.Key, err = o.keys.EngineNode(o.plan.Index, id); err != nil {
			return nil, err
		}
		for _, url := range o.plan.EnginePeers[id] {
			n, err := enode.ParseV4(url)
			if err != nil {
				return nil, fmt.Errorf("peer of the engine of chain %d: %w", id, err)
			}
			p2p.Peers = append(p2p.Peers, n)
		}
		cfg.P2P = p2p
	}
	if o.plan.Mode == Process {
		return startGeth(ctx, gethConfig{engineConfig: cfg, Binary: o.plan.Geth})
	}
	return startEmbedded(cfg)
}

// startNode runs the op-node on the engines. It comes back at the same ports.
func (o *localOperator) startNode(ctx context.Context) error {
	if o.node != nil {
		return errors.New("op-node runs already")
	}
	p := o.plan
	nc := nodeConfig{
		Dir: filepath.Join(p.Dir, "node"), Genesis: o.genesis, JWT: devnetJWT(),
		L1:      l1Endpoints{Config: o.genesis.L1.Config, RPC: p.L1, Beacon: p.Beacon},
		Engines: map[uint64]string{}, Embedded: map[uint64]*embeddedEngine{}, Port: p.Node, Metrics: p.Metrics, ConfDepth: p.ConfDepth, L1Poll: p.L1Poll, Sequence: true,
		P2P: p.P2P, Signers: map[uint64]*ecdsa.PrivateKey{},
	}
	var ready []engine.Engine
	for _, id := range p.Chains {
		nc.Engines[id] = o.engines[id].Auth()
		if e, ok := o.engines[id].(*embeddedEngine); ok {
			ready, nc.Embedded[id] = append(ready, e.node.Engine()), e
		}
		key, err := o.keys.SequencerP2P(id)
		if err != nil {
			return err
		}
		nc.Signers[id] = key
	}
	cfg, err := nc.config()
	if err != nil {
		return err
	}
	if err := o.sharedConfig(&cfg.SharedSequencer); err != nil {
		return err
	}
	if p.Mode == Process {
		cfg.SharedSequencer.Engines = enginesOf(nc.Engines, devnetJWT())
	}
	if o.sequencer != nil {
		o.sequencer(&cfg.SharedSequencer)
	}
	opts := service.Options{
		Version: "devnet", Engines: ready,
		RequestStop: func(err error) { o.fail(fmt.Errorf("op-node asks to stop: %w", err)) },
	}
	if o.options != nil {
		o.options(&opts)
	}
	node, err := service.New(o.log.New("service", "op-node"), cfg, opts)
	if err != nil {
		return err
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	o.node = node
	p.Node, p.RPC, p.Status = urlPort(node.NodeURL()), urlPort(node.SharedSequencerURL()), urlPort(node.StatusPageURL())
	p.Subblocks = urlPort(node.SubblocksURL())
	return nil
}

// sharedConfig fills in the shared sequencer's part of the configuration.
func (o *localOperator) sharedConfig(s *config.SharedSequencer) (err error) {
	p := o.plan
	*s = config.DefaultSharedSequencer()
	p.Tuning.apply(s)
	s.Enabled, s.Chains, s.DataDir = true, chainIDs(p.Chains), filepath.Join(p.Dir, sequencerDir)
	s.RPC = config.RPC{ListenAddr: "127.0.0.1", ListenPort: p.RPC}
	if p.StatusPage {
		s.Status = config.RPC{ListenAddr: "127.0.0.1", ListenPort: p.Status}
	}
	s.Relays.Mode = cmp.Or(p.Relays, s.Relays.Mode)
	if p.Streams {
		s.Streams = config.RPC{ListenAddr: "127.0.0.1", ListenPort: p.Subblocks}
	}
	if s.RelayerKey, err = o.keys.Relayer(); err != nil {
		return err
	}
	if p.Operators == "" {
		return nil
	}
	s.Rotation = config.CometBFT
	s.Agreement.Listen, s.Agreement.Peers = p.Listen, p.Peers
	if s.Agreement.Operators, err = operators.LoadGenesis(p.Operators); err != nil {
		return err
	}
	s.Agreement.OperatorKey, err = o.keys.Operator(p.Index)
	return err
}

func (o *localOperator) stopNode(ctx context.Context) error {
	node := o.node
	o.node = nil
	if node == nil {
		return nil
	}
	return node.Stop(ctx)
}

// stop ends the op-node, then the engines.
func (o *localOperator) stop(ctx context.Context) error {
	var errs []error
	if err := o.stopNode(ctx); err != nil {
		errs = append(errs, fmt.Errorf("stop op-node: %w", err))
	}
	for _, id := range o.plan.Chains {
		e := o.engines[id]
		if e == nil {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, engineStopTime)
		if err := e.Stop(bounded); err != nil {
			errs = append(errs, fmt.Errorf("stop the engine of chain %d: %w", id, err))
		}
		cancel()
	}
	o.engines = nil
	return errors.Join(errs...)
}

func enginesOf(auth map[uint64]string, jwt [32]byte) map[sequence.ChainID]config.Engine {
	out := map[sequence.ChainID]config.Engine{}
	for id, u := range auth {
		out[sequence.ChainID(id)] = config.Engine{URL: u, JWT: jwt}
	}
	return out
}
