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

package vm

import (
	"bytes"
	"encoding/json"
	"math/big"
	"reflect"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
)

// Karst's execution rules against the figures of its specification
// (specs.optimism.io, protocol/karst: overview.md "Execution Layer", exec-engine.md
// "Precompile Input Size Restrictions") and of the EIPs it lists. The rules outside
// the EVM are tested in eth/catalyst.

// karstGenesisConfig is a chain configuration as op-deployer writes it: OP Stack
// fork times, the Ethereum forks they imply up to Prague, and no osakaTime.
const karstGenesisConfig = `{
	"chainId": 901, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0, "byzantiumBlock": 0,
	"constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "muirGlacierBlock": 0, "berlinBlock": 0, "londonBlock": 0,
	"arrowGlacierBlock": 0, "grayGlacierBlock": 0, "mergeNetsplitBlock": 0, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0,
	"bedrockBlock": 0, "regolithTime": 0, "canyonTime": 0, "ecotoneTime": 0, "fjordTime": 0, "graniteTime": 0, "holoceneTime": 0,
	"isthmusTime": 0, "jovianTime": 0, "karstTime": 1000, "lagoonTime": 2000, "terminalTotalDifficulty": 0, "depositContractAddress": "0x0000000000000000000000000000000000000000",
	"optimism": {"eip1559Elasticity": 6, "eip1559Denominator": 50, "eip1559DenominatorCanyon": 250}
}`

// Times before Karst, at its activation, and with Lagoon on top.
const (
	jovianTime = 999
	karstTime  = 1000
	lagoonTime = 2000
)

func karstConfig(t *testing.T) *params.ChainConfig {
	t.Helper()
	c := new(params.ChainConfig)
	if err := json.Unmarshal([]byte(karstGenesisConfig), c); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckConfigForkOrder(); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckOptimismValidity(); err != nil {
		t.Fatal(err)
	}
	return c
}

func karstRules(t *testing.T, time uint64) params.Rules {
	return karstConfig(t).Rules(common.Big1, true, time)
}

func precompileAt(t *testing.T, time uint64, addr ...byte) PrecompiledContract {
	t.Helper()
	p := ActivePrecompiledContracts(karstRules(t, time))[common.BytesToAddress(addr)]
	if p == nil {
		t.Fatalf("no precompile at %x", addr)
	}
	return p
}

func wantGas(t *testing.T, p PrecompiledContract, input []byte, want uint64) {
	t.Helper()
	if got := p.RequiredGas(input); got != want {
		t.Errorf("%s: gas %d, want %d", p.Name(), got, want)
	}
}

// EIP-7951: 6900 gas. Before, RIP-7212's 3450 (Fjord). What is verified is the same.
func TestKarstP256Verify(t *testing.T) {
	t.Parallel()
	wantGas(t, precompileAt(t, jovianTime, 1, 0), nil, 3450)
	wantGas(t, precompileAt(t, karstTime, 1, 0), nil, 6900)
	wantGas(t, precompileAt(t, lagoonTime, 1, 0), nil, 6900)
	tests, err := loadJson("p256Verify")
	if err != nil || len(tests) == 0 {
		t.Fatal(len(tests), err)
	}
	for _, test := range tests {
		in := common.FromHex(test.Input)
		before, err1 := precompileAt(t, jovianTime, 1, 0).Run(in)
		after, err2 := precompileAt(t, karstTime, 1, 0).Run(in)
		if err1 != nil || err2 != nil || !bytes.Equal(before, after) || !bytes.Equal(after, common.FromHex(test.Expected)) {
			t.Errorf("%s: %x, want %s", test.Name, after, test.Expected)
		}
	}
}

// EIP-7883: at least 500 gas, and the new formula. Before, EIP-2565's 200.
func TestKarstModExpGas(t *testing.T) {
	t.Parallel()
	wantGas(t, precompileAt(t, jovianTime, 5), nil, 200)
	wantGas(t, precompileAt(t, karstTime, 5), nil, 500)
	wantGas(t, precompileAt(t, lagoonTime, 5), nil, 500)
	tests, err := loadJson("modexp_eip7883") // the EIP's own vectors
	if err != nil || len(tests) == 0 {
		t.Fatal(len(tests), err)
	}
	for _, test := range tests {
		wantGas(t, precompileAt(t, karstTime, 5), common.FromHex(test.Input), test.Gas)
	}
}

// EIP-7823: no length above 1024 bytes.
func TestKarstModExpBounds(t *testing.T) {
	t.Parallel()
	input := func(lens ...int) []byte {
		var in []byte
		for _, l := range lens {
			in = append(in, common.BigToHash(big.NewInt(int64(l))).Bytes()...)
		}
		for _, l := range lens {
			in = append(in, common.LeftPadBytes([]byte{3}, l)...)
		}
		return in
	}
	if _, err := precompileAt(t, karstTime, 5).Run(input(1024, 1024, 1024)); err != nil {
		t.Errorf("1024 bytes: %v", err)
	}
	for _, in := range [][]byte{input(1025, 1, 1), input(1, 1025, 1), input(1, 1, 1025)} {
		if _, err := precompileAt(t, karstTime, 5).Run(in); err == nil {
			t.Error("1025 bytes are taken")
		}
		if _, err := precompileAt(t, jovianTime, 5).Run(in); err != nil {
			t.Errorf("before Karst: %v", err)
		}
	}
}

