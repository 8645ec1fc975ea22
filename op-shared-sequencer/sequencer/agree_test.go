package sequencer

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// still is a rotation that does nothing: the test makes the calls.
type still struct{}

func (still) Start(context.Context) error  { return nil }
func (still) Stop(context.Context) error   { return nil }
func (still) Schedule(int) []rotation.Turn { return nil }

// set is operators that agree with each other by the test's hand.
type set struct {
	t   *testing.T
	ops []*world
}

// inSet runs a test with n operators over one L1.
func inSet(t *testing.T, n, subblocks int, test func(t *testing.T, s *set)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &set{t: t}
		for i := range n {
			w := newWorld(t, filepath.Join(dir, fmt.Sprint(i)))
			w.cfg.Subblocks = subblocks
			w.rotation = func(rotation.Machine) (rotation.Rotation, error) { return still{}, nil }
			if i > 0 {
				w.l1 = s.ops[0].l1
				for _, c := range w.chains {
					c.view.l1 = w.l1
				}
			}
			s.ops = append(s.ops, w)
		}
		defer func() {
			for _, w := range s.ops {
				for _, c := range w.chains {
					c.engine.SetHook(nil)
				}
				w.stop()
			}
		}()
		for _, w := range s.ops {
			w.start()
		}
		s.ops[0].run(3 * time.Second)
		for s.ops[0].seq.Due(nil).Before(time.Now()) {
			s.slot(0) // those that were missed
		}
		test(t, s)
	})
}

// propose has an operator build the next subblock at its time.
func (s *set) propose(leader int) *sequence.Subblock {
	s.t.Helper()
	w := s.ops[leader]
	w.seq.Lead(nil)
	w.run(time.Until(w.seq.Due(nil)))
	sub, err := w.seq.Propose(bg, nil)
	require.NoError(s.t, err)
	return sub
}

// verify has the others verify it.
func (s *set) verify(sub *sequence.Subblock, but ...int) {
	s.t.Helper()
	for i, w := range s.ops {
		if !slices.Contains(but, i) {
			require.NoError(s.t, w.seq.Verify(bg, sub), "operator %d", i)
		}
	}
}

func (s *set) commit(sub *sequence.Subblock) {
	s.t.Helper()
	for i, w := range s.ops {
		require.NoError(s.t, w.seq.Commit(bg, sub, fmt.Appendf(nil, "agreement on %s", sub.Hash())), "operator %d", i)
	}
}

// slot agrees on all subblocks of a slot, each led by the next operator.
func (s *set) slot(leader int) (subs []*sequence.Subblock) {
	s.t.Helper()
	for {
		sub := s.propose((leader + len(subs)) % len(s.ops))
		s.verify(sub)
		s.commit(sub)
		subs = append(subs, sub)
		if sub.Last() {
			return subs
		}
	}
}

// same: all operators stand on the same blocks.
func (s *set) same() {
	s.t.Helper()
	for i := range s.ops[0].chains {
		for o, w := range s.ops {
			require.Equal(s.t, s.ops[0].chains[i].head(), w.chains[i].head(), "operator %d", o)
		}
	}
}

// crossing adds a good bundle to an operator's pool.
func (w *world) goodBundle(user int, nonce uint64) common.Hash {
	return w.bundle(w.now()+20, item(w.a(), enginefake.Tx(accounts[user], chainA, nonce, enginefake.Send(chainB))), relayOn(w.b()),
		item(w.b(), enginefake.Tx(accounts[user], chainB, nonce, enginefake.Log("there"))))
}

