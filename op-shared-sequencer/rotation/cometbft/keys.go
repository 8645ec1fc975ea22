package cometbft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"

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
}

// InitKeys creates the keys in a rotation's directory, unless they are there, and says
// what the others need to know of them.
func InitKeys(dir string) (Keys, error) {
	node, vote, err := loadKeys(dir)
	if err != nil {
		return Keys{}, err
	}
	keys := Keys{NodeID: string(node.ID())}
	copy(keys.ConsensusKey[:], vote.Key.PubKey.Bytes())
	return keys, nil
}

// loadKeys reads the keys, and creates them if the directory has none. CometBFT's own
// functions end the process on an error.
func loadKeys(dir string) (*p2p.NodeKey, *privval.FilePV, error) {
	fail := func(err error) (*p2p.NodeKey, *privval.FilePV, error) {
		return nil, nil, fmt.Errorf("consensus keys in %s: %w", dir, err)
	}
	for _, sub := range []string{"config", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fail(err)
		}
	}
	node, err := p2p.LoadOrGenNodeKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return fail(err)
	}
	keyPath, statePath := filepath.Join(dir, voteKeyFile), filepath.Join(dir, voteStateFile)
	var key privval.FilePVKey
	var state privval.FilePVLastSignState
	switch err := readJSON(keyPath, &key); {
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Stat(statePath); err == nil {
			return fail(fmt.Errorf("%s is missing and the state of its votes is there: restore it, or move both away for a new operator", voteKeyFile))
		}
		vote := privval.NewFilePV(ed25519.GenPrivKey(), keyPath, statePath)
		// The state first: a key without a state is refused below.
		vote.LastSignState.Save()
		vote.Key.Save()
		return node, vote, nil
	case err != nil:
		return fail(err)
	}
	if _, ok := key.PrivKey.(ed25519.PrivKey); !ok {
		return fail(fmt.Errorf("%s has no ed25519 key", voteKeyFile))
	}
	if err := readJSON(statePath, &state); err != nil {
		return fail(fmt.Errorf("the state of the votes: %w. Without it this operator could vote twice. Restore it from this disk, not from an old copy", err))
	}
	vote := privval.NewFilePV(key.PrivKey, keyPath, statePath)
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
