package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// plan is what a seed is about.
type plan struct {
	operators  int
	chains     int
	subblocks  int
	blockTimes []uint64
	l1Interval uint64
	storm      time.Duration // how long things go wrong
	calm       time.Duration // how long they have to be well again
	faults     faults
	changes    []change
}

// faults is what goes wrong in a run.
type faults struct {
	crashes  bool // of processes, with or without their engines
	network  bool // messages are lost, late, or come twice
	splits   bool // of the network
	lies     int  // operators that lie
	engines  bool // an engine is down, fails some calls, or loses blocks
	outage   bool // all engines of a chain are down for a while
	reorgs   bool // of L1
	drivers  bool // they reset, also within a call, and are switched off
	skewed   bool // clocks differ
	joins    bool // a chain leaves, and joins again
	allAtOne bool // what can hit several operators hits the leader
}

// change is of the chains that take part, in force behind the slot.
type change struct {
	slot    sequence.Slot
	members []sequence.ChainID
}

// draw makes the plan of the seed. One seed in eight has no faults.
func (s *sim) draw() plan {
	p := plan{
		operators: pick(s, 4, 4, 4, 4, 4, 4, 4, 5, 5, 7), chains: pick(s, 2, 2, 2, 3), subblocks: pick(s, 1, 1, 1, 2, 2, 5),
		blockTimes: []uint64{1, 1, pick[uint64](s, 1, 2)}, l1Interval: pick[uint64](s, 2, 2, 6),
		storm: s.between(9_000, 16_000), calm: 13 * time.Second,
	}
	if s.chance(12) {
		return p
	}
	f := &p.faults
	f.crashes, f.network, f.splits, f.engines = s.chance(40), s.chance(40), s.chance(20), s.chance(40)
	f.reorgs, f.drivers, f.skewed, f.joins = s.chance(40), s.chance(30), s.chance(30), s.chance(20)
	f.allAtOne = s.chance(50)
	f.outage = s.chance(15)
	if s.chance(50) {
		f.lies = (p.operators - 1) / 3
	}
	return p
}

func pick[T any](s *sim, of ...T) T { return of[s.rng.Intn(len(of))] }

// skew is how far an operator's clock is off: less than half of what operators put up with.
func (f *faults) skew(s *sim) time.Duration {
	if !f.skewed {
		return 0
	}
	return s.between(-200, 200)
}

// begin schedules the storm.
func (f *faults) begin(s *sim) {
	if f.lies > 0 {
		for _, i := range s.rng.Perm(len(s.ops))[:f.lies] {
			s.ops[i].lies = newLiar(s.ops[i])
		}
	}
	if f.network {
		s.net.loss, s.net.twice, s.net.slow = s.rng.Intn(15), s.rng.Intn(10), s.rng.Intn(10)
	}
	if f.drivers {
		for _, o := range s.ops {
			o.clock.waits = func() {
				o.mayDie(waiting)
				if s.stormy() && s.chance(3) {
					s.count["driver resets within a call"]++
					o.anyDriver().on(rollup.ResetEvent{Err: errors.New("within a call")})
				}
			}
		}
	} else if f.crashes {
		for _, o := range s.ops {
			o.clock.waits = func() { o.mayDie(waiting) }
		}
	}
	if f.joins {
		id := s.ids[s.rng.Intn(len(s.ids))]
		var others []sequence.ChainID
		for _, other := range s.ids {
			if other != id {
				others = append(others, other)
			}
		}
		at := sequence.Slot(epoch.Unix()) + sequence.Slot(3+s.rng.Intn(6))
		s.plan.changes = []change{{at, others}, {at + sequence.Slot(1+s.rng.Intn(5)), s.ids}}
	}
	if f.outage {
		s.schedule(s.between(3000, 6000), nil, s.outage)
	}
	for _, k := range []struct {
		on       bool
		low, top int
		do       func()
	}{
		{f.crashes, 500, 6000, s.crashOne}, {f.splits, 2000, 8000, func() { s.split(s.between(300, 5000)) }}, {f.engines, 300, 4000, s.breakEngine},
		{f.reorgs, 2500, 9000, s.reorgL1}, {f.drivers, 300, 4000, s.disturbDriver},
	} {
		if k.on {
			s.again(k.low, k.top, k.do)
		}
	}
}

// again does something now and then while the storm lasts.
func (s *sim) again(low, top int, do func()) {
	s.schedule(s.now+s.between(low, top), nil, func() {
		if s.stormy() {
			do()
			s.again(low, top, do)
		}
	})
}

func (s *sim) stormy() bool { return s.now < s.plan.storm }

// victim is whom a fault hits.
func (s *sim) victim() *operator {
	if s.plan.faults.allAtOne && s.chance(70) {
		h := uint64(len(s.check.decided)) + 1
		return s.ops[int(h%uint64(len(s.ops)))]
	}
	return s.ops[s.rng.Intn(len(s.ops))]
}

func (o *operator) anyDriver() *driver { return o.drivers[o.s.ids[o.s.rng.Intn(len(o.s.ids))]] }

// crashOne kills a process: now, or at a point in one of its next calls.
func (s *sim) crashOne() {
	o := s.victim()
	if !o.up {
		return
	}
	if s.chance(50) {
		o.dieAt = crashPoint(1 + s.rng.Intn(int(numCrashPoints)-1))
		return
	}
	s.count["crashes"]++
	o.crash()
	s.schedule(s.now+s.between(100, 5000), nil, o.start)
}

