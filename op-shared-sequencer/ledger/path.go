package ledger

import (
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Ancestor is the block of a number that a chain's head is, or descends from through
// logged blocks. It is false above the head, and where the log does not reach: the
// parent of a run's first block is still named, blocks below it are not.
func (l *Ledger) Ancestor(chain sequence.ChainID, number uint64) (eth.BlockID, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.state.chains[chain]
	if c == nil {
		return eth.BlockID{}, false
	}
	id := c.head
	for id.Number > number {
		b, ok := c.blocks[id.Hash]
		if !ok {
			return eth.BlockID{}, false
		}
		id = eth.BlockID{Hash: b.parent, Number: id.Number - 1}
	}
	return id, id.Number == number
}
