package sequencer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// ErrNoSlot: no slot has been opened yet on which a bundle could be simulated.
var ErrNoSlot = errors.New("no slot is open yet")

// opened is what a simulation needs of a slot: where and with what its blocks start.
type opened struct {
	slot   sequence.Slot
	blocks map[sequence.ChainID]openedBlock
}

type openedBlock struct {
	chain  *chain
	parent eth.BlockID
	attrs  *eth.PayloadAttributes
}

func (sl *slot) opened() *opened {
	o := &opened{slot: sl.time, blocks: make(map[sequence.ChainID]openedBlock, len(sl.blocks))}
	for _, b := range sl.blocks {
		o.blocks[b.id] = openedBlock{b.chain, b.opening.Parent(), b.attrs}
	}
	return o
}

// Simulate runs a bundle in sessions of its own, on the blocks that the newest slot
// started from, and discards them. Transactions that wait in the pools are not seen.
func (s *Sequencer) Simulate(ctx context.Context, b *sequence.Bundle) (*bundlepool.BundleResult, error) {
	s.mu.Lock()
	o := s.open
	s.mu.Unlock()
	if o == nil {
		return nil, ErrNoSlot
	}
	parents := map[sequence.ChainID]eth.BlockID{}
	for _, id := range b.Chains() {
		at, ok := o.blocks[id]
		if !ok {
			return nil, fmt.Errorf("chain %s has no block in slot %d: %w", id, o.slot, ErrNoSlot)
		}
		if at.attrs.NoTxPool {
			return nil, fmt.Errorf("the block of chain %s in slot %d takes no user transactions", id, o.slot)
		}
		parents[id] = at.parent
	}
	check := s.executor.Begin(o.slot, parents)
	blocks := map[sequence.ChainID]*builder.Block{}
	defer discardAll(blocks)
	for id := range parents {
		at := o.blocks[id]
		session, err := at.chain.engine.Open(ctx, at.parent, at.attrs)
		if err != nil {
			return nil, fmt.Errorf("opening a session to simulate in: %w", err)
		}
		blocks[id] = &builder.Block{Chain: id, Session: session}
		txs, err := builder.Checked(session.Forced())
		if err != nil {
			return nil, fmt.Errorf("chain %s: %w", id, err)
		}
		if err := check.Apply(id, txs); err != nil {
			return nil, err
		}
	}
	at := builder.Attempt{Slot: o.slot, Blocks: blocks, Check: check, Relayer: s.relayer}
	out, _, err := at.Run(ctx, b, nil)
	if err != nil {
		return nil, err
	}
	next := map[sequence.ChainID]uint64{}
	for i := range out.Result.Items {
		it := &out.Result.Items[i]
		it.Position = uint64(len(blocks[it.Chain].Session.Forced())) + next[it.Chain]
		next[it.Chain]++
	}
	return &out.Result, nil
}

// standing finds the transactions of a bundle that stand in blocks although others of
// its blocks were replaced. An invalidation leaves such halves; after an L1 reorg the chains
// go back together, one milliseconds after the other.
func (sl *slot) standing(ctx context.Context, hash common.Hash) ([]builder.Kept, error) {
	s := sl.s
	st, err := s.bundles.Status(hash)
	if err != nil || st.Undone == 0 {
		return nil, err
	}
	e, ok := s.bundles.Get(hash)
	if !ok {
		return nil, fmt.Errorf("%w %s", bundlepool.ErrUnknownBundle, hash)
	}
	var kept []builder.Kept
	for _, it := range st.Items {
		b := sl.block(it.Chain)
		if b == nil || it.BlockNumber > b.head.Number {
			continue // above what is built on, although the engine may go on to name it
		}
		block, err := b.blockAt(ctx, it.BlockNumber)
		if err != nil {
			return nil, fmt.Errorf("block %d of chain %s: %w", it.BlockNumber, it.Chain, err)
		}
		receipts, err := s.byID[it.Chain].engine.Receipts(ctx, block.Hash)
		if err != nil {
			return nil, fmt.Errorf("receipts of block %s of chain %s: %w", block.ID(), it.Chain, err)
		}
		for _, r := range receipts {
			if r.TxHash == it.TxHash && (r.Status == types.ReceiptStatusSuccessful || e.Bundle.Items[it.Item].MayRevert) {
				it.Logs, it.Status = r.Logs, r.Status
				kept = append(kept, builder.Kept{ItemResult: it, Slot: sequence.Slot(block.Time)})
			}
		}
	}
	return kept, nil
}

// discardAll ends sessions, also when the caller's context is over.
func discardAll(blocks map[sequence.ChainID]*builder.Block) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, b := range blocks {
		_ = b.Session.Discard(ctx) // what is left of it expires in the engine
	}
}
