// Package engine is the seam to execution: one chain's op-geth, as the builder, the
// executor and the ledger see it. Client speaks to a patched op-geth over its
// authenticated RPC; package embedded runs the same op-geth inside this process.
package engine

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Errors that callers act on. Implementations wrap them with the chain and the call.
var (
	// ErrUnknownParent: the engine does not have the block to build on.
	ErrUnknownParent = errors.New("unknown parent block")
	// ErrParentState: the engine has the block but no longer, or not yet, its state.
	ErrParentState = errors.New("state of the parent is not available")
	// ErrSessionClosed: the session is sealed, discarded, expired, or was lost when the engine restarted.
	ErrSessionClosed = errors.New("session is closed or unknown to the engine")
	// ErrUnavailable: the engine could not be reached or is shutting down; the call may be made again.
	ErrUnavailable = errors.New("engine unavailable")
	// ErrInvalidBlock: the engine executed a block and found it invalid.
	ErrInvalidBlock = errors.New("engine found the block invalid")
	// ErrNotFound: no such block, receipt or transaction.
	ErrNotFound = errors.New("not found")
	// ErrInvalidAttributes: the attributes are not valid for this chain, or one of their
	// transactions cannot be included.
	ErrInvalidAttributes = errors.New("invalid payload attributes")
	// ErrCondition: a condition does not hold.
	ErrCondition = errors.New("condition does not hold")
	// ErrPoolBehind: the transaction pool has not taken up the session's parent in time.
	// Nothing was filled, the session goes on, and the fill may be tried again.
	ErrPoolBehind = errors.New("transaction pool is behind the parent")
)

// Engine is one chain's execution. All methods may be called concurrently.
type Engine interface {
	Chain() sequence.ChainID

	// Open starts a block on parent and runs the forced transactions of attrs.
	// Errors: ErrUnknownParent, ErrParentState, ErrInvalidAttributes, ErrUnavailable.
	Open(ctx context.Context, parent eth.BlockID, attrs *eth.PayloadAttributes) (Session, error)

	// Insert stores a block that one of this engine's sessions sealed, without
	// executing it again and without moving the head. It is idempotent. If the
	// sealed state is gone (restart), it fails with ErrNotFound: use Import.
	Insert(ctx context.Context, hash common.Hash) error

	// Import executes and stores a block, without moving the head (newPayload). A
	// block that is stored already is taken as it is, even if the engine lost its
	// state in a crash: SetHead runs it again then.
	// Errors: ErrInvalidBlock, ErrUnknownParent, ErrParentState, ErrUnavailable.
	Import(ctx context.Context, payload *eth.ExecutionPayloadEnvelope) error

	// SetHead makes a stored block the head of the chain (forkchoiceUpdated without
	// attributes). Zero hashes leave safe and finalized as they are. A head that is an
	// ancestor of the present one is accepted and does not move it: op-geth goes back
	// only when another block is put in its place.
	// Errors: ErrNotFound (head is not stored), ErrUnavailable.
	SetHead(ctx context.Context, head, safe, finalized common.Hash) error

	// Head is the engine's canonical head.
	Head(ctx context.Context) (BlockInfo, error)
	// Block names a stored block by number on the canonical chain. ErrNotFound if there is none.
	Block(ctx context.Context, number uint64) (BlockInfo, error)
	// BlockByHash names a stored block, canonical or not. ErrNotFound if there is none.
	BlockByHash(ctx context.Context, hash common.Hash) (BlockInfo, error)
	// Payload returns a stored block in full. ErrNotFound if there is none.
	Payload(ctx context.Context, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error)
	// Receipts returns the receipts of a stored block, in order. ErrNotFound if there is none.
	Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error)

	// Close gives the handle back; it does not stop the engine.
	Close()
}

// BlockInfo names a block.
type BlockInfo struct {
	Hash       common.Hash
	Number     uint64
	ParentHash common.Hash
	Time       uint64 // seconds
}

// ID is the block's hash and number.
func (b BlockInfo) ID() eth.BlockID { return eth.BlockID{Hash: b.Hash, Number: b.Number} }

