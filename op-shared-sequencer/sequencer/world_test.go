package sequencer

// The world that the sequencer is tested in. Around it everything is what it works with
// in production (ledger, history, executor, bundle pool, relayer, solo rotation; and of
// upstream the engine controller, attributes builder, origin selector, gossiper and event
// system), but for the engines (enginefake), L1, and the rest of the driver: driver.go
// below stands for op-node's event loop. Time is a synctest bubble's.

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/big"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/forks"
	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	optypes "github.com/ethereum-optimism/optimism/op-core/types"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"
	"github.com/ethereum-optimism/optimism/op-service/testutils"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/solo"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

type chainID = sequence.ChainID

const (
	chainA, chainB = chainID(901), chainID(902)
	l1BlockTime    = 6 // seconds
	l1Start        = 100
)

var bg = context.Background()

// accounts have ether on every chain: 0…7 send bundles, 8 plain transactions, 9 relays,
// and the others are the chaos test's.
var accounts = func() []*ecdsa.PrivateKey {
	var out []*ecdsa.PrivateKey
	for i := range 300 {
		key, err := crypto.ToECDSA(crypto.Keccak256(fmt.Appendf(nil, "account %d", i)))
		if err != nil {
			panic(err)
		}
		out = append(out, key)
	}
	return out
}()

// world is one operator's process with its engines.
type world struct {
	t       *testing.T
	log     log.Logger
	dir     string
	cfg     Config
	genesis uint64 // time of it
	l1      *l1Chain
	chains  []*testChain
	deps    depset.DependencySet

	// Of the process; anew after a restart.
	ledger  *checkedLedger
	history *history.History
	pool    *bundlepool.Pool
	exec    *executor.Executor
	seq     *Sequencer

	rotation func(m rotation.Machine) (rotation.Rotation, error) // nil: solo

	cleanup []func() // before stop, also of a test that failed

	mu        sync.Mutex
	reports   []SlotReport
	failed    []error
	committed []Committed // as the listener is told
	agreed    []*ledger.Record
	onSeal    func() // after each slot
	fatal     []error
	also      Observer // is told, too
	metrics   Metrics
	// saveErr and appendErr are what becomes of saving bundles and of the ledger.
	saveErr, appendErr error
}

// testChain is a rollup, its engine, and its virtual node if one runs.
type testChain struct {
	w         *world
	id        chainID
	engine    *enginefake.Engine
	rollup    *rollup.Config
	view      *l1View
	authority *authority // nil: no supernode
	node      *driverNode
	plain     uint64 // nonce of the next plain transaction

	mu     sync.Mutex
	gossip []eth.BlockID
	handed handed
	freely bool // see mayReplace
	// onL1 are the blocks up to the last that derivation made, by number: it makes them
	// again when they are lost.
	onL1 []*eth.ExecutionPayloadEnvelope
}

// inWorld runs a test in a world of two chains with 1 s blocks.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir)
		defer func() {
			for _, f := range w.cleanup {
				f()
			}
			for _, c := range w.chains {
				c.engine.SetHook(nil)
			}
			w.stop()
		}()
		test(t, w)
	})
}

// level of what is logged, when a test is to be looked into.
var level = log.LevelCrit

// addresses of the accounts.
var addresses = func() (out []common.Address) {
	for _, k := range accounts {
		out = append(out, crypto.PubkeyToAddress(k.PublicKey))
	}
	return out
}()

