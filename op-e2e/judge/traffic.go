package judge

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Accounts of the development mnemonic: the first one's messages are forced into blocks,
// the next ones send the traffic, the last one is the load's.
const (
	villain     = 0
	firstSender = 1
)

const (
	attemptTime = time.Minute // one attempt, from its first call to what became of it
	acceptTime  = 10 * time.Second
	pollTime    = 100 * time.Millisecond
)

// placed is a transaction of a chain.
type placed struct {
	chain uint64
	tx    common.Hash
}

// attempt is one try of a user to have messages executed.
type attempt struct {
	way      string   // how
	forged   *forgery // nil: it is valid
	messages int      // it has to execute
	txs      []placed // its transactions, and those that relay for it when they are known
	verdict  verdict
	rule     string // that refused it, see refuser
	why      string // what the user was told
}

func (a *attempt) String() string {
	what := "valid"
	if a.forged != nil {
		what = "forged, " + a.forged.name
	}
	for _, tx := range a.txs {
		what += fmt.Sprintf(", %s on %d", tx.tx, tx.chain)
	}
	return fmt.Sprintf("%s (%s)", a.way, what)
}

// verdict is what the user was told of an attempt.
type verdict string

const (
	executed verdict = "executed"
	refused  verdict = "refused"
	late     verdict = "late" // its slots, or its message's time, were over before it was tried
	unknown  verdict = "unknown"
)

// traffic is what users send to all operators, over all chains.
type traffic struct {
	d    *devnet.Devnet
	log  log.Logger
	book *book
	// ingress is what an engine's pool asks when it is told to, by operator.
	ingress []*gethrpc.Client
	seed    uint64

	mu       sync.Mutex
	attempts []*attempt
}

func newTraffic(ctx context.Context, d *devnet.Devnet, expiry time.Duration, seed uint64, l log.Logger) (*traffic, error) {
	t := &traffic{d: d, log: l, book: &book{expiry: expiry}, seed: seed}
	for _, o := range d.Operators() {
		c, err := gethrpc.DialContext(ctx, o.SharedSequencerURL())
		if err != nil {
			t.close()
			return nil, fmt.Errorf("operator %d: %w", o.Index(), err)
		}
		t.ingress = append(t.ingress, c)
	}
	return t, nil
}

func (t *traffic) close() {
	for _, c := range t.ingress {
		c.Close()
	}
}

// send sends until ctx ends, and returns when it is known what became of everything.
func (t *traffic) send(ctx context.Context) error {
	ways := []func(*sender, context.Context) error{
		(*sender).relays, (*sender).relays, (*sender).later, (*sender).later,
		(*sender).forgedBundle, (*sender).forgedBundle, (*sender).forgedTransaction, (*sender).forgedTransaction,
	}
	senders := make([]*sender, len(ways))
	for i := range ways {
		var err error
		if senders[i], err = t.sender(firstSender + uint64(i)); err != nil {
			return err
		}
	}
	var all sync.WaitGroup
	for i, way := range ways {
		s := senders[i]
		all.Go(func() {
			for ctx.Err() == nil {
				// What was sent is followed to its end, also when the time is over.
				one, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTime)
				err := way(s, one)
				cancel()
				if err == nil {
					continue
				}
				t.log.Warn("Attempt came to nothing", "from", s.account.Address, "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(pollTime):
				}
			}
		})
	}
	all.Wait()
	return nil
}

func (t *traffic) add(a *attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts = append(t.attempts, a)
	t.log.Info("Attempt", "what", a, "verdict", a.verdict, "rule", a.rule, "why", a.why)
}

// sender is one account, which does one thing at a time.
type sender struct {
	t       *traffic
	account devnet.Account
	rng     *rand.Rand
}

func (t *traffic) sender(user uint64) (*sender, error) {
	a, err := devnet.User(user)
	if err != nil {
		return nil, err
	}
	return &sender{t, a, rand.New(rand.NewPCG(t.seed, user))}, nil
}

// operator is one of them, whoever leads.
func (s *sender) operator() *devnet.Operator {
	return s.t.d.Operator(s.rng.IntN(len(s.t.d.Operators())))
}

// chains are the rollups in a random order.
func (s *sender) chains() []uint64 {
	var out []uint64
	for _, i := range s.rng.Perm(len(s.t.d.Chains())) {
		out = append(out, s.t.d.Chains()[i])
	}
	return out
}

// item of a bundle: a transaction, or a relay step on its chain.
type item struct {
	from  devnet.Account
	tx    devnet.Tx
	relay bool
}

