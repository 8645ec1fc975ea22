package sequencer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Chain is one rollup of the set.
type Chain struct {
	Engine engine.Engine
	Rollup *rollup.Config
}

// chain keeps the virtual node that a rollup has at the moment, and makes sure that
// the core does not use its parts after it is gone.
type chain struct {
	id     sequence.ChainID
	engine engine.Engine
	rollup *rollup.Config

	woken chan struct{} // its keeper is to look at it

	mu    sync.Mutex
	node  *node         // nil while no virtual node runs
	lent  bool          // the core uses the node's parts
	freed chan struct{} // closed when they are given back
	why   string        // what its keeper could not bring in line, "" if nothing

	trouble engineTrouble
	syncing atomic.Bool // the message history is being synced
	member  atomic.Bool // takes part in the set

	leftOut atomic.Bool // was waited for long enough; only set by whoever holds the turn

	blame struct {
		sync.Mutex
		failures int       // slots that failed because of it, since it was last in one that did not
		retry    time.Time // when it is tried again after a failure
	}
}

// onProbation says whether the last slots the chain was in failed because of it; one
// failure is tried again as it was. It then has to make a block alone before it takes
// part again: the others must not fail with it.
func (c *chain) onProbation() bool {
	c.blame.Lock()
	defer c.blame.Unlock()
	return c.blame.failures > 1
}

// rests says whether the chain is not tried again yet after it made a slot fail.
func (c *chain) rests(now time.Time) bool {
	c.blame.Lock()
	defer c.blame.Unlock()
	return now.Before(c.blame.retry)
}

// probationDelay is how long a chain rests that made a slot fail.
const probationDelay = time.Second

// failed notes that a slot failed because of the chain.
func (c *chain) failed(now time.Time) {
	c.blame.Lock()
	defer c.blame.Unlock()
	c.blame.failures++
	c.blame.retry = now.Add(probationDelay)
}

// succeeded notes that the chain was in a slot that did not fail.
func (c *chain) succeeded() {
	c.blame.Lock()
	defer c.blame.Unlock()
	c.blame.failures = 0
}

// wake has the chain's keeper look at it. It does not wait.
func (c *chain) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// reason says why the chain's keeper cannot bring it in line.
func (c *chain) reason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

func (c *chain) setReason(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = why
}

// attach makes n the chain's node.
func (c *chain) attach(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node = n
}

// detach takes n away, after the core has given its parts back.
func (c *chain) detach(n *node) {
	c.mu.Lock()
	if c.node == n {
		c.node = nil
	}
	c.mu.Unlock()
	_ = c.idle(context.Background())
}

// borrow lends the node's parts until giveBack; false if they are lent already. The node
// is nil while no virtual node runs.
func (c *chain) borrow() (*node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lent {
		return nil, false
	}
	c.lent, c.freed = true, make(chan struct{})
	return c.node, true
}

// isLent says whether the chain is being worked on.
func (c *chain) isLent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lent
}

// current is the chain's node, nil while no virtual node runs. Its parts may only be
// used for reading.
func (c *chain) current() *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node
}

// giveBack ends a borrow in which something may have become of the chain.
func (c *chain) giveBack() {
	c.putBack()
	c.wake()
}

// putBack ends a borrow in which nothing was done.
func (c *chain) putBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lent {
		c.lent = false
		close(c.freed)
	}
}

// idle waits until the core does not use the node's parts.
func (c *chain) idle(ctx context.Context) error {
	c.mu.Lock()
	lent, freed := c.lent, c.freed
	c.mu.Unlock()
	if !lent {
		return nil
	}
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// systemConfigs answers the attributes builder for blocks that were sealed here.
type systemConfigs struct {
	derive.SystemConfigL2Fetcher
	own *lru.Cache[common.Hash, eth.SystemConfig]
}

// ownConfigs is how many blocks back the attributes builder may ask: one, and some
// for chains that are taken back.
const ownConfigs = 64

func newSystemConfigs(inner derive.SystemConfigL2Fetcher) *systemConfigs {
	own, err := lru.New[common.Hash, eth.SystemConfig](ownConfigs)
	if err != nil { // only for a size below 1
		panic(err)
	}
	return &systemConfigs{SystemConfigL2Fetcher: inner, own: own}
}

func (s *systemConfigs) SystemConfigByL2Hash(ctx context.Context, hash common.Hash) (eth.SystemConfig, error) {
	if cfg, ok := s.own.Get(hash); ok {
		return cfg, nil
	}
	return s.SystemConfigL2Fetcher.SystemConfigByL2Hash(ctx, hash)
}

// add remembers the system config that a sealed block carries.
func (s *systemConfigs) add(cfg *rollup.Config, payload *eth.ExecutionPayload) {
	if sys, err := derive.PayloadToSystemConfig(cfg, payload); err == nil {
		s.own.Add(payload.BlockHash, sys)
	}
}
