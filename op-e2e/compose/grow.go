package compose

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// approvalTime is how long a change of the set may wait for approvals, in slots.
const approvalTime = 600

// AddOperator takes another operator into a set that runs, as op-node/README.md has it: it
// gets keys and containers, the others learn its address one after the other, it fetches
// what was agreed on, and then they approve it. Begun again, it goes on where it ended.
func (d *Devnet) AddOperator(ctx context.Context) error {
	if err := d.running(ctx); err != nil {
		return err
	}
	l := d.layout
	if l.alone() {
		return errors.New("the operator of this devnet is alone and agrees with nobody: make one with OPERATORS=2 or more")
	}
	r := newReach(l)
	defer r.close()
	set, err := d.set(ctx, r)
	if err != nil {
		return err
	}
	m := &l.Members[len(l.Members)-1]
	record, err := m.record(d.dir)
	if err != nil {
		return err
	}
	if !inSet(set, record) {
		d.say("operator %d has files and is not in the set: going on with it", m.Number)
	} else {
		number := len(l.Members) + 1
		if number > MaxOperators {
			return fmt.Errorf("%d operators: expected at most %d", number, MaxOperators)
		}
		if err := portsFree(l.publishedBy(number)); err != nil {
			return err
		}
		if m, err = l.newOperator(d.dir, number, 1); err != nil {
			return err
		}
		l.Members = append(l.Members, *m)
		if err := l.render(d.dir, d.dir); err != nil {
			return err
		}
		if record, err = m.record(d.dir); err != nil {
			return err
		}
		d.say("operator %d: keys and files are made", number)
	}
	number := m.Number
	if err := d.roll(ctx, r, func(m operator) []string { return []string{nodeService(m.Number)} }, number, 0); err != nil {
		return err
	}
	d.say("starting operator %d, which fetches what was agreed on", number)
	if err := d.docker.composeRun(ctx, append([]string{"up", "--detach"}, l.services(number)...)...); err != nil {
		return err
	}
	if err := r.awaitCaughtUp(ctx, number, l.Members[0].Number); err != nil {
		return err
	}
	if err := r.awaitVoting(ctx, number, false, 0); err != nil {
		return err
	}
	d.say("operator %d has caught up; the others approve it", number)
	if err := d.approve(ctx, r, operators.Change{Kind: operators.AddOperator, Operator: record}, number); err != nil {
		return err
	}
	if err := awaitMoving(ctx, stallTime, fmt.Sprintf("operator %d to be in the set", number), func(ctx context.Context) (uint64, bool, error) {
		set, err := d.set(ctx, r)
		return 0, err == nil && inSet(set, record), err
	}); err != nil {
		return err
	}
	if err := r.awaitVoting(ctx, number, true, 0); err != nil {
		return err
	}
	// Batchers and proposer may ask it too.
	if err := d.docker.composeRun(ctx, "up", "--detach"); err != nil {
		return err
	}
	d.say("operator %d votes. %s", number, Tolerance(l.powers()))
	return d.Describe()
}

// AddChain has another chain, whose contracts are on L1 since its genesis, sequenced with the
// others: op-geths for it at every operator, op-nodes that know it, and the approval of all.
// It then makes its blocks since genesis, beside those of the others.
func (d *Devnet) AddChain(ctx context.Context) error {
	if err := d.running(ctx); err != nil {
		return err
	}
	l := d.layout
	g, err := genesis.Load(filepath.Join(d.dir, genesisDir))
	if err != nil {
		return err
	}
	r := newReach(l)
	defer r.close()
	chain := l.ChainIDs[len(l.ChainIDs)-1]
	joined, err := d.sequenced(ctx, r, chain)
	if err != nil {
		return err
	}
	if !joined {
		d.say("chain %d has files and is not sequenced: going on with it", chain)
	} else {
		chain++
		if _, ok := g.L2[chain]; !ok {
			return fmt.Errorf("the contracts of chain %d are not on L1: a devnet takes %d chains in beside those it was made with; make one with more CHAINS", chain, spareChains)
		}
		next := &layout{Config: l.Config, Members: l.Members, ChainIDs: append(slices.Clone(l.ChainIDs), chain)}
		free := next.published()
		for port := range l.published() {
			delete(free, port)
		}
		if err := portsFree(free); err != nil {
			return err
		}
		l.ChainIDs = next.ChainIDs
		if err := l.render(d.dir, d.dir); err != nil {
			return err
		}
		d.say("chain %d: files are made", chain)
	}
	// Every operator has to name the chain before it can join.
	if err := d.roll(ctx, r, func(m operator) []string {
		return []string{engineService(m.Number, chain), nodeService(m.Number)}
	}, 0, chain); err != nil {
		return err
	}
	if !l.alone() {
		d.say("all operators know chain %d; they approve it", chain)
		if err := d.approve(ctx, r, operators.Change{Kind: operators.JoinChain, Chain: sequence.ChainID(chain)}, 0); err != nil {
			return err
		}
	}
	if err := d.docker.composeRun(ctx, "up", "--detach"); err != nil { // its batcher
		return err
	}
	d.say("chain %d makes its blocks since genesis", chain)
	if err := r.awaitLevel(ctx, l.Members[0].Number); err != nil {
		return err
	}
	d.say("chain %d is level with the others", chain)
	return d.Describe()
}

