// Package bundlepool holds the bundles an operator was sent and what became of them.
//
// A bundle is in one state at a time:
//
//	            Add                    Done(Retry): stays, behind the others
//	             │                          ┌──┐
//	             ▼                          ▼  │
//	┌───────► pending ──────────────────────┴──┘
//	│          │ │ │
//	│          │ │ └─ Advance past the expiry ──► expired  final
//	│          │ └─── Done(Fail), 3rd timeout ──► failed   final; Add may send it again
//	│          │      Cancel ───────────────────► cancelled  final
//	│          │      Add of another that replaces it ► replaced  final
//	│          └───── Done(Execute) ────────────► executed
//	│                                              │  │
//	│  Replaced, expiry not passed or half left    │  └─ Settled on all its chains ──► safe
//	├──────────────────────────────────────────────┤                                    │
//	│                                              │       Replaced, as from executed   │
//	│                                              ◄────────────────────────────────────┘
//	│                                              │
//	│                                              └─ Replaced, otherwise ──────► undone  final
//	│                                                                                │
//	└──────────────── Add, expiry not passed ────────────────────────────────────────┘
//
// A bundle that was executed, was put back by Replaced, and then fails or expires
// ends as undone, not as failed or expired: its sender saw it executed once.
//
// Done(Execute) is accepted in every state: what is in agreed blocks is a fact,
// also when the bundle's expiry has passed in the meantime.
//
// Half bundles. An invalidation replaces the blocks of one chain, and what the bundle
// did on the others stands. All or nothing then means all: the builder completes such a
// bundle. So its expiry, which says when it may begin, does not end it while a block of
// its last execution stands. It ends when it is executed or fails, when the other
// blocks are replaced as well and its expiry has passed, or when Config.UndoneRetention
// has passed since it was undone. An L1 reorg takes the chains back one by one: between
// the two calls of Replaced a bundle is half for a moment.
//
// Reservation. The transactions of a bundle must not run alone, and a reorg of an
// engine puts those that were in replaced blocks back into its transaction pool. So
// Reserved names what a pool fill has to leave out: the transactions of every bundle
// of which an execution was replaced, until it is settled or forgotten, those of its relay
// steps included; and of every bundle that was executed in the slot that is filled, or in a
// later one. Such an execution is not in the block below, whether it was replaced already or
// Replaced is still to be called: after an L1 reorg, or when a slot that was agreed on in
// part is given up. One of an earlier slot is below, where nonces keep its transactions out: a
// chain's blocks follow each other without gaps, so what goes on a block in which it is not
// has its slot, or an earlier one. The transactions of bundles that were never in a
// block are reserved too, so that a fill does not spoil them, but each transaction only
// for Config.Hold: bundles are anonymous and cost nothing when they fail, and without
// that bound anybody could keep a stranger's published transaction, and the later ones
// of its sender, out of the blocks by naming it in bundles that cannot run. Of them
// Config.MaxReserved are reserved on a chain at a time, those of the earliest bundles: a
// fill looks at all of them. What was in a replaced block is reserved without such a limit.
//
// Fairness. A slot has time for some bundles only, and an attempt that comes to nothing
// costs its sender nothing. So a bundle that was put off goes behind those that were put
// off less often, and one whose attempts run out of time, which takes the most from the
// others, fails at the third such attempt.
//
// Replacement. Of bundles with the same Terms.ReplacementID, signed by the same account, one
// waits at a time. Another takes its place if it bids enough more: see Bid. One that was
// cancelled or replaced is not taken again, so that what comes late over another way does
// not bring it back.
//
// Two pending bundles may have a transaction in common: searchers compete for a place
// behind the same one. The first that is executed wins; the other then fails with the
// engine's reason. Limits per sender keep such competition small.
//
// The pool reads no clock and does no I/O but Save and Load: the caller says which slot
// it is with Advance. After an L1 reorg slots are built again, so slots may go back.
package bundlepool

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"sync"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Config says which bundles a pool takes. Spans of slots are in seconds, as slots are
// L2 timestamps. A zero limit takes the value of DefaultConfig.
type Config struct {
	Chains []sequence.ChainID // the interop set

	MaxBundles     int           // bundles pending at a time
	MaxBytes       int           // of all pending bundles together, encoded
	MaxPerSender   int           // pending bundles that have a transaction of the same sender
	MaxItems       int           // items of one bundle
	MaxBundleBytes int           // one bundle, encoded
	MaxTxBytes     int           // one transaction
	MaxTxGas       uint64        // gas limit of one transaction
	MaxGas         uint64        // gas limits of one bundle's transactions together, relay steps aside
	MaxAhead       sequence.Slot // how far after the current slot an expiry may be
	Hold           sequence.Slot // how long a transaction never executed before is reserved
	MaxReserved    int           // how many of these are reserved on one chain at a time

	Retention       sequence.Slot // how long failed, expired and safe bundles are remembered
	UndoneRetention sequence.Slot // how long undone bundles are remembered and reserved, and half ones may be completed
	MaxFinished     int           // failed, expired and safe bundles remembered at most; the oldest go first
	MaxFinishedSize int           // their bytes together

	Metrics Metrics // optional
	Watcher Watcher // optional
	// Arrived is told of each bundle that is taken in. It must not block. Optional.
	Arrived func(bundle common.Hash)
}

