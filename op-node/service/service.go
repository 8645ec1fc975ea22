// Package service is op-node as one cliapp.Lifecycle: upstream's op-supernode hosting
// a virtual op-node per chain and, if enabled, the shared sequencer that drives them.
// The command starts it from flags; devnets and tests embed it.
package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/log"
	"github.com/prometheus/client_golang/prometheus"

	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	"github.com/ethereum-optimism/optimism/op-service/cliapp"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-supernode/supernode"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// stopTime is how long Stop takes at most: what has not ended by then is named in
// its error and left to the end of the process.
const stopTime = 9 * time.Second

var (
	ErrStarted = errors.New("op-node was already started")
	ErrStopped = errors.New("op-node was stopped")
)

// Options are what a service is given beside its configuration.
type Options struct {
	Version, Commit string
	// RequestStop is called when the service cannot go on. May be nil.
	RequestStop context.CancelCauseFunc
	// Engines are ready engines, one for each sequenced chain. If nil, the engines
	// of the configuration are dialed. The service closes neither these nor what
	// they belong to.
	Engines []engine.Engine
	// Machine, for tests of operators that lie, puts a machine between the rotation and
	// the sequencer. May be nil.
	Machine func(m rotation.Machine) rotation.Machine
	// Tamper is for tests: see sequencer.Deps.
	Tamper func(ctx context.Context, slot sequence.Slot, blocks []*builder.Block)
}

// Service is op-node. Its methods may be called concurrently.
type Service struct {
	log     log.Logger
	cfg     *config.Config
	opts    Options
	makeOwn func(ctx context.Context) (sequencerParts, error)

	// failed ends when the host or the sequencer asked to stop.
	failed context.Context
	fail   context.CancelCauseFunc

	lifecycle sync.Mutex // held by Start and Stop
	started   bool

	mu        sync.Mutex
	host      *supernode.Supernode
	own       sequencerParts // nil: upstream's op-supernode
	nodeURL   string
	sharedURL string

	stopped atomic.Bool
}

var _ cliapp.Lifecycle = (*Service)(nil)

// sequencerParts is the shared sequencer as the host drives it.
type sequencerParts interface {
	// Factory makes the sequencer of a chain's driver.
	Factory(chain sequence.ChainID) driver.SequencerFactory
	// Start brings the engines to the ledger's heads and begins to sequence. It
	// returns before any virtual node may look at an engine.
	Start(ctx context.Context) error
	// Serve opens the sharedseq RPC and returns its URL. The virtual nodes run.
	Serve(ctx context.Context) (url string, err error)
	// Stop ends sequencing: nothing reaches an engine or a driver any more.
	Stop(ctx context.Context) error
	// Close lets go of files and connections, after the virtual nodes have ended.
	Close() error
	// Metrics may be nil.
	Metrics() prometheus.Gatherer
}

// New checks the configuration. Nothing is opened or dialed before Start.
func New(l log.Logger, cfg *config.Config, opts Options) (*Service, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s := &Service{log: l, cfg: cfg, opts: opts}
	s.failed, s.fail = context.WithCancelCause(context.Background())
	if cfg.SharedSequencer.Enabled {
		if err := checkEngines(cfg, opts.Engines); err != nil {
			return nil, err
		}
		s.makeOwn = s.newShared
	}
	return s, nil
}

// checkEngines says whether there is an engine for every sequenced chain.
func checkEngines(cfg *config.Config, ready []engine.Engine) error {
	have := map[sequence.ChainID]bool{}
	if ready == nil {
		for id := range cfg.SharedSequencer.Engines {
			have[id] = true
		}
	}
	for _, e := range ready {
		if have[e.Chain()] {
			return fmt.Errorf("two engines for chain %s", e.Chain())
		}
		have[e.Chain()] = true
	}
	for _, id := range cfg.SharedSequencer.Chains {
		if !have[id] {
			return fmt.Errorf("no engine for chain %s, which is to be sequenced", id)
		}
	}
	return nil
}

// Start starts everything and returns when the RPC servers listen. When it fails it
// has stopped what it started. ctx bounds the start only.
func (s *Service) Start(ctx context.Context) error {
	err := s.startOnce(ctx)
	if err == nil || errors.Is(err, ErrStarted) {
		return err
	}
	return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
}

func (s *Service) startOnce(ctx context.Context) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if s.started {
		return ErrStarted
	}
	s.started = true
	return s.start(ctx)
}

