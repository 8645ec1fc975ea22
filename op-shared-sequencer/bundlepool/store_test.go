package bundlepool

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// filled has a bundle in each state that is stored, and one that is not.
func filled(t *testing.T) (p *Pool, pending, retried, again, executedB, undone, gone *Entry) {
	p = newPool(Config{})
	again = add(t, p, bundle(now+50, transfer("alice", chainA, 0), relayStep(chainB)))
	undone = add(t, p, bundle(now+1, transfer("bob", chainA, 0), transfer("bob", chainB, 0)))
	require.NoError(t, p.Done(again.Hash, executed(again, now, 10, "one")))
	require.NoError(t, p.Done(undone.Hash, executed(undone, now, 10, "")))
	p.Advance(now + 5)
	p.Replaced(chainA, 10)
	p.Replaced(chainB, 10)
	executedB = add(t, p, bundle(now+50, transfer("carol", chainA, 0), relayStep(chainB)))
	require.NoError(t, p.Done(executedB.Hash, executed(executedB, now+5, 10, "")))
	gone = add(t, p, bundle(now+50, transfer("dave", chainA, 0)))
	require.NoError(t, p.Done(gone.Hash, failed(Fail, "reverted")))
	pending = add(t, p, bundle(now+50, transfer("erin", chainA, 0)))
	retried = add(t, p, bundle(now+50, transfer("frank", chainA, 0)))
	require.NoError(t, p.Done(retried.Hash, Outcome{Kind: Retry, Result: BundleResult{Failed: &Failure{Item: -1, Reason: "no room", ReturnData: []byte{1}, Timeout: true}}}))
	p.Settled(chainA, 4)
	p.Settled(chainB, 5)
	return
}

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	p, pending, retried, again, ex, undone, gone := filled(t)
	path := filepath.Join(t.TempDir(), "bundles")
	require.NoError(t, p.Save(path))

	q := newPool(Config{MaxTxBytes: 1, MaxBundles: 1, MaxTxGas: 1, MaxGas: 1}) // limits are for what is new
	require.NoError(t, q.Load(path))
	require.Equal(t, now+5, q.Slot())
	for _, e := range []*Entry{pending, retried, again, ex, undone} {
		want, err := p.Status(e.Hash)
		require.NoError(t, err)
		got, err := q.Status(e.Hash)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := q.Status(gone.Hash)
	require.ErrorIs(t, err, ErrUnknownBundle)
	require.Equal(t, hashes(p.Pending(now+5)), hashes(q.Pending(now+5)))
	require.Equal(t, []common.Hash{again.Hash, pending.Hash, retried.Hash}, hashes(q.Pending(now+5)))
	for _, chain := range []sequence.ChainID{chainA, chainB, chainC} {
		require.Equal(t, p.Reserved(chain), q.Reserved(chain))
	}
	require.Equal(t, p.Snapshot(), q.Snapshot())

	// It goes on as the first would have: later arrivals come later, blocks settle and are replaced.
	add(t, p, bundle(now+50, transfer("grace", chainA, 0)))
	want := p.Pending(now + 5)
	require.NoError(t, p.Save(path))
	require.NoError(t, q.Load(path))
	require.Equal(t, hashes(want), hashes(q.Pending(now+5)))
	q.Settled(chainA, 10)
	q.Settled(chainB, 10)
	require.Equal(t, Safe, state(t, q, ex.Hash))
	moved, _ := q.Replaced(chainA, 10)
	require.Equal(t, []common.Hash{ex.Hash}, moved)
}

