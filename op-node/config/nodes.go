package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	opnode "github.com/ethereum-optimism/optimism/op-node"
	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	opnodeflags "github.com/ethereum-optimism/optimism/op-node/flags"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"
	snflags "github.com/ethereum-optimism/optimism/op-supernode/flags"
)

// nodeConfigs reads a virtual op-node's configuration for every chain of the host.
// What it gives is what op-supernode's own command gives for the same arguments;
// chains for which sequenced says true have their sequencer on, whatever vn.all says.
func nodeConfigs(ctx *cli.Context, host *snconfig.CLIConfig, sequenced func(id uint64) bool, l log.Logger) (map[eth.ChainID]*opnodeconfig.Config, []error) {
	var shared depset.DependencySet
	owned := slices.Clone(snflags.SupernodeOwnedFlags)
	if host.DependencySetPath != "" {
		set, err := (&depset.JSONDependencySetLoader{Path: host.DependencySetPath}).LoadDependencySet()
		if err != nil {
			return nil, []error{fmt.Errorf("--%s: %w", snflags.DependencySet.Name, err)}
		}
		shared = set
		// A node's own configuration is checked before it is given the shared set.
		if name := snflags.VNFlagGlobalPrefix + opnodeflags.InteropDependencySet.Name; !ctx.IsSet(name) {
			if err := ctx.Set(name, host.DependencySetPath); err != nil {
				return nil, []error{fmt.Errorf("--%s: %w", snflags.DependencySet.Name, err)}
			}
			owned = slices.DeleteFunc(owned, func(n string) bool { return n == opnodeflags.InteropDependencySet.Name })
		}
	}
	out := make(map[eth.ChainID]*opnodeconfig.Config, len(host.Chains))
	var errs []error
	for _, id := range host.Chains {
		args := snflags.NewVirtualCLI(ctx, id)
		if ctx.Bool(snflags.DisableP2P.Name) {
			disableP2P(args)
		} else if err := isolateP2P(args, filepath.Join(host.DataDir, strconv.FormatUint(id, 10), "p2p")); err != nil {
			errs = append(errs, fmt.Errorf("chain %d: %w", id, err))
			continue
		}
		// One L1 for all chains: the host's.
		args.WithStringOverride(opnodeflags.L1NodeAddr.Name, host.L1NodeAddr)
		args.WithStringOverride(opnodeflags.BeaconAddr.Name, host.L1BeaconAddr)
		if name := opnodeflags.SequencerEnabledFlag.Name; sequenced(id) && !args.IsChainSet(name) {
			args.WithBoolOverride(name, true)
		}
		for _, name := range owned {
			if args.IsSet(name) {
				l.Warn("Flag of a virtual node has no effect: the host owns what it sets", "chain", id, "flag", name)
			}
		}
		cfg, err := opnode.NewConfig(args, l.New("chain_id", id))
		if err != nil {
			errs = append(errs, fmt.Errorf("chain %d: %w", id, err))
			continue
		}
		if shared != nil {
			cfg.DependencySet = shared
		}
		out[eth.ChainIDFromUInt64(id)] = cfg
	}
	return out, errs
}

// disableP2P leaves a virtual node without networking, whatever its flags say.
func disableP2P(args *snflags.VirtualCLI) {
	args.WithBoolOverride(opnodeflags.DisableP2PName, true)
	for _, path := range []string{opnodeflags.P2PPrivPathName, opnodeflags.PeerstorePathName, opnodeflags.DiscoveryPathName} {
		args.WithStringOverride(path, "")
	}
	for _, port := range []string{opnodeflags.ListenTCPPortName, opnodeflags.ListenUDPPortName} {
		args.WithUintOverride(port, 0)
	}
}

// isolateP2P keeps the networking of the virtual nodes of one process apart: each
// has its own identity, databases and ports.
func isolateP2P(args *snflags.VirtualCLI, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making its p2p directory: %w", err)
	}
	if !args.IsChainSet(opnodeflags.P2PPrivPathName) {
		args.WithStringOverride(opnodeflags.P2PPrivPathName, filepath.Join(dir, "opnode_p2p_priv.txt"))
	}
	args.WithStringOverride(opnodeflags.PeerstorePathName, filepath.Join(dir, "peerstore_db"))
	args.WithStringOverride(opnodeflags.DiscoveryPathName, filepath.Join(dir, "discovery_db"))
	for _, port := range []string{opnodeflags.ListenTCPPortName, opnodeflags.ListenUDPPortName} {
		if args.IsGlobalSet(port) && args.GlobalUint(port) != 0 {
			return fmt.Errorf("--%s%s: %d: every chain would listen on it: expected 0, or a port of its own in --%s<chainID>.%s",
				snflags.VNFlagGlobalPrefix, port, args.GlobalUint(port), snflags.VNFlagNamePrefix, port)
		}
		if !args.IsSet(port) {
			args.WithUintOverride(port, 0)
		}
	}
	return nil
}
