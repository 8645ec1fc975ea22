package cometbft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cometbft/cometbft/p2p"
	"github.com/cosmos/gogoproto/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// gossipPeer is a peer that only notes what it is sent.
type gossipPeer struct {
	p2p.Peer
	id   p2p.ID
	mu   sync.Mutex
	sent []string
	full bool
}

func (p *gossipPeer) ID() p2p.ID { return p.id }

func (p *gossipPeer) TrySend(e p2p.Envelope) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.full {
		p.sent = append(p.sent, string(e.Message.(*types.BytesValue).Value))
	}
	return !p.full
}

func (p *gossipPeer) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.sent...)
}

// gossipSwitch has peers, and notes which were cut off.
type gossipSwitch struct {
	p2p.Switcher
	p2p.IPeerSet
	peers []p2p.Peer
	mu    sync.Mutex
	cut   []p2p.ID
}

func (s *gossipSwitch) Peers() p2p.IPeerSet { return s }
func (s *gossipSwitch) Copy() []p2p.Peer    { return s.peers }

func (s *gossipSwitch) StopPeerForError(p p2p.Peer, _ any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = append(s.cut, p.ID())
}

func (s *gossipSwitch) cutOff() []p2p.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]p2p.ID(nil), s.cut...)
}

type gossipWorld struct {
	*gossip
	t     *testing.T
	sw    *gossipSwitch
	a, b  *gossipPeer
	clock *clock.DeterministicClock
	seen  *counts
}

func newGossipWorld(t *testing.T, limits GossipLimits, handle func(kind byte, data []byte) error) *gossipWorld {
	w := &gossipWorld{t: t, a: &gossipPeer{id: "a"}, b: &gossipPeer{id: "b"}, clock: clock.NewDeterministicClock(time.Unix(1000, 0)), seen: newCounts()}
	w.sw = &gossipSwitch{peers: []p2p.Peer{w.a, w.b}}
	cfg := Config{Gossip: limits, Clock: w.clock, Log: testLog(t, "gossip"), Metrics: w.seen}
	cfg.setDefaults()
	var err error
	w.gossip, err = newGossip(&cfg, handle, func() [][]byte { return [][]byte{{kindBundle, 'w'}} })
	require.NoError(t, err)
	w.SetSwitch(w.sw)
	return w
}

