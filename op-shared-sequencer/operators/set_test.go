package operators

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const slot0 = sequence.Slot(1_000_000)

func signed(t testing.TB, s *Set, c Change, key int) *SignedChange {
	t.Helper()
	out, err := SignChange(s.ID(), c, testKey(key))
	require.NoError(t, err)
	return out
}

func TestSetAccessors(t *testing.T) {
	g := testGenesis(1, 2, 3, 4)
	s := NewSet(g)
	require.Equal(t, g.ID(), s.ID())
	require.Equal(t, uint64(10), s.TotalPower())
	require.Equal(t, []sequence.ChainID{901, 902}, s.Chains())
	require.ElementsMatch(t, g.Operators, s.Operators())
	for i := 1; i < 4; i++ {
		require.Negative(t, s.Operators()[i-1].Address.Cmp(s.Operators()[i].Address))
	}
	for _, want := range g.Operators {
		o, ok := s.Operator(want.Address)
		require.True(t, ok)
		require.Equal(t, want, o)
		o, ok = s.ByConsensusKey(want.ConsensusKey)
		require.True(t, ok)
		require.Equal(t, want, o)
	}
	_, ok := s.Operator(common.Address{1})
	require.False(t, ok)
	_, ok = s.ByConsensusKey(ConsensusKey{1})
	require.False(t, ok)
}

func TestSetEachKind(t *testing.T) {
	for _, test := range []struct {
		change Change
		check  func(*Set)
	}{
		{Change{Kind: AddOperator, Operator: testOperator(7, 1)}, func(s *Set) {
			o, ok := s.Operator(testAddress(7))
			require.True(t, ok)
			require.Equal(t, testOperator(7, 1), o)
			require.Equal(t, uint64(5), s.TotalPower())
		}},
		{Change{Kind: RemoveOperator, Operator: Operator{Address: testAddress(3)}}, func(s *Set) {
			_, ok := s.Operator(testAddress(3))
			require.False(t, ok)
			require.Equal(t, uint64(3), s.TotalPower())
		}},
		{Change{Kind: SetPower, Operator: Operator{Address: testAddress(3), Power: 2}}, func(s *Set) {
			o, _ := s.Operator(testAddress(3))
			require.Equal(t, testOperator(3, 2), o)
		}},
		{Change{Kind: JoinChain, Chain: 1}, func(s *Set) { require.Equal(t, []sequence.ChainID{1, 901, 902}, s.Chains()) }},
		{Change{Kind: LeaveChain, Chain: 901}, func(s *Set) { require.Equal(t, []sequence.ChainID{902}, s.Chains()) }},
	} {
		s := NewSet(testGenesis(1, 1, 1, 1))
		before := s.Clone()
		c := test.change
		c.Expiry = slot0 + 10
		approve(t, s, c, slot0, 0, 1)
		require.Empty(t, s.Boundary(slot0), "half of the power is not enough")
		require.Equal(t, before.Operators(), s.Operators())
		require.Equal(t, before.Chains(), s.Chains())
		p := s.Pending()
		require.Len(t, p, 1)
		require.Equal(t, c, p[0].Change)
		require.Equal(t, testAddress(0), p[0].Proposer)
		require.ElementsMatch(t, []common.Address{testAddress(0), testAddress(1)}, p[0].Approvals)
		require.Equal(t, uint64(2), p[0].Power)
		require.Equal(t, uint64(3), p[0].Needed)

		approve(t, s, c, slot0+1, 3)
		require.Equal(t, before.Operators(), s.Operators(), "nothing is in force before the boundary")
		require.Equal(t, []Change{c}, s.Boundary(slot0+1))
		require.Empty(t, s.Pending())
		test.check(s)
		require.Empty(t, s.Boundary(slot0+2))
		require.Error(t, s.Apply(signed(t, s, c, 2), slot0+2), "it is not taken again")
	}
}

