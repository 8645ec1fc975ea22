package cometbft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/ethereum/go-ethereum/accounts/keystore"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// Files in Config.Dir. Keys are in config, what changes is in data.
const (
	nodeKeyFile     = "config/node_key.json"
	voteKeyFile     = "config/priv_validator_key.json"
	voteStateFile   = "data/priv_validator_state.json"
	signerStateFile = "data/subblock_sign_state"
	evidenceFile    = "data/subblock_evidence"
)

// Keys of a node, without their secrets.
type Keys struct {
	NodeID       string                 // what peers name it by: nodeID@host:port
	ConsensusKey operators.ConsensusKey // for the operator's entry in the genesis, or the change that adds it
	Protected    bool                   // whether the consensus key is, by a password
}

// VoteKeyPath is where a rotation's directory has the consensus key.
func VoteKeyPath(dir string) string { return filepath.Join(dir, voteKeyFile) }

// Protection is how new consensus keys are written: plain without a password.
type Protection struct {
	Password keyfile.Password
	Cost     keyfile.Cost
}

// InitKeys creates plain keys in a rotation's directory, unless they are there, and says
// what the others need to know of them.
func InitKeys(dir string) (Keys, error) {
	if keys, err := ReadKeys(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return keys, err
	}
	if _, _, err := loadKeys(dir, Protection{}); err != nil {
		return Keys{}, err
	}
	return ReadKeys(dir)
}

// CreateKeys creates keys in a rotation's directory. Errors: os.ErrExist if it has a
// consensus key.
func CreateKeys(dir string, p Protection) (Keys, error) {
	return createKeys(dir, p, ed25519.GenPrivKey(), &privval.FilePVLastSignState{})
}

// ImportKeys puts a consensus key into a rotation's directory: the content of another
// priv_validator_key.json, which open is to protect it, and that of the
// priv_validator_state.json that belongs to it. Without a state the key must never have
// voted: with it, it would vote twice. Errors: as CreateKeys, keyfile.ErrProtected,
// keyfile.ErrWrongPassword.
func ImportKeys(dir string, key, state []byte, open keyfile.Password, p Protection) (Keys, error) {
	v, err := decodeVoteKey(key, open)
	if err != nil {
		return Keys{}, fmt.Errorf("the consensus key: %w", err)
	}
	last := new(privval.FilePVLastSignState)
	if state != nil {
		if err := cmtjson.Unmarshal(state, last); err != nil {
			return Keys{}, fmt.Errorf("the state of its votes: %w", err)
		}
	}
	return createKeys(dir, p, v, last)
}

func createKeys(dir string, p Protection, key ed25519.PrivKey, last *privval.FilePVLastSignState) (Keys, error) {
	for _, file := range []string{voteKeyFile, voteStateFile} {
		if _, err := os.Lstat(filepath.Join(dir, file)); err == nil {
			return Keys{}, fmt.Errorf("consensus keys in %s: %s: %w", dir, file, os.ErrExist)
		}
	}
	if err := makeDirs(dir); err != nil {
		return Keys{}, err
	}
	if _, err := p2p.LoadOrGenNodeKey(filepath.Join(dir, nodeKeyFile)); err != nil {
		return Keys{}, fmt.Errorf("consensus keys in %s: %w", dir, err)
	}
	if err := writeVote(dir, p, key, last); err != nil {
		return Keys{}, fmt.Errorf("consensus keys in %s: %w", dir, err)
	}
	return ReadKeys(dir)
}

// writeVote writes the state first: a key without a state is refused by loadKeys.
func writeVote(dir string, p Protection, key ed25519.PrivKey, last *privval.FilePVLastSignState) error {
	state, err := cmtjson.MarshalIndent(last, "", "  ")
	if err != nil {
		return err
	}
	data, err := encodeVoteKey(key, p)
	if err != nil {
		return err
	}
	if err := keyfile.Create(filepath.Join(dir, voteStateFile), state); err != nil {
		return err
	}
	return keyfile.Create(filepath.Join(dir, voteKeyFile), data)
}

// ReadKeys reads what is public of the keys in a rotation's directory. Errors: os.ErrNotExist.
func ReadKeys(dir string) (Keys, error) {
	fail := func(err error) (Keys, error) { return Keys{}, fmt.Errorf("consensus keys in %s: %w", dir, err) }
	data, err := os.ReadFile(filepath.Join(dir, voteKeyFile))
	if err != nil {
		return fail(err)
	}
	var public struct {
		PubKey crypto.PubKey `json:"pub_key"`
	}
	if err := cmtjson.Unmarshal(data, &public); err != nil {
		return fail(fmt.Errorf("%s: %w", voteKeyFile, err))
	}
	if _, ok := public.PubKey.(ed25519.PubKey); !ok {
		return fail(fmt.Errorf("%s has no ed25519 key", voteKeyFile))
	}
	node, err := p2p.LoadNodeKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return fail(err)
	}
	keys := Keys{NodeID: string(node.ID()), Protected: keyfile.Protected(data)}
	copy(keys.ConsensusKey[:], public.PubKey.Bytes())
	return keys, nil
}

