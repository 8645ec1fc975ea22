package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// The kit itself is an input: a change to it builds again.
//
//go:embed main.go inputs.go compile.go artifacts.go
var kitSource embed.FS

const (
	optimismPath = "github.com/ethereum-optimism/optimism"

	// The last release line with SuperchainTokenBridge and SuperchainERC20; later ones removed them. go.mod can name
	// one version of a module only, so this one is pinned here.
	tokenBridgeVersion = "v1.16.0"
	tokenBridgeSum     = "h1:GV8rYx4xs0PQ6k/1w5Odkhn3rOC9R5bhqueEl3c748w="

	artifactsDir = "forge-artifacts"
	manifestFile = "manifest.json"
)

type module struct {
	version string
	sum     string // h1: hash of the module's files, as in go.sum
}

// inputs is everything the result depends on.
type inputs struct {
	optimism    module   // from go.mod and go.sum
	tokenBridge module   // pinned above
	artifacts   []string // upstream artifacts to keep, "File.sol/Contract"
	hash        string   // over all of the above, the lockfile, our sources and this program
}

func (b *builder) inputs() (*inputs, error) {
	in := &inputs{tokenBridge: module{tokenBridgeVersion, tokenBridgeSum}}
	var err error
	if in.optimism, err = requiredModule(b.root); err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(b.kit, "artifacts.txt"))
	if err != nil {
		return nil, err
	}
	in.artifacts = strings.Fields(string(list))

	h := sha256.New()
	add := func(name string, content []byte) {
		fmt.Fprintf(h, "%s %d\n", name, len(content))
		h.Write(content)
	}
	add("optimism", []byte(in.optimism.sum))
	add("tokenBridge", []byte(in.tokenBridge.sum))
	for _, from := range []struct {
		name string
		fsys fs.FS
	}{
		{"kit", kitSource},
		{"lib", os.DirFS(filepath.Join(b.kit, "lib"))},
		{"src", os.DirFS(b.sources)},
	} {
		err := fs.WalkDir(from.fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := fs.ReadFile(from.fsys, name)
			add(path.Join(from.name, name), content)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read the kit's sources: %w", err)
		}
	}
	for _, name := range []string{"package.json", "package-lock.json", "solc.js", "artifacts.txt"} {
		content, err := os.ReadFile(filepath.Join(b.kit, name))
		if err != nil {
			return nil, err
		}
		add(name, content)
	}
	in.hash = hex.EncodeToString(h.Sum(nil))
	return in, nil
}

// requiredModule finds the optimism version in go.mod and its hash in go.sum. It reads the files itself: asking the go
// command would load the whole module graph first.
func requiredModule(root string) (module, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return module{}, err
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return module{}, err
	}
	return parseModule(string(mod), string(sums))
}

func parseModule(mod, sums string) (module, error) {
	var m module
	for line := range strings.Lines(mod) {
		if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) >= 2 && f[0] == optimismPath {
			m.version = f[1]
			break
		}
	}
	if m.version == "" {
		return m, fmt.Errorf("go.mod does not require %s", optimismPath)
	}
	for line := range strings.Lines(sums) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == optimismPath && f[1] == m.version {
			m.sum = f[2]
		}
	}
	if m.sum == "" {
		return m, fmt.Errorf("go.sum has no line for %s %s: run `go mod download %s`", optimismPath, m.version, optimismPath)
	}
	return m, nil
}

// moduleDir returns the directory of the module in the module cache, after downloading it if need be.
func moduleDir(ctx context.Context, m module) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", optimismPath+"@"+m.version)
	// Outside of any module: otherwise the go command would want to resolve the main module first.
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "GO111MODULE=on", "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	var got struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(out, &got); jsonErr != nil {
		return "", fmt.Errorf("go mod download %s@%s: %w", optimismPath, m.version, errors.Join(err, jsonErr))
	}
	if got.Error != "" {
		return "", fmt.Errorf("go mod download %s@%s: %s", optimismPath, m.version, got.Error)
	}
	if got.Sum != m.sum {
		return "", fmt.Errorf("%s@%s has hash %s, expected %s", optimismPath, m.version, got.Sum, m.sum)
	}
	return got.Dir, nil
}

// manifest lists a finished result. It is written last.
type manifest struct {
	Inputs string            `json:"inputs"` // hash of everything the result was made from
	Files  map[string]string `json:"files"`  // path below the result, slashes: SHA-256
}

func writeManifest(dir, inputs string) error {
	m := manifest{Inputs: inputs}
	var err error
	if m.Files, err = hashFiles(dir); err != nil {
		return err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestFile), append(data, '\n'), 0o644)
}

// upToDate says whether dir holds an undamaged result made from these inputs.
func upToDate(dir, inputs string) bool {
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return false
	}
	var m manifest
	if json.Unmarshal(data, &m) != nil || m.Inputs != inputs || len(m.Files) == 0 {
		return false
	}
	have, err := hashFiles(dir)
	if err != nil || len(have) != len(m.Files) {
		return false
	}
	for name, sum := range m.Files {
		if have[name] != sum {
			return false
		}
	}
	return true
}

func hashFiles(dir string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(filepath.Join(dir, artifactsDir), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		files[filepath.ToSlash(rel)] = hex.EncodeToString(sum[:])
		return nil
	})
	return files, err
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
