package devnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/fakebeacon"
)

// blobFiles keeps the blobs of L1 in files beside upstream's store, which is in memory:
// a chain whose batches are in blobs could not be derived after a restart.
type blobFiles struct {
	dir    string
	beacon *fakebeacon.FakeBeacon
}

// blobFile is the content of one file: the blobs of one L1 slot.
type blobFile struct {
	Commitments [][]byte
	Blobs       [][]byte
}

// openBlobFiles hands every stored blob to the beacon.
func openBlobFiles(dir string, beacon *fakebeacon.FakeBeacon) (*blobFiles, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		slot, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil { // a file whose writing a crash cut off
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var f blobFile
		if err := rlp.DecodeBytes(data, &f); err != nil {
			return nil, fmt.Errorf("blobs of L1 slot %d: %w", slot, err)
		}
		bundle := new(engine.BlobsBundle)
		for i := range f.Blobs {
			bundle.Commitments = append(bundle.Commitments, f.Commitments[i])
			bundle.Blobs = append(bundle.Blobs, f.Blobs[i])
		}
		if err := beacon.StoreBlobsBundle(slot, bundle); err != nil {
			return nil, fmt.Errorf("blobs of L1 slot %d: %w", slot, err)
		}
	}
	return &blobFiles{dir: dir, beacon: beacon}, nil
}

// StoreBlobsBundle implements geth.Beacon. A block becomes canonical only after it returned.
func (b *blobFiles) StoreBlobsBundle(slot uint64, bundle *engine.BlobsBundle) error {
	if len(bundle.Blobs) == 0 {
		return b.beacon.StoreBlobsBundle(slot, bundle)
	}
	var f blobFile
	for i := range bundle.Blobs {
		f.Commitments = append(f.Commitments, bundle.Commitments[i])
		f.Blobs = append(f.Blobs, bundle.Blobs[i])
	}
	data, err := rlp.EncodeToBytes(&f)
	if err != nil {
		return err
	}
	path := filepath.Join(b.dir, strconv.FormatUint(slot, 10))
	if err := os.WriteFile(path+".tmp", data, 0o644); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return b.beacon.StoreBlobsBundle(slot, bundle)
}
