package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	ssrpc "github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// system is rollups that are sequenced, by stock or by ours, on an L1 of their own. L1 and what
// sends to them are in this process, sequencers and engines in others: those are what is measured.
type system struct {
	name    string
	chains  []uint64
	token   common.Address
	clients map[uint64]*rpc.Client // of the engines' public RPC
	eth     map[uint64]*ethclient.Client
	ws      map[uint64]string
	pids    func() []int
	// shared and metrics are ours alone.
	shared  *ssrpc.Client
	metrics string
	stop    func(ctx context.Context) error
}

// names of the systems.
const (
	nameStock = "stock"
	nameOurs  = "ours"
	// nameProcess is ours with op-geths that are processes of their own, behind the authenticated RPC, as
	// stock's are.
	nameProcess = "split"
)

// base is what both have in common: two rollups with blocks of 1 s, no batcher, no proposer, as
// they are the same software beside both.
func (c *Config) base(chains []uint64) devnet.Config {
	dc := c.Devnet
	dc.Chains = chains
	dc.NoBatcher, dc.NoProposer, dc.L1Poll = true, true, l1Poll
	return dc
}

// l1Poll is how often op-nodes ask for L1's head, which has blocks of 2 s.
const l1Poll = time.Second

// chainIDs are n of them.
func chainIDs(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = 901 + uint64(i)
	}
	return out
}

// startStock runs upstream's op-node and op-geth, without any of our patches: a process of each
// for every chain, connected as they are anywhere, by the authenticated RPC.
func (c *Config) startStock(ctx context.Context, chains []uint64) (_ *system, err error) {
	dc := c.base(chains)
	dc.Bare = true
	d, err := devnet.Start(ctx, dc)
	if err != nil {
		return nil, err
	}
	var geths []*devnet.Geth
	var nodes []*devnet.Child
	stop := func(ctx context.Context) error {
		var errs []error
		bounded, cancel := context.WithTimeout(ctx, stopTime)
		defer cancel()
		for _, n := range nodes {
			errs = append(errs, n.Stop(bounded))
		}
		for _, g := range geths {
			errs = append(errs, g.Stop(bounded))
		}
		return errors.Join(append(errs, d.Stop(ctx))...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop(context.WithoutCancel(ctx)))
		}
	}()
	l1Config := filepath.Join(d.Dir(), "l1-chain-config.json")
	data, err := json.Marshal(d.Genesis().L1.Config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(l1Config, data, 0o644); err != nil {
		return nil, err
	}
	ports, err := devnet.FreePorts(2 * len(chains))
	if err != nil {
		return nil, err
	}
	engines := map[uint64]*devnet.Geth{}
	for i, chain := range chains {
		dir := filepath.Join(d.Dir(), "stock", strconv.FormatUint(chain, 10))
		g, err := d.StartGeth(ctx, chain, c.stockGeth(), dir)
		if err != nil {
			return nil, err
		}
		geths, engines[chain] = append(geths, g), g
		n, err := startStockNode(c.stockNode(), []string{
			"--l1", d.L1().HTTP(), "--l1.beacon", d.L1().Beacon(), "--l1.rpckind", "standard", "--l1.http-poll-interval", l1Poll.String(),
			"--l1.epoch-poll-interval", "2s", "--rollup.l1-chain-config", l1Config,
			"--l2", g.Auth(), "--l2.jwt-secret", g.JWTPath(), "--rollup.config", filepath.Join(d.GenesisDir(), genesis.RollupFile(chain)),
			"--interop.dependency-set", filepath.Join(d.GenesisDir(), genesis.DepSetFile),
			"--sequencer.enabled", "--sequencer.l1-confs", strconv.FormatUint(dc.ConfDepth, 10),
			"--p2p.disable", "--rpc.addr", "127.0.0.1", "--rpc.port", strconv.Itoa(ports[2*i]), "--log.level", "warn",
			"--metrics.enabled", "--metrics.addr", "127.0.0.1", "--metrics.port", strconv.Itoa(ports[2*i+1]),
		}, filepath.Join(dir, "op-node.log"))
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	s := &system{name: nameStock, chains: chains, token: d.Genesis().TestToken, ws: map[uint64]string{}, stop: stop}
	s.pids = func() (out []int) {
		for i := range geths {
			out = append(out, geths[i].PID(), nodes[i].PID())
		}
		return out
	}
	urls := map[uint64]string{}
	for _, chain := range chains {
		urls[chain], s.ws[chain] = engines[chain].HTTP(), engines[chain].WS()
	}
	if err := s.connect(ctx, urls); err != nil {
		return nil, err
	}
	if err := s.quiet(ctx); err != nil {
		s.hangUp()
		return nil, err
	}
	return s, nil
}

// quiet has engines of their own processes log no more than embedded ones do. They say where they
// listen in a line of another level.
func (s *system) quiet(ctx context.Context) error {
	for _, c := range s.clients {
		if err := c.CallContext(ctx, nil, "debug_verbosity", 2); err != nil {
			return err
		}
	}
	return nil
}

// startStockNode runs an op-node that logs to a file.
func startStockNode(binary string, args []string, path string) (*devnet.Child, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	n, err := devnet.StartChild("stock op-node", binary, args, func(line string) { fmt.Fprintln(file, line) })
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	go func() { // ends with the process, after its last line
		<-n.Done()
		file.Close()
	}()
	return n, nil
}

// startOurs runs one operator, alone, with embedded engines, in one process.
func (c *Config) startOurs(ctx context.Context, chains []uint64) (*system, error) {
	return startDevnet(ctx, c.oneOperator(chains), nameOurs)
}

// startSplit runs one operator, alone, with engines that are processes of their own.
func (c *Config) startSplit(ctx context.Context, chains []uint64) (*system, error) {
	dc := c.oneOperator(chains)
	dc.Engines = devnet.Process
	s, err := startDevnet(ctx, dc, nameProcess)
	if err != nil {
		return nil, err
	}
	if err := s.quiet(ctx); err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (c *Config) oneOperator(chains []uint64) devnet.Config {
	dc := c.base(chains)
	dc.Operators, dc.Separate, dc.LogLevel = 1, true, "warn"
	return dc
}

// startDevnet runs a devnet whose first operator is measured.
func startDevnet(ctx context.Context, dc devnet.Config, name string) (_ *system, err error) {
	ports, err := devnet.FreePorts(1)
	if err != nil {
		return nil, err
	}
	dc.Ports.Metrics, dc.Relays = ports[0], relay.All
	dc.Sequencer = func(s *config.SharedSequencer) {
		// One sender is all of the load.
		s.RPCRate = 0
		s.Bundles.MaxPending, s.Bundles.MaxPerSender = 4096, 64
		s.Relays.SlotGas, s.Relays.SenderGas = 60_000_000, 60_000_000
	}
	d, err := devnet.Start(ctx, dc)
	if err != nil {
		return nil, err
	}
	o := d.Operator(0)
	s := &system{
		name: name, chains: dc.Chains, token: d.Genesis().TestToken, ws: map[uint64]string{}, stop: d.Stop,
		pids: func() []int { return []int{o.PID()} }, metrics: fmt.Sprintf("http://127.0.0.1:%d/metrics", ports[0]),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Stop(context.WithoutCancel(ctx)))
		}
	}()
	urls := map[uint64]string{}
	for _, chain := range dc.Chains {
		urls[chain], s.ws[chain] = o.EngineRPC(chain), o.EngineWS(chain)
	}
	if s.shared, err = o.Sequencer(ctx); err != nil {
		return nil, err
	}
	if err := s.connect(ctx, urls); err != nil {
		return nil, err
	}
	return s, nil
}

