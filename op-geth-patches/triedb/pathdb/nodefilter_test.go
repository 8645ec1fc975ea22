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

package pathdb

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/trie/trienode"
)

// walk looks a node up in the layers one after the other, without filters.
func walk(l layer, owner common.Hash, path []byte) (*trienode.Node, int, bool) {
	depth := 0
	for {
		dl, ok := l.(*diffLayer)
		if !ok {
			return nil, depth, false
		}
		if n, ok := dl.nodes.node(owner, path); ok {
			return n, depth, true
		}
		l = dl.parentLayer()
		depth++
	}
}

type nodeKey struct {
	owner common.Hash
	path  string
}

// randomLayers puts layers on top of an empty one, each with nodes of the account trie and
// of a few storage tries, some of them deleted, and gives the keys of all.
func randomLayers(r *rand.Rand, layers, nodes int) (layer, []nodeKey) {
	owners := []common.Hash{{}, crypto.Keccak256Hash([]byte{1}), crypto.Keccak256Hash([]byte{2}), {1}}
	var (
		top  layer = emptyLayer()
		keys []nodeKey
	)
	for range layers {
		set := make(map[common.Hash]map[string]*trienode.Node)
		for range r.Intn(nodes + 1) {
			k := nodeKey{owners[r.Intn(len(owners))], string(nibbles(r, r.Intn(8)))}
			if len(keys) > 0 && r.Intn(3) == 0 { // one that another layer has
				k = keys[r.Intn(len(keys))]
			}
			n := trienode.NewDeleted()
			if r.Intn(5) > 0 {
				blob := make([]byte, 40)
				r.Read(blob)
				n = trienode.New(crypto.Keccak256Hash(blob), blob)
			}
			if set[k.owner] == nil {
				set[k.owner] = make(map[string]*trienode.Node)
			}
			set[k.owner][k.path] = n
			keys = append(keys, k)
		}
		top = newDiffLayer(top, common.Hash{}, 0, 0, NewNodeSetWithOrigin(set, nil), NewStateSetWithOrigin(nil, nil, nil, nil, false))
	}
	return top, keys
}

// nibbles are a path of that length: short ones are in many layers, long ones are of their own kind.
func nibbles(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Intn(16))
	}
	return p
}

func TestNodeFilter(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 50 {
		top, keys := randomLayers(r, 1+r.Intn(30), r.Intn(200))
		for range 500 { // most of them are nowhere
			keys = append(keys, nodeKey{common.Hash{byte(r.Intn(2))}, string(nibbles(r, r.Intn(8)))})
		}
		for _, k := range keys {
			want, depth, found := walk(top, k.owner, []byte(k.path))
			blob, hash, loc, err := top.node(k.owner, []byte(k.path), 0)
			if err != nil {
				t.Fatal(err)
			}
			if loc.depth != depth {
				t.Fatalf("node %x of %x: found %d layers down, want %d", k.path, k.owner, loc.depth, depth)
			}
			if found && (loc.loc != locDiffLayer || hash != want.Hash || !bytes.Equal(blob, want.Blob)) {
				t.Fatalf("node %x of %x: %v %x, want %x", k.path, k.owner, loc, hash, want.Hash)
			}
			if !found && loc.loc == locDiffLayer {
				t.Fatalf("node %x of %x: %v, want none", k.path, k.owner, loc)
			}
		}
	}
}

// TestNodeFilterRejects: nothing would fail if filters let everything through.
func TestNodeFilterRejects(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for _, n := range []int{1, 100, 1000, 4097} {
		set := make(map[string]*trienode.Node)
		for len(set) < n {
			set[string(nibbles(r, 12))] = trienode.NewDeleted()
		}
		owner := crypto.Keccak256Hash([]byte{1})
		f := newNodeFilter(newNodeSet(map[common.Hash]map[string]*trienode.Node{owner: set}))
		for path := range set {
			if !f.mayHave(filterHash(owner, []byte(path))) {
				t.Fatalf("%d nodes: one is rejected", n)
			}
		}
		const probes = 20_000
		taken := 0
		for range probes {
			if p := nibbles(r, 12); set[string(p)] == nil && f.mayHave(filterHash(owner, p)) {
				taken++
			}
		}
		if taken > probes/50 {
			t.Errorf("%d nodes: %d of %d absent ones are taken for present", n, taken, probes)
		}
	}
}

