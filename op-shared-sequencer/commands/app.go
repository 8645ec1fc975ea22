// Package commands is bin/op-shared-sequencer: what operators of a set do beside running a
// node, and how bundles are sent by hand.
package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	opservice "github.com/ethereum-optimism/optimism/op-service"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// EnvVarPrefix starts the environment variables of the flags.
const EnvVarPrefix = "OP_SHARED_SEQUENCER"

// Exit codes. They do not change.
const (
	ExitOK          = 0
	ExitFailed      = 1 // it was done and failed, or was refused
	ExitUsage       = 2 // the arguments are wrong
	ExitUnreachable = 3 // an operator's RPC does not answer
	ExitDegraded    = 4 // it answers, and something is wrong: status, drill, audit
	ExitExpired     = 5 // bundle: it expired
	ExitUndone      = 6 // bundle: it was executed, and its blocks were replaced
	ExitPending     = 7 // bundle: it has not ended
	ExitCancelled   = 8 // bundle: it was taken back, or replaced by another
)

const exitCodes = `0  all is well
1  it failed or was refused, a bundle failed, a configuration has mistakes
2  the arguments are wrong
3  the operator's RPC does not answer
4  degraded: status, drill or audit found something that is not as it should be
5  a bundle expired
6  a bundle was executed, and its blocks were replaced
7  a bundle has not ended
8  a bundle was cancelled, or replaced by another`

// Env is where the command runs.
type Env struct {
	Out, Err io.Writer
	In       io.Reader
	Getenv   func(string) string
	Now      func() time.Time
	Version  string
}

// Exit is an error with the code the process ends with.
type Exit struct {
	Code int
	Err  error // nil: everything was said
}

func (e *Exit) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Exit) Unwrap() error { return e.Err }

// usage is a mistake in the arguments.
func usage(format string, args ...any) error { return &Exit{ExitUsage, fmt.Errorf(format, args...)} }

// called gives an error of a call its code: what the server says is a failure, anything
// else means that it could not be asked.
func called(err error) error {
	if err == nil || rpc.ErrorCode(err) != 0 {
		return err
	}
	return &Exit{ExitUnreachable, err}
}

// Run runs the command and returns its exit code.
func Run(ctx context.Context, args []string, env Env) int {
	err := newApp(env).RunContext(ctx, args)
	if err == nil {
		return ExitOK
	}
	code := ExitFailed
	var exit *Exit
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
	}
	fmt.Fprintln(env.Err, "op-shared-sequencer:", oneLine(err))
	return code
}

func newApp(env Env) *cli.App {
	app := cli.NewApp()
	app.Name = "op-shared-sequencer"
	app.Usage = "Look at a shared sequencer, send bundles to it, and run an operator of it"
	app.Description = "Exit codes:\n" + exitCodes
	app.Version = env.Version
	app.Writer, app.ErrWriter, app.Reader = env.Out, env.Err, env.In
	app.EnableBashCompletion = true
	app.HideHelpCommand = true
	app.ExitErrHandler = func(*cli.Context, error) {} // Run's
	app.Action = noCommand
	t := newTerminal(env)
	app.Commands = []*cli.Command{
		statusCommand(env, t), leadersCommand(env), bundleCommand(env),
		keysCommand(env, t), genesisCommand(env), operatorsCommand(env, t), snapshotCommand(),
		checkConfigCommand(env), drillCommand(env, t), auditCommand(env), arrivalsCommand(env), completionCommand(),
	}
	mend(app.Commands, app.Name)
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		return usage("%w (see %s --help)", err, app.Name)
	}
	return app
}

// mend makes every command answer a mistake with the mistake.
func mend(list []*cli.Command, path string) {
	for _, c := range list {
		c.HideHelpCommand = true
		name := path + " " + c.Name
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return usage("%w (see %s --help)", err, name)
		}
		if len(c.Subcommands) > 0 {
			c.Action = noCommand
		}
		mend(c.Subcommands, name)
	}
}

// noCommand answers when no command was named, or one that is not there.
func noCommand(c *cli.Context) error {
	var names []string
	for _, sub := range c.Command.Subcommands {
		names = append(names, sub.Name)
	}
	expected := strings.Join(names, ", ")
	if c.NArg() > 0 {
		return usage("%q is not a command: expected one of %s", c.Args().First(), expected)
	}
	return usage("no command: expected one of %s", expected)
}

// envVars are a flag's environment variables, in upstream's form.
func envVars(name string) []string {
	return []string{opservice.FlagNameToEnvVarName(name, EnvVarPrefix)}
}

// onlyFlags refuses arguments that are none.
func onlyFlags(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("%q is not a flag: expected only flags", c.Args().First())
	}
	return nil
}

// Flags of several commands.
var (
	rpcFlag = &cli.StringFlag{Name: "rpc", Usage: "sharedseq RPC of an operator.", Value: "http://127.0.0.1:8570", EnvVars: envVars("rpc")}
	// nodeRPCFlag's default is that of op-node's --rpc.port.
	nodeRPCFlag = &cli.StringFlag{Name: "node-rpc", Usage: "RPC of the same operator's op-node, which serves each chain under /<chainID>. Empty: safe and finalized heads are not asked for.",
		Value: "http://127.0.0.1:8545", EnvVars: envVars("node-rpc")}
	timeoutFlag  = &cli.DurationFlag{Name: "timeout", Usage: "How long an answer is waited for.", Value: 10 * time.Second, EnvVars: envVars("timeout")}
	jsonFlag     = &cli.BoolFlag{Name: "json", Usage: "Print JSON, of the shape that docs/cli.md gives.", EnvVars: envVars("json")}
	dataDirFlag  = &cli.PathFlag{Name: "data-dir", Usage: "The operator's --shared-sequencer.data-dir.", EnvVars: envVars("data-dir")}
	passwordFlag = &cli.PathFlag{Name: "password-file", Usage: "File whose first line is the password of the keys. Without it, it is asked for on a terminal.", TakesFile: true, EnvVars: envVars("password-file")}
)

// dial connects to the operator that the flags name.
func dial(ctx context.Context, c *cli.Context) (*rpc.Client, error) {
	client, err := rpc.Dial(ctx, c.String(rpcFlag.Name))
	if err != nil {
		return nil, &Exit{ExitUnreachable, fmt.Errorf("--%s: %w", rpcFlag.Name, err)}
	}
	return client, nil
}

// withClient is for one or a few calls that take --timeout together.
func withClient(c *cli.Context, f func(context.Context, *rpc.Client) error) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(timeoutFlag.Name))
	defer cancel()
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	return f(ctx, client)
}

// oneLine joins the lines of an error that holds several.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// exists says whether there is something at a path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// flagSet is a command's flags: clones, because parsing keeps in a flag whether it was set.
func flagSet(flags ...cli.Flag) []cli.Flag { return cloneFlags(slices.Clone(flags)) }
