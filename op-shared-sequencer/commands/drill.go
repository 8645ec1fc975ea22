package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/exercise"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
)

var (
	slotsFlag    = &cli.IntFlag{Name: "slots", Usage: "How many slots are watched before anything is stopped.", Value: 60, EnvVars: envVars("slots")}
	stopFlag     = &cli.StringFlag{Name: "stop-cmd", Usage: "Shell command that stops a part of the set: an op-node, an op-geth, a batcher. Not the op-node that --rpc names.", EnvVars: envVars("stop-cmd")}
	startFlag    = &cli.StringFlag{Name: "start-cmd", Usage: "Shell command that starts it again. It is run even when the drill is interrupted, and has to return.", EnvVars: envVars("start-cmd")}
	downFlag     = &cli.DurationFlag{Name: "down", Usage: "How long it stays stopped.", Value: 10 * time.Second, EnvVars: envVars("down")}
	recoveryFlag = &cli.DurationFlag{Name: "recovery", Usage: "How long after the start the set may take to be well again.", Value: 2 * time.Minute, EnvVars: envVars("recovery")}
	pollFlag     = &cli.DurationFlag{Name: "poll", Usage: "How often the operator is asked: the times are as exact as this.", Value: 50 * time.Millisecond, EnvVars: envVars("poll")}
	reportFlag   = &cli.PathFlag{Name: "report", Usage: "File to write the report to, as JSON. It must not be there.", EnvVars: envVars("report")}
)

func drillCommand(env Env, t *terminal) *cli.Command {
	return &cli.Command{
		Name: "drill", Usage: "watch a running set, stop and start a part of it with commands of your own, and report gaps, turns, votes and recovery",
		Description: "Without --stop-cmd it only watches. Exit code 0 if all was well in the end, 4 if something was wrong then, 1 if the set did not recover or a command failed.",
		Flags:       flagSet(rpcFlag, nodeRPCFlag, timeoutFlag, maxLagFlag, maxSafeFlag, jsonFlag, slotsFlag, stopFlag, startFlag, downFlag, recoveryFlag, pollFlag, reportFlag),
		Action:      func(c *cli.Context) error { return drill(c, env, t) },
	}
}

func drill(c *cli.Context, env Env, t *terminal) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	stop, start, report := c.String(stopFlag.Name), c.String(startFlag.Name), c.Path(reportFlag.Name)
	if (stop == "") != (start == "") {
		return usage("--%s and --%s: expected both or none: what is stopped has to be started", stopFlag.Name, startFlag.Name)
	}
	if c.Int(slotsFlag.Name) < 1 || c.Duration(pollFlag.Name) <= 0 || c.Duration(downFlag.Name) < 0 || c.Duration(recoveryFlag.Name) <= 0 {
		return usage("--%s, --%s and --%s: expected more than zero", slotsFlag.Name, pollFlag.Name, recoveryFlag.Name)
	}
	if report != "" && exists(report) {
		return usage("--%s: %s exists", reportFlag.Name, report)
	}
	client, err := dial(c.Context, c)
	if err != nil {
		return err
	}
	defer client.Close()
	cfg := exercise.Config{
		Slots: c.Int(slotsFlag.Name), Down: c.Duration(downFlag.Name), Recovery: c.Duration(recoveryFlag.Name), Poll: c.Duration(pollFlag.Name),
		Take: takes(env, c, client), Now: env.Now, Sleep: sleep,
	}
	if !c.Bool(jsonFlag.Name) {
		cfg.Said = t.progress
	}
	if stop != "" {
		cfg.Stop = func(ctx context.Context) error { return shell(ctx, env, stop) }
		cfg.Start = func(ctx context.Context) error { return shell(ctx, env, start) }
	}
	r, err := exercise.Run(c.Context, cfg)
	if !c.Bool(jsonFlag.Name) {
		t.progress("")
	}
	if r.Slots == 0 && err != nil && r.Fault == nil {
		return called(err)
	}
	if report != "" {
		data, jerr := json.MarshalIndent(r, "", "  ")
		if jerr == nil {
			jerr = keyfile.Create(report, append(data, '\n'))
		}
		err = errors.Join(err, jerr)
	}
	if c.Bool(jsonFlag.Name) {
		err = errors.Join(err, printJSON(env.Out, r))
	} else {
		err = errors.Join(err, r.Write(env.Out))
	}
	if err == nil && !r.Healthy {
		err = &Exit{Code: ExitDegraded}
	}
	return err
}

// shell runs a command of the operator. What it prints goes to standard error.
func shell(ctx context.Context, env Env, command string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdout, cmd.Stderr = env.Err, env.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
