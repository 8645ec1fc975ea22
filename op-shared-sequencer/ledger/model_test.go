package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"syscall"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// model is the log as a plain list of what was done to it.
type model struct {
	records []*modelRecord
	heads   map[sequence.ChainID]modelHead
	below   map[sequence.ChainID]uint64
	final   map[sequence.ChainID]eth.BlockID
	last    common.Hash
	slot    sequence.Slot
}

type modelRecord struct {
	*Record
	pruned map[sequence.ChainID]bool
	made   map[sequence.ChainID]*eth.ExecutionPayloadEnvelope
}

func (r *modelRecord) block(chain sequence.ChainID) *eth.ExecutionPayloadEnvelope {
	if env := r.Payloads[chain]; env != nil {
		return env
	}
	return r.made[chain]
}

type modelHead struct {
	id   eth.BlockID
	time uint64
}

func newModel() *model {
	return &model{heads: map[sequence.ChainID]modelHead{}, below: map[sequence.ChainID]uint64{}, final: map[sequence.ChainID]eth.BlockID{}}
}

func (m *model) clone() *model {
	c := newModel()
	for _, r := range m.records {
		cr := &modelRecord{r.Record, map[sequence.ChainID]bool{}, maps.Clone(r.made)}
		for chain := range r.pruned {
			cr.pruned[chain] = true
		}
		c.records = append(c.records, cr)
	}
	for chain, h := range m.heads {
		c.heads[chain] = h
	}
	for chain, b := range m.below {
		c.below[chain] = b
	}
	for chain, f := range m.final {
		c.final[chain] = f
	}
	c.last, c.slot = m.last, m.slot
	return c
}

func (m *model) append(r *Record) {
	m.records = append(m.records, &modelRecord{r, map[sequence.ChainID]bool{}, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}})
	for chain, env := range r.Payloads {
		m.heads[chain] = modelHead{env.ExecutionPayload.ID(), uint64(r.Slot())}
	}
	m.slot, m.last = r.Slot(), r.Subblocks[len(r.Subblocks)-1].Hash()
}

func (m *model) advance(chain sequence.ChainID, env *eth.ExecutionPayloadEnvelope) {
	p := env.ExecutionPayload
	m.records[len(m.records)-1].made[chain] = env
	m.heads[chain] = modelHead{p.ID(), uint64(p.Timestamp)}
	m.below[chain] = min(m.below[chain], uint64(p.BlockNumber)+1)
}

func (m *model) rewind(chain sequence.ChainID, to eth.BlockID) {
	if m.heads[chain].id == to {
		return
	}
	h := modelHead{id: to}
	for _, r := range m.records {
		if env := r.block(chain); env != nil && env.ExecutionPayload.BlockHash == to.Hash {
			h.time = uint64(r.Slot())
		}
	}
	m.heads[chain] = h
	m.below[chain] = min(m.below[chain], to.Number+1)
}

func (m *model) prune(chain sequence.ChainID, below uint64) {
	if _, ok := m.heads[chain]; !ok || below <= m.below[chain] {
		return
	}
	m.below[chain] = below
	for _, r := range m.records {
		for _, o := range r.Subblocks[0].Openings {
			if o.Chain == chain && o.ParentNumber+1 < below {
				r.pruned[chain] = true
			}
		}
	}
	for len(m.records) > 0 && len(m.records[0].pruned) == len(m.records[0].Subblocks[0].Openings) {
		m.records = m.records[1:]
	}
}

