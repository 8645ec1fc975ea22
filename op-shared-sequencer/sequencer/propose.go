package sequencer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// errAborted: a chain of the slot was stopped, reset, or moved by derivation.
var errAborted = errors.New("slot aborted: a chain in it was stopped, reset or moved by derivation")

// errNotBegun: no slot could be begun when the draft was. Without keepers, which make chains
// ready meanwhile, it does not wait for one.
var errNotBegun = errors.New("no slot could be begun yet")

// errOvertaken: what was to be built on is not what the sessions hold any more.
var errOvertaken = fmt.Errorf("%w: another subblock was verified or committed meanwhile", rotation.ErrPass)

// draft is this operator's next subblock, which is built while it is not asked for yet:
// while the operators vote on the one before, and until the cut.
type draft struct {
	base   common.Hash // the subblock it follows
	cancel context.CancelFunc
	asked  chan struct{} // closed when the subblock is asked for
	done   chan struct{}
	// Once done:
	attempt *attempt
	err     error
}

// Lead begins to build the subblock behind the newest one that was verified or committed.
func (s *Sequencer) Lead(ready []sequence.ChainID) {
	d, ctx := s.newDraft()
	if d == nil {
		return
	}
	s.run(func() {
		defer close(d.done)
		s.turn.Lock()
		defer s.turn.Unlock()
		d.attempt, d.err = s.build(ctx, d.base, ready, d.asked)
	})
}

func (s *Sequencer) newDraft() (*draft, context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.tip
	if s.trial != nil {
		if base = s.trial.hash; s.trial.sub.Last() {
			return nil, nil // the pools follow a block only when it is agreed
		}
	}
	if d := s.draft; d != nil {
		select {
		case <-d.done:
			if d.attempt == nil {
				s.draft = nil // it came to nothing
			}
		default:
		}
	}
	if s.draft != nil || s.life.Err() != nil {
		return nil, nil // one for another base ends with the next call
	}
	ctx, cancel := context.WithCancel(s.life)
	s.draft = &draft{base: base, cancel: cancel, asked: make(chan struct{}), done: make(chan struct{})}
	return s.draft, ctx
}

// dropDraft ends the draft and takes it back.
func (s *Sequencer) dropDraft() {
	s.mu.Lock()
	d := s.draft
	s.draft = nil
	s.mu.Unlock()
	if d == nil {
		return
	}
	d.cancel()
	<-d.done
	if d.attempt != nil {
		s.turn.Lock()
		defer s.turn.Unlock()
		d.attempt.undo()
	}
}

// dropTrial takes the subblock back that was tried on top of what is agreed. The caller
// holds the turn.
func (s *Sequencer) dropTrial() {
	s.mu.Lock()
	a := s.trial
	s.trial = nil
	s.mu.Unlock()
	if a != nil {
		a.undo()
	}
}

// Propose returns the draft when it is there, or builds the subblock now.
func (s *Sequencer) Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error) {
	s.mu.Lock()
	d, tip := s.draft, s.tip
	s.mu.Unlock()
	if d != nil && d.base == tip {
		close(d.asked)
		select {
		case <-d.done:
		case <-ctx.Done():
		}
		d.cancel()
		<-d.done
		s.mu.Lock()
		s.draft = nil
		s.mu.Unlock()
		if d.err == nil {
			return s.proposed(d.attempt), nil
		}
		if !errors.Is(d.err, context.Canceled) && !errors.Is(d.err, errAborted) && !errors.Is(d.err, errNotBegun) {
			return nil, d.err
		}
		// A chain was reset while it was built: there may be time for another.
	} else {
		s.dropDraft()
	}
	s.turn.Lock()
	s.dropTrial()
	asked := make(chan struct{})
	close(asked)
	a, err := s.build(ctx, tip, ready, asked)
	s.turn.Unlock()
	if err != nil {
		return nil, err
	}
	return s.proposed(a), nil
}

func (s *Sequencer) proposed(a *attempt) *sequence.Subblock {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trial = a
	return a.sub
}

