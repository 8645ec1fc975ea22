package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor/history"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// Sources are asked at each scrape how things stand. They answer at once, also when an
// engine, L1 or the ledger's disk does not.
type Sources struct {
	Chains   func() []sequencer.ChainState
	Bundles  func() bundlepool.Stats
	Ledger   func() ledger.Stats
	History  History
	Failsafe func() bool
	FillLead func() time.Duration
	// Agreement and Evidence are nil when the operator is alone.
	Agreement func() cometbft.Status
	Evidence  func() operators.EvidenceList
	// Disk is the room in the file system of the ledger, false if it is not known. May be nil.
	Disk func() (free, size uint64, ok bool)
}

// History is what is kept of the chains' messages.
type History interface {
	Status(chain sequence.ChainID) (history.Status, bool)
	Bytes(chain sequence.ChainID) int64
}

// Fixed is what does not change while the process runs.
type Fixed struct {
	Version, Commit string
	Rotation        string
	Start           time.Time
	LastFailure     time.Time // when the process last ended by itself; zero: never
	Slot            time.Duration
	SealLead        time.Duration
	Subblocks       int
	Peers           int // that are configured
}

// state is gauges that are set when they are scraped.
type state struct {
	info                                                     *prometheus.GaugeVec
	start, failure, slot, fillLead, sealLead, subblocks      prometheus.Gauge
	ready, leftOut, member, hindrance, number, timestamp     *prometheus.GaugeVec
	poolBundles                                              *prometheus.GaugeVec
	poolBytes, poolLimit, poolLimitBytes                     prometheus.Gauge
	ledgerBytes, ledgerSegments, ledgerSlots, ledgerOldest   prometheus.Gauge
	ledgerBroken, failsafe, diskFree, diskSize               prometheus.Gauge
	first, newest, complete, filling, fillAt, fillTo         *prometheus.GaugeVec
	fillFrom, bytes, behind                                  *prometheus.GaugeVec
	opPower, opMissed, opShort, evidence                     *prometheus.GaugeVec
	running, syncing, durable, ownPower, peersNamed, pending prometheus.Gauge
}