func newWorld(t *testing.T, dir string) *world {
	w := &world{t: t, log: testlog.Logger(t, level), dir: dir, cfg: DefaultConfig(), genesis: uint64(time.Now().Unix())}
	w.l1 = newL1(w.genesis)
	deps := map[eth.ChainID]*depset.StaticConfigDependency{}
	for _, id := range []chainID{chainA, chainB} {
		e := enginefake.New(id, w.genesis, addresses...)
		cfg := &rollup.Config{
			Genesis: rollup.Genesis{
				L1: w.l1.at(l1Start).ID(), L2: e.Genesis().ID(), L2Time: w.genesis,
				SystemConfig: eth.SystemConfig{BatcherAddr: common.Address{1}, GasLimit: 30_000_000, EIP1559Params: eth.Bytes8{0, 0, 0, 250, 0, 0, 0, 6}},
			},
			BlockTime: 1, MaxSequencerDrift: 600, SeqWindowSize: 3600, ChannelTimeoutBedrock: 300,
			L1ChainID: big.NewInt(900), L2ChainID: id.ID().ToBig(),
		}
		cfg.ActivateAtGenesis(forks.Lagoon)
		w.chains = append(w.chains, &testChain{w: w, id: id, engine: e, rollup: cfg, view: &l1View{l1: w.l1}})
		deps[id.ID()] = &depset.StaticConfigDependency{}
	}
	var err error
	w.deps, err = depset.NewStaticConfigDependencySet(deps)
	require.NoError(t, err)
	return w
}

func (w *world) a() *testChain { return w.chains[0] }
func (w *world) b() *testChain { return w.chains[1] }

// start starts the process: the sequencer, then the virtual nodes.
func (w *world) start() {
	w.startSequencer()
	for _, c := range w.chains {
		c.startNode()
	}
}

func (w *world) startSequencer() {
	logger := w.log
	log, err := ledger.Open(filepath.Join(w.dir, "ledger"), logger)
	require.NoError(w.t, err)
	w.ledger = &checkedLedger{Ledger: log, w: w}
	hcfg := history.Config{Dir: filepath.Join(w.dir, "messages"), MessageExpiry: w.deps.MessageExpiryWindow(), Log: logger}
	chains := map[chainID]Chain{}
	for _, c := range w.chains {
		hcfg.Chains = append(hcfg.Chains, executor.ChainConfig{
			ID: c.id, BlockTime: c.rollup.BlockTime, InteropTime: c.rollup.LagoonTime, Genesis: c.rollup.Genesis.L2, GenesisTime: w.genesis,
		})
		chains[c.id] = Chain{Engine: c.engine, Rollup: c.rollup}
	}
	w.history, err = history.Open(hcfg)
	require.NoError(w.t, err)
	w.exec, err = executor.New(executor.Config{DependencySet: w.deps, Chains: hcfg.Chains, History: w.history})
	require.NoError(w.t, err)
	w.pool = bundlepool.New(bundlepool.DefaultConfig(chainA, chainB), logger)
	require.NoError(w.t, w.pool.Load(filepath.Join(w.dir, "bundles")))
	relayer, err := relay.New(accounts[9], relay.Config{Gas: 100_000})
	require.NoError(w.t, err)
	w.seq, err = New(w.cfg, Deps{
		Log: logger, Clock: clock.SystemClock, Chains: chains, Executor: w.exec, History: w.history, Ledger: w.ledger,
		Bundles: w.pool, Relayer: relayer, Observer: w, Listener: w, Metrics: w.metrics, SaveBundles: w.saveBundles,
		Fatal:    func(err error) { w.set(func() { w.fatal = append(w.fatal, err) }) },
		Rotation: w.makeRotation,
	})
	require.NoError(w.t, err)
	w.seq.settled = time.Hour // what keepers are to do they have to be woken for
	require.NoError(w.t, w.seq.Start(bg))
}

func (w *world) makeRotation(m rotation.Machine) (rotation.Rotation, error) {
	if w.rotation != nil {
		return w.rotation(m)
	}
	return solo.New(m, clock.SystemClock, w.log), nil
}

// stop ends the process in the order that the service does.
func (w *world) stop() {
	if w.seq != nil {
		w.end()
		require.NoError(w.t, w.pool.Save(filepath.Join(w.dir, "bundles")))
	}
	w.seq = nil
}

// crash ends the process without saving what it keeps in memory.
func (w *world) crash() {
	w.end()
	w.seq = nil
}

func (w *world) end() {
	require.NoError(w.t, w.seq.Stop(bg))
	for _, c := range w.chains {
		c.stopNode()
		require.Zero(w.t, c.engine.Sessions(), "chain %s: sessions left behind", c.id)
	}
	require.NoError(w.t, w.history.Close())
	require.NoError(w.t, w.ledger.Close())
}

