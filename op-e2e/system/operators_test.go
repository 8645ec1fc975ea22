package system

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/faultnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// liar is the operator that lies when a test wants it to.
const liar = 3

// TestOperators are four operators that agree: all is well, one lies in every way there
// is, one goes and comes back, one is cut off, a chain leaves the set and joins it again.
func TestOperators(t *testing.T) {
	net, lies := faultnet.New(), &lies{said: map[string]int{}, told: map[common.Hash]string{}}
	s := start(t, func(c *devnet.Config) {
		c.Operators, c.ConsensusDial = 4, net.Link
		c.OperatorOptions = func(i int, o *service.Options) {
			if i == liar {
				o.Machine = func(m rotation.Machine) rotation.Machine { return &lyingMachine{Machine: m, lies: lies} }
			}
		}
	})
	t.Cleanup(net.Close)
	require.NoError(t, net.Err())
	load, err := s.StartLoad(20)
	require.NoError(t, err)
	defer load.Stop()

	t.Run("agree", func(t *testing.T) { agree(s.in(t)) })
	t.Run("command line", func(t *testing.T) { commandLine(s.in(t)) })
	t.Run("lying leader", func(t *testing.T) { lyingLeader(s.in(t), lies) })
	t.Run("one goes and comes back", func(t *testing.T) { goesAndComes(s.in(t)) })
	t.Run("one is cut off", func(t *testing.T) { cutOff(s.in(t), net) })
	t.Run("a chain leaves and joins", func(t *testing.T) { leavesAndJoins(s.in(t)) })
	t.Run("audit", func(t *testing.T) { audited(s.in(t)) })
}

// sameChains waits until all operators have the block that the first one has now, and
// checks that it is the same everywhere: so are those below it.
func (s *scenario) sameChains() {
	s.t.Helper()
	for _, id := range s.Chains() {
		head := s.block(id, s.head(id))
		for i, o := range s.Operators() {
			c, err := o.Eth(id)
			require.NoError(s.t, err)
			var got common.Hash
			s.until(fmt.Sprintf("block %d of chain %d at operator %d", head.Number, id, i), func(ctx context.Context) (bool, error) {
				h, err := c.HeaderByNumber(ctx, bigInt(head.Number))
				if errors.Is(err, ethereum.NotFound) || (err == nil && h == nil) {
					return false, nil
				}
				if err != nil {
					return false, err
				}
				got = h.Hash()
				return true, nil
			})
			require.Equal(s.t, head.Hash, got, "block %d of chain %d at operator %d", head.Number, id, i)
		}
	}
}

// agree: bundles that any operator is sent execute, whoever leads; every operator says
// the same of them, all have the same blocks, and what they agreed on is verified.
func agree(s *scenario) {
	first := s.head(chainA)
	var slot uint64
	for i := range s.Operators() {
		b, _ := s.bridge(s.user(uint64(2+i)), chainA, chainB)
		client, err := s.Operator(i).Sequencer(s.ctx)
		require.NoError(s.t, err)
		args, _, err := b.Sign(s.ctx)
		require.NoError(s.t, err)
		sent, err := client.SendBundle(s.ctx, args)
		require.NoError(s.t, err)
		st, err := client.WaitBundle(s.ctx, sent.BundleHash)
		require.NoError(s.t, err)
		require.Contains(s.t, executedStates, st.State, "%+v", st.Failure)
		for _, it := range st.Items {
			require.NoError(s.t, s.AwaitBlock(s.ctx, uint64(it.ChainID), uint64(it.BlockNumber)))
		}
		txs, err := s.Receipts(s.ctx, st)
		require.NoError(s.t, err)
		for _, tx := range txs {
			require.EqualValues(s.t, 1, tx.Status)
			require.Equal(s.t, txs[0].Timestamp, tx.Timestamp)
		}
		slot = txs[0].Timestamp
		for o := range s.Operators() {
			other, err := s.Operator(o).Sequencer(s.ctx)
			require.NoError(s.t, err)
			s.until(fmt.Sprintf("operator %d to know the bundle", o), func(ctx context.Context) (bool, error) {
				got, err := other.BundleStatus(ctx, sent.BundleHash)
				return err == nil && slices.Contains(executedStates, got.State), nil
			})
		}
	}
	leaders := map[common.Address]bool{}
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	turns, err := client.LeaderSchedule(s.ctx, 8)
	require.NoError(s.t, err)
	for _, turn := range turns {
		leaders[turn.Leader] = true
	}
	require.Len(s.t, leaders, 4, "all take turns")
	s.sameChains()
	s.lockstep(first, s.head(chainA)-1)
	s.awaitCrossSafe(slot)
}

// lies is what the lying operator is to say, and has said.
type lies struct {
	mu   sync.Mutex
	next []string
	said map[string]int
	told map[common.Hash]string
	// owes: it proposes honestly once after each lie, or its turns would be shortened.
	owes bool
}

