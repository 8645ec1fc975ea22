package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

func TestMain(m *testing.M) {
	const autofile = "github.com/cometbft/cometbft/libs/autofile."
	goleak.VerifyTestMain(m, // as in rotation/cometbft
		goleak.IgnoreTopFunction(autofile+"OpenAutoFile.func1"), goleak.IgnoreTopFunction(autofile+"(*AutoFile).closeFileRoutine"),
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}

var discard = log.NewLogger(log.DiscardHandler())

// machine agrees with itself on empty slots of two subblocks, and puts them into a ledger.
type machine struct {
	ledger *ledger.Ledger
	full   chan struct{} // closed when there are enough
	open   []*sequence.Subblock
	slots  int
}

const enough = 4 // slots

func (m *machine) next() *sequence.Subblock {
	slot, parent, _ := m.ledger.Last()
	s := &sequence.Subblock{Slot: slot + 1, Parent: parent, Index: uint64(len(m.open)), Results: []sequence.Result{{Chain: 901}}}
	if len(m.open) > 0 {
		s.Parent = m.open[len(m.open)-1].Hash()
		s.Seals = []sequence.Seal{{Chain: 901, BlockHash: common.Hash{byte(s.Slot)}, Number: uint64(s.Slot)}}
		return s
	}
	s.Openings = []sequence.Opening{{Chain: 901, ParentNumber: uint64(slot), ParentHash: common.Hash{byte(slot)}}}
	return s
}

func (m *machine) Next(context.Context) error                       { return nil }
func (m *machine) Due([]sequence.ChainID) time.Time                 { return time.Time{} }
func (m *machine) Lead([]sequence.ChainID)                          {}
func (m *machine) Ready() []sequence.ChainID                        { return nil }
func (m *machine) SetChains([]sequence.ChainID) error               { return nil }
func (m *machine) Verify(context.Context, *sequence.Subblock) error { return nil }

func (m *machine) Propose(context.Context, []sequence.ChainID) (*sequence.Subblock, error) {
	if m.slots == enough {
		return nil, rotation.ErrPass
	}
	return m.next(), nil
}

func (m *machine) Commit(ctx context.Context, sub *sequence.Subblock, agreement []byte) error {
	m.open = append(m.open, sub)
	if !sub.Last() {
		return nil
	}
	err := m.ledger.Append(ctx, &ledger.Record{Subblocks: m.open, Agreement: agreement})
	m.open = nil
	if m.slots++; m.slots == enough {
		close(m.full)
	}
	return err
}

func (m *machine) Agreed() []byte {
	a, err := m.ledger.Agreement()
	if err != nil {
		panic(err)
	}
	return a
}

// operator is the data directory of one that is alone in its set.
type operator struct {
	t       *testing.T
	dir     string
	genesis *operators.Genesis
	key     *ecdsa.PrivateKey
}

// newOperator makes the data of an operator that has agreed on some slots, with files that
// only it may have.
func newOperator(t *testing.T) *operator {
	o := &operator{t: t, dir: t.TempDir()}
	var err error
	o.key, err = crypto.GenerateKey()
	require.NoError(t, err)
	keys, err := cometbft.InitKeys(config.ConsensusDir(o.dir))
	require.NoError(t, err)
	require.NoError(t, crypto.SaveECDSA(filepath.Join(o.dir, OperatorKeyFile), o.key))
	o.genesis = &operators.Genesis{Set: "test", Time: time.Now().Add(-time.Second).UTC(), Chains: []sequence.ChainID{901}, Operators: []operators.Operator{
		{Name: "a", Address: crypto.PubkeyToAddress(o.key.PublicKey), ConsensusKey: keys.ConsensusKey, Power: 1},
	}}
	led, err := ledger.Open(filepath.Join(o.dir, ledgerDir), discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, led.Close()) }()
	m := &machine{ledger: led, full: make(chan struct{})}
	r := o.rotation(m)
	require.NoError(t, r.Start(context.Background()))
	select {
	case <-m.full:
	case <-time.After(time.Minute):
		t.Fatal("no slots")
	}
	require.NoError(t, r.Stop(context.Background()))
	for _, name := range []string{"messages/chain-901/db", "messages/chain-901/LOCK", "messages/LOCK", "messages/chain-902.damaged/db", "bundles", "ledger/x.tmp"} {
		path := filepath.Join(o.dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(name), 0o644))
	}
	return o
}

