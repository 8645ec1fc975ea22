package sequencer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// recheckEngine is how often an engine that failed is tried again.
const recheckEngine = 500 * time.Millisecond

// engineTrouble says that a chain's engine failed. It is mended in the background,
// so that the other chains do not wait for it.
type engineTrouble struct {
	mu      sync.Mutex
	err     error
	mending bool
	again   time.Time
	mended  bool // since the chain's head was last looked up in the engine
}

func (t *engineTrouble) set(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

// is says whether the engine is in trouble.
func (t *engineTrouble) is() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

// engineFailed says whether an error is the engine's: it is gone, or lost blocks or state.
func engineFailed(err error) bool {
	return errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrUnknownParent) || errors.Is(err, errLost) ||
		errors.Is(err, engine.ErrParentState) || errors.Is(err, engine.ErrSessionClosed)
}

// errLost: the engine does not have a block of the chain that its driver stands on.
var errLost = errors.New("the engine has lost blocks")

// engineTrouble says what is wrong with the chain's engine, "" if nothing is, and has
// it mended.
func (s *Sequencer) engineTrouble(c *chain) string {
	t := &c.trouble
	t.mu.Lock()
	if t.err == nil {
		t.mu.Unlock()
		return ""
	}
	why := engineFault + t.err.Error()
	mend := !t.mending && !s.clock.Now().Before(t.again) && s.life.Err() == nil
	t.mending = t.mending || mend
	t.mu.Unlock()
	if mend { // without the lock: Deps.Go may run it here and now
		s.run(func() {
			err := s.refill(s.life, c)
			t.mu.Lock()
			defer t.mu.Unlock()
			t.mending, t.err, t.mended, t.again = false, err, err == nil, s.clock.Now().Add(recheckEngine)
			if err == nil {
				s.log.Info("Engine is back", "chain", c.id)
			}
		})
	}
	return why
}

func (t *engineTrouble) wasMended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mended
}

// checkMended makes sure that an engine that was mended has its driver's head. Blocks that
// derivation made are not in the ledger, and a driver does not notice that they are gone
// before it has something to say to the engine: it is told to look.
func (s *Sequencer) checkMended(ctx context.Context, c *chain, n *node, head eth.L2BlockRef) string {
	t := &c.trouble
	t.mu.Lock()
	mended := t.mended
	t.mu.Unlock()
	if !mended {
		return ""
	}
	_, err := c.engine.BlockByHash(ctx, head.Hash)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		err = fmt.Errorf("%w: block %s, which the ledger does not have", errLost, head)
		s.log.Warn("Driver has to find its head again", "chain", c.id, "err", err)
		n.requestReset(err)
	case err != nil:
		s.noteTrouble(c, err)
	}
	t.mu.Lock()
	t.mended = false
	t.mu.Unlock()
	if err != nil {
		return err.Error()
	}
	return ""
}

// refill brings the engine to the ledger's head: a crash costs it its newest blocks.
func (s *Sequencer) refill(ctx context.Context, c *chain) error {
	res, err := s.ledger.Refill(ctx, c.id, c.engine)
	if err != nil {
		return fmt.Errorf("refilling the engine from the ledger: %w", err)
	}
	s.log.Debug("Engine compared with the ledger", "chain", c.id, "outcome", res.Outcome, "ledger", res.Log, "engine", res.Engine)
	return nil
}

// keep looks after a chain until the sequencer stops: it brings what is kept of it here in
// line with the head that its driver builds on. Every chain has a keeper of its own, so
// that none waits for another's engine. While all is in line it sleeps until something
// happens to the chain.
func (s *Sequencer) keep(c *chain) {
	for s.life.Err() == nil {
		if !s.tend(s.life, c) {
			_ = s.clock.SleepCtx(s.life, pollReady) // not less: its own work wakes it too
			continue
		}
		timer := s.clock.NewTimer(s.settled)
		select {
		case <-c.woken:
		case <-timer.Ch():
		case <-s.life.Done():
		}
		timer.Stop()
	}
}

