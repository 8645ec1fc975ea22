package system

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// messageExpiry is short, so that a test can wait for a message to expire; every other
// message of the tests is executed within a slot or two.
const messageExpiry = 20 // seconds

// lockstepSlots is how long the lockstep scenario runs: `-args -slots 300` for five minutes.
var lockstepSlots = flag.Uint64("slots", 30, "slots of the lockstep scenario")

// TestShared are the scenarios that leave a devnet as they found it: they share one.
func TestShared(t *testing.T) {
	s := start(t, func(c *devnet.Config) { c.P2P, c.MessageExpiry = true, messageExpiry })
	t.Run("lockstep", func(t *testing.T) { lockstep(s.in(t)) })
	t.Run("super root", func(t *testing.T) { superRoot(s.in(t)) })
	t.Run("arbitrage", func(t *testing.T) { arbitrage(s.in(t)) })
	t.Run("forged messages", func(t *testing.T) { forgedMessages(s.in(t)) })
	t.Run("gossip replica", func(t *testing.T) { gossipReplica(s.in(t)) })
	t.Run("independent verifier", func(t *testing.T) { independentVerifier(s.in(t)) })
}

// lockstep: under plain load and a stream of good and bad bundles both chains take part
// in every slot; good bundles are executed whole, bad ones leave nothing.
func lockstep(s *scenario) {
	const rate = 100
	slots := *lockstepSlots
	load, err := s.StartLoad(rate)
	require.NoError(s.t, err)
	defer load.Stop()
	watch := s.Watch()
	defer watch.Stop()

	good := []devnet.Account{s.user(2), s.user(3)}
	bad := []devnet.Account{s.user(4), s.user(5)}
	first := s.head(chainA)
	enough := func() bool { return s.head(chainA) >= first+slots }
	var executed, refused int
	type outcome struct {
		st    *rpc.BundleStatus
		fresh devnet.Account
		good  bool
		err   error
	}
	results := make(chan outcome)
	ctx, cancel := context.WithCancel(s.ctx)
	defer func() { // a failure here must not send bundles into what comes next
		cancel()
		for range results {
		}
	}()
	var senders sync.WaitGroup
	for i, u := range append(append([]devnet.Account(nil), good...), bad...) {
		isGood, source, dest := i < len(good), uint64(chainA), uint64(chainB)
		if i%2 == 1 {
			source, dest = dest, source // both directions
		}
		senders.Go(func() {
			for {
				h, err := s.Head(ctx, chainA)
				if err == nil && h.Number.Uint64() >= first+slots {
					return
				}
				b, to := s.bridge(u, source, dest)
				if !isGood {
					b, to = s.spoilt(u, source, dest)
				}
				st, err := b.Run(ctx)
				results <- outcome{st, to, isGood, err}
				if err != nil {
					return
				}
			}
		})
	}
	go func() { senders.Wait(); close(results) }()
	var ghosts []devnet.Account
	for r := range results {
		require.NoError(s.t, r.err)
		if r.good {
			why := ""
			if r.st.Failure != nil {
				why = r.st.Failure.Reason
			}
			require.Contains(s.t, executedStates, r.st.State, why)
			txs, err := s.Receipts(s.ctx, r.st)
			require.NoError(s.t, err)
			require.Len(s.t, txs, 3)
			for _, tx := range txs {
				require.EqualValues(s.t, 1, tx.Status)
				require.Equal(s.t, txs[0].Timestamp, tx.Timestamp)
			}
			executed++
		} else {
			require.Equal(s.t, bundlepool.Failed, r.st.State)
			require.Contains(s.t, r.st.Failure.Reason, "ZeroAddress()")
			ghosts = append(ghosts, r.fresh)
			refused++
		}
	}
	require.True(s.t, enough())
	require.NoError(s.t, s.AwaitSlots(s.ctx, 2))
	s.t.Logf("%d bundles executed, %d refused; %d and %d transfers", executed, refused, load.Sent(chainA), load.Sent(chainB))
	require.Positive(s.t, executed)
	require.Positive(s.t, refused)
	for _, id := range s.Chains() {
		require.Positive(s.t, load.Sent(id), "chain %d took plain transfers", id)
		for _, u := range bad {
			nonce, err := s.Nonce(s.ctx, id, u.Address)
			require.NoError(s.t, err)
			require.Zero(s.t, nonce, "a sender of bad bundles has done nothing on chain %d", id)
		}
		for _, g := range ghosts {
			balance, err := s.Balance(s.ctx, id, g.Address)
			require.NoError(s.t, err)
			require.Zero(s.t, balance.Sign(), "a bad bundle's new account has nothing on chain %d", id)
		}
	}
	load.Stop()
	require.NoError(s.t, s.AwaitOnTime(s.ctx))
	watch.Stop()
	var last uint64
	for len(watch.Slots()) > 0 {
		slot := <-watch.Slots()
		if last != 0 {
			require.Equal(s.t, last+1, slot.Slot, "no slot is missed")
			require.Len(s.t, slot.Blocks, 2, "both chains take part in slot %d", slot.Slot)
		}
		last = slot.Slot
	}
	require.NotZero(s.t, last)
	s.lockstep(first, s.head(chainA)-1)
}

