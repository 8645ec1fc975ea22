package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	oplog "github.com/ethereum-optimism/optimism/op-service/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

func env(name string) []string { return []string{"DEVNET_" + name} }

var (
	dataDirFlag = &cli.StringFlag{
		Name: "datadir", EnvVars: env("DATADIR"),
		Usage: "Directory that keeps the devnet; it goes on from there. Default: a temporary one.",
	}
	artifactsFlag = &cli.StringFlag{
		Name: "artifacts", EnvVars: env("ARTIFACTS"),
		Usage: "Directory of the built contracts' forge artifacts. Default: build/contracts of the repository around the working directory.",
	}
	chainsFlag = &cli.StringFlag{
		Name: "chains", EnvVars: env("CHAINS"), Value: "901,902",
		Usage: "Chain IDs of the rollups, separated by commas.",
	}
	l1BlockTimeFlag = &cli.Uint64Flag{Name: "l1.block-time", EnvVars: env("L1_BLOCK_TIME"), Value: 2, Usage: "Seconds between L1 blocks, at least 2."}
	l2BlockTimeFlag = &cli.Uint64Flag{Name: "l2.block-time", EnvVars: env("L2_BLOCK_TIME"), Value: 1, Usage: "Seconds between the rollups' blocks."}
	operatorsFlag   = &cli.IntFlag{Name: "operators", EnvVars: env("OPERATORS"), Value: 1, Usage: "How many operators agree on the slots; 1 is alone."}
	separateFlag    = &cli.BoolFlag{Name: "separate", EnvVars: env("SEPARATE"), Usage: "Run each operator in a process of its own."}
	subblocksFlag   = &cli.IntFlag{Name: "subblocks", EnvVars: env("SUBBLOCKS"), Usage: "In how many parts a slot is agreed on. 0: op-node's default."}
	enginesFlag     = &cli.StringFlag{Name: "engines", EnvVars: env("ENGINES"), Value: string(devnet.Embedded), Usage: "How the op-geths run: embedded or process."}
	gethFlag        = &cli.StringFlag{Name: "op-geth", EnvVars: env("OP_GETH"), Value: "bin/op-geth", Usage: "Patched op-geth, for --engines=process."}
	daFlag          = &cli.StringFlag{Name: "da", EnvVars: env("DA"), Value: "calldata", Usage: "Where batches are posted: calldata or blobs."}
	p2pFlag         = &cli.BoolFlag{Name: "p2p", EnvVars: env("P2P"), Usage: "Gossip unsafe blocks to peers."}
	loadFlag        = &cli.IntFlag{Name: "load", EnvVars: env("LOAD"), Usage: "Plain transfers per second sent to each rollup."}
	logFileFlag     = &cli.StringFlag{Name: "log.file", EnvVars: env("LOG_FILE"), Usage: "File for the log of all services. Default: devnet.log in the data directory."}
	logLevelFlag    = &cli.StringFlag{Name: "log.level", EnvVars: env("LOG_LEVEL"), Value: "info", Usage: "Least level that is logged: trace, debug, info, warn or error."}
	bundlesFlag     = &cli.IntFlag{Name: "bundles", EnvVars: env("BUNDLES"), Usage: "Bundles over the first two rollups sent per minute; every fourth reverts."}
	forFlag         = &cli.DurationFlag{Name: "for", EnvVars: env("FOR"), Usage: "Stop after this time. 0: run until interrupted."}

	l1PortFlag        = portFlag("l1.port", "L1_PORT", 8545, "L1 RPC")
	beaconPortFlag    = portFlag("l1.beacon-port", "L1_BEACON_PORT", 5052, "L1 beacon API")
	l2PortFlag        = portFlag("l2.port", "L2_PORT", 9545, "RPC of the first rollup; the others get the ports after it")
	nodePortFlag      = portFlag("node.port", "NODE_PORT", 7545, "op-node RPC")
	sequencerPortFlag = portFlag("sequencer.port", "SEQUENCER_PORT", 7546, "sharedseq RPC")
	statusPortFlag    = portFlag("status.port", "STATUS_PORT", 7547, "status page")
	metricsPortFlag   = &cli.IntFlag{Name: "metrics.port", EnvVars: env("METRICS_PORT"), Value: 7300, Usage: "Port of op-node's metrics; 0: none are served."}
	freePortsFlag     = &cli.BoolFlag{Name: "free-ports", EnvVars: env("FREE_PORTS"), Usage: "Listen on free ports instead of fixed ones."}

	reportFlag = &cli.StringFlag{Name: "report", EnvVars: env("REPORT"), Value: filepath.Join("build", "reports", "demo.json"), Usage: "File for the report."}
)

func portFlag(name, envName string, value int, of string) *cli.IntFlag {
	return &cli.IntFlag{Name: name, EnvVars: env(envName), Value: value, Usage: "Port of the " + of + "; 0: a free one."}
}

var commonFlags = []cli.Flag{
	dataDirFlag, artifactsFlag, l1BlockTimeFlag, l2BlockTimeFlag, operatorsFlag, separateFlag, subblocksFlag, enginesFlag, gethFlag, daFlag, logFileFlag, logLevelFlag,
}

var upFlags = slices.Concat(commonFlags, []cli.Flag{
	chainsFlag, p2pFlag, loadFlag, forFlag, l1PortFlag, beaconPortFlag, l2PortFlag, nodePortFlag, sequencerPortFlag, statusPortFlag, metricsPortFlag, freePortsFlag, bundlesFlag,
})

