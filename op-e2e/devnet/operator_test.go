package devnet

import (
	"context"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// The test's program is also that of operators in processes of their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "operator" {
		if err := runTestOperator(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// L1's fake proof of stake and some of geth log to the default logger.
	log.SetDefault(log.NewLogger(log.DiscardHandler()))
	os.Exit(m.Run())
}

func runTestOperator(args []string) error {
	f := flag.NewFlagSet("operator", flag.ContinueOnError)
	dir, index := f.String("datadir", "", ""), f.Int("index", 0, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	file, _, err := OperatorLog(*dir, *index)
	if err != nil {
		return err
	}
	defer file.Close()
	l := log.NewLogger(log.NewTerminalHandlerWithLevel(file, log.LevelDebug, false))
	log.SetDefault(l)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return RunOperator(ctx, *dir, *index, l)
}

// A devnet's layout: everybody has a place of its own, knows all others, and finds its
// keys again.
func TestPlans(t *testing.T) {
	t.Parallel()
	keys, err := genesis.DevKeys()
	require.NoError(t, err)
	d := &Devnet{dir: t.TempDir(), keys: keys, chains: []uint64{901, 902}}
	d.cfg.Operators = 4
	d.cfg.ConsensusDial = func(from, to int, addr string) string {
		if from == 3 && to == 0 {
			return "127.0.0.1:1"
		}
		return addr
	}
	layout := func() []*operatorPlan {
		var plans []*operatorPlan
		for i := range 4 {
			plans = append(plans, &operatorPlan{
				Index: i, Root: d.dir, Dir: filepath.Join(d.dir, fmt.Sprint(i)), Chains: d.chains,
				Engine: map[uint64]int{901: 0, 902: 0}, Tuning: tuning{Subblocks: 5, FillLead: time.Second},
			})
		}
		plans[2].RPC = 12345
		require.NoError(t, d.connect(plans, newPorts()))
		return plans
	}
	first, again := layout(), layout()
	seen := map[int]bool{}
	for i, p := range first {
		listen := portOf(p.Listen)
		for _, port := range []int{p.Node, p.RPC, p.Engine[901], p.Engine[902], p.EngineP2P[901], p.EngineP2P[902], listen} {
			require.NotZero(t, port)
			require.False(t, seen[port], "port %d twice", port)
			seen[port] = true
		}
		require.Len(t, p.Peers, 3)
		require.Len(t, p.EnginePeers[902], 3)
		for j, peer := range p.Peers {
			id, _, _ := strings.Cut(peer, "@")
			other, _, _ := strings.Cut(again[i].Peers[j], "@")
			require.Equal(t, id, other, "the keys are kept")
		}
	}
	require.Equal(t, 12345, first[2].RPC)
	require.True(t, strings.HasSuffix(first[3].Peers[0], "@127.0.0.1:1"), "through the proxy")
	require.True(t, strings.HasSuffix(first[3].Peers[1], "@"+first[1].Listen))

	g, err := operators.LoadGenesis(first[0].Operators)
	require.NoError(t, err)
	require.Len(t, g.Operators, 4)
	require.Equal(t, chainIDs(d.chains), g.Chains)
	for i, o := range g.Operators {
		key, err := keys.Operator(i)
		require.NoError(t, err)
		signed, err := operators.SignChange(g.ID(), operators.Change{Kind: operators.JoinChain, Chain: 1}, key)
		require.NoError(t, err)
		signer, err := signed.Signer(g.ID())
		require.NoError(t, err)
		require.Equal(t, o.Address, signer)
	}

	require.NoError(t, first[1].write())
	read, err := readPlan(d.dir, 1)
	require.NoError(t, err)
	require.Equal(t, first[1], read)
	_, err = readPlan(d.dir, 2)
	require.ErrorContains(t, err, "operator 2")

	ss := config.DefaultSharedSequencer()
	first[1].Tuning.apply(&ss)
	require.Equal(t, first[1].Tuning, tuningOf(&ss))
}

func TestOperatorPorts(t *testing.T) {
	t.Parallel()
	p := Ports{Node: 7545, SharedSequencer: 7546, Status: 7547, Engines: map[uint64]int{901: 9545, 902: 0}}
	node, rpc, status, engines := p.of(0)
	require.Equal(t, []int{7545, 7546, 7547, 9545, 0}, []int{node, rpc, status, engines[901], engines[902]})
	node, rpc, status, engines = p.of(2)
	require.Equal(t, []int{0, 0, 0, 0, 0}, []int{node, rpc, status, engines[901], engines[902]}, "free ones")
	p.Stride = 10
	node, rpc, status, engines = p.of(2)
	require.Equal(t, []int{7565, 7566, 7567, 9565, 0}, []int{node, rpc, status, engines[901], engines[902]})
}

// The number of operators belongs to a directory.
func TestKeptOperators(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := DefaultConfig(log.NewLogger(log.DiscardHandler()))
	require.NoError(t, c.keep(dir))
	c.Operators = 1
	require.NoError(t, c.keep(dir))
	c.Operators = 4
	require.ErrorContains(t, c.keep(dir), "the number of operators is 4, but "+dir+" was made with 1")
}

// testGeth builds the patched op-geth; Go's build cache makes it quick the next time.
func testGeth(t *testing.T) string {
	t.Helper()
	tree, err := filepath.Abs(filepath.Join("..", "..", "build", "upstream", "op-geth"))
	require.NoError(t, err)
	bin := filepath.Join(t.TempDir(), "op-geth")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/geth")
	cmd.Dir, cmd.Env = tree, append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

// Transactions go from one operator's op-geth process to another's, without discovery.
func TestGethGossip(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	bin := testGeth(t)
	chain := enginetest.NewChain(901, 2)
	keys, err := genesis.DevKeys()
	require.NoError(t, err)
	free := newPorts()
	var ports [2]int
	var nodes [2]*enode.Node
	for i := range nodes {
		key, err := keys.EngineNode(i, 901)
		require.NoError(t, err)
		ports[i] = free.next(0)
		nodes[i] = embedded.Peer(&key.PublicKey, net.IPv4(127, 0, 0, 1), ports[i])
	}
	require.NoError(t, free.err)
	var clients [2]*ethclient.Client
	for i := range nodes {
		key, err := keys.EngineNode(i, 901)
		require.NoError(t, err)
		g, err := startGeth(ctx, gethConfig{Binary: bin, engineConfig: engineConfig{
			Chain: 901, Genesis: chain.Genesis, Dir: t.TempDir(), JWT: devnetJWT(), Small: true, Log: log.NewLogger(log.DiscardHandler()),
			P2P: &engineP2P{Key: key, Port: ports[i], Peers: []*enode.Node{nodes[1-i]}},
		}})
		require.NoError(t, err)
		defer func() { require.NoError(t, g.Stop(ctx)) }()
		if clients[i], err = ethclient.DialContext(ctx, g.HTTP()); err == nil {
			defer clients[i].Close()
		}
		require.NoError(t, err)
		e, err := engine.Dial(ctx, log.NewLogger(log.DiscardHandler()), chain.Rollup, g.Auth(), devnetJWT(), engine.Options{})
		require.NoError(t, err)
		defer e.Close()
		head, err := e.Head(ctx)
		require.NoError(t, err)
		// Before it is given a head, op-geth drops what peers send.
		require.NoError(t, e.SetHead(ctx, head.Hash, common.Hash{}, common.Hash{}))
	}
	require.NoError(t, WaitFor(ctx, "the engines to meet", func(ctx context.Context) (bool, error) {
		n, err := clients[0].PeerCount(ctx)
		return n == 1, err
	}))
	for i := range clients {
		tx := enginetest.Decode(t, chain.Transfer(i, 0, enginetest.Recipient(0)))
		require.NoError(t, clients[i].SendTransaction(ctx, tx))
		require.NoError(t, WaitFor(ctx, "the other pool to have it", func(ctx context.Context) (bool, error) {
			_, pending, err := clients[1-i].TransactionByHash(ctx, tx.Hash())
			return pending, err
		}))
	}
}

// Four operators agree; one after the other ends and comes back, and nobody waits for it:
// users are served by any of them, and batchers find one that runs.
func TestOperators(t *testing.T) {
	for name, separate := range map[string]bool{"one process": false, "separate processes": true} {
		t.Run(name, func(t *testing.T) { testOperators(t, separate) })
	}
}

func testOperators(t *testing.T, separate bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer file.Close()
	cfg := DefaultConfig(log.NewLogger(log.NewTerminalHandlerWithLevel(file, log.LevelInfo, false)))
	cfg.Operators, cfg.Separate, cfg.Command, cfg.NoProposer = 4, separate, []string{os.Args[0], "operator"}, true
	cfg.LogLevel = "debug"
	// The machine may be busy: a leader that is only slow is given its time.
	cfg.Sequencer = func(s *config.SharedSequencer) { s.Agreement.TimeoutPropose = time.Second }
	d, err := Start(ctx, cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Stop(context.WithoutCancel(ctx))) }()
	require.Len(t, d.Endpoints().Operators, 4)
	end := func(i int) {
		if separate {
			require.NoError(t, d.Operator(i).Kill())
		} else {
			require.NoError(t, d.StopOperator(ctx, i))
		}
		require.False(t, d.Operator(i).Running())
	}
	// advances waits until an operator's chains have n more blocks.
	advances := func(o *Operator, n uint64) {
		for _, id := range d.Chains() {
			c, err := o.Eth(id)
			require.NoError(t, err)
			from, err := c.BlockNumber(ctx)
			require.NoError(t, err)
			require.NoError(t, WaitFor(ctx, fmt.Sprintf("chain %d at operator %d to advance", id, o.Index()), func(ctx context.Context) (bool, error) {
				now, err := c.BlockNumber(ctx)
				return now >= from+n, err
			}))
		}
	}
	// same checks that two operators have the same blocks, up to a's present head.
	same := func(a, b *Operator) {
		for _, id := range d.Chains() {
			ca, err := a.Eth(id)
			require.NoError(t, err)
			cb, err := b.Eth(id)
			require.NoError(t, err)
			head, err := ca.HeaderByNumber(ctx, nil)
			require.NoError(t, err)
			require.NoError(t, WaitFor(ctx, fmt.Sprintf("block %d of chain %d at operator %d", head.Number, id, b.Index()), func(ctx context.Context) (bool, error) {
				h, err := cb.HeaderByNumber(ctx, head.Number)
				return err == nil && h.Hash() == head.Hash(), err
			}))
		}
	}
	user := func(i uint64) Account {
		a, err := User(i)
		require.NoError(t, err)
		return a
	}

	advances(d.Operator(0), 3)

	// A plain transaction sent to one operator is executed whoever leads.
	from, to := user(3), common.Address{0x3a}
	tx, err := from.Sign(Tx{Chain: d.Chains()[0], To: to, Value: big.NewInt(1)})
	require.NoError(t, err)
	c, err := d.Operator(2).Eth(d.Chains()[0])
	require.NoError(t, err)
	require.NoError(t, c.SendTransaction(ctx, tx))
	require.NoError(t, WaitFor(ctx, "the transfer", func(ctx context.Context) (bool, error) {
		c, err := d.Operator(1).Eth(d.Chains()[0])
		if err != nil {
			return false, err
		}
		r, err := c.TransactionReceipt(ctx, tx.Hash())
		return err == nil && r.Status == 1, err
	}))

	// A bundle sent to one of them is known to all.
	args, _, err := d.NewBundle().Tx(user(5), SendETH(d.Chains()[1], 0, common.Address{0x5a}, d.Chains()[0], big.NewInt(5))).Sign(ctx)
	require.NoError(t, err)
	seq, err := d.Operator(2).Sequencer(ctx)
	require.NoError(t, err)
	sent, err := seq.SendBundle(ctx, args)
	require.NoError(t, err)
	for _, o := range d.Operators() {
		seq, err := o.Sequencer(ctx)
		require.NoError(t, err)
		require.NoError(t, WaitFor(ctx, fmt.Sprintf("operator %d to say that the bundle is executed", o.Index()), func(ctx context.Context) (bool, error) {
			st, err := seq.BundleStatus(ctx, sent.BundleHash)
			return err == nil && st.State == bundlepool.Executed, err
		}))
	}

	// One operator of four is missed by nobody, and catches up.
	end(1)
	advances(d.Operator(0), 4)
	st, err := d.NewBundle().Tx(user(4), SendETH(d.Chains()[0], 0, common.Address{0x4a}, d.Chains()[1], big.NewInt(5))).Run(ctx)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Executed, st.State, "%v", st.Failure)
	require.NoError(t, d.StartOperator(ctx, 1))
	same(d.Operator(0), d.Operator(1))

	// Batchers go on with another operator.
	end(0)
	advances(d.Operator(1), 4)
	for _, id := range d.Chains() {
		status, err := d.Operator(1).Rollup(id).SyncStatus(ctx)
		require.NoError(t, err)
		require.NoError(t, WaitFor(ctx, fmt.Sprintf("the newest block of chain %d to be safe", id), func(ctx context.Context) (bool, error) {
			now, err := d.Operator(1).Rollup(id).SyncStatus(ctx)
			return err == nil && now.LocalSafeL2.Number >= status.UnsafeL2.Number, err
		}))
	}
	require.NoError(t, d.StartOperator(ctx, 0))
	same(d.Operator(1), d.Operator(0))

	if separate {
		// Frozen, it answers nobody, and nobody waits.
		require.NoError(t, d.Operator(3).Signal(syscall.SIGSTOP))
		advances(d.Operator(0), 4)
		require.NoError(t, d.Operator(3).Signal(syscall.SIGCONT))
		same(d.Operator(0), d.Operator(3))
	}
	for _, o := range d.Operators()[1:] {
		same(d.Operator(0), o)
	}
}
