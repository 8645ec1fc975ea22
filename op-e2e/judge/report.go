package judge

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is what the judge found.
type Report struct {
	Counts
	// Ways says how the messages were sent, Forgeries how the invalid ones were.
	Ways      map[string]int `json:"ways"`
	Forgeries map[string]int `json:"forgeries"`
	// Blocks are those whose hashes were compared, of all chains.
	Blocks    int     `json:"blocks"`
	Transfers uint64  `json:"transfers"` // plain ones that pools took meanwhile
	Rounds    []Round `json:"rounds"`

	Seed          uint64   `json:"seed"`
	Minutes       float64  `json:"minutes"`
	Chains        []uint64 `json:"chains"`
	Powers        []uint64 `json:"powers"` // of the operators
	MessageExpiry uint64   `json:"messageExpiry"`
	Errors        []string `json:"errors,omitempty"` // why it is not complete
}

// Round is one forced block.
type Round struct {
	Forgery           string `json:"forgery"`
	Rule              string `json:"rule"` // that refuses it
	Chain             uint64 `json:"chain"`
	Slot              uint64 `json:"slot"`
	Block             uint64 `json:"block"`
	CaughtByUs        bool   `json:"caughtByUs"`
	CaughtBySupernode bool   `json:"caughtBySupernode"`
	ReplacedMs        int64  `json:"replacedMs"` // until another block was in its place, everywhere
	LockstepMs        int64  `json:"lockstepMs"` // until all chains were on time again, everywhere
}

func (r *Report) round(f *forced) {
	r.Rounds = append(r.Rounds, Round{
		Forgery: f.forgery.name, Rule: f.forgery.refusedBy(), Chain: f.chain, Slot: f.slot, Block: f.block.number,
		CaughtByUs: f.caught, CaughtBySupernode: f.denied, ReplacedMs: f.replaced.Milliseconds(), LockstepMs: f.lockstep.Milliseconds(),
	})
}

// zeros are the counts that have to be 0, by name.
func (r *Report) zeros() []count {
	return []count{
		{"wrongly executed", r.WronglyExecuted}, {"wrongly refused", r.WronglyRefused}, {"unknown", r.Unknown},
		{"contested proposals", r.Contested}, {"replaced blocks", r.Replaced}, {"invalidated blocks", r.Invalidated},
	}
}

type count struct {
	what string
	n    int
}

// Failed says why the judge is not content, "" if it is.
func (r *Report) Failed() string {
	var why []string
	for _, z := range r.zeros() {
		if z.n != 0 {
			why = append(why, fmt.Sprintf("%d %s", z.n, z.what))
		}
	}
	if r.CaughtByUs != r.Forced || r.CaughtBySupernode != r.Forced {
		why = append(why, fmt.Sprintf("of %d forced blocks, we caught %d and op-supernode %d", r.Forced, r.CaughtByUs, r.CaughtBySupernode))
	}
	return strings.Join(append(why, r.Errors...), "; ")
}

// Print writes the counts as a table.
func (r *Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d rollups, operators with powers %v, %.1f minutes, seed %d\tmessages\t\n", len(r.Chains), r.Powers, r.Minutes, r.Seed)
	row := func(what string, n int, note string) { fmt.Fprintf(w, "%s\t%d\t%s\n", what, n, note) }
	row("sent", r.Sent, "")
	row("executed in the slot they were sent in", r.ExecutedSameSlot, "")
	row("executed later", r.ExecutedLater, "")
	row("refused", r.refusals(), "")
	for _, rule := range slices.Sorted(maps.Keys(r.Refused)) {
		row("  "+rule, r.Refused[rule], "")
	}
	row("not tried in time", r.Late, "")
	for _, z := range r.zeros() {
		row(z.what, z.n, "must be 0")
	}
	row("forced: blocks with an invalid message", r.Forced, "")
	row("  caught by us", r.CaughtByUs, "must be all")
	row("  caught by op-supernode", r.CaughtBySupernode, "must be all")
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d announced blocks compared with the verified chains; %d plain transfers\n", r.Blocks, r.Transfers)
	for _, f := range append(slices.Clone(r.Findings), r.Errors...) {
		fmt.Fprintln(out, "  "+f)
	}
	return err
}
