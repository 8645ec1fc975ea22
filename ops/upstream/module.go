package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// locate downloads the modules that go.mod pins for the queues and returns their
// directories and go.sum hashes by the import path the workspace uses. The
// extracted files are hashed, not only the archive they came from.
func locate(repo string, progress func(string, ...any)) (dirs, sums map[string]string, err error) {
	data, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	if err != nil {
		return nil, nil, err
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return nil, nil, err
	}
	goSum, err := os.ReadFile(filepath.Join(repo, "go.sum"))
	if err != nil {
		return nil, nil, err
	}
	dirs, sums = map[string]string{}, map[string]string{}
	for _, q := range queues {
		v, err := pinned(mod, q.Module)
		if err != nil {
			return nil, nil, err
		}
		want := sumLine(string(goSum), v)
		if want == "" {
			return nil, nil, fmt.Errorf("go.sum has no hash of %s: run `GOWORK=off go mod tidy`", v)
		}
		progress("verifying %s", v)
		dir, err := download(repo, v)
		if err != nil {
			return nil, nil, err
		}
		have, err := dirhash.HashDir(dir, v.String(), dirhash.Hash1)
		if err != nil {
			return nil, nil, fmt.Errorf("hashing %s: %w", v, err)
		}
		if have != want {
			return nil, nil, fmt.Errorf("%s in the module cache is not what go.sum says (have %s, want %s): run `go clean -modcache`", v, have, want)
		}
		dirs[q.Module], sums[q.Module] = dir, want
	}
	return dirs, sums, nil
}

// pinned is the module version that go.mod selects for an import path.
func pinned(mod *modfile.File, path string) (module.Version, error) {
	for _, r := range mod.Replace {
		if r.Old.Path == path {
			return r.New, nil
		}
	}
	for _, r := range mod.Require {
		if r.Mod.Path == path {
			return r.Mod, nil
		}
	}
	return module.Version{}, fmt.Errorf("go.mod does not require %s", path)
}

// sumLine finds a module's content hash in go.sum.
func sumLine(goSum string, v module.Version) string {
	prefix := v.Path + " " + v.Version + " "
	for line := range strings.Lines(goSum) {
		if h, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(h)
		}
	}
	return ""
}

// download puts a module into the module cache and returns its directory.
func download(repo string, v module.Version) (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", v.String())
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	runErr := cmd.Run()
	var m struct{ Dir, Error string }
	if err := json.Unmarshal(out.Bytes(), &m); err != nil || runErr != nil || m.Error != "" {
		return "", fmt.Errorf("downloading %s: %s%s", v, m.Error, strings.TrimSpace(errOut.String()))
	}
	return m.Dir, nil
}
