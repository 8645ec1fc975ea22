package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// capture writes the queue's patches and added files from an edited tree. An
// insertion that a patch already has stays in it; a new one goes to the patch named into.
func (q *Queue) capture(repo, tree string, modules, sums map[string]string, into string) error {
	if !slices.Contains(q.Patches, into) {
		return fmt.Errorf("%s has no patch %q: choose one of %s", q.Dir, into, strings.Join(q.Patches, ", "))
	}
	owner := map[string]string{} // file and inserted text -> patch
	for _, name := range q.Patches {
		files, err := loadPatch(filepath.Join(repo, q.Dir, name))
		if err != nil {
			return err
		}
		for _, f := range files {
			for _, h := range f.Hunks {
				owner[f.Path+"\n"+strings.Join(h.Lines, "")] = name
			}
		}
	}
	// A file of the queue that the tree lacks was deleted there, if the tree was made
	// from this queue; else it may just be newer than the tree.
	stamp, err := q.stamp(repo, sums)
	if err != nil {
		return err
	}
	madeFrom, err := os.ReadFile(tree + ".stamp")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Everything is worked out before anything is written: a refused edit leaves the queue as it was.
	pristine, err := q.upstreamFiles(modules)
	if err != nil {
		return err
	}
	generated := map[string][]byte{}
	if q.Generate != nil {
		if generated, err = q.Generate(modules); err != nil {
			return err
		}
	}
	ours, err := q.added(repo)
	if err != nil {
		return err
	}
	patched := map[string][]FilePatch{}
	added := map[string][]byte{}
	err = filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(tree, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		old, upstreams := pristine[rel]
		delete(pristine, rel)
		if generated[rel] != nil {
			return nil
		}
		have, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !upstreams {
			added[rel] = have
			return nil
		}
		was, err := os.ReadFile(old)
		if err != nil || bytes.Equal(was, have) {
			return err
		}
		hunks, err := insertions(old, p, was)
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		for _, h := range hunks {
			name := owner[rel+"\n"+strings.Join(h.Lines, "")]
			if name == "" {
				name = into
			}
			if fs := patched[name]; len(fs) == 0 || fs[len(fs)-1].Path != rel {
				patched[name] = append(fs, FilePatch{Path: rel})
			}
			f := &patched[name][len(patched[name])-1]
			f.Hunks = append(f.Hunks, h)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, rel := range sortedKeys(pristine) {
		if generated[rel] == nil {
			return fmt.Errorf("%s: deleted: the queue only inserts lines", rel)
		}
	}

	for rel := range ours {
		if _, ok := added[rel]; !ok && string(madeFrom) != stamp {
			return fmt.Errorf("%s/%s is not in %s, which was not made from this queue: delete it, or run `make upstream` and edit again", q.Dir, rel, tree)
		}
	}

	for _, name := range q.Patches {
		if err := writeIfChanged(filepath.Join(repo, q.Dir, name), formatPatch(patched[name])); err != nil {
			return err
		}
	}
	for _, rel := range sortedKeys(added) {
		if err := writeIfChanged(filepath.Join(repo, q.Dir, filepath.FromSlash(rel)), added[rel]); err != nil {
			return err
		}
	}
	for rel, p := range ours {
		if _, ok := added[rel]; !ok {
			if err := os.Remove(p); err != nil {
				return err
			}
		}
	}
	// The tree is what the queue now makes.
	if stamp, err = q.stamp(repo, sums); err != nil {
		return err
	}
	return os.WriteFile(tree+".stamp", []byte(stamp), 0o644)
}

// insertions compares an upstream file with its edited copy.
func insertions(old, edited string, was []byte) ([]Hunk, error) {
	cmd := exec.Command("git", "diff", "--no-index", "--no-color", "--no-ext-diff", "-U0", old, edited)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return nil, fmt.Errorf("git diff: %w", err)
	}
	lines := splitLines(was)
	var hunks []Hunk
	inHunk := false
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "@@"):
			inHunk = true
			head := strings.SplitN(line, "@@", 3)
			m := hunkHeader.FindStringSubmatch("@@" + head[1] + "@@")
			if m == nil {
				return nil, fmt.Errorf("upstream lines were changed or deleted (%s): the queue only inserts lines", strings.TrimSpace(head[1]))
			}
			at, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, err
			}
			hunks = append(hunks, Hunk{At: at, Anchor: anchorOf(lines, at)})
		case inHunk && strings.HasPrefix(line, "+"):
			h := &hunks[len(hunks)-1]
			h.Lines = append(h.Lines, line[1:])
		}
	}
	return hunks, nil
}
