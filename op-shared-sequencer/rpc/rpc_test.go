package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
	"github.com/ethereum-optimism/optimism/op-service/testlog"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	chainA = sequence.ChainID(901)
	chainB = sequence.ChainID(902)
	now    = sequence.Slot(1_700_000_000)
)

// signed makes a transfer of a fixed account.
func signed(t testing.TB, chain sequence.ChainID, nonce uint64) hexutil.Bytes {
	t.Helper()
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("sender")))
	require.NoError(t, err)
	tx, err := types.SignNewTx(key, types.LatestSignerForChainID(chain.ID().ToBig()), &types.DynamicFeeTx{
		ChainID: chain.ID().ToBig(), Nonce: nonce, Gas: 21000, To: &common.Address{1}, GasFeeCap: big.NewInt(1e9), GasTipCap: new(big.Int),
	})
	require.NoError(t, err)
	raw, err := tx.MarshalBinary()
	require.NoError(t, err)
	return raw
}

type fakeSimulator struct {
	result  *bundlepool.BundleResult
	err     error
	entered chan struct{} // if set, told of each call, which then waits for release or its context
	release chan struct{}
}

func (f *fakeSimulator) Simulate(ctx context.Context, _ *sequence.Bundle) (*bundlepool.BundleResult, error) {
	if f.entered != nil {
		f.entered <- struct{}{}
		select {
		case <-f.release:
		case <-ctx.Done():
			return nil, fmt.Errorf("simulating: %w", ctx.Err())
		}
	}
	return f.result, f.err
}

type fakeStatus struct {
	status *Status
	err    error
}

func (f *fakeStatus) Status(context.Context) (*Status, error) { return f.status, f.err }

type env struct {
	pool   *bundlepool.Pool
	sim    *fakeSimulator
	status *fakeStatus
	agree  *fakeAgreement
	raw    *gethrpc.Client
	client *Client
}

// serve puts the API behind upstream's RPC handler, in process.
func serve(t *testing.T, cfg Config, poolCfg bundlepool.Config) *env {
	logger := testlog.Logger(t, log.LevelError)
	e := &env{pool: bundlepool.New(poolCfg, logger), sim: new(fakeSimulator), status: new(fakeStatus), agree: new(fakeAgreement)}
	e.pool.Advance(now)
	api, err := NewAPI(cfg, e.pool, e.sim, e.status, e.agree, nil)
	require.NoError(t, err)
	h := oprpc.NewHandler("test", oprpc.WithLogger(logger))
	t.Cleanup(h.Stop)
	for _, a := range api.Register() {
		require.NoError(t, h.AddAPI(a))
	}
	e.raw, err = h.DialInProc()
	require.NoError(t, err)
	e.client = NewClient(e.raw, time.Millisecond)
	t.Cleanup(e.client.Close)
	return e
}

func newEnv(t *testing.T) *env {
	return serve(t, Config{SlotSeconds: 2, DefaultSlots: 3}, bundlepool.DefaultConfig(chainA, chainB))
}

func args(items ...ItemArgs) BundleArgs { return BundleArgs{Items: items} }