// build makes the subblock behind base. Until it is asked for, chains that are not ready
// are waited for. Nothing is left of it when it fails. The caller holds the turn.
func (s *Sequencer) build(ctx context.Context, base common.Hash, ready []sequence.ChainID, asked <-chan struct{}) (*attempt, error) {
	s.mu.Lock()
	sl, before := s.current, (*sequence.Subblock)(nil)
	onTrial := s.trial != nil && s.trial.hash == base
	if onTrial {
		sl, before = s.trial.slot, s.trial.sub
	} else if sl != nil {
		before = sl.agreed[len(sl.agreed)-1]
	}
	overtaken := !onTrial && (s.trial != nil || base != s.tip)
	s.mu.Unlock()
	if overtaken {
		return nil, errOvertaken
	}
	if sl != nil && !onTrial && sl.troubled() && sl.void(ctx) != "" {
		sl = nil // its chains begin anew; Commit says so
	}
	var p pick
	if sl == nil {
		var err error
		if p, err = s.pick(ctx, ready, asked); err != nil {
			return nil, err
		}
		if !p.until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, p.until.Sub(s.clock.Now()))
			defer cancel()
		}
		sl = s.newSlot(p)
	}
	c := s.begin(ctx)
	defer c.end()
	defer sl.release()
	var a *attempt
	var err error
	if len(p.members) > 0 {
		a, err = s.first(c, sl, base)
	} else {
		a, err = s.following(c, sl, before, onTrial, ready)
	}
	if err == nil {
		return a, nil
	}
	err = s.judge(c, sl, err, !p.until.IsZero())
	if s.observer != nil && !errors.Is(err, rotation.ErrPass) && s.life.Err() == nil {
		s.observer.SlotFailed(sl.time, err)
	}
	return nil, err
}

// pick waits for the next slot to begin. Once the subblock is asked for there is little
// patience left.
func (s *Sequencer) pick(ctx context.Context, ready []sequence.ChainID, asked <-chan struct{}) (pick, error) {
	var deadline time.Time
	for {
		p := s.choose(s.gather(ready))
		if len(p.members) > 0 {
			return p, nil
		}
		select {
		case <-asked:
			if deadline.IsZero() {
				deadline = s.clock.Now().Add(s.cfg.Patience)
			}
		default:
			if !s.keepers {
				return p, errNotBegun
			}
		}
		if err := ctx.Err(); err != nil {
			return p, err
		}
		if !deadline.IsZero() && !s.clock.Now().Before(deadline) {
			why := s.waiting
			if why == "" {
				why = "no slot is due"
			}
			return p, fmt.Errorf("%w: %s", rotation.ErrPass, why)
		}
		_ = s.clock.SleepCtx(ctx, min(p.pause, pollReady/2))
	}
}

// judge finds out which chain made the call fail, if one did.
func (s *Sequencer) judge(c *call, sl *slot, err error, bounded bool) error {
	if err == nil {
		return nil
	}
	outOfTime := bounded && errors.Is(c.ctx.Err(), context.DeadlineExceeded)
	if outOfTime {
		sl.blocks[0].failed(s.clock.Now())
	} else if why := c.ctx.Err(); errors.Is(why, context.DeadlineExceeded) {
		return fmt.Errorf("slot not finished in the time of the turn: %w", why)
	} else if why != nil {
		return errAborted
	}
	var broken *builder.ChainError
	if errors.As(err, &broken) {
		b := sl.block(broken.Chain)
		if !outOfTime {
			b.failed(s.clock.Now())
		}
		switch {
		case engineFailed(broken.Err):
			s.noteTrouble(b.chain, broken.Err)
		case errors.Is(broken.Err, engine.ErrInvalidAttributes) && b.node != nil:
			b.node.backOff(time.Second)
		}
	}
	return err
}

