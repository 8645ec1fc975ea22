package compose

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// reach reaches a devnet's containers through the ports that are published.
type reach struct {
	layout *layout

	mu         sync.Mutex
	eth        map[string]*ethclient.Client
	sequencers map[int]*rpc.Client
}

func newReach(l *layout) *reach {
	return &reach{layout: l, eth: map[string]*ethclient.Client{}, sequencers: map[int]*rpc.Client{}}
}

func (n *reach) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.eth {
		c.Close()
	}
	for _, c := range n.sequencers {
		c.Close()
	}
}

func localURL(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

// dial makes a client, which connects when it is used.
func (n *reach) dial(url string) (*ethclient.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.eth[url]; c != nil {
		return c, nil
	}
	c, err := ethclient.Dial(url)
	if err == nil {
		n.eth[url] = c
	}
	return c, err
}

func (n *reach) engine(number int, chain uint64) (*ethclient.Client, error) {
	for i, id := range n.layout.ChainIDs {
		if id == chain {
			return n.dial(localURL(n.layout.enginePort(number, i)))
		}
	}
	return nil, fmt.Errorf("no chain %d", chain)
}

func (n *reach) sequencer(ctx context.Context, number int) (*rpc.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.sequencers[number]; c != nil {
		return c, nil
	}
	c, err := rpc.Dial(ctx, localURL(n.layout.sequencerPort(number)))
	if err == nil {
		n.sequencers[number] = c
	}
	return c, err
}

func (n *reach) status(ctx context.Context, number int) (*rpc.Status, error) {
	c, err := n.sequencer(ctx, number)
	if err != nil {
		return nil, err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("operator %d: %w", number, err)
	}
	return st, nil
}

// head is a chain's head at an operator.
func (n *reach) head(ctx context.Context, number int, chain uint64) (*types.Header, error) {
	c, err := n.engine(number, chain)
	if err != nil {
		return nil, err
	}
	h, err := c.HeaderByNumber(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("head of chain %d at operator %d: %w", chain, number, err)
	}
	return h, nil
}

// heads are those of all chains.
func (n *reach) heads(ctx context.Context, number int) (map[uint64]*types.Header, error) {
	out := map[uint64]*types.Header{}
	for _, id := range n.layout.ChainIDs {
		h, err := n.head(ctx, number, id)
		if err != nil {
			return nil, err
		}
		out[id] = h
	}
	return out, nil
}

// stallTime is how long what is waited for may stand still. There is no bound on the whole: who is new
// or was away has as much to make up for as the others have done meanwhile.
const stallTime = 5 * time.Minute

// awaitMoving waits for a condition for as long as the position that it reports changes: that of what still has
// to be made up for, and of nothing that goes on anyway.
func awaitMoving(ctx context.Context, stall time.Duration, what string, cond func(context.Context) (position uint64, ok bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("it stands still for %v", stall)) })
	defer timer.Stop()
	var last uint64
	return devnet.WaitFor(ctx, what, func(ctx context.Context) (bool, error) {
		position, ok, err := cond(ctx)
		if position != last {
			last = position
			timer.Reset(stall)
		}
		return ok, err
	})
}

// apart is how far the chains' heads may be from each other when they are level, in seconds.
const apart = 2

// awaitLevel waits until all chains make blocks at an operator and their heads are level: a
// chain that was behind the others has caught up.
func (n *reach) awaitLevel(ctx context.Context, number int) error {
	return awaitMoving(ctx, stallTime, fmt.Sprintf("all chains to be level at operator %d", number), func(ctx context.Context) (uint64, bool, error) {
		heads, err := n.heads(ctx, number)
		if err != nil {
			return 0, false, err
		}
		var least, most uint64
		for id, h := range heads {
			if h.Number.Sign() == 0 {
				return 0, false, fmt.Errorf("chain %d has no block yet", id)
			}
			if least == 0 || h.Time < least {
				least = h.Time
			}
			most = max(most, h.Time)
		}
		if most-least > apart {
			return least, false, fmt.Errorf("their heads are %d s apart", most-least)
		}
		return least, true, nil
	})
}

// behind is how old an operator's oldest head is: what a slow machine cannot keep up with, or
// what is caught up after a start.
func (n *reach) behind(ctx context.Context, number int) (time.Duration, error) {
	heads, err := n.heads(ctx, number)
	if err != nil {
		return 0, err
	}
	var out time.Duration
	for _, h := range heads {
		out = max(out, time.Since(time.Unix(int64(h.Time), 0)))
	}
	return out.Truncate(time.Second), nil
}

// errWaiting has no text of its own worth showing.
var errWaiting = errors.New("not yet")

