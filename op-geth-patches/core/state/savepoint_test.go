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
	"maps"
	"math/rand"
	"os"
	"reflect"
	"strconv"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/tracing"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/triedb"
	"github.com/holiman/uint256"
)

// SAVEPOINT_HISTORIES is the number of random histories TestSavepointHistories
// runs. A release is checked with 20000.
const historiesEnv = "SAVEPOINT_HISTORIES"

// source is what a history is drawn from: a seeded generator, or a fuzzer's bytes.
type source interface{ Intn(n int) int }

// byteSource draws from a byte string and answers 0 when that is used up.
type byteSource struct{ data []byte }

func (s *byteSource) Intn(n int) int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b) % n
}

var savepointAddrs = func() (addrs []common.Address) {
	for i := range 6 {
		addrs = append(addrs, common.Address{byte(i + 1)})
	}
	return addrs
}()

// randomTx makes one transaction's changes, with nested snapshots that are reverted
// as a call's are. Now and then it is an invalid one, which leaves nothing.
func randomTx(r source, s *StateDB, n *int) {
	hash := common.BigToHash(uint256.NewInt(uint64(*n + 1)).ToBig())
	s.SetTxContext(hash, *n)
	s.Prepare(params.Rules{IsBerlin: true, IsShanghai: true}, savepointAddrs[0], savepointAddrs[0], nil, nil, nil)
	whole := s.Snapshot()
	var snaps []int
	for k := 0; k < 1+r.Intn(12); k++ {
		a := savepointAddrs[r.Intn(len(savepointAddrs))]
		switch r.Intn(12) {
		case 0:
			s.AddBalance(a, uint256.NewInt(uint64(r.Intn(3))), tracing.BalanceChangeUnspecified)
		case 1:
			if s.Exist(a) && s.GetBalance(a).Uint64() > 2 {
				s.SubBalance(a, uint256.NewInt(uint64(r.Intn(2))), tracing.BalanceChangeUnspecified)
			}
		case 2:
			s.SetNonce(a, uint64(r.Intn(5)), tracing.NonceChangeUnspecified)
		case 3, 4, 5:
			s.SetState(a, common.Hash{byte(r.Intn(6))}, common.Hash{byte(r.Intn(4))})
		case 6:
			s.SetCode(a, []byte{byte(r.Intn(3)), 1}, tracing.CodeChangeUnspecified)
		case 7:
			if !s.Exist(a) {
				s.CreateAccount(a)
			}
			s.CreateContract(a)
			s.SetNonce(a, 1, tracing.NonceChangeUnspecified)
		case 8:
			s.SelfDestruct(a) // also of old accounts: harsher than EIP-6780
		case 9:
			s.AddLog(&types.Log{Address: a, Data: []byte{byte(k)}})
		case 10:
			snaps = append(snaps, s.Snapshot())
		case 11:
			if len(snaps) > 0 {
				i := r.Intn(len(snaps))
				s.RevertToSnapshot(snaps[i])
				snaps = snaps[:i]
			}
		}
	}
	if r.Intn(8) == 0 {
		s.RevertToSnapshot(whole)
		return
	}
	s.Finalise(true)
	*n++
}

// sameState compares everything a later transaction, the root or the commit can
// see. It works on copies where looking would change something.
func sameState(got, want *StateDB) error {
	if got.logSize != want.logSize || !reflect.DeepEqual(got.logs, want.logs) {
		return fmt.Errorf("logs: %v, want %v", got.logs, want.logs)
	}
	if got.thash != want.thash || got.txIndex != want.txIndex {
		return fmt.Errorf("transaction context: %x %d, want %x %d", got.thash, got.txIndex, want.thash, want.txIndex)
	}
	if len(got.stateObjectsDestruct) != len(want.stateObjectsDestruct) {
		return fmt.Errorf("destructed: %d, want %d", len(got.stateObjectsDestruct), len(want.stateObjectsDestruct))
	}
	if !maps.EqualFunc(got.mutations, want.mutations, func(a, b *mutation) bool { return *a == *b }) {
		return fmt.Errorf("mutations: %v, want %v", got.mutations, want.mutations)
	}
	if a, b := got.Copy().IntermediateRoot(true), want.Copy().IntermediateRoot(true); a != b {
		return fmt.Errorf("root: %x, want %x", a, b)
	}
	for _, addr := range savepointAddrs {
		for q := range 6 {
			k := common.Hash{byte(q)}
			if got.GetState(addr, k) != want.GetState(addr, k) || got.GetCommittedState(addr, k) != want.GetCommittedState(addr, k) {
				return fmt.Errorf("slot %d of %x: %x, want %x", q, addr, got.GetState(addr, k), want.GetState(addr, k))
			}
		}
		if got.Exist(addr) != want.Exist(addr) || got.GetNonce(addr) != want.GetNonce(addr) ||
			!got.GetBalance(addr).Eq(want.GetBalance(addr)) || got.GetCodeHash(addr) != want.GetCodeHash(addr) {
			return fmt.Errorf("account %x differs", addr)
		}
	}
	return nil
}

