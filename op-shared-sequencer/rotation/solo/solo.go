// Package solo is the rotation of a set with one operator: it always leads, and what
// it proposes is agreed at once.
package solo

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
)

// retryDelay keeps a turn that fails at once from being tried in a hot loop.
const retryDelay = 50 * time.Millisecond

// Rotation drives the machine in one goroutine.
type Rotation struct {
	machine rotation.Machine
	clock   clock.Clock
	log     log.Logger

	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
}

var _ rotation.Rotation = (*Rotation)(nil)

// New makes a rotation for one operator.
func New(machine rotation.Machine, clk clock.Clock, l log.Logger) *Rotation {
	return &Rotation{machine: machine, clock: clk, log: l}
}

// Start begins to drive the machine. The rotation ends with Stop, or with ctx.
func (r *Rotation) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		return errors.New("rotation has been started before")
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.done = make(chan struct{})
	go func() {
		defer close(r.done)
		r.run(ctx)
	}()
	return nil
}

// Stop ends the rotation and waits for the turn in progress.
func (r *Rotation) Stop(ctx context.Context) error {
	r.mu.Lock()
	cancel, done := r.cancel, r.done
	r.mu.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Schedule: the one operator always leads.
func (r *Rotation) Schedule(n int) []rotation.Turn { return make([]rotation.Turn, n) }

func (r *Rotation) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.machine.Next(ctx)
		if err == nil {
			err = r.turn(ctx)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if errors.Is(err, rotation.ErrPass) {
			r.log.Debug("Nothing can be proposed yet", "err", err)
		} else {
			r.log.Warn("Turn failed, it is tried again", "err", err)
		}
		_ = r.clock.SleepCtx(ctx, retryDelay)
	}
}

func (r *Rotation) turn(ctx context.Context) error {
	sub, err := r.machine.Propose(ctx, nil)
	if err != nil {
		return err
	}
	return r.machine.Commit(ctx, sub, nil)
}
