package sequencer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// attributesTimeout is upstream's bound for preparing payload attributes.
const attributesTimeout = 20 * time.Second

// chooseOrigins picks the L1 origin of every block: the same for all wherever the
// rules allow, so that an L1 reorg takes the chains back together. Each chain's own
// selector proposes; the oldest proposal wins on every chain that may still use it.
func (sl *slot) chooseOrigins(ctx context.Context) error {
	if err := each(sl.blocks, func(b *block) (err error) {
		b.origin, err = b.findOrigin(ctx, sl.s.clock.Now())
		return err
	}); err != nil {
		return fmt.Errorf("L1 origin of slot %d: %w", sl.time, err)
	}
	oldest := sl.oldestOrigin()
	for _, b := range sl.blocks {
		if b.origin.Hash != oldest.Hash && b.mayKeep(oldest) {
			b.origin = oldest
		}
	}
	return nil
}

func (sl *slot) oldestOrigin() eth.L1BlockRef {
	oldest := sl.blocks[0].origin
	for _, b := range sl.blocks {
		if b.origin.Number < oldest.Number {
			oldest = b.origin
		}
	}
	return oldest
}

// mayKeep says whether the chain's next block may stay on its present origin, if
// that is the given one: an origin never goes back, and never falls behind by more
// than the sequencer drift (derivation spec, "Batch Queue").
func (b *block) mayKeep(origin eth.L1BlockRef) bool {
	drift := rollup.NewChainSpec(b.rollup).MaxSequencerDrift(origin.Time)
	return b.head.L1Origin.Hash == origin.Hash && b.head.Time+b.rollup.BlockTime <= origin.Time+drift
}

// findOrigin asks the chain's own selector, and tells the driver what upstream's
// sequencer would tell it when there is none.
func (b *block) findOrigin(ctx context.Context, now time.Time) (eth.L1BlockRef, error) {
	p := &b.node.parts
	origin, err := p.Origins.FindL1Origin(ctx, b.head)
	if err == nil && origin.Hash != b.head.L1Origin.Hash {
		// The selector keeps the next origin, and hears of L1 reorgs only through resets of
		// its driver. The others would refuse one that is gone, and nothing would change that.
		if at, no := p.L1.L1BlockRefByNumber(ctx, origin.Number); no == nil && at.Hash != origin.Hash {
			err = fmt.Errorf("%w: L1 has %s", sequencing.ErrNextL1OriginOrphaned, at)
		}
	}
	switch {
	case err == nil:
		return origin, nil
	case errors.Is(err, sequencing.ErrInvalidL1Origin), errors.Is(err, sequencing.ErrNextL1OriginOrphaned):
		p.Metrics.RecordSequencerInconsistentL1Origin(b.head.L1Origin, origin.ID())
		b.node.requestReset(fmt.Errorf("cannot build on L2 head %s with L1 origin %s: %w", b.head, b.head.L1Origin, err))
	case ctx.Err() == nil:
		b.node.backOff(time.Second)
		b.node.emitter.Emit(p.Ctx, rollup.L1TemporaryErrorEvent{Err: err})
	}
	return origin, err
}

// prepare makes the payload attributes: upstream's builder, and the rules that
// upstream's sequencer adds.
func (b *block) prepare(ctx context.Context, clk Clock) error {
	p := &b.node.parts
	actx, cancel := context.WithTimeout(ctx, attributesTimeout)
	defer cancel()
	attrs, err := p.Attributes.PreparePayloadAttributes(actx, b.head, b.origin.ID())
	if err != nil {
		err = b.orLost(ctx, fmt.Errorf("preparing payload attributes on %s: %w", b.head, err))
		switch {
		case ctx.Err() != nil, errors.Is(err, errLost):
		case errors.Is(err, derive.ErrReset):
			b.node.requestReset(err)
		case errors.Is(err, derive.ErrTemporary):
			b.node.backOff(time.Second)
			b.node.emitter.Emit(p.Ctx, rollup.EngineTemporaryErrorEvent{Err: err})
		default:
			b.node.emitter.Emit(p.Ctx, rollup.CriticalErrorEvent{Err: err})
		}
		return err
	}
	attrs.NoTxPool = noTxPool(b.rollup, uint64(attrs.Timestamp), b.origin) || b.node.recovering()
	b.attrs = attrs
	b.opening, err = sequence.NewOpening(b.id, b.head.ID(), b.origin.ID(), attrs)
	return err
}

// noTxPool says whether the block takes no user transactions: past the sequencer
// drift, and in the activation block of a fork for which upstream's sequencer
// (op-node/rollup/sequencing, startBuildingBlock) takes none.
func noTxPool(cfg *rollup.Config, time uint64, origin eth.L1BlockRef) bool {
	return time > origin.Time+rollup.NewChainSpec(cfg).MaxSequencerDrift(origin.Time) ||
		cfg.IsEcotoneActivationBlock(time) || cfg.IsFjordActivationBlock(time) ||
		cfg.IsIsthmusActivationBlock(time) || cfg.IsJovianActivationBlock(time) ||
		cfg.IsKarstActivationBlock(time) || cfg.IsInteropActivationBlock(time)
}

var _ error = (*builder.ChainError)(nil)
