package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// small is a queue over a module of two files, in directories of its own.
type small struct {
	*Queue
	repo, module, dst string
	modules, sums     map[string]string
}

func newSmall(t *testing.T) *small {
	t.Helper()
	dir := t.TempDir()
	s := &small{
		Queue: &Queue{Name: "small", Module: "example.org/small", Dir: "patches", Patches: []string{"one.patch", "two.patch"}, Leave: []string{"docs"}},
		repo:  filepath.Join(dir, "repo"), module: filepath.Join(dir, "module"), dst: filepath.Join(dir, "repo", "build", "small"),
	}
	s.modules = map[string]string{s.Module: s.module}
	s.sums = map[string]string{s.Module: "h1:1"}
	put(t, s.module, "go.mod", "module example.org/small\n")
	put(t, s.module, "a.go", numbered(20))
	put(t, s.module, "sub/b.go", numbered(9))
	put(t, s.module, "docs/x.md", "not needed\n")
	put(t, s.repo, "ops/upstream/main.go", "package main\n")
	put(t, s.repo, "patches/README.md", "about the queue\n")
	put(t, s.repo, "patches/go.mod", "module patches\n")
	put(t, s.repo, "patches/sub/ours.go", "package sub\n")
	s.patch(t, "one.patch", FilePatch{"a.go", []Hunk{hunkAt(numbered(20), 10, "one\n")}})
	s.patch(t, "two.patch", FilePatch{"a.go", []Hunk{hunkAt(numbered(20), 12, "two\n")}}, FilePatch{"sub/b.go", []Hunk{hunkAt(numbered(9), 0, "two\n", "and\n")}})
	return s
}

func (s *small) patch(t *testing.T, name string, files ...FilePatch) {
	t.Helper()
	put(t, s.repo, "patches/"+name, string(formatPatch(files)))
}

func put(t *testing.T, dir, rel, content string) {
	t.Helper()
	file := filepath.Join(dir, filepath.FromSlash(rel))
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
}

func get(t *testing.T, dir, rel string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(rel)))
	require.NoError(t, err)
	return string(b)
}

// files reads a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return filepath.SkipAll
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		out[filepath.ToSlash(rel)] = get(t, dir, rel)
		return nil
	}))
	return out
}

func TestApply(t *testing.T) {
	s := newSmall(t)
	changed, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
	require.NoError(t, err)
	require.True(t, changed)
	a := strings.Replace(numbered(20), "line 11\n", "one\nline 11\n", 1)
	a = strings.Replace(a, "line 13\n", "two\nline 13\n", 1)
	want := map[string]string{
		"go.mod": "module example.org/small\n", "a.go": a, "sub/b.go": "two\nand\n" + numbered(9), "sub/ours.go": "package sub\n",
	}
	require.Equal(t, want, files(t, s.dst))

	t.Run("again", func(t *testing.T) {
		changed, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
		require.NoError(t, err)
		require.False(t, changed)
	})
	t.Run("the queue changed", func(t *testing.T) {
		require.NoError(t, os.Rename(filepath.Join(s.repo, "patches/sub/ours.go"), filepath.Join(s.repo, "patches/ours.go")))
		info, err := os.Stat(filepath.Join(s.dst, "a.go"))
		require.NoError(t, err)
		changed, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
		require.NoError(t, err)
		require.True(t, changed)
		want["ours.go"] = want["sub/ours.go"]
		delete(want, "sub/ours.go")
		require.Equal(t, want, files(t, s.dst))
		after, err := os.Stat(filepath.Join(s.dst, "a.go"))
		require.NoError(t, err)
		require.Equal(t, info.ModTime(), after.ModTime(), "a file that is right is not written again")
	})
	t.Run("the module changed", func(t *testing.T) {
		put(t, s.module, "a.go", "new first line\n"+numbered(20))
		require.NoError(t, os.Remove(filepath.Join(s.module, "sub/b.go")))
		s.patch(t, "two.patch")
		s.sums[s.Module] = "h1:2"
		changed, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
		require.NoError(t, err)
		require.True(t, changed)
		require.Equal(t, map[string]string{
			"go.mod": want["go.mod"], "ours.go": "package sub\n",
			"a.go": "new first line\n" + strings.Replace(numbered(20), "line 11\n", "one\nline 11\n", 1),
		}, files(t, s.dst))
		require.NoDirExists(t, filepath.Join(s.dst, "sub"), "nothing is left in it")
	})
}

// A hunk that does not fit is named, and nothing is written: neither into an empty
// directory nor over a good tree.
func TestMisfit(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, s *small)
		want  string
	}{
		"upstream changed": {
			func(t *testing.T, s *small) {
				put(t, s.module, "a.go", strings.Replace(numbered(20), "line 15", "line xv", 1))
			},
			"patches/two.patch: hunk 1 of a.go does not fit: upstream changed around line 12",
		},
		"second hunk": {
			func(t *testing.T, s *small) {
				s.patch(t, "one.patch", FilePatch{"a.go", []Hunk{hunkAt(numbered(20), 4, "good\n"), {At: 9, Anchor: "000000000000", Lines: []string{"bad\n"}}}})
			},
			"patches/one.patch: hunk 2 of a.go does not fit: upstream changed around line 9",
		},
		"file gone": {
			func(t *testing.T, s *small) { require.NoError(t, os.Remove(filepath.Join(s.module, "sub/b.go"))) },
			"patches/two.patch: hunk 1 of sub/b.go does not fit: upstream has no such file",
		},
		"file in the way": {
			func(t *testing.T, s *small) { put(t, s.module, "sub/ours.go", "package sub // upstream's\n") },
			"patches/sub/ours.go: upstream has a file of this name",
		},
		"not a patch": {
			func(t *testing.T, s *small) { put(t, s.repo, "patches/one.patch", "oops\n") },
			"one.patch:1: not a line of a patch",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSmall(t)
			tt.spoil(t, s)
			_, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
			require.ErrorContains(t, err, tt.want)
			require.Empty(t, files(t, filepath.Dir(s.dst)))

			s = newSmall(t)
			_, err = s.apply(s.repo, s.dst, s.modules, s.sums, everything)
			require.NoError(t, err)
			good := files(t, filepath.Dir(s.dst))
			tt.spoil(t, s)
			s.sums[s.Module] = "h1:2"
			_, err = s.apply(s.repo, s.dst, s.modules, s.sums, everything)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, good, files(t, filepath.Dir(s.dst)))
		})
	}
}

