package sequence

import (
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
)

// Bundle is a list of transactions over one or more chains that execute in this
// order, in one slot, all or nothing: if one cannot be included or reverts, no
// chain has any of them.
type Bundle struct {
	Items []BundleItem
	// Expiry is the last slot the bundle may be executed in.
	Expiry Slot
}

// BundleItem is either a signed transaction, or a relay step: "execute here, on
// Chain, the L2ToL2 messages sent to Chain so far in this bundle and not yet
// relayed", signed by the operator's relayer key when its turn comes.
type BundleItem struct {
	Chain       ChainID
	Transaction []byte // EIP-2718 envelope; empty for a relay step
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
	b := &Bundle{Expiry: steps[0].Expiry}
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
			b.Items = append(b.Items, BundleItem{Chain: st.Chain, Transaction: tx})
		}
	}
	return b
}
