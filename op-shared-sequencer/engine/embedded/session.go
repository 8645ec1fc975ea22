package embedded

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/misc/eip1559"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/miner"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func validate1559(p []byte) error { return eip1559.ValidateHolocene1559Params(p) }

// session is a miner session, with the conversions.
type session struct {
	d      *direct
	s      *miner.Session
	forced []engine.TxResult
	header engine.Header
}

var _ engine.Session = (*session)(nil)

func (s *session) Forced() []engine.TxResult { return s.forced }
func (s *session) Header() engine.Header     { return s.header }

// toResults converts results of the transactions raw.
func toResults(results []miner.SessionResult, raw [][]byte) []engine.TxResult {
	out := make([]engine.TxResult, len(results))
	for i, r := range results {
		out[i] = engine.TxResult{Hash: r.Tx.Hash(), Raw: raw[i], ReturnData: r.ReturnData, Err: r.Err}
		if r.Receipt != nil {
			out[i].Status, out[i].GasUsed, out[i].Logs = r.Receipt.Status, r.Receipt.GasUsed, r.Receipt.Logs
		}
	}
	return out
}

// enter begins a call. A session of a node that has stopped is closed.
func (s *session) enter(ctx context.Context, what string) (leave func(), err error) {
	leave, err = s.d.enter(ctx)
	if errors.Is(err, engine.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", engine.ErrSessionClosed, err)
	}
	return leave, s.wrap(what, err)
}

func (s *session) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return s.d.wrap(fmt.Sprintf("block %d: %s", s.header.Number, what), kind(err))
}

// end ends the session after an error that leaves it unknown what the block holds.
func (s *session) end(what string, err error) error {
	s.s.Discard()
	s.d.forget(s)
	if err = kind(err); !errors.Is(err, engine.ErrSessionClosed) {
		err = fmt.Errorf("%w: %w", engine.ErrSessionClosed, err)
	}
	return s.wrap(what, err)
}

func failed(results []engine.TxResult) bool {
	return len(results) > 0 && results[len(results)-1].Err != nil
}

func (s *session) Execute(ctx context.Context, raw [][]byte, atomic bool) ([]engine.TxResult, error) {
	const what = "execute"
	if len(raw) == 0 {
		return nil, nil
	}
	leave, err := s.enter(ctx, what)
	if err != nil {
		return nil, err
	}
	defer leave()

	txs := make([]*types.Transaction, 0, len(raw))
	var malformed error // of the transaction after txs
	for _, b := range raw {
		tx := new(types.Transaction)
		if malformed = tx.UnmarshalBinary(b); malformed != nil {
			break
		}
		txs = append(txs, tx)
	}
	var before uint64
	if atomic && malformed != nil {
		if before, err = s.s.Savepoint(); err != nil {
			return nil, s.wrap(what, err)
		}
	}
	results, err := s.s.Execute(ctx, txs, atomic)
	if err != nil {
		return nil, s.end(what, err)
	}
	out := toResults(results, raw)
	if malformed == nil {
		return out, nil
	}
	if !failed(out) {
		out = append(out, engine.MalformedTx(raw[len(txs)], malformed))
	}
	if atomic {
		if err := s.s.Rollback(before); err != nil {
			return nil, s.end(what, err)
		}
	}
	return out, nil
}

func (s *session) Fill(ctx context.Context, opts engine.FillOptions) ([]engine.TxResult, *engine.Savepoint, error) {
	const what = "fill"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	order, err := miner.ParseOrder(string(opts.Order))
	if err != nil {
		return nil, nil, s.wrap(what, err)
	}
	results, savepoint, err := s.s.Fill(ctx, miner.FillOptions{
		Order: order, MaxGas: opts.MaxGas, MaxTime: opts.MaxTime, Interop: opts.Interop, Skip: miner.AnyOf(opts.Skip), Reject: miner.AnyOf(opts.Reject),
	})
	if errors.Is(err, miner.ErrPoolBehind) {
		return nil, nil, s.wrap(what, err)
	}
	if err != nil {
		return nil, nil, s.end(what, err)
	}
	raw := make([][]byte, len(results))
	for i, r := range results {
		if raw[i], err = r.Tx.MarshalBinary(); err != nil {
			return nil, nil, s.end(what, fmt.Errorf("transaction %s: %w", r.Tx.Hash(), err))
		}
	}
	return toResults(results, raw), (*engine.Savepoint)(savepoint), nil
}

