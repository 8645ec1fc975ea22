// Package rpc serves the sharedseq_* namespace and has a client for it.
//
// Quantities and data are encoded as in the Ethereum JSON-RPC API: 0x-prefixed hex,
// quantities without leading zeros. Slots are L2 timestamps, in seconds.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Namespace is the prefix of the methods.
const Namespace = "sharedseq"

// Pool takes the bundles in. bundlepool.Pool is one.
type Pool interface {
	// Slot is the slot built now.
	Slot() sequence.Slot
	// Check says whether Add would take the bundle, room aside. Error: *bundlepool.InvalidError.
	Check(*sequence.Bundle) (*bundlepool.Entry, error)
	// Add is idempotent. Errors: as Check, and those of bundlepool.Pool.Add.
	Add(*sequence.Bundle) (common.Hash, error)
	// Cancel takes a pending bundle back. Errors: those of bundlepool.Pool.Cancel.
	Cancel(hash common.Hash, signature []byte) error
	// Get finds a bundle in whatever state.
	Get(common.Hash) (*bundlepool.Entry, bool)
	// Status fails with bundlepool.ErrUnknownBundle.
	Status(common.Hash) (bundlepool.Status, error)
}

// Simulator runs a bundle on top of the chains as they are and leaves no trace.
type Simulator interface {
	// Simulate is called with bundles that passed Pool.Check. That the bundle fails is
	// in the result, not an error. It has to stop when ctx ends. Error: ErrUnavailable.
	Simulate(ctx context.Context, b *sequence.Bundle) (*bundlepool.BundleResult, error)
}

// StatusSource knows how the sequencer is doing.
type StatusSource interface {
	Status(ctx context.Context) (*Status, error)
}

// Agreement knows the operators and their turns.
type Agreement interface {
	// LeaderSchedule lists the next n turns.
	LeaderSchedule(n int) []Turn
	// The others fail with ErrUnavailable if there is one operator, which is alone.
	Operators() (*Operators, error)
	Evidence() (*Evidence, error)
	// SubmitChange passes an operator's approval of a change on to all operators. It is
	// idempotent. Errors: those of operators.Set.Check.
	SubmitChange(c *operators.SignedChange) error
}

// ErrUnavailable is what a Simulator, StatusSource or Agreement wraps when it cannot answer now,
// for example because a chain of the bundle is not ready.
var ErrUnavailable = errors.New("not available now")

// Config bounds what the API does for its callers. The size of a request is the server's
// to limit, the size of a bundle the pool's. Zero fields take the values of DefaultConfig.
type Config struct {
	// SlotSeconds is the time between two slots. It has no default.
	SlotSeconds uint64
	// DefaultSlots is for how many slots a bundle may wait if its sender does not say.
	DefaultSlots uint64
	// MaxSimulations run at a time; one more is refused as busy.
	MaxSimulations int
	// SimulationTime is when a simulation is given up.
	SimulationTime time.Duration
	// Rate is what one IP address may ask for in a second: requests, of which dearer ones count
	// more, see admit; and Burst, how much of it at once. No limit without a rate, nor for
	// loopback addresses.
	Rate  float64
	Burst int
	Now   func() time.Time // nil: time.Now
	// Chains are those of the set.
	Chains []sequence.ChainID
}

// DefaultConfig is sized for chains with 1 s blocks.
func DefaultConfig() Config {
	return Config{SlotSeconds: 1, DefaultSlots: 25, MaxSimulations: 4, SimulationTime: 2 * time.Second}
}

// API is the sharedseq_* namespace: each exported method is one of its methods. For
// every error code see the Code… constants.
type API struct {
	cfg       Config
	pool      Pool
	simulator Simulator
	status    StatusSource
	agreement Agreement
	feed      Feed
	limits    *limits
	busy      chan struct{} // holds a token for each simulation that runs
}

