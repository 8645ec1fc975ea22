package relay

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const (
	chainA = sequence.ChainID(901)
	chainB = sequence.ChainID(902)
	chainC = sequence.ChainID(903)
)

// messenger is the ABI as the contract has it, written down apart from the code under test.
var messenger = func() abi.ABI {
	a, err := abi.JSON(strings.NewReader(`[
{"type":"function","name":"relayMessage","stateMutability":"payable","outputs":[{"name":"returnData_","type":"bytes"}],"inputs":[
 {"name":"_id","type":"tuple","components":[{"name":"origin","type":"address"},{"name":"blockNumber","type":"uint256"},
  {"name":"logIndex","type":"uint256"},{"name":"timestamp","type":"uint256"},{"name":"chainId","type":"uint256"}]},
 {"name":"_sentMessage","type":"bytes"}]},
{"type":"event","name":"SentMessage","inputs":[{"name":"destination","type":"uint256","indexed":true},{"name":"target","type":"address","indexed":true},
 {"name":"messageNonce","type":"uint256","indexed":true},{"name":"sender","type":"address"},{"name":"message","type":"bytes"}]},
{"type":"event","name":"RelayedMessage","inputs":[{"name":"source","type":"uint256","indexed":true},{"name":"messageNonce","type":"uint256","indexed":true},
 {"name":"messageHash","type":"bytes32","indexed":true},{"name":"returnDataHash","type":"bytes32"}]}]`))
	if err != nil {
		panic(err)
	}
	return a
}()

func number(n uint64) common.Hash { return common.BigToHash(new(big.Int).SetUint64(n)) }

// sent is a message's log as the messenger emits it.
func sent(t require.TestingT, dest sequence.ChainID, nonce uint64, message []byte) *types.Log {
	data, err := messenger.Events["SentMessage"].Inputs.NonIndexed().Pack(common.Address{0xaa}, message)
	require.NoError(t, err)
	return &types.Log{
		Address: predeploys.L2toL2CrossDomainMessengerAddr,
		Topics:  []common.Hash{messenger.Events["SentMessage"].ID, number(uint64(dest)), {31: 0xbb}, number(nonce)},
		Data:    data, BlockNumber: 77, Index: 5,
	}
}

