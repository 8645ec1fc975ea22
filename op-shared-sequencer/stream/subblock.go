package stream

import (
	"encoding/json"
	"math/big"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Subblock is a committed subblock. Its encodings are made when somebody first wants them, in
// that subscriber's goroutine, and shared by all.
type Subblock struct {
	sequencer.Committed

	// before is the one before it in its slot; nil if it is the first, or the first that this
	// process has seen.
	before *Subblock

	parts    func() []*part // ascending by chain
	encoded  func() json.RawMessage
	receipts sync.Map // of chains: func() []Receipt
	partial  sync.Map // of chains: func() json.RawMessage
}

// part is what a subblock adds to a chain's block.
type part struct {
	chain  sequence.ChainID
	number uint64
	first  uint64            // index in the block of its first transaction
	gas    uint64            // used in the block before them
	raw    [][]byte          // its transactions, deposits included
	ran    []engine.TxResult // of these; nil if this operator has not run them
	header *engine.Header    // nil if not known here
	result sequence.Result   // of the block so far
	seal   *sequence.Seal    // with the last subblock
	sealed *sequencer.CommittedBlock
}

func newSubblock(c sequencer.Committed, before *Subblock) *Subblock {
	s := &Subblock{Committed: c, before: before}
	s.parts = sync.OnceValue(s.split)
	s.encoded = sync.OnceValue(s.encode)
	return s
}

// follows says whether the subblock goes on in the slot of another.
func follows(c *sequencer.Committed, before *Subblock) bool {
	return before != nil && c.Subblock.Slot == before.Subblock.Slot && c.Subblock.Index == before.Subblock.Index+1 && c.Subblock.Parent == before.Hash
}

// split sorts what the subblock has by chain.
func (s *Subblock) split() []*part {
	sub := s.Subblock
	parts := make([]*part, len(sub.Results))
	byChain := make(map[sequence.ChainID]*part, len(parts))
	for i, r := range sub.Results {
		p := &part{chain: r.Chain, result: r}
		parts[i], byChain[r.Chain] = p, p
		if s.before != nil {
			if b := s.before.part(r.Chain); b != nil {
				p.number, p.first, p.gas = b.number, b.result.Transactions, b.result.GasUsed
			}
		}
	}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		if p := byChain[b.Chain]; p != nil {
			p.number, p.header = b.Header.Number, &b.Header
			if b.Sealed != nil {
				p.sealed = b
			}
			p.ran = []engine.TxResult{}
			if sub.Index == 0 {
				p.ran = append(p.ran, b.Forced...)
			}
		}
	}
	for i := range sub.Openings {
		if o := &sub.Openings[i]; byChain[o.Chain] != nil {
			p := byChain[o.Chain]
			p.number = o.ParentNumber + 1
			p.raw = append(p.raw, o.Deposits...)
		}
	}
	for i := range sub.Seals {
		if p := byChain[sub.Seals[i].Chain]; p != nil {
			p.number, p.seal = sub.Seals[i].Number, &sub.Seals[i]
		}
	}
	for i := range sub.Steps {
		st := &sub.Steps[i]
		p := byChain[st.Chain]
		if p == nil {
			continue
		}
		p.raw = append(p.raw, st.Transactions...)
		if p.header != nil && i < len(s.Results) {
			p.ran = append(p.ran, s.Results[i]...)
		}
	}
	for _, p := range parts {
		if len(p.ran) != len(p.raw) {
			p.ran = nil
		}
		if s.before == nil { // also right when the process has not seen the first one
			p.first = p.result.Transactions - min(p.result.Transactions, uint64(len(p.raw)))
			if p.gas = p.result.GasUsed; p.ran != nil {
				for i := range p.ran {
					p.gas -= min(p.gas, p.ran[i].GasUsed)
				}
			}
		}
	}
	return parts
}

func (s *Subblock) part(chain sequence.ChainID) *part {
	for _, p := range s.parts() {
		if p.chain == chain {
			return p
		}
	}
	return nil
}

// hash is a transaction's, which is that of its envelope.
func (p *part) hash(i int) common.Hash {
	if p.ran != nil {
		return p.ran[i].Hash
	}
	return crypto.Keccak256Hash(p.raw[i])
}

// wireSubblock is what sharedseq_subscribe("subblocks") tells.
type wireSubblock struct {
	Hash   common.Hash    `json:"hash"`
	Height hexutil.Uint64 `json:"height"` // 0 if the operator is alone
	Slot   hexutil.Uint64 `json:"slot"`
	Index  hexutil.Uint64 `json:"index"`
	Last   bool           `json:"last"`
	Leader common.Address `json:"leader"`
	Chains []wirePart     `json:"chains"`
}

type wirePart struct {
	Chain        hexutil.Uint64 `json:"chainId"`
	Number       hexutil.Uint64 `json:"blockNumber"`
	Transactions []common.Hash  `json:"transactions"`
	GasUsed      hexutil.Uint64 `json:"gasUsed"`
	BlockHash    *common.Hash   `json:"blockHash,omitempty"`
}

