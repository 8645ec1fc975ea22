package system

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/builder"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// hashes are the blocks of a chain by number, up to its head.
func (s *scenario) hashes(chain uint64) []common.Hash {
	s.t.Helper()
	out := make([]common.Hash, s.head(chain)+1)
	for n := range out {
		var err error
		out[n], err = s.BlockHash(s.ctx, chain, uint64(n))
		require.NoError(s.t, err)
	}
	return out
}

// wholeOrUndone waits until a bundle that was executed once has come to its end: it is
// safe, with every transaction in the chains, or undone, with none anywhere. When its
// blocks went together (oneSlot), it is executed again in one slot; when only one half
// was replaced and the other stands, it is completed in a later slot.
func (s *scenario) wholeOrUndone(b sent, oneSlot bool) bundlepool.State {
	s.t.Helper()
	hash, own := b.hash, b.txs
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	var st *rpc.BundleStatus
	s.until(fmt.Sprintf("the end of bundle %s", hash), func(ctx context.Context) (_ bool, err error) {
		st, err = client.BundleStatus(ctx, hash)
		return err == nil && st.State.Final(), err
	})
	if st.State == bundlepool.Safe {
		txs, err := s.Receipts(s.ctx, st)
		require.NoError(s.t, err)
		for _, tx := range txs {
			require.EqualValues(s.t, 1, tx.Status)
			if oneSlot {
				require.Equal(s.t, txs[0].Timestamp, tx.Timestamp, "the bundle is in one slot")
			}
		}
		for tx, chain := range own {
			require.True(s.t, s.included(chain, tx), "the bundle is whole: %s on chain %d", tx, chain)
		}
		return st.State
	}
	require.Equal(s.t, bundlepool.Undone, st.State)
	for tx, chain := range own {
		require.False(s.t, s.included(chain, tx), "nothing is left of an undone bundle: %s on chain %d", tx, chain)
	}
	return st.State
}

// settle waits until the chains are on time, and every block that was announced until
// then has been verified and stayed. Blocks that executed messages of a replaced one are
// replaced in turn: until that is over a head says little.
func (s *scenario) settle() {
	s.t.Helper()
	for {
		require.NoError(s.t, s.AwaitOnTime(s.ctx))
		heads, stayed := map[uint64]*types.Header{}, true
		for _, id := range s.Chains() {
			var err error
			heads[id], err = s.Head(s.ctx, id)
			require.NoError(s.t, err)
		}
		for _, h := range heads {
			s.awaitCrossSafe(h.Time)
		}
		for id, h := range heads {
			hash, err := s.BlockHash(s.ctx, id, h.Number.Uint64())
			require.NoError(s.t, err)
			stayed = stayed && hash == h.Hash()
		}
		if stayed {
			require.NoError(s.t, s.AwaitOnTime(s.ctx))
			return
		}
	}
}

// sent is a bundle on its way: its hash, and its own transactions with their chains.
type sent struct {
	name string
	hash common.Hash
	txs  map[common.Hash]uint64
}

func (s *scenario) send(name string, b *devnet.Bundle) sent {
	s.t.Helper()
	args, hashes, err := b.Sign(s.ctx)
	require.NoError(s.t, err)
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	res, err := client.SendBundle(s.ctx, args)
	require.NoError(s.t, err)
	out := sent{name: name, hash: res.BundleHash, txs: map[common.Hash]uint64{}}
	for i, h := range hashes {
		if h != (common.Hash{}) {
			out.txs[h] = uint64(*args.Items[i].ChainID)
		}
	}
	return out
}

// An L1 reorg under the unsafe chains takes both of them back to the same slot, and they
// go on from there in lockstep. A bundle in the lost slots is executed again as a whole,
// or is undone.
func TestL1Reorg(t *testing.T) {
	const depth = 5
	s := start(t)
	load, err := s.StartLoad(20)
	require.NoError(t, err)
	defer load.Stop()
	s.until("enough L1 blocks", func(context.Context) (bool, error) { return s.L1().Head().Number.Uint64() > 2*depth, nil })
	b, _ := s.bridge(s.user(2), chainA, chainB)
	lost := s.send("before the reorg", b)
	st, err := s.AwaitBundle(s.ctx, lost.hash)
	require.NoError(t, err)
	require.Contains(t, executedStates, st.State)
	// Until the head stands on an L1 block that will go.
	s.until("the L1 origins to be young", func(context.Context) (bool, error) {
		return s.block(chainA, s.head(chainA)).Origin.Number+depth > s.L1().Head().Number.Uint64(), nil
	})

	before := map[uint64][]common.Hash{chainA: s.hashes(chainA), chainB: s.hashes(chainB)}
	from, to, err := s.L1().Reorg(s.ctx, depth, 1)
	require.NoError(t, err)
	t.Logf("L1 went from block %d to %d over %d", from.Number, to.Number, from.Number.Uint64()-depth)

	first := map[uint64]uint64{}
	for id, old := range before {
		s.until(fmt.Sprintf("chain %d to be built anew", id), func(ctx context.Context) (bool, error) {
			h, err := s.Head(ctx, id)
			if err != nil || h.Number.Uint64() < uint64(len(old)) {
				return false, err
			}
			last := uint64(len(old) - 1)
			hash, err := s.BlockHash(ctx, id, last)
			return err == nil && hash != old[last], err
		})
		for n, hash := range old {
			now, err := s.BlockHash(s.ctx, id, uint64(n))
			require.NoError(t, err)
			if now != hash {
				first[id] = uint64(n)
				break
			}
		}
	}
	require.Equal(t, first[chainA], first[chainB], "both chains went back to the same slot")
	t.Logf("%d of %d blocks were built anew", uint64(len(before[chainA]))-first[chainA], len(before[chainA]))

	require.NoError(t, s.AwaitOnTime(s.ctx))
	good, _ := s.bridge(s.user(3), chainB, chainA)
	slot := s.executes(good)[0].Timestamp
	s.lockstep(first[chainA], s.head(chainA)-1)
	s.awaitCrossSafe(slot)
	for id := range before {
		for n := first[id]; n < s.head(id); n++ {
			origin := s.block(id, n).Origin
			require.Equal(t, s.L1().Header(origin.Number).Hash(), origin.Hash, "block %d of chain %d stands on a canonical L1 block", n, id)
		}
	}
	t.Logf("the bundle from before the reorg is %s", s.wholeOrUndone(lost, true))
}

