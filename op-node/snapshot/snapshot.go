// Package snapshot packs the data of an operator that another one may have into a file, and
// unpacks them for a new operator: what was agreed, the blocks of it, and the messages in
// them. Keys, and what was signed with them, are never in it.
package snapshot

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/gofrs/flock"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Names in a data directory.
const (
	ledgerDir   = "ledger"
	messagesDir = "messages"
	lockFile    = "LOCK"
)

// manifestName is the first entry of a snapshot.
const manifestName = "snapshot.json"

const version = 1

// Limits of what is unpacked: a file that says it holds more, or does, is refused.
type Limits struct {
	Files int
	Bytes int64
}

// DefaultLimits are far above what the blocks that operators keep come to.
var DefaultLimits = Limits{Files: 1 << 20, Bytes: 256 << 30}

var (
	// ErrRunning: a node has the data open.
	ErrRunning = errors.New("a node runs on the data: stop it first")
	// ErrNotEmpty: the directory is not one of a new operator.
	ErrNotEmpty = errors.New("the directory is not a new operator's")
	// ErrBad: the file is no snapshot, is damaged, or holds what a snapshot must not.
	ErrBad = errors.New("bad snapshot")
)

// Position is where data end: at the newest slot in the ledger.
type Position struct {
	Set       common.Hash   `json:"set"` // ID of the operators' set
	Slot      sequence.Slot `json:"slot"`
	Height    uint64        `json:"height"`    // of the slot's last subblock
	AppHash   common.Hash   `json:"appHash"`   // at it: of the subblock and the set
	BlockHash common.Hash   `json:"blockHash"` // CometBFT's, that was voted for
	Chains    []Head        `json:"chains"`    // ascending
}

// Head is a chain's newest block.
type Head struct {
	Chain  sequence.ChainID `json:"chain"`
	Number uint64           `json:"number"`
	Hash   common.Hash      `json:"hash"`
}

type manifest struct {
	Version  int      `json:"version"`
	Position Position `json:"position"`
	Files    int      `json:"files"` // without this one
	Bytes    int64    `json:"bytes"`
}

// packed says whether a file of a data directory, by its path there with slashes, is in a
// snapshot. Everything is left out that is not known to be safe to share.
func packed(name string) bool {
	if path.Clean(name) != name || !filepath.IsLocal(filepath.FromSlash(name)) {
		return false
	}
	switch base := path.Base(name); {
	case base == lockFile, base == "LOG", base == "LOG.old", strings.HasSuffix(base, ".tmp"):
		return false
	}
	parts := strings.Split(name, "/")
	switch parts[0] {
	case ledgerDir:
		return len(parts) == 2
	case messagesDir:
		return len(parts) > 1 && !slices.ContainsFunc(parts, func(p string) bool { return strings.HasSuffix(p, ".damaged") })
	}
	return slices.ContainsFunc(sharedDirs(), func(dir string) bool {
		rest, ok := strings.CutPrefix(name, dir+"/")
		return ok && !strings.Contains(rest, "/")
	})
}

// sharedDirs are the consensus directories of a snapshot, by their path in a data directory.
func sharedDirs() []string {
	var dirs []string
	for _, dir := range cometbft.SharedDirs() {
		dirs = append(dirs, filepath.ToSlash(config.ConsensusDir(""))+"/"+dir)
	}
	return dirs
}

// positionOf opens the ledger in a directory and says where it ends. The ledger stays
// locked until it is closed.
func positionOf(dir string, l log.Logger) (*ledger.Ledger, *Position, error) {
	led, err := ledger.Open(dir, l)
	if errors.Is(err, ledger.ErrInUse) {
		return nil, nil, fmt.Errorf("%w: %w", ErrRunning, err)
	}
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*ledger.Ledger, *Position, error) {
		return nil, nil, errors.Join(fmt.Errorf("ledger %s: %w", dir, err), led.Close())
	}
	agreement, err := led.Agreement()
	if err != nil {
		return fail(err)
	}
	if len(agreement) == 0 {
		return fail(errors.New("no operators have agreed on its newest slot: there is nothing to give to another one"))
	}
	a, err := cometbft.DecodeAgreement(agreement)
	if err != nil {
		return fail(err)
	}
	p := &Position{Set: a.Set.ID(), Height: a.Height, AppHash: a.AppHash}
	p.Slot, _, _ = led.Last()
	if n := len(a.Votes); n > 0 {
		p.BlockHash = common.BytesToHash(a.Votes[n-1].BlockID.Hash)
	}
	for _, id := range led.Chains() {
		var head eth.BlockID
		head, _, _ = led.Head(id)
		p.Chains = append(p.Chains, Head{Chain: id, Number: head.Number, Hash: head.Hash})
	}
	return led, p, nil
}

// Create writes a snapshot of the data of an operator that is stopped.
// Errors: ErrRunning.
func Create(ctx context.Context, dataDir string, w io.Writer, l log.Logger) (_ *Position, err error) {
	// The ledger would make a directory that is not there.
	for _, dir := range append(sharedDirs(), ledgerDir) {
		if info, err := os.Lstat(filepath.Join(dataDir, filepath.FromSlash(dir))); err != nil {
			return nil, fmt.Errorf("%s is not the data directory of an operator that agrees with others: %w", dataDir, err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s in %s is not a directory", dir, dataDir)
		}
	}
	// A node opens the ledger first, and has it open until everything else is closed.
	led, position, err := positionOf(filepath.Join(dataDir, ledgerDir), l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	messages := flock.New(filepath.Join(dataDir, messagesDir, lockFile), flock.SetFlag(os.O_RDWR))
	switch ok, err := messages.TryLock(); {
	case errors.Is(err, fs.ErrNotExist): // they are made again from the chains
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", messages.Path(), err)
	case !ok:
		return nil, fmt.Errorf("%w: %s is locked", ErrRunning, messages.Path())
	default:
		defer func() { err = errors.Join(err, messages.Close()) }()
	}
	files, total, err := list(dataDir)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	head, err := json.Marshal(manifest{Version: version, Position: *position, Files: len(files), Bytes: total})
	if err != nil {
		return nil, err
	}
	if err := t.WriteHeader(header(manifestName, int64(len(head)))); err != nil {
		return nil, err
	}
	if _, err := t.Write(head); err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := pack(t, dataDir, f); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.name, err)
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return position, nil
}

// file is one of a snapshot: its path in the data directory, with slashes, and its size.
type file struct {
	name string
	size int64
}

// header says nothing of who made the file, and when.
func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}
}

// list gives the files of a data directory that are packed, in the order of their names.
func list(dataDir string) (files []file, total int64, err error) {
	for _, top := range append(sharedDirs(), ledgerDir, messagesDir) {
		err := filepath.WalkDir(filepath.Join(dataDir, filepath.FromSlash(top)), func(at string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && top == messagesDir {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(dataDir, at)
			if err != nil {
				return err
			}
			name := filepath.ToSlash(rel)
			if !packed(name) {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%s is not a regular file", at)
			}
			files, total = append(files, file{name, info.Size()}), total+info.Size()
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return files, total, nil
}

func pack(t *tar.Writer, dataDir string, f file) error {
	in, err := os.Open(filepath.Join(dataDir, filepath.FromSlash(f.name)))
	if err != nil {
		return err
	}
	defer in.Close()
	if err := t.WriteHeader(header(f.name, f.size)); err != nil {
		return err
	}
	_, err = io.CopyN(t, in, f.size)
	return err
}
