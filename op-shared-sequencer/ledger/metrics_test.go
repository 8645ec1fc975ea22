package ledger

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

type syncs struct {
	took []time.Duration
	errs int
}

func (s *syncs) LedgerSynced(took time.Duration, err error) {
	s.took = append(s.took, took)
	if err != nil {
		s.errs++
	}
}

// Every write's sync is timed, and the statistics are those of the files.
func TestMetrics(t *testing.T) {
	t.Parallel()
	var s syncs
	at := time.Unix(0, 0)
	now := func() time.Time { at = at.Add(time.Millisecond); return at }
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir, WithMetrics(&s, now), WithSegmentSize(4000))
	require.Equal(t, 1, l.Stats().Segments)
	require.Zero(t, l.Stats().Records)
	recs := fill(t, l, 100, 120)
	require.Len(t, s.took, 21)
	require.Equal(t, time.Millisecond, s.took[0])
	require.Zero(t, s.errs)
	st := l.Stats()
	require.Equal(t, 21, st.Records)
	require.Equal(t, sequence.Slot(100), st.Oldest)
	require.Greater(t, st.Segments, 3)
	require.False(t, st.Broken)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, st.Segments+1, "and the lock")

	below := uint64(recs[19].Payloads[chainA].ExecutionPayload.BlockNumber)
	for _, chain := range l.Chains() {
		require.NoError(t, l.Prune(context.Background(), chain, below))
	}
	pruned := l.Stats()
	require.Less(t, pruned.Segments, st.Segments)
	require.Less(t, pruned.Bytes, st.Bytes)
	require.Less(t, pruned.Records, st.Records)

	require.NoError(t, l.Close())
	require.Equal(t, pruned, open(t, dir, WithSegmentSize(4000)).Stats(), "opened again")
}
