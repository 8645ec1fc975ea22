package conductor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Head is a block that became an operator's unsafe head.
type Head struct {
	Number uint64
	Hash   common.Hash
	Time   uint64 // the block's own timestamp, in seconds
	At     time.Time
}

// announced is when the block, or one after it, first became the head of any of the
// operators. Each operator's heads are in the order they came.
func announced(number uint64, operators [][]Head) (time.Time, bool) {
	var first time.Time
	found := false
	for _, heads := range operators {
		i := slices.IndexFunc(heads, func(h Head) bool { return h.Number >= number })
		if i >= 0 && (!found || heads[i].At.Before(first)) {
			first, found = heads[i].At, true
		}
	}
	return first, found
}

// CommitGap is the gap that Measure describes: at is the time of the kill, first the
// number of the first block that the new leader built, survivors the heads of all
// operators but the one that was killed.
func CommitGap(at time.Time, first uint64, survivors [][]Head, blockTime time.Duration) (time.Duration, error) {
	// Without the dead leader's own view, a block counts once somebody else has it.
	var last uint64
	known := false
	for _, heads := range survivors {
		for _, h := range heads {
			if h.At.After(at) {
				break
			}
			last, known = max(last, h.Number), true
		}
	}
	if !known {
		return 0, fmt.Errorf("no block was announced before the kill")
	}
	if first <= last {
		return 0, fmt.Errorf("the new leader's first block, %d, was announced before the kill: block %d was", first, last)
	}
	due, _ := announced(last, survivors)
	var gap time.Duration
	for n := last + 1; n <= first; n++ {
		due = due.Add(blockTime)
		seen, ok := announced(n, survivors)
		if !ok {
			return 0, fmt.Errorf("block %d was not announced", n)
		}
		gap = max(gap, seen.Sub(due))
	}
	return gap, nil
}

// Percentile is the smallest of the values that at least p percent of them do not
// exceed (nearest rank); 0 of none. p is in (0, 100].
func Percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(values), cmp.Compare[time.Duration])
	rank := int(p / 100 * float64(len(sorted)))
	if float64(rank) < p/100*float64(len(sorted)) {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}
