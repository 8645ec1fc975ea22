package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/gofrs/flock"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	// ErrInUse: another process, or another Ledger of this one, has the directory open.
	ErrInUse = errors.New("the ledger is in use")
	// ErrCorrupt: the log is damaged in a way a crash cannot have caused. It has to be
	// restored or replaced by hand; see CorruptError for the place.
	ErrCorrupt = errors.New("the ledger is corrupt")
	// ErrBadRecord: the record is not well formed, whatever the log holds.
	ErrBadRecord = errors.New("bad ledger record")
	// ErrNotNext: the record does not extend the log.
	ErrNotNext = errors.New("the record does not extend the ledger")
	// ErrTooLarge: the record is larger than the log's limit.
	ErrTooLarge = errors.New("the record is too large for the ledger")
	// ErrBroken: after a failed sync nobody knows what is on the disk. Everything written
	// fails until the log is opened again, which finds out.
	ErrBroken = errors.New("the ledger must be opened again")
	// ErrNotFound: the log does not hold it, or no longer.
	ErrNotFound = errors.New("not in the ledger")
	// ErrClosed: the ledger was closed.
	ErrClosed = errors.New("the ledger is closed")
	// ErrReadOnly: the ledger was opened for reading.
	ErrReadOnly = errors.New("the ledger is open for reading only")
)

// Ledger is an open log. Its methods may be called concurrently. It has no goroutines.
type Ledger struct {
	log         log.Logger
	dir         directory
	unlock      func() error
	rand        io.Reader
	segmentSize int64
	maxRecord   int

	mu       sync.RWMutex
	segments []*segment // ascending; the last one is written to
	seq      uint64     // of the next frame
	state    *state
	broken   error // why nothing can be written
	stats    atomic.Pointer[Stats]
	metrics  Metrics
	now      func() time.Time
	closed   bool
	readOnly bool
}

// Option changes how a log is kept.
type Option func(*Ledger)

// WithSegmentSize sets the size in bytes from which a new file is begun: what pruning
// frees at a time. 64 MiB unless set.
func WithSegmentSize(bytes int64) Option { return func(l *Ledger) { l.segmentSize = bytes } }

// WithMaxRecord sets the size in bytes above which a record is refused, 128 MiB unless
// set, at most 1 GiB. Larger records that are already in the log stay readable.
func WithMaxRecord(bytes int) Option { return func(l *Ledger) { l.maxRecord = min(bytes, 1<<30) } }

// WithRand sets where segments' marks come from, crypto/rand unless set. It must be
// unpredictable to users where they may send transactions.
func WithRand(r io.Reader) Option { return func(l *Ledger) { l.rand = r } }

func withDirectory(wrap func(directory) directory) Option {
	return func(l *Ledger) { l.dir = wrap(l.dir) }
}

// Open opens or creates the log in a directory, for this Ledger alone. A record that a
// crash tore off is dropped with a warning: its Append never returned.
// Errors: ErrInUse, ErrCorrupt.
func Open(dir string, logger log.Logger, opts ...Option) (*Ledger, error) {
	l := newLedger(dir, logger)
	for _, opt := range opts {
		opt(l)
	}
	if l.unlock == nil {
		if err := l.lock(dir); err != nil {
			return nil, fmt.Errorf("ledger %s: %w", dir, err)
		}
	}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", dir, err), l.Close())
	}
	l.tell()
	slot, _, _ := l.Last()
	l.log.Info("Opened ledger", "dir", dir, "segments", len(l.segments), "records", len(l.state.entries), "slot", slot)
	return l, nil
}

func newLedger(dir string, logger log.Logger) *Ledger {
	return &Ledger{log: logger, dir: osDir(dir), rand: rand.Reader, segmentSize: 64 << 20, maxRecord: 128 << 20, state: newState(), metrics: NoMetrics{}, now: noTime}
}

// openAttempts is how often a log that is pruned meanwhile is tried to be read.
const openAttempts = 5

