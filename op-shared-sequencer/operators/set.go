package operators

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Why the set does not take an approval.
var (
	ErrNotOperator   = errors.New("not signed by an operator of the set")
	ErrDuplicate     = errors.New("the operator has approved this change already")
	ErrEnded         = errors.New("the change is in force already")
	ErrExpiry        = errors.New("the change expired or expires too late")
	ErrNotApplicable = errors.New("the change does not fit the set")
	ErrLimit         = errors.New("the change is over a limit of the set")
)

// maxSetBytes is above the longest encoding of a set within its limits.
const maxSetBytes = 1 << 20

// Set is the operators and chains in force, and the changes that wait for approval. It is
// a function of the genesis and of what was agreed since, the same at every operator. Not
// for concurrent use.
type Set struct {
	id        common.Hash        // the genesis' ID
	slot      sequence.Slot      // the highest sealed: an L1 reorg takes slots back, and must not revive what expired
	operators []Operator         // ascending by address
	chains    []sequence.ChainID // ascending
	pending   []pending          // in the order they were proposed in
	ended     []ended            // in the order they came in force in
}

type pending struct {
	Change    Change
	Proposer  common.Address
	Approvals []common.Address // ascending; operators of the set
}

type ended struct {
	ID     common.Hash
	Expiry sequence.Slot
}

// Proposal is a change that waits.
type Proposal struct {
	Change    Change           `json:"change"`
	ID        common.Hash      `json:"id"`
	Proposer  common.Address   `json:"proposer"`
	Approvals []common.Address `json:"approvals"` // ascending
	Power     uint64           `json:"power"`     // of the approvals, as of now
	Needed    uint64           `json:"needed"`    // power with which it comes in force, as of now
}

// NewSet is the set as it begins. The genesis must have been checked.
func NewSet(g *Genesis) *Set {
	return &Set{id: g.ID(), operators: sortedOperators(g.Operators), chains: sortedChains(g.Chains)}
}

// ID of the set: its genesis'.
func (s *Set) ID() common.Hash { return s.id }

// Slot is the highest slot whose boundary the set has seen.
func (s *Set) Slot() sequence.Slot { return s.slot }

// Operators in force, ascending by address.
func (s *Set) Operators() []Operator { return slices.Clone(s.operators) }

// Chains that take part, ascending.
func (s *Set) Chains() []sequence.ChainID { return slices.Clone(s.chains) }

// Operator with an address.
func (s *Set) Operator(a common.Address) (Operator, bool) {
	i, ok := s.find(a)
	if !ok {
		return Operator{}, false
	}
	return s.operators[i], true
}

// ByConsensusKey is the operator that votes with a key.
func (s *Set) ByConsensusKey(k ConsensusKey) (Operator, bool) {
	for _, o := range s.operators {
		if o.ConsensusKey == k {
			return o, true
		}
	}
	return Operator{}, false
}

// TotalPower of the operators.
func (s *Set) TotalPower() uint64 {
	var total uint64
	for _, o := range s.operators {
		total += o.Power
	}
	return total
}

// Pending changes, in the order they were proposed in.
func (s *Set) Pending() []Proposal {
	needed := s.TotalPower()*2/3 + 1
	out := make([]Proposal, len(s.pending))
	for i, p := range s.pending {
		out[i] = Proposal{
			Change: p.Change, ID: p.Change.ID(), Proposer: p.Proposer, Approvals: slices.Clone(p.Approvals),
			Power: s.power(p.Approvals), Needed: needed,
		}
	}
	return out
}

// Clone is a copy that shares nothing with the set.
func (s *Set) Clone() *Set {
	c := &Set{
		id: s.id, slot: s.slot, operators: slices.Clone(s.operators), chains: slices.Clone(s.chains),
		pending: slices.Clone(s.pending), ended: slices.Clone(s.ended),
	}
	for i := range c.pending {
		c.pending[i].Approvals = slices.Clone(c.pending[i].Approvals)
	}
	return c
}

