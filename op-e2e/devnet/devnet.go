// Package devnet runs the whole system on one machine: an L1, op-geth and op-node with
// the shared sequencer for a set of rollups, a batcher per rollup and a proposer. It is
// behind `make devnet`, `make demo` and the system tests.
package devnet

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"
	"github.com/gofrs/flock"

	"github.com/ethereum-optimism/optimism/op-batcher/batcher"
	"github.com/ethereum-optimism/optimism/op-proposer/proposer"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// l2Engine is one chain's op-geth, in this process or in its own.
type l2Engine interface {
	HTTP() string
	WS() string
	Auth() string
	Stop(ctx context.Context) error
}

// Devnet is a running devnet.
type Devnet struct {
	cfg     Config
	log     log.Logger
	dir     string
	lock    *flock.Flock // nil until the directory is ours
	genesis *genesis.Output
	keys    *genesis.Keys
	jwt     [32]byte
	chains  []uint64 // ascending

	l1      *L1
	engines map[uint64]l2Engine
	ready   []engine.Engine // embedded engines

	mu        sync.Mutex
	node      *service.Service
	nodePort  int
	seqPort   int
	batchers  map[uint64]*batcher.BatcherService
	proposer  *proposer.ProposerService
	eth       map[uint64]*ethclient.Client
	rollups   map[uint64]*sources.RollupClient
	superNode *sources.SuperNodeClient
	sequencer *rpc.Client
	failed    chan error
}

// Start makes a devnet, or goes on with the one in cfg.Dir. When it returns, all
// services run and every op-node answers. On an error everything is stopped.
func Start(ctx context.Context, cfg Config) (_ *Devnet, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	d := &Devnet{
		cfg: cfg, log: cfg.Log, dir: cfg.Dir, chains: slices.Sorted(slices.Values(cfg.Chains)),
		engines: map[uint64]l2Engine{}, batchers: map[uint64]*batcher.BatcherService{},
		eth: map[uint64]*ethclient.Client{}, rollups: map[uint64]*sources.RollupClient{},
		failed: make(chan error, 1),
	}
	// Only a devnet's own tools reach the engines; the secret is as public as the keys.
	d.jwt = crypto.Keccak256Hash([]byte("op-shared-sequencer devnet"))
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, d.Stop(stop))
		}
	}()
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "devnet-"); err != nil {
			return nil, err
		}
		d.cfg.RemoveDir = true
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx); err != nil {
		return nil, err
	}
	if err := d.startL1(); err != nil {
		return nil, err
	}
	if err := d.startEngines(ctx); err != nil {
		return nil, err
	}
	if err := d.StartNode(ctx); err != nil {
		return nil, err
	}
	if err := d.StartBatchers(ctx); err != nil {
		return nil, err
	}
	if !cfg.NoProposer {
		if err := d.startProposer(ctx); err != nil {
			return nil, err
		}
	}
	return d, d.writeEndpoints()
}

