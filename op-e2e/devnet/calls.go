package devnet

import (
	"fmt"
	"math/big"
	"strings"
	"sync"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/txintent"
)

// Addresses of predeploys that upstream's release no longer names.
var superchainTokenBridge = common.HexToAddress("0x4200000000000000000000000000000000000028")

// Gas limits that are enough for what the calls do.
const (
	gasSend     = 500_000
	gasToken    = 200_000
	gasValidate = 200_000
)

var callsABI = sync.OnceValue(func() abi.ABI {
	a, err := abi.JSON(strings.NewReader(`[
{"type":"function","name":"sendETH","inputs":[{"name":"to","type":"address"},{"name":"chain","type":"uint256"}]},
{"type":"function","name":"sendERC20","inputs":[{"name":"token","type":"address"},{"name":"to","type":"address"},{"name":"amount","type":"uint256"},{"name":"chain","type":"uint256"}]},
{"type":"function","name":"mint","inputs":[{"name":"to","type":"address"},{"name":"amount","type":"uint256"}]},
{"type":"function","name":"transfer","inputs":[{"name":"to","type":"address"},{"name":"amount","type":"uint256"}]},
{"type":"function","name":"approve","inputs":[{"name":"spender","type":"address"},{"name":"amount","type":"uint256"}]},
{"type":"function","name":"balanceOf","stateMutability":"view","inputs":[{"name":"owner","type":"address"}],"outputs":[{"name":"","type":"uint256"}]}
]`))
	if err != nil {
		panic(err) // the text above
	}
	return a
})

func call(name string, args ...any) []byte {
	data, err := callsABI().Pack(name, args...)
	if err != nil {
		panic(fmt.Sprintf("call data of %s: %v", name, err)) // the arguments' types are fixed
	}
	return data
}

// Transfer sends ETH on one chain.
func Transfer(chain, nonce uint64, to common.Address, wei *big.Int) Tx {
	return Tx{Chain: chain, Nonce: nonce, To: to, Value: wei}
}

// SendETH sends ETH to an account of another chain, through SuperchainETHBridge.
func SendETH(chain, nonce uint64, to common.Address, dest uint64, wei *big.Int) Tx {
	return Tx{
		Chain: chain, Nonce: nonce, Gas: gasSend, To: predeploys.SuperchainETHBridgeAddr, Value: wei,
		Data: call("sendETH", to, new(big.Int).SetUint64(dest)),
	}
}

// SendToken sends ERC-7802 tokens to an account of another chain, through SuperchainTokenBridge.
func SendToken(chain, nonce uint64, token, to common.Address, dest uint64, amount *big.Int) Tx {
	return Tx{
		Chain: chain, Nonce: nonce, Gas: gasSend, To: superchainTokenBridge,
		Data: call("sendERC20", token, to, amount, new(big.Int).SetUint64(dest)),
	}
}

// MintToken makes tokens of the test token.
func MintToken(chain, nonce uint64, token, to common.Address, amount *big.Int) Tx {
	return Tx{Chain: chain, Nonce: nonce, Gas: gasToken, To: token, Data: call("mint", to, amount)}
}

// TransferToken sends tokens on one chain.
func TransferToken(chain, nonce uint64, token, to common.Address, amount *big.Int) Tx {
	return Tx{Chain: chain, Nonce: nonce, Gas: gasToken, To: token, Data: call("transfer", to, amount)}
}

// ValidateMessage executes a message and does nothing with it. declared says whether the
// transaction declares it in its access list, as the protocol wants.
func ValidateMessage(chain, nonce uint64, msg messages.Message, declared bool) (Tx, error) {
	trigger := &txintent.ExecTrigger{Executor: predeploys.CrossL2InboxAddr, Msg: msg}
	data, err := trigger.EncodeInput()
	if err != nil {
		return Tx{}, err
	}
	tx := Tx{Chain: chain, Nonce: nonce, Gas: gasValidate, To: predeploys.CrossL2InboxAddr, Data: data}
	if declared {
		var list types.AccessList
		if list, err = trigger.AccessList(); err != nil {
			return Tx{}, err
		}
		tx.AccessList = list
	}
	return tx, nil
}

// balanceOf is the call data that asks a token for a balance.
func balanceOf(owner common.Address) []byte { return call("balanceOf", owner) }
