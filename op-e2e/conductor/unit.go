package conductor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"github.com/urfave/cli/v2"

	upstream "github.com/ethereum-optimism/optimism/op-conductor/conductor"
	conductorflags "github.com/ethereum-optimism/optimism/op-conductor/flags"
	opnode "github.com/ethereum-optimism/optimism/op-node"
	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	opnodeflags "github.com/ethereum-optimism/optimism/op-node/flags"
	opnodemetrics "github.com/ethereum-optimism/optimism/op-node/metrics"
	"github.com/ethereum-optimism/optimism/op-node/node"
	"github.com/ethereum-optimism/optimism/op-service/cliapp"
	oplog "github.com/ethereum-optimism/optimism/op-service/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// unitConfig is what a unit's process is told, as JSON in a file.
type unitConfig struct {
	ID        string
	Dir       string // data and logs of this unit
	Genesis   string // directory, as genesis.Output writes it
	L1        string // WebSocket
	Beacon    string
	RaftPort  int
	NodePort  int
	RPCPort   int // op-conductor's
	SignerKey string
	Bootstrap bool // the one unit that makes the raft cluster, at its first start
	GethPort  int
	GethKey   string   // hex
	GethPeers []string // the other operators' op-geths, as enode URLs
	Tuning    Tuning
}

// Kinds of event.
const (
	eventReady      = "ready"      // everything runs
	eventHead       = "head"       // a block became the engine's head
	eventSequencing = "sequencing" // op-node begins to build, on Number
)

// event is a line that a unit's process writes to its standard output.
type event struct {
	Kind   string
	At     int64 // Unix nanoseconds
	Number uint64
	Hash   common.Hash
	Time   uint64
}

// events writes events, from several goroutines.
type events struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (e *events) write(ev event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out.Encode(ev)
}

func headEvent(kind string, h *types.Header) event {
	return event{Kind: kind, At: time.Now().UnixNano(), Number: h.Number.Uint64(), Hash: h.Hash(), Time: h.Time}
}

// RunUnit is the process of one operator: op-conductor, op-node and op-geth together,
// so that one signal ends all three at once. configFile is the argument that Measure
// adds to Config.Unit; events for Measure go to out. It returns when ctx ends, or with
// what kept it from starting.
func RunUnit(ctx context.Context, configFile string, out io.Writer) (err error) {
	var cfg unitConfig
	data, err := os.ReadFile(configFile)
	if err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	if err := json.Unmarshal(data, &cfg); err != nil {
		return fmt.Errorf("operator: %s: %w", configFile, err)
	}
	logFile, err := os.OpenFile(filepath.Join(cfg.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("operator %s: %w", cfg.ID, err)
	}
	u := &operator{
		cfg:    cfg,
		log:    oplog.NewLogger(logFile, oplog.CLIConfig{Level: slog.LevelInfo, Format: oplog.FormatLogFmt}),
		events: &events{out: json.NewEncoder(out)},
	}
	defer func() {
		if err = errors.Join(err, u.stop(), logFile.Close()); err != nil {
			err = fmt.Errorf("operator %s: %w", cfg.ID, err)
		}
	}()
	if err := u.start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-u.failed:
		return err
	}
}

// operator is the three services of a unit.
type operator struct {
	cfg    unitConfig
	log    log.Logger
	events *events
	failed chan error

	engine    *embedded.Node
	node      *node.OpNode
	conductor *upstream.OpConductor
	stops     []func() error // in the order of starting
}

func (u *operator) stop() error {
	var errs []error
	for i := len(u.stops) - 1; i >= 0; i-- {
		errs = append(errs, u.stops[i]())
	}
	return errors.Join(errs...)
}

