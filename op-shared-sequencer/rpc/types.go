package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// BundleArgs is a bundle as it is sent. Fields that are not known are refused, so that a
// misspelt or newer option is never silently left out.
type BundleArgs struct {
	Items []ItemArgs `json:"items"`
	// ExpirySlot is the last slot the bundle may be executed in.
	ExpirySlot *hexutil.Uint64 `json:"expirySlot,omitempty"`
	// MaxSlots is given instead of ExpirySlot: for how many slots it may wait, the
	// current one included. Without both, the operator's default.
	MaxSlots *hexutil.Uint64 `json:"maxSlots,omitempty"`
}

// ItemArgs has either Tx or Relay.
type ItemArgs struct {
	ChainID *hexutil.Uint64 `json:"chainId"`
	Tx      hexutil.Bytes   `json:"tx,omitempty"` // EIP-2718 envelope
	Relay   bool            `json:"relay,omitempty"`
}

// Transaction is an item with a signed transaction.
func Transaction(chain sequence.ChainID, raw []byte) ItemArgs {
	return ItemArgs{ChainID: (*hexutil.Uint64)(&chain), Tx: raw}
}

// RelayStep is an item that executes on chain what the bundle has sent there so far.
func RelayStep(chain sequence.ChainID) ItemArgs {
	return ItemArgs{ChainID: (*hexutil.Uint64)(&chain), Relay: true}
}

// UnmarshalJSON refuses fields it does not know.
func (a *BundleArgs) UnmarshalJSON(data []byte) error {
	type plain BundleArgs
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*plain)(a)); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// bundle makes the bundle the arguments mean when they arrive in a slot.
func (a *BundleArgs) bundle(now sequence.Slot, cfg *Config) (*sequence.Bundle, error) {
	b := &sequence.Bundle{Items: make([]sequence.BundleItem, len(a.Items))}
	for i, it := range a.Items {
		switch {
		case it.ChainID == nil:
			return nil, invalidParams("item %d has no chainId", i)
		case it.Relay && len(it.Tx) > 0:
			return nil, invalidParams("item %d has both tx and relay, expected one of them", i)
		case !it.Relay && len(it.Tx) == 0:
			return nil, invalidParams("item %d has neither tx nor relay, expected one of them", i)
		}
		b.Items[i] = sequence.BundleItem{Chain: sequence.ChainID(*it.ChainID), Transaction: it.Tx}
	}
	slots := cfg.DefaultSlots
	switch {
	case a.ExpirySlot != nil && a.MaxSlots != nil:
		return nil, invalidParams("both expirySlot and maxSlots, expected at most one of them")
	case a.ExpirySlot != nil:
		b.Expiry = sequence.Slot(*a.ExpirySlot)
		return b, nil
	case a.MaxSlots != nil:
		slots = uint64(*a.MaxSlots)
	}
	if slots == 0 {
		return nil, invalidParams("maxSlots is 0, expected 1 or more")
	}
	if slots-1 > (math.MaxUint64-uint64(now))/cfg.SlotSeconds {
		return nil, invalidParams("maxSlots %d is too large", slots)
	}
	b.Expiry = now + sequence.Slot((slots-1)*cfg.SlotSeconds)
	return b, nil
}

// SendResult is the result of sharedseq_sendBundle.
type SendResult struct {
	BundleHash common.Hash    `json:"bundleHash"`
	ExpirySlot hexutil.Uint64 `json:"expirySlot"`
}

// BundleStatus is the result of sharedseq_bundleStatus.
type BundleStatus struct {
	BundleHash common.Hash `json:"bundleHash"`
	// State is pending, executed, safe, failed, expired or undone; see bundlepool.State.
	State      bundlepool.State `json:"state"`
	ExpirySlot hexutil.Uint64   `json:"expirySlot"`
	Attempts   hexutil.Uint64   `json:"attempts"`
	Undone     hexutil.Uint64   `json:"undone"` // how often its blocks were replaced
	// Slot and Items are of the execution in agreed blocks. In the states pending and
	// undone they are absent or of one whose blocks were replaced.
	Slot  *hexutil.Uint64 `json:"slot,omitempty"`
	Items []Item          `json:"items,omitempty"`
	// Failure is why it failed, expired or was undone; in state pending, why the last
	// attempt was put off.
	Failure *Failure `json:"failure,omitempty"`
}

