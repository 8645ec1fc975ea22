// Package devnet runs the whole system on one machine: an L1, op-geth and op-node with
// the shared sequencer for a set of rollups, a batcher per rollup and a proposer. It is
// behind `make devnet`, `make demo` and the system tests.
package devnet

import (
	"context"
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

	"github.com/ethereum/go-ethereum/log"
	"github.com/gofrs/flock"

	"github.com/ethereum-optimism/optimism/op-batcher/batcher"
	"github.com/ethereum-optimism/optimism/op-proposer/proposer"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
)

// Devnet is a running devnet.
type Devnet struct {
	cfg     Config
	log     log.Logger
	dir     string
	lock    *flock.Flock // nil until the directory is ours
	genesis *genesis.Output
	keys    *genesis.Keys
	chains  []uint64 // ascending

	l1      *L1
	ops     []*Operator // of the set as it began
	joiners []*Operator

	mu       sync.Mutex
	batchers map[uint64]*batcher.BatcherService
	proposer *proposer.ProposerService
	failed   chan error
}

// Start makes a devnet, or goes on with the one in cfg.Dir. When it returns, all
// services run and every op-node answers. On an error everything is stopped.
func Start(ctx context.Context, cfg Config) (_ *Devnet, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	d := &Devnet{
		cfg: cfg, log: cfg.Log, dir: cfg.Dir, chains: slices.Sorted(slices.Values(cfg.Chains)),
		batchers: map[uint64]*batcher.BatcherService{}, failed: make(chan error, 1),
	}
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
	if cfg.Bare {
		return d, nil
	}
	if err := d.startOperators(ctx); err != nil {
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
	dir := genesisPath(d.dir)
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
		gc.Chains[i].BlockTime = d.cfg.blockTime(gc.Chains[i].ID)
	}
	gc.MessageExpiry = d.cfg.MessageExpiry
	gc.CacheDir = filepath.Join(filepath.Dir(filepath.Dir(artifacts)), "genesis")
	if d.genesis, err = genesis.Build(ctx, gc); err != nil {
		return err
	}
	return d.genesis.Write(dir)
}

func genesisPath(root string) string { return filepath.Join(root, genesisDir) }

func (d *Devnet) startL1() (err error) {
	d.l1, err = StartL1(L1Config{
		Dir: filepath.Join(d.dir, "l1"), Genesis: d.genesis.L1, BlockTime: d.cfg.L1BlockTime,
		HTTPPort: d.cfg.Ports.L1, WSPort: d.cfg.Ports.L1, BeaconPort: d.cfg.Ports.Beacon, Log: d.log,
	})
	return err
}

// startOperators lays out the set and starts it.
func (d *Devnet) startOperators(ctx context.Context) error {
	plans, err := d.plans()
	if err != nil {
		return err
	}
	for _, p := range plans {
		o, err := d.newOperator(p)
		if err != nil {
			return err
		}
		if p.Index < d.cfg.operators() {
			d.ops = append(d.ops, o)
		} else {
			d.joiners = append(d.joiners, o)
		}
	}
	if d.cfg.Separate {
		return each(ctx, d.ops, (*Operator).Start)
	}
	// One operator's engines after the other's: each finds those before it, and no two
	// connect to each other at the same time, of which connections op-geth may refuse both.
	for _, o := range d.ops {
		if err := o.startEngines(ctx); err != nil {
			return o.wrap(err)
		}
	}
	return each(ctx, d.ops, (*Operator).StartNode)
}

// each does something with operators at once.
func each(ctx context.Context, ops []*Operator, f func(*Operator, context.Context) error) error {
	errs := make([]error, len(ops))
	var wg sync.WaitGroup
	for i, o := range ops {
		wg.Go(func() { errs[i] = f(o, ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// urls are where all operators serve something, the first operator's first.
func (d *Devnet) urls(of func(*Operator) string) []string {
	var out []string
	for _, o := range d.ops {
		out = append(out, of(o))
	}
	return out
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
		l2 := d.urls(func(o *Operator) string { return o.EngineRPC(id) })
		rollup := d.urls(func(o *Operator) string { return o.NodeRPC(id) })
		b, err := startBatcher(ctx, id, d.l1.HTTP(), l2, rollup, key, d.cfg.Blobs, d.log)
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
	d.proposer, err = startProposer(ctx, d.l1.HTTP(), d.urls((*Operator).NodeURL), d.genesis.Addresses[first].DisputeGameFactoryProxy, d.cfg.ProposalInterval, key, d.log)
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
	all := slices.Concat(d.ops, d.joiners)
	for _, o := range all {
		o.hangUp()
	}
	add("the operators", each(ctx, all, (*Operator).Stop))
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
