package system

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/snapshot"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// TestJoin is a set of four that takes in a fifth operator, which starts from genesis, and
// then a sixth, which starts from a snapshot of another one's data.
func TestJoin(t *testing.T) {
	const members = 4
	joined := []*recording{{proposed: map[common.Hash]bool{}}, {proposed: map[common.Hash]bool{}}}
	s := start(t, func(c *devnet.Config) {
		c.Operators, c.Joiners = members, len(joined)
		c.OperatorOptions = func(i int, o *service.Options) {
			if i >= members {
				o.Machine = func(m rotation.Machine) rotation.Machine {
					r := joined[i-members]
					r.Machine = m
					return r
				}
			}
		}
	})
	load, err := s.StartLoad(20)
	require.NoError(t, err)
	defer load.Stop()

	t.Run("from genesis", func(t *testing.T) { joinsFromGenesis(s.in(t), s.Joiner(0), joined[0]) })
	t.Run("from a snapshot", func(t *testing.T) { joinsFromSnapshot(s.in(t), s.Joiner(1), joined[1]) })
}

// recording notes what an operator led, and what it was given.
type recording struct {
	rotation.Machine
	mu       sync.Mutex
	proposed map[common.Hash]bool
	led      int           // subblocks of its own that were agreed on
	first    sequence.Slot // that was committed
}

func (r *recording) Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error) {
	sub, err := r.Machine.Propose(ctx, ready)
	if err == nil {
		r.mu.Lock()
		r.proposed[sub.Hash()] = true
		r.mu.Unlock()
	}
	return sub, err
}

func (r *recording) Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error {
	r.mu.Lock()
	if r.first == 0 {
		r.first = sub.Slot
	}
	if r.proposed[sub.Hash()] {
		r.led++
	}
	r.mu.Unlock()
	return r.Machine.Commit(ctx, sub, agreement)
}

// has waits until an operator has the block that the first one has now, and checks that it
// and those below it, down to a height, are the first one's.
func (s *scenario) has(o *devnet.Operator, from uint64) {
	s.t.Helper()
	for _, id := range s.Chains() {
		ours, err := s.Eth(id)
		require.NoError(s.t, err)
		theirs, err := o.Eth(id)
		require.NoError(s.t, err)
		head := s.head(id)
		s.until(fmt.Sprintf("block %d of chain %d at operator %d", head, id, o.Index()), func(ctx context.Context) (bool, error) {
			h, err := theirs.HeaderByNumber(ctx, nil)
			return err == nil && h.Number.Uint64() >= head, err
		})
		for n := from; n <= head; n++ {
			want, err := ours.HeaderByNumber(s.ctx, bigInt(n))
			require.NoError(s.t, err)
			got, err := theirs.HeaderByNumber(s.ctx, bigInt(n))
			require.NoError(s.t, err)
			require.Equal(s.t, want.Hash(), got.Hash(), "block %d of chain %d at operator %d", n, id, o.Index())
		}
	}
}

// follows waits until an operator without votes is where the others are.
func (s *scenario) follows(o *devnet.Operator) *rpc.AgreementStatus {
	s.t.Helper()
	var at *rpc.AgreementStatus
	s.until(fmt.Sprintf("operator %d to follow", o.Index()), func(ctx context.Context) (bool, error) {
		client, err := o.Sequencer(ctx)
		if err != nil {
			return false, err
		}
		st, err := client.Status(ctx)
		if err != nil || st.Agreement == nil {
			return false, err
		}
		at = st.Agreement
		for _, c := range st.Chains {
			if !c.Ready {
				return false, fmt.Errorf("chain %d: %s", uint64(c.ChainID), c.Reason)
			}
		}
		return at.Running && !at.Syncing, nil
	})
	require.Zero(s.t, at.Power)
	return at
}