// Check says whether Apply would take an approval that is agreed on in a slot.
func (s *Set) Check(c *SignedChange, slot sequence.Slot) error {
	_, _, err := s.check(c, slot)
	return err
}

// Apply takes an operator's approval of a change, in the slot it was agreed on in. On an
// error, which is the same at every operator, nothing has changed.
func (s *Set) Apply(c *SignedChange, slot sequence.Slot) error {
	at, signer, err := s.check(c, slot)
	if err != nil {
		return err
	}
	if at == len(s.pending) {
		s.pending = append(s.pending, pending{Change: c.Change, Proposer: signer})
	}
	p := &s.pending[at]
	i, _ := slices.BinarySearchFunc(p.Approvals, signer, common.Address.Cmp)
	p.Approvals = slices.Insert(p.Approvals, i, signer)
	return nil
}

// check gives the place of the change among those that wait, which is their number if it
// is new, and who approves it.
func (s *Set) check(c *SignedChange, slot sequence.Slot) (int, common.Address, error) {
	fail := func(err error) (int, common.Address, error) {
		return 0, common.Address{}, fmt.Errorf("change of the set (%s) in slot %d: %w", &c.Change, slot, err)
	}
	if err := c.Change.Check(); err != nil {
		return fail(err)
	}
	now := max(slot, s.slot)
	if c.Change.Expiry < now || c.Change.Expiry-now > MaxExpiryAhead {
		return fail(fmt.Errorf("%w: its expiry is %d, it must be between %d and %d", ErrExpiry, c.Change.Expiry, now, now+MaxExpiryAhead))
	}
	signer, err := c.Signer(s.id)
	if err != nil {
		return fail(err)
	}
	if _, ok := s.find(signer); !ok {
		return fail(fmt.Errorf("%w: by %s (or it was signed for another set than %s)", ErrNotOperator, signer, s.id))
	}
	id := c.Change.ID()
	for _, e := range s.ended {
		if e.ID == id {
			return fail(ErrEnded)
		}
	}
	proposed := 0
	for i := range s.pending {
		p := &s.pending[i]
		if p.Change.ID() == id {
			if _, ok := slices.BinarySearchFunc(p.Approvals, signer, common.Address.Cmp); ok {
				return fail(ErrDuplicate)
			}
			return i, signer, nil
		}
		if p.Proposer == signer {
			proposed++
		}
	}
	if err := s.void(&c.Change); err != nil {
		return fail(err)
	}
	if err := s.over(&c.Change, s.step()); err != nil {
		return fail(err)
	}
	if proposed >= MaxPendingPerOperator || len(s.pending) >= MaxPending {
		return fail(fmt.Errorf("%w: %d changes wait, %d of them proposed by %s; at most %d and %d may. Wait until some are in force or expired",
			ErrLimit, len(s.pending), proposed, signer, MaxPending, MaxPendingPerOperator))
	}
	return len(s.pending), signer, nil
}

// Boundary is called when a slot has been sealed. It puts the changes in force that more
// than two thirds of the power approve, drops those that expired or no longer fit, and
// returns those now in force, in their order. Approvals count with the power that was in
// force in the slot.
//
// All changes of one boundary together move at most a third of that power. Who knows the
// operators of before, as a light client or a node that comes back, still knows enough of
// those of afterwards. What is over that waits for the next boundary.
func (s *Set) Boundary(slot sequence.Slot) []Change {
	s.slot = max(s.slot, slot)
	s.ended = slices.DeleteFunc(s.ended, func(e ended) bool { return e.Expiry < s.slot })
	s.pending = slices.DeleteFunc(s.pending, func(p pending) bool { return p.Change.Expiry < s.slot })

	total, step := s.TotalPower(), s.step()
	approved := make([]bool, len(s.pending)) // by the power before any of the changes
	for i, p := range s.pending {
		approved[i] = 3*s.power(p.Approvals) > 2*total
	}
	var inForce []Change
	var waiting []pending
	for i, p := range s.pending {
		if !approved[i] || len(s.ended) >= MaxEnded || s.void(&p.Change) != nil || s.over(&p.Change, step) != nil {
			waiting = append(waiting, p)
			continue
		}
		step -= s.moved(&p.Change)
		s.put(&p.Change)
		s.ended = append(s.ended, ended{p.Change.ID(), p.Change.Expiry})
		inForce = append(inForce, p.Change)
	}
	s.pending = waiting
	if len(inForce) > 0 {
		s.tidy()
	}
	return inForce
}