// pollSettled is how often a chain that is in line is looked at, although nothing was heard of it.
const pollSettled = 500 * time.Millisecond

// Keep looks after all chains once; for a sequencer without keepers.
func (s *Sequencer) Keep(ctx context.Context) {
	for _, c := range s.chains {
		s.tend(ctx, c)
	}
}

// tend says whether there is nothing more to do for a chain until something happens to it.
func (s *Sequencer) tend(ctx context.Context, c *chain) (settled bool) {
	n := c.current()
	if n == nil {
		return true
	}
	head, why := n.ready()
	if why == "" {
		why = s.engineTrouble(c)
	}
	if why != "" {
		s.forgetDenied(ctx, c, n)
		return false
	}
	if s.needsKeeping(c, n, head) {
		s.reconcile(ctx, c)
		return false
	}
	c.setReason("")
	if have, ok := s.history.Head(c.id); (ok && have.Hash == head.Hash) || c.isLent() {
		return true
	}
	s.syncHistory(&member{chain: c, node: n, head: head})
	return false
}

// needsKeeping says whether something is to be brought in line before the chain can be
// built on.
func (s *Sequencer) needsKeeping(c *chain, n *node, head eth.L2BlockRef) bool {
	if c.trouble.wasMended() {
		return true
	}
	logged, _, ok := s.ledger.Head(c.id)
	return (ok && logged.Hash != head.Hash) || s.ledger.Builds(c.id, head.Hash)
}

// reconcile brings the engine, the ledger and the bundle pool in line with the head that
// the chain's driver builds on.
func (s *Sequencer) reconcile(ctx context.Context, c *chain) {
	n, ok := c.borrow()
	if !ok {
		return // a slot is at it
	}
	defer c.giveBack()
	if n == nil {
		return
	}
	// Again, now that nobody else works on the chain.
	head, why := n.ready()
	if why != "" || s.engineTrouble(c) != "" || !s.needsKeeping(c, n, head) {
		return
	}
	if why = s.checkMended(ctx, c, n, head); why == "" {
		if err := s.redeliver(ctx, &member{chain: c, node: n, head: head}); err != nil {
			if engineFailed(err) {
				s.noteTrouble(c, err)
			}
			why = err.Error()
		}
	}
	c.setReason(why)
}

// syncHistory brings the chain's message history to its head, in the background: until
// it is there the executor refuses messages of the chain, and everything else goes on.
func (s *Sequencer) syncHistory(m *member) {
	c := m.chain
	if !c.syncing.CompareAndSwap(false, true) {
		return
	}
	source := historySource{&member{chain: c, head: m.head}}
	s.run(func() {
		defer c.syncing.Store(false)
		if err := s.history.Sync(s.life, c.id, source); err != nil && s.life.Err() == nil {
			s.metrics.HistorySyncFailed(c.id)
			s.log.Warn("Message history is behind, messages of the chain are refused", "chain", c.id, "head", source.member.head, "err", err)
		}
	})
}

