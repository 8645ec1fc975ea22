package stream

import (
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chainA, chainB = sequence.ChainID(901), sequence.ChainID(902)

var key, _ = crypto.ToECDSA(crypto.Keccak256([]byte("stream")))

func transfer(t *testing.T, chain sequence.ChainID, nonce uint64) *types.Transaction {
	id := new(big.Int).SetUint64(uint64(chain))
	to := common.Address{1}
	tx, err := types.SignNewTx(key, types.LatestSignerForChainID(id), &types.DynamicFeeTx{
		ChainID: id, Nonce: nonce, To: &to, Gas: 21_000, GasTipCap: big.NewInt(2), GasFeeCap: big.NewInt(100),
	})
	require.NoError(t, err)
	return tx
}

func envelope(t *testing.T, tx *types.Transaction) []byte {
	raw, err := tx.MarshalBinary()
	require.NoError(t, err)
	return raw
}

// made is a slot of three subblocks over two chains, as the sequencer tells of it. Chain B has
// nothing in the second.
func made(t *testing.T) []sequencer.Committed {
	deposit := envelope(t, types.NewTx(&types.DepositTx{To: &common.Address{2}, Gas: 50_000, Value: new(big.Int), Data: make([]byte, 178)}))
	ran := func(raw []byte, gas uint64, logs ...*types.Log) engine.TxResult {
		return engine.TxResult{Hash: crypto.Keccak256Hash(raw), Raw: raw, Status: 1, GasUsed: gas, Logs: logs}
	}
	a0, a1, b2 := envelope(t, transfer(t, chainA, 0)), envelope(t, transfer(t, chainA, 1)), envelope(t, transfer(t, chainB, 0))
	note := &types.Log{Address: common.Address{9}, Topics: []common.Hash{{1}}, Data: []byte("x"), BlockNumber: 8, Index: 0}
	header := func(chain sequence.ChainID) sequencer.CommittedBlock {
		return sequencer.CommittedBlock{
			Chain: chain, Forced: []engine.TxResult{ran(deposit, 50_000)},
			Header: engine.Header{Number: 8, Time: 100, GasLimit: 30_000_000, BaseFee: big.NewInt(7), Extra: []byte{1, 2}},
		}
	}
	opening := func(chain sequence.ChainID) sequence.Opening {
		return sequence.Opening{Chain: chain, ParentHash: common.Hash{0xaa, byte(chain)}, ParentNumber: 7, FeeRecipient: common.Address{0xfe}, Deposits: [][]byte{deposit}}
	}
	result := func(chain sequence.ChainID, txs, gas uint64) sequence.Result {
		return sequence.Result{Chain: chain, Transactions: txs, GasUsed: gas, ReceiptsRoot: common.Hash{byte(txs), byte(chain)}}
	}
	var out []sequencer.Committed
	add := func(sub *sequence.Subblock, results [][]engine.TxResult, sealed bool) {
		sub.Slot, sub.Index = 100, uint64(len(out))
		if len(out) > 0 {
			sub.Parent = out[len(out)-1].Hash
		}
		c := sequencer.Committed{
			Subblock: sub, Hash: sub.Hash(), Results: results, Blocks: []sequencer.CommittedBlock{header(chainA), header(chainB)},
			Agreed: rotation.Agreed{Turn: rotation.Turn{Height: 40 + uint64(len(out)), Leader: common.Address{0x1e}}},
		}
		if sealed {
			for i := range c.Blocks {
				root := common.Hash{0xdd}
				c.Blocks[i].Sealed = &eth.ExecutionPayloadEnvelope{ExecutionPayload: &eth.ExecutionPayload{
					StateRoot: eth.Bytes32{0xee}, BlockHash: common.Hash{0xbb, byte(c.Blocks[i].Chain)}, WithdrawalsRoot: &root,
				}}
			}
		}
		out = append(out, c)
	}
	add(&sequence.Subblock{
		Openings: []sequence.Opening{opening(chainA), opening(chainB)}, Steps: []sequence.Step{{Chain: chainA, Transactions: [][]byte{a0}}},
		Results: []sequence.Result{result(chainA, 2, 71_000), result(chainB, 1, 50_000)},
	}, [][]engine.TxResult{{ran(a0, 21_000)}}, false)
	add(&sequence.Subblock{
		Steps: []sequence.Step{{Chain: chainA, Transactions: [][]byte{a1}}}, Results: []sequence.Result{result(chainA, 3, 92_000), result(chainB, 1, 50_000)},
	}, [][]engine.TxResult{{ran(a1, 21_000, note)}}, false)
	add(&sequence.Subblock{
		Steps: []sequence.Step{{Chain: chainB, Transactions: [][]byte{b2}}}, Results: []sequence.Result{result(chainA, 3, 92_000), result(chainB, 2, 71_000)},
		Seals: []sequence.Seal{{Chain: chainA, Number: 8, BlockHash: common.Hash{0xbb, byte(chainA & 0xff)}}, {Chain: chainB, Number: 8}},
	}, [][]engine.TxResult{{ran(b2, 21_000, note)}}, true)
	return out
}

// counted counts what a feed tells its metrics.
type counted struct {
	mu    sync.Mutex
	now   int
	ended []error
}

func (c *counted) Subscribers(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = n
}

func (c *counted) SubscriptionEnded(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = append(c.ended, why)
}

func newFeed(t *testing.T, cfg Config) (*Feed, *counted) {
	m := new(counted)
	f := New(cfg, m, testlog.Logger(t, log.LevelCrit))
	t.Cleanup(f.Close)
	return f, m
}

func subscribe(t *testing.T, f *Feed) *Subscription {
	s, err := f.Subscribe("127.0.0.1:1")
	require.NoError(t, err)
	return s
}

// fields reads JSON into maps.
func fields(t *testing.T, data json.RawMessage) (out map[string]any) {
	require.NoError(t, json.Unmarshal(data, &out), "%s", data)
	return out
}

func TestSubblocks(t *testing.T) {
	f, _ := newFeed(t, Config{})
	s := subscribe(t, f)
	slot := made(t)
	var got []*Subblock
	for _, c := range slot {
		f.SubblockCommitted(c)
		got = append(got, (<-s.Events()).Subblock)
	}
	first := fields(t, got[0].JSON())
	require.Equal(t, slot[0].Hash.Hex(), first["hash"])
	require.Equal(t, "0x28", first["height"])
	require.Equal(t, false, first["last"])
	chains := first["chains"].([]any)
	require.Len(t, chains, 2)
	a := chains[0].(map[string]any)
	require.Equal(t, "0x385", a["chainId"])
	require.Equal(t, "0x8", a["blockNumber"])
	require.Len(t, a["transactions"], 2, "with the deposit")
	require.Equal(t, transfer(t, chainA, 0).Hash().Hex(), a["transactions"].([]any)[1])
	require.NotContains(t, a, "blockHash")

	last := fields(t, got[2].JSON())
	require.Equal(t, true, last["last"])
	a, b := last["chains"].([]any)[0].(map[string]any), last["chains"].([]any)[1].(map[string]any)
	require.Empty(t, a["transactions"])
	require.Equal(t, "0x16760", a["gasUsed"])
	require.Contains(t, a, "blockHash")
	require.NotContains(t, b, "blockHash", "its seal is deferred")
}

func TestReceipts(t *testing.T) {
	f, _ := newFeed(t, Config{})
	s := subscribe(t, f)
	var got []*Subblock
	for _, c := range made(t) {
		f.SubblockCommitted(c)
		got = append(got, (<-s.Events()).Subblock)
	}
	require.Len(t, got[0].Receipts(chainA), 2)
	require.Empty(t, got[1].Receipts(chainB))
	require.Empty(t, got[1].Receipts(7))
	second := got[1].Receipts(chainA)
	require.Len(t, second, 1)
	tx := transfer(t, chainA, 1)
	require.Equal(t, tx.Hash(), second[0].Hash)
	r := fields(t, second[0].JSON)
	require.Equal(t, "0x2", r["transactionIndex"])
	require.Equal(t, hexutil.EncodeUint64(92_000), r["cumulativeGasUsed"])
	require.Equal(t, hexutil.EncodeUint64(21_000), r["gasUsed"])
	require.Equal(t, "0x9", r["effectiveGasPrice"])
	require.Equal(t, strings.ToLower(crypto.PubkeyToAddress(key.PublicKey).Hex()), r["from"])
	require.Nil(t, r["blockHash"])
	require.Len(t, r["logs"], 1)
	// What viem and ethers read decodes as a receipt of go-ethereum's, too.
	var receipt types.Receipt
	require.NoError(t, json.Unmarshal(second[0].JSON, &receipt))
	require.Equal(t, types.CreateBloom(&receipt), receipt.Bloom)

	sealed := fields(t, got[2].Receipts(chainB)[0].JSON)
	require.NotNil(t, sealed["blockHash"])
	require.Equal(t, sealed["blockHash"], sealed["logs"].([]any)[0].(map[string]any)["blockHash"])
	require.Equal(t, "0x1", sealed["transactionIndex"])
}

// A process that starts in the middle of a slot tells places right, and has no partial block.
func TestFromTheMiddle(t *testing.T) {
	f, _ := newFeed(t, Config{})
	s := subscribe(t, f)
	slot := made(t)
	f.SubblockCommitted(slot[1])
	got := (<-s.Events()).Subblock
	require.Equal(t, "0x2", fields(t, got.Receipts(chainA)[0].JSON)["transactionIndex"])
	require.Equal(t, hexutil.EncodeUint64(92_000), fields(t, got.Receipts(chainA)[0].JSON)["cumulativeGasUsed"])
	require.Nil(t, got.Partial(chainA))

	// One that was agreed on without this operator is told of, without results.
	unread := slot[0]
	unread.Results, unread.Blocks = nil, nil
	f.SubblockCommitted(unread)
	got = (<-s.Events()).Subblock
	require.Equal(t, transfer(t, chainA, 0).Hash().Hex(), fields(t, got.JSON())["chains"].([]any)[0].(map[string]any)["transactions"].([]any)[1])
	require.Nil(t, got.Receipts(chainA))
	require.Nil(t, got.Partial(chainA))
	f.SubblockCommitted(slot[1])
	require.Nil(t, (<-s.Events()).Subblock.Partial(chainA), "what follows it cannot be used either")
}

func TestPartial(t *testing.T) {
	f, _ := newFeed(t, Config{})
	s := subscribe(t, f)
	var got []map[string]any
	var bloom []any
	for _, c := range made(t) {
		f.SubblockCommitted(c)
		p := fields(t, (<-s.Events()).Subblock.Partial(chainA))
		got = append(got, p)
		bloom = append(bloom, p["diff"].(map[string]any)["logs_bloom"])
	}
	base := got[0]["base"].(map[string]any)
	require.Equal(t, "0x8", base["block_number"])
	require.Equal(t, "0x64", base["timestamp"])
	require.Equal(t, "0x7", base["base_fee_per_gas"])
	require.Equal(t, "0x0102", base["extra_data"])
	require.NotContains(t, got[1], "base")
	for i, p := range got {
		require.EqualValues(t, i, p["index"])
		require.Equal(t, got[0]["payload_id"], p["payload_id"])
		require.Len(t, p["payload_id"], 18)
		require.EqualValues(t, 8, p["metadata"].(map[string]any)["block_number"])
	}
	require.NotEqual(t, bloom[0], bloom[1])
	require.Equal(t, bloom[1], bloom[2], "the bloom is of the block so far")
	diff := got[1]["diff"].(map[string]any)
	require.Equal(t, []any{hexutil.Encode(envelope(t, transfer(t, chainA, 1)))}, diff["transactions"])
	require.Equal(t, common.Hash{}.Hex(), diff["block_hash"])
	receipt := got[1]["metadata"].(map[string]any)["receipts"].(map[string]any)[transfer(t, chainA, 1).Hash().Hex()].(map[string]any)
	require.Equal(t, "0x2", receipt["type"])
	require.Equal(t, hexutil.EncodeUint64(92_000), receipt["cumulativeGasUsed"])
	diff = got[2]["diff"].(map[string]any)
	require.Empty(t, diff["transactions"])
	require.NotEqual(t, common.Hash{}.Hex(), diff["block_hash"])
	require.NotEqual(t, common.Hash{}.Hex(), diff["state_root"])
	require.NotEqual(t, common.Hash{}.Hex(), diff["withdrawals_root"])
}

// statuses is a pool.
type statuses map[common.Hash]bundlepool.State

func (s statuses) Status(hash common.Hash) (bundlepool.Status, error) {
	if state, ok := s[hash]; ok {
		return bundlepool.Status{Hash: hash, State: state}, nil
	}
	return bundlepool.Status{}, bundlepool.ErrUnknownBundle
}

func TestBundles(t *testing.T) {
	f, _ := newFeed(t, Config{})
	s := subscribe(t, f)
	f.BundleChanged(common.Hash{1}) // nobody knows what it has come to
	f.Watch(statuses{{2}: bundlepool.Executed})
	f.BundleChanged(common.Hash{3}) // forgotten
	f.BundleChanged(common.Hash{2})
	e := <-s.Events()
	require.Equal(t, common.Hash{2}, e.Bundle.Hash)
	require.Equal(t, bundlepool.Executed, e.Bundle.State)
}

// One address cannot take all subscriptions, nor those of the streams' readers.
func TestSources(t *testing.T) {
	f, _ := newFeed(t, Config{Subscriptions: 5, PerSource: 2})
	var subs []*Subscription
	for range 2 {
		s, err := f.Subscribe("10.0.0.1:1")
		require.NoError(t, err)
		subs = append(subs, s)
	}
	_, err := f.Subscribe("10.0.0.1:9")
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "10.0.0.1/32 has 2")
	for range 3 {
		subscribe(t, f)
	}
	_, err = f.Subscribe("10.0.0.2:1")
	require.ErrorIs(t, err, ErrFull)
	_, err = f.subscribe()
	require.NoError(t, err, "a reader")
	subs[0].Close()
	_, err = f.Subscribe("10.0.0.1:9")
	require.NoError(t, err)
}