// superRoot: what a bundle did becomes cross-safe with the same hashes, and the super
// root at its timestamp is served and is that of the chains' outputs.
func superRoot(s *scenario) {
	b, _ := s.bridge(s.user(2), chainA, chainB)
	txs := s.executes(b)
	slot := txs[0].Timestamp
	s.awaitCrossSafe(slot)
	for _, tx := range txs {
		hash, err := s.BlockHash(s.ctx, tx.Chain, tx.BlockNumber)
		require.NoError(s.t, err)
		require.Equal(s.t, tx.BlockHash, hash, "block %d of chain %d is the one that was announced", tx.BlockNumber, tx.Chain)
	}
	var got eth.SuperRootAtTimestampResponse
	s.until("the super root", func(ctx context.Context) (_ bool, err error) {
		got, err = s.SuperNode().SuperRootAtTimestamp(ctx, slot)
		return err == nil && got.Data != nil, err
	})
	var outputs []eth.ChainIDAndOutput
	for _, id := range s.Chains() {
		number := (slot - s.Genesis().Rollup[id].Genesis.L2Time) / s.Genesis().Rollup[id].BlockTime
		out, err := s.Rollup(id).OutputAtBlock(s.ctx, number)
		require.NoError(s.t, err)
		outputs = append(outputs, eth.ChainIDAndOutput{ChainID: eth.ChainIDFromUInt64(id), Output: out.OutputRoot})
	}
	require.Equal(s.t, eth.SuperRoot(eth.NewSuperV1(slot, outputs...)), got.Data.SuperRoot)
}

// forgedMessages: an executing message that breaks a rule is never in a block, and the
// sender of the bundle is told which rule.
func forgedMessages(s *scenario) {
	u := s.user(6)
	// A real message of chain A that everybody may execute on B.
	sent := func() messages.Message {
		txs := s.executes(s.NewBundle().Tx(u, devnet.SendETH(chainA, 0, s.fresh().Address, chainB, ether(1))))
		return s.message(chainA, txs[0].TxHash)
	}
	validate := func(m messages.Message, declared bool) *devnet.Bundle {
		tx, err := devnet.ValidateMessage(chainB, 0, m, declared)
		require.NoError(s.t, err)
		return s.NewBundle().Tx(u, tx)
	}
	good := sent()
	s.executes(validate(good, true)) // the control: as it is, it is executed

	for name, c := range map[string]struct {
		forge      func(m *messages.Message)
		undeclared bool
		rule       string
	}{
		"bad checksum":    {forge: func(m *messages.Message) { m.PayloadHash[0] ^= 1 }, rule: executor.RuleExists.String()},
		"wrong origin":    {forge: func(m *messages.Message) { m.Identifier.Origin[0] ^= 1 }, rule: executor.RuleExists.String()},
		"wrong log index": {forge: func(m *messages.Message) { m.Identifier.LogIndex += 7 }, rule: executor.RuleExists.String()},
		"wrong block":     {forge: func(m *messages.Message) { m.Identifier.BlockNumber-- }, rule: executor.RuleExists.String()},
		"wrong timestamp": {forge: func(m *messages.Message) { m.Identifier.Timestamp-- }, rule: executor.RuleExists.String()},
		"future":          {forge: func(m *messages.Message) { m.Identifier.Timestamp += 1000 }, rule: executor.RuleTimestamp.String()},
		"unknown chain":   {forge: func(m *messages.Message) { m.Identifier.ChainID = eth.ChainIDFromUInt64(999) }, rule: executor.RuleDependencySet.String()},
		"not declared":    {forge: func(*messages.Message) {}, undeclared: true, rule: "NotInAccessList()"},
	} {
		s.t.Run(name, func(t *testing.T) {
			s := s.in(t)
			m := sent()
			c.forge(&m)
			f := s.refuses(validate(m, !c.undeclared))
			require.Contains(t, f.Reason, c.rule)
			require.EqualValues(t, 0, *f.Item)
			require.EqualValues(t, chainB, *f.ChainID)
		})
	}
	s.t.Run("expired", func(t *testing.T) {
		s := s.in(t)
		m := sent()
		s.until("the message to expire", func(ctx context.Context) (bool, error) {
			h, err := s.Head(ctx, chainB)
			return err == nil && h.Time > m.Identifier.Timestamp+messageExpiry, err
		})
		require.Contains(t, s.refuses(validate(m, true)).Reason, executor.RuleExpiry.String())
	})
	s.t.Run("later position in the same slot", func(t *testing.T) { laterPosition(s.in(t), u) })
	s.t.Run("alone through the pool", func(t *testing.T) {
		// Without a bundle nobody answers for it: it just never gets in.
		s := s.in(t)
		m := sent()
		m.PayloadHash[0] ^= 1
		tx, err := devnet.ValidateMessage(chainB, 0, m, true)
		require.NoError(t, err)
		loner := s.user(7)
		tx.Nonce, err = s.Nonce(s.ctx, chainB, loner.Address)
		require.NoError(t, err)
		signed, err := loner.Sign(tx)
		require.NoError(t, err)
		c, err := s.Eth(chainB)
		require.NoError(t, err)
		if err := c.SendTransaction(s.ctx, signed); err != nil {
			t.Logf("refused at the pool: %v", err)
		}
		require.NoError(t, s.AwaitSlots(s.ctx, 4))
		require.False(t, s.included(chainB, signed.Hash()))
	})
}

