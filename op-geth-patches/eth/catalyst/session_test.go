// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package catalyst

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"
)

// What is tested here:
//
//   equality   a session's block is the stock builder's block for the same
//              transactions, and a node without sessions accepts it
//   histories  ... after any order of savepoints, rollbacks and releases
//   fill       what is taken from the pool, what is not, and when it ends
//   results    receipts, log indices, return data, atomic lists
//   limits     DA footprint, transaction types, gas
//   state      parents that are unknown, old, or go away
//   insertion  InsertSealed
//   threads    concurrent use beside the engine API (run with -race)

func sessionArgs(t testing.TB, parent common.Hash, a *engine.PayloadAttributes) *miner.BuildPayloadArgs {
	t.Helper()
	args := &miner.BuildPayloadArgs{
		Parent: parent, Timestamp: a.Timestamp, FeeRecipient: a.SuggestedFeeRecipient, Random: a.Random, Withdrawals: a.Withdrawals,
		BeaconRoot: a.BeaconRoot, NoTxPool: a.NoTxPool, GasLimit: a.GasLimit, EIP1559Params: a.EIP1559Params, MinBaseFee: a.MinBaseFee,
	}
	for _, raw := range a.Transactions {
		tx := new(types.Transaction)
		require.NoError(t, tx.UnmarshalBinary(raw))
		args.Transactions = append(args.Transactions, tx)
	}
	return args
}

func openSessionOn(t testing.TB, n *opNode, parent *types.Header, a *engine.PayloadAttributes) (*miner.Session, []miner.SessionResult) {
	t.Helper()
	s, forced, err := n.eth.Miner().OpenSession(context.Background(), sessionArgs(t, parent.Hash(), a))
	require.NoError(t, err)
	t.Cleanup(s.Discard)
	return s, forced
}

// openHead opens a session on the head with the usual attributes.
func openHead(t testing.TB, n *opNode) *miner.Session {
	t.Helper()
	s, _ := openSessionOn(t, n, n.head(), n.attrs(n.head()))
	return s
}

// run executes transactions that must all be included.
func run(t testing.TB, s *miner.Session, txs ...*types.Transaction) []miner.SessionResult {
	t.Helper()
	res, err := s.Execute(context.Background(), txs, false)
	require.NoError(t, err)
	require.Len(t, res, len(txs))
	require.NoError(t, res[len(res)-1].Err)
	return res
}

func seal(t testing.TB, s *miner.Session) *miner.SealedBlock {
	t.Helper()
	b, err := s.Seal(context.Background())
	require.NoError(t, err)
	return b
}

func insert(n *opNode, b *miner.SealedBlock) error {
	return n.eth.BlockChain().InsertSealed(b.Block, b.Receipts, b.State)
}

// stockBlock is what the stock builder makes of the same attributes with the given
// transactions behind their deposits.
func stockBlock(t testing.TB, n *opNode, a *engine.PayloadAttributes, txs []*types.Transaction) *engine.ExecutionPayloadEnvelope {
	t.Helper()
	b := *a
	b.NoTxPool = true
	b.Transactions = append([][]byte(nil), a.Transactions...)
	for _, tx := range txs {
		b.Transactions = append(b.Transactions, opRaw(t, tx))
	}
	return n.build(&b)
}

func TestSessionEqualsStock(t *testing.T) {
	t.Parallel()
	a, b := startOpNode(t, opNodeOptions{}), startOpNode(t, opNodeOptions{})
	parent := a.head()
	attrs := a.attrs(parent, opUserDeposit(0, 50_000), opUserDeposit(1, 50_000))
	s, forced := openSessionOn(t, a, parent, attrs)
	require.Len(t, forced, 3)

	var included []*types.Transaction
	var seen []*types.Log
	keep := func(results []miner.SessionResult) {
		for _, r := range results {
			included = append(included, r.Tx)
			seen = append(seen, r.Receipt.Logs...)
		}
	}
	for i := range 100 {
		keep(run(t, s, opTransfer(i, 0, opRecipient(i))))
		keep(run(t, s, opTokenTx(i, 1, opRecipient(5000+i%7), 3)))
	}
	keep(run(t, s, opCall(200, 0, opFail, 50_000, []byte("no")), opCall(201, 0, opBurn, 50_000, nil)))

	// A bundle over all kinds of state, undone and then run again in part, with the
	// same transaction objects.
	bundle := []*types.Transaction{
		opTokenTx(300, 0, opRecipient(5000), 11),                              // slots that have pending values
		opTokenTx(0, 2, opRecipient(5001), 12),                                // a sender that already ran
		opTx(301, types.DynamicFeeTx{Gas: 100_000, Data: []byte{0x33, 0xff}}), // creates and destroys in one transaction
		opTx(302, types.DynamicFeeTx{Gas: 400_000, Data: common.FromHex("60016000556020601060003960206000f3")}),
		opTransfer(303, 0, opRecipient(99_999)),
		opTokenTx(304, 0, opAccounts()[300].addr, 1),
	}
	gasBefore, rootBefore, err := s.Commitment()
	require.NoError(t, err)
	sp, err := s.Savepoint()
	require.NoError(t, err)
	first := run(t, s, bundle...)
	require.Equal(t, uint(len(seen)), first[0].Receipt.Logs[0].Index)
	require.NoError(t, s.Rollback(sp))
	gas, root, err := s.Commitment()
	require.NoError(t, err)
	require.Equal(t, gasBefore, gas)
	require.Equal(t, rootBefore, root)
	again := run(t, s, bundle[:3]...)
	require.Equal(t, first[0].Receipt.Logs[0].Index, again[0].Receipt.Logs[0].Index, "log indices go on where the block is")
	keep(again)

	sealed := seal(t, s)
	stock := stockBlock(t, a, attrs, included)
	require.Equal(t, stock.ExecutionPayload.BlockHash, sealed.Block.Hash())
	require.Equal(t, opJSON(t, stock), opJSON(t, sealed.Envelope))

	b.accept(sealed.Envelope)
	require.NoError(t, insert(a, sealed))
	a.setHead(sealed.Block.Hash())
	ra, rb := a.eth.BlockChain().GetReceiptsByHash(sealed.Block.Hash()), b.eth.BlockChain().GetReceiptsByHash(sealed.Block.Hash())
	require.Equal(t, opJSON(t, rb), opJSON(t, ra))

	// What was handed out has the final places.
	var stored []*types.Log
	for _, r := range rb {
		stored = append(stored, r.Logs...)
	}
	require.Len(t, seen, len(stored))
	for i := range seen {
		require.Zero(t, seen[i].BlockHash)
		want := *stored[i]
		want.BlockHash = common.Hash{}
		require.Equal(t, want, *seen[i])
	}
}

