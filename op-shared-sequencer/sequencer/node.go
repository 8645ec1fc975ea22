package sequencer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/event"
)

// Controller is what the sequencer needs of a driver's engine controller.
type Controller interface {
	// UnsafeL2HeadLocked is the head that the next block goes on. Not for event handlers.
	UnsafeL2HeadLocked() eth.L2BlockRef
	RequestForkchoiceUpdate(ctx context.Context)
	// ProcessPayload makes a sealed block the new unsafe head; its errors are those of
	// sequencing.SequencerEngine.
	ProcessPayload(ctx context.Context, envelope *eth.ExecutionPayloadEnvelope, ref eth.L2BlockRef, buildStarted time.Time) error
}

// Parts is what a driver gives its sequencer: driver.SequencerParts with the engine
// controller behind an interface. Attributes is upstream's attributes builder.
type Parts struct {
	Ctx        context.Context // ends when the driver closes
	Rollup     *rollup.Config
	Attributes derive.AttributesBuilder
	Origins    sequencing.L1OriginSelectorIface
	L1         sequencing.L1Blocks
	Listener   sequencing.SequencerStateListener
	Gossip     sequencing.AsyncGossiper
	Metrics    sequencing.Metrics
	Controller Controller
	Authority  rollup.SuperAuthority // nil outside a supernode

	configs *systemConfigs // nil: the attributes builder keeps no cache of ours
	stored  *storedBlock   // nil: the driver sends its engine every block
}

// storedBlock is the block that a chain's engine has stored and its driver is being given.
// The driver makes it the head by newPayload and forkchoiceUpdated; the first, which carries the
// whole block and is there to store it, is not sent then. If the engine crashes in between, the
// driver finds out with the forkchoice update or the next slot, as after a newPayload.
type storedBlock struct {
	payload atomic.Pointer[eth.ExecutionPayload]
}

func (s *storedBlock) is(payload *eth.ExecutionPayload) bool {
	return payload != nil && s.payload.Load() == payload
}

// node is the sequencer as one driver sees it. It builds nothing itself: it tells
// the core whether its chain may be built on and lends it the driver's parts. There
// is a new one for every start of a virtual node.
type node struct {
	chain *chain
	clock Clock
	log   log.Logger
	parts Parts
	abort func() // ends the slot in progress

	emitter event.Emitter

	mu       sync.Mutex
	standing standing
}

var _ sequencing.SequencerIface = (*node)(nil)

func newNode(c *chain, clk Clock, l log.Logger, p Parts, abort func()) *node {
	return &node{chain: c, clock: clk, log: l, parts: p, abort: abort}
}

// fromDriver takes a driver's parts. The attributes builder is upstream's, over a
// cache of the system configs of our own blocks: upstream's client would fetch the
// whole parent block for it in every slot.
func fromDriver(p *driver.SequencerParts, clk Clock) Parts {
	configs, stored := newSystemConfigs(p.L2), new(storedBlock)
	p.Engine.AnswerStored(stored.is)
	p.Engine.RememberCanonical(clk.Now)
	return Parts{
		Ctx: p.Ctx, Rollup: p.RollupCfg,
		Attributes: derive.NewFetchingAttributesBuilder(p.RollupCfg, p.L1ChainConfig, p.DepSet, p.L1Receipts, configs),
		Origins:    p.L1OriginSelector, L1: p.L1, Listener: p.Listener, Gossip: p.Gossip, Metrics: p.Metrics,
		Controller: p.Engine, Authority: p.SuperAuthority, configs: configs, stored: stored,
	}
}

func (n *node) AttachEmitter(em event.Emitter) { n.emitter = em }

// OnEvent runs on the driver's event loop: it must not block, and must not call the
// engine controller, which may be emitting under its lock.
func (n *node) OnEvent(_ context.Context, ev event.Event) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	blockTime := time.Duration(n.parts.Rollup.BlockTime) * time.Second
	before := n.standing.situation()
	if n.standing.observe(ev, n.clock.Now(), blockTime) {
		n.abort()
	}
	if n.standing.situation() != before {
		n.chain.wake()
	}
	if _, ok := ev.(rollup.ResetEvent); ok {
		n.parts.Metrics.RecordSequencerReset()
	}
	return true
}

// ready returns the head to build on, or why the chain cannot be built on.
func (n *node) ready() (eth.L2BlockRef, string) {
	if why := n.paused(); why != "" {
		// The controller is not asked: while it resets or derives it keeps its lock for
		// as long as L1 or its engine do not answer, and the other chains would wait.
		return eth.L2BlockRef{}, why
	}
	head := n.parts.Controller.UnsafeL2HeadLocked()
	denied, err := n.denied()
	if err != nil {
		return head, fmt.Sprintf("its deny list cannot be read: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return head, n.standing.blocked(head, denied, n.clock.Now())
}

// standsOn returns the head that an agreed block can be handed over on, or why none can.
func (n *node) standsOn() (eth.L2BlockRef, string) {
	if why := n.paused(); why != "" {
		return eth.L2BlockRef{}, why
	}
	return n.parts.Controller.UnsafeL2HeadLocked(), ""
}

// paused says why the chain cannot be built on, whatever its head is, "" if it can.
func (n *node) paused() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.paused(n.clock.Now())
}

// denied is the highest block number that was invalidated, nil if none was.
func (n *node) denied() (*uint64, error) {
	if n.parts.Authority == nil {
		return nil, nil
	}
	height, any, err := n.parts.Authority.MaxDeniedHeight()
	if err != nil || !any {
		return nil, err
	}
	return &height, nil
}

// backOff keeps the chain from being built on for a while.
func (n *node) backOff(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.standing.notBefore = n.clock.Now().Add(d)
}

// requestReset asks the driver to find its heads again.
func (n *node) requestReset(err error) {
	n.mu.Lock()
	n.standing.resetting = true // until the event comes back, nothing is built
	n.chain.wake()
	n.mu.Unlock()
	n.emitter.Emit(n.parts.Ctx, rollup.ResetEvent{Err: err})
}

// recovering says whether blocks are built without user transactions.
func (n *node) recovering() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.recover
}

