package engine

import "github.com/ethereum-optimism/optimism/op-service/eth"

// UnsafeL2HeadLocked is UnsafeL2Head for callers outside the driver's event loop,
// which reads the field without the lock. It must not be called from an event
// handler: the controller may hold its lock while it emits.
func (e *EngineController) UnsafeL2HeadLocked() eth.L2BlockRef {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.unsafeHead
}
