package system

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/commands"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// TestOperatorKeys is one of four operators that changes its keys, step by step and with the
// commands of docs/operations.md: its op-geths and what it knows of the past stay.
func TestOperatorKeys(t *testing.T) {
	const members, leaving = 4, 2
	joined := &recording{proposed: map[common.Hash]bool{}}
	s := start(t, func(c *devnet.Config) {
		c.Operators, c.Joiners = members, 1
		c.OperatorOptions = func(i int, o *service.Options) {
			if i >= members {
				o.Machine = func(m rotation.Machine) rotation.Machine { joined.Machine = m; return joined }
			}
		}
	})
	load, err := s.StartLoad(20)
	require.NoError(t, err)
	defer load.Stop()
	before, after := s.Operator(leaving), s.Joiner(0)
	others := []int{0, 1, 3}

	// The snapshot of its own data, into the directory of the new keys.
	require.NoError(t, before.Stop(s.ctx))
	file := filepath.Join(t.TempDir(), "own.tar.gz")
	made, code := s.cli("", "snapshot", "create", "--data-dir", before.SequencerDir(), "--out", file)
	require.Zero(t, code)
	restored, code := s.cli("", "snapshot", "restore", "--in", file, "--data-dir", after.SequencerDir())
	require.Zero(t, code)
	require.Equal(t, made, restored)
	require.NoError(t, os.Rename(filepath.Join(before.Dir(), "engines"), filepath.Join(after.Dir(), "engines")))

	// The others name its node already. It follows, and is taken in.
	require.NoError(t, after.Start(s.ctx))
	s.follows(after)
	keys, err := cometbft.InitKeys(config.ConsensusDir(after.SequencerDir()))
	require.NoError(t, err)
	s.agreeTo(others, "add", "operator-2b", after.Address().Hex(), keys.ConsensusKey.String(), "1")
	s.inSet(after, after.Address(), true)

	// Three of five are not more than two thirds: it has to approve, too, that its old keys go.
	s.agreeTo(append(others, members), "remove", before.Address().Hex())
	s.inSet(after, before.Address(), false)

	s.until("a subblock that the new keys signed", func(context.Context) (bool, error) {
		joined.mu.Lock()
		defer joined.mu.Unlock()
		return joined.led > 0, nil
	})
	client, err := s.Sequencer(s.ctx)
	require.NoError(t, err)
	turns, err := client.LeaderSchedule(s.ctx, 8)
	require.NoError(t, err)
	leaders := map[common.Address]bool{}
	for _, turn := range turns {
		leaders[turn.Leader] = true
	}
	require.Len(t, leaders, members)
	require.Contains(t, leaders, after.Address())
	require.NotContains(t, leaders, before.Address())
	_, code = s.cli("", "operators", "propose", "--rpc", s.SharedSequencerURL(), "--key-file", s.keyFile(leaving), "leave", fmt.Sprint(chainB))
	require.Equal(t, commands.ExitFailed, code, "the old key has no say any more")
	s.takesBundles(after, 3)
	for _, i := range others {
		s.has(s.Operator(i), 1)
	}
	s.has(after, 1)
}

// keyFile has an operator's key, as operators propose and approve take it.
func (s *scenario) keyFile(operator int) string {
	s.t.Helper()
	key, err := s.Keys().Operator(operator)
	require.NoError(s.t, err)
	path := filepath.Join(s.t.TempDir(), "operator.key")
	require.NoError(s.t, os.WriteFile(path, []byte(hex.EncodeToString(crypto.FromECDSA(key))), 0o600))
	return path
}

// agreeTo has the first of some operators propose a change and the others approve it, by
// the command line. Without the last one it must not come in force.
func (s *scenario) agreeTo(by []int, change ...string) {
	s.t.Helper()
	at := []string{"--rpc", s.SharedSequencerURL()}
	out, code := s.cli("", slices.Concat([]string{"operators", "propose"}, at, []string{"--key-file", s.keyFile(by[0])}, change)...)
	require.Zero(s.t, code)
	id, _, _ := strings.Cut(out, "\n")
	for i, operator := range by[1:] {
		s.until("the change to wait for approval", func(ctx context.Context) (bool, error) {
			p, err := s.pendingChange(ctx, id)
			return p != nil && len(p.Approvals) == i+1, err
		})
		require.NoError(s.t, s.AwaitSlots(s.ctx, 2))
		p, err := s.pendingChange(s.ctx, id)
		require.NoError(s.t, err)
		require.NotNil(s.t, p, "approved by %d of the operators needed", i+1)
		_, code := s.cli("", slices.Concat([]string{"operators", "approve"}, at, []string{"--key-file", s.keyFile(operator), id})...)
		require.Zero(s.t, code)
	}
}

// pendingChange is a change that waits, nil if it does not.
func (s *scenario) pendingChange(ctx context.Context, id string) (*rpc.PendingChange, error) {
	client, err := s.Sequencer(ctx)
	if err != nil {
		return nil, err
	}
	set, err := client.Operators(ctx)
	if err != nil {
		return nil, err
	}
	for i := range set.Pending {
		if set.Pending[i].ID == common.HexToHash(id) {
			return &set.Pending[i], nil
		}
	}
	return nil, nil
}

// inSet waits until an address is in the set, or not, at the first operator and at another.
func (s *scenario) inSet(o *devnet.Operator, address common.Address, want bool) {
	s.t.Helper()
	for _, at := range []*devnet.Operator{s.Operator(0), o} {
		s.until(fmt.Sprintf("%s to be in the set: %t", address, want), func(ctx context.Context) (bool, error) {
			client, err := at.Sequencer(ctx)
			if err != nil {
				return false, err
			}
			set, err := client.Operators(ctx)
			return err == nil && want == slices.ContainsFunc(set.Operators, func(x rpc.OperatorInfo) bool { return x.Address == address }), err
		})
	}
}
