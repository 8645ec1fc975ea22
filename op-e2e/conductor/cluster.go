package conductor

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rpc"

	conductorrpc "github.com/ethereum-optimism/optimism/op-conductor/rpc"
	"github.com/ethereum-optimism/optimism/op-service/client"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
)

const (
	chainID     = 901
	blockTime   = time.Second
	l1BlockTime = 2 // seconds
	operators   = 3
)

// How long the parts of a run may take. All are many times what they take when nothing is wrong.
const (
	startTime    = time.Minute     // a process, from its start until all its services run
	settleTime   = 3 * time.Minute // the cluster, until all follow one leader
	failoverTime = time.Minute     // a new leader's first block
)

// unit is one operator's process, over all its restarts.
type unit struct {
	cfg       unitConfig
	http      *http.Client
	conductor *conductorrpc.APIClient
	rollup    *sources.RollupClient
	p2p       *sources.P2PClient
	closers   []func()

	// Of the cluster's mutex.
	child  *devnet.Child
	ready  bool // all its services run
	heads  []Head
	starts []Head // the heads that its op-node began to build on
}

// cluster is an L1 and three operators of one chain.
type cluster struct {
	cfg   Config
	dir   string
	log   log.Logger
	l1    *devnet.L1
	units []*unit
	first common.Hash // genesis of the chain

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew with every event
	formed   int           // takeovers until the cluster first was well
	hashes   map[uint64]common.Hash
	replaced map[uint64]struct{} // numbers of blocks that were announced with two hashes
}

