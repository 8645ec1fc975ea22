package history_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"
	"github.com/ethereum-optimism/optimism/op-supernode/supernode/activity/interop/raftwallogdb"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// What is covered:
//   - append, idempotence, gaps, replacement of blocks by another branch, rewind
//   - reads at a head: behind the newest block, on another branch, before the history begins
//   - restart: everything is there; a locked directory
//   - sync: empty, behind, ahead, on another branch, wholly other chain, too young, old start
//     by expiry and by activation, a reorg in the middle, wrong configuration, cancelled
//   - damage: files that cannot be opened, a broken chain of hashes, a wrong hash
//   - reads concurrent with appends and rewinds

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = sequence.ChainID(901)

func config(dir string, logger log.Logger) history.Config {
	interop := uint64(0)
	return history.Config{
		Dir: dir, Log: logger, MessageExpiry: 1_000_000, Margin: 1,
		Chains: []executor.ChainConfig{{ID: id, BlockTime: 2, InteropTime: &interop, GenesisTime: 1000, Genesis: eth.BlockID{Hash: hash(0, 0)}}},
	}
}

func open(t *testing.T, cfg history.Config) *history.History {
	h, err := history.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() }) // tests that restart close it themselves
	return h
}

func logger(t *testing.T) log.Logger { return testlog.Logger(t, log.LevelCrit) }

// source is a chain whose block n has n%4 logs, at time 1000+2n.
type source struct {
	mu     sync.Mutex
	blocks []eth.BlockRef
	salts  []uint64
	// onReceipts, if set, is called with every block number.
	onReceipts func(n uint64) error
}

func hash(n, salt uint64) common.Hash {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], n)
	binary.BigEndian.PutUint64(b[8:], salt)
	return crypto.Keccak256Hash(b[:])
}

// newSource has blocks 0 to head; from block fork on they carry salt 1.
func newSource(head, fork uint64) *source {
	s := &source{}
	s.grow(head, fork)
	return s
}

// grow replaces blocks from fork on by a branch of their own, up to head.
func (s *source) grow(head, fork uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	salt := uint64(0)
	if fork < uint64(len(s.blocks)) {
		salt = s.salts[fork] + 1
		s.blocks, s.salts = s.blocks[:fork], s.salts[:fork]
	}
	for n := uint64(len(s.blocks)); n <= head; n++ {
		sl := salt
		if salt == 0 && n >= fork {
			sl = 1
		}
		b := eth.BlockRef{Hash: hash(n, sl), Number: n, Time: 1000 + 2*n}
		if n > 0 {
			b.ParentHash = s.blocks[n-1].Hash
		}
		s.blocks, s.salts = append(s.blocks, b), append(s.salts, sl)
	}
}

func (s *source) Head(context.Context) (eth.BlockRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks[len(s.blocks)-1], nil
}

func (s *source) Block(_ context.Context, n uint64) (eth.BlockRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= uint64(len(s.blocks)) {
		return eth.BlockRef{}, fmt.Errorf("no block %d", n)
	}
	return s.blocks[n], nil
}

func (s *source) Receipts(_ context.Context, h common.Hash) (types.Receipts, error) {
	s.mu.Lock()
	var at *eth.BlockRef
	for i := range s.blocks {
		if s.blocks[i].Hash == h {
			b := s.blocks[i]
			at = &b
		}
	}
	s.mu.Unlock()
	if at == nil {
		return nil, errors.New("no such block")
	}
	if s.onReceipts != nil {
		if err := s.onReceipts(at.Number); err != nil {
			return nil, err
		}
	}
	return receipts(*at), nil
}

// receipts puts the block's logs into two receipts.
func receipts(b eth.BlockRef) types.Receipts {
	rs := types.Receipts{{}, {}}
	for i := uint64(0); i < b.Number%4; i++ {
		l := &types.Log{Address: common.Address{byte(i)}, Data: b.Hash[:], Index: uint(i)}
		rs[min(i, 1)].Logs = append(rs[min(i, 1)].Logs, l)
	}
	return rs
}

func query(b eth.BlockRef, index uint32) messages.ContainsQuery {
	l := &types.Log{Address: common.Address{byte(index)}, Data: b.Hash[:]}
	return messages.ChecksumArgs{BlockNumber: b.Number, LogIndex: index, Timestamp: b.Time, ChainID: id.ID(), LogHash: messages.LogToLogHash(l)}.Query()
}

