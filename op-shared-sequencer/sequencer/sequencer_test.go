package sequencer

// Scenarios, each in a world of its own (world_test.go), in which every block that is
// agreed or handed over is checked (driver_test.go). What is promised:
//
//	steady        lockstep at the same timestamps and origins, on time, gossiped once
//	pauses        catch up slot by slot; a chain that is not ready is waited for, then left out, and comes back
//	by hand       admin stop and start, recover mode, safe lag
//	ends          reset in a slot, Stop, driver close, stop of the whole
//	engines       temporary errors, lost blocks, blocks that only derivation has, restarts
//	L1            reorgs, noticed by derivation and by ourselves; origins that disagree; drift
//	invalidation  a denied block is not handed over again, and waited out
//	bundles       executed, run again after a reorg, undone, completed, simulated
//
// chaos_test.go mixes them.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLockstep(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(3 * time.Second) // the first block waits for the first reset
		from := w.now() + 1
		for range 10 {
			w.a().sendPlain(3)
			w.b().sendPlain(2)
			w.run(time.Second)
			w.lockstep()
		}
		reports := w.sealed(from)
		require.Len(t, reports, 10)
		for _, r := range reports {
			require.Len(t, r.Blocks, 2)
			require.Equal(t, -w.cfg.SealLead, r.Late, "slot %d", r.Slot)
			require.Equal(t, r.Blocks[0].Ref.L1Origin, r.Blocks[1].Ref.L1Origin)
			require.Equal(t, 4, r.Blocks[0].Transactions)
			require.Equal(t, 3, r.Blocks[1].Transactions)
		}
		require.Greater(t, w.a().head().L1Origin.Number, uint64(l1Start), "the L1 origin advances")
		for _, c := range w.chains {
			head := c.head()
			require.Len(t, c.gossip, int(head.Number), "chain %s: gossiped once each", c.id)
			for i, id := range c.gossip {
				require.Equal(t, c.ref(uint64(i+1)).ID(), id)
			}
			logged, time, ok := w.ledger.Head(c.id)
			require.True(t, ok)
			require.Equal(t, head.ID(), logged)
			require.Equal(t, head.Time, time)
			have, ok := w.history.Head(c.id)
			require.True(t, ok)
			require.Equal(t, head.Hash, have.Hash, "the message history is not behind")
		}
		slot, _, _ := w.ledger.Last()
		require.Equal(t, slot, w.seq.LastSlot())
		for _, st := range w.seq.Status() {
			require.Empty(t, st.NotReady)
			require.Equal(t, st.Head.ID(), st.Agreed)
		}
	})
}

func TestBlockTimesDiffer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.b().rollup.BlockTime = 2
		w.start()
		w.run(20*time.Second + 500*time.Millisecond)
		a, b := w.a().head(), w.b().head()
		require.Equal(t, w.genesis+20, a.Time)
		require.Equal(t, w.genesis+20, b.Time)
		require.Equal(t, uint64(10), b.Number)
		together := 0
		for _, r := range w.sealed(0) {
			if len(r.Blocks) == 2 {
				together++
			}
		}
		require.Equal(t, 10, together, "every other slot is of both")
	})
}

func TestCatchUpAfterPause(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		for _, c := range w.chains {
			c.stopNode()
		}
		w.run(60 * time.Second)
		for _, c := range w.chains {
			c.startNode()
		}
		w.run(2 * time.Second) // a reset's rest, and the rest of a slot
		w.lockstep()
		require.Equal(t, w.a().head().Time-w.genesis, w.a().head().Number, "no slot is skipped")
		for _, r := range w.sealed(0) {
			require.Len(t, r.Blocks, 2, "slot %d", r.Slot)
		}
	})
}

// A chain that is not ready is waited for, then left out; it comes back without
// delaying the other.
func TestOneChainNotReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(0)
		w.b().engine.SetDown(true) // with its process; its node still runs
		head := w.a().head()
		w.run(w.cfg.Grace - 50*time.Millisecond)
		require.Equal(t, head, w.a().head(), "waited for")
		w.run(w.cfg.Grace)
		require.Greater(t, w.a().head().Number, head.Number+8, "left out, and what was lost caught up")
		w.run(20 * time.Second)
		w.runTo(500 * time.Millisecond)
		require.Equal(t, uint64(w.now()), w.a().head().Time)

		from := w.now() + 1
		w.b().engine.SetDown(false)
		w.run(4 * time.Second)
		w.lockstep()
		for _, r := range w.sealed(from) {
			if r.Blocks[0].Chain == chainA {
				require.Equal(t, -w.cfg.SealLead, r.Late, "slot %d of %d chains: nobody waits for the one that comes back", r.Slot, len(r.Blocks))
			}
		}
		require.Equal(t, w.b().head().Time-w.genesis, w.b().head().Number, "no slot is skipped")
	})
}

// After a restart the virtual nodes become ready one after the other, however long ago
// the last slot was: the first does not go on alone.
func TestTheFirstWaitsForTheOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startSequencer()
		w.run(w.cfg.Grace + 30*time.Second)
		w.a().startNode()
		w.run(2 * time.Second)
		w.b().startNode()
		w.run(3 * time.Second)
		w.lockstep()
		for _, r := range w.sealed(0) {
			require.Len(t, r.Blocks, 2, "slot %d", r.Slot)
		}
	})
}

