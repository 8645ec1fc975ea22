package operators

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// modelSet is the governed state as one would write it without a thought for encoding,
// order or limits of size: who approved what, and what is in force.
type modelSet struct {
	slot      sequence.Slot
	operators map[common.Address]Operator
	chains    map[sequence.ChainID]bool
	waiting   []*modelChange
	done      map[Change]bool // put in force and not expired
}

type modelChange struct {
	change   Change
	proposer common.Address
	by       map[common.Address]bool
}

func newModelSet(g *Genesis) *modelSet {
	m := &modelSet{operators: map[common.Address]Operator{}, chains: map[sequence.ChainID]bool{}, done: map[Change]bool{}}
	for _, o := range g.Operators {
		m.operators[o.Address] = o
	}
	for _, c := range g.Chains {
		m.chains[c] = true
	}
	return m
}

func (m *modelSet) total() (total uint64) {
	for _, o := range m.operators {
		total += o.Power
	}
	return total
}

func (m *modelSet) power(by map[common.Address]bool) (power uint64) {
	for a := range by {
		power += m.operators[a].Power
	}
	return power
}

// after is the model's operators and chains with a change in force, and whether that is
// another state, and one that may be.
func (m *modelSet) after(c Change) (next *modelSet, differs, allowed bool) {
	next = &modelSet{operators: maps.Clone(m.operators), chains: maps.Clone(m.chains)}
	switch c.Kind {
	case AddOperator:
		for _, o := range m.operators {
			if o.Address == c.Operator.Address || o.Name == c.Operator.Name || o.ConsensusKey == c.Operator.ConsensusKey {
				return next, false, false
			}
		}
		next.operators[c.Operator.Address] = c.Operator
	case RemoveOperator:
		delete(next.operators, c.Operator.Address)
	case SetPower:
		if o, ok := next.operators[c.Operator.Address]; ok {
			o.Power = c.Operator.Power
			next.operators[o.Address] = o
		}
	case JoinChain:
		next.chains[c.Chain] = true
	case LeaveChain:
		delete(next.chains, c.Chain)
	}
	differs = !maps.Equal(m.operators, next.operators) || !maps.Equal(m.chains, next.chains)
	allowed = len(next.operators) > 0 && len(next.operators) <= MaxOperators && len(next.chains) > 0 && next.total() <= MaxTotalPower
	return next, differs, allowed
}

// moved is the sum of what each operator's power differs by.
func (m *modelSet) moved(next *modelSet) (moved uint64) {
	for a := range m.operators {
		moved += diff(m.operators[a].Power, next.operators[a].Power)
	}
	for a := range next.operators {
		if _, ok := m.operators[a]; !ok {
			moved += next.operators[a].Power
		}
	}
	return moved
}

func diff(a, b uint64) uint64 { return max(a, b) - min(a, b) }

func (m *modelSet) apply(c Change, signer common.Address, slot sequence.Slot) bool {
	now := max(slot, m.slot)
	if _, ok := m.operators[signer]; !ok || c.Expiry < now || c.Expiry > now+MaxExpiryAhead || m.done[c] {
		return false
	}
	proposed := 0
	for _, w := range m.waiting {
		if w.change == c {
			if w.by[signer] {
				return false
			}
			w.by[signer] = true
			return true
		}
		if w.proposer == signer {
			proposed++
		}
	}
	next, differs, allowed := m.after(c)
	if !differs || !allowed || m.moved(next) > max(1, m.total()/3) || proposed == MaxPendingPerOperator {
		return false
	}
	m.waiting = append(m.waiting, &modelChange{c, signer, map[common.Address]bool{signer: true}})
	return true
}

