package builder_test

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

type chainID = sequence.ChainID

const (
	chainA, chainB, chainC = chainID(901), chainID(902), chainID(903)
	genesisTime            = 1_000_000
	slot                   = sequence.Slot(genesisTime + 1)
)

// keys of accounts that have ether on every chain; the last is the relayer's.
var keys = func() []*ecdsa.PrivateKey {
	var out []*ecdsa.PrivateKey
	for i := range 6 {
		key, err := crypto.ToECDSA(crypto.Keccak256(fmt.Appendf(nil, "account %d", i)))
		if err != nil {
			panic(err)
		}
		out = append(out, key)
	}
	return out
}()

var (
	users    = keys[:5]
	relayKey = keys[5]
)

func address(key *ecdsa.PrivateKey) common.Address { return crypto.PubkeyToAddress(key.PublicKey) }

// world is a slot in which every chain has an open block on its genesis block.
type world struct {
	t       require.TestingT
	engines map[chainID]*enginefake.Engine
	blocks  []*builder.Block
	history *history
	logs    map[chainID][]*types.Log // of what was sealed
	exec    *executor.Executor
	check   *executor.Slot
	relayer *relay.Relayer
	policy  relay.Policy
	order   *builder.Order
	ahead   []common.Hash // bundles of the subblock before, for build

	failsafe atomic.Bool
	counted  counted
}

func newWorld(t require.TestingT, chains ...chainID) *world {
	w := &world{t: t, engines: map[chainID]*enginefake.Engine{}, history: &history{logs: map[chainID][]executor.Log{}}, logs: map[chainID][]*types.Log{}}
	var addrs []common.Address
	for _, k := range keys {
		addrs = append(addrs, address(k))
	}
	deps := map[eth.ChainID]*depset.StaticConfigDependency{}
	parents := map[chainID]eth.BlockID{}
	cfg := executor.Config{History: w.history}
	for _, id := range chains {
		e := enginefake.New(id, genesisTime, addrs...)
		w.engines[id] = e
		deps[id.ID()] = &depset.StaticConfigDependency{}
		parents[id] = e.Genesis().ID()
		cfg.Chains = append(cfg.Chains, executor.ChainConfig{ID: id, BlockTime: 1, InteropTime: new(uint64), Genesis: e.Genesis().ID(), GenesisTime: genesisTime})
		s, err := e.Open(context.Background(), e.Genesis().ID(), attributes(id))
		require.NoError(t, err)
		w.blocks = append(w.blocks, &builder.Block{Chain: id, Session: s})
	}
	var err error
	cfg.DependencySet, err = depset.NewStaticConfigDependencySet(deps)
	require.NoError(t, err)
	w.exec, err = executor.New(cfg)
	require.NoError(t, err)
	w.relayer, err = relay.New(relayKey, relay.Config{Gas: 100_000})
	require.NoError(t, err)
	w.check = w.exec.Begin(slot, parents)
	for _, b := range w.blocks {
		txs, err := builder.Checked(b.Session.Forced())
		require.NoError(t, err)
		require.NoError(t, w.check.Apply(b.Chain, txs))
	}
	return w
}

// again begins the slot anew, with the pools as they are.
func (w *world) again() {
	w.history.logs, w.logs = map[chainID][]executor.Log{}, map[chainID][]*types.Log{}
	w.check = w.exec.Begin(slot, w.parents())
	for _, b := range w.blocks {
		require.NoError(w.t, b.Session.Discard(context.Background()))
		s, err := w.engines[b.Chain].Open(context.Background(), w.engines[b.Chain].Genesis().ID(), attributes(b.Chain))
		require.NoError(w.t, err)
		b.Session = s
		txs, err := builder.Checked(s.Forced())
		require.NoError(w.t, err)
		require.NoError(w.t, w.check.Apply(b.Chain, txs))
	}
}

func (w *world) parents() map[chainID]eth.BlockID {
	out := map[chainID]eth.BlockID{}
	for id, e := range w.engines {
		out[id] = e.Genesis().ID()
	}
	return out
}

