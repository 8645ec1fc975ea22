package statuspage

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// What the page is sent, as JSON. Chain IDs are strings, as they may not fit a JavaScript
// number. Times are Unix milliseconds, durations microseconds.

// slot is a slot over all chains.
type slot struct {
	Slot      uint64           `json:"slot"`
	Subblocks []*subblock      `json:"subblocks"`
	Blocks    map[string]block `json:"blocks"` // sealed ones, by chain
	// Absent are the chains without a block in the slot, with the reason if there is one.
	Absent map[string]string `json:"absent,omitempty"`
	// Again: its blocks were taken back, and it was agreed on anew.
	Again    int              `json:"again,omitempty"`
	Sealed   bool             `json:"sealed"`
	Late     *int64           `json:"late,omitempty"` // handed over, after its timestamp
	Costs    map[string]int64 `json:"costs,omitempty"`
	Executed int              `json:"executed"` // bundles
	Failed   int              `json:"failed"`

	version uint64
	encoded json.RawMessage
}

type block struct {
	Number uint64 `json:"number"`
	Hash   string `json:"hash"`
	Txs    int    `json:"txs"` // deposits included
	Gas    uint64 `json:"gas"`
}

type subblock struct {
	Height uint64         `json:"height,omitempty"`
	Index  uint64         `json:"index"`
	Hash   common.Hash    `json:"hash"`
	Last   bool           `json:"last"`
	Leader common.Address `json:"leader"`
	Led    bool           `json:"led"`
	Round  int            `json:"round,omitempty"`
	At     int64          `json:"at"`
	Steps  int            `json:"steps"`
	// Txs are the transactions of its steps, by chain that has a block open.
	Txs map[string]int `json:"txs"`
	// Messages that its transactions executed, those with the same ends together. Unread:
	// this operator had not run it when it was committed.
	Messages []message `json:"messages,omitempty"`
	Unread   bool      `json:"unread,omitempty"`
	Bundles  []tried   `json:"bundles,omitempty"`
}

// message is an arc: from where the message was initiated to where it was executed.
type message struct {
	From     string `json:"from"`
	FromSlot uint64 `json:"fromSlot"`
	To       string `json:"to"`
	Count    int    `json:"n"`
}

type tried struct {
	Hash   common.Hash `json:"hash"`
	Fate   string      `json:"fate"` // executed, failed, postponed
	Reason string      `json:"reason,omitempty"`
	Chains []string    `json:"chains"`
}

// bundle is one of those that were seen last.
type bundle struct {
	tried
	Slot uint64 `json:"slot"`

	version uint64
	final   bool
}

type fault struct {
	ID       uint64          `json:"id"`
	Kind     string          `json:"kind"`
	Level    string          `json:"level"`
	Text     string          `json:"text"`
	Slot     uint64          `json:"slot,omitempty"`
	Height   uint64          `json:"height,omitempty"`
	Operator *common.Address `json:"operator,omitempty"`
	First    int64           `json:"first"`
	Last     int64           `json:"last"`
	Count    int             `json:"count"`
	Open     bool            `json:"open"` // it lasts

	key     string
	version uint64
}

// Levels of faults.
const (
	warn = "warn"
	bad  = "bad"
)

type status struct {
	Chains    []chain    `json:"chains"`
	Pending   int        `json:"pending"`
	Agreement *agreement `json:"agreement,omitempty"`

	version uint64
}

type chain struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"` // why no block can be built on it
}

type agreement struct {
	Self      common.Address `json:"self"`
	Syncing   bool           `json:"syncing"`
	Operators []operator     `json:"operators"`
	Next      []turn         `json:"next"`
	Power     uint64         `json:"power"`
	Online    uint64         `json:"online"` // power that is connected
	Quorum    bool           `json:"quorum"` // that is more than two thirds
}

type turn struct {
	Height uint64         `json:"height"`
	Leader common.Address `json:"leader"`
}

