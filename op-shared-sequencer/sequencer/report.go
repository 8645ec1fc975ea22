package sequencer

import (
	"context"
	"errors"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// SlotReport is what happened in a sealed slot, and what its parts cost.
type SlotReport struct {
	Slot   sequence.Slot
	Blocks []BlockReport // ascending by chain
	// Executed, Failed and PutOff count the bundles that were run in the slot; those put off
	// are tried again.
	Executed, Failed, PutOff int
	// Late is when the slot was handed over, after its timestamp; negative: before it.
	Late time.Duration

	// Subblocks is how many subblocks the slot had; Led, how many this operator proposed.
	Subblocks, Led int

	// Relayed counts what became of messages that plain transactions sent, in what this
	// operator proposed.
	Relayed builder.Relayed

	seen []common.Hash // bundles that other operators executed

	// Fill, Relays, Bundles, Cut and Seal are of what this operator proposed, Verify of what
	// others did. Agree is from when a subblock was run here until it was agreed on.
	Attributes, Open, Fill, Relays, Bundles, Cut, Seal, Verify, Agree, Log, HandOver, Index time.Duration

	// Turns are who led the subblocks, in their order, where the rotation tells.
	Turns []rotation.Turn
	// Spans are when the parts of the slot were made, also those that were made in vain.
	Spans []Span
}

// BlockReport is one chain's block in a slot.
type BlockReport struct {
	Chain        sequence.ChainID
	Ref          eth.L2BlockRef
	Transactions int // deposits included
	GasUsed      uint64
	Logs         int
	Messages     int // executed
}

// Committed is a subblock that was agreed on, as this operator has it. What it points to is
// shared and must not be changed.
type Committed struct {
	Subblock *sequence.Subblock
	Hash     common.Hash
	// Agreed is zero when the operator is alone.
	Agreed rotation.Agreed
	At     time.Time
	// Results are those of each step's transactions, in their order, with logs: what
	// receipts and executing messages are read from. nil: this operator has not run the
	// subblock yet, because it was agreed on without it.
	Results [][]engine.TxResult
	// Led: this operator proposed it. Tried are the bundles it ran for it then, with what
	// became of them, those that failed too.
	Led   bool
	Tried []builder.Tried
	// Blocks are the blocks of the slot that this operator has run, ascending by chain. nil if
	// it has not run the subblock yet.
	Blocks []CommittedBlock
}

// CommittedBlock is one chain's block of a slot, behind a subblock.
type CommittedBlock struct {
	Chain  sequence.ChainID
	Header engine.Header
	Forced []engine.TxResult // its deposits
	// Sealed is the block, with the slot's last subblock.
	Sealed *eth.ExecutionPayloadEnvelope
}

// Listener is told of each committed subblock, in the order of the agreement, once it counts:
// the last one of a slot when the slot is durable. A slot that is agreed on anew, because L1
// took its blocks back, begins with index 0 again; after a restart the subblocks behind the
// last sealed slot are told again. It is called while the operators wait: it must not block.
type Listener interface {
	SubblockCommitted(c Committed)
}

// Witness implements rotation.Witness.
func (s *Sequencer) Witness(a rotation.Agreed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agreed = a
}

// tell tells the listener of a committed subblock.
func (s *Sequencer) tell(a *attempt) {
	if s.listener == nil {
		return
	}
	c := Committed{Subblock: a.sub, Hash: a.hash, At: s.clock.Now(), Results: a.results, Led: a.order != nil}
	for _, r := range a.ran {
		c.Blocks = append(c.Blocks, CommittedBlock{Chain: r.chain, Header: r.session.Header(), Forced: r.session.Forced(), Sealed: r.sealed})
	}
	if a.order != nil {
		c.Tried = a.order.Bundles
	}
	s.mu.Lock()
	c.Agreed = s.agreed
	s.mu.Unlock()
	s.listener.SubblockCommitted(c)
}

// publish has the engines answer from what is agreed on now. Nothing waits for it. Blocks that
// are sealed become the engines' heads in a moment.
func (s *Sequencer) publish(a *attempt) {
	if a.sub.Last() || len(a.ran) == 0 {
		return
	}
	for _, r := range a.ran {
		s.run(func() {
			ctx, cancel := context.WithTimeout(s.life, publishTime)
			defer cancel()
			err := r.session.Publish(ctx, resultOf(a.sub, r.chain).Transactions)
			if err != nil && !errors.Is(err, engine.ErrNotFound) && !errors.Is(err, engine.ErrSessionClosed) {
				s.log.Debug("Engine does not answer from what is agreed on", "chain", r.chain, "slot", a.sub.Slot, "subblock", a.sub.Index, "err", err)
			}
		})
	}
}

// publishTime bounds telling the engines: later, something newer is agreed on.
const publishTime = time.Second

func (r *SlotReport) count(o *bundlepool.Outcome) {
	switch o.Kind {
	case bundlepool.Execute:
		r.Executed++
	case bundlepool.Retry:
		r.PutOff++
	default:
		r.Failed++
	}
}

// ChainStatus says how a chain stands.
type ChainStatus struct {
	Chain sequence.ChainID
	Head  eth.L2BlockRef // of its driver; zero if it has none
	// NotReady says why no block can be built on the chain, "" if one can.
	NotReady string
	Agreed   eth.BlockID // the newest block the ledger holds
}

// Status says how each chain stands, ascending by chain.
func (s *Sequencer) Status() []ChainStatus {
	var out []ChainStatus
	for _, c := range s.chains {
		st := ChainStatus{Chain: c.id, NotReady: noDriver}
		st.Agreed, _, _ = s.ledger.Head(c.id)
		if n := c.current(); n != nil {
			st.Head = n.parts.Controller.UnsafeL2HeadLocked()
			_, st.NotReady = n.ready()
		}
		switch {
		case !c.member.Load():
			st.NotReady = notMember
		case st.NotReady == "":
			st.NotReady = c.reason()
		}
		out = append(out, st)
	}
	return out
}

// LastSlot is the slot that was agreed last, 0 if there was none.
func (s *Sequencer) LastSlot() sequence.Slot {
	slot, _, _ := s.ledger.Last()
	return slot
}

// SafeSlot is the newest slot whose blocks are cross-safe on every chain of the set: what
// was agreed up to it can be made again from L1. False while a chain's driver has not said
// which of its blocks are.
func (s *Sequencer) SafeSlot() (slot sequence.Slot, ok bool) {
	for _, c := range s.chains {
		if !c.member.Load() {
			continue
		}
		n := c.current()
		if n == nil {
			return 0, false
		}
		safe := n.safeHead()
		if safe == (eth.L2BlockRef{}) {
			return 0, false
		}
		if !ok || sequence.Slot(safe.Time) < slot {
			slot, ok = sequence.Slot(safe.Time), true
		}
	}
	return slot, ok
}
