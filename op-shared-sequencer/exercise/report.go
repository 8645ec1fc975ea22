package exercise

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Report is what an exercise found. Times are in milliseconds and as exact as PollMs. Its
// JSON is documented in docs/cli.md.
type Report struct {
	Began  time.Time `json:"began"`
	Ended  time.Time `json:"ended"`
	PollMs float64   `json:"pollMs"`
	Slots  int       `json:"slots"` // seen
	// Lateness is when slots were seen in all chains, after their timestamp; negative:
	// before. Gap is by how much longer than a slot the next one took.
	Lateness Spread  `json:"latenessMs"`
	Gap      Spread  `json:"gapMs"`
	Chains   []Chain `json:"chains"`
	// Heights are those that the operators' counters are of. Restarted: the operator that was
	// asked was, and its counters are since then.
	Heights   uint64     `json:"heights"`
	Restarted bool       `json:"restarted"`
	Operators []Operator `json:"operators"`
	Problems  []Problem  `json:"problems"`
	// Healthy: nothing was wrong in the end.
	Healthy    bool   `json:"healthy"`
	Unanswered int    `json:"unanswered"` // questions that the operator did not answer
	Fault      *Fault `json:"fault,omitempty"`
	Error      string `json:"error,omitempty"` // why the exercise is not complete
}

// Chain is how far a chain's unsafe head was behind the clock.
type Chain struct {
	ChainID uint64 `json:"chainId"`
	Lag     Spread `json:"lagMs"`
}

// Operator is what an operator did.
type Operator struct {
	Name    string         `json:"name"`
	Address common.Address `json:"address"`
	Led     uint64         `json:"led"`
	Passed  uint64         `json:"passed"` // turns in which it did not deliver
	Voted   uint64         `json:"voted"`
	// Participation is Voted over Heights.
	Participation float64 `json:"participation"`
}

// Problem is what was wrong, as it was last said, and in how many answers.
type Problem struct {
	Problem string `json:"problem"`
	Seen    int    `json:"seen"`
}

// Fault is what a stop and a start of a part of the set came to.
type Fault struct {
	StopMs  float64 `json:"stopMs"`  // what the command took
	DownMs  float64 `json:"downMs"`  // from the stop to the start
	StartMs float64 `json:"startMs"` // what the command took
	Slots   int     `json:"slots"`   // from the stop on
	// FirstGap is that to the first slot after the stop; WorstGap the worst until recovery.
	FirstGap float64 `json:"firstGapMs"`
	WorstGap float64 `json:"worstGapMs"`
	// Lateness of the slots from the stop on.
	Lateness  Spread `json:"latenessMs"`
	Recovered bool   `json:"recovered"`
	// Recovery is from the start to the first of three slots in a row at which nothing was
	// wrong that was not before.
	RecoveryMs float64 `json:"recoveryMs"`
}

// Spread of values by nearest rank.
type Spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func spread(values []time.Duration) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.SortedFunc(slices.Values(values), cmp.Compare[time.Duration])
	rank := func(p float64) float64 { return ms(sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]) }
	return Spread{rank(50), rank(99), rank(100)}
}

// ms is a duration in milliseconds, to a tenth.
func ms(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }

// lateness and gaps of slots; the first slot is when the watch began, and has none.
func measure(slots []seen) (lateness, gaps []time.Duration) {
	for i := 1; i < len(slots); i++ {
		a, b := slots[i-1], slots[i]
		lateness = append(lateness, b.at.Sub(time.Unix(int64(b.slot), 0)))
		gaps = append(gaps, max(0, b.at.Sub(a.at)-time.Duration(b.slot-a.slot)*time.Second))
	}
	return lateness, gaps
}

// seen takes the slots from the one before the stop on.
func (f *Fault) seen(slots []seen) {
	lateness, gaps := measure(slots)
	f.Slots, f.Lateness = len(gaps), spread(lateness)
	if len(gaps) > 0 {
		f.FirstGap, f.WorstGap = ms(gaps[0]), ms(slices.Max(gaps))
	}
}

func (w *observer) fill(r *Report) {
	lateness, gaps := measure(w.slots)
	r.Slots, r.Lateness, r.Gap, r.Unanswered = len(gaps), spread(lateness), spread(gaps), w.unanswered
	r.Chains, r.Operators, r.Problems = []Chain{}, []Operator{}, []Problem{}
	for _, id := range slices.Sorted(maps.Keys(w.lags)) {
		r.Chains = append(r.Chains, Chain{id, spread(w.lags[id])})
	}
	for _, p := range slices.Sorted(maps.Keys(w.problems)) {
		r.Problems = append(r.Problems, w.problems[p])
	}
	if w.last == nil {
		return
	}
	r.Healthy = w.answered && w.last.Healthy
	if w.last.Agreement == nil || w.first.Agreement == nil {
		return
	}
	end := w.last.Agreement
	base := map[common.Address][3]uint64{}
	if r.Restarted = end.Counted < w.first.Agreement.Counted; !r.Restarted {
		r.Heights = end.Counted - w.first.Agreement.Counted
		for _, op := range w.first.Agreement.Operators {
			base[op.Address] = [3]uint64{op.Led, op.Passed, op.Voted}
		}
	} else {
		r.Heights = end.Counted
	}
	for _, op := range end.Operators {
		b := base[op.Address]
		out := Operator{Name: op.Name, Address: op.Address, Led: op.Led - b[0], Passed: op.Passed - b[1], Voted: op.Voted - b[2]}
		if r.Heights > 0 {
			out.Participation = float64(out.Voted) / float64(r.Heights)
		}
		r.Operators = append(r.Operators, out)
	}
}

// Write writes the report for people.
func (r *Report) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(what string, s Spread) { fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\n", what, s.P50, s.P99, s.Max) }
	fmt.Fprintf(w, "%d slots, times to %.0f ms\tp50 ms\tp99 ms\tmax ms\n", r.Slots, r.PollMs)
	row("slot in all chains, after its timestamp", r.Lateness)
	row("gap between slots, beyond a slot", r.Gap)
	for _, c := range r.Chains {
		row(fmt.Sprintf("chain %d: head behind the clock", c.ChainID), c.Lag)
	}
	if f := r.Fault; f != nil {
		row("from the stop on: after its timestamp", f.Lateness)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if f := r.Fault; f != nil {
		recovered := fmt.Sprintf("well again %.0f ms after the start", f.RecoveryMs)
		if !f.Recovered {
			recovered = "not well again"
		}
		fmt.Fprintf(out, "stopped for %.0f ms: first gap %.0f ms, worst gap %.0f ms, %s\n", f.DownMs, f.FirstGap, f.WorstGap, recovered)
	}
	if len(r.Operators) > 0 {
		fmt.Fprintf(w, "\nOPERATOR, of %d heights\tLED\tPASSED\tVOTED\t\n", r.Heights)
		for _, op := range r.Operators {
			fmt.Fprintf(w, "%s\t%d\t%d\t%.0f %%\t\n", op.Name, op.Led, op.Passed, 100*op.Participation)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(out, "seen %d times: %s\n", p.Seen, p.Problem)
	}
	if r.Unanswered > 0 {
		fmt.Fprintf(out, "%d questions were not answered\n", r.Unanswered)
	}
	return nil
}