func (m *modelSet) boundary(slot sequence.Slot) (inForce []Change) {
	m.slot = max(m.slot, slot)
	maps.DeleteFunc(m.done, func(c Change, _ bool) bool { return c.Expiry < m.slot })
	m.waiting = slices.DeleteFunc(m.waiting, func(w *modelChange) bool { return w.change.Expiry < m.slot })
	before := &modelSet{operators: m.operators}
	left := max(1, before.total()/3)
	m.waiting = slices.DeleteFunc(m.waiting, func(w *modelChange) bool {
		power := before.power(w.by)
		// In halves: power > 2/3 total, without a product.
		if rest := before.total() - power; power/2 < rest || power/2 == rest && power%2 == 0 {
			return false
		}
		next, differs, allowed := m.after(w.change)
		if !differs || !allowed || m.moved(next) > left {
			return false
		}
		left -= m.moved(next)
		m.operators, m.chains = next.operators, next.chains
		m.done[w.change] = true
		inForce = append(inForce, w.change)
		return true
	})
	if len(inForce) == 0 {
		return nil
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(w *modelChange) bool {
		maps.DeleteFunc(w.by, func(a common.Address, _ bool) bool { _, ok := m.operators[a]; return !ok })
		_, differs, _ := m.after(w.change)
		return !differs || len(w.by) == 0
	})
	return inForce
}

const modelActors = 7

// genPower draws powers of the sizes where the limits are.
func genPower() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Uint64Range(1, 4), rapid.Uint64Range(90, 110), rapid.Uint64Range(MaxTotalPower/8, MaxTotalPower/3),
		rapid.Just(MaxTotalPower))
}

func genChange(slot sequence.Slot, m *modelSet) *rapid.Generator[Change] {
	return rapid.Custom(func(t *rapid.T) Change {
		c := Change{
			Kind:   rapid.SampledFrom([]Kind{AddOperator, RemoveOperator, SetPower, JoinChain, LeaveChain}).Draw(t, "kind"),
			Nonce:  rapid.Uint64Range(0, 2).Draw(t, "nonce"),
			Expiry: slot + sequence.Slot(rapid.OneOf(rapid.IntRange(0, 12), rapid.Just(MaxExpiryAhead), rapid.Just(MaxExpiryAhead+1)).Draw(t, "expiry")),
		}
		actor := rapid.IntRange(0, modelActors-1).Draw(t, "of")
		power := genPower().Draw(t, "power")
		if rapid.Bool().Draw(t, "small step") { // else most steps would be too large
			power = max(1, m.operators[testAddress(actor)].Power+rapid.Uint64Range(0, max(1, m.total()/3)).Draw(t, "more"))
			power = min(power, MaxTotalPower)
		}
		switch c.Kind {
		case AddOperator:
			c.Operator = testOperator(actor, power)
			if rapid.IntRange(0, 4).Draw(t, "name of another") == 0 {
				c.Operator.Name = testOperator((actor+1)%modelActors, 1).Name
			}
		case RemoveOperator:
			c.Operator.Address = testAddress(actor)
		case SetPower:
			c.Operator.Address, c.Operator.Power = testAddress(actor), power
		default:
			c.Chain = sequence.ChainID(rapid.IntRange(901, 904).Draw(t, "chain"))
		}
		return c
	})
}

