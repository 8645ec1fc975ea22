package bundlepool

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
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
		require.Equal(t, p.Reserved(chain, now), q.Reserved(chain, now))
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
	key := p.disk.key
	next := key.frame(&change{})
	for name, data := range map[string][]byte{
		"empty":     {},
		"magic":     good[:len(magic3)],
		"truncated": good[:len(good)-1],
		"a change":  slices.Concat(good, key.frame("no change"), next),
		"its end":   slices.Concat(good, flipped(next, -1), next),
		"its size":  slices.Concat(good, flipped(next, len(frameMark)), next),
		"its mark":  slices.Concat(good, flipped(next, 0), next),
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
	s, _, err := parse(p.Snapshot())
	require.NoError(t, err)
	s.Bundles = append(s.Bundles, s.Bundles[0])
	for _, data := range [][]byte{whole(s), append(whole(s), keyOf(whole(s)).frame(&change{})...)} {
		require.ErrorIs(t, newPool(Config{}).Restore(data), ErrDamaged)
	}
}

// flipped is data with a bit of another value.
func flipped(data []byte, at int) []byte {
	out := slices.Clone(data)
	out[(at+len(out))%len(out)] ^= 0x80
	return out
}

// whole is a file of a snapshot alone.
func whole(s *snapshot) []byte { return slices.Concat(magic3, s.frame()) }

// keyOf is the key of a file's changes.
func keyOf(file []byte) frameKey {
	_, _, sum, _ := frameKey(nil).cut(file[len(magic3):])
	return sum
}

// What a bundle brings is not taken for a change, though it looks like one: an end that is missing
// is found to be missing.
func TestTornWithAFrameInIt(t *testing.T) {
	t.Parallel()
	p, pending, _, _, _, _, _ := filled(t)
	path := filepath.Join(t.TempDir(), "bundles")
	require.NoError(t, p.Save(path))
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	foreign := frameKey(nil).frame(&change{})
	next := p.disk.key.frame([]any{foreign, bytes.Repeat([]byte{1}, 100)})
	require.NoError(t, os.WriteFile(path, append(file, next[:len(next)-1]...), 0o600))
	q := newPool(Config{})
	require.NoError(t, q.Load(path))
	require.Equal(t, Pending, state(t, q, pending.Hash))
}

// A file that the release before has written is read, and written anew in today's format.
func TestLoadFormat2(t *testing.T) {
	t.Parallel()
	p, _, _, _, _, _, _ := filled(t)
	body := p.Snapshot()[len(magic3)+headSize:]
	path := filepath.Join(t.TempDir(), "bundles")
	require.NoError(t, os.WriteFile(path, slices.Concat(magic2, crypto.Keccak256(body), body), 0o600))
	q := newPool(Config{})
	require.NoError(t, q.Load(path))
	require.Equal(t, p.Snapshot(), q.Snapshot())
	require.NoError(t, q.Save(path))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, p.Snapshot(), data)
	require.ErrorIs(t, q.Restore(slices.Concat(magic2, crypto.Keccak256(body), body[1:])), ErrDamaged)
}

// busy makes one of the changes that a pool goes through, and more with each round.
func busy(t *testing.T, p *Pool, rng *rand.Rand, round int) {
	t.Helper()
	var known []*Entry
	for h := range p.live {
		e, _ := p.Get(h)
		known = append(known, e)
	}
	slices.SortFunc(known, func(a, b *Entry) int { return a.Hash.Cmp(b.Hash) })
	if len(known) == 0 || rng.IntN(3) == 0 {
		b := bundle(p.Slot()+5, transfer("alice", chainA, uint64(round)), relayStep(chainB))
		add(t, p, b)
		return
	}
	e := known[rng.IntN(len(known))]
	switch rng.IntN(7) {
	case 0:
		require.NoError(t, p.Done(e.Hash, executed(e, p.Slot(), uint64(round), "again")))
	case 1:
		_ = p.Done(e.Hash, failed(Retry, "later")) // if it is pending
	case 2:
		_ = p.Done(e.Hash, failed(Fail, "never"))
	case 3:
		p.Replaced(chainA, uint64(max(0, round-rng.IntN(4))))
	case 4:
		p.Settled(chainB, uint64(max(0, round-10)))
	case 5:
		p.Advance(p.Slot() + 1)
	case 6:
		sig, err := crypto.Sign(accounts.TextHash([]byte(CancelText(e.Hash))), key("alice"))
		require.NoError(t, err)
		_ = p.Cancel(e.Hash, sig) // if it is pending
	}
}

