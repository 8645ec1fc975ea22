package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const sample = "testdata/bench.json"

func read(t *testing.T) *Report {
	t.Helper()
	r, err := readReport(sample)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerdicts(t *testing.T) {
	pair := func(stock, ours float64) Pair { return Pair{Stock: Values{stock}, Ours: Values{ours}} }
	for _, c := range []struct {
		name     string
		change   func(*Report)
		what     string // how the row begins
		measured string
		want     verdict
	}{
		{"gas at the limit", func(r *Report) { r.Saturation[0].GasPerCPU = pair(2e6, 3e6) }, "Saturation, transfers", "1.5", met},
		{"gas below the limit by what rounding hides", func(r *Report) { r.Saturation[0].GasPerCPU = pair(1e6, 1.4996e6) }, "Saturation, transfers", "1.4996", notMet},
		{"gas of stock unknown", func(r *Report) { r.Saturation[0].GasPerCPU.Stock = nil }, "Saturation, transfers", none, notMeasured},
		{"latency at the limit", func(r *Report) { r.Overhead.LatencyP50 = pair(100, 102) }, "Overhead: median latency", "1.02", met},
		{"latency above", func(r *Report) { r.Overhead.LatencyP50 = pair(100, 103) }, "Overhead: median latency", "1.03", notMet},
		{"CPU below", func(r *Report) { r.Overhead.CPU = pair(100, 90) }, "Overhead: CPU", "0.9", met},
		{"CPU above", func(r *Report) { r.Overhead.CPU = pair(1e4, 10204) }, "Overhead: CPU", "1.0204", notMet},
		{"messages in the same slot", func(r *Report) { r.CrossChain.Messages.Slots = pair(1, 0) }, "Messages", "ours 0, stock 1", met},
		{"messages in a later slot", func(r *Report) { r.CrossChain.Messages.Slots = pair(2, 1) }, "Messages", "ours 1, stock 2", notMet},
		{"messages that stock executes at once", func(r *Report) { r.CrossChain.Messages.Slots = pair(0, 0) }, "Messages", "ours 0, stock 0", notMet},
		{"messages without stock", func(r *Report) { r.CrossChain.Messages.Slots.Stock = nil }, "Messages", none, notMeasured},
		{"CPU as with two chains", func(r *Report) {
			r.Scale = []Scale{{Chains: 29, Busy: 29, CPUPerChain: 9}, {Chains: 2, Busy: 2, CPUPerChain: 9}}
		}, "Scale: CPU", "9 ms with 29 chains (29 with traffic), 9 ms with 2 (2)", met},
		{"CPU above that of two chains", func(r *Report) {
			r.Scale = []Scale{{Chains: 2, CPUPerChain: 9}, {Chains: 4, CPUPerChain: 10}}
		}, "Scale: CPU", "10 ms with 4 chains (0 with traffic), 9 ms with 2 (0)", notMet},
		{"the dearer of two sets", func(r *Report) {
			r.Scale = []Scale{{Chains: 2, CPUPerChain: 9}, {Chains: 4, CPUPerChain: 8}, {Chains: 4, CPUPerChain: 11}}
		}, "Scale: CPU", "11 ms with 4 chains (0 with traffic), 9 ms with 2 (0)", notMet},
		{"no set of two chains", func(r *Report) { r.Scale = []Scale{{Chains: 29}} }, "Scale: CPU", none, notMeasured},
		{"no more than two chains", func(r *Report) { r.Scale = []Scale{{Chains: 2}} }, "Scale: CPU", none, notMeasured},
		{"no slot missed", func(r *Report) { r.Scale = []Scale{{Chains: 29, Seconds: 60}} }, "Scale: slots", "0, in 60 s", met},
		{"a slot missed", func(r *Report) { r.Scale = []Scale{{Chains: 29, Seconds: 60, Missed: 1}} }, "Scale: slots", "1, in 60 s", notMet},
		{"verified in less", func(r *Report) { r.Follower[0].Build, r.Follower[0].Verify = Values{100}, Values{59} }, "Follower, transfers it knows", "0.59", met},
		{"verified at the limit", func(r *Report) { r.Follower[0].Build, r.Follower[0].Verify = Values{100}, Values{60} }, "Follower, transfers it knows", "0.6", notMet},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := read(t)
			c.change(r)
			e := find(t, expectations(r), c.what)
			if e.verdict != c.want || e.measured != c.measured {
				t.Errorf("%s: measured %q, %s, want %q, %s", e.what, e.measured, e.verdict, c.measured, c.want)
			}
		})
	}
}

func find(t *testing.T, es []expectation, what string) expectation {
	t.Helper()
	i := slices.IndexFunc(es, func(e expectation) bool { return strings.HasPrefix(e.what, what) })
	if i < 0 {
		t.Fatalf("no row begins with %q", what)
	}
	return es[i]
}

