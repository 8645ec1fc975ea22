package engine_test

// What every Engine has to do, against a real op-geth in this process:
//
//	embedded   direct calls
//	ws, http   Client over the authenticated port, with JWT
//
// Opening (forced transactions, bad attributes, unknown parent, lost state), execution
// (results, logs, revert data, stopping, malformed bytes), atomic lists, savepoints,
// fill, reads, sealing, storing, importing on another node, moving the head, closed
// sessions, cancelled calls, an engine that restarts, several engines at once.

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/trie"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// One pool per process, never stopped.
		goleak.IgnoreTopFunction("github.com/ethereum/go-ethereum/core.(*txSenderCacher).cache"),
		// Ends a second after its database was closed (op-geth's node database).
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
	)
}

var jwtSecret = [32]byte{1, 2, 3}

// rig is a node and the engine under test in front of it.
type rig struct {
	t     testing.TB
	chain *enginetest.Chain
	cfg   embedded.Config
	node  *embedded.Node
	e     engine.Engine
	front func(*rig) engine.Engine
}

var fronts = []struct {
	name string
	new  func(*rig) engine.Engine
}{
	{"embedded", func(r *rig) engine.Engine { return r.node.Engine() }},
	{"ws", func(r *rig) engine.Engine { return r.dial(r.node.AuthEndpoint()) }},
	{"http", func(r *rig) engine.Engine { return r.dial(r.node.AuthHTTPEndpoint()) }},
}

func (r *rig) dial(addr string) *engine.Client {
	r.t.Helper()
	c, err := engine.Dial(ctxFor(r.t), log.NewLogger(log.DiscardHandler()), r.chain.Rollup, addr, jwtSecret, engine.Options{})
	require.NoError(r.t, err)
	r.t.Cleanup(c.Close)
	return c
}

// each runs a test against every implementation.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, newRig(t, enginetest.NewChain(901, 20), f.new))
		})
	}
}

func newRig(t testing.TB, chain *enginetest.Chain, front func(*rig) engine.Engine) *rig {
	r := &rig{t: t, chain: chain, front: front}
	r.cfg = embedded.Config{Chain: chain.ID, Genesis: chain.Genesis, JWTSecret: jwtSecret}
	r.start()
	r.e = front(r)
	return r
}

func (r *rig) start() {
	n, err := embedded.Start(r.cfg)
	require.NoError(r.t, err)
	r.node = n
	r.t.Cleanup(func() { n.Close() }) // a second time after a test that stops it
}

// ctxFor ends with the test, or when it hangs.
func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (r *rig) head() engine.BlockInfo {
	r.t.Helper()
	h, err := r.e.Head(ctxFor(r.t))
	require.NoError(r.t, err)
	return h
}

// open starts a block on the head.
func (r *rig) open(forced ...[]byte) engine.Session {
	r.t.Helper()
	return r.openOn(r.e, r.head(), forced...)
}

func (r *rig) openOn(e engine.Engine, parent engine.BlockInfo, forced ...[]byte) engine.Session {
	r.t.Helper()
	s, err := e.Open(ctxFor(r.t), parent.ID(), r.chain.Attributes(parent, forced...))
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Discard(ctx) // the node may have stopped
	})
	return s
}

func (r *rig) execute(s engine.Session, atomic bool, txs ...[]byte) []engine.TxResult {
	r.t.Helper()
	res, err := s.Execute(ctxFor(r.t), txs, atomic)
	require.NoError(r.t, err)
	return res
}

func (r *rig) account(s engine.Session, addr common.Address) engine.Account {
	r.t.Helper()
	a, err := s.Account(ctxFor(r.t), addr)
	require.NoError(r.t, err)
	return a
}

func (r *rig) result(s engine.Session) sequence.Result {
	r.t.Helper()
	res, err := s.Result(ctxFor(r.t))
	require.NoError(r.t, err)
	return res
}

// seal ends the session, stores its block and makes it the head.
func (r *rig) seal(s engine.Session) *eth.ExecutionPayloadEnvelope {
	r.t.Helper()
	ctx := ctxFor(r.t)
	p, err := s.Seal(ctx)
	require.NoError(r.t, err)
	hash := p.ExecutionPayload.BlockHash
	require.NoError(r.t, r.e.Insert(ctx, hash))
	require.NoError(r.t, r.e.SetHead(ctx, hash, common.Hash{}, common.Hash{}))
	return p
}

func (r *rig) addToPool(raw ...[]byte) {
	r.t.Helper()
	txs := make([]*types.Transaction, len(raw))
	for i, b := range raw {
		txs[i] = enginetest.Decode(r.t, b)
	}
	for _, err := range r.node.Backend().TxPool().Add(txs, true) {
		require.NoError(r.t, err)
	}
}

func to(i int) common.Address { return enginetest.Recipient(i) }

