package cometbft

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tcpProxy forwards connections to an address, each direction with a delay, until it is cut.
type tcpProxy struct {
	listener net.Listener
	target   string
	delay    time.Duration
	all      sync.WaitGroup
	// Bytes from those who connect, and to them.
	forth, back atomic.Int64

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, target string, delay time.Duration) *tcpProxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &tcpProxy{listener: l, target: target, delay: delay, conns: map[net.Conn]bool{}}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.setCut(true)
		p.all.Wait()
	})
	return p
}

func (p *tcpProxy) addr() string { return p.listener.Addr().String() }

// setCut ends all connections and takes no more, or takes them again.
func (p *tcpProxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			c.Close()
		}
	}
}

// keep notes a connection, and says whether it may live.
func (p *tcpProxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *tcpProxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *tcpProxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			from.Close()
			continue
		}
		if !p.keep(from) || !p.keep(to) {
			p.drop(from)
			p.drop(to)
			continue
		}
		p.all.Go(func() { p.pipe(to, from, &p.forth) })
		p.all.Go(func() { p.pipe(from, to, &p.back) })
	}
}

func (p *tcpProxy) pipe(dst, src net.Conn, count *atomic.Int64) {
	defer p.drop(dst)
	defer p.drop(src)
	type chunk struct {
		data []byte
		at   time.Time
	}
	chunks := make(chan chunk, 4096)
	p.all.Go(func() {
		for c := range chunks {
			time.Sleep(time.Until(c.at))
			if _, err := dst.Write(c.data); err != nil {
				src.Close() // the reader ends; what it still sends is dropped
			}
		}
	})
	defer close(chunks)
	for {
		buf := make([]byte, 65536)
		n, err := src.Read(buf)
		if n > 0 {
			count.Add(int64(n))
			chunks <- chunk{buf[:n], time.Now().Add(p.delay)}
		}
		if err != nil {
			return
		}
	}
}

// web is a proxy between each two operators of a cluster, in both directions.
type web struct {
	t       *testing.T
	delay   time.Duration
	proxies map[[2]*operator]*tcpProxy
}

// through lets a cluster's operators reach each other by proxies.
func through(t *testing.T, delay time.Duration) (*web, func(*cluster)) {
	w := &web{t: t, delay: delay, proxies: map[[2]*operator]*tcpProxy{}}
	return w, func(c *cluster) {
		c.link = func(from, to *operator) string {
			p := newProxy(t, to.addr, delay)
			w.proxies[[2]*operator{from, to}] = p
			return p.addr()
		}
	}
}

// sent is how many bytes each operator has sent to the others.
func (w *web) sent() map[*operator]int64 {
	out := map[*operator]int64{}
	for pair, p := range w.proxies {
		out[pair[0]] += p.forth.Load()
		out[pair[1]] += p.back.Load()
	}
	return out
}

// split cuts everything between the operators in a group and the others, or heals it.
func (w *web) split(cut bool, group ...*operator) {
	in := map[*operator]bool{}
	for _, o := range group {
		in[o] = true
	}
	for pair, p := range w.proxies {
		if in[pair[0]] != in[pair[1]] {
			p.setCut(cut)
		}
	}
}
