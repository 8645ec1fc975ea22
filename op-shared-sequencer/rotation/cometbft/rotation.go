// Package cometbft is the rotation of a set of operators that need not trust each other:
// CometBFT, in this process, agrees on the subblocks. A height is a subblock. The leader of a
// height proposes it signed, the others verify it, and what more than two thirds of the power
// voted for is committed.
//
// Nothing here executes: the machine does. What was agreed is a function of blocks alone, so
// that a node that starts again gives the heights behind the last slot in its ledger to the
// machine once more and comes to the same state.
package cometbft

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
)

// watchEvery is how often the watchdog looks.
const watchEvery = 250 * time.Millisecond

// Rotation drives a machine by what the set agrees on. All methods are safe for
// concurrent use.
type Rotation struct {
	cfg     Config
	comet   *cmtcfg.Config
	genesis *types.GenesisDoc
	nodeKey *p2p.NodeKey
	votes   *privval.FilePV
	app     *app
	gossip  *gossip
	stores  *stores
	// greeting tells peers whose node this is; nil for a follower.
	greeting []byte

	turnCtx     context.Context
	stopTurns   context.CancelFunc
	stopCommits context.CancelFunc
	reported    sync.Once
	node        atomic.Pointer[node.Node]
	done        chan struct{} // closed when everything has ended

	mu      sync.Mutex
	started bool
}

var _ rotation.Rotation = (*Rotation)(nil)

// New opens the consensus data in cfg.Dir, at the place where the machine's ledger ends.
// Stop closes them, also when Start was never called.
func New(cfg Config, m rotation.Machine) (*Rotation, error) {
	cfg.setDefaults()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	r := &Rotation{cfg: cfg, comet: cfg.cometConfig(), done: make(chan struct{})}
	var err error
	if r.genesis, err = genesisDoc(cfg.Genesis, !cfg.NoReadiness); err != nil {
		return nil, err
	}
	if r.nodeKey, r.votes, err = loadKeys(cfg.Dir, Protection{cfg.Password, keyfile.Standard}); err != nil {
		return nil, err
	}
	s := genesisState(cfg.Genesis)
	if agreed := m.Agreed(); agreed != nil {
		if s, _, err = decodeAgreement(agreed); err != nil {
			return nil, err
		}
		if s.set.ID() != cfg.Genesis.ID() {
			return nil, fmt.Errorf("consensus: the ledger is of set %s, the genesis is of set %s", s.set.ID(), cfg.Genesis.ID())
		}
	}
	turnCtx, stopTurns := context.WithCancel(context.Background())
	commitCtx, stopCommits := context.WithCancel(context.Background())
	r.turnCtx, r.stopTurns, r.stopCommits = turnCtx, stopTurns, stopCommits
	a := &app{
		cfg: &r.cfg, comet: r.comet, machine: m, setID: cfg.Genesis.ID(), self: voter(r.votes.Key.Address), log: cfg.Log,
		fatal: r.fail, phase: r.phase, turnCtx: turnCtx, commitCtx: commitCtx, watch: watch{clock: cfg.Clock},
		state: s, changes: newChangePool(s.set),
	}
	a.durable.Store(s.height)
	a.present = newPresent(a.setID)
	r.app = a
	fail := func(err error) (*Rotation, error) { return nil, errors.Join(err, r.close()) }
	if a.allowed, err = newPeerList(cfg.Peers); err != nil {
		return fail(err)
	}
	if r.gossip, err = newGossip(&r.cfg, r.handle, r.welcome); err != nil {
		return fail(err)
	}
	r.gossip.greeted = func(p p2p.Peer, signature []byte) error { return a.present.greeted(p, signature, a.current().set) }
	r.gossip.left = a.present.left
	// The leader that is gone may have been about to propose: whoever is next begins now.
	a.present.lost = func() { s := a.current(); a.mayLead(s, s.height+1) }
	if a.pool, err = operators.NewEvidencePool(cfg.path(evidenceFile), a.setID, operators.EvidenceLimits{}); err != nil {
		return fail(err)
	}
	if r.stores, err = openStores(cfg.Dir, cfg.Clock); err != nil {
		return fail(err)
	}
	a.stores = r.stores
	if err := r.checkPlace(s.height); err != nil {
		return fail(err)
	}
	if cfg.OperatorKey != nil {
		if err := r.openSigner(s); err != nil {
			return fail(err)
		}
	}
	if err := m.SetChains(s.set.Chains()); err != nil {
		cfg.Log.Error("Chains of the set that this operator does not serve", "err", err)
	}
	return r, nil
}

