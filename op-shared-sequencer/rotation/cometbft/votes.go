package cometbft

import (
	"slices"
	"time"

	"github.com/cometbft/cometbft/types"
)

// name is an operator's, for people; its address if it has none any more.
func (s *state) name(v voter) string {
	at := s.operator(v)
	if o, ok := s.set.Operator(at); ok {
		return o.Name
	}
	return at.Hex()
}

// tellVotes tells the metrics who voted for the block, and who missed its turn before.
func (a *app) tellVotes(b *block, seen *types.Commit) {
	s := b.state
	if s.last == nil || s.last.Size() != len(seen.Signatures) {
		return // as it cannot be: it was verified
	}
	v := Votes{Leader: s.name(s.creator), Own: true, Offsets: map[string]time.Duration{}}
	var times []time.Time
	for i, sig := range seen.Signatures {
		val := s.last.Validators[i]
		who := voter(val.Address)
		v.Power += uint64(val.VotingPower)
		if sig.BlockIDFlag == types.BlockIDFlagCommit {
			v.Voted += uint64(val.VotingPower)
			times = append(times, sig.Timestamp)
			continue
		}
		v.Missing = append(v.Missing, s.name(who))
		v.Own = v.Own && who != a.self
	}
	slices.SortFunc(times, time.Time.Compare)
	for i, sig := range seen.Signatures {
		if sig.BlockIDFlag == types.BlockIDFlagCommit {
			v.Offsets[s.name(voter(s.last.Validators[i].Address))] = sig.Timestamp.Sub(times[len(times)/2])
		}
	}
	a.cfg.Metrics.Votes(v)
	for _, who := range b.missed {
		a.cfg.Metrics.TurnMissed(s.name(who))
	}
}
