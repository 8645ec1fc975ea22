package builder_test

// Around the property that bundles are all or nothing (property_test.go):
//
//	fills      parallel, reserved transactions, invalid messages, pool behind, NoTxPool
//	time       bundles that arrive, deadlines inside a bundle, a slot that is late
//	bundles    what stands of them already, no relayer
//	blocks     every way in which a session is lost names its chain; cancelled calls

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

func log1(user int, chain chainID, nonce uint64) []byte {
	return enginefake.Tx(users[user], chain, nonce, enginefake.Log(fmt.Sprintf("%d %d", user, nonce)))
}

// included counts the transactions in a block but for the deposit.
func included(w *world) map[chainID]int {
	out := map[chainID]int{}
	for id, p := range w.seal() {
		out[id] = len(p.Transactions) - 1
	}
	return out
}

func TestFillsRunInParallel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, chainA, chainB, chainC)
		filling, all := make(chan struct{}), make(chan struct{})
		for _, e := range w.engines {
			e.AddToPool(log1(0, e.Chain(), 0), log1(0, e.Chain(), 1))
			e.SetHook(func(_ context.Context, call string) error {
				if call == "fill" {
					filling <- struct{}{}
					<-all // nobody goes on before all have come
				}
				return nil
			})
		}
		go func() {
			for range w.blocks {
				<-filling
			}
			close(all)
		}()
		require.NoError(t, w.build(bg, &list{}, clock.SystemClock))
		require.Len(t, w.order.Steps, 3)
		require.Equal(t, map[chainID]int{chainA: 2, chainB: 2, chainC: 2}, included(w))
	})
}

func TestReservedTransactionsAreNotFilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	reserved := log1(1, chainA, 0)
	w.engines[chainA].AddToPool(log1(0, chainA, 0), reserved, log1(1, chainA, 1))
	bundles := &list{reserved: map[chainID][]common.Hash{chainA: {enginefake.Hash(reserved)}}}
	require.NoError(t, w.build(bg, bundles, newLeaping()))
	require.Equal(t, map[chainID]int{chainA: 1, chainB: 0}, included(w), "neither it nor what its sender sent later")
}

func TestFillWithInvalidMessages(t *testing.T) {
	t.Parallel()
	bad := enginefake.Undeclared(logMessage(chainB, 0, "nothing"))
	for name, test := range map[string]struct{ bad, want int }{
		"one":         {1, 3}, // of four senders with a transaction each
		"three":       {3, 1},
		"too many":    {4, 0},
		"there is no": {0, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chainA, chainB)
			for user := range 4 {
				if user < test.bad {
					w.engines[chainA].AddToPool(enginefake.Tx(users[user], chainA, 0, bad), log1(user, chainA, 1))
				} else {
					w.engines[chainA].AddToPool(log1(user, chainA, 0))
				}
			}
			w.engines[chainB].AddToPool(log1(0, chainB, 0))
			require.NoError(t, w.build(bg, &list{}, newLeaping()))
			require.Equal(t, map[chainID]int{chainA: test.want, chainB: 1}, included(w))
			require.Equal(t, test.bad, w.counted.of["fill on "+chainA.String()+": declared in the access list"], w.counted.of)
		})
	}
}

// Transactions in a pool that execute messages are taken with the others, in the global
// order; what is not valid any more leaves the pool, and plain traffic hardly notices.
func TestFillWithExecutingMessages(t *testing.T) {
	t.Parallel()
	valid := enginefake.Execute(logMessage(chainA, 0, "0 0"))
	gone := enginefake.Execute(logMessage(chainA, 0, "other"))
	early := enginefake.Execute(logMessage(chainA, 7, "0 0"))
	interop := func(user int, op enginefake.Op) []byte { return enginefake.Tx(users[user], chainB, 0, op) }
	for name, test := range map[string]struct {
		pool         [][]byte // of chain B, beside a plain transaction
		failsafe     bool
		first, later int // included on B in this slot, and in one behind it
	}{
		"valid":       {[][]byte{interop(1, valid)}, false, 2, 2},
		"failsafe":    {[][]byte{interop(1, valid)}, true, 1, 1},
		"invalid":     {[][]byte{interop(1, gone), interop(2, valid)}, false, 2, 2},
		"too early":   {[][]byte{interop(1, early)}, false, 1, 1},
		"two of them": {[][]byte{interop(1, gone), interop(2, gone), interop(3, valid)}, false, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chainA, chainB)
			w.failsafe.Store(test.failsafe)
			w.engines[chainA].AddToPool(log1(0, chainA, 0))
			w.engines[chainB].AddToPool(append(test.pool, log1(0, chainB, 0))...)
			require.NoError(t, w.build(bg, &list{}, newLeaping()))
			require.Equal(t, map[chainID]int{chainA: 1, chainB: test.first}, included(w))
			w.again()
			require.NoError(t, w.build(bg, &list{}, newLeaping()))
			require.Equal(t, map[chainID]int{chainA: 1, chainB: test.later}, included(w))
		})
	}
}

