package bundlepool

import (
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Ran is what a transaction came to.
type Ran struct {
	GasUsed uint64
	Status  uint64 // as in a receipt
}

// Agreed takes from the subblocks of a slot, in order and from the first on, which
// bundles were executed in it, and returns those that were not recorded as executed yet.
// A bundle that this operator was never sent is learned from its steps, so that every
// operator can say what became of it, and run it again when its blocks are replaced.
//
// It is for what other operators led, and for a restart: what the operator last saved is
// older than what it had agreed on, and without this an executed bundle would be run
// again and reported as failed. After Load, call it for the agreed slots whose blocks
// stand, from Pool.Slot on, in order. ran has what transactions came to, by hash; those
// that are not in it have used 0 gas, and succeeded, in the status.
func (p *Pool) Agreed(subblocks []*sequence.Subblock, ran map[common.Hash]Ran) []common.Hash {
	var slot sequence.Slot
	numbers := map[sequence.ChainID]uint64{}
	made := map[common.Hash][]chainTx{}
	steps := map[common.Hash][]sequence.Step{}
	var order []common.Hash
	for _, sub := range subblocks {
		slot = sub.Slot
		for _, o := range sub.Openings {
			numbers[o.Chain] = o.ParentNumber + 1
		}
		for _, st := range sub.Steps {
			if st.Bundle == (common.Hash{}) {
				continue
			}
			if made[st.Bundle] == nil {
				order = append(order, st.Bundle)
			}
			steps[st.Bundle] = append(steps[st.Bundle], st)
			for _, raw := range st.Transactions {
				made[st.Bundle] = append(made[st.Bundle], chainTx{st.Chain, crypto.Keccak256Hash(raw)})
			}
		}
	}
	var news []common.Hash
	for _, hash := range order {
		p.mu.Lock()
		r := p.get(hash)
		if r == nil {
			r = p.learn(hash, steps[hash])
		}
		// What was saved as executed may have been taken back since, and agreed again.
		if r == nil || ((r.state == Executed || r.state == Safe) && r.slot == slot) {
			p.mu.Unlock()
			continue
		}
		items := agreedItems(r, made[hash], numbers)
		for i := range items {
			if tx, ok := ran[items[i].TxHash]; ok {
				items[i].GasUsed, items[i].Status = tx.GasUsed, tx.Status
			}
		}
		p.mu.Unlock()
		if err := p.Done(hash, Outcome{Kind: Execute, Result: BundleResult{Slot: slot, Items: items}}); err != nil {
			p.log.Error("Agreed bundle is not what its hash says", "bundle", hash, "slot", slot, "err", err)
			p.mu.Lock()
			if r.state == "" { // learned just now
				delete(p.live, hash)
			}
			p.mu.Unlock()
			continue
		}
		news = append(news, hash)
	}
	return news
}

// learn enters a bundle that is only known from the steps that executed it. nil if they
// are not all of it, or no bundle that could have been sent.
func (p *Pool) learn(hash common.Hash, steps []sequence.Step) *record {
	b := sequence.BundleOf(steps)
	if b.Hash() != hash {
		return nil
	}
	e, err := p.decode(b, len(b.Encode()), false)
	if err != nil {
		p.log.Warn("Agreed bundle is not one that would be taken in", "bundle", hash, "err", err)
		return nil
	}
	p.arrival++
	e.Arrival = p.arrival
	r := &record{entry: e} // Done gives it its state
	p.live[hash] = r
	return r
}

// agreedItems finds the item of each transaction: its own, or the relay step that made
// it. Items that did not run in this slot stand from an earlier one: see Replaced.
func agreedItems(r *record, txs []chainTx, numbers map[sequence.ChainID]uint64) []ItemResult {
	var out []ItemResult
	at, ran := 0, map[int]bool{}
	for _, tx := range txs {
		item := -1
		for i := at; i < len(r.entry.Transactions) && item < 0; i++ {
			if own := r.entry.Transactions[i]; own != nil && own.Hash() == tx.Tx {
				item = i
			}
		}
		for i := at; i < len(r.entry.Transactions) && item < 0; i++ {
			if it := &r.entry.Bundle.Items[i]; it.Relay() && it.Chain == tx.Chain {
				item = i
			}
		}
		if item >= 0 {
			at = item
		}
		ran[item] = true
		out = append(out, ItemResult{Item: item, Chain: tx.Chain, TxHash: tx.Tx, BlockNumber: numbers[tx.Chain], Status: 1})
	}
	for _, it := range r.items {
		if !ran[it.Item] {
			out = append(out, it)
		}
	}
	slices.SortStableFunc(out, func(a, b ItemResult) int { return a.Item - b.Item })
	return out
}
