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

package catalyst

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/common/lru"
	"github.com/ethereum/go-ethereum/consensus"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/golang/snappy"
)

// SessionConfig limits what a client can make an engine hold.
type SessionConfig struct {
	MaxOpen   int           // sessions open at once; one more ends the oldest
	MaxAge    time.Duration // a session is discarded this long after it was opened
	MaxTxs    int           // transactions per call of sessionExecute
	MaxSealed int           // sealed blocks kept for sessionInsert, the oldest go first
}

// DefaultSessionConfig suits a sequencer: one session per slot, a few more while
// leaders change, with a block of 5000 transactions holding about 11 MB.
var DefaultSessionConfig = SessionConfig{
	MaxOpen:   8,
	MaxAge:    2 * time.Minute,
	MaxTxs:    10_000,
	MaxSealed: 4,
}

// SessionVersion is that of the session methods' shapes. It changes when a client of the one before
// would not understand an answer, or be understood.
const SessionVersion = 3

// Error codes of the session methods. They are part of the interface and do not
// change. engine.InvalidPayloadAttributes (-38003) and the codes of JSON-RPC itself
// occur beside them.
const (
	CodeUnknownSession         = -39001 // no such id: never opened, sealed, discarded, or the engine has restarted
	CodeTooManySessions        = -39002 // MaxOpen are open
	CodeSessionExpired         = -39003 // open for longer than MaxAge and discarded
	CodeUnknownParent          = -39004
	CodeParentStateUnavailable = -39005 // too old, or it became so while the session was open
	CodeForcedTx               = -39006 // a transaction of the attributes cannot be included
	CodeUnknownSavepoint       = -39007
	CodeBadTransaction         = -39008 // a raw transaction does not decode
	CodeTooManyTransactions    = -39009 // more than MaxTxs in one call
	CodePoolBehind             = -39010 // the pool did not reach the parent in time
	CodeUnknownSealedBlock     = -39011 // neither kept by sessionSeal nor in the chain
	CodeSealFailed             = -39012 // the session is closed
	CodeInsertFailed           = -39013
	CodeCondition              = -39014 // it does not hold
	CodeNoCut                  = -39015 // there was no sessionCommitment at that length
	CodeUnknownOrder           = -39016 // sessionFill: there is no such order
)

// SessionError is an error of a session method: an rpc.Error with a code from above.
type SessionError struct {
	Code int
	Err  error
}

func (e *SessionError) Error() string  { return e.Err.Error() }
func (e *SessionError) ErrorCode() int { return e.Code }
func (e *SessionError) Unwrap() error  { return e.Err }

func sessionErr(code int, format string, args ...any) *SessionError {
	return &SessionError{Code: code, Err: fmt.Errorf(format, args...)}
}

// coded gives the miner's errors their code.
func coded(err error) error {
	var forced *miner.ForcedTxError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, miner.ErrParentStateUnavailable):
		return &SessionError{CodeParentStateUnavailable, err}
	case errors.As(err, &forced):
		return &SessionError{CodeForcedTx, err}
	case errors.Is(err, miner.ErrUnknownParent):
		return &SessionError{CodeUnknownParent, err}
	case errors.Is(err, miner.ErrUnknownSavepoint):
		return &SessionError{CodeUnknownSavepoint, err}
	case errors.Is(err, miner.ErrCondition):
		return &SessionError{CodeCondition, err}
	case errors.Is(err, miner.ErrNoCut):
		return &SessionError{CodeNoCut, err}
	case errors.Is(err, miner.ErrPoolBehind):
		return &SessionError{CodePoolBehind, err}
	case errors.Is(err, miner.ErrSessionClosed): // closed while the call was under way
		return &SessionError{CodeUnknownSession, err}
	case errors.Is(err, miner.ErrSessionAttributes):
		return engine.InvalidPayloadAttributes.With(err)
	}
	return err
}

// SessionID names an open session. It is random, so that after a restart of the
// engine an old one is unknown and never another session.
type SessionID [16]byte