// While the failsafe is on, bundles that execute messages wait, and others run.
func TestFailsafe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.failsafe.Store(true)
	plain := bundle(item(chainA, log1(0, chainA, 0)), item(chainB, log1(0, chainB, 0)))
	executes := bundle(item(chainA, log1(1, chainA, 0)), item(chainB, enginefake.Tx(users[1], chainB, 0, enginefake.Execute(logMessage(chainA, 1, "1 0")))))
	relays := bundle(item(chainA, enginefake.Tx(users[2], chainA, 0, enginefake.Send(chainB))), relayOn(chainB))
	bundles := new(list).add(executes).add(relays).add(plain)
	require.NoError(t, w.build(bg, bundles, newLeaping()))
	require.Len(t, w.order.Bundles, 1)
	require.Equal(t, plain.Hash(), w.order.Bundles[0].Hash)
	require.Equal(t, map[string]int{"passed over: failsafe": 2}, w.counted.of)
	w.again()
	w.failsafe.Store(false)
	require.NoError(t, w.build(bg, bundles, newLeaping()))
	require.Len(t, w.order.Bundles, 3)
}

func TestPoolBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.engines[chainA].SetHook(failing("fill", engine.ErrPoolBehind))
	for id, e := range w.engines {
		e.AddToPool(log1(0, id, 0))
	}
	b := bundle(item(chainA, log1(1, chainA, 0)))
	require.NoError(t, w.build(bg, new(list).add(b), newLeaping()))
	require.Equal(t, map[chainID]int{chainA: 1, chainB: 1}, included(w), "a block without plain transactions is better than none")
	require.Equal(t, map[string]int{"pool behind on " + chainA.String(): 1}, w.counted.of)
}

func TestNoTxPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.block(chainB).NoTxPool = true
	w.engines[chainB].SetHook(func(_ context.Context, call string) error { // not to be touched
		if call != "seal" && call != "insert" && call != "receipts" {
			return errors.New("called")
		}
		return nil
	})
	for id, e := range w.engines {
		e.AddToPool(log1(0, id, 0))
	}
	over, alone := bundle(item(chainA, log1(1, chainA, 0)), item(chainB, log1(1, chainB, 0))), bundle(item(chainA, log1(2, chainA, 0)))
	require.NoError(t, w.build(bg, new(list).add(over, alone), newLeaping()))
	require.Len(t, w.order.Bundles, 1, "a bundle over a chain that takes nothing waits, untried")
	require.Equal(t, alone.Hash(), w.order.Bundles[0].Hash)
	require.Equal(t, map[chainID]int{chainA: 2, chainB: 0}, included(w))
}

// An L1 reorg would take back one half of a bundle over blocks with different L1 origins.
func TestL1OriginsDiffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB, chainC)
	w.block(chainC).L1Origin.Hash = common.Hash{1}
	bundles := new(list).add(
		bundle(item(chainB, log1(0, chainB, 0)), item(chainC, log1(0, chainC, 0))),
		bundle(item(chainA, log1(1, chainA, 0)), item(chainB, log1(1, chainB, 0))),
		bundle(item(chainC, log1(2, chainC, 0))))
	require.NoError(t, w.build(bg, bundles, newLeaping()))
	require.Len(t, w.order.Bundles, 2, "the first waits, untried")
	require.Equal(t, map[string]int{"passed over: chains": 1}, w.counted.of)
	require.Equal(t, map[chainID]int{chainA: 1, chainB: 1, chainC: 1}, included(w))
}

