package service

import (
	"context"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const testSlot = sequence.Slot(1_700_000_000)

func testPool(chains ...sequence.ChainID) *bundlepool.Pool {
	cfg := bundlepool.DefaultConfig(chains...)
	cfg.MaxPerSender = 2
	p := bundlepool.New(cfg, log.NewLogger(log.DiscardHandler()))
	p.Advance(testSlot)
	return p
}

func testBundle(nonce uint64, expiry sequence.Slot) *sequence.Bundle {
	chain := enginetest.NewChain(901, 1)
	return &sequence.Bundle{Expiry: expiry, Items: []sequence.BundleItem{{Chain: 901, Transaction: chain.Transfer(0, nonce, enginetest.Recipient(0))}}}
}

// A bundle goes from one operator's RPC into the others' pools, once.
func TestBundlesAreShared(t *testing.T) {
	a, b := testPool(901), testPool(901)
	peer := gossiped{b, 1 << 20}
	var sent [][]byte
	share := &sharingPool{Pool: a, log: log.NewLogger(log.DiscardHandler()), unshared: func() {}, others: &network{&sent, nil}}
	bundle := testBundle(0, testSlot+5)
	hash, err := share.Add(bundle)
	require.NoError(t, err)
	require.Len(t, sent, 1)
	require.NoError(t, peer.take(sent[0]))
	st, err := b.Status(hash)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Pending, st.State)
	require.Equal(t, bundle.Expiry, st.Expiry)
	require.ErrorIs(t, peer.take(sent[0]), cometbft.ErrKnown)
	require.Equal(t, sent, waiting(b), "for a peer that connects later")

	// One that is refused is not told of, and what the network says is not the sender's fault.
	_, err = share.Add(testBundle(1, testSlot-1))
	require.Error(t, err)
	require.Len(t, sent, 1)
	share.others = &network{&sent, errors.New("no network")}
	_, err = share.Add(testBundle(1, testSlot+5))
	require.NoError(t, err)
}

// network is where a pool's bundles and cancellations are sent.
type network struct {
	sent *[][]byte
	err  error
}

func (n *network) Broadcast(data []byte) error {
	if n.err == nil {
		*n.sent = append(*n.sent, data)
	}
	return n.err
}

func (n *network) BroadcastCancel(data []byte) error { return n.Broadcast(data) }

// A cancellation goes the same way.
func TestCancellationsAreShared(t *testing.T) {
	a, b := testPool(901), testPool(901)
	peer := gossiped{b, 1 << 20}
	var sent [][]byte
	share := &sharingPool{Pool: a, log: log.NewLogger(log.DiscardHandler()), unshared: func() {}, others: &network{&sent, nil}}
	hash, err := share.Add(testBundle(0, testSlot+5))
	require.NoError(t, err)
	sign := func(account int) []byte {
		sig, err := crypto.Sign(accounts.TextHash([]byte(bundlepool.CancelText(hash))), enginetest.Accounts(2)[account].Key)
		require.NoError(t, err)
		return sig
	}
	require.ErrorIs(t, share.Cancel(hash, sign(1)), bundlepool.ErrNotSender)
	require.NoError(t, share.Cancel(hash, sign(0)))
	require.Len(t, sent, 2)
	require.ErrorIs(t, peer.cancel(sent[1]), cometbft.ErrNotNow, "it has not heard of the bundle yet")
	require.NoError(t, peer.take(sent[0]))
	require.NoError(t, peer.cancel(sent[1]))
	st, err := b.Status(hash)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Cancelled, st.State)
	require.ErrorIs(t, peer.cancel(sent[1]), cometbft.ErrKnown)
	require.ErrorIs(t, peer.take(sent[0]), cometbft.ErrKnown, "it does not come back")
	require.ErrorIs(t, peer.cancel(sent[1][:96]), cometbft.ErrGarbage)
}

// What a bundle that is not taken says about the peer that passed it on.
func TestBadBundlesOfPeers(t *testing.T) {
	g := gossiped{testPool(901, 902), 1 << 20}
	sign := func(chain, txChain uint64, to *common.Address) []byte {
		tx := types.MustSignNewTx(enginetest.Accounts(1)[0].Key, types.LatestSignerForChainID(new(big.Int).SetUint64(txChain)),
			&types.DynamicFeeTx{ChainID: new(big.Int).SetUint64(txChain), Gas: 21000, To: to, GasFeeCap: big.NewInt(1), GasTipCap: big.NewInt(1)})
		raw, err := tx.MarshalBinary()
		require.NoError(t, err)
		return (&sequence.Bundle{Expiry: testSlot + 5, Items: []sequence.BundleItem{{Chain: sequence.ChainID(chain), Transaction: raw}}}).Encode()
	}
	to := common.Address{1}
	for name, tt := range map[string]struct {
		data []byte
		want error // nil: a fault that is counted
	}{
		"garbage":       {[]byte{1, 2, 3}, cometbft.ErrGarbage},
		"expired":       {testBundle(0, testSlot-1).Encode(), cometbft.ErrNotNow},
		"far ahead":     {testBundle(0, testSlot+100_000).Encode(), cometbft.ErrNotNow},
		"unknown chain": {sign(903, 903, &to), cometbft.ErrNotNow},
		"wrong chain":   {sign(902, 901, &to), nil},
		"empty":         {(&sequence.Bundle{Expiry: testSlot}).Encode(), nil},
		"too long":      {make([]byte, 1<<20+1), cometbft.ErrNotNow},
	} {
		err := g.take(tt.data)
		require.Error(t, err, name)
		for _, kind := range []error{cometbft.ErrGarbage, cometbft.ErrNotNow, cometbft.ErrKnown} {
			require.Equal(t, errors.Is(tt.want, kind), errors.Is(err, kind), "%s: %v", name, err)
		}
	}
	for nonce := range uint64(2) {
		require.NoError(t, g.take(testBundle(nonce, testSlot+5).Encode()))
	}
	require.ErrorIs(t, g.take(testBundle(2, testSlot+5).Encode()), cometbft.ErrNotNow, "the sender has too many")
	require.ErrorIs(t, g.take(testBundle(2, testSlot+5).Encode()), bundlepool.ErrSenderLimit)
}

