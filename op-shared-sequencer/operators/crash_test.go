package operators

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"

	"pgregory.net/rapid"
)

// crashFiles remembers what was synced. It can crash, at any of its operations, and gives
// what a disk may hold afterwards; it can be full, and its syncs can fail. One directory.
// Not for concurrent use.
type crashFiles struct {
	live, durable map[string]*crashData
	pending       []func() // changes of names since the last sync of the directory, in order

	ops     int // operations that change something, so far
	crashAt int // the operation the process dies in, 0: never
	fullAt  int // the operation that finds no space, 0: never
	failAt  int // the operation that fails if it is a sync, 0: never
	dead    bool
}

type crashData struct{ live, synced []byte }

var errDead = errors.New("the process died")

func newCrashFiles() *crashFiles {
	return &crashFiles{live: map[string]*crashData{}, durable: map[string]*crashData{}}
}

// crashed is what the next process may find.
func (d *crashFiles) crashed(t *rapid.T) *crashFiles {
	for _, change := range d.pending[:rapid.IntRange(0, len(d.pending)).Draw(t, "names on the disk")] {
		change()
	}
	next := newCrashFiles()
	for name, data := range d.durable {
		content := data.synced
		if !bytes.Equal(data.live, data.synced) {
			content = data.live[:rapid.IntRange(0, len(data.live)).Draw(t, "bytes on the disk")]
		}
		content = bytes.Clone(content)
		data := &crashData{content, content}
		next.live[name], next.durable[name] = data, data
	}
	return next
}

// step counts an operation and says whether the process is dead, or dies in it.
func (d *crashFiles) step() (dies bool, err error) {
	if d.dead {
		return false, errDead
	}
	d.ops++
	d.dead = d.ops == d.crashAt
	return d.dead, nil
}

func (d *crashFiles) open(path string) (io.ReadCloser, error) {
	data, ok := d.live[path]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data.live)), nil
}

func (d *crashFiles) create(path string) (writer, error) {
	if dies, err := d.step(); dies || err != nil {
		return nil, errDead
	}
	if data, ok := d.live[path]; ok {
		data.live = nil // truncated, on the disk once it is synced
		return &crashFile{d, data}, nil
	}
	data := &crashData{}
	d.live[path] = data
	d.pending = append(d.pending, func() { d.durable[path] = data })
	return &crashFile{d, data}, nil
}

func (d *crashFiles) rename(from, to string) error {
	dies, err := d.step()
	if err != nil {
		return err
	}
	data := d.live[from]
	delete(d.live, from)
	d.live[to] = data
	d.pending = append(d.pending, func() {
		delete(d.durable, from)
		d.durable[to] = data
	})
	return deadIf(dies)
}

func (d *crashFiles) syncDir(string) error {
	if dies, err := d.step(); dies || err != nil {
		return errDead
	}
	if d.ops == d.failAt {
		return syscall.EIO
	}
	for _, change := range d.pending {
		change()
	}
	d.pending = nil
	return nil
}

func deadIf(dies bool) error {
	if dies {
		return errDead
	}
	return nil
}

type crashFile struct {
	dir  *crashFiles
	data *crashData
}

func (f *crashFile) Write(p []byte) (int, error) {
	dies, err := f.dir.step()
	if err != nil {
		return 0, err
	}
	if f.dir.ops == f.dir.fullAt {
		f.data.live = append(f.data.live, p[:len(p)/2]...)
		return len(p) / 2, syscall.ENOSPC
	}
	f.data.live = append(f.data.live, p...)
	return len(p), deadIf(dies)
}

func (f *crashFile) Sync() error {
	if dies, err := f.dir.step(); dies || err != nil {
		return errDead
	}
	if f.dir.ops == f.dir.failAt {
		return syscall.EIO
	}
	f.data.synced = bytes.Clone(f.data.live)
	return nil
}

func (f *crashFile) Close() error { return nil }
