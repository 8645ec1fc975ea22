package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// healthTime bounds the check. It is below the timeout of the image's HEALTHCHECK, so that
// the reason is told.
const healthTime = 4 * time.Second

var healthRPCFlag = &cli.StringFlag{
	Name: "rpc", Value: "http://127.0.0.1:8570", EnvVars: []string{flags.EnvVarPrefix + "_HEALTHCHECK_RPC"},
	Usage: "sharedseq RPC of the op-node that is asked.",
}

// healthcheckCommand is for whoever restarts processes, the image's HEALTHCHECK for instance.
func healthcheckCommand() *cli.Command {
	return &cli.Command{
		Name: "healthcheck", Usage: "say by the exit code whether an op-node with the shared sequencer answers and its agreement runs; that a chain is not ready is no failure",
		Flags: []cli.Flag{healthRPCFlag}, Action: healthcheck, HideHelpCommand: true,
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return fmt.Errorf("%w (see op-node healthcheck --help)", err)
		},
	}
}

func healthcheck(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: expected only flags", c.Args().First())
	}
	ctx, cancel := context.WithTimeout(c.Context, healthTime)
	defer cancel()
	url := c.String(healthRPCFlag.Name)
	client, err := rpc.Dial(ctx, url)
	if err != nil {
		return fmt.Errorf("--%s: %w", healthRPCFlag.Name, err)
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		return fmt.Errorf("op-node at %s: %w", url, err)
	}
	if st.Agreement != nil && !st.Agreement.Running {
		return errors.New("op-node at " + url + ": the agreement with the other operators has ended")
	}
	return nil
}
