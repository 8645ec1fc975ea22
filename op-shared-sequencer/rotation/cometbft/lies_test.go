package cometbft

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// raceDetector says whether this test binary has it.
var raceDetector bool

// counts notes what the rotation tells its metrics.
type counts struct {
	NoMetrics
	mu       sync.Mutex
	rejected map[string]int
	gossip   map[string]int
	rounds   []int32
}

func newCounts() *counts { return &counts{rejected: map[string]int{}, gossip: map[string]int{}} }

func (c *counts) Rejected(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rejected[reason]++
}

func (c *counts) Gossip(outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gossip[outcome]++
}

func (c *counts) Committed(_ uint64, round int32, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rounds = append(c.rounds, round)
}

func (c *counts) of(reason string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rejected[reason]
}

func (c *counts) heard(outcome string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gossip[outcome]
}

// liar tells one kind of lie in its turns.
type liar struct {
	*operator
	mu   sync.Mutex
	kind string
	told map[string][]uint64 // the heights
}

func (l *liar) tell(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kind = kind
}

func (l *liar) heights(kind string) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told[kind])
}

// The lies, and the reasons they are rejected for.
var lies = map[string]string{
	"bad subblock":    RejectVerify,
	"stranger's":      RejectLeader,
	"other operator":  RejectLeader,
	"next height":     RejectHeight,
	"garbage":         RejectMalformed,
	"nothing":         RejectPass,
	"bad change":      RejectChange,
	"garbage change":  RejectChange,
	"changes galore":  RejectMalformed,
	"broken sequence": RejectVerify,
}

func (l *liar) intercept(height uint64, txs [][]byte) [][]byte {
	l.mu.Lock()
	kind := l.kind
	if kind != "" {
		l.told[kind] = append(l.told[kind], height)
	}
	l.mu.Unlock()
	sign := func(height uint64, salt byte, key *ecdsa.PrivateKey) [][]byte {
		s, err := operators.SignSubblock(l.genesis.ID(), height, l.machine.make(salt), key)
		if err != nil {
			panic(err)
		}
		return [][]byte{s.Encode()}
	}
	change := operators.Change{Kind: operators.JoinChain, Chain: 901, Expiry: 100}
	switch kind {
	case "bad subblock":
		return sign(height, 0xbd, l.key)
	case "stranger's":
		key, _ := crypto.GenerateKey()
		return sign(height, 0, key)
	case "other operator":
		return sign(height, 0, l.ops[0].key)
	case "next height":
		return sign(height+1, 0, l.key)
	case "garbage":
		return [][]byte{{1, 2, 3}}
	case "nothing":
		return nil
	case "bad change": // the chain takes part already
		c, err := operators.SignChange(l.genesis.ID(), change, l.key)
		if err != nil {
			panic(err)
		}
		return append(sign(height, 1, l.key), c.Encode())
	case "garbage change":
		return append(sign(height, 1, l.key), []byte{7})
	case "changes galore":
		txs := sign(height, 1, l.key)
		for range maxBlockChanges + 1 {
			txs = append(txs, []byte{7})
		}
		return txs
	case "broken sequence":
		sub := l.machine.make(0)
		sub.Parent[0]++
		s, err := operators.SignSubblock(l.genesis.ID(), height, sub, l.key)
		if err != nil {
			panic(err)
		}
		return [][]byte{s.Encode()}
	}
	return txs
}

// A leader that lies is rejected by the others, with the reason, and the set goes on.
func TestLies(t *testing.T) {
	c := newCluster(t, 4, 4)
	l := &liar{operator: c.ops[3], told: map[string][]uint64{}}
	seen := make([]*counts, 3)
	for i, o := range c.ops[:3] {
		seen[i] = newCounts()
		o.prepare = func(_ *fakeMachine, cfg *Config) { cfg.Metrics, cfg.Timeouts.Misses = seen[i], 1000 }
	}
	l.prepare = func(_ *fakeMachine, cfg *Config) { cfg.intercept, cfg.Timeouts.Misses = l.intercept, 1000 }
	c.start()
	c.advance(2)
	for kind, reason := range lies {
		before := make([]int, 3)
		for i := range seen {
			before[i] = seen[i].of(reason)
		}
		l.tell(kind)
		c.wait(kind+" is told and rejected by all", func() bool {
			for i := range seen {
				if seen[i].of(reason) == before[i] {
					return false
				}
			}
			return len(l.heights(kind)) > 0
		})
		l.tell("")
		at := l.heights(kind)[0]
		c.reach(int(at))
		order, _ := c.ops[0].machine.history()
		require.NotEqual(t, l.address(), leaderOf(order[at-1]), "%s at height %d", kind, at)
	}
	c.wait("it leads again when it says the truth", func() bool {
		order, _ := c.ops[0].machine.history()
		return leaderOf(order[len(order)-1]) == l.address()
	})
	c.same()
	for _, o := range c.ops[:3] {
		require.Empty(t, o.rotation.Evidence().Subblocks, "it never signed two for one height and view")
	}
}

