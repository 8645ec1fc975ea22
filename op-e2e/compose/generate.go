package compose

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Names in the directory. Containers see genesis/ and shared/ as they are, of operators/
// only their own operator's.
const (
	genesisDir    = "genesis" // L1, every chain, those that may join later too
	sharedDir     = "shared"  // what all operators have in common
	depsetFile    = "depset.json"
	operatorsFile = "operators.json"
	operatorsDir  = "operators"
	consensusDir  = "consensus" // an operator's keys for the agreement, as they are installed
	composeFile   = "docker-compose.yml"
	envFile       = ".env"
)

// spareChains is how many chains can be added: their contracts are on L1 from the start.
const spareChains = 2

// Generate writes all that a devnet is made of to dir, which it makes: genesis, keys,
// secrets, docker-compose.yml and .env. All or nothing.
func Generate(ctx context.Context, dir string, cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s exists and holds no devnet: remove it, or choose another directory", dir)
	}
	l := &layout{Config: cfg}
	for i := range cfg.Chains {
		l.ChainIDs = append(l.ChainIDs, firstChain+uint64(i))
	}
	tmp := filepath.Clean(dir) + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := l.writeGenesis(ctx, tmp); err != nil {
		return err
	}
	for i, power := range Powers(cfg.Operators) {
		m, err := l.newOperator(tmp, i+1, power)
		if err != nil {
			return fmt.Errorf("operator %d: %w", i+1, err)
		}
		l.Members = append(l.Members, *m)
	}
	if !l.alone() {
		if err := l.writeSet(tmp); err != nil {
			return err
		}
	}
	if err := l.render(tmp, dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// chainIDs that the genesis has: those there are, and those that may be added.
func (c *Config) withSpares() []uint64 {
	var out []uint64
	for i := range min(c.Chains+spareChains, MaxChains) {
		out = append(out, firstChain+uint64(i))
	}
	return out
}

func (l *layout) writeGenesis(ctx context.Context, dir string) error {
	artifacts, err := l.Artifacts, error(nil)
	if artifacts == "" {
		if artifacts, err = genesis.FindArtifacts("."); err != nil {
			return err
		}
	}
	gc := genesis.DevConfig(artifacts, uint64(time.Now().Unix()), l.withSpares()...)
	gc.CacheDir = filepath.Join(filepath.Dir(filepath.Dir(artifacts)), "genesis")
	out, err := genesis.Build(ctx, gc)
	if err != nil {
		return err
	}
	return out.Write(filepath.Join(dir, genesisDir))
}

// newOperator makes an operator's keys and secrets.
func (l *layout) newOperator(dir string, number int, power uint64) (*operator, error) {
	m := &operator{Number: number, Power: power}
	home := filepath.Join(dir, operatorsDir, strconv.Itoa(number))
	keys, err := genesis.DevKeys()
	if err != nil {
		return nil, err
	}
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(home, "jwt.hex"), []byte(hex.EncodeToString(secret[:])+"\n")); err != nil {
		return nil, err
	}
	for name, get := range map[string]func() (*ecdsa.PrivateKey, error){
		"operator.key": func() (*ecdsa.PrivateKey, error) { return keys.Operator(number - 1) },
		"relayer.key":  keys.Relayer,
	} {
		key, err := get()
		if err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(home, name), hexKey(key)); err != nil {
			return nil, err
		}
	}
	consensus, err := cometbft.InitKeys(filepath.Join(home, consensusDir))
	if err != nil {
		return nil, err
	}
	m.NodeID = consensus.NodeID
	return m, nil
}

func hexKey(key *ecdsa.PrivateKey) []byte {
	return []byte(hex.EncodeToString(crypto.FromECDSA(key)) + "\n")
}

// record is an operator as the set knows it.
func (m *operator) record(dir string) (operators.Operator, error) {
	keys, err := genesis.DevKeys()
	if err != nil {
		return operators.Operator{}, err
	}
	key, err := keys.Operator(m.Number - 1)
	if err != nil {
		return operators.Operator{}, err
	}
	consensus, err := cometbft.InitKeys(filepath.Join(dir, operatorsDir, strconv.Itoa(m.Number), consensusDir))
	if err != nil {
		return operators.Operator{}, err
	}
	return operators.Operator{
		Name: fmt.Sprintf("operator-%d", m.Number), Address: crypto.PubkeyToAddress(key.PublicKey),
		ConsensusKey: consensus.ConsensusKey, Power: m.Power,
	}, nil
}

// writeSet writes the genesis file of the set.
func (l *layout) writeSet(dir string) error {
	g := &operators.Genesis{Set: l.Project, Time: time.Now().UTC().Truncate(time.Second)}
	for _, id := range l.ChainIDs {
		g.Chains = append(g.Chains, sequence.ChainID(id))
	}
	for i := range l.Members {
		o, err := l.Members[i].record(dir)
		if err != nil {
			return err
		}
		g.Operators = append(g.Operators, o)
	}
	if err := os.MkdirAll(filepath.Join(dir, sharedDir), 0o755); err != nil {
		return err
	}
	return g.Write(filepath.Join(dir, sharedDir, operatorsFile))
}

