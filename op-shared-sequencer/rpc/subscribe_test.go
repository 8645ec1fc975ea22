package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
	"github.com/ethereum-optimism/optimism/op-service/testlog"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/stream"
)

// streaming is a node with a feed, over a connection that takes notifications.
type streaming struct {
	t    *testing.T
	feed *stream.Feed
	pool *bundlepool.Pool
	raw  *gethrpc.Client
}

func newStreaming(t *testing.T, cfg stream.Config) *streaming {
	logger := testlog.Logger(t, log.LevelCrit)
	s := &streaming{t: t, feed: stream.New(cfg, stream.NoMetrics{}, logger)}
	t.Cleanup(s.feed.Close)
	limits := bundlepool.DefaultConfig(chainA, chainB)
	limits.Watcher = s.feed
	s.pool = bundlepool.New(limits, logger)
	s.pool.Advance(now)
	s.feed.Watch(s.pool)
	api, err := NewAPI(Config{SlotSeconds: 1, Chains: []sequence.ChainID{chainA, chainB}}, s.pool, new(fakeSimulator), new(fakeStatus), new(fakeAgreement), s.feed)
	require.NoError(t, err)
	h := oprpc.NewHandler("test", oprpc.WithLogger(logger))
	t.Cleanup(h.Stop)
	for _, a := range api.Register() {
		require.NoError(t, h.AddAPI(a))
	}
	s.raw, err = h.DialInProc()
	require.NoError(t, err)
	t.Cleanup(s.raw.Close)
	return s
}

// listen subscribes, and returns what comes.
func (s *streaming) listen(args ...any) chan json.RawMessage {
	s.t.Helper()
	notes := make(chan json.RawMessage, 64)
	sub, err := s.raw.Subscribe(context.Background(), Namespace, notes, args...)
	require.NoError(s.t, err)
	s.t.Cleanup(sub.Unsubscribe)
	return notes
}

