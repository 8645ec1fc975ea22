package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/core/vm"
	"github.com/ethereum/go-ethereum/core/vm/program"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// workload makes transactions of one kind.
type workload struct {
	name string
	gas  uint64 // about what one uses: how many are needed is worked out with it
	tx   func(chain, nonce uint64, i int) devnet.Tx
}

// recipient is an account that has nothing before.
func recipient(i int) common.Address {
	return common.BytesToAddress(crypto.Keccak256(binary.BigEndian.AppendUint64([]byte("recipient"), uint64(i))))
}

// transfers send ETH.
func transfers() workload {
	return workload{"transfers", 21_000, func(chain, nonce uint64, i int) devnet.Tx {
		return devnet.Transfer(chain, nonce, recipient(i), common.Big1)
	}}
}

// tokens move the devnet's ERC-20 token, of which every sender has some.
func tokens(token common.Address) workload {
	return workload{"tokens", 51_000, func(chain, nonce uint64, i int) devnet.Tx {
		return devnet.TransferToken(chain, nonce, token, recipient(i), common.Big1)
	}}
}

// writes is how many new storage slots a transaction of the storage workload writes.
const writes = 40

// storage calls a contract that writes to slots nobody has written to.
func storage(contract common.Address) workload {
	return workload{"storage", 21_000 + writes*22_300, func(chain, nonce uint64, _ int) devnet.Tx {
		return devnet.Tx{Chain: chain, Nonce: nonce, To: contract, Gas: 21_000 + writes*25_000 + 50_000}
	}}
}

// writer is a contract that keeps how many slots it has written in slot 0, and writes the next ones.
func writer() []byte {
	p := program.New().Push0().Op(vm.SLOAD) // [n]
	for range writes {
		// n+1: the slot, and what is written to it
		p.Push(1).Op(vm.ADD).Op(vm.DUP1).Op(vm.DUP1).Op(vm.SSTORE)
	}
	return p.Push0().Op(vm.SSTORE).Op(vm.STOP).Bytes()
}

// deployWriter puts the contract on a chain.
func deployWriter(ctx context.Context, s *system, from *sender, chain uint64) (common.Address, error) {
	code := program.New().ReturnViaCodeCopy(writer()).Bytes()
	nonce := from.nonces[chain]
	from.nonces[chain]++
	id := new(big.Int).SetUint64(chain)
	tx, err := types.SignNewTx(from.Key, types.LatestSignerForChainID(id), &types.DynamicFeeTx{
		ChainID: id, Nonce: nonce, GasTipCap: big.NewInt(1e6), GasFeeCap: big.NewInt(20e9), Gas: 3_000_000, Data: code,
	})
	if err != nil {
		return common.Address{}, err
	}
	if err := send(ctx, s.clients[chain], []*types.Transaction{tx}); err != nil {
		return common.Address{}, err
	}
	return crypto.CreateAddress(from.Address, nonce), s.awaitMined(ctx, chain, tx.Hash())
}

// mint gives every sender tokens on every chain.
func mint(ctx context.Context, s *system, senders []*sender, token common.Address) error {
	amount := new(big.Int).SetUint64(1 << 40)
	for _, chain := range s.chains {
		var txs []*types.Transaction
		for _, to := range senders {
			tx, err := to.Sign(devnet.MintToken(chain, to.nonces[chain], token, to.Address, amount))
			if err != nil {
				return err
			}
			to.nonces[chain]++
			txs = append(txs, tx)
		}
		if err := send(ctx, s.clients[chain], txs); err != nil {
			return fmt.Errorf("chain %d: mint: %w", chain, err)
		}
		for _, tx := range txs {
			if err := s.awaitMined(ctx, chain, tx.Hash()); err != nil {
				return err
			}
		}
	}
	return nil
}
