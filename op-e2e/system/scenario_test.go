// Package system tests the whole system as its users and operators meet it: a real L1,
// real contracts and engines, op-node with the shared sequencer, batchers, a proposer,
// and op-supernode's verification. Nothing on the path is a mock.
//
// What is promised, and where it is tested:
//
//	slots in lockstep under load, bundles whole or not at all     TestShared/lockstep
//	super roots served, safe heads keep up                        TestShared/super_root
//	a price gap over two rollups is captured whole or not at all   TestShared/arbitrage
//	forged messages never get into a block, senders are told why  TestShared/forged_messages
//	a stranger to our block building derives the same blocks      TestShared/independent_verifier
//	a replica follows the gossiped unsafe heads                   TestShared/gossip_replica
//	an L1 reorg takes all chains back together                    TestL1Reorg
//	a bad block is replaced, lockstep resumes                     TestInvalidatedBlock
//	a restart goes on where it was                                TestRestart
//	SIGKILL at any moment loses nothing that was announced        TestKill
//	an engine's restart does not stop the slots                   TestEngineRestart
//	operators agree; a lying, stopped or cut-off one costs no slot TestOperators
//	op-shared-sequencer shows, sends and drills                   TestOperators/command_line
//	an operator joins, from genesis or from a snapshot            TestJoin
//	an operator changes its keys, as docs/operations.md says      TestOperatorKeys
//	agreed subblocks are told at once: pending, subscriptions,    TestConfirmations
//	    the Subblocks stream; plain messages are relayed in-slot
//	executing messages through pools, chains of 1 s and of 2 s    TestInterop
//
// Leaders that are killed while users send are op-e2e/drill's.
//
// The logs of all services are in build/system, by test.
package system

import (
	"context"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

const (
	chainA = 901
	chainB = 902
)

// patience bounds a test, so that a system that stands still fails it.
const patience = 10 * time.Minute

// root is the repository.
var root = sync.OnceValue(func() string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	// L1's fake proof of stake and some of geth log to the default logger.
	log.SetDefault(log.NewLogger(log.DiscardHandler()))
	os.Exit(m.Run())
}

// scenario is one devnet and what is done with it. Its methods fail the test.
type scenario struct {
	t   *testing.T
	ctx context.Context
	*devnet.Devnet
}

// logger writes to a file of the test, which stays when the test has ended.
func logger(t *testing.T) log.Logger {
	dir := filepath.Join(root(), "build", "system")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")+".log"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of all services: %s", f.Name())
		}
	})
	return log.NewLogger(log.NewTerminalHandlerWithLevel(f, log.LevelDebug, false))
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// start runs a devnet until the test ends, and returns when its chains are on time.
func start(t *testing.T, change ...func(*devnet.Config)) *scenario {
	ctx := patient(t)
	cfg := devnet.DefaultConfig(logger(t))
	cfg.Dir = t.TempDir()
	for _, f := range change {
		f(&cfg)
	}
	d, err := devnet.Start(ctx, cfg)
	require.NoError(t, err)
	s := &scenario{t: t, ctx: ctx, Devnet: d}
	t.Cleanup(func() { require.NoError(t, d.Stop(context.WithoutCancel(ctx))) })
	require.NoError(t, d.AwaitOnTime(ctx))
	return s
}

// in is the scenario for a subtest.
func (s *scenario) in(t *testing.T) *scenario { return &scenario{t: t, ctx: s.ctx, Devnet: s.Devnet} }

// user is an account with money everywhere; every part of a test takes its own.
func (s *scenario) user(i uint64) devnet.Account {
	a, err := devnet.User(i)
	require.NoError(s.t, err)
	return a
}

func (s *scenario) fresh() devnet.Account {
	a, err := devnet.FreshAccount()
	require.NoError(s.t, err)
	return a
}

// until waits for a condition.
func (s *scenario) until(what string, cond func(context.Context) (bool, error)) {
	s.t.Helper()
	require.NoError(s.t, devnet.WaitFor(s.ctx, what, cond))
}

// run sends a bundle and returns what became of it.
func (s *scenario) run(b *devnet.Bundle) *rpc.BundleStatus {
	s.t.Helper()
	st, err := b.Run(s.ctx)
	require.NoError(s.t, err)
	return st
}

// executes runs a bundle that must be executed whole, in blocks of one timestamp, and
// returns its transactions.
func (s *scenario) executes(b *devnet.Bundle) []devnet.Executed {
	s.t.Helper()
	st := s.run(b)
	if st.Failure != nil {
		require.Contains(s.t, executedStates, st.State, "why: %s", st.Failure.Reason)
	}
	require.Contains(s.t, executedStates, st.State)
	txs, err := s.Receipts(s.ctx, st)
	require.NoError(s.t, err)
	for _, tx := range txs {
		require.EqualValues(s.t, 1, tx.Status, "transaction %s on chain %d", tx.TxHash, tx.Chain)
		require.Equal(s.t, txs[0].Timestamp, tx.Timestamp, "one timestamp for the whole bundle")
	}
	return txs
}