func (s *source) fill(t *testing.T, h *history.History, from, to uint64) {
	for n := from; n <= to; n++ {
		require.NoError(t, h.Append(context.Background(), id, s.blocks[n], executor.Logs(receipts(s.blocks[n]))))
	}
}

// holds checks that the history is this chain, log by log.
func (s *source) holds(t *testing.T, h *history.History, from, to uint64) {
	t.Helper()
	head, ok := h.Head(id)
	require.True(t, ok)
	require.Equal(t, s.blocks[to], head)
	require.True(t, h.Complete(id))
	for n := from; n <= to; n++ {
		b := s.blocks[n]
		for i := uint32(0); i < uint32(n%4); i++ {
			require.NoError(t, h.Contains(id, head.ID(), query(b, i)), "block %d log %d", n, i)
		}
		require.ErrorIs(t, h.Contains(id, head.ID(), query(b, uint32(n%4))), executor.ErrNoSuchMessage)
		wrong := query(b, 0)
		wrong.Checksum[5]++
		require.ErrorIs(t, h.Contains(id, head.ID(), wrong), executor.ErrNoSuchMessage)
		wrong = query(b, 0)
		wrong.Timestamp++
		require.ErrorIs(t, h.Contains(id, head.ID(), wrong), executor.ErrNoSuchMessage)
	}
}

const never = ^uint64(0)

func TestAppend(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h := open(t, config(t.TempDir(), logger(t)))
	s := newSource(20, never)
	_, ok := h.Head(id)
	require.False(t, ok)
	require.False(t, h.Complete(id))
	require.ErrorIs(t, h.Contains(id, s.blocks[3].ID(), query(s.blocks[3], 0)), executor.ErrHistoryIncomplete)
	require.ErrorIs(t, h.Append(ctx, id, s.blocks[5], nil), executor.ErrNotLinked, "an empty history begins at the beginning")

	s.fill(t, h, 0, 10)
	s.holds(t, h, 0, 10)
	s.fill(t, h, 4, 10) // nothing changes
	s.holds(t, h, 0, 10)
	require.ErrorIs(t, h.Append(ctx, id, s.blocks[12], nil), executor.ErrNotLinked)
	orphan := s.blocks[11]
	orphan.ParentHash[0]++
	require.ErrorIs(t, h.Append(ctx, id, orphan, nil), executor.ErrNotLinked)
	s.holds(t, h, 0, 10)

	other := newSource(20, 8)
	require.ErrorIs(t, h.Append(ctx, id, other.blocks[9], executor.Logs(receipts(other.blocks[9]))), executor.ErrNotLinked, "its parent is not there")
	s.holds(t, h, 0, 10)
	other.fill(t, h, 8, 12)
	other.holds(t, h, 0, 12)
	require.ErrorIs(t, h.Contains(id, s.blocks[10].ID(), query(s.blocks[3], 0)), executor.ErrHistoryIncomplete, "a head of the other branch")

	whole := newSource(3, 0)
	whole.fill(t, h, 0, 3)
	whole.holds(t, h, 0, 3)

	require.ErrorIs(t, h.Append(ctx, 7, s.blocks[0], nil), executor.ErrUnknownChain)
	require.ErrorIs(t, h.Contains(7, eth.BlockID{}, messages.ContainsQuery{}), executor.ErrUnknownChain)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, h.Append(cancelled, id, whole.blocks[3], nil), context.Canceled)
}

func TestReadBehindTheNewest(t *testing.T) {
	t.Parallel()
	h := open(t, config(t.TempDir(), logger(t)))
	s := newSource(20, never)
	s.fill(t, h, 0, 20)
	at := s.blocks[10].ID()
	require.NoError(t, h.Contains(id, at, query(s.blocks[10], 0)))
	require.ErrorIs(t, h.Contains(id, at, query(s.blocks[11], 0)), executor.ErrNoSuchMessage, "after the head that was asked for")
	require.ErrorIs(t, h.Contains(id, eth.BlockID{Hash: s.blocks[20].Hash, Number: 21}, query(s.blocks[10], 0)), executor.ErrHistoryIncomplete)
}

