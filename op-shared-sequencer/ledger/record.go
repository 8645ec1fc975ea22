package ledger

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Record is a sealed slot: what was agreed, and the blocks that came of it.
type Record struct {
	// Subblocks of the slot in order, from index 0 to the one that seals it.
	Subblocks []*sequence.Subblock
	// Payloads are the sealed blocks. A chain that was sealed may be missing if this
	// operator does not have its block; each payload there is must be one of the seals'.
	Payloads map[sequence.ChainID]*eth.ExecutionPayloadEnvelope
	// Agreement covers the subblocks: the rotation's votes, opaque here, empty if there are none.
	Agreement []byte
}

// Slot of the record, which must have subblocks.
func (r *Record) Slot() sequence.Slot { return r.Subblocks[0].Slot }

// Check says whether the record is well formed on its own.
func (r *Record) Check() error {
	if len(r.Subblocks) == 0 {
		return fmt.Errorf("%w: it has no subblocks", ErrBadRecord)
	}
	slot := r.Slot()
	for i, s := range r.Subblocks {
		if err := s.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrBadRecord, err)
		}
		if s.Slot != slot || s.Index != uint64(i) {
			return fmt.Errorf("%w: subblock %d of slot %d stands where %d of slot %d is expected", ErrBadRecord, s.Index, s.Slot, i, slot)
		}
		if i > 0 && s.Parent != r.Subblocks[i-1].Hash() {
			return fmt.Errorf("%w: subblock %d of slot %d does not follow the one before it", ErrBadRecord, i, slot)
		}
		if s.Last() != (i == len(r.Subblocks)-1) {
			return fmt.Errorf("%w: the last subblock of slot %d must seal it, and no other", ErrBadRecord, slot)
		}
	}
	sealed := map[sequence.ChainID]sequence.Seal{}
	for _, s := range r.Subblocks[len(r.Subblocks)-1].Seals {
		sealed[s.Chain] = s
	}
	for _, chain := range slices.Sorted(maps.Keys(r.Payloads)) {
		env := r.Payloads[chain]
		if env == nil || env.ExecutionPayload == nil {
			return fmt.Errorf("%w: chain %s, slot %d: the payload is missing", ErrBadRecord, chain, slot)
		}
		p := env.ExecutionPayload
		seal, ok := sealed[chain]
		if !ok || (seal.BlockHash != p.BlockHash && !seal.Deferred()) || seal.Number != uint64(p.BlockNumber) {
			return fmt.Errorf("%w: chain %s: block %s is not one that slot %d seals", ErrBadRecord, chain, p.ID(), slot)
		}
		if uint64(p.Timestamp) != uint64(slot) {
			return fmt.Errorf("%w: chain %s: block %s has timestamp %d in slot %d", ErrBadRecord, chain, p.ID(), uint64(p.Timestamp), slot)
		}
	}
	return nil
}

// Kinds of bodies.
const (
	kindState   byte = iota + 1 // the log's state where a segment begins
	kindSlot                    // a Record
	kindRewind                  // a chain went back
	kindPrune                   // a chain's blocks below a number are no longer needed
	kindAdvance                 // a chain came to an agreed block that the log holds already
	kindMade                    // a chain came to an agreed block whose payload its slot's record lacks
	kindFinal                   // a chain's block is final on L1
)

// stateBody is the RLP content of kindState.
type stateBody struct {
	Slot   sequence.Slot // of the newest record
	Last   common.Hash   // the newest record's last subblock; zero if there was none
	Chains []chainState  // ascending by chain
}

type chainState struct {
	Chain sequence.ChainID
	Head  common.Hash
	// Number and Time of the head; Time is 0 if it is not known.
	Number, Time uint64
	Below        uint64 // blocks below were pruned
	// Final is the newest block that is known to be final on L1; zero if none is.
	Final       common.Hash
	FinalNumber uint64
}

