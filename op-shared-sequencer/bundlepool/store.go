package bundlepool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// ErrDamaged: what should be restored is not what Snapshot or Save made.
var ErrDamaged = errors.New("damaged bundle pool snapshot")

// How a file of the pool begins. The number is the format's; a change of it needs another. In the
// third, frames follow: a snapshot, and changes to it (frame). In the second, the snapshot's
// checksum and the snapshot; it is only read.
var (
	magic2 = []byte("op-shared-sequencer/bundlepool/2\n")
	magic3 = []byte("op-shared-sequencer/bundlepool/3\n")
)

type snapshot struct {
	Slot    sequence.Slot
	Arrival uint64
	Settled []settledRecord // ascending by chain
	Bundles []storedRecord  // by arrival
	Gone    []goneRecord    `rlp:"optional"` // ascending by hash
}

// change is what is other than in the snapshot and in the changes before it.
type change struct {
	Slot    sequence.Slot
	Arrival uint64
	Settled []settledRecord // all of them
	Bundles []storedRecord  // those that are new or changed
	Ended   []uint64        // those that are no longer in it, by their arrival
	Gone    []goneRecord    // those that are new
	Back    []common.Hash   // of the gone, those that are forgotten
}

type goneRecord struct {
	Hash   common.Hash
	Expiry sequence.Slot
}

type settledRecord struct {
	Chain  sequence.ChainID
	Number uint64
}

type storedRecord struct {
	Bundle   []byte // sequence.Bundle.Encode
	Arrival  uint64
	State    string
	Attempts uint64
	Undone   uint64
	Slot     sequence.Slot
	Finished sequence.Slot
	Items    []storedItem
	Failure  []storedFailure // none or one
	PutOff   uint64
	Timeouts uint64
	Spent    []chainTx
	Gone     []sequence.ChainID
	UndoneAt sequence.Slot
}

type storedItem struct {
	Item         uint64
	Chain        sequence.ChainID
	TxHash       common.Hash
	BlockNumber  uint64
	Status       uint64
	GasUsed      uint64
	RevertReason string
}

type storedFailure struct {
	Item       uint64 // index + 1, so that none is 0
	Chain      sequence.ChainID
	TxHash     common.Hash
	Reason     string
	ReturnData []byte
	Timeout    bool
}

// Snapshot encodes what must outlive a restart: the bundles that are pending, executed
// and not settled, or undone, and which blocks are settled. What became of failed,
// expired and safe bundles is not in it.
func (p *Pool) Snapshot() []byte {
	p.mu.Lock()
	c := p.copied()
	p.mu.Unlock()
	return c.encode()
}

// contents is a copy of what a snapshot holds, so that nobody waits for its encoding.
type contents struct {
	slot    sequence.Slot
	arrival uint64
	settled []settledRecord
	records []record
	gone    map[common.Hash]sequence.Slot
}

// copied is shallow: what records point to is replaced and appended to, never changed.
// Callers hold the lock.
func (p *Pool) copied() *contents {
	c := &contents{slot: p.slot, arrival: p.arrival, records: make([]record, 0, len(p.live)), gone: maps.Clone(p.gone)}
	for chain, n := range p.settled {
		c.settled = append(c.settled, settledRecord{chain, n})
	}
	for _, r := range p.live {
		if r.state != "" { // it is being learned: Agreed
			c.records = append(c.records, *r)
		}
	}
	return c
}

// byArrival are its records.
func (c *contents) byArrival() map[uint64]*record {
	out := make(map[uint64]*record, len(c.records))
	for i := range c.records {
		out[c.records[i].entry.Arrival] = &c.records[i]
	}
	return out
}

func goneRecords(gone map[common.Hash]sequence.Slot) (out []goneRecord) {
	for hash, expiry := range gone {
		out = append(out, goneRecord{hash, expiry})
	}
	return out
}

// encode makes a snapshot of it.
func (c *contents) encode() []byte {
	s := snapshot{Slot: c.slot, Arrival: c.arrival, Settled: c.settled, Gone: goneRecords(c.gone)}
	for i := range c.records {
		s.Bundles = append(s.Bundles, c.records[i].stored())
	}
	return slices.Concat(magic3, s.frame())
}

// frame sorts what the maps gave in any order.
func (s *snapshot) frame() []byte {
	slices.SortFunc(s.Gone, func(a, b goneRecord) int { return a.Hash.Cmp(b.Hash) })
	slices.SortFunc(s.Settled, func(a, b settledRecord) int { return cmp.Compare(a.Chain, b.Chain) })
	slices.SortFunc(s.Bundles, func(a, b storedRecord) int { return cmp.Compare(a.Arrival, b.Arrival) })
	return frameKey(nil).frame(s)
}

