package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/golang/snappy"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// What one call of sessionExecute carries: well below the engine's limits (10,000
// transactions; 32 MB for a WebSocket message, of which hex takes twice the bytes).
const (
	maxCallTxs   = 5_000
	maxCallBytes = 8 << 20
)

// maxFilled bounds what a fill's answer may decompress to: several times a block of 60 Mgas that
// is full of data or of logs.
const maxFilled = 64 << 20

// The shapes of the session methods, as op-geth's session API gives them.
type (
	wireID [16]byte

	wireTx struct {
		TxHash     common.Hash     `json:"txHash"`
		Status     *hexutil.Uint64 `json:"status"`
		GasUsed    hexutil.Uint64  `json:"gasUsed"`
		Logs       []*types.Log    `json:"logs"`
		ReturnData hexutil.Bytes   `json:"returnData"`
		Error      string          `json:"error"`
	}

	wireStatus struct {
		Number    hexutil.Uint64 `json:"number"`
		Timestamp hexutil.Uint64 `json:"timestamp"`
		Parent    common.Hash    `json:"parentHash"`
		BaseFee   *hexutil.Big   `json:"baseFeePerGas"`
		GasLimit  hexutil.Uint64 `json:"gasLimit"`
		GasUsed   hexutil.Uint64 `json:"gasUsed"`
		TxCount   hexutil.Uint64 `json:"txCount"`
		Extra     hexutil.Bytes  `json:"extraData"`
	}

	wireOpened struct {
		ID     wireID     `json:"id"`
		Forced []wireTx   `json:"forced"`
		Status wireStatus `json:"status"`
	}

	wireFill struct {
		MaxGas  hexutil.Uint64 `json:"maxGas"`
		MaxMs   hexutil.Uint64 `json:"maxMs"`
		Skip    []common.Hash  `json:"skip"`
		Interop bool           `json:"interop"`
		Reject  []common.Hash  `json:"reject"`
		Order   Order          `json:"order"`
	}

	wireFilled struct {
		Transactions hexutil.Bytes   `json:"transactions"` // a Snappy block of the RLP of []filledTx
		Savepoint    *hexutil.Uint64 `json:"savepoint"`
	}

	filledTx struct {
		Raw               []byte
		Status, GasUsed   uint64
		TxIndex, FirstLog uint64
		Logs              []*types.Log
	}

	wireSealed struct {
		Envelope eth.ExecutionPayloadEnvelope `json:"envelope"`
		Known    bool                         `json:"known"` // the transactions are left out
	}

	wireCommitment struct {
		GasUsed      hexutil.Uint64 `json:"gasUsed"`
		ReceiptsRoot common.Hash    `json:"receiptsRoot"`
	}

	wireAccount struct {
		Nonce   hexutil.Uint64 `json:"nonce"`
		Balance *hexutil.Big   `json:"balance"`
	}
)

func (id wireID) MarshalText() ([]byte, error) { return hexutil.Bytes(id[:]).MarshalText() }

func (id *wireID) UnmarshalText(text []byte) error {
	return hexutil.UnmarshalFixedText("session ID", text, id[:])
}

func (s *wireStatus) check(parent eth.BlockID, attrs *eth.PayloadAttributes) error {
	if s.Parent != parent.Hash || uint64(s.Number) != parent.Number+1 || uint64(s.Timestamp) != uint64(attrs.Timestamp) || s.BaseFee == nil {
		return fmt.Errorf("engine opened block %d on %s at %d with base fee %v, not one on %s at %d",
			s.Number, s.Parent, s.Timestamp, s.BaseFee, parent, attrs.Timestamp)
	}
	return nil
}

func (s *wireStatus) header() Header {
	return Header{
		Number:   uint64(s.Number),
		Time:     uint64(s.Timestamp),
		GasLimit: uint64(s.GasLimit),
		BaseFee:  s.BaseFee.ToInt(),
		Extra:    s.Extra,
	}
}