// JSON is the subblock as sharedseq_subscribe tells it:
//
//	{"hash", "height", "slot", "index", "last", "leader",
//	 "chains": [{"chainId", "blockNumber", "transactions": ["0x…"], "gasUsed", "blockHash"}]}
//
// The transactions are those that the subblock adds, deposits included; gasUsed is of the block
// so far; blockHash is there with the slot's last subblock, unless the chain's seal is deferred.
func (s *Subblock) JSON() json.RawMessage { return s.encoded() }

func (s *Subblock) encode() json.RawMessage {
	sub := s.Subblock
	out := wireSubblock{
		Hash: s.Hash, Height: hexutil.Uint64(s.Agreed.Height), Slot: hexutil.Uint64(sub.Slot), Index: hexutil.Uint64(sub.Index),
		Last: sub.Last(), Leader: s.Agreed.Leader, Chains: []wirePart{},
	}
	for _, p := range s.parts() {
		w := wirePart{Chain: hexutil.Uint64(p.chain), Number: hexutil.Uint64(p.number), GasUsed: hexutil.Uint64(p.result.GasUsed), Transactions: make([]common.Hash, len(p.raw))}
		for i := range p.raw {
			w.Transactions[i] = p.hash(i)
		}
		if p.seal != nil && !p.seal.Deferred() {
			w.BlockHash = &p.seal.BlockHash
		}
		out.Chains = append(out.Chains, w)
	}
	return mustJSON(out)
}

// Receipt is that of one transaction of a subblock.
type Receipt struct {
	Hash common.Hash
	JSON json.RawMessage
}

// wireReceipt is eth_getTransactionReceipt's, without the fees of L1 and what only deposits have.
// The block's hash is null until the slot is sealed, and zero in logs.
type wireReceipt struct {
	TransactionHash   common.Hash     `json:"transactionHash"`
	TransactionIndex  hexutil.Uint64  `json:"transactionIndex"`
	BlockHash         *common.Hash    `json:"blockHash"`
	BlockNumber       hexutil.Uint64  `json:"blockNumber"`
	From              common.Address  `json:"from"`
	To                *common.Address `json:"to"`
	ContractAddress   *common.Address `json:"contractAddress"`
	CumulativeGasUsed hexutil.Uint64  `json:"cumulativeGasUsed"`
	GasUsed           hexutil.Uint64  `json:"gasUsed"`
	EffectiveGasPrice *hexutil.Big    `json:"effectiveGasPrice"`
	Logs              []*types.Log    `json:"logs"`
	LogsBloom         types.Bloom     `json:"logsBloom"`
	Status            hexutil.Uint64  `json:"status"`
	Type              hexutil.Uint64  `json:"type"`
}

// Receipts are those of the transactions that the subblock adds to a chain, in order. None if
// the chain is not in it, or this operator has not run it.
func (s *Subblock) Receipts(chain sequence.ChainID) []Receipt {
	made, _ := s.receipts.LoadOrStore(chain, sync.OnceValue(func() []Receipt {
		if p := s.part(chain); p != nil && p.ran != nil && p.header != nil {
			return p.receipts()
		}
		return nil
	}))
	return made.(func() []Receipt)()
}

func (p *part) receipts() []Receipt {
	signer := types.LatestSignerForChainID(new(big.Int).SetUint64(uint64(p.chain)))
	out := make([]Receipt, 0, len(p.ran))
	gas := p.gas
	for i := range p.ran {
		r := &p.ran[i]
		gas += r.GasUsed
		w := wireReceipt{
			TransactionHash: r.Hash, TransactionIndex: hexutil.Uint64(p.first + uint64(i)), BlockNumber: hexutil.Uint64(p.number),
			CumulativeGasUsed: hexutil.Uint64(gas), GasUsed: hexutil.Uint64(r.GasUsed), Status: hexutil.Uint64(r.Status),
			Logs: r.Logs, LogsBloom: types.CreateBloom(&types.Receipt{Logs: r.Logs}), EffectiveGasPrice: new(hexutil.Big),
		}
		if w.Logs == nil {
			w.Logs = []*types.Log{}
		}
		if p.sealed != nil {
			w.BlockHash = &p.sealed.Sealed.ExecutionPayload.BlockHash
			w.Logs = make([]*types.Log, len(r.Logs))
			for n, l := range r.Logs {
				placed := *l
				placed.BlockHash = *w.BlockHash
				w.Logs[n] = &placed
			}
		}
		var tx types.Transaction
		if err := tx.UnmarshalBinary(r.Raw); err != nil {
			continue // an engine has run it
		}
		from, err := types.Sender(signer, &tx)
		if err != nil {
			continue
		}
		w.From, w.To, w.Type = from, tx.To(), hexutil.Uint64(tx.Type())
		if !tx.IsDepositTx() {
			if tip, err := tx.EffectiveGasTip(p.header.BaseFee); err == nil {
				w.EffectiveGasPrice = (*hexutil.Big)(tip.Add(tip, p.header.BaseFee))
			}
			if w.To == nil {
				made := crypto.CreateAddress(from, tx.Nonce())
				w.ContractAddress = &made
			}
		}
		out = append(out, Receipt{r.Hash, mustJSON(w)})
	}
	return out
}

// mustJSON encodes what this package has made, which can always be encoded.
func mustJSON(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}
