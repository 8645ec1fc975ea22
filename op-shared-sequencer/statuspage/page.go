// Package statuspage serves a live page of what the sequencer does: slots over all chains,
// subblocks and their leaders, messages between chains, bundles and what became of them, and
// what goes wrong. It only reads. Everything the page needs is in the binary, and what it
// keeps is bounded.
//
// The sequencer never waits for it: what it is told is queued without blocking, and dropped
// (which the page says) when the queue is full. Nor do browsers hold each other up: there is
// no queue per client. Everything on the page has the version it last changed in; a client
// that is ready to be sent something is sent what is newer than what it has, so one that is
// slow gets fewer and newer states, and one that does not read at all is disconnected.
package statuspage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Source is asked, from one goroutine, for what nobody tells the page. It may take its time.
type Source interface {
	Status() Status
	// Bundle fails with bundlepool.ErrUnknownBundle.
	Bundle(hash common.Hash) (bundlepool.Status, error)
}

// Status is how the sequencer stands.
type Status struct {
	Chains  []sequencer.ChainStatus // ascending
	Pending int                     // bundles that wait
	// Agreement is nil when the operator is alone.
	Agreement *Agreement
}

// Agreement is how the operators stand, as seen from this one.
type Agreement struct {
	Self      common.Address // zero for one that follows
	Height    uint64         // agreed on last
	Syncing   bool           // fetches what was agreed on, does not vote
	Operators []Operator
	Next      []rotation.Turn
}

// Operator is one of the set.
type Operator struct {
	Name              string
	Address           common.Address
	Power, Missed     uint64 // Missed: turns in a row
	Shortened, Online bool
}

// Config of a page. Zero fields take the values of DefaultConfig.
type Config struct {
	// SlotSeconds is the time between two slots, Subblocks in how many parts one is agreed on.
	SlotSeconds uint64
	Subblocks   int

	Slots   int // kept
	Faults  int // kept
	Bundles int // kept
	Queue   int // things the sequencer told that wait to be taken
	Clients int // that watch at a time; others are told to come back

	Poll  time.Duration // between two questions to the Source
	Pace  time.Duration // the least time between two messages to a client
	Beat  time.Duration // the longest
	Write time.Duration // how long a client may take for a message

	Clock clock.Clock
	Log   log.Logger
}

// DefaultConfig is for chains with 1 s blocks.
func DefaultConfig() Config {
	return Config{
		SlotSeconds: 1, Subblocks: 1, Slots: 60, Faults: 50, Bundles: 24, Queue: 512, Clients: 64,
		Poll: time.Second, Pace: 100 * time.Millisecond, Beat: 5 * time.Second, Write: 5 * time.Second,
		Clock: clock.SystemClock, Log: log.NewLogger(log.DiscardHandler()),
	}
}

func (c Config) withDefaults() Config {
	def := DefaultConfig()
	c.SlotSeconds, c.Subblocks = cmp.Or(c.SlotSeconds, def.SlotSeconds), cmp.Or(c.Subblocks, def.Subblocks)
	c.Slots, c.Faults, c.Bundles = cmp.Or(c.Slots, def.Slots), cmp.Or(c.Faults, def.Faults), cmp.Or(c.Bundles, def.Bundles)
	c.Queue, c.Clients = cmp.Or(c.Queue, def.Queue), cmp.Or(c.Clients, def.Clients)
	c.Poll, c.Pace = cmp.Or(c.Poll, def.Poll), cmp.Or(c.Pace, def.Pace)
	c.Beat, c.Write = cmp.Or(c.Beat, def.Beat), cmp.Or(c.Write, def.Write)
	if c.Clock == nil {
		c.Clock = def.Clock
	}
	if c.Log == nil {
		c.Log = def.Log
	}
	return c
}

// Page keeps what the page shows. Its methods may be called concurrently; those of
// sequencer.Listener, sequencer.Observer and Rejected do not block.
type Page struct {
	cfg    Config
	source Source
	boot   string // tells the versions of this process from those of another

	queue   chan func() // run under mu
	dropped atomic.Uint64
	clients atomic.Int64

	life    context.Context
	end     context.CancelFunc
	tasks   sync.WaitGroup
	servers []*server

	mu      sync.Mutex
	version uint64
	changed chan struct{} // closed with each version, then made anew
	started time.Time
	slots   []*slot // ascending
	faults  []*fault
	nextID  uint64
	bundles []*bundle // oldest first
	status  *status   // as the Source said last; nil before it has
	last    time.Time // a subblock was committed
	reasons map[sequence.ChainID]string
	unready map[sequence.ChainID]int // polls in a row
	away    map[common.Address]int   // the same
	names   map[common.Address]string
}

var (
	_ sequencer.Listener = (*Page)(nil)
	_ sequencer.Observer = (*Page)(nil)
)