// rewindBody is the RLP content of kindRewind and kindAdvance.
type rewindBody struct {
	Chain        sequence.ChainID
	Hash         common.Hash
	Number, Time uint64 // Time is 0 if it is not known
}

// finalBody is the RLP content of kindFinal.
type finalBody struct {
	Chain  sequence.ChainID
	Hash   common.Hash
	Number uint64
}

// pruneBody is the RLP content of kindPrune.
type pruneBody struct {
	Chain sequence.ChainID
	Below uint64
}

// madeIndex stands in front of the payload of kindMade: size [4] ‖ RLP of madeIndex ‖ payload.
type madeIndex struct {
	Slot    sequence.Slot
	Payload payloadIndex
}

func encodeMade(chain sequence.ChainID, env *eth.ExecutionPayloadEnvelope) ([]byte, madeIndex, error) {
	var content bytes.Buffer
	form, err := encodePayload(&content, env)
	if err != nil {
		return nil, madeIndex{}, err
	}
	p := env.ExecutionPayload
	idx := madeIndex{sequence.Slot(p.Timestamp), payloadIndex{
		Chain: chain, Hash: p.BlockHash, Parent: p.ParentHash, Number: uint64(p.BlockNumber), Form: form, Size: uint64(content.Len()),
	}}
	enc, err := rlp.EncodeToBytes(&idx)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	body := append([]byte{kindMade}, binary.LittleEndian.AppendUint32(nil, uint32(len(enc)))...)
	return append(append(body, enc...), content.Bytes()...), idx, nil
}

// decodeMade reads the index of what encodeMade wrote, and gives the payload's bytes.
func decodeMade(body []byte) (idx madeIndex, payload []byte, err error) {
	if len(body) < 5 || body[0] != kindMade {
		return idx, nil, errors.New("not the record of a payload")
	}
	size, rest := binary.LittleEndian.Uint32(body[1:]), body[5:]
	if uint64(size) > uint64(len(rest)) {
		return idx, nil, errors.New("the index of a payload is cut off")
	}
	if err := rlp.DecodeBytes(rest[:size], &idx); err != nil {
		return idx, nil, fmt.Errorf("the index of a payload: %w", err)
	}
	if idx.Payload.Size != uint64(len(rest))-uint64(size) {
		return idx, nil, fmt.Errorf("chain %s: the size in the index of payload %s is not the record's", idx.Payload.Chain, idx.Payload.Hash)
	}
	return idx, rest[size:], nil
}

// slotIndex stands in front of a slot record's content, so that opening a log need not
// decode the rest: size [4] ‖ RLP of slotIndex ‖ subblocks ‖ payloads ‖ agreement.
type slotIndex struct {
	Slot      sequence.Slot
	Parent    common.Hash // of the first subblock
	Last      common.Hash // the last subblock
	Subblocks []uint64    // sizes in bytes
	Openings  []openingIndex
	Payloads  []payloadIndex
	Agreement uint64 // size in bytes
}

// openingIndex says which block a chain has in the slot, and on what, whether this operator
// has it or not.
type openingIndex struct {
	Chain  sequence.ChainID
	Parent common.Hash
	Number uint64 // the block's
}

type payloadIndex struct {
	Chain        sequence.ChainID
	Hash, Parent common.Hash
	Number       uint64
	Form         payloadForm
	Size         uint64 // bytes
}

func encodeBody(kind byte, content any) []byte {
	enc, err := rlp.EncodeToBytes(content)
	if err != nil { // every content has an RLP form
		panic(err)
	}
	return append([]byte{kind}, enc...)
}

