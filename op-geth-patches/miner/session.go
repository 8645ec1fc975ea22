// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package miner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/misc"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/txpool"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/trie"
	"github.com/holiman/uint256"
)

// Errors of sessions. Those about one transaction are in its SessionResult.
var (
	ErrUnknownParent          = errors.New("unknown parent block")
	ErrParentStateUnavailable = errors.New("state of the parent block is not available")
	ErrSessionAttributes      = errors.New("invalid session attributes")
	ErrSessionClosed          = errors.New("session is closed")
	ErrUnknownSavepoint       = errors.New("unknown savepoint")
	ErrPoolBehind             = errors.New("transaction pool is not at the session's parent")
	ErrCondition              = errors.New("condition does not hold")

	// Why a transaction was not included.
	ErrTxType      = errors.New("transaction type not taken in a session")
	ErrDAFootprint = errors.New("DA footprint would exceed the block gas limit")
	ErrBlockSize   = errors.New("block size limit reached")
	ErrTxFailed    = errors.New("transaction failed") // included anywhere but in an atomic list
)

// ForcedTxError says which of the attributes' transactions cannot be included. The
// attributes are then invalid as a whole.
type ForcedTxError struct {
	Index int
	Hash  common.Hash
	Err   error
}

func (e *ForcedTxError) Error() string {
	return fmt.Sprintf("forced transaction %d (%s): %v", e.Index, e.Hash, e.Err)
}

func (e *ForcedTxError) Unwrap() error { return e.Err }

// SessionResult is what became of one transaction. It does not change after it was
// handed out. The receipt has everything but the block hash, which is not known
// yet; its log indices are those of the block, as long as the transaction is not
// rolled back.
type SessionResult struct {
	Tx         *types.Transaction
	Receipt    *types.Receipt // nil: not included
	ReturnData []byte         // output, or revert data; only from Execute
	Err        error          // why it was not included; nil for an included one, reverted or not
}

// SessionStatus describes the block under construction.
type SessionStatus struct {
	Number    uint64
	Timestamp uint64
	Parent    common.Hash
	BaseFee   *big.Int
	GasLimit  uint64
	GasUsed   uint64
	TxCount   int
	Extra     []byte // of the header
}

// SealedBlock is a finished block with what core.BlockChain.InsertSealed takes.
type SealedBlock struct {
	Block    *types.Block
	Receipts []*types.Receipt
	State    *state.StateDB
	Envelope *engine.ExecutionPayloadEnvelope
}

// FillOptions bound a Fill. Zero values mean no bound.
type FillOptions struct {
	MaxGas  uint64                        // gas the transactions may use together
	MaxTime time.Duration                 // including the wait for the pool
	Skip    func(*types.Transaction) bool // keeps a transaction, and its sender's later ones, out
	// Interop also takes interop transactions: whoever sets it checks the messages that
	// they execute, and rolls back what is not valid.
	Interop bool
	// Reject, like Skip, and the pool drops the transaction when it next looks at it.
	Reject func(*types.Transaction) bool
	Order  Order // nil: Priority
}

// AnyOf is a condition for FillOptions: the transactions with these hashes. nil if there
// are none.
func AnyOf(hashes []common.Hash) func(*types.Transaction) bool {
	if len(hashes) == 0 {
		return nil
	}
	set := make(map[common.Hash]struct{}, len(hashes))
	for _, h := range hashes {
		set[h] = struct{}{}
	}
	return func(tx *types.Transaction) bool { _, ok := set[tx.Hash()]; return ok }
}

const (
	// poolWait bounds the wait for the pool of a Fill without MaxTime. A reset to a
	// new head takes some tens of milliseconds.
	poolWait = time.Second

	// poolPoll is how often a Fill looks whether the pool has reached the parent.
	poolPoll = time.Millisecond

	// recoverAhead is the list length from which senders are recovered in parallel.
	recoverAhead = 8
)