// A chain that was left out is not waited for again because the other one paused.
func TestLeftOutUntilReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.b().stopNode()
		w.run(2 * w.cfg.Grace)
		w.a().reset()
		w.run(2*time.Second + 500*time.Millisecond)
		require.Equal(t, uint64(w.now()), w.a().head().Time)
	})
}

func TestAdminStopAndStart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(500 * time.Millisecond)
		n := w.b().node.seq
		hash, err := n.Stop(bg)
		require.NoError(t, err)
		head := w.b().head()
		require.Equal(t, head.Hash, hash)
		require.False(t, n.Active())
		_, err = n.Stop(bg)
		require.ErrorIs(t, err, sequencing.ErrSequencerAlreadyStopped)
		from := w.now() + 1
		w.run(3 * time.Second)
		require.Equal(t, head, w.b().head())
		require.Equal(t, uint64(w.now()), w.a().head().Time, "the other goes on")
		for _, r := range w.sealed(from) {
			require.Equal(t, -w.cfg.SealLead, r.Late, "and does not wait")
		}

		require.ErrorContains(t, n.Start(bg, common.Hash{1}), "block hash does not match")
		require.NoError(t, n.Start(bg, head.Hash))
		require.ErrorIs(t, n.Start(bg, head.Hash), sequencing.ErrSequencerAlreadyStarted)
		require.True(t, n.Active())
		w.run(2 * time.Second)
		w.lockstep()
		require.Equal(t, []bool{true, false, true}, w.b().node.listener.states)
	})
}

func TestStartedInactive(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startSequencer()
		w.a().startNode()
		w.b().startNodeWith(false)
		w.run(5*time.Second + 500*time.Millisecond)
		require.Equal(t, uint64(w.now()), w.a().head().Time)
		require.Zero(t, w.b().head().Number)
		require.Equal(t, []bool{false}, w.b().node.listener.states)
		require.NoError(t, w.b().node.seq.Start(bg, w.b().head().Hash))
		w.run(2 * time.Second)
		w.lockstep()
	})
}

func TestRecoverModeAndSafeLag(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(3 * time.Second)
		w.runTo(500 * time.Millisecond)
		w.a().node.seq.SetRecoverMode(true)
		w.a().sendPlain(5)
		over := w.bundle(w.now()+30, item(w.a(), enginefake.Tx(accounts[0], chainA, 0)), item(w.b(), enginefake.Tx(accounts[0], chainB, 0)))
		w.run(1 * time.Second) // the open slot began before
		from := w.now() + 1
		w.run(3 * time.Second)
		for _, r := range w.sealed(from) {
			require.Equal(t, 1, r.Blocks[0].Transactions, "slot %d: deposits only", r.Slot)
		}
		require.Contains(t, []bundlepool.State{bundlepool.Pending, bundlepool.Executed}, w.status(over).State)
		w.a().node.seq.SetRecoverMode(false)
		w.run(2 * time.Second)
		require.Equal(t, bundlepool.Executed, w.status(over).State)

		require.NoError(t, w.b().node.seq.SetMaxSafeLag(bg, 3))
		w.run(2 * w.cfg.Grace)
		head := w.b().head()
		require.Less(t, head.Time, uint64(w.now())-3, "no more than 3 blocks ahead of the safe head")
		w.b().promote(w.b().ref(head.Number - 1))
		w.run(2 * time.Second)
		require.Equal(t, head.Number+2, w.b().head().Number)
		require.NoError(t, w.b().node.seq.SetMaxSafeLag(bg, 0))
		w.run(3 * time.Second)
		w.lockstep()
		require.False(t, w.b().node.seq.ConductorEnabled(bg))
		require.Error(t, w.b().node.seq.OverrideLeader(bg))
	})
}

// A reset in the middle of a slot ends it: nothing of it is agreed or handed over.
func TestResetInASlot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(500 * time.Millisecond)
		a, b := w.a().head(), w.b().head()
		agreed := len(w.records())
		w.b().reset()
		w.run(990 * time.Millisecond) // less than the rest of one block
		require.Equal(t, a, w.a().head())
		require.Equal(t, b, w.b().head())
		require.Len(t, w.records(), agreed)
		require.Contains(t, w.failures(), errAborted)
		w.run(2 * time.Second)
		w.lockstep()
		require.Zero(t, w.a().engine.Sessions()+w.b().engine.Sessions()-2, "only those of the open slot")
	})
}

// held makes a call of an engine wait until it is let go. The call does not end with its context.
type held struct {
	entered, freed chan struct{}
	free           func()
}

func hold(c *testChain, call string) *held {
	h := &held{entered: make(chan struct{}), freed: make(chan struct{})}
	h.free = sync.OnceFunc(func() { close(h.freed) })
	c.w.cleanup = append(c.w.cleanup, h.free)
	var met atomic.Bool
	c.engine.SetHook(func(_ context.Context, name string) error {
		if name == call && met.CompareAndSwap(false, true) {
			close(h.entered)
			<-h.freed
		}
		if name == "insert" && call == "import" && !met.Load() {
			return engine.ErrNotFound // the driver has to send it the block
		}
		return nil
	})
	return h
}

