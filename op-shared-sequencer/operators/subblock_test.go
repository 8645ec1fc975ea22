package operators

import (
	"bytes"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// The digest and the view are what a contract makes of abi.encode.
func TestDigestIsABI(t *testing.T) {
	word, err := abi.NewType("bytes32", "", nil)
	require.NoError(t, err)
	number, err := abi.NewType("uint256", "", nil)
	require.NoError(t, err)
	encode := func(types []abi.Type, values ...any) []byte {
		var args abi.Arguments
		for _, typ := range types {
			args = append(args, abi.Argument{Type: typ})
		}
		data, err := args.Pack(values...)
		require.NoError(t, err)
		return data
	}
	require.Equal(t,
		crypto.Keccak256Hash(encode([]abi.Type{word, word, number, word, word},
			SubblockDomain, testSetID, new(big.Int).SetUint64(1<<63+7), common.Hash{5}, common.Hash{6})),
		SubblockDigest(testSetID, 1<<63+7, common.Hash{5}, common.Hash{6}))

	sub := testSubblock(4, 1)
	var list []byte
	for _, o := range sub.Openings {
		list = append(list, encode([]abi.Type{number, word, word}, new(big.Int).SetUint64(uint64(o.Chain)), o.ParentHash, o.L1Origin.Hash)...)
	}
	require.Equal(t, crypto.Keccak256Hash(list), View(sub))
}

func TestView(t *testing.T) {
	view := View(testSubblock(1, 1))
	require.Equal(t, view, View(testSubblock(1, 2)), "what the leader chose is not part of it")
	later := testSubblock(1, 1)
	later.Slot++
	require.Equal(t, view, View(later), "nor is the time")
	for name, change := range map[string]func(*sequence.Subblock){
		"parent":     func(s *sequence.Subblock) { s.Openings[1].ParentHash[0]++ },
		"origin":     func(s *sequence.Subblock) { s.Openings[0].L1Origin.Hash[0]++ },
		"chain":      func(s *sequence.Subblock) { s.Openings[1].Chain++ },
		"fewer":      func(s *sequence.Subblock) { s.Openings = s.Openings[:1] },
		"none":       func(s *sequence.Subblock) { s.Openings = nil },
		"not begins": func(s *sequence.Subblock) { s.Index = 1 },
	} {
		sub := testSubblock(1, 1)
		change(sub)
		require.NotEqual(t, view, View(sub), name)
	}
	require.Zero(t, View(laterSubblock(1)))
}

func TestSignedSubblock(t *testing.T) {
	for _, sub := range []*sequence.Subblock{testSubblock(1, 1), laterSubblock(1)} {
		signed, err := SignSubblock(testSetID, 7, sub, testKey(2))
		require.NoError(t, err)
		got, err := DecodeSignedSubblock(signed.Encode(), DefaultLimits)
		require.NoError(t, err)
		require.Equal(t, signed.Encode(), got.Encode())
		require.Equal(t, sub.Hash(), got.Subblock.Hash())
		leader, err := got.Leader(testSetID)
		require.NoError(t, err)
		require.Equal(t, testAddress(2), leader)

		for name, change := range map[string]func(s *SignedSubblock) common.Hash{
			"height":  func(s *SignedSubblock) common.Hash { s.Height++; return testSetID },
			"set":     func(*SignedSubblock) common.Hash { return common.Hash{1} },
			"content": func(s *SignedSubblock) common.Hash { s.Subblock.Slot++; return testSetID },
		} {
			s, err := DecodeSignedSubblock(signed.Encode(), DefaultLimits)
			require.NoError(t, err)
			set := change(s)
			s, err = DecodeSignedSubblock(s.Encode(), DefaultLimits)
			require.NoError(t, err)
			leader, err := s.Leader(set)
			require.True(t, err != nil || leader != testAddress(2), name)
		}
	}
}

func TestDecodeSignedSubblockRefuses(t *testing.T) {
	good, err := SignSubblock(testSetID, 7, testSubblock(1, 1), testKey(2))
	require.NoError(t, err)
	enc := good.Encode()
	_, err = DecodeSignedSubblock(enc, Limits{Bytes: len(enc), Items: 1000})
	require.NoError(t, err)
	_, err = DecodeSignedSubblock(enc, Limits{Bytes: len(enc) - 1, Items: 1000})
	require.ErrorIs(t, err, ErrMalformed)
	require.ErrorContains(t, err, "at most")
	_, err = DecodeSignedSubblock(enc, Limits{Bytes: len(enc), Items: 20})
	require.ErrorIs(t, err, ErrMalformed)
	require.ErrorContains(t, err, "more than 20 items")

	for name, s := range map[string]*SignedSubblock{
		"height 0":     {Subblock: testSubblock(1, 1), Signature: good.Signature},
		"no openings":  {Height: 7, Subblock: &sequence.Subblock{Slot: 1}, Signature: good.Signature},
		"no signature": {Height: 7, Subblock: testSubblock(1, 1)},
	} {
		_, err := DecodeSignedSubblock(s.Encode(), DefaultLimits)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	for name, data := range map[string][]byte{
		"empty":       nil,
		"trailing":    append(bytes.Clone(enc), 0x80),
		"cut off":     enc[:len(enc)-1],
		"a subblock":  testSubblock(1, 1).Encode(),
		"deep":        bytes.Repeat([]byte{0xc1}, 100),
		"no subblock": func() []byte { b, _ := rlp.EncodeToBytes([]any{uint64(7), []byte{}, good.Signature[:]}); return b }(),
	} {
		_, err := DecodeSignedSubblock(data, DefaultLimits)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
}

// Many empty transactions are small on the wire and large in memory: they are counted
// before anything is made of them.
func TestItemsAreCountedFirst(t *testing.T) {
	sub := testSubblock(1, 1)
	sub.Steps[0].Transactions = make([][]byte, 1<<20)
	signed, err := SignSubblock(testSetID, 7, sub, testKey(0))
	require.NoError(t, err)
	enc := signed.Encode()
	require.Less(t, len(enc), DefaultLimits.Bytes)
	allocs := testing.AllocsPerRun(3, func() {
		_, err = DecodeSignedSubblock(enc, DefaultLimits)
	})
	require.ErrorContains(t, err, "items")
	require.Less(t, allocs, 20.0)
}
