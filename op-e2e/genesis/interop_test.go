package genesis

import (
	"crypto/ecdsa"
	"math/big"
	"testing"

	opgenesis "github.com/ethereum-optimism/optimism/op-chain-ops/genesis"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/consensus/beacon"
	"github.com/ethereum/go-ethereum/consensus/ethash"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/core/vm/runtime"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/triedb"
	"github.com/stretchr/testify/require"
)

// testChain executes one block on a chain's genesis, in op-geth's EVM under the chain's rules.
type testChain struct {
	t     *testing.T
	id    uint64
	out   *Output
	user  *ecdsa.PrivateKey
	block *types.Block
	db    ethdb.Database
}

// execute makes block 1 of the L1 info deposit and the user's calls, and returns the calls' receipts.
func (c *testChain) execute(calls ...testCall) types.Receipts {
	g, rollupCfg := c.out.L2[c.id], c.out.Rollup[c.id]
	db, blocks, receipts := core.GenerateChainWithGenesis(g, beacon.New(ethash.NewFaker()), 1, func(_ int, b *core.BlockGen) {
		b.SetExtra(g.ExtraData)
		info, err := derive.L1InfoDepositBytes(rollupCfg, c.out.L1.Config, rollupCfg.Genesis.SystemConfig, 1,
			eth.HeaderBlockInfo(c.out.L1.ToBlock().Header()), b.Timestamp())
		require.NoError(c.t, err)
		var deposit types.Transaction
		require.NoError(c.t, deposit.UnmarshalBinary(info))
		b.AddTx(&deposit)
		for i, call := range calls {
			tx, err := types.SignNewTx(c.user, types.LatestSigner(g.Config), &types.DynamicFeeTx{
				ChainID: g.Config.ChainID, Nonce: uint64(i), GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(100 * params.GWei),
				Gas: 1_000_000, To: &call.to, Value: call.value, Data: call.data, AccessList: call.access,
			})
			require.NoError(c.t, err)
			b.AddTx(tx)
		}
	})
	c.db, c.block = db, blocks[0]
	require.EqualValues(c.t, 1, receipts[0][0].Status, "L1 info deposit")
	return receipts[0][1:]
}

type testCall struct {
	to     common.Address
	value  *big.Int
	data   []byte
	access types.AccessList
}

func (c *testChain) state() *state.StateDB {
	st, err := state.New(c.block.Root(), state.NewDatabase(triedb.NewDatabase(c.db, triedb.HashDefaults), nil))
	require.NoError(c.t, err)
	return st
}

// number calls a view function that returns one uint256, after the block.
func (c *testChain) number(contract *abi.ABI, to common.Address, method string, args ...any) uint64 {
	ret, _, err := runtime.Call(to, pack(c.t, contract, method, args...), &runtime.Config{
		ChainConfig: c.out.L2[c.id].Config, State: c.state(), Time: c.block.Time(), BlockNumber: c.block.Number(),
		Difficulty: new(big.Int), BaseFee: new(big.Int), Random: new(common.Hash), GasLimit: 10_000_000,
	})
	require.NoError(c.t, err)
	return new(big.Int).SetBytes(ret).Uint64()
}

// relay makes the call that relays a SentMessage log of this chain's block on another chain.
func (c *testChain) relay(messenger *abi.ABI, log *types.Log, declared bool) testCall {
	payload := messages.LogToMessagePayload(log)
	type identifier struct {
		Origin                                    common.Address
		BlockNumber, LogIndex, Timestamp, ChainId *big.Int
	}
	call := testCall{
		to: predeploys.L2toL2CrossDomainMessengerAddr,
		data: pack(c.t, messenger, "relayMessage", identifier{
			Origin: log.Address, BlockNumber: c.block.Number(), LogIndex: new(big.Int).SetUint64(uint64(log.Index)),
			Timestamp: new(big.Int).SetUint64(c.block.Time()), ChainId: new(big.Int).SetUint64(c.id),
		}, payload),
	}
	if declared {
		access := messages.ChecksumArgs{
			BlockNumber: c.block.NumberU64(), LogIndex: uint32(log.Index), Timestamp: c.block.Time(),
			ChainID: eth.ChainIDFromUInt64(c.id), LogHash: messages.PayloadHashToLogHash(crypto.Keccak256Hash(payload), log.Address),
		}.Access()
		call.access = types.AccessList{{
			Address: predeploys.CrossL2InboxAddr, StorageKeys: messages.EncodeAccessList([]messages.Access{access}),
		}}
	}
	return call
}

func pack(t *testing.T, contract *abi.ABI, method string, args ...any) []byte {
	data, err := contract.Pack(method, args...)
	require.NoError(t, err)
	return data
}

func find(logs []*types.Log, address common.Address, event abi.Event) *types.Log {
	for _, l := range logs {
		if l.Address == address && l.Topics[0] == event.ID {
			return l
		}
	}
	return nil
}

func contractABI(t *testing.T, name string) *abi.ABI {
	a, err := readArtifact(testArtifacts(t), name)
	require.NoError(t, err)
	return &a.ABI
}

