// Package embedded runs the patched op-geth inside this process: one chain's
// execution for devnets and tests, with everything a process of its own serves, and
// an engine.Engine that calls it without RPC.
package embedded

import (
	"cmp"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/txpool/legacypool"
	gethEth "github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/catalyst"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/p2p/enode"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Listen is where a server listens.
type Listen struct {
	Host string // default 127.0.0.1
	Port int    // 0: any free one
}

func (l Listen) host() string {
	if l.Host == "" {
		return "127.0.0.1"
	}
	return l.Host
}

// Config describes a node. Chain and Genesis are required.
type Config struct {
	Chain   sequence.ChainID
	Genesis *core.Genesis
	// DataDir keeps the chain, in the layout of `op-geth --datadir`. Empty: in memory.
	DataDir string
	// Archive writes the state of every block to the disk (hash scheme), so that a crash
	// loses no block. Without, op-geth keeps that of the newest 128 to 256 in memory.
	Archive   bool
	JWTSecret [32]byte // of the authenticated port
	Auth      Listen   // Engine API and sessions, HTTP and WebSocket on one port
	HTTP      *Listen  // public RPC; nil: none
	WS        *Listen  // public RPC; nil: none; may be the same port as HTTP's
	P2P       *P2P     // nil: no networking
	// Ingress is the URL that the pool asks before it takes a transaction in that executes
	// messages: supervisor_checkAccessList. Empty: it takes all.
	Ingress string
	Cache   Cache // zero fields take DefaultCache's values
	Log     log.Logger
}

// P2P is op-geth's own networking, without discovery. It carries transactions from pool
// to pool. Blocks come from the rollup node; peers only serve those that op-geth asks
// for when it is sent to a head it does not have.
type P2P struct {
	Listen
	// Key is the node's identity. nil: the one kept in DataDir, made when there is none.
	Key *ecdsa.PrivateKey
	// Peers are dialed until they answer, and stay peers whatever the limit on others is.
	Peers []*enode.Node
}

// Peer is a node as P2P.Peers names it.
func Peer(key *ecdsa.PublicKey, ip net.IP, port int) *enode.Node {
	return enode.NewV4(key, ip, port, 0)
}

// Cache sizes in MB.
type Cache struct {
	Database int // blocks of the database, and twice as much for its tables in memory
	State    int // state read, and state not written yet, each
	Snapshot int // flat state read
}

// DefaultCache is for a few engines in one process: op-geth's defaults are for a machine
// of its own.
var DefaultCache = Cache{Database: 64, State: 64, Snapshot: 32}

func (c Cache) orDefault() Cache {
	c.Database = cmp.Or(c.Database, DefaultCache.Database)
	c.State = cmp.Or(c.State, DefaultCache.State)
	c.Snapshot = cmp.Or(c.Snapshot, DefaultCache.Snapshot)
	return c
}

func (c *Config) check() error {
	switch {
	case c.Chain == 0:
		return errors.New("no chain ID")
	case c.Genesis == nil || c.Genesis.Config == nil || c.Genesis.Config.ChainID == nil:
		return errors.New("no genesis, or one without a chain config")
	case c.Genesis.Config.ChainID.Cmp(new(big.Int).SetUint64(uint64(c.Chain))) != 0:
		return fmt.Errorf("the genesis is chain %s's", c.Genesis.Config.ChainID)
	}
	return nil
}

// publicModules are what a wallet, an explorer and a developer use.
var publicModules = []string{"eth", "net", "web3", "txpool", "debug"}

// maxPeers is enough for the replicas of a devnet. Configured peers do not count.
const maxPeers = 25

func (c *Config) nodeConfig(jwtFile string) *node.Config {
	nc := &node.Config{
		Name:                 "geth",
		DataDir:              c.DataDir,
		Logger:               c.Log,
		AuthAddr:             c.Auth.host(),
		AuthPort:             c.Auth.Port,
		AuthVirtualHosts:     []string{"*"}, // the secret protects it
		JWTSecret:            jwtFile,
		HTTPTimeouts:         rpc.DefaultHTTPTimeouts,
		BatchRequestLimit:    node.DefaultConfig.BatchRequestLimit,
		BatchResponseMaxSize: node.DefaultConfig.BatchResponseMaxSize,
		P2P:                  p2p.Config{NoDiscovery: true, NoDial: true},
	}
	if c.HTTP != nil {
		nc.HTTPHost, nc.HTTPPort, nc.HTTPModules = c.HTTP.host(), c.HTTP.Port, publicModules
		nc.HTTPVirtualHosts, nc.HTTPCors = []string{"*"}, []string{"*"}
	}
	if c.WS != nil {
		nc.WSHost, nc.WSPort, nc.WSModules = c.WS.host(), c.WS.Port, publicModules
		nc.WSOrigins = []string{"*"}
	}
	if c.P2P != nil {
		nc.P2P.NoDial, nc.P2P.MaxPeers = false, maxPeers
		nc.P2P.ListenAddr = net.JoinHostPort(c.P2P.host(), strconv.Itoa(c.P2P.Port))
		nc.P2P.PrivateKey, nc.P2P.StaticNodes, nc.P2P.TrustedNodes = c.P2P.Key, c.P2P.Peers, c.P2P.Peers
	}
	return nc
}

func (c *Config) ethConfig() *ethconfig.Config {
	ec := ethconfig.Defaults
	ec.Genesis, ec.NetworkId = c.Genesis, uint64(c.Chain)
	ec.SyncMode = ethconfig.FullSync // snap, the default, holds payloads back until it has peers
	ec.StateScheme = rawdb.PathScheme
	cache := c.Cache.orDefault()
	ec.InteropMessageRPC, ec.InteropMempoolFiltering = c.Ingress, c.Ingress != ""
	if c.Archive {
		ec.StateScheme, ec.NoPruning = rawdb.HashScheme, true
	}
	ec.DatabaseCache, ec.TrieCleanCache, ec.TrieDirtyCache, ec.SnapshotCache = cache.Database, cache.State, cache.State, cache.Snapshot
	ec.LogNoHistory = true            // the log index reads 65,536 rows at every start (0.5 to 1 s); without it logs are searched by bloom
	ec.Miner.GasPrice = big.NewInt(1) // wei: the sequencer takes any tip
	ec.TxPool = legacypool.DefaultConfig
	ec.TxPool.NoLocals, ec.TxPool.Journal = true, ""
	ec.TxPool.AccountSlots, ec.TxPool.GlobalSlots = 20_000, 40_000
	ec.TxPool.AccountQueue, ec.TxPool.GlobalQueue = 20_000, 40_000
	return &ec
}

// Node is a running op-geth.
type Node struct {
	stack  *node.Node
	eth    *gethEth.Ethereum
	engine *direct
	http   bool
	ws     bool
}

// Start starts a node. The caller closes it. When op-geth gives up after its parts
// were made (a port is taken), it leaves goroutines of theirs behind.
func Start(cfg Config) (*Node, error) {
	n, err := start(cfg)
	if err != nil {
		return nil, fmt.Errorf("embedded op-geth of chain %s: %w", cfg.Chain, err)
	}
	return n, nil
}

func start(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	// op-geth takes the secret as a file only, and reads it while it starts.
	secrets, err := os.MkdirTemp("", "op-geth-jwt-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(secrets)
	jwtFile := filepath.Join(secrets, "jwt.hex")
	if err := os.WriteFile(jwtFile, []byte(hexutil.Encode(cfg.JWTSecret[:])), 0o600); err != nil {
		return nil, err
	}
	ec := cfg.ethConfig()
	stack, err := node.New(cfg.nodeConfig(jwtFile))
	if err != nil {
		return nil, err
	}
	backend, err := gethEth.New(stack, ec)
	if err != nil {
		return nil, errors.Join(err, stack.Close())
	}
	// As cmd/geth does it; one ConsensusAPI, so that the direct calls share its
	// locks and what it knows with those that come over RPC.
	api := catalyst.NewConsensusAPI(backend)
	filterSystem := filters.NewFilterSystem(backend.APIBackend, filters.Config{
		LogCacheSize:  ec.FilterLogCacheSize,
		LogQueryLimit: ec.LogQueryLimit,
		RangeLimit:    ec.RangeLimit,
	})
	stack.RegisterAPIs([]rpc.API{
		{Namespace: "engine", Service: api, Authenticated: true},
		{Namespace: "eth", Service: filters.NewFilterAPI(filterSystem)},
	})
	catalyst.RegisterSessions(stack, backend, catalyst.DefaultSessionConfig)
	if err := stack.Start(); err != nil { // it closes itself then
		return nil, err
	}
	return &Node{
		stack:  stack,
		eth:    backend,
		engine: newDirect(cfg.Chain, backend, api),
		http:   cfg.HTTP != nil,
		ws:     cfg.WS != nil,
	}, nil
}

// Close stops the node. Open sessions end; calls under way are waited for.
func (n *Node) Close() error {
	n.engine.stop()
	return n.stack.Close()
}

// Engine calls the node directly. It lives as long as the node.
func (n *Node) Engine() engine.Engine { return n.engine }

// HTTPEndpoint is the URL of the public RPC, empty if there is none.
func (n *Node) HTTPEndpoint() string {
	if !n.http {
		return ""
	}
	return n.stack.HTTPEndpoint()
}

// WSEndpoint is the URL of the public RPC over WebSocket, empty if there is none.
func (n *Node) WSEndpoint() string {
	if !n.ws {
		return ""
	}
	return n.stack.WSEndpoint()
}

// AuthEndpoint is the URL of the authenticated RPC over WebSocket; over HTTP it is
// on the same port.
func (n *Node) AuthEndpoint() string { return n.stack.WSAuthEndpoint() }

// AuthHTTPEndpoint is the URL of the authenticated RPC over HTTP.
func (n *Node) AuthHTTPEndpoint() string { return n.stack.HTTPAuthEndpoint() }

// Enode is where peers reach the node, nil without networking.
func (n *Node) Enode() *enode.Node {
	if n.stack.Server().ListenAddr == "" {
		return nil
	}
	return n.stack.Server().Self()
}

// Peers is how many nodes it is connected to.
func (n *Node) Peers() int { return n.stack.Server().PeerCount() }

// Backend gives tests the parts of op-geth, such as the transaction pool.
func (n *Node) Backend() *gethEth.Ethereum { return n.eth }

// Consensus is the Engine API of the node, as Go calls.
func (n *Node) Consensus() *catalyst.ConsensusAPI { return n.engine.api }

// Stack is the node that hosts the parts: its RPC handler, its p2p server.
func (n *Node) Stack() *node.Node { return n.stack }
