// Package rotation decides who leads and how operators agree on subblocks. Its
// subpackages are the ways to do that: solo for one operator, cometbft for a set of
// operators that need not trust each other.
package rotation

import (
	"context"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Turn is a leader's right to propose one subblock.
type Turn struct {
	Slot  sequence.Slot
	Index uint64 // of the subblock in its slot
}

// Rotation drives a Machine until it is stopped.
type Rotation interface {
	// Start begins to drive the machine. It returns at once.
	Start(ctx context.Context) error
	// Stop ends the rotation and waits for the call to the machine in progress, at
	// most until ctx ends.
	Stop(ctx context.Context) error
}

// Machine is what a rotation drives: the sequencer. Calls do not overlap.
type Machine interface {
	// Next waits until a subblock can be proposed and says which. It fails only
	// when ctx ends.
	Next(ctx context.Context) (Turn, error)
	// Propose builds the subblock of the turn. After an error nothing of the turn is
	// left, and the same slot is proposed again at a later turn.
	Propose(ctx context.Context, turn Turn) (*sequence.Subblock, error)
	// Commit makes an agreed subblock durable and, when it is the last of its slot,
	// hands the sealed blocks to the rollup nodes. After an error the subblock is
	// either durable, and handed over later, or it never was.
	Commit(ctx context.Context, sub *sequence.Subblock) error
}
