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
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"
)

// Karst's rules outside the EVM, against its specification: protocol/karst/
// overview.md "Execution Layer" and the EIPs it lists, Ethereum's engine API for
// Osaka, and op-node's choice of methods (op-node/rollup/types.go).

// karstAt is the chain with Karst, and nothing later, at a time. Zero: never.
func karstAt(time uint64) *params.ChainConfig {
	c := *opConfig
	c.KarstTime, c.LagoonTime = nil, nil
	if time != 0 {
		c.KarstTime = &time
	}
	return &c
}

// op-node asks for Karst's blocks with getPayloadV5, newPayloadV4 and
// forkchoiceUpdatedV3; engine/osaka.md refuses getPayloadV4 and newPayloadV3 then.
func TestKarstEngineMethods(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	n := startOpNode(t, opNodeOptions{config: karstAt(opGenesis + 4)}) // the second block
	for _, karst := range []bool{false, true, true} {
		attrs := n.attrs(n.head())
		attrs.NoTxPool = true
		require.Equal(t, karst, n.config.IsOptimismKarst(attrs.Timestamp))
		resp, err := n.api.ForkchoiceUpdatedV3(ctx, engine.ForkchoiceStateV1{HeadBlockHash: n.head().Hash()}, attrs)
		require.NoError(t, err)
		require.NotNil(t, resp.PayloadID)
		v4, err4 := n.api.GetPayloadV4(*resp.PayloadID)
		v5, err5 := n.api.GetPayloadV5(*resp.PayloadID)
		_, err6 := n.api.GetPayloadV6(*resp.PayloadID)
		requireUnsupported(t, err6)
		env := v4
		if karst {
			requireUnsupported(t, err4)
			require.NoError(t, err5)
			env = v5
		} else {
			require.NoError(t, err4)
			requireUnsupported(t, err5)
		}
		_, err = n.api.NewPayloadV3(ctx, *env.ExecutionPayload, []common.Hash{}, env.ParentBeaconBlockRoot)
		require.Error(t, err)
		n.accept(env) // newPayloadV4, forkchoiceUpdatedV3
		require.Equal(t, env.ExecutionPayload.BlockHash, n.head().Hash())

		_, err = n.api.GetBlobsV1(nil)
		if karst {
			requireUnsupported(t, err)
		}
	}
}

func requireUnsupported(t *testing.T, err error) {
	t.Helper()
	var e *engine.EngineAPIError
	require.True(t, errors.As(err, &e), "%v", err)
	require.Equal(t, engine.UnsupportedFork.ErrorCode(), e.ErrorCode())
}

// ExecutionPayloadEnvelopeV5 has the fields of V4, with a bundle whose lists are
// there and, on the OP Stack, empty.
func TestKarstPayloadShape(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	n.addTxs(opTransfer(0, 0, opRecipient(0)))
	var env map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(opJSON(t, n.build(n.attrs(n.head())))), &env))
	require.JSONEq(t, `{"commitments":[],"proofs":[],"blobs":[]}`, string(env["blobsBundle"]))
	require.JSONEq(t, `[]`, string(env["executionRequests"]))
	for _, field := range []string{"executionPayload", "blockValue", "shouldOverrideBuilder", "parentBeaconBlockRoot"} {
		require.Contains(t, env, field)
	}
	var payload map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(env["executionPayload"], &payload))
	var txs []hexutil.Bytes
	require.NoError(t, json.Unmarshal(payload["transactions"], &txs))
	require.Len(t, txs, 2)
	for _, field := range []string{"withdrawalsRoot", "blobGasUsed", "excessBlobGas", "withdrawals"} {
		require.Contains(t, payload, field)
	}
}

// EIP-7825: no transaction over 2^24 gas, but for deposits.
func TestKarstTxGasCap(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, 16_777_216, params.MaxTxGas)
	heavy := func(from int, gas uint64) *types.Transaction {
		to := opRecipient(from)
		return opTx(from, types.DynamicFeeTx{To: &to, Gas: gas})
	}
	jovian, karst := startOpNode(t, opNodeOptions{config: karstAt(0)}), startOpNode(t, opNodeOptions{config: karstAt(opGenesis)})
	block := func(n *opNode, txs ...*types.Transaction) *engine.PayloadAttributes {
		a := n.attrs(n.head(), txs...)
		a.NoTxPool = true
		return a
	}
	over := jovian.build(block(jovian, heavy(0, params.MaxTxGas+1)))
	status := karst.newPayload(over)
	require.Equal(t, engine.INVALID, status.Status)
	require.Contains(t, opDeref(status.ValidationError), core.ErrGasLimitTooHigh.Error())
	jovian.accept(over)

	_, err := karst.api.ForkchoiceUpdatedV3(context.Background(), engine.ForkchoiceStateV1{HeadBlockHash: karst.head().Hash()}, block(karst, heavy(0, params.MaxTxGas+1)))
	var refused *engine.EngineAPIError
	require.ErrorAs(t, err, &refused)
	require.Contains(t, opJSON(t, refused.ErrorData()), core.ErrGasLimitTooHigh.Error())

	at := karst.build(block(karst, opUserDeposit(0, 20_000_000), heavy(1, params.MaxTxGas)))
	require.Len(t, at.ExecutionPayload.Transactions, 3)
	karst.accept(at)
	for _, r := range karst.eth.BlockChain().GetReceiptsByHash(karst.head().Hash()) {
		require.Equal(t, types.ReceiptStatusSuccessful, r.Status)
	}

	// The pool, and what it is estimated.
	errs := karst.eth.TxPool().Add([]*types.Transaction{heavy(2, params.MaxTxGas+1), heavy(3, params.MaxTxGas)}, true)
	require.ErrorIs(t, errs[0], core.ErrGasLimitTooHigh)
	require.NoError(t, errs[1])
	for n, want := range map[*opNode]string{jovian: "(50000000)", karst: "(16777216)"} { // the RPC's own cap, and Karst's
		err := n.stack.Attach().Call(new(hexutil.Uint64), "eth_estimateGas", map[string]any{"from": opAccounts()[0].addr, "to": opLoop})
		require.ErrorContains(t, err, want)
	}
}

