package drill

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// reconnect is how soon an operator that went away is asked for its heads again.
const reconnect = 50 * time.Millisecond

// heads are the blocks that the operators have announced, as users of their RPC saw it.
type heads struct {
	log    log.Logger
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	seen    map[uint64][][]conductor.Head // by chain, by operator; in the order they came
	changed chan struct{}                 // closed and made anew with each head
}

// watchHeads begins to watch all chains at all operators, until close.
func watchHeads(d *devnet.Devnet, l log.Logger) *heads {
	ctx, cancel := context.WithCancel(context.Background())
	h := &heads{log: l, cancel: cancel, seen: map[uint64][][]conductor.Head{}, changed: make(chan struct{})}
	for _, chain := range d.Chains() {
		h.seen[chain] = make([][]conductor.Head, len(d.Operators()))
		for i, o := range d.Operators() {
			url := o.EngineWS(chain)
			h.all.Go(func() {
				for ctx.Err() == nil {
					if err := h.follow(ctx, chain, i, url); err != nil && ctx.Err() == nil {
						h.log.Debug("Heads are not told", "operator", i, "chain", chain, "err", err)
					}
					select {
					case <-ctx.Done():
					case <-time.After(reconnect):
					}
				}
			})
		}
	}
	return h
}

func (h *heads) close() {
	h.cancel()
	h.all.Wait()
}

func (h *heads) follow(ctx context.Context, chain uint64, operator int, url string) error {
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close()
	news := make(chan *types.Header, 64)
	sub, err := c.SubscribeNewHead(ctx, news)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-sub.Err():
			return err
		case b := <-news:
			h.add(chain, operator, conductor.Head{Number: b.Number.Uint64(), Hash: b.Hash(), Time: b.Time, At: time.Now()})
		}
	}
}

func (h *heads) add(chain uint64, operator int, b conductor.Head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[chain][operator] = append(h.seen[chain][operator], b)
	close(h.changed)
	h.changed = make(chan struct{})
}

// of are the heads of one chain at some operators.
func (h *heads) of(chain uint64, operators []int) [][]conductor.Head {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out [][]conductor.Head
	for _, i := range operators {
		out = append(out, slices.Clone(h.seen[chain][i]))
	}
	return out
}

// everything is what was announced, by chain and operator.
func (h *heads) everything() map[uint64][][]conductor.Head {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[uint64][][]conductor.Head{}
	for chain, seen := range h.seen {
		for _, list := range seen {
			out[chain] = append(out[chain], slices.Clone(list))
		}
	}
	return out
}

// last is the highest block of a chain that any of the operators had announced by a time.
func last(seen [][]conductor.Head, at time.Time) (conductor.Head, bool) {
	var out conductor.Head
	found := false
	for _, list := range seen {
		for _, b := range list {
			if b.At.After(at) {
				break
			}
			if !found || b.Number > out.Number {
				out, found = b, true
			}
		}
	}
	return out, found
}

// await returns when cond holds. It is looked at after every head and once in a while.
func (h *heads) await(ctx context.Context, cond func() bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if cond() {
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
