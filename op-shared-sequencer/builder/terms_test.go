package builder_test

import (
	"testing"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// checked are bundles as a pool would hand them out, all at once.
func checked(t *testing.T, bundles ...*sequence.Bundle) *list {
	t.Helper()
	pool := bundlepool.New(bundlepool.DefaultConfig(chainA, chainB), log.NewLogger(log.DiscardHandler()))
	pool.Advance(slot)
	l := new(list)
	for _, b := range bundles {
		e, err := pool.Check(b)
		require.NoError(t, err)
		l.entries = append(l.entries, e)
	}
	return l
}

// Of bundles with one replacement ID one executes in a slot, also if the other came in while
// it was built. Another signer's ID is another.
func TestOneOfAName(t *testing.T) {
	t.Parallel()
	named := func(user, signer int) *sequence.Bundle {
		b := bundle(item(chainA, log1(user, chainA, 0)))
		b.Terms = &sequence.Terms{ReplacementID: common.Hash{1}}
		sig, err := crypto.Sign(accounts.TextHash([]byte(b.ReplacementText())), users[signer])
		require.NoError(t, err)
		b.Terms.Signature = sig
		return b
	}
	w := newWorld(t, chainA, chainB)
	first, second, other := named(0, 0), named(1, 0), named(2, 2)
	require.NoError(t, w.build(bg, checked(t, first, second, other), newLeaping()))
	require.Len(t, w.order.Bundles, 2)
	require.Equal(t, first.Hash(), w.order.Bundles[0].Hash)
	require.Equal(t, other.Hash(), w.order.Bundles[1].Hash)

	// Nor if one is voted on in the subblock before.
	w = newWorld(t, chainA, chainB)
	w.ahead = []common.Hash{first.Hash()}
	require.NoError(t, w.build(bg, checked(t, first, second, other), newLeaping()))
	require.Len(t, w.order.Bundles, 1)
	require.Equal(t, other.Hash(), w.order.Bundles[0].Hash)
}

// What the conditions of a subblock's bundles cost stays below what the others accept.
func TestConditionsOfASubblock(t *testing.T) {
	t.Parallel()
	costly := func(user int) *sequence.Bundle {
		slots := make([]sequence.KnownSlot, sequence.MaxConditionCost-2)
		for i := range slots {
			slots[i].Key = common.Hash{30: byte(i >> 8), 31: byte(i)}
		}
		b := bundle(item(chainA, enginefake.Tx(users[user], chainA, 0, enginefake.Log("x"))))
		b.Terms = &sequence.Terms{Conditions: []sequence.Condition{{Chain: chainA, Accounts: []sequence.KnownAccount{{Slots: slots}}}}}
		return b
	}
	w := newWorld(t, chainA, chainB)
	require.NoError(t, w.build(bg, checked(t, costly(0), costly(1), costly(2), costly(3), costly(4)), newLeaping()))
	require.Len(t, w.order.Bundles, sequence.MaxSubblockConditionCost/sequence.MaxConditionCost)
	require.Len(t, w.order.Steps, 4)
}
