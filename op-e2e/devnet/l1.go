package devnet

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/beacon/engine"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/event"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/miner"
	"github.com/ethereum/go-ethereum/node"

	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/blobstore"
	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/fakebeacon"
	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/geth"
	"github.com/ethereum-optimism/optimism/op-service/clock"
)

// l1FinalizedDistance is how many blocks the finalized L1 block is behind the head.
// It bounds how deep Reorg may go, and how far derivation walks back after a reset.
const l1FinalizedDistance = 20

// L1 is an in-process geth with upstream's fake proof of stake, and a beacon API that
// serves the blobs of its blocks. All of it lives in one directory and goes on from
// there: after a pause of up to five minutes the missed blocks are made, two a second;
// after a longer one the chain jumps to the present. Blocks made to catch up are empty.
type L1 struct {
	geth      *geth.GethInstance
	pos       *geth.FakePoS
	beacon    *fakebeacon.FakeBeacon
	api       *catalyst.ConsensusAPI
	blockTime uint64
	heads     event.Subscription
	syncing   sync.WaitGroup
}

// minL1BlockTime: the fake proof of stake starts a block one second after the last one's
// time and takes what is there at the new one's. With one-second blocks it would take
// every block at once, empty.
const minL1BlockTime = 2

// L1Config says where L1 lives and listens. Port 0 takes a free one.
type L1Config struct {
	Dir        string
	Genesis    *core.Genesis
	Host       string // address to listen on; empty: 127.0.0.1
	BlockTime  uint64 // seconds, at least 2
	HTTPPort   int
	WSPort     int
	BeaconPort int
	Log        log.Logger
}

// StartL1 opens the chain in cfg.Dir, from genesis if the directory is empty.
func StartL1(cfg L1Config) (*L1, error) {
	if cfg.BlockTime < minL1BlockTime {
		return nil, fmt.Errorf("L1 block time of %d s: the least is %d s", cfg.BlockTime, minL1BlockTime)
	}
	host := cmp.Or(cfg.Host, "127.0.0.1")
	beacon := fakebeacon.NewBeacon(cfg.Log.New("service", "l1-beacon"), blobstore.New(), cfg.Genesis.Timestamp, cfg.BlockTime)
	blobs, err := openBlobFiles(filepath.Join(cfg.Dir, "blobs"), beacon)
	if err != nil {
		return nil, fmt.Errorf("L1 blob store: %w", err)
	}
	if err := beacon.Start(net.JoinHostPort(host, strconv.Itoa(cfg.BeaconPort))); err != nil {
		return nil, fmt.Errorf("L1 beacon API: %w", err)
	}
	setup := func(ec *ethconfig.Config, nc *node.Config) error {
		nc.DataDir = filepath.Join(cfg.Dir, "geth")
		nc.AuthAddr, nc.AuthPort = "127.0.0.1", 0 // else every L1 on the machine wants 8551
		nc.HTTPHost, nc.WSHost = host, host
		nc.HTTPPort, nc.WSPort = cfg.HTTPPort, cfg.WSPort
		nc.HTTPVirtualHosts, nc.HTTPCors, nc.WSOrigins = []string{"*"}, []string{"*"}, []string{"*"}
		nc.IPCPath = ""
		nc.HTTPModules = []string{"eth", "net", "web3", "debug", "txpool"}
		nc.WSModules = nc.HTTPModules
		nc.P2P.NoDiscovery, nc.P2P.NoDial, nc.P2P.ListenAddr = true, true, ""
		nc.Logger = cfg.Log.New("service", "l1")
		// Left at zero, the gas limit falls block by block until no batch fits any more.
		ec.Miner.GasCeil = cfg.Genesis.GasLimit
		ec.SlowBlockThreshold = -1 // 0 logs every block
		ec.TxPool.Journal = ""     // transactions of batchers that a crash lost are sent again by them
		return nil
	}
	g, pos, err := geth.InitL1(cfg.BlockTime, l1FinalizedDistance, cfg.Genesis, clock.SystemClock,
		filepath.Join(cfg.Dir, "blobpool"), blobs, setup)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("L1 geth: %w", err), closeBeacon(beacon))
	}
	if err := g.Node.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("L1 geth: %w", err), g.Close(), closeBeacon(beacon))
	}
	l := &L1{geth: g, pos: pos, beacon: beacon, api: catalyst.NewConsensusAPI(g.Backend), blockTime: cfg.BlockTime}
	l.syncHeads(cfg.Log)
	return l, nil
}

// syncHeads writes every block to disk. geth leaves it in memory for a while; a crash
// would take more of L1 back than any L1 loses, with the L2 blocks that stand on it.
func (l *L1) syncHeads(logger log.Logger) {
	heads := make(chan core.ChainHeadEvent, 16)
	l.heads = l.geth.Backend.BlockChain().SubscribeChainHeadEvent(heads)
	ended := l.heads.Err()
	l.syncing.Go(func() {
		for {
			select {
			case err := <-ended: // nil: it was ended here
				if err != nil {
					logger.Error("L1 blocks are no longer written at once", "err", err)
				}
				return
			case h := <-heads:
				if err := l.geth.Backend.ChainDb().SyncKeyValue(); err != nil {
					logger.Error("L1 block is not on disk", "block", h.Header.Number, "err", err)
				}
			}
		}
	})
}

