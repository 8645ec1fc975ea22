package bundlepool

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// agreedSlot makes the subblocks of a slot whose blocks have the given number, with the
// steps in the second one.
func agreedSlot(slot sequence.Slot, number uint64, steps ...sequence.Step) []*sequence.Subblock {
	first := &sequence.Subblock{Slot: slot}
	for _, c := range []sequence.ChainID{chainA, chainB, chainC} {
		first.Openings = append(first.Openings, sequence.Opening{Chain: c, ParentNumber: number - 1})
	}
	return []*sequence.Subblock{first, {Slot: slot, Index: 1, Steps: steps}}
}

// TestAgreedAfterCrash: the file is older than the ledger.
func TestAgreedAfterCrash(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	relay := func(nonce uint64) []byte { return transfer("relayer", chainB, nonce).Transaction }
	b := bundle(now+9, transfer("alice", chainA, 0), relayStep(chainB), transfer("alice", chainB, 0), relayStep(chainB))
	e := add(t, p, b)
	other := add(t, p, bundle(now+9, transfer("bob", chainA, 0)))
	saved := p.Snapshot()

	tx := func(i int) []byte { return b.Items[i].Transaction }
	subblocks := agreedSlot(now+1, 7,
		sequence.Step{Chain: chainA, Transactions: [][]byte{transfer("carol", chainA, 0).Transaction}},
		sequence.Step{Chain: chainA, Bundle: e.Hash, Transactions: [][]byte{tx(0)}},
		sequence.Step{Chain: chainB, Bundle: e.Hash, Transactions: [][]byte{relay(0)}},
		sequence.Step{Chain: chainB, Bundle: e.Hash, Transactions: [][]byte{relay(1), tx(2)}},
		sequence.Step{Chain: chainB, Bundle: e.Hash, Transactions: [][]byte{relay(2)}},
		sequence.Step{Chain: chainC, Bundle: common.Hash{1}, Transactions: [][]byte{transfer("zoe", chainC, 0).Transaction}},
	)
	want := []ItemResult{}
	for i, raw := range [][]byte{tx(0), relay(0), relay(1), tx(2), relay(2)} {
		item := []int{0, 1, 1, 2, 3}[i]
		want = append(want, ItemResult{Item: item, Chain: b.Items[item].Chain, TxHash: crypto.Keccak256Hash(raw), BlockNumber: 7, Status: types.ReceiptStatusSuccessful})
	}

	q := newPool(Config{})
	require.NoError(t, q.Restore(saved))
	require.Equal(t, []common.Hash{e.Hash}, q.Agreed(subblocks, nil))
	s, err := q.Status(e.Hash)
	require.NoError(t, err)
	require.Equal(t, Status{Hash: e.Hash, State: Executed, Expiry: now + 9, Attempts: 1, Slot: now + 1, Items: want}, s)
	require.Equal(t, Pending, state(t, q, other.Hash))
	require.Empty(t, q.Agreed(subblocks, nil), "known by now")

	// One chain's block is replaced, and the bundle completed there in a later slot.
	again, _ := q.Replaced(chainA, 7)
	require.Contains(t, q.Reserved(chainB, q.Slot()), crypto.Keccak256Hash(relay(1)))
	require.Equal(t, []common.Hash{e.Hash}, again)
	require.Equal(t, []common.Hash{e.Hash}, q.Agreed(agreedSlot(now+3, 9, sequence.Step{Chain: chainA, Bundle: e.Hash, Transactions: [][]byte{tx(0)}}), nil))
	s, err = q.Status(e.Hash)
	require.NoError(t, err)
	want[0].BlockNumber = 9
	require.Equal(t, want, s.Items)
	require.Equal(t, now+3, s.Slot)

	// Steps that are not the bundle's leave it alone.
	require.Empty(t, q.Agreed(agreedSlot(now+4, 9, sequence.Step{Chain: chainC, Bundle: other.Hash, Transactions: [][]byte{relay(0)}}), nil))
	require.Equal(t, Pending, state(t, q, other.Hash))
	require.Empty(t, q.Agreed(nil, nil))
}
