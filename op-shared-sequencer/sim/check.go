package sim

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// checker knows what was decided, and holds everything against it.
type checker struct {
	decided []*decision
	slots   []*agreedSlot
	open    *agreedSlot
	builds  map[place][]*agreedSlot
	votes   map[signedVote]common.Hash
	signed  map[signedView]common.Hash
	members []membersFrom
}

// membersFrom are the chains that take part behind a height.
type membersFrom struct {
	height uint64
	ids    []sequence.ChainID
}

// place is where a block goes.
type place struct {
	chain  sequence.ChainID
	parent common.Hash
}

type agreedSlot struct {
	height uint64 // of its last subblock
	subs   []*sequence.Subblock
}

type signedVote struct {
	from   int
	height uint64
	round  int
	kind   voteKind
}

type signedView struct {
	from   int
	height uint64
	view   common.Hash
}

func (k *checker) init(ids []sequence.ChainID) {
	k.builds, k.votes, k.signed = map[place][]*agreedSlot{}, map[signedVote]common.Hash{}, map[signedView]common.Hash{}
	k.members = []membersFrom{{0, ids}}
}

// checkVote: an operator does not vote twice in a round.
func (s *sim) checkVote(o *operator, v *vote) {
	key := signedVote{v.from, v.height, v.round, v.kind}
	if was, ok := s.check.votes[key]; ok && was != v.id {
		s.fail("operator %d gave two %ss at height %d round %d: %s and %s", o.index, v.kind, v.height, v.round, was, v.id)
	}
	s.check.votes[key] = v.id
}

// checkSigned: a leader does not sign two subblocks for one height and view.
func (s *sim) checkSigned(o *operator, v *value, view common.Hash) {
	key := signedView{o.index, v.height, view}
	if was, ok := s.check.signed[key]; ok && was != v.id {
		s.fail("operator %d signed two subblocks for height %d and view %s: %s and %s", o.index, v.height, view, was, v.id)
	}
	s.check.signed[key] = v.id
}

// checkDecision: agreed prefixes do not differ, and what is agreed is one sequence.
func (s *sim) checkDecision(o *operator, d *decision) {
	k := &s.check
	if d.height <= uint64(len(k.decided)) {
		if was := k.decided[d.height-1]; was.value.id != d.value.id {
			s.fail("height %d: operator %d decides %s, others %s", d.height, o.index, describe(d.value), describe(was.value))
		}
		return
	}
	if d.height != uint64(len(k.decided))+1 {
		s.fail("operator %d decides height %d, the newest of the others is %d", o.index, d.height, len(k.decided))
	}
	k.decided = append(k.decided, d)
	s.count["heights"]++
	sub := o.decode(d.value)
	if sub == nil {
		s.fail("height %d: garbage was decided", d.height)
	}
	if sub.Index == 0 {
		if k.open != nil {
			s.count["slots abandoned"]++
			if !s.orphaned(k.open, 0) {
				s.fail("height %d: slot %d is given up with %d subblocks agreed on, and its L1 origins stand", d.height, k.open.subs[0].Slot, len(k.open.subs))
			}
		}
		k.open = &agreedSlot{}
		for _, op := range sub.Openings {
			if !slices.Contains(s.membersAt(d.height-1), op.Chain) {
				s.fail("height %d: slot %d has a block of chain %s, which does not take part", d.height, sub.Slot, op.Chain)
			}
			if why := s.wrongOpening(&op, sub.Slot); why != "" {
				s.fail("height %d: slot %d opens a block of chain %s on %s that derivation would not take: %s", d.height, sub.Slot, op.Chain, op.Parent(), why)
			}
			for _, was := range k.builds[place{op.Chain, op.ParentHash}] {
				if !s.orphaned(was, op.Chain) {
					s.fail("height %d: slot %d has a block of chain %s on %s, as height %d, whose L1 origin stands", d.height, sub.Slot, op.Chain, op.Parent(), was.height)
				}
			}
		}
	}
	if k.open == nil || uint64(len(k.open.subs)) != sub.Index || (sub.Index > 0 && k.open.subs[sub.Index-1].Hash() != sub.Parent) {
		s.fail("height %d: subblock %d of slot %d does not follow what was decided before", d.height, sub.Index, sub.Slot)
	}
	k.open.subs = append(k.open.subs, sub)
	if !sub.Last() {
		return
	}
	k.open.height = d.height
	s.count["slots"]++
	for _, op := range k.open.subs[0].Openings {
		at := place{op.Chain, op.ParentHash}
		k.builds[at] = append(k.builds[at], k.open)
	}
	k.slots = append(k.slots, k.open)
	k.open = nil
	if c := s.plan.changes; len(c) > 0 && sub.Slot >= c[0].slot {
		s.count["changes of the chains"]++
		k.members = append(k.members, membersFrom{d.height, c[0].members})
		s.plan.changes = c[1:]
	}
}