func (o *operator) rotation(m rotation.Machine) *cometbft.Rotation {
	o.t.Helper()
	r, err := cometbft.New(cometbft.Config{
		Dir: config.ConsensusDir(o.dir), Genesis: o.genesis, OperatorKey: o.key, Listen: "127.0.0.1:0",
		Fatal: func(err error) { o.t.Error(err) }, Log: discard,
	}, m)
	require.NoError(o.t, err)
	return r
}

func (o *operator) create() ([]byte, *Position) {
	o.t.Helper()
	var b bytes.Buffer
	p, err := Create(context.Background(), o.dir, &b, discard)
	require.NoError(o.t, err)
	return b.Bytes(), p
}

func restore(data []byte, dir string) (*Position, error) {
	return Restore(context.Background(), bytes.NewReader(data), dir, DefaultLimits, discard)
}

// entries are the files of a snapshot.
func entries(t *testing.T, data []byte) (order []*tar.Header, content map[string][]byte) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	require.NoError(t, err)
	content = map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return order, content
		}
		require.NoError(t, err)
		order = append(order, h)
		content[h.Name], err = io.ReadAll(r)
		require.NoError(t, err)
	}
}

// repack makes a snapshot of entries as they come.
func repack(t *testing.T, order []*tar.Header, content map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range order {
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(content[h.Name])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

// A new operator begins where another one is, with its own keys, and none of the other's
// secrets ever leave its directory.
func TestSnapshot(t *testing.T) {
	o := newOperator(t)
	data, p := o.create()
	require.EqualValues(t, enough, p.Slot)
	require.EqualValues(t, 2*enough, p.Height)
	require.Equal(t, o.genesis.ID(), p.Set)
	require.NotZero(t, p.AppHash)
	require.NotZero(t, p.BlockHash)

	order, content := entries(t, data)
	require.Equal(t, manifestName, order[0].Name)
	require.Contains(t, content, "messages/chain-901/db")
	dirs := map[string]bool{}
	secret := fmt.Sprintf("%x", crypto.FromECDSA(o.key))
	for name, c := range content {
		dirs[path.Dir(name)] = true
		require.NotContains(t, string(c), secret)
		require.NotContains(t, string(c), "priv_key")
	}
	require.Equal(t, []string{
		".", "consensus/data/blockstore.db", "consensus/data/evidence.db", "consensus/data/state.db", "ledger", "messages/chain-901",
	}, slices.Sorted(maps.Keys(dirs)))
	for _, name := range []string{"LOCK", "messages/chain-901/LOCK", "ledger/LOCK", "ledger/x.tmp"} {
		require.NotContains(t, content, name)
	}
	again, _ := o.create()
	require.Equal(t, data, again)

	// Its own keys may be there before.
	n := &operator{t: t, dir: t.TempDir(), genesis: o.genesis}
	keys, err := cometbft.InitKeys(config.ConsensusDir(n.dir))
	require.NoError(t, err)
	n.key, err = crypto.GenerateKey()
	require.NoError(t, err)
	require.NoError(t, crypto.SaveECDSA(filepath.Join(n.dir, OperatorKeyFile), n.key))
	require.NoError(t, os.MkdirAll(filepath.Join(n.dir, unpackDir, "rest"), 0o700)) // of a restore that was killed
	got, err := restore(data, n.dir)
	require.NoError(t, err)
	require.Equal(t, p, got)
	require.NoDirExists(t, filepath.Join(n.dir, unpackDir))
	kept, err := cometbft.InitKeys(config.ConsensusDir(n.dir))
	require.NoError(t, err)
	require.Equal(t, keys, kept)
	require.NoError(t, filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		require.True(t, path == n.dir || info.Mode().Perm()&0o077 == 0, "%s is for its owner alone", path)
		return nil
	}))
	// A rotation takes it from there, as a follower that may sign what comes next.
	led, err := ledger.Open(filepath.Join(n.dir, ledgerDir), discard)
	require.NoError(t, err)
	r := n.rotation(&machine{ledger: led, slots: enough})
	require.Equal(t, p.Height, r.Height())
	require.NoError(t, r.Stop(context.Background()))
	require.NoError(t, led.Close())

	_, err = restore(data, n.dir)
	require.ErrorIs(t, err, ErrNotEmpty)
	_, err = restore(data, filepath.Join(t.TempDir(), "made", "for it"))
	require.NoError(t, err)
}

