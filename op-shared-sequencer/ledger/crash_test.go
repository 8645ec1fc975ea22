package ledger

import (
	"errors"
	"io"
	"maps"
	"math/rand"
	"os"
	"slices"
	"syscall"
)

// crashDir is a directory that remembers what was synced. It can crash, at any of its
// operations, and gives what a disk may hold afterwards; it can be full, and its syncs can fail.
// Not for concurrent use.
type crashDir struct {
	rng     *rand.Rand
	live    map[string]*crashData // what the process sees
	durable map[string]*crashData // the names that survive
	pending []func()              // changes of names since the last sync, in order

	ops       int // operations that change something, so far
	crashAt   int // the operation the process dies in, 0: never
	fullAt    int // the operation from which writes fail for lack of space, 0: never
	failSync  bool
	failTrunc bool
	dead      bool
}

type crashData struct {
	live, synced []byte
	dirty        map[int]bool // sectors of live that a sync takes to the disk
}

const sector = 64

var errDead = errors.New("the process died")

func newCrashDir(rng *rand.Rand) *crashDir {
	return &crashDir{rng: rng, live: map[string]*crashData{}, durable: map[string]*crashData{}}
}

// crashed is the directory as the next process may find it.
func (d *crashDir) crashed() *crashDir {
	for _, change := range d.pending[:d.rng.Intn(len(d.pending)+1)] {
		change()
	}
	next := newCrashDir(d.rng)
	for name, data := range d.durable {
		data := &crashData{live: d.tear(data), dirty: map[int]bool{}}
		data.synced = slices.Clone(data.live)
		next.live[name], next.durable[name] = data, data
	}
	return next
}

// tear mixes what was synced with what was written since, by sectors.
func (d *crashDir) tear(data *crashData) []byte {
	lo, hi := min(len(data.synced), len(data.live)), max(len(data.synced), len(data.live))
	out := make([]byte, lo+d.rng.Intn(hi-lo+1))
	if d.rng.Intn(2) == 0 {
		out = make([]byte, hi)
	}
	for at := 0; at < len(out); at += sector {
		from := data.synced
		if d.rng.Intn(2) == 0 {
			from = data.live
		}
		if at < len(from) {
			copy(out[at:min(at+sector, len(out))], from[at:])
		}
	}
	return out
}

// step counts an operation and says whether the process is dead, or dies in it.
func (d *crashDir) step() (dies bool, err error) {
	if d.dead {
		return false, errDead
	}
	d.ops++
	d.dead = d.ops == d.crashAt
	return d.dead, nil
}

func (d *crashDir) full() bool { return d.fullAt > 0 && d.ops >= d.fullAt }

func (d *crashDir) list() ([]string, error) { return slices.Collect(maps.Keys(d.live)), nil }

func (d *crashDir) create(name string) (file, error) {
	if dies, err := d.step(); dies || err != nil {
		return nil, errDead
	}
	if d.full() {
		return nil, syscall.ENOSPC
	}
	data := &crashData{dirty: map[int]bool{}}
	d.live[name] = data
	d.pending = append(d.pending, func() { d.durable[name] = data })
	return &crashFile{d, data}, nil
}

func (d *crashDir) open(name string) (file, error) {
	data, ok := d.live[name]
	if !ok {
		return nil, os.ErrNotExist
	}
	return &crashFile{d, data}, nil
}

func (d *crashDir) rename(from, to string) error {
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

func (d *crashDir) remove(name string) error {
	dies, err := d.step()
	if err != nil {
		return err
	}
	delete(d.live, name)
	d.pending = append(d.pending, func() { delete(d.durable, name) })
	return deadIf(dies)
}

func (d *crashDir) sync() error {
	if dies, err := d.step(); dies || err != nil {
		return errDead
	}
	if d.failSync {
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
	dir  *crashDir
	data *crashData
}

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off >= int64(len(f.data.live)) {
		return 0, io.EOF
	}
	n := copy(p, f.data.live[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	dies, err := f.dir.step()
	if err != nil {
		return 0, err
	}
	full := f.dir.full()
	if full {
		p = p[:f.dir.rng.Intn(len(p))]
	}
	if need := int(off) + len(p); need > len(f.data.live) {
		f.data.live = append(f.data.live, make([]byte, need-len(f.data.live))...)
	}
	copy(f.data.live[off:], p)
	for at := int(off) / sector; at*sector < int(off)+len(p); at++ {
		f.data.dirty[at] = true
	}
	if full {
		return len(p), syscall.ENOSPC
	}
	return len(p), deadIf(dies)
}

func (f *crashFile) Size() (int64, error) { return int64(len(f.data.live)), nil }

func (f *crashFile) Truncate(size int64) error {
	dies, err := f.dir.step()
	if err != nil {
		return err
	}
	if f.dir.failTrunc {
		return syscall.EIO
	}
	f.data.live = f.data.live[:size:size]
	return deadIf(dies)
}

func (f *crashFile) Sync() error {
	if dies, err := f.dir.step(); dies || err != nil {
		return errDead
	}
	if f.dir.failSync { // as Linux does: the pages are clean now, and lost
		clear(f.data.dirty)
		return syscall.EIO
	}
	synced := make([]byte, len(f.data.live))
	copy(synced, f.data.synced)
	for at := range f.data.dirty {
		if at*sector < len(synced) {
			copy(synced[at*sector:min((at+1)*sector, len(synced))], f.data.live[at*sector:])
		}
	}
	f.data.synced = synced
	clear(f.data.dirty)
	return nil
}

func (f *crashFile) Close() error { return nil }
