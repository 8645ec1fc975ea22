// Command devnet runs the whole system on one machine.
//
//	devnet up    runs it until it is interrupted
//	devnet demo  runs it, shows atomic bundles over two rollups, and reports
//	devnet drill kills leaders of four operators, and reports what users notice
//	devnet judge sends valid and invalid messages, and compares with op-supernode
//	devnet compose brings one up in containers, checks and changes it
//	devnet l1    runs its L1 alone
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	opservice "github.com/ethereum-optimism/optimism/op-service"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
)

// Set by the linker.
var (
	Version   = "v0.1.0"
	GitCommit = ""
	GitDate   = ""
)

func main() {
	service.KeepConnections()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := newApp(os.Stdout).RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "devnet: "+oneLine(err))
		os.Exit(1)
	}
}

// commands are those for people.
const commands = "up, demo, drill, judge, latency, bench, compose or l1"

func newApp(out io.Writer) *cli.App {
	app := cli.NewApp()
	app.Name = "devnet"
	app.Usage = "two or more rollups with one shared sequencer, on one machine"
	app.Writer, app.ErrWriter = out, io.Discard
	app.Version = opservice.FormatVersion(Version, GitCommit, GitDate, "")
	// One line instead of the help text: main prints it.
	usage := func(_ *cli.Context, err error, _ bool) error { return err }
	app.OnUsageError = usage
	app.ExitErrHandler = func(*cli.Context, error) {}
	app.Action = func(c *cli.Context) error {
		if c.NArg() > 0 {
			return fmt.Errorf("%q is not a command: expected %s", c.Args().First(), commands)
		}
		return errors.New("no command: expected " + commands)
	}
	app.Commands = []*cli.Command{
		{Name: "up", Usage: "run the devnet until it is interrupted", Flags: upFlags, Action: up, OnUsageError: usage},
		{Name: "demo", Usage: "run the devnet, show atomic bundles, report, and end", Flags: demoFlags, Action: demo, OnUsageError: usage},
	}
	// Not for people: `up --separate` starts it.
	app.Commands = append(app.Commands, &cli.Command{Name: "operator", Hidden: true, Usage: "be one operator of a devnet that runs", Flags: operatorFlags, Action: operator, OnUsageError: usage})
	app.Commands = append(app.Commands, drillCommands...)
	app.Commands = append(app.Commands, judgeCommand, latencyCommand, benchCommand, composeCommand, l1Command)
	for _, c := range slices.Concat(app.Commands, composeCommand.Subcommands) {
		c.HideHelpCommand, c.OnUsageError = true, usage
	}
	return app
}

// oneLine puts joined errors into one line.
func oneLine(err error) string {
	var parts []string
	for _, l := range strings.Split(err.Error(), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			parts = append(parts, l)
		}
	}
	return strings.Join(parts, "; ")
}
