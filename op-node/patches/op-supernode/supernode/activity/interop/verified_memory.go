package interop

import (
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Each engine controller asks for the finalized head six times and more for each block. Every answer is
// a search (VerifiedBlockAtL1) back from the newest result through all that L1 has not finalized: one a
// second, some 900 on mainnet, each read and decoded. What is remembered here leaves the first search
// for each of L1's finalized blocks, and after it the results that are new.

// remembered bounds the results that are kept decoded, of which the newest and the finalized one are
// asked for, and the searches: chains may have heard of different finalized blocks of L1.
const remembered = 16

// verifiedMemory is what was read and found, until results are taken back. Its zero value is empty.
// What it holds it still answers when the database is closed.
type verifiedMemory struct {
	searching sync.Mutex // so that all chains wait for the first one's search

	mu       sync.Mutex
	results  *simplelru.LRU[uint64, VerifiedResult] // by timestamp
	searches *simplelru.LRU[uint64, verifiedSearch] // by number of the L1 block
	rewinds  uint64
}

// verifiedSearch says that of the results behind found, up to and with upTo, L1 includes none at or
// below the block that was searched for.
type verifiedSearch struct{ found, upTo uint64 }

func (m *verifiedMemory) get(ts uint64) (r VerifiedResult, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.results == nil {
		return r, false
	}
	return m.results.Get(ts)
}

// add is called while results cannot be taken back.
func (m *verifiedMemory) add(ts uint64, r VerifiedResult) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.results == nil {
		m.results, _ = simplelru.NewLRU[uint64, VerifiedResult](remembered, nil) // fails for sizes below 1
	}
	m.results.Add(ts, r)
}

// forget is called while nothing can be read.
func (m *verifiedMemory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results, m.searches = nil, nil
	m.rewinds++
}

func (m *verifiedMemory) searched(l1 uint64) (s verifiedSearch, rewinds uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.searches != nil {
		s, _ = m.searches.Get(l1)
	}
	return s, m.rewinds
}

// keep remembers a search, unless results were taken back since.
func (m *verifiedMemory) keep(l1 uint64, s verifiedSearch, rewinds uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rewinds != rewinds {
		return
	}
	if m.searches == nil {
		m.searches, _ = simplelru.NewLRU[uint64, verifiedSearch](remembered, nil)
	}
	m.searches.Add(l1, s)
}

// LatestAtL1 is where VerifiedBlockAtL1 can begin to search back from: between the timestamp that it
// gives and last, no result is included by L1 at or below block l1. It is not above last, and lowest if
// no result above lowest is. If a result cannot be read, it is that one's timestamp.
func (v *VerifiedDB) LatestAtL1(l1, last, lowest uint64) uint64 {
	v.memory.searching.Lock()
	defer v.memory.searching.Unlock()
	before, rewinds := v.memory.searched(l1)
	first, _ := v.FirstTimestamp()
	ts, upTo := last, last
	for ; ts > max(lowest, before.upTo); ts-- {
		if ts < first { // there are none below
			ts = lowest
			break
		}
		r, err := v.Get(ts)
		if errors.Is(err, ErrNotFound) { // taken back since last was heard of: another may come
			upTo = ts - 1
			continue
		} else if err != nil {
			return ts
		}
		if r.L1Inclusion.Number <= l1 {
			break
		}
	}
	if ts <= before.upTo {
		ts = min(ts, before.found)
	}
	if upTo >= before.upTo {
		v.memory.keep(l1, verifiedSearch{found: ts, upTo: upTo}, rewinds)
	}
	return ts
}
