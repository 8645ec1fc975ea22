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
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/binary"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/consensus/misc/eip1559"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/txpool/legacypool"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"
)

// An OP Stack chain with every fork at genesis, as op-deployer makes it (karstTime
// and lagoonTime, no osakaTime), and nodes that run it.

const (
	opSenders  = 1000
	opGasLimit = uint64(100_000_000)
	opGenesis  = uint64(1_700_000_000)
)

var (
	opConfig = func() *params.ChainConfig {
		c := *params.OptimismTestConfig
		c.ChainID = big.NewInt(901)
		zero := uint64(0)
		c.KarstTime, c.LagoonTime = &zero, &zero
		return &c
	}()
	opSigner = types.LatestSignerForChainID(opConfig.ChainID)

	opToken = common.HexToAddress("0x70ce") // transfer(to, amount), see opTokenCode
	opEcho  = common.HexToAddress("0xec40") // returns its input
	opFail  = common.HexToAddress("0xfa11") // reverts with its input
	opBurn  = common.HexToAddress("0xb0b0") // uses up all gas at once
	opLoop  = common.HexToAddress("0x100b") // uses up all gas by and by
)

type opAccount struct {
	key  *ecdsa.PrivateKey
	addr common.Address
}

var opAccounts = sync.OnceValue(func() []opAccount {
	out := make([]opAccount, opSenders)
	for i := range out {
		var seed [32]byte
		seed[0] = 1
		binary.BigEndian.PutUint64(seed[24:], uint64(i+1))
		key, err := crypto.ToECDSA(seed[:])
		if err != nil {
			panic(err)
		}
		out[i] = opAccount{key, crypto.PubkeyToAddress(key.PublicKey)}
	}
	return out
})

// opTokenCode is transfer(to, amount) on a mapping at slot 0, with a Transfer log.
// It reverts, with no data, when the balance is too small.
func opTokenCode() []byte {
	var c []byte
	op := func(b ...byte) { c = append(c, b...) }
	op(0x33, 0x60, 0x00, 0x52)             // mstore(0, caller)
	op(0x60, 0x00, 0x60, 0x20, 0x52)       // mstore(32, 0)
	op(0x60, 0x40, 0x60, 0x00, 0x20)       // keccak
	op(0x80, 0x54, 0x60, 0x24, 0x35)       // dup1 sload calldataload(0x24)
	op(0x81, 0x81, 0x11, 0x60, 0x00, 0x57) // dup2 dup2 gt push fail jumpi
	fail := len(c) - 2
	op(0x90, 0x03, 0x90, 0x55)                         // swap1 sub swap1 sstore
	op(0x60, 0x04, 0x35, 0x60, 0x00, 0x52)             // mstore(0, to)
	op(0x60, 0x40, 0x60, 0x00, 0x20)                   // keccak
	op(0x80, 0x54, 0x60, 0x24, 0x35, 0x01, 0x90, 0x55) // dup1 sload amount add swap1 sstore
	op(0x60, 0x24, 0x35, 0x60, 0x00, 0x52)             // mstore(0, amount)
	op(0x60, 0x04, 0x35, 0x33, 0x7f)                   // to caller push32
	op(crypto.Keccak256([]byte("Transfer(address,address,uint256)"))...)
	op(0x60, 0x20, 0x60, 0x00, 0xa3)                               // log3
	op(0x60, 0x01, 0x60, 0x00, 0x52, 0x60, 0x20, 0x60, 0x00, 0xf3) // return 1
	c[fail] = byte(len(c))
	op(0x5b, 0x60, 0x00, 0x80, 0xfd)
	return c
}

func opTokenSlot(a common.Address) common.Hash {
	return crypto.Keccak256Hash(common.LeftPadBytes(a[:], 32), make([]byte, 32))
}

