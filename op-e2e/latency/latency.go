// Package latency measures what users wait for: the time from sending a bundle or a plain
// transaction to one of four operators until that operator tells them that it is agreed on.
//
// The operators run in one process, on one L1, with five subblocks a slot of 1 s, under plain
// load. What is sent comes at times that have nothing to do with those of slots.
package latency

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Config says what is measured. Start with DefaultConfig.
type Config struct {
	Devnet   devnet.Config
	Duration time.Duration
	Rate     int // transfers a second to each chain, beside what is measured
	Senders  int // of each kind: each has one thing under way
	Seed     uint64
	Out      io.Writer
	Log      log.Logger
}

// DefaultConfig is four operators, two rollups, five subblocks.
func DefaultConfig(out io.Writer, l log.Logger) Config {
	dc := devnet.DefaultConfig(l)
	dc.Operators, dc.Subblocks, dc.NoProposer = 4, 5, true
	return Config{Devnet: dc, Duration: time.Minute, Rate: 10, Senders: 4, Seed: 1, Out: out, Log: l}
}

// Spread of times in milliseconds, by nearest rank.
type Spread struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
}

// Report is what came out, in milliseconds.
type Report struct {
	Operators    int    `json:"operators"`
	Chains       int    `json:"chains"`
	Subblocks    int    `json:"subblocksPerSlot"`
	SlotSeconds  uint64 `json:"slotSeconds"`
	Load         int    `json:"loadPerChain"` // transfers a second
	Seconds      int    `json:"seconds"`
	Bundles      Spread `json:"bundles"`      // from sharedseq_sendBundle
	Transactions Spread `json:"transactions"` // from eth_sendRawTransaction
	// Apart is the time between two subblocks, and Behind when a slot's last one is agreed on,
	// after its timestamp, as the first operator tells them.
	Apart  Spread `json:"subblocksApart"`
	Behind Spread `json:"slotsBehind"`
	Failed int    `json:"failed"` // bundles that were not executed
	Late   int    `json:"late"`   // slots after the measurement, behind the clock
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%d operators, %d chains, %d subblocks in %d s, %d transfers a second on each chain, %d s\n"+
		"bundles       %4d   p50 %6.1f ms   p99 %6.1f ms   max %6.1f ms   %d not executed\n"+
		"transactions  %4d   p50 %6.1f ms   p99 %6.1f ms   max %6.1f ms\n"+
		"subblocks     %4d   p50 %6.1f ms   p99 %6.1f ms   max %6.1f ms   apart\n"+
		"slots         %4d   p50 %6.1f ms   p99 %6.1f ms   max %6.1f ms   from their timestamp to their last subblock\n",
		r.Operators, r.Chains, r.Subblocks, r.SlotSeconds, r.Load, r.Seconds,
		r.Bundles.Samples, r.Bundles.P50, r.Bundles.P99, r.Bundles.Max, r.Failed,
		r.Transactions.Samples, r.Transactions.P50, r.Transactions.P99, r.Transactions.Max,
		r.Apart.Samples, r.Apart.P50, r.Apart.P99, r.Apart.Max, r.Behind.Samples, r.Behind.P50, r.Behind.P99, r.Behind.Max)
	return err
}

// How long things may take. All are many times what they take when nothing is wrong.
const (
	startTime = 5 * time.Minute
	oneTime   = 30 * time.Second // for one thing that was sent
)