// Every operator tells of the same subblocks, with the same results of every transaction,
// whether it led them or not; one that had no part in a subblock says so.
func TestListener(t *testing.T) {
	for _, k := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d subblocks", k), func(t *testing.T) {
			inSet(t, 3, k, func(t *testing.T, s *set) {
				for _, w := range s.ops {
					w.committed = nil
				}
				var subs []*sequence.Subblock
				for i := range 3 {
					s.ops[i].goodBundle(i, 0)
					s.ops[i].a().sendPlain(2)
					subs = append(subs, s.slot(i)...)
				}
				agreed := rotation.Agreed{Turn: rotation.Turn{Height: 7, Leader: common.Address{1}}, Round: 2}
				for { // the last slot goes past operator 2
					sub := s.propose(0)
					s.verify(sub, 2)
					s.ops[0].seq.Witness(agreed)
					s.commit(sub)
					if subs = append(subs, sub); sub.Last() {
						break
					}
				}
				executed := 0
				for o, w := range s.ops {
					require.Len(t, w.committed, len(subs))
					for i, c := range w.committed {
						require.Equal(t, subs[i].Hash(), c.Hash, "operator %d", o)
						if i >= 3*k {
							require.Equal(t, o == 0, c.Led)
							require.Equal(t, o == 0, c.Agreed.Height == agreed.Height, "as it was told")
							if o == 2 {
								require.Nil(t, c.Results)
							}
							continue
						}
						require.Len(t, c.Results, len(subs[i].Steps))
						for j, st := range subs[i].Steps {
							require.Len(t, c.Results[j], len(st.Transactions))
							for n, r := range c.Results[j] {
								require.Equal(t, st.Transactions[n], r.Raw)
								require.Equal(t, s.ops[0].committed[i].Results[j][n].Logs, r.Logs, "operator %d", o)
								for _, l := range r.Logs {
									if m, err := messages.DecodeExecutingMessageLog(l); err == nil && m != nil {
										executed++
									}
								}
							}
						}
						require.True(t, c.Led || c.Tried == nil)
					}
				}
				require.Positive(t, executed)
				require.Zero(t, executed%len(s.ops), "each operator tells of the same messages")
			})
		})
	}
}

// Operators that take turns come to the same blocks, and every one of them knows what
// became of a bundle that only one was sent.
func TestAgree(t *testing.T) {
	for _, k := range []int{1, 2, 5} {
		t.Run(fmt.Sprintf("%d subblocks", k), func(t *testing.T) {
			inSet(t, 3, k, func(t *testing.T, s *set) {
				var sent []common.Hash
				first := s.ops[0].a().head().Number
				for i := range 6 {
					w := s.ops[i%3]
					sent = append(sent, w.goodBundle(i, 0))
					w.a().sendPlain(2)
					subs := s.slot(i % 3)
					require.Len(t, subs, k)
					s.same()
				}
				s.slot(0) // the bundles that missed their sender's turn
				s.slot(1)
				s.slot(2)
				s.same()
				head := s.ops[0].a().head()
				require.EqualValues(t, first+9, head.Number)
				for _, h := range sent {
					for o, w := range s.ops {
						st := w.status(h)
						require.Equal(t, bundlepool.Executed, st.State, "operator %d", o)
						require.Len(t, st.Items, 3)
						for _, it := range st.Items {
							require.NotZero(t, it.GasUsed)
						}
					}
				}
			})
		})
	}
}

// What an operator tried and was not agreed leaves no trace, and it can follow what was
// agreed without it.
func TestAnotherRound(t *testing.T) {
	for _, k := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d subblocks", k), func(t *testing.T) {
			inSet(t, 3, k, func(t *testing.T, s *set) {
				for round := range 5 {
					s.ops[0].a().sendPlain(3)
					s.ops[1].b().sendPlain(1)
					for range k {
						lost := s.propose(0)
						s.verify(lost, 0)
						won := s.propose(1)
						require.NotEqual(t, lost.Hash(), won.Hash())
						if round%2 == 0 {
							s.verify(won, 0) // operator 0 did not hear of it
						}
						s.commit(won)
					}
					s.same()
				}
			})
		})
	}
}

// A draft that is built on a subblock under vote becomes the next proposal when that is
// agreed, and is dropped when another is.
func TestDraftWhileVoting(t *testing.T) {
	inSet(t, 2, 4, func(t *testing.T, s *set) {
		for i := range 12 {
			s.ops[0].a().sendPlain(1)
			sub := s.propose(0)
			s.verify(sub, 0)
			s.ops[1].seq.Lead(nil)
			s.ops[1].run(20 * time.Millisecond)
			if i%3 == 2 && !sub.Last() {
				other := s.propose(1) // it thinks that the vote failed
				require.Equal(t, sub.Parent, other.Parent)
				require.NoError(t, s.ops[0].seq.Verify(bg, other))
				sub = other
			}
			s.commit(sub)
		}
		s.same()
	})
}

