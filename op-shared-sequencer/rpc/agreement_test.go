package rpc

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// fakeAgreement takes changes into a set at once. Without a set the operator is alone.
type fakeAgreement struct {
	set      *operators.Set
	evidence operators.EvidenceList
}

func (f *fakeAgreement) LeaderSchedule(n int) []Turn {
	turns := make([]Turn, n)
	for i := range turns {
		turns[i] = Turn{Height: hexutil.Uint64(i + 1), Leader: common.Address{1}}
	}
	at := hexutil.Uint64(1500)
	turns[0].Expected = &at
	return turns
}

func (f *fakeAgreement) Operators() (*Operators, error) {
	if f.set == nil {
		return nil, ErrUnavailable
	}
	return NewOperators(f.set), nil
}

func (f *fakeAgreement) Evidence() (*Evidence, error) {
	if f.set == nil {
		return nil, ErrUnavailable
	}
	return NewEvidence(f.evidence), nil
}

func (f *fakeAgreement) SubmitChange(c *operators.SignedChange) error {
	if f.set == nil {
		return ErrUnavailable
	}
	return f.set.Apply(c, now)
}

func operatorKeys(t *testing.T, n int) ([]*ecdsa.PrivateKey, *operators.Set) {
	t.Helper()
	g := &operators.Genesis{Set: "test", Time: time.Unix(int64(now), 0).UTC(), Chains: []sequence.ChainID{chainA, chainB}}
	var keys []*ecdsa.PrivateKey
	for i := range n {
		key, err := crypto.ToECDSA(crypto.Keccak256([]byte{byte(i)}))
		require.NoError(t, err)
		keys = append(keys, key)
		g.Operators = append(g.Operators, operators.Operator{
			Name: string(rune('a' + i)), Address: crypto.PubkeyToAddress(key.PublicKey), ConsensusKey: operators.ConsensusKey{byte(i + 1)}, Power: 1,
		})
	}
	require.NoError(t, g.Check())
	return keys, operators.NewSet(g)
}

func TestLeaderSchedule(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	turns, err := e.client.LeaderSchedule(ctx, 3)
	require.NoError(t, err)
	require.Equal(t, e.agree.LeaderSchedule(3), turns)
	var raw json.RawMessage
	require.NoError(t, e.raw.CallContext(ctx, &raw, "sharedseq_leaderSchedule", hexutil.Uint64(2)))
	leader := `"0x0100000000000000000000000000000000000000"`
	require.JSONEq(t, `[{"height":"0x1","leader":`+leader+`,"expected":"0x5dc"},{"height":"0x2","leader":`+leader+`}]`, string(raw))
	for _, n := range []uint64{0, MaxTurns + 1, 1 << 63} {
		_, err := e.client.LeaderSchedule(ctx, n)
		require.Equal(t, CodeInvalidParams, ErrorCode(err), "%v", err)
		require.ErrorContains(t, err, "expected 1 to 256")
	}
}

