package commands

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "operator")
	password := write(t, "correct horse\n")
	out := run(t, "keys", "make", "--data-dir", dir, "--password-file", password, "--lightkdf").ok(t)
	k := fields(t, out)
	require.Equal(t, "by a password", k["protected"])
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
		return nil
	}))
	key, err := keyfile.Read(k["key file"], "correct horse")
	require.NoError(t, err)
	require.Equal(t, crypto.PubkeyToAddress(key.PublicKey).Hex(), k["address"])
	require.NotContains(t, out, hex.EncodeToString(crypto.FromECDSA(key)))
	require.NoError(t, cometbft.CheckKeys(config.ConsensusDir(dir), "correct horse"))
	data, err := os.ReadFile(cometbft.VoteKeyPath(config.ConsensusDir(dir)))
	require.NoError(t, err)
	require.NotContains(t, string(data), "priv_key")

	run(t, "keys", "make", "--data-dir", dir, "--password-file", password).fails(t, ExitFailed, "not overwritten")
	run(t, "keys", "show", "--data-dir", dir, "--password-file", password).ok(t)
	run(t, "keys", "show", "--data-dir", dir, "--password-file", write(t, "wrong")).fails(t, ExitFailed, "wrong password")
	var shown map[string]any
	require.NoError(t, json.Unmarshal([]byte(run(t, "keys", "show", "--data-dir", dir, "--json").ok(t)), &shown))
	require.Equal(t, k["consensus key"], shown["consensusKey"])
	require.Equal(t, true, shown["protected"])

	// Another password, with the same keys.
	other := write(t, "battery staple")
	run(t, "keys", "protect", "--data-dir", dir, "--from-password-file", write(t, "wrong"), "--password-file", other).fails(t, ExitFailed, "wrong password")
	run(t, "keys", "protect", "--data-dir", dir, "--password-file", other).fails(t, ExitUsage, "expected --from-password-file")
	require.Equal(t, out, run(t, "keys", "protect", "--data-dir", dir, "--from-password-file", password, "--password-file", other, "--lightkdf").ok(t))
	run(t, "keys", "show", "--data-dir", dir, "--password-file", other).ok(t)

	// Taken to another machine.
	to := filepath.Join(t.TempDir(), "new")
	vote := cometbft.VoteKeyPath(config.ConsensusDir(dir))
	args := []string{"keys", "import", "--data-dir", to, "--operator-key", k["key file"], "--consensus-key", vote}
	run(t, args...).fails(t, ExitUsage, "would vote twice")
	state := filepath.Join(config.ConsensusDir(dir), "data", "priv_validator_state.json")
	require.NoError(t, os.WriteFile(state, []byte(`{"height":"7","round":0,"step":3}`), 0o600))
	args = append(args, "--from-password-file", other, "--plain")
	run(t, append(args, "--consensus-state", state, "--never-voted")...).fails(t, ExitUsage, "expected one of")
	imported := fields(t, run(t, append(args, "--consensus-state", state)...).ok(t))
	require.Equal(t, k["address"], imported["address"])
	require.Equal(t, k["consensus key"], imported["consensus key"])
	require.Contains(t, imported["protected"], "no")
	require.ErrorIs(t, cometbft.CheckUnused(config.ConsensusDir(to)), cometbft.ErrUsed, "the votes came with it")
	run(t, append(args, "--consensus-state", state)...).fails(t, ExitFailed, "not overwritten")
	run(t, "keys", "protect", "--data-dir", to, "--password-file", password, "--lightkdf").ok(t)
	run(t, "keys", "show", "--data-dir", to, "--password-file", password).ok(t)
}

func TestKeysMistakes(t *testing.T) {
	dir := t.TempDir()
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"keys make":                   {ExitUsage, "--data-dir: missing"},
		"keys make now":               {ExitUsage, "expected only flags"},
		"keys make --data-dir " + dir: {ExitUsage, "no password: expected --password-file"},
		"keys make --data-dir " + dir + " --password-file /nope":     {ExitFailed, "--password-file"},
		"keys make --data-dir " + dir + " --password-file x --plain": {ExitUsage, "both set"},
		"keys show --data-dir " + dir:                                {ExitFailed, "no such file"},
		"keys import --data-dir " + dir:                              {ExitUsage, "expected both"},
		"keys protect --data-dir " + dir + "/nothing":                {ExitFailed, "no such file"},
	} {
		t.Run(args, func(t *testing.T) { run(t, strings.Fields(args)...).fails(t, want.code, want.text) })
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing was made")
}

// Passwords are asked for, new ones twice.
func TestAsk(t *testing.T) {
	answers := func(list ...string) *terminal {
		return &terminal{ask: func(string) (string, error) { a := list[0]; list = list[1:]; return a, nil }}
	}
	p, err := answers("a", "a").newPassword("")
	require.NoError(t, err)
	require.True(t, p == "a")
	_, err = answers("a", "b").newPassword("")
	require.ErrorContains(t, err, "differ")
	_, err = answers("").newPassword("")
	require.ErrorContains(t, err, "empty")
	p, err = answers("b").password("", "")
	require.NoError(t, err)
	require.True(t, p == "b")
}