// prepare makes or loads the genesis.
func (d *Devnet) prepare(ctx context.Context) error {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(d.dir, "lock"))
	if ok, err := lock.TryLock(); err != nil {
		return fmt.Errorf("lock %s: %w", d.dir, err)
	} else if !ok {
		return fmt.Errorf("another devnet runs in %s: stop it, or use another directory", d.dir)
	}
	d.lock = lock
	if err := d.cfg.keep(d.dir); err != nil {
		return err
	}
	// Endpoints of an earlier run would send tools to nowhere.
	if err := os.Remove(filepath.Join(d.dir, EndpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var err error
	if d.keys, err = genesis.DevKeys(); err != nil {
		return err
	}
	dir := filepath.Join(d.dir, "genesis")
	d.genesis, err = genesis.Load(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	artifacts := d.cfg.Artifacts
	if artifacts == "" {
		if artifacts, err = genesis.FindArtifacts("."); err != nil {
			return err
		}
	}
	gc := genesis.DevConfig(artifacts, now(), d.chains...)
	for i := range gc.Chains {
		gc.Chains[i].BlockTime = d.cfg.L2BlockTime
	}
	gc.MessageExpiry = d.cfg.MessageExpiry
	gc.CacheDir = filepath.Join(filepath.Dir(filepath.Dir(artifacts)), "genesis")
	if d.genesis, err = genesis.Build(ctx, gc); err != nil {
		return err
	}
	return d.genesis.Write(dir)
}

func (d *Devnet) startL1() (err error) {
	d.l1, err = StartL1(L1Config{
		Dir: filepath.Join(d.dir, "l1"), Genesis: d.genesis.L1, BlockTime: d.cfg.L1BlockTime,
		HTTPPort: d.cfg.Ports.L1, WSPort: d.cfg.Ports.L1, BeaconPort: d.cfg.Ports.Beacon, Log: d.log,
	})
	return err
}

// startEngines opens all engines at once: each takes half a second.
func (d *Devnet) startEngines(ctx context.Context) error {
	made, errs := make([]l2Engine, len(d.chains)), make([]error, len(d.chains))
	var wg sync.WaitGroup
	for i, id := range d.chains {
		wg.Go(func() { made[i], errs[i] = d.startEngine(ctx, id) })
	}
	wg.Wait()
	for i, id := range d.chains {
		if errs[i] != nil {
			continue
		}
		d.engines[id] = made[i]
		if e, ok := made[i].(*embeddedEngine); ok {
			d.ready = append(d.ready, e.node.Engine())
		}
	}
	return errors.Join(errs...)
}

func (d *Devnet) startEngine(ctx context.Context, id uint64) (l2Engine, error) {
	dir := filepath.Join(d.dir, "engines", strconv.FormatUint(id, 10))
	port := d.cfg.Ports.Engines[id]
	if d.cfg.Engines == Process {
		return startGeth(ctx, gethConfig{
			Binary: d.cfg.Geth, Chain: id, Genesis: d.genesis.L2[id], Dir: dir, JWT: d.jwt, Port: port, Log: d.log,
		})
	}
	return startEmbedded(id, d.genesis.L2[id], dir, d.jwt, port, d.log)
}

// StartNode runs op-node with the shared sequencer. It is part of Start, and for tests
// that stopped the node. The node comes back at the same ports.
func (d *Devnet) StartNode(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node != nil {
		return errors.New("op-node runs already")
	}
	nc := nodeConfig{
		Dir: filepath.Join(d.dir, "node"), Genesis: d.genesis, JWT: d.jwt,
		L1:      l1Endpoints{Config: d.genesis.L1.Config, RPC: d.l1.HTTP(), Beacon: d.l1.Beacon()},
		Engines: map[uint64]string{}, Port: d.nodePort, ConfDepth: d.cfg.ConfDepth, Sequence: true,
		P2P: d.cfg.P2P, Signers: map[uint64]*ecdsa.PrivateKey{},
	}
	if nc.Port == 0 {
		nc.Port = d.cfg.Ports.Node
	}
	for _, id := range d.chains {
		nc.Engines[id] = d.engines[id].Auth()
		key, err := d.keys.SequencerP2P(id)
		if err != nil {
			return err
		}
		nc.Signers[id] = key
	}
	cfg, err := nc.config()
	if err != nil {
		return err
	}
	cfg.SharedSequencer = config.DefaultSharedSequencer()
	s := &cfg.SharedSequencer
	s.Enabled, s.Chains, s.DataDir = true, chainIDs(d.chains), filepath.Join(d.dir, "sequencer")
	s.RPC = config.RPC{ListenAddr: "127.0.0.1", ListenPort: d.seqPort}
	if s.RPC.ListenPort == 0 {
		s.RPC.ListenPort = d.cfg.Ports.SharedSequencer
	}
	if s.RelayerKey, err = d.keys.Relayer(); err != nil {
		return err
	}
	if d.cfg.Engines == Process {
		s.Engines = enginesOf(nc.Engines, d.jwt)
	}
	if d.cfg.Sequencer != nil {
		d.cfg.Sequencer(s)
	}
	opts := service.Options{Version: "devnet", RequestStop: func(err error) { d.fail(fmt.Errorf("op-node asks to stop: %w", err)) }}
	if d.cfg.Engines == Embedded {
		opts.Engines = d.ready
	}
	if d.cfg.Options != nil {
		d.cfg.Options(&opts)
	}
	node, err := service.New(d.log.New("service", "op-node"), cfg, opts)
	if err != nil {
		return err
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	d.node = node
	d.nodePort, d.seqPort = urlPort(node.NodeURL()), urlPort(node.SharedSequencerURL())
	return d.awaitNode(ctx)
}

// awaitNode waits until each chain's op-node has looked at its engine.
func (d *Devnet) awaitNode(ctx context.Context) error {
	for _, id := range d.chains {
		c := d.rollups[id]
		if c == nil {
			var err error
			if c, err = rollupClient(ctx, d.node.NodeURL()+"/"+strconv.FormatUint(id, 10), d.log); err != nil {
				return err
			}
			d.rollups[id] = c
		}
		if err := awaitSyncStatus(ctx, id, c); err != nil {
			return err
		}
	}
	if d.superNode == nil {
		var err error
		if d.superNode, err = superNodeClient(ctx, d.node.NodeURL(), d.log); err != nil {
			return err
		}
	}
	return nil
}

// StopNode stops op-node cleanly.
func (d *Devnet) StopNode(ctx context.Context) error {
	d.mu.Lock()
	node := d.node
	d.node = nil
	d.mu.Unlock()
	if node == nil {
		return nil
	}
	return node.Stop(ctx)
}

// StartBatchers runs a batcher per chain; part of Start, and for tests that stopped them.
func (d *Devnet) StartBatchers(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.NoBatcher {
		return nil
	}
	for _, id := range d.chains {
		if d.batchers[id] != nil {
			continue
		}
		key, err := d.keys.Batcher(id)
		if err != nil {
			return err
		}
		b, err := startBatcher(ctx, id, d.l1.HTTP(), d.engines[id].HTTP(), d.NodeRPC(id), key, d.cfg.Blobs, d.log)
		if err != nil {
			return err
		}
		d.batchers[id] = b
	}
	return nil
}

// StopBatchers stops the batchers.
func (d *Devnet) StopBatchers() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for id, b := range d.batchers {
		if err := stopNow(b); err != nil {
			errs = append(errs, fmt.Errorf("op-batcher of chain %d: %w", id, err))
		}
		delete(d.batchers, id)
	}
	return errors.Join(errs...)
}

func (d *Devnet) startProposer(ctx context.Context) error {
	first := d.chains[0]
	key, err := d.keys.Proposer(first)
	if err != nil {
		return err
	}
	d.proposer, err = startProposer(ctx, d.l1.HTTP(), d.NodeURL(), d.genesis.Addresses[first].DisputeGameFactoryProxy, d.cfg.ProposalInterval, key, d.log)
	return err
}

// Stop ends everything, each part before what it uses.
func (d *Devnet) Stop(ctx context.Context) error {
	var errs []error
	add := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", what, err))
		}
	}
	add("the batchers", d.StopBatchers())
	if d.proposer != nil {
		add("op-proposer", stopNow(d.proposer))
		d.proposer = nil
	}
	for _, c := range d.eth {
		c.Close()
	}
	for _, c := range d.rollups {
		c.Close()
	}
	if d.superNode != nil {
		d.superNode.Close()
	}
	if d.sequencer != nil {
		d.sequencer.Close()
	}
	d.eth, d.rollups, d.superNode, d.sequencer = nil, nil, nil, nil
	add("op-node", d.StopNode(ctx))
	for _, id := range d.chains {
		if e := d.engines[id]; e != nil {
			stop, cancel := context.WithTimeout(ctx, engineStopTime)
			add(fmt.Sprintf("the engine of chain %d", id), e.Stop(stop))
			cancel()
		}
	}
	d.engines = nil
	if d.l1 != nil {
		add("L1", d.l1.Close())
		d.l1 = nil
	}
	if d.lock == nil {
		return errors.Join(errs...)
	}
	add("the lock", d.lock.Unlock())
	d.lock = nil
	if d.cfg.RemoveDir {
		add("the directory", os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *Devnet) fail(err error) {
	d.log.Error("The devnet cannot go on", "err", err)
	select {
	case d.failed <- err:
	default:
	}
}

// Failed gives the reason when a part ended that the devnet cannot do without.
func (d *Devnet) Failed() <-chan error { return d.failed }

// urlPort is the port of a URL, 0 if it has none.
func urlPort(s string) int {
	u, err := url.Parse(s)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(u.Port())
	return n
}
