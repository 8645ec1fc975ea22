package system

import (
	"context"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// TestInterop: a chain with blocks of one second and one with blocks of two, whose engines
// ask the executor about the messages that transactions in their pools execute.
func TestInterop(t *testing.T) {
	s := start(t, func(c *devnet.Config) { c.IngressFilter, c.BlockTimes = true, map[uint64]uint64{chainB: 2} })
	t.Run("block times", func(t *testing.T) { blockTimes(s.in(t)) })
	t.Run("pool", func(t *testing.T) { executesFromPool(s.in(t)) })
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
