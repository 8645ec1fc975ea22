package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holiman/uint256"

	beacon "github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/common/lru"
	"github.com/ethereum/go-ethereum/consensus"
	"github.com/ethereum/go-ethereum/core/types"
	gethEth "github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/params"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// maxSealed is how many sealed blocks wait for their insertion; the oldest go first.
// Each holds its state: a slot seals one.
const maxSealed = 4

// direct is an engine.Engine on an op-geth in this process.
type direct struct {
	chain sequence.ChainID
	eth   *gethEth.Ethereum
	api   *catalyst.ConsensusAPI

	// calls is read-locked by every call and locked by stop: op-geth's databases
	// must not be used after they are closed.
	calls    sync.RWMutex
	stopping atomic.Bool

	mu   sync.Mutex
	open map[*session]struct{}

	insertMu sync.Mutex // a second insertion of a block has to find it stored
	sealed   lru.BasicLRU[common.Hash, *miner.SealedBlock]
}

var _ engine.Engine = (*direct)(nil)

func newDirect(chain sequence.ChainID, backend *gethEth.Ethereum, api *catalyst.ConsensusAPI) *direct {
	return &direct{
		chain:  chain,
		eth:    backend,
		api:    api,
		open:   make(map[*session]struct{}),
		sealed: lru.NewBasicLRU[common.Hash, *miner.SealedBlock](maxSealed),
	}
}

// stop ends the sessions, waits for the calls under way and refuses any other.
func (d *direct) stop() {
	d.stopping.Store(true)
	d.mu.Lock()
	open := d.open
	d.open = nil
	d.mu.Unlock()
	for s := range open {
		s.s.Discard() // interrupts a Fill
	}
	d.calls.Lock()
	defer d.calls.Unlock()
	d.insertMu.Lock()
	defer d.insertMu.Unlock()
	d.sealed.Purge()
}

// enter begins a call; the caller has to call leave if there is no error.
func (d *direct) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	d.calls.RLock()
	if d.stopping.Load() {
		d.calls.RUnlock()
		return nil, fmt.Errorf("%w: it has stopped", engine.ErrUnavailable)
	}
	return d.calls.RUnlock, nil
}

func (d *direct) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("chain %s: %s: %w", d.chain, what, err)
}

func (d *direct) Chain() sequence.ChainID { return d.chain }

// Close does nothing: the node's owner closes the node.
func (d *direct) Close() {}

func (d *direct) Open(ctx context.Context, parent eth.BlockID, attrs *eth.PayloadAttributes) (engine.Session, error) {
	s, err := d.openSession(ctx, parent, attrs)
	if err != nil {
		return nil, d.wrap(fmt.Sprintf("open on %s", parent), err)
	}
	return s, nil
}

func (d *direct) openSession(ctx context.Context, parent eth.BlockID, attrs *eth.PayloadAttributes) (*session, error) {
	leave, err := d.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	args, err := buildArgs(parent.Hash, attrs, d.eth.BlockChain().Config())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrInvalidAttributes, err)
	}
	ms, forced, err := d.eth.Miner().OpenSession(ctx, args)
	if err != nil {
		return nil, kind(err)
	}
	status, err := ms.Status()
	if err != nil {
		ms.Discard()
		return nil, kind(err)
	}
	s := &session{
		d: d,
		s: ms,
		header: engine.Header{
			Number:   status.Number,
			Time:     status.Timestamp,
			GasLimit: status.GasLimit,
			BaseFee:  status.BaseFee,
			Extra:    status.Extra,
		},
	}
	raw := make([][]byte, len(attrs.Transactions))
	for i, tx := range attrs.Transactions {
		raw[i] = tx
	}
	s.forced = toResults(forced, raw)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		ms.Discard()
		return nil, fmt.Errorf("%w: it is stopping", engine.ErrUnavailable)
	}
	d.open[s] = struct{}{}
	return s, nil
}

func (d *direct) forget(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, s)
}

