package sequence

import (
	"bytes"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

func hashes() *rapid.Generator[common.Hash] {
	return rapid.Custom(func(t *rapid.T) common.Hash {
		return common.BytesToHash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
	})
}

func txs(min int) *rapid.Generator[[][]byte] {
	return rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 40), min, 4)
}

func chainIDs(min int) *rapid.Generator[[]ChainID] {
	return rapid.Custom(func(t *rapid.T) []ChainID {
		ids := rapid.SliceOfNDistinct(rapid.Uint64Min(1), min, 4, rapid.ID).Draw(t, "chains")
		slices.Sort(ids)
		out := make([]ChainID, len(ids))
		for i, id := range ids {
			out[i] = ChainID(id)
		}
		return out
	})
}

func terms() *rapid.Generator[*Terms] {
	return rapid.Custom(func(t *rapid.T) *Terms {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		out := &Terms{First: Slot(rapid.Uint64().Draw(t, "first")), ReplacementID: hashes().Draw(t, "id"), Signature: rapid.SliceOfN(rapid.Byte(), 0, 65).Draw(t, "signature")}
		for i := range rapid.IntRange(0, 2).Draw(t, "conditions") {
			c := Condition{Chain: ChainID(i + 1), NumberMax: rapid.Uint64().Draw(t, "max"), TimeMin: rapid.Uint64().Draw(t, "min")}
			for range rapid.IntRange(0, 2).Draw(t, "accounts") {
				c.Accounts = append(c.Accounts, KnownAccount{StorageRoot: hashes().Draw(t, "root"), Slots: []KnownSlot{{Key: hashes().Draw(t, "key")}}})
			}
			out.Conditions = append(out.Conditions, c)
		}
		return out
	})
}

// subblocks draws well-formed subblocks of all kinds.
func subblocks() *rapid.Generator[*Subblock] {
	return rapid.Custom(func(t *rapid.T) *Subblock {
		s := &Subblock{
			Slot: Slot(rapid.Uint64().Draw(t, "slot")), Index: rapid.Uint64Range(0, 2).Draw(t, "index"),
			Parent: hashes().Draw(t, "parent"),
		}
		ids := chainIDs(1).Draw(t, "open")
		for _, id := range ids {
			if s.Index == 0 {
				o := Opening{
					Chain: id, ParentHash: hashes().Draw(t, "parent"), ParentNumber: rapid.Uint64().Draw(t, "number"),
					L1Origin:   eth.BlockID{Hash: hashes().Draw(t, "origin"), Number: rapid.Uint64().Draw(t, "origin")},
					PrevRandao: hashes().Draw(t, "randao"), ParentBeaconRoot: hashes().Draw(t, "beacon"),
					GasLimit: rapid.Uint64().Draw(t, "gas"), NoTxPool: rapid.Bool().Draw(t, "nopool"), Deposits: txs(0).Draw(t, "deposits"),
				}
				if rapid.Bool().Draw(t, "holocene") {
					o.EIP1559Params = rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "params")
				}
				if rapid.Bool().Draw(t, "jovian") {
					o.MinBaseFee = []uint64{rapid.Uint64().Draw(t, "fee")}
				}
				s.Openings = append(s.Openings, o)
			}
			s.Results = append(s.Results, Result{Chain: id, Transactions: rapid.Uint64().Draw(t, "txs"), GasUsed: rapid.Uint64().Draw(t, "gas"), ReceiptsRoot: hashes().Draw(t, "receipts")})
		}
		for range rapid.IntRange(0, 4).Draw(t, "steps") {
			s.Steps = append(s.Steps, Step{
				Chain: rapid.SampledFrom(ids).Draw(t, "chain"), Bundle: hashes().Filter(func(h common.Hash) bool { return h != common.Hash{} }).Draw(t, "bundle"),
				Transactions: txs(1).Draw(t, "txs"), MayRevert: rapid.Bool().Draw(t, "mayrevert"), Terms: terms().Draw(t, "terms"),
			})
		}
		if rapid.Bool().Draw(t, "last") {
			for _, id := range ids {
				s.Seals = append(s.Seals, Seal{Chain: id, BlockHash: hashes().Draw(t, "block"), Number: rapid.Uint64().Draw(t, "number")})
			}
		}
		return s
	})
}

func TestSubblockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := subblocks().Draw(t, "subblock")
		if err := s.Check(); err != nil {
			t.Fatalf("drawn subblock is malformed: %v", err)
		}
		back, err := DecodeSubblock(s.Encode())
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if back.Hash() != s.Hash() || !bytes.Equal(back.Encode(), s.Encode()) {
			t.Fatal("decoding changed the subblock")
		}
		if back.Last() != s.Last() {
			t.Fatal("decoding changed whether the subblock is the last")
		}
	})
}