// Session is an interactive block under construction: where BuildPayload takes what
// the pool offers and answers with a block, a session's owner says what runs when,
// sees each result at once, can take it back, and decides when the block is done.
// Transactions go through the stock builder's functions, so a session that was
// given the same ones as a stock block gives the same block.
//
// A session holds the block's state in memory until Seal or Discard. It starts no
// goroutines. Its methods may be called concurrently and run one after the other;
// only Interrupt does not wait.
type Session struct {
	mu       sync.Mutex
	miner    *Miner
	params   *generateParams // also tells sessions apart
	env      *environment
	cut      atomic.Pointer[cut] // where Commitment last was
	jovian   bool
	marks    []mark
	nextMark uint64
	closed   bool
	broken   error // set when the state failed to read: nothing computed since is right

	output []byte // what the last transaction run by execute gave back
	vmErr  error  // and why it failed, if it did

	intrMu      sync.Mutex
	running     *atomic.Int32 // interrupt signal of the Fill that runs
	interrupted bool          // an Interrupt came while none ran
}

// mark is a savepoint: the state's, and the environment's counters.
type mark struct {
	id          uint64
	depth       int
	gasPool     *core.GasPool
	gasUsed     uint64
	blobGasUsed uint64
	size        uint64
	txs         int
}

// OpenSession starts a block on args.Parent, which need not be the head, and runs
// the attributes' transactions. It returns their results. The parent's own state
// must be live: unlike BuildPayload it does not go back to history, because what is
// built there could not be inserted.
//
// Fails with ErrUnknownParent, ErrParentStateUnavailable, ErrSessionAttributes or
// a *ForcedTxError.
func (miner *Miner) OpenSession(ctx context.Context, args *BuildPayloadArgs) (*Session, []SessionResult, error) {
	parent := miner.chain.GetHeaderByHash(args.Parent)
	if parent == nil {
		return nil, nil, fmt.Errorf("%w: %s", ErrUnknownParent, args.Parent)
	}
	if !miner.chain.HasState(parent.Root) {
		return nil, nil, fmt.Errorf("%w: block %d (%s)", ErrParentStateUnavailable, parent.Number, args.Parent)
	}
	p := &generateParams{
		timestamp:     args.Timestamp,
		forceTime:     true,
		parentHash:    args.Parent,
		coinbase:      args.FeeRecipient,
		random:        args.Random,
		withdrawals:   args.Withdrawals,
		beaconRoot:    args.BeaconRoot,
		slotNum:       args.SlotNum,
		noTxs:         args.NoTxPool,
		txs:           args.Transactions,
		gasLimit:      args.GasLimit,
		eip1559Params: args.EIP1559Params,
		minBaseFee:    args.MinBaseFee,
	}
	env, err := miner.openEnvironment(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	s := &Session{
		miner:  miner,
		params: p,
		env:    env,
		jovian: miner.chainConfig.IsJovian(env.header.Time),
	}
	results := make([]SessionResult, 0, len(p.txs))
	for i, tx := range p.txs {
		receipt, err := s.apply(ctx, tx)
		if err != nil && s.broken == nil {
			env.discard()
			return nil, nil, &ForcedTxError{Index: i, Hash: tx.Hash(), Err: err}
		}
		results = append(results, SessionResult{Tx: tx, Receipt: receipt})
	}
	if s.checkState(); s.broken != nil {
		env.discard()
		return nil, nil, s.broken
	}
	return s, results, nil
}

// openEnvironment is a block before its first transaction.
func (miner *Miner) openEnvironment(ctx context.Context, p *generateParams) (*environment, error) {
	env, err := miner.prepareWork(ctx, p, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSessionAttributes, err)
	}
	env.size += uint64(p.withdrawals.Size())
	misc.EnsureCreate2Deployer(miner.chainConfig, env.header.Time, env.state)
	env.state.Finalise(true) // so that a savepoint can be taken before the first transaction
	return env, nil
}

