package sim

import (
	"context"
	"fmt"
	"math/rand"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// operator is one operator: what is on its disks, and its process if that runs.
type operator struct {
	s     *sim
	index int
	clock *opClock
	rng   *rand.Rand // of its own lies
	lies  *liar      // nil: an honest one

	// What outlives a crash of the process.
	engines map[sequence.ChainID]*enginefake.Engine
	ledger  *ledger.Memory
	bundles []byte
	history *history
	disk    disk

	// The process.
	up       bool
	life     int           // counts the starts and the ends of the process
	busy     time.Duration // until when a call takes
	seq      *sequencer.Sequencer
	pool     *bundlepool.Pool
	log      *ledger.Ledger
	view     *l1View
	drivers  map[sequence.ChainID]*driver
	c        *consensus
	drafted  time.Duration // when the draft is ready
	dieAt    crashPoint    // within the next call that comes by
	proposed *value        // by this operator, newest
}

// crashPoint is where in a call the process dies.
type crashPoint int

const (
	nowhere crashPoint = iota
	beforeSync
	beforeAppend
	afterAppend
	inHandOver
	inSave
	waiting
	numCrashPoints
)

// dies is what a call that ends in a crash of the process panics with.
type dies struct{ where crashPoint }

func (o *operator) mayDie(where crashPoint) {
	if o.dieAt == where {
		o.dieAt = nowhere
		panic(dies{where})
	}
}

// after does something in the operator's process, if it still runs then.
func (o *operator) after(d time.Duration, f func()) {
	o.s.schedule(o.s.now+o.clock.ahead+d, o, f)
}

// do runs what happens in the operator's process: an event, with the calls of the core in it.
func (o *operator) do(f func()) {
	defer func() {
		if o.clock.ahead > 0 {
			o.busy = o.s.now + o.clock.ahead
			o.clock.ahead = 0
		}
		switch r := recover().(type) {
		case nil:
		case dies:
			o.s.count[fmt.Sprintf("crash at point %d", r.where)]++
			o.s.trace(o, "dies within a call, at point %d", r.where)
			o.crash()
			o.s.schedule(o.s.now+o.s.between(100, 4000), nil, o.start)
		default:
			panic(r)
		}
	}()
	f()
	for _, id := range o.s.ids {
		if d := o.drivers[id]; d != nil {
			d.flush()
		}
	}
}

// start starts the process.
func (o *operator) start() {
	if o.up {
		return
	}
	o.up = true
	o.life++
	o.busy = 0
	o.drafted, o.proposed = 0, nil
	if o.s.plan.faults.crashes {
		for _, id := range o.s.ids { // what the machine lost with the process
			if h := o.history.chains[id]; o.s.chance(30) {
				h.blocks = h.blocks[:o.s.rng.Intn(len(h.blocks)+1)]
			}
			if o.s.chance(30) {
				o.engines[id].Crash(o.s.rng.Intn(8))
			}
		}
	}
	o.drivers = map[sequence.ChainID]*driver{}
	o.s.trace(o, "starts")
	o.do(o.boot)
}

func (o *operator) boot() {
	s := o.s
	fail := func(what string, err error) {
		if err != nil {
			s.fail("operator %d does not start: %s: %v", o.index, what, err)
		}
	}
	o.ledger.BeforeSync = func() { o.mayDie(beforeSync) }
	var err error
	o.log, err = ledger.Open(fmt.Sprintf("operator %d", o.index), s.log, ledger.WithMemory(o.ledger), ledger.WithRand(o.rng))
	fail("ledger", err)
	o.pool = bundlepool.New(bundlepool.DefaultConfig(s.ids...), s.log)
	if o.bundles != nil {
		fail("bundle pool", o.pool.Restore(o.bundles))
	}
	exec, err := executor.New(executor.Config{DependencySet: s.deps, Chains: s.executorChains, History: o.history})
	fail("executor", err)
	relayer, err := relay.New(accounts()[o.index].key, relay.Config{Gas: 100_000})
	fail("relayer", err)
	chains := map[sequence.ChainID]sequencer.Chain{}
	for _, id := range s.ids {
		chains[id] = sequencer.Chain{Engine: o.engines[id], Rollup: s.rollups[id]}
	}
	o.seq, err = sequencer.New(s.core, sequencer.Deps{
		Log: s.logOf(o), Clock: o.clock, Chains: chains, Executor: exec, History: o.history, Ledger: dyingLedger{o.log, o},
		Bundles: o.pool, Relayer: relayer, SaveBundles: o.save,
		Fatal:    func(err error) { s.fail("operator %d: fatal: %v", o.index, err) },
		Rotation: func(rotation.Machine) (rotation.Rotation, error) { return idle{}, nil },
		Go:       func(f func()) { f() }, NoKeepers: true,
	})
	fail("sequencer", err)
	fail("start", o.seq.Start(context.Background()))
	o.c = newConsensus(o)
	o.replay()
	for _, id := range s.ids {
		o.startDriver(id)
	}
	o.c.resume()
	o.every(s.between(40, 60), o.keep)
	o.every(s.between(200, 260), o.c.beat)
	for _, id := range s.ids {
		o.every(s.between(300, 900), o.drivers[id].look)
	}
}

// every does something over and over while the process runs.
func (o *operator) every(d time.Duration, f func()) {
	o.after(d, func() {
		f()
		o.every(d, f)
	})
}

func (o *operator) keep() { o.seq.Keep(context.Background()) }

// crash ends the process, and loses what it had not synced.
func (o *operator) crash() {
	o.up = false
	o.life++
	o.dieAt = nowhere
	o.clock.ahead = 0
	o.ledger.Crash(func(n int) int { return o.s.rng.Intn(n + 1) })
	o.seq, o.pool, o.log, o.c, o.drivers = nil, nil, nil, nil, nil
	o.s.trace(o, "is dead")
}

func (o *operator) save() error {
	o.mayDie(inSave)
	o.bundles = o.pool.Snapshot()
	return nil
}

// replay goes on where the ledger ends: what was decided after it is committed again.
func (o *operator) replay() {
	at := uint64(0)
	if a := o.seq.Agreed(); a != nil {
		at = o.s.checkAgreement(o, a)
	}
	o.setChains(at)
	for ; at < uint64(len(o.disk.decided)); at++ {
		o.s.count["heights replayed"]++
		o.commit(o.disk.decided[at])
	}
}

// commit gives a decided subblock to the core.
func (o *operator) commit(d *decision) {
	sub := o.decode(d.value)
	if sub == nil {
		o.s.fail("operator %d: height %d was decided and is garbage", o.index, d.height)
	}
	if err := o.seq.Commit(context.Background(), sub, agreementOf(d)); err != nil {
		o.s.fail("operator %d: commit of height %d (subblock %d of slot %d): %v", o.index, d.height, sub.Index, sub.Slot, err)
	}
	if sub.Last() {
		o.setChains(d.height)
	}
}

// setChains puts in force which chains take part behind a height.
func (o *operator) setChains(height uint64) {
	if err := o.seq.SetChains(o.s.membersAt(height)); err != nil {
		o.s.fail("operator %d: %v", o.index, err)
	}
}

func (o *operator) decode(v *value) *sequence.Subblock {
	sub, err := sequence.DecodeSubblock(v.raw)
	if err != nil {
		return nil
	}
	return sub
}

// agreement is what a slot is committed with.
type agreement struct {
	Height uint64
	Value  common.Hash
	Voters []uint64
}

func agreementOf(d *decision) []byte {
	a := agreement{Height: d.height, Value: d.value.id}
	for _, v := range d.votes {
		a.Voters = append(a.Voters, uint64(v.from))
	}
	b, err := rlp.EncodeToBytes(&a)
	if err != nil { // every field has an RLP form
		panic(err)
	}
	return b
}

// idle is the rotation that the core is given: the simulation drives it.
type idle struct{}

func (idle) Start(context.Context) error  { return nil }
func (idle) Stop(context.Context) error   { return nil }
func (idle) Schedule(int) []rotation.Turn { return nil }

// dyingLedger is the ledger, around whose writes the process may die.
type dyingLedger struct {
	*ledger.Ledger
	o *operator
}

func (l dyingLedger) Append(ctx context.Context, r *ledger.Record) error {
	l.o.mayDie(beforeAppend)
	err := l.Ledger.Append(ctx, r)
	if err != nil {
		l.o.s.fail("operator %d: ledger: %v", l.o.index, err)
	}
	l.o.mayDie(afterAppend)
	return err
}

func (l dyingLedger) Rewind(ctx context.Context, chain sequence.ChainID, to eth.BlockID) error {
	err := l.Ledger.Rewind(ctx, chain, to)
	l.o.mayDie(afterAppend)
	return err
}
