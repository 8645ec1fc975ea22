package bundlepool

import (
	"bytes"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/holiman/uint256"
	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig(chainA, chainB)
	cfg.MaxItems, cfg.MaxTxBytes, cfg.MaxBundleBytes, cfg.MaxAhead = 4, 1000, 2500, 60
	cfg.MaxTxGas, cfg.MaxGas = 5_000_000, 8_000_000

	idA := chainA.ID().ToBig()
	to := &common.Address{1}
	item := func(chain sequence.ChainID, raw []byte) sequence.BundleItem {
		return sequence.BundleItem{Chain: chain, Transaction: raw}
	}
	dyn := func(tx types.DynamicFeeTx) sequence.BundleItem {
		tx.ChainID, tx.GasFeeCap = idA, big.NewInt(1e9)
		if tx.GasTipCap == nil {
			tx.GasTipCap = new(big.Int)
		}
		if tx.Gas == 0 {
			tx.Gas = 100_000
		}
		return item(chainA, sign("alice", chainA, &tx))
	}
	ok := transfer("alice", chainA, 0)
	unprotected := types.MustSignNewTx(key("alice"), types.HomesteadSigner{}, &types.LegacyTx{To: to, Gas: 21000, GasPrice: big.NewInt(1)})
	rawUnprotected, _ := unprotected.MarshalBinary()
	blob := sign("alice", chainA, &types.BlobTx{
		ChainID: uint256.MustFromBig(idA), Gas: 21000, GasFeeCap: uint256.NewInt(1), GasTipCap: uint256.NewInt(1),
		BlobFeeCap: uint256.NewInt(1), BlobHashes: []common.Hash{{1}},
	})
	deposit, _ := types.NewTx(&types.DepositTx{From: address("alice"), To: to, Gas: 21000, Value: new(big.Int), Mint: new(big.Int)}).MarshalBinary()
	badSignature := func() []byte {
		v, r, s := big.NewInt(0), big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 255) // s in the upper half
		raw, _ := types.NewTx(&types.DynamicFeeTx{ChainID: idA, To: to, Gas: 21000, GasFeeCap: big.NewInt(1), GasTipCap: new(big.Int), V: v, R: r, S: s}).MarshalBinary()
		return raw
	}()
	hugeChain := func() []byte {
		tx := types.MustSignNewTx(key("alice"), types.LatestSignerForChainID(new(big.Int).Lsh(big.NewInt(1), 70)), &types.LegacyTx{To: to, Gas: 21000, GasPrice: big.NewInt(1)})
		raw, _ := tx.MarshalBinary()
		return raw
	}()
	noAuthorization := sign("alice", chainA, &types.SetCodeTx{ChainID: uint256.MustFromBig(idA), Gas: 100_000, GasFeeCap: uint256.NewInt(1), GasTipCap: uint256.NewInt(0)})

	for name, c := range map[string]struct {
		bundle *sequence.Bundle
		item   int
		kind   error
		says   string
	}{
		"empty":              {bundle(now), -1, ErrEmpty, "expected at least one transaction"},
		"too many items":     {bundle(now, ok, ok, ok, ok, ok), -1, ErrTooManyItems, "it has 5 items, expected at most 4"},
		"expired":            {bundle(now-1, ok), -1, ErrExpired, "its last slot is 999, expected 1000 or later"},
		"too far ahead":      {bundle(now+61, ok), -1, ErrTooFarAhead, "expected at most 1060"},
		"absurd expiry":      {bundle(^sequence.Slot(0), ok), -1, ErrTooFarAhead, "expected at most 1060"},
		"oversized":          {bundle(now, dyn(types.DynamicFeeTx{To: to, Data: make([]byte, 800)}), dyn(types.DynamicFeeTx{To: to, Nonce: 1, Data: make([]byte, 800)}), dyn(types.DynamicFeeTx{To: to, Nonce: 2, Data: make([]byte, 800)})), -1, ErrTooLarge, "expected at most 2500"},
		"oversized tx":       {bundle(now, dyn(types.DynamicFeeTx{To: to, Data: make([]byte, 1000)})), 0, ErrTooLarge, "expected at most 1000"},
		"unknown chain":      {bundle(now, ok, transfer("alice", chainC, 0)), 1, ErrUnknownChain, "item 1 on chain 903: unknown chain: expected one of 901, 902"},
		"relay unknown":      {bundle(now, ok, relayStep(7)), 1, ErrUnknownChain, "expected one of 901, 902"},
		"relay first":        {bundle(now, relayStep(chainB), ok), 0, ErrRelay, "needs an item on another chain before it"},
		"relay same chain":   {bundle(now, ok, relayStep(chainA)), 1, ErrRelay, "needs an item on another chain before it"},
		"garbage":            {bundle(now, item(chainA, []byte{0xff, 1, 2})), 0, ErrMalformed, "expected a signed EIP-2718 transaction"},
		"truncated":          {bundle(now, ok, item(chainA, ok.Transaction[:50])), 1, ErrMalformed, "expected a signed EIP-2718 transaction"},
		"trailing bytes":     {bundle(now, item(chainA, append(bytes.Clone(ok.Transaction), 0))), 0, ErrMalformed, "expected a signed EIP-2718 transaction"},
		"unknown type":       {bundle(now, item(chainA, []byte{0x33, 0xc0})), 0, ErrTxType, "type 51, expected 0 (legacy), 1, 2 or 4"},
		"blob":               {bundle(now, item(chainA, blob)), 0, ErrTxType, "type 3, expected"},
		"deposit":            {bundle(now, item(chainA, deposit)), 0, ErrTxType, "type 126, expected"},
		"other chain":        {bundle(now, item(chainA, transfer("alice", chainB, 0).Transaction)), 0, ErrWrongChain, "it is signed for chain 902"},
		"huge chain":         {bundle(now, item(chainA, hugeChain)), 0, ErrWrongChain, "it is signed for chain 1180591620717411303424"},
		"no chain":           {bundle(now, item(chainA, rawUnprotected)), 0, ErrWrongChain, "expected an EIP-155 signature for chain 901"},
		"bad signature":      {bundle(now, item(chainA, badSignature)), 0, ErrSignature, "invalid"},
		"duplicate":          {bundle(now, ok, transfer("bob", chainA, 0), ok), 2, ErrDuplicate, "is also item 0"},
		"same nonce":         {bundle(now, ok, dyn(types.DynamicFeeTx{To: to})), 1, ErrNonceOrder, "nonce 0 after nonce 0 of " + address("alice").Hex()},
		"falling nonce":      {bundle(now, transfer("alice", chainA, 5), transfer("alice", chainB, 0), transfer("alice", chainA, 4)), 2, ErrNonceOrder, "nonce 4 after nonce 5"},
		"no gas":             {bundle(now, dyn(types.DynamicFeeTx{To: to, Gas: 20999})), 0, ErrGas, "minimum needed 21000"},
		"gas below floor":    {bundle(now, dyn(types.DynamicFeeTx{To: to, Gas: 25000, Data: bytes.Repeat([]byte{1}, 200)})), 0, ErrGas, "floor"},
		"gas above limit":    {bundle(now, dyn(types.DynamicFeeTx{To: to, Gas: 5_000_001})), 0, ErrGas, "gas limit 5000001, expected at most 5000000"},
		"gas together":       {bundle(now, dyn(types.DynamicFeeTx{To: to, Gas: 5_000_000}), transfer("bob", chainB, 0), relayStep(chainB), dyn(types.DynamicFeeTx{To: to, Nonce: 1, Gas: 2_979_001})), 3, ErrGas, "item 3 on chain 901: gas limit not acceptable: with it the gas limits of the bundle's transactions come to 8000001, expected at most 8000000"},
		"tip above fee":      {bundle(now, dyn(types.DynamicFeeTx{To: to, GasTipCap: big.NewInt(2e9)})), 0, ErrInvalidTx, "max priority fee per gas higher than max fee per gas"},
		"last nonce":         {bundle(now, dyn(types.DynamicFeeTx{To: to, Nonce: ^uint64(0)})), 0, ErrInvalidTx, "nonce"},
		"no authorization":   {bundle(now, item(chainA, noAuthorization)), 0, ErrInvalidTx, "authorization"},
		"first of two wrong": {bundle(now, item(chainB, transfer("alice", chainA, 0).Transaction), item(chainA, []byte{1})), 0, ErrWrongChain, "chain 901"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(cfg)
			for _, try := range []func() error{
				func() error { _, err := p.Add(c.bundle); return err },
				func() error { _, err := p.Check(c.bundle); return err },
			} {
				err := try()
				var invalid *InvalidError
				require.ErrorAs(t, err, &invalid)
				require.ErrorIs(t, err, c.kind)
				require.Equal(t, c.item, invalid.Item)
				require.Contains(t, err.Error(), c.says)
				require.NotContains(t, err.Error(), "\n")
				if c.item >= 0 {
					require.Equal(t, c.bundle.Items[c.item].Chain, invalid.Chain)
				}
			}
			require.Zero(t, p.Stats().Pending)
		})
	}

	t.Run("init code", func(t *testing.T) {
		big := cfg
		big.MaxTxBytes, big.MaxBundleBytes = 1<<20, 1<<20
		_, err := newPool(big).Add(bundle(now, dyn(types.DynamicFeeTx{Gas: 5_000_000, Data: make([]byte, params.MaxInitCodeSize+1)})))
		require.ErrorIs(t, err, ErrInvalidTx)
		require.ErrorContains(t, err, "initcode")
	})
}

