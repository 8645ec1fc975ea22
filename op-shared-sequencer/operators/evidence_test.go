package operators

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// testEvidence is what a leader's two subblocks prove.
func testEvidence(t testing.TB, key int, height uint64) *Evidence {
	t.Helper()
	p, err := NewEvidencePool("", testSetID, EvidenceLimits{})
	require.NoError(t, err)
	e, err := p.Observe(signLie(t, key, height, 1))
	require.NoError(t, err)
	require.Nil(t, e)
	e, err = p.Observe(signLie(t, key, height, 2))
	require.NoError(t, err)
	require.NotNil(t, e)
	return e
}

func signLie(t testing.TB, key int, height uint64, seed byte) *SignedSubblock {
	t.Helper()
	s, err := SignSubblock(testSetID, height, testSubblock(1, seed), testKey(key))
	require.NoError(t, err)
	return s
}

func TestEvidence(t *testing.T) {
	good := testEvidence(t, 3, 9)
	leader, err := good.Check(testSetID)
	require.NoError(t, err)
	require.Equal(t, testAddress(3), leader)
	require.Equal(t, uint64(9), good.Height)
	require.ElementsMatch(t, []common.Hash{testSubblock(1, 1).Hash(), testSubblock(1, 2).Hash()}, good.Hashes[:])

	got, err := DecodeEvidence(good.Encode())
	require.NoError(t, err)
	require.Equal(t, good, got)
	data, err := json.Marshal(good)
	require.NoError(t, err)
	var fromJSON Evidence
	require.NoError(t, json.Unmarshal(data, &fromJSON))
	require.Equal(t, *good, fromJSON)
	huge := *good
	huge.Height = 1<<64 - 1
	_, err = DecodeEvidence(huge.Encode())
	require.NoError(t, err, "the longest encoding")
	_, err = DecodeEvidence(make([]byte, maxEvidenceBytes+1))
	require.ErrorContains(t, err, "at most")

	swapped := Evidence{good.Height, good.View, [2]common.Hash{good.Hashes[1], good.Hashes[0]}, [2]Signature{good.Signatures[1], good.Signatures[0]}}
	leader, err = swapped.Check(testSetID)
	require.NoError(t, err)
	require.Equal(t, testAddress(3), leader)

	other := testEvidence(t, 4, 9)
	for name, test := range map[string]struct {
		change func(*Evidence)
		want   error
	}{
		"one subblock":    {func(e *Evidence) { e.Hashes[1], e.Signatures[1] = e.Hashes[0], e.Signatures[0] }, ErrSameSubblock},
		"two signers":     {func(e *Evidence) { e.Signatures[1] = other.Signatures[1] }, ErrTwoSigners},
		"malformed":       {func(e *Evidence) { e.Signatures[1][64] = 0 }, ErrMalformed},
		"nobody's":        {func(e *Evidence) { e.Signatures[0] = Signature{64: 27} }, ErrMalformed},
		"swapped partly":  {func(e *Evidence) { e.Signatures[0], e.Signatures[1] = e.Signatures[1], e.Signatures[0] }, nil},
		"another height":  {func(e *Evidence) { e.Height++ }, nil},
		"another view":    {func(e *Evidence) { e.View[0]++ }, nil},
		"another content": {func(e *Evidence) { e.Hashes[0][0]++ }, nil},
	} {
		e := *good
		test.change(&e)
		leader, err := e.Check(testSetID)
		require.Error(t, err, name)
		require.Zero(t, leader, name)
		if test.want != nil {
			require.ErrorIs(t, err, test.want, name)
		}
	}
	_, err = good.Check(common.Hash{1})
	require.Error(t, err)
}

