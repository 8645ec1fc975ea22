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

package ethapi

import (
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/forkid"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/core/vm"
	"github.com/ethereum/go-ethereum/params"
)

// opConfig answers eth_config (EIP-7910, listed by Karst) for an OP Stack chain.
//
// The Ethereum forks do not name the points at which such a chain changes, and it
// has no blob schedule, on both of which the common answer depends. So the
// configurations are those at the fork times of either kind, and blobSchedule is
// null.
func (api *BlockChainAPI) opConfig(genesis *types.Header) *configResponse {
	var (
		c     = api.b.ChainConfig()
		head  = api.b.CurrentHeader().Time
		times = opForkTimes(c, genesis.Time)
		next  = len(times)
	)
	for i, t := range times {
		if t > head {
			next = i
			break
		}
	}
	at := func(i int) *config {
		if i < 0 || i >= len(times) {
			return nil
		}
		return opConfigAt(c, genesis, times[i])
	}
	resp := &configResponse{Current: at(next - 1), Next: at(next)}
	if resp.Next != nil {
		resp.Last = at(len(times) - 1)
	}
	return resp
}

// opForkTimes lists the chain's fork times in order, without duplicates. Those at
// or before genesis are one, at 0.
func opForkTimes(c *params.ChainConfig, genesis uint64) []uint64 {
	times := []uint64{0}
	for _, t := range []*uint64{
		c.ShanghaiTime, c.CancunTime, c.PragueTime, c.OsakaTime,
		c.RegolithTime, c.CanyonTime, c.EcotoneTime, c.FjordTime, c.GraniteTime,
		c.HoloceneTime, c.IsthmusTime, c.JovianTime, c.KarstTime, c.LagoonTime,
	} {
		if t != nil && *t > genesis {
			times = append(times, *t)
		}
	}
	slices.Sort(times)
	return slices.Compact(times)
}

func opConfigAt(c *params.ChainConfig, genesis *types.Header, activation uint64) *config {
	at := max(activation, genesis.Time) // what is active at genesis has activation time 0
	precompiles := make(map[string]common.Address)
	for addr, p := range vm.ActivePrecompiledContracts(c.Rules(c.LondonBlock, true, at)) {
		precompiles[p.Name()] = addr
	}
	// The deposit, withdrawal and consolidation contracts are not part of the OP Stack.
	contracts := make(map[string]common.Address)
	if c.IsCancun(c.LondonBlock, at) {
		contracts["BEACON_ROOTS_ADDRESS"] = params.BeaconRootsAddress
	}
	if c.IsPrague(c.LondonBlock, at) {
		contracts["HISTORY_STORAGE_ADDRESS"] = params.HistoryStorageAddress
	}
	id := forkid.NewID(c, types.NewBlockWithHeader(genesis), ^uint64(0), at).Hash
	return &config{
		ActivationTime:  activation,
		ChainId:         (*hexutil.Big)(c.ChainID),
		ForkId:          hexutil.Bytes(id[:]),
		Precompiles:     precompiles,
		SystemContracts: contracts,
	}
}
