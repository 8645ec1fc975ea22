// Package scaling says what a set of operators needs that is larger than any that was measured:
// by a formula, and by a simulation of how one subblock is agreed on, which the formula is checked
// against. Both take what was measured on one machine (docs/benchmarks.md) as what each step costs.
package scaling

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"
)

// Setup is a set of operators that agree on one subblock, of one leader.
type Setup struct {
	// Delay is the one-way delay from operator i to operator j.
	Delay [][]time.Duration
	// Bandwidth is what an operator can send in a second, in bytes. 0: no limit.
	Bandwidth float64
	Bytes     int // of the subblock
	Leader    int
	// Check is what an operator needs for a subblock beside waiting for others: taking it from the
	// network, checking what the leader signed, executing it and comparing results.
	Check time.Duration
	// Vote is what an operator needs for a step of voting: signing, syncing its write-ahead log to
	// disk, checking the others' signatures.
	Vote time.Duration
	// Announce has operators tell each other at once which parts they have got, which CometBFT 0.40 does not
	// do: what would be gained.
	Announce bool
}

// Operators is how many there are.
func (s *Setup) Operators() int { return len(s.Delay) }

// quorum is more than two thirds.
func (s *Setup) quorum() int { return 2*s.Operators()/3 + 1 }

// partSize is that of CometBFT's block parts (types.BlockPartSizeBytes).
const partSize = 65536

// Uniform is n operators that are all as far from each other.
func Uniform(n int, delay time.Duration) [][]time.Duration {
	return Regions([]int{n}, [][]time.Duration{{delay}})
}

// Regions is operators in regions, between[i][j] apart; operators of region i come before those
// of region i+1.
func Regions(sizes []int, between [][]time.Duration) [][]time.Duration {
	var of []int
	for r, n := range sizes {
		for range n {
			of = append(of, r)
		}
	}
	out := make([][]time.Duration, len(of))
	for i := range of {
		out[i] = make([]time.Duration, len(of))
		for j := range of {
			if i != j {
				out[i][j] = between[of[i]][of[j]]
			}
		}
	}
	return out
}

// Estimate is the formula: when more than two thirds have committed, after the leader proposed.
//
// A subblock is with an operator when all of its parts have come, and was checked. Then there are
// two rounds of votes, of each of which an operator needs those of more than two thirds, the
// slowest of which decides.
func Estimate(s *Setup) time.Duration {
	at := make([]time.Duration, s.Operators())
	for i := range at {
		at[i] = s.Vote
		if i != s.Leader {
			at[i] = s.whole(i) + s.Check + s.Vote
		}
	}
	for round := range 2 {
		next := make([]time.Duration, len(at))
		for i := range next {
			next[i] = s.kth(at, i)
			if round == 0 {
				next[i] += s.Vote
			}
		}
		at = next
	}
	slices.Sort(at)
	return at[s.quorum()-1]
}

// useful is how much of what others than the leader pass on is new to who gets it. It was set by
// the simulation.
const useful = 0.15

// whole is when all parts are with operator i. Every operator shares its link among all others:
// the leader's share comes from the beginning, what another one passes on after it has come there.
func (s *Setup) whole(i int) time.Duration {
	if s.Bandwidth == 0 {
		return s.Delay[s.Leader][i]
	}
	type source struct{ from, rate float64 } // seconds, bytes a second
	share := s.Bandwidth / float64(s.Operators()-1)
	sources := []source{{s.Delay[s.Leader][i].Seconds(), share}}
	for j := range s.Operators() {
		if j != i && j != s.Leader {
			sources = append(sources, source{(s.Delay[s.Leader][j] + s.Delay[j][i]).Seconds(), useful * share})
		}
	}
	slices.SortFunc(sources, func(a, b source) int { return cmp.Compare(a.from, b.from) })
	left, rate, at := float64(s.Bytes), 0.0, 0.0
	for _, src := range sources {
		if got := rate * (src.from - at); got >= left {
			break
		} else {
			left, at = left-got, src.from
		}
		rate += src.rate
	}
	return time.Duration((at + left/rate) * float64(time.Second))
}

// kth is when operator i has what more than two thirds have sent.
func (s *Setup) kth(sent []time.Duration, i int) time.Duration {
	var got []time.Duration
	for j, t := range sent {
		got = append(got, t+s.Delay[j][i])
	}
	slices.Sort(got)
	return got[s.quorum()-1]
}

// Result is what a simulation came to.
type Result struct {
	Commit time.Duration // when more than two thirds have committed
	Sent   []float64     // bytes that each operator sent
}

