package main

import (
	"cmp"
	"fmt"
	"slices"
)

// What is expected. These are stated before a run, and not changed to fit one.
const (
	leastGasRatio      = 1.5  // of gas per CPU second, at saturation
	mostOverhead       = 1.02 // of latency and of CPU, when nothing crosses chains
	mostFollowerRatio  = 0.6  // of verifying to building
	fewChains          = 2    // what scaling is measured against
	manyChains         = 29   // at which no slot may be missed
	leastStockDistance = 1    // slots from a message to its execution; else there is nothing to gain
)

type verdict string

const (
	met         verdict = "met"
	notMet      verdict = "**not met**"
	notMeasured verdict = "not measured"
)

func verdictOf(ok bool) verdict {
	if ok {
		return met
	}
	return notMet
}

// expectation is a row of the summary.
type expectation struct {
	what, expected, measured string
	verdict                  verdict
}

// expectations are those of the parts that were run.
func expectations(r *Report) []expectation {
	return slices.Concat(
		expectSaturation(r.Saturation),
		expectOverhead(r.Overhead),
		expectMessages(r.CrossChain),
		expectScale(r.Scale),
		expectFollower(r.Follower),
	)
}

func expectSaturation(rows []Saturation) (es []expectation) {
	for _, s := range rows {
		v, ok := s.GasPerCPU.ratio()
		es = append(es, atLeast("Saturation, "+s.Workload+": gas per CPU second, ours to stock", v, leastGasRatio, ok))
		if v, ok := ratio(s.GasPerCPU.Split, s.GasPerCPU.Stock); ok {
			es = append(es, atLeast("The same, engines split off", v, leastGasRatio, ok))
		}
	}
	return es
}

func expectOverhead(o *Overhead) (es []expectation) {
	if o == nil {
		return nil
	}
	for _, f := range []struct {
		what string
		pair Pair
	}{
		{"Overhead: median latency, ours to stock", o.LatencyP50},
		{"Overhead: CPU for a block, ours to stock", o.CPU},
	} {
		v, ok := f.pair.ratio()
		es = append(es, atMost(f.what, v, mostOverhead, ok))
		if v, ok := ratio(f.pair.Split, f.pair.Stock); ok {
			es = append(es, atMost("The same, engines split off", v, mostOverhead, ok))
		}
	}
	return es
}

func expectMessages(c *CrossChain) []expectation {
	if c == nil || c.Messages == nil {
		return nil
	}
	e := expectation{
		what:     "Messages: slots from the block that initiates one to the one that executes it, median",
		expected: fmt.Sprintf("ours 0 where stock has %d or more", leastStockDistance),
		measured: none,
		verdict:  notMeasured,
	}
	if p := c.Messages.Slots; len(p.Stock) > 0 && len(p.Ours) > 0 {
		stock, ours := p.Stock.median(), p.Ours.median()
		e.measured = fmt.Sprintf("ours %s, stock %s", number(ours), number(stock))
		e.verdict = verdictOf(ours == 0 && stock >= leastStockDistance)
	}
	return []expectation{e}
}

func expectScale(rows []Scale) []expectation {
	if len(rows) == 0 {
		return nil
	}
	es := []expectation{expectScaleCPU(rows)}
	for _, s := range rows {
		if s.Chains == manyChains {
			es = append(es, expectation{
				what:     fmt.Sprintf("Scale: slots missed with %d chains", manyChains),
				expected: "0",
				measured: fmt.Sprintf("%d, in %d s", s.Missed, s.Seconds),
				verdict:  verdictOf(s.Missed == 0),
			})
		}
	}
	return es
}

// expectScaleCPU compares the set of the most chains with that of two. Of several sets of as many
// chains it takes those that make it hardest to meet.
func expectScaleCPU(rows []Scale) expectation {
	byCost := func(a, b Scale) int { return cmp.Compare(a.CPUPerChain, b.CPUPerChain) }
	few := slices.DeleteFunc(slices.Clone(rows), func(s Scale) bool { return s.Chains != fewChains })
	many := slices.MaxFunc(rows, func(a, b Scale) int { return cmp.Or(cmp.Compare(a.Chains, b.Chains), byCost(a, b)) })

	e := expectation{
		what:     "Scale: CPU for a slot of one chain, with the most chains",
		expected: fmt.Sprintf("at most that with %d chains", fewChains),
		measured: none,
		verdict:  notMeasured,
	}
	if len(few) == 0 || many.Chains <= fewChains {
		return e
	}
	base := slices.MinFunc(few, byCost)
	e.measured = fmt.Sprintf("%s ms with %d chains (%d with traffic), %s ms with %d (%d)",
		beside(many.CPUPerChain, base.CPUPerChain), many.Chains, many.Busy,
		beside(base.CPUPerChain, many.CPUPerChain), base.Chains, base.Busy)
	e.verdict = verdictOf(many.CPUPerChain <= base.CPUPerChain)
	return e
}

func expectFollower(rows []Follower) (es []expectation) {
	for _, f := range rows {
		v, ok := ratio(f.Verify, f.Build)
		es = append(es, below("Follower, "+f.label()+": time to verify a slot, to that to build it", v, mostFollowerRatio, ok))
	}
	return es
}

func atLeast(what string, v, limit float64, measured bool) expectation {
	return limited(what, "at least", v, limit, measured, v >= limit)
}

func atMost(what string, v, limit float64, measured bool) expectation {
	return limited(what, "at most", v, limit, measured, v <= limit)
}

func below(what string, v, limit float64, measured bool) expectation {
	return limited(what, "below", v, limit, measured, v < limit)
}

func limited(what, word string, v, limit float64, measured, ok bool) expectation {
	e := expectation{what: what, expected: word + " " + number(limit), measured: none, verdict: notMeasured}
	if measured {
		e.measured, e.verdict = beside(v, limit), verdictOf(ok)
	}
	return e
}