// While a node runs there is no snapshot, and none of a directory that is no operator's.
func TestCreateRefuses(t *testing.T) {
	o := newOperator(t)
	led, err := ledger.Open(filepath.Join(o.dir, ledgerDir), discard)
	require.NoError(t, err)
	_, err = Create(context.Background(), o.dir, io.Discard, discard)
	require.ErrorIs(t, err, ErrRunning)
	require.NoError(t, led.Close())
	lock := flock.New(filepath.Join(o.dir, messagesDir, lockFile))
	require.NoError(t, lock.Lock())
	_, err = Create(context.Background(), o.dir, io.Discard, discard)
	require.ErrorIs(t, err, ErrRunning)
	require.NoError(t, lock.Close())
	o.create()

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Create(ctx, o.dir, io.Discard, discard)
	require.ErrorIs(t, err, context.Canceled)

	link := filepath.Join(o.dir, messagesDir, "chain-901", "link")
	require.NoError(t, os.Symlink(filepath.Join(o.dir, OperatorKeyFile), link))
	_, err = Create(context.Background(), o.dir, io.Discard, discard)
	require.ErrorContains(t, err, "not a regular file")
	require.NoError(t, os.Remove(link))

	nowhere := filepath.Join(t.TempDir(), "nowhere")
	_, err = Create(context.Background(), nowhere, io.Discard, discard)
	require.ErrorContains(t, err, "not the data directory")
	require.NoDirExists(t, nowhere)

	require.NoError(t, os.RemoveAll(filepath.Join(o.dir, ledgerDir)))
	require.NoError(t, os.Mkdir(filepath.Join(o.dir, ledgerDir), 0o700))
	_, err = Create(context.Background(), o.dir, io.Discard, discard)
	require.ErrorContains(t, err, "nothing to give")
}

// Where an operator has been before, nothing is unpacked.
func TestRestoreOverData(t *testing.T) {
	data, _ := newOperator(t).create()
	for name, make := range map[string]func(dir string) error{
		"other files": func(dir string) error { return os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600) },
		"a ledger":    func(dir string) error { return os.Mkdir(filepath.Join(dir, ledgerDir), 0o700) },
		"a key that has voted": func(dir string) error {
			dir = config.ConsensusDir(dir)
			if _, err := cometbft.InitKeys(dir); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "data", "priv_validator_state.json"), []byte(`{"height":"7","round":0,"step":3}`), 0o600)
		},
		"subblocks that were signed": func(dir string) error {
			dir = filepath.Join(config.ConsensusDir(dir), "data")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "subblock_sign_state"), nil, 0o600)
		},
		"a link to a key": func(dir string) error { return os.Symlink("elsewhere", filepath.Join(dir, OperatorKeyFile)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, make(dir))
			before := tree(t, dir)
			_, err := restore(data, dir)
			require.ErrorIs(t, err, ErrNotEmpty)
			require.Equal(t, before, tree(t, dir))
		})
	}
}

func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	return names
}

