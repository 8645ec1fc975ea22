package engine

import (
	"context"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

// RememberCanonical has a block that was asked for by number remembered for as long as forkchoice
// updates put blocks on top of it, and for rememberFor at most: SafeL2Head asks for the same one
// several times for each block. Others move the engine's chain without the controller hearing of it:
// an engine that loses blocks in a crash, who mends it then, a supernode that rewinds. For what was
// read meanwhile there is the limit. To be called before the driver starts.
func (e *EngineController) RememberCanonical(now func() time.Time) {
	e.engine = &canonicalRefs{ExecEngine: e.engine, clock: now}
}

const rememberFor = 2 * time.Second

type canonicalRefs struct {
	ExecEngine

	clock func() time.Time

	mu    sync.Mutex
	head  common.Hash // of the last forkchoice update that was valid; zero after one that was not
	next  child       // the last payload that was valid
	chain uint64      // changes when the chain may have become another one
	ref   eth.L2BlockRef
	until time.Time
}

type child struct {
	hash, parent common.Hash
	number       uint64
}

func (c *canonicalRefs) NewPayload(ctx context.Context, payload *eth.ExecutionPayload, parentBeaconBlockRoot *common.Hash) (*eth.PayloadStatusV1, error) {
	status, err := c.ExecEngine.NewPayload(ctx, payload, parentBeaconBlockRoot)
	if err == nil && status.Status == eth.ExecutionValid {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.next = child{payload.BlockHash, payload.ParentHash, uint64(payload.BlockNumber)}
	}
	return status, err
}

func (c *canonicalRefs) ForkchoiceUpdate(ctx context.Context, state *eth.ForkchoiceState, attr *eth.PayloadAttributes) (*eth.ForkchoiceUpdatedResult, error) {
	c.mu.Lock()
	onTop := c.extends(state.HeadBlockHash)
	if !onTop {
		c.forget()
	}
	c.mu.Unlock()
	res, err := c.ExecEngine.ForkchoiceUpdate(ctx, state, attr)
	valid := err == nil && res.PayloadStatus.Status == eth.ExecutionValid
	c.mu.Lock()
	defer c.mu.Unlock()
	if !onTop || !valid {
		c.forget()
	}
	if valid {
		c.head = state.HeadBlockHash
	}
	return res, err
}

// extends says whether an update to the head leaves what is remembered canonical. The engine may have
// blocks above the head of the last update, which a block on top of that replaces. Called with mu held.
func (c *canonicalRefs) extends(head common.Hash) bool {
	if c.head == (common.Hash{}) {
		return false
	}
	return head == c.head || head == c.next.hash && c.next.parent == c.head && c.ref.Number < c.next.number
}

// forget is called with mu held.
func (c *canonicalRefs) forget() {
	c.chain++
	c.head, c.until = common.Hash{}, time.Time{}
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
