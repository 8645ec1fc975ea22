package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-service/client"
)

// Error codes of the session methods, which are part of op-geth's interface
// (eth/catalyst/session_api.go in the patch queue).
const (
	codeUnknownSession         = -39001
	codeTooManySessions        = -39002
	codeSessionExpired         = -39003
	codeUnknownParent          = -39004
	codeParentStateUnavailable = -39005
	codeForcedTx               = -39006
	codeUnknownSavepoint       = -39007
	codeBadTransaction         = -39008
	codeTooManyTransactions    = -39009
	codePoolBehind             = -39010
	codeUnknownSealedBlock     = -39011
	codeSealFailed             = -39012
	codeInsertFailed           = -39013
	codeCondition              = -39014
	codeNoCut                  = -39015
	codeUnknownOrder           = -39016
)

// Codes of JSON-RPC, of go-ethereum's server and of the Engine API.
const (
	codeMethodNotFound    = -32601
	codeTimeout           = -32002 // the server's own: the call may still be running
	codeInvalidAttributes = -38003
)

// errRefused: the engine turns the client away. Trying again does not help.
var errRefused = errors.New("engine refuses the connection: does it have another JWT secret, or is its clock off?")

// maxMessage is what the client takes in one WebSocket message: the engine's limit on
// a batch of answers.
const maxMessage = 256 << 20

// transport makes the calls: it adds the timeout and turns what can go wrong into the
// errors of this package. It is a client.RPC, so upstream's clients can use it.
type transport struct {
	rpc     *rpc.Client
	http    *http.Transport // own, so that Close can give its connections back
	timeout time.Duration
}

var _ client.RPC = (*transport)(nil)

func connect(ctx context.Context, addr string, jwtSecret [32]byte, opts *Options) (*transport, error) {
	ht := http.DefaultTransport.(*http.Transport).Clone()
	dialCtx, cancel := context.WithTimeout(ctx, opts.CallTimeout)
	defer cancel()
	c, err := rpc.DialOptions(dialCtx, addr,
		rpc.WithHTTPAuth(node.NewJWTAuth(jwtSecret)),
		rpc.WithHTTPClient(&http.Client{Transport: ht}),
		rpc.WithWebsocketMessageSizeLimit(maxMessage),
		rpc.WithRecorder(opts.Recorder))
	if err != nil {
		return nil, classify(ctx, dialCtx, "connect", err)
	}
	return &transport{rpc: c, http: ht, timeout: opts.CallTimeout}, nil
}

func (t *transport) Close() {
	t.rpc.Close()
	t.http.CloseIdleConnections()
}

type extraTimeKey struct{}

// withExtraTime gives the calls made with the context more time than the usual timeout.
func withExtraTime(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, extraTimeKey{}, d)
}

func (t *transport) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	extra, _ := ctx.Value(extraTimeKey{}).(time.Duration)
	return context.WithTimeout(ctx, t.timeout+extra)
}

// CallContext makes a call. A nil result is for methods that answer with nothing.
func (t *transport) CallContext(ctx context.Context, result any, method string, args ...any) error {
	callCtx, cancel := t.limit(ctx)
	defer cancel()
	// The answer is decoded here, so that an answer of an unknown shape is told from
	// a connection that broke.
	var raw json.RawMessage
	if err := t.rpc.CallContext(callCtx, &raw, method, args...); err != nil {
		return classify(ctx, callCtx, method, err)
	}
	return decode(method, raw, result)
}

func (t *transport) BatchCallContext(ctx context.Context, batch []rpc.BatchElem) error {
	callCtx, cancel := t.limit(ctx)
	defer cancel()
	raw := make([]json.RawMessage, len(batch))
	calls := make([]rpc.BatchElem, len(batch))
	for i, e := range batch {
		calls[i] = rpc.BatchElem{Method: e.Method, Args: e.Args, Result: &raw[i]}
	}
	if err := t.rpc.BatchCallContext(callCtx, calls); err != nil {
		return classify(ctx, callCtx, "batch", err)
	}
	for i := range batch {
		if err := calls[i].Error; err != nil {
			batch[i].Error = classify(ctx, callCtx, batch[i].Method, err)
		} else {
			batch[i].Error = decode(batch[i].Method, raw[i], batch[i].Result)
		}
	}
	return nil
}

func (t *transport) Subscribe(ctx context.Context, namespace string, channel any, args ...any) (ethereum.Subscription, error) {
	return t.rpc.Subscribe(ctx, namespace, channel, args...)
}

func decode(method string, raw json.RawMessage, result any) error {
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("%s: engine answered in another form than this version expects: %w", method, err)
	}
	return nil
}

// errorCode is the JSON-RPC code of an error, 0 if the engine did not answer with one.
func errorCode(err error) int {
	var coded rpc.Error
	if errors.As(err, &coded) {
		return coded.ErrorCode()
	}
	return 0
}

// classify gives an error of a call its meaning. ctx is the caller's, callCtx has the
// timeout of the call.
func classify(ctx, callCtx context.Context, method string, err error) error {
	if code := errorCode(err); code != 0 {
		var data rpc.DataError
		if errors.As(err, &data) && data.ErrorData() != nil {
			err = fmt.Errorf("%w (%v)", err, data.ErrorData())
		}
		if kind := kindOf(code); kind != nil {
			err = fmt.Errorf("%w: %w", kind, err)
		}
		return fmt.Errorf("%s: %w", method, err)
	}
	var status rpc.HTTPError
	switch {
	case ctx.Err() != nil: // the caller has given up
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	case callCtx.Err() != nil:
		return fmt.Errorf("%s: %w: no answer in time: %w", method, ErrUnavailable, err)
	case errors.As(err, &status):
		switch {
		case status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden:
			return fmt.Errorf("%s: %w: %w", method, errRefused, err)
		case status.StatusCode < 500:
			return fmt.Errorf("%s: %w", method, err)
		}
	case strings.Contains(err.Error(), "HTTP status 401") || strings.Contains(err.Error(), "HTTP status 403"):
		return fmt.Errorf("%s: %w: %w", method, errRefused, err) // go-ethereum's handshake error has no type
	}
	return fmt.Errorf("%s: %w: %w", method, ErrUnavailable, err)
}

// kindOf is what a code means to callers of an Engine; nil if they do not act on it.
func kindOf(code int) error {
	switch code {
	case codeUnknownParent:
		return ErrUnknownParent
	case codeParentStateUnavailable:
		return ErrParentState
	case codeForcedTx, codeInvalidAttributes:
		return ErrInvalidAttributes
	case codeUnknownSession, codeSessionExpired, codeSealFailed:
		return ErrSessionClosed
	case codePoolBehind:
		return ErrPoolBehind
	case codeCondition:
		return ErrCondition
	case codeUnknownSealedBlock:
		return ErrNotFound
	case codeTooManySessions, codeTimeout:
		return ErrUnavailable
	}
	return nil
}
