package cometbft

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics is told what happens. Its methods must not block.
type Metrics interface {
	// Committed: a height was agreed on in a round, 0 being the first leader's, and the
	// machine took commit for it.
	Committed(height uint64, round int32, took time.Duration)
	// Rejected: a proposal was rejected, for one of the reasons Reject….
	Rejected(reason string)
	// Passed: this operator had its turn and could not propose.
	Passed()
	// Gossip: a message of a peer was taken, or dropped for one of the reasons Gossip….
	Gossip(outcome string)
	// Peers is how many are connected.
	Peers(n int)
	// Shortened is how many operators' turns are shortened.
	Shortened(n int)
}

// Reasons for the rejection of a proposal.
const (
	RejectPass      = "pass"      // the leader passed: no fault
	RejectMalformed = "malformed" // not a signed subblock within the limits
	RejectHeight    = "height"    // signed for another height
	RejectLeader    = "leader"    // not signed by the operator that proposed it
	RejectChange    = "change"    // with a change that the set does not take
	RejectVerify    = "verify"    // the machine does not agree
	RejectStopping  = "stopping"  // this node is being stopped
)

// Outcomes of gossip.
const (
	GossipTaken     = "taken"
	GossipKnown     = "known"
	GossipLimited   = "limited" // over the peer's limits
	GossipQueueFull = "queueFull"
	GossipRefused   = "refused" // not valid now
	GossipFault     = "fault"   // not valid, and the peer should have known
	GossipUnsent    = "unsent"  // the queue to a peer is full
	GossipCutOff    = "cutOff"  // the peer was disconnected
)

// NoMetrics drops everything.
type NoMetrics struct{}

func (NoMetrics) Committed(uint64, int32, time.Duration) {}
func (NoMetrics) Rejected(string)                        {}
func (NoMetrics) Passed()                                {}
func (NoMetrics) Gossip(string)                          {}
func (NoMetrics) Peers(int)                              {}
func (NoMetrics) Shortened(int)                          {}

// promMetrics are for Prometheus.
type promMetrics struct {
	height    prometheus.Gauge
	rounds    prometheus.Histogram
	commit    prometheus.Histogram
	rejected  *prometheus.CounterVec
	passed    prometheus.Counter
	gossip    *prometheus.CounterVec
	peers     prometheus.Gauge
	shortened prometheus.Gauge
}

// NewMetrics registers metrics for Prometheus.
func NewMetrics(namespace string, reg prometheus.Registerer) Metrics {
	f := promauto.With(reg)
	name := func(n string) prometheus.Opts {
		return prometheus.Opts{Namespace: namespace, Subsystem: "rotation", Name: n}
	}
	gauge := func(n, help string) prometheus.Gauge {
		o := name(n)
		o.Help = help
		return f.NewGauge(prometheus.GaugeOpts(o))
	}
	return &promMetrics{
		height: gauge("height", "Subblocks agreed on so far."),
		rounds: f.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Subsystem: "rotation", Name: "rounds",
			Help: "Leaders that were tried before one's subblock was agreed on.", Buckets: []float64{0, 1, 2, 3, 5, 10, 100}}),
		commit: f.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Subsystem: "rotation", Name: "commit_seconds",
			Help: "What a commit took in the machine.", Buckets: prometheus.ExponentialBuckets(.0005, 2.5, 10)}),
		rejected: f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "rejected_total",
			Help: "Proposals that were rejected here."}, []string{"reason"}),
		passed: f.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "passed_total",
			Help: "Turns of this operator in which it could not propose."}),
		gossip: f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "gossip_total",
			Help: "Bundles and changes that peers sent."}, []string{"outcome"}),
		peers:     gauge("peers", "Peers that are connected."),
		shortened: gauge("shortened_operators", "Operators whose turns are shortened because they did not deliver."),
	}
}

func (m *promMetrics) Committed(height uint64, round int32, took time.Duration) {
	m.height.Set(float64(height))
	m.rounds.Observe(float64(round))
	m.commit.Observe(took.Seconds())
}
func (m *promMetrics) Rejected(reason string) { m.rejected.WithLabelValues(reason).Inc() }
func (m *promMetrics) Passed()                { m.passed.Inc() }
func (m *promMetrics) Gossip(outcome string)  { m.gossip.WithLabelValues(outcome).Inc() }
func (m *promMetrics) Peers(n int)            { m.peers.Set(float64(n)) }
func (m *promMetrics) Shortened(n int)        { m.shortened.Set(float64(n)) }
