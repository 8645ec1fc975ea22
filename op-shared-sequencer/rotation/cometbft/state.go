package cometbft

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// voter is a consensus key's address, as CometBFT names who votes. It is not an
// operator's address.
type voter [20]byte

func voterOf(key operators.ConsensusKey) voter { return voter(ed25519.PubKey(key[:]).Address()) }

// state is what the agreed heights so far make: a function of agreed data only, the same
// at every operator. It is not changed once made; advance makes the next one.
type state struct {
	height uint64      // agreed on last; 0 at genesis
	hash   common.Hash // CometBFT's app hash
	set    *operators.Set
	// Who voted at height, who votes at the next and the one behind it, with CometBFT's
	// proposer priorities for round 0. A change of the set in force at a height reaches
	// the votes two heights later.
	last, now, next *types.ValidatorSet // last is nil at genesis
	creator         voter               // of the block at height
	turns           map[voter]turn      // of those in now or next
	leaving         []leaving           // operators that are out of the set and may still lead
}

// leaving is an operator, or its key, that is no longer in the set but in the votes up to
// a height.
type leaving struct {
	Key     operators.ConsensusKey
	Address common.Address
	Until   uint64
}

func genesisState(g *operators.Genesis) *state {
	set := operators.NewSet(g)
	s := &state{set: set, turns: map[voter]turn{}}
	var vals []*types.Validator
	for _, o := range set.Operators() {
		vals = append(vals, types.NewValidator(ed25519.PubKey(o.ConsensusKey[:]), int64(o.Power)))
	}
	s.hash = appHash(common.Hash{}, set)
	s.now = settled(types.NewValidatorSet(vals))
	s.next = settled(s.now.CopyIncrementProposerPriority(1))
	s.keepTurns()
	return s
}

func appHash(sub common.Hash, set *operators.Set) common.Hash {
	root := set.Root()
	return crypto.Keccak256Hash(sub[:], root[:])
}

// settled computes what a validator set otherwise computes when it is first read, so that
// it can be read by several goroutines.
func settled(v *types.ValidatorSet) *types.ValidatorSet {
	v.GetProposer()
	v.TotalVotingPower()
	return v
}

// outcome is what a height did besides the new state.
type outcome struct {
	state   *state
	updates []abci.ValidatorUpdate
	inForce []operators.Change
	refused []error // per change of the block; nil if it was taken
	missed  []voter // their turn at the height before
}

// advance gives the state after the next height. Everything in it comes from the agreed
// block: its subblock, its changes, who made it, and the votes for the block before it.
func (s *state) advance(sub *sequence.Subblock, hash common.Hash, changes []*operators.SignedChange, creator voter, commit abci.CommitInfo, rules Timeouts) (*outcome, error) {
	n := &state{
		height: s.height + 1, set: s.set.Clone(), last: s.now, now: s.next, creator: creator,
		turns: maps.Clone(s.turns), leaving: slices.Clone(s.leaving),
	}
	out := &outcome{state: n, refused: make([]error, len(changes))}
	if s.height > 0 {
		out.missed = n.settleTurns(s, commit, rules)
	}
	for i, c := range changes {
		out.refused[i] = n.set.Apply(c, sub.Slot)
	}
	if sub.Last() {
		out.inForce = n.set.Boundary(sub.Slot)
	}
	n.hash = appHash(hash, n.set)

	next := s.next.Copy()
	if len(out.inForce) > 0 {
		out.updates = n.differences(s.set)
		if len(out.updates) > 0 {
			vals, err := types.PB2TM.ValidatorUpdates(out.updates)
			if err == nil {
				err = next.UpdateWithChangeSet(vals)
			}
			if err != nil {
				return nil, fmt.Errorf("changes of the operators at height %d: %w", n.height, err)
			}
		}
	}
	next.IncrementProposerPriority(1)
	n.next = settled(next)
	n.leaving = slices.DeleteFunc(n.leaving, func(l leaving) bool { return l.Until <= n.height })
	n.keepTurns()
	return out, nil
}

// differences are the updates that make CometBFT's votes those of the new set, and notes
// who leaves.
func (s *state) differences(before *operators.Set) []abci.ValidatorUpdate {
	var updates []abci.ValidatorUpdate
	update := func(k operators.ConsensusKey, power uint64) {
		updates = append(updates, abci.UpdateValidator(bytes.Clone(k[:]), int64(power), ed25519.KeyType))
	}
	for _, o := range before.Operators() {
		now, ok := s.set.ByConsensusKey(o.ConsensusKey)
		if !ok {
			update(o.ConsensusKey, 0)
		}
		if !ok || now.Address != o.Address {
			s.leaving = append(s.leaving, leaving{o.ConsensusKey, o.Address, s.height + 1})
		}
	}
	for _, o := range s.set.Operators() {
		if was, ok := before.ByConsensusKey(o.ConsensusKey); !ok || was.Power != o.Power {
			update(o.ConsensusKey, o.Power)
		}
	}
	return updates
}

// leads says whether an operator's signature is that of who votes as v.
func (s *state) leads(v voter, operator common.Address) bool {
	if o, ok := s.set.Operator(operator); ok && voterOf(o.ConsensusKey) == v {
		return true
	}
	return slices.ContainsFunc(s.leaving, func(l leaving) bool { return l.Address == operator && voterOf(l.Key) == v })
}

