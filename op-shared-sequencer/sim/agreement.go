package sim

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// value is what operators vote on: a subblock, encoded, as its leader signed it.
type value struct {
	id     common.Hash
	leader int
	height uint64
	raw    []byte
}

func newValue(leader int, height uint64, raw []byte) *value {
	return &value{id: crypto.Keccak256Hash(raw), leader: leader, height: height, raw: raw}
}

type voteKind int

const (
	prevote voteKind = iota
	precommit
)

func (k voteKind) String() string { return [...]string{"prevote", "precommit"}[k] }

// Messages between operators. They are signed: nobody can make one of another's, which
// here nobody tries.
type (
	proposal struct {
		from   int
		height uint64
		round  int
		valid  int    // the round in which the value was voted for before, -1 if in none
		value  *value // nil: the leader passes
	}
	vote struct {
		from   int
		height uint64
		round  int
		kind   voteKind
		id     common.Hash        // zero: for nothing
		ready  []sequence.ChainID // with a precommit: its vote extension
	}
	status struct {
		from   int
		height uint64
		round  int
	}
	// gossip is all that an operator knows of a height, for one that is stuck in it.
	gossip struct {
		decisions []*decision // of earlier heights, for one that is behind
		proposals []*proposal
		votes     []*vote
	}
	decision struct {
		height uint64
		round  int
		value  *value
		votes  []*vote
	}
)

// disk is what an operator's agreement keeps on its disk: all that it must not contradict
// after a crash.
type disk struct {
	decided                 []*decision // by height, the first is 1
	height                  uint64      // of what follows
	round                   int
	votes                   map[voteAt]*vote
	offers                  map[int]*proposal      // by round
	signed                  map[common.Hash]*value // by view
	locked, valid           *value
	lockedRound, validRound int
}

type voteAt struct {
	round int
	kind  voteKind
}

func (d *disk) begin(height uint64) {
	if d.height != height {
		*d = disk{
			decided: d.decided, height: height, votes: map[voteAt]*vote{}, offers: map[int]*proposal{}, signed: map[common.Hash]*value{},
			lockedRound: -1, validRound: -1,
		}
	}
}

type step int

const (
	resting step = iota // the time for the height has not come
	proposing
	prevoting
	precommitting
)

// consensus is an operator's part in the agreement on one height: Tendermint (Buchman, Kwon,
// Milosevic: The latest gossip on BFT consensus) with CometBFT's lock, which does not ask
// whether this operator finds the value valid itself.
type consensus struct {
	o      *operator
	height uint64
	round  int
	step   step
	began  time.Duration
	ready  []sequence.ChainID // that a quorum can build on
	words  map[int]*vote      // the newest precommit of everyone: what it said it can build on

	proposals map[int]*proposal
	values    map[common.Hash]*value
	votes     map[voteAt]*tally
	top       int             // round that there are votes of
	waited    map[voteAt]bool // timeouts that were scheduled
	polka     map[int]bool    // rounds whose polka was acted on
	later     []any           // of the next height
}

func newConsensus(o *operator) *consensus { return &consensus{o: o, words: map[int]*vote{}} }

func (c *consensus) n() int                       { return len(c.o.s.ops) }
func (c *consensus) proposer(h uint64, r int) int { return int((h + uint64(r)) % uint64(c.n())) }
func (c *consensus) quorum(voters int) bool       { return 3*voters > 2*c.n() }
func (c *consensus) leadsNext(height uint64) bool { return c.proposer(height, 0) == c.o.index }

// resume begins the height behind the newest decision, where it was left.
func (c *consensus) resume() {
	c.enter(uint64(len(c.o.disk.decided)) + 1)
	c.startRound(c.o.disk.round)
}