// OpenReadOnly opens the log in a directory for reading, as it is at this moment. The process
// whose log it is may go on writing: nothing is locked, and nothing is changed. A record
// that is being written is left out. Errors: ErrNotFound, ErrCorrupt.
func OpenReadOnly(dir string, logger log.Logger, opts ...Option) (*Ledger, error) {
	for attempt := 1; ; attempt++ {
		l := newLedger(dir, logger)
		l.dir, l.readOnly, l.unlock = readOnlyDir{osDir(dir)}, true, func() error { return nil }
		for _, opt := range opts {
			opt(l)
		}
		err := l.load()
		if err == nil && len(l.segments) == 0 {
			err = fmt.Errorf("%w: there is no log", ErrNotFound)
		}
		if err == nil {
			l.tell()
			return l, nil
		}
		err = errors.Join(fmt.Errorf("ledger %s: %w", dir, err), l.Close())
		if !errors.Is(err, os.ErrNotExist) || attempt == openAttempts {
			return nil, err
		} // else the oldest segment went away after it was listed
	}
}

// lock makes the directory if it is not there, and takes it for this Ledger alone.
func (l *Ledger) lock(dir string) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(dir, "LOCK"))
	locked, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if !locked {
		return fmt.Errorf("%w: stop the other process or give this one another directory", ErrInUse)
	}
	l.unlock = lock.Close
	return nil
}

// makeDir makes the directory, durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return osDir(filepath.Dir(dir)).sync()
}

// load reads the segments into l.state.
func (l *Ledger) load() error {
	names, err := l.dir.list()
	if err != nil {
		return err
	}
	var segments []string
	for _, name := range names {
		if isSegment(name) {
			segments = append(segments, name)
		} else if stem, ok := bytes.CutSuffix([]byte(name), []byte(tempSuffix)); ok && isSegment(string(stem)) && !l.readOnly {
			if err := l.dir.remove(name); err != nil { // of a segment that was not finished
				return err
			}
		}
	}
	slices.Sort(segments) // fixed-width hex
	for i, name := range segments {
		seg, err := openSegment(l.dir, name)
		if err != nil {
			return err
		}
		l.segments = append(l.segments, seg)
		if i > 0 && seg.first != l.seq {
			return seg.corrupt(0, fmt.Sprintf("a segment is missing before it: it begins with frame %d, the one before ends in front of %d", seg.first, l.seq))
		}
		l.seq = seg.first
		whole := seg.size
		var newest int64
		torn, err := seg.scan(i == len(segments)-1, func(seq uint64, off int64, body []byte) error {
			l.seq, newest = seq+1, off
			return l.replay(i == 0, seg, off, body)
		})
		if err != nil {
			return err
		}
		if l.readOnly {
			continue // what is torn may be under way
		}
		if torn {
			l.log.Warn("Dropped a record that a crash tore off", "segment", name, "offset", seg.size, "bytes", whole-seg.size)
			if err := cut(seg); err != nil {
				return fmt.Errorf("cut segment %s at offset %d: %w", name, seg.size, err)
			}
		}
		if i == len(segments)-1 {
			if err := l.settle(seg, newest); err != nil {
				return fmt.Errorf("sync segment %s: %w", name, err)
			}
		}
	}
	if l.readOnly {
		return nil
	}
	if len(l.segments) == 0 {
		l.seq = 1
		if _, err := l.addSegment(); err != nil {
			return err
		}
	}
	return l.removeUnused()
}

// settle makes what was read from the last segment durable. The process that wrote it
// may have died between the newest frame's write and its sync, or the sync may have
// failed; then the frame is in the page cache but, with its pages clean again, no sync
// takes it to the disk. So it is written once more, as it stands.
func (l *Ledger) settle(seg *segment, newest int64) error {
	frame := make([]byte, seg.size-newest)
	if _, err := seg.file.ReadAt(frame, newest); err != nil {
		return err
	}
	if _, err := seg.file.WriteAt(frame, newest); err != nil {
		return err
	}
	return errors.Join(seg.file.Sync(), l.dir.sync())
}

