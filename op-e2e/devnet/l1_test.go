package devnet

import (
	"bytes"
	"context"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto/kzg4844"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/blobstore"
	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/fakebeacon"
	opservice "github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testlog"
)

func testL1Genesis(t *testing.T) *core.Genesis {
	cfg := *params.MergedTestChainConfig
	cfg.OsakaTime, cfg.BPO1Time, cfg.BPO2Time = nil, nil, nil // as the genesis package makes it
	user, err := User(0)
	require.NoError(t, err)
	return &core.Genesis{
		Config: &cfg, GasLimit: 60_000_000, BaseFee: big.NewInt(1e9), Difficulty: new(big.Int),
		Timestamp: uint64(time.Now().Unix()), ExcessBlobGas: new(uint64), BlobGasUsed: new(uint64),
		Alloc: types.GenesisAlloc{
			user.Address:                 {Balance: new(big.Int).Mul(big.NewInt(1e18), big.NewInt(1e6))},
			params.BeaconRootsAddress:    {Nonce: 1, Code: params.BeaconRootsCode},
			params.HistoryStorageAddress: {Nonce: 1, Code: params.HistoryStorageCode},
			params.WithdrawalQueueAddress: {
				Nonce: 1, Code: params.WithdrawalQueueCode},
			params.ConsolidationQueueAddress: {Nonce: 1, Code: params.ConsolidationQueueCode},
		},
	}
}

// L1 makes blocks, goes on where it was when it is opened again, and a reorg replaces
// blocks without losing their transactions.
func TestL1(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := L1Config{Dir: t.TempDir(), Genesis: testL1Genesis(t), BlockTime: 2, Log: testlog.Logger(t, log.LevelWarn)}
	l1, err := StartL1(cfg)
	require.NoError(t, err)
	headAbove := func(n uint64) {
		require.NoError(t, WaitFor(ctx, "an L1 block", func(context.Context) (bool, error) { return l1.Head().Number.Uint64() > n, nil }))
	}
	headAbove(1)
	kept := l1.Header(2)
	require.NoError(t, l1.Close())

	l1, err = StartL1(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, l1.Close()) }()
	require.Equal(t, kept.Hash(), l1.Header(2).Hash(), "block 2 after opening again")
	headAbove(3)
	require.Equal(t, cfg.Genesis.GasLimit, l1.Head().GasLimit, "the gas limit stays")

	client, err := ethclient.DialContext(ctx, l1.HTTP())
	require.NoError(t, err)
	defer client.Close()
	user, err := User(0)
	require.NoError(t, err)
	tx, err := user.Sign(Tx{Chain: cfg.Genesis.Config.ChainID.Uint64(), To: common.Address{1}, Value: big.NewInt(1)})
	require.NoError(t, err)
	require.NoError(t, client.SendTransaction(ctx, tx))
	var before *types.Receipt
	require.NoError(t, WaitFor(ctx, "the transaction", func(context.Context) (ok bool, err error) {
		before, err = client.TransactionReceipt(ctx, tx.Hash())
		return err == nil, err
	}))
	depth := l1.Head().Number.Uint64() - before.BlockNumber.Uint64() + 2
	from, to, err := l1.Reorg(ctx, depth, 1)
	require.NoError(t, err)
	require.GreaterOrEqual(t, to.Number.Uint64(), from.Number.Uint64())
	require.NotEqual(t, before.BlockHash, l1.Header(before.BlockNumber.Uint64()).Hash(), "the block is replaced")
	require.NoError(t, WaitFor(ctx, "the transaction on the new branch", func(context.Context) (ok bool, err error) {
		again, err := client.TransactionReceipt(ctx, tx.Hash())
		return err == nil && again.BlockHash != before.BlockHash, err
	}))
	headAbove(to.Number.Uint64())

	_, _, err = l1.Reorg(ctx, l1.Head().Number.Uint64()+1, 0)
	require.ErrorContains(t, err, "finalized")
}

// Blobs are served again after a restart, and what a crash cut off is not in the way.
func TestBlobFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() (*blobFiles, *fakebeacon.FakeBeacon) {
		beacon := fakebeacon.NewBeacon(testlog.Logger(t, log.LevelWarn), blobstore.New(), 1000, 2)
		b, err := openBlobFiles(dir, beacon)
		require.NoError(t, err)
		return b, beacon
	}
	var blob kzg4844.Blob
	copy(blob[1:], "a batch")
	commitment, err := kzg4844.BlobToCommitment(&blob)
	require.NoError(t, err)
	files, _ := open()
	require.NoError(t, files.StoreBlobsBundle(7, &engine.BlobsBundle{
		Commitments: []hexutil.Bytes{commitment[:]}, Blobs: []hexutil.Bytes{blob[:]},
	}))

	_, beacon := open()
	require.NoError(t, beacon.Start("127.0.0.1:0"))
	defer func() { require.NoError(t, closeBeacon(beacon)) }()
	hash := opservice.KZGToVersionedHash(commitment)
	resp, err := http.Get(beacon.BeaconAddr() + "/eth/v1/beacon/blobs/7?versioned_hashes=" + url.QueryEscape(hash.Hex()))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.True(t, bytes.Contains(body, []byte(hexutil.Encode(blob[:])[2:])), "the blob is served")
}
