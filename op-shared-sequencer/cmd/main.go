// Command op-shared-sequencer is for operators and senders: see package commands.
package main

import (
	"context"
	"os"
	"time"

	opservice "github.com/ethereum-optimism/optimism/op-service"
	"github.com/ethereum-optimism/optimism/op-service/ctxinterrupt"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/commands"
)

// Set by the linker.
var (
	Version   = "v0.1.0"
	GitCommit = ""
	GitDate   = ""
)

func main() {
	ctx := ctxinterrupt.WithSignalWaiterMain(context.Background())
	ctx = ctxinterrupt.WithCancelOnInterrupt(ctx)
	os.Exit(commands.Run(ctx, os.Args, commands.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now,
		Version: opservice.FormatVersion(Version, GitCommit, GitDate, ""),
	}))
}
