package stream

import (
	"encoding/json"
	"math/big"
	"strconv"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// The Subblocks (formerly Flashblocks) wire format of one chain, as op-alloy's
// rpc-types-engine has it (OpFlashblockPayload) and the specification names it
// (protocol/flashblocks.md: FlashblocksPayloadV1, ExecutionPayloadFlashblockDeltaV1).
type (
	wirePartial struct {
		PayloadID hexutil.Bytes `json:"payload_id"` // 8 bytes, the same over a block
		Index     uint64        `json:"index"`      // in the block, from 0
		Base      *wireBase     `json:"base,omitempty"`
		Diff      wireDelta     `json:"diff"`
		Metadata  wireMetadata  `json:"metadata"`
	}

	// wireBase is what stays the same over a block; it comes with index 0.
	wireBase struct {
		ParentBeaconRoot common.Hash    `json:"parent_beacon_block_root"`
		ParentHash       common.Hash    `json:"parent_hash"`
		FeeRecipient     common.Address `json:"fee_recipient"`
		PrevRandao       common.Hash    `json:"prev_randao"`
		BlockNumber      hexutil.Uint64 `json:"block_number"`
		GasLimit         hexutil.Uint64 `json:"gas_limit"`
		Timestamp        hexutil.Uint64 `json:"timestamp"`
		ExtraData        hexutil.Bytes  `json:"extra_data"`
		BaseFeePerGas    *hexutil.Big   `json:"base_fee_per_gas"`
	}

	// wireDelta is the block so far, but for the transactions, which are those that came now.
	// The hashes of the state, of withdrawals and of the block are zero until the slot's last
	// subblock: nobody works them out before the block is sealed.
	wireDelta struct {
		StateRoot       common.Hash         `json:"state_root"`
		ReceiptsRoot    common.Hash         `json:"receipts_root"`
		LogsBloom       types.Bloom         `json:"logs_bloom"`
		GasUsed         hexutil.Uint64      `json:"gas_used"`
		BlockHash       common.Hash         `json:"block_hash"`
		Transactions    []hexutil.Bytes     `json:"transactions"`
		Withdrawals     []*types.Withdrawal `json:"withdrawals"`
		WithdrawalsRoot common.Hash         `json:"withdrawals_root"`
		BlobGasUsed     *hexutil.Uint64     `json:"blob_gas_used,omitempty"` // the DA footprint, since Jovian
	}

	// wireMetadata has no balances: those who want them run the transactions, as clients do that
	// serve the tag pending. The engines of this operator do.
	wireMetadata struct {
		BlockNumber        uint64                             `json:"block_number"`
		NewAccountBalances map[common.Address]*hexutil.Big    `json:"new_account_balances"`
		Receipts           map[common.Hash]wirePartialReceipt `json:"receipts"`
	}

	wirePartialReceipt struct {
		Type              string         `json:"type"`
		Status            hexutil.Uint64 `json:"status"`
		CumulativeGasUsed hexutil.Uint64 `json:"cumulativeGasUsed"`
		Logs              []wireLog      `json:"logs"`
	}

	wireLog struct {
		Address common.Address `json:"address"`
		Topics  []common.Hash  `json:"topics"`
		Data    hexutil.Bytes  `json:"data"`
	}
)

// Partial is what the subblock adds to one chain, in the Subblocks wire format: see
// wirePartial. nil if the chain is not in the subblock, if this operator has not run it, or if
// this process has not seen the slot from its beginning: a reader could do nothing with it.
func (s *Subblock) Partial(chain sequence.ChainID) json.RawMessage {
	made, _ := s.partial.LoadOrStore(chain, sync.OnceValue(func() json.RawMessage {
		w := s.wirePartial(chain)
		if w == nil {
			return nil
		}
		return mustJSON(w)
	}))
	return made.(func() json.RawMessage)()
}

func (s *Subblock) wirePartial(chain sequence.ChainID) *wirePartial {
	// The slot so far, from its first subblock.
	var slot []*part
	var first *Subblock
	for at := s; at != nil; at = at.before {
		p := at.part(chain)
		if p == nil || p.ran == nil || p.header == nil {
			return nil
		}
		slot, first = append([]*part{p}, slot...), at
	}
	if first.Subblock.Index != 0 {
		return nil
	}
	p := slot[len(slot)-1]
	id := crypto.Keccak256(first.Hash[:], []byte(strconv.FormatUint(uint64(chain), 10)))
	out := &wirePartial{
		PayloadID: id[:8], Index: s.Subblock.Index,
		Diff: wireDelta{
			ReceiptsRoot: p.result.ReceiptsRoot, GasUsed: hexutil.Uint64(p.result.GasUsed),
			Transactions: []hexutil.Bytes{}, Withdrawals: []*types.Withdrawal{}, BlobGasUsed: footprint(slot),
		},
		Metadata: wireMetadata{BlockNumber: p.number, NewAccountBalances: map[common.Address]*hexutil.Big{}, Receipts: map[common.Hash]wirePartialReceipt{}},
	}
	if s.before == nil {
		out.Base = s.base(p)
	}
	for _, part := range slot {
		for i := range part.ran {
			bloom := types.CreateBloom(&types.Receipt{Logs: part.ran[i].Logs})
			for n := range bloom {
				out.Diff.LogsBloom[n] |= bloom[n]
			}
		}
	}
	gas := p.gas
	for i, raw := range p.raw {
		r := &p.ran[i]
		gas += r.GasUsed
		out.Diff.Transactions = append(out.Diff.Transactions, raw)
		receipt := wirePartialReceipt{Type: typeOf(raw), Status: hexutil.Uint64(r.Status), CumulativeGasUsed: hexutil.Uint64(gas), Logs: []wireLog{}}
		for _, l := range r.Logs {
			receipt.Logs = append(receipt.Logs, wireLog{l.Address, append([]common.Hash{}, l.Topics...), l.Data})
		}
		out.Metadata.Receipts[r.Hash] = receipt
	}
	if p.sealed != nil {
		sealed := p.sealed.Sealed.ExecutionPayload
		out.Diff.StateRoot, out.Diff.BlockHash = common.Hash(sealed.StateRoot), sealed.BlockHash
		if sealed.WithdrawalsRoot != nil {
			out.Diff.WithdrawalsRoot = *sealed.WithdrawalsRoot
		}
		if sealed.BlobGasUsed != nil {
			out.Diff.BlobGasUsed = sealed.BlobGasUsed
		}
	}
	return out
}

// base is what the opening of a chain's block says of it.
func (s *Subblock) base(p *part) *wireBase {
	for i := range s.Subblock.Openings {
		o := &s.Subblock.Openings[i]
		if o.Chain == p.chain {
			return &wireBase{
				ParentBeaconRoot: o.ParentBeaconRoot, ParentHash: o.ParentHash, FeeRecipient: o.FeeRecipient, PrevRandao: o.PrevRandao,
				BlockNumber: hexutil.Uint64(p.number), GasLimit: hexutil.Uint64(p.header.GasLimit), Timestamp: hexutil.Uint64(s.Subblock.Slot),
				ExtraData: p.header.Extra, BaseFeePerGas: (*hexutil.Big)(new(big.Int).Set(p.header.BaseFee)),
			}
		}
	}
	return nil
}

// typeOf is the type of a transaction, as receipts have it.
func typeOf(raw []byte) string {
	if len(raw) == 0 || raw[0] > 0x7f { // a list: no type byte
		return "0x0"
	}
	return hexutil.EncodeUint64(uint64(raw[0]))
}

// footprint is the DA footprint of a block so far, nil if it has none: before Jovian.
func footprint(slot []*part) *hexutil.Uint64 {
	var txs []*types.Transaction
	for _, p := range slot {
		for _, raw := range p.raw {
			tx := new(types.Transaction)
			if err := tx.UnmarshalBinary(raw); err != nil {
				return nil
			}
			txs = append(txs, tx)
		}
	}
	sum, err := types.CalcDAFootprint(txs)
	if err != nil {
		return nil
	}
	return (*hexutil.Uint64)(&sum)
}