// A session block after a random history of savepoints, rollbacks, releases and
// atomic lists is the stock block of the transactions that survived.
func TestSessionHistories(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	parent := n.head()
	for seed := range 40 {
		r := rand.New(rand.NewSource(int64(seed)))
		attrs := n.attrs(parent)
		attrs.SuggestedFeeRecipient = common.BigToAddress(big.NewInt(int64(seed + 1)))
		s, _ := openSessionOn(t, n, parent, attrs)

		type point struct {
			id     uint64
			txs    int
			nonces [8]uint64
		}
		var (
			points []point
			txs    []*types.Transaction
			nonces [8]uint64
		)
		next := func() *types.Transaction {
			from, to := r.Intn(8), opRecipient(r.Intn(6))
			nonce := nonces[from]
			nonces[from]++
			switch r.Intn(6) {
			case 0:
				return opTokenTx(from, nonce, to, 1+r.Int63n(9))
			case 1:
				return opTokenTx(from, nonce, to, 1e16) // reverts
			case 2:
				return opTx(from, types.DynamicFeeTx{Nonce: nonce, Gas: 100_000, Data: []byte{0x33, 0xff}})
			case 3:
				return opTx(from, types.DynamicFeeTx{Nonce: nonce, Gas: 200_000, Data: common.FromHex("600160005560016000f3")})
			case 4:
				return opCall(from, nonce, opBurn, 30_000, nil)
			default:
				return opTransfer(from, nonce, to)
			}
		}
		for range 40 {
			switch r.Intn(8) {
			case 0, 1:
				id, err := s.Savepoint()
				require.NoError(t, err)
				points = append(points, point{id, len(txs), nonces})
			case 2:
				if len(points) > 0 {
					k := r.Intn(len(points))
					require.NoError(t, s.Rollback(points[k].id))
					require.ErrorIs(t, s.Rollback(points[k].id), miner.ErrUnknownSavepoint)
					txs, nonces, points = txs[:points[k].txs], points[k].nonces, points[:k]
				}
			case 3:
				if len(points) > 0 {
					k := r.Intn(len(points))
					require.NoError(t, s.Release(points[k].id))
					points = points[:k]
				}
			case 4: // a list with something that cannot be included, or fails, somewhere
				before := nonces
				list := []*types.Transaction{next(), opTransfer(9, 5, opRecipient(1)), next()}
				if r.Intn(2) == 0 {
					list[1] = opCall(9, 0, opFail, 40_000, nil)
				}
				res, err := s.Execute(context.Background(), list, true)
				require.NoError(t, err)
				require.Error(t, res[len(res)-1].Err)
				nonces = before
			case 5: // cannot be included: no trace
				res, err := s.Execute(context.Background(), []*types.Transaction{opTransfer(9, 9, opRecipient(1))}, false)
				require.NoError(t, err)
				require.ErrorIs(t, res[0].Err, core.ErrNonceTooHigh)
				require.Nil(t, res[0].Receipt)
			default:
				tx := next()
				run(t, s, tx)
				txs = append(txs, tx)
			}
		}
		status, err := s.Status()
		require.NoError(t, err)
		require.Equal(t, 1+len(txs), status.TxCount)
		gas, receipts, err := s.Commitment()
		require.NoError(t, err)
		require.Equal(t, status.GasUsed, gas)
		for i := range nonces {
			nonce, _, err := s.Account(opAccounts()[i].addr)
			require.NoError(t, err)
			require.Equal(t, nonces[i], nonce)
		}
		sealed := seal(t, s)
		require.Equal(t, gas, sealed.Block.GasUsed(), "seed %d", seed)
		require.Equal(t, receipts, sealed.Block.ReceiptHash(), "seed %d", seed)
		stock := stockBlock(t, n, attrs, txs)
		require.Equal(t, stock.ExecutionPayload.BlockHash, sealed.Block.Hash(), "seed %d", seed)
		if seed%8 == 0 {
			require.NoError(t, insert(n, sealed))
			require.True(t, n.eth.BlockChain().HasBlockAndState(sealed.Block.Hash(), 1))
		}
	}
}

