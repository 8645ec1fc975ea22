package service

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/solo"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// messageOverhead is above what a message between operators has beside a bundle.
const messageOverhead = 1 << 10

// makeRotation makes the rotation that the configuration names.
func (sh *shared) makeRotation(c *config.SharedSequencer, fatal func(error)) func(rotation.Machine) (rotation.Rotation, error) {
	if c.Rotation == config.Solo {
		return func(m rotation.Machine) (rotation.Rotation, error) {
			sh.rotation = solo.New(m, clock.SystemClock, sh.log)
			return sh.rotation, nil
		}
	}
	needed := &retention{
		log: sh.log, safe: func() (sequence.Slot, bool) { return sh.core.SafeSlot() }, slots: sh.ledger.Slots, heightOf: heightOf,
	}
	return func(m rotation.Machine) (rotation.Rotation, error) {
		a := &c.Agreement
		cfg := cometbft.Config{
			Dir: config.ConsensusDir(c.DataDir), Genesis: a.Operators, OperatorKey: a.OperatorKey, Password: a.Password, Listen: a.Listen, Peers: a.Peers,
			OnBundle: gossiped{sh.pool, c.Bundles.MaxBytes}.take,
			OnCancel: gossiped{sh.pool, c.Bundles.MaxBytes}.cancel,
			Bundles:  func() [][]byte { return waiting(sh.pool) },
			Fatal:    fatal, Retain: needed.height, Log: sh.log, Metrics: sh.metrics.Rotation(),
			Timeouts: cometbft.Timeouts{Propose: a.TimeoutPropose, Vote: a.TimeoutVote},
			// What one operator takes, the others hear of.
			Gossip: cometbft.GossipLimits{Bytes: c.Bundles.MaxBytes + messageOverhead},
		}
		if sh.page != nil {
			cfg.OnRejected = sh.page.Rejected
		}
		r, err := cometbft.New(cfg, m)
		if err != nil {
			return nil, err
		}
		sh.rotation, sh.comet = r, r
		if a.OperatorKey == nil {
			sh.log.Info("Without an operator key this node follows and never leads")
			return r, nil
		}
		sh.self = crypto.PubkeyToAddress(a.OperatorKey.PublicKey)
		if _, ok := r.Operators().Operator(sh.self); !ok {
			sh.log.Warn("The operator key is not of an operator of the set: this node follows until the set takes it in", "address", sh.self)
		}
		return r, nil
	}
}

// sharingPool tells the other operators of each bundle that is taken in or taken back.
type sharingPool struct {
	*bundlepool.Pool
	log      log.Logger
	unshared func() // a bundle could not be passed on
	others   interface {
		Broadcast(bundle []byte) error
		BroadcastCancel(cancel []byte) error
	}
}

// Add takes a bundle in. That the others do not hear of it is no fault of the sender: this
// operator's turn comes.
func (p *sharingPool) Add(b *sequence.Bundle) (common.Hash, error) {
	hash, err := p.Pool.Add(b)
	if err != nil {
		return hash, err
	}
	if err := p.others.Broadcast(b.Encode()); err != nil {
		p.unshared()
		p.log.Warn("Bundle is not passed on to the other operators", "bundle", hash, "err", err)
	}
	return hash, nil
}

// Cancel takes a bundle back. Operators that do not hear of it may still execute it.
func (p *sharingPool) Cancel(hash common.Hash, signature []byte) error {
	if s, err := p.Status(hash); err == nil && s.State == bundlepool.Cancelled {
		return nil // the others have heard of it; another signature is no news
	}
	if err := p.Pool.Cancel(hash, signature); err != nil {
		return err
	}
	if err := p.others.BroadcastCancel(append(hash.Bytes(), signature...)); err != nil {
		p.unshared()
		p.log.Warn("Cancellation is not passed on to the other operators", "bundle", hash, "err", err)
	}
	return nil
}

// gossiped takes bundles that other operators pass on.
type gossiped struct {
	pool     *bundlepool.Pool
	maxBytes int
}

// take says in the rotation's errors what a bundle that is not taken says about the peer.
func (g gossiped) take(data []byte) error {
	if len(data) > g.maxBytes {
		return fmt.Errorf("%w: a bundle of %d bytes, at most %d are taken here", cometbft.ErrNotNow, len(data), g.maxBytes)
	}
	b, err := sequence.DecodeBundle(data)
	if err != nil {
		return fmt.Errorf("%w: %w", cometbft.ErrGarbage, err)
	}
	// Also one that failed here: who sent it to another operator again is served there.
	if _, err := g.pool.Status(b.Hash()); err == nil {
		return cometbft.ErrKnown
	}
	_, err = g.pool.Add(b)
	if err == nil || never(err) {
		return err
	}
	return fmt.Errorf("%w: %w", cometbft.ErrNotNow, err)
}

// cancel takes a cancellation: the bundle's hash [32] and the signature [65].
func (g gossiped) cancel(data []byte) error {
	if len(data) != common.HashLength+crypto.SignatureLength {
		return fmt.Errorf("%w: a cancellation of %d bytes", cometbft.ErrGarbage, len(data))
	}
	hash := common.Hash(data[:common.HashLength])
	if s, err := g.pool.Status(hash); err == nil && s.State == bundlepool.Cancelled {
		return cometbft.ErrKnown
	}
	err := g.pool.Cancel(hash, data[common.HashLength:])
	if err == nil || errors.Is(err, bundlepool.ErrNotSender) {
		return err
	}
	return fmt.Errorf("%w: %w", cometbft.ErrNotNow, err)
}