// replay enters one frame into the state.
func (l *Ledger) replay(oldest bool, seg *segment, off int64, body []byte) error {
	if len(body) == 0 {
		return errors.New("an empty frame")
	}
	atStart := off == segmentHeader
	if atStart != (body[0] == kindState) {
		return errors.New("a segment's first frame, and no other, holds the log's state")
	}
	switch body[0] {
	case kindState:
		var b stateBody
		if err := rlp.DecodeBytes(body[1:], &b); err != nil {
			return fmt.Errorf("the log's state: %w", err)
		}
		if oldest {
			l.state.restore(b)
		} else if !bytes.Equal(body, encodeBody(kindState, l.state.body())) {
			return errors.New("the state in front of the segment is not that of the segments before it")
		}
	case kindSlot:
		idx, _, err := decodeIndex(body)
		if err != nil {
			return err
		}
		l.state.addSlot(idx, seg, off, len(body))
	case kindRewind:
		var r rewindBody
		if err := rlp.DecodeBytes(body[1:], &r); err != nil {
			return fmt.Errorf("a rewind: %w", err)
		}
		l.state.rewind(r)
	case kindAdvance:
		var r rewindBody
		if err := rlp.DecodeBytes(body[1:], &r); err != nil {
			return fmt.Errorf("an advance: %w", err)
		}
		l.state.advance(r)
	case kindMade:
		idx, _, err := decodeMade(body)
		if err != nil {
			return err
		}
		l.state.made(idx, &place{seg, off, len(body)})
	case kindPrune:
		var p pruneBody
		if err := rlp.DecodeBytes(body[1:], &p); err != nil {
			return fmt.Errorf("a prune: %w", err)
		}
		l.state.prune(p)
	case kindFinal:
		var f finalBody
		if err := rlp.DecodeBytes(body[1:], &f); err != nil {
			return fmt.Errorf("a final block: %w", err)
		}
		l.state.finalize(f)
	default:
		return fmt.Errorf("unknown kind %d of a frame", body[0])
	}
	return nil
}

// cut makes a segment's file as long as its size says.
func cut(s *segment) error {
	if err := s.file.Truncate(s.size); err != nil {
		return err
	}
	return s.file.Sync()
}

// addSegment begins a new file with the current state.
func (l *Ledger) addSegment() (named bool, err error) {
	var mark [8]byte
	if _, err := io.ReadFull(l.rand, mark[:]); err != nil {
		return false, fmt.Errorf("draw a segment's mark: %w", err)
	}
	seg, named, err := createSegment(l.dir, l.seq, binary.LittleEndian.Uint64(mark[:]), encodeBody(kindState, l.state.body()))
	if err != nil {
		return named, err
	}
	l.segments = append(l.segments, seg)
	l.seq++
	return true, nil
}

// write appends a frame and syncs it. After an error the log is as before, or broken.
// The caller enters it into the state.
func (l *Ledger) write(body []byte) (seg *segment, off int64, err error) {
	switch {
	case l.closed:
		return nil, 0, ErrClosed
	case l.readOnly:
		return nil, 0, ErrReadOnly
	case l.broken != nil:
		return nil, 0, fmt.Errorf("%w: %w", ErrBroken, l.broken)
	case len(body) > l.maxRecord || len(body) > math.MaxUint32:
		return nil, 0, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(body), l.maxRecord)
	}
	seg = l.segments[len(l.segments)-1]
	if seg.first+1 < l.seq && seg.size+frameHeader+int64(len(body)) > l.segmentSize {
		if named, err := l.addSegment(); err != nil {
			if named {
				l.broken = err
			}
			return nil, 0, err
		}
		seg = l.segments[len(l.segments)-1]
	}
	frame := appendFrame(make([]byte, 0, frameHeader+len(body)), seg.mark, l.seq, body)
	if _, err := seg.file.WriteAt(frame, seg.size); err != nil {
		err = fmt.Errorf("write segment %s: %w", seg.name, err)
		if cerr := cut(seg); cerr != nil {
			l.broken = errors.Join(err, fmt.Errorf("cut segment %s at offset %d: %w", seg.name, seg.size, cerr))
			return nil, 0, fmt.Errorf("%w: %w", ErrBroken, l.broken)
		}
		return nil, 0, err
	}
	start := l.now()
	err = seg.file.Sync()
	l.metrics.LedgerSynced(l.now().Sub(start), err)
	if err != nil {
		// The kernel may have dropped the pages and call the next sync a success.
		l.broken = fmt.Errorf("sync segment %s: %w", seg.name, err)
		return nil, 0, fmt.Errorf("%w: %w", ErrBroken, l.broken)
	}
	off = seg.size
	seg.size += int64(len(frame))
	l.seq++
	return seg, off, nil
}

