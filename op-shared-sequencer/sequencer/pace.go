package sequencer

import (
	"sync/atomic"
	"time"
)

// pace is how long before the cut this operator's fills begin: late, so that what users send is in
// the next block, but early enough for what there is. A fill that begins too late leaves a block with room while
// transactions wait and processors rest. It is measured with what was agreed on: a slot that takes
// longer than the others wait for has not been worth the time.
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

// rest is what a fill leaves, of the time until the cut, for relays and late bundles. It does not grow with
// the window: a fill that has to wait for its pool would have less time with a longer one.
func (p *pace) rest() time.Duration { return p.least / 3 }

// filled is told how long a fill took of a subblock that was agreed on. The next one gets a third more, in a window of
// at most most. It comes back to the least slowly, as one block with less in it does not mean that
// the next one has less too.
func (p *pace) filled(took, most time.Duration) {
	want, have := max(min(took+took/3+p.rest(), most), p.least), p.window()
	if want < have {
		want = have - (have-want)/8
	}
	p.ahead.Store(int64(want))
}

// lost is told that what was filled was not agreed on: perhaps as it came too late, because what follows
// takes the longer the more there is.
func (p *pace) lost() {
	p.ahead.Store(int64(p.least + (p.window()-p.least)/2))
}
