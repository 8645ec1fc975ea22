package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/bench"
)

var (
	benchReportFlag = &cli.StringFlag{Name: reportFlag.Name, EnvVars: env("BENCH_REPORT"), Value: filepath.Join("build", "reports", "bench.json"), Usage: reportFlag.Usage}
	benchQuickFlag  = &cli.BoolFlag{Name: "quick", EnvVars: env("QUICK"), Usage: "Few and short rounds."}
	roundsFlag      = &cli.IntFlag{Name: "rounds", EnvVars: env("ROUNDS"), Usage: "Rounds beside stock. 0: 3, or 1 with --quick."}
	onlyFlag        = &cli.StringFlag{Name: "only", EnvVars: env("ONLY"), Usage: "Scenarios to run, separated by commas: " + strings.Join(bench.Scenarios(), ", ") + ". Empty: all."}
	stockFlag       = &cli.StringFlag{Name: "stock", EnvVars: env("STOCK"), Value: filepath.Join("build", "stock"), Usage: "Directory of stock's binaries, op-node and op-geth."}
	mergeFlag       = &cli.StringFlag{Name: "merge", EnvVars: env("MERGE"), Usage: "Files with parts of the report that were measured before, separated by commas."}
	// benchOperatorsFlag is there for baseConfig: the scenarios have their own.
	benchOperatorsFlag = &cli.IntFlag{Name: operatorsFlag.Name, Value: 1, Hidden: true}
)

var benchFlags = slices.Concat(
	slices.DeleteFunc(slices.Clone(commonFlags), func(f cli.Flag) bool { return f == operatorsFlag || f == separateFlag || f == dataDirFlag }),
	[]cli.Flag{benchOperatorsFlag, benchQuickFlag, roundsFlag, onlyFlag, stockFlag, mergeFlag, benchReportFlag},
)

var benchCommand = &cli.Command{
	Name: "bench", Usage: "measure rollups that are sequenced together beside stock ones", Flags: benchFlags, Action: measureAll,
}

func measureAll(c *cli.Context) error {
	only := list(c.String(onlyFlag.Name))
	for _, name := range only {
		if name != none && !slices.Contains(bench.Scenarios(), name) {
			return fmt.Errorf("--%s: %q: expected some of %s", onlyFlag.Name, name, strings.Join(bench.Scenarios(), ", "))
		}
	}
	dc, logFile, err := baseConfig(c)
	if err != nil {
		return err
	}
	defer logFile.Close()
	if dc.RemoveDir { // it holds the log alone: every round has a directory of its own
		defer os.RemoveAll(dc.Dir)
	}
	cfg := bench.DefaultConfig(c.App.Writer, dc.Log)
	dc.Dir, dc.RemoveDir = "", false
	cfg.Devnet, cfg.Quick, cfg.Only, cfg.Commit = dc, c.Bool(benchQuickFlag.Name), only, GitCommit
	if cfg.Rounds = c.Int(roundsFlag.Name); cfg.Rounds < 0 || cfg.Rounds > 100 {
		return fmt.Errorf("--%s: %d: expected 0 to 100", roundsFlag.Name, cfg.Rounds)
	}
	cfg.Stock = c.String(stockFlag.Name)
	rep := new(bench.Report)
	for _, path := range list(c.String(mergeFlag.Name)) {
		if err := rep.Merge(path); err != nil {
			return fmt.Errorf("--%s: %w", mergeFlag.Name, err)
		}
	}
	path := c.String(benchReportFlag.Name)
	if err := bench.Run(c.Context, cfg, rep); err != nil {
		return err
	}
	if err := writeReport(path, rep); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "report: "+path)
	return nil
}

// none of the scenarios: what was measured before is put together.
const none = "none"

// list splits what is separated by commas.
func list(s string) (out []string) {
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
