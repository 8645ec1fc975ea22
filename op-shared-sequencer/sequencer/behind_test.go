package sequencer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// When nothing was ready at the last votes, nothing is proposed, and nothing voted for: the
// operators' word must not hold for ever.
func TestOldWordOfTheOperators(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		s.slot(0)
		nothing := []sequence.ChainID{}
		s.ops[0].run(time.Until(s.ops[0].seq.Due(nil)))
		_, err := s.ops[0].seq.Propose(bg, nothing)
		require.ErrorIs(t, err, rotation.ErrPass)
		s.ops[0].run(time.Second + readyPatience)
		sub, err := s.ops[0].seq.Propose(bg, nothing)
		require.NoError(t, err)
		require.Len(t, sub.Openings, 2)
		s.verify(sub)
		s.commit(sub)
	})
}

// L1 takes blocks back, and the operators agree on others before an operator's keepers
// have taken the old ones out of its ledger.
func TestAgreedAnewBeforeKeeper(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		for range 8 {
			s.slot(0)
		}
		w := s.ops[1]
		for _, c := range w.seq.chains {
			_, ok := c.borrow() // its keeper finds it in use
			require.True(t, ok)
		}
		s.ops[0].reorgL1(s.ops[0].a().head())
		for _, o := range s.ops {
			for _, c := range o.chains {
				c.reset()
			}
		}
		s.ops[0].run(3 * time.Second)
		for _, c := range w.chains {
			logged, _, _ := w.ledger.Head(c.id)
			require.Greater(t, logged.Number, c.head().Number, "the ledger is behind the driver")
		}
		sub := s.propose(0)
		for _, c := range w.seq.chains {
			c.giveBack()
		}
		s.verify(sub)
		s.commit(sub)
		s.same()
		for _, c := range w.chains {
			logged, _, _ := w.ledger.Head(c.id)
			require.Equal(t, c.head().ID(), logged)
		}
	})
}

// A seal whose hash follows later still names the block's number.
func TestDeferredSealOfAnotherNumber(t *testing.T) {
	inSet(t, 2, 2, func(t *testing.T, s *set) {
		s.slot(0)
		first := s.propose(0)
		s.verify(first)
		s.commit(first)
		for _, w := range s.ops {
			w.b().engine.SetDown(true)
		}
		_, err := s.ops[0].seq.Propose(bg, nil)
		require.Error(t, err)
		s.ops[0].run(s.ops[0].cfg.Grace + time.Second)
		sub, err := s.ops[0].seq.Propose(bg, nil)
		require.NoError(t, err)
		require.True(t, sub.Last() && sub.Seals[1].Deferred())
		bad := clone(t, sub)
		bad.Seals[1].Number++
		require.ErrorIs(t, s.ops[1].seq.Verify(bg, bad), ErrResult)
		s.verify(sub)
		s.commit(sub)
	})
}
