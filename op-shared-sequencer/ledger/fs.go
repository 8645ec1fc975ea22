package ledger

import (
	"io"
	"os"
	"path/filepath"
)

// directory is what the log needs of its directory. Tests put crashes and full disks in between.
type directory interface {
	list() ([]string, error)
	create(name string) (file, error) // truncates
	open(name string) (file, error)
	rename(from, to string) error
	remove(name string) error
	sync() error // makes creations, renames and removals durable
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
}

type osDir string

func (d osDir) path(name string) string { return filepath.Join(string(d), name) }

func (d osDir) list() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (d osDir) create(name string) (file, error) {
	return osOpen(d.path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (d osDir) open(name string) (file, error) { return osOpen(d.path(name), os.O_RDWR) }

func (d osDir) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d osDir) remove(name string) error { return os.Remove(d.path(name)) }

func (d osDir) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// readOnlyDir is a directory that nothing is changed in.
type readOnlyDir struct{ osDir }

func (d readOnlyDir) create(string) (file, error) { return nil, ErrReadOnly }

func (d readOnlyDir) open(name string) (file, error) { return osOpen(d.path(name), os.O_RDONLY) }

func (d readOnlyDir) rename(string, string) error { return ErrReadOnly }

func (d readOnlyDir) remove(string) error { return ErrReadOnly }

func (d readOnlyDir) sync() error { return ErrReadOnly }

type osFile struct{ *os.File }

func osOpen(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