// Session is a block under construction. Its methods are serialised by the engine;
// after Seal or Discard every call fails with ErrSessionClosed.
//
// A call that may have changed the block and whose outcome is not known (the context
// ended, the engine went away) ends the session too: its error matches
// ErrSessionClosed beside the cause, and the block has to be built again.
type Session interface {
	// Forced are the results of the forced transactions, in order.
	Forced() []TxResult
	// Header says what is known of the block from its opening.
	Header() Header

	// Execute runs transactions in order and stops at the first that cannot be
	// included: its result has Err set and is the last one. A transaction that
	// reverts is included, as in any block, unless atomic is set: then the first
	// that fails or reverts undoes the whole call, and its result has Err set and is
	// the last one; the results before it tell what had happened. So the list is in
	// the block if the last Err is nil. Bytes that are no transaction count as one
	// that cannot be included. The error is only about the call.
	Execute(ctx context.Context, txs [][]byte, atomic bool) ([]TxResult, error)

	// Fill adds transactions of the engine's own pool, in the order that opts.Order says;
	// unless opts.Interop says so, no interop transaction (one that declares executing
	// messages). A session whose attributes say NoTxPool takes nothing. If any of what it took
	// may execute messages, it also gives a savepoint of before all of it. Errors: ErrPoolBehind.
	Fill(ctx context.Context, opts FillOptions) ([]TxResult, *Savepoint, error)

	// Savepoint marks the position; Rollback undoes everything behind the mark and
	// consumes it; Release forgets it and any later one, keeping the changes.
	Savepoint(ctx context.Context) (Savepoint, error)
	Rollback(ctx context.Context, s Savepoint) error
	Release(ctx context.Context, s Savepoint) error

	// Account reads an account in the block under construction.
	Account(ctx context.Context, addr common.Address) (Account, error)

	// Check says whether a condition holds for the block so far: nil if it does,
	// ErrCondition if it does not.
	Check(ctx context.Context, cond *types.TransactionConditional) error

	// Result commits to the block so far.
	Result(ctx context.Context) (sequence.Result, error)

	// Publish makes the block's first transactions, deposits included, what the engine's RPC
	// answers with for the tag pending, until its head changes or the session is discarded.
	// They are those that Result was last asked about; with any other number nothing
	// changes and the error matches ErrNotFound. It does not wait for other calls.
	Publish(ctx context.Context, txs uint64) error

	// Seal ends the session with a block, which Insert can then store.
	Seal(ctx context.Context) (*eth.ExecutionPayloadEnvelope, error)
	// Discard ends the session without a block. It is idempotent.
	Discard(ctx context.Context) error
}

// Savepoint names a mark in a session.
type Savepoint uint64

// Header is what an open block's header is known to hold.
type Header struct {
	Number   uint64
	Time     uint64 // seconds
	GasLimit uint64
	BaseFee  *big.Int // wei
	Extra    []byte   // the header's extra data
}

// Account is an account's state in the block under construction.
type Account struct {
	Nonce   uint64
	Balance *big.Int // wei
}

// FillOptions bound a fill.
type FillOptions struct {
	MaxGas  uint64        // 0: all that is left in the block
	MaxTime time.Duration // 0: no bound
	Skip    []common.Hash // transactions to leave out, with the later nonces of their senders
	// Interop also takes transactions that may execute messages: whoever sets it checks
	// these, and rolls back what is not valid.
	Interop bool
	Reject  []common.Hash // as Skip, and the pool drops them when it next looks at them
	Order   Order         // empty: Priority
}

// Order is a rule for what a fill takes from the pool first. Under any rule one sender's
// transactions come in the order of their nonces.
type Order string

const (
	// Priority: the highest effective tip first, as upstream's builder. An engine's priority
	// accounts come before all others.
	Priority Order = "priority"
	// FCFS: the transaction first that the engine's pool has taken in first, equal times by hash.
	// Tips do not count, and priority accounts have no privilege.
	FCFS Order = "fcfs"
)

// Check says whether there is such an order.
func (o Order) Check() error {
	if o != Priority && o != FCFS {
		return fmt.Errorf("%q: expected %s or %s", string(o), Priority, FCFS)
	}
	return nil
}

// TxResult is the outcome of one transaction.
type TxResult struct {
	Hash    common.Hash
	Raw     []byte // EIP-2718 envelope
	Status  uint64 // types.ReceiptStatusSuccessful or …Failed; meaningless if Err is set
	GasUsed uint64
	// Logs carry address, topics, data, block number and the final index in the
	// block. The block hash is not known yet.
	Logs []*types.Log
	// ReturnData is what a transaction run by Execute returned or reverted with.
	ReturnData []byte
	// Err says why the transaction could not be included, nil if it was.
	Err error
}

// Included says whether the transaction is in the block, reverted or not.
func (r *TxResult) Included() bool { return r.Err == nil }

// Succeeded says whether the transaction is in the block and did not revert.
func (r *TxResult) Succeeded() bool {
	return r.Err == nil && r.Status == types.ReceiptStatusSuccessful
}
