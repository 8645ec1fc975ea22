// Package enginefake is an engine without an EVM: accounts, nonces, fees, blocks with
// right hashes, sessions with savepoints, a transaction pool, and a process that can go
// away and lose its newest blocks. Tests of what drives engines use it where no
// contract matters; package enginetest has the chains for tests against op-geth.
package enginefake

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// BaseFee of every block, in wei.
const BaseFee = 1000

// Hook is called at the beginning of every call with its name ("open", "execute",
// "newPayload", …). It may block; its error is the call's.
type Hook func(ctx context.Context, call string) error

// Engine is one chain's engine. Its methods may be called concurrently.
type Engine struct {
	chain  sequence.ChainID
	signer types.Signer
	txs    *Txs // may be nil

	mu        sync.Mutex
	hook      Hook
	down      bool
	process   int // counts restarts: sessions of an earlier process are lost
	genesis   *block
	blocks    map[common.Hash]*block // stored
	sealed    map[common.Hash]*block // by sessions of this process, not stored
	canonical []*block               // by number; the last is the head
	safe      common.Hash
	finalized common.Hash
	pool      pool
	sessions  int        // open
	published []eth.Data // last, of whatever session
	builds    map[eth.PayloadID]*building
}

var _ engine.Engine = (*Engine)(nil)

// block is a block and the state behind it.
type block struct {
	env      *eth.ExecutionPayloadEnvelope
	parent   *block
	state    *state
	receipts types.Receipts
	txs      map[common.Hash]bool
}

func (b *block) payload() *eth.ExecutionPayload { return b.env.ExecutionPayload }
func (b *block) hash() common.Hash              { return b.env.ExecutionPayload.BlockHash }
func (b *block) number() uint64                 { return uint64(b.env.ExecutionPayload.BlockNumber) }
func (b *block) info() engine.BlockInfo {
	p := b.env.ExecutionPayload
	return engine.BlockInfo{Hash: p.BlockHash, Number: uint64(p.BlockNumber), ParentHash: p.ParentHash, Time: uint64(p.Timestamp)}
}

// New makes an engine with a genesis block at a time in seconds, in which each of the
// accounts has a lot of ether.
func New(chain sequence.ChainID, genesisTime uint64, accounts ...common.Address) *Engine {
	s := &state{genesis: map[common.Address]account{}, accounts: map[common.Address]account{}}
	for _, a := range accounts {
		s.genesis[a] = account{balance: new(big.Int).Lsh(big.NewInt(1), 80)}
	}
	gasLimit := eth.Uint64Quantity(30_000_000)
	fees, minBaseFee := eth.Bytes8{0, 0, 0, 250, 0, 0, 0, 6}, uint64(0)
	attrs := &eth.PayloadAttributes{
		Timestamp: eth.Uint64Quantity(genesisTime), GasLimit: &gasLimit, EIP1559Params: &fees, MinBaseFee: &minBaseFee,
		ParentBeaconBlockRoot: &common.Hash{}, Withdrawals: &types.Withdrawals{},
	}
	attrs.PrevRandao = eth.Bytes32(common.BigToHash(new(big.Int).SetUint64(uint64(chain)))) // so that chains differ
	genesis := newBuilding(nil, nil, nil, s, attrs).seal()
	return &Engine{
		chain: chain, signer: types.LatestSignerForChainID(chain.ID().ToBig()),
		genesis: genesis, blocks: map[common.Hash]*block{genesis.hash(): genesis}, sealed: map[common.Hash]*block{},
		canonical: []*block{genesis}, safe: genesis.hash(), finalized: genesis.hash(), pool: newPool(), builds: map[eth.PayloadID]*building{},
	}
}

// Share has the engine decode transactions, and recover their senders, together with
// others. Called before the engine is used.
func (e *Engine) Share(txs *Txs) { e.txs = txs }

// Genesis is the first block.
func (e *Engine) Genesis() engine.BlockInfo { return e.genesis.info() }

// SetHook replaces the hook; nil takes it away.
func (e *Engine) SetHook(h Hook) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hook = h
}

// SetDown takes the engine's process away, with its sessions, or starts it again.
func (e *Engine) SetDown(down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if down && !e.down {
		e.restart()
	}
	e.down = down
}

// Crash restarts the process, which has lost its newest blocks: the head and lose-1
// blocks below it, and every other block as high as these.
func (e *Engine) Crash(lose int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.restart()
	keep := max(1, len(e.canonical)-lose)
	e.setCanonical(e.canonical[keep-1])
	for h, b := range e.blocks {
		if b.number() >= uint64(keep) {
			delete(e.blocks, h)
		}
	}
	e.safe, e.finalized = e.atMost(e.safe), e.atMost(e.finalized)
}

// restart loses what a process keeps in memory. The caller holds mu.
func (e *Engine) restart() {
	e.process++
	e.sessions = 0
	clear(e.sealed)
	clear(e.builds)
}