// Stop returns when nothing of the slot can reach the controller any more.
func TestStopWaitsForTheSlot(t *testing.T) {
	for _, call := range []string{"open", "fill", "seal", "insert", "import"} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(5 * time.Second)
				h := hold(w.b(), call)
				<-h.entered
				handed := w.b().handed.total()
				stopped := make(chan common.Hash, 1)
				go func() {
					hash, err := w.b().node.seq.Stop(bg)
					require.NoError(t, err)
					stopped <- hash
				}()
				synctest.Wait()
				select {
				case <-stopped:
					t.Fatal("Stop has returned, and the slot still runs")
				default:
				}
				// Whoever asks again does not get an answer either.
				short, cancel := context.WithTimeout(bg, time.Second)
				defer cancel()
				_, err := w.b().node.seq.Stop(short)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				h.free()
				hash := <-stopped
				require.Equal(t, w.b().head().Hash, hash)
				if call == "import" { // it was on its way into the engine
					handed++
				}
				w.run(5 * time.Second)
				require.Equal(t, handed, w.b().handed.total(), "handed over after Stop")
				require.Equal(t, hash, w.b().head().Hash)
				require.NoError(t, w.b().node.seq.Start(bg, hash))
				w.run(3 * time.Second)
				w.lockstep()
			})
		})
	}
}

// A driver that closes in a slot waits until its parts are given back: the gossiper that
// is stopped next would block whoever uses it for ever.
func TestDriverClosesInASlot(t *testing.T) {
	for _, call := range []string{"open", "fill", "seal", "insert", "import"} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(5 * time.Second)
				h := hold(w.b(), call)
				<-h.entered
				closed := make(chan struct{})
				go func() {
					w.b().node.close()
					close(closed)
				}()
				w.run(time.Second)
				select {
				case <-closed:
					t.Fatal("the driver has closed, and the slot still uses it")
				default:
				}
				h.free()
				<-closed
				w.run(w.cfg.Grace + 2*time.Second)
				require.GreaterOrEqual(t, w.a().head().Time, uint64(w.now()), "the other chain goes on")
				w.b().startNode()
				w.run(3 * time.Second)
				w.lockstep()
			})
		})
	}
}

// Stop of the whole in the middle of a slot leaves nothing behind.
func TestStopInASlot(t *testing.T) {
	for _, call := range []string{"open", "fill", "seal", "insert", "import"} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(5 * time.Second)
				h := hold(w.b(), call)
				<-h.entered
				go func() {
					time.Sleep(time.Second)
					h.free()
				}()
				w.stop()
				w.start()
				w.run(3 * time.Second)
				w.lockstep()
			})
		})
	}
}

// unavailable makes the first n calls of a name fail.
func unavailable(c *testChain, call string, n int) {
	var calls atomic.Int64
	c.engine.SetHook(func(_ context.Context, name string) error {
		if name == call && calls.Add(1) <= int64(n) {
			return engine.ErrUnavailable
		}
		return nil
	})
}

// An agreed block that could not be handed over is handed over later, not built again.
func TestHandedOverLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(500 * time.Millisecond)
		before := w.b().head()
		// The engine has forgotten the sealed block, and the driver's call that sends it fails.
		var inserts, imports atomic.Int64
		w.b().engine.SetHook(func(_ context.Context, call string) error {
			switch {
			case call == "insert" && inserts.Add(1) == 1:
				return engine.ErrNotFound
			case call == "import" && imports.Add(1) == 1:
				return engine.ErrUnavailable
			}
			return nil
		})
		w.run(500 * time.Millisecond)
		require.Positive(t, imports.Load(), "it was sent")
		require.Equal(t, before, w.b().head())
		agreed, _, _ := w.ledger.Head(chainB)
		require.Equal(t, before.Number+1, agreed.Number, "it is agreed all the same")
		require.Equal(t, w.a().head().Number, agreed.Number, "and the other chain has its block")
		w.run(3 * time.Second)
		w.lockstep()
		require.Equal(t, agreed.Hash, w.b().ref(agreed.Number).Hash)
	})
}

// Each engine call that fails once costs at most some time.
func TestEngineCallFails(t *testing.T) {
	for _, call := range []string{"open", "savepoint", "fill", "seal", "insert", "import", "setHead", "block", "blockByHash", "receipts", "head", "discard"} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(5 * time.Second)
				unavailable(w.b(), call, 3)
				w.run(8 * time.Second)
				w.lockstep()
				require.Equal(t, w.b().head().Time-w.genesis, w.b().head().Number)
			})
		})
	}
}

// An engine that has lost its newest blocks gets them back from the ledger, while its
// driver does not even notice.
func TestEngineLosesBlocks(t *testing.T) {
	for name, lose := range map[string]int{"none": 0, "one": 1, "some": 7, "all": 1000} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(10 * time.Second)
				w.runTo(500 * time.Millisecond)
				head := w.b().head()
				w.b().engine.Crash(lose)
				w.run(3 * time.Second)
				w.lockstep()
				require.Equal(t, head, w.b().ref(head.Number))
			})
		})
	}
}

// Blocks that derivation made are not in the ledger: when the engine loses them, the
// driver has to find out where it stands.
func TestEngineLosesDerivedBlocks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		b := w.b()
		b.mayReplace()
		stopped, err := b.node.seq.Stop(bg)
		require.NoError(t, err)
		parent := b.head()
		require.Equal(t, stopped, parent.Hash)
		require.NoError(t, b.derive(parent))
		w.run(100 * time.Millisecond)
		require.Equal(t, parent.Number+1, b.head().Number)
		b.engine.Crash(2)
		require.NoError(t, b.node.seq.Start(bg, b.head().Hash))
		w.run(8 * time.Second)
		w.lockstep()
	})
}