func TestOpen(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		require.Equal(t, r.chain.ID, r.e.Chain())
		forced := [][]byte{
			enginetest.Deposit(1, enginetest.Log, 5, []byte("hello")),
			enginetest.Deposit(2, enginetest.Fail, 7, []byte("no")),
		}
		s := r.open(forced...)
		require.Equal(t, engine.Header{
			Number: 1, Time: enginetest.GenesisTime + 1, GasLimit: enginetest.GasLimit, BaseFee: s.Header().BaseFee, Extra: s.Header().Extra,
		}, s.Header())
		require.Positive(t, s.Header().BaseFee.Sign())

		res := s.Forced()
		require.Len(t, res, 3)
		require.Equal(t, enginetest.L1Info(0), res[0].Raw)
		for i, raw := range forced {
			require.Equal(t, raw, res[i+1].Raw)
			require.Equal(t, enginetest.Decode(t, raw).Hash(), res[i+1].Hash)
			require.True(t, res[i+1].Included())
		}
		require.True(t, res[1].Succeeded())
		require.Len(t, res[1].Logs, 1)
		require.Equal(t, []byte("hello"), res[1].Logs[0].Data)
		require.False(t, res[2].Succeeded(), "a failed deposit is in the block")
		require.EqualValues(t, 3, r.result(s).Transactions)
	})
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx, head := ctxFor(t), r.head()
		_, err := r.e.Open(ctx, eth.BlockID{Hash: common.Hash{9}, Number: 0}, r.chain.Attributes(head))
		require.ErrorIs(t, err, engine.ErrUnknownParent)

		_, err = r.e.Open(ctx, head.ID(), nil)
		require.ErrorIs(t, err, engine.ErrInvalidAttributes)
		for name, spoil := range map[string]func(a *eth.PayloadAttributes){
			"no gas limit":         func(a *eth.PayloadAttributes) { a.GasLimit = nil },
			"no withdrawals":       func(a *eth.PayloadAttributes) { a.Withdrawals = nil },
			"no beacon root":       func(a *eth.PayloadAttributes) { a.ParentBeaconBlockRoot = nil },
			"no EIP-1559 params":   func(a *eth.PayloadAttributes) { a.EIP1559Params = nil },
			"half EIP-1559 params": func(a *eth.PayloadAttributes) { a.EIP1559Params = &eth.Bytes8{0, 0, 0, 0, 0, 0, 0, 1} },
			"no min base fee":      func(a *eth.PayloadAttributes) { a.MinBaseFee = nil },
			"time of the parent":   func(a *eth.PayloadAttributes) { a.Timestamp = eth.Uint64Quantity(head.Time) },
			"garbage transaction":  func(a *eth.PayloadAttributes) { a.Transactions = append(a.Transactions, eth.Data{1, 2, 3}) },
			"wrong nonce": func(a *eth.PayloadAttributes) {
				a.Transactions = append(a.Transactions, r.chain.Transfer(0, 5, to(1)))
			},
		} {
			a := r.chain.Attributes(head)
			spoil(a)
			_, err := r.e.Open(ctx, head.ID(), a)
			require.ErrorIs(t, err, engine.ErrInvalidAttributes, name)
		}
		// Nothing is left over from those.
		r.seal(r.open())
	})
}

// A state is gone once 128 blocks were stored on top of it.
func TestOpenOnLostState(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		genesis := r.head()
		for range 130 {
			r.seal(r.open())
		}
		_, err := r.e.Open(ctxFor(t), genesis.ID(), r.chain.Attributes(genesis))
		require.ErrorIs(t, err, engine.ErrParentState)
	})
}

func TestExecute(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		s := r.open(enginetest.Deposit(1, enginetest.Log, 1, []byte("deposit")))
		require.Empty(t, r.execute(s, false))

		txs := [][]byte{
			r.chain.Transfer(0, 0, to(1)),
			r.chain.Call(0, 1, enginetest.Log, []byte("first"), 100_000),
			r.chain.Call(1, 0, enginetest.Fail, []byte("because"), 100_000),
			r.chain.Call(1, 1, enginetest.Echo, []byte("echo"), 100_000),
			r.chain.Call(0, 2, enginetest.Log, []byte("second"), 100_000),
		}
		res := r.execute(s, false, txs...)
		require.Len(t, res, len(txs))
		for i := range res {
			require.NoError(t, res[i].Err)
			require.Equal(t, txs[i], res[i].Raw)
			require.Equal(t, enginetest.Decode(t, txs[i]).Hash(), res[i].Hash)
			require.Equal(t, i != 2, res[i].Succeeded(), "transaction %d", i)
		}
		require.EqualValues(t, params.TxGas, res[0].GasUsed)
		require.Empty(t, res[0].Logs)
		require.Equal(t, []byte("because"), res[2].ReturnData)
		require.True(t, res[2].Included())
		require.Equal(t, []byte("echo"), res[3].ReturnData)

		for i, want := range map[int]string{1: "first", 4: "second"} {
			require.Len(t, res[i].Logs, 1)
			l := res[i].Logs[0]
			require.Equal(t, []byte(want), l.Data)
			require.Equal(t, enginetest.Log, l.Address)
			require.Equal(t, []common.Hash{enginetest.LogTopic}, l.Topics)
			require.Equal(t, uint64(1), l.BlockNumber)
			require.Equal(t, res[i].Hash, l.TxHash)
		}
		// The deposit's log has index 0.
		require.EqualValues(t, 1, res[1].Logs[0].Index)
		require.EqualValues(t, 2, res[4].Logs[0].Index)

		require.EqualValues(t, 1, r.account(s, to(1)).Balance.Int64())
		require.EqualValues(t, 3, r.account(s, r.chain.Accounts[0].Addr).Nonce)
		none := r.account(s, to(99))
		require.Zero(t, none.Nonce)
		require.Zero(t, none.Balance.Sign())
	})
}

