// Package sequence holds the words the operators agree in: the slot, its subblocks,
// the steps in them, bundles and seals, with their encoding and hashes. It does no
// I/O and imports nothing else of this project.
package sequence

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

// Slot is one L2 timestamp, in seconds since the Unix epoch. Every chain whose
// block time divides the way to it has one block in it.
type Slot uint64

// ChainID is the EIP-155 chain ID of a rollup. Chain IDs above 64 bits cannot join
// a set: op-supernode and the engines name chains by 64 bits.
type ChainID uint64

// ID is the chain ID in upstream's type.
func (c ChainID) ID() eth.ChainID { return eth.ChainIDFromUInt64(uint64(c)) }

func (c ChainID) String() string { return fmt.Sprintf("%d", uint64(c)) }

// Subblock is the unit operators agree on: the next piece of one global order of
// transactions over all chains. A slot has one or more; the first opens a block on
// each chain, the last seals them.
type Subblock struct {
	Slot  Slot
	Index uint64 // 0 for the first subblock of the slot
	// Parent is the hash of the subblock before this one: in the same slot, or the
	// last of the slot before. Zero at the start of an agreement history.
	Parent   common.Hash
	Openings []Opening // ascending by chain; only in the subblock with index 0
	Steps    []Step    // the global order
	// Results are what the steps up to here made of each open block, ascending by
	// chain. An operator that comes to other results rejects the subblock.
	Results []Result
	Seals   []Seal // ascending by chain; one per opened chain, only in the last subblock
}

// Last says whether the subblock seals its slot.
func (s *Subblock) Last() bool { return len(s.Seals) > 0 }

// Opening starts a chain's block in a slot: its parent and the payload attributes
// that the block's execution depends on (Engine API, with the OP Stack's fields).
// The timestamp is the slot's; withdrawals are the empty list since Canyon.
type Opening struct {
	Chain            ChainID
	ParentHash       common.Hash
	ParentNumber     uint64
	L1Origin         eth.BlockID
	PrevRandao       common.Hash
	FeeRecipient     common.Address
	ParentBeaconRoot common.Hash
	GasLimit         uint64
	EIP1559Params    []byte   // 8 bytes since Holocene, else empty
	MinBaseFee       []uint64 // one value in wei since Jovian, else empty
	NoTxPool         bool     // the block takes no user transactions and no cross-chain work
	Deposits         [][]byte // the forced transactions, as EIP-2718 envelopes
}

// Step is a run of transactions on one chain, at one place of the global order.
type Step struct {
	Chain ChainID
	// Bundle is the hash of the bundle the step belongs to, zero for plain
	// transactions. The steps of a bundle are consecutive.
	Bundle common.Hash
	// Relay: the transactions were made by the operator for a relay step of the bundle.
	Relay bool
	// Expiry is the bundle's, 0 for plain transactions. With it the steps tell the whole
	// bundle, and every operator can check that it is whole: see BundleOf.
	Expiry       Slot
	Transactions [][]byte // EIP-2718 envelopes
	// MayRevert: they are of items that may.
	MayRevert bool `rlp:"optional"`
	// Terms are the bundle's, in its first step.
	Terms *Terms `rlp:"optional"`
}

// Result commits to the open block of a chain after the steps so far.
type Result struct {
	Chain        ChainID
	Transactions uint64 // in the block so far, deposits included
	GasUsed      uint64
	ReceiptsRoot common.Hash
}

// Seal names the block a slot ends in on one chain.
type Seal struct {
	Chain ChainID
	// BlockHash is zero when too few operators can run the chain at the moment to agree
	// on it. What is in the block is agreed all the same, and so the hash follows; the
	// opening of the chain's next block states it.
	BlockHash common.Hash
	Number    uint64
}

// Deferred says whether the seal leaves the block's hash open.
func (s *Seal) Deferred() bool { return s.BlockHash == (common.Hash{}) }

