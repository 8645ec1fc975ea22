package drill

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

// Counts is what must not happen to subblocks, blocks, bundles and transactions that
// were agreed on or announced. All are to be 0.
type Counts struct {
	Lost    int `json:"lost"`
	Changed int `json:"changed"`
	Doubled int `json:"doubled"`
	// Findings says what was counted, the first of them.
	Findings []string `json:"findings"`
}

// maxFindings bounds the report, not the counts.
const maxFindings = 50

func (c *Counts) find(count *int, format string, args ...any) {
	*count++
	if len(c.Findings) < maxFindings {
		c.Findings = append(c.Findings, fmt.Sprintf(format, args...))
	}
}

func (c *Counts) lost(format string, args ...any)    { c.find(&c.Lost, "lost: "+format, args...) }
func (c *Counts) changed(format string, args ...any) { c.find(&c.Changed, "changed: "+format, args...) }
func (c *Counts) doubled(format string, args ...any) { c.find(&c.Doubled, "doubled: "+format, args...) }

// any says whether something was found.
func (c *Counts) any() bool { return c.Lost+c.Changed+c.Doubled > 0 }

// evidence is all that is held against each other in the end. Lists by operator have
// the operators' order.
type evidence struct {
	announced map[uint64][][]conductor.Head // by chain, by operator
	chains    map[uint64][][]block          // by chain, by operator: from block 1 on
	ledgers   [][]slot                      // by operator
	bundles   []*sent
	statuses  map[placed]uint64 // of the receipts of what bundles have in the chains
	remains   map[placed]bool   // bundles that must fail and left something on a chain, by hash
}

// judge counts.
func (e *evidence) judge() Counts {
	c := Counts{Findings: []string{}}
	for _, chain := range slices.Sorted(maps.Keys(e.chains)) {
		e.blocks(&c, chain)
	}
	e.slots(&c)
	e.bundlesWhole(&c)
	return c
}

// blocks: what any operator announced is in every operator's chain, and no transaction is
// in a chain twice.
func (e *evidence) blocks(c *Counts, chain uint64) {
	type announcement struct {
		number uint64
		hash   common.Hash
	}
	told := map[announcement]bool{}
	for who, list := range e.announced[chain] {
		for _, b := range list {
			a := announcement{b.Number, b.Hash}
			if b.Number == 0 || told[a] {
				continue
			}
			told[a] = true
			for i, blocks := range e.chains[chain] {
				if b.Number > uint64(len(blocks)) {
					c.lost("block %d of chain %d, which operator %d announced, is not at operator %d", b.Number, chain, who, i)
				} else if got := blocks[b.Number-1].Hash; got != b.Hash {
					c.changed("block %d of chain %d was announced by operator %d as %s and is %s at operator %d", b.Number, chain, who, b.Hash, got, i)
				}
			}
		}
	}
	first := e.chains[chain][0]
	for i, blocks := range e.chains[chain] {
		for n := range blocks {
			if n > 0 && blocks[n].Parent != blocks[n-1].Hash {
				c.lost("block %d of chain %d does not follow the one before it, at operator %d", n+1, chain, i)
			}
			if n < len(first) && blocks[n].Hash != first[n].Hash {
				c.changed("block %d of chain %d is %s at operator 0 and %s at operator %d", n+1, chain, first[n].Hash, blocks[n].Hash, i)
			}
		}
		in := map[common.Hash]int{}
		for n, b := range blocks {
			for _, tx := range b.Txs {
				if before, ok := in[tx]; ok {
					c.doubled("transaction %s of chain %d is in blocks %d and %d, at operator %d", tx, chain, before, n+1, i)
				}
				in[tx] = n + 1
			}
		}
	}
}

