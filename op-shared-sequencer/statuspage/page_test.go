package statuspage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const chainA, chainB = sequence.ChainID(901), sequence.ChainID(902)

var one, two, three, four = common.HexToAddress("0x1"), common.HexToAddress("0x2"), common.HexToAddress("0x3"), common.HexToAddress("0x4")

// fakeSource answers what a test sets.
type fakeSource struct {
	mu      sync.Mutex
	status  Status
	bundles map[common.Hash]bundlepool.Status
	hang    chan struct{} // Status waits for it; nil: it does not
}

func (s *fakeSource) Status() Status {
	if s.hang != nil {
		<-s.hang
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *fakeSource) Bundle(h common.Hash) (bundlepool.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.bundles[h]; ok {
		return b, nil
	}
	return bundlepool.Status{}, bundlepool.ErrUnknownBundle
}

func (s *fakeSource) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// readyChains are two chains of which one cannot be built on, for a reason if there is one.
func readyChains(reason string) []sequencer.ChainStatus {
	return []sequencer.ChainStatus{{Chain: chainA}, {Chain: chainB, NotReady: reason}}
}

func set(online ...bool) *Agreement {
	a := &Agreement{Self: one}
	for i, o := range []common.Address{one, two, three, four} {
		a.Operators = append(a.Operators, Operator{Name: fmt.Sprintf("operator-%d", i), Address: o, Power: 1, Online: online[i]})
	}
	return a
}

// startPage starts a page that asks its source all the time, and stops it after the test.
func startPage(t *testing.T, cfg Config, s *fakeSource) *Page {
	t.Helper()
	if cfg.Poll == 0 {
		cfg.Poll = time.Millisecond
	}
	if cfg.Pace == 0 {
		cfg.Pace = time.Millisecond
	}
	p := New(cfg, s)
	p.Start()
	t.Cleanup(func() { require.NoError(t, p.Stop(context.Background())) })
	return p
}

// subblock is the only one of a slot, on the given chains, with a transaction on each.
func subblockOf(slot sequence.Slot, chains ...sequence.ChainID) *sequence.Subblock {
	s := &sequence.Subblock{Slot: slot}
	for _, id := range chains {
		s.Openings = append(s.Openings, sequence.Opening{Chain: id})
		s.Steps = append(s.Steps, sequence.Step{Chain: id, Transactions: [][]byte{{1}}})
		s.Results = append(s.Results, sequence.Result{Chain: id, Transactions: 2, GasUsed: 21000})
		s.Seals = append(s.Seals, sequence.Seal{Chain: id, Number: 7, BlockHash: common.Hash{1}})
	}
	return s
}

func committed(height uint64, sub *sequence.Subblock) sequencer.Committed {
	return sequencer.Committed{
		Subblock: sub, Hash: sub.Hash(), At: time.Unix(int64(sub.Slot), 0), Results: [][]engine.TxResult{},
		Agreed: rotation.Agreed{Turn: rotation.Turn{Height: height, Leader: two}},
	}
}

// view is what a client makes of the snapshot.
type view struct {
	Version string
	Full    bool
	Slots   []slot
	Status  *status
	Faults  []fault
	Bundles []bundle
}

func snapshot(t *testing.T, p *Page) view {
	t.Helper()
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/snapshot", nil))
	require.Equal(t, http.StatusOK, w.Code)
	var v view
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v))
	require.True(t, v.Full)
	return v
}

// eventually waits until the snapshot is as wanted.
func eventually(t *testing.T, p *Page, want func(view) bool) view {
	t.Helper()
	var v view
	require.Eventually(t, func() bool { v = snapshot(t, p); return want(v) }, 10*time.Second, time.Millisecond)
	return v
}

func kinds(v view) []string {
	var out []string
	for _, f := range v.Faults {
		out = append(out, f.Kind)
	}
	return out
}

