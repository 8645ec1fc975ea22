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

package trie

import (
	"sync"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/trie/trienode"
)

// loaded is how many nodes were read: about as many as a commit stores, which are those on the
// way to what has changed. There can be more, of what was read only or undone, so it is for
// sets that are not kept.
func (t *PrevalueTracer) loaded() int {
	t.lock.RLock()
	defer t.lock.RUnlock()

	return len(t.data)
}

// room makes room in a set for what the children of a node, committed in parallel, have together.
type room struct {
	children sync.WaitGroup // those that are committed yet
	nodes    atomic.Int64   // of those that are done
	once     sync.Once
}

// newRoom is for the children of n that commitChildren commits; nil if not in parallel.
func newRoom(n *fullNode, parallel bool) *room {
	if !parallel {
		return nil
	}
	r := new(room)
	for _, child := range n.Children[:16] {
		if _, hashed := child.(hashNode); child != nil && !hashed {
			r.children.Add(1)
		}
	}
	return r
}

// reserve is called with the nodes of each child, and waits for all.
func (r *room) reserve(set, child *trienode.NodeSet) {
	r.nodes.Add(int64(len(child.Nodes)))
	r.children.Done()
	r.children.Wait()
	r.once.Do(func() { set.Reserve(int(r.nodes.Load())) })
}