// redeliver hands agreed blocks over that the driver does not have: it lost them with
// its engine, they could not be handed over before, or this operator could not run them
// when they were agreed. Blocks that are no longer valid, because their L1 origin is gone
// or they were invalidated, are given up.
func (s *Sequencer) redeliver(ctx context.Context, m *member) error {
	for done := 0; ; done++ {
		logged, _, ok := s.ledger.Head(m.id)
		var err error
		if logged, err = s.derived(ctx, m, logged); err != nil {
			return err
		}
		if !s.ledger.Builds(m.id, m.head.Hash) {
			switch {
			case !ok || logged.Hash == m.head.Hash:
				return nil
			case logged.Number > m.head.Number:
				if _, known := s.ledger.Ancestor(m.id, m.head.Number); !known {
					if err := s.gap(ctx, m, logged); err != nil {
						return err
					}
				}
			}
			return s.rewind(ctx, m, logged)
		}
		if done == redeliverBatch { // others may want to look at the chain
			return fmt.Errorf("agreed blocks are handed over: it is at %s", m.head)
		}
		// The chain may have been stopped or reset since the last block.
		if why := m.node.paused(); why != "" {
			return errors.New(why)
		}
		r, err := s.ledger.Following(m.id, m.head.Hash)
		if err != nil {
			return fmt.Errorf("its agreed block on %s cannot be read: %w", m.head, err)
		}
		env, made, err := s.agreedBlock(ctx, m, r)
		if err != nil {
			return err
		}
		if env == nil {
			return s.rewind(ctx, m, logged)
		}
		ref, err := derive.PayloadToBlockRef(m.rollup, env.ExecutionPayload)
		if err != nil {
			return fmt.Errorf("reading block %d of the ledger: %w", env.ExecutionPayload.BlockNumber, err)
		}
		switch err := m.node.handOver(env, ref, s.clock.Now()); {
		case err == nil:
			s.metrics.BlockRedelivered(m.id)
			s.log.Info("Agreed block was handed over again", "chain", m.id, "block", ref, "made", made)
		case errors.Is(err, opengine.ErrPayloadDenied), errors.Is(err, opengine.ErrPayloadInvalid):
			return s.rewind(ctx, m, logged)
		default:
			return fmt.Errorf("agreed block %s cannot be handed over yet: %w", ref, m.orLost(ctx, err))
		}
		if logged.Hash == m.head.Hash || logged.Number < ref.Number {
			if err := s.ledger.Advance(ctx, m.id, env); err != nil {
				return err
			}
		}
		m.head = ref
	}
}

// derived brings the ledger to the agreed blocks that derivation has made before this
// operator did: it was behind, and what the batcher has posted came before the other
// operators' word. It returns the ledger's new head.
func (s *Sequencer) derived(ctx context.Context, m *member, logged eth.BlockID) (eth.BlockID, error) {
	for done := 0; logged.Number < m.head.Number; done++ {
		if done == redeliverBatch {
			return logged, fmt.Errorf("agreed blocks that derivation has made are noted: it is at %s", logged)
		}
		r, err := s.ledger.Following(m.id, logged.Hash)
		if errors.Is(err, ledger.ErrNotFound) {
			break
		}
		if err != nil {
			return logged, fmt.Errorf("its agreed block on %s cannot be read: %w", logged, err)
		}
		at, err := m.blockAt(ctx, logged.Number+1)
		if err != nil {
			return logged, fmt.Errorf("its block %d cannot be read: %w", logged.Number+1, m.orLost(ctx, err))
		}
		env, err := m.engine.Payload(ctx, at.Hash)
		if err != nil {
			return logged, fmt.Errorf("its block %s cannot be read: %w", at.ID(), m.orLost(ctx, err))
		}
		if at.ParentHash != logged.Hash || !agreedOn(r, m.id, env.ExecutionPayload) {
			break
		}
		if err := s.ledger.Advance(ctx, m.id, env); err != nil {
			return logged, err
		}
		logged = at.ID()
	}
	return logged, nil
}

// agreedOn says whether a block on the same parent is the chain's of an agreed slot. If its
// hash was not agreed, its content was.
func agreedOn(r *ledger.Record, chain sequence.ChainID, p *eth.ExecutionPayload) bool {
	for _, seal := range r.Subblocks[len(r.Subblocks)-1].Seals {
		if seal.Chain == chain && !seal.Deferred() {
			return seal.BlockHash == p.BlockHash
		}
	}
	var content [][]byte
	for _, o := range r.Subblocks[0].Openings {
		if o.Chain == chain {
			content = append(content, o.Deposits...)
		}
	}
	for _, sub := range r.Subblocks {
		for _, st := range sub.Steps {
			if st.Chain == chain {
				content = append(content, st.Transactions...)
			}
		}
	}
	return r.Slot() == sequence.Slot(p.Timestamp) && slices.EqualFunc(content, p.Transactions, func(a []byte, b eth.Data) bool { return bytes.Equal(a, b) })
}

