package sequencer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
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
}

func (t *engineTrouble) set(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

func (t *engineTrouble) current() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// engineFailed says whether an error is the engine's: it is gone, or lost blocks or state.
func engineFailed(err error) bool {
	return errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrUnknownParent) ||
		errors.Is(err, engine.ErrParentState) || errors.Is(err, engine.ErrSessionClosed)
}

// engineTrouble says what is wrong with the chain's engine, "" if nothing is, and has
// it mended.
func (s *Sequencer) engineTrouble(c *chain) string {
	t := &c.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		return ""
	}
	if now := s.clock.Now(); !t.mending && !now.Before(t.again) && s.life.Err() == nil {
		t.mending = true
		s.background.Go(func() {
			err := s.refill(s.life, c)
			t.mu.Lock()
			defer t.mu.Unlock()
			t.mending, t.err, t.again = false, err, s.clock.Now().Add(recheckEngine)
			if err == nil {
				s.log.Info("Engine is back", "chain", c.id)
			}
		})
	}
	return fmt.Sprintf("its engine failed: %v", t.err)
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

// reconcile brings the ledger, the bundle pool and the message history in line with
// the head that the chain's driver builds on. Most of the time there is nothing to do.
func (s *Sequencer) reconcile(ctx context.Context, m *member) error {
	if err := s.redeliver(ctx, m); err != nil {
		return err
	}
	if have, ok := s.history.Head(m.id); !ok || have.Hash != m.head.Hash {
		s.syncHistory(m)
	}
	return nil
}

// syncHistory brings the chain's message history to its head, in the background: until
// it is there the executor refuses messages of the chain, and everything else goes on.
func (s *Sequencer) syncHistory(m *member) {
	c := m.chain
	if !c.syncing.CompareAndSwap(false, true) {
		return
	}
	source := historySource{c.engine, m.head}
	s.background.Go(func() {
		defer c.syncing.Store(false)
		if err := s.history.Sync(s.life, c.id, source); err != nil && s.life.Err() == nil {
			s.log.Warn("Message history is behind, messages of the chain are refused", "chain", c.id, "head", source.head, "err", err)
		}
	})
}

// redeliver hands agreed blocks over that the driver does not have: it lost them with
// its engine, or they could not be handed over before. Blocks that are no longer
// valid, because their L1 origin is gone or they were invalidated, are given up.
func (s *Sequencer) redeliver(ctx context.Context, m *member) error {
	for {
		logged, _, ok := s.ledger.Head(m.id)
		if !ok || logged.Hash == m.head.Hash {
			return nil
		}
		env, err := s.nextAgreed(ctx, m)
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
			s.log.Info("Agreed block was handed over again", "chain", m.id, "block", ref)
			m.head = ref
		case errors.Is(err, opengine.ErrPayloadDenied), errors.Is(err, opengine.ErrPayloadInvalid):
			return s.rewind(ctx, m, logged)
		default:
			return fmt.Errorf("agreed block %s cannot be handed over yet: %w", ref, err)
		}
	}
}

// nextAgreed is the ledger's block on top of the member's head, nil if there is none
// that is still valid.
func (s *Sequencer) nextAgreed(ctx context.Context, m *member) (*eth.ExecutionPayloadEnvelope, error) {
	if at, ok := s.ledger.Ancestor(m.id, m.head.Number); !ok || at.Hash != m.head.Hash {
		return nil, nil // what was agreed does not stand on this head
	}
	next, ok := s.ledger.Ancestor(m.id, m.head.Number+1)
	if !ok {
		return nil, nil
	}
	env, err := s.ledger.Payload(m.id, next.Hash)
	if err != nil {
		return nil, fmt.Errorf("its agreed block %s cannot be read: %w", next, err)
	}
	ref, err := derive.PayloadToBlockRef(m.rollup, env.ExecutionPayload)
	if err != nil {
		return nil, fmt.Errorf("reading block %d of the ledger: %w", m.head.Number+1, err)
	}
	origin, err := m.node.parts.l1.L1BlockRefByNumber(ctx, ref.L1Origin.Number)
	if err != nil {
		return nil, fmt.Errorf("its agreed block %s cannot be checked against L1: %w", ref, err)
	}
	if origin.Hash != ref.L1Origin.Hash {
		return nil, nil
	}
	if m.node.parts.authority != nil {
		denied, err := m.node.parts.authority.IsDenied(ref.Number, ref.Hash)
		if err != nil {
			return nil, fmt.Errorf("its deny list cannot be read: %w", err)
		}
		if denied {
			return nil, nil
		}
	}
	return env, nil
}

// rewind notes that the chain was taken away from what was agreed: by an L1 reorg, an
// invalidation, or blocks that derivation made. Bundles with a block that is gone are
// run again as a whole, or reported as undone.
func (s *Sequencer) rewind(ctx context.Context, m *member, logged eth.BlockID) error {
	kept, err := s.commonBlock(ctx, m, logged)
	if err != nil {
		return err
	}
	if err := s.ledger.Rewind(ctx, m.id, m.head.ID()); err != nil {
		return fmt.Errorf("its ledger cannot be rewound: %w", err)
	}
	lost := logged.Number - kept
	s.bundles.Advance(m.next()) // the set goes back in time
	again, undone := s.bundles.Replaced(m.id, kept+1)
	if lost > 0 {
		s.log.Warn("Agreed blocks were taken back", "chain", m.id, "blocks", lost, "agreed", logged, "head", m.head,
			"bundles_run_again", len(again), "bundles_undone", len(undone))
	}
	return nil
}

// commonBlock is the newest of the agreed blocks that is in the driver's chain. Blocks
// that the ledger no longer holds are far below the safe head and are not replaced.
func (s *Sequencer) commonBlock(ctx context.Context, m *member, logged eth.BlockID) (uint64, error) {
	for n := min(logged.Number, m.head.Number); ; n-- {
		agreed, ok := s.ledger.Ancestor(m.id, n)
		if !ok || n == 0 {
			return n, nil
		}
		have, err := m.engine.Block(ctx, n)
		if err != nil {
			return 0, fmt.Errorf("its block %d cannot be read: %w", n, err)
		}
		if have.Hash == agreed.Hash {
			return n, nil
		}
	}
}

// pruneEvery is after how many blocks the ledger is pruned.
const pruneEvery = 256

// prune drops what the ledger need not keep of a chain: blocks far below the safe head,
// which derivation could make again from L1 if the engine lost them.
func (s *Sequencer) prune(b *block) {
	safe := b.node.safeHead().Number
	if safe <= s.cfg.Retention {
		return
	}
	if err := s.ledger.Prune(s.life, b.id, safe-s.cfg.Retention); err != nil && s.life.Err() == nil {
		s.log.Warn("Ledger could not be pruned", "chain", b.id, "below", safe-s.cfg.Retention, "err", err)
	}
}

// historySource gives the executor's history a chain up to the head that is built on.
type historySource struct {
	engine engine.Engine
	head   eth.L2BlockRef
}

func (h historySource) Head(context.Context) (eth.BlockRef, error) {
	return eth.BlockRef{Hash: h.head.Hash, Number: h.head.Number, ParentHash: h.head.ParentHash, Time: h.head.Time}, nil
}

func (h historySource) Block(ctx context.Context, number uint64) (eth.BlockRef, error) {
	b, err := h.engine.Block(ctx, number)
	return eth.BlockRef{Hash: b.Hash, Number: b.Number, ParentHash: b.ParentHash, Time: b.Time}, err
}

func (h historySource) Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error) {
	return h.engine.Receipts(ctx, hash)
}
