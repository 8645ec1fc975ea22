package commands

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a process was started with is checked, flags and environment, instead of what is given.
func TestCheckConfigOfProcess(t *testing.T) {
	before := os.Environ()
	t.Cleanup(func() {
		os.Clearenv()
		for _, kv := range before {
			name, value, _ := strings.Cut(kv, "=")
			os.Setenv(name, value)
		}
	})
	t.Chdir(t.TempDir())
	p := exec.Command("sh")
	p.Args = []string{"op-node", "-s", ""} // reads its input, which does not end
	p.Dir = t.TempDir()
	p.Env = []string{"OP_NODE_CHAINZ=901"}
	in, err := p.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		require.NoError(t, p.Wait())
	})
	pid := strconv.Itoa(p.Process.Pid)

	run(t, "check-config", "--pid", pid, "--", "--chains=901").fails(t, ExitUsage, "only one of them")
	r := run(t, "check-config", "--pid", pid)
	require.Equal(t, ExitFailed, r.code)
	require.Contains(t, r.out, "-s")
	require.Equal(t, "901", os.Getenv("OP_NODE_CHAINZ"))
	require.Empty(t, os.Getenv("PATH"))
	dir, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, p.Dir, dir)
	run(t, "check-config", "--pid", strconv.Itoa(os.Getpid())).fails(t, ExitFailed, "expected op-node")
	run(t, "check-config", "--pid", "-1").fails(t, ExitFailed, "process -1")
}
