package sequencer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// pollReady is how often chains that are not ready are looked at again. Two virtual
// nodes become ready milliseconds apart; nothing tells when.
const pollReady = 20 * time.Millisecond

// member is a chain that can be built on, and where.
type member struct {
	*chain
	node *node
	head eth.L2BlockRef
}

// next is the timestamp of the chain's next block.
func (m *member) next() sequence.Slot { return sequence.Slot(m.head.Time + m.rollup.BlockTime) }

// Next waits until there is a subblock to propose.
func (s *Sequencer) Next(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.turn.Lock()
		if s.current != nil {
			s.turn.Unlock()
			return nil
		}
		p := s.choose(s.gather(nil))
		s.turn.Unlock()
		if len(p.members) > 0 {
			return nil
		}
		_ = s.clock.SleepCtx(ctx, p.pause)
	}
}

// Due is when the next subblock is to be proposed.
func (s *Sequencer) Due(ready []sequence.ChainID) time.Time {
	s.mu.Lock()
	sl := s.current
	var index uint64
	if sl != nil {
		index = sl.next()
	}
	s.mu.Unlock()
	if sl != nil {
		return s.times(sl.time, sl.interval(), index).Cut
	}
	members, _, _ := s.look(ready)
	p := s.choose(members, false)
	if len(p.members) > 0 {
		m := p.members[0]
		return s.times(m.next(), time.Duration(m.rollup.BlockTime)*time.Second, 0).Cut
	}
	// Nothing can be built yet: the earliest that will be, if any chain is ready.
	var due time.Time
	for _, m := range members {
		if t := s.times(m.next(), time.Duration(m.rollup.BlockTime)*time.Second, 0).Cut; due.IsZero() || t.Before(due) {
			due = t
		}
	}
	if now := s.clock.Now(); due.Before(now) {
		return now.Add(pollReady)
	}
	return due
}

// Ready names the chains that can be built on here.
func (s *Sequencer) Ready() []sequence.ChainID {
	members, _, _ := s.look(nil)
	out := make([]sequence.ChainID, 0, len(members))
	for _, m := range members {
		out = append(out, m.id)
	}
	return out
}

// SetChains names the chains that take part from the next slot on.
func (s *Sequencer) SetChains(chains []sequence.ChainID) error {
	for _, c := range s.chains {
		was, is := c.member.Load(), slices.Contains(chains, c.id)
		if was != is {
			s.log.Info("Chain of the set", "chain", c.id, "member", is)
		}
		c.member.Store(is)
	}
	for _, id := range chains {
		if s.byID[id] == nil {
			return fmt.Errorf("chain %s takes part in the set, and this operator is not configured for it: "+
				"it cannot verify the chain's blocks until it is", id)
		}
	}
	return nil
}

// absence is a chain that cannot be built on, and why.
type absence struct {
	*chain
	why string
}

