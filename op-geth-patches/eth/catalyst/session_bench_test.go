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
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/stretchr/testify/require"
)

// BenchmarkSessionPath compares what a sequencer does per block of 2000 transfers
// from the pool: with a session fill, seal and insert, with the engine API build,
// getPayload and newPayload. Both are timed in each round, on the same parent and
// pool, in alternating order; stock/session is the factor by which sessions are
// faster.
//
// The sender of a transfer is recovered when it enters the pool. newPayload decodes
// the block and so recovers all of them again, which the session path never does.
func BenchmarkSessionPath(b *testing.B) {
	const perBlock = 2000
	n := startOpNode(b, opNodeOptions{})
	ctx := context.Background()
	var session, stock, fill, sealing, inserting, build, newPayload time.Duration
	lap := func(sum *time.Duration, since time.Time) time.Time {
		now := time.Now()
		*sum += now.Sub(since)
		return now
	}
	round := 0
	for b.Loop() {
		b.StopTimer()
		txs := make([]*types.Transaction, perBlock)
		for i := range txs {
			txs[i] = opTransfer(i%opSenders, uint64(2*round+i/opSenders), opRecipient(round*perBlock+i))
		}
		n.addTxs(txs...)
		attrs := func(fee int64) *engine.PayloadAttributes {
			a := n.attrs(n.head())
			a.SuggestedFeeRecipient = common.BigToAddress(big.NewInt(fee)) // two different blocks
			return a
		}
		var sealed *miner.SealedBlock
		viaSession := func() {
			a := sessionArgs(b, n.head().Hash(), attrs(0xfee1))
			start := time.Now()
			s, _, err := n.eth.Miner().OpenSession(ctx, a)
			require.NoError(b, err)
			res, _, err := s.Fill(ctx, miner.FillOptions{})
			require.NoError(b, err)
			require.Len(b, res, perBlock)
			now := lap(&fill, start)
			sealed, err = s.Seal(ctx)
			require.NoError(b, err)
			now = lap(&sealing, now)
			require.NoError(b, insert(n, sealed))
			lap(&inserting, now)
			session += time.Since(start)
		}
		viaStock := func() {
			a := attrs(0xfee2)
			start := time.Now()
			env := n.build(a)
			require.Len(b, env.ExecutionPayload.Transactions, perBlock+1)
			now := lap(&build, start)
			require.Equal(b, engine.VALID, n.newPayload(env).Status)
			lap(&newPayload, now)
			stock += time.Since(start)
		}
		order := []func(){viaSession, viaStock}
		order[round%2]()
		order[1-round%2]()
		n.setHead(sealed.Block.Hash())
		require.NoError(b, n.eth.TxPool().Sync())
		round++
		b.StartTimer()
	}
	b.ReportMetric(stock.Seconds()/session.Seconds(), "stock/session")
	for _, m := range []struct {
		name string
		d    time.Duration
	}{{"session", session}, {"fill", fill}, {"seal", sealing}, {"insert", inserting}, {"stock", stock}, {"build", build}, {"newPayload", newPayload}} {
		b.ReportMetric(float64(m.d.Microseconds())/1000/float64(round), m.name+"-ms/op")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSessionExecute is a follower's step: transactions that come from
// outside, with and without a recovered sender, one by one and in one list.
func BenchmarkSessionExecute(b *testing.B) {
	const count = 1500
	n := startOpNode(b, opNodeOptions{})
	ctx := context.Background()
	txs := make([]*types.Transaction, count)
	for i := range txs {
		txs[i] = opTokenTx(i%opSenders, uint64(i/opSenders), opRecipient(i), 1)
		_, err := types.Sender(opSigner, txs[i]) // keeps it
		require.NoError(b, err)
	}
	for _, warm := range []bool{true, false} {
		for _, batch := range []int{1, 100, count} {
			b.Run(fmt.Sprintf("warm=%v/batch=%d", warm, batch), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					use := txs
					if !warm {
						use = make([]*types.Transaction, count)
						for i, tx := range txs {
							use[i] = new(types.Transaction)
							require.NoError(b, use[i].UnmarshalBinary(opRaw(b, tx)))
						}
					}
					s := openHead(b, n)
					b.StartTimer()
					for i := 0; i < count; i += batch {
						res, err := s.Execute(ctx, use[i:min(i+batch, count)], false)
						if err != nil || res[len(res)-1].Err != nil {
							b.Fatal(err, res[len(res)-1].Err)
						}
					}
					b.StopTimer()
					s.Discard()
					b.StartTimer()
				}
				b.ReportMetric(float64(count)*float64(b.N)/b.Elapsed().Seconds(), "tx/s")
			})
		}
	}
}
