package audit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const (
	chainA = sequence.ChainID(901)
	chainB = sequence.ChainID(902)
	first  = sequence.Slot(1_700_000_000)
)

var baseFee = big.NewInt(1000)

func key(user int) *ecdsa.PrivateKey {
	k, err := crypto.ToECDSA(crypto.Keccak256([]byte{byte(user)}))
	if err != nil {
		panic(err)
	}
	return k
}

// call is a transaction with a tip; to the contract x with calldata.
func call(chain sequence.ChainID, user int, nonce uint64, tip int64, access ...types.AccessTuple) []byte {
	x := common.Address{0xaa}
	raw, err := types.MustSignNewTx(key(user), types.LatestSignerForChainID(chain.ID().ToBig()), &types.DynamicFeeTx{
		ChainID: chain.ID().ToBig(), Nonce: nonce, To: &x, Gas: 50_000, Data: []byte{1}, AccessList: access,
		GasTipCap: big.NewInt(tip), GasFeeCap: new(big.Int).Add(baseFee, big.NewInt(tip)),
	}).MarshalBinary()
	if err != nil {
		panic(err)
	}
	return raw
}

func relay(chain sequence.ChainID, user int, nonce uint64) []byte {
	return call(chain, user, nonce, 0, types.AccessTuple{Address: params.InteropCrossL2InboxAddress})
}

func fill(chain sequence.ChainID, txs ...[]byte) sequence.Step {
	return sequence.Step{Chain: chain, Transactions: txs}
}

func bundle(id byte, chain sequence.ChainID, tx []byte) sequence.Step {
	return sequence.Step{Chain: chain, Bundle: common.Hash{id}, Expiry: 9, Transactions: [][]byte{tx}}
}

// world makes ledgers.
type world struct {
	t       *testing.T
	records []*ledger.Record
	votes   votes
	heads   map[sequence.ChainID]eth.BlockID
	last    common.Hash
	// deposits are behind the first one.
	deposits [][]byte
}

// votes are what each height was agreed on with.
type votes struct{ heights []cometbft.Height }

// Slot finds the heights by the agreement, which names the first.
func (v *votes) Slot(subs []*sequence.Subblock, agreement []byte) ([]cometbft.Height, error) {
	if string(agreement) == "unreadable" {
		return nil, errors.New("unreadable")
	}
	from := int(agreement[0])
	return slices.Clone(v.heights[from : from+len(subs)]), nil
}

func newWorld(t *testing.T) *world {
	return &world{t: t, heads: map[sequence.ChainID]eth.BlockID{chainA: {Hash: common.Hash{1}, Number: 10}, chainB: {Hash: common.Hash{2}, Number: 20}}}
}

// slot adds one whose subblocks have the given steps, led in turn by three operators.
func (w *world) slot(subblocks ...[]sequence.Step) *ledger.Record {
	slot := first + sequence.Slot(len(w.records))
	r := &ledger.Record{Agreement: []byte{byte(len(w.votes.heights))}, Payloads: map[sequence.ChainID]*eth.ExecutionPayloadEnvelope{}}
	raw := map[sequence.ChainID][][]byte{}
	var openings []sequence.Opening
	for _, chain := range []sequence.ChainID{chainA, chainB} {
		o := sequence.Opening{
			Chain: chain, ParentHash: w.heads[chain].Hash, ParentNumber: w.heads[chain].Number, GasLimit: 60_000_000, Deposits: append([][]byte{{0x7e, byte(slot)}}, w.deposits...),
			PrevRandao: common.Hash{3}, FeeRecipient: common.Address{4}, ParentBeaconRoot: common.Hash{5},
		}
		openings, raw[chain] = append(openings, o), slices.Clone(o.Deposits)
	}
	for i, steps := range subblocks {
		sub := &sequence.Subblock{Slot: slot, Index: uint64(i), Parent: w.last, Steps: steps}
		if i == 0 {
			sub.Openings = openings
		}
		for _, st := range steps {
			raw[st.Chain] = append(raw[st.Chain], st.Transactions...)
		}
		for _, o := range openings {
			n := uint64(len(raw[o.Chain]))
			sub.Results = append(sub.Results, sequence.Result{Chain: o.Chain, Transactions: n, GasUsed: 21_000 * n, ReceiptsRoot: common.Hash{byte(n)}})
		}
		if i == len(subblocks)-1 {
			for _, o := range openings {
				env := payload(slot, &o, raw[o.Chain])
				r.Payloads[o.Chain] = env
				sub.Seals = append(sub.Seals, sequence.Seal{Chain: o.Chain, BlockHash: env.ExecutionPayload.BlockHash, Number: o.ParentNumber + 1})
				w.heads[o.Chain] = env.ExecutionPayload.ID()
			}
		}
		require.NoError(w.t, sub.Check())
		r.Subblocks = append(r.Subblocks, sub)
		w.last = sub.Hash()
		n := len(w.votes.heights)
		w.votes.heights = append(w.votes.heights, cometbft.Height{
			Height: uint64(n + 1), Leader: common.Address{byte(1 + n%3)}, Name: string("abc"[n%3]), Voted: 3, Power: 4,
		})
	}
	w.records = append(w.records, r)
	return r
}

