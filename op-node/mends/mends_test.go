package mends

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/lru"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-node/metrics"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sync"
	"github.com/ethereum-optimism/optimism/op-service/client"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/event"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
)

var secret = [32]byte{7}

// scene is an op-geth and an op-node's client of it over the authenticated RPC.
type scene struct {
	chain  *enginetest.Chain
	engine engine.Engine
	client *sources.EngineClient
}

func newScene(tb testing.TB, accounts int) *scene {
	tb.Helper()
	quiet := log.NewLogger(log.DiscardHandler())
	s := &scene{chain: enginetest.NewChain(901, accounts)}
	n, err := embedded.Start(embedded.Config{Chain: s.chain.ID, Genesis: s.chain.Genesis, JWTSecret: secret, Log: quiet})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, n.Close()) })
	s.engine = n.Engine()
	conn, err := rpc.DialOptions(context.Background(), n.AuthEndpoint(), rpc.WithHTTPAuth(node.NewJWTAuth(secret)))
	require.NoError(tb, err)
	tb.Cleanup(conn.Close)
	// As op-node makes it: the engine is trusted.
	s.chain.Rollup.Genesis.L2 = s.head(tb).ID()
	cfg := &sources.EngineClientConfig{L2ClientConfig: *sources.L2ClientSimpleConfig(s.chain.Rollup, true, 100, 100)}
	s.client, err = sources.NewEngineClient(client.NewBaseRPCClient(conn), quiet, nil, cfg)
	require.NoError(tb, err)
	return s
}

func (s *scene) head(tb testing.TB) engine.BlockInfo {
	tb.Helper()
	h, err := s.engine.Head(context.Background())
	require.NoError(tb, err)
	return h
}

// block puts a block on parent, at the head of the chain.
func (s *scene) block(tb testing.TB, parent engine.BlockInfo, txs [][]byte) engine.BlockInfo {
	tb.Helper()
	hash := s.stored(tb, parent, txs).ExecutionPayload.BlockHash
	require.NoError(tb, s.engine.SetHead(context.Background(), hash, common.Hash{}, common.Hash{}))
	return s.head(tb)
}

// stored puts a block on parent, beside the chain.
func (s *scene) stored(tb testing.TB, parent engine.BlockInfo, txs [][]byte) *eth.ExecutionPayloadEnvelope {
	tb.Helper()
	ctx := context.Background()
	session, err := s.engine.Open(ctx, parent.ID(), s.chain.Attributes(parent))
	require.NoError(tb, err)
	results, err := session.Execute(ctx, txs, false)
	require.NoError(tb, err)
	for _, r := range results {
		require.NoError(tb, r.Err)
	}
	payload, err := session.Seal(ctx)
	require.NoError(tb, err)
	require.NoError(tb, s.engine.Insert(ctx, payload.ExecutionPayload.BlockHash))
	return payload
}

// transfers are n transactions, one from each account, at the given nonce.
func (s *scene) transfers(n int, nonce uint64) [][]byte {
	txs := make([][]byte, n)
	for i := range txs {
		txs[i] = s.chain.Transfer(i, nonce, enginetest.Recipient(i))
	}
	return txs
}

// upstreamRef is how upstream finds a block's reference by number.
func (s *scene) upstreamRef(ctx context.Context, number uint64) (eth.L2BlockRef, error) {
	envelope, err := s.client.PayloadByNumber(ctx, number)
	if err != nil {
		return eth.L2BlockRef{}, err
	}
	return derive.PayloadToBlockRef(s.chain.Rollup, envelope.ExecutionPayload)
}