func TestSendAndStatus(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	in := args(Transaction(chainA, signed(t, chainA, 0)), RelayStep(chainB), Transaction(chainB, signed(t, chainB, 7)))
	sent, err := e.client.SendBundle(ctx, in)
	require.NoError(t, err)
	require.EqualValues(t, now+4, sent.ExpirySlot, "3 slots of 2 s, this one included")
	again, err := e.client.SendBundle(ctx, in)
	require.NoError(t, err)
	require.Equal(t, sent, again)

	entries := e.pool.Pending(now)
	require.Len(t, entries, 1)
	require.Equal(t, sent.BundleHash, entries[0].Hash)
	b := entries[0].Bundle
	require.Equal(t, []sequence.BundleItem{
		{Chain: chainA, Transaction: in.Items[0].Tx}, {Chain: chainB}, {Chain: chainB, Transaction: in.Items[2].Tx},
	}, b.Items)

	s, err := e.client.BundleStatus(ctx, sent.BundleHash)
	require.NoError(t, err)
	require.Equal(t, &BundleStatus{BundleHash: sent.BundleHash, State: bundlepool.Pending, ExpirySlot: sent.ExpirySlot}, s)

	// A wait ends when the state changes, not before.
	ctx, cancel := context.WithCancel(ctx)
	waited := make(chan *BundleStatus)
	go func() {
		s, _ := e.client.WaitBundle(ctx, sent.BundleHash)
		waited <- s
	}()
	relayTx := common.Hash{9}
	require.NoError(t, e.pool.Done(sent.BundleHash, bundlepool.Outcome{Kind: bundlepool.Execute, Result: bundlepool.BundleResult{
		Slot: now + 2, Items: []bundlepool.ItemResult{
			{Item: 0, Chain: chainA, TxHash: entries[0].Transactions[0].Hash(), BlockNumber: 5, Status: 1, GasUsed: 21000},
			{Item: 1, Chain: chainB, TxHash: relayTx, BlockNumber: 6, Status: 1, GasUsed: 80000},
			{Item: 2, Chain: chainB, TxHash: entries[0].Transactions[2].Hash(), BlockNumber: 6, Status: 1, GasUsed: 21000},
		},
	}}))
	s = <-waited
	cancel()
	require.Equal(t, bundlepool.Executed, s.State)
	require.EqualValues(t, now+2, *s.Slot)
	require.Len(t, s.Items, 3)
	require.Equal(t, Item{Item: 1, ChainID: 902, TxHash: relayTx, BlockNumber: 6, Status: 1, GasUsed: 80000}, s.Items[1])

	e.pool.Settled(chainA, 5)
	e.pool.Settled(chainB, 6)
	s, err = e.client.WaitBundleFinal(context.Background(), sent.BundleHash)
	require.NoError(t, err)
	require.Equal(t, bundlepool.Safe, s.State)
}

// TestWire pins the JSON that clients in other languages rely on.
// Everything that a bundle can ask for comes back from getBundle, and means one bundle.
func TestTerms(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	root := common.Hash{9}
	in := args(Transaction(chainA, signed(t, chainA, 0)), RelayStep(chainB))
	in.Items[0].MayRevert = true
	first, max, chain := hexutil.Uint64(now+2), hexutil.Uint64(99), hexutil.Uint64(chainA)
	in.FirstSlot, in.ReplacementID = &first, &common.Hash{7}
	in.Conditions = []ConditionArgs{{ChainID: &chain, BlockNumberMax: &max, KnownAccounts: types.KnownAccounts{
		{2}: {StorageRoot: &root, StorageSlots: map[common.Hash]common.Hash{}}, {1}: {StorageSlots: map[common.Hash]common.Hash{{4}: {5}, {3}: {6}}},
	}}}
	expiry := hexutil.Uint64(now + 4)
	in.ExpirySlot = &expiry
	signReplacement(t, e, &in)
	sent, err := e.client.SendBundle(ctx, in)
	require.NoError(t, err)
	b, err := e.client.Bundle(ctx, sent.BundleHash)
	require.NoError(t, err)
	require.Zero(t, b.Bid.ToInt().Sign())
	require.Equal(t, &Bundle{
		BundleHash: sent.BundleHash, Items: in.Items, ExpirySlot: sent.ExpirySlot, FirstSlot: in.FirstSlot, ReplacementID: in.ReplacementID, ReplacementSignature: in.ReplacementSignature,
		Conditions: in.Conditions, Bid: b.Bid,
	}, b)
	again := BundleArgs{Items: b.Items, ExpirySlot: &b.ExpirySlot, FirstSlot: b.FirstSlot, ReplacementID: b.ReplacementID, ReplacementSignature: b.ReplacementSignature, Conditions: b.Conditions}
	resent, err := e.client.SendBundle(ctx, again)
	require.NoError(t, err)
	require.Equal(t, sent.BundleHash, resent.BundleHash)

	_, err = e.client.Bundle(ctx, common.Hash{1})
	require.Equal(t, CodeUnknownBundle, ErrorCode(err))
	in.Items[0].Tx = signed(t, chainA, 1)
	_, err = e.client.SendBundle(ctx, in)
	require.NoError(t, err, "another signer: the signature is of another bundle")
	signReplacement(t, e, &in)
	_, err = e.client.SendBundle(ctx, in)
	require.Equal(t, CodeUnderpriced, ErrorCode(err))

	zero := hexutil.Uint64(0)
	for name, bad := range map[string]func(a *BundleArgs){
		"no chain":       func(a *BundleArgs) { a.Conditions = []ConditionArgs{{BlockNumberMax: &max}} },
		"never":          func(a *BundleArgs) { a.Conditions = []ConditionArgs{{ChainID: &chain, BlockNumberMax: &zero}} },
		"no replacement": func(a *BundleArgs) { a.ReplacementID = &common.Hash{} },
	} {
		in := args(Transaction(chainA, signed(t, chainA, 3)))
		bad(&in)
		_, err = e.client.SendBundle(ctx, in)
		require.Equal(t, CodeInvalidParams, ErrorCode(err), name)
	}
	_, err = e.client.SendBundle(ctx, BundleArgs{Items: []ItemArgs{Transaction(chainA, signed(t, chainA, 3))}, FirstSlot: &zero})
	require.NoError(t, err, "from slot 0 on is any")
}