// Append writes a sealed slot; when it returns without an error the slot is on the disk.
// With an error the log is unchanged, except with ErrBroken: then the slot may be there
// or not, and opening the log again tells. The context only counts before the write.
//
// Each payload must build on its chain's head, or on a block the log does not hold or
// holds void, which starts a new run; its slot must be after its chain's head's.
// Errors: ErrBadRecord, ErrNotNext, ErrTooLarge, ErrBroken, ErrClosed, and the file system's.
func (l *Ledger) Append(ctx context.Context, r *Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return err
	}
	body, idx, err := encodeRecord(r)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	if err := l.state.check(idx); err != nil {
		return err
	}
	if idx.Parent != l.state.last && l.state.last != (common.Hash{}) {
		l.log.Warn("The agreed slot does not follow the ledger's last one", "slot", idx.Slot, "parent", idx.Parent,
			"lastSlot", l.state.slot, "last", l.state.last)
	}
	for _, p := range idx.Payloads {
		if c := l.state.chains[p.Chain]; c != nil && c.head.Hash != p.Parent {
			l.log.Info("A new run of logged blocks begins", "chain", p.Chain, "slot", idx.Slot, "block", p.Number,
				"parent", p.Parent, "head", c.head)
		}
	}
	seg, off, err := l.write(body)
	if err != nil {
		return fmt.Errorf("append slot %d to the ledger: %w", idx.Slot, err)
	}
	l.state.addSlot(idx, seg, off, len(body))
	return nil
}

// Rewind records that a chain stands on another block than its head: it went back to
// one of its blocks (L1 reorg), or derivation made this one. What the block does not
// descend from is void from here on. Synced, and all or nothing, like Append. Idempotent.
func (l *Ledger) Rewind(ctx context.Context, chain sequence.ChainID, to eth.BlockID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	r := rewindBody{Chain: chain, Hash: to.Hash, Number: to.Number}
	var from eth.BlockID
	if c := l.state.chains[chain]; c != nil {
		from = c.head
		if b, ok := c.blocks[to.Hash]; ok {
			r.Time = uint64(b.entry.slot)
		}
	}
	if from == to && l.state.opened[onto{chain, to.Hash}] == nil {
		return nil
	}
	if _, _, err := l.write(encodeBody(kindRewind, r)); err != nil {
		return fmt.Errorf("chain %s: record the rewind to %s in the ledger: %w", chain, to, err)
	}
	l.state.rewind(r)
	l.log.Info("Ledger follows a rewind", "chain", chain, "from", from, "to", to)
	return nil
}

// Advance records that a chain came to the block that follows its head in an agreed slot,
// and the block, if the slot's record lacks it: the operator could not run it when it was
// agreed, and has made it since. Synced, and all or nothing, like Append.
// Errors: ErrBadRecord, ErrTooLarge, ErrBroken, ErrClosed, and the file system's.
func (l *Ledger) Advance(ctx context.Context, chain sequence.ChainID, env *eth.ExecutionPayloadEnvelope) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := env.ExecutionPayload
	fail := func(err error) error {
		return fmt.Errorf("chain %s: record its block %s in the ledger: %w", chain, p.ID(), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	if c := l.state.chains[chain]; c != nil {
		if b, ok := c.blocks[p.BlockHash]; ok {
			r := rewindBody{Chain: chain, Hash: p.BlockHash, Number: b.id.Number, Time: uint64(b.entry.slot)}
			if _, _, err := l.write(encodeBody(kindAdvance, r)); err != nil {
				return fail(err)
			}
			l.state.advance(r)
			return nil
		}
	}
	body, idx, err := encodeMade(chain, env)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrBadRecord, err))
	}
	seg, off, err := l.write(body)
	if err != nil {
		return fail(err)
	}
	l.state.made(idx, &place{seg, off, len(body)})
	return nil
}

