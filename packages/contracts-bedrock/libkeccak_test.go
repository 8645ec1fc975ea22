package contracts

import (
	"encoding/json"
	"math/big"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/vm/runtime"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"
)

// LibKeccak is our own, so it is compared with the reference implementation, around every boundary of its padding: 0, 1, 2
// and 3 full blocks of 136 bytes and the lengths beside them, and random lengths.
func TestLibKeccak(t *testing.T) {
	file := filepath.Join("..", "..", "build", "contracts", "forge-artifacts", "LibKeccakHarness.sol", "LibKeccakHarness.json")
	data, err := os.ReadFile(file)
	require.NoError(t, err, "run `make contracts`")
	var artifact struct {
		ABI              json.RawMessage `json:"abi"`
		DeployedBytecode struct {
			Object hexutil.Bytes `json:"object"`
		} `json:"deployedBytecode"`
	}
	require.NoError(t, json.Unmarshal(data, &artifact))
	harness, err := abi.JSON(strings.NewReader(string(artifact.ABI)))
	require.NoError(t, err)

	var lengths []int
	for _, around := range []int{0, 8, 32, 136, 272, 408} {
		for length := max(0, around-4); length <= around+4; length++ {
			lengths = append(lengths, length)
		}
	}
	random := rand.New(rand.NewSource(1))
	for len(lengths) < 60 {
		lengths = append(lengths, random.Intn(1000))
	}
	for _, length := range lengths {
		input := make([]byte, length)
		random.Read(input)
		call, err := harness.Pack("hash", input)
		require.NoError(t, err)
		ret, _, err := runtime.Execute(artifact.DeployedBytecode.Object, call, &runtime.Config{GasLimit: 1 << 40, Value: new(big.Int)})
		require.NoError(t, err, "length %d", length)
		require.Equal(t, crypto.Keccak256Hash(input), common.BytesToHash(ret), "length %d", length)
	}
}