// resets counts the confirmed resets of this driver.
func (n *node) resets() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.resets
}

// localSafe is the newest block that was derived from L1, as the driver last said.
func (n *node) localSafe() eth.L2BlockRef {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.localSafe
}

// safeHead is the chain's cross-safe head as the driver last said.
func (n *node) safeHead() eth.L2BlockRef {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.safe
}

// finalizedHead is the chain's finalized head as the driver last said.
func (n *node) finalizedHead() eth.L2BlockRef {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.finalized
}

// RunAction is called by upstream's own tests only.
func (n *node) RunAction() {}

// RunLoop is the life of the driver. The core builds in its own goroutine, so this
// only waits; it does not return while the core uses the driver's parts, which are
// closed next.
func (n *node) RunLoop(ctx context.Context) {
	n.setRunning(true)
	<-ctx.Done()
	n.setRunning(false)
	n.abort()
	n.chain.detach(n)
}

func (n *node) setRunning(running bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.standing.running = running
	n.chain.wake()
}

func (n *node) Active() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.standing.active
}

func (n *node) setActive(active bool) {
	n.mu.Lock()
	n.standing.active = active
	n.mu.Unlock()
	n.chain.wake()
	n.parts.Metrics.SetSequencerState(active)
}

// Init is called once, before RunLoop.
func (n *node) Init(ctx context.Context, active bool) error {
	n.parts.Gossip.Start()
	n.parts.Controller.RequestForkchoiceUpdate(n.parts.Ctx)
	if !active {
		n.setActive(false)
		return n.parts.Listener.SequencerStopped()
	}
	if err := n.parts.Listener.SequencerStarted(); err != nil {
		return fmt.Errorf("failed to notify sequencer-state listener of start: %w", err)
	}
	n.setActive(true)
	return nil
}

// Start serves admin_startSequencer: head must be the chain's unsafe head.
func (n *node) Start(ctx context.Context, head common.Hash) error {
	if n.Active() {
		return sequencing.ErrSequencerAlreadyStarted
	}
	if have := n.parts.Controller.UnsafeL2HeadLocked(); have.Hash != head {
		return fmt.Errorf("block hash does not match: head %s, received %s", have, head)
	}
	if err := n.parts.Listener.SequencerStarted(); err != nil {
		return fmt.Errorf("failed to notify sequencer-state listener of start: %w", err)
	}
	n.log.Info("Chain is sequenced again", "chain", n.chain.id)
	n.setActive(true)
	return nil
}

// Stop serves admin_stopSequencer, and op-supernode calls it before it rewinds a
// chain. It returns when nothing of a slot can reach the engine any more: a block
// handed over later would put back what the rewind takes away.
func (n *node) Stop(ctx context.Context) (common.Hash, error) {
	was := n.Active()
	n.setActive(false)
	n.abort()
	// Also for whoever comes second: the first may have run out of time.
	if err := n.chain.idle(ctx); err != nil {
		return common.Hash{}, fmt.Errorf("chain %s: waiting for the slot in progress: %w", n.chain.id, err)
	}
	if !was {
		return common.Hash{}, sequencing.ErrSequencerAlreadyStopped
	}
	if err := n.parts.Listener.SequencerStopped(); err != nil {
		return common.Hash{}, fmt.Errorf("failed to notify sequencer-state listener of stop: %w", err)
	}
	n.log.Info("Chain is no longer sequenced", "chain", n.chain.id)
	return n.parts.Controller.UnsafeL2HeadLocked().Hash, nil
}

// SetMaxSafeLag bounds how many blocks the unsafe head may be ahead of the safe head; 0 lifts the bound.
func (n *node) SetMaxSafeLag(_ context.Context, blocks uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.standing.maxSafeLag = blocks
	return nil
}

// OverrideLeader is op-conductor's; the rotation decides who leads here.
func (n *node) OverrideLeader(context.Context) error {
	return errors.New("no conductor: the shared sequencer's rotation decides who leads")
}

func (n *node) ConductorEnabled(context.Context) bool { return false }

func (n *node) SetRecoverMode(mode bool) {
	n.mu.Lock()
	n.standing.recover = mode
	n.mu.Unlock()
	n.parts.Origins.SetRecoverMode(mode)
}

// Close is called after RunLoop has returned.
func (n *node) Close() { n.parts.Gossip.Stop() }
