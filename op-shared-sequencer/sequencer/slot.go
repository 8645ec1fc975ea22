package sequencer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// errAborted: a chain of the slot was stopped, reset, or moved by derivation.
var errAborted = errors.New("slot aborted: a chain in it was stopped, reset or moved by derivation")

// slot is one slot under construction.
type slot struct {
	s      *Sequencer
	time   sequence.Slot
	ctx    context.Context // ends when a chain of the slot is stopped or reset
	cancel context.CancelFunc
	// bounded: a chain that failed is tried alone, and the others need the time after.
	bounded bool
	blocks  []*block // ascending by chain

	check  *executor.Slot
	order  *builder.Order
	report SlotReport
}

// block is one chain's block in a slot, on its way from opening to hand-over.
type block struct {
	*member
	resets int // of the node when the slot began

	origin   eth.L1BlockRef
	attrs    *eth.PayloadAttributes
	opening  sequence.Opening
	session  engine.Session
	envelope *eth.ExecutionPayloadEnvelope
	ref      eth.L2BlockRef
}

// Propose builds the slot's blocks and returns them as the slot's one subblock.
func (s *Sequencer) Propose(ctx context.Context, turn rotation.Turn) (*sequence.Subblock, error) {
	sl := s.current
	if sl == nil || sl.time != turn.Slot || turn.Index != 0 {
		return nil, fmt.Errorf("no slot %d is in progress", turn.Slot)
	}
	stop := context.AfterFunc(ctx, sl.cancel)
	defer stop()
	sub, err := sl.build(sl.ctx)
	if err == nil {
		return sub, nil
	}
	if sl.aborted() {
		err = errAborted
	}
	var broken *builder.ChainError
	if sl.bounded && errors.Is(sl.ctx.Err(), context.DeadlineExceeded) {
		s.blame(sl.blocks[0].chain)
	}
	if !sl.aborted() && errors.As(err, &broken) {
		s.blame(s.byID[broken.Chain])
		switch {
		case engineFailed(broken.Err):
			s.byID[broken.Chain].trouble.set(broken.Err)
		case errors.Is(broken.Err, engine.ErrInvalidAttributes):
			sl.block(broken.Chain).node.backOff(time.Second)
		}
	}
	s.giveUp()
	return nil, s.fail(turn.Slot, err)
}

// probationDelay is how long a chain rests that made a slot fail.
const probationDelay = time.Second

// blame notes that a slot failed because of a chain.
func (s *Sequencer) blame(c *chain) {
	c.failures++
	c.retry = s.clock.Now().Add(probationDelay)
}

// fail tells the observer that a turn ended without a slot.
func (s *Sequencer) fail(slot sequence.Slot, err error) error {
	if s.observer != nil {
		s.observer.SlotFailed(slot, err)
	}
	return err
}

// build runs the slot up to its sealed blocks. Nothing outside of the slot has changed when it fails.
func (sl *slot) build(ctx context.Context) (*sequence.Subblock, error) {
	s := sl.s
	watch := stopwatch{clock: s.clock, last: s.clock.Now()}
	sl.report.Slot = sl.time
	if err := sl.chooseOrigins(ctx); err != nil {
		return nil, err
	}
	if err := sl.each(func(b *block) error { return b.prepare(ctx, s.clock) }); err != nil {
		return nil, err
	}
	watch.lap(&sl.report.Attributes)
	if err := sl.each(func(b *block) (err error) {
		b.session, err = b.engine.Open(ctx, b.opening.Parent(), b.attrs)
		return err
	}); err != nil {
		return nil, fmt.Errorf("opening slot %d: %w", sl.time, err)
	}
	watch.lap(&sl.report.Open)

	blocks, err := sl.begin()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.open = sl.opened()
	s.mu.Unlock()
	at := time.Unix(int64(sl.time), 0)
	sl.order, err = s.builder.Build(ctx, sl.time, blocks, sl.check, builder.Times{
		Fill: at.Add(-s.cfg.FillLead), Cut: at.Add(-s.cfg.SealLead), MinFill: s.cfg.MinFill,
	})
	if err != nil {
		return nil, fmt.Errorf("building slot %d: %w", sl.time, err)
	}
	sl.report.Fill, sl.report.Bundles = sl.order.Fill, sl.order.Bundled
	if s.tamper != nil {
		s.tamper(ctx, sl.time, blocks)
	}

	watch.restart()
	if err := sl.each(func(b *block) error { return b.seal(ctx) }); err != nil {
		return nil, fmt.Errorf("sealing slot %d: %w", sl.time, err)
	}
	watch.lap(&sl.report.Seal)
	return sl.subblock()
}