// DefaultConfig is sized for chains with 1 s blocks: Retention outlasts L1 finality, so
// a safe bundle is still known when its block could be replaced. MaxTxGas is EIP-7825's
// limit, and MaxGas leaves room in a block for what is not in bundles.
func DefaultConfig(chains ...sequence.ChainID) Config {
	return Config{
		Chains: chains, MaxBundles: 4096, MaxBytes: 64 << 20, MaxPerSender: 32, MaxItems: 32,
		MaxBundleBytes: 512 << 10, MaxTxBytes: 128 << 10, MaxTxGas: params.MaxTxGas, MaxGas: 30_000_000,
		MaxAhead: 600, Hold: 4, MaxReserved: 4096,
		Retention: 3600, UndoneRetention: 24 * 3600, MaxFinished: 16384, MaxFinishedSize: 64 << 20,
	}
}

func (c Config) withDefaults() Config {
	def := DefaultConfig()
	for _, f := range []struct{ have, def *int }{
		{&c.MaxBundles, &def.MaxBundles}, {&c.MaxBytes, &def.MaxBytes}, {&c.MaxPerSender, &def.MaxPerSender},
		{&c.MaxItems, &def.MaxItems}, {&c.MaxBundleBytes, &def.MaxBundleBytes}, {&c.MaxTxBytes, &def.MaxTxBytes},
		{&c.MaxReserved, &def.MaxReserved}, {&c.MaxFinished, &def.MaxFinished}, {&c.MaxFinishedSize, &def.MaxFinishedSize},
	} {
		*f.have = cmp.Or(*f.have, *f.def)
	}
	c.MaxTxGas = cmp.Or(c.MaxTxGas, def.MaxTxGas)
	c.MaxGas = cmp.Or(c.MaxGas, def.MaxGas)
	c.MaxAhead = cmp.Or(c.MaxAhead, def.MaxAhead)
	c.Hold = cmp.Or(c.Hold, def.Hold)
	c.Retention = cmp.Or(c.Retention, def.Retention)
	c.UndoneRetention = cmp.Or(c.UndoneRetention, def.UndoneRetention)
	if c.Metrics == nil {
		c.Metrics = NoMetrics{}
	}
	return c
}

// State is where a bundle stands; the package comment has the transitions.
type State string

const (
	Pending  State = "pending"  // waits to be executed
	Executed State = "executed" // in agreed blocks that are not safe yet
	Safe     State = "safe"     // its blocks are settled on all its chains
	Failed   State = "failed"   // a transaction could not be included or reverted; no chain has any of it
	Expired  State = "expired"  // its last slot passed before it was executed
	Undone   State = "undone"   // it was executed, its blocks were replaced, and it was not executed again

	Cancelled State = "cancelled" // one of its senders took it back before it was executed
	Replaced  State = "replaced"  // another of the same replacement ID waits instead
)

// Final says whether the sender has nothing more to wait for. A safe bundle is final
// as far as L1 is.
func (s State) Final() bool { return s != Pending && s != Executed }

// OutcomeKind says what an attempt at a bundle came to.
type OutcomeKind uint8

const (
	// Retry: it did not fit, or a chain was not there; it is tried again until it expires,
	// or until it has run out of time too often: see Failure.Timeout.
	Retry OutcomeKind = iota + 1
	// Fail: a transaction could not be included or reverted.
	Fail
	// Execute: all of it is in the slot's agreed blocks.
	Execute
)

// Outcome is what an attempt at a bundle came to. With Retry and Fail, Result.Failed
// has the reason; with Execute, Result.Slot and Result.Items say where its
// transactions are, with at least one item on each of its chains.
type Outcome struct {
	Kind   OutcomeKind
	Result BundleResult
}

// BundleResult is what executing a bundle in a slot came to. It executed if Failed is nil.
type BundleResult struct {
	Slot sequence.Slot
	// Items are the transactions in the order they ran. A relay step has one for each
	// message it executed. After a failure they end with the one that failed, if it
	// got as far as the engine.
	Items  []ItemResult
	Failed *Failure
}

// ItemResult is the outcome of one transaction of a bundle.
type ItemResult struct {
	Item         int // index of the bundle's item
	Chain        sequence.ChainID
	TxHash       common.Hash
	BlockNumber  uint64
	Status       uint64 // as in a receipt: 1 succeeded, 0 reverted
	GasUsed      uint64
	Logs         []*types.Log // not kept by the pool
	ReturnData   []byte       // what it returned or reverted with; not kept by the pool
	Position     uint64       // in its block; of a simulation only
	RevertReason string       // readable, empty if it did not revert
}

// Failure says why a bundle did not execute.
type Failure struct {
	Item       int // index of the bundle's item, -1 if none is to blame
	Chain      sequence.ChainID
	TxHash     common.Hash // zero if it never came to a transaction
	Reason     string      // one line; of a revert, the decoded reason
	ReturnData []byte      // what the transaction reverted with
	// Timeout: the bundle itself took more time than there was. With Retry it counts, and
	// at the third time since the bundle was sent or last executed it is a Fail.
	Timeout bool
}

