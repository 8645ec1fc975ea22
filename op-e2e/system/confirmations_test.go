package system

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	conductormetrics "github.com/ethereum-optimism/optimism/op-conductor/metrics"
	conductorws "github.com/ethereum-optimism/optimism/op-conductor/rpc/ws"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
)

// TestConfirmations: with five subblocks a slot, users hear of what is agreed on before any
// block has it, and what they hear is what the blocks then say.
func TestConfirmations(t *testing.T) {
	s := start(t, func(c *devnet.Config) { c.Subblocks, c.Streams, c.Relays = 5, true, relay.All })
	t.Run("pending", func(t *testing.T) { pending(s.in(t)) })
	t.Run("subscriptions", func(t *testing.T) { subscriptions(s.in(t)) })
	t.Run("plain message", func(t *testing.T) { plainMessage(s.in(t)) })
	t.Run("subblocks stream", func(t *testing.T) { subblocksStream(s.in(t)) })
}

// pending: a chain's endpoint answers from what is agreed on, also of a bundle, which is in no
// pool.
func pending(s *scenario) {
	from := s.user(2)
	c, err := gethrpc.DialContext(s.ctx, s.EngineRPC(chainB))
	require.NoError(s.t, err)
	defer c.Close()
	receipt := func(ctx context.Context, hash common.Hash) (out map[string]any) {
		require.NoError(s.t, c.CallContext(ctx, &out, "eth_getTransactionReceipt", hash))
		return out
	}
	zero := common.Hash{}.Hex()
	// One that the slot's last subblock takes is in a block at once: try until one comes earlier.
	for tries := 0; ; tries++ {
		require.Less(s.t, tries, 50, "no transaction was seen before its block was there")
		to := s.fresh().Address
		b := s.NewBundle().Tx(from, devnet.Transfer(chainA, 0, to, ether(1))).Tx(from, devnet.Transfer(chainB, 0, to, ether(1)))
		before, err := s.Nonce(s.ctx, chainB, from.Address)
		require.NoError(s.t, err)
		hash, txs := s.submit(b)
		tx := txs[1]
		var first map[string]any
		var balance hexutil.Big
		var nonce hexutil.Uint64
		s.until("the receipt of "+tx.Hex(), func(ctx context.Context) (bool, error) {
			if first = receipt(ctx, tx); first == nil {
				return false, nil
			}
			return true, c.BatchCallContext(ctx, []gethrpc.BatchElem{
				{Method: "eth_getBalance", Args: []any{to, "pending"}, Result: &balance},
				{Method: "eth_getTransactionCount", Args: []any{from.Address, "pending"}, Result: &nonce},
			})
		})
		require.Equal(s.t, ether(1), balance.ToInt(), "the receipt is there, and so is the state")
		require.Equal(s.t, before+1, uint64(nonce))
		require.Equal(s.t, "0x1", first["status"])
		_, err = s.AwaitBundle(s.ctx, hash)
		require.NoError(s.t, err)
		if first["blockHash"] != zero {
			continue
		}
		var final map[string]any
		s.until("the block of "+tx.Hex(), func(ctx context.Context) (bool, error) {
			final = receipt(ctx, tx)
			return final["blockHash"] != zero, nil
		})
		for _, r := range []map[string]any{first, final} {
			delete(r, "blockHash")
			for _, l := range r["logs"].([]any) {
				delete(l.(map[string]any), "blockHash")
			}
		}
		require.Equal(s.t, final, first)
		s.t.Logf("seen before its block in try %d", tries+1)
		return
	}
}

// plainMessage: a message that a plain transaction sends is executed in the same slot, by the
// sequencer, and op-supernode is content with that.
func plainMessage(s *scenario) {
	to := s.fresh().Address
	r, err := s.SendMessage(s.ctx, s.user(5), devnet.SendETH(chainA, 0, to, chainB, ether(1)), to, chainB)
	require.NoError(s.t, err)
	require.Equal(s.t, r.Sent, r.Executed)
	s.awaitCrossSafe(r.Sent)
}

// submit sends a bundle and returns its hash, and those of its transactions.
func (s *scenario) submit(b *devnet.Bundle) (common.Hash, []common.Hash) {
	s.t.Helper()
	args, txs, err := b.Sign(s.ctx)
	require.NoError(s.t, err)
	c, err := s.Sequencer(s.ctx)
	require.NoError(s.t, err)
	sent, err := c.SendBundle(s.ctx, args)
	require.NoError(s.t, err)
	return sent.BundleHash, txs
}

