package bundlepool

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func hashes(entries []*Entry) []common.Hash {
	out := []common.Hash{}
	for _, e := range entries {
		out = append(out, e.Hash)
	}
	return out
}

func TestPendingOrder(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	var want []common.Hash
	for n := range uint64(20) {
		e := add(t, p, bundle(now+sequence.Slot(n%3), transfer("alice", chainA, n)))
		if n%3 > 0 {
			want = append(want, e.Hash)
		}
	}
	require.Len(t, p.Pending(now), 20)
	require.Equal(t, want, hashes(p.Pending(now+1)), "those of this slot are left out before Advance says it is over")
	p.Advance(now + 1)
	require.Equal(t, want, hashes(p.Pending(now+1)))
}

// TestPutOffGoesBehind: what was put off lets the others go first, until it is executed
// or sent again.
func TestPutOffGoesBehind(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	var e []*Entry
	for n := range uint64(4) {
		e = append(e, add(t, p, bundle(now+9, transfer("alice", chainA, n))))
	}
	order := func(want ...int) {
		t.Helper()
		got := []int{}
		for _, h := range hashes(p.Pending(now)) {
			got = append(got, slices.IndexFunc(e, func(e *Entry) bool { return e.Hash == h }))
		}
		require.Equal(t, want, got)
	}
	putOff := func(n int) { require.NoError(t, p.Done(e[n].Hash, failed(Retry, "no gas left in the block"))) }
	putOff(1)
	order(0, 2, 3, 1)
	putOff(0)
	order(2, 3, 0, 1)
	putOff(0)
	order(2, 3, 1, 0)
	e = append(e, add(t, p, bundle(now+9, transfer("bob", chainA, 0))))
	order(2, 3, 4, 1, 0)

	q := newPool(Config{})
	require.NoError(t, q.Restore(p.Snapshot()))
	p = q
	order(2, 3, 4, 1, 0)

	require.NoError(t, p.Done(e[0].Hash, executed(e[0], now, 3, "")))
	require.NoError(t, p.Done(e[3].Hash, executed(e[3], now, 3, "")))
	p.Replaced(chainA, 3)
	order(0, 2, 3, 4, 1) // it was not in the way: its block was replaced
	require.NoError(t, p.Done(e[1].Hash, failed(Fail, "nonce too low")))
	e[1] = add(t, p, e[1].Bundle)
	order(0, 2, 3, 4, 1)
	putOff(4)
	order(0, 2, 3, 1, 4)
}

// TestTimeouts: the third attempt that runs out of time is the last.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	timeout := failed(Retry, "the slot ended before the bundle did")
	timeout.Result.Failed.Timeout = true
	none := failed(Retry, "no gas left in the block")
	p := newPool(Config{})
	e := add(t, p, bundle(now+9, transfer("alice", chainA, 0), relayStep(chainB)))
	try := func(want State, outcomes ...Outcome) {
		t.Helper()
		for i, o := range outcomes {
			require.Equal(t, Pending, state(t, p, e.Hash), i)
			require.NoError(t, p.Done(e.Hash, o))
		}
		require.Equal(t, want, state(t, p, e.Hash))
		q := newPool(Config{}) // a restart forgives none
		require.NoError(t, q.Restore(p.Snapshot()))
		if want == Pending {
			p = q
		}
	}
	try(Pending, none, timeout, none, none, none, timeout, none)
	try(Failed, timeout)
	s, err := p.Status(e.Hash)
	require.NoError(t, err)
	require.True(t, s.Failure.Timeout)
	require.Equal(t, "the slot ended before the bundle did (3 attempts ran out of time, there are no more; send a smaller bundle)", s.Failure.Reason)
	require.EqualValues(t, 8, s.Attempts)
	require.Equal(t, "the slot ended before the bundle did", timeout.Result.Failed.Reason, "the caller's is left alone")

	// Sent again, it has as many attempts again, and after an execution too.
	add(t, p, e.Bundle)
	try(Pending, timeout, timeout)
	require.NoError(t, p.Done(e.Hash, executed(e, now, 3, "")))
	p.Replaced(chainA, 3)
	try(Pending, timeout, timeout)
	p.Replaced(chainB, 3)
	try(Undone, timeout)
}

