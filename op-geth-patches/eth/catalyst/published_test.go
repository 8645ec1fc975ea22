// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package catalyst

import (
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"
)

// pendingView asks what a wallet asks.
type pendingView struct {
	t testing.TB
	*rpc.Client
}

func viewOf(t testing.TB, n *opNode) *pendingView {
	c := n.stack.Attach()
	t.Cleanup(c.Close)
	return &pendingView{t, c}
}

func (v *pendingView) ask(out any, method string, args ...any) {
	v.t.Helper()
	require.NoError(v.t, v.Call(out, method, args...), method)
}

func (v *pendingView) receipt(hash common.Hash) map[string]any {
	v.t.Helper()
	var out map[string]any
	// The node's index of transactions is never done in these tests: what it does not find may be there.
	if err := v.Call(&out, "eth_getTransactionReceipt", hash); err != nil {
		require.ErrorContains(v.t, err, "indexing")
	}
	return out
}

func (v *pendingView) quantity(method string, args ...any) uint64 {
	v.t.Helper()
	var out hexutil.Big
	v.ask(&out, method, args...)
	return out.ToInt().Uint64()
}

type pendingBlock struct {
	Number       *hexutil.Big
	Hash         *common.Hash
	ParentHash   common.Hash
	Transactions []common.Hash
	GasUsed      hexutil.Uint64
	ReceiptsRoot common.Hash
}

func (v *pendingView) block() (b pendingBlock) {
	v.t.Helper()
	v.ask(&b, "eth_getBlockByNumber", "pending", false)
	return b
}

// commit is what operators do at the end of a subblock: they commit to the block so far, and
// it is published when they have agreed.
func commit(t testing.TB, s *miner.Session) (txs int, root common.Hash) {
	t.Helper()
	status, err := s.Status()
	require.NoError(t, err)
	_, root, err = s.Commitment()
	require.NoError(t, err)
	return status.TxCount, root
}