// attributes of the first block, with a deposit.
func attributes(id chainID) *eth.PayloadAttributes {
	gasLimit, fees, minBaseFee := eth.Uint64Quantity(30_000_000), eth.Bytes8{0, 0, 0, 250, 0, 0, 0, 6}, uint64(0)
	deposit, err := types.NewTx(&types.DepositTx{SourceHash: common.BigToHash(big.NewInt(int64(id))), To: &common.Address{}, Value: new(big.Int), Gas: 1_000_000}).MarshalBinary()
	if err != nil {
		panic(err)
	}
	return &eth.PayloadAttributes{
		Timestamp: eth.Uint64Quantity(slot), GasLimit: &gasLimit, EIP1559Params: &fees, MinBaseFee: &minBaseFee,
		ParentBeaconBlockRoot: &common.Hash{}, Withdrawals: &types.Withdrawals{}, Transactions: []eth.Data{deposit},
	}
}

func (w *world) block(id chainID) *builder.Block {
	for _, b := range w.blocks {
		if b.Chain == id {
			return b
		}
	}
	return nil
}

// attempt is a try at a bundle over all blocks.
func (w *world) attempt() *builder.Attempt {
	at := &builder.Attempt{Slot: slot, Blocks: map[chainID]*builder.Block{}, Check: w.check, Relayer: w.relayer}
	for _, b := range w.blocks {
		at.Blocks[b.Chain] = b
	}
	return at
}

// build runs the builder with the default times of a slot that has just begun.
func (w *world) build(ctx context.Context, bundles builder.Bundles, clk clock.Clock) error {
	return w.buildBy(ctx, bundles, clk, slotTimes(clk.Now()))
}

func slotTimes(now time.Time) builder.Times {
	return builder.Times{Fill: now.Add(700 * time.Millisecond), Cut: now.Add(900 * time.Millisecond), Rest: 67 * time.Millisecond, MinFill: 50 * time.Millisecond}
}

func (w *world) builder(bundles builder.Bundles, clk clock.Clock) *builder.Builder {
	nothing := func(context.Context, common.Hash) ([]builder.Kept, error) { return nil, nil }
	return builder.New(bundles, nothing, w.relayer, w.policy, engine.Priority, w.failsafe.Load, clk, &w.counted, log.NewLogger(log.DiscardHandler()))
}

func (w *world) buildBy(ctx context.Context, bundles builder.Bundles, clk clock.Clock, times builder.Times) (err error) {
	w.order, err = w.builder(bundles, clk).Build(ctx, slot, w.blocks, w.check, times, w.ahead)
	if err == nil { // whatever is built, everything is in its place
		_, perr := (&sequence.Subblock{Steps: w.order.Steps}).Places()
		require.NoError(w.t, perr)
	}
	return err
}

// seal ends the blocks and checks that what the slot's order says is what they hold, on
// every chain, and that the executor has seen exactly their logs.
func (w *world) seal() map[chainID]*eth.ExecutionPayload {
	out := map[chainID]*eth.ExecutionPayload{}
	refs := map[chainID]eth.BlockRef{}
	for _, b := range w.blocks {
		var want []eth.Data
		for _, r := range b.Session.Forced() {
			want = append(want, r.Raw)
		}
		for _, st := range w.order.Steps {
			if st.Chain == b.Chain {
				for _, raw := range st.Transactions {
					want = append(want, raw)
				}
			}
		}
		env, err := b.Session.Seal(context.Background())
		require.NoError(w.t, err)
		require.Equal(w.t, want, env.ExecutionPayload.Transactions, "chain %s: the block holds what the steps say", b.Chain)
		out[b.Chain] = env.ExecutionPayload
		refs[b.Chain] = env.ExecutionPayload.BlockRef()
		require.NoError(w.t, w.engines[b.Chain].Insert(context.Background(), env.ExecutionPayload.BlockHash))
	}
	require.NoError(w.t, w.exec.Commit(context.Background(), w.check, refs))
	for id, p := range out {
		receipts, err := w.engines[id].Receipts(context.Background(), p.BlockHash)
		require.NoError(w.t, err)
		require.Equal(w.t, hashes(executor.Logs(receipts)), hashes(w.history.logs[id]), "chain %s: the executor knows the block's logs", id)
		for _, r := range receipts {
			w.logs[id] = append(w.logs[id], r.Logs...)
		}
	}
	return out
}

