package sequencer

import (
	"context"
	"errors"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestPace(t *testing.T) {
	const least, most, need = 200 * time.Millisecond, 500 * time.Millisecond, 220 * time.Millisecond
	var p pace
	p.init(least)
	require.Equal(t, least, p.window())
	slots := 0
	for ; p.window()-p.rest() < need; slots++ {
		p.filled(p.window()-p.rest(), most) // all the time it has
	}
	require.Equal(t, 2, slots, "133, 178, 237 ms")
	for range 50 {
		p.filled(need, most)
	}
	require.InDelta(t, need*4/3+p.rest(), p.window(), float64(time.Millisecond))
	p.filled(10*time.Second, most)
	require.Equal(t, most, p.window())
	p.filled(time.Millisecond, most)
	require.Greater(t, p.window(), most*9/10, "one block with little in it")
	p.lost()
	require.Less(t, p.window(), least+(most-least)/2)
	for range 50 {
		p.filled(time.Millisecond, most)
	}
	require.InDelta(t, least, p.window(), float64(time.Millisecond))
	p.filled(time.Second, least/2)
	require.InDelta(t, least, p.window(), float64(time.Millisecond), "what is configured is kept")
	p.lost()
	require.GreaterOrEqual(t, p.window(), least)
}

func TestPaceStaysInBounds(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for range 1000 {
		least, most := time.Duration(1+rng.Intn(1000)), time.Duration(1+rng.Intn(1000))
		var p pace
		p.init(least)
		for range 30 {
			took := time.Duration(rng.Intn(2000))
			before := p.window()
			p.filled(took, most)
			if rng.Intn(10) == 0 {
				p.lost()
				before = 0
			}
			require.GreaterOrEqual(t, p.window(), least)
			require.LessOrEqual(t, p.window(), max(least, most))
			if took+p.rest() >= before {
				require.GreaterOrEqual(t, p.window(), min(before, most), "it does not shrink when the time was needed")
			}
		}
	}
}

// A block whose transactions take longer than the configured fill lead allows is begun earlier,
// and still sealed in time; when they are gone, it is late again.
func TestLongFillsBeginEarlier(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var need time.Duration // what a fill would take
		var lead, had time.Duration
		var failing atomic.Bool
		w.a().engine.SetHook(func(_ context.Context, call string) error {
			if call == "seal" && failing.Load() {
				return errors.New("too late")
			}
			if call != "fill" {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			slot := time.Unix(int64(w.a().head().Time)+1, 0)
			lead = time.Until(slot)
			had = lead - w.cfg.SealLead - w.seq.pace.rest() // as package builder has it
			time.Sleep(min(need, had))
			return nil
		})
		look := func() (time.Duration, bool) {
			mu.Lock()
			defer mu.Unlock()
			return lead, had >= need
		}
		wants := func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			need = d
		}
		w.start()
		w.run(3 * time.Second)
		first := sequence.Slot(w.a().head().Time) // before it they get on time
		at, _ := look()
		require.Equal(t, w.cfg.FillLead, at)

		wants(200 * time.Millisecond)
		w.run(time.Second)
		_, full := look()
		require.False(t, full)
		w.run(5 * time.Second)
		at, full = look()
		require.True(t, full)
		require.Equal(t, w.seq.FillLead(), at)
		require.Less(t, at, w.cfg.SealLead+w.seq.longestFill(time.Second))

		wants(5 * time.Second) // no end
		w.run(10 * time.Second)
		at, _ = look()
		require.Equal(t, w.cfg.SealLead+500*time.Millisecond, at, "half a slot before the seal")
		for _, r := range w.sealed(first) {
			require.LessOrEqual(t, r.Late, time.Duration(0), "slot %d", r.Slot)
		}

		failing.Store(true)
		w.run(time.Second)
		failing.Store(false)
		require.Less(t, w.seq.FillLead(), at, "what took so long was in vain")

		wants(0)
		w.run(40 * time.Second)
		at, _ = look()
		require.InDelta(t, w.cfg.FillLead, at, float64(5*time.Millisecond))
	})
}
