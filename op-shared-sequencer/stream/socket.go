package stream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// SocketConfig bounds what readers of the Subblocks format may hold. Zero fields take the
// values of DefaultSocketConfig.
type SocketConfig struct {
	Readers   int           // connections at a time
	PerSource int           // from one IP address; from a loopback address any number
	Write     time.Duration // for one message; a reader that takes longer is let go
	Ping      time.Duration // between two pings
}

// DefaultSocketConfig is for readers that pass the stream on to others.
func DefaultSocketConfig() SocketConfig {
	return SocketConfig{Readers: 256, PerSource: 10, Write: 5 * time.Second, Ping: 15 * time.Second}
}

// Socket serves the Subblocks format over WebSocket: of one chain at /<chain ID>, one JSON text
// message for each subblock. What readers send is not looked at. Requests have to end before
// the feed is closed.
type Socket struct {
	cfg    SocketConfig
	feed   *Feed
	log    log.Logger
	chains map[string]sequence.ChainID // by path

	mu      sync.Mutex
	readers map[netip.Prefix]int // by source
	total   int
}

// NewSocket serves the chains of a feed.
func NewSocket(cfg SocketConfig, feed *Feed, chains []sequence.ChainID, l log.Logger) *Socket {
	def := DefaultSocketConfig()
	if cfg.Readers == 0 {
		cfg.Readers = def.Readers
	}
	if cfg.PerSource == 0 {
		cfg.PerSource = def.PerSource
	}
	if cfg.Write == 0 {
		cfg.Write = def.Write
	}
	if cfg.Ping == 0 {
		cfg.Ping = def.Ping
	}
	s := &Socket{cfg: cfg, feed: feed, log: l, chains: map[string]sequence.ChainID{}, readers: map[netip.Prefix]int{}}
	for _, id := range chains {
		s.chains["/"+strconv.FormatUint(uint64(id), 10)] = id
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Socket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	chain, ok := s.chains[path]
	if !ok {
		http.Error(w, fmt.Sprintf("No chain is at %q: expected /<chain ID>, of a chain of the set.", r.URL.Path), http.StatusNotFound)
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "This is a WebSocket endpoint.", http.StatusUpgradeRequired)
		return
	}
	source, limited := Source(r.RemoteAddr)
	if err := s.enter(source, limited); err != nil {
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	}
	defer s.leave(source)
	// Any page may read what is public.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionNoContextTakeover})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	code, why := s.serve(r.Context(), conn, chain)
	s.log.Debug("Reader of subblocks left", "chain", chain, "from", source, "why", why)
	_ = conn.Close(code, why)
}

func (s *Socket) enter(source netip.Prefix, limited bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= s.cfg.Readers:
		return fmt.Errorf("%d connections are open, which is all there may be: try again later", s.total)
	case limited && s.readers[source] >= s.cfg.PerSource:
		return fmt.Errorf("%d connections from %s are open, which is all one address may have", s.readers[source], source)
	}
	s.readers[source]++
	s.total++
	return nil
}

func (s *Socket) leave(source netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.readers[source]--; s.readers[source] == 0 {
		delete(s.readers, source)
	}
}

// serve writes what is agreed on until the reader goes or falls behind.
func (s *Socket) serve(ctx context.Context, conn *websocket.Conn, chain sequence.ChainID) (websocket.StatusCode, string) {
	sub, err := s.feed.subscribe() // readers are counted above
	if err != nil {
		return websocket.StatusTryAgainLater, err.Error()
	}
	defer sub.Close()
	ctx = conn.CloseRead(ctx) // answers pings, and ends with the connection
	ping := time.NewTicker(s.cfg.Ping)
	defer ping.Stop()
	within := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Write)
		defer cancel()
		return f(ctx)
	}
	for {
		select {
		case e, ok := <-sub.Events():
			if !ok {
				if why := sub.Err(); errors.Is(why, ErrClosed) {
					return websocket.StatusGoingAway, why.Error()
				} else if why != nil {
					return websocket.StatusTryAgainLater, why.Error()
				}
				return websocket.StatusNormalClosure, ""
			}
			if e.Subblock == nil {
				continue
			}
			data := e.Subblock.Partial(chain)
			if data == nil {
				continue
			}
			if err := within(func(ctx context.Context) error { return conn.Write(ctx, websocket.MessageText, data) }); err != nil {
				return websocket.StatusTryAgainLater, "write took too long"
			}
		case <-ping.C:
			if err := within(conn.Ping); err != nil {
				return websocket.StatusGoingAway, "no answer to a ping"
			}
		case <-ctx.Done():
			return websocket.StatusNormalClosure, ""
		}
	}
}
