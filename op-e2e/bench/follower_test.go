package bench

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	reportPath = flag.String("report", "", "file for TestFollowerReport to write to; without it the test is skipped")
	quick      = flag.Bool("quick", false, "few rounds")
)

// TestFollowerReport measures what building a slot's block costs the leader, and verifying it a
// follower, on two engines in this process:
//
//	go test -run TestFollowerReport ./op-e2e/bench -args -report follower.json
func TestFollowerReport(t *testing.T) {
	if *reportPath == "" {
		t.Skip("needs -args -report FILE")
	}
	var r Report
	for _, w := range engineWorkloads() {
		for _, known := range []bool{true, false} {
			r.Follower = append(r.Follower, measureFollower(t, w, known))
		}
	}
	r.BigSlot = measureBigSlot(t)
	data, err := json.MarshalIndent(map[string]any{"follower": r.Follower, "bigSlot": map[string]any{
		"bytes": r.BigSlot.Bytes, "buildMs": r.BigSlot.Build, "verifyMs": r.BigSlot.Verify, "encodeMs": r.BigSlot.Encode,
	}}, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*reportPath, append(data, '\n'), 0o644))
	t.Logf("%s", data)
}

// engineWorkload is what a block is full of, where engines are measured alone.
type engineWorkload struct {
	name string
	txs  int
	tx   func(c *enginetest.Chain, i int) []byte // the i-th, in the order of nonces of each account
}

const engineAccounts = 500

func engineWorkloads() []engineWorkload {
	return []engineWorkload{
		{"transfers", 2000, func(c *enginetest.Chain, i int) []byte {
			return c.Transfer(i%engineAccounts, uint64(i/engineAccounts), enginetest.Recipient(i))
		}},
		{"storage", 80, func(c *enginetest.Chain, i int) []byte {
			return c.Call(i%engineAccounts, uint64(i/engineAccounts), storageAddr, nil, 21_000+writes*25_000+50_000)
		}},
	}
}

// storageAddr is where chains of these measurements have the writer.
var storageAddr = enginetest.Recipient(1 << 30)

// couple is a leader's engine and a follower's, and one that is given blocks as stock's is.
type couple struct {
	chain                   *enginetest.Chain
	leader, follower, stock *embedded.Node

	block *eth.ExecutionPayloadEnvelope // that was built last
}

func newCouple(t *testing.T) *couple {
	chain := enginetest.NewChain(901, engineAccounts)
	chain.Genesis.Alloc[storageAddr] = types.Account{Nonce: 1, Code: writer()}
	p := &couple{chain: chain}
	for _, n := range []**embedded.Node{&p.leader, &p.follower, &p.stock} {
		var err error
		*n, err = embedded.Start(embedded.Config{Chain: chain.ID, Genesis: chain.Genesis, JWTSecret: jwtSecret, Log: quiet()})
		require.NoError(t, err)
		t.Cleanup(func() { (*n).Close() })
	}
	return p
}

// rounds of a measurement.
func rounds() int {
	if *quick {
		return 3
	}
	return 15
}

func measureFollower(t *testing.T, w engineWorkload, known bool) Follower {
	p := newCouple(t)
	out := Follower{Workload: w.name, Transactions: w.txs, Known: known}
	var raws [][]byte
	for i := range w.txs {
		raws = append(raws, w.tx(p.chain, i))
	}
	pool := func(n *embedded.Node) {
		var txs []*types.Transaction
		for _, raw := range raws {
			txs = append(txs, enginetest.Decode(t, raw))
		}
		for _, err := range n.Backend().TxPool().Add(txs, true) {
			require.NoError(t, err)
		}
	}
	pool(p.leader)
	if known {
		pool(p.follower)
		pool(p.stock)
	}
	for i := range rounds() + 1 {
		var sub *sequence.Subblock
		build, buildCPU := timed(t, func() { sub = p.build(t, w.txs, byte(i)) })
		var verify, verifyCPU, stock, stockCPU float64
		both := []func(){
			func() { verify, verifyCPU = timed(t, func() { p.verify(t, sub, byte(i)) }) },
			func() {
				stock, stockCPU = timed(t, func() { require.NoError(t, p.stock.Engine().Import(t.Context(), p.block)) })
			},
		}
		both[i%2]() // each is the first one in turn
		both[1-i%2]()
		if i == 0 {
			continue // caches are warm behind it
		}
		out.Stock, out.StockCPU = append(out.Stock, stock), append(out.StockCPU, stockCPU)
		out.Build, out.Verify = append(out.Build, build), append(out.Verify, verify)
		out.BuildCPU, out.VerifyCPU = append(out.BuildCPU, buildCPU), append(out.VerifyCPU, verifyCPU)
	}
	out.Ratio, out.RatioCPU = round(out.Verify.Median()/out.Build.Median()), round(out.VerifyCPU.Median()/out.BuildCPU.Median())
	return out
}

