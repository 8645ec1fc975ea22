package enginefake

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/trie"
	"github.com/holiman/uint256"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
)

type account struct {
	nonce   uint64
	balance *big.Int // never changed in place
}

type state struct {
	genesis  map[common.Address]account // never changed
	accounts map[common.Address]account // that were touched since
	sent     uint64                     // L2ToL2 messages
}

func (s *state) clone() *state { return &state{s.genesis, maps.Clone(s.accounts), s.sent} }

func (s *state) account(a common.Address) account {
	acc, ok := s.accounts[a]
	if !ok {
		acc = s.genesis[a]
	}
	if acc.balance == nil {
		acc.balance = new(big.Int)
	}
	return acc
}

func (s *state) move(from, to common.Address, value *big.Int) {
	a := s.account(from)
	a.balance = new(big.Int).Sub(a.balance, value)
	s.accounts[from] = a
	b := s.account(to)
	b.balance = new(big.Int).Add(b.balance, value)
	s.accounts[to] = b
}

// root commits to everything that has happened to the state.
func (s *state) root() common.Hash {
	var buf []byte
	for _, addr := range slices.SortedFunc(maps.Keys(s.accounts), func(a, b common.Address) int { return a.Cmp(b) }) {
		a := s.accounts[addr]
		balance := a.balance.Bytes()
		buf = append(buf, addr[:]...)
		buf = binary.BigEndian.AppendUint64(buf, a.nonce)
		buf = append(append(buf, byte(len(balance))), balance...)
	}
	return crypto.Keccak256Hash(binary.BigEndian.AppendUint64(buf, s.sent))
}

// building is a block that transactions are added to.
type building struct {
	signer   types.Signer
	shared   *Txs // may be nil
	parent   *block
	attrs    *eth.PayloadAttributes
	state    *state
	txs      []eth.Data
	receipts types.Receipts
	gasUsed  uint64
	logs     uint
}

func newBuilding(signer types.Signer, shared *Txs, parent *block, s *state, attrs *eth.PayloadAttributes) *building {
	return &building{signer: signer, shared: shared, parent: parent, attrs: attrs, state: s.clone()}
}

func (b *building) clone() *building {
	c := *b
	c.state, c.txs, c.receipts = b.state.clone(), slices.Clip(b.txs), slices.Clip(b.receipts)
	return &c
}

func (b *building) header() engine.Header {
	return engine.Header{Number: b.number(), Time: uint64(b.attrs.Timestamp), GasLimit: uint64(*b.attrs.GasLimit), BaseFee: big.NewInt(BaseFee)}
}

func (b *building) number() uint64 {
	if b.parent == nil {
		return 0
	}
	return b.parent.number() + 1
}

// gasOf is what a transaction uses, whatever it does.
func gasOf(tx *types.Transaction) uint64 {
	return params.TxGas + 16*uint64(len(tx.Data())) + 2500*uint64(tx.AccessList().StorageKeys())
}

// apply adds a transaction; if it cannot be included the block is as before.
func (b *building) apply(raw []byte) engine.TxResult {
	tx, err := b.shared.decode(raw)
	if err != nil {
		return engine.MalformedTx(raw, err)
	}
	res := engine.TxResult{Hash: tx.Hash(), Raw: raw, Status: types.ReceiptStatusSuccessful}
	refuse := func(err error, format string, args ...any) engine.TxResult {
		res.Err = fmt.Errorf("%w: %s", err, fmt.Sprintf(format, args...))
		return res
	}
	res.GasUsed = gasOf(tx)
	if left := uint64(*b.attrs.GasLimit) - b.gasUsed; tx.Gas() > left && tx.Type() != types.DepositTxType {
		return refuse(core.ErrGasLimitReached, "have %d, want %d", left, tx.Gas())
	}
	var out outcome
	if tx.Type() != types.DepositTxType {
		from, err := types.Sender(b.signer, tx)
		if err != nil {
			return refuse(err, "transaction %s", tx.Hash())
		}
		acc := b.state.account(from)
		cost := new(big.Int).Add(tx.Value(), new(big.Int).Mul(big.NewInt(BaseFee), new(big.Int).SetUint64(res.GasUsed)))
		switch {
		case tx.Nonce() < acc.nonce:
			return refuse(core.ErrNonceTooLow, "address %s, tx: %d state: %d", from, tx.Nonce(), acc.nonce)
		case tx.Nonce() > acc.nonce:
			return refuse(core.ErrNonceTooHigh, "address %s, tx: %d state: %d", from, tx.Nonce(), acc.nonce)
		case tx.GasFeeCap().Cmp(big.NewInt(BaseFee)) < 0:
			return refuse(core.ErrFeeCapTooLow, "address %s, maxFeePerGas: %s, baseFee: %d", from, tx.GasFeeCap(), BaseFee)
		case res.GasUsed > tx.Gas():
			return refuse(core.ErrIntrinsicGas, "have %d, want %d", tx.Gas(), res.GasUsed)
		case acc.balance.Cmp(cost) < 0:
			return refuse(core.ErrInsufficientFunds, "address %s have %s want %s", from, acc.balance, cost)
		}
		acc.nonce++
		b.state.accounts[from] = acc
		b.state.move(from, predeploys.BaseFeeVaultAddr, new(big.Int).Sub(cost, tx.Value()))
		if out = run(tx, b.state.sent); !out.reverted && tx.To() != nil {
			b.state.move(from, *tx.To(), tx.Value())
			b.state.sent = out.sent
		}
	}
	if out.reverted {
		res.Status, out.logs = types.ReceiptStatusFailed, nil
	}
	res.ReturnData = out.data
	for _, l := range out.logs {
		l.BlockNumber, l.TxHash, l.TxIndex, l.Index = b.number(), tx.Hash(), uint(len(b.txs)), b.logs
		b.logs++
	}
	res.Logs = out.logs
	b.gasUsed += res.GasUsed
	b.txs = append(b.txs, raw)
	r := &types.Receipt{
		Type: tx.Type(), Status: res.Status, CumulativeGasUsed: b.gasUsed, GasUsed: res.GasUsed, TxHash: tx.Hash(), Logs: out.logs,
		BlockNumber: new(big.Int).SetUint64(b.number()), TransactionIndex: uint(len(b.txs) - 1),
	}
	r.Bloom = types.CreateBloom(r)
	b.receipts = append(b.receipts, r)
	return res
}

