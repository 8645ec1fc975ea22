package config

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Upstream makes its virtual nodes in a main package, which cannot be imported: what
// testdata/upstream_test.go.txt asserts is compiled into that package.
func TestAsUpstream(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles upstream's command")
	}
	repo, err := filepath.Abs("../..")
	require.NoError(t, err)
	file, err := filepath.Abs("testdata/upstream_test.go.txt")
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(repo, "build/upstream/optimism/op-supernode/cmd/shared_sequencer_test.go"): file,
	}})
	require.NoError(t, err)
	list := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(list, overlay, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", list, "-count=1", "-v", "-run", "^TestSharedSequencerOffIsUpstream$",
		"github.com/ethereum-optimism/optimism/op-supernode/cmd")
	cmd.Dir = repo
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestSharedSequencerOffIsUpstream")
}
