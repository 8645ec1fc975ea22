package drill

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

// block is a block of an operator's final chain.
type block struct {
	Number hexutil.Uint64 `json:"number"`
	Hash   common.Hash    `json:"hash"`
	Parent common.Hash    `json:"parentHash"`
	Time   hexutil.Uint64 `json:"timestamp"`
	Txs    []common.Hash  `json:"transactions"`
}

// readBatch is how many blocks or receipts are asked for at a time.
const readBatch = 100

// readChain reads a chain from block 1 to a number, in order.
func readChain(ctx context.Context, url string, to uint64) ([]block, error) {
	c, err := rpc.DialContext(ctx, url)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	blocks := make([]block, to)
	for from := uint64(0); from < to; from += readBatch {
		var batch []rpc.BatchElem
		for i := from; i < min(from+readBatch, to); i++ {
			batch = append(batch, rpc.BatchElem{Method: "eth_getBlockByNumber", Args: []any{hexutil.Uint64(i + 1), false}, Result: &blocks[i]})
		}
		if err := c.BatchCallContext(ctx, batch); err != nil {
			return nil, err
		}
		for i, e := range batch {
			if e.Error != nil {
				return nil, fmt.Errorf("block %d: %w", from+uint64(i)+1, e.Error)
			}
		}
	}
	return blocks, nil
}

// readStatuses reads what became of transactions: the status of each one's receipt. Those
// without a receipt are missing.
func readStatuses(ctx context.Context, url string, txs []common.Hash) (map[common.Hash]uint64, error) {
	c, err := rpc.DialContext(ctx, url)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	type receipt struct {
		Status hexutil.Uint64 `json:"status"`
	}
	out := map[common.Hash]uint64{}
	for from := 0; from < len(txs); from += readBatch {
		part := txs[from:min(from+readBatch, len(txs))]
		receipts := make([]*receipt, len(part))
		batch := make([]rpc.BatchElem, len(part))
		for i, tx := range part {
			batch[i] = rpc.BatchElem{Method: "eth_getTransactionReceipt", Args: []any{tx}, Result: &receipts[i]}
		}
		if err := c.BatchCallContext(ctx, batch); err != nil {
			return nil, err
		}
		for i, e := range batch {
			if e.Error != nil {
				return nil, fmt.Errorf("receipt of %s: %w", part[i], e.Error)
			}
			if receipts[i] != nil {
				out[part[i]] = uint64(receipts[i].Status)
			}
		}
	}
	return out, nil
}

// slot is a record of an operator's ledger.
type slot struct {
	Slot      uint64
	Parent    common.Hash   // what its first subblock follows
	Subblocks []common.Hash // in order
	Blocks    map[uint64]sealed
	Bundles   []common.Hash // in order
	// Agreement has the votes for its subblocks, as this operator saw them.
	Agreement *cometbft.Agreement
}

// sealed is a chain's block of a slot.
type sealed struct {
	Number uint64
	Hash   common.Hash // zero: the record leaves it open
}

// readLedger reads the ledger of an operator that is stopped.
func readLedger(o *devnet.Operator, l log.Logger) (_ []slot, err error) {
	led, err := ledger.Open(o.LedgerDir(), l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	var out []slot
	for r, err := range led.Slots(0) {
		if err != nil {
			return nil, err
		}
		s, err := readSlot(r)
		if err != nil {
			return nil, fmt.Errorf("slot %d: %w", r.Slot(), err)
		}
		out = append(out, s)
	}
	return out, nil
}

func readSlot(r *ledger.Record) (slot, error) {
	s := slot{Slot: uint64(r.Slot()), Parent: r.Subblocks[0].Parent, Blocks: map[uint64]sealed{}}
	for _, sub := range r.Subblocks {
		s.Subblocks = append(s.Subblocks, sub.Hash())
		for steps := range sub.Bundles() {
			s.Bundles = append(s.Bundles, steps[0].Bundle)
		}
	}
	for _, seal := range r.Subblocks[len(r.Subblocks)-1].Seals {
		b := sealed{Number: seal.Number, Hash: seal.BlockHash}
		if p := r.Payloads[seal.Chain]; p != nil {
			b.Hash = p.ExecutionPayload.BlockHash
		}
		s.Blocks[uint64(seal.Chain)] = b
	}
	var err error
	s.Agreement, err = cometbft.DecodeAgreement(r.Agreement)
	return s, err
}

func ether(n int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(1e18)) }