func (b *building) receiptsRoot() common.Hash {
	return types.DeriveSha(b.receipts, trie.NewStackTrie(nil))
}

// seal makes the block.
func (b *building) seal() *block {
	zero := eth.Uint64Quantity(0)
	extra := append([]byte{1}, b.attrs.EIP1559Params[:]...)
	extra = binary.BigEndian.AppendUint64(extra, *b.attrs.MinBaseFee)
	p := &eth.ExecutionPayload{
		FeeRecipient: b.attrs.SuggestedFeeRecipient, StateRoot: eth.Bytes32(b.state.root()), ReceiptsRoot: eth.Bytes32(b.receiptsRoot()),
		LogsBloom: eth.Bytes256(types.MergeBloom(b.receipts)), PrevRandao: b.attrs.PrevRandao, BlockNumber: eth.Uint64Quantity(b.number()),
		GasLimit: *b.attrs.GasLimit, GasUsed: eth.Uint64Quantity(b.gasUsed), Timestamp: b.attrs.Timestamp, ExtraData: extra,
		BaseFeePerGas: eth.Uint256Quantity(*uint256.NewInt(BaseFee)), Transactions: b.txs, Withdrawals: &types.Withdrawals{},
		BlobGasUsed: &zero, ExcessBlobGas: &zero, WithdrawalsRoot: &types.EmptyWithdrawalsHash,
	}
	if b.parent != nil {
		p.ParentHash = b.parent.hash()
	}
	env := &eth.ExecutionPayloadEnvelope{ExecutionPayload: p, ParentBeaconBlockRoot: b.attrs.ParentBeaconBlockRoot}
	p.BlockHash, _ = env.CheckBlockHash()
	out := &block{env: env, parent: b.parent, state: b.state, receipts: b.receipts, txs: map[common.Hash]bool{}}
	for _, r := range b.receipts {
		out.txs[r.TxHash] = true
	}
	return out
}

// outcome is what a transaction does beside its fees.
type outcome struct {
	reverted bool
	data     []byte
	logs     []*types.Log
	sent     uint64
}

// run executes what a transaction calls: a script, a relay, or nothing.
func run(tx *types.Transaction, sent uint64) outcome {
	out := outcome{sent: sent}
	if tx.To() == nil {
		return out
	}
	switch *tx.To() {
	case Script:
		var ops []Op
		if err := rlp.DecodeBytes(tx.Data(), &ops); err != nil {
			return revert(err)
		}
		for _, op := range ops {
			if op.run(&out); out.reverted {
				break
			}
		}
	case predeploys.L2toL2CrossDomainMessengerAddr:
		if err := out.relay(tx.Data()); err != nil {
			return revert(err)
		}
	}
	return out
}

func revert(err error) outcome { return outcome{reverted: true, data: []byte(err.Error())} }

func (o *outcome) log(addr common.Address, data []byte, topics ...common.Hash) {
	o.logs = append(o.logs, &types.Log{Address: addr, Topics: topics, Data: data})
}

// execute leaves the CrossL2Inbox's log of an executing message.
func (o *outcome) execute(m messages.Message) {
	id := &m.Identifier
	data := common.LeftPadBytes(id.Origin[:], 32)
	for _, v := range []uint64{id.BlockNumber, uint64(id.LogIndex), id.Timestamp} {
		data = append(data, common.BigToHash(new(big.Int).SetUint64(v)).Bytes()...)
	}
	chain := id.ChainID.Bytes32()
	o.log(predeploys.CrossL2InboxAddr, append(data, chain[:]...), messages.ExecutingMessageEventTopic, m.PayloadHash)
}

// relay is L2ToL2CrossDomainMessenger.relayMessage(Identifier, bytes). A message whose
// content is refuse reverts.
func (o *outcome) relay(input []byte) error {
	const head = 4 + 5*32 + 2*32 // selector, identifier, offset and length of the bytes
	if len(input) < head {
		return errors.New("relay: input too short")
	}
	word := func(i int) []byte { return input[4+32*i : 4+32*i+32] }
	number := func(i int) uint64 { return new(big.Int).SetBytes(word(i)).Uint64() }
	size := number(6)
	if uint64(len(input)) < head+size {
		return errors.New("relay: message too short")
	}
	payload := input[head : head+size]
	if size < 4*32 {
		return errors.New("relay: not a SentMessage")
	}
	chain := eth.ChainIDFromBig(new(big.Int).SetBytes(word(4)))
	o.execute(messages.Message{
		Identifier: messages.Identifier{
			Origin: common.BytesToAddress(word(0)), BlockNumber: number(1), LogIndex: uint32(number(2)), Timestamp: number(3), ChainID: chain,
		},
		PayloadHash: crypto.Keccak256Hash(payload),
	})
	if bytes.Equal(payload[4*32:], refused) {
		return errors.New("the message reverts")
	}
	o.log(predeploys.L2toL2CrossDomainMessengerAddr, nil, relayedTopic,
		common.BytesToHash(word(4)), common.BytesToHash(payload[3*32:4*32]), crypto.Keccak256Hash(payload))
	return nil
}
