package ledger

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// state is what the log knows without reading it: a function of its frames, in order.
type state struct {
	slot    sequence.Slot
	last    common.Hash // zero if there was no record yet
	entries []*entry    // retained records in the order they were agreed
	lasts   map[common.Hash]bool
	chains  map[sequence.ChainID]*chain
	// opened are the retained records by what they build on; the newest if it was twice.
	opened map[onto]*entry
}

// entry is a retained record.
type entry struct {
	seg    *segment
	off    int64
	size   int
	slot   sequence.Slot
	last   common.Hash
	blocks []block
	opens  []opened
}

// onto is what a block builds on.
type onto struct {
	chain  sequence.ChainID
	parent common.Hash
}

// opened is a block of a record, which this operator need not have.
type opened struct {
	onto
	number uint64
	pruned bool
}

// chain is one chain's heads and retained blocks.
type chain struct {
	head     eth.BlockID
	headTime uint64 // 0 if not known
	below    uint64
	final    eth.BlockID
	blocks   map[common.Hash]block // of retained entries; the newest if one was agreed twice
}

// block is a logged block.
type block struct {
	chain  sequence.ChainID
	id     eth.BlockID
	parent common.Hash
	entry  *entry
	made   *place // where its payload is, if not in the entry
}

// place is where a frame is.
type place struct {
	seg  *segment
	off  int64
	size int
}

func newState() *state {
	return &state{lasts: map[common.Hash]bool{}, chains: map[sequence.ChainID]*chain{}, opened: map[onto]*entry{}}
}

func (s *state) chain(id sequence.ChainID) *chain {
	c := s.chains[id]
	if c == nil {
		c = &chain{blocks: map[common.Hash]block{}}
		s.chains[id] = c
	}
	return c
}

// body is the state as a segment begins with it.
func (s *state) body() stateBody {
	b := stateBody{Slot: s.slot, Last: s.last}
	for _, id := range slices.Sorted(maps.Keys(s.chains)) {
		c := s.chains[id]
		b.Chains = append(b.Chains, chainState{
			Chain: id, Head: c.head.Hash, Number: c.head.Number, Time: c.headTime, Below: c.below,
			Final: c.final.Hash, FinalNumber: c.final.Number,
		})
	}
	return b
}

// restore takes the state from the beginning of the oldest segment.
func (s *state) restore(b stateBody) {
	s.slot, s.last = b.Slot, b.Last
	for _, cs := range b.Chains {
		c := s.chain(cs.Chain)
		c.head, c.headTime, c.below = eth.BlockID{Hash: cs.Head, Number: cs.Number}, cs.Time, cs.Below
		c.final = eth.BlockID{Hash: cs.Final, Number: cs.FinalNumber}
	}
}

// check says whether a record extends the log.
func (s *state) check(idx *slotIndex) error {
	if idx.Parent != s.last && s.lasts[idx.Parent] {
		return fmt.Errorf("%w: slot %d follows subblock %s, which another slot already follows; the last one is %s of slot %d",
			ErrNotNext, idx.Slot, idx.Parent, s.last, s.slot)
	}
	for _, p := range idx.Payloads {
		c := s.chains[p.Chain]
		if c == nil {
			continue
		}
		if uint64(idx.Slot) <= c.headTime {
			return fmt.Errorf("%w: chain %s: slot %d is not after that of its head %s, %d; if the chain went back, Rewind must say so first",
				ErrNotNext, p.Chain, idx.Slot, c.head, c.headTime)
		}
		if p.Parent == c.head.Hash {
			if p.Number != c.head.Number+1 {
				return fmt.Errorf("%w: chain %s, slot %d: block %d on block %s", ErrNotNext, p.Chain, idx.Slot, p.Number, c.head)
			}
			continue
		}
		// A parent the log holds but the head does not descend from is void, or was until
		// derivation made the same blocks again: then the run goes on there.
		if parent, ok := c.blocks[p.Parent]; ok && c.onPath(parent.id) {
			return fmt.Errorf("%w: chain %s, slot %d: block %d builds on %s, but the head is %s; if the chain went back, Rewind must say so first",
				ErrNotNext, p.Chain, idx.Slot, p.Number, parent.id, c.head)
		}
	}
	return nil
}