// Status is what the pool knows of a bundle.
type Status struct {
	Hash     common.Hash
	State    State
	Expiry   sequence.Slot
	Attempts uint64 // how often it was tried, the last time included
	Undone   uint64 // how many executions of it were replaced, as a whole or in part
	// Slot and Items are of the execution in agreed blocks; in the states pending and
	// undone, of the one that was replaced, on some of its chains at least. Without logs
	// and return data.
	Slot  sequence.Slot
	Items []ItemResult
	// Failure is why it failed, or in state pending why the last attempt was put off.
	Failure *Failure
	// ReplacedBy is the bundle that took its place, in state replaced.
	ReplacedBy common.Hash
}

// Errors of Add, Cancel and Done that are not about the bundle itself.
var (
	// ErrPoolFull: the pool has no room for the bundle now.
	ErrPoolFull = errors.New("bundle pool is full")
	// ErrSenderLimit: a sender in the bundle has too many pending bundles.
	ErrSenderLimit = errors.New("too many pending bundles of one sender")
	// ErrUnknownBundle: never received, or finished so long ago that it was forgotten.
	ErrUnknownBundle = errors.New("unknown bundle")
	// ErrNotPending: the bundle has already come to an end.
	ErrNotPending = errors.New("bundle is not pending")
	// ErrCancelled: the bundle was cancelled or replaced, and is not taken again.
	ErrCancelled = errors.New("bundle was cancelled or replaced")
	// ErrUnderpriced: another bundle of the same replacement ID waits, or was executed, and
	// this one does not bid enough to take its place.
	ErrUnderpriced = errors.New("bid is too low to replace a bundle")
	// ErrNotSender: who signed the cancellation sent no transaction of the bundle.
	ErrNotSender = errors.New("not signed by a sender of the bundle")
	// ErrBadOutcome: an outcome that does not fit its bundle.
	ErrBadOutcome = errors.New("outcome does not fit the bundle")
)

// chainTx names a transaction on a chain.
type chainTx struct {
	Chain sequence.ChainID
	Tx    common.Hash
}

// record is a bundle and what became of it.
type record struct {
	entry    *Entry
	state    State
	attempts uint64
	undone   uint64
	slot     sequence.Slot // of the execution
	items    []ItemResult
	failure  *Failure
	// Since it was sent or last executed:
	putOff   uint64 // attempts that were put off
	timeouts uint64 // those of them that ran out of time
	// spent are transactions that were in agreed blocks and are not, or may not be,
	// among the bundle's own: those its relay steps made.
	spent []chainTx
	// Of the last execution, if it was undone:
	gone     []sequence.ChainID // chains whose block was replaced
	undoneAt sequence.Slot      // when the first of them was
	finished sequence.Slot      // when it came to its end
	by       common.Hash        // what replaced it
	turn     uint64             // of the finished queue, to tell stale entries of it
}

// half says whether some of the blocks of an execution that was undone stand.
func (r *record) half() bool {
	return len(r.gone) > 0 && slices.ContainsFunc(r.items, func(it ItemResult) bool { return !slices.Contains(r.gone, it.Chain) })
}

// lost notes that a chain's blocks from number on were replaced, and says whether a
// block of the last execution was among them that was not known to be gone.
func (r *record) lost(chain sequence.ChainID, number uint64) bool {
	if slices.Contains(r.gone, chain) || !slices.ContainsFunc(r.items, func(it ItemResult) bool {
		return it.Chain == chain && it.BlockNumber >= number
	}) {
		return false
	}
	r.gone = append(r.gone, chain)
	return true
}

// Pool holds bundles. Its methods may be called concurrently.
type Pool struct {
	cfg    Config
	log    log.Logger
	chains map[sequence.ChainID]*rules

	saveMu sync.Mutex // orders Save calls
	saved  uint64     // version that is on disk
	disk   *disk      // what Save last wrote; nil: it has to write all

	mu      sync.Mutex
	slot    sequence.Slot
	arrival uint64
	version uint64                                    // of what Snapshot holds
	live    map[common.Hash]*record                   // pending, executed, undone
	waiting []*record                                 // those pending, by arrival
	before  map[common.Hash]*record                   // those of which an execution was replaced
	stand   map[sequence.Slot]map[common.Hash]*record // those executed and never replaced, by their slot
	done    map[common.Hash]*record                   // failed, expired, safe
	queue   []finished                                // of done, in order of ending; may have stale entries
	turns   uint64

	restoring bool // what moves is counted already
	doneBytes int
	changed   chan struct{} // closed when a bundle becomes pending, then made anew
	bytes     int
	senders   map[common.Address]int // pending bundles by sender
	named     map[Name]*record       // pending and executed bundles by replacement ID
	// gone are bundles that were cancelled or replaced, and when they expire: until then they
	// are not taken again, whatever else is forgotten of them.
	gone     map[common.Hash]sequence.Slot
	settled  map[sequence.ChainID]uint64 // number of the newest settled block
	heldFrom map[chainTx]sequence.Slot   // first slot a never executed transaction was reserved in
}

