package executor_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	optypes "github.com/ethereum-optimism/optimism/op-core/types"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"
	"github.com/ethereum-optimism/optimism/op-service/testutils"
	"github.com/ethereum-optimism/optimism/op-supernode/supernode/activity/interop"
	cc "github.com/ethereum-optimism/optimism/op-supernode/supernode/chain_container"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// judge runs upstream's own verification, op-supernode's interop activity, over chains
// that a test makes.
type judge struct {
	activation, expiry uint64
	chains             map[eth.ChainID]*judgedChain
	last               uint64 // timestamp
	// invalidated has the blocks that the verification refused, by timestamp.
	invalidated map[uint64][]chainID
	// unexpected is set when that was a block without another form.
	unexpected error
	cancel     context.CancelFunc
	mu         sync.Mutex
}

// judgedChain is a chain as op-supernode sees it. Where a block has another form, that one
// is shown until it is invalidated.
type judgedChain struct {
	cc.InteropChain // what is not implemented below is not called
	judge           *judge
	id              chainID
	genesis         uint64 // timestamp
	blockTime       uint64
	blocks          []memoryBlock
	forms           map[uint64]memoryBlock // by number
}

func newJudge(w *world) *judge {
	j := &judge{activation: w.activation, expiry: w.expiry, chains: map[eth.ChainID]*judgedChain{}, invalidated: map[uint64][]chainID{}}
	for _, c := range w.chains {
		j.chains[c.cfg.ID.ID()] = &judgedChain{judge: j, id: c.cfg.ID, genesis: c.cfg.GenesisTime, blockTime: c.cfg.BlockTime, forms: map[uint64]memoryBlock{}}
	}
	return j
}

// run verifies every timestamp up to the last.
func (j *judge) run(t *testing.T) *interop.Interop {
	dir := t.TempDir()
	for {
		// The activity waits a second after each invalidation: end it then, and begin
		// again where it was.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		j.cancel = cancel
		chains := map[eth.ChainID]cc.InteropChain{}
		for id, c := range j.chains {
			chains[id] = c
		}
		activity := interop.New(testlog.Logger(t, log.LevelCrit), j.activation, j.expiry, chains, dir, j, 0, nil)
		require.NotNil(t, activity)
		err := activity.Start(ctx)
		require.ErrorIs(t, err, context.Canceled)
		done, err := activity.VerifiedAtTimestamp(j.last)
		require.NoError(t, err)
		if done {
			return activity
		}
		require.NoError(t, activity.Stop(ctx))
		require.NoError(t, j.unexpected)
	}
}

func (j *judge) L1BlockRefByNumber(_ context.Context, n uint64) (eth.L1BlockRef, error) {
	return eth.L1BlockRef{Hash: common.Hash{1}, Number: n}, nil
}

func (c *judgedChain) at(n uint64) memoryBlock {
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	if b, ok := c.forms[n]; ok {
		return b
	}
	return c.blocks[n]
}

func (c *judgedChain) byHash(h common.Hash) (memoryBlock, error) {
	for n := range c.blocks {
		if b := c.at(uint64(n)); b.ref.Hash == h {
			return b, nil
		}
	}
	return memoryBlock{}, fmt.Errorf("chain %s: block %s: %w", c.id, h, ethereum.NotFound)
}

func (c *judgedChain) ID() eth.ChainID                      { return c.id.ID() }
func (c *judgedChain) BlockTime() uint64                    { return c.blockTime }
func (c *judgedChain) PauseAndStopVN(context.Context) error { return nil }
func (c *judgedChain) Resume(context.Context) error         { return nil }
func (c *judgedChain) WaitReady(context.Context) error      { return nil }
func (c *judgedChain) SyncStatus(context.Context) (*eth.SyncStatus, error) {
	return &eth.SyncStatus{}, nil
}
func (c *judgedChain) FirstSafeHeadTimestamp(context.Context) (uint64, error) { return c.genesis, nil }

func (c *judgedChain) OptimisticAt(_ context.Context, ts uint64) (l2, l1 eth.BlockID, err error) {
	if ts > c.judge.last {
		c.judge.cancel()
		return eth.BlockID{}, eth.BlockID{}, ethereum.NotFound
	}
	return c.at((ts - c.genesis) / c.blockTime).ref.ID(), eth.BlockID{Hash: common.Hash{1}, Number: 1}, nil
}

func (c *judgedChain) FetchReceipts(_ context.Context, id eth.BlockID) (eth.BlockInfo, optypes.Receipts, error) {
	b, err := c.byHash(id.Hash)
	if err != nil {
		return nil, nil, err
	}
	info := &testutils.MockBlockInfo{InfoHash: b.ref.Hash, InfoParentHash: b.ref.ParentHash, InfoNum: b.ref.Number, InfoTime: b.ref.Time}
	return info, optypes.FromGethReceipts(types.Receipts{{Logs: b.logs}}), nil
}

func (c *judgedChain) OutputV0AtBlockNumber(_ context.Context, n uint64) (*eth.OutputV0, error) {
	return &eth.OutputV0{BlockHash: c.at(n).ref.Hash}, nil
}

