// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Savepoints undo whole transactions, where Snapshot and RevertToSnapshot end at a
// transaction's boundary (Finalise drops the journal). An open savepoint keeps the
// pre-image of what is changed after it, so taking one costs nothing and rolling
// back costs what was touched, whatever the size of the block.
//
// They do not reach over IntermediateRoot, which moves changes into the tries:
// whoever holds savepoints computes the root at the end only, as every fork since
// Byzantium allows.

var (
	// ErrUnknownSavepoint: no savepoint of that depth is open.
	ErrUnknownSavepoint = errors.New("unknown savepoint")

	// ErrInTransaction: a savepoint was asked for, or rolled back, inside a transaction.
	ErrInTransaction = errors.New("state has changes that are not finalised")
)

// undoFrame is one open savepoint.
type undoFrame struct {
	accounts map[common.Address]*accountUndo
	last     *accountUndo // the one asked for last: changes come in runs on one account
	lastAddr common.Address
	logTxs   []common.Hash // transactions that logged in this frame
	logSize  uint
	thash    common.Hash
	txIndex  int
}

// accountUndo is an account as it was before its first change in a frame.
type accountUndo struct {
	obj *stateObject // nil: there was no live object

	data           types.StateAccount
	code           []byte
	dirtyCode      bool
	selfDestructed bool

	destructed bool // it was in stateObjectsDestruct
	mutation   *mutation
	slots      [][]slotUndo // in the order of the changes, in pieces that do not move; a slot can be there more than once
}

// slotUndo is a slot in the two areas that live longer than a transaction, as it was
// before one of them changed it.
type slotUndo struct {
	key                        common.Hash
	pending, uncommitted       common.Hash
	hasPending, hasUncommitted bool
}

// PushSavepoint opens a savepoint between two transactions and returns its depth,
// which is what RollbackTo and ReleaseTo take. Fails with ErrInTransaction.
func (s *StateDB) PushSavepoint() (int, error) {
	if s.journal.length() != 0 {
		return 0, ErrInTransaction
	}
	s.savepoints = append(s.savepoints, &undoFrame{
		accounts: make(map[common.Address]*accountUndo),
		logSize:  s.logSize,
		thash:    s.thash,
		txIndex:  s.txIndex,
	})
	s.journal.onAppend = s.noteEntry
	return len(s.savepoints) - 1, nil
}

// RollbackTo undoes everything since the savepoint of that depth and closes it and
// all later ones. Fails with ErrUnknownSavepoint or ErrInTransaction, without effect.
func (s *StateDB) RollbackTo(depth int) error {
	if err := s.checkSavepoint(depth); err != nil {
		return err
	}
	for len(s.savepoints) > depth {
		s.undo(s.popSavepoint())
	}
	return nil
}

// ReleaseTo closes the savepoint of that depth and all later ones and keeps the
// changes, which an earlier savepoint can still undo. Fails as RollbackTo does.
func (s *StateDB) ReleaseTo(depth int) error {
	if err := s.checkSavepoint(depth); err != nil {
		return err
	}
	for len(s.savepoints) > depth {
		if f := s.popSavepoint(); len(s.savepoints) > 0 {
			s.savepoints[len(s.savepoints)-1].absorb(f)
		}
	}
	return nil
}

func (s *StateDB) checkSavepoint(depth int) error {
	if depth < 0 || depth >= len(s.savepoints) {
		return fmt.Errorf("%w: depth %d, %d open", ErrUnknownSavepoint, depth, len(s.savepoints))
	}
	if s.journal.length() != 0 {
		return ErrInTransaction
	}
	return nil
}

func (s *StateDB) popSavepoint() *undoFrame {
	last := len(s.savepoints) - 1
	f := s.savepoints[last]
	s.savepoints[last] = nil
	s.savepoints = s.savepoints[:last]
	if last == 0 {
		s.journal.onAppend = nil // plain execution pays nothing
	}
	return f
}

