package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// numbered is a file whose lines are all different.
func numbered(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// hunkAt is a hunk that fits the file after line at.
func hunkAt(content string, at int, lines ...string) Hunk {
	return Hunk{At: at, Anchor: anchorOf(splitLines([]byte(content)), at), Lines: lines}
}

func TestParseFormat(t *testing.T) {
	text := "--- a/a/b.go\n+++ b/a/b.go\n" +
		"@@ -0,0 +1 @@ aaaaaaaaaaaa\n+first\n" +
		"@@ -7,0 +9,3 @@ bbbbbbbbbbbb\n+\n+--- a/not/a/header\n+@@ nor a hunk\n" +
		"--- a/c.go\n+++ b/c.go\n@@ -1,0 +2,2 @@ cccccccccccc\n++plus\n+\ttab\n"
	files, err := parsePatch("p", []byte(text))
	require.NoError(t, err)
	require.Equal(t, []FilePatch{
		{Path: "a/b.go", Hunks: []Hunk{
			{At: 0, Anchor: "aaaaaaaaaaaa", Lines: []string{"first\n"}},
			{At: 7, Anchor: "bbbbbbbbbbbb", Lines: []string{"\n", "--- a/not/a/header\n", "@@ nor a hunk\n"}},
		}},
		{Path: "c.go", Hunks: []Hunk{{At: 1, Anchor: "cccccccccccc", Lines: []string{"+plus\n", "\ttab\n"}}}},
	}, files)
	require.Equal(t, text, string(formatPatch(files)))
}

func TestParseRefuses(t *testing.T) {
	head := "--- a/x\n+++ b/x\n"
	for name, tt := range map[string]struct{ text, want string }{
		"deletion":     {head + "@@ -3 +2,0 @@ aaaaaaaaaaaa\n-gone\n", "p:3: a hunk of the queue only inserts lines"},
		"replacement":  {head + "@@ -3 +3 @@ aaaaaaaaaaaa\n-old\n+new\n", "p:3: a hunk of the queue only inserts lines"},
		"context":      {head + "@@ -3,0 +4,2 @@ aaaaaaaaaaaa\n+new\n upstream\n", "p:5: expected an inserted line"},
		"no anchor":    {head + "@@ -3,0 +4 @@\n+new\n", "p:3: hunk without an anchor"},
		"no file":      {"@@ -3,0 +4 @@ aaaaaaaaaaaa\n+new\n", "p:1: hunk before any file"},
		"two names":    {"--- a/x\n+++ b/y\n", "p:2: the two names"},
		"short":        {head + "@@ -3,0 +4,2 @@ aaaaaaaaaaaa\n+new\n", "p: ends inside a hunk"},
		"something":    {"diff --git a/x b/x\n", "p:1: not a line of a patch"},
		"trailing":     {head + "@@ -3,0 +4 @@ aaaaaaaaaaaa\n+new\n+more\n", "p:5: not a line of a patch"},
		"line number":  {head + "@@ -99999999999999999999,0 +4 @@ aaaaaaaaaaaa\n+new\n", "p:3: "},
		"number lines": {head + "@@ -3,0 +4,99999999999999999999 @@ aaaaaaaaaaaa\n+new\n", "p:3: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsePatch("p", []byte(tt.text))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// What git diff says of an edited file, put into the file, gives the edited file.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	old, edited := filepath.Join(dir, "old"), filepath.Join(dir, "edited")
	rapid.Check(t, func(t *rapid.T) {
		// Few different lines, so that places look alike.
		upstream := rapid.SliceOfN(rapid.SampledFrom([]string{"a\n", "b\n", "}\n", "\n"}), 0, 30).Draw(t, "upstream")
		var want []string
		for i := 0; i <= len(upstream); i++ {
			if rapid.IntRange(0, 4).Draw(t, "insert") == 0 {
				for n := rapid.IntRange(1, 3).Draw(t, "lines"); n > 0; n-- {
					want = append(want, rapid.SampledFrom([]string{"ours\n", "a\n", "}\n", "\n", "-x\n", "+x\n", "@@\n"}).Draw(t, "line"))
				}
			}
			if i < len(upstream) {
				want = append(want, upstream[i])
			}
		}
		was, is := strings.Join(upstream, ""), strings.Join(want, "")
		require.NoError(t, os.WriteFile(old, []byte(was), 0o600))
		require.NoError(t, os.WriteFile(edited, []byte(is), 0o600))
		hunks, err := insertions(old, edited, []byte(was))
		require.NoError(t, err)
		if was == is {
			require.Empty(t, hunks)
			return
		}
		written := formatPatch([]FilePatch{{Path: "f", Hunks: hunks}})
		read, err := parsePatch("p", written)
		require.NoError(t, err)
		require.Equal(t, written, formatPatch(read))
		got, err := insertAll([]byte(was), []namedPatch{{"p", read[0]}})
		require.NoError(t, err)
		require.Equal(t, is, string(got))
	})
}

// A hunk follows its place when upstream grows or shrinks above it, and only then.
func TestDrift(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.IntRange(8, 40).Draw(t, "lines")
		at := rapid.IntRange(0, lines).Draw(t, "at")
		was := numbered(lines)
		h := hunkAt(was, at, "ours\n")

		// Anything may happen further than anchorLines away.
		before := max(0, at-anchorLines)
		after := min(lines, at+anchorLines)
		all := splitLines([]byte(was))
		top := rapid.SliceOfN(rapid.SampledFrom([]string{"new\n", "more\n"}), 0, 5).Draw(t, "top")
		if before == 0 {
			top = nil // the head of the file belongs to the anchor
		}
		moved := append(slices.Clone(top), all[before:after]...)
		if after < lines {
			moved = append(moved, "new end\n")
		}
		got, err := insertAll([]byte(strings.Join(moved, "")), []namedPatch{{"p", FilePatch{"f", []Hunk{h}}}})
		require.NoError(t, err)
		want := slices.Insert(slices.Clone(moved), len(top)+at-before, "ours\n")
		require.Equal(t, strings.Join(want, ""), string(got))

		// A change of a line next to the place is a misfit.
		near := rapid.IntRange(before, after-1).Draw(t, "changed")
		all[near] = "changed\n"
		_, err = insertAll([]byte(strings.Join(all, "")), []namedPatch{{"q/p.patch", FilePatch{"f", []Hunk{h}}}})
		var misfit *MisfitError
		require.ErrorAs(t, err, &misfit)
		require.Equal(t, &MisfitError{Patch: "q/p.patch", File: "f", Hunk: 1, Reason: misfit.Reason}, misfit)
	})
}

func TestAmbiguous(t *testing.T) {
	block := "a\nb\nc\nd\ne\nf\n"
	h := hunkAt(block+block, 3, "ours\n")
	t.Run("at its line", func(t *testing.T) {
		// Two places look alike, but one is where the patch says.
		got, err := insertAll([]byte(block+block), []namedPatch{{"p", FilePatch{"f", []Hunk{h}}}})
		require.NoError(t, err)
		require.Equal(t, "a\nb\nc\nours\nd\ne\nf\n"+block, string(got))
	})
	t.Run("moved", func(t *testing.T) {
		_, err := insertAll([]byte("x\n"+block+block), []namedPatch{{"p", FilePatch{"f", []Hunk{h}}}})
		var misfit *MisfitError
		require.ErrorAs(t, err, &misfit)
		require.Contains(t, misfit.Reason, "at lines 4 and 10")
	})
}

// Patches do not depend on each other's lines, also at one place.
func TestSeveralPatches(t *testing.T) {
	was := numbered(10)
	one := namedPatch{"one", FilePatch{"f", []Hunk{hunkAt(was, 2, "one at 2\n"), hunkAt(was, 5, "one at 5\n")}}}
	two := namedPatch{"two", FilePatch{"f", []Hunk{hunkAt(was, 0, "two at 0\n"), hunkAt(was, 5, "two at 5\n"), hunkAt(was, 10, "two at 10\n")}}}
	got, err := insertAll([]byte(was), []namedPatch{one, two})
	require.NoError(t, err)
	require.Equal(t, "two at 0\nline 1\nline 2\none at 2\nline 3\nline 4\nline 5\none at 5\ntwo at 5\nline 6\nline 7\nline 8\nline 9\nline 10\ntwo at 10\n", string(got))
}

func TestLastLineWithoutNewline(t *testing.T) {
	was := "a\nb"
	got, err := insertAll([]byte(was), []namedPatch{{"p", FilePatch{"f", []Hunk{hunkAt(was, 1, "ours\n")}}}})
	require.NoError(t, err)
	require.Equal(t, "a\nours\nb", string(got))

	// After it there is no place for a line without changing it.
	_, err = insertAll([]byte(was), []namedPatch{{"p", FilePatch{"f", []Hunk{hunkAt(was, 2, "ours\n")}}}})
	var misfit *MisfitError
	require.True(t, errors.As(err, &misfit), "%v", err)
}
