package metrics

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Engine records the calls to the engine of a chain.
func (m *Metrics) Engine(chain sequence.ChainID) rpc.Recorder {
	return m.rpc.NewRecorder("engine-" + chain.String())
}

// Server records the calls of methods that are served under a name. Others, which callers
// make up, are counted together.
func (m *Metrics) Server(name string, methods ...string) rpc.Recorder {
	s := &served{to: m.rpc.NewRecorder(name), methods: map[string]bool{}}
	for _, method := range methods {
		s.methods[method] = true
	}
	return s
}

// served keeps what callers make up out of the labels.
type served struct {
	to      rpc.Recorder
	methods map[string]bool
}

func (s *served) RecordIncoming(ctx context.Context, msg rpc.RecordedMsg) rpc.RecordDone {
	return s.named(msg, s.to.RecordIncoming, ctx)
}

func (s *served) RecordOutgoing(ctx context.Context, msg rpc.RecordedMsg) rpc.RecordDone {
	return s.named(msg, s.to.RecordOutgoing, ctx)
}

func (s *served) named(msg rpc.RecordedMsg, record func(context.Context, rpc.RecordedMsg) rpc.RecordDone, ctx context.Context) rpc.RecordDone {
	if s.methods[msg.MsgMethod()] {
		return record(ctx, msg)
	}
	done := record(ctx, madeUp{msg})
	if done == nil {
		return nil
	}
	return func(ctx context.Context, input, output rpc.RecordedMsg) { done(ctx, madeUp{input}, output) }
}

// madeUp is a call of a method that there is not.
type madeUp struct{ rpc.RecordedMsg }

func (madeUp) MsgMethod() string { return "unknown" }

// HTTP counts requests that are refused before they come to a method. Their methods are
// the callers' to choose and no label.
func (m *Metrics) HTTP() opmetrics.HTTPRecorder { return httpRecorder{m} }

type httpRecorder struct{ m *Metrics }

func (httpRecorder) RecordHTTPRequestDuration(*opmetrics.HTTPParams, time.Duration) {}
func (httpRecorder) RecordHTTPResponseSize(*opmetrics.HTTPParams, int)              {}
func (httpRecorder) RecordInflightRequest(*opmetrics.HTTPParams, int)               {}
func (httpRecorder) RecordHTTPRequest(*opmetrics.HTTPParams)                        {}
func (r httpRecorder) RecordHTTPResponse(p *opmetrics.HTTPParams)                   { r.m.recordHTTP(p.StatusCode) }

// Ingress counts an answer to op-geth's pool.
func (m *Metrics) Ingress(err error) {
	result := "ok"
	var refused *executor.MessageError
	switch {
	case err == nil:
	case errors.As(err, &refused):
		result = ruleLabel(refused.Rule)
		// The executing chain is the caller's word, unless the first rule was passed.
		if refused.Rule != executor.RuleDependencySet {
			m.MessageRefused(PlaceIngress, refused.Chain, refused.Rule)
		}
	case errors.Is(err, interop.ErrFailsafeEnabled):
		result = "failsafe"
	default:
		result = "malformed"
	}
	m.ingress.WithLabelValues(result).Inc()
}

// Methods names the methods of a namespace.
func Methods(namespace string, names ...string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = namespace + "_" + strings.TrimSpace(n)
	}
	return out
}
