// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package core

import (
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/types"
)

// ErrForeignState: a sealed block's state belongs to another database.
var ErrForeignState = errors.New("state of another database")

// InsertSealed stores a block that this process has built, with its receipts and
// post-state, without running it again. The head does not move: the block is made
// canonical by a forkchoice update as any other, and engine_newPayload finds it
// known. Inserting a block the chain already has with its state does nothing.
//
// The state must be the one the block was assembled from. Its ownership passes to
// the chain: a StateDB can be committed only once. Fails with
// consensus.ErrUnknownAncestor or consensus.ErrPrunedAncestor when the parent, or
// the parent's state, is not there any more; then nothing is stored.
func (bc *BlockChain) InsertSealed(block *types.Block, receipts []*types.Receipt, statedb *state.StateDB) error {
	if statedb.Database().TrieDB() != bc.triedb {
		return ErrForeignState
	}
	if !bc.chainmu.TryLock() {
		return errChainStopped
	}
	defer bc.chainmu.Unlock()
	if bc.insertStopped() {
		return errInsertionInterrupted
	}
	// The same checks as before a block is run, so that a parent which has gone
	// meanwhile, or a block made for other rules, is found before anything is written.
	if err := bc.validator.ValidateBody(block); errors.Is(err, ErrKnownBlock) {
		return nil
	} else if err != nil {
		return err
	}
	if err := bc.engine.VerifyHeader(bc, block.Header()); err != nil {
		return err
	}
	// What running it would have shown: the receipts and the state are this block's.
	if len(receipts) != len(block.Transactions()) {
		return fmt.Errorf("%d receipts for %d transactions", len(receipts), len(block.Transactions()))
	}
	if root := statedb.IntermediateRoot(bc.chainConfig.IsEIP158(block.Number())); root != block.Root() {
		return fmt.Errorf("state root %x, block has %x (database error: %w)", root, block.Root(), statedb.Error())
	}
	start := time.Now()
	if err := bc.writeBlockWithState(block, receipts, statedb); err != nil {
		return err
	}
	bc.gcproc += time.Since(start)
	return nil
}
