package sim

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Batch is a number of seeds to run.
type Batch struct {
	From    int64
	Seeds   int
	Workers int       // seeds that run at a time
	Out     io.Writer // progress, failures and counts
	// Failures is after how many failed seeds the batch ends; 0: after 5.
	Failures int
}

// RunAll runs a batch. The error says how many seeds failed, and how to run one again; the
// failures themselves go to Out as they come.
func RunAll(ctx context.Context, b Batch) (Counts, error) {
	if b.Failures == 0 {
		b.Failures = 5
	}
	var (
		mu     sync.Mutex
		next   = b.From
		done   int
		failed []int64
		total  = newCounts()
		began  = time.Now()
		said   = began
		wg     sync.WaitGroup
	)
	take := func() (int64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next >= b.From+int64(b.Seeds) || len(failed) >= b.Failures || ctx.Err() != nil {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range max(b.Workers, 1) {
		wg.Go(func() {
			for {
				seed, ok := take()
				if !ok {
					return
				}
				r, err := Run(seed, nil)
				mu.Lock()
				done++
				total.add(&r.Counts)
				if err != nil {
					failed = append(failed, seed)
					fmt.Fprintf(b.Out, "FAILED %v\n  to see how: go run ./op-shared-sequencer/sim/cmd/sim -seed %d -v\n", err, seed)
				}
				if now := time.Now(); now.Sub(said) > 10*time.Second {
					said = now
					fmt.Fprintf(b.Out, "%d of %d seeds in %v, %d failed\n", done, b.Seeds, now.Sub(began).Round(time.Second), len(failed))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Fprintf(b.Out, "%d seeds in %v, %d failed\n%s", done, time.Since(began).Round(time.Second), len(failed), total)
	if len(failed) > 0 {
		return total, fmt.Errorf("%d of %d seeds failed: %v; run one again with -seed N -v", len(failed), done, failed)
	}
	return total, ctx.Err()
}
