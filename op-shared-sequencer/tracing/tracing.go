// Package tracing turns reports of slots into OpenTelemetry traces: a span for each slot, below
// it one for each stage, and below that one for each chain. Spans are made from the times in
// a report when the slot is over, so that making the slot costs nothing for it.
//
// A slot's trace ID follows from the set's chains and the slot, so that the spans of all
// operators come together in one trace, and all of them sample the same slots.
package tracing

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Config says where traces go.
type Config struct {
	Endpoint    string  // http or https URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318; empty: nowhere
	SampleRatio float64 // share of the slots that are traced, 0 to 1
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			// Not repeated: it may hold credentials.
			return errors.New("not the URL of an OTLP/HTTP collector: expected http or https://host:port")
		}
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) {
		return fmt.Errorf("sample ratio %v: expected 0 to 1", c.SampleRatio)
	}
	return nil
}

// Operator is who makes the spans.
type Operator struct {
	Version string
	Address common.Address // zero if it has none
	Chains  []sequence.ChainID
}

// Tracer makes the spans. nil is one that is off.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	now      func() time.Time
	set      common.Hash // of the chains
}

var _ sequencer.Observer = (*Tracer)(nil)

// New makes a tracer that exports to the endpoint, or nil if there is none. Nothing is
// dialed before the first slot, and nothing waits for the collector: what it does not take
// is dropped, with a warning.
func New(ctx context.Context, cfg Config, who Operator, now func() time.Time, l log.Logger) (*Tracer, error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if cfg.Endpoint == "" {
		return nil, nil
	}
	u, _ := url.Parse(cfg.Endpoint) // as Check did
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces" // the protocol's
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTime),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{})) // none: new slots come
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return newTracer(sdktrace.WithBatcher(&quiet{SpanExporter: exporter, log: l}), cfg.SampleRatio, who, now), nil
}

// To makes a tracer that gives each span to an exporter as it ends. For tests.
func To(exporter sdktrace.SpanExporter, ratio float64, who Operator, now func() time.Time) *Tracer {
	return newTracer(sdktrace.WithSyncer(exporter), ratio, who, now)
}

func newTracer(export sdktrace.TracerProviderOption, ratio float64, who Operator, now func() time.Time) *Tracer {
	attrs := []attribute.KeyValue{attribute.String("service.name", "op-node"), attribute.String("service.version", who.Version)}
	if who.Address != (common.Address{}) {
		attrs = append(attrs, attribute.String("service.instance.id", who.Address.Hex()))
	}
	chains := slices.Sorted(slices.Values(who.Chains))
	provider := sdktrace.NewTracerProvider(export,
		sdktrace.WithResource(resource.NewSchemaless(attrs...)),
		sdktrace.WithSampler(sdktrace.TraceIDRatioBased(ratio)),
		sdktrace.WithIDGenerator(ids{}))
	return &Tracer{provider, provider.Tracer("op-shared-sequencer"), now, crypto.Keccak256Hash(fmt.Appendf(nil, "slots of %v", chains))}
}

// exportTime is how long a collector may take.
const exportTime = 2 * time.Second

// Close exports what is left, for as long as an export may take.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, exportTime)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// slotKey is for ids.
type slotKey struct{}

// start begins the trace of a slot, at a time.
func (t *Tracer) start(name string, slot sequence.Slot, at time.Time) (context.Context, trace.Span) {
	id := crypto.Keccak256Hash(t.set[:], binary.BigEndian.AppendUint64(nil, uint64(slot)))
	ctx := context.WithValue(context.Background(), slotKey{}, trace.TraceID(id[:16]))
	return t.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(attribute.Int64("slot", int64(slot))))
}

