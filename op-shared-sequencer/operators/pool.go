package operators

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"
)

// ErrEvidence wraps what is wrong with the evidence file.
var ErrEvidence = errors.New("evidence file")

const (
	evidenceMagic    = "op-shared-sequencer/evidence/1\n"
	maxEvidenceFile  = 16 << 20
	maxVoteKindBytes = 32
)

// EvidenceLimits bound what a pool keeps. Zero values stand for the defaults.
type EvidenceLimits struct {
	// Leaders whose subblocks are remembered. Default 2·MaxOperators: the set changes.
	Leaders int
	// Recent subblocks that are remembered of each leader. Default 256.
	Recent int
	// PerLeader is how much evidence is kept against one leader, or one voter. One is
	// enough to prove what it is. Default 16.
	PerLeader int
}

func (l EvidenceLimits) withDefaults() EvidenceLimits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Leaders, 2*MaxOperators)
	def(&l.Recent, 256)
	def(&l.PerLeader, 16)
	return l
}

// total is how much evidence of one sort is kept: what fits the file.
func (l EvidenceLimits) total() int { return min(l.Leaders*l.PerLeader, 16384) }

// EvidencePool compares the signed subblocks that come by, and keeps evidence, also over
// restarts. Safe for concurrent use.
type EvidencePool struct {
	fs     files
	path   string
	setID  common.Hash
	limits EvidenceLimits

	mu      sync.Mutex
	leaders map[common.Address]*seenOf
	order   []common.Address // of leaders, the one seen first longest ago first
	proven  []provenBy
	votes   []VoteEvidence
	unsaved bool // the last write failed
}

// seenOf is what a leader signed recently.
type seenOf struct {
	first map[place]signedHash
	order []place // oldest first
}

type place struct {
	height uint64
	view   common.Hash
}

type signedHash struct {
	hash common.Hash
	sig  Signature
}

type provenBy struct {
	leader   common.Address
	evidence Evidence
}

// evidenceBody is the RLP content of the file.
type evidenceBody struct {
	SetID  common.Hash
	Proven []Evidence
	Votes  []VoteEvidence
}

// NewEvidencePool opens the evidence file, and creates it with the first evidence. With
// an empty path nothing is kept over a restart.
func NewEvidencePool(path string, setID common.Hash, limits EvidenceLimits) (*EvidencePool, error) {
	return newEvidencePool(osFiles{}, path, setID, limits)
}

func newEvidencePool(fs files, path string, setID common.Hash, limits EvidenceLimits) (*EvidencePool, error) {
	p := &EvidencePool{fs: fs, path: path, setID: setID, limits: limits.withDefaults(), leaders: map[common.Address]*seenOf{}}
	if path == "" {
		return p, nil
	}
	data, err := readFile(fs, path, maxEvidenceFile)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if err := p.restore(data); err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w. Keep a copy for a look at what is left, and move it away to start without it", ErrEvidence, path, err)
	}
	return p, nil
}

func (p *EvidencePool) restore(data []byte) error {
	body, err := unseal(evidenceMagic, data)
	if err != nil {
		return err
	}
	var b evidenceBody
	if err := rlp.DecodeBytes(body, &b); err != nil {
		return err
	}
	if b.SetID != p.setID {
		return fmt.Errorf("it is of set %s, this is set %s", b.SetID, p.setID)
	}
	for _, e := range b.Proven {
		leader, err := e.Check(b.SetID)
		if err != nil {
			return err
		}
		p.proven = append(p.proven, provenBy{leader, e})
	}
	p.votes = b.Votes
	return nil
}

