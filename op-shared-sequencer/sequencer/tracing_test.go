package sequencer_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/tracing"
)

// tree writes spans as the names on the way to each, with chain and subblock.
func tree(spans tracetest.SpanStubs) []string {
	byID := map[trace.SpanID]tracetest.SpanStub{}
	for _, s := range spans {
		byID[s.SpanContext.SpanID()] = s
	}
	name := func(s tracetest.SpanStub) string {
		n := s.Name
		for _, a := range s.Attributes {
			switch a.Key {
			case "chain_id":
				n += " on " + a.Value.String()
			case "subblock":
				n += " " + a.Value.String()
			}
		}
		return n
	}
	var out []string
	for _, s := range spans {
		path := name(s)
		for p, ok := byID[s.Parent.SpanID()]; ok; p, ok = byID[p.Parent.SpanID()] {
			path = name(p) + " > " + path
		}
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// A real slot of two operators gives the spans of what each of them did, in one trace.
func TestTraceOfSlot(t *testing.T) {
	turns := [2]rotation.Turn{{Height: 7, Leader: common.Address{1}}, {Height: 8, Leader: common.Address{2}}}
	var exported [2]*tracetest.InMemoryExporter
	var observers [2]sequencer.Observer
	for i := range exported {
		exported[i] = tracetest.NewInMemoryExporter()
		observers[i] = tracing.To(exported[i], 1, tracing.Operator{
			Address: turns[i].Leader, Chains: []sequence.ChainID{sequencer.ChainB, sequencer.ChainA},
		}, time.Now)
	}
	t.Cleanup(func() { // the slot runs beside other tests
		on := func(stage, sub string, below ...string) []string {
			all := []string{"slot > " + stage + " " + sub}
			if len(below) == 0 {
				return all
			}
			for _, b := range below {
				for _, chain := range []sequence.ChainID{sequencer.ChainA, sequencer.ChainB} {
					all = append(all, "slot > "+stage+" "+sub+" > "+b+" "+sub+" on "+chain.String())
				}
			}
			return all
		}
		ended := slices.Concat([]string{"slot"}, on("log", "1"), on("hand_over", "1", "insert", "deliver"), on("index", "1"))
		// Its leader fills and cuts the first subblock, with the bundle, and checks the second.
		first := slices.Concat(ended,
			on("attributes", "0"), on("open", "0", "open"), on("bundles", "0"), on("fill", "0", "fill"), on("cut", "0"), on("agree", "0"),
			on("verify", "1", "seal"), on("agree", "1"))
		second := slices.Concat(ended,
			on("attributes", "0"), on("open", "0", "open"), on("verify", "0", "verify"), on("agree", "0"),
			on("fill", "1", "fill"), on("seal", "1", "seal"), on("agree", "1"))
		var ids []trace.TraceID
		for i, want := range [][]string{first, second} {
			slices.Sort(want)
			spans := exported[i].GetSpans()
			require.Equal(t, strings.Join(want, "\n"), strings.Join(tree(spans), "\n"), "operator %d", i)
			for _, s := range spans {
				ids = append(ids, s.SpanContext.TraceID())
				require.False(t, s.EndTime.Before(s.StartTime), s.Name)
				got := map[string]string{}
				for _, a := range s.Attributes {
					got[string(a.Key)] = a.Value.String()
				}
				require.NotEmpty(t, got["slot"], s.Name)
				turn := turns[1] // of the slot: the last
				if got["subblock"] == "0" {
					turn = turns[0]
				}
				require.Equal(t, turn.Leader.Hex(), got["leader"], s.Name)
				require.Equal(t, map[uint64]string{7: "7", 8: "8"}[turn.Height], got["height"], s.Name)
				if s.Name == "agree" {
					require.Equal(t, 30*time.Millisecond, s.EndTime.Sub(s.StartTime))
				}
			}
		}
		require.Len(t, slices.Compact(ids), 1, "both operators' spans are of one trace")
	})
	t.Run("slot", func(t *testing.T) { sequencer.AgreeOnSlot(t, observers, turns) })
}

// An operator without tracing pays nothing for it.
func TestTracingOff(t *testing.T) {
	off, err := tracing.New(t.Context(), tracing.Config{SampleRatio: 1}, tracing.Operator{}, time.Now, nil)
	require.NoError(t, err)
	require.Nil(t, off)
	var o sequencer.Observer = off
	r := sequencer.SlotReport{Spans: make([]sequencer.Span, 40)}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		o.SlotSealed(r)
		o.SlotFailed(1, nil)
	}))
	require.NoError(t, off.Close(t.Context()))
}