func TestRewind(t *testing.T) {
	t.Parallel()
	h := open(t, config(t.TempDir(), logger(t)))
	s := newSource(20, never)
	s.fill(t, h, 0, 20)
	require.ErrorIs(t, h.Rewind(id, eth.BlockID{Hash: hash(9, 9), Number: 9}), executor.ErrNotLinked)
	require.ErrorIs(t, h.Rewind(id, eth.BlockID{Hash: hash(21, 0), Number: 21}), executor.ErrNotLinked)
	require.NoError(t, h.Rewind(id, s.blocks[20].ID()))
	s.holds(t, h, 0, 20)
	require.NoError(t, h.Rewind(id, s.blocks[7].ID()))
	s.holds(t, h, 0, 7)
	s.fill(t, h, 8, 12)
	s.holds(t, h, 0, 12)
	require.NoError(t, h.Rewind(id, s.blocks[0].ID()))
	s.holds(t, h, 0, 0)
}

func TestRestart(t *testing.T) {
	t.Parallel()
	cfg := config(t.TempDir(), logger(t))
	h := open(t, cfg)
	s := newSource(20, never)
	s.fill(t, h, 0, 15)
	_, err := history.Open(cfg)
	require.ErrorIs(t, err, history.ErrLocked)
	require.NoError(t, h.Close())
	require.ErrorIs(t, h.Append(context.Background(), id, s.blocks[16], nil), history.ErrClosed)
	require.ErrorIs(t, h.Contains(id, s.blocks[15].ID(), query(s.blocks[3], 0)), history.ErrClosed)
	require.ErrorIs(t, h.Rewind(id, s.blocks[3].ID()), history.ErrClosed)
	require.ErrorIs(t, h.Sync(context.Background(), id, s), history.ErrClosed)
	h = open(t, cfg)
	s.holds(t, h, 0, 15)
	s.fill(t, h, 16, 20)
	s.holds(t, h, 0, 20)
}

func TestSync(t *testing.T) {
	t.Parallel()
	activation := uint64(1021) // between blocks 10 and 11
	for _, tc := range []struct {
		name   string
		had    uint64 // blocks 0..had of the main branch; never: none
		source *source
		change func(*history.Config)
		first  uint64 // that is expected
	}{
		{name: "empty", had: never, source: newSource(30, never)},
		{name: "genesis only", had: never, source: newSource(0, never)},
		{name: "level", had: 30, source: newSource(30, never)},
		{name: "behind", had: 9, source: newSource(30, never)},
		{name: "ahead", had: 30, source: newSource(12, never)},
		{name: "another branch", had: 30, source: newSource(30, 17)},
		{name: "another branch, shorter", had: 30, source: newSource(20, 17)},
		{name: "another branch, longer", had: 30, source: newSource(60, 29)},
		{name: "another chain", had: 30, source: newSource(20, 0)},
		{name: "from activation", had: never, source: newSource(30, never), change: func(c *history.Config) { c.Chains[0].InteropTime = &activation }, first: 10},
		{name: "from the expiry window", had: never, source: newSource(30, never), change: func(c *history.Config) { c.MessageExpiry = 11 }, first: 24},
		{name: "interop is not scheduled", had: never, source: newSource(30, never), change: func(c *history.Config) { c.Chains[0].InteropTime = nil }, first: 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t.TempDir(), logger(t))
			if tc.change != nil {
				tc.change(&cfg)
			}
			h := open(t, cfg)
			if tc.had != never {
				newSource(tc.had, never).fill(t, h, 0, tc.had)
				// What Sync does once after opening.
				require.NoError(t, h.Close())
				h = open(t, cfg)
			}
			require.NoError(t, h.Sync(context.Background(), id, tc.source))
			head := uint64(len(tc.source.blocks) - 1)
			tc.source.holds(t, h, tc.first, head)
			if tc.first > 0 {
				require.ErrorIs(t, h.Contains(id, tc.source.blocks[head].ID(), query(tc.source.blocks[tc.first-1], 0)), executor.ErrNoSuchMessage)
			}
			require.NoError(t, h.Sync(context.Background(), id, tc.source))
			tc.source.holds(t, h, tc.first, head)
			tc.source.grow(head+5, never)
			tc.source.fill(t, h, head+1, head+5)
			tc.source.holds(t, h, tc.first, head+5)
		})
	}
}

