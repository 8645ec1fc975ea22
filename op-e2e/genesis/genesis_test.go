package genesis

import (
	"context"
	"encoding/json"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	opgenesis "github.com/ethereum-optimism/optimism/op-chain-ops/genesis"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer/inspect"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"
)

const testTime = 1_795_340_000

func testArtifacts(t testing.TB) string {
	t.Helper()
	dir, err := FindArtifacts(".")
	require.NoError(t, err, "run `make contracts`")
	return dir
}

// sharedCache is one cache for all tests of a run.
var sharedCache string // set before any test runs

func TestMain(m *testing.M) {
	var err error
	if sharedCache, err = os.MkdirTemp("", "genesis-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(sharedCache)
	os.Exit(code)
}

func build(t testing.TB, cfg Config) *Output {
	t.Helper()
	start := time.Now()
	out, err := Build(context.Background(), cfg)
	require.NoError(t, err)
	require.NoError(t, out.check())
	t.Logf("%d chains, cache %t: %s", len(cfg.Chains), cfg.CacheDir != "", time.Since(start).Round(time.Millisecond))
	return out
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return string(data)
}

// requireEqual compares without printing megabytes.
func requireEqual(t testing.TB, want, got *Output) {
	t.Helper()
	require.True(t, encoded(t, want) == encoded(t, got), "outputs differ")
	require.Equal(t, want.L1.ToBlock().Hash(), got.L1.ToBlock().Hash())
	for id, l2 := range want.L2 {
		require.Equal(t, l2.ToBlock().Hash(), got.L2[id].ToBlock().Hash())
	}
}

func TestReproducible(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime)
	first := build(t, cfg)
	cfg.Chains[0], cfg.Chains[1] = cfg.Chains[1], cfg.Chains[0]
	requireEqual(t, first, build(t, cfg))
}

// A deployment from the cache, made for another time, must give what a whole pipeline run at that time gives: every field,
// computed by upstream's code on the pipeline's own state.
func TestOtherTimestampEqualsPipeline(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime+12345)
	st, err := deploy(context.Background(), &cfg)
	require.NoError(t, err)
	l1 := *st.L1DevGenesis
	l1.StateHash = nil
	l1.Alloc = st.L1StateDump.Data.Accounts
	want := &Output{L1: &l1, L2: map[uint64]*core.Genesis{}, DepSet: st.InteropDepSet}

	cached := DevConfig(cfg.Artifacts, testTime)
	cached.CacheDir = sharedCache
	build(t, cached)
	cached.Timestamp = cfg.Timestamp
	got := build(t, cached)

	require.Equal(t, encoded(t, want.L1), encoded(t, got.L1))
	require.Equal(t, encoded(t, want.DepSet), encoded(t, got.DepSet))
	for _, chain := range st.Chains {
		id := chain.ID.Big().Uint64()
		require.Equal(t, st.L1DevGenesis.ToBlock().Hash(), chain.StartBlock.Hash, "the pipeline's own start block")
		l2, rollupCfg, err := inspect.GenesisAndRollup(st, chain.ID)
		require.NoError(t, err)
		require.True(t, encoded(t, l2) == encoded(t, got.L2[id]), "L2 genesis differs")
		require.Equal(t, encoded(t, rollupCfg), encoded(t, got.Rollup[id]))
		require.Equal(t, chain.OpChainContracts, got.Addresses[id])
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime)
	without := build(t, cfg)
	cfg.CacheDir = filepath.Join(t.TempDir(), "made", "by", "build")
	requireEqual(t, without, build(t, cfg))
	requireEqual(t, without, build(t, cfg))
	files, err := filepath.Glob(filepath.Join(cfg.CacheDir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1, "one deployment, no temporary files")

	// A cut file is as good as none.
	require.NoError(t, os.Truncate(files[0], 1000))
	requireEqual(t, without, build(t, cfg))

	key := func(change func(*Config)) string {
		other := cfg
		other.Chains = append([]ChainConfig(nil), cfg.Chains...)
		change(&other)
		k, err := cacheKey(&other)
		require.NoError(t, err)
		return k
	}
	same := key(func(*Config) {})
	require.Equal(t, same, key(func(c *Config) { c.Timestamp++; c.MessageExpiry = 5 }), "these are not part of a deployment")
	require.Equal(t, same, key(func(c *Config) { c.L1ChainID = 0; c.Chains[0].GasLimit = 0 }), "defaults by name or by zero")
	edited := filepath.Join(t.TempDir(), "artifacts")
	require.NoError(t, os.CopyFS(edited, os.DirFS(cfg.Artifacts)))
	require.Equal(t, same, key(func(c *Config) { c.Artifacts = edited }), "content counts, not the place")
	require.NoError(t, os.WriteFile(filepath.Join(edited, "Proxy.sol", "Proxy.json"), []byte("{}"), 0o644))
	for name, change := range map[string]func(*Config){
		"artifacts":        func(c *Config) { c.Artifacts = edited },
		"L1 chain":         func(c *Config) { c.L1ChainID = 5 },
		"chain":            func(c *Config) { c.Chains[1].ID = 903 },
		"block time":       func(c *Config) { c.Chains[1].BlockTime = 2 },
		"gas limit":        func(c *Config) { c.Chains[1].GasLimit = 30e6 },
		"proof maturity":   func(c *Config) { c.ProofMaturityDelay = 1 },
		"finality":         func(c *Config) { c.FinalityDelay = 1 },
		"sequencer window": func(c *Config) { c.SequencerWindow = 1 },
	} {
		require.NotEqual(t, same, key(change), name)
	}
}

