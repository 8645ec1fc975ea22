package bundlepool

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// The model says what the pool must answer, from the history of each bundle alone and
// with none of the pool's bookkeeping.

type modelBundle struct {
	entry    *Entry
	state    State
	place    int // in the order of arrival
	attempts uint64
	putOff   int // since it was sent or executed, as are
	timeouts int
	undone   uint64
	gone     map[sequence.ChainID]bool // chains whose block of the last execution was replaced; nil if none was
	undoneAt sequence.Slot
	runs     []Outcome // executions, the last one first
	ended    sequence.Slot
	mayGo    bool // old enough to have been forgotten
}

type model struct {
	pool    *Pool
	cfg     Config
	slot    sequence.Slot
	places  int
	known   map[common.Hash]*modelBundle
	settled map[sequence.ChainID]int64 // -1: nothing
	held    map[common.Hash]sequence.Slot
	salt    int
}

func (m *model) pending() (out []*modelBundle) {
	for _, b := range m.known {
		if b.state == Pending {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *modelBundle) int { return a.place - b.place })
	return out
}

// last is the last slot a pending bundle may be executed in.
func (m *model) last(b *modelBundle) sequence.Slot {
	if b.gone != nil {
		for _, c := range b.entry.Bundle.Chains() {
			if !b.gone[c] {
				return max(b.entry.Bundle.Expiry, b.undoneAt+m.cfg.UndoneRetention)
			}
		}
	}
	return b.entry.Bundle.Expiry
}

// end is how a bundle ends that does not end well.
func (m *model) end(b *modelBundle, s State) {
	if b.undone > 0 {
		s = Undone
	}
	b.state, b.ended, b.mayGo = s, m.slot, false
}

func (m *model) settle() {
	for _, b := range m.known {
		if b.state != Executed {
			continue
		}
		all := true
		for _, it := range b.runs[0].Result.Items {
			all = all && m.settled[it.Chain] >= int64(it.BlockNumber)
		}
		if all {
			b.state, b.ended, b.mayGo = Safe, m.slot, false
		}
	}
}

// senders of a test bundle, by name of the account.
func (m *model) room(b *sequence.Bundle, e *Entry) error {
	pending := m.pending()
	if len(pending) >= m.cfg.MaxBundles {
		return ErrPoolFull
	}
	for _, s := range e.Senders {
		n := 0
		for _, o := range pending {
			if slices.Contains(o.entry.Senders, s) {
				n++
			}
		}
		if s != (common.Address{}) && n >= m.cfg.MaxPerSender {
			return ErrSenderLimit
		}
	}
	return nil
}

