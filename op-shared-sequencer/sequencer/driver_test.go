package sequencer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-node/metrics"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/async"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	opsync "github.com/ethereum-optimism/optimism/op-node/rollup/sync"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/event"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// driverNode is a virtual op-node as far as its sequencer sees it: driver.NewDriver without
// derivation. What derivation does to the engine controller, tests do through do.
type driverNode struct {
	c        *testChain
	ctx      context.Context
	cancel   context.CancelFunc
	ex       *event.GlobalSyncExec
	sys      *event.Sys
	emitter  event.Emitter
	ec       *opengine.EngineController
	seq      *node
	listener *listener
	loops    sync.WaitGroup
	calls    chan func()
	closed   bool
	// gossip is upstream's, which blocks for ever once it is stopped.
	gossip *async.SimpleAsyncGossiper
	// criticalErrors end an op-node.
	criticalErrors atomic.Int32
}

// startNode starts a virtual node for the chain, with sequencing switched on.
func (c *testChain) startNode() { c.startNodeWith(true) }

func (c *testChain) startNodeWith(active bool) {
	n := &driverNode{c: c, calls: make(chan func()), listener: &listener{}}
	n.ctx, n.cancel = context.WithCancel(bg)
	n.ex = event.NewGlobalSynchronous(n.ctx)
	logger := c.w.log.New("chain", c.id)
	n.sys = event.NewSystem(logger, n.ex)
	exec := execEngine{c}
	var authority rollup.SuperAuthority
	if c.authority != nil {
		authority = c.authority
	}
	// In the order of driver.NewDriver. Without limits: time is simulated, and a limiter
	// that waits under the controller's lock would hold it up.
	free := event.WithNoEmitLimiter()
	n.ec = opengine.NewEngineController(n.ctx, exec, logger, metrics.NoopMetrics, c.rollup, &opsync.Config{}, c.view, n.sys.Register("engine-controller", nil, free), authority)
	n.emitter = n.sys.Register("sync", event.DeriverFunc(n.onEvent), free)
	n.sys.Register("engine", n.ec, free)
	n.gossip = async.NewAsyncGossiper(n.ctx, network{c}, logger, metrics.NoopMetrics)
	origins := sequencing.NewL1OriginSelector(n.ctx, logger, c.rollup, c.view)
	n.sys.Register("origin-selector", origins, free)
	n.ec.SetOriginSelectorResetter(origins)
	made := c.w.seq.Factory(c.id)(&driver.SequencerParts{
		Ctx: n.ctx, Log: logger, RollupCfg: c.rollup, DepSet: c.w.deps, L1OriginSelector: origins, L1: c.view,
		Listener: n.listener, Gossip: n.gossip, Metrics: metrics.NoopMetrics, Engine: n.ec, SuperAuthority: authority,
		L1ChainConfig: params.SepoliaChainConfig, L1Receipts: c.view, L2: exec,
	})
	n.seq = made.(*node)
	n.seq.parts.Controller = &checkedController{n}
	n.sys.Register("sequencer", made, free)
	// Upstream's actor reads unlocked, for traces, which event it is handling when it
	// emits from another goroutine: upstream's sequencer meets that race too.
	n.seq.emitter = n.sys.Register("sequencer emits", nil, free)
	c.node = n

	require.NoError(c.w.t, made.Init(n.ctx, active))
	n.loops.Go(func() { made.RunLoop(n.ctx) })
	n.loops.Go(n.loop)
	n.do(func() { n.emitter.Emit(n.ctx, rollup.ResetEvent{Err: errors.New("initial reset")}) })
}

// stopNode does what OpNode.Stop and Driver.Close do.
func (c *testChain) stopNode() {
	n := c.node
	if n == nil || n.closed {
		return
	}
	if _, err := n.seq.Stop(bg); !errors.Is(err, sequencing.ErrSequencerAlreadyStopped) {
		require.NoError(c.w.t, err)
	}
	n.close()
}