// The cache must not hide that the chain has another block at the number now.
func TestL2BlockRefByNumber(t *testing.T) {
	s := newScene(t, 2)
	ctx := context.Background()
	genesis := s.head(t)
	check := func(want engine.BlockInfo) {
		t.Helper()
		for range 2 { // downloaded, then recognised
			got, err := s.client.L2BlockRefByNumber(ctx, want.Number)
			require.NoError(t, err)
			require.Equal(t, want.Hash, got.Hash)
			upstream, err := s.upstreamRef(ctx, want.Number)
			require.NoError(t, err)
			require.Equal(t, upstream, got)
		}
	}
	check(genesis)
	one := s.block(t, genesis, s.transfers(1, 0))
	check(one)
	two := s.block(t, one, s.transfers(1, 1))
	check(two)

	other := s.block(t, genesis, s.transfers(2, 0))
	require.NotEqual(t, one.Hash, other.Hash)
	check(other)
	_, err := s.client.L2BlockRefByNumber(ctx, two.Number)
	require.True(t, errors.Is(err, ethereum.NotFound), "%v", err)
	require.NoError(t, s.engine.SetHead(ctx, two.Hash, common.Hash{}, common.Hash{}))
	check(one)
	check(two)
}

// sent counts what is sent of blocks.
type sent struct {
	opengine.ExecEngine
	payloads, byNumber int
}

func (s *sent) L2BlockRefByNumber(ctx context.Context, number uint64) (eth.L2BlockRef, error) {
	s.byNumber++
	return s.ExecEngine.L2BlockRefByNumber(ctx, number)
}

func (s *sent) NewPayload(ctx context.Context, p *eth.ExecutionPayload, root *common.Hash) (*eth.PayloadStatusV1, error) {
	s.payloads++
	return s.ExecEngine.NewPayload(ctx, p, root)
}

// controller is upstream's engine controller, at the chain's head, and what it sends.
func (s *scene) controller(tb testing.TB) (*opengine.EngineController, *sent) {
	tb.Helper()
	return s.supervised(tb, nil)
}

func (s *scene) supervised(tb testing.TB, authority rollup.SuperAuthority) (*opengine.EngineController, *sent) {
	tb.Helper()
	count := &sent{ExecEngine: s.client}
	c := opengine.NewEngineController(context.Background(), count, log.NewLogger(log.DiscardHandler()), metrics.NoopMetrics,
		s.chain.Rollup, &sync.Config{}, nil, event.NoopEmitter{}, authority)
	head, err := s.client.L2BlockRefByNumber(context.Background(), s.head(tb).Number)
	require.NoError(tb, err)
	c.SetUnsafeHead(head)
	c.SetLocalSafeHead(head)
	c.SetFinalizedHead(head)
	return c, count
}

func (s *scene) ref(tb testing.TB, payload *eth.ExecutionPayloadEnvelope) eth.L2BlockRef {
	tb.Helper()
	ref, err := derive.PayloadToBlockRef(s.chain.Rollup, payload.ExecutionPayload)
	require.NoError(tb, err)
	return ref
}

// take gives the controller a block, as its sequencer does.
func (s *scene) take(tb testing.TB, c *opengine.EngineController, payload *eth.ExecutionPayloadEnvelope) {
	tb.Helper()
	ref := s.ref(tb, payload)
	require.NoError(tb, c.ProcessPayload(context.Background(), payload, ref, time.Now()))
	require.Equal(tb, ref, c.UnsafeL2HeadLocked())
	require.Equal(tb, ref.Hash, s.head(tb).Hash)
}

// A payload of which is said that its block is stored becomes the head without being sent; any other is sent.
func TestAnswerStored(t *testing.T) {
	s := newScene(t, 2)
	c, count := s.controller(t)
	var stored *eth.ExecutionPayload
	c.AnswerStored(func(payload *eth.ExecutionPayload) bool { return payload == stored })
	for i, sent := range []int{0, 1, 1} {
		payload := s.stored(t, s.head(t), s.transfers(2, uint64(i)))
		stored = payload.ExecutionPayload
		if i == 1 {
			again := *stored // another payload, though of the same block
			stored = &again
		}
		s.take(t, c, payload)
		require.Equal(t, sent, count.payloads)
	}
	// An engine that does not have it says so, as it would after a newPayload that it has lost.
	payload := s.stored(t, s.head(t), s.transfers(2, 3))
	payload.ExecutionPayload.BlockHash = common.Hash{1}
	stored = payload.ExecutionPayload
	before := s.head(t)
	require.NoError(t, c.ProcessPayload(context.Background(), payload, s.ref(t, payload), time.Now()), "upstream asks again with the next block")
	require.Equal(t, before, s.head(t))
}

