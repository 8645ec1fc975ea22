package commands

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/audit"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// auditSlot adds a slot with an empty block of chain 901 that used gas to the ledger of an
// operator that is alone.
func auditSlot(t *testing.T, l *ledger.Ledger, slot sequence.Slot, gas uint64) {
	t.Helper()
	head, _, _ := l.Head(901)
	_, parent, _ := l.Last()
	zero, root := eth.Uint64Quantity(0), common.Hash{5}
	p := &eth.ExecutionPayload{
		ParentHash: head.Hash, BlockNumber: eth.Uint64Quantity(head.Number + 1), Timestamp: eth.Uint64Quantity(slot), GasLimit: 9, GasUsed: 7,
		BlobGasUsed: &zero, ExcessBlobGas: &zero, Withdrawals: &types.Withdrawals{}, Transactions: []eth.Data{}, ExtraData: []byte{},
	}
	env := &eth.ExecutionPayloadEnvelope{ParentBeaconBlockRoot: &root, ExecutionPayload: p}
	p.BlockHash, _ = env.CheckBlockHash()
	require.NoError(t, l.Append(context.Background(), &ledger.Record{
		Subblocks: []*sequence.Subblock{{
			Slot: slot, Parent: parent,
			Openings: []sequence.Opening{{Chain: 901, ParentHash: head.Hash, ParentNumber: head.Number, ParentBeaconRoot: root, GasLimit: 9}},
			Results:  []sequence.Result{{Chain: 901, GasUsed: gas}},
			Seals:    []sequence.Seal{{Chain: 901, BlockHash: p.BlockHash, Number: uint64(p.BlockNumber)}},
		}},
		Payloads: map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{901: env},
	}))
}

// What is found is tested where it is looked for; here, how one asks for it, also beside the
// process whose ledger it is.
func TestAudit(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Open(filepath.Join(dir, "ledger"), log.NewLogger(log.DiscardHandler()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	for i := range sequence.Slot(100) {
		auditSlot(t, l, 1000+i, 7)
	}
	r := run(t, "audit", "--data-dir", dir)
	require.Contains(t, r.ok(t), "slots 1000 to 1099: 100 slots")
	require.Contains(t, r.out, "no violations")
	require.Contains(t, r.out, "the operator was alone")

	auditSlot(t, l, 1100, 8)
	var report audit.Report
	r = run(t, "audit", "--data-dir", dir, "--from", "1080", "--json")
	require.Equal(t, ExitDegraded, r.code)
	require.Empty(t, r.err)
	require.NoError(t, json.Unmarshal([]byte(r.out), &report))
	require.False(t, report.OK)
	require.EqualValues(t, 1080, report.From)
	require.EqualValues(t, 21, report.Slots)
	require.Len(t, report.Violations, 1)
	require.Equal(t, audit.KindResult, report.Violations[0].Kind)
	require.Equal(t, "priority", report.Order)
	run(t, "audit", "--data-dir", dir, "--to", "1099").ok(t)
}

func TestAuditMistakes(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Open(filepath.Join(dir, "ledger"), log.NewLogger(log.DiscardHandler()))
	require.NoError(t, err)
	auditSlot(t, l, 1000, 7)
	require.NoError(t, l.Close())
	empty := t.TempDir()
	for args, want := range map[string]struct {
		code int
		err  string
	}{
		"":                                                           {ExitUsage, "--data-dir: missing"},
		"--data-dir " + empty:                                        {ExitFailed, "has no ledger"},
		"--data-dir " + empty + "/none":                              {ExitFailed, "has no ledger"},
		"--data-dir " + dir + " now":                                 {ExitUsage, `"now" is not a flag`},
		"--data-dir " + dir + " --from 5 --to 4":                     {ExitUsage, "expected none before --from"},
		"--data-dir " + dir + " --from 1001":                         {ExitFailed, "whose last one is 1000"},
		"--data-dir " + dir + " --order lifo":                        {ExitUsage, "expected priority, fcfs or none"},
		"--data-dir " + dir + " --order fcfs":                        {ExitUsage, "only known from --arrivals"},
		"--data-dir " + dir + " --tolerance -1s":                     {ExitUsage, "zero or more"},
		"--data-dir " + dir + " --priority-accounts bob":             {ExitUsage, "an address in hex"},
		"--data-dir " + dir + " --operators " + dir + "/none":        {ExitFailed, "--operators"},
		"--data-dir " + dir + " --arrivals " + dir + "/none":         {ExitFailed, "--arrivals"},
		"--data-dir " + dir + " --arrivals " + write(t, "{}\n") + "": {ExitFailed, "time or hash is missing"},
	} {
		t.Run(args, func(t *testing.T) {
			run(t, append([]string{"audit"}, strings.Fields(args)...)...).fails(t, want.code, want.err)
		})
	}
	_, err = os.Stat(filepath.Join(empty, "ledger"))
	require.ErrorIs(t, err, os.ErrNotExist, "nothing is made")
	run(t, "audit", "--data-dir", dir, "--order", "none").ok(t)
	run(t, "audit", "--data-dir", dir, "--order", "fcfs", "--arrivals", write(t, "")).ok(t)
}

// pending is the part of a node that tells of transactions.
type pending struct{ hashes chan common.Hash }

// NewPendingTransactions is what eth_subscribe calls.
func (p *pending) NewPendingTransactions(ctx context.Context) (*gethrpc.Subscription, error) {
	notifier, ok := gethrpc.NotifierFromContext(ctx)
	if !ok {
		return nil, gethrpc.ErrNotificationsUnsupported
	}
	sub := notifier.CreateSubscription()
	go func() {
		for {
			select {
			case h := <-p.hashes:
				_ = notifier.Notify(sub.ID, h)
			case <-sub.Err():
				return
			}
		}
	}()
	return sub, nil
}

func TestArrivals(t *testing.T) {
	node := gethrpc.NewServer()
	hashes := make(chan common.Hash)
	require.NoError(t, node.RegisterName("eth", &pending{hashes}))
	server := httptest.NewServer(node.WebsocketHandler([]string{"*"}))
	defer server.Close()
	defer node.Stop()
	out := filepath.Join(t.TempDir(), "arrivals.jsonl")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, []string{"op-shared-sequencer", "arrivals", "--pool", "901=ws" + strings.TrimPrefix(server.URL, "http"), "--out", out}, Env{
			Out: new(strings.Builder), Err: new(strings.Builder), Getenv: func(string) string { return "" }, Now: func() time.Time { return now },
		})
	}()
	hashes <- common.Hash{1}
	hashes <- common.Hash{2}
	require.Eventually(t, func() bool {
		seen := arrivals.Seen{}
		return seen.Load(out) == nil && len(seen) == 2 && seen.Transaction(901, common.Hash{2}).Equal(now)
	}, 10*time.Second, 5*time.Millisecond)
	cancel()
	require.Zero(t, <-done)

	for args, want := range map[string]string{
		"":                         "--pool: missing",
		"--pool 901":               "<chainID>=<URL>",
		"--pool 0=ws://x":          "<chainID>=<URL>",
		"--pool 901=http://x":      "of a WebSocket",
		"--pool 901=ws://x later":  `"later" is not a flag`,
		"--pool 901=ws://x --out ": "flag needs an argument",
	} {
		run(t, append([]string{"arrivals"}, strings.Fields(args)...)...).fails(t, ExitUsage, want)
	}
}