// subscriptions: subblocks come in the order of the agreement, and nothing is left out.
func subscriptions(s *scenario) {
	c, err := gethrpc.DialContext(s.ctx, strings.Replace(s.SharedSequencerURL(), "http", "ws", 1))
	require.NoError(s.t, err)
	defer c.Close()
	notes := make(chan json.RawMessage, 1024)
	sub, err := c.Subscribe(s.ctx, "sharedseq", notes, "subblocks")
	require.NoError(s.t, err)
	defer sub.Unsubscribe()
	from := s.user(3)
	txs := s.executes(s.NewBundle().Tx(from, devnet.Transfer(chainA, 0, common.Address{1}, ether(1))).Tx(from, devnet.Transfer(chainB, 0, common.Address{1}, ether(1))))
	want := map[common.Hash]uint64{txs[0].TxHash: chainA, txs[1].TxHash: chainB}
	var slot, index uint64
	blocks := map[uint64][]common.Hash{} // transactions so far, by chain
	for len(want) > 0 || index != 0 {
		var n struct {
			Slot, Index hexutil.Uint64
			Last        bool
			Chains      []struct {
				ChainID, BlockNumber hexutil.Uint64
				Transactions         []common.Hash
				BlockHash            *common.Hash
			}
		}
		select {
		case raw := <-notes:
			require.NoError(s.t, json.Unmarshal(raw, &n), "%s", raw)
		case <-s.ctx.Done():
			s.t.Fatal("nothing came")
		}
		if slot == 0 && n.Index != 0 {
			continue // the subscription began in the middle of a slot
		}
		if n.Index == 0 {
			slot, index, blocks = uint64(n.Slot), 0, map[uint64][]common.Hash{}
		}
		require.Equal(s.t, []uint64{slot, index}, []uint64{uint64(n.Slot), uint64(n.Index)})
		index++
		for _, p := range n.Chains {
			id := uint64(p.ChainID)
			blocks[id] = append(blocks[id], p.Transactions...)
			for _, tx := range p.Transactions {
				if want[tx] == id {
					delete(want, tx)
				}
			}
			require.Equal(s.t, n.Last, p.BlockHash != nil)
			if n.Last {
				s.until(fmt.Sprintf("block %d of chain %d", p.BlockNumber, id), func(ctx context.Context) (bool, error) {
					return s.head(id) >= uint64(p.BlockNumber), nil
				})
				b := s.block(id, uint64(p.BlockNumber))
				require.Equal(s.t, *p.BlockHash, b.Hash)
				require.Len(s.t, blocks[id], len(b.Txs))
				for i, tx := range b.Txs {
					require.Equal(s.t, tx.Hash(), blocks[id][i])
				}
			}
		}
		if n.Last {
			require.EqualValues(s.t, 5, index)
			index = 0
		}
	}
}

// message is one of the Subblocks stream, as op-alloy's rpc-types-engine has it. Unknown fields
// are not taken.
type message struct {
	PayloadID hexutil.Bytes `json:"payload_id"`
	Index     uint64        `json:"index"`
	Base      *struct {
		ParentBeaconRoot common.Hash    `json:"parent_beacon_block_root"`
		ParentHash       common.Hash    `json:"parent_hash"`
		FeeRecipient     common.Address `json:"fee_recipient"`
		PrevRandao       common.Hash    `json:"prev_randao"`
		BlockNumber      hexutil.Uint64 `json:"block_number"`
		GasLimit         hexutil.Uint64 `json:"gas_limit"`
		Timestamp        hexutil.Uint64 `json:"timestamp"`
		ExtraData        hexutil.Bytes  `json:"extra_data"`
		BaseFeePerGas    *hexutil.Big   `json:"base_fee_per_gas"`
	} `json:"base"`
	Diff struct {
		StateRoot       common.Hash         `json:"state_root"`
		ReceiptsRoot    common.Hash         `json:"receipts_root"`
		LogsBloom       types.Bloom         `json:"logs_bloom"`
		GasUsed         hexutil.Uint64      `json:"gas_used"`
		BlockHash       common.Hash         `json:"block_hash"`
		Transactions    []hexutil.Bytes     `json:"transactions"`
		Withdrawals     []*types.Withdrawal `json:"withdrawals"`
		WithdrawalsRoot common.Hash         `json:"withdrawals_root"`
		BlobGasUsed     *hexutil.Uint64     `json:"blob_gas_used"`
	} `json:"diff"`
	Metadata struct {
		BlockNumber        uint64                         `json:"block_number"`
		NewAccountBalances map[common.Address]hexutil.Big `json:"new_account_balances"`
		Receipts           map[common.Hash]struct {
			Type              hexutil.Uint64
			Status            hexutil.Uint64
			CumulativeGasUsed hexutil.Uint64
			Logs              []struct {
				Address common.Address
				Topics  []common.Hash
				Data    hexutil.Bytes
			}
		} `json:"receipts"`
	} `json:"metadata"`
}

