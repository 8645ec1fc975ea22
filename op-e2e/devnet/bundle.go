package devnet

import (
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// BundleTarget is a devnet, however it runs, as a bundle sees it. A Devnet is one.
type BundleTarget interface {
	// Nonce is the account's next nonce on a chain, pending transactions included.
	Nonce(ctx context.Context, chain uint64, addr common.Address) (uint64, error)
	// Sequencer is a client of the sharedseq RPC that bundles are sent to.
	Sequencer(ctx context.Context) (*rpc.Client, error)
	// AwaitBundle waits until a bundle that was sent is no longer pending; if it was
	// executed, until the chains' heads show it.
	AwaitBundle(ctx context.Context, hash common.Hash) (*rpc.BundleStatus, error)
}

// Bundle is a bundle being put together. Nonces are filled in when it is signed.
type Bundle struct {
	to    BundleTarget
	items []bundleItem
	slots uint64
}

type bundleItem struct {
	from  Account
	tx    Tx
	relay bool
}

// NewBundle starts an empty bundle.
func (d *Devnet) NewBundle() *Bundle { return NewBundle(d) }

// NewBundle starts an empty bundle.
func NewBundle(to BundleTarget) *Bundle { return &Bundle{to: to} }

// Tx adds a transaction; its nonce follows the account's on that chain.
func (b *Bundle) Tx(from Account, tx Tx) *Bundle {
	b.items = append(b.items, bundleItem{from: from, tx: tx})
	return b
}

// Relay adds a step that executes on chain what the bundle has sent there so far.
func (b *Bundle) Relay(chain uint64) *Bundle {
	b.items = append(b.items, bundleItem{tx: Tx{Chain: chain}, relay: true})
	return b
}

// MaxSlots bounds how many slots the bundle may wait.
func (b *Bundle) MaxSlots(n uint64) *Bundle {
	b.slots = n
	return b
}

// Sign makes what is sent, and gives the hashes of the transactions by item (zero for a relay step).
func (b *Bundle) Sign(ctx context.Context) (rpc.BundleArgs, []common.Hash, error) {
	type place struct {
		chain uint64
		addr  common.Address
	}
	next := map[place]uint64{}
	var args rpc.BundleArgs
	hashes := make([]common.Hash, len(b.items))
	for i, it := range b.items {
		chain := sequence.ChainID(it.tx.Chain)
		if it.relay {
			args.Items = append(args.Items, rpc.RelayStep(chain))
			continue
		}
		at := place{it.tx.Chain, it.from.Address}
		if _, ok := next[at]; !ok {
			nonce, err := b.to.Nonce(ctx, at.chain, at.addr)
			if err != nil {
				return args, nil, err
			}
			next[at] = nonce
		}
		it.tx.Nonce = next[at]
		next[at]++
		tx, err := it.from.Sign(it.tx)
		if err != nil {
			return args, nil, err
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			return args, nil, err
		}
		hashes[i] = tx.Hash()
		args.Items = append(args.Items, rpc.Transaction(chain, raw))
	}
	if b.slots != 0 {
		args.MaxSlots = (*hexutil.Uint64)(&b.slots)
	}
	return args, hashes, nil
}

// Send signs and sends the bundle.
func (b *Bundle) Send(ctx context.Context) (common.Hash, error) {
	args, _, err := b.Sign(ctx)
	if err != nil {
		return common.Hash{}, err
	}
	c, err := b.to.Sequencer(ctx)
	if err != nil {
		return common.Hash{}, err
	}
	res, err := c.SendBundle(ctx, args)
	if err != nil {
		return common.Hash{}, err
	}
	return res.BundleHash, nil
}

// Run sends the bundle and waits until it is executed, and the chains' heads show it, or
// until it has failed, which is not an error here.
func (b *Bundle) Run(ctx context.Context) (*rpc.BundleStatus, error) {
	hash, err := b.Send(ctx)
	if err != nil {
		return nil, err
	}
	return b.to.AwaitBundle(ctx, hash)
}

// AwaitBundle waits until a bundle that was sent is no longer pending; if it was
// executed, until the chains' heads show it.
func (d *Devnet) AwaitBundle(ctx context.Context, hash common.Hash) (*rpc.BundleStatus, error) {
	c, err := d.Sequencer(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.WaitBundle(ctx, hash)
	if err != nil {
		return nil, err
	}
	for _, it := range st.Items {
		if err := d.AwaitBlock(ctx, uint64(it.ChainID), uint64(it.BlockNumber)); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// Executed is a bundle's transaction as its chain shows it.
type Executed struct {
	Chain       uint64      `json:"chainId"`
	BlockNumber uint64      `json:"blockNumber"`
	BlockHash   common.Hash `json:"blockHash"`
	Timestamp   uint64      `json:"timestamp"` // of the block
	TxHash      common.Hash `json:"txHash"`
	Status      uint64      `json:"status"` // of the receipt
	GasUsed     uint64      `json:"gasUsed"`
}

// Receipts reads the transactions of an executed bundle from the chains themselves.
func (d *Devnet) Receipts(ctx context.Context, st *rpc.BundleStatus) ([]Executed, error) {
	return ReadExecuted(ctx, st, d.Eth)
}

// ReadExecuted reads the transactions of an executed bundle from engines of its chains.
func ReadExecuted(ctx context.Context, st *rpc.BundleStatus, eth func(chain uint64) (*ethclient.Client, error)) ([]Executed, error) {
	var out []Executed
	for _, it := range st.Items {
		id := uint64(it.ChainID)
		c, err := eth(id)
		if err != nil {
			return nil, err
		}
		r, err := c.TransactionReceipt(ctx, it.TxHash)
		if err != nil {
			return nil, fmt.Errorf("receipt of %s on chain %d: %w", it.TxHash, id, err)
		}
		h, err := c.HeaderByHash(ctx, r.BlockHash)
		if err != nil {
			return nil, fmt.Errorf("block %s of chain %d: %w", r.BlockHash, id, err)
		}
		out = append(out, Executed{
			Chain: id, BlockNumber: r.BlockNumber.Uint64(), BlockHash: r.BlockHash, Timestamp: h.Time,
			TxHash: it.TxHash, Status: r.Status, GasUsed: r.GasUsed,
		})
	}
	return out, nil
}

// Nonce is the account's next nonce on a chain, pending transactions included.
func (d *Devnet) Nonce(ctx context.Context, chain uint64, addr common.Address) (uint64, error) {
	c, err := d.Eth(chain)
	if err != nil {
		return 0, err
	}
	n, err := c.PendingNonceAt(ctx, addr)
	if err != nil {
		return 0, fmt.Errorf("nonce of %s on chain %d: %w", addr, chain, err)
	}
	return n, nil
}

// Balance is an account's ETH on a chain, at its head.
func (d *Devnet) Balance(ctx context.Context, chain uint64, addr common.Address) (*big.Int, error) {
	c, err := d.Eth(chain)
	if err != nil {
		return nil, err
	}
	v, err := c.BalanceAt(ctx, addr, nil)
	if err != nil {
		return nil, fmt.Errorf("balance of %s on chain %d: %w", addr, chain, err)
	}
	return v, nil
}

// TokenBalance is an account's balance of the test token on a chain, at its head.
func (d *Devnet) TokenBalance(ctx context.Context, chain uint64, addr common.Address) (*big.Int, error) {
	return d.BalanceOf(ctx, chain, d.genesis.TestToken, addr)
}

// BalanceOf is an account's balance of a token on a chain, at its head.
func (d *Devnet) BalanceOf(ctx context.Context, chain uint64, token, addr common.Address) (*big.Int, error) {
	c, err := d.Eth(chain)
	if err != nil {
		return nil, err
	}
	out, err := c.CallContract(ctx, ethereum.CallMsg{To: &token, Data: balanceOf(addr)}, nil)
	if err != nil {
		return nil, fmt.Errorf("token balance of %s on chain %d: %w", addr, chain, err)
	}
	return new(big.Int).SetBytes(out), nil
}

// Head is the head of a chain.
func (d *Devnet) Head(ctx context.Context, chain uint64) (*types.Header, error) {
	c, err := d.Eth(chain)
	if err != nil {
		return nil, err
	}
	h, err := c.HeaderByNumber(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("head of chain %d: %w", chain, err)
	}
	return h, nil
}

// AwaitBlock waits until a chain's head is at or past a number.
func (d *Devnet) AwaitBlock(ctx context.Context, chain, number uint64) error {
	return WaitFor(ctx, fmt.Sprintf("block %d of chain %d", number, chain), func(ctx context.Context) (bool, error) {
		h, err := d.Head(ctx, chain)
		return err == nil && h.Number.Uint64() >= number, err
	})
}

// AwaitSlots waits until every chain's head is n blocks past what it is now.
func (d *Devnet) AwaitSlots(ctx context.Context, n uint64) error {
	want := map[uint64]uint64{}
	for _, id := range d.chains {
		h, err := d.Head(ctx, id)
		if err != nil {
			return err
		}
		want[id] = h.Number.Uint64() + n
	}
	for id, number := range want {
		if err := d.AwaitBlock(ctx, id, number); err != nil {
			return err
		}
	}
	return nil
}

// AwaitOnTime waits until every chain has made blocks and its head is of the present
// second: what was missed while the devnet was down is caught up.
func (d *Devnet) AwaitOnTime(ctx context.Context) error {
	for _, id := range d.chains {
		if err := WaitFor(ctx, fmt.Sprintf("chain %d to be on time", id), func(ctx context.Context) (bool, error) {
			h, err := d.Head(ctx, id)
			return err == nil && h.Number.Sign() > 0 && h.Time+d.cfg.blockTime(id) >= now(), err
		}); err != nil {
			return err
		}
	}
	return nil
}

// Safety says whether a chain has passed a timestamp with blocks derived from L1 (local),
// and with blocks that op-supernode has verified together with the other chains' (cross).
func (d *Devnet) Safety(ctx context.Context, chain, timestamp uint64) (local, cross bool, err error) {
	return safeAt(ctx, d.Rollup(chain), timestamp)
}
