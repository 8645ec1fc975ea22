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
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Clock is the time the sequencer lives in.
type Clock = clock.Clock

// Config of the sequencer.
type Config struct {
	// FillLead and SealLead are how long before a slot's timestamp plain
	// transactions are taken from the pools, and the blocks are sealed. Fills begin earlier
	// where they take longer, up to half the time between subblocks before the seal (pace).
	FillLead, SealLead time.Duration
	// MinFill is how long a fill may take at least, also when the slot is late.
	MinFill time.Duration
	// Order is in which order this operator's fills take from the pools. Empty: engine.Priority.
	Order engine.Order
	// Subblocks is how many subblocks a slot has while the set keeps time. Operators
	// that agree with each other need the same.
	Subblocks int
	// Patience is how long a chain that is about to be ready is waited for within a
	// call: its last block is being handed over, or L1 is a moment behind.
	Patience time.Duration
	// MaxSkew is how far the clocks of operators may be apart: a slot that another
	// operator proposes earlier than that before its time is refused.
	MaxSkew time.Duration
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
		Order: engine.Priority, Subblocks: 1, Patience: 150 * time.Millisecond, MaxSkew: 500 * time.Millisecond,
		Grace: 5 * time.Second, Retention: 120_000, // op-geth writes its state after 90,128 blocks at the latest
	}
}

// maxSubblocks bounds the subblocks of a slot: each costs a round of votes.
const maxSubblocks = 20

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	switch {
	case c.SealLead < 0 || c.FillLead <= c.SealLead:
		return fmt.Errorf("fill lead %v must be longer than seal lead %v, and both positive", c.FillLead, c.SealLead)
	case c.MinFill <= 0:
		return fmt.Errorf("least fill time %v must be positive", c.MinFill)
	case c.Grace < 0:
		return fmt.Errorf("grace time %v must not be negative", c.Grace)
	case c.Subblocks < 1 || c.Subblocks > maxSubblocks:
		return fmt.Errorf("%d subblocks per slot: there must be 1 to %d", c.Subblocks, maxSubblocks)
	case c.Patience < 0 || c.MaxSkew < 0:
		return fmt.Errorf("patience %v and clock skew %v must not be negative", c.Patience, c.MaxSkew)
	case c.Order != "" && c.Order.Check() != nil:
		return fmt.Errorf("order of fills %w", c.Order.Check())
	}
	return nil
}

// Executor checks messages; *executor.Executor in production.
type Executor interface {
	// Begin starts a slot in which each chain builds on the given parent.
	Begin(slot sequence.Slot, parents map[sequence.ChainID]eth.BlockID) *executor.Slot
	// Failsafe says whether blocks that this operator leads may execute messages.
	Failsafe() bool
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
	Builds(chain sequence.ChainID, parent common.Hash) bool
	Following(chain sequence.ChainID, parent common.Hash) (*ledger.Record, error)
	Advance(ctx context.Context, chain sequence.ChainID, payload *eth.ExecutionPayloadEnvelope) error
	Agreement() ([]byte, error)
	Refill(ctx context.Context, chain sequence.ChainID, engine ledger.Importer) (ledger.RefillResult, error)
	Prune(ctx context.Context, chain sequence.ChainID, below uint64) error
	Finalize(ctx context.Context, chain sequence.ChainID, block eth.BlockID) error
}

// Bundles is the pool of waiting bundles; *bundlepool.Pool in production.
type Bundles interface {
	builder.Bundles
	Slot() sequence.Slot
	Advance(slot sequence.Slot)
	Agreed(subblocks []*sequence.Subblock, ran map[common.Hash]bundlepool.Ran) []common.Hash
	Done(hash common.Hash, o bundlepool.Outcome) error
	Status(hash common.Hash) (bundlepool.Status, error)
	Get(hash common.Hash) (*bundlepool.Entry, bool)
	Replaced(chain sequence.ChainID, from uint64) (again, undone []common.Hash)
	Settled(chain sequence.ChainID, number uint64)
}