// ErrMalformed wraps every reason why a subblock or bundle is not well formed.
var ErrMalformed = errors.New("malformed")

// Check says whether the subblock is well formed on its own: everything that needs
// neither state nor the subblocks before it.
func (s *Subblock) Check() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w subblock %d of slot %d: %s", ErrMalformed, s.Index, s.Slot, fmt.Sprintf(format, args...))
	}
	if (s.Index == 0) != (len(s.Openings) > 0) {
		return fail("%d openings: the first subblock of a slot opens its blocks, no other does", len(s.Openings))
	}
	if !ascending(s.Openings, func(o Opening) ChainID { return o.Chain }) {
		return fail("openings are not ascending by chain")
	}
	if !ascending(s.Results, func(r Result) ChainID { return r.Chain }) {
		return fail("results are not ascending by chain")
	}
	if !ascending(s.Seals, func(s Seal) ChainID { return s.Chain }) {
		return fail("seals are not ascending by chain")
	}
	if s.Last() && len(s.Seals) != len(s.Results) {
		return fail("%d seals for %d open blocks", len(s.Seals), len(s.Results))
	}
	open := make(map[ChainID]bool, len(s.Results))
	for i, r := range s.Results {
		open[r.Chain] = true
		if s.Last() && s.Seals[i].Chain != r.Chain {
			return fail("chain %s has a result and no seal", r.Chain)
		}
	}
	for _, o := range s.Openings {
		if !open[o.Chain] {
			return fail("chain %s is opened and has no result", o.Chain)
		}
		if n := len(o.EIP1559Params); n != 0 && n != 8 {
			return fail("chain %s: %d bytes of EIP-1559 parameters", o.Chain, n)
		}
		if len(o.MinBaseFee) > 1 {
			return fail("chain %s: %d minimum base fees", o.Chain, len(o.MinBaseFee))
		}
	}
	if s.Index == 0 && len(s.Openings) != len(s.Results) {
		return fail("%d openings for %d open blocks", len(s.Openings), len(s.Results))
	}
	for i, st := range s.Steps {
		if !open[st.Chain] {
			return fail("step %d is on chain %s, which has no open block", i, st.Chain)
		}
		if len(st.Transactions) == 0 {
			return fail("step %d has no transactions", i)
		}
		if st.Bundle == (common.Hash{}) && (st.Relay || st.Expiry != 0 || st.MayRevert || st.Terms != nil) {
			return fail("step %d is of no bundle and has what only a bundle's has", i)
		}
	}
	cost := 0
	for run := range s.Bundles() {
		if err := run[0].Terms.Check(); err != nil {
			return fail("bundle %s: %v", run[0].Bundle, err)
		}
		if cost += run[0].Terms.Cost(); cost > MaxSubblockConditionCost {
			return fail("the conditions of its bundles cost more than %d", MaxSubblockConditionCost)
		}
		for i, st := range run {
			switch {
			case st.Expiry != run[0].Expiry:
				return fail("bundle %s has two expiries", st.Bundle)
			case i > 0 && st.Terms != nil:
				return fail("bundle %s has its terms in a step that is not its first", st.Bundle)
			case st.Relay && st.MayRevert:
				return fail("bundle %s has a relay step that may revert", st.Bundle)
			}
		}
	}
	return nil
}

// Bundles yields the runs of steps that belong to one bundle each, in order.
func (s *Subblock) Bundles() iter.Seq[[]Step] {
	return func(yield func([]Step) bool) {
		for i := 0; i < len(s.Steps); {
			j := i + 1
			for j < len(s.Steps) && s.Steps[j].Bundle == s.Steps[i].Bundle {
				j++
			}
			if s.Steps[i].Bundle != (common.Hash{}) && !yield(s.Steps[i:j]) {
				return
			}
			i = j
		}
	}
}