// onPath says whether the head is, or descends through logged blocks from, a block.
func (c *chain) onPath(id eth.BlockID) bool {
	hash := c.head.Hash
	for {
		if hash == id.Hash {
			return true
		}
		b, ok := c.blocks[hash]
		if !ok || b.id.Number <= id.Number {
			return false
		}
		hash = b.parent
	}
}

// addSlot enters a record that stands in the log.
func (s *state) addSlot(idx *slotIndex, seg *segment, off int64, size int) {
	e := &entry{seg: seg, off: off, size: size, slot: idx.Slot, last: idx.Last}
	for _, o := range idx.Openings {
		at := onto{o.Chain, o.Parent}
		e.opens = append(e.opens, opened{onto: at, number: o.Number})
		s.opened[at] = e
	}
	for _, p := range idx.Payloads {
		b := block{chain: p.Chain, id: eth.BlockID{Hash: p.Hash, Number: p.Number}, parent: p.Parent, entry: e}
		e.blocks = append(e.blocks, b)
		c := s.chain(p.Chain)
		c.blocks[p.Hash] = b
		c.head, c.headTime = b.id, uint64(idx.Slot)
	}
	s.entries = append(s.entries, e)
	s.slot, s.last = idx.Slot, idx.Last
	s.lasts[idx.Last] = true
}

func (s *state) rewind(r rewindBody) {
	delete(s.opened, onto{r.Chain, r.Hash}) // what was agreed on top is void
	s.advance(r)
}

func (s *state) advance(r rewindBody) {
	c := s.chain(r.Chain)
	c.head, c.headTime = eth.BlockID{Hash: r.Hash, Number: r.Number}, r.Time
	c.below = min(c.below, r.Number+1)
}

// made enters the payload of a block whose slot's record lacks it. It is kept as long as
// that record.
func (s *state) made(m madeIndex, at *place) {
	p := m.Payload
	if e := s.opened[onto{p.Chain, p.Parent}]; e != nil && e.slot == m.Slot {
		b := block{chain: p.Chain, id: eth.BlockID{Hash: p.Hash, Number: p.Number}, parent: p.Parent, entry: e, made: at}
		e.blocks = append(e.blocks, b)
		s.chain(p.Chain).blocks[p.Hash] = b
	}
	s.advance(rewindBody{Chain: p.Chain, Hash: p.Hash, Number: p.Number, Time: uint64(m.Slot)})
}

func (s *state) finalize(f finalBody) {
	s.chain(f.Chain).final = eth.BlockID{Hash: f.Hash, Number: f.Number}
}

// prune marks the blocks below a bound and drops the oldest entries as long as all
// their blocks are marked, also those that this operator has not made yet. Marks rather than bounds, so that the outcome does not depend
// on which older segments are still there when the log is read again, and blocks that are
// agreed anew below a bound, after a deep reorg, are kept.
func (s *state) prune(p pruneBody) {
	s.chain(p.Chain).below = p.Below
	n, whole := 0, true
	for i, e := range s.entries {
		for i := range e.opens {
			o := &e.opens[i]
			// A chain that the log has no block of is not this operator's.
			o.pruned = o.pruned || (o.chain == p.Chain && o.number < p.Below) || s.chains[o.chain] == nil
			whole = whole && o.pruned
		}
		// The newest stays: it says where the agreement goes on.
		if whole = whole && i < len(s.entries)-1; !whole {
			continue
		}
		n++
		for _, o := range e.opens {
			if s.opened[o.onto] == e {
				delete(s.opened, o.onto)
			}
		}
		delete(s.lasts, e.last)
		for _, b := range e.blocks {
			if c := s.chains[b.chain]; c.blocks[b.id.Hash].entry == e {
				delete(c.blocks, b.id.Hash)
			}
		}
	}
	s.entries = slices.Delete(s.entries, 0, n)
}
