package sim

import "time"

// faults is what goes wrong in a run.
type faults struct{}

func (s *sim) draw() plan {
	p := plan{
		operators: 4, chains: 2, subblocks: []int{1, 1, 2, 5}[s.rng.Intn(4)], blockTimes: []uint64{1, 1, 1}, l1Interval: []uint64{2, 6}[s.rng.Intn(2)],
		storm: 20 * time.Second, calm: 10 * time.Second,
	}
	return p
}

func (f *faults) skew(s *sim) time.Duration { return 0 }

func (f *faults) schedule(s *sim) {}

// calmDown ends the storm.
func (s *sim) calmDown() {
	s.traffic.stopped = true
	s.net = network{}
	s.trace(nil, "the storm is over")
	for _, o := range s.ops {
		o.start()
	}
}

// liesOf is how an operator lies.
type liesOf interface {
	// propose sends something else than p; false if p is to be sent after all.
	propose(c *consensus, p *proposal) bool
	// vote sends something else than v.
	vote(c *consensus, v *vote) bool
}