// NewAPI makes the namespace over its parts.
func NewAPI(cfg Config, pool Pool, simulator Simulator, status StatusSource, agreement Agreement, feed Feed) (*API, error) {
	def := DefaultConfig()
	if cfg.SlotSeconds == 0 {
		return nil, errors.New("the time between slots is 0 s, expected the block time of the chains")
	}
	if cfg.DefaultSlots == 0 {
		cfg.DefaultSlots = def.DefaultSlots
	}
	if cfg.MaxSimulations == 0 {
		cfg.MaxSimulations = def.MaxSimulations
	}
	if cfg.MaxSimulations < 0 {
		return nil, fmt.Errorf("%d simulations at a time, expected 1 or more", cfg.MaxSimulations)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.SimulationTime == 0 {
		cfg.SimulationTime = def.SimulationTime
	}
	return &API{
		cfg: cfg, pool: pool, simulator: simulator, status: status, agreement: agreement, feed: feed,
		limits: newLimits(cfg.Rate, cfg.Burst), busy: make(chan struct{}, cfg.MaxSimulations),
	}, nil
}

// Register is what an RPC server takes to serve the API.
func (a *API) Register() []gethrpc.API {
	return []gethrpc.API{{Namespace: Namespace, Service: &methods{a}}, {Namespace: Namespace, Service: &subscriptions{a}}}
}

// methods keeps what is exported on API for Go out of the RPC namespace.
type methods struct{ api *API }

// SendBundle is sharedseq_sendBundle: it takes a bundle in, to be executed on all its
// chains in one slot, in order, or on none. It is idempotent.
//
//	params: [{
//	  "items": [ {"chainId": "0x385", "tx": "0x02f8…"}, {"chainId": "0x386", "relay": true}, … ],
//	  "expirySlot": "0x65f0c1a0"   // last slot it may be executed in, or
//	  "maxSlots": "0x5",           // how many slots it may wait for, the current one included
//	  "firstSlot": "0x65f0c190",   // optional: first slot it may be executed in
//	  "replacementId": "0x…", "replacementSignature": "0x…",   // optional: it takes the place of the bundle that waits under it
//	  "conditions": [{"chainId": "0x385", "blockNumberMax": "0x10", "knownAccounts": {…}}]   // optional
//	}]
//	result: {"bundleHash": "0x…", "expirySlot": "0x65f0c1a0"}
//
// An item is a signed transaction (EIP-2718 envelope), with "mayRevert": true one that the
// bundle goes on after if it reverts; or a relay step, which executes on its chain the L2ToL2
// messages that the items before it sent there.
func (m *methods) SendBundle(ctx context.Context, args BundleArgs) (*SendResult, error) {
	if err := m.api.admit(ctx, costSend); err != nil {
		return nil, err
	}
	b, err := args.bundle(m.api.pool.Slot(), &m.api.cfg)
	if err != nil {
		return nil, err
	}
	hash, err := m.api.pool.Add(b)
	if err != nil {
		return nil, toRPC(err)
	}
	return &SendResult{BundleHash: hash, ExpirySlot: hexutil.Uint64(b.Expiry)}, nil
}

// CancelBundle is sharedseq_cancelBundle: it takes a bundle back that waits. Operators that
// lead before they hear of it may still execute it: the status tells.
//
//	params: [{"bundleHash": "0x…", "signature": "0x…"}]   // EIP-191, over "Cancel bundle 0x…"
//	result: BundleStatus
func (m *methods) CancelBundle(ctx context.Context, args CancelArgs) (*BundleStatus, error) {
	if err := m.api.admit(ctx, costSend); err != nil {
		return nil, err
	}
	if err := m.api.pool.Cancel(args.BundleHash, args.Signature); err != nil {
		return nil, toRPC(err)
	}
	return m.statusOf(args.BundleHash)
}

// GetBundle is sharedseq_getBundle: a bundle as it was sent.
//
//	params: ["0x…"]
//	result: Bundle
func (m *methods) GetBundle(ctx context.Context, hash common.Hash) (*Bundle, error) {
	if err := m.api.admit(ctx, costRead); err != nil {
		return nil, err
	}
	e, ok := m.api.pool.Get(hash)
	if !ok {
		return nil, toRPC(fmt.Errorf("%w %s", bundlepool.ErrUnknownBundle, hash))
	}
	return newBundle(e), nil
}

// BundleStatus is sharedseq_bundleStatus: what became of a bundle.
//
//	params: ["0x…"]
//	result: BundleStatus
func (m *methods) BundleStatus(ctx context.Context, hash common.Hash) (*BundleStatus, error) {
	if err := m.api.admit(ctx, costRead); err != nil {
		return nil, err
	}
	return m.statusOf(hash)
}

func (m *methods) statusOf(hash common.Hash) (*BundleStatus, error) {
	s, err := m.api.pool.Status(hash)
	if err != nil {
		return nil, toRPC(err)
	}
	return newBundleStatus(&s), nil
}

// SimulateBundle is sharedseq_simulateBundle: what executing a bundle would come to on
// the chains as they are now. Nothing of it stays.
//
//	params: as sharedseq_sendBundle
//	result: Simulation
func (m *methods) SimulateBundle(ctx context.Context, args BundleArgs) (*Simulation, error) {
	if err := m.api.admit(ctx, costSimulate); err != nil {
		return nil, err
	}
	b, err := args.bundle(m.api.pool.Slot(), &m.api.cfg)
	if err != nil {
		return nil, err
	}
	// Before the check, which recovers signatures.
	select {
	case m.api.busy <- struct{}{}:
		defer func() { <-m.api.busy }()
	default:
		return nil, &Error{Code: CodeBusy, Message: fmt.Sprintf("busy: %d simulations are running; try again", cap(m.api.busy))}
	}
	if _, err := m.api.pool.Check(b); err != nil {
		return nil, toRPC(err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.api.cfg.SimulationTime)
	defer cancel()
	res, err := m.api.simulator.Simulate(ctx, b)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, &Error{Code: CodeBusy, Message: fmt.Sprintf("simulation took longer than %s", m.api.cfg.SimulationTime)}
		}
		return nil, toRPC(err)
	}
	return newSimulation(res), nil
}

