package ledger

import (
	"context"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// benchRecord is a slot of two chains with 200 transfers each.
func benchRecord(b *testing.B, l *Ledger, slot sequence.Slot, rng *rand.Rand) *Record {
	_, last, _ := l.Last()
	payloads := map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}
	for _, chain := range []sequence.ChainID{chainA, chainB} {
		head, _, ok := l.Head(chain)
		if !ok {
			head = firstParent(chain)
		}
		var txs [][]byte
		for range 200 {
			tx := make([]byte, 117) // an EIP-1559 transfer
			rng.Read(tx)
			txs = append(txs, tx)
		}
		payloads[chain] = makePayload(b, head, slot, "jovian, karst, lagoon", txs...)
	}
	return makeRecord(slot, last, 1, payloads)
}

// BenchmarkAppend is what the log costs a slot: encoding, one write, one fsync.
func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir())
	rng := rand.New(rand.NewSource(1))
	slot := sequence.Slot(1000)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		slot++
		r := benchRecord(b, l, slot, rng)
		b.StartTimer()
		begin := time.Now()
		if err := l.Append(context.Background(), r); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(l.state.entries[0].size), "B/record")
}

// BenchmarkOpen is what a start costs per 1000 such slots in the log.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	l := open(b, dir)
	rng := rand.New(rand.NewSource(1))
	for slot := sequence.Slot(1000); slot < 2000; slot++ {
		require.NoError(b, l.Append(context.Background(), benchRecord(b, l, slot, rng)))
	}
	require.NoError(b, l.Close())
	for b.Loop() {
		l, err := Open(dir, quiet)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
