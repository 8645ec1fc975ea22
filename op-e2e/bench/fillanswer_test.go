package bench

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
)

// fillAnswer answers as op-geth does after a fill, and as it would without compression.
type fillAnswer struct{ txs []catalyst.SessionFilledTx }

func (f fillAnswer) Compressed() (*catalyst.SessionFilled, error) {
	a, err := f.Plain()
	if err == nil {
		a.Transactions = snappy.Encode(nil, a.Transactions)
	}
	return a, err
}

func (f fillAnswer) Plain() (*catalyst.SessionFilled, error) {
	enc, err := rlp.EncodeToBytes(f.txs)
	return &catalyst.SessionFilled{Transactions: enc}, err
}

// BenchmarkFillAnswer is the time from the results of a fill, a block of 60 Mgas of token
// transfers, to the same in another process, over a WebSocket as an operator has it.
func BenchmarkFillAnswer(b *testing.B) {
	var f fillAnswer
	chain := enginetest.NewChain(901, engineAccounts)
	token := common.HexToAddress("0x7000000000000000000000000000000000000007")
	for i := range 1174 {
		var call [68]byte
		copy(call[:], []byte{0xa9, 0x05, 0x9c, 0xbb})
		to := enginetest.Recipient(i)
		copy(call[16:36], to[:])
		call[67] = byte(i)
		raw := chain.Call(i%engineAccounts, uint64(i/engineAccounts), token, call[:], 60_000)
		from := chain.Accounts[i%engineAccounts].Addr
		transfer := common.HexToHash("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")
		f.txs = append(f.txs, catalyst.SessionFilledTx{Raw: raw, Status: 1, GasUsed: 51_000, TxIndex: uint64(i), FirstLog: uint64(i), Logs: []*types.Log{{
			Address: token, Topics: []common.Hash{transfer, common.BytesToHash(from[:]), common.BytesToHash(to[:])}, Data: call[36:],
		}}})
	}
	server := rpc.NewServer()
	defer server.Stop()
	require.NoError(b, server.RegisterName("fill", f))
	socket := httptest.NewServer(server.WebsocketHandler([]string{"*"}))
	defer socket.Close()
	c, err := rpc.DialOptions(b.Context(), "ws"+strings.TrimPrefix(socket.URL, "http"), rpc.WithWebsocketMessageSizeLimit(32<<20))
	require.NoError(b, err)
	defer c.Close()

	read := func(method string, decompress func(enc []byte) ([]byte, error)) func(b *testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				var answer json.RawMessage
				require.NoError(b, c.CallContext(b.Context(), &answer, method))
				var filled catalyst.SessionFilled
				require.NoError(b, json.Unmarshal(answer, &filled))
				enc, err := decompress(filled.Transactions)
				require.NoError(b, err)
				var txs []catalyst.SessionFilledTx
				require.NoError(b, rlp.DecodeBytes(enc, &txs))
				require.Len(b, txs, len(f.txs))
			}
		}
	}
	b.Run("plain", read("fill_plain", func(enc []byte) ([]byte, error) { return enc, nil }))
	b.Run("compressed", read("fill_compressed", func(enc []byte) ([]byte, error) { return snappy.Decode(nil, enc) }))
}
