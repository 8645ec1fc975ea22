package embedded_test

import (
	"context"
	"crypto/ecdsa"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/p2p/enode"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
)

// operators are the engines of one chain at several operators, each a peer of all others.
type operators struct {
	t     *testing.T
	ctx   context.Context
	chain *enginetest.Chain
	cfgs  []embedded.Config
	nodes []*embedded.Node
}

func newOperators(t *testing.T, n int) *operators {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	o := &operators{t: t, ctx: ctx, chain: enginetest.NewChain(901, 16), nodes: make([]*embedded.Node, n)}
	var peers []*enode.Node
	for i := range n {
		key := nodeKey(t, byte(i+1))
		port := freePort(t)
		peers = append(peers, embedded.Peer(&key.PublicKey, net.IPv4(127, 0, 0, 1), port))
		o.cfgs = append(o.cfgs, embedded.Config{
			Chain: 901, Genesis: o.chain.Genesis, DataDir: t.TempDir(), Cache: embedded.Cache{Database: 16, State: 16, Snapshot: 16},
			P2P: &embedded.P2P{Listen: embedded.Listen{Port: port}, Key: key},
		})
	}
	for i := range n {
		for j, p := range peers {
			if j != i {
				o.cfgs[i].P2P.Peers = append(o.cfgs[i].P2P.Peers, p)
			}
		}
		o.start(i)
		require.Equal(t, peers[i].ID(), o.nodes[i].Enode().ID())
	}
	t.Cleanup(func() {
		for i := range n {
			o.stop(i)
		}
	})
	return o
}

func nodeKey(t *testing.T, seed byte) *ecdsa.PrivateKey {
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte{seed}))
	require.NoError(t, err)
	return key
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (o *operators) start(i int) {
	n, err := embedded.Start(o.cfgs[i])
	require.NoError(o.t, err)
	o.nodes[i] = n
}

func (o *operators) stop(i int) {
	if n := o.nodes[i]; n != nil {
		require.NoError(o.t, n.Close())
		o.nodes[i] = nil
	}
}

func (o *operators) meet() {
	for i, n := range o.nodes {
		require.Eventually(o.t, func() bool { return n.Peers() == len(o.nodes)-1 }, 30*time.Second, 5*time.Millisecond, "operator %d has %d peers", i, n.Peers())
	}
}

// build runs one block with the transactions in a session of the operator's own, and
// makes it the head, as the sequencer does on the leader and on every follower.
func (o *operators) build(i int, txs ...[]byte) common.Hash {
	e := o.nodes[i].Engine()
	head, err := e.Head(o.ctx)
	require.NoError(o.t, err)
	s, err := e.Open(o.ctx, head.ID(), o.chain.Attributes(head))
	require.NoError(o.t, err)
	if len(txs) > 0 {
		_, err = s.Execute(o.ctx, txs, true)
		require.NoError(o.t, err)
	}
	sealed, err := s.Seal(o.ctx)
	require.NoError(o.t, err)
	hash := sealed.ExecutionPayload.BlockHash
	require.NoError(o.t, e.Insert(o.ctx, hash))
	require.NoError(o.t, e.SetHead(o.ctx, hash, common.Hash{}, common.Hash{}))
	return hash
}

// spreads sends a transaction to one operator and waits until every pool has it.
func (o *operators) spreads(from int, raw []byte) {
	tx := enginetest.Decode(o.t, raw)
	begin := time.Now()
	require.NoError(o.t, o.nodes[from].Backend().APIBackend.SendTx(o.ctx, tx))
	for i, n := range o.nodes {
		require.Eventually(o.t, func() bool { return n.Backend().TxPool().Has(tx.Hash()) }, 20*time.Second, time.Millisecond, "operator %d", i)
	}
	o.t.Logf("from operator %d to all %d pools in %v", from, len(o.nodes), time.Since(begin))
}

// A plain transaction that one operator's engine takes in reaches the others' pools,
// also those whose engines only ever follow: sealed blocks and forkchoices, no sync.
func TestTransactionGossip(t *testing.T) {
	t.Parallel()
	o := newOperators(t, 4)
	o.meet()
	account := 0 // each sends once: a restarted pool does not know the earlier ones
	send := func(from int) {
		o.spreads(from, o.chain.Transfer(account, 0, enginetest.Recipient(from)))
		account++
	}
	// op-geth drops what peers send until it was given a head.
	for i := range o.nodes {
		require.False(t, o.nodes[i].Backend().Synced())
		o.build(i)
		require.True(t, o.nodes[i].Backend().Synced())
	}
	for i := range o.nodes {
		send(i)
	}
	for range 3 {
		first := o.build(0)
		for i := 1; i < len(o.nodes); i++ {
			require.Equal(t, first, o.build(i))
		}
	}
	send(0)

	// A stopped one comes back by itself, with the identity the others know.
	o.stop(1)
	o.start(1)
	o.meet()
	e := o.nodes[1].Engine()
	head, err := e.Head(o.ctx)
	require.NoError(t, err)
	require.NoError(t, e.SetHead(o.ctx, head.Hash, common.Hash{}, common.Hash{}))
	send(2)
	send(1)
}

// A rollup node may send an engine that lost blocks to a head it does not have. With
// peers op-geth then fetches blocks by itself. It must end where the ledger's refill and
// the sessions take it.
func TestUnknownHeadWithPeers(t *testing.T) {
	t.Parallel()
	o := newOperators(t, 2)
	o.meet()
	var payloads []*eth.ExecutionPayloadEnvelope
	leader, follower := o.nodes[0].Engine(), o.nodes[1].Engine()
	for range 6 {
		p, err := leader.Payload(o.ctx, o.build(0))
		require.NoError(t, err)
		payloads = append(payloads, p)
	}
	head := payloads[len(payloads)-1].ExecutionPayload
	err := follower.SetHead(o.ctx, head.BlockHash, common.Hash{}, common.Hash{})
	require.Error(t, err, "it does not have the block yet")
	for _, p := range payloads {
		require.NoError(t, follower.Import(o.ctx, p))
	}
	require.NoError(t, follower.SetHead(o.ctx, head.BlockHash, common.Hash{}, common.Hash{}))
	at := func(e engine.Engine) common.Hash {
		h, err := e.Head(o.ctx)
		require.NoError(t, err)
		return h.Hash
	}
	require.Equal(t, head.BlockHash, at(follower))
	for range 3 {
		want := o.build(0)
		require.Equal(t, want, o.build(1))
		require.Equal(t, want, at(follower))
	}
	// Also while it still fetches.
	o.build(0)
	ahead := o.build(0)
	require.Error(t, follower.SetHead(o.ctx, ahead, common.Hash{}, common.Hash{}))
	require.Eventually(t, func() bool { return at(follower) == ahead }, 30*time.Second, 10*time.Millisecond, "op-geth fetches what it was sent to")
	require.Equal(t, o.build(0), o.build(1))
}