func (u *operator) start(ctx context.Context) error {
	u.failed = make(chan error, 1)
	g, err := genesis.Load(u.cfg.Genesis)
	if err != nil {
		return err
	}
	if err := u.startEngine(g.L2[chainID]); err != nil {
		return err
	}
	u.reportHeads()
	if err := u.startNode(ctx); err != nil {
		return fmt.Errorf("op-node: %w", err)
	}
	if err := u.startConductor(ctx); err != nil {
		return fmt.Errorf("op-conductor: %w", err)
	}
	return u.events.write(event{Kind: eventReady, At: time.Now().UnixNano()})
}

func (u *operator) jwtFile() string { return filepath.Join(u.cfg.Dir, "jwt.hex") }

func (u *operator) startEngine(g *core.Genesis) error {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return err
	}
	if err := os.WriteFile(u.jwtFile(), []byte(hexutil.Encode(secret[:])), 0o600); err != nil {
		return err
	}
	// op-node leaves blocks that it missed to op-geth, which asks its own peers for them.
	p2p := &embedded.P2P{Listen: embedded.Listen{Port: u.cfg.GethPort}}
	var err error
	if p2p.Key, err = crypto.HexToECDSA(u.cfg.GethKey); err != nil {
		return fmt.Errorf("op-geth's key: %w", err)
	}
	for _, peer := range u.cfg.GethPeers {
		n, err := enode.ParseV4(peer)
		if err != nil {
			return fmt.Errorf("op-geth's peer %q: %w", peer, err)
		}
		p2p.Peers = append(p2p.Peers, n)
	}
	n, err := embedded.Start(embedded.Config{
		Chain: sequence.ChainID(chainID), Genesis: g, DataDir: filepath.Join(u.cfg.Dir, "geth"), JWTSecret: secret,
		HTTP: &embedded.Listen{}, P2P: p2p, Log: u.log.New("service", "op-geth"),
	})
	if err != nil {
		return err
	}
	u.engine = n
	u.stops = append(u.stops, n.Close)
	return nil
}

// reportHeads writes an event for each block that becomes the engine's head.
func (u *operator) reportHeads() {
	heads := make(chan core.ChainHeadEvent, 128)
	sub := u.engine.Backend().BlockChain().SubscribeChainHeadEvent(heads)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-sub.Err(): //nolint:errcheck // a channel: it is closed when the subscription ends
				return
			case h := <-heads:
				if err := u.events.write(headEvent(eventHead, h.Header)); err != nil {
					u.fail(fmt.Errorf("report head %d: %w", h.Header.Number, err))
					return
				}
			}
		}
	})
	u.stops = append(u.stops, func() error {
		sub.Unsubscribe()
		wg.Wait()
		return nil
	})
}

func (u *operator) fail(err error) {
	select {
	case u.failed <- err:
	default: // the first one counts
	}
}

// listener hears from op-node when it begins and ends to build blocks. Nothing is kept:
// op-node starts without sequencing each time, as a conductor wants it.
type listener struct{ u *operator }

var _ opnodeconfig.ConfigPersistence = listener{}

func (l listener) SequencerStarted() error {
	// op-node has checked that the engine's head is the newest block raft knows.
	return l.u.events.write(headEvent(eventSequencing, l.u.engine.Backend().BlockChain().CurrentBlock()))
}
func (listener) SequencerStopped() error { return nil }
func (listener) SequencerState() (opnodeconfig.RunningState, error) {
	return opnodeconfig.StateUnset, nil
}

// withFlags runs read with a program's flags, those that args do not name at their defaults.
func withFlags(ctx context.Context, flags []cli.Flag, args []string, read func(*cli.Context) error) error {
	app := cli.NewApp()
	app.Flags = cliapp.ProtectFlags(flags)
	app.Action = read
	app.HideHelp, app.HideVersion = true, true
	app.ExitErrHandler = func(*cli.Context, error) {} // the caller gets it
	return app.RunContext(ctx, append([]string{"operator"}, args...))
}

