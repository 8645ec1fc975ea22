package ledger

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// slotsOf are the slots in a log.
func slotsOf(t *testing.T, l *Ledger) (slots []sequence.Slot) {
	for r, err := range l.Slots(0) {
		require.NoError(t, err)
		slots = append(slots, r.Slot())
	}
	return slots
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := OpenReadOnly(dir, quiet)
	require.ErrorIs(t, err, ErrNotFound)
	_, err = OpenReadOnly(filepath.Join(dir, "none"), quiet)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, filepath.Join(dir, "none"))

	l := open(t, dir)
	recs := fill(t, l, 100, 104)
	// What a crash, or a write under way, leaves: it is neither seen nor cut.
	name := filepath.Join(dir, l.segments[0].name)
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	torn := whole[:len(whole)-5]
	require.NoError(t, os.WriteFile(name, torn, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(9)+tempSuffix), nil, 0o600))

	r, err := OpenReadOnly(dir, quiet)
	require.NoError(t, err, "beside the one that writes")
	require.Equal(t, []sequence.Slot{100, 101, 102, 103}, slotsOf(t, r))
	got, err := r.Get(103)
	require.NoError(t, err)
	equalRecord(t, recs[3], got)
	ctx := context.Background()
	require.ErrorIs(t, r.Append(ctx, next(t, r, 104, chainA)), ErrReadOnly)
	require.ErrorIs(t, r.Rewind(ctx, chainA, eth.BlockID{Number: 3}), ErrReadOnly)
	require.ErrorIs(t, r.Prune(ctx, chainA, 100), ErrReadOnly)
	require.NoError(t, r.Close())
	after, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, torn, after)
	require.FileExists(t, filepath.Join(dir, segmentName(9)+tempSuffix))
}

// A log is read while it is written, begins new segments, and is pruned.
func TestReadOnlyMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, WithSegmentSize(20_000))
	fill(t, l, 1, 10)
	written := make(chan error, 1)
	go func() {
		written <- func() error {
			for slot := sequence.Slot(11); slot <= 300; slot++ {
				if err := l.Append(context.Background(), next(t, l, slot, chainA, chainB)); err != nil {
					return err
				}
				for _, chain := range []sequence.ChainID{chainA, chainB} {
					if slot%10 != 0 {
						continue
					}
					if err := l.Prune(context.Background(), chain, uint64(slot)); err != nil {
						return err
					}
				}
			}
			return nil
		}()
	}()
	seen := sequence.Slot(0)
	for done := false; !done; {
		select {
		case err := <-written:
			require.NoError(t, err)
			done = true
		default:
		}
		r, err := OpenReadOnly(dir, quiet)
		require.NoError(t, err)
		slots := slotsOf(t, r)
		require.NoError(t, r.Close())
		require.GreaterOrEqual(t, slots[len(slots)-1], seen)
		seen = slots[len(slots)-1]
		for i := 1; i < len(slots); i++ {
			require.Equal(t, slots[i-1]+1, slots[i])
		}
	}
	require.Equal(t, sequence.Slot(300), seen)
}
