package system

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// A devnet that is stopped and started again goes on where it was, and so does a node
// that is restarted under a running devnet.
func TestRestart(t *testing.T) {
	ctx := patient(t)
	cfg := devnet.DefaultConfig(logger(t))
	cfg.Dir = t.TempDir()
	var before map[uint64][]common.Hash
	same := func(s *scenario) {
		for id, old := range before {
			now := s.hashes(id)
			require.GreaterOrEqual(t, len(now), len(old), "no block of chain %d is lost", id)
			require.Equal(t, old, now[:len(old)], "no block of chain %d has changed", id)
		}
	}
	var bridged []devnet.Executed
	for round := range 2 {
		d, err := devnet.Start(ctx, cfg)
		require.NoError(t, err)
		s := &scenario{t: t, ctx: ctx, Devnet: d}
		same(s)
		_, err = devnet.Start(ctx, cfg)
		require.ErrorContains(t, err, "another devnet runs in")
		require.NoError(t, d.AwaitOnTime(ctx))
		b, _ := s.bridge(s.user(2), chainA, chainB)
		bridged = append(bridged, s.executes(b)...)
		if round == 1 {
			require.NoError(t, d.StopNode(ctx))
			before = map[uint64][]common.Hash{chainA: s.hashes(chainA), chainB: s.hashes(chainB)}
			require.NoError(t, d.StartNode(ctx))
			same(s)
			require.NoError(t, d.AwaitOnTime(ctx))
			b, _ := s.bridge(s.user(3), chainB, chainA)
			bridged = append(bridged, s.executes(b)...)
			s.awaitCrossSafe(bridged[len(bridged)-1].Timestamp)
			for _, tx := range bridged {
				require.True(t, s.included(tx.Chain, tx.TxHash))
			}
			s.lockstep(1, s.head(chainA)-1)
		}
		require.NoError(t, d.StopNode(ctx))
		before = map[uint64][]common.Hash{chainA: s.hashes(chainA), chainB: s.hashes(chainB)}
		require.NoError(t, d.Stop(ctx))
	}
}

// announced are the heads that a chain's RPC has told, by number.
type announced struct {
	mu    sync.Mutex
	heads map[uint64]map[uint64]common.Hash // by chain
}

func (a *announced) add(chain uint64, h *types.Header) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heads[chain][h.Number.Uint64()] = h.Hash()
}

// newest is the highest number that every chain has announced.
func (a *announced) newest() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	least := ^uint64(0)
	for _, heads := range a.heads {
		most := uint64(0)
		for n := range heads {
			most = max(most, n)
		}
		least = min(least, most)
	}
	return least
}

