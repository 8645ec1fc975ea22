// Package enginetest makes small OP Stack chains, with every fork up to Lagoon at
// genesis, for tests of what drives an engine. It stands for op-deployer's output
// where real contracts do not matter.
package enginetest

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"math/big"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/misc/eip1559"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const (
	GenesisTime = uint64(1_700_000_000) // seconds
	GasLimit    = uint64(100_000_000)
	BlockTime   = uint64(1) // seconds
)

// Contracts of every chain.
var (
	Echo = common.HexToAddress("0xec40") // returns its input
	Fail = common.HexToAddress("0xfa11") // reverts with its input
	Log  = common.HexToAddress("0x1096") // logs its input as data, under one topic
)

// LogTopic is the topic of what Log logs.
var LogTopic = crypto.Keccak256Hash([]byte("Logged(bytes)"))

// Account is a funded account.
type Account struct {
	Key  *ecdsa.PrivateKey
	Addr common.Address
}

var accountCache struct {
	sync.Mutex
	list []Account
}

// Accounts are the first n funded accounts, the same on every chain.
func Accounts(n int) []Account {
	accountCache.Lock()
	defer accountCache.Unlock()
	for i := len(accountCache.list); i < n; i++ {
		var seed [32]byte
		seed[0] = 1
		binary.BigEndian.PutUint64(seed[24:], uint64(i+1))
		key, err := crypto.ToECDSA(seed[:])
		if err != nil {
			panic(err) // the seeds are constants
		}
		accountCache.list = append(accountCache.list, Account{key, crypto.PubkeyToAddress(key.PublicKey)})
	}
	return accountCache.list[:n:n]
}

// Chain is a chain and the keys to its accounts.
type Chain struct {
	ID       sequence.ChainID
	Accounts []Account // each has 1000 ether
	Genesis  *core.Genesis
	Rollup   *rollup.Config // only what decides about versions of the Engine API
	signer   types.Signer
}

// NewChain makes a chain with n funded accounts.
func NewChain(id sequence.ChainID, n int) *Chain {
	var (
		zero       uint64
		config     = *params.OptimismTestConfig
		minBaseFee uint64
	)
	config.ChainID = new(big.Int).SetUint64(uint64(id))
	config.KarstTime, config.LagoonTime = &zero, &zero
	c := &Chain{
		ID:       id,
		Accounts: Accounts(n),
		signer:   types.LatestSignerForChainID(config.ChainID),
		Rollup: &rollup.Config{
			L2ChainID: config.ChainID, BlockTime: BlockTime,
			RegolithTime: &zero, CanyonTime: &zero, DeltaTime: &zero, EcotoneTime: &zero, FjordTime: &zero, GraniteTime: &zero,
			HoloceneTime: &zero, IsthmusTime: &zero, JovianTime: &zero, KarstTime: &zero, LagoonTime: &zero,
		},
	}
	c.Genesis = &core.Genesis{
		Config:     &config,
		Alloc:      c.alloc(),
		GasLimit:   GasLimit,
		Timestamp:  GenesisTime,
		BaseFee:    big.NewInt(1000),
		ExtraData:  eip1559.EncodeOptimismExtraData(&config, GenesisTime, 250, 6, &minBaseFee),
		Difficulty: new(big.Int),
	}
	return c
}