// newSlot is the slot that was picked, before it is opened.
func (s *Sequencer) newSlot(p pick) *slot {
	sl := &slot{s: s, time: p.members[0].next()}
	for _, m := range p.members {
		b := &block{member: m, resets: m.node.resets()}
		b.opening.ParentHash, b.opening.ParentNumber = m.head.Hash, m.head.Number
		sl.blocks = append(sl.blocks, b)
	}
	sl.report.Slot = sl.time
	s.bundles.Advance(p.newest) // a chain that catches up does not take the set back in time
	return sl
}

// first builds the subblock that opens a slot.
func (s *Sequencer) first(c *call, sl *slot, base common.Hash) (_ *attempt, err error) {
	ctx, watch := c.ctx, sl.watch(0)
	c.take(sl)
	for _, b := range sl.blocks {
		if b.err != nil {
			return nil, fmt.Errorf("%w: chain %s: %w", rotation.ErrPass, b.id, b.err)
		}
	}
	a := sl.begin(0)
	defer func() {
		if err != nil {
			a.undo()
		}
	}()
	if err := sl.chooseOrigins(ctx); err != nil {
		return nil, err
	}
	if err := each(sl.blocks, func(b *block) error { return b.prepare(ctx, s.clock) }); err != nil {
		return nil, err
	}
	watch.lap(StageAttributes, &sl.report.Attributes)
	if err := sl.open(ctx); err != nil {
		return nil, err
	}
	watch.lap(StageOpen, &sl.report.Open)
	sub := &sequence.Subblock{Slot: sl.time, Parent: base}
	for _, b := range sl.blocks {
		sub.Openings = append(sub.Openings, b.opening)
	}
	return a, s.fill(ctx, a, sub, nil)
}

// following builds a later subblock of a slot.
func (s *Sequencer) following(c *call, sl *slot, before *sequence.Subblock, onTrial bool, ready []sequence.ChainID) (_ *attempt, err error) {
	ctx := c.ctx
	s.settleBlocks(c, sl, onTrial)
	for _, b := range sl.blocks {
		if b.err == nil && ready != nil && !slices.Contains(ready, b.id) && s.overdue(b.chain) {
			b.err = errors.New(tooFew)
		}
		if b.err != nil && !s.overdue(b.chain) {
			return nil, fmt.Errorf("%w: chain %s: %w", rotation.ErrPass, b.id, b.err)
		}
	}
	a := sl.begin(before.Index + 1)
	defer func() {
		if err != nil {
			a.undo()
		}
	}()
	sub := &sequence.Subblock{Slot: sl.time, Index: a.index, Parent: before.Hash()}
	return a, s.fill(ctx, a, sub, before)
}

// settleBlocks takes the chains of a slot that goes on, brings their sessions to what is
// agreed, and marks where they are. A block whose chain cannot be worked on has an error.
// One on trial is run in the sessions already, or not at all.
func (s *Sequencer) settleBlocks(c *call, sl *slot, onTrial bool) {
	c.take(sl)
	_ = each(sl.blocks, func(b *block) error {
		switch {
		case b.err != nil:
			return nil //nolint:nilerr // a block keeps its own error
		case !onTrial:
			b.err = sl.bring(c.ctx, b)
		case b.session == nil:
			b.err = errMoved
		}
		if b.err == nil {
			b.point, b.err = b.session.Savepoint(c.ctx)
		}
		if b.err != nil {
			b.drop()
			if engineFailed(b.err) {
				s.noteTrouble(b.chain, b.err)
			}
		}
		return nil
	})
}