// After every Save the file holds what the pool does, whatever has changed in between and however
// often it was written anew; and whatever a crash leaves of the last change, what was saved before.
func TestSaveChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 0))
		p := newPool(Config{UndoneRetention: 20, MaxPerSender: 1000})
		path, torn := filepath.Join(t.TempDir(), "bundles"), filepath.Join(t.TempDir(), "torn")
		var before []byte // the file
		var had []byte    // what the pool held
		grown, anew := 0, 0
		for round := range 300 {
			busy(t, p, rng, round)
			if rng.IntN(3) == 0 {
				continue
			}
			if rng.IntN(40) == 0 {
				p.disk = nil // written anew, as when the changes have become long
			}
			if p.version == p.saved {
				continue // slots alone are not saved
			}
			require.NoError(t, p.Save(path))
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			q := newPool(Config{UndoneRetention: 20})
			require.NoError(t, q.Load(path))
			now := q.Snapshot()
			require.Equal(t, p.Snapshot(), now, "seed %d, round %d", seed, round)
			if !bytes.HasPrefix(data, before) || before == nil {
				anew++
			} else if cut := len(data) - len(before); cut > 0 {
				grown++
				part, from := slices.Clone(data), len(before)
				switch rng.IntN(3) {
				case 0:
					part = part[:from+rng.IntN(cut)]
				case 1: // the file has its length already
					clear(part[from+rng.IntN(cut):])
				case 2: // and its end, but not its beginning
					clear(part[from : from+1+rng.IntN(cut)])
				}
				require.NoError(t, os.WriteFile(torn, part, 0o600))
				require.NoError(t, q.Load(torn))
				if !bytes.Equal(part, data) {
					require.Equal(t, had, q.Snapshot(), "seed %d, round %d", seed, round)
				}
			}
			before, had = data, now
		}
		require.Greater(t, grown, 20)
		require.Greater(t, anew, 1)
	}
}

// The file does not grow for ever.
func TestSaveIsBounded(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	path := filepath.Join(t.TempDir(), "bundles")
	e := add(t, p, bundle(now+9, transfer("alice", chainA, 0)))
	least, most := int64(math.MaxInt64), int64(0)
	for i := range 20_000 {
		require.NoError(t, p.Done(e.Hash, failed(Retry, fmt.Sprint(i))))
		p.saveMu.Lock() // a Save of every one would take a sync each
		if p.disk != nil && i%100 != 0 {
			p.disk.size += 300
			st, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, st.Size()+300))
		}
		p.saveMu.Unlock()
		if i%100 != 0 {
			continue
		}
		require.NoError(t, p.Save(path))
		least, most = min(least, p.disk.size), max(most, p.disk.size)
	}
	require.Less(t, most, int64(2*minCompact))
	require.Less(t, least, int64(10_000))
}

// A change that was not written as it should be is not built upon.
func TestSaveAfterAnError(t *testing.T) {
	t.Parallel()
	p := newPool(Config{})
	path := filepath.Join(t.TempDir(), "bundles")
	save := func() {
		t.Helper()
		require.NoError(t, p.Save(path))
		q := newPool(Config{})
		require.NoError(t, q.Load(path))
		require.Equal(t, p.Snapshot(), q.Snapshot())
	}
	save()
	for i, spoil := range []func(){
		func() { require.NoError(t, os.Remove(path)) },
		func() { require.NoError(t, os.Truncate(path, 10)) },
		func() { require.NoError(t, os.WriteFile(path, []byte("another's"), 0o600)) },
	} {
		spoil()
		add(t, p, bundle(now+9, transfer("alice", chainA, uint64(i))))
		save()
	}
	add(t, p, bundle(now+9, transfer("bob", chainA, 0)))
	require.Error(t, p.Save(filepath.Join(t.TempDir(), "absent", "bundles")))
	require.Nil(t, p.disk)
	save()
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
	f.Add(p.Snapshot()[len(magic3)+headSize:], []byte{})
	entry, _ := p.Get(e)
	if err := p.Done(e, executed(entry, now, 3, "")); err != nil {
		f.Fatal(err)
	}
	p.Settled(chainA, 2)
	s, _, err := parse(p.Snapshot())
	if err != nil {
		f.Fatal(err)
	}
	next, err := rlp.EncodeToBytes(&change{Slot: now, Arrival: s.Arrival, Bundles: s.Bundles, Ended: []uint64{7}, Gone: []goneRecord{{e, now}}, Back: []common.Hash{{1}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Snapshot()[len(magic3)+headSize:], next)
	f.Fuzz(func(t *testing.T, body, change []byte) {
		q := newPool(Config{})
		data := slices.Concat(magic3, frameKey(nil).framed(body))
		if len(change) > 0 {
			data = append(data, keyOf(data).framed(change)...)
		}
		if q.Restore(data) != nil {
			return
		}
		again := newPool(Config{})
		require.NoError(t, again.Restore(q.Snapshot()))
		require.Equal(t, q.Snapshot(), again.Snapshot())
	})
}