// A leader that signs two subblocks for one height is found out by every operator that sees
// both, and the evidence outlives a restart.
func TestEquivocation(t *testing.T) {
	c := newCluster(t, 4, 4)
	e := c.ops[3]
	var at atomic.Uint64 // the height it equivocates at
	var turns atomic.Int64
	var found atomic.Bool
	for i, o := range c.ops {
		o.prepare = func(m *fakeMachine, cfg *Config) {
			if i < 3 { // all others pass at that height, until it is found out
				m.onPropose = func(_ context.Context, height int) error {
					if uint64(height) == at.Load() && !found.Load() {
						return fmt.Errorf("%w: for the test", rotation.ErrPass)
					}
					return nil
				}
				return
			}
			cfg.intercept = func(height uint64, txs [][]byte) [][]byte {
				// Under load another's subblock may be agreed on in between: then at the next.
				if height > 5 && !found.Load() {
					at.Store(height)
					s, err := operators.SignSubblock(c.genesis.ID(), height, m.make(byte(0xbd+turns.Add(1)%2)), e.key)
					if err != nil {
						panic(err)
					}
					return [][]byte{s.Encode()}
				}
				return txs
			}
		}
	}
	c.start()
	c.wait("evidence at all others", func() bool {
		for _, o := range c.ops[:3] {
			if len(o.rotation.Evidence().Subblocks) == 0 {
				return false
			}
		}
		return true
	})
	found.Store(true)
	for _, o := range c.ops[:3] {
		for _, e := range o.rotation.Evidence().Subblocks {
			require.Equal(t, c.ops[3].address(), e.Leader)
			leader, err := e.Check(c.genesis.ID())
			require.NoError(t, err)
			require.Equal(t, e.Leader, leader)
		}
	}
	c.advance(3)
	c.same()
	before := c.ops[0].rotation.Evidence().Subblocks
	c.ops[0].stop()
	c.ops[0].start()
	require.Equal(t, before, c.ops[0].rotation.Evidence().Subblocks)
}

// An operator that runs twice with the same keys votes twice. The others prove it to each
// other, agree on it, and keep it over a restart.
func TestVotesTwice(t *testing.T) {
	if raceDetector {
		// prepareEvidenceMessage copies the reactor, which may be stopped meanwhile.
		t.Skip("CometBFT's evidence reactor has a data race of its own")
	}
	c := newCluster(t, 5, 4)
	one, two := c.ops[3], c.ops[4]
	two.key = one.key
	key, err := os.ReadFile(filepath.Join(one.dir, voteKeyFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(two.dir, voteKeyFile), key, 0o600))
	for _, o := range c.ops[:4] {
		o.prepare = func(m *fakeMachine, _ *Config) {
			m.onPropose = func(context.Context, int) error {
				if m.name == one.name { // so that its two processes sign no two subblocks
					return fmt.Errorf("%w: for the test", rotation.ErrPass)
				}
				return nil
			}
		}
	}
	two.prepare = func(m *fakeMachine, _ *Config) {
		m.onPropose = func(context.Context, int) error { return fmt.Errorf("%w: for the test", rotation.ErrPass) }
		// The one votes for what the others propose, the other against it.
		m.onVerify = func(context.Context, *sequence.Subblock) error { return errors.New("for the test") }
	}
	c.start()
	c.wait("evidence at all others", func() bool {
		for _, o := range c.ops[:3] {
			if len(o.rotation.Evidence().Votes) == 0 {
				return false
			}
		}
		return true
	})
	for _, o := range c.ops[:3] {
		for _, v := range o.rotation.Evidence().Votes {
			require.Equal(t, "DUPLICATE_VOTE", v.Kind)
			require.Equal(t, one.address(), v.Operator)
			require.Equal(t, uint64(10), v.Power)
		}
		require.Empty(t, o.rotation.Evidence().Subblocks)
	}
	two.stop()
	c.advance(3)
	c.same()
	before := c.ops[0].rotation.Evidence().Votes[0]
	c.ops[0].stop()
	c.ops[0].start()
	require.Equal(t, before, c.ops[0].rotation.Evidence().Votes[0])
}