func TestFewerThan29ChainsSayNothingOf29(t *testing.T) {
	es := expectations(&Report{Scale: []Scale{{Chains: 2}, {Chains: 8, Missed: 3}}})
	if len(es) != 1 {
		t.Errorf("rows: %v", es)
	}
}

func TestPage(t *testing.T) {
	page := render(read(t), "## Notes\n\nA line.", "images").String()
	for _, want := range []string{
		"`make bench QUICK=1`",
		"| Date | 2026-11-26 18:00 UTC |",
		"| Command | `make bench`, a full run, 87.3 minutes |",
		`| Machine | Test \| CPU @ 2.50GHz, 2 CPUs, 7.76 GB of memory |`,
		"11 of 14 are met.",
		"| storage | Gas for a CPU second, Mgas | 30 (29.5 to 31) | 45 (44.9 to 45) | 1.5 |",
		"| tokens | Slots of a chain without a block | 0 (0 to 1) | 0 | – |",
		"![Gas for a second of processor time](images/bench-saturation.svg)",
		"| 21 | 128 KiB | 25 | 200 | 101 | 162 | 207 KiB | 1.5 MiB | 8.71 |",
		"\n## Notes\n\nA line.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	for _, not := range []string{"Not run", "had other work"} {
		if strings.Contains(page, not) {
			t.Errorf("the page has %q", not)
		}
	}
}

func TestPartialReport(t *testing.T) {
	full := read(t)
	full.Machine.Load = 2.7
	p := render(&Report{Quick: true, Machine: full.Machine, Overhead: full.Overhead, CrossChain: &CrossChain{Messages: full.CrossChain.Messages}}, "", "images")
	page := p.String()

	var headings []string
	for line := range strings.Lines(page) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			headings = append(headings, strings.TrimSpace(h))
		}
	}
	if want := []string{"Expected and measured", "Overhead", "Messages"}; !slices.Equal(headings, want) {
		t.Errorf("headings %q, want %q", headings, want)
	}
	if len(p.charts) != 1 || p.charts[0].name != "overhead" {
		t.Errorf("charts: %v", p.charts)
	}
	for _, want := range []string{"a quick run", "had other work when the run began (load 2.7)",
		"\nNot run: saturation, bundles, bundles that conflict, number of chains, number of operators, following, a big slot, catching up.\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if strings.Contains(page, "Saturation") {
		t.Error("the page speaks of what was not run")
	}
}

func TestSameReportSameBytes(t *testing.T) {
	first := writeAll(t)
	if len(first) != 8 {
		t.Errorf("%d files, want the page and 7 plots", len(first))
	}
	for range 5 { // the order of a map may be the same by chance
		for name, data := range writeAll(t) {
			if !bytes.Equal(data, first[name]) {
				t.Errorf("%s differs", name)
			}
		}
	}
}

// writeAll is what a run leaves in a directory that has a plot of an earlier one.
func writeAll(t *testing.T) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bench-gone.svg"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := write(files{in: sample, out: filepath.Join(dir, "benchmarks.md"), images: dir, notes: "notes.md"}); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = data
	}
	if _, ok := all["bench-gone.svg"]; ok {
		t.Error("a plot of an earlier run was left")
	}
	return all
}

func TestErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ in, want string }{
		{filepath.Join(dir, "missing.json"), "run make bench first"},
		{file("broken.json", "{"), "run make bench again"},
		{file("empty.json", "{}"), "has no results"},
	} {
		if _, err := readReport(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", filepath.Base(c.in), err, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{number(0), "0"},
		{number(3), "3"},
		{number(0.99961), "1"},
		{number(1.2345), "1.23"},
		{number(123456), "123000"},
		{number(-0.012345), "-0.0123"},
		{beside(1.0204, 1.02), "1.0204"},
		{beside(1.02, 1.02), "1.02"},
		{beside(0.99, 1.02), "0.99"},
		{spread(nil), none},
		{spread(Values{2, 2}), "2"},
		{spread(Values{3, 1, 2, 4}), "2.5 (1 to 4)"},
		{size(1 << 20), "1 MiB"},
		{size(900), "900 B"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// Reports are read with types of our own: they must have the names and types of what writes them.
func TestTypesAreThoseOfBench(t *testing.T) {
	theirs := fields(t, "../report.go")
	for name, typ := range fields(t, "report.go") {
		if theirs[name] != typ {
			t.Errorf("%s is %q here, %q in op-e2e/bench/report.go", name, typ, theirs[name])
		}
	}
}

// fields are the types of a file's fields, by type and JSON name.
func fields(t *testing.T, file string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			all[spec.Name.Name] = types.ExprString(spec.Type)
			return false
		}
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			all[spec.Name.Name+"."+name] = types.ExprString(f.Type)
		}
		return false
	})
	return all
}
