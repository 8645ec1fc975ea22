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

package catalyst

import (
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/params/forks"
)

// engineFork is the Ethereum fork whose engine methods serve a block of the given
// timestamp. Karst brings Osaka's execution layer, so its blocks are fetched with
// engine_getPayloadV5 (and no longer with V4), while engine_newPayloadV4 and
// engine_forkchoiceUpdatedV3 stay (Ethereum's engine/osaka.md). The chain
// configuration has no Osaka time for it: that would also activate the EIPs which
// Karst does not list.
func engineFork(config *params.ChainConfig, timestamp uint64, latest forks.Fork) forks.Fork {
	if latest < forks.Osaka && config.IsOptimismKarst(timestamp) {
		return forks.Osaka
	}
	return latest
}
