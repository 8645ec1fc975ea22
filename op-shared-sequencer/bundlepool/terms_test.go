package bundlepool

import (
	"crypto/ecdsa"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// paying is a bundle that bids 21000 times the tip.
func paying(who string, nonce uint64, tip int64, terms *sequence.Terms) *sequence.Bundle {
	b := bundle(now+9, sequence.BundleItem{Chain: chainA, Transaction: sign(who, chainA, &types.DynamicFeeTx{
		ChainID: chainA.ID().ToBig(), Nonce: nonce, To: &common.Address{1}, Gas: 21000, GasFeeCap: big.NewInt(1e9), GasTipCap: big.NewInt(tip),
	})})
	if b.Terms = terms; terms != nil && terms.ReplacementID != (common.Hash{}) {
		b.Terms = &sequence.Terms{ReplacementID: terms.ReplacementID}
		sig, err := crypto.Sign(accounts.TextHash([]byte(b.ReplacementText())), key(who))
		if err != nil {
			panic(err)
		}
		b.Terms.Signature = sig
	}
	return b
}

func TestTerms(t *testing.T) {
	t.Parallel()
	condition := func(c sequence.Condition) *sequence.Terms {
		return &sequence.Terms{Conditions: []sequence.Condition{c}}
	}
	account := func(a ...sequence.KnownAccount) *sequence.Terms {
		return condition(sequence.Condition{Chain: chainA, Accounts: a})
	}
	many := make([]sequence.KnownSlot, 1000)
	for i := range many {
		many[i].Key = common.BigToHash(big.NewInt(int64(i)))
	}
	for name, c := range map[string]struct {
		terms *sequence.Terms
		says  string // empty: they are good
	}{
		"first slot":      {&sequence.Terms{First: now + 9}, ""},
		"replacement":     {&sequence.Terms{ReplacementID: common.Hash{1}}, ""},
		"bounds":          {condition(sequence.Condition{Chain: chainA, NumberMin: 3, NumberMax: 3, TimeMin: 1, TimeMax: 2}), ""},
		"slots":           {account(sequence.KnownAccount{Slots: many[:997]}), ""},
		"root":            {account(sequence.KnownAccount{StorageRoot: common.Hash{1}}), ""},
		"nothing":         {&sequence.Terms{}, "ask for nothing"},
		"begins too late": {&sequence.Terms{First: now + 10}, "its first slot is 1010, expected at most its last, 1009"},
		"another chain":   {condition(sequence.Condition{Chain: chainB}), "condition 0 is about chain 902, which the bundle does not touch"},
		"numbers":         {condition(sequence.Condition{Chain: chainA, NumberMin: 4, NumberMax: 3}), "block number minimum"},
		"times":           {condition(sequence.Condition{Chain: chainA, TimeMin: 4, TimeMax: 3}), "timestamp minimum"},
		"accounts order":  {account(sequence.KnownAccount{Address: common.Address{2}}, sequence.KnownAccount{Address: common.Address{1}}), "not ascending"},
		"account twice":   {account(sequence.KnownAccount{}, sequence.KnownAccount{}), "accounts are not ascending"},
		"slots order":     {account(sequence.KnownAccount{Slots: []sequence.KnownSlot{many[2], many[1]}}), "not ascending"},
		"slot twice":      {account(sequence.KnownAccount{Slots: []sequence.KnownSlot{many[1], many[1]}}), "slots of account"},
		"root and slots":  {account(sequence.KnownAccount{StorageRoot: common.Hash{1}, Slots: many[:1]}), "expected one of them"},
		"too much":        {account(sequence.KnownAccount{Slots: many}), "expected at most 1000"},
		"two for a chain": {&sequence.Terms{Conditions: []sequence.Condition{{Chain: chainA}, {Chain: chainA}}}, "one for each"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(Config{})
			_, err := p.Add(paying("alice", 0, 1, c.terms))
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrTerms)
			require.ErrorContains(t, err, c.says)
		})
	}
	b := bundle(now, transfer("alice", chainA, 0), relayStep(chainB))
	b.Items[1].MayRevert = true
	_, err := newPool(Config{}).Add(b)
	require.ErrorIs(t, err, ErrRelay)
}