// An engine loses blocks while its driver goes back at the same time.
func TestEngineLosesBlocksInAReset(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(20 * time.Second)
		w.runTo(500 * time.Millisecond)
		b := w.b()
		n := b.head().Number
		b.resetTo(n - 3)
		b.engine.Crash(6)
		w.run(8 * time.Second)
		w.lockstep()
	})
}

// The whole process restarts, and the engines have lost blocks unevenly.
func TestRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(10 * time.Second)
		for i := range 4 {
			w.runTo(500 * time.Millisecond)
			a, b := w.a().head(), w.b().head()
			w.stop()
			w.a().engine.Crash(i * 3)
			w.b().engine.Crash(i)
			w.run(time.Duration(i) * 4 * time.Second)
			w.startSequencer()
			for _, c := range w.chains {
				head, err := c.engine.Head(bg)
				require.NoError(t, err)
				require.Equal(t, map[chainID]eth.BlockID{chainA: a.ID(), chainB: b.ID()}[c.id], head.ID(), "the node finds the engine as it was")
				c.startNode()
			}
			w.run(4 * time.Second)
			w.lockstep()
			require.Equal(t, a, w.a().ref(a.Number))
			require.Equal(t, b, w.b().ref(b.Number))
		}
	})
}

// An engine that is away when the process starts is mended when it comes.
func TestStartWithoutAnEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(500 * time.Millisecond)
		head := w.b().head()
		w.stop()
		w.b().engine.Crash(3)
		w.b().engine.SetDown(true)
		w.startSequencer()
		w.a().startNode()
		w.run(w.cfg.Grace + 3*time.Second)
		require.GreaterOrEqual(t, w.a().head().Time, uint64(w.now()))
		w.b().engine.SetDown(false)
		w.b().startNode()
		w.run(4 * time.Second)
		w.lockstep()
		require.Equal(t, head, w.b().ref(head.Number))
	})
}

// crossing is a bundle that sends a message from A to B, relays it and goes on there.
func (w *world) crossing(user int, nonce uint64, expiry sequence.Slot) (hash common.Hash, onA, onB []byte) {
	onA = enginefake.Tx(accounts[user], chainA, nonce, enginefake.Send(chainB))
	onB = enginefake.Tx(accounts[user], chainB, nonce, enginefake.Log("arrived"))
	return w.bundle(expiry, item(w.a(), onA), relayOn(w.b()), item(w.b(), onB)), onA, onB
}

func TestBundle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(300 * time.Millisecond)
		hash, onA, onB := w.crossing(0, 0, w.now()+10)
		bad := w.bundle(w.now()+10,
			item(w.a(), enginefake.Tx(accounts[1], chainA, 0, enginefake.Log("gone"))),
			item(w.b(), enginefake.Tx(accounts[1], chainB, 0, enginefake.Revert("no"))))
		w.run(1 * time.Second)
		st := w.status(hash)
		require.Equal(t, bundlepool.Executed, st.State)
		require.Len(t, st.Items, 3, "two transactions and a relay")
		require.Equal(t, st.Items[0].BlockNumber, w.a().includes(onA))
		require.Equal(t, st.Items[2].BlockNumber, w.b().includes(onB))
		require.Equal(t, uint64(st.Slot), w.a().ref(st.Items[0].BlockNumber).Time)
		require.Equal(t, uint64(st.Slot), w.b().ref(st.Items[2].BlockNumber).Time)
		require.Equal(t, bundlepool.Failed, w.status(bad).State)
		require.Equal(t, 1, w.status(bad).Failure.Item)
		require.Zero(t, w.a().includes(enginefake.Tx(accounts[1], chainA, 0, enginefake.Log("gone"))))

		for _, c := range w.chains {
			c.promote(c.ref(c.head().Number))
		}
		w.run(2 * time.Second)
		require.Equal(t, bundlepool.Safe, w.status(hash).State)
	})
}

// reorgL1 replaces L1 blocks from the origin of the given block on.
func (w *world) reorgL1(from eth.L2BlockRef) { w.l1.reorg(from.L1Origin.Number) }

// An L1 reorg takes both chains back; what was agreed above is given up and built again,
// bundles as a whole or reported as undone.
func TestL1Reorg(t *testing.T) {
	for name, notice := range map[string]func(w *world){
		"derivation notices": func(w *world) { w.a().reset(); w.b().reset() },
		"one after the other": func(w *world) {
			w.a().reset()
			w.run(700 * time.Millisecond)
			w.b().reset()
		},
		"we notice": func(w *world) {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(20 * time.Second)
				w.runTo(300 * time.Millisecond)
				again, onA, onB := w.crossing(0, 0, w.now()+60)
				over, _, _ := w.crossing(1, 0, w.now()+1)
				w.run(3 * time.Second)
				require.Equal(t, bundlepool.Executed, w.status(again).State)
				require.Equal(t, bundlepool.Executed, w.status(over).State)
				at := w.a().ref(w.a().includes(onA))
				head := w.a().head()
				w.reorgL1(at)
				notice(w)
				w.run(12 * time.Second)
				w.lockstep()
				for _, c := range w.chains {
					now := c.ref(head.Number)
					require.NotEqual(t, head.Hash, now.Hash)
					require.True(t, w.l1.canonical(c.head().L1Origin))
					logged, _, _ := w.ledger.Head(c.id)
					require.Equal(t, c.head().ID(), logged)
				}
				require.Equal(t, w.a().head().L1Origin, w.b().head().L1Origin)

				st := w.status(again)
				require.Equal(t, bundlepool.Executed, st.State)
				require.Equal(t, uint64(1), st.Undone)
				require.NotZero(t, w.a().includes(onA))
				require.Equal(t, st.Items[0].BlockNumber, w.a().includes(onA))
				require.Equal(t, st.Items[2].BlockNumber, w.b().includes(onB))
				require.Equal(t, w.a().ref(w.a().includes(onA)).Time, w.b().ref(w.b().includes(onB)).Time, "in one slot")
				require.Contains(t, []bundlepool.State{bundlepool.Undone, bundlepool.Executed}, w.status(over).State)
			})
		})
	}
}

