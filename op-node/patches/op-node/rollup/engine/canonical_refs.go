package engine

import (
	"context"
	"sync"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

// RememberCanonical has a block that was asked for by number remembered until the next forkchoice
// update: SafeL2Head asks for the same one several times for each block, and nothing but a
// forkchoice update changes what the engine's canonical chain is. To be called before the driver
// starts.
func (e *EngineController) RememberCanonical() {
	e.engine = &canonicalRefs{ExecEngine: e.engine}
}

type canonicalRefs struct {
	ExecEngine

	mu  sync.Mutex
	now uint64 // changes when a forkchoice update begins, and when it ends
	ref eth.L2BlockRef
	has bool
}

func (c *canonicalRefs) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.has = false
}

func (c *canonicalRefs) ForkchoiceUpdate(ctx context.Context, state *eth.ForkchoiceState, attr *eth.PayloadAttributes) (*eth.ForkchoiceUpdatedResult, error) {
	c.forget()
	defer c.forget()
	return c.ExecEngine.ForkchoiceUpdate(ctx, state, attr)
}

func (c *canonicalRefs) L2BlockRefByNumber(ctx context.Context, num uint64) (eth.L2BlockRef, error) {
	c.mu.Lock()
	asked, ref, has := c.now, c.ref, c.has
	c.mu.Unlock()
	if has && ref.Number == num {
		return ref, nil
	}
	ref, err := c.ExecEngine.L2BlockRefByNumber(ctx, num)
	if err != nil {
		return ref, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == asked { // else it may be of the chain before
		c.ref, c.has = ref, true
	}
	return ref, nil
}
