package rpc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
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
	// FirstSlot is the first slot the bundle may be executed in.
	FirstSlot *hexutil.Uint64 `json:"firstSlot,omitempty"`
	// ReplacementID: of the bundles with the same ID and the same signer one waits at a time;
	// another takes its place if it bids a tenth more. ReplacementSignature is over
	// sequence.Bundle.ReplacementText, as a personal message (EIP-191), by any account: the
	// ID is that account's own. It is the bundle's as it would be with expirySlot, so send
	// that and not maxSlots.
	ReplacementID        *common.Hash  `json:"replacementId,omitempty"`
	ReplacementSignature hexutil.Bytes `json:"replacementSignature,omitempty"`
	// Conditions must hold when the bundle begins; until it expires it waits for that.
	Conditions []ConditionArgs `json:"conditions,omitempty"`
}

// ItemArgs has either Tx or Relay.
type ItemArgs struct {
	ChainID *hexutil.Uint64 `json:"chainId"`
	Tx      hexutil.Bytes   `json:"tx,omitempty"` // EIP-2718 envelope
	Relay   bool            `json:"relay,omitempty"`
	// MayRevert: the bundle goes on when this transaction reverts, which then is in the block.
	MayRevert bool `json:"mayRevert,omitempty"`
}

// ConditionArgs are the options of eth_sendRawTransactionConditional, for one of the
// bundle's chains. Bounds are inclusive, of the block that the bundle would be in.
type ConditionArgs struct {
	ChainID        *hexutil.Uint64     `json:"chainId"`
	BlockNumberMin *hexutil.Uint64     `json:"blockNumberMin,omitempty"`
	BlockNumberMax *hexutil.Uint64     `json:"blockNumberMax,omitempty"`
	TimestampMin   *hexutil.Uint64     `json:"timestampMin,omitempty"`
	TimestampMax   *hexutil.Uint64     `json:"timestampMax,omitempty"`
	KnownAccounts  types.KnownAccounts `json:"knownAccounts,omitempty"` // storage root, or slots with their values
}

func (a *ConditionArgs) condition() (c sequence.Condition, err error) {
	if a.ChainID == nil {
		return c, errors.New("no chainId")
	}
	c.Chain = sequence.ChainID(*a.ChainID)
	for _, b := range []struct {
		name string
		from *hexutil.Uint64
		to   *uint64
		max  bool
	}{
		{"blockNumberMin", a.BlockNumberMin, &c.NumberMin, false}, {"blockNumberMax", a.BlockNumberMax, &c.NumberMax, true},
		{"timestampMin", a.TimestampMin, &c.TimeMin, false}, {"timestampMax", a.TimestampMax, &c.TimeMax, true},
	} {
		if b.from == nil {
			continue
		}
		if *b.to = uint64(*b.from); b.max && *b.to == 0 {
			return c, fmt.Errorf("%s is 0, which cannot hold", b.name)
		}
	}
	for addr, known := range a.KnownAccounts {
		account := sequence.KnownAccount{Address: addr}
		if known.StorageRoot != nil {
			account.StorageRoot = *known.StorageRoot
		}
		for key, value := range known.StorageSlots {
			account.Slots = append(account.Slots, sequence.KnownSlot{Key: key, Value: value})
		}
		slices.SortFunc(account.Slots, func(x, y sequence.KnownSlot) int { return x.Key.Cmp(y.Key) })
		c.Accounts = append(c.Accounts, account)
	}
	slices.SortFunc(c.Accounts, func(x, y sequence.KnownAccount) int { return x.Address.Cmp(y.Address) })
	return c, nil
}

func newCondition(c *sequence.Condition) ConditionArgs {
	chain := hexutil.Uint64(c.Chain)
	out := ConditionArgs{ChainID: &chain, KnownAccounts: c.Conditional().KnownAccounts}
	bound := func(v uint64) *hexutil.Uint64 {
		if v == 0 {
			return nil
		}
		return (*hexutil.Uint64)(&v)
	}
	out.BlockNumberMin, out.BlockNumberMax = bound(c.NumberMin), bound(c.NumberMax)
	out.TimestampMin, out.TimestampMax = bound(c.TimeMin), bound(c.TimeMax)
	return out
}