func relayed(source sequence.ChainID, nonce uint64) *types.Log {
	return &types.Log{
		Address: predeploys.L2toL2CrossDomainMessengerAddr,
		Topics:  []common.Hash{messenger.Events["RelayedMessage"].ID, number(uint64(source)), number(nonce), {1}},
		Data:    make([]byte, 32),
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	// SENT_MESSAGE_EVENT_SELECTOR of the contract.
	require.Equal(t, common.HexToHash("0x382409ac69001e11931a28435afef442cbfd20d9891907e8fa373ba7d351f320"), sentMessage)
	require.Equal(t, messenger.Events["SentMessage"].ID, sentMessage)
	require.Equal(t, messenger.Events["RelayedMessage"].ID, relayedMessage)
}

func TestPending(t *testing.T) {
	t.Parallel()
	to := func(dest sequence.ChainID, nonce uint64) *types.Log { return sent(t, dest, nonce, nil) }
	foreign := to(chainB, 1)
	foreign.Address = common.Address{9}
	short := to(chainB, 1)
	short.Topics = short.Topics[:3]
	huge := to(chainB, 1)
	huge.Topics[1][0] = 1 // a chain ID above 64 bits with the same low bits
	hugeSource := relayed(chainA, 1)
	hugeSource.Topics[1][0] = 1
	for name, c := range map[string]struct {
		logs []Log
		want []int
	}{
		"none":              {nil, nil},
		"in order":          {[]Log{{chainA, 9, to(chainB, 2)}, {chainC, 9, to(chainB, 1)}, {chainA, 9, to(chainB, 1)}}, []int{0, 1, 2}},
		"other chain":       {[]Log{{chainA, 9, to(chainC, 1)}, {chainA, 9, to(chainB, 2)}}, []int{1}},
		"other contract":    {[]Log{{chainA, 9, foreign}}, nil},
		"other event":       {[]Log{{chainA, 9, relayed(chainB, 1)}}, nil},
		"no topics":         {[]Log{{chainA, 9, &types.Log{Address: predeploys.L2toL2CrossDomainMessengerAddr}}, {chainA, 9, short}}, nil},
		"huge chain":        {[]Log{{chainA, 9, huge}}, nil},
		"relayed":           {[]Log{{chainA, 9, to(chainB, 1)}, {chainA, 9, to(chainB, 2)}, {chainB, 9, relayed(chainA, 1)}}, []int{1}},
		"same nonce":        {[]Log{{chainA, 9, to(chainB, 1)}, {chainC, 9, to(chainB, 1)}, {chainB, 9, relayed(chainA, 1)}}, []int{1}},
		"relayed elsewhere": {[]Log{{chainA, 9, to(chainB, 1)}, {chainC, 9, relayed(chainA, 1)}}, []int{0}},
		"relayed from huge": {[]Log{{chainA, 9, to(chainB, 1)}, {chainB, 9, hugeSource}}, []int{0}},
		"sent again":        {[]Log{{chainA, 9, to(chainB, 1)}, {chainA, 9, to(chainB, 1)}}, []int{0}},
		"again after relay": {[]Log{{chainA, 9, to(chainB, 1)}, {chainB, 9, relayed(chainA, 1)}, {chainA, 9, to(chainB, 1)}}, nil},
	} {
		var want []Log
		for _, i := range c.want {
			want = append(want, c.logs[i])
		}
		require.Equal(t, want, Pending(chainB, c.logs), name)
	}
}

type identifier struct {
	Origin      common.Address
	BlockNumber *big.Int
	LogIndex    *big.Int
	Timestamp   *big.Int
	ChainId     *big.Int
}

func relayer(t require.TestingT, cfg Config) *Relayer {
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("relayer")))
	require.NoError(t, err)
	r, err := New(key, cfg)
	require.NoError(t, err)
	return r
}

// TestTransaction takes the transaction apart as the chain would, for random messages.
func TestTransaction(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		u64 := func(name string) uint64 { return rapid.Uint64Range(0, 1<<62).Draw(t, name) }
		message := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "message")
		dest := sequence.ChainID(rapid.Uint64Range(1, 1<<62).Draw(t, "destination"))
		src := sequence.ChainID(rapid.Uint64().Filter(func(s uint64) bool { return s != uint64(dest) && s != 0 }).Draw(t, "source"))
		slot, nonce := sequence.Slot(u64("slot")), u64("nonce")
		l := sent(t, dest, u64("message nonce"), message)
		l.BlockNumber, l.Index = u64("block"), uint(rapid.Uint32().Draw(t, "index"))
		baseFee, tip := new(big.Int).SetUint64(u64("base fee")), new(big.Int).SetUint64(u64("tip"))
		r := relayer(t, Config{Gas: 300_000, Tip: tip})

		raw, err := r.Transaction(dest, engine.Header{BaseFee: baseFee}, nonce, src, slot, l)
		require.NoError(t, err)
		var tx types.Transaction
		require.NoError(t, tx.UnmarshalBinary(raw))
		require.EqualValues(t, types.DynamicFeeTxType, tx.Type())
		from, err := types.Sender(types.LatestSignerForChainID(dest.ID().ToBig()), &tx)
		require.NoError(t, err)
		require.Equal(t, r.Address(), from)
		require.Equal(t, nonce, tx.Nonce())
		require.Equal(t, predeploys.L2toL2CrossDomainMessengerAddr, *tx.To())
		require.Zero(t, tx.Value().Sign())
		require.Equal(t, new(big.Int).Add(baseFee, tip), tx.GasFeeCap())
		require.Zero(t, tip.Cmp(tx.GasTipCap()))
		intrinsic, err := core.IntrinsicGas(tx.Data(), tx.AccessList(), nil, false, true, true, true)
		require.NoError(t, err)
		floor, err := core.FloorDataGas(tx.Data())
		require.NoError(t, err)
		require.Equal(t, max(intrinsic+300_000, floor), tx.Gas())

		// The call.
		require.Equal(t, messenger.Methods["relayMessage"].ID, tx.Data()[:4])
		in, err := messenger.Methods["relayMessage"].Inputs.Unpack(tx.Data()[4:])
		require.NoError(t, err)
		id := *abi.ConvertType(in[0], new(identifier)).(*identifier)
		require.Equal(t, predeploys.L2toL2CrossDomainMessengerAddr, id.Origin)
		require.Equal(t, l.BlockNumber, id.BlockNumber.Uint64())
		require.EqualValues(t, l.Index, id.LogIndex.Uint64())
		require.EqualValues(t, slot, id.Timestamp.Uint64())
		require.EqualValues(t, src, id.ChainId.Uint64())
		payload := in[1].([]byte)
		require.Equal(t, messages.LogToMessagePayload(l), payload)

		// What the messenger makes of the payload.
		require.Equal(t, sentMessage[:], payload[:32])
		require.Equal(t, number(uint64(dest)), common.Hash(payload[32:64]))
		body, err := messenger.Events["SentMessage"].Inputs.NonIndexed().Unpack(payload[128:])
		require.NoError(t, err)
		require.True(t, bytes.Equal(message, body[1].([]byte)))

		// The access list declares this message and nothing else, as upstream reads it.
		require.Len(t, tx.AccessList(), 1)
		require.Equal(t, predeploys.CrossL2InboxAddr, tx.AccessList()[0].Address)
		rest, access, err := messages.ParseAccess(tx.AccessList()[0].StorageKeys)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, messages.ChecksumArgs{
			BlockNumber: l.BlockNumber, LogIndex: uint32(l.Index), Timestamp: uint64(slot), ChainID: src.ID(), LogHash: messages.LogToLogHash(l),
		}.Access(), access)
	})
}