func TestRetryKeepsTheReason(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, bundle(now+1, transfer("alice", chainA, 0)))
	require.NoError(t, p.Done(e.Hash, failed(Retry, "no gas left in the block")))
	require.NoError(t, p.Done(e.Hash, failed(Retry, "chain 901 is not ready")))
	s, err := p.Status(e.Hash)
	require.NoError(t, err)
	require.Equal(t, Status{
		Hash: e.Hash, State: Pending, Expiry: now + 1, Attempts: 2, Failure: &Failure{Chain: chainA, Reason: "chain 901 is not ready"},
	}, s)
	p.Advance(now + 2)
	s, err = p.Status(e.Hash)
	require.NoError(t, err)
	require.Equal(t, Expired, s.State)
	require.Equal(t, "chain 901 is not ready", s.Failure.Reason, "why it was never executed")

	e = add(t, p, bundle(now+2, transfer("alice", chainA, 0)))
	p.Advance(now + 3)
	s, err = p.Status(e.Hash)
	require.NoError(t, err)
	require.Equal(t, "last slot 1002 passed before it was executed", s.Failure.Reason)
}

// TestExpiredInFlight: the slot ends while the outcome is still on its way.
func TestExpiredInFlight(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, bundle(now, transfer("alice", chainA, 0)))
	p.Advance(now + 1)
	require.Equal(t, Expired, state(t, p, e.Hash))
	require.ErrorIs(t, p.Done(e.Hash, failed(Retry, "late")), ErrNotPending)
	require.NoError(t, p.Done(e.Hash, executed(e, now, 5, "")))
	s, err := p.Status(e.Hash)
	require.NoError(t, err)
	require.Equal(t, Executed, s.State)
	require.Nil(t, s.Failure)
}

func TestFailedMayBeSentAgain(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	b := bundle(now+5, transfer("alice", chainA, 0))
	e := add(t, p, b)
	other := add(t, p, bundle(now+5, transfer("bob", chainA, 0)))
	require.NoError(t, p.Done(e.Hash, failed(Fail, "execution reverted")))
	require.ErrorIs(t, p.Done(e.Hash, failed(Fail, "again")), ErrNotPending)
	require.Empty(t, p.Reserved(chainB, p.Slot()))
	require.Equal(t, []common.Hash{other.Transactions[0].Hash()}, p.Reserved(chainA, p.Slot()))
	add(t, p, b)
	require.Equal(t, []common.Hash{other.Hash, e.Hash}, hashes(p.Pending(now)), "at the end of the queue")
}

// TestReplacedAsAWhole: one chain's block is replaced and the bundle is undone on both;
// then the other chain's is.
func TestReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	first := add(t, p, bundle(now+5, transfer("alice", chainA, 0), relayStep(chainB)))
	late := add(t, p, bundle(now+1, transfer("bob", chainA, 0), transfer("bob", chainB, 0)))
	below := add(t, p, bundle(now+5, transfer("carol", chainA, 0), transfer("carol", chainB, 0)))
	o := executed(first, now, 10, "first")
	require.NoError(t, p.Done(first.Hash, o))
	require.NoError(t, p.Done(late.Hash, executed(late, now, 10, "")))
	require.NoError(t, p.Done(below.Hash, executed(below, now, 9, "")))
	p.Advance(now + 3)

	again, undone := p.Replaced(chainB, 10)
	require.Equal(t, []common.Hash{first.Hash, late.Hash}, again)
	require.Empty(t, undone)
	again, undone = p.Replaced(chainA, 10)
	require.Empty(t, again, "it is said once")
	require.Equal(t, []common.Hash{late.Hash}, undone)
	require.Equal(t, Executed, state(t, p, below.Hash))
	s, err := p.Status(late.Hash)
	require.NoError(t, err)
	require.Equal(t, Undone, s.State)
	require.EqualValues(t, 1, s.Undone)
	require.Equal(t, "block 10 of chain 901 was replaced after the last slot 1001 had passed", s.Failure.Reason)

	// The engines have put their transactions back into the pools: none may run alone.
	for _, chain := range []sequence.ChainID{chainA, chainB} {
		reserved := p.Reserved(chain, p.Slot())
		for _, e := range []*Entry{first, late} {
			for i, tx := range e.Transactions {
				if tx != nil && e.Bundle.Items[i].Chain == chain {
					require.Contains(t, reserved, tx.Hash())
				}
			}
		}
	}
	require.NotContains(t, p.Reserved(chainA, p.Slot()), below.Transactions[0].Hash(), "it is in a block that stands")
	relayed := o.Result.Items[1].TxHash
	require.Contains(t, p.Reserved(chainB, p.Slot()), relayed, "nor the relay that was made for the first execution")

	// Executed again, with another relay; the old one stays reserved until it is settled.
	require.NoError(t, p.Done(first.Hash, executed(first, now+3, 10, "second")))
	require.Contains(t, p.Reserved(chainB, p.Slot()), relayed)
	p.Settled(chainA, 10)
	require.Equal(t, Executed, state(t, p, first.Hash))
	p.Settled(chainB, 12)
	require.Equal(t, Safe, state(t, p, first.Hash))
	require.NotContains(t, p.Reserved(chainB, p.Slot()), relayed)
	s, err = p.Status(first.Hash)
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Undone)
	require.EqualValues(t, 2, s.Attempts)
	require.Equal(t, now+3, s.Slot)
}