func newState(f opmetrics.Factory) *state {
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help}, labels)
	}
	return &state{
		info:      gauges("info", "Always 1, with the version and how leaders are found.", "version", "commit", "rotation"),
		start:     gauge("start_time_seconds", "When the shared sequencer was started."),
		failure:   gauge("last_failure_timestamp_seconds", "When the process last ended by itself, as the watchdog has it do; 0 if it never did. The log at its next start has the reason."),
		slot:      gauge("slot_seconds", "The time between two slots."),
		fillLead:  gauge("fill_lead_seconds", "How long before a slot's timestamp this operator fills its blocks: fill-lead, or more where fills take longer."),
		sealLead:  gauge("seal_lead_seconds", "How long before a slot's timestamp its blocks are sealed."),
		subblocks: gauge("subblocks_per_slot", "In how many parts a slot is agreed on."),

		ready:     gauges("chain_ready", "1 if nothing is known that keeps the chain from being built on.", chainLabel),
		leftOut:   gauges("chain_left_out", "1 while the others go on without the chain.", chainLabel),
		member:    gauges("chain_member", "1 if the chain takes part in the set.", chainLabel),
		hindrance: gauges("chain_hindrance", "1 for what keeps the chain from being built on.", chainLabel, reasonLabel),
		number:    gauges("chain_block_number", "Heads of the chain as its driver last told: unsafe, local_safe, safe (cross-safe), finalized.", chainLabel, "level"),
		timestamp: gauges("chain_block_timestamp_seconds", "The same heads' timestamps: the time that has passed since is the chain's lag.", chainLabel, "level"),

		poolBundles:    gauges("bundlepool_bundles", "Bundles in the pool, by state. finished: failed, expired and safe ones that are remembered.", "state"),
		poolBytes:      gauge("bundlepool_pending_bytes", "Bytes of the pending bundles."),
		poolLimit:      gauge("bundlepool_pending_limit", "At most so many bundles are pending."),
		poolLimitBytes: gauge("bundlepool_pending_bytes_limit", "At most so many bytes of them."),

		ledgerBytes:    gauge("ledger_bytes", "Size of the ledger."),
		ledgerSegments: gauge("ledger_segments", "Files of the ledger. Pruning frees whole ones."),
		ledgerSlots:    gauge("ledger_slots", "Slots that the ledger keeps."),
		ledgerOldest:   gauge("ledger_oldest_slot_timestamp_seconds", "The oldest of them."),
		ledgerBroken:   gauge("ledger_broken", "1 after a sync that failed: nothing is written until the process has started again."),
		failsafe:       gauge("failsafe_enabled", "1 while the failsafe is on: pools refuse what executes messages, and this operator's blocks have none."),
		diskFree:       gauge("data_dir_free_bytes", "Room in the file system of the shared sequencer's data directory."),
		diskSize:       gauge("data_dir_size_bytes", "Size of that file system."),

		first:    gauges("history_first_block", "First block of the chain's message history.", chainLabel),
		newest:   gauges("history_head_block", "Newest block of the chain's message history.", chainLabel),
		complete: gauges("history_complete", "1 if the chain's message history begins early enough for every message that can still be executed. Else its messages are refused.", chainLabel),
		behind:   gauges("history_behind_blocks", "Blocks of the chain that its message history lacks at its end.", chainLabel),
		filling:  gauges("history_backfilling", "1 while blocks are read from the engine into the message history.", chainLabel),
		fillFrom: gauges("history_backfill_from_block", "Where that began; of the last time, when it is over.", chainLabel),
		fillAt:   gauges("history_backfill_block", "Where it is.", chainLabel),
		fillTo:   gauges("history_backfill_to_block", "Where it ends.", chainLabel),
		bytes:    gauges("history_bytes", "Size of the chain's message history on disk, with the room that its files have in advance.", chainLabel),

		opPower:    gauges("operator_power", "Share of the votes and turns.", "operator"),
		opMissed:   gauges("operator_missed_turns", "Turns in a row that the operator has missed.", "operator"),
		opShort:    gauges("operator_shortened", "1 while the operator's turns are shortened because it does not deliver.", "operator"),
		evidence:   gauges("evidence", "Proofs that are kept against operators: subblocks (two signed for one height), votes (voted twice).", "kind"),
		running:    gauge("rotation_running", "1 while the rotation runs."),
		syncing:    gauge("rotation_syncing", "1 while this node fetches what was agreed on, and does not vote."),
		durable:    gauge("rotation_durable_height", "The height that the newest slot in the ledger ends with."),
		ownPower:   gauge("rotation_own_power", "This operator's power; 0: it follows."),
		peersNamed: gauge("rotation_peers_configured", "Peers that are named in the configuration."),
		pending:    gauge("rotation_pending_changes", "Changes of the set that wait for approval."),
	}
}

// SetFixed says what does not change.
func (m *Metrics) SetFixed(f Fixed) {
	s := m.state
	s.info.WithLabelValues(f.Version, f.Commit, f.Rotation).Set(1)
	s.start.Set(float64(f.Start.Unix()))
	if !f.LastFailure.IsZero() {
		s.failure.Set(float64(f.LastFailure.Unix()))
	}
	s.slot.Set(f.Slot.Seconds())
	s.sealLead.Set(f.SealLead.Seconds())
	s.subblocks.Set(float64(f.Subblocks))
	s.peersNamed.Set(float64(f.Peers))
}

