package operators

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/gofrs/flock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	// ErrStale: a newer height was signed already.
	ErrStale = errors.New("a newer height was signed already")
	// ErrForgotten: a subblock was signed for this height and view, and is no longer kept.
	// The leader has to pass.
	ErrForgotten = errors.New("another subblock was signed for this height and view, and it is no longer kept")
	// ErrSignState wraps what is wrong with the file that says what was signed.
	ErrSignState = errors.New("sign state")
)

const (
	signerMagic = "op-shared-sequencer/signer/1\n"
	// maxSignerBytes is the largest sign state that is read.
	maxSignerBytes = 512 << 20
	// keptViews is how many signed subblocks of a height are kept whole.
	keptViews = 8
	// maxViews is how many views of a height are signed for.
	maxViews = 4096
)

// Signer signs an operator's subblocks, at most one for a height and view, also over
// crashes: what it signed is on the disk before it is returned. Safe for concurrent use.
type Signer struct {
	fs    files
	path  string
	key   *ecdsa.PrivateKey
	setID common.Hash
	lock  *flock.Flock
	fresh bool

	mu     sync.Mutex
	state  signState
	kept   map[common.Hash]*SignedSubblock // by view
	broken error                           // set once the file's content is not known
}

// signState is the RLP content of the file.
type signState struct {
	SetID   common.Hash
	Address common.Address
	Height  uint64       // the newest that was signed; nothing below is signed
	Views   []signedView // of that height, oldest first
}

type signedView struct {
	View   common.Hash
	Signed []byte // SignedSubblock.Encode; empty if it is no longer kept
}

// OpenSigner opens the sign state at path, and creates it if there is none; see Fresh. A
// damaged one is an error (ErrSignState), and so is another process that has it open.
// The caller closes the signer.
func OpenSigner(path string, key *ecdsa.PrivateKey, setID common.Hash) (*Signer, error) {
	lock := flock.New(path + ".lock")
	if ok, err := lock.TryLock(); err != nil {
		return nil, fmt.Errorf("%w: lock %s: %w", ErrSignState, lock.Path(), err)
	} else if !ok {
		return nil, fmt.Errorf("%w: %s is open in another process: two that sign with one key would equivocate. Stop the other one", ErrSignState, path)
	}
	s, err := openSigner(osFiles{}, path, key, setID)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

func openSigner(fs files, path string, key *ecdsa.PrivateKey, setID common.Hash) (*Signer, error) {
	s := &Signer{
		fs: fs, path: path, key: key, setID: setID, kept: map[common.Hash]*SignedSubblock{},
		state: signState{SetID: setID, Address: crypto.PubkeyToAddress(key.PublicKey)},
	}
	data, err := readFile(fs, path, maxSignerBytes)
	if errors.Is(err, os.ErrNotExist) {
		s.fresh = true
		if err := s.save(&s.state); err != nil {
			return nil, err
		}
		return s, nil
	} else if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrSignState, path, err)
	}
	state, kept, err := decodeSignState(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w. What this operator signed is not known, and signing again could be equivocation. "+
			"Restore the file from this disk, not from an old copy; or, once the set has agreed on a height above all that this operator "+
			"can have signed, move it away", ErrSignState, path, err)
	}
	if state.SetID != setID || state.Address != s.state.Address {
		return nil, fmt.Errorf("%w: %s is of operator %s in set %s, this is operator %s in set %s: give each its own file",
			ErrSignState, path, state.Address, state.SetID, s.state.Address, setID)
	}
	// The process before may have ended between the rename and its sync. What was read is
	// handed out again, so that a power cut must not bring back what was there before it.
	if err := fs.syncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("%w: sync the directory of %s: %w", ErrSignState, path, err)
	}
	s.state, s.kept = *state, kept
	return s, nil
}

