package cometbft

import (
	"bytes"
	"errors"
	"fmt"
	"maps"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Height is how a subblock was agreed on, as its votes in a ledger prove it.
type Height struct {
	Height uint64
	Leader common.Address // that signed it
	Name   string         // the leader's
	// Round is how many leaders were tried before; Missed are these, each once.
	Round  int
	Missed []common.Address
	// Voted of Power is for it.
	Voted, Power uint64
	// Unproven says why nothing can be checked, or not all: the subblock is then this ledger's word.
	Unproven string
	// Wrong is what is not as it must be.
	Wrong []error
}

// Auditor checks the agreement of slots, in the order a ledger has them. The first slot's
// set of operators is taken as it stands there, unless that slot is the first of all.
type Auditor struct {
	genesis *operators.Genesis
	state   *state // what the slots so far make; nil before the first
	// proven: there was a slot with all proofs. broken: behind it was one without, so that
	// nothing ties what follows to what stands before.
	proven, broken bool
}

// NewAuditor makes an auditor for a set. Without a genesis it takes any.
func NewAuditor(g *operators.Genesis) *Auditor { return &Auditor{genesis: g} }

// Why a height is not proven.
const (
	noProof  = "its votes were written without what they are for, by an earlier version"
	noBefore = "what stands before it is not in the ledger"
)

// Slot checks the agreement of a slot's subblocks. The error says that it cannot be read.
func (a *Auditor) Slot(subs []*sequence.Subblock, agreement []byte) ([]Height, error) {
	after, votes, err := decodeAgreement(agreement)
	if err != nil {
		return nil, err
	}
	if len(votes) != len(subs) || uint64(len(subs)) > after.height {
		return nil, fmt.Errorf("the agreement of height %d has the votes of %d heights, the slot has %d subblocks", after.height, len(votes), len(subs))
	}
	first := after.height - uint64(len(subs)) + 1
	heights := make([]Height, len(subs))
	before := a.state
	if before == nil && first == 1 && a.genesis != nil {
		before = genesisState(a.genesis)
	}
	if before != nil && first <= before.height {
		heights[0].Wrong = append(heights[0].Wrong, fmt.Errorf("height %d was agreed on already", first))
		before = nil
	}
	gap := before != nil && first != before.height+1
	if gap {
		before = before.skip(first)
	}
	whole, newest := true, (*proof)(nil)
	for i, sub := range subs {
		h := &heights[i]
		h.Height = first + uint64(i)
		commit, p, err := parseVotes(votes[i])
		if err != nil {
			return nil, fmt.Errorf("height %d: %w", h.Height, err)
		}
		h.Round = int(commit.Round)
		if newest = p; p == nil {
			whole = false
		}
		at := before
		if at == nil && i == len(subs)-1 { // the first slot: who voted for its end stands in it
			at = after.voted()
			h.Unproven = noBefore
		}
		if before, err = h.check(at, a.genesis, sub, commit, p); err != nil {
			return nil, fmt.Errorf("height %d: %w", h.Height, err)
		}
		if gap && before != nil {
			before.hash = common.Hash{} // what the heights before have left is not known
		}
	}
	end := &heights[len(heights)-1]
	if a.genesis != nil && after.set.ID() != a.genesis.ID() {
		end.Wrong = append(end.Wrong, fmt.Errorf("it is of set %s, expected %s", after.set.ID(), a.genesis.ID()))
	}
	if before != nil && a.known(first) {
		end.Wrong = append(end.Wrong, before.differs(after)...)
	}
	// The votes are for a header with the voters of the next height, and the next header's app
	// hash is this height's: so what is written of them cannot be made up.
	if newest != nil {
		if !bytes.Equal(newest.header.NextValidatorsHash, after.now.Hash()) {
			end.Wrong = append(end.Wrong, errors.New("the ledger has other voters of the next height than were agreed on"))
		}
		if after.hash != appHash(subs[len(subs)-1].Hash(), after.set) {
			end.Wrong = append(end.Wrong, errors.New("the ledger has an app hash that is not of its subblock and its set of operators"))
		}
	}
	if a.broken = a.broken || a.proven && !whole; a.broken {
		for i := range heights {
			if heights[i].Unproven == "" {
				heights[i].Unproven = noBefore
			}
		}
	}
	a.proven = a.proven || whole
	a.state = after
	return heights, nil
}

// known says whether the state before a height follows from the slots before.
func (a *Auditor) known(first uint64) bool {
	return a.state != nil && first == a.state.height+1 || a.state == nil && first == 1 && a.genesis != nil
}

// voted is a state before the newest height, as far as it is known of whom voted for that.
func (s *state) voted() *state {
	return &state{height: s.height - 1, set: s.set, last: s.last, now: s.last, next: s.now, turns: map[voter]turn{}, leaving: s.leaving}
}

// skip is the state before a height further on: those between are of a slot that was given
// up, and in no ledger. What changed in them is not known.
func (s *state) skip(first uint64) *state {
	n := &state{height: s.height, set: s.set, last: s.last, now: s.now, next: s.next, creator: s.creator, turns: maps.Clone(s.turns), leaving: s.leaving}
	for ; n.height+1 < first; n.height++ {
		n.last, n.now, n.next = n.now, n.next, settled(n.next.CopyIncrementProposerPriority(1))
	}
	return n
}

// check checks a height against the state before it, nil if that is not known, and gives the
// state after it, nil if that is not.
func (h *Height) check(s *state, g *operators.Genesis, sub *sequence.Subblock, commit *types.Commit, p *proof) (*state, error) {
	if s == nil || p == nil {
		if h.Unproven = noBefore; p == nil {
			h.Unproven = noProof
		}
		return nil, nil
	}
	wrong := func(format string, args ...any) { h.Wrong = append(h.Wrong, fmt.Errorf(format, args...)) }
	signed := &operators.SignedSubblock{Height: h.Height, Subblock: sub, Signature: p.signature}
	txs := types.Txs{signed.Encode()}
	var changes []*operators.SignedChange
	for _, raw := range p.changes {
		txs = append(txs, raw)
		if c, err := operators.DecodeSignedChange(raw); err == nil {
			changes = append(changes, c)
		}
	}
	proposed := voter(p.header.ProposerAddress)
	switch {
	case uint64(p.header.Height) != h.Height || (g != nil && p.header.ChainID != g.Set):
		wrong("the votes are for height %d of set %s", p.header.Height, p.header.ChainID)
	case !bytes.Equal(commit.BlockID.Hash, p.header.Hash()):
		wrong("the votes are for block %s, the header is that of %s", commit.BlockID.Hash, p.header.Hash())
	case !bytes.Equal(p.header.DataHash, txs.Hash()):
		wrong("the votes are for a block with other content than this subblock with this leader's signature")
	case !bytes.Equal(p.header.ValidatorsHash, s.now.Hash()):
		wrong("the votes are for a block of other voters than the operators of the set")
	case s.hash != (common.Hash{}) && !bytes.Equal(p.header.AppHash, s.hash[:]):
		wrong("the votes are for a block on app hash %s, the height before comes to %s", p.header.AppHash, s.hash)
	default:
		if err := s.now.VerifyCommit(p.header.ChainID, commit.BlockID, int64(h.Height), commit); err != nil {
			wrong("the votes do not count: %w", err)
		}
	}
	for i, sig := range commit.Signatures {
		if sig.BlockIDFlag == types.BlockIDFlagCommit && i < s.now.Size() {
			h.Voted += uint64(s.now.Validators[i].VotingPower)
		}
	}
	h.Power = uint64(s.now.TotalVotingPower())
	leader, err := signed.Leader(s.set.ID())
	switch {
	case err != nil:
		wrong("leader's signature: %w", err)
	case !s.leads(proposed, leader):
		wrong("the subblock is signed by %s, who did not propose it", leader)
	}
	h.Leader, h.Name = leader, s.name(proposed)
	if s.hash != (common.Hash{}) && !s.hadTurn(proposed, commit.Round) {
		wrong("it was not the turn of %s in any of the %d rounds", leader, commit.Round+1)
	}
	h.Missed = s.missed(commit.Round)
	out, err := s.advance(sub, signed.Hash(), changes, proposed, abci.CommitInfo{}, Timeouts{})
	if err != nil {
		return nil, err
	}
	return out.state, nil
}

// hadTurn says whether an operator led one of the rounds of the next height up to the given
// one: what two thirds saw in an earlier round may be agreed on in a later one.
func (s *state) hadTurn(v voter, round int32) bool {
	vals := s.now.Copy()
	for range min(round, maxRounds) + 1 {
		if proposer(vals) == v {
			return true
		}
		vals.IncrementProposerPriority(1)
	}
	return round > maxRounds
}

// differs says in what a state that was written is not the one that the agreed blocks make. Who
// missed turns is left out: it depends on votes that are not in the ledger.
func (s *state) differs(written *state) (wrong []error) {
	for _, c := range []struct {
		what string
		same bool
	}{
		{"set of operators", s.set.Root() == written.set.Root()},
		{"app hash", s.hash == written.hash},
		{"voters", bytes.Equal(s.now.Hash(), written.now.Hash()) && bytes.Equal(s.next.Hash(), written.next.Hash())},
		{"turns", proposer(s.now) == proposer(written.now) && proposer(s.next) == proposer(written.next)},
	} {
		if !c.same {
			wrong = append(wrong, errors.New("the ledger has another "+c.what+" than the agreed blocks make"))
		}
	}
	return wrong
}
