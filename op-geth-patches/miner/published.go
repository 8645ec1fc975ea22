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

package miner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/trie"
)

// ErrNoCut: what is to be published is not where Commitment last found the block.
var ErrNoCut = errors.New("the block was not committed to at that length")

// cut is a block under construction where Commitment found it. It is not changed any more.
type cut struct {
	params   *generateParams
	header   *types.Header
	txs      []*types.Transaction
	receipts []*types.Receipt
	// These are worked out when they are first asked for.
	view  func() (*publishedView, error)
	state func() (*state.StateDB, error) // to be copied
}

func (s *Session) newCut() *cut {
	c := &cut{params: s.params, header: types.CopyHeader(s.env.header), txs: slices.Clone(s.env.txs), receipts: slices.Clone(s.env.receipts)}
	c.view = sync.OnceValues(func() (*publishedView, error) { return newPublishedView(s.miner.chainConfig, c) })
	c.state = sync.OnceValues(func() (*state.StateDB, error) { return s.miner.published.state(s.miner, c) })
	return c
}

// follows says whether the transactions of another cut of the same session come first in c.
func (c *cut) follows(before *cut) bool {
	n := len(before.txs)
	return c.params == before.params && n <= len(c.txs) && (n == 0 || c.txs[n-1] == before.txs[n-1])
}

// Publish makes the block's first transactions what is pending on the chain, until its head
// changes or the session is discarded: the operators have agreed on them. Commitment must have
// been asked for when there were that many. It does not wait for whatever the session does.
func (s *Session) Publish(txs int) error {
	c := s.cut.Load()
	if c == nil || len(c.txs) != txs {
		return fmt.Errorf("%w: %d transactions", ErrNoCut, txs)
	}
	s.miner.published.set(c)
	return nil
}

// published is the block that is agreed on in part. Its state is only worked out, by running
// the transactions a second time, when somebody asks for it: those who build the block never
// wait for those who look at it.
type published struct {
	mu  sync.Mutex
	cut *cut      // nil: nothing is published
	at  time.Time // when it was

	running sync.Mutex   // of the rest
	ran     *cut         // what env has run
	env     *environment // nil: nothing
}

// publishedView is a cut as it is looked at.
type publishedView struct {
	*cut
	block  *types.Block
	shown  []*types.Receipt // copies of the receipts, with the fields that RPC adds
	index  map[common.Hash]int
	nonces map[common.Address]uint64 // next ones, of senders
}

func (p *published) set(c *cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == nil || p.cut.params != c.params || len(c.txs) >= len(p.cut.txs) { // else it is told late
		p.cut, p.at = c, time.Now()
	}
}

// publishedAge is how long something is shown as pending that nothing follows on: its block
// was given up, and nobody told.
const publishedAge = 10 * time.Second

// forget drops what was published of a session that came to nothing.
func (p *published) forget(of *generateParams) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut != nil && p.cut.params == of {
		p.cut = nil
	}
}

// current is what is published on top of the chain's head, nil if nothing is.
func (p *published) current(miner *Miner) *cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut != nil && (p.cut.header.ParentHash != miner.chain.CurrentBlock().Hash() || time.Since(p.at) > publishedAge) {
		p.cut = nil
		if p.running.TryLock() { // else whoever runs it is followed by another
			p.drop()
			p.running.Unlock()
		}
	}
	return p.cut
}

// look is current, as it is looked at.
func (p *published) look(miner *Miner) *publishedView {
	c := p.current(miner)
	if c == nil {
		return nil
	}
	v, err := c.view()
	if err != nil {
		log.Warn("Published transactions cannot be looked at", "block", c.header.Number, "err", err)
		return nil
	}
	return v
}

func newPublishedView(config *params.ChainConfig, c *cut) (*publishedView, error) {
	v := &publishedView{cut: c, index: make(map[common.Hash]int, len(c.txs)), nonces: map[common.Address]uint64{}}
	h := c.header
	signer := types.MakeSigner(config, h.Number, h.Time)
	for i, tx := range c.txs {
		v.index[tx.Hash()] = i
		if tx.IsDepositTx() {
			continue // the pool does not count them either
		}
		from, err := types.Sender(signer, tx)
		if err != nil {
			return nil, err
		}
		v.nonces[from] = tx.Nonce() + 1
	}
	header := types.CopyHeader(h)
	if header.WithdrawalsHash == nil && config.IsIsthmus(h.Time) {
		header.WithdrawalsHash = new(common.Hash)
	}
	body := &types.Body{Transactions: c.txs, Withdrawals: c.params.withdrawals}
	v.block = types.NewBlock(header, body, c.receipts, trie.NewStackTrie(nil), config)
	v.shown = receiptsOf(common.Hash{}, c.receipts)
	return v, types.Receipts(v.shown).DeriveFields(config, common.Hash{}, h.Number.Uint64(), h.Time, h.BaseFee, nil, c.txs)
}

// pending is what Miner.Pending answers with while something is published: the block so far,
// whose state root and hash are not known yet.
func (p *published) pending(miner *Miner) (*types.Block, types.Receipts, *state.StateDB) {
	v := p.look(miner)
	if v == nil {
		return nil, nil, nil
	}
	db, err := v.state()
	if err != nil {
		log.Warn("State of the published transactions cannot be worked out", "block", v.header.Number, "err", err)
		return nil, nil, nil
	}
	return v.block, v.shown, db.Copy()
}

// state is a copy of the state behind a cut. Transactions that were run for an earlier cut of
// the session are not run again.
func (p *published) state(miner *Miner, c *cut) (*state.StateDB, error) {
	p.running.Lock()
	defer p.running.Unlock()
	if p.env != nil && !c.follows(p.ran) {
		p.drop()
	}
	ctx := context.Background()
	if p.env == nil {
		env, err := miner.openEnvironment(ctx, c.params)
		if err != nil {
			return nil, err
		}
		env.noTxs = true // they were checked when they were agreed on
		p.env = env
	}
	for _, tx := range c.txs[p.env.tcount:] {
		p.env.state.SetTxContext(tx.Hash(), p.env.tcount)
		err := miner.commitTransaction(ctx, p.env, tx)
		if err == nil {
			err = p.env.state.Error()
		}
		if err != nil {
			p.drop()
			return nil, fmt.Errorf("transaction %s: %w", tx.Hash(), err)
		}
	}
	p.ran = c
	return p.env.state.Copy(), nil
}

func (p *published) drop() {
	if p.env != nil {
		p.env.discard()
	}
	p.env, p.ran = nil, nil
}

// PublishedReceipt finds the receipt of a published transaction, whose block has no hash yet.
// nil if there is none.
func (miner *Miner) PublishedReceipt(hash common.Hash) (*types.Transaction, *types.Receipt, *types.Header) {
	v := miner.published.look(miner)
	if v == nil {
		return nil, nil, nil
	}
	i, ok := v.index[hash]
	if !ok {
		return nil, nil, nil
	}
	return v.txs[i], v.shown[i], v.header
}

// PublishedNonce is an account's next nonce: after its published transactions, or on the head.
// Transactions of bundles were never in the pool, and it is some milliseconds behind whenever
// the head changes. A state that is not there, as in a snap sync, counts as zero.
func (miner *Miner) PublishedNonce(from common.Address) uint64 {
	var next uint64
	if v := miner.published.look(miner); v != nil {
		next = v.nonces[from]
	}
	// After the look: what is published goes when its block becomes the head.
	if db, err := miner.chain.State(); err == nil {
		next = max(next, db.GetNonce(from))
	}
	return next
}
