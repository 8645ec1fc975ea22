package cometbft

import (
	"fmt"
	"slices"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// maxReadyBytes is above the longest encoding: nine bytes for a chain, and the list's head.
const maxReadyBytes = 9*operators.MaxChains + 4

// encodeReady writes the chains that an operator is ready for, as they are in its votes.
// Chains above the limit are left out.
func encodeReady(chains []sequence.ChainID) []byte {
	chains = slices.Clone(chains)
	slices.Sort(chains)
	chains = slices.Compact(chains)
	enc, err := rlp.EncodeToBytes(chains[:min(len(chains), operators.MaxChains)])
	if err != nil { // numbers have an RLP form
		panic(err)
	}
	return enc
}

// decodeReady reads what encodeReady wrote.
func decodeReady(data []byte) ([]sequence.ChainID, error) {
	if len(data) > maxReadyBytes {
		return nil, fmt.Errorf("%d bytes of ready chains, at most %d", len(data), maxReadyBytes)
	}
	var chains []sequence.ChainID
	if err := rlp.DecodeBytes(data, &chains); err != nil {
		return nil, fmt.Errorf("ready chains: %w", err)
	}
	if len(chains) > operators.MaxChains {
		return nil, fmt.Errorf("%d ready chains, at most %d", len(chains), operators.MaxChains)
	}
	for i := 1; i < len(chains); i++ {
		if chains[i-1] >= chains[i] {
			return nil, fmt.Errorf("ready chains are not ascending: %s is before %s", chains[i-1], chains[i])
		}
	}
	return chains, nil
}

// vote is an operator's vote for a block, as far as readiness goes.
type vote struct {
	power int64
	ready []byte // empty if it did not vote for the block
}

// quorumReady are the chains that operators with more than two thirds of the power said
// with their votes that they are ready for, ascending. nil if there are no such votes.
func quorumReady(votes []vote) []sequence.ChainID {
	var total int64
	power := map[sequence.ChainID]int64{}
	known := false
	for _, v := range votes {
		total += v.power
		if len(v.ready) == 0 {
			continue
		}
		chains, err := decodeReady(v.ready)
		if err != nil {
			continue // cannot be: it was verified with the vote
		}
		known = true
		for _, c := range chains {
			power[c] += v.power
		}
	}
	if !known {
		return nil
	}
	ready := []sequence.ChainID{}
	for c, p := range power {
		if p > total*2/3 { // the total is at most 2^60
			ready = append(ready, c)
		}
	}
	slices.Sort(ready)
	return ready
}

// proposersVotes are the votes for the last block that a proposer has.
func proposersVotes(commit abci.ExtendedCommitInfo) []vote {
	votes := make([]vote, len(commit.Votes))
	for i, v := range commit.Votes {
		votes[i].power = v.Validator.Power
		if v.BlockIdFlag == cmtproto.BlockIDFlagCommit {
			votes[i].ready = v.VoteExtension
		}
	}
	return votes
}

// storedVotes are the votes for a block that this node agreed with. nil if they were not
// stored.
func storedVotes(commit *types.ExtendedCommit, vals *types.ValidatorSet) []vote {
	if commit == nil || len(commit.ExtendedSignatures) != vals.Size() {
		return nil
	}
	votes := make([]vote, vals.Size())
	for i, sig := range commit.ExtendedSignatures {
		votes[i].power = vals.Validators[i].VotingPower
		if sig.BlockIDFlag == types.BlockIDFlagCommit {
			votes[i].ready = sig.Extension
		}
	}
	return votes
}