func (n *driverNode) close() {
	n.closed = true
	n.cancel()
	n.loops.Wait()
	n.seq.Close()
	n.sys.Stop()
}

// loop is the driver's event loop.
func (n *driverNode) loop() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case f := <-n.calls:
			f()
		case <-n.ex.Await():
			if err := n.ex.Drain(); err != nil && n.ctx.Err() == nil {
				n.c.w.t.Errorf("draining events: %v", err)
			}
		}
	}
}

// do runs f on the event loop.
func (n *driverNode) do(f func()) {
	select {
	case n.calls <- f:
	case <-n.ctx.Done():
	}
}

// onEvent stands for the driver's other derivers.
func (n *driverNode) onEvent(_ context.Context, ev event.Event) bool {
	switch x := ev.(type) {
	case rollup.ResetEvent:
		// Not at once: a reset that fails comes back, and simulated time would stand still.
		time.AfterFunc(resetTime, func() {
			n.do(func() { n.emitter.Emit(n.ctx, opengine.ResetEngineRequestEvent{}) })
		})
	case opengine.EngineResetConfirmedEvent:
		n.c.handed.cut(x.LocalUnsafe.Number)
	case opengine.PayloadSuccessEvent: // derivation's
		n.c.handed.cut(x.Ref.Number - 1)
		n.c.mu.Lock()
		n.c.onL1 = n.c.engine.ChainTo(x.Ref.Hash)
		n.c.mu.Unlock()
	case rollup.CriticalErrorEvent:
		n.criticalErrors.Add(1)
		if n.ctx.Err() == nil {
			n.c.w.t.Errorf("chain %s: critical error: %v", n.c.id, x.Err)
		}
	}
	return true
}

// resetTime is how long a driver takes to begin a reset.
const resetTime = 5 * time.Millisecond

// reset makes the driver find its heads again, as derivation does when L1 was reorganised.
func (c *testChain) reset() {
	n := c.node
	n.do(func() { n.emitter.Emit(n.ctx, rollup.ResetEvent{Err: errors.New("test")}) })
}

// resetTo makes the driver stand on an older block of its chain.
func (c *testChain) resetTo(number uint64) {
	to := c.ref(number)
	n := c.node
	n.do(func() {
		safe := c.genesisRef()
		n.ec.ForceReset(n.ctx, to, safe, safe, safe)
	})
}

// promote makes a block of the driver's chain local safe, as derivation does.
func (c *testChain) promote(ref eth.L2BlockRef) {
	n := c.node
	source := eth.L1BlockRef{Hash: common.Hash{9}, Number: ref.L1Origin.Number + 2}
	n.do(func() {
		n.ec.TryUpdatePendingSafe(n.ctx, ref, true, source)
		n.ec.TryUpdateLocalSafe(n.ctx, ref, true, source)
		n.emitter.Emit(n.ctx, derive.DeriverIdleEvent{}) // the engine is told when L1 was read to its end
	})
}

// derive has derivation put a block with deposits only on a parent, whatever stood there.
func (c *testChain) derive(parent eth.L2BlockRef) error {
	n := c.node
	attrs, err := n.seq.parts.Attributes.PreparePayloadAttributes(bg, parent, parent.L1Origin)
	if err != nil {
		return err
	}
	n.do(func() {
		n.emitter.Emit(n.ctx, opengine.BuildStartEvent{Attributes: &derive.AttributesWithParent{
			Attributes: attrs, Parent: parent, Concluding: true, DerivedFrom: eth.L1BlockRef{Hash: common.Hash{9}, Number: parent.L1Origin.Number + 2},
		}})
	})
	return nil
}

func (c *testChain) genesisRef() eth.L2BlockRef {
	g := &c.rollup.Genesis
	return eth.L2BlockRef{Hash: g.L2.Hash, Number: g.L2.Number, Time: g.L2Time, L1Origin: g.L1}
}

// listener is told whether the chain is sequenced.
type listener struct {
	mu     sync.Mutex
	states []bool
}

