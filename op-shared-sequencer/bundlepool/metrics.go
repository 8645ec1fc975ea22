package bundlepool

import (
	"errors"

	"github.com/ethereum/go-ethereum/common"
)

// Metrics counts what becomes of bundles. Its methods are called with the pool locked: they
// must not block, nor call it.
type Metrics interface {
	// BundleRefused: a bundle was not taken in, for a Reason.
	BundleRefused(reason string)
	// BundleBecame: a bundle has come to a state.
	BundleBecame(s State)
}

// Watcher is told of bundles that have come to another state. It is called while the pool is
// locked: it must not block, and must not ask the pool.
type Watcher interface {
	BundleChanged(hash common.Hash)
}

// NoMetrics drops everything.
type NoMetrics struct{}

func (NoMetrics) BundleRefused(string) {}
func (NoMetrics) BundleBecame(State)   {}

var reasons = []struct {
	err  error
	name string
}{
	{ErrPoolFull, "pool-full"},
	{ErrSenderLimit, "sender-limit"},
	{ErrEmpty, "empty"},
	{ErrTooManyItems, "too-many-items"},
	{ErrTooLarge, "too-large"},
	{ErrExpired, "expired"},
	{ErrTooFarAhead, "too-far-ahead"},
	{ErrUnknownChain, "unknown-chain"},
	{ErrMalformed, "malformed"},
	{ErrTxType, "transaction-type"},
	{ErrWrongChain, "wrong-chain"},
	{ErrSignature, "signature"},
	{ErrDuplicate, "duplicate"},
	{ErrNonceOrder, "nonce-order"},
	{ErrGas, "gas"},
	{ErrRelay, "relay"},
	{ErrInvalidTx, "invalid-transaction"},
	{ErrTerms, "terms"},
	{ErrCancelled, "cancelled"},
	{ErrUnderpriced, "underpriced"},
}

// Reason names why a bundle is not taken in, in one of a fixed set of words; "" for an error
// that is none of the pool's. The RPC and the metrics say the same.
func Reason(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return ""
}
