package history_test

import (
	"context"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
)

// BenchmarkAppend adds durable blocks of 100 logs each.
func BenchmarkAppend(b *testing.B) {
	h, err := history.Open(config(b.TempDir(), testlog.Logger(b, log.LevelCrit)))
	require.NoError(b, err)
	defer func() { require.NoError(b, h.Close()) }()
	r := &types.Receipt{}
	for i := range uint(100) {
		r.Logs = append(r.Logs, &types.Log{Data: make([]byte, 100), Index: i})
	}
	block := eth.BlockRef{Hash: hash(0, 0), Time: 1000}
	require.NoError(b, h.Append(context.Background(), id, block, nil))
	for b.Loop() {
		block = eth.BlockRef{Hash: hash(block.Number+1, 0), Number: block.Number + 1, ParentHash: block.Hash, Time: block.Time + 2}
		require.NoError(b, h.Append(context.Background(), id, block, executor.Logs(types.Receipts{r})))
	}
}
