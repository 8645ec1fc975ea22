package overview

import (
	"context"
	"fmt"
	"strings"
	"time"

	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-service/client"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/sources"
)

// RPC is op-node's, which serves each chain under /<chainID>.
type RPC struct {
	url     string
	timeout time.Duration // of a call
}

// NewRPC asks at a URL.
func NewRPC(url string, timeout time.Duration) *RPC {
	return &RPC{strings.TrimRight(url, "/"), timeout}
}

// SyncStatus is a chain's optimism_syncStatus.
func (r *RPC) SyncStatus(ctx context.Context, chain uint64) (*eth.SyncStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	url := fmt.Sprintf("%s/%d", r.url, chain)
	c, err := gethrpc.DialContext(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	defer c.Close()
	s, err := sources.NewRollupClient(client.NewBaseRPCClient(c)).SyncStatus(ctx)
	if err != nil {
		return nil, fmt.Errorf("optimism_syncStatus at %s: %w", url, err)
	}
	return s, nil
}