// terms are what the arguments ask for beside the items; nil if they do not.
func (a *BundleArgs) terms() (*sequence.Terms, error) {
	if len(a.ReplacementSignature) > 0 && a.ReplacementID == nil {
		return nil, errors.New("replacementSignature without replacementId")
	}
	if a.FirstSlot == nil && a.ReplacementID == nil && len(a.Conditions) == 0 {
		return nil, nil
	}
	t := &sequence.Terms{}
	if a.FirstSlot != nil {
		t.First = sequence.Slot(*a.FirstSlot)
	}
	if a.ReplacementID != nil {
		if t.ReplacementID = *a.ReplacementID; t.ReplacementID == (common.Hash{}) {
			return nil, errors.New("replacementId is zero")
		}
		t.Signature = a.ReplacementSignature
	}
	for i := range a.Conditions {
		c, err := a.Conditions[i].condition()
		if err != nil {
			return nil, fmt.Errorf("condition %d: %w", i, err)
		}
		t.Conditions = append(t.Conditions, c)
	}
	slices.SortStableFunc(t.Conditions, func(x, y sequence.Condition) int { return cmp.Compare(x.Chain, y.Chain) })
	if t.First == 0 && t.ReplacementID == (common.Hash{}) && len(t.Conditions) == 0 {
		return nil, nil // firstSlot 0 is any
	}
	return t, nil
}

// CancelArgs take a bundle back.
type CancelArgs struct {
	BundleHash common.Hash `json:"bundleHash"`
	// Signature is by a sender of one of the bundle's transactions, as a personal message
	// (EIP-191), over bundlepool.CancelText.
	Signature hexutil.Bytes `json:"signature"`
}

// Bundle is the result of sharedseq_getBundle.
type Bundle struct {
	BundleHash common.Hash    `json:"bundleHash"`
	Items      []ItemArgs     `json:"items"`
	ExpirySlot hexutil.Uint64 `json:"expirySlot"`
	// The others are as they were sent, absent if they were not.
	FirstSlot            *hexutil.Uint64 `json:"firstSlot,omitempty"`
	ReplacementID        *common.Hash    `json:"replacementId,omitempty"`
	ReplacementSignature hexutil.Bytes   `json:"replacementSignature,omitempty"`
	Conditions           []ConditionArgs `json:"conditions,omitempty"`
	// Bid is the sum of priority fees times gas limits, in wei.
	Bid *hexutil.Big `json:"bid"`
}

func newBundle(e *bundlepool.Entry) *Bundle {
	out := NewBundle(e.Bundle)
	out.Bid = (*hexutil.Big)(e.Bid)
	return &out
}

// NewBundle makes the result for a bundle, without its bid.
func NewBundle(b *sequence.Bundle) Bundle {
	out := Bundle{BundleHash: b.Hash(), ExpirySlot: hexutil.Uint64(b.Expiry), Bid: new(hexutil.Big)}
	for _, it := range b.Items {
		chain := hexutil.Uint64(it.Chain)
		out.Items = append(out.Items, ItemArgs{ChainID: &chain, Tx: it.Transaction, Relay: it.Relay(), MayRevert: it.MayRevert})
	}
	if t := b.Terms; t != nil {
		if first := hexutil.Uint64(t.First); first != 0 {
			out.FirstSlot = &first
		}
		if id := t.ReplacementID; id != (common.Hash{}) {
			out.ReplacementID, out.ReplacementSignature = &id, t.Signature
		}
		for i := range t.Conditions {
			out.Conditions = append(out.Conditions, newCondition(&t.Conditions[i]))
		}
	}
	return out
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
		b.Items[i] = sequence.BundleItem{Chain: sequence.ChainID(*it.ChainID), Transaction: it.Tx, MayRevert: it.MayRevert}
	}
	var err error
	if b.Terms, err = a.terms(); err != nil {
		return nil, invalidParams("%v", err)
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
	// State is pending, executed, safe, failed, expired, undone, cancelled or replaced; see
	// bundlepool.State.
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
	// ReplacedBy is the bundle that took its place, in state replaced.
	ReplacedBy *common.Hash `json:"replacedBy,omitempty"`
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
	// Simulation only. Position is the transaction's index in its block, if the bundle is the
	// first in the slot; Messages are those that it would initiate there.
	Position *hexutil.Uint64 `json:"position,omitempty"`
	Messages []Message       `json:"messages,omitempty"`
}

