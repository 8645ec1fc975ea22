package ledger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

const (
	segmentMagic  = "opsslog\x02" // the last byte is the format's version
	segmentHeader = 8 + 8 + 8 + 4
	frameHeader   = 8 + 8 + 4 + 4 + 4
	segmentSuffix = ".log"
	tempSuffix    = ".tmp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one file of the log.
type segment struct {
	name  string
	file  file
	first uint64 // sequence number of the first frame
	mark  uint64
	size  int64 // bytes that count; the next frame goes here
}

func segmentName(first uint64) string { return fmt.Sprintf("%016x%s", first, segmentSuffix) }

// isSegment says whether a file name is one that segmentName gives.
func isSegment(name string) bool {
	var first uint64
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if _, err := fmt.Sscanf(hex, "%x", &first); !ok || err != nil {
		return false
	}
	return segmentName(first) == name
}

// appendFrame appends the frame of a body to buf.
func appendFrame(buf []byte, mark, seq uint64, body []byte) []byte {
	start := len(buf)
	buf = binary.LittleEndian.AppendUint64(buf, mark)
	buf = binary.LittleEndian.AppendUint64(buf, seq)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(body)))
	buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(body, castagnoli))
	buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf[start:], castagnoli))
	return append(buf, body...)
}

// frame is what stands before a body.
type frame struct {
	seq  uint64
	size uint32
	sum  uint32
}

// parseFrame reads a frame's header; it is false if none stands here.
func (s *segment) parseFrame(h []byte) (frame, bool) {
	f := frame{binary.LittleEndian.Uint64(h[8:]), binary.LittleEndian.Uint32(h[16:]), binary.LittleEndian.Uint32(h[20:])}
	ok := binary.LittleEndian.Uint64(h) == s.mark &&
		crc32.Checksum(h[:frameHeader-4], castagnoli) == binary.LittleEndian.Uint32(h[frameHeader-4:])
	return f, ok
}

func (f frame) matches(body []byte) bool {
	return int(f.size) == len(body) && crc32.Checksum(body, castagnoli) == f.sum
}

// createSegment makes a segment durable, with its first frame in it, before it gets its
// name: a crash leaves either a whole segment or a temporary file. If named is true and
// err is not nil, the segment may or may not be there after a crash.
func createSegment(dir directory, first, mark uint64, body []byte) (s *segment, named bool, err error) {
	s = &segment{name: segmentName(first), first: first, mark: mark}
	buf := []byte(segmentMagic)
	buf = binary.LittleEndian.AppendUint64(buf, first)
	buf = binary.LittleEndian.AppendUint64(buf, mark)
	buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
	buf = appendFrame(buf, mark, first, body)
	s.size = int64(len(buf))

	temp := s.name + tempSuffix
	if s.file, err = dir.create(temp); err != nil {
		return nil, false, fmt.Errorf("create segment %s: %w", s.name, err)
	}
	if _, err = s.file.WriteAt(buf, 0); err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		if err = dir.rename(temp, s.name); err == nil {
			named = true
			err = dir.sync()
		}
	}
	if err != nil {
		_ = s.file.Close()
		if !named {
			_ = dir.remove(temp) // else Open removes it
		}
		return nil, named, fmt.Errorf("create segment %s: %w", s.name, err)
	}
	return s, true, nil
}

// openSegment reads a segment's header. Its size is the file's until scan has checked it.
func openSegment(dir directory, name string) (*segment, error) {
	f, err := dir.open(name)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", name, err)
	}
	s := &segment{name: name, file: f}
	fail := func(err error) (*segment, error) {
		_ = f.Close()
		return nil, err
	}
	if s.size, err = f.Size(); err != nil {
		return fail(fmt.Errorf("open segment %s: %w", name, err))
	}
	var h [segmentHeader]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			return fail(s.corrupt(0, "the file is shorter than its header"))
		}
		return fail(fmt.Errorf("read segment %s: %w", name, err))
	}
	s.first = binary.LittleEndian.Uint64(h[8:])
	s.mark = binary.LittleEndian.Uint64(h[16:])
	switch {
	case string(h[:7]) != segmentMagic[:7]:
		return fail(s.corrupt(0, "not a segment of a ledger"))
	case h[7] != segmentMagic[7]:
		return fail(fmt.Errorf("segment %s has format version %d, this program reads version %d", name, h[7], segmentMagic[7]))
	case crc32.Checksum(h[:24], castagnoli) != binary.LittleEndian.Uint32(h[24:]):
		return fail(s.corrupt(0, "the header's checksum does not match"))
	case segmentName(s.first) != name:
		return fail(s.corrupt(0, fmt.Sprintf("the header is that of segment %s", segmentName(s.first))))
	}
	return s, nil
}