// lyingMachine tells lies when it leads. It stands by them: it votes for what it proposed.
type lyingMachine struct {
	rotation.Machine
	lies *lies
}

// kinds of lies that a leader can tell in a slot with plain transactions.
var kinds = map[string]func(sub *sequence.Subblock) bool{
	"invalid message": func(sub *sequence.Subblock) bool {
		tx, err := forgedMessage(sub)
		if err == nil {
			sub.Steps = append(sub.Steps, sequence.Step{Chain: chainB, Transactions: [][]byte{tx}})
		}
		return err == nil
	},
	"wrong attributes": func(sub *sequence.Subblock) bool { sub.Openings[0].GasLimit += 1000; return true },
	"wrong result":     func(sub *sequence.Subblock) bool { sub.Results[1].ReceiptsRoot[0]++; return true },
	"wrong block":      func(sub *sequence.Subblock) bool { sub.Seals[0].BlockHash[0]++; return true },
	"a transaction less": func(sub *sequence.Subblock) bool {
		if len(sub.Steps) == 0 {
			return false
		}
		sub.Steps = sub.Steps[1:]
		return true
	},
	"a chain left out": func(sub *sequence.Subblock) bool {
		if len(sub.Openings) < 2 {
			return false
		}
		gone := sub.Openings[1].Chain
		sub.Openings, sub.Results, sub.Seals = sub.Openings[:1], sub.Results[:1], sub.Seals[:1]
		sub.Steps = slices.DeleteFunc(sub.Steps, func(st sequence.Step) bool { return st.Chain == gone })
		return true
	},
	"fills out of place": func(sub *sequence.Subblock) bool {
		for i := 1; i < len(sub.Steps); i++ {
			if a, b := sub.Steps[i-1], sub.Steps[i]; a.Bundle == (common.Hash{}) && b.Bundle == (common.Hash{}) && a.Chain < b.Chain {
				sub.Steps[i-1], sub.Steps[i] = b, a
				return true
			}
		}
		return false
	},
	"another history": func(sub *sequence.Subblock) bool { sub.Parent[0]++; return true },
}

func (m *lyingMachine) Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error) {
	sub, err := m.Machine.Propose(ctx, ready)
	if err != nil {
		return nil, err
	}
	m.lies.mu.Lock()
	defer m.lies.mu.Unlock()
	if len(m.lies.next) == 0 || len(sub.Seals) < 2 {
		return sub, nil
	}
	if m.lies.owes {
		m.lies.owes = false
		return sub, nil
	}
	kind := m.lies.next[0]
	lie, err := sequence.DecodeSubblock(sub.Encode())
	if err != nil {
		return nil, err
	}
	if !kinds[kind](lie) {
		return sub, nil // there is nothing to lie about in this slot
	}
	m.lies.next, m.lies.owes = m.lies.next[1:], true
	m.lies.said[kind]++
	m.lies.told[lie.Hash()] = kind
	return lie, nil
}

func (m *lyingMachine) Verify(ctx context.Context, sub *sequence.Subblock) error {
	m.lies.mu.Lock()
	_, own := m.lies.told[sub.Hash()]
	m.lies.mu.Unlock()
	if own {
		return nil
	}
	return m.Machine.Verify(ctx, sub)
}

// Commit must never be asked to take a lie.
func (m *lyingMachine) Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error {
	m.lies.mu.Lock()
	if kind, own := m.lies.told[sub.Hash()]; own {
		m.lies.said["AGREED: "+kind]++
	}
	m.lies.mu.Unlock()
	return m.Machine.Commit(ctx, sub, agreement)
}

// forgedMessage executes a message on chain B that nobody has sent.
func forgedMessage(sub *sequence.Subblock) ([]byte, error) {
	from, err := devnet.User(9)
	if err != nil {
		return nil, err
	}
	msg := messages.Message{
		Identifier: messages.Identifier{
			Origin: common.Address{1}, BlockNumber: sub.Openings[0].ParentNumber, Timestamp: uint64(sub.Slot) - 1, ChainID: sequence.ChainID(chainA).ID(),
		},
		PayloadHash: common.Hash{7},
	}
	tx, err := devnet.ValidateMessage(chainB, 0, msg, true)
	if err != nil {
		return nil, err
	}
	signed, err := from.Sign(tx)
	if err != nil {
		return nil, err
	}
	return signed.MarshalBinary()
}

// lyingLeader: every lie is refused, the slot goes on with the next leader, and the liar
// itself follows what the others agree on.
func lyingLeader(s *scenario, l *lies) {
	first := s.head(chainA)
	l.mu.Lock()
	for kind := range kinds {
		l.next = append(l.next, kind)
	}
	l.mu.Unlock()
	s.until("all lies to be told", func(context.Context) (bool, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.next) == 0, nil
	})
	require.NoError(s.t, s.AwaitSlots(s.ctx, 3))
	l.mu.Lock()
	said := fmt.Sprint(l.said)
	l.mu.Unlock()
	require.NotContains(s.t, said, "AGREED")
	s.sameChains()
	s.lockstep(first, s.head(chainA)-1)
	b, _ := s.bridge(s.user(2), chainB, chainA)
	s.executes(b)
}