// begin starts the executor's slot with the forced transactions of all blocks.
func (sl *slot) begin() ([]*builder.Block, error) {
	parents := make(map[sequence.ChainID]eth.BlockID, len(sl.blocks))
	var blocks []*builder.Block
	for _, b := range sl.blocks {
		parents[b.id] = b.head.ID()
		blocks = append(blocks, &builder.Block{
			Chain: b.id, Session: b.session, NoTxPool: b.attrs.NoTxPool, L1Origin: b.origin.ID(),
		})
	}
	sl.check = sl.s.executor.Begin(sl.time, parents)
	for _, b := range sl.blocks {
		txs, err := builder.Checked(b.session.Forced())
		if err != nil {
			return nil, &builder.ChainError{Chain: b.id, Err: err}
		}
		// The CrossL2Inbox refuses messages that deposits execute, so this cannot fail
		// unless engine and executor disagree; nothing could be left out then.
		if err := sl.check.Apply(b.id, txs); err != nil {
			return nil, fmt.Errorf("checking the forced transactions of chain %s: %w", b.id, err)
		}
	}
	return blocks, nil
}

// subblock puts the slot into the form that operators agree on.
func (sl *slot) subblock() (*sequence.Subblock, error) {
	sub := &sequence.Subblock{Slot: sl.time, Parent: sl.s.parent, Steps: sl.order.Steps}
	for _, b := range sl.blocks {
		p := b.envelope.ExecutionPayload
		sub.Openings = append(sub.Openings, b.opening)
		sub.Results = append(sub.Results, sequence.Result{
			Chain: b.id, Transactions: uint64(len(p.Transactions)), GasUsed: uint64(p.GasUsed), ReceiptsRoot: common.Hash(p.ReceiptsRoot),
		})
		sub.Seals = append(sub.Seals, sequence.Seal{Chain: b.id, BlockHash: p.BlockHash, Number: uint64(p.BlockNumber)})
	}
	return sub, sub.Check()
}

// Commit makes the slot durable and hands its blocks to the rollup nodes.
func (s *Sequencer) Commit(ctx context.Context, sub *sequence.Subblock) error {
	sl := s.current
	if sl == nil || sl.time != sub.Slot {
		return fmt.Errorf("slot %d is not in progress", sub.Slot)
	}
	defer s.giveUp()
	if sl.aborted() {
		return s.fail(sub.Slot, errAborted)
	}
	watch := stopwatch{clock: s.clock, last: s.clock.Now()}
	record := &ledger.Record{Subblocks: []*sequence.Subblock{sub}, Payloads: map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}}
	for _, b := range sl.blocks {
		record.Payloads[b.id] = b.envelope
	}
	// A bundle that came in during this slot is known on disk before it is agreed.
	if sl.order.Executed() {
		if err := s.save(); err != nil {
			return s.fail(sub.Slot, fmt.Errorf("saving the bundles of slot %d: %w", sub.Slot, err))
		}
	}
	if err := s.ledger.Append(ctx, record); err != nil {
		if errors.Is(err, ledger.ErrBroken) {
			s.fatal(err) // whether the slot is in it shows when it is opened again
		}
		return s.fail(sub.Slot, fmt.Errorf("writing slot %d to the ledger: %w", sub.Slot, err))
	}
	s.parent = sub.Hash()
	for _, b := range sl.blocks {
		b.failures = 0
	}
	watch.lap(&sl.report.Log)

	// From here on the slot is agreed. A chain that fails does not hold back the
	// others: it is handed its block later, by reconcile.
	errs := make([]error, len(sl.blocks))
	var wg sync.WaitGroup
	for i, b := range sl.blocks {
		wg.Go(func() { errs[i] = s.handOver(sl, b) })
	}
	wg.Wait()
	watch.lap(&sl.report.HandOver)
	if err := s.executor.Commit(ctx, sl.check, sl.sealed()); err != nil {
		// reconcile finds the history behind and has it synced from the engine.
		s.log.Debug("Messages of the slot could not be added to the history yet", "slot", sl.time, "err", err)
	}
	watch.lap(&sl.report.Index)
	for i, b := range sl.blocks {
		if errs[i] != nil {
			s.log.Warn("Sealed block could not be handed over yet", "chain", b.id, "slot", sl.time, "block", b.ref, "err", errs[i])
			if engineFailed(errs[i]) {
				b.trouble.set(errs[i])
			}
		}
	}
	s.settle(sl)
	return nil
}

