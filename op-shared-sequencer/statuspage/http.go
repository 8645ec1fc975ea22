package statuspage

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

//go:embed assets
var embedded embed.FS

// policy lets the page load its own files and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is a file of the page, as it is served.
type asset struct {
	data      []byte
	mime, tag string
}

func assets() map[string]asset {
	out := map[string]asset{}
	files, err := fs.ReadDir(embedded, "assets")
	if err != nil {
		panic(err) // they are in the binary
	}
	for _, f := range files {
		data, err := embedded.ReadFile("assets/" + f.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		a := asset{data: data, mime: mimeOf(f.Name()), tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
		out["/"+f.Name()] = a
		if f.Name() == "index.html" {
			out["/"] = a
		}
	}
	return out
}

func mimeOf(name string) string {
	switch path.Ext(name) { // not the system's table: it differs
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// Handler serves the page at /, what it shows at /api/snapshot as JSON, and changes of it at
// /api/events as server-sent events.
func (p *Page) Handler() http.Handler {
	files := assets()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		// Also for what is not streamed: the server itself sets no limit, for the stream's sake.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * p.cfg.Write))
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "The status page is read-only: expected GET or HEAD.", http.StatusMethodNotAllowed)
			return
		}
		switch r.URL.Path {
		case "/api/snapshot":
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "no-store")
			data, _, _ := p.message("")
			if r.Method == http.MethodGet {
				_, _ = w.Write(data)
			}
			return
		case "/api/events":
			p.events(w, r)
			return
		}
		f, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h.Set("Content-Type", f.mime)
		h.Set("ETag", f.tag)
		if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Length", strconv.Itoa(len(f.data)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(f.data)
		}
	})
}

// update is a message to a client: everything, or what has changed since a version.
type update struct {
	Version string `json:"version"`
	Full    bool   `json:"full"`
	Now     int64  `json:"now"`
	// Last is when a subblock was committed last, 0 if none was since the start.
	Last        int64             `json:"last"`
	SlotSeconds uint64            `json:"slotSeconds"`
	PerSlot     int               `json:"subblocksPerSlot"`
	Keep        int               `json:"keep"`
	Slots       []json.RawMessage `json:"slots"`
	Status      *status           `json:"status,omitempty"`
	Faults      []fault           `json:"faults"`
	Bundles     []bundle          `json:"bundles"`
}

// message is what a client that has everything up to since is to be sent, nil if nothing is
// newer; which version that is; and a channel that is closed when there is more. A since of
// another process, or none, is answered with everything.
func (p *Page) message(since string) (data []byte, version string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	boot, number, _ := strings.Cut(since, ".")
	have, err := strconv.ParseUint(number, 10, 64)
	full := boot != p.boot || err != nil || have > p.version
	if full {
		have = 0
	}
	version = p.boot + "." + strconv.FormatUint(p.version, 10)
	if !full && have == p.version {
		return nil, version, p.changed
	}
	u := update{
		Version: version, Full: full, Now: p.cfg.Clock.Now().UnixMilli(), SlotSeconds: p.cfg.SlotSeconds, PerSlot: p.cfg.Subblocks,
		Keep: p.cfg.Slots, Slots: []json.RawMessage{}, Faults: []fault{}, Bundles: []bundle{},
	}
	if !p.last.IsZero() {
		u.Last = p.last.UnixMilli()
	}
	for _, s := range p.slots {
		if s.version <= have {
			continue
		}
		if s.encoded == nil {
			s.encoded = encode(s)
		}
		u.Slots = append(u.Slots, s.encoded)
	}
	if p.status != nil && p.status.version > have {
		u.Status = p.status
	}
	for _, f := range p.faults {
		if f.version > have {
			u.Faults = append(u.Faults, *f)
		}
	}
	for _, b := range p.bundles {
		if b.version > have {
			u.Bundles = append(u.Bundles, *b)
		}
	}
	return encode(u), version, p.changed
}

// encode: everything that is sent has a JSON form.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// events streams changes to a client until it goes, or does not read.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if p.clients.Add(1) > int64(p.cfg.Clients) {
		p.clients.Add(-1)
		w.Header().Set("Retry-After", "15")
		http.Error(w, fmt.Sprintf("%d clients watch already: try again later, or read /api/snapshot.", p.cfg.Clients), http.StatusServiceUnavailable)
		return
	}
	defer p.clients.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return
	}
	since := r.Header.Get("Last-Event-ID") // of a browser that connects again
	if since == "" {
		since = r.URL.Query().Get("since")
	}
	out := http.NewResponseController(w)
	// The server's read timeout is for requests, and would end the stream.
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	send := func(format string, args ...any) bool {
		if err := out.SetWriteDeadline(time.Now().Add(p.cfg.Write)); err != nil {
			return false
		}
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	if !send("retry: 2000\n\n") {
		return
	}
	beat, pace := time.NewTimer(p.cfg.Beat), time.NewTimer(0)
	defer beat.Stop()
	defer pace.Stop()
	for {
		select { // what comes quickly is sent together
		case <-pace.C:
		case <-r.Context().Done():
			return
		case <-p.life.Done():
			return
		}
		data, version, changed := p.message(since)
		if data != nil {
			if !send("id: %s\ndata: %s\n\n", version, data) {
				return
			}
			since = version
		}
		beat.Reset(p.cfg.Beat)
		select {
		case <-changed:
		case <-beat.C:
			if !send("event: beat\ndata: %d\n\n", p.cfg.Clock.Now().UnixMilli()) {
				return
			}
		case <-r.Context().Done():
			return
		case <-p.life.Done():
			return
		}
		pace.Reset(p.cfg.Pace)
	}
}

// maxConnections at a time, of all clients together. Further ones wait to be accepted.
const maxConnections = 256

// server is a listener of the page.
type server struct {
	http *http.Server
	done chan struct{}
}

// Listen serves the page on an address until Stop, and returns its URL.
func (p *Page) Listen(addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	s := &server{done: make(chan struct{}), http: &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return p.life },
	}}
	p.servers = append(p.servers, s)
	go func() {
		defer close(s.done)
		if err := s.http.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			p.cfg.Log.Error("Status page is no longer served", "err", err)
		}
	}()
	return "http://" + l.Addr().String(), nil
}

func (s *server) stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}
