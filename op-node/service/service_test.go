package service

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-node/rollup/driver"
	"github.com/ethereum-optimism/optimism/op-node/rollup/sequencing"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// fakeL1 answers every call with an error: enough for a host whose nodes do not get far.
func fakeL1(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct{ ID json.RawMessage }
		_ = json.NewDecoder(r.Body).Decode(&req)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": req.ID, "error": map[string]any{"code": -32000, "message": "no L1 here"}})
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// hostConfig is a host of two chains whose engines cannot be reached.
func hostConfig(t *testing.T) *config.Config {
	t.Helper()
	zero := uint64(0)
	l1 := fakeL1(t)
	c := &config.Config{
		Host: &snconfig.CLIConfig{
			Chains: []uint64{901, 902}, DataDir: t.TempDir(), L1NodeAddr: l1, L1HTTPPollInterval: time.Second,
			RPCConfig: oprpc.CLIConfig{ListenAddr: "127.0.0.1"},
		},
		Nodes:           map[eth.ChainID]*opnodeconfig.Config{},
		SharedSequencer: config.DefaultSharedSequencer(),
	}
	c.SharedSequencer.DataDir = filepath.Join(c.Host.DataDir, "shared-sequencer")
	c.SharedSequencer.Engines = map[sequence.ChainID]config.Engine{}
	for _, id := range c.Host.Chains {
		chain := sequence.ChainID(id)
		c.SharedSequencer.Chains = append(c.SharedSequencer.Chains, chain)
		c.SharedSequencer.Engines[chain] = config.Engine{URL: "ws://127.0.0.1:1"}
		c.Nodes[chain.ID()] = &opnodeconfig.Config{
			L1:                &opnodeconfig.L1EndpointConfig{L1NodeAddr: l1, BatchSize: 20, MaxConcurrency: 10, HttpPollInterval: time.Second},
			L1ChainConfig:     params.SepoliaChainConfig,
			L2:                &opnodeconfig.L2EndpointConfig{L2EngineAddr: "ws://127.0.0.1:1"},
			Beacon:            &opnodeconfig.L1BeaconEndpointConfig{BeaconAddr: l1, BeaconCheckIgnore: true},
			Driver:            driver.Config{SequencerEnabled: true},
			Rollup:            rollup.Config{L1ChainID: big.NewInt(900), L2ChainID: new(big.Int).SetUint64(id), BlockTime: 1, EcotoneTime: &zero},
			ConfigPersistence: opnodeconfig.DisabledConfigPersistence{},
		}
	}
	return c
}

// fakeParts records what the host asks of the shared sequencer.
type fakeParts struct {
	mu      sync.Mutex
	calls   []string
	service *Service
	fail    string // the call that fails
	hang    chan struct{}
}

var errFake = errors.New("fake failure")

func (f *fakeParts) call(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.service.Host() != nil {
		name += " beside the nodes"
	}
	f.calls = append(f.calls, name)
	if f.fail != "" && len(name) >= len(f.fail) && name[:len(f.fail)] == f.fail {
		return errFake
	}
	return nil
}

func (f *fakeParts) Factory(id sequence.ChainID) driver.SequencerFactory {
	_ = f.call("factory of " + id.String())
	return func(*driver.SequencerParts) sequencing.SequencerIface { return sequencing.DisabledSequencer{} }
}
func (f *fakeParts) Start(context.Context) error { return f.call("start") }
func (f *fakeParts) Serve(context.Context) (string, error) {
	return "http://sharedseq", f.call("serve")
}
func (f *fakeParts) Stop(context.Context) error {
	if f.hang != nil {
		<-f.hang
	}
	return f.call("stop")
}
func (f *fakeParts) Close() error                 { return f.call("close") }
func (f *fakeParts) Metrics() prometheus.Gatherer { return prometheus.NewRegistry() }

// withFake is a service whose shared sequencer is a fake.
func withFake(t *testing.T, f *fakeParts) (*Service, *config.Config) {
	t.Helper()
	cfg := hostConfig(t)
	cfg.SharedSequencer.Enabled = true
	s, err := New(log.NewLogger(log.DiscardHandler()), cfg, Options{})
	require.NoError(t, err)
	f.service = s
	s.makeOwn = func(context.Context) (sequencerParts, error) { return f, nil }
	return s, cfg
}

func TestOrder(t *testing.T) {
	f := &fakeParts{}
	s, cfg := withFake(t, f)
	require.NoError(t, s.Start(context.Background()))
	require.Equal(t, "http://sharedseq", s.SharedSequencerURL())
	require.Equal(t, s.NodeURL()+"/901", s.ChainURL(901))
	require.NotNil(t, s.Host())
	require.ErrorIs(t, s.Start(context.Background()), ErrStarted)
	require.False(t, s.Stopped())

	// The host serves its own methods.
	c, err := gethrpc.Dial(s.NodeURL())
	require.NoError(t, err)
	defer c.Close()
	var status any
	require.NoError(t, c.Call(&status, "health_status"))

	begin := time.Now()
	require.NoError(t, s.Stop(context.Background()))
	require.Less(t, time.Since(begin), stopTime)
	require.True(t, s.Stopped())
	require.Nil(t, s.Host())
	require.Empty(t, s.NodeURL())
	require.Empty(t, s.SharedSequencerURL())
	require.Equal(t, []string{
		"factory of 901", "factory of 902", "start", // the nodes find refilled engines
		"serve beside the nodes",
		"stop", "close", // by then the host is no longer given out
	}, f.calls)
	for id, n := range cfg.Nodes {
		require.Nil(t, n.Driver.SequencerFactory, "chain %s: the caller's configuration was changed", id)
	}
	require.NoError(t, s.Stop(context.Background()), "again")
	require.ErrorIs(t, s.Start(context.Background()), ErrStarted)
}

func TestFailedStart(t *testing.T) {
	for name, tt := range map[string]struct{ calls []string }{
		"start": {[]string{"factory of 901", "factory of 902", "start", "stop", "close"}},
		"serve": {[]string{"factory of 901", "factory of 902", "start", "serve beside the nodes", "stop", "close"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeParts{fail: name}
			s, _ := withFake(t, f)
			require.ErrorIs(t, s.Start(context.Background()), errFake)
			require.True(t, s.Stopped())
			require.Equal(t, tt.calls, f.calls)
		})
	}
	t.Run("port in use", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		defer srv.Close()
		f := &fakeParts{}
		s, cfg := withFake(t, f)
		var stop error
		s.opts.RequestStop = func(err error) { stop = err }
		addr := srv.Listener.Addr().String()
		cfg.Host.RPCConfig.ListenPort = srv.Listener.Addr().(*net.TCPAddr).Port
		err := s.Start(context.Background())
		require.ErrorContains(t, err, "starting the RPC: failed to bind to address \""+addr+"\"")
		require.ErrorContains(t, stop, addr)
		require.Equal(t, []string{"factory of 901", "factory of 902", "start", "stop", "close"}, f.calls)
	})
}

