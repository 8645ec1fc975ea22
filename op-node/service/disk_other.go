//go:build !linux && !darwin

package service

// diskSpace is not known here.
func diskSpace(string) (free, size uint64, ok bool) { return 0, 0, false }