// Observer is told what happened in each slot. It must not block, nor change the report.
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
	Relays   relay.Policy // of messages that plain transactions send
	Observer Observer     // may be nil
	Listener Listener     // may be nil
	Metrics  Metrics      // may be nil
	// SaveBundles makes the bundle pool durable. May be nil.
	SaveBundles func() error
	// Fatal is told of errors after which only a new start helps. May be nil.
	Fatal func(error)
	// Rotation makes the rotation that drives the sequencer.
	Rotation func(m rotation.Machine) (rotation.Rotation, error)
	// Go runs what is done in the background, and returns at once. nil: a goroutine. A
	// simulation runs it in an order of its own.
	Go func(f func())
	// NoKeepers: the chains are not looked after in the background; Keep does that. Drafts
	// then do not wait for chains to become ready.
	NoKeepers bool
	// Tamper, if set, changes a slot's blocks behind the executor's back. Tests use it
	// to see what the rest of the system does about a bad block.
	Tamper func(ctx context.Context, slot sequence.Slot, blocks []*builder.Block)
}

// Sequencer is the core. Its exported methods may be called concurrently, but for those
// of rotation.Machine, which say so themselves.
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
	listener Listener
	metrics  Metrics
	save     func() error
	fatal    func(error)
	tamper   func(ctx context.Context, slot sequence.Slot, blocks []*builder.Block)
	rotation rotation.Rotation
	pace     pace

	chains []*chain // ascending by ID
	byID   map[sequence.ChainID]*chain

	// turn is held by whoever works on the slot under construction: a call of the
	// rotation, or this operator's draft. The fields behind it change only then, and under mu.
	turn     sync.Mutex
	building *slot     // the builder works on
	alone    time.Time // since when ready chains wait for one that is not
	waiting  string    // for what, as last logged
	adopting sync.Mutex

	mu      sync.Mutex
	tip     common.Hash     // the subblock committed last
	current *slot           // that some subblocks of are committed, but not the last
	trial   *attempt        // the subblock that was run on top of it
	draft   *draft          // of this operator's next subblock
	agreed  rotation.Agreed // how the subblock being committed was
	since   time.Time       // when the last subblock was committed: how long this one takes
	cancel  context.CancelFunc
	inCall  map[*chain]bool // the chains that the call in progress works on; cancel ends it
	open    *opened         // what the newest slot started from, for simulations

	settled    time.Duration // pollSettled, but for tests
	background sync.WaitGroup
	run        func(f func())
	keepers    bool
	stop       context.CancelFunc
	life       context.Context
}

var (
	_ rotation.Machine = (*Sequencer)(nil)
	_ rotation.Witness = (*Sequencer)(nil)
)

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
		relayer: d.Relayer, observer: d.Observer, listener: d.Listener, metrics: d.Metrics, tamper: d.Tamper,
		byID: map[sequence.ChainID]*chain{}, settled: pollSettled,
	}
	s.pace.init(cfg.FillLead - cfg.SealLead)
	s.save, s.fatal, s.run, s.keepers = d.SaveBundles, d.Fatal, d.Go, !d.NoKeepers
	if s.run == nil {
		s.run = func(f func()) { s.background.Go(f) }
	}
	if s.save == nil {
		s.save = func() error { return nil }
	}
	if s.fatal == nil {
		s.fatal = func(error) {}
	}
	if s.metrics == nil {
		s.metrics = NoMetrics{}
	}
	standing := func(ctx context.Context, hash common.Hash) ([]builder.Kept, error) {
		return s.building.standing(ctx, hash)
	}
	s.builder = builder.New(d.Bundles, standing, d.Relayer, d.Relays, cmp.Or(cfg.Order, engine.Priority), func() bool { return d.Executor.Failsafe() }, d.Clock, s.metrics, d.Log)
	for id, c := range d.Chains {
		if want := c.Engine.Chain(); want != id {
			return nil, fmt.Errorf("chain %s is given the engine of chain %s", id, want)
		}
		ch := &chain{id: id, engine: c.Engine, rollup: c.Rollup, woken: make(chan struct{}, 1)}
		ch.member.Store(true)
		s.byID[id] = ch
		s.chains = append(s.chains, ch)
	}
	slices.SortFunc(s.chains, func(a, b *chain) int { return cmp.Compare(a.id, b.id) })
	s.life, s.stop = context.WithCancel(context.Background())
	var err error
	if s.rotation, err = d.Rotation(s); err != nil {
		return nil, err
	}
	return s, nil
}