// breakEngine has an engine fail for a while.
func (s *sim) breakEngine() {
	o, id := s.victim(), s.ids[s.rng.Intn(len(s.ids))]
	e := o.engines[id]
	switch s.rng.Intn(3) {
	case 0:
		s.count["engines down"]++
		s.trace(o, "engine of chain %s is down", id)
		e.SetDown(true)
		s.schedule(s.now+s.between(200, 6000), nil, func() {
			e.Crash(s.rng.Intn(6))
			e.SetDown(false)
			s.trace(o, "engine of chain %s is up", id)
		})
	case 1:
		s.count["engines that lost blocks"]++
		lose := s.rng.Intn(8)
		s.trace(o, "engine of chain %s restarts and loses %d blocks", id, lose)
		e.Crash(lose)
	default:
		s.count["engines that failed a call"]++
		call := pick(s, "open", "execute", "savepoint", "rollback", "release", "result", "fill", "seal", "insert", "import", "setHead", "block", "blockByHash", "receipts", "head", "payload", "discard")
		left := 1 + s.rng.Intn(3)
		s.trace(o, "engine of chain %s fails the next %d calls of %s", id, left, call)
		e.SetHook(func(_ context.Context, name string) error {
			if name != call || left == 0 {
				return nil
			}
			left--
			return fmt.Errorf("%w: a fault", engine.ErrUnavailable)
		})
	}
}

// outage takes a chain's engines away from everyone. The other chains go on.
func (s *sim) outage() {
	id := s.ids[s.rng.Intn(len(s.ids))]
	s.count["chains down everywhere"]++
	s.trace(nil, "all engines of chain %s are down", id)
	for _, o := range s.ops {
		o.engines[id].SetDown(true)
	}
	d := s.between(3000, 9000)
	if f := s.plan.faults; f == (faults{outage: true, allAtOne: f.allAtOne}) {
		s.schedule(s.now+d, nil, func() { s.checkOthers(id, d) })
	}
	s.schedule(s.now+d, nil, func() {
		s.trace(nil, "all engines of chain %s are up", id)
		for _, o := range s.ops {
			o.engines[id].Crash(s.rng.Intn(4))
			o.engines[id].SetDown(false)
		}
	})
}

// checkOthers: chains whose engines work go on, once the one that fails was waited for.
func (s *sim) checkOthers(without sequence.ChainID, d time.Duration) {
	if d < s.core.Grace+4*time.Second {
		return
	}
	s.count["outages that the others were checked in"]++
	for _, id := range s.ids {
		if head := s.ops[0].drivers[id].head; id != without && head.Time+4 < uint64(epoch.Unix())+uint64(s.now.Seconds()) {
			s.fail("chain %s stands at %s while chain %s is down everywhere for %v; %s", id, head, without, d, s.state())
		}
	}
}

// reorgL1 replaces the newest L1 blocks. Operators learn of it at different times.
func (s *sim) reorgL1() {
	newest := l1Start + uint64(s.now/time.Second)/s.l1.interval
	from := max(l1Start+1, newest+1-uint64(1+s.rng.Intn(maxReorgDepth)))
	s.l1.reorg(from)
	s.count["L1 reorgs"]++
	branch := len(s.l1.branches) - 1
	s.trace(nil, "L1 is reorganised from block %d on, branch %d", from, branch)
	for _, o := range s.ops {
		s.schedule(s.now+s.between(0, 1200), nil, func() {
			o.view.branch = max(o.view.branch, branch)
			s.trace(o, "sees branch %d of L1", o.view.branch)
		})
	}
}

// disturbDriver has a driver reset, or switches it off for a while.
func (s *sim) disturbDriver() {
	o := s.victim()
	if !o.up {
		return
	}
	d := o.anyDriver()
	if s.chance(50) {
		s.schedule(s.now, o, func() { d.on(rollup.ResetEvent{Err: errors.New("disturbed")}) })
		return
	}
	s.count["chains switched off"]++
	s.schedule(s.now, o, func() {
		s.trace(o, "chain %s is switched off", d.id)
		if _, err := d.node.Stop(bg); err != nil && !errors.Is(err, sequencing.ErrSequencerAlreadyStopped) {
			s.fail("chain %s cannot be switched off: %v", d.id, err)
		}
		o.after(s.between(100, 5000), d.switchOn)
	})
}

func (d *driver) switchOn() {
	if !d.node.Active() {
		d.o.s.trace(d.o, "chain %s is switched on", d.id)
		if err := d.node.Start(bg, d.head.Hash); err != nil {
			d.o.s.fail("chain %s cannot be switched on: %v", d.id, err)
		}
	}
}

// calmDown ends the storm.
func (s *sim) calmDown() {
	s.trace(nil, "the storm is over")
	s.traffic.stopped = true
	s.net = network{}
	for _, o := range s.ops {
		o.clock.waits, o.dieAt = nil, nowhere
		for _, id := range s.ids {
			o.engines[id].SetHook(nil)
			o.engines[id].SetDown(false)
		}
		o.view.branch = len(s.l1.branches) - 1
		o.start()
		for _, id := range s.ids {
			o.after(time.Millisecond, o.drivers[id].switchOn)
		}
		if l := o.lies; l != nil && s.chance(50) {
			l.tired = true
		}
	}
}