// toResults converts results of the transactions raw.
func toResults(wire []wireTx, raw [][]byte) ([]TxResult, error) {
	if len(wire) > len(raw) {
		return nil, fmt.Errorf("engine gave %d results for %d transactions", len(wire), len(raw))
	}
	out := make([]TxResult, len(wire))
	for i, w := range wire {
		out[i] = TxResult{Hash: w.TxHash, Raw: raw[i], GasUsed: uint64(w.GasUsed), Logs: w.Logs, ReturnData: w.ReturnData}
		if w.Status != nil {
			out[i].Status = uint64(*w.Status)
		}
		if w.Error != "" {
			out[i].Err = errors.New(w.Error)
		} else if w.Status == nil {
			return nil, fmt.Errorf("engine gave result %d (%s) without status and without error", i, w.TxHash)
		}
		for j, l := range w.Logs {
			if l == nil {
				return nil, fmt.Errorf("engine gave result %d (%s) with log %d missing", i, w.TxHash, j)
			}
		}
	}
	return out, nil
}

// filledResults converts what a fill has put into the block.
func (s *clientSession) filledResults(compressed []byte) ([]TxResult, error) {
	if n, err := snappy.DecodedLen(compressed); err == nil && n > maxFilled {
		return nil, fmt.Errorf("engine gave %d bytes of transactions, at most %d are taken", n, maxFilled)
	}
	const unreadable = "engine gave transactions that cannot be read: is it of another version now? %w"
	enc, err := snappy.Decode(nil, compressed)
	if err != nil {
		return nil, fmt.Errorf(unreadable, err)
	}
	var txs []filledTx
	if err := rlp.DecodeBytes(enc, &txs); err != nil {
		return nil, fmt.Errorf(unreadable, err)
	}
	out := make([]TxResult, len(txs))
	for i, tx := range txs {
		if len(tx.Raw) == 0 {
			return nil, fmt.Errorf("engine gave result %d without its transaction", i)
		}
		out[i] = TxResult{Hash: crypto.Keccak256Hash(tx.Raw), Raw: tx.Raw, Status: tx.Status, GasUsed: tx.GasUsed, Logs: tx.Logs}
		for j, l := range tx.Logs {
			l.BlockNumber, l.BlockTimestamp, l.TxHash = s.header.Number, s.header.Time, out[i].Hash
			l.TxIndex, l.Index = uint(tx.TxIndex), uint(tx.FirstLog)+uint(j)
		}
	}
	return out, nil
}

// clientSession is a session in another process.
type clientSession struct {
	c      *Client
	id     wireID
	forced []TxResult
	header Header
	over   atomic.Bool
	known  known
}

// known are the transactions that a session has seen come into its block. The engine compares:
// if they are the block's, it does not send them again with it.
type known struct {
	mu    sync.Mutex
	txs   [][]byte
	marks map[Savepoint]int // how many there were
}

// add adds those of the results that are in the block.
func (k *known) add(results []TxResult) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range results {
		if r.Included() {
			k.txs = append(k.txs, r.Raw)
		}
	}
}

// mark notes a savepoint before the last n.
func (k *known) mark(p Savepoint, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.marks == nil {
		k.marks = map[Savepoint]int{}
	}
	k.marks[p] = max(0, len(k.txs)-n)
}

func (k *known) rollback(p Savepoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n, ok := k.marks[p]; ok && n <= len(k.txs) {
		k.txs = k.txs[:n]
	}
}

// take returns them as a payload has them, with their digest, as op-geth's
// catalyst.TransactionsDigest has it.
func (k *known) take() (txs []eth.Data, digest common.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := sha256.New()
	for _, tx := range k.txs {
		txs = append(txs, tx)
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(tx))))
		h.Write(tx)
	}
	h.Sum(digest[:0])
	return txs, digest
}

