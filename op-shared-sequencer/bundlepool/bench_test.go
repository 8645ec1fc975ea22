package bundlepool

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// perSubblock is how many bundles a subblock executes.
const perSubblock = 50

// What a committed subblock costs when so many bundles over three chains are executed and not
// safe yet: some more are, the pool is saved, and each chain's fill is told what to leave out.
func BenchmarkUnsafeBundles(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			cfg := DefaultConfig(chainA, chainB, chainC)
			cfg.MaxBundles, cfg.MaxPerSender = n, n
			p := newPool(cfg)
			var all []*Entry
			for i := range n {
				h, err := p.Add(bundle(now+100, transfer("a", chainA, uint64(i)), transfer("a", chainB, uint64(i)), transfer("a", chainC, uint64(i))))
				require.NoError(b, err)
				e, ok := p.Get(h)
				require.True(b, ok)
				all = append(all, e)
				require.NoError(b, p.Done(h, executed(e, now, 1, "")))
			}
			file := filepath.Join(b.TempDir(), "bundles")
			require.NoError(b, p.Save(file))
			for i := 0; b.Loop(); i++ {
				for j := range perSubblock { // those that were executed before, again elsewhere
					e := all[(i*perSubblock+j)%n]
					require.NoError(b, p.Done(e.Hash, executed(e, now+sequence.Slot(i)+1, uint64(i+2), "")))
				}
				require.NoError(b, p.Save(file))
				for _, chain := range []sequence.ChainID{chainA, chainB, chainC} {
					p.Reserved(chain, now+sequence.Slot(i)+2)
				}
			}
		})
	}
}