func TestSetRefuses(t *testing.T) {
	join := Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 10}
	for name, test := range map[string]struct {
		change Change
		key    int
		before func(*Set)
		want   error
	}{
		"malformed":         {Change{Kind: JoinChain, Expiry: slot0}, 0, nil, ErrMalformed},
		"expired":           {Change{Kind: JoinChain, Chain: 903, Expiry: slot0 - 1}, 0, nil, ErrExpiry},
		"expires too late":  {Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + MaxExpiryAhead + 1}, 0, nil, ErrExpiry},
		"expires never":     {Change{Kind: JoinChain, Chain: 903, Expiry: 1<<64 - 1}, 0, nil, ErrExpiry},
		"stranger":          {join, 9, nil, ErrNotOperator},
		"twice":             {join, 0, func(s *Set) { approve(t, s, join, slot0, 0) }, ErrDuplicate},
		"known address":     {Change{Kind: AddOperator, Operator: with(testOperator(9, 1), func(o *Operator) { o.Address = testAddress(0) }), Expiry: slot0}, 0, nil, ErrNotApplicable},
		"known name":        {Change{Kind: AddOperator, Operator: with(testOperator(9, 1), func(o *Operator) { o.Name = testOperator(1, 1).Name }), Expiry: slot0}, 0, nil, ErrNotApplicable},
		"known key":         {Change{Kind: AddOperator, Operator: with(testOperator(9, 1), func(o *Operator) { o.ConsensusKey = testOperator(1, 1).ConsensusKey }), Expiry: slot0}, 0, nil, ErrNotApplicable},
		"removes a nobody":  {Change{Kind: RemoveOperator, Operator: Operator{Address: testAddress(9)}, Expiry: slot0}, 0, nil, ErrNotApplicable},
		"power of a nobody": {Change{Kind: SetPower, Operator: Operator{Address: testAddress(9), Power: 1}, Expiry: slot0}, 0, nil, ErrNotApplicable},
		"same power":        {Change{Kind: SetPower, Operator: Operator{Address: testAddress(1), Power: 10}, Expiry: slot0}, 0, nil, ErrNotApplicable},
		"joins again":       {Change{Kind: JoinChain, Chain: 901, Expiry: slot0}, 0, nil, ErrNotApplicable},
		"leaves outside":    {Change{Kind: LeaveChain, Chain: 903, Expiry: slot0}, 0, nil, ErrNotApplicable},
		"moves too much":    {Change{Kind: AddOperator, Operator: testOperator(9, 14), Expiry: slot0}, 0, nil, ErrLimit},
	} {
		s := NewSet(testGenesis(10, 10, 10, 10))
		if test.before != nil {
			test.before(s)
		}
		root := s.Root()
		c, err := signLoosely(s.ID(), test.change, test.key)
		require.NoError(t, err)
		require.ErrorIs(t, s.Check(c, slot0), test.want, name)
		require.ErrorIs(t, s.Apply(c, slot0), test.want, name)
		require.Equal(t, root, s.Root(), name)
	}
	other := NewSet(testGenesis(10, 10))
	s := NewSet(testGenesis(10, 10, 10, 10))
	require.ErrorIs(t, s.Apply(signed(t, other, join, 0), slot0), ErrNotOperator, "signed for another set")
}

func with(o Operator, change func(*Operator)) Operator { change(&o); return o }

// signLoosely signs malformed changes too.
func signLoosely(id common.Hash, c Change, key int) (*SignedChange, error) {
	sig, err := sign(changeDigest(id, c.ID()), testKey(key))
	return &SignedChange{c, sig}, err
}