// SlotSealed makes the spans of a slot.
func (t *Tracer) SlotSealed(r sequencer.SlotReport) {
	if t == nil || len(r.Spans) == 0 {
		return
	}
	begin, end := r.Spans[0].Start, r.Spans[0].End
	for _, s := range r.Spans {
		begin, end = earlier(begin, s.Start), later(end, s.End)
	}
	ctx, root := t.start("slot", r.Slot, begin)
	defer root.End(trace.WithTimestamp(end))
	if !root.IsRecording() {
		return
	}
	root.SetAttributes(
		attribute.Int("subblocks", r.Subblocks), attribute.Int("subblocks.led", r.Led),
		attribute.Int("bundles.executed", r.Executed), attribute.Int("bundles.failed", r.Failed), attribute.Int("bundles.put_off", r.PutOff),
		attribute.Int64("late_ms", r.Late.Milliseconds()))
	if n := len(r.Turns); n > 0 {
		root.SetAttributes(attribute.Int64("height", int64(r.Turns[n-1].Height)), attribute.String("leader", r.Turns[n-1].Leader.Hex()))
	}
	// Those over all chains first: the chains' are below them.
	over := make([]context.Context, len(r.Spans))
	for i, s := range r.Spans {
		if s.Chain == 0 {
			over[i] = t.stage(ctx, &s, &r)
		}
	}
	for _, s := range r.Spans {
		if s.Chain != 0 {
			parent := ctx
			if i := above(r.Spans, &s); i >= 0 {
				parent = over[i]
			}
			t.stage(parent, &s, &r)
		}
	}
}

// stage makes the span of a stage.
func (t *Tracer) stage(ctx context.Context, s *sequencer.Span, r *sequencer.SlotReport) context.Context {
	attrs := make([]attribute.KeyValue, 0, 5)
	attrs = append(attrs, attribute.Int64("slot", int64(r.Slot)), attribute.Int64("subblock", int64(s.Subblock)))
	if s.Chain != 0 {
		attrs = append(attrs, attribute.String("chain_id", s.Chain.String()))
	}
	if s.Subblock < uint64(len(r.Turns)) {
		turn := r.Turns[s.Subblock]
		attrs = append(attrs, attribute.Int64("height", int64(turn.Height)), attribute.String("leader", turn.Leader.Hex()))
	}
	ctx, span := t.tracer.Start(ctx, string(s.Stage), trace.WithTimestamp(s.Start), trace.WithAttributes(attrs...))
	span.End(trace.WithTimestamp(s.End))
	return ctx
}

// above is the span over all chains that a chain's belongs to, -1 if there is none. A stage
// that was done again has several.
func above(spans []sequencer.Span, s *sequencer.Span) int {
	for _, stage := range below(s.Stage) {
		for i := range spans {
			p := &spans[i]
			if p.Stage == stage && p.Chain == 0 && p.Subblock == s.Subblock && !s.Start.Before(p.Start) && !s.Start.After(p.End) {
				return i
			}
		}
	}
	return -1
}

// below are the stages that a chain's stage is part of.
func below(s sequencer.Stage) []sequencer.Stage {
	switch s {
	case sequencer.StageInsert, sequencer.StageDeliver:
		return []sequencer.Stage{sequencer.StageHandOver}
	case sequencer.StageSeal: // another leader's block is sealed to check it
		return []sequencer.Stage{sequencer.StageSeal, sequencer.StageVerify}
	}
	return []sequencer.Stage{s}
}

// SlotFailed makes a span for a turn that came to nothing.
func (t *Tracer) SlotFailed(slot sequence.Slot, err error) {
	if t == nil {
		return
	}
	at := t.now()
	_, span := t.start("slot failed", slot, at)
	if span.IsRecording() {
		span.SetStatus(codes.Error, err.Error())
		span.SetAttributes(attribute.String("reason", sequencer.FailureReason(err)))
	}
	span.End(trace.WithTimestamp(at))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// ids gives the spans of a slot its trace ID, and random IDs of their own.
type ids struct{}

func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(slotKey{}).(trace.TraceID)
	return id, g.NewSpanID(ctx, id)
}

func (ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	for !id.IsValid() {
		_, _ = rand.Read(id[:]) // it never fails
	}
	return id
}

// quiet keeps errors of the exporter from a global handler. Of several in a row the first is
// logged.
type quiet struct {
	sdktrace.SpanExporter
	log    log.Logger
	failed atomic.Bool
}

func (q *quiet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := q.SpanExporter.ExportSpans(ctx, spans)
	switch was := q.failed.Swap(err != nil); {
	case err != nil && !was:
		q.log.Warn("Traces are lost: the collector does not take them", "err", err)
	case err == nil && was:
		q.log.Info("Traces are exported again")
	}
	return nil
}