var indexFlag = &cli.IntFlag{Name: "index", Usage: "Which operator, from 0."}

// operatorFlags are of a command that devnet starts itself.
var operatorFlags = []cli.Flag{&cli.StringFlag{Name: dataDirFlag.Name, Usage: "Directory of the devnet."}, indexFlag}

var demoFlags = slices.Concat(commonFlags, []cli.Flag{loadFlag, reportFlag})

// baseConfig reads what up and demo have in common. The file is the log.
func baseConfig(c *cli.Context) (devnet.Config, *os.File, error) {
	fail := func(err error) (devnet.Config, *os.File, error) { return devnet.Config{}, nil, err }
	if c.NArg() > 0 {
		return fail(fmt.Errorf("%q is not a flag: expected only flags", c.Args().First()))
	}
	if n := c.Int(loadFlag.Name); n < 0 || n > 5000 {
		return fail(fmt.Errorf("--%s: %d: expected 0 to 5000 transfers per second", loadFlag.Name, n))
	}
	cfg := devnet.DefaultConfig(nil)
	cfg.Dir, cfg.Artifacts = c.String(dataDirFlag.Name), c.String(artifactsFlag.Name)
	cfg.L1BlockTime, cfg.L2BlockTime = c.Uint64(l1BlockTimeFlag.Name), c.Uint64(l2BlockTimeFlag.Name)
	cfg.Engines, cfg.Geth = devnet.EngineMode(c.String(enginesFlag.Name)), c.String(gethFlag.Name)
	cfg.Operators, cfg.Separate, cfg.Subblocks = c.Int(operatorsFlag.Name), c.Bool(separateFlag.Name), c.Int(subblocksFlag.Name)
	if cfg.Operators == 0 { // which means 1 in a Config
		return fail(fmt.Errorf("--%s: 0: expected 1 or more", operatorsFlag.Name))
	}
	switch da := c.String(daFlag.Name); da {
	case "calldata":
	case "blobs":
		cfg.Blobs = true
	default:
		return fail(fmt.Errorf("--%s: %q: expected calldata or blobs", daFlag.Name, da))
	}
	level, err := oplog.LevelFromString(c.String(logLevelFlag.Name))
	if err != nil {
		return fail(fmt.Errorf("--%s: %q: expected trace, debug, info, warn or error", logLevelFlag.Name, c.String(logLevelFlag.Name)))
	}
	cfg.LogLevel = c.String(logLevelFlag.Name)
	// Checked before anything is written.
	probe := cfg
	probe.Log = log.NewLogger(log.DiscardHandler())
	if err := probe.Check(); err != nil {
		return fail(err)
	}
	path := c.String(logFileFlag.Name)
	if path == "" {
		if cfg.Dir == "" {
			dir, err := os.MkdirTemp("", "devnet-")
			if err != nil {
				return fail(err)
			}
			cfg.Dir, cfg.RemoveDir = dir, true
		} else if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
			return fail(fmt.Errorf("--%s: %w", dataDirFlag.Name, err))
		}
		path = filepath.Join(cfg.Dir, "devnet.log")
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fail(fmt.Errorf("--%s: %w", logFileFlag.Name, err))
	}
	cfg.Log = log.NewLogger(log.NewTerminalHandlerWithLevel(file, level, false))
	log.SetDefault(cfg.Log) // geth and the fake proof of stake log there
	return cfg, file, nil
}

func parseChains(s string) ([]uint64, error) {
	var out []uint64
	for _, part := range strings.Split(s, ",") {
		id, err := strconv.ParseUint(strings.TrimSpace(part), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("--%s: %q: expected chain IDs in decimal, separated by commas", chainsFlag.Name, s)
		}
		if slices.Contains(out, id) {
			return nil, fmt.Errorf("--%s: chain %d is named twice", chainsFlag.Name, id)
		}
		out = append(out, id)
	}
	return out, nil
}

// parsePorts gives the fixed ports.
func parsePorts(c *cli.Context, chains []uint64) (devnet.Ports, error) {
	if c.Bool(freePortsFlag.Name) {
		return devnet.Ports{}, nil
	}
	used := map[int]string{}
	check := func(name string, port int) error {
		if port < 0 || port > math.MaxUint16 {
			return fmt.Errorf("--%s: %d: expected a port between 0 and %d", name, port, math.MaxUint16)
		}
		if other, taken := used[port]; taken && port != 0 {
			return fmt.Errorf("--%s: port %d is also that of --%s", name, port, other)
		}
		used[port] = name
		return nil
	}
	// Other operators' ports are this far behind those of the one before.
	p := devnet.Ports{Engines: map[uint64]int{}, Stride: max(10, len(chains))}
	for _, f := range []struct {
		flag *cli.IntFlag
		port *int
	}{
		{l1PortFlag, &p.L1}, {beaconPortFlag, &p.Beacon}, {nodePortFlag, &p.Node}, {sequencerPortFlag, &p.SharedSequencer}, {statusPortFlag, &p.Status},
		{metricsPortFlag, &p.Metrics},
	} {
		*f.port = c.Int(f.flag.Name)
		if err := check(f.flag.Name, *f.port); err != nil {
			return p, err
		}
	}
	first := c.Int(l2PortFlag.Name)
	for i, id := range chains {
		port := first
		if first != 0 {
			port += i
		}
		if err := check(l2PortFlag.Name, port); err != nil {
			return p, err
		}
		p.Engines[id] = port
	}
	return p, nil
}
