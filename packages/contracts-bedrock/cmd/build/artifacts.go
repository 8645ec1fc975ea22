package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/sha3"
)

// exactMatches is how many contracts of upstream's semver-lock.json must come out of the compiler byte for byte.
const exactMatches = 56

// fromBundle are the contracts that are not compiled: the module lacks their sources (src/vendor). Their creation code
// is taken from upstream's upgrade bundle and must have the hash of the lock.
var fromBundle = map[string]bool{
	"src/vendor/eas/EAS.sol:EAS":                       true,
	"src/vendor/eas/SchemaRegistry.sol:SchemaRegistry": true,
}

// preimageOracle is the one contract whose init code is not upstream's, because it links our LibKeccak; this is the hash
// it has instead.
const (
	preimageOracle     = "src/cannon/PreimageOracle.sol:PreimageOracle"
	preimageOracleHash = "0xe8eea2ce4d4ae865f5698f897baedea8ca4b5bd3d5222587a6c0c56707239448"
)

type lockEntry struct {
	InitCodeHash string `json:"initCodeHash"`
}

func readLock(module string) (map[string]lockEntry, error) {
	data, err := os.ReadFile(filepath.Join(module, "packages", "contracts-bedrock", "snapshots", "semver-lock.json"))
	if err != nil {
		return nil, err
	}
	var lock map[string]lockEntry
	if err := json.Unmarshal(data, &lock); err != nil {
		return nil, fmt.Errorf("semver-lock.json: %w", err)
	}
	return lock, nil
}

// checkHashes compares the init code of every contract in upstream's lock with what was compiled.
func checkHashes(optimism, artifacts string) (string, error) {
	lock, err := readLock(optimism)
	if err != nil {
		return "", err
	}
	return compareHashes(lock, func(file, contract string) (string, error) {
		return initCodeHash(artifacts, file, contract)
	})
}

// compareHashes requires the lock's hash of every contract in it, save preimageOracle.
func compareHashes(lock map[string]lockEntry, hash func(file, contract string) (string, error)) (string, error) {
	compiled, bundled := 0, 0
	for _, id := range sortedKeys(lock) {
		file, contract, _ := strings.Cut(id, ":")
		got, err := hash(path.Base(file), contract)
		if err != nil {
			return "", err
		}
		want := lock[id].InitCodeHash
		if id == preimageOracle {
			want = preimageOracleHash
		}
		if got != want {
			return "", fmt.Errorf("%s has init code hash %s, expected %s: a source, library or compiler differs", id, got, want)
		}
		switch {
		case fromBundle[id]:
			bundled++
		case id != preimageOracle:
			compiled++
		}
	}
	if compiled != exactMatches || bundled != len(fromBundle) || len(lock) != exactMatches+len(fromBundle)+1 {
		return "", fmt.Errorf("semver-lock.json lists %d contracts, expected %d: upstream has changed", len(lock), exactMatches+len(fromBundle)+1)
	}
	return fmt.Sprintf("%d compiled exactly as upstream's, EAS and SchemaRegistry exact but taken from upstream's upgrade bundle, "+
		"PreimageOracle differs as expected (own LibKeccak)", compiled), nil
}

// checkTokenBridge holds SuperchainTokenBridge against the lock of the release it comes from.
func checkTokenBridge(module, artifacts string) error {
	const id = "src/L2/SuperchainTokenBridge.sol:SuperchainTokenBridge"
	lock, err := readLock(module)
	if err != nil {
		return err
	}
	got, err := initCodeHash(artifacts, "SuperchainTokenBridge.sol", "SuperchainTokenBridge")
	if err != nil {
		return err
	}
	if want := lock[id].InitCodeHash; got != want {
		return fmt.Errorf("%s has init code hash %s, %s's is %s", id, got, tokenBridgeVersion, want)
	}
	return nil
}

// artifact is the part of a forge artifact that matters here.
type artifact struct {
	Bytecode struct {
		Object string `json:"object"`
	} `json:"bytecode"`
}

func initCodeHash(artifacts, file, contract string) (string, error) {
	data, err := os.ReadFile(filepath.Join(artifacts, file, contract+".json"))
	if err != nil {
		return "", fmt.Errorf("%s was not compiled: %w", contract, err)
	}
	var a artifact
	if err := json.Unmarshal(data, &a); err != nil {
		return "", fmt.Errorf("artifact of %s: %w", contract, err)
	}
	code, err := hex.DecodeString(strings.TrimPrefix(a.Bytecode.Object, "0x"))
	if err != nil {
		return "", fmt.Errorf("artifact of %s: bytecode is not linked: %w", contract, err)
	}
	return "0x" + hex.EncodeToString(keccak(code)), nil
}

