package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/params"

	"github.com/ethereum-optimism/optimism/op-node/metrics"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/event"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// driver is a virtual op-node as its sequencer sees it: upstream's origin selector and
// attributes builder, and of the rest the rules. It lives as long as its operator's process.
type driver struct {
	o       *operator
	life    int
	id      sequence.ChainID
	engine  *enginefake.Engine
	rollup  *rollup.Config
	origins *sequencing.L1OriginSelector
	node    sequencing.SequencerIface

	head, safe eth.L2BlockRef
	traversed  eth.BlockID // how far derivation has read L1
	resetting  bool

	mu      sync.Mutex // the core works on chains in parallel
	emitted []event.Event
}

// safeDistance is how far below L1's head a block's L1 origin is when the block is safe.
// Reorgs of L1 do not reach as deep.
const (
	safeDistance  = 5
	maxReorgDepth = 2
)

func (o *operator) startDriver(id sequence.ChainID) {
	d := &driver{o: o, life: o.life, id: id, engine: o.engines[id], rollup: o.s.rollups[id]}
	o.drivers[id] = d
	ctx := context.Background()
	d.origins = sequencing.NewL1OriginSelector(ctx, o.s.log, d.rollup, o.view)
	d.node = o.seq.Attach(id, sequencer.Parts{
		Ctx: ctx, Rollup: d.rollup,
		Attributes: derive.NewFetchingAttributesBuilder(d.rollup, params.SepoliaChainConfig, o.s.deps, o.view, d),
		Origins:    d.origins, L1: o.view, Listener: listener{}, Gossip: noGossip{}, Metrics: metrics.NoopMetrics, Controller: d,
	})
	d.node.(interface{ AttachEmitter(event.Emitter) }).AttachEmitter(d)
	if err := d.node.Init(ctx, true); err != nil {
		o.s.fail("chain %s: driver does not start: %v", id, err)
	}
	runLoop(d.node)
	d.Emit(ctx, rollup.ResetEvent{Err: errors.New("initial reset")})
}

// runLoop begins the node's loop and leaves it there without a goroutine: all that the loop
// does is to say that it runs, and to wait for the end of its context.
func runLoop(node sequencing.SequencerIface) {
	defer func() {
		switch r := recover(); r {
		case nil, errWaits:
		default:
			panic(r)
		}
	}()
	node.RunLoop(endless{context.Background()})
}

var errWaits = errors.New("the loop waits")

type endless struct{ context.Context }

func (endless) Done() <-chan struct{} { panic(errWaits) }

// Emit takes an event to all of the driver, a moment later.
func (d *driver) Emit(_ context.Context, ev event.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.emitted = append(d.emitted, ev)
}

// flush schedules what was emitted.
func (d *driver) flush() {
	for _, ev := range d.emitted {
		d.o.after(time.Millisecond, func() { d.on(ev) })
	}
	d.emitted = nil
}

// on is the driver's event loop.
func (d *driver) on(ev event.Event) {
	ctx := context.Background()
	switch x := ev.(type) {
	case rollup.ResetEvent:
		d.o.s.trace(d.o, "chain %s resets: %v", d.id, x.Err)
		d.o.s.count["driver resets"]++
		if !d.resetting {
			d.resetting = true
			d.o.after(d.o.s.between(2, 250), d.reset)
		}
	case rollup.CriticalErrorEvent:
		d.o.s.fail("chain %s at operator %d: critical error: %v", d.id, d.o.index, x.Err)
	}
	d.origins.OnEvent(ctx, ev)
	d.node.OnEvent(ctx, ev)
}

// reset finds the newest block whose L1 origin stands, as upstream's sync start does.
func (d *driver) reset() {
	head, safe, err := d.findHeads()
	if err == nil {
		err = d.engine.SetHead(context.Background(), head.Hash, safe.Hash, common.Hash{})
	}
	if err != nil {
		d.o.after(d.o.s.between(100, 400), d.reset)
		return
	}
	d.resetting = false
	d.head, d.safe = head, safe
	d.o.s.trace(d.o, "chain %s was reset to %s", d.id, head)
	d.on(opengine.EngineResetConfirmedEvent{LocalUnsafe: head, LocalSafe: safe, CrossSafe: safe, Finalized: d.genesis()})
	d.forkchoice()
}

func (d *driver) findHeads() (head, safe eth.L2BlockRef, err error) {
	ctx := context.Background()
	at, err := d.engine.Head(ctx)
	if err != nil {
		return head, safe, err
	}
	ref, err := d.ref(at.Hash)
	found := false
	for ; err == nil; ref, err = d.ref(ref.ParentHash) {
		origin, err := d.o.view.L1BlockRefByNumber(ctx, ref.L1Origin.Number)
		stands := err == nil && origin.Hash == ref.L1Origin.Hash
		if err != nil && !errors.Is(err, ethereum.NotFound) {
			return head, safe, err
		}
		if !stands && err == nil {
			found = false
		}
		if !found && (stands || err != nil) { // ahead of this view of L1: it may stand
			head, found = ref, true
		}
		if ref.Number == 0 || (found && d.isSafe(ref)) {
			return head, ref, nil
		}
	}
	return head, safe, err
}

