package devnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/math"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-chain-ops/foundry"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

// Gas limits that are enough to create a contract of ours, and to call a SwapPool.
const (
	gasCreate = 3_000_000
	gasSwap   = 500_000
)

// Market is two ERC-7802 tokens and a SwapPool of them on several rollups, at the same
// addresses everywhere. Amounts are in the tokens' smallest units.
type Market struct {
	Base  common.Address // what is bought and sold
	Quote common.Address // what it is paid with
	Pool  common.Address

	d         *Devnet
	baseFirst bool // the order of the tokens in the pool
	pool      abi.ABI
}

// Liquidity is what a pool holds.
type Liquidity struct{ Base, Quote *big.Int }

// OpenMarket creates new tokens and pools, and fills the pools, in one bundle. maker pays.
func (d *Devnet) OpenMarket(ctx context.Context, maker Account, pools map[uint64]Liquidity) (*Market, error) {
	dir := d.cfg.Artifacts
	if dir == "" {
		var err error
		if dir, err = genesis.FindArtifacts("."); err != nil {
			return nil, err
		}
	}
	artifacts := foundry.OpenArtifactsDir(dir)
	token, err := artifacts.ReadArtifact("InteropTestToken.sol", "InteropTestToken")
	if err != nil {
		return nil, fmt.Errorf("contract artifacts, run `make contracts`: %w", err)
	}
	pool, err := artifacts.ReadArtifact("SwapPool.sol", "SwapPool")
	if err != nil {
		return nil, fmt.Errorf("contract artifacts, run `make contracts`: %w", err)
	}

	// The maker's nonce makes every market another one.
	nonce, err := d.Nonce(ctx, d.chains[0], maker.Address)
	if err != nil {
		return nil, err
	}
	salt := func(contract byte) common.Hash {
		return crypto.Keccak256Hash(maker.Address[:], binary.BigEndian.AppendUint64(nil, nonce), []byte{contract})
	}
	m := &Market{d: d, pool: pool.ABI}
	m.Base, m.Quote = created(salt(0), token.Bytecode.Object), created(salt(1), token.Bytecode.Object)
	first, second := m.Base, m.Quote
	if m.baseFirst = bytes.Compare(first[:], second[:]) < 0; !m.baseFirst {
		first, second = second, first
	}
	args, err := pool.ABI.Pack("", first, second)
	if err != nil {
		return nil, err
	}
	poolCode := slices.Concat([]byte(pool.Bytecode.Object), args)
	m.Pool = created(salt(2), poolCode)

	b := d.NewBundle()
	for _, id := range d.chains {
		l, ok := pools[id]
		if !ok {
			continue
		}
		amount0, amount1 := l.Base, l.Quote
		if !m.baseFirst {
			amount0, amount1 = amount1, amount0
		}
		b.Tx(maker, create(id, salt(0), token.Bytecode.Object)).
			Tx(maker, create(id, salt(1), token.Bytecode.Object)).
			Tx(maker, create(id, salt(2), poolCode)).
			Tx(maker, MintToken(id, 0, m.Base, maker.Address, l.Base)).
			Tx(maker, MintToken(id, 0, m.Quote, maker.Address, l.Quote)).
			Tx(maker, m.Approve(id, m.Base, l.Base)).
			Tx(maker, m.Approve(id, m.Quote, l.Quote)).
			Tx(maker, m.tx(id, "addLiquidity", amount0, amount1, common.Big0, math.MaxBig256))
	}
	st, err := b.Run(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open a market: %w", err)
	case st.State != bundlepool.Executed && st.State != bundlepool.Safe:
		why := ""
		if st.Failure != nil {
			why = ": " + st.Failure.Reason
		}
		return nil, fmt.Errorf("open a market: bundle %s is %s%s", st.BundleHash, st.State, why)
	}
	return m, nil
}

// created is the address of a contract that create makes.
func created(salt common.Hash, code []byte) common.Address {
	return crypto.CreateAddress2(predeploys.DeterministicDeploymentProxyAddr, salt, crypto.Keccak256(code))
}

// create makes a contract at an address that depends on salt and creation code only.
func create(chain uint64, salt common.Hash, code []byte) Tx {
	return Tx{Chain: chain, Gas: gasCreate, To: predeploys.DeterministicDeploymentProxyAddr, Data: slices.Concat(salt[:], code)}
}

// tx calls the pool.
func (m *Market) tx(chain uint64, method string, args ...any) Tx {
	return Tx{Chain: chain, Gas: gasSwap, To: m.Pool, Data: m.pack(method, args...)}
}

