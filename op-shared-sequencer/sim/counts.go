package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Counts show that what was to happen did happen, by its name.
type Counts map[string]int

func newCounts() Counts { return Counts{} }

func (c Counts) add(o *Counts) {
	for k, n := range *o {
		c[k] += n
	}
}

func (c Counts) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "  %-40s %d\n", k, c[k])
	}
	return b.String()
}

// refusals are the reasons why a proposal is not voted for.
var refusals = []struct {
	name   string
	reason error
}{
	{"out of place", sequencer.ErrOutOfPlace}, {"too early", sequencer.ErrTooEarly}, {"omission", sequencer.ErrOmission},
	{"attributes", sequencer.ErrAttributes}, {"not ready", sequencer.ErrNotReady}, {"bundle", sequencer.ErrBundle}, {"place", sequencer.ErrPlace}, {"result", sequencer.ErrResult},
}

// reject counts a refusal.
func (c Counts) reject(err error) {
	for _, r := range refusals {
		if errors.Is(err, r.reason) {
			c["refused: "+r.name]++
			return
		}
	}
	var bad *executor.MessageError
	if errors.As(err, &bad) {
		c["refused: message"]++
		return
	}
	c["refused: other"]++
}