// Run measures.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	start, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	fmt.Fprintln(cfg.Out, "starting", cfg.Devnet.Operators, "operators")
	d, err := devnet.Start(start, cfg.Devnet)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Stop(context.WithoutCancel(ctx))) }()
	if err := d.AwaitOnTime(start); err != nil {
		return nil, err
	}
	load, err := d.StartLoad(cfg.Rate)
	if err != nil {
		return nil, err
	}
	defer load.Stop()
	m := &measurement{cfg: cfg, d: d}
	defer m.close()
	for _, o := range d.Operators() {
		at, err := m.connect(ctx, o)
		if err != nil {
			return nil, err
		}
		m.at = append(m.at, at)
	}
	fmt.Fprintln(cfg.Out, "measuring for", cfg.Duration)
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	rep := &Report{
		Operators: cfg.Devnet.Operators, Chains: len(d.Chains()), Subblocks: cfg.Devnet.Subblocks, SlotSeconds: cfg.Devnet.L2BlockTime, Load: cfg.Rate,
		Seconds: int(cfg.Duration.Seconds()), Bundles: spread(m.bundles), Transactions: spread(m.transactions), Failed: m.failed,
		CPUs: runtime.NumCPU(), Go: runtime.Version(),
	}
	head, err := d.Head(ctx, d.Chains()[0])
	if err != nil {
		return nil, err
	}
	rep.Late = max(0, int(time.Now().Unix()-int64(head.Time)))
	first := m.at[0]
	first.mu.Lock()
	rep.Apart, rep.Behind = spread(first.apart), spread(first.behind)
	first.mu.Unlock()
	if rep.Bundles.Samples == 0 || rep.Transactions.Samples == 0 {
		return nil, fmt.Errorf("nothing was measured: %d bundles, %d transactions", rep.Bundles.Samples, rep.Transactions.Samples)
	}
	return rep, nil
}

func spread(values []time.Duration) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	ms := func(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }
	return Spread{len(values), ms(conductor.Percentile(values, 50)), ms(conductor.Percentile(values, 99)), ms(slices.MaxFunc(values, cmp.Compare[time.Duration]))}
}

type measurement struct {
	cfg Config
	d   *devnet.Devnet
	at  []*place

	mu                    sync.Mutex
	bundles, transactions []time.Duration
	failed                int
}

// place is an operator as its users see it.
type place struct {
	ws     *gethrpc.Client
	shared *rpc.Client
	eth    map[uint64]*ethclient.Client
	sub    *gethrpc.ClientSubscription
	done   chan struct{}

	mu            sync.Mutex
	seen          map[common.Hash]chan time.Time // what is waited for
	last          time.Time                      // subblock
	apart, behind []time.Duration
}

// connect subscribes to what an operator tells.
func (m *measurement) connect(ctx context.Context, o *devnet.Operator) (*place, error) {
	p := &place{eth: map[uint64]*ethclient.Client{}, done: make(chan struct{}), seen: map[common.Hash]chan time.Time{}}
	var err error
	if p.shared, err = o.Sequencer(ctx); err != nil {
		return nil, err
	}
	for _, id := range m.d.Chains() {
		if p.eth[id], err = o.Eth(id); err != nil {
			return nil, err
		}
	}
	if p.ws, err = gethrpc.DialContext(ctx, strings.Replace(o.SharedSequencerURL(), "http", "ws", 1)); err != nil {
		return nil, err
	}
	notes := make(chan json.RawMessage, 4096)
	if p.sub, err = p.ws.Subscribe(ctx, rpc.Namespace, notes, "subblocks"); err != nil {
		p.ws.Close()
		return nil, err
	}
	go p.listen(notes)
	return p, nil
}

func (p *place) listen(notes chan json.RawMessage) {
	defer close(p.done)
	for {
		select {
		case raw := <-notes:
			now := time.Now()
			var n struct {
				Slot   hexutil.Uint64
				Last   bool
				Chains []struct{ Transactions []common.Hash }
			}
			if json.Unmarshal(raw, &n) != nil {
				continue
			}
			p.mu.Lock()
			if !p.last.IsZero() {
				p.apart = append(p.apart, now.Sub(p.last))
			}
			if p.last = now; n.Last {
				p.behind = append(p.behind, now.Sub(time.Unix(int64(n.Slot), 0)))
			}
			for _, c := range n.Chains {
				for _, tx := range c.Transactions {
					if waiting := p.seen[tx]; waiting != nil {
						waiting <- now
						delete(p.seen, tx)
					}
				}
			}
			p.mu.Unlock()
		case <-p.sub.Err(): //nolint:errcheck // whoever waits then runs out of time
			return
		}
	}
}