// The pending block is what was published, neither more nor less, and it is what the block
// then says.
func TestPublished(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	v := viewOf(t, n)
	s := openHead(t, n)
	to := opRecipient(7)
	transfer, token, fails := opTransfer(0, 0, to), opTokenTx(1, 0, to, 3), opCall(2, 0, opFail, 60_000, []byte("why"))
	run(t, s, transfer, token, fails)
	sender := opAccounts()[0].addr

	nothing := func() {
		t.Helper()
		require.Nil(t, v.receipt(transfer.Hash()))
		require.Zero(t, v.quantity("eth_getTransactionCount", sender, "pending"))
		require.Zero(t, v.quantity("eth_getBalance", to, "pending"))
		require.Equal(t, n.head().Number.Uint64(), v.block().Number.ToInt().Uint64())
	}
	nothing()
	require.ErrorIs(t, s.Publish(4), miner.ErrNoCut, "not committed to")
	first, root := commit(t, s)
	require.Equal(t, 4, first)
	nothing()
	require.ErrorIs(t, s.Publish(3), miner.ErrNoCut, "of another length")

	require.NoError(t, s.Publish(first))
	got := v.receipt(token.Hash())
	require.Equal(t, "0x1", got["status"])
	require.Equal(t, "0x1", got["blockNumber"])
	require.Equal(t, common.Hash{}.Hex(), got["blockHash"])
	require.Equal(t, "0x2", got["transactionIndex"])
	require.Len(t, got["logs"], 1)
	require.NotNil(t, got["l1Fee"])
	require.Equal(t, "0x0", v.receipt(fails.Hash())["status"])
	require.EqualValues(t, 1, v.quantity("eth_getTransactionCount", sender, "pending"))
	require.Zero(t, v.quantity("eth_getTransactionCount", sender, "latest"))
	var next struct{ Tx struct{ Nonce hexutil.Uint64 } }
	v.ask(&next, "eth_fillTransaction", map[string]any{"from": sender, "to": to})
	require.EqualValues(t, 1, next.Tx.Nonce, "as every method that looks for the next nonce")
	require.NotZero(t, v.quantity("eth_getBalance", to, "pending"))
	require.Zero(t, v.quantity("eth_getBalance", to, "latest"))
	var slot common.Hash
	v.ask(&slot, "eth_getStorageAt", opToken, opTokenSlot(to), "pending")
	require.Equal(t, common.BigToHash(common.Big3), slot)
	var found map[string]any
	v.ask(&found, "eth_getTransactionByHash", token.Hash())
	require.NotNil(t, found, "it came in a bundle, no pool has it")
	b := v.block()
	require.EqualValues(t, 1, b.Number.ToInt().Uint64())
	require.Nil(t, b.Hash)
	require.Equal(t, n.head().Hash(), b.ParentHash)
	require.Len(t, b.Transactions, first)
	require.Equal(t, root, b.ReceiptsRoot)

	// What is built on it is not shown before it is published too.
	second := opTransfer(0, 1, to)
	before := v.quantity("eth_getBalance", to, "pending")
	run(t, s, second)
	require.Nil(t, v.receipt(second.Hash()))
	count, _ := commit(t, s)
	require.Nil(t, v.receipt(second.Hash()))
	require.Equal(t, before, v.quantity("eth_getBalance", to, "pending"))
	require.NoError(t, s.Publish(count))
	require.NotNil(t, v.receipt(second.Hash()))
	require.Equal(t, 2*before, v.quantity("eth_getBalance", to, "pending"))
	require.EqualValues(t, 2, v.quantity("eth_getTransactionCount", sender, "pending"))
	shown := map[common.Hash]map[string]any{}
	for _, tx := range v.block().Transactions {
		shown[tx] = v.receipt(tx)
	}

	// The block makes no difference but that its hash is known.
	sealed := seal(t, s)
	require.NoError(t, insert(n, sealed))
	n.setHead(sealed.Block.Hash())
	require.Len(t, shown, len(sealed.Block.Transactions()))
	for _, tx := range sealed.Block.Transactions() {
		final := v.receipt(tx.Hash())
		require.Equal(t, sealed.Block.Hash().Hex(), final["blockHash"])
		for _, r := range []map[string]any{final, shown[tx.Hash()]} {
			delete(r, "blockHash")
			for _, l := range r["logs"].([]any) {
				delete(l.(map[string]any), "blockHash")
			}
		}
		require.Equal(t, final, shown[tx.Hash()])
	}
	require.Equal(t, sealed.Block.Hash(), *v.block().Hash, "nothing is published on the new head")
	require.EqualValues(t, 2, n.eth.APIBackend.PublishedNonce(sender), "whether or not the pool has heard of the block")
}

// A session that comes to nothing takes back what was published of it, and another one takes
// its place, however much of it there is.
func TestPublishedAnew(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	v := viewOf(t, n)
	old := openHead(t, n)
	gone := opTransfer(0, 0, opRecipient(1))
	run(t, old, gone, opTransfer(1, 0, opRecipient(1)))
	count, _ := commit(t, old)
	require.NoError(t, old.Publish(count))
	require.NotZero(t, v.quantity("eth_getBalance", opRecipient(1), "pending"))

	anew := openHead(t, n)
	stays := opTransfer(0, 0, opRecipient(2))
	run(t, anew, stays)
	count, _ = commit(t, anew)
	require.NoError(t, anew.Publish(count))
	require.Nil(t, v.receipt(gone.Hash()))
	require.NotNil(t, v.receipt(stays.Hash()))
	require.Zero(t, v.quantity("eth_getBalance", opRecipient(1), "pending"))
	require.NotZero(t, v.quantity("eth_getBalance", opRecipient(2), "pending"))

	// A block that is sealed and given up takes back what was published of it, too.
	given := openHead(t, n)
	run(t, given, opTransfer(0, 0, opRecipient(4)))
	count, _ = commit(t, given)
	require.NoError(t, given.Publish(count))
	require.NotZero(t, v.quantity("eth_getBalance", opRecipient(4), "pending"))
	seal(t, given)
	require.NotZero(t, v.quantity("eth_getBalance", opRecipient(4), "pending"))
	given.Discard()
	require.Zero(t, v.quantity("eth_getBalance", opRecipient(4), "pending"))
	count, _ = commit(t, anew)
	require.NoError(t, anew.Publish(count))

	old.Discard() // long over
	require.NotNil(t, v.receipt(stays.Hash()))
	anew.Discard()
	require.Nil(t, v.receipt(stays.Hash()))
	require.Zero(t, v.quantity("eth_getBalance", opRecipient(2), "pending"))
}

