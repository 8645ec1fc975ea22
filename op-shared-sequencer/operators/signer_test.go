package operators

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func openTestSigner(t testing.TB, path string) *Signer {
	t.Helper()
	s, err := OpenSigner(path, testKey(0), testSetID)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestSigner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signer")
	s := openTestSigner(t, path)
	require.True(t, s.Fresh())
	require.Equal(t, testAddress(0), s.Address())
	require.Zero(t, s.Height())
	_, err := s.Sign(0, testSubblock(1, 1))
	require.ErrorContains(t, err, "begin at 1")
	_, err = s.Sign(1, &sequence.Subblock{})
	require.ErrorIs(t, err, sequence.ErrMalformed)
	require.Zero(t, s.Height())

	first, err := s.Sign(5, testSubblock(1, 1))
	require.NoError(t, err)
	require.Equal(t, uint64(5), first.Height)
	require.Equal(t, testSubblock(1, 1).Hash(), first.Subblock.Hash())
	leader, err := first.Leader(testSetID)
	require.NoError(t, err)
	require.Equal(t, testAddress(0), leader)

	same, err := s.Sign(5, testSubblock(1, 2))
	require.NoError(t, err)
	require.Equal(t, first.Encode(), same.Encode(), "one subblock for a height and view")
	second, err := s.Sign(5, testSubblock(2, 2))
	require.NoError(t, err)
	require.Equal(t, testSubblock(2, 2).Hash(), second.Subblock.Hash(), "another view, another subblock")
	later, err := s.Sign(5, laterSubblock(1))
	require.NoError(t, err)

	// What the caller does to its subblock afterwards has no effect.
	mine := testSubblock(3, 1)
	third, err := s.Sign(5, mine)
	require.NoError(t, err)
	hash := third.Subblock.Hash()
	mine.Steps[0].Transactions[0][0]++
	same, err = s.Sign(5, mine)
	require.NoError(t, err)
	require.Equal(t, hash, same.Subblock.Hash())

	_, err = s.Sign(4, testSubblock(9, 1))
	require.ErrorIs(t, err, ErrStale)

	require.NoError(t, s.Close())
	_, err = s.Sign(6, testSubblock(1, 1))
	require.ErrorIs(t, err, ErrSignState)
	s = openTestSigner(t, path)
	require.False(t, s.Fresh())
	require.Equal(t, uint64(5), s.Height())
	for _, want := range []*SignedSubblock{first, second, later, third} {
		other := testSubblock(0, 77)
		if want == later {
			other = laterSubblock(78)
		} else {
			other.Openings = want.Subblock.Openings
		}
		got, err := s.Sign(5, other)
		require.NoError(t, err)
		require.Equal(t, want.Encode(), got.Encode())
	}
	_, err = s.Sign(4, testSubblock(9, 1))
	require.ErrorIs(t, err, ErrStale)

	_, err = s.Sign(6, testSubblock(1, 1))
	require.NoError(t, err)
	_, err = s.Sign(5, testSubblock(1, 1))
	require.ErrorIs(t, err, ErrStale, "also what was signed")

	require.NoError(t, s.SkipTo(3))
	require.NoError(t, s.SkipTo(10))
	require.NoError(t, s.Close())
	s = openTestSigner(t, path)
	_, err = s.Sign(9, testSubblock(1, 1))
	require.ErrorIs(t, err, ErrStale)
	_, err = s.Sign(10, testSubblock(1, 1))
	require.NoError(t, err)
}

// Views beyond those that are kept whole are still not signed for twice.
func TestSignerManyViews(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signer")
	s := openTestSigner(t, path)
	for view := range byte(3 * keptViews) {
		_, err := s.Sign(1, testSubblock(view, 0))
		require.NoError(t, err)
	}
	for range 2 {
		for view := range byte(3 * keptViews) {
			got, err := s.Sign(1, testSubblock(view, 1))
			if view < 2*keptViews {
				require.ErrorIs(t, err, ErrForgotten)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, testSubblock(view, 0).Hash(), got.Subblock.Hash())
		}
		require.NoError(t, s.Close())
		s = openTestSigner(t, path)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64((keptViews+1)*len(testSubblock(0, 0).Encode())+3*keptViews*40+500))
}