func TestTransactionErrors(t *testing.T) {
	t.Parallel()
	r := relayer(t, Config{})
	header := engine.Header{BaseFee: big.NewInt(1)}
	_, err := r.Transaction(chainC, header, 0, chainA, 9, sent(t, chainB, 1, nil))
	require.ErrorIs(t, err, ErrNotSent)
	require.ErrorContains(t, err, "relaying log 5 of block 77 of chain 901 to chain 903 in slot 9")
	_, err = r.Transaction(chainB, header, 0, chainA, 9, relayed(chainB, 1))
	require.ErrorIs(t, err, ErrNotSent)
	_, err = r.Transaction(chainB, header, 0, chainB, 9, sent(t, chainB, 1, nil))
	require.ErrorIs(t, err, ErrNotSent)
	_, err = r.Transaction(chainB, engine.Header{}, 0, chainA, 9, sent(t, chainB, 1, nil))
	require.ErrorContains(t, err, "no base fee")
}

func TestNew(t *testing.T) {
	t.Parallel()
	_, err := New(nil, Config{})
	require.ErrorContains(t, err, "key is missing")
	key, err := crypto.GenerateKey()
	require.NoError(t, err)
	_, err = New(key, Config{Tip: big.NewInt(-1)})
	require.ErrorContains(t, err, "expected 0 or more")

	r, err := New(key, Config{})
	require.NoError(t, err)
	require.Equal(t, DefaultConfig(), r.cfg)
	number := new(big.Int).SetBytes(crypto.FromECDSA(key))
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		for _, v := range []any{r, *r, struct{ R *Relayer }{r}} {
			out := strings.ToLower(fmt.Sprintf(format, v))
			require.NotContains(t, out, number.String(), format)
			require.NotContains(t, out, number.Text(16), format)
		}
	}
	require.Equal(t, "relayer "+crypto.PubkeyToAddress(key.PublicKey).Hex(), r.String())
}

func BenchmarkTransaction(b *testing.B) {
	r := relayer(b, Config{})
	l := sent(b, chainB, 1, make([]byte, 200))
	header := engine.Header{BaseFee: big.NewInt(1)}
	for b.Loop() {
		if _, err := r.Transaction(chainB, header, 0, chainA, 9, l); err != nil {
			b.Fatal(err)
		}
	}
}
