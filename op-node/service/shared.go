package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/httputil"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/metrics"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/statuspage"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/stream"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/tracing"
)

// shared is the shared sequencer with everything it is made of.
type shared struct {
	log       log.Logger
	core      *sequencer.Sequencer
	executor  *executor.Executor
	pool      *bundlepool.Pool
	poolFile  string
	ledger    *ledger.Ledger
	metrics   *metrics.Metrics
	tracer    *tracing.Tracer
	history   *history.History
	version   string
	listen    config.RPC
	admin     config.Admin
	status    config.RPC // of the page
	rpcConfig rpc.Config
	page      *statuspage.Page // nil: there is none
	pageURL   string

	feed         *stream.Feed
	streams      config.RPC // of the Subblocks streams
	streamServer *httputil.HTTPServer
	streamURL    string

	rotation rotation.Rotation
	comet    *cometbft.Rotation // the rotation, nil if the operator is alone
	self     common.Address     // of the operator's key, zero if there is none
	every    time.Duration      // between two subblocks

	// closers are what Close closes, the last first.
	closers []func() error

	saving  sync.WaitGroup
	save    chan struct{} // a slot was sealed
	stopped chan struct{}
	stop    sync.Once

	servers []*oprpc.Server
}

var _ sequencerParts = (*shared)(nil)

