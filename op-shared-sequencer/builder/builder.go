// Package builder is the leader's part of a slot: over the open blocks of all chains
// it makes one global order of plain transactions, bundles and relays. Plain
// transactions come from the engines' own pools, bundles from the bundle pool.
package builder

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Block is the open block of one chain.
type Block struct {
	Chain   sequence.ChainID
	Session engine.Session
	// NoTxPool: the block takes no user transactions and no cross-chain work.
	NoTxPool bool
	// L1Origin: blocks with the same one are taken back together by an L1 reorg, and
	// only they can hold a bundle that is on all its chains or on none.
	L1Origin eth.BlockID
}

// Checker is the executor's view of the slot under construction.
type Checker interface {
	// Apply checks the messages that txs executed, and indexes their logs. After an
	// error nothing of the call is indexed.
	Apply(chain sequence.ChainID, txs []executor.Tx) error
	Mark() executor.Mark
	Rollback(executor.Mark) error
}

// Bundles are the waiting bundles.
type Bundles interface {
	// Pending lists the bundles that may be executed in the slot, in the order to try them.
	Pending(slot sequence.Slot) []*bundlepool.Entry
	// Reserved lists transactions that only run inside their bundle, for the chain's block in the slot.
	Reserved(chain sequence.ChainID, slot sequence.Slot) []common.Hash
	// Get finds a bundle in whatever state.
	Get(hash common.Hash) (*bundlepool.Entry, bool)
	// Changed is closed when a bundle becomes pending.
	Changed() <-chan struct{}
}

// Standing finds the transactions of a pending bundle that stand in agreed blocks
// already, because it was executed before.
type Standing func(ctx context.Context, bundle common.Hash) ([]Kept, error)

// Relayer signs the transactions of relay steps.
type Relayer interface {
	Address() common.Address
	Transaction(dest sequence.ChainID, header engine.Header, nonce uint64, src sequence.ChainID, slot sequence.Slot, log *types.Log) ([]byte, error)
}

// ChainError says that the open block of a chain cannot be built on any more.
type ChainError struct {
	Chain sequence.ChainID
	Err   error
}

func (e *ChainError) Error() string { return fmt.Sprintf("chain %s: %v", e.Chain, e.Err) }
func (e *ChainError) Unwrap() error { return e.Err }

// Builder makes the order of slots.
type Builder struct {
	bundles  Bundles
	standing Standing
	relay    Relayer
	policy   relay.Policy
	fills    engine.Order
	failsafe func() bool
	clock    clock.Clock
	metrics  Metrics
	log      log.Logger

	spent *spending
}

// Metrics counts what is left out. Its methods must not block.
type Metrics interface {
	// MessageRefused: a transaction that executes a message was left out, at one of Place….
	MessageRefused(place string, chain sequence.ChainID, rule executor.Rule)
	// BundlesPassedOver: waiting bundles were not tried in a slot, because of one of Passed….
	BundlesPassedOver(reason string, n int)
	// PoolBehind: a block has no plain transactions, because its pool was behind.
	PoolBehind(chain sequence.ChainID)
	// RelayerBalance is what the relayer has on a chain, in wei, before it pays for a relay.
	RelayerBalance(chain sequence.ChainID, wei *big.Int)
}

// Places where messages are refused.
const (
	PlaceFill   = "fill"   // a transaction of an engine's pool
	PlaceBundle = "bundle" // a transaction of a bundle, which then fails
	PlaceRelay  = "relay"  // a relay of a plain transaction's message
)

// Reasons why a bundle is not tried in a slot.
const (
	PassedFailsafe   = "failsafe"   // it executes messages
	PassedChains     = "chains"     // a chain of it has no block, or one with another L1 origin
	PassedTime       = "time"       // there was none left
	PassedUnreadable = "unreadable" // what stands of it could not be read
)

// New makes a builder. relayer signs relays, of what policy says; without it there are none.
// Fills take from the pools in the order that fills says.
// While failsafe says so, nothing is included that executes messages. Builds are made one
// at a time.
func New(bundles Bundles, standing Standing, relayer Relayer, policy relay.Policy, fills engine.Order, failsafe func() bool, clk clock.Clock, m Metrics, l log.Logger) *Builder {
	return &Builder{bundles: bundles, standing: standing, relay: relayer, policy: policy, fills: fills, failsafe: failsafe, clock: clk, metrics: m, log: l}
}

