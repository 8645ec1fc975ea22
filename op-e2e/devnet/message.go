package devnet

import (
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Relayed is a message that a plain transaction sent.
type Relayed struct {
	Transaction common.Hash
	Sent        uint64 // timestamp of the block that sent it
	Executed    uint64 // and of the one that executed it
}

// SendMessage sends a plain transaction with a message that gives ETH to an account on another
// chain, which has none, and waits until it has it.
func (d *Devnet) SendMessage(ctx context.Context, from Account, tx Tx, to common.Address, on uint64) (*Relayed, error) {
	c, err := d.Eth(tx.Chain)
	if err != nil {
		return nil, err
	}
	dest, err := d.Eth(on)
	if err != nil {
		return nil, err
	}
	if tx.Nonce, err = d.Nonce(ctx, tx.Chain, from.Address); err != nil {
		return nil, err
	}
	signed, err := from.Sign(tx)
	if err != nil {
		return nil, err
	}
	if err := c.SendTransaction(ctx, signed); err != nil {
		return nil, err
	}
	var receipt *types.Receipt
	if err := WaitFor(ctx, fmt.Sprintf("transaction %s on chain %d", signed.Hash(), tx.Chain), func(ctx context.Context) (bool, error) {
		r, err := c.TransactionReceipt(ctx, signed.Hash())
		receipt = r
		return err == nil && r.BlockHash != (common.Hash{}), nil
	}); err != nil {
		return nil, err
	}
	if receipt.Status != types.ReceiptStatusSuccessful {
		return nil, fmt.Errorf("transaction %s reverted on chain %d", signed.Hash(), tx.Chain)
	}
	sent, err := c.HeaderByHash(ctx, receipt.BlockHash)
	if err != nil {
		return nil, err
	}
	out := &Relayed{Transaction: signed.Hash(), Sent: sent.Time}
	// The first block in which the account has something.
	var at *big.Int
	if err := WaitFor(ctx, fmt.Sprintf("%s to have something on chain %d", to, on), func(ctx context.Context) (bool, error) {
		head, err := dest.HeaderByNumber(ctx, nil)
		if err != nil {
			return false, err
		}
		balance, err := dest.BalanceAt(ctx, to, head.Number)
		at = head.Number
		return err == nil && balance.Sign() > 0, err
	}); err != nil {
		return nil, err
	}
	for ; ; at.Sub(at, common.Big1) {
		head, err := dest.HeaderByNumber(ctx, at)
		if err != nil {
			return nil, err
		}
		balance, err := dest.BalanceAt(ctx, to, at)
		if err != nil {
			return nil, err
		}
		if balance.Sign() == 0 {
			return out, nil
		}
		out.Executed = head.Time
	}
}
