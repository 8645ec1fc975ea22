package commands

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/overview"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// operator answers as an operator does, with what the test puts in.
type operator struct {
	mu     sync.Mutex
	status rpc.Status
	set    *rpc.Operators // nil: it is alone
	turns  []rpc.Turn
	fate   bundlepool.Status
	sent   *sequence.Bundle
	asked  int
}

func (o *operator) Status(context.Context) (*rpc.Status, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	s := o.status
	return &s, nil
}
func (o *operator) LeaderSchedule(n int) []rpc.Turn { return o.turns[:min(n, len(o.turns))] }
func (o *operator) Operators() (*rpc.Operators, error) {
	if o.set == nil {
		return nil, rpc.ErrUnavailable
	}
	return o.set, nil
}
func (o *operator) Evidence() (*rpc.Evidence, error) {
	if o.set == nil {
		return nil, rpc.ErrUnavailable
	}
	return &rpc.Evidence{}, nil
}
func (o *operator) SubmitChange(*operators.SignedChange) error { return nil }

// It is its bundle pool, too.
type pool struct{ *operator }

func (p pool) Slot() sequence.Slot                               { return slot }
func (p pool) Check(*sequence.Bundle) (*bundlepool.Entry, error) { return nil, nil }
func (p pool) Add(b *sequence.Bundle) (common.Hash, error)       { p.sent = b; return b.Hash(), nil }
func (p pool) Cancel(common.Hash, []byte) error                  { return nil }
func (p pool) Get(common.Hash) (*bundlepool.Entry, bool)         { return nil, false }
func (p pool) Status(hash common.Hash) (bundlepool.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent == nil || p.sent.Hash() != hash {
		return bundlepool.Status{}, bundlepool.ErrUnknownBundle
	}
	s := p.fate
	s.Hash = hash
	return s, nil
}
func (p pool) Simulate(context.Context, *sequence.Bundle) (*bundlepool.BundleResult, error) {
	r := &bundlepool.BundleResult{Slot: slot, Items: []bundlepool.ItemResult{{Chain: 901, Status: 1, GasUsed: 21000}}}
	if p.fate.State == bundlepool.Failed {
		r.Items[0].Status, r.Items[0].RevertReason = 0, "no money"
		r.Failed = &bundlepool.Failure{Chain: 901, Reason: "no money"}
	}
	return r, nil
}

func (o *operator) serve(t *testing.T) string {
	t.Helper()
	api, err := rpc.NewAPI(rpc.Config{SlotSeconds: 1}, pool{o}, pool{o}, o, o, nil)
	require.NoError(t, err)
	server := oprpc.NewServer("127.0.0.1", 0, "test", oprpc.WithLogger(log.NewLogger(log.DiscardHandler())))
	for _, a := range api.Register() {
		server.AddAPI(a)
	}
	require.NoError(t, server.Start())
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return "http://" + server.Endpoint()
}

// nodes is an op-node that serves the chain 901 under its path.
func nodes(t *testing.T) string {
	t.Helper()
	ref := func(n uint64) eth.L2BlockRef {
		return eth.L2BlockRef{Hash: common.Hash{byte(n)}, Number: n, Time: uint64(slot) - 120 + n}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/901" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": 1, "result": eth.SyncStatus{
			UnsafeL2: ref(119), LocalSafeL2: ref(115), SafeL2: ref(110), FinalizedL2: ref(90),
		}})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// good is a set of two that is well.
func good() *operator {
	alice, bob := common.Address{0xa}, common.Address{0xb}
	at := hexutil.Uint64(now.Add(500 * time.Millisecond).UnixMilli())
	return &operator{
		status: rpc.Status{
			Slot: hexutil.Uint64(slot) + 2, Bundles: rpc.BundleCounts{Pending: 3, Executed: 4, Ended: 5},
			Chains:    []rpc.ChainStatus{{ChainID: 901, Ready: true, Head: rpc.Block{Hash: common.Hash{119}, Number: 119, Timestamp: hexutil.Uint64(slot) + 1}, LastSlot: hexutil.Uint64(slot) + 1}},
			Agreement: &rpc.AgreementStatus{NodeID: "aa", Operator: alice, Height: 50, Running: true, Peers: 1, Connected: []string{"bb"}, LastLeader: bob},
		},
		set: &rpc.Operators{
			Height: 50, Counted: 40, TotalPower: 2, Operators: []rpc.OperatorInfo{
				{Name: "alice", Address: alice, Power: 1, Led: 20, Voted: 40, LastVoted: 49}, {Name: "bob", Address: bob, Power: 1, Led: 20, Voted: 39, LastVoted: 49},
			},
		},
		turns: []rpc.Turn{{Height: 51, Leader: alice, Expected: &at}, {Height: 52, Leader: bob}},
	}
}

