package operators

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// What a decoder takes is what the encoder writes, byte for byte: there is one encoding.

func FuzzDecodeSignedChange(f *testing.F) {
	for _, c := range testChanges() {
		signed, err := SignChange(testSetID, c, testKey(0))
		require.NoError(f, err)
		f.Add(signed.Encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeSignedChange(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.Equal(t, data, c.Encode())
		require.NoError(t, c.Change.Check())
		_, _ = c.Signer(testSetID)
		text, err := json.Marshal(c)
		require.NoError(t, err)
		var again SignedChange
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, *c, again)
	})
}

func FuzzDecodeSet(f *testing.F) {
	s := NewSet(testGenesis(1, 2, 3, 4))
	f.Add(s.Encode())
	for _, c := range testChanges() {
		c.Expiry = slot0 + 10
		if signed, err := SignChange(s.ID(), c, testKey(0)); err == nil {
			_ = s.Apply(signed, slot0)
		}
	}
	f.Add(s.Encode())
	approve(f, s, Change{Kind: JoinChain, Chain: 999, Expiry: slot0 + 10}, slot0, 1, 2, 3)
	s.Boundary(slot0)
	f.Add(s.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSet(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.Equal(t, data, s.Encode())
		// Whatever a set is decoded from, it goes on as a set that can be decoded.
		c := s.Clone()
		for _, slot := range []sequence.Slot{s.Slot(), s.Slot() + 1, s.Slot() + MaxExpiryAhead, 1<<64 - 1} {
			c.Boundary(slot)
			again, err := DecodeSet(c.Encode())
			require.NoError(t, err)
			require.Equal(t, c.Root(), again.Root())
		}
		require.Equal(t, data, s.Encode())
	})
}

func FuzzDecodeSignedSubblock(f *testing.F) {
	for _, sub := range []*sequence.Subblock{testSubblock(1, 1), laterSubblock(1)} {
		signed, err := SignSubblock(testSetID, 3, sub, testKey(0))
		require.NoError(f, err)
		f.Add(signed.Encode())
	}
	limits := Limits{Bytes: 4096, Items: 256}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSignedSubblock(data, limits)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.LessOrEqual(t, len(data), limits.Bytes)
		require.Equal(t, data, s.Encode())
		View(s.Subblock)
		_, _ = s.Leader(testSetID)
	})
}

func FuzzDecodeEvidence(f *testing.F) {
	f.Add(testEvidence(f, 0, 1).Encode())
	f.Add(testEvidence(f, 1, 1<<63).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEvidence(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.Equal(t, data, e.Encode())
		leader, err := e.Check(testSetID)
		require.Equal(t, err == nil, leader != (common.Address{}))
	})
}

func FuzzDecodeGenesis(f *testing.F) {
	for _, g := range []*Genesis{testGenesis(1), testGenesis(1, 2, 3, MaxTotalPower-6)} {
		data, err := json.Marshal(g)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := DecodeGenesis(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := json.Marshal(g)
		require.NoError(t, err)
		g2, err := DecodeGenesis(again)
		require.NoError(t, err)
		require.Equal(t, g.ID(), g2.ID())
		s, err := DecodeSet(NewSet(g).Encode())
		require.NoError(t, err)
		require.Equal(t, g.ID(), s.ID())
	})
}

// FuzzDecodeSignState is also about a file whose checksum is right.
func FuzzDecodeSignState(f *testing.F) {
	signed, err := SignSubblock(testSetID, 3, testSubblock(1, 1), testKey(0))
	require.NoError(f, err)
	body := mustEncode(&signState{testSetID, testAddress(0), 3, []signedView{{View: [32]byte{1}}, {View(signed.Subblock), signed.Encode()}}})
	f.Add(body)
	f.Add(mustEncode(&signState{SetID: testSetID, Address: testAddress(0)}))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _, err := decodeSignState(body)
		require.Error(t, err, "no checksum")
		data := seal(signerMagic, body)
		st, kept, err := decodeSignState(data)
		if err != nil {
			return
		}
		require.True(t, bytes.Equal(data, seal(signerMagic, mustEncode(st))))
		for view, signed := range kept {
			require.Equal(t, view, View(signed.Subblock))
			require.Equal(t, st.Height, signed.Height)
		}
	})
}

func FuzzDecodeEvidenceFile(f *testing.F) {
	f.Add(mustEncode(&evidenceBody{testSetID, []Evidence{*testEvidence(f, 0, 1)}, []VoteEvidence{{Kind: "DUPLICATE_VOTE", Height: 4}}}))
	f.Add(mustEncode(&evidenceBody{SetID: testSetID}))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := &EvidencePool{setID: testSetID}
		if p.restore(seal(evidenceMagic, body)) != nil {
			return
		}
		for _, e := range p.List().Subblocks {
			leader, err := e.Check(testSetID)
			require.NoError(t, err)
			require.Equal(t, e.Leader, leader)
		}
	})
}
