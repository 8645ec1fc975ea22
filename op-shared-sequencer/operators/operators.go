// Package operators holds who takes part in a set: its genesis file, the governed state
// that agreed changes make of it, the signatures of leaders under subblocks, the durable
// state that keeps a leader from signing twice, and the evidence against one that did.
// It knows nothing of the agreement protocol. Keys and times are passed in.
package operators

import (
	"errors"
	"fmt"
	"math"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
)

// Limits of a set. They are part of the rules: operators with other ones disagree.
const (
	// MaxOperators in a set.
	MaxOperators = 64
	// MaxChains in a set.
	MaxChains = 256
	// MaxTotalPower is the largest sum of the operators' power: CometBFT's.
	MaxTotalPower uint64 = math.MaxInt64 / 8
	// MaxNameBytes is the longest name of a set or an operator: CometBFT's chain IDs are
	// no longer.
	MaxNameBytes = 50
	// MaxPending changes wait at a time.
	MaxPending = 128
	// MaxPendingPerOperator of them were proposed by one operator, so that a third of the
	// operators cannot take all the places.
	MaxPendingPerOperator = 4
	// MaxExpiryAhead is how far ahead of the slot a change may expire, in seconds.
	MaxExpiryAhead = 7 * 24 * 3600
	// MaxEnded is how many changes in force are remembered until they expire, so that they
	// are not put in force again. Further ones wait.
	MaxEnded = 128
)

// ErrMalformed wraps every reason why something is not well formed on its own.
var ErrMalformed = errors.New("malformed")

// ConsensusKey is the ed25519 public key an operator votes with. Hex in JSON.
type ConsensusKey [32]byte

func (k ConsensusKey) String() string { return hexutil.Encode(k[:]) }

// MarshalText writes 0x and hex digits.
func (k ConsensusKey) MarshalText() ([]byte, error) { return hexutil.Bytes(k[:]).MarshalText() }

// UnmarshalText reads what MarshalText wrote.
func (k *ConsensusKey) UnmarshalText(text []byte) error {
	return hexutil.UnmarshalFixedText("ConsensusKey", text, k[:])
}

// Operator is one member of the set.
type Operator struct {
	Name         string         `json:"name"`         // for people: logs, metrics, status
	Address      common.Address `json:"address"`      // of the secp256k1 key that signs subblocks and changes
	ConsensusKey ConsensusKey   `json:"consensusKey"` // votes
	Power        uint64         `json:"power"`        // share of the votes and of the turns
}

// Check says whether the operator is well formed.
func (o *Operator) Check() error {
	switch {
	case !validName(o.Name):
		return fmt.Errorf("%w operator: name %.80q must have 1 to %d letters, digits, dots, dashes or underscores", ErrMalformed, o.Name, MaxNameBytes)
	case o.Address == (common.Address{}):
		return fmt.Errorf("%w operator %s: the address is zero", ErrMalformed, o.Name)
	case o.ConsensusKey == (ConsensusKey{}):
		return fmt.Errorf("%w operator %s: the consensus key is zero", ErrMalformed, o.Name)
	case o.Power == 0 || o.Power > MaxTotalPower:
		return fmt.Errorf("%w operator %s: power %d must be between 1 and %d", ErrMalformed, o.Name, o.Power, MaxTotalPower)
	}
	return nil
}

func validName(name string) bool {
	if len(name) == 0 || len(name) > MaxNameBytes {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// checkOperators holds operators of one set against each other.
func checkOperators(list []Operator) error {
	if len(list) == 0 || len(list) > MaxOperators {
		return fmt.Errorf("%w set: it has %d operators, it must have 1 to %d", ErrMalformed, len(list), MaxOperators)
	}
	var total uint64
	names, addresses, keys := map[string]bool{}, map[common.Address]bool{}, map[ConsensusKey]bool{}
	for i := range list {
		o := &list[i]
		if err := o.Check(); err != nil {
			return err
		}
		switch {
		case names[o.Name]:
			return fmt.Errorf("%w set: two operators have the name %s", ErrMalformed, o.Name)
		case addresses[o.Address]:
			return fmt.Errorf("%w set: two operators have the address %s", ErrMalformed, o.Address)
		case keys[o.ConsensusKey]:
			return fmt.Errorf("%w set: two operators have the consensus key %s", ErrMalformed, o.ConsensusKey)
		}
		names[o.Name], addresses[o.Address], keys[o.ConsensusKey] = true, true, true
		if total += o.Power; total > MaxTotalPower { // no overflow: both are far below 2^63
			return fmt.Errorf("%w set: the total power is above %d", ErrMalformed, MaxTotalPower)
		}
	}
	return nil
}
