package engine

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Options are what a Client can be told beside where its engine is. The zero value is usable.
type Options struct {
	// CallTimeout bounds every call, on top of the caller's context; a Fill gets its
	// MaxTime in addition. Default 20 s: a call that takes longer hangs.
	CallTimeout time.Duration
	// RetryDelay is the pause between attempts to reach the engine in Dial. Default 500 ms.
	RetryDelay time.Duration
	Clock      clock.Clock // for RetryDelay; default the system's
	// Recorder is told of every call. May be nil.
	Recorder rpc.Recorder
}

func (o *Options) defaults() {
	if o.CallTimeout <= 0 {
		o.CallTimeout = 20 * time.Second
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = 500 * time.Millisecond
	}
	if o.Clock == nil {
		o.Clock = clock.SystemClock
	}
}

// Client is an Engine in another process: a patched op-geth, over its authenticated
// RPC. It reconnects by itself, at the next call after the connection was lost.
type Client struct {
	chain sequence.ChainID
	log   log.Logger
	rpc   *transport
	api   *sources.EngineAPIClient // newPayload and forkchoiceUpdated, with versions by fork

	maxTxs int // in one call of sessionExecute
}

var _ Engine = (*Client)(nil)

// errWrongEngine: there is an engine, and trying again will not make it the right one.
var errWrongEngine = errors.New("not the engine of this chain")

// Dial connects to the engine of the chain of cfg at addr, which is a ws, wss, http
// or https URL of the authenticated port, or the path of an IPC socket. WebSocket is
// the fastest of those that take the JWT secret. It tries until the engine is there
// or ctx ends, and gives up at once if the engine refuses the secret, serves another
// chain, or has no sessions.
func Dial(ctx context.Context, logger log.Logger, cfg *rollup.Config, addr string, jwtSecret [32]byte, opts Options) (*Client, error) {
	if cfg == nil || cfg.L2ChainID == nil || !cfg.L2ChainID.IsUint64() {
		return nil, fmt.Errorf("engine at %s: the rollup config has no chain ID of 64 bits", addr)
	}
	opts.defaults()
	chain := sequence.ChainID(cfg.L2ChainID.Uint64())
	logger = logger.New("chain", chain)
	u, err := url.Parse(addr)
	if err != nil {
		return nil, fmt.Errorf("engine of chain %s: address: %w", chain, err)
	}
	switch u.Scheme {
	case "ws", "wss", "http", "https", "": // "": IPC
	default:
		return nil, fmt.Errorf("engine of chain %s: address %s: want a ws, wss, http or https URL, or the path of an IPC socket", chain, addr)
	}
	last := errors.New("not tried")
	for attempt := 1; ; attempt++ {
		t, err := connect(ctx, addr, jwtSecret, &opts)
		if err == nil {
			if err = t.identify(ctx, chain); err == nil {
				logger.Info("Connected to engine", "addr", u.Redacted(), "attempts", attempt)
				return &Client{
					chain:  chain,
					log:    logger,
					rpc:    t,
					api:    sources.NewEngineAPIClient(t, logger, cfg),
					maxTxs: maxCallTxs,
				}, nil
			}
			t.Close()
		}
		if errors.Is(err, errWrongEngine) || errors.Is(err, errRefused) {
			return nil, fmt.Errorf("engine of chain %s at %s: %w", chain, u.Redacted(), err)
		}
		if ctx.Err() == nil {
			last = err // better than that there was no time for the next attempt
			if attempt == 1 || attempt%10 == 0 {
				logger.Warn("Waiting for engine", "addr", u.Redacted(), "attempts", attempt, "err", err)
			}
			_ = opts.Clock.SleepCtx(ctx, opts.RetryDelay)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("engine of chain %s at %s: %w after %d attempts: %w: %w",
				chain, u.Redacted(), ErrUnavailable, attempt, context.Cause(ctx), last)
		}
	}
}