type operator struct {
	Name      string         `json:"name"`
	Address   common.Address `json:"address"`
	Power     uint64         `json:"power"`
	Online    bool           `json:"online"`
	Missed    uint64         `json:"missed,omitempty"`
	Shortened bool           `json:"shortened,omitempty"`
}

// Bounds of what is kept of one subblock.
const (
	maxMessages = 64
	maxTried    = 64
)

// slotAt is the slot with that number, in its place, nil if it is older than all that are kept.
func (p *Page) slotAt(number uint64) *slot {
	i, found := slices.BinarySearchFunc(p.slots, number, func(s *slot, n uint64) int {
		if s.Slot < n {
			return -1
		} else if s.Slot > n {
			return 1
		}
		return 0
	})
	if found {
		return p.slots[i]
	}
	if i == 0 && len(p.slots) >= p.cfg.Slots {
		return nil
	}
	s := &slot{Slot: number, Subblocks: []*subblock{}, Blocks: map[string]block{}}
	p.slots = slices.Insert(p.slots, i, s)
	if len(p.slots) > p.cfg.Slots {
		p.slots = slices.Delete(p.slots, 0, 1)
	}
	return s
}

func (p *Page) changedSlot(s *slot) { s.version, s.encoded = p.touch(), nil }

// committed takes a subblock. The caller holds mu.
func (p *Page) committed(c *sequencer.Committed) {
	p.last = c.At
	sub := c.Subblock
	s := p.slotAt(uint64(sub.Slot))
	if s == nil {
		return
	}
	n := &subblock{
		Height: c.Agreed.Height, Index: sub.Index, Hash: c.Hash, Last: sub.Last(), Leader: c.Agreed.Leader, Led: c.Led,
		Round: c.Agreed.Round, At: c.At.UnixMilli(), Steps: len(sub.Steps), Txs: map[string]int{}, Unread: c.Results == nil && len(sub.Steps) > 0,
	}
	for _, r := range sub.Results {
		n.Txs[r.Chain.String()] = 0
	}
	for _, st := range sub.Steps {
		n.Txs[st.Chain.String()] += len(st.Transactions)
	}
	n.Messages = executed(c)
	n.Bundles = bundlesOf(c)
	if sub.Index == 0 {
		p.opened(s, n)
	}
	s.Subblocks = append(s.Subblocks, n)
	for _, seal := range sub.Seals {
		i := slices.IndexFunc(sub.Results, func(r sequence.Result) bool { return r.Chain == seal.Chain })
		b := block{Number: seal.Number, Txs: int(sub.Results[i].Transactions), Gas: sub.Results[i].GasUsed}
		if !seal.Deferred() {
			b.Hash = seal.BlockHash.Hex()
		}
		s.Blocks[seal.Chain.String()] = b
	}
	s.Sealed = s.Sealed || sub.Last()
	for _, b := range n.Bundles {
		switch b.Fate {
		case "executed":
			s.Executed++
		case "failed":
			s.Failed++
		}
		p.seen(b, s.Slot)
	}
	p.changedSlot(s)
	p.missed(c.Agreed, s.Slot)
}

// opened takes a slot's first subblock. Chains that are in it again had their blocks taken
// back; others are caught up here, in a slot that their set has passed.
func (p *Page) opened(s *slot, n *subblock) {
	kept := s.Subblocks[:0]
	for _, old := range s.Subblocks {
		overlap := false
		for id := range n.Txs {
			_, in := old.Txs[id]
			overlap = overlap || in
		}
		if !overlap {
			kept = append(kept, old)
			continue
		}
		for _, b := range old.Bundles {
			switch b.Fate {
			case "executed":
				s.Executed--
			case "failed":
				s.Failed--
			}
		}
	}
	if len(kept) < len(s.Subblocks) {
		s.Again++
		s.Sealed = len(kept) > 0
		s.Late, s.Costs = nil, nil
		p.happened(fault{Kind: "again", Level: warn, Slot: s.Slot, Text: fmt.Sprintf("Slot %d is agreed on anew: its blocks were taken back", s.Slot)}, "")
	}
	s.Subblocks = kept
	for id := range n.Txs {
		delete(s.Blocks, id)
	}
	s.Absent = map[string]string{}
	if p.status == nil {
		return
	}
	for _, c := range p.status.Chains {
		_, in := n.Txs[c.ID]
		for _, old := range s.Subblocks {
			if _, ok := old.Txs[c.ID]; ok {
				in = true
			}
		}
		if !in {
			s.Absent[c.ID] = c.Reason
		}
	}
}