func (s *Service) start(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A host that fails while it is awaited ends the wait.
	defer context.AfterFunc(s.failed, func() { cancel(context.Cause(s.failed)) })()

	nodes := s.cfg.Nodes
	if s.makeOwn != nil {
		own, err := s.makeOwn(ctx)
		if err != nil {
			return fmt.Errorf("setting up the shared sequencer: %w", err)
		}
		s.set(func() { s.own = own })
		nodes = withFactories(s.cfg.Nodes, s.cfg.SharedSequencer.Chains, own.Factory)
		// Before the virtual nodes: they must find the engines at the ledger's heads.
		if err := own.Start(ctx); err != nil {
			return fmt.Errorf("starting the shared sequencer: %w", err)
		}
	}

	// The host's L1 client polls until this context ends, also after the host has stopped.
	host, err := supernode.New(s.failed, s.log, s.opts.Version, s.opts.Commit, s.requestStop, s.cfg.Host, nodes)
	if err != nil {
		return fmt.Errorf("setting up the virtual nodes: %w", err)
	}
	if s.own != nil && s.own.Metrics() != nil {
		host.AddMetrics(s.own.Metrics())
	}
	s.set(func() { s.host = host })
	// The host would end its nodes with this context, at an interrupt before Stop has
	// told the sequencer; its own Stop ends them too.
	if err := host.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("starting the virtual nodes: %w", err)
	}
	addr, err := host.WaitRPCAddr(ctx)
	if err != nil {
		return fmt.Errorf("starting the RPC: %w", context.Cause(ctx))
	}
	s.set(func() { s.nodeURL = "http://" + addr })
	if s.own == nil {
		s.log.Info("Started op-node without the shared sequencer", "chains", s.cfg.Host.Chains, "rpc", s.nodeURL)
		return nil
	}
	url, err := s.own.Serve(ctx)
	if err != nil {
		return fmt.Errorf("starting the sharedseq RPC: %w", err)
	}
	s.set(func() { s.sharedURL = url })
	s.log.Info("Started op-node", "chains", s.cfg.Host.Chains, "sequenced", s.cfg.SharedSequencer.Chains, "rpc", s.nodeURL, "sharedseq", url)
	return nil
}

// withFactories returns the nodes' configurations with the sequenced chains' drivers
// taking their sequencer from ours. The given ones stay as they are.
func withFactories(nodes map[eth.ChainID]*opnodeconfig.Config, chains []sequence.ChainID, factory func(sequence.ChainID) driver.SequencerFactory) map[eth.ChainID]*opnodeconfig.Config {
	out := maps.Clone(nodes)
	for _, id := range chains {
		c := *nodes[id.ID()]
		c.Driver.SequencerFactory = factory(id)
		out[id.ID()] = &c
	}
	return out
}

// requestStop is called by the host when it cannot go on.
func (s *Service) requestStop(err error) {
	s.fail(err)
	if s.opts.RequestStop != nil {
		s.opts.RequestStop(err)
	}
}

// Stop ends everything in the order in which nothing is used after it is gone: the
// RPC and the sequencer, then the virtual nodes that lend it their parts, then the
// ledger and the engines. It takes at most stopTime, less if ctx ends.
func (s *Service) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	begin := time.Now()
	s.fail(ErrStopped) // a start under way gives up
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.started = true // nor is there a later one
	s.mu.Lock()
	own, host := s.own, s.host
	s.own, s.host, s.nodeURL, s.sharedURL = nil, nil, "", ""
	s.mu.Unlock()

	var errs []error
	if own != nil {
		errs = append(errs, within(ctx, "the shared sequencer", func() error { return own.Stop(ctx) }))
	}
	if host != nil {
		errs = append(errs, within(ctx, "the virtual nodes", func() error { return host.Stop(ctx) }))
	}
	if own != nil {
		errs = append(errs, within(ctx, "the ledger and the engines", own.Close))
	}
	s.stopped.Store(true)
	err := errors.Join(errs...)
	if host != nil {
		s.log.Info("Stopped op-node", "took", time.Since(begin), "err", err)
	}
	return err
}

// within runs a step of Stop, and gives up on it when ctx ends: a part that hangs
// must not keep the next ones from closing their files.
func within(ctx context.Context, what string, stop func() error) error {
	done := make(chan error, 1)
	go func() { done <- stop() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("stopping %s: %w", what, err)
		}
		return nil
	case <-ctx.Done():
		// A step that is done when it is looked at late is still done.
		select {
		case err := <-done:
			return err
		case <-time.After(100 * time.Millisecond):
			return fmt.Errorf("stopping %s: not done in time: %w", what, ctx.Err())
		}
	}
}

func (s *Service) Stopped() bool { return s.stopped.Load() }

func (s *Service) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// Host is the op-supernode inside, nil unless the service is running.
func (s *Service) Host() *supernode.Supernode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host
}

// NodeURL is the root of the virtual nodes' RPC: a chain's op-node answers at
// NodeURL/<chainID>/. Empty unless the service is running.
func (s *Service) NodeURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodeURL
}

// ChainURL is the RPC of a chain's op-node. Empty unless the service is running.
func (s *Service) ChainURL(id sequence.ChainID) string {
	if u := s.NodeURL(); u != "" {
		return u + "/" + id.String()
	}
	return ""
}

// SharedSequencerURL is the sharedseq RPC. Empty if the shared sequencer is off or the service is not running.
func (s *Service) SharedSequencerURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sharedURL
}

// StatusPageURL is the status page. Empty if there is none or the service is not running.
func (s *Service) StatusPageURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh, ok := s.own.(*shared); ok && s.sharedURL != "" {
		return sh.pageURL
	}
	return ""
}

// SubblocksURL is where the Subblocks streams are: a chain's at SubblocksURL/<chain ID>. Empty if
// there are none or the service is not running.
func (s *Service) SubblocksURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh, ok := s.own.(*shared); ok && s.sharedURL != "" {
		return sh.streamURL
	}
	return ""
}

// SharedSequencer is the core, nil if the shared sequencer is off or the service is not running.
func (s *Service) SharedSequencer() *sequencer.Sequencer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh, ok := s.own.(*shared); ok {
		return sh.core
	}
	return nil
}