// Whatever a leader may lie about, the others refuse, with the reason, and lose nothing.
func TestRefused(t *testing.T) {
	steps := func(change func(sub *sequence.Subblock, i int)) func(sub *sequence.Subblock) {
		return func(sub *sequence.Subblock) {
			for i := range sub.Steps {
				if sub.Steps[i].Bundle == (common.Hash{}) {
					change(sub, i)
					return
				}
			}
			panic("no plain step")
		}
	}
	for name, test := range map[string]struct {
		change func(sub *sequence.Subblock)
		want   error
	}{
		"another parent":      {func(sub *sequence.Subblock) { sub.Parent[0]++ }, ErrOutOfPlace},
		"another index":       {func(sub *sequence.Subblock) { sub.Index, sub.Openings = 1, nil }, ErrOutOfPlace},
		"a chain left out":    {leaveOut, ErrOmission},
		"gas limit":           {func(sub *sequence.Subblock) { sub.Openings[0].GasLimit++ }, ErrAttributes},
		"fee recipient":       {func(sub *sequence.Subblock) { sub.Openings[1].FeeRecipient[3]++ }, ErrAttributes},
		"randao":              {func(sub *sequence.Subblock) { sub.Openings[1].PrevRandao[3]++ }, ErrAttributes},
		"deposits":            {func(sub *sequence.Subblock) { sub.Openings[0].Deposits = nil }, ErrAttributes},
		"no transactions":     {func(sub *sequence.Subblock) { sub.Openings[0].NoTxPool = true }, ErrAttributes},
		"L1 origin":           {func(sub *sequence.Subblock) { sub.Openings[0].L1Origin.Hash[0]++ }, ErrAttributes},
		"L1 origin too new":   {func(sub *sequence.Subblock) { sub.Openings[0].L1Origin.Number += 50 }, ErrNotReady},
		"parent block":        {func(sub *sequence.Subblock) { sub.Openings[0].ParentHash[0]++ }, ErrNotReady},
		"a later slot":        {func(sub *sequence.Subblock) { sub.Slot++ }, ErrOutOfPlace},
		"a slot far ahead":    {func(sub *sequence.Subblock) { sub.Slot += 10 }, ErrTooEarly},
		"gas used":            {func(sub *sequence.Subblock) { sub.Results[0].GasUsed++ }, ErrResult},
		"receipts":            {func(sub *sequence.Subblock) { sub.Results[1].ReceiptsRoot[0]++ }, ErrResult},
		"block hash":          {func(sub *sequence.Subblock) { sub.Seals[1].BlockHash[0]++ }, ErrResult},
		"block number":        {func(sub *sequence.Subblock) { sub.Seals[1].Number++ }, ErrResult},
		"no seal":             {func(sub *sequence.Subblock) { sub.Seals[1].BlockHash = common.Hash{} }, ErrOmission},
		"unsealed":            {func(sub *sequence.Subblock) { sub.Seals = nil }, ErrOutOfPlace},
		"half a bundle":       {func(sub *sequence.Subblock) { sub.Steps = withoutLastOfBundle(sub.Steps) }, ErrBundle},
		"a bundle by another": {func(sub *sequence.Subblock) { rename(sub.Steps) }, ErrBundle},
		"another in a relay step": {func(sub *sequence.Subblock) {
			for i := range sub.Steps {
				if sub.Steps[i].Relay {
					sub.Steps[i].Transactions = [][]byte{enginefake.Tx(accounts[7], sub.Steps[i].Chain, 0, enginefake.Log("mine"))}
				}
			}
		}, ErrBundle},
		"one more in a relay step": {func(sub *sequence.Subblock) {
			for i := range sub.Steps {
				if sub.Steps[i].Relay {
					sub.Steps[i].Transactions = append(sub.Steps[i].Transactions, enginefake.Tx(accounts[7], sub.Steps[i].Chain, 0, enginefake.Log("mine")))
				}
			}
		}, ErrBundle},
		"fills swapped": {func(sub *sequence.Subblock) {
			var fills []int
			for i := range sub.Steps {
				if sub.Steps[i].Bundle == (common.Hash{}) {
					fills = append(fills, i)
				}
			}
			a, b := fills[0], fills[1]
			sub.Steps[a], sub.Steps[b] = sub.Steps[b], sub.Steps[a]
		}, ErrPlace},
		"transaction dropped": {steps(func(sub *sequence.Subblock, i int) { sub.Steps = slices.Delete(sub.Steps, i, i+1) }), ErrResult},
		"transaction doubled": {steps(func(sub *sequence.Subblock, i int) { sub.Steps = append(sub.Steps, sub.Steps[i]) }), errRefused},
		"garbage":             {steps(func(sub *sequence.Subblock, i int) { sub.Steps[i].Transactions = [][]byte{{1, 2, 3}} }), errRefused},
	} {
		t.Run(name, func(t *testing.T) {
			inSet(t, 2, 1, func(t *testing.T, s *set) {
				s.ops[0].goodBundle(0, 0)
				s.ops[0].a().sendPlain(2)
				s.ops[0].b().sendPlain(2)
				sub := s.propose(0)
				bad := clone(t, sub)
				test.change(bad)
				err := s.ops[1].seq.Verify(bg, bad)
				require.ErrorIs(t, err, test.want)
				require.NoError(t, s.ops[1].seq.Verify(bg, sub), "the honest one is taken after it")
				s.commit(sub)
				s.same()
				s.slot(1)
				s.same()
			})
		})
	}
}