// checkPlace holds the ledger against the blocks in the consensus directory.
func (r *Rotation) checkPlace(agreed uint64) error {
	height, base := uint64(r.stores.blocks.Height()), uint64(r.stores.blocks.Base())
	switch {
	case agreed > height:
		return fmt.Errorf("consensus: the ledger ends with height %d, the blocks in %s with %d: they were lost, or are of another node. "+
			"Restore them, or give this node the ledger that belongs to them", agreed, r.cfg.Dir, height)
	case base > agreed+1:
		return fmt.Errorf("consensus: the ledger ends with height %d, the blocks in %s begin with %d: "+
			"the ones between are needed. Restore the ledger that belongs to them", agreed, r.cfg.Dir, base)
	}
	return nil
}

func (r *Rotation) openSigner(s *state) error {
	a, address := r.app, crypto.PubkeyToAddress(r.cfg.OperatorKey.PublicKey)
	signer, err := operators.OpenSigner(r.cfg.path(signerStateFile), r.cfg.OperatorKey, a.setID)
	if err != nil {
		return err
	}
	a.signer = signer
	digest := greetingDigest(a.setID, r.nodeKey.ID())
	signature, err := crypto.Sign(digest[:], r.cfg.OperatorKey)
	if err != nil {
		return fmt.Errorf("consensus: signing the greeting: %w", err)
	}
	r.greeting = append([]byte{kindGreeting}, signature...)
	if o, ok := s.set.Operator(address); ok && voterOf(o.ConsensusKey) != a.self {
		return fmt.Errorf("consensus: operator %s votes with %s in the set, and with %x here: the key in %s is another operator's, or not the one in the genesis",
			o.Name, o.ConsensusKey, r.votes.Key.PubKey.Bytes(), r.cfg.Dir)
	}
	// Blocks without a sign state: it was lost, or they are a copy of another node's. What
	// can have been signed is the height behind the newest block, or one that is voted on.
	if newest := max(r.stores.blocks.Height(), r.votes.LastSignState.Height); signer.Fresh() && newest > 0 {
		return signer.SkipTo(uint64(newest) + 2)
	}
	return nil
}

// Start begins to take part. The rotation ends with Stop, or with ctx. What goes wrong
// afterwards is told to Config.Fatal.
func (r *Rotation) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started {
		return errors.New("rotation has been started or stopped before")
	}
	r.started = true
	stopAfter := context.AfterFunc(ctx, r.stopTurns)
	go func() {
		defer close(r.done)
		defer stopAfter()
		r.run()
		if err := r.close(); err != nil {
			r.cfg.Log.Error("Consensus data are not closed", "err", err)
		}
	}()
	return nil
}

// Stop ends the rotation. Calls of the machine's Propose and Verify are cancelled at once, one
// of Commit when ctx ends.
func (r *Rotation) Stop(ctx context.Context) error {
	r.mu.Lock()
	if !r.started {
		r.started = true
		defer close(r.done)
		defer r.mu.Unlock()
		return r.close()
	}
	r.mu.Unlock()
	r.stopTurns()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		r.stopCommits()
		return fmt.Errorf("the rotation does not end: %w", ctx.Err())
	}
}

// close closes what New opened.
func (r *Rotation) close() error {
	r.stopTurns()
	r.stopCommits()
	var errs []error
	if r.app.signer != nil {
		errs = append(errs, r.app.signer.Close())
	}
	if r.stores != nil {
		errs = append(errs, r.stores.close())
	}
	return errors.Join(errs...)
}

// fail says that the rotation cannot go on, once. A stop is no reason.
func (r *Rotation) fail(err error) {
	if r.turnCtx.Err() != nil {
		return
	}
	r.reported.Do(func() {
		r.cfg.Log.Error("Rotation has ended", "err", err)
		r.cfg.Fatal(err)
	})
}

// run is the rotation's life, until it is stopped.
func (r *Rotation) run() {
	ctx := r.turnCtx
	n, err := r.newNode()
	if err != nil {
		r.fail(err)
		return
	}
	r.node.Store(n) // the app asks it whether it syncs
	if err = ctx.Err(); err == nil {
		err = n.Start()
	}
	if err != nil {
		r.node.Store(nil)
		r.fail(fmt.Errorf("start the consensus node: %w", err))
		_ = n.EventBus().Stop() // these run since the node was made
		_ = n.ProxyApp().Stop()
		return
	}
	var all sync.WaitGroup
	all.Go(func() { r.gossip.run(ctx) })
	all.Go(func() { r.watchdog(ctx, n) })
	var dialers sync.WaitGroup
	dialers.Go(func() { r.dialAll(ctx, n.Switch()) })
	<-ctx.Done()
	if err := n.Stop(); err != nil {
		r.cfg.Log.Warn("Consensus node", "err", err)
	}
	if err := n.ProxyApp().Stop(); err != nil {
		r.cfg.Log.Warn("Consensus node", "err", err)
	}
	dialers.Wait()
	all.Wait()
}

