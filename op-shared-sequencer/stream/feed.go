// Package stream tells clients what the operators agree on, while it is agreed on: committed
// subblocks, the receipts in them, what becomes of bundles, and per chain the Subblocks
// (formerly Flashblocks) wire format that OP Stack clients read.
//
// Nothing here can hold up a slot. What happened is put into a queue; one goroutine takes it
// from there to the subscribers, each of which has a queue of its own. A subscriber that does
// not keep up loses its subscription, and is told so.
package stream

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Why a subscription ended, or was not made.
var (
	// ErrSlow: the subscriber's queue was full.
	ErrSlow = errors.New("the subscriber does not keep up")
	// ErrMissed: this process did not keep up, and something may be missing.
	ErrMissed = errors.New("the node did not keep up, events are missing")
	// ErrClosed: the feed has ended.
	ErrClosed = errors.New("the node is shutting down")
	// ErrFull: there are as many subscriptions as there may be.
	ErrFull = errors.New("too many subscriptions")
)

// Metrics counts. All of it may be called concurrently.
type Metrics interface {
	// Subscribers is how many subscriptions there are now.
	Subscribers(n int)
	// SubscriptionEnded counts those that this node has ended: ErrSlow or ErrMissed.
	SubscriptionEnded(why error)
}

// NoMetrics drops everything.
type NoMetrics struct{}

func (NoMetrics) Subscribers(int)         {}
func (NoMetrics) SubscriptionEnded(error) {}

// Config bounds a feed. Zero fields take the values of DefaultConfig.
type Config struct {
	Subscriptions int // at a time
	PerSource     int // of one IP address
	Queue         int // events that wait for one subscriber
	Backlog       int // events that wait for the feed itself
}

// DefaultConfig lets a subscriber be some seconds behind: a slot of 1 s has a handful of
// subblocks, and few bundles.
func DefaultConfig() Config {
	return Config{Subscriptions: 1024, PerSource: 32, Queue: 256, Backlog: 4096}
}

// Pool knows what became of bundles.
type Pool interface {
	Status(hash common.Hash) (bundlepool.Status, error)
}

// Feed passes on what happens. It is a sequencer.Listener and a bundlepool.Watcher.
type Feed struct {
	cfg     Config
	log     log.Logger
	metrics Metrics

	in   chan any // a sequencer.Committed, or the hash of a bundle that changed
	stop chan struct{}
	done chan struct{}

	last *Subblock // of the slot under construction; of run

	mu     sync.Mutex
	missed bool // in was full
	closed bool
	pool   Pool
	subs   map[*Subscription]struct{}
	// counted are those of subs that Subscribe made, and how many of them a source has.
	counted int
	sources map[netip.Prefix]int
}

var (
	_ sequencer.Listener = (*Feed)(nil)
	_ bundlepool.Watcher = (*Feed)(nil)
)

// New starts a feed. Close ends it.
func New(cfg Config, m Metrics, l log.Logger) *Feed {
	def := DefaultConfig()
	for _, f := range []struct{ have, def *int }{{&cfg.Subscriptions, &def.Subscriptions}, {&cfg.PerSource, &def.PerSource}, {&cfg.Queue, &def.Queue}, {&cfg.Backlog, &def.Backlog}} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	f := &Feed{
		cfg: cfg, log: l, metrics: m, in: make(chan any, cfg.Backlog), stop: make(chan struct{}), done: make(chan struct{}),
		subs: map[*Subscription]struct{}{}, sources: map[netip.Prefix]int{},
	}
	go f.run()
	return f
}

// Watch says where the statuses of bundles are read. Before, no bundle is told of.
func (f *Feed) Watch(pool Pool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pool = pool
}

// Close ends all subscriptions with ErrClosed.
func (f *Feed) Close() {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	f.mu.Unlock()
	if !again {
		close(f.stop)
	}
	<-f.done
}

// SubblockCommitted implements sequencer.Listener.
func (f *Feed) SubblockCommitted(c sequencer.Committed) { f.put(c) }

// BundleChanged implements bundlepool.Watcher.
func (f *Feed) BundleChanged(hash common.Hash) { f.put(hash) }

