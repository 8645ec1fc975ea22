package executor_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"
	"github.com/ethereum-optimism/optimism/op-supernode/supernode/activity/interop/raftwallogdb"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	reportPath = flag.String("report", "", "file for TestReport to write to; without it the test is skipped")
	reportLogs = flag.Int("logs", 10_000_000, "logs in the index")
	reportDir  = flag.String("dir", "", "directory for the index; default a temporary one")
)

// report is what TestReport writes.
type report struct {
	Logs     int `json:"logs"`
	Blocks   int `json:"blocks"`
	PerBlock int `json:"logsPerBlock"`

	// Messages per second on one core. Warm: of the newest blocks, which the cache holds.
	// Uniform: of all blocks alike, so that most have to be read from the index. Slot: of
	// the slot under construction.
	WarmPerSecond    float64 `json:"warmPerSecond"`
	UniformPerSecond float64 `json:"uniformPerSecond"`
	SlotPerSecond    float64 `json:"slotPerSecond"`
	// Supernode… are the same queries put to upstream's log database directly, which is what
	// op-supernode does for each message, without decoding, access lists and rules.
	SupernodeWarmPerSecond    float64 `json:"supernodeWarmPerSecond"`
	SupernodeUniformPerSecond float64 `json:"supernodeUniformPerSecond"`
	WarmRatio                 float64 `json:"warmRatio"`
	UniformRatio              float64 `json:"uniformRatio"`

	// Slot29Ms is how long it takes to verify a slot of 29 chains with 100 messages each, as
	// followers do: on all cores where no order counts, and then in the order.
	Slot29Ms float64 `json:"slot29ChainsMs"`

	BytesPerLog  float64 `json:"bytesPerLog"`  // on the disk
	RebuildS     float64 `json:"rebuildS"`     // the whole index, from receipts in memory
	HeapTenthMB  float64 `json:"heapTenthMB"`  // with a tenth of the logs
	HeapMB       float64 `json:"heapMB"`       // with all
	CacheLimitMB float64 `json:"cacheLimitMB"` // of which the cache may be this much

	CPUs int    `json:"cpus"`
	Go   string `json:"go"`
}

// madeUp is a chain of blocks with the same logs each, made when they are asked for.
type madeUp struct {
	id     chainID
	blocks uint64
	logs   []*types.Log
}

func (m *madeUp) block(n uint64) eth.BlockRef { return ref(m.id, n, n, 0) }

func (m *madeUp) Head(context.Context) (eth.BlockRef, error) { return m.block(m.blocks), nil }

func (m *madeUp) Block(_ context.Context, n uint64) (eth.BlockRef, error) { return m.block(n), nil }

func (m *madeUp) Receipts(context.Context, common.Hash) (types.Receipts, error) {
	return types.Receipts{{Logs: m.logs}}, nil
}

// perSecond runs what f makes with numbers of messages, for two seconds. Making it does not
// count.
func perSecond(t *testing.T, messages int, f func() func()) float64 {
	runtime.GC()
	for begin := time.Now(); time.Since(begin) < time.Second/2; {
		f()() // caches of the processor, and of the disk
	}
	var took time.Duration
	n := 0
	for took < 2*time.Second {
		run := f()
		begin := time.Now()
		run()
		took += time.Since(begin)
		n += messages
	}
	return float64(n) / took.Seconds()
}

func heapMB() float64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc) / (1 << 20)
}

