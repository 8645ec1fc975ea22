package arrivals

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
)

func TestRecorder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "arrivals.jsonl")
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	const max = 1000
	r, err := Record(path, max)
	require.NoError(t, err)
	for i := range 10 {
		require.NoError(t, r.Note(Arrival{at.Add(time.Duration(i)), 901, common.Hash{1, byte(i)}}))
	}
	require.NoError(t, r.Close())
	r, err = Record(path, max) // behind what is there
	require.NoError(t, err)
	require.NoError(t, r.Note(Arrival{at, 0, common.Hash{2}}))
	require.NoError(t, r.Note(Arrival{at.Add(time.Hour), 0, common.Hash{2}}))
	require.NoError(t, r.Close())

	seen := Seen{}
	require.NoError(t, seen.Load(path))
	require.Equal(t, at, seen.Bundle(common.Hash{2}), "the first time counts")
	require.Equal(t, at.Add(9), seen.Transaction(901, common.Hash{1, 9}))
	require.Equal(t, at.Add(3), seen.Transaction(901, common.Hash{1, 3}))
	require.Zero(t, seen.Transaction(902, common.Hash{1, 9}))
	require.Zero(t, seen.Bundle(common.Hash{1, 9}))

	r, err = Record(path, max)
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, r.Note(Arrival{at, 902, common.Hash{3, byte(i)}}))
	}
	require.NoError(t, r.Close())
	for _, name := range []string{path, path + olderSuffix} {
		st, err := os.Stat(name)
		require.NoError(t, err)
		require.LessOrEqual(t, st.Size(), int64(max))
	}
	seen = Seen{}
	require.NoError(t, seen.Load(path))
	require.Equal(t, at, seen.Transaction(902, common.Hash{3, 99}))
	require.Zero(t, seen.Transaction(902, common.Hash{3, 1}), "the oldest are gone")
}

func TestRead(t *testing.T) {
	line := `{"time":"2026-01-02T03:04:05Z","hash":"0x` + strings.Repeat("11", 32) + `"}`
	require.NoError(t, Seen{}.Read(strings.NewReader(line+"\n"+line[:20])), "one that is under way")
	for text, want := range map[string]string{
		"no\n":                         "line 1: invalid",
		line + "\n{}\n":                "line 2: time or hash is missing",
		line + "\n12\n":                "line 2",
		strings.Repeat("x", maxLine+1): "line 1",
	} {
		require.ErrorContains(t, Seen{}.Read(strings.NewReader(text)), want)
	}
	require.ErrorIs(t, Seen{}.Load(filepath.Join(t.TempDir(), "none")), os.ErrNotExist)
}
