package operators

import (
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/core/vm"
	"github.com/ethereum/go-ethereum/core/vm/runtime"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/triedb"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// evidenceContract is SubblockEvidence, deployed in an EVM in memory.
type evidenceContract struct {
	abi     abi.ABI
	cfg     *runtime.Config
	address common.Address
}

func deployEvidence(t testing.TB) *evidenceContract {
	t.Helper()
	file := filepath.Join("..", "..", "build", "contracts", "forge-artifacts", "SubblockEvidence.sol", "SubblockEvidence.json")
	data, err := os.ReadFile(file)
	require.NoError(t, err, "run `make contracts`")
	var artifact struct {
		ABI      json.RawMessage `json:"abi"`
		Bytecode struct {
			Object hexutil.Bytes `json:"object"`
		} `json:"bytecode"`
	}
	require.NoError(t, json.Unmarshal(data, &artifact))
	c := new(evidenceContract)
	c.abi, err = abi.JSON(strings.NewReader(string(artifact.ABI)))
	require.NoError(t, err)
	db, err := state.New(types.EmptyRootHash, state.NewDatabase(triedb.NewDatabase(rawdb.NewMemoryDatabase(), nil), nil))
	require.NoError(t, err)
	c.cfg = &runtime.Config{GasLimit: 10_000_000, Value: new(big.Int), State: db}
	_, c.address, _, err = runtime.Create(artifact.Bytecode.Object, c.cfg)
	require.NoError(t, err)
	return c
}

// equivocator calls the contract, and gives the name of the custom error it reverts with.
func (c *evidenceContract) equivocator(setID common.Hash, e *Evidence, sigs [2][]byte) (common.Address, string, error) {
	call, err := c.abi.Pack("equivocator", setID, new(big.Int).SetUint64(e.Height), e.View, [2][32]byte{e.Hashes[0], e.Hashes[1]}, sigs)
	if err != nil {
		return common.Address{}, "", err
	}
	ret, _, err := runtime.Call(c.address, call, c.cfg)
	if errors.Is(err, vm.ErrExecutionReverted) {
		if len(ret) < 4 {
			return common.Address{}, "", errors.New("it reverts without a custom error")
		}
		reason, err := c.abi.ErrorByID([4]byte(ret[:4]))
		if err != nil {
			return common.Address{}, "", err
		}
		return common.Address{}, reason.Name, nil
	} else if err != nil {
		return common.Address{}, "", err
	}
	out, err := c.abi.Unpack("equivocator", ret)
	if err != nil {
		return common.Address{}, "", err
	}
	return out[0].(common.Address), "", nil
}

func bytesOf(s [2]Signature) [2][]byte { return [2][]byte{s[0][:], s[1][:]} }

func TestContractErrors(t *testing.T) {
	c := deployEvidence(t)
	good, other := testEvidence(t, 3, 9), testEvidence(t, 4, 9)
	order := crypto.S256().Params().N
	set := func(s *Signature, at int, v *big.Int) { v.FillBytes(s[at : at+32]) }
	for name, test := range map[string]struct {
		change func(*Evidence)
		want   string
		check  error
	}{
		"good":         {func(*Evidence) {}, "", nil},
		"one subblock": {func(e *Evidence) { e.Hashes[1], e.Signatures[1] = e.Hashes[0], e.Signatures[0] }, "SameSubblock", ErrSameSubblock},
		"two signers":  {func(e *Evidence) { e.Signatures[1] = other.Signatures[1] }, "TwoSigners", ErrTwoSigners},
		"v 0":          {func(e *Evidence) { e.Signatures[0][64] -= 27 }, "MalformedSignature", ErrMalformed},
		"v 29":         {func(e *Evidence) { e.Signatures[1][64] = 29 }, "MalformedSignature", ErrMalformed},
		"high s": {func(e *Evidence) {
			s := &e.Signatures[1]
			set(s, 32, new(big.Int).Sub(order, new(big.Int).SetBytes(s[32:64])))
			s[64] = 55 - s[64]
		}, "MalformedSignature", ErrMalformed},
		"s above half": {func(e *Evidence) {
			set(&e.Signatures[0], 32, new(big.Int).Add(new(big.Int).Rsh(order, 1), big.NewInt(1)))
		}, "MalformedSignature", ErrMalformed},
		"s 0":        {func(e *Evidence) { set(&e.Signatures[0], 32, new(big.Int)) }, "NoSigner", ErrMalformed},
		"r 0":        {func(e *Evidence) { set(&e.Signatures[0], 0, new(big.Int)) }, "NoSigner", ErrMalformed},
		"r order":    {func(e *Evidence) { set(&e.Signatures[0], 0, order) }, "NoSigner", ErrMalformed},
		"r no point": {func(e *Evidence) { set(&e.Signatures[1], 0, big.NewInt(5)) }, "NoSigner", ErrMalformed},
	} {
		e := *good
		test.change(&e)
		leader, reason, err := c.equivocator(testSetID, &e, bytesOf(e.Signatures))
		require.NoError(t, err, name)
		require.Equal(t, test.want, reason, name)
		got, err := e.Check(testSetID)
		require.ErrorIs(t, err, test.check, name)
		require.Equal(t, got, leader, name)
	}
	// s in the middle is the last that is taken: by whoever that is, not malformed.
	e := *good
	set(&e.Signatures[0], 32, new(big.Int).Rsh(order, 1))
	_, reason, err := c.equivocator(testSetID, &e, bytesOf(e.Signatures))
	require.NoError(t, err)
	require.Equal(t, "TwoSigners", reason)

	for _, size := range []int{0, 1, 32, 64, 66, 130} {
		for i := range 2 {
			sigs := bytesOf(good.Signatures)
			sigs[i] = append(append([]byte(nil), sigs[i]...), make([]byte, 65)...)[:size]
			_, reason, err := c.equivocator(testSetID, good, sigs)
			require.NoError(t, err)
			require.Equal(t, "MalformedSignature", reason, size)
		}
	}
}

// TestContractAgrees: whatever the evidence, the contract and Check name the same leader
// or both refuse.
func TestContractAgrees(t *testing.T) {
	c := deployEvidence(t)
	accepted, refused := 0, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.Custom(func(t *rapid.T) common.Hash {
			return common.BytesToHash(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "bytes"))
		})
		setID := hash.Draw(t, "set")
		e := &Evidence{
			Height: rapid.Uint64().Draw(t, "height"), View: hash.Draw(t, "view"),
			Hashes: [2]common.Hash{hash.Draw(t, "first"), hash.Draw(t, "second")},
		}
		key := rapid.IntRange(0, 3).Draw(t, "key")
		for i := range e.Signatures {
			var err error
			e.Signatures[i], err = sign(SubblockDigest(setID, e.Height, e.View, e.Hashes[i]), testKey(key))
			require.NoError(t, err)
		}
		i := rapid.IntRange(0, 1).Draw(t, "which")
		switch rapid.IntRange(0, 11).Draw(t, "lie") {
		case 0:
			e.Height++
		case 1:
			e.View = hash.Draw(t, "other view")
		case 2:
			e.Hashes[i] = hash.Draw(t, "other hash")
		case 3:
			e.Hashes[i] = e.Hashes[1-i]
		case 4:
			setID = hash.Draw(t, "other set")
		case 5:
			var err error
			e.Signatures[i], err = sign(SubblockDigest(setID, e.Height, e.View, e.Hashes[i]), testKey(key+1))
			require.NoError(t, err)
		case 6:
			e.Signatures[i][rapid.IntRange(0, 64).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 7:
			copy(e.Signatures[i][:], rapid.SliceOfN(rapid.Byte(), 65, 65).Draw(t, "noise"))
		case 8:
			e.Signatures[0], e.Signatures[1] = e.Signatures[1], e.Signatures[0]
		}
		leader, reason, err := c.equivocator(setID, e, bytesOf(e.Signatures))
		require.NoError(t, err)
		want, checked := e.Check(setID)
		require.Equal(t, checked == nil, reason == "", "%s against %v", reason, checked)
		require.Equal(t, want, leader)
		switch reason {
		case "":
			require.Equal(t, testAddress(key), leader)
			accepted++
		case "SameSubblock":
			require.ErrorIs(t, checked, ErrSameSubblock)
		case "TwoSigners":
			require.ErrorIs(t, checked, ErrTwoSigners)
		case "MalformedSignature", "NoSigner":
			require.ErrorIs(t, checked, ErrMalformed)
		default:
			t.Fatalf("unexpected %s", reason)
		}
		refused[reason]++
	})
	require.Positive(t, accepted)
	require.Positive(t, refused["TwoSigners"])
	t.Logf("%d accepted, refused %v", accepted, refused)
}

func TestContractDigest(t *testing.T) {
	c := deployEvidence(t)
	for _, height := range []uint64{0, 1, 1<<64 - 1} {
		call, err := c.abi.Pack("digest", testSetID, new(big.Int).SetUint64(height), common.Hash{2}, common.Hash{3})
		require.NoError(t, err)
		ret, _, err := runtime.Call(c.address, call, c.cfg)
		require.NoError(t, err)
		require.Equal(t, SubblockDigest(testSetID, height, common.Hash{2}, common.Hash{3}), common.BytesToHash(ret))
	}
}
