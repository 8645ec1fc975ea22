package devnet

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p/enode"
)

// gethDir is op-geth's data directory in that of an engine.
const gethDir = "geth"

// l2Engine is one chain's op-geth, in this process or in its own.
type l2Engine interface {
	HTTP() string
	WS() string
	Auth() string
	Stop(ctx context.Context) error
}

// engineConfig says how an op-geth is run.
type engineConfig struct {
	Chain   uint64
	Genesis *core.Genesis
	Dir     string
	JWT     [32]byte
	Port    int        // HTTP and WebSocket; 0 takes a free one
	P2P     *engineP2P // nil: no networking
	Small   bool       // small caches
	Archive bool
	Ingress string // URL that the pool asks about interop transactions; empty: none
	Log     log.Logger
}

// engineP2P is an engine's place among those of the other operators.
type engineP2P struct {
	Key   *ecdsa.PrivateKey
	Port  int
	Peers []*enode.Node
}

// gethConfig says how a geth of its own process is run.
type gethConfig struct {
	engineConfig
	Binary string
}

// Geth is one chain's op-geth as a process of its own.
type Geth struct {
	cfg       gethConfig
	http      string // host:port
	auth      string // host:port
	mu        sync.Mutex
	proc      *Child
	stopsSelf bool // the process is being ended by us
}

// startGeth makes the database if there is none, and runs the process until it serves RPC.
func startGeth(ctx context.Context, cfg gethConfig) (*Geth, error) {
	g := &Geth{cfg: cfg}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(g.JWTPath(), []byte(hexutil.Encode(cfg.JWT[:])), 0o600); err != nil {
		return nil, err
	}
	// The marker is written when init has finished: a crash in between is made good.
	marker := filepath.Join(cfg.Dir, "initialised")
	if _, err := os.Stat(marker); errors.Is(err, os.ErrNotExist) {
		if err := g.init(ctx); err != nil {
			return nil, err
		}
		if err := os.WriteFile(marker, nil, 0o644); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return g, g.Start(ctx)
}

// JWTPath is the file of the secret of its authenticated RPC.
func (g *Geth) JWTPath() string { return filepath.Join(g.cfg.Dir, "jwt.hex") }
func (g *Geth) dataDir() string { return filepath.Join(g.cfg.Dir, gethDir) }
func (g *Geth) name() string    { return fmt.Sprintf("op-geth of chain %d", g.cfg.Chain) }

func (g *Geth) init(ctx context.Context) error {
	path := filepath.Join(g.cfg.Dir, "genesis.json")
	data, err := json.Marshal(g.cfg.Genesis)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	var last string
	p, err := StartChild(g.name()+" init", g.cfg.Binary, []string{
		"--datadir", g.dataDir(), "--state.scheme", "path", "init", path}, func(s string) { last = s })
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s init: %w", g.name(), ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("%s init: %w: %s", g.name(), p.err, last)
	}
	return nil
}

