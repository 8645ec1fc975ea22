// Command conductor-drill kills leaders of an op-conductor cluster and prints the commit
// gaps: of op-conductor as it comes, and of one with a shorter heartbeat.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/ethereum/go-ethereum/log"

	oplog "github.com/ethereum-optimism/optimism/op-service/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
)

// unit is the argument that makes this program an operator.
const unit = "unit"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == unit {
		return conductor.RunUnit(ctx, args[1], os.Stdout)
	}
	fs := flag.NewFlagSet("conductor-drill", flag.ContinueOnError)
	kills := fs.Int("kills", conductor.DefaultKills, "kills per tuning")
	seed := fs.Uint64("seed", 1, "seed of the moments of the kills")
	dir := fs.String("dir", "", "directory to keep data and logs in; default: none is kept")
	heartbeat := fs.Duration("heartbeat", 0, "measure only this raft heartbeat, with a lease of half of it")
	verbose := fs.Bool("v", false, "log what happens")
	if err := fs.Parse(args); err != nil {
		return err
	}
	tunings := []conductor.Tuning{conductor.Upstream(), conductor.Fast()}
	if *heartbeat != 0 {
		t := conductor.Upstream()
		t.Heartbeat, t.Lease = *heartbeat, *heartbeat/2
		tunings = []conductor.Tuning{t}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	level := log.LevelWarn
	if *verbose {
		level = log.LevelInfo
	}
	l := oplog.NewLogger(os.Stderr, oplog.CLIConfig{Level: level, Format: oplog.FormatLogFmt})
	for _, t := range tunings {
		res, err := conductor.Measure(ctx, conductor.Config{
			Kills: *kills, Seed: *seed, Dir: *dir, Unit: []string{self, unit}, Tuning: t, Log: l,
		})
		fmt.Printf("heartbeat %s, lease %s: %d kills, commit gap p50 %s, p99 %s, replaced blocks %d, unforced takeovers %d\n",
			t.Heartbeat, t.Lease, len(res.Kills), ms(res.P50), ms(res.P99), res.Replaced, res.Unforced)
		for _, k := range res.Kills {
			fmt.Printf("  %s -> %s: gap %s, building after %s, block after %s, well after %s\n",
				k.Leader, k.Successor, ms(k.Gap), ms(k.Elected), ms(k.Outage), ms(k.Recovered))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