func TestFirstSlot(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, paying("alice", 0, 1, &sequence.Terms{First: now + 3}))
	require.Empty(t, p.Pending(now+2))
	require.Equal(t, []common.Hash{e.Hash}, hashes(p.Pending(now+3)))
}

func TestReplacement(t *testing.T) {
	t.Parallel()
	id := func(n byte) *sequence.Terms { return &sequence.Terms{ReplacementID: common.Hash{n}} }
	p := newPool(Config{MaxBundles: 3})
	first := add(t, p, paying("alice", 0, 100, id(1)))
	require.Equal(t, big.NewInt(2_100_000), first.Bid)
	other := add(t, p, paying("alice", 0, 100, id(2)))
	bobs := add(t, p, paying("bob", 0, 1, id(1)))

	_, err := p.Add(paying("alice", 1, 109, id(1)))
	require.ErrorIs(t, err, ErrUnderpriced)
	require.ErrorContains(t, err, "expected 10 % more")
	second := add(t, p, paying("alice", 1, 110, id(1))) // into the room of the first
	s, err := p.Status(first.Hash)
	require.NoError(t, err)
	require.Equal(t, Replaced, s.State)
	require.Equal(t, second.Hash, s.ReplacedBy)
	require.Equal(t, []common.Hash{other.Hash, bobs.Hash, second.Hash}, hashes(p.Pending(now)))
	_, err = p.Add(first.Bundle)
	require.ErrorIs(t, err, ErrCancelled, "it comes late over another way")

	// The ID is its signer's: with another's signature, or none, nobody takes the place.
	stolen := paying("carol", 0, 1e6, nil)
	stolen.Terms = &sequence.Terms{ReplacementID: common.Hash{1}}
	_, err = p.Add(stolen)
	require.ErrorIs(t, err, ErrTerms)
	stolen.Terms.Signature = second.Bundle.Terms.Signature
	add(t, newPool(Config{}), stolen) // of an account that nobody has
	carols := add(t, newPool(Config{}), paying("carol", 0, 1e6, id(1)))
	require.NotEqual(t, carols.name, second.name)
	require.Equal(t, Pending, state(t, p, second.Hash))

	// What is saved knows what waits under which ID.
	q := newPool(Config{})
	require.NoError(t, q.Restore(p.Snapshot()))
	_, err = q.Add(paying("alice", 2, 110, id(1)))
	require.ErrorIs(t, err, ErrUnderpriced)
	_, err = q.Add(first.Bundle)
	require.ErrorIs(t, err, ErrCancelled, "also after a restart")

	require.NoError(t, p.Done(second.Hash, executed(second, now, 4, "")))
	_, err = p.Add(paying("alice", 2, 1000, id(1)))
	require.ErrorIs(t, err, ErrUnderpriced)
	require.ErrorContains(t, err, "was executed in slot 1000")

	// A leader that had not heard of the replacement executes the replaced one.
	require.NoError(t, q.Done(second.Hash, executed(second, now, 4, "")))
	r := newPool(Config{})
	old := add(t, r, paying("alice", 0, 100, id(1)))
	late := add(t, r, paying("alice", 1, 200, id(1)))
	require.NoError(t, r.Done(old.Hash, executed(old, now, 4, "")))
	require.Equal(t, Executed, state(t, r, old.Hash))
	s, err = r.Status(late.Hash)
	require.NoError(t, err)
	require.Equal(t, Failed, s.State)
	require.Contains(t, s.Failure.Reason, "was executed in slot 1000 under the same replacement ID")
}

// What was executed once is not ended by another of its name: its blocks were replaced, and it
// runs again or is completed.
func TestReplacementAfterReorg(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	terms := &sequence.Terms{ReplacementID: common.Hash{1}}
	first := add(t, p, paying("alice", 0, 100, terms))
	require.NoError(t, p.Done(first.Hash, executed(first, now, 4, "")))
	p.Settled(chainA, 4)
	require.Equal(t, Safe, state(t, p, first.Hash), "its name is free")
	second := add(t, p, paying("alice", 1, 100, terms))
	require.NoError(t, p.Done(second.Hash, executed(second, now+1, 5, "")))
	p.Replaced(chainA, 4)
	require.Equal(t, Pending, state(t, p, first.Hash))
	require.Equal(t, Pending, state(t, p, second.Hash))
	require.NoError(t, p.Done(first.Hash, executed(first, now+2, 4, "")))
	require.Equal(t, Pending, state(t, p, second.Hash))
}

