package cometbft

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func testGenesis(n int) *operators.Genesis {
	g := &operators.Genesis{Set: "test", Time: time.Unix(1_700_000_000, 0), Chains: []sequence.ChainID{901}}
	for i := range n {
		key := ed25519.GenPrivKeyFromSecret([]byte{byte(i)}).PubKey().Bytes()
		g.Operators = append(g.Operators, operators.Operator{
			Name: fmt.Sprint(i), Address: common.Address{byte(i + 1)}, ConsensusKey: operators.ConsensusKey(key), Power: 10,
		})
	}
	return g
}

// history drives a state as blocks would.
type history struct {
	t     require.TestingT
	state *state
	rules Timeouts
	round int32          // that the newest block was agreed on in
	down  map[voter]bool // who does not vote or lead
	seen  tallies
}

func newHistory(t require.TestingT, n int) *history {
	c := Config{}
	c.setDefaults()
	return &history{t: t, state: genesisState(testGenesis(n)), rules: c.Timeouts, down: map[voter]bool{}}
}

// next agrees on a block in the first round whose leader is up.
func (h *history) next() voter {
	votes := []abci.VoteInfo{}
	if last := h.state.last; last != nil {
		for _, v := range last.Validators {
			flag := cmtproto.BlockIDFlagCommit
			if h.down[voter(v.Address)] {
				flag = cmtproto.BlockIDFlagAbsent
			}
			votes = append(votes, abci.VoteInfo{Validator: types.TM2PB.Validator(v), BlockIdFlag: flag})
		}
	}
	commit := abci.CommitInfo{Round: h.round, Votes: votes}
	if h.state.height > 0 {
		h.seen.count(h.state, commit)
	}
	vals := h.state.now.Copy()
	h.round = 0
	for h.down[proposer(vals)] || h.round == 0 && h.state.turns[proposer(vals)].Short {
		vals.IncrementProposerPriority(1)
		h.round++
	}
	sub := &sequence.Subblock{Slot: sequence.Slot(h.state.height + 1)}
	out, err := h.state.advance(sub, sub.Hash(), nil, proposer(vals), commit, h.rules)
	require.NoError(h.t, err)
	h.state = out.state
	return proposer(vals)
}

func (h *history) until(n int, cond func() bool) int {
	for i := range n {
		if cond() {
			return i
		}
		h.next()
	}
	require.Fail(h.t, "it does not happen", "within %d heights", n)
	return 0
}

func TestTurns(t *testing.T) {
	h := newHistory(t, 4)
	for range 10 {
		h.next()
	}
	gone := proposer(h.state.next)
	h.down[gone] = true
	short := func() bool { return h.state.turns[gone].Short }
	require.InDelta(t, 12, h.until(20, short), 3, "its third turn in a row is missed")
	require.Equal(t, 1, h.state.shortened())
	for i := range 8 {
		leader, round := h.state.leader(h.state.height + 1 + uint64(i))
		require.NotEqual(t, gone, leader)
		require.LessOrEqual(t, round, int32(1))
	}
	for range 100 {
		h.next()
	}
	require.True(t, short(), "it stays so")

	// Back: its turns come back when it has voted for a while, on probation.
	h.down[gone] = false
	back := h.until(200, func() bool { return !short() })
	require.InDelta(t, h.rules.Signs, back, 6)
	h.down[gone] = true
	require.LessOrEqual(t, h.until(20, short), 8, "one more miss is enough")
	h.down[gone] = false
	require.InDelta(t, 2*h.rules.Signs, h.until(200, func() bool { return !short() }), 6, "and it takes longer")
	// A subblock of its own ends the probation.
	h.until(8, func() bool { return h.state.creator == gone })
	h.next()
	require.Zero(t, h.state.turns[gone])
}