// verified is a supernode that has verified one block.
type verified struct {
	rollup.SuperAuthority
	block eth.BlockID
	asked *int // for the finalized head
}

func (v verified) FullyVerifiedL2Head(context.Context) (rollup.VerifierHead, bool) {
	return rollup.VerifierHead{Source: rollup.VerifierHeadVerified, Block: v.block}, true
}

func (v verified) FinalizedL2Head(ctx context.Context) (rollup.VerifierHead, bool) {
	*v.asked++
	return v.FullyVerifiedL2Head(ctx)
}

func (verified) IsDenied(uint64, common.Hash) (bool, error) { return false, nil }

// Whether the safe head is canonical is asked of the engine once, and again when the chain may have changed.
func TestRememberCanonical(t *testing.T) {
	s := newScene(t, 2)
	safe := s.head(t).ID()
	finalized := 0
	c, count := s.supervised(t, verified{block: safe, asked: &finalized})
	asked := func(times int) int {
		before := count.byNumber
		for range times {
			require.Equal(t, safe, c.SafeL2Head().ID())
		}
		return count.byNumber - before
	}
	require.Equal(t, 5, asked(5), "by upstream")
	now := time.Unix(1000, 0)
	c.AnswerStored(func(*eth.ExecutionPayload) bool { return true }) // in this order, as the sequencer does
	c.RememberCanonical(func() time.Time { return now })
	require.Equal(t, 1, asked(5))
	require.Zero(t, asked(5))
	with := func(f func()) int {
		before := count.byNumber
		f()
		asked(5)
		return count.byNumber - before
	}
	finalized = 0
	genesis := s.head(t)
	require.Equal(t, 1, with(func() { s.take(t, c, s.stored(t, genesis, s.transfers(2, 0))) }), "what was the head before is not known")
	require.Equal(t, 6, finalized, "by upstream, for one block: why VerifiedDB remembers results")
	require.Zero(t, with(func() { s.take(t, c, s.stored(t, s.head(t), s.transfers(2, 1))) }), "a block on top changes nothing below")
	now = now.Add(2 * time.Second)
	require.Equal(t, 1, asked(5), "the engine may have lost it")
	now = now.Add(time.Second)
	require.Zero(t, asked(5))

	other := s.stored(t, genesis, s.transfers(1, 0))
	parent, err := s.client.L2BlockRefByHash(context.Background(), genesis.Hash)
	require.NoError(t, err)
	c.SetUnsafeHead(parent) // upstream takes a block on top of its head alone
	require.Equal(t, 1, with(func() { s.take(t, c, other) }), "another chain")
	lost := s.stored(t, s.head(t), s.transfers(1, 1))
	require.Zero(t, asked(5))
	lost.ExecutionPayload.BlockHash = common.Hash{1}
	require.Equal(t, 1, with(func() {
		require.NoError(t, c.ProcessPayload(context.Background(), lost, s.ref(t, lost), now))
	}), "an engine that has lost one block may have lost others")
}

// anchored is a supernode whose safe head is the block of a time.
type anchored struct {
	verified
	time uint64
}

func (a anchored) FullyVerifiedL2Head(context.Context) (rollup.VerifierHead, bool) {
	return rollup.VerifierHead{Source: rollup.VerifierHeadAnchor, Timestamp: a.time}, true
}

// An engine whose head is set to a block in its chain has those above still: what was read of them does not
// outlive a block that takes their place.
func TestRememberCanonicalAbove(t *testing.T) {
	s := newScene(t, 2)
	genesis := s.head(t)
	one := s.block(t, genesis, s.transfers(2, 0))
	other := s.stored(t, genesis, s.transfers(1, 0))
	c, count := s.supervised(t, anchored{verified{block: genesis.ID(), asked: new(int)}, s.chain.Rollup.TimestampForBlock(one.Number)})
	parent, err := s.client.L2BlockRefByHash(context.Background(), genesis.Hash)
	require.NoError(t, err)
	c.SetUnsafeHead(parent)
	c.SetLocalSafeHead(parent)
	c.SetFinalizedHead(parent)
	c.RememberCanonical(func() time.Time { return time.Unix(1000, 0) })
	c.TryUpdateEngine(context.Background()) // derivation begins a block on genesis
	require.Equal(t, one.Hash, s.head(t).Hash, "it is in the engine's chain")
	c.SafeL2Head()
	before := count.byNumber
	c.SafeL2Head()
	require.Equal(t, before, count.byNumber, "the block above is remembered")
	s.take(t, c, other)
	c.SafeL2Head()
	require.Greater(t, count.byNumber, before, "and is another one now")
}