func clone(t *testing.T, sub *sequence.Subblock) *sequence.Subblock {
	c, err := sequence.DecodeSubblock(sub.Encode())
	require.NoError(t, err)
	return c
}

func leaveOut(sub *sequence.Subblock) {
	gone := sub.Openings[1].Chain
	sub.Openings, sub.Results, sub.Seals = sub.Openings[:1], sub.Results[:1], sub.Seals[:1]
	sub.Steps = slices.DeleteFunc(sub.Steps, func(st sequence.Step) bool { return st.Chain == gone || st.Bundle != (common.Hash{}) })
}

func withoutLastOfBundle(steps []sequence.Step) []sequence.Step {
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].Bundle != (common.Hash{}) {
			return slices.Delete(steps, i, i+1)
		}
	}
	panic("no bundle")
}

func rename(steps []sequence.Step) {
	for i := range steps {
		if steps[i].Bundle != (common.Hash{}) {
			steps[i].Bundle[0]++
		}
	}
}

// A message that nobody sent is refused, also when the leader's own executor was passed over.
func TestForgedMessageRefused(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		w := s.ops[0]
		sub := s.propose(0)
		bad := clone(t, sub)
		forged := enginefake.Tx(accounts[0], chainB, 0, enginefake.Execute(messages.Message{
			Identifier: messages.Identifier{
				Origin: enginefake.Script, BlockNumber: w.a().head().Number + 1, Timestamp: uint64(sub.Slot), ChainID: chainA.ID(),
			},
			PayloadHash: common.Hash{7},
		}))
		bad.Steps = append(bad.Steps, sequence.Step{Chain: chainB, Transactions: [][]byte{forged}})
		err := s.ops[1].seq.Verify(bg, bad)
		var no *executor.MessageError
		require.ErrorAs(t, err, &no)
		require.NoError(t, s.ops[1].seq.Verify(bg, sub))
		s.commit(sub)
		s.same()
	})
}

// A relay step relays all that the bundle has sent there so far, and nobody takes less.
func TestRelayStepLeavesNothing(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		w := s.ops[0]
		w.bundle(w.now()+20, item(w.a(), enginefake.Tx(accounts[0], chainA, 0, enginefake.Send(chainB), enginefake.Send(chainB))), relayOn(w.b()))
		sub := s.propose(0)
		require.Len(t, sub.Steps, 3, "a transaction and two relays")
		bad := clone(t, sub)
		bad.Steps = bad.Steps[:2]
		err := s.ops[1].seq.Verify(bg, bad)
		require.ErrorIs(t, err, ErrBundle)
		require.ErrorContains(t, err, "leaves 1 messages to chain 902")
		require.NoError(t, s.ops[1].seq.Verify(bg, sub))
		s.commit(sub)
		s.same()
	})
}

