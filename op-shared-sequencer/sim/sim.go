package sim

import (
	"container/heap"
	"crypto/ecdsa"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-core/forks"
	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Violation is something that must hold and did not. Run the seed again with a trace to see
// how it came about.
type Violation struct {
	Seed   int64
	At     time.Duration // since the run began
	Reason string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d, %v: %s", v.Seed, v.At, v.Reason)
}

// Result is what a run came to.
type Result struct {
	Hash   uint64 // of everything that happened, in order
	Counts Counts
}

// Run runs a seed. trace, if not nil, gets a readable account. The error is a *Violation.
func Run(seed int64, trace io.Writer) (Result, error) {
	s := newSim(seed, trace)
	err := s.run()
	return Result{Hash: s.hash, Counts: s.count}, err
}

// sim is one run.
type sim struct {
	seed  int64
	plan  plan
	rng   *rand.Rand
	out   io.Writer // nil: no trace
	log   log.Logger
	hash  uint64
	count Counts

	now    time.Duration
	events events
	order  uint64

	ids            []sequence.ChainID // ascending
	rollups        map[sequence.ChainID]*rollup.Config
	deps           depset.DependencySet
	executorChains []executor.ChainConfig
	core           sequencer.Config
	l1             *l1Chain
	l1mu           sync.Mutex // the core works on chains in parallel
	ops            []*operator
	net            network
	traffic        traffic
	check          checker
	refs           map[common.Hash]eth.L2BlockRef
}

func newSim(seed int64, trace io.Writer) *sim {
	s := &sim{seed: seed, rng: rand.New(rand.NewSource(seed ^ 0x5DEECE66D*(seed+11))), out: trace, log: log.NewLogger(log.DiscardHandler())}
	s.count, s.refs = newCounts(), map[common.Hash]eth.L2BlockRef{}
	s.plan = s.draw()
	p := &s.plan
	s.core = sequencer.DefaultConfig()
	s.core.Subblocks, s.core.Patience, s.core.Grace = p.subblocks, 0, 1500*time.Millisecond
	s.l1 = newL1(p.l1Interval)
	s.rollups = map[sequence.ChainID]*rollup.Config{}
	deps := map[eth.ChainID]*depset.StaticConfigDependency{}
	for i := range p.operators {
		o := &operator{s: s, index: i, rng: rand.New(rand.NewSource(s.rng.Int63())), engines: map[sequence.ChainID]*enginefake.Engine{}, ledger: ledger.NewMemory()}
		o.clock = &opClock{s: s, skew: p.faults.skew(s)}
		o.view = &l1View{s: s, lag: s.between(0, 200)}
		s.ops = append(s.ops, o)
	}
	for i := range p.chains {
		id := sequence.ChainID(901 + i)
		s.ids = append(s.ids, id)
		for _, o := range s.ops {
			o.engines[id] = enginefake.New(id, uint64(epoch.Unix()), addresses()...)
			o.engines[id].Share(transactions)
		}
		e := s.ops[0].engines[id]
		cfg := &rollup.Config{
			Genesis: rollup.Genesis{
				L1: s.l1.at(0, l1Start).ID(), L2: e.Genesis().ID(), L2Time: uint64(epoch.Unix()),
				SystemConfig: eth.SystemConfig{BatcherAddr: common.Address{1}, GasLimit: 30_000_000, EIP1559Params: eth.Bytes8{0, 0, 0, 250, 0, 0, 0, 6}},
			},
			BlockTime: p.blockTimes[i], MaxSequencerDrift: 600, SeqWindowSize: 3600, ChannelTimeoutBedrock: 300,
			L1ChainID: big.NewInt(900), L2ChainID: id.ID().ToBig(),
		}
		cfg.ActivateAtGenesis(forks.Lagoon)
		s.rollups[id] = cfg
		deps[id.ID()] = &depset.StaticConfigDependency{}
		s.executorChains = append(s.executorChains, executor.ChainConfig{
			ID: id, BlockTime: cfg.BlockTime, InteropTime: cfg.LagoonTime, Genesis: cfg.Genesis.L2, GenesisTime: cfg.Genesis.L2Time,
		})
	}
	var err error
	if s.deps, err = depset.NewStaticConfigDependencySet(deps); err != nil {
		panic(err) // made here
	}
	for _, o := range s.ops {
		o.history = newHistory(s.ids)
	}
	s.check.init(s.ids)
	s.traffic.init(s)
	return s
}

// run runs all events.
func (s *sim) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(*Violation)
			if !ok {
				panic(r)
			}
			s.trace(nil, "VIOLATED: %s", v.Reason)
			err = v
		}
	}()
	for _, o := range s.ops {
		s.schedule(s.between(0, 300), nil, o.start)
	}
	s.schedule(2*time.Second, nil, s.traffic.plain)
	s.schedule(2*time.Second, nil, s.traffic.bundle)
	s.plan.faults.begin(s)
	s.schedule(s.plan.storm, nil, s.calmDown)
	end := s.plan.storm + s.plan.calm
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(*happening)
		s.now = e.at
		if e.o == nil {
			e.do()
			continue
		}
		if !e.o.up || e.o.life != e.life {
			continue
		}
		if e.o.busy > s.now {
			s.order++
			e.at, e.order = e.o.busy, s.order
			heap.Push(&s.events, e)
			continue
		}
		e.o.do(e.do)
		s.count["events"]++
	}
	s.checkEnd()
	return nil
}