// What was executed after the pool was last saved is not run again.
func TestCrashAfterBundle(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.runTo(300 * time.Millisecond)
		hash, onA, onB := w.crossing(0, 0, w.now()+60)
		require.NoError(t, w.pool.Save(filepath.Join(w.dir, "bundles")))
		w.run(1 * time.Second)
		st := w.status(hash)
		require.Equal(t, bundlepool.Executed, st.State)
		w.crash()
		w.start()
		w.run(3 * time.Second)
		w.lockstep()
		again := w.status(hash)
		require.Equal(t, bundlepool.Executed, again.State)
		require.Equal(t, st.Slot, again.Slot)
		require.Equal(t, st.Items[0].BlockNumber, w.a().includes(onA))
		require.Equal(t, st.Items[2].BlockNumber, w.b().includes(onB))
	})
}

// A crash between an L1 reorg and the first slot after it: the bundles that were taken
// back are run again, whatever of it the saved pool knows.
func TestCrashAfterReorg(t *testing.T) {
	for name, saved := range map[string]bool{"pool saved before": false, "pool saved after": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(20 * time.Second)
				w.runTo(300 * time.Millisecond)
				hash, onA, onB := w.crossing(0, 0, w.now()+60)
				w.run(2 * time.Second)
				require.Equal(t, bundlepool.Executed, w.status(hash).State)
				require.NoError(t, w.pool.Save(filepath.Join(w.dir, "bundles")))
				head := w.a().head()
				w.reorgL1(w.a().ref(w.a().includes(onA)))
				for _, c := range w.chains {
					unavailable(c, "open", 1000)
					c.reset()
				}
				w.run(2 * time.Second)
				logged, _, _ := w.ledger.Head(chainA)
				require.Less(t, logged.Number, head.Number, "the ledger has followed")
				if saved {
					w.stop()
				} else {
					w.crash()
				}
				for _, c := range w.chains {
					c.engine.SetHook(nil)
				}
				w.start()
				w.run(4 * time.Second)
				w.lockstep()
				st := w.status(hash)
				require.Equal(t, bundlepool.Executed, st.State)
				require.NotZero(t, w.a().includes(onA))
				require.Equal(t, st.Items[0].BlockNumber, w.a().includes(onA))
				require.Equal(t, st.Items[2].BlockNumber, w.b().includes(onB))
			})
		})
	}
}

// A driver that goes back although nothing is wrong with the agreed blocks gets them again.
func TestResetToAnOlderHead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(2*redeliverBatch*time.Second + 20*time.Second)
		w.runTo(500 * time.Millisecond)
		head := w.b().head()
		agreed := len(w.records())
		w.b().resetTo(head.Number - 2*redeliverBatch - 6)
		synctest.Wait()
		require.Equal(t, head.Number-2*redeliverBatch-6, w.b().head().Number)
		w.run(1100 * time.Millisecond)
		require.Equal(t, head, w.b().ref(head.Number))
		w.run(2 * time.Second)
		w.lockstep()
		require.Less(t, len(w.records())-agreed, 5, "nothing is agreed twice")
	})
}

// While L1 does not answer for an agreed block, it is neither handed over nor given up.
func TestL1Outage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(12 * time.Second)
		w.runTo(500 * time.Millisecond)
		head := w.b().head()
		w.b().resetTo(head.Number - 3)
		w.b().view.set(func() { w.b().view.err = errors.New("L1 is away") })
		w.run(3 * time.Second)
		require.Equal(t, head.Number-3, w.b().head().Number)
		logged, _, _ := w.ledger.Head(chainB)
		require.Equal(t, head.ID(), logged)
		w.b().view.set(func() { w.b().view.err = nil })
		w.run(4 * time.Second)
		w.lockstep()
		require.Equal(t, head, w.b().ref(head.Number))
	})
}

// Where the chains' own selectors disagree on the L1 origin, both take the older one.
func TestOriginsDisagree(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.b().view.set(func() { w.b().view.lag = 4 * time.Second })
		w.start()
		w.run(60 * time.Second)
		w.lockstep()
		origins := map[uint64]bool{}
		for _, r := range w.sealed(0) {
			require.Equal(t, r.Blocks[0].Ref.L1Origin, r.Blocks[1].Ref.L1Origin, "slot %d", r.Slot)
			origins[r.Blocks[0].Ref.L1Origin.Number] = true
		}
		require.Greater(t, len(origins), 7, "and still advance")
	})
}

// One chain's L1 client is far behind for a while: it holds the other back only as far
// as an origin may stay.
func TestOriginHeldBackWithinDrift(t *testing.T) {
	cfg := rollup.Config{BlockTime: 1, MaxSequencerDrift: 600}
	origin := eth.L1BlockRef{Hash: common.Hash{1}, Number: 5, Time: 1000}
	on := func(time uint64) *block {
		return &block{member: &member{chain: &chain{rollup: &cfg}, head: eth.L2BlockRef{Time: time, L1Origin: origin.ID()}}}
	}
	require.True(t, on(1599).mayKeep(origin))
	require.False(t, on(1600).mayKeep(origin), "past the drift")
	other := origin
	other.Hash = common.Hash{2}
	require.False(t, on(1500).mayKeep(other), "an origin never goes back")
}

