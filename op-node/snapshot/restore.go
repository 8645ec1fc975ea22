package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

const (
	// unpackDir is where files are until all are there and checked.
	unpackDir = ".restore"
	// OperatorKeyFile is the operator's key, which may be in a data directory before anything else.
	OperatorKeyFile = "operator.key"

	maxManifest = 1 << 20 // bytes
)

// Restore unpacks a snapshot into the data directory of a new operator, which is made if it
// is not there, and may hold keys that nobody has signed with. With an error nothing of the
// snapshot is left that a node would use, unless the error says so.
// Errors: ErrNotEmpty, ErrBad.
func Restore(ctx context.Context, r io.Reader, dataDir string, limits Limits, l log.Logger) (_ *Position, err error) {
	if err := checkNew(dataDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, err
	}
	// Nothing that a name in the file says leads out of it.
	root, err := os.OpenRoot(dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.RemoveAll(unpackDir); err != nil { // of a restore that was interrupted
		return nil, err
	}
	defer func() {
		if rerr := root.RemoveAll(unpackDir); err == nil {
			err = rerr
		}
	}()
	if err := root.Mkdir(unpackDir, 0o700); err != nil {
		return nil, err
	}
	into, err := root.OpenRoot(unpackDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, into.Close()) }()

	said, err := unpack(ctx, r, into, limits)
	if err != nil {
		return nil, err
	}
	// What the manifest says is what the ledger says.
	led, got, err := positionOf(filepath.Join(dataDir, unpackDir, ledgerDir), l)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if err := led.Close(); err != nil {
		return nil, err
	}
	if !equal(got, said) {
		return nil, fmt.Errorf("%w: it says it ends with height %d and app hash %s, its ledger with height %d and %s", ErrBad, said.Height, said.AppHash, got.Height, got.AppHash)
	}
	if err := place(root); err != nil {
		return nil, fmt.Errorf("%w. Empty %s before another try, but keep its keys", err, dataDir)
	}
	return got, nil
}

func equal(a, b *Position) bool {
	chains := slices.Equal(a.Chains, b.Chains)
	return chains && a.Set == b.Set && a.Slot == b.Slot && a.Height == b.Height && a.AppHash == b.AppHash && a.BlockHash == b.BlockHash
}

// checkNew says whether a data directory has at most keys.
func checkNew(dataDir string) error {
	entries, err := os.ReadDir(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == OperatorKeyFile && e.Type().IsRegular():
		case name == unpackDir && e.IsDir():
		case name == config.ConsensusDir("") && e.IsDir():
			if err := cometbft.CheckUnused(filepath.Join(dataDir, name)); err != nil {
				return fmt.Errorf("%w: %w", ErrNotEmpty, err)
			}
		default:
			return fmt.Errorf("%w: %s is in it. Only %s and what `op-shared-sequencer keys make` makes may be", ErrNotEmpty, filepath.Join(dataDir, name), OperatorKeyFile)
		}
	}
	return nil
}

// unpack writes the files of a snapshot, synced.
func unpack(ctx context.Context, r io.Reader, into *os.Root, limits Limits) (*Position, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	t := tar.NewReader(z)
	m, err := readManifest(t, limits)
	if err != nil {
		return nil, err
	}
	files, left := 0, m.Bytes
	dirs := map[string]bool{".": true}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBad, err)
		}
		files, left = files+1, left-h.Size
		switch {
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%w: %.200q is not a regular file", ErrBad, h.Name)
		case !packed(h.Name):
			return nil, fmt.Errorf("%w: %.200q is nothing that a snapshot has", ErrBad, h.Name)
		case files > m.Files || left < 0:
			return nil, fmt.Errorf("%w: it holds more than the %d files and %d bytes that it says", ErrBad, m.Files, m.Bytes)
		}
		if err := write(into, h.Name, t, h.Size, dirs); err != nil {
			return nil, fmt.Errorf("unpack %.200q: %w", h.Name, err)
		}
	}
	// The checksum is at the end.
	if n, err := io.CopyN(io.Discard, z, 1); n > 0 {
		return nil, fmt.Errorf("%w: there is more behind its end", ErrBad)
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if files != m.Files || left != 0 {
		return nil, fmt.Errorf("%w: it holds %d files and %d bytes, it says %d and %d", ErrBad, files, m.Bytes-left, m.Files, m.Bytes)
	}
	for dir := range dirs {
		if err := syncDir(into, dir); err != nil {
			return nil, err
		}
	}
	return &m.Position, nil
}

func readManifest(t *tar.Reader, limits Limits) (*manifest, error) {
	h, err := t.Next()
	if err != nil || h.Name != manifestName || h.Typeflag != tar.TypeReg || h.Size > maxManifest {
		return nil, errors.Join(fmt.Errorf("%w: it does not begin with %s", ErrBad, manifestName), err)
	}
	data, err := io.ReadAll(t)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	m := new(manifest)
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBad, manifestName, err)
	}
	switch {
	case m.Version != version:
		return nil, fmt.Errorf("%w: it is of version %d, this op-node knows %d", ErrBad, m.Version, version)
	case m.Files < 0 || m.Bytes < 0 || m.Files > limits.Files || m.Bytes > limits.Bytes:
		return nil, fmt.Errorf("%w: it says it holds %d files and %d bytes, at most %d and %d are unpacked", ErrBad, m.Files, m.Bytes, limits.Files, limits.Bytes)
	}
	return m, nil
}

// write makes a file that is not there yet, and notes its directories.
func write(into *os.Root, name string, r io.Reader, size int64, dirs map[string]bool) error {
	dir := path.Dir(name)
	if err := into.MkdirAll(filepath.FromSlash(dir), 0o700); err != nil {
		return err
	}
	for ; !dirs[dir]; dir = path.Dir(dir) {
		dirs[dir] = true
	}
	f, err := into.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, r, size)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrBad, err)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// place moves what was unpacked to where a node looks for it. The ledger is last: a node
// that starts in between finds blocks without it, and says so.
func place(root *os.Root) error {
	for _, name := range append(sharedDirs(), messagesDir, ledgerDir) {
		from, to := filepath.Join(unpackDir, filepath.FromSlash(name)), filepath.FromSlash(name)
		if _, err := root.Lstat(from); errors.Is(err, fs.ErrNotExist) && name != ledgerDir {
			continue
		}
		parent := path.Dir(name)
		if err := root.MkdirAll(filepath.FromSlash(parent), 0o700); err != nil {
			return err
		}
		if err := root.Rename(from, to); err != nil {
			return err
		}
		for ; ; parent = path.Dir(parent) {
			if err := syncDir(root, parent); err != nil {
				return err
			}
			if parent == "." {
				break
			}
		}
	}
	return nil
}