func (r *record) stored() storedRecord {
	t := storedRecord{
		Bundle: r.entry.Bundle.Encode(), Arrival: r.entry.Arrival, State: string(r.state), Attempts: r.attempts,
		Undone: r.undone, Slot: r.slot, Finished: r.finished, PutOff: r.putOff, Timeouts: r.timeouts, Spent: r.spent,
		Gone: r.gone, UndoneAt: r.undoneAt,
	}
	for _, it := range r.items {
		t.Items = append(t.Items, storedItem{uint64(it.Item), it.Chain, it.TxHash, it.BlockNumber, it.Status, it.GasUsed, it.RevertReason})
	}
	if f := r.failure; f != nil {
		t.Failure = []storedFailure{{uint64(f.Item + 1), f.Chain, f.TxHash, f.Reason, f.ReturnData, f.Timeout}}
	}
	return t
}

// same says whether both would be stored in the same way: what they point to is replaced and
// appended to, never changed.
func (r *record) same(o *record) bool {
	return r.entry == o.entry && r.state == o.state && r.attempts == o.attempts && r.undone == o.undone &&
		r.slot == o.slot && r.finished == o.finished && r.failure == o.failure && r.putOff == o.putOff &&
		r.timeouts == o.timeouts && r.undoneAt == o.undoneAt &&
		sameSlice(r.items, o.items) && sameSlice(r.spent, o.spent) && sameSlice(r.gone, o.gone)
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// checksumSize is that of Keccak-256.
const checksumSize = 32

// A frame is a mark, the length of an encoding in four bytes, a checksum, and the encoding. In the
// checksum of a change is that of its file's snapshot, so that what is no frame of this file, but
// bytes that a bundle has brought, is not taken for one.
type frameKey []byte

// frame encodes a snapshot, whose key is nil, or a change.
func (k frameKey) frame(v any) []byte {
	body, err := rlp.EncodeToBytes(v)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	return k.framed(body)
}

func (k frameKey) framed(body []byte) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return slices.Concat(frameMark, length, crypto.Keccak256(k, length, body), body)
}

// frameMark is where a frame may begin.
var frameMark = []byte("\xffbundles")

// headSize is that of a frame before its encoding.
var headSize = len(frameMark) + 4 + checksumSize

// cut takes the first frame off, if the data begins with one. sum is its checksum.
func (k frameKey) cut(data []byte) (body, rest, sum []byte, ok bool) {
	rest, ok = bytes.CutPrefix(data, frameMark)
	if !ok || len(data) < headSize {
		return nil, nil, nil, false
	}
	length, sum, rest := rest[:4], rest[4:4+checksumSize], rest[4+checksumSize:]
	n := uint64(binary.BigEndian.Uint32(length))
	if n > uint64(len(rest)) || !bytes.Equal(sum, crypto.Keccak256(k, length, rest[:n])) {
		return nil, nil, nil, false
	}
	return rest[:n], rest[n:], sum, true
}

// torn says whether data, which does not begin with a frame, is what a crash can have left of the
// last one: there is no other after it. Of one that was synced, and of what came before it, all is there.
func (k frameKey) torn(data []byte) bool {
	for len(data) > 0 {
		i := bytes.Index(data[1:], frameMark)
		if i < 0 {
			return true
		}
		data = data[1+i:]
		if _, _, _, ok := k.cut(data); ok {
			return false
		}
	}
	return true
}

