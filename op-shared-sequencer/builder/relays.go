package builder

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Relayed counts what became of the messages that plain transactions sent to chains of the slot.
type Relayed struct {
	Executed int // in the same slot
	Reverted int // the relay would have: it is not in the block
	Refused  int // by the policy
	Budget   int // the slot's gas, or the sender's, was used up
	Late     int // the slot's time was
	Unfunded int // the relayer's balance does not pay for it
}

// Add adds what became of others.
func (c *Relayed) Add(o Relayed) {
	c.Executed += o.Executed
	c.Reverted += o.Reverted
	c.Refused += o.Refused
	c.Budget += o.Budget
	c.Late += o.Late
	c.Unfunded += o.Unfunded
}

// spending is what relays of plain messages have used in a slot, over its subblocks.
type spending struct {
	slot     sequence.Slot
	gas      uint64
	bySender map[common.Address]uint64
}

func (b *Builder) spendingIn(slot sequence.Slot) *spending {
	if b.spent == nil || b.spent.slot != slot {
		b.spent = &spending{slot: slot, bySender: map[common.Address]uint64{}}
	}
	return b.spent
}

// relays executes the messages that plain transactions have sent to other chains of the
// slot, on these, in the order they were sent, and those that the relays send in turn. What
// does not execute leaves no trace. They come behind the plain transactions of all chains,
// so that no chain waits for another's messages.
func (r *run) relays(ctx context.Context) error {
	if r.relay == nil || !r.policy.Plain() || r.failsafe() {
		return nil
	}
	start := r.clock.Now()
	defer func() { r.order.Relays += r.clock.Since(start) }()
	spent, dry := r.spendingIn(r.slot), map[sequence.ChainID]bool{}
	for len(r.sent) > 0 {
		m := r.sent[0]
		r.sent = r.sent[1:]
		dest, _ := relay.Destination(m.Log)
		to, from := r.blocks[dest], r.blocks[m.Chain]
		if to == nil || to == from || to.L1Origin != from.L1Origin { // see open
			continue
		}
		sender := relay.Sender(m.Log)
		budget := min(r.policy.SlotGas-min(spent.gas, r.policy.SlotGas), r.policy.SenderGas-min(spent.bySender[sender], r.policy.SenderGas))
		switch {
		case !r.policy.Takes(m.Log):
			r.order.Relayed.Refused++
			continue
		case budget == 0:
			r.order.Relayed.Budget++
			continue
		case dry[to.Chain]:
			r.order.Relayed.Unfunded++
			continue
		case !r.clock.Now().Before(r.times.Cut):
			r.order.Relayed.Late++
			continue
		}
		used, err := r.relayOne(ctx, to, m, budget, dry)
		if err != nil {
			return err
		}
		spent.gas += used
		spent.bySender[sender] += used
	}
	return nil
}

// relayOne tries to execute a message that may use up to budget of gas, and says how much it
// used. A chain whose relayer cannot pay is dry for the rest of the slot.
func (r *run) relayOne(ctx context.Context, to *Block, m relay.Log, budget uint64, dry map[sequence.ChainID]bool) (gas uint64, err error) {
	fail := func(err error) (uint64, error) {
		return 0, &ChainError{to.Chain, fmt.Errorf("relaying a message of chain %s: %w", m.Chain, err)}
	}
	account, err := to.Session.Account(ctx, r.relay.Address())
	if err != nil {
		return fail(err)
	}
	r.metrics.RelayerBalance(to.Chain, account.Balance)
	raw, err := r.relay.Transaction(to.Chain, to.Session.Header(), account.Nonce, m.Chain, m.Slot, m.Log)
	if err != nil {
		r.log.Warn("A message cannot be relayed", "from", m.Chain, "to", to.Chain, "slot", r.slot, "err", err)
		r.order.Relayed.Reverted++
		return 0, nil
	}
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil {
		return fail(err)
	}
	if tx.Gas() > budget {
		r.order.Relayed.Budget++ // what it may use, its size included
		return 0, nil
	}
	mark := r.check.Mark()
	point, err := to.Session.Savepoint(ctx)
	if err != nil {
		return fail(err)
	}
	res, err := to.Session.Execute(ctx, [][]byte{raw}, false)
	if err != nil || len(res) != 1 {
		return fail(fmt.Errorf("%d results: %w", len(res), err))
	}
	var refused error
	var bad *executor.MessageError
	if res[0].Succeeded() {
		var txs []executor.Tx
		if txs, err = Checked(res); err != nil {
			return fail(err)
		}
		if refused = r.check.Apply(to.Chain, txs); refused == nil {
			if err := to.Session.Release(ctx, point); err != nil {
				return fail(err)
			}
			r.order.Relayed.Executed++
			r.order.add([][]engine.TxResult{res}, sequence.Step{Chain: to.Chain, Transactions: [][]byte{raw}})
			r.note(to.Chain, res)
			return res[0].GasUsed, nil
		}
	}
	if err := to.Session.Rollback(ctx, point); err != nil {
		return fail(err)
	}
	if err := r.check.Rollback(mark); err != nil {
		return 0, err
	}
	switch {
	case engine.MayFitLater(res[0].Err):
		r.order.Relayed.Late++ // no gas is left in the block
	case res[0].Err != nil:
		r.order.Relayed.Unfunded++
		dry[to.Chain] = true
		r.log.Warn("A message is not relayed", "from", m.Chain, "to", to.Chain, "slot", r.slot, "relayer", r.relay.Address(), "balance", account.Balance, "err", res[0].Err)
	case errors.As(refused, &bad):
		r.order.Relayed.Reverted++
		r.metrics.MessageRefused(PlaceRelay, to.Chain, bad.Rule)
		r.log.Warn("A message is not relayed: it is not valid", "from", m.Chain, "to", to.Chain, "slot", r.slot, "err", refused)
	case refused != nil:
		return fail(refused)
	default:
		r.order.Relayed.Reverted++
		r.log.Debug("A message is not relayed: its execution fails", "from", m.Chain, "to", to.Chain, "slot", r.slot)
	}
	return res[0].GasUsed, nil
}

// note remembers the messages that transactions sent.
func (r *run) note(chain sequence.ChainID, results []engine.TxResult) {
	if !r.policy.Plain() {
		return
	}
	for i := range results {
		for _, l := range results[i].Logs {
			if _, ok := relay.Destination(l); ok && results[i].Succeeded() {
				r.sent = append(r.sent, relay.Log{Chain: chain, Slot: r.slot, Log: l})
			}
		}
	}
}
