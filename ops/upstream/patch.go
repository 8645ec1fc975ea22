package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A patch of the queue is a unified diff with no context that only inserts
// lines, so no upstream text stands in it and `git apply --unidiff-zero` can read
// it. Line numbers alone would fit anywhere: the text behind a hunk's second @@
// names the upstream lines around the place by their hash.

// anchorLines is how many upstream lines on each side of an insertion its anchor covers.
const anchorLines = 3

// Hunk inserts Lines after line At of an upstream file (0: at its head).
type Hunk struct {
	At     int
	Anchor string   // hash of the upstream lines around the place
	Lines  []string // each with its newline
}

// FilePatch is what one patch inserts into one upstream file, in file order.
type FilePatch struct {
	Path  string // slash-separated, relative to the module
	Hunks []Hunk
}

// MisfitError says which hunk of the queue does not fit upstream.
type MisfitError struct {
	Patch, File string
	Hunk        int // counted from 1
	Reason      string
}

func (e *MisfitError) Error() string {
	return fmt.Sprintf("%s: hunk %d of %s does not fit: %s", e.Patch, e.Hunk, e.File, e.Reason)
}

// anchorOf hashes the lines around an insertion after line at.
func anchorOf(lines []string, at int) string {
	h := sha256.New()
	for _, l := range lines[max(0, at-anchorLines):at] {
		h.Write([]byte(l))
	}
	h.Write([]byte{0}) // where the insertion goes
	for _, l := range lines[at:min(len(lines), at+anchorLines)] {
		h.Write([]byte(l))
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// place finds where the hunk goes in an upstream file that may have moved on.
func (h *Hunk) place(lines []string) (int, error) {
	if h.At <= len(lines) && anchorOf(lines, h.At) == h.Anchor {
		return h.At, nil
	}
	found := -1
	for at := 0; at <= len(lines); at++ {
		if anchorOf(lines, at) != h.Anchor {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("its anchor %s is at lines %d and %d", h.Anchor, found, at)
		}
		found = at
	}
	if found < 0 {
		return 0, fmt.Errorf("upstream changed around line %d (anchor %s not found)", h.At, h.Anchor)
	}
	return found, nil
}

// insertAll returns the file with the hunks of several patches inserted. The
// places are counted in the upstream file, so the patches do not depend on each other.
func insertAll(content []byte, patches []namedPatch) ([]byte, error) {
	lines := splitLines(content)
	type insertion struct {
		at    int
		lines []string
	}
	var ins []insertion
	for _, p := range patches {
		for i, h := range p.file.Hunks {
			at, err := h.place(lines)
			if err != nil {
				return nil, &MisfitError{Patch: p.name, File: p.file.Path, Hunk: i + 1, Reason: err.Error()}
			}
			if at > 0 && !strings.HasSuffix(lines[at-1], "\n") {
				return nil, &MisfitError{Patch: p.name, File: p.file.Path, Hunk: i + 1, Reason: "upstream's last line has no newline, and would become part of the inserted one"}
			}
			ins = append(ins, insertion{at, h.Lines})
		}
	}
	slices.SortStableFunc(ins, func(a, b insertion) int { return a.at - b.at })
	var out bytes.Buffer
	next := 0
	for _, in := range ins {
		for ; next < in.at; next++ {
			out.WriteString(lines[next])
		}
		for _, l := range in.lines {
			out.WriteString(l)
		}
	}
	for ; next < len(lines); next++ {
		out.WriteString(lines[next])
	}
	return out.Bytes(), nil
}

// namedPatch is one file's part of a patch, with the patch's name for errors.
type namedPatch struct {
	name string
	file FilePatch
}

var hunkHeader = regexp.MustCompile(`^@@ -(\d+),0 \+\d+(?:,(\d+))? @@(?: (.*))?$`)

// parsePatch reads a patch of the queue.
func parsePatch(name string, data []byte) ([]FilePatch, error) {
	var files []FilePatch
	var left int // inserted lines still to come in the current hunk
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		bad := func(why string) error { return fmt.Errorf("%s:%d: %s: %q", name, n, why, line) }
		switch {
		case left > 0:
			if !strings.HasPrefix(line, "+") {
				return nil, bad("expected an inserted line")
			}
			h := &files[len(files)-1].Hunks[len(files[len(files)-1].Hunks)-1]
			h.Lines = append(h.Lines, line[1:]+"\n")
			left--
		case strings.HasPrefix(line, "--- a/"):
			files = append(files, FilePatch{Path: strings.TrimPrefix(line, "--- a/")})
		case strings.HasPrefix(line, "+++ b/"):
			if len(files) == 0 || files[len(files)-1].Path != strings.TrimPrefix(line, "+++ b/") {
				return nil, bad("the two names of a patched file differ")
			}
		case strings.HasPrefix(line, "@@"):
			m := hunkHeader.FindStringSubmatch(line)
			if m == nil {
				return nil, bad("a hunk of the queue only inserts lines, without context")
			}
			if len(files) == 0 {
				return nil, bad("hunk before any file")
			}
			if m[3] == "" {
				return nil, bad("hunk without an anchor: write it with `make patches`")
			}
			at, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, bad(err.Error())
			}
			left = 1
			if m[2] != "" {
				if left, err = strconv.Atoi(m[2]); err != nil {
					return nil, bad(err.Error())
				}
			}
			f := &files[len(files)-1]
			f.Hunks = append(f.Hunks, Hunk{At: at, Anchor: m[3]})
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		default:
			return nil, bad("not a line of a patch")
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if left > 0 {
		return nil, fmt.Errorf("%s: ends inside a hunk", name)
	}
	return files, nil
}

// formatPatch writes a patch as parsePatch reads it.
func formatPatch(files []FilePatch) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "--- a/%s\n+++ b/%s\n", f.Path, f.Path)
		shift := 0
		for _, h := range f.Hunks {
			count := ""
			if len(h.Lines) != 1 {
				count = fmt.Sprintf(",%d", len(h.Lines))
			}
			fmt.Fprintf(&b, "@@ -%d,0 +%d%s @@ %s\n", h.At, h.At+shift+1, count, h.Anchor)
			for _, l := range h.Lines {
				b.WriteString("+" + strings.TrimSuffix(l, "\n") + "\n")
			}
			shift += len(h.Lines)
		}
	}
	return b.Bytes()
}

// loadPatch reads a patch file; a missing one is empty.
func loadPatch(path string) ([]FilePatch, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parsePatch(path, data)
}

// splitLines cuts a file into lines that keep their newline.
func splitLines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	lines := strings.SplitAfter(string(b), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