// run works until the test ends.
func (w *gossipWorld) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { w.gossip.run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

func (w *gossipWorld) receive(from *gossipPeer, msg string) {
	w.Receive(p2p.Envelope{Src: from, ChannelID: gossipChannel, Message: &types.BytesValue{Value: []byte(msg)}})
}

func (w *gossipWorld) eventually(cond func() bool) {
	w.t.Helper()
	require.Eventually(w.t, cond, patience, time.Millisecond)
}

func TestGossipFlood(t *testing.T) {
	w := newGossipWorld(t, GossipLimits{}, func(kind byte, data []byte) error { return nil })
	w.run()
	w.receive(w.a, "\x00bundle")
	w.eventually(func() bool { return len(w.b.got()) == 1 })
	w.receive(w.b, "\x00bundle")
	require.Equal(t, 1, w.seen.heard(GossipKnown), "it is known without being looked at")
	require.Empty(t, w.a.got(), "it does not go back")
	require.NoError(t, w.broadcast(kindBundle, []byte("own")))
	require.Equal(t, []string{"\x00own"}, w.a.got())
	w.receive(w.a, "\x00own")
	require.Equal(t, 2, w.seen.heard(GossipKnown))
	w.b.mu.Lock()
	w.b.full = true
	w.b.mu.Unlock()
	require.NoError(t, w.broadcast(kindBundle, []byte("more")))
	require.Equal(t, 1, w.seen.heard(GossipUnsent), "a slow peer is not waited for")
	w.AddPeer(w.a)
	w.eventually(func() bool { got := w.a.got(); return got[len(got)-1] == "\x00w" })
	require.Empty(t, w.sw.cutOff())
}

func TestGossipLimits(t *testing.T) {
	handled := make(chan string, 1000)
	w := newGossipWorld(t, GossipLimits{Bytes: 100, MessagesPerSec: 10, BytesPerSec: 200, Queue: 100}, func(_ byte, data []byte) error {
		handled <- string(data)
		return nil
	})
	for i := range 30 {
		w.receive(w.a, fmt.Sprintf("\x00%d", i))
	}
	require.Equal(t, 30-11, w.seen.heard(GossipLimited), "messages are limited")
	w.receive(w.b, "\x00of another peer")
	require.Equal(t, 19, w.seen.heard(GossipLimited), "each peer has its own limits")
	w.clock.AdvanceTime(time.Second)
	for i := range 5 {
		w.receive(w.a, "\x00"+string(make([]byte, 90))+fmt.Sprint(i))
	}
	require.Equal(t, 19+3, w.seen.heard(GossipLimited), "bytes are limited")
	require.Equal(t, 100+16, w.GetChannels()[0].RecvMessageCapacity, "longer ones never get here")
	w.run()
	w.eventually(func() bool { return len(handled) == 11+1+2 })
}

func TestGossipQueueIsBounded(t *testing.T) {
	w := newGossipWorld(t, GossipLimits{Queue: 3}, func(byte, []byte) error { return nil })
	for i := range 5 { // nobody works it off
		w.receive(w.a, fmt.Sprintf("\x00%d", i))
	}
	require.Equal(t, 2, w.seen.heard(GossipQueueFull))
}

func TestGossipFaults(t *testing.T) {
	answers := map[string]error{"known": ErrKnown, "later": ErrNotNow, "garbage": ErrGarbage}
	w := newGossipWorld(t, GossipLimits{Faults: 3}, func(_ byte, data []byte) error {
		if err, ok := answers[string(data)]; ok {
			return fmt.Errorf("wrapped: %w", err)
		}
		return errors.New("bad signature")
	})
	w.run()
	for range 10 { // not now: it may come again
		w.receive(w.a, "\x00later")
	}
	w.receive(w.a, "\x00known")
	w.eventually(func() bool { return w.seen.heard(GossipKnown) >= 1 && w.seen.heard(GossipRefused) >= 1 })
	require.Empty(t, w.sw.cutOff(), "no fault of the peer")
	for i := range 3 {
		w.receive(w.a, fmt.Sprintf("\x00bad %d", i))
	}
	w.eventually(func() bool { return w.seen.heard(GossipFault) == 3 })
	require.Empty(t, w.sw.cutOff(), "a few are forgiven")
	w.receive(w.a, "\x00bad 4")
	w.eventually(func() bool { return len(w.sw.cutOff()) == 1 })
	w.receive(w.b, "\x00garbage")
	w.eventually(func() bool { return len(w.sw.cutOff()) == 2 })
	require.Equal(t, []p2p.ID{"a", "b"}, w.sw.cutOff())
	for _, msg := range []string{"", "\x00", "\x05kind"} {
		before := len(w.sw.cutOff())
		w.receive(w.b, msg)
		require.Len(t, w.sw.cutOff(), before+1, "%q", msg)
	}
	require.Empty(t, w.a.got())
	require.Empty(t, w.b.got(), "nothing of it is passed on")
}

// Approvals wait until they are agreed on, are bounded, and go when they no longer fit.
func TestChangePool(t *testing.T) {
	key, _ := crypto.GenerateKey()
	g := &operators.Genesis{Set: "s", Time: time.Unix(1_700_000_000, 0), Chains: []sequence.ChainID{1}, Operators: []operators.Operator{
		{Name: "a", Address: crypto.PubkeyToAddress(key.PublicKey), ConsensusKey: operators.ConsensusKey{1}, Power: 1}}}
	require.NoError(t, g.Check())
	set := operators.NewSet(g)
	pool := newChangePool(set)
	sign := func(chain int, expiry sequence.Slot) *operators.SignedChange {
		c, err := operators.SignChange(g.ID(), operators.Change{Kind: operators.JoinChain, Chain: sequence.ChainID(chain), Expiry: expiry}, key)
		require.NoError(t, err)
		return c
	}
	require.NoError(t, pool.add(sign(2, 100)))
	require.ErrorIs(t, pool.add(sign(2, 100)), ErrKnown)
	require.ErrorIs(t, pool.add(sign(1, 100)), operators.ErrNotApplicable)
	stranger, _ := crypto.GenerateKey()
	c, err := operators.SignChange(g.ID(), operators.Change{Kind: operators.JoinChain, Chain: 9, Expiry: 100}, stranger)
	require.NoError(t, err)
	require.ErrorIs(t, pool.add(c), operators.ErrNotOperator)
	for i := range maxWaitingPerSigner - 1 {
		require.NoError(t, pool.add(sign(3+i, 10)))
	}
	require.ErrorIs(t, pool.add(sign(900, 100)), operators.ErrLimit)
	require.Len(t, pool.all(), maxWaitingPerSigner)

	valid := pool.valid(set, 5, maxBlockChanges)
	require.Len(t, valid, operators.MaxPendingPerOperator, "as many as the set takes")
	require.NoError(t, set.Apply(valid[0], 5))
	pool.committed(set, 5, valid[:1])
	require.Len(t, pool.all(), maxWaitingPerSigner-1)
	set = set.Clone()
	set.Boundary(11)
	pool.committed(set, 11, nil)
	require.Empty(t, pool.all(), "expired")
}