type finished struct {
	hash common.Hash
	turn uint64
}

// New makes an empty pool at slot 0: Advance before the first Add.
func New(cfg Config, logger log.Logger) *Pool {
	p := &Pool{
		cfg: cfg.withDefaults(), log: logger, chains: map[sequence.ChainID]*rules{},
		live: map[common.Hash]*record{}, before: map[common.Hash]*record{}, stand: map[sequence.Slot]map[common.Hash]*record{}, done: map[common.Hash]*record{}, senders: map[common.Address]int{}, named: map[Name]*record{}, gone: map[common.Hash]sequence.Slot{},
		settled: map[sequence.ChainID]uint64{}, heldFrom: map[chainTx]sequence.Slot{},
		saved:   math.MaxUint64, // so that the first Save writes
		changed: make(chan struct{}),
	}
	for _, c := range cfg.Chains {
		p.chains[c] = newRules(c)
	}
	return p
}

// Slot is the slot the last Advance named.
func (p *Pool) Slot() sequence.Slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slot
}

// Add takes a bundle in. It is idempotent: for a bundle that is pending, executed or
// safe already it only returns the hash. A failed or undone bundle starts again. One with a
// replacement ID takes the place of the one that waits under it.
// Errors: *InvalidError, ErrPoolFull, ErrSenderLimit, ErrCancelled, ErrUnderpriced. The bundle
// is not to be changed afterwards.
func (p *Pool) Add(b *sequence.Bundle) (common.Hash, error) {
	hash, err := p.add(b)
	if err != nil {
		p.cfg.Metrics.BundleRefused(Reason(err))
	}
	return hash, err
}

