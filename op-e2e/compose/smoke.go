package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

// Report is what the smoke test writes.
type Report struct {
	Chains    []uint64 `json:"chains"`
	Operators int      `json:"operators"`
	Powers    []uint64 `json:"powers"`
	Tolerance string   `json:"tolerance"`
	Healthy   int      `json:"healthyContainers"`
	// BehindSeconds is how old the heads were at the beginning and at the end: a machine that
	// does much else does not keep up, and a start is caught up. No failure.
	BehindSeconds [2]int64 `json:"behindSeconds"`
	// Bundles are those that were executed, the last two while an operator was down and after.
	Bundles []BundleReport `json:"bundles"`
	// SameSlot: every bundle has all its transactions at one timestamp.
	SameSlot bool `json:"sameSlot"`
	// Outage is what an operator's end and return did. Absent if none can be missed.
	Outage   *Outage          `json:"outage,omitempty"`
	Skipped  string           `json:"skipped,omitempty"` // why, if something was
	Timings  map[string]int64 `json:"timingsMs"`
	Failures []string         `json:"failures"`
}

// BundleReport is a bundle as the chains show it.
type BundleReport struct {
	Name         string            `json:"name"`
	SentTo       int               `json:"sentToOperator"`
	Hash         common.Hash       `json:"hash"`
	Slot         uint64            `json:"slot"`
	Transactions []devnet.Executed `json:"transactions"`
}

// Outage is the time without one operator.
type Outage struct {
	Operator   int      `json:"operator"`
	Containers []string `json:"containers"`
	// SlotsWithout are by chain, in the time it was watched.
	SlotsWithout map[uint64]uint64 `json:"slotsWithout"`
	// MissedTurns of the operator, by the others' count, when it was started again.
	MissedTurns uint64 `json:"missedTurns"`
	// VotesAgainMs is from its start until it took part again, LeadsAgainMs until a turn of
	// its own was agreed on.
	VotesAgainMs int64 `json:"votesAgainMs"`
	LeadsAgainMs int64 `json:"leadsAgainMs"`
}

const (
	// smokeStep bounds each step: many times what it takes.
	smokeStep = 5 * time.Minute
	// slotsWithout is how many slots an operator is down for, at least.
	slotsWithout = 8
)

// smoke is one run of the smoke test.
type smoke struct {
	d     *Devnet
	r     *reach
	rep   *Report
	begin time.Time
	users uint64 // that bundles were sent from
}

// Smoke checks a devnet that runs: bundles over all chains in one slot, and that slots go on
// when an operator's containers are killed, which then comes back and leads. The report is
// whole as far as it got, also with an error.
func (d *Devnet) Smoke(ctx context.Context) (*Report, error) {
	l := d.layout
	s := &smoke{d: d, r: newReach(l), begin: time.Now(), rep: &Report{
		Chains: l.ChainIDs, Operators: len(l.Members), Powers: l.powers(), Tolerance: Tolerance(l.powers()),
		Bundles: []BundleReport{}, Timings: map[string]int64{}, Failures: []string{},
	}}
	defer s.r.close()
	err := s.run(ctx)
	s.rep.Timings["all"] = time.Since(s.begin).Milliseconds()
	if err != nil {
		s.rep.Failures = append(s.rep.Failures, err.Error())
	}
	return s.rep, err
}

// Write writes the report.
func (r *Report) Write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