// TestUndoneThenFailed: the sender saw it executed, so it ends as undone, and what is
// back in an engine's pool still must not run alone.
func TestUndoneThenFailed(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Pool, *Entry) error{
		"fails":   func(p *Pool, e *Entry) error { return p.Done(e.Hash, failed(Fail, "nonce too low")) },
		"expires": func(p *Pool, _ *Entry) error { p.Advance(now + 6); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(Config{UndoneRetention: 100})
			e := add(t, p, bundle(now+5, transfer("alice", chainA, 0), transfer("alice", chainB, 0)))
			require.NoError(t, p.Done(e.Hash, executed(e, now, 1, "")))
			again, _ := p.Replaced(chainA, 1)
			require.Equal(t, []common.Hash{e.Hash}, again)
			p.Replaced(chainB, 1)
			require.NoError(t, end(p, e))
			require.Equal(t, Undone, state(t, p, e.Hash))
			require.Contains(t, p.Reserved(chainA, p.Slot()), e.Transactions[0].Hash())
			require.Contains(t, p.Reserved(chainB, p.Slot()), e.Transactions[1].Hash())
			p.Advance(p.Slot() + 100)
			require.Contains(t, p.Reserved(chainA, p.Slot()), e.Transactions[0].Hash())
			p.Advance(p.Slot() + 1)
			require.Empty(t, p.Reserved(chainA, p.Slot()))
			_, err := p.Status(e.Hash)
			require.ErrorIs(t, err, ErrUnknownBundle)
		})
	}
}

