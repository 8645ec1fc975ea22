package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// command runs op-node operators with arguments and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"op-node", "operators"}, args...)
	app, err := newApp(args, nil)
	require.NoError(t, err)
	var out bytes.Buffer
	app.Writer, app.ErrWriter = &out, io.Discard
	err = app.RunContext(context.Background(), args)
	return out.String(), err
}

// fields reads what operators keys prints.
func fields(t *testing.T, out string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		m[strings.TrimSpace(line[:14])] = strings.TrimSpace(line[14:])
	}
	return m
}

// set is an operator's RPC over a set that takes changes at once.
type set struct{ *operators.Set }

const slot = sequence.Slot(1_700_000_000)

func (s set) Status(context.Context) (*rpc.Status, error) {
	return &rpc.Status{Slot: hexutil.Uint64(slot)}, nil
}
func (s set) LeaderSchedule(int) []rpc.Turn                { return nil }
func (s set) Operators() (*rpc.Operators, error)           { return rpc.NewOperators(s.Set), nil }
func (s set) Evidence() (*rpc.Evidence, error)             { return nil, nil }
func (s set) SubmitChange(c *operators.SignedChange) error { return s.Apply(c, slot) }

func serve(t *testing.T, s set) string {
	t.Helper()
	api, err := rpc.NewAPI(rpc.DefaultConfig(), bundlepool.New(bundlepool.Config{}, log.NewLogger(log.DiscardHandler())), nil, s, s)
	require.NoError(t, err)
	server := oprpc.NewServer("127.0.0.1", 0, "test", oprpc.WithLogger(log.NewLogger(log.DiscardHandler())))
	server.AddAPI(api.Register())
	require.NoError(t, server.Start())
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return "http://" + server.Endpoint()
}

// From keys to a set that takes a fourth operator in, with nothing but the command.
func TestOperators(t *testing.T) {
	dir := t.TempDir()
	keyFile := func(i int) string { return filepath.Join(dir, fmt.Sprint(i), operatorKeyFile) }
	var known []map[string]string
	for i := range 4 {
		out, err := command(t, "keys", "--dir", filepath.Join(dir, fmt.Sprint(i)))
		require.NoError(t, err)
		again, err := command(t, "keys", "--dir", filepath.Join(dir, fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, out, again, "keys are made once")
		known = append(known, fields(t, out))
		info, err := os.Stat(keyFile(i))
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode().Perm())
	}
	file := filepath.Join(dir, "operators.json")
	args := []string{"init-genesis", "--out", file, "--set", "test", "--chains", "901,902", "--time", "2026-01-02T03:04:05Z"}
	for i, k := range known[:3] {
		args = append(args, "--operator", fmt.Sprintf("op%d=%s,%s,%d", i, k["address"], k["consensus key"], 1))
	}
	out, err := command(t, args...)
	require.NoError(t, err)
	genesis, err := operators.LoadGenesis(file)
	require.NoError(t, err)
	require.Contains(t, out, genesis.ID().Hex())
	require.Equal(t, []sequence.ChainID{901, 902}, genesis.Chains)
	require.Len(t, genesis.Operators, 3)
	require.Equal(t, known[2]["address"], genesis.Operators[2].Address.Hex())
	_, err = command(t, args...)
	require.ErrorContains(t, err, "exists")

	s := set{operators.NewSet(genesis)}
	url := serve(t, s)
	out, err = command(t, "propose", "--rpc", url, "--key-file", keyFile(0), "--expires-in", "1h", "add", "op3", known[3]["address"], known[3]["consensus key"], "1")
	require.NoError(t, err)
	id, _, _ := strings.Cut(out, "\n")
	require.Len(t, s.Pending(), 1)
	require.Equal(t, s.Pending()[0].ID.Hex(), id)
	require.Equal(t, slot+3600, s.Pending()[0].Change.Expiry)

	list, err := command(t, "list", "--rpc", url)
	require.NoError(t, err)
	var listed rpc.Operators
	require.NoError(t, json.Unmarshal([]byte(list), &listed))
	require.Equal(t, id, listed.Pending[0].ID.Hex())

	for i := 1; i < 3; i++ {
		_, err = command(t, "approve", "--rpc", url, "--operators", file, "--key-file", keyFile(i), id)
		require.NoError(t, err)
	}
	_, err = command(t, "approve", "--rpc", url, "--key-file", keyFile(1), id)
	require.ErrorContains(t, err, "approved this change already")
	_, err = command(t, "approve", "--rpc", url, "--key-file", keyFile(3), id)
	require.ErrorContains(t, err, "not signed by an operator")
	require.Len(t, s.Boundary(slot), 1)
	require.Len(t, s.Set.Operators(), 4)
	for _, change := range [][]string{{"power", known[0]["address"], "2"}, {"join", "903"}, {"leave", "902"}, {"remove", known[2]["address"]}} {
		_, err = command(t, append([]string{"propose", "--rpc", url, "--key-file", keyFile(3)}, change...)...)
		require.NoError(t, err)
	}
	require.Len(t, s.Pending(), 4)
}