var _ Session = (*clientSession)(nil)

func (s *clientSession) Forced() []TxResult { return s.forced }
func (s *clientSession) Header() Header     { return s.header }

// goesOn: the engine has refused the call and the block is as it was.
func goesOn(err error) bool {
	switch errorCode(err) {
	case codeBadTransaction, codeTooManyTransactions, codePoolBehind, codeUnknownSavepoint, codeUnknownOrder:
		return true
	}
	return false
}

// call makes a call that may change the block.
func (s *clientSession) call(ctx context.Context, result any, method string, args ...any) error {
	if s.over.Load() {
		return s.wrap(method, ErrSessionClosed)
	}
	err := s.c.rpc.CallContext(ctx, result, method, append([]any{s.id}, args...)...)
	return s.judge(method, err, goesOn(err))
}

// judge ends the session after an error that leaves it unknown what the block holds.
func (s *clientSession) judge(what string, err error, goesOn bool) error {
	if err == nil {
		return nil
	}
	if !goesOn {
		s.over.Store(true)
		if !errors.Is(err, ErrSessionClosed) {
			err = fmt.Errorf("%w: %w", ErrSessionClosed, err)
		}
	}
	return s.wrap(what, err)
}

func (s *clientSession) wrap(what string, err error) error {
	return fmt.Errorf("chain %s: block %d: %s: %w", s.c.chain, s.header.Number, what, err)
}

func (s *clientSession) Execute(ctx context.Context, txs [][]byte, atomic bool) ([]TxResult, error) {
	if len(txs) == 0 {
		return nil, nil
	}
	if s.chunkLen(txs) == len(txs) {
		results, err := s.execute(ctx, txs, atomic)
		if errorCode(err) != codeBadTransaction {
			return results, err
		}
	}
	return s.executeParts(ctx, txs, atomic)
}

// execute makes one call.
func (s *clientSession) execute(ctx context.Context, txs [][]byte, atomic bool) ([]TxResult, error) {
	const method = "engine_sessionExecute"
	raw := make([]hexutil.Bytes, len(txs))
	for i, tx := range txs {
		raw[i] = tx
	}
	var wire []wireTx
	if err := s.call(ctx, &wire, method, raw, atomic); err != nil {
		return nil, err
	}
	results, err := toResults(wire, txs)
	if err == nil && !failed(results) && len(results) != len(txs) {
		err = fmt.Errorf("engine gave %d results for %d transactions and no reason", len(results), len(txs))
	}
	if err == nil && (!atomic || !failed(results)) {
		s.known.add(results)
	}
	return results, s.judge(method, err, false)
}

func failed(results []TxResult) bool {
	return len(results) > 0 && results[len(results)-1].Err != nil
}

// executeParts runs lists that are too long for one call, and lists with bytes in
// them that are no transaction.
func (s *clientSession) executeParts(ctx context.Context, txs [][]byte, atomic bool) ([]TxResult, error) {
	var before Savepoint
	if atomic {
		var err error
		if before, err = s.Savepoint(ctx); err != nil {
			return nil, err
		}
	}
	var all []TxResult
	for len(txs) > 0 && !failed(all) {
		n := s.chunkLen(txs)
		results, err := s.execute(ctx, txs[:n], atomic)
		if errorCode(err) == codeBadTransaction {
			results, err = s.executeMalformed(ctx, txs[:n], atomic, err)
		}
		if err != nil {
			// Earlier parts may be in the block: where it stands is for nobody to say.
			return nil, s.judge("execute in parts", err, false)
		}
		all, txs = append(all, results...), txs[n:]
	}
	if !atomic {
		return all, nil
	}
	if failed(all) {
		return all, s.Rollback(ctx, before)
	}
	return all, s.Release(ctx, before)
}