// newShared opens what the shared sequencer is made of. It waits for engines that are
// to be dialed.
func (s *Service) newShared(ctx context.Context) (sequencerParts, error) {
	sh := &shared{
		log: s.log, metrics: metrics.New(s.cfg.SharedSequencer.Chains), version: s.opts.Version, listen: s.cfg.SharedSequencer.RPC, admin: s.cfg.SharedSequencer.Admin,
		status: s.cfg.SharedSequencer.Status, streams: s.cfg.SharedSequencer.Streams,
		save: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	if err := sh.open(ctx, s.cfg, &s.opts, sh.noteFailure(&s.cfg.SharedSequencer, s.requestStop)); err != nil {
		return nil, errors.Join(err, sh.Close())
	}
	return sh, nil
}

func (sh *shared) open(ctx context.Context, cfg *config.Config, opts *Options, fatal func(error)) error {
	c := &cfg.SharedSequencer
	engines, err := sh.engines(ctx, cfg, opts.Engines, fatal)
	if err != nil {
		return err
	}
	chains := map[sequence.ChainID]sequencer.Chain{}
	var rules []executor.ChainConfig
	slot := uint64(0) // the shortest block time
	for _, id := range c.Chains {
		r := &cfg.Nodes[id.ID()].Rollup
		chains[id] = sequencer.Chain{Engine: engines[id], Rollup: r}
		rules = append(rules, executor.ChainConfig{
			ID: id, BlockTime: r.BlockTime, InteropTime: r.LagoonTime, Genesis: r.Genesis.L2, GenesisTime: r.Genesis.L2Time,
		})
		if slot == 0 || r.BlockTime < slot {
			slot = r.BlockTime
		}
	}
	set, err := dependencySet(cfg.Nodes, c.Chains)
	if err != nil {
		return err
	}
	if sh.ledger, err = ledger.Open(filepath.Join(c.DataDir, "ledger"), sh.log, ledger.WithMetrics(sh.metrics, clock.SystemClock.Now)); err != nil {
		return err
	}
	sh.closers = append(sh.closers, sh.ledger.Close)
	hist, err := history.Open(history.Config{
		Dir: filepath.Join(c.DataDir, "messages"), Chains: rules, MessageExpiry: set.MessageExpiryWindow(), Log: sh.log,
	})
	if err != nil {
		return err
	}
	sh.history = hist
	sh.closers = append(sh.closers, hist.Close)
	if sh.executor, err = executor.New(executor.Config{DependencySet: set, Chains: rules, History: hist}); err != nil {
		return err
	}

	limits := bundlepool.DefaultConfig(c.Chains...)
	limits.MaxItems, limits.MaxBundleBytes = c.Bundles.MaxItems, c.Bundles.MaxBytes
	limits.MaxBundles, limits.MaxPerSender = c.Bundles.MaxPending, c.Bundles.MaxPerSender
	sh.feed = stream.New(stream.DefaultConfig(), sh.metrics, sh.log)
	sh.closers = append(sh.closers, func() error { sh.feed.Close(); return nil }) // if Stop is not called
	limits.Metrics, limits.Watcher = sh.metrics, sh.feed
	if c.Arrivals != "" {
		if limits.Arrived, err = sh.recordArrivals(c.Arrivals); err != nil {
			return err
		}
	}
	sh.pool = bundlepool.New(limits, sh.log)
	sh.feed.Watch(sh.pool)
	sh.poolFile = filepath.Join(c.DataDir, "bundles")
	if err := sh.pool.Load(sh.poolFile); err != nil {
		return err
	}

	var relayer builder.Relayer // nil: relay steps fail
	if c.RelayerKey != nil && c.Relays.Mode != relay.Off {
		r, err := relay.New(c.RelayerKey, relay.Config{Gas: c.RelayGas})
		if err != nil {
			return err
		}
		sh.log.Info("Relaying messages", "relayer", r.Address(), "policy", c.Relays.Mode)
		relayer = r
	}
	if sh.tracer, err = sh.openTracer(ctx, c); err != nil {
		return err
	}
	sh.closers = append(sh.closers, func() error { return sh.tracer.Close(context.Background()) }) // if Stop is not called
	times := sequencer.DefaultConfig()
	times.FillLead, times.SealLead, times.Grace, times.Subblocks = c.FillLead, c.SealLead, c.ChainGrace, c.Subblocks
	times.Order = c.Order
	sh.every = time.Duration(slot) * time.Second / time.Duration(c.Subblocks)
	sh.rpcConfig = rpc.DefaultConfig()
	sh.rpcConfig.SlotSeconds = slot
	sh.rpcConfig.Chains, sh.rpcConfig.Rate, sh.rpcConfig.Burst = c.Chains, c.RPCRate, int(rpcBurst*c.RPCRate)
	listener := listeners{sh.feed}
	watching := &observer{to: []sequencer.Observer{sh.metrics, sh.tracer}, sealed: sh.save}
	if c.Status.ListenAddr != "" {
		sh.makePage(c, slot)
		watching.to, listener = append(watching.to, sh.page), append(listener, sh.page)
	}
	sh.core, err = sequencer.New(times, sequencer.Deps{
		Log: sh.log, Clock: clock.SystemClock, Chains: chains, Executor: sh.executor, History: hist, Ledger: sh.ledger,
		Bundles: sh.pool, Relayer: relayer, Relays: c.Relays, Tamper: opts.Tamper,
		SaveBundles: func() error { return sh.pool.Save(sh.poolFile) },
		Fatal:       fatal,
		Observer:    watching, Listener: listener,
		Metrics: sh.metrics,
		Rotation: func(m rotation.Machine) (rotation.Rotation, error) {
			if opts.Machine != nil {
				m = opts.Machine(m)
			}
			return sh.makeRotation(c, fatal)(m)
		},
	})
	if err == nil {
		sh.watch(c, opts, time.Duration(slot)*time.Second)
	}
	return err
}

// rpcBurst is for how many seconds an address may ask in advance.
const rpcBurst = 4

// arrivalsBytes is the size of a file of arrivals: about half a million bundles.
const arrivalsBytes = 64 << 20

// recordArrivals gives what notes the arrival of bundles in a file. One that cannot be written
// does not keep bundles out.
func (sh *shared) recordArrivals(path string) (func(common.Hash), error) {
	file, err := arrivals.Record(path, arrivalsBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flags.Arrivals.Name, err)
	}
	sh.closers = append(sh.closers, file.Close)
	return func(bundle common.Hash) {
		if err := file.Note(arrivals.Arrival{Time: clock.SystemClock.Now().UTC(), Hash: bundle}); err != nil {
			sh.log.Warn("The arrival of a bundle is not kept", "bundle", bundle, "err", err)
		}
	}, nil
}

// engineWait is how long the start waits for engines that do not answer. The chains of
// those that come later are left out until then.
const engineWait = 10 * time.Second