func (c *judgedChain) PayloadByHash(_ context.Context, h common.Hash) (*eth.ExecutionPayloadEnvelope, error) {
	b, err := c.byHash(h)
	if err != nil {
		return nil, err
	}
	return &eth.ExecutionPayloadEnvelope{ExecutionPayload: &eth.ExecutionPayload{
		BlockHash: b.ref.Hash, ParentHash: b.ref.ParentHash, BlockNumber: eth.Uint64Quantity(b.ref.Number), Timestamp: eth.Uint64Quantity(b.ref.Time),
	}}, nil
}

func (c *judgedChain) InvalidateBlock(_ context.Context, n uint64, h common.Hash, ts uint64, _, _ eth.Bytes32, _ *eth.ExecutionPayloadEnvelope) (bool, error) {
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	c.judge.cancel()
	c.judge.invalidated[ts] = append(c.judge.invalidated[ts], c.id)
	if b, ok := c.forms[n]; !ok || b.ref.Hash != h {
		c.judge.unexpected = fmt.Errorf("chain %s: block %d at %d has no other form", c.id, n, ts)
		return false, c.judge.unexpected
	}
	delete(c.forms, n)
	return true, nil
}

// Upstream's verification and the executor come to the same verdicts. Slots are built by
// the executor; in some, a transaction it refused is put into a block all the same, behind
// its back. Upstream has to invalidate exactly the blocks the executor refuses, and those
// that depend on them in turn, and nothing else. What the executor alone refuses (a message
// that is valid but not declared) is not forced.
func TestAgainstUpstream(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.chains, w.whole = w.chains[:3], true
			h := newMemory()
			r := newRun(t, seedDraw{rand.New(rand.NewPCG(seed, 1))}, h, w)
			j := newJudge(w)
			want := map[uint64][]chainID{}
			for range 60 {
				for chain := range r.judgedSlot(j) {
					want[w.slot] = append(want[w.slot], chain)
				}
			}
			for _, c := range w.chains {
				j.chains[c.cfg.ID.ID()].blocks = c.blocks
			}
			j.last = w.slot
			activity := j.run(t)
			defer func() { require.NoError(t, activity.Stop(context.Background())) }()
			for _, m := range []map[uint64][]chainID{want, j.invalidated} {
				for _, chains := range m {
					slices.Sort(chains)
				}
			}
			require.Equal(t, want, j.invalidated)
			require.NotEmpty(t, want)
			for _, c := range w.chains {
				head, _, err := activity.LatestVerifiedL2Block(c.cfg.ID.ID())
				require.NoError(t, err)
				require.Equal(t, c.head().ID(), head)
			}
			t.Log(r.tally)
		})
	}
}

// ahead says whether the transaction executes a message of this timestamp that is not
// earlier. Upstream's check for cycles then invalidates not only the block but also those
// that earlier messages of its chain depend on, although nothing is wrong with them:
// TestOrderAgainstUpstream has the cases that can be compared.
func (w *world) ahead(t *worldTx) bool {
	for i, m := range t.messages {
		from := w.chain(m.Identifier.ChainID)
		if from == nil || from.open == nil || m.Identifier.Timestamp != w.slot {
			continue
		}
		n := len(from.open.logs)
		if from == t.chain {
			n += i
		}
		if int(m.Identifier.LogIndex) >= n {
			return true
		}
	}
	return false
}

// judgedSlot builds a slot, may force a bad transaction into it, and says which chains'
// blocks the executor refuses for it.
func (r *run) judgedSlot(j *judge) map[chainID]bool {
	w := r.w
	parents := w.begin(r.d)
	slot := r.x.Begin(sequence.Slot(w.slot), parents)
	var order []*worldTx
	for range 2 + r.d.intn(8) {
		if tx := w.makeTx(r.d, 10); tx != nil && r.apply(slot, tx) {
			order = append(order, tx)
		}
	}
	if tx := w.makeTx(r.d, 80); tx != nil && w.slot >= w.activation && w.chance(r.d, 50) && !w.ahead(tx) {
		_, broken := w.judge(tx)
		if !slices.Equal(broken, []executor.Rule{executor.RuleDeclared}) {
			if !r.apply(slot, tx) {
				tx.take()
				r.tally["forced"]++
			}
			order = append(order, tx)
		}
	}

	// Refused blocks are replaced by empty ones, and what depended on them falls too.
	refused := map[chainID]bool{}
	for {
		slot = r.x.Begin(sequence.Slot(w.slot), parents)
		more := map[chainID]bool{}
		for _, tx := range order {
			id := tx.chain.cfg.ID
			if refused[id] || more[id] {
				continue
			}
			err := slot.Apply(id, []executor.Tx{tx.tx})
			var me *executor.MessageError
			if errors.As(err, &me) {
				more[id] = true
			} else {
				require.NoError(r.t, err)
			}
		}
		if len(more) == 0 {
			break
		}
		maps.Copy(refused, more)
	}
	for _, c := range w.openChains() {
		if !refused[c.cfg.ID] {
			continue
		}
		j.chains[c.cfg.ID.ID()].forms[c.open.ref.Number] = *c.open
		w.salt++
		c.open = &memoryBlock{ref: c.open.ref}
		c.open.ref.Hash = blockHash(c.cfg.ID, c.open.ref.Number, w.salt)
	}
	// slot has the logs of refused blocks up to the refusal: apply what is left alone.
	slot = r.x.Begin(sequence.Slot(w.slot), parents)
	for _, tx := range order {
		if !refused[tx.chain.cfg.ID] {
			require.NoError(r.t, slot.Apply(tx.chain.cfg.ID, []executor.Tx{tx.tx}))
		}
	}
	require.NoError(r.t, r.x.Commit(context.Background(), slot, w.seal()))
	return refused
}