// noteEntry is the journal's hook: it sees every change before it is made.
func (s *StateDB) noteEntry(entry journalEntry) {
	f := s.savepoints[len(s.savepoints)-1]
	if e, ok := entry.(addLogChange); ok {
		if n := len(f.logTxs); n == 0 || f.logTxs[n-1] != e.txhash {
			f.logTxs = append(f.logTxs, e.txhash)
		}
		return
	}
	addr, dirty := entry.dirtied()
	if !dirty {
		return
	}
	if f.account(addr) != nil {
		return
	}
	u := new(accountUndo)
	if obj := s.stateObjects[addr]; obj != nil {
		u.obj, u.data = obj, obj.data // setters replace what data points to, so a shallow copy will do
		u.code, u.dirtyCode, u.selfDestructed = obj.code, obj.dirtyCode, obj.selfDestructed
	}
	_, u.destructed = s.stateObjectsDestruct[addr]
	if m := s.mutations[addr]; m != nil {
		u.mutation = m.copy()
	}
	f.accounts[addr] = u
}

// account is what is kept of an account, nil if it has not changed in the frame.
func (f *undoFrame) account(addr common.Address) *accountUndo {
	if f.last != nil && f.lastAddr == addr {
		return f.last
	}
	u := f.accounts[addr]
	if u != nil {
		f.last, f.lastAddr = u, addr
	}
	return u
}

// noteSlot is called by stateObject.finalise before it moves a dirty slot on.
func (s *StateDB) noteSlot(obj *stateObject, key common.Hash) {
	if len(s.savepoints) == 0 {
		return
	}
	u := s.savepoints[len(s.savepoints)-1].account(obj.address)
	if u == nil || u.obj != obj {
		return // the object is younger than the savepoint: a rollback drops it whole
	}
	// Noted for every transaction that changes it, not for the first alone: to look each up costs more than
	// to keep it, and a block of 60 Mgas has gas for 12,000 (5,000 each at least).
	su := slotUndo{key: key}
	su.pending, su.hasPending = obj.pendingStorage[key]
	su.uncommitted, su.hasUncommitted = obj.uncommittedStorage[key]
	u.add(su)
}

func (u *accountUndo) add(su slotUndo) {
	last := len(u.slots) - 1
	if last < 0 || len(u.slots[last]) == cap(u.slots[last]) {
		room := 4
		if last >= 0 {
			room = min(2*cap(u.slots[last]), 256)
		}
		u.slots = append(u.slots, make([]slotUndo, 0, room))
		last++
	}
	u.slots[last] = append(u.slots[last], su)
}

func (s *StateDB) undo(f *undoFrame) {
	for addr, u := range f.accounts {
		if u.obj == nil {
			delete(s.stateObjects, addr)
		} else {
			u.restore()
			s.stateObjects[addr] = u.obj
		}
		if !u.destructed {
			delete(s.stateObjectsDestruct, addr)
		}
		if u.mutation == nil {
			delete(s.mutations, addr)
		} else {
			s.mutations[addr] = u.mutation
		}
	}
	for _, h := range f.logTxs {
		delete(s.logs, h)
	}
	s.logSize, s.thash, s.txIndex = f.logSize, f.thash, f.txIndex
}

func (u *accountUndo) restore() {
	o := u.obj
	o.data, o.code, o.dirtyCode, o.selfDestructed, o.newContract = u.data, u.code, u.dirtyCode, u.selfDestructed, false
	for _, piece := range slices.Backward(u.slots) {
		for _, su := range slices.Backward(piece) { // the first change of a slot has the last word
			if su.hasPending {
				o.pendingStorage[su.key] = su.pending
			} else {
				delete(o.pendingStorage, su.key)
			}
			if su.hasUncommitted {
				o.uncommittedStorage[su.key] = su.uncommitted
			} else {
				delete(o.uncommittedStorage, su.key)
			}
		}
	}
	// An object that was deleted in the frame left without finalise: its last
	// transaction's slots are still marked dirty.
	if len(o.dirtyStorage) > 0 {
		o.dirtyStorage = make(Storage)
	}
}

// absorb takes over the pre-images of the frame after f. Where f has its own, that
// is the older one and stays: slots are undone from the end.
func (f *undoFrame) absorb(later *undoFrame) {
	f.logTxs = append(f.logTxs, later.logTxs...)
	for addr, lu := range later.accounts {
		u := f.accounts[addr]
		if u == nil {
			f.accounts[addr] = lu
			continue
		}
		if u.obj == nil || u.obj != lu.obj {
			continue // an object made after f: f drops it whole
		}
		u.slots = append(u.slots, lu.slots...)
	}
}
