package conductor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/testlog"
)

// unitArg makes the test binary an operator.
const unitArg = "operator-process"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == unitArg {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		if err := RunUnit(ctx, os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// What geth, which is L1 here, leaves running when it is closed.
	const geth = "github.com/ethereum/go-ethereum/"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(geth+"eth/catalyst.(*ConsensusAPI).heartbeat"),
		goleak.IgnoreAnyFunction(geth+"core.(*txSenderCacher).cache"),
		goleak.IgnoreAnyFunction(geth+"miner.(*Miner).buildPayload.func1"),
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
	)
}

// Leaders die and others take over; the measurement ends by itself and leaves no process.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three operators")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	self, err := os.Executable()
	require.NoError(t, err)
	const kills = 2
	res, err := Measure(ctx, Config{
		Kills: kills, Seed: 1, Dir: t.TempDir(), Unit: []string{self, unitArg}, Log: testlog.Logger(t, log.LevelWarn),
	})
	require.NoError(t, err)
	require.Len(t, res.Gaps, kills)
	require.Len(t, res.Kills, kills)
	for i, k := range res.Kills {
		require.Equal(t, k.Gap, res.Gaps[i])
		require.NotEqual(t, k.Leader, k.Successor)
		require.Less(t, time.Duration(0), k.Elected)
		require.LessOrEqual(t, k.Elected, k.Outage)
		require.Less(t, k.Outage, k.Recovered)
		// The first block was due at most two block times after the kill.
		require.LessOrEqual(t, k.Outage-k.Gap, 2*blockTime)
	}
	require.Equal(t, res.P50, min(res.Gaps[0], res.Gaps[1]))
	require.Equal(t, res.P99, max(res.Gaps[0], res.Gaps[1]))
	require.Zero(t, res.Replaced)
}

func TestConfig(t *testing.T) {
	ctx := context.Background()
	good := Config{Kills: 1, Unit: []string{"/bin/true"}, Tuning: Upstream(), Log: testlog.Logger(t, log.LevelWarn)}
	require.NoError(t, good.check())
	fast := Fast()
	require.NoError(t, fast.check())
	for want, change := range map[string]func(*Config){
		"kills":      func(c *Config) { c.Kills = -1 },
		"no program": func(c *Config) { c.Unit = nil },
		"no log":     func(c *Config) { c.Log = nil },
		"heartbeat":  func(c *Config) { c.Tuning.Heartbeat = 2 * time.Second },
		"lease":      func(c *Config) { c.Tuning.Lease = c.Tuning.Heartbeat + 1 },
		"seconds":    func(c *Config) { c.Tuning.HealthInterval = 1500 * time.Millisecond },
		"peers":      func(c *Config) { c.Tuning.MinPeers = 0 },
	} {
		bad := good
		change(&bad)
		_, err := Measure(ctx, bad)
		require.ErrorContains(t, err, want)
	}
}

// An operator's process that cannot start says why.
func TestUnitFails(t *testing.T) {
	require.ErrorContains(t, RunUnit(context.Background(), "/does/not/exist", nil), "operator")
	file := t.TempDir() + "/config.json"
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	require.ErrorContains(t, RunUnit(context.Background(), file, nil), file)
	data, err := json.Marshal(unitConfig{ID: "operator-7", Dir: t.TempDir(), Genesis: "/does/not/exist"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, data, 0o600))
	require.ErrorContains(t, RunUnit(context.Background(), file, nil), "operator operator-7")
}

func TestCommitGap(t *testing.T) {
	start := time.Unix(1000, 0)
	// heads are at milliseconds after the start, the first of them block 10.
	heads := func(at ...int) []Head {
		var out []Head
		for i, ms := range at {
			out = append(out, Head{Number: 10 + uint64(i), At: start.Add(time.Duration(ms) * time.Millisecond)})
		}
		return out
	}
	for name, test := range map[string]struct {
		kill      int // milliseconds after the start
		first     uint64
		survivors [][]Head
		want      time.Duration
	}{
		"in time": {kill: 100, first: 11, survivors: [][]Head{heads(0, 990)}, want: 0},
		"late":    {kill: 100, first: 11, survivors: [][]Head{heads(0, 2300)}, want: 1300 * time.Millisecond},
		"the first operator to have a block counts": {
			kill: 100, first: 11, survivors: [][]Head{heads(30, 2300), heads(0, 2350)}, want: 1300 * time.Millisecond},
		"a block was under way and came in time": {
			kill: 999, first: 12, survivors: [][]Head{heads(0, 1001, 3500)}, want: 1500 * time.Millisecond},
		"a block was under way and came with the new leader": {
			kill: 990, first: 12, survivors: [][]Head{heads(0, 2400, 2420)}, want: 1400 * time.Millisecond},
		"a head that skips blocks announces them all": {
			kill: 100, first: 11, survivors: [][]Head{{heads(0)[0], {Number: 12, At: start.Add(2100 * time.Millisecond)}}}, want: 1100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := CommitGap(start.Add(time.Duration(test.kill)*time.Millisecond), test.first, test.survivors, time.Second)
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
	_, err := CommitGap(start, 11, [][]Head{nil, nil}, time.Second)
	require.ErrorContains(t, err, "before the kill")
	_, err = CommitGap(start, 10, [][]Head{heads(0)}, time.Second)
	require.ErrorContains(t, err, "before the kill")
	_, err = CommitGap(start, 11, [][]Head{heads(0)}, time.Second)
	require.ErrorContains(t, err, "block 11 was not announced")
}

func TestPercentile(t *testing.T) {
	require.Zero(t, Percentile(nil, 50))
	values := []time.Duration{30, 10, 20, 40}
	for p, want := range map[float64]time.Duration{1: 10, 25: 10, 26: 20, 50: 20, 75: 30, 99: 40, 100: 40} {
		require.Equal(t, want, Percentile(values, p), "p%v", p)
	}
	require.Equal(t, []time.Duration{30, 10, 20, 40}, values, "the values stay in their order")
}

// A block that is announced with another hash than before is counted once.
func TestReplaced(t *testing.T) {
	c := &cluster{
		log: testlog.Logger(t, log.LevelError), changed: make(chan struct{}),
		hashes: map[uint64]common.Hash{}, replaced: map[uint64]struct{}{},
	}
	a, b := &unit{}, &unit{}
	c.units = []*unit{a, b}
	say := func(u *unit, ev event) {
		line, err := json.Marshal(ev)
		require.NoError(t, err)
		changed := c.changed
		c.onLine(u, string(line))
		require.NotEqual(t, changed, c.changed)
	}
	say(a, event{Kind: eventHead, Number: 1, Hash: common.Hash{1}})
	say(b, event{Kind: eventHead, Number: 1, Hash: common.Hash{1}})
	require.Zero(t, c.result(Result{}).Replaced)
	say(b, event{Kind: eventHead, Number: 2, Hash: common.Hash{2}})
	say(a, event{Kind: eventHead, Number: 2, Hash: common.Hash{3}})
	say(a, event{Kind: eventHead, Number: 2, Hash: common.Hash{2}})
	require.Equal(t, 1, c.result(Result{}).Replaced)
	c.onLine(a, "not an event")
	say(a, event{Kind: eventSequencing, Number: 2})
	require.Equal(t, 1, c.result(Result{}).Unforced)
	require.Zero(t, c.result(Result{Kills: make([]Kill, 1)}).Unforced)
}