func (l *listener) note(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = append(l.states, on)
	return nil
}
func (l *listener) SequencerStarted() error { return l.note(true) }
func (l *listener) SequencerStopped() error { return l.note(false) }

// network is gossip.
type network struct{ c *testChain }

func (n network) SignAndPublishL2Payload(_ context.Context, env *eth.ExecutionPayloadEnvelope) error {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.c.gossip = append(n.c.gossip, env.ExecutionPayload.ID())
	return nil
}

// authority is a supernode's deny list.
type authority struct {
	mu     sync.Mutex
	denied map[eth.BlockID]bool
	asked  int // MaxDeniedHeight
}

func (a *authority) deny(id eth.BlockID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.denied[id] = true
}

func (a *authority) FullyVerifiedL2Head(context.Context) (rollup.VerifierHead, bool) {
	return rollup.VerifierHead{Source: rollup.VerifierHeadPreActivation}, true
}

func (a *authority) FinalizedL2Head(context.Context) (rollup.VerifierHead, bool) {
	return rollup.VerifierHead{Source: rollup.VerifierHeadPreActivation}, true
}

func (a *authority) IsDenied(number uint64, hash common.Hash) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.denied[eth.BlockID{Hash: hash, Number: number}], nil
}

func (a *authority) MaxDeniedHeight() (height uint64, found bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	for id := range a.denied {
		height, found = max(height, id.Number), true
	}
	return height, found, nil
}

// execEngine is the engine as op-node's client for it.
type execEngine struct{ c *testChain }

var _ opengine.ExecEngine = execEngine{}

// builds are the blocks that derivation builds; one at a time.
var noBuild = eth.PayloadID{1}

func (x execEngine) NewPayload(ctx context.Context, p *eth.ExecutionPayload, root *common.Hash) (*eth.PayloadStatusV1, error) {
	err := x.c.engine.Import(ctx, &eth.ExecutionPayloadEnvelope{ExecutionPayload: p, ParentBeaconBlockRoot: root})
	switch {
	case err == nil:
		return &eth.PayloadStatusV1{Status: eth.ExecutionValid, LatestValidHash: &p.BlockHash}, nil
	case errors.Is(err, engine.ErrUnknownParent):
		return &eth.PayloadStatusV1{Status: eth.ExecutionSyncing}, nil
	case errors.Is(err, engine.ErrInvalidBlock):
		return &eth.PayloadStatusV1{Status: eth.ExecutionInvalid}, nil
	default:
		return nil, err
	}
}

func (x execEngine) ForkchoiceUpdate(ctx context.Context, fc *eth.ForkchoiceState, attrs *eth.PayloadAttributes) (*eth.ForkchoiceUpdatedResult, error) {
	err := x.c.engine.SetHead(ctx, fc.HeadBlockHash, fc.SafeBlockHash, fc.FinalizedBlockHash)
	if errors.Is(err, engine.ErrNotFound) {
		return &eth.ForkchoiceUpdatedResult{PayloadStatus: eth.PayloadStatusV1{Status: eth.ExecutionSyncing}}, nil
	}
	if err != nil {
		return nil, err
	}
	out := &eth.ForkchoiceUpdatedResult{PayloadStatus: eth.PayloadStatusV1{Status: eth.ExecutionValid, LatestValidHash: &fc.HeadBlockHash}}
	if attrs != nil {
		parent, err := x.L2BlockRefByHash(ctx, fc.HeadBlockHash)
		if err != nil {
			return nil, err
		}
		s, err := x.c.engine.Open(ctx, parent.ID(), attrs)
		if err != nil {
			return nil, err
		}
		x.c.mu.Lock()
		x.c.handed.build = s
		x.c.mu.Unlock()
		out.PayloadID = &noBuild
	}
	return out, nil
}

func (x execEngine) GetPayload(ctx context.Context, _ eth.PayloadInfo) (*eth.ExecutionPayloadEnvelope, error) {
	x.c.mu.Lock()
	s := x.c.handed.build
	x.c.mu.Unlock()
	return s.Seal(ctx)
}