func TestNoTxPoolRules(t *testing.T) {
	at := uint64(2000)
	before, zero := uint64(100), uint64(0)
	forks := func(change func(c *rollup.Config)) *rollup.Config {
		c := &rollup.Config{BlockTime: 2, MaxSequencerDrift: 600, RegolithTime: &zero, CanyonTime: &zero, DeltaTime: &zero}
		for _, f := range []**uint64{&c.EcotoneTime, &c.FjordTime, &c.GraniteTime, &c.HoloceneTime, &c.IsthmusTime, &c.JovianTime, &c.KarstTime, &c.LagoonTime} {
			*f = &before
		}
		change(c)
		return c
	}
	none := func(*rollup.Config) {}
	drift := rollup.NewChainSpec(forks(none)).MaxSequencerDrift(at)
	for name, test := range map[string]struct {
		change func(c *rollup.Config)
		time   uint64
		want   bool
	}{
		"usual":            {none, at, false},
		"at the drift":     {none, at - 10 + drift, false},
		"past the drift":   {none, at - 10 + drift + 1, true},
		"ecotone":          {func(c *rollup.Config) { c.EcotoneTime = &at }, at, true},
		"fjord":            {func(c *rollup.Config) { c.FjordTime = &at }, at, true},
		"granite":          {func(c *rollup.Config) { c.GraniteTime = &at }, at, false},
		"holocene":         {func(c *rollup.Config) { c.HoloceneTime = &at }, at, false},
		"isthmus":          {func(c *rollup.Config) { c.IsthmusTime = &at }, at, true},
		"jovian":           {func(c *rollup.Config) { c.JovianTime = &at }, at, true},
		"karst":            {func(c *rollup.Config) { c.KarstTime = &at }, at, true},
		"lagoon":           {func(c *rollup.Config) { c.LagoonTime = &at }, at, true},
		"one after lagoon": {func(c *rollup.Config) { c.LagoonTime = &at }, at + 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, noTxPool(forks(test.change), test.time, eth.L1BlockRef{Time: at - 10}))
		})
	}
}

// Past the sequencer drift blocks are empty, and cross-chain work waits.
func TestPastTheDrift(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		// The next L1 block is known long before its time, and comes after a long gap.
		gap := w.genesis + 15
		w.l1.start = w.genesis - 1795
		w.l1.times = func(n uint64) uint64 {
			if n == l1Start {
				return w.genesis - 1795
			}
			return gap + (n-l1Start-1)*l1BlockTime
		}
		w.l1.reorg(l1Start)
		for _, c := range w.chains {
			c.rollup.Genesis.L1 = w.l1.at(l1Start).ID()
			c.view.ahead = time.Minute
		}
		w.start()
		w.run(8 * time.Second) // drift is 1800 s
		hash, _, _ := w.crossing(0, 0, w.now()+30)
		w.a().sendPlain(1)
		w.run(5 * time.Second)
		require.Equal(t, bundlepool.Pending, w.status(hash).State)
		for _, r := range w.sealed(sequence.Slot(w.genesis + 6)) {
			require.Equal(t, 1, r.Blocks[0].Transactions, "slot %d", r.Slot)
		}
		w.run(6 * time.Second)
		w.lockstep()
		require.Equal(t, bundlepool.Executed, w.status(hash).State)
	})
}

// A block is invalidated: its node is stopped, its engine rewound, the node started
// again; derivation replaces the block. It is not handed over again, nothing is built
// until it is replaced, and the bundle in it is completed.
func TestDeniedBlock(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := w.b()
		b.mayReplace()
		for _, c := range w.chains {
			c.authority = &authority{denied: map[eth.BlockID]bool{}}
		}
		w.start()
		w.run(10 * time.Second)
		w.runTo(300 * time.Millisecond)
		hash, onA, onB := w.crossing(0, 0, w.now()+60)
		w.run(3 * time.Second)
		bad := b.ref(b.includes(onB))
		w.a().promote(w.a().ref(w.a().head().Number - 5))
		b.promote(b.ref(bad.Number - 3))
		w.run(time.Second)

		b.authority.deny(bad.ID())
		w.a().stopNode()
		b.stopNode()
		b.engine.Rewind(bad.Number - 1)
		b.startNode()
		w.a().startNode()
		w.run(3 * time.Second)
		require.Equal(t, bad.Number-1, b.head().Number, "nothing is built before the block is replaced")
		for n := bad.Number - 2; n <= bad.Number-1; n++ {
			b.promote(b.ref(n))
		}
		require.NoError(t, b.derive(b.head()))
		w.run(4 * time.Second)
		w.lockstep()
		replaced := b.ref(bad.Number)
		require.NotEqual(t, bad.Hash, replaced.Hash)
		for _, id := range b.gossip[len(b.gossip)-4:] {
			require.NotEqual(t, bad.ID(), id)
		}
		st := w.status(hash)
		require.Equal(t, bundlepool.Executed, st.State)
		require.Equal(t, uint64(1), st.Undone)
		require.NotZero(t, w.a().includes(onA))
		require.Greater(t, b.includes(onB), bad.Number)
	})
}