func (u *operator) startNode(ctx context.Context) error {
	l := u.log.New("service", "op-node")
	var cfg *opnodeconfig.Config
	err := withFlags(ctx, opnodeflags.Flags, []string{
		"--l1=" + u.cfg.L1, "--l1.beacon=" + u.cfg.Beacon, "--l1.rpckind=standard",
		"--l2=" + u.engine.AuthEndpoint(), "--l2.jwt-secret=" + u.jwtFile(),
		"--rollup.config=" + filepath.Join(u.cfg.Genesis, genesis.RollupFile(chainID)),
		"--rollup.l1-chain-config=" + filepath.Join(u.cfg.Genesis, genesis.L1File),
		"--interop.dependency-set=" + filepath.Join(u.cfg.Genesis, genesis.DepSetFile),
		"--sequencer.enabled",
		"--conductor.enabled", fmt.Sprintf("--conductor.rpc=http://127.0.0.1:%d", u.cfg.RPCPort),
		"--rpc.addr=127.0.0.1", "--rpc.port=" + strconv.Itoa(u.cfg.NodePort), "--rpc.enable-admin",
		"--p2p.no-discovery", "--p2p.bootnodes=",
		"--p2p.listen.ip=127.0.0.1", "--p2p.listen.tcp=0", "--p2p.listen.udp=0", "--p2p.advertise.ip=127.0.0.1",
		"--p2p.discovery.path=memory", "--p2p.peerstore.path=memory",
		"--p2p.priv.path=" + filepath.Join(u.cfg.Dir, "p2p.txt"),
		"--p2p.sequencer.key=" + u.cfg.SignerKey,
	}, func(c *cli.Context) (err error) {
		cfg, err = opnode.NewConfig(c, l)
		return err
	})
	if err != nil {
		return err
	}
	cfg.ConfigPersistence = listener{u}
	cfg.Cancel = func(err error) { u.fail(fmt.Errorf("op-node asks to stop: %w", err)) }
	if u.node, err = node.New(ctx, cfg, l, "", opnodemetrics.NewMetrics("", nil), nil); err != nil {
		return err
	}
	u.stops = append(u.stops, func() error { return u.node.Stop(context.Background()) })
	return u.node.Start(ctx)
}

func (u *operator) startConductor(ctx context.Context) error {
	l := u.log.New("service", "op-conductor")
	t := u.cfg.Tuning
	args := []string{
		"--consensus.addr=127.0.0.1", "--consensus.port=" + strconv.Itoa(u.cfg.RaftPort),
		"--raft.server.id=" + u.cfg.ID, "--raft.storage.dir=" + filepath.Join(u.cfg.Dir, "raft"),
		"--raft.heartbeat-timeout=" + t.Heartbeat.String(), "--raft.lease-timeout=" + t.Lease.String(),
		"--node.rpc=" + u.node.HTTPEndpoint(), "--execution.rpc=" + u.engine.HTTPEndpoint(),
		"--healthcheck.interval=" + seconds(t.HealthInterval), "--healthcheck.unsafe-interval=" + seconds(t.UnsafeInterval),
		"--healthcheck.min-peer-count=" + strconv.FormatUint(t.MinPeers, 10),
		"--rollup.config=" + filepath.Join(u.cfg.Genesis, genesis.RollupFile(chainID)),
		"--rpc.addr=127.0.0.1", "--rpc.port=" + strconv.Itoa(u.cfg.RPCPort),
	}
	if u.cfg.Bootstrap {
		args = append(args, "--raft.bootstrap")
	}
	var cfg *upstream.Config
	err := withFlags(ctx, conductorflags.Flags, args, func(c *cli.Context) (err error) {
		cfg, err = upstream.NewConfig(c, l)
		return err
	})
	if err != nil {
		return err
	}
	if u.conductor, err = upstream.New(ctx, cfg, l, ""); err != nil {
		return err
	}
	u.stops = append(u.stops, func() error { return u.conductor.Stop(context.Background()) })
	return u.conductor.Start(ctx)
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
