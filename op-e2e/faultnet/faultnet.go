// Package faultnet is a network between operators that can be cut: every connection goes
// through a proxy on this machine.
package faultnet

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Network carries the operators' agreement: every connection from one to another goes
// through it, so that an operator can be cut off. What is on the way then arrives when
// it is connected again, as with packets that are sent again.
type Network struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener
	conns     map[net.Conn]struct{}
	cut       map[int]bool
	changed   chan struct{} // closed and made anew when cut changes
	err       error
}

// New makes a network without cuts. Close ends it.
func New() *Network {
	ctx, cancel := context.WithCancel(context.Background())
	return &Network{ctx: ctx, cancel: cancel, conns: map[net.Conn]struct{}{}, cut: map[int]bool{}, changed: make(chan struct{})}
}

// Link is for devnet.Config.ConsensusDial. When no port can be had it gives the address
// itself, and the error is told by Err.
func (n *Network) Link(from, to int, addr string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.err = errors.Join(n.err, err)
		return addr
	}
	n.listeners = append(n.listeners, l)
	n.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			n.all.Go(func() { n.carry(c, from, to, addr) })
		}
	})
	return l.Addr().String()
}

// Err says why not every link could be made.
func (n *Network) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// Set cuts an operator off, or connects it again.
func (n *Network) Set(operator int, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[operator] = cut
	close(n.changed)
	n.changed = make(chan struct{})
}

// pass waits until two operators are connected; false: the network was closed.
func (n *Network) pass(from, to int) bool {
	for {
		n.mu.Lock()
		ok, changed := !n.cut[from] && !n.cut[to], n.changed
		n.mu.Unlock()
		if n.ctx.Err() != nil {
			return false
		}
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
		}
	}
}

// keep notes a connection for close; false: it is too late.
func (n *Network) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		_ = c.Close()
		return false
	}
	n.conns[c] = struct{}{}
	return true
}

func (n *Network) drop(c net.Conn) {
	_ = c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

func (n *Network) carry(near net.Conn, from, to int, addr string) {
	if !n.keep(near) {
		return
	}
	defer n.drop(near)
	if !n.pass(from, to) {
		return
	}
	far, err := (&net.Dialer{}).DialContext(n.ctx, "tcp", addr)
	if err != nil || !n.keep(far) {
		return
	}
	defer n.drop(far)
	var back sync.WaitGroup
	back.Go(func() { n.copy(near, far, from, to) })
	n.copy(far, near, from, to)
	back.Wait()
}

// copy ends both connections when one of them ends.
func (n *Network) copy(dst, src net.Conn, from, to int) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		k, err := src.Read(buf)
		if k > 0 {
			if !n.pass(from, to) {
				return
			}
			if _, err := dst.Write(buf[:k]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Close ends all connections and waits for their goroutines.
func (n *Network) Close() {
	n.mu.Lock()
	n.cancel()
	for _, l := range n.listeners {
		_ = l.Close()
	}
	for c := range n.conns {
		_ = c.Close()
	}
	n.mu.Unlock()
	n.all.Wait()
}
