// Package config holds what op-node is started with. Flags only fill it; a service
// that embeds op-node fills it directly. Check says what is wrong before anything runs.
package config

import (
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/tracing"
)

// Config is what op-node is started with.
type Config struct {
	// Host is the configuration of upstream's op-supernode, which hosts a virtual
	// op-node per chain.
	Host *snconfig.CLIConfig
	// Nodes are the virtual op-nodes.
	Nodes map[eth.ChainID]*opnodeconfig.Config
	// SharedSequencer is the shared sequencer's own part. Unless it is enabled,
	// op-node is upstream's op-supernode.
	SharedSequencer SharedSequencer
}

// Check says what is wrong with the configuration, in one line.
func (c *Config) Check() error {
	if c.Host == nil {
		return errors.New("no configuration of the host")
	}
	if err := c.Host.Check(); err != nil {
		return err
	}
	if !c.SharedSequencer.Enabled {
		return nil
	}
	if err := c.SharedSequencer.Check(); err != nil {
		return err
	}
	return first(c.chainProblems())
}

// SharedSequencer configures the shared sequencer.
type SharedSequencer struct {
	Enabled bool
	// Chains are sequenced together, in any order.
	Chains []sequence.ChainID
	// DataDir holds the ledger and the executor's message history.
	DataDir string
	RPC     RPC
	// Admin sets the failsafe; none without an address.
	Admin Admin
	// Status is where the status page is; nowhere without an address.
	Status RPC
	// Streams are the Subblocks streams of the chains; nowhere without an address.
	Streams RPC
	// RPCRate is what one IP address may ask the sharedseq RPC for in a second; 0: no limit.
	RPCRate float64
	// Engines are the chains' patched op-geths. A service that is given ready
	// engines needs none.
	Engines map[sequence.ChainID]Engine
	// RelayerKey signs the relay steps of bundles; without it they are refused.
	RelayerKey *ecdsa.PrivateKey
	// Relays is which messages it relays, RelayGas what each may use.
	Relays   relay.Policy
	RelayGas uint64
	// ChainGrace is how long the set waits for a chain that is not ready.
	ChainGrace time.Duration
	// FillLead and SealLead are the times before a slot's timestamp at which its
	// blocks are filled from the pools, unless that takes longer, and sealed.
	FillLead, SealLead time.Duration
	// Subblocks is in how many parts a slot is agreed on.
	Subblocks int
	// Order is in which order plain transactions are taken from the pools.
	Order engine.Order
	// Arrivals is the file with when bundles arrived; none if empty.
	Arrivals string
	Bundles  Bundles
	// Rotation is how leaders are found.
	Rotation Rotation
	// Agreement is with whom subblocks are agreed on. For the rotation CometBFT.
	Agreement Agreement
	// Tracing is where traces of slots go; off without an endpoint.
	Tracing tracing.Config
}

// RPC is where the sharedseq RPC listens. It has no administrative methods.
type RPC struct {
	ListenAddr string
	ListenPort int // 0: any free port
}

// Admin is where the admin RPC listens, for callers with a JWT secret.
type Admin struct {
	ListenAddr string // empty: nowhere
	ListenPort int    // 0: any free port
	JWT        eth.Bytes32
}

// Engine is the authenticated RPC of one chain's patched op-geth.
type Engine struct {
	URL string // http, https, ws or wss; or the path of an IPC socket
	JWT eth.Bytes32
}

// Rotation is a way to find leaders.
type Rotation string

const (
	// Solo: this operator always leads.
	Solo Rotation = "solo"
	// CometBFT: the operators take turns, and agree on every subblock.
	CometBFT Rotation = "cometbft"
)

// Agreement is how operators agree.
type Agreement struct {
	// Operators is the set as it began, the same at all of them.
	Operators *operators.Genesis
	// OperatorKey signs this operator's subblocks. nil: it verifies and does not lead.
	OperatorKey *ecdsa.PrivateKey
	// Password opens this operator's keys, if they are protected.
	Password keyfile.Password
	// Listen is host:port.
	Listen string
	// Peers are the other operators, as <node ID>@<host>:<port>.
	Peers []string
	// TimeoutPropose is how long a leader's subblock is waited for; TimeoutVote how long
	// the missing votes are, once those of two thirds are there and differ.
	TimeoutPropose, TimeoutVote time.Duration
}

// ConsensusDir is where the agreement keeps its keys and data, in SharedSequencer.DataDir.
func ConsensusDir(dataDir string) string { return filepath.Join(dataDir, "consensus") }

// maxSubblocks is the sequencer's: each is a round of votes.
const maxSubblocks = 20