func opAlloc() types.GenesisAlloc {
	alloc := types.GenesisAlloc{}
	balances := map[common.Hash]common.Hash{}
	for _, a := range opAccounts() {
		alloc[a.addr] = types.Account{Balance: new(big.Int).Mul(big.NewInt(1000), big.NewInt(params.Ether))}
		balances[opTokenSlot(a.addr)] = common.BigToHash(big.NewInt(1e15))
	}
	contract := func(addr common.Address, code []byte, storage map[common.Hash]common.Hash) {
		alloc[addr] = types.Account{Nonce: 1, Balance: new(big.Int), Code: code, Storage: storage}
	}
	copyInput := []byte{0x36, 0x60, 0x00, 0x60, 0x00, 0x37, 0x36, 0x60, 0x00} // calldatacopy(0, 0, calldatasize), then size and offset
	contract(opToken, opTokenCode(), balances)
	contract(opEcho, append(bytes.Clone(copyInput), 0xf3), nil)
	contract(opFail, append(bytes.Clone(copyInput), 0xfd), nil)
	contract(opBurn, []byte{0xfe}, nil)
	contract(opLoop, []byte{0x5b, 0x5f, 0x56}, nil)
	contract(params.BeaconRootsAddress, params.BeaconRootsCode, nil)
	contract(params.HistoryStorageAddress, params.HistoryStorageCode, nil)
	contract(params.OptimismL2ToL1MessagePasser, []byte{0}, map[common.Hash]common.Hash{{1}: {2}})
	contract(types.L1BlockAddr, []byte{0}, map[common.Hash]common.Hash{
		types.L1BaseFeeSlot:     common.BigToHash(big.NewInt(1e9)),
		types.L1BlobBaseFeeSlot: common.BigToHash(big.NewInt(1)),
		types.L1FeeScalarsSlot:  common.HexToHash("0x000000000000000000000000000000000000000000000101000000000000000000"),
	})
	return alloc
}

func opGenesisBlock(config *params.ChainConfig) *core.Genesis {
	minBaseFee := uint64(0)
	return &core.Genesis{
		Config:     config,
		Alloc:      opAlloc(),
		GasLimit:   opGasLimit,
		Timestamp:  opGenesis,
		BaseFee:    big.NewInt(1000),
		ExtraData:  eip1559.EncodeOptimismExtraData(config, opGenesis, 250, 6, &minBaseFee),
		Difficulty: new(big.Int),
	}
}

// opNode is a node in this process.
type opNode struct {
	t      testing.TB
	config *params.ChainConfig
	stack  *node.Node
	eth    *eth.Ethereum
	api    *ConsensusAPI
	jwt    [32]byte
}

// opNodeOptions change a node before it starts.
type opNodeOptions struct {
	config   *params.ChainConfig // default opConfig
	eth      func(*ethconfig.Config)
	register func(*node.Node, *eth.Ethereum)
}

func startOpNode(t testing.TB, o opNodeOptions) *opNode {
	t.Helper()
	if o.config == nil {
		o.config = opConfig
	}
	n := &opNode{t: t, config: o.config}
	copy(n.jwt[:], crypto.Keccak256([]byte("jwt")))
	jwtFile := filepath.Join(t.TempDir(), "jwt.hex")
	require.NoError(t, os.WriteFile(jwtFile, []byte(hexutil.Encode(n.jwt[:])), 0o600))
	stack, err := node.New(&node.Config{
		Name: "op", AuthAddr: "127.0.0.1", JWTSecret: jwtFile, HTTPHost: "127.0.0.1", HTTPModules: []string{"eth"},
		P2P: p2p.Config{NoDiscovery: true, NoDial: true},
	})
	require.NoError(t, err)

	ec := ethconfig.Defaults
	ec.Genesis, ec.NetworkId = opGenesisBlock(o.config), o.config.ChainID.Uint64()
	ec.SyncMode, ec.StateScheme = ethconfig.FullSync, rawdb.PathScheme
	ec.TrieCleanCache, ec.TrieDirtyCache, ec.SnapshotCache = 16, 16, 16
	ec.Miner = miner.Config{GasPrice: big.NewInt(1), Recommit: 50 * time.Millisecond}
	ec.TxPool = legacypool.DefaultConfig
	ec.TxPool.NoLocals, ec.TxPool.Journal = true, ""
	ec.TxPool.AccountSlots, ec.TxPool.GlobalSlots = 64, 40_000
	ec.TxPool.AccountQueue, ec.TxPool.GlobalQueue = 64, 40_000
	if o.eth != nil {
		o.eth(&ec)
	}
	n.stack = stack
	if n.eth, err = eth.New(stack, &ec); err != nil {
		stack.Close()
		require.NoError(t, err)
	}
	n.api = newConsensusAPIWithoutHeartbeat(n.eth)
	if o.register != nil {
		o.register(stack, n.eth)
	}
	require.NoError(t, stack.Start())
	t.Cleanup(func() { stack.Close() })
	return n
}

