package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Queue is what the project adds to one upstream module.
type Queue struct {
	Name   string // directory below build/upstream
	Module string // import path under which the workspace uses the module
	Dir    string // queue directory, relative to the repository
	// Patches are the queue's patch files, in the order in which they insert at the same place.
	Patches []string
	// Leave lists the module's directories that no build needs.
	Leave []string
	// Generate makes the files that upstream's build makes and the module lacks.
	// It returns them by slash-separated path.
	Generate func(modules map[string]string) (map[string][]byte, error)
}

var queues = []Queue{
	{
		Name: "op-geth", Module: "github.com/ethereum/go-ethereum", Dir: "op-geth-patches",
		Patches: []string{"karst.patch", "sessions.patch"},
	},
	{
		Name: "optimism", Module: "github.com/ethereum-optimism/optimism", Dir: "op-node/patches",
		Patches:  []string{"queue.patch"},
		Leave:    []string{"docs", "rust", ".github", ".circleci"},
		Generate: superchainConfigs,
	},
}

// notAdded are the files of a queue directory that are about the queue.
func notAdded(rel string) bool {
	if strings.Contains(rel, "/") {
		return false
	}
	return rel == "go.mod" || rel == "README.md" || rel == "LICENSE" || strings.HasSuffix(rel, ".patch")
}

// added lists the files of ours, by slash-separated path in the module.
func (q *Queue) added(repo string) (map[string]string, error) {
	root := filepath.Join(repo, filepath.FromSlash(q.Dir))
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if rel = filepath.ToSlash(rel); !notAdded(rel) {
			out[rel] = p
		}
		return nil
	})
	return out, err
}

// Tree is a patched module as it should stand on disk. Files that are taken as
// they are carry only their source.
type Tree struct {
	copied   map[string]string // path in the module -> file to copy
	rendered map[string][]byte // path in the module -> content: patched or generated
}

// only says whether a file of the queue belongs to the chosen part of it.
type only func(patch, addedFile string) bool

func everything(string, string) bool { return true }

// karstOnly is the part of the op-geth queue that an independent verifier needs:
// the rules of the Karst upgrade and the pathdb guard, nothing of block building.
func karstOnly(patch, addedFile string) bool {
	if patch != "" {
		return patch == "karst.patch"
	}
	base := path.Base(addedFile)
	return strings.HasSuffix(base, "_karst.go") || strings.HasSuffix(base, "_karst_test.go")
}

// upstreamFiles lists the module's files that belong into the copy, by
// slash-separated path.
func (q *Queue) upstreamFiles(modules map[string]string) (map[string]string, error) {
	src := modules[q.Module]
	out := map[string]string{}
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains(q.Leave, rel) {
				return filepath.SkipDir
			}
			return nil
		}
		out[rel] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading module %s: %w", q.Module, err)
	}
	return out, nil
}

// plan works out the whole tree before anything is written, so that a hunk that
// does not fit leaves no half-patched tree.
func (q *Queue) plan(repo string, modules map[string]string, part only) (*Tree, error) {
	copied, err := q.upstreamFiles(modules)
	if err != nil {
		return nil, err
	}
	t := &Tree{copied: copied, rendered: map[string][]byte{}}

	byFile := map[string][]namedPatch{}
	for _, name := range q.Patches {
		if !part(name, "") {
			continue
		}
		files, err := loadPatch(filepath.Join(repo, filepath.FromSlash(q.Dir), name))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			byFile[f.Path] = append(byFile[f.Path], namedPatch{q.Dir + "/" + name, f})
		}
	}
	for _, file := range sortedKeys(byFile) {
		p, ok := t.copied[file]
		if !ok {
			return nil, &MisfitError{Patch: byFile[file][0].name, File: file, Hunk: 1, Reason: "upstream has no such file"}
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		if t.rendered[file], err = insertAll(content, byFile[file]); err != nil {
			return nil, err
		}
		delete(t.copied, file)
	}

	ours, err := q.added(repo)
	if err != nil {
		return nil, err
	}
	for rel, p := range ours {
		if !part("", rel) {
			continue
		}
		if _, ok := t.copied[rel]; ok || t.rendered[rel] != nil {
			return nil, fmt.Errorf("%s/%s: upstream has a file of this name; a queue adds files, it does not replace them", q.Dir, rel)
		}
		t.copied[rel] = p
	}

	if q.Generate != nil {
		made, err := q.Generate(modules)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.Name, err)
		}
		for rel, content := range made {
			delete(t.copied, rel)
			t.rendered[rel] = content
		}
	}
	return t, nil
}

// write brings dst to the tree. Files that are already right are not touched, so
// that the compiler's cache stays warm.
func (t *Tree) write(dst string) error {
	for _, rel := range sortedKeys(t.copied) {
		content, err := os.ReadFile(t.copied[rel])
		if err != nil {
			return err
		}
		if err := writeIfChanged(filepath.Join(dst, filepath.FromSlash(rel)), content); err != nil {
			return err
		}
	}
	for _, rel := range sortedKeys(t.rendered) {
		if err := writeIfChanged(filepath.Join(dst, filepath.FromSlash(rel)), t.rendered[rel]); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dst, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dst, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if _, ok := t.copied[rel]; ok || t.rendered[rel] != nil {
			return nil
		}
		if err := os.Remove(p); err != nil {
			return err
		}
		// Its directory too, once empty: the go command would list it.
		for dir := filepath.Dir(p); dir != dst && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
		}
		return nil
	})
}

func writeIfChanged(file string, content []byte) error {
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

// stamp names the inputs of a tree by content: the modules by their go.sum lines,
// the queue and this program by their files.
func (q *Queue) stamp(repo string, sums map[string]string) (string, error) {
	h := sha256.New()
	for _, m := range sortedKeys(sums) {
		fmt.Fprintln(h, m, sums[m])
	}
	for _, dir := range []string{q.Dir, "ops/upstream"} {
		err := filepath.WalkDir(filepath.Join(repo, filepath.FromSlash(dir)), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || dir != q.Dir && strings.HasSuffix(p, "_test.go") {
				return err
			}
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(repo, p)
			fmt.Fprintf(h, "%s %x\n", filepath.ToSlash(rel), sha256.Sum256(content))
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// apply makes build/upstream/<name>, or finds it already made.
func (q *Queue) apply(repo, dst string, modules, sums map[string]string, part only) (changed bool, err error) {
	want, err := q.stamp(repo, sums)
	if err != nil {
		return false, err
	}
	stampFile := dst + ".stamp"
	if have, err := os.ReadFile(stampFile); err == nil && string(have) == want {
		if _, err := os.Stat(filepath.Join(dst, "go.mod")); err == nil {
			return false, nil
		}
	}
	tree, err := q.plan(repo, modules, part)
	if err != nil {
		return false, err
	}
	if err := os.Remove(stampFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return false, err
	}
	if err := tree.write(dst); err != nil {
		return false, fmt.Errorf("writing %s: %w", dst, err)
	}
	return true, os.WriteFile(stampFile, []byte(want), 0o644)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
