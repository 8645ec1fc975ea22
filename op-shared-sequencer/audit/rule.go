package audit

import (
	"container/heap"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Tx is a transaction as rules see it.
type Tx struct {
	Hash common.Hash
	From common.Address
	To   *common.Address
	Call bool     // it has calldata
	Tip  *big.Int // effective, in wei; nil if the block's base fee is not known
	// Arrived is when the auditing operator saw it, zero if it did not.
	Arrived time.Time
	// Bumps are other accounts whose nonce it may raise: those that have signed its EIP-7702
	// authorizations.
	Bumps []common.Address
}

// Fill is what one chain's pool gave to a subblock, in order.
type Fill struct {
	Chain sequence.ChainID
	Txs   []Tx
	// Before are the accounts whose nonces something else in the block has raised: earlier
	// transactions, deposits, authorizations. A pool offers what these have made stale still,
	// so that where it has the accounts' next ones cannot be told.
	Before map[common.Address]bool
}

// Rule is what a policy says of a fill, as far as it can be seen afterwards. Under any rule the
// transactions of one account stand in the order of their nonces, which execution checks.
type Rule interface {
	Name() string
	// Check gives the places in the fill where another transaction had to be, with that one.
	Check(f *Fill) []Deviation
	// Proves: a deviation shows that the leader did not follow the rule. Else it may have
	// seen other things than the auditing operator.
	Proves() bool
}

// Deviation is a transaction that stands before another one that the rule has before it.
type Deviation struct {
	Tx, Before Tx
	Reason     string
}

// Priority is upstream's order: of the transactions whose account's earlier ones are in the
// block, the one with the highest effective tip comes next. Which of equal ones depends on
// when the leader saw them.
type Priority struct {
	// Accounts are the priority accounts of the leaders' op-geths: theirs come first.
	Accounts map[common.Address]bool
}

// Name is that of the flag --shared-sequencer.order.
func (Priority) Name() string { return "priority" }

// Proves: all that the rule depends on is in the block.
func (Priority) Proves() bool { return true }

// Check finds what stands before a transaction with a higher tip. A fill without tips has none.
func (p Priority) Check(f *Fill) []Deviation {
	first := 0
	for first < len(f.Txs) && p.Accounts[f.Txs[first].From] {
		first++
	}
	better := func(a, b *Tx) bool { return a.Tip.Cmp(b.Tip) > 0 }
	judged := func(t *Tx) bool { return t.Tip != nil && !f.Before[t.From] }
	var out []Deviation
	for _, part := range [][]Tx{f.Txs[:first], f.Txs[first:]} {
		out = append(out, outOfOrder(part, judged, better, better, func(t, first *Tx) string {
			return fmt.Sprintf("its tip is %s wei, the other's %s", t.Tip, first.Tip)
		})...)
	}
	return out
}

// FCFS is the order of arrival, as the auditing operator saw it: leaders see transactions at
// other times, Tolerance apart at most.
type FCFS struct{ Tolerance time.Duration }

// Name is that of the flag --shared-sequencer.order.
func (FCFS) Name() string { return "fcfs" }

// Proves: only the leader knows when it saw a transaction.
func (FCFS) Proves() bool { return false }

// Check finds what stands before a transaction that arrived earlier. What was not seen is left out.
func (r FCFS) Check(f *Fill) []Deviation {
	earlier := func(a, b *Tx) bool { return a.Arrived.Before(b.Arrived) }
	better := func(a, b *Tx) bool { return a.Arrived.Before(b.Arrived.Add(-r.Tolerance)) }
	judged := func(t *Tx) bool { return !t.Arrived.IsZero() && !f.Before[t.From] }
	return outOfOrder(f.Txs, judged, earlier, better, func(t, first *Tx) string {
		return fmt.Sprintf("it was seen %s after the other", t.Arrived.Sub(first.Arrived).Round(time.Millisecond))
	})
}

// outOfOrder goes through transactions as a builder does, which has of each account the next
// one to choose from, the first of them by a strict order, and tells where that one was better
// than what was taken.
func outOfOrder(txs []Tx, judged func(*Tx) bool, first, better func(a, b *Tx) bool, reason func(t, head *Tx) string) (out []Deviation) {
	own := map[common.Address][]*Tx{}
	for i := range txs {
		own[txs[i].From] = append(own[txs[i].From], &txs[i])
	}
	heads := &heads{better: first}
	offer := func(from common.Address) {
		if list := own[from]; len(list) > 0 && judged(list[0]) {
			heap.Push(heads, list[0])
		}
	}
	for from := range own {
		offer(from)
	}
	placed := map[*Tx]bool{}
	for i := range txs {
		t := &txs[i]
		for len(heads.list) > 0 && placed[heads.list[0]] {
			heap.Pop(heads)
		}
		if judged(t) && len(heads.list) > 0 && better(heads.list[0], t) {
			out = append(out, Deviation{Tx: *t, Before: *heads.list[0], Reason: reason(t, heads.list[0])})
		}
		placed[t] = true
		own[t.From] = own[t.From][1:]
		offer(t.From)
	}
	return out
}

// heads are the transactions to choose from, the best one first.
type heads struct {
	list   []*Tx
	better func(a, b *Tx) bool
}

func (h *heads) Len() int           { return len(h.list) }
func (h *heads) Less(i, j int) bool { return h.better(h.list[i], h.list[j]) }
func (h *heads) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *heads) Push(x any)         { h.list = append(h.list, x.(*Tx)) }
func (h *heads) Pop() any {
	x := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return x
}

