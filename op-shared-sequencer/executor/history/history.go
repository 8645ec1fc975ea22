// Package history keeps the logs of every chain's agreed blocks on disk, in upstream's
// message log database, one per chain. It is the executor's History.
//
// The database stores a hash per log and the chain of block hashes. Damage that breaks
// that chain is found by Sync and cut off; damage inside a log hash cannot make an invalid
// message valid, since a message is compared with a checksum over that hash.
package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/ethereum/go-ethereum/log"
	"github.com/gofrs/flock"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-supernode/supernode/activity/interop/raftwallogdb"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Config says where the history is and which chains it has.
type Config struct {
	Dir    string // made if it is not there; used by one process at a time
	Chains []executor.ChainConfig
	// MessageExpiry is the expiry window in seconds: older messages are not needed.
	MessageExpiry uint64
	// Margin is for how long, in seconds, messages are kept beyond that: as long as a chain
	// may be taken back. 0: DefaultMargin.
	Margin uint64
	// CacheBytes bounds what is kept in memory of blocks that were added or asked for
	// lately, 32 bytes a log; what keeping a block takes beside that is not counted. 0:
	// DefaultCacheBytes.
	CacheBytes uint64
	Log        log.Logger
}

// DefaultMargin is the sequencing window of the OP Stack's chains: what is older cannot be
// taken back.
const DefaultMargin = 12 * 60 * 60

// DefaultCacheBytes is room for two million logs.
const DefaultCacheBytes = 64 << 20

// ErrLocked: another process uses the directory.
var ErrLocked = errors.New("message history is in use by another process")

// ErrClosed: the history was closed.
var ErrClosed = errors.New("message history is closed")

// History implements executor.History. All methods may be called concurrently.
type History struct {
	log    log.Logger
	lock   *flock.Flock
	chains map[sequence.ChainID]*chain
}

var _ executor.History = (*History)(nil)

// Open opens the history, and makes it if there is none. A chain's database that cannot
// be opened is moved aside (to the same name with .damaged, replacing an older one) and
// begun again empty; Sync fills it.
func Open(cfg Config) (*History, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("message history: %w", err)
	}
	h := &History{log: cfg.Log, lock: flock.New(filepath.Join(cfg.Dir, "LOCK")), chains: make(map[sequence.ChainID]*chain, len(cfg.Chains))}
	// The database's own lock waits for ever.
	if ok, err := h.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("message history: lock %s: %w", cfg.Dir, err)
	} else if !ok {
		return nil, fmt.Errorf("%w: %s", ErrLocked, cfg.Dir)
	}
	cache := newRecent(cmp.Or(cfg.CacheBytes, DefaultCacheBytes))
	for _, cc := range cfg.Chains {
		if err := cc.Check(); err != nil {
			return nil, errors.Join(fmt.Errorf("message history: %w", err), h.Close())
		}
		if h.chains[cc.ID] != nil {
			return nil, errors.Join(fmt.Errorf("message history: chain %s is configured twice", cc.ID), h.Close())
		}
		c := &chain{cfg: cc, expiry: cfg.MessageExpiry, margin: cmp.Or(cfg.Margin, DefaultMargin), dir: filepath.Join(cfg.Dir, fmt.Sprintf("chain-%s", cc.ID)), recent: cache, log: cfg.Log.New("chain", cc.ID)}
		if err := c.open(); err != nil {
			c.log.Error("Message history cannot be read, begins again empty", "err", err)
			if err := c.discard(); err != nil {
				return nil, errors.Join(fmt.Errorf("message history: chain %s: %w", cc.ID, err), h.Close())
			}
		}
		h.chains[cc.ID] = c
	}
	return h, nil
}

// Close closes the databases. Calls under way end first; later ones fail with ErrClosed.
func (h *History) Close() error {
	var errs []error
	for id, c := range h.chains {
		c.writing.Lock()
		c.mu.Lock()
		if c.db != nil {
			if err := c.db.Close(); err != nil {
				errs = append(errs, fmt.Errorf("message history: chain %s: %w", id, err))
			}
			c.db = nil
		}
		c.mu.Unlock()
		c.writing.Unlock()
	}
	if err := h.lock.Unlock(); err != nil {
		errs = append(errs, fmt.Errorf("message history: %w", err))
	}
	return errors.Join(errs...)
}