// exec-engine.md: 57,600 bytes (300 pairs) instead of Jovian's 81,984 (427).
func TestKarstBn256PairingLimit(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		time  uint64
		pairs int
		ok    bool
	}{
		{jovianTime, 427, true}, {jovianTime, 428, false},
		{karstTime, 300, true}, {karstTime, 301, false},
		{lagoonTime, 300, true}, {lagoonTime, 301, false},
	} {
		p := precompileAt(t, tc.time, 8)
		in := make([]byte, tc.pairs*192)
		wantGas(t, p, in, 45_000+34_000*uint64(tc.pairs))
		if _, err := p.Run(in); (err == nil) != tc.ok {
			t.Errorf("%d pairs at %d: %v", tc.pairs, tc.time, err)
		}
	}
	if params.Bn256PairingMaxInputSizeKarst != 57_600 {
		t.Error(params.Bn256PairingMaxInputSizeKarst)
	}
}

// "The other variable-input precompile limits are unchanged from Jovian." So is
// everything else: the same addresses, and the same contract at all but three.
func TestKarstOtherPrecompiles(t *testing.T) {
	t.Parallel()
	before, after := ActivePrecompiledContracts(karstRules(t, jovianTime)), ActivePrecompiledContracts(karstRules(t, karstTime))
	changed := map[common.Address]bool{
		common.BytesToAddress([]byte{5}): true, common.BytesToAddress([]byte{8}): true, common.BytesToAddress([]byte{1, 0}): true,
	}
	if len(before) != len(after) {
		t.Fatalf("%d precompiles, before %d", len(after), len(before))
	}
	for addr, p := range after {
		if same := reflect.DeepEqual(before[addr], p); same == changed[addr] {
			t.Errorf("%s: same as before: %v", addr, same)
		}
		if before[addr].Name() != p.Name() {
			t.Errorf("%s: name %s, before %s", addr, p.Name(), before[addr].Name())
		}
	}
	warm := map[common.Address]bool{}
	for _, addr := range ActivePrecompiles(karstRules(t, karstTime)) {
		warm[addr] = true
	}
	if len(warm) != len(after) {
		t.Errorf("%d warm addresses, want %d", len(warm), len(after))
	}
	if reflect.ValueOf(ActivePrecompiledContracts(karstRules(t, lagoonTime))).Len() != len(after) {
		t.Error("Lagoon changes the precompiles")
	}
}

// EIP-7939: CLZ (0x1e), 5 gas. Before, an invalid opcode.
func TestKarstCLZ(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		x    *uint256.Int
		want uint64
	}{
		{new(uint256.Int), 256}, {uint256.NewInt(1), 255}, {new(uint256.Int).Lsh(uint256.NewInt(1), 255), 0},
	} {
		word := tc.x.Bytes32()
		code := append(append([]byte{byte(PUSH32)}, word[:]...), 0x1e, byte(PUSH0), byte(MSTORE), byte(PUSH1), 0x20, byte(PUSH0), byte(RETURN))
		for _, time := range []uint64{jovianTime, karstTime, lagoonTime} {
			ret, used, err := runKarst(t, time, code)
			if time == jovianTime {
				if err == nil {
					t.Error("CLZ runs before Karst")
				}
				continue
			}
			if err != nil {
				t.Fatalf("at %d: %v", time, err)
			}
			if got := new(big.Int).SetBytes(ret).Uint64(); got != tc.want {
				t.Errorf("CLZ(%s) = %d, want %d", tc.x.Hex(), got, tc.want)
			}
			if want := uint64(3 + 5 + 2 + 3 + 3 + 3 + 2); used != want { // with 3 for the memory word
				t.Errorf("gas %d, want %d", used, want)
			}
		}
	}
	for _, time := range []uint64{jovianTime, karstTime, lagoonTime} {
		table, err := LookupInstructionSet(karstRules(t, time))
		if err != nil {
			t.Fatal(err)
		}
		if has := table[CLZ].HasCost(); has != (time >= karstTime) {
			t.Errorf("at %d: looked up table has CLZ: %v", time, has)
		}
	}
}

func runKarst(t *testing.T, time uint64, code []byte) (ret []byte, used uint64, err error) {
	t.Helper()
	db, err := state.New(types.EmptyRootHash, state.NewDatabaseForTesting())
	if err != nil {
		t.Fatal(err)
	}
	addr := common.Address{1}
	db.CreateAccount(addr)
	db.SetCode(addr, code, 0)
	evm := NewEVM(BlockContext{
		CanTransfer: func(StateDB, common.Address, *uint256.Int) bool { return true },
		Transfer:    func(StateDB, common.Address, common.Address, *uint256.Int, *params.Rules) {},
		BlockNumber: common.Big1, Time: time, Random: &common.Hash{}, BaseFee: common.Big1, Difficulty: common.Big0,
	}, db, karstConfig(t), Config{})
	const gas = 100_000
	ret, left, err := evm.Call(common.Address{2}, addr, nil, gas, new(uint256.Int))
	return ret, gas - left, err
}