func TestSignerFileIsOneOperators(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signer")
	s := openTestSigner(t, path)
	_, err := OpenSigner(path, testKey(0), testSetID)
	require.ErrorIs(t, err, ErrSignState)
	require.ErrorContains(t, err, "another process")
	require.NoError(t, s.Close())
	_, err = OpenSigner(path, testKey(1), testSetID)
	require.ErrorIs(t, err, ErrSignState)
	require.ErrorContains(t, err, "its own file")
	_, err = OpenSigner(path, testKey(0), common.Hash{1})
	require.ErrorContains(t, err, "its own file")
	_, err = OpenSigner(filepath.Join(path, "none"), testKey(0), testSetID)
	require.ErrorIs(t, err, ErrSignState)
	openTestSigner(t, path) // the failed ones do not hold the lock
}

// A file that is cut off or changed anywhere is an error that says what to do, and is
// left as it is.
func TestSignerDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signer")
	s := openTestSigner(t, path)
	_, err := s.Sign(5, testSubblock(1, 1))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	good, err := os.ReadFile(path)
	require.NoError(t, err)

	refused := func(data []byte, what string, at int) {
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err := OpenSigner(path, testKey(0), testSetID)
		require.ErrorIs(t, err, ErrSignState, "%s at %d", what, at)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "move it away")
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, data, left, "%s at %d", what, at)
	}
	for at := range good {
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		refused(flipped, "a bit", at)
		if at%7 == 0 {
			refused(good[:at:at], "cut off", at)
			refused(append(good[:at:at], make([]byte, len(good)-at)...), "zeros", at)
		}
	}
	refused(append(bytes.Clone(good), 0), "longer", len(good))

	// A whole file whose content cannot be: also one that was made, not torn.
	state, _, err := decodeSignState(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*signState){
		"another height":       func(st *signState) { st.Height++ },
		"another address":      func(st *signState) { st.Address[0]++ },
		"another set":          func(st *signState) { st.SetID[0]++ },
		"another view":         func(st *signState) { st.Views[0].View[0]++ },
		"a view twice":         func(st *signState) { st.Views = append(st.Views, st.Views[0]) },
		"an unsigned subblock": func(st *signState) { st.Views[0].Signed = testSubblock(1, 1).Encode() },
		"too many views":       func(st *signState) { st.Views = make([]signedView, maxViews+1) },
	} {
		st := *state
		st.Views = append([]signedView(nil), state.Views...)
		change(&st)
		require.NoError(t, os.WriteFile(path, seal(signerMagic, mustEncode(&st)), 0o600))
		_, err := OpenSigner(path, testKey(0), testSetID)
		require.ErrorIs(t, err, ErrSignState, name)
		require.ErrorContains(t, err, "move it away", name)
	}

	// A torn temporary file beside it is of no importance.
	require.NoError(t, os.WriteFile(path, good, 0o600))
	require.NoError(t, os.WriteFile(path+".tmp", good[:len(good)/2], 0o600))
	s = openTestSigner(t, path)
	got, err := s.Sign(5, testSubblock(1, 2))
	require.NoError(t, err)
	require.Equal(t, testSubblock(1, 1).Hash(), got.Subblock.Hash())
}

// Without space nothing is signed, and with space again it is. When it is not known what
// the disk holds, nothing is signed until a restart.
func TestSignerDiskErrors(t *testing.T) {
	disk := newCrashFiles()
	open := func() *Signer {
		s, err := openSigner(disk, "signer", testKey(0), testSetID)
		require.NoError(t, err)
		return s
	}
	s := open()
	disk.fullAt = disk.ops + 2
	_, err := s.Sign(1, testSubblock(1, 1))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Zero(t, s.Height())
	_, err = s.Sign(1, testSubblock(1, 2))
	require.NoError(t, err)

	disk.failAt = disk.ops + 3
	_, err = s.Sign(2, testSubblock(1, 1))
	require.ErrorIs(t, err, syscall.EIO)
	_, err = s.Sign(2, testSubblock(1, 2))
	require.NoError(t, err, "the file as it was is still there")

	disk.failAt = disk.ops + 5 // the sync of the directory
	_, err = s.Sign(3, testSubblock(1, 1))
	require.ErrorIs(t, err, syscall.EIO)
	for range 2 {
		_, err = s.Sign(3, testSubblock(1, 2))
		require.ErrorIs(t, err, ErrSignState)
		require.ErrorContains(t, err, "until a restart")
		require.ErrorIs(t, s.SkipTo(9), ErrSignState)
	}
	got, err := open().Sign(3, testSubblock(1, 2))
	require.NoError(t, err)
	require.Equal(t, testSubblock(1, 1).Hash(), got.Subblock.Hash(), "what may have been written counts")
	require.Empty(t, disk.pending, "and a power cut does not take it back: it has left the process now")
}