// TestAccepted: what is close to a refusal and none.
func TestAccepted(t *testing.T) {
	t.Parallel()
	idA := chainA.ID().ToBig()
	to := &common.Address{1}
	auth, err := types.SignSetCode(key("bob"), types.SetCodeAuthorization{ChainID: *uint256.MustFromBig(idA), Address: common.Address{2}})
	require.NoError(t, err)
	typed := func(data types.TxData) sequence.BundleItem {
		return sequence.BundleItem{Chain: chainA, Transaction: sign("alice", chainA, data)}
	}
	for name, b := range map[string]*sequence.Bundle{
		"last slot is this one": bundle(now, transfer("alice", chainA, 0)),
		"as far as may be":      bundle(now+600, transfer("alice", chainA, 0)),
		"nonce gap":             bundle(now, transfer("alice", chainA, 3), transfer("alice", chainA, 9)),
		"nonces by chain":       bundle(now, transfer("alice", chainA, 3), transfer("alice", chainB, 2), transfer("alice", chainA, 4)),
		"relay and back":        bundle(now, transfer("alice", chainA, 0), relayStep(chainB), relayStep(chainA), relayStep(chainC)),
		"legacy":                bundle(now, typed(&types.LegacyTx{To: to, Gas: 21000, GasPrice: big.NewInt(1)})),
		"access list":           bundle(now, typed(&types.AccessListTx{ChainID: idA, To: to, Gas: 21000, GasPrice: big.NewInt(1)})),
		"set code": bundle(now, typed(&types.SetCodeTx{
			ChainID: uint256.MustFromBig(idA), Gas: 100_000, GasFeeCap: uint256.NewInt(1), GasTipCap: uint256.NewInt(0), AuthList: []types.SetCodeAuthorization{auth},
		})),
		"creation": bundle(now, typed(&types.LegacyTx{Gas: 100_000, GasPrice: big.NewInt(1), Data: []byte{0}})),
		"highest gas limits": bundle(now, typed(&types.LegacyTx{To: to, Gas: params.MaxTxGas, GasPrice: big.NewInt(1)}), relayStep(chainB),
			typed(&types.LegacyTx{Nonce: 1, To: to, Gas: 30_000_000 - params.MaxTxGas, GasPrice: big.NewInt(1)})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(Config{})
			e := add(t, p, b)
			require.Equal(t, b.Hash(), e.Hash)
			for i, it := range b.Items {
				if it.Relay() {
					require.Nil(t, e.Transactions[i])
					require.Zero(t, e.Senders[i])
					continue
				}
				require.Equal(t, address("alice"), e.Senders[i])
				raw, err := e.Transactions[i].MarshalBinary()
				require.NoError(t, err)
				require.Equal(t, it.Transaction, raw)
			}
		})
	}
}