// encodeRecord gives the body of a record that was checked, and its index.
func encodeRecord(r *Record) ([]byte, *slotIndex, error) {
	last := r.Subblocks[len(r.Subblocks)-1]
	idx := &slotIndex{
		Slot: r.Slot(), Parent: r.Subblocks[0].Parent, Last: last.Hash(), Agreement: uint64(len(r.Agreement)),
	}
	for _, o := range r.Subblocks[0].Openings {
		idx.Openings = append(idx.Openings, openingIndex{o.Chain, o.ParentHash, o.ParentNumber + 1})
	}
	var content bytes.Buffer
	for _, s := range r.Subblocks {
		enc := s.Encode()
		idx.Subblocks = append(idx.Subblocks, uint64(len(enc)))
		content.Write(enc)
	}
	for _, chain := range slices.Sorted(maps.Keys(r.Payloads)) {
		env := r.Payloads[chain]
		before := content.Len()
		form, err := encodePayload(&content, env)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: chain %s, slot %d: %w", ErrBadRecord, chain, r.Slot(), err)
		}
		p := env.ExecutionPayload
		idx.Payloads = append(idx.Payloads, payloadIndex{
			Chain: chain, Hash: p.BlockHash, Parent: p.ParentHash, Number: uint64(p.BlockNumber),
			Form: form, Size: uint64(content.Len() - before),
		})
	}
	enc, err := rlp.EncodeToBytes(idx)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	body := make([]byte, 0, 1+4+len(enc)+content.Len()+len(r.Agreement))
	body = append(body, kindSlot)
	body = binary.LittleEndian.AppendUint32(body, uint32(len(enc)))
	body = append(body, enc...)
	body = append(body, content.Bytes()...)
	return append(body, r.Agreement...), idx, nil
}

// decodeIndex reads the index of a slot record's body and gives the content behind it.
func decodeIndex(body []byte) (*slotIndex, []byte, error) {
	if len(body) < 5 || body[0] != kindSlot {
		return nil, nil, errors.New("not a slot record")
	}
	size, rest := binary.LittleEndian.Uint32(body[1:]), body[5:]
	if uint64(size) > uint64(len(rest)) {
		return nil, nil, errors.New("the index of the slot record is cut off")
	}
	idx := new(slotIndex)
	if err := rlp.DecodeBytes(rest[:size], idx); err != nil {
		return nil, nil, fmt.Errorf("the index of the slot record: %w", err)
	}
	content := rest[size:]
	left := uint64(len(content))
	take := func(size uint64) bool {
		ok := size <= left
		left -= min(size, left)
		return ok
	}
	ok := len(idx.Subblocks) > 0
	for _, size := range idx.Subblocks {
		ok = take(size) && ok
	}
	for _, p := range idx.Payloads {
		ok = take(p.Size) && ok
	}
	if ok = take(idx.Agreement) && ok; !ok || left != 0 {
		return nil, nil, fmt.Errorf("slot %d: the sizes in the index do not add up to the record's", idx.Slot)
	}
	if !slices.IsSortedFunc(idx.Payloads, func(a, b payloadIndex) int { return cmp.Compare(a.Chain, b.Chain) }) {
		return nil, nil, fmt.Errorf("slot %d: the index is not ascending by chain", idx.Slot)
	}
	return idx, content, nil
}

