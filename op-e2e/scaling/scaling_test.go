package scaling

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Without a limit of the links there is nothing random: formula and simulation are the same.
func TestEstimateIsExactWithoutBandwidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "operators")
		s := &Setup{
			Delay: make([][]time.Duration, n), Bytes: rapid.IntRange(1, 1<<21).Draw(t, "bytes"), Leader: rapid.IntRange(0, n-1).Draw(t, "leader"),
			Check: time.Duration(rapid.IntRange(0, 200).Draw(t, "check")) * time.Millisecond,
			Vote:  time.Duration(rapid.IntRange(0, 20).Draw(t, "vote")) * time.Millisecond,
		}
		// Distances of points on a line: nothing is faster over a third.
		at := rapid.SliceOfN(rapid.IntRange(0, 150), n, n).Draw(t, "places")
		for i := range n {
			s.Delay[i] = make([]time.Duration, n)
			for j := range n {
				s.Delay[i][j] = time.Duration(max(at[i]-at[j], at[j]-at[i])) * time.Millisecond
			}
		}
		require.Equal(t, Estimate(s), Simulate(s, 1).Commit)
	})
}

// With links that have a limit the formula is near what the gossip of parts comes to.
func TestEstimateIsNearWithBandwidth(t *testing.T) {
	for _, c := range cases() {
		e := Estimate(c.setup).Seconds()
		var got []float64
		for seed := range uint64(20) {
			got = append(got, Simulate(c.setup, seed).Commit.Seconds())
		}
		slices.Sort(got)
		median := got[len(got)/2]
		t.Logf("%-44s estimated %4.0f ms, simulated %4.0f ms (%4.0f to %4.0f)", c.name, 1000*e, 1000*median, 1000*got[0], 1000*got[len(got)-1])
		require.InEpsilon(t, median, e, 0.15, c.name)
	}
}

// What operators send each other in the simulation is what they were measured to (docs/benchmarks.md, "Operators": 200 KB,
// 25 ms, mean over all), but for votes, the proposal and the encryption of the links, which are not simulated.
func TestSentIsWhatWasMeasured(t *testing.T) {
	for n, measured := range map[int]float64{4: 500e3, 7: 1165e3, 10: 1874e3} {
		s := &Setup{Delay: Uniform(n, 25*time.Millisecond), Bytes: 200 << 10, Check: 15 * time.Millisecond, Vote: 5 * time.Millisecond}
		sum := 0.0
		for _, b := range Simulate(s, 1).Sent {
			sum += b / float64(n)
		}
		t.Logf("%2d operators: simulated %4.0f KB, measured %4.0f KB", n, sum/1e3, measured/1e3)
		require.Less(t, sum, measured)
		require.InEpsilon(t, measured, sum, 0.15)
	}
}

// The commit of four operators that are 25 ms apart, which this machine has the processors for.
func TestCommitIsWhatWasMeasured(t *testing.T) {
	const measured = 107.5 // ms, op-node/README.md
	s := &Setup{Delay: Uniform(4, 25*time.Millisecond), Bytes: 200 << 10, Check: check(200 << 10), Vote: vote}
	require.InEpsilon(t, measured, float64(Simulate(s, 1).Commit.Microseconds())/1000, 0.1)
}

// What steps cost, from the measurements that docs/scaling.md names.
const vote = 7 * time.Millisecond

// check is what a follower needs for a subblock beside executing it: to take it from the network, decode and hash it.
func check(bytes int) time.Duration {
	return 5*time.Millisecond + time.Duration(bytes)*38*time.Nanosecond
}

type setupCase struct {
	name  string
	setup *Setup
}

// Continents are North America, Europe and Asia: one-way delays between data centres, of half the
// round trips that cloud providers publish.
var continents = [][]time.Duration{
	{5 * time.Millisecond, 45 * time.Millisecond, 80 * time.Millisecond},
	{45 * time.Millisecond, 5 * time.Millisecond, 110 * time.Millisecond},
	{80 * time.Millisecond, 110 * time.Millisecond, 5 * time.Millisecond},
}

// The set that docs/scaling.md is about: 29 chains with 60 Mgas/s of transfers each, 10 operators on three continents.
const (
	chains       = 29
	gasPerSecond = 60e6
	transferGas  = 21_000
	transferSize = 109 // bytes in a subblock (TestBytesPerSubblock)
	// executed is what a follower needs for a transfer that its pool has: open, execute, seal and insert.
	executed   = 47 * time.Microsecond
	processors = 16
)

