// Package relay makes the transaction of a bundle's relay step: the one that executes,
// on its destination, an L2ToL2 message that the bundle has just sent.
package relay

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/txintent"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Events of L2ToL2CrossDomainMessenger.
var (
	sentMessage    = crypto.Keccak256Hash([]byte("SentMessage(uint256,address,uint256,address,bytes)"))
	relayedMessage = crypto.Keccak256Hash([]byte("RelayedMessage(uint256,uint256,bytes32,bytes32)"))
)

// ErrNotSent: the log is not a message that can be relayed to the chain.
var ErrNotSent = errors.New("not a SentMessage log of L2ToL2CrossDomainMessenger for this chain")

// Log is a log, the chain that emitted it, and the slot of its block.
type Log struct {
	Chain sequence.ChainID
	Slot  sequence.Slot
	*types.Log
}

// Pending finds, in the logs of a bundle so far, the messages sent to dest and not
// relayed there yet, in the order they were sent. A message that was sent again
// (resendMessage) counts once, with its first log.
func Pending(dest sequence.ChainID, logs []Log) []Log {
	type message struct {
		source sequence.ChainID
		nonce  common.Hash
	}
	gone := map[message]bool{}
	for _, l := range logs {
		// RelayedMessage(source, messageNonce, messageHash): all indexed.
		if l.Chain == dest && isMessenger(l.Log, relayedMessage) {
			if source := l.Topics[1].Big(); source.IsUint64() {
				gone[message{sequence.ChainID(source.Uint64()), l.Topics[2]}] = true
			}
		}
	}
	var out []Log
	for _, l := range logs {
		m := message{l.Chain, common.Hash{}}
		if !sentTo(dest, l.Log) {
			continue
		}
		if m.nonce = l.Topics[3]; !gone[m] {
			gone[m] = true
			out = append(out, l)
		}
	}
	return out
}

// Relays says whether a transaction calls the L2ToL2CrossDomainMessenger and has relayed a
// message, by the logs it left.
func Relays(raw []byte, logs []*types.Log) bool {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil || tx.To() == nil || *tx.To() != predeploys.L2toL2CrossDomainMessengerAddr {
		return false
	}
	return slices.ContainsFunc(logs, func(l *types.Log) bool { return isMessenger(l, relayedMessage) })
}

// Destination is the chain that a log of the L2ToL2CrossDomainMessenger sends a message to,
// false if it sends none, or to no chain that can be in a set.
func Destination(l *types.Log) (sequence.ChainID, bool) {
	if !isMessenger(l, sentMessage) {
		return 0, false
	}
	dest := l.Topics[1].Big()
	return sequence.ChainID(dest.Uint64()), dest.IsUint64()
}

// sentTo: SentMessage(destination, target, messageNonce) are the indexed arguments.
func sentTo(dest sequence.ChainID, l *types.Log) bool {
	to, ok := Destination(l)
	return ok && to == dest
}

func isMessenger(l *types.Log, event common.Hash) bool {
	return l.Address == predeploys.L2toL2CrossDomainMessengerAddr && len(l.Topics) == 4 && l.Topics[0] == event
}

// Config bounds what relaying costs the operator.
type Config struct {
	// Gas is what a message may use beside the transaction's intrinsic gas.
	Gas uint64
	// Tip is the priority fee per gas, in wei. The fee cap is the block's base fee plus Tip.
	Tip *big.Int
}

// DefaultConfig leaves room for a swap behind a bridged token, and pays no tip: the
// operator's own block needs none.
func DefaultConfig() Config { return Config{Gas: 1_000_000, Tip: new(big.Int)} }

// Relayer signs relay transactions with the operator's relayer key.
type Relayer struct {
	cfg  Config
	addr common.Address
	// sign keeps the key in its closure, where no formatting of the Relayer reaches it.
	sign func(dest sequence.ChainID, tx types.TxData) (*types.Transaction, error)
}

