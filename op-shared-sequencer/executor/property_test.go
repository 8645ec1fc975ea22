package executor_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// rapidDraw spreads what rapid draws, which is mostly small, over the whole range.
type rapidDraw struct {
	t *rapid.T
	n uint64
}

func (d *rapidDraw) intn(n int) int {
	d.n += 0x9e3779b97f4a7c15
	x := d.n ^ uint64(rapid.Byte().Draw(d.t, "n"))
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9 // splitmix64
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int((x ^ x>>31) % uint64(n))
}

type seedDraw struct{ *rand.Rand }

func (d seedDraw) intn(n int) int { return d.IntN(n) }

type tally map[string]int

// run drives executor and model through slots, side by side.
type run struct {
	t     require.TestingT
	d     draw
	w     *world
	x     *executor.Executor
	h     executor.History
	tally tally
}

func newRun(t require.TestingT, d draw, h executor.History, w *world) *run {
	x := newExecutor(t, executor.Config{DependencySet: set(t, w.expiry, w.set()...), Chains: w.configs(), History: h})
	for _, c := range w.chains {
		require.NoError(t, h.Append(context.Background(), c.cfg.ID, c.head(), nil))
	}
	return &run{t: t, d: d, w: w, x: x, h: h, tally: tally{}}
}

// apply gives both the same transaction and compares the verdicts.
func (r *run) apply(slot *executor.Slot, tx *worldTx) bool {
	at, broken := r.w.judge(tx)
	txs := []executor.Tx{tx.tx}
	switch r.d.intn(3) {
	case 0:
		slot.Prepare(tx.chain.cfg.ID, txs)
	case 1: // for another slot, that knows nothing: it must not count
		r.x.Begin(slot.Number()+1, nil).Prepare(tx.chain.cfg.ID, txs)
	}
	err := slot.Apply(tx.chain.cfg.ID, txs)
	r.tally["messages"] += len(tx.messages)
	if len(broken) == 0 {
		require.NoError(r.t, err)
		for i := range tx.messages {
			if tx.messages[i].Identifier.Timestamp == r.w.slot {
				r.tally["executed in the same slot"]++
			} else {
				r.tally["executed later"]++
			}
		}
		tx.take()
		return true
	}
	var me *executor.MessageError
	require.True(r.t, errors.As(err, &me), "model refuses by %v, executor: %v", broken, err)
	require.True(r.t, slices.Contains(broken, me.Rule), "model refuses by %v, executor: %v", broken, err)
	require.Equal(r.t, uint32(tx.tx.Logs[at].Index), me.LogIndex)
	require.Equal(r.t, tx.tx.Hash, me.Tx)
	r.tally["refused: "+me.Rule.String()]++
	return false
}

// step runs one slot; prob. bad percent of messages are wrong.
func (r *run) step(bad int) {
	w := r.w
	parents := w.begin(r.d)
	slot := r.x.Begin(sequence.Slot(w.slot), parents)
	var kept []*worldTx
	for range r.d.intn(8) {
		mark, lengths, n := slot.Mark(), w.lengths(), len(kept)
		failed := false
		for range 1 + r.d.intn(4) {
			tx := w.makeTx(r.d, bad)
			if tx == nil {
				break
			}
			if r.apply(slot, tx) {
				kept = append(kept, tx)
			} else {
				failed = true
			}
		}
		if failed && w.chance(r.d, 70) || w.chance(r.d, 15) {
			require.NoError(r.t, slot.Rollback(mark))
			w.cut(lengths)
			kept = kept[:n]
			r.tally["rolled back"]++
		}
	}
	// A slot that was rolled back is a slot in which it never happened: the same
	// transactions apply, prepared at once and in calls of other lengths, and leave the same
	// logs.
	fresh := r.x.Begin(sequence.Slot(w.slot), parents)
	var on []chainID
	var lists [][]executor.Tx
	for len(kept) > 0 {
		n := 1
		for n < len(kept) && kept[n].chain == kept[0].chain {
			n++
		}
		var txs []executor.Tx
		for _, tx := range kept[:n] {
			txs = append(txs, tx.tx)
		}
		on, lists = append(on, kept[0].chain.cfg.ID), append(lists, txs)
		kept = kept[n:]
	}
	var cores sync.WaitGroup
	for i, txs := range lists {
		if r.d.intn(4) > 0 {
			cores.Go(func() { fresh.Prepare(on[i], txs) })
		}
	}
	cores.Wait()
	for i, txs := range lists {
		require.NoError(r.t, fresh.Apply(on[i], txs))
	}
	if w.chance(r.d, 50) {
		slot = fresh
	}
	sealed := w.seal()
	require.NoError(r.t, r.x.Commit(context.Background(), slot, sealed))
	for _, c := range w.chains {
		if head, ok := r.h.Head(c.cfg.ID); ok {
			require.Equal(r.t, c.head(), head)
		}
	}
	r.tally["slots"]++
}