// What a bundle asks for is checked by every operator: its first slot, its conditions, and
// what may revert in it.
func TestTermsOfBundles(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		w := s.ops[0]
		next := sequence.Slot(w.a().head().Time) + 1
		b := &sequence.Bundle{Expiry: next + 20, Items: []sequence.BundleItem{
			{Chain: chainA, Transaction: enginefake.Tx(accounts[0], chainA, 0, enginefake.Revert("may")), MayRevert: true},
			{Chain: chainB, Transaction: enginefake.Tx(accounts[0], chainB, 0, enginefake.Log("goes on"))},
		}, Terms: &sequence.Terms{First: next + 1, Conditions: []sequence.Condition{{Chain: chainB, NumberMax: w.b().head().Number + 2}}}}
		hash, err := w.pool.Add(b)
		require.NoError(t, err)
		require.Empty(t, s.slot(0)[0].Steps, "it is too early")

		sub := s.propose(0)
		require.Len(t, sub.Steps, 2)
		for name, change := range map[string]func(bad *sequence.Subblock){
			"nothing is asked for":   func(bad *sequence.Subblock) { bad.Steps[0].Terms = nil },
			"no condition":           func(bad *sequence.Subblock) { bad.Steps[0].Terms = &sequence.Terms{First: b.Terms.First} },
			"another first slot":     func(bad *sequence.Subblock) { bad.Steps[0].Terms.First-- },
			"a later first slot":     func(bad *sequence.Subblock) { bad.Steps[0].Terms.First++ },
			"it may not revert":      func(bad *sequence.Subblock) { bad.Steps[0].MayRevert = false },
			"the others may, too":    func(bad *sequence.Subblock) { bad.Steps[1].MayRevert = true },
			"a condition that fails": func(bad *sequence.Subblock) { forge(bad, func(t *sequence.Terms) { t.Conditions[0].NumberMax-- }) },
			"not yet":                func(bad *sequence.Subblock) { forge(bad, func(t *sequence.Terms) { t.First += 5 }) },
		} {
			bad := clone(t, sub)
			change(bad)
			require.ErrorIs(t, s.ops[1].seq.Verify(bg, bad), ErrBundle, name)
		}
		require.NoError(t, s.ops[1].seq.Verify(bg, sub))
		s.commit(sub)
		s.same()
		for i, w := range s.ops {
			st := w.status(hash)
			require.Equal(t, bundlepool.Executed, st.State, "operator %d", i)
			require.Zero(t, st.Items[0].Status, "operator %d knows that it reverted", i)
			require.Equal(t, uint64(1), st.Items[1].Status)
		}
	})
}

// forge changes the terms of a bundle, and makes it the bundle that its steps say.
func forge(sub *sequence.Subblock, change func(*sequence.Terms)) {
	change(sub.Steps[0].Terms)
	hash := sequence.BundleOf(sub.Steps).Hash()
	for i := range sub.Steps {
		sub.Steps[i].Bundle = hash
	}
}

// Followers run the chains in parallel. The order over all chains counts all the same: with
// two steps of different chains in the other order every block is the same, and the message
// is executed before it was sent.
func TestOrderOverChains(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		w := s.ops[0]
		w.a().engine.AddToPool(enginefake.Tx(accounts[0], chainA, 0, enginefake.Log("sent")))
		w.b().engine.AddToPool(enginefake.Tx(accounts[0], chainB, 0, enginefake.Execute(messages.Message{
			Identifier: messages.Identifier{
				Origin: enginefake.Script, BlockNumber: w.a().head().Number + 1, Timestamp: w.a().head().Time + 1, ChainID: chainA.ID(),
			},
			PayloadHash: crypto.Keccak256Hash(append(enginefake.LogTopic.Bytes(), "sent"...)),
		})))
		sub := s.propose(0)
		require.Len(t, sub.Steps, 2)
		bad := clone(t, sub)
		bad.Steps[0], bad.Steps[1] = bad.Steps[1], bad.Steps[0]
		require.ErrorIs(t, s.ops[1].seq.Verify(bg, bad), executor.RuleOrder)
		require.NoError(t, s.ops[1].seq.Verify(bg, sub))
		s.commit(sub)
		s.same()
	})
}

