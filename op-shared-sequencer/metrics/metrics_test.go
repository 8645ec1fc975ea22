package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rpc"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const docFile = "../../docs/metrics.md"

// TestDocument: docs/metrics.md is what is registered. make docs writes it.
func TestDocument(t *testing.T) {
	var doc bytes.Buffer
	doc.WriteString("# Metrics\n\nWhat the shared sequencer exports at op-node's `/metrics` (`--metrics.enabled`), beside op-supernode's and the virtual nodes' own.\nMade by `make docs` from what is registered; `op-node doc metrics` prints the same. No label holds a hash or what a caller chose:\nthe number of series is bounded by chains and operators. The dashboard is in `ops/grafana`, the alerts are in `ops/prometheus`.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	list := New(nil).Document()
	slices.SortFunc(list, func(a, b opmetrics.DocumentedMetric) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range list {
		require.NotEmpty(t, m.Help, m.Name)
		fmt.Fprintf(&doc, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), strings.ReplaceAll(m.Help, "|", "\\|"))
	}
	if *update {
		require.NoError(t, os.WriteFile(docFile, doc.Bytes(), 0o644))
	}
	have, err := os.ReadFile(docFile)
	require.NoError(t, err)
	require.Equal(t, doc.String(), string(have), "docs/metrics.md is stale: make docs")
}

// values are all samples, by name and labels.
func values(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	families, err := m.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, s := range f.Metric {
			var labels []string
			for _, l := range s.Label {
				labels = append(labels, l.GetValue())
			}
			key := strings.TrimPrefix(f.GetName(), Namespace+"_") + "{" + strings.Join(labels, ",") + "}"
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				out[key] = s.Counter.GetValue()
			case dto.MetricType_GAUGE:
				out[key] = s.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				out[key] = float64(s.Histogram.GetSampleCount())
			}
		}
	}
	return out
}

func TestEveryRuleHasALabel(t *testing.T) {
	seen := map[string]bool{}
	for r := executor.Rule(1); !strings.HasPrefix(r.String(), "rule "); r++ {
		l := ruleLabel(r)
		require.NotEqual(t, "other", l, r)
		require.False(t, seen[l], l)
		seen[l] = true
	}
	require.Len(t, seen, int(executor.RuleHistory))
}

func TestSlots(t *testing.T) {
	m := New([]sequence.ChainID{901, 902})
	require.Zero(t, values(t, m)["messages_refused_total{901,bundle,expiry}"], "it begins at 0")
	require.Contains(t, values(t, m), "messages_refused_total{901,bundle,expiry}")
	at := time.Unix(1000, 0)
	m.SlotSealed(sequencer.SlotReport{
		Slot: 1001, Executed: 2, Failed: 1, PutOff: 3, Fill: time.Millisecond, Seal: time.Millisecond,
		Spans:  []sequencer.Span{{Stage: sequencer.StageFill, Start: at, End: at.Add(time.Second)}, {Stage: sequencer.StageFill, Chain: 902, Start: at, End: at}},
		Blocks: []sequencer.BlockReport{{Chain: 901, Ref: eth.L2BlockRef{Number: 7}, Transactions: 5, GasUsed: 100, Logs: 4, Messages: 2}},
	})
	m.SlotFailed(1, errors.New("?"))
	m.LedgerSynced(time.Millisecond, errors.New("full"))
	m.RelayerBalance(902, new(big.Int).Mul(big.NewInt(3), big.NewInt(5e17)))
	v := values(t, m)
	for name, want := range map[string]float64{
		"slots_total{}": 1, "last_slot_timestamp_seconds{}": 1001, "bundles_total{executed}": 2, "bundles_total{failed}": 1, "bundles_total{put_off}": 3,
		"slot_stage_seconds{fill}": 1, "slot_stage_seconds{seal}": 1, "chain_stage_seconds{902,fill}": 1, "slots_failed_total{other}": 1,
		"head_number{901}": 7, "transactions_total{901}": 5, "gas_total{901}": 100, "logs_total{901}": 4, "messages_executed_total{901}": 2,
		"messages_executed_total{902}": 0, "ledger_sync_seconds{}": 1, "ledger_sync_failures_total{}": 1, "relayer_balance_ether{902}": 1.5,
	} {
		require.Contains(t, v, name)
		require.Equal(t, want, v[name], name)
	}
	require.NotContains(t, v, "slot_stage_seconds{verify}", "another operator's stage is not counted as none")
}

type fakeHistory struct{}

func (fakeHistory) Status(chain sequence.ChainID) (history.Status, bool) {
	return history.Status{First: 1, Head: 8, Filled: true, Complete: chain == 901, Filling: true, From: 2, At: 5, To: 10}, true
}
func (fakeHistory) Bytes(sequence.ChainID) int64 { return 12 }

