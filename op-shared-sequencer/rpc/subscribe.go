package rpc

import (
	"context"
	"errors"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/stream"
)

// Feed tells of what is agreed on. stream.Feed is one.
type Feed interface {
	// Subscribe fails with stream.ErrFull or stream.ErrClosed.
	Subscribe(remote string) (*stream.Subscription, error)
}

// ReceiptFilter chooses receipts. Without hashes it takes all of the chain.
type ReceiptFilter struct {
	ChainID           hexutil.Uint64 `json:"chainId"`
	TransactionHashes []common.Hash  `json:"transactionHashes"`
}

// BundleFilter chooses bundles. Without a hash it takes all that this operator has.
type BundleFilter struct {
	BundleHash *common.Hash `json:"bundleHash"`
}

// Ended is the last notification of a subscription that the node ends: the subscriber has to
// make another one, and what happened in between is not told.
type Ended struct {
	Error *EndedError `json:"error"`
}

// EndedError says why.
type EndedError struct {
	Code    int    `json:"code"` // CodeSubscription
	Message string `json:"message"`
}

// subscriptions are the namespace's subscriptions, each a method.
type subscriptions struct{ api *API }

// maxFilter is how many transactions one subscription may name.
const maxFilter = 256

// Subblocks is sharedseq_subscribe("subblocks"): every subblock, when it is agreed on.
//
//	params: ["subblocks"]
//	notifications: Subblock; at last perhaps Ended
func (m *subscriptions) Subblocks(ctx context.Context) (*gethrpc.Subscription, error) {
	return m.subscribe(ctx, func(e *stream.Event) []any {
		if e.Subblock == nil {
			return nil
		}
		return []any{e.Subblock.JSON()}
	})
}

// Receipts is sharedseq_subscribe("receipts"): receipts of a chain, when the subblock with their
// transaction is agreed on.
//
//	params: ["receipts", {"chainId": "0x385", "transactionHashes": ["0x…"]}]   // hashes optional, at most 256
//	notifications: lists of receipts, one list for each subblock that has any; at last perhaps Ended
func (m *subscriptions) Receipts(ctx context.Context, filter ReceiptFilter) (*gethrpc.Subscription, error) {
	if len(filter.TransactionHashes) > maxFilter {
		return nil, invalidParams("%d transaction hashes, expected at most %d", len(filter.TransactionHashes), maxFilter)
	}
	if id := sequence.ChainID(filter.ChainID); !slices.Contains(m.api.cfg.Chains, id) {
		return nil, invalidParams("chain %s is not one of %v", id, m.api.cfg.Chains)
	}
	wanted := make(map[common.Hash]bool, len(filter.TransactionHashes))
	for _, hash := range filter.TransactionHashes {
		wanted[hash] = true
	}
	return m.subscribe(ctx, func(e *stream.Event) []any {
		if e.Subblock == nil {
			return nil
		}
		var out []any
		for _, r := range e.Subblock.Receipts(sequence.ChainID(filter.ChainID)) {
			if len(wanted) == 0 || wanted[r.Hash] {
				out = append(out, r.JSON)
			}
		}
		if out == nil {
			return nil
		}
		return []any{out}
	})
}

// Bundles is sharedseq_subscribe("bundles"): the status of bundles, when it changes.
//
//	params: ["bundles", {"bundleHash": "0x…"}]   // optional
//	notifications: BundleStatus; at last perhaps Ended
func (m *subscriptions) Bundles(ctx context.Context, filter *BundleFilter) (*gethrpc.Subscription, error) {
	return m.subscribe(ctx, func(e *stream.Event) []any {
		if e.Bundle == nil || (filter != nil && filter.BundleHash != nil && *filter.BundleHash != e.Bundle.Hash) {
			return nil
		}
		return []any{newBundleStatus(e.Bundle)}
	})
}

// subscribe tells a connection what pick takes from each event. The goroutine ends with the
// connection, the subscription, or the feed.
func (m *subscriptions) subscribe(ctx context.Context, pick func(*stream.Event) []any) (*gethrpc.Subscription, error) {
	notifier, ok := gethrpc.NotifierFromContext(ctx)
	if !ok {
		return nil, gethrpc.ErrNotificationsUnsupported
	}
	if err := m.api.admit(ctx, costSubscribe); err != nil {
		return nil, err
	}
	feed, err := m.api.feed.Subscribe(gethrpc.PeerInfoFromContext(ctx).RemoteAddr)
	if err != nil {
		return nil, &Error{Code: CodeSubscription, Message: err.Error()}
	}
	sub := notifier.CreateSubscription()
	go func() {
		defer feed.Close()
		for {
			select {
			case e, ok := <-feed.Events():
				if !ok {
					why := feed.Err()
					if why == nil {
						why = errors.New("it was ended")
					}
					_ = notifier.Notify(sub.ID, Ended{&EndedError{CodeSubscription, why.Error()}})
					return
				}
				for _, note := range pick(e) {
					if notifier.Notify(sub.ID, note) != nil {
						return // the connection is gone
					}
				}
			case <-sub.Err(): //nolint:errcheck // whoever listened has gone
				return
			}
		}
	}()
	return sub, nil
}
