//go:build linux || darwin

package service

import "golang.org/x/sys/unix"

// diskSpace is the room in a directory's file system, in bytes, for this user.
func diskSpace(dir string) (free, size uint64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, false
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), true
}