func (s *smoke) say(format string, args ...any) {
	s.d.say("%6.1fs  %s", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (s *smoke) step(ctx context.Context, what string, f func(context.Context) error) error {
	start := time.Now()
	bounded, cancel := context.WithTimeout(ctx, smokeStep)
	defer cancel()
	err := f(bounded)
	s.rep.Timings[what] = time.Since(start).Milliseconds()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s *smoke) run(ctx context.Context) error {
	first := s.d.layout.Members[0].Number
	if err := s.step(ctx, "containers", s.containers); err != nil {
		return err
	}
	if err := s.step(ctx, "level", func(ctx context.Context) error { return s.r.awaitLevel(ctx, first) }); err != nil {
		return err
	}
	if err := s.noteBehind(ctx, 0, first); err != nil {
		return err
	}
	for _, m := range s.d.layout.Members {
		if err := s.step(ctx, fmt.Sprintf("bundle %d", m.Number), func(ctx context.Context) error {
			return s.bundle(ctx, "all operators up", m.Number)
		}); err != nil {
			return err
		}
	}
	victims := standsOut(s.d.layout.powers())
	if len(victims) == 0 {
		s.rep.Skipped = "no operator was killed: " + s.rep.Tolerance
		s.say("%s", s.rep.Skipped)
		return nil
	}
	if err := s.outage(ctx, s.d.layout.Members[victims[len(victims)-1]-1].Number, first); err != nil {
		return err
	}
	return s.noteBehind(ctx, 1, first)
}

func (s *smoke) noteBehind(ctx context.Context, at, number int) error {
	behind, err := s.r.behind(ctx, number)
	if err != nil {
		return err
	}
	s.rep.BehindSeconds[at] = int64(behind.Seconds())
	s.say("heads are %v old", behind)
	return nil
}

// containers waits until all of them are healthy.
func (s *smoke) containers(ctx context.Context) error {
	if err := s.d.running(ctx); err != nil {
		return err
	}
	return devnet.WaitFor(ctx, "all containers to be healthy", func(ctx context.Context) (bool, error) {
		all, err := s.d.docker.containers(ctx)
		if err != nil {
			return false, err
		}
		s.rep.Healthy = 0
		for _, c := range all {
			switch {
			case c.Healthy():
				s.rep.Healthy++
			case !c.Done():
				return false, fmt.Errorf("%s: %s", c.Service, c.Status)
			}
		}
		return true, nil
	})
}

// running says whether the containers are there at all.
func (d *Devnet) running(ctx context.Context) error {
	all, err := d.docker.containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.State == "running" {
			return nil
		}
	}
	return errors.New("the devnet does not run: make devnet-up starts it")
}

// crossing is a bundle over all chains: ETH goes from each chain to the next one, to an account
// that was never used, and is spent there. Also how many transactions it becomes.
func (d *Devnet) crossing(to devnet.BundleTarget, user devnet.Account) (*devnet.Bundle, int, error) {
	fresh, err := devnet.FreshAccount()
	if err != nil {
		return nil, 0, err
	}
	chains, milli, part := d.layout.ChainIDs, big.NewInt(1e15), big.NewInt(1e14)
	b := devnet.NewBundle(to).MaxSlots(60)
	if len(chains) == 1 {
		return b.Tx(user, devnet.Transfer(chains[0], 0, fresh.Address, milli)).Tx(fresh, devnet.Transfer(chains[0], 0, user.Address, part)), 2, nil
	}
	for i, next := range chains[1:] {
		b.Tx(user, devnet.SendETH(chains[i], 0, fresh.Address, next, milli)).Relay(next).Tx(fresh, devnet.Transfer(next, 0, user.Address, part))
	}
	return b, 3 * (len(chains) - 1), nil
}

// Bundle prints a signed bundle over all chains, as sharedseq_sendBundle takes it.
func (d *Devnet) Bundle(ctx context.Context) error {
	if err := d.running(ctx); err != nil {
		return err
	}
	r := newReach(d.layout)
	defer r.close()
	user, err := devnet.User(0)
	if err != nil {
		return err
	}
	b, _, err := d.crossing(through{r, d.layout.Members[0].Number}, user)
	if err != nil {
		return err
	}
	args, _, err := b.Sign(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(d.out).Encode(args)
}

// bundle sends a bundle over all chains to one operator, and checks that the chains have all
// of it in one slot: ETH goes from each chain to the next one, and is spent there.
func (s *smoke) bundle(ctx context.Context, name string, number int) error {
	user, err := devnet.User(s.users % 9) // the last one is the load's
	if err != nil {
		return err
	}
	s.users++
	b, want, err := s.d.crossing(through{s.r, number}, user)
	if err != nil {
		return err
	}
	chains := s.d.layout.ChainIDs
	st, err := b.Run(ctx)
	if err != nil {
		return err
	}
	if st.State != bundlepool.Executed && st.State != bundlepool.Safe {
		why := ""
		if st.Failure != nil {
			why = ": " + st.Failure.Reason
		}
		return fmt.Errorf("bundle %s is %s, expected executed%s", st.BundleHash, st.State, why)
	}
	txs, err := s.r.executed(ctx, number, st)
	if err != nil {
		return err
	}
	if len(txs) != want {
		return fmt.Errorf("bundle %s has %d transactions on the chains: expected %d", st.BundleHash, len(txs), want)
	}
	for _, tx := range txs {
		switch {
		case tx.Status != 1:
			return fmt.Errorf("transaction %s of bundle %s reverted on chain %d", tx.TxHash, st.BundleHash, tx.Chain)
		case tx.Timestamp != txs[0].Timestamp:
			return fmt.Errorf("bundle %s is in blocks of timestamps %d and %d", st.BundleHash, txs[0].Timestamp, tx.Timestamp)
		}
	}
	s.rep.SameSlot = true // else it has ended above
	s.rep.Bundles = append(s.rep.Bundles, BundleReport{Name: name, SentTo: number, Hash: st.BundleHash, Slot: txs[0].Timestamp, Transactions: txs})
	s.say("bundle sent to operator %d: %d transactions over %d chains, all in slot %d", number, len(txs), len(chains), txs[0].Timestamp)
	return nil
}

// outage kills an operator's containers, looks on from another one, and starts them again.
func (s *smoke) outage(ctx context.Context, victim, witness int) error {
	o := &Outage{Operator: victim, Containers: s.d.layout.services(victim), SlotsWithout: map[uint64]uint64{}}
	s.rep.Outage = o
	if victim == witness {
		return fmt.Errorf("operator %d is the only one", victim)
	}
	s.say("killing %v", o.Containers)
	if err := s.d.docker.composeRun(ctx, append([]string{"kill"}, o.Containers...)...); err != nil {
		return err
	}
	// Whatever follows, it runs again at the end.
	started := false
	start := func(ctx context.Context) error {
		started = true
		return s.d.docker.composeRun(ctx, append([]string{"start"}, o.Containers...)...)
	}
	defer func() {
		if !started {
			if err := start(context.WithoutCancel(ctx)); err != nil {
				s.say("operator %d was not started again: %v", victim, err)
			}
		}
	}()
	if err := s.step(ctx, "slots without it", func(ctx context.Context) error { return s.slotsWithout(ctx, o, witness) }); err != nil {
		return err
	}
	if err := s.step(ctx, "bundle without it", func(ctx context.Context) error {
		return s.bundle(ctx, fmt.Sprintf("operator %d down", victim), witness)
	}); err != nil {
		return err
	}
	s.say("starting %v", o.Containers)
	back := time.Now()
	if err := start(ctx); err != nil {
		return err
	}
	if err := s.step(ctx, "votes again", func(ctx context.Context) error {
		return s.r.awaitVoting(ctx, victim, true, 0)
	}); err != nil {
		return err
	}
	o.VotesAgainMs = time.Since(back).Milliseconds()
	s.say("operator %d votes again", victim)
	if err := s.step(ctx, "leads again", func(ctx context.Context) error {
		return devnet.WaitFor(ctx, fmt.Sprintf("a turn of operator %d to be agreed on", victim), func(ctx context.Context) (bool, error) {
			missed, err := s.missed(ctx, witness, victim)
			return err == nil && missed == 0, err
		})
	}); err != nil {
		return err
	}
	o.LeadsAgainMs = time.Since(back).Milliseconds()
	s.say("operator %d leads again", victim)
	return s.step(ctx, "bundle after it", func(ctx context.Context) error {
		if err := s.bundle(ctx, fmt.Sprintf("operator %d back", victim), victim); err != nil {
			return err
		}
		for _, tx := range s.rep.Bundles[len(s.rep.Bundles)-1].Transactions {
			if err := s.r.awaitBlock(ctx, witness, tx.Chain, tx.BlockNumber); err != nil {
				return err
			}
			if err := s.r.sameBlock(ctx, witness, victim, tx.Chain, tx.BlockNumber); err != nil {
				return err
			}
		}
		return nil
	})
}

// slotsWithout waits until a turn of the dead operator was missed, and slots have gone on.
func (s *smoke) slotsWithout(ctx context.Context, o *Outage, witness int) error {
	before, err := s.r.heads(ctx, witness)
	if err != nil {
		return err
	}
	if err := devnet.WaitFor(ctx, fmt.Sprintf("%d slots on every chain, and a missed turn of operator %d", slotsWithout, o.Operator), func(ctx context.Context) (bool, error) {
		heads, err := s.r.heads(ctx, witness)
		if err != nil {
			return false, err
		}
		enough := true
		for id, h := range heads {
			o.SlotsWithout[id] = h.Number.Uint64() - before[id].Number.Uint64()
			enough = enough && o.SlotsWithout[id] >= slotsWithout
		}
		if o.MissedTurns, err = s.missed(ctx, witness, o.Operator); err != nil {
			return false, err
		}
		if !enough || o.MissedTurns == 0 {
			return false, fmt.Errorf("slots since: %v, missed turns: %d", o.SlotsWithout, o.MissedTurns)
		}
		return true, nil
	}); err != nil {
		return err
	}
	s.say("without operator %d: slots %v on the chains; it missed %d turns", o.Operator, o.SlotsWithout, o.MissedTurns)
	return nil
}

// missed is how many turns in a row an operator has missed, by another one's count.
func (s *smoke) missed(ctx context.Context, witness, number int) (uint64, error) {
	record, err := s.d.layout.member(number).record(s.d.dir)
	if err != nil {
		return 0, err
	}
	c, err := s.r.sequencer(ctx, witness)
	if err != nil {
		return 0, err
	}
	set, err := c.Operators(ctx)
	if err != nil {
		return 0, err
	}
	for _, o := range set.Operators {
		if o.Address == record.Address {
			return uint64(o.Missed), nil
		}
	}
	return 0, fmt.Errorf("operator %d is not in the set", number)
}

func (l *layout) member(number int) *operator {
	for i := range l.Members {
		if l.Members[i].Number == number {
			return &l.Members[i]
		}
	}
	return nil
}
