package sim

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	seeds = flag.Int("seeds", enough, "how many seeds TestSim runs")
	seed  = flag.Int64("seed", -1, "the seed that TestSim runs instead, with an account of it")
)

// TestSim runs seeds: go test -run TestSim ./op-shared-sequencer/sim -args -seeds 2000.
// make sim runs more.
func TestSim(t *testing.T) {
	if *seed >= 0 {
		r, err := Run(*seed, os.Stdout)
		t.Logf("hash %016x\n%s", r.Hash, r.Counts)
		require.NoError(t, err)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // runs are short and leave much behind
	total, err := RunAll(context.Background(), Batch{Seeds: *seeds, Workers: runtime.GOMAXPROCS(0), Out: testWriter{t}})
	require.NoError(t, err)
	if *seeds < enough {
		return
	}
	// What is to go wrong goes wrong: a simulation in which nothing does proves nothing.
	for _, what := range []string{
		"crashes", "crash at point 1", "crash at point 2", "crash at point 3", "crash at point 4", "crash at point 5", "crash at point 6",
		"messages lost", "messages delayed", "messages doubled", "messages cut off", "network splits", "eclipses",
		"engines down", "engines that failed a call", "engines that lost blocks", "chains down everywhere",
		"L1 reorgs", "slots abandoned", "driver resets", "driver resets within a call", "chains switched off", "changes of the chains",
		"heights replayed", "heights caught up", "later rounds", "taken for its polka", "double votes seen",
		"lie: silence", "lie: garbage", "lie: two proposals", "lie: wrong result", "lie: wrong seal", "lie: wrong attributes", "lie: other parent",
		"lie: invalid message", "lie: half bundle", "lie: omission", "lie: missing steps", "lie: other slot", "lie: out of place", "lie: prevote", "lie: precommit",
		"refused: attributes", "refused: bundle", "refused: garbage", "refused: message", "refused: not ready", "refused: omission",
		"refused: out of place", "refused: result", "refused: too early",
		"bundles executed", "messages executed", "slots", "blocks handed over",
	} {
		require.NotZero(t, total[what], "%s: not once", what)
	}
}

// enough seeds are so many that everything happens in them.
const enough = 100

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// The same seed gives the same run, event by event, also when it is traced.
func TestSameSeedSameRun(t *testing.T) {
	for _, seed := range []int64{1, 7, 19, 22, 50, 57} {
		a, errA := Run(seed, nil)
		b, errB := Run(seed, io.Discard)
		require.Equal(t, a, b, "seed %d", seed)
		require.Equal(t, errA, errB, "seed %d", seed)
	}
	a, _ := Run(1, nil)
	b, _ := Run(2, nil)
	require.NotEqual(t, a.Hash, b.Hash)
}

// A violation names the seed and what was violated, and ends the batch with an error.
func TestViolationIsReported(t *testing.T) {
	s := newSim(3, nil)
	s.schedule(5*time.Second, nil, func() { s.fail("operator %d is not to be trusted", 2) })
	var v *Violation
	require.True(t, errors.As(s.run(), &v))
	require.Equal(t, &Violation{Seed: 3, At: 5 * time.Second, Reason: "operator 2 is not to be trusted"}, v)
}

// The checks find what they are for.
func TestChecks(t *testing.T) {
	violated := func(f func(s *sim)) (reason string) {
		s := newSim(0, nil)
		defer func() {
			if v, ok := recover().(*Violation); ok {
				reason = v.Reason
			}
		}()
		f(s)
		return ""
	}
	one, other := newValue(0, 1, []byte{1}), newValue(0, 1, []byte{2})
	require.Contains(t, violated(func(s *sim) {
		s.checkVote(s.ops[0], &vote{from: 0, height: 1, id: one.id})
		s.checkVote(s.ops[0], &vote{from: 0, height: 1, id: other.id})
	}), "two prevotes")
	require.Contains(t, violated(func(s *sim) {
		s.checkSigned(s.ops[0], one, [32]byte{})
		s.checkSigned(s.ops[0], other, [32]byte{})
	}), "signed two subblocks")
	require.Contains(t, violated(func(s *sim) {
		s.check.decided = []*decision{{height: 1, value: one}}
		s.checkDecision(s.ops[1], &decision{height: 1, value: other})
	}), "decides")
	require.Contains(t, violated(func(s *sim) { s.checkDecision(s.ops[1], &decision{height: 1, value: one}) }), "garbage")
}

// A batch reports what failed and how to see it.
func TestBatch(t *testing.T) {
	var out bytes.Buffer
	_, err := RunAll(context.Background(), Batch{From: 5, Seeds: 2, Workers: 2, Out: &out})
	require.NoError(t, err)
	require.Contains(t, out.String(), "2 seeds in")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = RunAll(ctx, Batch{Seeds: 2, Workers: 1, Out: &out})
	require.ErrorIs(t, err, context.Canceled)
}