func TestContents(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime, 901, 902, 1234567)
	cfg.Chains[2] = ChainConfig{ID: 1234567, BlockTime: 2, GasLimit: 40_000_000}
	cfg.SequencerWindow = 77
	cfg.MessageExpiry = 600
	cfg.CacheDir = sharedCache
	out := build(t, cfg)

	l1 := out.L1.ToBlock()
	require.EqualValues(t, testTime, l1.Time())
	require.EqualValues(t, DefaultL1ChainID, out.L1.Config.ChainID.Uint64())
	require.Nil(t, out.L1.Config.OsakaTime)
	require.EqualValues(t, 600, out.DepSet.MessageExpiryWindow())
	require.Len(t, out.DepSet.Chains(), 3)

	keys, err := DevKeys()
	require.NoError(t, err)
	address := func(i int) common.Address {
		key, err := keys.User(i)
		require.NoError(t, err)
		return crypto.PubkeyToAddress(key.PublicKey)
	}
	require.Equal(t, common.HexToAddress("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"), address(0), "what wallets show")
	relayer, err := keys.Relayer()
	require.NoError(t, err)
	hundred := new(big.Int).Mul(big.NewInt(100), big.NewInt(params.Ether))
	funded := []common.Address{crypto.PubkeyToAddress(relayer.PublicKey)}
	for i := range Users {
		funded = append(funded, address(i))
	}

	for _, chain := range cfg.Chains {
		l2, rollupCfg := out.L2[chain.ID], out.Rollup[chain.ID]
		block := l2.ToBlock()
		require.NoError(t, rollupCfg.Check())
		require.Equal(t, eth.BlockID{Hash: block.Hash()}, rollupCfg.Genesis.L2)
		require.Equal(t, eth.BlockID{Hash: l1.Hash()}, rollupCfg.Genesis.L1)
		require.EqualValues(t, testTime, rollupCfg.Genesis.L2Time)
		require.EqualValues(t, testTime, block.Time())
		require.Equal(t, chain.BlockTime, rollupCfg.BlockTime)
		require.Equal(t, chain.GasLimit, rollupCfg.Genesis.SystemConfig.GasLimit)
		require.Equal(t, chain.GasLimit, block.GasLimit())
		require.EqualValues(t, 77, rollupCfg.SeqWindowSize)
		require.True(t, rollupCfg.IsInterop(testTime), "interop from genesis")
		require.Nil(t, l2.Config.OsakaTime, "Karst's rules come from the patch queue, not from Osaka")

		// The rollup config names the roles that the keys are of.
		batcher, err := keys.Batcher(chain.ID)
		require.NoError(t, err)
		require.Equal(t, crypto.PubkeyToAddress(batcher.PublicKey), rollupCfg.Genesis.SystemConfig.BatcherAddr)
		require.Equal(t, out.Addresses[chain.ID].SystemConfigProxy, rollupCfg.L1SystemConfigAddress)
		require.Equal(t, out.Addresses[chain.ID].OptimismPortalProxy, rollupCfg.DepositContractAddress)
		for _, addr := range []common.Address{
			out.Addresses[chain.ID].SystemConfigProxy, out.Addresses[chain.ID].OptimismPortalProxy,
			out.Addresses[chain.ID].DisputeGameFactoryProxy, out.Addresses[chain.ID].L1StandardBridgeProxy,
			out.Addresses[chain.ID].L1CrossDomainMessengerProxy, out.Addresses[chain.ID].AnchorStateRegistryProxy,
		} {
			require.NotEmpty(t, out.L1.Alloc[addr].Code, addr)
		}

		for name, addr := range map[string]common.Address{
			"CrossL2Inbox":               predeploys.CrossL2InboxAddr,
			"L2ToL2CrossDomainMessenger": predeploys.L2toL2CrossDomainMessengerAddr,
			"SuperchainETHBridge":        predeploys.SuperchainETHBridgeAddr,
			"ETHLiquidity":               predeploys.ETHLiquidityAddr,
			"SuperchainTokenBridge":      SuperchainTokenBridgeAddr,
		} {
			proxy := l2.Alloc[addr]
			require.NotEmpty(t, proxy.Code, name)
			require.Equal(t, predeploys.ProxyAdminAddr, common.BytesToAddress(proxy.Storage[opgenesis.AdminSlot].Bytes()), name)
			impl := common.BytesToAddress(proxy.Storage[opgenesis.ImplementationSlot].Bytes())
			require.NotEmpty(t, l2.Alloc[impl].Code, name)
			require.Equal(t, predeploys.ProxyAdminAddr, common.BytesToAddress(l2.Alloc[impl].Storage[opgenesis.AdminSlot].Bytes()), name)
		}
		require.NotEmpty(t, l2.Alloc[out.TestToken].Code)
		for _, addr := range funded {
			require.GreaterOrEqual(t, l2.Alloc[addr].Balance.Cmp(hundred), 0, "L2 balance of %s", addr)
			require.GreaterOrEqual(t, out.L1.Alloc[addr].Balance.Cmp(hundred), 0, "L1 balance of %s", addr)
		}
		require.GreaterOrEqual(t, out.L1.Alloc[crypto.PubkeyToAddress(batcher.PublicKey)].Balance.Cmp(hundred), 0)
	}
}

