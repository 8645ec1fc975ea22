package history_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
)

// A sync shows how far it has come while it runs, also after it was interrupted.
func TestStatus(t *testing.T) {
	h := open(t, config(t.TempDir(), logger(t)))
	_, ok := h.Status(id + 1)
	require.False(t, ok)
	st, ok := h.Status(id)
	require.True(t, ok)
	require.Equal(t, history.Status{}, st)
	src := newSource(50, 100)
	gone := errors.New("the engine is gone")
	var seen []history.Status
	src.onReceipts = func(n uint64) error {
		st, _ := h.Status(id)
		if seen = append(seen, st); n == 30 {
			return gone
		}
		return nil
	}
	require.ErrorIs(t, h.Sync(context.Background(), id, src), gone)
	require.Len(t, seen, 30)
	for i, st := range seen {
		require.True(t, st.Filling)
		require.Equal(t, []uint64{0, uint64(i) + 1, 50}, []uint64{st.From, st.At, st.To})
		require.Equal(t, uint64(i), st.Head)
	}
	st, _ = h.Status(id)
	require.False(t, st.Filling)
	require.Equal(t, uint64(30), st.At)

	src.onReceipts = nil
	require.NoError(t, h.Sync(context.Background(), id, src))
	st, _ = h.Status(id)
	require.Equal(t, history.Status{Head: 50, HeadTime: 1100, Filled: true, Complete: true, From: 30, At: 50, To: 50}, st)
	require.Positive(t, h.Bytes(id))
	require.Zero(t, h.Bytes(id+1))
}
