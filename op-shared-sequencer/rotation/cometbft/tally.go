package cometbft

import (
	"sync"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
)

// Tally counts what an operator has done at the heights that this process has seen agreed
// on, the newest one aside: its votes come with the next.
type Tally struct {
	Led    uint64 // heights with its subblock
	Passed uint64 // turns in which it did not deliver
	Voted  uint64 // heights agreed on with its vote
	Last   uint64 // the last height with its vote; 0: none seen
}

// tallies are those of all who vote. They are for people: nothing follows from them.
type tallies struct {
	mu      sync.Mutex
	of      map[voter]Tally
	heights uint64 // counted
	leader  voter  // of the height counted last
	round   int32  // in which that was agreed on
}

// count takes the votes for the block of the state before into account.
func (t *tallies) count(before *state, commit abci.CommitInfo) {
	missed, _ := missedTurns(before, commit)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[voter]Tally{}
	}
	t.heights++
	t.leader, t.round = before.creator, commit.Round
	for _, v := range commit.Votes {
		who := voter(v.Validator.Address)
		n := t.of[who]
		if who == before.creator {
			n.Led++
		}
		if missed[who] {
			n.Passed++
		}
		if v.BlockIdFlag != cmtproto.BlockIDFlagAbsent {
			n.Voted++
			n.Last = before.height
		}
		t.of[who] = n
	}
	for who := range t.of {
		if !before.last.HasAddress(who[:]) && !before.now.HasAddress(who[:]) {
			delete(t.of, who)
		}
	}
}

func (t *tallies) get(who voter) Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[who]
}

func (t *tallies) counted() (heights uint64, leader voter, round int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heights, t.leader, t.round
}