// newNode makes the node, which gives the machine the heights behind the ledger's last.
// It is not given a context that ends: an error leaves some of its goroutines behind. A stop
// waits for it as for a commit.
func (r *Rotation) newNode() (n *node.Node, err error) {
	defer func() { // CometBFT panics when its data do not fit ours
		if p := recover(); p != nil {
			n, err = nil, fmt.Errorf("consensus data in %s do not fit the ledger: %v", r.cfg.Dir, p)
			r.cfg.Log.Debug("Panic in the consensus node", "stack", string(debug.Stack()))
		}
	}()
	r.app.pace(r.app.current(), r.cfg.Clock.Now())
	n, err = node.NewNode(r.comet, r.votes, r.nodeKey,
		proxy.NewConnSyncLocalClientCreator(r.app),
		func() (*types.GenesisDoc, error) { return r.genesis, nil },
		r.stores.provide, node.DefaultMetricsProvider(r.comet.Instrumentation),
		&logger{to: r.cfg.Log, failed: func(reason string) { r.fail(fmt.Errorf("consensus has ended: %s", reason)) }, step: r.app.enterStep},
		node.CustomReactors(map[string]p2p.Reactor{gossipName: r.gossip}))
	if err != nil {
		return nil, fmt.Errorf("consensus data in %s: %w", r.cfg.Dir, err)
	}
	return n, nil
}

func (r *Rotation) phase() phase {
	switch n := r.node.Load(); {
	case n == nil:
		return replaying
	case n.ConsensusReactor().WaitSync():
		return syncing
	}
	return voting
}

// watchdog notices what CometBFT says nobody of: that its consensus has ended, and calls
// into the machine that do not return.
func (r *Rotation) watchdog(ctx context.Context, n *node.Node) {
	ticker := r.cfg.Clock.NewTicker(watchEvery)
	defer ticker.Stop()
	var ended sync.WaitGroup
	defer ended.Wait()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.Ch():
		}
		if call, took := r.app.watch.longest(); took > r.cfg.Timeouts.Call {
			r.fail(fmt.Errorf("%s at height %d takes %s, at most %s is right", call, r.app.current().height+1, took, r.cfg.Timeouts.Call))
		}
		r.cfg.Metrics.Peers(n.Switch().Peers().Size())
		if !waiting && r.phase() == voting {
			env, err := n.ConfigureRPC()
			if err != nil {
				continue
			}
			if cs, ok := env.ConsensusState.(interface{ Wait() }); ok {
				waiting = true
				ended.Go(func() {
					cs.Wait()
					r.fail(errors.New("consensus has ended"))
				})
			}
		}
	}
}

// handle takes what a peer sent.
func (r *Rotation) handle(kind byte, data []byte) error {
	if kind == kindBundle || kind == kindCancel {
		take := r.cfg.OnBundle
		if kind == kindCancel {
			take = r.cfg.OnCancel
		}
		if take == nil {
			return fmt.Errorf("%w: bundles are not taken here", ErrNotNow)
		}
		return take(data)
	}
	c, err := operators.DecodeSignedChange(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGarbage, err)
	}
	err = r.app.changes.add(c)
	for _, forgivable := range []error{operators.ErrDuplicate, operators.ErrEnded, operators.ErrExpiry, operators.ErrNotApplicable, operators.ErrLimit} {
		if errors.Is(err, forgivable) {
			return fmt.Errorf("%w: %w", ErrNotNow, err)
		}
	}
	return err
}

// welcome is what a peer that connects is sent: it may have missed it.
func (r *Rotation) welcome() [][]byte {
	var msgs [][]byte
	if r.greeting != nil {
		msgs = append(msgs, r.greeting)
	}
	for _, c := range r.app.changes.all() {
		msgs = append(msgs, append([]byte{kindChange}, c...))
	}
	if r.cfg.Bundles != nil {
		for _, b := range r.cfg.Bundles() {
			msgs = append(msgs, append([]byte{kindBundle}, b...))
		}
	}
	return msgs
}

// Broadcast sends a bundle to the other operators. Those that take it pass it on.
func (r *Rotation) Broadcast(bundle []byte) error { return r.gossip.broadcast(kindBundle, bundle) }