// Sessions counts the open sessions.
func (e *Engine) Sessions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sessions
}

// Published are the transactions that a session published last.
func (e *Engine) Published() []eth.Data {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.published
}

func (e *Engine) Chain() sequence.ChainID { return e.chain }
func (e *Engine) Close()                  {}

// enter begins a call. The caller must unlock mu if there is no error.
func (e *Engine) enter(ctx context.Context, call string) error {
	e.mu.Lock()
	hook := e.hook
	e.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, call); err != nil {
			return e.wrap(call, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return e.wrap(call, fmt.Errorf("%w: %w", engine.ErrUnavailable, err))
	}
	e.mu.Lock()
	if e.down {
		e.mu.Unlock()
		return e.wrap(call, engine.ErrUnavailable)
	}
	return nil
}

func (e *Engine) wrap(call string, err error) error {
	return fmt.Errorf("fake engine of chain %s: %s: %w", e.chain, call, err)
}

func (e *Engine) head() *block { return e.canonical[len(e.canonical)-1] }

// setCanonical makes b the head. Transactions of blocks that are left come back into the pool.
func (e *Engine) setCanonical(b *block) {
	var branch []*block
	for at := b; at.number() >= uint64(len(e.canonical)) || e.canonical[at.number()] != at; at = at.parent {
		branch = append(branch, at)
	}
	common := uint64(0)
	if len(branch) == 0 {
		common = b.number()
	} else {
		common = branch[len(branch)-1].number() - 1
	}
	e.canonical = e.canonical[:common+1]
	for _, at := range slices.Backward(branch) {
		e.canonical = append(e.canonical, at)
		for _, raw := range at.payload().Transactions {
			e.pool.add(e.signer, e.txs, raw)
		}
	}
}

// AddToPool gives the engine transactions to fill blocks with.
func (e *Engine) AddToPool(raw ...[]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range raw {
		e.pool.add(e.signer, e.txs, r)
	}
}

func (e *Engine) Open(ctx context.Context, parent eth.BlockID, attrs *eth.PayloadAttributes) (engine.Session, error) {
	if err := e.enter(ctx, "open"); err != nil {
		return nil, err
	}
	defer e.mu.Unlock()
	p := e.blocks[parent.Hash]
	if p == nil {
		return nil, e.wrap("open", fmt.Errorf("%w %s", engine.ErrUnknownParent, parent))
	}
	if uint64(attrs.Timestamp) <= uint64(p.payload().Timestamp) {
		return nil, e.wrap("open", fmt.Errorf("%w: timestamp %d on a block at %d", engine.ErrInvalidAttributes, attrs.Timestamp, p.payload().Timestamp))
	}
	s := &session{e: e, process: e.process, parent: p, b: newBuilding(e.signer, e.txs, p, p.state, attrs), noTxPool: attrs.NoTxPool}
	for _, raw := range attrs.Transactions {
		res := s.b.apply(raw)
		if res.Err != nil {
			return nil, e.wrap("open", fmt.Errorf("%w: %w", engine.ErrInvalidAttributes, res.Err))
		}
		s.forced = append(s.forced, res)
	}
	e.sessions++
	return s, nil
}

func (e *Engine) Insert(ctx context.Context, hash common.Hash) error {
	if err := e.enter(ctx, "insert"); err != nil {
		return err
	}
	defer e.mu.Unlock()
	if e.blocks[hash] != nil {
		return nil
	}
	b := e.sealed[hash]
	if b == nil || e.blocks[b.payload().ParentHash] == nil {
		return e.wrap("insert", engine.ErrNotFound)
	}
	e.blocks[hash] = b
	return nil
}

func (e *Engine) Import(ctx context.Context, env *eth.ExecutionPayloadEnvelope) error {
	if err := e.enter(ctx, "import"); err != nil {
		return err
	}
	defer e.mu.Unlock()
	return e.importBlock(env)
}

// importBlock executes and stores a block. The caller holds mu.
func (e *Engine) importBlock(env *eth.ExecutionPayloadEnvelope) error {
	p := env.ExecutionPayload
	if e.blocks[p.BlockHash] != nil {
		return nil
	}
	parent := e.blocks[p.ParentHash]
	if parent == nil {
		return e.wrap("import", fmt.Errorf("%w %s", engine.ErrUnknownParent, p.ParentID()))
	}
	b := newBuilding(e.signer, e.txs, parent, parent.state, attributesOf(env))
	for _, raw := range p.Transactions {
		if res := b.apply(raw); res.Err != nil {
			return e.wrap("import", fmt.Errorf("%w: %w", engine.ErrInvalidBlock, res.Err))
		}
	}
	made := b.seal()
	if made.hash() != p.BlockHash {
		return e.wrap("import", fmt.Errorf("%w: block %s executes to %s", engine.ErrInvalidBlock, p.ID(), made.hash()))
	}
	e.blocks[made.hash()] = made
	return nil
}