// diff says how the log differs from the model, "" if it does not.
func (m *model) diff(l *Ledger) string {
	slot, last, ok := l.Last()
	if slot != m.slot || last != m.last || ok != (m.last != common.Hash{}) {
		return fmt.Sprintf("last is %d %s, want %d %s", slot, last, m.slot, m.last)
	}
	if len(l.Chains()) != len(m.heads) {
		return fmt.Sprintf("chains are %v, want %v", l.Chains(), m.heads)
	}
	for chain, want := range m.heads {
		if id, time, ok := l.Head(chain); !ok || id != want.id || time != want.time {
			return fmt.Sprintf("chain %s: head is %s at %d, want %s at %d", chain, id, time, want.id, want.time)
		}
		if below := l.state.chains[chain].below; below != m.below[chain] { // a prune may change nothing else
			return fmt.Sprintf("chain %s: pruned below %d, want %d", chain, below, m.below[chain])
		}
		if final := l.state.chains[chain].final; final != m.final[chain] {
			return fmt.Sprintf("chain %s: final is %s, want %s", chain, final, m.final[chain])
		}
	}
	i := 0
	for got, err := range l.Slots(0) {
		if err != nil {
			return err.Error()
		}
		if i == len(m.records) {
			return fmt.Sprintf("record of slot %d too many", got.Slot())
		}
		want := m.records[i]
		if got.Slot() != want.Slot() || got.Subblocks[len(got.Subblocks)-1].Hash() != want.Subblocks[len(want.Subblocks)-1].Hash() ||
			string(got.Agreement) != string(want.Agreement) || len(got.Payloads) != len(want.Payloads) {
			return fmt.Sprintf("record %d is of slot %d, want %d", i, got.Slot(), want.Slot())
		}
		for chain, env := range want.Payloads {
			if err := env.ExecutionPayload.CheckEqual(got.Payloads[chain].ExecutionPayload); err != nil {
				return fmt.Sprintf("chain %s, slot %d: %v", chain, want.Slot(), err)
			}
			one, err := l.Payload(chain, env.ExecutionPayload.BlockHash)
			if err != nil || one.ExecutionPayload.BlockHash != env.ExecutionPayload.BlockHash {
				return fmt.Sprintf("chain %s, slot %d: %v", chain, want.Slot(), err)
			}
		}
		for chain, env := range want.made {
			if one, err := l.Payload(chain, env.ExecutionPayload.BlockHash); err != nil || one.ExecutionPayload.CheckEqual(env.ExecutionPayload) != nil {
				return fmt.Sprintf("chain %s, slot %d, made later: %v", chain, want.Slot(), err)
			}
		}
		i++
	}
	if i < len(m.records) {
		return fmt.Sprintf("%d records, want %d", i, len(m.records))
	}
	return ""
}