// A subscriber that does not read loses its subscription, and nobody else notices.
func TestSlow(t *testing.T) {
	f, m := newFeed(t, Config{Queue: 2})
	slow, quick := subscribe(t, f), subscribe(t, f)
	slot := made(t)
	for range 5 {
		f.SubblockCommitted(slot[0])
		require.NotNil(t, (<-quick.Events()).Subblock)
	}
	n := 0
	for range slow.Events() {
		n++
	}
	require.Equal(t, 2, n)
	require.ErrorIs(t, slow.Err(), ErrSlow)
	require.ErrorContains(t, slow.Err(), "2 events")
	m.mu.Lock()
	require.Equal(t, 1, m.now)
	require.Len(t, m.ended, 1)
	m.mu.Unlock()
	slow.Close()
	quick.Close()
	quick.Close()
	require.NoError(t, quick.Err())
	_, open := <-quick.Events()
	require.False(t, open)
}

// blocking is a pool that takes its time.
type blocking struct{ entered, leave chan struct{} }

func (b blocking) Status(common.Hash) (bundlepool.Status, error) {
	b.entered <- struct{}{}
	<-b.leave
	return bundlepool.Status{}, errors.New("gone")
}

// What is told never waits; what this process misses ends the subscriptions, so that nobody
// takes what follows for everything.
func TestMissed(t *testing.T) {
	f, _ := newFeed(t, Config{Backlog: 1})
	pool := blocking{make(chan struct{}), make(chan struct{})}
	f.Watch(pool)
	s := subscribe(t, f)
	f.BundleChanged(common.Hash{1})
	<-pool.entered
	slot := made(t)
	for range 3 {
		f.SubblockCommitted(slot[0])
	}
	close(pool.leave)
	for range s.Events() {
	}
	require.ErrorIs(t, s.Err(), ErrMissed)
	again := subscribe(t, f)
	f.SubblockCommitted(slot[0])
	require.NotNil(t, (<-again.Events()).Subblock)
}

