package service

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"
	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// realConfig is a host of two chains with real engines, and an L1 that does not answer:
// everything runs, and no block is built.
func realConfig(t *testing.T) (*config.Config, []engine.Engine) {
	t.Helper()
	cfg := hostConfig(t)
	cfg.SharedSequencer.Enabled = true
	cfg.SharedSequencer.RPC.ListenPort = 0
	secret := [32]byte{3}
	deps := map[eth.ChainID]*depset.StaticConfigDependency{}
	for _, id := range cfg.SharedSequencer.Chains {
		deps[id.ID()] = &depset.StaticConfigDependency{}
	}
	set, err := depset.NewStaticConfigDependencySet(deps)
	require.NoError(t, err)
	var engines []engine.Engine
	for _, id := range cfg.SharedSequencer.Chains {
		chain := enginetest.NewChain(id, 1)
		n, err := embedded.Start(embedded.Config{Chain: id, Genesis: chain.Genesis, JWTSecret: secret, Log: log.NewLogger(log.DiscardHandler())})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, n.Close()) })
		engines = append(engines, n.Engine())
		cfg.SharedSequencer.Engines[id] = config.Engine{URL: n.AuthEndpoint(), JWT: secret}
		node := cfg.Nodes[id.ID()]
		l1 := node.Rollup.L1ChainID
		node.Rollup = *chain.Rollup
		node.Rollup.L1ChainID = l1
		head, err := n.Engine().Head(context.Background())
		require.NoError(t, err)
		node.Rollup.Genesis.L2, node.Rollup.Genesis.L2Time = head.ID(), head.Time
		node.DependencySet = set
	}
	return cfg, engines
}

func running(t *testing.T, cfg *config.Config, opts Options) *Service {
	t.Helper()
	s, err := New(log.NewLogger(log.DiscardHandler()), cfg, opts)
	require.NoError(t, err)
	require.NoError(t, s.Start(context.Background()))
	return s
}

func stop(t *testing.T, s *Service) {
	t.Helper()
	begin := time.Now()
	require.NoError(t, s.Stop(context.Background()))
	require.Less(t, time.Since(begin), 10*time.Second, "SIGTERM is answered within 10 s")
}