func (id SessionID) String() string               { return hexutil.Encode(id[:]) }
func (id SessionID) MarshalText() ([]byte, error) { return hexutil.Bytes(id[:]).MarshalText() }

func (id *SessionID) UnmarshalText(text []byte) error {
	return hexutil.UnmarshalFixedText("SessionID", text, id[:])
}

// SessionTx is the result of one transaction (miner.SessionResult). Status, gas and
// logs are there when it was run and can be included; a log's blockHash is zero
// because the block has none yet, its other places are final.
type SessionTx struct {
	TxHash            common.Hash     `json:"txHash"`
	Status            *hexutil.Uint64 `json:"status,omitempty"`
	GasUsed           hexutil.Uint64  `json:"gasUsed"`
	CumulativeGasUsed hexutil.Uint64  `json:"cumulativeGasUsed"`
	ContractAddress   *common.Address `json:"contractAddress,omitempty"`
	Logs              []*types.Log    `json:"logs"`
	ReturnData        hexutil.Bytes   `json:"returnData,omitempty"` // sessionExecute only
	Error             string          `json:"error,omitempty"`      // why it is not in the block
}

// SessionStatus describes the block under construction (miner.SessionStatus).
type SessionStatus struct {
	Number    hexutil.Uint64 `json:"number"`
	Timestamp hexutil.Uint64 `json:"timestamp"`
	Parent    common.Hash    `json:"parentHash"`
	BaseFee   *hexutil.Big   `json:"baseFeePerGas"`
	GasLimit  hexutil.Uint64 `json:"gasLimit"`
	GasUsed   hexutil.Uint64 `json:"gasUsed"`
	TxCount   hexutil.Uint64 `json:"txCount"`
	Extra     hexutil.Bytes  `json:"extraData"`
}

// SessionOpened answers sessionOpen.
type SessionOpened struct {
	ID     SessionID     `json:"id"`
	Forced []SessionTx   `json:"forced"` // results of the attributes' transactions
	Status SessionStatus `json:"status"`
}

// SessionSealed answers sessionSeal: with what engine_getPayload answers, and whether the
// transactions are left out of it because the caller knows them.
type SessionSealed struct {
	Envelope *engine.ExecutionPayloadEnvelope `json:"envelope"`
	Known    bool                             `json:"known"`
}

// SessionFilled answers sessionFill. The savepoint is from before its transactions, and there
// if any of them may execute messages.
type SessionFilled struct {
	Transactions hexutil.Bytes   `json:"transactions"` // RLP of []SessionFilledTx, in a block of Snappy: there may be thousands
	Savepoint    *hexutil.Uint64 `json:"savepoint,omitempty"`
}

// SessionFilledTx is a transaction that sessionFill has put into the block. Its logs, of which
// address, topics and data are encoded, are numbered from FirstLog on.
type SessionFilledTx struct {
	Raw      []byte
	Status   uint64
	GasUsed  uint64
	TxIndex  uint64
	FirstLog uint64
	Logs     []*types.Log
}

// SessionFillArgs bounds sessionFill. Zero or absent: no bound.
type SessionFillArgs struct {
	MaxGas hexutil.Uint64 `json:"maxGas"`
	MaxMs  hexutil.Uint64 `json:"maxMs"` // milliseconds, including the wait for the pool
	Skip   []common.Hash  `json:"skip"`  // transactions that stay out, with their senders' later ones
	// Interop also takes interop transactions: the caller checks what they execute.
	Interop bool          `json:"interop"`
	Reject  []common.Hash `json:"reject"` // as skip, and the pool drops them
	Order   string        `json:"order"`  // priority or fcfs; empty: priority
}

// SessionCommitment answers sessionCommitment.
type SessionCommitment struct {
	GasUsed      hexutil.Uint64 `json:"gasUsed"`
	ReceiptsRoot common.Hash    `json:"receiptsRoot"`
}

