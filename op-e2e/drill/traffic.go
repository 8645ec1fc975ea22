package drill

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Accounts of the development mnemonic. Nothing else uses them.
const (
	firstSender  = 2 // of bundles; half of them send good ones
	bundleSender = 4
	firstLoad    = firstSender + bundleSender // of plain transfers, one per operator
	maxOperators = 4
)

const (
	callTime   = 3 * time.Second  // a call to an operator, which may be frozen
	bundleTime = 45 * time.Second // a bundle, until its sender stops asking
	pollTime   = 100 * time.Millisecond
	bundleWait = 30 // slots that a bundle may wait
)

// sent is a bundle that an operator has taken.
type sent struct {
	hash  common.Hash
	good  bool
	from  common.Address
	nonce uint64         // of the sender's first transaction
	fresh common.Address // the account it makes
	txs   []placed       // the senders' own
	// states that any operator has said it was in.
	states map[bundlepool.State]string // with the reason
	items  []placed                    // what an operator said it executed, relays among it
}

// placed is a transaction of a chain.
type placed struct {
	chain uint64
	hash  common.Hash
}

// user is an account on a chain.
type user struct {
	chain   uint64
	address common.Address
}

// traffic is what users send all the while.
type traffic struct {
	d      *devnet.Devnet
	log    log.Logger
	loads  []*devnet.Load
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	down    map[int]bool    // operators that users should not ask now
	next    int             // operator that the next bundle goes to
	nonces  map[user]uint64 // the next ones, by what was agreed on
	bundles []*sent
}

// startTraffic begins to send rate transfers a second to each chain through each operator,
// and bundles to one operator after the other.
func startTraffic(d *devnet.Devnet, rate int, l log.Logger) (*traffic, error) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &traffic{d: d, log: l, cancel: cancel, down: map[int]bool{}, nonces: map[user]uint64{}}
	for i, o := range d.Operators() {
		from, err := devnet.User(firstLoad + uint64(i))
		if err != nil {
			return nil, errors.Join(err, t.stop())
		}
		var targets []devnet.LoadTarget
		for _, chain := range d.Chains() {
			targets = append(targets, devnet.LoadTarget{Chain: chain, RPC: o.EngineRPC(chain), From: from})
		}
		t.loads = append(t.loads, devnet.StartLoad(targets, rate, l))
	}
	for i := range bundleSender {
		from, err := devnet.User(firstSender + uint64(i))
		if err != nil {
			return nil, errors.Join(err, t.stop())
		}
		chains := d.Chains()
		source, dest := chains[i%2], chains[1-i%2] // both directions
		t.all.Go(func() { t.send(ctx, from, source, dest, i < bundleSender/2) })
	}
	return t, nil
}

// stop ends the traffic. Bundles on their way are waited for.
func (t *traffic) stop() error {
	t.cancel()
	for _, l := range t.loads {
		l.Stop()
	}
	t.all.Wait()
	return nil
}

// transfers that operators' pools took.
func (t *traffic) transfers() uint64 {
	var n uint64
	for _, l := range t.loads {
		for _, chain := range t.d.Chains() {
			n += l.Sent(chain)
		}
	}
	return n
}

// avoid tells users that an operator does not answer, or that it does again.
func (t *traffic) avoid(operator int, down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.down[operator] = down
}

// operator is the one that is asked next.
func (t *traffic) operator() *devnet.Operator {
	t.mu.Lock()
	defer t.mu.Unlock()
	ops := t.d.Operators()
	for range ops {
		i := t.next % len(ops)
		t.next++
		if !t.down[i] {
			return ops[i]
		}
	}
	return ops[0]
}

// send sends one bundle after the other until ctx ends.
func (t *traffic) send(ctx context.Context, from devnet.Account, source, dest uint64, good bool) {
	for ctx.Err() == nil {
		b, err := t.one(ctx, from, source, dest, good)
		if err == nil {
			// A bundle that was taken is followed up to its end, also when the drill ends.
			err = t.follow(b)
		}
		if err != nil && ctx.Err() == nil {
			t.log.Debug("Bundle", "good", good, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollTime):
		}
	}
}