// TestNodeFilterStale: a node that only the disk layer can have is refused when that one
// has been replaced, as without filters.
func TestNodeFilterStale(t *testing.T) {
	top, _ := randomLayers(rand.New(rand.NewSource(3)), 3, 50)
	l := top
	for {
		dl, ok := l.(*diffLayer)
		if !ok {
			break
		}
		l = dl.parentLayer()
	}
	l.(*diskLayer).markStale()
	if _, _, _, err := top.node(common.Hash{9}, []byte{1, 2, 3}, 0); !errors.Is(err, errSnapshotStale) {
		t.Fatalf("error %v, want %v", err, errSnapshotStale)
	}
}

// TestNodeFilterReaders reads nodes of older layers while blocks are stored, and the oldest
// layers merged.
func TestNodeFilterReaders(t *testing.T) {
	defer func(layers int) { maxDiffLayers = layers }(maxDiffLayers)
	maxDiffLayers = 8
	env := newTester(t, &testerConfig{layers: 12})
	defer env.release()

	// read looks up, in a random state, a node that a layer below it has changed, and tells how
	// many layers down it was.
	read := func(r *rand.Rand) (int, error) {
		var states []*diffLayer
		env.db.tree.forEach(func(l layer) {
			if dl, ok := l.(*diffLayer); ok {
				states = append(states, dl)
			}
		})
		state := states[r.Intn(len(states))]
		from := state
		for range r.Intn(maxDiffLayers) {
			if parent, ok := from.parentLayer().(*diffLayer); ok {
				from = parent
			}
		}
		var key nodeKey
		for owner, subset := range from.nodes.storageNodes {
			for path := range subset {
				key = nodeKey{owner, path}
				break
			}
			break
		}
		if r.Intn(2) == 0 {
			for path := range from.nodes.accountNodes {
				key = nodeKey{path: path}
				break
			}
		}
		want, _, found := walk(state, key.owner, []byte(key.path))
		if !found || len(want.Blob) == 0 {
			return 0, nil // merged meanwhile, or deleted
		}
		blob, hash, loc, err := state.node(key.owner, []byte(key.path), 0)
		if errors.Is(err, errSnapshotStale) {
			return 0, nil
		}
		if err == nil && (hash != want.Hash || !bytes.Equal(blob, want.Blob)) {
			err = fmt.Errorf("node %x of %x: %x, want %x", key.path, key.owner, hash, want.Hash)
		}
		return loc.depth, err
	}
	stop := make(chan struct{})
	var (
		wg   sync.WaitGroup
		deep atomic.Int64
	)
	for seed := range int64(2) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewSource(seed))
			for {
				select {
				case <-stop:
					return
				default:
				}
				depth, err := read(r)
				if err != nil {
					t.Error(err)
					return
				}
				if depth > 1 {
					deep.Add(1)
				}
			}
		}()
	}
	env.extend(60)
	close(stop)
	wg.Wait()
	if deep.Load() == 0 {
		t.Error("no node was found below the second layer")
	}
}

// BenchmarkNodeFilter looks for nodes of one storage trie in 128 layers of 3,000, each
// somewhere in them, with filters and without.
func BenchmarkNodeFilter(b *testing.B) {
	var (
		r           = rand.New(rand.NewSource(4))
		owner       = crypto.Keccak256Hash([]byte{1})
		top   layer = emptyLayer()
		paths []string
	)
	for range 128 {
		set := make(map[string]*trienode.Node)
		for range 3000 {
			p := string(nibbles(r, 12))
			set[p] = trienode.NewDeleted()
			paths = append(paths, p)
		}
		nodes := NewNodeSetWithOrigin(map[common.Hash]map[string]*trienode.Node{owner: set}, nil)
		top = newDiffLayer(top, common.Hash{}, 0, 0, nodes, NewStateSetWithOrigin(nil, nil, nil, nil, false))
	}
	b.Run("filtered", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, _, loc, _ := top.node(owner, []byte(paths[i*7919%len(paths)]), 0); loc.loc != locDiffLayer {
				b.Fatal("not found")
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, _, ok := walk(top, owner, []byte(paths[i*7919%len(paths)])); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("make", func(b *testing.B) {
		for b.Loop() {
			newNodeFilter(top.(*diffLayer).nodes.nodeSet)
		}
	})
}