func TestExecuteStops(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		s := r.open()
		good := func(nonce uint64) []byte { return r.chain.Transfer(0, nonce, to(1)) }
		res := r.execute(s, false, good(0), r.chain.Transfer(1, 7, to(1)), good(1))
		require.Len(t, res, 2)
		require.True(t, res[0].Succeeded())
		require.ErrorContains(t, res[1].Err, "nonce too high")
		require.False(t, res[1].Included())

		// Bytes that are no transaction, at the start and in the middle.
		garbage := []byte{0x02, 0xff}
		res = r.execute(s, false, garbage, good(1))
		require.Len(t, res, 1)
		require.ErrorContains(t, res[0].Err, "malformed transaction")
		require.Equal(t, garbage, res[0].Raw)
		res = r.execute(s, false, good(1), nil, good(2))
		require.Len(t, res, 2)
		require.True(t, res[0].Succeeded())
		require.Error(t, res[1].Err)
		// One that fails before them is the reason.
		res = r.execute(s, false, good(9), garbage)
		require.Len(t, res, 1)
		require.ErrorContains(t, res[0].Err, "nonce too high")

		// Deposits come from attributes only.
		res = r.execute(s, false, enginetest.Deposit(3, to(1), 1, nil))
		require.Len(t, res, 1)
		require.Error(t, res[0].Err)

		require.EqualValues(t, 2, r.account(s, r.chain.Accounts[0].Addr).Nonce)
		require.EqualValues(t, 3, r.result(s).Transactions)
	})
}

// What the pool knows of a transaction beside what its hash covers, a condition that its sender has
// set here, is nothing to those who follow what was agreed on.
func TestExecuteWhatThePoolHas(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		raw := r.chain.Transfer(0, 0, to(1))
		tx := enginetest.Decode(t, raw)
		over := uint64(1) // long ago
		tx.SetConditional(&types.TransactionConditional{TimestampMax: &over})
		other := r.chain.Transfer(1, 0, to(1))
		for _, err := range r.node.Backend().TxPool().Add([]*types.Transaction{tx, enginetest.Decode(t, other)}, true) {
			require.NoError(t, err)
		}
		require.NotNil(t, r.node.Backend().TxPool().Get(tx.Hash()).Conditional())
		res := r.execute(r.open(), false, raw, other)
		require.Len(t, res, 2)
		for i, raw := range [][]byte{raw, other} {
			require.NoError(t, res[i].Err)
			require.Equal(t, types.ReceiptStatusSuccessful, res[i].Status)
			require.Equal(t, raw, res[i].Raw)
		}
	})
}

func TestExecuteAtomic(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		s := r.open()
		before := r.result(s)
		sender := r.chain.Accounts[0].Addr
		good := func(nonce uint64) []byte { return r.chain.Transfer(0, nonce, to(1)) }
		for name, c := range map[string]struct {
			txs   [][]byte
			index int
			why   string
			data  string
		}{
			"reverts":         {[][]byte{good(0), r.chain.Call(1, 0, enginetest.Fail, []byte("why"), 100_000), good(1)}, 1, "reverted", "why"},
			"cannot be run":   {[][]byte{good(0), good(1), good(1)}, 2, "nonce too low", ""},
			"malformed":       {[][]byte{good(0), {3}, good(1)}, 1, "malformed", ""},
			"only malformed":  {[][]byte{{3}}, 0, "malformed", ""},
			"fails, then bad": {[][]byte{good(1), {3}}, 0, "nonce too high", ""},
		} {
			res := r.execute(s, true, c.txs...)
			require.Len(t, res, c.index+1, name)
			require.ErrorContains(t, res[c.index].Err, c.why, name)
			require.Equal(t, c.data, string(res[c.index].ReturnData), name)
			require.Equal(t, before, r.result(s), name)
			require.Zero(t, r.account(s, sender).Nonce, name)
			require.Zero(t, r.account(s, to(1)).Balance.Sign(), name)
		}
		res := r.execute(s, true, good(0), good(1))
		require.Len(t, res, 2)
		require.NoError(t, res[1].Err)
		require.EqualValues(t, 2, r.account(s, to(1)).Balance.Int64())
	})
}

func TestSavepoints(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx, s := ctxFor(t), r.open()
		mark := func() engine.Savepoint {
			p, err := s.Savepoint(ctx)
			require.NoError(t, err)
			return p
		}
		logOf := func(nonce uint64) []byte { return r.chain.Call(0, nonce, enginetest.Log, []byte("x"), 100_000) }
		empty := r.result(s)
		p0 := mark()
		require.True(t, r.execute(s, false, logOf(0))[0].Succeeded())
		one := r.result(s)
		p1 := mark()
		r.execute(s, false, logOf(1))
		p2 := mark()
		r.execute(s, false, logOf(2))
		require.NoError(t, s.Rollback(ctx, p1)) // consumes p2 with it
		require.Equal(t, one, r.result(s))
		require.Error(t, s.Rollback(ctx, p2))
		require.Error(t, s.Release(ctx, p1))

		// The log indices start again where they were.
		res := r.execute(s, false, logOf(1))
		require.EqualValues(t, 1, res[0].Logs[0].Index)
		p3 := mark()
		r.execute(s, false, logOf(2))
		require.NoError(t, s.Release(ctx, p3))
		require.EqualValues(t, 3, r.account(s, r.chain.Accounts[0].Addr).Nonce)
		require.NoError(t, s.Rollback(ctx, p0))
		require.Equal(t, empty, r.result(s))

		// The block is the one that never saw any of it.
		other := r.openOn(r.e, r.head())
		a, err := s.Seal(ctx)
		require.NoError(t, err)
		b, err := other.Seal(ctx)
		require.NoError(t, err)
		require.Equal(t, b.ExecutionPayload.BlockHash, a.ExecutionPayload.BlockHash)
	})
}