func TestStatus(t *testing.T) {
	o := good()
	url, node := o.serve(t), nodes(t)
	out := run(t, "status", "--rpc", url, "--node-rpc", node).ok(t)
	for _, want := range []string{"healthy", "bob, height 49", "alice, bob", "3 pending", "901    yes        119     1s   115         110         90", "alice (this)", "height 50, votes, 1 peers"} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "\x1b", "colours are for terminals")

	var got overview.Overview
	require.NoError(t, json.Unmarshal([]byte(run(t, "status", "--rpc", url, "--node-rpc", node, "--json").ok(t)), &got))
	require.True(t, got.Healthy)
	require.Equal(t, []overview.Problem{}, got.Problems)
	require.EqualValues(t, 110, got.Chains[0].CrossSafe.Number)
	require.EqualValues(t, 90, got.Chains[0].Finalized.Number)
	require.Equal(t, "bob", got.Last.Name)
	require.Equal(t, "alice", got.Next[0].Name)
	require.True(t, got.Next[0].At.Equal(now.Add(500*time.Millisecond)))
	require.Equal(t, []string{"bb"}, got.Agreement.Connected)
	require.True(t, got.Agreement.Operators[0].Self)
	require.True(t, got.Agreement.Operators[1].Votes)

	// Something is wrong with everything.
	o.mu.Lock()
	o.status.Chains[0].Ready, o.status.Chains[0].Reason = false, "engine gone"
	o.status.Chains[0].Head.Timestamp -= 60
	o.status.Chains = append(o.status.Chains, rpc.ChainStatus{ChainID: 902, Ready: true, Head: rpc.Block{Timestamp: hexutil.Uint64(slot)}})
	o.status.Agreement.Syncing = true
	o.set.Operators[1].LastVoted, o.set.Operators[1].Shortened = 30, true
	o.mu.Unlock()
	r := run(t, "status", "--rpc", url, "--node-rpc", node, "--max-safe-lag", "5s")
	require.Equal(t, ExitDegraded, r.code)
	require.Empty(t, r.err, "the problems are in the output")
	for _, want := range []string{
		"degraded", "chain 901 is not sequenced: engine gone", "chain 901 is 1m1s behind", "chain 902: op-node does not answer",
		"does not vote: last at height 30 of 50", "catches up", "power 1 of 2 votes", "its cross-safe head is 12s behind",
	} {
		require.Contains(t, r.out, want)
	}
	r = run(t, "status", "--rpc", url, "--json", "--node-rpc", "")
	require.Equal(t, ExitDegraded, r.code)
	require.NoError(t, json.Unmarshal([]byte(r.out), &got))
	require.False(t, got.Healthy)

	run(t, "status", "--rpc", "http://127.0.0.1:1").fails(t, ExitUnreachable, "sharedseq_")
	run(t, "status", "--interval", "0s").fails(t, ExitUsage, "--interval")
	run(t, "status", "--turns", "300").fails(t, ExitUsage, "--turns")
	run(t, "status", "now").fails(t, ExitUsage, "expected only flags")
}

// An operator that is alone has no agreement.
func TestStatusAlone(t *testing.T) {
	o := good()
	o.status.Agreement, o.set = nil, nil
	url := o.serve(t)
	out := run(t, "status", "--rpc", url, "--node-rpc", "").ok(t)
	require.Contains(t, out, "healthy")
	require.NotContains(t, out, "OPERATOR")
	require.Contains(t, run(t, "leaders", "--rpc", url).ok(t), "alone")
}

// lines is where a command writes, and ends it when it has written enough.
type lines struct {
	text   strings.Builder
	enough func(string) bool
	end    context.CancelFunc
}

func (l *lines) Write(p []byte) (int, error) {
	n, err := l.text.Write(p)
	if l.enough(l.text.String()) {
		l.end()
	}
	return n, err
}

func watching(t *testing.T, enough func(string) bool, fancy bool, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &lines{enough: enough, end: cancel}
	env := Env{In: strings.NewReader(""), Out: out, Err: out, Getenv: func(string) string { return "" }, Now: func() time.Time { return now }}
	if !fancy {
		require.Zero(t, Run(ctx, append([]string{"op-shared-sequencer", "status", "--watch", "--interval", "1ms"}, args...), env))
		return out.text.String()
	}
	tt := newTerminal(env)
	tt.fancy = true
	app := newApp(env)
	app.Commands = append(app.Commands[:0], statusCommand(env, tt))
	require.NoError(t, app.RunContext(ctx, append([]string{"op-shared-sequencer", "status", "--watch", "--interval", "1ms"}, args...)))
	return out.text.String()
}

