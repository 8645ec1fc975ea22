package commands

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/snapshot"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

// operatorKeyFile is the operator's key in its data directory.
const operatorKeyFile = snapshot.OperatorKeyFile

var (
	plainFlag     = &cli.BoolFlag{Name: "plain", Usage: "Do not protect the keys by a password: whoever can read the files has the keys."}
	lightFlag     = &cli.BoolFlag{Name: "lightkdf", Usage: "Guessing the password costs less time and memory, and so does using it. For tests."}
	fromKeyFlag   = &cli.PathFlag{Name: "operator-key", Usage: "File with the operator key: hex, or op-geth's keystore format.", TakesFile: true}
	fromVoteFlag  = &cli.PathFlag{Name: "consensus-key", Usage: "A priv_validator_key.json.", TakesFile: true}
	fromStateFlag = &cli.PathFlag{Name: "consensus-state", Usage: "The priv_validator_state.json of that key, from the disk on which it voted last.", TakesFile: true}
	unusedFlag    = &cli.BoolFlag{Name: "never-voted", Usage: "Instead of --consensus-state: the consensus key has never voted. If it has, it will vote twice."}
	fromPassFlag  = &cli.PathFlag{Name: "from-password-file", Usage: "Password of the keys as they are now, if they are protected.", TakesFile: true}
)

func keysCommand(env Env, t *terminal) *cli.Command {
	return &cli.Command{
		Name: "keys", Usage: "an operator's keys: one signs subblocks and changes of the set, one votes",
		Subcommands: []*cli.Command{
			{Name: "make", Usage: "make keys, protected by a password, and print what the others need to know",
				Flags:  flagSet(dataDirFlag, passwordFlag, plainFlag, lightFlag),
				Action: func(c *cli.Context) error { return makeKeys(c, env, t) }},
			{Name: "show", Usage: "print what the others need to know of the keys",
				Flags:  flagSet(dataDirFlag, passwordFlag, jsonFlag),
				Action: func(c *cli.Context) error { return showKeys(c, env) }},
			{Name: "import", Usage: "take keys that are there already",
				Flags:  flagSet(dataDirFlag, fromKeyFlag, fromVoteFlag, fromStateFlag, unusedFlag, fromPassFlag, passwordFlag, plainFlag, lightFlag),
				Action: func(c *cli.Context) error { return importKeys(c, env, t) }},
			{Name: "protect", Usage: "put the keys of a stopped operator under a password, or another one",
				Flags:  flagSet(dataDirFlag, fromPassFlag, passwordFlag, lightFlag),
				Action: func(c *cli.Context) error { return protectKeys(c, env, t) }},
		},
	}
}

// keysDir is the data directory that the flags name.
func keysDir(c *cli.Context) (string, error) {
	if err := onlyFlags(c); err != nil {
		return "", err
	}
	dir := c.Path(dataDirFlag.Name)
	if dir == "" {
		return "", usage("--%s: missing: expected the operator's --shared-sequencer.data-dir", dataDirFlag.Name)
	}
	return dir, nil
}

// protection is what new keys are written with.
func protection(c *cli.Context, t *terminal) (cometbft.Protection, error) {
	p := cometbft.Protection{Cost: keyfile.Standard}
	if c.Bool(lightFlag.Name) {
		p.Cost = keyfile.Light
	}
	file := c.Path(passwordFlag.Name)
	if c.Bool(plainFlag.Name) {
		if file != "" {
			return p, usage("--%s and --%s are both set: expected one of them", plainFlag.Name, passwordFlag.Name)
		}
		return p, nil
	}
	var err error
	p.Password, err = t.newPassword(file)
	return p, err
}

// free refuses a directory that has keys.
func free(files ...string) error {
	for _, f := range files {
		if exists(f) {
			return fmt.Errorf("%s exists: keys are not overwritten", f)
		}
	}
	return nil
}

func makeKeys(c *cli.Context, env Env, t *terminal) error {
	dir, err := keysDir(c)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, operatorKeyFile)
	if err := free(file, cometbft.VoteKeyPath(config.ConsensusDir(dir))); err != nil {
		return err
	}
	p, err := protection(c, t)
	if err != nil {
		return err
	}
	key, err := crypto.GenerateKey()
	if err != nil {
		return err
	}
	data, err := keyfile.Encode(key, p.Password, p.Cost)
	if err != nil {
		return err
	}
	keys, err := cometbft.CreateKeys(config.ConsensusDir(dir), p)
	if err != nil {
		return err
	}
	if err := keyfile.Create(file, data); err != nil {
		return err
	}
	return publicKeys{crypto.PubkeyToAddress(key.PublicKey), keys, file}.write(env.Out)
}

// publicKeys are what others need to know of an operator.
type publicKeys struct {
	address common.Address
	cometbft.Keys
	file string
}

func (k publicKeys) write(w io.Writer) error {
	protected := "by a password"
	if !k.Protected {
		protected = "no: whoever can read the files has the keys"
	}
	_, err := fmt.Fprintf(w, "%-14s %s\n%-14s %s\n%-14s %s\n%-14s %s\n%-14s %s\n",
		"address", k.address, "consensus key", k.ConsensusKey, "node ID", k.NodeID, "key file", k.file, "protected", protected)
	return err
}