// engines are the given ones, or those of the configuration. An engine that is not there
// yet holds back neither the start nor the other chains.
func (sh *shared) engines(ctx context.Context, cfg *config.Config, ready []engine.Engine, fatal func(error)) (map[sequence.ChainID]engine.Engine, error) {
	out := map[sequence.ChainID]engine.Engine{}
	for _, e := range ready {
		out[e.Chain()] = e
	}
	if ready != nil {
		return out, nil
	}
	late := map[sequence.ChainID]*engine.Later{}
	for id, at := range cfg.SharedSequencer.Engines {
		l := engine.Connect(id, func(ctx context.Context) (engine.Engine, error) {
			e, err := engine.Dial(ctx, sh.log, &cfg.Nodes[id.ID()].Rollup, at.URL, at.JWT, engine.Options{Recorder: sh.metrics.Engine(id)})
			if err != nil {
				return nil, err // not a nil *Client in the interface
			}
			return e, nil
		}, fatal)
		out[id], late[id] = l, l
		sh.closers = append(sh.closers, func() error { l.Close(); return nil })
	}
	wait, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	for id, l := range late {
		switch err := l.Await(wait); {
		case err == nil:
		case ctx.Err() != nil:
			return nil, fmt.Errorf("engine of chain %s: %w", id, err)
		case wait.Err() != nil:
			sh.log.Warn("Starting without an engine; its chain is left out until it answers", "chain", id, "waited", engineWait)
		default:
			return nil, err
		}
	}
	return out, nil
}

// dependencySet is the chains' one dependency set; config has checked that there is one.
// Before interop is scheduled any will do: no message is valid.
func dependencySet(nodes map[eth.ChainID]*opnodeconfig.Config, chains []sequence.ChainID) (depset.DependencySet, error) {
	deps := map[eth.ChainID]*depset.StaticConfigDependency{}
	for _, id := range chains {
		if n := nodes[id.ID()]; n.Rollup.LagoonTime != nil {
			return n.DependencySet, nil
		}
		deps[id.ID()] = &depset.StaticConfigDependency{}
	}
	return depset.NewStaticConfigDependencySet(deps)
}

// observer passes on what happened, and has the bundle pool saved after each slot.
type observer struct {
	to     []sequencer.Observer
	sealed chan struct{}
}

func (o *observer) SlotFailed(slot sequence.Slot, err error) {
	for _, to := range o.to {
		to.SlotFailed(slot, err)
	}
}

func (o *observer) SlotSealed(r sequencer.SlotReport) {
	for _, to := range o.to {
		to.SlotSealed(r)
	}
	select {
	case o.sealed <- struct{}{}:
	default: // a save that is under way is followed by another
	}
}

func (sh *shared) Factory(chain sequence.ChainID) driver.SequencerFactory {
	return sh.core.Factory(chain)
}

func (sh *shared) Metrics() prometheus.Gatherer { return sh.metrics }

func (sh *shared) Start(ctx context.Context) error {
	sh.saving.Go(func() {
		for {
			select {
			case <-sh.save:
				sh.savePool()
			case <-sh.stopped:
				return
			}
		}
	})
	return sh.core.Start(ctx)
}

func (sh *shared) savePool() {
	if err := sh.pool.Save(sh.poolFile); err != nil {
		sh.metrics.BundlesNotSaved()
		sh.log.Error("Bundles would be lost by a restart", "err", err)
	}
}

func (sh *shared) Serve(context.Context) (string, error) {
	var pool rpc.Pool = sh.pool
	if sh.comet != nil {
		pool = &sharingPool{sh.pool, sh.log, sh.metrics.BundleNotShared, sh.comet}
	}
	turns := &agreement{sh: sh, due: func() time.Time { return sh.core.Due(nil) }, every: sh.every, now: clock.SystemClock.Now}
	api, err := rpc.NewAPI(sh.rpcConfig, pool, simulator{sh.core}, statusSource{sh}, turns, sh.feed)
	if err != nil {
		return "", err
	}
	server := oprpc.NewServer(sh.listen.ListenAddr, sh.listen.ListenPort, sh.version, oprpc.WithLogger(sh.log), oprpc.WithWebsocketEnabled(),
		oprpc.WithRPCRecorder(sh.metrics.Server("sharedseq", publicMethods...)), oprpc.WithHTTPRecorder(sh.metrics.HTTP()))
	for _, a := range api.Register() {
		server.AddAPI(a)
	}
	for _, a := range ingressAPIs(countedJudge{sh.executor, sh.metrics.Ingress}) {
		server.AddAPI(a)
	}
	if err := server.Start(); err != nil {
		return "", err
	}
	sh.servers = append(sh.servers, server)
	if err := sh.serveAdmin(); err != nil {
		return "", fmt.Errorf("admin RPC: %w", err)
	}
	if err := sh.servePage(); err != nil {
		return "", fmt.Errorf("status page: %w", err)
	}
	if err := sh.serveStreams(); err != nil {
		return "", fmt.Errorf("Subblocks streams: %w", err) //nolint:revive,staticcheck // a name
	}
	return "http://" + server.Endpoint(), nil
}

