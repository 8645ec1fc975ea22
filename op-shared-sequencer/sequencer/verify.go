package sequencer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-node/rollup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Reasons why an operator does not vote for a subblock. They wrap what was found.
var (
	// ErrOutOfPlace: it does not follow what is agreed.
	ErrOutOfPlace = errors.New("subblock does not follow what is agreed")
	// ErrTooEarly: its slot is further ahead than clocks may differ.
	ErrTooEarly = errors.New("slot is too early")
	// ErrOmission: a chain was left out that could have been built on.
	ErrOmission = errors.New("chain was left out")
	// ErrAttributes: an opening is not what this operator's own view of L1 gives.
	ErrAttributes = errors.New("wrong attributes")
	// ErrNotReady: this operator cannot run the subblock now; it says nothing about the leader.
	ErrNotReady = errors.New("this operator cannot run it")
	// ErrBundle: the steps of a bundle are not the whole bundle, or one of them failed.
	ErrBundle = errors.New("bundle is not whole")
	// ErrPlace: a step stands where the rule for the place of cross-chain work has none for it.
	ErrPlace = errors.New("step is out of its place")
	// ErrResult: execution came to another result than the subblock states.
	ErrResult = errors.New("wrong result")
	// errRefused: a transaction cannot be included where the subblock has it.
	errRefused = errors.New("transaction refused")
)

// Verify runs a subblock that another operator proposed.
func (s *Sequencer) Verify(ctx context.Context, sub *sequence.Subblock) error {
	hash := s.hashOf(sub)
	s.mu.Lock()
	known := s.trial != nil && s.trial.hash == hash
	s.mu.Unlock()
	if known {
		return nil
	}
	s.dropDraft()
	s.turn.Lock()
	defer s.turn.Unlock()
	s.dropTrial()
	a, err := s.verify(ctx, sub, hash)
	if err != nil {
		s.refused(err)
		return fmt.Errorf("subblock %d of slot %d: %w", sub.Index, sub.Slot, err)
	}
	s.mu.Lock()
	s.trial = a
	s.mu.Unlock()
	return nil
}

// hashOf is a subblock's hash: known, when it is the one that was run last. To work it out
// takes about as long as to run a few transactions, for each megabyte.
func (s *Sequencer) hashOf(sub *sequence.Subblock) common.Hash {
	s.mu.Lock()
	a := s.trial
	s.mu.Unlock()
	if a != nil && a.sub == sub {
		return a.hash
	}
	return sub.Hash()
}

func (s *Sequencer) verify(ctx context.Context, sub *sequence.Subblock, hash common.Hash) (*attempt, error) {
	if err := sub.Check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	sl, tip := s.current, s.tip
	s.mu.Unlock()
	if sub.Parent != tip {
		return nil, fmt.Errorf("%w: it follows %s, agreed is %s", ErrOutOfPlace, sub.Parent, tip)
	}
	if last := uint64(s.cfg.Subblocks - 1); sub.Index > last || (sub.Index == last && !sub.Last()) {
		return nil, fmt.Errorf("%w: a slot has at most %d subblocks and the last one seals it: operators need the same --shared-sequencer.subblocks-per-slot", ErrOutOfPlace, s.cfg.Subblocks)
	}
	c := s.begin(ctx)
	defer c.end()
	var a *attempt
	var err error
	if sub.Index == 0 {
		if sl != nil && sl.void(ctx) == "" {
			return nil, fmt.Errorf("%w: slot %d is not sealed yet", ErrOutOfPlace, sl.time)
		}
		sl = s.proposedSlot(sub)
		defer sl.release()
		a, err = s.verifyFirst(c, sl, sub)
	} else {
		if sl == nil || sl.time != sub.Slot || sl.next() != sub.Index {
			return nil, fmt.Errorf("%w: no slot %d with %d subblocks is under construction", ErrOutOfPlace, sub.Slot, sub.Index)
		}
		defer sl.release()
		a, err = s.verifyNext(c, sl, sub)
	}
	if err == nil { // last: what is also wrong otherwise is told as that
		if _, err = sub.Places(); err != nil {
			a.undo()
			err = fmt.Errorf("%w: %w", ErrPlace, err)
		}
	}
	if err != nil && c.ctx.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReady, errAborted)
	}
	if err != nil {
		var broken *builder.ChainError
		if errors.As(err, &broken) && engineFailed(broken.Err) && s.byID[broken.Chain] != nil {
			s.noteTrouble(s.byID[broken.Chain], broken.Err)
			err = fmt.Errorf("%w: %w", ErrNotReady, err)
		}
		return nil, err
	}
	a.done(sub, hash)
	return a, nil
}

