package sim

import "time"

// network is between the operators.
type network struct {
	loss, twice int         // percent
	slow        int         // percent of messages that take long
	island      map[int]int // the part of a split network that an operator is in
	eclipse     eclipse
}

// eclipse is the worst that can happen to a lock: one operator decides, nobody hears of it,
// and one of the others does not even know that there was something to decide.
type eclipse struct {
	who, blind    int
	decides, ends time.Duration // until when votes reach only who, and until when it is cut off
}

// hides says whether a message does not come through.
func (e *eclipse) hides(now time.Duration, from, to int, m any) bool {
	if now >= e.ends {
		return false
	}
	if from == e.who || (to == e.who && now >= e.decides) {
		return true
	}
	v, ok := m.(*vote)
	return ok && now < e.decides && to != e.who && (v.kind == precommit || to == e.blind)
}

// send takes a message to another operator, if nothing happens to it.
func (o *operator) send(to int, m any) {
	s := o.s
	n := &s.net
	if s.rng.Intn(100) < n.loss {
		s.count["messages lost"]++
		return
	}
	copies := 1
	if s.rng.Intn(100) < n.twice {
		s.count["messages doubled"]++
		copies = 2
	}
	target := s.ops[to]
	for range copies {
		delay := s.between(2, 40)
		if s.rng.Intn(100) < n.slow {
			s.count["messages delayed"]++
			delay += s.between(50, 2000)
		}
		s.schedule(s.now+o.clock.ahead+delay, nil, func() {
			if n.island[o.index] != n.island[to] || n.eclipse.hides(s.now, o.index, to, m) {
				s.count["messages cut off"]++
				return
			}
			if target.up {
				s.schedule(s.now, target, func() { target.receive(m) })
			}
		})
	}
}

func (o *operator) broadcast(m any) {
	for i := range o.s.ops {
		if i != o.index {
			o.send(i, m)
		}
	}
}

func (o *operator) receive(m any) {
	if b, ok := m.(*sentBundle); ok {
		o.take(b)
		return
	}
	o.c.on(m)
}

// split cuts the network in parts for a while, or one operator off when it has decided.
func (s *sim) split(d time.Duration) {
	n := &s.net
	if s.chance(50) {
		p := s.rng.Perm(len(s.ops))
		n.eclipse = eclipse{who: p[0], blind: p[1], decides: s.now + s.between(300, 1500), ends: s.now + d + 1500*time.Millisecond}
		s.count["eclipses"]++
		s.trace(nil, "operator %d is eclipsed, operator %d blind, for %v", p[0], p[1], d)
		return
	}
	n.island = map[int]int{}
	for i := range s.ops {
		n.island[i] = s.rng.Intn(2)
	}
	s.count["network splits"]++
	s.trace(nil, "network is split: %v", n.island)
	s.schedule(s.now+d, nil, func() {
		n.island = nil
		s.trace(nil, "network is whole")
	})
}
