package sim

import (
	"fmt"
	"math/rand"
	"slices"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// liar makes an operator lie: in its turns, and in its votes. Its core is an honest one.
type liar struct {
	o      *operator
	rng    *rand.Rand
	votes  bool // lies in votes too
	tired  bool // has given it up
	tricks []trick
}

// trick changes what is proposed; false if there is nothing to change.
type trick struct {
	name  string
	again bool // execute what has become of it, so that results and seals are right
	do    func(l *liar, sub *sequence.Subblock) bool
}

func newLiar(o *operator) *liar {
	l := &liar{o: o, rng: o.rng, votes: o.s.chance(50), tricks: tricks}
	if o.s.chance(30) { // a specialist
		l.tricks = []trick{tricks[o.s.rng.Intn(len(tricks))]}
	}
	if o.s.chance(20) {
		o.clock.skew = o.s.between(1500, 4000) // so that its slots are too early
	}
	return l
}

var tricks = []trick{
	{"wrong result", false, func(l *liar, sub *sequence.Subblock) bool {
		r := &sub.Results[l.rng.Intn(len(sub.Results))]
		switch l.rng.Intn(3) {
		case 0:
			r.GasUsed++
		case 1:
			r.ReceiptsRoot[3]++
		default:
			r.Transactions++
		}
		return true
	}},
	{"wrong seal", false, func(l *liar, sub *sequence.Subblock) bool {
		if !sub.Last() {
			return false
		}
		seal := &sub.Seals[l.rng.Intn(len(sub.Seals))]
		switch l.rng.Intn(3) {
		case 0:
			seal.BlockHash[7]++
		case 1:
			seal.Number++
		default:
			seal.BlockHash = common.Hash{}
		}
		return true
	}},
	{"wrong attributes", true, func(l *liar, sub *sequence.Subblock) bool {
		if sub.Index > 0 {
			return false
		}
		o := &sub.Openings[l.rng.Intn(len(sub.Openings))]
		switch l.rng.Intn(8) {
		case 0:
			o.GasLimit /= 2
		case 1:
			o.FeeRecipient[1]++
		case 2:
			o.PrevRandao[1]++
		case 3:
			o.ParentBeaconRoot[1]++
		case 4:
			o.MinBaseFee = []uint64{77}
		case 5:
			o.Deposits = nil
		case 6:
			o.NoTxPool = !o.NoTxPool
		default:
			o.L1Origin = eth.BlockID{Hash: common.Hash{9}, Number: o.L1Origin.Number + 1}
		}
		return true
	}},
	{"other parent", true, func(l *liar, sub *sequence.Subblock) bool {
		if sub.Index > 0 {
			return false
		}
		o := &sub.Openings[l.rng.Intn(len(sub.Openings))]
		b, err := l.o.engines[o.Chain].BlockByHash(bg, o.ParentHash)
		if err != nil || b.Number == 0 {
			return false
		}
		o.ParentHash, o.ParentNumber = b.ParentHash, b.Number-1
		return true
	}},
	{"invalid message", true, func(l *liar, sub *sequence.Subblock) bool {
		to := sub.Results[l.rng.Intn(len(sub.Results))].Chain
		from := l.o.s.ids[l.rng.Intn(len(l.o.s.ids))]
		m := messages.Message{
			Identifier:  messages.Identifier{Origin: common.Address{1}, BlockNumber: 1, LogIndex: uint32(l.rng.Intn(3)), Timestamp: uint64(epoch.Unix()) + 1, ChainID: from.ID()},
			PayloadHash: common.Hash{byte(l.rng.Intn(5))},
		}
		user := lastSender - l.rng.Intn(5)
		raw := transaction(user, to, l.o.nonce(to, user, sub), enginefake.Execute(m))
		sub.Steps = append(sub.Steps, sequence.Step{Chain: to, Transactions: [][]byte{raw}})
		return true
	}},
	{"half bundle", true, func(l *liar, sub *sequence.Subblock) bool {
		for i := len(sub.Steps) - 1; i > 0; i-- {
			if b := sub.Steps[i].Bundle; b != (common.Hash{}) && sub.Steps[i-1].Bundle == b {
				sub.Steps = slices.Delete(sub.Steps, i, i+1)
				return true
			}
		}
		return false
	}},
	{"reordered bundle", true, func(l *liar, sub *sequence.Subblock) bool {
		for i := len(sub.Steps) - 1; i > 0; i-- {
			if b := sub.Steps[i].Bundle; b != (common.Hash{}) && sub.Steps[i-1].Bundle == b {
				sub.Steps[i], sub.Steps[i-1] = sub.Steps[i-1], sub.Steps[i]
				return true
			}
		}
		return false
	}},
	{"reordered steps", true, func(l *liar, sub *sequence.Subblock) bool {
		l.rng.Shuffle(len(sub.Steps), func(i, j int) { sub.Steps[i], sub.Steps[j] = sub.Steps[j], sub.Steps[i] })
		return len(sub.Steps) > 1
	}},
	{"missing steps", true, func(l *liar, sub *sequence.Subblock) bool {
		if len(sub.Steps) == 0 {
			return false
		}
		sub.Steps = sub.Steps[:l.rng.Intn(len(sub.Steps))]
		return true
	}},
	{"renamed bundle", true, func(l *liar, sub *sequence.Subblock) bool {
		for i := range sub.Steps {
			if sub.Steps[i].Bundle != (common.Hash{}) {
				sub.Steps[i].Bundle[2]++
				return true
			}
		}
		return false
	}},
	{"late bundle", true, func(l *liar, sub *sequence.Subblock) bool {
		for run := range sub.Bundles() {
			for i := range run {
				run[i].Expiry += 100
			}
			return true
		}
		return false
	}},
	{"omission", true, func(l *liar, sub *sequence.Subblock) bool {
		if sub.Index > 0 || len(sub.Openings) < 2 {
			return false
		}
		id := sub.Openings[l.rng.Intn(len(sub.Openings))].Chain
		sub.Openings = slices.DeleteFunc(sub.Openings, func(o sequence.Opening) bool { return o.Chain == id })
		sub.Results = slices.DeleteFunc(sub.Results, func(r sequence.Result) bool { return r.Chain == id })
		sub.Seals = slices.DeleteFunc(sub.Seals, func(s sequence.Seal) bool { return s.Chain == id })
		sub.Steps = slices.DeleteFunc(sub.Steps, func(s sequence.Step) bool { return s.Chain == id })
		return true
	}},
	{"left unsealed", false, func(l *liar, sub *sequence.Subblock) bool {
		if !sub.Last() || sub.Index == 0 {
			return false
		}
		sub.Seals[l.rng.Intn(len(sub.Seals))].BlockHash = common.Hash{}
		return true
	}},
	{"other slot", true, func(l *liar, sub *sequence.Subblock) bool {
		sub.Slot += sequence.Slot(1 + l.rng.Intn(20))
		return true
	}},
	{"out of place", false, func(l *liar, sub *sequence.Subblock) bool {
		sub.Parent[5]++
		return true
	}},
}

// propose sends something else than p; false if p is to be sent after all.
func (l *liar) propose(c *consensus, p *proposal) bool {
	if l.tired || p.value == nil || p.valid >= 0 || l.rng.Intn(100) < 30 {
		return false
	}
	s := l.o.s
	say := func(name string) {
		s.count["lie: "+name]++
		s.trace(l.o, "height %d round %d: lies: %s", c.height, c.round, name)
	}
	switch l.rng.Intn(8) {
	case 0:
		say("silence")
		return true
	case 1:
		say("garbage")
		raw := slices.Clone(p.value.raw[:l.rng.Intn(len(p.value.raw))])
		l.o.broadcast(&proposal{p.from, p.height, p.round, -1, newValue(p.from, p.height, raw)})
		return true
	case 2: // one half is told one thing, the other another
		for _, t := range []string{"missing steps", "reordered steps", "wrong result"} {
			if other := l.lie(p.value, t); other != nil {
				say("two proposals")
				for i := range s.ops {
					if i == l.o.index {
						continue
					}
					v := p.value
					if l.rng.Intn(2) == 0 {
						v = other
					}
					l.o.send(i, &proposal{p.from, p.height, p.round, -1, v})
				}
				c.addProposal(p)
				return true
			}
		}
		return false
	}
	t := l.tricks[l.rng.Intn(len(l.tricks))]
	v := l.lie(p.value, t.name)
	if v == nil {
		return false
	}
	say(t.name)
	l.o.broadcast(&proposal{p.from, p.height, p.round, -1, v})
	if l.rng.Intn(2) == 0 {
		c.addProposal(&proposal{p.from, p.height, p.round, -1, v})
	}
	return true
}

// lie makes another value of one, nil if it cannot.
func (l *liar) lie(v *value, name string) *value {
	t := tricks[slices.IndexFunc(tricks, func(t trick) bool { return t.name == name })]
	sub := l.o.decode(v)
	if sub == nil || !t.do(l, sub) {
		return nil
	}
	if t.again && l.rng.Intn(10) > 0 && !l.o.execute(sub) {
		return nil
	}
	return newValue(v.leader, v.height, sub.Encode())
}

// execute gives a subblock the results that its steps have, and its seals.
func (o *operator) execute(sub *sequence.Subblock) bool {
	before := o.slotSoFar(sub)
	if before == nil {
		return false
	}
	var results []sequence.Result
	var seals []sequence.Seal
	for i := range before[0].Openings {
		op := &before[0].Openings[i]
		session, err := o.engines[op.Chain].Open(bg, op.Parent(), op.Attributes(sub.Slot))
		if err != nil {
			return false
		}
		for _, b := range before {
			for _, st := range b.Steps {
				if st.Chain != op.Chain {
					continue
				}
				if _, err := session.Execute(bg, st.Transactions, false); err != nil {
					return false
				}
			}
		}
		r, err := session.Result(bg)
		if err != nil {
			return false
		}
		results = append(results, r)
		if sub.Last() {
			env, err := session.Seal(bg)
			if err != nil {
				return false
			}
			seals = append(seals, sequence.Seal{Chain: op.Chain, BlockHash: env.ExecutionPayload.BlockHash, Number: op.ParentNumber + 1})
		} else {
			_ = session.Discard(bg)
		}
	}
	sub.Results, sub.Seals = results, seals
	return true
}

// slotSoFar are the subblocks of a subblock's slot up to it.
func (o *operator) slotSoFar(sub *sequence.Subblock) []*sequence.Subblock {
	out := []*sequence.Subblock{sub}
	for i := len(o.disk.decided) - 1; out[0].Index > 0; i-- {
		if i < 0 {
			return nil
		}
		before := o.decode(o.disk.decided[i].value)
		if before == nil || before.Index != out[0].Index-1 {
			return nil
		}
		out = append([]*sequence.Subblock{before}, out...)
	}
	return out
}

// nonce is a user's next nonce in the block that a subblock is part of.
func (o *operator) nonce(id sequence.ChainID, user int, sub *sequence.Subblock) uint64 {
	n := uint64(0)
	before := o.slotSoFar(sub)
	if before == nil {
		return 0
	}
	for _, op := range before[0].Openings {
		if op.Chain != id {
			continue
		}
		session, err := o.engines[id].Open(bg, op.Parent(), op.Attributes(sub.Slot))
		if err != nil {
			return 0
		}
		for _, b := range before {
			for _, st := range b.Steps {
				if st.Chain == id {
					_, _ = session.Execute(bg, st.Transactions, false)
				}
			}
		}
		if a, err := session.Account(bg, accounts()[user].addr); err == nil {
			n = a.Nonce
		}
		_ = session.Discard(bg)
	}
	return n
}

// vote sends something else than v.
func (l *liar) vote(c *consensus, v *vote) bool {
	if l.tired || !l.votes || l.rng.Intn(100) < 40 {
		return false
	}
	l.o.s.count[fmt.Sprintf("lie: %s", v.kind)]++
	ids := []common.Hash{{}, v.id, v.id}
	for _, r := range []int{c.round, c.round - 1} {
		if p := c.proposals[r]; p != nil && p.value != nil {
			ids = append(ids, p.value.id)
		}
	}
	for i := range l.o.s.ops {
		if i == l.o.index {
			continue
		}
		for range 1 + l.rng.Intn(2) {
			w := *v
			w.id = ids[l.rng.Intn(len(ids))]
			if w.kind == precommit && l.rng.Intn(2) == 0 {
				w.ready = nil
			}
			l.o.send(i, &w)
		}
	}
	c.addVote(v)
	return true
}
