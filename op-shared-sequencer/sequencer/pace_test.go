package sequencer

import (
	"context"
	"math/rand"
	"sync"
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
	for ; p.window()*2/3 < need; slots++ {
		p.filled(p.window()*2/3, most) // all the time it has
	}
	require.Equal(t, 2, slots, "200, 267, 356 ms")
	before := p.window()
	p.filled(need, most)
	require.Greater(t, p.window(), before, "a third of the time is spare")
	for range 10 {
		p.filled(need, most)
		require.Equal(t, 2*need, p.window())
	}
	p.filled(10*time.Second, most)
	require.Equal(t, most, p.window())
	p.filled(time.Millisecond, most)
	require.Greater(t, p.window(), most*9/10, "one block with little in it")
	for range 50 {
		p.filled(time.Millisecond, most)
	}
	require.InDelta(t, least, p.window(), float64(time.Millisecond))
	p.filled(time.Second, least/2)
	require.InDelta(t, least, p.window(), float64(time.Millisecond), "what is configured is kept")
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
			require.GreaterOrEqual(t, p.window(), least)
			require.LessOrEqual(t, p.window(), max(least, most))
			if 2*took >= before {
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
		w.a().engine.SetHook(func(_ context.Context, call string) error {
			if call != "fill" {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			slot := time.Unix(int64(w.a().head().Time)+1, 0)
			lead = time.Until(slot)
			had = (lead - w.cfg.SealLead) * 2 / 3 // as package builder has it
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

		wants(250 * time.Millisecond)
		w.run(time.Second)
		_, full := look()
		require.False(t, full)
		w.run(5 * time.Second)
		at, full = look()
		require.True(t, full)
		require.Equal(t, w.seq.FillLead(), at)

		wants(5 * time.Second) // no end
		w.run(10 * time.Second)
		at, _ = look()
		require.Equal(t, w.cfg.SealLead+500*time.Millisecond, at, "half a slot before the seal")
		for _, r := range w.sealed(first) {
			require.LessOrEqual(t, r.Late, time.Duration(0), "slot %d", r.Slot)
		}

		wants(0)
		w.run(40 * time.Second)
		at, _ = look()
		require.InDelta(t, w.cfg.FillLead, at, float64(5*time.Millisecond))
	})
}
