package bench

import (
	"runtime"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// What is counted here does not depend on how fast the machine is. A change that makes a figure
// grow has to raise its limit, and say why; one that makes it fall should lower it.

// guardTxs is enough that what a block costs by itself does not count.
const guardTxs = 1000

// Limits, some 10 % above what was counted when they were set.
const (
	maxBuildAllocs  = 275 // allocations of the leader for a transfer: fill, result, seal, insert
	maxVerifyAllocs = 300 // of a follower: decode, execute, result, seal, insert
	maxKnownAllocs  = 280 // of one whose pool has them
)

func TestAllocationsPerTransaction(t *testing.T) {
	p := newCouple(t)
	var txs []*types.Transaction
	for i := range guardTxs {
		txs = append(txs, enginetest.Decode(t, p.chain.Transfer(i%engineAccounts, uint64(i/engineAccounts), enginetest.Recipient(i))))
	}
	for _, err := range p.leader.Backend().TxPool().Add(txs, true) {
		require.NoError(t, err)
	}
	var sub *sequence.Subblock
	least := func(f func(round byte)) float64 {
		best := uint64(0)
		for i := range byte(5) { // what else runs in this process allocates too: the least is the nearest
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f(i)
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; i > 0 && (best == 0 || n < best) {
				best = n
			}
		}
		return float64(best) / guardTxs
	}
	var rounds []*sequence.Subblock
	build := least(func(i byte) { sub = p.build(t, guardTxs, i); rounds = append(rounds, sub) })
	verify := least(func(i byte) { p.verify(t, rounds[i], i) })
	for i, tx := range txs {
		txs[i] = enginetest.Decode(t, encoded(t, tx)) // a copy of its own: what is cached is cached in it
	}
	for _, err := range p.follower.Backend().TxPool().Add(txs, true) {
		require.NoError(t, err)
	}
	known := least(func(i byte) { p.verify(t, rounds[i], 100+i) })
	t.Logf("allocations for a transfer: %.1f built, %.1f verified, %.1f if the pool has it", build, verify, known)
	require.LessOrEqual(t, known, float64(maxKnownAllocs))
	require.LessOrEqual(t, build, float64(maxBuildAllocs))
	require.LessOrEqual(t, verify, float64(maxVerifyAllocs))
}

func encoded(t *testing.T, tx *types.Transaction) []byte {
	raw, err := tx.MarshalBinary()
	require.NoError(t, err)
	return raw
}

// A subblock is little more than its transactions, which the network between operators carries
// many times.
func TestBytesPerSubblock(t *testing.T) {
	chain := enginetest.NewChain(901, 1)
	raw := chain.Transfer(0, 0, enginetest.Recipient(0))
	size := func(chains, txs int) int {
		sub := &sequence.Subblock{Slot: 1_700_000_000}
		for i := range chains {
			id := sequence.ChainID(901 + i)
			st := sequence.Step{Chain: id}
			for range txs {
				st.Transactions = append(st.Transactions, raw)
			}
			if txs > 0 {
				sub.Steps = append(sub.Steps, st)
			}
			sub.Results = append(sub.Results, sequence.Result{Chain: id, Transactions: uint64(txs), GasUsed: 21_000 * uint64(txs)})
		}
		return len(sub.Encode())
	}
	const chains = 29
	empty, one, many := size(chains, 0), size(chains, 1), size(chains, 101)
	perTx := float64(many-one)/(100*chains) - float64(len(raw))
	t.Logf("a subblock of %d chains: %d bytes when empty, %.2f for a transaction beside its own %d", chains, empty, perTx, len(raw))
	require.LessOrEqual(t, empty, chains*48+64, "a chain that has nothing")
	require.LessOrEqual(t, perTx, 2.1, "the length of a transaction's encoding, by RLP")
}
