// Package metrics counts and times what the shared sequencer does, for Prometheus. What
// happens is pushed by those that do it, through the small interfaces that they declare; how
// things stand is read from them when the metrics are scraped (see Sources).
package metrics

import (
	"errors"
	"math/big"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/params"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	opmetrics "github.com/ethereum-optimism/optimism/op-service/metrics"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/stream"
)

// Namespace is the prefix of all metrics.
const Namespace = "op_shared_sequencer"

// Labels. None holds a hash or what a caller made up: the number of series is bounded by
// chains and operators.
const (
	chainLabel  = "chain_id"
	reasonLabel = "reason"
)

// PlaceIngress is where op-geth's pool is answered that a message is not valid. Messages are
// refused in a pool fill, in a bundle and in another leader's subblock, too.
const PlaceIngress = "ingress"

// Metrics implements what the packages that are observed declare.
type Metrics struct {
	registry *prometheus.Registry
	factory  opmetrics.Factory
	rotation cometbft.Metrics
	rpc      opmetrics.RPCMetrics

	slots, abandoned, unverified           prometheus.Counter
	failed, bundles, relayed               *prometheus.CounterVec
	late                                   prometheus.Histogram
	lastSlot                               prometheus.Gauge
	stages, chainStages                    *prometheus.HistogramVec
	head                                   *prometheus.GaugeVec
	transactions, gas, logs, executed      *prometheus.CounterVec
	subblocksRefused, messagesRefused      *prometheus.CounterVec
	leftOut, engineFaults, delayed         *prometheus.CounterVec
	redelivered, takenBack                 *prometheus.CounterVec
	historyFailed, tidyFailed, poolBehind  *prometheus.CounterVec
	passedOver, bundlesRefused, bundleEnds *prometheus.CounterVec
	relayer                                *prometheus.GaugeVec
	synced                                 prometheus.Histogram
	syncFailed, saveFailed, notShared      prometheus.Counter
	ingress, httpRefused                   *prometheus.CounterVec
	subscribers                            prometheus.Gauge
	subscriptionsEnded                     *prometheus.CounterVec

	state *state

	mu      sync.Mutex
	sources *Sources
}

var (
	_ sequencer.Observer  = (*Metrics)(nil)
	_ sequencer.Metrics   = (*Metrics)(nil)
	_ bundlepool.Metrics  = (*Metrics)(nil)
	_ ledger.Metrics      = (*Metrics)(nil)
	_ stream.Metrics      = (*Metrics)(nil)
	_ prometheus.Gatherer = (*Metrics)(nil)
)