func TestFill(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx := ctxFor(t)
		skipped := r.chain.Transfer(1, 0, to(2))
		r.addToPool(
			r.chain.Transfer(0, 0, to(1)), r.chain.Transfer(0, 1, to(1)),
			skipped, r.chain.Transfer(1, 1, to(2)),
			r.chain.Interop(2, 0, to(3)), r.chain.Transfer(2, 1, to(3)),
		)
		// NoTxPool takes nothing.
		attrs := r.chain.Attributes(r.head())
		attrs.NoTxPool = true
		closed, err := r.e.Open(ctx, r.head().ID(), attrs)
		require.NoError(t, err)
		res, _, err := closed.Fill(ctx, engine.FillOptions{})
		require.NoError(t, err)
		require.Empty(t, res)
		require.NoError(t, closed.Discard(ctx))

		// A budget for one transfer.
		s := r.open()
		res, _, err = s.Fill(ctx, engine.FillOptions{MaxGas: params.TxGas, MaxTime: 10 * time.Second, Skip: []common.Hash{enginetest.Decode(t, skipped).Hash()}})
		require.NoError(t, err)
		require.Len(t, res, 1)
		require.Equal(t, r.chain.Transfer(0, 0, to(1)), res[0].Raw)
		require.True(t, res[0].Succeeded())
		require.EqualValues(t, params.TxGas, res[0].GasUsed)

		// The rest: neither what is skipped, nor interop transactions, nor what needs them.
		res, _, err = s.Fill(ctx, engine.FillOptions{Skip: []common.Hash{enginetest.Decode(t, skipped).Hash()}})
		require.NoError(t, err)
		require.Len(t, res, 1)
		require.Equal(t, r.chain.Transfer(0, 1, to(1)), res[0].Raw)
		res, _, err = s.Fill(ctx, engine.FillOptions{MaxTime: time.Nanosecond * 1500}) // less than the wire's millisecond
		require.NoError(t, err)
		require.LessOrEqual(t, len(res), 2)

		// What may execute messages can be taken back, and only that has a savepoint.
		skip := []common.Hash{enginetest.Decode(t, skipped).Hash()}
		_, before, err := s.Fill(ctx, engine.FillOptions{Interop: true, Skip: append(skip, enginetest.Decode(t, r.chain.Interop(2, 0, to(3))).Hash())})
		require.NoError(t, err)
		require.Nil(t, before)
		was, err := s.Result(ctx)
		require.NoError(t, err)
		res, before, err = s.Fill(ctx, engine.FillOptions{Interop: true, Skip: skip})
		require.NoError(t, err)
		require.Len(t, res, 2)
		require.NotNil(t, before)
		require.NoError(t, s.Rollback(ctx, *before))
		is, err := s.Result(ctx)
		require.NoError(t, err)
		require.Equal(t, was, is)
		p := r.seal(s)
		require.GreaterOrEqual(t, len(p.ExecutionPayload.Transactions), 3)
		hash, ok := p.CheckBlockHash()
		require.True(t, ok, "sealed as %s, is %s", p.ExecutionPayload.BlockHash, hash)
		require.Zero(t, r.accountOnHead(to(3)))
	})
}

func TestFillOrder(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		began := time.Unix(1_700_000_000, 0)
		recipient := to(1)
		var arrived, byTip []common.Hash
		for i, tip := range []int64{1, 3, 2} { // in the order they arrive
			tx := r.chain.Tx(i, &types.DynamicFeeTx{To: &recipient, Gas: params.TxGas, GasFeeCap: big.NewInt(params.GWei), GasTipCap: big.NewInt(tip)})
			tx.SetTime(began.Add(time.Duration(i)))
			require.NoError(t, errors.Join(r.node.Backend().TxPool().Add([]*types.Transaction{tx}, true)...))
			arrived = append(arrived, tx.Hash())
		}
		byTip = []common.Hash{arrived[1], arrived[2], arrived[0]}
		for order, want := range map[engine.Order][]common.Hash{"": byTip, engine.Priority: byTip, engine.FCFS: arrived} {
			s := r.open()
			res, _, err := s.Fill(ctxFor(t), engine.FillOptions{Order: order})
			require.NoError(t, err)
			var got []common.Hash
			for i := range res {
				got = append(got, res[i].Hash)
			}
			require.Equal(t, want, got, "order %q", order)
			require.NoError(t, s.Discard(ctxFor(t)))
		}
		s := r.open()
		_, _, err := s.Fill(ctxFor(t), engine.FillOptions{Order: "lifo"})
		require.ErrorContains(t, err, `unknown order "lifo"`)
		require.True(t, r.execute(s, false, r.chain.Transfer(5, 0, to(1)))[0].Succeeded(), "the session goes on")
	})
}