// Execute runs transactions in order, up to the first that cannot be included. That
// one is the last result and has its Err set; a transaction that reverts is
// included, as in any block. With atomic the first that cannot be included or fails
// ends the list and nothing of the list stays: then the last result's Err is set
// too (ErrTxFailed if it ran), and the results before it tell what had happened.
//
// So the list is in the block if the last result's Err is nil; otherwise all but
// the last are, or with atomic none. An error other than nil is the session's, not
// a transaction's.
func (s *Session) Execute(ctx context.Context, txs []*types.Transaction, atomic bool) ([]SessionResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	txs = s.pooled(txs)
	if len(txs) >= recoverAhead {
		core.SenderCacher().Recover(s.env.signer, txs) // costs more than running a transfer
	}
	s.env.evm.Config.OnResult = func(data []byte, err error) { s.output, s.vmErr = data, err }
	defer func() { s.env.evm.Config.OnResult = nil }()

	var before mark
	if atomic {
		var err error
		if before, err = s.push(); err != nil {
			return nil, err
		}
	}
	results := make([]SessionResult, 0, len(txs))
	for _, tx := range txs {
		res, err := s.execute(ctx, tx)
		if err != nil {
			if atomic {
				s.rollback(before.id)
			}
			return results, err
		}
		if atomic && res.Err == nil && res.Receipt.Status == types.ReceiptStatusFailed {
			res.Err = fmt.Errorf("%w: %v", ErrTxFailed, s.vmErr)
		}
		results = append(results, res)
		if res.Err != nil {
			if atomic {
				return results, s.rollback(before.id)
			}
			return results, nil
		}
	}
	if atomic {
		return results, s.release(before.id)
	}
	return results, nil
}

// pooled takes the pool's own copy of each transaction that it has: whoever follows a leader has
// most of them by gossip, and the sender, which costs more than running a transfer, and the size
// that L1 is paid for are known of that copy. The hash covers the signature: it is the same, but for
// a condition (eth_sendRawTransactionConditional), which is the pool's alone and no part of what was
// agreed on: one that has a condition is not taken.
func (s *Session) pooled(txs []*types.Transaction) []*types.Transaction {
	out := make([]*types.Transaction, len(txs))
	for i, tx := range txs {
		out[i] = tx
		if p := s.miner.txpool.Get(tx.Hash()); p != nil && p.Conditional() == nil {
			out[i] = p
		}
	}
	return out
}

// execute runs one transaction. The error is the session's.
func (s *Session) execute(ctx context.Context, tx *types.Transaction) (SessionResult, error) {
	if err := ctx.Err(); err != nil {
		return SessionResult{}, err
	}
	res := SessionResult{Tx: tx}
	switch {
	case tx.Type() == types.BlobTxType || tx.IsDepositTx():
		res.Err = fmt.Errorf("%w: type %d", ErrTxType, tx.Type())
	case !s.env.txFitsSize(tx):
		res.Err = fmt.Errorf("%w: %d bytes used", ErrBlockSize, s.env.size)
	default:
		s.output, s.vmErr = nil, nil
		res.Receipt, res.Err = s.apply(ctx, tx)
		res.ReturnData = s.output
	}
	if res.Err != nil {
		res.ReturnData = nil
	}
	return res, s.broken
}

// apply runs one transaction and keeps every counter of the environment right. If
// it fails there is no trace of it.
func (s *Session) apply(ctx context.Context, tx *types.Transaction) (*types.Receipt, error) {
	env := s.env
	var footprint uint64
	if s.jovian && !tx.IsDepositTx() {
		footprint = tx.RollupCostData().EstimatedDASize().Uint64() * uint64(env.daFootprintGasScalar)
		if *env.header.BlobGasUsed+footprint > env.header.GasLimit {
			return nil, fmt.Errorf("%w: %d used, transaction has %d, limit %d",
				ErrDAFootprint, *env.header.BlobGasUsed, footprint, env.header.GasLimit)
		}
	}
	env.state.SetTxContext(tx.Hash(), env.tcount)
	// Whoever runs it here has checked what it executes, or follows what was agreed on: the
	// failsafe is about what the pool offers.
	before := env.noTxs
	env.noTxs = true
	err := s.miner.commitTransaction(ctx, env, tx)
	env.noTxs = before
	s.checkState()
	if err != nil {
		return nil, err
	}
	if s.jovian {
		// The stock builder leaves this out for transactions that are not the pool's.
		*env.header.BlobGasUsed += footprint
	}
	return unplaced(env.receipts[len(env.receipts)-1]), nil
}

