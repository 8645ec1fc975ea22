package cometbft

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cometbft/cometbft/privval"
)

// SharedDirs are the directories in Config.Dir that a new operator may be given a copy of,
// taken while nobody has them open: the agreed blocks, the states after them, and the
// evidence in them. What is beside them belongs to one operator alone: keys, and what was
// voted for and signed.
func SharedDirs() []string {
	return []string{"data/blockstore.db", "data/evidence.db", "data/state.db"}
}

// ErrUsed: a directory holds more than keys that nobody has voted with.
var ErrUsed = errors.New("the consensus directory was used already")

// CheckUnused says whether a directory has at most what InitKeys makes. It need not be
// there. Errors: ErrUsed.
func CheckUnused(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path == dir:
			return nil
		case err != nil:
			return err
		case path == dir:
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch filepath.ToSlash(name) {
		case "config", "data":
			if d.IsDir() {
				return nil
			}
		case nodeKeyFile, voteKeyFile:
			if d.Type().IsRegular() {
				return nil
			}
		case voteStateFile:
			var state privval.FilePVLastSignState
			if err := readJSON(path, &state); err != nil {
				return err
			}
			if state.Height == 0 && state.Round == 0 && state.Step == 0 {
				return nil
			}
			return fmt.Errorf("%w: its key has voted, at height %d last: see %s", ErrUsed, state.Height, path)
		}
		return fmt.Errorf("%w: %s is there", ErrUsed, path)
	})
}