// buildArgs converts attributes, with the checks that engine_forkchoiceUpdated makes
// of them.
func buildArgs(parent common.Hash, a *eth.PayloadAttributes, cfg *params.ChainConfig) (*miner.BuildPayloadArgs, error) {
	if a == nil {
		return nil, errors.New("none given")
	}
	ts := uint64(a.Timestamp)
	switch {
	case a.GasLimit == nil:
		return nil, errors.New("gas limit is missing")
	case cfg.IsCanyon(ts) && (a.Withdrawals == nil || len(*a.Withdrawals) != 0):
		return nil, errors.New("withdrawals have to be the empty list since Canyon")
	case cfg.IsEcotone(ts) && a.ParentBeaconBlockRoot == nil:
		return nil, errors.New("parent beacon block root is missing, required since Ecotone")
	case cfg.IsHolocene(ts) != (a.EIP1559Params != nil):
		return nil, errors.New("EIP-1559 parameters are required since Holocene, and must be absent before")
	case cfg.IsJovian(ts) != (a.MinBaseFee != nil):
		return nil, errors.New("minimum base fee is required since Jovian, and must be absent before")
	}
	gasLimit := uint64(*a.GasLimit)
	args := &miner.BuildPayloadArgs{
		Parent:       parent,
		Timestamp:    ts,
		FeeRecipient: a.SuggestedFeeRecipient,
		Random:       common.Hash(a.PrevRandao),
		BeaconRoot:   a.ParentBeaconBlockRoot,
		NoTxPool:     a.NoTxPool,
		GasLimit:     &gasLimit,
		MinBaseFee:   a.MinBaseFee,
	}
	if a.Withdrawals != nil {
		args.Withdrawals = *a.Withdrawals
	}
	if a.EIP1559Params != nil {
		args.EIP1559Params = a.EIP1559Params[:]
		if err := validate1559(args.EIP1559Params); err != nil {
			return nil, err
		}
	}
	for i, raw := range a.Transactions {
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("transaction %d: %w", i, err)
		}
		args.Transactions = append(args.Transactions, tx)
	}
	return args, nil
}

// kind gives an error of op-geth its meaning for callers of an engine.Engine.
func kind(err error) error {
	var forced *miner.ForcedTxError
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case err == nil:
		return nil
	case is(miner.ErrParentStateUnavailable) || is(consensus.ErrPrunedAncestor):
		return fmt.Errorf("%w: %w", engine.ErrParentState, err)
	case errors.As(err, &forced) || is(miner.ErrSessionAttributes):
		return fmt.Errorf("%w: %w", engine.ErrInvalidAttributes, err)
	case is(miner.ErrUnknownParent) || is(consensus.ErrUnknownAncestor):
		return fmt.Errorf("%w: %w", engine.ErrUnknownParent, err)
	case is(miner.ErrSessionClosed):
		return fmt.Errorf("%w: %w", engine.ErrSessionClosed, err)
	case is(miner.ErrCondition):
		return fmt.Errorf("%w: %w", engine.ErrCondition, err)
	case is(miner.ErrPoolBehind):
		return fmt.Errorf("%w: %w", engine.ErrPoolBehind, err)
	}
	return err
}

// keep holds a sealed block for Insert.
func (d *direct) keep(b *miner.SealedBlock) {
	d.insertMu.Lock()
	defer d.insertMu.Unlock()
	d.sealed.Add(b.Block.Hash(), b)
}

func (d *direct) Insert(ctx context.Context, hash common.Hash) error {
	return d.wrap(fmt.Sprintf("insert %s", hash), d.insert(ctx, hash))
}

func (d *direct) insert(ctx context.Context, hash common.Hash) error {
	leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	d.insertMu.Lock()
	defer d.insertMu.Unlock()
	bc := d.eth.BlockChain()
	b, ok := d.sealed.Peek(hash)
	if !ok {
		if h := bc.GetHeaderByHash(hash); h != nil && bc.HasBlockAndState(hash, h.Number.Uint64()) {
			return nil
		}
		return fmt.Errorf("%w: no sealed block is kept under this hash", engine.ErrNotFound)
	}
	d.sealed.Remove(hash) // a state can be committed once
	return kind(bc.InsertSealed(b.Block, b.Receipts, b.State))
}

func (d *direct) Import(ctx context.Context, payload *eth.ExecutionPayloadEnvelope) error {
	if payload == nil || payload.ExecutionPayload == nil {
		return d.wrap("import", errors.New("no payload"))
	}
	return d.wrap(fmt.Sprintf("import %s", payload.ExecutionPayload.ID()), d.importBlock(ctx, payload))
}

// importBlock calls the version of newPayload that op-node would.
func (d *direct) importBlock(ctx context.Context, payload *eth.ExecutionPayloadEnvelope) error {
	leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	var (
		cfg    = d.eth.BlockChain().Config()
		data   = executable(payload.ExecutionPayload)
		status beacon.PayloadStatusV1
	)
	switch {
	case cfg.IsIsthmus(data.Timestamp):
		status, err = d.api.NewPayloadV4(ctx, data, []common.Hash{}, payload.ParentBeaconBlockRoot, []hexutil.Bytes{})
	case cfg.IsEcotone(data.Timestamp):
		status, err = d.api.NewPayloadV3(ctx, data, []common.Hash{}, payload.ParentBeaconBlockRoot)
	default:
		status, err = d.api.NewPayloadV2(ctx, data)
	}
	if err != nil {
		return err
	}
	return engine.PayloadStatusErr(status.Status, status.ValidationError)
}

