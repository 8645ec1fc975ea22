package sequencer

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
)

// counter counts the calls that are made to an engine. Over the authenticated RPC each is one
// request, so that they are what a slot costs an operator whose engines are not embedded.
type counter struct {
	mu    sync.Mutex
	calls map[string]int
}

func (c *counter) watch(e *enginefake.Engine) {
	e.SetHook(func(_ context.Context, call string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls[call]++
		return nil
	})
}

// take gives what was counted, and begins anew.
func (c *counter) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = map[string]int{}
	return out
}

// What a slot asks of one chain's engine is a bill that every operator pays each second for every
// chain: a change that adds to it has to say so here.
func TestCallsPerSlot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(3 * time.Second)
		const slots = 10
		count := &counter{calls: map[string]int{}}
		count.watch(w.a().engine)
		perSlot := func() map[string]int {
			out := map[string]int{}
			for call, n := range count.take() {
				require.Zero(t, n%slots, "%s was called %d times in %d slots", call, n, slots)
				out[call] = n / slots
			}
			return out
		}
		w.run(slots * time.Second)
		idle := perSlot()
		for range slots {
			w.a().sendPlain(3)
			w.run(time.Second)
		}
		busy := perSlot()
		// setHead is op-node's own, as in stock; its import is answered for it, as insert has stored the
		// block. A fill with transactions that execute messages has a release more.
		require.Equal(t, map[string]int{"open": 1, "fill": 1, "seal": 1, "insert": 1, "setHead": 1}, idle)
		require.Equal(t, idle, busy, "transactions cost no calls of their own")
	})
}

// A chain that has its block before the others have theirs is not behind: its receipts are not read
// from the engine, as the slot's messages are known.
func TestReceiptsAreNotRead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.run(3 * time.Second)
		count := &counter{calls: map[string]int{}}
		count.watch(w.a().engine)
		w.b().engine.SetHook(func(_ context.Context, call string) error {
			if call == "insert" {
				time.Sleep(5 * pollReady) // of simulated time
			}
			return nil
		})
		before := w.a().head()
		w.run(5 * time.Second)
		require.Greater(t, w.a().head().Number, before.Number+2)
		require.Zero(t, count.take()["receipts"])
	})
}

// A chain that is in line is looked at when something happens to it. A keeper that looks all the time
// wakes the process as often, which costs more than what it does then.
func TestKeepersSleep(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		auth := &authority{denied: map[eth.BlockID]bool{}}
		w.a().authority = auth
		w.start()
		w.run(3 * time.Second)
		auth.mu.Lock()
		before := auth.asked
		auth.mu.Unlock()
		const slots = 10
		w.run(slots * time.Second)
		auth.mu.Lock()
		defer auth.mu.Unlock()
		require.LessOrEqual(t, auth.asked-before, 20*slots, "the leader asks too")
	})
}