func TestSessionFill(t *testing.T) {
	t.Parallel()
	interop := func(from int) *types.Transaction {
		to := opRecipient(1)
		return opTx(from, types.DynamicFeeTx{To: &to, Gas: 60_000, AccessList: types.AccessList{{Address: params.InteropCrossL2InboxAddress}}})
	}
	fill := func(t *testing.T, s *miner.Session, o miner.FillOptions) []*types.Transaction {
		t.Helper()
		res, _, err := s.Fill(context.Background(), o)
		require.NoError(t, err)
		var txs []*types.Transaction
		for _, r := range res {
			require.NoError(t, r.Err)
			require.Equal(t, r.Tx.Hash(), r.Receipt.TxHash)
			txs = append(txs, r.Tx)
		}
		return txs
	}
	start := func(t *testing.T, o opNodeOptions) *opNode {
		n := startOpNode(t, o)
		for i := range 50 {
			n.addTxs(opTokenTx(i, 0, opRecipient(i), 3), opTokenTx(i, 1, opRecipient(i), 3))
		}
		return n
	}

	t.Run("equals stock", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		n.eth.Miner().SetPrioAddresses([]common.Address{opAccounts()[7].addr})
		attrs := n.attrs(n.head(), opUserDeposit(0, 50_000))
		s, _ := openSessionOn(t, n, n.head(), attrs)
		txs := fill(t, s, miner.FillOptions{})
		require.Len(t, txs, 100)
		require.Equal(t, opTokenTx(7, 0, opRecipient(7), 3).Hash(), txs[0].Hash(), "priority account first")
		sealed := seal(t, s)
		require.Equal(t, opJSON(t, n.build(attrs)), opJSON(t, sealed.Envelope))
	})
	t.Run("first come, first served", func(t *testing.T) {
		t.Parallel()
		n := startOpNode(t, opNodeOptions{})
		n.eth.Miner().SetPrioAddresses([]common.Address{opAccounts()[7].addr})
		rng := rand.New(rand.NewSource(1))
		began := time.Unix(1_700_000_000, 0)
		left := map[int][]*types.Transaction{}
		for from := range 40 {
			for nonce := range uint64(1 + rng.Intn(3)) {
				to := opRecipient(from)
				tx := opTx(from, types.DynamicFeeTx{Nonce: nonce, To: &to, Gas: 21_000, GasTipCap: big.NewInt(int64(100 + rng.Intn(1000)))})
				tx.SetTime(began.Add(time.Duration(rng.Intn(30)))) // many at the same time
				n.addTxs(tx)
				left[from] = append(left[from], tx)
			}
		}
		var want []common.Hash
		for len(left) > 0 {
			first := -1
			for from, list := range left {
				if first < 0 {
					first = from
				}
				a, b := list[0], left[first][0]
				if c := a.Time().Compare(b.Time()); c < 0 || c == 0 && a.Hash().Cmp(b.Hash()) < 0 {
					first = from
				}
			}
			want = append(want, left[first][0].Hash())
			if left[first] = left[first][1:]; len(left[first]) == 0 {
				delete(left, first)
			}
		}
		var got []common.Hash
		for _, tx := range fill(t, openHead(t, n), miner.FillOptions{Order: miner.FCFS}) {
			got = append(got, tx.Hash())
		}
		require.Equal(t, want, got)
		// The pool's own are as they were: the next fill may be by price.
		attrs := n.attrs(n.head())
		s, _ := openSessionOn(t, n, n.head(), attrs)
		byPrice := fill(t, s, miner.FillOptions{})
		require.Len(t, byPrice, len(want))
		from, err := types.Sender(opSigner, byPrice[0])
		require.NoError(t, err)
		require.Equal(t, opAccounts()[7].addr, from, "priority account first")
		require.Equal(t, opJSON(t, n.build(attrs)), opJSON(t, seal(t, s).Envelope))
	})
	t.Run("interop transactions stay out", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		n.addTxs(interop(60), opTransfer(60, 1, opRecipient(1)))
		for _, tx := range fill(t, openHead(t, n), miner.FillOptions{}) {
			from, _ := types.Sender(opSigner, tx)
			require.NotEqual(t, opAccounts()[60].addr, from)
		}
	})
	t.Run("interop transactions for whoever checks them", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		tx := interop(60)
		n.addTxs(tx, opTransfer(60, 1, opRecipient(1)))
		s := openHead(t, n)
		before, root, err := s.Commitment()
		require.NoError(t, err)
		res, savepoint, err := s.Fill(context.Background(), miner.FillOptions{Interop: true})
		require.NoError(t, err)
		require.Len(t, res, 102)
		require.NotNil(t, savepoint, "they may have to be taken back")
		require.NoError(t, s.Rollback(*savepoint))
		gas, undone, err := s.Commitment()
		require.NoError(t, err)
		require.Equal(t, []any{before, root}, []any{gas, undone})

		res, savepoint, err = s.Fill(context.Background(), miner.FillOptions{Interop: true, Skip: miner.AnyOf([]common.Hash{tx.Hash()})})
		require.NoError(t, err)
		require.Len(t, res, 100)
		require.Nil(t, savepoint, "none of them executes messages")
		require.ErrorIs(t, s.Rollback(1), miner.ErrUnknownSavepoint, "nothing is kept for nobody")

		s = openHead(t, n)
		res, savepoint, err = s.Fill(context.Background(), miner.FillOptions{Interop: true, MaxGas: params.TxGas - 1})
		require.NoError(t, err)
		require.Empty(t, res)
		require.Nil(t, savepoint, "it was offered and had no room")
		require.ErrorIs(t, s.Rollback(0), miner.ErrUnknownSavepoint)
	})
	t.Run("reject", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		bad := opTokenTx(3, 0, opRecipient(3), 3).Hash()
		txs := fill(t, openHead(t, n), miner.FillOptions{Reject: miner.AnyOf([]common.Hash{bad})})
		require.Len(t, txs, 98, "the transaction and the later one of its sender")
		require.NotNil(t, n.eth.TxPool().Get(bad))
		next := n.attrs(n.head()) // the pool looks at its transactions when there is a new head
		next.NoTxPool = true
		n.accept(n.build(next))
		require.Eventually(t, func() bool { return n.eth.TxPool().Get(bad) == nil }, 10*time.Second, time.Millisecond)
	})
	t.Run("skip", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		skip := opTokenTx(3, 0, opRecipient(3), 3).Hash()
		txs := fill(t, openHead(t, n), miner.FillOptions{Skip: func(tx *types.Transaction) bool { return tx.Hash() == skip }})
		require.Len(t, txs, 98, "the transaction and the later one of its sender")
	})
	t.Run("gas", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		s := openHead(t, n)
		before, err := s.Status()
		require.NoError(t, err)
		txs := fill(t, s, miner.FillOptions{MaxGas: 1_000_000})
		after, err := s.Status()
		require.NoError(t, err)
		used := after.GasUsed - before.GasUsed
		require.LessOrEqual(t, used, uint64(1_000_000))
		require.Greater(t, used, uint64(1_000_000-2*80_000))
		// The rest is still there, for Execute and for the next fill.
		run(t, s, opTransfer(70, 0, opRecipient(70)))
		require.Len(t, fill(t, s, miner.FillOptions{}), 100-len(txs))
	})
	t.Run("effective gas ceiling", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{eth: func(c *ethconfig.Config) { c.Miner.EffectiveGasCeil = 2_000_000 }})
		s := openHead(t, n)
		fill(t, s, miner.FillOptions{})
		status, err := s.Status()
		require.NoError(t, err)
		require.LessOrEqual(t, status.GasUsed, uint64(2_000_000))
		require.Empty(t, fill(t, s, miner.FillOptions{}))
		run(t, s, opTransfer(70, 0, opRecipient(70)), opTokenTx(71, 0, opRecipient(1), 1), opCall(72, 0, opBurn, 2_000_000, nil))
	})
	t.Run("DA throttle counts the whole block", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		size := opTokenTx(0, 0, opRecipient(0), 3).RollupCostData().EstimatedDASize()
		n.eth.Miner().SetMaxDASize(nil, new(big.Int).Mul(size, big.NewInt(10)))
		s := openHead(t, n)
		got := len(fill(t, s, miner.FillOptions{MaxGas: 300_000}))
		got += len(fill(t, s, miner.FillOptions{}))
		require.InDelta(t, 10, got, 2)
		require.Empty(t, fill(t, s, miner.FillOptions{}))
	})
	t.Run("no pool", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		attrs := n.attrs(n.head())
		attrs.NoTxPool = true
		s, _ := openSessionOn(t, n, n.head(), attrs)
		require.Empty(t, fill(t, s, miner.FillOptions{}))
	})
	t.Run("interrupt before", func(t *testing.T) {
		t.Parallel()
		s := openHead(t, start(t, opNodeOptions{}))
		s.Interrupt()
		require.Empty(t, fill(t, s, miner.FillOptions{}))
		require.Len(t, fill(t, s, miner.FillOptions{}), 100, "only the next fill is interrupted")
	})
	t.Run("interrupt and end of context while it runs", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		s := openHead(t, n)
		// The interrupt comes from inside the fill, where the candidates are chosen.
		once := sync.OnceFunc(s.Interrupt)
		require.Empty(t, fill(t, s, miner.FillOptions{Skip: func(*types.Transaction) bool { once(); return false }}))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		res, _, err := s.Fill(ctx, miner.FillOptions{Skip: func(*types.Transaction) bool {
			time.Sleep(time.Millisecond) // let the context's function run: it has no signal of its own
			return false
		}})
		require.NoError(t, err)
		require.Less(t, len(res), 100)
	})
	t.Run("after a reorg", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		parent := n.head()
		s := openHead(t, n)
		require.Len(t, fill(t, s, miner.FillOptions{}), 100)
		one := seal(t, s)
		s = openHead(t, n)
		other := seal(t, s)
		for _, b := range []*miner.SealedBlock{one, other} {
			require.NoError(t, insert(n, b))
			n.setHead(b.Block.Hash())
		}
		require.Equal(t, parent.Hash(), n.head().ParentHash)
		require.Len(t, fill(t, openHead(t, n), miner.FillOptions{}), 100, "what the reorg has set free is back")
	})
	t.Run("waits for the pool", func(t *testing.T) {
		t.Parallel()
		n := start(t, opNodeOptions{})
		// Sealed and inserted, but not yet the head: the pool still offers what is in it.
		s := openHead(t, n)
		require.Len(t, fill(t, s, miner.FillOptions{}), 100)
		sealed := seal(t, s)
		require.NoError(t, insert(n, sealed))
		n.addTxs(opTransfer(80, 0, opRecipient(80)))
		next, _ := openSessionOn(t, n, sealed.Block.Header(), n.attrs(sealed.Block.Header()))
		_, _, err := next.Fill(context.Background(), miner.FillOptions{MaxTime: 5 * time.Millisecond})
		require.ErrorIs(t, err, miner.ErrPoolBehind)

		done := make(chan []miner.SessionResult, 1)
		go func() {
			res, _, err := next.Fill(context.Background(), miner.FillOptions{MaxTime: time.Minute})
			if err != nil {
				t.Error(err)
			}
			done <- res
		}()
		n.setHead(sealed.Block.Hash())
		res := <-done
		require.Len(t, res, 1, "only what the parent does not have")
	})
}