// A window that was made longer, or interop that was scheduled earlier, needs blocks from
// before the first one: messages are refused until Sync has begun again.
func TestSyncAfterAnEarlierStart(t *testing.T) {
	t.Parallel()
	cfg := config(t.TempDir(), logger(t))
	cfg.MessageExpiry = 10
	s := newSource(30, never)
	h := open(t, cfg)
	require.NoError(t, h.Sync(context.Background(), id, s))
	require.NoError(t, h.Close())
	cfg.MessageExpiry = 20
	h = open(t, cfg)
	require.False(t, h.Complete(id))
	require.ErrorIs(t, h.Contains(id, s.blocks[30].ID(), query(s.blocks[29], 0)), executor.ErrHistoryIncomplete)
	require.NoError(t, h.Sync(context.Background(), id, s))
	s.holds(t, h, 20, 30)
}

func TestSyncThroughReorg(t *testing.T) {
	t.Parallel()
	h := open(t, config(t.TempDir(), logger(t)))
	s := newSource(30, never)
	times := 0
	s.onReceipts = func(n uint64) error {
		if n == 20 && times < 3 {
			times++
			s.grow(30+uint64(times), 15)
		}
		return nil
	}
	require.NoError(t, h.Sync(context.Background(), id, s))
	require.Equal(t, 3, times)
	s.holds(t, h, 0, 33)
}

func TestSyncFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	h := open(t, config(t.TempDir(), logger(t)))
	s := newSource(30, never)
	s.onReceipts = func(n uint64) error {
		if n == 12 {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	require.ErrorIs(t, h.Sync(ctx, id, s), context.Canceled)
	head, _ := h.Head(id)
	require.Equal(t, uint64(11), head.Number)
	require.ErrorIs(t, h.Contains(id, s.blocks[30].ID(), query(s.blocks[3], 0)), executor.ErrHistoryIncomplete, "not there yet")
	s.onReceipts = nil
	require.NoError(t, h.Sync(context.Background(), id, s), "goes on")
	s.holds(t, h, 0, 30)

	broken := newSource(30, never)
	broken.blocks[20].ParentHash[0]++
	h = open(t, config(t.TempDir(), logger(t)))
	require.ErrorIs(t, h.Sync(context.Background(), id, broken), executor.ErrNotLinked, "blocks that never link")

	wrong := config(t.TempDir(), logger(t))
	wrong.Chains[0].BlockTime, wrong.MessageExpiry = 1, 10
	h = open(t, wrong)
	require.Error(t, h.Sync(context.Background(), id, s), "block time is not the chain's")
	require.ErrorIs(t, h.Sync(context.Background(), 7, s), executor.ErrUnknownChain)
}

func TestDamage(t *testing.T) {
	t.Parallel()
	chainDir := func(cfg history.Config) string { return filepath.Join(cfg.Dir, "chain-901") }
	overwrite := func(pattern string, data []byte) func(*testing.T, history.Config) {
		return func(t *testing.T, cfg history.Config) {
			files, err := filepath.Glob(filepath.Join(chainDir(cfg), pattern))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for _, f := range files {
				require.NoError(t, os.WriteFile(f, data, 0o644))
			}
		}
	}
	// rewrite stores a block again, in the database itself, as change makes it.
	rewrite := func(n uint64, change func(*eth.BlockRef)) func(*testing.T, history.Config) {
		return func(t *testing.T, cfg history.Config) {
			db, err := raftwallogdb.Open(chainDir(cfg), id.ID())
			require.NoError(t, err)
			s := newSource(20, never)
			require.NoError(t, db.Rewind(s.blocks[n-1].ID()))
			last := s.blocks[n-1]
			for ; n <= 20; n++ {
				b := s.blocks[n]
				b.ParentHash = last.Hash
				change(&b)
				require.NoError(t, db.SealBlock(last.Hash, b.ID(), b.Time))
				last = b
			}
			require.NoError(t, db.Close())
		}
	}
	for _, tc := range []struct {
		name   string
		damage func(*testing.T, history.Config)
		// opens: the damage is only found by Sync.
		opens bool
	}{
		{"metadata overwritten", overwrite("*.db", []byte("not a database")), false},
		{"metadata emptied", overwrite("*.db", nil), false},
		{"segments overwritten", overwrite("*.wal", []byte("not a segment")), false},
		{"segments emptied", overwrite("*.wal", nil), false},
		{"directory gone", func(t *testing.T, cfg history.Config) { require.NoError(t, os.RemoveAll(chainDir(cfg))) }, false},
		{"wrong hash of the newest", rewrite(20, func(b *eth.BlockRef) { b.Hash[0]++ }), true},
		{"wrong hashes", rewrite(7, func(b *eth.BlockRef) { b.Hash[0]++ }), true},
		{"one record changed", func(t *testing.T, cfg history.Config) {
			files, err := filepath.Glob(filepath.Join(chainDir(cfg), "*.wal"))
			require.NoError(t, err)
			found := 0
			for _, f := range files {
				data, err := os.ReadFile(f)
				require.NoError(t, err)
				h := newSource(20, never).blocks[12].Hash
				for i := 0; i+32 <= len(data); i++ {
					if common.Hash(data[i:i+32]) == h {
						data[i]++
						found++
						break
					}
				}
				require.NoError(t, os.WriteFile(f, data, 0o644))
			}
			require.Equal(t, 1, found)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t.TempDir(), logger(t))
			h := open(t, cfg)
			s := newSource(20, never)
			s.fill(t, h, 0, 20)
			require.NoError(t, h.Close())
			tc.damage(t, cfg)
			h = open(t, cfg)
			require.NoError(t, h.Sync(context.Background(), id, s))
			s.holds(t, h, 0, 20)
			require.NoError(t, h.Close())
			h = open(t, cfg)
			s.holds(t, h, 0, 20)
		})
	}
}

