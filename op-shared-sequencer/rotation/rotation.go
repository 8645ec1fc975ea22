// Package rotation decides who leads and how operators agree on subblocks. Its
// subpackages are the ways to do that: solo for one operator, cometbft for a set of
// operators that need not trust each other.
package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// ErrPass: this operator cannot propose now, and the next leader should have its turn at
// once. Propose wraps it with the reason.
var ErrPass = errors.New("the leader passes")

// Turn is a leader's right to propose one subblock.
type Turn struct {
	Height uint64         // place of the subblock in the agreement history, from 1
	Leader common.Address // the operator's signing address; zero for solo
}

// Agreed is how a subblock came to be agreed on.
type Agreed struct {
	Turn
	// Round is how many leaders were tried before the one whose subblock it is. Missed are
	// these, in their order, each once.
	Round  int
	Missed []common.Address
}

// Witness is a Machine that wants to know how what it commits was agreed on. It is told
// just before each Commit, in the same goroutine. Rotations with one operator have nothing
// to tell.
type Witness interface {
	Witness(a Agreed)
}

// Rotation drives a Machine until it is stopped.
type Rotation interface {
	// Start begins to drive the machine. It returns at once.
	Start(ctx context.Context) error
	// Stop ends the rotation and waits for the call to the machine in progress, at
	// most until ctx ends.
	Stop(ctx context.Context) error
	// Schedule lists the next n turns, the first being that of the subblock that is
	// agreed on now. Later ones change when operators come, go, or fail to deliver.
	Schedule(n int) []Turn
}

// Machine is what a rotation drives: the sequencer. The rotation makes one call of
// Propose, Verify or Commit at a time; the others may come at any time.
//
// Subblocks form one sequence. Propose and Verify are about the subblock behind the one
// committed last, and may be called any number of times, with other subblocks, before
// one of them is committed. What they try leaves no trace unless it is committed.
type Machine interface {
	// Next waits until a subblock can be proposed here. It fails only when ctx ends.
	// For rotations that can afford to wait.
	Next(ctx context.Context) error
	// Due is when the next subblock is to be proposed: the leader's call of Propose
	// returns about then. It is in the past while the set is behind. ready is as for
	// Propose: every operator learns it from the others' votes (vote extensions), so
	// that all of them wait for the same chains.
	Due(ready []sequence.ChainID) time.Time
	// Lead says that this operator will propose the subblock behind the newest one that
	// was verified or committed. It may begin to build it. It does not block.
	Lead(ready []sequence.ChainID)
	// Propose builds the next subblock. ready names the chains that a quorum of the
	// operators said they can build on, nil if that is not known: the others are left
	// out when that is due. Errors: ErrPass, or whatever went wrong; either way nothing
	// is left of the attempt.
	Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error)
	// Verify runs a proposed subblock and checks everything that can be checked of it.
	// It returns nil if this operator agrees, and the reason if it does not. One that
	// this operator proposed itself, or verified already, is not run again.
	Verify(ctx context.Context, sub *sequence.Subblock) error
	// Commit takes an agreed subblock: verified here or not, also one that this operator
	// had refused. When it is the last of its slot, the slot is made durable with the
	// agreement, which is opaque here (nil if it is not the last), and handed to the
	// rollup nodes. A chain that
	// cannot follow at the moment does not fail Commit; it catches up by itself. After
	// an error only a new start of the process helps: the subblock is committed again.
	Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error
	// Ready names the chains that this operator can build on, ascending.
	Ready() []sequence.ChainID
	// Agreed is the agreement that the newest durable slot was committed with: where a
	// rotation goes on after a restart. nil if there is none.
	Agreed() []byte
	// SetChains names the chains that take part, from the next slot on. Called before
	// Start and when operators have agreed on a change. Chains that this operator is
	// not configured for are an error, and the others are set.
	SetChains(chains []sequence.ChainID) error
}
