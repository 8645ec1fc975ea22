// Package judge lets users send valid and invalid cross-chain messages over three rollups, and
// holds what the sequencer made of them against upstream's own verification, op-supernode.
//
// At first the operators are honest: every valid message is to be executed, every invalid one
// refused, and op-supernode must not invalidate anything. Then one operator, whose power is
// enough to agree alone, forces invalid messages into blocks: the other has to refuse each,
// and op-supernode has to invalidate exactly those blocks.
package judge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
)

// Config says what is done. Start with DefaultConfig.
type Config struct {
	// Devnet is what it is done to; what its operators do is the judge's.
	Devnet devnet.Config
	// Duration is for how long, from when the devnet runs. Most of it is the traffic's.
	Duration time.Duration
	// Seed decides what is sent, where to, and which messages are forced.
	Seed uint64
	// Forced is how many blocks are forced. 0: as many as fit, and minForced at least.
	Forced int
	// Out is told what happens, a line at a time.
	Out io.Writer
	Log log.Logger
}

// Chains is how many rollups the judge is for.
const Chains = 3

const (
	minForced = 3
	loadRate  = 5 // plain transfers a second, to each chain
)

// DefaultConfig is three rollups and two operators, of which the first can agree alone.
func DefaultConfig(out io.Writer, l log.Logger) Config {
	dc := devnet.DefaultConfig(l)
	dc.Chains = []uint64{901, 902, 903}
	return Config{Devnet: Prepare(dc), Duration: 5 * time.Minute, Seed: 1, Out: out, Log: l}
}

// Prepare gives a devnet the operators and the settings that the judge is for.
func Prepare(dc devnet.Config) devnet.Config {
	// More than two thirds. Turns go by power: neither operator leads the same part of every
	// slot.
	dc.Operators, dc.Powers, dc.NoProposer = operatorsInAll, []uint64{liar: 5, honest: 2}, true
	// Short, so that messages expire; valid ones are executed within a slot or two.
	dc.MessageExpiry = 30
	// The machine may be busy: a leader that is only slow is given its time.
	dc.Sequencer = func(s *config.SharedSequencer) { s.Agreement.TimeoutPropose = time.Second }
	return dc
}

func (c *Config) check() error {
	switch {
	case len(c.Devnet.Chains) != Chains:
		return fmt.Errorf("chains %v: the judge is for %d", c.Devnet.Chains, Chains)
	case c.Devnet.Operators != operatorsInAll || c.Devnet.Separate || c.Devnet.MessageExpiry == 0:
		return fmt.Errorf("the judge is for %d operators in this process, and messages that expire", operatorsInAll)
	case c.Duration <= 0 || c.Forced < 0:
		return fmt.Errorf("%v, %d forced blocks: expected more than 0, and 0 or more", c.Duration, c.Forced)
	case c.Out == nil || c.Log == nil:
		return errors.New("the judge has nowhere to say what happens")
	}
	return nil
}

// How long things may take. All are many times what they take when nothing is wrong.
const (
	startTime  = 5 * time.Minute // the devnet
	settleTime = 3 * time.Minute // all chains, until they are verified or on time
	stopTime   = time.Minute
)

// Run judges. The report says whether all is well; an error means that there is none.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	r := &run{
		cfg: cfg, begin: time.Now(), rng: rand.New(rand.NewPCG(cfg.Seed, 0)),
		rep: &Report{
			Counts: Counts{Refused: map[string]int{}, Findings: []string{}}, Ways: map[string]int{}, Forgeries: map[string]int{}, Rounds: []Round{},
			Seed: cfg.Seed, Minutes: cfg.Duration.Minutes(), Chains: cfg.Devnet.Chains, Powers: cfg.Devnet.Powers, MessageExpiry: cfg.Devnet.MessageExpiry,
		},
	}
	if err := r.all(ctx); err != nil {
		r.fail("%v", err)
	}
	return r.rep, nil
}

// run is a judge at work.
type run struct {
	cfg   Config
	begin time.Time
	rng   *rand.Rand
	rep   *Report

	d         *devnet.Devnet
	witnesses [operatorsInAll]*witness
	forger    *forger
	heads     *heads
	traffic   *traffic
	forced    []*forced
}

func (r *run) say(format string, args ...any) {
	t := time.Since(r.begin).Round(time.Second)
	fmt.Fprintf(r.cfg.Out, "%02d:%02d  %s\n", int(t.Minutes()), int(t.Seconds())%60, fmt.Sprintf(format, args...))
}

func (r *run) fail(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	r.say("FAILED: %s", why)
	r.rep.Errors = append(r.rep.Errors, why)
}

