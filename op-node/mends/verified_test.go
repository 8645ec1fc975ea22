package mends

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
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

// verifiedResults is a database, and a model of it.
type verifiedResults struct {
	testing.TB
	db     *interop.VerifiedDB
	lowest uint64 // the first timestamp that a result may have
	model  []interop.VerifiedResult
}

func newVerifiedResults(tb testing.TB, lowest uint64) *verifiedResults {
	db, err := interop.OpenVerifiedDB(tb.TempDir())
	require.NoError(tb, err)
	return &verifiedResults{TB: tb, db: db, lowest: lowest}
}

func (v *verifiedResults) next() uint64 { return v.lowest + uint64(len(v.model)) }

// commit adds the next result.
func (v *verifiedResults) commit(l1 uint64) {
	r := verifiedAt(v.next(), l1, 2)
	require.NoError(v, v.db.Commit(r))
	v.model = append(v.model, r)
}

func (v *verifiedResults) rewind(from uint64) {
	_, err := v.db.Rewind(from)
	require.NoError(v, err)
	v.model = v.model[:from-v.lowest]
}

// want is the newest timestamp above lowest that L1 includes at or below a block, else lowest.
func (v *verifiedResults) want(l1, lowest uint64) uint64 {
	for i := len(v.model) - 1; i >= 0 && v.model[i].Timestamp > lowest; i-- {
		if v.model[i].L1Inclusion.Number <= l1 {
			return v.model[i].Timestamp
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
		v := newVerifiedResults(t, 100)
		activation := v.lowest - seed // results may begin later
		for range 3000 {
			switch n := rng.IntN(100); {
			case n < 40 || len(v.model) == 0:
				v.commit(v.next()/3 + rng.Uint64N(4))
			case n == 40:
				v.rewind(v.next() - min(uint64(len(v.model)), 1+rng.Uint64N(40)))
			default:
				l1 := v.next()/3 - min(rng.Uint64N(40), v.next()/3)
				require.Equal(t, v.want(l1, activation), v.db.LatestAtL1(l1, v.next()-1, activation), "seed %d, %d results, L1 block %d", seed, len(v.model), l1)
			}
			if n := uint64(len(v.model)); n > 0 {
				ts := v.next() - 1 - min(rng.Uint64N(20), n-1)
				r, err := v.db.Get(ts)
				require.NoError(t, err)
				require.Equal(t, v.model[ts-v.lowest], r)
			}
			_, err := v.db.Get(v.next())
			require.ErrorIs(t, err, interop.ErrNotFound)
		}
		require.Greater(t, len(v.model), 100)
		require.NoError(t, v.db.Close())
	}
}

// What was found before results were taken back is not given after it.
func TestVerifiedSearchAfterRewind(t *testing.T) {
	t.Parallel()
	v := newVerifiedResults(t, 100)
	for v.next() <= 150 {
		v.commit(v.next())
	}
	require.EqualValues(t, 120, v.db.LatestAtL1(120, 150, 100))
	v.rewind(115)
	require.EqualValues(t, 114, v.db.LatestAtL1(120, 114, 100))
	for v.next() <= 150 {
		v.commit(v.next() - 20)
	}
	require.EqualValues(t, 140, v.db.LatestAtL1(120, 150, 100))
	require.NoError(t, v.db.Close())
}

// A search that was made is not made again, not for other L1 blocks in between either; only results
// that are new are read. If one cannot be read, the search stops there, where its caller meets the error.
func TestVerifiedSearchOnce(t *testing.T) {
	t.Parallel()
	v := newVerifiedResults(t, 100)
	for v.next() < 200 {
		v.commit(v.next())
	}
	for _, l1 := range []uint64{120, 130, 90} {
		require.Equal(t, max(l1, 100), v.db.LatestAtL1(l1, 199, 100))
	}
	v.commit(200)
	_, err := v.db.Get(200) // which remembers it
	require.NoError(t, err)
	require.NoError(t, v.db.Close())
	_, err = v.db.Get(150)
	require.Error(t, err, "nothing more can be read")
	for _, l1 := range []uint64{120, 130, 90} {
		require.Equal(t, max(l1, 100), v.db.LatestAtL1(l1, 200, 100))
		require.Equal(t, max(l1, 100), v.db.LatestAtL1(l1, 199, 100), "by one that has not heard of the last one")
	}
	require.EqualValues(t, 199, v.db.LatestAtL1(121, 200, 100), "it cannot be read")
	require.EqualValues(t, 99, v.db.LatestAtL1(120, 99, 100), "there is none yet")
}

// Searches beside results that come and are taken back.
func TestVerifiedMemoryConcurrent(t *testing.T) {
	t.Parallel()
	v := newVerifiedResults(t, 100)
	v.commit(100)
	var searchers sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 3 {
		searchers.Go(func() {
			for ctx.Err() == nil {
				if last, ok := v.db.LastTimestamp(); ok {
					_ = v.db.LatestAtL1(120, last, 100)
				}
			}
		})
	}
	for round := range uint64(20) {
		for v.next() < 160 {
			v.commit(v.next() - round)
		}
		require.Equal(t, v.want(120, 100), v.db.LatestAtL1(120, v.next()-1, 100), "round %d", round)
		v.rewind(105 + round)
	}
	stop()
	searchers.Wait()
	require.NoError(t, v.db.Close())
}

// Upstream's verifier gives what it gave without a memory, and searches from where the memory says: it
// has no other way to answer once its database is closed.
func TestVerifiedBlockAtL1(t *testing.T) {
	t.Parallel()
	const activation, first = 90, 100
	dir := t.TempDir()
	db, err := interop.OpenVerifiedDB(dir)
	require.NoError(t, err)
	for ts := uint64(first); ts < 200; ts++ {
		require.NoError(t, db.Commit(verifiedAt(ts, ts/2, 2)))
	}
	require.NoError(t, db.Close())
	verifier := interop.New(log.NewLogger(log.DiscardHandler()), activation, 0, nil, dir, nil, 0, nil)
	require.NotNil(t, verifier)
	for range 2 { // the second time from memory
		for l1, want := range map[uint64]uint64{0: 0, 49: 0, 50: 101, 75: 151, 99: 199, 1000: 199} {
			for chain, number := range map[uint64]uint64{901: want, 902: want, 903: 0} {
				block, ts, err := verifier.VerifiedBlockAtL1(eth.ChainIDFromUInt64(chain), eth.L1BlockRef{Number: l1, Hash: common.Hash{9}})
				require.NoError(t, err)
				require.Equal(t, number, block.Number, "chain %d, L1 block %d", chain, l1)
				if number == 0 {
					require.EqualValues(t, activation-1, ts)
				} else {
					require.Equal(t, want, ts)
				}
			}
		}
	}
	for _, open := range []bool{true, false} {
		_, ts, err := verifier.VerifiedBlockAtL1(eth.ChainIDFromUInt64(901), eth.L1BlockRef{Number: 75, Hash: common.Hash{9}})
		require.NoError(t, err)
		require.EqualValues(t, 151, ts)
		if open {
			require.NoError(t, verifier.Stop(context.Background()))
		}
	}
}

// BenchmarkVerifiedBlockAtL1 searches for the finalized block with 900 results that L1 has not
// finalized: one a second, and the fifteen minutes that mainnet takes. The engine controller asks six times
// for each block of each chain (TestRememberCanonical), and derivation again. Upstream makes a first
// search each time; mended is one that has found a new result.
func BenchmarkVerifiedBlockAtL1(b *testing.B) {
	for _, chains := range []int{2, 29} {
		b.Run(fmt.Sprintf("%d-chains", chains), func(b *testing.B) {
			db, err := interop.OpenVerifiedDB(b.TempDir())
			require.NoError(b, err)
			defer func() { require.NoError(b, db.Close()) }()
			const lowest, final = 1000, 1100
			last := uint64(2000)
			for ts := uint64(lowest); ts <= last; ts++ {
				require.NoError(b, db.Commit(verifiedAt(ts, ts, chains)))
			}
			search := func() error {
				require.EqualValues(b, final, db.LatestAtL1(final, last, lowest))
				return nil
			}
			var first, after time.Duration
			for b.Loop() {
				_, err := db.Rewind(last) // forgets
				require.NoError(b, err)
				require.NoError(b, db.Commit(verifiedAt(last, last, chains)))
				first += perCall(b, 1, search)
				last++
				require.NoError(b, db.Commit(verifiedAt(last, last, chains)))
				after += perCall(b, 1, search)
			}
			n := time.Duration(b.N)
			report(b, first/n, after/n)
		})
	}
}
