package cometbft

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func (o *operator) peersAre(n int) bool { return len(o.rotation.Status().Peers) == n }

// Without a quorum on any side nothing is agreed on; when the network heals, the set goes
// on. One operator that is cut off does not stop the others, and follows when it is back.
func TestPartition(t *testing.T) {
	w, proxied := through(t, 0)
	c := newCluster(t, 4, 4, proxied)
	c.start()
	c.advance(3)

	w.split(true, c.ops[0], c.ops[1])
	c.wait("two halves", func() bool {
		return !slices.ContainsFunc(c.ops, func(o *operator) bool { return !o.peersAre(1) })
	})
	top := c.top()
	time.Sleep(time.Second) // nothing must happen in it
	require.LessOrEqual(t, c.top(), top+1, "half of the power agreed on something")
	w.split(false, c.ops[0], c.ops[1])
	c.advance(5)
	c.same()

	alone := c.ops[2]
	w.split(true, alone)
	c.wait("one cut off", func() bool { return alone.peersAre(0) })
	alone.rotation.Height()
	stuck := alone.machine.height()
	others := []*operator{c.ops[0], c.ops[1], c.ops[3]}
	c.wait("the others go on", func() bool {
		return !slices.ContainsFunc(others, func(o *operator) bool { return o.machine.height() < stuck+10 })
	})
	require.LessOrEqual(t, alone.machine.height(), stuck+1)
	w.split(false, alone)
	c.advance(5)
	c.wait("it leads again", func() bool {
		order, _ := others[0].machine.history()
		return leaderOf(order[len(order)-1]) == alone.address()
	})
	c.same()
}

// Changes that two thirds approve come in force at a slot boundary, at all operators: an
// operator joins and leads, another leaves and does not any more, powers change, a chain joins.
func TestChanges(t *testing.T) {
	c := newCluster(t, 5, 4)
	c.start()
	c.advance(3)
	joiner := c.ops[4]
	setID := c.genesis.ID()
	nonce := uint64(0)
	approve := func(change operators.Change, by ...*operator) {
		nonce++
		change.Nonce, change.Expiry = nonce, sequence.Slot(100000)
		for _, o := range by {
			signed, err := operators.SignChange(setID, change, o.key)
			require.NoError(t, err)
			require.NoError(t, c.ops[1].rotation.SubmitChange(signed)) // one operator's node is enough
		}
	}
	all := func(what string, cond func(s *operators.Set) bool) {
		t.Helper()
		c.wait(what, func() bool {
			return !slices.ContainsFunc(c.running(), func(o *operator) bool { return !cond(o.rotation.Operators()) })
		})
	}
	leads := func(o *operator) func() bool {
		from := c.top()
		return func() bool {
			order, _ := c.ops[1].machine.history()
			return slices.ContainsFunc(order[from:], func(s *sequence.Subblock) bool { return leaderOf(s) == o.address() })
		}
	}

	// Two of four are not enough.
	approve(operators.Change{Kind: operators.JoinChain, Chain: 777}, c.ops[0], c.ops[1])
	approve(operators.Change{Kind: operators.AddOperator, Operator: joiner.member(10)}, c.ops[0], c.ops[1], c.ops[2])
	all("an operator joins", func(s *operators.Set) bool { _, ok := s.Operator(joiner.address()); return ok })
	c.wait("it leads", leads(joiner))
	require.NotContains(t, c.ops[0].rotation.Operators().Chains(), sequence.ChainID(777))

	approve(operators.Change{Kind: operators.JoinChain, Chain: 903}, c.ops[0], c.ops[2], c.ops[3], joiner)
	all("a chain joins", func(s *operators.Set) bool { return slices.Contains(s.Chains(), 903) })
	c.advance(1)
	for _, o := range c.ops {
		o.machine.mu.Lock()
		require.Contains(t, o.machine.chains, sequence.ChainID(903))
		o.machine.mu.Unlock()
	}

	approve(operators.Change{Kind: operators.SetPower, Operator: operators.Operator{Address: c.ops[1].address(), Power: 20}}, c.ops[0], c.ops[2], c.ops[3], joiner)
	all("a power changes", func(s *operators.Set) bool { o, _ := s.Operator(c.ops[1].address()); return o.Power == 20 })

	approve(operators.Change{Kind: operators.RemoveOperator, Operator: operators.Operator{Address: c.ops[0].address()}}, c.ops[1], c.ops[2], c.ops[3], joiner)
	all("an operator leaves", func(s *operators.Set) bool { _, ok := s.Operator(c.ops[0].address()); return !ok })
	from := c.advance(3)
	c.advance(10)
	order, _ := c.ops[1].machine.history()
	for _, s := range order[from:] {
		require.NotEqual(t, c.ops[0].address(), leaderOf(s), "who left does not lead")
	}

	// The voters here are CometBFT's, and a restart comes to them again.
	c.ops[2].stop()
	c.ops[2].start()
	c.advance(5)
	for _, o := range []*operator{c.ops[1], c.ops[2]} {
		env, err := o.rotation.node.Load().ConfigureRPC()
		require.NoError(t, err)
		c.wait("voters at one height", func() bool {
			theirs, ours := env.ConsensusState.GetState(), o.rotation.app.current()
			if uint64(theirs.LastBlockHeight) != ours.height {
				return false
			}
			require.Equal(t, theirs.Validators.Hash(), ours.now.Hash())
			require.Equal(t, theirs.NextValidators.Hash(), ours.next.Hash())
			require.Equal(t, theirs.LastValidators.Hash(), ours.last.Hash())
			require.Equal(t, theirs.NextValidators.GetProposer().Address, ours.next.GetProposer().Address)
			require.Equal(t, theirs.AppHash, ours.hash[:])
			return true
		})
	}
	c.same()
	// The ledger tells who agreed.
	a, err := DecodeAgreement(c.ops[2].machine.Agreed())
	require.NoError(t, err)
	require.Len(t, a.Votes, 3)
	require.EqualValues(t, a.Height, a.Votes[2].Height)
	require.Equal(t, uint64(50), a.Set.TotalPower())
}