// unplaced clears the block hash of a receipt: the builder has put there that of
// the unfinished header, which is no block's.
func unplaced(r *types.Receipt) *types.Receipt {
	r.BlockHash = common.Hash{}
	for _, l := range r.Logs {
		l.BlockHash = common.Hash{}
	}
	return r
}

// checkState notes a failed read. The state answers it with zero and goes on, so
// everything that was computed since is worthless.
func (s *Session) checkState() {
	if err := s.env.state.Error(); err != nil && s.broken == nil {
		s.broken = fmt.Errorf("%w: %w", ErrParentStateUnavailable, err)
	}
}

func (s *Session) usable() error {
	if s.closed {
		return ErrSessionClosed
	}
	return s.broken
}

// Savepoint marks the place between two transactions to which Rollback returns.
func (s *Session) Savepoint() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return 0, err
	}
	m, err := s.push()
	return m.id, err
}

// Rollback undoes everything since the savepoint and forgets it and all later ones.
func (s *Session) Rollback(id uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	return s.rollback(id)
}

// Release forgets the savepoint and all later ones and keeps the changes.
func (s *Session) Release(id uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	return s.release(id)
}

func (s *Session) push() (mark, error) {
	env := s.env
	depth, err := env.state.PushSavepoint()
	if err != nil {
		return mark{}, err
	}
	m := mark{
		id:      s.nextMark,
		depth:   depth,
		gasPool: env.gasPool.Snapshot(),
		gasUsed: env.header.GasUsed,
		size:    env.size,
		txs:     len(env.txs),
	}
	if env.header.BlobGasUsed != nil {
		m.blobGasUsed = *env.header.BlobGasUsed
	}
	s.nextMark++
	s.marks = append(s.marks, m)
	return m, nil
}

// take removes the savepoint and all later ones.
func (s *Session) take(id uint64) (mark, error) {
	for i, m := range s.marks {
		if m.id == id {
			s.marks = s.marks[:i]
			return m, nil
		}
	}
	return mark{}, fmt.Errorf("%w: %d", ErrUnknownSavepoint, id)
}

func (s *Session) rollback(id uint64) error {
	m, err := s.take(id)
	if err != nil {
		return err
	}
	env := s.env
	if err := env.state.RollbackTo(m.depth); err != nil {
		return err
	}
	env.gasPool.Set(m.gasPool)
	env.header.GasUsed = m.gasUsed
	if env.header.BlobGasUsed != nil {
		*env.header.BlobGasUsed = m.blobGasUsed
	}
	env.size, env.tcount = m.size, m.txs
	env.txs, env.receipts = env.txs[:m.txs], env.receipts[:m.txs]
	return nil
}

func (s *Session) release(id uint64) error {
	m, err := s.take(id)
	if err != nil {
		return err
	}
	return s.env.state.ReleaseTo(m.depth)
}

// Fill adds transactions from the pool in the order that o.Order says, by default the
// stock builder's. Never taken are blob transactions, interop
// transactions unless o.Interop says so, and what o.Skip and o.Reject name. A session
// opened with NoTxPool takes nothing.
//
// If any of what it took may execute messages, it also returns a savepoint of before all of it, as
// whoever checks them may want it back.
//
// It first waits until the pool has been reset to the session's parent, and fails
// with ErrPoolBehind if that does not happen in time. Otherwise running out of time,
// an Interrupt, and the end of ctx only end the filling.
func (s *Session) Fill(ctx context.Context, o FillOptions) (results []SessionResult, savepoint *uint64, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, nil, err
	}
	signal, done := s.arm(ctx, o.MaxTime)
	defer done()
	if s.params.noTxs {
		return nil, nil, nil
	}
	if err := s.awaitPool(signal, o.MaxTime); err != nil {
		return nil, nil, err
	}
	before, err := s.push()
	if err != nil {
		return nil, nil, err
	}
	start := len(s.env.txs)
	err = s.fill(ctx, signal, o)
	s.checkState()
	if s.broken != nil {
		return nil, nil, s.broken
	}
	results = make([]SessionResult, 0, len(s.env.txs)-start)
	for i, tx := range s.env.txs[start:] {
		results = append(results, SessionResult{Tx: tx, Receipt: unplaced(s.env.receipts[start+i])})
	}
	if slices.ContainsFunc(results, mayExecute) {
		return results, &before.id, err
	}
	return results, nil, errors.Join(err, s.release(before.id))
}

