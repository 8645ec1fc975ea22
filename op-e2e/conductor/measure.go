// Package conductor measures how long a chain stands still when upstream's op-conductor
// loses its leader, as a yardstick for the shared sequencer's own failover.
//
// Three operators run one chain with blocks of one second: each is a process with
// upstream's op-conductor, its op-node and op-geth, on one L1. The op-nodes gossip blocks
// to each other, the conductors elect a leader with raft. The leader's process is killed
// with SIGKILL again and again, restarted, and killed once more when all is well.
package conductor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
)

// DefaultKills is how often the leader is killed when Config does not say.
const DefaultKills = 10

// Config says what to measure. Unit and Log are required.
type Config struct {
	// Kills is how often the leader is killed; 0: DefaultKills.
	Kills int
	// Seed decides when within a block's time the kills are.
	Seed uint64
	// Dir is where a new directory for the run is made, with each operator's data and
	// log; it stays. Empty: a temporary one, which goes.
	Dir string
	// Artifacts are the contracts; empty: those of `make contracts`.
	Artifacts string
	// Unit is a program and its arguments that calls RunUnit with the argument added
	// to them.
	Unit []string
	// Tuning of op-conductor; zero: Fast.
	Tuning Tuning
	Log    log.Logger
}

func (c *Config) check() error {
	if c.Kills < 0 {
		return fmt.Errorf("%d kills", c.Kills)
	}
	if len(c.Unit) == 0 {
		return errors.New("no program given that runs an operator")
	}
	if c.Log == nil {
		return errors.New("no log given")
	}
	return c.Tuning.check()
}

// Kill is one death of a leader.
type Kill struct {
	Leader    string
	Successor string
	// Gap is the commit gap, see Measure.
	Gap time.Duration
	// Elected is the time from the kill until the successor's op-node begins to build.
	Elected time.Duration
	// Outage is the time from the kill until the successor's first block is announced.
	Outage time.Duration
	// Recovered is the time from the kill until the dead operator is back and all is well.
	Recovered time.Duration
}

// Result is what Measure found.
type Result struct {
	Gaps     []time.Duration // one per kill, in their order
	P50, P99 time.Duration   // of the gaps, nearest rank
	Kills    []Kill
	// Replaced is how many blocks were announced by one operator and had another hash
	// at some operator, then or later.
	Replaced int
	// Unforced is how often an operator took over though no leader was killed: the
	// heartbeat is too short for the machine.
	Unforced int
}