// next decodes the next notification.
func next[T any](t *testing.T, notes chan json.RawMessage) (out T) {
	t.Helper()
	select {
	case n := <-notes:
		require.NoError(t, json.Unmarshal(n, &out), "%s", n)
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	return out
}

// committed is a subblock with a transaction on chain A.
func committed(t *testing.T, nonce uint64) sequencer.Committed {
	raw := signed(t, chainA, nonce)
	sub := &sequence.Subblock{
		Slot: now, Index: 1, Steps: []sequence.Step{{Chain: chainA, Transactions: [][]byte{raw}}},
		Results: []sequence.Result{{Chain: chainA, Transactions: 2, GasUsed: 50_000}},
	}
	return sequencer.Committed{
		Subblock: sub, Hash: sub.Hash(), Results: [][]engine.TxResult{{{Hash: crypto.Keccak256Hash(raw), Raw: raw, Status: 1, GasUsed: 21_000}}},
		Blocks: []sequencer.CommittedBlock{{Chain: chainA, Header: engine.Header{Number: 9, BaseFee: common.Big1}}},
	}
}

func TestSubscribe(t *testing.T) {
	s := newStreaming(t, stream.Config{})
	subblocks := s.listen("subblocks")
	all := s.listen("receipts", map[string]any{"chainId": "0x385"})
	one := s.listen("receipts", map[string]any{"chainId": "0x385", "transactionHashes": []common.Hash{crypto.Keccak256Hash(signed(t, chainA, 2))}})
	none := s.listen("receipts", map[string]any{"chainId": "0x386"})
	bundles := s.listen("bundles")
	bundle := s.listen("bundles", map[string]any{"bundleHash": common.Hash{1}})
	for n := range uint64(3) {
		s.feed.SubblockCommitted(committed(t, n))
		got := next[struct {
			Slot   string
			Chains []struct{ Transactions []common.Hash }
		}](t, subblocks)
		require.Equal(t, fmt.Sprintf("0x%x", uint64(now)), got.Slot)
		want := crypto.Keccak256Hash(signed(t, chainA, n))
		require.Equal(t, []common.Hash{want}, got.Chains[0].Transactions)
		receipts := next[[]struct{ TransactionHash common.Hash }](t, all)
		require.Len(t, receipts, 1)
		require.Equal(t, want, receipts[0].TransactionHash)
	}
	require.Len(t, next[[]struct{ TransactionHash common.Hash }](t, one), 1)

	b, err := (&BundleArgs{Items: []ItemArgs{Transaction(chainA, signed(t, chainA, 7))}}).bundle(now, &Config{SlotSeconds: 1, DefaultSlots: 3})
	require.NoError(t, err)
	hash, err := s.pool.Add(b)
	require.NoError(t, err)
	st := next[BundleStatus](t, bundles)
	require.Equal(t, hash, st.BundleHash)
	require.Equal(t, bundlepool.Pending, st.State)
	s.pool.Advance(b.Expiry + 1)
	require.Equal(t, bundlepool.Expired, next[BundleStatus](t, bundles).State)
	require.Empty(t, none)
	require.Empty(t, bundle)
	require.Empty(t, one)
}

func TestSubscribeRefused(t *testing.T) {
	s := newStreaming(t, stream.Config{Subscriptions: 1})
	fails := func(code int, message string, args ...any) {
		t.Helper()
		_, err := s.raw.Subscribe(t.Context(), Namespace, make(chan json.RawMessage), args...)
		require.ErrorContains(t, err, message)
		var coded gethrpc.Error
		require.ErrorAs(t, err, &coded)
		require.Equal(t, code, coded.ErrorCode())
	}
	fails(CodeInvalidParams, "chain 7", "receipts", map[string]any{"chainId": "0x7"})
	fails(CodeInvalidParams, "257", "receipts", map[string]any{"chainId": "0x385", "transactionHashes": make([]common.Hash, 257)})
	fails(CodeInvalidParams, "missing value", "receipts")
	fails(-32601, "blocks", "blocks")
	s.listen("subblocks")
	fails(CodeSubscription, "too many subscriptions", "subblocks")
}

// Whoever loses a subscription is told so, at the end.
func TestSubscriptionEnds(t *testing.T) {
	s := newStreaming(t, stream.Config{})
	notes := s.listen("subblocks")
	s.feed.SubblockCommitted(committed(t, 0))
	require.Nil(t, next[Ended](t, notes).Error)
	s.feed.Close()
	ended := next[Ended](t, notes)
	require.NotNil(t, ended.Error)
	require.Equal(t, CodeSubscription, ended.Error.Code)
	require.Contains(t, ended.Error.Message, "shutting down")
}

func TestRateLimit(t *testing.T) {
	at := time.Unix(1000, 0)
	l := newLimits(10, 40)
	for range 2 {
		require.NoError(t, l.admit("10.0.0.1:80", costSimulate, at))
	}
	err := l.admit("10.0.0.1:81", costRead, at)
	require.Equal(t, CodeRate, ErrorCode(err))
	require.ErrorContains(t, err, "10.0.0.1/32")
	require.NoError(t, l.admit("10.0.0.2:80", costRead, at), "another address")
	require.NoError(t, l.admit("[::ffff:10.0.0.3]:80", 40, at))
	require.Error(t, l.admit("10.0.0.3:80", costRead, at), "the same, in another form")
	require.NoError(t, l.admit("[2001:db8::1]:80", 40, at))
	require.Error(t, l.admit("[2001:db8::2]:80", costRead, at), "one user's")
	require.NoError(t, l.admit("[2001:db8:0:1::1]:80", costRead, at))
	require.NoError(t, l.admit("10.0.0.1:80", 10, at.Add(time.Second)))
	require.Error(t, l.admit("10.0.0.1:80", costRead, at.Add(time.Second)))
	for _, free := range []string{"127.0.0.1:80", "[::1]:80", "", "@"} {
		for range 9 {
			require.NoError(t, l.admit(free, costSimulate, at), free)
		}
	}
	require.NoError(t, (*limits)(nil).admit("10.0.0.1:80", 1<<20, at))
	require.NoError(t, newLimits(.5, 0).admit("10.0.0.1:80", costSimulate, at), "one simulation is always possible")
	for i := range 2 * sources { // it does not grow
		require.NoError(t, l.admit(fmt.Sprintf("10.1.%d.%d:80", i>>8, i&255), costRead, at))
	}
	require.Equal(t, sources, l.seen.Len())
}
