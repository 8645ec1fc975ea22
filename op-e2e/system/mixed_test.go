package system

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// TestMixedVersions has operators of the previous commit and of this one in one set: they
// agree on the same blocks, and one after the other is upgraded while slots go on. It runs
// programs that `make test-mixed` builds.
func TestMixedVersions(t *testing.T) {
	previous, current := os.Getenv("DEVNET_PREVIOUS"), filepath.Join(root(), "bin", "devnet")
	if previous == "" {
		t.Skip("DEVNET_PREVIOUS names no program of the previous commit: make test-mixed")
	}
	old := []bool{false, false, true, true}
	s := start(t, func(c *devnet.Config) {
		c.Operators, c.Separate, c.Command = len(old), true, []string{current, "operator"}
		c.OperatorCommand = func(i int) []string {
			if old[i] {
				return []string{previous, "operator"}
			}
			return nil
		}
	})
	load, err := s.StartLoad(10)
	require.NoError(t, err)
	defer load.Stop()
	agree(s.in(t))
	for i := range old {
		if !old[i] {
			continue
		}
		first := s.head(chainA)
		require.NoError(t, s.Operator(i).Stop(s.ctx))
		old[i] = false
		require.NoError(t, s.Operator(i).Start(s.ctx))
		s.sameChains()
		s.until("the upgraded operator to lead", func(ctx context.Context) (bool, error) { return s.led(ctx, i) })
		require.NoError(t, s.AwaitOnTime(s.ctx))
		s.lockstep(first, s.head(chainA)-1)
	}
	b, _ := s.bridge(s.user(7), chainA, chainB)
	s.executes(b)
}

// led says whether the operator led the subblock that was agreed on last.
func (s *scenario) led(ctx context.Context, operator int) (bool, error) {
	client, err := s.Sequencer(ctx)
	if err != nil {
		return false, err
	}
	st, err := client.Status(ctx)
	if err != nil || st.Agreement == nil {
		return false, err
	}
	return st.Agreement.LastLeader == s.Operator(operator).Address(), nil
}