// A token and ETH leave 901 and arrive on 902, through the genesis's contracts.
func TestInteropContracts(t *testing.T) {
	t.Parallel()
	cfg := DevConfig(testArtifacts(t), testTime)
	cfg.CacheDir = sharedCache
	out := build(t, cfg)
	keys, err := DevKeys()
	require.NoError(t, err)
	user, err := keys.User(0)
	require.NoError(t, err)
	sender := crypto.PubkeyToAddress(user.PublicKey)
	recipient := common.HexToAddress("0xbeef00000000000000000000000000000000beef")
	token, bridge := contractABI(t, "InteropTestToken"), contractABI(t, "SuperchainTokenBridge")
	messenger, inbox := contractABI(t, "L2ToL2CrossDomainMessenger"), contractABI(t, "CrossL2Inbox")
	ethBridge := contractABI(t, "SuperchainETHBridge")

	from := &testChain{t: t, id: 901, out: out, user: user}
	receipts := from.execute(
		testCall{to: out.TestToken, data: pack(t, token, "mint", sender, big.NewInt(1000))},
		testCall{to: SuperchainTokenBridgeAddr, data: pack(t, bridge, "sendERC20", out.TestToken, recipient, big.NewInt(300), big.NewInt(902))},
		testCall{to: predeploys.SuperchainETHBridgeAddr, value: big.NewInt(77), data: pack(t, ethBridge, "sendETH", recipient, big.NewInt(902))},
		// What only the bridge or the messenger may do, and more than the balance.
		testCall{to: out.TestToken, data: pack(t, token, "crosschainMint", sender, big.NewInt(1))},
		testCall{to: out.TestToken, data: pack(t, token, "crosschainBurn", sender, big.NewInt(1))},
		testCall{to: SuperchainTokenBridgeAddr, data: pack(t, bridge, "relayERC20", out.TestToken, sender, sender, big.NewInt(1))},
		testCall{to: SuperchainTokenBridgeAddr, data: pack(t, bridge, "sendERC20", out.TestToken, recipient, big.NewInt(701), big.NewInt(902))},
	)
	for i, want := range []uint64{1, 1, 1, 0, 0, 0, 0} {
		require.Equal(t, want, receipts[i].Status, "call %d on 901", i)
	}
	require.EqualValues(t, 700, from.number(token, out.TestToken, "balanceOf", sender))
	require.EqualValues(t, 700, from.number(token, out.TestToken, "totalSupply"), "300 burned")
	require.NotNil(t, find(receipts[1].Logs, out.TestToken, token.Events["CrosschainBurn"]))
	require.NotNil(t, find(receipts[1].Logs, SuperchainTokenBridgeAddr, bridge.Events["SendERC20"]))
	sentToken := find(receipts[1].Logs, predeploys.L2toL2CrossDomainMessengerAddr, messenger.Events["SentMessage"])
	require.NotNil(t, sentToken)
	sentETH := find(receipts[2].Logs, predeploys.L2toL2CrossDomainMessengerAddr, messenger.Events["SentMessage"])
	require.NotNil(t, sentETH)

	to := &testChain{t: t, id: 902, out: out, user: user}
	receipts = to.execute(
		from.relay(messenger, sentToken, false), // not in the access list
		from.relay(messenger, sentToken, true),
		from.relay(messenger, sentToken, true), // again
		from.relay(messenger, sentETH, true),
	)
	for i, want := range []uint64{0, 1, 0, 1} {
		require.Equal(t, want, receipts[i].Status, "call %d on 902", i)
	}
	require.Equal(t, from.block.Time(), to.block.Time(), "sent and relayed in one slot")
	require.NotNil(t, find(receipts[1].Logs, predeploys.CrossL2InboxAddr, inbox.Events["ExecutingMessage"]))
	require.NotNil(t, find(receipts[1].Logs, SuperchainTokenBridgeAddr, bridge.Events["RelayERC20"]))
	require.NotNil(t, find(receipts[1].Logs, out.TestToken, token.Events["CrosschainMint"]))
	require.EqualValues(t, 300, to.number(token, out.TestToken, "balanceOf", recipient))
	require.EqualValues(t, 300, to.number(token, out.TestToken, "totalSupply"))
	require.EqualValues(t, 77, to.state().GetBalance(recipient).Uint64())
}

// Upstream's genesis has no SuperchainTokenBridge. When it gets one again, or the predeploy's proxy changes, install must
// say so and not write over it.
func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	e, err := readExtras(testArtifacts(t))
	require.NoError(t, err)
	st, err := cachedDeploy(t.Context(), &Config{Artifacts: testArtifacts(t), Timestamp: testTime, CacheDir: sharedCache,
		Chains: []ChainConfig{{ID: 901, BlockTime: 1}, {ID: 902, BlockTime: 1}}})
	require.NoError(t, err)
	alloc := st.Chains[0].Allocs.Data.Accounts
	require.ErrorContains(t, e.install(alloc), "SuperchainTokenBridge of its own", "it is installed already")

	proxy := alloc[SuperchainTokenBridgeAddr]
	delete(alloc, SuperchainTokenBridgeAddr)
	require.ErrorContains(t, e.install(alloc), "not a predeploy proxy")
	for slot := range proxy.Storage {
		if slot != opgenesis.AdminSlot {
			delete(proxy.Storage, slot)
		}
	}
	alloc[SuperchainTokenBridgeAddr] = proxy
	require.ErrorContains(t, e.install(alloc), "is in use")
	delete(alloc, tokenBridgeImpl)
	require.ErrorContains(t, e.install(alloc), e.tokenAddr.String())
	delete(alloc, e.tokenAddr)
	require.NoError(t, e.install(alloc))
}