// Interrupt ends the Fill that runs, or the next one if none does.
func (s *Session) Interrupt() {
	s.intrMu.Lock()
	defer s.intrMu.Unlock()
	if s.running != nil {
		s.running.Store(commitInterruptResolve)
	} else {
		s.interrupted = true
	}
}

// arm gives a Fill its own signal, so that a late timer cannot hit the next one.
func (s *Session) arm(ctx context.Context, maxTime time.Duration) (*atomic.Int32, func()) {
	signal := new(atomic.Int32)
	s.intrMu.Lock()
	s.running = signal
	if s.interrupted {
		signal.Store(commitInterruptResolve)
		s.interrupted = false
	}
	s.intrMu.Unlock()

	expire := func() { signal.CompareAndSwap(commitInterruptNone, commitInterruptTimeout) }
	stopCtx := context.AfterFunc(ctx, expire)
	stopTimer := func() bool { return true }
	if maxTime > 0 {
		stopTimer = time.AfterFunc(maxTime, expire).Stop
	}
	return signal, func() {
		stopCtx()
		stopTimer()
		s.intrMu.Lock()
		s.running = nil
		s.intrMu.Unlock()
	}
}

// awaitPool waits for the pool to be at the parent: before, it would offer what the
// parent has already included, and not yet what the parent has made executable.
func (s *Session) awaitPool(signal *atomic.Int32, maxTime time.Duration) error {
	if s.miner.txpool.AtHead(s.env.header.ParentHash) {
		return nil
	}
	if maxTime <= 0 {
		maxTime = poolWait
	}
	deadline := time.NewTimer(maxTime)
	defer deadline.Stop()
	tick := time.NewTicker(poolPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("%w: parent %s, waited %v", ErrPoolBehind, s.env.header.ParentHash, maxTime)
		}
		if s.miner.txpool.AtHead(s.env.header.ParentHash) {
			return nil
		}
		if signal.Load() != commitInterruptNone {
			return fmt.Errorf("%w: parent %s, interrupted", ErrPoolBehind, s.env.header.ParentHash)
		}
	}
}

