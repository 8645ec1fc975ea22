// Package drill takes leaders away from a set of operators that agree on slots, again and
// again, and measures what users notice: by how much the next block is late, and whether
// anything that was agreed on or announced is lost, changed or done twice.
//
// The operators are processes of their own with their engines, on one L1; their chains get
// plain transfers and bundles all the while, good ones and bad ones, through all operators.
package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/faultnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

// Config says what is done. Start with DefaultConfig.
type Config struct {
	// Devnet is what it is done to; how its operators run and are connected is the drill's.
	Devnet devnet.Config
	// Kills is how often the leader is killed.
	Kills int
	// Calm is for how many slots nothing is done, at first.
	Calm int
	// Stop, Cut and Freeze are for how long an operator is stopped, cut off from the others'
	// agreement, and frozen (SIGSTOP). 0: it is not.
	Stop, Cut, Freeze time.Duration
	// Rate is how many transfers a second go to each chain through each operator.
	Rate int
	// Seed decides the moments of the kills, and whom the other faults meet.
	Seed uint64
	// Conductor measures op-conductor afterwards. nil: it is not measured.
	Conductor *conductor.Config
	// Out is told what happens, a line at a time.
	Out io.Writer
	Log log.Logger
}

// DefaultConfig is the whole drill but for op-conductor.
func DefaultConfig(out io.Writer, l log.Logger) Config {
	dc := devnet.DefaultConfig(l)
	dc.Operators, dc.NoProposer, dc.Archive = 4, true, true
	return Config{
		Devnet: dc, Kills: 30, Calm: 20, Stop: time.Minute, Cut: 20 * time.Second, Freeze: 20 * time.Second, Rate: 4, Seed: 1, Out: out, Log: l,
	}
}

func (c *Config) check() error {
	n := c.Devnet.Operators
	switch {
	case n != maxOperators:
		return fmt.Errorf("%d operators: the drill is for %d, of which one may fail", n, maxOperators)
	case len(c.Devnet.Chains) != 2:
		return fmt.Errorf("chains %v: the drill is for two", c.Devnet.Chains)
	case c.Kills < 0 || c.Calm < 1 || c.Rate < 0:
		return fmt.Errorf("%d kills, %d calm slots, %d transfers a second: expected no less than 0, 1 and 0", c.Kills, c.Calm, c.Rate)
	case c.Stop < 0 || c.Cut < 0 || c.Freeze < 0:
		return fmt.Errorf("faults of %v, %v and %v: expected 0 or more", c.Stop, c.Cut, c.Freeze)
	case c.Out == nil || c.Log == nil:
		return errors.New("the drill has nowhere to say what happens")
	}
	return nil
}

// How long things may take. All are many times what they take when nothing is wrong.
const (
	startTime  = 5 * time.Minute // the devnet
	settleTime = 3 * time.Minute // all operators, until they vote and are on time
	blockTime  = time.Minute     // the next blocks after a fault
	stopTime   = time.Minute
)