// render writes what follows from the layout; dir is where it will be. It is done again
// after a change of the layout, and ends with the layout itself.
func (l *layout) render(dir, final string) error {
	chains := map[eth.ChainID]*depset.StaticConfigDependency{}
	for _, id := range l.ChainIDs {
		chains[eth.ChainIDFromUInt64(id)] = new(depset.StaticConfigDependency)
	}
	set, err := depset.NewStaticConfigDependencySet(chains)
	if err != nil {
		return err
	}
	data, err := json.Marshal(set)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, sharedDir, depsetFile), append(data, '\n')); err != nil {
		return err
	}
	for _, m := range l.Members {
		for _, id := range l.ChainIDs {
			if err := l.writeEngine(dir, m.Number, id); err != nil {
				return fmt.Errorf("op-geth of operator %d, chain %d: %w", m.Number, id, err)
			}
		}
	}
	g, err := genesis.Load(filepath.Join(dir, genesisDir))
	if err != nil {
		return err
	}
	if err := l.writeMonitoring(dir); err != nil {
		return err
	}
	if err := l.writeEnv(dir); err != nil {
		return err
	}
	file, err := l.compose(final, g)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, composeFile), file); err != nil {
		return err
	}
	if err := l.write(dir); err != nil {
		return err
	}
	return open(dir)
}

// writeEngine writes what one op-geth needs beside the operator's JWT secret: its identity
// in op-geth's own network, and who the others are.
func (l *layout) writeEngine(dir string, number int, chain uint64) error {
	home := filepath.Join(dir, operatorsDir, strconv.Itoa(number), engineDir(chain))
	keys, err := genesis.DevKeys()
	if err != nil {
		return err
	}
	key, err := keys.EngineNode(number-1, chain)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(home, "nodekey"), []byte(hex.EncodeToString(crypto.FromECDSA(key)))); err != nil {
		return err
	}
	jwt, err := os.ReadFile(filepath.Join(dir, operatorsDir, strconv.Itoa(number), "jwt.hex"))
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(home, "jwt.hex"), jwt); err != nil {
		return err
	}
	var peers []string
	for _, m := range l.Members {
		if m.Number == number {
			continue
		}
		key, err := keys.EngineNode(m.Number-1, chain)
		if err != nil {
			return err
		}
		id := hex.EncodeToString(crypto.FromECDSAPub(&key.PublicKey)[1:])
		peers = append(peers, fmt.Sprintf("%q", "enode://"+id+"@"+engineService(m.Number, chain)+":30303"))
	}
	list := strings.Join(peers, ", ")
	text := fmt.Sprintf("[Node.P2P]\nListenAddr = \":30303\"\nStaticNodes = [%s]\nTrustedNodes = [%s]\n", list, list)
	return writeFile(filepath.Join(home, "network.toml"), []byte(text))
}

func engineDir(chain uint64) string { return "op-geth-" + strconv.FormatUint(chain, 10) }

// writeEnv writes the variables of docker-compose.yml: names, ports, and keys of roles that
// take them from the environment.
func (l *layout) writeEnv(dir string) error {
	keys, err := genesis.DevKeys()
	if err != nil {
		return err
	}
	env := []string{
		"# Written by bin/devnet compose. The keys are those that everybody knows: for development only.",
		"COMPOSE_PROJECT_NAME=" + l.Project,
		"TAG=" + l.Tag,
		fmt.Sprintf("L1_PORT=%d", l.l1Port()),
		fmt.Sprintf("L1_BEACON_PORT=%d", l.beaconPort()),
		fmt.Sprintf("PROMETHEUS_PORT=%d", l.prometheusPort()),
		fmt.Sprintf("GRAFANA_PORT=%d", l.grafanaPort()),
	}
	for _, m := range l.Members {
		env = append(env,
			fmt.Sprintf("OP%d_NODE_PORT=%d", m.Number, l.nodePort(m.Number)),
			fmt.Sprintf("OP%d_SHAREDSEQ_PORT=%d", m.Number, l.sequencerPort(m.Number)),
			fmt.Sprintf("OP%d_METRICS_PORT=%d", m.Number, l.metricsPort(m.Number)))
		for i, id := range l.ChainIDs {
			env = append(env, fmt.Sprintf("OP%d_GETH_%d_PORT=%d", m.Number, id, l.enginePort(m.Number, i)))
		}
	}
	for _, id := range l.ChainIDs {
		key, err := keys.Batcher(id)
		if err != nil {
			return err
		}
		env = append(env, fmt.Sprintf("BATCHER_%d_KEY=%x", id, crypto.FromECDSA(key)))
	}
	key, err := keys.Proposer(l.ChainIDs[0])
	if err != nil {
		return err
	}
	env = append(env, fmt.Sprintf("PROPOSER_KEY=%x", crypto.FromECDSA(key)))
	return writeFile(filepath.Join(dir, envFile), []byte(strings.Join(env, "\n")+"\n"))
}

// open lets the containers, which run as another user, read the files through their mounts.
// On this machine nobody else gets past the directory itself.
func open(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == dir:
			return os.Chmod(path, 0o700)
		case d.IsDir():
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}

// InstallKeys copies an operator's consensus keys into its volume, once: from is a directory
// as Generate makes it, to is an op-node's shared sequencer data directory. Keys that are
// there already stay, with the state of their votes; if they are another operator's or of
// an earlier devnet, that is an error.
func InstallKeys(from, to string) error {
	to = filepath.Join(to, consensusDir)
	// What was voted comes first: a key without it is refused.
	files := []string{
		filepath.Join("data", "priv_validator_state.json"),
		filepath.Join("config", "node_key.json"),
		filepath.Join("config", "priv_validator_key.json"),
	}
	last := files[len(files)-1]
	key, err := os.ReadFile(filepath.Join(from, last))
	if err != nil {
		return err
	}
	switch there, err := os.ReadFile(filepath.Join(to, last)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !slices.Equal(there, key):
		return errors.New("the volume holds another operator's consensus key, perhaps of an earlier devnet: make devnet-down removes the volumes")
	default:
		return nil
	}
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			return err
		}
	}
	return nil
}
