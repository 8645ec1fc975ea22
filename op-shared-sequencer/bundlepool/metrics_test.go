package bundlepool

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every fault of a bundle has a word, and no two the same.
func TestReason(t *testing.T) {
	seen := map[string]bool{}
	for _, err := range []error{
		ErrPoolFull, ErrSenderLimit, ErrEmpty, ErrTooManyItems, ErrTooLarge, ErrExpired, ErrTooFarAhead, ErrUnknownChain, ErrMalformed,
		ErrTxType, ErrWrongChain, ErrSignature, ErrDuplicate, ErrNonceOrder, ErrGas, ErrRelay, ErrInvalidTx, ErrTerms, ErrCancelled, ErrUnderpriced,
	} {
		r := Reason(fmt.Errorf("bundle: %w", err))
		require.NotEmpty(t, r, err)
		require.False(t, seen[r], r)
		seen[r] = true
	}
	require.Len(t, seen, len(reasons))
	require.Empty(t, Reason(ErrUnknownBundle))
}

// tally notes what a pool counts.
type tally map[string]int

func (t tally) BundleRefused(reason string) { t["refused "+reason]++ }
func (t tally) BundleBecame(s State)        { t[string(s)]++ }

// What is refused and what bundles become is counted once, and not again after a restart.
func TestTally(t *testing.T) {
	got := tally{}
	p := newPool(Config{MaxBundles: 2, Metrics: got})
	a := add(t, p, bundle(now, transfer("alice", chainA, 0)))
	b := add(t, p, bundle(now+5, transfer("alice", chainA, 1)))
	_, err := p.Add(bundle(now, transfer("alice", chainA, 0))) // it is there already
	require.NoError(t, err)
	_, err = p.Add(bundle(now, transfer("bob", chainA, 0)))
	require.ErrorIs(t, err, ErrPoolFull)
	_, err = p.Add(bundle(now - 1))
	require.Error(t, err)
	require.NoError(t, p.Done(b.Hash, executed(b, now, 3, "")))
	p.Advance(now + 1)
	require.Equal(t, Expired, must(p.Status(a.Hash)).State)
	want := tally{"pending": 2, "executed": 1, "expired": 1, "refused pool-full": 1, "refused expired": 1}
	require.Equal(t, want, got)

	again := tally{}
	q := newPool(Config{Metrics: again})
	require.NoError(t, q.Restore(p.Snapshot()))
	require.Empty(t, again)
	q.Replaced(chainA, 3)
	require.Equal(t, tally{"pending": 1}, again)
}

func must(s Status, err error) Status {
	if err != nil {
		panic(err)
	}
	return s
}
