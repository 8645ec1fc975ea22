package devnet

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/client"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/sources"
)

func p2pClient(ctx context.Context, url string, l log.Logger) (*sources.P2PClient, error) {
	c, err := client.NewRPC(ctx, l, url)
	if err != nil {
		return nil, err
	}
	return sources.NewP2PClient(c), nil
}

// rollupClient speaks to a chain's op-node.
func rollupClient(ctx context.Context, url string, l log.Logger) (*sources.RollupClient, error) {
	c, err := client.NewRPC(ctx, l, url, client.WithLazyDial())
	if err != nil {
		return nil, err
	}
	return sources.NewRollupClient(c), nil
}

// superNodeClient speaks to the super root RPC.
func superNodeClient(ctx context.Context, url string, l log.Logger) (*sources.SuperNodeClient, error) {
	c, err := client.NewRPC(ctx, l, url, client.WithLazyDial())
	if err != nil {
		return nil, err
	}
	return sources.NewSuperNodeClient(c), nil
}

// safeAt says whether a chain's cross-safe head is at or past a timestamp, and whether
// its local-safe head is.
func safeAt(ctx context.Context, c *sources.RollupClient, timestamp uint64) (local, cross bool, err error) {
	st, err := c.SyncStatus(ctx)
	if err != nil {
		return false, false, fmt.Errorf("sync status: %w", err)
	}
	past := func(r eth.L2BlockRef) bool { return r.Hash != (eth.L2BlockRef{}).Hash && r.Time >= timestamp }
	return past(st.LocalSafeL2), past(st.SafeL2), nil
}

// awaitSyncStatus waits until a chain's op-node knows L1's head.
func awaitSyncStatus(ctx context.Context, chain uint64, c *sources.RollupClient) error {
	return WaitFor(ctx, fmt.Sprintf("op-node of chain %d", chain), func(ctx context.Context) (bool, error) {
		st, err := c.SyncStatus(ctx)
		return err == nil && st.HeadL1 != (eth.L1BlockRef{}), err
	})
}