func (w *world) SubblockCommitted(c Committed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.committed = append(w.committed, c)
}

func (w *world) SlotSealed(r SlotReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
	if w.also != nil {
		w.also.SlotSealed(r)
	}
	if w.onSeal != nil {
		w.onSeal()
	}
}

func (w *world) SlotFailed(_ sequence.Slot, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, err)
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) saveBundles() error {
	w.mu.Lock()
	err := w.saveErr
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return w.pool.Save(filepath.Join(w.dir, "bundles"))
}

// sealed are the reports of the slots from one on.
func (w *world) sealed(from sequence.Slot) (out []SlotReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if r.Slot >= from {
			out = append(out, r)
		}
	}
	return out
}

// run lets time pass.
func (w *world) run(d time.Duration) { time.Sleep(d); synctest.Wait() }

// runTo lets time pass up to some part of a slot of the present second: 0 is its begin.
func (w *world) runTo(part time.Duration) {
	w.run(time.Until(time.Now().Truncate(time.Second).Add(time.Second + part)))
}

func (w *world) now() sequence.Slot { return sequence.Slot(time.Now().Unix()) }

// lockstep: the chains stand on blocks of the same slot, which is the present one or the next.
func (w *world) lockstep() {
	w.t.Helper()
	a, b := w.a().head(), w.b().head()
	require.Equal(w.t, a.Time, b.Time, "heads %s and %s; %v; %v", a, b, w.seq.Status(), w.failures())
	require.GreaterOrEqual(w.t, a.Time, uint64(w.now()), "behind the clock; %v; %v", w.seq.Status(), w.failures())
	require.LessOrEqual(w.t, a.Time, uint64(w.now())+1)
}

// failures are the newest reasons why slots failed.
func (w *world) failures() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed[max(0, len(w.failed)-5):]
}

// bundle sends a bundle.
func (w *world) bundle(expiry sequence.Slot, items ...sequence.BundleItem) common.Hash {
	w.t.Helper()
	h, err := w.pool.Add(&sequence.Bundle{Items: items, Expiry: expiry})
	require.NoError(w.t, err)
	return h
}

func (w *world) status(h common.Hash) bundlepool.Status {
	w.t.Helper()
	st, err := w.pool.Status(h)
	require.NoError(w.t, err)
	return st
}

// mayReplace says that the test has agreed blocks replaced without an L1 reorg.
func (c *testChain) mayReplace() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freely = true
}

// head is the head of the chain's driver.
func (c *testChain) head() eth.L2BlockRef { return c.node.ec.UnsafeL2HeadLocked() }

// ref is a block of the chain that the driver stands on.
func (c *testChain) ref(number uint64) eth.L2BlockRef {
	c.w.t.Helper()
	for hash := c.head().Hash; ; {
		r, err := execEngine{c}.L2BlockRefByHash(bg, hash)
		require.NoError(c.w.t, err)
		if r.Number == number {
			return r
		}
		hash = r.ParentHash
	}
}

// includes says in which block of the driver's chain a transaction is, 0 if in none.
func (c *testChain) includes(raw []byte) uint64 {
	n, _ := c.engine.Includes(c.head().Hash, enginefake.Hash(raw))
	return n
}

// sendPlain puts plain transactions into the engine's pool.
func (c *testChain) sendPlain(n int) (last []byte) {
	for range n {
		last = enginefake.Tx(accounts[8], c.id, c.plain, enginefake.Log("plain"))
		c.engine.AddToPool(last)
		c.plain++
	}
	return last
}

func item(c *testChain, raw []byte) sequence.BundleItem {
	return sequence.BundleItem{Chain: c.id, Transaction: raw}
}

func relayOn(c *testChain) sequence.BundleItem { return sequence.BundleItem{Chain: c.id} }

