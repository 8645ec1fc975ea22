package overview

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Style marks parts of a text. The zero value marks nothing.
type Style struct{ Good, Bad, Faint func(string) string }

func (s Style) with(mark func(string) string, text string) string {
	if mark == nil {
		return text
	}
	return mark(text)
}

// Write writes the overview for people.
func (o *Overview) Write(out io.Writer, s Style) error {
	var b strings.Builder
	if o.Healthy {
		fmt.Fprintln(&b, s.with(s.Good, "healthy"))
	} else {
		fmt.Fprintln(&b, s.with(s.Bad, "degraded"))
	}
	for _, p := range o.Problems {
		fmt.Fprintln(&b, "  "+s.with(s.Bad, p.Text))
	}
	led := ""
	if o.Leads {
		led = ", led here"
	}
	fmt.Fprintf(&b, "slot     %d (%s UTC)%s\n", o.Slot, time.Unix(int64(o.Slot), 0).UTC().Format(time.TimeOnly), led)
	if o.Agreement != nil {
		if o.Last != nil {
			fmt.Fprintf(&b, "last     %s, height %d", o.Last.Who(), o.Last.Height)
			if o.Last.Round > 0 {
				fmt.Fprintf(&b, ", after %d rounds without a subblock", o.Last.Round)
			}
			fmt.Fprintln(&b)
		}
		var next []string
		for _, t := range o.Next {
			next = append(next, t.Who())
		}
		fmt.Fprintf(&b, "next     %s\n", strings.Join(next, ", "))
	}
	fmt.Fprintf(&b, "bundles  %d pending (%d bytes), %d executed and not safe yet, %d undone, %d ended\n",
		o.Bundles.Pending, o.Bundles.PendingBytes, o.Bundles.Executed, o.Bundles.Undone, o.Bundles.Ended)

	fmt.Fprintln(&b)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHAIN\tSEQUENCED\tUNSAFE\tLAG\tLOCAL SAFE\tCROSS SAFE\tFINALIZED")
	for _, c := range o.Chains {
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\t%s\n", c.ChainID, yes(c.Ready), c.Unsafe.Number, time.Duration(c.LagSeconds)*time.Second,
			number(c.LocalSafe), number(c.CrossSafe), number(c.Finalized))
	}
	_ = w.Flush()
	if a := o.Agreement; a != nil {
		state := "votes"
		switch {
		case !a.Running:
			state = "does not run"
		case a.Syncing:
			state = "catches up"
		}
		fmt.Fprintf(&b, "\nagreement  height %d, %s, %d peers connected, %d changes of the set wait\n", a.Height, state, len(a.Connected), a.Pending)
		fmt.Fprintf(&b, "%s\n", s.with(s.Faint, fmt.Sprintf("set %s; the numbers below are of the last %d heights that this operator has seen", a.Set, a.Counted)))
		fmt.Fprintln(w, "OPERATOR\tPOWER\tVOTES\tVOTED\tLED\tPASSED\tADDRESS")
		for _, op := range a.Operators {
			name := op.Name
			if op.Self {
				name += " (this)"
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%s\n", name, op.Power, yes(op.Votes), op.Voted, op.Led, op.Passed, op.Address)
		}
		_ = w.Flush()
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// Line is the overview in one line, without the time: it changes when something has happened.
func (o *Overview) Line() string {
	var b strings.Builder
	b.WriteString("healthy")
	if !o.Healthy {
		b.Reset()
		b.WriteString("degraded")
	}
	fmt.Fprintf(&b, " slot=%d", o.Slot)
	if o.Last != nil {
		fmt.Fprintf(&b, " last=%s", o.Last.Who())
	}
	if o.Agreement != nil && len(o.Next) > 0 {
		fmt.Fprintf(&b, " next=%s", o.Next[0].Who())
	}
	for _, c := range o.Chains {
		fmt.Fprintf(&b, " %d=%d/%s/%s/%s", c.ChainID, c.Unsafe.Number, number(c.LocalSafe), number(c.CrossSafe), number(c.Finalized))
	}
	fmt.Fprintf(&b, " bundles=%d", o.Bundles.Pending)
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "; %s", p.Text)
	}
	return b.String()
}

// Who is the leader's name, or its address if it has none.
func (t Turn) Who() string {
	if t.Name != "" {
		return t.Name
	}
	return t.Leader.Hex()
}

func number(b *Block) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprint(b.Number)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
