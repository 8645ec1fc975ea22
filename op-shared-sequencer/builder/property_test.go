package builder_test

import (
	"context"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Whatever bundles run in a slot, and whichever of their items fails for whichever
// reason: the blocks and the executor's overlay end as if the failed bundles never were,
// the steps are what the blocks hold, and those of a bundle are consecutive and named.
func TestBundlesAllOrNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		chains := []chainID{chainA, chainB, chainC}[:rapid.IntRange(2, 3).Draw(rt, "chains")]
		w := newWorld(rt, chains...)
		m := newModel(chains)
		bundles := &list{reserved: map[chainID][]common.Hash{}}
		var want []expectation
		for i := range rapid.IntRange(1, 6).Draw(rt, "bundles") {
			b, e := m.bundle(rt)
			b.Expiry += sequence.Slot(i) // no two are the same
			bundles.add(b)
			want = append(want, e)
			for _, it := range b.Items {
				// They wait in the pools too, and must not get into the blocks alone.
				w.engines[it.Chain].AddToPool(it.Transaction)
				bundles.reserved[it.Chain] = append(bundles.reserved[it.Chain], enginefake.Hash(it.Transaction))
			}
		}
		plain := map[chainID]int{}
		for _, c := range chains {
			for n := range rapid.IntRange(0, 3).Draw(rt, "plain") {
				w.engines[c].AddToPool(enginefake.Tx(users[4], c, uint64(n), enginefake.Log("plain")))
				plain[c]++
			}
		}

		require.NoError(rt, w.build(context.Background(), bundles, newLeaping()))

		require.Len(rt, w.order.Bundles, len(want))
		steps := w.order.Steps
		for i, tried := range w.order.Bundles {
			e := want[i]
			require.Equal(rt, bundles.entries[i].Hash, tried.Hash)
			require.Equal(rt, e.kind, tried.Outcome.Kind, "bundle %d: %+v", i, tried.Outcome.Result.Failed)
			res := tried.Outcome.Result
			require.Equal(rt, slot, res.Slot)
			if e.kind != bundlepool.Execute {
				require.Equal(rt, e.item, res.Failed.Item, res.Failed.Reason)
				require.Contains(rt, res.Failed.Reason, e.reason)
				continue
			}
			require.Nil(rt, res.Failed)
			require.Len(rt, res.Items, e.transactions)
			for n, it := range res.Items {
				require.Equal(rt, tried.Hash, steps[n].Bundle)
				require.Equal(rt, it.Chain, steps[n].Chain)
				require.Equal(rt, [][]byte{steps[n].Transactions[0]}, steps[n].Transactions)
				require.Equal(rt, it.TxHash, enginefake.Hash(steps[n].Transactions[0]))
				require.Equal(rt, uint64(1), it.BlockNumber)
			}
			steps = steps[len(res.Items):]
		}
		for _, st := range steps { // the fills
			require.Zero(rt, st.Bundle)
			require.Len(rt, st.Transactions, plain[st.Chain])
			delete(plain, st.Chain)
		}
		for c, n := range plain {
			require.Zero(rt, n, "chain %s was filled", c)
		}

		sealed := map[chainID]common.Hash{}
		for c, p := range w.seal() {
			sealed[c] = p.BlockHash
		}
		require.Equal(rt, w.replay(chains...), sealed, "as if the failed bundles never were")
		require.Equal(rt, m.logs, logCounts(w, m, len(users)-1), "logs of the bundles that executed")
	})
}

// logCounts counts the logs that are not of plain transactions.
func logCounts(w *world, m *model, plainUser int) map[chainID]int {
	out := map[chainID]int{}
	for c := range m.logs {
		out[c] = 0
		for _, l := range w.logs[c] {
			if string(l.Data) != "plain" {
				out[c]++
			}
		}
	}
	return out
}

// model knows the nonces and logs of the chains after the bundles so far.
type model struct {
	chains []chainID
	nonces map[chainID]map[int]uint64 // by user
	logs   map[chainID]int
	known  []messages.Message // that can be executed
	// pending are the messages of the bundle at hand that were not relayed, by destination;
	// refused: the relay of one of them reverts.
	pending map[chainID]int
	refused map[chainID]bool
	unique  int
}

