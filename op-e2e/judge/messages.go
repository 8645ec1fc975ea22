package judge

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
)

// forgery is a way in which the execution of a message is invalid. All of them begin with a
// message that was sent, and spoil one thing.
type forgery struct {
	name string
	// old: the message has expired. Nothing else is wrong with it.
	old bool
	// spoil changes the message. nil: it stays as it was sent.
	spoil  func(m *messages.Message)
	access access
	// rule refuses it. 0: the CrossL2Inbox contract does, so that nothing is executed.
	rule executor.Rule
}

// access is how a transaction declares its message in its access list.
type access uint8

const (
	declared access = iota
	undeclared
	checksumOnly // which the contract is content with
)

// unknownChain is in nobody's dependency set.
const unknownChain = 999

// forgeries are all kinds.
//
// Of RuleOrder there is none: whether a message is sent later in the same slot is decided by
// the leader and not by a sender, and upstream takes it (executor/rules.go).
func forgeries() []*forgery {
	return []*forgery{
		{name: "payload hash", rule: executor.RuleExists, spoil: func(m *messages.Message) { m.PayloadHash[0] ^= 1 }},
		{name: "origin", rule: executor.RuleExists, spoil: func(m *messages.Message) { m.Identifier.Origin[0] ^= 1 }},
		{name: "log index", rule: executor.RuleExists, spoil: func(m *messages.Message) { m.Identifier.LogIndex += 7 }},
		{name: "block number", rule: executor.RuleExists, spoil: func(m *messages.Message) { m.Identifier.BlockNumber-- }},
		{name: "timestamp", rule: executor.RuleExists, spoil: func(m *messages.Message) { m.Identifier.Timestamp-- }},
		{name: "future", rule: executor.RuleTimestamp, spoil: func(m *messages.Message) { m.Identifier.Timestamp += 1000 }},
		{name: "unknown chain", rule: executor.RuleDependencySet, spoil: func(m *messages.Message) { m.Identifier.ChainID = eth.ChainIDFromUInt64(unknownChain) }},
		{name: "expired", rule: executor.RuleExpiry, old: true},
		{name: "undeclared", access: undeclared},
		{name: "declared by its checksum only", access: checksumOnly, rule: executor.RuleDeclared},
	}
}

// forcible says whether op-supernode has to invalidate a block with it. What the contract
// refuses leaves nothing to invalidate, and RuleDeclared is ours alone: upstream's
// verification does not look at access lists (executor/rules.go).
func (f *forgery) forcible() bool { return f.rule != 0 && f.rule != executor.RuleDeclared }

// asked says whether a pool that asks about what a transaction declares is told the rule.
func (f *forgery) asked() bool { return f.rule != 0 && f.access == declared }

// refusedBy names who has to refuse it, see refuser.
func (f *forgery) refusedBy() string {
	if f.rule == 0 {
		return byContract
	}
	return f.rule.String()
}

// tx is the transaction that executes the message all the same.
func (f *forgery) tx(chain uint64, m messages.Message) (devnet.Tx, error) {
	if f.spoil != nil {
		f.spoil(&m)
	}
	tx, err := devnet.ValidateMessage(chain, 0, m, f.access != undeclared)
	if f.access == checksumOnly && err == nil {
		for i, a := range tx.AccessList {
			var keys []common.Hash
			for _, k := range a.StorageKeys {
				if a.Address == predeploys.CrossL2InboxAddr && k[0] == messages.PrefixChecksum {
					keys = append(keys, k)
				}
			}
			tx.AccessList[i].StorageKeys = keys
		}
	}
	return tx, err
}

// byContract: the CrossL2Inbox reverts, so that there is no executing message.
const byContract = "not in the access list (CrossL2Inbox)"

// refuser finds in what a user was told who refused the message, "" if it is not about one.
func refuser(why string) string {
	for r := executor.RuleDependencySet; r <= executor.RuleHistory; r++ {
		if strings.Contains(why, r.Error()) {
			return r.String()
		}
	}
	if strings.Contains(why, "NotInAccessList()") {
		return byContract
	}
	return ""
}

// book is the messages that were sent, in their order.
type book struct {
	expiry time.Duration

	mu   sync.Mutex
	sent []messages.Message
}

func (b *book) add(m messages.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent = append(b.sent, m)
}

// age of a message, as blocks that are built now count it, within a second or two.
func age(m *messages.Message) time.Duration {
	return time.Since(time.Unix(int64(m.Identifier.Timestamp), 0))
}

// expiredBy is how much older than it may be a message is before it is taken for expired:
// the clock of a slot may be behind.
const expiredBy = 5 * time.Second

// pick is a message from a chain other than the given one, false if there is none: one that
// has expired, or one that is young enough not to expire on its way.
func (b *book) pick(rng *rand.Rand, not uint64, expired bool) (messages.Message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var fit []messages.Message
	for i := range b.sent {
		m := &b.sent[i]
		old, young := age(m) > b.expiry+expiredBy, age(m) < b.expiry/2
		if m.Identifier.ChainID != eth.ChainIDFromUInt64(not) && (expired && old || !expired && young) {
			fit = append(fit, *m)
		}
	}
	if len(fit) == 0 {
		return messages.Message{}, false
	}
	return fit[rng.IntN(len(fit))], true
}
