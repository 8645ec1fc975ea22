package mends

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-supernode/supernode/activity/interop"
)

// verifiedAt is a result of some chains that L1 includes at a block.
func verifiedAt(ts, l1 uint64, chains int) interop.VerifiedResult {
	r := interop.VerifiedResult{Timestamp: ts, L1Inclusion: eth.BlockID{Number: l1, Hash: common.Hash{1}}, L2Heads: map[eth.ChainID]eth.BlockID{}}
	for i := range chains {
		r.L2Heads[eth.ChainIDFromUInt64(901+uint64(i))] = eth.BlockID{Number: ts, Hash: common.Hash{2, byte(ts)}}
	}
	return r
}

// search is how upstream looks for the newest result that L1 includes at or below a block.
func search(tb testing.TB, db *interop.VerifiedDB, l1, last, lowest uint64) uint64 {
	for ts := last; ts > lowest; ts-- {
		r, err := db.Get(ts)
		if errors.Is(err, interop.ErrNotFound) {
			continue
		}
		require.NoError(tb, err)
		if r.L1Inclusion.Number <= l1 {
			return ts
		}
	}
	return lowest
}

// What a database remembers is what it holds: against a model, with results that are taken back and
// others put in their place, and with L1 inclusions that also fall.
func TestVerifiedMemory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		db, err := interop.OpenVerifiedDB(t.TempDir())
		require.NoError(t, err)
		const lowest = 100
		model := []interop.VerifiedResult{}
		last := func() uint64 { return lowest + uint64(len(model)) - 1 }
		for range 2000 {
			switch n := rng.IntN(20); {
			case n < 8 || len(model) == 0:
				ts := lowest + uint64(len(model))
				r := verifiedAt(ts, ts/3+rng.Uint64N(4), 2)
				require.NoError(t, db.Commit(r))
				model = append(model, r)
			case n == 8:
				from := lowest + uint64(max(0, len(model)-1-rng.IntN(30)))
				_, err := db.Rewind(from)
				require.NoError(t, err)
				model = model[:from-lowest]
			default:
				l1 := lowest/3 + rng.Uint64N(uint64(len(model)/3+4))
				want := uint64(lowest)
				for i := len(model) - 1; i > 0; i-- {
					if model[i].L1Inclusion.Number <= l1 {
						want = lowest + uint64(i)
						break
					}
				}
				for range 1 + rng.IntN(2) {
					require.Equal(t, want, db.LatestAtL1(l1, last(), lowest), "seed %d, %d results, L1 %d", seed, len(model), l1)
				}
			}
			if len(model) > 0 {
				ts := last() - min(rng.Uint64N(20), uint64(len(model)-1))
				r, err := db.Get(ts)
				require.NoError(t, err)
				require.Equal(t, model[ts-lowest], r)
			}
			_, err := db.Get(last() + 1)
			require.ErrorIs(t, err, interop.ErrNotFound)
		}
		require.NoError(t, db.Close())
	}
}

// A search that was made is not made again: nothing is read for it. One that fails says so by its
// answer, which its caller reads once more.
func TestVerifiedSearchOnce(t *testing.T) {
	t.Parallel()
	db, err := interop.OpenVerifiedDB(t.TempDir())
	require.NoError(t, err)
	const lowest, last = 100, 199
	for ts := uint64(lowest); ts <= last; ts++ {
		require.NoError(t, db.Commit(verifiedAt(ts, ts, 2)))
	}
	require.Equal(t, uint64(120), db.LatestAtL1(120, last, lowest))
	require.Equal(t, uint64(lowest-1), db.LatestAtL1(120, lowest-1, lowest))
	require.Equal(t, uint64(120), db.LatestAtL1(120, last, lowest))
	require.NoError(t, db.Close())
	_, err = db.Get(150)
	require.Error(t, err)
	require.Equal(t, uint64(120), db.LatestAtL1(120, last, lowest))
	require.Equal(t, uint64(last), db.LatestAtL1(121, last, lowest))
}

// BenchmarkVerifiedBlockAtL1 asks for the finalized block with 900 results that L1 has not finalized:
// blocks of 1 s, and the fifteen minutes that mainnet takes. The engine controller asks six times for each block
// of each chain (TestRememberCanonical), and derivation again.
func BenchmarkVerifiedBlockAtL1(b *testing.B) {
	for _, chains := range []int{2, 29} {
		b.Run(fmt.Sprintf("%d-chains", chains), func(b *testing.B) {
			db, err := interop.OpenVerifiedDB(b.TempDir())
			require.NoError(b, err)
			defer func() { require.NoError(b, db.Close()) }()
			const lowest, last, final = 1000, 2000, 1100
			for ts := uint64(lowest); ts <= last; ts++ {
				require.NoError(b, db.Commit(verifiedAt(ts, ts, chains)))
			}
			upstream := perCall(b, 1, func() error {
				require.EqualValues(b, final, search(b, db, final, last, lowest))
				return nil
			})
			mended := perCall(b, 100, func() error {
				require.EqualValues(b, final, search(b, db, final, db.LatestAtL1(final, last, lowest), lowest))
				return nil
			})
			report(b, upstream, mended)
		})
	}
}