// runHistory plays transactions, savepoints, rollbacks and releases in an order
// drawn from r. A copy of the state taken with each savepoint is what a rollback
// to it must give.
func runHistory(r source, prefetch bool) error {
	db := NewDatabase(triedb.NewDatabase(rawdb.NewMemoryDatabase(), triedb.HashDefaults), nil)
	s, err := New(types.EmptyRootHash, db)
	if err != nil {
		return err
	}
	n := 0
	for range 4 {
		randomTx(r, s, &n)
	}
	root, err := s.Commit(0, true, false)
	if err != nil {
		return err
	}
	if s, err = New(root, db); err != nil {
		return err
	}
	if prefetch {
		s.StartPrefetcher("savepoint", nil)
		defer s.StopPrefetcher()
	}
	type point struct {
		depth, n int
		copy     *StateDB
	}
	var points []point
	n = 0
	for range 25 {
		switch r.Intn(6) {
		case 0:
			p := point{n: n, copy: s.Copy()}
			if p.depth, err = s.PushSavepoint(); err != nil {
				return err
			}
			points = append(points, p)
		case 1:
			if len(points) > 0 {
				k := r.Intn(len(points))
				if err := s.RollbackTo(points[k].depth); err != nil {
					return err
				}
				if err := sameState(s, points[k].copy); err != nil {
					return fmt.Errorf("after rollback to %d of %d: %w", k, len(points), err)
				}
				n, points = points[k].n, points[:k]
			}
		case 2:
			if len(points) > 0 {
				k := r.Intn(len(points))
				if err := s.ReleaseTo(points[k].depth); err != nil {
					return err
				}
				points = points[:k]
			}
		default:
			randomTx(r, s, &n)
		}
	}
	// What is committed does not depend on the savepoints still open.
	c := s.Copy()
	got, err := s.Commit(1, true, false)
	if err != nil {
		return err
	}
	want, err := c.Commit(1, true, false)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("committed %x, want %x", got, want)
	}
	return nil
}