func (h *History) chain(id sequence.ChainID) (*chain, error) {
	c := h.chains[id]
	if c == nil {
		return nil, fmt.Errorf("message history: %w: %s", executor.ErrUnknownChain, id)
	}
	return c, nil
}

// Contains is executor.History's.
func (h *History) Contains(id sequence.ChainID, head eth.BlockID, query messages.ContainsQuery) error {
	c, err := h.chain(id)
	if err != nil {
		return err
	}
	return c.contains(head, query)
}

// Head is executor.History's.
func (h *History) Head(id sequence.ChainID) (eth.BlockRef, bool) {
	c := h.chains[id]
	if c == nil {
		return eth.BlockRef{}, false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.head, c.filled
}

// Complete says whether the chain's history holds every message that can still be executed
// in blocks behind its head: whether it begins early enough.
func (h *History) Complete(id sequence.ChainID) bool {
	c := h.chains[id]
	if c == nil {
		return false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.complete()
}

// Append is executor.History's. The block is durable when it returns.
func (h *History) Append(ctx context.Context, id sequence.ChainID, block eth.BlockRef, logs []executor.Log) error {
	c, err := h.chain(id)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.append(block, logs, block.Time); err != nil {
		return fmt.Errorf("message history: chain %s: append block %s: %w", id, block, err)
	}
	return nil
}

// Rewind takes back every block behind the given one. ErrNotLinked if it is not there.
func (h *History) Rewind(id sequence.ChainID, to eth.BlockID) error {
	c, err := h.chain(id)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.rewind(to); err != nil {
		return fmt.Errorf("message history: chain %s: rewind to %s: %w", id, to, err)
	}
	return nil
}

// chain is one chain's history.
type chain struct {
	cfg    executor.ChainConfig
	expiry uint64
	margin uint64
	dir    string
	recent *recent
	log    log.Logger

	// writing is held by whoever changes the database; it is taken before mu.
	writing sync.Mutex
	// progress is that of a sync, for monitoring.
	progress progress
	// linked: the chain of block hashes was found whole since the database was opened.
	linked bool // guarded by writing

	// mu guards what follows. It is held over reads of the database, and exclusively
	// only for what could take something away from a reader: not for appends.
	mu     sync.RWMutex
	db     *raftwallogdb.DB // nil when closed
	filled bool
	first  messages.BlockSeal
	head   eth.BlockRef
	branch uint64 // one more each time blocks were taken back
}

// open opens the database and reads its ends. mu need not be held.
func (c *chain) open() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	db, err := openDB(c.dir, c.cfg.ID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.db, c.linked = db, false
	if err := c.refresh(); err != nil {
		c.db = nil
		return errors.Join(err, db.Close())
	}
	return nil
}

// openDB keeps a damaged file from taking the process down.
func openDB(dir string, id sequence.ChainID) (db *raftwallogdb.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%w: open %s: %v", interop.ErrDataCorruption, dir, r)
		}
	}()
	return raftwallogdb.Open(dir, id.ID())
}

// discard moves the database aside and opens an empty one.
func (c *chain) discard() error {
	c.mu.Lock()
	if c.db != nil {
		if err := c.db.Close(); err != nil {
			c.log.Warn("Closing the damaged message history", "err", err)
		}
		c.db = nil
	}
	c.filled = false
	c.mu.Unlock()
	aside := c.dir + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(c.dir, aside); err != nil {
		return err
	}
	return c.open()
}

