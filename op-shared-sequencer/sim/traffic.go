package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// traffic is what users send.
type traffic struct {
	s       *sim
	nonces  map[int]map[sequence.ChainID]uint64
	bundles []*sentBundle
	stopped bool
}

// sentBundle is a bundle and where its own transactions belong.
type sentBundle struct {
	bundle *sequence.Bundle
	hash   common.Hash
	txs    []sentTx
}

type sentTx struct {
	chain sequence.ChainID
	hash  common.Hash
}

func (t sentTx) String() string { return fmt.Sprintf("%s on %s", t.hash.TerminalString(), t.chain) }

func (t *traffic) init(s *sim) { t.s, t.nonces = s, map[int]map[sequence.ChainID]uint64{} }

func (t *traffic) chain() sequence.ChainID { return t.s.ids[t.s.rng.Intn(len(t.s.ids))] }

// plain sends a plain transaction to the pools of all operators' engines.
func (t *traffic) plain() {
	if t.stopped {
		return
	}
	user, id := firstPlain+t.s.rng.Intn(firstSender-firstPlain), t.chain()
	if t.nonces[user] == nil {
		t.nonces[user] = map[sequence.ChainID]uint64{}
	}
	raw := transaction(user, id, t.nonces[user][id], enginefake.Log("plain"))
	t.nonces[user][id]++
	for _, o := range t.s.ops {
		t.s.schedule(t.s.now+t.s.between(5, 300), nil, func() { o.engines[id].AddToPool(raw) })
	}
	t.s.schedule(t.s.now+t.s.between(100, 1500), nil, t.plain)
}

// bundle sends a bundle to an operator, which passes it on to the others.
func (t *traffic) bundle() {
	s := t.s
	user := firstSender + len(t.bundles)
	if t.stopped || user > lastSender-5 {
		return
	}
	first := t.chain()
	second := t.chain()
	for second == first {
		second = t.chain()
	}
	sent := &sentBundle{bundle: &sequence.Bundle{Expiry: sequence.Slot(epoch.Unix()) + sequence.Slot(s.now/time.Second) + sequence.Slot(3+s.rng.Intn(30))}}
	add := func(id sequence.ChainID, nonce uint64, ops ...enginefake.Op) {
		raw := transaction(user, id, nonce, ops...)
		sent.txs = append(sent.txs, sentTx{id, enginefake.Hash(raw)})
		sent.bundle.Items = append(sent.bundle.Items, sequence.BundleItem{Chain: id, Transaction: raw})
	}
	relayOn := func(id sequence.ChainID) {
		sent.bundle.Items = append(sent.bundle.Items, sequence.BundleItem{Chain: id})
	}
	add(first, 0, enginefake.Send(second))
	switch s.rng.Intn(6) {
	case 0: // on one chain
	case 1:
		add(second, 0)
	case 2:
		relayOn(second)
		add(second, 0, enginefake.Revert("no"))
	default:
		relayOn(second)
		add(second, 0, enginefake.Log("arrived"))
		add(first, 1)
	}
	sent.hash = sent.bundle.Hash()
	t.bundles = append(t.bundles, sent)
	at := s.ops[s.rng.Intn(len(s.ops))]
	if at.up {
		s.schedule(s.now, at, func() {
			at.take(sent)
			at.broadcast(sent)
		})
	}
	s.schedule(s.now+s.between(200, 1500), nil, t.bundle)
}

func (o *operator) take(b *sentBundle) {
	if _, err := o.pool.Add(b.bundle); err != nil {
		o.s.trace(o, "does not take bundle %s: %v", b.hash, err)
	}
}

// transaction makes a transaction. Signing takes longer than all that follows, and the
// same are sent in every run.
func transaction(user int, id sequence.ChainID, nonce uint64, ops ...enginefake.Op) []byte {
	key := fmt.Sprintf("%d/%d/%d/%v", user, id, nonce, ops)
	if raw, ok := signed.Load(key); ok {
		return raw.([]byte)
	}
	raw := enginefake.Tx(accounts()[user].key, id, nonce, ops...)
	signed.Store(key, raw)
	return raw
}

var signed sync.Map