// Run does the drill. The report says whether it is passed; an error means that there is none.
//
// A block is announced when an operator's public RPC first tells of it as the new head, at
// an operator that the fault does not meet. With k the last block that was announced before
// the leader is killed, the commit gap is
//
//	max over n in k+1, k+2 of (announced(n) - (announced(k) + (n-k) slots)),
//
// at least zero, and the worse of the chains. It is conductor.CommitGap up to block k+2:
// the leader that is killed leads the subblock that is agreed on at that moment. That is
// mostly in block k+1; when it was agreed on all the same, the first subblock of another
// leader is in k+1 or k+2. So the gap is never below what conductor.Measure would call it.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("drill: %w", err)
	}
	ss := config.DefaultSharedSequencer()
	r := &run{
		cfg: cfg, begin: time.Now(), rng: rand.New(rand.NewPCG(cfg.Seed, 0)), slot: time.Duration(cfg.Devnet.L2BlockTime) * time.Second,
		rep: &Report{
			Operators: cfg.Devnet.Operators, Chains: cfg.Devnet.Chains, Seed: cfg.Seed, SlotMs: int64(cfg.Devnet.L2BlockTime) * 1000,
			SubblocksPerSlot: max(cfg.Devnet.Subblocks, 1), Kills: []Kill{}, Counts: Counts{Findings: []string{}},
			CommitGap: distribution(nil), OutageGap: distribution(nil), VotesAgain: distribution(nil),
			Machine: Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()},
		},
	}
	if cfg.Devnet.Subblocks == 0 {
		r.rep.SubblocksPerSlot = ss.Subblocks
	}
	if err := r.operators(ctx); err != nil {
		r.fail("%v", err)
	}
	if cfg.Conductor != nil && ctx.Err() == nil {
		if err := r.conductor(ctx); err != nil {
			r.fail("op-conductor: %v", err)
		}
	}
	return r.rep, nil
}

// run is a drill under way.
type run struct {
	cfg   Config
	begin time.Time
	rng   *rand.Rand
	slot  time.Duration
	rep   *Report

	net     *faultnet.Network
	d       *devnet.Devnet
	heads   *heads
	traffic *traffic
	faults  []returned
}

