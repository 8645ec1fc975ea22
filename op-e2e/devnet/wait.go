package devnet

import (
	"context"
	"fmt"
	"time"
)

// pollInterval is how often a condition is looked at. Conditions are local calls.
const pollInterval = 50 * time.Millisecond

// lookTime is how long one look may take.
const lookTime = 5 * time.Second

// WaitFor polls until the condition holds. An error of the condition is not the end: a
// part may be restarting; the last one is named when ctx ends first.
func WaitFor(ctx context.Context, what string, cond func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		ok, err := once(ctx, cond)
		if ok && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("waiting for %s: %w (last seen: %w)", what, context.Cause(ctx), last)
			}
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// once bounds one look at a condition: a service that is being restarted may never answer.
func once(ctx context.Context, cond func(context.Context) (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return cond(ctx)
}

// now is the present second. L1 and the chains live in real time.
func now() uint64 { return uint64(time.Now().Unix()) }