// A bundle is run when it comes, before and after the fill, until the cut.
func TestBundlesThatArrive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, chainA, chainB)
		pool := bundlepool.New(bundlepool.DefaultConfig(chainA, chainB), log.NewLogger(log.DiscardHandler()))
		pool.Advance(slot)
		begin := time.Now()
		ran := map[time.Duration]int{}
		w.engines[chainA].SetHook(func(_ context.Context, call string) error {
			if call == "execute" || call == "fill" {
				ran[time.Since(begin)]++
			}
			return nil
		})
		send := func(after time.Duration, user int) common.Hash {
			b := bundle(item(chainA, log1(user, chainA, 0)), item(chainB, log1(user, chainB, 0)))
			time.AfterFunc(after, func() {
				_, err := pool.Add(b)
				require.NoError(t, err)
			})
			return b.Hash()
		}
		want := []common.Hash{send(0, 0), send(100*time.Millisecond, 1), send(800*time.Millisecond, 2)}
		send(901*time.Millisecond, 3)
		require.NoError(t, w.build(bg, pool, clock.SystemClock))
		require.Equal(t, 900*time.Millisecond, time.Since(begin))
		var got []common.Hash
		for _, b := range w.order.Bundles {
			got = append(got, b.Hash)
			require.Equal(t, bundlepool.Execute, b.Outcome.Kind)
		}
		require.Equal(t, want, got)
		ms := time.Millisecond
		require.Equal(t, map[time.Duration]int{0: 1, 100 * ms: 1, 700 * ms: 1, 800 * ms: 1}, ran)
		require.Equal(t, map[chainID]int{chainA: 3, chainB: 3}, included(w))
		time.Sleep(time.Second) // the last one
	})
}

// A failed bundle is not tried again in the same slot.
func TestTriedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	b := bundle(item(chainA, log1(0, chainA, 5)))
	require.NoError(t, w.build(bg, new(list).add(b), newLeaping()))
	require.Len(t, w.order.Bundles, 1)
	require.Equal(t, bundlepool.Retry, w.order.Bundles[0].Outcome.Kind)
}

// A bundle that the operators vote on, in the subblock before, still waits in the pool.
func TestAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	voted, waits := bundle(item(chainA, log1(0, chainA, 0))), bundle(item(chainA, log1(1, chainA, 0)))
	w.ahead = []common.Hash{voted.Hash()}
	require.NoError(t, w.build(bg, new(list).add(voted).add(waits), newLeaping()))
	require.Len(t, w.order.Bundles, 1)
	require.Equal(t, waits.Hash(), w.order.Bundles[0].Hash)
}

// slow makes every transaction of a bundle take some time.
func (w *world) slow(d time.Duration) {
	for _, e := range w.engines {
		e.SetHook(func(_ context.Context, call string) error {
			if call == "execute" {
				time.Sleep(d)
			}
			return nil
		})
	}
}

func TestDeadlineInsideABundle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, chainA, chainB)
		w.slow(400 * time.Millisecond)
		long := bundle(item(chainA, log1(0, chainA, 0)), item(chainB, log1(0, chainB, 0)), item(chainA, log1(0, chainA, 1)))
		late := bundle(item(chainA, log1(1, chainA, 0)))
		require.NoError(t, w.build(bg, new(list).add(long, late), clock.SystemClock))
		require.Len(t, w.order.Bundles, 2)
		first := w.order.Bundles[0].Outcome
		require.Equal(t, bundlepool.Retry, first.Kind, "it does not end by the fill at 700 ms")
		require.Equal(t, 2, first.Result.Failed.Item)
		require.Contains(t, first.Result.Failed.Reason, "the slot ended")
		require.Len(t, first.Result.Items, 2, "what ran is told")
		require.Equal(t, bundlepool.Execute, w.order.Bundles[1].Outcome.Kind, "the next one has until the cut")
		require.Equal(t, map[chainID]int{chainA: 1, chainB: 0}, included(w))
	})
}

// When a slot is late, one bundle is tried for as long as a fill gets, and the pools are
// still taken from.
func TestLateSlot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		slow time.Duration
		want bundlepool.OutcomeKind
		in   int
	}{
		"fits":         {20 * time.Millisecond, bundlepool.Execute, 3},
		"does not fit": {60 * time.Millisecond, bundlepool.Retry, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, chainA)
				w.slow(test.slow)
				w.engines[chainA].AddToPool(log1(4, chainA, 0))
				bundles := new(list).add(bundle(item(chainA, log1(0, chainA, 0)), item(chainA, log1(0, chainA, 1))), bundle(item(chainA, log1(1, chainA, 0))))
				times := slotTimes(time.Now().Add(-time.Minute))
				require.NoError(t, w.buildBy(bg, bundles, clock.SystemClock, times))
				require.Len(t, w.order.Bundles, 1)
				require.Equal(t, map[string]int{"passed over: time": 1}, w.counted.of)
				require.Equal(t, test.want, w.order.Bundles[0].Outcome.Kind)
				require.Equal(t, map[chainID]int{chainA: test.in}, included(w))
			})
		})
	}
}