// TestHalf: one chain's block is replaced, the other's stands, and the bundle's last slot
// has passed.
func TestHalf(t *testing.T) {
	t.Parallel()
	type step struct {
		name string
		do   func(t *testing.T, p *Pool, e *Entry)
	}
	advance := func(to sequence.Slot) step {
		return step{fmt.Sprint("advance to +", to), func(_ *testing.T, p *Pool, _ *Entry) { p.Advance(now + to) }}
	}
	// replaced checks what the call reports: "again", "undone" or nothing.
	replaced := func(chain sequence.ChainID, number uint64, want string) step {
		return step{fmt.Sprint("replaced ", chain, " ", number), func(t *testing.T, p *Pool, e *Entry) {
			again, undone := p.Replaced(chain, number)
			if want == "again" {
				require.Equal(t, []common.Hash{e.Hash}, again)
			} else {
				require.Empty(t, again)
			}
			if want == "undone" {
				require.Equal(t, []common.Hash{e.Hash}, undone)
			} else {
				require.Empty(t, undone)
			}
		}}
	}
	is := func(want State) step {
		return step{"is " + string(want), func(t *testing.T, p *Pool, e *Entry) {
			require.Equal(t, want, state(t, p, e.Hash))
			pending := hashes(p.Pending(p.Slot()))
			if want == Pending {
				require.Equal(t, []common.Hash{e.Hash}, pending)
			} else {
				require.Empty(t, pending)
			}
		}}
	}
	done := func(o Outcome) step {
		return step{"done", func(t *testing.T, p *Pool, e *Entry) { require.NoError(t, p.Done(e.Hash, o)) }}
	}
	// complete is an execution of what was replaced on chain B, in its block 14: chain A's
	// stands in block 10.
	complete := step{"complete", func(t *testing.T, p *Pool, e *Entry) {
		o := executed(e, p.Slot(), 10, "")
		for i := range o.Result.Items {
			if o.Result.Items[i].Chain == chainB {
				o.Result.Items[i].BlockNumber = 14
			}
		}
		require.NoError(t, p.Done(e.Hash, o))
	}}
	add := step{"add", func(t *testing.T, p *Pool, e *Entry) { add(t, p, e.Bundle) }}
	reason := func(want string) step {
		return step{"reason", func(t *testing.T, p *Pool, e *Entry) {
			s, err := p.Status(e.Hash)
			require.NoError(t, err)
			require.NotNil(t, s.Failure)
			require.Equal(t, want, s.Failure.Reason)
		}}
	}

	// It may run until +5, was executed in block 10 of both chains, and UndoneRetention is 20.
	for name, steps := range map[string][]step{
		"completed later": {
			advance(1), replaced(chainB, 10, "again"), advance(6), is(Pending), advance(15), is(Pending),
			complete, is(Executed), advance(30), is(Executed),
		},
		"undone when its last slot has passed already": {
			advance(8), replaced(chainB, 9, "again"), is(Pending), advance(28), is(Pending), complete, is(Executed),
		},
		"not completed": {
			advance(1), replaced(chainB, 10, "again"), advance(21), is(Pending), advance(22), is(Undone),
			reason("last slot 1021 passed before it was completed; some of its blocks were replaced"),
			// What was undone is remembered for the same time again.
			advance(42), is(Undone),
		},
		"put off": {
			advance(1), replaced(chainB, 10, "again"), advance(9), done(failed(Retry, "no room")), is(Pending),
			advance(22), is(Undone), reason("no room"),
		},
		"fails": {
			advance(9), replaced(chainB, 10, "again"), done(failed(Fail, "reverted")), is(Undone), reason("reverted"),
		},
		"the other chain's is replaced before its last slot": {
			advance(1), replaced(chainB, 10, "again"), replaced(chainA, 7, ""), is(Pending), advance(5), is(Pending),
			advance(6), is(Undone), reason("last slot 1005 passed before it was executed again; its blocks were replaced"),
		},
		"the other chain's is replaced after its last slot": {
			advance(1), replaced(chainB, 10, "again"), advance(9), is(Pending), replaced(chainA, 11, ""), is(Pending),
			replaced(chainA, 10, "undone"), is(Undone), reason("block 10 of chain 901 was replaced after the last slot 1005 had passed"),
		},
		"an L1 reorg before its last slot": {
			advance(4), replaced(chainA, 3, "again"), replaced(chainB, 3, ""), is(Pending), advance(6), is(Undone),
		},
		"an L1 reorg after its last slot": {
			advance(7), replaced(chainA, 3, "again"), replaced(chainB, 3, "undone"), is(Undone),
		},
		"an L1 reorg after its last slot, the other way round": {
			advance(7), replaced(chainB, 3, "again"), replaced(chainA, 3, "undone"), is(Undone),
		},
		"the same chain goes back twice": {
			advance(7), replaced(chainB, 10, "again"), replaced(chainB, 3, ""), is(Pending), replaced(chainA, 10, "undone"), is(Undone),
		},
		"the slot goes back behind its last one": {
			advance(7), replaced(chainB, 3, "again"), advance(3), replaced(chainA, 3, ""), is(Pending), advance(5), is(Pending),
			advance(6), is(Undone),
		},
		"half again after it was completed": {
			advance(1), replaced(chainB, 10, "again"), advance(15), complete, replaced(chainB, 15, ""), is(Executed),
			replaced(chainB, 14, "again"), advance(35), is(Pending), advance(36), is(Undone),
		},
		"completed, then both": {
			advance(1), replaced(chainB, 10, "again"), advance(15), complete,
			replaced(chainB, 10, "again"), is(Pending), replaced(chainA, 10, "undone"), is(Undone),
		},
		"sent again after it failed": {
			advance(1), replaced(chainB, 10, "again"), done(failed(Fail, "reverted")), is(Undone),
			add, is(Pending), advance(21), is(Pending), complete, is(Executed),
		},
		"the other chain's is replaced while it is undone": {
			advance(1), replaced(chainB, 10, "again"), done(failed(Fail, "reverted")), replaced(chainA, 10, ""), is(Undone),
			add, is(Pending), advance(6), is(Undone),
		},
		"safe before": {
			step{"settled", func(_ *testing.T, p *Pool, _ *Entry) { p.Settled(chainA, 10); p.Settled(chainB, 10) }}, is(Safe),
			advance(9), replaced(chainB, 10, "again"), is(Pending), replaced(chainA, 10, "undone"), is(Undone),
		},
	} {
		for _, restarts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarts %t", name, restarts), func(t *testing.T) {
				t.Parallel()
				cfg := Config{UndoneRetention: 20}
				p, path := newPool(cfg), filepath.Join(t.TempDir(), "bundles")
				h, err := p.Add(bundle(now+5, transfer("alice", chainA, 0), transfer("alice", chainB, 0)))
				require.NoError(t, err)
				e, _ := p.Get(h)
				require.NoError(t, p.Done(h, executed(e, now, 10, "")))
				for i, s := range steps {
					t.Logf("%d: %s", i, s.name)
					s.do(t, p, e)
					if s, _ := p.Status(h); restarts && s.State != Safe { // which is not stored
						require.NoError(t, p.Save(path))
						p = newPool(cfg)
						require.NoError(t, p.Load(path))
					}
				}
				st, err := p.Status(h)
				require.NoError(t, err)
				if st.State != Executed {
					require.Contains(t, p.Reserved(chainA, p.Slot()), e.Transactions[0].Hash())
					require.Contains(t, p.Reserved(chainB, p.Slot()), e.Transactions[1].Hash())
				}
			})
		}
	}
}

