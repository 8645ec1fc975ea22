package history

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const (
	progressEvery = 2_000 // blocks
	// maxReorgs bounds how often Sync begins again without having come further.
	maxReorgs = 16
)

// Sync brings a chain's history to the head of the source: it checks the chain of block
// hashes in the database, compares it with the source, takes back what is damaged or not
// canonical, and adds what is missing, from the oldest message that can still be executed.
// It returns when the history is complete and ends in the source's head. Appends may run
// meanwhile; they fail with ErrNotLinked until Sync has come near. After an error it may
// be called again, and goes on where it was.
func (h *History) Sync(ctx context.Context, id sequence.ChainID, src executor.Source) error {
	c, err := h.chain(id)
	if err != nil {
		return err
	}
	if err := c.sync(ctx, src); err != nil {
		return fmt.Errorf("message history: chain %s: sync: %w", id, err)
	}
	return nil
}

func (c *chain) sync(ctx context.Context, src executor.Source) error {
	if err := c.checkLinks(ctx); err != nil {
		return err
	}
	for reorgs := 0; ; {
		head, err := src.Head(ctx)
		if err != nil {
			return fmt.Errorf("head of the chain: %w", err)
		}
		if err := c.reconcile(ctx, src, head); err != nil {
			return err
		}
		added, err := c.fill(ctx, src, head)
		if errors.Is(err, executor.ErrNotLinked) && (added > 0 || reorgs < maxReorgs) {
			reorgs++ // of the chain, while it was read
			if added > 0 {
				reorgs = 0
			}
			continue
		}
		if err != nil {
			return err
		}
		c.mu.RLock()
		at, first, complete := c.head, c.first, c.complete()
		c.mu.RUnlock()
		if !complete {
			return fmt.Errorf("%w: its first block is at %d: block time %d s or genesis time %d are not the chain's", executor.ErrHistoryIncomplete, first.Timestamp, c.cfg.BlockTime, c.cfg.GenesisTime)
		}
		if now, err := src.Head(ctx); err != nil {
			return fmt.Errorf("head of the chain: %w", err)
		} else if now.Hash == at.Hash {
			return nil
		}
	}
}

// linksPerLock is how many blocks are checked before appends get their turn: a slot
// must not wait for the whole window to be read.
const linksPerLock = 256

// checkLinks reads the whole database once after it was opened, and cuts it off where a
// block does not follow the one before.
func (c *chain) checkLinks(ctx context.Context) error {
	var next uint64 // 0: from the first block
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if next, done, err = c.checkSomeLinks(next); err != nil {
			return err
		}
	}
	return nil
}

// checkSomeLinks goes on at a block, and says where to go on next.
func (c *chain) checkSomeLinks(from uint64) (next uint64, done bool, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.db == nil {
		return 0, false, ErrClosed
	}
	if c.linked || !c.filled {
		return 0, true, nil
	}
	var last eth.BlockRef
	// One block again: it may have been replaced since.
	n := c.first.Number
	if from > n {
		n = from - 1
	}
	for first, end := n, n+linksPerLock; n <= c.head.Number; n++ {
		if n == end {
			return n, false, nil
		}
		b, _, _, err := c.db.OpenBlock(n)
		if err == nil && (n == first || (b.ParentHash == last.Hash && b.Time >= last.Time)) {
			last = b
			continue
		}
		c.log.Error("Message history is damaged, goes back", "block", n, "head", c.head, "err", err)
		if n > first && c.rewind(last.ID()) == nil {
			break
		}
		if err := c.discard(); err != nil {
			return 0, false, err
		}
		break
	}
	c.linked = true
	return 0, true, nil
}

// reconcile takes back the blocks that are not on the source's chain.
func (c *chain) reconcile(ctx context.Context, src executor.Source, head eth.BlockRef) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.db == nil {
		return ErrClosed
	}
	if !c.filled {
		return nil
	}
	// The blocks below lo are canonical, those from hi on are not.
	lo, hi := c.first.Number, c.head.Number+1
	if head.Number < hi-1 {
		hi = head.Number + 1
	}
	var shared messages.BlockSeal
	canonical := func(n uint64) (bool, error) {
		seal, err := c.db.FindSealedBlock(n)
		if err != nil {
			return false, err
		}
		b, err := src.Block(ctx, n)
		if err != nil {
			return false, fmt.Errorf("block %d: %w", n, err)
		}
		if seal.Hash == b.Hash {
			shared = seal
		}
		return seal.Hash == b.Hash, nil
	}
	for probe := hi - 1; lo < hi; probe = lo + (hi-lo)/2 { // the newest first: it is nearly always right
		ok, err := canonical(probe)
		switch {
		case err != nil:
			return err
		case ok:
			lo = probe + 1
		default:
			hi = probe
		}
	}
	begins := c.begins(c.first.Number, c.first.Timestamp, head.Time)
	if shared == (messages.BlockSeal{}) || !begins {
		c.log.Warn("Message history begins again", "first", c.first, "head", c.head, "canonical", shared != (messages.BlockSeal{}), "oldEnough", begins)
		return c.clear()
	}
	if shared.Number == c.head.Number {
		return nil
	}
	c.log.Warn("Message history goes back to the last canonical block", "from", c.head, "to", shared)
	return c.rewind(shared.ID())
}

// fill appends the blocks up to head, and says how many.
func (c *chain) fill(ctx context.Context, src executor.Source, head eth.BlockRef) (added uint64, err error) {
	c.mu.RLock()
	from := c.start(head)
	if c.filled {
		from = c.head.Number + 1
	}
	c.mu.RUnlock()
	c.progress.begin(from, head.Number)
	defer c.progress.end()
	if from+progressEvery < head.Number {
		c.log.Info("Filling the message history, messages of the chain are refused until it is there", "from", from, "to", head.Number)
		defer func() {
			c.log.Info("Message history", "added", added, "at", from+added-min(added, 1), "to", head.Number, "complete", err == nil)
		}()
	}
	for n := from; n <= head.Number; n++ {
		if n != from && (n-from)%progressEvery == 0 {
			c.log.Info("Filling the message history", "block", n, "from", from, "to", head.Number, "percent", 100*(n-from)/(head.Number-from))
		}
		c.progress.at.Store(n)
		block, err := src.Block(ctx, n)
		if err != nil {
			return added, fmt.Errorf("block %d: %w", n, err)
		}
		var receipts types.Receipts
		if n > c.cfg.Genesis.Number { // the genesis block was not executed
			if receipts, err = src.Receipts(ctx, block.Hash); err != nil {
				return added, fmt.Errorf("receipts of block %s: %w", block, err)
			}
		}
		c.writing.Lock()
		err = c.append(block, executor.Logs(receipts), head.Time)
		c.writing.Unlock()
		if err != nil {
			return added, fmt.Errorf("append block %s: %w", block, err)
		}
		added++
	}
	return added, nil
}

// start is the block a history that ends in head has to begin with.
func (c *chain) start(head eth.BlockRef) uint64 {
	oldest := min(c.kept(head.Time), head.Time)
	if oldest <= c.cfg.GenesisTime {
		return c.cfg.Genesis.Number
	}
	return c.cfg.Genesis.Number + (oldest-c.cfg.GenesisTime)/c.cfg.BlockTime
}