// overdue says whether a chain that is not ready has been waited for long enough.
func (s *Sequencer) overdue(c *chain) bool {
	if n := c.current(); n != nil && !n.Active() {
		return true // by an operator's will
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.Now().Sub(s.since) >= s.cfg.Grace
}

// fill takes transactions into the blocks until the cut and completes the subblock.
func (s *Sequencer) fill(ctx context.Context, a *attempt, sub, before *sequence.Subblock) error {
	sl := a.slot
	var blocks []*builder.Block
	for _, b := range sl.blocks {
		if b.err == nil {
			blocks = append(blocks, &builder.Block{Chain: b.id, Session: b.session, NoTxPool: b.attrs.NoTxPool, L1Origin: b.opening.L1Origin})
		}
	}
	var ahead []common.Hash // bundles of a subblock that may not be agreed yet: they still wait
	if before != nil {
		for run := range before.Bundles() {
			ahead = append(ahead, run[0].Bundle)
		}
	}
	var err error
	s.building = sl
	a.order, err = s.builder.Build(ctx, sl.time, blocks, sl.check, s.times(sl.time, sl.interval(), sub.Index), ahead)
	if err != nil {
		return fmt.Errorf("building slot %d: %w", sl.time, err)
	}
	sub.Steps, a.results = a.order.Steps, a.order.Results
	last := s.seals(sl, sub.Index)
	if s.tamper != nil && last {
		s.tamper(ctx, sl.time, blocks)
	}
	watch := sl.watch(sub.Index)
	if err := sl.conclude(ctx, sub, before, last); err != nil {
		return err
	}
	if last {
		watch.lap(StageSeal, &sl.report.Seal)
	} else {
		watch.lap(StageCut, &sl.report.Cut)
	}
	if err := sub.Check(); err != nil {
		return err
	}
	a.done(sub, sub.Hash())
	return nil
}

// seals says whether the subblock is the slot's last: by its index, or because the slot
// is late and the time for more subblocks is over.
func (s *Sequencer) seals(sl *slot, index uint64) bool {
	last := uint64(s.cfg.Subblocks - 1)
	return index >= last || !s.clock.Now().Before(s.times(sl.time, sl.interval(), last).Cut)
}

// conclude states what the steps made of each block, and seals the blocks if it is the
// slot's last subblock. A chain that could not be worked on stays as it was.
func (sl *slot) conclude(ctx context.Context, sub, before *sequence.Subblock, last bool) error {
	results := make([]sequence.Result, len(sl.blocks))
	index := map[*block]int{}
	for i, b := range sl.blocks {
		index[b] = i
	}
	if err := each(sl.blocks, func(b *block) (err error) {
		r := &results[index[b]]
		switch {
		case b.err != nil:
			*r = resultOf(before, b.id)
		case last:
			if err = sl.timed(StageSeal, b, sub.Index, func() error { return b.seal(ctx) }); err == nil {
				*r = b.sealedResult()
			}
		default:
			*r, err = b.session.Result(ctx)
		}
		return err
	}); err != nil {
		return fmt.Errorf("concluding subblock %d of slot %d: %w", sub.Index, sl.time, err)
	}
	sub.Results = results
	if !last {
		return nil
	}
	for _, b := range sl.blocks {
		seal := sequence.Seal{Chain: b.id, Number: b.opening.ParentNumber + 1}
		if b.err == nil {
			seal.BlockHash = b.ref.Hash
		}
		sub.Seals = append(sub.Seals, seal)
	}
	return nil
}

// times are when a subblock is filled and cut. The last is cut SealLead before the slot's
// timestamp, the others at even distances before.
func (s *Sequencer) times(slot sequence.Slot, interval time.Duration, index uint64) builder.Times {
	apart := s.apart(interval)
	left := time.Duration(s.cfg.Subblocks-1) - min(time.Duration(index), time.Duration(s.cfg.Subblocks-1))
	cut := time.Unix(int64(slot), 0).Add(-s.cfg.SealLead - left*apart)
	longest := s.longestFill(interval)
	return builder.Times{Fill: cut.Add(-min(s.pace.window(), longest)), Rest: min(s.pace.rest(), longest/3), Cut: cut, MinFill: s.cfg.MinFill}
}

// apart is the time between two subblocks of a slot.
func (s *Sequencer) apart(interval time.Duration) time.Duration {
	return interval / time.Duration(s.cfg.Subblocks)
}

// longestFill is how long before the cut a subblock may be filled: the other half of the time
// between two is for the rest of a slot, of which followers' execution takes as long.
func (s *Sequencer) longestFill(interval time.Duration) time.Duration { return s.apart(interval) / 2 }
