package bench

import (
	"slices"
	"time"
)

// Report is what a run measured: build/reports/bench.json, of which docs/benchmarks.md is made.
// A part that was not run is left out.
type Report struct {
	When     time.Time `json:"when"`
	Command  string    `json:"command"`
	Quick    bool      `json:"quick"`
	Minutes  float64   `json:"minutes"` // the whole run
	Machine  Machine   `json:"machine"`
	Versions Versions  `json:"versions"`

	Saturation []Saturation `json:"saturation,omitempty"`
	Overhead   *Overhead    `json:"overhead,omitempty"`
	CrossChain *CrossChain  `json:"crossChain,omitempty"`
	Scale      []Scale      `json:"scale,omitempty"`
	Operators  []Operators  `json:"operators,omitempty"`
	Follower   []Follower   `json:"follower,omitempty"`
	BigSlot    *BigSlot     `json:"bigSlot,omitempty"`
	CatchUp    *CatchUp     `json:"catchUp,omitempty"`
}

// Machine is what all of it ran on, load generator and L1 too.
type Machine struct {
	CPU      string  `json:"cpu"`
	CPUs     int     `json:"cpus"`
	MemoryGB float64 `json:"memoryGB"`
	Kernel   string  `json:"kernel"`
	Go       string  `json:"go"`
	// Load is the system's load average of the last minute when the run began: figures of a
	// machine that had other work are not those of the software.
	Load float64 `json:"load"`
}

// Versions are those of what was measured.
type Versions struct {
	Commit   string `json:"commit"` // ours; empty if it is not known
	Optimism string `json:"optimism"`
	OpGeth   string `json:"opGeth"`
	CometBFT string `json:"cometbft"`
}

// Values are the results of several rounds, in their order.
type Values []float64

// Median is the middle one, or the mean of the two in the middle; 0 of none.
func (v Values) Median() float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Pair is one figure of stock and of ours, which is one operator alone: with engines embedded in its
// process, and split, with engines in processes of their own as stock's are. Rounds are interleaved,
// and begin with another of them each time.
type Pair struct {
	Stock Values `json:"stock"`
	Ours  Values `json:"ours"`
	Split Values `json:"split,omitempty"`
	// Ratio is ours to stock, of the medians. Absent where stock has none, or one of them is negative.
	Ratio      *float64 `json:"ratio,omitempty"`
	RatioSplit *float64 `json:"ratioSplit,omitempty"`
}

// Saturation is a workload that always has more to offer than two chains take: how much is
// sealed, and at what cost.
type Saturation struct {
	Workload string `json:"workload"` // transfers, tokens or storage
	Chains   int    `json:"chains"`
	GasLimit uint64 `json:"gasLimit"` // of a block, of each chain
	Seconds  int    `json:"seconds"`  // of a round
	// GasPerSecond is that of all chains together; GasPerCPU the gas for a second of processor
	// time of sequencer and engines; CPUPerMgas its inverse, in seconds for a million gas;
	// Missed the slots of a chain that have no block at the end of a round; Fullness the gas used
	// of the gas limit, 0 to 1, and Footprint the DA footprint of it: the block's data weighed as gas,
	// which has the same limit (Jovian).
	GasPerSecond Pair `json:"gasPerSecond"`
	GasPerCPU    Pair `json:"gasPerCPUSecond"`
	CPUPerMgas   Pair `json:"cpuSecondsPerMgas"`
	Missed       Pair `json:"slotsMissed"`
	Fullness     Pair `json:"fullness"`
	Footprint    Pair `json:"footprint"`
	Transactions Pair `json:"transactionsPerSecond"`
	// Waiting is the least that was seen to wait in a pool, in blocks' worth: below 1 the chains may
	// have taken more than was offered.
	Waiting Pair `json:"leastWaitingBlocks"`
}

// Overhead is what is paid when nothing crosses chains: a few transfers a second on each.
type Overhead struct {
	Chains  int `json:"chains"`
	Rate    int `json:"ratePerChain"` // transfers a second
	Seconds int `json:"seconds"`      // of a round
	// LatencyP50 and P99: milliseconds from eth_sendRawTransaction until the transaction's block is the
	// unsafe head. JitterP50 and P99: milliseconds by which the time between two heads differs from the
	// block time. BehindP50: milliseconds from a block's timestamp until it is the head.
	LatencyP50 Pair `json:"latencyP50"`
	LatencyP99 Pair `json:"latencyP99"`
	JitterP50  Pair `json:"jitterP50"`
	JitterP99  Pair `json:"jitterP99"`
	BehindP50  Pair `json:"behindP50"`
	CPU        Pair `json:"cpuMsPerBlock"` // processor time of sequencer and engines, for a block
	Memory     Pair `json:"memoryMB"`      // resident, of the same processes, at the end
}

// CrossChain is what crosses chains.
type CrossChain struct {
	Bundles  []Bundles `json:"bundles"`
	Conflict *Conflict `json:"conflict,omitempty"`
	Messages *Messages `json:"messages,omitempty"`
}