type fixedTurns struct{ rotation.Rotation }

func (fixedTurns) Schedule(n int) []rotation.Turn {
	turns := make([]rotation.Turn, n)
	for i := range turns {
		turns[i] = rotation.Turn{Height: uint64(7 + i), Leader: common.Address{byte(i)}}
	}
	return turns
}

func TestLeaderScheduleTimes(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	due := now.Add(100 * time.Millisecond)
	a := &agreement{sh: &shared{rotation: fixedTurns{}}, due: func() time.Time { return due }, every: 200 * time.Millisecond, now: func() time.Time { return now }}
	turns := a.LeaderSchedule(3)
	for i, want := range []uint64{1_000_100, 1_000_300, 1_000_500} {
		require.EqualValues(t, want, *turns[i].Expected)
		require.EqualValues(t, 7+i, turns[i].Height)
		require.Equal(t, common.Address{byte(i)}, turns[i].Leader)
	}
	due = now.Add(-time.Second)
	for _, turn := range a.LeaderSchedule(3) {
		require.Nil(t, turn.Expected, "the set is behind")
	}
}

// The whole host as the one operator of a set: it serves what the set is, and takes changes.
func TestOperator(t *testing.T) {
	cfg, engines := realConfig(t)
	ss := &cfg.SharedSequencer
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("operator")))
	require.NoError(t, err)
	keys, err := cometbft.CreateKeys(config.ConsensusDir(ss.DataDir), cometbft.Protection{Password: "correct horse", Cost: keyfile.Light})
	require.NoError(t, err)
	self := crypto.PubkeyToAddress(key.PublicKey)
	genesis := &operators.Genesis{
		Set: "test", Time: time.Now().UTC(), Chains: ss.Chains,
		Operators: []operators.Operator{{Name: "self", Address: self, ConsensusKey: keys.ConsensusKey, Power: 3}},
	}
	ss.Rotation = config.CometBFT
	ss.Agreement.Operators, ss.Agreement.OperatorKey, ss.Agreement.Listen = genesis, key, "127.0.0.1:0"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for password, want := range map[keyfile.Password]error{"": keyfile.ErrProtected, "wrong": keyfile.ErrWrongPassword} {
		ss.Agreement.Password = password
		s, err := New(log.NewLogger(log.DiscardHandler()), cfg, Options{Engines: engines})
		require.NoError(t, err)
		require.ErrorIs(t, s.Start(ctx), want)
	}
	ss.Agreement.Password = "correct horse"

	for range 2 { // it starts again where it was
		s := running(t, cfg, Options{Engines: engines})
		c, err := rpc.Dial(ctx, s.SharedSequencerURL())
		require.NoError(t, err)
		st, err := c.Status(ctx)
		require.NoError(t, err)
		require.True(t, st.Leader, "nobody else can")
		require.Equal(t, keys.NodeID, st.Agreement.NodeID)
		require.Equal(t, self, st.Agreement.Operator)
		require.EqualValues(t, 3, st.Agreement.Power)
		require.Zero(t, st.Agreement.Height, "no L1, no slots")
		require.Zero(t, st.Agreement.LastLeader)
		require.Equal(t, []string{}, st.Agreement.Connected)
		require.Zero(t, st.Bundles)

		turns, err := c.LeaderSchedule(ctx, 2)
		require.NoError(t, err)
		require.EqualValues(t, 1, turns[0].Height)
		require.Equal(t, self, turns[1].Leader)

		set, err := c.Operators(ctx)
		require.NoError(t, err)
		require.Equal(t, genesis.ID(), set.Set)
		require.Len(t, set.Operators, 1)
		require.Equal(t, "self", set.Operators[0].Name)
		require.Equal(t, []hexutil.Uint64{901, 902}, set.Chains)

		change, err := operators.SignChange(genesis.ID(), operators.Change{Kind: operators.LeaveChain, Chain: 902, Expiry: 60}, key) // no slot was sealed yet
		require.NoError(t, err)
		for range 2 {
			id, err := c.SubmitChange(ctx, change)
			require.NoError(t, err, "also a second time")
			require.Equal(t, change.ID(), id)
		}
		evidence, err := c.Evidence(ctx)
		require.NoError(t, err)
		require.Empty(t, evidence.Subblocks)
		c.Close()
		stop(t, s)
	}

	// Another set's genesis does not fit the data.
	other := *genesis
	other.Set = "other"
	ss.Agreement.Operators = &other
	s, err := New(log.NewLogger(log.DiscardHandler()), cfg, Options{Engines: engines})
	require.NoError(t, err)
	require.ErrorContains(t, s.Start(ctx), "set")
}
