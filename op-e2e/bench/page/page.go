package main

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// page is Markdown, and the charts it shows.
type page struct {
	strings.Builder
	images string // where the page finds its plots
	charts []chart
}

func (p *page) heading(text string) { fmt.Fprintf(p, "## %s\n\n", text) }

func (p *page) text(format string, args ...any) { fmt.Fprintf(p, format+"\n\n", args...) }

func (p *page) table(header []string, rows [][]string) {
	p.row(header)
	p.row(slices.Repeat([]string{"---"}, len(header)))
	for _, row := range rows {
		p.row(row)
	}
	p.WriteString("\n")
}

func (p *page) row(cells []string) {
	for _, c := range cells {
		p.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	p.WriteString("|\n")
}

func (p *page) chart(c chart) {
	p.charts = append(p.charts, c)
	p.text("![%s](%s)", c.title, path.Join(p.images, c.file()))
}

// section is what the page says about one part of a run.
type section struct {
	title string
	ran   func(*Report) bool
	write func(*page, *Report)
}

var sections = []section{
	{"Saturation", func(r *Report) bool { return len(r.Saturation) > 0 }, writeSaturation},
	{"Overhead", func(r *Report) bool { return r.Overhead != nil }, writeOverhead},
	{"Bundles", func(r *Report) bool { return r.CrossChain != nil && len(r.CrossChain.Bundles) > 0 }, writeBundles},
	{"Bundles that conflict", func(r *Report) bool { return r.CrossChain != nil && r.CrossChain.Conflict != nil }, writeConflict},
	{"Messages", func(r *Report) bool { return r.CrossChain != nil && r.CrossChain.Messages != nil }, writeMessages},
	{"Number of chains", func(r *Report) bool { return len(r.Scale) > 0 }, writeScale},
	{"Number of operators", func(r *Report) bool { return len(r.Operators) > 0 }, writeOperators},
	{"Following", func(r *Report) bool { return len(r.Follower) > 0 }, writeFollower},
	{"A big slot", func(r *Report) bool { return r.BigSlot != nil }, writeBigSlot},
	{"Catching up", func(r *Report) bool { return r.CatchUp != nil }, writeCatchUp},
}

// notRun are the titles of the sections that have nothing to say.
func notRun(r *Report) (titles []string) {
	for _, s := range sections {
		if !s.ran(r) {
			titles = append(titles, s.title)
		}
	}
	return titles
}

func render(r *Report, notes, images string) *page {
	p := &page{images: images}
	writeIntroduction(p, r)
	writeSummary(p, expectations(r))
	for _, s := range sections {
		if s.ran(r) {
			p.heading(s.title)
			s.write(p, r)
		}
	}
	if notes != "" {
		p.WriteString(notes + "\n\n")
	}
	if titles := notRun(r); len(titles) > 0 {
		p.text("Not run: %s.", strings.ToLower(strings.Join(titles, ", ")))
	}
	return p
}

func writeIntroduction(p *page, r *Report) {
	p.text("<!-- Written by make bench: edit op-e2e/bench/page instead. -->")
	p.text("# Benchmarks")
	p.text("What the shared sequencer (*ours*) does and costs, beside the OP Stack without it (*stock*). "+
		"`make bench` measures all of it again and writes this page; `make bench QUICK=1` takes less time, for rougher figures. "+
		"Rounds of stock and ours take turns on one machine that runs the load and L1 as well, so read the ratios: "+
		"another machine has other figures. A cell is the median of the rounds, with the least and the most in parentheses if they differ; "+
		"ours/stock is the ratio of the medians, %q where stock has 0. Ours is one operator alone, its engines embedded in its process, where op-node calls them without a socket as the sequencer does: "+
		"that is how devnets run; "+
		"split, its engines are processes of their own, as stock's are, and it speaks to them over the authenticated RPC: that is how operators run. "+
		"Stock is upstream's op-node "+
		"and op-geth, a process of each for every chain; op-geth has the rules of Karst from this project, as it stops short of them, and nothing else. "+
		"All engines have the same caches.", none)
	m, v := r.Machine, r.Versions
	p.table([]string{"Run", ""}, [][]string{
		{"Date", r.When.UTC().Format("2006-01-02 15:04") + " UTC"},
		{"Command", "`" + r.Command + "`, " + kind(r.Quick) + ", " + number(r.Minutes) + " minutes"},
		{"Machine", fmt.Sprintf("%s, %s, %s GB of memory", m.CPU, count(m.CPUs, "CPU"), number(m.MemoryGB))},
		{"Kernel, Go", m.Kernel + ", " + m.Go},
		{"Load at start", number(m.Load)},
		{"Ours", v.Commit},
		{"Upstream", "optimism " + v.Optimism + ", op-geth " + v.OpGeth + ", CometBFT " + v.CometBFT},
	})
	if m.Load > idleLoad {
		p.text("The machine had other work when the run began (load %s), which is in the figures.", number(m.Load))
	}
}

// idleLoad is the load average above which a machine has other work, as it is in package bench.
const idleLoad = 2

func kind(quick bool) string {
	if quick {
		return "a quick run"
	}
	return "a full run"
}

func writeSummary(p *page, es []expectation) {
	if len(es) == 0 {
		return
	}
	p.heading("Expected and measured")
	rows, n := [][]string{}, 0
	for _, e := range es {
		rows = append(rows, []string{e.what, e.expected, e.measured, string(e.verdict)})
		if e.verdict == met {
			n++
		}
	}
	p.text("%d of %d are met.", n, len(es))
	p.table([]string{"What", "Expected", "Measured", ""}, rows)
}

// figure is a row of a table that compares.
type figure struct {
	name string
	pair Pair
}

func (f figure) cells() []string {
	return []string{f.name, spread(f.pair.Stock), spread(f.pair.Ours), ratioText(f.pair.Ours, f.pair.Stock),
		spread(f.pair.Split), ratioText(f.pair.Split, f.pair.Stock)}
}

func (p *page) compare(figures []figure) {
	rows := [][]string{}
	for _, f := range figures {
		rows = append(rows, f.cells())
	}
	p.table([]string{"Figure", "Stock", "Ours", "Ours/stock", "Ours, split", "Split/stock"}, rows)
}

func writeSaturation(p *page, r *Report) {
	p.text("Transactions are offered as fast as pools take them: where blocks are not full and little waits in the pools, what is measured "+
		"is all that a node does for a transaction, from its RPC on. Where blocks are full, of gas or of data (the DA footprint is a block's data weighed as gas, with the same limit: Jovian), gas a second is the limit's, and only its cost says something. "+
		"CPU is processor time of sequencer and engines. %s.", saturationSettings(r.Saturation))
	rows := [][]string{}
	for _, s := range r.Saturation {
		for _, f := range []figure{
			{"Gas of all chains, Mgas/s", s.GasPerSecond.in(million)},
			{"Gas for a CPU second, Mgas", s.GasPerCPU.in(million)},
			{"CPU for a million gas, s", s.CPUPerMgas},
			{"Transactions/s", s.Transactions},
			{"Gas used of the limit, %", s.Fullness.in(percent)},
			{"DA footprint of the limit, %", s.Footprint.in(percent)},
			{"Slots of a chain without a block", s.Missed},
			{"Least that waited in a pool, blocks", s.Waiting},
		} {
			rows = append(rows, append([]string{s.Workload}, f.cells()...))
		}
	}
	p.table([]string{"Workload", "Figure", "Stock", "Ours", "Ours/stock", "Ours, split", "Split/stock"}, rows)
	p.chart(saturationChart(r.Saturation))
}

// saturationSettings says once what is the same for all workloads.
func saturationSettings(rows []Saturation) string {
	var all []string
	for _, s := range rows {
		all = append(all, fmt.Sprintf("%s, blocks of at most %s Mgas, rounds of %d s",
			count(s.Chains, "chain"), number(float64(s.GasLimit)/million), s.Seconds))
	}
	if len(slices.Compact(slices.Clone(all))) == 1 {
		return "All have " + all[0]
	}
	for i, s := range rows {
		all[i] = s.Workload + " with " + all[i]
	}
	return "They are " + strings.Join(all, "; ")
}

func writeOverhead(p *page, r *Report) {
	o := r.Overhead
	p.text("What is paid when nothing crosses chains: on each of %s, %s a second, in rounds of %d s. "+
		"Latency is from `eth_sendRawTransaction` until the block is the unsafe head: stock fills a block once, at the beginning of its slot "+
		"(op-geth's `--miner.recommit` of 2 s), ours shortly before it is sealed; jitter is how much the time between two heads "+
		"differs from the block time; behind is from a block's timestamp until it is the head; CPU and memory are those of sequencer and engines.",
		count(o.Chains, "chain"), count(o.Rate, "transfer"), o.Seconds)
	figures := overheadFigures(o)
	p.compare(figures)
	p.chart(overheadChart(figures))
}

func overheadFigures(o *Overhead) []figure {
	return []figure{
		{"Latency p50, ms", o.LatencyP50},
		{"Latency p99, ms", o.LatencyP99},
		{"Jitter p50, ms", o.JitterP50},
		{"Jitter p99, ms", o.JitterP99},
		{"Behind p50, ms", o.BehindP50},
		{"CPU for a block, ms", o.CPU},
		{"Memory, MB", o.Memory},
	}
}

func writeBundles(p *page, r *Report) {
	p.text("Bundles with a transfer on every chain, of 1500 senders that send the next one when the last one is in blocks. Stock has none.")
	rows := [][]string{}
	for _, b := range r.CrossChain.Bundles {
		rows = append(rows, []string{strconv.Itoa(b.Chains), strconv.Itoa(b.Seconds),
			spread(b.PerSecond), spread(b.Failed), spread(b.Missed), spread(b.CPU)})
	}
	p.table([]string{"Chains", "Seconds of a round", "Executed a second", "Failed", "Slots missed", "CPU for a bundle, ms"}, rows)
}

func writeConflict(p *page, r *Report) {
	c := r.CrossChain.Conflict
	p.text("Groups of %s with the same nonce on one of the chains, of which one can be executed. "+
		"No transaction of a bundle that was not executed may be in a block.", count(c.Group, "bundle"))
	p.table([]string{"Sent", "Executed", "Not executed, %", "Transactions of those in a block"},
		[][]string{{spread(c.Sent), spread(c.Executed), spread(c.AbortRate.in(percent)), spread(c.Half)}})
}

func writeMessages(p *page, r *Report) {
	m := r.CrossChain.Messages
	p.text("Plain transactions on one chain send messages to another, in rounds of %d s. "+
		"Stock has a relayer that watches heads and sends at once. "+
		"Slots are those from the block that initiates a message to the one that executes it; "+
		"latency is from sending to the head that has executed it.", m.Seconds)
	p.compare([]figure{
		{"Executed a second", m.PerSecond},
		{"Slots, median", m.Slots},
		{"Slots, most", m.SlotsMax},
		{"Latency p50, ms", m.LatencyP50},
	})
}

func writeScale(p *page, r *Report) {
	scale := byChains(r.Scale)
	p.text("One operator with embedded engines sequences sets of chains of which some have traffic. " +
		"Late is from a slot's timestamp to its blocks being heads.")
	rows := [][]string{}
	for _, s := range scale {
		rows = append(rows, []string{strconv.Itoa(s.Chains), fmt.Sprintf("%d, %d/s each", s.Busy, s.Rate), strconv.Itoa(s.Seconds),
			strconv.Itoa(s.Slots), strconv.Itoa(s.Missed), number(s.Late), number(s.CPU), number(s.CPUPerChain), number(s.Memory)})
	}
	p.table([]string{"Chains", "With traffic", "Seconds", "Slots", "Missed", "Late p99, ms", "CPU for a slot, ms", "CPU for a slot of one chain, ms", "Memory, MB"}, rows)
	p.chart(scaleChart(scale))
	if stages := stagesOf(scale); len(stages) > 0 {
		writeStages(p, scale, stages)
	}
}

func byChains(rows []Scale) []Scale {
	return slices.SortedStableFunc(slices.Values(rows), func(a, b Scale) int { return a.Chains - b.Chains })
}

func writeStages(p *page, scale []Scale, stages []string) {
	p.text("The stages of a slot, by mean in ms. Some are at work at the same time, so their sum may be more than the slot took.")
	header := []string{"Stage"}
	for _, s := range scale {
		header = append(header, count(s.Chains, "chain"))
	}
	rows := [][]string{}
	for _, stage := range stages {
		row := []string{stage}
		for _, s := range scale {
			if ms, ok := s.Stages[stage]; ok {
				row = append(row, number(ms))
			} else {
				row = append(row, none)
			}
		}
		rows = append(rows, row)
	}
	p.table(header, rows)
	p.chart(stagesChart(scale, stages))
}

func writeOperators(p *page, r *Report) {
	p.text("Operators agree on subblocks of one size, over links of one delay. " +
		"Commit is from Propose until more than two thirds have it; CPU is that of an operator.")
	rows := [][]string{}
	for _, o := range r.Operators {
		rows = append(rows, []string{strconv.Itoa(o.Operators), size(float64(o.Bytes)), number(o.OneWayDelay), strconv.Itoa(o.Heights),
			number(o.P50), number(o.P99), size(o.Sent), size(o.SentMax), number(o.CPU)})
	}
	p.table([]string{"Operators", "Subblock", "One way, ms", "Subblocks", "Commit p50, ms", "Commit p99, ms", "Sent by one, mean", "Sent by one, most", "CPU for a subblock, ms"}, rows)
	p.chart(commitChart(r.Operators))
	p.chart(sentChart(r.Operators))
}

// label tells a row from the others.
func (f Follower) label() string {
	if f.Known {
		return f.Workload + " it knows"
	}
	return f.Workload + " it does not know"
}

func writeFollower(p *page, r *Report) {
	p.text("Verifying a slot (decode, open, execute, seal, insert) against building it (open, fill, seal, insert). " +
		"A follower knows transactions that its pool got by gossip. newPayload is the same block in engine_newPayload " +
		"of this project's op-geth, called in the process: what upstream's way of verifying and storing takes. Engines alone are compared: " +
		"a follower also checks messages.")
	rows := [][]string{}
	for _, f := range r.Follower {
		name := fmt.Sprintf("%s (%d)", f.label(), f.Transactions)
		rows = append(rows,
			[]string{name, "Time, ms", spread(f.Build), spread(f.Verify), spread(f.Stock), ratioText(f.Verify, f.Build), ratioText(f.Stock, f.Build), ratioText(f.Verify, f.Stock)},
			[]string{name, "CPU, ms", spread(f.BuildCPU), spread(f.VerifyCPU), spread(f.StockCPU), ratioText(f.VerifyCPU, f.BuildCPU), ratioText(f.StockCPU, f.BuildCPU), ratioText(f.VerifyCPU, f.StockCPU)})
	}
	p.table([]string{"Transactions", "Figure", "Build", "Verify", "newPayload", "Verify/build", "newPayload/build", "Verify/newPayload"}, rows)
	p.chart(followerChart(r.Follower))
}

func writeBigSlot(p *page, r *Report) {
	b := r.BigSlot
	p.text("A slot of %s, built, encoded, verified, and agreed on by %s with links of %s ms one way.",
		size(float64(b.Bytes)), count(b.Operators, "operator"), number(b.Delay))
	p.table([]string{"Build, ms", "Encode, ms", "Verify, ms", "Verify/build", "Commit p50, ms", "Commit p99, ms"},
		[][]string{{spread(b.Build), spread(b.Encode), spread(b.Verify), ratioText(b.Verify, b.Build), number(b.CommitP50), number(b.CommitP99)}})
}

func writeCatchUp(p *page, r *Report) {
	c := r.CatchUp
	p.text("An operator that was away for %s of %s, with %s a second on each, comes back while the others go on.",
		count(c.Slots, "slot"), count(c.Chains, "chain"), count(c.Rate, "transfer"))
	p.table([]string{"Until it is where the others are, s", "Slots/s", "For an hour of slots of 1 s, s"},
		[][]string{{number(c.Seconds), number(c.SlotsPerSecond), number(c.Hour)}})
}