// New makes a page. It does nothing until Start.
func New(cfg Config, s Source) *Page {
	p := &Page{
		cfg: cfg.withDefaults(), source: s, changed: make(chan struct{}), reasons: map[sequence.ChainID]string{},
		unready: map[sequence.ChainID]int{}, away: map[common.Address]int{}, names: map[common.Address]string{},
	}
	p.started = p.cfg.Clock.Now()
	p.boot = strconv.FormatInt(p.started.UnixNano(), 36)
	p.queue = make(chan func(), p.cfg.Queue)
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// Start begins to take what it is told, and to ask the Source.
func (p *Page) Start() {
	p.tasks.Go(func() {
		for {
			select {
			case f := <-p.queue:
				p.mu.Lock()
				f()
				if n := p.dropped.Swap(0); n > 0 {
					p.happened(fault{Kind: "dropped", Level: warn, Text: fmt.Sprintf("The page could not keep up: %d events are missing here. The chains are not affected.", n)}, "")
				}
				p.mu.Unlock()
			case <-p.life.Done():
				return
			}
		}
	})
	p.tasks.Go(func() {
		ticker := p.cfg.Clock.NewTicker(p.cfg.Poll)
		defer ticker.Stop()
		for {
			p.poll()
			select {
			case <-ticker.Ch():
			case <-p.life.Done():
				return
			}
		}
	})
}

// Stop ends the servers and what runs in the background, and waits for it at most until ctx
// ends: a Source may hang.
func (p *Page) Stop(ctx context.Context) error {
	p.end()
	var errs []error
	for _, s := range p.servers {
		errs = append(errs, s.stop(ctx))
	}
	done := make(chan struct{})
	go func() { defer close(done); p.tasks.Wait() }()
	select {
	case <-done:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("the status page waits for the sequencer's status: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

// tell queues a change of what is kept.
func (p *Page) tell(f func()) {
	select {
	case p.queue <- f:
	default:
		p.dropped.Add(1)
	}
}

// SubblockCommitted implements sequencer.Listener. What it has to read of the subblock is
// read in the page's own goroutine.
func (p *Page) SubblockCommitted(c sequencer.Committed) { p.tell(func() { p.committed(&c) }) }

// SlotSealed implements sequencer.Observer.
func (p *Page) SlotSealed(r sequencer.SlotReport) { p.tell(func() { p.sealed(&r) }) }

// SlotFailed implements sequencer.Observer.
func (p *Page) SlotFailed(s sequence.Slot, err error) {
	p.tell(func() {
		p.happened(fault{Kind: "failed", Level: warn, Slot: uint64(s), Text: "A turn of this operator ended without a subblock, it is tried again: " + public(err.Error())}, "")
	})
}

// Rejected tells of a proposal that this operator did not vote for.
func (p *Page) Rejected(t rotation.Turn, reason string, err error) {
	text := ""
	if err != nil {
		text = public(err.Error())
	}
	p.tell(func() {
		f := fault{Kind: "refused", Level: bad, Height: t.Height, Operator: &t.Leader, Text: "Refused the subblock of " + p.name(t.Leader) + " (" + reason + "): " + text}
		if reason == "pass" {
			f.Kind, f.Level, f.Text = "pass", warn, p.name(t.Leader)+" passed its turn on: it could not propose"
		}
		p.happened(f, t.Leader.Hex()+reason)
	})
}

// touch gives a new version out. The caller holds mu.
func (p *Page) touch() uint64 {
	p.version++
	close(p.changed)
	p.changed = make(chan struct{})
	return p.version
}

// happened notes a fault. One of the same kind and subject that is recent is counted instead.
func (p *Page) happened(f fault, subject string) *fault {
	now := p.cfg.Clock.Now().UnixMilli()
	f.key = f.Kind + subject
	for i := len(p.faults) - 1; i >= 0; i-- {
		old := p.faults[i]
		if old.key != f.key || (!old.Open && now-old.Last > sameFault.Milliseconds()) {
			continue
		}
		old.Count++
		old.Last, old.Text, old.Slot, old.Height = now, f.Text, f.Slot, f.Height
		old.version = p.touch()
		return old
	}
	p.nextID++
	f.ID, f.First, f.Last, f.Count = p.nextID, now, now, 1
	f.version = p.touch()
	p.faults = append(p.faults, &f)
	if len(p.faults) > p.cfg.Faults {
		p.faults = slices.Delete(p.faults, 0, 1)
	}
	return &f
}

// sameFault is how long a fault that comes again is counted instead of told anew.
const sameFault = time.Minute

// stands keeps a fault open while a condition lasts.
func (p *Page) stands(on bool, f fault, subject string) {
	for _, old := range p.faults {
		if old.key != f.Kind+subject || !old.Open {
			continue
		}
		if on && old.Text == f.Text {
			return
		}
		old.Last = p.cfg.Clock.Now().UnixMilli()
		if on {
			old.Text = f.Text
		} else {
			old.Open = false
		}
		old.version = p.touch()
		return
	}
	if on {
		f.Open = true
		p.happened(f, subject).Open = true
	}
}

// name is what an operator is called.
func (p *Page) name(a common.Address) string {
	if a == (common.Address{}) {
		return "this operator"
	}
	if n := p.names[a]; n != "" {
		return n
	}
	return a.Hex()[:10] + "…"
}

var (
	urls      = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"']+`)
	addresses = regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}:\d+\b|\[[0-9a-fA-F:]+\]:\d+`)
)

// maxText bounds a reason, in bytes.
const maxText = 400

// public is a reason without where the operator's machines are, and without credentials
// that may stand in a URL.
func public(reason string) string {
	reason = urls.ReplaceAllString(reason, "(address)")
	reason = addresses.ReplaceAllString(reason, "(address)")
	if len(reason) > maxText {
		cut := maxText
		for cut > 0 && reason[cut]&0xc0 == 0x80 { // not within a rune
			cut--
		}
		reason = reason[:cut] + "…"
	}
	return reason
}