// SessionAccount answers sessionAccount.
type SessionAccount struct {
	Nonce   hexutil.Uint64 `json:"nonce"`
	Balance *hexutil.Big   `json:"balance"` // wei
}

// SessionAPI serves miner sessions as engine_session*, on the authenticated port.
type SessionAPI struct {
	eth *eth.Ethereum
	cfg SessionConfig

	mu      sync.Mutex
	open    map[SessionID]*openSession
	opening int    // calls of sessionOpen under way: they count as open
	opened  uint64 // ever
	stopped bool

	insertMu sync.Mutex // so that inserting a block twice at once finds it known the second time

	expired lru.BasicLRU[SessionID, struct{}]             // so that a late client learns the reason
	sealed  lru.BasicLRU[common.Hash, *miner.SealedBlock] // until inserted
}

type openSession struct {
	*miner.Session
	turn   uint64 // in the order of opening
	expiry *time.Timer
}

// RegisterSessions adds the session methods to a node, in the engine namespace, so
// that they are where the engine API is. The sessions end with the node. The node must
// not have started yet: blocks that lost their state in a crash are executed here.
func RegisterSessions(stack *node.Node, backend *eth.Ethereum, cfg SessionConfig) *SessionAPI {
	recoverHead(backend.BlockChain())
	api := newSessionAPI(backend, cfg)
	stack.RegisterAPIs([]rpc.API{{Namespace: "engine", Service: api, Authenticated: true}})
	stack.RegisterLifecycle(sessionLifecycle{api})
	return api
}

// recoverHead executes the blocks again whose state a crash took. op-geth goes back to
// the newest block with state, and keeps those above it as blocks and as canonical: then
// newPayload takes them for done and forkchoiceUpdated for current, so that whoever has
// the blocks could not give them to this node again.
func recoverHead(chain *core.BlockChain) {
	header, head := chain.CurrentHeader(), chain.CurrentBlock()
	if header.Number.Cmp(head.Number) <= 0 {
		return
	}
	block := chain.GetBlock(header.Hash(), header.Number.Uint64())
	if block == nil {
		return // the crash took it too: it can be imported
	}
	log.Info("Executing blocks that lost their state", "from", head.Number, "to", header.Number)
	if _, err := chain.SetCanonical(block); err != nil {
		log.Error("Blocks that lost their state cannot be executed", "from", head.Number, "to", header.Number, "err", err)
	}
}

func newSessionAPI(backend *eth.Ethereum, cfg SessionConfig) *SessionAPI {
	return &SessionAPI{
		eth:     backend,
		cfg:     cfg,
		open:    make(map[SessionID]*openSession),
		expired: lru.NewBasicLRU[SessionID, struct{}](8 * max(cfg.MaxOpen, 1)),
		sealed:  lru.NewBasicLRU[common.Hash, *miner.SealedBlock](max(cfg.MaxSealed, 1)),
	}
}

// sessionLifecycle keeps Start and Stop out of the RPC methods.
type sessionLifecycle struct{ api *SessionAPI }

func (l sessionLifecycle) Start() error { return nil }
func (l sessionLifecycle) Stop() error  { l.api.stop(); return nil }

func (api *SessionAPI) stop() {
	api.mu.Lock()
	open := api.open
	api.open, api.stopped = make(map[SessionID]*openSession), true
	api.sealed.Purge()
	api.mu.Unlock()
	for _, s := range open {
		s.expiry.Stop()
		s.Discard()
	}
}

