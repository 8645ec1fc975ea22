package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"math/big"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chainA, chainB = sequence.ChainID(901), sequence.ChainID(902)

var quiet = log.NewLogger(log.DiscardHandler())

// forks are the payload shapes the log must hold, by what tells them apart.
var forks = map[string]func(p *eth.ExecutionPayload){
	"holocene": func(p *eth.ExecutionPayload) {},
	"isthmus":  func(p *eth.ExecutionPayload) { p.WithdrawalsRoot = &common.Hash{0x1d} },
	"isthmus, empty withdrawals root": func(p *eth.ExecutionPayload) {
		root := types.EmptyWithdrawalsHash
		p.WithdrawalsRoot = &root
	},
	"jovian, karst, lagoon": func(p *eth.ExecutionPayload) {
		p.WithdrawalsRoot = &common.Hash{0x1d}
		p.ExtraData = binary.BigEndian.AppendUint64(append([]byte{1}, p.ExtraData[1:]...), 7) // minimum base fee
		used := eth.Uint64Quantity(123_456)                                                   // the DA footprint
		p.BlobGasUsed = &used
	},
}

// makePayload makes a block whose hash is right.
func makePayload(t require.TestingT, parent eth.BlockID, slot sequence.Slot, fork string, txs ...[]byte) *eth.ExecutionPayloadEnvelope {
	zero := eth.Uint64Quantity(0)
	excess := zero
	p := &eth.ExecutionPayload{
		ParentHash: parent.Hash, BlockNumber: eth.Uint64Quantity(parent.Number + 1), Timestamp: eth.Uint64Quantity(slot),
		FeeRecipient: common.Address{0x42}, StateRoot: eth.Bytes32{1}, ReceiptsRoot: eth.Bytes32{2}, PrevRandao: eth.Bytes32{3},
		GasLimit: 60_000_000, GasUsed: 21_000, ExtraData: []byte{0, 0, 0, 0, 250, 0, 0, 0, 6}, LogsBloom: eth.Bytes256{9},
		BlobGasUsed: &zero, ExcessBlobGas: &excess, Withdrawals: &types.Withdrawals{}, Transactions: []eth.Data{},
	}
	p.BaseFeePerGas = eth.Uint256Quantity{1_000_000_007, 5}
	for _, tx := range txs {
		p.Transactions = append(p.Transactions, tx)
	}
	forks[fork](p)
	env := &eth.ExecutionPayloadEnvelope{ParentBeaconBlockRoot: &common.Hash{0xbe}, ExecutionPayload: p}
	p.BlockHash, _ = env.CheckBlockHash()
	_, ok := env.CheckBlockHash()
	require.True(t, ok)
	return env
}

// makeRecord makes a slot of n subblocks on the last one's hash.
func makeRecord(slot sequence.Slot, last common.Hash, n int, payloads map[sequence.ChainID]*eth.ExecutionPayloadEnvelope) *Record {
	r := &Record{Payloads: payloads, Agreement: []byte("votes")}
	var chains []sequence.ChainID
	for chain := range payloads {
		chains = append(chains, chain)
	}
	slices.Sort(chains)
	for i := range n {
		s := &sequence.Subblock{Slot: slot, Index: uint64(i), Parent: last}
		for _, chain := range chains {
			p := payloads[chain].ExecutionPayload
			if i == 0 {
				s.Openings = append(s.Openings, sequence.Opening{
					Chain: chain, ParentHash: p.ParentHash, ParentNumber: uint64(p.BlockNumber) - 1, GasLimit: uint64(p.GasLimit),
				})
				if len(p.Transactions) > 0 {
					var txs [][]byte
					for _, tx := range p.Transactions {
						txs = append(txs, tx)
					}
					s.Steps = append(s.Steps, sequence.Step{Chain: chain, Transactions: txs})
				}
			}
			s.Results = append(s.Results, sequence.Result{Chain: chain, Transactions: uint64(len(p.Transactions)), ReceiptsRoot: common.Hash(p.ReceiptsRoot)})
			if i == n-1 {
				s.Seals = append(s.Seals, sequence.Seal{Chain: chain, BlockHash: p.BlockHash, Number: uint64(p.BlockNumber)})
			}
		}
		r.Subblocks = append(r.Subblocks, s)
		last = s.Hash()
	}
	return r
}

// next makes the record that extends the log by a block on each chain.
func next(t require.TestingT, l *Ledger, slot sequence.Slot, chains ...sequence.ChainID) *Record {
	_, last, _ := l.Last()
	payloads := map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}
	for _, chain := range chains {
		head, _, ok := l.Head(chain)
		if !ok {
			head = eth.BlockID{Hash: common.BigToHash(big.NewInt(int64(chain))), Number: 10}
		}
		payloads[chain] = makePayload(t, head, slot, "jovian, karst, lagoon", []byte("tx"), []byte{byte(chain)})
	}
	return makeRecord(slot, last, 2, payloads)
}

