package service

import (
	"iter"

	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// lookEvery is at which of the rotation's questions the answer is worked out anew: it
// costs a record of the ledger. An old answer keeps more than it has to.
const lookEvery = 5

// retention tells the rotation which heights others may still need: those of slots that are
// not safe on L1, which nobody could make again without them. Not for concurrent use.
type retention struct {
	log   log.Logger
	safe  func() (sequence.Slot, bool)
	slots func(from sequence.Slot) iter.Seq2[*ledger.Record, error]
	// heightOf reads from an agreement the height that its slot ends with.
	heightOf func(agreement []byte) (uint64, error)

	asked int
	from  uint64 // the last answer
}

// height is the lowest one that is needed; 0: all are.
func (r *retention) height() uint64 {
	if r.asked++; r.asked%lookEvery != 1 {
		return r.from
	}
	safe, ok := r.safe()
	if !ok {
		return r.from // what was safe stays so, but for a reorg of L1 that goes back hours
	}
	from, err := r.firstOf(safe)
	if err != nil {
		r.log.Warn("Heights that are safe on L1 are not known, older ones are kept", "safe", safe, "err", err)
		return r.from
	}
	r.from = from
	return r.from
}

// firstOf is the height that the first slot in the ledger from a given one on begins with.
// A slot that was agreed again after an L1 reorg is there more than once.
func (r *retention) firstOf(slot sequence.Slot) (uint64, error) {
	for record, err := range r.slots(slot) {
		if err != nil {
			return 0, err
		}
		if len(record.Agreement) == 0 { // from a time when the operator was alone
			return 0, nil
		}
		last, err := r.heightOf(record.Agreement)
		if err != nil {
			return 0, err
		}
		return last - min(last, uint64(len(record.Subblocks)-1)), nil
	}
	return r.from, nil // the ledger does not reach to it: this operator is behind
}

func heightOf(agreement []byte) (uint64, error) {
	a, err := cometbft.DecodeAgreement(agreement)
	if err != nil {
		return 0, err
	}
	return a.Height, nil
}
