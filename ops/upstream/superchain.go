package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// op-core/superchain embeds an archive that upstream's build fetches and the
// module lacks. op-geth's module carries one of the same form.
const (
	superchainZip  = "op-core/superchain/superchain-configs.zip"
	superchainName = "superchain-configs.zip"
)

// unknownKeys are the keys of op-geth's archive that optimism's strict decoders do
// not know: one of chains, one of superchains.
var unknownKeys = regexp.MustCompile(`(?m)^(superchain_level|protocol_versions_addr)\s*=.*\n`)

// superchainConfigs makes optimism's archive and its checksum file from op-geth's archive.
func superchainConfigs(modules map[string]string) (map[string][]byte, error) {
	src := filepath.Join(modules["github.com/ethereum/go-ethereum"], "superchain", superchainName)
	r, err := zip.OpenReader(src)
	if err != nil {
		return nil, fmt.Errorf("opening op-geth's superchain configs: %w", err)
	}
	defer r.Close()
	files := r.File
	sort.Slice(files, func(i, j int) bool { return files[i].Name < files[j].Name })

	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		content, err := readZipped(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if strings.HasSuffix(f.Name, ".toml") {
			content = unknownKeys.ReplaceAll(content, nil)
		}
		// No times, so that the archive is the same everywhere.
		dst, err := w.CreateHeader(&zip.FileHeader{Name: f.Name, Method: zip.Deflate})
		if err != nil {
			return nil, err
		}
		if _, err := dst.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return map[string][]byte{
		superchainZip:             out.Bytes(),
		superchainZip + ".sha256": fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(out.Bytes()), superchainName),
	}, nil
}

func readZipped(f *zip.File) ([]byte, error) {
	rc, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}
