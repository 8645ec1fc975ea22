package system

import (
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/predeploys"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

// arbitrage: a token costs 1 on A and 2 on B. A bundle buys it on A, sells on B what has
// arrived there, and has the proceeds back on A, all in one slot. Whoever comes second
// with the same bundle would buy on A, but gets too little on B: nothing of it happens.
func arbitrage(s *scenario) {
	maker, first, second := s.user(0), s.user(1), s.user(8)
	m, err := s.OpenMarket(s.ctx, maker, map[uint64]devnet.Liquidity{
		chainA: {Base: ether(1000), Quote: ether(1000)},
		chainB: {Base: ether(1000), Quote: ether(2000)},
	})
	require.NoError(s.t, err)
	s.executes(s.NewBundle().
		Tx(maker, devnet.MintToken(chainA, 0, m.Quote, first.Address, ether(100))).
		Tx(maker, devnet.MintToken(chainA, 0, m.Quote, second.Address, ether(100))))
	trade := devnet.Arbitrage{
		Buy: chainA, Sell: chainB, Spend: ether(100), MinBought: ether(70), MinReceived: ether(150),
		Deadline: s.block(chainA, s.head(chainA)).Time + uint64(patience.Seconds()),
	}
	ok := s.t.Run("first", func(t *testing.T) { trade.Trader = first; captured(s.in(t), m, trade) })
	if !ok {
		return
	}
	s.t.Run("second", func(t *testing.T) { trade.Trader = second; tooLate(s.in(t), m, trade) })
}

func captured(s *scenario, m *devnet.Market, trade devnet.Arbitrage) {
	bought, received, err := m.Expect(s.ctx, trade)
	require.NoError(s.t, err)
	before := s.stateOf(m, trade.Trader.Address)

	txs := s.executes(m.Bundle(trade)) // in blocks of one timestamp
	var chains []uint64
	for _, tx := range txs {
		chains = append(chains, tx.Chain)
	}
	require.Equal(s.t, []uint64{chainA, chainA, chainB, chainB, chainB, chainA}, chains, "with the relays on B and on A")

	profit := new(big.Int).Sub(received, trade.Spend)
	require.Positive(s.t, profit.Cmp(ether(65)), "100 become more than 165")
	after := s.stateOf(m, trade.Trader.Address)
	require.Equal(s.t, plus(before[chainA].Quote, profit), after[chainA].Quote, "the profit is on A")
	require.Equal(s.t, before[chainB].Quote, after[chainB].Quote)
	for _, id := range s.Chains() {
		require.Equal(s.t, "0", after[id].Base, "nothing is left on the way on chain %d", id)
	}
	require.Equal(s.t, devnet.Liquidity{Base: sub(ether(1000), bought), Quote: ether(1100)}, after[chainA].Pool)
	require.Equal(s.t, devnet.Liquidity{Base: new(big.Int).Add(ether(1000), bought), Quote: sub(ether(2000), received)}, after[chainB].Pool)
	s.t.Logf("100 tokens became %s of 10^-18 each", received)

	// Messages that go there and back in one slot pass op-supernode's verification.
	s.awaitCrossSafe(txs[0].Timestamp)
	for _, tx := range txs {
		hash, err := s.BlockHash(s.ctx, tx.Chain, tx.BlockNumber)
		require.NoError(s.t, err)
		require.Equal(s.t, tx.BlockHash, hash, "block %d of chain %d is the one that was announced", tx.BlockNumber, tx.Chain)
	}
}

func tooLate(s *scenario, m *devnet.Market, trade devnet.Arbitrage) {
	_, received, err := m.Expect(s.ctx, trade)
	require.NoError(s.t, err)
	require.Negative(s.t, received.Cmp(trade.MinReceived), "the gap is mostly gone")
	heads := map[uint64]uint64{}
	for _, id := range s.Chains() {
		heads[id] = s.head(id)
	}
	before := s.stateOf(m, trade.Trader.Address)

	b := m.Bundle(trade)
	_, hashes, err := b.Sign(s.ctx)
	require.NoError(s.t, err)
	st := s.run(b)
	require.Equal(s.t, bundlepool.Failed, st.State)
	require.NotNil(s.t, st.Failure)
	require.EqualValues(s.t, devnet.ArbitrageSale, *st.Failure.Item, "buying and sending have gone through")
	require.EqualValues(s.t, chainB, *st.Failure.ChainID)
	require.Equal(s.t, hashes[devnet.ArbitrageSale], *st.Failure.TxHash)
	require.Contains(s.t, st.Failure.Reason, "reverted")
	require.Equal(s.t, "InsufficientOutput("+received.String()+", "+trade.MinReceived.String()+")", m.Reason(st.Failure.ReturnData))

	// Anything of it that is on its way somewhere gets time to show up.
	require.NoError(s.t, s.AwaitSlots(s.ctx, 3))
	require.Equal(s.t, before, s.stateOf(m, trade.Trader.Address), "nobody has paid or lost anything on any chain")
	for _, id := range s.Chains() {
		for n := heads[id] + 1; n <= s.head(id); n++ {
			require.Len(s.t, s.block(id, n).Txs, 1, "block %d of chain %d has its L1 info deposit only", n, id)
		}
	}

	// What is left of the gap is the second's for the asking, with the same nonces.
	trade.MinReceived = new(big.Int).Add(trade.Spend, common.Big1)
	s.executes(m.Bundle(trade))
	after := s.stateOf(m, trade.Trader.Address)
	require.Equal(s.t, plus(before[chainA].Quote, sub(received, trade.Spend)), after[chainA].Quote)
}

// chainState is all that an arbitrage could change on a chain. Numbers are decimal.
type chainState struct {
	Nonce, RelayerNonce uint64
	ETH, RelayerETH     string
	Base, Quote         string // the trader's
	BaseAllowance       string // of the pool
	QuoteAllowance      string
	Pool                devnet.Liquidity
	MessageNonce        common.Hash // of the messenger: counts the messages sent
}

func (s *scenario) stateOf(m *devnet.Market, trader common.Address) map[uint64]chainState {
	s.t.Helper()
	key, err := s.Keys().Relayer()
	require.NoError(s.t, err)
	relayer := crypto.PubkeyToAddress(key.PublicKey)
	number := func(v *big.Int, err error) string {
		s.t.Helper()
		require.NoError(s.t, err)
		return v.String()
	}
	out := map[uint64]chainState{}
	for _, id := range s.Chains() {
		c := chainState{
			ETH:        number(s.Balance(s.ctx, id, trader)),
			RelayerETH: number(s.Balance(s.ctx, id, relayer)),
			Base:       number(s.BalanceOf(s.ctx, id, m.Base, trader)),
			Quote:      number(s.BalanceOf(s.ctx, id, m.Quote, trader)),
		}
		c.Nonce, err = s.Nonce(s.ctx, id, trader)
		require.NoError(s.t, err)
		c.RelayerNonce, err = s.Nonce(s.ctx, id, relayer)
		require.NoError(s.t, err)
		c.BaseAllowance, c.QuoteAllowance = s.allowance(id, m.Base, trader, m.Pool), s.allowance(id, m.Quote, trader, m.Pool)
		c.Pool, err = m.Reserves(s.ctx, id)
		require.NoError(s.t, err)
		eth, err := s.Eth(id)
		require.NoError(s.t, err)
		nonce, err := eth.CallContract(s.ctx, callMsg(predeploys.L2toL2CrossDomainMessengerAddr, selector("messageNonce()")), nil)
		require.NoError(s.t, err)
		c.MessageNonce = common.BytesToHash(nonce)
		out[id] = c
	}
	return out
}

func (s *scenario) allowance(chain uint64, token, owner, spender common.Address) string {
	s.t.Helper()
	kind, err := abi.NewType("address", "", nil)
	require.NoError(s.t, err)
	args, err := abi.Arguments{{Type: kind}, {Type: kind}}.Pack(owner, spender)
	require.NoError(s.t, err)
	c, err := s.Eth(chain)
	require.NoError(s.t, err)
	out, err := c.CallContract(s.ctx, callMsg(token, append(selector("allowance(address,address)"), args...)), nil)
	require.NoError(s.t, err)
	return new(big.Int).SetBytes(out).String()
}

func selector(signature string) []byte { return crypto.Keccak256([]byte(signature))[:4] }

func sub(a, b *big.Int) *big.Int { return new(big.Int).Sub(a, b) }

// plus adds to a decimal number.
func plus(a string, b *big.Int) string {
	n, ok := new(big.Int).SetString(a, 10)
	if !ok {
		panic("not a number: " + a)
	}
	return n.Add(n, b).String()
}
