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

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
)

// dropOverKarstGasCap removes, when the head passes Karst's activation, the
// transactions that EIP-7825 has made invalid: nothing could include them, and
// each would block the later nonces of its sender. The caller holds pool.mu.
func (pool *LegacyPool) dropOverKarstGasCap(oldHead, newHead *types.Header) {
	if pool.chainconfig.IsOptimismKarst(oldHead.Time) || !pool.chainconfig.IsOptimismKarst(newHead.Time) {
		return
	}
	var over []common.Hash
	pool.all.Range(func(hash common.Hash, tx *types.Transaction) bool {
		if tx.Gas() > params.MaxTxGas {
			over = append(over, hash)
		}
		return true
	})
	for _, hash := range over {
		pool.removeTx(hash, true, true)
	}
}