// redeliverBatch bounds the blocks that are handed over again in one look at a chain.
const redeliverBatch = 32

// agreedBlock is the chain's block of an agreed slot, nil if it is no longer valid. A
// block that this operator could not run when it was agreed is made from what was agreed.
func (s *Sequencer) agreedBlock(ctx context.Context, m *member, r *ledger.Record) (env *eth.ExecutionPayloadEnvelope, made bool, err error) {
	var opening sequence.Opening
	for _, o := range r.Subblocks[0].Openings {
		if o.Chain == m.id {
			opening = o
		}
	}
	origin, err := m.node.parts.L1.L1BlockRefByNumber(ctx, opening.L1Origin.Number)
	if err != nil {
		return nil, false, fmt.Errorf("its agreed block of slot %d cannot be checked against L1: %w", r.Slot(), err)
	}
	if origin.Hash != opening.L1Origin.Hash {
		return nil, false, nil
	}
	if env = r.Payloads[m.id]; env == nil {
		if env, err = s.remake(ctx, m, r, opening); err != nil {
			return nil, false, fmt.Errorf("making its agreed block of slot %d: %w", r.Slot(), err)
		}
		made = true
	}
	if m.node.parts.Authority == nil {
		return env, made, nil
	}
	denied, err := m.node.parts.Authority.IsDenied(uint64(env.ExecutionPayload.BlockNumber), env.ExecutionPayload.BlockHash)
	if err != nil {
		return nil, made, fmt.Errorf("its deny list cannot be read: %w", err)
	}
	if denied {
		return nil, made, nil
	}
	return env, made, nil
}

// remake builds a chain's block of an agreed slot from its subblocks, and stores it.
func (s *Sequencer) remake(ctx context.Context, m *member, r *ledger.Record, opening sequence.Opening) (*eth.ExecutionPayloadEnvelope, error) {
	b := &block{member: m, opening: opening, resets: m.node.resets()}
	sl := &slot{s: s, time: r.Slot(), blocks: []*block{b}, agreed: r.Subblocks}
	sl.check = s.executor.Begin(sl.time, map[sequence.ChainID]eth.BlockID{m.id: opening.Parent()})
	defer sl.discard()
	if err := sl.bring(ctx, b); err != nil {
		return nil, err
	}
	if err := b.seal(ctx); err != nil {
		return nil, err
	}
	if err := checkSeal(r.Subblocks[len(r.Subblocks)-1], b); err != nil {
		return nil, err
	}
	if err := m.engine.Insert(ctx, b.ref.Hash); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, fmt.Errorf("storing it: %w", err)
	}
	return b.envelope, nil
}

// checkSeal says whether a sealed block is the one that was agreed.
func checkSeal(last *sequence.Subblock, b *block) error {
	for _, seal := range last.Seals {
		if seal.Chain == b.id && !seal.Deferred() && seal.BlockHash != b.ref.Hash {
			return fmt.Errorf("%w: block %s, agreed is %s", errDiverged, b.ref, seal.BlockHash)
		}
	}
	return nil
}

// gap is the error of a chain whose engine lost blocks that the ledger does not hold any
// more, while what was agreed on top of them is still valid. They were safe when they
// were pruned, so derivation makes them again; building here would replace agreed blocks.
// It is nil if nothing is waited for.
func (s *Sequencer) gap(ctx context.Context, m *member, logged eth.BlockID) error {
	env, err := s.ledger.Payload(m.id, logged.Hash)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil // a rewind named this head, the block itself was never agreed here
	}
	if err != nil {
		return fmt.Errorf("its agreed block %s cannot be read: %w", logged, err)
	}
	if ok, err := s.valid(ctx, m, env); err != nil || !ok {
		return err
	}
	return m.orLost(ctx, fmt.Errorf("derivation has to make blocks again that neither its engine nor the ledger has: it is at %s, agreed is %s", m.head, logged))
}

