package main

import (
	"slices"
	"time"
)

// The types are those of package bench (op-e2e/bench/report.go, where their units are stated),
// which is of a module that this one stays apart from. A test holds the two together.

type Report struct {
	When     time.Time `json:"when"`
	Command  string    `json:"command"`
	Quick    bool      `json:"quick"`
	Minutes  float64   `json:"minutes"`
	Machine  Machine   `json:"machine"`
	Versions Versions  `json:"versions"`

	Saturation []Saturation `json:"saturation"`
	Overhead   *Overhead    `json:"overhead"`
	CrossChain *CrossChain  `json:"crossChain"`
	Scale      []Scale      `json:"scale"`
	Operators  []Operators  `json:"operators"`
	Follower   []Follower   `json:"follower"`
	BigSlot    *BigSlot     `json:"bigSlot"`
	CatchUp    *CatchUp     `json:"catchUp"`
}

type Machine struct {
	CPU      string  `json:"cpu"`
	CPUs     int     `json:"cpus"`
	MemoryGB float64 `json:"memoryGB"`
	Kernel   string  `json:"kernel"`
	Go       string  `json:"go"`
	Load     float64 `json:"load"`
}

type Versions struct {
	Commit   string `json:"commit"`
	Optimism string `json:"optimism"`
	OpGeth   string `json:"opGeth"`
	CometBFT string `json:"cometbft"`
}

type Saturation struct {
	Workload     string `json:"workload"`
	Chains       int    `json:"chains"`
	GasLimit     uint64 `json:"gasLimit"`
	Seconds      int    `json:"seconds"`
	GasPerSecond Pair   `json:"gasPerSecond"`
	GasPerCPU    Pair   `json:"gasPerCPUSecond"`
	CPUPerMgas   Pair   `json:"cpuSecondsPerMgas"`
	Missed       Pair   `json:"slotsMissed"`
	Fullness     Pair   `json:"fullness"`
	Footprint    Pair   `json:"footprint"`
	Transactions Pair   `json:"transactionsPerSecond"`
	Waiting      Pair   `json:"leastWaitingBlocks"`
}

type Overhead struct {
	Chains     int  `json:"chains"`
	Rate       int  `json:"ratePerChain"`
	Seconds    int  `json:"seconds"`
	LatencyP50 Pair `json:"latencyP50"`
	LatencyP99 Pair `json:"latencyP99"`
	JitterP50  Pair `json:"jitterP50"`
	JitterP99  Pair `json:"jitterP99"`
	BehindP50  Pair `json:"behindP50"`
	CPU        Pair `json:"cpuMsPerBlock"`
	Memory     Pair `json:"memoryMB"`
}

type CrossChain struct {
	Bundles  []Bundles `json:"bundles"`
	Conflict *Conflict `json:"conflict"`
	Messages *Messages `json:"messages"`
}

type Bundles struct {
	Chains    int    `json:"chains"`
	Seconds   int    `json:"seconds"`
	PerSecond Values `json:"perSecond"`
	Failed    Values `json:"failed"`
	Missed    Values `json:"slotsMissed"`
	CPU       Values `json:"cpuMsPerBundle"`
}

type Conflict struct {
	Group     int    `json:"group"`
	Sent      Values `json:"sent"`
	Executed  Values `json:"executed"`
	AbortRate Values `json:"abortRate"`
	Half      Values `json:"half"`
}

type Messages struct {
	Seconds    int  `json:"seconds"`
	PerSecond  Pair `json:"perSecond"`
	Slots      Pair `json:"slotsP50"`
	SlotsMax   Pair `json:"slotsMax"`
	LatencyP50 Pair `json:"latencyP50"`
}

type Scale struct {
	Chains      int                `json:"chains"`
	Busy        int                `json:"busy"`
	Rate        int                `json:"ratePerChain"`
	Seconds     int                `json:"seconds"`
	Slots       int                `json:"slots"`
	Missed      int                `json:"slotsMissed"`
	Late        float64            `json:"behindP99"`
	CPU         float64            `json:"cpuMsPerSlot"`
	CPUPerChain float64            `json:"cpuMsPerChainSlot"`
	Memory      float64            `json:"memoryMB"`
	Stages      map[string]float64 `json:"stages"`
}

type Operators struct {
	Operators   int     `json:"operators"`
	Bytes       int     `json:"bytes"`
	OneWayDelay float64 `json:"oneWayDelay"`
	Heights     int     `json:"heights"`
	P50         float64 `json:"commitP50"`
	P99         float64 `json:"commitP99"`
	Sent        float64 `json:"sentBytes"`
	SentMax     float64 `json:"sentBytesMax"`
	CPU         float64 `json:"cpuMsPerOperator"`
}

type Follower struct {
	Workload     string `json:"workload"`
	Transactions int    `json:"transactions"`
	Known        bool   `json:"known"`
	Build        Values `json:"buildMs"`
	Verify       Values `json:"verifyMs"`
	BuildCPU     Values `json:"buildCPUMs"`
	VerifyCPU    Values `json:"verifyCPUMs"`
	Stock        Values `json:"stockMs"`
	StockCPU     Values `json:"stockCPUMs"`
}

type BigSlot struct {
	Bytes     int     `json:"bytes"`
	Operators int     `json:"operators"`
	Delay     float64 `json:"oneWayDelay"`
	Build     Values  `json:"buildMs"`
	Verify    Values  `json:"verifyMs"`
	Encode    Values  `json:"encodeMs"`
	CommitP50 float64 `json:"commitP50"`
	CommitP99 float64 `json:"commitP99"`
}

type CatchUp struct {
	Slots          int     `json:"slots"`
	Chains         int     `json:"chains"`
	Rate           int     `json:"ratePerChain"`
	Seconds        float64 `json:"seconds"`
	SlotsPerSecond float64 `json:"slotsPerSecond"`
	Hour           float64 `json:"hourSeconds"`
}

// Values are the results of several rounds.
type Values []float64

// median is the middle one, or the mean of the two in the middle; 0 of none.
func (v Values) median() float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// in is the same in another unit, which is per of the old.
func (v Values) in(per float64) Values {
	s := make(Values, len(v))
	for i := range v {
		s[i] = v[i] / per
	}
	return s
}

// Pair is one figure of stock and of ours, with engines embedded and split off.
type Pair struct {
	Stock Values `json:"stock"`
	Ours  Values `json:"ours"`
	Split Values `json:"split"`
}

func (p Pair) in(per float64) Pair { return Pair{p.Stock.in(per), p.Ours.in(per), p.Split.in(per)} }

func (p Pair) ratio() (float64, bool) { return ratio(p.Ours, p.Stock) }

// ratio is that of the medians. There is none to nothing, or to zero, or where one is negative: a
// head that is told before its time.
func ratio(of, to Values) (float64, bool) {
	if len(of) == 0 || len(to) == 0 || to.median() <= 0 || of.median() < 0 {
		return 0, false
	}
	return of.median() / to.median(), true
}
