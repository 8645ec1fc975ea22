package sequence

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rlp"
)

// Bundle is a list of transactions over one or more chains that execute in this
// order, in one slot, all or nothing: if one cannot be included or reverts, no
// chain has any of them.
type Bundle struct {
	Items []BundleItem
	// Expiry is the last slot the bundle may be executed in.
	Expiry Slot
	// Terms are what else its sender asks for; nil: nothing.
	Terms *Terms `rlp:"optional"`
}

// Terms are wishes of a bundle's sender that few have. They are part of the bundle's hash,
// and every operator checks them.
type Terms struct {
	// First is the first slot the bundle may be executed in; 0: any.
	First Slot
	// ReplacementID names the bundle to the operators' pools: of those with the same ID and
	// the same signer one waits at a time, the one that pays most. Zero: none.
	ReplacementID common.Hash
	// Signature is by whom the replacement ID is, over ReplacementText. Empty without an ID.
	Signature []byte
	// Conditions must hold when the bundle begins: ascending by chain, one for each at most.
	Conditions []Condition
}

// Limits of conditions, by Terms.Cost: what they cost operators is not paid for in gas.
const (
	MaxConditionCost         = params.TransactionConditionalMaxCost // of a bundle
	MaxSubblockConditionCost = 4 * MaxConditionCost
)

// Cost is what checking the conditions costs: 1 for each, for each bound, account and slot.
func (t *Terms) Cost() int {
	if t == nil {
		return 0
	}
	cost := 0
	for i := range t.Conditions {
		c := &t.Conditions[i]
		cost++
		for _, bound := range []uint64{c.NumberMin, c.NumberMax, c.TimeMin, c.TimeMax} {
			if bound != 0 {
				cost++
			}
		}
		for _, a := range c.Accounts {
			cost += 1 + len(a.Slots)
		}
	}
	return cost
}

// Check says whether the terms are well formed, and cost as little as they must: for pools,
// and for subblocks, whose leaders may have passed their pool over.
func (t *Terms) Check() error {
	switch {
	case t == nil:
		return nil
	case t.Cost() > MaxConditionCost:
		return fmt.Errorf("its conditions cost %d, expected at most %d (each one, bound, account and slot is 1)", t.Cost(), MaxConditionCost)
	case !ascending(t.Conditions, func(c Condition) ChainID { return c.Chain }):
		return errors.New("its conditions are not ascending by chain, one for each")
	}
	return nil
}

// ReplacementText is what whoever owns a replacement ID signs, as a personal message
// (EIP-191): hash is of the bundle without the signature. An ID is its signer's own.
func (b *Bundle) ReplacementText() string {
	unsigned, terms := *b, *b.Terms
	terms.Signature = nil
	unsigned.Terms = &terms
	return fmt.Sprintf("Replacement %s is bundle %s", terms.ReplacementID.Hex(), unsigned.Hash().Hex())
}

// Condition is what must hold on one of the bundle's chains, in the block under
// construction: its header, and its state before the bundle. It has the meaning of
// eth_sendRawTransactionConditional's options; bounds are inclusive, and 0 is none.
type Condition struct {
	Chain     ChainID
	NumberMin uint64
	NumberMax uint64
	TimeMin   uint64
	TimeMax   uint64
	Accounts  []KnownAccount // ascending by address
}

// KnownAccount is what must be known of an account: either the root of its storage, as of
// the parent block, or some of its slots.
type KnownAccount struct {
	Address     common.Address
	StorageRoot common.Hash // zero: not asked for
	Slots       []KnownSlot // ascending by key
}

// KnownSlot is a storage slot and its value.
type KnownSlot struct{ Key, Value common.Hash }