func (n *opNode) head() *types.Header { return n.eth.BlockChain().CurrentBlock() }

// addTxs puts transactions into the pool.
func (n *opNode) addTxs(txs ...*types.Transaction) {
	n.t.Helper()
	for i, err := range n.eth.TxPool().Add(txs, true) {
		require.NoError(n.t, err, "transaction %d", i)
	}
}

// opDeposit is an L1 attributes deposit with the DA footprint scalar (Jovian).
func opDeposit(seq uint64, scalar uint16) *types.Transaction {
	data := make([]byte, types.JovianL1AttributesLen)
	copy(data, types.JovianL1AttributesSelector)
	binary.BigEndian.PutUint64(data[8:], seq)
	binary.BigEndian.PutUint16(data[types.JovianL1AttributesLen-2:], scalar)
	to := types.L1BlockAddr
	return types.NewTx(&types.DepositTx{
		SourceHash: crypto.Keccak256Hash(data), To: &to, Gas: 1_000_000, Data: data, Value: new(big.Int),
		From: common.HexToAddress("0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001"),
	})
}

// opIsthmusDeposit is an L1 attributes deposit of before Jovian.
func opIsthmusDeposit() *types.Transaction {
	data := make([]byte, types.IsthmusL1AttributesLen)
	copy(data, types.IsthmusL1AttributesSelector)
	to := types.L1BlockAddr
	return types.NewTx(&types.DepositTx{To: &to, Gas: 1_000_000, Data: data, Value: new(big.Int), From: common.HexToAddress("0xdead")})
}

// opUserDeposit mints on a fresh account.
func opUserDeposit(i uint64, gas uint64) *types.Transaction {
	to := common.BigToAddress(new(big.Int).SetUint64(0xd0000 + i))
	return types.NewTx(&types.DepositTx{
		SourceHash: common.BigToHash(new(big.Int).SetUint64(i + 77)), From: common.HexToAddress("0xabcd"), To: &to,
		Mint: big.NewInt(5), Value: big.NewInt(5), Gas: gas,
	})
}

// attrs are attributes for a block on parent: an L1 attributes deposit, then txs.
func (n *opNode) attrs(parent *types.Header, txs ...*types.Transaction) *engine.PayloadAttributes {
	n.t.Helper()
	minBaseFee, gasLimit := uint64(0), opGasLimit
	a := &engine.PayloadAttributes{
		Timestamp: parent.Time + 2, SuggestedFeeRecipient: common.HexToAddress("0xfee0"), Withdrawals: types.Withdrawals{},
		BeaconRoot: &common.Hash{1}, GasLimit: &gasLimit, EIP1559Params: eip1559.EncodeHolocene1559Params(250, 6), MinBaseFee: &minBaseFee,
	}
	for _, tx := range append([]*types.Transaction{opDeposit(parent.Number.Uint64(), 10)}, txs...) {
		a.Transactions = append(a.Transactions, opRaw(n.t, tx))
	}
	return a
}

