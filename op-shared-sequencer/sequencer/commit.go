package sequencer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Agreed is the agreement of the newest durable slot.
func (s *Sequencer) Agreed() []byte {
	a, err := s.ledger.Agreement()
	if err != nil {
		s.fatal(fmt.Errorf("reading the newest agreement of the ledger: %w", err))
	}
	return a
}

// Commit takes an agreed subblock.
func (s *Sequencer) Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error {
	hash, began := s.hashOf(sub), s.clock.Now()
	s.mu.Lock()
	a, d := s.trial, s.draft
	var gone *slot // that the subblock takes the place of
	if sub.Index == 0 {
		gone = s.current
	}
	if a != nil && a.hash == hash && !sub.Last() && d != nil && d.base == hash && gone == nil {
		// The draft of the next subblock is built on it already, and goes on.
		s.committed(ctx, a, began)
		s.mu.Unlock()
		s.settleSubblock(a)
		return nil
	}
	s.mu.Unlock()
	s.dropDraft()
	s.turn.Lock()
	defer s.turn.Unlock()
	c := s.begin(ctx)
	defer c.end()
	if gone != nil {
		s.abandon(c.ctx, gone)
	}
	if a == nil || a.hash != hash {
		s.metrics.SubblockUnverified()
		var err error
		if a, err = s.follow(c, sub, hash); err != nil {
			return fmt.Errorf("committing subblock %d of slot %d: %w", sub.Index, sub.Slot, err)
		}
	}
	s.mu.Lock()
	s.committed(ctx, a, began)
	s.mu.Unlock()
	if !sub.Last() {
		s.settleSubblock(a)
		return nil
	}
	return s.finish(c, a, agreement)
}

// committed makes the attempt part of what is agreed. The caller holds mu.
func (s *Sequencer) committed(ctx context.Context, a *attempt, at time.Time) {
	a.keep()
	if sl := a.slot; !a.ranAt.IsZero() {
		sl.report.Agree += at.Sub(a.ranAt)
		sl.timeline.add(Span{StageAgree, 0, a.index, a.ranAt, at})
	}
	if s.agreed.Height != 0 {
		a.slot.report.Turns = append(a.slot.report.Turns, s.agreed.Turn)
	}
	s.trial, s.tip, s.since = nil, a.hash, s.clock.Now()
	if s.current = a.slot; a.sub.Last() {
		s.current = nil
	}
}

// follow makes an attempt of a subblock that was agreed without this operator, or against
// its vote. Its chains are brought to it as far as they can be.
func (s *Sequencer) follow(c *call, sub *sequence.Subblock, hash common.Hash) (*attempt, error) {
	s.dropTrial()
	s.mu.Lock()
	sl := s.current
	s.mu.Unlock()
	if sub.Index == 0 {
		sl = s.proposedSlot(sub)
		parents := map[sequence.ChainID]eth.BlockID{}
		for _, b := range sl.blocks {
			parents[b.id] = b.opening.Parent()
		}
		sl.check = s.executor.Begin(sl.time, parents)
		s.bundles.Advance(max(sl.time, s.newest()))
	} else if sl == nil || sl.time != sub.Slot || sl.next() != sub.Index {
		return nil, fmt.Errorf("%w: no slot %d with %d subblocks is under construction", ErrOutOfPlace, sub.Slot, sub.Index)
	}
	return &attempt{slot: sl, index: sub.Index, sub: sub, hash: hash}, nil
}

// abandon gives up a slot of which only some subblocks were agreed: L1 has taken back
// what it builds on.
func (s *Sequencer) abandon(ctx context.Context, sl *slot) {
	s.metrics.SlotAbandoned()
	s.log.Warn("Agreed subblocks were taken back before their slot was sealed", "slot", sl.time, "subblocks", len(sl.agreed), "why", sl.void(ctx))
	for _, b := range sl.blocks {
		s.bundles.Replaced(b.id, b.opening.ParentNumber+1)
	}
	sl.discard()
}

// settleSubblock tells the bundle pool what became of the bundles of a committed subblock.
func (s *Sequencer) settleSubblock(a *attempt) {
	s.publish(a)
	defer s.tell(a)
	sl := a.slot
	sl.report.Subblocks++
	if a.order == nil {
		before := len(sl.report.seen)
		for run := range a.sub.Bundles() {
			sl.report.seen = append(sl.report.seen, run[0].Bundle)
		}
		if len(sl.report.seen) > before {
			s.bundles.Agreed(sl.agreed, sl.ran)
			sl.report.Executed += len(sl.report.seen) - before
		}
		return
	}
	sl.report.Led++
	for _, t := range a.order.Bundles {
		if err := s.bundles.Done(t.Hash, *t.Outcome); err != nil {
			s.log.Warn("Outcome of a bundle was not taken", "bundle", t.Hash, "slot", sl.time, "err", err)
		}
		sl.report.count(t.Outcome)
	}
}