// A bad message gets into a block of B behind the executor's back. op-supernode finds
// it, and replaces the block. Lockstep resumes with no hand on it; bundles in blocks
// that went with it are whole or undone.
func TestInvalidatedBlock(t *testing.T) {
	var armed atomic.Pointer[func(ctx context.Context, b *builder.Block) bool]
	var badSlot atomic.Uint64
	s := start(t, func(c *devnet.Config) {
		c.Options = func(o *service.Options) {
			o.Tamper = func(ctx context.Context, slot sequence.Slot, blocks []*builder.Block) {
				f := armed.Load()
				if f == nil {
					return
				}
				for _, b := range blocks {
					if b.Chain == chainB && (*f)(ctx, b) {
						armed.Store(nil)
						badSlot.Store(uint64(slot))
					}
				}
			}
		}
	})
	load, err := s.StartLoad(20)
	require.NoError(t, err)
	defer load.Stop()

	// op-supernode cannot go back to genesis.
	require.NoError(t, s.AwaitSlots(s.ctx, 5))
	villain := s.user(7)
	head, err := s.Head(s.ctx, chainA)
	require.NoError(t, err)
	lie := messages.Message{
		Identifier: messages.Identifier{
			Origin: common.HexToAddress("0xbad"), BlockNumber: head.Number.Uint64(), Timestamp: head.Time, ChainID: eth.ChainIDFromUInt64(chainA),
		},
		PayloadHash: crypto.Keccak256Hash([]byte("nobody sent this")),
	}
	nonce, err := s.Nonce(s.ctx, chainB, villain.Address)
	require.NoError(t, err)
	call, err := devnet.ValidateMessage(chainB, nonce, lie, true)
	require.NoError(t, err)
	tx, err := villain.Sign(call)
	require.NoError(t, err)
	raw, err := tx.MarshalBinary()
	require.NoError(t, err)
	force := func(ctx context.Context, b *builder.Block) bool {
		res, err := b.Session.Execute(ctx, [][]byte{raw}, false)
		return err == nil && len(res) == 1 && res[0].Succeeded()
	}
	armed.Store(&force)
	s.until("the bad block", func(context.Context) (bool, error) { return badSlot.Load() != 0, nil })
	number := (badSlot.Load() - s.Genesis().Rollup[chainB].Genesis.L2Time) / s.Genesis().Rollup[chainB].BlockTime
	require.NoError(t, s.AwaitBlock(s.ctx, chainB, number))
	bad := s.block(chainB, number)
	require.True(t, s.included(chainB, tx.Hash()), "the bad message is in block %d", number)

	// Bundles on top of the bad block, in both directions: one sends from a chain that
	// stays, the other from a block that goes.
	ab, _ := s.bridge(s.user(2), chainA, chainB)
	ba, _ := s.bridge(s.user(3), chainB, chainA)
	bundles := []sent{s.send("A to B", ab.MaxSlots(300)), s.send("B to A", ba.MaxSlots(300))}

	for _, b := range bundles {
		_, err := s.AwaitBundle(s.ctx, b.hash)
		require.NoError(t, err)
	}

	s.until("the bad block to be replaced", func(ctx context.Context) (bool, error) {
		hash, err := s.BlockHash(ctx, chainB, number)
		return err == nil && hash != bad.Hash, err
	})
	t.Logf("block %d of chain %d was replaced", number, chainB)
	require.False(t, s.included(chainB, tx.Hash()), "the bad message is gone")
	s.settle()

	watch := s.Watch()
	defer watch.Stop()
	var last uint64
	for range 10 {
		select {
		case slot := <-watch.Slots():
			if last != 0 {
				require.Equal(t, last+1, slot.Slot, "no slot is missed")
				require.Len(t, slot.Blocks, 2, "both chains take part in slot %d", slot.Slot)
			}
			last = slot.Slot
		case <-s.ctx.Done():
			require.NoError(t, s.ctx.Err())
		}
	}
	after, _ := s.bridge(s.user(4), chainA, chainB)
	slot := s.executes(after)[0].Timestamp
	s.awaitCrossSafe(slot)
	require.Equal(t, 1, len(s.block(chainB, number).Txs), "the replacement has only its deposit")
	for _, b := range bundles {
		t.Logf("the bundle from %s on top of the bad block is %s", b.name, s.wholeOrUndone(b, false))
	}
}
