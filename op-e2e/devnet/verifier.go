package devnet

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strconv"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
)

// Verifier is an op-node without a sequencer, with engines of its own: it follows the
// chains from L1 and, if it has peers, from gossip.
type Verifier struct {
	d       *Devnet
	engines map[uint64]l2Engine
	node    *service.Service
	eth     map[uint64]*ethclient.Client
	rollups map[uint64]*sources.RollupClient
}

// VerifierConfig says what a verifier runs on.
type VerifierConfig struct {
	// Name of its directory under the devnet's.
	Name string
	// Geth is the op-geth binary of its engines. Empty: embedded, the same code as the sequencer's.
	Geth string
	// P2P lets it have peers, see ConnectPeers.
	P2P bool
}

// StartVerifier starts a verifier from genesis. The caller stops it before the devnet.
func (d *Devnet) StartVerifier(ctx context.Context, cfg VerifierConfig) (_ *Verifier, err error) {
	v := &Verifier{
		d: d, engines: map[uint64]l2Engine{}, eth: map[uint64]*ethclient.Client{}, rollups: map[uint64]*sources.RollupClient{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Stop(context.WithoutCancel(ctx)))
		}
	}()
	dir, l := filepath.Join(d.dir, cfg.Name), d.log.New("verifier", cfg.Name)
	nc := nodeConfig{
		Dir: filepath.Join(dir, "node"), Genesis: d.genesis, JWT: devnetJWT(),
		L1:      l1Endpoints{Config: d.genesis.L1.Config, RPC: d.l1.HTTP(), Beacon: d.l1.Beacon()},
		Engines: map[uint64]string{}, P2P: cfg.P2P,
	}
	for _, id := range d.chains {
		ec := engineConfig{Chain: id, Genesis: d.genesis.L2[id], Dir: filepath.Join(dir, strconv.FormatUint(id, 10)), JWT: devnetJWT(), Log: l}
		if cfg.Geth != "" {
			g, err := startGeth(ctx, gethConfig{engineConfig: ec, Binary: cfg.Geth})
			if err != nil {
				return nil, err
			}
			v.engines[id] = g
		} else {
			e, err := startEmbedded(ec)
			if err != nil {
				return nil, err
			}
			v.engines[id] = e
		}
		nc.Engines[id] = v.engines[id].Auth()
		if v.eth[id], err = ethclient.DialContext(ctx, v.engines[id].HTTP()); err != nil {
			return nil, err
		}
	}
	nodeCfg, err := nc.config()
	if err != nil {
		return nil, err
	}
	if v.node, err = service.New(l.New("service", "op-node"), nodeCfg, service.Options{
		Version: "devnet", RequestStop: func(err error) { d.fail(fmt.Errorf("verifier %s asks to stop: %w", cfg.Name, err)) },
	}); err != nil {
		return nil, err
	}
	if err := v.node.Start(ctx); err != nil {
		return nil, err
	}
	for _, id := range d.chains {
		if v.rollups[id], err = rollupClient(ctx, v.NodeRPC(id), l); err != nil {
			return nil, err
		}
		if err := awaitSyncStatus(ctx, id, v.rollups[id]); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// NodeRPC is the op-node of a chain.
func (v *Verifier) NodeRPC(chain uint64) string {
	return v.node.NodeURL() + "/" + strconv.FormatUint(chain, 10)
}

// SyncStatus is what a chain's op-node says of its heads.
func (v *Verifier) SyncStatus(ctx context.Context, chain uint64) (*eth.SyncStatus, error) {
	return v.rollups[chain].SyncStatus(ctx)
}

// BlockHash is the hash of a block in the verifier's chain.
func (v *Verifier) BlockHash(ctx context.Context, chain, number uint64) (common.Hash, error) {
	return blockHash(ctx, v.eth[chain], chain, number)
}

// BlockHash is the hash of a canonical block.
func (d *Devnet) BlockHash(ctx context.Context, chain, number uint64) (common.Hash, error) {
	c, err := d.Eth(chain)
	if err != nil {
		return common.Hash{}, err
	}
	return blockHash(ctx, c, chain, number)
}

func blockHash(ctx context.Context, c *ethclient.Client, chain, number uint64) (common.Hash, error) {
	h, err := c.HeaderByNumber(ctx, new(big.Int).SetUint64(number))
	if err != nil {
		return common.Hash{}, fmt.Errorf("block %d of chain %d: %w", number, chain, err)
	}
	return h.Hash(), nil
}

// Stop stops the node, then the engines.
func (v *Verifier) Stop(ctx context.Context) error {
	var errs []error
	for _, c := range v.rollups {
		if c != nil {
			c.Close()
		}
	}
	for _, c := range v.eth {
		if c != nil {
			c.Close()
		}
	}
	if v.node != nil {
		errs = append(errs, v.node.Stop(ctx))
	}
	for _, e := range v.engines {
		stop, cancel := context.WithTimeout(ctx, engineStopTime)
		errs = append(errs, e.Stop(stop))
		cancel()
	}
	return errors.Join(errs...)
}
