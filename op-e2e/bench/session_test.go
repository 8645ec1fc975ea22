package bench

// What a session saves against the stock way of building and storing a block, on the
// same node, for the same transactions of its pool:
//
//	session  open, fill, seal, insert
//	stock    forkchoiceUpdated with attributes, the build it starts, getPayload, newPayload
//
// Reported are the median time of each (ms) and stock/session, so that the machine's
// speed cancels out. In the process there is the same of the processor time of all
// blocks too, with garbage collection; nothing is merged into the database yet, as
// there are fewer than the 128 states that op-geth keeps in memory.

import (
	"context"
	"encoding/binary"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	beacon "github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-service/client"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
)

// growth is how many blocks of its kind are below the one that is measured, so that it
// does not write to an empty trie.
const growth = 20

// stock builds and stores a block the stock way, and gives the number of its
// transactions and the time it took.
type stock func(ctx context.Context, head common.Hash, attrs *eth.PayloadAttributes) (int, time.Duration, error)

func BenchmarkSessionAgainstStock(b *testing.B) {
	for _, kind := range engineWorkloads() {
		b.Run("embedded/"+kind.name, func(b *testing.B) {
			r := newRig(b)
			b.ReportMetric(benchBlock(b, r, kind, r.stockDirect), "cpu-stock/session")
		})
	}
	b.Run("rpc/transfers", func(b *testing.B) {
		r := newRig(b)
		overRPC, err := engine.Dial(b.Context(), quiet(), r.chain.Rollup, r.node.AuthEndpoint(), jwtSecret, engine.Options{})
		require.NoError(b, err)
		b.Cleanup(overRPC.Close)
		r.e = overRPC
		c, err := rpc.DialOptions(b.Context(), r.node.AuthEndpoint(), rpc.WithHTTPAuth(node.NewJWTAuth(jwtSecret)))
		require.NoError(b, err)
		b.Cleanup(c.Close)
		api := sources.NewEngineAPIClient(client.NewBaseRPCClient(c), quiet(), r.chain.Rollup)
		kind := engineWorkloads()[0]
		benchBlock(b, r, kind, func(ctx context.Context, head common.Hash, attrs *eth.PayloadAttributes) (int, time.Duration, error) {
			return r.stockRPC(ctx, api, head, attrs, kind.txs)
		})
	})
}

var jwtSecret = [32]byte{1, 2, 3}

// rig is an op-geth in this process, with the pool and the engine that are measured.
type rig struct {
	chain *enginetest.Chain
	node  *embedded.Node
	e     engine.Engine
}

func newRig(b *testing.B) *rig {
	chain := enginetest.NewChain(901, engineAccounts)
	chain.Genesis.Alloc[storageAddr] = types.Account{Nonce: 1, Code: writer()}
	n, err := embedded.Start(embedded.Config{Chain: chain.ID, Genesis: chain.Genesis, JWTSecret: jwtSecret, Log: quiet()})
	require.NoError(b, err)
	b.Cleanup(func() { n.Close() })
	return &rig{chain: chain, node: n, e: n.Engine()}
}

func quiet() log.Logger { return log.NewLogger(log.DiscardHandler()) }

// benchBlock reports times, and gives the processor time of stock's blocks to that of the sessions'.
func benchBlock(b *testing.B, r *rig, kind engineWorkload, stock stock) float64 {
	next := 0
	offer := func() {
		var txs []*types.Transaction
		for range kind.txs {
			txs = append(txs, enginetest.Decode(b, kind.tx(r.chain, next)))
			next++
		}
		for _, err := range r.node.Backend().TxPool().Add(txs, true) {
			require.NoError(b, err)
		}
	}
	for range growth {
		offer()
		r.extend(b, kind.txs)
	}
	offer()
	head, err := r.e.Head(b.Context())
	require.NoError(b, err)
	ctx := context.Background()
	n := uint64(0)
	attrs := func() *eth.PayloadAttributes { // every block another one, with another state: equal ones are stored once
		n++
		a := r.chain.Attributes(head)
		binary.BigEndian.PutUint64(a.PrevRandao[:], n)
		a.SuggestedFeeRecipient = common.BigToAddress(new(big.Int).SetUint64(1<<32 + n))
		return a
	}
	session := func() [4]time.Duration {
		_, parts := r.session(b, head, attrs(), kind.txs)
		return parts
	}
	whole := func() time.Duration {
		txs, took, err := stock(ctx, head.Hash, attrs())
		require.NoError(b, err)
		require.Equal(b, kind.txs+1, txs)
		return took
	}
	session() // both once, to warm caches
	whole()
	var ours, stocks, fill, seal, insert []time.Duration
	var cpu [2]time.Duration // of all blocks: session, stock
	for i := 0; b.Loop(); i++ {
		for turn := range 2 { // each first in turn, as what it leaves to do falls to the other
			start := cpuTime(b)
			which := (i + turn) % 2
			if which == 0 {
				p := session()
				ours = append(ours, p[0]+p[1]+p[2]+p[3])
				fill, seal, insert = append(fill, p[1]), append(seal, p[2]), append(insert, p[3])
			} else {
				stocks = append(stocks, whole())
			}
			cpu[which] += cpuTime(b) - start
		}
	}
	report := func(d []time.Duration, unit string) float64 {
		slices.Sort(d)
		ms := float64(d[len(d)/2]) / float64(time.Millisecond)
		b.ReportMetric(ms, unit)
		return ms
	}
	report(fill, "fill-ms")
	report(seal, "seal-ms")
	report(insert, "insert-ms")
	b.ReportMetric(report(stocks, "stock-ms")/report(ours, "session-ms"), "stock/session")
	b.ReportMetric(0, "ns/op") // of both together: says nothing
	return float64(cpu[1]) / float64(cpu[0])
}

