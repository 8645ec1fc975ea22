package bundlepool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// ErrDamaged: what should be restored is not what Snapshot made.
var ErrDamaged = errors.New("damaged bundle pool snapshot")

// snapshotMagic names the format; a change of it needs another number.
var snapshotMagic = []byte("op-shared-sequencer/bundlepool/2\n")

type snapshot struct {
	Slot    sequence.Slot
	Arrival uint64
	Settled []settledRecord // ascending by chain
	Bundles []storedRecord  // by arrival
	Gone    []goneRecord    `rlp:"optional"` // ascending by hash
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
	gone    []goneRecord
}

// copied is shallow: what records point to is replaced and appended to, never changed.
// Callers hold the lock.
func (p *Pool) copied() *contents {
	c := &contents{slot: p.slot, arrival: p.arrival, records: make([]record, 0, len(p.live))}
	for chain, n := range p.settled {
		c.settled = append(c.settled, settledRecord{chain, n})
	}
	for _, r := range p.live {
		c.records = append(c.records, *r)
	}
	for hash, expiry := range p.gone {
		c.gone = append(c.gone, goneRecord{hash, expiry})
	}
	return c
}

func (c *contents) encode() []byte {
	s := snapshot{Slot: c.slot, Arrival: c.arrival, Settled: c.settled, Gone: c.gone}
	slices.SortFunc(s.Gone, func(a, b goneRecord) int { return a.Hash.Cmp(b.Hash) })
	slices.SortFunc(s.Settled, func(a, b settledRecord) int { return cmp.Compare(a.Chain, b.Chain) })
	for i := range c.records {
		r := &c.records[i]
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
		s.Bundles = append(s.Bundles, t)
	}
	slices.SortFunc(s.Bundles, func(a, b storedRecord) int { return cmp.Compare(a.Arrival, b.Arrival) })
	body, err := rlp.EncodeToBytes(&s)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	return seal(body)
}

// seal puts the format and a checksum before the encoding.
func seal(body []byte) []byte {
	return slices.Concat(snapshotMagic, crypto.Keccak256(body), body)
}

// Restore replaces what the pool holds by a snapshot, and leaves it as it is on error.
// Limits are not applied to it. Call Advance afterwards: it ends what expired meanwhile.
// Error: ErrDamaged.
func (p *Pool) Restore(data []byte) error {
	body, ok := bytes.CutPrefix(data, snapshotMagic)
	if !ok {
		return fmt.Errorf("%w: it does not begin with %q", ErrDamaged, snapshotMagic)
	}
	if len(body) < 32 || !bytes.Equal(body[:32], crypto.Keccak256(body[32:])) {
		return fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	var s snapshot
	if err := rlp.DecodeBytes(body[32:], &s); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	records := make([]*record, 0, len(s.Bundles))
	seen, arrivals := map[common.Hash]bool{}, map[uint64]bool{}
	for i := range s.Bundles {
		r, err := p.restored(&s.Bundles[i])
		if err != nil {
			return fmt.Errorf("%w: bundle %d: %w", ErrDamaged, i, err)
		}
		if r == nil {
			continue
		}
		if seen[r.entry.Hash] || arrivals[r.entry.Arrival] {
			return fmt.Errorf("%w: bundle %d is there twice", ErrDamaged, i)
		}
		seen[r.entry.Hash], arrivals[r.entry.Arrival] = true, true
		records = append(records, r)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.slot, p.arrival = s.Slot, s.Arrival
	clear(p.live)
	clear(p.done)
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

// Save writes a snapshot to the file, synced, replacing it whole or not at all. It does
// nothing if nothing has changed since the last Save, so it may be called every slot.
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
	if err := writeSynced(path, c.encode()); err != nil {
		return fmt.Errorf("saving the bundle pool: %w", err)
	}
	p.saved = version
	return nil
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