// relays sends a message from one chain to another in one slot, and in half of the cases
// what arrives there on to the third.
func (s *sender) relays(ctx context.Context) error {
	a := &attempt{way: "bundle: relay"}
	items, _, err := s.relayed(a, 1+s.rng.IntN(2))
	if err != nil {
		return err
	}
	return s.bundle(ctx, a, items)
}

// relayed are the items that take ETH over some chains, to accounts that nobody has used; the
// last of them sends some of it back. It returns where that is.
func (s *sender) relayed(a *attempt, hops int) ([]item, uint64, error) {
	chains, from, value := s.chains(), s.account, ether(1)
	var items []item
	for i := range hops {
		to, err := devnet.FreshAccount()
		if err != nil {
			return nil, 0, err
		}
		items = append(items,
			item{from: from, tx: devnet.SendETH(chains[i], 0, to.Address, chains[i+1], value)},
			item{tx: devnet.Tx{Chain: chains[i+1]}, relay: true})
		from, value = to, new(big.Int).Div(value, big.NewInt(2))
	}
	a.messages += hops
	if hops > 1 {
		a.way += fmt.Sprintf(" over %d chains", hops+1)
	}
	return append(items, item{from: from, tx: devnet.Transfer(chains[hops], 0, s.account.Address, value)}), chains[hops], nil
}

// later executes a message that is in an earlier block, by a transaction of the user's own:
// alone in a bundle, or through an engine's pool.
func (s *sender) later(ctx context.Context) error {
	chains := s.chains()
	m, err := s.initiate(ctx, chains[0], chains[1])
	if err != nil {
		return err
	}
	tx, err := devnet.ValidateMessage(chains[1], 0, m, true)
	if err != nil {
		return err
	}
	if s.rng.IntN(2) == 0 {
		return s.bundle(ctx, &attempt{way: "bundle: execution", messages: 1}, []item{{from: s.account, tx: tx}})
	}
	return s.transaction(ctx, &attempt{way: "pool: execution", messages: 1}, m, tx)
}

// forge chooses a message and a way to spoil it.
func (s *sender) forge(ctx context.Context, chain uint64) (m messages.Message, f *forgery, err error) {
	kinds := forgeries()
	// Until a message has been sent, and as long as none has expired, there is not every kind.
	err = devnet.WaitFor(ctx, "a message to forge", func(context.Context) (ok bool, _ error) {
		f = kinds[s.rng.IntN(len(kinds))]
		m, ok = s.t.book.pick(s.rng, chain, f.old)
		return ok, nil
	})
	return m, f, err
}

// forgedBundle sends an invalid execution in a bundle; in some cases behind a relay that is
// valid, of which nothing may stay either.
func (s *sender) forgedBundle(ctx context.Context) error {
	a, chain := &attempt{way: "bundle: execution"}, s.chains()[0]
	var items []item
	if s.rng.IntN(3) == 0 {
		var err error
		a.way = "bundle: relay, execution"
		if items, chain, err = s.relayed(a, 1); err != nil {
			return err
		}
	}
	m, f, err := s.forge(ctx, chain)
	if err != nil {
		return err
	}
	tx, err := f.tx(chain, m)
	if err != nil {
		return err
	}
	a.forged, a.messages = f, 1 // the relay is not counted: it is nothing without the rest
	return s.bundle(ctx, a, append(items, item{from: s.account, tx: tx}))
}

// forgedTransaction sends an invalid execution to an engine's pool, which takes it in: the
// engines of a devnet ask nobody. Leaders have to leave it out.
func (s *sender) forgedTransaction(ctx context.Context) error {
	chain := s.chains()[0]
	m, f, err := s.forge(ctx, chain)
	if err != nil {
		return err
	}
	if f.rule != 0 && !f.asked() {
		return nil // nobody would say which rule has kept it out
	}
	tx, err := f.tx(chain, m)
	if err != nil {
		return err
	}
	return s.transaction(ctx, &attempt{way: "pool: execution", forged: f, messages: 1}, m, tx)
}