func TestSetLastOnes(t *testing.T) {
	s := NewSet(testGenesis(1))
	remove := Change{Kind: RemoveOperator, Operator: Operator{Address: testAddress(0)}, Expiry: slot0 + 100}
	require.ErrorIs(t, s.Apply(signed(t, s, remove, 0), slot0), ErrLimit)

	// Both chains are to leave: one stays.
	for i, chain := range []sequence.ChainID{901, 902} {
		approve(t, s, Change{Kind: LeaveChain, Chain: chain, Nonce: uint64(i), Expiry: slot0 + 100}, slot0, 0)
	}
	require.Len(t, s.Boundary(slot0), 1)
	require.Empty(t, s.Boundary(slot0+1))
	require.Len(t, s.Chains(), 1)
	require.Len(t, s.Pending(), 1)
	// Once another has joined, the wish is granted.
	approve(t, s, Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 100}, slot0+2, 0)
	require.Len(t, s.Boundary(slot0+2), 1)
	require.Len(t, s.Boundary(slot0+3), 1)
	require.Equal(t, []sequence.ChainID{903}, s.Chains())
}

// Every set can become every other: also from a power of one, and down to it.
func TestSetGrowsAndShrinks(t *testing.T) {
	s := NewSet(testGenesis(1))
	slot := slot0
	inForce := func(c Change) {
		t.Helper()
		c.Nonce, c.Expiry = uint64(slot), slot+10
		for n := range 8 {
			if _, ok := s.Operator(testAddress(n)); ok {
				approve(t, s, c, slot, n)
			}
		}
		require.Len(t, s.Boundary(slot), 1)
		slot++
	}
	for n := 1; n < 4; n++ {
		inForce(Change{Kind: AddOperator, Operator: testOperator(n, 1)})
	}
	require.Equal(t, uint64(4), s.TotalPower())
	for n := 3; n > 0; n-- {
		inForce(Change{Kind: RemoveOperator, Operator: Operator{Address: testAddress(n)}})
	}
	require.Equal(t, []Operator{testOperator(0, 1)}, s.Operators())
}

// Two changes that move a third each come in force one after the other, and approvals
// count with the power of before the first.
func TestSetStepPerBoundary(t *testing.T) {
	s := NewSet(testGenesis(3, 3, 3))
	for n := 4; n < 6; n++ {
		approve(t, s, Change{Kind: AddOperator, Operator: testOperator(n, 3), Expiry: slot0 + 10}, slot0, 0, 1, 2)
	}
	require.Len(t, s.Boundary(slot0), 1)
	require.Len(t, s.Boundary(slot0+1), 1, "9 of 12 approve the second")
	require.Equal(t, uint64(15), s.TotalPower())

	// 9 of 15 do not.
	c := Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 10}
	approve(t, s, c, slot0+2, 0, 1, 2)
	require.Empty(t, s.Boundary(slot0+2))
	approve(t, s, c, slot0+3, 5)
	require.Len(t, s.Boundary(slot0+3), 1)
}

// Exactly two thirds are not more than two thirds.
func TestSetTwoThirds(t *testing.T) {
	s := NewSet(testGenesis(1, 1, 1))
	c := Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 10}
	approve(t, s, c, slot0, 0, 1)
	require.Empty(t, s.Boundary(slot0))
	approve(t, s, c, slot0, 2)
	require.Len(t, s.Boundary(slot0), 1)
}