// The whole host with real parts: it starts with given and with dialed engines, serves
// its methods, stops, and starts again where it was.
func TestShared(t *testing.T) {
	cfg, engines := realConfig(t)
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("relayer")))
	require.NoError(t, err)
	cfg.SharedSequencer.RelayerKey = key
	cfg.Host.MetricsConfig = opmetrics.CLIConfig{Enabled: true, ListenAddr: "127.0.0.1", ListenPort: freePort(t)}
	ctx := context.Background()

	var hash common.Hash
	t.Run("given engines", func(t *testing.T) {
		s := running(t, cfg, Options{Engines: engines})
		defer stop(t, s)
		require.NotNil(t, s.SharedSequencer())
		require.Empty(t, s.StatusPageURL(), "off by default")
		for _, name := range []string{"ledger", "messages"} {
			require.DirExists(t, filepath.Join(cfg.SharedSequencer.DataDir, name))
		}

		// WebSocket on the same port, as for subscriptions.
		c, err := gethrpc.Dial("ws" + s.SharedSequencerURL()[len("http"):])
		require.NoError(t, err)
		defer c.Close()
		var status rpc.Status
		require.NoError(t, c.CallContext(ctx, &status, "sharedseq_status"))
		require.Len(t, status.Chains, 2)
		for i, id := range cfg.SharedSequencer.Chains {
			require.Equal(t, hexutil.Uint64(id), status.Chains[i].ChainID)
			require.False(t, status.Chains[i].Ready)
			require.NotEmpty(t, status.Chains[i].Reason)
		}
		require.True(t, status.Leader)

		// No slot has been opened.
		chain := enginetest.NewChain(901, 1)
		args := rpc.BundleArgs{Items: []rpc.ItemArgs{rpc.Transaction(901, chain.Transfer(0, 0, enginetest.Recipient(0)))}}
		err = c.CallContext(ctx, nil, "sharedseq_simulateBundle", args)
		var coded gethrpc.Error
		require.ErrorAs(t, err, &coded)
		require.Equal(t, rpc.CodeUnavailable, coded.ErrorCode(), "%v", err)

		var sent rpc.SendResult
		require.NoError(t, c.CallContext(ctx, &sent, "sharedseq_sendBundle", args))
		hash = sent.BundleHash

		// The executor answers op-geth's pool.
		err = c.CallContext(ctx, nil, "supervisor_checkAccessList", []common.Hash{}, safety.CrossUnsafe, messages.ExecutingDescriptor{ChainID: eth.ChainIDFromUInt64(901), Timestamp: 1})
		require.NoError(t, err)
		err = c.CallContext(ctx, nil, "supervisor_checkAccessList", []common.Hash{}, safety.Finalized, messages.ExecutingDescriptor{ChainID: eth.ChainIDFromUInt64(901), Timestamp: 1})
		require.ErrorAs(t, err, &coded)
		require.Equal(t, interop.GetErrorCode(interop.ErrOutOfScope), coded.ErrorCode())

		// No other administration than reading the failsafe.
		var modules map[string]string
		require.NoError(t, c.CallContext(ctx, &modules, "rpc_modules"))
		require.ElementsMatch(t, []string{"sharedseq", "supervisor", "interop", "admin", "health", "rpc"}, keys(modules))

		served := httpGet(t, cfg)
		for _, line := range []string{
			"op_shared_sequencer_slots_total 0", `op_shared_sequencer_chain_ready{chain_id="901"} 0`,
			`op_shared_sequencer_bundlepool_bundles{state="pending"} 1`, `op_shared_sequencer_bundle_transitions_total{state="pending"} 1`,
			`op_shared_sequencer_ingress_checks_total{result="ok"} 1`, `op_shared_sequencer_ingress_checks_total{result="malformed"} 1`,
			`op_shared_sequencer_rpc_server_responses_total{error="rpc_-38106",method="sharedseq_simulateBundle",rpc="sharedseq"} 1`,
			`op_shared_sequencer_info{commit="",rotation="solo",version=""} 1`, `op_shared_sequencer_ledger_slots 0`,
		} {
			require.Contains(t, served, line+"\n")
		}
		_, err = os.Stat(filepath.Join(cfg.SharedSequencer.DataDir, "bundles"))
		require.ErrorIs(t, err, os.ErrNotExist, "saved after a slot, and at the end")
	})
	t.Run("status page", func(t *testing.T) {
		with := *cfg
		with.SharedSequencer.Status = config.RPC{ListenAddr: "127.0.0.1"}
		s := running(t, &with, Options{Engines: engines})
		defer stop(t, s)
		r, err := http.Get(s.StatusPageURL() + "/api/snapshot")
		require.NoError(t, err)
		defer r.Body.Close()
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Contains(t, r.Header.Get("Content-Security-Policy"), "default-src 'none'")
		http.DefaultClient.CloseIdleConnections()
	})
	t.Run("dialed engines", func(t *testing.T) {
		s := running(t, cfg, Options{})
		defer stop(t, s)
		c, err := gethrpc.Dial(s.SharedSequencerURL())
		require.NoError(t, err)
		defer c.Close()
		var status rpc.BundleStatus
		require.NoError(t, c.CallContext(ctx, &status, "sharedseq_bundleStatus", hash), "bundles outlive a restart")
		require.EqualValues(t, "pending", status.State)
	})
	t.Run("wrong secret", func(t *testing.T) {
		wrong := *cfg
		wrong.SharedSequencer.Engines = map[sequence.ChainID]config.Engine{}
		for id, e := range cfg.SharedSequencer.Engines {
			wrong.SharedSequencer.Engines[id] = config.Engine{URL: e.URL, JWT: eth.Bytes32{9}}
		}
		s, err := New(log.NewLogger(log.DiscardHandler()), &wrong, Options{})
		require.NoError(t, err)
		require.ErrorContains(t, s.Start(ctx), "setting up the shared sequencer: engine of chain 90")
	})
	t.Run("directory in use", func(t *testing.T) {
		s := running(t, cfg, Options{Engines: engines})
		defer stop(t, s)
		other, _ := realConfig(t)
		other.SharedSequencer.DataDir = cfg.SharedSequencer.DataDir
		second, err := New(log.NewLogger(log.DiscardHandler()), other, Options{Engines: engines})
		require.NoError(t, err)
		require.Error(t, second.Start(ctx))
		require.Error(t, second.Start(ctx), "stopped for good")
	})
}

func keys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// httpGet reads the host's metrics once they are served.
func httpGet(t *testing.T, cfg *config.Config) string {
	t.Helper()
	url := "http://127.0.0.1:" + strconv.Itoa(cfg.Host.MetricsConfig.ListenPort) + "/metrics"
	var body []byte
	require.Eventually(t, func() bool {
		r, err := http.Get(url)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		body, err = io.ReadAll(r.Body)
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	return string(body)
}
