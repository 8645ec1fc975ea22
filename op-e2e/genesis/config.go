// Package genesis makes everything a development set of interop rollups starts from: the L1 genesis with the OP Stack's
// contracts deployed, one L2 genesis and rollup config per chain, the dependency set, and the keys of all roles.
//
// op-deployer's pipeline does the work, on the contracts `make contracts` builds. Added to it are SuperchainTokenBridge and
// an ERC-7802 test token (install.go). Equal configs give equal results, byte for byte.
package genesis

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
)

const (
	DefaultL1ChainID = 900
	DefaultGasLimit  = 60_000_000

	// The dev keys' derivation paths hold the chain ID in 31 bits.
	maxChainID = 1<<31 - 1
)

// Config says what to make. Only Artifacts, Chains and Timestamp have no default.
type Config struct {
	// Artifacts is the directory of forge artifacts that `make contracts` writes, see FindArtifacts.
	Artifacts string
	// L1ChainID defaults to DefaultL1ChainID.
	L1ChainID uint64
	// Chains are the L2 chains, all in one dependency set. The order has no meaning.
	Chains []ChainConfig
	// Timestamp is that of the L1 genesis block and of every L2 genesis block, in seconds.
	Timestamp uint64

	// ProofMaturityDelay and FinalityDelay are how long a proven withdrawal and a resolved dispute game wait, in seconds.
	// 0: upstream's defaults, which are days.
	ProofMaturityDelay, FinalityDelay uint64
	// SequencerWindow is how many L1 blocks late a batch may be. 0: upstream's default.
	SequencerWindow uint64
	// MessageExpiry overrides the dependency set's expiry window of messages, in seconds. 0: the protocol's.
	MessageExpiry uint64

	// CacheDir keeps what does not depend on Timestamp, under a name made from the artifacts' content and this config.
	// Several processes may share it. Empty: no cache.
	CacheDir string
	// Log gets op-deployer's logs. Nil: nowhere.
	Log log.Logger
}

// ChainConfig is one L2 chain.
type ChainConfig struct {
	ID uint64
	// BlockTime in seconds.
	BlockTime uint64
	// GasLimit of a block. 0: DefaultGasLimit.
	GasLimit uint64
}

// DevConfig is what devnets and tests use: chains with blocks of one second, 901 and 902 unless others are named, and
// withdrawals that wait for seconds instead of days.
func DevConfig(artifacts string, timestamp uint64, chains ...uint64) Config {
	if len(chains) == 0 {
		chains = []uint64{901, 902}
	}
	cfg := Config{
		Artifacts:          artifacts,
		L1ChainID:          DefaultL1ChainID,
		Timestamp:          timestamp,
		ProofMaturityDelay: 12,
		FinalityDelay:      6,
	}
	for _, id := range chains {
		cfg.Chains = append(cfg.Chains, ChainConfig{ID: id, BlockTime: 1, GasLimit: DefaultGasLimit})
	}
	return cfg
}

// Check returns an error that names the first setting that cannot work.
func (c *Config) Check() error {
	if c.Artifacts == "" {
		return errors.New("genesis: no contract artifacts directory given: run `make contracts` and name its forge-artifacts")
	}
	if info, err := os.Stat(c.Artifacts); err != nil || !info.IsDir() {
		return fmt.Errorf("genesis: no contract artifacts in %s: run `make contracts`", c.Artifacts)
	}
	if c.Timestamp == 0 {
		return errors.New("genesis: timestamp is 0: give the L1 genesis time in Unix seconds")
	}
	if len(c.Chains) == 0 {
		return errors.New("genesis: no chains given")
	}
	if c.L1ChainID > maxChainID {
		return fmt.Errorf("genesis: L1 chain ID %d is too large: dev keys exist up to %d", c.L1ChainID, maxChainID)
	}
	seen := map[uint64]bool{c.l1ChainID(): true}
	for _, chain := range c.Chains {
		switch {
		case chain.ID == 0 || chain.ID > maxChainID:
			return fmt.Errorf("genesis: chain ID %d is not in 1..%d", chain.ID, maxChainID)
		case chain.ID == c.l1ChainID():
			return fmt.Errorf("genesis: chain %d has the chain ID of L1", chain.ID)
		case seen[chain.ID]:
			return fmt.Errorf("genesis: chain %d is given twice", chain.ID)
		case chain.BlockTime == 0:
			return fmt.Errorf("genesis: chain %d has block time 0: give seconds", chain.ID)
		}
		seen[chain.ID] = true
	}
	return nil
}

func (c *Config) l1ChainID() uint64 {
	if c.L1ChainID == 0 {
		return DefaultL1ChainID
	}
	return c.L1ChainID
}

func (c *ChainConfig) gasLimit() uint64 {
	if c.GasLimit == 0 {
		return DefaultGasLimit
	}
	return c.GasLimit
}

// FindArtifacts returns the directory `make contracts` writes to in the repository that dir is in.
func FindArtifacts(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			artifacts := filepath.Join(at, "build", "contracts", "forge-artifacts")
			if _, err := os.Stat(artifacts); err != nil {
				return "", fmt.Errorf("genesis: no contract artifacts in %s: run `make contracts`", artifacts)
			}
			return artifacts, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("genesis: no go.mod in or above %s: contract artifacts are looked for in the repository", dir)
		}
	}
}

// create2Salt goes into the addresses of the L1 contracts. op-deployer draws a random one when it is zero.
var create2Salt = common.HexToHash("0x6f702d7368617265642d73657175656e636572") // "op-shared-sequencer"
