package sequencer

import (
	"context"
	"errors"
	"math/big"
	"strings"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Metrics counts what is refused, left out, lost, or tried again. Its methods must not block.
type Metrics interface {
	builder.Metrics
	// SubblockRefused: this operator does not vote for a subblock, for a RefusalReason.
	SubblockRefused(reason string)
	// SubblockUnverified: one was agreed on that this operator had not run, or had refused.
	SubblockUnverified()
	// SlotAbandoned: L1 took a slot back of which only some subblocks were agreed on.
	SlotAbandoned()
	// ChainLeftOut: the others go on without a chain. The reasons are those of ChainState.
	ChainLeftOut(chain sequence.ChainID, reason string)
	// EngineFailed: a chain's engine is in trouble, of a kind EngineFault names.
	EngineFailed(chain sequence.ChainID, fault string)
	// BlockDelayed: an agreed block comes to its chain later, because of one of Delay….
	BlockDelayed(chain sequence.ChainID, cause string)
	// BlockRedelivered: a chain was given an agreed block from the ledger.
	BlockRedelivered(chain sequence.ChainID)
	// BlocksTakenBack: agreed blocks are not in their chain any more.
	BlocksTakenBack(chain sequence.ChainID, blocks uint64)
	// HistorySyncFailed: the chain's message history is still behind.
	HistorySyncFailed(chain sequence.ChainID)
	// LedgerTidyFailed: the ledger could not be pruned, or not told what is final.
	LedgerTidyFailed(chain sequence.ChainID)
}

// Causes of a delay.
const (
	DelayRun      = "run"       // the chain, or its engine, could not follow
	DelayLedger   = "ledger"    // the ledger had other blocks of the chain
	DelayHandOver = "hand_over" // engine or driver did not take it
)

// PlaceVerify is where messages are refused that another leader's subblock executes.
const PlaceVerify = "verify"

// NoMetrics drops everything.
type NoMetrics struct{}

var _ Metrics = NoMetrics{}

func (NoMetrics) MessageRefused(string, sequence.ChainID, executor.Rule) {}
func (NoMetrics) BundlesPassedOver(string, int)                          {}
func (NoMetrics) PoolBehind(sequence.ChainID)                            {}
func (NoMetrics) RelayerBalance(sequence.ChainID, *big.Int)              {}
func (NoMetrics) SubblockRefused(string)                                 {}
func (NoMetrics) SubblockUnverified()                                    {}
func (NoMetrics) SlotAbandoned()                                         {}
func (NoMetrics) ChainLeftOut(sequence.ChainID, string)                  {}
func (NoMetrics) EngineFailed(sequence.ChainID, string)                  {}
func (NoMetrics) BlockDelayed(sequence.ChainID, string)                  {}
func (NoMetrics) BlockRedelivered(sequence.ChainID)                      {}
func (NoMetrics) BlocksTakenBack(sequence.ChainID, uint64)               {}
func (NoMetrics) HistorySyncFailed(sequence.ChainID)                     {}
func (NoMetrics) LedgerTidyFailed(sequence.ChainID)                      {}

// word names an error.
type word struct {
	err  error
	name string
}

func named(err error, words []word) string {
	for _, w := range words {
		if errors.Is(err, w.err) {
			return w.name
		}
	}
	return "other"
}

// RefusalReason names why a subblock is refused, in one of a fixed set of words.
func RefusalReason(err error) string {
	var message *executor.MessageError
	if errors.As(err, &message) && message.Rule != executor.RuleHistory {
		return "message"
	}
	return named(err, []word{
		{ErrNotReady, "not_ready"}, {executor.RuleHistory, "history"}, {ErrOutOfPlace, "out_of_place"}, {ErrTooEarly, "too_early"},
		{ErrOmission, "omission"}, {ErrAttributes, "attributes"}, {ErrBundle, "bundle"}, {ErrPlace, "place"}, {ErrResult, "result"}, {errRefused, "transaction"},
		{context.Canceled, "stopping"},
	})
}

// FailureReason names why a turn came to no slot, in one of a fixed set of words.
func FailureReason(err error) string {
	var message *executor.MessageError
	switch {
	case errors.As(err, &message):
		return "message"
	case engineFailed(err):
		return "engine"
	}
	return named(err, []word{
		{errAborted, "aborted"}, {errOvertaken, "overtaken"}, {context.DeadlineExceeded, "time"}, {context.Canceled, "aborted"},
		{engine.ErrInvalidAttributes, "attributes"}, {ledger.ErrBroken, "ledger"}, {errRefused, "transaction"},
	})
}

// EngineFault names what is wrong with an engine, in one of a fixed set of words.
func EngineFault(err error) string {
	return named(err, []word{
		{errLost, "lost_blocks"}, {engine.ErrUnavailable, "unavailable"}, {engine.ErrUnknownParent, "unknown_parent"},
		{engine.ErrParentState, "parent_state"}, {engine.ErrSessionClosed, "session_lost"},
	})
}

// hindrance names why a chain cannot be built on, in one of a fixed set of words.
func hindrance(why string) string {
	switch why {
	case "":
		return ""
	case noDriver:
		return "no_driver"
	case switchedOff:
		return "switched_off"
	case notMember:
		return "not_member"
	case unconfirmed:
		return "starting"
	case isResetting:
		return "resetting"
	case isDeriving:
		return "deriving"
	case backingOff:
		return "backing_off"
	case noHead:
		return "no_head"
	case tooFew:
		return "few_operators"
	case failedSlots:
		return "failed_slots"
	}
	for _, w := range [][2]string{{unreplaced, "invalidated"}, {unsafeTooFar, "safe_lag"}, {engineFault, "engine"}} {
		if strings.HasPrefix(why, w[0]) {
			return w[1]
		}
	}
	return "catching_up"
}

// Hindrances are all words that a ChainState or ChainLeftOut gives for a reason.
var Hindrances = [...]string{
	"no_driver", "switched_off", "not_member", "starting", "resetting", "deriving", "backing_off", "no_head",
	"few_operators", "failed_slots", "invalidated", "safe_lag", "engine", "catching_up",
}

// refused counts a subblock that this operator does not vote for.
func (s *Sequencer) refused(err error) {
	s.metrics.SubblockRefused(RefusalReason(err))
	var message *executor.MessageError
	if errors.As(err, &message) {
		s.metrics.MessageRefused(PlaceVerify, message.Chain, message.Rule)
	}
}

// noteTrouble has the chain's engine mended.
func (s *Sequencer) noteTrouble(c *chain, err error) {
	s.metrics.EngineFailed(c.id, EngineFault(err))
	c.trouble.set(err)
}

// ChainState is how a chain stands for monitoring. It waits for nothing, neither an engine
// nor L1 nor a disk: heads are those that the driver last told of.
type ChainState struct {
	Chain   sequence.ChainID
	Member  bool
	LeftOut bool // the others go on without it
	// Hindrance is why it cannot be built on, one of Hindrances; "" if nothing is known
	// that keeps it from that.
	Hindrance string
	// BlockTime in seconds.
	BlockTime                          uint64
	Unsafe, LocalSafe, Safe, Finalized eth.L2BlockRef // zero if not known
}

// States says how each chain stands, ascending by chain.
func (s *Sequencer) States() []ChainState {
	out := make([]ChainState, 0, len(s.chains))
	for _, c := range s.chains {
		st := ChainState{Chain: c.id, Member: c.member.Load(), LeftOut: c.leftOut.Load(), BlockTime: c.rollup.BlockTime}
		why := noDriver
		if n := c.current(); n != nil {
			n.mu.Lock()
			at := &n.standing
			st.Unsafe, st.LocalSafe, st.Safe, st.Finalized = at.unsafe, at.localSafe, at.safe, at.finalized
			why = at.paused(s.clock.Now())
			n.mu.Unlock()
		}
		switch {
		case !st.Member:
			why = notMember
		case why != "":
		case c.trouble.is():
			why = engineFault
		case c.onProbation():
			why = failedSlots
		default:
			why = c.reason()
		}
		st.Hindrance = hindrance(why)
		out = append(out, st)
	}
	return out
}

// addWork notes what the builder did, on the chains and on all of them.
func (sl *slot) addWork(subblock uint64, o *builder.Order) {
	for _, w := range o.Fills {
		sl.timeline.add(Span{StageFill, w.Chain, subblock, w.Start, w.End})
	}
	if !o.FillBegan.IsZero() {
		sl.timeline.add(Span{StageFill, 0, subblock, o.FillBegan, o.FillBegan.Add(o.Fill)})
	}
	if !o.BundlesBegan.IsZero() {
		sl.timeline.add(Span{StageBundles, 0, subblock, o.BundlesBegan, o.BundlesEnded})
	}
}