// l1Chain is L1: a block every 6 s, orphaned ones still found by hash.
type l1Chain struct {
	mu     sync.Mutex
	start  uint64 // time of the first block
	blocks []*testutils.MockBlockInfo
	byHash map[common.Hash]*testutils.MockBlockInfo
	branch int
	times  func(number uint64) uint64 // nil: a block every 6 s
}

func newL1(start uint64) *l1Chain {
	return &l1Chain{start: start, byHash: map[common.Hash]*testutils.MockBlockInfo{}}
}

func (l *l1Chain) time(number uint64) uint64 {
	if l.times != nil {
		return l.times(number)
	}
	return l.start + (number-l1Start)*l1BlockTime
}

// at is the canonical block at a height, whether it is time for it or not.
func (l *l1Chain) at(number uint64) *testutils.MockBlockInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uint64(len(l.blocks)) <= number-l1Start {
		n := l1Start + uint64(len(l.blocks))
		b := &testutils.MockBlockInfo{
			InfoNum: n, InfoTime: l.time(n), InfoBaseFee: big.NewInt(7), InfoBlobBaseFee: big.NewInt(1), InfoGasLimit: 30_000_000,
			InfoHash: crypto.Keccak256Hash(fmt.Appendf(nil, "L1 block %d of branch %d", n, l.branch)), InfoParentBeaconRoot: &common.Hash{3},
		}
		if n > l1Start {
			b.InfoParentHash = l.blocks[len(l.blocks)-1].InfoHash
		}
		l.blocks = append(l.blocks, b)
		l.byHash[b.InfoHash] = b
	}
	return l.blocks[number-l1Start]
}

// reorg replaces the blocks from a height on.
func (l *l1Chain) reorg(from uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.branch++
	l.blocks = l.blocks[:min(from-l1Start, uint64(len(l.blocks)))]
}

// canonical says whether a block is in L1.
func (l *l1Chain) canonical(id eth.BlockID) bool { return l.at(id.Number).InfoHash == id.Hash }

// l1View is L1 as one virtual node sees it.
type l1View struct {
	l1 *l1Chain

	mu    sync.Mutex
	lag   time.Duration // blocks are seen so long after their time
	ahead time.Duration // or before it
	err   error         // of every call
}

func (v *l1View) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

// head is the newest block seen.
func (v *l1View) head() uint64 {
	v.mu.Lock()
	at := time.Now().Add(v.ahead - v.lag)
	v.mu.Unlock()
	n := uint64(l1Start)
	for !time.Unix(int64(v.l1.at(n+1).InfoTime), 0).After(at) {
		n++
	}
	return n
}

func (v *l1View) failing() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

func (v *l1View) L1BlockRefByLabel(context.Context, eth.BlockLabel) (eth.L1BlockRef, error) {
	return v.l1.at(v.head()).BlockRef(), v.failing()
}

func (v *l1View) L1BlockRefByNumber(_ context.Context, number uint64) (eth.L1BlockRef, error) {
	if err := v.failing(); err != nil {
		return eth.L1BlockRef{}, err
	}
	if number > v.head() {
		return eth.L1BlockRef{}, ethereum.NotFound
	}
	return v.l1.at(number).BlockRef(), nil
}

func (v *l1View) InfoByHash(_ context.Context, hash common.Hash) (eth.BlockInfo, error) {
	if err := v.failing(); err != nil {
		return nil, err
	}
	v.l1.mu.Lock()
	defer v.l1.mu.Unlock()
	if b := v.l1.byHash[hash]; b != nil {
		return b, nil
	}
	return nil, ethereum.NotFound
}

func (v *l1View) L1BlockRefByHash(ctx context.Context, hash common.Hash) (eth.L1BlockRef, error) {
	b, err := v.InfoByHash(ctx, hash)
	if err != nil {
		return eth.L1BlockRef{}, err
	}
	return eth.InfoToL1BlockRef(b), nil
}

func (v *l1View) FetchReceipts(ctx context.Context, hash common.Hash) (eth.BlockInfo, optypes.Receipts, error) {
	b, err := v.InfoByHash(ctx, hash)
	return b, nil, err
}

var _ Observer = (*world)(nil)
