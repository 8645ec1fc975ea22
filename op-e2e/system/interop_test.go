package system

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/node"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

// TestInterop: a chain with blocks of one second and one with blocks of two, whose engines
// ask the executor about the messages that transactions in their pools execute.
func TestInterop(t *testing.T) {
	admin := config.Admin{ListenAddr: "127.0.0.1", ListenPort: freePort(t), JWT: eth.Bytes32{5}}
	s := start(t, func(c *devnet.Config) {
		c.IngressFilter, c.BlockTimes = true, map[uint64]uint64{chainB: 2}
		c.Sequencer = func(s *config.SharedSequencer) { s.Admin = admin }
	})
	t.Run("block times", func(t *testing.T) { blockTimes(s.in(t)) })
	t.Run("pool", func(t *testing.T) { executesFromPool(s.in(t)) })
	t.Run("failsafe", func(t *testing.T) { failsafe(s.in(t), admin) })
	now := s.slotNow()
	s.awaitCrossSafe(now)
}

// blockTimes: a slot is a timestamp, and the chains that have a block at it build it
// together; in between the faster chain has slots of its own.
func blockTimes(s *scenario) {
	for _, way := range [][2]uint64{{chainA, chainB}, {chainB, chainA}} {
		b, to := s.bridge(s.user(2), way[0], way[1])
		txs := s.executes(b)
		first, last := txs[0], txs[len(txs)-1]
		require.Equal(s.t, first.Timestamp, last.Timestamp, "sent and executed in one slot")
		balance, err := s.Balance(s.ctx, way[1], to.Address)
		require.NoError(s.t, err)
		require.Positive(s.t, balance.Sign())
	}
	require.NoError(s.t, s.AwaitSlots(s.ctx, 3))
	b := s.head(chainB)
	for n := b - 2; n <= b; n++ {
		at := s.block(chainB, n)
		require.EqualValues(s.t, s.Genesis().Rollup[chainB].Genesis.L2Time+2*n, at.Time)
		number := at.Time - s.Genesis().Rollup[chainA].Genesis.L2Time
		s.until("the block of chain A", func(context.Context) (bool, error) { return s.head(chainA) >= number, nil })
		beside := s.block(chainA, number)
		require.Equal(s.t, at.Time, beside.Time)
		require.Equal(s.t, at.Origin, beside.Origin, "L1 origins at %d", at.Time)
	}
}

// executesFromPool: a transaction that executes a message needs no bundle. A pool takes it
// when the message is there, and refuses it when not.
func executesFromPool(s *scenario) {
	sender, executes := s.user(3), s.user(4)
	c, err := s.Eth(chainB)
	require.NoError(s.t, err)
	nonce, err := s.Nonce(s.ctx, chainB, executes.Address)
	require.NoError(s.t, err)
	sent := func() messages.Message {
		txs := s.executes(s.NewBundle().Tx(sender, devnet.SendETH(chainA, 0, s.fresh().Address, chainB, ether(1))))
		return s.message(chainA, txs[0].TxHash)
	}
	send := func(m messages.Message) (common.Hash, error) {
		tx, err := devnet.ValidateMessage(chainB, nonce, m, true)
		require.NoError(s.t, err)
		signed, err := executes.Sign(tx)
		require.NoError(s.t, err)
		return signed.Hash(), c.SendTransaction(s.ctx, signed)
	}
	for range 3 {
		m := sent()
		forged := m
		forged.PayloadHash[0] ^= 1
		_, err = send(forged)
		require.Error(s.t, err, "no such message")
		hash, err := send(m)
		require.NoError(s.t, err)
		s.until("the message to be executed", func(context.Context) (bool, error) { return s.included(chainB, hash), nil })
		r, err := c.TransactionReceipt(s.ctx, hash)
		require.NoError(s.t, err)
		require.Equal(s.t, types.ReceiptStatusSuccessful, r.Status)
		nonce++
	}
}

// failsafe: while it is on nothing executes a message, and everything else goes on. Only who
// has the secret can set it.
func failsafe(s *scenario, at config.Admin) {
	url := fmt.Sprintf("http://%s:%d", at.ListenAddr, at.ListenPort)
	set := func(secret eth.Bytes32, on bool) error {
		c, err := gethrpc.DialOptions(s.ctx, url, gethrpc.WithHTTPAuth(node.NewJWTAuth(secret)))
		require.NoError(s.t, err)
		defer c.Close()
		return c.CallContext(s.ctx, nil, "admin_setFailsafeEnabled", on)
	}
	require.Error(s.t, set(eth.Bytes32{6}, true), "another secret")
	require.NoError(s.t, set(at.JWT, true))
	public, err := gethrpc.DialContext(s.ctx, s.SharedSequencerURL())
	require.NoError(s.t, err)
	defer public.Close()
	var on bool
	require.NoError(s.t, public.CallContext(s.ctx, &on, "admin_getFailsafeEnabled"))
	require.True(s.t, on)
	require.Error(s.t, public.CallContext(s.ctx, nil, "admin_setFailsafeEnabled", false), "not for everybody")

	b, _ := s.bridge(s.user(5), chainA, chainB)
	waiting, err := b.Send(s.ctx)
	require.NoError(s.t, err)
	s.executes(s.NewBundle().Tx(s.user(6), devnet.Transfer(chainA, 0, s.fresh().Address, ether(1))))
	require.NoError(s.t, s.AwaitSlots(s.ctx, 2))
	client, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	st, err := client.BundleStatus(s.ctx, waiting)
	require.NoError(s.t, err)
	require.Equal(s.t, bundlepool.Pending, st.State)

	require.NoError(s.t, set(at.JWT, false))
	st, err = s.AwaitBundle(s.ctx, waiting)
	require.NoError(s.t, err)
	require.Equal(s.t, bundlepool.Executed, st.State)
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