// tidy drops what no longer fits after a change: approvals of operators that are gone,
// changes that nobody is left to approve, and those that would change nothing.
func (s *Set) tidy() {
	s.pending = slices.DeleteFunc(s.pending, func(p pending) bool { return s.void(&p.Change) != nil })
	for i := range s.pending {
		p := &s.pending[i]
		p.Approvals = slices.DeleteFunc(p.Approvals, func(a common.Address) bool {
			_, ok := s.find(a)
			return !ok
		})
	}
	s.pending = slices.DeleteFunc(s.pending, func(p pending) bool { return len(p.Approvals) == 0 })
}

// step is the power that the changes of one boundary may move: a third, but at least 1,
// without which a set with a power below 3 could never change.
func (s *Set) step() uint64 { return max(1, s.TotalPower()/3) }

// moved is the power that a change takes or gives. The change is not void.
func (s *Set) moved(c *Change) uint64 {
	o, _ := s.Operator(c.Operator.Address)
	switch c.Kind {
	case AddOperator:
		return c.Operator.Power
	case RemoveOperator:
		return o.Power
	case SetPower:
		return max(o.Power, c.Operator.Power) - min(o.Power, c.Operator.Power)
	}
	return 0
}

// void says why a change cannot be made of this set, whatever its limits.
func (s *Set) void(c *Change) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotApplicable, fmt.Sprintf(format, args...))
	}
	o, known := s.Operator(c.Operator.Address)
	switch c.Kind {
	case AddOperator:
		for _, o := range s.operators {
			switch {
			case o.Address == c.Operator.Address:
				return fail("%s is an operator already", o.Address)
			case o.Name == c.Operator.Name:
				return fail("operator %s has the name %s", o.Address, o.Name)
			case o.ConsensusKey == c.Operator.ConsensusKey:
				return fail("operator %s has the consensus key %s", o.Name, o.ConsensusKey)
			}
		}
	case RemoveOperator:
		if !known {
			return fail("%s is not an operator", c.Operator.Address)
		}
	case SetPower:
		if !known {
			return fail("%s is not an operator", c.Operator.Address)
		}
		if o.Power == c.Operator.Power {
			return fail("operator %s has power %d already", o.Name, o.Power)
		}
	case JoinChain, LeaveChain:
		if _, in := slices.BinarySearch(s.chains, c.Chain); in && c.Kind == JoinChain {
			return fail("chain %s takes part already", c.Chain)
		} else if !in && c.Kind == LeaveChain {
			return fail("chain %s does not take part", c.Chain)
		}
	}
	return nil
}

// over says why a change that is not void cannot be made of this set now, when the
// changes of a boundary may still move step.
func (s *Set) over(c *Change, step uint64) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
	}
	if moved := s.moved(c); moved > step {
		return fail("it moves %d of a total power of %d, the changes of one slot may move %d: go there in steps", moved, s.TotalPower(), step)
	}
	o, _ := s.Operator(c.Operator.Address)
	switch c.Kind {
	case AddOperator:
		if len(s.operators) >= MaxOperators {
			return fail("the set has %d operators", MaxOperators)
		}
		if c.Operator.Power > MaxTotalPower-s.TotalPower() {
			return fail("the total power would be above %d", MaxTotalPower)
		}
	case RemoveOperator:
		if len(s.operators) == 1 {
			return fail("%s is the last operator", o.Name)
		}
	case SetPower:
		if c.Operator.Power > MaxTotalPower-(s.TotalPower()-o.Power) {
			return fail("the total power would be above %d", MaxTotalPower)
		}
	case JoinChain:
		if len(s.chains) >= MaxChains {
			return fail("the set has %d chains", MaxChains)
		}
	case LeaveChain:
		if len(s.chains) == 1 { // without a chain there is no slot, and no boundary ever again
			return fail("chain %s is the last one", c.Chain)
		}
	}
	return nil
}