// The executor's verdicts are those of the reference model on random histories of four
// chains, with every kind of wrong message mixed in, rollbacks, chains that are left out of
// slots and reorgs. -rapid.checks sets how many histories.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	total := tally{}
	rapid.Check(t, func(rt *rapid.T) {
		w, h := newWorld(), newMemory()
		d := &rapidDraw{t: rt, n: rapid.Uint64().Draw(rt, "seed")}
		newRun(rt, d, h, w).history(total, 40, func() {
			for _, c := range w.chains {
				h.blocks[c.cfg.ID] = slices.Clone(c.blocks)
			}
		})
	})
	t.Log(total)
	for _, rule := range []executor.Rule{
		executor.RuleDependencySet, executor.RuleExecutingActivation, executor.RuleInitiatingActivation, executor.RuleTimestamp,
		executor.RuleExpiry, executor.RuleDeclared, executor.RuleExists, executor.RuleOrder,
	} {
		require.NotZero(t, total["refused: "+rule.String()], "the histories never broke rule %q", rule)
	}
	require.NotZero(t, total["executed in the same slot"])
	require.NotZero(t, total["executed later"])
}

// The same over the message history on disk.
func TestAgainstModelOnDisk(t *testing.T) {
	t.Parallel()
	total := tally{}
	for seed := range uint64(4) {
		w := newWorld()
		h := openHistory(t, w)
		newRun(t, seedDraw{rand.New(rand.NewPCG(seed, 0))}, h, w).history(total, 60, func() {
			for _, c := range w.chains {
				require.NoError(t, h.Rewind(c.cfg.ID, c.head().ID()))
			}
		})
		require.NoError(t, h.Close())
	}
	t.Log(total)
}

// history drives slots; rewind takes the message history back to the world's heads.
func (r *run) history(total tally, slots int, rewind func()) {
	for range slots {
		r.step(15)
		if r.w.slot > 1003 && r.w.chance(r.d, 5) {
			r.w.goBack(r.w.slot - uint64(1+r.d.intn(5)))
			rewind()
			r.tally["reorgs"]++
		}
	}
	for k, n := range r.tally {
		total[k] += n
	}
}

func openHistory(t *testing.T, w *world) *history.History {
	dir, err := os.MkdirTemp(t.TempDir(), "history")
	require.NoError(t, err)
	h, err := history.Open(history.Config{Dir: dir, Chains: w.configs(), MessageExpiry: w.expiry, Log: testlog.Logger(t, log.LevelCrit)})
	require.NoError(t, err)
	return h
}

// A mark that was rolled back behind cannot be used again, even when as much was applied
// since; a mark that was not stays good.
func TestMarks(t *testing.T) {
	t.Parallel()
	s := newScene(t, 1400, 1500)
	slot := newExecutor(t, s.cfg).Begin(1500, s.parents)
	add := func(index uint) {
		require.NoError(t, slot.Apply(chainA, []executor.Tx{{Logs: []*types.Log{plain(index, "x")}}}))
	}
	start := slot.Mark()
	add(0)
	one := slot.Mark()
	add(1)
	two := slot.Mark()
	require.NoError(t, slot.Rollback(two))
	require.NoError(t, slot.Rollback(one))
	require.ErrorIs(t, slot.Rollback(two), executor.ErrMisuse)
	add(1)
	require.ErrorIs(t, slot.Rollback(two), executor.ErrMisuse, "the same length, other logs")
	require.NoError(t, slot.Rollback(one))
	require.NoError(t, slot.Rollback(start))
	require.ErrorIs(t, slot.Rollback(one), executor.ErrMisuse)
	add(0)
	other := newExecutor(t, s.cfg).Begin(1500, s.parents)
	require.ErrorIs(t, other.Rollback(start), executor.ErrMisuse, "another slot's mark")
}

// Apply adds all of a call or nothing, and wants the block's logs in order.
func TestApplyIsWhole(t *testing.T) {
	t.Parallel()
	s := newScene(t, 1400, 1500)
	slot := newExecutor(t, s.cfg).Begin(1500, s.parents)
	bad := s.sent
	bad.PayloadHash[0]++
	refusedBy(t, slot.Apply(chainA, []executor.Tx{
		{Logs: []*types.Log{plain(0, "x"), plain(1, "y")}},
		{AccessList: declare(s.sent, bad), Logs: []*types.Log{executing(2, s.sent), executing(3, bad)}},
	}), executor.RuleExists)
	require.ErrorIs(t, slot.Apply(chainA, []executor.Tx{{Logs: []*types.Log{plain(2, "x")}}}), executor.ErrMisuse, "nothing was added")
	require.ErrorIs(t, slot.Apply(chainA, []executor.Tx{{Logs: []*types.Log{plain(0, "x"), plain(0, "x")}}}), executor.ErrMisuse)
	require.ErrorIs(t, slot.Apply(7, nil), executor.ErrMisuse, "chain without a block")
	require.NoError(t, slot.Apply(chainA, []executor.Tx{{}, {Logs: []*types.Log{plain(0, "x")}}, {}}))
	require.Equal(t, sequence.Slot(1500), slot.Number())
}

