package bundlepool

import (
	"crypto/ecdsa"
	"fmt"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const (
	chainA = sequence.ChainID(901)
	chainB = sequence.ChainID(902)
	chainC = sequence.ChainID(903)
	now    = sequence.Slot(1000)
)

// key derives the key of a test account from its name.
func key(name string) *ecdsa.PrivateKey {
	k, err := crypto.ToECDSA(crypto.Keccak256([]byte(name)))
	if err != nil {
		panic(err)
	}
	return k
}

func address(name string) common.Address { return crypto.PubkeyToAddress(key(name).PublicKey) }

// sign makes a transaction of the account.
func sign(name string, chain sequence.ChainID, data types.TxData) []byte {
	tx := types.MustSignNewTx(key(name), types.LatestSignerForChainID(chain.ID().ToBig()), data)
	raw, err := tx.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return raw
}

// transfer makes a plain transfer that passes every check.
func transfer(name string, chain sequence.ChainID, nonce uint64) sequence.BundleItem {
	return sequence.BundleItem{Chain: chain, Transaction: sign(name, chain, &types.DynamicFeeTx{
		ChainID: chain.ID().ToBig(), Nonce: nonce, To: &common.Address{1}, Gas: 21000, GasFeeCap: big.NewInt(1e9), GasTipCap: big.NewInt(1),
	})}
}

func relayStep(chain sequence.ChainID) sequence.BundleItem { return sequence.BundleItem{Chain: chain} }

func bundle(expiry sequence.Slot, items ...sequence.BundleItem) *sequence.Bundle {
	return &sequence.Bundle{Items: items, Expiry: expiry}
}

func discard() log.Logger { return log.NewLogger(log.DiscardHandler()) }

func newPool(cfg Config) *Pool {
	if len(cfg.Chains) == 0 {
		cfg.Chains = []sequence.ChainID{chainA, chainB, chainC}
	}
	p := New(cfg, discard())
	p.Advance(now)
	return p
}

// executed makes the outcome of a bundle that ran in blocks of the given number on all
// its chains. A relay step makes two transactions, which depend on the salt.
func executed(e *Entry, slot sequence.Slot, number uint64, salt string) Outcome {
	res := BundleResult{Slot: slot}
	for i, tx := range e.Transactions {
		it := ItemResult{Item: i, Chain: e.Bundle.Items[i].Chain, BlockNumber: number, Status: 1, GasUsed: 21000}
		if tx != nil {
			it.TxHash = tx.Hash()
			it.Logs = []*types.Log{{Address: common.Address{1}}}
			it.ReturnData = []byte{1}
			res.Items = append(res.Items, it)
			continue
		}
		for m := range 2 {
			it.TxHash = crypto.Keccak256Hash(e.Hash[:], []byte(fmt.Sprint(salt, i, m)))
			res.Items = append(res.Items, it)
		}
	}
	return Outcome{Kind: Execute, Result: res}
}

func failed(kind OutcomeKind, reason string) Outcome {
	return Outcome{Kind: kind, Result: BundleResult{Slot: now, Failed: &Failure{Item: 0, Chain: chainA, Reason: reason}}}
}

// add puts a bundle in that must be taken.
func add(t *testing.T, p *Pool, b *sequence.Bundle) *Entry {
	t.Helper()
	h, err := p.Add(b)
	require.NoError(t, err)
	e, ok := p.Get(h)
	require.True(t, ok)
	return e
}

func state(t *testing.T, p *Pool, h common.Hash) State {
	t.Helper()
	s, err := p.Status(h)
	require.NoError(t, err)
	return s.State
}