// SessionOpen starts a block on parent and runs the attributes' transactions.
func (api *SessionAPI) SessionOpen(ctx context.Context, parent common.Hash, attrs engine.PayloadAttributes) (*SessionOpened, error) {
	if err := checkSessionAttributes(&attrs, api.eth.BlockChain().Config()); err != nil {
		return nil, engine.InvalidPayloadAttributes.With(err)
	}
	txs := make([]*types.Transaction, len(attrs.Transactions))
	for i, raw := range attrs.Transactions {
		txs[i] = new(types.Transaction)
		if err := txs[i].UnmarshalBinary(raw); err != nil {
			return nil, engine.InvalidPayloadAttributes.With(fmt.Errorf("transaction %d: %w", i, err))
		}
	}
	if err := api.reserve(); err != nil {
		return nil, err
	}
	s, forced, err := api.eth.Miner().OpenSession(ctx, &miner.BuildPayloadArgs{
		Parent:        parent,
		Timestamp:     attrs.Timestamp,
		FeeRecipient:  attrs.SuggestedFeeRecipient,
		Random:        attrs.Random,
		Withdrawals:   attrs.Withdrawals,
		BeaconRoot:    attrs.BeaconRoot,
		SlotNum:       attrs.SlotNumber,
		NoTxPool:      attrs.NoTxPool,
		Transactions:  txs,
		GasLimit:      attrs.GasLimit,
		EIP1559Params: attrs.EIP1559Params,
		MinBaseFee:    attrs.MinBaseFee,
	})
	if err != nil {
		api.unreserve()
		return nil, coded(err)
	}
	status, err := s.Status()
	if err != nil {
		api.unreserve()
		s.Discard()
		return nil, coded(err)
	}
	id, err := api.add(s)
	if err != nil {
		s.Discard()
		return nil, err
	}
	log.Debug("Session opened", "id", id, "number", status.Number, "parent", parent, "forced", len(forced))
	return &SessionOpened{ID: id, Forced: toSessionTxs(forced), Status: toSessionStatus(status)}, nil
}

// checkSessionAttributes makes the checks that engine_forkchoiceUpdated makes before
// it builds.
func checkSessionAttributes(attrs *engine.PayloadAttributes, config *params.ChainConfig) error {
	if config.IsShanghai(config.LondonBlock, attrs.Timestamp) && attrs.Withdrawals == nil {
		return errors.New("missing withdrawals")
	}
	if config.IsCancun(config.LondonBlock, attrs.Timestamp) && attrs.BeaconRoot == nil {
		return errors.New("missing beacon root")
	}
	if config.IsOptimism() {
		return checkOptimismPayloadAttributes(attrs, config)
	}
	return nil
}

// reserve takes a place for a session before the work of opening it is done. If there
// is none, the oldest session gives way: whoever opened it was killed, or never got
// the answer, and the one that is needed now must not wait until it expires.
func (api *SessionAPI) reserve() error {
	api.mu.Lock()
	if api.opening >= api.cfg.MaxOpen {
		defer api.mu.Unlock()
		return sessionErr(CodeTooManySessions, "too many sessions: %d are being opened", api.opening)
	}
	var oldest SessionID
	var gone *openSession
	if len(api.open)+api.opening >= api.cfg.MaxOpen {
		for id, s := range api.open {
			if gone == nil || s.turn < gone.turn {
				oldest, gone = id, s
			}
		}
		delete(api.open, oldest)
	}
	api.opening++
	api.mu.Unlock()
	if gone != nil {
		log.Warn("Oldest session gives way to a new one", "id", oldest, "open", api.cfg.MaxOpen)
		gone.expiry.Stop()
		gone.Discard()
	}
	return nil
}

func (api *SessionAPI) unreserve() {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.opening--
}

// add turns the reserved place into an open session.
func (api *SessionAPI) add(s *miner.Session) (SessionID, error) {
	var id SessionID
	crand.Read(id[:]) // never fails
	api.mu.Lock()
	defer api.mu.Unlock()
	api.opening--
	if api.stopped {
		return id, sessionErr(CodeUnknownSession, "engine is stopping")
	}
	api.opened++
	api.open[id] = &openSession{
		Session: s,
		turn:    api.opened,
		expiry:  time.AfterFunc(api.cfg.MaxAge, func() { api.expire(id) }),
	}
	return id, nil
}

