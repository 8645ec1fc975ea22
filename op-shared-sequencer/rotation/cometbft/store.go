package cometbft

import (
	"errors"
	"fmt"
	"path/filepath"
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
		return blockDB{kept{db}, s.began}, nil
	}
	return kept{db}, nil
}

func (s *stores) close() error {
	var errs []error
	for name, db := range s.open {
		if err := db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("consensus: close %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// kept is a database that stays open.
type kept struct{ dbm.DB }

func (kept) Close() error { return nil }

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