// sign makes what is sent of a bundle. Nonces follow what all operators' heads show: the
// account has nothing else on its way.
func (s *sender) sign(ctx context.Context, items []item) (rpc.BundleArgs, []placed, error) {
	type place struct {
		chain uint64
		addr  common.Address
	}
	next := map[place]uint64{}
	var args rpc.BundleArgs
	var txs []placed
	for _, it := range items {
		chain := sequence.ChainID(it.tx.Chain)
		if it.relay {
			args.Items = append(args.Items, rpc.RelayStep(chain))
			continue
		}
		at := place{it.tx.Chain, it.from.Address}
		if _, ok := next[at]; !ok {
			c, err := s.t.d.Eth(at.chain)
			if err != nil {
				return args, nil, err
			}
			if next[at], err = c.NonceAt(ctx, at.addr, nil); err != nil {
				return args, nil, fmt.Errorf("nonce of %s on chain %d: %w", at.addr, at.chain, err)
			}
		}
		it.tx.Nonce = next[at]
		next[at]++
		tx, err := it.from.Sign(it.tx)
		if err != nil {
			return args, nil, err
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			return args, nil, err
		}
		args.Items = append(args.Items, rpc.Transaction(chain, raw))
		txs = append(txs, placed{it.tx.Chain, tx.Hash()})
	}
	return args, txs, nil
}

// bundle sends a bundle to an operator and follows it to its end.
func (s *sender) bundle(ctx context.Context, a *attempt, items []item) error {
	args, txs, err := s.sign(ctx, items)
	if err != nil {
		return err
	}
	c, err := s.operator().Sequencer(ctx)
	if err != nil {
		return err
	}
	a.txs, a.verdict = txs, unknown
	defer s.t.add(a)
	sent, err := c.SendBundle(ctx, args)
	if err != nil {
		a.why = err.Error()
		if rpc.ErrorCode(err) != 0 {
			a.verdict, a.rule = refused, refuser(a.why)
		}
		return nil
	}
	st, err := c.WaitBundle(ctx, sent.BundleHash)
	if err != nil {
		a.why = err.Error()
		return nil
	}
	if st.Failure != nil {
		a.why = st.Failure.Reason
		a.rule = refuser(a.why)
	}
	switch st.State {
	case bundlepool.Executed, bundlepool.Safe:
		a.verdict, a.txs = executed, nil
		for _, it := range st.Items {
			a.txs = append(a.txs, placed{uint64(it.ChainID), it.TxHash})
		}
		for _, p := range a.txs {
			if _, err := s.t.mined(ctx, p); err != nil {
				a.why = err.Error()
			}
		}
	case bundlepool.Failed:
		a.verdict = refused
	case bundlepool.Expired:
		a.verdict = late
	default:
		a.why = fmt.Sprintf("the bundle is %s: %s", st.State, a.why)
	}
	return nil
}

// transaction sends a transaction that executes m to an engine's pool, and waits until it is
// in a block or in nobody's pool.
func (s *sender) transaction(ctx context.Context, a *attempt, m messages.Message, tx devnet.Tx) error {
	o := s.operator()
	if a.forged == nil {
		// Right after its block the message is not in every operator's history yet.
		waiting, cancel := context.WithTimeout(ctx, acceptTime)
		defer cancel()
		if err := devnet.WaitFor(waiting, fmt.Sprintf("the ingress check of operator %d", o.Index()), func(ctx context.Context) (bool, error) {
			err := s.t.check(ctx, o, tx)
			return err == nil, err
		}); err != nil {
			a.verdict, a.why, a.rule = refused, err.Error(), refuser(err.Error())
			s.t.add(a)
			return nil
		}
	} else if a.forged.asked() {
		if err := s.t.check(ctx, o, tx); err != nil {
			a.why, a.rule = err.Error(), refuser(err.Error())
		} else {
			a.why = "the ingress check has nothing against it"
		}
	}
	c, err := o.Eth(tx.Chain)
	if err != nil {
		return err
	}
	if tx.Nonce, err = c.NonceAt(ctx, s.account.Address, nil); err != nil {
		return err
	}
	signed, err := s.account.Sign(tx)
	if err != nil {
		return err
	}
	if err := c.SendTransaction(ctx, signed); err != nil {
		return fmt.Errorf("chain %d, pool of operator %d: %w", tx.Chain, o.Index(), err) // it was not sent
	}
	p := placed{tx.Chain, signed.Hash()}
	a.txs, a.verdict = []placed{p}, unknown
	defer s.t.add(a)
	receipt, err := s.t.mined(ctx, p)
	switch {
	case errors.Is(err, errDropped) && a.forged == nil && age(&m) > s.t.book.expiry:
		a.verdict, a.why = late, err.Error()
	case errors.Is(err, errDropped) && a.forged == nil:
		a.verdict, a.why = refused, err.Error()
	case errors.Is(err, errDropped) && a.rule != "":
		a.verdict = refused
	case err != nil:
		a.why = err.Error()
	case receipt.Status == types.ReceiptStatusSuccessful:
		a.verdict = executed
	default: // the contract has reverted: there is no executing message
		a.verdict, a.rule = refused, byContract
	}
	return nil
}

