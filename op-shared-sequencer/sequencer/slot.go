package sequencer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// slot is the slot under construction: what was agreed of it, as far as this operator
// has run it. What is tried on top is an attempt's.
type slot struct {
	s      *Sequencer
	time   sequence.Slot
	blocks []*block             // ascending by chain
	agreed []*sequence.Subblock // committed so far
	check  *executor.Slot       // knows the logs of what was agreed
	report SlotReport
	ran    map[common.Hash]bundlepool.Ran
	// timeline is when its parts were made.
	timeline timeline
}

// block is one chain's block in a slot.
type block struct {
	*member
	resets int // of the node when the session was opened

	origin  eth.L1BlockRef
	opening sequence.Opening
	attrs   *eth.PayloadAttributes

	session engine.Session // nil: has to be opened before the chain is worked on
	held    uint64         // subblocks of the slot whose steps the session has, one on trial included

	envelope *eth.ExecutionPayloadEnvelope // once sealed
	ref      eth.L2BlockRef

	point engine.Savepoint // where the session was when the call in progress began
	taken bool             // lent to it
	err   error            // why the chain cannot be worked on in the call in progress
}

// block is the slot's block of a chain, nil if it has none.
func (sl *slot) block(chain sequence.ChainID) *block {
	for _, b := range sl.blocks {
		if b.id == chain {
			return b
		}
	}
	return nil
}

// next is the index of the next subblock.
func (sl *slot) next() uint64 { return uint64(len(sl.agreed)) }

// interval is the time between two slots of the chain with the shortest block time.
func (sl *slot) interval() time.Duration { return interval(sl.blocks) }

func interval(blocks []*block) time.Duration {
	shortest := blocks[0].rollup.BlockTime
	for _, b := range blocks {
		shortest = min(shortest, b.rollup.BlockTime)
	}
	return time.Duration(shortest) * time.Second
}

// take borrows the block's chain for the call in progress, and says why it cannot be
// worked on if so.
func (sl *slot) take(b *block) error {
	if b.taken {
		return b.err
	}
	n, ok := b.borrow()
	if !ok {
		return errBusy
	}
	b.taken = true
	b.err = sl.usable(b, n)
	if b.err != nil {
		if b.envelope == nil {
			b.drop()
		}
		b.putBack()
		b.taken = false
	}
	return b.err
}

// errBusy: the chain is used by its own keeper, or its last block is still handed over.
var errBusy = errors.New("its last block is being handed over")

func (sl *slot) usable(b *block, n *node) error {
	if n == nil {
		return errors.New(noDriver)
	}
	head, why := n.ready()
	if b.envelope != nil { // it is built, and only to be handed over
		head, why = n.standsOn()
	}
	if why == "" {
		why = sl.s.engineTrouble(b.chain)
	}
	if why != "" {
		return errors.New(why)
	}
	if head.ID() != b.opening.Parent() {
		return fmt.Errorf("%w: its driver stands on %s, slot %d builds on %s", errMoved, head, sl.time, b.opening.Parent())
	}
	if n != b.node || n.resets() != b.resets {
		if b.envelope == nil { // the engine may have come back without the session
			b.drop()
		}
		b.node, b.resets = n, n.resets()
	}
	b.head = head
	return nil
}

// errMoved: the driver stands on another block than the slot builds on.
var errMoved = errors.New("chain has moved")

// drop ends the block's session: it has to be opened again.
func (b *block) drop() {
	if b.session != nil { // also one that is sealed: what was published of it is void
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = b.session.Discard(ctx) // what is left of it expires in the engine
	}
	b.session, b.envelope, b.held = nil, nil, 0
}

// discard ends all sessions that were not sealed.
func (sl *slot) discard() {
	for _, b := range sl.blocks {
		b.drop()
	}
}

