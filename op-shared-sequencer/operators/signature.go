package operators

import (
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
)

// Signature is r ‖ s ‖ v of secp256k1, with s in the lower half and v 27 or 28: what the
// EVM's ecrecover takes. Hex in JSON.
type Signature [65]byte

func (s Signature) String() string { return hexutil.Encode(s[:]) }

// MarshalText writes 0x and hex digits.
func (s Signature) MarshalText() ([]byte, error) { return hexutil.Bytes(s[:]).MarshalText() }

// UnmarshalText reads what MarshalText wrote.
func (s *Signature) UnmarshalText(text []byte) error {
	return hexutil.UnmarshalFixedText("Signature", text, s[:])
}

// Check says whether the signature has the one form that is accepted.
func (s *Signature) Check() error {
	r, ss := new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:64])
	if s[64] != 27 && s[64] != 28 {
		return fmt.Errorf("%w signature: v is %d, it must be 27 or 28", ErrMalformed, s[64])
	}
	if !crypto.ValidateSignatureValues(s[64]-27, r, ss, true) {
		return fmt.Errorf("%w signature: r or s is out of range, or s is in the upper half", ErrMalformed)
	}
	return nil
}

// recover gives the address whose key signed the digest.
func (s *Signature) recover(digest common.Hash) (common.Address, error) {
	if err := s.Check(); err != nil {
		return common.Address{}, err
	}
	raw := *s
	raw[64] -= 27
	pub, err := crypto.SigToPub(digest[:], raw[:])
	if err != nil {
		return common.Address{}, fmt.Errorf("%w signature: nobody can have made it: %w", ErrMalformed, err)
	}
	return crypto.PubkeyToAddress(*pub), nil
}

func sign(digest common.Hash, key *ecdsa.PrivateKey) (Signature, error) {
	raw, err := crypto.Sign(digest[:], key) // deterministic, s in the lower half
	if err != nil {
		return Signature{}, err
	}
	s := Signature(raw)
	s[64] += 27
	return s, nil
}

// SubblockDomain keeps what leaders sign apart from everything else their keys sign. It is
// also in SubblockEvidence.sol.
var SubblockDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/subblock-signature/1"))

// SubblockDigest is what a leader signs:
// keccak256(abi.encode(bytes32 domain, bytes32 setID, uint256 height, bytes32 view, bytes32 subblockHash)).
func SubblockDigest(setID common.Hash, height uint64, view, subblock common.Hash) common.Hash {
	var h common.Hash
	binary.BigEndian.PutUint64(h[24:], height)
	return crypto.Keccak256Hash(SubblockDomain[:], setID[:], h[:], view[:], subblock[:])
}

var changeSignatureDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/change-signature/1"))

// changeDigest is what an operator signs to approve a change.
func changeDigest(setID, change common.Hash) common.Hash {
	return crypto.Keccak256Hash(changeSignatureDomain[:], setID[:], change[:])
}
