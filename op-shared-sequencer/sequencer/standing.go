package sequencer

import (
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	opengine "github.com/ethereum-optimism/optimism/op-node/rollup/engine"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/event"
)

// standing is what a chain's driver has told its sequencer: from it follows whether
// blocks may be built on the chain. It does no I/O and reads no clock.
type standing struct {
	running bool // the driver runs its sequencer loop
	active  bool // sequencing is on: admin_startSequencer, admin_stopSequencer
	recover bool // recover mode: blocks without user transactions

	confirmed bool // a reset was confirmed since the driver started
	resetting bool // between a reset signal and its confirmation
	resets    int  // confirmed so far

	deriving bool        // derivation builds blocks on this chain itself
	deriveOn common.Hash // the parent it builds on

	unsafe    eth.L2BlockRef // as the driver last said; what is built on is asked of the controller
	localSafe eth.L2BlockRef
	safe      eth.L2BlockRef // cross-safe
	finalized eth.L2BlockRef

	notBefore  time.Time // back off until then
	maxSafeLag uint64    // in blocks, 0: no limit
}

// observe takes in one event of the driver. It returns true when a block that is
// under construction on the chain must not be finished.
func (s *standing) observe(ev event.Event, now time.Time, blockTime time.Duration) (abort bool) {
	switch x := ev.(type) {
	case rollup.ResetEvent:
		s.resetting = true
		return true
	case opengine.EngineResetConfirmedEvent:
		s.resetting, s.confirmed, s.deriving = false, true, false
		s.resets++
		s.unsafe, s.localSafe, s.safe = x.LocalUnsafe, x.LocalSafe, x.CrossSafe
		// As upstream's sequencer: one block's rest, so that a reset loop cannot run hot.
		s.notBefore = now.Add(blockTime)
		return true
	case rollup.EngineTemporaryErrorEvent:
		s.notBefore = now.Add(time.Second)
	case opengine.BuildStartEvent:
		// Seen before the controller acts on it. The controller then moves the
		// engine's head to the parent while its own unsafe head is still the old one.
		if x.Attributes.IsDerived() {
			s.deriving, s.deriveOn = true, x.Attributes.Parent.Hash
			return true
		}
	case opengine.BuildStartedEvent:
		if x.DerivedFrom != (eth.L1BlockRef{}) {
			s.deriving, s.deriveOn = true, x.Parent.Hash
			return true
		}
	case opengine.PayloadSuccessEvent: // only derivation's own blocks
		s.deriving = false
	case opengine.ForkchoiceUpdateEvent:
		// When the replacement of a denied block already exists, the build is dropped
		// for a consolidation and no payload event follows. The next forkchoice on
		// another head says that it is over.
		if s.deriving && x.UnsafeL2Head.Hash != s.deriveOn {
			s.deriving = false
		}
		s.unsafe, s.safe, s.finalized = x.UnsafeL2Head, x.SafeL2Head, x.FinalizedL2Head
	case opengine.LocalSafeUpdateEvent:
		s.localSafe = x.Ref
	}
	return false
}

// situation is what a chain's keeper acts on.
func (s *standing) situation() (out struct {
	confirmed, resetting, deriving bool
	unsafe                         common.Hash
}) {
	out.confirmed, out.resetting, out.deriving, out.unsafe = s.confirmed, s.resetting, s.deriving, s.unsafe.Hash
	return out
}

// Reasons why a chain cannot be built on.
const (
	noDriver    = "its virtual node is not running"
	switchedOff = "sequencing is switched off (admin_startSequencer turns it on)"
	notMember   = "it does not take part in the set (the operators decide that)"
	unconfirmed = "its driver has not confirmed a first reset"
	isResetting = "its driver is resetting"
	isDeriving  = "derivation is building a block"
	backingOff  = "it is backing off"
	noHead      = "its head is not known yet"
	tooFew      = "too few operators can build on it"
	failedSlots = "the last slots it was in failed because of it, it is tried alone"
	// These go on with what was found.
	unreplaced   = "derivation has yet to replace block "
	unsafeTooFar = "its safe head "
	engineFault  = "its engine failed: "
)

// paused says why no block may be built, whatever the head is, or "" if one may.
func (s *standing) paused(now time.Time) string {
	switch {
	case !s.running:
		return noDriver
	case !s.active:
		return switchedOff
	case !s.confirmed:
		return unconfirmed
	case s.resetting:
		return isResetting
	case s.deriving:
		return isDeriving
	case now.Before(s.notBefore):
		return backingOff
	}
	return ""
}

// blocked says why no block may be built on head, or "" if one may. denied is the
// highest block number that was invalidated, if any was.
func (s *standing) blocked(head eth.L2BlockRef, denied *uint64, now time.Time) string {
	if why := s.paused(now); why != "" {
		return why
	}
	switch {
	case denied != nil && s.localSafe.Number < *denied:
		// Derivation replaces the denied block by one with deposits only. Whatever is
		// built at that height before is thrown away.
		return fmt.Sprintf(unreplaced+"%d, which was invalidated", *denied)
	case head == (eth.L2BlockRef{}):
		return noHead
	case s.maxSafeLag > 0 && s.safe.Number+s.maxSafeLag <= head.Number:
		return fmt.Sprintf(unsafeTooFar+"%d is %d blocks behind, the limit is %d", s.safe.Number, head.Number-s.safe.Number, s.maxSafeLag)
	}
	return ""
}
