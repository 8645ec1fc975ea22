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
		members, pause := s.choose(ready, wait)
		release(ready, members)
		if len(members) == 0 {
			_ = s.clock.SleepCtx(ctx, pause)
			continue
		}
		s.begin(members)
		return rotation.Turn{Slot: s.current.time}, nil
	}
}

// gather borrows all chains that can be built on and brings what is kept of them
// here in line with them. wait is set while others are waited for.
func (s *Sequencer) gather(ctx context.Context) (ready []*member, wait bool) {
	var reasons []string
	absent := false // not ready, and neither by an operator's will
	for _, c := range s.chains {
		m, why := s.lookAt(ctx, c)
		if why == "" {
			ready = append(ready, m)
			continue
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", c.id, why))
		absent = absent || why != switchedOff
	}
	now := s.clock.Now()
	if !absent {
		s.complete = now
	}
	why := strings.Join(reasons, "; ")
	if why != s.waiting {
		if why == "" {
			s.log.Info("All chains are ready")
		} else {
			s.log.Info("Chains are not ready", "why", why)
		}
		s.waiting = why
	}
	return ready, absent && now.Sub(s.complete) < s.cfg.Grace
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
	if why == "" {
		m := &member{chain: c, node: n, head: head}
		if err := s.reconcile(ctx, m); err == nil {
			return m, ""
		} else {
			why = err.Error()
		}
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

// choose picks the chains of the next slot from those that are ready, or says how
// long to wait. All chains whose next block has the same timestamp build it together.
// A chain that is behind catches up in slots of its own, in the time the slots of
// the others leave.
func (s *Sequencer) choose(ready []*member, wait bool) (members []*member, pause time.Duration) {
	if len(ready) == 0 || wait {
		return nil, pollReady
	}
	first, last := ready[0].next(), ready[0].next()
	for _, m := range ready[1:] {
		first, last = min(first, m.next()), max(last, m.next())
	}
	slot := first
	if first != last && s.due(last) {
		slot = last // the others do not wait for the one that is behind
	}
	for _, m := range ready {
		if m.next() == slot {
			members = append(members, m)
		}
	}
	// No block is started more than its block time ahead, as upstream.
	ahead := time.Unix(int64(members[0].head.Time), 0).Sub(s.clock.Now())
	if ahead > 0 {
		return nil, min(ahead, pollReady)
	}
	return members, 0
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

// begin makes the members' slot the current one.
func (s *Sequencer) begin(members []*member) {
	ctx, cancel := context.WithCancel(s.life)
	sl := &slot{s: s, time: members[0].next(), ctx: ctx}
	for _, m := range members {
		sl.blocks = append(sl.blocks, &block{member: m, resets: m.node.resets()})
	}
	s.current = sl
	s.bundles.Advance(sl.time)
	s.mu.Lock()
	s.cancel = cancel
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
	s.cancel = nil
	s.mu.Unlock()
	cancel()
	sl.discard()
	for _, b := range sl.blocks {
		b.giveBack()
	}
}