// What others may send: files that lead elsewhere, hold keys, say one thing and are
// another, or are too large. Nothing of them stays.
func TestBadSnapshots(t *testing.T) {
	o := newOperator(t)
	good, _ := o.create()
	other, _ := newOperator(t).create()
	extra := func(h tar.Header, body string) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			order, content := entries(t, good)
			h.Size = int64(len(body))
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			h.Mode = 0o600
			content[h.Name] = []byte(body)
			var m manifest
			require.NoError(t, json.Unmarshal(content[manifestName], &m))
			m.Files, m.Bytes = m.Files+1, m.Bytes+h.Size
			content[manifestName] = jsonOf(t, m)
			order[0].Size = int64(len(content[manifestName]))
			return repack(t, append(order, &h), content)
		}
	}
	said := func(change func(*manifest)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			order, content := entries(t, good)
			var m manifest
			require.NoError(t, json.Unmarshal(content[manifestName], &m))
			change(&m)
			content[manifestName] = jsonOf(t, m)
			order[0].Size = int64(len(content[manifestName]))
			return repack(t, order, content)
		}
	}
	for name, tt := range map[string]struct {
		data func(t *testing.T) []byte
		want string
	}{
		"nothing":             {func(*testing.T) []byte { return nil }, "EOF"},
		"text":                {func(*testing.T) []byte { return []byte("hello") }, "EOF"},
		"cut off":             {func(*testing.T) []byte { return good[:len(good)/2] }, "unexpected EOF"},
		"end cut off":         {func(*testing.T) []byte { return good[:len(good)-1] }, "unexpected EOF"},
		"a checksum is wrong": {func(*testing.T) []byte { b := slices.Clone(good); b[len(b)-8] ^= 1; return b }, "checksum"},
		"more behind":         {func(t *testing.T) []byte { return append(slices.Clone(good), other...) }, "behind its end"},
		"no manifest": {func(t *testing.T) []byte {
			order, content := entries(t, good)
			return repack(t, order[1:], content)
		}, "does not begin with"},
		"a bad manifest": {func(t *testing.T) []byte {
			order, content := entries(t, good)
			content[manifestName] = bytes.Repeat([]byte{'['}, int(order[0].Size))
			return repack(t, order, content)
		}, manifestName},
		"out of the directory":  {extra(tar.Header{Name: "../../evil"}, "x"), "nothing that a snapshot has"},
		"out through ledger":    {extra(tar.Header{Name: "ledger/../../evil"}, "x"), "nothing that a snapshot has"},
		"an absolute path":      {extra(tar.Header{Name: "/tmp/evil"}, "x"), "nothing that a snapshot has"},
		"a key":                 {extra(tar.Header{Name: "consensus/config/priv_validator_key.json"}, "x"), "nothing that a snapshot has"},
		"an operator's key":     {extra(tar.Header{Name: OperatorKeyFile}, "x"), "nothing that a snapshot has"},
		"a sign state":          {extra(tar.Header{Name: "consensus/data/subblock_sign_state"}, "x"), "nothing that a snapshot has"},
		"a vote state":          {extra(tar.Header{Name: "consensus/data/priv_validator_state.json"}, "x"), "nothing that a snapshot has"},
		"a write-ahead log":     {extra(tar.Header{Name: "consensus/data/cs.wal/wal"}, "x"), "nothing that a snapshot has"},
		"a link":                {extra(tar.Header{Name: "messages/link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, ""), "not a regular file"},
		"a hard link":           {extra(tar.Header{Name: "messages/link", Typeflag: tar.TypeLink, Linkname: "ledger"}, ""), "not a regular file"},
		"a directory":           {extra(tar.Header{Name: "messages/dir/", Typeflag: tar.TypeDir}, ""), "not a regular file"},
		"a file twice":          {extra(tar.Header{Name: "messages/chain-901/db"}, "messages/chain-901/db"), "file exists"},
		"fewer files than said": {said(func(m *manifest) { m.Files++ }), "it says"},
		"more files than said":  {said(func(m *manifest) { m.Files-- }), "more than"},
		"more bytes than said":  {said(func(m *manifest) { m.Bytes-- }), "more than"},
		"too many bytes":        {said(func(m *manifest) { m.Bytes = DefaultLimits.Bytes + 1 }), "at most"},
		"too many files":        {said(func(m *manifest) { m.Files = DefaultLimits.Files + 1 }), "at most"},
		"less than nothing":     {said(func(m *manifest) { m.Bytes = -1 }), "at most"},
		"another version":       {said(func(m *manifest) { m.Version++ }), "version"},
		"another height":        {said(func(m *manifest) { m.Position.Height++ }), "it says it ends"},
		"another block":         {said(func(m *manifest) { m.Position.BlockHash[0]++ }), "it says it ends"},
		"no ledger": {func(t *testing.T) []byte {
			order, content := entries(t, good)
			var m manifest
			require.NoError(t, json.Unmarshal(content[manifestName], &m))
			order = slices.DeleteFunc(order, func(h *tar.Header) bool {
				gone := path.Dir(h.Name) == ledgerDir
				if gone {
					m.Files, m.Bytes = m.Files-1, m.Bytes-h.Size
				}
				return gone
			})
			content[manifestName] = jsonOf(t, m)
			order[0].Size = int64(len(content[manifestName]))
			return repack(t, order, content)
		}, "nothing to give"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "a", "b")
			_, err := restore(tt.data(t), dir)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, []string{root, filepath.Join(root, "a"), dir}, tree(t, root), "nothing is left")
		})
	}
	_, err := Restore(context.Background(), bytes.NewReader(good), t.TempDir(), Limits{Files: 1000, Bytes: 10}, discard)
	require.ErrorIs(t, err, ErrBad)
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return data
}