// Readers see a chain that is whole, whatever is appended and taken back meanwhile.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	h := open(t, config(t.TempDir(), logger(t)))
	branches := []*source{newSource(40, 20), newSource(40, never)}
	branches[1].fill(t, h, 0, 40)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-done:
					return
				default:
				}
				head, ok := h.Head(id)
				if !ok {
					t.Error("the history is never empty here")
					return
				}
				s := branches[0]
				if n := head.Number; s.blocks[n].Hash != head.Hash {
					s = branches[1]
				}
				n := i % (head.Number + 1)
				if n%4 == 0 {
					continue
				}
				if err := h.Contains(id, head.ID(), query(s.blocks[n], 0)); err != nil && !errors.Is(err, executor.ErrHistoryIncomplete) {
					t.Errorf("block %d under %s: %v", n, head, err)
					return
				}
			}
		})
	}
	for i := range 6 {
		branches[i%2].fill(t, h, 20, 40)
	}
	close(done)
	readers.Wait()
}

// What has expired is deleted, but for a margin: a chain that is taken back by less finds
// the history complete all the same, and goes on from there.
func TestPrune(t *testing.T) {
	cfg := config(t.TempDir(), testlog.Logger(t, log.LevelCrit))
	cfg.MessageExpiry, cfg.Margin = 400, 200
	h := open(t, cfg)
	s := newSource(3000, 5000)
	ctx := context.Background()
	require.NoError(t, h.Sync(ctx, id, s))
	contains := func(head, n uint64) error {
		m := messages.Message{PayloadHash: common.Hash{1}, Identifier: messages.Identifier{BlockNumber: n, Timestamp: 1000 + 2*n, ChainID: id.ID()}}
		return h.Contains(id, s.blocks[head].ID(), m.Access().Query())
	}
	oldest := uint64(3000 - (400+200)/2)
	require.ErrorIs(t, contains(3000, 10), interop.ErrSkipped, "deleted")
	require.ErrorIs(t, contains(3000, oldest), interop.ErrConflict, "still there")
	require.True(t, h.Complete(id))

	back := uint64(3000 - 200/2) // the whole margin
	require.NoError(t, h.Rewind(id, s.blocks[back].ID()))
	require.True(t, h.Complete(id), "taken back by the margin")
	require.NoError(t, h.Close())

	h = open(t, cfg)
	require.True(t, h.Complete(id))
	reads := 0
	s.onReceipts = func(n uint64) error {
		reads++
		require.Greater(t, n, back)
		return nil
	}
	require.NoError(t, h.Sync(ctx, id, s))
	require.EqualValues(t, 3000-back, reads, "nothing is read again")
	require.NoError(t, h.Close())

	// Before interop is active nothing is deleted: there is nothing that could expire.
	cfg = config(t.TempDir(), cfg.Log)
	later := uint64(1 << 40)
	cfg.MessageExpiry, cfg.Margin, cfg.Chains[0].InteropTime = 1, 1, &later
	h = open(t, cfg)
	s = newSource(1500, 5000)
	for n := range uint64(1500) {
		require.NoError(t, h.Append(ctx, id, s.blocks[n], nil))
	}
	require.NoError(t, h.Rewind(id, s.blocks[1].ID()))
}