// New makes metrics with a registry of their own. Series of the chains begin at 0, so that
// their first increase is one.
func New(chains []sequence.ChainID) *Metrics {
	reg := prometheus.NewRegistry()
	f := opmetrics.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help}, labels)
	}
	buckets := prometheus.ExponentialBuckets(.0002, 2.5, 11) // 0.2 ms to 1.9 s
	m := &Metrics{
		registry: reg, factory: f,
		rotation: cometbft.NewMetrics(Namespace, f),
		rpc:      opmetrics.MakeRPCMetrics(Namespace, f),

		slots:  counter("slots_total", "Slots that were sealed and handed over."),
		failed: counters("slots_failed_total", "Turns of this operator that ended without a subblock; it is built again.", reasonLabel),
		late: f.NewHistogram(prometheus.HistogramOpts{Namespace: Namespace, Name: "slot_late_seconds",
			Help:    "When slots were handed over, after their timestamp (negative: before it).",
			Buckets: []float64{-.3, -.2, -.1, -.05, 0, .05, .1, .2, .5, 1, 2, 5, 10}}),
		lastSlot: f.NewGauge(prometheus.GaugeOpts{Namespace: Namespace, Name: "last_slot_timestamp_seconds", Help: "The slot that was sealed last."}),
		stages: f.NewHistogramVec(prometheus.HistogramOpts{Namespace: Namespace, Name: "slot_stage_seconds",
			Help: "What the stages of a slot took: attributes, open, bundles, fill, relays, cut and seal of what this operator led; verify of what others led; agree, log, hand_over and index of all.", Buckets: buckets}, []string{"stage"}),
		chainStages: f.NewHistogramVec(prometheus.HistogramOpts{Namespace: Namespace, Name: "chain_stage_seconds",
			Help: "What a stage took on one chain: open, fill, verify, seal, insert (the engine stores the block) and deliver (the driver takes it).", Buckets: buckets}, []string{chainLabel, "stage"}),
		relayed: counters("relayed_messages_total", "Messages of plain transactions that the relay policy is about: executed in their slot, reverted, refused by the policy, out of budget, late, or unfunded (the relayer does not pay for it).", "outcome"),
		bundles: counters("bundles_total", "Bundles that were run in sealed slots: executed, failed, or put_off to a later slot.", "outcome"),
		head: f.NewGaugeVec(prometheus.GaugeOpts{Namespace: Namespace, Name: "head_number",
			Help: "Number of the newest block that was sealed here."}, []string{chainLabel}),
		transactions: counters("transactions_total", "Transactions in sealed blocks, deposits included.", chainLabel),
		gas:          counters("gas_total", "Gas used by sealed blocks.", chainLabel),
		logs:         counters("logs_total", "Logs in sealed blocks: what can be executed as a message elsewhere.", chainLabel),
		executed:     counters("messages_executed_total", "Messages that sealed blocks execute.", chainLabel),

		subblocksRefused: counters("subblocks_refused_total", "Subblocks of other leaders that this operator does not vote for. not_ready and history say nothing about the leader.", reasonLabel),
		unverified:       counter("subblocks_unverified_total", "Subblocks that were agreed on without this operator having run them: it was behind, or had refused them."),
		abandoned:        counter("slots_abandoned_total", "Slots of which only some subblocks were agreed on when L1 took back what they build on."),
		messagesRefused:  counters("messages_refused_total", "Executing messages that were refused, by the rule of the interop specification, where: ingress (op-geth's pool asked), fill, bundle, verify (another leader's).", "place", chainLabel, "rule"),
		leftOut:          counters("chains_left_out_total", "Times that the others went on without a chain, by why it could not be built on.", chainLabel, reasonLabel),
		engineFaults:     counters("engine_faults_total", "Times that an engine was found in trouble. It is mended from the ledger.", chainLabel, "fault"),
		delayed:          counters("blocks_delayed_total", "Agreed blocks that came to their chain later than their slot did, by what held them up.", chainLabel, "cause"),
		redelivered:      counters("blocks_redelivered_total", "Agreed blocks that a chain was given again, from the ledger.", chainLabel),
		takenBack:        counters("blocks_taken_back_total", "Agreed blocks that are not in their chain any more: after an L1 reorg or an invalidation.", chainLabel),
		historyFailed:    counters("history_sync_failures_total", "Syncs of the message history that failed; the next one goes on where it was.", chainLabel),
		tidyFailed:       counters("ledger_tidy_failures_total", "Times that the ledger could not be pruned, or not told what is final.", chainLabel),
		poolBehind:       counters("pool_behind_total", "Blocks without transactions from the pool, because the engine's pool was behind.", chainLabel),
		passedOver:       counters("bundles_passed_over_total", "Bundles that were not tried in a slot they waited for, once for each slot.", reasonLabel),
		bundlesRefused:   counters("bundles_refused_total", "Bundles that were not taken in. The reasons are the kinds of sharedseq_sendBundle's errors, and pool-full, sender-limit, cancelled and underpriced.", reasonLabel),
		bundleEnds:       counters("bundle_transitions_total", "Bundles that came to a state.", "state"),
		relayer: f.NewGaugeVec(prometheus.GaugeOpts{Namespace: Namespace, Name: "relayer_balance_ether",
			Help: "What the relayer had when it last paid for a relay on the chain."}, []string{chainLabel}),
		synced: f.NewHistogram(prometheus.HistogramOpts{Namespace: Namespace, Name: "ledger_sync_seconds",
			Help: "What the ledger's syncs to the disk took. Every slot waits for one.", Buckets: prometheus.ExponentialBuckets(.0005, 2, 13)}),
		syncFailed: counter("ledger_sync_failures_total", "Syncs of the ledger that failed. The process ends and opens it again."),
		saveFailed: counter("bundles_save_failures_total", "Times that waiting bundles could not be saved."),
		notShared:  counter("bundles_not_shared_total", "Bundles that could not be passed on to the other operators."),
		ingress:    counters("ingress_checks_total", "Answers to op-geth's pool about the messages of a transaction: ok, failsafe, a rule, or malformed.", "result"),
		httpRefused: counters("http_refused_total",
			"HTTP requests to the sharedseq and admin RPC that were refused before they came to a method, by status code: too large, not authorized.", "code"),
	}
	m.subscribers = f.NewGauge(prometheus.GaugeOpts{Namespace: Namespace, Name: "subscriptions", Help: "Subscriptions to what is agreed on, and readers of Subblocks streams."})
	m.subscriptionsEnded = counters("subscriptions_ended_total", "Subscriptions that the node ended: the subscriber was slow, or the node itself missed something.", reasonLabel)
	for _, reason := range []string{"slow", "missed"} {
		m.subscriptionsEnded.WithLabelValues(reason)
	}
	m.state = newState(f)
	for _, reason := range []string{"message", "not_ready", "history", "out_of_place", "too_early", "omission", "attributes", "bundle", "place", "result", "transaction", "other"} {
		m.subblocksRefused.WithLabelValues(reason)
	}
	for _, o := range []string{"executed", "failed", "put_off"} {
		m.bundles.WithLabelValues(o)
	}
	for _, id := range chains {
		chain := id.String()
		for _, v := range []*prometheus.CounterVec{m.transactions, m.gas, m.logs, m.executed, m.redelivered, m.takenBack, m.historyFailed, m.tidyFailed, m.poolBehind} {
			v.WithLabelValues(chain)
		}
		for _, place := range []string{PlaceIngress, "fill", "bundle", sequencer.PlaceVerify} {
			for r := executor.RuleDependencySet; r <= executor.RuleHistory; r++ {
				m.messagesRefused.WithLabelValues(place, chain, ruleLabel(r))
			}
		}
		for _, reason := range sequencer.Hindrances {
			m.leftOut.WithLabelValues(chain, reason)
		}
		for _, cause := range []string{sequencer.DelayRun, sequencer.DelayLedger, sequencer.DelayHandOver} {
			m.delayed.WithLabelValues(chain, cause)
		}
		for _, fault := range []string{"lost_blocks", "unavailable", "unknown_parent", "parent_state", "session_lost", "other"} {
			m.engineFaults.WithLabelValues(chain, fault)
		}
	}
	return m
}