// Status is sharedseq_status: how the sequencer is doing.
//
//	params: []
//	result: Status
func (m *methods) Status(ctx context.Context) (*Status, error) {
	if err := m.api.admit(ctx, costRead); err != nil {
		return nil, err
	}
	s, err := m.api.status.Status(ctx)
	if err != nil {
		return nil, toRPC(err)
	}
	return s, nil
}

// MaxTurns is how many turns sharedseq_leaderSchedule lists at most.
const MaxTurns = 256

// LeaderSchedule is sharedseq_leaderSchedule: who proposes the next subblocks, the one that is
// agreed on now first. Later turns change when operators come, go, or do not deliver.
//
//	params: ["0x8"]           // how many turns, 1 to 256
//	result: [Turn, …]
func (m *methods) LeaderSchedule(ctx context.Context, n hexutil.Uint64) ([]Turn, error) {
	if err := m.api.admit(ctx, costRead); err != nil {
		return nil, err
	}
	if n == 0 || n > MaxTurns {
		return nil, invalidParams("%d turns, expected 1 to %d", n, MaxTurns)
	}
	return m.api.agreement.LeaderSchedule(int(n)), nil
}

// Operators is sharedseq_operators: the set, and the changes of it that wait for approval.
//
//	params: []
//	result: Operators
func (m *methods) Operators(ctx context.Context) (*Operators, error) {
	if err := m.api.admit(ctx, costRead); err != nil {
		return nil, err
	}
	o, err := m.api.agreement.Operators()
	if err != nil {
		return nil, toRPC(err)
	}
	return o, nil
}

// Evidence is sharedseq_evidence: what this operator has seen that proves others to be
// dishonest, oldest first.
//
//	params: []
//	result: Evidence
func (m *methods) Evidence(ctx context.Context) (*Evidence, error) {
	if err := m.api.admit(ctx, costRead); err != nil {
		return nil, err
	}
	e, err := m.api.agreement.Evidence()
	if err != nil {
		return nil, toRPC(err)
	}
	return e, nil
}

// SubmitChange is sharedseq_submitChange: it takes an operator's approval of a change of the
// set, which counts once it is agreed on. It is idempotent.
//
//	params: ["0x…"]           // operators.SignedChange, RLP
//	result: "0x…"             // the change's ID
func (m *methods) SubmitChange(ctx context.Context, data hexutil.Bytes) (*common.Hash, error) {
	if err := m.api.admit(ctx, costSend); err != nil {
		return nil, err
	}
	c, err := operators.DecodeSignedChange(data)
	if err != nil {
		return nil, toRPC(err)
	}
	if err := m.api.agreement.SubmitChange(c); err != nil {
		return nil, toRPC(err)
	}
	id := c.ID()
	return &id, nil
}