// Bundles are the limits of the bundle pool.
type Bundles struct {
	MaxItems     int // transactions and relay steps in one bundle
	MaxBytes     int // of one bundle, encoded
	MaxPending   int // bundles waiting for a slot
	MaxPerSender int // waiting bundles that one account has signed in
}

// DefaultSharedSequencer is what the flags' defaults give, for services that embed op-node.
func DefaultSharedSequencer() SharedSequencer {
	return SharedSequencer{
		RPC:    RPC{ListenAddr: flags.RPCAddr.Value, ListenPort: flags.RPCPort.Value},
		Admin:  Admin{ListenPort: flags.AdminPort.Value},
		Status: RPC{ListenPort: flags.StatusPort.Value}, Streams: RPC{ListenPort: flags.SubblocksPort.Value},
		RPCRate: flags.RPCRate.Value,
		Relays: relay.Policy{
			Mode: relay.Mode(flags.RelayPolicy.Value), SlotGas: flags.RelaySlotGas.Value, SenderGas: flags.RelaySenderGas.Value,
		},
		RelayGas:   flags.RelayGas.Value,
		Tracing:    tracing.Config{SampleRatio: flags.TracingSampleRatio.Value},
		ChainGrace: flags.ChainGrace.Value,
		FillLead:   flags.FillLead.Value,
		SealLead:   flags.SealLead.Value,
		Subblocks:  flags.Subblocks.Value,
		Order:      engine.Order(flags.Order.Value),
		Rotation:   Rotation(flags.Rotation.Value),
		Agreement: Agreement{
			Listen: flags.ConsensusListen.Value, TimeoutPropose: flags.TimeoutPropose.Value, TimeoutVote: flags.TimeoutVote.Value,
		},
		Bundles: Bundles{
			MaxItems: flags.BundleMaxItems.Value, MaxBytes: flags.BundleMaxBytes.Value,
			MaxPending: flags.BundleMaxPending.Value, MaxPerSender: flags.BundleMaxPerSender.Value,
		},
	}
}

// Check says what is wrong with the part that does not depend on the chains. Fields
// go by the names of their flags.
func (s *SharedSequencer) Check() error { return first(s.problems()) }

// problems are all that is wrong, one of a kind.
func (s *SharedSequencer) problems() []error {
	return join(s.checkChains(), s.checkListen(), s.checkRelays(), s.checkEngines(), s.checkTimes(), s.checkAgreement(), s.checkBundles())
}