// A subblock's hash must change with every field: what is signed is what is meant.
func TestSubblockHashCoversEveryField(t *testing.T) {
	full := func() *Subblock {
		return &Subblock{
			Slot: 7, Parent: common.Hash{1},
			Openings: []Opening{{
				Chain: 1, ParentHash: common.Hash{2}, ParentNumber: 3, L1Origin: eth.BlockID{Hash: common.Hash{4}, Number: 5}, PrevRandao: common.Hash{6},
				FeeRecipient: common.Address{7}, ParentBeaconRoot: common.Hash{8}, GasLimit: 9, EIP1559Params: []byte("12345678"), MinBaseFee: []uint64{10},
				Deposits: [][]byte{{11}},
			}},
			Steps:   []Step{{Chain: 1, Bundle: common.Hash{12}, Transactions: [][]byte{{13}}}},
			Results: []Result{{Chain: 1, Transactions: 14, GasUsed: 15, ReceiptsRoot: common.Hash{16}}},
			Seals:   []Seal{{Chain: 1, BlockHash: common.Hash{17}, Number: 18}},
		}
	}
	changes := map[string]func(s *Subblock){
		"slot": func(s *Subblock) { s.Slot++ }, "index": func(s *Subblock) { s.Index++ }, "parent": func(s *Subblock) { s.Parent[0]++ },
		"opening chain": func(s *Subblock) { s.Openings[0].Chain++ }, "opening parent": func(s *Subblock) { s.Openings[0].ParentHash[0]++ },
		"opening number": func(s *Subblock) { s.Openings[0].ParentNumber++ }, "origin": func(s *Subblock) { s.Openings[0].L1Origin.Number++ },
		"origin hash": func(s *Subblock) { s.Openings[0].L1Origin.Hash[0]++ }, "randao": func(s *Subblock) { s.Openings[0].PrevRandao[0]++ },
		"fee recipient": func(s *Subblock) { s.Openings[0].FeeRecipient[0]++ }, "beacon root": func(s *Subblock) { s.Openings[0].ParentBeaconRoot[0]++ },
		"gas limit": func(s *Subblock) { s.Openings[0].GasLimit++ }, "1559": func(s *Subblock) { s.Openings[0].EIP1559Params[0]++ },
		"min base fee": func(s *Subblock) { s.Openings[0].MinBaseFee[0]++ }, "no min base fee": func(s *Subblock) { s.Openings[0].MinBaseFee = nil },
		"no tx pool": func(s *Subblock) { s.Openings[0].NoTxPool = true }, "deposits": func(s *Subblock) { s.Openings[0].Deposits = nil },
		"step chain": func(s *Subblock) { s.Steps[0].Chain++ }, "bundle": func(s *Subblock) { s.Steps[0].Bundle[0]++ },
		"may revert": func(s *Subblock) { s.Steps[0].MayRevert = true }, "terms": func(s *Subblock) { s.Steps[0].Terms = &Terms{} },
		"first": func(s *Subblock) { s.Steps[0].Terms = &Terms{First: 1} }, "replacement": func(s *Subblock) { s.Steps[0].Terms = &Terms{ReplacementID: common.Hash{1}} },
		"condition":   func(s *Subblock) { s.Steps[0].Terms = &Terms{Conditions: []Condition{{}}} },
		"transaction": func(s *Subblock) { s.Steps[0].Transactions[0][0]++ }, "result chain": func(s *Subblock) { s.Results[0].Chain++ },
		"result count": func(s *Subblock) { s.Results[0].Transactions++ }, "result gas": func(s *Subblock) { s.Results[0].GasUsed++ },
		"receipts": func(s *Subblock) { s.Results[0].ReceiptsRoot[0]++ }, "seal chain": func(s *Subblock) { s.Seals[0].Chain++ },
		"seal hash": func(s *Subblock) { s.Seals[0].BlockHash[0]++ }, "seal number": func(s *Subblock) { s.Seals[0].Number++ },
	}
	seen := map[common.Hash]string{full().Hash(): "the original"}
	for name, change := range changes {
		s := full()
		change(s)
		if other, ok := seen[s.Hash()]; ok {
			t.Errorf("a change of %s has the hash of %s", name, other)
		}
		seen[s.Hash()] = "a change of " + name
	}
}