// A change is proposed, waits, and is approved by others; approvals that the set does not
// take are refused with the reason.
func TestChanges(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	keys, set := operatorKeys(t, 4)
	e.agree.set = set

	before, err := e.client.Operators(ctx)
	require.NoError(t, err)
	require.Equal(t, NewOperators(set), before)
	require.Len(t, before.Operators, 4)
	require.EqualValues(t, 4, before.TotalPower)
	require.Equal(t, []hexutil.Uint64{hexutil.Uint64(chainA), hexutil.Uint64(chainB)}, before.Chains)
	require.Empty(t, before.Pending)

	change := operators.Change{Kind: operators.AddOperator, Nonce: 7, Expiry: now + 60, Operator: operators.Operator{
		Name: "new", Address: common.Address{9}, ConsensusKey: operators.ConsensusKey{9}, Power: 1,
	}}
	approve := func(key *ecdsa.PrivateKey, c operators.Change) (common.Hash, error) {
		signed, err := operators.SignChange(set.ID(), c, key)
		require.NoError(t, err)
		return e.client.SubmitChange(ctx, signed)
	}
	for i, key := range keys[:2] {
		id, err := approve(key, change)
		require.NoError(t, err)
		require.Equal(t, change.ID(), id)
		now, err := e.client.Operators(ctx)
		require.NoError(t, err)
		require.Len(t, now.Pending, 1)
		p := now.Pending[0]
		require.Equal(t, id, p.ID)
		require.Equal(t, change, p.Change.Governed(), "as it was signed")
		require.EqualValues(t, i+1, p.Power)
		require.EqualValues(t, 3, p.Needed)
		require.Len(t, p.Approvals, i+1)
	}

	stranger, err := crypto.GenerateKey()
	require.NoError(t, err)
	expired := change
	expired.Expiry = now - 1
	known := change
	known.Operator.Address = before.Operators[0].Address
	power := operators.Change{Kind: operators.SetPower, Expiry: now + 60, Operator: operators.Operator{Address: before.Operators[0].Address, Power: 1000}}
	for kind, send := range map[string]func() (common.Hash, error){
		"duplicate":      func() (common.Hash, error) { return approve(keys[0], change) },
		"not-operator":   func() (common.Hash, error) { return approve(stranger, change) },
		"expiry":         func() (common.Hash, error) { return approve(keys[0], expired) },
		"not-applicable": func() (common.Hash, error) { return approve(keys[0], known) },
		"limit":          func() (common.Hash, error) { return approve(keys[0], power) },
		"malformed":      func() (common.Hash, error) { return e.client.SubmitChange(ctx, new(operators.SignedChange)) },
	} {
		_, err := send()
		var coded *Error
		require.ErrorAs(t, err, &coded, kind)
		require.Equal(t, CodeInvalidChange, coded.Code, "%v", err)
		require.Equal(t, kind, coded.Data.Kind)
		require.NotEmpty(t, coded.Message)
	}
	for _, bad := range []any{"0x", "0xc0", hexutil.Bytes(make([]byte, 1000))} {
		require.Equal(t, CodeInvalidChange, ErrorCode(fromRPC("submitChange", e.raw.CallContext(ctx, nil, "sharedseq_submitChange", bad))))
	}
	require.Equal(t, CodeInvalidParams, ErrorCode(fromRPC("submitChange", e.raw.CallContext(ctx, nil, "sharedseq_submitChange", "tx"))))
}

func TestEvidence(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	_, e.agree.set = operatorKeys(t, 1)
	none, err := e.client.Evidence(ctx)
	require.NoError(t, err)
	require.Equal(t, &Evidence{Subblocks: []SubblockEvidence{}, Votes: []VoteEvidence{}}, none)

	e.agree.evidence = operators.EvidenceList{
		Subblocks: []operators.Proven{{Leader: common.Address{1}, Evidence: operators.Evidence{
			Height: 2, View: common.Hash{3}, Hashes: [2]common.Hash{{4}, {5}}, Signatures: [2]operators.Signature{{6}, {7}},
		}}},
		Votes: []operators.VoteEvidence{{Kind: "DUPLICATE_VOTE", Operator: common.Address{12}, Address: common.Address{8}, Height: 9, Time: 10, Power: 11}},
	}
	got, err := e.client.Evidence(ctx)
	require.NoError(t, err)
	require.Equal(t, &Evidence{
		Subblocks: []SubblockEvidence{{
			Leader: common.Address{1}, Height: 2, View: common.Hash{3}, Hashes: [2]common.Hash{{4}, {5}}, Signatures: [2]operators.Signature{{6}, {7}},
		}},
		Votes: []VoteEvidence{{Kind: "DUPLICATE_VOTE", Operator: common.Address{12}, Address: common.Address{8}, Height: 9, Time: 10, Power: 11}},
	}, got)
}

// An operator that is alone has turns, and nobody to agree with.
func TestAlone(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	_, err := e.client.Operators(ctx)
	require.Equal(t, CodeUnavailable, ErrorCode(err))
	_, err = e.client.Evidence(ctx)
	require.Equal(t, CodeUnavailable, ErrorCode(err))
	keys, set := operatorKeys(t, 1)
	signed, err := operators.SignChange(set.ID(), operators.Change{Kind: operators.JoinChain, Chain: 1, Expiry: now}, keys[0])
	require.NoError(t, err)
	_, err = e.client.SubmitChange(ctx, signed)
	require.Equal(t, CodeUnavailable, ErrorCode(err))
}