// What operators did is counted a height later, when the votes are there.
func TestTallies(t *testing.T) {
	h := newHistory(t, 4)
	for range 11 {
		h.next()
	}
	gone := proposer(h.state.next)
	h.down[gone] = true
	at := h.state.height
	var led uint64
	for range 12 {
		h.next()
	}
	heights, leader, _ := h.seen.counted()
	require.Equal(t, h.state.height-1, heights, "the newest height's votes are not there yet")
	require.NotEqual(t, gone, leader)
	for _, v := range h.state.now.Validators {
		n := h.seen.get(voter(v.Address))
		led += n.Led
		if voter(v.Address) != gone {
			require.Equal(t, Tally{Led: n.Led, Voted: heights, Last: heights}, n)
			continue
		}
		// Its votes for the height at which it stopped did not come either.
		require.Equal(t, at-1, n.Voted)
		require.Equal(t, at-1, n.Last)
		require.InDelta(t, 3, n.Passed, 1)
	}
	require.Equal(t, heights, led, "each height has one leader")
	require.Zero(t, h.seen.get(voter{}))
}

// One that votes now and then does not have its turns back.
func TestTurnsNeedVotesInARow(t *testing.T) {
	h := newHistory(t, 4)
	gone := proposer(h.state.now)
	h.down[gone] = true
	h.until(20, func() bool { return h.state.turns[gone].Short })
	for i := range 200 {
		h.down[gone] = i%10 == 0
		require.NotEqual(t, gone, h.next(), "it was down, or its turn too short")
	}
	require.True(t, h.state.turns[gone].Short)
}

// When more miss their turns than may be faulty, nobody is blamed.
func TestTurnsWithNothingToPropose(t *testing.T) {
	h := newHistory(t, 4)
	for range 3 {
		h.next()
	}
	vals := h.state.now.Copy()
	for range 2 {
		h.down[proposer(vals)] = true
		vals.IncrementProposerPriority(1)
	}
	h.next()
	require.EqualValues(t, 2, h.round)
	clear(h.down)
	h.next()
	for v, turn := range h.state.turns {
		require.Zero(t, turn.Missed, "%x", v)
	}
}

// The state that an agreement gives back is the one that it was made of, whatever happened.
func TestAgreementRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t, rapid.IntRange(1, 7).Draw(t, "operators"))
		for range rapid.IntRange(1, 30).Draw(t, "heights") {
			up := 0
			for _, v := range h.state.now.Validators {
				down := rapid.IntRange(0, 3).Draw(t, "down") == 0
				h.down[voter(v.Address)] = down
				if !down {
					up++
				}
			}
			if up == 0 {
				clear(h.down)
			}
			h.next()
		}
		data, err := h.state.encode([][]byte{{1}, {2, 3}})
		require.NoError(t, err)
		back, votes, err := decodeAgreement(data)
		require.NoError(t, err)
		require.Equal(t, [][]byte{{1}, {2, 3}}, votes)
		again, err := back.encode(votes)
		require.NoError(t, err)
		require.Equal(t, data, again)
		for i := range 10 { // and it goes on in the same way
			a, ra := h.state.leader(h.state.height + 1 + uint64(i))
			b, rb := back.leader(back.height + 1 + uint64(i))
			require.Equal(t, a, b)
			require.Equal(t, ra, rb)
		}
	})
}

func FuzzDecodeAgreement(f *testing.F) {
	h := newHistory(f, 4)
	for range 5 {
		h.next()
	}
	data, err := h.state.encode([][]byte{{1}})
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, _, err := decodeAgreement(data); err == nil {
			s.leader(s.height + 1)
		}
	})
}

func TestReady(t *testing.T) {
	chains := []sequence.ChainID{902, 901, 1 << 60, 902}
	back, err := decodeReady(encodeReady(chains))
	require.NoError(t, err)
	require.Equal(t, []sequence.ChainID{901, 902, 1 << 60}, back)
	none, err := decodeReady(encodeReady(nil))
	require.NoError(t, err)
	require.Empty(t, none)

	var many []sequence.ChainID
	for i := range 2 * operators.MaxChains {
		many = append(many, 1<<63+sequence.ChainID(i))
	}
	enc := encodeReady(many)
	require.LessOrEqual(t, len(enc), maxReadyBytes)
	back, err = decodeReady(enc)
	require.NoError(t, err)
	require.Len(t, back, operators.MaxChains)

	for name, bad := range map[string][]byte{
		"empty": {}, "too long": make([]byte, maxReadyBytes+1), "trailing": append(encodeReady(chains), 0), "no list": {0x05},
		"descending": {0xc2, 2, 1}, "twice": {0xc2, 2, 2}, "leading zero": {0xc3, 0x82, 0, 1},
	} {
		_, err := decodeReady(bad)
		require.Error(t, err, name)
	}
}