func newCluster(ctx context.Context, cfg Config, dir string, rng *rand.Rand) (_ *cluster, err error) {
	c := &cluster{
		cfg: cfg, dir: dir, log: cfg.Log, changed: make(chan struct{}),
		hashes: map[uint64]common.Hash{}, replaced: map[uint64]struct{}{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	gc := genesis.DevConfig(cfg.Artifacts, uint64(time.Now().Unix()), chainID)
	gc.CacheDir = filepath.Join(filepath.Dir(filepath.Dir(cfg.Artifacts)), "genesis")
	g, err := genesis.Build(ctx, gc)
	if err != nil {
		return nil, err
	}
	genesisDir := filepath.Join(dir, "genesis")
	if err := g.Write(genesisDir); err != nil {
		return nil, err
	}
	c.first = g.Rollup[chainID].Genesis.L2.Hash
	keys, err := genesis.DevKeys()
	if err != nil {
		return nil, err
	}
	signer, err := keys.SequencerP2P(chainID)
	if err != nil {
		return nil, err
	}
	if c.l1, err = devnet.StartL1(devnet.L1Config{
		Dir: filepath.Join(dir, "l1"), Genesis: g.L1, BlockTime: l1BlockTime, Log: cfg.Log,
	}); err != nil {
		return nil, err
	}
	configs, err := unitConfigs(rng)
	if err != nil {
		return nil, err
	}
	for _, uc := range configs {
		uc.Dir, uc.Genesis = filepath.Join(dir, uc.ID), genesisDir
		uc.L1, uc.Beacon = c.l1.WS(), c.l1.Beacon()
		uc.SignerKey, uc.Tuning = hex.EncodeToString(crypto.FromECDSA(signer)), cfg.Tuning
		u, err := newUnit(ctx, uc)
		if err != nil {
			return nil, err
		}
		c.units = append(c.units, u)
	}
	return c, nil
}

// unitConfigs names the operators and gives each its ports and its peers.
func unitConfigs(rng *rand.Rand) ([]unitConfig, error) {
	const each = 4
	ports, err := freePorts(rng, each*operators)
	if err != nil {
		return nil, err
	}
	configs := make([]unitConfig, operators)
	enodes := make([]string, operators)
	for i := range configs {
		key, err := crypto.GenerateKey()
		if err != nil {
			return nil, err
		}
		p := ports[each*i:]
		configs[i] = unitConfig{
			ID: "operator-" + strconv.Itoa(i), Bootstrap: i == 0,
			RaftPort: p[0], NodePort: p[1], RPCPort: p[2], GethPort: p[3], GethKey: hex.EncodeToString(crypto.FromECDSA(key)),
		}
		enodes[i] = embedded.Peer(&key.PublicKey, net.IPv4(127, 0, 0, 1), p[3]).URLv4()
	}
	for i := range configs {
		configs[i].GethPeers = slices.Delete(slices.Clone(enodes), i, i+1)
	}
	return configs, nil
}

// freePorts are ports nothing listens on. They are below those that the kernel gives to
// outgoing connections: an operator comes back to its ports after its death.
func freePorts(rng *rand.Rand, n int) ([]int, error) {
	const lowest, count = 20_000, 12_000
	var ports []int
	for range 100 * n {
		if len(ports) == n {
			return ports, nil
		}
		port := lowest + rng.IntN(count)
		if slices.Contains(ports, port) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("%d free ports from %d to %d were not found", n, lowest, lowest+count-1)
}

func newUnit(ctx context.Context, cfg unitConfig) (*unit, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	u := &unit{cfg: cfg, http: &http.Client{Transport: &http.Transport{}}}
	dial := func(port int) (*rpc.Client, error) {
		// Nothing is sent before the first call.
		c, err := rpc.DialOptions(ctx, "http://127.0.0.1:"+strconv.Itoa(port), rpc.WithHTTPClient(u.http))
		if err == nil {
			u.closers = append(u.closers, c.Close)
		}
		return c, err
	}
	conductor, err := dial(cfg.RPCPort)
	if err != nil {
		return nil, err
	}
	node, err := dial(cfg.NodePort)
	if err != nil {
		return nil, err
	}
	u.conductor = conductorrpc.NewAPIClient(conductor)
	u.rollup = sources.NewRollupClient(client.NewBaseRPCClient(node))
	u.p2p = sources.NewP2PClient(client.NewBaseRPCClient(node))
	return u, nil
}

func (c *cluster) close() error {
	for _, u := range c.units {
		if u.child != nil {
			u.child.Kill()
		}
		for _, f := range u.closers {
			f()
		}
		u.http.CloseIdleConnections()
	}
	if c.l1 == nil {
		return nil
	}
	return c.l1.Close()
}

// run starts an operator's process and waits until all its services run.
func (c *cluster) run(ctx context.Context, u *unit) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("it took more than %s", startTime))
	defer cancel()
	data, err := json.Marshal(u.cfg)
	if err != nil {
		return err
	}
	file := filepath.Join(u.cfg.Dir, "config.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	child, err := devnet.StartChild(u.cfg.ID, c.cfg.Unit[0], append(slices.Clone(c.cfg.Unit[1:]), file), func(line string) { c.onLine(u, line) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	u.child = child
	c.mu.Unlock()
	if err := c.await(ctx, func() bool { return u.ready || ended(child) }); err != nil {
		return fmt.Errorf("start %s (see %s): %w", u.cfg.ID, filepath.Join(u.cfg.Dir, "log"), err)
	}
	if ended(child) {
		return fmt.Errorf("start %s: its process has ended (see %s)", u.cfg.ID, filepath.Join(u.cfg.Dir, "log"))
	}
	return nil
}

func ended(p *devnet.Child) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// kill ends an operator's process with SIGKILL. The time returned is that of the signal.
func (c *cluster) kill(u *unit) time.Time {
	c.mu.Lock()
	child := u.child
	u.child, u.ready = nil, false
	c.mu.Unlock()
	at := time.Now()
	child.Kill()
	return at
}

func (c *cluster) onLine(u *unit, line string) {
	var ev event
	if err := json.Unmarshal([]byte(line), &ev); err != nil {
		c.log.Warn("Operator says", "operator", u.cfg.ID, "line", line)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := Head{Number: ev.Number, Hash: ev.Hash, Time: ev.Time, At: time.Unix(0, ev.At)}
	switch ev.Kind {
	case eventReady:
		u.ready = true
	case eventHead:
		u.heads = append(u.heads, h)
		if known, ok := c.hashes[h.Number]; !ok {
			c.hashes[h.Number] = h.Hash
		} else if known != h.Hash {
			c.replaced[h.Number] = struct{}{}
		}
	case eventSequencing:
		u.starts = append(u.starts, h)
		c.log.Info("Operator begins to build", "operator", u.cfg.ID, "on", h.Number)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// await returns when cond holds. It is looked at with the mutex held, after every event
// and once in a while.
func (c *cluster) await(ctx context.Context, cond func() bool) error {
	tick := time.NewTicker(blockTime / 4)
	defer tick.Stop()
	for {
		c.mu.Lock()
		ok, changed := cond(), c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-tick.C:
		}
	}
}

// others are all operators but one.
func (c *cluster) others(u *unit) []*unit {
	return slices.DeleteFunc(slices.Clone(c.units), func(o *unit) bool { return o == u })
}

// connect makes u a gossip peer of all the others that run.
func (c *cluster) connect(ctx context.Context, u *unit) error {
	for _, o := range c.others(u) {
		if o.child == nil {
			continue
		}
		self, err := o.p2p.Self(ctx)
		if err != nil {
			return fmt.Errorf("peer of %s: %w", o.cfg.ID, err)
		}
		if len(self.Addresses) == 0 {
			return fmt.Errorf("peer of %s: it has no address", o.cfg.ID)
		}
		if err := u.p2p.ConnectPeer(ctx, self.Addresses[0]); err != nil {
			return fmt.Errorf("connect %s to %s: %w", u.cfg.ID, o.cfg.ID, err)
		}
	}
	return nil
}

// form starts the operators and makes a cluster of them, in the order of op-conductor's runbook.
func (c *cluster) form(ctx context.Context) error {
	errs := make([]error, len(c.units))
	var wg sync.WaitGroup
	for i, u := range c.units {
		wg.Go(func() { errs[i] = c.run(ctx, u) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it took more than %s", settleTime))
	defer cancel()
	leader := c.units[0]
	leader.cfg.Bootstrap = false // from its next start on
	for _, u := range c.units[1:] {
		if err := c.connect(ctx, u); err != nil {
			return err
		}
	}
	if err := devnet.WaitFor(ctx, "the first raft leader", leader.conductor.Leader); err != nil {
		return err
	}
	for _, u := range c.units[1:] {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(u.cfg.RaftPort))
		if err := leader.conductor.AddServerAsVoter(ctx, u.cfg.ID, addr, 0); err != nil {
			return fmt.Errorf("add %s to the raft cluster: %w", u.cfg.ID, err)
		}
	}
	if err := devnet.WaitFor(ctx, "the first sequencer", func(ctx context.Context) (bool, error) {
		if active, err := leader.rollup.SequencerActive(ctx); err != nil || active {
			return active, err
		}
		return false, leader.rollup.StartSequencer(ctx, c.first)
	}); err != nil {
		return err
	}
	// The one that made the cluster is paused until it is told to act.
	if err := leader.conductor.Resume(ctx); err != nil {
		return fmt.Errorf("resume %s: %w", leader.cfg.ID, err)
	}
	return nil
}

// fresh is whether an operator's head is that of this moment. The mutex is held.
func (c *cluster) fresh(u *unit) bool {
	if u.child == nil || len(u.heads) == 0 {
		return false
	}
	h := u.heads[len(u.heads)-1]
	return time.Since(time.Unix(int64(h.Time), 0)) < 2*blockTime
}

// restart brings a killed operator back.
func (c *cluster) restart(ctx context.Context, u *unit) error {
	if err := c.run(ctx, u); err != nil {
		return err
	}
	return c.connect(ctx, u)
}

// settled waits until one operator leads and builds, and all are healthy, connected and
// at the head. It returns the leader.
func (c *cluster) settled(ctx context.Context) (*unit, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it took more than %s", settleTime))
	defer cancel()
	var leader *unit
	err := devnet.WaitFor(ctx, "a healthy cluster", func(ctx context.Context) (bool, error) {
		leader = nil
		for _, u := range c.units {
			c.mu.Lock()
			fresh := c.fresh(u)
			c.mu.Unlock()
			if !fresh {
				return false, fmt.Errorf("%s is behind", u.cfg.ID)
			}
		}
		for _, u := range c.units {
			leads, err := u.sound(ctx)
			if err != nil {
				return false, fmt.Errorf("%s: %w", u.cfg.ID, err)
			}
			if leads && leader != nil {
				return false, fmt.Errorf("%s and %s lead", leader.cfg.ID, u.cfg.ID)
			}
			if leads {
				leader = u
			}
		}
		if leader == nil {
			return false, errors.New("there is no leader")
		}
		m, err := leader.conductor.ClusterMembership(ctx)
		if err != nil {
			return false, err
		}
		return len(m.Servers) == operators, nil
	})
	return leader, err
}

// sound returns whether an operator leads, and an error when it is not in the state that
// a leader or a follower should be in.
func (u *unit) sound(ctx context.Context) (bool, error) {
	leads, err := u.conductor.Leader(ctx)
	if err != nil {
		return false, err
	}
	builds, err := u.rollup.SequencerActive(ctx)
	if err != nil {
		return false, err
	}
	if leads != builds {
		return false, fmt.Errorf("leads: %t, builds: %t", leads, builds)
	}
	acts, err := u.conductor.Active(ctx)
	if err != nil {
		return false, err
	}
	healthy, err := u.conductor.SequencerHealthy(ctx)
	if err != nil {
		return false, err
	}
	stats, err := u.p2p.PeerStats(ctx)
	if err != nil {
		return false, err
	}
	if !acts || !healthy || stats.Connected < operators-1 {
		return false, fmt.Errorf("acts: %t, healthy: %t, peers: %d", acts, healthy, stats.Connected)
	}
	return leads, nil
}