// Blocks of the forks since Holocene, and the blocks that activate them: what a
// header must have differs.
func TestSessionForks(t *testing.T) {
	t.Parallel()
	// One block each: Holocene, Isthmus's activation and next, Jovian's, Karst's, Lagoon's.
	at := func(block uint64) *uint64 { t := opGenesis + 2*block; return &t }
	config := *opConfig
	config.IsthmusTime, config.PragueTime = at(2), at(2)
	config.JovianTime, config.KarstTime, config.LagoonTime = at(4), at(6), at(8)
	n := startOpNode(t, opNodeOptions{config: &config})
	var nonce uint64
	for range 9 {
		parent := n.head()
		attrs := n.attrs(parent)
		if !config.IsJovian(attrs.Timestamp) {
			attrs.MinBaseFee = nil
		}
		var user []*types.Transaction
		if !config.IsJovian(parent.Time) { // Jovian's attributes come one block after it
			attrs.Transactions[0] = opRaw(t, opIsthmusDeposit())
		}
		if config.IsJovian(parent.Time) == config.IsJovian(attrs.Timestamp) { // else no user transactions
			user = []*types.Transaction{opTokenTx(0, nonce, opRecipient(1), 1), opCall(0, nonce+1, opFail, 50_000, nil)}
			nonce += 2
		}
		s, _ := openSessionOn(t, n, parent, attrs)
		if len(user) > 0 {
			run(t, s, user...)
		}
		sealed := seal(t, s)
		require.Equal(t, opJSON(t, stockBlock(t, n, attrs, user)), opJSON(t, sealed.Envelope), "block %d", sealed.Block.NumberU64())
		require.Equal(t, config.IsIsthmus(attrs.Timestamp), sealed.Block.RequestsHash() != nil)
		require.NoError(t, insert(n, sealed))
		n.setHead(sealed.Block.Hash())
	}
	// A node that only executes takes them all.
	verifier := startOpNode(t, opNodeOptions{config: &config})
	chain := n.eth.BlockChain()
	for number := uint64(1); number <= n.head().Number.Uint64(); number++ {
		_, err := verifier.eth.BlockChain().InsertChain(types.Blocks{chain.GetBlockByNumber(number)})
		require.NoError(t, err, "block %d", number)
	}
	require.Equal(t, n.head().Hash(), verifier.head().Hash())
}