// Prune gives up a chain's blocks below a number. The caller sees to it that they are
// safe on L1 and that the chain's engine has them, with their state, on its disk. Space
// comes free in whole segments, once no chain needs any block of the oldest.
func (l *Ledger) Prune(ctx context.Context, chain sequence.ChainID, below uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	c := l.state.chains[chain]
	if c == nil || below <= c.below {
		return nil
	}
	p := pruneBody{Chain: chain, Below: below}
	if _, _, err := l.write(encodeBody(kindPrune, p)); err != nil {
		return fmt.Errorf("chain %s: prune the ledger below block %d: %w", chain, below, err)
	}
	l.state.prune(p)
	return l.removeUnused()
}

// Finalize notes a block that is final on L1. Refill tells it to an engine that a crash
// has taken back behind it: without, the op-node would derive the chain from its genesis.
// A block that is not newer than the one that is known changes nothing.
func (l *Ledger) Finalize(ctx context.Context, chain sequence.ChainID, block eth.BlockID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	c := l.state.chains[chain]
	if c == nil || block.Number <= c.final.Number {
		return nil
	}
	f := finalBody{Chain: chain, Hash: block.Hash, Number: block.Number}
	if _, _, err := l.write(encodeBody(kindFinal, f)); err != nil {
		return fmt.Errorf("chain %s: note final block %s in the ledger: %w", chain, block, err)
	}
	l.state.finalize(f)
	return nil
}

// removeUnused deletes the oldest segments that hold no retained record.
func (l *Ledger) removeUnused() error {
	for len(l.segments) > 1 && (len(l.state.entries) == 0 || l.state.entries[0].seg != l.segments[0]) {
		seg := l.segments[0]
		// Each removal is synced before the next, or a crash could leave a hole.
		if err := l.dir.remove(seg.name); err != nil {
			return fmt.Errorf("remove segment %s: %w", seg.name, err)
		}
		l.segments = slices.Delete(l.segments, 0, 1)
		if err := errors.Join(seg.file.Close(), l.dir.sync()); err != nil {
			return fmt.Errorf("remove segment %s: %w", seg.name, err)
		}
	}
	return nil
}

// Head is the block a chain stands on as far as the log knows: its newest payload, or
// what the last Rewind named. Its time is in seconds, 0 if the log never held the block.
// It is kept when the block is pruned.
func (l *Ledger) Head(chain sequence.ChainID) (head eth.BlockID, time uint64, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.state.chains[chain]
	if c == nil || c.head == (eth.BlockID{}) {
		return eth.BlockID{}, 0, false
	}
	return c.head, c.headTime, true
}

// Last is the slot agreed last, with the hash of its last subblock: the parent of the
// next one. After a rewind it need not be the highest slot.
func (l *Ledger) Last() (slot sequence.Slot, subblock common.Hash, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.slot, l.state.last, l.state.last != (common.Hash{})
}

// Chains are the chains the log knows, ascending.
func (l *Ledger) Chains() []sequence.ChainID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Sorted(maps.Keys(l.state.chains))
}

// Get returns the record of a slot, the newest if it was agreed again. Errors: ErrNotFound, ErrCorrupt.
func (l *Ledger) Get(slot sequence.Slot) (*Record, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, e := range slices.Backward(l.state.entries) {
		if e.slot == slot {
			return l.readRecord(e)
		}
	}
	return nil, fmt.Errorf("slot %d: %w", slot, ErrNotFound)
}