// TestReport measures the executor over a large index:
//
//	go test -run TestReport ./op-shared-sequencer/executor -args -report executor.json
func TestReport(t *testing.T) {
	if *reportPath == "" {
		t.Skip("needs -args -report FILE")
	}
	const perBlock, batch = 100, 1000
	const expiry = 1 << 40
	dir := *reportDir
	if dir == "" {
		dir = t.TempDir()
	}
	old := runtime.GOMAXPROCS(1) // on one core
	defer runtime.GOMAXPROCS(old)

	source := &madeUp{id: chainA, blocks: uint64(*reportLogs / perBlock)}
	for i := range uint(perBlock) {
		source.logs = append(source.logs, plain(i, fmt.Sprint("message ", i)))
	}
	var chains []executor.ChainConfig
	var ids []chainID
	for i := range chainID(29) {
		id := chainA + i
		ids = append(ids, id)
		chains = append(chains, executor.ChainConfig{ID: id, BlockTime: 1, InteropTime: ptr(uint64(0)), Genesis: eth.BlockID{Hash: blockHash(id, 0, 0)}})
	}
	logger := testlog.Logger(t, log.LevelError)
	h, err := history.Open(history.Config{Dir: dir, Chains: chains, MessageExpiry: expiry, Log: logger})
	require.NoError(t, err)
	defer func() { require.NoError(t, h.Close()) }()
	x := newExecutor(t, executor.Config{DependencySet: set(t, expiry, ids...), Chains: chains, History: h})
	ctx := context.Background()

	r := &report{Logs: *reportLogs, Blocks: int(source.blocks), PerBlock: perBlock, CacheLimitMB: history.DefaultCacheBytes >> 20, CPUs: runtime.NumCPU(), Go: runtime.Version()}
	all := source.blocks
	source.blocks = all / 10
	begin := time.Now()
	require.NoError(t, h.Sync(ctx, chainA, source))
	r.HeapTenthMB = heapMB()
	source.blocks = all
	require.NoError(t, h.Sync(ctx, chainA, source))
	r.RebuildS = time.Since(begin).Seconds()
	r.HeapMB = heapMB()
	r.BytesPerLog = float64(diskUse(t, dir)) / float64(*reportLogs)
	t.Logf("index of %d logs in %.0f s", *reportLogs, r.RebuildS)

	// Messages of chain A that chain B executes.
	now := all + 1
	parents := map[chainID]eth.BlockID{chainA: source.block(all).ID(), chainA + 1: {Number: 7}}
	rng := rand.New(rand.NewPCG(1, 0))
	newest := func() eth.BlockRef { return source.block(all - rng.Uint64N(min(all-1, 1000))) }
	any := func() eth.BlockRef { return source.block(1 + rng.Uint64N(all)) }
	list := func(from func() eth.BlockRef) (txs []executor.Tx, queries []messages.ContainsQuery) {
		for i := range batch {
			m := identify(chainA, from(), source.logs[rng.IntN(perBlock)])
			txs = append(txs, executor.Tx{AccessList: declare(m), Logs: []*types.Log{executing(uint(i), m)}})
			queries = append(queries, m.Access().Query())
		}
		return txs, queries
	}
	verify := func(lists [][]executor.Tx) float64 {
		i := 0
		return perSecond(t, batch, func() func() {
			slot := x.Begin(sequence.Slot(now), parents)
			require.NoError(t, slot.Apply(chainA, []executor.Tx{{Logs: source.logs}}))
			fresh := slices.Clone(lists[i%len(lists)]) // not decoded
			i++
			return func() { require.NoError(t, slot.Apply(chainA+1, fresh)) }
		})
	}
	var warm, uniform, same [][]executor.Tx
	var warmQueries, uniformQueries []messages.ContainsQuery
	for range 50 {
		txs, queries := list(newest)
		warm, warmQueries = append(warm, txs), append(warmQueries, queries...)
		txs, queries = list(any)
		uniform, uniformQueries = append(uniform, txs), append(uniformQueries, queries...)
		txs, _ = list(func() eth.BlockRef { return source.block(now) })
		same = append(same, txs)
	}
	r.WarmPerSecond = verify(warm)
	r.UniformPerSecond = verify(uniform)
	r.SlotPerSecond = verify(same)

	runtime.GOMAXPROCS(old)
	r.Slot29Ms = slot29(t, x, ids, source, all)
	runtime.GOMAXPROCS(1)

	// Upstream's own path, over a copy: the database is used by one process at a time.
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(filepath.Join(dir, fmt.Sprintf("chain-%s", chainA)))))
	db, err := raftwallogdb.Open(copied, chainA.ID())
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	ask := func(queries []messages.ContainsQuery) float64 {
		i := 0
		return perSecond(t, batch, func() func() {
			return func() {
				for range batch {
					_, err := db.Contains(queries[i%len(queries)])
					require.NoError(t, err)
					i++
				}
			}
		})
	}
	r.SupernodeWarmPerSecond = ask(warmQueries)
	r.SupernodeUniformPerSecond = ask(uniformQueries)
	r.WarmRatio = r.WarmPerSecond / r.SupernodeWarmPerSecond
	r.UniformRatio = r.UniformPerSecond / r.SupernodeUniformPerSecond

	data, err := json.MarshalIndent(r, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*reportPath, append(data, '\n'), 0o644))
	t.Logf("%s", data)
}

// slot29 is the median time, in milliseconds, to verify a slot in which each of 29 chains
// initiates and executes 100 messages: half of them of the slot itself and of the chain before
// it, half of the chain with a history.
func slot29(t *testing.T, x *executor.Executor, ids []chainID, source *madeUp, all uint64) float64 {
	now := all + 1
	parents := map[chainID]eth.BlockID{}
	for _, id := range ids {
		parents[id] = eth.BlockID{Hash: blockHash(id, all, 0), Number: all}
	}
	parents[chainA] = source.block(all).ID()
	rng := rand.New(rand.NewPCG(2, 0))
	// First all initiate, then all execute.
	steps := make([][]executor.Tx, 2*len(ids))
	for i, id := range ids {
		before := (i + len(ids) - 1) % len(ids)
		for n := range uint(100) {
			sent := plain(n, fmt.Sprint("message ", n, " of ", id))
			steps[i] = append(steps[i], executor.Tx{Logs: []*types.Log{sent}})
			m := identify(chainA, source.block(all-rng.Uint64N(min(all-1, 1000))), source.logs[rng.IntN(len(source.logs))])
			if n%2 == 0 {
				m = identify(ids[before], eth.BlockRef{Number: now, Time: now}, plain(n, fmt.Sprint("message ", n, " of ", ids[before])))
			}
			steps[len(ids)+i] = append(steps[len(ids)+i], executor.Tx{AccessList: declare(m), Logs: []*types.Log{executing(100+n, m)}})
		}
	}
	var took []float64
	for range 50 {
		fresh := make([][]executor.Tx, len(steps)) // not decoded
		for i := range steps {
			fresh[i] = slices.Clone(steps[i])
		}
		begin := time.Now()
		slot := x.Begin(sequence.Slot(now), parents)
		var cores sync.WaitGroup
		for i, txs := range fresh {
			cores.Go(func() { slot.Prepare(ids[i%len(ids)], txs) })
		}
		cores.Wait()
		for i, txs := range fresh {
			require.NoError(t, slot.Apply(ids[i%len(ids)], txs))
		}
		took = append(took, float64(time.Since(begin).Microseconds())/1000)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func diskUse(t *testing.T, dir string) (bytes int64) {
	require.NoError(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512 // what is used of it
		}
		return err
	}))
	return bytes
}
