package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/drill"
)

var (
	killsFlag          = &cli.IntFlag{Name: "kills", EnvVars: env("KILLS"), Value: 30, Usage: "How often the leader is killed."}
	conductorKillsFlag = &cli.IntFlag{Name: "conductor-kills", EnvVars: env("CONDUCTOR_KILLS"), Value: conductor.DefaultKills, Usage: "How often op-conductor's leader is killed, for comparison. 0: it is not measured."}
	seedFlag           = &cli.Uint64Flag{Name: "seed", EnvVars: env("SEED"), Value: 1, Usage: "Seed of the moments of the kills."}
	quickFlag          = &cli.BoolFlag{Name: "quick", EnvVars: env("QUICK"), Usage: "Few kills, short faults, no comparison; other flags change that."}
	drillReportFlag    = &cli.StringFlag{Name: reportFlag.Name, EnvVars: env("DRILL_REPORT"), Value: filepath.Join("build", "reports", "drill.json"), Usage: reportFlag.Usage}
)

// drillOperatorsFlag is there for baseConfig: it is a drill of four.
var drillOperatorsFlag = &cli.IntFlag{Name: operatorsFlag.Name, Value: 4, Hidden: true}

var drillFlags = slices.Concat(
	slices.DeleteFunc(slices.Clone(commonFlags), func(f cli.Flag) bool { return f == operatorsFlag || f == separateFlag }),
	[]cli.Flag{chainsFlag, drillOperatorsFlag, killsFlag, conductorKillsFlag, seedFlag, quickFlag, loadFlag, drillReportFlag},
)

// drillCommands are drill, and what it starts itself.
var drillCommands = []*cli.Command{
	{Name: "drill", Usage: "kill leaders of four operators, and report what users notice", Flags: drillFlags, Action: failover},
	{Name: conductorUnit, Hidden: true, Usage: "be one operator of an op-conductor cluster", Action: func(c *cli.Context) error {
		return conductor.RunUnit(c.Context, c.Args().First(), os.Stdout)
	}},
}

const conductorUnit = "conductor-unit"

// quickFault is how long the faults of a quick drill are.
const quickFault = 10 * time.Second

// failover runs the drill.
func failover(c *cli.Context) error {
	chains, err := parseChains(c.String(chainsFlag.Name))
	if err != nil {
		return err
	}
	for _, f := range []*cli.IntFlag{killsFlag, conductorKillsFlag} {
		if n := c.Int(f.Name); n < 0 || n > 1000 {
			return fmt.Errorf("--%s: %d: expected 0 to 1000", f.Name, n)
		}
	}
	dc, logFile, err := baseConfig(c)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cfg := drill.DefaultConfig(c.App.Writer, dc.Log)
	dc.Chains, dc.NoProposer, dc.Archive = chains, true, true
	cfg.Devnet, cfg.Seed, cfg.Kills = dc, c.Uint64(seedFlag.Name), c.Int(killsFlag.Name)
	if c.IsSet(loadFlag.Name) {
		// To each chain, through all operators together.
		cfg.Rate = c.Int(loadFlag.Name) / cfg.Devnet.Operators
	}
	compare := c.Int(conductorKillsFlag.Name)
	if c.Bool(quickFlag.Name) {
		cfg.Stop, cfg.Cut, cfg.Freeze = quickFault, quickFault, quickFault
		if !c.IsSet(killsFlag.Name) {
			cfg.Kills = 3
		}
		if !c.IsSet(conductorKillsFlag.Name) {
			compare = 0
		}
	}
	if compare > 0 {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cfg.Conductor = &conductor.Config{Kills: compare, Seed: cfg.Seed, Artifacts: dc.Artifacts, Unit: []string{self, conductorUnit}, Log: dc.Log}
	}
	path := c.String(drillReportFlag.Name)
	fmt.Fprintln(c.App.Writer, "log of the drill: "+logFile.Name())
	rep, err := drill.Run(c.Context, cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(rep.Print(c.App.Writer), writeReport(path, rep)); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "report: "+path)
	if why := rep.Failed(); why != "" {
		return fmt.Errorf("the drill is not passed: %s", why)
	}
	return nil
}

func writeReport(path string, rep any) error {
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