// The failsafe of one operator keeps messages out of the blocks that it leads. It agrees to
// those that others execute.
func TestFailsafeOfOneOperator(t *testing.T) {
	inSet(t, 2, 1, func(t *testing.T, s *set) {
		s.ops[1].exec.SetFailsafe(true)
		sent := messages.Identifier{Origin: enginefake.Script, BlockNumber: s.ops[0].a().head().Number + 1, Timestamp: s.ops[0].a().head().Time + 1, ChainID: chainA.ID()}
		message := messages.Message{Identifier: sent, PayloadHash: crypto.Keccak256Hash(append(enginefake.LogTopic.Bytes(), "sent"...))}
		for i, w := range s.ops {
			w.a().engine.AddToPool(enginefake.Tx(accounts[0], chainA, 0, enginefake.Log("sent")))
			if i == 0 {
				w.b().engine.AddToPool(enginefake.Tx(accounts[0], chainB, 0, enginefake.Execute(message)))
			}
		}
		require.Len(t, s.slot(0)[0].Steps, 2, "the first operator's block executes the message, the second agrees")

		second := enginefake.Tx(accounts[1], chainB, 0, enginefake.Execute(message))
		plain := enginefake.Tx(accounts[2], chainB, 0, enginefake.Log("plain"))
		for _, w := range s.ops {
			w.b().engine.AddToPool(second)
			w.b().engine.AddToPool(plain)
		}
		steps := s.slot(1)[0].Steps
		require.Len(t, steps, 1)
		require.Equal(t, [][]byte{plain}, steps[0].Transactions, "in failsafe it takes what executes no message, and nothing else")
		s.same()
	})
}

// An operator with a broken engine follows the others: the chain catches up when the
// engine is back, from what was agreed, and its other chain is not held back.
func TestFollowsWithoutAnEngine(t *testing.T) {
	for _, k := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d subblocks", k), func(t *testing.T) {
			inSet(t, 3, k, func(t *testing.T, s *set) {
				s.slot(0)
				broken := s.ops[2]
				broken.b().engine.SetDown(true)
				for i := range 4 {
					hash := s.ops[i%2].goodBundle(i, 0)
					for {
						sub := s.propose(i % 2)
						s.verify(sub, 2)
						if sub.Last() || len(sub.Steps) > 0 {
							require.ErrorIs(t, broken.seq.Verify(bg, sub), ErrNotReady)
						}
						s.commit(sub)
						if sub.Last() {
							break
						}
					}
					require.Equal(t, s.ops[0].a().head(), broken.a().head(), "its other chain goes on")
					require.NotEqual(t, s.ops[0].b().head(), broken.b().head())
					require.Equal(t, bundlepool.Executed, broken.status(hash).State)
				}
				require.NotContains(t, broken.seq.Ready(), chainB)
				_, err := broken.seq.Propose(bg, nil)
				require.ErrorIs(t, err, rotation.ErrPass)
				broken.b().engine.SetDown(false)
				broken.run(3 * time.Second)
				s.same()
				require.Contains(t, broken.seq.Ready(), chainB)
				s.slot(2)
				s.same()
			})
		})
	}
}

// A chain whose engines are down everywhere does not stop the other one, nor does it lose
// what was agreed of its open block.
func TestChainDownEverywhere(t *testing.T) {
	for _, k := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d subblocks", k), func(t *testing.T) {
			inSet(t, 2, k, func(t *testing.T, s *set) {
				s.slot(0)
				if k > 1 { // in the middle of a slot
					s.ops[0].b().sendPlain(2)
					sub := s.propose(0)
					s.verify(sub)
					s.commit(sub)
				}
				for _, w := range s.ops {
					w.b().engine.SetDown(true)
				}
				_, err := s.ops[0].seq.Propose(bg, nil)
				require.Error(t, err)
				s.ops[0].run(s.ops[0].cfg.Grace + time.Second)
				before := s.ops[0].a().head()
				for i := range 6 {
					var sub *sequence.Subblock
					require.Eventually(t, func() bool {
						sub, err = s.ops[i%2].seq.Propose(bg, nil)
						return err == nil
					}, 20*time.Second, 50*time.Millisecond, "%v", err)
					s.verify(sub)
					s.commit(sub)
				}
				require.Greater(t, s.ops[0].a().head().Number, before.Number+2)
				for _, w := range s.ops {
					w.b().engine.SetDown(false)
				}
				s.ops[0].run(3 * time.Second)
				for range 60 {
					if sub, err := s.ops[1].seq.Propose(bg, nil); err == nil {
						s.verify(sub)
						s.commit(sub)
					}
					s.ops[0].run(200 * time.Millisecond)
				}
				s.same()
				a, b := s.ops[0].a().head(), s.ops[0].b().head()
				require.Equal(t, a.Time, b.Time)
				require.Equal(t, a.Number, b.Number, "no slot was skipped")
			})
		})
	}
}