// roll has docker compose take over what was changed of the operators' services, one operator
// after the other, each when the one before takes part again: the set goes on meanwhile, if
// it can do without one. except is an operator that is not in the set yet, joining a
// chain that is not, 0 for none.
func (d *Devnet) roll(ctx context.Context, r *reach, services func(operator) []string, except int, joining uint64) error {
	for _, m := range d.layout.Members {
		if m.Number == except {
			continue
		}
		d.say("operator %d takes the change over", m.Number)
		if err := d.docker.composeRun(ctx, append([]string{"up", "--detach", "--no-deps"}, services(m)...)...); err != nil {
			return err
		}
		if err := r.awaitVoting(ctx, m.Number, true, joining); err != nil {
			return err
		}
	}
	return nil
}

// approve has operators sign a change until more than two thirds of the power have.
func (d *Devnet) approve(ctx context.Context, r *reach, change operators.Change, except int) error {
	set, err := d.set(ctx, r)
	if err != nil {
		return err
	}
	client, err := r.sequencer(ctx, d.layout.Members[0].Number)
	if err != nil {
		return err
	}
	keys, err := genesis.DevKeys()
	if err != nil {
		return err
	}
	change.Nonce = uint64(time.Now().UnixNano())
	change.Expiry = sequence.Slot(time.Now().Unix() + approvalTime)
	var power uint64
	for i := range d.layout.Members {
		m := &d.layout.Members[i]
		if m.Number == except {
			continue
		}
		key, err := keys.Operator(m.Number - 1)
		if err != nil {
			return err
		}
		signed, err := operators.SignChange(set.Set, change, key)
		if err != nil {
			return err
		}
		if _, err := client.SubmitChange(ctx, signed); err != nil {
			return fmt.Errorf("approval of operator %d: %w", m.Number, err)
		}
		if power += m.Power; 3*power > 2*uint64(set.TotalPower) {
			return nil
		}
	}
	return fmt.Errorf("%s: approved by power %d of %d, which is not more than two thirds", change.String(), power, uint64(set.TotalPower))
}

// set is the set of operators as the first one knows it.
func (d *Devnet) set(ctx context.Context, r *reach) (*rpc.Operators, error) {
	client, err := r.sequencer(ctx, d.layout.Members[0].Number)
	if err != nil {
		return nil, err
	}
	return client.Operators(ctx)
}

func inSet(set *rpc.Operators, o operators.Operator) bool {
	return slices.ContainsFunc(set.Operators, func(x rpc.OperatorInfo) bool { return x.Address == o.Address })
}

// sequenced says whether a chain takes part.
func (d *Devnet) sequenced(ctx context.Context, r *reach, chain uint64) (bool, error) {
	if d.layout.alone() {
		st, err := r.status(ctx, d.layout.Members[0].Number)
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(st.Chains, func(c rpc.ChainStatus) bool { return uint64(c.ChainID) == chain }), nil
	}
	set, err := d.set(ctx, r)
	if err != nil {
		return false, err
	}
	for _, id := range set.Chains {
		if uint64(id) == chain {
			return true, nil
		}
	}
	return false, nil
}