// parse reads a snapshot with the changes to it. cut: the last change is not there as a whole.
// It was not synced, so nobody was told that it is stored.
func parse(data []byte) (_ *snapshot, cut bool, err error) {
	s := new(snapshot)
	if body, ok := bytes.CutPrefix(data, magic2); ok {
		if len(body) < checksumSize || !bytes.Equal(body[:checksumSize], crypto.Keccak256(body[checksumSize:])) {
			return nil, false, errors.New("its checksum is wrong")
		}
		return s, false, rlp.DecodeBytes(body[checksumSize:], s)
	}
	rest, ok := bytes.CutPrefix(data, magic3)
	if !ok {
		return nil, false, fmt.Errorf("it does not begin with %q", magic3)
	}
	body, rest, sum, ok := frameKey(nil).cut(rest)
	if !ok {
		return nil, false, errors.New("its checksum is wrong, or its end is missing")
	}
	if err := rlp.DecodeBytes(body, s); err != nil || len(rest) == 0 {
		return s, false, err
	}
	bundles, gone := map[uint64]storedRecord{}, map[common.Hash]sequence.Slot{}
	for i, b := range s.Bundles {
		if _, twice := bundles[b.Arrival]; twice {
			return nil, false, fmt.Errorf("bundle %d is there twice", i)
		}
		bundles[b.Arrival] = b
	}
	for _, g := range s.Gone {
		gone[g.Hash] = g.Expiry
	}
	for n := 1; len(rest) > 0; n++ {
		body, after, _, ok := frameKey(sum).cut(rest)
		if !ok {
			if !frameKey(sum).torn(rest) {
				return nil, false, fmt.Errorf("change %d: its checksum is wrong, and there are others after it", n)
			}
			cut = true
			break
		}
		rest = after
		var c change
		if err := rlp.DecodeBytes(body, &c); err != nil {
			return nil, false, fmt.Errorf("change %d: %w", n, err)
		}
		s.Slot, s.Arrival, s.Settled = c.Slot, c.Arrival, c.Settled
		for _, b := range c.Bundles {
			bundles[b.Arrival] = b
		}
		for _, arrival := range c.Ended {
			delete(bundles, arrival)
		}
		for _, g := range c.Gone {
			gone[g.Hash] = g.Expiry
		}
		for _, hash := range c.Back {
			delete(gone, hash)
		}
	}
	s.Bundles = slices.SortedFunc(maps.Values(bundles), func(a, b storedRecord) int { return cmp.Compare(a.Arrival, b.Arrival) })
	s.Gone = goneRecords(gone)
	return s, cut, nil
}