// Times are when the parts of a slot's construction happen.
type Times struct {
	Fill time.Time     // plain transactions are taken from the pools; bundles run before and after
	Cut  time.Time     // nothing is added any more
	Rest time.Duration // of the time until the cut, for relays and bundles after the fill
	// MinFill is how long a fill may take at least, also when the slot is late.
	MinFill time.Duration
}

// Order is what a builder made of a slot.
type Order struct {
	Steps   []sequence.Step
	Results [][]engine.TxResult // of each step's transactions
	Bundles []Tried
	Fill    time.Duration // spent on plain transactions
	Bundled time.Duration // spent on bundles
	Relayed Relayed       // messages of plain transactions
	Relays  time.Duration // spent on them
	// When; zero if there was none.
	FillBegan, BundlesBegan, BundlesEnded time.Time
	Fills                                 []Filled // ascending by chain
}

// Filled is when a chain's engine took transactions from its pool.
type Filled struct {
	Chain      sequence.ChainID
	Start, End time.Time
}

// add puts steps behind those so far, with the results of each.
func (o *Order) add(results [][]engine.TxResult, steps ...sequence.Step) {
	o.Steps, o.Results = append(o.Steps, steps...), append(o.Results, results...)
}

// Executed says whether a bundle was executed.
func (o *Order) Executed() bool {
	return slices.ContainsFunc(o.Bundles, func(t Tried) bool { return t.Outcome.Kind == bundlepool.Execute })
}

// Tried is a bundle that was run in the slot, and what became of it.
type Tried struct {
	Hash    common.Hash
	Outcome *bundlepool.Outcome
}

// run is the construction of one slot.
type run struct {
	*Builder
	slot   sequence.Slot
	blocks map[sequence.ChainID]*Block // those that take user transactions
	list   []*Block                    // the same, ascending by chain
	check  Checker
	times  Times
	tried  map[common.Hash]bool
	ahead  map[common.Hash]bool                             // of bundles that are in the blocks already
	names  map[bundlepool.Name]bool                         // of bundles that were executed
	cost   int                                              // of the conditions of bundles that were executed
	sent   []relay.Log                                      // messages that may be relayed yet
	passed struct{ chains, failsafe, late, unreadable int } // over: bundles that were not tried
	order  Order
}

// Build orders transactions over the open blocks, ascending by chain, until the cut.
// Bundles run as they arrive; plain traffic of no chain waits for them: at the fill
// time it is taken into all blocks in parallel. An error means that the slot cannot
// be built on these blocks; a *ChainError names the chain it is about. Bundles ahead are in the
// blocks already and may still wait in the pool, because it is not agreed yet: they are left alone.
func (b *Builder) Build(ctx context.Context, slot sequence.Slot, blocks []*Block, check Checker, times Times, ahead []common.Hash) (*Order, error) {
	r := &run{Builder: b, slot: slot, blocks: map[sequence.ChainID]*Block{}, check: check, times: times, tried: map[common.Hash]bool{}, ahead: map[common.Hash]bool{}, names: map[bundlepool.Name]bool{}}
	for _, bl := range blocks {
		if !bl.NoTxPool {
			r.blocks[bl.Chain] = bl
			r.list = append(r.list, bl)
		}
	}
	for _, hash := range ahead {
		r.ahead[hash] = true
		if e, ok := b.bundles.Get(hash); ok {
			r.ran(e)
		}
	}
	if err := r.runBundlesUntil(ctx, times.Fill); err != nil {
		return nil, err
	}
	if err := r.fill(ctx); err != nil {
		return nil, err
	}
	if err := r.relays(ctx); err != nil {
		return nil, err
	}
	if err := r.runBundlesUntil(ctx, times.Cut); err != nil {
		return nil, err
	}
	for why, n := range map[string]int{
		PassedChains: r.passed.chains, PassedFailsafe: r.passed.failsafe, PassedTime: r.passed.late, PassedUnreadable: r.passed.unreadable,
	} {
		if n > 0 {
			b.metrics.BundlesPassedOver(why, n)
		}
	}
	return &r.order, ctx.Err()
}