// laterPosition: a transaction on B executes a message that a later one of the same
// bundle sends on A. Its place is known beforehand, as nothing else is in A's block. The
// same two in the other order are executed.
func laterPosition(s *scenario, u devnet.Account) {
	to := s.fresh().Address
	initiating := devnet.SendETH(chainA, 0, to, chainB, ether(1))
	// The logs of the same call in an earlier block, to see what the message looks like.
	before := s.executes(s.NewBundle().Tx(u, initiating))
	model := s.message(chainA, before[0].TxHash)
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)

	// A guess names the next slot; when that slot is over before the bundle comes, the
	// guess is wrong and is made again.
	attempt := func(order func(init, exec devnet.Tx) *devnet.Bundle) *rpc.BundleStatus {
		st, err := client.Status(s.ctx)
		require.NoError(s.t, err)
		m := model
		m.Identifier.Timestamp = uint64(st.Slot)
		m.Identifier.BlockNumber = (uint64(st.Slot) - s.Genesis().Rollup[chainA].Genesis.L2Time) / s.Genesis().Rollup[chainA].BlockTime
		// The message's payload holds its nonce, which counts the messages sent.
		m.PayloadHash = s.nextPayloadHash(before[0].TxHash, model)
		exec, err := devnet.ValidateMessage(chainB, 0, m, true)
		require.NoError(s.t, err)
		return s.run(order(initiating, exec).MaxSlots(1))
	}
	later := func(init, exec devnet.Tx) *devnet.Bundle { return s.NewBundle().Tx(u, exec).Tx(u, init) }
	earlier := func(init, exec devnet.Tx) *devnet.Bundle { return s.NewBundle().Tx(u, init).Tx(u, exec) }

	s.until("the message to be executed in the slot it is sent in", func(ctx context.Context) (bool, error) {
		// First the wrong order, which leaves everything as it was.
		st := attempt(later)
		require.NotContains(s.t, executedStates, st.State, "a message of a later position must not be executed")
		if st.Failure == nil || !contains(st.Failure.Reason, executor.RuleOrder.String()) {
			return false, nil
		}
		// Then the right order, which shows that the guess names the message.
		st = attempt(earlier)
		return st.State == bundlepool.Executed, nil
	})
}

// message reads the SentMessage of a transaction as what executes it names it.
func (s *scenario) message(chain uint64, tx common.Hash) messages.Message {
	s.t.Helper()
	c, err := s.Eth(chain)
	require.NoError(s.t, err)
	r, err := c.TransactionReceipt(s.ctx, tx)
	require.NoError(s.t, err)
	l := sentMessage(s.t, r)
	h, err := c.HeaderByHash(s.ctx, r.BlockHash)
	require.NoError(s.t, err)
	return messages.Message{
		Identifier: messages.Identifier{
			Origin: l.Address, BlockNumber: r.BlockNumber.Uint64(), LogIndex: uint32(l.Index), Timestamp: h.Time, ChainID: eth.ChainIDFromUInt64(chain),
		},
		PayloadHash: crypto.Keccak256Hash(messages.LogToMessagePayload(l)),
	}
}