// open opens the blocks' sessions and starts the executor's slot with their forced
// transactions.
func (sl *slot) open(ctx context.Context) error {
	parents := make(map[sequence.ChainID]eth.BlockID, len(sl.blocks))
	for _, b := range sl.blocks {
		parents[b.id] = b.opening.Parent()
	}
	sl.check = sl.s.executor.Begin(sl.time, parents)
	if err := each(sl.blocks, func(b *block) error {
		return sl.timed(StageOpen, b, 0, func() error { return b.open(ctx, sl.time) })
	}); err != nil {
		return fmt.Errorf("opening slot %d: %w", sl.time, err)
	}
	for _, b := range sl.blocks {
		txs, err := builder.Checked(b.session.Forced())
		if err != nil {
			return &builder.ChainError{Chain: b.id, Err: err}
		}
		// The CrossL2Inbox refuses messages that deposits execute, so this cannot fail
		// unless engine and executor disagree; nothing could be left out then.
		if err := sl.check.Apply(b.id, txs); err != nil {
			return fmt.Errorf("checking the forced transactions of chain %s: %w", b.id, err)
		}
	}
	sl.s.mu.Lock()
	sl.s.open = sl.opened()
	sl.s.mu.Unlock()
	return nil
}

func (b *block) open(ctx context.Context, slot sequence.Slot) (err error) {
	if b.attrs == nil {
		b.attrs = b.opening.Attributes(slot)
	}
	b.session, err = b.engine.Open(ctx, b.opening.Parent(), b.attrs)
	return err
}

// bring brings the block's session to what was agreed of the slot: after a restart of
// its engine or its driver, or when this operator had not verified what was agreed.
func (sl *slot) bring(ctx context.Context, b *block) error {
	if b.session != nil && b.held == sl.next() {
		return nil
	}
	if b.session == nil {
		if err := b.open(ctx, sl.time); err != nil {
			return fmt.Errorf("opening its block of slot %d again: %w", sl.time, err)
		}
		txs, err := builder.Checked(b.session.Forced())
		if err != nil {
			return err
		}
		if err := sl.adopt(b, txs); err != nil {
			return err
		}
	}
	for ; b.held < sl.next(); b.held++ {
		if err := sl.rerun(ctx, b, sl.agreed[b.held]); err != nil {
			b.drop()
			return err
		}
	}
	return nil
}

// rerun executes an agreed subblock's part of a chain, without judging it again. That
// the results are the agreed ones is a check of this operator's own engine.
func (sl *slot) rerun(ctx context.Context, b *block, sub *sequence.Subblock) error {
	for _, st := range sub.Steps {
		if st.Chain != b.id {
			continue
		}
		res, err := b.execute(ctx, st.Transactions)
		if err != nil {
			return err
		}
		txs, err := builder.Checked(res)
		if err != nil {
			return err
		}
		if err := sl.adopt(b, txs); err != nil {
			return err
		}
		sl.note(res)
	}
	have, err := b.session.Result(ctx)
	if err != nil {
		return err
	}
	want := resultOf(sub, b.id)
	if have != want {
		return fmt.Errorf("%w: subblock %d of slot %d left %+v, agreed is %+v", errDiverged, sub.Index, sub.Slot, have, want)
	}
	return nil
}

// errDiverged: this operator's engine comes to other results than the operators agreed on.
var errDiverged = errors.New("its engine differs from what was agreed: compare its version and genesis with the other operators', then rebuild its data directory")

// adopt gives logs to the executor. Blocks are brought up in parallel.
func (sl *slot) adopt(b *block, txs []executor.Tx) error {
	sl.s.adopting.Lock()
	defer sl.s.adopting.Unlock()
	return sl.check.Adopt(b.id, txs)
}

// note remembers what the transactions of bundles came to, for their status.
func (sl *slot) note(res []engine.TxResult) {
	sl.s.adopting.Lock()
	defer sl.s.adopting.Unlock()
	if sl.ran == nil {
		sl.ran = map[common.Hash]bundlepool.Ran{}
	}
	for i := range res {
		sl.ran[res[i].Hash] = bundlepool.Ran{GasUsed: res[i].GasUsed, Status: res[i].Status}
	}
}

// execute runs transactions that must all be included.
func (b *block) execute(ctx context.Context, txs [][]byte) ([]engine.TxResult, error) {
	res, err := b.session.Execute(ctx, txs, false)
	if err != nil {
		return nil, err
	}
	if n := len(res); n > 0 && res[n-1].Err != nil {
		return nil, fmt.Errorf("%w: transaction %s cannot be included: %w", errRefused, res[n-1].Hash, res[n-1].Err)
	}
	if len(res) != len(txs) {
		return nil, fmt.Errorf("the engine gave %d results for %d transactions", len(res), len(txs))
	}
	return res, nil
}

// seal ends the chain's block.
func (b *block) seal(ctx context.Context) (err error) {
	if b.envelope, err = b.session.Seal(ctx); err != nil {
		return err
	}
	b.ref, err = derive.PayloadToBlockRef(b.rollup, b.envelope.ExecutionPayload)
	return err
}