// Restore replaces what the pool holds by a snapshot, and leaves it as it is on error.
// Limits are not applied to it. Call Advance afterwards: it ends what expired meanwhile.
// Error: ErrDamaged.
func (p *Pool) Restore(data []byte) error {
	s, cut, err := parse(data)
	if err == nil {
		err = p.restore(s)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if cut {
		p.log.Warn("Last change of the bundle pool was not stored to its end and is left out", "bundles", len(s.Bundles))
	}
	return nil
}

func (p *Pool) restore(s *snapshot) error {
	records := make([]*record, 0, len(s.Bundles))
	seen, arrivals := map[common.Hash]bool{}, map[uint64]bool{}
	for i := range s.Bundles {
		r, err := p.restored(&s.Bundles[i])
		if err != nil {
			return fmt.Errorf("bundle %d: %w", i, err)
		}
		if r == nil {
			continue
		}
		if seen[r.entry.Hash] || arrivals[r.entry.Arrival] {
			return fmt.Errorf("bundle %d is there twice", i)
		}
		seen[r.entry.Hash], arrivals[r.entry.Arrival] = true, true
		records = append(records, r)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.slot, p.arrival = s.Slot, s.Arrival
	clear(p.live)
	clear(p.done)
	clear(p.before)
	clear(p.stand)
	clear(p.senders)
	clear(p.named)
	clear(p.gone)
	for _, g := range s.Gone {
		p.gone[g.Hash] = g.Expiry
	}
	clear(p.settled)
	clear(p.heldFrom)
	p.queue, p.waiting, p.bytes, p.doneBytes = nil, nil, 0, 0
	for _, c := range s.Settled {
		p.settled[c.Chain] = c.Number
	}
	p.restoring = true
	defer func() { p.restoring = false }()
	for _, r := range records {
		state, finished := r.state, r.finished
		r.state = "" // move counts from nothing
		p.move(r, state)
		r.finished = finished
	}
	return nil
}

// restored rebuilds a record; nil for a bundle on a chain that is no longer in the set.
func (p *Pool) restored(t *storedRecord) (*record, error) {
	b, err := sequence.DecodeBundle(t.Bundle)
	if err != nil {
		return nil, err
	}
	e, err := p.decode(b, len(t.Bundle), false)
	if errors.Is(err, ErrUnknownChain) {
		p.log.Warn("Dropping a stored bundle", "bundle", b.Hash(), "state", t.State, "reason", err)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	e.Arrival = t.Arrival
	r := &record{
		entry: e, state: State(t.State), attempts: t.Attempts, undone: t.Undone,
		slot: t.Slot, finished: t.Finished, putOff: t.PutOff, timeouts: t.Timeouts, spent: t.Spent,
		gone: t.Gone, undoneAt: t.UndoneAt,
	}
	for _, it := range t.Items {
		if it.Item >= uint64(len(b.Items)) {
			return nil, fmt.Errorf("result of item %d, it has %d", it.Item, len(b.Items))
		}
		r.items = append(r.items, ItemResult{
			Item: int(it.Item), Chain: it.Chain, TxHash: it.TxHash, BlockNumber: it.BlockNumber,
			Status: it.Status, GasUsed: it.GasUsed, RevertReason: it.RevertReason,
		})
	}
	for _, f := range t.Failure {
		r.failure = &Failure{
			Item: int(f.Item) - 1, Chain: f.Chain, TxHash: f.TxHash, Reason: f.Reason, ReturnData: f.ReturnData, Timeout: f.Timeout,
		}
	}
	switch r.state {
	case Executed:
		return r, checkExecuted(e, &BundleResult{Slot: r.slot, Items: r.items})
	case Pending, Undone:
		return r, nil
	}
	return nil, fmt.Errorf("unexpected state %q", t.State)
}

// Save makes what the pool holds durable in the file. It adds what has changed since the last
// Save, or replaces the file by a snapshot, whole or not at all: at first, and when the changes
// have become longer than that would be. It does nothing if nothing has changed, so it may be
// called every slot.
func (p *Pool) Save(path string) error {
	p.saveMu.Lock()
	defer p.saveMu.Unlock()
	p.mu.Lock()
	version := p.version
	if version == p.saved {
		p.mu.Unlock()
		return nil
	}
	c := p.copied()
	p.mu.Unlock()
	d := p.disk
	p.disk = nil // if this fails, what is in the file is not known
	var err error
	if d == nil || d.path != path || d.size-d.whole > max(d.whole, minCompact) || !d.intact() {
		d, err = newDisk(path, c)
	} else {
		err = d.add(c)
	}
	if err != nil {
		return fmt.Errorf("saving the bundle pool: %w", err)
	}
	p.saved, p.disk = version, d
	return nil
}

// minCompact is up to how many bytes of changes a file is not written anew.
const minCompact = 1 << 20

// disk is what a file holds.
type disk struct {
	path    string
	size    int64 // bytes of all of it
	whole   int64 // without the changes
	key     frameKey
	bundles map[uint64]*record // by arrival
	gone    map[common.Hash]sequence.Slot
}

// newDisk replaces the file by a snapshot.
func newDisk(path string, c *contents) (*disk, error) {
	data := c.encode()
	_, _, key, _ := frameKey(nil).cut(data[len(magic3):])
	d := &disk{path: path, size: int64(len(data)), whole: int64(len(data)), key: key, bundles: c.byArrival(), gone: c.gone}
	return d, writeSynced(path, data)
}

// intact says whether the file is as it was left.
func (d *disk) intact() bool {
	st, err := os.Stat(d.path)
	return err == nil && st.Size() == d.size
}

// add appends what has changed. After an error d is of no use.
func (d *disk) add(c *contents) (err error) {
	data := d.key.frame(d.change(c))
	f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	d.size += int64(len(data))
	return f.Sync()
}

// change is what the file does not say yet. d is as if it did from then on.
func (d *disk) change(c *contents) *change {
	out := &change{Slot: c.slot, Arrival: c.arrival, Settled: c.settled}
	now := c.byArrival()
	for arrival, r := range now {
		if had := d.bundles[arrival]; had == nil || !had.same(r) {
			out.Bundles = append(out.Bundles, r.stored())
		}
	}
	for arrival := range d.bundles {
		if now[arrival] == nil {
			out.Ended = append(out.Ended, arrival)
		}
	}
	for hash, expiry := range c.gone {
		if _, ok := d.gone[hash]; !ok { // the hash is of the expiry too
			out.Gone = append(out.Gone, goneRecord{hash, expiry})
		}
	}
	for hash := range d.gone {
		if _, ok := c.gone[hash]; !ok {
			out.Back = append(out.Back, hash)
		}
	}
	d.bundles, d.gone = now, c.gone
	return out
}

// Load restores what Save wrote. A missing file leaves the pool as it is.
// Error: ErrDamaged, or why the file could not be read.
func (p *Pool) Load(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("loading the bundle pool: %w", err)
	}
	if err := p.Restore(data); err != nil {
		return fmt.Errorf("loading the bundle pool from %s (move the file away to start without its bundles): %w", path, err)
	}
	return nil
}

// writeSynced writes to a file beside path and renames it, so that a crash leaves the
// old content or the new one.
func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