// executeMalformed runs what comes before the first bytes that are no transaction,
// and gives those a result of their own.
func (s *clientSession) executeMalformed(ctx context.Context, txs [][]byte, atomic bool, cause error) ([]TxResult, error) {
	for i, raw := range txs {
		err := new(types.Transaction).UnmarshalBinary(raw)
		if err == nil {
			continue
		}
		var results []TxResult
		if i > 0 {
			var err error
			if results, err = s.execute(ctx, txs[:i], atomic); err != nil || failed(results) {
				return results, err
			}
		}
		return append(results, MalformedTx(raw, err)), nil
	}
	return nil, cause // well-formed to us and not to the engine: versions differ
}

// MalformedTx is the result of bytes that are no transaction. It is here for
// implementations of Engine.
func MalformedTx(raw []byte, err error) TxResult {
	return TxResult{Hash: crypto.Keccak256Hash(raw), Raw: raw, Err: fmt.Errorf("malformed transaction: %w", err)}
}

// chunkLen is how many of the transactions one call carries, at least one.
func (s *clientSession) chunkLen(txs [][]byte) int {
	size := 0
	for i, tx := range txs {
		if size += len(tx); i > 0 && (i == s.c.maxTxs || size > maxCallBytes) {
			return i
		}
	}
	return len(txs)
}

func (s *clientSession) Fill(ctx context.Context, opts FillOptions) ([]TxResult, *Savepoint, error) {
	const method = "engine_sessionFill"
	args := wireFill{MaxGas: hexutil.Uint64(opts.MaxGas), Skip: opts.Skip, Interop: opts.Interop, Reject: opts.Reject, Order: opts.Order}
	if opts.MaxTime > 0 { // rounded up: 0 means no bound
		args.MaxMs = hexutil.Uint64((opts.MaxTime + time.Millisecond - 1) / time.Millisecond)
	}
	if args.Skip == nil {
		args.Skip = []common.Hash{}
	}
	if args.Reject == nil {
		args.Reject = []common.Hash{}
	}
	var wire wireFilled
	if err := s.call(withExtraTime(ctx, opts.MaxTime), &wire, method, args); err != nil {
		return nil, nil, err
	}
	results, err := s.filledResults(wire.Transactions)
	if err != nil {
		return nil, nil, s.judge(method, err, false)
	}
	s.known.add(results)
	before := (*Savepoint)(wire.Savepoint)
	if before != nil {
		s.known.mark(*before, len(results))
	}
	return results, before, nil
}

func (s *clientSession) Savepoint(ctx context.Context) (Savepoint, error) {
	var id hexutil.Uint64
	if err := s.call(ctx, &id, "engine_sessionSavepoint"); err != nil {
		return 0, err
	}
	s.known.mark(Savepoint(id), 0)
	return Savepoint(id), nil
}

func (s *clientSession) Rollback(ctx context.Context, p Savepoint) error {
	err := s.call(ctx, nil, "engine_sessionRollback", hexutil.Uint64(p))
	if err == nil {
		s.known.rollback(p)
	}
	return err
}

func (s *clientSession) Release(ctx context.Context, p Savepoint) error {
	return s.call(ctx, nil, "engine_sessionRelease", hexutil.Uint64(p))
}

// read makes a call that leaves the block alone: when the caller gives up, or the
// answer is not understood, the session is as it was.
func (s *clientSession) read(ctx context.Context, result any, method string, args ...any) error {
	if s.over.Load() {
		return s.wrap(method, ErrSessionClosed)
	}
	err := s.c.rpc.CallContext(ctx, result, method, append([]any{s.id}, args...)...)
	return s.judge(method, err, !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrSessionClosed) && !errors.Is(err, ErrParentState))
}

func (s *clientSession) Account(ctx context.Context, addr common.Address) (Account, error) {
	var a wireAccount
	if err := s.read(ctx, &a, "engine_sessionAccount", addr); err != nil {
		return Account{}, err
	}
	if a.Balance == nil {
		return Account{}, s.wrap("engine_sessionAccount", errors.New("engine gave no balance"))
	}
	return Account{Nonce: uint64(a.Nonce), Balance: a.Balance.ToInt()}, nil
}