func (x execEngine) L2BlockRefByHash(ctx context.Context, hash common.Hash) (eth.L2BlockRef, error) {
	env, err := x.c.engine.Payload(ctx, hash)
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ethereum.NotFound, err)
	}
	if err != nil {
		return eth.L2BlockRef{}, err
	}
	return derive.PayloadToBlockRef(x.c.rollup, env.ExecutionPayload)
}

func (x execEngine) L2BlockRefByNumber(ctx context.Context, number uint64) (eth.L2BlockRef, error) {
	b, err := x.c.engine.Block(ctx, number)
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ethereum.NotFound, err)
	}
	if err != nil {
		return eth.L2BlockRef{}, err
	}
	return x.L2BlockRefByHash(ctx, b.Hash)
}

func (x execEngine) L2BlockRefByLabel(ctx context.Context, label eth.BlockLabel) (eth.L2BlockRef, error) {
	safe, finalized := x.c.engine.Labels()
	switch label {
	case eth.Safe:
		return x.L2BlockRefByHash(ctx, safe)
	case eth.Finalized:
		return x.L2BlockRefByHash(ctx, finalized)
	}
	head, err := x.c.engine.Head(ctx)
	if err != nil {
		return eth.L2BlockRef{}, err
	}
	return x.L2BlockRefByHash(ctx, head.Hash)
}

func (x execEngine) SystemConfigByL2Hash(ctx context.Context, hash common.Hash) (eth.SystemConfig, error) {
	env, err := x.c.engine.Payload(ctx, hash)
	if err != nil {
		return eth.SystemConfig{}, err
	}
	return derive.PayloadToSystemConfig(x.c.rollup, env.ExecutionPayload)
}

// handed is what of a chain was handed to its driver, since the driver last went back.
type handed struct {
	mu       sync.Mutex
	byNumber map[uint64]common.Hash
	count    int
	build    engine.Session
}

func (h *handed) cut(head uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range h.byNumber {
		if n > head {
			delete(h.byNumber, n)
		}
	}
}

func (h *handed) add(t *testing.T, ref eth.L2BlockRef) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byNumber == nil {
		h.byNumber = map[uint64]common.Hash{}
	}
	if was, ok := h.byNumber[ref.Number]; ok && was != ref.Hash {
		t.Errorf("two blocks %d handed over, no reset between: %s and %s", ref.Number, was, ref.Hash)
	}
	h.byNumber[ref.Number] = ref.Hash
	h.count++
}

func (h *handed) total() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// checkedController is the driver's engine controller, and checks what the sequencer hands over.
type checkedController struct{ n *driverNode }

func (k *checkedController) UnsafeL2HeadLocked() eth.L2BlockRef { return k.n.ec.UnsafeL2HeadLocked() }

func (k *checkedController) RequestForkchoiceUpdate(ctx context.Context) {
	k.n.ec.RequestForkchoiceUpdate(ctx)
}

func (k *checkedController) ProcessPayload(ctx context.Context, env *eth.ExecutionPayloadEnvelope, ref eth.L2BlockRef, started time.Time) error {
	c := k.n.c
	t := c.w.t
	p := env.ExecutionPayload
	if _, err := c.w.ledger.Payload(c.id, ref.Hash); err != nil && !c.w.ledger.Builds(c.id, p.ParentHash) {
		t.Errorf("chain %s: block %s is handed over and not in the ledger: %v", c.id, ref, err)
	}
	if _, ok := env.CheckBlockHash(); !ok || p.ID() != ref.ID() {
		t.Errorf("chain %s: block %s is handed over as %s", c.id, p.ID(), ref)
	}
	err := k.n.ec.ProcessPayload(ctx, env, ref, started)
	if err == nil {
		c.handed.add(t, ref)
	}
	return err
}

// checkedLedger is the ledger, and checks what is agreed.
type checkedLedger struct {
	*ledger.Ledger
	w *world
}

