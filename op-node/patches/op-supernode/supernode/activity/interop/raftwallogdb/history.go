package raftwallogdb

import (
	"fmt"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
)

// LogHashes are those of a sealed block's logs, 32 bytes each, by their index: what
// Contains compares with, for callers that ask about many logs of a block. Errors are
// those of FindSealedBlock.
func (d *DB) LogHashes(number uint64) (messages.BlockSeal, []byte, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.hasBlocks || number > d.latest.Number {
		return messages.BlockSeal{}, nil, interop.ErrFuture
	}
	if number < d.firstBlock {
		return messages.BlockSeal{}, nil, interop.ErrSkipped
	}
	rec, err := d.readBlockAt(indexFor(number))
	if err != nil {
		return messages.BlockSeal{}, nil, err
	}
	hashes := append(make([]byte, 0, len(rec.hashes)+16), rec.hashes...) // callers may append a little
	return messages.BlockSeal{Hash: rec.Hash, Number: number, Timestamp: rec.Timestamp}, hashes, nil
}

// Prune deletes the blocks below a number, but never the latest. Files are deleted whole:
// space comes free once all their blocks are gone. It is durable when it returns.
func (d *DB) Prune(below uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.hasBlocks || below <= d.firstBlock {
		return nil
	}
	below = min(below, d.latest.Number)
	first, err := d.w.FirstIndex()
	if err != nil {
		return fmt.Errorf("FirstIndex: %w", err)
	}
	if first < indexFor(below) {
		if err := d.w.DeleteRange(first, indexFor(below)-1); err != nil {
			return fmt.Errorf("failed to prune raft-wal below block %d: %w", below, err)
		}
	}
	d.firstBlock = below
	return nil
}
