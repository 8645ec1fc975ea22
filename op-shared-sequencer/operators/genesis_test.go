package operators

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestGenesisFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "genesis.json")
	g := testGenesis(1, 2, MaxTotalPower-3) // powers that a float64 does not hold
	require.NoError(t, g.Write(path))
	got, err := LoadGenesis(path)
	require.NoError(t, err)
	require.Equal(t, g, got)
	require.Equal(t, g.ID(), got.ID())

	_, err = LoadGenesis(filepath.Join(t.TempDir(), "none.json"))
	require.ErrorIs(t, err, os.ErrNotExist)

	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, bad := range map[string]string{
		"trailing data":   string(data) + "{}",
		"unknown field":   strings.Replace(string(data), `"power"`, `"powr"`, 1),
		"short key":       strings.Replace(string(data), `"0x00000000000000`, `"0x000000000000`, 1),
		"negative power":  strings.Replace(string(data), `"power": 1`, `"power": -1`, 1),
		"power as string": strings.Replace(string(data), `"power": 1`, `"power": "1"`, 1),
		"null":            "null",
		"empty":           "",
		"too large":       string(data) + strings.Repeat(" ", maxGenesisBytes),
	} {
		require.NotEqual(t, string(data), bad, name)
		_, err := DecodeGenesis([]byte(bad))
		require.ErrorIs(t, err, ErrMalformed, name)
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		_, err = LoadGenesis(path)
		require.ErrorContains(t, err, path, name)
	}

	// A bad genesis is not written over a good one.
	require.NoError(t, g.Write(path))
	require.ErrorIs(t, testGenesis().Write(path), ErrMalformed)
	got, err = LoadGenesis(path)
	require.NoError(t, err)
	require.Equal(t, g, got)
}

func TestGenesisCheck(t *testing.T) {
	require.NoError(t, testGenesis(1, 1, 1, 1).Check())
	many := make([]uint64, MaxOperators+1)
	for i := range many {
		many[i] = 1
	}
	for name, test := range map[string]struct {
		change func(*Genesis)
		says   string
	}{
		"no name":            {func(g *Genesis) { g.Set = "" }, "set name"},
		"long name":          {func(g *Genesis) { g.Set = strings.Repeat("x", 51) }, "set name"},
		"name with a space":  {func(g *Genesis) { g.Set = "a b" }, "set name"},
		"no time":            {func(g *Genesis) { g.Time = time.Time{} }, "time"},
		"time out of range":  {func(g *Genesis) { g.Time = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
		"no operators":       {func(g *Genesis) { g.Operators = nil }, "0 operators"},
		"too many operators": {func(g *Genesis) { g.Operators = testGenesis(many...).Operators }, "65 operators"},
		"operator's name":    {func(g *Genesis) { g.Operators[1].Name = "a\nb" }, "letters"},
		"no address":         {func(g *Genesis) { g.Operators[1].Address = common.Address{} }, "address is zero"},
		"no key":             {func(g *Genesis) { g.Operators[1].ConsensusKey = ConsensusKey{} }, "key is zero"},
		"no power":           {func(g *Genesis) { g.Operators[1].Power = 0 }, "power 0"},
		"power":              {func(g *Genesis) { g.Operators[1].Power = MaxTotalPower + 1 }, "power"},
		"overflowing power":  {func(g *Genesis) { g.Operators[0].Power, g.Operators[1].Power = 1<<63, 1<<63 }, "power"},
		"total power":        {func(g *Genesis) { g.Operators[0].Power = MaxTotalPower }, "total power"},
		"same name":          {func(g *Genesis) { g.Operators[1].Name = g.Operators[0].Name }, "two operators have the name"},
		"same address":       {func(g *Genesis) { g.Operators[1].Address = g.Operators[0].Address }, "two operators have the address"},
		"same key":           {func(g *Genesis) { g.Operators[1].ConsensusKey = g.Operators[0].ConsensusKey }, "two operators have the consensus key"},
		"no chains":          {func(g *Genesis) { g.Chains = nil }, "0 chains"},
		"chain 0":            {func(g *Genesis) { g.Chains[1] = 0 }, "chain ID 0"},
		"same chain":         {func(g *Genesis) { g.Chains[1] = g.Chains[0] }, "not behind"},
	} {
		g := testGenesis(1, 2, 3)
		test.change(g)
		err := g.Check()
		require.ErrorIs(t, err, ErrMalformed, name)
		require.ErrorContains(t, err, test.says, name)
	}
}

func TestGenesisID(t *testing.T) {
	id := testGenesis(1, 2, 3).ID()
	shuffled := testGenesis(1, 2, 3)
	slices.Reverse(shuffled.Operators)
	slices.Reverse(shuffled.Chains)
	shuffled.Time = shuffled.Time.In(time.FixedZone("", 3600))
	require.Equal(t, id, shuffled.ID())
	require.Equal(t, NewSet(testGenesis(1, 2, 3)).Root(), NewSet(shuffled).Root())

	seen := map[common.Hash]bool{id: true}
	for _, change := range []func(*Genesis){
		func(g *Genesis) { g.Set = "other" },
		func(g *Genesis) { g.Time = g.Time.Add(1) },
		func(g *Genesis) { g.Operators[0].Name = "other" },
		func(g *Genesis) { g.Operators[0].Address[0]++ },
		func(g *Genesis) { g.Operators[0].ConsensusKey[0]++ },
		func(g *Genesis) { g.Operators[0].Power++ },
		func(g *Genesis) { g.Operators = g.Operators[:2] },
		func(g *Genesis) { g.Chains = append(g.Chains, 903) },
		func(g *Genesis) { g.Chains = []sequence.ChainID{901, 903} },
	} {
		g := testGenesis(1, 2, 3)
		change(g)
		require.NoError(t, g.Check())
		require.False(t, seen[g.ID()])
		seen[g.ID()] = true
	}
}