// Simulation is the result of sharedseq_simulateBundle.
type Simulation struct {
	Success bool           `json:"success"`
	Slot    hexutil.Uint64 `json:"slot"` // it was simulated in
	// Items are the transactions as they ran, up to the one that failed.
	Items   []Item   `json:"items"`
	Failure *Failure `json:"failure,omitempty"`
}

// Item is one transaction of a bundle. A relay step has one for each message.
type Item struct {
	Item         hexutil.Uint64 `json:"item"` // index in the bundle
	ChainID      hexutil.Uint64 `json:"chainId"`
	TxHash       common.Hash    `json:"txHash"`
	BlockNumber  hexutil.Uint64 `json:"blockNumber"`
	Status       hexutil.Uint64 `json:"status"` // 1 succeeded, 0 reverted
	GasUsed      hexutil.Uint64 `json:"gasUsed"`
	Logs         []*types.Log   `json:"logs,omitempty"`       // simulation only
	ReturnData   hexutil.Bytes  `json:"returnData,omitempty"` // simulation only; what it returned or reverted with
	RevertReason string         `json:"revertReason,omitempty"`
}

// Failure names what failed.
type Failure struct {
	Item       *hexutil.Uint64 `json:"item,omitempty"` // index in the bundle; absent if none is to blame
	ChainID    *hexutil.Uint64 `json:"chainId,omitempty"`
	TxHash     *common.Hash    `json:"txHash,omitempty"`
	Reason     string          `json:"reason"`
	ReturnData hexutil.Bytes   `json:"returnData,omitempty"` // what the transaction reverted with
}

// Status is the result of sharedseq_status.
type Status struct {
	Slot           hexutil.Uint64 `json:"slot"`   // built now, or next
	Leader         bool           `json:"leader"` // whether this operator leads it
	PendingBundles hexutil.Uint64 `json:"pendingBundles"`
	Chains         []ChainStatus  `json:"chains"` // ascending by chain
	// Agreement is how this operator takes part. Absent if it is alone.
	Agreement *AgreementStatus `json:"agreement,omitempty"`
}

// AgreementStatus is how an operator takes part in the agreement with the others.
type AgreementStatus struct {
	NodeID   string         `json:"nodeId"`   // peers name it nodeId@host:port
	Operator common.Address `json:"operator"` // zero: it follows and never leads
	Power    hexutil.Uint64 `json:"power"`    // of this operator, in the set now
	Height   hexutil.Uint64 `json:"height"`   // of the subblock agreed on last
	Durable  hexutil.Uint64 `json:"durable"`  // of the last one of the newest slot in the ledger
	// Running is false once it has ended; Syncing while it fetches what the others have
	// agreed on, and does not vote.
	Running bool           `json:"running"`
	Syncing bool           `json:"syncing"`
	Peers   hexutil.Uint64 `json:"peers"` // connected now
}

// Turn is a leader's turn to propose one subblock.
type Turn struct {
	Height hexutil.Uint64 `json:"height"` // of the subblock, from 1; 0 if the operator is alone
	Leader common.Address `json:"leader"` // signs it; zero if the operator is alone
	// Expected is when it is proposed if all goes well, in Unix milliseconds. Absent while
	// the set is behind.
	Expected *hexutil.Uint64 `json:"expected,omitempty"`
}

// Operators is the result of sharedseq_operators.
type Operators struct {
	Set        common.Hash      `json:"set"`       // ID of the set: part of all that is signed
	Height     hexutil.Uint64   `json:"height"`    // of the subblock agreed on last
	Operators  []OperatorInfo   `json:"operators"` // ascending by address
	TotalPower hexutil.Uint64   `json:"totalPower"`
	Chains     []hexutil.Uint64 `json:"chains"`  // that take part, ascending
	Pending    []PendingChange  `json:"pending"` // in the order they were proposed in
}

// OperatorInfo is one operator, and how it delivers.
type OperatorInfo struct {
	Name         string                 `json:"name"`
	Address      common.Address         `json:"address"`
	ConsensusKey operators.ConsensusKey `json:"consensusKey"`
	Power        hexutil.Uint64         `json:"power"`
	Missed       hexutil.Uint64         `json:"missed"`    // turns in a row
	Shortened    bool                   `json:"shortened"` // its turns are, until it has voted for a while
}