// TestReorgPastSafe: L1 itself can go back behind a block that was safe.
func TestReorgPastSafe(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, bundle(now+50, transfer("alice", chainA, 0)))
	p.Settled(chainA, 20)
	require.NoError(t, p.Done(e.Hash, executed(e, now, 7, "")))
	require.Equal(t, Safe, state(t, p, e.Hash), "settled before it was reported")
	require.Empty(t, p.Reserved(chainA, p.Slot()))
	p.Advance(now - 2)
	again, _ := p.Replaced(chainA, 6)
	require.Equal(t, []common.Hash{e.Hash}, again)
	require.NotEmpty(t, p.Reserved(chainA, p.Slot()))
	require.NoError(t, p.Done(e.Hash, executed(e, now-1, 6, "")))
	require.Equal(t, Executed, state(t, p, e.Hash), "what was settled is not any more")
	p.Settled(chainA, 6)
	require.Equal(t, Safe, state(t, p, e.Hash))

	p.Replaced(chainA, 0)
	require.NoError(t, p.Done(e.Hash, executed(e, now, 0, "")))
	require.Equal(t, Executed, state(t, p, e.Hash))
}

// TestHoldIsBounded: naming a stranger's transaction in bundles that cannot run does not
// keep it out of the blocks for longer than Hold.
func TestHoldIsBounded(t *testing.T) {
	t.Parallel()
	p := newPool(Config{Hold: 3, MaxAhead: 100})
	victim := transfer("victim", chainA, 0)
	held := 0
	for s := now; s < now+100; s++ {
		p.Advance(s)
		// Each slot another bundle with it, which fails.
		e := add(t, p, bundle(s+1, victim, transfer("mallory", chainA, uint64(s))))
		if r := p.Reserved(chainA, p.Slot()); len(r) > 1 {
			require.Contains(t, r, e.Transactions[0].Hash())
			held++
		}
		require.NoError(t, p.Done(e.Hash, failed(Fail, "execution reverted")))
	}
	require.Equal(t, 3, held)
}