// Agreement is what the newest slot was committed with; nil if there is none.
// Errors: ErrCorrupt.
func (l *Ledger) Agreement() ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.state.entries) == 0 {
		return nil, nil
	}
	r, err := l.readRecord(l.state.entries[len(l.state.entries)-1])
	if err != nil {
		return nil, err
	}
	return r.Agreement, nil
}

// Builds says whether a slot was agreed in which the chain's block builds on the given
// one. This operator need not have that block: Following tells what is in it.
func (l *Ledger) Builds(chain sequence.ChainID, parent common.Hash) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.opened[onto{chain, parent}] != nil
}

// Following returns the newest slot in which the chain's block builds on the given one.
// Errors: ErrNotFound, ErrCorrupt.
func (l *Ledger) Following(chain sequence.ChainID, parent common.Hash) (*Record, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := l.state.opened[onto{chain, parent}]
	if e == nil {
		return nil, fmt.Errorf("chain %s, block on %s: %w", chain, parent, ErrNotFound)
	}
	return l.readRecord(e)
}

// Payload returns a logged block of a chain, void or not. Errors: ErrNotFound, ErrCorrupt.
func (l *Ledger) Payload(chain sequence.ChainID, hash common.Hash) (*eth.ExecutionPayloadEnvelope, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if c := l.state.chains[chain]; c != nil {
		if b, ok := c.blocks[hash]; ok {
			return l.readPayload(b)
		}
	}
	return nil, fmt.Errorf("chain %s, block %s: %w", chain, hash, ErrNotFound)
}

// Slots yields the retained records in the order they were agreed, beginning with the
// first one of slot from or later. Slots that were agreed again come again. Records
// appended meanwhile are seen, records pruned meanwhile are left out. It ends after the
// first error.
func (l *Ledger) Slots(from sequence.Slot) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		var after *entry
		for {
			r, e, err := l.nextRecord(after, from)
			if e == nil || !yield(r, err) || err != nil {
				return
			}
			after = e
		}
	}
}

// nextRecord reads the record behind an entry, which may be pruned by now, or the first one from a slot on.
func (l *Ledger) nextRecord(after *entry, from sequence.Slot) (*Record, *entry, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := slices.IndexFunc(l.state.entries, func(e *entry) bool {
		if after == nil {
			return e.slot >= from
		}
		return e.seg.first > after.seg.first || (e.seg == after.seg && e.off > after.off)
	})
	if i < 0 {
		return nil, nil, nil
	}
	e := l.state.entries[i]
	r, err := l.readRecord(e)
	return r, e, err
}

func (l *Ledger) readRecord(e *entry) (*Record, error) {
	body, err := l.read(e)
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(body)
	if err != nil {
		return nil, e.seg.corrupt(e.off, err.Error())
	}
	return r, nil
}

func (l *Ledger) readPayload(b block) (*eth.ExecutionPayloadEnvelope, error) {
	if b.made != nil {
		return l.readMade(b)
	}
	body, err := l.read(b.entry)
	if err != nil {
		return nil, err
	}
	env, err := decodePayloadOf(body, b.chain)
	if err != nil {
		return nil, b.entry.seg.corrupt(b.entry.off, err.Error())
	}
	return env, nil
}

func (l *Ledger) readMade(b block) (*eth.ExecutionPayloadEnvelope, error) {
	if l.closed {
		return nil, ErrClosed
	}
	body, err := b.made.seg.read(b.made.off, b.made.size)
	if err != nil {
		return nil, err
	}
	idx, payload, err := decodeMade(body)
	if err == nil {
		var env *eth.ExecutionPayloadEnvelope
		if env, err = decodePayload(idx.Payload, idx.Slot, payload); err == nil {
			return env, nil
		}
	}
	return nil, b.made.seg.corrupt(b.made.off, err.Error())
}

func (l *Ledger) read(e *entry) ([]byte, error) {
	if l.closed {
		return nil, ErrClosed
	}
	return e.seg.read(e.off, e.size)
}

// Close releases the directory. Everything that was appended is on the disk already.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, seg := range l.segments {
		errs = append(errs, seg.file.Close())
	}
	return errors.Join(append(errs, l.unlock())...)
}