// BroadcastCancel sends a cancellation of a bundle to the other operators.
func (r *Rotation) BroadcastCancel(cancel []byte) error {
	return r.gossip.broadcast(kindCancel, cancel)
}

// SubmitChange sends an operator's approval of a change to all of them. It is agreed on in
// one of the next subblocks: see Operators. Errors are the set's, or ErrKnown.
func (r *Rotation) SubmitChange(c *operators.SignedChange) error {
	if err := r.app.changes.add(c); err != nil {
		return err
	}
	return r.gossip.broadcast(kindChange, c.Encode())
}

// AddPeer connects to a node, given as nodeID@host:port, and lets it connect. It is
// forgotten when the process ends: the configuration should name it, too.
func (r *Rotation) AddPeer(peer string) error {
	return r.app.allowed.add(peer)
}

// Operators is the set as of the newest agreed subblock.
func (r *Rotation) Operators() *operators.Set { return r.app.current().set.Clone() }

// Height agreed on last.
func (r *Rotation) Height() uint64 { return r.app.current().height }

// Evidence against operators that signed or voted twice.
func (r *Rotation) Evidence() operators.EvidenceList { return r.app.pool.List() }

// Schedule implements rotation.Rotation. An operator whose turns are shortened is left out
// for the one behind it.
func (r *Rotation) Schedule(n int) []rotation.Turn {
	s := r.app.current()
	turns := make([]rotation.Turn, 0, max(0, n))
	for i := range n {
		h := s.height + 1 + uint64(i)
		v, _ := s.leader(h)
		turns = append(turns, rotation.Turn{Height: h, Leader: s.operator(v)})
	}
	return turns
}

// Status of the rotation, for people and monitoring.
type Status struct {
	NodeID   string         `json:"nodeID"`
	Operator common.Address `json:"operator"` // zero for a follower
	Power    uint64         `json:"power"`    // of this operator, in the set now
	Height   uint64         `json:"height"`   // agreed on last
	Durable  uint64         `json:"durable"`  // the height that the newest slot in the ledger ends with
	// Leader of the height before, agreed on in Round: 0 is the first leader's. Zero until
	// this process has seen two heights.
	Leader    common.Address   `json:"leader"`
	Round     uint64           `json:"round"`
	Heights   uint64           `json:"heights"` // that are in the tallies
	Running   bool             `json:"running"`
	Syncing   bool             `json:"syncing"` // fetches what was agreed on, does not vote
	Peers     []PeerStatus     `json:"peers"`
	Operators []OperatorStatus `json:"operators"` // ascending by address
	// PendingChanges of the set wait for approval.
	PendingChanges int `json:"pendingChanges"`
}

// PeerStatus is a node that is connected.
type PeerStatus struct {
	ID      string `json:"id"`
	Address string `json:"address"`
}

// OperatorStatus says how an operator delivers.
type OperatorStatus struct {
	operators.Operator
	Missed    uint64 `json:"missed"`    // turns in a row
	Shortened bool   `json:"shortened"` // its turns are, until it has voted for a while
	Connected bool   `json:"connected"` // a node of it is, or it is this one
	Tally     Tally  `json:"tally"`
}

// Status of the rotation.
func (r *Rotation) Status() Status {
	s := r.app.current()
	st := Status{NodeID: string(r.nodeKey.ID()), Height: s.height, Durable: r.app.durable.Load(), Syncing: r.phase() != voting, PendingChanges: len(s.set.Pending())}
	if r.cfg.OperatorKey != nil {
		st.Operator = crypto.PubkeyToAddress(r.cfg.OperatorKey.PublicKey)
		o, _ := s.set.Operator(st.Operator)
		st.Power = o.Power
	}
	heights, leader, round := r.app.tallies.counted()
	st.Heights, st.Round = heights, uint64(round)
	if heights > 0 {
		st.Leader = s.operator(leader)
	}
	for _, o := range s.set.Operators() {
		v := voterOf(o.ConsensusKey)
		t := s.turns[v]
		connected := o.Address == st.Operator || r.app.present.connected(o.Address)
		st.Operators = append(st.Operators, OperatorStatus{o, t.Missed, t.Short, connected, r.app.tallies.get(v)})
	}
	if n := r.node.Load(); n != nil && r.turnCtx.Err() == nil {
		st.Running = true
		for _, p := range n.Switch().Peers().Copy() {
			st.Peers = append(st.Peers, PeerStatus{string(p.ID()), p.SocketAddr().String()})
		}
	}
	return st
}