// TestSetAgainstModel runs a set, a second one that is encoded and decoded at every
// step, and the model, and holds all three against each other.
func TestSetAgainstModel(t *testing.T) {
	inForceAtAll, several, exact := map[Kind]int{}, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		powers := rapid.SliceOfN(rapid.OneOf(rapid.Uint64Range(1, 4), rapid.Uint64Range(90, 110), rapid.Uint64Range(MaxTotalPower/8, MaxTotalPower/7)), 1, 5).Draw(t, "powers")
		if rapid.Bool().Draw(t, "equal powers") { // so that two thirds can be met exactly
			powers = []uint64{powers[0], powers[0], powers[0]}
		}
		g := testGenesis(powers...)
		require.NoError(t, g.Check())
		set, other, model := NewSet(g), NewSet(g), newModelSet(g)
		slot := slot0
		var known []Change
		actor := rapid.Custom(func(t *rapid.T) int {
			if rapid.IntRange(0, 4).Draw(t, "anybody") == 0 {
				return rapid.IntRange(0, modelActors-1).Draw(t, "actor")
			}
			var members []int
			for n := range modelActors {
				if _, ok := model.operators[testAddress(n)]; ok {
					members = append(members, n)
				}
			}
			return rapid.SampledFrom(members).Draw(t, "operator")
		})
		approve := func(c Change, actor int) {
			signed, err := SignChange(set.ID(), c, testKey(actor))
			require.NoError(t, err)
			checked := set.Check(signed, slot)
			err = set.Apply(signed, slot)
			require.Equal(t, fmt.Sprint(checked), fmt.Sprint(err), "Check says what Apply does")
			require.Equal(t, fmt.Sprint(err), fmt.Sprint(other.Apply(signed, slot)), "determinism")
			require.Equal(t, model.apply(c, testAddress(actor), slot), err == nil, "%v: %v", c, err)
		}
		boundary := func(rt *rapid.T) {
			before := set.TotalPower()
			var others []common.Address
			for _, o := range set.Operators() {
				others = append(others, o.Address)
			}
			for _, w := range model.waiting {
				if 3*model.power(w.by) == 2*model.total() {
					exact++
				}
			}
			got := set.Boundary(slot)
			if len(got) > 1 {
				several++
			}
			require.Equal(t, model.boundary(slot), got)
			require.Equal(t, got, other.Boundary(slot), "determinism")
			for _, c := range got {
				inForceAtAll[c.Kind]++
			}
			require.LessOrEqual(t, diff(before, set.TotalPower()), max(1, before/3))
			var stay uint64
			for _, a := range others {
				o, _ := set.Operator(a)
				stay += o.Power
			}
			require.True(t, stay > 0, "somebody who was known before is still there")
			slot += sequence.Slot(rapid.IntRange(0, 5).Draw(rt, "slots"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"propose": func(rt *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(rt, "changes") {
					c := genChange(slot, model).Draw(rt, "change")
					known = append(known, c)
					approve(c, actor.Draw(rt, "by"))
				}
			},
			"approve": func(rt *rapid.T) {
				if len(known) == 0 {
					rt.Skip()
				}
				approve(rapid.SampledFrom(known).Draw(rt, "change"), actor.Draw(rt, "by"))
			},
			"some approve everything": func(rt *rapid.T) {
				some := rapid.SliceOfN(rapid.Bool(), modelActors, modelActors).Draw(rt, "who")
				for _, w := range slices.Clone(model.waiting) {
					for actor, does := range some {
						if does {
							approve(w.change, actor)
						}
					}
				}
				boundary(rt)
			},
			"boundary": boundary,
			"all approve everything": func(rt *rapid.T) {
				for _, w := range slices.Clone(model.waiting) {
					for actor := range modelActors {
						approve(w.change, actor)
					}
				}
				boundary(rt)
			},
			"reorg": func(rt *rapid.T) { slot -= sequence.Slot(rapid.IntRange(0, 10).Draw(rt, "slots")) },
			"clone": func(rt *rapid.T) {
				clone := set.Clone()
				root := set.Root()
				clone.Boundary(slot + 1000)
				require.Equal(t, root, set.Root(), "a clone shares nothing")
			},
			"": func(rt *rapid.T) {
				decoded, err := DecodeSet(other.Encode())
				require.NoError(t, err)
				require.Equal(t, set.Root(), decoded.Root())
				require.Equal(t, set.Encode(), decoded.Encode())
				other = decoded
				// No power is lost or made: each operator has what the model says.
				require.Len(t, set.Operators(), len(model.operators))
				var total uint64
				for _, o := range set.Operators() {
					require.Equal(t, model.operators[o.Address], o)
					total += o.Power
				}
				require.Equal(t, total, set.TotalPower())
				require.True(t, total >= 1 && total <= MaxTotalPower, total)
				require.Equal(t, slices.Sorted(maps.Keys(model.chains)), set.Chains())
				require.Len(t, set.Pending(), len(model.waiting))
				for i, p := range set.Pending() {
					require.Equal(t, model.waiting[i].change, p.Change)
					require.Len(t, p.Approvals, len(model.waiting[i].by))
					for _, a := range p.Approvals {
						require.True(t, model.waiting[i].by[a])
					}
				}
			},
		})
	})
	for _, kind := range []Kind{AddOperator, RemoveOperator, SetPower, JoinChain, LeaveChain} {
		require.Positive(t, inForceAtAll[kind], "the test put nothing of this kind in force: %s", kind)
	}
	require.Positive(t, several, "several changes at one boundary")
	require.Positive(t, exact, "exactly two thirds, which is not enough")
	t.Logf("in force: %v; %d boundaries with several, %d times exactly two thirds", inForceAtAll, several, exact)
}
