package sequencer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
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

// A bundle whose blocks L1 has taken back runs again whole, also when a leader would have
// only a part of it.
func TestHalfOfAnUndoneBundle(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		for range 8 {
			s.slot(0)
		}
		hash := s.ops[0].goodBundle(0, 0)
		s.slot(0)
		require.Equal(t, bundlepool.Executed, s.ops[1].status(hash).State)
		s.ops[0].reorgL1(s.ops[0].a().head())
		for _, o := range s.ops {
			for _, c := range o.chains {
				c.reset()
			}
		}
		s.ops[0].run(3 * time.Second)
		require.NotZero(t, s.ops[1].status(hash).Undone)
		sub := s.propose(0)
		require.Len(t, slices.Collect(sub.Bundles()), 1)
		half := clone(t, sub)
		half.Steps = withoutLastOfBundle(half.Steps)
		require.ErrorIs(t, s.ops[1].seq.Verify(bg, half), ErrBundle)
		s.verify(sub)
		s.commit(sub)
		require.Equal(t, bundlepool.Executed, s.ops[1].status(hash).State)
	})
}

func TestCompletes(t *testing.T) {
	tx := func(chain chainID, n byte) sequence.BundleItem {
		return sequence.BundleItem{Chain: chain, Transaction: []byte{n}}
	}
	relay := sequence.BundleItem{Chain: chainB}
	b := &sequence.Bundle{Items: []sequence.BundleItem{tx(chainA, 1), relay, tx(chainB, 2), tx(chainA, 3)}}
	kept := func(items ...int) (out []builder.Kept) {
		for _, i := range items {
			out = append(out, builder.Kept{ItemResult: bundlepool.ItemResult{Item: i}})
		}
		return out
	}
	for name, test := range map[string]struct {
		kept  []builder.Kept
		items []sequence.BundleItem
		want  bool
	}{
		"nothing stands":       {nil, b.Items, false},
		"chain A stands":       {kept(0, 3), []sequence.BundleItem{relay, tx(chainB, 2)}, true},
		"chain B stands":       {kept(1, 2), []sequence.BundleItem{tx(chainA, 1), tx(chainA, 3)}, true},
		"a part of the relays": {kept(0, 1, 3), []sequence.BundleItem{relay, tx(chainB, 2)}, true},
		"all stands":           {kept(0, 1, 2, 3), nil, true},
		"one is missing":       {kept(1, 2), []sequence.BundleItem{tx(chainA, 1)}, false},
		"the relay is missing": {kept(0, 3), []sequence.BundleItem{tx(chainB, 2)}, false},
		"another order":        {kept(1, 2), []sequence.BundleItem{tx(chainA, 3), tx(chainA, 1)}, false},
		"one too many":         {kept(0, 3), []sequence.BundleItem{relay, tx(chainB, 2), tx(chainB, 9)}, false},
		"one that may revert":  {kept(1, 2), []sequence.BundleItem{{Chain: chainA, Transaction: []byte{1}, MayRevert: true}, tx(chainA, 3)}, false},
		"one that stands":      {kept(0, 3), []sequence.BundleItem{tx(chainA, 1), relay, tx(chainB, 2)}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, completes(b, test.items, test.kept)) })
	}
}

// The origin selector has seen the next L1 block, and L1 replaces it without the driver
// noticing: the others would refuse a block on it for ever.
func TestNextOriginReplaced(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		w := s.ops[0]
		for w.a().view.head() == l1Start {
			s.slot(0)
		}
		require.EqualValues(t, l1Start, w.a().head().L1Origin.Number, "the next block is the first that takes it")
		w.l1.reorg(l1Start + 1)
		sub, err := w.seq.Propose(bg, nil)
		for range 100 {
			if err == nil {
				break
			}
			w.run(100 * time.Millisecond)
			sub, err = w.seq.Propose(bg, nil)
		}
		require.NoError(t, err)
		s.verify(sub)
		s.commit(sub)
		s.same()
		s.slot(0)
		require.EqualValues(t, l1Start+1, w.a().head().L1Origin.Number)
		require.True(t, w.l1.canonical(w.a().head().L1Origin))
	})
}

// An operator that was away is told what was agreed on while its drivers cannot follow yet, and
// they then derive the same blocks from what the batchers have posted. Nothing was taken back.
func TestDerivedBeforeAgreed(t *testing.T) {
	for _, k := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d subblocks", k), func(t *testing.T) {
			inSet(t, 2, k, func(t *testing.T, s *set) {
				s.slot(0)
				w, away := s.ops[0], s.ops[1]
				hash := w.goodBundle(1, 0)
				var subs []*sequence.Subblock
				for slots := 0; slots < 5; {
					sub := s.propose(0)
					require.NoError(t, w.seq.Commit(bg, sub, []byte("agreement")))
					subs = append(subs, sub)
					if sub.Last() {
						slots++
					}
				}
				require.Equal(t, bundlepool.Executed, w.status(hash).State)
				for _, c := range away.chains {
					c.stopNode()
				}
				for _, sub := range subs {
					require.NoError(t, away.seq.Commit(bg, sub, []byte("agreement")))
				}
				require.Equal(t, bundlepool.Executed, away.status(hash).State)
				for i, c := range away.chains {
					from := w.chains[i]
					head := from.head()
					for n := c.head().Number + 1; n <= head.Number; n++ {
						env, err := from.engine.Payload(bg, from.ref(n).Hash)
						require.NoError(t, err)
						require.NoError(t, c.engine.Import(bg, env))
						require.NoError(t, c.engine.SetHead(bg, from.ref(n).Hash, common.Hash{}, common.Hash{}))
					}
					c.startNode()
				}
				away.run(5 * time.Second)
				for _, c := range away.chains {
					logged, _, _ := away.ledger.Head(c.id)
					require.Equal(t, c.head().ID(), logged)
					require.False(t, away.ledger.Builds(c.id, logged.Hash))
					for n := logged.Number - 4; n <= logged.Number; n++ {
						_, err := away.ledger.Payload(c.id, c.ref(n).Hash)
						require.NoError(t, err, "a crash of the engine now would cost block %d", n)
					}
				}
				st := away.status(hash)
				require.Equal(t, bundlepool.Executed, st.State)
				require.Zero(t, st.Undone)
				s.same()
			})
		})
	}
}