// session builds a block of what the pool has, and stores it: open, fill, seal, insert.
func (r *rig) session(b *testing.B, head engine.BlockInfo, attrs *eth.PayloadAttributes, txs int) (hash common.Hash, parts [4]time.Duration) {
	ctx := b.Context()
	start := time.Now()
	lap := func(i int) { parts[i] = time.Since(start); start = time.Now() }
	s, err := r.e.Open(ctx, head.ID(), attrs)
	require.NoError(b, err)
	lap(0)
	res, _, err := s.Fill(ctx, engine.FillOptions{})
	require.NoError(b, err)
	lap(1)
	require.Len(b, res, txs)
	p, err := s.Seal(ctx)
	require.NoError(b, err)
	lap(2)
	require.NoError(b, r.e.Insert(ctx, p.ExecutionPayload.BlockHash))
	lap(3)
	return p.ExecutionPayload.BlockHash, parts
}

// extend makes a block of what the pool has the head.
func (r *rig) extend(b *testing.B, txs int) {
	head, err := r.e.Head(b.Context())
	require.NoError(b, err)
	hash, _ := r.session(b, head, r.chain.Attributes(head), txs)
	got, err := r.node.Consensus().ForkchoiceUpdatedV3(b.Context(), beacon.ForkchoiceStateV1{HeadBlockHash: hash}, nil)
	require.NoError(b, err)
	require.Equal(b, beacon.VALID, got.PayloadStatus.Status)
}

// build runs the stock builder for the attributes. begun is the time until it is under
// way, which forkchoiceUpdated waits for, full the time for the payload that is fetched.
func (r *rig) build(ctx context.Context, head common.Hash, a *eth.PayloadAttributes) (p *miner.Payload, begun, full time.Duration, err error) {
	gasLimit := uint64(*a.GasLimit)
	args := &miner.BuildPayloadArgs{
		Parent: head, Timestamp: uint64(a.Timestamp), Random: common.Hash(a.PrevRandao), FeeRecipient: a.SuggestedFeeRecipient,
		Withdrawals: *a.Withdrawals, BeaconRoot: a.ParentBeaconBlockRoot, GasLimit: &gasLimit, Version: beacon.PayloadV3,
		EIP1559Params: a.EIP1559Params[:], MinBaseFee: a.MinBaseFee,
	}
	for _, raw := range a.Transactions {
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(raw); err != nil {
			return nil, 0, 0, err
		}
		args.Transactions = append(args.Transactions, tx)
	}
	start := time.Now()
	if p, err = r.node.Backend().Miner().BuildPayload(ctx, args, false); err != nil {
		return nil, 0, 0, err
	}
	begun, start = time.Since(start), time.Now()
	p.WaitFull()
	return p, begun, time.Since(start), nil
}

// stockDirect makes the calls in Go.
func (r *rig) stockDirect(ctx context.Context, head common.Hash, a *eth.PayloadAttributes) (int, time.Duration, error) {
	p, begun, full, err := r.build(ctx, head, a)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	data := p.ResolveFull().ExecutionPayload
	status, err := r.node.Consensus().NewPayloadV4(ctx, *data, []common.Hash{}, a.ParentBeaconBlockRoot, []hexutil.Bytes{})
	took := begun + full + time.Since(start)
	if err != nil {
		return 0, 0, err
	}
	return len(data.Transactions), took, engine.PayloadStatusErr(status.Status, status.ValidationError)
}

// stockRPC makes the calls op-node makes. getPayload cuts short a block that is still
// being built, so the call comes when it is done for certain; what counts is the time
// the same build took just before.
func (r *rig) stockRPC(ctx context.Context, api *sources.EngineAPIClient, head common.Hash, a *eth.PayloadAttributes, txs int) (int, time.Duration, error) {
	before := *a
	before.PrevRandao[31] = 1
	p, _, took, err := r.build(ctx, head, &before)
	if err != nil {
		return 0, 0, err
	}
	p.ResolveFull() // ends it

	built := took
	for attempt := 1; ; attempt++ {
		a.PrevRandao[30] = byte(attempt)
		start := time.Now()
		res, err := api.ForkchoiceUpdate(ctx, &eth.ForkchoiceState{HeadBlockHash: head}, a)
		if err != nil {
			return 0, 0, err
		}
		took = built + time.Since(start)
		time.Sleep(time.Duration(1+4*attempt)*built + 20*time.Millisecond)
		start = time.Now()
		env, err := api.GetPayload(ctx, eth.PayloadInfo{ID: *res.PayloadID, Timestamp: uint64(a.Timestamp)})
		if err != nil {
			return 0, 0, err
		}
		if len(env.ExecutionPayload.Transactions) < txs+1 && attempt < 20 {
			continue // the machine is busy: it was still being built
		}
		status, err := api.NewPayload(ctx, env.ExecutionPayload, env.ParentBeaconBlockRoot)
		took += time.Since(start)
		if err != nil {
			return 0, 0, err
		}
		return len(env.ExecutionPayload.Transactions), took, engine.PayloadStatusErr(string(status.Status), status.ValidationError)
	}
}
