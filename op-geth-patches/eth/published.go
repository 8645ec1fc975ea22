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

package eth

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// PublishedReceipt is miner.Miner's.
func (b *EthAPIBackend) PublishedReceipt(hash common.Hash) (*types.Transaction, *types.Receipt, *types.Header) {
	return b.eth.miner.PublishedReceipt(hash)
}

// PublishedNonce is miner.Miner's.
func (b *EthAPIBackend) PublishedNonce(from common.Address) uint64 {
	return b.eth.miner.PublishedNonce(from)
}