func TestWatch(t *testing.T) {
	o := good()
	url := o.serve(t)
	// A line per change: it goes on when the slot does.
	step := func(text string) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		n := strings.Count(text, "\n")
		o.status.Slot = hexutil.Uint64(slot) + hexutil.Uint64(n)
		return n == 3
	}
	out := watching(t, step, false, "--rpc", url, "--node-rpc", "")
	require.Equal(t, 3, strings.Count(out, "healthy slot="), out)
	require.Contains(t, out, "last=bob next=alice 901=119/-/-/- bundles=3")
	require.NotContains(t, out, "\x1b")

	out = watching(t, step, false, "--rpc", url, "--node-rpc", "", "--json")
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		require.NoError(t, json.Unmarshal([]byte(line), new(overview.Overview)))
	}
	// On a terminal it is drawn over itself.
	out = watching(t, func(text string) bool { return strings.Count(text, "\x1b[H") == 2 }, true, "--rpc", url, "--node-rpc", "")
	require.Contains(t, out, "\x1b[2J")
	require.Contains(t, out, "\x1b[32mhealthy")
	// An operator that does not answer is waited for.
	out = watching(t, func(text string) bool { return strings.Contains(text, "\n") }, false, "--rpc", "http://127.0.0.1:1")
	require.Contains(t, out, "no answer")
}

func TestLeaders(t *testing.T) {
	url := good().serve(t)
	out := run(t, "leaders", "--rpc", url).ok(t)
	require.Contains(t, out, "51         alice")
	require.Contains(t, out, "(in 500ms)")
	require.Contains(t, out, "behind")
	var turns []overview.Turn
	require.NoError(t, json.Unmarshal([]byte(run(t, "leaders", "--rpc", url, "--json", "--count", "1").ok(t)), &turns))
	require.Len(t, turns, 1)
	require.Equal(t, "alice", turns[0].Name)
}

const aBundle = `{"items":[{"chainId":"0x385","tx":"0x02"}],"maxSlots":"0x5"}`

func TestBundle(t *testing.T) {
	o := good()
	url := o.serve(t)
	file := write(t, aBundle)
	var sent rpc.SendResult
	require.NoError(t, json.Unmarshal([]byte(run(t, "bundle", "send", "--rpc", url, "--json", file).ok(t)), &sent))
	require.EqualValues(t, slot+4, sent.ExpirySlot)
	require.Contains(t, runWith(t, aBundle, "bundle", "send", "--rpc", url).ok(t), sent.BundleHash.Hex())
	hash := sent.BundleHash.Hex()

	for state, code := range map[bundlepool.State]int{
		bundlepool.Executed: ExitOK, bundlepool.Safe: ExitOK, bundlepool.Failed: ExitFailed, bundlepool.Expired: ExitExpired, bundlepool.Undone: ExitUndone,
		bundlepool.Cancelled: ExitCancelled, bundlepool.Replaced: ExitCancelled,
	} {
		o.mu.Lock()
		o.fate = bundlepool.Status{State: state}
		if code != ExitOK {
			o.fate.Failure = &bundlepool.Failure{Item: 0, Chain: 901, Reason: "that is why"}
		}
		o.mu.Unlock()
		r := runWith(t, aBundle, "bundle", "send", "--rpc", url, "--wait", "-")
		require.Equal(t, code, r.code, "%s: %s%s", state, r.out, r.err)
		require.Contains(t, r.out, string(state))
		if code != ExitOK {
			require.Contains(t, r.out, "chain 901: that is why")
		}
		r = run(t, "bundle", "status", "--rpc", url, "--json", hash)
		require.Equal(t, code, r.code)
		var st rpc.BundleStatus
		require.NoError(t, json.Unmarshal([]byte(r.out), &st))
		require.Equal(t, state, st.State)
	}
	o.mu.Lock()
	o.fate = bundlepool.Status{State: bundlepool.Pending}
	o.mu.Unlock()
	require.Equal(t, ExitPending, run(t, "bundle", "status", "--rpc", url, hash).code)
	r := run(t, "bundle", "send", "--rpc", url, "--wait", "--wait-timeout", "50ms", file)
	require.Equal(t, ExitPending, r.code)
	require.Contains(t, r.err, "bundle status "+hash)

	require.Contains(t, run(t, "bundle", "simulate", "--rpc", url, file).ok(t), "would be executed")
	o.mu.Lock()
	o.fate.State = bundlepool.Failed
	o.mu.Unlock()
	r = run(t, "bundle", "simulate", "--rpc", url, file)
	require.Equal(t, ExitFailed, r.code)
	require.Contains(t, r.out, "reverted: no money")

	run(t, "bundle", "status", "--rpc", url, common.Hash{1}.Hex()).fails(t, ExitFailed, "bundle")
	run(t, "bundle", "status", "0x1").fails(t, ExitUsage, "expected its hash")
	run(t, "bundle", "send", "/nope").fails(t, ExitUsage, "no such file")
	run(t, "bundle", "send", file, file).fails(t, ExitUsage, "expected one file")
	run(t, "bundle", "send", "--safe", file).fails(t, ExitUsage, "only with --wait")
	run(t, "bundle", "send", write(t, `{"items":[],"maxSlot":"0x1"}`)).fails(t, ExitUsage, `unknown field "maxSlot"`)
	run(t, "bundle", "send", "--rpc", "http://127.0.0.1:1", file).fails(t, ExitUnreachable, "sharedseq_sendBundle")
}
