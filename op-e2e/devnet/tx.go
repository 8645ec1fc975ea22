package devnet

import (
	"crypto/ecdsa"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-chain-ops/devkeys"
)

// Fees that are always enough on a devnet and the same in every run, so that a
// transaction signed twice is the same transaction.
var (
	tipCap = big.NewInt(1e6)  // wei
	feeCap = big.NewInt(20e9) // wei
)

// Account is a key and its address.
type Account struct {
	Key     *ecdsa.PrivateKey
	Address common.Address
}

// NewAccount wraps a key.
func NewAccount(key *ecdsa.PrivateKey) Account {
	return Account{Key: key, Address: crypto.PubkeyToAddress(key.PublicKey)}
}

// FreshAccount is an account nobody has used.
func FreshAccount() (Account, error) {
	key, err := crypto.GenerateKey()
	if err != nil {
		return Account{}, err
	}
	return NewAccount(key), nil
}

// User is account i of the well-known development mnemonic ("test test … junk"). The
// first of them are funded on every chain.
func User(i uint64) (Account, error) {
	keys, err := devkeys.NewMnemonicDevKeys(devkeys.TestMnemonic)
	if err != nil {
		return Account{}, err
	}
	key, err := keys.Secret(devkeys.UserKey(i))
	if err != nil {
		return Account{}, err
	}
	// The derivation's curve is equal to go-ethereum's and not the same: without cgo that signs nothing.
	if key, err = crypto.ToECDSA(crypto.FromECDSA(key)); err != nil {
		return Account{}, err
	}
	return NewAccount(key), nil
}

// Tx is what one transaction does; what is left out is zero.
type Tx struct {
	Chain      uint64
	Nonce      uint64
	Gas        uint64 // 21000 if zero
	To         common.Address
	Value      *big.Int // wei
	Data       []byte
	AccessList types.AccessList
	Tip        *big.Int // wei per gas; 1e6 if nil
}

// Sign makes the transaction.
func (a Account) Sign(tx Tx) (*types.Transaction, error) {
	if tx.Gas == 0 {
		tx.Gas = 21000
	}
	if tx.Tip == nil {
		tx.Tip = tipCap
	}
	if tx.Value == nil {
		tx.Value = new(big.Int)
	}
	id := new(big.Int).SetUint64(tx.Chain)
	signed, err := types.SignNewTx(a.Key, types.LatestSignerForChainID(id), &types.DynamicFeeTx{
		ChainID: id, Nonce: tx.Nonce, GasTipCap: tx.Tip, GasFeeCap: feeCap, Gas: tx.Gas,
		To: &tx.To, Value: tx.Value, Data: tx.Data, AccessList: tx.AccessList,
	})
	if err != nil {
		return nil, fmt.Errorf("sign for chain %d: %w", tx.Chain, err)
	}
	return signed, nil
}
