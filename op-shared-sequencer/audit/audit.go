// Package audit checks afterwards what a ledger says was agreed on: who led and voted, what
// the blocks have of it, and whether the order of each subblock is the one that the stated
// rules give, as far as that can be seen. It reads no clock and no files.
package audit

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Agreement checks how slots were agreed on, in the order a ledger has them.
type Agreement interface {
	Slot(subs []*sequence.Subblock, agreement []byte) ([]cometbft.Height, error)
}

// Config says what is audited, against what.
type Config struct {
	// From and To are the first and the last slot. To 0: up to the ledger's end.
	From, To sequence.Slot
	// Agreement of the records. Those without one are of an operator that is alone.
	Agreement Agreement
	// Rule for fills; nil: their order is not checked.
	Rule Rule
	// Seen is when the auditing operator saw what, may be nil. What came apart by no more than
	// Tolerance may have come in another order elsewhere.
	Seen      arrivals.Seen
	Tolerance time.Duration
	// Payload finds a block that its slot's record lacks; false if it is not there.
	Payload func(chain sequence.ChainID, hash common.Hash) (*eth.ExecutionPayloadEnvelope, bool)
}

// Before is how far before the first slot records should begin: those before it are not
// reported, and tell who may lead and vote in it.
const Before = 64

// Run audits the records of a ledger. The error says why it came to no end.
func Run(ctx context.Context, records iter.Seq2[*ledger.Record, error], cfg Config) (*Report, error) {
	a := &auditor{cfg: cfg, report: newReport(cfg), leaders: map[common.Address]*Leader{}, heads: map[sequence.ChainID]common.Hash{}}
	for r, err := range records {
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := a.slot(r); err != nil {
			return nil, fmt.Errorf("slot %d: %w", r.Slot(), err)
		}
	}
	a.report.finish(a.leaders)
	return a.report, nil
}

type auditor struct {
	cfg     Config
	report  *Report
	leaders map[common.Address]*Leader
	last    common.Hash // of the record before; zero if there was none
	height  uint64      // it ends with; 0 if not known
	heads   map[sequence.ChainID]common.Hash
}

// place is where something was found.
type place struct {
	slot     sequence.Slot
	subblock int
	height   cometbft.Height
}

// slot audits a record.
func (a *auditor) slot(r *ledger.Record) error {
	heights := make([]cometbft.Height, len(r.Subblocks)) // none is known of an operator that is alone
	if len(r.Agreement) > 0 {
		var err error
		if heights, err = a.cfg.Agreement.Slot(r.Subblocks, r.Agreement); err != nil {
			return err
		}
	}
	first, parent := heights[0].Height, r.Subblocks[0].Parent
	end := r.Subblocks[len(r.Subblocks)-1].Hash()
	defer func() { a.last, a.height = end, heights[len(heights)-1].Height }()
	if r.Slot() < a.cfg.From || (a.cfg.To != 0 && r.Slot() > a.cfg.To) {
		for _, o := range r.Subblocks[0].Openings {
			delete(a.heads, o.Chain)
		}
		return nil
	}
	a.report.slot(r.Slot())
	at := func(i int) place { return place{r.Slot(), i, heights[i]} }
	if a.last != (common.Hash{}) && parent != a.last {
		// Subblocks of a slot that was given up stand between, and are in no ledger.
		if first != 0 && first == a.height+1 {
			a.wrong(at(0), 0, KindParent, "it follows subblock %s, the one agreed on before is %s", parent, a.last)
		} else {
			a.report.GivenUp++
		}
	}
	for i, sub := range r.Subblocks {
		h := &heights[i]
		l := a.leader(h)
		l.Subblocks++
		a.report.Subblocks++
		if h.Round > 0 {
			for _, m := range h.Missed {
				a.leader(&cometbft.Height{Leader: m}).Missed++
			}
		}
		for _, err := range h.Wrong {
			a.wrong(at(i), 0, KindAgreement, "%v", err)
		}
		if h.Unproven != "" || len(r.Agreement) == 0 {
			a.report.unproven(r.Slot(), h)
		}
		if _, err := sub.Places(); err != nil {
			a.wrong(at(i), 0, KindPlace, "%v", err)
		}
		a.bundles(at(i), sub)
	}
	for i := range r.Subblocks[0].Openings {
		a.block(r, &r.Subblocks[0].Openings[i], at)
	}
	return nil
}

// leader counts what is said of who led.
func (a *auditor) leader(h *cometbft.Height) *Leader {
	l := a.leaders[h.Leader]
	if l == nil {
		l = &Leader{Leader: h.Leader}
		a.leaders[h.Leader] = l
	}
	if h.Name != "" {
		l.Name = h.Name
	}
	return l
}