// valid says whether L1 and the deny list still allow an agreed block.
func (s *Sequencer) valid(ctx context.Context, m *member, env *eth.ExecutionPayloadEnvelope) (bool, error) {
	ref, err := derive.PayloadToBlockRef(m.rollup, env.ExecutionPayload)
	if err != nil {
		return false, fmt.Errorf("reading agreed block %d: %w", env.ExecutionPayload.BlockNumber, err)
	}
	origin, err := m.node.parts.L1.L1BlockRefByNumber(ctx, ref.L1Origin.Number)
	if err != nil {
		return false, fmt.Errorf("its agreed block %s cannot be checked against L1: %w", ref, err)
	}
	if origin.Hash != ref.L1Origin.Hash || m.node.parts.Authority == nil {
		return origin.Hash == ref.L1Origin.Hash, nil
	}
	denied, err := m.node.parts.Authority.IsDenied(ref.Number, ref.Hash)
	if err != nil {
		return false, fmt.Errorf("its deny list cannot be read: %w", err)
	}
	return !denied, nil
}

// rewind notes that the chain was taken away from what was agreed: by an L1 reorg, an
// invalidation, or blocks that derivation made. Bundles with a block that is gone are
// run again as a whole, or reported as undone.
func (s *Sequencer) rewind(ctx context.Context, m *member, logged eth.BlockID) error {
	kept, err := s.commonBlock(ctx, m, logged)
	if err != nil {
		return err
	}
	// The pool first, and on disk: after a crash in between, the ledger still has the
	// blocks, and this is done again.
	again, undone := s.bundles.Replaced(m.id, kept+1)
	if err := s.save(); err != nil {
		return fmt.Errorf("its bundles cannot be saved: %w", err)
	}
	if err := s.ledger.Rewind(ctx, m.id, m.head.ID()); err != nil {
		return fmt.Errorf("its ledger cannot be rewound: %w", err)
	}
	if lost := logged.Number - kept; lost > 0 {
		s.metrics.BlocksTakenBack(m.id, lost)
		s.log.Warn("Agreed blocks were taken back", "chain", m.id, "blocks", lost, "agreed", logged, "head", m.head,
			"bundles_run_again", len(again), "bundles_undone", len(undone))
	}
	return nil
}

// forgetDenied takes the blocks of an invalidated run out of the chain's message history,
// so that the other chains do not execute their messages while they are replaced.
func (s *Sequencer) forgetDenied(ctx context.Context, c *chain, n *node) {
	denied, err := n.denied()
	if err != nil || denied == nil || *denied == 0 || n.localSafe().Number >= *denied {
		return
	}
	if head, ok := s.history.Head(c.id); !ok || head.Number < *denied {
		return
	}
	last, ok := s.ledger.Ancestor(c.id, *denied-1)
	if !ok {
		b, err := c.engine.Block(ctx, *denied-1)
		if err != nil {
			return // its engine is in trouble, which is said elsewhere
		}
		last = b.ID()
	}
	if err := s.history.Rewind(c.id, last); err != nil {
		s.log.Warn("Messages of invalidated blocks could not be forgotten", "chain", c.id, "from", *denied, "err", err)
	}
}

// commonBlock is the newest of the agreed blocks that is in the driver's chain. Blocks
// that the ledger no longer holds are far below the safe head and are not replaced.
func (s *Sequencer) commonBlock(ctx context.Context, m *member, logged eth.BlockID) (uint64, error) {
	for n := min(logged.Number, m.head.Number); ; n-- {
		agreed, ok := s.ledger.Ancestor(m.id, n)
		if !ok || n == 0 {
			return n, nil
		}
		have, err := m.blockAt(ctx, n)
		if err != nil {
			return 0, fmt.Errorf("its block %d cannot be read: %w", n, err)
		}
		if have.Hash == agreed.Hash {
			return n, nil
		}
	}
}

// restoreSlots is how many slots before the one that a saved bundle pool knows the
// ledger is read from: after an L1 reorg slots are agreed again, at later places of it.
const restoreSlots = 64

