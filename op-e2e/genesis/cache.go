package genesis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer/state"
)

// cacheVersion changes when the same config and artifacts give another result: with this package or upstream's version.
const cacheVersion = "1 optimism v1.19.6"

// cachedDeploy is deploy with its result kept in cfg.CacheDir. A file there that cannot be read is made again.
func cachedDeploy(ctx context.Context, cfg *Config) (*state.State, error) {
	if cfg.CacheDir == "" {
		return deploy(ctx, cfg)
	}
	key, err := cacheKey(cfg)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.CacheDir, "deployment-"+key+".json")
	if st, err := readState(file); err == nil {
		return st, nil
	}
	st, err := deploy(ctx, cfg)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("genesis: encode for the cache: %w", err)
	}
	if err := os.MkdirAll(cfg.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("genesis: cache: %w", err)
	}
	if err := writeAtomic(file, data); err != nil {
		return nil, fmt.Errorf("genesis: cache: %w", err)
	}
	return st, nil
}

func readState(file string) (*state.State, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var st state.State
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, err
	}
	if st.AppliedIntent == nil || st.L1StateDump == nil || st.L1StateDump.Data == nil || len(st.Chains) == 0 {
		return nil, fmt.Errorf("%s is not a finished deployment", file)
	}
	return &st, nil
}

// cacheKey is a hash over all that deploy's result depends on.
func cacheKey(cfg *Config) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, cacheVersion)
	chains := slices.Clone(cfg.Chains)
	for i := range chains {
		chains[i].GasLimit = chains[i].gasLimit()
	}
	if err := json.NewEncoder(h).Encode([]any{
		cfg.l1ChainID(), chains, cfg.ProofMaturityDelay, cfg.FinalityDelay, cfg.SequencerWindow,
	}); err != nil {
		return "", err
	}
	fsys := os.DirFS(cfg.Artifacts)
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(fsys, name)
		fmt.Fprintf(h, "%s %d\n", name, len(content))
		h.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("genesis: read contract artifacts: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

// writeAtomic writes a file that is either absent or whole, whoever else writes it at the same time.
func writeAtomic(file string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