// TestDefaultGas: without limits in the Config, EIP-7825's holds for one transaction and
// 30 million for a bundle. Limits so high that sums pass the end of the numbers do no harm.
func TestDefaultGas(t *testing.T) {
	t.Parallel()
	of := func(gas ...uint64) *sequence.Bundle {
		b := bundle(now)
		for i, g := range gas {
			b.Items = append(b.Items, sequence.BundleItem{Chain: chainA, Transaction: sign("alice", chainA, &types.LegacyTx{
				Nonce: uint64(i), To: &common.Address{1}, Gas: g, GasPrice: big.NewInt(1),
			})})
		}
		return b
	}
	const most = params.MaxTxGas
	for name, c := range map[string]struct {
		cfg  Config
		gas  []uint64
		item int // -1: accepted
		says string
	}{
		"one":            {Config{}, []uint64{most}, -1, ""},
		"one too many":   {Config{}, []uint64{21000, most + 1}, 1, "gas limit 16777217, expected at most 16777216"},
		"all":            {Config{}, []uint64{most, 30_000_000 - most}, -1, ""},
		"all too many":   {Config{}, []uint64{most, 30_000_000 - most - 21000, 21001}, 2, "come to 30000001, expected at most 30000000"},
		"no limits":      {Config{MaxTxGas: math.MaxUint64, MaxGas: math.MaxUint64}, []uint64{math.MaxUint64, math.MaxUint64}, -1, ""},
		"past the end":   {Config{MaxTxGas: math.MaxUint64, MaxGas: math.MaxUint64 - 1}, []uint64{math.MaxUint64 - 1, 21000}, 1, "come to 18446744073709551615, expected at most 18446744073709551614"},
		"less than a tx": {Config{MaxGas: 20999}, []uint64{21000}, 0, "come to 21000, expected at most 20999"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newPool(c.cfg).Check(of(c.gas...))
			if c.item < 0 {
				require.NoError(t, err)
				return
			}
			var invalid *InvalidError
			require.ErrorAs(t, err, &invalid)
			require.ErrorIs(t, err, ErrGas)
			require.Equal(t, c.item, invalid.Item)
			require.Contains(t, err.Error(), c.says)
		})
	}
}