func payload(slot sequence.Slot, o *sequence.Opening, raw [][]byte) *eth.ExecutionPayloadEnvelope {
	zero := eth.Uint64Quantity(0)
	n := len(raw)
	p := &eth.ExecutionPayload{
		ParentHash: o.ParentHash, BlockNumber: eth.Uint64Quantity(o.ParentNumber + 1), Timestamp: eth.Uint64Quantity(slot),
		FeeRecipient: o.FeeRecipient, PrevRandao: eth.Bytes32(o.PrevRandao), GasLimit: eth.Uint64Quantity(o.GasLimit),
		GasUsed: eth.Uint64Quantity(21_000 * n), ReceiptsRoot: eth.Bytes32{byte(n)}, BlobGasUsed: &zero, ExcessBlobGas: &zero,
		Withdrawals: &types.Withdrawals{}, ExtraData: []byte{}, BaseFeePerGas: eth.Uint256Quantity(*uint256.MustFromBig(baseFee)),
	}
	for _, tx := range raw {
		p.Transactions = append(p.Transactions, tx)
	}
	root := o.ParentBeaconRoot
	return rehash(&eth.ExecutionPayloadEnvelope{ParentBeaconBlockRoot: &root, ExecutionPayload: p})
}

// rehash gives a block the hash that its content has.
func rehash(env *eth.ExecutionPayloadEnvelope) *eth.ExecutionPayloadEnvelope {
	env.ExecutionPayload.BlockHash, _ = env.CheckBlockHash()
	return env
}

// reseal has a slot agree on another block.
func reseal(r *ledger.Record, chain sequence.ChainID, env *eth.ExecutionPayloadEnvelope) {
	r.Payloads[chain] = env
	last := r.Subblocks[len(r.Subblocks)-1]
	sealOf(last, chain).BlockHash = env.ExecutionPayload.BlockHash
}