func sentMessage(t *testing.T, r *types.Receipt) *types.Log {
	t.Helper()
	for _, l := range r.Logs {
		if l.Address == predeploys.L2toL2CrossDomainMessengerAddr {
			return l
		}
	}
	require.Fail(t, "the transaction sends no message")
	return nil
}

// nextPayloadHash is the payload hash that the same call's message has when it is the
// next one: only the message nonce differs.
func (s *scenario) nextPayloadHash(earlier common.Hash, _ messages.Message) common.Hash {
	s.t.Helper()
	c, err := s.Eth(chainA)
	require.NoError(s.t, err)
	r, err := c.TransactionReceipt(s.ctx, earlier)
	require.NoError(s.t, err)
	l := *sentMessage(s.t, r)
	messenger := predeploys.L2toL2CrossDomainMessengerAddr
	out, err := c.CallContract(s.ctx, callMsg(messenger, crypto.Keccak256([]byte("messageNonce()"))[:4]), nil)
	require.NoError(s.t, err)
	// SentMessage(destination, target, messageNonce, …): the first three are topics.
	l.Topics = append([]common.Hash(nil), l.Topics...)
	l.Topics[3] = common.BytesToHash(out)
	return crypto.Keccak256Hash(messages.LogToMessagePayload(&l))
}

// gossipReplica: a node without a sequencer that has ours for a peer has the unsafe
// blocks before they are on L1.
func gossipReplica(s *scenario) {
	v, err := s.StartVerifier(s.ctx, devnet.VerifierConfig{Name: "replica", P2P: true})
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, v.Stop(s.ctx)) }()
	require.NoError(s.t, devnet.ConnectPeers(s.ctx, s, v, s.Chains(), logger(s.t)))
	for _, id := range s.Chains() {
		s.until(fmt.Sprintf("the replica of chain %d to follow the unsafe head", id), func(ctx context.Context) (bool, error) {
			// Ours first: what is past its safe head now cannot have come from L1.
			ours, err := s.Rollup(id).SyncStatus(ctx)
			if err != nil {
				return false, err
			}
			theirs, err := v.SyncStatus(ctx, id)
			if err != nil || theirs.UnsafeL2.Number <= ours.LocalSafeL2.Number {
				return false, err
			}
			// Derivation may have caught up in between the two questions.
			if theirs.UnsafeL2.Number <= theirs.LocalSafeL2.Number {
				return false, nil
			}
			hash, err := s.BlockHash(ctx, id, theirs.UnsafeL2.Number)
			if err != nil {
				return false, err
			}
			require.Equal(s.t, hash, theirs.UnsafeL2.Hash, "block %d of chain %d", theirs.UnsafeL2.Number, id)
			return true, nil
		})
	}
}

// independentVerifier: an op-geth that has nothing of our block building, as a process,
// with upstream's op-node code and no sequencer, derives the same blocks from L1 alone.
func independentVerifier(s *scenario) {
	b, _ := s.bridge(s.user(2), chainA, chainB)
	slot := s.executes(b)[0].Timestamp
	s.awaitCrossSafe(slot)
	v, err := s.StartVerifier(s.ctx, devnet.VerifierConfig{Name: "verifier", Geth: verifierGeth(s.t)})
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, v.Stop(s.ctx)) }()
	for _, id := range s.Chains() {
		number := (slot - s.Genesis().Rollup[id].Genesis.L2Time) / s.Genesis().Rollup[id].BlockTime
		s.until(fmt.Sprintf("the verifier to derive block %d of chain %d", number, id), func(ctx context.Context) (bool, error) {
			st, err := v.SyncStatus(ctx, id)
			return err == nil && st.SafeL2.Number >= number, err
		})
		for n := uint64(0); n <= number; n++ {
			want, err := s.BlockHash(s.ctx, id, n)
			require.NoError(s.t, err)
			got, err := v.BlockHash(s.ctx, id, n)
			require.NoError(s.t, err)
			require.Equal(s.t, want, got, "block %d of chain %d", n, id)
		}
		s.t.Logf("chain %d: %d blocks derived with the same hashes", id, number+1)
	}
}

// verifierGeth builds an op-geth with only Karst's rules, which every op-geth of these
// chains needs, in build/verifier. Go's build cache makes it quick the next time.
func verifierGeth(t *testing.T) string {
	t.Helper()
	tree := filepath.Join(root(), "build", "verifier", "op-geth")
	bin := filepath.Join(root(), "build", "verifier", "geth")
	command(t, root(), "go", "run", "./ops/upstream", "verifier", tree)
	command(t, tree, "go", "build", "-o", bin, "./cmd/geth")
	return bin
}
