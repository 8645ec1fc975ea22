package ledger

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var _ Importer = engine.Engine(nil)

// fakeEngine keeps the part of op-geth that a refill meets: a block that is stored is
// not executed again, so its state may be missing after a crash until it becomes the head.
type fakeEngine struct {
	blocks  map[common.Hash]engine.BlockInfo
	state   map[common.Hash]bool
	head    common.Hash
	labels  [2]common.Hash // safe and finalized as last told, zero when not
	imports []uint64
	failAt  uint64 // Import of this number fails once
}

var errFlaky = errors.New("connection lost")

func newFakeEngine(genesis eth.BlockID) *fakeEngine {
	e := &fakeEngine{blocks: map[common.Hash]engine.BlockInfo{}, state: map[common.Hash]bool{}}
	e.put(engine.BlockInfo{Hash: genesis.Hash, Number: genesis.Number})
	return e
}

// put stores a block with its state and makes it the head.
func (e *fakeEngine) put(b engine.BlockInfo) {
	e.blocks[b.Hash], e.state[b.Hash], e.head = b, true, b.Hash
}

// crash takes the engine back to a number. Of the blocks above, the lowest n stay without their state.
func (e *fakeEngine) crash(number uint64, n int) {
	if at, err := e.Block(context.Background(), number); err == nil {
		e.head = at.Hash
	}
	var above []engine.BlockInfo
	for _, b := range e.blocks {
		if b.Number > number {
			above = append(above, b)
		}
	}
	slices.SortFunc(above, func(a, b engine.BlockInfo) int { return cmp.Compare(a.Number, b.Number) })
	for i, b := range above {
		delete(e.state, b.Hash)
		if i >= n {
			delete(e.blocks, b.Hash)
		}
	}
}

func (e *fakeEngine) Head(context.Context) (engine.BlockInfo, error) { return e.blocks[e.head], nil }

func (e *fakeEngine) Block(_ context.Context, number uint64) (engine.BlockInfo, error) {
	for h := e.head; ; {
		b, ok := e.blocks[h]
		if !ok || b.Number < number {
			return engine.BlockInfo{}, engine.ErrNotFound
		}
		if b.Number == number {
			return b, nil
		}
		h = b.ParentHash
	}
}

func (e *fakeEngine) BlockByHash(_ context.Context, hash common.Hash) (engine.BlockInfo, error) {
	if b, ok := e.blocks[hash]; ok {
		return b, nil
	}
	return engine.BlockInfo{}, engine.ErrNotFound
}

func (e *fakeEngine) Import(_ context.Context, env *eth.ExecutionPayloadEnvelope) error {
	p := env.ExecutionPayload
	if n := uint64(p.BlockNumber); n == e.failAt {
		e.failAt = 0
		return errFlaky
	}
	if _, ok := e.blocks[p.BlockHash]; ok {
		return nil
	}
	if _, ok := e.blocks[p.ParentHash]; !ok {
		return engine.ErrUnknownParent
	}
	if !e.state[p.ParentHash] {
		return engine.ErrParentState
	}
	e.imports = append(e.imports, uint64(p.BlockNumber))
	e.state[p.BlockHash] = true
	e.blocks[p.BlockHash] = engine.BlockInfo{
		Hash: p.BlockHash, Number: uint64(p.BlockNumber), ParentHash: p.ParentHash, Time: uint64(p.Timestamp),
	}
	return nil
}

func (e *fakeEngine) SetHead(ctx context.Context, head, safe, finalized common.Hash) error {
	b, ok := e.blocks[head]
	if !ok {
		return engine.ErrNotFound
	}
	for h := head; finalized != (common.Hash{}) && h != finalized; h = e.blocks[h].ParentHash {
		if _, ok := e.blocks[h]; !ok {
			return errors.New("final block not in canonical chain")
		}
	}
	for h := head; !e.state[h]; h = e.blocks[h].ParentHash {
		if _, ok := e.blocks[h]; !ok {
			return engine.ErrParentState
		}
		e.state[h] = true
	}
	if at, err := e.Block(ctx, b.Number); err == nil && at.Hash == head {
		e.labels = [2]common.Hash{safe, finalized}
		return nil // op-geth does not go back to an ancestor
	}
	e.head = head
	e.labels = [2]common.Hash{safe, finalized}
	return nil
}