// finish makes an agreed slot durable and hands its blocks to the rollup nodes. A chain
// that cannot follow now does so later, from the ledger.
func (s *Sequencer) finish(c *call, a *attempt, agreement []byte) error {
	sl, ctx := a.slot, c.ctx
	watch := sl.watch(a.index)
	s.complete(c, sl)
	if a.ranAt.IsZero() { // it was not run before it was agreed on
		watch.lap(StageVerify, &sl.report.Verify)
	} else {
		watch.last = s.clock.Now()
	}
	record := &ledger.Record{Subblocks: sl.agreed, Payloads: map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}, Agreement: agreement}
	for _, b := range sl.blocks {
		if b.envelope == nil {
			continue
		}
		if err := s.inLine(ctx, b); err != nil {
			s.log.Warn("Agreed block is made again later", "chain", b.id, "slot", sl.time, "why", err)
			s.metrics.BlockDelayed(b.id, DelayLedger)
			b.drop()
		} else {
			record.Payloads[b.id] = b.envelope
		}
	}
	// A bundle that came in during this slot is known on disk before it is agreed.
	if sl.report.Executed > 0 || slices.ContainsFunc(a.sub.Steps, func(st sequence.Step) bool { return st.Bundle != (common.Hash{}) }) {
		if err := s.save(); err != nil {
			sl.release()
			return s.lost(sl, fmt.Errorf("saving the bundles of slot %d: %w", sl.time, err))
		}
	}
	if err := s.ledger.Append(context.WithoutCancel(ctx), record); err != nil {
		sl.release()
		if errors.Is(err, ledger.ErrBroken) {
			s.fatal(err) // whether the slot is in it shows when it is opened again
		}
		return s.lost(sl, fmt.Errorf("writing slot %d to the ledger: %w", sl.time, err))
	}
	s.settleSubblock(a)
	s.alone = s.clock.Now()
	for _, b := range sl.blocks {
		b.leftOut.Store(false)
		b.succeeded()
	}
	watch.lap(StageLog, &sl.report.Log)

	// From here on the slot is durable. A chain that fails does not hold back the others:
	// its keeper hands it its block later.
	indexed := sl.willIndex()
	s.handOver(sl)
	watch.lap(StageHandOver, &sl.report.HandOver)
	s.index(ctx, sl)
	indexed()
	watch.lap(StageIndex, &sl.report.Index)
	s.settle(sl)
	return nil
}

// inLine brings the ledger to the block that a sealed one builds on. When L1 took blocks
// back and the operators have agreed on others, the ledger has the old ones until the
// chain's keeper comes by.
func (s *Sequencer) inLine(ctx context.Context, b *block) error {
	logged, _, ok := s.ledger.Head(b.id)
	if !ok || logged == b.opening.Parent() {
		return nil
	}
	if b.err != nil {
		return b.err
	}
	return s.rewind(context.WithoutCancel(ctx), b.member, logged)
}

// lost takes back what was noted of a slot that could not be made durable.
func (s *Sequencer) lost(sl *slot, err error) error {
	if len(sl.agreed) > 1 {
		for _, b := range sl.blocks {
			s.bundles.Replaced(b.id, b.opening.ParentNumber+1)
		}
	}
	s.mu.Lock()
	s.tip = sl.agreed[0].Parent
	s.mu.Unlock()
	sl.discard()
	if s.observer != nil {
		s.observer.SlotFailed(sl.time, err)
	}
	return err
}

// complete brings every chain that can be worked on to the end of the slot, and seals it.
func (s *Sequencer) complete(c *call, sl *slot) {
	c.take(sl)
	last := sl.agreed[len(sl.agreed)-1]
	_ = each(sl.blocks, func(b *block) error {
		if b.envelope != nil {
			return nil
		}
		if b.err == nil {
			b.err = sl.bringTo(c.ctx, b, last)
		}
		if b.err == nil {
			return nil
		}
		s.log.Warn("Chain cannot follow what was agreed now, it does so later", "chain", b.id, "slot", sl.time, "why", b.err)
		s.metrics.BlockDelayed(b.id, DelayRun)
		if engineFailed(b.err) {
			s.noteTrouble(b.chain, b.err)
		}
		b.drop()
		return nil
	})
}

// bringTo runs what is agreed of the block and seals it.
func (sl *slot) bringTo(ctx context.Context, b *block, last *sequence.Subblock) error {
	if err := sl.bring(ctx, b); err != nil {
		return err
	}
	if err := b.seal(ctx); err != nil {
		return err
	}
	err := checkSeal(last, b)
	if err != nil {
		b.envelope, b.session = nil, nil
	}
	return err
}