// attributesOf takes from a block what its execution depends on.
func attributesOf(env *eth.ExecutionPayloadEnvelope) *eth.PayloadAttributes {
	p := env.ExecutionPayload
	gasLimit, fees, minBaseFee := p.GasLimit, eth.Bytes8(p.ExtraData[1:9]), new(big.Int).SetBytes(p.ExtraData[9:17]).Uint64()
	return &eth.PayloadAttributes{
		Timestamp: p.Timestamp, PrevRandao: p.PrevRandao, SuggestedFeeRecipient: p.FeeRecipient, Withdrawals: &types.Withdrawals{},
		ParentBeaconBlockRoot: env.ParentBeaconBlockRoot, GasLimit: &gasLimit, EIP1559Params: &fees, MinBaseFee: &minBaseFee,
	}
}

func (e *Engine) SetHead(ctx context.Context, head, safe, finalized common.Hash) error {
	if err := e.enter(ctx, "setHead"); err != nil {
		return err
	}
	defer e.mu.Unlock()
	if !e.setHead(head, safe, finalized) {
		return e.wrap("setHead", engine.ErrNotFound)
	}
	return nil
}

// setHead follows op-geth: an ancestor of the head does not move it. The caller holds mu.
func (e *Engine) setHead(head, safe, finalized common.Hash) bool {
	b := e.blocks[head]
	if b == nil {
		return false
	}
	if n := b.number(); n >= uint64(len(e.canonical)) || e.canonical[n] != b {
		e.setCanonical(b)
	}
	if safe != (common.Hash{}) {
		e.safe = safe
	}
	if finalized != (common.Hash{}) {
		e.finalized = finalized
	}
	return true
}

func (e *Engine) Head(ctx context.Context) (engine.BlockInfo, error) {
	if err := e.enter(ctx, "head"); err != nil {
		return engine.BlockInfo{}, err
	}
	defer e.mu.Unlock()
	return e.head().info(), nil
}

func (e *Engine) Block(ctx context.Context, number uint64) (engine.BlockInfo, error) {
	if err := e.enter(ctx, "block"); err != nil {
		return engine.BlockInfo{}, err
	}
	defer e.mu.Unlock()
	if number >= uint64(len(e.canonical)) {
		return engine.BlockInfo{}, e.wrap("block", engine.ErrNotFound)
	}
	return e.canonical[number].info(), nil
}

// find looks a stored block up.
func (e *Engine) find(ctx context.Context, call string, hash common.Hash) (*block, error) {
	if err := e.enter(ctx, call); err != nil {
		return nil, err
	}
	defer e.mu.Unlock()
	if b := e.blocks[hash]; b != nil {
		return b, nil
	}
	return nil, e.wrap(call, engine.ErrNotFound)
}

func (e *Engine) BlockByHash(ctx context.Context, hash common.Hash) (engine.BlockInfo, error) {
	b, err := e.find(ctx, "blockByHash", hash)
	if err != nil {
		return engine.BlockInfo{}, err
	}
	return b.info(), nil
}

func (e *Engine) Payload(ctx context.Context, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error) {
	b, err := e.find(ctx, "payload", hash)
	if err != nil {
		return nil, err
	}
	return b.env, nil
}

func (e *Engine) Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error) {
	b, err := e.find(ctx, "receipts", hash)
	if err != nil {
		return nil, err
	}
	return b.receipts, nil
}

// Labels are the safe and the finalized block.
func (e *Engine) Labels() (safe, finalized common.Hash) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.safe, e.finalized
}

// Rewind moves the head back to a block of the canonical chain, which no Engine API call
// does: op-supernode gets there by way of a synthetic block.
func (e *Engine) Rewind(number uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.setCanonical(e.canonical[number])
	e.safe, e.finalized = e.atMost(e.safe), e.atMost(e.finalized)
}

// atMost is the block, or the head if the block is not below it.
func (e *Engine) atMost(hash common.Hash) common.Hash {
	if b := e.blocks[hash]; b != nil && b.number() <= e.head().number() {
		return hash
	}
	return e.head().hash()
}

// Includes says in which block of the chain that ends in head a transaction is, if in any.
func (e *Engine) Includes(head, tx common.Hash) (number uint64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for b := e.blocks[head]; b != nil; b = b.parent {
		if b.txs[tx] {
			return b.number(), true
		}
	}
	return 0, false
}

// ChainTo are the blocks of the chain that ends in a block, genesis first.
func (e *Engine) ChainTo(hash common.Hash) (out []*eth.ExecutionPayloadEnvelope) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for b := e.blocks[hash]; b != nil; b = b.parent {
		out = append(out, b.env)
	}
	slices.Reverse(out)
	return out
}

var errClosed = errors.New("the session was ended")
