// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package catalyst

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"
)

// startSessionNode is a node with the session methods.
func startSessionNode(t testing.TB, cfg SessionConfig) (*opNode, *SessionAPI) {
	t.Helper()
	var api *SessionAPI
	n := startOpNode(t, opNodeOptions{register: func(stack *node.Node, backend *eth.Ethereum) {
		if err := Register(stack, backend); err != nil {
			t.Fatal(err)
		}
		api = RegisterSessions(stack, backend, cfg)
	}})
	return n, api
}

// sessionClient calls the session methods as a client in another process does.
type sessionClient struct {
	t testing.TB
	*rpc.Client
}

func (c *sessionClient) call(result any, method string, args ...any) {
	c.t.Helper()
	require.NoError(c.t, c.Call(result, method, args...), method)
}

// fails makes a call that must fail with the code, and a message that says more
// than the code does.
func (c *sessionClient) fails(code int, message, method string, args ...any) {
	c.t.Helper()
	var e rpc.Error
	err := c.Call(nil, method, args...)
	require.True(c.t, errors.As(err, &e), "%s: %v", method, err)
	require.Equal(c.t, code, e.ErrorCode(), "%s: %v", method, err)
	require.ErrorContains(c.t, err, message, method)
}

func (c *sessionClient) open(n *opNode) SessionOpened {
	c.t.Helper()
	var o SessionOpened
	c.call(&o, "engine_sessionOpen", n.head().Hash(), n.attrs(n.head()))
	return o
}

// seal seals a session whose transactions are not known.
func (c *sessionClient) seal(id SessionID, digest ...any) *engine.ExecutionPayloadEnvelope {
	c.t.Helper()
	var sealed SessionSealed
	c.call(&sealed, "engine_sessionSeal", append([]any{id}, digest...)...)
	require.False(c.t, sealed.Known)
	return sealed.Envelope
}

func dialAuth(t testing.TB, n *opNode) *sessionClient {
	t.Helper()
	c, err := rpc.DialOptions(context.Background(), n.stack.HTTPAuthEndpoint(), rpc.WithHTTPAuth(node.NewJWTAuth(n.jwt)))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return &sessionClient{t, c}
}

