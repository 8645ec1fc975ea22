package builder_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
)

func all() relay.Policy {
	p := relay.DefaultPolicy()
	p.Mode = relay.All
	return p
}

// Messages of plain transactions are executed in the slot they are sent in, as the policy
// says, and what is not leaves no trace.
func TestRelays(t *testing.T) {
	t.Parallel()
	send := func(user int, from chainID, nonce uint64, ops ...enginefake.Op) func(w *world) {
		return func(w *world) { w.engines[from].AddToPool(enginefake.Tx(users[user], from, nonce, ops...)) }
	}
	with := func(change func(p *relay.Policy)) relay.Policy {
		p := all()
		change(&p)
		return p
	}
	for name, test := range map[string]struct {
		policy relay.Policy
		pools  []func(w *world)
		want   builder.Relayed
		in     map[chainID]int // transactions
	}{
		"one": {
			all(), []func(w *world){send(0, chainA, 0, enginefake.Send(chainB))},
			builder.Relayed{Executed: 1}, map[chainID]int{chainA: 1, chainB: 1},
		},
		"both ways, in the order they were sent": {
			all(), []func(w *world){send(0, chainA, 0, enginefake.Send(chainB), enginefake.Send(chainB)), send(0, chainB, 0, enginefake.Send(chainA))},
			builder.Relayed{Executed: 3}, map[chainID]int{chainA: 2, chainB: 3},
		},
		"not to another set": {
			all(), []func(w *world){send(0, chainA, 0, enginefake.Send(999))}, builder.Relayed{}, map[chainID]int{chainA: 1, chainB: 0},
		},
		"one that reverts there": {
			all(), []func(w *world){send(0, chainA, 0, enginefake.SendRefused(chainB), enginefake.Send(chainB))},
			builder.Relayed{Executed: 1, Reverted: 1}, map[chainID]int{chainA: 1, chainB: 1},
		},
		"none of a transaction that reverts": {
			all(), []func(w *world){send(0, chainA, 0, enginefake.Send(chainB), enginefake.Revert("no"))}, builder.Relayed{}, map[chainID]int{chainA: 1, chainB: 0},
		},
		"bundles only": {
			relay.DefaultPolicy(), []func(w *world){send(0, chainA, 0, enginefake.Send(chainB))}, builder.Relayed{}, map[chainID]int{chainA: 1, chainB: 0},
		},
		"nobody on the list": {
			with(func(p *relay.Policy) { p.Mode, p.Allowed = relay.AllowList, []common.Address{{1}} }),
			[]func(w *world){send(0, chainA, 0, enginefake.Send(chainB))}, builder.Relayed{Refused: 1}, map[chainID]int{chainA: 1, chainB: 0},
		},
		"a slot's gas": {
			with(func(p *relay.Policy) { p.SlotGas = 150_000 }),
			[]func(w *world){send(0, chainA, 0, enginefake.Send(chainB), enginefake.Send(chainB))},
			builder.Relayed{Executed: 1, Budget: 1}, map[chainID]int{chainA: 1, chainB: 1},
		},
		"a sender's gas": {
			with(func(p *relay.Policy) { p.SenderGas = 150_000 }),
			[]func(w *world){send(0, chainA, 0, enginefake.SendRefused(chainB), enginefake.Send(chainB))},
			builder.Relayed{Reverted: 1, Budget: 1}, map[chainID]int{chainA: 1, chainB: 0},
		},
		"failsafe": {
			all(), []func(w *world){send(0, chainA, 0, enginefake.Send(chainB)), func(w *world) { w.failsafe.Store(true) }},
			builder.Relayed{}, map[chainID]int{chainA: 1, chainB: 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chainA, chainB)
			w.policy = test.policy
			for _, pool := range test.pools {
				pool(w)
			}
			require.NoError(t, w.build(bg, &list{}, newLeaping()))
			require.Equal(t, test.want, w.order.Relayed)
			require.Equal(t, test.in, included(w))
		})
	}
}

// What a bundle sends is its relay steps' business.
func TestMessagesOfBundlesAreNotRelayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.policy = all()
	require.NoError(t, w.build(bg, new(list).add(bundle(item(chainA, enginefake.Tx(users[0], chainA, 0, enginefake.Send(chainB))))), newLeaping()))
	require.Zero(t, w.order.Relayed)
	require.Equal(t, map[chainID]int{chainA: 1, chainB: 0}, included(w))
}

// The budget of a slot is one for all its subblocks.
func TestRelayBudgetOverSubblocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.policy = all()
	w.policy.SlotGas = 150_000
	clk := newLeaping()
	b := w.builder(&list{}, clk)
	for n, want := range []builder.Relayed{{Executed: 1}, {Budget: 1}} {
		w.engines[chainA].AddToPool(enginefake.Tx(users[n], chainA, 0, enginefake.Send(chainB)))
		order, err := b.Build(bg, slot, w.blocks, w.check, slotTimes(clk.Now()), nil)
		require.NoError(t, err)
		require.Equal(t, want, order.Relayed, fmt.Sprint(n))
	}
}

// A lost session ends the slot, and the error names the chain.
func TestSessionLostInARelay(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"account", "execute", "release"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, chainA, chainB)
			w.policy = all()
			w.engines[chainA].AddToPool(enginefake.Tx(users[0], chainA, 0, enginefake.Send(chainB)))
			w.engines[chainB].SetHook(failing(call, engine.ErrSessionClosed))
			err := w.build(bg, &list{}, newLeaping())
			var lost *builder.ChainError
			require.ErrorAs(t, err, &lost)
			require.Equal(t, chainB, lost.Chain)
			require.ErrorIs(t, err, engine.ErrSessionClosed)
		})
	}
}

// A relayer that cannot pay on a chain is not asked again there in the slot.
func TestUnfundedRelayer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chainA, chainB)
	w.policy = all()
	poor, err := crypto.GenerateKey()
	require.NoError(t, err)
	w.relayer, err = relay.New(poor, relay.Config{Gas: 100_000})
	require.NoError(t, err)
	w.engines[chainA].AddToPool(enginefake.Tx(users[0], chainA, 0, enginefake.Send(chainB), enginefake.Send(chainB), enginefake.Send(chainB)))
	tries := 0
	w.engines[chainB].SetHook(func(_ context.Context, call string) error {
		if call == "execute" {
			tries++
		}
		return nil
	})
	require.NoError(t, w.build(bg, &list{}, newLeaping()))
	require.Equal(t, builder.Relayed{Unfunded: 3}, w.order.Relayed)
	require.Equal(t, 1, tries)
}
