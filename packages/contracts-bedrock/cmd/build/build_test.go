package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseModule(t *testing.T) {
	const path = optimismPath
	mod := "module x\n\nrequire (\n\t" + path + " v1.2.3\n\tother v1.0.0 // indirect\n)\n"
	sums := path + " v1.2.3 h1:right=\n" + path + " v1.2.3/go.mod h1:wrong=\n" + path + " v1.2.2 h1:old=\n"
	m, err := parseModule(mod, sums)
	require.NoError(t, err)
	require.Equal(t, module{"v1.2.3", "h1:right="}, m)

	m, err = parseModule("require "+path+" v1.2.2", sums)
	require.NoError(t, err)
	require.Equal(t, "h1:old=", m.sum)

	_, err = parseModule("module x\n", sums)
	require.ErrorContains(t, err, "go.mod does not require")
	_, err = parseModule(mod, path+" v1.2.3/go.mod h1:wrong=\n")
	require.ErrorContains(t, err, "go.sum has no line")
}

func TestParseDeploy(t *testing.T) {
	word := func(n byte) []byte { w := make([]byte, 32); w[31] = n; return w }
	salt := bytes.Repeat([]byte{7}, 32)
	call := bytes.Join([][]byte{{1, 2, 3, 4}, salt, word(64), word(5), {10, 11, 12, 13, 14}, make([]byte, 27)}, nil)
	gotSalt, code, err := parseDeploy(call)
	require.NoError(t, err)
	require.Equal(t, salt, gotSalt)
	require.Equal(t, []byte{10, 11, 12, 13, 14}, code)

	huge := bytes.Clone(call)
	huge[4+32] = 1 // offset of 2^248
	for name, data := range map[string][]byte{
		"empty":        nil,
		"no arguments": call[:4+32],
		"no length":    call[:4+64],
		"cut code":     call[:4+32+32+32+3],
		"huge offset":  huge,
	} {
		_, _, err := parseDeploy(data)
		require.Error(t, err, name)
	}
}

// testLock is a lock of the right size, and the hashes that a right build has.
func testLock() (map[string]lockEntry, map[string]string) {
	lock := map[string]lockEntry{preimageOracle: {"0xupstream"}}
	hashes := map[string]string{"PreimageOracle": preimageOracleHash}
	for id := range fromBundle {
		_, contract, _ := strings.Cut(id, ":")
		lock[id], hashes[contract] = lockEntry{"0x" + contract}, "0x"+contract
	}
	for i := range exactMatches {
		contract := fmt.Sprintf("C%d", i)
		lock["src/"+contract+".sol:"+contract], hashes[contract] = lockEntry{"0x" + contract}, "0x"+contract
	}
	return lock, hashes
}

func TestCompareHashes(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(lock map[string]lockEntry, hashes map[string]string)
		err    string
	}{
		"all right":           {func(map[string]lockEntry, map[string]string) {}, ""},
		"compiled differs":    {func(_ map[string]lockEntry, h map[string]string) { h["C3"] = "0x00" }, "C3 has init code hash 0x00"},
		"bundled differs":     {func(_ map[string]lockEntry, h map[string]string) { h["EAS"] = "0x00" }, "EAS has init code hash 0x00"},
		"own keccak differs":  {func(_ map[string]lockEntry, h map[string]string) { h["PreimageOracle"] = "0x00" }, "PreimageOracle has init code"},
		"contract is missing": {func(_ map[string]lockEntry, h map[string]string) { delete(h, "C3") }, "not compiled"},
		"new upstream contract": {func(l map[string]lockEntry, h map[string]string) {
			l["src/New.sol:New"], h["New"] = lockEntry{"0xN"}, "0xN"
		}, "lists 60 contracts"},
		"contract left the lock": {func(l map[string]lockEntry, _ map[string]string) { delete(l, "src/C3.sol:C3") }, "lists 58 contracts"},
	} {
		lock, hashes := testLock()
		tc.change(lock, hashes)
		report, err := compareHashes(lock, func(file, contract string) (string, error) {
			require.Equal(t, contract+".sol", file)
			if h, ok := hashes[contract]; ok {
				return h, nil
			}
			return "", errors.New(contract + " was not compiled")
		})
		if tc.err == "" {
			require.NoError(t, err, name)
			require.Contains(t, report, "56 compiled exactly")
		} else {
			require.ErrorContains(t, err, tc.err, name)
		}
	}
}

func TestInitCodeHash(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "A.sol", "A.json"), `{"bytecode":{"object":"0x616263"}}`)
	write(t, filepath.Join(dir, "B.sol", "B.json"), `{"bytecode":{"object":"0x61__$00$__"}}`)
	got, err := initCodeHash(dir, "A.sol", "A")
	require.NoError(t, err)
	require.Equal(t, "0x4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45", got, "keccak256(abc)")
	_, err = initCodeHash(dir, "B.sol", "B")
	require.ErrorContains(t, err, "not linked")
	_, err = initCodeHash(dir, "C.sol", "C")
	require.ErrorContains(t, err, "was not compiled")
}

