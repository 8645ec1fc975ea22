package exercise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/overview"
)

// world is a set with a clock of its own, whose slots come 40 ms early.
type world struct {
	now  time.Time
	slot uint64
	// halt is until when no slots come; those missed come together afterwards.
	halt time.Time
	// wrong is until when an operator does not vote.
	wrong  time.Time
	silent bool
	ends   context.CancelFunc // at the next question, if set
}

var begin = time.Unix(1_700_000_000, 0)

func (w *world) take(context.Context) (*overview.Overview, error) {
	if w.ends != nil {
		w.ends()
	}
	if w.silent {
		return nil, errors.New("no answer")
	}
	if !w.now.Before(w.halt) {
		w.slot = uint64(w.now.Add(40 * time.Millisecond).Unix())
	}
	o := &overview.Overview{Problems: []overview.Problem{}, Chains: []overview.Chain{
		{ChainID: 901, Ready: true, LastSlot: w.slot, Unsafe: overview.Block{Timestamp: w.slot}},
		{ChainID: 902, LastSlot: 5, Unsafe: overview.Block{Timestamp: 5}}, // not sequenced
	}}
	o.Problems = append(o.Problems, overview.Problem{Kind: "902", Text: "chain 902 is not sequenced"})
	if w.now.Before(w.wrong) {
		o.Problems = append(o.Problems, overview.Problem{Kind: "bob", Text: fmt.Sprintf("bob does not vote: %s", w.wrong.Sub(w.now))})
	}
	n := w.slot - uint64(begin.Unix())
	o.Agreement = &overview.Agreement{Counted: n, Operators: []overview.Operator{
		{Name: "alice", Address: common.Address{1}, Led: n / 2, Voted: n}, {Name: "bob", Address: common.Address{2}, Led: n - n/2, Voted: n / 2, Passed: 1},
	}}
	return o, nil
}

func (w *world) config() Config {
	return Config{
		Slots: 10, Poll: 20 * time.Millisecond, Recovery: 30 * time.Second, Down: 5 * time.Second,
		Take: w.take, Now: func() time.Time { return w.now },
		Sleep: func(ctx context.Context, d time.Duration) error { w.now = w.now.Add(d); return ctx.Err() },
	}
}

func TestWatch(t *testing.T) {
	w := &world{now: begin}
	var said []string
	cfg := w.config()
	cfg.Said = func(s string) { said = append(said, s) }
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, 10, r.Slots)
	require.Equal(t, Spread{-40, -40, -40}, r.Lateness)
	require.Zero(t, r.Gap.P50)
	require.EqualValues(t, 10, r.Heights)
	require.Equal(t, "alice", r.Operators[0].Name)
	require.EqualValues(t, 5, r.Operators[0].Led)
	require.Equal(t, 1.0, r.Operators[0].Participation)
	require.Equal(t, 0.5, r.Operators[1].Participation)
	require.Zero(t, r.Operators[1].Passed, "not in this time")
	require.Equal(t, "chain 902 is not sequenced", r.Problems[0].Problem)
	require.False(t, r.Healthy)
	require.Nil(t, r.Fault)
	require.Contains(t, said, "watching 10 slots")
	var out strings.Builder
	require.NoError(t, r.Write(&out))
	require.Contains(t, out.String(), "10 slots, times to 20 ms")
}

// A stop of 5 s, in the first 3 of which no slot comes; an operator votes again 4 s after
// the start.
func TestFault(t *testing.T) {
	w := &world{now: begin}
	cfg := w.config()
	cfg.Stop = func(context.Context) error {
		w.halt, w.wrong = w.now.Add(3*time.Second), w.now.Add(9*time.Second)
		return nil
	}
	var started time.Time
	cfg.Start = func(context.Context) error { started = w.now; return nil }
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	f := r.Fault
	require.True(t, f.Recovered)
	require.EqualValues(t, 5000, f.DownMs)
	require.InDelta(t, 2000, f.WorstGap, 50, "the slot that was due a second after the stop came after 3 s")
	require.Equal(t, f.WorstGap, f.FirstGap)
	require.InDelta(t, 4000, f.RecoveryMs, 1050)
	require.True(t, w.now.After(started.Add(4*time.Second)))
	require.InDelta(t, 2000, f.Lateness.Max, 50)
	require.Zero(t, f.Lateness.P50+40)
	require.Len(t, r.Problems, 2, "the same as long as the same is wrong, whatever the numbers say")
	require.Equal(t, "bob does not vote: 20ms", r.Problems[1].Problem, "as it was last said")
}

func TestNoRecovery(t *testing.T) {
	w := &world{now: begin}
	cfg := w.config()
	cfg.Stop = func(context.Context) error { w.wrong = w.now.Add(time.Hour); return nil }
	started := false
	cfg.Start = func(context.Context) error { started = true; return nil }
	r, err := Run(t.Context(), cfg)
	require.ErrorContains(t, err, "not as well as before, 30s after the start")
	require.True(t, started)
	require.False(t, r.Fault.Recovered)
	require.NotEmpty(t, r.Error)
}

// Whatever happens, what was stopped is started.
func TestInterrupted(t *testing.T) {
	w := &world{now: begin}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := w.config()
	cfg.Stop = func(context.Context) error { w.ends = cancel; return nil }
	started := false
	cfg.Start = func(ctx context.Context) error { started = true; return ctx.Err() }
	_, err := Run(ctx, cfg)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, started)
}

func TestFailures(t *testing.T) {
	w := &world{now: begin, silent: true}
	_, err := Run(t.Context(), w.config())
	require.ErrorContains(t, err, "no answer")

	w = &world{now: begin, halt: begin.Add(time.Hour), slot: uint64(begin.Unix())}
	_, err = Run(t.Context(), w.config())
	require.ErrorContains(t, err, "no slot for 1m0s")

	for _, which := range []string{"stops", "starts"} {
		w = &world{now: begin}
		cfg := w.config()
		cfg.Stop = func(context.Context) error { return nil }
		cfg.Start = func(context.Context) error { return errors.New("boom") }
		if which == "stops" {
			cfg.Stop, cfg.Start = cfg.Start, func(context.Context) error { t.Error("nothing was stopped"); return nil }
		}
		_, err = Run(t.Context(), cfg)
		require.ErrorContains(t, err, "the command that "+which+" failed")
	}
}

func TestSpread(t *testing.T) {
	require.Zero(t, spread(nil))
	var values []time.Duration
	for i := range 200 {
		values = append(values, time.Duration(200-i)*time.Millisecond)
	}
	require.Equal(t, Spread{100, 198, 200}, spread(values))
}
