package commands

import (
	"context"
	"encoding/json"
	"fmt"
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

// fields reads what keys prints.
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
	api, err := rpc.NewAPI(rpc.DefaultConfig(), bundlepool.New(bundlepool.Config{}, log.NewLogger(log.DiscardHandler())), nil, s, s, nil)
	require.NoError(t, err)
	server := oprpc.NewServer("127.0.0.1", 0, "test", oprpc.WithLogger(log.NewLogger(log.DiscardHandler())))
	for _, a := range api.Register() {
		server.AddAPI(a)
	}
	require.NoError(t, server.Start())
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return "http://" + server.Endpoint()
}

// From keys to a set that takes a fourth operator in, with nothing but the command.
func TestOperators(t *testing.T) {
	dir := t.TempDir()
	data := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	keyFile := func(i int) string { return filepath.Join(data(i), operatorKeyFile) }
	password := write(t, "correct horse\n")
	var known []map[string]string
	for i := range 4 {
		protect := []string{"--password-file", password, "--lightkdf"}
		if i == 3 {
			protect = []string{"--plain"}
		}
		out := run(t, append([]string{"keys", "make", "--data-dir", data(i)}, protect...)...).ok(t)
		require.Equal(t, out, run(t, "keys", "show", "--data-dir", data(i)).ok(t))
		known = append(known, fields(t, out))
	}
	file := filepath.Join(dir, "operators.json")
	args := []string{"genesis", "--out", file, "--set", "test", "--chains", "901,902", "--time", "2026-01-02T03:04:05Z"}
	for i, k := range known[:3] {
		args = append(args, "--operator", fmt.Sprintf("op%d=%s,%s,%d", i, k["address"], k["consensus key"], 1))
	}
	out := run(t, args...).ok(t)
	genesis, err := operators.LoadGenesis(file)
	require.NoError(t, err)
	require.Contains(t, out, genesis.ID().Hex())
	require.Equal(t, []sequence.ChainID{901, 902}, genesis.Chains)
	require.Len(t, genesis.Operators, 3)
	require.Equal(t, known[2]["address"], genesis.Operators[2].Address.Hex())
	run(t, args...).fails(t, ExitFailed, "exists")

	s := set{operators.NewSet(genesis)}
	url := serve(t, s)
	out = run(t, "operators", "propose", "--rpc", url, "--key-file", keyFile(0), "--password-file", password, "--expires-in", "1h", "add", "op3", known[3]["address"], known[3]["consensus key"], "1").ok(t)
	id, _, _ := strings.Cut(out, "\n")
	require.Len(t, s.Pending(), 1)
	require.Equal(t, s.Pending()[0].ID.Hex(), id)
	require.Equal(t, slot+3600, s.Pending()[0].Change.Expiry)

	var listed rpc.Operators
	require.NoError(t, json.Unmarshal([]byte(run(t, "operators", "list", "--rpc", url).ok(t)), &listed))
	require.Equal(t, id, listed.Pending[0].ID.Hex())

	for i := 1; i < 3; i++ {
		run(t, "operators", "approve", "--rpc", url, "--operators", file, "--password-file", password, "--key-file", keyFile(i), id).ok(t)
	}
	run(t, "operators", "approve", "--rpc", url, "--password-file", password, "--key-file", keyFile(1), id).fails(t, ExitFailed, "approved this change already")
	run(t, "operators", "approve", "--rpc", url, "--key-file", keyFile(3), id).fails(t, ExitFailed, "not signed by an operator")
	run(t, "operators", "approve", "--rpc", url, "--key-file", keyFile(1), id).fails(t, ExitUsage, "no password")
	run(t, "operators", "approve", "--rpc", url, "--key-file", keyFile(1), "--password-file", write(t, "wrong"), id).fails(t, ExitFailed, "wrong password")
	require.Len(t, s.Boundary(slot), 1)
	require.Len(t, s.Set.Operators(), 4)
	for _, change := range [][]string{{"power", known[0]["address"], "2"}, {"join", "903"}, {"leave", "902"}, {"remove", known[2]["address"]}} {
		run(t, append([]string{"operators", "propose", "--rpc", url, "--key-file", keyFile(3)}, change...)...).ok(t)
	}
	require.Len(t, s.Pending(), 4)
}

func TestOperatorsMistakes(t *testing.T) {
	secret := strings.Repeat("ab", 31)
	key := write(t, secret)
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
	signed := " --key-file " + goodKey
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"operators":                                        {ExitUsage, "no command: expected one of list, propose, approve"},
		"operators sideways":                               {ExitUsage, `"sideways" is not a command`},
		"genesis --out " + out:                             {ExitFailed, "set name"},
		"genesis now":                                      {ExitUsage, `"now" is not a flag`},
		"genesis --set a --time x":                         {ExitUsage, "parse"},
		"genesis --set a --operator b --out x":             {ExitUsage, "expected <name>=<address>,<consensus key>,<power>"},
		"genesis --set a --operator b=c,d,e":               {ExitUsage, `address "c"`},
		"genesis --set a --operator b=" + address + ",d,e": {ExitUsage, `consensus key "d"`},
		"genesis --set a --operator b=" + address + "," + consensus + ",e":      {ExitUsage, `power "e"`},
		"genesis --set a --operator b=" + address + "," + consensus + ",0":      {ExitUsage, "power 0"},
		"operators list --rpc http://127.0.0.1:1":                               {ExitUnreachable, "sharedseq"},
		"operators list --rpc ftp://x":                                          {ExitUnreachable, "--rpc"},
		"operators propose":                                                     {ExitUsage, "no such change"},
		"operators propose explode":                                             {ExitUsage, "no such change"},
		"operators propose remove":                                              {ExitUsage, "no such change"},
		"operators propose remove me":                                           {ExitUsage, `address "me"`},
		"operators propose power " + address + " all":                           {ExitUsage, `power "all"`},
		"operators propose join x":                                              {ExitUsage, `chain "x"`},
		"operators propose --expires-in -1s join 1":                             {ExitUsage, "expires-in"},
		"operators propose --rpc " + url + " join 1":                            {ExitUsage, "--key-file: missing"},
		"operators propose --rpc " + url + " --key-file " + key + " join 1":     {ExitFailed, "--key-file: not a private key"},
		"operators propose --rpc " + url + signed + " join 1":                   {ExitFailed, "not signed by an operator"},
		"operators propose --rpc " + url + signed + " --operators /nope join 1": {ExitFailed, "--operators"},
		"operators approve":                                                     {ExitUsage, "which change"},
		"operators approve 0x1":                                                 {ExitUsage, "which change"},
		"operators approve --rpc " + url + signed + " " + common.Hash{1}.Hex():  {ExitFailed, "no change"},
	} {
		t.Run(args, func(t *testing.T) {
			r := run(t, strings.Fields(args)...)
			r.fails(t, want.code, want.text)
			require.NotContains(t, r.err+r.out, secret)
		})
	}
}