func (r *rig) accountOnHead(addr common.Address) int64 {
	return r.account(r.open(), addr).Balance.Int64()
}

// The pool follows the head in its own time, and a fill waits for it.
func TestFillWaitsForPool(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		for slot := range uint64(10) {
			r.addToPool(r.chain.Transfer(0, slot, to(1)))
			s := r.open()
			res, _, err := s.Fill(ctxFor(t), engine.FillOptions{MaxTime: 20 * time.Second})
			require.NoError(t, err)
			require.Len(t, res, 1)
			r.seal(s)
		}
		// A parent the pool will not come to (it was past it already): the session
		// stays usable.
		parent, err := r.e.Block(ctxFor(t), 5)
		require.NoError(t, err)
		s := r.openOn(r.e, parent)
		_, _, err = s.Fill(ctxFor(t), engine.FillOptions{MaxTime: 5 * time.Millisecond})
		require.ErrorIs(t, err, engine.ErrPoolBehind)
		require.True(t, r.execute(s, false, r.chain.Transfer(1, 0, to(1)))[0].Succeeded())
	})
}

func TestSealAndStore(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx, genesis := ctxFor(t), r.head()
		other := newRig(t, r.chain, r.front)
		s := r.open(enginetest.Deposit(1, enginetest.Log, 5, []byte("deposit")))
		results := append([]engine.TxResult{}, s.Forced()...)
		results = append(results, r.execute(s, false,
			r.chain.Call(0, 0, enginetest.Log, []byte("hi"), 100_000),
			r.chain.Call(1, 0, enginetest.Fail, nil, 100_000))...)
		commitment := r.result(s)

		payload, err := s.Seal(ctx)
		require.NoError(t, err)
		p := payload.ExecutionPayload
		require.Equal(t, sequence.Result{
			Chain: r.chain.ID, Transactions: uint64(len(p.Transactions)),
			GasUsed: uint64(p.GasUsed), ReceiptsRoot: common.Hash(p.ReceiptsRoot),
		}, commitment)
		for i, res := range results {
			require.Equal(t, []byte(p.Transactions[i]), res.Raw)
		}
		_, ok := payload.CheckBlockHash()
		require.True(t, ok)

		// Not there until it is inserted; the head does not move by it.
		_, err = r.e.BlockByHash(ctx, p.BlockHash)
		require.ErrorIs(t, err, engine.ErrNotFound)
		require.NoError(t, r.e.Insert(ctx, p.BlockHash))
		require.NoError(t, r.e.Insert(ctx, p.BlockHash), "again")
		require.NoError(t, r.e.Import(ctx, payload), "known")
		require.Equal(t, genesis, r.head())
		_, err = r.e.Block(ctx, 1)
		require.ErrorIs(t, err, engine.ErrNotFound)
		want := engine.BlockInfo{Hash: p.BlockHash, Number: 1, ParentHash: genesis.Hash, Time: uint64(p.Timestamp)}
		got, err := r.e.BlockByHash(ctx, p.BlockHash)
		require.NoError(t, err)
		require.Equal(t, want, got)

		require.NoError(t, r.e.SetHead(ctx, p.BlockHash, genesis.Hash, genesis.Hash))
		require.Equal(t, want, r.head())
		got, err = r.e.Block(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, want, got)

		// A second node executes it and has the same.
		require.ErrorIs(t, other.e.Insert(ctx, p.BlockHash), engine.ErrNotFound)
		require.NoError(t, other.e.Import(ctx, payload))
		for _, e := range []engine.Engine{r.e, other.e} {
			stored, err := e.Payload(ctx, p.BlockHash)
			require.NoError(t, err)
			require.Equal(t, asJSON(t, payload), asJSON(t, stored))
			receipts, err := e.Receipts(ctx, p.BlockHash)
			require.NoError(t, err)
			require.Len(t, receipts, len(results))
			require.Equal(t, common.Hash(p.ReceiptsRoot), types.DeriveSha(receipts, trie.NewStackTrie(nil)))
			for i, res := range results {
				require.Equal(t, res.Hash, receipts[i].TxHash)
				require.Equal(t, res.Status, receipts[i].Status)
				require.Equal(t, res.GasUsed, receipts[i].GasUsed)
				require.Len(t, receipts[i].Logs, len(res.Logs))
				for j, l := range receipts[i].Logs {
					require.Equal(t, p.BlockHash, l.BlockHash)
					require.Equal(t, res.Logs[j].Index, l.Index)
					require.Equal(t, res.Logs[j].Data, l.Data)
					require.Equal(t, res.Logs[j].Topics, l.Topics)
				}
			}
		}
		// The next block, of an engine that inserted and of one that executed.
		require.NoError(t, other.e.SetHead(ctx, p.BlockHash, common.Hash{}, common.Hash{}))
		a, b := r.seal(r.open()), other.seal(other.open())
		require.Equal(t, a.ExecutionPayload.BlockHash, b.ExecutionPayload.BlockHash)
	})
}

func TestImportRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx := ctxFor(t)
		require.Error(t, r.e.Import(ctx, nil))
		require.Error(t, r.e.Import(ctx, &eth.ExecutionPayloadEnvelope{}))

		builder := newRig(t, r.chain, r.front)
		first, second := builder.seal(builder.open()), builder.seal(builder.open())
		require.ErrorIs(t, r.e.Import(ctx, second), engine.ErrUnknownParent)

		bad := *first.ExecutionPayload
		bad.StateRoot = eth.Bytes32{1}
		spoilt := &eth.ExecutionPayloadEnvelope{ParentBeaconBlockRoot: first.ParentBeaconBlockRoot, ExecutionPayload: &bad}
		require.ErrorIs(t, r.e.Import(ctx, spoilt), engine.ErrInvalidBlock, "wrong hash")
		bad.BlockHash, _ = spoilt.CheckBlockHash()
		require.ErrorIs(t, r.e.Import(ctx, spoilt), engine.ErrInvalidBlock, "wrong state root")

		require.NoError(t, r.e.Import(ctx, first))
		require.NoError(t, r.e.Import(ctx, second))
	})
}

func TestSetHead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx, genesis := ctxFor(t), r.head()
		none := common.Hash{}
		require.ErrorIs(t, r.e.SetHead(ctx, none, none, none), engine.ErrNotFound)
		require.ErrorIs(t, r.e.SetHead(ctx, common.Hash{7}, none, none), engine.ErrNotFound)

		// Two blocks on genesis, and one more on the first.
		a := r.open()
		b := r.openOn(r.e, genesis, enginetest.Deposit(1, to(1), 1, nil))
		first := r.seal(a).ExecutionPayload.ID()
		second := r.seal(r.open()).ExecutionPayload.ID()
		require.Equal(t, second, r.head().ID())
		require.Error(t, r.e.SetHead(ctx, second.Hash, common.Hash{7}, none), "unknown safe block")

		require.NoError(t, r.e.SetHead(ctx, first.Hash, none, none))
		require.Equal(t, second, r.head().ID(), "an ancestor does not move the head")

		side := r.seal(b).ExecutionPayload.ID()
		require.Equal(t, side, r.head().ID())
		_, err := r.e.Block(ctx, 2)
		require.ErrorIs(t, err, engine.ErrNotFound)
		info, err := r.e.BlockByHash(ctx, second.Hash)
		require.NoError(t, err, "still stored")
		require.Equal(t, second, info.ID())
		require.NoError(t, r.e.SetHead(ctx, second.Hash, genesis.Hash, genesis.Hash))
		require.Equal(t, second, r.head().ID())
	})
}

func TestReads(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx, genesis := ctxFor(t), r.head()
		got, err := r.e.Block(ctx, 0)
		require.NoError(t, err)
		require.Equal(t, genesis, got)
		require.Equal(t, enginetest.GenesisTime, got.Time)
		receipts, err := r.e.Receipts(ctx, genesis.Hash)
		require.NoError(t, err)
		require.Empty(t, receipts)
		p, err := r.e.Payload(ctx, genesis.Hash)
		require.NoError(t, err)
		require.Equal(t, genesis.ID(), p.ExecutionPayload.ID())

		_, err = r.e.Block(ctx, 1)
		require.ErrorIs(t, err, engine.ErrNotFound)
		_, err = r.e.BlockByHash(ctx, common.Hash{1})
		require.ErrorIs(t, err, engine.ErrNotFound)
		_, err = r.e.Payload(ctx, common.Hash{1})
		require.ErrorIs(t, err, engine.ErrNotFound)
		_, err = r.e.Receipts(ctx, common.Hash{1})
		require.ErrorIs(t, err, engine.ErrNotFound)
		require.ErrorIs(t, r.e.Insert(ctx, common.Hash{1}), engine.ErrNotFound)
		require.NoError(t, r.e.Insert(ctx, genesis.Hash), "stored")
	})
}

