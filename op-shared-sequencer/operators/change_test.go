package operators

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"
)

func testChanges() map[string]Change {
	return map[string]Change{
		"add":    {Kind: AddOperator, Operator: testOperator(5, 2), Nonce: 1, Expiry: 2000},
		"remove": {Kind: RemoveOperator, Operator: Operator{Address: testAddress(1)}, Nonce: 2, Expiry: 2000},
		"power":  {Kind: SetPower, Operator: Operator{Address: testAddress(1), Power: 7}, Nonce: 3, Expiry: 2000},
		"join":   {Kind: JoinChain, Chain: 903, Nonce: 4, Expiry: 2000},
		"leave":  {Kind: LeaveChain, Chain: 902, Nonce: 5, Expiry: 2000},
	}
}

func TestChangeCheck(t *testing.T) {
	for name, c := range testChanges() {
		require.NoError(t, c.Check(), name)
	}
	for name, test := range map[string]struct {
		base   string
		change func(*Change)
	}{
		"no kind":               {"join", func(c *Change) { c.Kind = 0 }},
		"unknown kind":          {"join", func(c *Change) { c.Kind = LeaveChain + 1 }},
		"add without a name":    {"add", func(c *Change) { c.Operator.Name = "" }},
		"add without power":     {"add", func(c *Change) { c.Operator.Power = 0 }},
		"add with a chain":      {"add", func(c *Change) { c.Chain = 901 }},
		"remove nobody":         {"remove", func(c *Change) { c.Operator.Address = common.Address{} }},
		"remove with a name":    {"remove", func(c *Change) { c.Operator.Name = "x" }},
		"remove with a power":   {"remove", func(c *Change) { c.Operator.Power = 1 }},
		"remove with a key":     {"remove", func(c *Change) { c.Operator.ConsensusKey[0] = 1 }},
		"remove with a chain":   {"remove", func(c *Change) { c.Chain = 901 }},
		"no power":              {"power", func(c *Change) { c.Operator.Power = 0 }},
		"too much power":        {"power", func(c *Change) { c.Operator.Power = MaxTotalPower + 1 }},
		"power of nobody":       {"power", func(c *Change) { c.Operator.Address = common.Address{} }},
		"power with a name":     {"power", func(c *Change) { c.Operator.Name = "x" }},
		"power with a chain":    {"power", func(c *Change) { c.Chain = 901 }},
		"join chain 0":          {"join", func(c *Change) { c.Chain = 0 }},
		"join with an operator": {"join", func(c *Change) { c.Operator.Power = 1 }},
		"leave with a name":     {"leave", func(c *Change) { c.Operator.Name = "x" }},
	} {
		c := testChanges()[test.base]
		test.change(&c)
		require.ErrorIs(t, c.Check(), ErrMalformed, name)
		_, err := SignChange(testSetID, c, testKey(0))
		require.ErrorIs(t, err, ErrMalformed, name)
		_, err = DecodeSignedChange((&SignedChange{Change: c, Signature: validSignature(t)}).Encode())
		require.ErrorIs(t, err, ErrMalformed, name)
	}
}

func validSignature(t testing.TB) Signature {
	s, err := sign(common.Hash{1}, testKey(0))
	require.NoError(t, err)
	return s
}

func TestSignedChange(t *testing.T) {
	ids := map[common.Hash]bool{}
	for name, c := range testChanges() {
		signed, err := SignChange(testSetID, c, testKey(3))
		require.NoError(t, err, name)
		signer, err := signed.Signer(testSetID)
		require.NoError(t, err, name)
		require.Equal(t, testAddress(3), signer, name)
		require.Equal(t, c.ID(), signed.ID())

		got, err := DecodeSignedChange(signed.Encode())
		require.NoError(t, err, name)
		require.Equal(t, signed, got, name)
		require.Equal(t, signed.Hash(), got.Hash(), name)

		var fromJSON SignedChange
		data, err := json.Marshal(signed)
		require.NoError(t, err, name)
		require.NoError(t, json.Unmarshal(data, &fromJSON), name)
		require.Equal(t, *signed, fromJSON, name)

		// Another set, or another change under the same signature, is somebody else's.
		other, err := signed.Signer(common.Hash{1})
		require.True(t, err != nil || other != signer, name)
		changed := *signed
		changed.Change.Nonce++
		other, err = changed.Signer(testSetID)
		require.True(t, err != nil || other != signer, name)
		ids[signed.ID()], ids[changed.ID()] = true, true
	}
	require.Len(t, ids, 2*len(testChanges()))

	require.Error(t, json.Unmarshal([]byte(`{"kind":"mint"}`), new(Change)))
	_, err := json.Marshal(&Change{})
	require.Error(t, err)
	_, err = DecodeSignedChange(make([]byte, maxSignedChangeBytes+1))
	require.ErrorContains(t, err, "at most")
}

// The longest change fits the limit of the decoder.
func TestLongestChange(t *testing.T) {
	o := testOperator(0, MaxTotalPower)
	o.Name = strings.Repeat("n", MaxNameBytes)
	signed, err := SignChange(testSetID, Change{Kind: AddOperator, Operator: o, Nonce: 1<<64 - 1, Expiry: 1<<64 - 1}, testKey(0))
	require.NoError(t, err)
	got, err := DecodeSignedChange(signed.Encode())
	require.NoError(t, err)
	require.Equal(t, signed, got)
}

func TestSignatureForm(t *testing.T) {
	digest := common.Hash{1}
	good := validSignature(t)
	who, err := good.recover(digest)
	require.NoError(t, err)
	require.Equal(t, testAddress(0), who)

	order := crypto.S256().Params().N
	half := new(big.Int).Rsh(order, 1)
	set := func(s *Signature, at int, v *big.Int) { v.FillBytes(s[at : at+32]) }
	for name, change := range map[string]func(*Signature){
		"v 0":     func(s *Signature) { s[64] -= 27 },
		"v 26":    func(s *Signature) { s[64] = 26 },
		"v 29":    func(s *Signature) { s[64] = 29 },
		"r 0":     func(s *Signature) { set(s, 0, new(big.Int)) },
		"r order": func(s *Signature) { set(s, 0, order) },
		"s 0":     func(s *Signature) { set(s, 32, new(big.Int)) },
		"s high":  func(s *Signature) { set(s, 32, new(big.Int).Add(half, big.NewInt(1))) },
		"s order": func(s *Signature) { set(s, 32, order) },
		"all ones": func(s *Signature) {
			*s = Signature{}
			set(s, 0, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)))
		},
		// The same signature's other form, which a stock ecrecover takes for the same signer.
		"other form": func(s *Signature) {
			set(s, 32, new(big.Int).Sub(order, new(big.Int).SetBytes(s[32:64])))
			s[64] = 27 + 28 - s[64]
		},
	} {
		s := good
		change(&s)
		require.ErrorIs(t, s.Check(), ErrMalformed, name)
		_, err := s.recover(digest)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
	edge := good
	set(&edge, 32, half)
	require.NoError(t, edge.Check())
}
