package builder

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Attempt runs bundles over the open blocks of a slot.
type Attempt struct {
	Slot    sequence.Slot
	Blocks  map[sequence.ChainID]*Block // all chains of the bundle must be among them
	Check   Checker
	Relayer Relayer // nil: bundles with relay steps fail
	// OutOfTime, if set, ends a bundle between two transactions. A transaction is not
	// interrupted: its session would be lost, and the slot with it.
	OutOfTime func() bool
	// Fair: there is so much time that a bundle that runs out of it has itself to blame.
	Fair bool

	// Results are those of the steps that the last Run returned, set by it.
	Results [][]engine.TxResult
	// Metrics is told of messages that are refused, and of what the relayer has. May be nil.
	Metrics Metrics
}

// Kept is a transaction of a bundle that is in an agreed block already: the bundle was
// executed before, and only some of its blocks were replaced since.
type Kept struct {
	bundlepool.ItemResult               // with its logs
	Slot                  sequence.Slot // of its block
}

// attempt is one run of a bundle.
type attempt struct {
	*Attempt
	kept    []Kept
	relayed int // messages
	items   []bundlepool.ItemResult
	steps   []sequence.Step
	results [][]engine.TxResult // of the steps
	logs    []relay.Log         // of all its transactions
}

// Run executes a bundle, in order. If an item cannot be included, reverts or executes
// an invalid message, everything of the bundle is undone on all its chains and the
// outcome says which item and why. The error is about the blocks, not the bundle: they
// cannot be built on any more.
//
// kept are the bundle's transactions that stand in agreed blocks already, in their
// order. They are not run again: the run completes the bundle.
func (at *Attempt) Run(ctx context.Context, b *sequence.Bundle, kept []Kept) (*bundlepool.Outcome, []sequence.Step, error) {
	a := &attempt{Attempt: at, kept: kept}
	at.Results = nil
	points, err := savepoints(ctx, b.Chains(), at.Blocks)
	if err != nil {
		return nil, nil, err
	}
	mark := at.Check.Mark()
	if len(kept) == 0 {
		err = a.conditions(ctx, b)
	}
	for i := 0; i < len(b.Items) && err == nil; i++ {
		err = a.item(ctx, i, &b.Items[i])
	}
	var failed *failure
	switch {
	case err == nil:
		for _, p := range points {
			if err := p.block.Session.Release(ctx, p.savepoint); err != nil {
				return nil, nil, &ChainError{p.block.Chain, fmt.Errorf("releasing a savepoint: %w", err)}
			}
		}
		hash := b.Hash()
		for i := range a.steps {
			a.steps[i].Bundle, a.steps[i].Expiry = hash, b.Expiry
		}
		if len(a.steps) > 0 && len(kept) == 0 { // what is completed began under its terms
			a.steps[0].Terms = b.Terms
		}
		at.Results = a.results
		return &bundlepool.Outcome{Kind: bundlepool.Execute, Result: bundlepool.BundleResult{Slot: at.Slot, Items: a.items}}, a.steps, nil
	case errors.As(err, &failed):
		for _, p := range points {
			if err := p.block.Session.Rollback(ctx, p.savepoint); err != nil {
				return nil, nil, &ChainError{p.block.Chain, fmt.Errorf("rolling a bundle back: %w", err)}
			}
		}
		if err := at.Check.Rollback(mark); err != nil {
			return nil, nil, err
		}
		if len(kept) > 0 {
			failed.Reason += fmt.Sprintf(" (%d transactions of the bundle remain in earlier blocks, the others were replaced)", len(kept))
		}
		return failed.outcome(at.Slot, a.items), nil, nil
	default:
		return nil, nil, err
	}
}

// point is a savepoint on one of a bundle's chains.
type point struct {
	block     *Block
	savepoint engine.Savepoint
}

func savepoints(ctx context.Context, chains []sequence.ChainID, blocks map[sequence.ChainID]*Block) ([]point, error) {
	var points []point
	for _, id := range chains {
		b := blocks[id]
		sp, err := b.Session.Savepoint(ctx)
		if err != nil {
			return nil, &ChainError{id, fmt.Errorf("taking a savepoint: %w", err)}
		}
		points = append(points, point{b, sp})
	}
	return points, nil
}

// failure ends a bundle, not the slot.
type failure struct {
	bundlepool.Failure
	retry bool // another slot may do
}

func (f *failure) Error() string { return f.Reason }

func (f *failure) outcome(slot sequence.Slot, items []bundlepool.ItemResult) *bundlepool.Outcome {
	o := &bundlepool.Outcome{Kind: bundlepool.Fail, Result: bundlepool.BundleResult{Slot: slot, Items: items, Failed: &f.Failure}}
	if f.retry {
		o.Kind = bundlepool.Retry
	}
	return o
}

// maxRelays bounds the messages that relay steps of one bundle execute: the operator's
// relayer pays for their gas.
const maxRelays = 16

// conditions checks what must hold when the bundle begins. What does not hold now may in
// another slot, until the bundle expires.
func (a *attempt) conditions(ctx context.Context, b *sequence.Bundle) error {
	if b.Terms == nil {
		return nil
	}
	for i := range b.Terms.Conditions {
		c := &b.Terms.Conditions[i]
		if a.OutOfTime != nil && a.OutOfTime() {
			return &failure{bundlepool.Failure{Item: -1, Chain: c.Chain, Reason: "the slot ended before the bundle's conditions were checked", Timeout: a.Fair}, true}
		}
		err := a.Blocks[c.Chain].Session.Check(ctx, c.Conditional())
		if errors.Is(err, engine.ErrCondition) {
			return &failure{bundlepool.Failure{Item: -1, Chain: c.Chain, Reason: fmt.Sprintf("condition %d does not hold: %v", i, err)}, true}
		}
		if err != nil {
			return &ChainError{c.Chain, fmt.Errorf("checking a condition of a bundle: %w", err)}
		}
	}
	return nil
}