// Start runs the process on its directory, at the same ports as before.
func (g *Geth) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc != nil {
		return fmt.Errorf("%s runs already", g.name())
	}
	port, authPort := g.cfg.Port, 0
	if g.http != "" {
		port, authPort = portOf(g.http), portOf(g.auth)
	}
	// As embedded ones: 64 MB each for the database, clean and dirty state, 32 MB for the snapshot.
	cache := 224 // MB
	if g.cfg.Small {
		cache = 64
	}
	args := []string{
		"--datadir", g.dataDir(), "--networkid", strconv.FormatUint(g.cfg.Chain, 10),
		"--state.scheme", "path", "--gcmode", "full", "--syncmode", "full",
		"--nodiscover", "--ipcdisable", "--nat", "none",
		"--http", "--http.addr", "127.0.0.1", "--http.port", strconv.Itoa(port), "--http.api", "eth,net,web3,debug,txpool", "--http.corsdomain", "*", "--http.vhosts", "*",
		"--ws", "--ws.addr", "127.0.0.1", "--ws.port", strconv.Itoa(port), "--ws.api", "eth,net,web3,debug,txpool", "--ws.origins", "*",
		"--authrpc.addr", "127.0.0.1", "--authrpc.port", strconv.Itoa(authPort), "--authrpc.jwtsecret", g.JWTPath(),
		"--cache", strconv.Itoa(cache), "--cache.database", "29", "--cache.trie", "29", "--cache.gc", "29", "--cache.snapshot", "15",
		"--history.logs.disable",
		"--txpool.nolocals", "--txpool.journal", "", "--txpool.accountslots", "20000", "--txpool.globalslots", "40000",
		"--txpool.accountqueue", "20000", "--txpool.globalqueue", "40000",
		"--log.format", "json", "--verbosity", "3",
	}
	if g.cfg.Ingress != "" {
		args = append(args, "--rollup.interoprpc", g.cfg.Ingress, "--rollup.interopmempoolfiltering")
	}
	network, err := g.network()
	if err != nil {
		return err
	}
	args = append(args, network...)
	l := g.cfg.Log.New("service", "op-geth", "chain", g.cfg.Chain)
	found := make(chan bool, 2) // one value per endpoint: whether it is the authenticated one
	last := ""
	endpoints := map[bool]string{}
	var mu sync.Mutex
	p, err := StartChild(g.name(), g.cfg.Binary, args, func(line string) {
		var e struct {
			Lvl, Msg, Endpoint string
			Auth               bool
		}
		if json.Unmarshal([]byte(line), &e) != nil {
			l.Warn("Output", "line", line)
			mu.Lock()
			last = line
			mu.Unlock()
			return
		}
		l.Debug("Output", "line", line)
		if e.Msg == "HTTP server started" {
			mu.Lock()
			_, known := endpoints[e.Auth]
			endpoints[e.Auth] = e.Endpoint
			mu.Unlock()
			if !known {
				found <- e.Auth
			}
		}
	})
	if err != nil {
		return err
	}
	for range 2 {
		select {
		case <-found:
		case <-p.Done():
			mu.Lock()
			defer mu.Unlock()
			return fmt.Errorf("%s ended at its start: %w: %s", g.name(), p.err, last)
		case <-ctx.Done():
			p.Kill()
			return fmt.Errorf("%s does not serve RPC: %w", g.name(), ctx.Err())
		}
	}
	mu.Lock()
	g.http, g.auth = endpoints[false], endpoints[true]
	mu.Unlock()
	g.proc, g.stopsSelf = p, false
	go func() {
		<-p.Done()
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.stopsSelf && g.proc == p {
			l.Error("The engine's process ended by itself", "err", p.err)
		}
	}()
	return nil
}

// network makes the arguments for op-geth's own network, which are none of its flags for
// static peers: those are in a file.
func (g *Geth) network() ([]string, error) {
	p := g.cfg.P2P
	if p == nil {
		return []string{"--maxpeers", "0", "--port", "0", "--rollup.disabletxpoolgossip"}, nil
	}
	// A list of strings is the same in TOML; none is an empty one, not null.
	peers, err := json.Marshal(append([]*enode.Node{}, p.Peers...))
	if err != nil {
		return nil, err
	}
	key, file := filepath.Join(g.cfg.Dir, "nodekey"), filepath.Join(g.cfg.Dir, "network.toml")
	if err := crypto.SaveECDSA(key, p.Key); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("[Node.P2P]\nListenAddr = \"127.0.0.1:%d\"\nStaticNodes = %s\nTrustedNodes = %s\n", p.Port, peers, peers)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return []string{"--config", file, "--nodekey", key, "--maxpeers", strconv.Itoa(maxEnginePeers)}, nil
}

// maxEnginePeers is how many peers an engine takes beside those of the other operators.
const maxEnginePeers = 25

// HTTP and WS are the public RPC, Auth is the authenticated one.
func (g *Geth) HTTP() string { return "http://" + g.http }
func (g *Geth) WS() string   { return "ws://" + g.http }
func (g *Geth) Auth() string { return "ws://" + g.auth }

// Stop stops the process cleanly; Start runs it again.
func (g *Geth) Stop(ctx context.Context) error {
	if p := g.take(); p != nil {
		return p.Stop(ctx)
	}
	return nil
}

// Kill ends the process as a crash does.
func (g *Geth) Kill() {
	if p := g.take(); p != nil {
		p.Kill()
	}
}

func (g *Geth) take() *Child {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.proc
	g.proc, g.stopsSelf = nil, true
	return p
}

// PID is the process's id, 0 if it does not run.
func (g *Geth) PID() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc == nil {
		return 0
	}
	return g.proc.PID()
}

func portOf(hostport string) int {
	_, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(port)
	return n
}

// engineStopTime is how long an engine may take to write its state when it is stopped.
const engineStopTime = 30 * time.Second