// A whole block over the authenticated port, and what each answer contains.
func TestSessionRPC(t *testing.T) {
	t.Parallel()
	n, _ := startSessionNode(t, DefaultSessionConfig)
	verifier := startOpNode(t, opNodeOptions{})
	n.addTxs(opTransfer(10, 0, opRecipient(10)), opTransfer(11, 0, opRecipient(11)))
	c := dialAuth(t, n)

	o := c.open(n)
	require.Len(t, o.Forced, 1)
	require.EqualValues(t, 1, *o.Forced[0].Status)
	require.EqualValues(t, 1, o.Status.Number)
	require.EqualValues(t, opGenesis+2, o.Status.Timestamp)
	require.Equal(t, n.head().Hash(), o.Status.Parent)
	require.EqualValues(t, opGasLimit, o.Status.GasLimit)
	require.EqualValues(t, 1, o.Status.TxCount)
	require.Equal(t, 1, o.Status.BaseFee.ToInt().Sign())

	token := opTokenTx(0, 0, opRecipient(0), 3)
	var res []SessionTx
	c.call(&res, "engine_sessionExecute", o.ID, []hexutil.Bytes{opRaw(t, token), opRaw(t, opCall(1, 0, opFail, 60_000, []byte("why")))}, false)
	require.Len(t, res, 2)
	require.Equal(t, token.Hash(), res[0].TxHash)
	require.EqualValues(t, 1, *res[0].Status)
	require.Equal(t, o.Status.GasUsed+res[0].GasUsed, res[0].CumulativeGasUsed)
	require.Len(t, res[0].Logs, 1)
	l := res[0].Logs[0]
	require.Equal(t, opToken, l.Address)
	require.Len(t, l.Topics, 3)
	require.Equal(t, common.BigToHash(common.Big3).Bytes(), l.Data)
	require.EqualValues(t, 1, l.BlockNumber)
	require.Zero(t, l.Index)
	require.Zero(t, *res[1].Status)
	require.EqualValues(t, "why", res[1].ReturnData)
	require.Empty(t, res[1].Error)

	var sp hexutil.Uint64
	var before, after SessionCommitment
	c.call(&before, "engine_sessionCommitment", o.ID)
	c.call(&sp, "engine_sessionSavepoint", o.ID)
	c.call(&res, "engine_sessionExecute", o.ID, []hexutil.Bytes{opRaw(t, opTokenTx(2, 0, opRecipient(0), 3))}, true)
	require.EqualValues(t, 1, res[0].Logs[0].Index)
	var account SessionAccount
	c.call(&account, "engine_sessionAccount", o.ID, opAccounts()[2].addr)
	require.EqualValues(t, 1, account.Nonce)
	c.call(nil, "engine_sessionRollback", o.ID, sp)
	c.call(&account, "engine_sessionAccount", o.ID, opAccounts()[2].addr)
	require.Zero(t, account.Nonce)
	require.Equal(t, opAlloc()[opAccounts()[2].addr].Balance, account.Balance.ToInt())
	c.call(&after, "engine_sessionCommitment", o.ID)
	require.Equal(t, before, after)
	c.call(&sp, "engine_sessionSavepoint", o.ID)
	c.call(&res, "engine_sessionExecute", o.ID, []hexutil.Bytes{opRaw(t, opTx(3, txCreate))}, false)
	require.NotNil(t, res[0].ContractAddress)
	c.call(nil, "engine_sessionRelease", o.ID, sp)
	c.fails(CodeUnknownSavepoint, "unknown savepoint", "engine_sessionRollback", o.ID, sp)

	// Not included: said in the result.
	res = nil // decoding would keep what an element has
	c.call(&res, "engine_sessionExecute", o.ID, []hexutil.Bytes{opRaw(t, opTransfer(4, 1, opRecipient(1))), opRaw(t, token)}, false)
	require.Len(t, res, 1)
	require.Nil(t, res[0].Status)
	require.Contains(t, res[0].Error, "nonce too high")

	var filled SessionFilled
	skip := opTransfer(11, 0, opRecipient(11)).Hash()
	c.call(&filled, "engine_sessionFill", o.ID, SessionFillArgs{MaxMs: 1000, Skip: []common.Hash{skip}, Interop: true, Order: "fcfs"})
	require.Nil(t, filled.Savepoint)
	var txs []SessionFilledTx
	enc, err := snappy.Decode(nil, filled.Transactions)
	require.NoError(t, err)
	require.NoError(t, rlp.DecodeBytes(enc, &txs))
	require.Equal(t, []SessionFilledTx{{Raw: opRaw(t, opTransfer(10, 0, opRecipient(10))), Status: 1, GasUsed: params.TxGas, TxIndex: 4, Logs: []*types.Log{}}}, txs)

	var status SessionStatus
	c.call(&status, "engine_sessionStatus", o.ID)
	require.EqualValues(t, 5, status.TxCount)
	c.call(&after, "engine_sessionCommitment", o.ID)

	var version hexutil.Uint64
	c.call(&version, "engine_sessionVersion")
	require.EqualValues(t, SessionVersion, version)
	env := c.seal(o.ID, common.Hash{1}) // not the digest of its transactions
	require.Len(t, env.ExecutionPayload.Transactions, 5)
	require.Equal(t, uint64(after.GasUsed), env.ExecutionPayload.GasUsed)
	require.Equal(t, after.ReceiptsRoot, env.ExecutionPayload.ReceiptsRoot)
	c.fails(CodeUnknownSession, "unknown session", "engine_sessionStatus", o.ID)
	hash := env.ExecutionPayload.BlockHash
	c.call(nil, "engine_sessionInsert", hash)
	c.call(nil, "engine_sessionInsert", hash)
	require.True(t, n.eth.BlockChain().HasBlockAndState(hash, 1))
	require.Zero(t, n.head().Number.Sign())
	n.accept(env)
	verifier.accept(env)

	// Transactions that are known are not sent.
	known := c.open(n)
	forced := n.attrs(n.head()).Transactions
	var short SessionSealed
	c.call(&short, "engine_sessionSeal", known.ID, TransactionsDigest(forced))
	require.True(t, short.Known)
	require.Empty(t, short.Envelope.ExecutionPayload.Transactions)
	require.NotZero(t, short.Envelope.ExecutionPayload.StateRoot)
}