// signReplacement signs that the arguments' replacement ID is the sender's.
func signReplacement(t *testing.T, e *env, in *BundleArgs) {
	t.Helper()
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("sender")))
	require.NoError(t, err)
	in.ReplacementSignature = nil
	b, err := in.bundle(e.pool.Slot(), &Config{SlotSeconds: 2, DefaultSlots: 3})
	require.NoError(t, err)
	in.ReplacementSignature, err = crypto.Sign(accounts.TextHash([]byte(b.ReplacementText())), key)
	require.NoError(t, err)
}

func TestCancelBundle(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	sent, err := e.client.SendBundle(ctx, args(Transaction(chainA, signed(t, chainA, 0))))
	require.NoError(t, err)
	sign := func(name string) []byte {
		key, err := crypto.ToECDSA(crypto.Keccak256([]byte(name)))
		require.NoError(t, err)
		sig, err := crypto.Sign(accounts.TextHash([]byte(bundlepool.CancelText(sent.BundleHash))), key)
		require.NoError(t, err)
		return sig
	}
	_, err = e.client.CancelBundle(ctx, sent.BundleHash, sign("stranger"))
	require.Equal(t, CodeNotSender, ErrorCode(err))
	_, err = e.client.CancelBundle(ctx, common.Hash{1}, sign("sender"))
	require.Equal(t, CodeUnknownBundle, ErrorCode(err))
	s, err := e.client.CancelBundle(ctx, sent.BundleHash, sign("sender"))
	require.NoError(t, err)
	require.Equal(t, bundlepool.Cancelled, s.State)
	_, err = e.client.SendBundle(ctx, args(Transaction(chainA, signed(t, chainA, 0))))
	require.Equal(t, CodeCancelled, ErrorCode(err))
}

