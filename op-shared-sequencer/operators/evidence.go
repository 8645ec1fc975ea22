package operators

import (
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"
)

var (
	// ErrSameSubblock: the two signatures are under one subblock, which proves nothing.
	ErrSameSubblock = errors.New("both signatures are under the same subblock")
	// ErrTwoSigners: the two signatures are of different keys, which proves nothing.
	ErrTwoSigners = errors.New("the signatures are of two signers")
)

// Evidence that a leader signed two subblocks for one height and view. An EVM contract
// can check it: SubblockEvidence.sol.
type Evidence struct {
	Height     uint64         `json:"height"`
	View       common.Hash    `json:"view"`
	Hashes     [2]common.Hash `json:"hashes"` // of the subblocks
	Signatures [2]Signature   `json:"signatures"`
}

// Check says who equivocated in a set, or why nobody can be told from this.
func (e *Evidence) Check(setID common.Hash) (common.Address, error) {
	fail := func(err error) (common.Address, error) {
		return common.Address{}, fmt.Errorf("evidence at height %d: %w", e.Height, err)
	}
	if e.Hashes[0] == e.Hashes[1] {
		return fail(ErrSameSubblock)
	}
	var leaders [2]common.Address
	for i := range leaders {
		var err error
		if leaders[i], err = e.Signatures[i].recover(SubblockDigest(setID, e.Height, e.View, e.Hashes[i])); err != nil {
			return fail(err)
		}
	}
	if leaders[0] != leaders[1] {
		return fail(fmt.Errorf("%w: %s and %s", ErrTwoSigners, leaders[0], leaders[1]))
	}
	return leaders[0], nil
}

// Encode is the canonical encoding: RLP of the fields in their order.
func (e *Evidence) Encode() []byte { return mustEncode(e) }

// maxEvidenceBytes is above the longest encoding.
const maxEvidenceBytes = 300

// DecodeEvidence reads what Encode wrote. Check says whether it proves anything.
func DecodeEvidence(data []byte) (*Evidence, error) {
	if len(data) > maxEvidenceBytes {
		return nil, fmt.Errorf("%w evidence: %d bytes, at most %d", ErrMalformed, len(data), maxEvidenceBytes)
	}
	e := new(Evidence)
	if err := rlp.DecodeBytes(data, e); err != nil {
		return nil, fmt.Errorf("%w evidence: %w", ErrMalformed, err)
	}
	for i := range e.Signatures {
		if err := e.Signatures[i].Check(); err != nil {
			return nil, fmt.Errorf("evidence at height %d: %w", e.Height, err)
		}
	}
	return e, nil
}

// VoteEvidence is misbehaviour of a voter that the agreement protocol has found and
// proven to the others.
type VoteEvidence struct {
	Kind     string         `json:"kind"`     // as the protocol calls it, e.g. DUPLICATE_VOTE
	Operator common.Address `json:"operator"` // zero when it had left the set
	Address  common.Address `json:"address"`  // the consensus key's, in the protocol
	Height   uint64         `json:"height"`
	Time     uint64         `json:"time"`  // Unix seconds
	Power    uint64         `json:"power"` // the voter's at that height
}
