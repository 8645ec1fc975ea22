package cometbft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cometbft/cometbft/p2p"
	"github.com/cosmos/gogoproto/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// What Config.OnBundle says of a bundle that it does not take. Other errors count against
// the peer.
var (
	// ErrKnown: it is there already.
	ErrKnown = errors.New("known already")
	// ErrNotNow: it is well formed, and cannot be taken now: no fault of the peer.
	ErrNotNow = errors.New("not now")
	// ErrGarbage: no honest node passes this on. The peer is cut off.
	ErrGarbage = errors.New("garbage")
)

const (
	gossipName    = "SHAREDSEQ"
	gossipChannel = byte(0x70)
	// A message is a kind and what it carries, in a protobuf BytesValue.
	kindBundle = byte(0)
	kindChange = byte(1)
	// kindGreeting is the first message of an operator's node: a signature that says whose
	// it is. It is not passed on.
	kindGreeting = byte(2)
	kindCancel   = byte(3)
	lastKind     = kindCancel
	// knownPeers is how many peers' limits are remembered when they are gone, so that they
	// do not begin anew with each connection.
	knownPeers = 256
)

// gossip floods bundles and changes between operators. CometBFT's mempool is not used: it
// takes several times as long and orders what nobody needs in an order.
type gossip struct {
	p2p.BaseReactor

	limits  GossipLimits
	clock   clock.Clock
	log     log.Logger
	metrics Metrics
	handle  func(kind byte, data []byte) error
	welcome func() [][]byte // messages for a peer that connects
	greeted func(p p2p.Peer, signature []byte) error
	left    func(id p2p.ID)

	sw   atomic.Pointer[p2p.Switcher]
	in   chan inbound
	hi   chan p2p.Peer // connected
	seen *lru.Cache[common.Hash, struct{}]

	mu    sync.Mutex
	peers *lru.Cache[p2p.ID, *peerLimits]
}

type inbound struct {
	peer p2p.Peer
	hash common.Hash
	msg  []byte
}

// peerLimits are token buckets.
type peerLimits struct{ messages, bytes, faults *rate.Limiter }

func newGossip(cfg *Config, handle func(byte, []byte) error, welcome func() [][]byte) (*gossip, error) {
	g := &gossip{
		greeted: func(p2p.Peer, []byte) error { return nil }, left: func(p2p.ID) {},
		limits: cfg.Gossip, clock: cfg.Clock, log: cfg.Log, metrics: cfg.Metrics, handle: handle, welcome: welcome,
		in: make(chan inbound, cfg.Gossip.Queue), hi: make(chan p2p.Peer, 2*operators.MaxOperators),
	}
	g.BaseReactor = *p2p.NewBaseReactor(gossipName, g)
	var err error
	if g.seen, err = lru.New[common.Hash, struct{}](cfg.Gossip.Seen); err != nil {
		return nil, fmt.Errorf("consensus: gossip: %w", err)
	}
	if g.peers, err = lru.New[p2p.ID, *peerLimits](knownPeers); err != nil {
		return nil, fmt.Errorf("consensus: gossip: %w", err)
	}
	return g, nil
}

// GetChannels implements p2p.Reactor. A longer message ends the connection.
func (g *gossip) GetChannels() []*p2p.ChannelDescriptor {
	return []*p2p.ChannelDescriptor{{
		ID: gossipChannel, Priority: 3, SendQueueCapacity: 1024,
		RecvMessageCapacity: g.limits.Bytes + 16, MessageType: &types.BytesValue{},
	}}
}

// SetSwitch implements p2p.Reactor.
func (g *gossip) SetSwitch(sw p2p.Switcher) { g.sw.Store(&sw) }

// AddPeer implements p2p.Reactor. It must not block.
func (g *gossip) AddPeer(p p2p.Peer) {
	select {
	case g.hi <- p:
	default:
	}
}

// RemovePeer implements p2p.Reactor.
func (g *gossip) RemovePeer(p p2p.Peer, _ any) { g.left(p.ID()) }