// What is told of a slot comes together: turns, messages, bundles, blocks, lateness.
func TestSlot(t *testing.T) {
	src := &fakeSource{status: Status{Chains: readyChains(""), Agreement: set(true, true, true, true)}, bundles: map[common.Hash]bundlepool.Status{}}
	p := startPage(t, Config{Subblocks: 2}, src)
	eventually(t, p, func(v view) bool { return v.Status != nil })

	first := subblockOf(100, chainA, chainB)
	first.Seals = nil
	c := committed(4, first)
	c.Results = [][]engine.TxResult{{{Logs: []*types.Log{{Address: common.HexToAddress("0x1234")}}}}, {{Logs: []*types.Log{
		executing(t, chainA, 100), executing(t, chainA, 100), executing(t, chainA, 98),
	}}}}
	c.Agreed.Round, c.Agreed.Missed = 1, []common.Address{three}
	c.Led = true
	c.Tried = []builder.Tried{
		{Hash: common.Hash{1}, Outcome: &bundlepool.Outcome{Kind: bundlepool.Execute, Result: bundlepool.BundleResult{Items: []bundlepool.ItemResult{{Chain: chainB}, {Chain: chainA}}}}},
		{Hash: common.Hash{2}, Outcome: &bundlepool.Outcome{Kind: bundlepool.Fail, Result: bundlepool.BundleResult{Failed: &bundlepool.Failure{Chain: chainB, Reason: "reverted: no"}}}},
		{Hash: common.Hash{3}, Outcome: &bundlepool.Outcome{Kind: bundlepool.Retry, Result: bundlepool.BundleResult{Failed: &bundlepool.Failure{Chain: chainB, Reason: "no room"}}}},
	}
	p.SubblockCommitted(c)
	v := eventually(t, p, func(v view) bool { return len(v.Slots) == 1 })
	s := v.Slots[0]
	require.False(t, s.Sealed)
	require.Equal(t, []message{{From: "901", FromSlot: 100, To: "902", Count: 2}, {From: "901", FromSlot: 98, To: "902", Count: 1}}, s.Subblocks[0].Messages)
	require.Equal(t, map[string]int{"901": 1, "902": 1}, s.Subblocks[0].Txs)
	require.Equal(t, []tried{
		{Hash: common.Hash{1}, Fate: "executed", Chains: []string{"901", "902"}},
		{Hash: common.Hash{2}, Fate: "failed", Reason: "reverted: no", Chains: []string{"902"}},
		{Hash: common.Hash{3}, Fate: "postponed", Reason: "no room", Chains: []string{"902"}},
	}, s.Subblocks[0].Bundles)
	require.Equal(t, [2]int{1, 1}, [2]int{s.Executed, s.Failed})
	require.Equal(t, []string{"round"}, kinds(v))
	require.Contains(t, v.Faults[0].Text, "operator-2 had the turn")

	last := subblockOf(100, chainA, chainB)
	last.Index, last.Openings = 1, nil
	c = committed(5, last)
	c.Results = nil
	p.SubblockCommitted(c)
	p.SlotSealed(sequencer.SlotReport{Slot: 100, Late: -60 * time.Millisecond, Seal: time.Millisecond, Blocks: []sequencer.BlockReport{
		{Chain: chainA, Ref: eth.L2BlockRef{Number: 7, Hash: common.Hash{9}}, Transactions: 3, GasUsed: 5},
	}})
	s = eventually(t, p, func(v view) bool { return v.Slots[0].Late != nil }).Slots[0]
	require.True(t, s.Sealed)
	require.EqualValues(t, -60_000, *s.Late)
	require.True(t, s.Subblocks[1].Unread, "what was not run here is not said to be without messages")
	require.Equal(t, block{Number: 7, Hash: common.Hash{9}.Hex(), Txs: 3, Gas: 5}, s.Blocks["901"])
	require.Equal(t, block{Number: 7, Hash: common.Hash{1}.Hex(), Txs: 2, Gas: 21000}, s.Blocks["902"], "as agreed, until it is handed over here")

	// What becomes of a bundle later is asked for.
	src.set(func() { src.bundles[common.Hash{1}] = bundlepool.Status{State: bundlepool.Safe} })
	eventually(t, p, func(v view) bool { return v.Bundles[0].Fate == "safe" })
	src.set(func() {
		src.bundles[common.Hash{1}] = bundlepool.Status{State: bundlepool.Undone, Failure: &bundlepool.Failure{Reason: "its blocks were replaced"}}
	})
	eventually(t, p, func(v view) bool {
		return v.Bundles[0].Fate == "undone" && v.Bundles[0].Reason == "its blocks were replaced"
	})
}