// replay makes the same blocks from the steps alone, with fresh sessions.
func (w *world) replay(chains ...chainID) map[chainID]common.Hash {
	fresh := newWorld(w.t, chains...)
	for _, st := range w.order.Steps {
		res, err := fresh.block(st.Chain).Session.Execute(context.Background(), st.Transactions, false)
		require.NoError(w.t, err)
		for _, r := range res {
			require.NoError(w.t, r.Err)
		}
	}
	out := map[chainID]common.Hash{}
	for _, b := range fresh.blocks {
		env, err := b.Session.Seal(context.Background())
		require.NoError(w.t, err)
		out[b.Chain] = env.ExecutionPayload.BlockHash
	}
	return out
}

func hashes(logs []executor.Log) (out []common.Hash) {
	for i := range logs {
		out = append(out, logs[i].Hash())
	}
	return out
}

// history is the executor's: no block has messages, and what was appended is kept.
type history struct {
	mu   sync.Mutex
	logs map[chainID][]executor.Log
}

func (h *history) Contains(chain chainID, _ eth.BlockID, q messages.ContainsQuery) error {
	if q.Timestamp == incompleteTime {
		return executor.ErrHistoryIncomplete
	}
	return executor.ErrNoSuchMessage
}

// incompleteTime is when the history says that it does not know.
const incompleteTime = genesisTime - 10

func (h *history) Head(chainID) (eth.BlockRef, bool) { return eth.BlockRef{}, false }

func (h *history) Append(_ context.Context, chain chainID, _ eth.BlockRef, logs []executor.Log) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logs[chain] = append(h.logs[chain], logs...)
	return nil
}

// list is a list of waiting bundles that does not change.
type list struct {
	entries  []*bundlepool.Entry
	reserved map[chainID][]common.Hash
}

func (l *list) Pending(sequence.Slot) []*bundlepool.Entry         { return l.entries }
func (l *list) Reserved(c chainID, _ sequence.Slot) []common.Hash { return slices.Clone(l.reserved[c]) }
func (l *list) Changed() <-chan struct{}                          { return nil }

func (l *list) Get(hash common.Hash) (*bundlepool.Entry, bool) {
	i := slices.IndexFunc(l.entries, func(e *bundlepool.Entry) bool { return e.Hash == hash })
	if i < 0 {
		return nil, false
	}
	return l.entries[i], true
}

func (l *list) add(bundles ...*sequence.Bundle) *list {
	for _, b := range bundles {
		e := &bundlepool.Entry{Hash: b.Hash(), Bundle: b}
		for i := range b.Items {
			tx := new(types.Transaction)
			if b.Items[i].Relay() || tx.UnmarshalBinary(b.Items[i].Transaction) != nil {
				tx = nil
			}
			e.Transactions = append(e.Transactions, tx)
		}
		l.entries = append(l.entries, e)
	}
	return l
}

// leaping is a clock on which every wait is over at once.
type leaping struct {
	clock.Clock
	now time.Time
}

func newLeaping() *leaping { return &leaping{now: time.Unix(genesisTime, 0)} }

func (c *leaping) Now() time.Time                  { return c.now }
func (c *leaping) Since(t time.Time) time.Duration { return c.now.Sub(t) }

func (c *leaping) NewTimer(d time.Duration) clock.Timer {
	c.now = c.now.Add(d)
	ch := make(chan time.Time, 1)
	ch <- c.now
	return fired(ch)
}

type fired chan time.Time

func (f fired) Ch() <-chan time.Time { return f }
func (f fired) Stop() bool           { return false }

func item(chain chainID, raw []byte) sequence.BundleItem {
	return sequence.BundleItem{Chain: chain, Transaction: raw}
}

func relayOn(chain chainID) sequence.BundleItem { return sequence.BundleItem{Chain: chain} }

func bundle(items ...sequence.BundleItem) *sequence.Bundle {
	return &sequence.Bundle{Items: items, Expiry: slot + 10}
}

var _ engine.Engine = (*enginefake.Engine)(nil)

// counted is what a builder tells its metrics. Engines are filled in parallel.
type counted struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counted) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[what] += n
}

func (c *counted) MessageRefused(place string, chain chainID, rule executor.Rule) {
	c.add(fmt.Sprintf("%s on %s: %s", place, chain, rule.String()), 1)
}
func (c *counted) BundlesPassedOver(reason string, n int)   { c.add("passed over: "+reason, n) }
func (c *counted) PoolBehind(chain chainID)                 { c.add("pool behind on "+chain.String(), 1) }
func (c *counted) RelayerBalance(chain chainID, _ *big.Int) { c.add("balance on "+chain.String(), 1) }
