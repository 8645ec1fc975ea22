package judge

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// The operators. liar forces invalid messages into blocks; its power is enough for them to be
// agreed on. honest votes against them.
const (
	liar = iota
	honest
	operatorsInAll
)

// forced is an invalid message that is forced into a block.
type forced struct {
	forgery *forgery
	chain   uint64
	raw     []byte
	tx      common.Hash

	agreed chan struct{} // closed when its block is; then:
	slot   uint64
	block  deniedBlock
	caught bool // the honest operator has refused it for the message
	denied bool // op-supernode of every operator has invalidated the block
	// From the moment it was to be forced until another block was in its place at every
	// operator, and until all chains were on time again. 0: not yet.
	replaced, lockstep time.Duration
}

func (f *forced) String() string {
	return fmt.Sprintf("%s in block %d of chain %d, slot %d", f.forgery.name, f.block.number, f.chain, f.slot)
}

// witness is a machine that remembers what it has refused for a message.
type witness struct {
	rotation.Machine
	mu      sync.Mutex
	judged  map[common.Hash]error // by subblock: the *executor.MessageError, nil: it is fine
	changed chan struct{}         // closed with each, and made anew
}

func newWitness() *witness {
	return &witness{judged: map[common.Hash]error{}, changed: make(chan struct{})}
}

func (w *witness) wrap(m rotation.Machine) rotation.Machine {
	w.Machine = m
	return w
}

func (w *witness) Verify(ctx context.Context, sub *sequence.Subblock) error {
	err := w.Machine.Verify(ctx, sub)
	var bad *executor.MessageError
	// Other errors, and a history that is behind, say nothing about messages.
	if err == nil || errors.As(err, &bad) && !errors.Is(err, executor.RuleHistory) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.judged[sub.Hash()] = err
		close(w.changed)
		w.changed = make(chan struct{})
	}
	return err
}

// verdict is the message for which it has refused a subblock, nil if there is none.
func (w *witness) verdict(sub common.Hash) *executor.MessageError {
	w.mu.Lock()
	defer w.mu.Unlock()
	var bad *executor.MessageError
	errors.As(w.judged[sub], &bad)
	return bad
}

