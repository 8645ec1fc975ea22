package commands

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// now is when the tests run.
var now = time.Unix(int64(slot), 0).Add(2 * time.Second)

// result is what a run of the command came to.
type result struct {
	out, err string
	code     int
}

// run runs the command with nobody to ask.
func run(t *testing.T, args ...string) result {
	t.Helper()
	return runWith(t, "", args...)
}

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	code := Run(t.Context(), append([]string{"op-shared-sequencer"}, args...), Env{
		In: strings.NewReader(stdin), Out: &out, Err: &err, Getenv: func(string) string { return "" }, Now: func() time.Time { return now }, Version: "v1-abc",
	})
	return result{out.String(), err.String(), code}
}

// ok is what a run printed that must succeed.
func (r result) ok(t *testing.T) string {
	t.Helper()
	require.Zero(t, r.code, "%s%s", r.out, r.err)
	return r.out
}

// fails checks the exit code, and that the reason is said in one line.
func (r result) fails(t *testing.T, code int, want string) {
	t.Helper()
	require.Contains(t, r.err, want)
	require.Equal(t, code, r.code, r.err)
	require.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestApp(t *testing.T) {
	require.Contains(t, run(t, "--version").ok(t), "v1-abc")
	help := run(t, "--help").ok(t)
	for _, want := range []string{"status", "leaders", "bundle", "keys", "genesis", "check-config", "drill", "Exit codes", "4  degraded"} {
		require.Contains(t, help, want)
	}
	run(t).fails(t, ExitUsage, "no command: expected one of status,")
	run(t, "sideways").fails(t, ExitUsage, `"sideways" is not a command`)
	run(t, "status", "--bad").fails(t, ExitUsage, "op-shared-sequencer status --help")
	run(t, "keys", "make", "--bad").fails(t, ExitUsage, "op-shared-sequencer keys make --help")
}

// What the shell asks is answered with commands and flags.
func TestCompletion(t *testing.T) {
	before := os.Args // which the library reads
	t.Cleanup(func() { os.Args = before })
	for want, args := range map[string][]string{"leaders": {}, "simulate": {"bundle"}, "--interval": {"status", "--int"}} {
		args = append(args, "--generate-bash-completion")
		os.Args = append([]string{"op-shared-sequencer"}, args...)
		require.Contains(t, run(t, args...).ok(t), want)
	}
	require.Contains(t, run(t, "completion", "bash").ok(t), "complete -o")
	require.Contains(t, run(t, "completion", "zsh").ok(t), "compdef")
	run(t, "completion", "fish").fails(t, ExitUsage, "bash or zsh")
}

// Flags can come from the environment, and tests of commands do not leave values behind.
func TestEnvironment(t *testing.T) {
	t.Setenv("OP_SHARED_SEQUENCER_RPC", "http://127.0.0.1:1")
	run(t, "leaders").fails(t, ExitUnreachable, "127.0.0.1:1")
	run(t, "leaders", "--count", "0").fails(t, ExitUsage, "--count")
	run(t, "leaders").fails(t, ExitUnreachable, "127.0.0.1:1")
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, sleep(ctx, time.Hour), context.Canceled)
}