// takesIn has two thirds of the operators approve another one, and waits until it is in
// the set and leads.
func (s *scenario) takesIn(o *devnet.Operator, r *recording) {
	s.t.Helper()
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	set, err := client.Operators(s.ctx)
	require.NoError(s.t, err)
	keys, err := cometbft.InitKeys(config.ConsensusDir(o.SequencerDir()))
	require.NoError(s.t, err)
	change := operators.Change{
		Kind:   operators.AddOperator,
		Nonce:  uint64(set.Height),
		Expiry: sequence.Slot(s.slotNow() + 600),
		Operator: operators.Operator{
			Name: fmt.Sprintf("operator-%d", o.Index()), Address: o.Address(), ConsensusKey: keys.ConsensusKey, Power: 1,
		},
	}
	for _, by := range s.Operators()[:uint64(set.TotalPower)*2/3+1] { // each has power 1
		key, err := s.Keys().Operator(by.Index())
		require.NoError(s.t, err)
		signed, err := operators.SignChange(set.Set, change, key)
		require.NoError(s.t, err)
		_, err = client.SubmitChange(s.ctx, signed)
		require.NoError(s.t, err)
	}
	theirs, err := o.Sequencer(s.ctx)
	require.NoError(s.t, err)
	for _, c := range []*rpc.Client{client, theirs} {
		s.until(change.String(), func(ctx context.Context) (bool, error) {
			set, err := c.Operators(ctx)
			return err == nil && slices.ContainsFunc(set.Operators, func(x rpc.OperatorInfo) bool { return x.Address == o.Address() }), err
		})
	}
	s.until("a subblock that it leads", func(context.Context) (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.led > 0, nil
	})
}

// takesBundles: a bundle that only the operator is sent executes.
func (s *scenario) takesBundles(o *devnet.Operator, user uint64) {
	s.t.Helper()
	b, _ := s.bridge(s.user(user), chainA, chainB)
	client, err := o.Sequencer(s.ctx)
	require.NoError(s.t, err)
	args, _, err := b.Sign(s.ctx)
	require.NoError(s.t, err)
	sent, err := client.SendBundle(s.ctx, args)
	require.NoError(s.t, err)
	st, err := client.WaitBundle(s.ctx, sent.BundleHash)
	require.NoError(s.t, err)
	require.Contains(s.t, executedStates, st.State, "%+v", st.Failure)
}

// joinsFromGenesis: an operator with nothing but keys and the set's genesis file fetches all
// that was agreed on, runs it, and is then taken in.
func joinsFromGenesis(s *scenario, o *devnet.Operator, r *recording) {
	b, _ := s.bridge(s.user(2), chainA, chainB)
	s.executes(b)
	require.NoError(s.t, o.Start(s.ctx))
	s.follows(o)
	s.has(o, 1)
	s.takesIn(o, r)
	s.takesBundles(o, 3)
	s.has(o, 1)
}

// joinsFromSnapshot: an operator is stopped for a snapshot while the others go on; a new
// one begins behind it, with keys of its own, and is taken in.
func joinsFromSnapshot(s *scenario, o *devnet.Operator, r *recording) {
	source := s.Operator(1)
	quiet := log.NewLogger(log.DiscardHandler())
	var file bytes.Buffer
	_, err := snapshot.Create(s.ctx, source.SequencerDir(), &file, quiet)
	require.ErrorIs(s.t, err, snapshot.ErrRunning)
	require.Zero(s.t, file.Len())
	require.NoError(s.t, source.Stop(s.ctx))
	made, err := snapshot.Create(s.ctx, source.SequencerDir(), &file, quiet)
	require.NoError(s.t, err)
	require.NoError(s.t, s.AwaitSlots(s.ctx, 2)) // without it
	require.NoError(s.t, source.Start(s.ctx))

	got, err := snapshot.Restore(s.ctx, &file, o.SequencerDir(), snapshot.DefaultLimits, quiet)
	require.NoError(s.t, err)
	require.Equal(s.t, made, got)
	// What is told of it can be held against another operator.
	require.Len(s.t, got.Chains, 2)
	for _, h := range got.Chains {
		require.Equal(s.t, s.block(uint64(h.Chain), h.Number).Hash, h.Hash)
	}
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	set, err := client.Operators(s.ctx)
	require.NoError(s.t, err)
	require.Equal(s.t, set.Set, got.Set)

	require.NoError(s.t, o.Start(s.ctx))
	s.follows(o)
	r.mu.Lock()
	first := r.first
	r.mu.Unlock()
	require.Greater(s.t, first, got.Slot, "what is in the snapshot is not agreed on again")
	s.has(o, 1)
	s.takesIn(o, r)
	s.takesBundles(o, 4)
	for _, op := range append(slices.Clone(s.Operators()), s.Joiner(0), o) {
		s.has(op, 1)
	}
}
