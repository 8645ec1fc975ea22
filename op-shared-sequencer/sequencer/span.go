package sequencer

import (
	"slices"
	"sync"
	"time"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Stage is a part of making a slot.
type Stage string

const (
	StageAttributes Stage = "attributes" // L1 origins and payload attributes
	StageOpen       Stage = "open"       // sessions are opened
	StageRelays     Stage = "relays"     // messages of plain transactions are relayed
	StageBundles    Stage = "bundles"    // the leader's bundles run: from the first one's begin to the last one's end
	StageFill       Stage = "fill"       // the leader takes transactions from the pools
	StageCut        Stage = "cut"        // the leader states the results of a subblock that does not seal
	StageSeal       Stage = "seal"       // the leader seals the blocks
	StageVerify     Stage = "verify"     // another leader's subblock is run, checked, and sealed if it is the last
	StageAgree      Stage = "agree"      // the operators vote
	StageLog        Stage = "log"        // the slot is written to the ledger and synced
	StageHandOver   Stage = "hand_over"  // engines store their blocks and drivers take them
	StageInsert     Stage = "insert"     // of hand_over: the engine
	StageDeliver    Stage = "deliver"    // of hand_over: the driver, and gossip
	StageIndex      Stage = "index"      // messages are added to the history
)

// Span is when a stage was at work: on one chain, or on all if Chain is 0.
type Span struct {
	Stage      Stage
	Chain      sequence.ChainID
	Subblock   uint64 // index in the slot
	Start, End time.Time
}

// timeline collects the spans of a slot. Chains are worked on in parallel, and the draft of
// a subblock while the one before is committed.
type timeline struct {
	mu    sync.Mutex
	spans []Span
}

// spansPerChain is about how many a slot has, so that it allocates once.
const spansPerChain = 8

func (t *timeline) add(s Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spans == nil {
		t.spans = make([]Span, 0, 4*spansPerChain)
	}
	t.spans = append(t.spans, s)
}

func (t *timeline) all() []Span {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.spans)
}

// span notes a stage that ends now.
func (sl *slot) span(stage Stage, chain sequence.ChainID, subblock uint64, start time.Time) {
	sl.timeline.add(Span{stage, chain, subblock, start, sl.s.clock.Now()})
}

// timed runs a stage of one chain. Stages that fail are noted too.
func (sl *slot) timed(stage Stage, b *block, subblock uint64, f func() error) error {
	start := sl.s.clock.Now()
	err := f()
	sl.span(stage, b.id, subblock, start)
	return err
}

// stopwatch measures the stages of a slot that follow each other.
type stopwatch struct {
	slot     *slot
	subblock uint64
	last     time.Time
}

func (sl *slot) watch(subblock uint64) *stopwatch {
	return &stopwatch{slot: sl, subblock: subblock, last: sl.s.clock.Now()}
}

// lap ends a stage, and adds what it took to the report.
func (w *stopwatch) lap(stage Stage, d *time.Duration) {
	now := w.slot.s.clock.Now()
	*d += now.Sub(w.last)
	w.slot.timeline.add(Span{stage, 0, w.subblock, w.last, now})
	w.last = now
}