func newModel(chains []chainID) *model {
	m := &model{chains: chains, nonces: map[chainID]map[int]uint64{}, logs: map[chainID]int{}}
	for _, c := range chains {
		m.nonces[c] = map[int]uint64{}
		m.logs[c] = 0
	}
	return m
}

func (m *model) clone() *model {
	c := *m
	c.logs, c.known, c.nonces = maps.Clone(m.logs), slices.Clone(m.known), map[chainID]map[int]uint64{}
	for id, n := range m.nonces {
		c.nonces[id] = maps.Clone(n)
	}
	c.pending, c.refused = map[chainID]int{}, map[chainID]bool{}
	return &c
}

// expectation is what must become of a bundle.
type expectation struct {
	kind         bundlepool.OutcomeKind
	item         int
	reason       string
	transactions int
}

// bundle draws a bundle, and what it comes to.
func (m *model) bundle(rt *rapid.T) (*sequence.Bundle, expectation) {
	at := m.clone()
	n := rapid.IntRange(1, 5).Draw(rt, "items")
	fails := rapid.IntRange(0, 2*n).Draw(rt, "fails at") // at none, if it is not among the items
	b := bundle()
	e := expectation{kind: bundlepool.Execute}
	for i := range n {
		chain := rapid.SampledFrom(m.chains).Draw(rt, "chain")
		user := rapid.IntRange(0, 3).Draw(rt, "user")
		if i == fails {
			at.failing(rt, b, &e, chain, user)
			at.unique++
			m.unique = at.unique
			// What comes behind it never runs.
			b.Items = append(b.Items, item(chain, enginefake.Tx(users[user], chain, 77, enginefake.Log("never"))))
			return b, e
		}
		at.good(rt, b, &e, chain, user)
	}
	at.unique++
	*m = *at
	return b, e
}

// good adds an item that succeeds.
func (m *model) good(rt *rapid.T, b *sequence.Bundle, e *expectation, chain chainID, user int) {
	if m.pending[chain] > 0 && !m.refused[chain] && rapid.Bool().Draw(rt, "relay") {
		b.Items = append(b.Items, relayOn(chain))
		e.transactions += m.pending[chain]
		m.logs[chain] += 2 * m.pending[chain] // executing, relayed
		m.pending[chain] = 0
		return
	}
	var ops []enginefake.Op
	for range rapid.IntRange(0, 3).Draw(rt, "ops") {
		ops = append(ops, m.op(rt, chain))
	}
	m.add(b, e, chain, user, ops...)
}

func (m *model) op(rt *rapid.T, chain chainID) enginefake.Op {
	m.unique++
	index := m.logs[chain]
	m.logs[chain]++
	switch k := rapid.IntRange(0, 3).Draw(rt, "op"); {
	case k == 0 && len(m.known) > 0:
		return enginefake.Execute(rapid.SampledFrom(m.known).Draw(rt, "message"))
	case k == 1:
		dest := rapid.SampledFrom(m.chains).Draw(rt, "dest")
		if dest == chain {
			dest = 999 // somebody else's
		}
		m.pending[dest]++
		return enginefake.Send(dest)
	default:
		content := big.NewInt(int64(m.unique)).String()
		m.known = append(m.known, logMessage(chain, index, content))
		return enginefake.Log(content)
	}
}

// logMessage is the message that a log of Op Log initiates in the slot.
func logMessage(chain chainID, index int, content string) messages.Message {
	return messages.Message{
		Identifier: messages.Identifier{
			Origin: enginefake.Script, BlockNumber: 1, LogIndex: uint32(index), Timestamp: uint64(slot), ChainID: chain.ID(),
		},
		PayloadHash: crypto.Keccak256Hash(append(enginefake.LogTopic.Bytes(), content...)),
	}
}