// event is something that happens at a time.
type event struct {
	at   time.Duration
	seq  int // of two at one time the earlier
	what func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// simulation is one height. Operators pass parts of the subblock on to each other as CometBFT's
// gossip does: to each peer a random one of those that it is not known to have, as fast as the
// link takes them. Votes are small and go to everybody at once.
type simulation struct {
	s     *Setup
	rng   *rand.Rand
	now   time.Duration
	queue events
	seq   int
	parts int

	nodes  []*node
	result Result
	done   []time.Duration
}

type node struct {
	has   []bool
	count int
	// peers is what each peer is known to have, or was sent.
	peers [][]bool
	turn  int
	busy  bool // its link
	votes [2]int
}

// Simulate agrees on one subblock. The same seed gives the same result.
func Simulate(s *Setup, seed uint64) Result {
	n := s.Operators()
	m := &simulation{
		s: s, rng: rand.New(rand.NewPCG(seed, 1)), parts: max(1, (s.Bytes+partSize-1)/partSize), result: Result{Sent: make([]float64, n)},
	}
	for range n {
		nd := &node{has: make([]bool, m.parts), peers: make([][]bool, n)}
		for j := range nd.peers {
			nd.peers[j] = make([]bool, m.parts)
			for p := range m.parts {
				nd.peers[j][p] = j == s.Leader
			}
		}
		m.nodes = append(m.nodes, nd)
	}
	lead := m.nodes[s.Leader]
	for p := range lead.has {
		lead.has[p] = true
	}
	lead.count = m.parts
	m.after(s.Vote, func() { m.vote(s.Leader, 0) })
	m.send(s.Leader)
	for m.queue.Len() > 0 && len(m.done) < s.quorum() {
		e := heap.Pop(&m.queue).(event)
		m.now = e.at
		e.what()
	}
	m.result.Commit = m.now
	return m.result
}

func (m *simulation) after(d time.Duration, what func()) {
	m.seq++
	heap.Push(&m.queue, event{m.now + d, m.seq, what})
}

// send puts the next part on an operator's link, for its peers in turn.
func (m *simulation) send(i int) {
	nd := m.nodes[i]
	if nd.busy {
		return
	}
	for range m.nodes {
		nd.turn = (nd.turn + 1) % len(m.nodes)
		to := nd.turn
		if to == i {
			continue
		}
		part := m.pick(nd, to)
		if part < 0 {
			continue
		}
		nd.peers[to][part] = true
		size := float64(min(partSize, m.s.Bytes-part*partSize))
		m.result.Sent[i] += size
		var on time.Duration
		if m.s.Bandwidth > 0 {
			on = time.Duration(size / m.s.Bandwidth * float64(time.Second))
		}
		nd.busy = true
		m.after(on, func() { nd.busy = false; m.send(i) })
		m.after(on+m.s.Delay[i][to], func() { m.receive(to, i, part) })
		return
	}
}

// pick is a part that the operator has and the peer is not known to have, -1 if there is none.
func (m *simulation) pick(nd *node, to int) int {
	start := m.rng.IntN(m.parts)
	for k := range m.parts {
		if p := (start + k) % m.parts; nd.has[p] && !nd.peers[to][p] {
			return p
		}
	}
	return -1
}

func (m *simulation) receive(i, from, part int) {
	nd := m.nodes[i]
	// What a peer has is known only by what it sends (consensus/reactor.go, BlockPartMessage).
	nd.peers[from][part] = true
	if nd.has[part] {
		return // sent twice
	}
	nd.has[part] = true
	nd.count++
	if m.s.Announce {
		for j, other := range m.nodes {
			m.after(m.s.Delay[i][j], func() { other.peers[i][part] = true })
		}
	}
	if nd.count == m.parts {
		m.after(m.s.Check+m.s.Vote, func() { m.vote(i, 0) })
	}
	m.send(i)
}

// vote sends a prevote (0) or a precommit (1) to everybody.
func (m *simulation) vote(i, step int) {
	for j := range m.nodes {
		m.after(m.s.Delay[i][j], func() { m.count(j, step) })
	}
}

func (m *simulation) count(i, step int) {
	nd := m.nodes[i]
	nd.votes[step]++
	if nd.votes[step] != m.s.quorum() {
		return
	}
	if step == 0 {
		m.after(m.s.Vote, func() { m.vote(i, 1) })
		return
	}
	m.done = append(m.done, m.now)
}