func showKeys(c *cli.Context, env Env) error {
	dir, err := keysDir(c)
	if err != nil {
		return err
	}
	keys, err := cometbft.ReadKeys(config.ConsensusDir(dir))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, operatorKeyFile)
	address, err := keyfile.Address(file)
	if err != nil {
		return err
	}
	if path := c.Path(passwordFlag.Name); path != "" { // whether it opens them
		password, err := passwordOf(path)
		if err != nil {
			return err
		}
		if _, err := keyfile.Read(file, password); err != nil {
			return err
		}
		if err := cometbft.CheckKeys(config.ConsensusDir(dir), password); err != nil {
			return err
		}
	}
	if c.Bool(jsonFlag.Name) {
		return printJSON(env.Out, map[string]any{
			"address": address, "consensusKey": keys.ConsensusKey, "nodeId": keys.NodeID, "keyFile": file, "protected": keys.Protected,
		})
	}
	return publicKeys{address, keys, file}.write(env.Out)
}

func importKeys(c *cli.Context, env Env, t *terminal) error {
	dir, err := keysDir(c)
	if err != nil {
		return err
	}
	keyPath, votePath, statePath := c.Path(fromKeyFlag.Name), c.Path(fromVoteFlag.Name), c.Path(fromStateFlag.Name)
	switch {
	case keyPath == "" || votePath == "":
		return usage("--%s and --%s: expected both: an operator is its two keys", fromKeyFlag.Name, fromVoteFlag.Name)
	case (statePath == "") == !c.Bool(unusedFlag.Name):
		return usage("expected one of --%s and --%s: a consensus key without what it has voted would vote twice", fromStateFlag.Name, unusedFlag.Name)
	}
	file := filepath.Join(dir, operatorKeyFile)
	if err := free(file, cometbft.VoteKeyPath(config.ConsensusDir(dir))); err != nil {
		return err
	}
	vote, err := os.ReadFile(votePath)
	if err != nil {
		return fmt.Errorf("--%s: %w", fromVoteFlag.Name, err)
	}
	var state []byte
	if statePath != "" {
		if state, err = os.ReadFile(statePath); err != nil {
			return fmt.Errorf("--%s: %w", fromStateFlag.Name, err)
		}
	}
	old, err := oldPassword(c, t, keyPath, votePath)
	if err != nil {
		return err
	}
	key, err := keyfile.Read(keyPath, old)
	if err != nil {
		return fmt.Errorf("--%s: %w", fromKeyFlag.Name, err)
	}
	p, err := protection(c, t)
	if err != nil {
		return err
	}
	data, err := keyfile.Encode(key, p.Password, p.Cost)
	if err != nil {
		return err
	}
	keys, err := cometbft.ImportKeys(config.ConsensusDir(dir), vote, state, old, p)
	if err != nil {
		return err
	}
	if err := keyfile.Create(file, data); err != nil {
		return err
	}
	return publicKeys{crypto.PubkeyToAddress(key.PublicKey), keys, file}.write(env.Out)
}

// oldPassword is that of files that are to be opened, empty if none is protected.
func oldPassword(c *cli.Context, t *terminal, files ...string) (keyfile.Password, error) {
	if path := c.Path(fromPassFlag.Name); path != "" {
		p, err := keyfile.ReadPassword(path)
		if err != nil {
			return "", fmt.Errorf("--%s: %w", fromPassFlag.Name, err)
		}
		return p, nil
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		if keyfile.Protected(data) {
			if t.ask == nil {
				return "", usage("%s is protected: expected --%s, or a terminal to ask for its password on", f, fromPassFlag.Name)
			}
			return t.password("", "Password of the keys as they are now: ")
		}
	}
	return "", nil
}

func protectKeys(c *cli.Context, env Env, t *terminal) error {
	dir, err := keysDir(c)
	if err != nil {
		return err
	}
	consensus, file := config.ConsensusDir(dir), filepath.Join(dir, operatorKeyFile)
	old, err := oldPassword(c, t, file, cometbft.VoteKeyPath(consensus))
	if err != nil {
		return err
	}
	key, err := keyfile.Read(file, old)
	if err != nil {
		return err
	}
	if err := cometbft.CheckKeys(consensus, old); err != nil {
		return err
	}
	p, err := protection(c, t)
	if err != nil {
		return err
	}
	data, err := keyfile.Encode(key, p.Password, p.Cost)
	if err != nil {
		return err
	}
	// A crash between the two leaves them under different passwords, of which the user has both.
	if err := cometbft.ProtectKeys(consensus, old, p); err != nil {
		return err
	}
	if err := keyfile.Replace(file, data); err != nil {
		return err
	}
	keys, err := cometbft.ReadKeys(consensus)
	if err != nil {
		return err
	}
	return publicKeys{crypto.PubkeyToAddress(key.PublicKey), keys, file}.write(env.Out)
}

// signingKey reads the key that --key-file names, with its password if it has one.
func signingKey(c *cli.Context, t *terminal) (*ecdsa.PrivateKey, error) {
	path := c.Path(keyFileFlag.Name)
	if path == "" {
		return nil, usage("--%s: missing: expected the file with the operator's key", keyFileFlag.Name)
	}
	var password keyfile.Password
	data, err := os.ReadFile(path)
	if err == nil && keyfile.Protected(data) {
		if password, err = t.password(c.Path(passwordFlag.Name), "Password of "+path+": "); err != nil {
			return nil, err
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--%s: %w", keyFileFlag.Name, err)
	}
	key, err := keyfile.Read(path, password)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", keyFileFlag.Name, err)
	}
	return key, nil
}