// await returns when a subblock is judged, or ctx has ended.
func (w *witness) await(ctx context.Context, sub common.Hash) {
	for {
		w.mu.Lock()
		_, ok := w.judged[sub]
		changed := w.changed
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// refused are the messages it has refused subblocks for.
func (w *witness) refused() []*executor.MessageError {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*executor.MessageError
	for _, err := range w.judged {
		var bad *executor.MessageError
		if errors.As(err, &bad) {
			out = append(out, bad)
		}
	}
	return out
}

// verdictTime is how long the liar waits at most until the other operator has judged its subblock.
const verdictTime = 3 * time.Second

// forger is the machine of an operator that forces messages into blocks behind its executor's
// back: tamper runs the transaction in the sealed block, and Propose names it in the subblock,
// so that everybody who runs the subblock comes to the same block.
type forger struct {
	rotation.Machine
	other *witness

	mu    sync.Mutex
	next  *forced // to be forced; nil: nothing
	built *forced // what is in the block that was built last, nil: nothing
	at    sequence.Slot
	told  map[common.Hash]*forced // by subblock
	voted common.Hash             // for this one of them; zero: for none
}

func newForger(other *witness) *forger {
	return &forger{other: other, told: map[common.Hash]*forced{}}
}

func (f *forger) wrap(m rotation.Machine) rotation.Machine {
	f.Machine = m
	return f
}

// force has the next block of the chain hold the message. nil: none does.
func (f *forger) force(next *forced) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = next
}

// tamper is service.Options.Tamper: it is called with each slot that is built, before it is sealed.
func (f *forger) tamper(ctx context.Context, slot sequence.Slot, blocks []*builder.Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.built, f.at = nil, slot
	for _, b := range blocks {
		if f.next == nil || uint64(b.Chain) != f.next.chain || b.NoTxPool {
			continue
		}
		point, err := b.Session.Savepoint(ctx)
		if err != nil {
			return // the slot fails with it
		}
		res, err := b.Session.Execute(ctx, [][]byte{f.next.raw}, false)
		if err == nil && len(res) == 1 && res[0].Succeeded() {
			f.built, err = f.next, b.Session.Release(ctx, point)
		} else if err == nil {
			err = b.Session.Rollback(ctx, point)
		}
		if err != nil {
			f.built = nil // nor is anything proposed
		}
	}
}

func (f *forger) Propose(ctx context.Context, ready []sequence.ChainID) (*sequence.Subblock, error) {
	sub, err := f.Machine.Propose(ctx, ready)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.built == nil || f.at != sub.Slot || !sub.Last() {
		return sub, nil
	}
	lie, err := sequence.DecodeSubblock(sub.Encode())
	if err != nil {
		return nil, err
	}
	lie.Steps = append(lie.Steps, sequence.Step{Chain: sequence.ChainID(f.built.chain), Transactions: [][]byte{f.built.raw}})
	f.told[lie.Hash()] = f.built
	return lie, nil
}

// Verify votes for what it has forged.
func (f *forger) Verify(ctx context.Context, sub *sequence.Subblock) error {
	f.mu.Lock()
	_, own := f.told[sub.Hash()]
	f.voted = common.Hash{}
	if own {
		f.voted = sub.Hash()
	}
	f.mu.Unlock()
	if own {
		return nil
	}
	return f.Machine.Verify(ctx, sub)
}

// Ready is asked when this operator is about to sign that it agrees to what it has voted for,
// and its signature is enough. So it waits until the other one has judged that, which could
// otherwise be told of it when all is over. It cannot do so earlier: the subblock is not sent
// before it has voted.
func (f *forger) Ready() []sequence.ChainID {
	f.mu.Lock()
	sub := f.voted
	f.voted = common.Hash{}
	f.mu.Unlock()
	if sub != (common.Hash{}) {
		ctx, cancel := context.WithTimeout(context.Background(), verdictTime)
		defer cancel()
		f.other.await(ctx, sub)
	}
	return f.Machine.Ready()
}

func (f *forger) Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error {
	if err := f.Machine.Commit(ctx, sub, agreement); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	own := f.told[sub.Hash()]
	if own == nil || own.slot != 0 {
		return nil
	}
	if f.next == own {
		f.next = nil
	}
	own.slot = uint64(sub.Slot)
	for _, seal := range sub.Seals {
		if uint64(seal.Chain) == own.chain {
			own.block = deniedBlock{own.chain, seal.Number, seal.BlockHash}
		}
	}
	bad := f.other.verdict(sub.Hash())
	own.caught = bad != nil && bad.Tx == own.tx && errors.Is(bad, own.forgery.rule)
	close(own.agreed)
	return nil
}

// Times of one forced block. All are many times what it takes.
const (
	agreeTime   = time.Minute     // until it is agreed on
	replaceTime = 3 * time.Minute // until op-supernode of every operator has replaced it
)

// force forces one invalid message into a block, and waits until the set has recovered.
func (r *run) force(ctx context.Context, kind *forgery, chain uint64) error {
	f, err := r.forge(ctx, kind, chain)
	if err != nil {
		return err
	}
	begin := time.Now()
	r.forger.force(f)
	defer r.forger.force(nil)
	select {
	case <-f.agreed:
	case <-time.After(agreeTime):
		return fmt.Errorf("%s on chain %d: no block with it was agreed on in %s", kind.name, chain, agreeTime)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.forced = append(r.forced, f)
	waiting, cancel := context.WithTimeoutCause(ctx, replaceTime, fmt.Errorf("it took more than %s", replaceTime))
	defer cancel()
	number := new(big.Int).SetUint64(f.block.number)
	for _, o := range r.d.Operators() {
		seen := false // at this operator: before it has the block, another one there says nothing
		if err := devnet.WaitFor(waiting, fmt.Sprintf("%s to be replaced at operator %d", f, o.Index()), func(ctx context.Context) (bool, error) {
			c, err := o.Eth(chain)
			if err != nil {
				return false, err
			}
			if !seen {
				if _, err := c.HeaderByHash(ctx, f.block.hash); err != nil {
					return false, err
				}
				seen = true
			}
			h, err := c.HeaderByNumber(ctx, number)
			return err == nil && h.Hash() != f.block.hash, err
		}); err != nil {
			return err
		}
	}
	f.replaced = time.Since(begin)
	if err := r.lockstep(ctx); err != nil {
		return fmt.Errorf("after %s: %w", f, err)
	}
	f.lockstep = time.Since(begin)
	refused := "refused"
	if !f.caught {
		refused = "NOT REFUSED"
	}
	r.say("forced: %s: %s by operator %d; replaced after %.1f s, all chains on time again after %.1f s",
		f, refused, honest, f.replaced.Seconds(), f.lockstep.Seconds())
	return nil
}

// forge makes the transaction with an invalid message for a chain, from a message of another one.
func (r *run) forge(ctx context.Context, kind *forgery, chain uint64) (*forced, error) {
	// Not the villain: what is replaced goes back into the pools, where it has the nonce of the
	// villain's next one.
	s, err := r.traffic.sender(firstSender)
	if err != nil {
		return nil, err
	}
	m, ok := r.traffic.book.pick(s.rng, chain, true)
	if !kind.old {
		making, cancel := context.WithTimeout(ctx, attemptTime)
		defer cancel()
		chains := r.d.Chains()
		if m, err = s.initiate(making, chains[(slices.Index(chains, chain)+1)%len(chains)], chain); err != nil {
			return nil, err
		}
	} else if !ok {
		return nil, errors.New("no message has expired yet")
	}
	tx, err := kind.tx(chain, m)
	if err != nil {
		return nil, err
	}
	from, err := devnet.User(villain)
	if err != nil {
		return nil, err
	}
	c, err := r.d.Eth(chain)
	if err != nil {
		return nil, err
	}
	if tx.Nonce, err = c.NonceAt(ctx, from.Address, nil); err != nil {
		return nil, fmt.Errorf("nonce of %s on chain %d: %w", from.Address, chain, err)
	}
	signed, err := from.Sign(tx)
	if err != nil {
		return nil, err
	}
	raw, err := signed.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return &forced{forgery: kind, chain: chain, raw: raw, tx: signed.Hash(), agreed: make(chan struct{})}, nil
}

// gone counts forced messages that are in a chain in the end.
func (r *run) gone(ctx context.Context) error {
	for _, f := range r.forced {
		for _, o := range r.d.Operators() {
			c, err := o.Eth(f.chain)
			if err != nil {
				return err
			}
			receipt, err := c.TransactionReceipt(ctx, f.tx)
			switch {
			case err == nil:
				r.rep.find(&r.rep.WronglyExecuted, 1, "wrongly executed", "%s is in block %s at operator %d", f, receipt.BlockNumber, o.Index())
			case !errors.Is(err, ethereum.NotFound):
				return fmt.Errorf("receipt of %s at operator %d: %w", f.tx, o.Index(), err)
			}
		}
	}
	return nil
}
