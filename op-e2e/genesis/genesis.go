package genesis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ethereum-optimism/optimism/op-chain-ops/addresses"
	opgenesis "github.com/ethereum-optimism/optimism/op-chain-ops/genesis"
	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer/inspect"
	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer/state"
	"github.com/ethereum-optimism/optimism/op-node/rollup"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
)

// Output is a complete starting point. Maps are by chain ID and have the same keys.
type Output struct {
	L1        *core.Genesis
	L2        map[uint64]*core.Genesis
	Rollup    map[uint64]*rollup.Config
	DepSet    *depset.StaticConfigDependencySet
	Addresses map[uint64]Addresses // contracts on L1
	TestToken common.Address       // ERC-7802 token, on every L2; mint(address,uint256) is open to all
}

// Addresses are the L1 contracts of one chain: SystemConfigProxy, OptimismPortalProxy, DisputeGameFactoryProxy,
// AnchorStateRegistryProxy, L1StandardBridgeProxy, L1CrossDomainMessengerProxy and others.
type Addresses = addresses.OpChainContracts

// Build makes the genesis of an L1 and its chains. It takes seconds, or a fraction of one when cfg.CacheDir has what it
// needs. The context is honored only between steps.
func Build(ctx context.Context, cfg Config) (*Output, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	// The order is an input of the deployment, but not of the config's meaning.
	cfg.Chains = slices.SortedFunc(slices.Values(cfg.Chains), func(a, b ChainConfig) int { return cmp.Compare(a.ID, b.ID) })
	st, err := cachedDeploy(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return render(&cfg, st)
}

// render puts the states into blocks at cfg.Timestamp. It writes to st.
func render(cfg *Config, st *state.State) (*Output, error) {
	out := &Output{
		L2:        make(map[uint64]*core.Genesis),
		Rollup:    make(map[uint64]*rollup.Config),
		Addresses: make(map[uint64]Addresses),
	}
	var err error
	if out.L1, err = sealL1(cfg, st); err != nil {
		return nil, err
	}
	start := state.BlockRefJsonFromHeader(out.L1.ToBlock().Header())
	for _, chain := range st.Chains {
		id := chain.ID.Big().Uint64()
		chain.StartBlock = start
		if out.L2[id], out.Rollup[id], err = inspect.GenesisAndRollup(st, chain.ID); err != nil {
			return nil, fmt.Errorf("genesis: chain %d: %w", id, err)
		}
		out.Addresses[id] = chain.OpChainContracts
	}
	if out.DepSet, err = dependencySet(cfg); err != nil {
		return nil, err
	}
	extras, err := readExtras(cfg.Artifacts)
	if err != nil {
		return nil, err
	}
	out.TestToken = extras.tokenAddr
	return out, nil
}

// sealL1 is the pipeline's last L1 stage (SealL1DevGenesis) for another timestamp.
func sealL1(cfg *Config, st *state.State) (*core.Genesis, error) {
	g, err := opgenesis.NewL1GenesisMinimal(&opgenesis.DevL1DeployConfigMinimal{
		DevL1DeployConfig: opgenesis.DevL1DeployConfig{
			L1GenesisBlockTimestamp:     hexutil.Uint64(cfg.Timestamp),
			L1GenesisBlockGasLimit:      DefaultGasLimit,
			L1GenesisBlockExcessBlobGas: new(hexutil.Uint64),
		},
		L1ChainID:          eth.ChainIDFromUInt64(cfg.l1ChainID()),
		L1PragueTimeOffset: new(uint64),
		BlobScheduleConfig: l1BlobSchedule(),
	})
	if err != nil {
		return nil, fmt.Errorf("genesis: L1: %w", err)
	}
	g.Alloc = st.L1StateDump.Data.Accounts
	return g, nil
}

func dependencySet(cfg *Config) (*depset.StaticConfigDependencySet, error) {
	chains := make(map[eth.ChainID]*depset.StaticConfigDependency)
	for _, chain := range cfg.Chains {
		chains[eth.ChainIDFromUInt64(chain.ID)] = new(depset.StaticConfigDependency)
	}
	var set *depset.StaticConfigDependencySet
	var err error
	if cfg.MessageExpiry != 0 {
		set, err = depset.NewStaticConfigDependencySetWithMessageExpiryOverride(chains, cfg.MessageExpiry)
	} else {
		set, err = depset.NewStaticConfigDependencySet(chains)
	}
	if err != nil {
		return nil, fmt.Errorf("genesis: dependency set: %w", err)
	}
	return set, nil
}

// check holds the parts against each other: hashes, chain IDs, one dependency set.
func (o *Output) check() error {
	if o.L1 == nil || o.L1.Config == nil {
		return errors.New("genesis: L1 genesis is empty")
	}
	l1 := o.L1.ToBlock()
	if len(o.L2) == 0 || len(o.L2) != len(o.Rollup) || len(o.L2) != len(o.Addresses) || len(o.L2) != len(o.DepSet.Chains()) {
		return fmt.Errorf("genesis: %d L2 genesis, %d rollup configs, %d sets of addresses, %d chains in the dependency set: they must be of the same chains",
			len(o.L2), len(o.Rollup), len(o.Addresses), len(o.DepSet.Chains()))
	}
	for id, l2 := range o.L2 {
		rollupCfg, ok := o.Rollup[id]
		if !ok || !o.DepSet.HasChain(eth.ChainIDFromUInt64(id)) {
			return fmt.Errorf("genesis: chain %d has no rollup config or is not in the dependency set", id)
		}
		if _, ok := o.Addresses[id]; !ok {
			return fmt.Errorf("genesis: chain %d has no addresses", id)
		}
		if err := rollupCfg.Check(); err != nil {
			return fmt.Errorf("genesis: chain %d: rollup config: %w", id, err)
		}
		if l2.Config == nil || l2.Config.ChainID == nil {
			return fmt.Errorf("genesis: chain %d: L2 genesis is empty", id)
		}
		if l2.Config.ChainID.Uint64() != id || rollupCfg.L2ChainID.Uint64() != id || rollupCfg.L1ChainID.Cmp(o.L1.Config.ChainID) != 0 {
			return fmt.Errorf("genesis: chain %d: genesis or rollup config is of another chain or L1", id)
		}
		if got := l2.ToBlock().Hash(); got != rollupCfg.Genesis.L2.Hash {
			return fmt.Errorf("genesis: chain %d: genesis block is %s, rollup config says %s", id, got, rollupCfg.Genesis.L2.Hash)
		}
		if got := l1.Hash(); got != rollupCfg.Genesis.L1.Hash {
			return fmt.Errorf("genesis: chain %d: L1 genesis block is %s, rollup config says %s", id, got, rollupCfg.Genesis.L1.Hash)
		}
	}
	return nil
}