// TestMaxReserved: of what was never executed the earliest are reserved, on each chain; of
// what was executed in a block that was replaced, all.
func TestMaxReserved(t *testing.T) {
	t.Parallel()
	p := newPool(Config{MaxReserved: 3, Hold: 2, MaxAhead: 100})
	add1 := func(who string, nonce uint64) *Entry {
		return add(t, p, bundle(now+50, transfer(who, chainA, nonce), transfer(who, chainB, nonce)))
	}
	reserved := func(of ...*Entry) {
		t.Helper()
		for i, chain := range []sequence.ChainID{chainA, chainB} {
			want := []common.Hash{}
			for _, e := range of {
				want = append(want, e.Transactions[i].Hash())
			}
			require.ElementsMatch(t, want, p.Reserved(chain, p.Slot()))
		}
	}
	var e []*Entry
	for n := range uint64(6) {
		e = append(e, add1("alice", n))
	}
	// What they have in common counts once.
	shared := add(t, p, bundle(now+50, transfer("alice", chainA, 0), transfer("alice", chainB, 0), transfer("bob", chainC, 0)))
	reserved(e[0], e[1], e[2])
	require.Equal(t, []common.Hash{shared.Transactions[2].Hash()}, p.Reserved(chainC, p.Slot()), "each chain has its own room")

	// An execution takes none of the room, whether it stands, is replaced or undone.
	require.NoError(t, p.Done(e[1].Hash, executed(e[1], now, 3, "")))
	require.NoError(t, p.Done(e[5].Hash, executed(e[5], now, 4, "")))
	reserved(e[0], e[1], e[2], e[3], e[5])
	for i, chain := range []sequence.ChainID{chainA, chainB} {
		require.ElementsMatch(t, []common.Hash{e[0].Transactions[i].Hash(), e[2].Transactions[i].Hash(), e[3].Transactions[i].Hash()},
			p.Reserved(chain, now+1), "they are in the blocks below")
	}
	p.Replaced(chainA, 3) // both
	reserved(e[0], e[1], e[2], e[3], e[5])
	require.NoError(t, p.Done(e[5].Hash, failed(Fail, "nonce too low")))
	require.Equal(t, Undone, state(t, p, e[5].Hash))
	reserved(e[0], e[1], e[2], e[3], e[5])

	// Those that found no room are held for as long as the others, from when they find it.
	p.Advance(now + 1)
	require.NoError(t, p.Done(e[0].Hash, failed(Fail, "no")))
	require.NoError(t, p.Done(shared.Hash, failed(Fail, "no")))
	reserved(e[1], e[2], e[3], e[4], e[5])
	p.Advance(now + 2)
	reserved(e[1], e[4], e[5])
	p.Advance(now + 3)
	reserved(e[1], e[5])
}

func TestExecutedIsIdempotentAndCorrects(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, bundle(now+5, transfer("alice", chainA, 0), relayStep(chainB)))
	one, two := executed(e, now, 3, "one"), executed(e, now+1, 4, "two")
	require.NoError(t, p.Done(e.Hash, one))
	require.NoError(t, p.Done(e.Hash, one))
	s, _ := p.Status(e.Hash)
	require.EqualValues(t, 1, s.Attempts)
	require.Empty(t, s.Items[0].Logs)
	require.Empty(t, s.Items[0].ReturnData)
	require.NotEmpty(t, one.Result.Items[0].Logs, "the caller's are left alone")
	require.NoError(t, p.Done(e.Hash, two))
	s, _ = p.Status(e.Hash)
	require.Equal(t, now+1, s.Slot)
	require.Contains(t, p.Reserved(chainB, p.Slot()), one.Result.Items[1].TxHash)
	require.Contains(t, p.Reserved(chainB, p.Slot()), two.Result.Items[1].TxHash)
}