func TestSessionReturnData(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	s := openHead(t, n)
	// Error("no"), as Solidity encodes it.
	reason := append(common.FromHex("08c379a0"), append(common.LeftPadBytes([]byte{0x20}, 32),
		append(common.LeftPadBytes([]byte{2}, 32), common.RightPadBytes([]byte("no"), 32)...)...)...)
	res := run(t, s,
		opCall(0, 0, opFail, 60_000, reason),
		opCall(1, 0, opEcho, 60_000, []byte("hello")),
		opCall(2, 0, opBurn, 60_000, nil),
		opTransfer(3, 0, opRecipient(1)),
	)
	require.Equal(t, types.ReceiptStatusFailed, res[0].Receipt.Status)
	require.Equal(t, reason, res[0].ReturnData)
	require.Equal(t, types.ReceiptStatusSuccessful, res[1].Receipt.Status)
	require.Equal(t, []byte("hello"), res[1].ReturnData)
	require.Equal(t, types.ReceiptStatusFailed, res[2].Receipt.Status)
	require.Empty(t, res[2].ReturnData)
	require.Equal(t, uint64(60_000), res[2].Receipt.GasUsed)
	require.Empty(t, res[3].ReturnData)
}

func TestSessionAtomic(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	s := openHead(t, n)
	before, err := s.Status()
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		last *types.Transaction
		err  error
	}{
		"reverts":            {opCall(1, 0, opFail, 60_000, []byte("why")), miner.ErrTxFailed},
		"out of gas":         {opCall(1, 0, opBurn, 60_000, nil), miner.ErrTxFailed},
		"cannot be included": {opTransfer(1, 7, opRecipient(1)), core.ErrNonceTooHigh},
	} {
		res, err := s.Execute(context.Background(), []*types.Transaction{opTokenTx(0, 0, opRecipient(1), 1), tc.last, opTransfer(2, 0, opRecipient(1))}, true)
		require.NoError(t, err, name)
		require.Len(t, res, 2, name)
		require.NoError(t, res[0].Err, name)
		require.ErrorIs(t, res[1].Err, tc.err, name)
		if name == "reverts" {
			require.Equal(t, []byte("why"), res[1].ReturnData)
		}
		after, err := s.Status()
		require.NoError(t, err)
		require.Equal(t, before, after, name)
	}
	res, err := s.Execute(context.Background(), []*types.Transaction{opTokenTx(0, 0, opRecipient(1), 1), opTransfer(2, 0, opRecipient(1))}, true)
	require.NoError(t, err)
	require.NoError(t, res[1].Err)
	require.Len(t, seal(t, s).Block.Transactions(), 3)
}

