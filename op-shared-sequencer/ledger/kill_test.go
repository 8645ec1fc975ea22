package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const childEnv = "LEDGER_TEST_DIR"

// TestKillChild is the process that TestKill kills: it appends and prints each slot the log took.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("run by TestKill")
	}
	l, err := Open(dir, quiet, WithSegmentSize(30_000))
	require.NoError(t, err)
	slot, _, ok := l.Last()
	if !ok {
		slot = 1000
	}
	for {
		slot++
		require.NoError(t, l.Append(context.Background(), next(t, l, slot, chainA, chainB)))
		fmt.Println(uint64(slot))
	}
}

// TestKill: SIGKILL at any moment loses and changes no slot that an Append returned for,
// and frees the directory for the next process.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rng := rand.New(rand.NewSource(11))
	acked := sequence.Slot(1000)
	hashes := map[sequence.Slot]string{}
	for range 20 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKillChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 1 + rng.Intn(20); n > 0 && lines.Scan(); n-- {
			slot, err := strconv.ParseUint(lines.Text(), 10, 64)
			require.NoError(t, err, "the child says %q", lines.Text())
			acked = sequence.Slot(slot)
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() { // what it had printed until then
			if slot, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil && sequence.Slot(slot) == acked+1 {
				acked++
			}
		}
		require.Error(t, cmd.Wait())

		l, err := Open(dir, quiet)
		require.NoError(t, err)
		last, _, _ := l.Last()
		require.GreaterOrEqual(t, last, acked)
		require.LessOrEqual(t, last, acked+1, "at most the slot that was being written")
		want := sequence.Slot(1001)
		for r, err := range l.Slots(0) {
			require.NoError(t, err)
			require.Equal(t, want, r.Slot())
			hash := r.Subblocks[len(r.Subblocks)-1].Hash().Hex()
			if before, ok := hashes[want]; ok {
				require.Equal(t, before, hash)
			}
			hashes[want] = hash
			want++
		}
		require.Equal(t, last+1, want)
		require.NoError(t, l.Close())
	}
}
