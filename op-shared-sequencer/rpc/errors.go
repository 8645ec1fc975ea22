package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common/hexutil"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// Error codes of the namespace. They do not change.
const (
	CodeInvalidParams = -32602 // the request is not of the documented form
	CodeInternal      = -32603 // a fault of the operator's node
	CodeInvalidBundle = -38100 // the bundle can never be executed as it is; the error's data is ErrorData
	CodeExpired       = -38101 // its last slot has passed, or is too far ahead; data as above
	CodePoolFull      = -38102 // no room now: send it again later
	CodeSenderLimit   = -38103 // too many pending bundles of one sender: send it again later
	CodeUnknownBundle = -38104 // never received here, or ended too long ago
	CodeBusy          = -38105 // too many simulations, or one that takes too long: try again later
	CodeUnavailable   = -38106 // the sequencer cannot do it now, for the reason given
	CodeInvalidChange = -38107 // the set does not take this approval of a change; the error's data is ErrorData
	CodeCancelled     = -38108 // it was cancelled or replaced, and is not taken again
	CodeUnderpriced   = -38109 // another bundle waits under its replacement ID, and it bids too little to take its place
	CodeNotSender     = -38110 // a cancellation that no sender of the bundle signed
	CodeNotPending    = -38111 // the bundle does not wait any more
	CodeSubscription  = -38112 // there are too many subscriptions, or this one has ended
	CodeRate          = -38113 // too many requests from one address: slow down
)

// Error is an error of the namespace, on either side of the wire.
type Error struct {
	Code    int
	Message string // one line
	Data    *ErrorData
}

// ErrorData says which item of a bundle is meant, if it is about one, and what is wrong.
type ErrorData struct {
	Item    *hexutil.Uint64 `json:"item,omitempty"` // index; absent if the bundle as a whole is meant
	ChainID *hexutil.Uint64 `json:"chainId,omitempty"`
	// Kind is one of a fixed set of words for the fault, such as "nonce-order".
	Kind string `json:"kind"`
}

func (e *Error) Error() string  { return e.Message }
func (e *Error) ErrorCode() int { return e.Code }

// ErrorData is for the RPC server.
func (e *Error) ErrorData() any {
	if e.Data == nil {
		return nil
	}
	return e.Data
}

// changeKinds names the reasons why an approval of a change is not taken.
var changeKinds = []struct {
	err  error
	name string
}{
	{operators.ErrMalformed, "malformed"},
	{operators.ErrNotOperator, "not-operator"},
	{operators.ErrDuplicate, "duplicate"},
	{operators.ErrEnded, "ended"},
	{operators.ErrExpiry, "expiry"},
	{operators.ErrNotApplicable, "not-applicable"},
	{operators.ErrLimit, "limit"},
}

// toRPC gives an error its code.
func toRPC(err error) *Error {
	var invalid *bundlepool.InvalidError
	out := &Error{Code: CodeInternal, Message: err.Error()}
	switch {
	case errors.As(err, &invalid):
		out.Code = CodeInvalidBundle
		if errors.Is(err, bundlepool.ErrExpired) || errors.Is(err, bundlepool.ErrTooFarAhead) {
			out.Code = CodeExpired
		}
		out.Data = &ErrorData{Kind: bundlepool.Reason(invalid.Kind)}
		if invalid.Item >= 0 {
			item, chain := hexutil.Uint64(invalid.Item), hexutil.Uint64(invalid.Chain)
			out.Data.Item, out.Data.ChainID = &item, &chain
		}
	case errors.Is(err, bundlepool.ErrPoolFull):
		out.Code = CodePoolFull
	case errors.Is(err, bundlepool.ErrSenderLimit):
		out.Code = CodeSenderLimit
	case errors.Is(err, bundlepool.ErrUnknownBundle):
		out.Code = CodeUnknownBundle
	case errors.Is(err, bundlepool.ErrCancelled):
		out.Code = CodeCancelled
	case errors.Is(err, bundlepool.ErrUnderpriced):
		out.Code = CodeUnderpriced
	case errors.Is(err, bundlepool.ErrNotSender):
		out.Code = CodeNotSender
	case errors.Is(err, bundlepool.ErrNotPending):
		out.Code = CodeNotPending
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled):
		out.Code = CodeUnavailable
	default:
		for _, k := range changeKinds {
			if errors.Is(err, k.err) {
				out.Code, out.Data = CodeInvalidChange, &ErrorData{Kind: k.name}
				break
			}
		}
	}
	return out
}

// fromRPC gives a client the error the server meant, if it is one of the namespace.
func fromRPC(method string, err error) error {
	if err == nil {
		return nil
	}
	var coded gethrpc.Error
	if errors.As(err, &coded) {
		out := &Error{Code: coded.ErrorCode(), Message: coded.Error()}
		var withData gethrpc.DataError
		if errors.As(err, &withData) && withData.ErrorData() != nil {
			if raw, err := json.Marshal(withData.ErrorData()); err == nil {
				data := new(ErrorData)
				if json.Unmarshal(raw, data) == nil {
					out.Data = data
				}
			}
		}
		err = out
	}
	return fmt.Errorf("%s_%s: %w", Namespace, method, err)
}

// ErrorCode is the code of an error that a Client returned, 0 if it has none.
func ErrorCode(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