// Conditions are about the block so far: its header, and the state that its transactions left.
func TestCheck(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx := ctxFor(t)
		s := r.open()
		number, now, later := new(big.Int).SetUint64(s.Header().Number), s.Header().Time, s.Header().Time+1
		slot := func(addr common.Address, key, value common.Hash) types.KnownAccounts {
			return types.KnownAccounts{addr: {StorageSlots: map[common.Hash]common.Hash{key: value}}}
		}
		// Its constructor stores 5 in slot 1.
		const made = 0
		deployed := crypto.CreateAddress(r.chain.Accounts[made].Addr, 0)
		root, wrong := types.EmptyRootHash, common.Hash{1}
		for name, c := range map[string]struct {
			cond  types.TransactionConditional
			holds bool
		}{
			"nothing":   {types.TransactionConditional{}, true},
			"number":    {types.TransactionConditional{BlockNumberMin: number, BlockNumberMax: number}, true},
			"too early": {types.TransactionConditional{BlockNumberMin: new(big.Int).Add(number, common.Big1)}, false},
			"too late":  {types.TransactionConditional{BlockNumberMax: new(big.Int)}, false},
			"time":      {types.TransactionConditional{TimestampMin: &now, TimestampMax: &now}, true},
			"not yet":   {types.TransactionConditional{TimestampMin: &later}, false},
			"slot":      {types.TransactionConditional{KnownAccounts: slot(params.OptimismL2ToL1MessagePasser, common.Hash{1}, common.Hash{2})}, true},
			"other":     {types.TransactionConditional{KnownAccounts: slot(params.OptimismL2ToL1MessagePasser, common.Hash{1}, common.Hash{3})}, false},
			"root":      {types.TransactionConditional{KnownAccounts: types.KnownAccounts{to(1): {StorageRoot: &root}}}, true},
			"bad root":  {types.TransactionConditional{KnownAccounts: types.KnownAccounts{to(1): {StorageRoot: &wrong}}}, false},
			"to come":   {types.TransactionConditional{KnownAccounts: slot(deployed, common.BigToHash(common.Big1), common.BigToHash(big.NewInt(5)))}, false},
		} {
			if err := s.Check(ctx, &c.cond); c.holds {
				require.NoError(t, err, name)
			} else {
				require.ErrorIs(t, err, engine.ErrCondition, name)
			}
		}
		create, err := r.chain.Tx(made, &types.DynamicFeeTx{Gas: 100_000, Data: []byte{0x60, 5, 0x60, 1, 0x55, 0x00}}).MarshalBinary()
		require.NoError(t, err)
		r.execute(s, false, create)
		require.NoError(t, s.Check(ctx, &types.TransactionConditional{KnownAccounts: slot(deployed, common.BigToHash(common.Big1), common.BigToHash(big.NewInt(5)))}))
		require.EqualValues(t, 2, r.result(s).Transactions, "looking does no harm")
		r.seal(s)
	})
}

// closedCalls makes every call that needs an open session.
func closedCalls(t *testing.T, s engine.Session, tx []byte) {
	t.Helper()
	ctx := ctxFor(t)
	for name, call := range map[string]func() error{
		"execute":   func() error { _, err := s.Execute(ctx, [][]byte{tx}, false); return err },
		"atomic":    func() error { _, err := s.Execute(ctx, [][]byte{tx}, true); return err },
		"malformed": func() error { _, err := s.Execute(ctx, [][]byte{{1}}, true); return err },
		"fill":      func() error { _, _, err := s.Fill(ctx, engine.FillOptions{}); return err },
		"savepoint": func() error { _, err := s.Savepoint(ctx); return err },
		"rollback":  func() error { return s.Rollback(ctx, 0) },
		"release":   func() error { return s.Release(ctx, 0) },
		"account":   func() error { _, err := s.Account(ctx, common.Address{}); return err },
		"check":     func() error { return s.Check(ctx, &types.TransactionConditional{}) },
		"result":    func() error { _, err := s.Result(ctx); return err },
		"seal":      func() error { _, err := s.Seal(ctx); return err },
	} {
		require.ErrorIs(t, call(), engine.ErrSessionClosed, name)
	}
}

func TestClosedSessions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx := ctxFor(t)
		tx := r.chain.Transfer(0, 0, to(1))
		sealed, discarded := r.open(), r.open()
		_, err := sealed.Seal(ctx)
		require.NoError(t, err)
		closedCalls(t, sealed, tx)
		require.NoError(t, sealed.Discard(ctx))

		require.NoError(t, discarded.Discard(ctx))
		closedCalls(t, discarded, tx)
		require.NoError(t, discarded.Discard(ctx))
		require.Len(t, sealed.Forced(), 1, "what was learnt stays")
		require.EqualValues(t, 1, sealed.Header().Number)
	})
}

// After a call whose outcome is unknown there is no session any more.
func TestCancelledCall(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		s := r.open()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := s.Account(ctx, to(1))
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, r.account(s, to(1)).Nonce, "reading does no harm")
		_, err = r.e.Head(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, r.e.Insert(ctx, common.Hash{}), context.Canceled)

		// Cancelled while it runs.
		txs := make([][]byte, 400)
		for i := range txs {
			txs[i] = r.chain.Transfer(i%20, uint64(i/20), to(i))
		}
		ctx, cancel = context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			var err error
			for err == nil { // from the second round on no transaction fits
				_, err = s.Execute(ctx, txs, false)
			}
			done <- err
		}()
		require.Eventually(t, func() bool { // it has begun
			a, err := s.Account(ctxFor(t), r.chain.Accounts[0].Addr)
			return err == nil && a.Nonce > 0
		}, time.Minute, time.Millisecond)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// An engine that restarts has lost its sessions and what they sealed, and keeps its blocks.
func TestEngineRestart(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		ctx := ctxFor(t)
		require.NoError(t, r.node.Close())
		r.cfg.DataDir = filepath.Join(t.TempDir(), "data")
		r.cfg.Auth.Port = freePort(t)
		r.start()
		r.e = r.front(r)
		for range 3 {
			r.seal(r.open())
		}
		head := r.head()
		tx := r.chain.Transfer(0, 0, to(1))
		open, sealed := r.open(), r.open()
		require.True(t, r.execute(open, false, tx)[0].Succeeded())
		payload, err := sealed.Seal(ctx)
		require.NoError(t, err)

		require.NoError(t, r.node.Close())
		_, err = r.e.Head(ctx)
		require.ErrorIs(t, err, engine.ErrUnavailable)
		_, err = r.e.Open(ctx, head.ID(), r.chain.Attributes(head))
		require.ErrorIs(t, err, engine.ErrUnavailable)
		require.ErrorIs(t, r.e.Import(ctx, payload), engine.ErrUnavailable)
		_, err = open.Execute(ctx, [][]byte{tx}, false)
		require.ErrorIs(t, err, engine.ErrSessionClosed)
		require.ErrorIs(t, err, engine.ErrUnavailable)

		r.start()
		if _, ok := r.e.(*engine.Client); !ok { // a client connects again by itself
			r.e = r.front(r)
		}
		closedCalls(t, open, tx)
		open.Discard(ctx)
		require.Equal(t, head, r.head())
		require.ErrorIs(t, r.e.Insert(ctx, payload.ExecutionPayload.BlockHash), engine.ErrNotFound)
		require.NoError(t, r.e.Import(ctx, payload))
		require.NoError(t, r.e.SetHead(ctx, payload.ExecutionPayload.BlockHash, common.Hash{}, common.Hash{}))
		r.seal(r.open())
	})
}