// refresh reads the ends of the database. mu is held.
func (c *chain) refresh() error {
	c.branch++
	latest, ok := c.db.LatestSealedBlock()
	if !ok {
		c.filled, c.first, c.head = false, messages.BlockSeal{}, eth.BlockRef{}
		return nil
	}
	first, err := c.db.FirstSealedBlock()
	if err != nil {
		return fmt.Errorf("first block: %w", err)
	}
	head, _, _, err := c.db.OpenBlock(latest.Number)
	if err != nil {
		return fmt.Errorf("newest block: %w", err)
	}
	c.filled, c.first, c.head = true, first, head
	return nil
}

// needed is the oldest timestamp whose messages a block behind head could still execute.
func (c *chain) needed(headTime uint64) uint64 { return c.since(headTime, c.expiry) }

// kept is the oldest timestamp whose messages are kept: those that a block could execute
// if the chain were taken back, too.
func (c *chain) kept(headTime uint64) uint64 { return c.since(headTime, c.expiry+c.margin) }

// since is an age before the head, or when interop became active.
func (c *chain) since(headTime, age uint64) uint64 {
	if c.cfg.InteropTime == nil {
		return math.MaxUint64
	}
	oldest := uint64(0)
	if headTime > age {
		oldest = headTime - age
	}
	return max(oldest, *c.cfg.InteropTime)
}

// begins says whether a history whose first block is this one misses nothing that blocks
// behind head could execute. The genesis block has no logs to miss.
func (c *chain) begins(number, time, headTime uint64) bool {
	return number <= c.cfg.Genesis.Number+1 || time <= c.needed(headTime)
}

func (c *chain) complete() bool {
	return c.filled && c.begins(c.first.Number, c.first.Timestamp, c.head.Time)
}

func (c *chain) contains(head eth.BlockID, q messages.ContainsQuery) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.db == nil {
		return ErrClosed
	}
	if !c.complete() {
		return c.incomplete("it has no block old enough")
	}
	if c.head.ID() != head {
		// The reader is behind the newest block, or on another branch.
		seal, err := c.db.FindSealedBlock(head.Number)
		switch {
		case errors.Is(err, interop.ErrFuture) || errors.Is(err, interop.ErrSkipped):
			return c.incomplete("it has blocks %d to %s, not %s", c.first.Number, c.head, head)
		case err != nil:
			return fmt.Errorf("message history: chain %s: block %d: %w", c.cfg.ID, head.Number, err)
		case seal.Hash != head.Hash:
			return c.incomplete("it has block %s at the height of %s", seal.ID(), head)
		}
	}
	if q.BlockNum > head.Number {
		return fmt.Errorf("%w: block %d is behind the newest, %s: %w", executor.ErrNoSuchMessage, q.BlockNum, head, interop.ErrFuture)
	}
	key := recentKey{c.cfg.ID, c.branch, q.BlockNum}
	known, ok := c.recent.has(key, &q)
	if !known && c.recent.again(key) {
		// The next ones are likely to be of the same block too.
		if seal, hashes, err := c.db.LogHashes(q.BlockNum); err == nil {
			ok = key.in(c.recent.read(key, seal.Timestamp, hashes), &q)
		}
	}
	if ok {
		return nil
	}
	switch _, err := c.db.Contains(q); {
	case err == nil:
		return nil
	case errors.Is(err, interop.ErrConflict), errors.Is(err, interop.ErrFuture), errors.Is(err, interop.ErrSkipped):
		// ErrSkipped too: what is older than a complete history cannot be executed.
		return fmt.Errorf("%w: block %d log %d: %w", executor.ErrNoSuchMessage, q.BlockNum, q.LogIdx, err)
	default:
		return fmt.Errorf("message history: chain %s: block %d: %w", c.cfg.ID, q.BlockNum, err)
	}
}

func (c *chain) incomplete(format string, args ...any) error {
	return fmt.Errorf("%w: chain %s: %s: %w", executor.ErrHistoryIncomplete, c.cfg.ID, fmt.Sprintf(format, args...), interop.ErrUninitialized)
}