// TestModel does random things to a log, lets it crash inside any file operation, fills
// its disk and breaks its syncs. After each the log must be as before the interrupted
// call or as after it, nothing else; and after a call that returned, as after it.
func TestModel(t *testing.T) {
	t.Parallel()
	lockDir := t.TempDir()
	crashes, torn := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		rng := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		disk := newCrashDir(rng)
		segmentSize := rapid.Int64Range(1, 20_000).Draw(t, "segment size")
		start := func() (*Ledger, error) {
			return Open(lockDir, quiet, WithSegmentSize(segmentSize), WithRand(rng), withDirectory(func(directory) directory { return disk }))
		}
		l, err := start()
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		m, after := newModel(), newModel()
		unknown := uint64(0)

		reopen := func(crash bool) {
			require.NoError(t, l.Close())
			if crash {
				crashes++
				before := 0
				for _, d := range disk.durable {
					before += len(d.live)
				}
				disk = disk.crashed()
				// The new process may die as well, while it mends what it finds.
				for range 3 {
					if rng.Intn(3) > 0 {
						break
					}
					disk.crashAt = 1 + rng.Intn(4)
					if died, err := start(); err == nil {
						require.NoError(t, died.Close())
					} else {
						require.ErrorIs(t, err, errDead)
					}
					disk = disk.crashed()
				}
				for _, d := range disk.durable {
					before -= len(d.live)
				}
				if before != 0 {
					torn++
				}
			}
			l, err = start()
			require.NoError(t, err)
		}
		// do runs one call that takes the model from m to after.
		do := func(call func() error) {
			fault := rapid.SampledFrom([]string{"", "", "", "crash", "full", "sync", "full and stuck"}).Draw(t, "fault")
			at := disk.ops + 1 + rapid.IntRange(0, 5).Draw(t, "at")
			switch fault {
			case "crash":
				disk.crashAt = at
			case "full":
				disk.fullAt = at
			case "sync":
				disk.failSync = true
			case "full and stuck":
				disk.fullAt, disk.failTrunc = at, true
			}
			err := call()
			disk.crashAt, disk.fullAt, disk.failSync, disk.failTrunc = 0, 0, false, false
			switch {
			case disk.dead:
				// A call that returned before the crash is durable; here it did not, or the crash came right behind it.
				reopen(true)
			case errors.Is(err, ErrBroken):
				require.ErrorIs(t, l.Rewind(ctx, 1, eth.BlockID{Number: 1}), ErrBroken)
				reopen(rng.Intn(2) == 0)
			case err != nil:
				require.True(t, errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO), "%v", err)
			}
			if err == nil {
				m = after
			} else if m.diff(l) != "" {
				require.Empty(t, after.diff(l), "the log is neither as before (%s) nor as after %v", m.diff(l), err)
				m = after
			}
			require.Empty(t, m.diff(l))
			after = m.clone()
		}

		chains := []sequence.ChainID{1, 2, 3}
		block := func(chain sequence.ChainID) (eth.BlockID, bool) { // any logged one
			var ids []eth.BlockID
			for _, r := range m.records {
				if env := r.block(chain); env != nil {
					ids = append(ids, env.ExecutionPayload.ID())
				}
			}
			if len(ids) == 0 {
				return eth.BlockID{}, false
			}
			return rapid.SampledFrom(ids).Draw(t, "block"), true
		}
		derived := func() eth.BlockID {
			unknown++
			number := uint64(10)
			for _, h := range m.heads {
				number = max(number, h.id.Number)
			}
			number += 2
			number -= rapid.Uint64Range(0, min(number, 6)).Draw(t, "derived")
			return eth.BlockID{Hash: common.Hash{0xde, byte(unknown >> 8), byte(unknown)}, Number: number}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				slot := sequence.Slot(1000)
				parents := map[sequence.ChainID]eth.BlockID{}
				for _, chain := range chains {
					if rapid.IntRange(0, 9).Draw(t, "leave out") == 0 {
						continue
					}
					h, ok := m.heads[chain]
					if !ok || rapid.IntRange(0, 9).Draw(t, "gap") == 0 {
						h.id = derived()
					}
					parents[chain] = h.id
					slot = max(slot, sequence.Slot(h.time)+1)
				}
				payloads := map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}
				for chain, parent := range parents {
					tx := make([]byte, rng.Intn(200))
					rng.Read(tx)
					payloads[chain] = makePayload(t, parent, slot, "isthmus", tx)
				}
				if len(payloads) == 0 {
					return
				}
				r := makeRecord(slot, m.last, 1+rng.Intn(3), payloads)
				after.append(r)
				do(func() error { return l.Append(ctx, r) })
			},
			"follow": func(t *rapid.T) { // a slot is agreed on, and the operator makes its block afterwards
				chain := rapid.SampledFrom(chains).Draw(t, "chain")
				h, ok := m.heads[chain]
				if !ok {
					return
				}
				slot := max(m.slot, sequence.Slot(h.time)) + 1
				env := makePayload(t, h.id, slot, "isthmus", []byte("late"))
				r := makeRecord(slot, m.last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chain: env})
				r.Payloads = map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}
				after.append(r)
				do(func() error { return l.Append(ctx, r) })
				if m.last != r.Subblocks[0].Hash() {
					return // the disk did not take it
				}
				after.advance(chain, env)
				do(func() error { return l.Advance(ctx, chain, env) })
			},
			"rewind": func(t *rapid.T) {
				chain := rapid.SampledFrom(chains).Draw(t, "chain")
				to, ok := block(chain)
				if !ok || rapid.IntRange(0, 2).Draw(t, "to a derived block") == 0 {
					to = derived()
				}
				after.rewind(chain, to)
				do(func() error { return l.Rewind(ctx, chain, to) })
			},
			"prune": func(t *rapid.T) {
				for _, chain := range chains {
					if h, ok := m.heads[chain]; ok {
						below := h.id.Number - min(h.id.Number, rapid.Uint64Range(0, 12).Draw(t, "keep"))
						after.prune(chain, below)
						do(func() error { return l.Prune(ctx, chain, below) })
					}
				}
			},
			"finalize": func(t *rapid.T) {
				chain := rapid.SampledFrom(chains).Draw(t, "chain")
				if h, ok := m.heads[chain]; ok {
					if h.id.Number > after.final[chain].Number {
						after.final[chain] = h.id
					}
					do(func() error { return l.Finalize(ctx, chain, h.id) })
				}
			},
			"fork": func(t *rapid.T) { // a block the head descends from has its successor already
				chain := rapid.SampledFrom(chains).Draw(t, "chain")
				h := m.heads[chain]
				parent, ok := block(chain)
				if !ok || parent == h.id || !slices.ContainsFunc(m.records, func(r *modelRecord) bool {
					env := r.block(chain)
					return env != nil && env.ExecutionPayload.BlockHash == h.id.Hash && env.ExecutionPayload.ParentHash == parent.Hash
				}) {
					return
				}
				slot := sequence.Slot(h.time) + 1
				env := makePayload(t, parent, slot, "isthmus")
				require.ErrorIs(t, l.Append(ctx, makeRecord(slot, m.last, 1, map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{chain: env})), ErrNotNext)
			},
			"reopen": func(*rapid.T) { reopen(false) },
			"kill": func(*rapid.T) { // between two calls nothing may be lost
				reopen(true)
			},
			"": func(t *rapid.T) {
				if d := m.diff(l); d != "" {
					t.Fatal(d)
				}
			},
		})
	})
	require.Positive(t, crashes)
	require.Positive(t, torn)
}