func TestSubblockCheck(t *testing.T) {
	good := func() *Subblock {
		return &Subblock{
			Slot:     1,
			Openings: []Opening{{Chain: 1}, {Chain: 2}},
			Steps:    []Step{{Chain: 2, Transactions: [][]byte{{1}}}},
			Results:  []Result{{Chain: 1}, {Chain: 2}},
			Seals:    []Seal{{Chain: 1}, {Chain: 2}},
		}
	}
	require.NoError(t, good().Check())
	for name, test := range map[string]struct {
		break_ func(s *Subblock)
		want   string
	}{
		"no openings":           {func(s *Subblock) { s.Openings = nil }, "0 openings"},
		"late openings":         {func(s *Subblock) { s.Index = 1 }, "2 openings"},
		"openings out of order": {func(s *Subblock) { slices.Reverse(s.Openings) }, "openings are not ascending"},
		"opened twice":          {func(s *Subblock) { s.Openings[1].Chain = 1 }, "openings are not ascending"},
		"results out of order":  {func(s *Subblock) { slices.Reverse(s.Results) }, "results are not ascending"},
		"seals out of order":    {func(s *Subblock) { slices.Reverse(s.Seals) }, "seals are not ascending"},
		"a seal too few":        {func(s *Subblock) { s.Seals = s.Seals[:1] }, "1 seals for 2"},
		"another chain sealed":  {func(s *Subblock) { s.Seals[1].Chain = 3 }, "chain 2 has a result and no seal"},
		"opening, no result":    {func(s *Subblock) { s.Results, s.Seals = s.Results[:1], s.Seals[:1] }, "chain 2 is opened and has no result"},
		"result, no opening":    {func(s *Subblock) { s.Openings = s.Openings[:1] }, "1 openings for 2"},
		"step on closed chain":  {func(s *Subblock) { s.Steps[0].Chain = 3 }, "step 0 is on chain 3"},
		"empty step":            {func(s *Subblock) { s.Steps[0].Transactions = nil }, "step 0 has no transactions"},
		"plain may revert":      {func(s *Subblock) { s.Steps[0].MayRevert = true }, "step 0 is of no bundle"},
		"plain terms":           {func(s *Subblock) { s.Steps[0].Terms = &Terms{First: 1} }, "step 0 is of no bundle"},
		"relay may revert": {func(s *Subblock) {
			s.Steps[0].Bundle, s.Steps[0].Relay, s.Steps[0].MayRevert = common.Hash{1}, true, true
		}, "a relay step that may revert"},
		"late terms": {func(s *Subblock) {
			s.Steps[0].Bundle = common.Hash{1}
			s.Steps = append(s.Steps, s.Steps[0])
			s.Steps[1].Terms = &Terms{First: 1}
		}, "terms in a step that is not its first"},
		"costly terms": {func(s *Subblock) {
			s.Steps[0].Bundle, s.Steps[0].Terms = common.Hash{1}, &Terms{Conditions: []Condition{{Accounts: make([]KnownAccount, MaxConditionCost)}}}
		}, "conditions cost 1001, expected at most 1000"},
		"terms twice": {func(s *Subblock) {
			s.Steps[0].Bundle, s.Steps[0].Terms = common.Hash{1}, &Terms{Conditions: []Condition{{Chain: 1}, {Chain: 1}}}
		}, "not ascending by chain"},
		"many terms": {func(s *Subblock) {
			for i := range byte(5) {
				s.Steps = append(s.Steps, Step{Chain: 2, Bundle: common.Hash{i + 1}, Transactions: [][]byte{{1}}, Terms: &Terms{Conditions: []Condition{{Accounts: make([]KnownAccount, MaxConditionCost-1)}}}})
			}
		}, "cost more than 4000"},
		"odd parameters": {func(s *Subblock) { s.Openings[0].EIP1559Params = []byte{1} }, "1 bytes of EIP-1559"},
		"two base fees":  {func(s *Subblock) { s.Openings[0].MinBaseFee = []uint64{1, 2} }, "2 minimum base fees"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			test.break_(s)
			err := s.Check()
			require.ErrorIs(t, err, ErrMalformed)
			require.ErrorContains(t, err, test.want)
			_, err = DecodeSubblock(s.Encode())
			require.ErrorIs(t, err, ErrMalformed)
		})
	}
}

func TestOpeningKeepsAttributes(t *testing.T) {
	gas, root, fee, params := eth.Uint64Quantity(30e6), common.Hash{5}, uint64(1000), eth.Bytes8{0, 0, 0, 250, 0, 0, 0, 6}
	attrs := &eth.PayloadAttributes{
		Timestamp: hexutil.Uint64(77), PrevRandao: eth.Bytes32{1}, SuggestedFeeRecipient: common.Address{2}, Withdrawals: &types.Withdrawals{},
		ParentBeaconBlockRoot: &root, Transactions: []eth.Data{{0x7e, 1}, {0x7e, 2}}, NoTxPool: true, GasLimit: &gas,
		EIP1559Params: &params, MinBaseFee: &fee,
	}
	o, err := NewOpening(901, eth.BlockID{Hash: common.Hash{9}, Number: 8}, eth.BlockID{Number: 3}, attrs)
	require.NoError(t, err)
	require.Equal(t, attrs, o.Attributes(77))
	require.Equal(t, eth.BlockID{Hash: common.Hash{9}, Number: 8}, o.Parent())

	attrs.EIP1559Params, attrs.MinBaseFee = nil, nil
	o, err = NewOpening(901, eth.BlockID{}, eth.BlockID{}, attrs)
	require.NoError(t, err)
	require.Equal(t, attrs, o.Attributes(77))

	attrs.ParentBeaconBlockRoot = nil
	_, err = NewOpening(901, eth.BlockID{}, eth.BlockID{}, attrs)
	require.ErrorContains(t, err, "chain 901")
}

func TestBundleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &Bundle{Expiry: Slot(rapid.Uint64().Draw(t, "expiry")), Terms: terms().Draw(t, "terms")}
		for range rapid.IntRange(0, 5).Draw(t, "items") {
			b.Items = append(b.Items, BundleItem{Chain: ChainID(rapid.Uint64().Draw(t, "chain")), Transaction: rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "tx"), MayRevert: rapid.Bool().Draw(t, "may")})
		}
		back, err := DecodeBundle(b.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if back.Hash() != b.Hash() || !slices.Equal(back.Chains(), b.Chains()) {
			t.Fatal("decoding changed the bundle")
		}
	})
}

// What a bundle asks for is in its hash, and the steps tell it all.
func TestBundleOf(t *testing.T) {
	b := &Bundle{Expiry: 9, Terms: &Terms{First: 7, Conditions: []Condition{{Chain: 1, NumberMin: 3}}}, Items: []BundleItem{
		{Chain: 1, Transaction: []byte{1}}, {Chain: 2}, {Chain: 1, Transaction: []byte{2}, MayRevert: true}, {Chain: 1, Transaction: []byte{3}},
	}}
	steps := []Step{
		{Chain: 1, Expiry: 9, Transactions: [][]byte{{1}}, Terms: b.Terms}, {Chain: 2, Expiry: 9, Relay: true, Transactions: [][]byte{{8}}},
		{Chain: 2, Expiry: 9, Relay: true, Transactions: [][]byte{{9}}},
		{Chain: 1, Expiry: 9, Transactions: [][]byte{{2}}, MayRevert: true}, {Chain: 1, Expiry: 9, Transactions: [][]byte{{3}}},
	}
	require.Equal(t, b.Hash(), BundleOf(steps).Hash())
	require.Equal(t, Slot(7), b.First())
	require.Zero(t, (&Bundle{}).First())
	for name, change := range map[string]func(){
		"no terms": func() { steps[0].Terms = nil }, "another first": func() { steps[0].Terms = &Terms{First: 6, Conditions: b.Terms.Conditions} },
		"no condition": func() { steps[0].Terms = &Terms{First: 7} }, "may revert": func() { steps[4].MayRevert = true }, "may not": func() { steps[3].MayRevert = false },
	} {
		was := slices.Clone(steps)
		change()
		require.NotEqual(t, b.Hash(), BundleOf(steps).Hash(), name)
		steps = was
	}
}

// A bundle without terms is encoded as before there were any, and in no other way.
func TestOptionalFieldsAreLeftOut(t *testing.T) {
	require.Equal(t, "0xc8c6c20101c2028009", hexutil.Encode((&Bundle{Expiry: 9, Items: []BundleItem{{Chain: 1, Transaction: []byte{1}}, {Chain: 2}}}).Encode()))
	_, err := DecodeBundle(hexutil.MustDecode("0xc9c7c3010180c2028009"))
	require.ErrorIs(t, err, ErrMalformed)
	require.ErrorContains(t, err, "canonical")
}

func FuzzDecodeSubblock(f *testing.F) {
	f.Add((&Subblock{Slot: 1, Openings: []Opening{{Chain: 1}}, Results: []Result{{Chain: 1}}, Seals: []Seal{{Chain: 1}}}).Encode())
	f.Add([]byte{0xc0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSubblock(data)
		if err != nil {
			return
		}
		// Only one encoding of a subblock is accepted, or its hash would not identify it.
		if !bytes.Equal(s.Encode(), data) {
			t.Fatalf("another encoding was accepted: %x", data)
		}
	})
}

func FuzzDecodeBundle(f *testing.F) {
	f.Add((&Bundle{Items: []BundleItem{{Chain: 1, Transaction: []byte{1}}, {Chain: 2}}, Expiry: 9}).Encode())
	f.Add((&Bundle{Items: []BundleItem{{Chain: 1, Transaction: []byte{1}, MayRevert: true}}, Terms: &Terms{First: 1, Conditions: []Condition{{Chain: 1}}}}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBundle(data)
		if err != nil {
			return
		}
		if !bytes.Equal(b.Encode(), data) {
			t.Fatalf("another encoding was accepted: %x", data)
		}
	})
}