func (w *world) all() iter.Seq2[*ledger.Record, error] {
	return func(yield func(*ledger.Record, error) bool) {
		for _, r := range w.records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (w *world) audit(cfg Config) *Report {
	w.t.Helper()
	cfg.Agreement = &w.votes
	if cfg.Rule == nil {
		cfg.Rule = Priority{}
	}
	r, err := Run(context.Background(), w.all(), cfg)
	require.NoError(w.t, err)
	var text bytes.Buffer
	require.NoError(w.t, r.Write(&text))
	require.Equal(w.t, r.OK, bytes.Contains(text.Bytes(), []byte("no violations")), text.String())
	_, err = json.Marshal(r)
	require.NoError(w.t, err)
	return r
}

// usual is a slot of two subblocks with all that there can be, and one behind it.
func usual(t *testing.T) *world {
	w := newWorld(t)
	w.slot(
		[]sequence.Step{
			bundle(1, chainB, call(chainB, 1, 0, 0)), bundle(1, chainA, call(chainA, 1, 0, 0)), bundle(2, chainA, call(chainA, 2, 0, 5)),
			fill(chainA, call(chainA, 3, 0, 9), call(chainA, 4, 0, 7), call(chainA, 4, 1, 8)), fill(chainB, call(chainB, 3, 0, 4), call(chainB, 5, 0, 4)),
			fill(chainB, relay(chainB, 9, 0)), fill(chainA, relay(chainA, 9, 0)),
			bundle(3, chainB, call(chainB, 1, 1, 0)),
		},
		[]sequence.Step{fill(chainA, call(chainA, 6, 0, 3), call(chainA, 4, 2, 2))},
	)
	w.slot([]sequence.Step{fill(chainB, call(chainB, 6, 0, 3))})
	return w
}

func TestHonest(t *testing.T) {
	w := usual(t)
	r := w.audit(Config{})
	require.Empty(t, r.Violations)
	require.True(t, r.OK)
	require.EqualValues(t, 2, r.Slots)
	require.EqualValues(t, 3, r.Subblocks)
	require.EqualValues(t, 14, r.Transactions)
	require.Equal(t, first, r.From)
	require.Equal(t, first+1, r.To)
	require.Empty(t, r.Unproven)
	require.Zero(t, r.Missing+r.GivenUp+r.Rebased)
	require.Len(t, r.Leaders, 3)
	a := r.Leaders[0]
	require.Equal(t, "a", a.Name)
	require.EqualValues(t, 2, a.Fills)
	require.EqualValues(t, 5, a.Transactions)
	require.EqualValues(t, 3, a.Bundles)
	require.Zero(t, a.OutOfOrder)
	require.Zero(t, a.Arrival.Pairs, "nothing was seen")

	r = w.audit(Config{From: first + 1})
	require.EqualValues(t, 1, r.Slots, "the one before only tells who may lead")
	r = w.audit(Config{To: first})
	require.EqualValues(t, 1, r.Slots)
}

// A deposit, and an authorization in another account's transaction, raise nonces: the pool still
// offers what they have made stale, and comes to the account's next transaction only behind it.
func TestRaisedNonces(t *testing.T) {
	sender := crypto.PubkeyToAddress(key(7).PublicKey)
	deposit, err := types.NewTx(&types.DepositTx{From: sender, To: &common.Address{1}, Value: new(big.Int), Gas: 21_000}).MarshalBinary()
	require.NoError(t, err)
	signer := types.LatestSignerForChainID(chainA.ID().ToBig())
	from, ok := depositor(signer, deposit)
	require.True(t, ok)
	require.Equal(t, sender, from)
	_, ok = depositor(signer, call(chainA, 1, 0, 1))
	require.False(t, ok)

	auth, err := types.SignSetCode(key(7), types.SetCodeAuthorization{ChainID: *uint256.MustFromBig(chainA.ID().ToBig()), Address: common.Address{5}})
	require.NoError(t, err)
	delegates, err := types.MustSignNewTx(key(8), types.LatestSignerForChainID(chainA.ID().ToBig()), &types.SetCodeTx{
		ChainID: uint256.MustFromBig(chainA.ID().ToBig()), To: common.Address{2}, Gas: 100_000, AuthList: []types.SetCodeAuthorization{auth},
		GasTipCap: uint256.NewInt(5), GasFeeCap: uint256.NewInt(1005),
	}).MarshalBinary()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		deposit bool
		fill    [][]byte
		wrong   bool
	}{
		"neither":          {false, [][]byte{call(chainA, 1, 0, 5), call(chainA, 7, 1, 9)}, true},
		"a deposit":        {true, [][]byte{call(chainA, 1, 0, 5), call(chainA, 7, 1, 9)}, false},
		"an authorization": {false, [][]byte{delegates, call(chainA, 7, 1, 9)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.deposit {
				w.deposits = [][]byte{deposit}
			}
			w.slot([]sequence.Step{fill(chainA, c.fill...)})
			r := w.audit(Config{})
			require.Equal(t, !c.wrong, r.OK, "%v", r.Violations)
		})
	}
}

func TestViolations(t *testing.T) {
	sub := func(r *ledger.Record, i int) *sequence.Subblock { return r.Subblocks[i] }
	for name, c := range map[string]struct {
		change func(w *world, r *ledger.Record)
		kind   string
		want   string
	}{
		"votes": {func(w *world, _ *ledger.Record) {
			w.votes.heights[1].Wrong = []error{errors.New("the votes do not count")}
		}, KindAgreement, "do not count"},
		"another parent": {func(w *world, _ *ledger.Record) { w.records[1].Subblocks[0].Parent[0]++ }, KindParent, "it follows subblock"},
		"fills swapped": {func(_ *world, r *ledger.Record) {
			s := sub(r, 0).Steps
			s[3], s[4] = s[4], s[3]
		}, KindPlace, "step 4 has plain transactions"},
		"a bundle among the fills": {func(_ *world, r *ledger.Record) {
			s := sub(r, 0).Steps
			s[2], s[3], s[4] = s[3], s[4], s[2] // fill A, fill B, bundle
		}, KindPlace, "behind a bundle that came after the fills"},
		"a favourite in a fill": {func(w *world, _ *ledger.Record) {
			w.records = nil
			w.heads, w.last = newWorld(w.t).heads, common.Hash{}
			w.slot([]sequence.Step{fill(chainA, call(chainA, 3, 0, 1), call(chainA, 4, 0, 7))})
		}, KindOrder, "1 of 2 transactions of the fill are not in the order priority"},
		"a hash that is not the block's": {func(_ *world, r *ledger.Record) { r.Payloads[chainA].ExecutionPayload.StateRoot[0]++ }, KindBlock, "has the hash"},
		"another block than agreed": {func(_ *world, r *ledger.Record) {
			r.Payloads[chainA].ExecutionPayload.StateRoot[0]++
			rehash(r.Payloads[chainA])
		}, KindBlock, "was agreed on"},
		"opened otherwise":        {func(_ *world, r *ledger.Record) { sub(r, 0).Openings[1].GasLimit++ }, KindBlock, "gas limit"},
		"on another parent block": {func(_ *world, r *ledger.Record) { sub(r, 0).Openings[1].ParentHash[0]++ }, KindBlock, "parent"},
		"other deposits":          {func(_ *world, r *ledger.Record) { sub(r, 0).Openings[1].Deposits = [][]byte{{0x7e, 1}} }, KindTransactions, "other transactions"},
		"a transaction left out of the block": {func(_ *world, r *ledger.Record) {
			env := r.Payloads[chainA]
			env.ExecutionPayload.Transactions = env.ExecutionPayload.Transactions[:4]
			reseal(r, chainA, rehash(env))
		}, KindTransactions, "other transactions than the subblocks"},
		"garbage":                              {func(_ *world, r *ledger.Record) { sub(r, 0).Steps[3].Transactions[0] = []byte{1} }, KindTransactions, "transaction 0 of step 3"},
		"transactions where there may be none": {func(_ *world, r *ledger.Record) { sub(r, 0).Openings[0].NoTxPool = true }, KindTransactions, "was opened for none"},
		"gas":                                  {func(_ *world, r *ledger.Record) { sub(r, 1).Results[0].GasUsed++ }, KindResult, "gas"},
		"receipts":                             {func(_ *world, r *ledger.Record) { sub(r, 1).Results[1].ReceiptsRoot[0]++ }, KindResult, "receipts"},
		"number of transactions":               {func(_ *world, r *ledger.Record) { sub(r, 0).Results[1].Transactions++ }, KindResult, "transactions come from"},
		"a chain that is never sealed":         {func(_ *world, r *ledger.Record) { sub(r, 1).Seals = sub(r, 1).Seals[:1] }, KindBlock, "does not seal it"},
		"a result that is not there":           {func(_ *world, r *ledger.Record) { sub(r, 0).Results = sub(r, 0).Results[:1] }, KindResult, "the result is of"},
	} {
		t.Run(name, func(t *testing.T) {
			w := usual(t)
			c.change(w, w.records[0])
			r := w.audit(Config{})
			require.False(t, r.OK)
			i := slices.IndexFunc(r.Violations, func(v Violation) bool { return v.Kind == c.kind })
			require.GreaterOrEqual(t, i, 0, "%+v", r.Violations)
			require.Contains(t, r.Violations[i].Text, c.want)
			require.NotZero(t, r.Violations[i].Leader)
		})
	}
}

// What is no fault of anybody is told and is no violation.
func TestRemarks(t *testing.T) {
	w := usual(t)
	delete(w.records[0].Payloads, chainB)
	r := w.audit(Config{})
	require.True(t, r.OK, "%+v", r.Violations)
	require.EqualValues(t, 1, r.Missing)

	whole := usual(t)
	env := w.records[1].Payloads[chainB]
	delete(w.records[1].Payloads, chainB)
	made := map[common.Hash]*eth.ExecutionPayloadEnvelope{
		env.ExecutionPayload.BlockHash:                               env,
		whole.records[0].Payloads[chainB].ExecutionPayload.BlockHash: whole.records[0].Payloads[chainB],
	}
	r = w.audit(Config{Payload: func(_ sequence.ChainID, hash common.Hash) (*eth.ExecutionPayloadEnvelope, bool) {
		env, ok := made[hash]
		return env, ok
	}})
	require.True(t, r.OK)
	require.Zero(t, r.Missing, "blocks that were made later are elsewhere")

	w = usual(t) // a slot was given up between the two
	w.records[1].Subblocks[0].Parent[0]++
	w.votes.heights = append(w.votes.heights, cometbft.Height{Height: 9, Leader: common.Address{1}})
	w.records[1].Agreement = []byte{3}
	r = w.audit(Config{})
	require.True(t, r.OK, "%+v", r.Violations)
	require.EqualValues(t, 1, r.GivenUp)

	w = newWorld(t) // blocks from derivation
	w.slot([]sequence.Step{})
	w.heads[chainA] = eth.BlockID{Hash: common.Hash{8}, Number: 30}
	w.slot([]sequence.Step{})
	r = w.audit(Config{})
	require.True(t, r.OK, "%+v", r.Violations)
	require.EqualValues(t, 1, r.Rebased)

	w = usual(t) // a chain that too few could run
	sealOf(w.records[0].Subblocks[1], chainA).BlockHash = common.Hash{}
	resultOf(w.records[0].Subblocks[1], chainA).GasUsed = 5
	w.records[1].Subblocks[0].Parent = w.records[0].Subblocks[1].Hash()
	r = w.audit(Config{})
	require.True(t, r.OK, "%+v", r.Violations)

	w = usual(t)
	w.votes.heights[0].Unproven = "because"
	w.votes.heights[2].Unproven = "because"
	w.records[1].Agreement = nil // alone
	r = w.audit(Config{})
	require.True(t, r.OK)
	require.Equal(t, []Unproven{{"because", 1, first, first}, {alone, 1, first + 1, first + 1}}, r.Unproven)

	w.records[0].Agreement = []byte("unreadable")
	_, err := Run(context.Background(), w.all(), Config{Agreement: &w.votes})
	require.ErrorContains(t, err, "slot 1700000000: unreadable")
}

// Who led is told what its subblocks have of sandwiches, missed turns and another order than
// that of arrival.
func TestLeaders(t *testing.T) {
	w := newWorld(t)
	one, victim, two := call(chainA, 1, 0, 9), call(chainA, 2, 0, 8), call(chainA, 1, 1, 7)
	w.slot([]sequence.Step{bundle(7, chainA, one), bundle(8, chainB, call(chainB, 3, 0, 0)), fill(chainA, victim, two)})
	w.votes.heights[0].Round, w.votes.heights[0].Missed = 1, []common.Address{{2}}
	seen := arrivals.Seen{}
	at := time.Unix(int64(first), 0).UTC()
	var lines bytes.Buffer
	for i, a := range []arrivals.Arrival{
		{Chain: chainA, Hash: hashOf(two)}, {Chain: chainA, Hash: hashOf(victim)}, {Hash: common.Hash{8}}, {Hash: common.Hash{7}},
	} {
		a.Time = at.Add(time.Duration(i) * time.Second)
		require.NoError(t, json.NewEncoder(&lines).Encode(a))
	}
	require.NoError(t, seen.Read(&lines))
	r := w.audit(Config{Seen: seen, Tolerance: 100 * time.Millisecond})
	require.True(t, r.OK)
	leaders := maps.Collect(func(yield func(common.Address, *Leader) bool) {
		for _, l := range r.Leaders {
			yield(l.Leader, l)
		}
	})
	l := leaders[common.Address{1}]
	require.EqualValues(t, 1, l.Patterns)
	require.Equal(t, Deviations{1, 1, 1000}, l.Arrival)
	require.Equal(t, Deviations{1, 1, 1000}, l.BundleArrival)
	require.EqualValues(t, 1, leaders[common.Address{2}].Missed)
	require.Len(t, r.Patterns, 1)
	p := r.Patterns[0]
	require.Equal(t, [3]string{"bundle", "fill", "fill"}, p.Places)
	require.Equal(t, [3]common.Hash{hashOf(one), hashOf(victim), hashOf(two)}, p.Txs)
	require.Equal(t, crypto.PubkeyToAddress(key(1).PublicKey), p.Around)
	require.Equal(t, crypto.PubkeyToAddress(key(2).PublicKey), p.Between)
	require.EqualValues(t, 11, p.Block)

	// By the order of arrival it is one out of place, which proves nothing.
	r = w.audit(Config{Seen: seen, Rule: FCFS{}})
	require.True(t, r.OK)
	require.Zero(t, r.Leaders[0].OutOfOrder, "the account has an earlier transaction in the block")
	w.records[0].Subblocks[0].Steps[0] = bundle(7, chainA, call(chainA, 5, 0, 0))
	require.EqualValues(t, 1, w.audit(Config{Seen: seen, Rule: FCFS{}}).Leaders[0].OutOfOrder)
}

func hashOf(raw []byte) common.Hash {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(raw); err != nil {
		panic(err)
	}
	return tx.Hash()
}
