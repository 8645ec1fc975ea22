package cometbft

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cometbft/cometbft/p2p"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// maxPeers is how many nodes a node may be told of.
const maxPeers = 4 * operators.MaxOperators

const (
	dialEvery = 500 * time.Millisecond
	// dialSecond is how much longer the node with the higher ID waits: when both dial at the
	// same time, each refuses the other's connection, and none is left.
	dialSecond = 3 * dialEvery
)

// peerList is the nodes this one connects to and is connected by.
type peerList struct {
	mu   sync.Mutex
	addr map[p2p.ID]string
	more chan p2p.ID // those added, for the dialer
}

func newPeerList(peers []string) (*peerList, error) {
	l := &peerList{addr: map[p2p.ID]string{}, more: make(chan p2p.ID, maxPeers)}
	for _, p := range peers {
		if err := l.add(p); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *peerList) add(peer string) error {
	id, addr, err := splitPeer(peer)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.addr[id]; ok {
		return fmt.Errorf("consensus: peer %s is there already", id)
	}
	select {
	case l.more <- id:
	default:
		return fmt.Errorf("consensus: peer %s is one too many, at most %d", id, maxPeers)
	}
	l.addr[id] = addr
	return nil
}

func (l *peerList) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.addr[p2p.ID(id)]
	return ok
}

func (l *peerList) get(id p2p.ID) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr[id]
}

// dialAll keeps a connection to each peer of the list, until ctx ends.
func (r *Rotation) dialAll(ctx context.Context, sw p2p.Switcher) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-r.app.allowed.more:
			all.Go(func() { r.dial(ctx, sw, id) })
		}
	}
}

// dial keeps a connection to one peer. Host names are resolved again at each
// try.
func (r *Rotation) dial(ctx context.Context, sw p2p.Switcher, id p2p.ID) {
	wait := time.Duration(0)
	if id < r.nodeKey.ID() {
		wait = dialSecond
	}
	for {
		if r.cfg.Clock.SleepCtx(ctx, wait) != nil {
			return
		}
		wait = dialEvery
		if id < r.nodeKey.ID() {
			wait = dialSecond
		}
		if sw.Peers().Has(id) {
			continue
		}
		addr, err := p2p.NewNetAddressString(p2p.IDAddressString(id, r.app.allowed.get(id)))
		if err == nil {
			err = sw.DialPeerWithAddress(addr)
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Debug("Peer cannot be reached", "peer", id, "err", err)
		}
	}
}
