package enginefake

import (
	"cmp"
	"crypto/ecdsa"
	"math/big"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Script is the address whose calls are lists of Op. Calls of other addresses, but the
// L2ToL2CrossDomainMessenger, only move ether.
var Script = common.HexToAddress("0x5c12197")

// LogTopic is the topic of what Log logs.
var LogTopic = crypto.Keccak256Hash([]byte("Logged(bytes)"))

var (
	sentTopic    = crypto.Keccak256Hash([]byte("SentMessage(uint256,address,uint256,address,bytes)"))
	relayedTopic = crypto.Keccak256Hash([]byte("RelayedMessage(uint256,uint256,bytes32,bytes32)"))
	refused      = []byte("refuse")
)

// Op is one thing a transaction does.
type Op struct {
	Kind    uint8
	Data    []byte
	Dest    uint64
	Message opMessage
}

// opMessage is messages.Message in a form that has an RLP encoding.
type opMessage struct {
	Origin                    common.Address
	Block, Index, Time, Chain uint64
	PayloadHash               common.Hash
}

const (
	opLog uint8 = iota
	opSend
	opExecute
	opRevert
)

// Log leaves a log.
func Log(data string) Op { return Op{Kind: opLog, Data: []byte(data)} }

// Send sends an L2ToL2 message to a chain. Its relay succeeds.
func Send(dest sequence.ChainID) Op { return Op{Kind: opSend, Dest: uint64(dest)} }

// SendRefused sends an L2ToL2 message whose relay reverts.
func SendRefused(dest sequence.ChainID) Op {
	return Op{Kind: opSend, Dest: uint64(dest), Data: refused}
}

// Execute executes a message, which the transaction declares.
func Execute(m messages.Message) Op {
	id := &m.Identifier
	chain, _ := id.ChainID.Uint64()
	return Op{Kind: opExecute, Message: opMessage{id.Origin, id.BlockNumber, uint64(id.LogIndex), id.Timestamp, chain, m.PayloadHash}}
}

// Undeclared executes a message that the transaction does not declare.
func Undeclared(m messages.Message) Op {
	op := Execute(m)
	op.Data = []byte("undeclared")
	return op
}

// Revert reverts the transaction.
func Revert(reason string) Op { return Op{Kind: opRevert, Data: []byte(reason)} }

func (m *opMessage) message() messages.Message {
	return messages.Message{
		Identifier: messages.Identifier{
			Origin: m.Origin, BlockNumber: m.Block, LogIndex: uint32(m.Index), Timestamp: m.Time, ChainID: sequence.ChainID(m.Chain).ID(),
		},
		PayloadHash: m.PayloadHash,
	}
}

func (op *Op) run(o *outcome) {
	switch op.Kind {
	case opLog:
		o.log(Script, op.Data, LogTopic)
	case opSend:
		o.sent++
		o.log(predeploys.L2toL2CrossDomainMessengerAddr, op.Data, sentTopic,
			common.BigToHash(new(big.Int).SetUint64(op.Dest)), common.Hash{}, common.BigToHash(new(big.Int).SetUint64(o.sent)))
	case opExecute:
		o.execute(op.Message.message())
	case opRevert:
		o.reverted, o.data = true, op.Data
	}
}

// Gas every transaction of Tx may use: far more than it does.
const Gas = 500_000

// Tx is a signed transaction, as an EIP-2718 envelope, that does the ops.
func Tx(key *ecdsa.PrivateKey, chain sequence.ChainID, nonce uint64, ops ...Op) []byte {
	return Sign(key, chain, &types.DynamicFeeTx{Nonce: nonce}, ops...)
}

// Sign fills in what is left out of a transaction that does the ops, and signs it.
func Sign(key *ecdsa.PrivateKey, chain sequence.ChainID, tx *types.DynamicFeeTx, ops ...Op) []byte {
	tx.ChainID = chain.ID().ToBig()
	if tx.GasFeeCap == nil {
		tx.GasTipCap, tx.GasFeeCap = new(big.Int), big.NewInt(10*BaseFee)
	}
	tx.Gas = cmp.Or(tx.Gas, Gas)
	if tx.To == nil {
		tx.To = &Script
		data, err := rlp.EncodeToBytes(ops)
		if err != nil { // every field has an RLP form
			panic(err)
		}
		tx.Data = data
	}
	var declared []messages.Access
	for _, op := range ops {
		if op.Kind == opExecute && len(op.Data) == 0 {
			m := op.Message.message()
			declared = append(declared, m.Access())
		}
	}
	if len(declared) > 0 {
		tx.AccessList = append(tx.AccessList, types.AccessTuple{
			Address: predeploys.CrossL2InboxAddr, StorageKeys: messages.EncodeAccessList(declared),
		})
	}
	signed, err := types.SignNewTx(key, types.LatestSignerForChainID(tx.ChainID), tx)
	if err != nil { // the key is a private key
		panic(err)
	}
	raw, err := signed.MarshalBinary()
	if err != nil { // made here
		panic(err)
	}
	return raw
}

// Hash is the hash of a transaction's envelope.
func Hash(raw []byte) common.Hash { return crypto.Keccak256Hash(raw) }

// Txs are transactions that several engines decode once between them: recovering their
// senders costs more than all else that these engines do. Safe for concurrent use.
type Txs struct {
	mu      sync.Mutex
	decoded map[string]*types.Transaction
}

// NewTxs makes an empty one.
func NewTxs() *Txs { return &Txs{decoded: map[string]*types.Transaction{}} }

func (t *Txs) decode(raw []byte) (*types.Transaction, error) {
	if t != nil {
		t.mu.Lock()
		tx := t.decoded[string(raw)]
		t.mu.Unlock()
		if tx != nil {
			return tx, nil
		}
	}
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil {
		return nil, err
	}
	if t != nil && tx.Type() != types.DepositTxType {
		t.mu.Lock()
		t.decoded[string(raw)] = tx
		t.mu.Unlock()
	}
	return tx, nil
}

// pool has the newest transaction of every sender and nonce, also after it was included:
// a reorg brings it back.
type pool struct {
	senders []common.Address // in order of arrival
	txs     map[common.Address]map[uint64][]byte
}

func newPool() pool { return pool{txs: map[common.Address]map[uint64][]byte{}} }

func (p *pool) add(signer types.Signer, shared *Txs, raw []byte) {
	tx, err := shared.decode(raw)
	if err != nil || tx.Type() == types.DepositTxType {
		return
	}
	from, err := types.Sender(signer, tx)
	if err != nil {
		return
	}
	if p.txs[from] == nil {
		p.senders = append(p.senders, from)
		p.txs[from] = map[uint64][]byte{}
	}
	p.txs[from][tx.Nonce()] = raw
}

// isInterop says whether a transaction may execute a message.
func isInterop(raw []byte) bool {
	tx := new(types.Transaction)
	return tx.UnmarshalBinary(raw) == nil && slices.ContainsFunc(tx.AccessList(), func(a types.AccessTuple) bool {
		return a.Address == predeploys.CrossL2InboxAddr
	})
}

// mayExecute tells whether a transaction declares that it executes messages, or has done so.
func mayExecute(r engine.TxResult) bool {
	return isInterop(r.Raw) || slices.ContainsFunc(r.Logs, func(l *types.Log) bool { return l.Address == predeploys.CrossL2InboxAddr })
}

// fill adds what the pool has to a block.
func (p *pool) fill(b *building, opts engine.FillOptions) []engine.TxResult {
	var out []engine.TxResult
	for _, from := range p.senders {
		for {
			nonce := b.state.account(from).nonce
			raw, ok := p.txs[from][nonce]
			if ok && slices.Contains(opts.Reject, Hash(raw)) {
				delete(p.txs[from], nonce)
				ok = false
			}
			if !ok || slices.Contains(opts.Skip, Hash(raw)) || (!opts.Interop && isInterop(raw)) {
				break
			}
			res := b.apply(raw)
			if res.Err != nil {
				break
			}
			out = append(out, res)
		}
	}
	return out
}