func (s *session) Savepoint(ctx context.Context) (engine.Savepoint, error) {
	const what = "savepoint"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return 0, err
	}
	defer leave()
	id, err := s.s.Savepoint()
	return engine.Savepoint(id), s.wrap(what, err)
}

func (s *session) Rollback(ctx context.Context, p engine.Savepoint) error {
	const what = "rollback"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return err
	}
	defer leave()
	return s.wrap(what, s.s.Rollback(uint64(p)))
}

func (s *session) Release(ctx context.Context, p engine.Savepoint) error {
	const what = "release"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return err
	}
	defer leave()
	return s.wrap(what, s.s.Release(uint64(p)))
}

func (s *session) Account(ctx context.Context, addr common.Address) (engine.Account, error) {
	const what = "account"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return engine.Account{}, err
	}
	defer leave()
	nonce, balance, err := s.s.Account(addr)
	if err != nil {
		return engine.Account{}, s.wrap(what, err)
	}
	return engine.Account{Nonce: nonce, Balance: balance.ToBig()}, nil
}

func (s *session) Check(ctx context.Context, cond *types.TransactionConditional) error {
	const what = "check a condition"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return err
	}
	defer leave()
	return s.wrap(what, s.s.Check(cond))
}

// resultAttempts bounds how often Result looks again when the block changes under it.
const resultAttempts = 100

func (s *session) Result(ctx context.Context) (sequence.Result, error) {
	const what = "result"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return sequence.Result{}, err
	}
	defer leave()
	for range resultAttempts { // other calls may come in between
		before, err := s.s.Status()
		if err != nil {
			return sequence.Result{}, s.wrap(what, err)
		}
		gas, root, err := s.s.Commitment()
		if err != nil {
			return sequence.Result{}, s.wrap(what, err)
		}
		after, err := s.s.Status()
		if err != nil {
			return sequence.Result{}, s.wrap(what, err)
		}
		if before.TxCount == after.TxCount && before.GasUsed == after.GasUsed && after.GasUsed == gas {
			return sequence.Result{
				Chain:        s.d.chain,
				Transactions: uint64(after.TxCount),
				GasUsed:      gas,
				ReceiptsRoot: root,
			}, nil
		}
	}
	return sequence.Result{}, s.wrap(what, fmt.Errorf("the block changed during each of %d attempts to read it", resultAttempts))
}

func (s *session) Publish(ctx context.Context, txs uint64) error {
	const what = "publish"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return err
	}
	defer leave()
	err = s.s.Publish(int(min(txs, math.MaxInt32)))
	if errors.Is(err, miner.ErrNoCut) {
		err = fmt.Errorf("%w: %w", engine.ErrNotFound, err)
	}
	return s.wrap(what, err)
}

func (s *session) Seal(ctx context.Context) (*eth.ExecutionPayloadEnvelope, error) {
	const what = "seal"
	leave, err := s.enter(ctx, what)
	if err != nil {
		return nil, err
	}
	defer leave()
	block, err := s.s.Seal(ctx)
	if err != nil {
		return nil, s.end(what, err)
	}
	s.d.forget(s)
	payload, err := eth.BlockAsPayloadEnv(block.Block, s.d.eth.BlockChain().Config())
	if err != nil {
		return nil, s.wrap(what, err)
	}
	s.d.keep(block)
	return payload, nil
}

func (s *session) Discard(context.Context) error {
	s.s.Discard()
	s.d.forget(s)
	return nil
}