func TestPoolLimits(t *testing.T) {
	t.Parallel()
	one := func(who string, nonce uint64) *sequence.Bundle { return bundle(now+1, transfer(who, chainA, nonce)) }

	t.Run("count", func(t *testing.T) {
		p := newPool(Config{MaxBundles: 2})
		add(t, p, one("alice", 0))
		e := add(t, p, one("bob", 0))
		_, err := p.Add(one("carol", 0))
		require.ErrorIs(t, err, ErrPoolFull)
		require.Contains(t, err.Error(), "at most 2")
		add(t, p, one("bob", 0)) // a known one needs no room
		require.NoError(t, p.Done(e.Hash, failed(Fail, "no")))
		add(t, p, one("carol", 0))
	})
	t.Run("bytes", func(t *testing.T) {
		size := len(one("alice", 0).Encode())
		p := newPool(Config{MaxBytes: 2*size + 4})
		add(t, p, one("alice", 0))
		add(t, p, one("bob", 0))
		_, err := p.Add(one("carol", 0))
		require.ErrorIs(t, err, ErrPoolFull)
		p.Advance(now + 2)
		require.Zero(t, p.Stats().PendingBytes)
	})
	t.Run("sender", func(t *testing.T) {
		p := newPool(Config{MaxPerSender: 2})
		add(t, p, one("alice", 0))
		e := add(t, p, bundle(now+1, transfer("bob", chainA, 0), transfer("alice", chainB, 0), transfer("alice", chainB, 1)))
		_, err := p.Add(one("alice", 1))
		require.ErrorIs(t, err, ErrSenderLimit)
		require.Contains(t, err.Error(), address("alice").Hex())
		require.NotContains(t, err.Error(), "\n")
		add(t, p, one("bob", 1))
		_, err = p.Add(one("bob", 2))
		require.ErrorIs(t, err, ErrSenderLimit)
		require.NoError(t, p.Done(e.Hash, executed(e, now, 1, "")))
		add(t, p, one("alice", 1))
	})
	t.Run("finished", func(t *testing.T) {
		p := newPool(Config{MaxFinished: 2})
		var hashes []common.Hash
		for n := range uint64(4) {
			e := add(t, p, one("alice", n))
			require.NoError(t, p.Done(e.Hash, failed(Fail, "no")))
			hashes = append(hashes, e.Hash)
		}
		for i, h := range hashes {
			_, err := p.Status(h)
			if i < 2 {
				require.ErrorIs(t, err, ErrUnknownBundle)
			} else {
				require.NoError(t, err)
			}
		}
	})
	t.Run("finished bytes", func(t *testing.T) {
		p := newPool(Config{MaxFinishedSize: len(one("alice", 0).Encode()) + 10})
		a, b := add(t, p, one("alice", 0)), add(t, p, one("alice", 1))
		require.NoError(t, p.Done(a.Hash, failed(Fail, "no")))
		require.NoError(t, p.Done(b.Hash, failed(Fail, "no")))
		_, err := p.Status(a.Hash)
		require.ErrorIs(t, err, ErrUnknownBundle)
		require.Equal(t, Failed, state(t, p, b.Hash))
	})
	t.Run("sent and failing over and over", func(t *testing.T) {
		p := newPool(Config{})
		add(t, p, one("bob", 0))
		for range 1000 {
			e := add(t, p, one("alice", 0))
			require.NoError(t, p.Done(e.Hash, failed(Fail, "no")))
		}
		require.LessOrEqual(t, len(p.queue), 2*len(p.done)+65)
		require.Equal(t, 1, p.Stats().Finished)
	})
}

func TestReasonsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	e := add(t, p, bundle(now, transfer("alice", chainA, 0)))
	o := failed(Fail, strings.Repeat("x", 1<<20))
	o.Result.Failed.ReturnData = make([]byte, 1<<20)
	require.NoError(t, p.Done(e.Hash, o))
	s, err := p.Status(e.Hash)
	require.NoError(t, err)
	require.Less(t, len(s.Failure.Reason), 600)
	require.Len(t, s.Failure.ReturnData, maxKeptData)
}

// FuzzCheck: bytes that decode to a bundle are refused with a reason of one line, or are
// a bundle that every operator decodes to the same hash.
func FuzzCheck(f *testing.F) {
	f.Add(bundle(now, transfer("alice", chainA, 0), relayStep(chainB), transfer("bob", chainB, 1)).Encode())
	f.Add(bundle(now, sequence.BundleItem{Chain: chainA, Transaction: []byte{2, 0xc0}}).Encode())
	f.Add(bundle(now).Encode())
	f.Add([]byte{0xc2, 0xc0, 0x80})
	p := newPool(DefaultConfig(chainA, chainB))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := sequence.DecodeBundle(data)
		if err != nil {
			return
		}
		e, err := p.Check(b)
		if err != nil {
			var invalid *InvalidError
			require.ErrorAs(t, err, &invalid)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Equal(t, data, e.Bundle.Encode(), "one bundle, one encoding")
		require.Equal(t, b.Hash(), e.Hash)
	})
}