// restoreBundles brings the bundle pool, which was saved some slots ago, in line with the
// ledger: what was executed since must not run again, and what was taken back must.
func (s *Sequencer) restoreBundles() error {
	for _, c := range s.chains {
		if head, _, ok := s.ledger.Head(c.id); ok {
			s.bundles.Replaced(c.id, head.Number+1)
		}
	}
	from := s.bundles.Slot()
	for r, err := range s.ledger.Slots(from - min(from, restoreSlots)) {
		if err != nil {
			return err
		}
		if s.stands(r) {
			s.bundles.Agreed(r.Subblocks, nil)
		}
	}
	return nil
}

// stands says whether all blocks of an agreed slot are still in their chains.
func (s *Sequencer) stands(r *ledger.Record) bool {
	for id, env := range r.Payloads {
		p := env.ExecutionPayload
		if at, ok := s.ledger.Ancestor(id, uint64(p.BlockNumber)); !ok || at.Hash != p.BlockHash {
			return false
		}
	}
	return true
}

// After how many slots the ledger is told how far the chains are on L1: each costs a synced write.
const (
	finalEvery = 32
	pruneEvery = 256
)

// tidy has the ledger note what of each chain is final, and drop what it need not keep: blocks
// far below the safe head, which derivation could make again from L1 if the engine lost
// them. A chain that has left the set is among them while this operator serves it.
func (s *Sequencer) tidy(prune bool) {
	for _, c := range s.chains {
		n := c.current()
		if n == nil {
			continue
		}
		if final := n.finalizedHead(); final.Number > 0 {
			if err := s.ledger.Finalize(s.life, c.id, final.ID()); err != nil && s.life.Err() == nil {
				s.metrics.LedgerTidyFailed(c.id)
				s.log.Warn("Ledger could not note a final block", "chain", c.id, "block", final, "err", err)
			}
		}
		safe := n.safeHead().Number
		if !prune || safe <= s.cfg.Retention {
			continue
		}
		if err := s.ledger.Prune(s.life, c.id, safe-s.cfg.Retention); err != nil && s.life.Err() == nil {
			s.metrics.LedgerTidyFailed(c.id)
			s.log.Warn("Ledger could not be pruned", "chain", c.id, "below", safe-s.cfg.Retention, "err", err)
		}
	}
}

// orLost tells a failure that only calls itself temporary from an engine that has lost
// the block that is built on, and has to be mended.
func (m *member) orLost(ctx context.Context, err error) error {
	if _, lost := m.engine.BlockByHash(ctx, m.head.Hash); errors.Is(lost, engine.ErrNotFound) {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// blockAt is the block at a height of the chain that ends in the member's head. That need
// not be the engine's canonical chain: an engine goes back only when another block is put
// in its place, and the driver may not have told it of its head yet.
func (m *member) blockAt(ctx context.Context, number uint64) (engine.BlockInfo, error) {
	at, err := m.engine.Block(ctx, m.head.Number)
	if err == nil && at.Hash == m.head.Hash {
		return m.engine.Block(ctx, number)
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return at, err
	}
	for hash := m.head.Hash; ; hash = at.ParentHash {
		at, err = m.engine.BlockByHash(ctx, hash)
		if errors.Is(err, engine.ErrNotFound) {
			return at, fmt.Errorf("%w: %w", errLost, err)
		}
		if err != nil || at.Number <= number {
			return at, err
		}
	}
}

// historySource gives the executor's history a chain up to the head that is built on.
type historySource struct{ member *member }

func (h historySource) Head(context.Context) (eth.BlockRef, error) {
	return h.member.head.BlockRef(), nil
}

func (h historySource) Block(ctx context.Context, number uint64) (eth.BlockRef, error) {
	b, err := h.member.blockAt(ctx, number)
	return eth.BlockRef{Hash: b.Hash, Number: b.Number, ParentHash: b.ParentHash, Time: b.Time}, err
}

func (h historySource) Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error) {
	return h.member.engine.Receipts(ctx, hash)
}