// wrongOpening says why derivation would not make a block with an opening, or make another
// one. L1 here sends no deposits and changes no config, and is never as far behind that
// blocks have to do without transactions.
func (s *sim) wrongOpening(o *sequence.Opening, slot sequence.Slot) string {
	cfg := s.rollups[o.Chain]
	origin, parent := s.l1.byHash[o.L1Origin.Hash], s.refs[o.ParentHash]
	if o.ParentHash == cfg.Genesis.L2.Hash {
		parent = eth.L2BlockRef{Hash: o.ParentHash, Time: cfg.Genesis.L2Time, L1Origin: cfg.Genesis.L1}
	}
	switch {
	case origin == nil || origin.InfoNum != o.L1Origin.Number:
		return "there is no such L1 origin"
	case uint64(slot) < origin.InfoTime:
		return "its L1 origin is younger"
	case o.GasLimit != cfg.Genesis.SystemConfig.GasLimit, o.FeeRecipient != predeploys.SequencerFeeVaultAddr, o.NoTxPool,
		o.PrevRandao != origin.InfoMixDigest, o.ParentBeaconRoot != *origin.InfoParentBeaconRoot,
		!bytes.Equal(o.EIP1559Params, cfg.Genesis.SystemConfig.EIP1559Params[:]), len(o.MinBaseFee) != 1 || o.MinBaseFee[0] != 0:
		return "its attributes are wrong"
	case len(o.Deposits) != 1:
		return fmt.Sprintf("%d deposits", len(o.Deposits))
	}
	var tx types.Transaction
	if err := tx.UnmarshalBinary(o.Deposits[0]); err != nil {
		return err.Error()
	}
	info, err := derive.L1BlockInfoFromBytes(cfg, uint64(slot), tx.Data())
	if err != nil {
		return err.Error()
	}
	if info.Number != origin.InfoNum || info.BlockHash != origin.InfoHash || info.Time != origin.InfoTime {
		return "its L1 info is of another block"
	}
	if parent == (eth.L2BlockRef{}) {
		return "" // a block that nobody had to look at
	}
	stays := origin.InfoHash == parent.L1Origin.Hash
	switch {
	case uint64(slot) != parent.Time+cfg.BlockTime:
		return fmt.Sprintf("its parent is at %d", parent.Time)
	case o.ParentNumber != parent.Number:
		return fmt.Sprintf("its parent has number %d", parent.Number)
	case !stays && origin.InfoParentHash != parent.L1Origin.Hash:
		return "its L1 origin does not follow its parent's"
	case stays && info.SequenceNumber != parent.SequenceNumber+1 && parent.Number > 0, !stays && info.SequenceNumber != 0:
		return fmt.Sprintf("sequence number %d behind %d", info.SequenceNumber, parent.SequenceNumber)
	}
	return ""
}

// orphaned says whether an L1 origin of the slot is gone; of one chain's block, or if that is
// 0 of any.
func (s *sim) orphaned(a *agreedSlot, chain sequence.ChainID) bool {
	return slices.ContainsFunc(a.subs[0].Openings, func(o sequence.Opening) bool {
		return (chain == 0 || o.Chain == chain) && !s.l1.canonical(o.L1Origin)
	})
}

// checkAgreement: the ledger goes on where the decisions say. It returns the height.
func (s *sim) checkAgreement(o *operator, data []byte) uint64 {
	var a agreement
	if err := rlp.DecodeBytes(data, &a); err != nil {
		s.fail("operator %d: the ledger's agreement: %v", o.index, err)
	}
	if a.Height == 0 || a.Height > uint64(len(o.disk.decided)) || o.disk.decided[a.Height-1].value.id != a.Value {
		s.fail("operator %d: the ledger ends with height %d, value %s, which was not decided", o.index, a.Height, a.Value)
	}
	return a.Height
}

// checkHandedOver: a block that an operator's driver is given is the projection of an
// agreed slot, durable before, and the same at everyone.
func (s *sim) checkHandedOver(d *driver, env *eth.ExecutionPayloadEnvelope, ref eth.L2BlockRef) {
	if d.o.lies != nil {
		return
	}
	p := env.ExecutionPayload
	at := place{d.id, p.ParentHash}
	var errs []string
	found := false
	for _, a := range s.check.builds[at] {
		if err := a.projection(d.id, env); err != nil {
			errs = append(errs, err.Error())
		} else {
			found = true
		}
	}
	if !found {
		s.fail("operator %d, chain %s: block %s is handed over, and is no agreed one: %v", d.o.index, d.id, ref, errs)
	}
	if !d.o.log.Builds(d.id, p.ParentHash) {
		s.fail("operator %d, chain %s: block %s is handed over, and is not in the ledger", d.o.index, d.id, ref)
	}
	s.count["blocks handed over"]++
}

