package commands

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/preflight"
)

var (
	onlineFlag = &cli.BoolFlag{Name: "online", Usage: "Also ask L1 and the engines whether they are of the right chains.", EnvVars: envVars("online")}
	portsFlag  = &cli.BoolFlag{Name: "ports", Usage: "Also see whether the ports are free. Off, for an op-node that runs.", Value: true, EnvVars: envVars("ports")}
	pidFlag    = &cli.IntFlag{Name: "pid", Usage: "Take the flags and the environment of this process, an op-node that runs; in its container it is 1. Ports are not looked at."}
)

func checkConfigCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "check-config", Usage: "say what is wrong with op-node's flags and environment, without starting it", ArgsUsage: "-- <op-node's flags>",
		Description: "A line for each mistake. What is only remarkable is a warning. Nothing is written. Exit code 1 if there are mistakes.",
		Flags:       flagSet(onlineFlag, portsFlag, pidFlag, timeoutFlag, jsonFlag),
		Action: func(c *cli.Context) error {
			args, ports := c.Args().Slice(), c.Bool(portsFlag.Name)
			if c.IsSet(pidFlag.Name) {
				if len(args) > 0 {
					return usage("flags behind -- and --%s: only one of them says what to check", pidFlag.Name)
				}
				var err error
				if args, err = adopt(c.Int(pidFlag.Name)); err != nil {
					return err
				}
				ports = false
			}
			found := preflight.Check(c.Context, args, preflight.Options{
				Online: c.Bool(onlineFlag.Name), Ports: ports, Timeout: c.Duration(timeoutFlag.Name), Getenv: env.Getenv,
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

// adopt takes over environment and working directory of an op-node that runs, and returns the
// flags that it was started with.
func adopt(pid int) ([]string, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	// Not procfs: it takes empty arguments away at the end.
	line, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	environ, err2 := p.Environ()
	dir, err3 := p.Cwd()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("flags and environment of process %d: %w", pid, err)
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if name := filepath.Base(args[0]); name != "op-node" {
		return nil, fmt.Errorf("process %d is %q: expected op-node; give its flags behind --", pid, name)
	}
	os.Clearenv()
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			if err := os.Setenv(name, value); err != nil {
				return nil, fmt.Errorf("environment variable %s of process %d: %w", name, pid, err)
			}
		}
	}
	if err := os.Chdir(dir); err != nil {
		return nil, fmt.Errorf("working directory of process %d: %w", pid, err)
	}
	return args[1:], nil
}
