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
	"hash/maphash"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/trie/trienode"
)

// nodeFilter is a Bloom filter over the trie nodes of a layer, 3 bits each within one
// word (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters",
// 2007, section 3.1). A node is looked for in up to 128 layers one after the other, and
// most do not have it: map lookups in each become a look at one word. A node takes 16 to
// 32 bits, which Database.Size does not count; of absent nodes, one in a hundred at most
// is taken for present.
type nodeFilter []uint64

// filterSeed keeps it unknown which nodes share bits.
var filterSeed = maphash.MakeSeed()

func newNodeFilter(s *nodeSet) nodeFilter {
	n := len(s.accountNodes)
	for _, subset := range s.storageNodes {
		n += len(subset)
	}
	words := 1
	for words*64 < n*16 {
		words *= 2
	}
	f := make(nodeFilter, words)
	add := func(owner common.Hash, nodes map[string]*trienode.Node) {
		salt := ownerSalt(owner)
		for path := range nodes {
			f.add(maphash.String(filterSeed, path) ^ salt)
		}
	}
	add(common.Hash{}, s.accountNodes)
	for owner, subset := range s.storageNodes {
		add(owner, subset)
	}
	return f
}

// filterHash is what stands for a node in the filters of all layers.
func filterHash(owner common.Hash, path []byte) uint64 {
	return maphash.Bytes(filterSeed, path) ^ ownerSalt(owner)
}

// ownerSalt tells the same path in two tries apart.
func ownerSalt(owner common.Hash) uint64 { return maphash.Bytes(filterSeed, owner[:]) }

func filterBits(hash uint64) uint64 {
	return 1<<(hash&63) | 1<<(hash>>6&63) | 1<<(hash>>12&63)
}

func (f nodeFilter) add(hash uint64) {
	f[hash>>32&uint64(len(f)-1)] |= filterBits(hash)
}

// mayHave is false only if no node with that hash was added.
func (f nodeFilter) mayHave(hash uint64) bool {
	bits := filterBits(hash)
	return f[hash>>32&uint64(len(f)-1)]&bits == bits
}

// filteredNode is node for whoever has the node's hash. As node does, it holds the lock
// of each layer on the way, so that no parent is replaced meanwhile.
func (dl *diffLayer) filteredNode(owner common.Hash, path []byte, hash uint64, depth int) ([]byte, common.Hash, nodeLoc, error) {
	if dl.filter.mayHave(hash) {
		return dl.node(owner, path, depth)
	}
	dl.lock.RLock()
	defer dl.lock.RUnlock()

	if parent, ok := dl.parent.(*diffLayer); ok {
		return parent.filteredNode(owner, path, hash, depth+1)
	}
	return dl.parent.node(owner, path, depth+1)
}