func (a *auditor) wrong(at place, chain sequence.ChainID, kind, format string, args ...any) {
	a.leader(&at.height).Violations++
	if a.report.ViolationCount++; a.report.ViolationCount > maxListed {
		return
	}
	a.report.Violations = append(a.report.Violations, Violation{
		Slot: at.slot, Height: at.height.Height, Subblock: at.subblock, Chain: chain, Leader: at.height.Leader, Name: at.height.Name,
		Kind: kind, Text: fmt.Sprintf(format, args...),
	})
}

// bundles compares the order of a subblock's bundles with that of their arrival.
func (a *auditor) bundles(at place, sub *sequence.Subblock) {
	l := a.leader(&at.height)
	places, err := sub.Places()
	if err != nil {
		return
	}
	// Bundles have no senders; each stands for itself.
	var runs [sequence.AfterFills + 1][]Tx
	i := 0
	for run := range sub.Bundles() {
		for sub.Steps[i].Bundle != run[0].Bundle {
			i++
		}
		l.Bundles++
		hash := run[0].Bundle
		runs[places[i]] = append(runs[places[i]], Tx{
			Hash: hash, From: common.Address(hash[:common.AddressLength]), Arrived: a.cfg.Seen.Bundle(hash),
		})
		i += len(run)
	}
	for _, run := range runs {
		l.BundleArrival.add(inverted(run, a.cfg.Tolerance))
	}
}

// ran is a transaction with where it stands.
type ran struct {
	subblock int
	place    sequence.Place
}

// block audits what a slot has for one chain.
func (a *auditor) block(r *ledger.Record, o *sequence.Opening, at func(int) place) {
	chain, lastSub := o.Chain, len(r.Subblocks)-1
	wrong := func(i int, kind, format string, args ...any) { a.wrong(at(i), chain, kind, format, args...) }
	if head, ok := a.heads[chain]; ok && head != o.ParentHash {
		a.report.Rebased++ // it went back, or derivation made blocks
	}
	seal := sealOf(r.Subblocks[lastSub], chain)
	if seal == nil {
		wrong(lastSub, KindBlock, "the slot opens a block and does not seal it")
		return
	}
	env := r.Payloads[chain]
	if env == nil && a.cfg.Payload != nil && !seal.Deferred() {
		env, _ = a.cfg.Payload(chain, seal.BlockHash)
	}
	raw := slices.Clone(o.Deposits)
	var list []Tx
	var where []ran
	signer := types.LatestSignerForChainID(chain.ID().ToBig())
	deposited := map[common.Address]bool{}
	for _, enc := range o.Deposits {
		if from, ok := depositor(signer, enc); ok {
			deposited[from] = true
		}
	}
	var baseFee *big.Int
	if env == nil {
		a.report.Missing++
		delete(a.heads, chain)
	} else {
		p := env.ExecutionPayload
		a.heads[chain] = p.BlockHash
		baseFee = (*uint256.Int)(&p.BaseFeePerGas).ToBig()
		if hash, ok := env.CheckBlockHash(); !ok {
			wrong(lastSub, KindBlock, "block %s has the hash %s", p.ID(), hash)
		}
		if !seal.Deferred() && seal.BlockHash != p.BlockHash {
			wrong(lastSub, KindBlock, "block %s is in the ledger, %s was agreed on", p.ID(), seal.BlockHash)
		}
		if what := opens(o, r.Slot(), env); what != "" {
			wrong(0, KindBlock, "block %s has not the %s that was agreed on", p.ID(), what)
		}
	}
	for i, sub := range r.Subblocks {
		places, err := sub.Places()
		for j := range sub.Steps {
			st := &sub.Steps[j]
			if st.Chain != chain {
				continue
			}
			begin := len(list)
			for _, enc := range st.Transactions {
				raw = append(raw, enc)
				t, err := a.tx(chain, signer, enc, baseFee)
				if err != nil {
					wrong(i, KindTransactions, "transaction %d of step %d: %v", len(list)-begin, j, err)
				}
				list = append(list, t)
				w := ran{subblock: i}
				if places != nil {
					w.place = places[j]
				}
				where = append(where, w)
			}
			if err == nil && places[j] == sequence.Fill {
				a.fill(at(i), chain, deposited, list[:begin], list[begin:])
			}
		}
		deferred := seal.Deferred() && i == lastSub // then it is that of the subblock before
		if res := resultOf(sub, chain); res == nil || (!deferred && res.Transactions != uint64(len(raw))) {
			wrong(i, KindResult, "the result is of %v, %d transactions come from the steps so far", res, len(raw))
		}
	}
	if o.NoTxPool && len(list) > 0 {
		wrong(where[0].subblock, KindTransactions, "the block was opened for none, and has %d", len(list))
	}
	a.report.Transactions += uint64(len(list))
	if env != nil {
		p := env.ExecutionPayload
		if !slices.EqualFunc(p.Transactions, raw, func(a eth.Data, b []byte) bool { return bytes.Equal(a, b) }) {
			wrong(lastSub, KindTransactions, "block %s has other transactions than the subblocks", p.ID())
		}
		if res := resultOf(r.Subblocks[lastSub], chain); res != nil && !seal.Deferred() &&
			(res.GasUsed != uint64(p.GasUsed) || res.ReceiptsRoot != common.Hash(p.ReceiptsRoot)) {
			wrong(lastSub, KindResult, "block %s used %d gas with receipts %s, agreed on were %d and %s", p.ID(), p.GasUsed, p.ReceiptsRoot, res.GasUsed, res.ReceiptsRoot)
		}
	}
	for _, p := range patterns(list) {
		led := at(where[p.at[1]].subblock).height
		a.leader(&led).Patterns++
		f := Found{
			Slot: r.Slot(), Chain: chain, Block: seal.Number, Leader: led.Leader, Name: led.Name,
			Contract: p.Contract, Around: p.Around, Between: p.Between,
		}
		for k, i := range p.at {
			f.Txs[k], f.Places[k] = list[i].Hash, where[i].place.String()
		}
		if a.report.PatternCount++; a.report.PatternCount <= maxListed {
			a.report.Patterns = append(a.report.Patterns, f)
		}
	}
}