// proposedSlot is the slot that a subblock opens.
func (s *Sequencer) proposedSlot(sub *sequence.Subblock) *slot {
	sl := &slot{s: s, time: sub.Slot}
	sl.report.Slot = sub.Slot
	for _, o := range sub.Openings {
		if c := s.byID[o.Chain]; c != nil {
			sl.blocks = append(sl.blocks, &block{member: &member{chain: c}, opening: o})
		}
	}
	return sl
}

// verifyFirst runs a subblock that opens a slot: on this operator's own heads, with
// attributes from its own view of L1.
func (s *Sequencer) verifyFirst(c *call, sl *slot, sub *sequence.Subblock) (_ *attempt, err error) {
	ctx, watch := c.ctx, sl.watch(sub.Index)
	for _, o := range sub.Openings {
		if ch := s.byID[o.Chain]; ch == nil || !ch.member.Load() {
			return nil, fmt.Errorf("%w: chain %s does not take part in the set", ErrOutOfPlace, o.Chain)
		}
	}
	if ahead := time.Unix(int64(sl.time), 0).Sub(s.clock.Now()); ahead > sl.interval()+s.cfg.MaxSkew+s.early(sl.blocks[0].member) {
		return nil, fmt.Errorf("%w: it is %v ahead of this operator's clock", ErrTooEarly, ahead)
	}
	c.take(sl)
	for _, b := range sl.blocks {
		if b.err != nil {
			return nil, fmt.Errorf("%w: chain %s: %w", ErrNotReady, b.id, b.err)
		}
		if want := sequence.Slot(b.head.Time + b.rollup.BlockTime); want != sl.time {
			return nil, fmt.Errorf("%w: the next block of chain %s on %s is in slot %d", ErrOutOfPlace, b.id, b.head, want)
		}
	}
	if err := s.checkOmissions(sl); err != nil {
		return nil, err
	}
	if err := each(sl.blocks, func(b *block) error { return b.checkOpening(ctx, s.clock, sl.time) }); err != nil {
		return nil, err
	}
	if err := sl.checkOrigins(); err != nil {
		return nil, err
	}
	watch.lap(StageAttributes, &sl.report.Attributes)
	a := sl.begin(0)
	defer func() {
		if err != nil {
			a.undo()
		}
	}()
	s.bundles.Advance(max(sl.time, s.newest()))
	if err := sl.open(ctx); err != nil {
		return nil, err
	}
	watch.lap(StageOpen, &sl.report.Open)
	if a.results, err = sl.execute(ctx, sub); err != nil {
		return nil, err
	}
	if err := sl.compare(ctx, sub, nil); err != nil {
		return nil, err
	}
	watch.lap(StageVerify, &sl.report.Verify)
	return a, nil
}

// verifyNext runs a later subblock of the slot.
func (s *Sequencer) verifyNext(c *call, sl *slot, sub *sequence.Subblock) (_ *attempt, err error) {
	ctx, watch := c.ctx, sl.watch(sub.Index)
	s.settleBlocks(c, sl, false)
	a := sl.begin(sub.Index)
	defer func() {
		if err != nil {
			a.undo()
		}
	}()
	for _, seal := range sub.Seals {
		if b := sl.block(seal.Chain); b != nil && seal.Deferred() && b.err == nil && !s.overdue(b.chain) {
			return nil, fmt.Errorf("%w: chain %s is left unsealed and can be built on here", ErrOmission, seal.Chain)
		}
	}
	if a.results, err = sl.execute(ctx, sub); err != nil {
		return nil, err
	}
	if err := sl.compare(ctx, sub, sl.agreed[len(sl.agreed)-1]); err != nil {
		return nil, err
	}
	watch.lap(StageVerify, &sl.report.Verify)
	return a, nil
}