// expect is told when the transaction is agreed on.
func (p *place) expect(tx common.Hash) chan time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan time.Time, 1)
	p.seen[tx] = c
	return c
}

func (m *measurement) close() {
	for _, p := range m.at {
		p.sub.Unsubscribe()
		<-p.done
		p.ws.Close()
	}
}

// run has all senders send until the time is over.
func (m *measurement) run(ctx context.Context) error {
	ends := time.Now().Add(m.cfg.Duration)
	group, ctx := errgroup.WithContext(ctx)
	for i := range 2 * m.cfg.Senders {
		user, err := devnet.User(uint64(i))
		if err != nil {
			return err
		}
		rng := rand.New(rand.NewPCG(m.cfg.Seed, uint64(i)))
		once := m.transaction
		if i%2 == 0 {
			once = m.bundle
		}
		// An operator may tell of what another one does not know yet: nonces are counted here.
		nonces := map[uint64]uint64{}
		for _, chain := range m.d.Chains() {
			if nonces[chain], err = m.d.Nonce(ctx, chain, user.Address); err != nil {
				return err
			}
		}
		group.Go(func() error {
			for n := i; time.Now().Before(ends); n++ {
				// Anywhere in a slot, so that nothing is measured in step with it.
				select {
				case <-time.After(time.Duration(rng.Int64N(int64(time.Second)))):
				case <-ctx.Done():
					return ctx.Err()
				}
				if err := once(ctx, m.at[n/2%len(m.at)], user, nonces); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// await is how long it took from a moment on; false if it did not come.
func await(ctx context.Context, from time.Time, seen chan time.Time) (time.Duration, bool, error) {
	timer := time.NewTimer(oneTime)
	defer timer.Stop()
	select {
	case at := <-seen:
		return at.Sub(from), true, nil
	case <-timer.C:
		return 0, false, nil
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
}

// transaction sends a transfer to one chain, in turn.
func (m *measurement) transaction(ctx context.Context, at *place, user devnet.Account, nonces map[uint64]uint64) error {
	chains := m.d.Chains()
	chain := chains[int(user.Address[19])%len(chains)]
	tx, err := user.Sign(devnet.Transfer(chain, nonces[chain], common.Address{1}, common.Big1))
	if err != nil {
		return err
	}
	seen, from := at.expect(tx.Hash()), time.Now()
	if err := at.eth[chain].SendTransaction(ctx, tx); err != nil {
		return err
	}
	took, ok, err := await(ctx, from, seen)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("transaction %s of chain %d was not agreed on in %v", tx.Hash(), chain, oneTime)
	}
	nonces[chain]++
	m.mu.Lock()
	defer m.mu.Unlock()
	m.transactions = append(m.transactions, took)
	return nil
}

// bundle sends a transfer on each chain, as one.
func (m *measurement) bundle(ctx context.Context, at *place, user devnet.Account, nonces map[uint64]uint64) error {
	var args rpc.BundleArgs
	var last common.Hash
	for _, chain := range m.d.Chains() {
		tx, err := user.Sign(devnet.Transfer(chain, nonces[chain], common.Address{1}, common.Big1))
		if err != nil {
			return err
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			return err
		}
		args.Items, last = append(args.Items, rpc.Transaction(sequence.ChainID(chain), raw)), tx.Hash()
	}
	seen, from := at.expect(last), time.Now()
	sent, err := at.shared.SendBundle(ctx, args)
	if err != nil {
		return err
	}
	took, ok, err := await(ctx, from, seen)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok {
		m.failed++
		st, err := at.shared.BundleStatus(ctx, sent.BundleHash)
		m.cfg.Log.Warn("Bundle was not executed", "bundle", sent.BundleHash, "status", st, "err", err)
		return nil
	}
	m.bundles = append(m.bundles, took)
	for chain := range nonces {
		nonces[chain]++
	}
	return nil
}