// projection says what is wrong with a block for the slot.
func (a *agreedSlot) projection(chain sequence.ChainID, env *eth.ExecutionPayloadEnvelope) error {
	p := env.ExecutionPayload
	last := a.subs[len(a.subs)-1]
	if uint64(p.Timestamp) != uint64(last.Slot) {
		return fmt.Errorf("height %d: slot %d, the block is at %d", a.height, last.Slot, p.Timestamp)
	}
	var want [][]byte
	for _, o := range a.subs[0].Openings {
		if o.Chain == chain {
			want = append(want, o.Deposits...)
		}
	}
	for _, sub := range a.subs {
		for _, st := range sub.Steps {
			if st.Chain == chain {
				want = append(want, st.Transactions...)
			}
		}
	}
	if len(want) != len(p.Transactions) {
		return fmt.Errorf("height %d: %d transactions, the block has %d", a.height, len(want), len(p.Transactions))
	}
	for i := range want {
		if !bytes.Equal(want[i], p.Transactions[i]) {
			return fmt.Errorf("height %d: transaction %d differs", a.height, i)
		}
	}
	for _, seal := range last.Seals {
		if seal.Chain == chain && !seal.Deferred() && seal.BlockHash != p.BlockHash {
			return fmt.Errorf("height %d: sealed is %s", a.height, seal.BlockHash)
		}
	}
	return nil
}

// membersAt are the chains that take part behind a height.
func (s *sim) membersAt(height uint64) []sequence.ChainID {
	k := &s.check
	i := len(k.members) - 1
	for k.members[i].height > height {
		i--
	}
	return k.members[i].ids
}

// checkEnd is what holds when everything has been well for a while.
func (s *sim) checkEnd() {
	var honest []*operator
	for _, o := range s.ops {
		if o.lies == nil {
			honest = append(honest, o)
		}
	}
	o := honest[0]
	for _, other := range s.ops {
		if !other.up {
			s.fail("operator %d is down at the end", other.index)
		}
	}
	for _, id := range s.ids {
		low, high := o.drivers[id].head, o.drivers[id].head
		for _, other := range honest {
			head := other.drivers[id].head
			if head.Number < low.Number {
				low = head
			}
			if head.Number > high.Number {
				high = head
			}
		}
		now := uint64(epoch.Unix()) + uint64(s.now.Seconds())
		if low.Time+2+s.rollups[id].BlockTime < now {
			s.fail("chain %s is behind: an operator's head is %s at %d, it is %d; %s", id, low, low.Time, now, s.state())
		}
		for _, other := range honest {
			ref, err := other.drivers[id].head, error(nil)
			for ref.Number > low.Number && err == nil {
				ref, err = other.drivers[id].ref(ref.ParentHash)
			}
			if err != nil || ref.Hash != low.Hash {
				s.fail("chain %s: operators stand on %s and %s (%v)", id, low, ref, err)
			}
		}
		if head := high; head.Time-uint64(epoch.Unix()) != head.Number*s.rollups[id].BlockTime {
			s.fail("chain %s: a slot was skipped below %s", id, head)
		}
	}
	s.checkMessages(o)
	s.checkBundles(o)
}

// state says where everyone is, for a failure.
func (s *sim) state() string {
	var out string
	for _, o := range s.ops {
		out += fmt.Sprintf("\n  operator %d: ", o.index)
		if !o.up {
			out += "is down"
			continue
		}
		out += fmt.Sprintf("height %d round %d", o.c.height, o.c.round)
		for _, id := range s.ids {
			out += fmt.Sprintf(", %s at %d %s", id, o.drivers[id].head.Number, o.drivers[id].head.Hash.TerminalString())
		}
		for _, st := range o.seq.Status() {
			if st.NotReady != "" {
				out += fmt.Sprintf("; %s waits: %s", st.Chain, st.NotReady)
			}
		}
	}
	return out
}