func ascending[T any](list []T, chain func(T) ChainID) bool {
	for i := 1; i < len(list); i++ {
		if chain(list[i-1]) >= chain(list[i]) {
			return false
		}
	}
	return true
}

// subblockDomain keeps the hash of a subblock apart from any other hash an operator signs.
var subblockDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/subblock/1"))

// Hash identifies the subblock: keccak256(domain ‖ rlp). It can be recomputed by an
// EVM contract that is given the encoding.
func (s *Subblock) Hash() common.Hash { return HashSubblock(s.Encode()) }

// HashSubblock is the hash of the subblock that has this encoding.
func HashSubblock(encoding []byte) common.Hash {
	return crypto.Keccak256Hash(subblockDomain[:], encoding)
}

// Encode is the canonical encoding: RLP of the fields in their order.
func (s *Subblock) Encode() []byte {
	b, err := rlp.EncodeToBytes(s)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	return b
}

// DecodeSubblock reads what Encode wrote and checks that it is well formed.
func DecodeSubblock(data []byte) (*Subblock, error) {
	s := new(Subblock)
	if err := rlp.DecodeBytes(data, s); err != nil {
		return nil, fmt.Errorf("%w subblock: %w", ErrMalformed, err)
	}
	if !bytes.Equal(s.Encode(), data) { // what is optional could be spelt out
		return nil, fmt.Errorf("%w subblock: not the canonical encoding", ErrMalformed)
	}
	return s, s.Check()
}

// NewOpening takes an opening from the attributes of upstream's attributes builder.
func NewOpening(chain ChainID, parent, l1Origin eth.BlockID, a *eth.PayloadAttributes) (Opening, error) {
	if a.GasLimit == nil || a.ParentBeaconBlockRoot == nil || a.Withdrawals == nil || len(*a.Withdrawals) != 0 {
		return Opening{}, fmt.Errorf("chain %s: attributes from before Ecotone cannot be sequenced together", chain)
	}
	o := Opening{
		Chain: chain, ParentHash: parent.Hash, ParentNumber: parent.Number, L1Origin: l1Origin,
		PrevRandao: common.Hash(a.PrevRandao), FeeRecipient: a.SuggestedFeeRecipient,
		ParentBeaconRoot: *a.ParentBeaconBlockRoot, GasLimit: uint64(*a.GasLimit), NoTxPool: a.NoTxPool,
	}
	if a.EIP1559Params != nil {
		o.EIP1559Params = append([]byte(nil), a.EIP1559Params[:]...)
	}
	if a.MinBaseFee != nil {
		o.MinBaseFee = []uint64{*a.MinBaseFee}
	}
	for _, tx := range a.Transactions {
		o.Deposits = append(o.Deposits, tx)
	}
	return o, nil
}

// Attributes gives the payload attributes back, at the slot's timestamp.
func (o *Opening) Attributes(slot Slot) *eth.PayloadAttributes {
	gasLimit, root := eth.Uint64Quantity(o.GasLimit), o.ParentBeaconRoot
	a := &eth.PayloadAttributes{
		Timestamp: hexutil.Uint64(slot), PrevRandao: eth.Bytes32(o.PrevRandao), SuggestedFeeRecipient: o.FeeRecipient,
		Withdrawals: &types.Withdrawals{}, ParentBeaconBlockRoot: &root, NoTxPool: o.NoTxPool, GasLimit: &gasLimit,
	}
	if len(o.EIP1559Params) == 8 {
		p := eth.Bytes8(o.EIP1559Params)
		a.EIP1559Params = &p
	}
	if len(o.MinBaseFee) == 1 {
		fee := o.MinBaseFee[0]
		a.MinBaseFee = &fee
	}
	for _, tx := range o.Deposits {
		a.Transactions = append(a.Transactions, tx)
	}
	return a
}

// Parent is the block the opening builds on.
func (o *Opening) Parent() eth.BlockID {
	return eth.BlockID{Hash: o.ParentHash, Number: o.ParentNumber}
}