// decodeRecord reads what encodeRecord wrote.
func decodeRecord(body []byte) (*Record, error) {
	idx, content, err := decodeIndex(body)
	if err != nil {
		return nil, err
	}
	next := func(size uint64) []byte {
		part := content[:size]
		content = content[size:]
		return part
	}
	r := &Record{Payloads: make(map[sequence.ChainID]*eth.ExecutionPayloadEnvelope, len(idx.Payloads))}
	for _, size := range idx.Subblocks {
		s, err := sequence.DecodeSubblock(next(size))
		if err != nil {
			return nil, fmt.Errorf("slot %d: %w", idx.Slot, err)
		}
		r.Subblocks = append(r.Subblocks, s)
	}
	for _, p := range idx.Payloads {
		env, err := decodePayload(p, idx.Slot, next(p.Size))
		if err != nil {
			return nil, err
		}
		r.Payloads[p.Chain] = env
	}
	if idx.Agreement > 0 {
		r.Agreement = bytes.Clone(next(idx.Agreement))
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	if len(r.Payloads) != len(idx.Payloads) || r.Slot() != idx.Slot || r.Subblocks[0].Parent != idx.Parent ||
		r.Subblocks[len(r.Subblocks)-1].Hash() != idx.Last {
		return nil, fmt.Errorf("slot %d: the index does not belong to the record", idx.Slot)
	}
	return r, nil
}

// decodePayloadOf reads one chain's payload of a record.
func decodePayloadOf(body []byte, chain sequence.ChainID) (*eth.ExecutionPayloadEnvelope, error) {
	idx, content, err := decodeIndex(body)
	if err != nil {
		return nil, err
	}
	for _, size := range idx.Subblocks {
		content = content[size:]
	}
	for _, p := range idx.Payloads {
		if p.Chain == chain {
			return decodePayload(p, idx.Slot, content[:p.Size])
		}
		content = content[p.Size:]
	}
	return nil, fmt.Errorf("slot %d has no payload of chain %s", idx.Slot, chain)
}

// payloadForm says how a payload is written: upstream's SSZ of a block version.
type payloadForm uint64

const (
	formV3 payloadForm = 3 // from Ecotone
	formV4 payloadForm = 4 // from Isthmus
	// formV4Empty is a block from Isthmus on whose withdrawals root is the empty trie's,
	// which a chain has until its first withdrawal. Upstream's encoder takes it for a V3
	// and leaves the root out, and the block would come back with another hash.
	formV4Empty payloadForm = 5
)

// encodePayload writes the SSZ of a payload that can be read back exactly.
func encodePayload(w *bytes.Buffer, env *eth.ExecutionPayloadEnvelope) (payloadForm, error) {
	p := env.ExecutionPayload
	switch {
	case env.ParentBeaconBlockRoot == nil || p.Withdrawals == nil || p.BlobGasUsed == nil || p.ExcessBlobGas == nil:
		return 0, fmt.Errorf("block %s lacks the fields that every block has since Ecotone", p.ID())
	case len(*p.Withdrawals) != 0:
		return 0, fmt.Errorf("block %s has withdrawals, which no block of the OP Stack has", p.ID())
	case len(p.ExtraData) > 32:
		return 0, fmt.Errorf("block %s has %d bytes of extra data, at most 32 can be", p.ID(), len(p.ExtraData))
	case len(p.Transactions) > 1<<20:
		return 0, fmt.Errorf("block %s has %d transactions, at most %d can be", p.ID(), len(p.Transactions), 1<<20)
	}
	form := formV3
	if p.WithdrawalsRoot != nil {
		form = formV4
		if *p.WithdrawalsRoot == types.EmptyWithdrawalsHash {
			form = formV4Empty
		}
	}
	_, err := env.MarshalSSZ(w)
	return form, err
}

func decodePayload(idx payloadIndex, slot sequence.Slot, data []byte) (*eth.ExecutionPayloadEnvelope, error) {
	version := eth.BlockV3
	switch idx.Form {
	case formV3, formV4Empty:
	case formV4:
		version = eth.BlockV4
	default:
		return nil, fmt.Errorf("chain %s, slot %d: unknown form %d of a payload", idx.Chain, slot, idx.Form)
	}
	env := new(eth.ExecutionPayloadEnvelope)
	if err := env.UnmarshalSSZ(version, uint32(len(data)), bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("chain %s, slot %d: decode the payload: %w", idx.Chain, slot, err)
	}
	p := env.ExecutionPayload
	if idx.Form == formV4Empty {
		root := types.EmptyWithdrawalsHash
		p.WithdrawalsRoot = &root
	}
	if p.BlockHash != idx.Hash || p.ParentHash != idx.Parent || uint64(p.BlockNumber) != idx.Number {
		return nil, fmt.Errorf("chain %s, slot %d: the index names block %s, the payload is %s",
			idx.Chain, slot, eth.BlockID{Hash: idx.Hash, Number: idx.Number}, p.ID())
	}
	return env, nil
}
