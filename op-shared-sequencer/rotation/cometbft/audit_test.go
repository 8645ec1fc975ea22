package cometbft

import (
	"errors"
	"testing"

	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// A ledger in which anything was changed does not prove it any more.
func TestAudit(t *testing.T) {
	c := newCluster(t, 4, 4)
	c.start()
	c.advance(15)
	c.same() // an honest one is audited there
	for _, o := range c.ops {
		o.stop()
	}
	led := c.ops[0].ledger.copy()
	require.GreaterOrEqual(t, len(led.slots), 4)
	other := c.ops[1] // who did not lead what is signed anew
	if leaderOf(led.slots[2][1]) == other.address() {
		other = c.ops[2]
	}

	// body changes what the agreement of a slot says.
	body := func(t *testing.T, agreement []byte, change func(b *agreementBody)) []byte {
		var b agreementBody
		require.NoError(t, rlp.DecodeBytes(agreement, &b))
		change(&b)
		out, err := rlp.EncodeToBytes(&b)
		require.NoError(t, err)
		return out
	}
	// votes changes those for the second subblock of a slot.
	votes := func(t *testing.T, agreement []byte, change func(c *types.Commit, p *proof)) []byte {
		return body(t, agreement, func(b *agreementBody) {
			commit, p, err := parseVotes(b.Votes[1])
			require.NoError(t, err)
			change(commit, p)
			enc, err := commit.ToProto().Marshal()
			require.NoError(t, err)
			b.Votes[1], err = p.appendTo(enc)
			require.NoError(t, err)
		})
	}
	type slot struct {
		subs      []*sequence.Subblock
		agreement []byte
	}
	// strip leaves the votes without their proofs, as earlier versions wrote them.
	strip := func(s *slot) {
		s.agreement = body(t, s.agreement, func(b *agreementBody) {
			for i := range b.Votes {
				commit, _, err := parseVotes(b.Votes[i])
				require.NoError(t, err)
				b.Votes[i], err = commit.ToProto().Marshal()
				require.NoError(t, err)
			}
		})
	}
	// at audits the ledger with its third slot changed, and tells what is found in that.
	at := func(t *testing.T, a *Auditor, from int, change func(s *slot)) ([]Height, error) {
		for i := from; i < 2; i++ {
			_, err := a.Slot(led.slots[i], led.agreed[i])
			require.NoError(t, err)
		}
		s := slot{agreement: led.agreed[2]}
		for _, sub := range led.slots[2] {
			c, err := sequence.DecodeSubblock(sub.Encode())
			require.NoError(t, err)
			s.subs = append(s.subs, c)
		}
		change(&s)
		return a.Slot(s.subs, s.agreement)
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, s *slot)
		want   string
	}{
		"another transaction": {func(_ *testing.T, s *slot) { s.subs[1].Steps[0].Transactions[0][30]++ }, "other content"},
		"another leader's signature": {func(t *testing.T, s *slot) {
			s.agreement = votes(t, s.agreement, func(votes *types.Commit, p *proof) {
				signed, err := operators.SignSubblock(c.genesis.ID(), uint64(votes.Height), s.subs[1], other.key)
				require.NoError(t, err)
				p.signature = signed.Signature
			})
		}, "other content"},
		"no quorum": {func(t *testing.T, s *slot) {
			s.agreement = votes(t, s.agreement, func(c *types.Commit, _ *proof) {
				for i := range 2 {
					c.Signatures[i] = types.NewCommitSigAbsent()
				}
			})
		}, "the votes do not count"},
		"a forged vote": {func(t *testing.T, s *slot) {
			s.agreement = votes(t, s.agreement, func(c *types.Commit, _ *proof) {
				for i := range c.Signatures {
					if c.Signatures[i].BlockIDFlag == types.BlockIDFlagCommit {
						c.Signatures[i].Signature[7]++
						return
					}
				}
			})
		}, "the votes do not count"},
		"another header": {func(t *testing.T, s *slot) {
			s.agreement = votes(t, s.agreement, func(_ *types.Commit, p *proof) { p.header.AppHash = common.Hash{1}.Bytes() })
		}, "the header is that of"},
		"a change left out or put in": {func(t *testing.T, s *slot) {
			s.agreement = votes(t, s.agreement, func(_ *types.Commit, p *proof) { p.changes = append(p.changes, []byte{1}) })
		}, "other content"},
		"another set": {func(t *testing.T, s *slot) {
			s.agreement = body(t, s.agreement, func(b *agreementBody) {
				g := *c.genesis
				g.Operators = g.Operators[:3]
				b.Set = operators.NewSet(&g).Encode()
			})
		}, "another set of operators"},
		"other voters": {func(t *testing.T, s *slot) {
			s.agreement = body(t, s.agreement, func(b *agreementBody) {
				var p cmtproto.ValidatorSet
				require.NoError(t, p.Unmarshal(b.Next))
				p.Validators[0].VotingPower++
				p.TotalVotingPower = 0
				vals, err := types.ValidatorSetFromProto(&p)
				require.NoError(t, err)
				p2, err := vals.ToProto()
				require.NoError(t, err)
				b.Next, err = p2.Marshal()
				require.NoError(t, err)
			})
		}, "another voters"},
	} {
		t.Run(name, func(t *testing.T) {
			heights, err := at(t, NewAuditor(c.genesis), 0, func(s *slot) { test.change(t, s) })
			require.NoError(t, err)
			var wrong error
			for _, h := range heights {
				wrong = errors.Join(append(h.Wrong, wrong)...)
			}
			require.ErrorContains(t, wrong, test.want)
		})
	}
	t.Run("a slot twice", func(t *testing.T) {
		a := NewAuditor(c.genesis)
		_, err := at(t, a, 0, func(*slot) {})
		require.NoError(t, err)
		heights, err := a.Slot(led.slots[2], led.agreed[2])
		require.NoError(t, err)
		require.ErrorContains(t, errors.Join(heights[0].Wrong...), "agreed on already")
	})
	t.Run("another genesis", func(t *testing.T) {
		g := *c.genesis
		g.Set = "another"
		heights, err := at(t, NewAuditor(&g), 2, func(*slot) {})
		require.NoError(t, err)
		require.ErrorContains(t, errors.Join(heights[2].Wrong...), "it is of set")
	})
	t.Run("from the middle", func(t *testing.T) {
		a := NewAuditor(c.genesis)
		heights, err := at(t, a, 2, func(*slot) {})
		require.NoError(t, err)
		for _, h := range heights {
			require.Empty(t, h.Wrong)
			require.Equal(t, noBefore, h.Unproven)
		}
		require.Greater(t, 3*heights[2].Voted, 2*heights[2].Power, "the votes for the last subblock count")
		heights, err = a.Slot(led.slots[3], led.agreed[3])
		require.NoError(t, err)
		for _, h := range heights {
			require.Empty(t, h.Wrong)
			require.Empty(t, h.Unproven)
		}
	})
	t.Run("a slot that was given up is not there", func(t *testing.T) {
		a := NewAuditor(c.genesis)
		_, err := a.Slot(led.slots[0], led.agreed[0])
		require.NoError(t, err)
		heights, err := a.Slot(led.slots[2], led.agreed[2])
		require.NoError(t, err)
		for _, h := range heights {
			require.Empty(t, h.Wrong)
		}
	})
	t.Run("of an earlier version", func(t *testing.T) {
		heights, err := at(t, NewAuditor(c.genesis), 0, strip)
		require.NoError(t, err)
		for _, h := range heights {
			require.Empty(t, h.Wrong)
			require.Equal(t, noProof, h.Unproven)
		}
	})
	t.Run("behind a slot without proofs nothing is proven", func(t *testing.T) {
		a := NewAuditor(c.genesis)
		_, err := at(t, a, 0, strip)
		require.NoError(t, err)
		heights, err := a.Slot(led.slots[3], led.agreed[3])
		require.NoError(t, err)
		for _, h := range heights {
			require.Equal(t, noBefore, h.Unproven)
		}
	})
	t.Run("own voters behind a slot that is left out", func(t *testing.T) {
		a := NewAuditor(c.genesis)
		_, err := a.Slot(led.slots[0], led.agreed[0])
		require.NoError(t, err)
		heights, err := a.Slot(led.slots[2], body(t, led.agreed[2], func(b *agreementBody) {
			var p cmtproto.ValidatorSet
			require.NoError(t, p.Unmarshal(b.Now))
			p.Validators[0].VotingPower++
			p.TotalVotingPower = 0
			vals, err := types.ValidatorSetFromProto(&p)
			require.NoError(t, err)
			p2, err := vals.ToProto()
			require.NoError(t, err)
			b.Now, err = p2.Marshal()
			require.NoError(t, err)
		}))
		require.NoError(t, err)
		require.ErrorContains(t, errors.Join(heights[len(heights)-1].Wrong...), "other voters of the next height")
	})
	t.Run("an earlier version reads it", func(t *testing.T) {
		var b agreementBody
		require.NoError(t, rlp.DecodeBytes(led.agreed[2], &b))
		var p cmtproto.Commit
		require.NoError(t, p.Unmarshal(b.Votes[2]), "fields that it does not know are skipped")
		commit, err := types.CommitFromProto(&p)
		require.NoError(t, err)
		require.EqualValues(t, 9, commit.Height)
	})
	t.Run("turns", func(t *testing.T) {
		s := genesisState(c.genesis)
		first := proposer(s.now)
		second := proposer(s.now.CopyIncrementProposerPriority(1))
		require.True(t, s.hadTurn(first, 0))
		require.False(t, s.hadTurn(second, 0))
		require.True(t, s.hadTurn(second, 1))
		require.True(t, s.hadTurn(first, 1), "locked in an earlier round")
	})
}
