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