// missed notes the leaders that did not deliver.
func (p *Page) missed(a rotation.Agreed, slot uint64) {
	for _, o := range a.Missed {
		p.happened(fault{
			Kind: "round", Level: warn, Slot: slot, Height: a.Height, Operator: &o,
			Text: p.name(o) + " had the turn and its subblock was not agreed on; " + p.name(a.Leader) + " took it",
		}, o.Hex())
	}
}

// executed are the messages that a subblock's transactions executed.
func executed(c *sequencer.Committed) []message {
	count := map[message]int{}
	var order []message
	for i, st := range c.Subblock.Steps {
		if i >= len(c.Results) {
			break
		}
		for _, r := range c.Results[i] {
			for _, l := range r.Logs {
				m, err := messages.DecodeExecutingMessageLog(l)
				if err != nil || m == nil {
					continue
				}
				arc := message{From: m.ChainID.String(), FromSlot: m.Timestamp, To: st.Chain.String()}
				if count[arc] == 0 {
					if len(order) == maxMessages {
						continue
					}
					order = append(order, arc)
				}
				count[arc]++
			}
		}
	}
	for i := range order {
		order[i].Count = count[order[i]]
	}
	return order
}

// bundlesOf are the bundles of a subblock: of its leader, also those that failed.
func bundlesOf(c *sequencer.Committed) []tried {
	var out []tried
	if c.Led {
		for _, t := range c.Tried {
			b := tried{Hash: t.Hash, Fate: "executed"}
			chains := map[sequence.ChainID]bool{}
			for _, it := range t.Outcome.Result.Items {
				chains[it.Chain] = true
			}
			if f := t.Outcome.Result.Failed; f != nil {
				b.Fate, b.Reason = "failed", public(f.Reason)
				if t.Outcome.Kind == bundlepool.Retry {
					b.Fate = "postponed"
				}
				if f.Chain != 0 {
					chains[f.Chain] = true
				}
			}
			b.Chains = names(chains)
			out = append(out, b)
		}
	} else {
		for run := range c.Subblock.Bundles() {
			chains := map[sequence.ChainID]bool{}
			for _, st := range run {
				chains[st.Chain] = true
			}
			out = append(out, tried{Hash: run[0].Bundle, Fate: "executed", Chains: names(chains)})
		}
	}
	return out[:min(len(out), maxTried)]
}

func names(chains map[sequence.ChainID]bool) []string {
	out := []string{}
	for _, id := range slices.Sorted(maps.Keys(chains)) {
		out = append(out, id.String())
	}
	return out
}

// seen notes a bundle among the newest.
func (p *Page) seen(t tried, slot uint64) {
	p.bundles = slices.DeleteFunc(p.bundles, func(b *bundle) bool { return b.Hash == t.Hash })
	p.bundles = append(p.bundles, &bundle{tried: t, Slot: slot, version: p.touch()})
	if len(p.bundles) > p.cfg.Bundles {
		p.bundles = slices.Delete(p.bundles, 0, 1)
	}
}

