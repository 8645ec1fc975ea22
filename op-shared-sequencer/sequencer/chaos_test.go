package sequencer

import (
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// TestChaos lets everything go wrong at random, on a seed: drivers that go back, restart
// and are switched off, engines that fail, restart and lose blocks, a process that stops or
// crashes, L1 reorgs, on odd seeds derivation that replaces blocks as after an
// invalidation, and bundles all the while. All along (driver_test.go):
//
//   - a block is in the ledger before it is handed over;
//   - no two blocks are handed over at one height without a reset between;
//   - an agreed block is replaced only if its L1 origin, or that of one below it, is gone;
//   - blocks hold what the agreed steps say, the steps of a bundle together.
//
// When the storm is over the chains meet in lockstep, no slot was skipped, and every
// bundle is on all its chains or on none, as its status says; where derivation replaced
// one chain's block and the bundle could not be completed, it is reported as undone.
func TestChaos(t *testing.T) {
	for seed := range int64(chaosSeeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				(&storm{t: t, world: w, rng: rand.New(rand.NewSource(seed)), replaces: seed%2 == 1}).run()
			})
		})
	}
}

const (
	chaosSeeds = 6
	chaosSteps = 350 // of 250 ms on average
)

type storm struct {
	*world
	t       *testing.T
	rng     *rand.Rand
	bundles []*sentBundle
	later   []task // that mend what was broken
	// replaces: derivation replaces blocks.
	replaces bool
}

type task struct {
	at time.Time
	do func()
}

// sentBundle is a bundle and its own transactions.
type sentBundle struct {
	hash common.Hash
	on   map[*testChain][]common.Hash
}

func (s *storm) chance(percent int) bool { return s.rng.Intn(100) < percent }

func (s *storm) some(limit time.Duration) time.Duration {
	return time.Duration(s.rng.Int63n(int64(limit)))
}

func (s *storm) anyChain() *testChain { return s.chains[s.rng.Intn(len(s.chains))] }

func (s *storm) after(d time.Duration, do func()) {
	s.later = append(s.later, task{time.Now().Add(d), do})
}

// due does what was to be done by now.
func (s *storm) due() {
	var left []task
	events := s.later
	s.later = nil
	for _, e := range events {
		if e.at.After(time.Now()) {
			left = append(left, e)
		} else {
			e.do()
		}
	}
	s.later = append(s.later, left...)
}

func (s *storm) run() {
	saves := rand.New(rand.NewSource(s.rng.Int63())) // in the core's goroutine
	s.onSeal = func() {                              // as the service does, which may be behind when it crashes
		if saves.Intn(4) > 0 {
			require.NoError(s.t, s.pool.Save(filepath.Join(s.dir, "bundles")))
		}
	}
	s.start()
	s.world.run(3 * time.Second)
	for i := range chaosSteps {
		s.due()
		s.step()
		if i%8 == 0 {
			s.deriveAgain(s.anyChain())
		}
		s.world.run(s.some(500 * time.Millisecond))
	}
	for len(s.later) > 0 {
		s.world.run(time.Second)
		s.due()
	}
	for _, c := range s.chains {
		c.engine.SetHook(nil)
		c.engine.SetDown(false)
		if c.node.closed {
			c.startNode()
		}
		if !c.node.seq.Active() {
			require.NoError(s.t, c.node.seq.Start(bg, c.head().Hash))
		}
	}
	for range 20 {
		s.world.run(time.Second)
		for _, c := range s.chains {
			s.deriveAgain(c)
		}
	}
	s.lockstep()
	for _, c := range s.chains {
		head := c.head()
		require.Equal(s.t, head.Time-s.genesis, head.Number, "chain %s: a slot was skipped", c.id)
		logged, _, _ := s.ledger.Head(c.id)
		require.Equal(s.t, head.ID(), logged)
		require.True(s.t, s.l1.canonical(head.L1Origin))
		have, _ := s.history.Head(c.id)
		require.Equal(s.t, head.Hash, have.Hash)
	}
	s.checkBundles()
}