func TestSaveOnlyChanges(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	path := filepath.Join(t.TempDir(), "bundles")
	written := func() bool {
		_ = os.Remove(path)
		require.NoError(t, p.Save(path))
		_, err := os.Stat(path)
		return err == nil
	}
	require.True(t, written(), "the first time, even if empty")
	require.False(t, written())
	e := add(t, p, bundle(now+9, transfer("alice", chainA, 0)))
	require.True(t, written())
	require.NoError(t, p.Done(e.Hash, failed(Retry, "later")))
	require.True(t, written())
	require.False(t, written())
	require.NoError(t, p.Done(e.Hash, executed(e, now, 3, "")))
	require.True(t, written())
	p.Settled(chainA, 1)
	require.True(t, written())
	p.Settled(chainA, 1)
	require.False(t, written())
	p.Replaced(chainA, 2)
	require.True(t, written())
	p.Advance(now + 1)
	require.False(t, written())
	p.Advance(now + 10)
	require.True(t, written())
	p.Advance(now + 10 + 24*3600 + 1)
	require.True(t, written(), "an undone bundle was forgotten")

	e = add(t, p, bundle(p.Slot()+9, transfer("bob", chainA, 0), transfer("bob", chainB, 0)))
	require.NoError(t, p.Done(e.Hash, executed(e, p.Slot(), 8, "")))
	p.Replaced(chainB, 8)
	require.True(t, written())
	p.Replaced(chainB, 8)
	require.False(t, written())
	p.Replaced(chainA, 8)
	require.True(t, written(), "its other half is gone too")
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	p, pending, _, _, _, _, _ := filled(t)
	before, dir := p.Snapshot(), t.TempDir()
	path := filepath.Join(dir, "bundles")
	require.NoError(t, p.Load(path), "nothing was saved yet")
	require.NoError(t, p.Save(path))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, data := range map[string][]byte{
		"empty":     {},
		"magic":     good[:len(snapshotMagic)],
		"truncated": good[:len(good)-1],
		"longer":    append(append([]byte{}, good...), 0),
		"flipped":   func() []byte { b := append([]byte{}, good...); b[len(b)/2] ^= 1; return b }(),
		"other":     []byte("op-shared-sequencer/bundlepool/1\n"),
	} {
		require.NoError(t, os.WriteFile(path, data, 0o600))
		err := p.Load(path)
		require.ErrorIs(t, err, ErrDamaged, name)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "move the file away")
		require.NotContains(t, err.Error(), "\n")
		require.Equal(t, before, p.Snapshot(), "left as it was")
		require.Equal(t, Pending, state(t, p, pending.Hash))
	}
	require.Error(t, p.Load(dir), "a directory")
	add(t, p, bundle(now+50, transfer("zoe", chainA, 0)))
	require.ErrorContains(t, p.Save(filepath.Join(dir, "absent", "bundles")), "saving the bundle pool")

	// A crash between writing and renaming leaves the old file, and the next Save is not in its way.
	require.NoError(t, os.WriteFile(path, good, 0o600))
	require.NoError(t, os.WriteFile(path+".tmp", []byte("half"), 0o600))
	require.NoError(t, p.Load(path))
	add(t, p, bundle(now+50, transfer("zoe", chainA, 0)))
	require.NoError(t, p.Save(path))
	require.NoFileExists(t, path+".tmp")
}

func TestRestoreTwice(t *testing.T) {
	t.Parallel()
	p, _, _, _, _, _, _ := filled(t)
	var s snapshot
	require.NoError(t, rlp.DecodeBytes(p.Snapshot()[len(snapshotMagic)+32:], &s))
	s.Bundles = append(s.Bundles, s.Bundles[0])
	body, err := rlp.EncodeToBytes(&s)
	require.NoError(t, err)
	require.ErrorIs(t, newPool(Config{}).Restore(seal(body)), ErrDamaged)
}

func TestRestoreWithoutAChain(t *testing.T) {
	t.Parallel()
	p, pending, _, again, _, _, _ := filled(t)
	q := newPool(Config{Chains: []sequence.ChainID{chainA}})
	require.NoError(t, q.Restore(p.Snapshot()))
	require.Equal(t, Pending, state(t, q, pending.Hash))
	_, err := q.Status(again.Hash)
	require.ErrorIs(t, err, ErrUnknownBundle)
}

// FuzzRestore: no bytes panic, and what is taken in is encoded in one way.
func FuzzRestore(f *testing.F) {
	p := newPool(Config{})
	e, err := p.Add(bundle(now+9, transfer("alice", chainA, 0), relayStep(chainB)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Snapshot()[len(snapshotMagic)+32:])
	entry, _ := p.Get(e)
	if err := p.Done(e, executed(entry, now, 3, "")); err != nil {
		f.Fatal(err)
	}
	p.Settled(chainA, 2)
	f.Add(p.Snapshot()[len(snapshotMagic)+32:])
	f.Fuzz(func(t *testing.T, body []byte) {
		q := newPool(Config{})
		if q.Restore(seal(body)) != nil {
			return
		}
		again := newPool(Config{})
		require.NoError(t, again.Restore(q.Snapshot()))
		require.Equal(t, q.Snapshot(), again.Snapshot())
	})
}