// A simulation tells what is needed to execute its messages elsewhere.
func TestSimulatedMessages(t *testing.T) {
	e := newEnv(t)
	plain := &types.Log{Address: common.Address{1}, Topics: []common.Hash{{2}}, Data: []byte{3}, BlockNumber: 7, Index: 4}
	sentTo := &types.Log{Address: predeploys.L2toL2CrossDomainMessengerAddr, BlockNumber: 7, Index: 5, Topics: []common.Hash{
		crypto.Keccak256Hash([]byte("SentMessage(uint256,address,uint256,address,bytes)")), common.BigToHash(big.NewInt(int64(chainB))), {1}, {2},
	}}
	e.sim.result = &bundlepool.BundleResult{Slot: now, Items: []bundlepool.ItemResult{{Chain: chainA, BlockNumber: 7, Status: 1, Position: 3, Logs: []*types.Log{plain, sentTo}}}}
	res, err := e.client.SimulateBundle(context.Background(), args(Transaction(chainA, signed(t, chainA, 0))))
	require.NoError(t, err)
	require.EqualValues(t, 3, *res.Items[0].Position)
	got := res.Items[0].Messages
	require.Len(t, got, 2)
	require.Equal(t, messages.Identifier{Origin: common.Address{1}, BlockNumber: 7, LogIndex: 4, Timestamp: uint64(now), ChainID: chainA.ID()}, got[0].Identifier)
	require.Equal(t, crypto.Keccak256Hash(got[0].Payload), got[0].PayloadHash)
	require.Nil(t, got[0].Destination)
	require.EqualValues(t, chainB, *got[1].Destination)
	rest, access, err := messages.ParseAccess(got[0].AccessList)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, got[0].Checksum, access.Checksum)
	require.Equal(t, messages.ChecksumArgs{
		BlockNumber: 7, LogIndex: 4, Timestamp: uint64(now), ChainID: chainA.ID(), LogHash: messages.LogToLogHash(plain),
	}.Checksum(), access.Checksum)
}