var txCreate = types.DynamicFeeTx{Gas: 200_000, Data: common.FromHex("600160005560016000f3")}

func TestSessionRPCErrors(t *testing.T) {
	t.Parallel()
	n, _ := startSessionNode(t, SessionConfig{MaxOpen: 2, MaxAge: time.Minute, MaxTxs: 3, MaxSealed: 1})
	c := dialAuth(t, n)
	head, attrs := n.head(), func() *engine.PayloadAttributes { return n.attrs(n.head()) }

	// Opening.
	c.fails(CodeUnknownParent, "unknown parent", "engine_sessionOpen", common.Hash{1}, attrs())
	for name, change := range map[string]func(*engine.PayloadAttributes){
		"no gas limit":   func(a *engine.PayloadAttributes) { a.GasLimit = nil },
		"no beacon root": func(a *engine.PayloadAttributes) { a.BeaconRoot = nil },
		"no withdrawals": func(a *engine.PayloadAttributes) { a.Withdrawals = nil },
		"old time":       func(a *engine.PayloadAttributes) { a.Timestamp = head.Time },
		"no deposit":     func(a *engine.PayloadAttributes) { a.Transactions = nil },
		"garbage":        func(a *engine.PayloadAttributes) { a.Transactions[0] = []byte{1, 2} },
		"no minBaseFee":  func(a *engine.PayloadAttributes) { a.MinBaseFee = nil },
	} {
		a := attrs()
		change(a)
		var e rpc.Error
		err := c.Call(nil, "engine_sessionOpen", head.Hash(), a)
		require.True(t, errors.As(err, &e), "%s: %v", name, err)
		require.Equal(t, engine.InvalidPayloadAttributes.ErrorCode(), e.ErrorCode(), name)
	}
	bad := opTransfer(5, 3, opRecipient(1))
	c.fails(CodeForcedTx, "forced transaction 1 ("+bad.Hash().String()+")", "engine_sessionOpen", head.Hash(), n.attrs(head, bad))

	// None of these holds a place.
	one, two := c.open(n), c.open(n)
	require.NotEqual(t, one.ID, two.ID)
	three := c.open(n) // there is place for two: the oldest goes
	c.fails(CodeUnknownSession, one.ID.String(), "engine_sessionStatus", one.ID)
	c.call(nil, "engine_sessionStatus", two.ID)
	one = three
	c.call(nil, "engine_sessionDiscard", two.ID)
	c.fails(CodeUnknownSession, two.ID.String(), "engine_sessionDiscard", two.ID)
	c.call(nil, "engine_sessionDiscard", c.open(n).ID)

	// Executing.
	raw := hexutil.Bytes(opRaw(t, opTransfer(0, 0, opRecipient(1))))
	c.fails(CodeTooManyTransactions, "4 transactions in one call, at most 3", "engine_sessionExecute", one.ID, []hexutil.Bytes{raw, raw, raw, raw}, false)
	c.fails(CodeBadTransaction, "transaction 1", "engine_sessionExecute", one.ID, []hexutil.Bytes{raw, {0x02, 0x01}}, false)
	c.fails(CodeUnknownSavepoint, "unknown savepoint: 7", "engine_sessionRollback", one.ID, hexutil.Uint64(7))
	var status SessionStatus
	c.call(&status, "engine_sessionStatus", one.ID)
	require.EqualValues(t, 1, status.TxCount, "nothing was run")

	// Every method knows an unknown session, and an id that is none.
	for method, args := range map[string][]any{
		"Execute": {[]hexutil.Bytes{}, false}, "Fill": {SessionFillArgs{}}, "Interrupt": nil, "Savepoint": nil, "Rollback": {hexutil.Uint64(0)},
		"Release": {hexutil.Uint64(0)}, "Account": {common.Address{}}, "Status": nil, "Commitment": nil, "Seal": nil, "Discard": nil,
	} {
		c.fails(CodeUnknownSession, "unknown session", "engine_session"+method, append([]any{SessionID{1}}, args...)...)
		c.fails(-32602, "", "engine_session"+method, append([]any{"0x12"}, args...)...)
	}

	// Sealed blocks: one is kept.
	var first, second engine.ExecutionPayloadEnvelope
	first = *c.seal(one.ID)
	next := c.open(n)
	c.call(nil, "engine_sessionExecute", next.ID, []hexutil.Bytes{raw}, false)
	second = *c.seal(next.ID)
	c.fails(CodeUnknownSealedBlock, first.ExecutionPayload.BlockHash.String(), "engine_sessionInsert", first.ExecutionPayload.BlockHash)
	c.call(nil, "engine_sessionInsert", second.ExecutionPayload.BlockHash)
}