func (api *SessionAPI) expire(id SessionID) {
	api.mu.Lock()
	s := api.open[id]
	delete(api.open, id)
	if s != nil {
		api.expired.Add(id, struct{}{})
	}
	api.mu.Unlock()
	if s != nil {
		log.Warn("Session expired", "id", id, "age", api.cfg.MaxAge)
		s.Discard()
	}
}

func (api *SessionAPI) get(id SessionID) (*openSession, error) {
	api.mu.Lock()
	defer api.mu.Unlock()
	return api.lookup(id)
}

// take removes the session: the caller ends it.
func (api *SessionAPI) take(id SessionID) (*openSession, error) {
	api.mu.Lock()
	defer api.mu.Unlock()
	s, err := api.lookup(id)
	if err == nil {
		delete(api.open, id)
		s.expiry.Stop()
	}
	return s, err
}

func (api *SessionAPI) lookup(id SessionID) (*openSession, error) {
	if s := api.open[id]; s != nil {
		return s, nil
	}
	if api.expired.Contains(id) {
		return nil, sessionErr(CodeSessionExpired, "session %s expired after %v", id, api.cfg.MaxAge)
	}
	return nil, sessionErr(CodeUnknownSession, "unknown session %s", id)
}

// SessionExecute runs raw transactions: see miner.Session.Execute. The last result
// has an error if the list was not included as a whole; with atomic nothing of it
// was then.
func (api *SessionAPI) SessionExecute(ctx context.Context, id SessionID, raw []hexutil.Bytes, atomic bool) ([]SessionTx, error) {
	s, err := api.get(id)
	if err != nil {
		return nil, err
	}
	if len(raw) > api.cfg.MaxTxs {
		return nil, sessionErr(CodeTooManyTransactions, "%d transactions in one call, at most %d", len(raw), api.cfg.MaxTxs)
	}
	txs := make([]*types.Transaction, len(raw))
	for i, b := range raw {
		txs[i] = new(types.Transaction)
		if err := txs[i].UnmarshalBinary(b); err != nil {
			return nil, sessionErr(CodeBadTransaction, "transaction %d: %w", i, err)
		}
	}
	results, err := s.Execute(ctx, txs, atomic)
	if err != nil {
		return nil, coded(err)
	}
	return toSessionTxs(results), nil
}

// SessionVersion is which version of these methods it has.
func (api *SessionAPI) SessionVersion() hexutil.Uint64 { return SessionVersion }

// SessionFill adds transactions of the pool: see miner.Session.Fill.
func (api *SessionAPI) SessionFill(ctx context.Context, id SessionID, args SessionFillArgs) (*SessionFilled, error) {
	s, err := api.get(id)
	if err != nil {
		return nil, err
	}
	opts := miner.FillOptions{
		MaxGas:  uint64(args.MaxGas),
		MaxTime: time.Duration(min(uint64(args.MaxMs), uint64(api.cfg.MaxAge/time.Millisecond))) * time.Millisecond,
	}
	opts.Interop, opts.Skip, opts.Reject = args.Interop, miner.AnyOf(args.Skip), miner.AnyOf(args.Reject)
	if opts.Order, err = miner.ParseOrder(args.Order); err != nil {
		return nil, &SessionError{CodeUnknownOrder, err}
	}
	results, savepoint, err := s.Fill(ctx, opts)
	if err != nil {
		return nil, coded(err)
	}
	txs := make([]SessionFilledTx, len(results))
	for i, r := range results {
		raw, err := r.Tx.MarshalBinary()
		if err != nil {
			return nil, err
		}
		txs[i] = SessionFilledTx{Raw: raw, Status: r.Receipt.Status, GasUsed: r.Receipt.GasUsed, TxIndex: uint64(r.Receipt.TransactionIndex), Logs: r.Receipt.Logs}
		if len(r.Receipt.Logs) > 0 {
			txs[i].FirstLog = uint64(r.Receipt.Logs[0].Index)
		}
	}
	enc, err := rlp.EncodeToBytes(txs)
	if err != nil {
		return nil, err
	}
	return &SessionFilled{Transactions: snappy.Encode(nil, enc), Savepoint: (*hexutil.Uint64)(savepoint)}, nil
}

