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

package miner

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/txpool"
	"github.com/holiman/uint256"
)

// Order is a rule for the order in which a Fill tries the pool's transactions. Those of one
// sender are tried in the order of their nonces under any rule.
type Order interface {
	// groups divides what the pool offers, lists by sender that ascend by nonce. The groups are
	// tried one after the other, each in the stock builder's order: by effective tip, then by
	// the time of arrival. It may change the map, and not what the lists point to.
	groups(pending senders, prio []common.Address) []senders
}

// senders are what the pool offers.
type senders = map[common.Address][]*txpool.LazyTransaction

var (
	// Priority is the stock builder's order: by effective tip, and what the node's priority
	// accounts sent before all others'.
	Priority Order = priority{}
	// FCFS (first come, first served) is by the time at which this node's pool took a
	// transaction in, equal times by hash. Tips do not count, priority accounts have no
	// privilege, and a transaction that replaces another arrives anew.
	FCFS Order = fcfs{}
)

// ErrUnknownOrder: there is no rule with that name.
var ErrUnknownOrder = errors.New("unknown order")

// ParseOrder gives the rule with a name: priority or fcfs; Priority without one.
func ParseOrder(name string) (Order, error) {
	switch name {
	case "", "priority":
		return Priority, nil
	case "fcfs":
		return FCFS, nil
	}
	return nil, fmt.Errorf("%w %q: expected priority or fcfs", ErrUnknownOrder, name)
}

type priority struct{}

func (priority) groups(pending senders, prio []common.Address) []senders {
	first := make(senders)
	for _, from := range prio {
		if list := pending[from]; len(list) > 0 {
			first[from] = list
			delete(pending, from)
		}
	}
	return []senders{first, pending}
}

type fcfs struct{}

// groups makes all tips equal, so that the stock builder's heap, which looks at the time
// next, has the order of arrival. It would leave open which of two with the same time is
// first, so the times become places in that order.
func (fcfs) groups(pending senders, _ []common.Address) []senders {
	var all []*txpool.LazyTransaction
	tip := new(uint256.Int)
	for from, list := range pending {
		copies := make([]*txpool.LazyTransaction, len(list))
		for i, tx := range list {
			c := *tx
			c.GasTipCap = tip
			copies[i] = &c
		}
		pending[from] = copies
		all = append(all, copies...)
	}
	slices.SortFunc(all, func(a, b *txpool.LazyTransaction) int {
		return cmp.Or(a.Time.Compare(b.Time), a.Hash.Cmp(b.Hash))
	})
	for place, tx := range all {
		tx.Time = time.Unix(0, int64(place))
	}
	return []senders{pending}
}