// executing is the log of a transaction that executes a message of a chain's slot.
func executing(t *testing.T, from sequence.ChainID, at sequence.Slot) *types.Log {
	t.Helper()
	l := &types.Log{Address: predeploys.CrossL2InboxAddr, Topics: []common.Hash{messages.ExecutingMessageEventTopic, {5}}}
	for _, word := range []uint64{1, 3, 1, uint64(at), uint64(from)} { // origin, block, log index, timestamp, chain
		l.Data = append(l.Data, common.BigToHash(new(big.Int).SetUint64(word)).Bytes()...)
	}
	got, err := messages.DecodeExecutingMessageLog(l)
	require.NoError(t, err)
	require.NotNil(t, got)
	return l
}

// The ring keeps the newest slots, in order, however they come.
func TestRing(t *testing.T) {
	p := startPage(t, Config{Slots: 3}, &fakeSource{})
	for _, n := range []sequence.Slot{105, 103, 104, 101, 106} {
		p.SubblockCommitted(committed(1, subblockOf(n, chainA)))
	}
	v := eventually(t, p, func(v view) bool { return len(v.Slots) == 3 && v.Slots[2].Slot == 106 })
	require.Equal(t, []uint64{104, 105, 106}, []uint64{v.Slots[0].Slot, v.Slots[1].Slot, v.Slots[2].Slot})

	// One that is older than all of them does not come in, nor does its report.
	p.SubblockCommitted(committed(9, subblockOf(90, chainA)))
	p.SlotSealed(sequencer.SlotReport{Slot: 90})
	p.SubblockCommitted(committed(9, subblockOf(107, chainA)))
	v = eventually(t, p, func(v view) bool { return v.Slots[2].Slot == 107 })
	require.Equal(t, uint64(105), v.Slots[0].Slot)
}

// A chain that is left out, and catches up in a slot that the others have passed.
func TestLeftOutAndCaughtUp(t *testing.T) {
	src := &fakeSource{status: Status{Chains: readyChains("its engine at http://user:secret@10.0.0.7:8551/x does not answer")}}
	p := startPage(t, Config{}, src)
	eventually(t, p, func(v view) bool { return v.Status != nil && len(v.Faults) == 1 })
	p.SubblockCommitted(committed(1, subblockOf(100, chainA)))
	v := eventually(t, p, func(v view) bool { return len(v.Slots) == 1 })
	require.Equal(t, map[string]string{"902": "its engine at (address) does not answer"}, v.Slots[0].Absent)
	require.Equal(t, "Chain 902 cannot be built on: its engine at (address) does not answer", v.Faults[0].Text)
	require.True(t, v.Faults[0].Open)

	src.set(func() { src.status.Chains = readyChains("") })
	eventually(t, p, func(v view) bool { return v.Status.Chains[1].Reason == "" && !v.Faults[0].Open })
	p.SubblockCommitted(committed(2, subblockOf(100, chainB)))
	v = eventually(t, p, func(v view) bool { return len(v.Slots[0].Subblocks) == 2 })
	require.Empty(t, v.Slots[0].Absent)
	require.Zero(t, v.Slots[0].Again)
	require.Len(t, v.Slots[0].Blocks, 2)
}