// settle tells the bundle pool and the observer what became of the slot.
func (s *Sequencer) settle(sl *slot) {
	for _, t := range sl.order.Bundles {
		if err := s.bundles.Done(t.Hash, *t.Outcome); err != nil {
			s.log.Warn("Outcome of a bundle was not taken", "bundle", t.Hash, "slot", sl.time, "err", err)
		}
		sl.report.count(t.Outcome)
	}
	for _, b := range sl.blocks {
		s.bundles.Settled(b.id, b.node.safeHead().Number)
		if b.ref.Number%pruneEvery == 0 {
			s.prune(b)
		}
	}
	at := time.Unix(int64(sl.time), 0)
	sl.report.Late = s.clock.Now().Sub(at)
	for _, b := range sl.blocks {
		sl.report.Blocks = append(sl.report.Blocks, BlockReport{
			Chain: b.id, Ref: b.ref, Transactions: len(b.envelope.ExecutionPayload.Transactions),
			GasUsed: uint64(b.envelope.ExecutionPayload.GasUsed),
		})
	}
	if s.observer != nil {
		s.observer.SlotSealed(sl.report)
	}
}

// handOver stores a sealed block, makes it its chain's unsafe head and gossips it.
func (s *Sequencer) handOver(sl *slot, b *block) error {
	err := b.engine.Insert(sl.ctx, b.ref.Hash)
	// A supernode that rewinds a chain stops its node without waiting: what is handed
	// over after that would put the rewound blocks back.
	if sl.aborted() || !b.node.Active() || b.node.resets() != b.resets {
		return errAborted
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("storing the sealed block: %w", err)
	}
	return b.node.handOver(b.envelope, b.ref, s.clock.Now())
}

// handOver gives a block to the driver and to gossip.
func (n *node) handOver(env *eth.ExecutionPayloadEnvelope, ref eth.L2BlockRef, started time.Time) error {
	n.parts.gossip.Gossip(env)
	defer n.parts.gossip.Clear()
	err := n.parts.controller.ProcessPayload(n.parts.ctx, env, ref, started)
	switch {
	case err == nil:
		if n.parts.configs != nil {
			n.parts.configs.add(n.parts.rollup, env.ExecutionPayload)
		}
	case errors.Is(err, opengine.ErrStaleBuild), errors.Is(err, opengine.ErrPayloadDenied):
		// The chain has moved on; the next look at it finds out where to.
	default:
		n.parts.metrics.RecordSequencingError()
	}
	return err
}

// block is the slot's block of a chain.
func (sl *slot) block(chain sequence.ChainID) *block {
	for _, b := range sl.blocks {
		if b.id == chain {
			return b
		}
	}
	return nil
}

// sealed names the slot's blocks.
func (sl *slot) sealed() map[sequence.ChainID]eth.BlockRef {
	out := make(map[sequence.ChainID]eth.BlockRef, len(sl.blocks))
	for _, b := range sl.blocks {
		out[b.id] = eth.BlockRef{Hash: b.ref.Hash, Number: b.ref.Number, ParentHash: b.ref.ParentHash, Time: b.ref.Time}
	}
	return out
}

func (sl *slot) aborted() bool { return sl.ctx.Err() != nil }

// discard ends the sessions that were not sealed.
func (sl *slot) discard() {
	for _, b := range sl.blocks {
		if b.session == nil || b.envelope != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := b.session.Discard(ctx); err != nil && !errors.Is(err, engine.ErrSessionClosed) {
			sl.s.log.Debug("Session was not discarded, it expires by itself", "chain", b.id, "slot", sl.time, "err", err)
		}
		cancel()
	}
}

// seal ends the chain's block.
func (b *block) seal(ctx context.Context) (err error) {
	if b.envelope, err = b.session.Seal(ctx); err != nil {
		return err
	}
	b.ref, err = derive.PayloadToBlockRef(b.rollup, b.envelope.ExecutionPayload)
	return err
}

// each runs f on all blocks in parallel. The first error is returned with its chain.
func (sl *slot) each(f func(b *block) error) error {
	errs := make([]error, len(sl.blocks))
	var wg sync.WaitGroup
	for i, b := range sl.blocks {
		wg.Go(func() { errs[i] = f(b) })
	}
	wg.Wait()
	for i, b := range sl.blocks {
		if errs[i] != nil {
			return &builder.ChainError{Chain: b.id, Err: errs[i]}
		}
	}
	return nil
}

// stopwatch measures the parts of a slot.
type stopwatch struct {
	clock Clock
	last  time.Time
}

func (w *stopwatch) lap(d *time.Duration) {
	now := w.clock.Now()
	*d = now.Sub(w.last)
	w.last = now
}

func (w *stopwatch) restart() { w.last = w.clock.Now() }
