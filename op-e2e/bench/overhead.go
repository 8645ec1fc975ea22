package bench

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
)

// overheadRate is how many transfers a second each chain gets when nothing crosses chains.
const overheadRate = 10

// overhead sends a few transfers, none of them across chains.
func (c *Config) overhead(ctx context.Context, s *system, from *sender, out *Overhead) error {
	heads, err := watchHeads(ctx, s)
	if err != nil {
		return err
	}
	defer heads.stop()
	sent := map[common.Hash]time.Time{}
	var mu sync.Mutex
	w, err := s.during(ctx, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, chain := range s.chains {
			txs, err := sign([]*sender{from}, transfers(), chain, overheadRate*out.Seconds)
			if err != nil {
				return err
			}
			group.Go(func() error {
				start := time.Now()
				for i, tx := range txs {
					// Spread evenly over all moments of a slot: a place in its tenth of a second that moves by
					// the golden ratio.
					_, part := math.Modf(float64(i) * math.Phi)
					due := time.Duration((float64(i) + part) / overheadRate * float64(time.Second))
					if err := sleep(ctx, time.Until(start.Add(due))); err != nil {
						return err
					}
					at := time.Now()
					if err := send(ctx, s.clients[chain], []*types.Transaction{tx}); err != nil {
						return err
					}
					mu.Lock()
					sent[tx.Hash()] = at
					mu.Unlock()
				}
				return nil
			})
		}
		return group.Wait()
	})
	if err != nil {
		return err
	}
	if err := heads.wait(ctx, slices.Collect(maps.Keys(sent))); err != nil {
		return err
	}
	var latency, jitter []time.Duration
	heads.mu.Lock()
	defer heads.mu.Unlock()
	for tx, at := range sent {
		if in, ok := heads.included[tx]; ok {
			latency = append(latency, in.Sub(at))
		}
	}
	for _, list := range heads.at {
		for i, h := range list {
			if i > 0 {
				apart := h.seen.Sub(list[i-1].seen) - time.Duration(h.time-list[i-1].time)*time.Second
				jitter = append(jitter, time.Duration(math.Abs(float64(apart))))
			}
		}
	}
	blocks := 0
	for _, list := range w.blocks {
		blocks += len(list)
	}
	out.LatencyP50.add(s.name, percentile(latency, 50))
	out.LatencyP99.add(s.name, percentile(latency, 99))
	out.JitterP50.add(s.name, percentile(jitter, 50))
	out.JitterP99.add(s.name, percentile(jitter, 99))
	out.BehindP50.add(s.name, percentile(heads.behind(), 50))
	cpu := float64(w.used.CPU.Microseconds()) / 1000 / float64(max(1, blocks))
	out.CPU.add(s.name, cpu)
	out.Memory.add(s.name, w.used.Memory)
	fmt.Fprintf(c.Out, "  %-5s idle      %5.1f ms CPU a block  latency p50 %.0f p99 %.0f ms  jitter p50 %.1f p99 %.1f ms  %.0f MB\n", s.name,
		cpu, percentile(latency, 50), percentile(latency, 99), percentile(jitter, 50), percentile(jitter, 99), w.used.Memory)
	return nil
}

// percentile in milliseconds.
func percentile(values []time.Duration, p float64) float64 {
	return float64(conductor.Percentile(values, p).Microseconds()) / 1000
}

// headTimes is when heads were told, and when transactions were in them.
type headTimes struct {
	mu       sync.Mutex
	at       map[uint64][]headTime
	included map[common.Hash]time.Time
	failed   error
	stops    []func()
	group    sync.WaitGroup
}

type headTime struct {
	time uint64
	seen time.Time
}

// watchHeads subscribes to the heads of all chains, until stop.
func watchHeads(ctx context.Context, s *system) (*headTimes, error) {
	h := &headTimes{at: map[uint64][]headTime{}, included: map[common.Hash]time.Time{}}
	for _, chain := range s.chains {
		c, err := ethclient.DialContext(ctx, s.ws[chain])
		if err != nil {
			h.stop()
			return nil, fmt.Errorf("chain %d: %w", chain, err)
		}
		heads := make(chan *types.Header, 256)
		sub, err := c.SubscribeNewHead(ctx, heads)
		if err != nil {
			c.Close()
			h.stop()
			return nil, fmt.Errorf("chain %d: %w", chain, err)
		}
		h.stops = append(h.stops, func() { sub.Unsubscribe(); c.Close() })
		h.group.Go(func() { h.follow(ctx, c, chain, heads, sub.Err()) })
	}
	return h, nil
}

// behind is how long after its timestamp each head was told. Callers hold the lock.
func (h *headTimes) behind() (out []time.Duration) {
	for _, list := range h.at {
		for _, head := range list {
			out = append(out, head.seen.Sub(time.Unix(int64(head.time), 0)))
		}
	}
	return out
}

func (h *headTimes) follow(ctx context.Context, c *ethclient.Client, chain uint64, heads chan *types.Header, ended <-chan error) {
	for {
		select {
		case head := <-heads:
			seen := time.Now()
			b, err := c.BlockByHash(ctx, head.Hash())
			h.mu.Lock()
			if err != nil {
				if h.failed == nil && ctx.Err() == nil {
					h.failed = fmt.Errorf("block %d of chain %d: %w", head.Number, chain, err)
				}
				h.mu.Unlock()
				return
			}
			h.at[chain] = append(h.at[chain], headTime{head.Time, seen})
			for _, tx := range b.Transactions() {
				h.included[tx.Hash()] = seen
			}
			h.mu.Unlock()
		case err := <-ended: // nil: we unsubscribed
			h.mu.Lock()
			defer h.mu.Unlock()
			if err != nil && h.failed == nil {
				h.failed = fmt.Errorf("heads of chain %d: %w", chain, err)
			}
			return
		}
	}
}

// seen is when a transaction's block was told.
func (h *headTimes) seen(tx common.Hash) (at time.Time, ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok = h.included[tx]
	return at, ok, h.failed
}

// lookTick is how often what was seen is looked at, which costs nobody else anything.
const lookTick = 50 * time.Millisecond

// wait returns when all transactions have been seen.
func (h *headTimes) wait(ctx context.Context, txs []common.Hash) error {
	for _, tx := range txs {
		for {
			if _, ok, err := h.seen(tx); err != nil {
				return err
			} else if ok {
				break
			}
			if err := sleep(ctx, lookTick); err != nil {
				return fmt.Errorf("transaction %s was not seen in a head: %w", tx, err)
			}
		}
	}
	return nil
}

func (h *headTimes) stop() {
	for _, stop := range h.stops {
		stop()
	}
	h.group.Wait()
	h.stops = nil
}