// operator is who votes as v; zero if nobody does.
func (s *state) operator(v voter) common.Address {
	for _, o := range s.set.Operators() {
		if voterOf(o.ConsensusKey) == v {
			return o.Address
		}
	}
	for _, l := range s.leaving {
		if voterOf(l.Key) == v {
			return l.Address
		}
	}
	return common.Address{}
}

// voters is who votes at a height behind the newest one, as far as it is known: later
// changes of the set are not.
func (s *state) voters(height uint64) *types.ValidatorSet {
	if height <= s.height+1 {
		return s.now
	}
	if height == s.height+2 {
		return s.next
	}
	return s.next.CopyIncrementProposerPriority(int32(height - s.height - 2))
}

// leader is who will probably make the subblock at a height, and the round it does so in:
// the first leader, or if its turn is shortened, the first one behind it whose is not.
func (s *state) leader(height uint64) (voter, int32) {
	vals := s.voters(height)
	first := proposer(vals)
	if !s.turns[first].Short {
		return first, 0
	}
	vals = vals.Copy()
	for round := int32(1); round <= int32(2*vals.Size()); round++ {
		vals.IncrementProposerPriority(1)
		if v := proposer(vals); !s.turns[v].Short {
			return v, round
		}
	}
	return first, 0
}

func proposer(vals *types.ValidatorSet) voter { return voter(vals.GetProposer().Address) }

// agreementBody is the RLP form of what a slot is committed with.
type agreementBody struct {
	Version uint64
	Height  uint64
	Hash    common.Hash
	Set     []byte
	// Votes are CometBFT's commits, protobuf, of the slot's heights in their order: the last
	// is that of Height. Each has its proof behind it.
	Votes           [][]byte
	Last, Now, Next []byte // protobuf; Last is empty at genesis
	Creator         voter
	Turns           []turnBody
	Leaving         []leaving
}

type turnBody struct {
	Voter voter
	Turn  turn
}

const agreementVersion = 1

// Agreement is what a slot was committed with, for those who read a ledger.
type Agreement struct {
	Height  uint64 // of the slot's last subblock
	AppHash common.Hash
	Set     *operators.Set
	Votes   []*types.Commit // of the slot's heights in their order
}

// DecodeAgreement reads the agreement of a slot. It does not check the votes.
func DecodeAgreement(data []byte) (*Agreement, error) {
	s, votes, err := decodeAgreement(data)
	if err != nil {
		return nil, err
	}
	a := &Agreement{Height: s.height, AppHash: s.hash, Set: s.set}
	for _, v := range votes {
		c, _, err := parseVotes(v)
		if err != nil {
			return nil, fmt.Errorf("agreement of height %d: %w", s.height, err)
		}
		a.Votes = append(a.Votes, c)
	}
	return a, nil
}

func (s *state) encode(votes [][]byte) ([]byte, error) {
	b := agreementBody{
		Version: agreementVersion, Height: s.height, Hash: s.hash, Set: s.set.Encode(), Votes: votes,
		Creator: s.creator, Leaving: s.leaving,
	}
	for _, v := range slices.SortedFunc(maps.Keys(s.turns), func(a, b voter) int { return bytes.Compare(a[:], b[:]) }) {
		b.Turns = append(b.Turns, turnBody{v, s.turns[v]})
	}
	for _, f := range []struct {
		vals *types.ValidatorSet
		to   *[]byte
	}{{s.last, &b.Last}, {s.now, &b.Now}, {s.next, &b.Next}} {
		if f.vals == nil {
			continue
		}
		p, err := f.vals.ToProto()
		if err == nil {
			*f.to, err = p.Marshal()
		}
		if err != nil {
			return nil, fmt.Errorf("encode the agreement of height %d: %w", s.height, err)
		}
	}
	return rlp.EncodeToBytes(&b)
}

func decodeAgreement(data []byte) (*state, [][]byte, error) {
	fail := func(err error) (*state, [][]byte, error) {
		return nil, nil, fmt.Errorf("the agreement of the newest slot in the ledger cannot be read: %w", err)
	}
	var b agreementBody
	if err := rlp.DecodeBytes(data, &b); err != nil {
		return fail(err)
	}
	if b.Version != agreementVersion || b.Height == 0 {
		return fail(fmt.Errorf("version %d, height %d", b.Version, b.Height))
	}
	set, err := operators.DecodeSet(b.Set)
	if err != nil {
		return fail(err)
	}
	s := &state{height: b.Height, hash: b.Hash, set: set, creator: b.Creator, turns: map[voter]turn{}, leaving: b.Leaving}
	for _, t := range b.Turns {
		s.turns[t.Voter] = t.Turn
	}
	for _, f := range []struct {
		from []byte
		to   **types.ValidatorSet
	}{{b.Last, &s.last}, {b.Now, &s.now}, {b.Next, &s.next}} {
		if len(f.from) == 0 {
			return fail(errors.New("it has no voters"))
		}
		var p cmtproto.ValidatorSet
		if err := p.Unmarshal(f.from); err != nil {
			return fail(err)
		}
		vals, err := types.ValidatorSetFromProto(&p)
		if err != nil {
			return fail(err)
		}
		*f.to = settled(vals)
	}
	return s, b.Votes, nil
}
