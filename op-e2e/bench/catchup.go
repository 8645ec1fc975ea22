package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// catchUp stops one of four operators for a while, and measures how fast it comes back. A quick run
// of everything has no time for it.
func (c *Config) catchUp(ctx context.Context, r *Report) (err error) {
	const operators, rate = 4, 10
	const away = 180 // slots
	if c.Quick && len(c.Only) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roundTime+4*time.Duration(away)*time.Second)
	defer cancel()
	dc := c.base(chainIDs(2))
	dc.Operators, dc.Separate, dc.LogLevel = operators, true, "warn"
	d, err := devnet.Start(ctx, dc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop(context.WithoutCancel(ctx))) }()
	if err := d.AwaitOnTime(ctx); err != nil {
		return err
	}
	load, err := d.StartLoad(rate)
	if err != nil {
		return err
	}
	defer load.Stop()
	last := d.Operator(operators - 1)
	if err := d.AwaitSlots(ctx, 3); err != nil {
		return err
	}
	gone, err := d.Head(ctx, d.Chains()[0])
	if err != nil {
		return err
	}
	if err := last.Stop(ctx); err != nil {
		return err
	}
	if err := d.AwaitSlots(ctx, uint64(away)); err != nil {
		return err
	}
	start := time.Now()
	if err := last.Start(ctx); err != nil {
		return err
	}
	began, err := d.Head(ctx, d.Chains()[0])
	if err != nil {
		return err
	}
	// Back is when all its chains are where the first operator's are, within a slot.
	if err := devnet.WaitFor(ctx, "the operator to be where the others are", func(ctx context.Context) (bool, error) {
		for _, chain := range d.Chains() {
			mine, err := last.Eth(chain)
			if err != nil {
				return false, err
			}
			m, err := mine.HeaderByNumber(ctx, nil)
			if err != nil {
				return false, err
			}
			h, err := d.Head(ctx, chain)
			if err != nil || m.Time+1 < h.Time {
				return false, err
			}
		}
		return true, nil
	}); err != nil {
		return err
	}
	now, err := d.Head(ctx, d.Chains()[0])
	if err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	slots := now.Number.Uint64() - gone.Number.Uint64()
	speed := float64(slots) / took
	out := &CatchUp{Slots: int(began.Number.Uint64() - gone.Number.Uint64()), Chains: len(d.Chains()), Rate: rate, Seconds: sig(took), SlotsPerSecond: sig(speed)}
	if speed > 1 {
		out.Hour = sig(3600 / (speed - 1)) // the others go on
	}
	r.CatchUp = out
	fmt.Fprintf(c.Out, "  an operator %d slots behind was back after %.1f s: %.1f slots a second\n", out.Slots, took, speed)
	return nil
}