// What stands of a bundle in earlier blocks is not run again, and its messages can
// still be relayed.
func TestBundleIsCompleted(t *testing.T) {
	t.Parallel()
	sent := enginefake.Tx(users[0], chainA, 0, enginefake.Send(chainB))
	b := bundle(item(chainA, sent), relayOn(chainB), item(chainB, log1(1, chainB, 0)))

	w := newWorld(t, chainA, chainB)
	kept := []builder.Kept{{ItemResult: result(t, b, 0), Slot: slot - 1}}
	outcome, steps, err := w.attempt().Run(bg, b, kept)
	require.NoError(t, err)
	// The message is of an earlier slot now, where this history has none.
	require.Equal(t, bundlepool.Fail, outcome.Kind)
	require.Equal(t, 1, outcome.Result.Failed.Item)
	require.Contains(t, outcome.Result.Failed.Reason, "time 1000000 refused")
	require.Contains(t, outcome.Result.Failed.Reason, "1 transactions of the bundle remain in earlier blocks")
	require.Empty(t, steps)

	kept = append(kept, builder.Kept{ItemResult: result(t, b, 1), Slot: slot - 1})
	outcome, steps, err = w.attempt().Run(bg, b, kept)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Execute, outcome.Kind)
	require.Len(t, outcome.Result.Items, 3)
	require.Equal(t, []sequence.Step{{Chain: chainB, Bundle: b.Hash(), Expiry: b.Expiry, Transactions: [][]byte{b.Items[2].Transaction}}}, steps)
}

// result is what a bundle's n-th transaction comes to in a fresh slot.
func result(t *testing.T, b *sequence.Bundle, n int) bundlepool.ItemResult {
	outcome, _, err := newWorld(t, chainA, chainB).attempt().Run(bg, b, nil)
	require.NoError(t, err)
	return outcome.Result.Items[n]
}

// A bundle whose standing transactions cannot be read waits; the slot goes on.
func TestStandingCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA)
	unknown := func(context.Context, common.Hash) ([]builder.Kept, error) { return nil, errors.New("engine is away") }
	bundles := new(list).add(bundle(item(chainA, log1(0, chainA, 0))))
	clk := newLeaping()
	order, err := builder.New(bundles, unknown, w.relayer, w.policy, engine.Priority, w.failsafe.Load, clk, &w.counted, log.NewLogger(log.DiscardHandler())).Build(bg, slot, w.blocks, w.check, slotTimes(clk.now), nil)
	require.NoError(t, err)
	require.Empty(t, order.Bundles)
	require.Empty(t, order.Steps)
}

// A bundle goes on after a transaction that may revert, and its steps say which one that was.
func TestMayRevert(t *testing.T) {
	t.Parallel()
	b := bundle(item(chainA, log1(0, chainA, 0)), item(chainA, enginefake.Tx(users[1], chainA, 0, enginefake.Revert("no"))), item(chainB, log1(0, chainB, 0)))
	w := newWorld(t, chainA, chainB)
	outcome, _, err := w.attempt().Run(bg, b, nil)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Fail, outcome.Kind)

	b.Items[1].MayRevert = true
	outcome, steps, err := w.attempt().Run(bg, b, nil)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Execute, outcome.Kind)
	require.Len(t, outcome.Result.Items, 3)
	require.Zero(t, outcome.Result.Items[1].Status)
	require.Equal(t, "data 0x6e6f", outcome.Result.Items[1].RevertReason)
	require.Equal(t, b.Hash(), sequence.BundleOf(steps).Hash())
	require.True(t, steps[1].MayRevert)

	// That it cannot be included is another matter.
	b.Items[1].Transaction = enginefake.Tx(users[1], chainA, 7, enginefake.Log("too early"))
	outcome, _, err = newWorld(t, chainA, chainB).attempt().Run(bg, b, nil)
	require.NoError(t, err)
	require.NotEqual(t, bundlepool.Execute, outcome.Kind)
	require.Equal(t, 1, outcome.Result.Failed.Item)
}

