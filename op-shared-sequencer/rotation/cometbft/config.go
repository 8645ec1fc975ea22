package cometbft

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/clock"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
)

// Parts of the rules: operators that have other ones disagree.
const (
	// maxSubblockBytes bounds an encoded signed subblock.
	maxSubblockBytes = 16 << 20
	// maxBlockChanges is how many approvals of changes one block carries.
	maxBlockChanges = 16
	// maxBlockBytes has room for the above, a commit of the largest set, and evidence.
	maxBlockBytes = 18 << 20
)

// Config of an operator's rotation. Zero values of optional fields stand for the defaults.
type Config struct {
	// Dir holds what CometBFT keeps: keys, blocks, votes, the sign states. It belongs to
	// this operator and set alone: two processes with copies of it would sign twice.
	Dir string
	// Genesis is the set as it began.
	Genesis *operators.Genesis
	// OperatorKey signs subblocks. nil for a follower, which verifies and never leads.
	OperatorKey *ecdsa.PrivateKey
	// Password opens the consensus key, if it is protected. A new one is protected by it.
	Password keyfile.Password
	// Listen is the host:port that other operators connect to. Port 0 takes a free one.
	Listen string
	// Peers are the other nodes, as nodeID@host:port. Only they may connect, unless Public.
	Peers []string
	// Public lets nodes connect that are not in Peers.
	Public bool

	// OnBundle takes a bundle that a peer sent, in a goroutine of the rotation. nil: it is
	// new and valid, and is passed on. Errors that wrap ErrKnown or ErrNotNow are no
	// fault of the peer; ErrGarbage ends its connection at once, and others when there
	// are many of them.
	OnBundle func(data []byte) error
	// OnCancel takes a cancellation of a bundle that a peer sent, as OnBundle does.
	OnCancel func(data []byte) error
	// Bundles are those that a peer is sent when it connects. Optional.
	Bundles func() [][]byte
	// OnRejected is told of proposals that this operator does not vote for, with one of the
	// reasons Reject…. It must not block. Optional.
	OnRejected func(t rotation.Turn, reason string, err error)
	// Fatal is told, once, why the rotation cannot go on. The process has to end.
	Fatal func(error)
	// Retain is the lowest height that is still needed for other reasons than the
	// rotation's own. nil: there are none. 0: everything.
	Retain func() uint64

	Log     log.Logger
	Clock   clock.Clock // optional
	Metrics Metrics     // optional

	Timeouts Timeouts
	Gossip   GossipLimits
	// KeepHeights is how many heights are kept for operators that are behind. Default 20000.
	KeepHeights uint64
	// NoReadiness leaves the chains that operators are ready for out of their votes. The
	// same at every operator. For measurements.
	NoReadiness bool

	// intercept, for tests of operators that lie, may change what is proposed.
	intercept interceptor
}

// Timeouts of the agreement. They do not touch safety. The first ones should be the same
// at every operator, so that all give a leader the same time.
type Timeouts struct {
	// Propose is how long a leader's subblock is waited for. Default 250 ms.
	Propose time.Duration
	// Vote is how long further votes are waited for when two thirds voted, but not for the
	// same. Default 50 ms.
	Vote time.Duration
	// Short is Propose for operators that do not deliver. Default 20 ms.
	Short time.Duration
	// Gone is Propose, and Vote, for operators whose connection to this node has ended: their
	// process is gone. Default 2 ms.
	Gone time.Duration
	// Misses is how many turns in a row an operator misses before its turns are shortened.
	// Default 3.
	Misses uint64
	// Signs is at how many heights in a row such an operator has to vote until it has its
	// turns back. Default 20. It doubles, up to 64 times as many, when the operator then
	// misses again.
	Signs uint64

	// Lead is how long before Machine.Due a leader is asked. Default 20 ms.
	Lead time.Duration
	// Margin is what Propose leaves of its time for the way to the others. Default 60 ms.
	Margin time.Duration
	// Call is the longest a call into the machine may take. Default 1 minute.
	Call time.Duration
}