// sealed takes the report of a slot. The caller holds mu.
func (p *Page) sealed(r *sequencer.SlotReport) {
	s := p.slotAt(uint64(r.Slot))
	if s == nil {
		return
	}
	late := r.Late.Microseconds()
	s.Sealed, s.Late = true, &late
	s.Costs = map[string]int64{
		"attributes": r.Attributes.Microseconds(), "open": r.Open.Microseconds(), "fill": r.Fill.Microseconds(),
		"bundles": r.Bundles.Microseconds(), "seal": r.Seal.Microseconds(), "verify": r.Verify.Microseconds(),
		"log": r.Log.Microseconds(), "handOver": r.HandOver.Microseconds(), "index": r.Index.Microseconds(),
	}
	for _, b := range r.Blocks {
		s.Blocks[b.Chain.String()] = block{Number: b.Ref.Number, Hash: b.Ref.Hash.Hex(), Txs: b.Transactions, Gas: b.GasUsed}
	}
	p.changedSlot(s)
}

// poll asks the Source. It holds mu only to take the answers.
func (p *Page) poll() {
	st := p.source.Status()
	p.mu.Lock()
	var ask []common.Hash
	for _, b := range p.bundles {
		if !b.final {
			ask = append(ask, b.Hash)
		}
	}
	p.mu.Unlock()
	states := map[common.Hash]bundlepool.Status{}
	for _, h := range ask {
		if s, err := p.source.Bundle(h); err == nil {
			states[h] = s
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stand(st)
	for _, b := range p.bundles {
		s, ok := states[b.Hash]
		if !ok {
			continue
		}
		fate, reason := string(s.State), ""
		if s.Failure != nil {
			reason = public(s.Failure.Reason)
		}
		if s.State == bundlepool.Pending {
			fate = "postponed"
		}
		b.final = s.State.Final() && s.State != bundlepool.Safe // a safe one may still be undone
		if fate != b.Fate || reason != b.Reason {
			b.Fate, b.Reason, b.version = fate, reason, p.touch()
		}
	}
}

// The polls in a row for which a condition has to last to be a fault.
const lasting = 2

// stand takes how the sequencer stands.
func (p *Page) stand(in Status) {
	out := &status{Pending: in.Pending, Chains: []chain{}}
	for _, c := range in.Chains {
		out.Chains = append(out.Chains, chain{ID: c.Chain.String(), Reason: public(c.NotReady)})
		if p.unready[c.Chain]++; c.NotReady == "" {
			p.unready[c.Chain] = 0
		}
		if n := p.unready[c.Chain]; n == 0 || n >= lasting {
			p.stands(n > 0, fault{Kind: "leftOut", Level: warn, Text: fmt.Sprintf("Chain %s cannot be built on: %s", c.Chain, public(c.NotReady))}, c.Chain.String())
		}
	}
	if a := in.Agreement; a != nil {
		out.Agreement = p.operators(a)
	}
	if p.status != nil {
		out.version = p.status.version
		if reflect.DeepEqual(p.status, out) {
			return
		}
	}
	p.status = out
	p.status.version = p.touch()
}

func (p *Page) operators(a *Agreement) *agreement {
	out := &agreement{Self: a.Self, Syncing: a.Syncing, Operators: []operator{}, Next: []turn{}}
	for _, t := range a.Next {
		out.Next = append(out.Next, turn{t.Height, t.Leader})
	}
	for _, o := range a.Operators {
		p.names[o.Address] = o.Name
		out.Operators = append(out.Operators, operator{Name: o.Name, Address: o.Address, Power: o.Power, Online: o.Online, Missed: o.Missed, Shortened: o.Shortened})
		out.Power += o.Power
		if p.away[o.Address]++; o.Online {
			p.away[o.Address] = 0
			out.Online += o.Power
		}
		if n := p.away[o.Address]; n == 0 || n >= lasting {
			p.stands(n > 0, fault{Kind: "offline", Level: warn, Operator: &o.Address, Text: o.Name + " is not connected to this operator"}, o.Address.Hex())
		}
	}
	out.Quorum = 3*out.Online > 2*out.Power
	p.stands(!out.Quorum && a.Self != (common.Address{}), fault{
		Kind: "quorum", Level: bad,
		Text: fmt.Sprintf("Operators with %d of %d power are connected: nothing can be agreed on without more than two thirds", out.Online, out.Power),
	}, "")
	return out
}