func TestLimits(t *testing.T) {
	f, _ := newFeed(t, Config{Subscriptions: 1})
	s := subscribe(t, f)
	_, err := f.Subscribe("127.0.0.1:2")
	require.ErrorIs(t, err, ErrFull)
	s.Close()
	s = subscribe(t, f)
	f.Close()
	for range s.Events() {
	}
	require.ErrorIs(t, s.Err(), ErrClosed)
	_, err = f.Subscribe("127.0.0.1:2")
	require.ErrorIs(t, err, ErrClosed)
	f.SubblockCommitted(made(t)[0]) // of no consequence
}

func TestSocket(t *testing.T) {
	f, _ := newFeed(t, Config{})
	server := httptest.NewServer(NewSocket(SocketConfig{}, f, []sequence.ChainID{chainA, chainB}, testlog.Logger(t, log.LevelCrit)))
	t.Cleanup(server.Close)
	for path, code := range map[string]int{"/": 404, "/903": 404, "/901/x": 404, "/901": 426} {
		resp, err := http.Get(server.URL + path)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, code, resp.StatusCode, path)
	}
	conn, _, err := websocket.Dial(t.Context(), server.URL+"/901", nil) //nolint:bodyclose // it is the connection's
	require.NoError(t, err)
	conn.SetReadLimit(1 << 20)
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.subs) == 1 }, 10*time.Second, time.Millisecond)
	for i, c := range made(t) {
		f.SubblockCommitted(c)
		kind, data, err := conn.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, websocket.MessageText, kind)
		require.EqualValues(t, i, fields(t, data)["index"])
	}
	f.Close()
	_, _, err = conn.Read(t.Context())
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
}

func TestSocketLimits(t *testing.T) {
	f, _ := newFeed(t, Config{})
	s := NewSocket(SocketConfig{Readers: 3, PerSource: 2}, f, []sequence.ChainID{chainA}, testlog.Logger(t, log.LevelCrit))
	enter := func(remote string) error { return s.enter(Source(remote)) }
	leave := func(remote string) { source, _ := Source(remote); s.leave(source) }
	require.NoError(t, enter("10.0.0.1:1"))
	require.NoError(t, enter("10.0.0.1:2"))
	require.ErrorContains(t, enter("10.0.0.1:3"), "10.0.0.1")
	require.NoError(t, enter("[2001:db8::1]:1"))
	require.ErrorContains(t, enter("10.0.0.3:1"), "3 connections")
	leave("10.0.0.1:1")
	require.NoError(t, enter("[2001:db8::2]:1"))
	leave("10.0.0.1:2")
	require.ErrorContains(t, enter("[2001:db8::3]:1"), "2001:db8::/64", "one user's")
	leave("[2001:db8::1]:1")
	leave("[2001:db8::2]:1")
	require.Empty(t, s.readers)
	for range 3 {
		require.NoError(t, enter("127.0.0.1:1"))
	}
}
