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

package trienode

import (
	"maps"
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

// Room changes nothing of what a set has.
func TestReserve(t *testing.T) {
	sets := [2]*NodeSet{NewNodeSet(common.Hash{1}), NewNodeSet(common.Hash{1})}
	for i, set := range sets {
		set.AddNode([]byte{1}, NewNodeWithPrev(common.Hash{2}, []byte{3}, []byte{4}))
		set.AddNode([]byte{5}, NewDeletedWithPrev([]byte{6}))
		if i == 1 {
			set.Reserve(1000)
		}
		set.AddNode([]byte{1, 2}, NewNodeWithPrev(common.Hash{7}, []byte{8}, nil))
	}
	same := maps.EqualFunc(sets[0].Nodes, sets[1].Nodes, func(a, b *Node) bool { return a.Hash == b.Hash && string(a.Blob) == string(b.Blob) })
	if !same || !maps.EqualFunc(sets[0].Origins, sets[1].Origins, func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Fatalf("%v and %v, %v and %v", sets[0].Nodes, sets[1].Nodes, sets[0].Origins, sets[1].Origins)
	}
	updates, deletes := sets[1].Size()
	if updates != 2 || deletes != 1 {
		t.Fatalf("%d updates and %d deletes", updates, deletes)
	}
}

// With room for them, nodes are put into a set with less than half of the allocations.
func TestReserveRoom(t *testing.T) {
	nodes, origins := map[string]*Node{}, map[string][]byte{}
	for i := range 1000 {
		path := string([]byte{byte(i >> 8), byte(i)})
		nodes[path], origins[path] = new(Node), nil
	}
	allocations := func(room int) float64 {
		return testing.AllocsPerRun(10, func() {
			set := NewNodeSet(common.Hash{})
			set.Reserve(room)
			maps.Copy(set.Nodes, nodes)
			maps.Copy(set.Origins, origins)
		})
	}
	if none, with := allocations(0), allocations(len(nodes)); with > none/2 {
		t.Fatalf("%v allocations without room, %v with it", none, with)
	}
}
