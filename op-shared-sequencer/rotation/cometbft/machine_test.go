package cometbft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// pacer tells all machines of a cluster when subblocks are due: one per interval, counted
// from the first commit anywhere.
type pacer struct {
	interval time.Duration
	base     atomic.Int64 // Unix nanoseconds
}

func (p *pacer) due(height int) time.Time {
	base := p.base.Load()
	if base == 0 {
		return time.Time{}
	}
	return time.Unix(0, base).Add(time.Duration(height) * p.interval)
}

func (p *pacer) committed(height int) {
	p.base.CompareAndSwap(0, time.Now().Add(-time.Duration(height)*p.interval).UnixNano())
}

// memLedger is what survives a machine: the slots, and the agreement of the newest.
type memLedger struct {
	mu     sync.Mutex
	slots  [][]*sequence.Subblock
	agreed [][]byte // per slot
}

// forget loses the newest slots.
func (l *memLedger) forget(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots, l.agreed = l.slots[:len(l.slots)-n], l.agreed[:len(l.agreed)-n]
}

func (l *memLedger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.slots)
}

func (l *memLedger) copy() *memLedger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &memLedger{slots: slices.Clone(l.slots), agreed: slices.Clone(l.agreed)}
}

// fakeMachine makes subblocks of random bytes, perSlot to a slot. It keeps to the contract of
// rotation.Machine, and notes when the rotation does not.
type fakeMachine struct {
	name    string
	leader  common.Address
	perSlot uint64
	content []byte // of a subblock's transaction
	pace    *pacer
	ledger  *memLedger
	busy    atomic.Bool // in Propose, Verify or Commit

	mu      sync.Mutex
	order   []*sequence.Subblock // all that were committed, from the ledger's first
	open    []*sequence.Subblock // of the slot under way
	hashes  map[*sequence.Subblock]common.Hash
	known   map[common.Hash]bool // verified or proposed behind the newest
	at      []time.Time          // of the commits in order
	agreed  []rotation.Agreed    // what it was told before each of them
	wrong   []string             // breaches of the contract
	chains  []sequence.ChainID
	leads   int
	ready   [][]sequence.ChainID // what Propose was told
	proposd map[common.Hash]time.Time

	// What tests put in between. Called without the lock.
	onPropose func(ctx context.Context, height int) error
	onVerify  func(ctx context.Context, sub *sequence.Subblock) error
	onCommit  func(ctx context.Context, sub *sequence.Subblock, height int) error
	afterward func(sub *sequence.Subblock, height int) error // after the ledger's write
	readyFor  func() []sequence.ChainID
}

var _ rotation.Machine = (*fakeMachine)(nil)

func newFakeMachine(name string, leader common.Address, perSlot uint64, pace *pacer, ledger *memLedger) *fakeMachine {
	m := &fakeMachine{
		name: name, leader: leader, perSlot: perSlot, content: make([]byte, 100), pace: pace, ledger: ledger,
		known: map[common.Hash]bool{}, hashes: map[*sequence.Subblock]common.Hash{}, proposd: map[common.Hash]time.Time{},
	}
	for _, slot := range ledger.slots {
		m.order = append(m.order, slot...)
	}
	return m
}

var _ rotation.Witness = (*fakeMachine)(nil)

func (m *fakeMachine) Witness(a rotation.Agreed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.agreed = append(m.agreed, a)
}

func (m *fakeMachine) enter(call string) func() {
	if m.busy.Swap(true) {
		m.mu.Lock()
		m.wrong = append(m.wrong, call+" while another call is in progress")
		m.mu.Unlock()
	}
	return func() { m.busy.Store(false) }
}

// hash of a subblock, worked out once as the real machine does. The caller holds mu.
func (m *fakeMachine) hash(sub *sequence.Subblock) common.Hash {
	h, ok := m.hashes[sub]
	if !ok {
		h = sub.Hash()
		m.hashes[sub] = h
	}
	return h
}

// place is that of the subblock behind the newest: slot, index, parent.
func (m *fakeMachine) place() (sequence.Slot, uint64, common.Hash) {
	if len(m.order) == 0 {
		return 1, 0, common.Hash{}
	}
	last := m.order[len(m.order)-1]
	if last.Last() {
		return last.Slot + 1, 0, m.hash(last)
	}
	return last.Slot, last.Index + 1, m.hash(last)
}

