package cometbft

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedEnv); dir != "" {
		fmt.Fprintln(os.Stderr, runKilled(dir))
		os.Exit(1)
	}
	const autofile = "github.com/cometbft/cometbft/libs/autofile."
	goleak.VerifyTestMain(m,
		// CometBFT does not close its write-ahead log's file, only what is behind it.
		goleak.IgnoreTopFunction(autofile+"OpenAutoFile.func1"), goleak.IgnoreTopFunction(autofile+"(*AutoFile).closeFileRoutine"),
		// These see that they have to end only when they have slept out.
		goleak.IgnoreAnyFunction("github.com/cometbft/cometbft/blocksync.(*BlockPool).makeRequestersRoutine"),
		goleak.IgnoreAnyFunction("github.com/cometbft/cometbft/consensus.(*Reactor).queryMaj23Routine"),
		// It ends by itself, some time after its database.
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}

// patience is how long a condition is waited for before the test fails.
const patience = 60 * time.Second

// operator is one node of a cluster, over restarts.
type operator struct {
	*cluster
	name    string
	dir     string
	key     *ecdsa.PrivateKey
	keys    Keys
	addr    string // it listens on
	peers   []string
	ledger  *memLedger
	prepare func(*fakeMachine, *Config) // of each start

	machine  *fakeMachine
	rotation *Rotation
	fatal    chan error
}

func (o *operator) address() common.Address { return crypto.PubkeyToAddress(o.key.PublicKey) }

func (o *operator) member(power uint64) operators.Operator {
	return operators.Operator{Name: o.name, Address: o.address(), ConsensusKey: o.keys.ConsensusKey, Power: power}
}

// cluster is a set of operators in this process.
type cluster struct {
	t       *testing.T
	genesis *operators.Genesis
	pace    *pacer
	perSlot uint64
	ops     []*operator
	link    func(from, to *operator) string // the address that from reaches to by
	patient time.Duration                   // how long wait waits
}

// newCluster makes n operators with the keys and files they need, the first members of
// them in the set.
func newCluster(t *testing.T, n, members int, options ...func(*cluster)) *cluster {
	c := &cluster{t: t, pace: &pacer{interval: 60 * time.Millisecond}, perSlot: 3, patient: patience, link: func(_, to *operator) string { return to.addr }}
	c.genesis = &operators.Genesis{Set: "test-set", Time: time.Now().Add(-time.Second).UTC(), Chains: []sequence.ChainID{901, 902}}
	for _, o := range options {
		o(c)
	}
	addresses := freeAddresses(t, n)
	for i := range n {
		o := &operator{cluster: c, name: fmt.Sprintf("op%d", i), dir: t.TempDir(), addr: addresses[i], ledger: &memLedger{}}
		o.key, _ = crypto.GenerateKey()
		var err error
		o.keys, err = InitKeys(o.dir)
		require.NoError(t, err)
		c.ops = append(c.ops, o)
		if i < members {
			c.genesis.Operators = append(c.genesis.Operators, o.member(10))
		}
	}
	for _, o := range c.ops {
		for _, p := range c.ops {
			if p != o {
				o.peers = append(o.peers, p.keys.NodeID+"@"+c.link(o, p))
			}
		}
	}
	return c
}

// freeAddresses have ports below those that the kernel gives to connections, of which the first
// operators of a cluster make many before the last one listens.
func freeAddresses(t *testing.T, n int) (out []string) {
	for range 100 * n {
		if len(out) == n {
			return out
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err != nil {
			continue
		}
		defer l.Close() // when all have one, so that no two have the same
		out = append(out, l.Addr().String())
	}
	t.Fatal("no free ports from 20000 to 31999")
	return nil
}

// start opens and starts an operator's rotation.
func (o *operator) start() {
	o.t.Helper()
	o.open()
	require.NoError(o.t, o.rotation.Start(context.Background()))
}

func (o *operator) open() {
	o.t.Helper()
	require.NoError(o.t, o.tryOpen())
	o.t.Cleanup(o.stop)
}

func (o *operator) tryOpen() error {
	o.machine = newFakeMachine(o.name, o.address(), o.perSlot, o.pace, o.ledger)
	o.fatal = make(chan error, 1)
	fatal := o.fatal
	cfg := Config{
		Dir: o.dir, Genesis: o.genesis, OperatorKey: o.key, Listen: o.addr, Peers: o.peers,
		Fatal: func(err error) { fatal <- err }, Log: testLog(o.t, o.name),
	}
	if o.prepare != nil {
		o.prepare(o.machine, &cfg)
	}
	r, err := New(cfg, o.machine)
	if err == nil {
		o.rotation = r
	}
	return err
}

// stop ends an operator's rotation, unless it has been.
func (o *operator) stop() {
	if o.rotation == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(o.t, o.rotation.Stop(ctx))
	o.rotation = nil
	require.Empty(o.t, o.machine.wrong, "%s: the rotation breaks the machine's contract", o.name)
}

func (c *cluster) start() {
	c.t.Helper()
	for _, o := range c.ops {
		o.start()
	}
}

// wait waits until cond holds.
func (c *cluster) wait(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.After(c.patient)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			for _, o := range c.ops {
				if o.rotation != nil {
					c.t.Logf("%s: height %d, %d peers, syncing %t", o.name, o.machine.height(), len(o.rotation.Status().Peers), o.rotation.Status().Syncing)
				}
			}
			c.t.Fatalf("waited %s for: %s", c.patient, what)
		case <-tick.C:
		}
	}
}