// Derivation builds a block of its own on the chain: what was agreed above is given up.
func TestDerivationReplacesBlocks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := w.b()
		b.mayReplace()
		w.start()
		for range 10 {
			b.sendPlain(1) // derivation's blocks will not have these
			w.run(time.Second)
		}
		w.runTo(500 * time.Millisecond)
		head := b.head()
		require.NoError(t, b.derive(b.ref(head.Number-3)))
		w.run(3 * time.Second)
		w.lockstep()
		require.NotEqual(t, head.Hash, b.ref(head.Number).Hash)
		require.Equal(t, b.head().Time-w.genesis, b.head().Number)
	})
}

func TestSimulate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.startSequencer()
		good := &sequence.Bundle{Expiry: w.now() + 20, Items: []sequence.BundleItem{
			item(w.a(), enginefake.Tx(accounts[0], chainA, 0, enginefake.Send(chainB))), relayOn(w.b()),
		}}
		_, err := w.seq.Simulate(bg, good)
		require.ErrorIs(t, err, ErrNoSlot)
		for _, c := range w.chains {
			c.startNode()
		}
		w.run(5 * time.Second)
		w.runTo(300 * time.Millisecond)
		bad := &sequence.Bundle{Expiry: w.now() + 20, Items: []sequence.BundleItem{
			item(w.a(), enginefake.Tx(accounts[0], chainA, 0)), item(w.b(), enginefake.Tx(accounts[0], chainB, 0, enginefake.Revert("why"))),
		}}
		before := w.a().engine.Sessions() + w.b().engine.Sessions()
		res, err := w.seq.Simulate(bg, good)
		require.NoError(t, err)
		require.Nil(t, res.Failed)
		require.Len(t, res.Items, 2)
		require.NotEmpty(t, res.Items[1].Logs)
		res, err = w.seq.Simulate(bg, bad)
		require.NoError(t, err)
		require.Equal(t, 1, res.Failed.Item)
		require.Contains(t, res.Failed.Reason, "reverted")
		w.b().engine.SetHook(func(_ context.Context, call string) error {
			if call == "execute" {
				return engine.ErrUnavailable
			}
			return nil
		})
		_, err = w.seq.Simulate(bg, bad)
		require.ErrorIs(t, err, engine.ErrUnavailable)
		w.b().engine.SetHook(nil)
		require.Equal(t, before, w.a().engine.Sessions()+w.b().engine.Sessions())
		w.run(2 * time.Second)
		w.lockstep()
		require.Zero(t, w.a().includes(good.Items[0].Transaction))
		require.Zero(t, w.a().includes(bad.Items[0].Transaction))
	})
}

// While one chain catches up in slots of its own, the other's bundles do not expire, and
// new ones are measured by the slot that the set has come to.
func TestBundlesWhileAChainCatchesUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(5 * time.Second)
		w.b().stopNode()
		w.run(time.Minute)
		w.runTo(300 * time.Millisecond)
		w.b().startNode()
		slots := map[sequence.Slot]bool{}
		for range 300 {
			w.run(10 * time.Millisecond)
			slots[w.pool.Slot()] = true
		}
		w.lockstep()
		for s := range slots {
			require.GreaterOrEqual(t, s, w.now()-5, "the pool is not told that the set went back")
		}
	})
}

// failing makes every call of a name fail, or hang for as long as a client waits.
func failing(c *testChain, call string, err error, hang time.Duration) {
	c.engine.SetHook(func(ctx context.Context, name string) error {
		if name != call {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, hang)
		defer cancel()
		if hang > 0 {
			<-ctx.Done()
		}
		return err
	})
}

// A chain that makes slots fail, although it looks ready, does not hold the other back:
// it is tried alone, in the time that the other's slots leave.
func TestChainThatFailsSlots(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		hang time.Duration
	}{
		"engine says no":         {engine.ErrInvalidAttributes, 0},
		"engine fails":           {engine.ErrSessionClosed, 0},
		"engine does not answer": {engine.ErrUnavailable, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(5 * time.Second)
				w.runTo(300 * time.Millisecond)
				failing(w.b(), "seal", test.err, test.hang)
				w.run(2*test.hang + 2*w.cfg.Grace + 5*time.Second)
				from := w.now() + 2
				w.run(10 * time.Second)
				on := 0
				for _, r := range w.sealed(from) {
					require.Equal(t, -w.cfg.SealLead, r.Late, "slot %d: the other is on time", r.Slot)
					require.Len(t, r.Blocks, 1)
					on++
				}
				require.GreaterOrEqual(t, on, 8)
				w.b().engine.SetHook(nil)
				w.run(6 * time.Second)
				w.lockstep()
				require.Equal(t, w.b().head().Time-w.genesis, w.b().head().Number)
			})
		})
	}
}