// append adds a block, taking back what it replaces. If it is the first, it must be old
// enough for a history that goes on to headTime. writing is held.
func (c *chain) append(block eth.BlockRef, logs []executor.Log, headTime uint64) error {
	if c.db == nil {
		return ErrClosed
	}
	if c.filled && block.Number <= c.head.Number {
		seal, err := c.db.FindSealedBlock(block.Number)
		switch {
		case errors.Is(err, interop.ErrSkipped):
			return fmt.Errorf("%w: it begins with block %d", executor.ErrNotLinked, c.first.Number)
		case err != nil:
			return err
		case seal.Hash == block.Hash:
			return nil
		}
		parent := eth.BlockID{Hash: block.ParentHash, Number: block.Number - 1}
		c.log.Info("Message history goes back", "from", c.head, "to", parent)
		if block.Number == c.first.Number {
			if err := c.clear(); err != nil {
				return err
			}
		} else if err := c.rewind(parent); err != nil {
			return err
		}
	}
	switch {
	case !c.filled && !c.begins(block.Number, block.Time, headTime):
		return fmt.Errorf("%w: it is empty, and would lack older messages", executor.ErrNotLinked)
	case c.filled && (block.Number != c.head.Number+1 || block.ParentHash != c.head.Hash):
		return fmt.Errorf("%w: its newest is %s", executor.ErrNotLinked, c.head)
	}
	if err := c.store(block, logs); err != nil {
		// Drop the logs that the database holds for the block.
		undo := c.db.Clear
		if c.filled {
			undo = func() error { return c.db.Rewind(c.head.ID()) }
		}
		return errors.Join(err, undo())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.filled {
		c.filled, c.first = true, messages.BlockSealFromRef(block)
	}
	c.head = block
	c.recent.added(recentKey{c.cfg.ID, c.branch, block.Number}, block.Time, logs)
	c.prune()
	return nil
}

// prune deletes blocks whose messages have expired, some at a time. They are kept for the
// margin beyond that, so that the history is complete also when the chain is taken back. mu
// is held.
func (c *chain) prune() {
	oldest := c.kept(c.head.Time)
	if oldest > c.head.Time {
		return // interop is not active
	}
	if oldest <= c.first.Timestamp || (oldest-c.first.Timestamp)/c.cfg.BlockTime < pruneEvery {
		return
	}
	err := c.db.Prune(c.first.Number + (oldest-c.first.Timestamp)/c.cfg.BlockTime)
	first, firstErr := c.db.FirstSealedBlock()
	if err = errors.Join(err, firstErr); err != nil {
		c.log.Warn("Message history cannot be pruned", "err", err) // the block is in it all the same
		return
	}
	c.first = first
	c.log.Debug("Message history is pruned", "first", first)
}

// pruneEvery is after how many expired blocks they are deleted.
const pruneEvery = 1024

// store writes a block the way upstream's verification does, log by log.
func (c *chain) store(block eth.BlockRef, logs []executor.Log) error {
	parent := eth.BlockID{Hash: block.ParentHash, Number: block.Number - 1}
	if block.Number == 0 {
		parent = eth.BlockID{}
	}
	for i := range logs {
		if err := c.db.AddLog(logs[i].Hash(), parent, uint32(i), logs[i].Executes); err != nil {
			return fmt.Errorf("log %d: %w", i, err)
		}
	}
	return c.db.SealBlock(parent.Hash, block.ID(), block.Time)
}

// rewind takes back every block behind to. writing is held.
func (c *chain) rewind(to eth.BlockID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.db == nil:
		return ErrClosed
	case !c.filled || to.Number < c.first.Number || to.Number > c.head.Number:
		return fmt.Errorf("%w: it has blocks %d to %s", executor.ErrNotLinked, c.first.Number, c.head)
	}
	if err := c.db.Rewind(to); err != nil {
		if errors.Is(err, interop.ErrConflict) {
			return fmt.Errorf("%w: %w", executor.ErrNotLinked, err)
		}
		return err
	}
	return c.refresh()
}

// clear takes back every block. writing is held.
func (c *chain) clear() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.db == nil {
		return ErrClosed
	}
	if err := c.db.Clear(); err != nil {
		return err
	}
	return c.refresh()
}
