package devnet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"
)

// BlockSeen is a new head of one chain, as a user of its RPC saw it.
type BlockSeen struct {
	Chain    uint64
	Number   uint64
	Hash     common.Hash
	Parent   common.Hash
	Time     uint64 // seconds; the slot
	Txs      uint
	GasUsed  uint64
	GasLimit uint64
	// Late is how long after the slot's timestamp the block was seen; negative: before it.
	Late time.Duration
}

// SlotSeen is one slot over all chains.
type SlotSeen struct {
	Slot   uint64
	Blocks map[uint64]BlockSeen // by chain; a chain that took no part is missing
}

// Watch tells the slots as they happen, from the engines' public RPC alone.
type Watch struct {
	log    log.Logger
	chains []uint64
	out    chan SlotSeen
	cancel context.CancelFunc
	done   sync.WaitGroup
	blocks chan BlockSeen
}

// watchBuffer is how many slots may wait for the reader; then the oldest are dropped.
const watchBuffer = 256

// Watch starts watching all chains until Stop.
func (d *Devnet) Watch() *Watch { return d.ops[0].Watch() }

// Watch starts watching all chains at this operator until Stop.
func (o *Operator) Watch() *Watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watch{
		log: o.log.New("service", "watch"), chains: o.chains, cancel: cancel,
		out: make(chan SlotSeen, watchBuffer), blocks: make(chan BlockSeen, 64),
	}
	for _, id := range o.chains {
		url := o.EngineWS(id)
		w.done.Go(func() { w.follow(ctx, id, url) })
	}
	w.done.Go(func() { w.gather(ctx) })
	return w
}

// Slots gives each slot once, when all chains have their block of it or one has a later one.
func (w *Watch) Slots() <-chan SlotSeen { return w.out }

// Stop ends the watch.
func (w *Watch) Stop() {
	w.cancel()
	w.done.Wait()
}

// follow reads one chain's heads, over new connections when the engine goes away.
func (w *Watch) follow(ctx context.Context, chain uint64, url string) {
	for ctx.Err() == nil {
		if err := w.followOnce(ctx, chain, url); err != nil && ctx.Err() == nil {
			w.log.Debug("Heads are not told", "chain", chain, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * pollInterval):
		}
	}
}

func (w *Watch) followOnce(ctx context.Context, chain uint64, url string) error {
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close()
	heads := make(chan *types.Header, 64)
	sub, err := c.SubscribeNewHead(ctx, heads)
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
		case h := <-heads:
			b := BlockSeen{
				Chain: chain, Number: h.Number.Uint64(), Hash: h.Hash(), Parent: h.ParentHash, Time: h.Time,
				GasUsed: h.GasUsed, GasLimit: h.GasLimit, Late: time.Since(time.Unix(int64(h.Time), 0)),
			}
			if b.Txs, err = c.TransactionCount(ctx, b.Hash); err != nil {
				return err
			}
			select {
			case w.blocks <- b:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// gather puts the chains' blocks together by slot.
func (w *Watch) gather(ctx context.Context) {
	open := map[uint64]SlotSeen{}
	last := map[uint64]uint64{} // by chain: the time of its newest block
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-w.blocks:
			if open[b.Time].Blocks == nil {
				open[b.Time] = SlotSeen{Slot: b.Time, Blocks: map[uint64]BlockSeen{}}
			}
			open[b.Time].Blocks[b.Chain] = b
			last[b.Chain] = b.Time
			for _, slot := range slices.Sorted(maps.Keys(open)) {
				if w.complete(open[slot], last) {
					w.emit(open[slot])
					delete(open, slot)
				}
			}
		}
	}
}

// complete says whether every chain has its block in the slot or is past it.
func (w *Watch) complete(s SlotSeen, last map[uint64]uint64) bool {
	for _, id := range w.chains {
		if _, ok := s.Blocks[id]; !ok && last[id] <= s.Slot {
			return false
		}
	}
	return true
}

// emit hands a slot out; when nobody reads, the newest are kept.
func (w *Watch) emit(s SlotSeen) {
	for {
		select {
		case w.out <- s:
			return
		default:
		}
		select {
		case <-w.out:
		default:
		}
	}
}