var executedStates = []bundlepool.State{bundlepool.Executed, bundlepool.Safe}

// refuses runs a bundle that must fail, and returns the reason the sender is given.
func (s *scenario) refuses(b *devnet.Bundle) *rpc.Failure {
	s.t.Helper()
	st := s.run(b)
	require.Equal(s.t, bundlepool.Failed, st.State)
	require.NotNil(s.t, st.Failure)
	require.NotEmpty(s.t, st.Failure.Reason)
	return st.Failure
}

// bridge is a bundle in which from sends ETH from one chain to a new account on another,
// and that account spends half of it there.
func (s *scenario) bridge(from devnet.Account, source, dest uint64) (*devnet.Bundle, devnet.Account) {
	to := s.fresh()
	return s.NewBundle().
		Tx(from, devnet.SendETH(source, 0, to.Address, dest, ether(1))).
		Relay(dest).
		Tx(to, devnet.Transfer(dest, 0, from.Address, new(big.Int).Div(ether(1), big.NewInt(2)))), to
}

// spoilt is bridge with a last transaction that reverts.
func (s *scenario) spoilt(from devnet.Account, source, dest uint64) (*devnet.Bundle, devnet.Account) {
	b, to := s.bridge(from, source, dest)
	return b.Tx(from, devnet.SendETH(dest, 0, common.Address{}, source, ether(1))), to
}

// block is a block of a chain with its L1 origin.
type block struct {
	Number uint64
	Hash   common.Hash
	Time   uint64
	Origin eth.BlockID
	Txs    types.Transactions
}

func (s *scenario) block(chain, number uint64) block {
	s.t.Helper()
	c, err := s.Eth(chain)
	require.NoError(s.t, err)
	b, err := c.BlockByNumber(s.ctx, new(big.Int).SetUint64(number))
	require.NoError(s.t, err, "block %d of chain %d", number, chain)
	out := block{Number: number, Hash: b.Hash(), Time: b.Time(), Txs: b.Transactions()}
	require.NotEmpty(s.t, out.Txs, "block %d of chain %d has its L1 info deposit", number, chain)
	info, err := derive.L1BlockInfoFromBytes(s.Genesis().Rollup[chain], out.Time, out.Txs[0].Data())
	require.NoError(s.t, err)
	out.Origin = eth.BlockID{Hash: info.BlockHash, Number: info.Number}
	return out
}

func (s *scenario) head(chain uint64) uint64 {
	s.t.Helper()
	h, err := s.Head(s.ctx, chain)
	require.NoError(s.t, err)
	return h.Number.Uint64()
}

// lockstep checks a range of blocks: both chains have them at the same timestamps, on
// the same L1 origins.
func (s *scenario) lockstep(from, to uint64) {
	s.t.Helper()
	for n := from; n <= to; n++ {
		a, b := s.block(chainA, n), s.block(chainB, n)
		require.Equal(s.t, a.Time, b.Time, "timestamps of block %d", n)
		require.Equal(s.t, a.Origin, b.Origin, "L1 origins of block %d", n)
	}
}

// awaitCrossSafe waits until every chain has passed a timestamp with blocks that
// op-supernode has derived from L1 and verified.
func (s *scenario) awaitCrossSafe(timestamp uint64) {
	s.t.Helper()
	for _, id := range s.Chains() {
		s.until(fmt.Sprintf("chain %d to be cross-safe at %d", id, timestamp), func(ctx context.Context) (bool, error) {
			local, cross, err := s.Safety(ctx, id, timestamp)
			return local && cross, err
		})
	}
}

// included says whether a chain has a transaction in a block.
func (s *scenario) included(chain uint64, tx common.Hash) bool {
	s.t.Helper()
	c, err := s.Eth(chain)
	require.NoError(s.t, err)
	r, err := c.TransactionReceipt(s.ctx, tx)
	return err == nil && r != nil
}

func ether(n int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(1e18)) }

// command runs a program of the repository and fails the test when it fails.
func command(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
}

func callMsg(to common.Address, data []byte) ethereum.CallMsg {
	return ethereum.CallMsg{To: &to, Data: data}
}

func contains(s, part string) bool { return strings.Contains(s, part) }

func bigInt(n uint64) *big.Int { return new(big.Int).SetUint64(n) }

// artifacts are the built contracts.
func artifacts(t *testing.T) string {
	t.Helper()
	dir, err := genesis.FindArtifacts(".")
	require.NoError(t, err)
	return dir
}