// returned is an operator that came back from a fault.
type returned struct {
	operator int
	back     time.Time
	voted    time.Time // when it was seen to vote
	set      func(ms float64)
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

// operators is the drill of our own operators.
func (r *run) operators(ctx context.Context) (err error) {
	r.net = faultnet.New()
	defer r.net.Close()
	dc := r.cfg.Devnet
	dc.Separate, dc.ConsensusDial = true, r.net.Link
	r.say("starting L1, %d operators in processes of their own, batchers", dc.Operators)
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if r.d, err = devnet.Start(starting, dc); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	running := true
	stop := func() error {
		if !running {
			return nil
		}
		running = false
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		return r.d.Stop(stopping)
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := r.net.Err(); err != nil {
		return fmt.Errorf("network between the operators: %w", err)
	}
	r.heads = watchHeads(r.d, r.cfg.Log)
	defer r.heads.close()
	if _, err := r.settled(ctx); err != nil {
		return err
	}
	if r.traffic, err = startTraffic(r.d, r.cfg.Rate, r.cfg.Log); err != nil {
		return err
	}
	stopTraffic := r.traffic.stop
	defer func() { err = errors.Join(err, stopTraffic()) }()
	if err := r.calm(ctx); err != nil {
		return err
	}
	// What went wrong is told, and then what is there is looked at all the same.
	if err := r.allFaults(ctx); err != nil {
		r.fail("%v", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.say("traffic ends; reading all operators' chains")
	stopTraffic = func() error { return nil }
	if err := r.traffic.stop(); err != nil {
		return err
	}
	if err := r.everybodyBack(ctx); err != nil {
		return err
	}
	if _, err := r.settled(ctx); err != nil {
		return err
	}
	e, err := r.readChains(ctx)
	if err != nil {
		return err
	}
	r.say("stopping; reading all operators' ledgers")
	// The ledgers are read before the devnet ends, which may remove its directory.
	for _, o := range r.d.Operators() {
		stopping, cancel := context.WithTimeout(ctx, stopTime)
		err := o.Stop(stopping)
		cancel()
		if err != nil {
			r.fail("%v", err)
		}
		l, err := readLedger(o, r.cfg.Log)
		if err != nil {
			return fmt.Errorf("ledger of operator %d: %w", o.Index(), err)
		}
		e.ledgers = append(e.ledgers, l)
		r.rep.Slots = max(r.rep.Slots, len(l))
	}
	r.rep.Counts = e.judge()
	r.votes(e.ledgers)
	return nil
}

// everybodyBack starts operators that do not run, after a fault that went wrong.
func (r *run) everybodyBack(ctx context.Context) error {
	for _, o := range r.d.Operators() {
		if o.Running() {
			continue
		}
		starting, cancel := context.WithTimeout(ctx, startTime)
		err := o.Start(starting)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// settled waits until all operators vote and are on time, and returns the height.
func (r *run) settled(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it took more than %s", settleTime))
	defer cancel()
	var height uint64
	err := devnet.WaitFor(ctx, "all operators to vote and be on time", func(ctx context.Context) (bool, error) {
		height = 0
		var heights []uint64
		for _, o := range r.d.Operators() {
			h, err := votes(ctx, o)
			if err != nil {
				return false, err
			}
			height = max(height, h)
			heights = append(heights, h)
		}
		for i, h := range heights {
			if h+1 < height {
				return false, fmt.Errorf("operator %d is at height %d, another at %d", i, h, height)
			}
		}
		return true, r.onTime()
	})
	return height, err
}

// votes returns the height of an operator that takes part in the agreement.
func votes(ctx context.Context, o *devnet.Operator) (uint64, error) {
	if !o.Running() {
		return 0, fmt.Errorf("the process of operator %d has ended", o.Index())
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, err := o.Sequencer(ctx)
	if err != nil {
		return 0, err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return 0, fmt.Errorf("operator %d: %w", o.Index(), err)
	}
	a := st.Agreement
	if a == nil || !a.Running || a.Syncing || a.Height == 0 {
		return 0, fmt.Errorf("operator %d does not vote yet", o.Index())
	}
	return uint64(a.Height), nil
}

// onTime says who has no block of this moment.
func (r *run) onTime() error {
	for _, chain := range r.d.Chains() {
		for i := range r.d.Operators() {
			b, ok := last(r.heads.of(chain, []int{i}), time.Now())
			if !ok {
				return fmt.Errorf("operator %d has announced no block of chain %d", i, chain)
			}
			if behind := time.Since(time.Unix(int64(b.Time), 0)); behind > 2*r.slot {
				return fmt.Errorf("operator %d is %s behind on chain %d", i, behind.Round(time.Millisecond), chain)
			}
		}
	}
	return nil
}

// calm watches blocks while nothing is wrong.
func (r *run) calm(ctx context.Context) error {
	r.say("watching %d slots without a fault", r.cfg.Calm)
	everybody := r.but(-1)
	from := map[uint64]uint64{}
	for _, chain := range r.d.Chains() {
		b, _ := last(r.heads.of(chain, everybody), time.Now())
		from[chain] = b.Number
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.cfg.Calm)*r.slot+settleTime)
	defer cancel()
	if err := r.announced(ctx, everybody, from, uint64(r.cfg.Calm)); err != nil {
		return fmt.Errorf("waiting for calm slots: %w", err)
	}
	var gaps, late []time.Duration
	for _, chain := range r.d.Chains() {
		seen := r.heads.of(chain, everybody)
		for n := from[chain] + 1; n <= from[chain]+uint64(r.cfg.Calm); n++ {
			before, ok := first(seen, n-1)
			if !ok {
				continue
			}
			gap, err := conductor.CommitGap(before.At, n, seen, r.slot)
			if err != nil {
				continue // announced together with the one before
			}
			b, _ := first(seen, n)
			gaps, late = append(gaps, gap), append(late, b.At.Sub(time.Unix(int64(b.Time), 0)))
		}
	}
	r.rep.Calm = Calm{Gap: spread(gaps), Lateness: spread(late), Blocks: len(gaps)}
	r.say("calm: gap between blocks p50 %.0f ms, max %.0f ms; announced p50 %.0f ms, max %.0f ms after the slot's timestamp",
		r.rep.Calm.Gap.P50, r.rep.Calm.Gap.Max, r.rep.Calm.Lateness.P50, r.rep.Calm.Lateness.Max)
	return nil
}

// first is the announcement of a block that came first.
func first(seen [][]conductor.Head, number uint64) (conductor.Head, bool) {
	var out conductor.Head
	found := false
	for _, list := range seen {
		i := slices.IndexFunc(list, func(b conductor.Head) bool { return b.Number == number })
		if i >= 0 && (!found || list[i].At.Before(out.At)) {
			out, found = list[i], true
		}
	}
	return out, found
}

// but are all operators but one.
func (r *run) but(operator int) []int {
	var out []int
	for i := range r.d.Operators() {
		if i != operator {
			out = append(out, i)
		}
	}
	return out
}

// announced waits until any of the operators has announced the block n after the given one, of
// every chain.
func (r *run) announced(ctx context.Context, operators []int, from map[uint64]uint64, n uint64) error {
	return r.heads.await(ctx, func() bool {
		for _, chain := range r.d.Chains() {
			b, ok := last(r.heads.of(chain, operators), time.Now())
			if !ok || b.Number < from[chain]+n {
				return false
			}
		}
		return true
	})
}

// commitGap is the worse of the chains' gaps after a fault, over the next blocks up to the
// one announced last before until; over at least two.
func (r *run) commitGap(at, until time.Time, survivors []int) (time.Duration, error) {
	var worst time.Duration
	for _, chain := range r.d.Chains() {
		seen := r.heads.of(chain, survivors)
		before, ok := last(seen, at)
		if !ok {
			return 0, fmt.Errorf("chain %d had no block", chain)
		}
		to := before.Number + 2
		if b, ok := last(seen, until); ok {
			to = max(to, b.Number)
		}
		gap, err := conductor.CommitGap(at, to, seen, r.slot)
		if err != nil {
			return 0, fmt.Errorf("chain %d: %w", chain, err)
		}
		worst = max(worst, gap)
	}
	return worst, nil
}

// lateness of the blocks that were announced between two moments.
func (r *run) lateness(from, to time.Time, operators []int) []time.Duration {
	var out []time.Duration
	for _, chain := range r.d.Chains() {
		seen := r.heads.of(chain, operators)
		a, _ := last(seen, from)
		b, _ := last(seen, to)
		for n := a.Number + 1; n <= b.Number; n++ {
			if h, ok := first(seen, n); ok {
				out = append(out, h.At.Sub(time.Unix(int64(h.Time), 0)))
			}
		}
	}
	return out
}

// readChains collects what there is while the operators run.
func (r *run) readChains(ctx context.Context) (*evidence, error) {
	r.lastWords(ctx)
	e := &evidence{announced: r.heads.everything(), chains: map[uint64][][]block{}, bundles: r.traffic.bundles, statuses: map[placed]uint64{}, remains: map[placed]bool{}}
	for _, chain := range r.d.Chains() {
		// All of them have what was announced up to now, or soon will.
		b, _ := last(r.heads.of(chain, r.but(-1)), time.Now())
		for _, o := range r.d.Operators() {
			waiting, cancel := context.WithTimeout(ctx, settleTime)
			err := devnet.WaitFor(waiting, fmt.Sprintf("block %d of chain %d at operator %d", b.Number, chain, o.Index()), func(ctx context.Context) (bool, error) {
				c, err := o.Eth(chain)
				if err != nil {
					return false, err
				}
				h, err := c.HeaderByNumber(ctx, nil)
				return err == nil && h.Number.Uint64() >= b.Number, err
			})
			cancel()
			if err != nil {
				return nil, err
			}
			blocks, err := readChain(ctx, o.EngineRPC(chain), b.Number)
			if err != nil {
				return nil, fmt.Errorf("chain %d of operator %d: %w", chain, o.Index(), err)
			}
			e.chains[chain] = append(e.chains[chain], blocks)
		}
		for i, list := range e.announced[chain] { // later ones were not read
			e.announced[chain][i] = slices.DeleteFunc(list, func(h conductor.Head) bool { return h.Number > b.Number })
		}
		for _, b := range e.chains[chain][0] {
			r.rep.Transactions += len(b.Txs)
		}
		if err := r.readUsers(ctx, chain, e); err != nil {
			return nil, err
		}
	}
	r.rep.Transfers = r.traffic.transfers()
	return e, nil
}

// readUsers reads what bundles did on a chain, as one operator after the other tells it.
func (r *run) readUsers(ctx context.Context, chain uint64, e *evidence) error {
	var txs []common.Hash
	for _, b := range e.bundles {
		for _, tx := range b.all() {
			if tx.chain == chain {
				txs = append(txs, tx.hash)
			}
		}
	}
	for i, o := range r.d.Operators() {
		statuses, err := readStatuses(ctx, o.EngineRPC(chain), txs)
		if err != nil {
			return fmt.Errorf("chain %d of operator %d: %w", chain, i, err)
		}
		for tx, status := range statuses {
			if p := (placed{chain, tx}); status != 1 || i == 0 {
				e.statuses[p] = status
			}
		}
	}
	c, err := r.d.Eth(chain)
	if err != nil {
		return err
	}
	// Who sent only bundles that fail has done nothing, and who was to be paid has nothing.
	for _, b := range e.bundles {
		if b.good {
			continue
		}
		balance, err := c.BalanceAt(ctx, b.fresh, nil)
		if err != nil {
			return err
		}
		nonce, err := c.NonceAt(ctx, b.from, nil)
		if err != nil {
			return err
		}
		if balance.Sign() != 0 || nonce != 0 {
			e.remains[placed{chain, b.hash}] = true
		}
	}
	return nil
}

// lastWords asks every operator what became of each bundle, and counts.
func (r *run) lastWords(ctx context.Context) {
	for _, b := range r.traffic.bundles {
		known := false
		for _, o := range r.d.Operators() {
			st, err := ask(ctx, o, b.hash)
			if err == nil {
				known = true
				r.traffic.note(b, st)
			}
		}
		in := func(states ...bundlepool.State) bool {
			return slices.ContainsFunc(states, func(s bundlepool.State) bool { _, ok := b.states[s]; return ok })
		}
		n := &r.rep.Bundles
		switch {
		case in(bundlepool.Executed, bundlepool.Safe):
			n.Executed++
		case in(bundlepool.Failed):
			n.Failed++
			if b.good {
				n.GoodFailed++
				r.cfg.Log.Warn("Bundle that was to be executed failed", "bundle", b.hash, "why", b.states[bundlepool.Failed])
			}
		case in(bundlepool.Expired):
			n.Expired++
		case !known:
			n.Forgotten++
		default:
			n.Open++
		}
	}
}

// conductor measures op-conductor, when the machine is free for it.
func (r *run) conductor(ctx context.Context) error {
	var err error
	if r.rep.Conductor, err = r.measureConductor(ctx, conductor.Upstream()); err != nil {
		return err
	}
	r.rep.Ratio = r.rep.Conductor.Ratio
	r.rep.Tuned, err = r.measureConductor(ctx, conductor.Fast())
	return err
}

func (r *run) measureConductor(ctx context.Context, tuning conductor.Tuning) (*Conductor, error) {
	cc := *r.cfg.Conductor
	cc.Tuning = tuning
	c := &Conductor{Tuning: fmt.Sprintf("raft heartbeat %s, lease %s", tuning.Heartbeat, tuning.Lease)}
	r.say("measuring op-conductor with %s: %d kills", c.Tuning, cc.Kills)
	res, err := conductor.Measure(ctx, cc)
	c.Distribution, c.Kills, c.Replaced, c.Unforced = distribution(res.Gaps), len(res.Kills), res.Replaced, res.Unforced
	if len(r.rep.Kills) > 0 {
		c.against(r.rep.CommitGap)
	}
	r.say("op-conductor: gap p50 %.0f ms, max %.0f ms; %d takeovers without a kill", c.P50, c.Max, c.Unforced)
	return c, err
}
