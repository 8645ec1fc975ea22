package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// chart is what a plot shows, without how it looks.
type chart struct {
	name     string
	title    string
	x, y     string // what the axes are; empty if the title or the groups say it
	style    style
	groups   []string // of bars, from left to right
	series   []series
	baseline float64 // a line across bars, if not 0
}

type style int

const (
	grouped style = iota // bars side by side
	stacked              // bars on each other
	lines
)

// series has a value for each group, or for each x if it is a line.
type series struct {
	name   string
	x      []float64
	values []float64
}

func (c chart) file() string { return "bench-" + c.name + ".svg" }

func saturationChart(rows []Saturation) chart {
	stock, ours := series{name: "stock"}, series{name: "ours"}
	c := chart{name: "saturation", title: "Gas for a second of processor time", y: "Mgas"}
	for _, s := range rows {
		c.groups = append(c.groups, s.Workload)
		p := s.GasPerCPU.in(million)
		stock.values = append(stock.values, p.Stock.median())
		ours.values = append(ours.values, p.Ours.median())
	}
	c.series = []series{stock, ours}
	return c
}

// overheadChart has ratios, as milliseconds and megabytes do not go on one axis.
func overheadChart(figures []figure) chart {
	c := chart{name: "overhead", title: "Overhead: ours to stock (1 is the same)", y: "ours/stock", baseline: 1}
	bars := series{name: "ours/stock"}
	for _, f := range figures {
		if r, ok := f.pair.ratio(); ok {
			c.groups = append(c.groups, twoLines(f.name))
			bars.values = append(bars.values, r)
		}
	}
	c.series = []series{bars}
	return c
}

// twoLines is the name of a figure, without its unit, for below a bar.
func twoLines(name string) string {
	name, _, _ = strings.Cut(name, ", ")
	if i := strings.LastIndexByte(name, ' '); i >= 0 {
		return name[:i] + "\n" + name[i+1:]
	}
	return name
}

func scaleChart(rows []Scale) chart {
	line := series{name: "CPU"}
	for _, s := range rows {
		line.x = append(line.x, float64(s.Chains))
		line.values = append(line.values, s.CPUPerChain)
	}
	return chart{name: "scale-cpu", title: "Processor time for a slot of one chain", x: "chains", y: "ms", style: lines, series: []series{line}}
}

// stagesOf are the names of all stages, those first that take longest.
func stagesOf(rows []Scale) []string {
	longest := map[string]float64{}
	for _, s := range rows {
		for stage, ms := range s.Stages {
			longest[stage] = max(longest[stage], ms)
		}
	}
	return slices.SortedFunc(maps.Keys(longest), func(a, b string) int {
		return cmp.Or(cmp.Compare(longest[b], longest[a]), cmp.Compare(a, b))
	})
}

// shownStages is how many the plot tells apart, by as many colors. The rest is one.
const shownStages = 6

func stagesChart(rows []Scale, stages []string) chart {
	c := chart{name: "scale-stages", title: "Stages of a slot, mean", x: "chains", y: "ms", style: stacked}
	for _, s := range rows {
		c.groups = append(c.groups, strconv.Itoa(s.Chains))
	}
	add := func(name string, of ...string) {
		bars := series{name: name}
		for _, s := range rows {
			var ms float64
			for _, stage := range of {
				ms += s.Stages[stage]
			}
			bars.values = append(bars.values, ms)
		}
		c.series = append(c.series, bars)
	}
	shown := min(len(stages), shownStages)
	for _, stage := range stages[:shown] {
		add(stage, stage)
	}
	if rest := stages[shown:]; len(rest) > 0 {
		add("others", rest...)
	}
	return c
}

func commitChart(rows []Operators) chart {
	return operatorsChart(rows, chart{name: "operators-commit", title: "From Propose to the commit", y: "ms"},
		column{"p50", func(o Operators) float64 { return o.P50 }},
		column{"p99", func(o Operators) float64 { return o.P99 }})
}

func sentChart(rows []Operators) chart {
	return operatorsChart(rows, chart{name: "operators-sent", title: "Sent by an operator for a subblock", y: "KiB"},
		column{"mean", func(o Operators) float64 { return o.Sent / 1024 }},
		column{"most", func(o Operators) float64 { return o.SentMax / 1024 }})
}

type column struct {
	name string
	of   func(Operators) float64
}

// operatorsChart has a line for each column, or several if rows differ in more than the number of
// operators.
func operatorsChart(rows []Operators, c chart, columns ...column) chart {
	type setting struct {
		bytes int
		delay float64
	}
	var settings []setting
	of := map[setting][]Operators{}
	for _, o := range rows {
		s := setting{o.Bytes, o.OneWayDelay}
		if of[s] == nil {
			settings = append(settings, s)
		}
		of[s] = append(of[s], o)
	}
	for _, s := range settings {
		slices.SortStableFunc(of[s], func(a, b Operators) int { return a.Operators - b.Operators })
		for _, col := range columns {
			line := series{name: col.name}
			if len(settings) > 1 {
				line.name += fmt.Sprintf(", %s, %s ms", size(float64(s.bytes)), number(s.delay))
			}
			for _, o := range of[s] {
				line.x = append(line.x, float64(o.Operators))
				line.values = append(line.values, col.of(o))
			}
			c.series = append(c.series, line)
		}
	}
	c.x, c.style = "operators", lines
	return c
}

func followerChart(rows []Follower) chart {
	build, verify := series{name: "build"}, series{name: "verify"}
	c := chart{name: "follower", title: "Time to build a slot and to verify it", y: "ms"}
	for _, f := range rows {
		known := "unknown"
		if f.Known {
			known = "known"
		}
		c.groups = append(c.groups, f.Workload+"\n"+known)
		build.values = append(build.values, f.Build.median())
		verify.values = append(verify.values, f.Verify.median())
	}
	c.series = []series{build, verify}
	return c
}