// HTTP is the JSON-RPC endpoint.
func (l *L1) HTTP() string { return l.geth.Node.HTTPEndpoint() }

// WS is the JSON-RPC endpoint over WebSocket.
func (l *L1) WS() string { return l.geth.Node.WSEndpoint() }

// Beacon is the endpoint of the beacon API.
func (l *L1) Beacon() string { return l.beacon.BeaconAddr() }

// Head is the newest block.
func (l *L1) Head() *types.Header { return l.geth.Backend.BlockChain().CurrentBlock() }

// Header is the canonical block of that number, nil if there is none.
func (l *L1) Header(number uint64) *types.Header {
	return l.geth.Backend.BlockChain().GetHeaderByNumber(number)
}

// Pause stops making blocks, Resume goes on.
func (l *L1) Pause() error  { return l.pos.Stop() }
func (l *L1) Resume() error { return l.pos.Start() }

// Reorg replaces the newest depth blocks by depth+extra empty ones; their transactions
// go back to the pool. It returns the head before and after.
func (l *L1) Reorg(ctx context.Context, depth, extra uint64) (from, to *types.Header, err error) {
	if err := l.pos.Stop(); err != nil { // returns when no block is under way
		return nil, nil, fmt.Errorf("pause L1: %w", err)
	}
	defer func() { err = errors.Join(err, l.pos.Start()) }()

	bc := l.geth.Backend.BlockChain()
	from = bc.CurrentBlock()
	head, final := from.Number.Uint64(), bc.CurrentFinalBlock()
	if depth > head || (final != nil && head-depth < final.Number.Uint64()) {
		return nil, nil, fmt.Errorf("L1 reorg of %d blocks from head %d would pass the finalized block", depth, head)
	}
	parent := bc.GetHeaderByNumber(head - depth)
	for i := uint64(0); i < depth+extra; i++ {
		if parent, err = l.emptyBlock(ctx, parent); err != nil {
			return nil, nil, fmt.Errorf("L1 reorg, block %d of the new branch: %w", i, err)
		}
	}
	fc := engine.ForkchoiceStateV1{HeadBlockHash: parent.Hash()}
	// The safe block trails by a fixed distance and may be on the branch that goes.
	if safe := bc.CurrentSafeBlock(); safe != nil && safe.Number.Uint64() <= head-depth {
		fc.SafeBlockHash = safe.Hash()
	} else if final != nil {
		fc.SafeBlockHash = final.Hash()
	}
	if final != nil {
		fc.FinalizedBlockHash = final.Hash()
	}
	res, err := l.api.ForkchoiceUpdatedV3(ctx, fc, nil)
	if err != nil || res.PayloadStatus.Status != engine.VALID {
		return nil, nil, fmt.Errorf("L1 reorg, forkchoice: status %q: %w", res.PayloadStatus.Status, err)
	}
	return from, bc.CurrentBlock(), nil
}

// emptyBlock stores a block without transactions on parent, which differs from every
// block the fake proof of stake makes there.
func (l *L1) emptyBlock(ctx context.Context, parent *types.Header) (*types.Header, error) {
	var seed [16]byte
	binary.BigEndian.PutUint64(seed[:8], parent.Number.Uint64())
	binary.BigEndian.PutUint64(seed[8:], uint64(time.Now().UnixNano()))
	root := crypto.Keccak256Hash(seed[:])
	payload, err := l.geth.Backend.Miner().BuildPayload(ctx, &miner.BuildPayloadArgs{
		Parent: parent.Hash(), Timestamp: parent.Time + l.blockTime, BeaconRoot: &root,
		Withdrawals: types.Withdrawals{}, NoTxPool: true, Version: engine.PayloadV3,
	}, false)
	if err != nil {
		return nil, err
	}
	data := payload.ResolveFull().ExecutionPayload // op-geth leaves the "empty" payload nil
	st, err := l.api.NewPayloadV4(ctx, *data, []common.Hash{}, &root, []hexutil.Bytes{})
	if err != nil {
		return nil, err
	}
	if st.Status != engine.VALID {
		return nil, fmt.Errorf("payload status %s", st.Status)
	}
	return l.geth.Backend.BlockChain().GetHeaderByHash(data.BlockHash), nil
}

// Close stops L1. The directory can be opened again.
func (l *L1) Close() error {
	l.heads.Unsubscribe() // before the database closes
	l.syncing.Wait()
	return errors.Join(l.geth.Close(), closeBeacon(l.beacon))
}

// closeBeacon leaves out the error that upstream's Close makes by closing its listener twice.
func closeBeacon(b *fakebeacon.FakeBeacon) error {
	if err := b.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