// look looks at all chains of the set: those that can be built on, and why the others
// cannot. It changes nothing and waits for nothing.
func (s *Sequencer) look(quorum []sequence.ChainID) (ready []*member, absent []absence, reasons []string) {
	quorum = s.fresh(quorum)
	for _, c := range s.chains {
		if !c.member.Load() {
			continue
		}
		m, why := s.lookAt(c)
		if why == "" && quorum != nil && !slices.Contains(quorum, c.id) {
			why = tooFew
		}
		if why == "" {
			ready = append(ready, m)
			if !c.onProbation() {
				continue
			}
			why = failedSlots
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", c.id, why))
		if why != switchedOff {
			absent = append(absent, absence{c, why})
		}
	}
	return ready, absent, reasons
}

// fresh is what a quorum said it can build on, nil when that is not known any more: it came
// with the votes for the subblock committed last. If too little was ready then, nothing may
// be proposed, and so nothing voted for; what has become ready since is not to wait for
// that for ever.
func (s *Sequencer) fresh(quorum []sequence.ChainID) []sequence.ChainID {
	longest := uint64(0)
	for _, c := range s.chains {
		longest = max(longest, c.rollup.BlockTime)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clock.Now().Sub(s.since) > time.Duration(longest)*time.Second+readyPatience {
		return nil
	}
	return quorum
}

// readyPatience is how much longer than a slot what operators said they can build on counts.
const readyPatience = time.Second

// gather is look for whoever is about to propose. wait is set while chains that are not
// ready are waited for; those that were waited for long enough are left out from here on.
func (s *Sequencer) gather(quorum []sequence.ChainID) (ready []*member, wait bool) {
	ready, absent, reasons := s.look(quorum)
	for _, m := range ready {
		if !m.onProbation() {
			m.leftOut.Store(false)
		}
	}
	absent = slices.DeleteFunc(absent, func(c absence) bool { return c.leftOut.Load() })
	if len(absent) == 0 || len(ready) == 0 {
		s.alone = s.clock.Now() // nobody waits
	}
	wait = len(absent) > 0 && s.clock.Now().Sub(s.alone) < s.cfg.Grace
	why := strings.Join(reasons, "; ")
	if why != s.waiting {
		if why == "" {
			s.log.Info("All chains are ready")
		} else {
			s.log.Info("Chains are not ready", "why", why)
		}
		s.waiting = why
	}
	if !wait {
		for _, c := range absent {
			c.leftOut.Store(true)
			s.metrics.ChainLeftOut(c.id, hindrance(c.why))
			s.log.Warn("Going on without a chain that is not ready; it catches up when it is", "chain", c.id, "waited", s.cfg.Grace, "why", why)
		}
	}
	return ready, wait
}

// lookAt says whether a chain can be built on, and where, or why it cannot.
func (s *Sequencer) lookAt(c *chain) (*member, string) {
	n := c.current()
	if n == nil {
		return nil, noDriver
	}
	head, why := n.ready()
	if why == "" {
		why = s.engineTrouble(c)
	}
	if why == "" && s.needsKeeping(c, n, head) {
		if why = c.reason(); why == "" {
			why = "what is kept of it here is brought in line with its head"
		}
	}
	if why != "" {
		c.wake() // not all of it is told by an event: that a block was invalidated is not
		return nil, why
	}
	return &member{chain: c, node: n, head: head}, ""
}

// pick is what to do next.
type pick struct {
	members []*member     // that build the next slot; none: wait
	newest  sequence.Slot // the slot that the chain furthest ahead has come to
	until   time.Time     // when the others need the time; zero: there is no hurry
	pause   time.Duration // how long to wait
}

// choose picks the chains of the next slot from those that are ready. All chains whose
// next block has the same timestamp build it together. A chain that is behind, or that
// failed its last slot, builds in slots of its own, in the time that those of the others leave.
func (s *Sequencer) choose(ready []*member, wait bool) pick {
	var sound, probation []*member
	for _, m := range ready {
		if m.onProbation() {
			probation = append(probation, m)
		} else {
			sound = append(sound, m)
		}
	}
	next := pick{pause: pollReady}
	if !wait {
		next = s.together(sound)
	}
	if len(next.members) > 0 {
		return next
	}
	for _, m := range probation {
		if now := s.clock.Now(); m.rests(now) || now.Before(time.Unix(int64(m.head.Time), 0)) {
			continue
		}
		alone := pick{members: []*member{m}, newest: m.next()}
		for _, o := range sound {
			alone.newest = max(alone.newest, o.next())
			if due := s.fillTime(o.next()); !wait && (alone.until.IsZero() || due.Before(alone.until)) {
				alone.until = due
			}
		}
		return alone
	}
	return next
}

// together picks from chains that may build with each other.
func (s *Sequencer) together(ready []*member) pick {
	if len(ready) == 0 {
		return pick{pause: pollReady}
	}
	first, last := ready[0], ready[0]
	for _, m := range ready[1:] {
		if m.next() < first.next() || (m.next() == first.next() && m.head.Time < first.head.Time) {
			first = m
		}
		if m.next() > last.next() || (m.next() == last.next() && m.head.Time > last.head.Time) {
			last = m
		}
	}
	slot := first.next()
	// With a shorter block time a chain has slots of its own without being behind.
	if first.head.Time < last.head.Time && s.due(last.next()) {
		slot = last.next() // the others do not wait for the one that is behind
	}
	p := pick{newest: last.next()}
	for _, m := range ready {
		if m.next() == slot {
			p.members = append(p.members, m)
		}
	}
	// No block is started more than its block time ahead, as upstream.
	ahead := time.Unix(int64(p.members[0].head.Time), 0).Add(-s.early(p.members[0])).Sub(s.clock.Now())
	if ahead > 0 {
		return pick{pause: min(ahead, pollReady)}
	}
	return p
}

// early is how long before the time of a chain's head its next block is begun, so that
// the first of several subblocks can be cut in time.
func (s *Sequencer) early(m *member) time.Duration {
	if s.cfg.Subblocks == 1 {
		return 0
	}
	return s.cfg.SealLead
}

// due says whether a slot is to be built now: not early, and not long overdue. When
// all chains are overdue, after a pause or a reset, the one furthest behind goes
// first, so that they meet again.
func (s *Sequencer) due(slot sequence.Slot) bool {
	now := s.clock.Now()
	return !now.Before(s.fillTime(slot)) && now.Before(time.Unix(int64(slot), 0).Add(overdue))
}

// overdue is how late a slot may be and still be built before those of chains that are further behind.
const overdue = 2 * time.Second

// fillTime is when a slot takes plain transactions from the pools at the latest: until then
// chains that are behind may build, also where fills begin earlier.
func (s *Sequencer) fillTime(slot sequence.Slot) time.Time {
	return time.Unix(int64(slot), 0).Add(-s.cfg.FillLead)
}

// FillLead is how long before a slot's timestamp this operator's next fill begins, if nothing is late.
func (s *Sequencer) FillLead() time.Duration { return s.cfg.SealLead + s.pace.window() }

var _ rotation.Machine = (*Sequencer)(nil)
