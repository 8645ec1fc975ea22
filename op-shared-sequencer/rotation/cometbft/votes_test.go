package cometbft

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// told keeps what a rotation tells of votes and turns.
type told struct {
	NoMetrics
	mu     sync.Mutex
	votes  []Votes
	missed []string
}

func (m *told) Votes(v Votes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.votes = append(m.votes, v)
}

func (m *told) TurnMissed(operator string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.missed = append(m.missed, operator)
}

// The metrics are told who votes, who does not, and who misses its turn; and the machine,
// whose turn it was.
func TestVotesAreTold(t *testing.T) {
	c := newCluster(t, 4, 4)
	m := new(told)
	o := c.ops[0]
	var wrong int
	o.prepare = func(machine *fakeMachine, cfg *Config) {
		cfg.Metrics, cfg.Timeouts.Misses = m, 1000
		machine.onCommit = func(_ context.Context, sub *sequence.Subblock, height int) error {
			turn := machine.agreed[len(machine.agreed)-1]
			m.mu.Lock()
			defer m.mu.Unlock()
			if turn.Height != uint64(height) || turn.Leader != leaderOf(sub) {
				wrong++
			}
			return nil
		}
	}
	for _, p := range c.ops[1:] { // the rule is the same at all
		p.prepare = func(_ *fakeMachine, cfg *Config) { cfg.Timeouts.Misses = 1000 }
	}
	c.start()
	c.advance(12)
	gone := c.ops[3]
	gone.stop()
	c.wait("its votes are missing, and its turns", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		last := m.votes[len(m.votes)-1]
		return slices.Contains(last.Missing, gone.name) && slices.Contains(m.missed, gone.name)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Zero(t, wrong, "turns that the machine was told wrong")
	leaders := map[string]bool{}
	for _, v := range m.votes {
		leaders[v.Leader] = true
		require.EqualValues(t, 40, v.Power)
		require.EqualValues(t, 40-10*len(v.Missing), v.Voted)
		require.Greater(t, 3*v.Voted, 2*v.Power)
		require.Equal(t, !slices.Contains(v.Missing, o.name), v.Own)
		require.Len(t, v.Offsets, 4-len(v.Missing))
		for who, d := range v.Offsets {
			require.Less(t, d.Abs(), time.Minute, who)
		}
	}
	require.Len(t, leaders, 4)
	for _, p := range c.ops {
		require.True(t, leaders[p.name], p.name)
	}
}
