package cometbft

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
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
		o.machine.mu.Lock()
		require.Positive(t, o.machine.leads, "%s was told to begin before its turns", o.name)
		require.Contains(t, o.machine.ready, []sequence.ChainID{901, 902})
		require.Equal(t, c.genesis.Chains, o.machine.chains)
		o.machine.mu.Unlock()
		require.Empty(t, o.rotation.Evidence().Subblocks)
		st := o.rotation.Status()
		require.Len(t, st.Peers, 3)
		require.Len(t, st.Operators, 4)
		require.True(t, st.Running)
		require.False(t, st.Syncing)
		require.EqualValues(t, 10, st.Power)
		require.NotZero(t, st.Leader)
		led, voted := uint64(0), uint64(0)
		for _, op := range st.Operators {
			led, voted = led+op.Tally.Led, voted+op.Tally.Voted
		}
		require.Greater(t, st.Heights, uint64(20))
		// A height may be counted between the two.
		require.InDelta(t, st.Heights, led, 1)
		require.Greater(t, voted, 2*st.Heights)
	}
}

// When the leader of the next height is gone, the next one has it agreed on after the
// propose timeout; then its turns are shortened, and cost next to nothing; and when it is back,
// it has them again.
func TestLeaderGone(t *testing.T) {
	c := newCluster(t, 4, 4)
	c.pace.interval = 200 * time.Millisecond
	for _, o := range c.ops {
		o.prepare = func(_ *fakeMachine, cfg *Config) {
			// A busy machine must not make the one that is back miss its turns again.
			cfg.Timeouts.Signs, cfg.Timeouts.Propose = 8, time.Second
		}
	}
	c.start()
	c.advance(3)
	gone := c.byAddress(c.ops[0].rotation.Schedule(2)[1].Leader)
	stay := c.ops[(slices.Index(c.ops, gone)+1)%4]
	from := c.top()
	gone.stop()
	c.wait("the turns of the one gone are shortened", func() bool { return shortened(stay, gone) })
	short := c.top()
	c.advance(24)
	order, _ := stay.machine.history()
	for _, s := range order[from+1:] {
		require.NotEqual(t, gone.address(), leaderOf(s))
	}
	late := stay.lateness()
	t.Logf("late while a leader's turns are missed: %v", late[from:short+1])
	t.Logf("late while its turns are shortened: %v", late[short+1:])
	for _, turn := range stay.rotation.Schedule(8) {
		require.NotEqual(t, gone.address(), turn.Leader, "the schedule leaves it out")
	}

	gone.start()
	c.wait("it has its turns back", func() bool { return !shortened(stay, gone) })
	c.wait("it leads again", func() bool {
		order, _ := stay.machine.history()
		return leaderOf(order[len(order)-1]) == gone.address()
	})
	c.same()
	for _, o := range c.ops {
		require.Equal(t, stay.rotation.Status().Operators[0].Missed, o.rotation.Status().Operators[0].Missed)
	}
}

func shortened(at, whose *operator) bool {
	for _, o := range at.rotation.Status().Operators {
		if o.Address == whose.address() {
			return o.Shortened
		}
	}
	return false
}

// lateness is how late each height was committed after it was due, by height from 0.
func (o *operator) lateness() []time.Duration {
	order, at := o.machine.history()
	late := make([]time.Duration, len(order))
	for i := range order {
		if k := i - (len(order) - len(at)); k >= 0 {
			late[i] = at[k].Sub(o.pace.due(i + 1))
		}
	}
	return late
}

// A leader that has nothing to propose costs little more than its turn, and is not blamed.
func TestPass(t *testing.T) {
	c := newCluster(t, 4, 4)
	var passes atomic.Int64
	for i, o := range c.ops {
		o.prepare = func(m *fakeMachine, cfg *Config) {
			if i == 1 {
				m.onPropose = func(context.Context, int) error {
					passes.Add(1)
					return fmt.Errorf("%w: no chain is ready", rotation.ErrPass)
				}
			}
		}
	}
	c.start()
	c.advance(40)
	require.Positive(t, passes.Load())
	order, _ := c.ops[0].machine.history()
	for _, s := range order {
		require.NotEqual(t, c.ops[1].address(), leaderOf(s))
	}
	c.same()
}