// read sets the gauges.
func (s *state) read(src *Sources) {
	for _, c := range src.Chains() {
		s.readChain(&c)
		s.readHistory(&c, src.History)
	}
	b := src.Bundles()
	s.poolBundles.WithLabelValues("pending").Set(float64(b.Pending))
	s.poolBundles.WithLabelValues("executed").Set(float64(b.Executed))
	s.poolBundles.WithLabelValues("undone").Set(float64(b.Undone))
	s.poolBundles.WithLabelValues("finished").Set(float64(b.Finished))
	s.poolBytes.Set(float64(b.PendingBytes))
	s.poolLimit.Set(float64(b.MaxPending))
	s.poolLimitBytes.Set(float64(b.MaxBytes))
	l := src.Ledger()
	s.ledgerBytes.Set(float64(l.Bytes))
	s.ledgerSegments.Set(float64(l.Segments))
	s.ledgerSlots.Set(float64(l.Records))
	s.ledgerOldest.Set(float64(l.Oldest))
	s.ledgerBroken.Set(number(l.Broken))
	s.failsafe.Set(number(src.Failsafe()))
	s.fillLead.Set(src.FillLead().Seconds())
	if src.Disk != nil {
		if free, size, ok := src.Disk(); ok {
			s.diskFree.Set(float64(free))
			s.diskSize.Set(float64(size))
		}
	}
	if src.Agreement == nil {
		return
	}
	st := src.Agreement()
	s.running.Set(number(st.Running))
	s.syncing.Set(number(st.Syncing))
	s.durable.Set(float64(st.Durable))
	s.ownPower.Set(float64(st.Power))
	s.pending.Set(float64(st.PendingChanges))
	for _, v := range []*prometheus.GaugeVec{s.opPower, s.opMissed, s.opShort} {
		v.Reset() // of operators that have left
	}
	for _, o := range st.Operators {
		s.opPower.WithLabelValues(o.Name).Set(float64(o.Power))
		s.opMissed.WithLabelValues(o.Name).Set(float64(o.Missed))
		s.opShort.WithLabelValues(o.Name).Set(number(o.Shortened))
	}
	e := src.Evidence()
	s.evidence.WithLabelValues("subblocks").Set(float64(len(e.Subblocks)))
	s.evidence.WithLabelValues("votes").Set(float64(len(e.Votes)))
}

func (s *state) readChain(c *sequencer.ChainState) {
	chain := c.Chain.String()
	s.ready.WithLabelValues(chain).Set(number(c.Hindrance == ""))
	s.leftOut.WithLabelValues(chain).Set(number(c.LeftOut))
	s.member.WithLabelValues(chain).Set(number(c.Member))
	for _, reason := range sequencer.Hindrances {
		s.hindrance.WithLabelValues(chain, reason).Set(number(reason == c.Hindrance))
	}
	for _, h := range [...]struct {
		level string
		ref   eth.L2BlockRef
	}{{"unsafe", c.Unsafe}, {"local_safe", c.LocalSafe}, {"safe", c.Safe}, {"finalized", c.Finalized}} {
		if h.ref == (eth.L2BlockRef{}) {
			continue // not known, or as it was
		}
		s.number.WithLabelValues(chain, h.level).Set(float64(h.ref.Number))
		s.timestamp.WithLabelValues(chain, h.level).Set(float64(h.ref.Time))
	}
}

func (s *state) readHistory(c *sequencer.ChainState, h History) {
	st, ok := h.Status(c.Chain)
	if !ok {
		return
	}
	chain := c.Chain.String()
	s.first.WithLabelValues(chain).Set(float64(st.First))
	s.newest.WithLabelValues(chain).Set(float64(st.Head))
	s.complete.WithLabelValues(chain).Set(number(st.Complete))
	s.filling.WithLabelValues(chain).Set(number(st.Filling))
	s.fillFrom.WithLabelValues(chain).Set(float64(st.From))
	s.fillAt.WithLabelValues(chain).Set(float64(st.At))
	s.fillTo.WithLabelValues(chain).Set(float64(st.To))
	s.bytes.WithLabelValues(chain).Set(float64(h.Bytes(c.Chain)))
	if c.Unsafe != (eth.L2BlockRef{}) {
		s.behind.WithLabelValues(chain).Set(float64(c.Unsafe.Number - min(c.Unsafe.Number, st.Head)))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