func TestSessionTxTypes(t *testing.T) {
	t.Parallel()
	s := openHead(t, startOpNode(t, opNodeOptions{}))
	blob := types.NewTx(&types.BlobTx{BlobHashes: []common.Hash{{1}}})
	for _, tx := range []*types.Transaction{blob, opUserDeposit(1, 50_000)} {
		res, err := s.Execute(context.Background(), []*types.Transaction{tx}, false)
		require.NoError(t, err)
		require.ErrorIs(t, res[0].Err, miner.ErrTxType)
	}
}

// The DA footprint of every transaction that is not a deposit counts, also of those
// in the attributes, and ends the block at the gas limit.
func TestSessionDAFootprint(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	n.addTxs(opTransfer(3, 0, opRecipient(3)))
	attrs := n.attrs(n.head())
	attrs.Transactions[0] = opRaw(t, opDeposit(0, 60_000)) // 100 bytes or more each: 6,000,000 gas or more
	attrs.Transactions = append(attrs.Transactions, opRaw(t, opTransfer(0, 0, opRecipient(0))))
	s, _ := openSessionOn(t, n, n.head(), attrs)
	run(t, s, opTransfer(1, 0, opRecipient(1)))
	res, _, err := s.Fill(context.Background(), miner.FillOptions{})
	require.NoError(t, err)
	require.Len(t, res, 1)
	included := 3
	for ; ; included++ {
		res, err := s.Execute(context.Background(), []*types.Transaction{opTransfer(included+10, 0, opRecipient(1))}, false)
		require.NoError(t, err)
		if res[0].Err != nil {
			require.ErrorIs(t, res[0].Err, miner.ErrDAFootprint)
			break
		}
	}
	require.Greater(t, included, 10)
	require.Less(t, included, 18)
	sealed := seal(t, s)
	footprint, err := types.CalcDAFootprint(sealed.Block.Transactions())
	require.NoError(t, err)
	require.Equal(t, footprint, *sealed.Block.BlobGasUsed())
	require.LessOrEqual(t, footprint, sealed.Block.GasLimit())
	startOpNode(t, opNodeOptions{}).accept(sealed.Envelope)

	// The same over a savepoint: what is rolled back does not count.
	s, _ = openSessionOn(t, n, n.head(), attrs)
	for i := range 40 {
		sp, err := s.Savepoint()
		require.NoError(t, err)
		run(t, s, opTransfer(100+i, 0, opRecipient(1)))
		require.NoError(t, s.Rollback(sp))
	}
	seal(t, s)
}

func TestSessionForcedTx(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	bad := opTransfer(1, 5, opRecipient(1))
	attrs := n.attrs(n.head(), opUserDeposit(1, 50_000), bad)
	_, _, err := n.eth.Miner().OpenSession(context.Background(), sessionArgs(t, n.head().Hash(), attrs))
	var forced *miner.ForcedTxError
	require.ErrorAs(t, err, &forced)
	require.Equal(t, 2, forced.Index)
	require.Equal(t, bad.Hash(), forced.Hash)
	require.ErrorIs(t, err, core.ErrNonceTooHigh)
	require.ErrorContains(t, err, "forced transaction 2 ("+bad.Hash().String()+")")

	attrs = n.attrs(n.head())
	attrs.Timestamp = n.head().Time
	_, _, err = n.eth.Miner().OpenSession(context.Background(), sessionArgs(t, n.head().Hash(), attrs))
	require.ErrorIs(t, err, miner.ErrSessionAttributes)
}