func FuzzDecodeReady(f *testing.F) {
	f.Add(encodeReady([]sequence.ChainID{1, 901}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if chains, err := decodeReady(data); err == nil {
			require.Equal(t, data, encodeReady(chains), "one encoding only")
		}
	})
}

func TestQuorumReady(t *testing.T) {
	r := func(chains ...sequence.ChainID) []byte { return encodeReady(chains) }
	for _, tt := range []struct {
		name  string
		votes []vote
		want  []sequence.ChainID
	}{
		{"no votes", nil, nil},
		{"no readiness", []vote{{10, nil}, {10, nil}}, nil},
		{"all", []vote{{10, r(1, 2)}, {10, r(1, 2)}, {10, r(2, 1)}}, []sequence.ChainID{1, 2}},
		{"exactly two thirds are not enough", []vote{{10, r(1)}, {10, r(1)}, {10, r()}}, []sequence.ChainID{}},
		{"three of four", []vote{{10, r(1, 2)}, {10, r(1)}, {10, r(1, 2)}, {10, nil}}, []sequence.ChainID{1}},
		{"power counts", []vote{{30, r(1)}, {1, r(2)}, {1, r(2)}}, []sequence.ChainID{1}},
	} {
		require.Equal(t, tt.want, quorumReady(tt.votes), tt.name)
	}
}

// Later rounds are longer, and none is longer than eleven times the first. CometBFT reads
// what is set as it enters a step.
func TestRounds(t *testing.T) {
	g := testGenesis(4)
	c := &Config{Dir: "d", Genesis: g, Listen: "127.0.0.1:0"}
	c.setDefaults()
	a := &app{cfg: c, comet: c.cometConfig(), state: genesisState(g), present: newPresent(g.ID())}
	k := a.comet.Consensus
	for round, want := range map[int32]time.Duration{0: 1, 4: 2, 40: 11, 10000: 11} {
		for _, step := range []string{stepPropose, stepPrevote, stepPrecommit} {
			a.enterStep(step, 1, round)
		}
		require.Equal(t, want*c.Timeouts.Propose, k.Propose(round))
		require.Equal(t, want*c.Timeouts.Vote, k.Prevote(round))
		require.Equal(t, want*c.Timeouts.Vote, k.Precommit(round))
	}
}

func TestBlockHasRoom(t *testing.T) {
	p := types.DefaultConsensusParams()
	room := types.MaxDataBytes(maxBlockBytes, p.Evidence.MaxBytes, operators.MaxOperators)
	require.Greater(t, room, int64(maxSubblockBytes+maxBlockChanges*600))
}