func TestCancel(t *testing.T) {
	t.Parallel()
	personal := func(k *ecdsa.PrivateKey, text string) []byte {
		sig, err := crypto.Sign(accounts.TextHash([]byte(text)), k)
		require.NoError(t, err)
		sig[crypto.RecoveryIDOffset] += 27
		return sig
	}
	p := newPool(Config{})
	e := add(t, p, bundle(now+9, transfer("alice", chainA, 0), transfer("bob", chainB, 0)))
	text := CancelText(e.Hash)
	require.Equal(t, "Cancel bundle "+e.Hash.Hex(), text)
	for name, c := range map[string]struct {
		hash common.Hash
		sig  []byte
		want error
	}{
		"a stranger":     {e.Hash, personal(key("carol"), text), ErrNotSender},
		"another text":   {e.Hash, personal(key("alice"), "Cancel bundle"), ErrNotSender},
		"short":          {e.Hash, personal(key("alice"), text)[:64], ErrNotSender},
		"bad recovery":   {e.Hash, append(personal(key("alice"), text)[:64], 99), ErrNotSender},
		"unknown bundle": {common.Hash{1}, personal(key("alice"), CancelText(common.Hash{1})), ErrUnknownBundle},
	} {
		require.ErrorIs(t, p.Cancel(c.hash, c.sig), c.want, name)
	}
	require.Equal(t, Pending, state(t, p, e.Hash))
	require.NoError(t, p.Cancel(e.Hash, personal(key("bob"), text)))
	require.NoError(t, p.Cancel(e.Hash, personal(key("alice"), text)), "again")
	require.Equal(t, Cancelled, state(t, p, e.Hash))
	require.Empty(t, p.Pending(now))
	require.Empty(t, p.Reserved(chainA, p.Slot()))
	_, err := p.Add(e.Bundle)
	require.ErrorIs(t, err, ErrCancelled)

	// A leader that had not heard of it: what is in agreed blocks is a fact.
	require.NoError(t, p.Done(e.Hash, executed(e, now, 4, "")))
	require.ErrorIs(t, p.Cancel(e.Hash, personal(key("bob"), text)), ErrNotPending)
}

func TestMayRevert(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	b := bundle(now+9, transfer("alice", chainA, 0), transfer("bob", chainA, 0))
	b.Items[1].MayRevert = true
	e := add(t, p, b)
	o := executed(e, now, 4, "")
	o.Result.Items[0].Status = 0
	require.ErrorIs(t, p.Done(e.Hash, o), ErrBadOutcome)
	o = executed(e, now, 4, "")
	o.Result.Items[1].Status = 0
	require.NoError(t, p.Done(e.Hash, o))
	s, err := p.Status(e.Hash)
	require.NoError(t, err)
	require.Zero(t, s.Items[1].Status)

	// The same from agreed subblocks, at an operator that was never sent it.
	q := newPool(Config{})
	steps := []sequence.Step{
		{Chain: chainA, Bundle: e.Hash, Expiry: b.Expiry, Transactions: [][]byte{b.Items[0].Transaction}},
		{Chain: chainA, Bundle: e.Hash, Expiry: b.Expiry, Transactions: [][]byte{b.Items[1].Transaction}, MayRevert: true},
	}
	ran := map[common.Hash]Ran{e.Transactions[0].Hash(): {21000, 1}, e.Transactions[1].Hash(): {30000, 0}}
	require.Equal(t, []common.Hash{e.Hash}, q.Agreed(agreedSlot(now+1, 7, steps...), ran))
	s, err = q.Status(e.Hash)
	require.NoError(t, err)
	require.Zero(t, s.Items[1].Status)
	require.Equal(t, uint64(30000), s.Items[1].GasUsed)
}