// slots: the ledgers hold the same subblocks and blocks at the same places, and the
// blocks are those of the chains.
func (e *evidence) slots(c *Counts) {
	// Ledgers may begin and end at different slots: the longest is what others are held against.
	whole := 0
	for i, l := range e.ledgers {
		if len(l) > len(e.ledgers[whole]) {
			whole = i
		}
	}
	for i, l := range e.ledgers {
		if len(l) == 0 {
			c.lost("the ledger of operator %d is empty", i)
			continue
		}
		subs, bundles := map[common.Hash]uint64{}, map[common.Hash]uint64{}
		in := map[placed]bool{}
		for k, s := range l {
			if k > 0 && s.Parent != l[k-1].Subblocks[len(l[k-1].Subblocks)-1] {
				c.lost("slot %d does not follow slot %d in the ledger of operator %d", s.Slot, l[k-1].Slot, i)
			}
			for _, sub := range s.Subblocks {
				if before, ok := subs[sub]; ok {
					c.doubled("subblock %s is in slots %d and %d of the ledger of operator %d", sub, before, s.Slot, i)
				}
				subs[sub] = s.Slot
			}
			for _, b := range s.Bundles {
				if before, ok := bundles[b]; ok {
					c.doubled("bundle %s was executed in slots %d and %d, by the ledger of operator %d", b, before, s.Slot, i)
				}
				bundles[b] = s.Slot
			}
			for _, chain := range slices.Sorted(maps.Keys(s.Blocks)) {
				b := s.Blocks[chain]
				if b.Hash == (common.Hash{}) {
					continue
				}
				in[placed{chain, b.Hash}] = true
				for o, blocks := range e.chains[chain] {
					if n := b.Number; n > 0 && n <= uint64(len(blocks)) && blocks[n-1].Hash != b.Hash {
						c.changed("block %d of chain %d is %s in the ledger of operator %d and %s at operator %d", n, chain, b.Hash, i, blocks[n-1].Hash, o)
					}
				}
			}
		}
		e.sameSlots(c, whole, i)
		// Up to where the ledgers reach, they hold what was announced.
		begins := l[0].Slot
		for _, chain := range slices.Sorted(maps.Keys(e.announced)) {
			told := map[common.Hash]bool{}
			for _, list := range e.announced[chain] {
				for _, b := range list {
					if b.Number == 0 || b.Time < begins || told[b.Hash] || in[placed{chain, b.Hash}] {
						continue
					}
					told[b.Hash] = true
					if open(l, chain, b.Number) {
						continue // agreed, but this operator had not made the block
					}
					c.lost("block %d of chain %d, which was announced, is not in the ledger of operator %d", b.Number, chain, i)
				}
			}
		}
	}
}

// open says whether a ledger has the block but not its hash.
func open(l []slot, chain, number uint64) bool {
	return slices.ContainsFunc(l, func(s slot) bool {
		b, ok := s.Blocks[chain]
		return ok && b.Number == number && b.Hash == (common.Hash{})
	})
}

// sameSlots holds one ledger against another, where both have records.
func (e *evidence) sameSlots(c *Counts, whole, i int) {
	ref, l := e.ledgers[whole], e.ledgers[i]
	at := slices.IndexFunc(ref, func(s slot) bool { return s.Parent == l[0].Parent })
	if at < 0 {
		c.lost("the ledger of operator %d begins with slot %d, which is not in that of operator %d", i, l[0].Slot, whole)
		return
	}
	for k := 0; k < len(l) && at+k < len(ref); k++ {
		a, b := ref[at+k], l[k]
		if a.Slot != b.Slot || !slices.Equal(a.Subblocks, b.Subblocks) {
			c.changed("record %d is slot %d with subblocks %v in the ledger of operator %d, and slot %d with subblocks %v in that of operator %d",
				k, a.Slot, a.Subblocks, whole, b.Slot, b.Subblocks, i)
		}
	}
}

// bundlesWhole: a bundle is in the chains whole, at one timestamp, or not at all; and it
// is there if an operator said it was executed, and not if one said it was not.
func (e *evidence) bundlesWhole(c *Counts) {
	type place struct{ block, slot uint64 }
	in := map[placed]place{}
	for chain, byOperator := range e.chains {
		for _, b := range byOperator[0] {
			for _, tx := range b.Txs {
				in[placed{chain, tx}] = place{uint64(b.Number), uint64(b.Time)}
			}
		}
	}
	for _, b := range e.bundles {
		txs := b.all()
		there, slots := 0, map[uint64]bool{}
		for _, tx := range txs {
			if p, ok := in[tx]; ok {
				there++
				slots[p.slot] = true
			}
			if status, ok := e.statuses[tx]; ok && status != 1 {
				c.changed("transaction %s of bundle %s is in chain %d and has failed", tx.hash, b.hash, tx.chain)
			}
		}
		switch {
		case there != 0 && there != len(txs):
			c.changed("of bundle %s, %d of %d transactions are in the chains", b.hash, there, len(txs))
		case len(slots) > 1:
			c.changed("bundle %s is in %d slots", b.hash, len(slots))
		case there != 0 && !b.good:
			c.changed("bundle %s, which must fail, is in the chains", b.hash)
		}
		for _, state := range slices.Sorted(maps.Keys(b.states)) {
			switch state {
			case bundlepool.Executed, bundlepool.Safe:
				if there == 0 {
					c.lost("bundle %s was reported as %s and is not in the chains", b.hash, state)
				}
			case bundlepool.Failed, bundlepool.Expired:
				if there != 0 {
					c.changed("bundle %s was reported as %s (%s) and is in the chains", b.hash, state, b.states[state])
				}
			case bundlepool.Undone:
				c.lost("bundle %s was reported as %s", b.hash, state)
			}
		}
		for _, chain := range slices.Sorted(maps.Keys(e.chains)) {
			if e.remains[placed{chain, b.hash}] {
				c.changed("bundle %s, which must fail, left something at %s or %s on chain %d", b.hash, b.from, b.fresh, chain)
			}
		}
	}
}

// all are the bundle's transactions as far as they are known: relays are, once an operator
// has said that it executed them.
func (b *sent) all() []placed {
	out := slices.Clone(b.txs)
	for _, it := range b.items {
		if !slices.Contains(out, it) {
			out = append(out, it)
		}
	}
	return out
}