func TestWriteLoad(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime)
	cfg.CacheDir = sharedCache
	cfg.MessageExpiry = 60
	out := build(t, cfg)
	dir := filepath.Join(t.TempDir(), "new", "genesis")
	_, err := Load(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, out.Write(dir))
	start := time.Now()
	loaded, err := Load(dir)
	require.NoError(t, err)
	t.Logf("load: %s", time.Since(start).Round(time.Millisecond))
	requireEqual(t, out, loaded)
	require.EqualValues(t, 60, loaded.DepSet.MessageExpiryWindow())
	require.ErrorContains(t, out.Write(dir), "exists already")
	entries, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary directory is left")

	for name, tc := range map[string]struct {
		damage func(dir string) error
		err    string
	}{
		"missing file": {func(dir string) error { return os.Remove(filepath.Join(dir, RollupFile(902))) }, RollupFile(902)},
		"cut file":     {func(dir string) error { return os.Truncate(filepath.Join(dir, L2File(901)), 5000) }, L2File(901)},
		"empty L1":     {func(dir string) error { return os.WriteFile(filepath.Join(dir, L1File), []byte("null"), 0o644) }, "L1 genesis"},
		"mixed up": {func(dir string) error {
			return os.Rename(filepath.Join(dir, L2File(901)), filepath.Join(dir, L2File(902)))
		}, L2File(901)},
		"other chain's": {func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, L2File(901)))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, L2File(902)), data, 0o644)
		}, "chain 902"},
		"other L1": {func(dir string) error {
			other := *out.L1
			other.Timestamp++
			data, err := json.Marshal(&other)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, L1File), data, 0o644)
		}, "L1 genesis block is"},
	} {
		dir := filepath.Join(t.TempDir(), "genesis")
		require.NoError(t, out.Write(dir), name)
		require.NoError(t, tc.damage(dir), name)
		_, err := Load(dir)
		require.ErrorContains(t, err, tc.err, name)
		require.NotContains(t, err.Error(), "\n", name)
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*Config)
		err    string
	}{
		"no artifacts":       {func(c *Config) { c.Artifacts = "" }, "make contracts"},
		"missing artifacts":  {func(c *Config) { c.Artifacts = filepath.Join(c.Artifacts, "none") }, "make contracts"},
		"empty artifacts":    {func(c *Config) { c.Artifacts = t.TempDir() }, "make contracts"},
		"no timestamp":       {func(c *Config) { c.Timestamp = 0 }, "timestamp"},
		"no chains":          {func(c *Config) { c.Chains = nil }, "no chains"},
		"chain ID 0":         {func(c *Config) { c.Chains[1].ID = 0 }, "chain ID 0"},
		"chain ID too large": {func(c *Config) { c.Chains[1].ID = 1 << 31 }, "chain ID 2147483648"},
		"L1 ID too large":    {func(c *Config) { c.L1ChainID = 1 << 31 }, "L1 chain ID"},
		"same ID":            {func(c *Config) { c.Chains[1].ID = 901 }, "chain 901 is given twice"},
		"ID of L1":           {func(c *Config) { c.Chains[1].ID = DefaultL1ChainID; c.L1ChainID = 0 }, "chain ID of L1"},
		"block time 0":       {func(c *Config) { c.Chains[1].BlockTime = 0 }, "chain 902 has block time 0"},
	} {
		cfg := DevConfig(testArtifacts(t), testTime)
		tc.change(&cfg)
		_, err := Build(context.Background(), cfg)
		require.ErrorContains(t, err, tc.err, name)
		require.NotContains(t, err.Error(), "\n", name)
	}
	_, err := FindArtifacts(t.TempDir())
	require.ErrorContains(t, err, "no go.mod")
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "go.mod"), nil, 0o644))
	_, err = FindArtifacts(root)
	require.ErrorContains(t, err, "make contracts")
}

// The cache must not outlive a change of upstream's version.
func TestCacheVersion(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	require.NoError(t, err)
	_, upstream, _ := strings.Cut(cacheVersion, " ")
	require.Contains(t, string(mod), "github.com/ethereum-optimism/"+upstream+"\n", "set cacheVersion to the version in go.mod")
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	cfg := DevConfig(testArtifacts(t), testTime)
	cfg.CacheDir = sharedCache
	_, err := Build(ctx, cfg)
	require.ErrorIs(t, err, context.Canceled)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	keys, err := DevKeys()
	require.NoError(t, err)
	seen := map[common.Address]bool{}
	add := func(i int) {
		key, err := keys.User(i)
		require.NoError(t, err)
		addr := crypto.PubkeyToAddress(key.PublicKey)
		require.False(t, seen[addr])
		seen[addr] = true
	}
	for i := range Users {
		add(i)
	}
	_, err = keys.User(Users)
	require.ErrorContains(t, err, "no user 10")
	_, err = keys.User(-1)
	require.Error(t, err)
	_, err = keys.Batcher(1 << 40)
	require.Error(t, err)
}