// make builds a subblock with content that salt makes different.
func (m *fakeMachine) make(salt byte) *sequence.Subblock {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot, index, parent := m.place()
	tx := append(append(m.leader.Bytes(), salt), m.content...)
	s := &sequence.Subblock{
		Slot: slot, Index: index, Parent: parent,
		Steps:   []sequence.Step{{Chain: 901, Transactions: [][]byte{tx}}},
		Results: []sequence.Result{{Chain: 901}},
	}
	if index == 0 {
		s.Openings = []sequence.Opening{{Chain: 901, ParentNumber: uint64(slot)}}
	}
	if index+1 == m.perSlot {
		s.Seals = []sequence.Seal{{Chain: 901, BlockHash: common.Hash{byte(slot)}, Number: uint64(slot)}}
	}
	return s
}

func leaderOf(s *sequence.Subblock) common.Address {
	return common.Address(s.Steps[0].Transactions[0][:20])
}

func (m *fakeMachine) Next(context.Context) error { return errors.New("not used") }

func (m *fakeMachine) Due([]sequence.ChainID) time.Time { return m.pace.due(m.height() + 1) }

func (m *fakeMachine) Lead([]sequence.ChainID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads++
}

func (m *fakeMachine) Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error) {
	defer m.enter("Propose")()
	m.mu.Lock()
	m.ready = append(m.ready, ready)
	m.mu.Unlock()
	if m.onPropose != nil {
		if err := m.onPropose(ctx, m.height()+1); err != nil {
			return nil, err
		}
	}
	if wait := time.Until(m.Due(ready)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", rotation.ErrPass, ctx.Err())
		}
	}
	s := m.make(0)
	m.mu.Lock()
	defer m.mu.Unlock()
	hash := m.hash(s)
	m.known[hash] = true
	m.proposd[hash] = time.Now()
	return s, nil
}

func (m *fakeMachine) Verify(ctx context.Context, sub *sequence.Subblock) error {
	defer m.enter("Verify")()
	if m.onVerify != nil {
		if err := m.onVerify(ctx, sub); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	slot, index, parent := m.place()
	if sub.Slot != slot || sub.Index != index || sub.Parent != parent {
		return fmt.Errorf("subblock %d of slot %d behind %s does not fit", sub.Index, sub.Slot, sub.Parent)
	}
	if tx := sub.Steps[0].Transactions[0]; tx[20] >= 0xbd {
		return errors.New("a bad message")
	}
	m.known[m.hash(sub)] = true
	return nil
}

func (m *fakeMachine) Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error {
	defer m.enter("Commit")()
	if m.onCommit != nil {
		if err := m.onCommit(ctx, sub, m.height()+1); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	slot, index, parent := m.place()
	if sub.Slot != slot || sub.Index != index || sub.Parent != parent {
		m.wrong = append(m.wrong, fmt.Sprintf("commit of subblock %d of slot %d, expected %d of %d", sub.Index, sub.Slot, index, slot))
	}
	if sub.Last() != (agreement != nil) {
		m.wrong = append(m.wrong, fmt.Sprintf("subblock %d: last is %t, and %d bytes of agreement", sub.Index, sub.Last(), len(agreement)))
	}
	m.order = append(m.order, sub)
	m.at = append(m.at, time.Now())
	m.open = append(m.open, sub)
	clear(m.known)
	m.pace.committed(len(m.order))
	if sub.Last() {
		m.ledger.mu.Lock()
		m.ledger.slots = append(m.ledger.slots, m.open)
		m.ledger.agreed = append(m.ledger.agreed, agreement)
		m.ledger.mu.Unlock()
		m.open = nil
	}
	if m.afterward != nil {
		return m.afterward(sub, len(m.order))
	}
	return nil
}

func (m *fakeMachine) Ready() []sequence.ChainID {
	if m.readyFor != nil {
		return m.readyFor()
	}
	return []sequence.ChainID{901, 902}
}

func (m *fakeMachine) Agreed() []byte {
	m.ledger.mu.Lock()
	defer m.ledger.mu.Unlock()
	if len(m.ledger.agreed) == 0 {
		return nil
	}
	return m.ledger.agreed[len(m.ledger.agreed)-1]
}

func (m *fakeMachine) SetChains(chains []sequence.ChainID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chains = chains
	return nil
}

func (m *fakeMachine) height() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.order)
}

// history is what was committed, and when, from the height that the machine began behind.
func (m *fakeMachine) history() ([]*sequence.Subblock, []time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order), slices.Clone(m.at)
}