func TestOperatorsMistakes(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	secret := strings.Repeat("ab", 31)
	require.NoError(t, os.WriteFile(key, []byte(secret), 0o600))
	address, consensus := common.Address{1}.Hex(), "0x"+strings.Repeat("01", 32)
	good, err := crypto.GenerateKey()
	require.NoError(t, err)
	goodKey := filepath.Join(t.TempDir(), "key")
	require.NoError(t, crypto.SaveECDSA(goodKey, good))
	genesis := &operators.Genesis{Set: "test", Time: time.Unix(int64(slot), 0).UTC(), Chains: []sequence.ChainID{901}, Operators: []operators.Operator{
		{Name: "a", Address: common.Address{1}, ConsensusKey: operators.ConsensusKey{1}, Power: 1},
	}}
	url := serve(t, set{operators.NewSet(genesis)})
	out := filepath.Join(t.TempDir(), "out")
	for args, want := range map[string]string{
		"":                          "no command",
		"sideways":                  `"sideways" is not a command`,
		"keys":                      "--dir: missing",
		"keys now":                  `"now" is not a flag`,
		"keys --bad":                "flag provided but not defined",
		"init-genesis --out " + out: "set name",
		"init-genesis --set a --operator b --out x":                                     "expected <name>=<address>,<consensus key>,<power>",
		"init-genesis --set a --operator b=c,d,e":                                       `address "c"`,
		"init-genesis --set a --operator b=" + address + ",d,e":                         `consensus key "d"`,
		"init-genesis --set a --operator b=" + address + "," + consensus + ",e":         `power "e"`,
		"init-genesis --set a --operator b=" + address + "," + consensus + ",0":         "power 0",
		"init-genesis --set a --time now":                                               "parse",
		"list --rpc " + url + "0":                                                       "sharedseq",
		"propose":                                                                       "no such change",
		"propose explode":                                                               "no such change",
		"propose remove":                                                                "no such change",
		"propose remove me":                                                             `address "me"`,
		"propose power " + address + " all":                                             `power "all"`,
		"propose join x":                                                                `chain "x"`,
		"propose --expires-in -1s join 1":                                               "expires-in",
		"propose --rpc " + url + " join 1":                                              "--key-file: missing",
		"propose --rpc " + url + " --key-file " + key + " join 1":                       "--key-file: not a private key",
		"propose --rpc " + url + " --key-file " + goodKey + " join 1":                   "not signed by an operator",
		"propose --rpc " + url + " --key-file " + goodKey + " --operators /nope join 1": "--operators",
		"approve":     "which change",
		"approve 0x1": "which change",
		"approve --rpc " + url + " " + common.Hash{1}.Hex(): "no change",
	} {
		t.Run(args, func(t *testing.T) {
			_, err := command(t, strings.Fields(args)...)
			require.ErrorContains(t, err, want)
			require.NotContains(t, oneLine(err), "\n")
			require.NotContains(t, err.Error(), secret)
		})
	}
}