// identify checks that the engine serves the chain and has sessions.
func (t *transport) identify(ctx context.Context, chain sequence.ChainID) error {
	var id hexutil.Big
	if err := t.CallContext(ctx, &id, "eth_chainId"); err != nil {
		return err
	}
	if got := id.ToInt(); !got.IsUint64() || sequence.ChainID(got.Uint64()) != chain {
		return fmt.Errorf("%w: it serves chain %s", errWrongEngine, got)
	}
	var version hexutil.Uint64
	err := t.CallContext(ctx, &version, "engine_sessionVersion")
	switch {
	case errorCode(err) == codeMethodNotFound:
		return fmt.Errorf("%w: it has no sessions, or those of an older version (engine_sessionVersion): it has to be this project's op-geth, of op-node's version", errWrongEngine)
	case err == nil && version != sessionVersion:
		return fmt.Errorf("%w: its sessions are of version %d, expected %d: op-geth and op-node have to be of the same version", errWrongEngine, version, sessionVersion)
	}
	return err
}

// sessionVersion is op-geth's catalyst.SessionVersion that this client speaks.
const sessionVersion = 3

func (c *Client) Chain() sequence.ChainID { return c.chain }

// Close closes the connection. Calls under way fail with ErrUnavailable.
func (c *Client) Close() { c.rpc.Close() }

func (c *Client) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("chain %s: %s: %w", c.chain, what, err)
}

