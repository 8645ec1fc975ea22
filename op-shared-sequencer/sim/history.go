package sim

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// history is executor/history without a disk: it has every block from the first on.
type history struct {
	chains map[sequence.ChainID]*chainHistory
}

type chainHistory struct{ blocks []historyBlock } // by number, the first is genesis

type historyBlock struct {
	ref  eth.BlockRef
	logs []executor.Log
}

var _ executor.History = (*history)(nil)

func newHistory(chains []sequence.ChainID) *history {
	h := &history{chains: map[sequence.ChainID]*chainHistory{}}
	for _, id := range chains {
		h.chains[id] = &chainHistory{}
	}
	return h
}

func (h *history) Contains(chain sequence.ChainID, head eth.BlockID, q messages.ContainsQuery) error {
	c := h.chains[chain]
	if head.Number >= uint64(len(c.blocks)) || c.blocks[head.Number].ref.Hash != head.Hash {
		return fmt.Errorf("%w: chain %s has no block %s", executor.ErrHistoryIncomplete, chain, head)
	}
	if q.BlockNum > head.Number {
		return fmt.Errorf("%w: block %d is behind the newest", executor.ErrNoSuchMessage, q.BlockNum)
	}
	b := c.blocks[q.BlockNum]
	if b.ref.Time != q.Timestamp || uint64(q.LogIdx) >= uint64(len(b.logs)) {
		return fmt.Errorf("%w: block %d log %d", executor.ErrNoSuchMessage, q.BlockNum, q.LogIdx)
	}
	sum := messages.ChecksumArgs{
		BlockNumber: q.BlockNum, LogIndex: q.LogIdx, Timestamp: q.Timestamp, ChainID: chain.ID(), LogHash: b.logs[q.LogIdx].Hash(),
	}.Checksum()
	if sum != q.Checksum {
		return fmt.Errorf("%w: block %d log %d has another checksum", executor.ErrNoSuchMessage, q.BlockNum, q.LogIdx)
	}
	return nil
}

func (h *history) Head(chain sequence.ChainID) (eth.BlockRef, bool) {
	if b := h.chains[chain].blocks; len(b) > 0 {
		return b[len(b)-1].ref, true
	}
	return eth.BlockRef{}, false
}

func (h *history) Append(_ context.Context, chain sequence.ChainID, block eth.BlockRef, logs []executor.Log) error {
	c := h.chains[chain]
	n := block.Number
	if n < uint64(len(c.blocks)) && c.blocks[n].ref.Hash == block.Hash {
		return nil
	}
	if n > uint64(len(c.blocks)) || (n > 0 && c.blocks[n-1].ref.Hash != block.ParentHash) {
		return fmt.Errorf("%w: %s", executor.ErrNotLinked, block)
	}
	c.blocks = append(c.blocks[:n:n], historyBlock{block, logs})
	return nil
}

func (h *history) Rewind(chain sequence.ChainID, to eth.BlockID) error {
	c := h.chains[chain]
	if to.Number >= uint64(len(c.blocks)) || c.blocks[to.Number].ref.Hash != to.Hash {
		return fmt.Errorf("%w: %s", executor.ErrNotLinked, to)
	}
	c.blocks = c.blocks[:to.Number+1]
	return nil
}

func (h *history) Sync(ctx context.Context, chain sequence.ChainID, src executor.Source) error {
	c := h.chains[chain]
	head, err := src.Head(ctx)
	if err != nil {
		return err
	}
	shared := min(uint64(len(c.blocks)), head.Number+1)
	for ; shared > 0; shared-- {
		b, err := src.Block(ctx, shared-1)
		if err != nil {
			return err
		}
		if b.Hash == c.blocks[shared-1].ref.Hash {
			break
		}
	}
	c.blocks = c.blocks[:shared]
	for n := shared; n <= head.Number; n++ {
		b, err := src.Block(ctx, n)
		if err != nil {
			return err
		}
		var receipts types.Receipts
		if n > 0 {
			if receipts, err = src.Receipts(ctx, b.Hash); err != nil {
				return err
			}
		}
		if err := h.Append(ctx, chain, b, executor.Logs(receipts)); err != nil {
			return err
		}
	}
	return nil
}
