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