// Those who look do not disturb those who build, and the other way around (run with -race).
func TestPublishedWhileBuilding(t *testing.T) {
	t.Parallel()
	n := startOpNode(t, opNodeOptions{})
	s := openHead(t, n)
	to := opRecipient(3)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		v := viewOf(t, n)
		readers.Add(1)
		go func() {
			defer readers.Done()
			var least uint64
			for {
				have := v.quantity("eth_getTransactionCount", opAccounts()[0].addr, "pending")
				if have < least {
					t.Errorf("nonce went back from %d to %d", least, have)
				}
				least = have
				v.quantity("eth_getBalance", to, "pending")
				v.block()
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
	for i := range 40 {
		point, err := s.Savepoint()
		require.NoError(t, err)
		run(t, s, opTransfer(1, uint64(i), to), opTransfer(2, uint64(i), to)) // another leader's, that is not agreed on
		commit(t, s)
		require.NoError(t, s.Rollback(point))
		run(t, s, opTransfer(0, uint64(i), to), opTransfer(1, uint64(i), to), opTransfer(2, uint64(i), to))
		count, _ := commit(t, s)
		run(t, s, opTransfer(3, uint64(i), to)) // the draft of the next one goes on
		require.NoError(t, s.Publish(count))
	}
	// Nor does it go back when blocks become the head, and the pool has not heard of them yet.
	for i := range uint64(40) {
		sealed := seal(t, s)
		require.NoError(t, insert(n, sealed))
		n.setHead(sealed.Block.Hash())
		s = openHead(t, n)
		run(t, s, opTransfer(0, 40+i, to))
		count, _ := commit(t, s)
		require.NoError(t, s.Publish(count))
	}
	close(stop)
	readers.Wait()
	v := viewOf(t, n)
	require.EqualValues(t, 80, v.quantity("eth_getTransactionCount", opAccounts()[0].addr, "pending"))
	require.EqualValues(t, 40, v.quantity("eth_getTransactionCount", opAccounts()[3].addr, "pending"))
}

// Over the authenticated port.
func TestPublishRPC(t *testing.T) {
	t.Parallel()
	n, _ := startSessionNode(t, DefaultSessionConfig)
	c := dialAuth(t, n)
	o := c.open(n)
	tx := opTransfer(0, 0, opRecipient(0))
	c.call(nil, "engine_sessionExecute", o.ID, []hexutil.Bytes{opRaw(t, tx)}, false)
	c.fails(CodeNoCut, "2 transactions", "engine_sessionPublish", o.ID, hexutil.Uint64(2))
	c.call(nil, "engine_sessionCommitment", o.ID)
	c.fails(CodeNoCut, "transactions", "engine_sessionPublish", o.ID, hexutil.Uint64(1<<62))
	c.call(nil, "engine_sessionPublish", o.ID, hexutil.Uint64(2))
	require.NotNil(t, viewOf(t, n).receipt(tx.Hash()))
	c.call(nil, "engine_sessionDiscard", o.ID)
	c.fails(CodeUnknownSession, "unknown session", "engine_sessionPublish", o.ID, hexutil.Uint64(2))
}