// item runs one item of the bundle.
func (a *attempt) item(ctx context.Context, index int, it *sequence.BundleItem) error {
	stands := a.keep(index)
	if !it.Relay() {
		if stands > 0 {
			return nil
		}
		return a.transaction(ctx, index, it, it.Transaction)
	}
	fail := func(format string, args ...any) error {
		return &failure{Failure: bundlepool.Failure{Item: index, Chain: it.Chain, Reason: fmt.Sprintf(format, args...)}}
	}
	if a.Relayer == nil {
		return fail("this operator has no relayer key: send the relay as a signed transaction")
	}
	waiting := relay.Pending(it.Chain, a.logs)
	if len(waiting)+stands == 0 {
		return fail("nothing to relay: no transaction before it sent a message to chain %s", it.Chain)
	}
	for _, m := range waiting {
		if a.relayed++; a.relayed > maxRelays {
			return fail("more than %d messages to relay in one bundle", maxRelays)
		}
		session := a.Blocks[it.Chain].Session
		account, err := session.Account(ctx, a.Relayer.Address())
		if err != nil {
			return &ChainError{it.Chain, fmt.Errorf("reading the relayer's account: %w", err)}
		}
		if a.Metrics != nil {
			a.Metrics.RelayerBalance(it.Chain, account.Balance)
		}
		raw, err := a.Relayer.Transaction(it.Chain, session.Header(), account.Nonce, m.Chain, m.Slot, m.Log)
		if err != nil {
			return fail("%v", err)
		}
		if err := a.transaction(ctx, index, it, raw); err != nil {
			return err
		}
	}
	return nil
}

// keep takes the item's transactions that stand already, and says how many there are.
func (a *attempt) keep(index int) int {
	n := 0
	for _, k := range a.kept {
		if k.Item == index {
			a.add(k.ItemResult, k.Slot)
			n++
		}
	}
	return n
}

// add notes a transaction of the bundle that is in the block of a slot.
func (a *attempt) add(item bundlepool.ItemResult, slot sequence.Slot) {
	a.items = append(a.items, item)
	for _, l := range item.Logs {
		a.logs = append(a.logs, relay.Log{Chain: item.Chain, Slot: slot, Log: l})
	}
}

// transaction runs one transaction of an item and checks the messages it executed.
func (a *attempt) transaction(ctx context.Context, index int, it *sequence.BundleItem, raw []byte) error {
	id := it.Chain
	if a.OutOfTime != nil && a.OutOfTime() {
		return &failure{bundlepool.Failure{Item: index, Chain: id, Reason: "the slot ended before the bundle did", Timeout: a.Fair}, true}
	}
	res, err := a.Blocks[id].Session.Execute(ctx, [][]byte{raw}, false)
	if err != nil {
		return &ChainError{id, fmt.Errorf("executing a transaction of a bundle: %w", err)}
	}
	if len(res) != 1 {
		return &ChainError{id, fmt.Errorf("the engine gave %d results for one transaction", len(res))}
	}
	r := res[0]
	fail := func(reason string, retry bool) error {
		return &failure{bundlepool.Failure{Item: index, Chain: id, TxHash: r.Hash, Reason: reason, ReturnData: r.ReturnData}, retry}
	}
	if r.Err != nil {
		return fail(fmt.Sprintf("cannot be included: %v", r.Err), engine.MayFitLater(r.Err))
	}
	item := bundlepool.ItemResult{
		Item: index, Chain: id, TxHash: r.Hash, BlockNumber: a.Blocks[id].Session.Header().Number,
		Status: r.Status, GasUsed: r.GasUsed, Logs: r.Logs, ReturnData: r.ReturnData,
	}
	if !r.Succeeded() {
		item.RevertReason = bundlepool.RevertReason(r.ReturnData)
		if !it.MayRevert {
			a.items = append(a.items, item)
			return fail("reverted: "+item.RevertReason, false)
		}
	}
	txs, err := Checked(res)
	if err != nil {
		return &ChainError{id, err}
	}
	if err := a.Check.Apply(id, txs); err != nil {
		var bad *executor.MessageError
		if errors.As(err, &bad) {
			if a.Metrics != nil {
				a.Metrics.MessageRefused(PlaceBundle, id, bad.Rule)
			}
			return fail(err.Error(), errors.Is(err, executor.RuleHistory))
		}
		return fmt.Errorf("checking messages of chain %s: %w", id, err)
	}
	a.add(item, a.Slot)
	a.steps = append(a.steps, sequence.Step{Chain: id, Relay: it.Relay(), MayRevert: it.MayRevert, Transactions: [][]byte{raw}})
	a.results = append(a.results, res)
	return nil
}

// Checked is what the executor needs of results, of those that were included.
func Checked(results []engine.TxResult) ([]executor.Tx, error) {
	txs := make([]executor.Tx, 0, len(results))
	for i := range results {
		if !results[i].Included() {
			continue
		}
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(results[i].Raw); err != nil {
			return nil, fmt.Errorf("the engine included transaction %s, which cannot be decoded: %w", results[i].Hash, err)
		}
		txs = append(txs, executor.NewTx(tx, results[i].Logs))
	}
	return txs, nil
}