// join are the errors among what may be nil.
func join(errs ...error) []error {
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

func (s *SharedSequencer) checkChains() error {
	if len(s.Chains) == 0 {
		return fmt.Errorf("%s: no chains to sequence: expected at least one chain ID", flags.Chains.Name)
	}
	for i, id := range s.Chains {
		if slices.Contains(s.Chains[:i], id) {
			return fmt.Errorf("%s: chain %s is named twice", flags.Chains.Name, id)
		}
	}
	return nil
}

func (s *SharedSequencer) checkListen() error {
	if s.DataDir == "" {
		return fmt.Errorf("%s: empty: expected a directory", flags.DataDir.Name)
	}
	for _, l := range []struct {
		name string
		port int
	}{
		{flags.RPCPort.Name, s.RPC.ListenPort}, {flags.AdminPort.Name, s.Admin.ListenPort},
		{flags.StatusPort.Name, s.Status.ListenPort}, {flags.SubblocksPort.Name, s.Streams.ListenPort},
	} {
		if l.port < 0 || l.port > math.MaxUint16 {
			return fmt.Errorf("%s: %d: expected a port between 0 and %d", l.name, l.port, math.MaxUint16)
		}
	}
	if !(s.RPCRate >= 0) || math.IsInf(s.RPCRate, 0) {
		return fmt.Errorf("%s: %v: expected zero or more", flags.RPCRate.Name, s.RPCRate)
	}
	if s.Admin.ListenAddr == "" && s.Admin.JWT != (eth.Bytes32{}) {
		return fmt.Errorf("%s: given without %s: the admin RPC needs an address", flags.AdminJWT.Name, flags.AdminAddr.Name)
	}
	if s.Admin.ListenAddr != "" && s.Admin.JWT == (eth.Bytes32{}) {
		return fmt.Errorf("%s: missing: callers of the admin RPC have to prove who they are", flags.AdminJWT.Name)
	}
	return nil
}

func (s *SharedSequencer) checkRelays() error {
	if err := s.Relays.Check(); err != nil {
		return fmt.Errorf("%s: %w", flags.RelayPolicy.Name, err)
	}
	if s.Relays.Plain() && s.RelayerKey == nil {
		return fmt.Errorf("%s: %s: the relays need a key: expected one in %s", flags.RelayPolicy.Name, s.Relays.Mode, flags.RelayerKeyFile.Name)
	}
	return nil
}

func (s *SharedSequencer) checkEngines() error {
	for _, id := range sortedChains(s.Engines) {
		if !slices.Contains(s.Chains, id) {
			return fmt.Errorf("%s: chain %s is not in %s", flags.Engines.Name, id, flags.Chains.Name)
		}
		if err := checkEngineURL(s.Engines[id].URL); err != nil {
			return fmt.Errorf("%s: chain %s: %w", flags.Engines.Name, id, err)
		}
	}
	return nil
}

func (s *SharedSequencer) checkTimes() error {
	if s.ChainGrace < 0 {
		return fmt.Errorf("%s: %s: expected zero or more", flags.ChainGrace.Name, s.ChainGrace)
	}
	if s.SealLead <= 0 {
		return fmt.Errorf("%s: %s: expected more than zero", flags.SealLead.Name, s.SealLead)
	}
	if s.FillLead <= s.SealLead {
		return fmt.Errorf("%s: %s: expected more than %s (%s)", flags.FillLead.Name, s.FillLead, flags.SealLead.Name, s.SealLead)
	}
	if s.Subblocks < 1 || s.Subblocks > maxSubblocks {
		return fmt.Errorf("%s: %d: expected 1 to %d", flags.Subblocks.Name, s.Subblocks, maxSubblocks)
	}
	if err := s.Order.Check(); err != nil {
		return fmt.Errorf("%s: %w", flags.Order.Name, err)
	}
	if err := s.Tracing.Check(); err != nil {
		return fmt.Errorf("%s, %s: %w", flags.TracingEndpoint.Name, flags.TracingSampleRatio.Name, err)
	}
	return nil
}

func (s *SharedSequencer) checkBundles() error {
	for _, l := range []struct {
		name  string
		value int
	}{
		{flags.BundleMaxItems.Name, s.Bundles.MaxItems},
		{flags.BundleMaxBytes.Name, s.Bundles.MaxBytes},
		{flags.BundleMaxPending.Name, s.Bundles.MaxPending},
		{flags.BundleMaxPerSender.Name, s.Bundles.MaxPerSender},
	} {
		if l.value <= 0 {
			return fmt.Errorf("%s: %d: expected more than zero", l.name, l.value)
		}
	}
	return nil
}

// checkAgreement says what is wrong with the rotation and what belongs to it.
func (s *SharedSequencer) checkAgreement() error {
	a := &s.Agreement
	switch s.Rotation {
	case Solo:
		for _, f := range []struct {
			name string
			set  bool
		}{
			{flags.Operators.Name, a.Operators != nil},
			{flags.OperatorKeyFile.Name, a.OperatorKey != nil},
			{flags.ConsensusPeers.Name, len(a.Peers) > 0},
		} {
			if f.set {
				return fmt.Errorf("%s: the rotation %s has one operator and no use for it: expected it only with %s %s", f.name, Solo, flags.Rotation.Name, CometBFT)
			}
		}
		return nil
	case CometBFT:
	default:
		return fmt.Errorf("%s: %q: expected %s or %s", flags.Rotation.Name, string(s.Rotation), Solo, CometBFT)
	}
	if a.Operators == nil {
		return fmt.Errorf("%s: missing: expected the genesis file of the operators for the rotation %s", flags.Operators.Name, CometBFT)
	}
	if err := a.Operators.Check(); err != nil {
		return fmt.Errorf("%s: %w", flags.Operators.Name, err)
	}
	if err := checkAddress(a.Listen, true); err != nil {
		return fmt.Errorf("%s: %q: %w", flags.ConsensusListen.Name, a.Listen, err)
	}
	seen := map[string]bool{}
	for _, p := range a.Peers {
		id, addr, ok := strings.Cut(p, "@")
		if raw, err := hex.DecodeString(id); !ok || err != nil || len(raw) != nodeIDBytes || strings.ToLower(id) != id {
			return fmt.Errorf("%s: %q: expected <node ID>@<host>:<port>, with a node ID of %d hex digits in lower case", flags.ConsensusPeers.Name, p, 2*nodeIDBytes)
		}
		if err := checkAddress(addr, false); err != nil {
			return fmt.Errorf("%s: %q: %w", flags.ConsensusPeers.Name, p, err)
		}
		if seen[id] {
			return fmt.Errorf("%s: node %s is named twice", flags.ConsensusPeers.Name, id)
		}
		seen[id] = true
	}
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{flags.TimeoutPropose.Name, a.TimeoutPropose}, {flags.TimeoutVote.Name, a.TimeoutVote}} {
		if t.value <= 0 {
			return fmt.Errorf("%s: %s: expected more than zero", t.name, t.value)
		}
	}
	return nil
}