// An L1 reorg has a slot agreed on anew.
func TestAgain(t *testing.T) {
	p := startPage(t, Config{}, &fakeSource{})
	bundled := subblockOf(100, chainA, chainB)
	bundled.Steps[0].Bundle = common.Hash{1}
	p.SubblockCommitted(committed(1, bundled))
	p.SlotSealed(sequencer.SlotReport{Slot: 100})
	eventually(t, p, func(v view) bool { return len(v.Slots) == 1 && v.Slots[0].Late != nil && v.Slots[0].Executed == 1 })
	p.SubblockCommitted(committed(8, subblockOf(100, chainA, chainB)))
	v := eventually(t, p, func(v view) bool { return v.Slots[0].Again == 1 })
	require.Len(t, v.Slots[0].Subblocks, 1)
	require.Equal(t, uint64(8), v.Slots[0].Subblocks[0].Height)
	require.Zero(t, v.Slots[0].Executed)
	require.Nil(t, v.Slots[0].Late)
	require.Equal(t, []string{"again"}, kinds(v))
}

// Faults that come again are counted, lasting ones end, and there is a bound on all.
func TestFaults(t *testing.T) {
	src := &fakeSource{status: Status{Agreement: set(true, true, true, true)}}
	p := startPage(t, Config{Faults: 4}, src)
	eventually(t, p, func(v view) bool { return v.Status != nil })
	for range 5 {
		p.Rejected(rotation.Turn{Height: 3, Leader: two}, "verify", errors.New("wrong result"))
	}
	v := eventually(t, p, func(v view) bool { return len(v.Faults) == 1 && v.Faults[0].Count == 5 })
	require.Equal(t, "Refused the subblock of operator-1 (verify): wrong result", v.Faults[0].Text)
	p.Rejected(rotation.Turn{Height: 4, Leader: two}, "pass", nil)
	p.SlotFailed(9, errors.New("dial tcp 10.1.2.3:8551: refused"))
	v = eventually(t, p, func(v view) bool { return len(v.Faults) == 3 })
	require.Contains(t, v.Faults[2].Text, "dial tcp (address): refused")

	src.set(func() { src.status.Agreement = set(true, true, false, false) })
	v = eventually(t, p, func(v view) bool { return strings.Count(strings.Join(kinds(v), " "), "offline") == 2 })
	require.Contains(t, kinds(v), "quorum")
	require.False(t, v.Status.Agreement.Quorum, "half is not more than two thirds")
	require.Len(t, v.Faults, 4)
	src.set(func() { src.status.Agreement = set(true, true, true, false) })
	v = eventually(t, p, func(v view) bool { return v.Status.Agreement.Quorum })
	for _, f := range v.Faults {
		require.Equal(t, f.Kind == "offline" && strings.HasPrefix(f.Text, "operator-3"), f.Open, f.Text)
	}
}

// The sequencer does not wait for the page, which says what it has missed.
func TestNeverBlocks(t *testing.T) {
	p := New(Config{Queue: 2}, &fakeSource{})
	for n := range 10 {
		p.SubblockCommitted(committed(1, subblockOf(sequence.Slot(n), chainA)))
	}
	p.Start()
	t.Cleanup(func() { require.NoError(t, p.Stop(context.Background())) })
	v := eventually(t, p, func(v view) bool { return len(v.Slots) == 2 })
	require.Equal(t, []string{"dropped"}, kinds(v))
	require.Contains(t, v.Faults[0].Text, "8 events")
}