// Pattern has the shape of a sandwich: an account calls a contract right before and right
// after another account's call of the same contract, as far as calls of it go.
type Pattern struct {
	Contract common.Address
	Around   common.Address
	Between  common.Address
	at       [3]int // in the block
}

// patterns finds sandwich shapes among the transactions of a block.
func patterns(txs []Tx) (out []Pattern) {
	calls := map[common.Address][]int{}
	for i := range txs {
		t := &txs[i]
		if t.To == nil || !t.Call {
			continue
		}
		list := append(calls[*t.To], i)
		calls[*t.To] = list
		if len(list) < 3 {
			continue
		}
		at := [3]int(list[len(list)-3:])
		a, b, c := txs[at[0]].From, txs[at[1]].From, txs[at[2]].From
		if a == c && a != b {
			out = append(out, Pattern{Contract: *t.To, Around: a, Between: b, at: at})
		}
	}
	return out
}

// inversions are pairs in the order of a block, and those of them that came the other way round.
type inversions struct {
	pairs, inverted uint64
	worst           time.Duration // by which one came later than another that it stands before
}

// inverted compares the order of transactions with that of their arrival, over the pairs of
// different accounts of which both were seen. A transaction cannot stand before an earlier
// one of its account, so it counts as arrived no earlier than that.
func inverted(txs []Tx, tolerance time.Duration) (n inversions) {
	latest, own := map[common.Address]time.Time{}, map[common.Address]uint64{}
	var times []time.Time
	var newest time.Time
	for i := range txs {
		t := &txs[i]
		if t.Arrived.IsZero() {
			continue
		}
		at := t.Arrived
		if before := latest[t.From]; before.After(at) {
			at = before
		}
		latest[t.From] = at
		n.pairs += uint64(len(times)) - own[t.From]
		own[t.From]++
		if late := newest.Sub(at); !newest.IsZero() && late > tolerance {
			n.worst = max(n.worst, late)
		}
		if at.After(newest) {
			newest = at
		}
		times = append(times, at)
	}
	n.inverted = countInverted(times, tolerance)
	return n
}

// countInverted counts i < j with times[i] more than tolerance after times[j], and sorts.
func countInverted(times []time.Time, tolerance time.Duration) uint64 {
	if len(times) < 2 {
		return 0
	}
	left, right := times[:len(times)/2], times[len(times)/2:]
	n := countInverted(left, tolerance) + countInverted(right, tolerance)
	j := 0
	for i := range left {
		for j < len(right) && left[i].Sub(right[j]) > tolerance {
			j++
		}
		n += uint64(j)
	}
	slices.SortFunc(times, time.Time.Compare)
	return n
}
