package sequencer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
)

// Every reason why a chain cannot be built on has one of the words that are listed.
func TestHindrances(t *testing.T) {
	denied := uint64(11)
	seen := map[string]bool{}
	for why, want := range map[string]string{
		noDriver: "no_driver", switchedOff: "switched_off", notMember: "not_member", unconfirmed: "starting", isResetting: "resetting",
		isDeriving: "deriving", backingOff: "backing_off", noHead: "no_head", tooFew: "few_operators", failedSlots: "failed_slots",
		engineFault + "gone": "engine", "its ledger cannot be rewound": "catching_up",
		(&standing{running: true, active: true, confirmed: true}).blocked(l2B, &denied, start):                            "invalidated",
		(&standing{running: true, active: true, confirmed: true, maxSafeLag: 1, localSafe: l2B}).blocked(l2B, nil, start): "safe_lag",
	} {
		require.Equal(t, want, hindrance(why), why)
		seen[want] = true
	}
	for _, w := range Hindrances {
		require.True(t, seen[w], w)
	}
	require.Len(t, seen, len(Hindrances))
	require.Empty(t, hindrance(""))
}

func TestReasons(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("subblock 1 of slot 2: %w", err) }
	message := &executor.MessageError{Rule: executor.RuleExpiry}
	require.Equal(t, "message", RefusalReason(wrap(message)))
	require.Equal(t, "history", RefusalReason(wrap(&executor.MessageError{Rule: executor.RuleHistory})))
	require.Equal(t, "not_ready", RefusalReason(fmt.Errorf("%w: %w", ErrNotReady, errAborted)))
	require.Equal(t, "result", RefusalReason(wrap(ErrResult)))
	require.Equal(t, "other", RefusalReason(errors.New("something")))
	require.Equal(t, "engine", FailureReason(wrap(engine.ErrUnavailable)))
	require.Equal(t, "aborted", FailureReason(wrap(errAborted)))
	require.Equal(t, "message", FailureReason(wrap(message)))
	require.Equal(t, "lost_blocks", EngineFault(wrap(errLost)))
	require.Equal(t, "session_lost", EngineFault(wrap(engine.ErrSessionClosed)))
}

// counted notes what the sequencer counts.
type counted struct {
	NoMetrics
	w *world

	leftOut, faults, delayed []string
	redelivered              int
}

func (c *counted) ChainLeftOut(id chainID, reason string) {
	c.w.set(func() { c.leftOut = append(c.leftOut, id.String()+" "+reason) })
}

func (c *counted) EngineFailed(id chainID, fault string) {
	c.w.set(func() { c.faults = append(c.faults, id.String()+" "+fault) })
}

func (c *counted) BlockDelayed(id chainID, cause string) {
	c.w.set(func() { c.delayed = append(c.delayed, id.String()+" "+cause) })
}

func (c *counted) BlockRedelivered(chainID) { c.w.set(func() { c.redelivered++ }) }

// An engine that is gone is counted, its chain is left out with that reason and says so, and
// states are told without waiting for it.
func TestTroubleIsCounted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := &counted{w: w}
		w.metrics = c
		w.start()
		w.run(5 * time.Second)
		for _, st := range w.seq.States() {
			require.Empty(t, st.Hindrance)
			require.True(t, st.Member)
			require.False(t, st.LeftOut)
			require.Equal(t, w.chain(st.Chain).head(), st.Unsafe)
		}
		w.b().engine.SetDown(true)
		w.run(10 * time.Second)
		st := w.seq.States()
		require.Empty(t, st[0].Hindrance)
		require.Equal(t, "engine", st[1].Hindrance)
		require.True(t, st[1].LeftOut)
		w.set(func() {
			require.Contains(t, c.leftOut, w.b().id.String()+" engine")
			require.Contains(t, c.faults, w.b().id.String()+" unavailable")
			for _, f := range c.faults {
				require.NotContains(t, f, w.a().id.String()+" ")
			}
		})
		w.b().engine.SetDown(false)
		w.run(10 * time.Second)
		require.False(t, w.seq.States()[1].LeftOut)
	})
}