// GossipLimits bound what a peer may send.
type GossipLimits struct {
	Bytes          int     // of a message. Default 256 KB
	MessagesPerSec float64 // of a peer. Default 2000
	BytesPerSec    float64 // of a peer. Default 8 MB
	Queue          int     // messages that wait here, of all peers. Default 4096
	Seen           int     // messages that are remembered. Default 65536
	Faults         int     // bad messages at a time, one per second is forgiven. Default 20
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c *Config) setDefaults() {
	setDefault[clock.Clock](&c.Clock, clock.SystemClock)
	setDefault[Metrics](&c.Metrics, NoMetrics{})
	setDefault(&c.Timeouts.Propose, 250*time.Millisecond)
	setDefault(&c.Timeouts.Vote, 50*time.Millisecond)
	setDefault(&c.Timeouts.Short, 20*time.Millisecond)
	setDefault(&c.Timeouts.Gone, 2*time.Millisecond)
	setDefault(&c.Timeouts.Misses, 3)
	setDefault(&c.Timeouts.Signs, 20)
	setDefault(&c.Timeouts.Lead, 20*time.Millisecond)
	setDefault(&c.Timeouts.Margin, 60*time.Millisecond)
	setDefault(&c.Timeouts.Call, time.Minute)
	setDefault(&c.Gossip.Bytes, 256<<10)
	setDefault(&c.Gossip.MessagesPerSec, 2000)
	setDefault(&c.Gossip.BytesPerSec, 8<<20)
	setDefault(&c.Gossip.Queue, 4096)
	setDefault(&c.Gossip.Seen, 65536)
	setDefault(&c.Gossip.Faults, 20)
	setDefault(&c.KeepHeights, 20000)
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	if c.Dir == "" {
		return errors.New("consensus: no directory")
	}
	if c.Genesis == nil {
		return errors.New("consensus: no genesis of the operators")
	}
	if err := c.Genesis.Check(); err != nil {
		return err
	}
	if c.Log == nil || c.Fatal == nil {
		return errors.New("consensus: no log, or nobody to tell when it fails")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("consensus: address to listen on %q must be host:port: %w", c.Listen, err)
	}
	for _, p := range c.Peers {
		if _, _, err := splitPeer(p); err != nil {
			return err
		}
	}
	t := c.Timeouts
	if t.Propose <= t.Margin || t.Short >= t.Propose || t.Margin <= 0 || t.Short <= 0 || t.Vote <= 0 || t.Lead < 0 || t.Call <= 0 {
		return fmt.Errorf("consensus: timeouts %+v: Propose must be above Margin and above Short, and all must be positive", t)
	}
	if g := c.Gossip; g.Bytes < 0 || g.MessagesPerSec < 0 || g.BytesPerSec < float64(g.Bytes) || g.Queue < 0 || g.Seen < 0 || g.Faults < 0 {
		return fmt.Errorf("consensus: gossip limits %+v must be positive, and a peer must be able to send one message a second", g)
	}
	return nil
}

// splitPeer takes nodeID@host:port apart.
func splitPeer(peer string) (p2p.ID, string, error) {
	id, addr, ok := strings.Cut(peer, "@")
	if _, _, err := net.SplitHostPort(addr); !ok || err != nil || len(id) != 2*p2p.IDByteLength || strings.ToLower(id) != id {
		return "", "", fmt.Errorf("consensus: peer %.100q must be nodeID@host:port, with a node ID of 40 hex digits", peer)
	}
	return p2p.ID(id), addr, nil
}

// cometConfig is CometBFT's configuration. What deviates from its defaults was measured:
// with them the same subblock takes two to five times as long.
func (c *Config) cometConfig() *cmtcfg.Config {
	conf := cmtcfg.DefaultConfig()
	conf.SetRoot(c.Dir)
	conf.Moniker = c.Genesis.Set
	conf.DBBackend = "goleveldb"
	conf.RPC.ListenAddress, conf.RPC.GRPCListenAddress, conf.RPC.PprofListenAddress = "", "", ""
	conf.Instrumentation.Prometheus = false // its registry is global: two nodes in one process panic
	conf.TxIndex.Indexer = "null"
	conf.Storage.DiscardABCIResponses = true
	conf.FilterPeers = true // asks the app: see Query

	p := conf.P2P
	p.ListenAddress = "tcp://" + c.Listen
	p.AllowDuplicateIP = true
	p.AddrBookStrict = false
	p.PexReactor = false
	p.SendRate, p.RecvRate = 512_000_000, 512_000_000
	p.FlushThrottleTimeout = time.Millisecond
	p.MaxPacketMsgPayloadSize = 65536
	p.MaxNumInboundPeers = 2 * operators.MaxOperators
	p.MaxNumOutboundPeers = 2 * operators.MaxOperators
	p.DialTimeout = time.Second
	p.HandshakeTimeout = 3 * time.Second
	// Peers are dialled by dial.go and are not persistent: CometBFT gives up on those after
	// a few tries with hours in between.
	p.PersistentPeers = ""

	conf.BlockSync.AdaptiveSync = false // it warns of equivocation
	conf.Mempool.Type = cmtcfg.MempoolTypeNop
	conf.Mempool.Recheck = false

	k := conf.Consensus
	// Those of a round are set as it comes: see app.enterStep.
	k.TimeoutPropose, k.TimeoutProposeDelta = c.Timeouts.Propose, 0
	k.TimeoutPrevote, k.TimeoutPrevoteDelta = c.Timeouts.Vote, 0
	k.TimeoutPrecommit, k.TimeoutPrecommitDelta = c.Timeouts.Vote, 0
	k.TimeoutCommit = 0 // set at each commit: see app.pace
	k.SkipTimeoutCommit = false
	k.PeerGossipSleepDuration = 2 * time.Millisecond
	k.PeerQueryMaj23SleepDuration = 500 * time.Millisecond
	k.CreateEmptyBlocks = true
	return conf
}

// genesisDoc is the set's genesis in CometBFT's form.
func genesisDoc(g *operators.Genesis, readiness bool) (*types.GenesisDoc, error) {
	params := types.DefaultConsensusParams()
	params.Block.MaxBytes = maxBlockBytes
	if readiness {
		params.ABCI.VoteExtensionsEnableHeight = 1
	}
	doc := &types.GenesisDoc{ChainID: g.Set, GenesisTime: g.Time, ConsensusParams: params, InitialHeight: 1}
	for _, o := range operators.NewSet(g).Operators() {
		key := ed25519.PubKey(o.ConsensusKey[:])
		doc.Validators = append(doc.Validators, types.GenesisValidator{Address: key.Address(), PubKey: key, Power: int64(o.Power), Name: o.Name})
	}
	if err := doc.ValidateAndComplete(); err != nil {
		return nil, fmt.Errorf("consensus: genesis of the operators: %w", err)
	}
	return doc, nil
}

func (c *Config) path(name string) string { return filepath.Join(c.Dir, name) }