// decodeSignState reads the content of the file, and the subblocks that are kept.
func decodeSignState(data []byte) (*signState, map[common.Hash]*SignedSubblock, error) {
	body, err := unseal(signerMagic, data)
	if err != nil {
		return nil, nil, err
	}
	st := new(signState)
	if err := rlp.DecodeBytes(body, st); err != nil {
		return nil, nil, err
	}
	if len(st.Views) > maxViews {
		return nil, nil, fmt.Errorf("%d views, at most %d can be", len(st.Views), maxViews)
	}
	kept := make(map[common.Hash]*SignedSubblock, keptViews)
	seen := make(map[common.Hash]bool, len(st.Views))
	for _, v := range st.Views {
		if seen[v.View] {
			return nil, nil, fmt.Errorf("view %s is there twice", v.View)
		}
		seen[v.View] = true
		if len(v.Signed) == 0 {
			continue
		}
		// Written by this operator: only the size of the file limits it.
		signed, err := DecodeSignedSubblock(v.Signed, Limits{Bytes: len(v.Signed), Items: len(v.Signed)})
		if err != nil {
			return nil, nil, err
		}
		leader, err := signed.Leader(st.SetID)
		if err != nil {
			return nil, nil, err
		}
		if leader != st.Address || signed.Height != st.Height || View(signed.Subblock) != v.View {
			return nil, nil, fmt.Errorf("a subblock of %s at height %d in the state of %s at height %d", leader, signed.Height, st.Address, st.Height)
		}
		kept[v.View] = signed
	}
	return st, kept, nil
}

// Fresh says that there was no sign state when the signer was opened. That is right at an
// operator's first start. When its agreement data say that it is not the first one, the
// file was lost: use SkipTo to a height above all that can have been signed.
func (s *Signer) Fresh() bool { return s.fresh }

// Address that the signatures are of.
func (s *Signer) Address() common.Address { return s.state.Address }

// Height is the newest that was signed, and nothing below is signed. 0 if there is none.
func (s *Signer) Height() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Height
}

// Sign signs a subblock for a height. If one was signed for this height and the
// subblock's view before, that one is returned, also if it is another: it must not be
// changed by the caller. Errors: ErrStale, ErrForgotten, or that the state cannot be
// written, in which case nothing has been signed as far as anybody else can know.
func (s *Signer) Sign(height uint64, sub *sequence.Subblock) (*SignedSubblock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(err error) (*SignedSubblock, error) {
		return nil, fmt.Errorf("sign subblock %d of slot %d at height %d: %w", sub.Index, sub.Slot, height, err)
	}
	if s.broken != nil {
		return fail(s.broken)
	}
	if err := sub.Check(); err != nil {
		return fail(err)
	}
	if height == 0 {
		return fail(errors.New("heights begin at 1"))
	}
	if height < s.state.Height {
		return fail(fmt.Errorf("%w: height %d", ErrStale, s.state.Height))
	}
	view := View(sub)
	next := signState{SetID: s.state.SetID, Address: s.state.Address, Height: height}
	kept := map[common.Hash]*SignedSubblock{}
	if height == s.state.Height {
		if signed, ok := s.kept[view]; ok {
			return signed, nil
		}
		for _, v := range s.state.Views {
			if v.View == view {
				return fail(ErrForgotten)
			}
		}
		if len(s.state.Views) >= maxViews {
			return fail(fmt.Errorf("%w: %d views were signed for at this height", ErrForgotten, maxViews))
		}
		next.Views = append(next.Views, s.state.Views...)
		for i := range next.Views {
			v := &next.Views[i]
			if i <= len(next.Views)-keptViews {
				v.Signed = nil
			} else if signed, ok := s.kept[v.View]; ok {
				kept[v.View] = signed
			}
		}
	}
	signed, err := SignSubblock(s.setID, height, sub, s.key)
	if err != nil {
		return fail(err)
	}
	// What is handed out and kept is the encoding read back: the caller may go on to change its subblock.
	enc := signed.Encode()
	if signed, err = DecodeSignedSubblock(enc, Limits{Bytes: len(enc), Items: len(enc)}); err != nil {
		return fail(err)
	}
	next.Views = append(next.Views, signedView{view, enc})
	kept[view] = signed
	if err := s.save(&next); err != nil {
		return fail(err)
	}
	s.state, s.kept = next, kept
	return signed, nil
}

// SkipTo makes the signer refuse all heights below this one, durably.
func (s *Signer) SkipTo(height uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	if height <= s.state.Height {
		return nil
	}
	next := signState{SetID: s.state.SetID, Address: s.state.Address, Height: height}
	if err := s.save(&next); err != nil {
		return err
	}
	s.state, s.kept = next, map[common.Hash]*SignedSubblock{}
	return nil
}

func (s *Signer) save(state *signState) error {
	err := replaceFile(s.fs, s.path, seal(signerMagic, mustEncode(state)))
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w: write %s: %w", ErrSignState, s.path, err)
	if errors.Is(err, errUnsettled) {
		s.broken = fmt.Errorf("%w. Nothing is signed until a restart", err)
	}
	return err
}

// Close lets another signer open the state. Nothing is signed afterwards.
func (s *Signer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = fmt.Errorf("%w: %s is closed", ErrSignState, s.path)
	}
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}