// scan calls visit for each frame in order. The body is only valid during the call. In
// the last segment it stops in front of a torn frame and reduces s.size to what counts.
func (s *segment) scan(last bool, visit func(seq uint64, off int64, body []byte) error) (torn bool, err error) {
	end, off, seq := s.size, int64(segmentHeader), s.first
	r := bufio.NewReaderSize(io.NewSectionReader(s.file, off, end-off), 1<<20)
	var header [frameHeader]byte
	var body []byte
	for ; off < end; seq++ {
		reason, next := "", end // next: where the frame ends, if that is known
		if end-off < frameHeader {
			reason = "the frame is cut off"
		} else {
			if _, err := io.ReadFull(r, header[:]); err != nil {
				return false, fmt.Errorf("read segment %s at offset %d: %w", s.name, off, err)
			}
			f, ok := s.parseFrame(header[:])
			switch {
			case !ok:
				reason = "no frame begins here"
			case f.seq != seq:
				return false, s.corrupt(off, fmt.Sprintf("frame %d where %d is expected", f.seq, seq))
			case int64(f.size) > end-off-frameHeader:
				reason = "the frame is cut off"
			default:
				next = off + frameHeader + int64(f.size)
				if cap(body) < int(f.size) {
					body = make([]byte, f.size)
				}
				body = body[:f.size]
				if _, err := io.ReadFull(r, body); err != nil {
					return false, fmt.Errorf("read segment %s at offset %d: %w", s.name, off, err)
				}
				if !f.matches(body) {
					reason = "the frame's checksum does not match"
				}
			}
		}
		if reason == "" {
			if err := visit(seq, off, body); err != nil {
				return false, s.corrupt(off, err.Error())
			}
			off = next
			continue
		}
		// Only the frame that was being written when the process died can be torn, and
		// nothing was ever written behind it.
		if !last || off == segmentHeader || next < end {
			return false, s.corrupt(off, reason)
		}
		later, err := s.laterFrame(off+1, end, seq)
		if err != nil {
			return false, err
		}
		if later >= 0 {
			return false, s.corrupt(off, fmt.Sprintf("%s, but there is a whole one at offset %d", reason, later))
		}
		s.size = off
		return true, nil
	}
	if seq == s.first {
		return false, s.corrupt(off, "the segment has no frames")
	}
	return false, nil
}

// laterFrame looks for a whole frame after a bad one; -1 if there is none.
func (s *segment) laterFrame(from, end int64, seq uint64) (int64, error) {
	data := make([]byte, end-from)
	if _, err := s.file.ReadAt(data, from); err != nil {
		return 0, fmt.Errorf("read segment %s at offset %d: %w", s.name, from, err)
	}
	mark := binary.LittleEndian.AppendUint64(nil, s.mark)
	for pos := 0; ; pos++ {
		i := bytes.Index(data[pos:], mark)
		if i < 0 || len(data)-pos-i < frameHeader {
			return -1, nil
		}
		pos += i
		rest := data[pos+frameHeader:]
		if f, ok := s.parseFrame(data[pos:]); ok && f.seq > seq && uint64(f.size) <= uint64(len(rest)) && f.matches(rest[:f.size]) {
			return from + int64(pos), nil
		}
	}
}

// read returns the body of the frame at off, which was size bytes long when it was written.
func (s *segment) read(off int64, size int) ([]byte, error) {
	buf := make([]byte, frameHeader+size)
	if _, err := s.file.ReadAt(buf, off); err != nil {
		return nil, fmt.Errorf("read segment %s at offset %d: %w", s.name, off, err)
	}
	if f, ok := s.parseFrame(buf); !ok || !f.matches(buf[frameHeader:]) {
		return nil, s.corrupt(off, "the frame's checksum does not match")
	}
	return buf[frameHeader:], nil
}

func (s *segment) corrupt(off int64, reason string) error {
	return &CorruptError{File: s.name, Offset: off, Reason: reason}
}

// CorruptError says where the log is damaged. It matches ErrCorrupt.
type CorruptError struct {
	File   string // in the log's directory
	Offset int64  // in bytes
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: segment %s at offset %d: %s", ErrCorrupt, e.File, e.Offset, e.Reason)
}

func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