func TestSavepointHistories(t *testing.T) {
	t.Parallel()
	count := 2000
	if s := os.Getenv(historiesEnv); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", historiesEnv, err)
		}
	}
	if testing.Short() {
		count = min(count, 200)
	}
	for seed := range count {
		if err := runHistory(rand.New(rand.NewSource(int64(seed))), seed%2 == 0); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzSavepoint(f *testing.F) {
	for seed := range 8 {
		data := make([]byte, 600)
		rand.New(rand.NewSource(int64(seed))).Read(data)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := runHistory(&byteSource{data}, false); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSavepointMisuse(t *testing.T) {
	t.Parallel()
	s, err := New(types.EmptyRootHash, NewDatabaseForTesting())
	if err != nil {
		t.Fatal(err)
	}
	for _, depth := range []int{-1, 0, 1} {
		if err := s.RollbackTo(depth); !errors.Is(err, ErrUnknownSavepoint) {
			t.Errorf("rollback to %d: %v", depth, err)
		}
		if err := s.ReleaseTo(depth); !errors.Is(err, ErrUnknownSavepoint) {
			t.Errorf("release to %d: %v", depth, err)
		}
	}
	depth, err := s.PushSavepoint()
	if err != nil {
		t.Fatal(err)
	}
	s.SetNonce(savepointAddrs[0], 1, tracing.NonceChangeUnspecified)
	if _, err := s.PushSavepoint(); !errors.Is(err, ErrInTransaction) {
		t.Errorf("push inside a transaction: %v", err)
	}
	if err := s.RollbackTo(depth); !errors.Is(err, ErrInTransaction) {
		t.Errorf("rollback inside a transaction: %v", err)
	}
	s.Finalise(true)
	if err := s.RollbackTo(depth); err != nil {
		t.Fatal(err)
	}
	if s.Exist(savepointAddrs[0]) {
		t.Error("account is still there")
	}
	if s.journal.onAppend != nil {
		t.Error("journal is watched with no savepoint open")
	}
}

// BenchmarkSavepoint shows that the cost does not grow with the block: it is the
// same after 100 transactions and after 10,000.
func BenchmarkSavepoint(b *testing.B) {
	for _, dirty := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("dirty=%d", dirty), func(b *testing.B) {
			s, err := New(types.EmptyRootHash, NewDatabaseForTesting())
			if err != nil {
				b.Fatal(err)
			}
			for i := range dirty {
				s.SetNonce(common.BigToAddress(uint256.NewInt(uint64(i+1000)).ToBig()), 1, tracing.NonceChangeUnspecified)
				s.Finalise(true)
			}
			for b.Loop() {
				depth, err := s.PushSavepoint()
				if err != nil {
					b.Fatal(err)
				}
				for _, a := range savepointAddrs[:4] {
					s.SetNonce(a, 1, tracing.NonceChangeUnspecified)
					s.SetState(a, common.Hash{1}, common.Hash{2})
				}
				s.Finalise(true)
				if err := s.RollbackTo(depth); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSavepointManySlots writes more slots of one account than a piece of the list holds, some of
// them again and again, below savepoints that are released into each other.
func TestSavepointManySlots(t *testing.T) {
	t.Parallel()
	db := NewDatabaseForTesting()
	s, err := New(types.EmptyRootHash, db)
	if err != nil {
		t.Fatal(err)
	}
	s.SetNonce(savepointAddrs[0], 1, tracing.NonceChangeUnspecified)
	s.SetState(savepointAddrs[0], common.Hash{31: 1}, common.Hash{1})
	root, err := s.Commit(0, true, false)
	if err != nil {
		t.Fatal(err)
	}
	const keys = 700
	r := rand.New(rand.NewSource(1))
	key := func(i int) common.Hash { return common.BigToHash(uint256.NewInt(uint64(i)).ToBig()) }
	type view struct {
		values [keys][2]common.Hash
		root   common.Hash // of what is not in the trie yet
	}
	all := func(s *StateDB) (v view) {
		for i := range v.values {
			v.values[i] = [2]common.Hash{s.GetState(savepointAddrs[0], key(i)), s.GetCommittedState(savepointAddrs[0], key(i))}
		}
		v.root = s.Copy().IntermediateRoot(true)
		return v
	}
	for round := range 20 {
		if s, err = New(root, db); err != nil {
			t.Fatal(err)
		}
		write := func() {
			for range r.Intn(600) {
				k := r.Intn(keys)
				if r.Intn(2) == 0 {
					k %= 5
				}
				s.SetState(savepointAddrs[0], key(k), common.Hash{byte(r.Intn(3))})
				if r.Intn(4) == 0 {
					s.Finalise(true)
				}
			}
			s.Finalise(true)
		}
		var before [3]view
		for depth := range before {
			write()
			before[depth] = all(s)
			if _, err := s.PushSavepoint(); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // a fourth one, of which the third takes over what is kept
			write()
			depth, err := s.PushSavepoint()
			if err != nil {
				t.Fatal(err)
			}
			write()
			if err := s.ReleaseTo(depth); err != nil {
				t.Fatal(err)
			}
		}
		write()
		for _, depth := range []int{2, 1, 0}[round%3:] {
			if err := s.RollbackTo(depth); err != nil {
				t.Fatal(err)
			}
			if all(s) != before[depth] {
				t.Fatalf("round %d: another state after a rollback to savepoint %d", round, depth)
			}
		}
	}
}

// BenchmarkSavepointSlots shows what an open savepoint adds to a block that does nothing but write
// slots: 66 transactions that write 40 each, new ones or the same ones.
func BenchmarkSavepointSlots(b *testing.B) {
	for _, same := range []bool{false, true} {
		for _, open := range []bool{false, true} {
			b.Run(fmt.Sprintf("same=%t/open=%t", same, open), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s, err := New(types.EmptyRootHash, NewDatabaseForTesting())
					if err != nil {
						b.Fatal(err)
					}
					s.SetNonce(savepointAddrs[0], 1, tracing.NonceChangeUnspecified)
					s.Finalise(true)
					if open {
						if _, err := s.PushSavepoint(); err != nil {
							b.Fatal(err)
						}
					}
					for i := range 66 * 40 {
						value := common.BigToHash(uint256.NewInt(uint64(i + 1)).ToBig())
						key := value
						if same {
							key = common.Hash{byte(i % 40)}
						}
						s.SetState(savepointAddrs[0], key, value)
						if i%40 == 39 {
							s.Finalise(true)
						}
					}
				}
			})
		}
	}
}
