package sim

import (
	"context"
	"time"

	"github.com/ethereum-optimism/optimism/op-service/clock"
)

// epoch is when a run begins. Slots are timestamps, so it looks like one.
var epoch = time.Unix(1_700_000_000, 0)

// opClock is an operator's clock. Within a call of the core, whoever waits on it takes it
// ahead of the run; the operator is busy until the run has caught up.
type opClock struct {
	s     *sim
	skew  time.Duration
	ahead time.Duration
	// waits is told before the clock goes ahead: something else may happen meanwhile.
	waits func()
}

var _ clock.Clock = (*opClock)(nil)

func (c *opClock) Now() time.Time { return epoch.Add(c.s.now + c.skew + c.ahead) }

func (c *opClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func (c *opClock) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	if c.waits != nil {
		c.waits()
	}
	c.ahead += d
}

func (c *opClock) SleepCtx(ctx context.Context, d time.Duration) error {
	if ctx.Err() == nil {
		c.wait(d)
	}
	return ctx.Err()
}

func (c *opClock) NewTimer(d time.Duration) clock.Timer { return &opTimer{c, c.Now().Add(d)} }

func (c *opClock) After(d time.Duration) <-chan time.Time { return c.NewTimer(d).Ch() }

func (c *opClock) AfterFunc(time.Duration, func()) clock.Timer {
	panic("the simulation's clock calls nobody back")
}

func (c *opClock) NewTicker(time.Duration) clock.Ticker {
	panic("the simulation's clock does not tick")
}

// opTimer has fired when it is looked at.
type opTimer struct {
	c  *opClock
	at time.Time
}

func (t *opTimer) Ch() <-chan time.Time {
	t.c.wait(t.at.Sub(t.c.Now()))
	ch := make(chan time.Time, 1)
	ch <- t.at
	return ch
}

func (t *opTimer) Stop() bool { return false }
