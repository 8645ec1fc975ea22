package service

import (
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// shelf is a ledger of slots of three subblocks, in the order they were agreed.
type shelf struct {
	records []*ledger.Record
	reads   int
	err     error
}

func (s *shelf) add(slot sequence.Slot, height uint64) {
	r := &ledger.Record{Agreement: binary.BigEndian.AppendUint64(nil, height)}
	if height == 0 {
		r.Agreement = nil
	}
	for i := range uint64(3) {
		r.Subblocks = append(r.Subblocks, &sequence.Subblock{Slot: slot, Index: i})
	}
	s.records = append(s.records, r)
}

func (s *shelf) slots(from sequence.Slot) iter.Seq2[*ledger.Record, error] {
	return func(yield func(*ledger.Record, error) bool) {
		i := slices.IndexFunc(s.records, func(r *ledger.Record) bool { return r.Slot() >= from })
		if i < 0 {
			return
		}
		s.reads++
		yield(s.records[i], s.err)
	}
}

// What is safe on L1 may go, what is not stays, and the ledger is read now and then only.
func TestRetention(t *testing.T) {
	s := &shelf{}
	var safe sequence.Slot
	known := false
	r := &retention{
		log: log.NewLogger(log.DiscardHandler()), safe: func() (sequence.Slot, bool) { return safe, known }, slots: s.slots,
		heightOf: func(a []byte) (uint64, error) {
			if len(a) != 8 {
				return 0, errors.New("not an agreement")
			}
			return binary.BigEndian.Uint64(a), nil
		},
	}
	next := func() uint64 { // the next answer that is worked out anew
		h := r.height()
		for range lookEvery - 1 {
			require.Equal(t, h, r.height())
		}
		return h
	}
	require.Zero(t, next(), "nobody has said what is safe")
	safe, known = 100, true
	require.Zero(t, next(), "nothing is in the ledger")
	s.add(98, 0) // alone
	s.add(99, 3)
	for i := range uint64(10) {
		s.add(100+sequence.Slot(i), 6+3*i)
	}
	safe = 98
	require.Zero(t, next(), "the operator was alone then")
	require.Equal(t, 1, s.reads)
	safe = 104
	require.EqualValues(t, 16, next(), "the first of the three heights of slot 104")
	require.Equal(t, 2, s.reads)
	known, safe = false, 108
	require.EqualValues(t, 16, next(), "a driver starts again")
	known, s.err = true, errors.New("disk")
	require.EqualValues(t, 16, next())
	s.err = nil
	s.records[10].Agreement = []byte{1}
	require.EqualValues(t, 16, next(), "an agreement that cannot be read")
	safe = 1000
	require.EqualValues(t, 16, next(), "L1 is ahead of this operator")
	// Slots 103 to 105 again, after an L1 reorg: 103 counts where it was agreed first.
	for i := range uint64(3) {
		s.add(103+sequence.Slot(i), 36+3*i)
	}
	safe = 103
	require.EqualValues(t, 13, next())
}