func TestCapture(t *testing.T) {
	s := newSmall(t)
	_, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
	require.NoError(t, err)
	queue := files(t, filepath.Join(s.repo, "patches"))

	t.Run("nothing edited", func(t *testing.T) {
		require.NoError(t, s.capture(s.repo, s.dst, s.modules, s.sums, "one.patch"))
		require.Equal(t, queue, files(t, filepath.Join(s.repo, "patches")))
	})
	t.Run("edited", func(t *testing.T) {
		edited := strings.Replace(get(t, s.dst, "sub/b.go"), "line 5\n", "line 5\nnew\n", 1)
		put(t, s.dst, "sub/b.go", edited)
		put(t, s.dst, "sub/new.go", "package sub // new\n")
		require.NoError(t, s.capture(s.repo, s.dst, s.modules, s.sums, "one.patch"))
		require.Equal(t, queue["two.patch"], get(t, s.repo, "patches/two.patch"), "what a patch has stays in it")
		one, err := loadPatch(filepath.Join(s.repo, "patches/one.patch"))
		require.NoError(t, err)
		require.Equal(t, []FilePatch{
			{"a.go", []Hunk{hunkAt(numbered(20), 10, "one\n")}},
			{"sub/b.go", []Hunk{hunkAt(numbered(9), 5, "new\n")}},
		}, one)
		want := files(t, s.dst)
		changed, err := s.apply(s.repo, s.dst, s.modules, s.sums, everything)
		require.NoError(t, err)
		require.False(t, changed, "the tree is known to be the queue's")
		other := filepath.Join(s.repo, "build", "other")
		_, err = s.apply(s.repo, other, s.modules, s.sums, everything)
		require.NoError(t, err)
		require.Equal(t, want, files(t, other), "the queue makes the tree it was captured from")
	})
	for name, edit := range map[string]func(string) string{
		"deleted line": func(a string) string { return strings.Replace(a, "line 7\n", "", 1) },
		"changed line": func(a string) string { return strings.Replace(a, "line 7\n", "line seven\n", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			before := files(t, filepath.Join(s.repo, "patches"))
			was := get(t, s.dst, "a.go")
			put(t, s.dst, "a.go", edit(was))
			defer put(t, s.dst, "a.go", was)
			err := s.capture(s.repo, s.dst, s.modules, s.sums, "one.patch")
			require.ErrorContains(t, err, "a.go: upstream lines were changed or deleted (-7")
			require.Equal(t, before, files(t, filepath.Join(s.repo, "patches")))
		})
	}
	t.Run("deleted file", func(t *testing.T) {
		before := files(t, filepath.Join(s.repo, "patches"))
		was := get(t, s.dst, "a.go")
		require.NoError(t, os.Remove(filepath.Join(s.dst, "a.go")))
		defer put(t, s.dst, "a.go", was)
		require.ErrorContains(t, s.capture(s.repo, s.dst, s.modules, s.sums, "one.patch"), "a.go: deleted")
		require.Equal(t, before, files(t, filepath.Join(s.repo, "patches")))
	})
	t.Run("removed file of ours", func(t *testing.T) {
		require.NoError(t, os.Remove(filepath.Join(s.dst, "sub/new.go")))
		require.NoError(t, s.capture(s.repo, s.dst, s.modules, s.sums, "one.patch"))
		require.NoFileExists(t, filepath.Join(s.repo, "patches/sub/new.go"))
	})
	t.Run("file newer than the tree", func(t *testing.T) {
		put(t, s.repo, "patches/sub/newer.go", "package sub\n")
		require.ErrorContains(t, s.capture(s.repo, s.dst, s.modules, s.sums, "one.patch"), "patches/sub/newer.go is not in")
		require.FileExists(t, filepath.Join(s.repo, "patches/sub/newer.go"))
	})
	t.Run("unknown patch", func(t *testing.T) {
		require.EqualError(t, s.capture(s.repo, s.dst, s.modules, s.sums, "three.patch"), `patches has no patch "three.patch": choose one of one.patch, two.patch`)
	})
}

// The verifier's op-geth has the rules of Karst and nothing of block building.
func TestKarstOnly(t *testing.T) {
	require.True(t, karstOnly("karst.patch", ""))
	require.False(t, karstOnly("sessions.patch", ""))
	require.True(t, karstOnly("", "core/vm/contracts_karst.go"))
	require.True(t, karstOnly("", "core/vm/contracts_karst_test.go"))
	require.False(t, karstOnly("", "miner/session.go"))
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"frobnicate"}, {"verifier"}, {"capture", "optimism"}, {"apply", "op-geth", "optimism"}} {
		require.Error(t, run(t.TempDir(), args), "%v", args)
	}
	require.EqualError(t, run(t.TempDir(), []string{"apply", "geth"}), `no queue "geth": there are op-geth and optimism`)
	require.EqualError(t, run(t.TempDir(), []string{"capture", "geth", "x"}), `no queue "geth": there are op-geth and optimism`)
}
