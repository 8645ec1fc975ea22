package main

import (
	"fmt"

	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	oplog "github.com/ethereum-optimism/optimism/op-service/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// operator is one operator's process. What it prints is for the devnet that started it.
func operator(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: expected only flags", c.Args().First())
	}
	dir, index := c.String(dataDirFlag.Name), c.Int(indexFlag.Name)
	if dir == "" {
		return fmt.Errorf("--%s: missing: expected the directory of a devnet that runs", dataDirFlag.Name)
	}
	file, name, err := devnet.OperatorLog(dir, index)
	if err != nil {
		return err
	}
	defer file.Close()
	level, err := oplog.LevelFromString(name)
	if err != nil {
		return fmt.Errorf("log level %q of operator %d: expected trace, debug, info, warn or error", name, index)
	}
	l := log.NewLogger(log.NewTerminalHandlerWithLevel(file, level, false))
	log.SetDefault(l)
	return devnet.RunOperator(c.Context, dir, index, l)
}