// timed is what f takes, in milliseconds of time and of processor time. Garbage of what came
// before is collected first.
func timed(t *testing.T, f func()) (took, cpu float64) {
	runtime.GC()
	before := cpuTime(t)
	start := time.Now()
	f()
	took = float64(time.Since(start).Microseconds()) / 1000
	return sig(took), sig(float64((cpuTime(t) - before).Microseconds()) / 1000)
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// build is the leader's part of a slot on one chain, up to the block being stored. The block is
// always on genesis, so that all rounds do the same.
func (p *couple) build(t *testing.T, txs int, round byte) *sequence.Subblock {
	ctx := t.Context()
	e := p.leader.Engine()
	head, err := e.Head(ctx)
	require.NoError(t, err)
	s, err := e.Open(ctx, head.ID(), p.attributes(head, round))
	require.NoError(t, err)
	res, _, err := s.Fill(ctx, engine.FillOptions{Interop: true})
	require.NoError(t, err)
	require.Len(t, res, txs)
	step := sequence.Step{Chain: p.chain.ID}
	for _, r := range res {
		step.Transactions = append(step.Transactions, r.Raw)
	}
	result, err := s.Result(ctx)
	require.NoError(t, err)
	sub := &sequence.Subblock{Steps: []sequence.Step{step}, Results: []sequence.Result{result}}
	p.block = sealAndStore(t, ctx, e, s)
	return sub
}

// verify is a follower's part.
func (p *couple) verify(t *testing.T, sub *sequence.Subblock, round byte) {
	ctx := t.Context()
	e := p.follower.Engine()
	head, err := e.Head(ctx)
	require.NoError(t, err)
	s, err := e.Open(ctx, head.ID(), p.attributes(head, round))
	require.NoError(t, err)
	res, err := s.Execute(ctx, sub.Steps[0].Transactions, false)
	require.NoError(t, err)
	require.NoError(t, res[len(res)-1].Err)
	result, err := s.Result(ctx)
	require.NoError(t, err)
	require.Equal(t, sub.Results[0], result)
	sealAndStore(t, ctx, e, s)
}

func (p *couple) attributes(head engine.BlockInfo, round byte) *eth.PayloadAttributes {
	a := p.chain.Attributes(head)
	a.PrevRandao[31] = round
	return a
}

func sealAndStore(t *testing.T, ctx context.Context, e engine.Engine, s engine.Session) *eth.ExecutionPayloadEnvelope {
	env, err := s.Seal(ctx)
	require.NoError(t, err)
	require.NoError(t, e.Insert(ctx, env.ExecutionPayload.BlockHash))
	return env
}

// A slot of 10 MB is one of five chains, as a block of one chain with this gas limit takes some 24
// transactions of 100 KB each.
const (
	bigChains = 5
	bigTxs    = 21
	bigData   = 100 << 10
)

// measureBigSlot builds and verifies a slot of 10 MB, one chain after the other.
func measureBigSlot(t *testing.T) *BigSlot {
	out := &BigSlot{}
	var chains []*couple
	random := rand.NewChaCha8([32]byte{1})
	for range bigChains {
		p := newCouple(t)
		chains = append(chains, p)
		var txs []*types.Transaction
		for i := range bigTxs {
			data := make([]byte, bigData)
			random.Read(data)
			txs = append(txs, enginetest.Decode(t, p.chain.Call(i, 0, enginetest.Recipient(0), data, 4_000_000+params.TxGas+100_000)))
		}
		for _, err := range p.leader.Backend().TxPool().Add(txs, true) {
			require.NoError(t, err)
		}
	}
	for i := range rounds() + 1 {
		whole := &sequence.Subblock{}
		build, _ := timed(t, func() {
			for _, p := range chains {
				sub := p.build(t, bigTxs, byte(i))
				whole.Steps, whole.Results = append(whole.Steps, sub.Steps...), append(whole.Results, sub.Results...)
			}
		})
		var enc []byte
		encode, _ := timed(t, func() { enc = whole.Encode() })
		verify, _ := timed(t, func() {
			for j, p := range chains {
				p.verify(t, &sequence.Subblock{Steps: whole.Steps[j : j+1], Results: whole.Results[j : j+1]}, byte(i))
			}
		})
		if i == 0 {
			continue
		}
		out.Bytes = len(enc)
		out.Build, out.Verify, out.Encode = append(out.Build, build), append(out.Verify, verify), append(out.Encode, encode)
	}
	return out
}
