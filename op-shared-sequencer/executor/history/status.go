package history

import (
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// progress is how far a fill from the source has come.
type progress struct {
	filling      atomic.Bool
	from, at, to atomic.Uint64
}

func (p *progress) begin(from, to uint64) {
	p.from.Store(from)
	p.at.Store(from)
	p.to.Store(to)
	p.filling.Store(true)
}

func (p *progress) end() { p.filling.Store(false) }

// Status is how a chain's history stands.
type Status struct {
	First, Head uint64 // block numbers; 0 if it is empty
	HeadTime    uint64 // seconds
	Filled      bool   // it has blocks
	// Complete says whether it begins early enough: see Complete.
	Complete bool
	// Filling says whether older blocks are read from the engine: from block From, now
	// At, up to To. Otherwise these are of the last time.
	Filling      bool
	From, At, To uint64
}

// Status says how a chain's history stands; false for a chain that it does not have.
func (h *History) Status(id sequence.ChainID) (Status, bool) {
	c := h.chains[id]
	if c == nil {
		return Status{}, false
	}
	p := &c.progress
	s := Status{Filling: p.filling.Load(), From: p.from.Load(), At: p.at.Load(), To: p.to.Load()}
	c.mu.RLock()
	defer c.mu.RUnlock()
	s.First, s.Head, s.HeadTime, s.Filled, s.Complete = c.first.Number, c.head.Number, c.head.Time, c.filled, c.complete()
	return s, true
}

// Bytes is the size of a chain's history on disk, which takes a few system calls.
func (h *History) Bytes(id sequence.ChainID) int64 {
	c := h.chains[id]
	if c == nil {
		return 0
	}
	var sum int64
	// Files may come and go meanwhile: what cannot be looked at counts as nothing.
	_ = filepath.WalkDir(c.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