// one sends a bundle to the next operator.
func (t *traffic) one(ctx context.Context, from devnet.Account, source, dest uint64, good bool) (*sent, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*callTime)
	defer cancel()
	to, err := devnet.FreshAccount()
	if err != nil {
		return nil, err
	}
	// A transfer over both chains, of which the receiver sends half back. A bad one ends
	// with a transfer to nobody, which reverts.
	txs := []devnet.Tx{
		devnet.SendETH(source, 0, to.Address, dest, ether(1)),
		devnet.Transfer(dest, 0, from.Address, new(big.Int).Div(ether(1), big.NewInt(2))),
	}
	signers := []devnet.Account{from, to}
	if !good {
		txs, signers = append(txs, devnet.SendETH(dest, 0, common.Address{}, source, ether(1))), append(signers, from)
	}
	for i := range txs {
		if signers[i].Address == from.Address {
			if txs[i].Nonce, err = t.nonce(ctx, txs[i].Chain, from.Address); err != nil {
				return nil, err
			}
		}
	}
	b := &sent{good: good, from: from.Address, nonce: txs[0].Nonce, fresh: to.Address, states: map[bundlepool.State]string{}}
	slots := hexutil.Uint64(bundleWait)
	args := rpc.BundleArgs{MaxSlots: &slots}
	for i, tx := range txs {
		signed, err := signers[i].Sign(tx)
		if err != nil {
			return nil, err
		}
		raw, err := signed.MarshalBinary()
		if err != nil {
			return nil, err
		}
		b.txs = append(b.txs, placed{tx.Chain, signed.Hash()})
		args.Items = append(args.Items, rpc.Transaction(sequence.ChainID(tx.Chain), raw))
		if i == 0 {
			args.Items = append(args.Items, rpc.RelayStep(sequence.ChainID(dest)))
		}
	}
	c, err := t.operator().Sequencer(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.SendBundle(ctx, args)
	if err != nil {
		return nil, err
	}
	b.hash = res.BundleHash
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bundles = append(t.bundles, b)
	return b, nil
}

// nonce is an account's next, at the operator that knows most, or by a bundle of it that
// was agreed on, which the chains' heads may not show yet.
func (t *traffic) nonce(ctx context.Context, chain uint64, addr common.Address) (uint64, error) {
	t.mu.Lock()
	most := t.nonces[user{chain, addr}]
	t.mu.Unlock()
	var errs []error
	for _, o := range t.d.Operators() {
		t.mu.Lock()
		down := t.down[o.Index()]
		t.mu.Unlock()
		if down {
			continue
		}
		n, err := func() (uint64, error) {
			ctx, cancel := context.WithTimeout(ctx, callTime/3)
			defer cancel()
			c, err := o.Eth(chain)
			if err != nil {
				return 0, err
			}
			return c.NonceAt(ctx, addr, nil)
		}()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		most = max(most, n)
		errs = append(errs, nil)
	}
	for _, err := range errs {
		if err == nil {
			return most, nil
		}
	}
	return 0, errors.Join(errs...)
}

// follow asks operators what became of a bundle until one of them says it has ended.
func (t *traffic) follow(b *sent) error {
	ctx, cancel := context.WithTimeout(context.Background(), bundleTime)
	defer cancel()
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		o := t.operator()
		st, err := ask(ctx, o, b.hash)
		if err == nil {
			t.note(b, st)
			if st.State != bundlepool.Pending {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bundle %s has not ended (last asked: operator %d, %w)", b.hash, o.Index(), err)
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, o *devnet.Operator, hash common.Hash) (*rpc.BundleStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, err := o.Sequencer(ctx)
	if err != nil {
		return nil, err
	}
	return c.BundleStatus(ctx, hash)
}

// note keeps what an operator said of a bundle.
func (t *traffic) note(b *sent, st *rpc.BundleStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	why := ""
	if st.Failure != nil {
		why = st.Failure.Reason
	}
	b.states[st.State] = why
	if st.State == bundlepool.Executed || st.State == bundlepool.Safe {
		u := user{b.txs[0].chain, b.from} // good ones have one transaction of the sender
		t.nonces[u] = max(t.nonces[u], b.nonce+1)
		b.items = b.items[:0]
		for _, it := range st.Items {
			b.items = append(b.items, placed{uint64(it.ChainID), it.TxHash})
		}
	}
}
