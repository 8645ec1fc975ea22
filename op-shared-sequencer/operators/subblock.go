package operators

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// SignedSubblock is a subblock with its leader's signature: what a leader proposes.
type SignedSubblock struct {
	Height    uint64 // place in the agreement history, from 1
	Subblock  *sequence.Subblock
	Signature Signature

	hash common.Hash // the subblock's; zero if it was not worked out yet
}

// Limits of what is decoded.
type Limits struct {
	// Bytes of the encoding.
	Bytes int
	// Items is the number of RLP items in it, lists included. An item of one byte takes
	// many in memory. A transaction is one item, a step six, an opening about twenty.
	Items int
}

// DefaultLimits allow what a slot of a few chains can hold.
var DefaultLimits = Limits{Bytes: 16 << 20, Items: 1 << 19}

// View says what a subblock's leader could see of the chains' heads and of L1:
// keccak256 over (uint256 chain, bytes32 parent hash, bytes32 L1 origin hash) of each
// opening, in order. It is zero for a subblock that does not begin a slot. A leader signs
// one subblock for a height and view.
func View(sub *sequence.Subblock) common.Hash {
	if sub.Index != 0 {
		return common.Hash{}
	}
	buf := make([]byte, 0, 96*len(sub.Openings))
	for i := range sub.Openings {
		o := &sub.Openings[i]
		var chain common.Hash
		binary.BigEndian.PutUint64(chain[24:], uint64(o.Chain))
		buf = append(buf, chain[:]...)
		buf = append(buf, o.ParentHash[:]...)
		buf = append(buf, o.L1Origin.Hash[:]...)
	}
	return crypto.Keccak256Hash(buf)
}

// SignSubblock signs without any memory of what was signed before: for tests, and for
// leaders that lie. Leaders use a Signer.
func SignSubblock(setID common.Hash, height uint64, sub *sequence.Subblock, key *ecdsa.PrivateKey) (*SignedSubblock, error) {
	hash := sub.Hash()
	sig, err := sign(SubblockDigest(setID, height, View(sub), hash), key)
	if err != nil {
		return nil, fmt.Errorf("sign subblock %d of slot %d at height %d: %w", sub.Index, sub.Slot, height, err)
	}
	return &SignedSubblock{Height: height, Subblock: sub, Signature: sig, hash: hash}, nil
}

// Hash is the subblock's. It was worked out once: that takes longer than all else here.
func (s *SignedSubblock) Hash() common.Hash {
	if s.hash == (common.Hash{}) {
		return s.Subblock.Hash()
	}
	return s.hash
}

// Digest is what the leader signed.
func (s *SignedSubblock) Digest(setID common.Hash) common.Hash {
	return SubblockDigest(setID, s.Height, View(s.Subblock), s.Hash())
}

// Leader recovers who signed. Whether it was its turn is the rotation's to say.
func (s *SignedSubblock) Leader(setID common.Hash) (common.Address, error) {
	leader, err := s.Signature.recover(s.Digest(setID))
	if err != nil {
		return common.Address{}, fmt.Errorf("subblock %d of slot %d at height %d: %w", s.Subblock.Index, s.Subblock.Slot, s.Height, err)
	}
	return leader, nil
}

// Encode is the canonical encoding: RLP of the fields in their order.
func (s *SignedSubblock) Encode() []byte { return mustEncode(s) }

// DecodeSignedSubblock reads what Encode wrote and checks that it is well formed.
func DecodeSignedSubblock(data []byte, limits Limits) (*SignedSubblock, error) {
	fail := func(err error) (*SignedSubblock, error) {
		return nil, fmt.Errorf("%w signed subblock: %w", ErrMalformed, err)
	}
	if len(data) > limits.Bytes {
		return fail(fmt.Errorf("%d bytes, at most %d", len(data), limits.Bytes))
	}
	if err := countItems(data, limits.Items); err != nil {
		return fail(err)
	}
	s := new(SignedSubblock)
	if err := rlp.DecodeBytes(data, s); err != nil {
		return fail(err)
	}
	if s.Height == 0 {
		return fail(fmt.Errorf("height 0"))
	}
	if err := s.Subblock.Check(); err != nil {
		return fail(err)
	}
	// What is optional could be spelt out: one subblock has one encoding.
	enc := s.Subblock.Encode()
	if !bytes.Equal(enc, second(data)) {
		return fail(errors.New("not the canonical encoding"))
	}
	s.hash = sequence.HashSubblock(enc)
	return s, s.Signature.Check()
}

// second is the second item of a list that was decoded.
func second(list []byte) []byte {
	content, _, _ := rlp.SplitList(list)
	_, _, content, _ = rlp.Split(content)
	_, _, rest, _ := rlp.Split(content)
	return content[:len(content)-len(rest)]
}

// countItems walks an encoding without allocating, and fails when it has more items than allowed.
func countItems(data []byte, limit int) error {
	left := limit
	var walk func(b []byte, depth int) error
	walk = func(b []byte, depth int) error {
		for len(b) > 0 {
			if left--; left < 0 {
				return fmt.Errorf("more than %d items", limit)
			}
			kind, content, rest, err := rlp.Split(b)
			if err != nil {
				return err
			}
			if kind == rlp.List {
				if depth == 0 {
					return fmt.Errorf("lists are nested too deep")
				}
				if err := walk(content, depth-1); err != nil {
					return err
				}
			}
			b = rest
		}
		return nil
	}
	return walk(data, 12)
}
