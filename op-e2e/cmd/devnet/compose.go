package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/compose"
)

// composeTime bounds what looks at a devnet or stops it: many times what it takes. What waits for it has bounds
// of its own.
const composeTime = 20 * time.Minute

func composeEnv(name string) []string { return env("COMPOSE_" + name) }

var (
	composeDirFlag = &cli.PathFlag{Name: "dir", EnvVars: composeEnv("DIR"), Value: filepath.Join("build", "compose"), Usage: "Directory of the devnet's files."}
	projectFlag    = &cli.StringFlag{Name: "project", EnvVars: composeEnv("PROJECT"), Value: "sharedseq", Usage: "docker compose's name for the devnet."}
	countFlag      = &cli.IntFlag{Name: "chains", EnvVars: composeEnv("CHAINS"), Value: 2, Usage: "How many rollups; their chain IDs are 901 and what follows."}
	membersFlag    = &cli.IntFlag{Name: "operators", EnvVars: composeEnv("OPERATORS"), Value: 4, Usage: "How many operators; 1 sequences alone."}
	portBaseFlag   = &cli.IntFlag{Name: "port-base", EnvVars: composeEnv("PORT_BASE"), Value: compose.DefaultPortBase, Usage: "First of the ports that are published on 127.0.0.1."}
	tagFlag        = &cli.StringFlag{Name: "tag", EnvVars: composeEnv("TAG"), Value: "dev", Usage: "Tag of the images."}
	monitoringFlag = &cli.PathFlag{Name: "monitoring", EnvVars: composeEnv("MONITORING"), Value: "ops", Usage: "Directory with prometheus/ and grafana/, for the profile " + compose.Profile + "."}
	followFlag     = &cli.BoolFlag{Name: "follow", Usage: "Go on with what is logged."}
	tailFlag       = &cli.IntFlag{Name: "tail", Value: 100, Usage: "How many lines of each container."}
	smokeFlag      = &cli.PathFlag{Name: reportFlag.Name, EnvVars: composeEnv("REPORT"), Value: filepath.Join(reportsDir, "compose.json"), Usage: reportFlag.Usage}
)

var composeCommand = &cli.Command{
	Name: "compose", Usage: "a devnet whose components are containers",
	Action: func(c *cli.Context) error {
		expected := "expected check, generate, up, status, logs, bundle, smoke, add-operator, add-chain, stop or down"
		if c.NArg() > 0 {
			return fmt.Errorf("%q is not a command of compose: %s", c.Args().First(), expected)
		}
		return errors.New("no command: " + expected)
	},
	Subcommands: []*cli.Command{
		{Name: "check", Usage: "only say what is wrong with the flags", Action: composeCheck, Flags: composeFlags},
		{Name: "generate", Usage: "only write the files: genesis, keys, docker-compose.yml, .env", Action: composeGenerate, Flags: composeFlags},
		{Name: "up", Usage: "make a devnet, or go on with the one that is there, and wait until all operators take part", Action: composeUp, Flags: composeFlags},
		{Name: "status", Usage: "show containers, operators, heads and leaders", Flags: []cli.Flag{composeDirFlag}, Action: composeDo((*compose.Devnet).Status, composeTime)},
		{Name: "logs", Usage: "show what containers log", ArgsUsage: "[service]…", Flags: []cli.Flag{composeDirFlag, followFlag, tailFlag}, Action: composeLogs},
		{Name: "bundle", Usage: "print a signed bundle over all chains, for op-shared-sequencer bundle send", Flags: []cli.Flag{composeDirFlag}, Action: composeDo((*compose.Devnet).Bundle, composeTime)},
		{Name: "smoke", Usage: "bundles over all chains, and an operator that is killed and comes back", Flags: []cli.Flag{composeDirFlag, smokeFlag}, Action: composeSmoke},
		{Name: "add-operator", Usage: "start another operator and have the others take it into the set", Flags: []cli.Flag{composeDirFlag}, Action: composeDo((*compose.Devnet).AddOperator, 0)},
		{Name: "add-chain", Usage: "start another chain at all operators and have it join", Flags: []cli.Flag{composeDirFlag}, Action: composeDo((*compose.Devnet).AddChain, 0)},
		{Name: "stop", Usage: "stop the containers; up goes on with them", Flags: []cli.Flag{composeDirFlag}, Action: composeDo((*compose.Devnet).Stop, composeTime)},
		{Name: "down", Usage: "remove containers, volumes and files", Flags: []cli.Flag{composeDirFlag, projectFlag}, Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return compose.Down(c.Context, c.Path(composeDirFlag.Name), c.String(projectFlag.Name), c.App.Writer)
		}},
		{Name: "install-keys", Hidden: true, Usage: "put an operator's keys into its volume", Flags: []cli.Flag{fromFlag, toFlag}, Action: func(c *cli.Context) error {
			return compose.InstallKeys(c.Path(fromFlag.Name), c.Path(toFlag.Name))
		}},
	},
}

