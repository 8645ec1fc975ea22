package drill

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// allFaults are the kills, then the other faults, one at a time.
func (r *run) allFaults(ctx context.Context) error {
	for i := range r.cfg.Kills {
		if err := r.kill(ctx, i); err != nil {
			return fmt.Errorf("kill %d of %d: %w", i+1, r.cfg.Kills, err)
		}
	}
	if r.cfg.Stop > 0 {
		if err := r.stopped(ctx); err != nil {
			return fmt.Errorf("operator stopped: %w", err)
		}
	}
	if r.cfg.Cut > 0 {
		f, err := r.absent(ctx, "cut off from the others", r.cfg.Cut,
			func(o *devnet.Operator) error { r.net.Set(o.Index(), true); return nil },
			func(o *devnet.Operator) error { r.net.Set(o.Index(), false); return nil })
		if r.rep.Partitioned = f; err != nil {
			return fmt.Errorf("operator cut off: %w", err)
		}
	}
	if r.cfg.Freeze > 0 {
		f, err := r.absent(ctx, "frozen", r.cfg.Freeze,
			func(o *devnet.Operator) error { return o.Signal(syscall.SIGSTOP) },
			func(o *devnet.Operator) error { return o.Signal(syscall.SIGCONT) })
		if r.rep.Frozen = f; err != nil {
			return fmt.Errorf("operator frozen: %w", err)
		}
	}
	return nil
}

// calmBefore is how long all has to be well before a fault, without the random part.
const calmBefore = time.Second