// put puts a change in force that is neither void nor over a limit.
func (s *Set) put(c *Change) {
	at, _ := s.find(c.Operator.Address)
	chain, _ := slices.BinarySearch(s.chains, c.Chain)
	switch c.Kind {
	case AddOperator:
		s.operators = slices.Insert(s.operators, at, c.Operator)
	case RemoveOperator:
		s.operators = slices.Delete(s.operators, at, at+1)
	case SetPower:
		s.operators[at].Power = c.Operator.Power
	case JoinChain:
		s.chains = slices.Insert(s.chains, chain, c.Chain)
	case LeaveChain:
		s.chains = slices.Delete(s.chains, chain, chain+1)
	}
}

func (s *Set) find(a common.Address) (int, bool) {
	return slices.BinarySearchFunc(s.operators, a, func(o Operator, a common.Address) int { return o.Address.Cmp(a) })
}

func (s *Set) power(addresses []common.Address) uint64 {
	var power uint64
	for _, a := range addresses {
		if o, ok := s.Operator(a); ok {
			power += o.Power
		}
	}
	return power
}

// setBody is the RLP form of a set.
type setBody struct {
	ID        common.Hash
	Slot      sequence.Slot
	Operators []Operator
	Chains    []sequence.ChainID
	Pending   []pending
	Ended     []ended
}

// Encode is the canonical encoding: RLP.
func (s *Set) Encode() []byte {
	return mustEncode(&setBody{s.id, s.slot, s.operators, s.chains, s.pending, s.ended})
}

var setDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/set/1"))

// Root commits to the whole set: keccak256(domain ‖ encoding).
func (s *Set) Root() common.Hash { return crypto.Keccak256Hash(setDomain[:], s.Encode()) }

// DecodeSet reads what Encode wrote and checks that a set can be so.
func DecodeSet(data []byte) (*Set, error) {
	if len(data) > maxSetBytes {
		return nil, fmt.Errorf("%w set: %d bytes, at most %d", ErrMalformed, len(data), maxSetBytes)
	}
	var b setBody
	if err := rlp.DecodeBytes(data, &b); err != nil {
		return nil, fmt.Errorf("%w set: %w", ErrMalformed, err)
	}
	s := &Set{b.ID, b.Slot, b.Operators, b.Chains, b.Pending, b.Ended}
	return s, s.wellFormed()
}

func (s *Set) wellFormed() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w set: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	if err := checkOperators(s.operators); err != nil {
		return err
	}
	if !slices.IsSortedFunc(s.operators, func(a, b Operator) int { return a.Address.Cmp(b.Address) }) {
		return fail("operators are not ascending")
	}
	if err := checkChains(s.chains); err != nil {
		return err
	}
	if len(s.pending) > MaxPending || len(s.ended) > MaxEnded {
		return fail("%d changes wait and %d are remembered, at most %d and %d can be", len(s.pending), len(s.ended), MaxPending, MaxEnded)
	}
	seen := map[common.Hash]bool{}
	for _, e := range s.ended {
		if seen[e.ID] || e.Expiry < s.slot {
			return fail("change %s in force is there twice or expired", e.ID)
		}
		seen[e.ID] = true
	}
	for i := range s.pending {
		p := &s.pending[i]
		if err := p.Change.Check(); err != nil {
			return err
		}
		id := p.Change.ID()
		if seen[id] || p.Change.Expiry < s.slot {
			return fail("change %s that waits is there twice, in force already, or expired", id)
		}
		seen[id] = true
		if len(p.Approvals) == 0 {
			return fail("change %s has no approvals", id)
		}
		for j, a := range p.Approvals {
			if _, ok := s.find(a); !ok || j > 0 && p.Approvals[j-1].Cmp(a) >= 0 {
				return fail("approvals of change %s are not ascending, or not by operators", id)
			}
		}
	}
	return nil
}
