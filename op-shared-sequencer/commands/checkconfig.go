package commands

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/preflight"
)

var (
	onlineFlag = &cli.BoolFlag{Name: "online", Usage: "Also ask L1 and the engines whether they are of the right chains.", EnvVars: envVars("online")}
	portsFlag  = &cli.BoolFlag{Name: "ports", Usage: "Also see whether the ports are free. Off, for an op-node that runs.", Value: true, EnvVars: envVars("ports")}
)

func checkConfigCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "check-config", Usage: "say what is wrong with op-node's flags and environment, without starting it", ArgsUsage: "-- <op-node's flags>",
		Description: "A line for each mistake. What is only remarkable is a warning. Nothing is written. Exit code 1 if there are mistakes.",
		Flags:       flagSet(onlineFlag, portsFlag, timeoutFlag, jsonFlag),
		Action: func(c *cli.Context) error {
			found := preflight.Check(c.Context, c.Args().Slice(), preflight.Options{
				Online: c.Bool(onlineFlag.Name), Ports: c.Bool(portsFlag.Name), Timeout: c.Duration(timeoutFlag.Name), Getenv: env.Getenv,
			})
			mistakes := 0
			for _, f := range found {
				if !f.Warning {
					mistakes++
				}
			}
			if c.Bool(jsonFlag.Name) {
				if err := printJSON(env.Out, append([]preflight.Finding{}, found...)); err != nil {
					return err
				}
			} else {
				for _, f := range found {
					kind := "error"
					if f.Warning {
						kind = "warning"
					}
					fmt.Fprintf(env.Out, "%-8s %s\n", kind, f.Text)
				}
				if mistakes == 0 {
					fmt.Fprintln(env.Out, "ok       op-node can start with this")
				}
			}
			if mistakes > 0 {
				return &Exit{Code: ExitFailed}
			}
			return nil
		},
	}
}