// SessionInterrupt ends a sessionFill that runs, or the next one.
func (api *SessionAPI) SessionInterrupt(id SessionID) error {
	s, err := api.get(id)
	if err != nil {
		return err
	}
	s.Interrupt()
	return nil
}

// SessionSavepoint marks the place between two transactions.
func (api *SessionAPI) SessionSavepoint(id SessionID) (hexutil.Uint64, error) {
	s, err := api.get(id)
	if err != nil {
		return 0, err
	}
	savepoint, err := s.Savepoint()
	return hexutil.Uint64(savepoint), coded(err)
}

// SessionRollback undoes everything since the savepoint, which is then forgotten.
func (api *SessionAPI) SessionRollback(id SessionID, savepoint hexutil.Uint64) error {
	s, err := api.get(id)
	if err != nil {
		return err
	}
	return coded(s.Rollback(uint64(savepoint)))
}

// SessionRelease forgets the savepoint and keeps the changes.
func (api *SessionAPI) SessionRelease(id SessionID, savepoint hexutil.Uint64) error {
	s, err := api.get(id)
	if err != nil {
		return err
	}
	return coded(s.Release(uint64(savepoint)))
}

// SessionAccount reads an account in the block under construction.
func (api *SessionAPI) SessionAccount(id SessionID, addr common.Address) (*SessionAccount, error) {
	s, err := api.get(id)
	if err != nil {
		return nil, err
	}
	nonce, balance, err := s.Account(addr)
	if err != nil {
		return nil, coded(err)
	}
	return &SessionAccount{Nonce: hexutil.Uint64(nonce), Balance: (*hexutil.Big)(balance.ToBig())}, nil
}

// SessionCheck says whether a condition holds for the block under construction.
func (api *SessionAPI) SessionCheck(id SessionID, cond types.TransactionConditional) error {
	s, err := api.get(id)
	if err != nil {
		return err
	}
	if err := cond.Validate(); err != nil {
		return sessionErr(CodeCondition, "%w: %w", miner.ErrCondition, err)
	}
	return coded(s.Check(&cond))
}

// SessionStatus describes the block under construction.
func (api *SessionAPI) SessionStatus(id SessionID) (*SessionStatus, error) {
	s, err := api.get(id)
	if err != nil {
		return nil, err
	}
	status, err := s.Status()
	if err != nil {
		return nil, coded(err)
	}
	out := toSessionStatus(status)
	return &out, nil
}

// SessionCommitment is what operators compare after a step.
func (api *SessionAPI) SessionCommitment(id SessionID) (*SessionCommitment, error) {
	s, err := api.get(id)
	if err != nil {
		return nil, err
	}
	gas, root, err := s.Commitment()
	if err != nil {
		return nil, coded(err)
	}
	return &SessionCommitment{GasUsed: hexutil.Uint64(gas), ReceiptsRoot: root}, nil
}

// SessionPublish makes the block's first transactions what is pending on the chain: see
// miner.Session.Publish.
func (api *SessionAPI) SessionPublish(id SessionID, txs hexutil.Uint64) error {
	s, err := api.get(id)
	if err != nil {
		return err
	}
	return coded(s.Publish(int(min(uint64(txs), math.MaxInt32))))
}

// SessionSeal makes the block. The session is
// over, whether that worked or not. The block is kept for sessionInsert.
//
// A caller that knows the block's transactions, as it has seen each come in, says so by their
// digest (TransactionsDigest). If it is right they are left out of the answer.
func (api *SessionAPI) SessionSeal(ctx context.Context, id SessionID, known *common.Hash) (*SessionSealed, error) {
	s, err := api.take(id)
	if err != nil {
		return nil, err
	}
	block, err := s.Seal(ctx)
	if err != nil {
		if c := new(SessionError); errors.As(coded(err), &c) {
			return nil, c
		}
		return nil, &SessionError{CodeSealFailed, err}
	}
	api.mu.Lock()
	if !api.stopped {
		api.sealed.Add(block.Block.Hash(), block)
	}
	api.mu.Unlock()
	if known == nil || *known != TransactionsDigest(block.Envelope.ExecutionPayload.Transactions) {
		return &SessionSealed{Envelope: block.Envelope}, nil
	}
	short, payload := *block.Envelope, *block.Envelope.ExecutionPayload
	payload.Transactions = [][]byte{}
	short.ExecutionPayload = &payload
	return &SessionSealed{Envelope: &short, Known: true}, nil
}

