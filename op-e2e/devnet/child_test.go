package devnet

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestChild(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	_, err := StartChild("nothing", "/does/not/exist", nil, nil)
	require.ErrorContains(t, err, "start nothing")

	lines := make(chan string, 8)
	p, err := StartChild("sh", "/bin/sh", []string{"-c", "trap 'echo stopping; exit 0' INT; echo ready; while :; do sleep 0.05; done"}, func(s string) { lines <- s })
	require.NoError(t, err)
	require.Equal(t, "ready", <-lines)
	require.NoError(t, p.Stop(ctx))
	require.Equal(t, "stopping", <-lines)

	p, err = StartChild("sh", "/bin/sh", []string{"-c", "trap '' INT; echo ready; while :; do sleep 0.05; done"}, func(s string) { lines <- s })
	require.NoError(t, err)
	require.Equal(t, "ready", <-lines)
	ended, end := context.WithCancel(ctx)
	end()
	require.ErrorContains(t, p.Stop(ended), "killed")
}

// A child does not outlive a parent that is killed.
func TestChildDiesWithParent(t *testing.T) {
	const env = "DEVNET_TEST_PARENT"
	if os.Getenv(env) != "" {
		p, err := StartChild("sleep", "/bin/sleep", []string{"600"}, func(string) {})
		require.NoError(t, err)
		_, _ = os.Stdout.WriteString("child " + strconv.Itoa(p.PID()) + "\n")
		select {}
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	self, err := os.Executable()
	require.NoError(t, err)
	var child atomic.Int64
	parent := &exec.Cmd{Path: self, Args: []string{self, "-test.run=^TestChildDiesWithParent$"}, Env: append(os.Environ(), env+"=1")}
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	go readLines(out, func(s string) {
		if len(s) > 6 && s[:6] == "child " {
			n, _ := strconv.Atoi(s[6:])
			child.Store(int64(n))
		}
	})
	require.NoError(t, WaitFor(ctx, "the child", func(context.Context) (bool, error) { return child.Load() != 0, nil }))
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	require.NoError(t, WaitFor(ctx, "the child's end", func(context.Context) (bool, error) {
		// A process that has ended and nobody has waited for is still there as a zombie.
		stat, err := os.ReadFile("/proc/" + strconv.FormatInt(child.Load(), 10) + "/stat")
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		return containsState(string(stat), 'Z'), err
	}))
}

func containsState(stat string, state byte) bool {
	for i := len(stat) - 1; i > 1; i-- {
		if stat[i] == ')' { // the command's name ends here
			return i+2 < len(stat) && stat[i+2] == state
		}
	}
	return false
}