// never says whether an error of the pool means that a bundle is valid at no operator and at
// no time. Limits are each operator's own, and clocks and sets of chains differ.
func never(err error) bool {
	var invalid *bundlepool.InvalidError
	if !errors.As(err, &invalid) {
		return false
	}
	for _, may := range []error{
		bundlepool.ErrExpired, bundlepool.ErrTooFarAhead, bundlepool.ErrUnknownChain,
		bundlepool.ErrTooManyItems, bundlepool.ErrTooLarge, bundlepool.ErrGas,
	} {
		if errors.Is(invalid.Kind, may) {
			return false
		}
	}
	return true
}

// A peer that connects is sent this much of what waits.
const (
	welcomeBundles = 1024
	welcomeBytes   = 4 << 20
)

// waiting are the bundles that a peer may have missed.
func waiting(pool *bundlepool.Pool) [][]byte {
	var out [][]byte
	size := 0
	for _, e := range pool.Pending(pool.Slot()) {
		if size += e.Size; len(out) == welcomeBundles || size > welcomeBytes {
			break
		}
		out = append(out, e.Bundle.Encode())
	}
	return out
}

// agreement answers as the RPC wants it.
type agreement struct {
	sh *shared
	// due is when the next subblock is proposed; later ones follow at this interval.
	due   func() time.Time
	every time.Duration
	now   func() time.Time
}

var _ rpc.Agreement = (*agreement)(nil)

func (a *agreement) LeaderSchedule(n int) []rpc.Turn {
	turns := a.sh.rotation.Schedule(n)
	out := make([]rpc.Turn, len(turns))
	due := a.due()
	// A subblock that is late by more than the time between two is not on time.
	known := !due.IsZero() && a.now().Sub(due) < a.every
	for i, t := range turns {
		out[i] = rpc.Turn{Height: hexutil.Uint64(t.Height), Leader: t.Leader}
		if known {
			at := hexutil.Uint64(due.Add(time.Duration(i) * a.every).UnixMilli())
			out[i].Expected = &at
		}
	}
	return out
}

// errAlone: the rotation is solo.
var errAlone = fmt.Errorf("%w: this operator is alone (rotation %s)", rpc.ErrUnavailable, config.Solo)

func (a *agreement) Operators() (*rpc.Operators, error) {
	r := a.sh.comet
	if r == nil {
		return nil, errAlone
	}
	out := rpc.NewOperators(r.Operators())
	st := r.Status()
	out.Height, out.Counted = hexutil.Uint64(st.Height), hexutil.Uint64(st.Heights)
	delivers := map[common.Address]cometbft.OperatorStatus{}
	for _, o := range st.Operators {
		delivers[o.Address] = o
	}
	for i := range out.Operators {
		o := &out.Operators[i]
		d := delivers[o.Address]
		o.Missed, o.Shortened = hexutil.Uint64(d.Missed), d.Shortened
		o.Led, o.Passed = hexutil.Uint64(d.Tally.Led), hexutil.Uint64(d.Tally.Passed)
		o.Voted, o.LastVoted = hexutil.Uint64(d.Tally.Voted), hexutil.Uint64(d.Tally.Last)
	}
	return out, nil
}

func (a *agreement) Evidence() (*rpc.Evidence, error) {
	if a.sh.comet == nil {
		return nil, errAlone
	}
	return rpc.NewEvidence(a.sh.comet.Evidence()), nil
}

func (a *agreement) SubmitChange(c *operators.SignedChange) error {
	if a.sh.comet == nil {
		return errAlone
	}
	if err := a.sh.comet.SubmitChange(c); err != nil && !errors.Is(err, cometbft.ErrKnown) {
		return err
	}
	a.sh.log.Info("Took an approval of a change of the set", "change", &c.Change, "id", c.ID())
	return nil
}

// status is how this operator takes part, nil if it is alone.
func (sh *shared) agreementStatus() *rpc.AgreementStatus {
	if sh.comet == nil {
		return nil
	}
	st := sh.comet.Status()
	connected := make([]string, len(st.Peers))
	for i, p := range st.Peers {
		connected[i] = p.ID
	}
	slices.Sort(connected)
	return &rpc.AgreementStatus{
		NodeID: st.NodeID, Operator: st.Operator, Power: hexutil.Uint64(st.Power), Height: hexutil.Uint64(st.Height),
		Durable: hexutil.Uint64(st.Durable), Running: st.Running, Syncing: st.Syncing, Peers: hexutil.Uint64(len(st.Peers)),
		Connected: connected, LastLeader: st.Leader, LastRound: hexutil.Uint64(st.Round),
	}
}

// leads says whether this operator proposes the next subblock.
func (sh *shared) leads() bool {
	if sh.comet == nil {
		return true
	}
	turns := sh.comet.Schedule(1)
	return sh.self != (common.Address{}) && len(turns) > 0 && turns[0].Leader == sh.self
}