// Engines that restart in the middle of a slot get their session again, and the same block comes of it.
func TestEngineRestartsMidSlot(t *testing.T) {
	inSet(t, 2, 3, func(t *testing.T, s *set) {
		for range 3 {
			s.ops[0].a().sendPlain(2)
			sub := s.propose(0)
			s.verify(sub)
			s.commit(sub)
			s.ops[1].a().engine.Crash(0)
			s.ops[0].b().engine.Crash(0)
			s.ops[0].run(5 * time.Millisecond)
			for !sub.Last() {
				var err error
				require.Eventually(t, func() bool {
					sub, err = s.ops[1].seq.Propose(bg, nil)
					return err == nil && s.ops[0].seq.Verify(bg, sub) == nil
				}, 20*time.Second, 100*time.Millisecond)
				s.commit(sub)
			}
			s.ops[0].run(time.Second)
			s.same()
		}
	})
}

// A process that ends in the middle of a slot goes on from the last slot's end, when it
// is told again what was agreed since.
func TestRestartMidSlot(t *testing.T) {
	inSet(t, 2, 3, func(t *testing.T, s *set) {
		s.slot(0)
		last := s.slot(1)
		want := fmt.Appendf(nil, "agreement on %s", last[2].Hash())
		var subs []*sequence.Subblock
		for range 2 {
			s.ops[0].a().sendPlain(2)
			sub := s.propose(0)
			s.verify(sub)
			s.commit(sub)
			subs = append(subs, sub)
		}
		s.ops[1].crash()
		s.ops[1].start()
		s.ops[1].run(3 * time.Second)
		require.Equal(t, want, s.ops[1].seq.Agreed())
		for _, sub := range subs {
			require.NoError(t, s.ops[1].seq.Commit(bg, sub, nil))
		}
		sub := s.propose(1)
		s.verify(sub)
		s.commit(sub)
		require.True(t, sub.Last())
		s.same()
	})
}

// An L1 reorg under an open slot: what was agreed of it is given up by all, and said so.
func TestReorgUnderOpenSlot(t *testing.T) {
	inSet(t, 2, 3, func(t *testing.T, s *set) {
		for range 8 {
			s.slot(0)
		}
		hash := s.ops[0].goodBundle(0, 0)
		sub := s.propose(0)
		s.verify(sub)
		s.commit(sub)
		require.Equal(t, bundlepool.Executed, s.ops[1].status(hash).State)
		bad := s.ops[0].seq
		early := clone(t, sub)
		early.Parent = sub.Hash()
		require.ErrorIs(t, bad.Verify(bg, early), ErrOutOfPlace, "the slot is open and stands")

		s.ops[0].reorgL1(s.ops[0].a().head())
		for _, w := range s.ops {
			for _, c := range w.chains {
				c.reset()
			}
		}
		s.ops[0].run(5 * time.Second)
		require.Eventually(t, func() bool {
			next, err := s.ops[1].seq.Propose(bg, nil)
			if err != nil || s.ops[0].seq.Verify(bg, next) != nil {
				return false
			}
			s.commit(next)
			return next.Last()
		}, 60*time.Second, 100*time.Millisecond)
		for range 60 {
			if next, err := s.ops[0].seq.Propose(bg, nil); err == nil {
				s.verify(next)
				s.commit(next)
			}
			s.ops[0].run(100 * time.Millisecond)
		}
		s.same()
		require.True(t, s.ops[0].l1.canonical(s.ops[0].a().head().L1Origin))
		for _, w := range s.ops {
			require.Equal(t, bundlepool.Executed, w.status(hash).State, "it was run again")
		}
	})
}
