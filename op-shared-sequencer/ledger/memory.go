package ledger

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// Memory is a directory that a log can be kept in instead of one of the file system, with
// what a crash does to one: for simulations. It is used by one goroutine at a time.
type Memory struct {
	files   map[string]*memoryFile
	durable map[string]*memoryFile
	// BeforeSync, if set, is called when a file is synced, before it is: where a crash
	// leaves a torn record.
	BeforeSync func()
}

// NewMemory makes an empty directory.
func NewMemory() *Memory {
	return &Memory{files: map[string]*memoryFile{}, durable: map[string]*memoryFile{}}
}

// WithMemory keeps the log in m. The directory that Open is given is only a name then, and
// nothing is locked.
func WithMemory(m *Memory) Option {
	return func(l *Ledger) { l.dir, l.unlock = m, func() error { return nil } }
}

// Crash loses what was not synced, but for a part of it: keep is given how many bytes a file
// has behind what was synced, and says how many of them are there all the same.
func (m *Memory) Crash(keep func(bytes int) int) {
	m.files = maps.Clone(m.durable)
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		f := m.files[name]
		if tail := len(f.data) - len(f.synced); tail > 0 {
			f.synced = append(f.synced, f.data[len(f.synced):len(f.synced)+keep(tail)]...)
		}
		f.data = slices.Clone(f.synced)
	}
}

func (m *Memory) list() ([]string, error) { return slices.Sorted(maps.Keys(m.files)), nil }

func (m *Memory) create(name string) (file, error) {
	f := &memoryFile{dir: m}
	m.files[name] = f
	return f, nil
}

func (m *Memory) open(name string) (file, error) {
	if f := m.files[name]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
}

func (m *Memory) rename(from, to string) error {
	f := m.files[from]
	if f == nil {
		return fmt.Errorf("rename %s: %w", from, os.ErrNotExist)
	}
	delete(m.files, from)
	m.files[to] = f
	return nil
}

func (m *Memory) remove(name string) error {
	delete(m.files, name)
	return nil
}

func (m *Memory) sync() error {
	m.durable = maps.Clone(m.files)
	return nil
}

// memoryFile only ever grows or is cut, as the log's files are: synced is a prefix.
type memoryFile struct {
	dir          *Memory
	data, synced []byte
}

func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if grow := off + int64(len(p)) - int64(len(f.data)); grow > 0 {
		f.data = append(f.data, make([]byte, grow)...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memoryFile) Close() error { return nil }

func (f *memoryFile) Size() (int64, error) { return int64(len(f.data)), nil }

func (f *memoryFile) Truncate(size int64) error {
	f.data = f.data[:size]
	return nil
}

func (f *memoryFile) Sync() error {
	if f.dir.BeforeSync != nil {
		f.dir.BeforeSync()
	}
	f.synced = append(f.synced[:0], f.data...)
	return nil
}

var _ directory = (*Memory)(nil)