func (c *Chain) alloc() types.GenesisAlloc {
	alloc := types.GenesisAlloc{}
	for _, a := range c.Accounts {
		alloc[a.Addr] = types.Account{Balance: new(big.Int).Mul(big.NewInt(1000), big.NewInt(params.Ether))}
	}
	contract := func(addr common.Address, code []byte, storage map[common.Hash]common.Hash) {
		alloc[addr] = types.Account{Nonce: 1, Balance: new(big.Int), Code: code, Storage: storage}
	}
	// calldatacopy(0, 0, calldatasize)
	copyInput := []byte{0x36, 0x60, 0x00, 0x60, 0x00, 0x37}
	// … and size and offset, for return and revert
	whole := append(bytes.Clone(copyInput), 0x36, 0x60, 0x00)
	contract(Echo, append(bytes.Clone(whole), 0xf3), nil)
	contract(Fail, append(bytes.Clone(whole), 0xfd), nil)
	logCode := append(bytes.Clone(copyInput), 0x7f)
	logCode = append(logCode, LogTopic[:]...)
	contract(Log, append(logCode, 0x36, 0x60, 0x00, 0xa1, 0x00), nil)
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

func encode(tx *types.Transaction) []byte {
	raw, err := tx.MarshalBinary()
	if err != nil {
		panic(err) // made here
	}
	return raw
}

// L1Info is the deposit every block starts with, as far as op-geth reads it.
func L1Info(sequenceNumber uint64) []byte {
	data := make([]byte, types.JovianL1AttributesLen)
	copy(data, types.JovianL1AttributesSelector)
	binary.BigEndian.PutUint64(data[12:], sequenceNumber)
	binary.BigEndian.PutUint16(data[types.JovianL1AttributesLen-2:], 10) // DA footprint gas scalar
	to := types.L1BlockAddr
	return encode(types.NewTx(&types.DepositTx{
		SourceHash: crypto.Keccak256Hash(data),
		From:       common.HexToAddress("0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001"),
		To:         &to, Gas: 1_000_000, Data: data, Value: new(big.Int),
	}))
}

// Deposit is a user deposit that mints and calls; nonce makes it unique.
func Deposit(nonce uint64, to common.Address, mint int64, data []byte) []byte {
	return encode(types.NewTx(&types.DepositTx{
		SourceHash: common.BigToHash(new(big.Int).SetUint64(nonce + 1)),
		From:       common.HexToAddress("0xabcd"), To: &to,
		Mint: big.NewInt(mint), Value: new(big.Int), Gas: 100_000, Data: data,
	}))
}

// Attributes are those of the block on parent, with the forced transactions after
// the L1 info deposit.
func (c *Chain) Attributes(parent engine.BlockInfo, forced ...[]byte) *eth.PayloadAttributes {
	var (
		gasLimit   = eth.Uint64Quantity(GasLimit)
		minBaseFee uint64
		fees       eth.Bytes8
	)
	copy(fees[:], eip1559.EncodeHolocene1559Params(250, 6))
	a := &eth.PayloadAttributes{
		Timestamp:             eth.Uint64Quantity(parent.Time + BlockTime),
		PrevRandao:            eth.Bytes32{1},
		SuggestedFeeRecipient: common.HexToAddress("0x4200000000000000000000000000000000000011"),
		Withdrawals:           &types.Withdrawals{},
		ParentBeaconBlockRoot: &common.Hash{2},
		Transactions:          []eth.Data{L1Info(parent.Number)},
		GasLimit:              &gasLimit,
		EIP1559Params:         &fees,
		MinBaseFee:            &minBaseFee,
	}
	for _, raw := range forced {
		a.Transactions = append(a.Transactions, raw)
	}
	return a
}

// Call is a transaction of account i.
func (c *Chain) Call(i int, nonce uint64, to common.Address, data []byte, gas uint64) []byte {
	return encode(c.Tx(i, &types.DynamicFeeTx{Nonce: nonce, To: &to, Gas: gas, Data: data}))
}

// Transfer sends one wei from account i.
func (c *Chain) Transfer(i int, nonce uint64, to common.Address) []byte {
	return encode(c.Tx(i, &types.DynamicFeeTx{Nonce: nonce, To: &to, Gas: params.TxGas, Value: big.NewInt(1)}))
}

// Interop is a transaction of account i that declares access to CrossL2Inbox.
func (c *Chain) Interop(i int, nonce uint64, to common.Address) []byte {
	return encode(c.Tx(i, &types.DynamicFeeTx{Nonce: nonce, To: &to, Gas: 50_000, AccessList: types.AccessList{
		{Address: params.InteropCrossL2InboxAddress, StorageKeys: []common.Hash{{1}}},
	}}))
}

// Tx signs for account i, with fees that are always enough.
func (c *Chain) Tx(i int, tx *types.DynamicFeeTx) *types.Transaction {
	tx.ChainID = c.Genesis.Config.ChainID
	if tx.GasFeeCap == nil {
		tx.GasFeeCap, tx.GasTipCap = big.NewInt(params.GWei), big.NewInt(100)
	}
	return types.MustSignNewTx(c.Accounts[i].Key, c.signer, tx)
}

// Decode is the transaction of an envelope.
func Decode(t testing.TB, raw []byte) *types.Transaction {
	t.Helper()
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil {
		t.Fatalf("decode transaction: %v", err)
	}
	return tx
}

// Recipient is the i-th of endlessly many addresses nobody has.
func Recipient(i int) common.Address {
	return common.BytesToAddress(crypto.Keccak256(binary.BigEndian.AppendUint64(nil, uint64(i))))
}