// serveAdmin opens the admin RPC, if there is to be one.
func (sh *shared) serveAdmin() error {
	if sh.admin.ListenAddr == "" {
		return nil
	}
	server := oprpc.NewServer(sh.admin.ListenAddr, sh.admin.ListenPort, sh.version, oprpc.WithLogger(sh.log), oprpc.WithJWTSecret(sh.admin.JWT[:]),
		oprpc.WithRPCRecorder(sh.metrics.Server("admin", adminMethods...)), oprpc.WithHTTPRecorder(sh.metrics.HTTP()))
	server.AddAPI(gethrpc.API{Namespace: "admin", Service: &admin{publicAdmin{sh.executor}, sh.log}, Authenticated: true})
	if err := server.Start(); err != nil {
		return err
	}
	sh.servers = append(sh.servers, server)
	sh.log.Info("Started admin RPC", "endpoint", server.Endpoint())
	return nil
}

func (sh *shared) Stop(ctx context.Context) error {
	errs := []error{sh.stopStreams(ctx)}
	for _, s := range sh.servers {
		errs = append(errs, s.Stop())
	}
	errs = append(errs, sh.stopPage(ctx), sh.core.Stop(ctx))
	sh.stop.Do(func() { close(sh.stopped) })
	sh.saving.Wait()
	sh.savePool()
	errs = append(errs, sh.tracer.Close(ctx))
	return errors.Join(errs...)
}

func (sh *shared) Close() error {
	sh.metrics.Watch(nil)
	var errs []error
	for i := len(sh.closers) - 1; i >= 0; i-- {
		errs = append(errs, sh.closers[i]())
	}
	sh.closers = nil
	return errors.Join(errs...)
}

// simulator answers as the RPC wants it.
type simulator struct{ core *sequencer.Sequencer }

func (s simulator) Simulate(ctx context.Context, b *sequence.Bundle) (*bundlepool.BundleResult, error) {
	r, err := s.core.Simulate(ctx, b)
	if errors.Is(err, sequencer.ErrNoSlot) || errors.Is(err, engine.ErrUnavailable) {
		return nil, fmt.Errorf("%w: %w", rpc.ErrUnavailable, err)
	}
	return r, err
}

// statusSource collects what sharedseq_status tells.
type statusSource struct{ sh *shared }

func (s statusSource) Status(context.Context) (*rpc.Status, error) {
	bundles := s.sh.pool.Stats()
	out := &rpc.Status{
		Slot:           hexutil.Uint64(s.sh.pool.Slot()),
		Leader:         s.sh.leads(),
		PendingBundles: hexutil.Uint64(bundles.Pending),
		Bundles: rpc.BundleCounts{
			Pending: hexutil.Uint64(bundles.Pending), PendingBytes: hexutil.Uint64(bundles.PendingBytes), Executed: hexutil.Uint64(bundles.Executed),
			Undone: hexutil.Uint64(bundles.Undone), Ended: hexutil.Uint64(bundles.Finished),
		},
		Agreement: s.sh.agreementStatus(),
	}
	for _, c := range s.sh.core.Status() {
		st := rpc.ChainStatus{
			ChainID: hexutil.Uint64(c.Chain), Ready: c.NotReady == "", Reason: c.NotReady,
			Head: rpc.Block{Hash: c.Head.Hash, Number: hexutil.Uint64(c.Head.Number), Timestamp: hexutil.Uint64(c.Head.Time)},
		}
		if _, time, ok := s.sh.ledger.Head(c.Chain); ok {
			st.LastSlot = hexutil.Uint64(time)
		}
		out.Chains = append(out.Chains, st)
	}
	return out, nil
}