var (
	fromFlag = &cli.PathFlag{Name: "from", Required: true}
	toFlag   = &cli.PathFlag{Name: "to", Required: true}

	blobsFlag    = &cli.StringFlag{Name: daFlag.Name, EnvVars: composeEnv("DA"), Value: daFlag.Value, Usage: daFlag.Usage}
	composeFlags = []cli.Flag{composeDirFlag, projectFlag, countFlag, membersFlag, blobsFlag, portBaseFlag, tagFlag, artifactsFlag, monitoringFlag}
)

func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: expected only flags", c.Args().First())
	}
	return nil
}

func composeConfig(c *cli.Context) (compose.Config, error) {
	if err := noArguments(c); err != nil {
		return compose.Config{}, err
	}
	monitoring, err := filepath.Abs(c.Path(monitoringFlag.Name))
	if err != nil {
		return compose.Config{}, err
	}
	cfg := compose.Config{
		Chains: c.Int(countFlag.Name), Operators: c.Int(membersFlag.Name), PortBase: c.Int(portBaseFlag.Name),
		Project: c.String(projectFlag.Name), Tag: c.String(tagFlag.Name), Artifacts: c.String(artifactsFlag.Name), Monitoring: monitoring,
	}
	switch da := c.String(blobsFlag.Name); da {
	case "calldata":
	case "blobs":
		cfg.Blobs = true
	default:
		return cfg, fmt.Errorf("--%s: %q: expected calldata or blobs", blobsFlag.Name, da)
	}
	return cfg, cfg.Check()
}

func composeGenerate(c *cli.Context) error {
	cfg, err := composeConfig(c)
	if err != nil {
		return err
	}
	return compose.Generate(c.Context, c.Path(composeDirFlag.Name), cfg)
}

// composeCheck says what is wrong with what a devnet is asked for, before images are built for it.
func composeCheck(c *cli.Context) error {
	_, err := composeConfig(c)
	return err
}

func composeUp(c *cli.Context) error {
	cfg, err := composeConfig(c)
	if err != nil {
		return err
	}
	d, err := compose.Up(c.Context, c.Path(composeDirFlag.Name), cfg, c.App.Writer)
	if err != nil {
		return err
	}
	return d.Describe()
}

// composeDo is a command without arguments on a devnet that is there, within a time if that is not 0.
func composeDo(f func(*compose.Devnet, context.Context) error, within time.Duration) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := noArguments(c); err != nil {
			return err
		}
		ctx := c.Context
		if within > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, within)
			defer cancel()
		}
		d, err := compose.Open(ctx, c.Path(composeDirFlag.Name), c.App.Writer)
		if err != nil {
			return err
		}
		return f(d, ctx)
	}
}

func composeLogs(c *cli.Context) error {
	d, err := compose.Open(c.Context, c.Path(composeDirFlag.Name), c.App.Writer)
	if err != nil {
		return err
	}
	return d.Logs(c.Context, c.Bool(followFlag.Name), c.Int(tailFlag.Name), c.Args().Slice())
}

func composeSmoke(c *cli.Context) error {
	return composeDo(func(d *compose.Devnet, ctx context.Context) error {
		rep, err := d.Smoke(ctx)
		path := c.Path(smokeFlag.Name)
		if err := errors.Join(err, rep.Write(path)); err != nil {
			return fmt.Errorf("%w (report: %s)", err, path)
		}
		fmt.Fprintln(c.App.Writer, "report: "+path)
		return nil
	}, composeTime)(c)
}