func opRaw(t testing.TB, tx *types.Transaction) []byte {
	t.Helper()
	raw, err := tx.MarshalBinary()
	require.NoError(t, err)
	return raw
}

// build has the stock builder make a block on the present head.
func (n *opNode) build(attrs *engine.PayloadAttributes) *engine.ExecutionPayloadEnvelope {
	n.t.Helper()
	resp, err := n.api.ForkchoiceUpdatedV3(context.Background(), engine.ForkchoiceStateV1{HeadBlockHash: n.head().Hash()}, attrs)
	require.NoError(n.t, err)
	require.NotNil(n.t, resp.PayloadID)
	if !attrs.NoTxPool {
		n.api.localBlocks.waitFull(*resp.PayloadID) // getPayload would end the filling
	}
	get := n.api.GetPayloadV5 // op-node's choice
	if !n.config.IsIsthmus(attrs.Timestamp) {
		get = n.api.GetPayloadV3
	} else if !n.config.IsKarst(attrs.Timestamp) {
		get = n.api.GetPayloadV4
	}
	env, err := get(*resp.PayloadID)
	require.NoError(n.t, err)
	return env
}

func (n *opNode) newPayload(env *engine.ExecutionPayloadEnvelope) engine.PayloadStatusV1 {
	n.t.Helper()
	status, err := n.api.NewPayloadV4(context.Background(), *env.ExecutionPayload, []common.Hash{}, env.ParentBeaconBlockRoot, []hexutil.Bytes{})
	require.NoError(n.t, err)
	return status
}

// accept has the node run a block and make it the head.
func (n *opNode) accept(env *engine.ExecutionPayloadEnvelope) {
	n.t.Helper()
	status := n.newPayload(env)
	require.Equal(n.t, engine.VALID, status.Status, "validation error: %s", opDeref(status.ValidationError))
	n.setHead(env.ExecutionPayload.BlockHash)
}

func (n *opNode) setHead(hash common.Hash) {
	n.t.Helper()
	resp, err := n.api.ForkchoiceUpdatedV3(context.Background(), engine.ForkchoiceStateV1{HeadBlockHash: hash}, nil)
	require.NoError(n.t, err)
	require.Equal(n.t, engine.VALID, resp.PayloadStatus.Status)
}

func opDeref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func opJSON(t testing.TB, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

// opTx signs a transaction of one of the accounts. Fees are set for it.
func opTx(from int, tx types.DynamicFeeTx) *types.Transaction {
	tx.ChainID, tx.GasFeeCap = opConfig.ChainID, big.NewInt(1e9)
	if tx.GasTipCap == nil {
		tx.GasTipCap = big.NewInt(100)
	}
	if tx.Value == nil {
		tx.Value = new(big.Int)
	}
	return types.MustSignNewTx(opAccounts()[from].key, opSigner, &tx)
}

func opRecipient(i int) common.Address {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i)+1e9)
	return common.BytesToAddress(crypto.Keccak256(b[:]))
}

func opTransfer(from int, nonce uint64, to common.Address) *types.Transaction {
	return opTx(from, types.DynamicFeeTx{Nonce: nonce, To: &to, Value: big.NewInt(1), Gas: 21_000})
}

func opCall(from int, nonce uint64, to common.Address, gas uint64, data []byte) *types.Transaction {
	return opTx(from, types.DynamicFeeTx{Nonce: nonce, To: &to, Gas: gas, Data: data})
}

// opTokenTx moves tokens. Every account has 1e15.
func opTokenTx(from int, nonce uint64, to common.Address, amount int64) *types.Transaction {
	data := append(hexutil.MustDecode("0xa9059cbb"), common.LeftPadBytes(to[:], 32)...)
	return opCall(from, nonce, opToken, 80_000, append(data, common.BigToHash(big.NewInt(amount)).Bytes()...))
}