func firstParent(chain sequence.ChainID) eth.BlockID {
	return eth.BlockID{Hash: common.BigToHash(chain.ID().ToBig()), Number: 10}
}

func feed(e *fakeEngine, chain sequence.ChainID, recs []*Record) {
	for _, r := range recs {
		p := r.Payloads[chain].ExecutionPayload
		e.put(engine.BlockInfo{Hash: p.BlockHash, Number: uint64(p.BlockNumber), ParentHash: p.ParentHash, Time: uint64(p.Timestamp)})
	}
}

// After a kill -9 each engine is back at its last persisted state: not the same one.
func TestRefillAfterUnevenLoss(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := open(t, dir)
	engines := map[sequence.ChainID]*fakeEngine{chainA: newFakeEngine(firstParent(chainA)), chainB: newFakeEngine(firstParent(chainB))}
	recs := fill(t, l, 1000, 1094) // up to block 105
	for chain, e := range engines {
		feed(e, chain, recs)
	}
	require.NoError(t, l.Close())
	l = open(t, dir)

	engines[chainA].crash(83, 0)
	engines[chainB].crash(24, 3)
	for chain, e := range engines {
		want := recs[len(recs)-1].Payloads[chain].ExecutionPayload.ID()
		res, err := l.Refill(ctx, chain, e)
		require.NoError(t, err)
		lost := map[sequence.ChainID]int{chainA: 22, chainB: 78}[chain]
		require.Equal(t, RefillResult{Outcome: Refilled, Imported: lost, Log: want, Engine: want}, res)
		require.True(t, slices.IsSorted(e.imports))
		require.True(t, e.state[want.Hash])

		res, err = l.Refill(ctx, chain, e)
		require.NoError(t, err)
		require.Equal(t, RefillResult{Outcome: UpToDate, Log: want, Engine: want}, res)
		require.Len(t, e.imports, lost)
	}
}

// An engine that a crash took back behind the finalized block has forgotten that there is
// one; and a log that has been told of it knows it also after its segments have gone.
func TestRefillRestoresFinality(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := open(t, dir, WithSegmentSize(20_000))
	e := newFakeEngine(firstParent(chainA))
	recs := fill(t, l, 1000, 1094)
	feed(e, chainA, recs)
	block := func(i int) eth.BlockID { return recs[i].Payloads[chainA].ExecutionPayload.ID() }
	head := block(len(recs) - 1)
	refill := func() {
		t.Helper()
		e.crash(head.Number-20, 0)
		res, err := l.Refill(ctx, chainA, e)
		require.NoError(t, err)
		require.Equal(t, Refilled, res.Outcome)
		require.Equal(t, head, res.Engine)
	}
	refill()
	require.Equal(t, [2]common.Hash{}, e.labels, "nothing is known")

	require.NoError(t, l.Finalize(ctx, chainA, block(85)))
	require.NoError(t, l.Finalize(ctx, chainA, block(80)), "an older one changes nothing")
	require.NoError(t, l.Finalize(ctx, 999, block(85)), "nor does one of a chain that is not in the log")
	refill()
	require.Equal(t, [2]common.Hash{block(85).Hash, block(85).Hash}, e.labels)

	more := fill(t, l, 1095, 1300)
	recs = append(recs, more...)
	feed(e, chainA, more)
	head = block(len(recs) - 1)
	require.NoError(t, l.Prune(ctx, chainA, head.Number-30))
	require.NoError(t, l.Prune(ctx, chainB, head.Number-30))
	require.NoError(t, l.Close())
	l = open(t, dir, WithSegmentSize(20_000))
	refill()
	require.Equal(t, [2]common.Hash{block(85).Hash, block(85).Hash}, e.labels)

	require.NoError(t, l.Finalize(ctx, chainA, eth.BlockID{Hash: common.Hash{0xbd}, Number: head.Number - 30}))
	refill()
	require.Equal(t, [2]common.Hash{}, e.labels, "nowhere")
	aside := engine.BlockInfo{Hash: common.Hash{0xbe}, Number: head.Number - 29, ParentHash: common.Hash{0xbd}}
	e.blocks[aside.Hash] = aside
	require.NoError(t, l.Finalize(ctx, chainA, aside.ID()))
	refill()
	require.Equal(t, [2]common.Hash{}, e.labels, "not of this chain")
}

