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

// What a crash has cut off does not spoil what comes after it.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "arrivals.jsonl")
	at := time.Unix(1_700_000_000, 0).UTC()
	for _, torn := range []string{`{"time":"20`, "", `{"time":"2026-01-02T03:04:05Z"`} {
		r, err := Record(path, 1<<20)
		require.NoError(t, err)
		require.NoError(t, r.Note(Arrival{at, 901, common.Hash{byte(len(torn) + 1)}}))
		require.NoError(t, r.Close())
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString(torn)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	r, err := Record(path, 1<<20)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	seen := Seen{}
	require.NoError(t, seen.Load(path))
	require.Len(t, seen, 3)
	require.NoError(t, os.WriteFile(path, []byte(`{"time`), 0o600)) // nothing but that
	r, err = Record(path, 1<<20)
	require.NoError(t, err)
	require.NoError(t, r.Note(Arrival{at, 901, common.Hash{9}}))
	require.NoError(t, r.Close())
	require.NoError(t, seen.Load(path))
}

// A recorder that could not go on to a new file tries again.
func TestRotationFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "arrivals.jsonl")
	r, err := Record(path, 200)
	require.NoError(t, err)
	note := func() error { return r.Note(Arrival{time.Unix(1, 0), 901, common.Hash{1}}) }
	require.NoError(t, note())
	require.NoError(t, os.Mkdir(path+olderSuffix, 0o700)) // in its way
	require.NoError(t, os.WriteFile(filepath.Join(path+olderSuffix, "x"), nil, 0o600))
	require.Error(t, note())
	require.NoError(t, os.RemoveAll(path+olderSuffix))
	require.NoError(t, note())
	require.NoError(t, note())
	require.NoError(t, r.Close())
	require.NoError(t, Seen{}.Load(path))
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