// Observe remembers a signed subblock, and returns evidence if its leader signed another
// one for the same height and view before. The evidence is new, and durable if there is no
// error; on an error it is returned all the same, and kept until the next try to write.
// The caller has made sure that the subblock is an operator's: see SignedSubblock.Leader.
func (p *EvidencePool) Observe(s *SignedSubblock) (*Evidence, error) {
	leader, err := s.Leader(p.setID)
	if err != nil {
		return nil, err
	}
	at := place{s.Height, View(s.Subblock)}
	now := signedHash{s.Hash(), s.Signature}

	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen(leader)
	before, ok := seen.first[at]
	if !ok {
		if len(seen.order) >= p.limits.Recent {
			delete(seen.first, seen.order[0])
			seen.order = seen.order[1:]
		}
		seen.first[at] = now
		seen.order = append(seen.order, at)
		return nil, nil
	}
	if before.hash == now.hash {
		return nil, p.retry()
	}
	count := 0
	for _, e := range p.proven {
		if e.leader != leader {
			continue
		}
		if count++; e.evidence.Height == at.height && e.evidence.View == at.view {
			return nil, p.retry()
		}
	}
	if count >= p.limits.PerLeader || len(p.proven) >= p.limits.total() {
		return nil, p.retry()
	}
	if bytes.Compare(before.hash[:], now.hash[:]) > 0 { // so that operators' evidence is the same
		before, now = now, before
	}
	e := Evidence{
		Height: at.height, View: at.view,
		Hashes: [2]common.Hash{before.hash, now.hash}, Signatures: [2]Signature{before.sig, now.sig},
	}
	p.proven = append(p.proven, provenBy{leader, e})
	return &e, p.save()
}

// seen is what is remembered of a leader. Callers hold the lock.
func (p *EvidencePool) seen(leader common.Address) *seenOf {
	seen, ok := p.leaders[leader]
	if !ok {
		if len(p.order) >= p.limits.Leaders {
			delete(p.leaders, p.order[0])
			p.order = p.order[1:]
		}
		seen = &seenOf{first: map[place]signedHash{}}
		p.leaders[leader] = seen
		p.order = append(p.order, leader)
	}
	return seen
}

// AddVotes records what the agreement protocol found, durably, once.
func (p *EvidencePool) AddVotes(v VoteEvidence) error {
	if len(v.Kind) > maxVoteKindBytes {
		return fmt.Errorf("%w vote evidence: kind %.80q", ErrMalformed, v.Kind)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 0
	for _, have := range p.votes {
		if have == v {
			return p.retry()
		}
		if have.Address == v.Address {
			count++
		}
	}
	if count >= p.limits.PerLeader || len(p.votes) >= p.limits.total() {
		return p.retry()
	}
	p.votes = append(p.votes, v)
	return p.save()
}

// save writes the file. Callers hold the lock.
func (p *EvidencePool) save() error {
	if p.path == "" {
		return nil
	}
	b := evidenceBody{SetID: p.setID, Votes: p.votes}
	for _, e := range p.proven {
		b.Proven = append(b.Proven, e.evidence)
	}
	err := replaceFile(p.fs, p.path, seal(evidenceMagic, mustEncode(&b)))
	p.unsaved = err != nil
	if err != nil {
		return fmt.Errorf("%w: write %s: %w", ErrEvidence, p.path, err)
	}
	return nil
}

// retry writes what could not be written before. Callers hold the lock.
func (p *EvidencePool) retry() error {
	if !p.unsaved {
		return nil
	}
	return p.save()
}

// Proven is evidence with the leader it is against.
type Proven struct {
	Leader common.Address `json:"leader"`
	Evidence
}

// EvidenceList is everything a pool keeps, oldest first.
type EvidenceList struct {
	Subblocks []Proven       `json:"subblocks"`
	Votes     []VoteEvidence `json:"votes"`
}

// List is everything that is kept.
func (p *EvidencePool) List() EvidenceList {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := EvidenceList{Subblocks: make([]Proven, 0, len(p.proven)), Votes: append([]VoteEvidence{}, p.votes...)}
	for _, e := range p.proven {
		l.Subblocks = append(l.Subblocks, Proven{e.leader, e.evidence})
	}
	return l
}