func (s *storm) step() {
	switch n := s.rng.Intn(100); {
	case n < 35:
		s.send()
	case n < 45:
		s.anyChain().sendPlain(1 + s.rng.Intn(3))
	case n < 50:
		s.goBack(s.anyChain())
	case n < 53:
		if c := s.anyChain(); !c.node.closed {
			c.reset()
		}
	case n < 56:
		s.reorg()
	case n < 66:
		calls := []string{"open", "execute", "savepoint", "fill", "seal", "insert", "import", "setHead", "block", "blockByHash", "receipts", "head", "payload", "discard", "release", "rollback"}
		unavailable(s.anyChain(), calls[s.rng.Intn(len(calls))], 1+s.rng.Intn(4))
	case n < 70:
		s.anyChain().engine.Crash(s.rng.Intn(8))
	case n < 73:
		c := s.anyChain()
		c.engine.SetDown(true)
		s.after(s.some(8*time.Second), func() {
			c.engine.Crash(s.rng.Intn(8))
			c.engine.SetDown(false)
		})
	case n < 77:
		c := s.anyChain()
		c.stopNode()
		s.after(s.some(7*time.Second), func() {
			if c.node.closed {
				c.startNode()
			}
		})
	case n < 80:
		c := s.anyChain()
		if _, err := c.node.seq.Stop(bg); err != nil {
			require.ErrorIs(s.t, err, sequencing.ErrSequencerAlreadyStopped)
		}
		s.after(s.some(3*time.Second), func() {
			if !c.node.closed && !c.node.seq.Active() {
				require.NoError(s.t, c.node.seq.Start(bg, c.head().Hash))
			}
		})
	case n < 82:
		if s.chance(50) {
			s.stop()
		} else {
			s.crash()
		}
		for _, c := range s.chains {
			if s.chance(50) {
				c.engine.Crash(s.rng.Intn(10))
			}
		}
		s.world.run(s.some(4 * time.Second))
		s.start()
	case n < 88:
		if c := s.anyChain(); !c.node.closed {
			safe, ok := s.standing(c, uint64(2+s.rng.Intn(10)))
			if ok {
				c.promote(safe)
			}
		}
	case n < 91 && s.replaces:
		s.replace(s.anyChain())
	}
}

// replace has derivation put another block in the place of one of the newest.
func (s *storm) replace(c *testChain) {
	if c.node.closed {
		return
	}
	parent, ok := s.standing(c, uint64(1+s.rng.Intn(4)))
	c.mu.Lock()
	ok = ok && parent.Number+1 >= uint64(len(c.onL1)) // not its own
	c.mu.Unlock()
	if !ok {
		return
	}
	c.mayReplace()
	if c.derive(parent) != nil {
		return
	}
	n := c.node
	s.after(time.Second, func() { // derivation begins anew when its build has failed
		n.seq.mu.Lock()
		deriving := n.seq.standing.deriving
		n.seq.mu.Unlock()
		if deriving && !n.closed {
			c.reset()
		}
	})
}

// deriveAgain makes the blocks again that derivation had made, when they are lost: the
// ledger does not have them.
func (s *storm) deriveAgain(c *testChain) {
	c.mu.Lock()
	for i := 1; i < len(c.onL1); i++ {
		ref, err := derive.PayloadToBlockRef(c.rollup, c.onL1[i].ExecutionPayload)
		require.NoError(s.t, err)
		if !s.l1.canonical(ref.L1Origin) {
			c.onL1 = c.onL1[:i]
		}
	}
	onL1 := c.onL1
	c.mu.Unlock()
	head := c.head()
	if c.node.closed || head.Number+1 >= uint64(len(onL1)) || onL1[head.Number].ExecutionPayload.BlockHash != head.Hash {
		return
	}
	for _, env := range onL1[head.Number+1:] {
		if c.engine.Import(bg, env) != nil || c.engine.SetHead(bg, env.ExecutionPayload.BlockHash, common.Hash{}, common.Hash{}) != nil {
			return
		}
	}
	c.reset()
}

// standing is a block that the driver stands on, some blocks below its head, if its
// engine has what is between.
func (s *storm) standing(c *testChain, below uint64) (eth.L2BlockRef, bool) {
	at := c.head()
	for ; below > 0 && at.Number > 0; below-- {
		var err error
		if at, err = (execEngine{c}).L2BlockRefByHash(bg, at.ParentHash); err != nil {
			return at, false
		}
	}
	return at, at.Number > 0
}

