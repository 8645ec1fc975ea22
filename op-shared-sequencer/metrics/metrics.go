// Package metrics counts and times what the shared sequencer does, for Prometheus.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Namespace is the prefix of all metrics.
const Namespace = "op_shared_sequencer"

// Metrics observes slots. The zero value cannot be used.
type Metrics struct {
	slots        prometheus.Counter
	failed       prometheus.Counter
	bundles      *prometheus.CounterVec
	late         prometheus.Histogram
	steps        *prometheus.HistogramVec
	head         *prometheus.GaugeVec
	transactions *prometheus.CounterVec
	gas          *prometheus.CounterVec
}

var _ sequencer.Observer = (*Metrics)(nil)

// New registers the metrics.
func New(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		slots: f.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: "slots_total", Help: "Slots that were sealed and handed over."}),
		failed: f.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: "slots_failed_total",
			Help: "Turns that ended without a slot; the slot is built again."}),
		bundles: f.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: "bundles_total", Help: "Bundles that were run in sealed slots."}, []string{"outcome"}),
		late: f.NewHistogram(prometheus.HistogramOpts{Namespace: Namespace, Name: "slot_late_seconds",
			Help:    "When slots were handed over, after their timestamp (negative: before it).",
			Buckets: []float64{-.3, -.2, -.1, -.05, 0, .05, .1, .2, .5, 1, 2, 5, 10}}),
		steps: f.NewHistogramVec(prometheus.HistogramOpts{Namespace: Namespace, Name: "slot_step_seconds",
			Help:    "What the steps of a slot cost.",
			Buckets: prometheus.ExponentialBuckets(.0002, 2.5, 10)}, []string{"step"}),
		head:         f.NewGaugeVec(prometheus.GaugeOpts{Namespace: Namespace, Name: "head_number", Help: "Number of the newest sealed block."}, []string{"chain"}),
		transactions: f.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: "transactions_total", Help: "Transactions in sealed blocks, deposits included."}, []string{"chain"}),
		gas:          f.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: "gas_total", Help: "Gas used by sealed blocks."}, []string{"chain"}),
	}
}

// SlotSealed implements sequencer.Observer.
func (m *Metrics) SlotSealed(r sequencer.SlotReport) {
	m.slots.Inc()
	m.bundles.WithLabelValues("executed").Add(float64(r.Executed))
	m.bundles.WithLabelValues("failed").Add(float64(r.Failed))
	m.late.Observe(r.Late.Seconds())
	for step, d := range map[string]time.Duration{
		"attributes": r.Attributes, "open": r.Open, "fill": r.Fill, "bundles": r.Bundles,
		"seal": r.Seal, "log": r.Log, "hand_over": r.HandOver, "index": r.Index,
	} {
		m.steps.WithLabelValues(step).Observe(d.Seconds())
	}
	for _, b := range r.Blocks {
		chain := b.Chain.String()
		m.head.WithLabelValues(chain).Set(float64(b.Ref.Number))
		m.transactions.WithLabelValues(chain).Add(float64(b.Transactions))
		m.gas.WithLabelValues(chain).Add(float64(b.GasUsed))
	}
}

// SlotFailed implements sequencer.Observer.
func (m *Metrics) SlotFailed(sequence.Slot, error) { m.failed.Inc() }