// Document lists all metrics.
func (m *Metrics) Document() []opmetrics.DocumentedMetric { return m.factory.Document() }

// Rotation is what the rotation is given.
func (m *Metrics) Rotation() cometbft.Metrics { return m.rotation }

// Gather reads how things stand, and gives everything.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sources != nil {
		m.state.read(m.sources)
	}
	return m.registry.Gather()
}

// Watch has Gather read the sources. nil: they are gone.
func (m *Metrics) Watch(s *Sources) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = s
}

// SlotSealed implements sequencer.Observer.
func (m *Metrics) SlotSealed(r sequencer.SlotReport) {
	m.slots.Inc()
	m.lastSlot.Set(float64(r.Slot))
	m.bundles.WithLabelValues("executed").Add(float64(r.Executed))
	m.bundles.WithLabelValues("failed").Add(float64(r.Failed))
	m.bundles.WithLabelValues("put_off").Add(float64(r.PutOff))
	for outcome, n := range map[string]int{
		"executed": r.Relayed.Executed, "reverted": r.Relayed.Reverted, "refused": r.Relayed.Refused,
		"budget": r.Relayed.Budget, "late": r.Relayed.Late, "unfunded": r.Relayed.Unfunded,
	} {
		m.relayed.WithLabelValues(outcome).Add(float64(n))
	}
	m.late.Observe(r.Late.Seconds())
	for _, s := range [...]struct {
		stage sequencer.Stage
		took  time.Duration
	}{
		{sequencer.StageAttributes, r.Attributes}, {sequencer.StageOpen, r.Open}, {sequencer.StageFill, r.Fill}, {sequencer.StageBundles, r.Bundles}, {sequencer.StageRelays, r.Relays},
		{sequencer.StageCut, r.Cut}, {sequencer.StageSeal, r.Seal}, {sequencer.StageVerify, r.Verify}, {sequencer.StageAgree, r.Agree},
		{sequencer.StageLog, r.Log}, {sequencer.StageHandOver, r.HandOver}, {sequencer.StageIndex, r.Index},
	} {
		if s.took > 0 { // others were another operator's
			m.stages.WithLabelValues(string(s.stage)).Observe(s.took.Seconds())
		}
	}
	for _, s := range r.Spans {
		if s.Chain != 0 {
			m.chainStages.WithLabelValues(s.Chain.String(), string(s.Stage)).Observe(s.End.Sub(s.Start).Seconds())
		}
	}
	for _, b := range r.Blocks {
		chain := b.Chain.String()
		m.head.WithLabelValues(chain).Set(float64(b.Ref.Number))
		m.transactions.WithLabelValues(chain).Add(float64(b.Transactions))
		m.gas.WithLabelValues(chain).Add(float64(b.GasUsed))
		m.logs.WithLabelValues(chain).Add(float64(b.Logs))
		m.executed.WithLabelValues(chain).Add(float64(b.Messages))
	}
}

