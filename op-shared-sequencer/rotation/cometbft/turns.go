package cometbft

import (
	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
)

// turn is how an operator delivers. It follows from agreed blocks only: who made them, in
// which round they were agreed on, and whose votes are with them.
//
// Who misses its turn several times in a row has its turns shortened, so that it does not
// cost a timeout each time. It has them back when it has voted for a while, on probation:
// one more miss shortens them again, and for longer. A subblock of its own that is agreed
// on ends the probation. Timeouts do not touch safety, so neither does this.
type turn struct {
	Missed uint64 // turns in a row
	Signed uint64 // heights in a row with its vote, while its turns are shortened
	Needed uint64 // such heights until it has its turns back; 0 stands for the rule's
	Short  bool
}

// maxSignsFactor bounds how much longer the wait for its turns can get.
const maxSignsFactor = 64

// maxRounds is how many rounds of a height are looked at for missed turns.
const maxRounds = 64

// missedTurns are those who had their turn at the state's height and did not deliver, with
// their power.
func missedTurns(at *state, commit abci.CommitInfo) (missed map[voter]bool, power int64) {
	missed = map[voter]bool{}
	vals := at.last.Copy()
	for round := int32(0); round < min(commit.Round, maxRounds); round++ {
		if v := vals.GetProposer(); voter(v.Address) != at.creator && !missed[voter(v.Address)] {
			missed[voter(v.Address)] = true
			power += v.VotingPower
		}
		vals.IncrementProposerPriority(1)
	}
	return missed, power
}

// settleTurns takes the votes for the block of the state before into account. They are
// agreed on only with the block behind it. It returns who missed its turn.
func (s *state) settleTurns(before *state, commit abci.CommitInfo, rules Timeouts) (missers []voter) {
	missed, power := missedTurns(before, commit)
	vals := before.last
	// When more missed their turns than may be faulty, the height says nothing about anybody:
	// there was nothing to propose, or no quorum.
	all := power > vals.TotalVotingPower()/3
	signed := map[voter]bool{}
	for _, v := range commit.Votes {
		signed[voter(v.Validator.Address)] = v.BlockIdFlag != cmtproto.BlockIDFlagAbsent
	}
	for _, val := range vals.Validators {
		v := voter(val.Address)
		t := s.turns[v]
		switch {
		case v == before.creator:
			t = turn{}
		case missed[v] && !all:
			t.Missed++
			missers = append(missers, v)
			if !t.Short && t.Missed >= rules.Misses {
				t.Short, t.Signed = true, 0
				t.Needed = min(max(2*t.Needed, rules.Signs), maxSignsFactor*rules.Signs)
			}
		}
		if t.Short {
			if t.Signed++; !signed[v] {
				t.Signed = 0
			}
			if t.Signed >= t.Needed {
				t.Short, t.Signed, t.Missed = false, 0, rules.Misses-1
			}
		}
		s.turns[v] = t
	}
	return missers
}

// keepTurns forgets who does not vote any more.
func (s *state) keepTurns() {
	for v := range s.turns {
		if !s.now.HasAddress(v[:]) && !s.next.HasAddress(v[:]) {
			delete(s.turns, v)
		}
	}
}

// shortened are the voters whose turns are.
func (s *state) shortened() int {
	n := 0
	for _, t := range s.turns {
		if t.Short {
			n++
		}
	}
	return n
}