func TestCommit(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newScene(t, 1400, 1500)
	x := newExecutor(t, s.cfg)
	slot := x.Begin(1500, s.parents)
	l := plain(0, "x")
	require.NoError(t, slot.Apply(chainA, []executor.Tx{{Logs: []*types.Log{l}}}))
	good := eth.BlockRef{Hash: blockHash(chainA, 61, 0), Number: 61, ParentHash: s.parents[chainA].Hash, Time: 1500}
	for name, change := range map[string]func(*eth.BlockRef){
		"number": func(b *eth.BlockRef) { b.Number++ },
		"parent": func(b *eth.BlockRef) { b.ParentHash[0]++ },
		"time":   func(b *eth.BlockRef) { b.Time++ },
	} {
		b := good
		change(&b)
		require.ErrorIs(t, x.Commit(ctx, slot, map[chainID]eth.BlockRef{chainA: b}), executor.ErrMisuse, name)
	}
	require.ErrorIs(t, x.Commit(ctx, slot, map[chainID]eth.BlockRef{7: good}), executor.ErrMisuse)
	require.NoError(t, x.Commit(ctx, slot, map[chainID]eth.BlockRef{chainA: good}))
	next := x.Begin(1501, map[chainID]eth.BlockID{chainA: good.ID(), chainB: s.parents[chainB]})
	m := identify(chainA, good, l)
	require.NoError(t, next.Apply(chainB, []executor.Tx{{AccessList: declare(m), Logs: []*types.Log{executing(0, m)}}}))
}

// A chain that is configured and opened but whose messages nobody may execute is committed
// like the others; one that is not configured is left alone.
func TestCommitUnconfigured(t *testing.T) {
	t.Parallel()
	s := newScene(t, 1400, 1500)
	x := newExecutor(t, s.cfg)
	parent := eth.BlockID{Hash: blockHash(7, 3, 0), Number: 3}
	slot := x.Begin(1500, map[chainID]eth.BlockID{7: parent})
	require.NoError(t, slot.Apply(7, []executor.Tx{{Logs: []*types.Log{plain(0, "x")}}}))
	refusedBy(t, slot.Apply(7, []executor.Tx{{AccessList: declare(s.sent), Logs: []*types.Log{executing(1, s.sent)}}}), executor.RuleDependencySet)
	require.NoError(t, x.Commit(context.Background(), slot, map[chainID]eth.BlockRef{7: {Hash: blockHash(7, 4, 0), Number: 4, ParentHash: parent.Hash, Time: 1500}}))
	_, ok := s.history.Head(7)
	require.False(t, ok)
}

func TestRuleNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for r := executor.RuleDependencySet; r <= executor.RuleHistory; r++ {
		require.NotEmpty(t, r.String())
		require.False(t, seen[r.String()])
		seen[r.String()] = true
	}
	require.Equal(t, "rule 0", executor.Rule(0).String())
	require.Equal(t, "rule 200", fmt.Sprint(executor.Rule(200).String()))
}

// A million messages, of which every seventh or so is wrong in some way: executor and
// model never disagree on one. Seeds are fixed, so that a failure comes again.
func TestAgainstModelAMillion(t *testing.T) {
	want := 1_000_000
	if testing.Short() || raceDetector {
		want = 50_000
	}
	const workers = 4
	totals := make([]tally, workers)
	t.Run("seeds", func(t *testing.T) {
		for i := range workers {
			totals[i] = tally{}
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for seed := uint64(i); totals[i]["messages"] < want/workers; seed += workers {
					w, h := newWorld(), newMemory()
					newRun(t, seedDraw{rand.New(rand.NewPCG(seed, 1))}, h, w).history(totals[i], 60, func() {
						for _, c := range w.chains {
							h.blocks[c.cfg.ID] = slices.Clone(c.blocks)
						}
					})
				}
			})
		}
	})
	total := tally{}
	for _, part := range totals {
		for k, n := range part {
			total[k] += n
		}
	}
	t.Log(total)
	require.GreaterOrEqual(t, total["messages"], want)
}
