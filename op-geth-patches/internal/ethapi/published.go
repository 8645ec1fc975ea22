// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package ethapi

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// publisher is a backend that knows what the operators have agreed on of the next block.
type publisher interface {
	PublishedReceipt(hash common.Hash) (*types.Transaction, *types.Receipt, *types.Header)
}

// publishedReceipt is the receipt of a transaction that is agreed on and in no block yet,
// nil if it is none. The hash of its block is zero.
func publishedReceipt(b Backend, hash common.Hash) map[string]interface{} {
	p, ok := b.(publisher)
	if !ok {
		return nil
	}
	tx, receipt, header := p.PublishedReceipt(hash)
	if tx == nil {
		return nil
	}
	signer := types.MakeSigner(b.ChainConfig(), header.Number, header.Time)
	return MarshalReceipt(receipt, common.Hash{}, header.Number.Uint64(), signer, tx, int(receipt.TransactionIndex), b.ChainConfig())
}

// publishedTransaction finds a transaction that is agreed on and in no block yet.
func publishedTransaction(b Backend, hash common.Hash) *types.Transaction {
	if p, ok := b.(publisher); ok {
		tx, _, _ := p.PublishedReceipt(hash)
		return tx
	}
	return nil
}