// goBack takes a driver back to an older block of its chain, as a reset does that was
// more careful than it had to be.
func (s *storm) goBack(c *testChain) {
	if c.node.closed {
		return
	}
	to, ok := s.standing(c, uint64(1+s.rng.Intn(8)))
	if !ok {
		return
	}
	n, safe := c.node, c.genesisRef()
	n.do(func() { n.ec.ForceReset(n.ctx, to, safe, safe, safe) })
}

// reorg replaces the newest L1 blocks; the drivers notice, each in its own time, or not.
func (s *storm) reorg() {
	s.l1.reorg(max(l1Start+1, s.a().view.head()-uint64(s.rng.Intn(3))))
	for _, c := range s.chains {
		if s.chance(80) {
			s.after(s.some(600*time.Millisecond), func() {
				if !c.node.closed {
					c.reset()
				}
			})
		}
	}
}

// send sends a bundle over one or both chains, most of them good.
func (s *storm) send() {
	user := 10 + len(s.bundles)
	if user == len(accounts) {
		return
	}
	first, second := s.a(), s.b()
	if s.chance(50) {
		first, second = second, first
	}
	sent := &sentBundle{on: map[*testChain][]common.Hash{}}
	b := &sequence.Bundle{Expiry: s.pool.Slot() + sequence.Slot(1+s.rng.Intn(60))}
	add := func(c *testChain, nonce uint64, ops ...enginefake.Op) {
		raw := enginefake.Tx(accounts[user], c.id, nonce, ops...)
		sent.on[c] = append(sent.on[c], enginefake.Hash(raw))
		b.Items = append(b.Items, item(c, raw))
	}
	add(first, 0, enginefake.Send(second.id))
	switch s.rng.Intn(6) {
	case 0: // on one chain
	case 1:
		add(second, 0)
	case 2:
		b.Items = append(b.Items, relayOn(second))
		add(second, 0, enginefake.Revert("no"))
	default:
		b.Items = append(b.Items, relayOn(second))
		add(second, 0, enginefake.Log("arrived"))
		add(first, 1)
	}
	var err error
	if sent.hash, err = s.pool.Add(b); err != nil {
		require.ErrorContains(s.t, err, "expiry") // the slot has moved on
		return
	}
	s.bundles = append(s.bundles, sent)
}

func describe(st bundlepool.Status) string {
	text := fmt.Sprintf("%s %s, %d attempts, undone %d times, slot %d, expiry %d", st.Hash, st.State, st.Attempts, st.Undone, st.Slot, st.Expiry)
	for _, it := range st.Items {
		text += fmt.Sprintf("; item %d in block %d of chain %s", it.Item, it.BlockNumber, it.Chain)
	}
	if st.Failure != nil {
		text += fmt.Sprintf("; failure at item %d: %s", st.Failure.Item, st.Failure.Reason)
	}
	return text
}

// checkBundles: every bundle is on all its chains or on none, as its status says.
func (s *storm) checkBundles() {
	counts := map[bundlepool.State]int{}
	for i, b := range s.bundles {
		on, off := 0, 0
		for c, txs := range b.on {
			for _, tx := range txs {
				if _, ok := c.engine.Includes(c.head().Hash, tx); ok {
					on++
				} else {
					off++
				}
			}
		}
		st, err := s.pool.Status(b.hash)
		half := s.replaces && (st.State == bundlepool.Undone || errors.Is(err, bundlepool.ErrUnknownBundle))
		require.True(s.t, on == 0 || off == 0 || half, "bundle %d: %d transactions are in blocks, %d are not: %s", i, on, off, describe(st))
		if errors.Is(err, bundlepool.ErrUnknownBundle) {
			continue // came after the pool was last saved before a crash
		}
		require.NoError(s.t, err)
		counts[st.State]++
		executed := st.State == bundlepool.Executed || st.State == bundlepool.Safe
		require.True(s.t, executed == (on > 0) || half, "bundle %d: %s", i, describe(st))
	}
	s.t.Logf("%d bundles: %v", len(s.bundles), counts)
	require.NotZero(s.t, counts[bundlepool.Executed]+counts[bundlepool.Safe])
}
