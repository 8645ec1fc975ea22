package sequencer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The slot that is safe is that of the chain that is behind the others, unless it left the
// set; while a chain has no driver, nobody knows.
func TestSafeSlot(t *testing.T) {
	inSet(t, 1, 1, func(t *testing.T, s *set) {
		w := s.ops[0]
		safe := func() uint64 {
			w.run(time.Second) // drivers hear of it in events
			slot, ok := w.seq.SafeSlot()
			require.True(t, ok)
			return uint64(slot)
		}
		require.Equal(t, w.genesis, safe())
		s.slot(0)
		a, b := w.a().head(), w.b().head()
		s.slot(0)
		w.a().promote(a)
		require.Equal(t, w.genesis, safe(), "the other chain is not safe yet")
		w.b().promote(b)
		require.Equal(t, a.Time, safe())

		s.slot(0)
		a = w.a().head()
		w.a().promote(a)
		require.Equal(t, b.Time, safe())
		require.NoError(t, w.seq.SetChains([]chainID{chainA}))
		require.Equal(t, a.Time, safe())
		w.a().stopNode()
		_, ok := w.seq.SafeSlot()
		require.False(t, ok)
		w.a().startNode()
	})
}
