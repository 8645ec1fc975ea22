package operators

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/ethereum/go-ethereum/crypto"
)

// files is what this package needs of the disk. Tests put crashes and full disks in between.
type files interface {
	open(path string) (io.ReadCloser, error)
	create(path string) (writer, error) // truncates
	rename(from, to string) error
	syncDir(path string) error // makes creations and renames in it durable
}

type writer interface {
	io.WriteCloser
	Sync() error
}

type osFiles struct{}

func (osFiles) open(path string) (io.ReadCloser, error) { return os.Open(path) }

func (osFiles) create(path string) (writer, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (osFiles) rename(from, to string) error { return os.Rename(from, to) }

func (osFiles) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readFile reads a file of at most limit bytes.
func readFile(fs files, path string, limit int64) ([]byte, error) {
	f, err := fs.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// errUnsettled: after it nobody knows which content the file has on the disk.
var errUnsettled = errors.New("the file may have its old or its new content")

// replaceFile writes to a file beside path and renames it, synced: a crash leaves the old
// content or the new one. An error that is not errUnsettled leaves the old content.
func replaceFile(fs files, path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := fs.create(tmp)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := fs.rename(tmp, path); err != nil {
		return fmt.Errorf("%w: %w", errUnsettled, err)
	}
	if err := fs.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%w: %w", errUnsettled, err)
	}
	return nil
}

// seal puts the format's name and a checksum before a body.
func seal(magic string, body []byte) []byte {
	return slices.Concat([]byte(magic), crypto.Keccak256(body), body)
}

// unseal gives the body of what seal made.
func unseal(magic string, data []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return nil, fmt.Errorf("%d bytes that do not begin with %q", len(data), magic)
	}
	if len(rest) < 32 || !bytes.Equal(rest[:32], crypto.Keccak256(rest[32:])) {
		return nil, errors.New("its checksum is wrong: it is torn or was changed")
	}
	return rest[32:], nil
}
