// Package sequencer is the core that ties execution, agreement and the rollup nodes
// together. In each slot it opens the next block of every chain, lets the builder
// order transactions over them, seals them, makes them durable, and hands them to
// the chains' virtual op-nodes. It is the machine that a rotation drives, and it
// gives each driver its sequencer (driver.Config.SequencerFactory).
package sequencer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Clock is the time the sequencer lives in.
type Clock = clock.Clock

// Config of the sequencer.
type Config struct {
	// FillLead and SealLead are how long before a slot's timestamp plain
	// transactions are taken from the pools, and the blocks are sealed.
	FillLead, SealLead time.Duration
	// MinFill is how long a fill may take at least, also when the slot is late.
	MinFill time.Duration
	// Grace is how long a chain that is not ready is waited for before the others go
	// on without it.
	Grace time.Duration
	// Retention is how many blocks below the safe head the ledger keeps per chain. It
	// has to reach below the newest state that an engine has on disk, or a crash leaves
	// a gap that derivation must fill.
	Retention uint64
}

// DefaultConfig has the values that are measured in op-e2e/bench.
func DefaultConfig() Config {
	return Config{
		FillLead: 300 * time.Millisecond, SealLead: 100 * time.Millisecond, MinFill: 50 * time.Millisecond,
		Grace: 5 * time.Second, Retention: 120_000, // op-geth writes its state after 90,128 blocks at the latest
	}
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	switch {
	case c.SealLead < 0 || c.FillLead <= c.SealLead:
		return fmt.Errorf("fill lead %v must be longer than seal lead %v, and both positive", c.FillLead, c.SealLead)
	case c.MinFill <= 0:
		return fmt.Errorf("least fill time %v must be positive", c.MinFill)
	case c.Grace < 0:
		return fmt.Errorf("grace time %v must not be negative", c.Grace)
	}
	return nil
}

// Executor checks messages; *executor.Executor in production.
type Executor interface {
	// Begin starts a slot in which each chain builds on the given parent.
	Begin(slot sequence.Slot, parents map[sequence.ChainID]eth.BlockID) *executor.Slot
	// Commit adds the slot's blocks to the chains' histories.
	Commit(ctx context.Context, s *executor.Slot, sealed map[sequence.ChainID]eth.BlockRef) error
}

// History is what the executor knows of the chains' agreed blocks.
type History interface {
	Head(chain sequence.ChainID) (eth.BlockRef, bool)
	// Rewind forgets the blocks above one.
	Rewind(chain sequence.ChainID, to eth.BlockID) error
	// Sync brings a chain's history to the source's canonical head.
	Sync(ctx context.Context, chain sequence.ChainID, src executor.Source) error
}

// Ledger is the synced log; *ledger.Ledger in production.
type Ledger interface {
	Head(chain sequence.ChainID) (head eth.BlockID, time uint64, ok bool)
	Ancestor(chain sequence.ChainID, number uint64) (eth.BlockID, bool)
	Last() (slot sequence.Slot, subblock common.Hash, ok bool)
	Append(ctx context.Context, r *ledger.Record) error
	Rewind(ctx context.Context, chain sequence.ChainID, to eth.BlockID) error
	Payload(chain sequence.ChainID, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error)
	Slots(from sequence.Slot) iter.Seq2[*ledger.Record, error]
	Refill(ctx context.Context, chain sequence.ChainID, engine ledger.Importer) (ledger.RefillResult, error)
	Prune(ctx context.Context, chain sequence.ChainID, below uint64) error
}

// Bundles is the pool of waiting bundles; *bundlepool.Pool in production.
type Bundles interface {
	builder.Bundles
	Slot() sequence.Slot
	Advance(slot sequence.Slot)
	Agreed(subblocks []*sequence.Subblock) []common.Hash
	Done(hash common.Hash, o bundlepool.Outcome) error
	Status(hash common.Hash) (bundlepool.Status, error)
	Replaced(chain sequence.ChainID, from uint64) (again, undone []common.Hash)
	Settled(chain sequence.ChainID, number uint64)
}

// Observer is told what happened in each slot. It must not block.
type Observer interface {
	SlotSealed(r SlotReport)
	SlotFailed(slot sequence.Slot, err error)
}

// Deps are the parts the sequencer works with.
type Deps struct {
	Log      log.Logger
	Clock    Clock
	Chains   map[sequence.ChainID]Chain
	Executor Executor
	History  History
	Ledger   Ledger
	Bundles  Bundles
	Relayer  builder.Relayer
	Observer Observer // may be nil
	// SaveBundles makes the bundle pool durable. May be nil.
	SaveBundles func() error
	// Fatal is told of errors after which only a new start helps. May be nil.
	Fatal func(error)
	// Rotation makes the rotation that drives the sequencer.
	Rotation func(m rotation.Machine) rotation.Rotation
	// Tamper, if set, changes a slot's blocks behind the executor's back. Tests use it
	// to see what the rest of the system does about a bad block.
	Tamper func(ctx context.Context, slot sequence.Slot, blocks []*builder.Block)
}

