package solo_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/solo"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

// machine has a turn every second. Its calls take as long as told, and fail as told.
type machine struct {
	rotation.Machine // the calls that solo does not make
	t                *testing.T
	calls            []string
	at               []time.Duration // of each call, since the start
	start            time.Time
	busy             atomic.Bool
	slot             sequence.Slot
	propose          func(ctx context.Context, slot sequence.Slot) error
	commit           func(slot sequence.Slot) error
	next             func() error
}

func newMachine(t *testing.T) *machine { return &machine{t: t, start: time.Now()} }

// call notes a call, and that none overlaps it.
func (m *machine) call(name string) (done func()) {
	require.False(m.t, m.busy.Swap(true), "calls overlap")
	m.calls = append(m.calls, name)
	m.at = append(m.at, time.Since(m.start))
	return func() { m.busy.Store(false) }
}

func (m *machine) Next(ctx context.Context) error {
	defer m.call("next")()
	if m.next != nil {
		if err := m.next(); err != nil {
			return err
		}
	}
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *machine) Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error) {
	defer m.call("propose")()
	require.Nil(m.t, ready)
	if m.propose != nil {
		if err := m.propose(ctx, m.slot+1); err != nil {
			return nil, err
		}
	}
	return &sequence.Subblock{Slot: m.slot + 1}, nil
}

func (m *machine) Commit(_ context.Context, sub *sequence.Subblock, _ []byte) error {
	defer m.call("commit")()
	if m.commit != nil {
		if err := m.commit(sub.Slot); err != nil {
			return err
		}
	}
	m.slot = sub.Slot
	return nil
}

func newRotation(m *machine) *solo.Rotation {
	return solo.New(m, clock.SystemClock, log.NewLogger(log.DiscardHandler()))
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		r := newRotation(m)
		require.NoError(t, r.Start(bg))
		time.Sleep(3*time.Second + time.Millisecond)
		require.NoError(t, r.Stop(bg))
		require.Equal(t, sequence.Slot(3), m.slot)
		turn := []string{"next", "propose", "commit"}
		require.Equal(t, append(append(append(append([]string(nil), turn...), turn...), turn...), "next"), m.calls)
	})
}

// A turn that fails is tried again soon, but not in a hot loop.
func TestRetry(t *testing.T) {
	for name, fail := range map[string]func(m *machine, err func() error){
		"next": func(m *machine, err func() error) { m.next = err },
		"propose": func(m *machine, err func() error) {
			m.propose = func(context.Context, sequence.Slot) error { return err() }
		},
		"commit": func(m *machine, err func() error) { m.commit = func(sequence.Slot) error { return err() } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				failures := 0
				fail(m, func() error {
					if failures++; failures <= 2 {
						return errors.New("no")
					}
					return nil
				})
				r := newRotation(m)
				require.NoError(t, r.Start(bg))
				time.Sleep(3*time.Second + 200*time.Millisecond)
				require.NoError(t, r.Stop(bg))
				require.Greater(t, failures, 2)
				require.NotZero(t, m.slot, "the slot was made in the end")
				for i := 1; i < len(m.at); i++ {
					if m.calls[i] == "next" && m.calls[i-1] != "commit" {
						require.Greater(t, m.at[i], m.at[i-1], "after a failure there is a pause")
					}
				}
			})
		})
	}
}

func TestStopWaitsForTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		cancelled := make(chan struct{})
		m.propose = func(ctx context.Context, _ sequence.Slot) error {
			<-ctx.Done()
			close(cancelled)
			time.Sleep(time.Second) // winding up
			return ctx.Err()
		}
		r := newRotation(m)
		require.NoError(t, r.Start(bg))
		time.Sleep(1500 * time.Millisecond)
		begin := time.Now()
		short, cancel := context.WithTimeout(bg, 300*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, r.Stop(short), context.DeadlineExceeded)
		<-cancelled
		require.True(t, m.busy.Load(), "still in its turn")
		require.NoError(t, r.Stop(bg))
		require.Equal(t, time.Second, time.Since(begin))
		require.False(t, m.busy.Load())
		require.Equal(t, []string{"next", "propose"}, m.calls, "nothing comes behind it")
		require.NoError(t, r.Stop(bg), "again")
	})
}

func TestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		r := newRotation(m)
		ctx, cancel := context.WithCancel(bg)
		require.NoError(t, r.Start(ctx))
		time.Sleep(1500 * time.Millisecond)
		cancel()
		require.NoError(t, r.Stop(bg))
		require.Equal(t, sequence.Slot(1), m.slot)
	})
}

func TestStartOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(newMachine(t))
		require.NoError(t, r.Stop(bg), "not started yet")
		require.NoError(t, r.Start(bg))
		require.ErrorContains(t, r.Start(bg), "started before")
		require.NoError(t, r.Stop(bg))
		require.Error(t, r.Start(bg), "a rotation is not started again")
	})
}
