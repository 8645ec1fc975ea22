package cometbft

import (
	"slices"
	"testing"
	"time"

	"github.com/cometbft/cometbft/p2p"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
)

// A leader whose process ends is not waited for: the others' connections to it have ended,
// and that is enough to know that nobody will take its turn. One that is connected and
// silent has its time.
func TestLeaderDies(t *testing.T) {
	c := newCluster(t, 4, 4)
	c.pace.interval = 300 * time.Millisecond
	const wait = 20 * time.Second // were it waited for, the test would notice
	for _, o := range c.ops {
		o.prepare = func(_ *fakeMachine, cfg *Config) {
			cfg.Timeouts.Propose, cfg.Timeouts.Vote, cfg.Timeouts.Misses = wait, wait, 1000
		}
	}
	c.start()
	c.advance(5)
	for _, o := range c.ops {
		c.wait("the operators know each other", func() bool {
			o.rotation.app.present.mu.Lock()
			defer o.rotation.app.present.mu.Unlock()
			return len(o.rotation.app.present.nodes) == 3
		})
	}
	// Not the next leader: one whose turn has begun when it dies is waited for.
	gone := c.byAddress(c.ops[0].rotation.Schedule(4)[3].Leader)
	began := time.Now()
	gone.stop()
	c.advance(9) // every other operator leads, and its turn comes up twice
	require.Less(t, time.Since(began), wait)
	for _, o := range c.running() {
		late := o.lateness()
		t.Logf("late with one gone: %v", late[len(late)-8:])
		require.True(t, o.rotation.app.present.gone(gone.address()))
	}
	// Everybody is told who led each height, and whose turn came to nothing before.
	for _, o := range c.running() {
		o.machine.mu.Lock()
		agreed, order := o.machine.agreed, o.machine.order
		missed := 0
		for i, a := range agreed[:len(order)] {
			require.Equal(t, rotation.Turn{Height: uint64(i + 1), Leader: leaderOf(order[i])}, a.Turn)
			require.Equal(t, a.Round > 0, len(a.Missed) > 0)
			if slices.Contains(a.Missed, gone.address()) {
				require.NotEqual(t, gone.address(), a.Leader)
				missed++
			}
		}
		o.machine.mu.Unlock()
		require.Positive(t, missed)
		require.Equal(t, 3, online(o))
	}
	gone.start()
	c.wait("it leads again", func() bool {
		order, _ := c.ops[0].machine.history()
		return leaderOf(order[len(order)-1]) == gone.address()
	})
	c.same()
}

// online is how many operators a node knows to be connected, itself among them.
func online(o *operator) int {
	n := 0
	for _, s := range o.rotation.Status().Operators {
		if s.Connected {
			n++
		}
	}
	return n
}

// A node says whose it is, and only an operator's signature for this very node counts.
func TestGreeting(t *testing.T) {
	c := newCluster(t, 4, 2)
	c.start()
	c.advance(2)
	a, b := c.ops[0], c.ops[1]
	var peer p2p.Peer
	c.wait("they are connected", func() bool {
		peer = a.rotation.node.Load().Switch().Peers().Get(p2p.ID(b.keys.NodeID))
		return peer != nil
	})
	p, set := newPresent(a.rotation.app.setID), a.rotation.app.current().set
	require.ErrorIs(t, p.greeted(peer, a.rotation.greeting[1:], set), ErrNotNow, "another node's greeting")
	require.ErrorIs(t, p.greeted(peer, []byte("garbage"), set), ErrGarbage)
	require.False(t, p.gone(b.address()), "never seen is not gone")
	require.NoError(t, p.greeted(peer, b.rotation.greeting[1:], set))
	require.False(t, p.gone(b.address()))
	told := 0
	p.lost = func() { told++ }
	p.left(peer.ID())
	p.left(peer.ID())
	require.True(t, p.gone(b.address()))
	require.Equal(t, 1, told)
	require.NoError(t, p.greeted(peer, b.rotation.greeting[1:], set))
	require.False(t, p.gone(b.address()), "it came back")
}