// check asks an operator what an engine's pool asks about a transaction that executes
// messages (op-geth: --rollup.interoprpc).
func (t *traffic) check(ctx context.Context, o *devnet.Operator, tx devnet.Tx) error {
	c, err := o.Eth(tx.Chain)
	if err != nil {
		return err
	}
	head, err := c.HeaderByNumber(ctx, nil)
	if err != nil {
		return err
	}
	in := messages.ExecutingDescriptor{
		ChainID: eth.ChainIDFromUInt64(tx.Chain), Timestamp: head.Time + t.d.Genesis().Rollup[tx.Chain].BlockTime,
	}
	return t.ingress[o.Index()].CallContext(ctx, nil, "supervisor_checkAccessList", tx.AccessList[0].StorageKeys, safety.CrossUnsafe, in)
}

// errDropped: a transaction is in no block, and in no operator's pool any more.
var errDropped = errors.New("all pools have dropped it")

// dropTime is for how long a transaction has to be nowhere: one look may miss it on its way
// from a pool into a block, or to another operator.
const dropTime = 2 * time.Second

// mined waits until a transaction is in a block of every operator's chain, and their heads show
// it. It fails with errDropped when that will not come.
func (t *traffic) mined(ctx context.Context, p placed) (*types.Receipt, error) {
	var receipt *types.Receipt
	var nowhere time.Time // since when
	err := devnet.WaitFor(ctx, fmt.Sprintf("transaction %s on chain %d", p.tx, p.chain), func(ctx context.Context) (bool, error) {
		gone, in := 0, 0
		for _, o := range t.d.Operators() {
			c, err := o.Eth(p.chain)
			if err != nil {
				return false, err
			}
			// What is in a block is found, too.
			_, pending, err := c.TransactionByHash(ctx, p.tx)
			switch {
			case errors.Is(err, ethereum.NotFound):
				gone++
				continue
			case err != nil:
				return false, err
			case pending:
				continue
			}
			if receipt, err = c.TransactionReceipt(ctx, p.tx); err != nil {
				return false, err
			}
			if head, err := c.BlockNumber(ctx); err != nil || head < receipt.BlockNumber.Uint64() {
				return false, err
			}
			in++
		}
		switch {
		case gone < len(t.d.Operators()):
			nowhere = time.Time{}
		case nowhere.IsZero():
			nowhere = time.Now()
		}
		return in == len(t.d.Operators()) || !nowhere.IsZero() && time.Since(nowhere) > dropTime, nil
	})
	if err == nil && !nowhere.IsZero() {
		return nil, errDropped
	}
	return receipt, err
}

// initiate sends a message by a plain transaction through an engine's pool, and returns it
// when its block is everywhere.
func (s *sender) initiate(ctx context.Context, source, dest uint64) (messages.Message, error) {
	var none messages.Message
	fail := func(err error) (messages.Message, error) {
		return none, fmt.Errorf("sending a message on chain %d: %w", source, err)
	}
	c, err := s.operator().Eth(source)
	if err != nil {
		return fail(err)
	}
	nonce, err := c.NonceAt(ctx, s.account.Address, nil)
	if err != nil {
		return fail(err)
	}
	tx, err := s.account.Sign(devnet.SendETH(source, nonce, s.account.Address, dest, big.NewInt(1)))
	if err != nil {
		return fail(err)
	}
	if err := c.SendTransaction(ctx, tx); err != nil {
		return fail(err)
	}
	r, err := s.t.mined(ctx, placed{source, tx.Hash()})
	if err != nil {
		return fail(err)
	}
	for _, l := range r.Logs {
		if l.Address != predeploys.L2toL2CrossDomainMessengerAddr {
			continue
		}
		m := messages.Message{
			Identifier: messages.Identifier{
				Origin: l.Address, BlockNumber: l.BlockNumber, LogIndex: uint32(l.Index), ChainID: eth.ChainIDFromUInt64(source),
				Timestamp: slotOf(s.t.d, source, l.BlockNumber),
			},
			PayloadHash: crypto.Keccak256Hash(messages.LogToMessagePayload(l)),
		}
		s.t.book.add(m)
		return m, nil
	}
	return fail(fmt.Errorf("transaction %s has status %d and sent none", tx.Hash(), r.Status))
}

// slotOf is the timestamp of a chain's block.
func slotOf(d *devnet.Devnet, chain, number uint64) uint64 {
	r := d.Genesis().Rollup[chain]
	return r.Genesis.L2Time + number*r.BlockTime
}

func ether(n int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(1e18)) }
