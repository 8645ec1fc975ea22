package ledger

import (
	"bytes"
	"context"
	"math/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// FuzzDecodeRecord: no body makes the decoder panic, and what it takes is what the encoder writes.
func FuzzDecodeRecord(f *testing.F) {
	for fork := range forks {
		env := makePayload(f, firstParent(chainA), 1000, fork, []byte("tx"), nil)
		body, _, err := encodeRecord(makeRecord(1000, env.ExecutionPayload.ParentHash, 2,
			map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env}))
		require.NoError(f, err)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = decodePayloadOf(body, chainA)
		r, err := decodeRecord(body)
		if err != nil {
			return
		}
		again, _, err := encodeRecord(r)
		if err != nil {
			return // a payload of a shape the decoder allows and the encoder does not, as with withdrawals
		}
		r2, err := decodeRecord(again)
		require.NoError(t, err)
		equalRecord(t, r, r2)
	})
}

// FuzzOpen: whatever stands behind the last whole frame, opening does not panic, and
// when it succeeds the records are there and the log can be written.
func FuzzOpen(f *testing.F) {
	disk := newCrashDir(rand.New(rand.NewSource(1)))
	lock := f.TempDir()
	start := func(d *crashDir) (*Ledger, error) {
		return Open(lock, quiet, WithRand(d.rng), withDirectory(func(directory) directory { return d }))
	}
	l, err := start(disk)
	require.NoError(f, err)
	recs := fill(f, l, 1000, 1002)
	name := l.segments[0].name
	end := l.state.entries[2].off // the third frame is what the fuzzer changes
	require.NoError(f, l.Close())
	whole := disk.live[name].live
	f.Add(bytes.Clone(whole[end:]))
	f.Add(bytes.Clone(whole[end : end+100]))
	f.Add(append(bytes.Clone(whole[end:]), whole[end:]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, tail []byte) {
		d := newCrashDir(rand.New(rand.NewSource(1)))
		data := &crashData{live: append(bytes.Clone(whole[:end]), tail...), dirty: map[int]bool{}}
		d.live[name], d.durable[name] = data, data
		l, err := start(d)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		defer func() { require.NoError(t, l.Close()) }()
		for i := range 2 {
			got, err := l.Get(recs[i].Slot())
			require.NoError(t, err)
			equalRecord(t, recs[i], got)
		}
		if slot, _, _ := l.Last(); slot == 1001 {
			require.NoError(t, l.Append(context.Background(), recs[2]))
		}
		got, err := l.Get(1002)
		require.NoError(t, err)
		equalRecord(t, recs[2], got)
	})
}
