package relay

import (
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Mode is which messages an operator relays when it leads, at its own cost.
type Mode string

const (
	// Off: none; bundles with relay steps fail.
	Off Mode = "off"
	// Bundles: those of relay steps of bundles.
	Bundles Mode = "bundles"
	// AllowList: also those that plain transactions send, from or to accounts on a list.
	AllowList Mode = "allow-list"
	// All: also all that plain transactions send.
	All Mode = "all"
)

// Modes are all modes, the most careful first.
var Modes = []Mode{Off, Bundles, AllowList, All}

// Policy says which messages of plain transactions are relayed in the slot they are sent in.
// What is not relayed then can be by anybody later, as everywhere in the OP Stack.
type Policy struct {
	Mode Mode
	// Allowed are senders and targets of messages, in mode AllowList.
	Allowed []common.Address
	// SlotGas is how much gas relays of plain messages may use in a slot, on all chains
	// together; SenderGas what those of one sender may. What reverts counts too, although it
	// is not in the block: it took the time.
	SlotGas   uint64
	SenderGas uint64
}

// DefaultPolicy relays for bundles only.
func DefaultPolicy() Policy {
	return Policy{Mode: Bundles, SlotGas: 10_000_000, SenderGas: 2_000_000}
}

// Check says whether the policy can be used.
func (p *Policy) Check() error {
	switch {
	case !slices.Contains(Modes, p.Mode):
		return fmt.Errorf("relay policy %q, expected one of %v", p.Mode, Modes)
	case p.Mode == AllowList && len(p.Allowed) == 0:
		return fmt.Errorf("relay policy %s without an address on the list", p.Mode)
	case p.Mode != AllowList && len(p.Allowed) > 0:
		return fmt.Errorf("relay policy %s with a list of addresses, which is for %s", p.Mode, AllowList)
	case p.Plain() && (p.SlotGas == 0 || p.SenderGas == 0):
		return fmt.Errorf("relay policy %s with a gas budget of 0", p.Mode)
	}
	return nil
}

// maxMessage bounds the bytes of a message that is relayed by itself: the relayer pays for
// them on L1, too, which no gas budget counts.
const maxMessage = 16 << 10

// Plain says whether messages of plain transactions are relayed at all.
func (p *Policy) Plain() bool { return p.Mode == AllowList || p.Mode == All }

// Takes says whether a message of a plain transaction is to be relayed.
func (p *Policy) Takes(l *types.Log) bool {
	if len(l.Data) > maxMessage {
		return false
	}
	if p.Mode != AllowList {
		return p.Mode == All
	}
	return slices.Contains(p.Allowed, Sender(l)) || slices.Contains(p.Allowed, common.BytesToAddress(l.Topics[2][:]))
}

// Sender is who called the messenger to send a message. Only for logs that have a Destination.
func Sender(l *types.Log) common.Address {
	// SentMessage(destination, target, messageNonce, address sender, bytes message): the
	// first three are indexed.
	if len(l.Data) < common.HashLength {
		return common.Address{}
	}
	return common.BytesToAddress(l.Data[:common.HashLength])
}
