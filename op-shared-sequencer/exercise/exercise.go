// Package exercise watches a running set for a while, and while a part of it is stopped and
// started again by commands of the operator: how late slots are, who led, who missed a turn,
// who voted, and how long the set takes to be well again. It changes nothing by itself.
package exercise

import (
	"context"
	"fmt"
	"time"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/overview"
)

// Config says what is done.
type Config struct {
	// Slots are watched before anything is stopped, and without Stop altogether.
	Slots int
	// Stop and Start are called to stop and start a part of the set. Both or none.
	Stop, Start func(context.Context) error
	// Down is how long it stays stopped.
	Down time.Duration
	// Recovery bounds the wait until the set is as well as it was before.
	Recovery time.Duration
	// Poll is how often the operator is asked. Times are as exact as this.
	Poll time.Duration
	// Take asks.
	Take func(context.Context) (*overview.Overview, error)
	Now  func() time.Time
	// Sleep waits, or until the context has ended. It returns the context's error.
	Sleep func(context.Context, time.Duration) error
	// Said is told what happens. Optional.
	Said func(string)
}

// settled is for how many slots in a row nothing new may be wrong, until the set is taken
// to have recovered.
const settled = 3

// patience is for how long no slot may come while all is to be well.
const patience = time.Minute

// observer collects what is seen.
type observer struct {
	cfg         Config
	first, last *overview.Overview // last: of the newest answer
	answered    bool               // the newest question was
	slots       []seen             // in their order
	problems    map[string]Problem // by kind; the text is the newest
	unanswered  int
	lags        map[uint64][]time.Duration // by chain
}

// seen is when a slot was first seen to be in all chains that are sequenced.
type seen struct {
	slot uint64
	at   time.Time
}

// Run does the exercise. With an error the report tells what was seen until then.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Said == nil {
		cfg.Said = func(string) {}
	}
	w := &observer{cfg: cfg, problems: map[string]Problem{}, lags: map[uint64][]time.Duration{}}
	r := &Report{Began: cfg.Now().UTC(), PollMs: ms(cfg.Poll)}
	err := w.run(ctx, r)
	w.fill(r)
	r.Ended = cfg.Now().UTC()
	if err != nil {
		r.Error = err.Error()
	}
	return r, err
}

func (w *observer) run(ctx context.Context, r *Report) error {
	o, err := w.cfg.Take(ctx)
	if err != nil {
		return err
	}
	w.first = o
	w.note(o)
	w.cfg.Said(fmt.Sprintf("watching %d slots", w.cfg.Slots))
	from := len(w.slots)
	err = w.until(ctx, func() (bool, error) {
		if n := len(w.slots); n > 0 && w.cfg.Now().Sub(w.slots[n-1].at) > patience {
			return false, fmt.Errorf("given up: no slot for %s", patience)
		}
		return len(w.slots)-from >= w.cfg.Slots, nil
	})
	if err != nil || w.cfg.Stop == nil {
		return err
	}
	r.Fault = new(Fault)
	return w.fault(ctx, r.Fault)
}

// fault stops a part of the set, starts it again, and waits until all is as it was.
func (w *observer) fault(ctx context.Context, f *Fault) error {
	before := map[string]bool{}
	for _, p := range w.last.Problems {
		before[p.Kind] = true
	}
	mark := len(w.slots)
	defer func() { f.seen(w.slots[max(0, mark-1):]) }()
	w.cfg.Said("stopping")
	stopped := w.cfg.Now()
	if err := w.cfg.Stop(ctx); err != nil {
		return fmt.Errorf("the command that stops failed, nothing was started: %w", err)
	}
	f.StopMs = ms(w.cfg.Now().Sub(stopped))
	down := w.cfg.Now().Add(w.cfg.Down)
	watched := w.until(ctx, func() (bool, error) { return !w.cfg.Now().Before(down), nil })
	// Also when the user has lost patience: what was stopped has to run.
	w.cfg.Said("starting")
	started := w.cfg.Now()
	f.DownMs = ms(started.Sub(stopped))
	if err := w.cfg.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("the command that starts failed, what was stopped may still be down: %w", err)
	}
	f.StartMs = ms(w.cfg.Now().Sub(started))
	if watched != nil {
		return watched
	}
	since := len(w.slots) // from here on nothing was wrong
	err := w.until(ctx, func() (bool, error) {
		if !w.well(before) {
			since = len(w.slots)
		}
		if len(w.slots)-since >= settled {
			return true, nil
		}
		if w.cfg.Now().Sub(started) > w.cfg.Recovery {
			return false, fmt.Errorf("given up: the set is not as well as before, %s after the start", w.cfg.Recovery)
		}
		return false, nil
	})
	if err == nil {
		f.Recovered, f.RecoveryMs = true, ms(max(0, w.slots[since].at.Sub(started)))
	}
	return err
}

// well says whether nothing is wrong that was not before, and the newest slot is on time.
func (w *observer) well(before map[string]bool) bool {
	if !w.answered || len(w.slots) == 0 {
		return false
	}
	for _, p := range w.last.Problems {
		if !before[p.Kind] {
			return false
		}
	}
	newest := time.Unix(int64(w.slots[len(w.slots)-1].slot), 0)
	return w.cfg.Now().Sub(newest) <= 2*w.period()
}

// period is the time between two slots: the shortest that was seen.
func (w *observer) period() time.Duration {
	var p uint64
	for i := 1; i < len(w.slots); i++ {
		if d := w.slots[i].slot - w.slots[i-1].slot; p == 0 || d < p {
			p = d
		}
	}
	return time.Duration(max(p, 1)) * time.Second
}

// until asks until the condition holds.
func (w *observer) until(ctx context.Context, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := w.cfg.Sleep(ctx, w.cfg.Poll); err != nil {
			return err
		}
		o, err := w.cfg.Take(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if w.answered = err == nil; !w.answered {
			w.unanswered++
			continue
		}
		w.note(o)
	}
}

// note takes an overview in.
func (w *observer) note(o *overview.Overview) {
	now := w.cfg.Now()
	w.last, w.answered = o, true
	for _, p := range o.Problems {
		w.problems[p.Kind] = Problem{p.Text, w.problems[p.Kind].Seen + 1}
	}
	newest := uint64(0) // that all have which are sequenced
	for _, c := range o.Chains {
		w.lags[c.ChainID] = append(w.lags[c.ChainID], max(0, now.Sub(time.Unix(int64(c.Unsafe.Timestamp), 0))))
		if c.Ready && (newest == 0 || c.LastSlot < newest) {
			newest = c.LastSlot
		}
	}
	n := len(w.slots)
	if newest == 0 || n > 0 && w.slots[n-1].slot >= newest {
		return // also after an L1 reorg, when slots go back
	}
	// Slots that came since the question before are all seen now.
	if n > 1 {
		for s := w.slots[n-1].slot + uint64(w.period().Seconds()); s < newest; s += uint64(w.period().Seconds()) {
			w.slots = append(w.slots, seen{s, now})
		}
	}
	w.slots = append(w.slots, seen{newest, now})
	w.cfg.Said(fmt.Sprintf("slot %d, %d seen", newest, len(w.slots)))
}