func (p *Pool) add(b *sequence.Bundle) (common.Hash, error) {
	e, err := p.Check(b) // before locking: recovering signatures takes most of the time
	if err != nil {
		return common.Hash{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.checkExpiry(b); err != nil { // the slot may have moved on meanwhile
		return common.Hash{}, err
	}
	r := p.get(e.Hash)
	if r != nil && (r.state == Pending || r.state == Executed || r.state == Safe) {
		return e.Hash, nil
	}
	if _, ok := p.gone[e.Hash]; ok {
		return common.Hash{}, fmt.Errorf("%w: %s", ErrCancelled, e.Hash)
	}
	old, err := p.replaces(e)
	if err != nil {
		return common.Hash{}, err
	}
	if old != nil {
		// Its room is the new one's, also if that finds none: its sender wants it gone.
		old.by = e.Hash
		p.move(old, Replaced)
		p.log.Debug("Bundle replaced", "bundle", old.entry.Hash, "by", e.Hash)
	}
	if len(p.waiting) >= p.cfg.MaxBundles || p.bytes+e.Size > p.cfg.MaxBytes {
		return common.Hash{}, fmt.Errorf("%w: %d bundles with %d bytes wait, at most %d with %d bytes may; send it again later",
			ErrPoolFull, len(p.waiting), p.bytes, p.cfg.MaxBundles, p.cfg.MaxBytes)
	}
	for _, s := range e.distinctSenders() {
		if p.senders[s] >= p.cfg.MaxPerSender {
			return common.Hash{}, fmt.Errorf("%w: %s has %d, at most %d may wait; send it again later",
				ErrSenderLimit, s, p.senders[s], p.cfg.MaxPerSender)
		}
	}
	if r == nil {
		r = &record{entry: e}
	}
	p.arrival++
	e.Arrival = p.arrival
	r.entry, r.attempts, r.putOff, r.timeouts, r.failure = e, 0, 0, 0, nil
	p.move(r, Pending)
	if p.cfg.Arrived != nil {
		p.cfg.Arrived(e.Hash)
	}
	p.log.Debug("Bundle added", "bundle", e.Hash, "items", len(b.Items), "expiry", b.Expiry, "pending", len(p.waiting))
	return e.Hash, nil
}

// minRaise is by how much more, in percent, a bundle must bid than the one it replaces: what
// every operator passes on and checks has to cost its sender something.
const minRaise = 10

// replaces finds the pending bundle that another takes the place of, nil if there is none.
// Callers hold the lock.
func (p *Pool) replaces(e *Entry) (*record, error) {
	n, ok := e.Name()
	if !ok || p.named[n] == nil {
		return nil, nil
	}
	old := p.named[n]
	if old.state != Pending || old.undone > 0 {
		return nil, fmt.Errorf("%w: %s was executed in slot %d under the replacement ID %s", ErrUnderpriced, old.entry.Hash, old.slot, n.ID)
	}
	least := new(big.Int).Mul(old.entry.Bid, big.NewInt(100+minRaise))
	if least.Div(least, big.NewInt(100)); e.Bid.Cmp(least) < 0 || e.Bid.Cmp(old.entry.Bid) <= 0 {
		return nil, fmt.Errorf("%w: it bids %d wei, %s waits under the replacement ID %s with %d wei, expected %d %% more",
			ErrUnderpriced, e.Bid, old.entry.Hash, n.ID, old.entry.Bid, minRaise)
	}
	return old, nil
}

// Cancel takes a pending bundle back. signature is one of its senders', over CancelText.
// It is idempotent. Errors: ErrUnknownBundle, ErrNotPending, ErrNotSender.
func (p *Pool) Cancel(hash common.Hash, signature []byte) error {
	signer, err := signerOf(CancelText(hash), signature)
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrNotSender, hash, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.get(hash)
	switch {
	case r == nil:
		return fmt.Errorf("%w %s", ErrUnknownBundle, hash)
	case !slices.Contains(r.entry.distinctSenders(), signer):
		return fmt.Errorf("%w %s: signed by %s", ErrNotSender, hash, signer)
	case r.state == Cancelled:
		return nil
	case r.state != Pending || r.undone > 0: // what was executed once has its own end
		return fmt.Errorf("%w: %s is %s", ErrNotPending, hash, r.state)
	}
	p.move(r, Cancelled)
	p.log.Debug("Bundle cancelled", "bundle", hash, "by", signer)
	return nil
}

// CancelText is what a sender signs, as a personal message (EIP-191), to take a bundle back.
func CancelText(hash common.Hash) string { return "Cancel bundle " + hash.Hex() }

func signerOf(text string, signature []byte) (common.Address, error) {
	if len(signature) != crypto.SignatureLength {
		return common.Address{}, fmt.Errorf("signature of %d bytes, expected %d", len(signature), crypto.SignatureLength)
	}
	sig := slices.Clone(signature)
	if sig[crypto.RecoveryIDOffset] >= 27 { // as wallets give it
		sig[crypto.RecoveryIDOffset] -= 27
	}
	key, err := crypto.SigToPub(accounts.TextHash([]byte(text)), sig)
	if err != nil {
		return common.Address{}, err
	}
	return crypto.PubkeyToAddress(*key), nil
}

// Pending lists the bundles that may be executed in the slot, in the order to try them:
// those that were put off less often first, and of the same number of times those that
// arrived first. Only attempts since the last execution count, so one whose blocks were
// replaced has its old place again. A half bundle is listed past its expiry. The entries
// are shared and not to be changed.
func (p *Pool) Pending(slot sequence.Slot) []*Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	may := make([]*record, 0, len(p.waiting))
	for _, r := range p.waiting {
		if r.entry.Bundle.First() <= slot && p.lastSlot(r) >= slot {
			may = append(may, r)
		}
	}
	slices.SortStableFunc(may, func(a, b *record) int { return cmp.Compare(a.putOff, b.putOff) })
	out := make([]*Entry, len(may))
	for i, r := range may {
		out[i] = r.entry
	}
	return out
}

// lastSlot is the last one in which a pending bundle may be executed.
func (p *Pool) lastSlot(r *record) sequence.Slot {
	if !r.half() {
		return r.entry.Bundle.Expiry
	}
	return max(r.entry.Bundle.Expiry, r.undoneAt+p.cfg.UndoneRetention)
}

// Changed is closed when a bundle becomes pending. Take it before Pending, so that none is missed.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Advance says which slot is built now. Pending bundles whose expiry is before it
// end, half ones later (see the package comment); what ended long ago is forgotten. The slot may go back after a reorg, which
// does not bring bundles back by itself: see Replaced.
func (p *Pool) Advance(slot sequence.Slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slot = slot
	for h, r := range p.live {
		switch {
		case r.state == Pending && p.lastSlot(r) < slot:
			if r.failure == nil {
				what := "executed"
				if r.half() {
					what = "completed; some of its blocks were replaced"
				} else if r.undone > 0 {
					what = "executed again; its blocks were replaced"
				}
				r.failure = &Failure{Item: -1, Reason: fmt.Sprintf("last slot %d passed before it was %s", p.lastSlot(r), what)}
			}
			p.end(r, Expired)
		case r.state == Undone && r.finished+p.cfg.UndoneRetention < slot:
			p.unindex(r)
			delete(p.live, h)
			p.version++
		}
	}
	for tx, from := range p.heldFrom {
		// Not forgotten as soon as the hold is over: that would start it anew.
		if from+p.cfg.MaxAhead < slot {
			delete(p.heldFrom, tx)
		}
	}
	maps.DeleteFunc(p.gone, func(_ common.Hash, expiry sequence.Slot) bool { return expiry < slot })
	p.forget()
}

// forget drops finished bundles that are too old or too many. Callers hold the lock.
func (p *Pool) forget() {
	for len(p.queue) > 0 {
		f := p.queue[0]
		r := p.done[f.hash]
		if r != nil && r.turn == f.turn {
			if len(p.done) <= p.cfg.MaxFinished && p.doneBytes <= p.cfg.MaxFinishedSize && r.finished+p.cfg.Retention >= p.slot {
				break
			}
			delete(p.done, f.hash)
			p.doneBytes -= r.entry.Size
		}
		p.queue = p.queue[1:]
	}
	// A bundle that is sent and fails over and over leaves a stale place each time.
	if len(p.queue) > 2*len(p.done)+64 {
		p.queue = slices.DeleteFunc(p.queue, func(f finished) bool {
			r := p.done[f.hash]
			return r == nil || r.turn != f.turn
		})
	}
}

// maxTimeouts is how often a bundle may run out of time before that is a failure.
const maxTimeouts = 3

// Done records what an attempt at a bundle came to. Retry and Fail need a pending
// bundle; Execute is accepted in every state and is idempotent. The third Retry with
// Failure.Timeout is taken as a Fail.
// Errors: ErrUnknownBundle, ErrNotPending, ErrBadOutcome.
func (p *Pool) Done(hash common.Hash, o Outcome) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.get(hash)
	if r == nil {
		return fmt.Errorf("%w %s", ErrUnknownBundle, hash)
	}
	switch o.Kind {
	case Execute:
		if err := checkExecuted(r.entry, &o.Result); err != nil {
			return err
		}
		if r.state == Executed || r.state == Safe {
			if r.slot == o.Result.Slot && sameTransactions(r.items, o.Result.Items) {
				return nil
			}
			p.log.Warn("Bundle executed again before its blocks were reported as replaced", "bundle", hash, "slot", r.slot, "newSlot", o.Result.Slot)
			r.spend()
		}
		p.unindex(r) // by the slot it had
		r.attempts++
		r.slot, r.items, r.failure = o.Result.Slot, kept(o.Result.Items), nil
		r.putOff, r.timeouts, r.gone, r.undoneAt, r.by = 0, 0, nil, 0, common.Hash{}
		if n, ok := r.entry.Name(); ok {
			if other := p.named[n]; other != nil && other != r && other.state == Pending && other.undone == 0 {
				// The leader had not heard of it.
				other.failure = &Failure{Item: -1, Reason: fmt.Sprintf("%s was executed in slot %d under the same replacement ID", hash, r.slot)}
				p.end(other, Failed)
			}
		}
		p.move(r, Executed)
		p.settle(r)
		p.log.Debug("Bundle executed", "bundle", hash, "slot", r.slot, "attempts", r.attempts)
		return nil
	case Fail, Retry:
		if r.state != Pending {
			return fmt.Errorf("%w: %s is %s", ErrNotPending, hash, r.state)
		}
		if o.Result.Failed == nil {
			return fmt.Errorf("%w %s: a failure without a reason", ErrBadOutcome, hash)
		}
		r.attempts++
		r.failure = o.Result.Failed.kept()
		fails := o.Kind == Fail
		if !fails {
			r.putOff++
			if r.failure.Timeout {
				r.timeouts++
			}
			if fails = r.timeouts >= maxTimeouts; fails {
				r.failure.Reason += fmt.Sprintf(" (%d attempts ran out of time, there are no more; send a smaller bundle)", r.timeouts)
			}
		}
		if fails {
			p.end(r, Failed)
			p.log.Debug("Bundle failed", "bundle", hash, "slot", o.Result.Slot, "item", r.failure.Item, "chain", r.failure.Chain, "reason", r.failure.Reason)
		} else {
			p.version++
		}
		return nil
	default:
		return fmt.Errorf("%w %s: kind %d", ErrBadOutcome, hash, o.Kind)
	}
}

