package cometbft

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
)

var (
	reportPath    = flag.String("report", "", "file for TestLatencyReport to write to; without it the test is skipped")
	reportSize    = flag.Int("size", 200<<10, "bytes of a subblock")
	reportDelay   = flag.Duration("delay", 25*time.Millisecond, "one-way delay between any two operators")
	reportHeights = flag.Int("heights", 100, "heights to measure")
	reportMost    = flag.Int("most", 10, "operators of the largest set of TestOperatorsReport")
	reportReady   = flag.Bool("readiness", true, "votes carry the chains that operators are ready for")
)

// latencyReport is what TestLatencyReport writes. Times are in milliseconds.
type latencyReport struct {
	Operators   int     `json:"operators"`
	Bytes       int     `json:"bytes"`
	OneWayDelay float64 `json:"oneWayDelay"`
	Heights     int     `json:"heights"`
	Readiness   bool    `json:"readiness"`
	ThreeHops   float64 `json:"threeHops"`
	// Each operator has a disk of its own, which this machine has not: the files are in
	// memory, which leaves out some ten synced writes of each. OneDisk has all four
	// operators' on one disk.
	latency
	OneDisk latency `json:"oneDisk"`
}

type latency struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Ratio float64 `json:"ratio"` // of p50 to three hops
}

// inMemory is a directory whose files are.
const inMemory = "/dev/shm"

// TestLatencyReport measures the time from a leader's Propose to the third of four
// operators' Commit, over a network that delays:
//
//	go test -run TestLatencyReport ./op-shared-sequencer/rotation/cometbft -args -report latency.json
func TestLatencyReport(t *testing.T) {
	if *reportPath == "" {
		t.Skip("needs -args -report FILE")
	}
	if _, err := os.Stat(inMemory); err != nil {
		t.Fatalf("the report needs files in memory: %v", err)
	}
	r := latencyReport{
		Operators: 4, Bytes: *reportSize, OneWayDelay: ms(*reportDelay), Heights: *reportHeights, Readiness: *reportReady,
		ThreeHops: 3 * ms(*reportDelay),
	}
	t.Run("one disk", func(t *testing.T) { r.OneDisk = measure(t, r.Operators, r.Bytes, r.Heights).latency(r.ThreeHops) })
	t.Run("memory", func(t *testing.T) {
		t.Setenv("TMPDIR", inMemory)
		r.latency = measure(t, r.Operators, r.Bytes, r.Heights).latency(r.ThreeHops)
	})
	data, err := json.MarshalIndent(r, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*reportPath, append(data, '\n'), 0o644))
	t.Logf("%s", data)
}

// measurement is what a run of a cluster comes to.
type measurement struct {
	took []float64 // ms from Propose to the commit of more than two thirds, ascending
	sent []float64 // bytes that each operator sent for a subblock
	cpu  float64   // ms of processor time for a subblock, of an operator
}

func (m *measurement) latency(threeHops float64) latency {
	l := latency{P50: m.took[len(m.took)/2], P99: m.took[len(m.took)*99/100]}
	if threeHops > 0 {
		l.Ratio = l.P50 / threeHops
	}
	return l
}

// measure has n operators agree on subblocks of a size.
func measure(t *testing.T, n, size, heights int) *measurement {
	w, proxied := through(t, *reportDelay)
	c := newCluster(t, n, n, proxied)
	c.pace.interval = 400 * time.Millisecond // so that heights do not wait for each other
	c.patient = patience + 4*time.Duration(heights)*c.pace.interval
	content := make([]byte, size)
	_, err := rand.Read(content)
	require.NoError(t, err)
	for _, o := range c.ops {
		o.prepare = func(m *fakeMachine, cfg *Config) {
			m.content, cfg.NoReadiness = content, !*reportReady
			// The leader of a round that was given up would be measured otherwise.
			cfg.Timeouts.Propose = time.Second + time.Duration(size)*time.Second/(4<<20)
		}
	}
	c.start()
	from := c.advance(5)
	sent, cpu := w.sent(), cpuTime(t)
	c.reach(from + heights)
	out := &measurement{cpu: ms(cpuTime(t)-cpu) / float64(heights*n)}
	for o, n := range w.sent() {
		out.sent = append(out.sent, float64(n-sent[o])/float64(heights))
	}

	proposed := map[common.Hash]time.Time{}
	commits := map[common.Hash][]time.Time{}
	for _, o := range c.ops {
		o.stop()
		order, at := o.machine.history()
		for i, s := range order {
			commits[s.Hash()] = append(commits[s.Hash()], at[i])
		}
		for h, when := range o.machine.proposd {
			proposed[h] = when
		}
	}
	quorum := 2*n/3 + 1
	order, _ := c.ops[0].machine.history()
	for _, s := range order[from : from+heights] {
		all := commits[s.Hash()]
		slices.SortFunc(all, time.Time.Compare)
		require.GreaterOrEqual(t, len(all), quorum)
		out.took = append(out.took, ms(all[quorum-1].Sub(proposed[s.Hash()])))
	}
	slices.Sort(out.took)
	return out
}

// cpuTime is this process's so far.
func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// operatorsReport is a row of TestOperatorsReport, as op-e2e/bench reads it.
type operatorsReport struct {
	Operators   int     `json:"operators"`
	Bytes       int     `json:"bytes"`
	OneWayDelay float64 `json:"oneWayDelay"` // ms
	Heights     int     `json:"heights"`
	P50         float64 `json:"commitP50"` // ms
	P99         float64 `json:"commitP99"`
	Sent        float64 `json:"sentBytes"` // by an operator for a subblock: the mean over all, and the most
	SentMax     float64 `json:"sentBytesMax"`
	CPU         float64 `json:"cpuMsPerOperator"` // for a subblock
}

// TestOperatorsReport measures sets of several sizes, and four operators with subblocks of 10 MB:
//
//	go test -run TestOperatorsReport ./op-shared-sequencer/rotation/cometbft -args -report operators.json -heights 40
func TestOperatorsReport(t *testing.T) {
	if *reportPath == "" {
		t.Skip("needs -args -report FILE")
	}
	var rows []operatorsReport
	row := func(n, size, heights int) (r operatorsReport) {
		t.Run(fmt.Sprintf("%d operators, %d bytes", n, size), func(t *testing.T) {
			t.Setenv("TMPDIR", inMemory)
			m := measure(t, n, size, heights)
			l := m.latency(0)
			r = operatorsReport{
				Operators: n, Bytes: size, OneWayDelay: ms(*reportDelay), Heights: heights, P50: l.P50, P99: l.P99, CPU: m.cpu,
			}
			for _, b := range m.sent {
				r.Sent += b / float64(len(m.sent))
				r.SentMax = max(r.SentMax, b)
			}
		})
		return r
	}
	for n := 1; n <= *reportMost; n += 3 {
		rows = append(rows, row(n, *reportSize, *reportHeights))
	}
	big := row(4, 10<<20, max(5, *reportHeights/4))
	data, err := json.MarshalIndent(map[string]any{
		"operators": rows,
		"bigSlot":   map[string]any{"operators": big.Operators, "oneWayDelay": big.OneWayDelay, "commitP50": big.P50, "commitP99": big.P99},
	}, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*reportPath, append(data, '\n'), 0o644))
	t.Logf("%s", data)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
