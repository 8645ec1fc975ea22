package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/judge"
)

var (
	minutesFlag     = &cli.Float64Flag{Name: "minutes", EnvVars: env("MINUTES"), Value: 5, Usage: "For how long, from when everything runs; three fifths of it with honest operators."}
	forcedFlag      = &cli.IntFlag{Name: "forced", EnvVars: env("FORCED"), Usage: "How many invalid messages are forced into blocks. 0: as many as fit, three at least."}
	judgeSeedFlag   = &cli.Uint64Flag{Name: seedFlag.Name, EnvVars: env("JUDGE_SEED"), Value: 1, Usage: "Seed of what is sent, and of what is forced."}
	judgeChainsFlag = &cli.StringFlag{Name: chainsFlag.Name, EnvVars: env("JUDGE_CHAINS"), Value: "901,902,903", Usage: "Chain IDs of the three rollups, separated by commas."}
	judgeReportFlag = &cli.StringFlag{Name: reportFlag.Name, EnvVars: env("JUDGE_REPORT"), Value: filepath.Join("build", "reports", "judge.json"), Usage: reportFlag.Usage}
)

// judgeOperatorsFlag is there for baseConfig: the judge has two of its own.
var judgeOperatorsFlag = &cli.IntFlag{Name: operatorsFlag.Name, Value: 2, Hidden: true}

var judgeFlags = slices.Concat(
	slices.DeleteFunc(slices.Clone(commonFlags), func(f cli.Flag) bool { return f == operatorsFlag || f == separateFlag }),
	[]cli.Flag{judgeChainsFlag, judgeOperatorsFlag, minutesFlag, forcedFlag, judgeSeedFlag, judgeReportFlag},
)

var judgeCommand = &cli.Command{
	Name: "judge", Usage: "send valid and invalid messages over three rollups, and compare with op-supernode", Flags: judgeFlags, Action: holdCourt,
}

// maxMinutes is a day.
const maxMinutes = 24 * 60

// holdCourt runs the judge.
func holdCourt(c *cli.Context) error {
	chains, err := parseChains(c.String(judgeChainsFlag.Name))
	if err != nil {
		return err
	}
	if len(chains) != judge.Chains {
		return fmt.Errorf("--%s: %v: expected %d", judgeChainsFlag.Name, chains, judge.Chains)
	}
	minutes := c.Float64(minutesFlag.Name)
	if !(minutes > 0 && minutes <= maxMinutes) { // nor is it a number
		return fmt.Errorf("--%s: %v: expected more than 0, and at most %d", minutesFlag.Name, minutes, maxMinutes)
	}
	forced := c.Int(forcedFlag.Name)
	if forced < 0 {
		return fmt.Errorf("--%s: %d: expected 0 or more", forcedFlag.Name, forced)
	}
	dc, logFile, err := baseConfig(c)
	if err != nil {
		return err
	}
	defer logFile.Close()
	dc.Chains = chains
	cfg := judge.DefaultConfig(c.App.Writer, dc.Log)
	cfg.Devnet, cfg.Duration, cfg.Forced, cfg.Seed = judge.Prepare(dc), time.Duration(minutes*float64(time.Minute)), forced, c.Uint64(judgeSeedFlag.Name)
	fmt.Fprintln(c.App.Writer, "log of all services: "+logFile.Name())
	rep, err := judge.Run(c.Context, cfg)
	if err != nil {
		return err
	}
	path := c.String(judgeReportFlag.Name)
	if err := errors.Join(rep.Print(c.App.Writer), writeReport(path, rep)); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "report: "+path)
	if why := rep.Failed(); why != "" {
		return fmt.Errorf("the judge is not content: %s", why)
	}
	return nil
}
