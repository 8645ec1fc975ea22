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