// Where the executor is stricter than upstream, and where it must not be.
func TestOrderAgainstUpstream(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		// make gives the logs of 901's and 903's blocks, which are blocks 4 at 1001+…
		make        func(a, b eth.BlockRef) (onA, onB []*types.Log)
		invalidated []chainID // by upstream
		executor    bool
	}{
		"sent first": {
			func(a, _ eth.BlockRef) ([]*types.Log, []*types.Log) {
				l := plain(0, "x")
				return []*types.Log{l}, []*types.Log{executing(0, identify(901, a, l))}
			}, nil, true,
		},
		"sent later in the global order": {
			func(_, b eth.BlockRef) ([]*types.Log, []*types.Log) {
				l := plain(0, "x")
				return []*types.Log{executing(0, identify(903, b, l))}, []*types.Log{l}
			}, nil, false,
		},
		"a cycle": {
			func(a, b eth.BlockRef) ([]*types.Log, []*types.Log) {
				// 901: [0] executes 903's [1], [1] is sent. 903: [0] executes 901's [1], [1] is sent.
				onA, onB := plain(1, "a"), plain(1, "b")
				return []*types.Log{executing(0, identify(903, b, onB)), onA}, []*types.Log{executing(0, identify(901, a, onA)), onB}
			}, []chainID{901, 903}, false,
		},
		"itself, earlier": {
			func(a, _ eth.BlockRef) ([]*types.Log, []*types.Log) {
				l := plain(0, "x")
				return []*types.Log{l, executing(1, identify(901, a, l))}, nil
			}, nil, true,
		},
		"itself, later in the transaction": {
			func(a, _ eth.BlockRef) ([]*types.Log, []*types.Log) {
				l := plain(1, "x")
				return []*types.Log{executing(0, identify(901, a, l)), l}, nil
			}, []chainID{901}, false,
		},
		// Nothing is wrong with 901's block, which depends on 901 alone: but 903 depends on it.
		"itself, behind a message of a bystander": {
			func(a, b eth.BlockRef) ([]*types.Log, []*types.Log) {
				sent := plain(0, "x")
				onA := executing(1, identify(901, a, sent))
				return []*types.Log{sent, onA}, []*types.Log{executing(0, identify(901, a, onA)), executing(1, identify(903, b, plain(1, "x")))}
			}, []chainID{901, 903}, false,
		},
		"undecodable": {
			func(a, _ eth.BlockRef) ([]*types.Log, []*types.Log) {
				l := executing(0, identify(901, a, plain(0, "x")))
				l.Data = l.Data[1:]
				return []*types.Log{l}, nil
			}, nil, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.chains, w.whole = []*worldChain{w.chains[0], w.chains[2]}, true
			h := newMemory()
			d := seedDraw{rand.New(rand.NewPCG(1, 1))}
			r := newRun(t, d, h, w)
			j := newJudge(w)
			for w.slot < 1004 {
				w.begin(d)
				w.seal()
			}
			parents := w.begin(d)
			a, b := w.chains[0], w.chains[1]
			onA, onB := tc.make(a.open.ref, b.open.ref)
			slot := r.x.Begin(sequence.Slot(w.slot), parents)
			tx := func(logs []*types.Log) []executor.Tx {
				var ms []messages.Message
				for _, l := range logs {
					if m, _ := messages.MessageFromLog(l); m != nil {
						ms = append(ms, *m)
					}
				}
				return []executor.Tx{{Logs: logs, AccessList: declare(ms...)}}
			}
			err := slot.Apply(901, tx(onA))
			if err == nil {
				err = slot.Apply(903, tx(onB))
			}
			require.Equal(t, tc.executor, err == nil, "%v", err)
			a.open.logs, b.open.logs = onA, onB
			for _, c := range w.chains { // so that both can be invalidated
				jc := j.chains[c.cfg.ID.ID()]
				jc.forms[c.open.ref.Number] = *c.open
				c.open = &memoryBlock{ref: c.open.ref}
				c.open.ref.Hash[0]++
			}
			w.seal()
			for _, c := range w.chains {
				j.chains[c.cfg.ID.ID()].blocks = c.blocks
			}
			j.last = w.slot
			require.NoError(t, j.run(t).Stop(context.Background()))
			slices.Sort(j.invalidated[w.slot])
			require.Equal(t, tc.invalidated, j.invalidated[w.slot])
		})
	}
}