// running are the operators that are.
func (c *cluster) running() []*operator {
	return slices.DeleteFunc(slices.Clone(c.ops), func(o *operator) bool { return o.rotation == nil })
}

// reach waits until all running operators have committed a height.
func (c *cluster) reach(height int) {
	c.t.Helper()
	c.wait(fmt.Sprintf("height %d", height), func() bool {
		for _, o := range c.running() {
			if o.machine.height() < height {
				return false
			}
		}
		return true
	})
}

// advance waits until all running operators are n heights further than the furthest now.
func (c *cluster) advance(n int) int {
	c.t.Helper()
	to := c.top() + n
	c.reach(to)
	return to
}

func (c *cluster) top() int {
	top := 0
	for _, o := range c.running() {
		top = max(top, o.machine.height())
	}
	return top
}

// same checks that no two operators have different subblocks at one height, in their machines
// and in their ledgers, and that each ledger proves by itself who agreed on what.
func (c *cluster) same() {
	c.t.Helper()
	var ledgers []*memLedger // before the machines, which go on
	for _, o := range c.ops {
		ledgers = append(ledgers, o.ledger.copy())
	}
	var longest []*sequence.Subblock
	for _, o := range c.ops {
		if o.machine == nil {
			continue
		}
		order, _ := o.machine.history()
		for i := range min(len(order), len(longest)) {
			require.Equal(c.t, longest[i].Hash(), order[i].Hash(), "%s at height %d", o.name, i+1)
		}
		if len(order) > len(longest) {
			longest = order
		}
	}
	for k, o := range c.ops {
		h := 0
		for i, slot := range ledgers[k].slots {
			require.Len(c.t, slot, int(c.perSlot), "%s: slot %d", o.name, i)
			for _, s := range slot {
				require.Equal(c.t, longest[h].Hash(), s.Hash(), "%s: ledger at height %d", o.name, h+1)
				h++
			}
		}
		c.audit(o.name, ledgers[k])
	}
}

// audit checks a ledger from its first slot on.
func (c *cluster) audit(name string, led *memLedger) {
	c.t.Helper()
	a := NewAuditor(c.genesis)
	for i, slot := range led.slots {
		heights, err := a.Slot(slot, led.agreed[i])
		require.NoError(c.t, err)
		for j, h := range heights {
			require.Empty(c.t, h.Wrong, "%s: height %d", name, h.Height)
			require.Empty(c.t, h.Unproven, "%s: height %d", name, h.Height)
			require.Equal(c.t, i*len(slot)+j+1, int(h.Height))
			require.Equal(c.t, leaderOf(slot[j]), h.Leader)
			require.Greater(c.t, 3*h.Voted, 2*h.Power)
		}
	}
}

func (c *cluster) byAddress(a common.Address) *operator {
	c.t.Helper()
	for _, o := range c.ops {
		if o.address() == a {
			return o
		}
	}
	c.t.Fatalf("no operator %s", a)
	return nil
}

// testLog writes to the test's log, from LOG=debug or LOG=trace on everything.
func testLog(t *testing.T, name string) log.Logger {
	level := log.LevelWarn
	switch os.Getenv("LOG") {
	case "info":
		level = log.LevelInfo
	case "debug":
		level = log.LevelDebug
	case "trace":
		level = log.LevelTrace
	}
	w := &testWriter{t: t}
	t.Cleanup(w.end)
	return log.NewLogger(log.NewTerminalHandlerWithLevel(w, level, false)).With("node", name)
}

// testWriter drops what is written after the test's end.
type testWriter struct {
	mu sync.Mutex
	t  *testing.T
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(string(p[:len(p)-1]))
	}
	return len(p), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