// checkMessages: no message is executed that was not initiated before, in the global order
// or in an earlier block. It looks at nothing but the blocks' logs.
func (s *sim) checkMessages(o *operator) {
	type location struct {
		chain  sequence.ChainID
		number uint64
		index  uint32
	}
	type initiated struct {
		time    uint64
		payload common.Hash
		origin  common.Address
	}
	seen := map[location]initiated{}
	stands := map[common.Hash]bool{}
	for _, id := range s.ids {
		ref := o.drivers[id].head
		for ; ref.Number > 0; ref, _ = o.drivers[id].ref(ref.ParentHash) {
			stands[ref.Hash] = true
		}
	}
	for _, id := range s.ids {
		stands[s.rollups[id].Genesis.L2.Hash] = true
	}
	for _, a := range s.check.slots {
		logs := map[common.Hash][]*loggedAt{}
		last := a.subs[len(a.subs)-1]
		for _, op := range a.subs[0].Openings {
			b := s.blockOn(o, op.Chain, op.ParentHash, last, stands)
			if b == nil {
				if a.height+1 < uint64(len(o.disk.decided)) && stands[op.ParentHash] && !s.orphaned(a, op.Chain) {
					s.fail("chain %s: the block on %s that was agreed on at height %d is lost; %s", op.Chain, op.Parent(), a.height, s.state())
				}
				continue
			}
			receipts, err := o.engines[op.Chain].Receipts(bg, b.BlockHash)
			if err != nil {
				s.fail("receipts of block %s of chain %s: %v", b.ID(), op.Chain, err)
			}
			for _, r := range receipts {
				for _, l := range r.Logs {
					logs[r.TxHash] = append(logs[r.TxHash], &loggedAt{l, uint64(b.BlockNumber), uint64(b.Timestamp)})
				}
			}
		}
		for _, sub := range a.subs {
			for _, st := range sub.Steps {
				for _, raw := range st.Transactions {
					for _, l := range logs[txHash(raw)] {
						if l.Address == predeploys.CrossL2InboxAddr {
							var m messages.Message
							if err := m.DecodeEvent(l.Topics, l.Data); err != nil {
								s.fail("slot %d: executing message: %v", sub.Slot, err)
							}
							from, _ := m.Identifier.ChainID.Uint64()
							init, ok := seen[location{sequence.ChainID(from), m.Identifier.BlockNumber, m.Identifier.LogIndex}]
							if !ok || init.time != m.Identifier.Timestamp || init.payload != m.PayloadHash || init.origin != m.Identifier.Origin {
								s.fail("slot %d: chain %s executes a message that was not initiated before: %v", sub.Slot, st.Chain, m.Identifier)
							}
							s.count["messages executed"]++
						}
						seen[location{st.Chain, l.number, uint32(l.Index)}] = initiated{l.time, payloadHash(l.Log), l.Address}
					}
				}
			}
		}
	}
}

// blockOn is the chain's block of an agreed slot, if it stands.
func (s *sim) blockOn(o *operator, id sequence.ChainID, parent common.Hash, last *sequence.Subblock, stands map[common.Hash]bool) *eth.ExecutionPayload {
	ref := o.drivers[id].head
	for ; ref.Number > 0; ref, _ = o.drivers[id].ref(ref.ParentHash) {
		if ref.ParentHash == parent && ref.Time == uint64(last.Slot) {
			env, err := o.engines[id].Payload(bg, ref.Hash)
			if err != nil {
				s.fail("block %s of chain %s: %v", ref, id, err)
			}
			for _, seal := range last.Seals {
				if seal.Chain == id && !seal.Deferred() && seal.BlockHash != ref.Hash {
					return nil
				}
			}
			return env.ExecutionPayload
		}
	}
	return nil
}

// checkBundles: every bundle is on all its chains or on none.
func (s *sim) checkBundles(o *operator) {
	for _, b := range s.traffic.bundles {
		var on, off []sentTx
		for _, tx := range b.txs {
			if _, ok := o.engines[tx.chain].Includes(o.drivers[tx.chain].head.Hash, tx.hash); ok {
				on = append(on, tx)
			} else {
				off = append(off, tx)
			}
		}
		switch {
		case len(on) > 0 && len(off) > 0:
			s.fail("bundle %s: some of its transactions are in blocks (%v), others are not (%v)", b.hash, on, off)
		case len(on) > 0:
			s.count["bundles executed"]++
		default:
			s.count["bundles not executed"]++
		}
	}
}

// describe names a value for the trace.
func describe(v *value) string {
	if v == nil {
		return "nothing"
	}
	sub, err := sequence.DecodeSubblock(v.raw)
	if err != nil {
		return fmt.Sprintf("garbage %s", v.id)
	}
	text := fmt.Sprintf("%s of %d: subblock %d of slot %d", v.id.TerminalString(), v.leader, sub.Index, uint64(sub.Slot)-uint64(epoch.Unix()))
	for _, o := range sub.Openings {
		text += fmt.Sprintf(", %s on %d %s", o.Chain, o.ParentNumber, o.ParentHash.TerminalString())
	}
	text += fmt.Sprintf(", %d steps", len(sub.Steps))
	for run := range sub.Bundles() {
		text += fmt.Sprintf(", bundle %s in %d", run[0].Bundle.TerminalString(), len(run))
	}
	for _, seal := range sub.Seals {
		text += fmt.Sprintf(", seal %s %d %s", seal.Chain, seal.Number, seal.BlockHash.TerminalString())
	}
	return text
}
