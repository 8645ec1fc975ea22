// Command sim runs the deterministic simulation of operators that agree with each other.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sim"
)

func main() {
	seeds := flag.Int("seeds", 2000, "how many seeds are run, from -from on")
	from := flag.Int64("from", 0, "the first seed")
	seed := flag.Int64("seed", -1, "run this seed only")
	verbose := flag.Bool("v", false, "with -seed: write what happens")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "seeds that run at a time")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *seeds, *from, *seed, *verbose, *workers, *profile)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, seeds int, from, seed int64, verbose bool, workers int, profile string) error {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if seed >= 0 {
		var out io.Writer
		if verbose {
			out = os.Stdout
		}
		r, err := sim.Run(seed, out)
		fmt.Printf("seed %d: hash %016x\n%s", seed, r.Hash, r.Counts)
		return err
	}
	debug.SetGCPercent(400) // runs are short and leave much behind
	_, err := sim.RunAll(ctx, sim.Batch{From: from, Seeds: seeds, Workers: workers, Out: os.Stdout})
	return err
}