// awaitVoting waits until an operator takes part: all chains ready but one that has yet to join
// (0: none), nothing left to fetch, and power in the set, if it is meant to have some.
func (n *reach) awaitVoting(ctx context.Context, number int, member bool, joining uint64) error {
	return awaitMoving(ctx, stallTime, fmt.Sprintf("operator %d to take part", number), func(ctx context.Context) (uint64, bool, error) {
		st, err := n.status(ctx, number)
		if err != nil {
			return 0, false, err
		}
		for _, c := range st.Chains {
			if !c.Ready && uint64(c.ChainID) != joining {
				return uint64(c.Head.Number), false, fmt.Errorf("chain %d: %s", uint64(c.ChainID), c.Reason)
			}
		}
		a := st.Agreement
		switch {
		case a == nil && n.layout.alone():
			return 0, true, nil
		case a == nil || !a.Running:
			return 0, false, errWaiting
		case a.Syncing:
			return uint64(a.Height), false, fmt.Errorf("it fetches what the others agreed on, and is at height %d", uint64(a.Height))
		case member && a.Power == 0:
			return 0, false, errors.New("it is not in the set")
		}
		return 0, true, nil
	})
}

// near is how many heights an operator may be behind another one to have caught up.
const near = 10

// awaitCaughtUp waits until an operator has agreed on what another one has. That it no longer fetches does not say so:
// CometBFT also ends that when it goes too slowly, and then is told the rest height by height.
func (n *reach) awaitCaughtUp(ctx context.Context, number, other int) error {
	return awaitMoving(ctx, stallTime, fmt.Sprintf("operator %d to be where operator %d is", number, other), func(ctx context.Context) (uint64, bool, error) {
		var heights [2]uint64
		for i, m := range []int{number, other} {
			st, err := n.status(ctx, m)
			if err != nil {
				return 0, false, err
			}
			if st.Agreement == nil {
				return 0, false, errWaiting
			}
			heights[i] = uint64(st.Agreement.Height)
		}
		if heights[0]+near < heights[1] {
			return heights[0], false, fmt.Errorf("it is at height %d of %d", heights[0], heights[1])
		}
		return heights[0], true, nil
	})
}

// through is the devnet as a bundle that is sent to one operator sees it.
type through struct {
	*reach
	number int
}

var _ devnet.BundleTarget = through{}

func (t through) Nonce(ctx context.Context, chain uint64, addr common.Address) (uint64, error) {
	c, err := t.engine(t.number, chain)
	if err != nil {
		return 0, err
	}
	nonce, err := c.PendingNonceAt(ctx, addr)
	if err != nil {
		return 0, fmt.Errorf("nonce of %s on chain %d: %w", addr, chain, err)
	}
	return nonce, nil
}

func (t through) Sequencer(ctx context.Context) (*rpc.Client, error) {
	return t.sequencer(ctx, t.number)
}

func (t through) AwaitBundle(ctx context.Context, hash common.Hash) (*rpc.BundleStatus, error) {
	c, err := t.Sequencer(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.WaitBundle(ctx, hash)
	if err != nil {
		return nil, err
	}
	for _, it := range st.Items {
		if err := t.awaitBlock(ctx, t.number, uint64(it.ChainID), uint64(it.BlockNumber)); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// awaitBlock waits until a chain's head at an operator is at or past a number.
func (n *reach) awaitBlock(ctx context.Context, number int, chain, block uint64) error {
	return devnet.WaitFor(ctx, fmt.Sprintf("block %d of chain %d at operator %d", block, chain, number), func(ctx context.Context) (bool, error) {
		h, err := n.head(ctx, number, chain)
		return err == nil && h.Number.Uint64() >= block, err
	})
}

// executed is a bundle's transaction as its chain shows it.
func (n *reach) executed(ctx context.Context, number int, st *rpc.BundleStatus) ([]devnet.Executed, error) {
	return devnet.ReadExecuted(ctx, st, func(chain uint64) (*ethclient.Client, error) { return n.engine(number, chain) })
}

// sameBlock says whether two operators have the same block of a chain.
func (n *reach) sameBlock(ctx context.Context, a, b int, chain, block uint64) error {
	var hashes [2]common.Hash
	for i, number := range []int{a, b} {
		c, err := n.engine(number, chain)
		if err != nil {
			return err
		}
		h, err := c.HeaderByNumber(ctx, new(big.Int).SetUint64(block))
		if err != nil {
			return fmt.Errorf("block %d of chain %d at operator %d: %w", block, chain, number, err)
		}
		hashes[i] = h.Hash()
	}
	if hashes[0] != hashes[1] {
		return fmt.Errorf("block %d of chain %d is %s at operator %d and %s at operator %d", block, chain, hashes[0], a, hashes[1], b)
	}
	return nil
}