func TestConfigCheck(t *testing.T) {
	good := func() *Config {
		c := &Config{Dir: "d", Genesis: testGenesis(4), Listen: "127.0.0.1:0", Log: testLog(t, ""), Fatal: func(error) {}}
		c.setDefaults()
		return c
	}
	require.NoError(t, good().Check())
	for want, change := range map[string]func(*Config){
		"no directory":          func(c *Config) { c.Dir = "" },
		"no genesis":            func(c *Config) { c.Genesis = nil },
		"set name":              func(c *Config) { c.Genesis.Set = "" },
		"no log":                func(c *Config) { c.Fatal = nil },
		"must be host:port":     func(c *Config) { c.Listen = "here" },
		"nodeID@host:port":      func(c *Config) { c.Peers = []string{"127.0.0.1:1"} },
		"node ID of 40":         func(c *Config) { c.Peers = []string{"ABCD@127.0.0.1:1"} },
		"above Margin":          func(c *Config) { c.Timeouts.Margin = time.Second },
		"must be positive, and": func(c *Config) { c.Gossip.Queue = -1 },
	} {
		c := good()
		change(c)
		require.ErrorContains(t, c.Check(), want)
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	a, err := InitKeys(dir)
	require.NoError(t, err)
	require.Len(t, a.NodeID, 40)
	require.NotZero(t, a.ConsensusKey)
	b, err := InitKeys(dir)
	require.NoError(t, err)
	require.Equal(t, a, b)
	other, err := InitKeys(t.TempDir())
	require.NoError(t, err)
	require.NotEqual(t, a.NodeID, other.NodeID)
	require.NotEqual(t, a.ConsensusKey, other.ConsensusKey)
}

// Keys under a password open with it alone, and vote as plain ones do.
func TestProtectedKeys(t *testing.T) {
	dir := t.TempDir()
	p := Protection{"correct horse", keyfile.Light}
	a, err := CreateKeys(dir, p)
	require.NoError(t, err)
	require.True(t, a.Protected)
	_, err = CreateKeys(dir, p)
	require.ErrorIs(t, err, os.ErrExist)
	require.NoError(t, CheckUnused(dir))
	require.NoError(t, CheckKeys(dir, "correct horse"))
	require.ErrorIs(t, CheckKeys(dir, "wrong"), keyfile.ErrWrongPassword)
	require.ErrorIs(t, CheckKeys(dir, ""), keyfile.ErrProtected)
	require.ErrorIs(t, CheckKeys(t.TempDir(), ""), os.ErrNotExist)
	_, vote, err := loadKeys(dir, p)
	require.NoError(t, err)
	require.Equal(t, a.ConsensusKey[:], vote.Key.PubKey.Bytes())
	v := &cmtproto.Vote{Type: cmtproto.PrevoteType, Height: 1}
	require.NoError(t, vote.SignVote("test", v))
	require.ErrorIs(t, CheckUnused(dir), ErrUsed)
	data, err := os.ReadFile(VoteKeyPath(dir))
	require.NoError(t, err)
	require.NotContains(t, string(data), "priv_key", "also after it has voted")

	require.NoError(t, ProtectKeys(dir, "correct horse", Protection{}))
	again, err := InitKeys(dir)
	require.NoError(t, err)
	require.False(t, again.Protected)
	require.Equal(t, a.ConsensusKey, again.ConsensusKey)
	_, vote, err = loadKeys(dir, Protection{})
	require.NoError(t, err)
	require.EqualValues(t, 1, vote.LastSignState.Height, "what was voted stays")

	other := t.TempDir()
	data, err = os.ReadFile(VoteKeyPath(dir))
	require.NoError(t, err)
	state, err := os.ReadFile(filepath.Join(dir, voteStateFile))
	require.NoError(t, err)
	_, err = ImportKeys(other, data, []byte("nonsense"), "", p)
	require.ErrorContains(t, err, "the state of its votes")
	_, err = ImportKeys(other, []byte("{}"), state, "", p)
	require.ErrorContains(t, err, "the consensus key")
	imported, err := ImportKeys(other, data, state, "", p)
	require.NoError(t, err)
	require.True(t, imported.Protected)
	require.Equal(t, a.ConsensusKey, imported.ConsensusKey)
	_, vote, err = loadKeys(other, p)
	require.NoError(t, err)
	require.EqualValues(t, 1, vote.LastSignState.Height)
}

// CometBFT's log comes a level lower, and the end of its consensus is noticed.
func TestLogger(t *testing.T) {
	var out strings.Builder
	var failure string
	l := &logger{to: log.NewLogger(log.NewTerminalHandlerWithLevel(&out, log.LevelInfo, false)), failed: func(r string) { failure = r }}
	l.Debug("one")
	l.Info("two")
	require.Empty(t, out.String())
	l.With("module", "m").Error("three", "k", "v")
	require.Contains(t, out.String(), "WARN")
	require.Contains(t, out.String(), "module=m")
	require.Empty(t, failure)
	l.With("module", "consensus").Error("CONSENSUS FAILURE!!!", "err", "broken", "stack", "…")
	require.Equal(t, "broken", failure)
	require.True(t, l.to.Enabled(context.Background(), log.LevelInfo))
}