// While a denied block is not replaced, its messages are not executed elsewhere.
func TestMessagesOfDeniedBlocks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.a()
		a.mayReplace()
		for _, c := range w.chains {
			c.authority = &authority{denied: map[eth.BlockID]bool{}}
		}
		w.start()
		w.run(10 * time.Second)
		w.runTo(300 * time.Millisecond)
		sent := enginefake.Tx(accounts[0], chainA, 0, enginefake.Log("sent"))
		w.bundle(w.now()+5, item(a, sent))
		w.run(2 * time.Second)
		bad := a.ref(a.includes(sent))
		execute := func(user int) common.Hash {
			return w.bundle(w.now()+600, item(w.b(), enginefake.Tx(accounts[user], chainB, 0, enginefake.Execute(messages.Message{
				Identifier: messages.Identifier{
					Origin: enginefake.Script, BlockNumber: bad.Number, LogIndex: 0, Timestamp: bad.Time, ChainID: chainA.ID(),
				},
				PayloadHash: crypto.Keccak256Hash(append(enginefake.LogTopic.Bytes(), "sent"...)),
			}))))
		}
		good := execute(1)
		w.run(2 * time.Second)
		require.Equal(t, bundlepool.Executed, w.status(good).State, "before")

		a.authority.deny(bad.ID())
		a.stopNode()
		a.engine.Rewind(bad.Number - 1)
		a.startNode()
		w.run(w.cfg.Grace + 2*time.Second)
		late := execute(2)
		w.run(3 * time.Second)
		require.GreaterOrEqual(t, w.b().head().Time, uint64(w.now()), "the other chain goes on")
		require.NotEqual(t, bundlepool.Executed, w.status(late).State)
	})
}

// Blocks that were pruned from the ledger and lost by an engine are derivation's to make;
// what is agreed on top of them is not given up meanwhile.
func TestGapBelowTheLedger(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Retention = 0
		w.start()
		w.run(pruneEvery*time.Second - 10*time.Second)
		b := w.b()
		for _, c := range w.chains {
			c.promote(c.ref(c.head().Number - 5))
		}
		w.run(20 * time.Second)
		w.runTo(300 * time.Millisecond)
		head := b.head()
		_, ok := w.ledger.Ancestor(chainB, pruneEvery-30)
		require.False(t, ok, "pruned")
		var lost []*eth.ExecutionPayloadEnvelope // what derivation would make again
		for n := b.ref(pruneEvery - 40).Number; n < pruneEvery; n++ {
			env, err := b.engine.Payload(bg, b.ref(n).Hash)
			require.NoError(t, err)
			lost = append(lost, env)
		}
		b.stopNode()
		b.engine.Crash(int(head.Number - (pruneEvery - 40)))
		b.startNode()
		w.run(w.cfg.Grace + 3*time.Second)
		require.Less(t, b.head().Number, uint64(pruneEvery-30))
		logged, _, _ := w.ledger.Head(chainB)
		require.Equal(t, head.ID(), logged, "not given up")
		require.GreaterOrEqual(t, w.a().head().Time, uint64(w.now()), "the other chain goes on")
		for _, env := range lost {
			require.NoError(t, b.engine.Import(bg, env))
			require.NoError(t, b.engine.SetHead(bg, env.ExecutionPayload.BlockHash, common.Hash{}, common.Hash{}))
		}
		b.reset()
		w.run(5 * time.Second)
		w.lockstep()
		require.Equal(t, head, b.ref(head.Number))
	})
}

// What cannot be made durable is not agreed, and an operator is told when only a new
// start helps.
func TestDiskFails(t *testing.T) {
	broken := fmt.Errorf("%w: no disk", ledger.ErrBroken)
	for name, test := range map[string]struct {
		fail  func(w *world, err error)
		err   error
		fatal bool
	}{
		"ledger is full":        {func(w *world, err error) { w.appendErr = err }, errors.New("no space left on device"), false},
		"ledger is broken":      {func(w *world, err error) { w.appendErr = err }, broken, true},
		"bundles are not saved": {func(w *world, err error) { w.saveErr = err }, errors.New("no space left on device"), false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				w.run(5 * time.Second)
				w.runTo(300 * time.Millisecond)
				hash, onA, _ := w.crossing(0, 0, w.now()+60)
				agreed, head := len(w.records()), w.a().head()
				w.set(func() { test.fail(w, test.err) })
				w.run(3 * time.Second)
				require.Len(t, w.records(), agreed)
				require.Equal(t, head, w.a().head(), "nothing is handed over")
				require.Equal(t, bundlepool.Pending, w.status(hash).State)
				require.ErrorIs(t, w.failures()[0], test.err)
				if test.fatal {
					require.NotEmpty(t, w.fatal)
				} else {
					require.Empty(t, w.fatal)
				}
				w.set(func() { test.fail(w, nil) })
				w.run(3 * time.Second)
				w.lockstep()
				require.Equal(t, bundlepool.Executed, w.status(hash).State)
				require.NotZero(t, w.a().includes(onA))
			})
		})
	}
}

func TestConfig(t *testing.T) {
	good := DefaultConfig()
	require.NoError(t, good.Check())
	for want, change := range map[string]func(c *Config){
		"fill lead":       func(c *Config) { c.FillLead = c.SealLead },
		"both positive":   func(c *Config) { c.SealLead = -1 },
		"least fill time": func(c *Config) { c.MinFill = 0 },
		"grace time":      func(c *Config) { c.Grace = -1 },
	} {
		bad := good
		change(&bad)
		require.ErrorContains(t, bad.Check(), want)
		_, err := New(bad, Deps{})
		require.ErrorContains(t, err, want)
	}
	deps := Deps{Clock: clock.SystemClock, Rotation: func(rotation.Machine) (rotation.Rotation, error) { return nil, nil }}
	_, err := New(good, deps)
	require.ErrorContains(t, err, "at least one chain")
	deps.Chains = map[chainID]Chain{chainA: {Engine: enginefake.New(chainB, 1)}}
	_, err = New(good, deps)
	require.ErrorContains(t, err, "chain 901 is given the engine of chain 902")
}