func TestBadOutcomes(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, bundle(now, transfer("alice", chainA, 0), transfer("alice", chainB, 0)))
	change := func(f func(*BundleResult)) Outcome {
		o := executed(e, now, 1, "")
		f(&o.Result)
		return o
	}
	for name, o := range map[string]Outcome{
		"no kind":            {},
		"no reason":          {Kind: Fail},
		"no reason to retry": {Kind: Retry},
		"a failure":          change(func(r *BundleResult) { r.Failed = new(Failure) }),
		"an item missing":    change(func(r *BundleResult) { r.Items = r.Items[:1] }),
		"an item too many":   change(func(r *BundleResult) { r.Items = append(r.Items, ItemResult{Item: 2, Chain: chainA}) }),
		"a negative item":    change(func(r *BundleResult) { r.Items[0].Item = -1 }),
		"another chain":      change(func(r *BundleResult) { r.Items[0].Chain = chainB }),
		"another tx":         change(func(r *BundleResult) { r.Items[0].TxHash = common.Hash{1} }),
		"two blocks":         change(func(r *BundleResult) { r.Items = append(r.Items, r.Items[0]); r.Items[2].BlockNumber++ }),
	} {
		require.ErrorIs(t, p.Done(e.Hash, o), ErrBadOutcome, name)
		require.Equal(t, Pending, state(t, p, e.Hash), name)
	}
	require.ErrorIs(t, p.Done(common.Hash{1}, failed(Fail, "no")), ErrUnknownBundle)
	_, ok := p.Get(common.Hash{1})
	require.False(t, ok)
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range uint64(20) {
				h, err := p.Add(bundle(now+20, transfer(fmt.Sprint(w), chainA, n), relayStep(chainB)))
				if err != nil {
					t.Error(err)
				}
				_, _ = p.Status(h)
			}
		})
	}
	wg.Go(func() {
		for n := range sequence.Slot(20) {
			p.Advance(now + n)
			for i, e := range p.Pending(now + n) {
				if i%2 == 0 {
					if err := p.Done(e.Hash, executed(e, now+n, uint64(n), "")); err != nil {
						t.Error(err)
					}
				}
			}
			p.Reserved(chainA, p.Slot())
			p.Snapshot()
			p.Settled(chainA, uint64(n)/2)
			p.Settled(chainB, uint64(n)/2)
			p.Replaced(chainB, uint64(n)*2/3)
			p.Stats()
		}
	})
	wg.Wait()
	s := p.Stats()
	require.Equal(t, 80, s.Pending+s.Executed+s.Undone+s.Finished)
}

// TestChanged: a builder that waits is told of each bundle that becomes pending.
func TestChanged(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	told := func(do func()) bool {
		c := p.Changed()
		do()
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	var e *Entry
	b := bundle(now+5, transfer("alice", chainA, 0))
	require.True(t, told(func() { e = add(t, p, b) }))
	require.False(t, told(func() { add(t, p, b) }))
	require.False(t, told(func() { require.NoError(t, p.Done(e.Hash, executed(e, now, 3, ""))) }))
	require.True(t, told(func() { p.Replaced(chainA, 3) }))
	data := p.Snapshot()
	require.True(t, told(func() { require.NoError(t, p.Restore(data)) }))
}

func BenchmarkPool(b *testing.B) {
	p := newPool(Config{MaxPerSender: 1 << 20, MaxBundles: 1 << 20})
	for n := range uint64(4096) {
		h, err := p.Add(bundle(now+5, transfer("alice", chainA, n), relayStep(chainB)))
		if err != nil {
			b.Fatal(err)
		}
		if e, _ := p.Get(h); n%2 == 0 {
			if err := p.Done(h, executed(e, now, 5, "")); err != nil {
				b.Fatal(err)
			}
		}
	}
	// 2048 bundles pending, 2048 executed.
	b.Run("Pending", func(b *testing.B) {
		for b.Loop() {
			p.Pending(now)
		}
	})
	b.Run("Reserved", func(b *testing.B) {
		for b.Loop() {
			p.Reserved(chainB, p.Slot())
		}
	})
	b.Run("Advance", func(b *testing.B) {
		for b.Loop() {
			p.Advance(now)
		}
	})
	b.Run("Check", func(b *testing.B) {
		in := bundle(now+5, transfer("bob", chainA, 0), relayStep(chainB), transfer("bob", chainB, 0))
		for b.Loop() {
			if _, err := p.Check(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Snapshot", func(b *testing.B) {
		for b.Loop() {
			b.SetBytes(int64(len(p.Snapshot())))
		}
	})
}