// Conditional is the condition in op-geth's form.
func (c *Condition) Conditional() *types.TransactionConditional {
	out := &types.TransactionConditional{KnownAccounts: make(types.KnownAccounts, len(c.Accounts))}
	if c.NumberMin != 0 {
		out.BlockNumberMin = new(big.Int).SetUint64(c.NumberMin)
	}
	if c.NumberMax != 0 {
		out.BlockNumberMax = new(big.Int).SetUint64(c.NumberMax)
	}
	if c.TimeMin != 0 {
		out.TimestampMin = &c.TimeMin
	}
	if c.TimeMax != 0 {
		out.TimestampMax = &c.TimeMax
	}
	for _, a := range c.Accounts {
		known := types.KnownAccount{StorageSlots: make(map[common.Hash]common.Hash, len(a.Slots))}
		if a.StorageRoot != (common.Hash{}) {
			known.StorageRoot = &a.StorageRoot
		}
		for _, s := range a.Slots {
			known.StorageSlots[s.Key] = s.Value
		}
		out.KnownAccounts[a.Address] = known
	}
	return out
}

// First is the first slot the bundle may be executed in.
func (b *Bundle) First() Slot {
	if b.Terms == nil {
		return 0
	}
	return b.Terms.First
}

// BundleItem is either a signed transaction, or a relay step: "execute here, on
// Chain, the L2ToL2 messages sent to Chain so far in this bundle and not yet
// relayed", signed by the operator's relayer key when its turn comes.
type BundleItem struct {
	Chain       ChainID
	Transaction []byte // EIP-2718 envelope; empty for a relay step
	// MayRevert: the bundle goes on when this transaction reverts, which then is in the block.
	MayRevert bool `rlp:"optional"`
}

// Relay says whether the item is a relay step.
func (i *BundleItem) Relay() bool { return len(i.Transaction) == 0 }

var bundleDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/bundle/1"))

// Hash identifies the bundle: keccak256(domain ‖ rlp).
func (b *Bundle) Hash() common.Hash {
	return crypto.Keccak256Hash(bundleDomain[:], b.Encode())
}

// Encode is the canonical encoding: RLP of the fields in their order.
func (b *Bundle) Encode() []byte {
	enc, err := rlp.EncodeToBytes(b)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	return enc
}

// DecodeBundle reads what Encode wrote.
func DecodeBundle(data []byte) (*Bundle, error) {
	b := new(Bundle)
	if err := rlp.DecodeBytes(data, b); err != nil {
		return nil, fmt.Errorf("%w bundle: %w", ErrMalformed, err)
	}
	if !bytes.Equal(b.Encode(), data) { // what is optional could be spelt out
		return nil, fmt.Errorf("%w bundle: not the canonical encoding", ErrMalformed)
	}
	return b, nil
}

// Chains lists the chains the bundle touches, in order of first appearance.
func (b *Bundle) Chains() []ChainID {
	var out []ChainID
	seen := map[ChainID]bool{}
	for _, it := range b.Items {
		if !seen[it.Chain] {
			seen[it.Chain] = true
			out = append(out, it.Chain)
		}
	}
	return out
}

// BundleOf puts a bundle together from the steps that executed it: the run of steps that
// Subblock.Bundles yields. Its hash is the steps' if they are the bundle as it was sent,
// whole and in order. They are less than that only when a bundle is completed of which
// some transactions stand in earlier blocks.
func BundleOf(steps []Step) *Bundle {
	b := &Bundle{Expiry: steps[0].Expiry, Terms: steps[0].Terms}
	for i, st := range steps {
		if st.Relay {
			// One relay step makes a transaction for each message. Two of them in a row on
			// one chain cannot be: the second would have nothing to relay.
			if i == 0 || !steps[i-1].Relay || steps[i-1].Chain != st.Chain {
				b.Items = append(b.Items, BundleItem{Chain: st.Chain})
			}
			continue
		}
		for _, tx := range st.Transactions {
			b.Items = append(b.Items, BundleItem{Chain: st.Chain, Transaction: tx, MayRevert: st.MayRevert})
		}
	}
	return b
}