// What an operator approved does not count once it is removed, nor when it is back.
func TestSetRemovedApprovals(t *testing.T) {
	s := NewSet(testGenesis(1, 1, 1, 1))
	join := Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 100}
	approve(t, s, join, slot0, 3, 0)
	alone := Change{Kind: JoinChain, Chain: 904, Expiry: slot0 + 100}
	approve(t, s, alone, slot0, 3)
	again := Change{Kind: RemoveOperator, Operator: Operator{Address: testAddress(3)}, Nonce: 1, Expiry: slot0 + 100}
	approve(t, s, again, slot0, 0)
	remove := Change{Kind: RemoveOperator, Operator: Operator{Address: testAddress(3)}, Expiry: slot0 + 100}
	approve(t, s, remove, slot0, 0, 1, 2)
	require.Equal(t, []Change{remove}, s.Boundary(slot0))

	require.Len(t, s.Pending(), 1, "what nobody else approved, and what would change nothing, is dropped")
	require.Equal(t, join, s.Pending()[0].Change)
	require.Equal(t, []common.Address{testAddress(0)}, s.Pending()[0].Approvals)
	require.ErrorIs(t, s.Apply(signed(t, s, join, 3), slot0+1), ErrNotOperator)

	approve(t, s, Change{Kind: AddOperator, Operator: testOperator(3, 1), Expiry: slot0 + 100}, slot0+1, 0, 1, 2)
	require.Len(t, s.Boundary(slot0+1), 1)
	approve(t, s, join, slot0+2, 1)
	require.Empty(t, s.Boundary(slot0+2))
	// The removal of before is not in force again, whoever sends the approvals again.
	require.ErrorIs(t, s.Apply(signed(t, s, remove, 0), slot0+3), ErrEnded)
}

// An L1 reorg takes slots back. What expired does not come back with them.
func TestSetExpiryAndReorg(t *testing.T) {
	s := NewSet(testGenesis(1))
	c := Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 2}
	approve(t, s, c, slot0, 0)
	require.Len(t, s.Boundary(slot0+2), 1, "the slot of its expiry is the last")
	approve(t, s, Change{Kind: LeaveChain, Chain: 903, Expiry: slot0 + 5}, slot0+2, 0)
	require.Len(t, s.Boundary(slot0+3), 1, "and the first change is no longer remembered")
	require.Empty(t, s.Boundary(slot0))
	require.ErrorIs(t, s.Apply(signed(t, s, c, 0), slot0), ErrExpiry)

	late := Change{Kind: JoinChain, Chain: 904, Expiry: slot0 + 5}
	approve(t, s, late, slot0+3, 0)
	require.Empty(t, s.Boundary(slot0+6))
	require.Empty(t, s.Pending())
	require.Equal(t, []sequence.ChainID{901, 902}, s.Chains())
}

func TestSetLimits(t *testing.T) {
	powers := make([]uint64, MaxOperators)
	for i := range powers {
		powers[i] = 1
	}
	s := NewSet(testGenesis(powers...))
	propose := func(key, nonce int) error {
		return s.Apply(signed(t, s, Change{Kind: JoinChain, Chain: 903, Nonce: uint64(nonce), Expiry: slot0 + 10}, key), slot0)
	}
	// A third of the operators takes all the places it can; there is still room for the others.
	nonce := 0
	for key := range MaxOperators / 3 {
		for range MaxPendingPerOperator {
			nonce++
			require.NoError(t, propose(key, nonce))
		}
		require.ErrorIs(t, propose(key, 1<<20+key), ErrLimit)
	}
	for key := MaxOperators - 1; len(s.Pending()) < MaxPending; key-- {
		for range MaxPendingPerOperator {
			nonce++
			require.NoError(t, propose(key, nonce))
		}
	}
	require.ErrorIs(t, propose(MaxOperators/3, 1<<21), ErrLimit)
	// An approval of what waits is still taken, and the first to be approved voids the rest.
	c := s.Pending()[0].Change
	for key := 1; key < MaxOperators; key++ {
		require.NoError(t, s.Apply(signed(t, s, c, key), slot0))
	}
	require.Less(t, len(s.Encode()), maxSetBytes)
	again, err := DecodeSet(s.Encode())
	require.NoError(t, err)
	require.Equal(t, s.Root(), again.Root())
	require.Equal(t, []Change{c}, s.Boundary(slot0))
	require.Empty(t, s.Pending())

	add := Change{Kind: AddOperator, Operator: testOperator(MaxOperators, 1), Expiry: slot0 + 10}
	require.ErrorIs(t, s.Apply(signed(t, s, add, 0), slot0), ErrLimit)
}

