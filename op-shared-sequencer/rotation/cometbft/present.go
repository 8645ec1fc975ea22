package cometbft

import (
	"fmt"
	"sync"

	"github.com/cometbft/cometbft/p2p"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// present knows which operators are connected to this node. When a process ends, the
// kernel closes its connections at once: the others need not wait out a turn of which they
// know that nobody will take it. Like every timeout, that touches only how long is waited,
// not what is agreed on; an operator that never was connected is waited for.
type present struct {
	setID common.Hash
	lost  func() // an operator is gone

	mu    sync.Mutex
	nodes map[p2p.ID]common.Address
	count map[common.Address]int // connected nodes; 0: it was, and is gone
}

func newPresent(setID common.Hash) *present {
	return &present{setID: setID, lost: func() {}, nodes: map[p2p.ID]common.Address{}, count: map[common.Address]int{}}
}

// greetingDigest is what an operator signs to say that a node is its own.
func greetingDigest(setID common.Hash, node p2p.ID) common.Hash {
	return crypto.Keccak256Hash([]byte("op-shared-sequencer/node/1"), setID[:], []byte(node))
}

// greeted takes a node's word, signed by its operator, for whose it is.
func (p *present) greeted(peer p2p.Peer, signature []byte, set *operators.Set) error {
	digest := greetingDigest(p.setID, peer.ID())
	key, err := crypto.SigToPub(digest[:], signature)
	if err != nil {
		return fmt.Errorf("%w: greeting: %w", ErrGarbage, err)
	}
	operator := crypto.PubkeyToAddress(*key)
	if _, ok := set.Operator(operator); !ok {
		return fmt.Errorf("%w: greeting of %s, who is no operator", ErrNotNow, operator)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// One that is gone already is not noted: its end was told before.
	if _, known := p.nodes[peer.ID()]; known || !peer.IsRunning() {
		return nil
	}
	p.nodes[peer.ID()] = operator
	p.count[operator]++
	return nil
}

// left notes that a node's connection has ended.
func (p *present) left(id p2p.ID) {
	p.mu.Lock()
	operator, ok := p.nodes[id]
	delete(p.nodes, id)
	gone := false
	if ok {
		p.count[operator]--
		gone = p.count[operator] == 0
	}
	p.mu.Unlock()
	if gone {
		p.lost()
	}
}

// gone says whether an operator was connected and is not any more.
func (p *present) gone(operator common.Address) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, ok := p.count[operator]
	return ok && n == 0
}

// connected says whether a node of the operator is connected.
func (p *present) connected(operator common.Address) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[operator] > 0
}
