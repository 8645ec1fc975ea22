package engine

import (
	"context"
	"sync"
	"time"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

// RememberCanonical has a block that was asked for by number remembered until the next forkchoice
// update, and for a second at most: SafeL2Head asks for the same one several times for each block.
// Others move the engine's chain without the controller hearing of it: an engine that loses blocks in
// a crash, who mends it then, a supernode that rewinds. For them there is the second. To be called
// before the driver starts.
func (e *EngineController) RememberCanonical(now func() time.Time) {
	e.engine = &canonicalRefs{ExecEngine: e.engine, clock: now}
}

const rememberFor = time.Second

type canonicalRefs struct {
	ExecEngine

	clock func() time.Time

	mu    sync.Mutex
	chain uint64 // changes when a forkchoice update begins, and when it ends
	ref   eth.L2BlockRef
	until time.Time
}

func (c *canonicalRefs) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chain++
	c.until = time.Time{}
}

func (c *canonicalRefs) ForkchoiceUpdate(ctx context.Context, state *eth.ForkchoiceState, attr *eth.PayloadAttributes) (*eth.ForkchoiceUpdatedResult, error) {
	c.forget()
	defer c.forget()
	return c.ExecEngine.ForkchoiceUpdate(ctx, state, attr)
}

func (c *canonicalRefs) L2BlockRefByNumber(ctx context.Context, num uint64) (eth.L2BlockRef, error) {
	now := c.clock()
	c.mu.Lock()
	chain, ref, fresh := c.chain, c.ref, now.Before(c.until)
	c.mu.Unlock()
	if fresh && ref.Number == num {
		return ref, nil
	}
	ref, err := c.ExecEngine.L2BlockRefByNumber(ctx, num)
	if err != nil {
		return ref, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chain == chain { // else it may be of the chain before
		c.ref, c.until = ref, now.Add(rememberFor)
	}
	return ref, nil
}
