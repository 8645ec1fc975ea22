package executor

import (
	"errors"
	"fmt"
	"math"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Rule is one condition an executing message has to meet. A Rule is an error, so
// that errors.Is(err, RuleExpiry) tells why a message was refused. Sections named
// below are of the OP Stack specification, folder interop.
type Rule uint8

const (
	// RuleDependencySet: the executing and the initiating chain are both in the
	// dependency set and known to this node. messaging.md, "ChainID Invariant".
	RuleDependencySet Rule = iota + 1
	// RuleExecutingActivation: interop has been active for a full block on the
	// executing chain; its activation block executes nothing. derivation.md,
	// "Activation Block"; messaging.md, "Timestamp Invariant".
	RuleExecutingActivation
	// RuleInitiatingActivation: the same for the block of the initiating message.
	RuleInitiatingActivation
	// RuleTimestamp: the initiating message is not from a later timestamp than the
	// block that executes it; the same timestamp is allowed. messaging.md, "Timestamp
	// Invariant".
	RuleTimestamp
	// RuleExpiry: the executing block is at most the expiry window younger than the
	// initiating message, both ends included. messaging.md, "Message Expiry Invariant".
	RuleExpiry
	// RuleDeclared: the transaction's access list declares the message, in the form
	// of predeploys.md, "CrossL2Inbox", "Access-list". Upstream enforces the checksum
	// entry inside the CrossL2Inbox contract and the rest only at ingress; here it is
	// a rule, because what a transaction depends on must be known before it runs. A
	// deposit has no access list, so it never executes a message: the contract refuses
	// that too (predeploys.md, "validateMessage").
	RuleDeclared
	// RuleExists: the initiating message is at exactly that block, log index and
	// timestamp of the initiating chain, with exactly that checksum, which covers
	// origin and payload. messaging.md, "Message Identifier" and "Invalid messages".
	RuleExists
	// RuleOrder: an initiating message of the slot under construction comes earlier in
	// the slot's global order than the log that executes it. The specification allows
	// any order within a timestamp and refuses cycles ("Intra-block messaging: cycles");
	// one order over all chains makes cycles impossible to build.
	RuleOrder
	// RuleHistory is not about the message: this node does not have the history that is
	// needed to judge it, so it must neither include the message nor vote for it.
	RuleHistory
)

var rules = [...]struct {
	name string
	// code is the upstream error that names the same refusal on upstream's RPC.
	code error
}{
	RuleDependencySet:        {"dependency set", interop.ErrUnknownChain},
	RuleExecutingActivation:  {"activation on the executing chain", interop.ErrConflict},
	RuleInitiatingActivation: {"activation on the initiating chain", interop.ErrConflict},
	RuleTimestamp:            {"timestamp", interop.ErrConflict},
	RuleExpiry:               {"expiry", interop.ErrConflict},
	RuleDeclared:             {"declared in the access list", interop.ErrConflict},
	RuleExists:               {"exact place and checksum", interop.ErrConflict},
	RuleOrder:                {"earlier in the global order", interop.ErrFuture},
	RuleHistory:              {"history available", interop.ErrUninitialized},
}

func (r Rule) String() string {
	if r == 0 || int(r) >= len(rules) {
		return fmt.Sprintf("rule %d", uint8(r))
	}
	return rules[r].name
}

func (r Rule) Error() string { return "interop rule: " + r.String() }

// MessageError says which executing message was refused, where, and by which rule.
// errors.Is matches its Rule and the upstream error whose RPC code
// (interop.GetErrorCode) stands for the refusal.
type MessageError struct {
	Chain    sequence.ChainID // the executing chain
	Slot     sequence.Slot
	Tx       common.Hash // zero when an access list was checked, not a transaction
	LogIndex uint32      // of the executing log in its block; of the access in a list
	// Message is what was to be executed; zero if it could not be decoded.
	Message messages.ExecutingMessage
	Rule    Rule
	Reason  string
	// Cause is the error of the history, if there was one.
	Cause error
}

func (e *MessageError) Error() string {
	m := &e.Message
	return fmt.Sprintf("chain %s slot %d tx %s log %d: message of chain %s block %d log %d time %d refused, rule %q: %s",
		e.Chain, e.Slot, e.Tx, e.LogIndex, m.ChainID, m.BlockNum, m.LogIdx, m.Timestamp, e.Rule, e.Reason)
}

func (e *MessageError) Unwrap() []error {
	if e.Cause != nil {
		// The history's error carries the more exact upstream error.
		return []error{e.Rule, e.Cause}
	}
	if int(e.Rule) < len(rules) && rules[e.Rule].code != nil {
		return []error{e.Rule, rules[e.Rule].code}
	}
	return []error{e.Rule}
}

// refusal is a verdict against a message, before it is known where the message is.
type refusal struct {
	rule   Rule
	reason string
	cause  error
}

func refuse(rule Rule, format string, args ...any) *refusal {
	return &refusal{rule: rule, reason: fmt.Sprintf(format, args...)}
}

func (r *refusal) at(chain sequence.ChainID, slot sequence.Slot, tx common.Hash, log uint32, m *messages.ExecutingMessage) *MessageError {
	e := &MessageError{Chain: chain, Slot: slot, Tx: tx, LogIndex: log, Rule: r.rule, Reason: r.reason, Cause: r.cause}
	if m != nil {
		e.Message = *m
	}
	return e
}

// link judges everything that follows from the two chains and the two timestamps:
// the dependency set, activation, timestamp and expiry rules, in the order of
// upstream's verification. It returns the initiating chain.
func (x *Executor) link(executing sequence.ChainID, t uint64, m *messages.ExecutingMessage) (sequence.ChainID, *refusal) {
	to, ok := x.chains[executing]
	if !ok || !x.depset.HasChain(executing.ID()) {
		return 0, refuse(RuleDependencySet, "executing chain %s is not in the dependency set", executing)
	}
	id, fits := m.ChainID.Uint64()
	initiating := sequence.ChainID(id)
	from, ok := x.chains[initiating]
	if !fits || !ok || !x.depset.HasChain(m.ChainID) {
		return 0, refuse(RuleDependencySet, "initiating chain %s is not in the dependency set", m.ChainID)
	}
	if first, ok := to.firstMessageTime(); !ok || t < first {
		return 0, refuse(RuleExecutingActivation, "executed at %d, chain %s executes messages from %s", t, executing, timeOrNever(first, ok))
	}
	if first, ok := from.firstMessageTime(); !ok || m.Timestamp < first {
		return 0, refuse(RuleInitiatingActivation, "initiated at %d, chain %s initiates messages from %s", m.Timestamp, initiating, timeOrNever(first, ok))
	}
	if m.Timestamp > t {
		return 0, refuse(RuleTimestamp, "initiated at %d, expected at most %d", m.Timestamp, t)
	}
	if t-m.Timestamp > x.expiry {
		return 0, refuse(RuleExpiry, "%d s old, expected at most %d s", t-m.Timestamp, x.expiry)
	}
	return initiating, nil
}

func timeOrNever(first uint64, scheduled bool) string {
	if !scheduled {
		return "no time on: interop is not scheduled"
	}
	return fmt.Sprintf("%d", first)
}

// firstMessageTime is the first timestamp that is not before or in the activation
// block, false if interop is not scheduled. The activation block is the first with a
// timestamp at or after the activation time, so it ends one block time later at most.
func (c *ChainConfig) firstMessageTime() (uint64, bool) {
	if c.InteropTime == nil {
		return 0, false
	}
	if *c.InteropTime > math.MaxUint64-c.BlockTime {
		return math.MaxUint64, true
	}
	return *c.InteropTime + c.BlockTime, true
}

// lookup asks the history whether m is there, in the chain that ends in head.
func (x *Executor) lookup(initiating sequence.ChainID, head blockID, m *messages.ExecutingMessage) *refusal {
	err := x.history.Contains(initiating, head, messages.ContainsQuery{
		Timestamp: m.Timestamp, BlockNum: m.BlockNum, LogIdx: m.LogIdx, Checksum: m.Checksum,
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSuchMessage):
		return &refusal{rule: RuleExists, reason: err.Error(), cause: err}
	default:
		return &refusal{rule: RuleHistory, reason: err.Error(), cause: err}
	}
}