// A node without votes follows from genesis, and one from a copy of another's data and ledger.
func TestJoin(t *testing.T) {
	c := newCluster(t, 6, 4)
	for _, o := range c.ops[4:] {
		o.prepare = func(_ *fakeMachine, cfg *Config) { cfg.OperatorKey = nil }
	}
	for _, o := range c.ops[:4] {
		o.start()
	}
	c.advance(10)
	c.ops[4].start() // from genesis
	c.advance(5)

	source, copied := c.ops[3], c.ops[5]
	source.stop()
	for _, db := range []string{"blockstore.db", "state.db"} {
		require.NoError(t, os.CopyFS(filepath.Join(copied.dir, "data", db), os.DirFS(filepath.Join(source.dir, "data", db))))
	}
	copied.ledger = source.ledger.copy()
	from := copied.ledger.len()
	require.Positive(t, from)
	source.start()
	copied.start()
	c.advance(5)
	_, at := copied.machine.history()
	require.LessOrEqual(t, len(at), copied.machine.height()-3*from, "nothing of the copied ledger is committed again")
	c.same()
	st := copied.rotation.Status()
	require.Zero(t, st.Power)
	require.False(t, st.Syncing)
}

// bundles notes what an operator's pool was given.
type bundles struct {
	mu   sync.Mutex
	got  map[string]int
	fail error
}

func (b *bundles) take(data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[string(data)]++
	return b.fail
}

func (b *bundles) has(data string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got[data]
}

// A bundle sent at one operator is given to all others once, also to those that it is not
// connected to, and to one that connects later.
func TestBundles(t *testing.T) {
	c := newCluster(t, 4, 4)
	pools := make([]*bundles, 4)
	for i, o := range c.ops {
		pools[i] = &bundles{got: map[string]int{}}
		o.prepare = func(_ *fakeMachine, cfg *Config) {
			cfg.OnBundle, cfg.OnCancel = pools[i].take, pools[i].take
			cfg.Bundles = func() [][]byte { return [][]byte{[]byte("earlier")} }
		}
	}
	// 0 and 3 are not connected: what 0 sends reaches 3 by the others.
	apart := func(o, p *operator) {
		o.peers = slices.DeleteFunc(o.peers, func(peer string) bool { return peer[:40] == p.keys.NodeID })
	}
	apart(c.ops[0], c.ops[3])
	apart(c.ops[3], c.ops[0])
	c.start()
	c.wait("connections", func() bool { return c.ops[0].peersAre(2) && c.ops[3].peersAre(2) })
	for i := range 50 {
		require.NoError(t, c.ops[0].rotation.Broadcast([]byte{'b', byte(i)}))
	}
	c.wait("bundles everywhere", func() bool {
		for _, p := range pools[1:] {
			for i := range 50 {
				if p.has(string([]byte{'b', byte(i)})) == 0 {
					return false
				}
			}
		}
		return true
	})
	c.wait("what was there before", func() bool { return pools[3].has("earlier") > 0 && pools[0].has("earlier") > 0 })
	for _, p := range pools[1:] {
		for i := range 50 {
			require.Equal(t, 1, p.has(string([]byte{'b', byte(i)})))
		}
	}
	require.Zero(t, pools[0].has("b\x00"), "it does not come back")

	// Cancellations go the same way, and cost nobody a connection.
	require.NoError(t, c.ops[0].rotation.BroadcastCancel([]byte("cancel")))
	c.wait("the cancellation everywhere", func() bool {
		return pools[1].has("cancel") == 1 && pools[2].has("cancel") == 1 && pools[3].has("cancel") == 1
	})
	require.True(t, c.ops[0].peersAre(2))
	require.ErrorContains(t, c.ops[0].rotation.Broadcast(make([]byte, 1<<20)), "too long")
}
