package cometbft

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"
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
	// Votes are those that were seen for a height.
	Votes(v Votes)
	// TurnMissed: an operator had its turn, and another's subblock was agreed on.
	TurnMissed(operator string)
	// VoteRefused: an operator's vote was not well formed.
	VoteRefused()
	// ChangeWithoutEffect: a change of the set was agreed on and does not fit it any more.
	ChangeWithoutEffect()
	// ConnectionRefused: a node that is not among the peers wanted to connect.
	ConnectionRefused()
}

// Votes for a height, when it was committed here. Late ones are not among them.
type Votes struct {
	Leader       string
	Voted, Power uint64 // power that voted for it, and of all
	Missing      []string
	// Own says whether this operator's vote is among them; true if it has none in the set.
	Own bool
	// Offsets are how far the clocks by which operators voted were from the middle of them all.
	Offsets map[string]time.Duration
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
func (NoMetrics) Votes(Votes)                            {}
func (NoMetrics) TurnMissed(string)                      {}
func (NoMetrics) VoteRefused()                           {}
func (NoMetrics) ChangeWithoutEffect()                   {}
func (NoMetrics) ConnectionRefused()                     {}

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
	subblocks *prometheus.CounterVec
	missed    *prometheus.CounterVec
	voted     prometheus.Gauge
	power     prometheus.Gauge
	missing   *prometheus.CounterVec
	own       prometheus.Counter
	offset    *prometheus.GaugeVec
	refused   *prometheus.CounterVec
}

// NewMetrics registers metrics for Prometheus.
func NewMetrics(namespace string, f opmetrics.Factory) Metrics {
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
		subblocks: f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "subblocks_total",
			Help: "Subblocks that were agreed on, by who led them."}, []string{"operator"}),
		missed: f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "missed_turns_total",
			Help: "Turns in which the operator's subblock was not agreed on, and another's was."}, []string{"operator"}),
		voted: gauge("voted_power", "Power of the votes for the newest subblock that were there when it was committed here."),
		power: gauge("power", "Power of all operators. More than two thirds have to vote."),
		missing: f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "missing_votes_total",
			Help: "Subblocks without the operator's vote when they were committed here. Slow votes are among them: more than two thirds are enough."}, []string{"operator"}),
		own: f.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "own_missing_votes_total",
			Help: "Subblocks that were agreed on without this operator's vote."}),
		offset: f.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: "rotation", Name: "clock_offset_seconds",
			Help: "How far the clock by which an operator voted for the newest subblock is from the median of all. The time between votes, some network delays, is in it; a clock that is behind shows by one slot at most."}, []string{"operator"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "rotation", Name: "refused_total",
			Help: "What was refused beside proposals and gossip: votes that are not well formed, changes of the set that do not fit it any more, connections of nodes that are not peers."}, []string{"what"}),
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
func (m *promMetrics) TurnMissed(who string)  { m.missed.WithLabelValues(who).Inc() }
func (m *promMetrics) VoteRefused()           { m.refused.WithLabelValues("vote").Inc() }
func (m *promMetrics) ChangeWithoutEffect()   { m.refused.WithLabelValues("change").Inc() }
func (m *promMetrics) ConnectionRefused()     { m.refused.WithLabelValues("connection").Inc() }

func (m *promMetrics) Votes(v Votes) {
	m.subblocks.WithLabelValues(v.Leader).Inc()
	m.voted.Set(float64(v.Voted))
	m.power.Set(float64(v.Power))
	for _, who := range v.Missing {
		m.missing.WithLabelValues(who).Inc()
	}
	if !v.Own {
		m.own.Inc()
	}
	m.offset.Reset() // of operators that have left, too
	for who, d := range v.Offsets {
		m.offset.WithLabelValues(who).Set(d.Seconds())
	}
}
