package enginefake

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// session is a block under construction; the engine's mu guards it.
type session struct {
	e        *Engine
	process  int
	parent   *block
	b        *building
	forced   []engine.TxResult
	noTxPool bool
	closed   bool
	marks    []mark
	nextMark engine.Savepoint
	asked    []eth.Data // what Result was last about
}

var _ engine.Session = (*session)(nil)

type mark struct {
	id engine.Savepoint
	at *building
}

func (s *session) Forced() []engine.TxResult { return s.forced }

func (s *session) Header() engine.Header { return s.b.header() }

// enter begins a call. mutates: the call may have changed the block when its context
// ends, so the session ends with it.
func (s *session) enter(ctx context.Context, call string, mutates bool) error {
	if err := s.e.enter(ctx, call); err != nil {
		s.e.mu.Lock()
		defer s.e.mu.Unlock()
		if mutates && !s.closed && (errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrSessionClosed)) {
			s.end()
		}
		if s.closed || s.process != s.e.process {
			return fmt.Errorf("%w: %w", engine.ErrSessionClosed, err)
		}
		return err
	}
	if s.closed || s.process != s.e.process {
		s.e.mu.Unlock()
		return s.e.wrap(call, fmt.Errorf("%w: %w", engine.ErrSessionClosed, errClosed))
	}
	return nil
}

// end closes the session. The caller holds the engine's mu.
func (s *session) end() {
	if s.closed = true; s.process == s.e.process {
		s.e.sessions--
	}
}

func (s *session) Execute(ctx context.Context, txs [][]byte, atomic bool) ([]engine.TxResult, error) {
	if err := s.enter(ctx, "execute", true); err != nil {
		return nil, err
	}
	defer s.e.mu.Unlock()
	before := s.b.clone()
	var out []engine.TxResult
	for _, raw := range txs {
		res := s.b.apply(raw)
		if atomic && res.Err == nil && !res.Succeeded() {
			res.Err = errors.New("reverted")
		}
		out = append(out, res)
		if res.Err != nil {
			if atomic {
				s.b = before
			}
			break
		}
	}
	return out, nil
}

func (s *session) Fill(ctx context.Context, opts engine.FillOptions) ([]engine.TxResult, *engine.Savepoint, error) {
	if err := s.enter(ctx, "fill", true); err != nil {
		return nil, nil, err
	}
	defer s.e.mu.Unlock()
	if s.noTxPool {
		return nil, nil, nil
	}
	if s.e.head() != s.parent {
		return nil, nil, s.e.wrap("fill", engine.ErrPoolBehind)
	}
	before := s.b.clone()
	results := s.e.pool.fill(s.b, opts)
	if !slices.ContainsFunc(results, mayExecute) {
		return results, nil, nil
	}
	savepoint := s.push(before)
	return results, &savepoint, nil
}

func (s *session) Savepoint(ctx context.Context) (engine.Savepoint, error) {
	if err := s.enter(ctx, "savepoint", false); err != nil {
		return 0, err
	}
	defer s.e.mu.Unlock()
	return s.push(s.b.clone()), nil
}

func (s *session) push(at *building) engine.Savepoint {
	s.nextMark++
	s.marks = append(s.marks, mark{s.nextMark, at})
	return s.nextMark
}

// mark finds a savepoint.
func (s *session) mark(call string, id engine.Savepoint) (int, error) {
	for i, m := range s.marks {
		if m.id == id {
			return i, nil
		}
	}
	return 0, s.e.wrap(call, fmt.Errorf("no savepoint %d", id))
}

func (s *session) Rollback(ctx context.Context, id engine.Savepoint) error {
	if err := s.enter(ctx, "rollback", true); err != nil {
		return err
	}
	defer s.e.mu.Unlock()
	i, err := s.mark("rollback", id)
	if err != nil {
		return err
	}
	s.b = s.marks[i].at
	s.marks = s.marks[:i]
	return nil
}

func (s *session) Release(ctx context.Context, id engine.Savepoint) error {
	if err := s.enter(ctx, "release", false); err != nil {
		return err
	}
	defer s.e.mu.Unlock()
	i, err := s.mark("release", id)
	if err != nil {
		return err
	}
	s.marks = s.marks[:i]
	return nil
}

func (s *session) Account(ctx context.Context, addr common.Address) (engine.Account, error) {
	if err := s.enter(ctx, "account", false); err != nil {
		return engine.Account{}, err
	}
	defer s.e.mu.Unlock()
	a := s.b.state.account(addr)
	return engine.Account{Nonce: a.nonce, Balance: a.balance}, nil
}

// Check knows bounds of the header, and slots of accounts, which all are zero here.
func (s *session) Check(ctx context.Context, cond *types.TransactionConditional) error {
	if err := s.enter(ctx, "check", false); err != nil {
		return err
	}
	defer s.e.mu.Unlock()
	h := s.b.header()
	if err := (&types.Header{Number: new(big.Int).SetUint64(h.Number), Time: h.Time}).CheckTransactionConditional(cond); err != nil {
		return s.e.wrap("check", fmt.Errorf("%w: %w", engine.ErrCondition, err))
	}
	for addr, known := range cond.KnownAccounts {
		for key, value := range known.StorageSlots {
			if value != (common.Hash{}) {
				return s.e.wrap("check", fmt.Errorf("%w: slot %s of %s is zero, not %s", engine.ErrCondition, key, addr, value))
			}
		}
	}
	return nil
}

func (s *session) Result(ctx context.Context) (sequence.Result, error) {
	if err := s.enter(ctx, "result", false); err != nil {
		return sequence.Result{}, err
	}
	defer s.e.mu.Unlock()
	s.asked = slices.Clone(s.b.txs)
	return sequence.Result{Chain: s.e.chain, Transactions: uint64(len(s.b.txs)), GasUsed: s.b.gasUsed, ReceiptsRoot: s.b.receiptsRoot()}, nil
}

// Publish takes what was agreed on to be known.
func (s *session) Publish(ctx context.Context, txs uint64) error {
	if err := s.enter(ctx, "publish", false); err != nil {
		return err
	}
	defer s.e.mu.Unlock()
	if txs != uint64(len(s.asked)) {
		return s.e.wrap("publish", fmt.Errorf("%w: %d transactions, Result gave %d", engine.ErrNotFound, txs, len(s.asked)))
	}
	s.e.published = s.asked
	return nil
}

func (s *session) Seal(ctx context.Context) (*eth.ExecutionPayloadEnvelope, error) {
	if err := s.enter(ctx, "seal", true); err != nil {
		return nil, err
	}
	defer s.e.mu.Unlock()
	b := s.b.seal()
	s.e.sealed[b.hash()] = b
	s.end()
	return b.env, nil
}

func (s *session) Discard(ctx context.Context) error {
	if err := s.enter(ctx, "discard", true); err != nil {
		if errors.Is(err, engine.ErrSessionClosed) {
			return nil
		}
		return err
	}
	defer s.e.mu.Unlock()
	s.end()
	return nil
}
