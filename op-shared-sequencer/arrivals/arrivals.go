// Package arrivals keeps when an operator saw transactions and bundles first, in a file of
// bounded size, for audits of the order that leaders gave them.
package arrivals

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Arrival is when something was seen: a line of JSON in a file.
type Arrival struct {
	Time  time.Time        `json:"time"`
	Chain sequence.ChainID `json:"chainId,omitempty"` // of the transaction; absent for a bundle
	Hash  common.Hash      `json:"hash"`
}

// olderSuffix is of the file that was full.
const olderSuffix = ".1"

// Recorder writes arrivals to a file. When that is full it takes the place of the one that was
// full before. For concurrent use.
type Recorder struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// Record opens a file, to write behind what is in it. It and the one that was full before have
// at most max bytes each.
func Record(path string, max int64) (*Recorder, error) {
	r := &Recorder{path: path, max: max}
	return r, r.open()
}

func (r *Recorder) open() error {
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := lastLine(f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file, r.size = f, size
	return nil
}

// lastLine is where the last line of a file ends: what is behind it was cut off by a crash.
func lastLine(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	tail := make([]byte, min(st.Size(), maxLine))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if end := bytes.LastIndexByte(tail, '\n'); end >= 0 {
		return st.Size() - int64(len(tail)) + int64(end) + 1, nil
	}
	return 0, nil
}

// Note writes an arrival.
func (r *Recorder) Note(a Arrival) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil && r.size > 0 && r.size+int64(len(line)) > r.max {
		err := errors.Join(r.file.Close(), os.Rename(r.path, r.path+olderSuffix))
		if r.file = nil; err != nil {
			return err
		}
	}
	if r.file == nil { // also after an earlier one failed
		if err := r.open(); err != nil {
			return err
		}
	}
	n, err := r.file.Write(line)
	if err != nil && n > 0 { // half a line would spoil the next one
		return errors.Join(err, r.file.Truncate(r.size))
	}
	r.size += int64(n)
	return err
}

// Close closes the file.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// Seen is when an operator saw what first.
type Seen map[key]time.Time

type key struct {
	chain sequence.ChainID // 0: a bundle
	hash  common.Hash
}

// Transaction is when one was seen; zero if it was not.
func (s Seen) Transaction(chain sequence.ChainID, hash common.Hash) time.Time {
	return s[key{chain, hash}]
}

// Bundle is when one was seen; zero if it was not.
func (s Seen) Bundle(hash common.Hash) time.Time { return s[key{0, hash}] }

// Load reads what a Recorder has written to a path, with the file that was full before.
func (s Seen) Load(path string) error {
	for _, name := range []string{path + olderSuffix, path} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && name != path {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(s.Read(f), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// maxLine bounds a line, in bytes.
const maxLine = 1 << 12

// Read reads lines of arrivals. A last one that is not ended may be under way, or was cut off
// by a crash, and does not count. Of several for one thing the earliest does.
func (s Seen) Read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var a Arrival
		if err == nil {
			err = json.Unmarshal(line, &a)
		}
		if err == nil && (a.Time.IsZero() || a.Hash == (common.Hash{})) {
			err = errors.New("time or hash is missing")
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		k := key{a.Chain, a.Hash}
		if first, ok := s[k]; !ok || a.Time.Before(first) {
			s[k] = a.Time
		}
	}
}
