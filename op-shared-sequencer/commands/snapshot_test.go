package commands

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a snapshot holds is tested where it is made; here, how one asks for it.
func TestSnapshotMistakes(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	require.NoError(t, os.WriteFile(there, []byte("no snapshot"), 0o600))
	for args, want := range map[string]string{
		"":                                   "no command",
		"sideways":                           `"sideways" is not a command`,
		"create":                             "--data-dir: missing",
		"create --data-dir a":                "--out: missing",
		"create now":                         `"now" is not a flag`,
		"create --bad":                       "flag provided but not defined",
		"create --data-dir a --out " + there: "exists",
		"create --data-dir a --out " + dir + "/x": "not the data directory",
		"restore":        "--in: missing",
		"restore --in a": "--data-dir: missing",
		"restore --data-dir a --in " + dir + "/y":          "--in: open",
		"restore --data-dir " + dir + " --in " + there:     "not a new operator's",
		"restore --data-dir " + dir + "/new --in " + there: "bad snapshot",
		"restore --max-bytes x":                            "invalid value",
	} {
		t.Run(args, func(t *testing.T) {
			r := run(t, append([]string{"snapshot"}, strings.Fields(args)...)...)
			require.NotZero(t, r.code)
			require.Contains(t, r.err, want)
		})
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"new", "there"}, names, "no part of a snapshot is left")
}
