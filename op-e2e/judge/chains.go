package judge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	cc "github.com/ethereum-optimism/optimism/op-supernode/supernode/chain_container"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// announcement is a block that an operator's public RPC has told of as the new head.
type announcement struct {
	chain, number uint64
	hash          common.Hash
}

// heads are the blocks that the operators have announced.
type heads struct {
	d       *devnet.Devnet
	watches []*devnet.Watch
	cancel  context.CancelFunc
	all     sync.WaitGroup

	mu   sync.Mutex
	seen map[announcement]bool
}

// watchHeads begins to watch all chains at all operators, until close.
func watchHeads(d *devnet.Devnet) *heads {
	ctx, cancel := context.WithCancel(context.Background())
	h := &heads{d: d, cancel: cancel, seen: map[announcement]bool{}}
	for _, o := range d.Operators() {
		w := o.Watch()
		h.watches = append(h.watches, w)
		h.all.Go(func() {
			for {
				select {
				case s := <-w.Slots():
					h.add(s)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return h
}

func (h *heads) add(s devnet.SlotSeen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range s.Blocks {
		h.seen[announcement{b.Chain, b.Number, b.Hash}] = true
	}
}

// announced are all of them, ascending.
func (h *heads) announced() []announcement {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []announcement
	for a := range h.seen {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b announcement) int {
		return cmp.Or(cmp.Compare(a.chain, b.chain), cmp.Compare(a.number, b.number), a.hash.Cmp(b.hash))
	})
	return out
}

func (h *heads) close() {
	h.cancel()
	for _, w := range h.watches {
		w.Stop()
	}
	h.all.Wait()
}

// each does something for every chain at every operator, one after the other.
func (r *run) each(f func(o *devnet.Operator, chain uint64) error) error {
	for _, o := range r.d.Operators() {
		for _, chain := range r.d.Chains() {
			if err := f(o, chain); err != nil {
				return fmt.Errorf("chain %d of operator %d: %w", chain, o.Index(), err)
			}
		}
	}
	return nil
}

// header is a block of an operator's chain, its head without a number.
func header(ctx context.Context, o *devnet.Operator, chain uint64, number *big.Int) (*types.Header, error) {
	c, err := o.Eth(chain)
	if err != nil {
		return nil, err
	}
	return c.HeaderByNumber(ctx, number)
}

// verified waits until op-supernode of every operator has verified what is announced now, and
// returns how far that goes. Blocks that executed messages of an invalidated one are
// replaced in turn, so the heads may go back meanwhile: then it begins anew.
func (r *run) verified(ctx context.Context) (upTo map[uint64]uint64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it took more than %s", settleTime))
	defer cancel()
	for {
		at := map[uint64]*types.Header{}
		upTo = map[uint64]uint64{}
		for _, chain := range r.d.Chains() {
			if at[chain], err = header(ctx, r.d.Operator(0), chain, nil); err != nil {
				return nil, fmt.Errorf("head of chain %d: %w", chain, err)
			}
			upTo[chain] = at[chain].Number.Uint64()
		}
		if err := r.each(func(o *devnet.Operator, chain uint64) error {
			return devnet.WaitFor(ctx, fmt.Sprintf("block %d to be verified", upTo[chain]), func(ctx context.Context) (bool, error) {
				st, err := o.Rollup(chain).SyncStatus(ctx)
				if err != nil {
					return false, err
				}
				return st.SafeL2.Time >= at[chain].Time && st.LocalSafeL2.Time >= at[chain].Time, nil
			})
		}); err != nil {
			return nil, err
		}
		stayed := true
		if err := r.each(func(o *devnet.Operator, chain uint64) error {
			h, err := header(ctx, o, chain, at[chain].Number)
			stayed = stayed && err == nil && h.Hash() == at[chain].Hash()
			return err
		}); err != nil {
			return nil, err
		}
		if stayed {
			return upTo, nil
		}
	}
}

// compare counts the announced blocks up to the given ones that are not in every operator's
// chain.
func (r *run) compare(ctx context.Context, upTo map[uint64]uint64) error {
	for _, a := range r.heads.announced() {
		if a.number == 0 || a.number > upTo[a.chain] {
			continue
		}
		for _, o := range r.d.Operators() {
			h, err := header(ctx, o, a.chain, new(big.Int).SetUint64(a.number))
			if err != nil {
				return fmt.Errorf("block %d of chain %d at operator %d: %w", a.number, a.chain, o.Index(), err)
			}
			if h.Hash() != a.hash {
				r.rep.find(&r.rep.Replaced, 1, "replaced", "block %d of chain %d was announced as %s and is %s at operator %d", a.number, a.chain, a.hash, h.Hash(), o.Index())
				break
			}
		}
		r.rep.Blocks++
	}
	return nil
}

// executedMessages reads the executing messages in the chains up to the given blocks, by
// transaction. compare has made sure that all operators have the same blocks.
func (r *run) executedMessages(ctx context.Context, upTo map[uint64]uint64) (map[placed][]executedMessage, error) {
	out := map[placed][]executedMessage{}
	for _, chain := range r.d.Chains() {
		c, err := r.d.Eth(chain)
		if err != nil {
			return nil, err
		}
		for n := uint64(1); n <= upTo[chain]; n++ {
			receipts, err := c.BlockReceipts(ctx, rpc.BlockNumberOrHashWithNumber(rpc.BlockNumber(n)))
			if err != nil {
				return nil, fmt.Errorf("receipts of block %d of chain %d: %w", n, chain, err)
			}
			for _, receipt := range receipts {
				for _, l := range receipt.Logs {
					m, err := messages.DecodeExecutingMessageLog(l)
					if err != nil {
						return nil, fmt.Errorf("log %d of block %d of chain %d: %w", l.Index, n, chain, err)
					}
					if m != nil {
						p := placed{chain, receipt.TxHash}
						out[p] = append(out[p], executedMessage{m.Timestamp, slotOf(r.d, chain, n)})
					}
				}
			}
		}
	}
	return out, nil
}

// lockstepTime is for how long all chains have to be on time.
const lockstepTime = 3 * time.Second

// lockstep waits until every chain is on time at every operator, with the same blocks, and
// stays so for some slots.
func (r *run) lockstep(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it took more than %s", settleTime))
	defer cancel()
	var since time.Time
	return devnet.WaitFor(ctx, "all chains to be on time", func(ctx context.Context) (bool, error) {
		if err := r.onTime(ctx); err != nil {
			since = time.Time{}
			return false, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= lockstepTime, nil
	})
}

// onTime says which chain has no block of this moment, or another one than elsewhere.
func (r *run) onTime(ctx context.Context) error {
	return r.each(func(o *devnet.Operator, chain uint64) error {
		h, err := header(ctx, o, chain, nil)
		if err != nil {
			return err
		}
		slot := time.Duration(r.d.Genesis().Rollup[chain].BlockTime) * time.Second
		if behind := time.Since(time.Unix(int64(h.Time), 0)); behind > 2*slot {
			return fmt.Errorf("its head is %s behind", behind.Round(time.Millisecond))
		}
		if h.Number.Sign() == 0 {
			return errors.New("it has no block yet")
		}
		last := new(big.Int).Sub(h.Number, big.NewInt(1)) // the head may be new to the others
		mine, err := header(ctx, o, chain, last)
		if err != nil {
			return err
		}
		theirs, err := header(ctx, r.d.Operator(0), chain, last)
		if err == nil && mine.Hash() != theirs.Hash() {
			err = fmt.Errorf("block %d is %s, and %s at operator 0", last, mine.Hash(), theirs.Hash())
		}
		return err
	})
}

// readDenyList reads which blocks of a chain op-supernode has invalidated, at an operator that
// is stopped.
func readDenyList(o *devnet.Operator, chain uint64) (_ []deniedBlock, err error) {
	l, err := cc.OpenDenyList(o.DenyListDir(chain))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	last, _, err := l.MaxDeniedHeight()
	if err != nil {
		return nil, err
	}
	var out []deniedBlock
	for n := uint64(1); n <= last; n++ {
		hashes, err := l.GetDeniedHashes(n)
		if err != nil {
			return nil, err
		}
		for _, h := range hashes {
			out = append(out, deniedBlock{chain, n, h})
		}
	}
	return out, nil
}