// follow records what a chain announces until its connection breaks.
func (a *announced) follow(ctx context.Context, chain uint64, url string) {
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return
	}
	defer c.Close()
	heads := make(chan *types.Header, 64)
	sub, err := c.SubscribeNewHead(ctx, heads)
	if err != nil {
		return
	}
	defer sub.Unsubscribe()
	for {
		select {
		case h := <-heads:
			a.add(chain, h)
		case <-sub.Err():
			// What came before the end is still in the channel.
			for len(heads) > 0 {
				a.add(chain, <-heads)
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// `devnet up`, with L1, engines and node in one process, is killed at random moments.
// Every time it comes back with all the blocks it had announced, on both chains.
func TestKill(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 4
	}
	ctx := patient(t)
	bin := filepath.Join(root(), "build", "system", "devnet")
	build := exec.Command("go", "build", "-o", bin, "./op-e2e/cmd/devnet")
	build.Dir = root()
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	dir := filepath.Join(t.TempDir(), "devnet")
	logFile := filepath.Join(root(), "build", "system", t.Name()+".log")
	_ = os.Remove(logFile)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d; log of all services: %s", seed, logFile)

	seen := &announced{heads: map[uint64]map[uint64]common.Hash{chainA: {}, chainB: {}}}
	// run starts the devnet and returns its endpoints once it is up, or the end of ready.
	run := func() (*devnet.Child, error) {
		_ = os.Remove(filepath.Join(dir, devnet.EndpointsFile))
		return devnet.StartChild("devnet", bin, []string{
			"up", "--free-ports", "--datadir", dir, "--load", "20", "--log.file", logFile, "--artifacts", artifacts(t),
		}, func(string) {})
	}
	ready := func(p *devnet.Child) *devnet.Endpoints {
		var e *devnet.Endpoints
		require.NoError(t, devnet.WaitFor(ctx, "the devnet to be up", func(context.Context) (_ bool, err error) {
			select {
			case <-p.Done():
				require.Fail(t, "the devnet ended by itself")
			default:
			}
			e, err = devnet.ReadEndpoints(dir)
			return err == nil, err
		}))
		return e
	}
	check := func(e *devnet.Endpoints) {
		for id, heads := range seen.heads {
			c, err := ethclient.DialContext(ctx, e.Chains[id].RPC)
			require.NoError(t, err)
			for n, hash := range heads {
				h, err := c.HeaderByNumber(ctx, bigInt(n))
				require.NoError(t, err, "block %d of chain %d was announced and is gone", n, id)
				require.Equal(t, hash, h.Hash(), "block %d of chain %d was announced and has changed", n, id)
			}
			c.Close()
		}
	}
	for i := range kills {
		p, err := run()
		require.NoError(t, err)
		if i%5 == 4 { // while it starts
			wait(ctx, time.Duration(rng.Int64N(int64(3*time.Second))))
			p.Kill()
			continue
		}
		e := ready(p)
		check(e)
		follow, cancel := context.WithCancel(ctx)
		var followers sync.WaitGroup
		for id := range seen.heads {
			followers.Go(func() { seen.follow(follow, id, e.Chains[id].WS) })
		}
		target := seen.newest() + 1 + rng.Uint64N(4)
		require.NoError(t, devnet.WaitFor(ctx, fmt.Sprintf("block %d to be announced", target), func(context.Context) (bool, error) {
			select {
			case <-p.Done():
				require.Fail(t, "the devnet ended by itself")
			default:
			}
			return seen.newest() >= target, nil
		}))
		wait(ctx, time.Duration(rng.Int64N(int64(time.Second)))) // any moment of a slot
		p.Kill()
		followers.Wait()
		cancel()
		t.Logf("kill %d at block %d", i+1, seen.newest())
	}
	p, err := run()
	require.NoError(t, err)
	e := ready(p)
	check(e)
	stop, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, p.Stop(stop))
}

// wait lets a random time pass: the moment of a kill is not to depend on anything.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// An engine of its own process is killed and comes back: the slots go on, in lockstep,
// and no block is lost or changed.
func TestEngineRestart(t *testing.T) {
	geth := filepath.Join(root(), "build", "system", "op-geth")
	command(t, filepath.Join(root(), "build", "upstream", "op-geth"), "go", "build", "-o", geth, "./cmd/geth")
	s := start(t, func(c *devnet.Config) { c.Engines, c.Geth = devnet.Process, geth })
	load, err := s.StartLoad(20)
	require.NoError(t, err)
	defer load.Stop()
	first := s.head(chainA)
	for name, end := range map[string]func(g *devnet.Geth){
		"killed":  func(g *devnet.Geth) { g.Kill() },
		"stopped": func(g *devnet.Geth) { require.NoError(t, g.Stop(s.ctx)) },
	} {
		b, _ := s.bridge(s.user(2), chainA, chainB)
		s.executes(b)
		before := map[uint64][]common.Hash{chainA: s.hashes(chainA), chainB: s.hashes(chainB)}
		g := s.EngineProcess(chainB)
		pid := g.PID()
		end(g)
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "the engine is gone")
		require.NoError(t, g.Start(s.ctx))
		require.NoError(t, s.AwaitOnTime(s.ctx), "after the engine was %s", name)
		for id, old := range before {
			now := s.hashes(id)
			require.Equal(t, old, now[:len(old)], "no block of chain %d has changed after the engine was %s", id, name)
		}
		b, _ = s.bridge(s.user(3), chainB, chainA)
		slot := s.executes(b)[0].Timestamp
		s.awaitCrossSafe(slot)
	}
	s.lockstep(first, s.head(chainA)-1)
}