// fill is fillTransactions with a gas budget, without blobs, and with transactions
// kept out.
func (s *Session) fill(ctx context.Context, signal *atomic.Int32, o FillOptions) error {
	env := s.env
	s.miner.confMu.RLock()
	config, prio := *s.miner.config, s.miner.prio
	s.miner.confMu.RUnlock()

	budget := env.gasPool.Gas()
	if o.MaxGas != 0 {
		budget = min(budget, o.MaxGas)
	}
	if ceil := config.EffectiveGasCeil; ceil != 0 {
		budget = min(budget, ceil-min(ceil, env.gasPool.Used()))
	}
	filter := txpool.PendingFilter{
		MinTip:      uint256.MustFromBig(config.GasPrice),
		MaxDATxSize: config.MaxDATxSize,
	}
	if env.header.BaseFee != nil {
		filter.BaseFee = uint256.MustFromBig(env.header.BaseFee)
	}
	if c := s.miner.chainConfig; c.IsOsaka(env.header.Number, env.header.Time) || c.IsOptimismKarst(env.header.Time) {
		filter.GasLimitCap = params.MaxTxGas // EIP-7825
	}
	normal, _ := s.miner.txpool.Pending(filter)
	for from, list := range normal {
		if n := o.admitted(list); n == 0 {
			delete(normal, from)
		} else {
			normal[from] = list[:n]
		}
	}
	if o.Order == nil {
		o.Order = Priority
	}
	// What the budget leaves out is set aside while the pool's transactions run.
	reserve := env.gasPool.Gas() - budget
	if err := env.gasPool.SubGas(reserve); err != nil {
		return err
	}
	defer func() {
		env.gasPool.ReturnGas(reserve, 0) // cannot overflow: it was just taken out
		env.header.GasUsed = env.gasPool.Used()
	}()
	for _, pending := range o.Order.groups(normal, prio) {
		if len(pending) == 0 {
			continue
		}
		err := s.filler(config).commitTransactions(ctx, env,
			newTransactionsByPriceAndNonce(env.signer, pending, env.header.BaseFee),
			newTransactionsByPriceAndNonce(env.signer, nil, env.header.BaseFee), signal)
		if errors.Is(err, errBlockInterruptedByTimeout) || errors.Is(err, errBlockInterruptedByResolve) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// filler is the miner with the configuration of one moment, whose limit on the
// block's DA size is reduced by what is in the block: commitTransactions counts
// from zero in each call, and reads the configuration without its lock.
func (s *Session) filler(config Config) *Miner {
	if config.MaxDABlockSize != nil {
		left := new(big.Int).Set(config.MaxDABlockSize)
		for _, tx := range s.env.txs {
			if !tx.IsDepositTx() {
				left.Sub(left, tx.RollupCostData().EstimatedDASize())
			}
		}
		if left.Sign() < 0 {
			left.SetUint64(0)
		}
		config.MaxDABlockSize = left
	}
	m := s.miner
	return &Miner{
		backend: m.backend, config: &config, chainConfig: m.chainConfig,
		engine: m.engine, txpool: m.txpool, chain: m.chain,
	}
}

// admitted counts a sender's transactions up to the first that is kept out: later
// nonces cannot run without it.
func (o *FillOptions) admitted(list []*txpool.LazyTransaction) int {
	for i, lazy := range list {
		tx := lazy.Resolve()
		if tx != nil && o.Reject != nil && o.Reject(tx) {
			tx.SetRejected()
			return i
		}
		if tx == nil || tx.Type() == types.BlobTxType || (!o.Interop && isInterop(tx)) || (o.Skip != nil && o.Skip(tx)) {
			return i
		}
	}
	return len(list)
}

// isInterop tells whether the transaction may execute a message: that needs
// CrossL2Inbox in its access list.
func isInterop(tx *types.Transaction) bool {
	for _, entry := range tx.AccessList() {
		if entry.Address == params.InteropCrossL2InboxAddress {
			return true
		}
	}
	return false
}

// mayExecute tells whether the transaction declares that it executes messages, or has done so.
func mayExecute(r SessionResult) bool {
	return isInterop(r.Tx) || slices.ContainsFunc(r.Receipt.Logs, func(l *types.Log) bool { return l.Address == params.InteropCrossL2InboxAddress })
}

// Status describes the block so far.
func (s *Session) Status() (SessionStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return SessionStatus{}, err
	}
	h := s.env.header
	return SessionStatus{
		Number:    h.Number.Uint64(),
		Timestamp: h.Time,
		Parent:    h.ParentHash,
		BaseFee:   new(big.Int).Set(h.BaseFee),
		GasLimit:  h.GasLimit,
		GasUsed:   h.GasUsed,
		TxCount:   len(s.env.txs),
		Extra:     bytes.Clone(h.Extra),
	}, nil
}

// Commitment is what operators compare after a step: the gas used and the root of
// the receipts so far. The root costs a few microseconds per transaction.
func (s *Session) Commitment() (gasUsed uint64, receiptsRoot common.Hash, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return 0, common.Hash{}, err
	}
	s.cut.Store(s.newCut())
	return s.env.header.GasUsed, types.DeriveSha(types.Receipts(s.env.receipts), trie.NewStackTrie(nil)), nil
}

// Account reads an account's nonce and balance (wei) in the block so far.
func (s *Session) Account(addr common.Address) (nonce uint64, balance *uint256.Int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return 0, nil, err
	}
	nonce, balance = s.env.state.GetNonce(addr), s.env.state.GetBalance(addr).Clone()
	s.checkState()
	return nonce, balance, s.broken
}