const blockTxs = 1000

// perCall is how long f takes on average.
func perCall(b *testing.B, n int, f func() error) time.Duration {
	b.Helper()
	start := time.Now()
	for range n {
		require.NoError(b, f())
	}
	return time.Since(start) / time.Duration(n)
}

// report compares two ways of doing the same in one run.
func report(b *testing.B, upstream, mended time.Duration) {
	b.ReportMetric(0, "ns/op") // the loop measures both
	b.ReportMetric(float64(upstream.Microseconds())/1000, "upstream-ms")
	b.ReportMetric(float64(mended.Microseconds())/1000, "mended-ms")
	b.ReportMetric(float64(upstream)/float64(mended), "times-faster")
}

// BenchmarkL2BlockRefByNumber asks for the reference of a block of 1000 transactions,
// as EngineController.SafeL2Head does about 32 times per payload.
func BenchmarkL2BlockRefByNumber(b *testing.B) {
	s := newScene(b, blockTxs)
	ctx := context.Background()
	head := s.block(b, s.head(b), s.transfers(blockTxs, 0))
	_, err := s.client.L2BlockRefByNumber(ctx, head.Number) // the first call downloads it either way
	require.NoError(b, err)
	for b.Loop() {
		upstream := perCall(b, 32, func() error { _, err := s.upstreamRef(ctx, head.Number); return err })
		mended := perCall(b, 32, func() error { _, err := s.client.L2BlockRefByNumber(ctx, head.Number); return err })
		report(b, upstream, mended)
	}
}

// BenchmarkSystemConfig asks for the system config of a parent block of 1000
// transactions, as the attributes builder does in every slot: from the engine, and
// from a cache that the sealed payload was put into.
func BenchmarkSystemConfig(b *testing.B) {
	s := newScene(b, blockTxs)
	ctx := context.Background()
	parent := s.head(b)
	var upstream, mended time.Duration
	own := lru.NewCache[common.Hash, eth.SystemConfig](8)
	slots := 0
	for nonce := uint64(0); b.Loop(); nonce++ {
		b.StopTimer()
		parent = s.block(b, parent, s.transfers(blockTxs, nonce)) // a new one: upstream caches by hash
		payload, err := s.engine.Payload(ctx, parent.Hash)
		require.NoError(b, err)
		b.StartTimer()

		var fetched, cached eth.SystemConfig
		upstream += perCall(b, 1, func() (err error) { fetched, err = s.client.SystemConfigByL2Hash(ctx, parent.Hash); return err })
		mended += perCall(b, 1, func() error {
			cfg, err := derive.PayloadToSystemConfig(s.chain.Rollup, payload.ExecutionPayload)
			own.Add(parent.Hash, cfg)
			cached, _ = own.Get(parent.Hash)
			return err
		})
		require.Equal(b, fetched, cached)
		slots++
	}
	report(b, upstream/time.Duration(slots), mended/time.Duration(slots))
}

// BenchmarkAnswerStored hands blocks of 1000 transactions over that the engine has stored.
func BenchmarkAnswerStored(b *testing.B) {
	s := newScene(b, blockTxs)
	c, _ := s.controller(b)
	answered := false
	c.AnswerStored(func(*eth.ExecutionPayload) bool { return answered })
	var took [2]time.Duration
	for nonce := uint64(0); b.Loop(); nonce += 2 {
		for i := range took {
			payload := s.stored(b, s.head(b), s.transfers(blockTxs, nonce+uint64(i)))
			answered = i == 1
			start := time.Now()
			s.take(b, c, payload)
			took[i] += time.Since(start)
		}
	}
	report(b, took[0]/time.Duration(b.N), took[1]/time.Duration(b.N))
}
