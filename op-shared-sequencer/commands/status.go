package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/overview"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

var (
	watchFlag    = &cli.BoolFlag{Name: "watch", Usage: "Go on until it is interrupted: redrawn on a terminal, else a line per change (with --json a JSON object).", EnvVars: envVars("watch")}
	intervalFlag = &cli.DurationFlag{Name: "interval", Usage: "How often --watch asks.", Value: time.Second, EnvVars: envVars("interval")}
	maxLagFlag   = &cli.DurationFlag{Name: "max-lag", Usage: "Degraded if a chain's unsafe head is further behind the clock. 0: never.", Value: 10 * time.Second, EnvVars: envVars("max-lag")}
	maxSafeFlag  = &cli.DurationFlag{Name: "max-safe-lag", Usage: "Degraded if a chain's cross-safe head is further behind the clock. 0: never. How far it is depends on how often batches are posted.", EnvVars: envVars("max-safe-lag")}
	turnsFlag    = &cli.Uint64Flag{Name: "turns", Usage: "How many of the next leaders are shown.", Value: 4, EnvVars: envVars("turns")}
)

func statusCommand(env Env, t *terminal) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "how slots, leaders, chains, bundles and operators stand, and what is wrong",
		Description: "Exit code 0 if all is well, 3 if the operator does not answer, 4 if something is wrong.",
		Flags:       flagSet(rpcFlag, nodeRPCFlag, timeoutFlag, jsonFlag, watchFlag, intervalFlag, maxLagFlag, maxSafeFlag, turnsFlag),
		Action: func(c *cli.Context) error {
			if err := onlyFlags(c); err != nil {
				return err
			}
			if c.Duration(intervalFlag.Name) <= 0 {
				return usage("--%s: %s: expected more than zero", intervalFlag.Name, c.Duration(intervalFlag.Name))
			}
			if n := c.Uint64(turnsFlag.Name); n == 0 || n > rpc.MaxTurns {
				return usage("--%s: %d: expected 1 to %d", turnsFlag.Name, n, rpc.MaxTurns)
			}
			client, err := dial(c.Context, c)
			if err != nil {
				return err
			}
			defer client.Close()
			take := takes(env, c, client)
			if c.Bool(watchFlag.Name) {
				return watch(c, t, take)
			}
			o, err := take(c.Context)
			if err != nil {
				return called(err)
			}
			if c.Bool(jsonFlag.Name) {
				err = printJSON(t.out, o)
			} else {
				err = o.Write(t.out, t.style())
			}
			if err == nil && !o.Healthy {
				err = &Exit{Code: ExitDegraded}
			}
			return err
		},
	}
}

// takes gives overviews as the flags want them.
func takes(env Env, c *cli.Context, client *rpc.Client) func(context.Context) (*overview.Overview, error) {
	timeout := c.Duration(timeoutFlag.Name)
	taker := &overview.Taker{
		Sequencer: client, Turns: c.Uint64(turnsFlag.Name), Now: env.Now,
		Limits: overview.Limits{Lag: c.Duration(maxLagFlag.Name), SafeLag: c.Duration(maxSafeFlag.Name)},
	}
	if url := c.String(nodeRPCFlag.Name); url != "" {
		taker.Node = overview.NewRPC(url, timeout)
	}
	return func(ctx context.Context) (*overview.Overview, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return taker.Take(ctx)
	}
}

// watch goes on until the context ends. An operator that does not answer is waited for.
func watch(c *cli.Context, t *terminal, take func(context.Context) (*overview.Overview, error)) error {
	ticker := time.NewTicker(c.Duration(intervalFlag.Name))
	defer ticker.Stop()
	asJSON := c.Bool(jsonFlag.Name)
	if t.fancy && !asJSON {
		fmt.Fprint(t.out, "\x1b[2J")
	}
	last := ""
	for {
		o, err := take(c.Context)
		if c.Err() != nil {
			return nil
		}
		line := ""
		if err != nil {
			if rpc.ErrorCode(err) == 0 {
				err = fmt.Errorf("no answer: %w", err)
			}
			line = oneLine(err)
		} else {
			line = o.Line()
		}
		now := time.Now().UTC().Format(time.TimeOnly)
		switch {
		case asJSON && err == nil && line != last:
			err = json.NewEncoder(t.out).Encode(o)
		case asJSON && line != last:
			err = json.NewEncoder(t.out).Encode(map[string]string{"error": line})
		case asJSON:
			err = nil
		case t.fancy:
			var b strings.Builder
			if err != nil {
				fmt.Fprintf(&b, "%s  %s\n", now, t.style().Bad(line))
			} else {
				fmt.Fprintf(&b, "%s UTC  %s\n\n", now, c.String(rpcFlag.Name))
				_ = o.Write(&b, t.style())
			}
			err = t.redraw(b.String())
		case line != last:
			_, err = fmt.Fprintln(t.out, now, line)
		default:
			err = nil
		}
		last = line
		if err != nil {
			return err
		}
		select {
		case <-c.Done():
			return nil
		case <-ticker.C:
		}
	}
}

var countFlag = &cli.Uint64Flag{Name: "count", Usage: "How many turns.", Value: 10, EnvVars: envVars("count")}

func leadersCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "leaders", Usage: "who makes the next subblocks, and when",
		Flags: flagSet(rpcFlag, timeoutFlag, jsonFlag, countFlag),
		Action: func(c *cli.Context) error {
			if err := onlyFlags(c); err != nil {
				return err
			}
			n := c.Uint64(countFlag.Name)
			if n == 0 || n > rpc.MaxTurns {
				return usage("--%s: %d: expected 1 to %d", countFlag.Name, n, rpc.MaxTurns)
			}
			return withClient(c, func(ctx context.Context, client *rpc.Client) error {
				turns, err := client.LeaderSchedule(ctx, n)
				if err != nil {
					return called(err)
				}
				set, err := client.Operators(ctx)
				if err != nil && rpc.ErrorCode(err) != rpc.CodeUnavailable {
					return called(err)
				}
				alone := err != nil
				names := overview.Names(set)
				out := []overview.Turn{}
				for _, turn := range turns {
					out = append(out, overview.NewTurn(turn, names))
				}
				if c.Bool(jsonFlag.Name) {
					return printJSON(env.Out, out)
				}
				if alone {
					_, err := fmt.Fprintln(env.Out, "this operator is alone and leads every slot")
					return err
				}
				return writeTurns(env, out)
			})
		},
	}
}

func writeTurns(env Env, turns []overview.Turn) error {
	var errs []error
	for _, t := range turns {
		at := "behind: as soon as it can"
		if t.At != nil {
			at = t.At.Format("15:04:05.000") + fmt.Sprintf(" UTC (in %s)", t.At.Sub(env.Now()).Round(10*time.Millisecond))
		}
		_, err := fmt.Fprintf(env.Out, "%-10d %-20s %s  %s\n", t.Height, t.Name, t.Leader, at)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
