package sequencer

import (
	"sync/atomic"
	"time"
)

// pace is how long before the cut this operator's fills begin: late, so that what users send is in
// the next block, but early enough for what there is. A fill has two thirds of the time until the cut
// (package builder), so one that begins too late leaves a block with room while transactions wait and
// processors rest.
type pace struct {
	least time.Duration // the configured fill lead, without the seal lead
	ahead atomic.Int64
}

func (p *pace) init(least time.Duration) {
	p.least = least
	p.ahead.Store(int64(least))
}

// window is how long before the cut the next fill begins.
func (p *pace) window() time.Duration { return time.Duration(p.ahead.Load()) }

// filled is told how long a fill took. The next one gets twice that, at most most: a third more than the
// last where the time was not enough. It comes back to the least slowly, as one block with
// less in it does not mean that the next one has less too.
func (p *pace) filled(took, most time.Duration) {
	want, have := max(min(2*took, most), p.least), p.window()
	if want < have {
		want = have - (have-want)/8
	}
	p.ahead.Store(int64(want))
}
