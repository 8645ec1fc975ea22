package preflight

import (
	"encoding/hex"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// operator is one of a set of one, with its files.
type operator struct {
	dir, data, keyFile, genesis, password string
	args                                  []string
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	dir := t.TempDir()
	o := &operator{
		dir: dir, data: filepath.Join(dir, "data"), keyFile: filepath.Join(dir, "operator.key"),
		genesis: filepath.Join(dir, "operators.json"), password: filepath.Join(dir, "password"),
	}
	jwt := o.write(t, "jwt", strings.Repeat("11", 32))
	o.write(t, "password", "correct horse")
	key, err := crypto.GenerateKey()
	require.NoError(t, err)
	data, err := keyfile.Encode(key, "correct horse", keyfile.Light)
	require.NoError(t, err)
	require.NoError(t, keyfile.Create(o.keyFile, data))
	keys, err := cometbft.CreateKeys(config.ConsensusDir(filepath.Join(o.data, "shared-sequencer")), cometbft.Protection{Password: "correct horse", Cost: keyfile.Light})
	require.NoError(t, err)
	o.set(t, crypto.PubkeyToAddress(key.PublicKey), keys.ConsensusKey, 10, 130)
	o.args = []string{
		"--chains=10,130", "--data-dir=" + o.data, "--disable-p2p", "--rpc.port=0",
		"--l1=http://127.0.0.1:1", "--l1.beacon=http://127.0.0.1:2", "--vn.all.l2.jwt-secret=" + jwt,
		"--vn.10.network=op-mainnet", "--vn.10.l2=http://127.0.0.1:3", "--vn.130.network=unichain-mainnet", "--vn.130.l2=http://127.0.0.1:4",
		"--shared-sequencer.enabled", "--shared-sequencer.rpc.port=0", "--shared-sequencer.rotation=cometbft",
		"--shared-sequencer.operators=" + o.genesis, "--shared-sequencer.operator-key-file=" + o.keyFile,
		"--shared-sequencer.operator-password-file=" + o.password, "--shared-sequencer.consensus.listen=127.0.0.1:0",
	}
	return o
}

func (o *operator) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(o.dir, name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (o *operator) set(t *testing.T, address common.Address, key operators.ConsensusKey, chains ...sequence.ChainID) {
	t.Helper()
	g := &operators.Genesis{
		Set: "test", Time: time.Unix(1_700_000_000, 0).UTC(), Chains: chains,
		Operators: []operators.Operator{{Name: "one", Address: address, ConsensusKey: key, Power: 1}},
	}
	require.NoError(t, g.Write(o.genesis))
}

// check returns the findings, warnings marked.
func (o *operator) check(t *testing.T, opts Options, more ...string) []string {
	t.Helper()
	opts.Getenv, opts.Timeout = os.Getenv, time.Second
	out := []string{}
	for _, f := range Check(t.Context(), append(o.args[:len(o.args):len(o.args)], more...), opts) {
		require.NotContains(t, f.Text, "\n")
		if f.Warning {
			f.Text = "warning: " + f.Text
		}
		out = append(out, f.Text)
	}
	return out
}

// files are all names below a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error { names = append(names, path); return err }))
	return names
}

func TestGood(t *testing.T) {
	o := newOperator(t)
	before := files(t, o.dir)
	require.Empty(t, o.check(t, Options{Ports: true}))
	require.Equal(t, before, files(t, o.dir), "nothing is made")
}

func TestMistakes(t *testing.T) {
	o := newOperator(t)
	bad, missing := o.write(t, "bad", "not hex"), filepath.Join(o.dir, "missing")
	open := o.write(t, "open", strings.Repeat("22", 32))
	require.NoError(t, os.Chmod(open, 0o644))
	stranger, err := crypto.GenerateKey()
	require.NoError(t, err)
	strange := o.write(t, "strange", hex.EncodeToString(crypto.FromECDSA(stranger)))
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	_, port, err := net.SplitHostPort(busy.Addr().String())
	require.NoError(t, err)
	before := files(t, o.dir)

	for name, tt := range map[string]struct {
		args []string
		want []string // a part of each finding
	}{
		"unknown flag":       {[]string{"--shared-sequencer.enable"}, []string{"flag provided but not defined"}},
		"stray argument":     {[]string{"10"}, []string{`"10" is not a flag`}},
		"chains":             {[]string{"--chains=ten"}, []string{"--chains"}},
		"jwt":                {[]string{"--vn.10.l2.jwt-secret=" + missing}, []string{"--vn.10.l2.jwt-secret: " + missing + ": no such file"}},
		"rollup config":      {[]string{"--vn.10.network=", "--vn.10.rollup.config=" + missing}, []string{"chain 10"}},
		"dependency set":     {[]string{"--dependency-set=" + bad}, []string{"--dependency-set"}},
		"relayer key":        {[]string{"--shared-sequencer.relayer-key-file=" + bad}, []string{"relayer-key-file: not a private key"}},
		"relayer readable":   {[]string{"--shared-sequencer.relayer-key-file=" + open}, []string{"warning: --shared-sequencer.relayer-key-file: others can read"}},
		"operators":          {[]string{"--shared-sequencer.operators=" + bad}, []string{"shared-sequencer.operators: operators' genesis"}},
		"no password":        {[]string{"--shared-sequencer.operator-password-file="}, []string{"operator-key-file", "expected --shared-sequencer.operator-password-file"}},
		"wrong password":     {[]string{"--shared-sequencer.operator-password-file=" + bad}, []string{"wrong password", "wrong password"}},
		"no password file":   {[]string{"--shared-sequencer.operator-password-file=" + missing}, []string{"operator-password-file", "operator-key-file", "protected"}},
		"stranger":           {[]string{"--shared-sequencer.operator-key-file=" + strange}, []string{"is operator one's"}},
		"no consensus key":   {[]string{"--shared-sequencer.data-dir=" + filepath.Join(o.dir, "new")}, []string{"keys make"}},
		"follower":           {[]string{"--shared-sequencer.operator-key-file="}, []string{"warning: --shared-sequencer.operator-key-file is not set"}},
		"chain not served":   {[]string{"--shared-sequencer.chains=10"}, []string{"chain 130 of the set"}},
		"data dir is a file": {[]string{"--data-dir=" + bad, "--shared-sequencer.data-dir=" + filepath.Join(o.data, "shared-sequencer")}, []string{"--data-dir: " + bad + " is not a directory"}},
		"port in use":        {[]string{"--shared-sequencer.rpc.port=" + port}, []string{"cannot listen on 127.0.0.1:" + port}},
		"one port twice":     {[]string{"--shared-sequencer.rpc.port=18571", "--shared-sequencer.admin.addr=127.0.0.1", "--shared-sequencer.admin.port=18571", "--shared-sequencer.admin.jwt-secret=" + filepath.Join(o.dir, "jwt")}, []string{"port 18571 is --shared-sequencer.rpc.port's too"}},
		"off":                {[]string{"--shared-sequencer.enabled=false"}, []string{"warning: --shared-sequencer.enabled is not set"}},
		"several": {[]string{"--shared-sequencer.seal-lead=0s", "--shared-sequencer.bundles.max-items=0", "--shared-sequencer.relayer-key-file=" + bad, "--vn.10.conductor.enabled"},
			[]string{"relayer-key-file", "seal-lead", "max-items", "conductor"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := o.check(t, Options{Ports: true}, tt.args...)
			require.Len(t, got, len(tt.want), "%q", got)
			for i, want := range tt.want {
				require.Contains(t, got[i], want)
			}
		})
	}
	require.Equal(t, before, files(t, o.dir), "nothing is made")
	t.Run("environment", func(t *testing.T) {
		t.Setenv("OP_NODE_SHARED_SEQUENCER_SEALLEAD", "1s")
		require.Equal(t, []string{"environment variable OP_NODE_SHARED_SEQUENCER_SEALLEAD: not one of op-node's"}, o.check(t, Options{}))
	})
	t.Run("another consensus key", func(t *testing.T) {
		key, err := keyfile.Read(o.keyFile, "correct horse")
		require.NoError(t, err)
		o.set(t, crypto.PubkeyToAddress(key.PublicKey), operators.ConsensusKey{7}, 10, 130)
		got := o.check(t, Options{})
		require.Len(t, got, 1)
		require.Contains(t, got[0], "operator one votes with 0x07")
	})
}

// Engines and L1 are asked who they are.
func TestOnline(t *testing.T) {
	o := newOperator(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":1,"result":"0x5"}`))
	}))
	defer server.Close()
	secret := "/secret-of-a-provider"
	got := o.check(t, Options{Online: true}, "--l1=http://127.0.0.1:1"+secret, "--vn.10.l2="+server.URL)
	require.Len(t, got, 3, "%q", got)
	require.Contains(t, got[0], "--l1: L1 does not answer")
	require.NotContains(t, got[0], secret)
	require.Contains(t, got[1], "chain 10")
	require.Contains(t, got[1], "chain 5")
	require.Contains(t, got[2], "chain 130")
	got = o.check(t, Options{Online: true}, "--l1="+server.URL)
	require.Contains(t, got[0], "--l1: it is chain 5, and chain 10's L1 is chain 1")
}