// Settled says that the chain's blocks up to number are settled: safe, or finalized if
// the caller wants to be certain. Bundles settled on all their chains are no longer
// reserved; they are remembered for the retention time and can still be replaced.
func (p *Pool) Settled(chain sequence.ChainID, number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have, ok := p.settled[chain]; ok && have >= number {
		return
	}
	p.settled[chain] = number
	p.version++
	for _, r := range p.live {
		if r.state == Executed {
			p.settle(r)
		}
	}
}

// settle makes an executed bundle safe if its blocks are. Callers hold the lock.
func (p *Pool) settle(r *record) {
	for _, it := range r.items {
		if n, ok := p.settled[it.Chain]; !ok || n < it.BlockNumber {
			return
		}
	}
	p.move(r, Safe)
}

// Replaced says that the chain's blocks from number on are no longer its own. Every
// executed bundle with a transaction in them is undone as a whole, over all its chains:
// it is pending again if its expiry has not passed or if it is half, and undone
// otherwise. A half bundle whose last standing block is among them is one like the
// others from then on, and undone if its expiry has passed: so a bundle can be in again
// of one chain's call and in undone of the next one's. After a reorg, call Advance with
// the slot the set goes back to first. The hashes come in order of arrival.
func (p *Pool) Replaced(chain sequence.ChainID, number uint64) (again, undone []common.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have, ok := p.settled[chain]; ok && have >= number {
		if number == 0 {
			delete(p.settled, chain)
		} else {
			p.settled[chain] = number - 1
		}
		p.version++
	}
	var hit []*record
	for _, m := range []map[common.Hash]*record{p.live, p.done} {
		for _, r := range m {
			if r.lost(chain, number) {
				hit = append(hit, r)
			}
		}
	}
	slices.SortFunc(hit, func(a, b *record) int { return cmp.Compare(a.entry.Arrival, b.entry.Arrival) })
	for _, r := range hit {
		p.version++
		was := r.state
		if was == Executed || was == Safe {
			r.spend()
			r.undone++
			r.undoneAt = p.slot
		}
		switch {
		case was == Undone:
		case p.lastSlot(r) < p.slot:
			r.failure = &Failure{Item: -1, Chain: chain, Reason: fmt.Sprintf(
				"block %d of chain %s was replaced after the last slot %d had passed", number, chain, r.entry.Bundle.Expiry)}
			p.end(r, Undone)
			undone = append(undone, r.entry.Hash)
		case was != Pending:
			p.move(r, Pending)
			again = append(again, r.entry.Hash)
		}
	}
	if len(again)+len(undone) > 0 {
		p.log.Warn("Blocks with bundles were replaced", "chain", chain, "from", number, "again", len(again), "undone", len(undone))
	}
	return again, undone
}