func TestAgainstModel(t *testing.T) {
	t.Parallel()
	// Bundles that share transactions and senders, over one to three chains.
	items := [][]sequence.BundleItem{
		{transfer("alice", chainA, 0)},
		{transfer("alice", chainA, 0), relayStep(chainB)},
		{transfer("alice", chainB, 0), transfer("bob", chainA, 0)},
		{transfer("bob", chainA, 0), transfer("carol", chainC, 0), relayStep(chainB)},
		{transfer("carol", chainC, 0), transfer("carol", chainC, 1), relayStep(chainA)},
		{transfer("dave", chainB, 5), relayStep(chainC), relayStep(chainA)},
	}
	var all []*sequence.Bundle
	for i, it := range items {
		for _, life := range []sequence.Slot{3, 9, 30} {
			all = append(all, bundle(now+life+sequence.Slot(i), it...))
		}
	}
	chains := []sequence.ChainID{chainA, chainB, chainC}

	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Chains: chains, MaxBundles: 6, MaxPerSender: 4, MaxAhead: 25, Hold: 2, MaxReserved: 3, Retention: 8, UndoneRetention: 12, MaxFinished: 1000}
		m := &model{
			pool: newPool(cfg), cfg: cfg, slot: now, known: map[common.Hash]*modelBundle{},
			settled: map[sequence.ChainID]int64{chainA: -1, chainB: -1, chainC: -1}, held: map[common.Hash]sequence.Slot{},
		}
		pick := func() *modelBundle {
			keys := slices.SortedFunc(maps.Keys(m.known), func(a, b common.Hash) int { return a.Cmp(b) })
			if len(keys) == 0 {
				t.Skip("none")
			}
			return m.known[rapid.SampledFrom(keys).Draw(t, "bundle")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				b := rapid.SampledFrom(all).Draw(t, "new")
				have := m.known[b.Hash()]
				var want error
				switch {
				case b.Expiry < m.slot:
					want = ErrExpired
				case b.Expiry > m.slot+cfg.MaxAhead:
					want = ErrTooFarAhead
				case have != nil && (have.state == Pending || have.state == Executed || have.state == Safe):
				default:
					e, err := m.pool.Check(b)
					require.NoError(t, err)
					if want = m.room(b, e); want == nil {
						if have == nil {
							have = new(modelBundle)
							m.known[e.Hash] = have
						}
						have.entry, have.state, have.attempts, have.putOff, have.timeouts = e, Pending, 0, 0, 0
						m.places++
						have.place = m.places
					}
				}
				h, err := m.pool.Add(b)
				if want != nil {
					require.ErrorIs(t, err, want)
				} else {
					require.NoError(t, err)
					require.Equal(t, b.Hash(), h)
				}
			},
			"advance": func(t *rapid.T) {
				// Mostly on, at times back, as after a reorg.
				m.slot = sequence.Slot(int64(m.slot) + rapid.SampledFrom([]int64{1, 1, 1, 2, 5, -1, -3}).Draw(t, "slots"))
				for h, b := range m.known {
					switch {
					case b.state == Pending && m.last(b) < m.slot:
						m.end(b, Expired)
					case b.state == Undone && b.ended+cfg.UndoneRetention < m.slot:
						delete(m.known, h)
					case b.state != Pending && b.state != Executed && b.state != Undone && b.ended+cfg.Retention < m.slot:
						b.mayGo = true
					}
				}
				for h, from := range m.held {
					if from+cfg.MaxAhead < m.slot {
						delete(m.held, h)
					}
				}
				m.pool.Advance(m.slot)
			},
			"execute": func(t *rapid.T) {
				b := pick()
				m.salt++
				o := executed(b.entry, m.slot, 0, fmt.Sprint(m.salt))
				blocks := rapid.SliceOfN(rapid.Uint64Range(0, 12), len(chains), len(chains)).Draw(t, "blocks")
				for i := range o.Result.Items {
					o.Result.Items[i].BlockNumber = blocks[slices.Index(chains, o.Result.Items[i].Chain)]
				}
				require.NoError(t, m.pool.Done(b.entry.Hash, o))
				b.attempts++
				same := len(b.runs) > 0 && (b.state == Executed || b.state == Safe) && b.runs[0].Result.Slot == o.Result.Slot &&
					sameTransactions(b.runs[0].Result.Items, o.Result.Items)
				if same { // no relay step, same slot and block: said twice
					b.attempts--
					return
				}
				b.runs = append([]Outcome{o}, b.runs...)
				b.state, b.putOff, b.timeouts, b.gone = Executed, 0, 0, nil
				m.settle()
			},
			"fail or put off": func(t *rapid.T) {
				b := pick()
				kind := rapid.SampledFrom([]OutcomeKind{Fail, Retry}).Draw(t, "kind")
				o := failed(kind, "reason")
				o.Result.Failed.Timeout = rapid.Bool().Draw(t, "timeout")
				err := m.pool.Done(b.entry.Hash, o)
				if b.state != Pending {
					require.ErrorIs(t, err, ErrNotPending)
					return
				}
				require.NoError(t, err)
				b.attempts++
				b.putOff++
				if o.Result.Failed.Timeout {
					b.timeouts++
				}
				if kind == Fail || b.timeouts == 3 {
					m.end(b, Failed)
				}
			},
			"settle": func(t *rapid.T) {
				chain, n := rapid.SampledFrom(chains).Draw(t, "chain"), rapid.IntRange(0, 12).Draw(t, "block")
				m.settled[chain] = max(m.settled[chain], int64(n))
				m.settle()
				m.pool.Settled(chain, uint64(n))
			},
			"replace": func(t *rapid.T) {
				chain, n := rapid.SampledFrom(chains).Draw(t, "chain"), rapid.IntRange(0, 12).Draw(t, "block")
				m.settled[chain] = min(m.settled[chain], int64(n)-1)
				again, undone := []common.Hash(nil), []common.Hash(nil)
				var hit []*modelBundle
				for _, b := range m.known {
					if len(b.runs) == 0 || b.gone[chain] {
						continue
					}
					for _, it := range b.runs[0].Result.Items {
						if it.Chain == chain && it.BlockNumber >= uint64(n) {
							hit = append(hit, b)
							break
						}
					}
				}
				slices.SortFunc(hit, func(a, b *modelBundle) int { return a.place - b.place })
				for _, b := range hit {
					before := b.state
					if before == Executed || before == Safe {
						b.state, b.gone, b.undoneAt = Pending, map[sequence.ChainID]bool{}, m.slot
						b.undone++
					}
					b.gone[chain] = true
					if b.state == Pending && m.last(b) < m.slot {
						m.end(b, Undone)
						undone = append(undone, b.entry.Hash)
					} else if b.state != before {
						again = append(again, b.entry.Hash)
					}
				}
				gotAgain, gotUndone := m.pool.Replaced(chain, uint64(n))
				require.Equal(t, again, gotAgain)
				require.Equal(t, undone, gotUndone)
			},
			"reserve": func(t *rapid.T) {
				// A chain that catches up builds for a slot before the pool's.
				at := sequence.Slot(int64(m.slot) + rapid.Int64Range(-5, 1).Draw(t, "at"))
				for _, chain := range chains {
					want := map[common.Hash]bool{}
					own := func(b *modelBundle) (out []common.Hash) {
						for i, tx := range b.entry.Transactions {
							if tx != nil && b.entry.Bundle.Items[i].Chain == chain {
								out = append(out, tx.Hash())
							}
						}
						return out
					}
					for _, b := range m.pending() { // by arrival
						if b.undone > 0 {
							continue
						}
						for _, tx := range own(b) {
							if want[tx] || len(want) == cfg.MaxReserved {
								continue
							}
							if _, ok := m.held[tx]; !ok {
								m.held[tx] = m.slot
							}
							if m.slot == m.held[tx] || m.slot < m.held[tx]+cfg.Hold {
								want[tx] = true
							}
						}
					}
					for _, b := range m.known {
						relayed := len(b.runs) > 1 && slices.Contains(b.entry.Transactions, nil) // in an execution before the last
						below := b.state == Executed && b.runs[0].Result.Slot < at
						switch {
						case b.state != Executed && b.state != Undone && b.state != Pending, b.state == Pending && b.undone == 0:
							continue
						case below && b.undone == 0 && !relayed:
							continue
						}
						for _, tx := range own(b) {
							want[tx] = true
						}
						for _, run := range b.runs { // all that ever ran: relays of earlier runs too
							for _, it := range run.Result.Items {
								if it.Chain == chain {
									want[it.TxHash] = true
								}
							}
						}
					}
					got := m.pool.Reserved(chain, at)
					require.True(t, slices.IsSortedFunc(got, func(a, b common.Hash) int { return a.Cmp(b) }))
					require.Len(t, got, len(want))
					for _, h := range got {
						require.True(t, want[h])
					}
				}
			},
			"restart": func(t *rapid.T) {
				// What is not stored is gone, and holds begin anew.
				m.salt++
				next := New(cfg, discard())
				require.NoError(t, next.Restore(m.pool.Snapshot()))
				m.pool = next
				clear(m.held)
				for h, b := range m.known {
					if b.state == Failed || b.state == Expired || b.state == Safe {
						delete(m.known, h)
					}
				}
			},
			"": func(t *rapid.T) {
				for h, b := range m.known {
					s, err := m.pool.Status(h)
					if err != nil && b.mayGo {
						delete(m.known, h)
						continue
					}
					require.NoError(t, err)
					require.Equal(t, b.state, s.State)
					require.Equal(t, b.undone, s.Undone)
					require.Equal(t, b.attempts, s.Attempts)
					if len(b.runs) > 0 {
						require.Equal(t, kept(b.runs[0].Result.Items), s.Items)
					}
					require.Equal(t, b.state == Failed || b.state == Expired || b.state == Undone, s.State.Final() && s.Failure != nil)
				}
				pending := m.pending()
				for _, later := range []sequence.Slot{0, 4} {
					want, most := []common.Hash{}, 0
					for putOff := 0; putOff <= most; putOff++ {
						for _, b := range pending {
							most = max(most, b.putOff)
							if b.putOff == putOff && m.last(b) >= m.slot+later {
								want = append(want, b.entry.Hash)
							}
						}
					}
					require.Equal(t, want, hashes(m.pool.Pending(m.slot+later)))
				}
				for _, b := range all {
					if m.known[b.Hash()] == nil {
						_, err := m.pool.Status(b.Hash())
						require.ErrorIs(t, err, ErrUnknownBundle)
					}
				}
				st, size := m.pool.Stats(), 0
				for _, b := range pending {
					size += b.entry.Size
				}
				require.Equal(t, len(pending), st.Pending)
				require.Equal(t, size, st.PendingBytes)
				require.Equal(t, len(m.known), st.Pending+st.Executed+st.Undone+st.Finished)
			},
		})
	})
}
