package genesis

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
)

// Names of the files that Write makes. They are what geth init, op-node's --rollup.config and op-supernode's and
// op-node's dependency set flags read.
const (
	L1File     = "l1-genesis.json"
	DepSetFile = "depset.json"
	infoFile   = "deployment.json"
)

// L2File is the name of a chain's L2 genesis.
func L2File(chain uint64) string { return fmt.Sprintf("l2-genesis-%d.json", chain) }

// RollupFile is the name of a chain's rollup config.
func RollupFile(chain uint64) string { return fmt.Sprintf("rollup-%d.json", chain) }

// info is what deployment.json holds: what has no file of its own.
type info struct {
	TestToken common.Address       `json:"testToken"`
	Addresses map[uint64]Addresses `json:"addresses"` // its keys are the chains
}

// Write makes dir with one file per part. dir must not exist: chains that started from another genesis would be lost. A
// crash leaves no dir, never half of one.
func (o *Output) Write(dir string) error {
	dir = filepath.Clean(dir)
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("genesis: %s exists already", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".*")
	if err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	defer os.RemoveAll(tmp)
	files := map[string]any{
		L1File:     o.L1,
		DepSetFile: o.DepSet,
		infoFile:   info{TestToken: o.TestToken, Addresses: o.Addresses},
	}
	for id := range o.L2 {
		files[L2File(id)], files[RollupFile(id)] = o.L2[id], o.Rollup[id]
	}
	for name, v := range files {
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("genesis: encode %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(tmp, name), append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("genesis: %w", err)
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return nil
}

// Load reads what Write made and checks that the parts still belong together. When there is nothing, errors.Is(err,
// fs.ErrNotExist).
func Load(dir string) (*Output, error) {
	var i info
	if err := readFile(dir, infoFile, &i); err != nil {
		return nil, err
	}
	o := &Output{
		L2:        make(map[uint64]*core.Genesis),
		Rollup:    make(map[uint64]*rollup.Config),
		TestToken: i.TestToken,
		Addresses: i.Addresses,
	}
	if err := readFile(dir, L1File, &o.L1); err != nil {
		return nil, err
	}
	set := new(depset.StaticConfigDependencySet)
	if err := readFile(dir, DepSetFile, set); err != nil {
		return nil, err
	}
	o.DepSet = set
	for id := range i.Addresses {
		l2, rollupCfg := new(core.Genesis), new(rollup.Config)
		if err := errors.Join(readFile(dir, L2File(id), l2), readFile(dir, RollupFile(id), rollupCfg)); err != nil {
			return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		o.L2[id], o.Rollup[id] = l2, rollupCfg
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return o, nil
}

func readFile(dir, name string, v any) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("genesis: %s: %w", filepath.Join(dir, name), err)
	}
	return nil
}
