package drill

import (
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

// A vote counts when it is agreed with, came after the fault, and with the others'.
func TestFirstVote(t *testing.T) {
	g := &operators.Genesis{Set: "test"}
	addr := func(i byte) common.Address { return common.Address{i + 1} }
	key := func(i byte) operators.ConsensusKey { return operators.ConsensusKey{i + 1} }
	for i := range byte(maxOperators) {
		g.Operators = append(g.Operators, operators.Operator{Address: addr(i), ConsensusKey: key(i), Power: 1})
	}
	set := operators.NewSet(g)
	zero := time.Unix(begin, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	// height has the votes of all operators at the given times; 0: absent.
	height := func(times ...int) *cmttypes.Commit {
		c := new(cmttypes.Commit)
		for i, ms := range times {
			k := key(byte(i))
			sig := cmttypes.CommitSig{BlockIDFlag: cmttypes.BlockIDFlagAbsent}
			if ms != 0 {
				sig = cmttypes.CommitSig{BlockIDFlag: cmttypes.BlockIDFlagCommit, ValidatorAddress: ed25519.PubKey(k[:]).Address(), Timestamp: at(ms)}
			}
			c.Signatures = append(c.Signatures, sig)
		}
		return c
	}
	ledgerOf := func(heights ...*cmttypes.Commit) []slot {
		return []slot{{Agreement: &cometbft.Agreement{Set: set, Votes: heights}}}
	}
	late := height(1000, 1001, 1002, 5500) // of a height that the others agreed on long before
	together := height(6000, 6003, 0, 6001)
	later := height(7000, 7001, 7002, 7003)
	others := height(4000, 4001, 4002, 0)

	got, ok := firstVote([][]slot{ledgerOf(others, later), ledgerOf(late, together)}, addr(3), at(5000), time.Second/2)
	require.True(t, ok)
	require.Equal(t, at(6001), got)
	got, ok = firstVote([][]slot{ledgerOf(others, later), ledgerOf(late, together)}, addr(3), at(6500), time.Second/2)
	require.True(t, ok)
	require.Equal(t, at(7003), got)
	_, ok = firstVote([][]slot{ledgerOf(others, late)}, addr(3), at(0), time.Second/2)
	require.False(t, ok)
	_, ok = firstVote([][]slot{ledgerOf(together)}, common.Address{9}, at(0), time.Second/2)
	require.False(t, ok)
}

func TestLastAndFirst(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	// The second one was killed and tells of block 2 once more.
	seen := [][]conductor.Head{
		{{Number: 1, At: at(11)}, {Number: 2, At: at(20)}, {Number: 4, At: at(40)}},
		{{Number: 1, At: at(10)}, {Number: 3, At: at(30)}, {Number: 2, At: at(50)}},
	}
	_, ok := last(seen, at(9))
	require.False(t, ok)
	for s, want := range map[int64]uint64{10: 1, 29: 2, 30: 3, 60: 4} {
		b, ok := last(seen, at(s))
		require.True(t, ok)
		require.Equal(t, want, b.Number, "at %d", s)
	}
	b, ok := first(seen, 1)
	require.True(t, ok)
	require.Equal(t, at(10), b.At)
	_, ok = first(seen, 5)
	require.False(t, ok)
}

func TestDistribution(t *testing.T) {
	d := distribution([]time.Duration{30 * time.Millisecond, -time.Millisecond, 10*time.Millisecond + 250*time.Microsecond})
	require.Equal(t, Distribution{Spread{10.3, 30, 30}, []float64{30, -1, 10.3}}, d)
	require.Equal(t, Distribution{Spread{}, []float64{}}, distribution(nil))
}