// handOver hands the sealed blocks over, and waits for the chains that take it well. One
// whose engine or driver hangs stays lent until it is through.
func (s *Sequencer) handOver(sl *slot) {
	done := make(chan struct{}, len(sl.blocks))
	wait := 0
	for _, b := range sl.blocks {
		if b.envelope == nil || !b.taken {
			continue
		}
		wait++
		b.taken = false // it is given back below
		s.run(func() {
			defer func() { done <- struct{}{} }()
			defer b.giveBack()
			err := s.handOverBlock(sl, b)
			if err == nil {
				return
			}
			s.log.Warn("Sealed block could not be handed over yet", "chain", b.id, "slot", sl.time, "block", b.ref, "err", err)
			s.metrics.BlockDelayed(b.id, DelayHandOver)
			if engineFailed(err) {
				s.noteTrouble(b.chain, err)
			}
		})
	}
	sl.release()
	timer := s.clock.NewTimer(handOverPatience)
	defer timer.Stop()
	for ; wait > 0; wait-- {
		select {
		case <-done:
			continue
		default:
		}
		select {
		case <-done:
		case <-timer.Ch():
			s.log.Warn("Chains take long to take their block, going on", "slot", sl.time, "chains", wait)
			return
		}
	}
}

// handOverPatience is how long the other chains wait for one to take its block: several
// times what it takes under load.
const handOverPatience = time.Second

// handOverBlock stores a sealed block, makes it its chain's unsafe head and gossips it.
func (s *Sequencer) handOverBlock(sl *slot, b *block) error {
	last := sl.next() - 1
	err := sl.timed(StageInsert, b, last, func() error { return b.engine.Insert(s.life, b.ref.Hash) })
	// A supernode that rewinds a chain stops its node without waiting: what is handed
	// over after that would put the rewound blocks back.
	if !b.node.Active() || b.node.resets() != b.resets || b.node.paused() != "" {
		return errAborted
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("storing the sealed block: %w", err)
	}
	if err == nil && b.node.parts.stored != nil {
		b.node.parts.stored.payload.Store(b.envelope.ExecutionPayload)
		defer b.node.parts.stored.payload.Store(nil)
	}
	return sl.timed(StageDeliver, b, last, func() error { return b.node.handOver(b.envelope, b.ref, s.clock.Now()) })
}

// handOver gives a block to the driver and to gossip. The chain is lent.
func (n *node) handOver(env *eth.ExecutionPayloadEnvelope, ref eth.L2BlockRef, started time.Time) error {
	n.parts.Gossip.Gossip(env)
	defer n.parts.Gossip.Clear()
	err := n.parts.Controller.ProcessPayload(n.parts.Ctx, env, ref, started)
	switch {
	case err == nil:
		if n.parts.configs != nil {
			n.parts.configs.add(n.parts.Rollup, env.ExecutionPayload)
		}
	case errors.Is(err, opengine.ErrStaleBuild), errors.Is(err, opengine.ErrPayloadDenied):
		// The chain has moved on; the next look at it finds out where to.
	default:
		n.parts.Metrics.RecordSequencingError()
	}
	return err
}

// willIndex keeps the keepers from syncing the chains' histories until indexed is called. A chain
// that has its block before the slot is indexed would be found behind, and all receipts of the
// block be read from its engine.
func (sl *slot) willIndex() (indexed func()) {
	var held []*chain
	for _, b := range sl.blocks {
		// One that is behind needs its keeper.
		have, ok := sl.s.history.Head(b.id)
		if b.envelope != nil && ok && have.Hash == b.opening.Parent().Hash && b.syncing.CompareAndSwap(false, true) {
			held = append(held, b.chain)
		}
	}
	return func() {
		for _, c := range held {
			c.syncing.Store(false)
		}
	}
}

// index adds the slot's messages to the history, of the chains that have their block.
func (s *Sequencer) index(ctx context.Context, sl *slot) {
	sealed := map[sequence.ChainID]eth.BlockRef{}
	for _, b := range sl.blocks {
		if b.envelope != nil {
			sealed[b.id] = eth.BlockRef{Hash: b.ref.Hash, Number: b.ref.Number, ParentHash: b.ref.ParentHash, Time: b.ref.Time}
		}
	}
	if err := s.executor.Commit(context.WithoutCancel(ctx), sl.check, sealed); err != nil {
		// The keepers find the history behind and have it synced from the engine.
		s.log.Debug("Messages of the slot could not be added to the history yet", "slot", sl.time, "err", err)
	}
}

// settle tells the bundle pool and the observer what became of the slot.
func (s *Sequencer) settle(sl *slot) {
	for _, b := range sl.blocks {
		if b.node != nil {
			s.bundles.Settled(b.id, b.node.safeHead().Number)
		}
	}
	if n := sl.blocks[0].opening.ParentNumber + 1; n%finalEvery == 0 {
		prune := n%pruneEvery == 0
		s.run(func() { s.tidy(prune) }) // the next slot does not wait for it
	}
	sl.report.Late = s.clock.Now().Sub(time.Unix(int64(sl.time), 0))
	for _, b := range sl.blocks {
		if b.envelope == nil {
			continue
		}
		p := b.envelope.ExecutionPayload
		logs, messages := sl.check.Logs(b.id)
		sl.report.Blocks = append(sl.report.Blocks, BlockReport{
			Chain: b.id, Ref: b.ref, Transactions: len(p.Transactions), GasUsed: uint64(p.GasUsed), Logs: logs, Messages: messages,
		})
	}
	if s.observer != nil {
		sl.report.Spans = sl.timeline.all()
		s.observer.SlotSealed(sl.report)
	}
}