// The transactions that Karst makes invalid leave the pool when it activates.
func TestKarstPoolAtActivation(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{config: karstAt(opGenesis + 4)})
	to := opRecipient(0)
	over := opTx(0, types.DynamicFeeTx{To: &to, Gas: params.MaxTxGas + 1, GasTipCap: big.NewInt(1)})
	n.addTxs(over, opTransfer(1, 0, to))
	for _, left := range []int{2, 1} {
		attrs := n.attrs(n.head())
		attrs.NoTxPool = true
		n.accept(n.build(attrs))
		require.NoError(t, n.eth.TxPool().Sync())
		pending, _ := n.eth.TxPool().Stats()
		require.Equal(t, left, pending)
	}
	require.False(t, n.eth.TxPool().Has(over.Hash()))
}

// EIP-7934 (block size) is not on Karst's list: a block above Osaka's 8 MiB is valid.
func TestKarstHasNoBlockSizeLimit(t *testing.T) {
	t.Parallel()
	n, verifier := startOpNode(t, opNodeOptions{}), startOpNode(t, opNodeOptions{})
	var txs []*types.Transaction
	for i := range 6 { // a zero byte costs 10 gas (EIP-7623), so 1.5 MB fit into EIP-7825's cap
		txs = append(txs, opCall(i, 0, opRecipient(i), 16_000_000, make([]byte, 1_500_000)))
	}
	attrs := n.attrs(n.head(), txs...)
	attrs.NoTxPool = true
	env := n.build(attrs)
	size := 0
	for _, tx := range env.ExecutionPayload.Transactions {
		size += len(tx)
	}
	require.Greater(t, size, params.MaxBlockSize)
	verifier.accept(env)
}

// EIP-7910: eth_config, which names Karst's precompiles, activation and fork ID.
func TestKarstEthConfig(t *testing.T) {
	t.Parallel()
	type config struct {
		ActivationTime  uint64                    `json:"activationTime"`
		BlobSchedule    json.RawMessage           `json:"blobSchedule"`
		ChainID         *hexutil.Big              `json:"chainId"`
		ForkID          hexutil.Bytes             `json:"forkId"`
		Precompiles     map[string]common.Address `json:"precompiles"`
		SystemContracts map[string]common.Address `json:"systemContracts"`
	}
	type response struct{ Current, Next, Last *config }
	ask := func(n *opNode) (r response) {
		require.NoError(t, n.stack.Attach().Call(&r, "eth_config"))
		return r
	}
	genesis := ask(startOpNode(t, opNodeOptions{}))
	require.NotNil(t, genesis.Current)
	require.Nil(t, genesis.Next)
	require.Nil(t, genesis.Last)

	c := karstAt(opGenesis + 4)
	lagoon := opGenesis + 400
	c.LagoonTime = &lagoon
	n := startOpNode(t, opNodeOptions{config: c})
	before := ask(n)
	require.Zero(t, before.Current.ActivationTime)
	require.Equal(t, opGenesis+4, before.Next.ActivationTime)
	require.Equal(t, lagoon, before.Last.ActivationTime)
	require.Len(t, before.Current.ForkID, 4)
	require.NotEqual(t, before.Current.ForkID, before.Next.ForkID)
	require.Equal(t, "null", string(before.Current.BlobSchedule))
	require.Equal(t, map[string]common.Address{
		"BEACON_ROOTS_ADDRESS": params.BeaconRootsAddress, "HISTORY_STORAGE_ADDRESS": params.HistoryStorageAddress,
	}, before.Next.SystemContracts)
	require.Equal(t, common.HexToAddress("0x100"), before.Next.Precompiles["P256VERIFY"])
	require.EqualValues(t, 901, before.Next.ChainID.ToInt().Uint64())
	for range 2 {
		attrs := n.attrs(n.head())
		attrs.NoTxPool = true
		n.accept(n.build(attrs))
	}
	after := ask(n)
	require.Equal(t, before.Next, after.Current)
	require.Equal(t, before.Last, after.Next)
	require.Equal(t, before.Last, after.Last)
}

// EIP-7642: eth/69, which op-geth speaks, and no older version.
func TestKarstProtocolVersion(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	for _, p := range n.eth.Protocols() {
		if p.Name == "eth" {
			require.EqualValues(t, 69, p.Version)
		}
	}
}