// Measure kills the leader cfg.Kills times and returns the commit gaps.
//
// A block is announced when it first is the unsafe head (op-geth's head block) of an
// operator that survives the kill; each operator's process takes the time itself when
// its op-geth says so. The chain is due to announce block n+1 one block time after block
// n. With k the last block announced before the signal is sent, and m the first block
// that the new leader builds,
//
//	gap = max over n in k+1..m of (announced(n) - (announced(k) + (n-k) block times)),
//
// and never below zero. Mostly m is k+1: then the gap is the time at which the new
// leader's first block is announced, less the time at which that block was due. m is k+2
// when the dead leader had brought k+1 under way: being late counts for that block too.
//
// On an error, the result has what was measured until then.
func Measure(ctx context.Context, cfg Config) (_ Result, err error) {
	if cfg.Tuning == (Tuning{}) {
		cfg.Tuning = Fast()
	}
	if cfg.Kills == 0 {
		cfg.Kills = DefaultKills
	}
	if err := cfg.check(); err != nil {
		return Result{}, fmt.Errorf("op-conductor measurement: %w", err)
	}
	if cfg.Artifacts == "" {
		if cfg.Artifacts, err = genesis.FindArtifacts("."); err != nil {
			return Result{}, err
		}
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
			return Result{}, err
		}
	}
	dir, err := os.MkdirTemp(cfg.Dir, "conductor-")
	if err != nil {
		return Result{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return Result{}, err
	}
	if cfg.Dir == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 0))
	c, err := newCluster(ctx, cfg, dir, rng)
	if err != nil {
		return Result{}, fmt.Errorf("op-conductor measurement: %w", err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.form(ctx); err != nil {
		return Result{}, fmt.Errorf("op-conductor cluster: %w", err)
	}
	// With all processes starting at once, the first leader may not be the one that stays.
	if _, err := c.settled(ctx); err != nil {
		return Result{}, fmt.Errorf("op-conductor cluster: %w", err)
	}
	c.mu.Lock()
	c.formed = c.takeovers()
	c.mu.Unlock()
	var res Result
	for i := range cfg.Kills {
		k, err := c.round(ctx, rng)
		if err != nil {
			return c.result(res), fmt.Errorf("op-conductor, kill %d of %d: %w", i+1, cfg.Kills, err)
		}
		res.Kills = append(res.Kills, *k)
		cfg.Log.Info("Leader lost", "kill", i+1, "leader", k.Leader, "successor", k.Successor,
			"gap", k.Gap, "elected", k.Elected, "outage", k.Outage, "recovered", k.Recovered)
	}
	return c.result(res), nil
}

// result adds to the kills what follows from them.
func (c *cluster) result(res Result) Result {
	for _, k := range res.Kills {
		res.Gaps = append(res.Gaps, k.Gap)
	}
	res.P50, res.P99 = Percentile(res.Gaps, 50), Percentile(res.Gaps, 99)
	c.mu.Lock()
	defer c.mu.Unlock()
	res.Replaced = len(c.replaced)
	res.Unforced = c.takeovers() - c.formed - len(res.Kills)
	return res
}

// calm is how long the cluster has to be well before a kill, without the random part.
const calm = 2 * time.Second

// round kills the leader at a random moment and waits until the cluster is well again.
func (c *cluster) round(ctx context.Context, rng *rand.Rand) (*Kill, error) {
	leader, err := c.chosen(ctx, calm+time.Duration(rng.Int64N(int64(blockTime))))
	if err != nil {
		return nil, err
	}
	survivors := c.others(leader)
	before := map[*unit]int{}
	c.mu.Lock()
	for _, u := range survivors {
		before[u] = len(u.starts)
	}
	c.mu.Unlock()

	at := c.kill(leader)
	k := &Kill{Leader: leader.cfg.ID}
	var start Head // what the successor builds on
	failover, cancel := context.WithTimeoutCause(ctx, failoverTime, fmt.Errorf("it took more than %s", failoverTime))
	defer cancel()
	err = c.await(failover, func() bool {
		for _, u := range survivors {
			// The newest takeover counts: one before it that built nothing is part of the gap.
			for _, s := range u.starts[before[u]:] {
				if s.At.After(start.At) {
					start, k.Successor = s, u.cfg.ID
				}
			}
		}
		_, ok := announced(start.Number+1, headsOf(survivors))
		return k.Successor != "" && ok
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for the block of a successor of %s: %w", leader.cfg.ID, err)
	}
	c.mu.Lock()
	heads := headsOf(survivors)
	k.Gap, err = CommitGap(at, start.Number+1, heads, blockTime)
	first, _ := announced(start.Number+1, heads)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	k.Elected, k.Outage = start.At.Sub(at), first.Sub(at)

	if err := c.restart(ctx, leader); err != nil {
		return nil, err
	}
	if _, err := c.settled(ctx); err != nil {
		return nil, err
	}
	k.Recovered = time.Since(at)
	return k, nil
}

// chosen is the leader of a cluster that has been well for a while.
func (c *cluster) chosen(ctx context.Context, wait time.Duration) (*unit, error) {
	for {
		leader, err := c.settled(ctx)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		takeovers := c.takeovers()
		c.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		c.mu.Lock()
		same := takeovers == c.takeovers()
		for _, u := range c.units {
			same = same && c.fresh(u)
		}
		c.mu.Unlock()
		if same {
			return leader, nil
		}
	}
}

// takeovers is how often any operator has begun to build. The mutex is held.
func (c *cluster) takeovers() int {
	n := 0
	for _, u := range c.units {
		n += len(u.starts)
	}
	return n
}

// headsOf are the heads of operators. The cluster's mutex is held.
func headsOf(units []*unit) [][]Head {
	var out [][]Head
	for _, u := range units {
		out = append(out, u.heads)
	}
	return out
}