// A bundle waits for its conditions, and its steps state them.
func TestConditions(t *testing.T) {
	t.Parallel()
	b := bundle(item(chainA, log1(0, chainA, 0)), item(chainB, log1(0, chainB, 0)))
	w := newWorld(t, chainA, chainB)
	number := w.blocks[1].Session.Header().Number
	b.Terms = &sequence.Terms{Conditions: []sequence.Condition{{Chain: chainA}, {Chain: chainB, NumberMin: number + 1}}}
	outcome, steps, err := w.attempt().Run(bg, b, nil)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Retry, outcome.Kind)
	require.Contains(t, outcome.Result.Failed.Reason, "condition 1 does not hold")
	require.Equal(t, chainB, outcome.Result.Failed.Chain)
	require.Empty(t, steps)

	b.Terms.Conditions[1].NumberMin = number
	outcome, steps, err = w.attempt().Run(bg, b, nil)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Execute, outcome.Kind)
	require.Equal(t, b.Hash(), sequence.BundleOf(steps).Hash())
}

func TestNoRelayer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	at := w.attempt()
	at.Relayer = nil
	outcome, _, err := at.Run(bg, bundle(item(chainA, enginefake.Tx(users[0], chainA, 0, enginefake.Send(chainB))), relayOn(chainB)), nil)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Fail, outcome.Kind)
	require.Contains(t, outcome.Result.Failed.Reason, "no relayer key")
	require.Equal(t, 1, outcome.Result.Failed.Item)
}

func failing(call string, err error) enginefake.Hook {
	return func(_ context.Context, c string) error {
		if c == call {
			return err
		}
		return nil
	}
}

// Every call that fails ends the slot, and the error names the chain.
func TestSessionLost(t *testing.T) {
	t.Parallel()
	good := bundle(item(chainA, enginefake.Tx(users[0], chainA, 0, enginefake.Send(chainB))), relayOn(chainB))
	reverts := bundle(item(chainA, log1(0, chainA, 0)), item(chainB, enginefake.Tx(users[0], chainB, 0, enginefake.Revert("no"))))
	conditional := bundle(item(chainB, log1(0, chainB, 0)))
	conditional.Terms = &sequence.Terms{Conditions: []sequence.Condition{{Chain: chainB, NumberMin: 1}}}
	for call, b := range map[string]*sequence.Bundle{
		"savepoint": good, "execute": good, "account": good, "release": good, "fill": good, "rollback": reverts, "check": conditional,
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chainA, chainB)
			w.engines[chainB].SetHook(failing(call, engine.ErrSessionClosed))
			err := w.build(bg, new(list).add(b), newLeaping())
			var lost *builder.ChainError
			require.ErrorAs(t, err, &lost)
			require.Equal(t, chainB, lost.Chain)
			require.ErrorIs(t, err, engine.ErrSessionClosed)
			require.Nil(t, w.order)
		})
	}
}

func TestEngineRestartsInTheSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.engines[chainA].Crash(0)
	err := w.build(bg, &list{}, newLeaping())
	var lost *builder.ChainError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, chainA, lost.Chain)
	require.ErrorIs(t, err, engine.ErrSessionClosed)
}

// broken is a checker that fails for another reason than a message.
type broken struct{ builder.Checker }

func (broken) Apply(chainID, []executor.Tx) error { return executor.ErrMisuse }

func TestCheckerFails(t *testing.T) {
	t.Parallel()
	for name, bundles := range map[string]*list{"bundle": new(list).add(bundle(item(chainA, log1(0, chainA, 0)))), "fill": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chainA)
			clk := newLeaping()
			nothing := func(context.Context, common.Hash) ([]builder.Kept, error) { return nil, nil }
			_, err := builder.New(bundles, nothing, w.relayer, w.policy, engine.Priority, w.failsafe.Load, clk, &w.counted, log.NewLogger(log.DiscardHandler())).
				Build(bg, slot, w.blocks, broken{w.check}, slotTimes(clk.now), nil)
			require.ErrorIs(t, err, executor.ErrMisuse)
			require.ErrorContains(t, err, "chain 901")
		})
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]string{"waiting": "", "in a bundle": "execute", "in a fill": "fill"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, chainA, chainB)
				ctx, cancel := context.WithCancel(bg)
				begin := time.Now()
				time.AfterFunc(750*time.Millisecond, cancel)
				if call == "" {
					time.AfterFunc(100*time.Millisecond, cancel)
				} else {
					w.engines[chainB].SetHook(func(ctx context.Context, c string) error {
						if c == call {
							<-ctx.Done()
						}
						return nil
					})
				}
				b := bundle(item(chainA, log1(0, chainA, 0)), item(chainB, log1(0, chainB, 0)))
				require.Error(t, w.build(ctx, new(list).add(b), clock.SystemClock))
				require.Nil(t, w.order)
				if call == "" {
					require.Equal(t, 100*time.Millisecond, time.Since(begin))
				}
			})
		})
	}
}