// Receive implements p2p.Reactor. It is the goroutine that reads all of a peer's messages,
// votes too: it only counts and puts into the queue.
func (g *gossip) Receive(e p2p.Envelope) {
	v, ok := e.Message.(*types.BytesValue)
	if !ok || len(v.Value) < 2 || v.Value[0] > lastKind {
		g.cutOff(e.Src, errors.New("it is no message of ours"))
		return
	}
	l, now := g.limitsOf(e.Src.ID()), g.clock.Now()
	if !l.messages.AllowN(now, 1) || !l.bytes.AllowN(now, len(v.Value)) {
		g.metrics.Gossip(GossipLimited)
		return
	}
	hash := crypto.Keccak256Hash(v.Value)
	if v.Value[0] != kindGreeting && g.seen.Contains(hash) {
		g.metrics.Gossip(GossipKnown)
		return
	}
	select {
	case g.in <- inbound{e.Src, hash, v.Value}:
	default:
		g.metrics.Gossip(GossipQueueFull)
	}
}

func (g *gossip) limitsOf(id p2p.ID) *peerLimits {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.peers.Get(id)
	if !ok {
		c := g.limits
		l = &peerLimits{
			messages: rate.NewLimiter(rate.Limit(c.MessagesPerSec), int(c.MessagesPerSec)+1),
			bytes:    rate.NewLimiter(rate.Limit(c.BytesPerSec), int(c.BytesPerSec)+1),
			faults:   rate.NewLimiter(rate.Every(time.Second), c.Faults),
		}
		g.peers.Add(id, l)
	}
	return l
}

// run works off the queue until ctx ends.
func (g *gossip) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-g.hi:
			for _, msg := range g.welcome() {
				g.send(p, msg)
			}
		case m := <-g.in:
			g.take(m)
		}
	}
}

func (g *gossip) take(m inbound) {
	greeting := m.msg[0] == kindGreeting
	var err error
	if greeting {
		err = g.greeted(m.peer, m.msg[1:])
	} else {
		if ok, _ := g.seen.ContainsOrAdd(m.hash, struct{}{}); ok { // came twice while it waited
			g.metrics.Gossip(GossipKnown)
			return
		}
		err = g.handle(m.msg[0], m.msg[1:])
	}
	switch {
	case err == nil:
		g.metrics.Gossip(GossipTaken)
		if !greeting {
			g.flood(m.msg, m.peer.ID())
		}
	case errors.Is(err, ErrKnown):
		g.metrics.Gossip(GossipKnown)
	case errors.Is(err, ErrNotNow):
		g.metrics.Gossip(GossipRefused)
		g.seen.Remove(m.hash) // it may be valid later
	case errors.Is(err, ErrGarbage):
		g.metrics.Gossip(GossipFault)
		g.cutOff(m.peer, err)
	default:
		g.metrics.Gossip(GossipFault)
		g.log.Debug("Peer sent what is not valid", "peer", m.peer.ID(), "err", err)
		if !g.limitsOf(m.peer.ID()).faults.AllowN(g.clock.Now(), 1) {
			g.cutOff(m.peer, fmt.Errorf("too much of what it sends is not valid, at last: %w", err))
		}
	}
}

// broadcast sends a message of this node's to all peers.
func (g *gossip) broadcast(kind byte, data []byte) error {
	if len(data)+1 > g.limits.Bytes {
		return fmt.Errorf("%d bytes are too long for operators to pass on, at most %d", len(data), g.limits.Bytes-1)
	}
	msg := append([]byte{kind}, data...)
	g.seen.Add(crypto.Keccak256Hash(msg), struct{}{})
	g.flood(msg, "")
	return nil
}

// flood sends a message to all peers but one.
func (g *gossip) flood(msg []byte, except p2p.ID) {
	sw := g.sw.Load()
	if sw == nil { // not started
		return
	}
	for _, p := range (*sw).Peers().Copy() {
		if p.ID() != except {
			g.send(p, msg)
		}
	}
}

func (g *gossip) send(p p2p.Peer, msg []byte) {
	if !p.TrySend(p2p.Envelope{ChannelID: gossipChannel, Message: &types.BytesValue{Value: msg}}) {
		g.metrics.Gossip(GossipUnsent)
	}
}

func (g *gossip) cutOff(p p2p.Peer, reason error) {
	g.metrics.Gossip(GossipCutOff)
	g.log.Warn("Peer is cut off", "peer", p.ID(), "err", reason)
	(*g.sw.Load()).StopPeerForError(p, reason)
}