func (m *Market) pack(method string, args ...any) []byte {
	data, err := m.pool.Pack(method, args...)
	if err != nil {
		panic(fmt.Sprintf("call data of SwapPool.%s: %v", method, err)) // the arguments' types are fixed
	}
	return data
}

// Approve lets the pool take tokens.
func (m *Market) Approve(chain uint64, token common.Address, amount *big.Int) Tx {
	return Tx{Chain: chain, Gas: gasToken, To: token, Data: call("approve", m.Pool, amount)}
}

// Arbitrage is a trade from one rollup to another and back.
type Arbitrage struct {
	Trader    Account
	Buy, Sell uint64   // chains
	Spend     *big.Int // quote tokens, of those the trader has on Buy
	// MinBought and MinReceived are the least base tokens that are bought, and the least
	// quote tokens that they are sold for.
	MinBought, MinReceived *big.Int
	Deadline               uint64 // last timestamp
}

// ArbitrageSale is the place of the sale in an arbitrage's bundle: the first item that
// depends on what the prices on the second rollup are.
const ArbitrageSale = 4

// Bundle buys on one chain, sells on the other all that has arrived there, and has all
// that comes out back on the first. Which amounts these are, its signer need not know.
func (m *Market) Bundle(a Arbitrage) *Bundle {
	to, deadline := a.Trader.Address, new(big.Int).SetUint64(a.Deadline)
	buy, sell := new(big.Int).SetUint64(a.Buy), new(big.Int).SetUint64(a.Sell)
	return m.d.NewBundle().
		Tx(a.Trader, m.Approve(a.Buy, m.Quote, a.Spend)).
		Tx(a.Trader, m.tx(a.Buy, "swapAndSend", m.Quote, a.Spend, a.MinBought, to, sell, deadline)).
		Relay(a.Sell).
		Tx(a.Trader, m.Approve(a.Sell, m.Base, math.MaxBig256)).
		Tx(a.Trader, m.tx(a.Sell, "swapAllAndSend", m.Base, a.MinReceived, to, buy, deadline)).
		Relay(a.Buy)
}

// Expect is what an arbitrage would bring on the chains' heads: how many base tokens are
// bought, and how many quote tokens come back.
func (m *Market) Expect(ctx context.Context, a Arbitrage) (bought, received *big.Int, err error) {
	if bought, err = m.number(ctx, a.Buy, "quote", m.Quote, a.Spend); err != nil {
		return nil, nil, err
	}
	received, err = m.number(ctx, a.Sell, "quote", m.Base, bought)
	return bought, received, err
}

// Reserves is what the pool of a chain holds.
func (m *Market) Reserves(ctx context.Context, chain uint64) (Liquidity, error) {
	out, err := m.read(ctx, chain, "reserves")
	if err != nil {
		return Liquidity{}, err
	}
	first, second := out[0].(*big.Int), out[1].(*big.Int)
	if !m.baseFirst {
		first, second = second, first
	}
	return Liquidity{Base: first, Quote: second}, nil
}

func (m *Market) number(ctx context.Context, chain uint64, method string, args ...any) (*big.Int, error) {
	out, err := m.read(ctx, chain, method, args...)
	if err != nil {
		return nil, err
	}
	return out[0].(*big.Int), nil
}

func (m *Market) read(ctx context.Context, chain uint64, method string, args ...any) ([]any, error) {
	c, err := m.d.Eth(chain)
	if err != nil {
		return nil, err
	}
	ret, err := c.CallContract(ctx, ethereum.CallMsg{To: &m.Pool, Data: m.pack(method, args...)}, nil)
	if err != nil {
		return nil, fmt.Errorf("SwapPool.%s on chain %d: %w", method, chain, err)
	}
	out, err := m.pool.Unpack(method, ret)
	if err != nil {
		return nil, fmt.Errorf("SwapPool.%s on chain %d: %w", method, chain, err)
	}
	return out, nil
}

// Reason names the error that a call of the pool reverted with; empty if it is none of
// the pool's.
func (m *Market) Reason(returnData []byte) string {
	if len(returnData) < 4 {
		return ""
	}
	e, err := m.pool.ErrorByID([4]byte(returnData))
	if err != nil {
		return ""
	}
	args, err := e.Inputs.Unpack(returnData[4:])
	if err != nil {
		return ""
	}
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i] = fmt.Sprint(arg)
	}
	return e.Name + "(" + strings.Join(texts, ", ") + ")"
}