func (s *clientSession) Check(ctx context.Context, cond *types.TransactionConditional) error {
	return s.read(ctx, nil, "engine_sessionCheck", cond)
}

// resultAttempts bounds how often Result looks again when the block changes under it.
const resultAttempts = 100

func (s *clientSession) Result(ctx context.Context) (sequence.Result, error) {
	const what = "result"
	if s.over.Load() {
		return sequence.Result{}, s.wrap(what, ErrSessionClosed)
	}
	var (
		before, after wireStatus
		commitment    wireCommitment
	)
	// Other calls may come between those of a batch.
	for range resultAttempts {
		batch := []rpc.BatchElem{
			{Method: "engine_sessionStatus", Args: []any{s.id}, Result: &before},
			{Method: "engine_sessionCommitment", Args: []any{s.id}, Result: &commitment},
			{Method: "engine_sessionStatus", Args: []any{s.id}, Result: &after},
		}
		err := s.c.rpc.BatchCallContext(ctx, batch)
		for _, e := range batch {
			err = errors.Join(err, e.Error)
		}
		if err != nil {
			return sequence.Result{}, s.judge(what, err, !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrSessionClosed) && !errors.Is(err, ErrParentState))
		}
		if before.BaseFee == nil || after.BaseFee == nil || commitment.ReceiptsRoot == (common.Hash{}) {
			return sequence.Result{}, s.wrap(what, errors.New("engine gave no commitment"))
		}
		if before.TxCount == after.TxCount && before.GasUsed == after.GasUsed && after.GasUsed == commitment.GasUsed {
			return sequence.Result{
				Chain:        s.c.chain,
				Transactions: uint64(after.TxCount),
				GasUsed:      uint64(commitment.GasUsed),
				ReceiptsRoot: commitment.ReceiptsRoot,
			}, nil
		}
	}
	return sequence.Result{}, s.wrap(what, fmt.Errorf("the block changed during each of %d attempts to read it", resultAttempts))
}

func (s *clientSession) Publish(ctx context.Context, txs uint64) error {
	const method = "engine_sessionPublish"
	if s.over.Load() {
		return s.wrap(method, ErrSessionClosed)
	}
	err := s.c.rpc.CallContext(ctx, nil, method, s.id, hexutil.Uint64(txs))
	if errorCode(err) == codeNoCut {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return s.wrap(method, err) // the block is as it was, whatever it is
	}
	return nil
}

func (s *clientSession) Seal(ctx context.Context) (*eth.ExecutionPayloadEnvelope, error) {
	const method = "engine_sessionSeal"
	var sealed wireSealed
	txs, digest := s.known.take()
	if err := s.call(ctx, &sealed, method, digest); err != nil {
		if goesOn(err) {
			s.over.Store(true)
		}
		return nil, err
	}
	s.over.Store(true)
	p := sealed.Envelope.ExecutionPayload
	if p == nil || uint64(p.BlockNumber) != s.header.Number || p.BlockHash == (common.Hash{}) {
		return nil, s.wrap(method, fmt.Errorf("engine sealed another block than %d, or none", s.header.Number))
	}
	if sealed.Known {
		p.Transactions = txs
	}
	if len(p.Transactions) == 0 { // every block has those of its attributes
		return nil, s.wrap(method, errors.New("engine sealed a block without transactions"))
	}
	return &sealed.Envelope, nil
}

func (s *clientSession) Discard(ctx context.Context) error {
	s.over.Store(true)
	err := s.c.rpc.CallContext(ctx, nil, "engine_sessionDiscard", s.id)
	if err == nil || errors.Is(err, ErrSessionClosed) {
		return nil
	}
	return s.wrap("engine_sessionDiscard", err)
}