// newest is the slot that the chain furthest ahead has come to.
func (s *Sequencer) newest() sequence.Slot {
	var newest sequence.Slot
	members, _, _ := s.look(nil)
	for _, m := range members {
		newest = max(newest, m.next())
	}
	return newest
}

// checkOmissions: a chain whose next block is in this slot is in it, unless it cannot be
// built on here either, or the operators have waited for it long enough.
func (s *Sequencer) checkOmissions(sl *slot) error {
	members, _, _ := s.look(nil)
	for _, m := range members {
		if m.next() == sl.time && sl.block(m.id) == nil && !m.onProbation() && !s.overdue(m.chain) {
			return fmt.Errorf("%w: chain %s is ready to be built on at %s", ErrOmission, m.id, m.head)
		}
	}
	return nil
}

// checkOpening compares an opening with what this operator would open the block with.
func (b *block) checkOpening(ctx context.Context, clk Clock, slot sequence.Slot) error {
	theirs := b.opening
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrAttributes, fmt.Sprintf(format, args...))
	}
	if theirs.ParentNumber != b.head.Number {
		return fail("block on %s is numbered on %d", b.head, theirs.ParentNumber)
	}
	// The origin first: the driver takes what the attributes builder finds wrong with
	// one for its own trouble, and rests.
	l1 := b.node.parts.L1
	origin, err := l1.L1BlockRefByNumber(ctx, theirs.L1Origin.Number)
	if err != nil {
		return fmt.Errorf("%w: L1 origin %s is not known here: %w", ErrNotReady, theirs.L1Origin, err)
	}
	stays, next := origin.Hash == b.head.L1Origin.Hash, origin.ParentHash == b.head.L1Origin.Hash
	drift := rollup.NewChainSpec(b.rollup).MaxSequencerDrift(origin.Time)
	switch {
	case origin.Hash != theirs.L1Origin.Hash:
		return fail("L1 origin %s is not in this operator's L1 chain, which has %s", theirs.L1Origin, origin)
	case !stays && !next:
		return fail("L1 origin %s is neither the parent's %s nor the block after it", origin, b.head.L1Origin)
	case uint64(slot) < origin.Time:
		return fail("L1 origin %s is younger than the slot", origin)
	case stays && uint64(slot) > origin.Time+drift:
		// Derivation drops such a block if it could have had the next origin
		// (derivation.md, "Batch Queue").
		if after, err := l1.L1BlockRefByNumber(ctx, origin.Number+1); err == nil && after.Time <= uint64(slot) {
			return fail("L1 origin %s is older than the sequencer drift allows, and %s could be taken", origin, after)
		}
	}
	b.origin = origin
	if err := b.prepare(ctx, clk); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	ours := b.opening
	b.opening = theirs
	return sameOpening(ours, theirs)
}

// sameOpening says in what two openings differ.
func sameOpening(ours, theirs sequence.Opening) error {
	var fields []string
	for _, f := range []struct {
		name         string
		ours, theirs any
	}{
		{"parent", ours.ParentHash, theirs.ParentHash}, {"randao", ours.PrevRandao, theirs.PrevRandao},
		{"fee recipient", ours.FeeRecipient, theirs.FeeRecipient}, {"beacon root", ours.ParentBeaconRoot, theirs.ParentBeaconRoot},
		{"gas limit", ours.GasLimit, theirs.GasLimit}, {"EIP-1559 parameters", ours.EIP1559Params, theirs.EIP1559Params},
		{"minimum base fee", ours.MinBaseFee, theirs.MinBaseFee}, {"no-transactions flag", ours.NoTxPool, theirs.NoTxPool},
		{"deposits", ours.Deposits, theirs.Deposits}, {"L1 origin", ours.L1Origin, theirs.L1Origin},
	} {
		a, errA := rlp.EncodeToBytes(f.ours)
		b, errB := rlp.EncodeToBytes(f.theirs)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			fields = append(fields, f.name)
		}
	}
	if len(fields) > 0 {
		return fmt.Errorf("%w: %v differ from this operator's own", ErrAttributes, fields)
	}
	return nil
}

