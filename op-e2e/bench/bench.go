// Package bench measures the shared sequencer beside stock upstream, in the same run on the same
// machine: what is sealed at saturation and for how much processor time, what is paid when nothing
// crosses chains, what crossing costs, and how all of it grows with the number of chains.
//
// Stock is upstream's op-node and op-geth of the module versions that ours is built from, each chain
// sequencing alone; of our patches op-geth has the rules of Karst, without which it cannot follow. Rounds are interleaved, stock and ours in turn, each on fresh
// chains and an L1 of its own, so that a machine that changes its speed does so for both.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/log"
	"github.com/prometheus/procfs"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// Config says what is measured. Start with DefaultConfig.
type Config struct {
	Devnet devnet.Config // what is not set by the scenarios
	Stock  string        // directory of stock's binaries, op-node and op-geth
	Quick  bool          // short rounds, and fewer
	Rounds int           // beside stock; 0: 3, or 1 if quick
	Only   []string      // names of scenarios; empty: all
	Commit string        // of the project
	Out    io.Writer     // progress
	Log    log.Logger
}

// DefaultConfig measures everything.
func DefaultConfig(out io.Writer, l log.Logger) Config {
	return Config{
		Devnet: devnet.DefaultConfig(l), Stock: filepath.Join("build", "stock"), Out: out, Log: l,
	}
}

func (c *Config) stockNode() string { return filepath.Join(c.Stock, "op-node") }
func (c *Config) stockGeth() string { return filepath.Join(c.Stock, "op-geth") }

// pick is one of two values.
func (c *Config) pick(quick, full int) int {
	if c.Quick {
		return quick
	}
	return full
}

// scenario is a part of the report.
type scenario struct {
	name string
	run  func(c *Config, ctx context.Context, r *Report) error
	part bool // of another one: it runs when it is named
}

func scenarios() []scenario {
	return []scenario{
		{name: "stock", run: (*Config).againstStock},
		{name: "overhead", run: (*Config).overheadAlone, part: true},
		{name: "bundles", run: (*Config).bundles},
		{name: "scale", run: (*Config).scale},
		{name: "catch-up", run: (*Config).catchUp},
	}
}

// Scenarios are the names that Config.Only takes.
func Scenarios() (out []string) {
	for _, s := range scenarios() {
		out = append(out, s.name)
	}
	return out
}

// Run measures, and adds what it found to the report.
func Run(ctx context.Context, cfg Config, r *Report) error {
	for _, path := range []string{cfg.stockNode(), cfg.stockGeth()} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("stock's binary %s: %w: `make stock` makes it", path, err)
		}
	}
	start := time.Now()
	m, err := thisMachine()
	if err != nil {
		return err
	}
	r.Command = "make bench"
	if cfg.Quick {
		r.Command += " QUICK=1"
	}
	if len(cfg.Only) > 0 {
		r.Command += " ONLY=" + strings.Join(cfg.Only, ",")
	}
	if cfg.Rounds > 0 {
		r.Command += fmt.Sprintf(" ROUNDS=%d", cfg.Rounds)
	}
	if r.Versions, err = versions(cfg.Commit, filepath.Join(cfg.Stock, "versions.json")); err != nil {
		return err
	}
	r.When, r.Quick, r.Machine = start.UTC().Truncate(time.Second), cfg.Quick, m
	if m.Load > float64(m.CPUs) {
		fmt.Fprintf(cfg.Out, "the machine has other work (load %.1f): figures will not be those of the software\n", m.Load)
	}
	for _, s := range scenarios() {
		if !slices.Contains(cfg.Only, s.name) && (s.part || len(cfg.Only) > 0) {
			continue
		}
		fmt.Fprintf(cfg.Out, "%s\n", s.name)
		if err := s.run(&cfg, ctx, r); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	r.Minutes = round(time.Since(start).Minutes())
	return nil
}

// round keeps three places behind the point.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// Merge adds the parts of the report in a file, which other programs have measured.
func (r *Report) Merge(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func thisMachine() (Machine, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Machine{}, err
	}
	mem, err1 := fs.Meminfo()
	load, err2 := fs.LoadAvg()
	kernel, err3 := os.ReadFile("/proc/sys/kernel/osrelease")
	cpuinfo, err4 := os.ReadFile("/proc/cpuinfo")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Machine{}, err
	}
	m := Machine{
		CPU: cpuName(string(cpuinfo)), CPUs: runtime.NumCPU(), Kernel: strings.TrimSpace(string(kernel)), Go: runtime.Version(), Load: load.Load1,
	}
	if mem.MemTotalBytes != nil {
		m.MemoryGB = round(float64(*mem.MemTotalBytes) / (1 << 30))
	}
	return m, nil
}

// versions are those of stock, by the file that came with its binaries, and of what is linked
// into this program.
func versions(commit, file string) (Versions, error) {
	v := Versions{Commit: commit}
	data, err := os.ReadFile(file)
	if err != nil {
		return v, fmt.Errorf("versions of stock: %w: `make stock` makes it", err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/cometbft/cometbft" {
				v.CometBFT = d.Version
			}
		}
	}
	return v, nil
}

// add adds a value to the side it belongs to.
func (p *Pair) add(name string, v float64) {
	to := map[string]*Values{nameStock: &p.Stock, nameOurs: &p.Ours, nameProcess: &p.Split}[name]
	*to = append(*to, sig(v))
	p.Ratio, p.RatioSplit = ratio(p.Ours, p.Stock), ratio(p.Split, p.Stock)
}

// ratio of medians, nil where it says nothing.
func ratio(a, b Values) *float64 {
	x, y := a.Median(), b.Median()
	if len(a) == 0 || y <= 0 || x < 0 {
		return nil
	}
	r := round(x / y)
	return &r
}

// sig keeps four significant digits.
func sig(v float64) float64 {
	f, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	if err != nil {
		return v
	}
	return f
}