var _ Ledger = (*checkedLedger)(nil)

func (l *checkedLedger) Append(ctx context.Context, r *ledger.Record) error {
	l.checkSteps(r)
	l.checkReplaced(r)
	l.w.mu.Lock()
	err := l.w.appendErr
	l.w.mu.Unlock()
	if err == nil {
		err = l.Ledger.Append(ctx, r)
	}
	if err == nil {
		l.w.mu.Lock()
		l.w.agreed = append(l.w.agreed, r)
		l.w.mu.Unlock()
	}
	return err
}

// checkSteps: a slot's blocks hold what its steps say, and the steps of a bundle are consecutive.
func (l *checkedLedger) checkSteps(r *ledger.Record) {
	t := l.w.t
	var steps []sequence.Step
	for _, sub := range r.Subblocks {
		steps = append(steps, sub.Steps...)
	}
	want := map[chainID][]eth.Data{}
	for _, o := range r.Subblocks[0].Openings {
		for _, raw := range o.Deposits {
			want[o.Chain] = append(want[o.Chain], raw)
		}
	}
	seen, last := map[common.Hash]bool{}, common.Hash{}
	for _, st := range steps {
		if st.Bundle != last && st.Bundle != (common.Hash{}) {
			require.False(t, seen[st.Bundle], "slot %d: steps of bundle %s are apart", r.Slot(), st.Bundle)
			seen[st.Bundle] = true
		}
		last = st.Bundle
		for _, raw := range st.Transactions {
			want[st.Chain] = append(want[st.Chain], raw)
		}
	}
	for c, env := range r.Payloads {
		require.Equal(t, want[c], env.ExecutionPayload.Transactions, "slot %d chain %s", r.Slot(), c)
	}
	if l.w.rotation == nil { // with others, an operator may follow without a block of its own
		require.Len(t, want, len(r.Payloads))
	}
}

// checkReplaced: another block at the height of an agreed one only if its L1 origin, or
// that of one below it, is not in L1 any more.
func (l *checkedLedger) checkReplaced(r *ledger.Record) {
	agreed := l.w.records()
	for id, env := range r.Payloads {
		c := l.w.chain(id)
		c.mu.Lock()
		freely := c.freely
		c.mu.Unlock()
		if freely {
			continue
		}
		p := env.ExecutionPayload
		for i := len(agreed) - 1; i >= 0; i-- {
			old, ok := agreed[i].Payloads[id]
			if !ok || old.ExecutionPayload.BlockNumber != p.BlockNumber {
				continue
			}
			if old.ExecutionPayload.BlockHash != p.BlockHash && !c.orphaned(old, agreed[:i+1]) {
				l.w.t.Errorf("chain %s: agreed block %s is replaced by %s, and its L1 origins stand", id, old.ExecutionPayload.ID(), p.ID())
			}
			break
		}
	}
}

func (w *world) chain(id chainID) *testChain {
	for _, c := range w.chains {
		if c.id == id {
			return c
		}
	}
	return nil
}

// orphaned says whether an agreed block, or one of those it stands on, has an L1 origin that is gone.
func (c *testChain) orphaned(env *eth.ExecutionPayloadEnvelope, agreed []*ledger.Record) bool {
	for i := len(agreed) - 1; i >= 0; i-- {
		b, ok := agreed[i].Payloads[c.id]
		if !ok || b.ExecutionPayload.BlockHash != env.ExecutionPayload.BlockHash {
			continue
		}
		ref, err := derive.PayloadToBlockRef(c.rollup, b.ExecutionPayload)
		require.NoError(c.w.t, err)
		if !c.w.l1.canonical(ref.L1Origin) {
			return true
		}
		env = &eth.ExecutionPayloadEnvelope{ExecutionPayload: &eth.ExecutionPayload{BlockHash: ref.ParentHash}}
	}
	return false
}

// records are the agreed slots, in order.
func (w *world) records() []*ledger.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.agreed[:len(w.agreed):len(w.agreed)]
}