// A part that hangs does not keep the next ones from closing.
func TestStopIsBounded(t *testing.T) {
	f := &fakeParts{hang: make(chan struct{})}
	s, _ := withFake(t, f)
	require.NoError(t, s.Start(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // as a second interrupt does
	err := s.Stop(ctx)
	require.ErrorContains(t, err, "stopping the shared sequencer: not done in time")
	f.mu.Lock()
	require.Contains(t, f.calls, "close")
	f.mu.Unlock()
	close(f.hang)
}

func TestStopBeforeStart(t *testing.T) {
	s, _ := withFake(t, &fakeParts{})
	require.NoError(t, s.Stop(context.Background()))
	require.ErrorIs(t, s.Start(context.Background()), ErrStarted)
}

// An interrupt while engines are awaited ends the start.
func TestInterruptedStart(t *testing.T) {
	s, cfg := withFake(t, &fakeParts{})
	s.makeOwn = s.newShared // its engines do not exist
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	err := s.Start(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "setting up the shared sequencer: engine of chain 90")
	require.NoDirExists(t, filepath.Join(cfg.SharedSequencer.DataDir, "ledger"))

	t.Run("by Stop", func(t *testing.T) {
		s, _ := withFake(t, &fakeParts{})
		s.makeOwn = s.newShared
		done := make(chan error, 1)
		go func() { done <- s.Start(context.Background()) }()
		require.Eventually(t, func() bool {
			if s.lifecycle.TryLock() {
				s.lifecycle.Unlock()
				return false
			}
			return true
		}, 5*time.Second, time.Millisecond)
		require.NoError(t, s.Stop(context.Background()))
		require.ErrorIs(t, <-done, ErrStopped)
	})
}

// Without the shared sequencer nothing of it is there: the drivers have no factory and
// no directory is made.
func TestOff(t *testing.T) {
	cfg := hostConfig(t)
	cfg.SharedSequencer.Enabled = false
	s, err := New(log.NewLogger(log.DiscardHandler()), cfg, Options{})
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	require.NotEmpty(t, s.NodeURL())
	require.Empty(t, s.SharedSequencerURL())
	require.Nil(t, s.SharedSequencer())
	require.NoError(t, s.Stop(context.Background()))
	require.NoDirExists(t, cfg.SharedSequencer.DataDir)
	for _, n := range cfg.Nodes {
		require.Nil(t, n.Driver.SequencerFactory)
	}
}

func TestEngines(t *testing.T) {
	cfg := hostConfig(t)
	cfg.SharedSequencer.Enabled = true
	delete(cfg.SharedSequencer.Engines, 902)
	_, err := New(log.NewLogger(log.DiscardHandler()), cfg, Options{})
	require.EqualError(t, err, "no engine for chain 902, which is to be sequenced")
}

// fakeChecker refuses everything with one error.
type fakeChecker struct{ err error }

func (fakeChecker) Failsafe() bool   { return true }
func (fakeChecker) SetFailsafe(bool) {}

func (f fakeChecker) CheckAccessList([]common.Hash, safety.Level, messages.ExecutingDescriptor) error {
	return f.err
}

func TestIngress(t *testing.T) {
	dial := func(t *testing.T, err error) *gethrpc.Client {
		srv := gethrpc.NewServer()
		t.Cleanup(srv.Stop)
		for _, a := range ingressAPIs(fakeChecker{err}) {
			require.NoError(t, srv.RegisterName(a.Namespace, a.Service))
		}
		c := gethrpc.DialInProc(srv)
		t.Cleanup(c.Close)
		return c
	}
	ask := func(c *gethrpc.Client, method string) error {
		return c.Call(nil, method, []common.Hash{{1}}, safety.CrossUnsafe, messages.ExecutingDescriptor{ChainID: eth.ChainIDFromUInt64(901), Timestamp: 5})
	}
	for _, method := range []string{"supervisor_checkAccessList", "interop_checkAccessList"} {
		require.NoError(t, ask(dial(t, nil), method))
		err := ask(dial(t, interop.ErrConflict), method)
		require.EqualError(t, err, interop.ErrConflict.Error())
		var coded gethrpc.Error
		require.ErrorAs(t, err, &coded)
		require.Equal(t, interop.GetErrorCode(interop.ErrConflict), coded.ErrorCode())
	}
	c := dial(t, nil)
	var enabled bool
	require.NoError(t, c.Call(&enabled, "admin_getFailsafeEnabled"))
	require.True(t, enabled)
	require.Error(t, c.Call(nil, "admin_setFailsafeEnabled", true), "nothing can be set here")
}