// depositor is the sender of a deposit, whose nonce it raises.
func depositor(signer types.Signer, enc []byte) (common.Address, bool) {
	tx := new(types.Transaction)
	if tx.UnmarshalBinary(enc) != nil || !tx.IsDepositTx() {
		return common.Address{}, false
	}
	from, err := types.Sender(signer, tx)
	return from, err == nil
}

// tx is a transaction as rules see it. With an error it has no sender.
func (a *auditor) tx(chain sequence.ChainID, signer types.Signer, enc []byte, baseFee *big.Int) (Tx, error) {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(enc); err != nil {
		return Tx{}, err
	}
	out := Tx{Hash: tx.Hash(), To: tx.To(), Call: len(tx.Data()) > 0, Arrived: a.cfg.Seen.Transaction(chain, tx.Hash())}
	var err error
	if out.From, err = types.Sender(signer, tx); err != nil {
		return out, err
	}
	for _, auth := range tx.SetCodeAuthorizations() {
		if by, err := auth.Authority(); err == nil {
			out.Bumps = append(out.Bumps, by)
		}
	}
	if baseFee != nil {
		if out.Tip, err = tx.EffectiveGasTip(baseFee); err != nil {
			return out, err
		}
	}
	return out, nil
}

// fill audits what a pool gave to a subblock.
func (a *auditor) fill(at place, chain sequence.ChainID, deposited map[common.Address]bool, before, txs []Tx) {
	l := a.leader(&at.height)
	l.Fills++
	l.Transactions += uint64(len(txs))
	l.Arrival.add(inverted(txs, a.cfg.Tolerance))
	if a.cfg.Rule == nil {
		return
	}
	f := &Fill{Chain: chain, Txs: txs, Before: maps.Clone(deposited)}
	for i := range before {
		f.Before[before[i].From] = true
	}
	for _, list := range [][]Tx{before, txs} {
		for i := range list {
			for _, bumped := range list[i].Bumps {
				f.Before[bumped] = true
			}
		}
	}
	found := a.cfg.Rule.Check(f)
	l.OutOfOrder += uint64(len(found))
	if len(found) > 0 && a.cfg.Rule.Proves() {
		d := found[0]
		a.wrong(at, chain, KindOrder, "%d of %d transactions of the fill are not in the order %s: %s of %s stands before %s of %s, and %s",
			len(found), len(txs), a.cfg.Rule.Name(), d.Tx.Hash, d.Tx.From, d.Before.Hash, d.Before.From, d.Reason)
	}
}

// opens says what of a block is not as its opening has it.
func opens(o *sequence.Opening, slot sequence.Slot, env *eth.ExecutionPayloadEnvelope) string {
	p := env.ExecutionPayload
	switch {
	case p.ParentHash != o.ParentHash || uint64(p.BlockNumber) != o.ParentNumber+1:
		return "parent"
	case uint64(p.Timestamp) != uint64(slot):
		return "timestamp"
	case common.Hash(p.PrevRandao) != o.PrevRandao:
		return "randao"
	case p.FeeRecipient != o.FeeRecipient:
		return "fee recipient"
	case env.ParentBeaconBlockRoot == nil || *env.ParentBeaconBlockRoot != o.ParentBeaconRoot:
		return "beacon root"
	case uint64(p.GasLimit) != o.GasLimit:
		return "gas limit"
	}
	return ""
}

func sealOf(sub *sequence.Subblock, chain sequence.ChainID) *sequence.Seal {
	for i := range sub.Seals {
		if sub.Seals[i].Chain == chain {
			return &sub.Seals[i]
		}
	}
	return nil
}

func resultOf(sub *sequence.Subblock, chain sequence.ChainID) *sequence.Result {
	for i := range sub.Results {
		if sub.Results[i].Chain == chain {
			return &sub.Results[i]
		}
	}
	return nil
}
