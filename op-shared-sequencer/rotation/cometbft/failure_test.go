package cometbft

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// alone is a set of one operator: it agrees with itself, and needs no sync.
func alone(t *testing.T, prepare func(*fakeMachine, *Config)) (*cluster, *operator) {
	c := newCluster(t, 1, 1)
	c.pace.interval = 5 * time.Millisecond
	c.ops[0].prepare = prepare
	return c, c.ops[0]
}

func (o *operator) waitFatal() error {
	o.t.Helper()
	select {
	case err := <-o.fatal:
		return err
	case <-time.After(patience):
		o.t.Fatal("Fatal was not called")
		return nil
	}
}

// An operator that stops in the middle of a slot has the slot's subblocks again when it
// starts, and goes on behind them.
func TestRestartMidSlot(t *testing.T) {
	c := newCluster(t, 4, 4)
	c.start()
	c.advance(4)
	o := c.ops[1]
	var cut int
	c.wait("the middle of a slot", func() bool { cut = o.machine.height(); return cut%3 == 2 })
	o.stop()
	stopped := o.machine.height()
	c.advance(2)
	o.start()
	c.wait("the replay", func() bool { return o.machine.height() >= stopped })
	c.advance(6)
	c.same()
	a, b := c.ops[0].rotation.app.current(), o.rotation.app.current()
	for a.height != b.height {
		a, b = c.ops[0].rotation.app.current(), o.rotation.app.current()
	}
	ea, err := a.encode(nil)
	require.NoError(t, err)
	eb, err := b.encode(nil)
	require.NoError(t, err)
	require.Equal(t, ea, eb, "the state after a replay is that of an operator that never stopped")
}

// The process may end between any two writes of a commit. Here it ends in the ways that
// leave the ledger and CometBFT's stores at different heights.
func TestCrashWindows(t *testing.T) {
	boom := errors.New("killed here")
	for name, tt := range map[string]struct {
		prepare func(m *fakeMachine)
		forget  int // slots that the ledger loses
	}{
		"before the machine has the last subblock of a slot": {prepare: func(m *fakeMachine) {
			m.onCommit = func(_ context.Context, s *sequence.Subblock, h int) error { return failAt(s.Last() && h > 6, boom) }
		}},
		"before the machine has a subblock in the middle": {prepare: func(m *fakeMachine) {
			m.onCommit = func(_ context.Context, s *sequence.Subblock, h int) error { return failAt(s.Index == 1 && h > 6, boom) }
		}},
		"after the ledger's write, before CometBFT's": {prepare: func(m *fakeMachine) {
			m.afterward = func(s *sequence.Subblock, h int) error { return failAt(s.Last() && h > 6, boom) }
		}},
		"the ledger is slots behind": {prepare: func(m *fakeMachine) {
			m.afterward = func(s *sequence.Subblock, h int) error { return failAt(s.Last() && h > 12, boom) }
		}, forget: 3},
		"the ledger is empty": {prepare: func(m *fakeMachine) {
			m.afterward = func(s *sequence.Subblock, h int) error { return failAt(s.Last() && h > 6, boom) }
		}, forget: -1},
	} {
		t.Run(name, func(t *testing.T) {
			c, o := alone(t, func(m *fakeMachine, _ *Config) { tt.prepare(m) })
			o.start()
			require.ErrorIs(t, o.waitFatal(), boom)
			before, _ := o.machine.history()
			o.stop()
			if tt.forget < 0 {
				tt.forget = o.ledger.len()
			}
			o.ledger.forget(tt.forget)
			kept := 3 * o.ledger.len()

			o.prepare = nil
			o.start()
			c.reach(len(before) + 5)
			after, at := o.machine.history()
			require.Equal(t, len(after)-kept, len(at), "all behind the ledger's last slot is committed again, and nothing else")
			for i := range before {
				require.Equal(t, before[i].Hash(), after[i].Hash(), "height %d", i+1)
			}
			o.stop()
			c.same()
		})
	}
}

func failAt(here bool, err error) error {
	if here {
		return err
	}
	return nil
}