// ready waits until all is well, and then up to one slot more, by chance.
func (r *run) ready(ctx context.Context) error {
	for {
		if _, err := r.settled(ctx); err != nil {
			return err
		}
		if err := pause(ctx, calmBefore+time.Duration(r.rng.Int64N(int64(r.slot)))); err != nil {
			return err
		}
		if r.onTime() == nil {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// leader is who leads the subblock that is agreed on now, by one operator's word.
func (r *run) leader(ctx context.Context) (*devnet.Operator, uint64, error) {
	c, err := r.d.Operator(r.rng.IntN(len(r.d.Operators()))).Sequencer(ctx)
	if err != nil {
		return nil, 0, err
	}
	turns, err := c.LeaderSchedule(ctx, 1)
	if err != nil {
		return nil, 0, err
	}
	if len(turns) == 0 {
		return nil, 0, fmt.Errorf("the leader schedule is empty")
	}
	for _, o := range r.d.Operators() {
		if o.Address() == turns[0].Leader {
			return o, uint64(turns[0].Height), nil
		}
	}
	return nil, 0, fmt.Errorf("leader %s is no operator", turns[0].Leader)
}

// kill kills the leader, measures, and starts it again.
func (r *run) kill(ctx context.Context, i int) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	o, height, err := r.leader(ctx)
	if err != nil {
		return err
	}
	others := r.but(o.Index())
	at := time.Now()
	if err := o.Kill(); err != nil {
		return err
	}
	r.traffic.avoid(o.Index(), true)
	k := Kill{Operator: o.Index(), Height: height, PhaseMs: at.UnixMilli() % r.slot.Milliseconds()}
	gap, err := r.next(ctx, at, others)
	if err != nil {
		return err
	}
	k.GapMs = ms(gap)
	before, _ := last(r.heads.of(r.d.Chains()[0], others), at)
	k.Block = before.Number
	start := time.Now()
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := o.Start(starting); err != nil {
		return err
	}
	k.StartMs = ms(time.Since(start))
	voted, err := r.voting(ctx, o)
	if err != nil {
		return err
	}
	r.traffic.avoid(o.Index(), false)
	outage, err := r.commitGap(at, voted, others)
	if err != nil {
		return err
	}
	k.OutageMs, k.VotesMs = ms(outage), ms(voted.Sub(start))
	r.rep.Kills = append(r.rep.Kills, k)
	index := len(r.rep.Kills) - 1
	r.faults = append(r.faults, returned{o.Index(), start, voted, func(ms float64) { r.rep.Kills[index].VotesMs = ms }})
	r.summarize()
	r.say("kill %d of %d: operator %d at height %d, %d ms into the second: gap %.0f ms; until it votes again after %.1f s, worst %.0f ms (median gap so far %.0f ms)",
		i+1, r.cfg.Kills, k.Operator, k.Height, k.PhaseMs, k.GapMs, k.VotesMs/1000, k.OutageMs, r.rep.CommitGap.P50)
	return nil
}

// summarize makes the distributions of the kills so far.
func (r *run) summarize() {
	var gaps, outages, votes []time.Duration
	of := func(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
	for _, k := range r.rep.Kills {
		gaps, outages, votes = append(gaps, of(k.GapMs)), append(outages, of(k.OutageMs)), append(votes, of(k.VotesMs))
	}
	r.rep.CommitGap, r.rep.OutageGap, r.rep.VotesAgain = distribution(gaps), distribution(outages), distribution(votes)
}

// next waits for two more blocks of every chain after a fault, and gives the commit gap.
func (r *run) next(ctx context.Context, at time.Time, others []int) (time.Duration, error) {
	from := map[uint64]uint64{}
	for _, chain := range r.d.Chains() {
		b, _ := last(r.heads.of(chain, others), at)
		from[chain] = b.Number
	}
	waiting, cancel := context.WithTimeoutCause(ctx, blockTime, fmt.Errorf("it took more than %s", blockTime))
	defer cancel()
	if err := r.announced(waiting, others, from, 2); err != nil {
		return 0, fmt.Errorf("waiting for the next two blocks: %w", err)
	}
	return r.commitGap(at, at, others)
}

// voting waits until an operator votes again: it says so, it is where the others are, and
// its height goes on. It returns when it was seen there first.
func (r *run) voting(ctx context.Context, o *devnet.Operator) (time.Time, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it took more than %s", settleTime))
	defer cancel()
	var at time.Time
	var from uint64
	err := devnet.WaitFor(waiting, fmt.Sprintf("operator %d to vote", o.Index()), func(ctx context.Context) (bool, error) {
		h, err := votes(ctx, o)
		for _, i := range r.but(o.Index()) {
			if err != nil {
				break
			}
			var other uint64
			if other, err = votes(ctx, r.d.Operator(i)); err == nil && h+1 < other {
				err = fmt.Errorf("operator %d is at height %d, operator %d at %d", o.Index(), h, i, other)
			}
		}
		if err != nil {
			at = time.Time{}
			return false, err
		}
		if at.IsZero() {
			at, from = time.Now(), h
		}
		return h > from, nil
	})
	return at, err
}

// somebody is whom a fault meets.
func (r *run) somebody() *devnet.Operator { return r.d.Operator(r.rng.IntN(len(r.d.Operators()))) }

// stopped stops an operator cleanly for a while.
func (r *run) stopped(ctx context.Context) error {
	f, err := r.absent(ctx, "stopped", r.cfg.Stop,
		func(o *devnet.Operator) error {
			stopping, cancel := context.WithTimeout(ctx, stopTime)
			defer cancel()
			return o.Stop(stopping)
		},
		func(o *devnet.Operator) error {
			starting, cancel := context.WithTimeout(ctx, startTime)
			defer cancel()
			return o.Start(starting)
		})
	r.rep.Stopped = f
	return err
}

// absent takes an operator away for a while and brings it back.
func (r *run) absent(ctx context.Context, what string, long time.Duration, away, back func(*devnet.Operator) error) (*Fault, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	o := r.somebody()
	others := r.but(o.Index())
	r.say("operator %d is %s for %s", o.Index(), what, long)
	f := &Fault{Operator: o.Index(), ForMs: long.Milliseconds()}
	at := time.Now()
	r.traffic.avoid(o.Index(), true)
	if err := away(o); err != nil {
		return f, err
	}
	gap, err := r.next(ctx, at, others)
	if err == nil {
		f.FirstGap = ms(gap)
		err = pause(ctx, max(0, long-time.Since(at)))
	}
	start := time.Now()
	if err := back(o); err != nil {
		return f, err
	}
	if err != nil {
		return f, err
	}
	voted, err := r.voting(ctx, o)
	if err != nil {
		return f, err
	}
	r.traffic.avoid(o.Index(), false)
	if gap, err = r.commitGap(at, voted, others); err != nil {
		return f, err
	}
	f.Gap, f.VotesAgain, f.Lateness = ms(gap), ms(voted.Sub(start)), spread(r.lateness(at, voted, others))
	r.faults = append(r.faults, returned{o.Index(), start, voted, func(ms float64) { f.VotesAgain = ms }})
	r.say("first gap %.0f ms, worst %.0f ms; it votes again %.1f s after it is back", f.FirstGap, f.Gap, f.VotesAgain/1000)
	return f, nil
}

// votes puts the moments of the first votes after each fault in, as the ledgers have them.
// What is seen from outside is not as exact.
func (r *run) votes(ledgers [][]slot) {
	for _, f := range r.faults {
		if at, ok := firstVote(ledgers, r.d.Operator(f.operator).Address(), f.back, r.slot/2); ok {
			f.set(ms(at.Sub(f.back)))
		}
	}
	r.summarize()
}

// firstVote is the first vote of an operator after a time, by its own clock, that came
// together with those of the others: what it votes for while it catches up does not count.
// All operators' ledgers are looked at, as one has only the votes that came in time.
func firstVote(ledgers [][]slot, operator common.Address, after time.Time, together time.Duration) (time.Time, bool) {
	var first time.Time
	for _, l := range ledgers {
		for _, s := range l {
			o, ok := s.Agreement.Set.Operator(operator)
			if !ok {
				continue
			}
			voter := ed25519.PubKey(o.ConsensusKey[:]).Address()
			for _, c := range s.Agreement.Votes {
				var own, others time.Time // the others' latest
				for _, sig := range c.Signatures {
					switch {
					case sig.BlockIDFlag != cmttypes.BlockIDFlagCommit:
					case bytes.Equal(sig.ValidatorAddress, voter):
						own = sig.Timestamp
					case sig.Timestamp.After(others):
						others = sig.Timestamp
					}
				}
				if own.After(after) && own.Before(others.Add(together)) && (first.IsZero() || own.Before(first)) {
					first = own
				}
			}
		}
	}
	return first, !first.IsZero()
}