// Reserved lists the transactions that a fill of the chain's block in a slot has to leave out,
// in the order of their hashes: those of bundles that were executed and may not be in the blocks
// below, and of those that were never executed at most Config.MaxReserved, those of the earliest
// bundles. See the package comment.
func (p *Pool) Reserved(chain sequence.ChainID, slot sequence.Slot) []common.Hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []common.Hash
	fresh := map[common.Hash]struct{}{} // never executed
	for _, r := range p.waiting {
		if r.undone > 0 {
			continue
		}
		for _, tx := range r.entry.on(chain) {
			// One that finds no room is not held: its time starts when it is reserved.
			if _, ok := fresh[tx]; !ok && len(fresh) < p.cfg.MaxReserved && p.hold(chainTx{chain, tx}) {
				fresh[tx] = struct{}{}
				out = append(out, tx)
			}
		}
	}
	for at, in := range p.stand {
		if at >= slot {
			for _, r := range in {
				out = append(out, r.on(chain)...)
			}
		}
	}
	for _, r := range p.before {
		out = append(out, r.on(chain)...)
	}
	slices.SortFunc(out, common.Hash.Cmp)
	return slices.Compact(out)
}

// on lists the transactions on a chain that are the bundle's own or that its relay steps made.
func (r *record) on(chain sequence.ChainID) []common.Hash {
	out := r.entry.on(chain)
	for i := range r.items {
		if it := &r.items[i]; it.Chain == chain {
			out = append(out, it.TxHash)
		}
	}
	for _, s := range r.spent {
		if s.Chain == chain {
			out = append(out, s.Tx)
		}
	}
	return out
}

// maxHeld bounds the memory of which transactions were held. A transaction that finds no
// room is not held: then a fill may spoil a bundle, but nobody is censored.
const maxHeld = 1 << 17

// hold says whether a transaction that was never executed is reserved in this slot.
func (p *Pool) hold(id chainTx) bool {
	from, ok := p.heldFrom[id]
	if !ok {
		if len(p.heldFrom) >= maxHeld {
			return false
		}
		p.heldFrom[id] = p.slot
		return true
	}
	return p.slot < from+p.cfg.Hold
}

// Status says what became of a bundle. Error: ErrUnknownBundle.
func (p *Pool) Status(hash common.Hash) (Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.get(hash)
	if r == nil {
		return Status{}, fmt.Errorf("%w %s: never received here, or ended more than %d s ago", ErrUnknownBundle, hash, p.cfg.Retention)
	}
	return Status{
		Hash: hash, State: r.state, Expiry: r.entry.Bundle.Expiry, Attempts: r.attempts, Undone: r.undone,
		Slot: r.slot, Items: slices.Clone(r.items), Failure: r.failure.kept(), ReplacedBy: r.by,
	}, nil
}

// Get returns a bundle the pool knows, in whatever state.
func (p *Pool) Get(hash common.Hash) (*Entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.get(hash); r != nil {
		return r.entry, true
	}
	return nil, false
}

// Stats counts bundles by state, for metrics.
type Stats struct {
	Pending, Executed, Undone int
	Finished                  int // failed, expired and safe ones still remembered
	PendingBytes              int
	MaxPending, MaxBytes      int // the limits of what is pending
}

// Stats counts the bundles.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Pending: len(p.waiting), Finished: len(p.done), PendingBytes: p.bytes, MaxPending: p.cfg.MaxBundles, MaxBytes: p.cfg.MaxBytes}
	for _, r := range p.live {
		switch r.state {
		case Executed:
			s.Executed++
		case Undone:
			s.Undone++
		}
	}
	return s
}

func (p *Pool) get(hash common.Hash) *record {
	if r := p.live[hash]; r != nil {
		return r
	}
	return p.done[hash]
}

// end finishes a bundle, as undone if it was executed before.
func (p *Pool) end(r *record, s State) {
	if r.undone > 0 {
		s = Undone
	}
	p.move(r, s)
}

