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

package legacypool

import "github.com/ethereum/go-ethereum/common"

// Head is the block the pool was last reset to, or is being reset to: the reset
// holds the pool's lock from before this changes until the pool is consistent.
func (pool *LegacyPool) Head() common.Hash {
	if head := pool.currentHead.Load(); head != nil {
		return head.Hash()
	}
	return common.Hash{}
}
