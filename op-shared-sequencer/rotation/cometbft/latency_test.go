package cometbft

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"os"
	"slices"
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
	t.Run("one disk", func(t *testing.T) { r.OneDisk = measure(t, r.ThreeHops) })
	t.Run("memory", func(t *testing.T) {
		t.Setenv("TMPDIR", inMemory)
		r.latency = measure(t, r.ThreeHops)
	})
	data, err := json.MarshalIndent(r, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*reportPath, append(data, '\n'), 0o644))
	t.Logf("%s", data)
}

func measure(t *testing.T, threeHops float64) latency {
	_, proxied := through(t, *reportDelay)
	c := newCluster(t, 4, 4, proxied)
	c.pace.interval = 400 * time.Millisecond // so that heights do not wait for each other
	c.patient = patience + 4*time.Duration(*reportHeights)*c.pace.interval
	content := make([]byte, *reportSize)
	_, err := rand.Read(content)
	require.NoError(t, err)
	for _, o := range c.ops {
		o.prepare = func(m *fakeMachine, cfg *Config) {
			m.content, cfg.NoReadiness = content, !*reportReady
			// The leader of a round that was given up would be measured otherwise.
			cfg.Timeouts.Propose = time.Second
		}
	}
	c.start()
	from := c.advance(5)
	c.reach(from + *reportHeights)

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
	order, _ := c.ops[0].machine.history()
	var took []float64
	for _, s := range order[from : from+*reportHeights] {
		all := commits[s.Hash()]
		slices.SortFunc(all, time.Time.Compare)
		require.GreaterOrEqual(t, len(all), 3)
		took = append(took, ms(all[2].Sub(proposed[s.Hash()])))
	}
	slices.Sort(took)
	l := latency{P50: took[len(took)/2], P99: took[len(took)*99/100]}
	if threeHops > 0 {
		l.Ratio = l.P50 / threeHops
	}
	return l
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