// What docs/scaling.md says about that set. Its tables are printed with -v: go test -v -run TestLargeSet ./op-e2e/scaling
func TestLargeSet(t *testing.T) {
	perSecond := chains * gasPerSecond / transferGas
	t.Logf("%.0f transfers, %.2f MB a second", perSecond, perSecond*transferSize/1e6)
	for _, gigabits := range []float64{1, 10} {
		for n := 1; n <= 5; n++ {
			l := largeSet{share: 1, subblocks: n, gigabits: gigabits}
			worst, sent := l.run()
			keepsUp := worst <= l.apart()
			require.Equal(t, gigabits == 10 && n == 1, keepsUp, "the only way that keeps up")
			verdict := map[bool]string{true: "keeps up", false: "does not"}[keepsUp]
			t.Logf("%2.0f Gbit/s, %d subblocks of %4.2f MB: check %3d ms, commit at most %4d ms, every %4d ms: %s; an operator sends %5.1f MB a second",
				gigabits, n, float64(l.bytes())/1e6, l.check().Milliseconds(), worst.Milliseconds(), l.apart().Milliseconds(), verdict, sent/1e6)
		}
	}
	if !testing.Verbose() { // half a minute
		return
	}
	for _, l := range []largeSet{
		{subblocks: 1, gigabits: 1}, {subblocks: 2, gigabits: 1}, {subblocks: 5, gigabits: 1},
		{subblocks: 1, gigabits: 10}, {subblocks: 2, gigabits: 10}, {subblocks: 5, gigabits: 10},
		{subblocks: 1, gigabits: 1, announce: true}, {subblocks: 5, gigabits: 1, announce: true},
		{subblocks: 1, gigabits: 10, announce: true}, {subblocks: 5, gigabits: 10, announce: true},
	} {
		most, sent := 0.0, 0.0
		for share := 0.05; share < 3; share += 0.05 {
			l.share = share
			if worst, s := l.run(); worst <= l.apart() {
				most, sent = share, s
			}
		}
		t.Logf("%2.0f Gbit/s, %d subblocks, parts announced %5v: keeps up to %3.0f Mgas/s of transfers on each chain; an operator sends %5.1f MB a second",
			l.gigabits, l.subblocks, l.announce, most*gasPerSecond/1e6, sent/1e6)
	}
}

// largeSet is the set with a share of the load, in so many subblocks a second.
type largeSet struct {
	share     float64
	subblocks int
	gigabits  float64
	announce  bool
}

func (l largeSet) txs() float64 {
	return l.share * chains * gasPerSecond / transferGas / float64(l.subblocks)
}
func (l largeSet) bytes() int           { return int(l.txs() * transferSize) }
func (l largeSet) apart() time.Duration { return time.Second / time.Duration(l.subblocks) }
func (l largeSet) check() time.Duration {
	return check(l.bytes()) + time.Duration(l.txs()*float64(executed)/processors)
}

// run gives the slowest commit, over leaders of all continents, and what an operator sends in a second, by mean.
func (l largeSet) run() (worst time.Duration, sent float64) {
	leaders := []int{0, 4, 7}
	for _, leader := range leaders {
		r := Simulate(&Setup{
			Delay: Regions([]int{4, 3, 3}, continents), Bandwidth: l.gigabits * 125e6, Bytes: l.bytes(), Leader: leader, Check: l.check(), Vote: vote, Announce: l.announce,
		}, 1)
		worst = max(worst, r.Commit)
		for _, b := range r.Sent {
			sent += b / float64(len(r.Sent)*len(leaders)) * float64(l.subblocks)
		}
	}
	return worst, sent
}

func cases() (out []setupCase) {
	const gigabit = 125e6
	for _, c := range []struct {
		name      string
		bytes     int
		bandwidth float64
	}{
		{"10 operators, 3 continents, 2 MB, 1 Gbit/s", 2 << 20, gigabit},
		{"10 operators, 3 continents, 10 MB, 1 Gbit/s", 10 << 20, gigabit},
		{"10 operators, 3 continents, 2 MB, 10 Gbit/s", 2 << 20, 10 * gigabit},
		{"10 operators, 3 continents, 10 MB, 10 Gbit/s", 10 << 20, 10 * gigabit},
	} {
		for leader, region := range map[int]string{0: "NA", 4: "EU", 7: "Asia"} {
			out = append(out, setupCase{c.name + ", leader " + region, &Setup{
				Delay: Regions([]int{4, 3, 3}, continents), Bandwidth: c.bandwidth, Bytes: c.bytes, Leader: leader,
				Check: check(c.bytes), Vote: vote,
			}})
		}
	}
	slices.SortFunc(out, func(a, b setupCase) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return out
}