// subblocksStream: op-conductor relays the stream, upstream's types decode it, and a block put
// together from it is the block.
func subblocksStream(s *scenario) {
	relay, err := conductorws.NewHandler(conductorws.Config{RollupBoostWsURL: s.Operator(0).SubblocksURL(chainA)}, logger(s.t),
		func(context.Context) bool { return true }, conductormetrics.NoopMetrics)
	require.NoError(s.t, err)
	require.NoError(s.t, relay.Start(s.ctx))
	defer relay.Stop()
	conn, _, err := websocket.Dial(s.ctx, fmt.Sprintf("ws://127.0.0.1:%d/ws", relay.BoundPort()), nil) //nolint:bodyclose // it is the connection's
	require.NoError(s.t, err)
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)

	from := s.user(4)
	b, _ := s.bridge(from, chainA, chainB)
	_, txs := s.submit(b)

	var stream bytes.Buffer
	var slot []message
	for found := false; !found; {
		_, data, err := conn.Read(s.ctx)
		require.NoError(s.t, err)
		stream.Write(append(data, '\n'))
		var m message
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		require.NoError(s.t, d.Decode(&m), "%s", data)
		require.Equal(s.t, m.Index == 0, m.Base != nil)
		if m.Base != nil {
			slot = nil
		} else if slot == nil {
			continue // it began in the middle of a slot
		}
		require.EqualValues(s.t, len(slot), m.Index)
		if slot = append(slot, m); m.Diff.BlockHash == (common.Hash{}) {
			continue
		}
		for _, m := range slot {
			for _, raw := range m.Diff.Transactions {
				var tx types.Transaction
				require.NoError(s.t, tx.UnmarshalBinary(raw))
				found = found || tx.Hash() == txs[0]
			}
		}
		sameBlock(s, slot)
	}

	// Upstream's acceptance tests read such a stream with these types.
	decode := exec.CommandContext(s.ctx, "go", "run", ".")
	decode.Dir = filepath.Join(root(), "op-e2e", "flashblocks")
	decode.Env = append(decode.Environ(), "GOWORK=off")
	decode.Stdin = &stream
	decode.Stderr = new(bytes.Buffer)
	out, err := decode.Output()
	require.NoError(s.t, err, "%s", decode.Stderr)
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var last struct {
			Diff     struct{ Transactions []hexutil.Bytes }
			Metadata struct {
				BlockNumber uint64         `json:"block_number"`
				Receipts    map[string]any `json:"receipts"`
			}
		}
		require.NoError(s.t, d.Decode(&last))
		require.NotZero(s.t, last.Metadata.BlockNumber)
		require.Len(s.t, last.Metadata.Receipts, len(last.Diff.Transactions))
	}
}

// sameBlock compares a block's messages with the block.
func sameBlock(s *scenario, slot []message) {
	c, err := s.Eth(chainA)
	require.NoError(s.t, err)
	base, last := slot[0].Base, slot[len(slot)-1].Diff
	var block *types.Block
	s.until("block "+last.BlockHash.Hex(), func(ctx context.Context) (bool, error) {
		block, err = c.BlockByHash(ctx, last.BlockHash)
		if err == ethereum.NotFound { //nolint:errorlint // what the client returns
			return false, nil
		}
		return err == nil, err
	})
	h := block.Header()
	made := &types.Header{
		ParentHash: base.ParentHash, UncleHash: types.EmptyUncleHash, Coinbase: base.FeeRecipient, Root: last.StateRoot, TxHash: h.TxHash,
		ReceiptHash: last.ReceiptsRoot, Bloom: last.LogsBloom, Difficulty: new(big.Int), Number: new(big.Int).SetUint64(uint64(base.BlockNumber)),
		GasLimit: uint64(base.GasLimit), GasUsed: uint64(last.GasUsed), Time: uint64(base.Timestamp), Extra: base.ExtraData, MixDigest: base.PrevRandao,
		BaseFee: base.BaseFeePerGas.ToInt(), WithdrawalsHash: &last.WithdrawalsRoot, BlobGasUsed: (*uint64)(last.BlobGasUsed), ExcessBlobGas: new(uint64),
		ParentBeaconRoot: &base.ParentBeaconRoot, RequestsHash: &types.EmptyRequestsHash,
	}
	require.Equal(s.t, block.Hash(), made.Hash(), "its header, from the stream alone")
	var txs int
	for _, m := range slot {
		require.Equal(s.t, slot[0].PayloadID, m.PayloadID)
		require.Equal(s.t, uint64(base.BlockNumber), m.Metadata.BlockNumber)
		for _, raw := range m.Diff.Transactions {
			want, err := block.Transactions()[txs].MarshalBinary()
			require.NoError(s.t, err)
			require.Equal(s.t, hexutil.Bytes(want), raw)
			receipt, err := c.TransactionReceipt(s.ctx, block.Transactions()[txs].Hash())
			require.NoError(s.t, err)
			told, ok := m.Metadata.Receipts[receipt.TxHash]
			require.True(s.t, ok)
			require.Equal(s.t, []uint64{receipt.CumulativeGasUsed, receipt.Status, uint64(receipt.Type)}, []uint64{uint64(told.CumulativeGasUsed), uint64(told.Status), uint64(told.Type)})
			require.Len(s.t, told.Logs, len(receipt.Logs))
			txs++
		}
	}
	require.Len(s.t, block.Transactions(), txs)
}