// checkOrigins: all chains have the same L1 origin wherever the rules allow, as
// chooseOrigins makes them.
func (sl *slot) checkOrigins() error {
	oldest := sl.oldestOrigin()
	for _, b := range sl.blocks {
		if b.origin.Hash != oldest.Hash && b.mayKeep(oldest) {
			return &builder.ChainError{Chain: b.id, Err: fmt.Errorf("%w: L1 origin %s, where it could have %s as the other chains", ErrAttributes, b.origin, oldest)}
		}
	}
	return nil
}

// execute runs the steps of a subblock, and checks the messages that they execute. It
// returns the results of each step's transactions.
//
// Steps of one chain run in their order, those of different chains in parallel. That comes to
// what the global order comes to, because no execution depends on another chain: a
// transaction that executes a message only declares it, in its access list, and the
// CrossL2Inbox looks at nothing else (predeploys.md, "validateMessage"). What depends on the
// order over all chains is whether the messages are valid: that is checked afterwards, in
// that order.
func (sl *slot) execute(ctx context.Context, sub *sequence.Subblock) ([][]engine.TxResult, error) {
	for i, st := range sub.Steps {
		b := sl.block(st.Chain)
		if b == nil {
			return nil, fmt.Errorf("%w: step %d is on chain %s, which has no block in the slot", ErrOutOfPlace, i, st.Chain)
		}
		if b.err != nil {
			return nil, fmt.Errorf("%w: chain %s: %w", ErrNotReady, st.Chain, b.err)
		}
		if b.opening.NoTxPool {
			return nil, fmt.Errorf("%w: step %d is on chain %s, whose block takes no user transactions", ErrAttributes, i, st.Chain)
		}
	}
	whole := map[common.Hash]bool{}
	for run := range sub.Bundles() {
		var err error
		if whole[run[0].Bundle], err = sl.checkWhole(ctx, run); err != nil {
			return nil, err
		}
	}
	steps, conditions := sub.Steps, conditionsOf(sub)
	results, checked := make([][]engine.TxResult, len(steps)), make([][]executor.Tx, len(steps))
	var touched []*block
	for _, b := range sl.blocks {
		if slices.ContainsFunc(steps, func(st sequence.Step) bool { return st.Chain == b.id }) {
			touched = append(touched, b)
		}
	}
	if err := each(touched, func(b *block) (err error) {
		start := sl.s.clock.Now()
		defer func() { sl.span(StageVerify, b.id, sub.Index, start) }()
		for i, st := range steps {
			if st.Chain != b.id {
				continue
			}
			for _, c := range conditions[i] {
				if err := b.session.Check(ctx, c.Conditional()); errors.Is(err, engine.ErrCondition) {
					return fmt.Errorf("%w: a condition of bundle %s does not hold on chain %s: %w", ErrBundle, st.Bundle, b.id, err)
				} else if err != nil {
					return &builder.ChainError{Chain: b.id, Err: err}
				}
			}
			if results[i], err = b.execute(ctx, st.Transactions); err != nil {
				return err
			}
			if checked[i], err = builder.Checked(results[i]); err != nil {
				return &builder.ChainError{Chain: b.id, Err: err}
			}
			sl.check.Prepare(b.id, checked[i])
		}
		return nil
	}); err != nil {
		return nil, err
	}
	var logs []relay.Log // of the bundle so far
	for i, st := range steps {
		if err := sl.check.Apply(st.Chain, checked[i]); err != nil {
			return nil, err
		}
		if i == 0 || steps[i-1].Bundle != st.Bundle {
			logs = nil
		}
		if st.Bundle == (common.Hash{}) {
			continue
		}
		for _, r := range results[i] {
			for _, l := range r.Logs {
				logs = append(logs, relay.Log{Chain: st.Chain, Slot: sl.time, Log: l})
			}
		}
		if st.Relay {
			more := i+1 < len(steps) && steps[i+1].Bundle == st.Bundle && steps[i+1].Relay && steps[i+1].Chain == st.Chain
			if err := checkRelay(&st, results[i], logs, whole[st.Bundle] && !more); err != nil {
				return nil, err
			}
		}
		for _, r := range results[i] {
			if r.Status != types.ReceiptStatusSuccessful && !st.MayRevert {
				return nil, fmt.Errorf("%w: transaction %s of bundle %s failed on chain %s", ErrBundle, r.Hash, st.Bundle, st.Chain)
			}
		}
		sl.note(results[i])
	}
	return results, nil
}