// put never waits.
func (f *Feed) put(what any) {
	select {
	case f.in <- what:
	default:
		f.mu.Lock()
		f.missed = true
		f.mu.Unlock()
	}
}

func (f *Feed) run() {
	defer close(f.done)
	for {
		select {
		case what := <-f.in:
			f.pass(what)
		case <-f.stop:
			f.end(ErrClosed)
			return
		}
	}
}

func (f *Feed) pass(what any) {
	f.mu.Lock()
	missed, pool := f.missed, f.pool
	f.missed = false
	f.mu.Unlock()
	if missed {
		f.log.Warn("Subscriptions end: this node did not keep up with what was agreed on", "waiting", len(f.in))
		f.last = nil
		f.end(ErrMissed)
		return
	}
	e := &Event{}
	switch what := what.(type) {
	case sequencer.Committed:
		if !follows(&what, f.last) {
			f.last = nil
		}
		e.Subblock = newSubblock(what, f.last)
		if f.last = e.Subblock; what.Subblock.Last() {
			f.last = nil // nothing follows in its slot
		}
	case common.Hash:
		if pool == nil {
			return
		}
		s, err := pool.Status(what)
		if err != nil {
			return // it is forgotten already
		}
		e.Bundle = &s
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		select {
		case s.events <- e:
		default:
			f.drop(s, fmt.Errorf("%w: %d events were waiting for it", ErrSlow, len(s.events)))
		}
	}
}

// drop ends a subscription. The caller holds mu.
func (f *Feed) drop(s *Subscription, why error) {
	delete(f.subs, s)
	if s.counted {
		f.counted--
		if f.sources[s.source]--; f.sources[s.source] == 0 {
			delete(f.sources, s.source)
		}
	}
	s.err = why
	close(s.events)
	f.metrics.Subscribers(len(f.subs))
	if errors.Is(why, ErrSlow) || errors.Is(why, ErrMissed) {
		f.metrics.SubscriptionEnded(why)
	}
}

func (f *Feed) end(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		f.drop(s, why)
	}
}

// Subscribe tells of everything that happens from now on. remote is the address of the
// subscriber's connection. Errors: ErrFull, ErrClosed.
func (f *Feed) Subscribe(remote string) (*Subscription, error) {
	source, limited := Source(remote)
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.counted; n >= f.cfg.Subscriptions {
		return nil, fmt.Errorf("%w: %d of %d", ErrFull, n, f.cfg.Subscriptions)
	}
	if n := f.sources[source]; limited && n >= f.cfg.PerSource {
		return nil, fmt.Errorf("%w: %s has %d, which is all one address may have", ErrFull, source, n)
	}
	s, err := f.add()
	if err != nil {
		return nil, err
	}
	s.counted, s.source = true, source
	f.counted++
	f.sources[source]++
	return s, nil
}

// subscribe is Subscribe for those that are counted elsewhere.
func (f *Feed) subscribe() (*Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.add()
}

// add makes a subscription. The caller holds mu.
func (f *Feed) add() (*Subscription, error) {
	if f.closed {
		return nil, ErrClosed
	}
	s := &Subscription{feed: f, events: make(chan *Event, f.cfg.Queue)}
	f.subs[s] = struct{}{}
	f.metrics.Subscribers(len(f.subs))
	return s, nil
}

// Subscription is a subscriber's place in a feed.
type Subscription struct {
	feed   *Feed
	events chan *Event
	err    error // set before events is closed

	counted bool
	source  netip.Prefix
}

// Events are in the order of the agreement. The channel is closed when the subscription ends.
func (s *Subscription) Events() <-chan *Event { return s.events }

// Err is why the subscription has ended, once Events is closed; nil after Close.
func (s *Subscription) Err() error {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	return s.err
}

// Close ends the subscription. It is idempotent.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if _, ok := s.feed.subs[s]; ok {
		s.feed.drop(s, nil)
	}
}

// Event is one thing that happened: one of its fields is set. It is shared, and must not be
// changed.
type Event struct {
	Subblock *Subblock
	Bundle   *bundlepool.Status // that has come to another state
}