// New makes a relayer. Zero fields of cfg take the values of DefaultConfig.
func New(key *ecdsa.PrivateKey, cfg Config) (*Relayer, error) {
	if key == nil {
		return nil, errors.New("relayer key is missing")
	}
	if cfg.Gas == 0 {
		cfg.Gas = DefaultConfig().Gas
	}
	if cfg.Tip == nil {
		cfg.Tip = new(big.Int)
	}
	if cfg.Tip.Sign() < 0 {
		return nil, fmt.Errorf("relayer tip is %s wei, expected 0 or more", cfg.Tip)
	}
	return &Relayer{
		cfg: cfg, addr: crypto.PubkeyToAddress(key.PublicKey),
		sign: func(dest sequence.ChainID, tx types.TxData) (*types.Transaction, error) {
			return types.SignNewTx(key, types.LatestSignerForChainID(dest.ID().ToBig()), tx)
		},
	}, nil
}

// Address pays for the relays and needs ETH on every chain.
func (r *Relayer) Address() common.Address { return r.addr }

func (r *Relayer) String() string { return "relayer " + r.addr.Hex() }

// Transaction makes the signed relayMessage call, as an EIP-2718 envelope, that executes
// the message l on dest, with the message declared in its access list as the interop
// specification asks ("Access list", interop/predeploys). header is of dest's open
// block; nonce is the relayer's in it. The message was sent on src in a block at the
// slot, and l carries its block number and its final index there.
// Error: ErrNotSent.
func (r *Relayer) Transaction(dest sequence.ChainID, header engine.Header, nonce uint64, src sequence.ChainID, slot sequence.Slot, l *types.Log) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("relaying log %d of block %d of chain %s to chain %s in slot %d: %w", l.Index, l.BlockNumber, src, dest, slot, err)
	}
	if !sentTo(dest, l) {
		return fail(ErrNotSent)
	}
	if src == dest {
		return fail(fmt.Errorf("%w: it was sent on the same chain", ErrNotSent))
	}
	if header.BaseFee == nil {
		return fail(errors.New("the open block has no base fee"))
	}
	payload := messages.LogToMessagePayload(l)
	call := txintent.RelayTrigger{
		ExecTrigger: txintent.ExecTrigger{
			Executor: predeploys.L2toL2CrossDomainMessengerAddr,
			Msg: messages.Message{
				Identifier: messages.Identifier{
					Origin: l.Address, BlockNumber: l.BlockNumber, LogIndex: uint32(l.Index),
					Timestamp: uint64(slot), ChainID: src.ID(),
				},
				PayloadHash: crypto.Keccak256Hash(payload),
			},
		},
		Payload: payload,
	}
	data, err := call.EncodeInput()
	if err != nil {
		return fail(err)
	}
	access, err := call.AccessList()
	if err != nil {
		return fail(err)
	}
	gas, err := r.gas(data, access)
	if err != nil {
		return fail(err)
	}
	tx, err := r.sign(dest, &types.DynamicFeeTx{
		ChainID: dest.ID().ToBig(), Nonce: nonce, To: &call.Executor, Gas: gas, Data: data, AccessList: access,
		GasTipCap: r.cfg.Tip, GasFeeCap: new(big.Int).Add(header.BaseFee, r.cfg.Tip),
	})
	if err != nil {
		return fail(err)
	}
	return tx.MarshalBinary()
}

// gas is the limit: the intrinsic gas and what the message may use, and never less
// than the floor that calldata has since Isthmus.
func (r *Relayer) gas(data []byte, access types.AccessList) (uint64, error) {
	intrinsic, err := core.IntrinsicGas(data, access, nil, false, true, true, true)
	if err != nil {
		return 0, err
	}
	floor, err := core.FloorDataGas(data)
	if err != nil {
		return 0, err
	}
	return max(intrinsic+r.cfg.Gas, floor), nil
}