// A ledger that does not belong to the consensus data is refused, with what to do.
func TestWrongData(t *testing.T) {
	c, o := alone(t, nil)
	o.start()
	c.reach(10)
	o.stop()

	other, p := alone(t, nil)
	p.ledger = o.ledger
	require.ErrorContains(t, p.tryOpen(), "is of set")
	p.ledger = &memLedger{}
	other.genesis = c.genesis
	p.key = o.key
	p.ledger = o.ledger
	require.ErrorContains(t, p.tryOpen(), "they were lost, or are of another node")
	p.ledger = &memLedger{}
	require.ErrorContains(t, p.tryOpen(), "votes with", "another operator's vote key")

	require.NoError(t, os.Remove(filepath.Join(o.dir, voteStateFile)))
	require.ErrorContains(t, o.tryOpen(), "could vote twice")
}

// A sign state that was lost must not make an operator sign a height twice.
func TestLostSignState(t *testing.T) {
	c, o := alone(t, nil)
	o.start()
	c.reach(10)
	o.stop()
	height := o.machine.height()
	require.NoError(t, os.Remove(filepath.Join(o.dir, signerStateFile)))
	o.open()
	require.GreaterOrEqual(t, o.rotation.app.signer.Height(), uint64(height+2))
}

// A call into the machine that does not return is fatal, and a stop does not wait for it
// longer than it may.
func TestWatchdogHungCall(t *testing.T) {
	var released atomic.Bool
	_, o := alone(t, func(m *fakeMachine, cfg *Config) {
		cfg.Timeouts.Call = 200 * time.Millisecond
		m.onCommit = func(ctx context.Context, _ *sequence.Subblock, h int) error {
			if h < 5 {
				return nil
			}
			<-ctx.Done()
			released.Store(true)
			return ctx.Err()
		}
	})
	o.start()
	require.ErrorContains(t, o.waitFatal(), "Commit at height 5 takes")
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, o.rotation.Stop(ctx), context.DeadlineExceeded)
	o.stop() // the call has been cancelled now
	require.True(t, released.Load())
}

// A turn that hangs is cancelled by a stop at once.
func TestStopDuringTurn(t *testing.T) {
	entered := make(chan struct{}, 1)
	_, o := alone(t, func(m *fakeMachine, cfg *Config) {
		cfg.Timeouts.Propose = time.Hour
		m.onPropose = func(ctx context.Context, h int) error {
			if h < 5 {
				return nil
			}
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	o.start()
	<-entered
	o.stop()
	require.Empty(t, o.fatal, "a stop is no failure")
}

// When CometBFT's consensus ends, the reason is told.
func TestWatchdogConsensusFailure(t *testing.T) {
	_, o := alone(t, func(m *fakeMachine, _ *Config) {
		m.onVerify = func(_ context.Context, s *sequence.Subblock) error {
			if s.Slot > 2 {
				panic("out of cheese")
			}
			return nil
		}
	})
	o.start()
	require.ErrorContains(t, o.waitFatal(), "out of cheese")
}

// An address that cannot be listened on is told as such.
func TestPortInUse(t *testing.T) {
	c := newCluster(t, 2, 1)
	c.ops[1].addr = c.ops[0].addr
	c.ops[0].start()
	c.wait("the first listens", func() bool { return c.ops[0].rotation.Status().Running })
	c.ops[1].start()
	require.ErrorContains(t, c.ops[1].waitFatal(), "address already in use")
}

// Old heights are deleted, but none that a restart needs.
func TestPruning(t *testing.T) {
	var needed atomic.Uint64
	needed.Store(1 << 40)
	c, o := alone(t, func(_ *fakeMachine, cfg *Config) {
		cfg.KeepHeights = 20
		cfg.Retain = needed.Load
	})
	c.pace.interval = time.Microsecond
	o.start()
	base := func() int64 { return o.rotation.node.Load().BlockStore().Base() }
	c.wait("heights are deleted", func() bool { return o.rotation.node.Load() != nil && base() > 1 })
	require.EqualValues(t, 80, base())
	needed.Store(130)
	c.reach(301)
	require.EqualValues(t, 130, base(), "what is needed elsewhere is kept")
	o.stop()
	o.start()
	c.advance(10)
	o.stop()
	c.same()

	o.ledger.forget(o.ledger.len() - 10)
	require.ErrorContains(t, o.tryOpen(), "the ones between are needed")
}