// The engine is gone and back while nobody called.
func TestEngineRestartUnnoticed(t *testing.T) {
	t.Parallel()
	for _, f := range fronts[1:] {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, enginetest.NewChain(901, 1), f.new)
			u, err := url.Parse(r.node.AuthEndpoint())
			require.NoError(t, err)
			r.cfg.Auth.Port, err = strconv.Atoi(u.Port())
			require.NoError(t, err)
			s := r.open()
			require.NoError(t, r.node.Close())
			r.start()
			closedCalls(t, s, r.chain.Transfer(0, 0, to(1)))
			r.seal(r.open())
		})
	}
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Several engines at once, each with several sessions on one parent.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		second := newRig(t, enginetest.NewChain(902, 20), r.front)
		var wg sync.WaitGroup
		hashes := make([]common.Hash, 8)
		for i := range hashes {
			r := []*rig{r, second}[i%2]
			s := r.open()
			txs := make([][]byte, 20)
			for k := range txs {
				txs[k] = r.chain.Transfer(k, 0, to(k))
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				var inner sync.WaitGroup
				defer inner.Wait()
				for _, tx := range txs {
					res, err := s.Execute(context.Background(), [][]byte{tx}, true)
					if err != nil || res[0].Err != nil {
						t.Errorf("execute: %v %v", err, res)
						return
					}
					inner.Add(1)
					go func() { // readers of the same session
						defer inner.Done()
						if _, err := s.Result(context.Background()); err != nil {
							t.Errorf("result: %v", err)
						}
					}()
				}
				inner.Wait()
				p, err := s.Seal(context.Background())
				if err != nil {
					t.Errorf("seal: %v", err)
					return
				}
				hashes[i] = p.ExecutionPayload.BlockHash
				for range 2 {
					if err := r.e.Insert(context.Background(), hashes[i]); err != nil {
						t.Errorf("insert: %v", err)
					}
				}
			}()
		}
		wg.Wait()
		for i, h := range hashes {
			require.Equal(t, hashes[i%2], h, "the same transactions give the same block")
		}
		require.NotEqual(t, hashes[0], hashes[1])
	})
}

// A list longer than one call carries behaves as a short one.
func TestLongLists(t *testing.T) {
	t.Parallel()
	r := newRig(t, enginetest.NewChain(901, 20), fronts[1].new)
	r.e.(*engine.Client).SetMaxTxs(7)
	good := func(from, n uint64) (txs [][]byte) {
		for i := range n {
			txs = append(txs, r.chain.Transfer(0, from+i, to(1)))
		}
		return txs
	}
	s := r.open()
	require.Len(t, r.execute(s, false, good(0, 20)...), 20)
	require.Len(t, r.execute(s, true, good(20, 20)...), 20)
	before := r.result(s)
	require.EqualValues(t, 41, before.Transactions)

	spoilt := append(good(40, 9), r.chain.Call(1, 0, enginetest.Fail, []byte("no"), 100_000))
	spoilt = append(spoilt, good(49, 9)...)
	res := r.execute(s, true, spoilt...)
	require.Len(t, res, 10)
	require.Error(t, res[9].Err)
	require.Equal(t, before, r.result(s))
	malformed := append(append(good(40, 9), []byte{1}), good(49, 9)...)
	res = r.execute(s, true, malformed...)
	require.Len(t, res, 10)
	require.ErrorContains(t, res[9].Err, "malformed")
	require.Equal(t, before, r.result(s))

	res = r.execute(s, false, malformed...)
	require.Len(t, res, 10)
	require.EqualValues(t, 50, r.result(s).Transactions)
	res = r.execute(s, false, append(good(49, 9), good(0, 9)...)...)
	require.Len(t, res, 10)
	require.ErrorContains(t, res[9].Err, "nonce too low")
}

// The IPC socket of an engine needs no secret and has everything.
func TestIPC(t *testing.T) {
	t.Parallel()
	r := newRig(t, enginetest.NewChain(901, 1), fronts[0].new)
	dir, err := os.MkdirTemp("", "ipc") // t.TempDir is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "g.ipc")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	handler, err := r.node.Stack().RPCHandler()
	require.NoError(t, err)
	served := make(chan struct{})
	go func() { defer close(served); handler.ServeListener(l) }()
	t.Cleanup(func() { l.Close(); <-served })
	r.e = r.dial(path)
	r.seal(r.open())
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}