func TestUpToDate(t *testing.T) {
	made := func() string {
		dir := t.TempDir()
		write(t, filepath.Join(dir, artifactsDir, "A.sol", "A.json"), "a")
		write(t, filepath.Join(dir, artifactsDir, "B.sol", "B.json"), "b")
		require.NoError(t, writeManifest(dir, "inputs"))
		require.True(t, upToDate(dir, "inputs"))
		return dir
	}
	require.False(t, upToDate(made(), "other inputs"))
	require.False(t, upToDate(t.TempDir(), "inputs"))
	for name, damage := range map[string]func(dir string) error{
		"changed file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, artifactsDir, "A.sol", "A.json"), []byte("c"), 0o644)
		},
		"missing file":     func(dir string) error { return os.Remove(filepath.Join(dir, artifactsDir, "A.sol", "A.json")) },
		"missing manifest": func(dir string) error { return os.Remove(filepath.Join(dir, manifestFile)) },
		"cut manifest":     func(dir string) error { return os.Truncate(filepath.Join(dir, manifestFile), 10) },
		"extra file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, artifactsDir, "C.json"), nil, 0o644)
		},
	} {
		dir := made()
		require.NoError(t, damage(dir), name)
		require.False(t, upToDate(dir, "inputs"), name)
	}
}

func TestReplaceDir(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "deep", "dst")
	for _, content := range []string{"first", "second"} {
		write(t, filepath.Join(src, content), content)
		require.NoError(t, replaceDir(src, dst))
		entries, err := os.ReadDir(dst)
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing of the former content stays")
		require.Equal(t, content, entries[0].Name())
	}
}

func TestOfflineConfig(t *testing.T) {
	got, err := offlineConfig("[p]\nast = true\nx = 1\ndeny = \"warnings\"\nffi = true\n")
	require.NoError(t, err)
	require.Equal(t, "[p]\nast = false\nx = 1\ndeny = \"never\"\noffline = true\nffi = true\n", got)
	_, err = offlineConfig("[p]\nast = true\n")
	require.ErrorContains(t, err, "deny")
}

func TestTestSummary(t *testing.T) {
	const ran = "Ran 4 test suites in 7.70s (12.77s CPU time): 22 tests passed, 0 failed, 0 skipped (22 total tests)"
	got, err := testSummary("Compiling\n\n" + ran + "\n")
	require.NoError(t, err)
	require.Equal(t, ran, got)
	for _, output := range []string{"", "No tests found in project!\n", "Ran 0 test suites in 1ms: 0 tests passed, 0 failed"} {
		_, err := testSummary(output)
		require.ErrorContains(t, err, "ran no tests", output)
	}
}

func TestTrimArtifact(t *testing.T) {
	got, err := trimArtifact([]byte(`{"abi":[],"ast":{"big":1},"bytecode":{"object":"0x"},"deployedBytecode":{},"id":3}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"abi":[],"bytecode":{"object":"0x"},"deployedBytecode":{}}`, string(got))
}

// The lockfile must work with any registry, and pin every package by content.
func TestLockfile(t *testing.T) {
	var lock struct {
		Packages map[string]struct{ Version, Resolved, Integrity string }
	}
	require.NoError(t, readJSON("../../package-lock.json", &lock))
	require.Contains(t, lock.Packages, "node_modules/@foundry-rs/forge-linux-amd64")
	for name, p := range lock.Packages {
		if name == "" {
			continue
		}
		require.Empty(t, p.Resolved, name)
		require.NotEmpty(t, p.Version, name)
		require.True(t, strings.HasPrefix(p.Integrity, "sha512-"), name)
	}
}

func TestMissingTools(t *testing.T) {
	for name, tc := range map[string]struct {
		have []string
		err  string
	}{
		"no node": {nil, "node is not in PATH"},
		"no npm":  {[]string{"node"}, "npm is not in PATH"},
	} {
		bin := t.TempDir()
		for _, tool := range tc.have {
			require.NoError(t, os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\n"), 0o755))
		}
		t.Setenv("PATH", bin)
		err := run(context.Background(), []string{"-out", filepath.Join(t.TempDir(), "out")}, &bytes.Buffer{})
		require.ErrorContains(t, err, tc.err, name)
		require.NotContains(t, err.Error(), "\n", name)
	}
}

func TestBadArguments(t *testing.T) {
	var out bytes.Buffer
	require.ErrorContains(t, run(context.Background(), []string{"extra"}, &out), `unexpected argument "extra"`)
	require.ErrorContains(t, run(context.Background(), []string{"-forge", "/nowhere/forge"}, &out), "-forge")
}

func TestKeccak(t *testing.T) {
	require.Equal(t, "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470", hex.EncodeToString(keccak()))
}

func write(t *testing.T, file, content string) {
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}
