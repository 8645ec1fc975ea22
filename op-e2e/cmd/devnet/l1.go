package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	oplog "github.com/ethereum-optimism/optimism/op-service/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// An L1 of its own listens at the ports that L1s have; they are the image's.
var (
	l1GenesisFlag = &cli.PathFlag{Name: "genesis", EnvVars: env("L1_GENESIS"), Usage: "L1 genesis file.", TakesFile: true}
	l1DataFlag    = &cli.PathFlag{Name: "datadir", EnvVars: env("L1_DATADIR"), Usage: "Directory that keeps L1; it goes on from there."}
	l1AddrFlag    = &cli.StringFlag{Name: "addr", EnvVars: env("L1_ADDR"), Value: "127.0.0.1", Usage: "Address to listen on."}
	l1HTTPFlag    = &cli.IntFlag{Name: "http.port", EnvVars: env("L1_HTTP_PORT"), Value: 8545, Usage: "Port of the RPC, HTTP and WebSocket; 0: a free one."}
	l1BeaconFlag  = &cli.IntFlag{Name: "beacon.port", EnvVars: env("L1_HTTP_BEACON_PORT"), Value: 5052, Usage: "Port of the beacon API; 0: a free one."}
	l1TimeFlag    = &cli.Uint64Flag{Name: "block-time", EnvVars: env("L1_BLOCK_TIME"), Value: 2, Usage: "Seconds between blocks, at least 2."}
)

var l1Command = &cli.Command{
	Name: "l1", Usage: "run L1 alone, with its beacon API, until it is interrupted", Action: l1,
	Flags: []cli.Flag{l1GenesisFlag, l1DataFlag, l1AddrFlag, l1HTTPFlag, l1BeaconFlag, l1TimeFlag, logLevelFlag},
}

// l1 logs to the standard output: it is a container's.
func l1(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: expected only flags", c.Args().First())
	}
	for _, f := range []*cli.PathFlag{l1GenesisFlag, l1DataFlag} {
		if c.Path(f.Name) == "" {
			return fmt.Errorf("--%s: missing", f.Name)
		}
	}
	level, err := oplog.LevelFromString(c.String(logLevelFlag.Name))
	if err != nil {
		return fmt.Errorf("--%s: %w", logLevelFlag.Name, err)
	}
	data, err := os.ReadFile(c.Path(l1GenesisFlag.Name))
	if err != nil {
		return fmt.Errorf("--%s: %w", l1GenesisFlag.Name, err)
	}
	genesis := new(core.Genesis)
	if err := json.Unmarshal(data, genesis); err != nil {
		return fmt.Errorf("--%s: %w", l1GenesisFlag.Name, err)
	}
	l := log.NewLogger(log.NewTerminalHandlerWithLevel(c.App.Writer, level, false))
	log.SetDefault(l)
	chain, err := devnet.StartL1(devnet.L1Config{
		Dir: c.Path(l1DataFlag.Name), Genesis: genesis, Host: c.String(l1AddrFlag.Name), BlockTime: c.Uint64(l1TimeFlag.Name),
		HTTPPort: c.Int(l1HTTPFlag.Name), WSPort: c.Int(l1HTTPFlag.Name), BeaconPort: c.Int(l1BeaconFlag.Name), Log: l,
	})
	if err != nil {
		return err
	}
	l.Info("L1 runs", "rpc", chain.HTTP(), "beacon", chain.Beacon(), "chain", genesis.Config.ChainID)
	<-c.Done()
	return chain.Close()
}

// reportsDir is where reports go by default.
var reportsDir = filepath.Join("build", "reports")