// An operator that was behind makes blocks after they were agreed on. The log holds those
// too, so that a crash costs the engine nothing.
func TestRefillOfBlocksMadeLater(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := open(t, dir, WithSegmentSize(20_000))
	e := newFakeEngine(firstParent(chainA))
	recs := fill(t, l, 1000, 1003)
	var late []*eth.ExecutionPayloadEnvelope
	for slot := sequence.Slot(1004); slot < 1050; slot++ {
		r := next(t, l, slot, chainA, chainB)
		if n := len(late); n > 0 {
			r = next(t, l, slot, chainB)
			a := makePayload(t, late[n-1].ExecutionPayload.ID(), slot, "isthmus", []byte("tx"))
			payloads := maps.Clone(r.Payloads)
			payloads[chainA] = a
			_, last, _ := l.Last()
			r = makeRecord(slot, last, 2, payloads)
		}
		recs, late = append(recs, r), append(late, r.Payloads[chainA])
		behind := *r
		behind.Payloads = map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainB: r.Payloads[chainB]}
		require.NoError(t, l.Append(ctx, &behind))
	}
	before, _, _ := l.Head(chainA)
	require.Equal(t, recs[3].Payloads[chainA].ExecutionPayload.ID(), before)
	for _, env := range late {
		require.NoError(t, l.Advance(ctx, chainA, env))
		require.NoError(t, l.Advance(ctx, chainA, env), "again")
	}
	want := late[len(late)-1].ExecutionPayload.ID()
	check := func(from uint64) {
		t.Helper()
		head, time, _ := l.Head(chainA)
		require.Equal(t, want, head)
		require.Equal(t, uint64(1049), time)
		for _, env := range late[from:] {
			got, err := l.Payload(chainA, env.ExecutionPayload.BlockHash)
			require.NoError(t, err)
			require.Equal(t, env, got)
		}
		feed(e, chainA, recs)
		e.crash(uint64(late[from].ExecutionPayload.BlockNumber), 0)
		res, err := l.Refill(ctx, chainA, e)
		require.NoError(t, err)
		require.Equal(t, RefillResult{Outcome: Refilled, Imported: len(late) - 1 - int(from), Log: want, Engine: want}, res)
	}
	check(0)
	require.NoError(t, l.Close())
	l = open(t, dir, WithSegmentSize(20_000))
	check(0)
	below := uint64(late[20].ExecutionPayload.BlockNumber)
	require.NoError(t, l.Prune(ctx, chainA, below))
	require.NoError(t, l.Prune(ctx, chainB, below))
	_, err := l.Payload(chainA, late[19].ExecutionPayload.BlockHash)
	require.ErrorIs(t, err, ErrNotFound)
	check(20)
	require.NoError(t, l.Close())
	l = open(t, dir, WithSegmentSize(20_000))
	check(20)
}

