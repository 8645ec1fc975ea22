package sequence

import (
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
)

// Place is where a step stands in its subblock. Cross-chain work has its place by rule, in
// the order of these constants:
type Place uint8

const (
	// BeforeFills: bundles that had come when the pools were asked, in the order they came.
	BeforeFills Place = iota
	// Fill: plain transactions of the pools, one step for each chain, ascending by chain.
	Fill
	// PlainRelay: executions of messages that plain transactions have sent, a step each.
	PlainRelay
	// AfterFills: bundles that came later, in the order they came.
	AfterFills
)

func (p Place) String() string { return [...]string{"bundle", "fill", "relay", "late bundle"}[p] }

// Places says where each step stands, and fails if one stands where the rule has no place
// for it. That bundles stand in the order they came in only the leader knows.
func (s *Subblock) Places() ([]Place, error) {
	places := make([]Place, len(s.Steps))
	at, filled := BeforeFills, ChainID(0)
	for i := range s.Steps {
		st := &s.Steps[i]
		switch {
		case st.Bundle != (common.Hash{}):
			if at != BeforeFills {
				at = AfterFills
			}
		case at == AfterFills:
			return nil, fmt.Errorf("step %d has plain transactions of chain %s behind a bundle that came after the fills", i, st.Chain)
		case at < PlainRelay && st.Chain > filled: // no chain has ID 0
			at, filled = Fill, st.Chain
		case len(st.Transactions) != 1 || !executesMessage(st.Transactions[0]):
			return nil, fmt.Errorf("step %d has plain transactions of chain %s behind the fill of chain %s: expected one transaction that executes a message", i, st.Chain, filled)
		default:
			at = PlainRelay
		}
		places[i] = at
	}
	return places, nil
}

func executesMessage(raw []byte) bool {
	tx := new(types.Transaction)
	return tx.UnmarshalBinary(raw) == nil && Executes(tx)
}

// Executes says whether a transaction may execute a message: that needs the CrossL2Inbox in
// its access list.
func Executes(tx *types.Transaction) bool {
	return slices.ContainsFunc(tx.AccessList(), func(a types.AccessTuple) bool { return a.Address == params.InteropCrossL2InboxAddress })
}
