package genesis

import (
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/ethereum-optimism/optimism/op-chain-ops/devkeys"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

const (
	// Users is the number of user accounts with money on L1 and every L2.
	Users = 10
	// relayerIndex is apart from the users', and among the accounts that upstream's genesis gives money on L2.
	relayerIndex = 20
	// operatorIndex is the first operator's; operators need no money.
	operatorIndex = 100
)

// Keys derives all keys from the mnemonic that everybody knows (test test … junk). They are for development only.
type Keys struct {
	hd *devkeys.MnemonicDevKeys
}

// DevKeys returns the keys that Build gives the roles to.
func DevKeys() (*Keys, error) {
	hd, err := devkeys.NewMnemonicDevKeys(devkeys.TestMnemonic)
	if err != nil {
		return nil, fmt.Errorf("genesis: dev keys: %w", err)
	}
	return &Keys{hd: hd}, nil
}

// User returns the key of a user account, 0 ≤ i < Users. They are the accounts that wallets show for this mnemonic.
func (k *Keys) User(i int) (*ecdsa.PrivateKey, error) {
	if i < 0 || i >= Users {
		return nil, fmt.Errorf("genesis: there is no user %d, only 0..%d", i, Users-1)
	}
	return k.secret(devkeys.UserKey(i))
}

// Relayer returns the key that pays for relaying messages, on every L2.
func (k *Keys) Relayer() (*ecdsa.PrivateKey, error) { return k.secret(devkeys.UserKey(relayerIndex)) }

// Operator returns the key with which operator i of a set signs subblocks.
func (k *Keys) Operator(i int) (*ecdsa.PrivateKey, error) {
	if i < 0 {
		return nil, fmt.Errorf("genesis: there is no operator %d", i)
	}
	return k.secret(devkeys.UserKey(operatorIndex + i))
}

// EngineNode returns the key that names operator i's engine of a chain in op-geth's own network.
func (k *Keys) EngineNode(i int, chain uint64) (*ecdsa.PrivateKey, error) {
	operator, err := k.Operator(i)
	if err != nil {
		return nil, err
	}
	seed := append([]byte("engine node"), crypto.FromECDSA(operator)...)
	key, err := crypto.ToECDSA(crypto.Keccak256(binary.BigEndian.AppendUint64(seed, chain)))
	if err != nil {
		return nil, fmt.Errorf("genesis: key of the engine node of operator %d, chain %d: %w", i, chain, err)
	}
	return key, nil
}

// Batcher returns the key of a chain's op-batcher. It has money on L1.
func (k *Keys) Batcher(chain uint64) (*ecdsa.PrivateKey, error) {
	return k.role(devkeys.BatcherRole, chain)
}

// Proposer returns the key of a chain's op-proposer. It has money on L1.
func (k *Keys) Proposer(chain uint64) (*ecdsa.PrivateKey, error) {
	return k.role(devkeys.ProposerRole, chain)
}

// Challenger returns the key of a chain's op-challenger. It has money on L1.
func (k *Keys) Challenger(chain uint64) (*ecdsa.PrivateKey, error) {
	return k.role(devkeys.ChallengerRole, chain)
}

// SequencerP2P returns the key that signs a chain's gossiped blocks.
func (k *Keys) SequencerP2P(chain uint64) (*ecdsa.PrivateKey, error) {
	return k.role(devkeys.SequencerP2PRole, chain)
}

// SystemConfigOwner returns the key that may change a chain's SystemConfig. It has money on L1.
func (k *Keys) SystemConfigOwner(chain uint64) (*ecdsa.PrivateKey, error) {
	return k.role(devkeys.SystemConfigOwner, chain)
}

func (k *Keys) secret(key devkeys.Key) (*ecdsa.PrivateKey, error) {
	secret, err := k.hd.Secret(key)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	// The derivation's curve is equal to go-ethereum's and not the same: without cgo that signs nothing.
	return crypto.ToECDSA(crypto.FromECDSA(secret))
}

func (k *Keys) role(role devkeys.Role, chain uint64) (*ecdsa.PrivateKey, error) {
	return k.secret(role.Key(new(big.Int).SetUint64(chain)))
}

// addressBook collects addresses and keeps the first error, so that a long list of roles reads as a list.
type addressBook struct {
	keys *Keys
	err  error
}

func (b *addressBook) role(role devkeys.Role, chain uint64) common.Address {
	secret, err := b.keys.role(role, chain)
	return b.address(secret, err)
}

func (b *addressBook) address(secret *ecdsa.PrivateKey, err error) common.Address {
	if err != nil {
		if b.err == nil {
			b.err = err
		}
		return common.Address{}
	}
	return crypto.PubkeyToAddress(secret.PublicKey)
}
