package operators

import (
	"crypto/ecdsa"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Kind of a change.
type Kind uint8

const (
	AddOperator    Kind = iota + 1 // takes Operator in
	RemoveOperator                 // puts the operator with Operator.Address out
	SetPower                       // gives the operator with Operator.Address Operator.Power
	JoinChain                      // Chain takes part
	LeaveChain                     // Chain no longer does
)

var kindNames = map[Kind]string{
	AddOperator: "addOperator", RemoveOperator: "removeOperator", SetPower: "setPower", JoinChain: "joinChain", LeaveChain: "leaveChain",
}

func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// MarshalText writes the kind's name.
func (k Kind) MarshalText() ([]byte, error) {
	if _, ok := kindNames[k]; !ok {
		return nil, fmt.Errorf("%w change: unknown %s", ErrMalformed, k)
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(text []byte) error {
	for kind, name := range kindNames {
		if name == string(text) {
			*k = kind
			return nil
		}
	}
	return fmt.Errorf("%w change: unknown kind %.40q", ErrMalformed, text)
}

// Change of the set that two thirds of the power must approve. Fields that the kind does
// not name are zero.
type Change struct {
	Kind     Kind             `json:"kind"`
	Operator Operator         `json:"operator"`
	Chain    sequence.ChainID `json:"chain"`
	// Nonce tells changes apart that say the same. Any number that was not used yet.
	Nonce uint64 `json:"nonce"`
	// Expiry is the last slot at whose boundary the change can come in force. An approval
	// counts until then.
	Expiry sequence.Slot `json:"expiry"`
}

// Check says whether the change is well formed: everything that does not need the set.
func (c *Change) Check() error {
	o := c.Operator
	fail := func(why string) error { return fmt.Errorf("%w change (%s): %s", ErrMalformed, c.Kind, why) }
	switch c.Kind {
	case AddOperator:
		if err := o.Check(); err != nil {
			return err
		}
	case RemoveOperator:
		if o != (Operator{Address: o.Address}) || o.Address == (common.Address{}) {
			return fail("of the operator it has the address and nothing else")
		}
	case SetPower:
		if o != (Operator{Address: o.Address, Power: o.Power}) || o.Address == (common.Address{}) {
			return fail("of the operator it has the address and the power and nothing else")
		}
		if o.Power == 0 || o.Power > MaxTotalPower {
			return fail(fmt.Sprintf("power %d must be between 1 and %d; to take an operator's power away, remove it", o.Power, MaxTotalPower))
		}
	case JoinChain, LeaveChain:
		if o != (Operator{}) {
			return fail("it has no operator")
		}
		if c.Chain == 0 {
			return fail("chain ID 0")
		}
		return nil
	default:
		return fail("there is no such kind")
	}
	if c.Chain != 0 {
		return fail("it has no chain")
	}
	return nil
}

var changeDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/change/1"))

// ID identifies the change: keccak256(domain ‖ rlp).
func (c *Change) ID() common.Hash { return crypto.Keccak256Hash(changeDomain[:], mustEncode(c)) }

func (c *Change) String() string {
	switch c.Kind {
	case AddOperator:
		return fmt.Sprintf("add operator %s (%s) with power %d", c.Operator.Name, c.Operator.Address, c.Operator.Power)
	case RemoveOperator:
		return fmt.Sprintf("remove operator %s", c.Operator.Address)
	case SetPower:
		return fmt.Sprintf("set the power of operator %s to %d", c.Operator.Address, c.Operator.Power)
	case JoinChain:
		return fmt.Sprintf("chain %s joins", c.Chain)
	case LeaveChain:
		return fmt.Sprintf("chain %s leaves", c.Chain)
	}
	return c.Kind.String()
}

// SignedChange is one operator's approval of a change. The first one proposes it.
type SignedChange struct {
	Change    Change    `json:"change"`
	Signature Signature `json:"signature"`
}

// maxSignedChangeBytes is well above the longest encoding.
const maxSignedChangeBytes = 512

// SignChange approves a change with an operator's key.
func SignChange(setID common.Hash, c Change, key *ecdsa.PrivateKey) (*SignedChange, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	sig, err := sign(changeDigest(setID, c.ID()), key)
	if err != nil {
		return nil, fmt.Errorf("sign a change (%s): %w", &c, err)
	}
	return &SignedChange{Change: c, Signature: sig}, nil
}

// ID of the change that is approved.
func (c *SignedChange) ID() common.Hash { return c.Change.ID() }

// Hash of this approval: of its encoding.
func (c *SignedChange) Hash() common.Hash { return crypto.Keccak256Hash(c.Encode()) }

// Signer recovers who approved. Whether that is an operator is the set's to say.
func (c *SignedChange) Signer(setID common.Hash) (common.Address, error) {
	return c.Signature.recover(changeDigest(setID, c.Change.ID()))
}

// Encode is the canonical encoding: RLP of the fields in their order.
func (c *SignedChange) Encode() []byte { return mustEncode(c) }

// DecodeSignedChange reads what Encode wrote and checks that it is well formed.
func DecodeSignedChange(data []byte) (*SignedChange, error) {
	if len(data) > maxSignedChangeBytes {
		return nil, fmt.Errorf("%w change: %d bytes, at most %d", ErrMalformed, len(data), maxSignedChangeBytes)
	}
	c := new(SignedChange)
	if err := rlp.DecodeBytes(data, c); err != nil {
		return nil, fmt.Errorf("%w change: %w", ErrMalformed, err)
	}
	if err := c.Change.Check(); err != nil {
		return nil, err
	}
	return c, c.Signature.Check()
}

func mustEncode(v any) []byte {
	enc, err := rlp.EncodeToBytes(v)
	if err != nil { // every type that is passed has an RLP form
		panic(err)
	}
	return enc
}
