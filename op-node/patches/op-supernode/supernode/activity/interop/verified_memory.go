package interop

import (
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// VerifiedBlockAtL1 is asked six times and more for each block of each chain, for L1's finalized block.
// That is a search back from the newest result through all that L1 has not finalized, some 900 with
// blocks of 1 s on mainnet, each read from disk and decoded. The memory makes it one look.

// rememberResults is how many results are kept decoded: the newest, and the one that is finalized.
const rememberResults = 16

// verifiedMemory is what reads have found out, until results are taken back. Its zero value is empty.
type verifiedMemory struct {
	mu      sync.Mutex
	results *simplelru.LRU[uint64, VerifiedResult]
	rewinds uint64
	search  verifiedSearch
}

// verifiedSearch has found the newest result up to a timestamp that L1 includes at or below a block.
type verifiedSearch struct {
	l1, rewinds uint64
	upTo, found uint64 // timestamps
}

func (m *verifiedMemory) get(ts uint64) (VerifiedResult, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.results == nil {
		return VerifiedResult{}, false
	}
	return m.results.Get(ts)
}

// add is called while results cannot be taken back.
func (m *verifiedMemory) add(r VerifiedResult) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.results == nil {
		m.results, _ = simplelru.NewLRU[uint64, VerifiedResult](rememberResults, nil) // fails for sizes below 1
	}
	m.results.Add(r.Timestamp, r)
}

// forget is called while nothing is read.
func (m *verifiedMemory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results, m.search = nil, verifiedSearch{}
	m.rewinds++
}

// LatestAtL1 is the newest timestamp, from lowest to last, with a result that L1 includes at or below
// block l1; lowest if there is none, and last if it is below lowest or the results cannot be read. What was found for the
// same l1 is not searched for again.
func (v *VerifiedDB) LatestAtL1(l1, last, lowest uint64) uint64 {
	if last < lowest {
		return last
	}
	m := &v.memory
	m.mu.Lock()
	before, rewinds := m.search, m.rewinds
	m.mu.Unlock()
	searched := before.l1 == l1 && before.rewinds == rewinds && lowest <= before.found && before.upTo <= last && before.upTo > 0
	found := lowest
	for ts := last; ts > lowest; ts-- {
		if searched && ts == before.upTo {
			found = before.found
			break
		}
		r, err := v.Get(ts)
		if errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return last
		}
		if r.L1Inclusion.Number <= l1 {
			found = ts
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rewinds == rewinds {
		m.search = verifiedSearch{l1: l1, rewinds: rewinds, upTo: last, found: found}
	}
	return found
}
