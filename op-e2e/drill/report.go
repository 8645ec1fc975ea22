package drill

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
)

// Report is what a drill found. All times are in milliseconds.
type Report struct {
	// CommitGap is that of the kills, see Run.
	CommitGap Distribution `json:"commitGapMs"`
	// OutageGap is by how much the latest block was late until the killed operator voted
	// again: its further turns are in it.
	OutageGap Distribution `json:"outageGapMs"`
	// VotesAgain is the time from the start of a killed operator's process to its first vote.
	VotesAgain Distribution `json:"votesAgainMs"`
	Counts
	// Calm is how it is when nothing is wrong.
	Calm        Calm   `json:"calm"`
	Stopped     *Fault `json:"stopped,omitempty"`
	Partitioned *Fault `json:"partitioned,omitempty"`
	Frozen      *Fault `json:"frozen,omitempty"`

	// Conductor is op-conductor with its own defaults, Tuned with the heartbeat that is as
	// short as it can be: then most takeovers fit between two blocks, and are not late at
	// all; on a machine that is busy they also happen without need (Unforced).
	Conductor *Conductor `json:"conductor,omitempty"`
	Tuned     *Conductor `json:"conductorTuned,omitempty"`
	// Ratio is that of Conductor.
	Ratio float64 `json:"ratio,omitempty"`

	Operators        int      `json:"operators"`
	Chains           []uint64 `json:"chains"`
	SlotMs           int64    `json:"slotMs"`
	SubblocksPerSlot int      `json:"subblocksPerSlot"`
	Kills            []Kill   `json:"kills"`
	Seed             uint64   `json:"seed"`
	Slots            int      `json:"slots"` // in the ledgers
	Transfers        uint64   `json:"transfers"`
	Transactions     int      `json:"transactions"` // in the chains, deposits among them
	Bundles          Bundles  `json:"bundles"`
	Machine          Machine  `json:"machine"`
	Errors           []string `json:"errors,omitempty"` // why the drill is not complete
}

// Machine is what it ran on.
type Machine struct {
	CPUs int    `json:"cpus"`
	Go   string `json:"go"`
}

// Bundles counts the bundles that operators took.
type Bundles struct {
	Executed int `json:"executed"`
	Failed   int `json:"failed"`
	// GoodFailed are those among them that were to be executed: the operator that was asked
	// for a nonce was behind, for instance.
	GoodFailed int `json:"goodFailed"`
	Expired    int `json:"expired"`
	// Forgotten were taken, and no operator knows them any more: they were never agreed on.
	Forgotten int `json:"forgotten"`
	Open      int `json:"open"` // had not ended
}

// Kill is one death of a leader.
type Kill struct {
	Operator int     `json:"operator"`
	Height   uint64  `json:"height"`  // that it led
	PhaseMs  int64   `json:"phaseMs"` // of the slot: the wall clock's milliseconds
	Block    uint64  `json:"block"`   // announced last before, of the first chain
	GapMs    float64 `json:"gapMs"`
	OutageMs float64 `json:"outageGapMs"`
	StartMs  float64 `json:"startMs"` // its process, until it answers
	VotesMs  float64 `json:"votesAgainMs"`
}

// Fault is another fault.
type Fault struct {
	Operator int     `json:"operator"`
	ForMs    int64   `json:"forMs"`
	FirstGap float64 `json:"firstGapMs"` // the commit gap, as of a kill
	Gap      float64 `json:"gapMs"`      // the worst one until the operator voted again
	Lateness Spread  `json:"latenessMs"` // of the blocks meanwhile
	// VotesAgain is the time from the end of the fault to the operator's first vote.
	VotesAgain float64 `json:"votesAgainMs"`
}

// Calm is the time before the first fault.
type Calm struct {
	Gap      Spread `json:"gapMs"`      // between each block and the next, beyond the slot
	Lateness Spread `json:"latenessMs"` // of announcements, after the slot's timestamp; negative: before
	Blocks   int    `json:"blocks"`
}

