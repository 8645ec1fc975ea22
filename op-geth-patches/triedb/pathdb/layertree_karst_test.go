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
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

// A layer that is added again (a second block with the same post-state, as in
// op-supernode's rewind) must not hide its descendants from the flat lookup.
func TestReaddedLayerKeepsLookup(t *testing.T) {
	t.Parallel()
	add := func(tr *layerTree, root, parent byte) {
		t.Helper()
		err := tr.add(common.Hash{root}, common.Hash{parent}, uint64(root), NewNodeSetWithOrigin(nil, nil),
			NewStateSetWithOrigin(randomAccountSet("0xa"), nil, nil, nil, false))
		if err != nil {
			t.Fatal(err)
		}
	}
	tr := newTestLayerTree() // base = 0x1
	add(tr, 2, 1)
	before := tr.get(common.Hash{2})
	add(tr, 3, 2)
	add(tr, 2, 1) // the copy of block 2
	l, err := tr.lookupAccount(common.HexToHash("0xa"), common.Hash{3})
	if err != nil {
		t.Fatal(err)
	}
	if l.rootHash() != (common.Hash{3}) {
		t.Fatalf("account at state 3 is read from state %x", l.rootHash())
	}
	if tr.get(common.Hash{2}) != before || tr.len() != 3 {
		t.Fatal("the layer was linked a second time")
	}
}