// How things stand is read when it is asked for, and operators that have left are gone.
func TestState(t *testing.T) {
	m := New([]sequence.ChainID{901})
	set := []cometbft.OperatorStatus{{Operator: operators.Operator{Name: "alice", Power: 3}, Missed: 2, Shortened: true}}
	failsafe := true
	m.SetFixed(Fixed{Version: "v1", Rotation: "cometbft", Start: time.Unix(50, 0), LastFailure: time.Unix(40, 0), Slot: time.Second, Peers: 3})
	m.Watch(&Sources{
		Chains: func() []sequencer.ChainState {
			return []sequencer.ChainState{
				{Chain: 901, Member: true, Unsafe: eth.L2BlockRef{Number: 10, Time: 100}},
				{Chain: 902, LeftOut: true, Hindrance: "engine"},
			}
		},
		Bundles: func() bundlepool.Stats { return bundlepool.Stats{Pending: 4, MaxPending: 5} },
		Ledger:  func() ledger.Stats { return ledger.Stats{Bytes: 9, Broken: true} },
		History: fakeHistory{}, Failsafe: func() bool { return failsafe }, FillLead: func() time.Duration { return 300 * time.Millisecond },
		Agreement: func() cometbft.Status { return cometbft.Status{Running: true, Operators: set} },
		Evidence: func() operators.EvidenceList {
			return operators.EvidenceList{Votes: make([]operators.VoteEvidence, 2)}
		},
		Disk: func() (uint64, uint64, bool) { return 1, 2, true },
	})
	v := values(t, m)
	for name, want := range map[string]float64{
		"chain_ready{901}": 1, "chain_ready{902}": 0, "chain_left_out{902}": 1, "chain_hindrance{902,engine}": 1, "chain_hindrance{901,engine}": 0,
		"chain_block_number{901,unsafe}": 10, "chain_block_timestamp_seconds{901,unsafe}": 100, "bundlepool_bundles{pending}": 4, "bundlepool_pending_limit{}": 5,
		"fill_lead_seconds{}": 0.3, "ledger_bytes{}": 9, "ledger_broken{}": 1, "failsafe_enabled{}": 1, "history_behind_blocks{901}": 2, "history_complete{901}": 1, "history_complete{902}": 0,
		"history_backfill_block{901}": 5, "history_bytes{901}": 12, "operator_missed_turns{alice}": 2, "operator_shortened{alice}": 1, "evidence{votes}": 2,
		"data_dir_free_bytes{}": 1, "start_time_seconds{}": 50, "last_failure_timestamp_seconds{}": 40, "rotation_peers_configured{}": 3,
	} {
		require.Contains(t, v, name)
		require.Equal(t, want, v[name], name)
	}
	require.NotContains(t, v, "chain_block_number{902,unsafe}", "it is not known")
	set, failsafe = nil, false
	v = values(t, m)
	require.NotContains(t, v, "operator_missed_turns{alice}")
	require.Zero(t, v["failsafe_enabled{}"])
	m.Watch(nil) // nothing is asked any more
	failsafe = true
	require.Zero(t, values(t, m)["failsafe_enabled{}"])
}

func TestIngress(t *testing.T) {
	m := New([]sequence.ChainID{901})
	m.Ingress(nil)
	m.Ingress(interop.ErrFailsafeEnabled)
	m.Ingress(fmt.Errorf("bad: %w", interop.ErrOutOfScope))
	m.Ingress(&executor.MessageError{Chain: 901, Rule: executor.RuleExpiry})
	for i := range 100 { // chains that callers make up
		m.Ingress(&executor.MessageError{Chain: sequence.ChainID(10_000 + i), Rule: executor.RuleDependencySet})
	}
	v := values(t, m)
	for result, want := range map[string]float64{"ok": 1, "failsafe": 1, "malformed": 1, "expiry": 1, "dependency_set": 100} {
		require.Equal(t, want, v["ingress_checks_total{"+result+"}"], result)
	}
	require.Equal(t, 1., v["messages_refused_total{901,ingress,expiry}"])
	require.NotContains(t, v, "messages_refused_total{10000,ingress,dependency_set}")
}

type echo struct{}

func (echo) Shout(_ context.Context, s string) string { return s + "!" }
func (echo) Fail(context.Context) error               { return &rpc.JsonError{Code: -38105, Message: "busy"} }

// Calls are counted with their errors, and names that callers make up are one series.
func TestServer(t *testing.T) {
	m := New(nil)
	server := oprpc.NewServer("127.0.0.1", 0, "", oprpc.WithLogger(log.NewLogger(log.DiscardHandler())),
		oprpc.WithRPCRecorder(m.Server("test", Methods("echo", "shout", "fail")...)), oprpc.WithHTTPRecorder(m.HTTP()))
	server.AddAPI(rpc.API{Namespace: "echo", Service: echo{}})
	require.NoError(t, server.Start())
	defer server.Stop() //nolint:errcheck // of a test
	c, err := rpc.DialOptions(t.Context(), "http://"+server.Endpoint(), rpc.WithRecorder(m.Engine(901)))
	require.NoError(t, err)
	defer c.Close()
	var out string
	require.NoError(t, c.Call(&out, "echo_shout", "a"))
	require.Error(t, c.Call(nil, "echo_fail"))
	for range 3 {
		require.Error(t, c.Call(nil, "echo_"+common.Bytes2Hex(big.NewInt(time.Now().UnixNano()).Bytes())))
	}
	require.Error(t, c.Call(nil, "echo_shout", strings.Repeat("x", 10<<20)), "too large")
	v := values(t, m)
	require.Equal(t, 1., v["rpc_server_responses_total{<nil>,echo_shout,test}"])
	require.Equal(t, 1., v["rpc_server_responses_total{rpc_-38105,echo_fail,test}"])
	require.Equal(t, 3., v["rpc_server_requests_total{unknown,test}"])
	require.Equal(t, 1., v["rpc_client_responses_total{rpc_-38105,echo_fail,engine-901}"])
	require.Equal(t, 1., v["http_refused_total{413}"])
	for name := range v {
		require.False(t, strings.HasPrefix(name, "rpc_server") && strings.Contains(name, "echo_1"), name)
	}
}