// sealedResult is the result of a sealed block.
func (b *block) sealedResult() sequence.Result {
	p := b.envelope.ExecutionPayload
	return sequence.Result{
		Chain: b.id, Transactions: uint64(len(p.Transactions)), GasUsed: uint64(p.GasUsed), ReceiptsRoot: common.Hash(p.ReceiptsRoot),
	}
}

func resultOf(sub *sequence.Subblock, chain sequence.ChainID) sequence.Result {
	i := slices.IndexFunc(sub.Results, func(r sequence.Result) bool { return r.Chain == chain })
	if i < 0 {
		return sequence.Result{}
	}
	return sub.Results[i]
}

// attempt is a subblock that was run on top of what is agreed, and is not agreed itself.
type attempt struct {
	slot  *slot
	index uint64
	fresh bool // it opened the slot
	sub   *sequence.Subblock
	hash  common.Hash
	// Where the slot was before; only of chains that were worked on.
	points map[*block]engine.Savepoint
	mark   executor.Mark
	order  *builder.Order // of this operator's own
	// results of each step's transactions; nil if this operator has not run it
	results [][]engine.TxResult
	ran     []ran     // the blocks that were run, ascending by chain
	ranAt   time.Time // when it was done: the operators vote from here on
}

// begin begins an attempt at the slot's subblock with the given index. Rolling back to
// the savepoints of the blocks leaves no trace of it.
func (sl *slot) begin(index uint64) *attempt {
	a := &attempt{slot: sl, index: index, fresh: index == 0, points: map[*block]engine.Savepoint{}}
	if a.fresh {
		return a
	}
	a.mark = sl.check.Mark()
	for _, b := range sl.blocks {
		if b.err == nil {
			a.points[b] = b.point
		}
	}
	return a
}

// ran is a block as it was when an attempt was done: later, others work on it.
type ran struct {
	chain   sequence.ChainID
	session engine.Session
	sealed  *eth.ExecutionPayloadEnvelope // with the slot's last subblock
}

// undo takes the attempt back.
func (a *attempt) undo() {
	if a.order != nil {
		a.slot.s.pace.lost()
	}
	if a.fresh {
		a.slot.discard()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	for b, p := range a.points {
		switch {
		case b.session == nil:
		case b.envelope != nil: // a sealed session is gone; the block is built again
			b.drop()
		case b.session.Rollback(ctx, p) != nil:
			b.drop()
		default:
			b.held = a.index
		}
	}
	if err := a.slot.check.Rollback(a.mark); err != nil { // marks are kept in order here
		a.slot.s.log.Error("Slot has to be run again", "slot", a.slot.time, "err", err)
		a.slot.discard()
	}
}

// undoTime bounds a rollback. A session that does not answer is opened again.
const undoTime = 2 * time.Second

// done completes the attempt.
func (a *attempt) done(sub *sequence.Subblock, hash common.Hash) {
	a.sub, a.hash, a.ranAt = sub, hash, a.slot.s.clock.Now()
	for _, b := range a.slot.blocks {
		if b.err == nil {
			b.held = a.index + 1
			a.ran = append(a.ran, ran{b.id, b.session, b.envelope})
		}
	}
}

// keep makes the attempt part of what is agreed. It leaves the blocks alone: this
// operator's draft may be at work on them.
func (a *attempt) keep() {
	sl := a.slot
	sl.agreed = append(sl.agreed, a.sub)
	if a.order != nil {
		sl.s.pace.filled(a.order.Fill, sl.s.longestFill(sl.interval()))
		sl.report.Fill += a.order.Fill
		sl.report.Bundles += a.order.Bundled
		sl.report.Relays += a.order.Relays
		sl.report.Relayed.Add(a.order.Relayed)
		sl.addWork(a.index, a.order)
	}
}

// each runs f on blocks in parallel. The first error is returned with its chain.
func each(blocks []*block, f func(b *block) error) error {
	errs := make([]error, len(blocks))
	var wg sync.WaitGroup
	for i, b := range blocks {
		wg.Go(func() { errs[i] = f(b) })
	}
	wg.Wait()
	for i, b := range blocks {
		if errs[i] != nil {
			return &builder.ChainError{Chain: b.id, Err: errs[i]}
		}
	}
	return nil
}