func TestSignerConcurrent(t *testing.T) {
	s := openTestSigner(t, filepath.Join(t.TempDir(), "signer"))
	var wg sync.WaitGroup
	out := make([]*SignedSubblock, 16)
	for i := range out {
		wg.Add(1)
		go func() {
			defer wg.Done()
			out[i], _ = s.Sign(1, testSubblock(1, byte(i)))
		}()
	}
	wg.Wait()
	for _, o := range out {
		require.NotNil(t, o)
		require.Equal(t, out[0].Encode(), o.Encode())
	}
}

// TestSignerCrashes kills the process in any operation on the disk, fills the disk, and
// fails syncs. Whatever happens, the disk can be opened again, and nobody ever sees two
// signatures for one height and view, or one below a newer one.
func TestSignerCrashes(t *testing.T) {
	crashes, refusals, repeats := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		disk := newCrashFiles()
		type at struct {
			height uint64
			view   common.Hash
		}
		seen := map[at]common.Hash{} // what left the process
		var newest uint64
		arm := func() {
			disk.crashAt, disk.fullAt, disk.failAt = 0, 0, 0
			// The signer makes five operations for each signature.
			when := disk.ops + rapid.IntRange(1, 8).Draw(t, "when")
			switch rapid.IntRange(0, 3).Draw(t, "fault") {
			case 0:
				disk.crashAt = when
			case 1:
				disk.fullAt = when
			case 2:
				disk.failAt = when
			}
		}
		open := func() (*Signer, error) { return openSigner(disk, "signer", testKey(0), testSetID) }
		arm()
		signer, err := open()
		if err != nil { // a fault may come at once
			signer = nil
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if disk.dead {
				crashes++
				disk, signer = disk.crashed(t), nil
			}
			// It goes on after errors of the disk, too, and ends in an orderly way at times.
			if signer == nil || rapid.IntRange(0, 7).Draw(t, "restart") == 0 {
				disk.crashAt, disk.fullAt, disk.failAt = 0, 0, 0
				signer, err = open()
				require.NoError(t, err)
			}
			arm()
			height := max(2, newest+rapid.Uint64Range(0, 2).Draw(t, "height")) - rapid.Uint64Range(0, 1).Draw(t, "below")
			sub := testSubblock(byte(rapid.IntRange(0, 2).Draw(t, "view")), byte(rapid.IntRange(0, 3).Draw(t, "seed")))
			if rapid.IntRange(0, 3).Draw(t, "later") == 0 {
				sub = laterSubblock(byte(rapid.IntRange(0, 3).Draw(t, "seed")))
			}
			var signed *SignedSubblock
			signed, err = signer.Sign(height, sub)
			if err != nil {
				refusals++
				require.True(t, errors.Is(err, ErrSignState) || errors.Is(err, ErrStale), err)
				continue
			}
			require.False(t, disk.dead, "nothing is returned by a dead process")
			leader, lerr := signed.Leader(testSetID)
			require.NoError(t, lerr)
			require.Equal(t, testAddress(0), leader)
			require.Equal(t, height, signed.Height)
			require.Equal(t, View(sub), View(signed.Subblock))
			require.GreaterOrEqual(t, height, newest, "a signature below a newer one")
			newest = height
			key := at{height, View(sub)}
			if before, ok := seen[key]; ok {
				repeats++
				require.Equal(t, before, signed.Subblock.Hash(), "two signatures for one height and view")
			}
			seen[key] = signed.Subblock.Hash()
		}
	})
	require.Positive(t, crashes)
	require.Positive(t, refusals)
	require.Positive(t, repeats)
	t.Logf("%d crashes, %d refusals, %d repeats", crashes, refusals, repeats)
}

func BenchmarkSign(b *testing.B) {
	s, err := OpenSigner(filepath.Join(b.TempDir(), "signer"), testKey(0), testSetID)
	require.NoError(b, err)
	defer s.Close()
	sub := testSubblock(1, 1)
	for range 2000 {
		sub.Steps[0].Transactions = append(sub.Steps[0].Transactions, make([]byte, 100))
	}
	b.SetBytes(int64(len(sub.Encode())))
	height := uint64(0)
	for b.Loop() {
		height++
		if _, err := s.Sign(height, sub); err != nil {
			b.Fatal(err)
		}
	}
}