// checkRelay: transactions of a relay step relay messages and do nothing else, and behind
// the last one of a bundle that runs whole none is left that the bundle has sent there.
func checkRelay(st *sequence.Step, results []engine.TxResult, logs []relay.Log, all bool) error {
	for i := range results {
		if !relay.Relays(st.Transactions[i], results[i].Logs) {
			return fmt.Errorf("%w: transaction %s of a relay step of bundle %s on chain %s relays no message", ErrBundle, results[i].Hash, st.Bundle, st.Chain)
		}
	}
	if left := len(relay.Pending(st.Chain, logs)); all && left > 0 {
		return fmt.Errorf("%w: a relay step of bundle %s leaves %d messages to chain %s", ErrBundle, st.Bundle, left, st.Chain)
	}
	return nil
}

// conditionsOf are the conditions of bundles, by the step before which they are checked:
// the bundle's first on the chain, before which nothing of the bundle has run there.
func conditionsOf(sub *sequence.Subblock) map[int][]*sequence.Condition {
	var out map[int][]*sequence.Condition
	var bundle common.Hash
	waiting := map[sequence.ChainID][]*sequence.Condition{}
	for i, st := range sub.Steps {
		if st.Bundle != bundle {
			bundle = st.Bundle
			clear(waiting)
		}
		if st.Terms != nil {
			for n := range st.Terms.Conditions {
				c := &st.Terms.Conditions[n]
				waiting[c.Chain] = append(waiting[c.Chain], c)
			}
		}
		if list := waiting[st.Chain]; list != nil {
			if out == nil {
				out = map[int][]*sequence.Condition{}
			}
			out[i] = list
			delete(waiting, st.Chain)
		}
	}
	return out
}

// checkWhole: the steps of a bundle are the bundle as it was sent, whole and in order, in
// blocks that stand or fall together; whole says so. One that was executed before, and lost some of its
// blocks, is completed: what is missing in the steps stands already, as this operator sees it.
func (sl *slot) checkWhole(ctx context.Context, steps []sequence.Step) (whole bool, err error) {
	hash, first := steps[0].Bundle, sl.block(steps[0].Chain)
	for _, st := range steps {
		if sl.block(st.Chain).opening.L1Origin != first.opening.L1Origin {
			return false, fmt.Errorf("%w: bundle %s is on blocks with different L1 origins", ErrBundle, hash)
		}
	}
	b := sequence.BundleOf(steps)
	if b.First() > sl.time {
		return false, fmt.Errorf("%w: the first slot of bundle %s is %d", ErrBundle, hash, b.First())
	}
	if b.Hash() == hash && b.Expiry >= sl.time {
		return true, nil
	}
	e, ok := sl.s.bundles.Get(hash)
	if !ok {
		return false, fmt.Errorf("%w: the steps are not bundle %s, or it has expired", ErrBundle, hash)
	}
	kept, err := sl.standing(ctx, hash)
	if err != nil {
		return false, fmt.Errorf("%w: what stands of bundle %s cannot be read: %w", ErrNotReady, hash, err)
	}
	if !completes(e.Bundle, b.Items, kept) {
		return false, fmt.Errorf("%w: the steps are not bundle %s, or it has expired, and they do not complete it", ErrBundle, hash)
	}
	return false, nil
}

// completes says whether items of a bundle are all that does not stand of it, in order.
func completes(b *sequence.Bundle, items []sequence.BundleItem, kept []builder.Kept) bool {
	if len(kept) == 0 {
		return false // then it runs whole, before it expires
	}
	for i := range b.Items {
		it := &b.Items[i]
		stands := slices.ContainsFunc(kept, func(k builder.Kept) bool { return k.Item == i })
		here := len(items) > 0 && items[0].Chain == it.Chain && items[0].MayRevert == it.MayRevert && bytes.Equal(items[0].Transaction, it.Transaction)
		switch {
		case here && (it.Relay() || !stands): // a relay step may have relayed a part
			items = items[1:]
		case !stands:
			return false
		}
	}
	return len(items) == 0
}

