package cometbft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Four operators agree on one sequence, lead in turn as the schedule says, and all are told
// which chains a quorum is ready for.
func TestProgress(t *testing.T) {
	c := newCluster(t, 4, 4)
	c.start()
	c.advance(1)
	schedule := c.ops[0].rotation.Schedule(30)
	c.advance(30)
	c.same()
	order, _ := c.ops[0].machine.history()
	led := map[string]int{}
	matched := 0
	for _, turn := range schedule {
		if int(turn.Height) > len(order) {
			break
		}
		leader := leaderOf(order[turn.Height-1])
		led[c.byAddress(leader).name]++
		if leader == turn.Leader {
			matched++
		}
	}
	require.Len(t, led, 4, "all lead: %v", led)
	require.Greater(t, matched, 20, "the schedule is right unless a leader misses its turn")
	for _, o := range c.ops {
		require.Positive(t, o.machine.leads, "%s was told to begin before its turns", o.name)
		require.Contains(t, o.machine.ready, []sequence.ChainID{901, 902})
		require.Equal(t, c.genesis.Chains, o.machine.chains)
		require.Empty(t, o.rotation.Evidence().Subblocks)
		st := o.rotation.Status()
		require.Len(t, st.Peers, 3)
		require.Len(t, st.Operators, 4)
		require.True(t, st.Running)
		require.False(t, st.Syncing)
		require.EqualValues(t, 10, st.Power)
	}
}
