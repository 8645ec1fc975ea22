package sequencer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// pollReady is how often chains that are not ready are looked at again. Two virtual
// nodes become ready milliseconds apart; nothing tells when.
const pollReady = 20 * time.Millisecond

// member is one chain's part in a slot.
type member struct {
	*chain
	node *node
	head eth.L2BlockRef
}

// next is the timestamp of the chain's next block.
func (m *member) next() sequence.Slot { return sequence.Slot(m.head.Time + m.rollup.BlockTime) }

// Next waits until there is a slot to build and says which. The chains that take
// part in it are borrowed until the slot is committed or given up.
func (s *Sequencer) Next(ctx context.Context) (rotation.Turn, error) {
	s.giveUp()
	for {
		if err := ctx.Err(); err != nil {
			return rotation.Turn{}, err
		}
		ready, wait := s.gather(ctx)
		p := s.choose(ready, wait)
		release(ready, p.members)
		if len(p.members) == 0 {
			_ = s.clock.SleepCtx(ctx, p.pause)
			continue
		}
		s.begin(p)
		return rotation.Turn{Slot: s.current.time}, nil
	}
}

// gather borrows all chains that can be built on and brings what is kept of them
// here in line with them. wait is set while others are waited for.
func (s *Sequencer) gather(ctx context.Context) (ready []*member, wait bool) {
	var reasons []string
	var absent []*chain // not ready, neither by an operator's will nor left out already
	for _, c := range s.chains {
		m, why := s.lookAt(ctx, c)
		c.mu.Lock()
		c.why = why
		c.mu.Unlock()
		if why == "" {
			ready = append(ready, m)
			if !c.onProbation() {
				c.leftOut = false
				continue
			}
			why = "the last slots it was in failed because of it, it is tried alone"
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", c.id, why))
		if why != switchedOff && !c.leftOut {
			absent = append(absent, c)
		}
	}
	now := s.clock.Now()
	if len(absent) == 0 || len(ready) == 0 {
		s.alone = now // nobody waits
	}
	wait = len(absent) > 0 && now.Sub(s.alone) < s.cfg.Grace
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
			c.leftOut = true
			s.log.Warn("Going on without a chain that is not ready; it catches up when it is", "chain", c.id, "waited", s.cfg.Grace, "why", why)
		}
	}
	return ready, wait
}

// lookAt borrows a chain if it can be built on, or says why it cannot.
func (s *Sequencer) lookAt(ctx context.Context, c *chain) (*member, string) {
	n := c.borrow()
	if n == nil {
		return nil, noDriver
	}
	head, why := n.ready()
	if why == "" {
		why = s.engineTrouble(c)
	}
	if why != "" {
		s.forgetDenied(ctx, c, n)
	}
	if why == "" {
		why = s.checkMended(ctx, c, n, head)
	}
	if why == "" {
		m := &member{chain: c, node: n, head: head}
		err := s.reconcile(ctx, m)
		if err == nil {
			return m, ""
		}
		if engineFailed(err) {
			c.trouble.set(err)
		}
		why = err.Error()
	}
	c.giveBack()
	return nil, why
}

// release gives back the chains that were borrowed and take no part.
func release(ready, members []*member) {
	in := map[*chain]bool{}
	for _, m := range members {
		in[m.chain] = true
	}
	for _, m := range ready {
		if !in[m.chain] {
			m.giveBack()
		}
	}
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
		if now := s.clock.Now(); now.Before(m.retry) || now.Before(time.Unix(int64(m.head.Time), 0)) {
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
	ahead := time.Unix(int64(p.members[0].head.Time), 0).Sub(s.clock.Now())
	if ahead > 0 {
		return pick{pause: min(ahead, pollReady)}
	}
	return p
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

// fillTime is when a slot takes plain transactions from the pools.
func (s *Sequencer) fillTime(slot sequence.Slot) time.Time {
	return time.Unix(int64(slot), 0).Add(-s.cfg.FillLead)
}

// begin makes the slot that was picked the current one.
func (s *Sequencer) begin(p pick) {
	members := p.members
	ctx, cancel := context.WithCancel(s.life)
	if !p.until.IsZero() {
		cancel()
		ctx, cancel = context.WithTimeout(s.life, p.until.Sub(s.clock.Now()))
	}
	sl := &slot{s: s, time: members[0].next(), ctx: ctx, cancel: cancel, bounded: !p.until.IsZero()}
	in := map[*chain]bool{}
	for _, m := range members {
		sl.blocks = append(sl.blocks, &block{member: m, resets: m.node.resets()})
		in[m.chain] = true
	}
	s.current = sl
	s.bundles.Advance(p.newest) // a chain that catches up does not take the set back in time
	s.mu.Lock()
	s.cancel, s.inSlot = cancel, in
	s.mu.Unlock()
	// A signal between the look at the chain and now has not cancelled this slot yet.
	for _, b := range sl.blocks {
		if head, why := b.node.ready(); why != "" || head != b.head {
			cancel()
		}
	}
}

// giveUp drops the current slot and gives its chains back.
func (s *Sequencer) giveUp() {
	sl := s.current
	if sl == nil {
		return
	}
	s.current = nil
	s.mu.Lock()
	cancel := s.cancel
	s.cancel, s.inSlot = nil, nil
	s.mu.Unlock()
	cancel()
	sl.discard()
	for _, b := range sl.blocks {
		b.giveBack()
	}
}