// Factory is what driver.Config.SequencerFactory of a chain is set to.
func (s *Sequencer) Factory(id sequence.ChainID) driver.SequencerFactory {
	return func(p *driver.SequencerParts) sequencing.SequencerIface {
		return s.Attach(id, fromDriver(p, s.clock))
	}
}

// Attach makes the sequencer of a chain's new driver: what Factory does, for drivers
// other than upstream's.
func (s *Sequencer) Attach(id sequence.ChainID, p Parts) sequencing.SequencerIface {
	c := s.byID[id]
	n := newNode(c, s.clock, s.log, p, func() { s.abort(c) })
	c.attach(n)
	return n
}

// Start brings the engines to the ledger's heads and begins to sequence. The virtual
// nodes are started after it, so that they find the engines as they were.
func (s *Sequencer) Start(ctx context.Context) error {
	if _, parent, ok := s.ledger.Last(); ok {
		s.tip = parent
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
			s.noteTrouble(c, errs[i])
		}
	}
	s.since = s.clock.Now()
	s.alone = s.since
	if s.keepers {
		for _, c := range s.chains {
			s.background.Go(func() { s.keep(c) })
		}
	}
	return s.rotation.Start(s.life)
}

// Stop ends the slot in progress and waits until nothing is built any more.
func (s *Sequencer) Stop(ctx context.Context) error {
	s.stop() // ends the call in progress too
	err := s.rotation.Stop(ctx)
	s.dropDraft()
	s.background.Wait()
	s.turn.Lock()
	defer s.turn.Unlock()
	s.forget()
	return err
}

// forget ends what is under construction.
func (s *Sequencer) forget() {
	s.dropTrial()
	s.mu.Lock()
	sl := s.current
	s.current = nil
	s.mu.Unlock()
	if sl != nil {
		sl.discard()
	}
}

// abort ends the call in progress, if it works on the chain. The others' slots are not
// to suffer from a chain in trouble.
func (s *Sequencer) abort(c *chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inCall[c] {
		s.cancel()
	}
}

// call is a piece of work on chains, for as long as they are lent to it.
type call struct {
	s      *Sequencer
	ctx    context.Context // ends when a chain of the call is stopped or reset
	cancel context.CancelFunc
	end    func()
}

// begin begins a call. The caller holds the turn.
func (s *Sequencer) begin(ctx context.Context) *call {
	c := &call{s: s}
	c.ctx, c.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, c.cancel)
	s.mu.Lock()
	s.cancel, s.inCall = c.cancel, map[*chain]bool{}
	s.mu.Unlock()
	c.end = func() {
		s.mu.Lock()
		s.inCall = nil
		s.mu.Unlock()
		stop()
		c.cancel()
	}
	return c
}

// take borrows the blocks' chains; each block's err says why its chain cannot be worked
// on. A chain that is about to be ready is waited for.
func (c *call) take(sl *slot) {
	s := c.s
	deadline := s.clock.Now().Add(s.cfg.Patience)
	for {
		busy := false
		for _, b := range sl.blocks {
			if b.taken {
				continue
			}
			s.mu.Lock()
			s.inCall[b.chain] = true // before the look at it: a signal from then on ends the call
			s.mu.Unlock()
			if b.err = sl.take(b); b.err != nil {
				s.mu.Lock()
				delete(s.inCall, b.chain)
				s.mu.Unlock()
				busy = busy || errors.Is(b.err, errBusy) || errors.Is(b.err, errMoved)
			}
		}
		if !busy || c.ctx.Err() != nil || !s.clock.Now().Before(deadline) {
			return
		}
		_ = s.clock.SleepCtx(c.ctx, pollBusy)
	}
}

// pollBusy is how often a chain that is about to be ready is looked at.
const pollBusy = 2 * time.Millisecond

// release gives the blocks' chains back.
func (sl *slot) release() {
	for _, b := range sl.blocks {
		if b.taken {
			b.taken = false
			b.giveBack()
		}
	}
}
