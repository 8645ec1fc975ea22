package genesis

import (
	"math/big"
	"testing"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/beacon"
	"github.com/ethereum/go-ethereum/consensus/ethash"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/core/vm/runtime"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/triedb"
	"github.com/stretchr/testify/require"
)

// The contracts on L1 are configured as asked, and take a deposit that derivation reads.
func TestL1Contracts(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime)
	cfg.Chains[1].GasLimit = 40_000_000
	cfg.CacheDir = sharedCache
	out := build(t, cfg)
	portal, systemConfig, factory := contractABI(t, "OptimismPortal2"), contractABI(t, "SystemConfig"), contractABI(t, "DisputeGameFactory")

	tdb := triedb.NewDatabase(rawdb.NewMemoryDatabase(), nil)
	genesisBlock, err := out.L1.Commit(rawdb.NewMemoryDatabase(), tdb, nil)
	require.NoError(t, err)
	l1, err := state.New(genesisBlock.Root(), state.NewDatabase(tdb, nil))
	require.NoError(t, err)
	view := func(contract *abi.ABI, to common.Address, method string, args ...any) any {
		ret, _, err := runtime.Call(to, pack(t, contract, method, args...), &runtime.Config{
			ChainConfig: out.L1.Config, State: l1, Time: testTime + 12, BlockNumber: big.NewInt(1),
			Difficulty: new(big.Int), BaseFee: new(big.Int), Random: new(common.Hash), GasLimit: 10_000_000,
		})
		require.NoError(t, err, method)
		values, err := contract.Unpack(method, ret)
		require.NoError(t, err, method)
		return values[0]
	}
	keys, err := DevKeys()
	require.NoError(t, err)
	for _, chain := range cfg.Chains {
		at := out.Addresses[chain.ID]
		require.Equal(t, big.NewInt(12), view(portal, at.OptimismPortalProxy, "proofMaturityDelaySeconds"))
		require.Equal(t, big.NewInt(6), view(portal, at.OptimismPortalProxy, "disputeGameFinalityDelaySeconds"))
		require.Equal(t, chain.GasLimit, view(systemConfig, at.SystemConfigProxy, "gasLimit"))
		require.Equal(t, new(big.Int).SetUint64(chain.ID), view(systemConfig, at.SystemConfigProxy, "l2ChainId"))
		signer, err := keys.SequencerP2P(chain.ID)
		require.NoError(t, err)
		require.Equal(t, crypto.PubkeyToAddress(signer.PublicKey), view(systemConfig, at.SystemConfigProxy, "unsafeBlockSigner"))
		owner, err := keys.SystemConfigOwner(chain.ID)
		require.NoError(t, err)
		require.Equal(t, crypto.PubkeyToAddress(owner.PublicKey), view(systemConfig, at.SystemConfigProxy, "owner"))
		gameType := view(portal, at.OptimismPortalProxy, "respectedGameType").(uint32)
		require.NotEqual(t, common.Address{}, view(factory, at.DisputeGameFactoryProxy, "gameImpls", gameType), "game type %d", gameType)
	}

	user, err := keys.User(3)
	require.NoError(t, err)
	to := out.Addresses[901].OptimismPortalProxy
	recipient := common.HexToAddress("0xbeef")
	_, _, receipts := core.GenerateChainWithGenesis(out.L1, beacon.New(ethash.NewFaker()), 1, func(_ int, b *core.BlockGen) {
		tx, err := types.SignNewTx(user, types.LatestSigner(out.L1.Config), &types.DynamicFeeTx{
			ChainID: out.L1.Config.ChainID, GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(100 * params.GWei), Gas: 1_000_000,
			To: &to, Value: big.NewInt(5), Data: pack(t, portal, "depositTransaction", recipient, big.NewInt(5), uint64(100_000), false, []byte{}),
		})
		require.NoError(t, err)
		b.AddTx(tx)
	})
	require.EqualValues(t, 1, receipts[0][0].Status)
	deposits, err := derive.UserDeposits(receipts[0], out.Rollup[901].DepositContractAddress)
	require.NoError(t, err)
	require.Len(t, deposits, 1)
	require.Equal(t, crypto.PubkeyToAddress(user.PublicKey), deposits[0].From)
	require.Equal(t, recipient, *deposits[0].To)
	require.Equal(t, big.NewInt(5), deposits[0].Mint)
}
