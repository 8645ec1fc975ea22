package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/latency"
)

var (
	latencyMinutesFlag = &cli.Float64Flag{Name: minutesFlag.Name, EnvVars: env("MINUTES"), Value: 1, Usage: "For how long."}
	latencyReportFlag  = &cli.StringFlag{Name: reportFlag.Name, EnvVars: env("LATENCY_REPORT"), Value: filepath.Join("build", "reports", "userlatency.json"), Usage: reportFlag.Usage}
	// latencyOperatorsFlag has another default.
	latencyOperatorsFlag = &cli.IntFlag{Name: operatorsFlag.Name, Value: 4, Usage: operatorsFlag.Usage}
)

var latencyFlags = slices.Concat(
	slices.DeleteFunc(slices.Clone(commonFlags), func(f cli.Flag) bool { return f == operatorsFlag || f == separateFlag }),
	[]cli.Flag{chainsFlag, latencyOperatorsFlag, latencyMinutesFlag, seedFlag, loadFlag, latencyReportFlag},
)

var latencyCommand = &cli.Command{
	Name: "latency", Usage: "measure how long users wait until operators have agreed on what they sent", Flags: latencyFlags, Action: measureLatency,
}

func measureLatency(c *cli.Context) error {
	chains, err := parseChains(c.String(chainsFlag.Name))
	if err != nil {
		return err
	}
	minutes := c.Float64(latencyMinutesFlag.Name)
	if !(minutes > 0 && minutes <= maxMinutes) { // nor is it a number
		return fmt.Errorf("--%s: %v: expected more than 0, and at most %d", latencyMinutesFlag.Name, minutes, maxMinutes)
	}
	dc, logFile, err := baseConfig(c)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cfg := latency.DefaultConfig(c.App.Writer, dc.Log)
	dc.Chains, dc.NoProposer, dc.Subblocks = chains, true, cfg.Devnet.Subblocks
	cfg.Devnet, cfg.Duration, cfg.Seed = dc, time.Duration(minutes*float64(time.Minute)), c.Uint64(seedFlag.Name)
	if c.IsSet(loadFlag.Name) {
		cfg.Rate = c.Int(loadFlag.Name)
	}
	fmt.Fprintln(c.App.Writer, "log of all services: "+logFile.Name())
	rep, err := latency.Run(c.Context, cfg)
	if err != nil {
		return err
	}
	path := c.String(latencyReportFlag.Name)
	if err := errors.Join(rep.Print(c.App.Writer), writeReport(path, rep)); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "report: "+path)
	return nil
}