// Conductor is the measurement of op-conductor.
type Conductor struct {
	Distribution
	// Ratio is its median gap over ours, which is taken as 1 ms at least: a gap of nothing
	// would make it anything. RatioP99 is that of the 99th percentiles.
	Ratio    float64 `json:"ratio"`
	RatioP99 float64 `json:"ratioP99"`
	Tuning   string  `json:"tuning"`
	Kills    int     `json:"kills"`
	Replaced int     `json:"replaced"` // blocks announced with two hashes
	Unforced int     `json:"unforced"` // takeovers without a kill
}

// Spread of values by nearest rank.
type Spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Distribution is a Spread with all values, in the order they were measured.
type Distribution struct {
	Spread
	All []float64 `json:"all"`
}

// ms is a duration in milliseconds, to a tenth.
func ms(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }

func spread(values []time.Duration) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	return Spread{P50: ms(conductor.Percentile(values, 50)), P99: ms(conductor.Percentile(values, 99)), Max: ms(slices.MaxFunc(values, cmp.Compare[time.Duration]))}
}

func distribution(values []time.Duration) Distribution {
	d := Distribution{Spread: spread(values), All: []float64{}}
	for _, v := range values {
		d.All = append(d.All, ms(v))
	}
	return d
}

// against works out the ratios to our own gaps.
func (c *Conductor) against(ours Distribution) {
	c.Ratio = c.P50 / max(ours.P50, 1)
	c.RatioP99 = c.P99 / max(ours.P99, 1)
}

// Failed says why the drill is not passed, "" if it is.
func (r *Report) Failed() string {
	var why []string
	if r.any() {
		why = append(why, fmt.Sprintf("%d lost, %d changed, %d doubled", r.Lost, r.Changed, r.Doubled))
	}
	why = append(why, r.Errors...)
	return strings.Join(why, "; ")
}

// Print writes the report as a table.
func (r *Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(what string, s Spread, note string) {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%s\n", what, s.P50, s.P99, s.Max, note)
	}
	fmt.Fprintf(w, "%d operators, chains %v, slots of %d ms in %d subblocks\tp50 ms\tp99 ms\tmax ms\t\n", r.Operators, r.Chains, r.SlotMs, r.SubblocksPerSlot)
	row("calm: gap between blocks", r.Calm.Gap, fmt.Sprintf("%d blocks", r.Calm.Blocks))
	row("calm: announced after the slot's timestamp", r.Calm.Lateness, "")
	if len(r.Kills) > 0 {
		row("leader killed: commit gap", r.CommitGap.Spread, fmt.Sprintf("%d kills", len(r.Kills)))
		row("leader killed: worst gap until it votes again", r.OutageGap.Spread, "")
		row("leader killed: votes again after its start", r.VotesAgain.Spread, "")
	}
	for _, f := range []struct {
		what string
		*Fault
	}{{"stopped", r.Stopped}, {"cut off", r.Partitioned}, {"frozen", r.Frozen}} {
		if f.Fault != nil {
			row("operator "+f.what+": announced after the slot's timestamp", f.Lateness,
				fmt.Sprintf("for %d s; first gap %.0f ms, worst %.0f ms; votes again after %.0f ms", f.ForMs/1000, f.FirstGap, f.Gap, f.VotesAgain))
		}
	}
	for _, c := range []*Conductor{r.Conductor, r.Tuned} {
		if c != nil {
			row("op-conductor, leader killed: commit gap", c.Spread, fmt.Sprintf("%d kills; %s; %d takeovers without a kill", c.Kills, c.Tuning, c.Unforced))
			fmt.Fprintf(w, "  its gap over ours\t%.1f\t%.1f\t\t\n", c.Ratio, c.RatioP99)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	b := r.Bundles
	fmt.Fprintf(out, "%d slots, %d transactions; bundles: %d executed, %d failed (%d of them good ones), %d expired, %d forgotten, %d open\n",
		r.Slots, r.Transactions, b.Executed, b.Failed, b.GoodFailed, b.Expired, b.Forgotten, b.Open)
	_, err := fmt.Fprintf(out, "lost %d, changed %d, doubled %d\n", r.Lost, r.Changed, r.Doubled)
	for _, f := range r.Findings {
		fmt.Fprintln(out, "  "+f)
	}
	for _, f := range r.Errors {
		fmt.Fprintln(out, "  "+f)
	}
	return err
}