// compare checks what the subblock states of each block, and its seals.
func (sl *slot) compare(ctx context.Context, sub, before *sequence.Subblock) error {
	if len(sub.Results) != len(sl.blocks) {
		return fmt.Errorf("%w: %d results for %d open blocks", ErrOutOfPlace, len(sub.Results), len(sl.blocks))
	}
	left := map[*block]bool{} // left out of this subblock
	for i, b := range sl.blocks {
		if sub.Results[i].Chain != b.id {
			return fmt.Errorf("%w: a result of chain %s, which has no open block", ErrOutOfPlace, sub.Results[i].Chain)
		}
		if sub.Last() && sub.Seals[i].Number != b.opening.ParentNumber+1 { // also of a block whose hash follows later
			return fmt.Errorf("%w: block %d of chain %s is sealed as %d", ErrResult, b.opening.ParentNumber+1, b.id, sub.Seals[i].Number)
		}
		deferred := sub.Last() && sub.Seals[i].Deferred()
		if deferred && before == nil {
			return fmt.Errorf("%w: chain %s is opened and not sealed", ErrOmission, b.id)
		}
		if b.err != nil && sub.Last() && !deferred {
			return fmt.Errorf("%w: chain %s: %w", ErrNotReady, b.id, b.err)
		}
		if left[b] = deferred || b.err != nil; left[b] {
			if sub.Results[i] != resultOf(before, b.id) {
				return fmt.Errorf("%w: chain %s is left out and its result changes", ErrResult, b.id)
			}
			if deferred && slices.ContainsFunc(sub.Steps, func(st sequence.Step) bool { return st.Chain == b.id }) {
				return fmt.Errorf("%w: chain %s has steps and no seal", ErrOmission, b.id)
			}
		}
	}
	return each(sl.blocks, func(b *block) (err error) {
		if left[b] {
			return nil
		}
		want := resultOf(sub, b.id)
		if !sub.Last() {
			have, err := b.session.Result(ctx)
			if err == nil && have != want {
				err = fmt.Errorf("%w: %+v, execution gives %+v", ErrResult, want, have)
			}
			return err
		}
		if err := sl.timed(StageSeal, b, sub.Index, func() error { return b.seal(ctx) }); err != nil {
			return err
		}
		if have := b.sealedResult(); have != want {
			return fmt.Errorf("%w: %+v, execution gives %+v", ErrResult, want, have)
		}
		for _, seal := range sub.Seals {
			if seal.Chain == b.id && (seal.BlockHash != b.ref.Hash || seal.Number != b.ref.Number) {
				return fmt.Errorf("%w: block %d %s, execution gives %s", ErrResult, seal.Number, seal.BlockHash, b.ref)
			}
		}
		return nil
	})
}

// troubled says whether a chain of the slot cannot be worked on at the moment.
func (sl *slot) troubled() bool {
	return slices.ContainsFunc(sl.blocks, func(b *block) bool {
		m, why := sl.s.lookAt(b.chain)
		return why != "" || m.head.ID() != b.opening.Parent()
	})
}

// void says why what is agreed of the slot cannot stand any more, "" if it can: an L1
// reorg took the L1 origin of one of its blocks, derivation has gone another way, or its
// parent was invalidated.
func (sl *slot) void(ctx context.Context) string {
	for _, b := range sl.blocks {
		n := b.current()
		if n == nil {
			continue
		}
		if safe := n.localSafe(); safe.Number > b.opening.ParentNumber {
			return fmt.Sprintf("chain %s: derivation has made block %s in its place", b.id, safe)
		}
		if denied, err := n.denied(); err == nil && denied != nil && *denied <= b.opening.ParentNumber && n.localSafe().Number < *denied {
			return fmt.Sprintf("chain %s: block %d below it was invalidated", b.id, *denied)
		}
		origin, err := n.parts.L1.L1BlockRefByNumber(ctx, b.opening.L1Origin.Number)
		if err == nil && origin.Hash != b.opening.L1Origin.Hash {
			return fmt.Sprintf("chain %s: its L1 origin %s is gone, L1 has %s", b.id, b.opening.L1Origin, origin)
		}
	}
	return ""
}