func TestWire(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	in := args(Transaction(chainA, signed(t, chainA, 0)), RelayStep(chainB))
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"items":[{"chainId":"0x385","tx":"%s"},{"chainId":"0x386","relay":true}]}`, in.Items[0].Tx), string(raw))

	sent, err := e.client.SendBundle(ctx, in)
	require.NoError(t, err)
	require.NoError(t, e.pool.Done(sent.BundleHash, bundlepool.Outcome{Kind: bundlepool.Fail, Result: bundlepool.BundleResult{
		Failed: &bundlepool.Failure{Item: 1, Chain: chainB, TxHash: common.Hash{31: 1}, Reason: "execution reverted: no", ReturnData: []byte{8}},
	}}))
	var got json.RawMessage
	require.NoError(t, e.raw.CallContext(ctx, &got, "sharedseq_bundleStatus", sent.BundleHash))
	require.JSONEq(t, fmt.Sprintf(`{"bundleHash":"%s","state":"failed","expirySlot":"0x6553f104","attempts":"0x1","undone":"0x0",
		"failure":{"item":"0x1","chainId":"0x386","txHash":"0x0000000000000000000000000000000000000000000000000000000000000001",
		"reason":"execution reverted: no","returnData":"0x08"}}`, sent.BundleHash), string(got))

	e.sim.result = &bundlepool.BundleResult{Slot: now, Items: []bundlepool.ItemResult{{
		Chain: chainA, TxHash: common.Hash{31: 2}, BlockNumber: 16, Status: 1, GasUsed: 21000,
		Logs:       []*types.Log{{Address: common.Address{19: 1}, Topics: []common.Hash{{31: 3}}, Data: []byte{4}, BlockNumber: 16, Index: 5}},
		ReturnData: []byte{1, 2},
	}}}
	require.NoError(t, e.raw.CallContext(ctx, &got, "sharedseq_simulateBundle", in))
	var sim struct {
		Success bool
		Slot    string
		Items   []map[string]any
		Failure any
	}
	require.NoError(t, json.Unmarshal(got, &sim))
	require.True(t, sim.Success)
	require.Equal(t, "0x6553f100", sim.Slot)
	require.Nil(t, sim.Failure)
	require.Equal(t, "0x0102", sim.Items[0]["returnData"])
	require.Equal(t, "0x10", sim.Items[0]["blockNumber"])
	require.Equal(t, "0x5", sim.Items[0]["logs"].([]any)[0].(map[string]any)["logIndex"])

	e.status.status = &Status{Slot: 16, Leader: true, Chains: []ChainStatus{{ChainID: 901, Reason: "no L1 origin", LastSlot: 15}}}
	require.NoError(t, e.raw.CallContext(ctx, &got, "sharedseq_status"))
	require.JSONEq(t, `{"slot":"0x10","leader":true,"pendingBundles":"0x0",
		"bundles":{"pending":"0x0","pendingBytes":"0x0","executed":"0x0","undone":"0x0","ended":"0x0"},"chains":[{"chainId":"0x385","ready":false,"reason":"no L1 origin",
		"head":{"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","number":"0x0","timestamp":"0x0"},"lastSlot":"0xf"}]}`, string(got))
}

func TestRefused(t *testing.T) {
	small := bundlepool.DefaultConfig(chainA, chainB)
	small.MaxItems, small.MaxBundles = 4, 1
	txA, txB := signed(t, chainA, 0).String(), signed(t, chainB, 0).String()
	item := func(chain, tx string) string { return fmt.Sprintf(`{"chainId":"%s","tx":"%s"}`, chain, tx) }
	for name, c := range map[string]struct {
		params string
		code   int
		says   string
		kind   string
	}{
		"no params":        {``, CodeInvalidParams, "missing value for required argument 0", ""},
		"not an object":    {`[]`, CodeInvalidParams, "cannot unmarshal array", ""},
		"unknown option":   {`{"items":[],"mayRevert":true}`, CodeInvalidParams, `unknown field "mayRevert"`, ""},
		"misspelt item":    {`{"items":[{"chainId":"0x385","raw":"0x01"}]}`, CodeInvalidParams, `unknown field "raw"`, ""},
		"decimal chain":    {`{"items":[{"chainId":901,"relay":true}]}`, CodeInvalidParams, "cannot unmarshal", ""},
		"no chain":         {`{"items":[{"relay":true}]}`, CodeInvalidParams, "item 0 has no chainId", ""},
		"huge chain":       {`{"items":[{"chainId":"0x10000000000000000","relay":true}]}`, CodeInvalidParams, "64 bits", ""},
		"tx not hex":       {`{"items":[{"chainId":"0x385","tx":"02f8"}]}`, CodeInvalidParams, "0x prefix", ""},
		"tx and relay":     {`{"items":[{"chainId":"0x385","tx":"0x01","relay":true}]}`, CodeInvalidParams, "both tx and relay", ""},
		"neither":          {`{"items":[{"chainId":"0x385","tx":"0x"}]}`, CodeInvalidParams, "neither tx nor relay", ""},
		"two deadlines":    {`{"items":[],"expirySlot":"0x1","maxSlots":"0x1"}`, CodeInvalidParams, "both expirySlot and maxSlots", ""},
		"no slots":         {`{"items":[],"maxSlots":"0x0"}`, CodeInvalidParams, "maxSlots is 0", ""},
		"overflowing time": {`{"items":[],"maxSlots":"0xffffffffffffffff"}`, CodeInvalidParams, "too large", ""},
		"empty":            {`{"items":[]}`, CodeInvalidBundle, "expected at least one transaction", "empty"},
		"oversized":        {`{"items":[` + strings.Repeat(item("0x385", txA)+",", 4) + item("0x385", txA) + `]}`, CodeInvalidBundle, "expected at most 4", "too-many-items"},
		"unknown chain":    {`{"items":[` + item("0x387", txA) + `]}`, CodeInvalidBundle, "expected one of 901, 902", "unknown-chain"},
		"malformed":        {`{"items":[` + item("0x385", "0x02c0") + `]}`, CodeInvalidBundle, "item 0 on chain 901: malformed transaction", "malformed"},
		"wrong chain":      {`{"items":[` + item("0x385", txB) + `]}`, CodeInvalidBundle, "signed for chain 902", "wrong-chain"},
		"relay first":      {`{"items":[{"chainId":"0x385","relay":true}]}`, CodeInvalidBundle, "needs an item on another chain before it", "relay"},
		"duplicate":        {`{"items":[` + item("0x385", txA) + `,` + item("0x385", txA) + `]}`, CodeInvalidBundle, "item 1 on chain 901: duplicate", "duplicate"},
		"expired":          {`{"items":[` + item("0x385", txA) + `],"expirySlot":"0x6553f0ff"}`, CodeExpired, "expected 1700000000 or later", "expired"},
		"too far":          {`{"items":[` + item("0x385", txA) + `],"maxSlots":"0x1000"}`, CodeExpired, "ahead", "too-far-ahead"},
		"pool full":        {`{"items":[` + item("0x385", txA) + `]}`, CodePoolFull, "send it again later", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := serve(t, DefaultConfig(), small)
			_, err := e.client.SendBundle(context.Background(), args(Transaction(chainB, signed(t, chainB, 9))))
			require.NoError(t, err)
			var params []any
			if c.params != "" {
				params = append(params, json.RawMessage(c.params))
			}
			methods := []string{"sendBundle", "simulateBundle"}
			if c.code == CodePoolFull {
				methods = methods[:1]
			}
			for _, method := range methods {
				err = fromRPC(method, e.raw.CallContext(context.Background(), nil, "sharedseq_"+method, params...))
				require.ErrorContains(t, err, c.says)
				require.NotContains(t, err.Error(), "\n")
				require.Equal(t, c.code, ErrorCode(err))
				var got *Error
				require.ErrorAs(t, err, &got)
				if c.kind == "" {
					require.Nil(t, got.Data)
				} else {
					require.Equal(t, c.kind, got.Data.Kind)
				}
			}
		})
	}
}

// TestKinds: a fault of a bundle is named by the pool's word for it.
func TestKinds(t *testing.T) {
	require.Equal(t, "nonce-order", toRPC(&bundlepool.InvalidError{Kind: bundlepool.ErrNonceOrder}).Data.Kind)
	require.Nil(t, toRPC(&bundlepool.InvalidError{Item: -1, Kind: bundlepool.ErrEmpty}).Data.Item)
	require.EqualValues(t, 3, *toRPC(&bundlepool.InvalidError{Item: 3, Kind: bundlepool.ErrGas}).Data.Item)
}

func TestOtherErrors(t *testing.T) {
	e := newEnv(t)
	ctx := context.Background()
	_, err := e.client.BundleStatus(ctx, common.Hash{1})
	require.Equal(t, CodeUnknownBundle, ErrorCode(err))
	_, err = e.client.WaitBundle(ctx, common.Hash{1})
	require.Equal(t, CodeUnknownBundle, ErrorCode(err))
	require.Error(t, e.raw.CallContext(ctx, nil, "sharedseq_bundleStatus", "0x12"))

	e.status.err = fmt.Errorf("%w: starting", ErrUnavailable)
	_, err = e.client.Status(ctx)
	require.Equal(t, CodeUnavailable, ErrorCode(err))
	e.sim.err = errors.New("broken")
	_, err = e.client.SimulateBundle(ctx, args(Transaction(chainA, signed(t, chainA, 0))))
	require.Equal(t, CodeInternal, ErrorCode(err))
	// What is exported for Go is not a method of the namespace.
	require.ErrorContains(t, e.raw.CallContext(ctx, nil, "sharedseq_register"), "does not exist")
}

func TestWaitEndsWithContext(t *testing.T) {
	e := newEnv(t)
	sent, err := e.client.SendBundle(context.Background(), args(Transaction(chainA, signed(t, chainA, 0))))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = e.client.WaitBundle(ctx, sent.BundleHash)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestSimulationsAreBounded(t *testing.T) {
	e := serve(t, Config{SlotSeconds: 1, MaxSimulations: 2, SimulationTime: time.Hour}, bundlepool.DefaultConfig(chainA, chainB))
	e.sim.entered, e.sim.release = make(chan struct{}), make(chan struct{})
	e.sim.result = new(bundlepool.BundleResult)
	in := args(Transaction(chainA, signed(t, chainA, 0)))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			s, err := e.client.SimulateBundle(context.Background(), in)
			if err != nil || !s.Success {
				t.Errorf("simulation: %v, %v", s, err)
			}
		})
		<-e.sim.entered
	}
	_, err := e.client.SimulateBundle(context.Background(), in)
	require.Equal(t, CodeBusy, ErrorCode(err))
	close(e.sim.release)
	wg.Wait()
	e.sim.entered = nil
	_, err = e.client.SimulateBundle(context.Background(), in)
	require.NoError(t, err, "the places are free again")
}

func TestSimulationIsGivenUp(t *testing.T) {
	e := serve(t, Config{SlotSeconds: 1, SimulationTime: time.Millisecond}, bundlepool.DefaultConfig(chainA, chainB))
	e.sim.entered = make(chan struct{}, 1)
	_, err := e.client.SimulateBundle(context.Background(), args(Transaction(chainA, signed(t, chainA, 0))))
	require.Equal(t, CodeBusy, ErrorCode(err))
	require.ErrorContains(t, err, "longer than 1ms")
}

func TestConfig(t *testing.T) {
	_, err := NewAPI(Config{}, nil, nil, nil, nil, nil)
	require.ErrorContains(t, err, "time between slots is 0 s")
	_, err = NewAPI(Config{SlotSeconds: 1, MaxSimulations: -1}, nil, nil, nil, nil, nil)
	require.ErrorContains(t, err, "expected 1 or more")
}

func TestDialHTTP(t *testing.T) {
	logger := testlog.Logger(t, log.LevelError)
	pool := bundlepool.New(bundlepool.DefaultConfig(chainA), logger)
	api, err := NewAPI(DefaultConfig(), pool, new(fakeSimulator), &fakeStatus{status: &Status{Slot: 3}}, new(fakeAgreement), nil)
	require.NoError(t, err)
	h := oprpc.NewHandler("test", oprpc.WithLogger(logger))
	defer h.Stop()
	for _, a := range api.Register() {
		require.NoError(t, h.AddAPI(a))
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	c, err := Dial(context.Background(), srv.URL)
	require.NoError(t, err)
	defer c.Close()
	s, err := c.Status(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 3, s.Slot)
	_, err = c.SendBundle(context.Background(), args())
	require.Equal(t, CodeInvalidBundle, ErrorCode(err))

	_, err = Dial(context.Background(), "gopher://x")
	require.ErrorContains(t, err, "gopher://x")
}

// FuzzBundleArgs: whatever arrives, it is refused with a code or is a bundle that the
// pool refuses with a code or takes in.
func FuzzBundleArgs(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"items":null}`, `{"items":[{"chainId":"0x385","relay":true}],"maxSlots":"0x1"}`,
		`{"items":[{"chainId":"0x385","tx":"` + signed(f, chainA, 0).String() + `"},{"chainId":"0x386","relay":true}]}`,
		`{"items":[{"chainId":"0x385","tx":"0x02c0"}],"expirySlot":"0x6553f100"}`, `{"items":[]} {}`,
	} {
		f.Add([]byte(s))
	}
	pool := bundlepool.New(bundlepool.DefaultConfig(chainA, chainB), log.NewLogger(log.DiscardHandler()))
	pool.Advance(now)
	cfg := Config{SlotSeconds: 2, DefaultSlots: 3}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in BundleArgs
		if json.Unmarshal(data, &in) != nil {
			return
		}
		b, err := in.bundle(now, &cfg)
		if err != nil {
			var coded *Error
			require.ErrorAs(t, err, &coded)
			require.Equal(t, CodeInvalidParams, coded.Code)
			return
		}
		require.Len(t, b.Items, len(in.Items))
		if e, err := pool.Check(b); err != nil {
			code := toRPC(err).Code
			require.Contains(t, []int{CodeInvalidBundle, CodeExpired}, code, err)
			require.NotContains(t, err.Error(), "\n")
		} else {
			decoded, err := sequence.DecodeBundle(e.Bundle.Encode())
			require.NoError(t, err)
			require.Equal(t, e.Hash, decoded.Hash())
		}
	})
}
