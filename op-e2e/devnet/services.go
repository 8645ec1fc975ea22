package devnet

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-batcher/batcher"
	batcherflags "github.com/ethereum-optimism/optimism/op-batcher/flags"
	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/setuputils"
	"github.com/ethereum-optimism/optimism/op-node/rollup/derive"
	"github.com/ethereum-optimism/optimism/op-proposer/proposer"
	"github.com/ethereum-optimism/optimism/op-service/cliapp"
	"github.com/ethereum-optimism/optimism/op-service/endpoint"
	oplog "github.com/ethereum-optimism/optimism/op-service/log"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
)

// superPermissionedGame is the only dispute game type of an interop genesis: super
// roots, with a permissioned proposer.
const superPermissionedGame = 5

// activeCheck is how often batchers and proposer look whether the operator they ask still
// answers; else they go on with another.
const activeCheck = 2 * time.Second

// startBatcher runs a stock op-batcher, tuned to bring blocks to L1 within a few seconds.
// l2 and rollup are the operators', in the same order.
func startBatcher(ctx context.Context, chain uint64, l1 string, l2, rollup []string, key *ecdsa.PrivateKey, blobs bool, l log.Logger) (*batcher.BatcherService, error) {
	cfg := &batcher.CLIConfig{
		L1EthRpc: l1, L2EthRpc: l2, RollupRpc: rollup,
		MaxPendingTransactions: 7,
		MaxChannelDuration:     1, // a channel per L1 block
		MaxL1TxSize:            120_000,
		TargetNumFrames:        1,
		ApproxComprRatio:       0.4,
		SubSafetyMargin:        4,
		PollInterval:           500 * time.Millisecond,
		TxMgrConfig:            setuputils.NewTxMgrConfig(endpoint.URL(l1), key),
		LogConfig:              oplog.CLIConfig{Level: log.LevelInfo, Format: oplog.FormatText},
		BatchType:              derive.SpanBatchType,
		MaxBlocksPerSpanBatch:  10,
		DataAvailabilityType:   batcherflags.CalldataType,
		CompressionAlgo:        derive.Brotli,
		RPC:                    oprpc.CLIConfig{ListenAddr: "127.0.0.1", EnableAdmin: true},
	}
	if len(rollup) > 1 {
		cfg.ActiveSequencerCheckDuration = activeCheck
	}
	if blobs {
		cfg.DataAvailabilityType = batcherflags.BlobsType
	}
	l = l.New("service", "op-batcher", "chain", chain)
	b, err := batcher.BatcherServiceFromCLIConfig(ctx, func(err error) { l.Error("op-batcher asks to stop", "err", err) }, "devnet", cfg, l)
	if err != nil {
		return nil, fmt.Errorf("op-batcher of chain %d: %w", chain, err)
	}
	if err := b.Start(ctx); err != nil {
		return nil, fmt.Errorf("op-batcher of chain %d: %w", chain, err)
	}
	return b, nil
}

// startProposer runs a stock op-proposer on super roots.
func startProposer(ctx context.Context, l1 string, superNodes []string, factory common.Address, interval time.Duration, key *ecdsa.PrivateKey, l log.Logger) (*proposer.ProposerService, error) {
	p, err := proposer.ProposerServiceFromCLIConfig(ctx, "devnet", &proposer.CLIConfig{
		L1EthRpc: l1, SuperRootRpcs: superNodes,
		PollInterval: 500 * time.Millisecond, AllowNonFinalized: true,
		TxMgrConfig:                  setuputils.NewTxMgrConfig(endpoint.URL(l1), key),
		RPCConfig:                    oprpc.CLIConfig{ListenAddr: "127.0.0.1"},
		LogConfig:                    oplog.CLIConfig{Level: log.LevelInfo, Format: oplog.FormatText},
		DGFAddress:                   factory.Hex(),
		ProposalInterval:             interval,
		DisputeGameType:              superPermissionedGame,
		ActiveSequencerCheckDuration: 5 * time.Second,
	}, l.New("service", "op-proposer"))
	if err != nil {
		return nil, fmt.Errorf("op-proposer: %w", err)
	}
	if err := p.Start(ctx); err != nil {
		return nil, fmt.Errorf("op-proposer: %w", err)
	}
	return p, nil
}

// stopNow stops a service without letting it finish its work on L1: a devnet that is
// being stopped does not wait for L1 blocks.
func stopNow(s cliapp.Lifecycle) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Stop(ctx)
}