// Check says whether a condition holds for the block so far: ErrCondition if it does not. A
// storage root is compared with the parent's, slots with the state as it is now.
func (s *Session) Check(cond *types.TransactionConditional) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	err := s.env.header.CheckTransactionConditional(cond)
	if err == nil {
		err = s.env.state.CheckTransactionConditional(cond)
	}
	if s.checkState(); s.broken != nil {
		return s.broken
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCondition, err)
	}
	return nil
}

// Seal makes the block. The session is closed, whether that worked or not.
func (s *Session) Seal(ctx context.Context) (*SealedBlock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrSessionClosed
	}
	s.closed = true
	defer s.env.discard()
	if s.broken != nil {
		return nil, s.broken
	}
	env, config := s.env, s.miner.chainConfig
	requests, err := s.requests()
	if err != nil {
		return nil, fmt.Errorf("seal block %d: requests: %w", env.header.Number, err)
	}
	if requests != nil {
		hash := types.CalcRequestsHash(requests)
		env.header.RequestsHash = &hash
	}
	if config.IsOptimism() && s.jovian {
		// The running sum decided what still fits. If it is wrong the block is too.
		footprint, err := types.CalcDAFootprint(env.txs)
		if err != nil {
			return nil, fmt.Errorf("seal block %d: %w", env.header.Number, err)
		}
		if footprint != *env.header.BlobGasUsed {
			return nil, fmt.Errorf("seal block %d: DA footprint %d, counted %d", env.header.Number, footprint, *env.header.BlobGasUsed)
		}
	}
	body := types.Body{Transactions: env.txs, Withdrawals: s.params.withdrawals}
	block, err := s.miner.engine.FinalizeAndAssemble(ctx, s.miner.chain, env.header, env.state, &body, env.receipts)
	if s.checkState(); s.broken != nil { // the better reason, if there is one
		return nil, s.broken
	}
	if err != nil {
		return nil, fmt.Errorf("seal block %d: %w", env.header.Number, err)
	}
	return &SealedBlock{
		Block:    block,
		Receipts: receiptsOf(block.Hash(), env.receipts),
		State:    env.state,
		Envelope: engine.BlockToExecutableData(block, totalFees(block, env.receipts), nil, requests),
	}, nil
}

// requests collects the block's consensus layer requests: nil before Prague, the
// contracts' until Isthmus, and an empty list from there on.
func (s *Session) requests() ([][]byte, error) {
	env, config := s.env, s.miner.chainConfig
	requests := [][]byte{}
	switch {
	case config.IsIsthmus(env.header.Time):
		return requests, nil
	case !config.IsPrague(env.header.Number, env.header.Time):
		return nil, nil
	}
	var logs []*types.Log
	for _, r := range env.receipts {
		logs = append(logs, r.Logs...)
	}
	if err := core.ParseDepositLogs(&requests, logs, config); err != nil {
		return nil, err
	}
	if err := core.ProcessWithdrawalQueue(&requests, env.evm); err != nil {
		return nil, err
	}
	return requests, core.ProcessConsolidationQueue(&requests, env.evm)
}

// receiptsOf are copies of the receipts, and of their logs, with the hash of the
// block: it was not known when they were made, and the originals are in the hands
// of whoever got the results.
func receiptsOf(hash common.Hash, receipts []*types.Receipt) []*types.Receipt {
	var (
		copies = make([]types.Receipt, len(receipts))
		out    = make([]*types.Receipt, len(receipts))
	)
	for i, r := range receipts {
		copies[i] = *r
		copies[i].BlockHash = hash
		logs := make([]*types.Log, len(r.Logs))
		for j, l := range r.Logs {
			c := *l
			c.BlockHash = hash
			logs[j] = &c
		}
		copies[i].Logs = logs
		out[i] = &copies[i]
	}
	return out
}

// Discard ends the session without a block. It may be called at any time, also
// after Seal, any number of times.
func (s *Session) Discard() {
	s.Interrupt() // a Fill that runs should not be waited for
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.env.discard()
	}
	s.miner.published.forget(s.params) // also of a block that is sealed and not wanted
}