func (c *consensus) enter(height uint64) {
	c.o.disk.begin(height)
	c.height, c.round, c.step, c.began = height, 0, resting, c.o.s.now
	c.proposals, c.values, c.votes = map[int]*proposal{}, map[common.Hash]*value{}, map[voteAt]*tally{}
	c.top = 0
	c.waited, c.polka = map[voteAt]bool{}, map[int]bool{}
	d := &c.o.disk
	for _, v := range []*value{d.locked, d.valid} {
		if v != nil {
			c.values[v.id] = v
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(d.votes), compareVotes) {
		c.addVote(d.votes[at])
	}
	for _, r := range slices.Sorted(maps.Keys(d.offers)) {
		c.addProposal(d.offers[r])
	}
}

func compareVotes(a, b voteAt) int {
	return cmp.Or(cmp.Compare(a.round, b.round), cmp.Compare(a.kind, b.kind))
}

// lead is how long before a subblock is due its height begins.
const (
	lead           = 350 * time.Millisecond
	proposeTimeout = lead + 250*time.Millisecond
	voteTimeout    = 120 * time.Millisecond
)

// next begins the height behind one that was committed, when it is time for it.
func (c *consensus) next(votes []*vote) {
	for _, v := range votes {
		c.word(v)
	}
	c.ready = quorumReady(c.words, c.n())
	later := c.later
	c.later = nil
	c.enter(c.height + 1)
	due := c.o.seq.Due(c.ready).Sub(c.o.clock.Now()) - lead
	h := c.height
	if c.leadsNext(h) {
		c.lead()
	}
	c.o.after(max(due, 0), func() {
		if c.height == h && c.step == resting {
			c.startRound(0)
		}
	})
	for _, m := range later {
		c.on(m)
	}
}

// lead has the core begin with this operator's next subblock.
func (c *consensus) lead() {
	if !c.o.s.chance(70) { // it need not come in time
		return
	}
	before := c.o.clock.ahead
	c.o.seq.Lead(c.ready)
	c.o.drafted = c.o.s.now + c.o.clock.ahead
	c.o.clock.ahead = before
}

// word takes what somebody said with a precommit that it can build on. One that comes after
// the decision counts too: a quorum with a liar in it would not say enough.
func (c *consensus) word(v *vote) {
	if was := c.words[v.from]; was == nil || v.height > was.height || (v.height == was.height && v.round >= was.round) {
		c.words[v.from] = v
	}
}

// quorumReady are the chains that more than two thirds said they are ready for.
func quorumReady(votes map[int]*vote, n int) []sequence.ChainID {
	count := map[sequence.ChainID]int{}
	for _, v := range votes {
		for _, id := range v.ready {
			count[id]++
		}
	}
	out := []sequence.ChainID{}
	for id, k := range count {
		if 3*k > 2*n {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (c *consensus) startRound(r int) {
	c.round, c.step = r, proposing
	c.o.disk.round = r
	c.o.s.mix(uint64(c.o.index), c.height, uint64(r))
	if r > 0 {
		c.o.s.count["later rounds"]++
	}
	if c.proposer(c.height, r) == c.o.index {
		c.propose()
		if c.step != proposing || c.round != r {
			return
		}
	}
	h := c.height
	c.o.after(proposeTimeout+time.Duration(r)*40*time.Millisecond, func() {
		if c.height == h && c.round == r && c.step == proposing {
			c.o.s.trace(c.o, "height %d round %d: no proposal in time", h, r)
			c.castVote(prevote, common.Hash{})
			c.step = prevoting
			c.progress()
		}
	})
	c.progress()
}

// propose is this operator's turn.
func (c *consensus) propose() {
	d := &c.o.disk
	p := d.offers[c.round]
	if p == nil {
		p = &proposal{from: c.o.index, height: c.height, round: c.round, valid: -1}
		if d.valid != nil {
			p.value, p.valid = d.valid, d.validRound
		} else {
			v, err := c.subblock()
			if err != nil {
				c.o.s.count["passes"]++
				c.o.s.trace(c.o, "height %d round %d: passes: %v", c.height, c.round, err)
			}
			p.value = v
		}
		d.offers[c.round] = p
	}
	if c.o.lies != nil && c.o.lies.propose(c, p) {
		return
	}
	c.o.s.trace(c.o, "height %d round %d: proposes %s", c.height, c.round, describe(p.value))
	c.o.broadcast(p)
	c.addProposal(p)
}

// subblock is what this operator proposes, as app.subblock of rotation/cometbft: what it
// did at this height before, if it still agrees with it, or a new one; at most one is signed
// for a height and view.
func (c *consensus) subblock() (*value, error) {
	ctx := context.Background()
	if p := c.o.proposed; p != nil && p.height == c.height && c.o.seq.Verify(ctx, c.o.decode(p)) == nil {
		return p, nil
	}
	sub, err := c.o.seq.Propose(ctx, c.ready)
	if err != nil {
		return nil, err
	}
	c.o.clock.ahead = max(c.o.clock.ahead, c.o.drafted-c.o.s.now)
	v := newValue(c.o.index, c.height, sub.Encode())
	view := operators.View(sub)
	if was := c.o.disk.signed[view]; was == nil {
		c.o.disk.signed[view] = v
	} else if was.id != v.id {
		if err := c.o.seq.Verify(ctx, c.o.decode(was)); err != nil {
			return nil, err
		}
		v = was
	}
	c.o.s.checkSigned(c.o, v, view)
	c.o.proposed = v
	return v, nil
}

func (c *consensus) castVote(kind voteKind, id common.Hash) {
	at := voteAt{c.round, kind}
	v := c.o.disk.votes[at]
	if v == nil {
		v = &vote{from: c.o.index, height: c.height, round: c.round, kind: kind, id: id}
		if kind == precommit {
			v.ready = c.o.seq.Ready()
		}
		c.o.disk.votes[at] = v
	}
	if c.o.lies != nil && c.o.lies.vote(c, v) {
		return
	}
	c.o.s.checkVote(c.o, v)
	c.o.broadcast(v)
	c.addVote(v)
}

// verify asks the core about a proposed value.
func (c *consensus) verify(v *value) bool {
	if v.height != c.height {
		return false
	}
	sub := c.o.decode(v)
	if sub == nil {
		c.o.s.count["refused: garbage"]++
		return false
	}
	c.o.clock.ahead += c.o.s.between(1, 12)
	err := c.o.seq.Verify(context.Background(), sub)
	if err != nil {
		c.o.s.count.reject(err)
		c.o.s.trace(c.o, "height %d round %d: refuses %s: %v", c.height, c.round, describe(v), err)
		return false
	}
	if c.leadsNext(c.height + 1) {
		c.lead()
	}
	return true
}

func (c *consensus) addProposal(p *proposal) {
	if p.from != c.proposer(p.height, p.round) {
		return
	}
	if p.value != nil {
		c.values[p.value.id] = p.value
	}
	if c.proposals[p.round] == nil {
		c.proposals[p.round] = p
	}
}

// tally counts the votes of a kind in a round.
type tally struct {
	votes []*vote // in their order; several of who votes twice
	all   int     // operators that voted
	best  common.Hash
	most  int // votes for best
}

func (t *tally) add(v *vote) (twice bool) {
	n := 1
	for _, w := range t.votes {
		switch {
		case w.from == v.from && w.id == v.id:
			return false
		case w.from == v.from:
			twice = true
		case w.id == v.id:
			n++
		}
	}
	t.votes = append(t.votes, v)
	if !twice {
		t.all++
	}
	if n > t.most || (n == t.most && v.id.Cmp(t.best) < 0) {
		t.best, t.most = v.id, n
	}
	return twice
}

func (c *consensus) addVote(v *vote) {
	at := voteAt{v.round, v.kind}
	if c.votes[at] == nil {
		c.votes[at] = &tally{}
	}
	c.top = max(c.top, v.round)
	if c.votes[at].add(v) {
		c.o.s.count["double votes seen"]++
	}
}

// agreedOn says whether a quorum voted for one value in a round, which may be for nothing.
func (c *consensus) agreedOn(round int, kind voteKind) (common.Hash, bool) {
	if t := c.votes[voteAt{round, kind}]; t != nil && c.quorum(t.most) {
		return t.best, true
	}
	return common.Hash{}, false
}

// on takes in a message.
func (c *consensus) on(m any) {
	switch x := m.(type) {
	case *proposal:
		if c.place(x.height, m) {
			c.addProposal(x)
			c.progress()
		}
	case *vote:
		if x.kind == precommit {
			c.word(x)
			c.ready = quorumReady(c.words, c.n())
		}
		if c.place(x.height, m) {
			c.addVote(x)
			c.progress()
		}
	case *gossip:
		for _, d := range x.decisions {
			if d.height == c.height {
				c.o.s.count["heights caught up"]++
				c.decide(d)
			}
		}
		for _, p := range x.proposals {
			c.on(p)
		}
		for _, v := range x.votes {
			c.on(v)
		}
	case *status:
		c.help(x)
	}
}

// place says whether a message is of the present height; one of the next is kept.
func (c *consensus) place(height uint64, m any) bool {
	if height == c.height+1 && len(c.later) < 200 {
		c.later = append(c.later, m)
	}
	return height == c.height
}

// beat tells the others where this operator is.
func (c *consensus) beat() {
	c.o.broadcast(&status{c.o.index, c.height, c.round})
}

// maxDecisions is how many heights one that is behind is given at a time.
const maxDecisions = 10

// help gives an operator that is behind or stuck what it may lack.
func (c *consensus) help(x *status) {
	switch {
	case x.height < c.height:
		all := c.o.disk.decided[x.height-1:]
		c.o.send(x.from, &gossip{decisions: all[:min(len(all), maxDecisions)]})
	case x.height == c.height && c.o.s.now-c.began > 1500*time.Millisecond:
		g := &gossip{}
		for _, r := range slices.Sorted(maps.Keys(c.proposals)) {
			g.proposals = append(g.proposals, c.proposals[r])
		}
		for _, at := range slices.SortedFunc(maps.Keys(c.votes), compareVotes) {
			g.votes = append(g.votes, c.votes[at].votes...)
		}
		if len(g.proposals)+len(g.votes) > 0 {
			c.o.send(x.from, g)
		}
	}
}

// progress does what follows from the messages so far.
func (c *consensus) progress() {
	for h := c.height; c.height == h && c.once(); {
	}
}

// once applies one rule; it is false when none applies.
func (c *consensus) once() bool {
	for r := range c.top + 1 {
		if id, ok := c.agreedOn(r, precommit); ok && id != (common.Hash{}) && c.values[id] != nil {
			d := &decision{height: c.height, round: r, value: c.values[id]}
			for _, v := range c.votes[voteAt{r, precommit}].votes {
				if v.id == id {
					d.votes = append(d.votes, v)
				}
			}
			c.decide(d)
			return false
		}
	}
	if c.step == resting {
		return false
	}
	for r := c.round + 1; r <= c.top; r++ {
		if 3*c.voters(r) > c.n() {
			c.startRound(r)
			return false
		}
	}
	d := &c.o.disk
	p := c.proposals[c.round]
	if c.step == proposing && p != nil {
		if done, vote := c.judge(p); done {
			c.step = prevoting
			c.castVote(prevote, vote)
			return true
		}
	}
	if c.step == prevoting {
		c.timeout(prevote, func() {
			if c.step == prevoting {
				c.step = precommitting
				c.castVote(precommit, common.Hash{})
				c.progress()
			}
		})
	}
	id, ok := c.agreedOn(c.round, prevote)
	if v := c.values[id]; ok && v != nil && c.step >= prevoting && !c.polka[c.round] {
		c.polka[c.round] = true
		d.valid, d.validRound = v, c.round
		if c.step == prevoting {
			d.locked, d.lockedRound = v, c.round
			c.step = precommitting
			c.castVote(precommit, id)
		}
		return true
	}
	if ok && id == (common.Hash{}) && c.step == prevoting {
		c.step = precommitting
		c.castVote(precommit, common.Hash{})
		return true
	}
	c.timeout(precommit, func() { c.startRound(c.round + 1) })
	return false
}

// voters counts who has voted in a round.
func (c *consensus) voters(round int) int {
	n := 0
	var seen [16]bool
	for _, kind := range []voteKind{prevote, precommit} {
		t := c.votes[voteAt{round, kind}]
		if t == nil {
			continue
		}
		for _, v := range t.votes {
			if !seen[v.from] {
				seen[v.from] = true
				n++
			}
		}
	}
	return n
}

// judge says what to vote for a proposal, if that is known yet.
func (c *consensus) judge(p *proposal) (done bool, id common.Hash) {
	d := &c.o.disk
	if p.value == nil {
		return true, common.Hash{}
	}
	own := d.locked != nil && d.locked.id == p.value.id
	if p.valid >= 0 {
		polka, ok := c.agreedOn(p.valid, prevote)
		if p.valid >= c.round || !ok || polka != p.value.id {
			return false, common.Hash{}
		}
		// A quorum found it valid, of which most do not lie. Whether it still is, now that L1
		// or a chain has moved on, is not asked: those who are locked on it cannot leave it, and
		// without the others there would be no quorum for anything any more.
		if own || d.lockedRound <= p.valid {
			c.o.s.count["taken for its polka"]++
			return true, p.value.id
		}
		return true, common.Hash{}
	}
	if own || (c.mayLeaveLock() && c.verify(p.value)) {
		return true, p.value.id
	}
	return true, common.Hash{}
}

// mayLeaveLock is the locking rule, for a value that nobody was locked on before.
func (c *consensus) mayLeaveLock() bool { return c.o.disk.lockedRound < 0 }

// timeout goes on without the missing votes of the round, after a while.
func (c *consensus) timeout(kind voteKind, f func()) {
	at := voteAt{c.round, kind}
	if t := c.votes[at]; t == nil || c.waited[at] || !c.quorum(t.all) {
		return
	}
	c.waited[at] = true
	h, r := c.height, c.round
	c.o.after(voteTimeout+time.Duration(r)*20*time.Millisecond, func() {
		if c.height == h && c.round == r {
			f()
		}
	})
}

// decide commits a value that a quorum voted for.
func (c *consensus) decide(d *decision) {
	c.o.disk.decided = append(c.o.disk.decided, d)
	c.o.s.checkDecision(c.o, d)
	c.o.s.trace(c.o, "height %d round %d: decides %s", d.height, d.round, describe(d.value))
	c.o.s.mix(uint64(c.o.index), d.height, hashed(d.value.id))
	c.o.commit(d)
	c.next(d.votes)
}