// PendingChange is a change of the set that waits for approval.
type PendingChange struct {
	ID     common.Hash `json:"id"`
	Change Change      `json:"change"`
	// Approvals are the operators' that approve it, ascending. It comes in force at the end
	// of a slot when their power is at least Needed.
	Proposer  common.Address   `json:"proposer"`
	Approvals []common.Address `json:"approvals"`
	Power     hexutil.Uint64   `json:"power"`
	Needed    hexutil.Uint64   `json:"needed"`
}

// Change is what would change. Fields that its kind does not name are absent.
type Change struct {
	Kind         operators.Kind          `json:"kind"` // addOperator, removeOperator, setPower, joinChain or leaveChain
	Name         string                  `json:"name,omitempty"`
	Address      *common.Address         `json:"address,omitempty"`
	ConsensusKey *operators.ConsensusKey `json:"consensusKey,omitempty"`
	Power        *hexutil.Uint64         `json:"power,omitempty"`
	ChainID      *hexutil.Uint64         `json:"chainId,omitempty"`
	Nonce        hexutil.Uint64          `json:"nonce"`
	ExpirySlot   hexutil.Uint64          `json:"expirySlot"` // the last at whose end it can come in force
}

// Governed is the change as operators sign it.
func (c *Change) Governed() operators.Change {
	out := operators.Change{Kind: c.Kind, Nonce: uint64(c.Nonce), Expiry: sequence.Slot(c.ExpirySlot)}
	out.Operator.Name = c.Name
	if c.Address != nil {
		out.Operator.Address = *c.Address
	}
	if c.ConsensusKey != nil {
		out.Operator.ConsensusKey = *c.ConsensusKey
	}
	if c.Power != nil {
		out.Operator.Power = uint64(*c.Power)
	}
	if c.ChainID != nil {
		out.Chain = sequence.ChainID(*c.ChainID)
	}
	return out
}

func newChange(c *operators.Change) Change {
	out := Change{Kind: c.Kind, Name: c.Operator.Name, Nonce: hexutil.Uint64(c.Nonce), ExpirySlot: hexutil.Uint64(c.Expiry)}
	if a := c.Operator.Address; a != (common.Address{}) {
		out.Address = &a
	}
	if k := c.Operator.ConsensusKey; k != (operators.ConsensusKey{}) {
		out.ConsensusKey = &k
	}
	if p := hexutil.Uint64(c.Operator.Power); p != 0 {
		out.Power = &p
	}
	if id := hexutil.Uint64(c.Chain); id != 0 {
		out.ChainID = &id
	}
	return out
}

// NewOperators makes the result for a set.
func NewOperators(set *operators.Set) *Operators {
	out := &Operators{
		Set: set.ID(), TotalPower: hexutil.Uint64(set.TotalPower()),
		Operators: []OperatorInfo{}, Chains: []hexutil.Uint64{}, Pending: []PendingChange{},
	}
	for _, o := range set.Operators() {
		out.Operators = append(out.Operators, OperatorInfo{
			Name: o.Name, Address: o.Address, ConsensusKey: o.ConsensusKey, Power: hexutil.Uint64(o.Power),
		})
	}
	for _, id := range set.Chains() {
		out.Chains = append(out.Chains, hexutil.Uint64(id))
	}
	for _, p := range set.Pending() {
		out.Pending = append(out.Pending, PendingChange{
			ID: p.ID, Change: newChange(&p.Change), Proposer: p.Proposer, Approvals: p.Approvals,
			Power: hexutil.Uint64(p.Power), Needed: hexutil.Uint64(p.Needed),
		})
	}
	return out
}

// Evidence is the result of sharedseq_evidence.
type Evidence struct {
	// Subblocks: leaders that signed two for one height. Anybody can check it: see
	// operators.Evidence, and SubblockEvidence.sol for a contract.
	Subblocks []SubblockEvidence `json:"subblocks"`
	// Votes: operators that voted twice, as the agreement's protocol has proven.
	Votes []VoteEvidence `json:"votes"`
}

