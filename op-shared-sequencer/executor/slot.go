package executor

import (
	"fmt"
	"math"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Slot holds the logs of a slot under construction, in their global order. It is used by
// one goroutine at a time.
type Slot struct {
	x    *Executor
	slot sequence.Slot
	open map[sequence.ChainID]*openBlock
	// heads is the newest block each chain's history is read up to.
	heads map[sequence.ChainID]eth.BlockID
	// journal has one entry per Apply that added logs.
	journal []applied
	applies uint64 // ever made, so that no two entries are alike
}

type openBlock struct {
	parent eth.BlockID
	number uint64
	logs   []*types.Log // by their index in the block
}

type applied struct {
	id    uint64
	block *openBlock
	logs  int // of the block, before
}

// Tx is a transaction that was executed, with the logs it left. Calls that reverted leave
// none.
type Tx struct {
	Hash common.Hash
	// AccessList declares the messages the transaction executes; deposits have none.
	AccessList types.AccessList
	// Logs are the transaction's logs with their index in the block. They are kept until
	// the slot is done with, and must not change.
	Logs []*types.Log

	decoded  bool
	executes []executes
}

// executes is a log of a transaction that executes a message, or pretends to.
type executes struct {
	log     int // index in the transaction
	message *messages.ExecutingMessage
	err     error
}

// Decode finds the messages that the transaction executes. Apply does it if nobody has; it
// is most of the work, depends on nothing else, and so can be done for several transactions
// at once.
func (t *Tx) Decode() {
	if t.decoded {
		return
	}
	t.decoded = true
	for i, l := range t.Logs {
		if m, err := messages.DecodeExecutingMessageLog(l); m != nil || err != nil {
			t.executes = append(t.executes, executes{i, m, err})
		}
	}
}

// NewTx takes what the executor needs from a transaction.
func NewTx(tx *types.Transaction, logs []*types.Log) Tx {
	return Tx{Hash: tx.Hash(), AccessList: tx.AccessList(), Logs: logs}
}

// Number is the slot's number.
func (s *Slot) Number() sequence.Slot { return s.slot }

// Apply takes the next transactions of the global order, all on one chain. Every log of
// the chain's block has to come through Apply, those of deposits and of plain transactions
// too. It checks every executing message against what came before: a message may be
// executed by the transaction that initiated it, in a later log. On error nothing of the
// call was added; a *MessageError says which message was refused and by which rule, and
// ErrMisuse that the logs are not the next ones of the block.
func (s *Slot) Apply(chain sequence.ChainID, txs []Tx) error {
	b := s.open[chain]
	if b == nil {
		return fmt.Errorf("%w: chain %s has no block in slot %d", ErrMisuse, chain, s.slot)
	}
	before := len(b.logs)
	for i := range txs {
		if err := s.apply(chain, b, &txs[i]); err != nil {
			b.truncate(before)
			return err
		}
	}
	if len(b.logs) > before {
		s.applies++
		s.journal = append(s.journal, applied{id: s.applies, block: b, logs: before})
	}
	return nil
}

func (s *Slot) apply(chain sequence.ChainID, b *openBlock, tx *Tx) error {
	tx.Decode()
	declared, next := declarations{list: tx.AccessList}, tx.executes
	for i, l := range tx.Logs {
		index := len(b.logs)
		if uint64(l.Index) != uint64(index) || index > math.MaxUint32 {
			return fmt.Errorf("%w: chain %s slot %d tx %s: log has index %d, the block has %d logs so far", ErrMisuse, chain, s.slot, tx.Hash, l.Index, index)
		}
		if len(next) > 0 && next[0].log == i {
			m, err := next[0].message, next[0].err
			next = next[1:]
			if err != nil {
				// Upstream takes such a log for no message. The CrossL2Inbox cannot emit
				// one; if it did, it could not have been declared.
				return refuse(RuleDeclared, "%v", err).at(chain, s.slot, tx.Hash, uint32(index), nil)
			}
			if no := s.check(chain, m, &declared); no != nil {
				return no.at(chain, s.slot, tx.Hash, uint32(index), m)
			}
		}
		b.logs = append(b.logs, l)
	}
	return nil
}

// Adopt takes transactions that the operators have agreed on: their logs are added
// without judging messages again, so that an operator can follow that could not check
// them at the time. Logs that are there already, by their index, are passed over.
func (s *Slot) Adopt(chain sequence.ChainID, txs []Tx) error {
	b := s.open[chain]
	if b == nil {
		return fmt.Errorf("%w: chain %s has no block in slot %d", ErrMisuse, chain, s.slot)
	}
	before := len(b.logs)
	for i := range txs {
		for _, l := range txs[i].Logs {
			if uint64(l.Index) > uint64(len(b.logs)) {
				b.truncate(before)
				return fmt.Errorf("%w: chain %s slot %d tx %s: log has index %d, the block has %d logs so far", ErrMisuse, chain, s.slot, txs[i].Hash, l.Index, len(b.logs))
			}
			if int(l.Index) == len(b.logs) {
				b.logs = append(b.logs, l)
			}
		}
	}
	if len(b.logs) > before {
		s.applies++
		s.journal = append(s.journal, applied{id: s.applies, block: b, logs: before})
	}
	return nil
}

// check judges a message that is executed by the next log of the global order.
func (s *Slot) check(executing sequence.ChainID, m *messages.ExecutingMessage, declared *declarations) *refusal {
	t := uint64(s.slot)
	initiating, no := s.x.link(executing, t, m)
	if no != nil {
		return no
	}
	if no := declared.check(m); no != nil {
		return no
	}
	if b := s.open[initiating]; b != nil && m.Timestamp == t {
		return b.check(t, m)
	}
	head, ok := s.heads[initiating]
	if !ok {
		return &refusal{rule: RuleHistory, reason: fmt.Sprintf("chain %s has no history yet", initiating), cause: errIncomplete}
	}
	return s.x.lookup(initiating, head, m)
}

// check judges a message that says it was initiated in this block.
func (b *openBlock) check(t uint64, m *messages.ExecutingMessage) *refusal {
	if m.BlockNum != b.number {
		return refuse(RuleExists, "block at %d is %d, not %d", t, b.number, m.BlockNum)
	}
	if uint64(m.LogIdx) >= uint64(len(b.logs)) {
		return refuse(RuleOrder, "block %d has %d logs so far", b.number, len(b.logs))
	}
	l := b.logs[m.LogIdx]
	want := messages.ChecksumArgs{
		BlockNumber: b.number, LogIndex: m.LogIdx, Timestamp: t, ChainID: m.ChainID, LogHash: messages.LogToLogHash(l),
	}.Checksum()
	if want != m.Checksum {
		return refuse(RuleExists, "checksum is %s, not %s", want, m.Checksum)
	}
	return nil
}

func (b *openBlock) truncate(n int) {
	clear(b.logs[n:])
	b.logs = b.logs[:n]
}

// declarations is a transaction's access list, decoded when it is first needed.
type declarations struct {
	list    types.AccessList
	decoded bool
	access  []messages.Access
	err     error
}

func (d *declarations) check(m *messages.ExecutingMessage) *refusal {
	if !d.decoded {
		d.access, d.err = messages.DecodeAccessList(d.list)
		d.decoded = true
	}
	if d.err != nil {
		return refuse(RuleDeclared, "access list: %v", d.err)
	}
	if !slices.ContainsFunc(d.access, func(a messages.Access) bool { return messageOf(a) == *m }) {
		return refuse(RuleDeclared, "the transaction's access list declares %d messages, not this one", len(d.access))
	}
	return nil
}

// Mark is a place in a slot's global order that can be gone back to.
type Mark struct {
	slot    *Slot
	entries int
	last    uint64
}

// Mark names the place behind everything applied so far, on all chains.
func (s *Slot) Mark() Mark {
	m := Mark{slot: s, entries: len(s.journal)}
	if m.entries > 0 {
		m.last = s.journal[m.entries-1].id
	}
	return m
}

// Rollback forgets what was applied after the mark, on all chains. The mark, and those
// before it, stay usable; going back to a later mark is ErrMisuse.
func (s *Slot) Rollback(m Mark) error {
	if m.slot != s || m.entries > len(s.journal) || (m.entries > 0 && s.journal[m.entries-1].id != m.last) {
		return fmt.Errorf("%w: slot %d: rollback to a mark that is gone", ErrMisuse, s.slot)
	}
	for i := len(s.journal) - 1; i >= m.entries; i-- {
		s.journal[i].block.truncate(s.journal[i].logs)
	}
	clear(s.journal[m.entries:])
	s.journal = s.journal[:m.entries]
	return nil
}