func open(t testing.TB, dir string, opts ...Option) *Ledger {
	l, err := Open(dir, quiet, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func fill(t testing.TB, l *Ledger, from, to sequence.Slot) []*Record {
	var out []*Record
	for slot := from; slot <= to; slot++ {
		r := next(t, l, slot, chainA, chainB)
		require.NoError(t, l.Append(context.Background(), r))
		out = append(out, r)
	}
	return out
}

func equalRecord(t require.TestingT, want, got *Record) {
	require.Equal(t, want.Subblocks[len(want.Subblocks)-1].Hash(), got.Subblocks[len(got.Subblocks)-1].Hash())
	require.Equal(t, len(want.Subblocks), len(got.Subblocks))
	require.Equal(t, want.Payloads, got.Payloads)
	require.Equal(t, want.Agreement, got.Agreement)
}

func TestAppendAndReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir)
	_, _, ok := l.Last()
	require.False(t, ok)
	_, _, ok = l.Head(chainA)
	require.False(t, ok)
	recs := fill(t, l, 100, 104)

	check := func(l *Ledger) {
		slot, last, ok := l.Last()
		require.True(t, ok)
		require.Equal(t, sequence.Slot(104), slot)
		require.Equal(t, recs[4].Subblocks[1].Hash(), last)
		require.Equal(t, []sequence.ChainID{chainA, chainB}, l.Chains())
		for _, chain := range l.Chains() {
			head, time, ok := l.Head(chain)
			require.True(t, ok)
			require.Equal(t, recs[4].Payloads[chain].ExecutionPayload.ID(), head)
			require.Equal(t, uint64(104), time)
			env, err := l.Payload(chain, recs[2].Payloads[chain].ExecutionPayload.BlockHash)
			require.NoError(t, err)
			require.Equal(t, recs[2].Payloads[chain], env)
		}
		i := 2
		for r, err := range l.Slots(102) {
			require.NoError(t, err)
			equalRecord(t, recs[i], r)
			i++
		}
		require.Equal(t, 5, i)
		got, err := l.Get(101)
		require.NoError(t, err)
		equalRecord(t, recs[1], got)
		_, err = l.Get(99)
		require.ErrorIs(t, err, ErrNotFound)
	}
	check(l)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Append(context.Background(), next(t, l, 105, chainA)), ErrClosed)
	check(open(t, dir))
}

func TestSecondOpener(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	_, err := Open(dir, quiet)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, dir)
	require.NoError(t, l.Close())
	open(t, dir)
}

func TestPayloadRoundTrip(t *testing.T) {
	t.Parallel()
	for fork := range forks {
		t.Run(fork, func(t *testing.T) {
			t.Parallel()
			big := make([]byte, 100_000)
			rand.New(rand.NewSource(1)).Read(big)
			for _, txs := range [][][]byte{nil, {{}}, {[]byte("one")}, {big, {}, []byte("two")}} {
				env := makePayload(t, eth.BlockID{Hash: common.Hash{7}, Number: 8}, 1000, fork, txs...)
				r := makeRecord(1000, common.Hash{}, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env})
				body, _, err := encodeRecord(r)
				require.NoError(t, err)
				got, err := decodeRecord(body)
				require.NoError(t, err)
				equalRecord(t, r, got)
				hash, ok := got.Payloads[chainA].CheckBlockHash()
				require.True(t, ok, "the block came back as %s", hash)
			}
		})
	}
}

func TestRefusedRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := open(t, t.TempDir(), WithMaxRecord(20_000))
	fill(t, l, 100, 103)
	head, _, _ := l.Head(chainA)
	_, last, _ := l.Last()
	one := func(slot sequence.Slot, env *eth.ExecutionPayloadEnvelope) *Record {
		return makeRecord(slot, last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env})
	}
	payload := func(parent eth.BlockID, slot sequence.Slot, change func(p *eth.ExecutionPayload)) *eth.ExecutionPayloadEnvelope {
		env := makePayload(t, parent, slot, "jovian, karst, lagoon")
		if change != nil {
			change(env.ExecutionPayload)
		}
		return env
	}
	oldRec, err := l.Get(101)
	require.NoError(t, err)
	old := oldRec.Payloads[chainA].ExecutionPayload.ID()

	cases := map[string]struct {
		r   *Record
		err error
		say string
	}{
		"no subblocks":      {&Record{}, ErrBadRecord, "no subblocks"},
		"same slot":         {one(103, payload(head, 103, nil)), ErrNotNext, "not after"},
		"older slot":        {one(99, payload(head, 99, nil)), ErrNotNext, "not after"},
		"on an older block": {one(104, payload(old, 104, nil)), ErrNotNext, "Rewind"},
		"number skipped":    {one(104, payload(eth.BlockID{Hash: head.Hash, Number: head.Number + 1}, 104, nil)), ErrNotNext, "chain 901"},
		"other timestamp":   {one(104, payload(head, 105, nil)), ErrBadRecord, "timestamp"},
		"no beacon root": {one(104, func() *eth.ExecutionPayloadEnvelope {
			e := payload(head, 104, nil)
			e.ParentBeaconBlockRoot = nil
			return e
		}()), ErrBadRecord, "Ecotone"},
		"no withdrawals":      {one(104, payload(head, 104, func(p *eth.ExecutionPayload) { p.Withdrawals = nil })), ErrBadRecord, "Ecotone"},
		"withdrawals":         {one(104, payload(head, 104, func(p *eth.ExecutionPayload) { p.Withdrawals = &types.Withdrawals{{}} })), ErrBadRecord, "withdrawals"},
		"long extra data":     {one(104, payload(head, 104, func(p *eth.ExecutionPayload) { p.ExtraData = make([]byte, 33) })), ErrBadRecord, "extra data"},
		"too large":           {one(104, makePayload(t, head, 104, "isthmus", make([]byte, 20_000))), ErrTooLarge, "limit"},
		"fork of the history": {makeRecord(104, oldRec.Subblocks[1].Hash(), 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: payload(head, 104, nil)}), ErrNotNext, "already follows"},
		"payload not sealed": {func() *Record {
			r := one(104, payload(head, 104, nil))
			r.Payloads[chainA] = payload(head, 104, func(p *eth.ExecutionPayload) { p.BlockHash[0]++ })
			return r
		}(), ErrBadRecord, "seals"},
		"missing payload": {func() *Record { r := one(104, payload(head, 104, nil)); r.Payloads[chainA] = nil; return r }(), ErrBadRecord, "missing"},
		"subblock skipped": {func() *Record {
			r := makeRecord(104, last, 3, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: payload(head, 104, nil)})
			r.Subblocks = slices.Delete(r.Subblocks, 1, 2)
			return r
		}(), ErrBadRecord, "expected"},
		"not sealed": {func() *Record {
			r := makeRecord(104, last, 2, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: payload(head, 104, nil)})
			r.Subblocks = r.Subblocks[:1]
			return r
		}(), ErrBadRecord, "seal"},
	}
	for name, c := range cases {
		err := l.Append(ctx, c.r)
		require.ErrorIs(t, err, c.err, name)
		require.ErrorContains(t, err, c.say, name)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, l.Append(canceled, next(t, l, 104, chainA)), context.Canceled)

	// None of them changed anything.
	fill(t, l, 104, 104)
}

func TestRunsAndRewinds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := open(t, dir)
	recs := fill(t, l, 100, 105)
	at := func(i int) eth.BlockID { return recs[i].Payloads[chainA].ExecutionPayload.ID() }

	// An L1 reorg takes both chains back: the same slots are agreed again.
	for _, chain := range []sequence.ChainID{chainA, chainB} {
		require.NoError(t, l.Rewind(ctx, chain, recs[2].Payloads[chain].ExecutionPayload.ID()))
	}
	head, time, _ := l.Head(chainA)
	require.Equal(t, at(2), head)
	require.Equal(t, uint64(102), time)
	_, last, _ := l.Last()
	require.Equal(t, recs[5].Subblocks[1].Hash(), last, "agreement goes on behind what is void")
	again := next(t, l, 103, chainA, chainB)
	again.Payloads[chainA] = makePayload(t, at(2), 103, "isthmus", []byte("other"))
	again = makeRecord(103, last, 1, again.Payloads)
	require.NoError(t, l.Append(ctx, again))
	got, err := l.Get(103)
	require.NoError(t, err)
	equalRecord(t, again, got)

	// Derivation makes a block that is not in the log: a new run.
	derived := eth.BlockID{Hash: common.Hash{0xde}, Number: 14}
	require.NoError(t, l.Rewind(ctx, chainA, derived))
	head, time, _ = l.Head(chainA)
	require.Equal(t, derived, head)
	require.Zero(t, time)
	require.NoError(t, l.Append(ctx, next(t, l, 104, chainA)))

	// More derived blocks, nobody said so: the parent is unknown, a new run as well.
	_, last, _ = l.Last()
	env := makePayload(t, eth.BlockID{Hash: common.Hash{0xdf}, Number: 20}, 110, "isthmus")
	require.NoError(t, l.Append(ctx, makeRecord(110, last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env})))

	// Derivation makes the first branch again, block for block: its run goes on.
	_, last, _ = l.Last()
	env = makePayload(t, at(5), 111, "isthmus")
	require.NoError(t, l.Append(ctx, makeRecord(111, last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chainA: env})))
	var order []sequence.Slot
	require.NoError(t, l.Close())
	l = open(t, dir)
	head, time, _ = l.Head(chainA)
	require.Equal(t, env.ExecutionPayload.ID(), head)
	require.Equal(t, uint64(111), time)
	for r, err := range l.Slots(104) {
		require.NoError(t, err)
		order = append(order, r.Slot())
	}
	require.Equal(t, []sequence.Slot{104, 105, 103, 104, 110, 111}, order)
}

func TestTornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	recs := fill(t, l, 100, 102)
	name := filepath.Join(dir, l.segments[0].name)
	end := l.state.entries[2].off
	require.NoError(t, l.Close())
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	for size := end; size < int64(len(whole)); size += 1 + (size-end)/64*4 { // each byte of the frame's header, then fewer
		for _, zeroed := range []bool{false, true} { // cut off, or the file grew and the data never came
			data := slices.Clone(whole[:size])
			if zeroed {
				data = append(data, make([]byte, int64(len(whole))-size)...)
			}
			require.NoError(t, os.WriteFile(name, data, 0o600))
			l, err := Open(dir, quiet)
			require.NoError(t, err)
			slot, _, _ := l.Last()
			require.Equal(t, sequence.Slot(101), slot)
			if size%97 == 0 {
				require.NoError(t, l.Append(context.Background(), recs[2]))
			}
			require.NoError(t, l.Close())
		}
	}
}

func TestCorruptMiddle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, WithSegmentSize(20_000))
	fill(t, l, 100, 120)
	require.Greater(t, len(l.segments), 1)
	lastEntry := l.state.entries[len(l.state.entries)-1]
	segments := slices.Clone(l.segments)
	require.NoError(t, l.Close())
	rng := rand.New(rand.NewSource(7))
	for range 400 {
		seg := segments[rng.Intn(len(segments))]
		limit := seg.size
		if seg == lastEntry.seg {
			limit = lastEntry.off // behind it, damage looks like a torn write
		}
		name := filepath.Join(dir, seg.name)
		whole, err := os.ReadFile(name)
		require.NoError(t, err)
		data := slices.Clone(whole)
		data[rng.Int63n(limit)] ^= 1 << rng.Intn(8)
		require.NoError(t, os.WriteFile(name, data, 0o600))
		_, err = Open(dir, quiet)
		require.Error(t, err)
		require.ErrorContains(t, err, seg.name)
		if !errors.Is(err, ErrCorrupt) {
			require.ErrorContains(t, err, "format version")
		}
		require.NoError(t, os.WriteFile(name, whole, 0o600))
	}
	require.NoError(t, open(t, dir).Close())
	require.NoError(t, os.Remove(filepath.Join(dir, segments[1].name)))
	_, err := Open(dir, quiet)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestPruneFreesSegments(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	l := open(t, dir, WithSegmentSize(20_000))
	recs := fill(t, l, 100, 140) // blocks 11 to 51
	files := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
		require.NoError(t, err)
		return len(names)
	}
	before := files()
	require.Greater(t, before, 3)
	require.NoError(t, l.Prune(ctx, chainA, 50))
	require.Equal(t, before, files(), "the other chain still needs its blocks")
	require.NoError(t, l.Prune(ctx, chainB, 45))
	require.LessOrEqual(t, files(), 3)
	_, err := l.Payload(chainB, recs[33].Payloads[chainB].ExecutionPayload.BlockHash)
	require.ErrorIs(t, err, ErrNotFound)
	got, err := l.Get(134)
	require.NoError(t, err)
	equalRecord(t, recs[34], got) // block 45

	require.NoError(t, l.Prune(ctx, chainA, 1000))
	require.NoError(t, l.Prune(ctx, chainB, 1000))
	require.Equal(t, 1, files())
	require.NoError(t, l.Close())
	l = open(t, dir, WithSegmentSize(20_000))
	head, time, ok := l.Head(chainA)
	require.True(t, ok, "the head outlives its block")
	require.Equal(t, recs[40].Payloads[chainA].ExecutionPayload.ID(), head)
	require.Equal(t, uint64(140), time)
	fill(t, l, 141, 142)
}

// A chain of the set that this operator does not serve has openings in every record and no
// block in any: it holds nothing back.
func TestPruneWithChainNotServed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	l := open(t, t.TempDir())
	for slot := sequence.Slot(1000); slot < 1020; slot++ {
		r := next(t, l, slot, chainA, chainB)
		delete(r.Payloads, chainB)
		require.NoError(t, l.Append(ctx, r))
	}
	head, _, _ := l.Head(chainA)
	require.NoError(t, l.Prune(ctx, chainA, head.Number-4))
	n := 0
	for _, err := range l.Slots(0) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 5, n)
}
