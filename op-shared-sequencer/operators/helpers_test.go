package operators

import (
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testKey is the same key for the same number in every run.
func testKey(n int) *ecdsa.PrivateKey {
	key, err := crypto.ToECDSA(crypto.Keccak256(binary.BigEndian.AppendUint64([]byte("test key"), uint64(n))))
	if err != nil {
		panic(err)
	}
	return key
}

func testAddress(n int) common.Address { return crypto.PubkeyToAddress(testKey(n).PublicKey) }

func testOperator(n int, power uint64) Operator {
	return Operator{
		Name: fmt.Sprintf("op-%d", n), Address: testAddress(n), ConsensusKey: ConsensusKey{31: byte(n + 1)}, Power: power,
	}
}

func testGenesis(powers ...uint64) *Genesis {
	g := &Genesis{
		Set: "test-set", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Chains: []sequence.ChainID{901, 902},
	}
	for i, p := range powers {
		g.Operators = append(g.Operators, testOperator(i, p))
	}
	return g
}

func approve(t testing.TB, s *Set, c Change, slot sequence.Slot, keys ...int) {
	t.Helper()
	for _, n := range keys {
		signed, err := SignChange(s.ID(), c, testKey(n))
		require.NoError(t, err)
		require.NoError(t, s.Apply(signed, slot))
	}
}

// testSubblock begins a slot. What differs by seed is not part of the view.
func testSubblock(view, seed byte) *sequence.Subblock {
	return &sequence.Subblock{
		Slot: 1000,
		Openings: []sequence.Opening{
			{Chain: 901, ParentHash: common.Hash{1, view}, L1Origin: eth.BlockID{Hash: common.Hash{2, view}}, FeeRecipient: common.Address{seed}},
			{Chain: 902, ParentHash: common.Hash{3, view}, L1Origin: eth.BlockID{Hash: common.Hash{2, view}}},
		},
		Steps:   []sequence.Step{{Chain: 901, Transactions: [][]byte{{seed, 1}, {2}}}},
		Results: []sequence.Result{{Chain: 901, Transactions: 2, GasUsed: 42000}, {Chain: 902}},
	}
}

// laterSubblock does not begin a slot.
func laterSubblock(seed byte) *sequence.Subblock {
	return &sequence.Subblock{
		Slot: 1000, Index: 1, Parent: common.Hash{9},
		Steps:   []sequence.Step{{Chain: 901, Transactions: [][]byte{{seed}}}},
		Results: []sequence.Result{{Chain: 901, Transactions: 3, GasUsed: 63000}},
		Seals:   []sequence.Seal{{Chain: 901, BlockHash: common.Hash{seed}, Number: 7}},
	}
}

var testSetID = common.Hash{0xaa, 31: 0x01}