// all starts the devnet, judges, and stops it.
func (r *run) all(ctx context.Context) (err error) {
	dc := r.cfg.Devnet
	for i := range r.witnesses {
		r.witnesses[i] = newWitness()
	}
	r.forger = newForger(r.witnesses[honest])
	dc.OperatorOptions = func(i int, o *service.Options) {
		o.Machine = r.witnesses[i].wrap
		if i == liar {
			o.Machine, o.Tamper = func(m rotation.Machine) rotation.Machine { return r.forger.wrap(r.witnesses[i].wrap(m)) }, r.forger.tamper
		}
	}
	r.say("starting L1, %d rollups, %d operators, batchers", len(dc.Chains), dc.Operators)
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if r.d, err = devnet.Start(starting, dc); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		err = errors.Join(err, r.d.Stop(stopping))
	}()
	// A part that ends by itself ends everything.
	running, fail := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case err := <-r.d.Failed():
			fail(err)
		case <-running.Done():
		}
	}()
	defer func() { fail(nil); <-watched }()

	// What went wrong is told, and then what there is is looked at all the same.
	if err := r.phases(running); err != nil {
		r.fail("%v", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.say("stopping; reading what op-supernode has invalidated")
	return r.verdict(ctx)
}

// phases are the traffic and the forced blocks.
func (r *run) phases(ctx context.Context) (err error) {
	r.heads = watchHeads(r.d)
	defer r.heads.close()
	if r.traffic, err = newTraffic(ctx, r.d, time.Duration(r.cfg.Devnet.MessageExpiry)*time.Second, r.cfg.Seed, r.cfg.Log); err != nil {
		return err
	}
	defer r.traffic.close()
	if err := r.lockstep(ctx); err != nil {
		return err
	}
	load, err := r.d.StartLoad(loadRate)
	if err != nil {
		return err
	}
	defer func() {
		load.Stop()
		for _, chain := range r.d.Chains() {
			r.rep.Transfers += load.Sent(chain)
		}
	}()
	end := time.Now().Add(r.cfg.Duration)
	if err := r.honestly(ctx, r.cfg.Duration*3/5); err != nil {
		return err
	}
	if err := r.dishonestly(ctx, end); err != nil {
		return err
	}
	r.say("waiting until op-supernode has verified what is left")
	if _, err := r.verified(ctx); err != nil {
		return err
	}
	return r.gone(ctx)
}

// honestly has users send messages for some time, and counts what became of them.
func (r *run) honestly(ctx context.Context, d time.Duration) error {
	r.say("users send valid and invalid messages for %s", d.Round(time.Second))
	sending, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if err := r.traffic.send(sending); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.say("%d tries; waiting until op-supernode has verified all blocks", len(r.traffic.attempts))
	upTo, err := r.verified(ctx)
	if err != nil {
		return err
	}
	if err := r.compare(ctx, upTo); err != nil {
		return err
	}
	in, err := r.executedMessages(ctx, upTo)
	if err != nil {
		return err
	}
	c := &r.rep.Counts
	c.countTraffic(r.traffic.attempts, in)
	for _, a := range r.traffic.attempts {
		r.rep.Ways[a.way] += a.messages
		if a.forged != nil {
			r.rep.Forgeries[a.forged.name] += a.messages
		}
	}
	r.say("%d messages sent: %d executed in the same slot, %d later, %d refused; %d blocks compared, %d replaced",
		c.Sent, c.ExecutedSameSlot, c.ExecutedLater, c.refusals(), r.rep.Blocks, c.Replaced)
	return nil
}

// dishonestly forces invalid messages into blocks, one after the other.
func (r *run) dishonestly(ctx context.Context, end time.Time) error {
	var kinds []*forgery
	for _, f := range forgeries() {
		if f.forcible() {
			kinds = append(kinds, f)
		}
	}
	r.rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	r.say("operator %d forces invalid messages into blocks", liar)
	more := func(n int) bool {
		if r.cfg.Forced > 0 {
			return n < r.cfg.Forced
		}
		return n < minForced || time.Now().Before(end)
	}
	for i := 0; more(i); i++ {
		if err := r.force(ctx, kinds[i%len(kinds)], r.d.Chains()[i%Chains]); err != nil {
			return err
		}
	}
	return nil
}

// verdict stops the operators and counts what was refused and invalidated.
func (r *run) verdict(ctx context.Context) error {
	lists := make([][]deniedBlock, len(r.d.Operators()))
	for i, o := range r.d.Operators() {
		stopping, cancel := context.WithTimeout(ctx, stopTime)
		err := o.Stop(stopping)
		cancel()
		if err != nil {
			r.fail("%v", err)
		}
		for _, chain := range r.d.Chains() {
			l, err := readDenyList(o, chain)
			if err != nil {
				return fmt.Errorf("deny list of chain %d of operator %d: %w", chain, i, err)
			}
			lists[i] = append(lists[i], l...)
		}
	}
	r.rep.countForced(r.forced, lists)
	for _, f := range r.forced {
		r.rep.round(f)
	}
	for i, w := range r.witnesses {
		for _, bad := range w.refused() {
			if !slices.ContainsFunc(r.forced, func(f *forced) bool { return f.tx == bad.Tx }) {
				r.rep.find(&r.rep.Contested, 1, "contested", "operator %d refused a proposal: %v", i, bad)
			}
		}
	}
	return nil
}