// A Source that hangs holds up neither what is told nor, for longer than it may take, the stop.
func TestSourceHangs(t *testing.T) {
	src := &fakeSource{hang: make(chan struct{})}
	p := New(Config{}, src)
	p.Start()
	p.SubblockCommitted(committed(1, subblockOf(5, chainA)))
	eventually(t, p, func(v view) bool { return len(v.Slots) == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorContains(t, p.Stop(ctx), "waits for the sequencer's status")
	close(src.hang)
	require.NoError(t, p.Stop(context.Background()))
}

func TestPublic(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"wss://u:p@host/path?key=1 is down":    "(address) is down",
		"dial tcp [::1]:8551: refused":         "dial tcp (address): refused",
		`Post "https://host:1/?k=secret": EOF`: `Post "(address)": EOF`,
		strings.Repeat("é", 300):               strings.Repeat("é", 200) + "…",
	} {
		require.Equal(t, want, public(in))
	}
}

// stream is a client of the events.
type stream struct {
	body io.ReadCloser
	r    *bufio.Reader
}

func watch(t *testing.T, url, since string) *stream {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/events?since="+since, nil)
	require.NoError(t, err)
	res, err := http.DefaultTransport.(*http.Transport).Clone().RoundTrip(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	return &stream{res.Body, bufio.NewReader(res.Body)}
}

// next is the next event: its name, empty for a message, and its data.
func (s *stream) next(t *testing.T) (event, data string) {
	t.Helper()
	for {
		line, err := s.r.ReadString('\n')
		require.NoError(t, err)
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "event":
			event = value
		case "data":
			return event, value
		}
	}
}

func (s *stream) update(t *testing.T) view {
	t.Helper()
	for {
		if event, data := s.next(t); event == "" {
			var v view
			require.NoError(t, json.Unmarshal([]byte(data), &v))
			return v
		}
	}
}

// listen serves the page on a free port.
func listen(t *testing.T, p *Page) string {
	t.Helper()
	url, err := p.Listen("127.0.0.1:0")
	require.NoError(t, err)
	return url
}

// A client gets everything first and then what has changed; one that comes back gets what it
// has missed, and one of another process everything.
func TestEvents(t *testing.T) {
	p := startPage(t, Config{}, &fakeSource{})
	url := listen(t, p)
	p.SubblockCommitted(committed(1, subblockOf(1, chainA)))
	have := eventually(t, p, func(v view) bool { return len(v.Slots) == 1 && v.Status != nil })
	s := watch(t, url, have.Version)
	p.SubblockCommitted(committed(2, subblockOf(2, chainA)))
	v := s.update(t)
	require.False(t, v.Full)
	require.Len(t, v.Slots, 1)
	require.Equal(t, uint64(2), v.Slots[0].Slot)
	require.Nil(t, v.Status, "it has not changed")

	full := watch(t, url, "other.1").update(t)
	require.True(t, full.Full)
	require.Len(t, full.Slots, 2)

	// A browser names the version in a header of its own.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/events?since=other.1", nil)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", have.Version)
	res, err := http.DefaultTransport.(*http.Transport).Clone().RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	again := (&stream{res.Body, bufio.NewReader(res.Body)}).update(t)
	require.False(t, again.Full)
	require.Equal(t, uint64(2), again.Slots[0].Slot)
}

// What happens while a client is not ready is sent to it as it is then, not one by one.
func TestEventsAreMerged(t *testing.T) {
	p := startPage(t, Config{Pace: 300 * time.Millisecond}, &fakeSource{})
	s := watch(t, listen(t, p), "")
	s.update(t)
	const slots = 40
	for n := range slots {
		p.SubblockCommitted(committed(1, subblockOf(sequence.Slot(n), chainA)))
	}
	updates, seen := 0, 0
	for seen < slots {
		updates++
		seen += len(s.update(t).Slots)
	}
	require.Equal(t, slots, seen, "each once")
	require.Less(t, updates, slots/2)
}

func TestBeat(t *testing.T) {
	p := startPage(t, Config{Beat: 5 * time.Millisecond}, &fakeSource{})
	s := watch(t, listen(t, p), "")
	for beats := 0; beats < 3; {
		if event, _ := s.next(t); event == "beat" {
			beats++
		}
	}
}

// Only so many clients watch at a time; others can still read the snapshot.
func TestClientLimit(t *testing.T) {
	p := startPage(t, Config{Clients: 2}, &fakeSource{})
	url := listen(t, p)
	first := watch(t, url, "")
	first.update(t)
	watch(t, url, "").update(t)
	code := func() int {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/events", nil)
		require.NoError(t, err)
		tr := http.DefaultTransport.(*http.Transport).Clone()
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(req)
		require.NoError(t, err)
		defer res.Body.Close()
		return res.StatusCode
	}
	require.Equal(t, http.StatusServiceUnavailable, code())
	snapshot(t, p)
	require.NoError(t, first.body.Close())
	require.Eventually(t, func() bool { return code() == http.StatusOK }, 10*time.Second, time.Millisecond, "its place is free")
}

// A client that does not read is disconnected, and holds up nobody meanwhile.
func TestSlowClient(t *testing.T) {
	p := startPage(t, Config{Write: 100 * time.Millisecond, Slots: 4}, &fakeSource{})
	url := listen(t, p)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	_, err = io.WriteString(conn, "GET /api/events HTTP/1.1\r\nHost: page\r\n\r\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.clients.Load() == 1 }, 10*time.Second, time.Millisecond)
	// Much more than the kernel keeps for one that does not read.
	reason := strings.Repeat("x", maxText)
	sub := subblockOf(1, chainA)
	var tried []builder.Tried
	for i := range maxTried {
		tried = append(tried, builder.Tried{Hash: common.Hash{byte(i)}, Outcome: &bundlepool.Outcome{
			Kind: bundlepool.Fail, Result: bundlepool.BundleResult{Failed: &bundlepool.Failure{Chain: chainA, Reason: reason}},
		}})
	}
	for slot := sequence.Slot(1); p.clients.Load() > 0; slot++ {
		sub.Slot = slot
		c := committed(uint64(slot), sub)
		c.Led, c.Tried = true, tried
		p.SubblockCommitted(c)
		eventually(t, p, func(v view) bool { n := len(v.Slots); return n > 0 && v.Slots[n-1].Slot == uint64(slot) })
	}
}

// Everything is read-only, nothing is loaded from elsewhere, and browsers are told so.
func TestHTTP(t *testing.T) {
	p := startPage(t, Config{}, &fakeSource{})
	h := p.Handler()
	get := func(method, path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	size := 0
	for path, mime := range map[string]string{
		"/": "text/html; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/theme.js": "text/javascript; charset=utf-8",
		"/page.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml", "/api/snapshot": "application/json",
	} {
		res := get(http.MethodGet, path)
		require.Equal(t, http.StatusOK, res.Code, path)
		require.Equal(t, mime, res.Header().Get("Content-Type"), path)
		csp := res.Header().Get("Content-Security-Policy")
		require.Contains(t, csp, "default-src 'none'")
		require.NotContains(t, csp, "unsafe")
		require.NotContains(t, csp, "http")
		require.Equal(t, "nosniff", res.Header().Get("X-Content-Type-Options"))
		require.Empty(t, res.Header().Get("Access-Control-Allow-Origin"))
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NotContains(t, strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", ""), "://", path)
		size += len(body)
		if tag := res.Header().Get("ETag"); tag != "" {
			require.Equal(t, http.StatusNotModified, get(http.MethodGet, path, "If-None-Match", tag).Code)
			head := get(http.MethodHead, path)
			require.Equal(t, fmt.Sprint(len(body)), head.Header().Get("Content-Length"))
		}
	}
	require.Less(t, size, 60<<10, "the page stays small")
	for _, path := range []string{"/assets", "/../page.go", "/api", "/index.html/x", "/metrics"} {
		require.Equal(t, http.StatusNotFound, get(http.MethodGet, path).Code, path)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		res := get(method, "/")
		require.Equal(t, http.StatusMethodNotAllowed, res.Code)
		require.Equal(t, "GET, HEAD", res.Header().Get("Allow"))
	}
}

func TestListenFails(t *testing.T) {
	p := startPage(t, Config{}, &fakeSource{})
	url := listen(t, p)
	_, err := p.Listen(strings.TrimPrefix(url, "http://"))
	require.ErrorContains(t, err, "address already in use")
}