// move takes a record into a state, with everything that is counted by state.
func (p *Pool) move(r *record, to State) {
	e := r.entry
	place, _ := slices.BinarySearchFunc(p.waiting, e.Arrival, func(r *record, arrival uint64) int {
		return cmp.Compare(r.entry.Arrival, arrival)
	})
	if r.state == Pending {
		p.waiting = slices.Delete(p.waiting, place, place+1)
		p.bytes -= e.Size
		for _, s := range e.distinctSenders() {
			if p.senders[s]--; p.senders[s] == 0 {
				delete(p.senders, s)
			}
		}
	}
	if to == Pending {
		close(p.changed)
		p.changed = make(chan struct{})
		p.waiting = slices.Insert(p.waiting, place, r)
		p.bytes += e.Size
		for _, s := range e.distinctSenders() {
			p.senders[s]++
		}
	}
	if !p.restoring {
		p.cfg.Metrics.BundleBecame(to)
		if p.cfg.Watcher != nil {
			p.cfg.Watcher.BundleChanged(e.Hash)
		}
	}
	r.state = to
	if to == Cancelled || to == Replaced {
		p.gone[e.Hash] = e.Bundle.Expiry
	}
	if n, ok := e.Name(); ok {
		if to == Pending || to == Executed {
			p.named[n] = r
		} else if p.named[n] == r {
			delete(p.named, n)
		}
	}
	p.version++
	p.unindex(r)
	delete(p.live, e.Hash)
	if p.done[e.Hash] != nil {
		delete(p.done, e.Hash)
		p.doneBytes -= e.Size
	}
	switch to {
	case Pending, Executed:
		p.live[e.Hash] = r
	case Undone:
		p.live[e.Hash] = r
		r.finished = p.slot
	case Failed, Expired, Safe, Cancelled, Replaced:
		p.done[e.Hash] = r
		p.doneBytes += e.Size
		p.turns++
		r.turn, r.finished = p.turns, p.slot
		p.queue = append(p.queue, finished{e.Hash, r.turn})
		p.forget()
	}
	switch {
	case p.live[e.Hash] != r:
	case r.undone > 0 || len(r.spent) > 0:
		p.before[e.Hash] = r
	case to == Executed:
		if p.stand[r.slot] == nil {
			p.stand[r.slot] = map[common.Hash]*record{}
		}
		p.stand[r.slot][e.Hash] = r
	}
}

// unindex takes a record out of what Reserved looks at.
func (p *Pool) unindex(r *record) {
	delete(p.before, r.entry.Hash)
	if in := p.stand[r.slot]; in[r.entry.Hash] == r {
		delete(in, r.entry.Hash)
		if len(in) == 0 {
			delete(p.stand, r.slot)
		}
	}
}

// spend remembers the transactions of an execution that is not the last.
func (r *record) spend() {
	for _, it := range r.items {
		if id := (chainTx{it.Chain, it.TxHash}); r.entry.Transactions[it.Item] == nil && !slices.Contains(r.spent, id) {
			r.spent = append(r.spent, id)
		}
	}
}

func checkExecuted(e *Entry, res *BundleResult) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w %s: %s", ErrBadOutcome, e.Hash, fmt.Sprintf(format, args...))
	}
	if res.Failed != nil {
		return fail("executed with a failure")
	}
	blocks := map[sequence.ChainID]uint64{}
	ran := make([]bool, len(e.Transactions))
	for _, it := range res.Items {
		if it.Item < 0 || it.Item >= len(e.Transactions) || e.Bundle.Items[it.Item].Chain != it.Chain {
			return fail("no item %d on chain %s", it.Item, it.Chain)
		}
		if tx := e.Transactions[it.Item]; tx != nil && tx.Hash() != it.TxHash {
			return fail("item %d is transaction %s, not %s", it.Item, tx.Hash(), it.TxHash)
		}
		if n, ok := blocks[it.Chain]; ok && n != it.BlockNumber {
			return fail("in blocks %d and %d of chain %s", n, it.BlockNumber, it.Chain)
		}
		blocks[it.Chain] = it.BlockNumber
		ran[it.Item] = true
	}
	for i, tx := range e.Transactions {
		if tx != nil && !ran[i] {
			return fail("executed without item %d", i)
		}
	}
	for _, it := range res.Items {
		if it.Status != types.ReceiptStatusSuccessful && !e.Bundle.Items[it.Item].MayRevert {
			return fail("executed although item %d reverted", it.Item)
		}
	}
	return nil
}

func sameTransactions(a, b []ItemResult) bool {
	return slices.EqualFunc(a, b, func(x, y ItemResult) bool {
		return x.Chain == y.Chain && x.TxHash == y.TxHash && x.BlockNumber == y.BlockNumber
	})
}

// kept copies results without what would fill the memory.
func kept(items []ItemResult) []ItemResult {
	out := slices.Clone(items)
	for i := range out {
		out[i].Logs, out[i].ReturnData = nil, nil
	}
	return out
}

const (
	maxKeptReason = 512
	maxKeptData   = 1024
)

func (f *Failure) kept() *Failure {
	if f == nil {
		return nil
	}
	c := *f
	if len(c.Reason) > maxKeptReason {
		c.Reason = c.Reason[:maxKeptReason] + "…"
	}
	c.ReturnData = append([]byte(nil), c.ReturnData[:min(len(c.ReturnData), maxKeptData)]...)
	return &c
}