// add adds a transaction that succeeds.
func (m *model) add(b *sequence.Bundle, e *expectation, chain chainID, user int, ops ...enginefake.Op) {
	b.Items = append(b.Items, item(chain, enginefake.Tx(users[user], chain, m.nonces[chain][user], ops...)))
	m.nonces[chain][user]++
	e.transactions++
}

// failing adds an item that fails, in one of the ways there are.
func (m *model) failing(rt *rapid.T, b *sequence.Bundle, e *expectation, chain chainID, user int) {
	nonce := m.nonces[chain][user]
	some := func(ops ...enginefake.Op) []byte {
		return enginefake.Tx(users[user], chain, nonce, append([]enginefake.Op{enginefake.Log("gone")}, ops...)...)
	}
	add := func(raw []byte, kind bundlepool.OutcomeKind, reason string) {
		*e = expectation{kind: kind, item: len(b.Items), reason: reason}
		b.Items = append(b.Items, item(chain, raw))
	}
	ways := map[string]func(){
		"reverts":        func() { add(some(enginefake.Revert("why")), bundlepool.Fail, "reverted") },
		"nonce used":     func() { add(enginefake.Tx(users[4], chain, nonce+1000), bundlepool.Retry, "nonce too high") },
		"nonce too high": func() { add(enginefake.Tx(users[user], chain, nonce+1), bundlepool.Retry, "nonce too high") },
		"not a tx":       func() { add([]byte{2, 1}, bundlepool.Fail, "cannot be included") },
		"too much gas": func() {
			add(enginefake.Sign(users[user], chain, &types.DynamicFeeTx{Nonce: nonce, Gas: 31_000_000}), bundlepool.Retry, "gas limit")
		},
		"price": func() {
			add(enginefake.Sign(users[user], chain, &types.DynamicFeeTx{Nonce: nonce, GasFeeCap: big.NewInt(1), GasTipCap: new(big.Int)}), bundlepool.Retry, "fee")
		},
		"poor": func() {
			add(enginefake.Sign(users[user], chain, &types.DynamicFeeTx{Nonce: nonce, Value: new(big.Int).Lsh(big.NewInt(1), 90)}), bundlepool.Fail, "insufficient funds")
		},
		"no such log yet": func() {
			add(some(enginefake.Execute(logMessage(chain, m.logs[chain]+9, "x"))), bundlepool.Fail, "earlier in the global order")
		},
		"executes itself": func() {
			add(some(enginefake.Execute(logMessage(chain, m.logs[chain]+1, "x"))), bundlepool.Fail, "earlier in the global order")
		},
		"wrong content": func() {
			add(some(enginefake.Execute(logMessage(chain, m.logs[chain], "other"))), bundlepool.Fail, "exact place")
		},
		"history is short": func() { add(some(enginefake.Execute(oldMessage(chain, incompleteTime))), bundlepool.Retry, "history") },
		"not in history": func() {
			add(some(enginefake.Execute(oldMessage(chain, incompleteTime+1))), bundlepool.Fail, "exact place")
		},
		"nothing to relay": func() {
			*e = expectation{kind: bundlepool.Fail, item: len(b.Items), reason: "nothing to relay"}
			if m.pending[chain] > 0 {
				b.Items = append(b.Items, relayOn(chain))
				e.item++
			}
			b.Items = append(b.Items, relayOn(chain))
		},
		"relay reverts": func() {
			from := m.chains[0]
			if chain == from {
				from = m.chains[1]
			}
			m.add(b, e, from, user, enginefake.SendRefused(chain))
			*e = expectation{kind: bundlepool.Fail, item: len(b.Items), reason: "reverted"}
			b.Items = append(b.Items, relayOn(chain))
		},
	}
	if nonce > 0 {
		ways["nonce used"] = func() { add(enginefake.Tx(users[user], chain, nonce-1), bundlepool.Fail, "nonce too low") }
	}
	ways[rapid.SampledFrom(slices.Sorted(maps.Keys(ways))).Draw(rt, "way")]()
}

func oldMessage(chain chainID, time uint64) messages.Message {
	m := logMessage(chain, 0, "old")
	m.Identifier.Timestamp, m.Identifier.BlockNumber = time, 0
	return m
}