func TestSessionClosed(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	for _, end := range []func(*miner.Session){(*miner.Session).Discard, func(s *miner.Session) { seal(t, s) }} {
		s := openHead(t, n)
		sp, err := s.Savepoint()
		require.NoError(t, err)
		end(s)
		s.Discard()
		s.Discard()
		ctx := context.Background()
		_, err1 := s.Execute(ctx, nil, false)
		_, _, err2 := s.Fill(ctx, miner.FillOptions{})
		_, err3 := s.Savepoint()
		_, err4 := s.Seal(ctx)
		_, err5 := s.Status()
		_, _, err6 := s.Commitment()
		_, _, err7 := s.Account(common.Address{})
		for i, err := range []error{err1, err2, err3, err4, err5, err6, err7, s.Rollback(sp), s.Release(sp)} {
			require.ErrorIs(t, err, miner.ErrSessionClosed, "call %d", i)
		}
	}
}

func TestSessionContext(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	s := openHead(t, n)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, atomic := range []bool{false, true} {
		_, err := s.Execute(ctx, []*types.Transaction{opTransfer(1, 0, opRecipient(1))}, atomic)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Len(t, seal(t, s).Block.Transactions(), 1)
}

// grow makes blocks on the head, through sessions and newPayload in turn.
func grow(t testing.TB, n *opNode, from int, nonce *uint64) {
	t.Helper()
	s := openHead(t, n)
	run(t, s, opTransfer(from, *nonce, opRecipient(int(*nonce))), opTokenTx(from, *nonce+1, opRecipient(3), 1))
	*nonce += 2
	sealed := seal(t, s)
	if *nonce%4 == 0 {
		require.NoError(t, insert(n, sealed))
	}
	n.accept(sealed.Envelope)
}

// Parents go away: pathdb keeps the states of 128 blocks.
func TestSessionStaleParent(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	ctx := context.Background()
	_, _, err := n.eth.Miner().OpenSession(ctx, sessionArgs(t, common.Hash{1}, n.attrs(n.head())))
	require.ErrorIs(t, err, miner.ErrUnknownParent)

	var nonce uint64
	for range 3 {
		grow(t, n, 0, &nonce)
	}
	parent := n.head()
	attrs := n.attrs(parent)
	open := func() *miner.Session {
		s, _ := openSessionOn(t, n, parent, attrs)
		return s
	}
	// Nothing of the state is read before it is gone, everything is, and sealed.
	fresh, full, atomic, sealedSession := open(), open(), open(), open()
	run(t, full, opTokenTx(1, 0, opRecipient(1), 1))
	run(t, sealedSession, opTokenTx(1, 0, opRecipient(1), 1))
	sealed := seal(t, sealedSession)
	for range 135 {
		grow(t, n, 0, &nonce)
	}
	require.False(t, n.eth.BlockChain().HasState(parent.Root))

	_, _, err = n.eth.Miner().OpenSession(ctx, sessionArgs(t, parent.Hash(), attrs))
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable)
	_, err = fresh.Execute(ctx, []*types.Transaction{opTransfer(5, 0, opRecipient(5))}, false)
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable)
	_, err = fresh.Status()
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable, "it stays broken")
	_, err = fresh.Seal(ctx)
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable)
	_, err = atomic.Execute(ctx, []*types.Transaction{opTransfer(6, 0, opRecipient(6))}, true)
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable)
	_, _, err = full.Account(opAccounts()[500].addr)
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable)
	_, err = full.Seal(ctx)
	require.ErrorIs(t, err, miner.ErrParentStateUnavailable)
	require.ErrorIs(t, insert(n, sealed), consensus.ErrPrunedAncestor)
	require.False(t, n.eth.BlockChain().HasBlock(sealed.Block.Hash(), sealed.Block.NumberU64()))
}

func TestInsertSealed(t *testing.T) {
	t.Parallel()
	a, b := startOpNode(t, opNodeOptions{}), startOpNode(t, opNodeOptions{})
	genesis := a.head()
	s := openHead(t, a)
	run(t, s, opTokenTx(0, 0, opRecipient(0), 1), opTransfer(1, 0, opRecipient(1)))
	one := seal(t, s)

	require.ErrorIs(t, insert(b, one), core.ErrForeignState)
	require.NoError(t, insert(a, one))
	require.Equal(t, genesis.Hash(), a.head().Hash(), "the head does not move")
	require.NoError(t, insert(a, one), "again")

	// Built, sealed and inserted on a block that is not the head.
	s, _ = openSessionOn(t, a, one.Block.Header(), a.attrs(one.Block.Header()))
	run(t, s, opTokenTx(0, 1, opRecipient(0), 1))
	two := seal(t, s)
	require.NoError(t, insert(a, two))

	status := a.newPayload(two.Envelope)
	require.Equal(t, engine.VALID, status.Status)
	a.setHead(two.Block.Hash())
	require.Equal(t, two.Block.Root(), a.head().Root)
	state, err := a.eth.BlockChain().StateAt(a.head().Root)
	require.NoError(t, err)
	require.Equal(t, uint64(2), state.GetNonce(opAccounts()[0].addr))

	b.accept(one.Envelope)
	b.accept(two.Envelope)
	require.Equal(t, a.head().Hash(), b.head().Hash())

	// Receipts and state must be the block's.
	s = openHead(t, a)
	run(t, s, opTransfer(2, 0, opRecipient(1)))
	three := seal(t, s)
	require.ErrorContains(t, a.eth.BlockChain().InsertSealed(three.Block, three.Receipts[1:], three.State), "receipts")
	s = openHead(t, a)
	run(t, s, opTransfer(3, 0, opRecipient(1)))
	other := seal(t, s)
	require.ErrorContains(t, a.eth.BlockChain().InsertSealed(three.Block, three.Receipts, other.State), "state root")
	require.NoError(t, insert(a, three))

	// A parent that the chain does not have.
	s, _ = openSessionOn(t, a, three.Block.Header(), a.attrs(three.Block.Header()))
	four := seal(t, s)
	header := four.Block.Header()
	header.ParentHash = common.Hash{1}
	orphan := types.NewBlockWithHeader(header).WithBody(*four.Block.Body())
	require.ErrorIs(t, a.eth.BlockChain().InsertSealed(orphan, four.Receipts, four.State), consensus.ErrUnknownAncestor)
}