func TestSetPowerLimit(t *testing.T) {
	s := NewSet(testGenesis(MaxTotalPower-1, 1))
	more := Change{Kind: SetPower, Operator: Operator{Address: testAddress(1), Power: 2}, Expiry: slot0}
	require.ErrorIs(t, s.Apply(signed(t, s, more, 0), slot0), ErrLimit)
	add := Change{Kind: AddOperator, Operator: testOperator(2, 1), Expiry: slot0}
	require.ErrorIs(t, s.Apply(signed(t, s, add, 0), slot0), ErrLimit)
	less := Change{Kind: SetPower, Operator: Operator{Address: testAddress(0), Power: MaxTotalPower - 2}, Expiry: slot0}
	approve(t, s, less, slot0, 0)
	require.Len(t, s.Boundary(slot0), 1)
	approve(t, s, more, slot0, 0)
	require.Len(t, s.Boundary(slot0), 1)
	require.Equal(t, MaxTotalPower, s.TotalPower())
}

// The changes in force that are remembered are bounded too: the next one waits.
func TestSetEndedLimit(t *testing.T) {
	s := NewSet(testGenesis(1))
	for i := range MaxEnded {
		kind := JoinChain
		if i%2 == 1 {
			kind = LeaveChain
		}
		approve(t, s, Change{Kind: kind, Chain: 903, Nonce: uint64(i), Expiry: slot0 + 10}, slot0, 0)
		require.Len(t, s.Boundary(slot0), 1)
	}
	approve(t, s, Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 20}, slot0, 0)
	require.Empty(t, s.Boundary(slot0+10))
	require.Len(t, s.Boundary(slot0+11), 1)
}

func TestDecodeSetRefuses(t *testing.T) {
	good := func() *Set {
		s := NewSet(testGenesis(1, 1, 1, 1))
		approve(t, s, Change{Kind: JoinChain, Chain: 903, Expiry: slot0 + 10}, slot0, 0, 1)
		approve(t, s, Change{Kind: JoinChain, Chain: 904, Expiry: slot0 + 10}, slot0, 0, 1, 2)
		require.Len(t, s.Boundary(slot0), 1)
		return s
	}
	_, err := DecodeSet(good().Encode())
	require.NoError(t, err)
	for name, change := range map[string]func(*Set){
		"no operators":          func(s *Set) { s.operators = nil },
		"operators' order":      func(s *Set) { s.operators[0], s.operators[1] = s.operators[1], s.operators[0] },
		"total power":           func(s *Set) { s.operators[0].Power = MaxTotalPower },
		"no chains":             func(s *Set) { s.chains = nil },
		"chains' order":         func(s *Set) { s.chains[0], s.chains[1] = s.chains[1], s.chains[0] },
		"malformed change":      func(s *Set) { s.pending[0].Change.Chain = 0 },
		"change twice":          func(s *Set) { s.pending = append(s.pending, s.pending[0]) },
		"expired change":        func(s *Set) { s.slot = s.pending[0].Change.Expiry + 1; s.ended = nil },
		"no approvals":          func(s *Set) { s.pending[0].Approvals = nil },
		"approval twice":        func(s *Set) { a := s.pending[0].Approvals; a[1] = a[0] },
		"approval of a nobody":  func(s *Set) { s.pending[0].Approvals = []common.Address{{1}} },
		"in force twice":        func(s *Set) { s.ended = append(s.ended, s.ended[0]) },
		"in force and waiting":  func(s *Set) { s.ended[0].ID = s.pending[0].Change.ID() },
		"expired and in force":  func(s *Set) { s.ended[0].Expiry = s.slot - 1 },
		"too many are in force": func(s *Set) { s.ended = make([]ended, MaxEnded+1) },
		"too many wait":         func(s *Set) { s.pending = make([]pending, MaxPending+1) },
	} {
		s := good()
		change(s)
		_, err := DecodeSet(s.Encode())
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	_, err = DecodeSet(make([]byte, maxSetBytes+1))
	require.ErrorContains(t, err, "at most")
}