// nodeIDBytes is the length of CometBFT's node IDs.
const nodeIDBytes = 20

// checkAddress says what is wrong with a host:port. To listen, the host may be empty and
// the port 0.
func checkAddress(s string, listen bool) error {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || perr != nil:
		return fmt.Errorf("expected <host>:<port> with a port between 0 and %d", math.MaxUint16)
	case !listen && host == "":
		return errors.New("no host: expected <host>:<port>")
	case !listen && n == 0:
		return errors.New("port 0: expected the port that the peer listens on")
	}
	return nil
}

// chainProblems are what is wrong between the shared sequencer and its chains, one thing
// of each.
func (c *Config) chainProblems() []error {
	var errs []error
	var model *opnodeconfig.Config
	for _, id := range c.SharedSequencer.Chains {
		if n := c.Nodes[id.ID()]; n == nil {
			errs = append(errs, fmt.Errorf("%s: chain %s is not in --chains", flags.Chains.Name, id))
		} else if err := c.checkChain(id, n, model); err != nil {
			errs = append(errs, err)
		} else if model == nil {
			model = n
		}
	}
	return errs
}

// checkChain says what is wrong with a chain, and between it and the others, of which
// model is one; nil if there is none yet.
func (c *Config) checkChain(id sequence.ChainID, n, model *opnodeconfig.Config) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("chain %s cannot be sequenced with others: %s", id, fmt.Sprintf(format, args...))
	}
	switch {
	case n.Rollup.L2ChainID == nil || n.Rollup.L2ChainID.Cmp(id.ID().ToBig()) != 0:
		return fail("its rollup config is of chain %v: expected %s in vn.%s.rollup.config", n.Rollup.L2ChainID, id, id)
	case !n.Driver.SequencerEnabled:
		return fail("vn.%s.sequencer.enabled is false: set it, or leave the chain out of %s", id, flags.Chains.Name)
	case n.ConductorEnabled:
		return fail("vn.%s.conductor.enabled is set: the set's agreement takes the place of a conductor", id)
	case n.Rollup.EcotoneTime == nil:
		return fail("its rollup config does not schedule Ecotone")
	case n.Rollup.LagoonTime != nil && (n.DependencySet == nil || !n.DependencySet.HasChain(id.ID())):
		return fail("it is not in its dependency set: expected it in the file of --dependency-set")
	case c.SharedSequencer.FillLead >= time.Duration(n.Rollup.BlockTime)*time.Second:
		return fail("%s (%s) is not shorter than its block time (%d s)", flags.FillLead.Name, c.SharedSequencer.FillLead, n.Rollup.BlockTime)
	case model == nil:
		return nil
	}
	if a, b := model.Rollup.L1ChainID, n.Rollup.L1ChainID; a == nil || b == nil || a.Cmp(b) != 0 {
		return fail("its L1 is chain %v, that of chain %v is %v: expected one L1 for all", b, model.Rollup.L2ChainID, a)
	}
	if n.Rollup.LagoonTime != nil && model.Rollup.LagoonTime != nil && !sameSet(model.DependencySet, n.DependencySet) {
		return fail("its dependency set is not that of chain %v: expected one for all, as --dependency-set gives", model.Rollup.L2ChainID)
	}
	return nil
}

// sameSet says whether two dependency sets allow the same messages.
func sameSet(a, b depset.DependencySet) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	sorted := func(s depset.DependencySet) []eth.ChainID {
		return slices.SortedFunc(slices.Values(s.Chains()), eth.ChainID.Cmp)
	}
	return a.MessageExpiryWindow() == b.MessageExpiryWindow() && slices.Equal(sorted(a), sorted(b))
}

// checkEngineURL says what is wrong with an engine's address, without repeating
// credentials that may stand in it.
func checkEngineURL(s string) error {
	if filepath.IsAbs(s) {
		return nil // IPC
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return errors.New("not a URL: expected http, https, ws or wss://host:port of op-geth's authenticated RPC, or the path of its IPC socket")
	}
	if !slices.Contains([]string{"http", "https", "ws", "wss"}, u.Scheme) {
		return fmt.Errorf("scheme %q: expected http, https, ws or wss", u.Scheme)
	}
	return nil
}

func sortedChains[V any](m map[sequence.ChainID]V) []sequence.ChainID {
	ids := make([]sequence.ChainID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