// Sessions are used from several goroutines while blocks come in.
func TestSessionConcurrent(t *testing.T) {
	t.Parallel()
	a, b := startOpNode(t, opNodeOptions{}), startOpNode(t, opNodeOptions{})
	for i := range 20 {
		a.addTxs(opTransfer(700+i, 0, opRecipient(i)))
	}
	parent := a.head()
	attrs := a.attrs(parent)
	args := sessionArgs(t, parent.Hash(), attrs)
	ctx := context.Background()

	stop := make(chan struct{})
	var chain, workers sync.WaitGroup
	chain.Add(1)
	go func() {
		defer chain.Done()
		var nonce uint64
		for range 60 { // parent's state must stay
			select {
			case <-stop:
				return
			default:
				grow(t, a, 1, &nonce)
			}
		}
	}()

	work := func(w int) (*miner.SealedBlock, error) {
		s, _, err := a.eth.Miner().OpenSession(ctx, args)
		if err != nil {
			return nil, err
		}
		defer s.Discard()
		var inner sync.WaitGroup
		errs := make(chan error, 4)
		for k := range 4 { // on the same session
			inner.Add(1)
			go func() {
				defer inner.Done()
				errs <- func() error {
					for i := range 15 {
						tx := opTokenTx(100+w*100+k*20+i, 0, opRecipient(7000+i), 3)
						if res, err := s.Execute(ctx, []*types.Transaction{tx}, i%2 == 0); err != nil || res[0].Err != nil {
							return errors.Join(err, res[0].Err)
						}
						if _, err := s.Status(); err != nil {
							return err
						}
						if _, _, err := s.Commitment(); err != nil {
							return err
						}
						s.Interrupt()
						if _, _, err := s.Fill(ctx, miner.FillOptions{MaxTime: time.Millisecond}); err != nil && !errors.Is(err, miner.ErrPoolBehind) {
							return err
						}
					}
					return nil
				}()
			}()
		}
		inner.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				return nil, err
			}
		}
		return s.Seal(ctx)
	}
	blocks := make([]*miner.SealedBlock, 3)
	for w := range blocks {
		workers.Add(1)
		go func() {
			defer workers.Done()
			block, err := work(w)
			if err == nil {
				err = insert(a, block)
			}
			if err != nil {
				t.Error(fmt.Errorf("worker %d: %w", w, err))
			}
			blocks[w] = block
		}()
	}
	workers.Wait()
	close(stop)
	chain.Wait()
	for _, block := range blocks {
		require.NotNil(t, block)
		require.Equal(t, engine.VALID, b.newPayload(block.Envelope).Status)
	}
}

// failsafeOn answers as an executor in failsafe does.
type failsafeOn struct{}

func (failsafeOn) GetFailsafeEnabled() bool { return true }

// The failsafe is about what the pool offers. A block that others have agreed on, or that
// derivation makes, is what it is.
func TestSessionInFailsafe(t *testing.T) {
	server := rpc.NewServer()
	defer server.Stop()
	require.NoError(t, server.RegisterName("admin", failsafeOn{}))
	web := httptest.NewServer(server)
	defer web.Close()
	n := startOpNode(t, opNodeOptions{eth: func(c *ethconfig.Config) { c.InteropMessageRPC = web.URL }})
	on, err := n.eth.QueryFailsafe(context.Background())
	require.NoError(t, err)
	require.True(t, on)
	to := opRecipient(1)
	tx := opTx(3, types.DynamicFeeTx{To: &to, Gas: 60_000, AccessList: types.AccessList{{Address: params.InteropCrossL2InboxAddress, StorageKeys: []common.Hash{{1}}}}})
	run(t, openHead(t, n), tx)

	derived := n.attrs(n.head(), tx)
	derived.NoTxPool = true
	require.Len(t, n.build(derived).ExecutionPayload.Transactions, len(derived.Transactions))
}