// Message is a log as a message that can be executed on another chain. Its identifier is
// what is signed for that, in the transaction that executes it. It holds for a bundle that
// is the first in the slot it was simulated in.
type Message struct {
	Identifier  messages.Identifier `json:"identifier"`
	PayloadHash common.Hash         `json:"payloadHash"`
	Payload     hexutil.Bytes       `json:"payload"` // topics, then data
	// Checksum and AccessList are of the executing transaction's access list: storage keys
	// of the CrossL2Inbox.
	Checksum   messages.MessageChecksum `json:"checksum"`
	AccessList []common.Hash            `json:"accessList"`
	// Destination is the chain that an L2ToL2CrossDomainMessenger message is for.
	Destination *hexutil.Uint64 `json:"destination,omitempty"`
}

// newMessages are the messages that logs would initiate in the block of a slot.
func newMessages(chain sequence.ChainID, slot sequence.Slot, logs []*types.Log) []Message {
	var out []Message
	for _, l := range logs {
		payload := messages.LogToMessagePayload(l)
		m := messages.Message{
			Identifier: messages.Identifier{
				Origin: l.Address, BlockNumber: l.BlockNumber, LogIndex: uint32(l.Index), Timestamp: uint64(slot), ChainID: chain.ID(),
			},
			PayloadHash: crypto.Keccak256Hash(payload),
		}
		made := Message{
			Identifier: m.Identifier, PayloadHash: m.PayloadHash, Payload: payload, Checksum: m.Checksum(),
			AccessList: messages.EncodeAccessList([]messages.Access{m.Access()}),
		}
		if dest, ok := relay.Destination(l); ok {
			made.Destination = (*hexutil.Uint64)(&dest)
		}
		out = append(out, made)
	}
	return out
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
	Bundles        BundleCounts   `json:"bundles"`
	Chains         []ChainStatus  `json:"chains"` // ascending by chain
	// Agreement is how this operator takes part. Absent if it is alone.
	Agreement *AgreementStatus `json:"agreement,omitempty"`
}

// BundleCounts says how many bundles of each state this operator knows.
type BundleCounts struct {
	Pending      hexutil.Uint64 `json:"pending"`
	PendingBytes hexutil.Uint64 `json:"pendingBytes"`
	Executed     hexutil.Uint64 `json:"executed"` // and not safe yet
	Undone       hexutil.Uint64 `json:"undone"`
	Ended        hexutil.Uint64 `json:"ended"` // safe, failed and expired ones that are remembered
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
	// Connected are their node IDs.
	Connected []string `json:"connected"`
	// LastLeader has made the subblock of the height before Height, which was agreed on in
	// LastRound, the leaders of as many rounds before having missed their turn. Zero until
	// this process has seen two heights.
	LastLeader common.Address `json:"lastLeader"`
	LastRound  hexutil.Uint64 `json:"lastRound"`
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
	Counted    hexutil.Uint64   `json:"counted"`   // heights that this process has seen agreed on; led, passed and voted are of them
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
	Led          hexutil.Uint64         `json:"led"`       // heights with its subblock
	Passed       hexutil.Uint64         `json:"passed"`    // turns in which it did not deliver
	Voted        hexutil.Uint64         `json:"voted"`     // heights agreed on with its vote
	LastVoted    hexutil.Uint64         `json:"lastVoted"` // the last of them, 0 if there is none
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
	if s.ReplacedBy != (common.Hash{}) {
		out.ReplacedBy = &s.ReplacedBy
	}
	if len(s.Items) > 0 {
		slot := hexutil.Uint64(s.Slot)
		out.Slot = &slot
	}
	return out
}

func newSimulation(r *bundlepool.BundleResult) *Simulation {
	out := &Simulation{Success: r.Failed == nil, Slot: hexutil.Uint64(r.Slot), Items: newItems(r.Items), Failure: newFailure(r.Failed)}
	for i, it := range r.Items {
		out.Items[i].Position = (*hexutil.Uint64)(&it.Position)
		out.Items[i].Messages = newMessages(it.Chain, r.Slot, it.Logs)
	}
	return out
}

// invalidParams is a request that is not of the documented form.
func invalidParams(format string, args ...any) error {
	return &Error{Code: CodeInvalidParams, Message: fmt.Sprintf(format, args...)}
}