// SlotFailed implements sequencer.Observer.
func (m *Metrics) SlotFailed(_ sequence.Slot, err error) {
	m.failed.WithLabelValues(sequencer.FailureReason(err)).Inc()
}

// MessageRefused counts a message that was refused at a place.
func (m *Metrics) MessageRefused(place string, chain sequence.ChainID, rule executor.Rule) {
	m.messagesRefused.WithLabelValues(place, chain.String(), ruleLabel(rule)).Inc()
}

func ruleLabel(r executor.Rule) string {
	switch r {
	case executor.RuleDependencySet:
		return "dependency_set"
	case executor.RuleExecutingActivation:
		return "executing_activation"
	case executor.RuleInitiatingActivation:
		return "initiating_activation"
	case executor.RuleTimestamp:
		return "timestamp"
	case executor.RuleExpiry:
		return "expiry"
	case executor.RuleDeclared:
		return "declared"
	case executor.RuleExists:
		return "exists"
	case executor.RuleOrder:
		return "order"
	case executor.RuleHistory:
		return "history"
	}
	return "other"
}

func (m *Metrics) SubblockRefused(reason string) { m.subblocksRefused.WithLabelValues(reason).Inc() }
func (m *Metrics) SubblockUnverified()           { m.unverified.Inc() }
func (m *Metrics) SlotAbandoned()                { m.abandoned.Inc() }

func (m *Metrics) ChainLeftOut(chain sequence.ChainID, reason string) {
	m.leftOut.WithLabelValues(chain.String(), reason).Inc()
}

func (m *Metrics) EngineFailed(chain sequence.ChainID, fault string) {
	m.engineFaults.WithLabelValues(chain.String(), fault).Inc()
}

func (m *Metrics) BlockDelayed(chain sequence.ChainID, cause string) {
	m.delayed.WithLabelValues(chain.String(), cause).Inc()
}

func (m *Metrics) BlockRedelivered(chain sequence.ChainID) {
	m.redelivered.WithLabelValues(chain.String()).Inc()
}

func (m *Metrics) BlocksTakenBack(chain sequence.ChainID, blocks uint64) {
	m.takenBack.WithLabelValues(chain.String()).Add(float64(blocks))
}

func (m *Metrics) HistorySyncFailed(chain sequence.ChainID) {
	m.historyFailed.WithLabelValues(chain.String()).Inc()
}

func (m *Metrics) LedgerTidyFailed(chain sequence.ChainID) {
	m.tidyFailed.WithLabelValues(chain.String()).Inc()
}

func (m *Metrics) BundlesPassedOver(reason string, n int) {
	m.passedOver.WithLabelValues(reason).Add(float64(n))
}

func (m *Metrics) PoolBehind(chain sequence.ChainID) {
	m.poolBehind.WithLabelValues(chain.String()).Inc()
}

func (m *Metrics) RelayerBalance(chain sequence.ChainID, wei *big.Int) {
	f, _ := new(big.Float).Quo(new(big.Float).SetInt(wei), big.NewFloat(params.Ether)).Float64()
	m.relayer.WithLabelValues(chain.String()).Set(f)
}

func (m *Metrics) BundleRefused(reason string)     { m.bundlesRefused.WithLabelValues(reason).Inc() }
func (m *Metrics) BundleBecame(s bundlepool.State) { m.bundleEnds.WithLabelValues(string(s)).Inc() }

// Subscribers implements stream.Metrics.
func (m *Metrics) Subscribers(n int) { m.subscribers.Set(float64(n)) }

// SubscriptionEnded implements stream.Metrics.
func (m *Metrics) SubscriptionEnded(why error) {
	reason := "missed"
	if errors.Is(why, stream.ErrSlow) {
		reason = "slow"
	}
	m.subscriptionsEnded.WithLabelValues(reason).Inc()
}

// LedgerSynced implements ledger.Metrics.
func (m *Metrics) LedgerSynced(took time.Duration, err error) {
	m.synced.Observe(took.Seconds())
	if err != nil {
		m.syncFailed.Inc()
	}
}

// BundlesNotSaved: the waiting bundles could not be saved.
func (m *Metrics) BundlesNotSaved() { m.saveFailed.Inc() }

// BundleNotShared: a bundle could not be passed on to the other operators.
func (m *Metrics) BundleNotShared() { m.notShared.Inc() }

// recordHTTP counts a refused request.
func (m *Metrics) recordHTTP(code int) {
	if code >= 400 && code < 600 {
		m.httpRefused.WithLabelValues(strconv.Itoa(code)).Inc()
	}
}