// starter is startStock, startOurs or startSplit.
type starter func(ctx context.Context, chains []uint64) (*system, error)

// fresh starts chains and runs f on them, with n senders that have money.
func fresh(ctx context.Context, start starter, chains []uint64, n int, f func(ctx context.Context, s *system, senders []*sender) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	s, err := start(ctx, chains)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	senders, err := newSenders(n)
	if err != nil {
		return err
	}
	if err := fund(ctx, s, senders); err != nil {
		return err
	}
	return f(ctx, s, senders)
}

// connect dials the engines, and waits until every chain is on time.
func (s *system) connect(ctx context.Context, urls map[uint64]string) (err error) {
	s.clients, s.eth = map[uint64]*rpc.Client{}, map[uint64]*ethclient.Client{}
	defer func() {
		if err != nil {
			s.hangUp()
		}
	}()
	for chain, url := range urls {
		c, err := rpc.DialContext(ctx, url)
		if err != nil {
			return fmt.Errorf("chain %d: %w", chain, err)
		}
		s.clients[chain], s.eth[chain] = c, ethclient.NewClient(c)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return s.awaitOnTime(ctx)
}

// awaitOnTime waits until every chain has had a few blocks, and the last one is of this moment.
func (s *system) awaitOnTime(ctx context.Context) error {
	for _, chain := range s.chains {
		if err := devnet.WaitFor(ctx, fmt.Sprintf("chain %d of %s to be on time", chain, s.name), func(ctx context.Context) (bool, error) {
			h, err := s.eth[chain].HeaderByNumber(ctx, nil)
			return err == nil && h.Number.Uint64() > 3 && behind(h) < 2*time.Second, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// behind is how long ago a block's timestamp is.
func behind(h *types.Header) time.Duration { return time.Since(time.Unix(int64(h.Time), 0)) }

// awaitMined waits until a transaction has been executed in a block.
func (s *system) awaitMined(ctx context.Context, chain uint64, tx common.Hash) error {
	var r *types.Receipt
	if err := devnet.WaitFor(ctx, fmt.Sprintf("transaction %s on chain %d of %s", tx, chain, s.name), func(ctx context.Context) (bool, error) {
		var err error
		r, err = s.eth[chain].TransactionReceipt(ctx, tx)
		return err == nil, nil
	}); err != nil {
		return err
	}
	if r.Status != types.ReceiptStatusSuccessful {
		return fmt.Errorf("transaction %s reverted on chain %d of %s", tx, chain, s.name)
	}
	return nil
}

// heads are the newest headers, by chain.
func (s *system) heads(ctx context.Context) (map[uint64]*types.Header, error) {
	out := map[uint64]*types.Header{}
	for _, chain := range s.chains {
		h, err := s.eth[chain].HeaderByNumber(ctx, nil)
		if err != nil {
			return nil, fmt.Errorf("chain %d of %s: %w", chain, s.name, err)
		}
		out[chain] = h
	}
	return out, nil
}

// awaitBlocks waits until every chain has n more blocks.
func (s *system) awaitBlocks(ctx context.Context, n uint64) error {
	first, err := s.heads(ctx)
	if err != nil {
		return err
	}
	return devnet.WaitFor(ctx, fmt.Sprintf("%d more blocks of %s", n, s.name), func(ctx context.Context) (bool, error) {
		now, err := s.heads(ctx)
		if err != nil {
			return false, err
		}
		behind := func(chain uint64) bool { return now[chain].Number.Uint64() < first[chain].Number.Uint64()+n }
		return !slices.ContainsFunc(s.chains, behind), nil
	})
}

// close ends it, and all that was opened to it.
func (s *system) close(ctx context.Context) error {
	s.hangUp()
	return s.stop(ctx)
}

// hangUp closes what connect has opened.
func (s *system) hangUp() {
	for _, c := range s.clients {
		c.Close()
	}
}

// window is what happened between two moments.
type window struct {
	took     time.Duration
	used     usage // CPU of the window, memory at its end
	blocks   map[uint64][]*types.Block
	missed   float64 // slots by which the chains fell behind, the mean over all
	gas      float64
	gasLimit float64
	dataGas  float64 // the DA footprint
	txs      float64
}

// during measures a system while f runs.
func (s *system) during(ctx context.Context, f func(ctx context.Context) error) (*window, error) {
	// From a head to a head: else there would be a block more or less in it by chance.
	if err := s.awaitBlocks(ctx, 1); err != nil {
		return nil, err
	}
	first, err := s.heads(ctx)
	if err != nil {
		return nil, err
	}
	before, err := usageOf(s.pids()...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	start := time.Now()
	if err := f(ctx); err != nil {
		return nil, err
	}
	if err := s.awaitBlocks(ctx, 1); err != nil {
		return nil, err
	}
	w := &window{took: time.Since(start), blocks: map[uint64][]*types.Block{}}
	after, err := usageOf(s.pids()...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	last, err := s.heads(ctx)
	if err != nil {
		return nil, err
	}
	w.used = usage{after.CPU - before.CPU, after.Memory}
	for _, chain := range s.chains {
		// Slots that are late are filled in the end: what is missed is how many are not yet. One may
		// be under way.
		slots := start.Add(w.took).Unix() - int64(first[chain].Time)
		if blocks := int64(last[chain].Number.Uint64() - first[chain].Number.Uint64()); slots > blocks+1 {
			w.missed += float64(slots-blocks-1) / float64(len(s.chains))
		}
		for n := first[chain].Number.Uint64() + 1; n <= last[chain].Number.Uint64(); n++ {
			b, err := s.block(ctx, chain, n)
			if err != nil {
				return nil, err
			}
			w.blocks[chain] = append(w.blocks[chain], b)
			w.gas += float64(b.GasUsed())
			w.gasLimit += float64(b.GasLimit())
			if footprint := b.BlobGasUsed(); footprint != nil { // the field's use since Jovian
				w.dataGas += float64(*footprint)
			}
			w.txs += float64(len(b.Transactions()) - 1) // L1 attributes
		}
	}
	return w, nil
}

// block reads a block with its transactions.
func (s *system) block(ctx context.Context, chain, number uint64) (*types.Block, error) {
	b, err := s.eth[chain].BlockByNumber(ctx, new(big.Int).SetUint64(number))
	if err != nil {
		return nil, fmt.Errorf("block %d of chain %d of %s: %w", number, chain, s.name, err)
	}
	return b, nil
}

// cpuName reads the processor's name; empty if it has none.
func cpuName(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