func keccak(parts ...[]byte) []byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// copyArtifact copies "File.sol/Contract" without what only verification services read.
func copyArtifact(from, to, name string) error {
	data, err := os.ReadFile(filepath.Join(from, filepath.FromSlash(name)+".json"))
	if err != nil {
		return fmt.Errorf("artifact %s is missing from the build: %w", name, err)
	}
	trimmed, err := trimArtifact(data)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", name, err)
	}
	file := filepath.Join(to, filepath.FromSlash(name)+".json")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, trimmed, 0o644)
}

func trimArtifact(data []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	kept := make(map[string]json.RawMessage)
	for _, key := range []string{"abi", "bytecode", "deployedBytecode", "storageLayout"} {
		if v, ok := all[key]; ok {
			kept[key] = v
		}
	}
	return json.Marshal(kept)
}

// writeEASArtifacts adds artifacts for EAS and SchemaRegistry, whose sources the module does not carry. Upstream's
// upgrade bundle deploys both; the state snapshot after that upgrade has the runtime code.
func writeEASArtifacts(optimism, artifacts string) error {
	nuts := filepath.Join(optimism, "op-core", "nuts")
	var bundle struct {
		Transactions []struct {
			Intent string   `json:"intent"`
			Data   hexBytes `json:"data"`
		} `json:"transactions"`
	}
	if err := readJSON(filepath.Join(nuts, "bundles", "lagoon_nut_bundle.json"), &bundle); err != nil {
		return err
	}
	var state map[string]struct {
		Code hexBytes `json:"code"`
	}
	if err := readJSON(filepath.Join(nuts, "state", "lagoon_state.json"), &state); err != nil {
		return err
	}
	for _, contract := range []string{"EAS", "SchemaRegistry"} {
		found := false
		for _, tx := range bundle.Transactions {
			if tx.Intent != "Deploy "+contract+" Implementation" {
				continue
			}
			salt, initCode, err := parseDeploy(tx.Data)
			if err != nil {
				return fmt.Errorf("%s: %w", tx.Intent, err)
			}
			address := "0x" + hex.EncodeToString(keccak([]byte{0xff}, deployer, salt, keccak(initCode))[12:])
			runtime := state[address].Code
			if len(runtime) == 0 {
				return fmt.Errorf("%s: lagoon_state.json has no code at %s", tx.Intent, address)
			}
			abi, err := os.ReadFile(filepath.Join(optimism, "packages", "contracts-bedrock", "snapshots", "abi", contract+".json"))
			if err != nil {
				return err
			}
			data, err := json.Marshal(map[string]any{
				"abi":              json.RawMessage(abi),
				"bytecode":         map[string]any{"object": "0x" + hex.EncodeToString(initCode), "linkReferences": struct{}{}},
				"deployedBytecode": map[string]any{"object": "0x" + hex.EncodeToString(runtime), "linkReferences": struct{}{}},
			})
			if err != nil {
				return err
			}
			dir := filepath.Join(artifacts, contract+".sol")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, contract+".json"), data, 0o644); err != nil {
				return err
			}
			found = true
		}
		if !found {
			return fmt.Errorf("lagoon_nut_bundle.json does not deploy %s", contract)
		}
	}
	return nil
}

// deployer is the deterministic deployment proxy, 0x4e59b44847b379578588920ca78fbf26c0b4956c.
var deployer = []byte{0x4e, 0x59, 0xb4, 0x48, 0x47, 0xb3, 0x79, 0x57, 0x85, 0x88, 0x92, 0x0c, 0xa7, 0x8f, 0xbf, 0x26, 0xc0, 0xb4, 0x95, 0x6c}

// parseDeploy takes a call of ConditionalDeployer.deploy(bytes32 salt, bytes code) apart.
func parseDeploy(data []byte) (salt, code []byte, err error) {
	if len(data) < 4+32+32 {
		return nil, nil, errors.New("call data is too short")
	}
	args := data[4:]
	word := func(at uint64) (uint64, bool) {
		if at > uint64(len(args)) || uint64(len(args))-at < 32 || !bytes.Equal(args[at:at+24], make([]byte, 24)) {
			return 0, false
		}
		return binary.BigEndian.Uint64(args[at+24:]), true
	}
	offset, ok := word(32)
	if !ok {
		return nil, nil, errors.New("call data is malformed")
	}
	length, ok := word(offset)
	if !ok || length > uint64(len(args))-offset-32 {
		return nil, nil, errors.New("call data is malformed")
	}
	return args[:32], args[offset+32 : offset+32+length], nil
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) error {
	decoded, err := hex.DecodeString(strings.TrimPrefix(string(text), "0x"))
	*b = decoded
	return err
}

func readJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return nil
}