// TransactionsDigest is the SHA-256 of a list of transactions, each with its length before it as
// eight bytes, big-endian.
func TransactionsDigest(txs [][]byte) (digest common.Hash) {
	h := sha256.New()
	for _, tx := range txs {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(tx))))
		h.Write(tx)
	}
	h.Sum(digest[:0])
	return digest
}

// SessionInsert stores a block that sessionSeal has made: see
// core.BlockChain.InsertSealed. For a block that the chain has it does nothing.
func (api *SessionAPI) SessionInsert(hash common.Hash) error {
	api.insertMu.Lock()
	defer api.insertMu.Unlock()
	chain := api.eth.BlockChain()
	api.mu.Lock()
	block, ok := api.sealed.Peek(hash)
	api.sealed.Remove(hash) // a state can be committed once
	api.mu.Unlock()
	if !ok {
		if header := chain.GetHeaderByHash(hash); header != nil && chain.HasBlockAndState(hash, header.Number.Uint64()) {
			return nil
		}
		return sessionErr(CodeUnknownSealedBlock, "unknown sealed block %s: give it to engine_newPayload", hash)
	}
	switch err := chain.InsertSealed(block.Block, block.Receipts, block.State); {
	case err == nil:
		return nil
	case errors.Is(err, consensus.ErrUnknownAncestor):
		return &SessionError{CodeUnknownParent, err}
	case errors.Is(err, consensus.ErrPrunedAncestor):
		return &SessionError{CodeParentStateUnavailable, err}
	default:
		return &SessionError{CodeInsertFailed, fmt.Errorf("insert sealed block %d (%s): %w", block.Block.NumberU64(), hash, err)}
	}
}

// SessionDiscard ends the session without a block.
func (api *SessionAPI) SessionDiscard(id SessionID) error {
	s, err := api.take(id)
	if err != nil {
		return err
	}
	s.Discard()
	return nil
}

func toSessionStatus(s miner.SessionStatus) SessionStatus {
	return SessionStatus{
		Number:    hexutil.Uint64(s.Number),
		Timestamp: hexutil.Uint64(s.Timestamp),
		Parent:    s.Parent,
		BaseFee:   (*hexutil.Big)(s.BaseFee),
		GasLimit:  hexutil.Uint64(s.GasLimit),
		GasUsed:   hexutil.Uint64(s.GasUsed),
		TxCount:   hexutil.Uint64(s.TxCount),
		Extra:     s.Extra,
	}
}

func toSessionTxs(results []miner.SessionResult) []SessionTx {
	out := make([]SessionTx, len(results))
	for i, r := range results {
		out[i] = SessionTx{TxHash: r.Tx.Hash(), Logs: []*types.Log{}, ReturnData: r.ReturnData}
		if r.Err != nil {
			out[i].Error = r.Err.Error()
		}
		if r.Receipt == nil {
			continue
		}
		status := hexutil.Uint64(r.Receipt.Status)
		out[i].Status = &status
		out[i].GasUsed = hexutil.Uint64(r.Receipt.GasUsed)
		out[i].CumulativeGasUsed = hexutil.Uint64(r.Receipt.CumulativeGasUsed)
		if len(r.Receipt.Logs) > 0 {
			out[i].Logs = r.Receipt.Logs
		}
		if r.Tx.To() == nil {
			addr := r.Receipt.ContractAddress
			out[i].ContractAddress = &addr
		}
	}
	return out
}