// A fill on a block that the pool has not reached: an error of its own, and the
// session goes on.
func TestSessionRPCPoolBehind(t *testing.T) {
	t.Parallel()
	n, _ := startSessionNode(t, DefaultSessionConfig)
	c := dialAuth(t, n)
	var env engine.ExecutionPayloadEnvelope
	env = *c.seal(c.open(n).ID)
	c.call(nil, "engine_sessionInsert", env.ExecutionPayload.BlockHash)
	parent := n.eth.BlockChain().GetHeaderByHash(env.ExecutionPayload.BlockHash)
	var o SessionOpened
	c.call(&o, "engine_sessionOpen", parent.Hash(), n.attrs(parent))
	c.fails(CodePoolBehind, parent.Hash().String(), "engine_sessionFill", o.ID, SessionFillArgs{MaxMs: 1})
	c.fails(CodeUnknownOrder, `"lifo"`, "engine_sessionFill", o.ID, SessionFillArgs{Order: "lifo"})
	env = *c.seal(o.ID)
}

func TestSessionRPCExpiry(t *testing.T) {
	t.Parallel()
	n, api := startSessionNode(t, SessionConfig{MaxOpen: 1, MaxAge: 10 * time.Millisecond, MaxTxs: 10, MaxSealed: 1})
	c := dialAuth(t, n)
	o := c.open(n)
	require.Eventually(t, func() bool {
		api.mu.Lock()
		defer api.mu.Unlock()
		return len(api.open) == 0
	}, 10*time.Second, time.Millisecond)
	c.fails(CodeSessionExpired, "expired after 10ms", "engine_sessionStatus", o.ID)
	c.open(n) // its place is free
}

// After a restart an id of before is unknown, and the node's end ends its sessions.
func TestSessionRPCRestart(t *testing.T) {
	t.Parallel()
	n, api := startSessionNode(t, DefaultSessionConfig)
	o := dialAuth(t, n).open(n)
	s, err := api.get(o.ID)
	require.NoError(t, err)
	require.NoError(t, n.stack.Close())
	_, err = s.Status()
	require.Error(t, err)
	m, _ := startSessionNode(t, DefaultSessionConfig)
	c := dialAuth(t, m)
	c.open(m)
	c.fails(CodeUnknownSession, o.ID.String(), "engine_sessionStatus", o.ID)
}

// Only with the JWT, and not on the public port.
func TestSessionRPCAuth(t *testing.T) {
	t.Parallel()
	n, _ := startSessionNode(t, DefaultSessionConfig)
	c, err := rpc.Dial(n.stack.HTTPAuthEndpoint())
	require.NoError(t, err)
	defer c.Close()
	var status rpc.HTTPError
	require.ErrorAs(t, c.Call(nil, "engine_sessionStatus", SessionID{}), &status)
	require.Equal(t, http.StatusUnauthorized, status.StatusCode)

	public, err := rpc.Dial(n.stack.HTTPEndpoint())
	require.NoError(t, err)
	defer public.Close()
	var e rpc.Error
	require.ErrorAs(t, public.Call(nil, "engine_sessionStatus", SessionID{}), &e)
	require.Equal(t, -32601, e.ErrorCode(), "method not found")
}