func (d *driver) isSafe(ref eth.L2BlockRef) bool {
	return ref.L1Origin.Number+safeDistance <= d.o.view.head()
}

// look is what derivation does now and then: it finds an L1 reorg, and new safe blocks.
func (d *driver) look() {
	if d.resetting || d.head == (eth.L2BlockRef{}) {
		return
	}
	ctx := context.Background()
	for _, id := range []eth.BlockID{d.head.L1Origin, d.traversed} {
		if at, err := d.o.view.L1BlockRefByNumber(ctx, id.Number); err == nil && at.Hash != id.Hash {
			d.traversed = eth.BlockID{}
			d.on(rollup.ResetEvent{Err: fmt.Errorf("L1 block %s is gone", id)})
			return
		}
	}
	newest, err := d.o.view.L1BlockRefByLabel(ctx, eth.Unsafe)
	if err == nil {
		d.traversed = newest.ID()
	}
	safe := d.safe
	for ref := d.head; ref.Number > safe.Number; {
		if d.isSafe(ref) {
			safe = ref
			break
		}
		if ref, err = d.ref(ref.ParentHash); err != nil {
			return
		}
	}
	if safe == d.safe {
		return
	}
	d.safe = safe
	if d.engine.SetHead(ctx, d.head.Hash, safe.Hash, common.Hash{}) != nil {
		return
	}
	d.on(opengine.LocalSafeUpdateEvent{Ref: safe})
	d.forkchoice()
}

func (d *driver) forkchoice() {
	d.Emit(context.Background(), opengine.ForkchoiceUpdateEvent{UnsafeL2Head: d.head, SafeL2Head: d.safe, FinalizedL2Head: d.genesis()})
}

func (d *driver) genesis() eth.L2BlockRef {
	g := &d.rollup.Genesis
	return eth.L2BlockRef{Hash: g.L2.Hash, Number: g.L2.Number, Time: g.L2Time, L1Origin: g.L1}
}

func (d *driver) ref(hash common.Hash) (eth.L2BlockRef, error) {
	env, err := d.engine.Payload(context.Background(), hash)
	if err != nil {
		return eth.L2BlockRef{}, err
	}
	ref, ok := d.o.s.refs[hash]
	if !ok {
		ref, err = derive.PayloadToBlockRef(d.rollup, env.ExecutionPayload)
		d.o.s.refs[hash] = ref
	}
	return ref, err
}

// SystemConfigByL2Hash serves the attributes builder.
func (d *driver) SystemConfigByL2Hash(ctx context.Context, hash common.Hash) (eth.SystemConfig, error) {
	env, err := d.engine.Payload(ctx, hash)
	if err != nil {
		return eth.SystemConfig{}, err
	}
	return derive.PayloadToSystemConfig(d.rollup, env.ExecutionPayload)
}

// UnsafeL2HeadLocked, RequestForkchoiceUpdate and ProcessPayload are the engine controller.
func (d *driver) UnsafeL2HeadLocked() eth.L2BlockRef { return d.head }

func (d *driver) RequestForkchoiceUpdate(context.Context) {
	if d.head != (eth.L2BlockRef{}) {
		d.forkchoice()
	}
}

func (d *driver) ProcessPayload(ctx context.Context, env *eth.ExecutionPayloadEnvelope, ref eth.L2BlockRef, _ time.Time) error {
	if env.ExecutionPayload.ParentHash != d.head.Hash {
		d.RequestForkchoiceUpdate(ctx)
		return opengine.ErrStaleBuild
	}
	d.o.mayDie(inHandOver)
	d.o.s.checkHandedOver(d, env, ref)
	err := d.engine.Import(ctx, env)
	switch {
	case errors.Is(err, engine.ErrInvalidBlock):
		return fmt.Errorf("%w: %w", opengine.ErrPayloadInvalid, err)
	case err == nil:
		err = d.engine.SetHead(ctx, ref.Hash, common.Hash{}, common.Hash{})
	}
	if err != nil {
		d.Emit(ctx, rollup.EngineTemporaryErrorEvent{Err: err})
		return err
	}
	d.head = ref
	d.o.s.refs[ref.Hash] = ref
	d.o.s.trace(d.o, "chain %s is at %s", d.id, ref)
	d.o.s.mix(uint64(d.id), ref.Number, hashed(ref.Hash))
	d.forkchoice()
	return nil
}

type listener struct{}

func (listener) SequencerStarted() error { return nil }
func (listener) SequencerStopped() error { return nil }

type noGossip struct{}

func (noGossip) Gossip(*eth.ExecutionPayloadEnvelope) {}
func (noGossip) Get() *eth.ExecutionPayloadEnvelope   { return nil }
func (noGossip) Clear()                               {}
func (noGossip) Start()                               {}
func (noGossip) Stop()                                {}
