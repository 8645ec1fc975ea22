// Package config holds what op-node is started with. Flags only fill it; a service
// that embeds op-node fills it directly. Check says what is wrong before anything runs.
package config

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
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
	return c.checkChains()
}

// SharedSequencer configures the shared sequencer.
type SharedSequencer struct {
	Enabled bool
	// Chains are sequenced together, in any order.
	Chains []sequence.ChainID
	// DataDir holds the ledger and the executor's message history.
	DataDir string
	RPC     RPC
	// Engines are the chains' patched op-geths. A service that is given ready
	// engines needs none.
	Engines map[sequence.ChainID]Engine
	// RelayerKey signs the relay steps of bundles; without it they are refused.
	RelayerKey *ecdsa.PrivateKey
	// ChainGrace is how long the set waits for a chain that is not ready.
	ChainGrace time.Duration
	// FillLead and SealLead are the times before a slot's timestamp at which its
	// blocks are filled from the pools, and sealed.
	FillLead, SealLead time.Duration
	Bundles            Bundles
}

// RPC is where the sharedseq RPC listens. It has no administrative methods.
type RPC struct {
	ListenAddr string
	ListenPort int // 0: any free port
}

// Engine is the authenticated RPC of one chain's patched op-geth.
type Engine struct {
	URL string // http, https, ws or wss; or the path of an IPC socket
	JWT eth.Bytes32
}

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
		RPC:        RPC{ListenAddr: flags.RPCAddr.Value, ListenPort: flags.RPCPort.Value},
		ChainGrace: flags.ChainGrace.Value,
		FillLead:   flags.FillLead.Value,
		SealLead:   flags.SealLead.Value,
		Bundles: Bundles{
			MaxItems: flags.BundleMaxItems.Value, MaxBytes: flags.BundleMaxBytes.Value,
			MaxPending: flags.BundleMaxPending.Value, MaxPerSender: flags.BundleMaxPerSender.Value,
		},
	}
}

// Check says what is wrong with the part that does not depend on the chains. Fields
// go by the names of their flags.
func (s *SharedSequencer) Check() error {
	if len(s.Chains) == 0 {
		return fmt.Errorf("%s: no chains to sequence: expected at least one chain ID", flags.Chains.Name)
	}
	for i, id := range s.Chains {
		if slices.Contains(s.Chains[:i], id) {
			return fmt.Errorf("%s: chain %s is named twice", flags.Chains.Name, id)
		}
	}
	if s.DataDir == "" {
		return fmt.Errorf("%s: empty: expected a directory", flags.DataDir.Name)
	}
	if s.RPC.ListenPort < 0 || s.RPC.ListenPort > math.MaxUint16 {
		return fmt.Errorf("%s: %d: expected a port between 0 and %d", flags.RPCPort.Name, s.RPC.ListenPort, math.MaxUint16)
	}
	for _, id := range sortedChains(s.Engines) {
		if !slices.Contains(s.Chains, id) {
			return fmt.Errorf("%s: chain %s is not in %s", flags.Engines.Name, id, flags.Chains.Name)
		}
		if err := checkEngineURL(s.Engines[id].URL); err != nil {
			return fmt.Errorf("%s: chain %s: %w", flags.Engines.Name, id, err)
		}
	}
	if s.ChainGrace < 0 {
		return fmt.Errorf("%s: %s: expected zero or more", flags.ChainGrace.Name, s.ChainGrace)
	}
	if s.SealLead <= 0 {
		return fmt.Errorf("%s: %s: expected more than zero", flags.SealLead.Name, s.SealLead)
	}
	if s.FillLead <= s.SealLead {
		return fmt.Errorf("%s: %s: expected more than %s (%s)", flags.FillLead.Name, s.FillLead, flags.SealLead.Name, s.SealLead)
	}
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

// checkChains says what is wrong between the shared sequencer and its chains.
func (c *Config) checkChains() error {
	var first *opnodeconfig.Config
	for _, id := range c.SharedSequencer.Chains {
		n := c.Nodes[id.ID()]
		if n == nil {
			return fmt.Errorf("%s: chain %s is not in --chains", flags.Chains.Name, id)
		}
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
		}
		if first == nil {
			first = n
		} else if a, b := first.Rollup.L1ChainID, n.Rollup.L1ChainID; a == nil || b == nil || a.Cmp(b) != 0 {
			return fail("its L1 is chain %v, that of chain %v is %v: expected one L1 for all", b, first.Rollup.L2ChainID, a)
		} else if n.Rollup.LagoonTime != nil && first.Rollup.LagoonTime != nil && !sameSet(first.DependencySet, n.DependencySet) {
			return fail("its dependency set is not that of chain %v: expected one for all, as --dependency-set gives", first.Rollup.L2ChainID)
		}
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