func (c *Client) Open(ctx context.Context, parent eth.BlockID, attrs *eth.PayloadAttributes) (Session, error) {
	if attrs == nil {
		return nil, fmt.Errorf("chain %s: open on %s: %w: none given", c.chain, parent, ErrInvalidAttributes)
	}
	what := func() string { return fmt.Sprintf("open on %s", parent) }
	var opened wireOpened
	if err := c.rpc.CallContext(ctx, &opened, "engine_sessionOpen", parent.Hash, attrs); err != nil {
		if errorCode(err) == codeUnknownSession { // it is stopping
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, c.wrap(what(), err)
	}
	s := &clientSession{c: c, id: opened.ID}
	fail := func(err error) (Session, error) {
		s.Discard(ctx) //nolint:errcheck // it expires
		return nil, c.wrap(what(), err)
	}
	if err := opened.Status.check(parent, attrs); err != nil {
		return fail(err)
	}
	raw := make([][]byte, len(attrs.Transactions))
	for i, tx := range attrs.Transactions {
		raw[i] = tx
	}
	if len(opened.Forced) != len(raw) {
		return fail(fmt.Errorf("engine gave %d results for %d forced transactions", len(opened.Forced), len(raw)))
	}
	var err error
	if s.forced, err = toResults(opened.Forced, raw); err != nil {
		return fail(err)
	}
	s.header = opened.Status.header()
	s.known.add(s.forced)
	return s, nil
}

func (c *Client) Insert(ctx context.Context, hash common.Hash) error {
	err := c.rpc.CallContext(ctx, nil, "engine_sessionInsert", hash)
	return c.wrap(fmt.Sprintf("insert %s", hash), err)
}

func (c *Client) Import(ctx context.Context, payload *eth.ExecutionPayloadEnvelope) error {
	if payload == nil || payload.ExecutionPayload == nil {
		return fmt.Errorf("chain %s: import: no payload", c.chain)
	}
	p := payload.ExecutionPayload
	status, err := c.api.NewPayload(ctx, p, payload.ParentBeaconBlockRoot)
	if err == nil {
		err = PayloadStatusErr(string(status.Status), status.ValidationError)
	}
	return c.wrap(fmt.Sprintf("import %s", p.ID()), err)
}

func (c *Client) SetHead(ctx context.Context, head, safe, finalized common.Hash) error {
	what := fmt.Sprintf("set head to %s", head)
	if head == (common.Hash{}) {
		return c.wrap(what, ErrNotFound)
	}
	fc := &eth.ForkchoiceState{HeadBlockHash: head, SafeBlockHash: safe, FinalizedBlockHash: finalized}
	res, err := c.api.ForkchoiceUpdate(ctx, fc, nil)
	if err == nil {
		err = ForkchoiceStatusErr(string(res.PayloadStatus.Status), res.PayloadStatus.ValidationError)
	}
	return c.wrap(what, err)
}

// PayloadStatusErr is what a status of engine_newPayload means to a caller of
// Engine.Import. It is here for implementations of Engine.
func PayloadStatusErr(status string, reason *string) error {
	text := "no reason given"
	if reason != nil {
		text = *reason
	}
	switch eth.ExecutePayloadStatus(status) {
	case eth.ExecutionValid:
		return nil
	case eth.ExecutionInvalid, eth.ExecutionInvalidBlockHash:
		// op-geth gives every failed insertion as an invalid block, also its own shutdown.
		if text == "blockchain is stopped" || text == "insertion is interrupted" {
			return fmt.Errorf("%w: %s", ErrUnavailable, text)
		}
		return fmt.Errorf("%w: %s", ErrInvalidBlock, text)
	case eth.ExecutionSyncing: // the parent is missing
		return ErrUnknownParent
	case eth.ExecutionAccepted: // the parent's state is missing
		return ErrParentState
	}
	return fmt.Errorf("engine answered with the status %q: %s", status, text)
}

// ForkchoiceStatusErr is what a status of engine_forkchoiceUpdated means to a caller
// of Engine.SetHead. It is here for implementations of Engine.
func ForkchoiceStatusErr(status string, reason *string) error {
	switch eth.ExecutePayloadStatus(status) {
	case eth.ExecutionValid:
		return nil
	case eth.ExecutionSyncing: // the head is not stored
		return ErrNotFound
	}
	return PayloadStatusErr(status, reason)
}

// wireBlock is a block without its contents, as eth_getBlockBy… gives it.
type wireBlock struct {
	Hash       common.Hash    `json:"hash"`
	Number     hexutil.Uint64 `json:"number"`
	ParentHash common.Hash    `json:"parentHash"`
	Time       hexutil.Uint64 `json:"timestamp"`
}

func (c *Client) block(ctx context.Context, what, method string, arg any) (BlockInfo, error) {
	var b *wireBlock // null: there is none
	err := c.rpc.CallContext(ctx, &b, method, arg, false)
	switch {
	case err != nil:
		return BlockInfo{}, c.wrap(what, err)
	case b == nil:
		return BlockInfo{}, c.wrap(what, ErrNotFound)
	case b.Hash == (common.Hash{}):
		return BlockInfo{}, c.wrap(what, errors.New("engine gave a block without a hash"))
	}
	return BlockInfo{Hash: b.Hash, Number: uint64(b.Number), ParentHash: b.ParentHash, Time: uint64(b.Time)}, nil
}

func (c *Client) Head(ctx context.Context) (BlockInfo, error) {
	return c.block(ctx, "head", "eth_getBlockByNumber", "latest")
}

func (c *Client) Block(ctx context.Context, number uint64) (BlockInfo, error) {
	return c.block(ctx, fmt.Sprintf("block %d", number), "eth_getBlockByNumber", hexutil.Uint64(number))
}

func (c *Client) BlockByHash(ctx context.Context, hash common.Hash) (BlockInfo, error) {
	return c.block(ctx, fmt.Sprintf("block %s", hash), "eth_getBlockByHash", hash)
}

// Payload does not use upstream's caching client: an engine can lose a block in a
// crash, and then has to say so.
func (c *Client) Payload(ctx context.Context, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error) {
	what := fmt.Sprintf("payload %s", hash)
	var b *sources.RPCBlock
	if err := c.rpc.CallContext(ctx, &b, "eth_getBlockByHash", hash, true); err != nil {
		return nil, c.wrap(what, err)
	}
	if b == nil {
		return nil, c.wrap(what, ErrNotFound)
	}
	if b.Hash != hash {
		return nil, c.wrap(what, fmt.Errorf("engine gave block %s", b.Hash))
	}
	payload, err := b.ExecutionPayloadEnvelope(true)
	return payload, c.wrap(what, err)
}

func (c *Client) Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error) {
	what := fmt.Sprintf("receipts of %s", hash)
	var receipts *types.Receipts
	if err := c.rpc.CallContext(ctx, &receipts, "eth_getBlockReceipts", hash); err != nil {
		return nil, c.wrap(what, err)
	}
	if receipts == nil {
		return nil, c.wrap(what, ErrNotFound)
	}
	for i, r := range *receipts {
		if r == nil || r.BlockHash != hash {
			return nil, c.wrap(what, fmt.Errorf("receipt %d is none of this block's", i))
		}
	}
	return *receipts, nil
}