// Sequencer is the core. Its exported methods may be called concurrently.
type Sequencer struct {
	cfg      Config
	log      log.Logger
	clock    Clock
	executor Executor
	history  History
	ledger   Ledger
	bundles  Bundles
	builder  *builder.Builder
	relayer  builder.Relayer
	observer Observer
	save     func() error
	fatal    func(error)
	tamper   func(ctx context.Context, slot sequence.Slot, blocks []*builder.Block)
	rotation rotation.Rotation

	chains []*chain // ascending by ID
	byID   map[sequence.ChainID]*chain

	mu     sync.Mutex
	cancel context.CancelFunc // ends the slot in progress
	inSlot map[*chain]bool    // the chains that take part in it
	open   *opened            // what the newest slot started from, for simulations

	// Only used by the rotation's calls, which do not overlap.
	alone   time.Time // since when ready chains wait for one that is not
	waiting string    // for what, as last logged
	parent  common.Hash
	current *slot

	background sync.WaitGroup
	stop       context.CancelFunc
	life       context.Context
}

var _ rotation.Machine = (*Sequencer)(nil)

// New makes a sequencer. It does nothing until Start.
func New(cfg Config, d Deps) (*Sequencer, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if len(d.Chains) == 0 {
		return nil, errors.New("a shared sequencer needs at least one chain")
	}
	s := &Sequencer{
		cfg: cfg, log: d.Log, clock: d.Clock, executor: d.Executor, history: d.History, ledger: d.Ledger, bundles: d.Bundles,
		relayer: d.Relayer, observer: d.Observer, tamper: d.Tamper,
		byID: map[sequence.ChainID]*chain{},
	}
	s.save, s.fatal = d.SaveBundles, d.Fatal
	if s.save == nil {
		s.save = func() error { return nil }
	}
	if s.fatal == nil {
		s.fatal = func(error) {}
	}
	s.builder = builder.New(d.Bundles, s.standing, d.Relayer, d.Clock, d.Log)
	for id, c := range d.Chains {
		if want := c.Engine.Chain(); want != id {
			return nil, fmt.Errorf("chain %s is given the engine of chain %s", id, want)
		}
		ch := &chain{id: id, engine: c.Engine, rollup: c.Rollup}
		s.byID[id] = ch
		s.chains = append(s.chains, ch)
	}
	slices.SortFunc(s.chains, func(a, b *chain) int { return cmp.Compare(a.id, b.id) })
	s.rotation = d.Rotation(s)
	s.life, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Factory is what driver.Config.SequencerFactory of a chain is set to.
func (s *Sequencer) Factory(id sequence.ChainID) driver.SequencerFactory {
	return func(p *driver.SequencerParts) sequencing.SequencerIface {
		c := s.byID[id]
		n := newNode(c, s.clock, s.log, fromDriver(p), func() { s.abort(c) })
		c.attach(n)
		return n
	}
}

// Start brings the engines to the ledger's heads and begins to sequence. The virtual
// nodes are started after it, so that they find the engines as they were.
func (s *Sequencer) Start(ctx context.Context) error {
	if _, parent, ok := s.ledger.Last(); ok {
		s.parent = parent
	}
	if err := s.restoreBundles(); err != nil {
		return fmt.Errorf("reading agreed bundles from the ledger: %w", err)
	}
	// Bundles may come before the first slot does.
	s.bundles.Advance(sequence.Slot(s.clock.Now().Unix()))
	errs := make([]error, len(s.chains))
	var wg sync.WaitGroup
	for i, c := range s.chains {
		wg.Go(func() { errs[i] = s.refill(ctx, c) })
	}
	wg.Wait()
	for i, c := range s.chains {
		if errs[i] != nil {
			// The chain is left out until its engine is back; the others do not wait for it.
			s.log.Error("Engine cannot be brought to the ledger's head yet", "chain", c.id, "err", errs[i])
			c.trouble.set(errs[i])
		}
	}
	s.alone = s.clock.Now()
	return s.rotation.Start(s.life)
}

// Stop ends the slot in progress and waits until nothing is built any more.
func (s *Sequencer) Stop(ctx context.Context) error {
	s.stop() // ends the slot in progress too
	err := s.rotation.Stop(ctx)
	s.background.Wait()
	return err
}

// abort ends the slot in progress before anything of it is handed over, if the chain
// takes part in it. The others' slots are not to suffer from a chain in trouble.
func (s *Sequencer) abort(c *chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inSlot[c] {
		s.cancel()
	}
}