func TestEvidencePool(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence")
	p, err := NewEvidencePool(path, testSetID, EvidenceLimits{PerLeader: 2, Recent: 4})
	require.NoError(t, err)
	observe := func(s *SignedSubblock) *Evidence {
		t.Helper()
		e, err := p.Observe(s)
		require.NoError(t, err)
		return e
	}
	require.Nil(t, observe(signLie(t, 0, 1, 1)))
	require.Nil(t, observe(signLie(t, 0, 1, 1)), "the same again")
	require.Nil(t, observe(signLie(t, 1, 1, 2)), "another leader")
	require.Nil(t, observe(signLie(t, 0, 2, 2)), "another height")
	otherView, err := SignSubblock(testSetID, 1, testSubblock(2, 2), testKey(0))
	require.NoError(t, err)
	require.Nil(t, observe(otherView), "another view")
	_, err = os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	e := observe(signLie(t, 0, 1, 2))
	require.NotNil(t, e)
	require.Nil(t, observe(signLie(t, 0, 1, 3)), "proven already")
	vote := VoteEvidence{Kind: "DUPLICATE_VOTE", Address: common.Address{1}, Height: 3, Time: 4, Power: 5}
	require.NoError(t, p.AddVotes(vote))
	require.NoError(t, p.AddVotes(vote))

	want := EvidenceList{Subblocks: []Proven{{testAddress(0), *e}}, Votes: []VoteEvidence{vote}}
	require.Equal(t, want, p.List())
	p, err = NewEvidencePool(path, testSetID, EvidenceLimits{PerLeader: 2, Recent: 4})
	require.NoError(t, err)
	require.Equal(t, want, p.List())

	// One leader's lies take two places and no others', and it is the oldest that are forgotten.
	for height := uint64(10); height < 20; height++ {
		observe(signLie(t, 0, height, 1))
		observe(signLie(t, 0, height, 2))
		vote.Height = height
		require.NoError(t, p.AddVotes(vote))
	}
	require.Len(t, p.List().Subblocks, 2)
	require.Len(t, p.List().Votes, 2)
	require.Nil(t, observe(signLie(t, 1, 10, 1)))
	for height := uint64(11); height < 15; height++ {
		observe(signLie(t, 1, height, 1))
	}
	require.Nil(t, observe(signLie(t, 1, 10, 2)), "forgotten")
	require.NotNil(t, observe(signLie(t, 1, 14, 2)))
	require.Len(t, p.List().Subblocks, 3)
	require.Len(t, p.leaders[testAddress(1)].first, 4)

	require.ErrorIs(t, p.AddVotes(VoteEvidence{Kind: string(make([]byte, 100))}), ErrMalformed)
	bad := signLie(t, 0, 1, 1)
	bad.Signature[64] = 0
	_, err = p.Observe(bad)
	require.ErrorIs(t, err, ErrMalformed)

	// Strangers' keys do not take memory without end.
	for key := range 3 * MaxOperators {
		observe(signLie(t, 100+key, 1, 1))
	}
	require.Len(t, p.leaders, 2*MaxOperators)
	require.Len(t, p.order, 2*MaxOperators)
}

func TestEvidenceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence")
	p, err := NewEvidencePool(path, testSetID, EvidenceLimits{})
	require.NoError(t, err)
	_, err = p.Observe(signLie(t, 0, 1, 1))
	require.NoError(t, err)
	e, err := p.Observe(signLie(t, 0, 1, 2))
	require.NoError(t, err)
	good, err := os.ReadFile(path)
	require.NoError(t, err)

	_, err = NewEvidencePool(path, common.Hash{1}, EvidenceLimits{})
	require.ErrorIs(t, err, ErrEvidence)
	for at := range good {
		data := append([]byte(nil), good...)
		data[at] ^= 0x80
		for _, data := range [][]byte{data, good[:at]} {
			require.NoError(t, os.WriteFile(path, data, 0o600))
			_, err := NewEvidencePool(path, testSetID, EvidenceLimits{})
			require.ErrorIs(t, err, ErrEvidence)
			require.ErrorContains(t, err, "move it away")
		}
	}
	bad := *e
	bad.Height++
	require.NoError(t, os.WriteFile(path, seal(evidenceMagic, mustEncode(&evidenceBody{SetID: testSetID, Proven: []Evidence{bad}})), 0o600))
	_, err = NewEvidencePool(path, testSetID, EvidenceLimits{})
	require.ErrorIs(t, err, ErrEvidence, "what proves nothing is not served")
}

// Evidence that could not be written is returned, kept, and written when it can be.
func TestEvidenceDiskErrors(t *testing.T) {
	disk := newCrashFiles()
	p, err := newEvidencePool(disk, "evidence", testSetID, EvidenceLimits{})
	require.NoError(t, err)
	_, err = p.Observe(signLie(t, 0, 1, 1))
	require.NoError(t, err)
	disk.fullAt = disk.ops + 2
	e, err := p.Observe(signLie(t, 0, 1, 2))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotNil(t, e)
	again, err := p.Observe(signLie(t, 0, 1, 2))
	require.NoError(t, err)
	require.Nil(t, again)
	vote := VoteEvidence{Kind: "LIGHT_CLIENT_ATTACK", Address: common.Address{2}}
	disk.fullAt = disk.ops + 2
	require.ErrorIs(t, p.AddVotes(vote), syscall.ENOSPC)
	require.NoError(t, p.AddVotes(vote))

	restarted, err := newEvidencePool(disk, "evidence", testSetID, EvidenceLimits{})
	require.NoError(t, err)
	require.Equal(t, p.List(), restarted.List())
	require.Len(t, restarted.List().Subblocks, 1)
	require.Len(t, restarted.List().Votes, 1)
}

// An honest leader's signer never makes what the pool takes for evidence.
func TestSignerMakesNoEvidence(t *testing.T) {
	s := openTestSigner(t, filepath.Join(t.TempDir(), "signer"))
	p, err := NewEvidencePool("", testSetID, EvidenceLimits{})
	require.NoError(t, err)
	for height := uint64(1); height < 4; height++ {
		for seed := range byte(5) {
			for _, sub := range []*sequence.Subblock{testSubblock(seed%2, seed), laterSubblock(seed)} {
				signed, err := s.Sign(height, sub)
				require.NoError(t, err)
				e, err := p.Observe(signed)
				require.NoError(t, err)
				require.Nil(t, e)
			}
		}
	}
}
