package sequencer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
)

// Chains of AgreeOnSlot.
const ChainA, ChainB = chainA, chainB

// AgreeOnSlot has two operators agree on a slot with a bundle over two chains, in two subblocks:
// the first operator leads the first, the second one the second. The observers are the
// operators'; turns are what the rotation tells of the subblocks.
func AgreeOnSlot(t *testing.T, observers [2]Observer, turns [2]rotation.Turn) {
	inSet(t, 2, 2, func(t *testing.T, s *set) {
		s.slot(0)
		for i, w := range s.ops {
			w.set(func() { w.also = observers[i] })
			w.goodBundle(1, 0)
		}
		for i, turn := range turns {
			sub := s.propose(i)
			s.verify(sub)
			s.ops[0].run(30 * time.Millisecond) // the operators vote
			for _, w := range s.ops {
				w.seq.Witness(rotation.Agreed{Turn: turn})
				require.NoError(t, w.seq.Commit(bg, sub, []byte("agreed")))
			}
			require.Equal(t, i == 1, sub.Last())
		}
	})
}
