package executor_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// BenchmarkApply verifies transactions of one executing message each: of the slot under
// construction, or of blocks in the history on disk, its files in the page cache.
func BenchmarkApply(b *testing.B) {
	const blocks, perBlock, txs = 200, 100, 1000
	cfg := executor.ChainConfig{ID: chainA, BlockTime: 1, InteropTime: ptr(uint64(0)), Genesis: eth.BlockID{Hash: blockHash(chainA, 0, 0)}}
	other := cfg
	other.ID = chainB
	chains := []executor.ChainConfig{cfg, other}
	h, err := history.Open(history.Config{Dir: b.TempDir(), Chains: chains, MessageExpiry: 1 << 30, Log: testlog.Logger(b, log.LevelCrit)})
	require.NoError(b, err)
	defer func() { require.NoError(b, h.Close()) }()
	x := newExecutor(b, executor.Config{DependencySet: set(b, 1<<30, chainA, chainB), Chains: chains, History: h})
	logs := make([]*types.Log, perBlock)
	for i := range logs {
		logs[i] = plain(uint(i), fmt.Sprint(i))
	}
	for n := range uint64(blocks) {
		receipts := types.Receipts{}
		if n > 0 {
			receipts = types.Receipts{{Logs: logs}}
		}
		require.NoError(b, h.Append(context.Background(), chainA, ref(chainA, n, n, 0), executor.Logs(receipts)))
	}
	parents := map[chainID]eth.BlockID{chainA: ref(chainA, blocks-1, 0, 0).ID(), chainB: {Number: 7}}
	now := eth.BlockRef{Number: blocks, Time: blocks}
	for _, bc := range []struct {
		name string
		from func(i int) eth.BlockRef
	}{
		{"slot", func(int) eth.BlockRef { return now }},
		{"newest block", func(int) eth.BlockRef { return ref(chainA, blocks-1, blocks-1, 0) }},
		{"all blocks", func(i int) eth.BlockRef { n := uint64(1 + i*7919%(blocks-1)); return ref(chainA, n, n, 0) }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var list []executor.Tx
			for i := range txs {
				m := identify(chainA, bc.from(i), logs[i%perBlock])
				list = append(list, executor.Tx{AccessList: declare(m), Logs: []*types.Log{executing(uint(i), m)}})
			}
			b.ReportAllocs()
			for b.Loop() {
				slot := x.Begin(sequence.Slot(now.Time), parents)
				require.NoError(b, slot.Apply(chainA, []executor.Tx{{Logs: logs}}))
				require.NoError(b, slot.Apply(chainB, slices.Clone(list))) // not decoded
			}
			b.ReportMetric(float64(b.N*txs)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
