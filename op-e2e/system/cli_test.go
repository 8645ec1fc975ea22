package system

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/commands"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/exercise"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/overview"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// cli runs op-shared-sequencer and returns what it printed and its exit code.
func (s *scenario) cli(stdin string, args ...string) (string, int) {
	s.t.Helper()
	var out, err bytes.Buffer
	code := commands.Run(s.ctx, append([]string{"op-shared-sequencer"}, args...), commands.Env{
		In: strings.NewReader(stdin), Out: &out, Err: &err, Getenv: func(string) string { return "" }, Now: time.Now,
	})
	if code != 0 {
		s.t.Logf("op-shared-sequencer %v: exit code %d: %s", args, code, err.String())
	}
	return out.String(), code
}

// cliJSON is cli for what prints JSON.
func (s *scenario) cliJSON(into any, stdin string, args ...string) int {
	s.t.Helper()
	out, code := s.cli(stdin, append(args, "--json")...)
	require.NoError(s.t, json.Unmarshal([]byte(out), into), out)
	return code
}

// commandLine: what operators and senders do by hand, at a set of operators.
func commandLine(s *scenario) {
	node := []string{"--rpc", s.SharedSequencerURL(), "--node-rpc", s.NodeURL()}
	with := func(args ...string) []string { return append(args, node...) }

	var o overview.Overview
	s.until("status to find nothing wrong", func(context.Context) (bool, error) {
		return s.cliJSON(&o, "", with("status")...) == commands.ExitOK, nil
	})
	require.Len(s.t, o.Chains, 2)
	for _, c := range o.Chains {
		require.True(s.t, c.Ready)
		require.NotZero(s.t, c.Unsafe.Number)
		require.NotNil(s.t, c.LocalSafe, "op-node was asked")
		require.NotNil(s.t, c.CrossSafe)
		require.NotZero(s.t, c.CrossSafe.Number)
	}
	require.Len(s.t, o.Agreement.Operators, 4)
	require.Len(s.t, o.Agreement.Connected, 3)
	require.Contains(s.t, o.Last.Name, "operator-")
	for _, op := range o.Agreement.Operators {
		require.True(s.t, op.Votes, op.Name)
		require.NotZero(s.t, op.Led, op.Name)
	}
	text, code := s.cli("", with("status")...)
	require.Equal(s.t, commands.ExitOK, code, text)
	require.Contains(s.t, text, "healthy")

	var turns []overview.Turn
	require.Zero(s.t, s.cliJSON(&turns, "", "leaders", "--rpc", s.SharedSequencerURL(), "--count", "8"))
	leaders := map[common.Address]string{}
	for _, turn := range turns {
		leaders[turn.Leader] = turn.Name
		require.NotEmpty(s.t, turn.Name)
	}
	require.Len(s.t, leaders, 4)

	// A good bundle and one that must fail, from standard input.
	send := func(b *devnet.Bundle) string {
		args, _, err := b.Sign(s.ctx)
		require.NoError(s.t, err)
		data, err := json.Marshal(args)
		require.NoError(s.t, err)
		return string(data)
	}
	good, _ := s.bridge(s.user(6), chainA, chainB)
	bundle := send(good)
	var sim rpc.Simulation
	require.Zero(s.t, s.cliJSON(&sim, bundle, "bundle", "simulate", "--rpc", s.SharedSequencerURL()), "%+v", sim.Failure)
	require.True(s.t, sim.Success)
	var fate rpc.BundleStatus
	require.Zero(s.t, s.cliJSON(&fate, bundle, "bundle", "send", "--wait", "--rpc", s.SharedSequencerURL()), "%+v", fate.Failure)
	require.Contains(s.t, executedStates, fate.State)
	require.Len(s.t, fate.Items, 3)
	text, code = s.cli("", "bundle", "status", "--rpc", s.SharedSequencerURL(), fate.BundleHash.Hex())
	require.Equal(s.t, commands.ExitOK, code, text)
	bad, _ := s.spoilt(s.user(7), chainA, chainB)
	require.Equal(s.t, commands.ExitFailed, s.cliJSON(&fate, send(bad), "bundle", "send", "--wait", "--rpc", s.SharedSequencerURL()))
	require.Contains(s.t, fate.Failure.Reason, "ZeroAddress()")

	// A drill that stops nothing, at a set whose chains and operators are all there.
	report := filepath.Join(s.t.TempDir(), "drill.json")
	var r exercise.Report
	require.Zero(s.t, s.cliJSON(&r, "", append(with("drill"), "--slots", "10", "--report", report)...), "%+v", r)
	require.FileExists(s.t, report)
	require.GreaterOrEqual(s.t, r.Slots, 10)
	led := uint64(0)
	for _, op := range r.Operators {
		led += op.Led
		require.NotZero(s.t, op.Voted, op.Name)
	}
	require.Equal(s.t, r.Heights, led, "each height has a leader: %s", fmt.Sprint(r.Operators))
}
