package cometbft

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	dbm "github.com/cometbft/cometbft-db"
	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/store"

	"github.com/ethereum-optimism/optimism/op-service/clock"
)

// stores are CometBFT's databases. They are closed here and not by the node: when it is
// stopped it closes them under goroutines that still use them.
type stores struct {
	open   map[string]dbm.DB
	blocks *store.BlockStore // for reading what the node has written
	began  *began

	mu     sync.RWMutex
	closed bool
}

// openStores opens the databases in a rotation's directory.
func openStores(dir string, clk clock.Clock) (s *stores, err error) {
	s = &stores{open: map[string]dbm.DB{}, began: &began{clock: clk}}
	for _, name := range []string{"blockstore", "state", "evidence"} {
		db, err := dbm.NewGoLevelDB(name, filepath.Join(dir, "data"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("consensus: open %s in %s: %w. It may be open in another process", name, dir, err), s.close())
		}
		s.open[name] = db
	}
	defer func() { // it reads a few keys, and panics when it cannot
		if p := recover(); p != nil {
			s, err = nil, errors.Join(fmt.Errorf("consensus: blocks in %s: %v", dir, p), s.close())
		}
	}()
	s.blocks = store.NewBlockStore(s.open["blockstore"])
	return s, nil
}

// provide is a cmtcfg.DBProvider.
func (s *stores) provide(ctx *cmtcfg.DBContext) (dbm.DB, error) {
	db, ok := s.open[ctx.ID]
	if !ok {
		return nil, fmt.Errorf("consensus: there is no database %s", ctx.ID)
	}
	if ctx.ID == "blockstore" {
		return blockDB{kept{db, s}, s.began}, nil
	}
	return kept{db, s}, nil
}

func (s *stores) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for name, db := range s.open {
		if err := db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("consensus: close %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// kept is a database as the node sees it. The node does not close it. Once it is closed
// here, it is empty: goroutines of CometBFT's that serve peers outlive the node by some
// seconds, and an error would make them panic, and end the process.
type kept struct {
	dbm.DB
	in *stores
}

func (kept) Close() error { return nil }

func (d kept) Get(key []byte) ([]byte, error) {
	d.in.mu.RLock()
	defer d.in.mu.RUnlock()
	if d.in.closed {
		return nil, nil
	}
	return d.DB.Get(key)
}

func (d kept) Has(key []byte) (bool, error) {
	d.in.mu.RLock()
	defer d.in.mu.RUnlock()
	if d.in.closed {
		return false, nil
	}
	return d.DB.Has(key)
}

// blockDB notes when a batch was begun. The first thing CometBFT does when a height has its
// votes is to save the block in one, and it counts the time to the next height from there.
type blockDB struct {
	kept
	began *began
}

func (d blockDB) NewBatch() dbm.Batch {
	d.began.note()
	return d.kept.NewBatch()
}

type began struct {
	clock clock.Clock
	at    atomic.Int64 // Unix nanoseconds
}

func (b *began) note() { b.at.Store(b.clock.Now().UnixNano()) }

// commit is when the commit that is being finalized began, not more than a second ago: no
// batch is begun for a block that was saved before.
func (b *began) commit() time.Time {
	now := b.clock.Now()
	if at := time.Unix(0, b.at.Load()); now.Sub(at) < time.Second {
		return at
	}
	return now
}