// CheckKeys says whether a node can start with the keys in a rotation's directory. Errors:
// os.ErrNotExist, keyfile.ErrProtected, keyfile.ErrWrongPassword.
func CheckKeys(dir string, password keyfile.Password) error {
	if _, err := ReadKeys(dir); err != nil { // and makes none
		return err
	}
	_, _, err := loadKeys(dir, Protection{Password: password})
	return err
}

// ProtectKeys writes the consensus key in a rotation's directory anew, under another
// password. The node must be stopped. Errors: as CheckKeys.
func ProtectKeys(dir string, old keyfile.Password, p Protection) error {
	path := filepath.Join(dir, voteKeyFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("consensus keys in %s: %w", dir, err)
	}
	key, err := decodeVoteKey(data, old)
	if err != nil {
		return fmt.Errorf("consensus keys in %s: %w", dir, err)
	}
	if data, err = encodeVoteKey(key, p); err != nil {
		return err
	}
	return keyfile.Replace(path, data)
}

// voteKey is voteKeyFile: CometBFT's, with crypto in the place of priv_key when it is protected.
type voteKey struct {
	Address crypto.Address  `json:"address"`
	PubKey  json.RawMessage `json:"pub_key"`
	// One of the two.
	PrivKey json.RawMessage      `json:"priv_key,omitempty"`
	Crypto  *keystore.CryptoJSON `json:"crypto,omitempty"`
}

func encodeVoteKey(key ed25519.PrivKey, p Protection) ([]byte, error) {
	if p.Password == "" {
		return cmtjson.MarshalIndent(privval.FilePVKey{Address: key.PubKey().Address(), PubKey: key.PubKey(), PrivKey: key}, "", "  ")
	}
	public, err := cmtjson.Marshal(key.PubKey())
	if err != nil {
		return nil, err
	}
	sealed, err := keyfile.Seal(key.Bytes(), p.Password, p.Cost)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(voteKey{Address: key.PubKey().Address(), PubKey: public, Crypto: sealed}, "", "  ")
}

func decodeVoteKey(data []byte, password keyfile.Password) (ed25519.PrivKey, error) {
	if !keyfile.Protected(data) {
		var plain privval.FilePVKey
		if err := cmtjson.Unmarshal(data, &plain); err != nil {
			return nil, fmt.Errorf("%s: not a key of CometBFT", voteKeyFile) // the error could hold some of it
		}
		key, ok := plain.PrivKey.(ed25519.PrivKey)
		if !ok {
			return nil, fmt.Errorf("%s has no ed25519 key", voteKeyFile)
		}
		return key, nil
	}
	var v voteKey
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", voteKeyFile, err)
	}
	secret, err := keyfile.Open(v.Crypto, password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", voteKeyFile, err)
	}
	if len(secret) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%s has a key of %d bytes, expected %d", voteKeyFile, len(secret), ed25519.PrivateKeySize)
	}
	key := ed25519.PrivKey(secret)
	if !bytes.Equal(key.PubKey().Address(), v.Address) {
		return nil, fmt.Errorf("%s has the key of another address than it says", voteKeyFile)
	}
	return key, nil
}

func makeDirs(dir string) error {
	for _, sub := range []string{"config", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("consensus keys in %s: %w", dir, err)
		}
	}
	return nil
}

// loadKeys reads the keys, and creates them if the directory has none. CometBFT's own
// functions end the process on an error.
func loadKeys(dir string, p Protection) (*p2p.NodeKey, *privval.FilePV, error) {
	fail := func(err error) (*p2p.NodeKey, *privval.FilePV, error) {
		return nil, nil, fmt.Errorf("consensus keys in %s: %w", dir, err)
	}
	if err := makeDirs(dir); err != nil {
		return nil, nil, err
	}
	node, err := p2p.LoadOrGenNodeKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return fail(err)
	}
	keyPath, statePath := filepath.Join(dir, voteKeyFile), filepath.Join(dir, voteStateFile)
	var state privval.FilePVLastSignState
	data, err := os.ReadFile(keyPath)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(statePath); err == nil {
			return fail(fmt.Errorf("%s is missing and the state of its votes is there: restore it, or move both away for a new operator", voteKeyFile))
		}
		key := ed25519.GenPrivKey()
		if err := writeVote(dir, p, key, &state); err != nil {
			return fail(err)
		}
		return node, privval.NewFilePV(key, keyPath, statePath), nil
	}
	if err != nil {
		return fail(err)
	}
	key, err := decodeVoteKey(data, p.Password)
	if err != nil {
		return fail(err)
	}
	if err := readJSON(statePath, &state); err != nil {
		return fail(fmt.Errorf("the state of the votes: %w. Without it this operator could vote twice. Restore it from this disk, not from an old copy", err))
	}
	vote := privval.NewFilePV(key, keyPath, statePath)
	vote.LastSignState.Height, vote.LastSignState.Round, vote.LastSignState.Step = state.Height, state.Round, state.Step
	vote.LastSignState.Signature, vote.LastSignState.SignBytes = state.Signature, state.SignBytes
	return node, vote, nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := cmtjson.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
