// Command op-node runs the rollup nodes of all chains of an operator in one process,
// with or without the shared sequencer.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	opservice "github.com/ethereum-optimism/optimism/op-service"
	"github.com/ethereum-optimism/optimism/op-service/cliapp"
	"github.com/ethereum-optimism/optimism/op-service/ctxinterrupt"
	oplog "github.com/ethereum-optimism/optimism/op-service/log"
	"github.com/ethereum-optimism/optimism/op-service/metrics/doc"
	snflags "github.com/ethereum-optimism/optimism/op-supernode/flags"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/metrics"
)

// Set by the linker.
var (
	Version   = "v0.1.0"
	GitCommit = ""
	GitDate   = ""
)

func main() {
	oplog.SetupDefaults()
	service.KeepConnections()
	ctx := ctxinterrupt.WithSignalWaiterMain(context.Background())
	if err := run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "op-node:", oneLine(err))
		os.Exit(1)
	}
}

// run is op-node with the given arguments, until it is interrupted or fails.
func run(ctx context.Context, args []string) error {
	app, err := newApp(args, start)
	if err != nil {
		return err
	}
	return app.RunContext(ctx, args)
}

// newApp makes the command line for the chains that the arguments name.
func newApp(args []string, start func(*cli.Context, *config.Config, log.Logger, context.CancelCauseFunc) (cliapp.Lifecycle, error)) (*cli.App, error) {
	chains, err := flags.ChainIDs(args, os.Getenv)
	if err != nil {
		return nil, err
	}
	app := cli.NewApp()
	app.Name = "op-node"
	app.Usage = "Rollup nodes of an interop set, sequenced together"
	app.Description = "Hosts an op-node for every chain, as op-supernode does, and with --shared-sequencer.enabled builds their blocks together: same timestamp, one order of transactions, cross-chain bundles all or nothing."
	app.Version = opservice.FormatVersion(Version, GitCommit, GitDate, "")
	app.Commands = []*cli.Command{movedCommand(), docCommand(), healthcheckCommand()}
	app.HideHelpCommand = true
	app.Flags = cliapp.ProtectFlags(flags.All(chains))
	// The help text has a thousand lines: a mistake is answered with the mistake.
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		return fmt.Errorf("%w (see op-node --help)", err)
	}
	app.Action = cliapp.LifecycleCmd(func(ctx *cli.Context, stop context.CancelCauseFunc) (cliapp.Lifecycle, error) {
		l := oplog.NewLogger(oplog.AppOut(ctx), oplog.ReadCLIConfig(ctx))
		oplog.SetGlobalLogHandler(l.Handler())
		opservice.ValidateEnvVars(snflags.EnvVarPrefix, app.Flags, l)
		for _, name := range flags.UnknownEnv(os.Environ()) {
			l.Warn("Unknown environment variable", "name", name)
		}
		cfg, err := config.FromCLI(ctx, l)
		if err != nil {
			return nil, err
		}
		return start(ctx, cfg, l, stop)
	})
	return app, nil
}

// movedCommand says where what operators do beside running a node is found.
func movedCommand() *cli.Command {
	return &cli.Command{
		Name: "operators", Usage: "see op-shared-sequencer: keys, genesis, operators and snapshot", SkipFlagParsing: true,
		Action: func(*cli.Context) error {
			return errors.New("operators: expected another program, op-shared-sequencer, with keys, genesis, operators or snapshot")
		},
	}
}

// docCommand lists the shared sequencer's metrics, as `op-batcher doc metrics` does its own.
func docCommand() *cli.Command {
	return &cli.Command{Name: "doc", Usage: "Lists what can be monitored", Subcommands: doc.NewSubcommands(metrics.New(nil))}
}

func start(_ *cli.Context, cfg *config.Config, l log.Logger, stop context.CancelCauseFunc) (cliapp.Lifecycle, error) {
	p := &process{log: l}
	s, err := service.New(l, cfg, service.Options{Version: Version, Commit: GitCommit, RequestStop: func(err error) {
		p.failure.CompareAndSwap(nil, &err)
		stop(err)
	}})
	p.Lifecycle = s
	return p, err
}

// process is a service whose end is told to the shell: an interrupt is no failure, also
// while it starts, and that it had to stop by itself is one.
type process struct {
	cliapp.Lifecycle
	log     log.Logger
	failure atomic.Pointer[error] // why it asked to be stopped
}

func (p *process) Start(ctx context.Context) error {
	err := p.Lifecycle.Start(ctx)
	if err != nil && ctx.Err() != nil && p.failure.Load() == nil {
		p.log.Info("Interrupted while starting", "err", err)
		return nil // ctx has ended: Stop is next
	}
	return err
}

func (p *process) Stop(ctx context.Context) error {
	err := p.Lifecycle.Stop(ctx)
	if f := p.failure.Load(); f != nil {
		return errors.Join(*f, err)
	}
	return err
}

// oneLine joins the lines of an error that holds several.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
