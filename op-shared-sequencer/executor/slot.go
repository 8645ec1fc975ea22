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
// one goroutine at a time, except for Prepare.
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
	logs   []Log // by their index in the block
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
	logs     []Log
	bad      map[int]error // of logs that pretend to execute a message
	declared []messages.Access
	badList  error // why the access list declares nothing

	prepared place            // what the transaction was prepared for
	refused  map[int]*refusal // of its logs, by what was known before the slot
}

// place is where a transaction runs.
type place struct {
	slot  *Slot
	chain sequence.ChainID
}

// decode works out what follows from the transaction alone: hashes of its logs, the messages
// it executes and those it declares.
func (t *Tx) decode() {
	if t.decoded {
		return
	}
	t.decoded = true
	executes := false
	t.logs = make([]Log, len(t.Logs))
	for i, l := range t.Logs {
		var err error
		if t.logs[i], err = newLog(l); err != nil {
			if t.bad == nil {
				t.bad = make(map[int]error)
			}
			t.bad[i] = err
		}
		if t.logs[i].Executes != nil {
			executes = true
		} else {
			t.logs[i].Hash() // others are hardly ever messages themselves: Commit has time for them
		}
	}
	if executes {
		t.declared, t.badList = messages.DecodeAccessList(t.AccessList)
	}
}

// Prepare judges the messages that transactions on one chain execute by everything but the
// order of the slot: Apply is left with the messages of the slot itself. It does most of the
// work, and may be called for several lists of transactions at once, in any order, while
// nothing else is done with the slot.
func (s *Slot) Prepare(chain sequence.ChainID, txs []Tx) {
	for i := range txs {
		s.prepare(chain, &txs[i])
	}
}

func (s *Slot) prepare(chain sequence.ChainID, t *Tx) {
	t.decode()
	if here := (place{s, chain}); t.prepared != here {
		t.prepared, t.refused = here, nil
		for i := range t.logs {
			m := t.logs[i].Executes
			if m == nil {
				continue
			}
			if no := s.judge(chain, m, t); no != nil {
				if t.refused == nil {
					t.refused = make(map[int]*refusal)
				}
				t.refused[i] = no
			}
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
	before, more := len(b.logs), 0
	for i := range txs {
		more += len(txs[i].Logs)
	}
	b.logs = slices.Grow(b.logs, more)
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
	s.prepare(chain, tx)
	for i, l := range tx.Logs {
		index := len(b.logs)
		if uint64(l.Index) != uint64(index) || index > math.MaxUint32 {
			return fmt.Errorf("%w: chain %s slot %d tx %s: log has index %d, the block has %d logs so far", ErrMisuse, chain, s.slot, tx.Hash, l.Index, index)
		}
		if err := tx.bad[i]; err != nil {
			// Upstream takes such a log for no message. The CrossL2Inbox cannot emit
			// one; if it did, it could not have been declared.
			return refuse(RuleDeclared, "%v", err).at(chain, s.slot, tx.Hash, uint32(index), nil)
		}
		if m := tx.logs[i].Executes; m != nil {
			no := tx.refused[i]
			if initiating := s.openBlockOf(m); no == nil && initiating != nil {
				no = initiating.check(uint64(s.slot), &tx.logs[i])
			}
			if no != nil {
				return no.at(chain, s.slot, tx.Hash, uint32(index), m)
			}
		}
		b.logs = append(b.logs, tx.logs[i])
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
		txs[i].decode()
		for n, l := range txs[i].Logs {
			if uint64(l.Index) > uint64(len(b.logs)) {
				b.truncate(before)
				return fmt.Errorf("%w: chain %s slot %d tx %s: log has index %d, the block has %d logs so far", ErrMisuse, chain, s.slot, txs[i].Hash, l.Index, len(b.logs))
			}
			if int(l.Index) == len(b.logs) {
				b.logs = append(b.logs, txs[i].logs[n])
			}
		}
	}
	if len(b.logs) > before {
		s.applies++
		s.journal = append(s.journal, applied{id: s.applies, block: b, logs: before})
	}
	return nil
}

// judge judges a message by everything that was known before the slot.
func (s *Slot) judge(executing sequence.ChainID, m *messages.ExecutingMessage, tx *Tx) *refusal {
	initiating, no := s.x.link(executing, uint64(s.slot), m)
	if no != nil {
		return no
	}
	if no := tx.declares(m); no != nil {
		return no
	}
	if s.openBlockOf(m) != nil {
		return nil // to be found among the logs of the slot so far
	}
	head, ok := s.heads[initiating]
	if !ok {
		return &refusal{rule: RuleHistory, reason: fmt.Sprintf("chain %s has no history yet", initiating), cause: errIncomplete}
	}
	return s.x.lookup(initiating, head, m)
}

// openBlockOf is the block under construction that a message says it was initiated in, nil
// if it is of another slot. The message's chain is a chain's: see link.
func (s *Slot) openBlockOf(m *messages.ExecutingMessage) *openBlock {
	if m.Timestamp != uint64(s.slot) {
		return nil
	}
	id, _ := m.ChainID.Uint64()
	return s.open[sequence.ChainID(id)]
}

// check judges a message that says it was initiated in this block. A message's checksum covers
// its place and the hash of the log: with the same place, it is the same log if the hash is
// the same, and no checksum has to be worked out while others wait.
func (b *openBlock) check(t uint64, l *Log) *refusal {
	m := l.Executes
	if m.BlockNum != b.number {
		return refuse(RuleExists, "block at %d is %d, not %d", t, b.number, m.BlockNum)
	}
	if uint64(m.LogIdx) >= uint64(len(b.logs)) {
		return refuse(RuleOrder, "block %d has %d logs so far", b.number, len(b.logs))
	}
	if have := b.logs[m.LogIdx].Hash(); have != l.names {
		return refuse(RuleExists, "log hash is %s, not %s", have, l.names)
	}
	return nil
}

func (b *openBlock) truncate(n int) {
	clear(b.logs[n:])
	b.logs = b.logs[:n]
}

// declares judges whether the access list has a message that the transaction executes.
func (t *Tx) declares(m *messages.ExecutingMessage) *refusal {
	if t.badList != nil {
		return refuse(RuleDeclared, "access list: %v", t.badList)
	}
	if !slices.ContainsFunc(t.declared, func(a messages.Access) bool { return messageOf(a) == *m }) {
		return refuse(RuleDeclared, "the transaction's access list declares %d messages, not this one", len(t.declared))
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