// runBundlesUntil runs bundles as they come until the given time; those that wait
// already are tried also when the time has passed.
func (r *run) runBundlesUntil(ctx context.Context, until time.Time) error {
	for {
		changed := r.bundles.Changed()
		if err := r.runPending(ctx, until); err != nil {
			return err
		}
		left := until.Sub(r.clock.Now())
		if left <= 0 {
			return ctx.Err()
		}
		timer := r.clock.NewTimer(left)
		select {
		case <-changed:
		case <-timer.Ch():
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// fairShare is how much time a bundle must have had for running out of it to count.
const fairShare = 150 * time.Millisecond

// runPending tries every waiting bundle once. When the slot is late, one is still tried,
// for as long as a fill gets.
func (r *run) runPending(ctx context.Context, until time.Time) error {
	start, tried := r.clock.Now(), len(r.tried)
	defer func() {
		now := r.clock.Now()
		r.order.Bundled += now.Sub(start)
		if len(r.tried) == tried {
			return
		}
		if r.order.BundlesEnded = now; r.order.BundlesBegan.IsZero() {
			r.order.BundlesBegan = start
		}
	}()
	r.passed.chains, r.passed.failsafe, r.passed.late = 0, 0, 0 // the last call says what was passed over
	pending := r.bundles.Pending(r.slot)
	for i, e := range pending {
		switch {
		case r.tried[e.Hash] || r.ahead[e.Hash] || r.named(e):
			continue
		case r.cost+e.Bundle.Terms.Cost() > sequence.MaxSubblockConditionCost:
			r.passed.late++
			continue
		case !r.open(e.Bundle):
			r.passed.chains++
			continue
		case r.failsafe() && e.Executes():
			r.passed.failsafe++
			continue
		}
		if len(r.tried) > 0 && !r.clock.Now().Before(until) {
			for _, e := range pending[i:] { // they wait for the next slot
				if !r.tried[e.Hash] && !r.ahead[e.Hash] {
					r.passed.late++
				}
			}
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r.tried[e.Hash] = true
		now := r.clock.Now()
		share := max(until.Sub(now), r.times.MinFill)
		at := Attempt{
			Slot: r.slot, Blocks: r.blocks, Check: r.check, Relayer: r.relay,
			OutOfTime: func() bool { return r.clock.Now().After(now.Add(share)) }, Fair: share >= fairShare, Metrics: r.metrics,
		}
		kept, err := r.standing(ctx, e.Hash)
		if err != nil {
			r.passed.unreadable++
			r.log.Warn("Bundle waits: what stands of it cannot be read", "bundle", e.Hash, "slot", r.slot, "err", err)
			continue
		}
		outcome, steps, err := at.Run(ctx, e.Bundle, kept)
		if err != nil {
			return err
		}
		if outcome.Kind == bundlepool.Execute {
			r.cost += e.Bundle.Terms.Cost()
			r.ran(e)
		}
		r.order.Bundles = append(r.order.Bundles, Tried{e.Hash, outcome})
		r.order.add(at.Results, steps...)
	}
	return nil
}

// ran notes whose place cannot be taken any more.
func (r *run) ran(e *bundlepool.Entry) {
	if n, ok := e.Name(); ok {
		r.names[n] = true
	}
}

// named says whether a bundle was executed that this one would have replaced, had it come
// in time.
func (r *run) named(e *bundlepool.Entry) bool {
	n, ok := e.Name()
	return ok && r.names[n]
}

// open says whether all chains of the bundle take transactions in this slot, in blocks
// that stand or fall together.
func (r *run) open(b *sequence.Bundle) bool {
	chains := b.Chains()
	for _, id := range chains {
		if r.blocks[id] == nil || r.blocks[id].L1Origin != r.blocks[chains[0]].L1Origin {
			return false
		}
	}
	return true
}

// maxRefills bounds how often a fill is made again without a transaction that
// executed an invalid message.
const maxRefills = 3

// fill takes transactions of the pools into all blocks in parallel.
func (r *run) fill(ctx context.Context) error {
	start := r.clock.Now()
	r.order.FillBegan = start
	r.order.Fills = make([]Filled, len(r.list))
	defer func() { r.order.Fill += r.clock.Since(start) }()
	budget := max(r.times.Cut.Sub(start)-r.times.Rest, r.times.MinFill)
	filled := make([]*filled, len(r.list))
	if err := r.each(func(i int, b *Block) (err error) {
		filled[i], err = r.fillBlock(ctx, b, engine.FillOptions{MaxTime: budget, Skip: r.bundles.Reserved(b.Chain, r.slot), Interop: !r.failsafe(), Order: r.fills})
		r.order.Fills[i] = Filled{b.Chain, start, r.clock.Now()}
		return err
	}); err != nil {
		return err
	}
	for i, b := range r.list {
		if err := r.take(ctx, b, filled[i]); err != nil {
			return err
		}
	}
	return nil
}

// filled is what a fill has put into a block.
type filled struct {
	opts  engine.FillOptions
	point *engine.Savepoint // before it; nil if nothing of it executes messages
	txs   []engine.TxResult
}

func (r *run) fillBlock(ctx context.Context, b *Block, opts engine.FillOptions) (*filled, error) {
	res, before, err := b.Session.Fill(ctx, opts)
	if errors.Is(err, engine.ErrPoolBehind) { // a block without plain transactions is better than none
		r.metrics.PoolBehind(b.Chain)
	} else if err != nil {
		return nil, fmt.Errorf("filling from the pool: %w", err)
	}
	return &filled{opts, before, res}, nil
}

// take checks a fill and puts it into the order. The pool asked whether messages are valid
// when it took their transactions in; one that is not valid any more, because it has
// expired or a reorg took its origin, is rolled back with the whole fill, which is made
// again without it. Of these only one: the fill after that takes no more of them.
func (r *run) take(ctx context.Context, b *Block, f *filled) error {
	for try := 0; ; try++ {
		txs, err := Checked(f.txs)
		if err != nil {
			return &ChainError{b.Chain, err}
		}
		if err = r.check.Apply(b.Chain, txs); err == nil {
			r.plain(b.Chain, f.txs)
			r.note(b.Chain, f.txs)
			if f.point == nil {
				return nil
			}
			if err := b.Session.Release(ctx, *f.point); err != nil {
				return &ChainError{b.Chain, fmt.Errorf("releasing savepoint: %w", err)}
			}
			return nil
		}
		var bad *executor.MessageError
		if !errors.As(err, &bad) {
			return fmt.Errorf("checking messages of chain %s: %w", b.Chain, err)
		}
		if f.point == nil { // the engine is not what it should be
			return &ChainError{b.Chain, fmt.Errorf("a fill has to be taken back and has no savepoint: %w", err)}
		}
		r.metrics.MessageRefused(PlaceFill, b.Chain, bad.Rule)
		r.log.Warn("A pool transaction executes an invalid message, it is left out", "chain", b.Chain, "slot", r.slot, "tx", bad.Tx, "err", err)
		if err := b.Session.Rollback(ctx, *f.point); err != nil {
			return &ChainError{b.Chain, fmt.Errorf("rolling a fill back: %w", err)}
		}
		if try == maxRefills {
			return nil // without plain transactions this time
		}
		opts := f.opts
		opts.MaxTime = max(r.times.Cut.Sub(r.clock.Now())/2, r.times.MinFill)
		opts.Interop = opts.Interop && try == 0 && bad.Rule != executor.RuleHistory
		if bad.Rule == executor.RuleHistory || bad.Rule == executor.RuleOrder || errors.Is(bad, interop.ErrFuture) {
			opts.Skip = append(opts.Skip, bad.Tx) // it may become valid
		} else {
			opts.Reject = append(opts.Reject, bad.Tx)
		}
		if f, err = r.fillBlock(ctx, b, opts); err != nil {
			return &ChainError{b.Chain, err}
		}
	}
}

// plain puts the transactions of a fill into the order.
func (r *run) plain(chain sequence.ChainID, filled []engine.TxResult) {
	step := sequence.Step{Chain: chain}
	var results []engine.TxResult
	for i := range filled {
		if filled[i].Included() {
			step.Transactions, results = append(step.Transactions, filled[i].Raw), append(results, filled[i])
		}
	}
	if len(step.Transactions) > 0 {
		r.order.add([][]engine.TxResult{results}, step)
	}
}

// each runs f on all blocks in parallel and names the chain of the first error.
func (r *run) each(f func(i int, b *Block) error) error {
	errs := make([]error, len(r.list))
	var wg sync.WaitGroup
	for i, b := range r.list {
		wg.Go(func() { errs[i] = f(i, b) })
	}
	wg.Wait()
	for i, b := range r.list {
		if errs[i] != nil {
			return &ChainError{b.Chain, errs[i]}
		}
	}
	return nil
}