// executable is the payload in op-geth's type.
func executable(p *eth.ExecutionPayload) beacon.ExecutableData {
	txs := make([][]byte, len(p.Transactions))
	for i, tx := range p.Transactions {
		txs[i] = tx
	}
	data := beacon.ExecutableData{
		ParentHash:      p.ParentHash,
		FeeRecipient:    p.FeeRecipient,
		StateRoot:       common.Hash(p.StateRoot),
		ReceiptsRoot:    common.Hash(p.ReceiptsRoot),
		LogsBloom:       p.LogsBloom[:],
		Random:          common.Hash(p.PrevRandao),
		Number:          uint64(p.BlockNumber),
		GasLimit:        uint64(p.GasLimit),
		GasUsed:         uint64(p.GasUsed),
		Timestamp:       uint64(p.Timestamp),
		ExtraData:       p.ExtraData,
		BaseFeePerGas:   (*uint256.Int)(&p.BaseFeePerGas).ToBig(),
		BlockHash:       p.BlockHash,
		Transactions:    txs,
		BlobGasUsed:     (*uint64)(p.BlobGasUsed),
		ExcessBlobGas:   (*uint64)(p.ExcessBlobGas),
		WithdrawalsRoot: p.WithdrawalsRoot,
	}
	if p.Withdrawals != nil {
		data.Withdrawals = *p.Withdrawals
	}
	return data
}

func (d *direct) SetHead(ctx context.Context, head, safe, finalized common.Hash) error {
	return d.wrap(fmt.Sprintf("set head to %s", head), d.setHead(ctx, head, safe, finalized))
}

func (d *direct) setHead(ctx context.Context, head, safe, finalized common.Hash) error {
	leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if head == (common.Hash{}) {
		return engine.ErrNotFound
	}
	fc := beacon.ForkchoiceStateV1{HeadBlockHash: head, SafeBlockHash: safe, FinalizedBlockHash: finalized}
	res, err := d.api.ForkchoiceUpdatedV3(ctx, fc, nil)
	if err != nil {
		var apiErr *beacon.EngineAPIError
		if errors.As(err, &apiErr) && apiErr.ErrorData() != nil {
			err = fmt.Errorf("%w (%v)", err, apiErr.ErrorData()) // the message alone names only the kind
		}
		return err
	}
	return engine.ForkchoiceStatusErr(res.PayloadStatus.Status, res.PayloadStatus.ValidationError)
}

func (d *direct) header(ctx context.Context, what string, get func() *types.Header) (engine.BlockInfo, error) {
	leave, err := d.enter(ctx)
	if err != nil {
		return engine.BlockInfo{}, d.wrap(what, err)
	}
	defer leave()
	h := get()
	if h == nil {
		return engine.BlockInfo{}, d.wrap(what, engine.ErrNotFound)
	}
	return engine.BlockInfo{Hash: h.Hash(), Number: h.Number.Uint64(), ParentHash: h.ParentHash, Time: h.Time}, nil
}

func (d *direct) Head(ctx context.Context) (engine.BlockInfo, error) {
	return d.header(ctx, "head", d.eth.BlockChain().CurrentBlock)
}

func (d *direct) Block(ctx context.Context, number uint64) (engine.BlockInfo, error) {
	return d.header(ctx, fmt.Sprintf("block %d", number), func() *types.Header {
		return d.eth.BlockChain().GetHeaderByNumber(number)
	})
}

func (d *direct) BlockByHash(ctx context.Context, hash common.Hash) (engine.BlockInfo, error) {
	return d.header(ctx, fmt.Sprintf("block %s", hash), func() *types.Header {
		return d.eth.BlockChain().GetHeaderByHash(hash)
	})
}

func (d *direct) Payload(ctx context.Context, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error) {
	what := fmt.Sprintf("payload %s", hash)
	leave, err := d.enter(ctx)
	if err != nil {
		return nil, d.wrap(what, err)
	}
	defer leave()
	b := d.eth.BlockChain().GetBlockByHash(hash)
	if b == nil {
		return nil, d.wrap(what, engine.ErrNotFound)
	}
	payload, err := eth.BlockAsPayloadEnv(b, d.eth.BlockChain().Config())
	return payload, d.wrap(what, err)
}

func (d *direct) Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error) {
	what := fmt.Sprintf("receipts of %s", hash)
	leave, err := d.enter(ctx)
	if err != nil {
		return nil, d.wrap(what, err)
	}
	defer leave()
	bc := d.eth.BlockChain()
	h := bc.GetHeaderByHash(hash)
	if h == nil {
		return nil, d.wrap(what, engine.ErrNotFound)
	}
	receipts := bc.GetReceiptsByHash(hash)
	if receipts == nil && h.ReceiptHash != types.EmptyReceiptsHash {
		return nil, d.wrap(what, fmt.Errorf("%w: the block is stored without them", engine.ErrNotFound))
	}
	return append(types.Receipts{}, receipts...), nil // the list is op-geth's cache
}
