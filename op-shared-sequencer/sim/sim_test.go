package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seeds = flag.Int("seeds", 20, "how many seeds are run")
	one   = flag.Int64("seed", -1, "run this seed only")
)

func TestSim(t *testing.T) {
	if *one >= 0 {
		r, err := Run(*one, os.Stdout)
		t.Logf("%+v", r)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for seed := range int64(*seeds) {
		if _, err := Run(seed, nil); err != nil {
			t.Errorf("%v", err)
		}
	}
}

func TestSame(t *testing.T) {
	for seed := range int64(10) {
		a, errA := Run(seed, nil)
		b, errB := Run(seed, nil)
		if a.Hash != b.Hash || (errA == nil) != (errB == nil) {
			t.Errorf("seed %d: %x %v, then %x %v", seed, a.Hash, errA, b.Hash, errB)
		}
	}
}