// Bundles each are a transfer on every chain, of 1500 senders who send the next one when the last one
// is in blocks.
type Bundles struct {
	Chains    int    `json:"chains"`
	Seconds   int    `json:"seconds"`
	PerSecond Values `json:"perSecond"` // executed
	Failed    Values `json:"failed"`
	Missed    Values `json:"slotsMissed"`
	CPU       Values `json:"cpuMsPerBundle"`
}

// Conflict is what becomes of bundles of which most want the same thing: groups of bundles with the same
// nonce on one of the chains, of which one can be executed.
type Conflict struct {
	Group     int    `json:"group"` // bundles that exclude each other
	Sent      Values `json:"sent"`
	Executed  Values `json:"executed"`
	AbortRate Values `json:"abortRate"` // of what was sent, 0 to 1
	// Half is how often a transaction of a bundle that was not executed is in a block all the same: 0.
	Half Values `json:"half"`
}

// Messages are sent by plain transactions on one chain to another.
type Messages struct {
	Seconds int `json:"seconds"`
	// PerSecond is how many were seen executed in the time in which 20 a second were sent; Slots how many slots lie between the block that initiates a
	// message and the one that executes it, by median; SlotsMax the most; LatencyP50 milliseconds from sending
	// to the head that has executed it. Stock has a relayer that watches heads and sends at once.
	PerSecond  Pair `json:"perSecond"`
	Slots      Pair `json:"slotsP50"`
	SlotsMax   Pair `json:"slotsMax"`
	LatencyP50 Pair `json:"latencyP50"`
}

// Scale is a set of so many chains, sequenced by one operator with embedded engines.
type Scale struct {
	Chains  int     `json:"chains"`
	Busy    int     `json:"busy"`         // chains with traffic
	Rate    int     `json:"ratePerChain"` // transfers a second on those
	Seconds int     `json:"seconds"`
	Slots   int     `json:"slots"`
	Missed  int     `json:"slotsMissed"` // blocks of all chains that were not there at the end, one slot under way left out
	Late    float64 `json:"behindP99"`   // ms from a slot's timestamp to its blocks being heads
	// CPU is milliseconds of processor time for a slot, CPUPerChain that for one chain's block, Memory
	// resident MB.
	CPU         float64            `json:"cpuMsPerSlot"`
	CPUPerChain float64            `json:"cpuMsPerChainSlot"`
	Memory      float64            `json:"memoryMB"`
	Stages      map[string]float64 `json:"stages"` // mean ms for a slot, by stage
}

// Operators is a set of so many operators that agree on subblocks of one size over links of one delay.
type Operators struct {
	Operators   int     `json:"operators"`
	Bytes       int     `json:"bytes"`
	OneWayDelay float64 `json:"oneWayDelay"` // ms
	Heights     int     `json:"heights"`
	P50         float64 `json:"commitP50"` // ms from Propose to the commit of more than two thirds
	P99         float64 `json:"commitP99"`
	// Sent is bytes that an operator sends for a subblock, by mean over all, SentMax of the one that sends most.
	Sent    float64 `json:"sentBytes"`
	SentMax float64 `json:"sentBytesMax"`
	CPU     float64 `json:"cpuMsPerOperator"` // for a subblock, of the whole test with its proxies
}

// Follower is what verifying a slot costs against building it.
type Follower struct {
	Workload     string  `json:"workload"`
	Transactions int     `json:"transactions"` // of the slot
	Known        bool    `json:"known"`        // the follower's pool has them already, by gossip
	Build        Values  `json:"buildMs"`      // open, fill, seal, insert
	Verify       Values  `json:"verifyMs"`     // decode, open, execute, seal, insert
	BuildCPU     Values  `json:"buildCPUMs"`
	VerifyCPU    Values  `json:"verifyCPUMs"`
	Stock        Values  `json:"stockMs"` // engine_newPayload of the same block, without RPC
	StockCPU     Values  `json:"stockCPUMs"`
	Ratio        float64 `json:"ratio"` // of the medians of time
	RatioCPU     float64 `json:"ratioCPU"`
}

// BigSlot is a slot of so many bytes.
type BigSlot struct {
	Bytes     int     `json:"bytes"`
	Operators int     `json:"operators"`
	Delay     float64 `json:"oneWayDelay"` // ms
	Build     Values  `json:"buildMs"`
	Verify    Values  `json:"verifyMs"`
	Encode    Values  `json:"encodeMs"`
	CommitP50 float64 `json:"commitP50"` // ms
	CommitP99 float64 `json:"commitP99"`
}

// CatchUp is an operator that was away for so many slots.
type CatchUp struct {
	Slots          int     `json:"slots"`
	Chains         int     `json:"chains"`
	Rate           int     `json:"ratePerChain"`
	Seconds        float64 `json:"seconds"` // until it is where the others are
	SlotsPerSecond float64 `json:"slotsPerSecond"`
	// Hour is how long an hour of slots of 1 s takes at that speed, in seconds, while the others go on.
	Hour float64 `json:"hourSeconds"`
}