// SubblockEvidence is two signatures of a leader under different subblocks.
type SubblockEvidence struct {
	Leader     common.Address         `json:"leader"`
	Height     hexutil.Uint64         `json:"height"`
	View       common.Hash            `json:"view"`
	Hashes     [2]common.Hash         `json:"hashes"`
	Signatures [2]operators.Signature `json:"signatures"`
}

// VoteEvidence is an operator that voted twice.
type VoteEvidence struct {
	Kind     string         `json:"kind"`
	Operator common.Address `json:"operator"` // zero when it had left the set
	Address  common.Address `json:"address"`  // the consensus key's, in the protocol
	Height   hexutil.Uint64 `json:"height"`
	Time     hexutil.Uint64 `json:"time"` // Unix seconds
	Power    hexutil.Uint64 `json:"power"`
}

// NewEvidence makes the result for what is known.
func NewEvidence(l operators.EvidenceList) *Evidence {
	out := &Evidence{Subblocks: []SubblockEvidence{}, Votes: []VoteEvidence{}}
	for _, e := range l.Subblocks {
		out.Subblocks = append(out.Subblocks, SubblockEvidence{
			Leader: e.Leader, Height: hexutil.Uint64(e.Height), View: e.View, Hashes: e.Hashes, Signatures: e.Signatures,
		})
	}
	for _, v := range l.Votes {
		out.Votes = append(out.Votes, VoteEvidence{
			Kind: v.Kind, Operator: v.Operator, Address: v.Address, Height: hexutil.Uint64(v.Height), Time: hexutil.Uint64(v.Time), Power: hexutil.Uint64(v.Power),
		})
	}
	return out
}

// ChainStatus is how a chain is doing.
type ChainStatus struct {
	ChainID hexutil.Uint64 `json:"chainId"`
	Ready   bool           `json:"ready"`
	Reason  string         `json:"reason,omitempty"` // why it is not ready
	Head    Block          `json:"head"`
	// LastSlot is the last slot the chain took part in.
	LastSlot hexutil.Uint64 `json:"lastSlot"`
}

// Block names a block.
type Block struct {
	Hash      common.Hash    `json:"hash"`
	Number    hexutil.Uint64 `json:"number"`
	Timestamp hexutil.Uint64 `json:"timestamp"`
}

func newItems(in []bundlepool.ItemResult) []Item {
	out := make([]Item, len(in))
	for i, it := range in {
		out[i] = Item{
			Item: hexutil.Uint64(it.Item), ChainID: hexutil.Uint64(it.Chain), TxHash: it.TxHash, BlockNumber: hexutil.Uint64(it.BlockNumber),
			Status: hexutil.Uint64(it.Status), GasUsed: hexutil.Uint64(it.GasUsed), Logs: it.Logs, ReturnData: it.ReturnData,
			RevertReason: it.RevertReason,
		}
	}
	return out
}

func newFailure(f *bundlepool.Failure) *Failure {
	if f == nil {
		return nil
	}
	out := &Failure{Reason: f.Reason, ReturnData: f.ReturnData}
	if f.Item >= 0 {
		item := hexutil.Uint64(f.Item)
		out.Item = &item
	}
	if f.Chain != 0 {
		chain := hexutil.Uint64(f.Chain)
		out.ChainID = &chain
	}
	if f.TxHash != (common.Hash{}) {
		hash := f.TxHash
		out.TxHash = &hash
	}
	return out
}

func newBundleStatus(s *bundlepool.Status) *BundleStatus {
	out := &BundleStatus{
		BundleHash: s.Hash, State: s.State, ExpirySlot: hexutil.Uint64(s.Expiry), Attempts: hexutil.Uint64(s.Attempts),
		Undone: hexutil.Uint64(s.Undone), Items: newItems(s.Items), Failure: newFailure(s.Failure),
	}
	if len(s.Items) > 0 {
		slot := hexutil.Uint64(s.Slot)
		out.Slot = &slot
	}
	return out
}

func newSimulation(r *bundlepool.BundleResult) *Simulation {
	return &Simulation{Success: r.Failed == nil, Slot: hexutil.Uint64(r.Slot), Items: newItems(r.Items), Failure: newFailure(r.Failed)}
}

// invalidParams is a request that is not of the documented form.
func invalidParams(format string, args ...any) error {
	return &Error{Code: CodeInvalidParams, Message: fmt.Sprintf(format, args...)}
}
