package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
)

// backlog is for how many full blocks transactions wait in a pool.
const backlog = 4

// mostPerSecond is how many transactions a second a round is prepared for, on each chain. It is
// more than this kind of machine takes.
const mostPerSecond = 2500

// saturate offers more than the chains take for a while.
func (c *Config) saturate(ctx context.Context, s *system, senders []*sender, w workload, out *Saturation) error {
	perBlock := int(genesis.DefaultGasLimit / w.gas)
	seconds := out.Seconds
	feeds := make([]*feed, len(s.chains))
	for i, chain := range s.chains {
		txs, err := sign(senders, w, chain, min(perBlock, mostPerSecond)*(seconds+8)+2*backlog*perBlock)
		if err != nil {
			return err
		}
		feeds[i] = &feed{client: s.clients[chain], txs: txs, depth: backlog * perBlock}
	}
	group, feeding := errgroup.WithContext(ctx)
	feeding, stop := context.WithCancel(feeding)
	defer stop()
	for i, f := range feeds {
		group.Go(func() error {
			if err := f.run(feeding); feeding.Err() == nil { // it ends with an error alone
				return fmt.Errorf("chain %d of %s: %w", s.chains[i], s.name, err)
			}
			return nil
		})
	}
	// Begin when blocks are full.
	if err := sleep(feeding, 3*time.Second); err != nil {
		return errors.Join(group.Wait(), err)
	}
	for _, f := range feeds {
		f.least.Store(int64(f.depth))
	}
	got, err := s.during(ctx, func(ctx context.Context) error { return sleep(feeding, time.Duration(seconds)*time.Second) })
	stop()
	if ended := group.Wait(); ended != nil {
		return ended
	}
	if err != nil {
		return err
	}
	waiting := math.Inf(1)
	for _, f := range feeds {
		waiting = min(waiting, float64(f.least.Load())/float64(perBlock))
	}
	out.Waiting.add(s.name, waiting)
	cpu := got.used.CPU.Seconds()
	out.GasLimit = genesis.DefaultGasLimit
	out.GasPerSecond.add(s.name, got.gas/got.took.Seconds())
	out.GasPerCPU.add(s.name, got.gas/cpu)
	out.CPUPerMgas.add(s.name, cpu/(got.gas/1e6))
	out.Missed.add(s.name, got.missed)
	out.Fullness.add(s.name, got.gas/got.gasLimit)
	out.Footprint.add(s.name, got.dataGas/got.gasLimit)
	out.Transactions.add(s.name, got.txs/got.took.Seconds())
	fmt.Fprintf(c.Out, "  %-5s %-9s %6.1f Mgas/s  %6.1f Mgas per CPU second  %5.0f tx/s  %.0f %% full  %.0f %% of the data  %.1f missed  %.1f blocks wait\n", s.name, w.name,
		got.gas/got.took.Seconds()/1e6, got.gas/cpu/1e6, got.txs/got.took.Seconds(), 100*got.gas/got.gasLimit, 100*got.dataGas/got.gasLimit, got.missed, waiting)
	if err := s.drain(ctx); err != nil {
		return err
	}
	return s.renumber(ctx, senders) // not all that was signed was sent
}

// sleep ends early when ctx does.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// feed keeps a chain's pool filled.
type feed struct {
	client *rpc.Client
	txs    []*types.Transaction
	depth  int // transactions that wait
	least  atomic.Int64
}

// poolTick is how often a pool is looked at, in which several seconds' transactions wait. Not more often: the
// process that is measured answers.
const poolTick = 250 * time.Millisecond

// run keeps the pool filled, until the context ends or something fails.
func (f *feed) run(ctx context.Context) error {
	for {
		n, err := pending(ctx, f.client)
		if err != nil {
			return err
		}
		f.least.Store(min(f.least.Load(), int64(n)))
		// If all were sent, what waits tells whether that was enough.
		for n < f.depth && len(f.txs) > 0 {
			k := min(batchSize, len(f.txs))
			if err := send(ctx, f.client, f.txs[:k]); err != nil {
				return err
			}
			f.txs, n = f.txs[k:], n+k
		}
		if err := sleep(ctx, poolTick); err != nil {
			return err
		}
	}
}

// pending is how many transactions of a pool can be executed now.
func pending(ctx context.Context, c *rpc.Client) (int, error) {
	var st struct{ Pending hexutil.Uint }
	err := c.CallContext(ctx, &st, "txpool_status")
	return int(st.Pending), err
}

// drain waits until the pools are empty and the chains on time again.
func (s *system) drain(ctx context.Context) error {
	for _, chain := range s.chains {
		if err := devnet.WaitFor(ctx, fmt.Sprintf("the pool of chain %d of %s to be empty", chain, s.name), func(ctx context.Context) (bool, error) {
			n, err := pending(ctx, s.clients[chain])
			return n == 0, err
		}); err != nil {
			return err
		}
	}
	return s.awaitOnTime(ctx)
}