// happening is something that happens at a time; in an operator's process, if o is set, and
// then only if it is still the same process.
type happening struct {
	at    time.Duration
	order uint64
	o     *operator
	life  int
	do    func()
}

type events []*happening

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || (e[i].at == e[j].at && e[i].order < e[j].order)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*happening)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func (s *sim) schedule(at time.Duration, o *operator, f func()) {
	s.order++
	e := &happening{at: max(at, s.now), order: s.order, o: o, do: f}
	if o != nil {
		e.life = o.life
	}
	heap.Push(&s.events, e)
}

func (s *sim) chance(percent int) bool { return s.rng.Intn(100) < percent }

// between is a time between two bounds in milliseconds.
func (s *sim) between(low, high int) time.Duration {
	return time.Duration(low)*time.Millisecond + time.Duration(s.rng.Int63n(int64(high-low)*int64(time.Millisecond)))
}

// fail ends the run.
func (s *sim) fail(format string, args ...any) {
	panic(&Violation{Seed: s.seed, At: s.now, Reason: fmt.Sprintf(format, args...)})
}

// mix takes something that happened into the run's hash.
func (s *sim) mix(parts ...uint64) {
	h := s.hash ^ uint64(s.now)
	for _, p := range parts {
		h = (h ^ p) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	s.hash = h
}

func hashed(h common.Hash) uint64 { return new(big.Int).SetBytes(h[:8]).Uint64() }

// trace writes a line of the account of the run. o is nil for what is nobody's.
func (s *sim) trace(o *operator, format string, args ...any) {
	if s.out == nil {
		return
	}
	who := "     "
	if o != nil {
		who = fmt.Sprintf("op %d ", o.index)
		if o.clock.ahead > 0 {
			format += fmt.Sprintf(" (+%v)", o.clock.ahead.Round(time.Millisecond))
		}
	}
	fmt.Fprintf(s.out, "%10.3f %s%s\n", s.now.Seconds(), who, fmt.Sprintf(format, args...))
}

// logOf is an operator's log: part of the trace.
func (s *sim) logOf(o *operator) log.Logger {
	if s.out == nil {
		return s.log
	}
	return log.NewLogger(log.LogfmtHandlerWithLevel(traceWriter{s, o}, slog.LevelDebug))
}

type traceWriter struct {
	s *sim
	o *operator
}

func (w traceWriter) Write(p []byte) (int, error) {
	line := string(slices.Clone(p))
	if len(line) > 1 {
		line = line[:len(line)-1]
	}
	w.s.trace(w.o, "    %s", line)
	return len(p), nil
}

type account struct {
	key  *ecdsa.PrivateKey
	addr common.Address
}

// accounts have ether on every chain: the first are the relayers of the operators, the next
// ones send plain transactions, all others a bundle each.
var accounts = sync.OnceValue(func() (out []account) {
	for i := range 90 {
		key, err := crypto.ToECDSA(crypto.Keccak256(fmt.Appendf(nil, "account %d", i)))
		if err != nil {
			panic(err)
		}
		out = append(out, account{key, crypto.PubkeyToAddress(key.PublicKey)})
	}
	return out
})

var addresses = sync.OnceValue(func() (out []common.Address) {
	for _, a := range accounts() {
		out = append(out, a.addr)
	}
	return out
})

// transactions are decoded once for all runs.
var transactions = enginefake.NewTxs()

const (
	firstPlain  = 10
	firstSender = 20
	lastSender  = 89 // the last few are for lies
)
