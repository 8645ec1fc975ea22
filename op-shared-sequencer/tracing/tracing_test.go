package tracing

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = time.Unix(1_700_000_000, 0)

func report(slot sequence.Slot) sequencer.SlotReport {
	return sequencer.SlotReport{Slot: slot, Spans: []sequencer.Span{
		{Stage: sequencer.StageFill, Start: at, End: at.Add(2 * time.Millisecond)},
		{Stage: sequencer.StageFill, Chain: 901, Start: at, End: at.Add(time.Millisecond)},
		{Stage: sequencer.StageDeliver, Chain: 901, Start: at.Add(5 * time.Second), End: at.Add(6 * time.Second)}, // behind the hand-over
	}}
}

// Spans come to a collector over OTLP/HTTP when the tracer is closed, and it leaves nothing behind.
func TestExport(t *testing.T) {
	var mu sync.Mutex
	names := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req collector.ExportTraceServiceRequest
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil || r.URL.Path != "/v1/traces" {
			names["bad request"]++
		}
		for _, rs := range req.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				names[a.Key+"="+a.Value.GetStringValue()]++
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					names[s.Name]++
				}
			}
		}
	}))
	defer server.Close()
	who := Operator{Version: "v1", Address: common.Address{7}}
	tr, err := New(t.Context(), Config{Endpoint: server.URL, SampleRatio: 1}, who, time.Now, log.NewLogger(log.DiscardHandler()))
	require.NoError(t, err)
	tr.SlotSealed(report(1))
	tr.SlotFailed(2, errors.New("?"))
	require.NoError(t, tr.Close(t.Context()))
	require.NoError(t, tr.Close(t.Context()), "again")
	tr.SlotSealed(report(3)) // too late, and harmless
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]int{
		"slot": 1, "fill": 2, "deliver": 1, "slot failed": 1,
		"service.name=op-node": 1, "service.version=v1": 1, "service.instance.id=" + common.Address{7}.Hex(): 1,
	}, names)
}

// A collector that is not there costs traces, one warning, and no time.
func TestNoCollector(t *testing.T) {
	server := httptest.NewServer(nil)
	url := server.URL
	server.Close()
	var out strings.Builder
	tr, err := New(t.Context(), Config{Endpoint: url, SampleRatio: 1}, Operator{}, time.Now, log.NewLogger(slog.NewTextHandler(&out, nil)))
	require.NoError(t, err)
	for i := range sequence.Slot(5) {
		tr.SlotSealed(report(i))
		require.NoError(t, tr.provider.ForceFlush(t.Context()))
	}
	require.NoError(t, tr.Close(t.Context()))
	require.Equal(t, 1, strings.Count(out.String(), "Traces are lost"), out.String())
}

// Operators with the same ratio trace the same slots, about as many as it says.
func TestSampling(t *testing.T) {
	var slots [2]map[string]bool
	for i := range slots {
		e := tracetest.NewInMemoryExporter()
		tr := To(e, .2, Operator{Address: common.Address{byte(i)}, Chains: []sequence.ChainID{901, 902}}, time.Now)
		for slot := range sequence.Slot(500) {
			tr.SlotSealed(report(slot))
		}
		slots[i] = map[string]bool{}
		for _, s := range e.GetSpans() {
			slots[i][s.SpanContext.TraceID().String()] = true
		}
	}
	require.Equal(t, slots[0], slots[1])
	require.InDelta(t, 100, len(slots[0]), 40)
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{Endpoint: "collector:4318"}, {Endpoint: "ftp://x:1"}, {Endpoint: "http://"}, {SampleRatio: -1}, {SampleRatio: 1.1}} {
		require.Error(t, c.Check(), c)
	}
	err := (&Config{Endpoint: "http://user:secret@"}).Check()
	require.ErrorContains(t, err, "expected")
	require.NotContains(t, err.Error(), "secret")
	require.NoError(t, (&Config{Endpoint: "https://collector:4318", SampleRatio: .5}).Check())
}

// What a slot costs when its spans are made, beside it, and when tracing is off.
func BenchmarkSlot(b *testing.B) {
	r := report(1)
	for range 10 {
		r.Spans = append(r.Spans, r.Spans...)
		if len(r.Spans) > 30 {
			break
		}
	}
	for name, tr := range map[string]*Tracer{
		"off": nil, "not sampled": To(tracetest.NewNoopExporter(), 0, Operator{}, time.Now), "sampled": To(tracetest.NewNoopExporter(), 1, Operator{}, time.Now),
	} {
		b.Run(name, func(b *testing.B) {
			var o sequencer.Observer = tr
			b.ReportAllocs()
			for b.Loop() {
				o.SlotSealed(r)
			}
		})
	}
}
