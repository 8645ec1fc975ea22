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

package downloader

import (
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
)

// crashed is a young chain after a crash: its blocks are there, of its states only that of genesis.
type crashed struct {
	BlockChain
	head *types.Header
}

func (c *crashed) CurrentBlock() *types.Header     { return c.head }
func (c *crashed) CurrentSnapBlock() *types.Header { return &types.Header{Number: big.NewInt(18)} }
func (c *crashed) HasState(root common.Hash) bool  { return root == common.Hash{1} }

func TestSessionSyncModeAfterCrash(t *testing.T) {
	chain := &crashed{head: &types.Header{Number: new(big.Int), Root: common.Hash{1}}}
	db := rawdb.NewMemoryDatabase()
	m := newSyncModer(ethconfig.FullSync, chain, db)
	if mode := m.get(false); mode != ethconfig.FullSync {
		t.Fatalf("a full-syncing engine went to mode %v after a crash", mode)
	}
	// An interrupted snap sync is still taken up again.
	rawdb.WriteLastPivotNumber(db, 10)
	if mode := newSyncModer(ethconfig.FullSync, chain, db).get(false); mode != ethconfig.SnapSync {
		t.Fatalf("an interrupted snap sync was left in mode %v", mode)
	}
}
