package cometbft

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// maxWaitingPerSigner is how many approvals of one operator wait to be agreed on.
const maxWaitingPerSigner = 64

// changePool holds approvals of changes until they are agreed on or can no longer be.
type changePool struct {
	mu      sync.Mutex
	set     *operators.Set
	slot    sequence.Slot // about the current one
	waiting []waitingChange
}

type waitingChange struct {
	*operators.SignedChange
	hash   common.Hash
	signer common.Address
}

func newChangePool(set *operators.Set) *changePool {
	return &changePool{set: set.Clone(), slot: set.Slot()}
}

// add takes an approval. Errors wrap ErrKnown, or the set's.
func (p *changePool) add(c *operators.SignedChange) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	hash := c.Hash()
	if slices.ContainsFunc(p.waiting, func(w waitingChange) bool { return w.hash == hash }) {
		return fmt.Errorf("%w: the approval waits", ErrKnown)
	}
	if err := p.set.Check(c, p.slot); err != nil {
		return err
	}
	signer, err := c.Signer(p.set.ID())
	if err != nil {
		return err
	}
	mine := 0
	for _, w := range p.waiting {
		if w.signer == signer {
			mine++
		}
	}
	if mine >= maxWaitingPerSigner {
		return fmt.Errorf("%w: %d approvals of %s wait already", operators.ErrLimit, mine, signer)
	}
	p.waiting = append(p.waiting, waitingChange{c, hash, signer})
	return nil
}

// valid are approvals that a block of a slot can carry, in their order, at most n.
func (p *changePool) valid(set *operators.Set, slot sequence.Slot, n int) []*operators.SignedChange {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*operators.SignedChange
	if len(p.waiting) == 0 {
		return nil
	}
	after := set.Clone()
	for _, w := range p.waiting {
		if len(out) == n {
			break
		}
		if after.Apply(w.SignedChange, slot) == nil {
			out = append(out, w.SignedChange)
		}
	}
	return out
}

// committed drops what was agreed on, and what the set does not take any more.
func (p *changePool) committed(set *operators.Set, slot sequence.Slot, agreed []*operators.SignedChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set, p.slot = set, slot // states are not changed once made
	if len(p.waiting) == 0 {
		return
	}
	done := map[common.Hash]bool{}
	for _, c := range agreed {
		done[c.Hash()] = true
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(w waitingChange) bool {
		// What is over a limit now may fit later, until it expires.
		err := set.Check(w.SignedChange, slot)
		return done[w.hash] || err != nil && !errors.Is(err, operators.ErrLimit)
	})
}

// all are the approvals that wait, encoded.
func (p *changePool) all() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([][]byte, 0, len(p.waiting))
	for _, w := range p.waiting {
		out = append(out, w.Encode())
	}
	return out
}
