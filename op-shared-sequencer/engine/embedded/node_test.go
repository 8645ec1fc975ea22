package embedded_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// One pool per process, never stopped.
		goleak.IgnoreTopFunction("github.com/ethereum/go-ethereum/core.(*txSenderCacher).cache"),
		// Ends a second after its database was closed (op-geth's node database).
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
	)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	chain := enginetest.NewChain(901, 1)
	for want, cfg := range map[string]embedded.Config{
		"no chain ID":             {Genesis: chain.Genesis},
		"no genesis":              {Chain: 901},
		"genesis is chain 901's":  {Chain: 902, Genesis: chain.Genesis},
		"not a directory":         {Chain: 901, Genesis: chain.Genesis, DataDir: filepath.Join(file(t), "data")},
		"embedded op-geth of cha": {Chain: 901},
	} {
		_, err := embedded.Start(cfg)
		require.ErrorContains(t, err, want)
	}
}

func file(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	return path
}

// What a wallet finds on the public ports, and what it does not.
func TestPublicRPC(t *testing.T) {
	t.Parallel()
	chain := enginetest.NewChain(901, 1)
	n, err := embedded.Start(embedded.Config{
		Chain: 901, Genesis: chain.Genesis,
		HTTP: &embedded.Listen{}, WS: &embedded.Listen{Host: "127.0.0.1"}, P2P: &embedded.P2P{},
	})
	require.NoError(t, err)
	defer n.Close()
	require.NotZero(t, n.Enode().TCP())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, url := range []string{n.HTTPEndpoint(), n.WSEndpoint()} {
		c, err := rpc.DialContext(ctx, url)
		require.NoError(t, err)
		defer c.Close()
		var id hexutil.Uint64
		require.NoError(t, c.CallContext(ctx, &id, "eth_chainId"))
		require.EqualValues(t, 901, id)
		var logs []any
		require.NoError(t, c.CallContext(ctx, &logs, "eth_getLogs", map[string]any{"fromBlock": "0x0", "toBlock": "latest"}))
		var pool map[string]any
		require.NoError(t, c.CallContext(ctx, &pool, "txpool_status"))
		for _, private := range []string{"engine_sessionOpen", "engine_newPayloadV4", "admin_peers", "personal_listAccounts"} {
			require.ErrorContains(t, c.CallContext(ctx, nil, private), "does not exist", private)
		}
	}
	// Without the secret the authenticated port gives nothing.
	c, err := rpc.DialContext(ctx, n.AuthHTTPEndpoint())
	require.NoError(t, err)
	require.ErrorContains(t, c.CallContext(ctx, nil, "eth_chainId"), "401")
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	chain := enginetest.NewChain(901, 1)
	n, err := embedded.Start(embedded.Config{Chain: 901, Genesis: chain.Genesis})
	require.NoError(t, err)
	require.Empty(t, n.HTTPEndpoint())
	require.Empty(t, n.WSEndpoint())
	require.Nil(t, n.Enode())
	require.Zero(t, n.Peers())
	e := n.Engine()
	ctx := context.Background()
	head, err := e.Head(ctx)
	require.NoError(t, err)
	s, err := e.Open(ctx, head.ID(), chain.Attributes(head))
	require.NoError(t, err)
	e.Close()
	_, err = e.Head(ctx)
	require.NoError(t, err, "the node is its owner's to close")

	require.NoError(t, n.Close())
	_, err = e.Head(ctx)
	require.ErrorIs(t, err, engine.ErrUnavailable)
	_, err = s.Seal(ctx)
	require.ErrorIs(t, err, engine.ErrSessionClosed)
	require.NoError(t, s.Discard(ctx))
	require.Error(t, n.Close(), "closed already")
}
