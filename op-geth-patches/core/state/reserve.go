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

package state

import "github.com/ethereum/go-ethereum/common"

// reserve makes room for the changes of n slots. Maps that grow to thousands are copied many
// times over on the way.
func (op *accountUpdate) reserve(n int) {
	if n == 0 {
		return
	}
	op.storages = make(map[common.Hash][]byte, n)
	op.storagesOriginByKey = make(map[common.Hash][]byte, n)
	op.storagesOriginByHash = make(map[common.Hash][]byte, n)
}