// goesAndComes: three operators go on without the fourth, which catches up.
func goesAndComes(s *scenario) {
	first := s.head(chainA)
	gone := s.Operator(2)
	require.NoError(s.t, gone.Stop(s.ctx))
	require.NoError(s.t, s.AwaitSlots(s.ctx, 6))
	b, _ := s.bridge(s.user(3), chainA, chainB)
	s.executes(b)
	require.NoError(s.t, gone.Start(s.ctx))
	s.sameChains()
	require.NoError(s.t, s.AwaitOnTime(s.ctx))
	s.lockstep(first, s.head(chainA)-1)
	s.until("the operator to vote again", func(ctx context.Context) (bool, error) {
		client, err := gone.Sequencer(ctx)
		if err != nil {
			return false, err
		}
		st, err := client.Status(ctx)
		return err == nil && st.Agreement != nil, err
	})
}

// cutOff: an operator that nobody hears does not hold up the others, and comes to the
// same blocks when it is heard again.
func cutOff(s *scenario, net *faultnet.Network) {
	first := s.head(chainA)
	net.Set(1, true)
	alone, before := s.agreedHeight(1), s.agreedHeight(0)
	s.until("the others to go on", func(context.Context) (bool, error) { return s.agreedHeight(0) >= before+6, nil })
	require.LessOrEqual(s.t, s.agreedHeight(1), alone+1, "it agrees on nothing alone; its chains follow L1")
	b, _ := s.bridge(s.user(4), chainA, chainB)
	s.executes(b)
	net.Set(1, false)
	s.sameChains()
	require.NoError(s.t, s.AwaitOnTime(s.ctx))
	s.lockstep(first, s.head(chainA)-1)
}

// agreedHeight is the height that an operator has come to.
func (s *scenario) agreedHeight(operator int) uint64 {
	s.t.Helper()
	client, err := s.Operator(operator).Sequencer(s.ctx)
	require.NoError(s.t, err)
	set, err := client.Operators(s.ctx)
	require.NoError(s.t, err)
	return uint64(set.Height)
}

// approve has three of the four operators approve a change, and waits until it is in force.
func (s *scenario) approve(kind operators.Kind, chain uint64, done func(chains []hexutil.Uint64) bool) {
	s.t.Helper()
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	set, err := client.Operators(s.ctx)
	require.NoError(s.t, err)
	change := operators.Change{Kind: kind, Chain: sequence.ChainID(chain), Nonce: uint64(set.Height), Expiry: sequence.Slot(s.slotNow() + 600)}
	for i := range 3 {
		key, err := s.Keys().Operator(i)
		require.NoError(s.t, err)
		signed, err := operators.SignChange(set.Set, change, key)
		require.NoError(s.t, err)
		_, err = client.SubmitChange(s.ctx, signed)
		require.NoError(s.t, err)
	}
	s.until(change.String(), func(ctx context.Context) (bool, error) {
		set, err := client.Operators(ctx)
		return err == nil && done(set.Chains), nil
	})
}

// leavesAndJoins: a chain that two thirds of the power take out of the set makes no
// blocks, the other one goes on; when it is taken in again it catches up, slot by slot.
func leavesAndJoins(s *scenario) {
	has := func(want bool) func([]hexutil.Uint64) bool {
		return func(chains []hexutil.Uint64) bool { return slices.Contains(chains, hexutil.Uint64(chainB)) == want }
	}
	first := s.head(chainA)
	s.approve(operators.LeaveChain, chainB, has(false))
	a, b := s.head(chainA), s.head(chainB)
	s.until("chain A to go on alone", func(context.Context) (bool, error) { return s.head(chainA) >= a+5, nil })
	require.LessOrEqual(s.t, s.head(chainB), b+1, "the chain that left makes no blocks")
	s.approve(operators.JoinChain, chainB, has(true))
	require.NoError(s.t, s.AwaitOnTime(s.ctx))
	s.sameChains()
	for n := first; n < s.head(chainB); n++ {
		require.Equal(s.t, s.block(chainA, n).Time, s.block(chainB, n).Time, "no slot of the chain was skipped")
	}
	bundle, _ := s.bridge(s.user(5), chainA, chainB)
	s.executes(bundle)
}

func (s *scenario) slotNow() uint64 {
	c, err := s.Eth(chainA)
	require.NoError(s.t, err)
	h, err := c.HeaderByNumber(s.ctx, nil)
	require.NoError(s.t, err)
	return h.Time
}
