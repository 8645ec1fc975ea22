package rpc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// DefaultPoll is how often WaitBundle asks.
const DefaultPoll = 100 * time.Millisecond

// Client calls the sharedseq_* namespace. Errors of the server are *Error, see ErrorCode.
type Client struct {
	rpc  *gethrpc.Client
	poll time.Duration
}

// Dial connects to an operator: http, https, ws, wss or a path of an IPC socket.
func Dial(ctx context.Context, url string) (*Client, error) {
	c, err := gethrpc.DialContext(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("dialing the shared sequencer at %s: %w", url, err)
	}
	return NewClient(c, DefaultPoll), nil
}

// NewClient uses a connection, and closes it in Close. WaitBundle asks every poll.
func NewClient(c *gethrpc.Client, poll time.Duration) *Client { return &Client{c, poll} }

// Close ends the connection.
func (c *Client) Close() { c.rpc.Close() }

// SendBundle sends a bundle.
func (c *Client) SendBundle(ctx context.Context, args BundleArgs) (*SendResult, error) {
	return call[SendResult](ctx, c, "sendBundle", args)
}

// CancelBundle takes a bundle back, see CancelArgs.
func (c *Client) CancelBundle(ctx context.Context, hash common.Hash, signature []byte) (*BundleStatus, error) {
	return call[BundleStatus](ctx, c, "cancelBundle", CancelArgs{hash, signature})
}

// Bundle asks for a bundle as it was sent.
func (c *Client) Bundle(ctx context.Context, hash common.Hash) (*Bundle, error) {
	return call[Bundle](ctx, c, "getBundle", hash)
}

// BundleStatus asks what became of a bundle.
func (c *Client) BundleStatus(ctx context.Context, hash common.Hash) (*BundleStatus, error) {
	return call[BundleStatus](ctx, c, "bundleStatus", hash)
}

// SimulateBundle asks what a bundle would come to.
func (c *Client) SimulateBundle(ctx context.Context, args BundleArgs) (*Simulation, error) {
	return call[Simulation](ctx, c, "simulateBundle", args)
}

// Status asks how the sequencer is doing.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, c, "status")
}

// LeaderSchedule asks who proposes the next n subblocks, 1 to MaxTurns.
func (c *Client) LeaderSchedule(ctx context.Context, n uint64) ([]Turn, error) {
	turns, err := call[[]Turn](ctx, c, "leaderSchedule", hexutil.Uint64(n))
	if err != nil {
		return nil, err
	}
	return *turns, nil
}

// Operators asks for the set, and the changes of it that wait.
func (c *Client) Operators(ctx context.Context) (*Operators, error) {
	return call[Operators](ctx, c, "operators")
}

// Evidence asks what the operator has seen that proves others to be dishonest.
func (c *Client) Evidence(ctx context.Context) (*Evidence, error) {
	return call[Evidence](ctx, c, "evidence")
}

// SubmitChange sends an operator's approval of a change. The result is the change's ID.
func (c *Client) SubmitChange(ctx context.Context, change *operators.SignedChange) (common.Hash, error) {
	id, err := call[common.Hash](ctx, c, "submitChange", hexutil.Bytes(change.Encode()))
	if err != nil {
		return common.Hash{}, err
	}
	return *id, nil
}

// WaitBundle asks until the bundle is no longer pending: executed or safe, or failed,
// expired or undone, which is not an error here.
func (c *Client) WaitBundle(ctx context.Context, hash common.Hash) (*BundleStatus, error) {
	return c.wait(ctx, hash, func(s bundlepool.State) bool { return s != bundlepool.Pending })
}

// WaitBundleFinal asks until the bundle has come to its end: safe, failed, expired or undone.
func (c *Client) WaitBundleFinal(ctx context.Context, hash common.Hash) (*BundleStatus, error) {
	return c.wait(ctx, hash, bundlepool.State.Final)
}

func (c *Client) wait(ctx context.Context, hash common.Hash, done func(bundlepool.State) bool) (*BundleStatus, error) {
	ticker := time.NewTicker(c.poll)
	defer ticker.Stop()
	for {
		s, err := c.BundleStatus(ctx, hash)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// The context's deadline is also the connection's, which may notice it first.
			err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		if err != nil {
			return nil, fmt.Errorf("waiting for bundle %s: %w", hash, err)
		}
		if done(s.State) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("waiting for bundle %s, which is %s: %w", hash, s.State, ctx.Err())
		case <-ticker.C:
		}
	}
}

func call[T any](ctx context.Context, c *Client, method string, args ...any) (*T, error) {
	var out *T
	if err := c.rpc.CallContext(ctx, &out, Namespace+"_"+method, args...); err != nil {
		return nil, fromRPC(method, err)
	}
	if out == nil {
		return nil, fmt.Errorf("%s_%s: the server answered null", Namespace, method)
	}
	return out, nil
}