func TestRefillCases(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	side := func(number uint64, parent common.Hash) engine.BlockInfo {
		return engine.BlockInfo{Hash: common.Hash{0x51, byte(number)}, Number: number, ParentHash: parent, Time: 990 + number}
	}
	// Ten blocks are logged, 11 to 20, and the engine has them.
	cases := map[string]struct {
		do      func(t *testing.T, l *Ledger, e *fakeEngine, recs []*Record)
		outcome Outcome
		head    uint64 // the engine's afterwards
		logged  bool   // which is the ledger's
		missing uint64
	}{
		"nothing to do": {func(*testing.T, *Ledger, *fakeEngine, []*Record) {}, UpToDate, 20, true, 0},
		"derived blocks on top": {func(_ *testing.T, _ *Ledger, e *fakeEngine, _ []*Record) {
			e.put(side(21, e.head))
			e.put(side(22, e.head))
		}, UpToDate, 22, false, 0},
		"stored, not yet the head": {func(_ *testing.T, _ *Ledger, e *fakeEngine, recs []*Record) {
			e.head = recs[8].Payloads[chainA].ExecutionPayload.BlockHash
		}, Refilled, 20, true, 0},
		"stored without state":    {func(_ *testing.T, _ *Ledger, e *fakeEngine, _ []*Record) { e.crash(14, 6) }, Refilled, 20, true, 0},
		"some left without state": {func(_ *testing.T, _ *Ledger, e *fakeEngine, _ []*Record) { e.crash(14, 2) }, Refilled, 20, true, 0},
		"other branch, shorter: what was agreed stands": {func(_ *testing.T, _ *Ledger, e *fakeEngine, _ []*Record) {
			e.crash(14, 0)
			e.put(side(15, e.head))
			e.put(side(16, e.head))
		}, Refilled, 20, true, 0},
		"other branch, as long: what was agreed stands": {func(_ *testing.T, _ *Ledger, e *fakeEngine, _ []*Record) {
			e.crash(19, 0)
			e.put(side(20, e.head))
		}, Refilled, 20, true, 0},
		"other branch, longer": {func(_ *testing.T, _ *Ledger, e *fakeEngine, _ []*Record) {
			e.crash(19, 0)
			e.put(side(20, e.head))
			e.put(side(21, e.head))
		}, EngineAhead, 21, false, 0},
		"void blocks are not put back": {func(t *testing.T, l *Ledger, e *fakeEngine, _ []*Record) {
			e.crash(14, 0)
			e.put(side(15, e.head))
			require.NoError(t, l.Rewind(ctx, chainA, e.blocks[e.head].ID()))
		}, UpToDate, 15, true, 0},
		"rewound to a logged block": {func(t *testing.T, l *Ledger, e *fakeEngine, recs []*Record) {
			require.NoError(t, l.Rewind(ctx, chainA, recs[4].Payloads[chainA].ExecutionPayload.ID()))
			e.crash(12, 0)
		}, Refilled, 15, true, 0},
		"derived head lost": {func(t *testing.T, l *Ledger, e *fakeEngine, _ []*Record) {
			require.NoError(t, l.Rewind(ctx, chainA, eth.BlockID{Hash: common.Hash{0x77}, Number: 15}))
			e.crash(13, 0)
		}, Gap, 13, false, 15},
		"gap between runs": {func(t *testing.T, l *Ledger, e *fakeEngine, _ []*Record) {
			_, last, _ := l.Last()
			env := makePayload(t, eth.BlockID{Hash: common.Hash{0x78}, Number: 25}, 1025, "isthmus")
			require.NoError(t, l.Append(ctx, makeRecord(1025, last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env})))
			e.crash(18, 0)
		}, Gap, 18, false, 25},
		"derivation filled the gap": {func(t *testing.T, l *Ledger, e *fakeEngine, _ []*Record) {
			_, last, _ := l.Last()
			e.put(side(21, e.head))
			env := makePayload(t, e.blocks[e.head].ID(), 1025, "isthmus")
			require.NoError(t, l.Append(ctx, makeRecord(1025, last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env})))
		}, Refilled, 22, true, 0},
		"pruned too far": {func(t *testing.T, l *Ledger, e *fakeEngine, _ []*Record) {
			require.NoError(t, l.Prune(ctx, chainA, 16))
			require.NoError(t, l.Prune(ctx, chainB, 16))
			e.crash(12, 0)
		}, Gap, 12, false, 15},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, t.TempDir())
			recs := fill(t, l, 1001, 1010)
			e := newFakeEngine(firstParent(chainA))
			feed(e, chainA, recs)
			c.do(t, l, e, recs)
			before := e.head
			for range 2 { // it is idempotent
				res, err := l.Refill(ctx, chainA, e)
				require.NoError(t, err)
				require.Equal(t, c.outcome, res.Outcome, "%s", res.Outcome)
				require.Equal(t, c.head, e.blocks[e.head].Number)
				require.Equal(t, e.blocks[e.head].ID(), res.Engine)
				require.Equal(t, c.missing, res.Missing.Number)
				require.Equal(t, c.logged, res.Engine == res.Log)
				if c.outcome == Gap || c.outcome == EngineAhead {
					require.Equal(t, before, e.head, "the engine was to be left alone")
				}
				if c.outcome == Refilled {
					c.outcome = UpToDate
				}
			}
		})
	}
	l := open(t, t.TempDir())
	res, err := l.Refill(ctx, chainA, newFakeEngine(firstParent(chainA)))
	require.NoError(t, err)
	require.Equal(t, RefillResult{}, res)
}

func TestRefillGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := open(t, t.TempDir())
	recs := fill(t, l, 1001, 1150)
	e := newFakeEngine(firstParent(chainA))
	e.failAt = 140
	_, err := l.Refill(ctx, chainA, e)
	require.ErrorIs(t, err, errFlaky)
	require.ErrorContains(t, err, "chain 901")
	require.Equal(t, uint64(10+2*refillStep), e.blocks[e.head].Number, "the head moves along")
	res, err := l.Refill(ctx, chainA, e)
	require.NoError(t, err)
	require.Equal(t, Refilled, res.Outcome)
	require.Equal(t, recs[149].Payloads[chainA].ExecutionPayload.ID(), res.Engine)
	require.Len(t, e.imports, 150, "no block is imported twice")
}

// Whatever an engine lost, a refill ends on the ledger's head with its state.
func TestRefillAnyLoss(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	recs := fill(t, l, 1001, 1080)
	rapid.Check(t, func(t *rapid.T) {
		e := newFakeEngine(firstParent(chainA))
		feed(e, chainA, recs)
		for range rapid.IntRange(1, 3).Draw(t, "crashes") {
			e.crash(rapid.Uint64Range(10, 90).Draw(t, "back to"), rapid.IntRange(0, 80).Draw(t, "left without state"))
			e.failAt = rapid.Uint64Range(0, 200).Draw(t, "fails at")
			_, err := l.Refill(context.Background(), chainA, e)
			if err != nil {
				require.ErrorIs(t, err, errFlaky)
				_, err = l.Refill(context.Background(), chainA, e)
			}
			require.NoError(t, err)
			head := e.blocks[e.head]
			require.Equal(t, recs[79].Payloads[chainA].ExecutionPayload.ID(), head.ID())
			require.True(t, e.state[e.head])
		}
	})
}

func TestAncestor(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := open(t, t.TempDir())
	_, ok := l.Ancestor(chainA, 5)
	require.False(t, ok)
	recs := fill(t, l, 1001, 1010)
	for i, r := range recs {
		id, ok := l.Ancestor(chainA, uint64(11+i))
		require.True(t, ok)
		require.Equal(t, r.Payloads[chainA].ExecutionPayload.ID(), id)
	}
	id, ok := l.Ancestor(chainA, 10)
	require.True(t, ok, "the run's parent")
	require.Equal(t, firstParent(chainA), id)
	_, ok = l.Ancestor(chainA, 9)
	require.False(t, ok)
	_, ok = l.Ancestor(chainA, 21)
	require.False(t, ok)
	require.NoError(t, l.Rewind(ctx, chainA, recs[4].Payloads[chainA].ExecutionPayload.ID()))
	_, ok = l.Ancestor(chainA, 16)
	require.False(t, ok, "void")
}
