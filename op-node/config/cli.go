package config

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"
	snflags "github.com/ethereum-optimism/optimism/op-supernode/flags"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// FromCLI reads the configuration from the arguments and checks it. The context must
// have been made with flags.All.
func FromCLI(ctx *cli.Context, l log.Logger) (*Config, error) {
	if err := snflags.CheckRequired(ctx); err != nil {
		return nil, err
	}
	if ctx.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag: expected only flags (lists are separated by commas, without spaces)", ctx.Args().First())
	}
	c := &Config{Host: snconfig.NewConfig(ctx)}
	if err := c.Host.Check(); err != nil {
		return nil, err
	}
	seq := &c.SharedSequencer
	if ctx.Bool(flags.Enabled.Name) {
		if err := seq.read(ctx, c.Host); err != nil {
			return nil, err
		}
	}
	sequenced := func(id uint64) bool { return slices.Contains(seq.Chains, sequence.ChainID(id)) }
	nodes, err := nodeConfigs(ctx, c.Host, sequenced, l)
	if err != nil {
		return nil, err
	}
	c.Nodes = nodes
	if seq.Enabled {
		if err := seq.readEngines(ctx, c, l); err != nil {
			return nil, err
		}
	}
	return c, c.Check()
}

// read fills in everything but the engines, whose defaults are the nodes'.
func (s *SharedSequencer) read(ctx *cli.Context, host *snconfig.CLIConfig) error {
	*s = SharedSequencer{
		Enabled: true,
		DataDir: ctx.Path(flags.DataDir.Name),
		RPC:     RPC{ListenAddr: ctx.String(flags.RPCAddr.Name), ListenPort: ctx.Int(flags.RPCPort.Name)},
		Admin:   Admin{ListenAddr: ctx.String(flags.AdminAddr.Name), ListenPort: ctx.Int(flags.AdminPort.Name)},
		Status:  RPC{ListenAddr: ctx.String(flags.StatusAddr.Name), ListenPort: ctx.Int(flags.StatusPort.Name)},
		Relays: relay.Policy{
			Mode: relay.Mode(ctx.String(flags.RelayPolicy.Name)), SlotGas: ctx.Uint64(flags.RelaySlotGas.Name), SenderGas: ctx.Uint64(flags.RelaySenderGas.Name),
		},
		RelayGas:   ctx.Uint64(flags.RelayGas.Name),
		ChainGrace: ctx.Duration(flags.ChainGrace.Name),
		FillLead:   ctx.Duration(flags.FillLead.Name),
		SealLead:   ctx.Duration(flags.SealLead.Name),
		Subblocks:  ctx.Int(flags.Subblocks.Name),
		Rotation:   Rotation(ctx.String(flags.Rotation.Name)),
		Agreement: Agreement{
			Listen:         ctx.String(flags.ConsensusListen.Name),
			TimeoutPropose: ctx.Duration(flags.TimeoutPropose.Name),
			TimeoutVote:    ctx.Duration(flags.TimeoutVote.Name),
		},
		Bundles: Bundles{
			MaxItems:     ctx.Int(flags.BundleMaxItems.Name),
			MaxBytes:     ctx.Int(flags.BundleMaxBytes.Name),
			MaxPending:   ctx.Int(flags.BundleMaxPending.Name),
			MaxPerSender: ctx.Int(flags.BundleMaxPerSender.Name),
		},
	}
	if s.DataDir == "" {
		s.DataDir = filepath.Join(host.DataDir, "shared-sequencer")
	}
	ids := ctx.Uint64Slice(flags.Chains.Name)
	if len(ids) == 0 {
		ids = host.Chains
	}
	for _, id := range ids {
		s.Chains = append(s.Chains, sequence.ChainID(id))
	}
	for _, p := range ctx.StringSlice(flags.ConsensusPeers.Name) {
		s.Agreement.Peers = append(s.Agreement.Peers, strings.TrimSpace(p))
	}
	for _, a := range ctx.StringSlice(flags.RelayAllow.Name) {
		if a = strings.TrimSpace(a); !common.IsHexAddress(a) {
			return fmt.Errorf("--%s: %q: expected an address in hex", flags.RelayAllow.Name, a)
		}
		s.Relays.Allowed = append(s.Relays.Allowed, common.HexToAddress(a))
	}
	if path := ctx.Path(flags.AdminJWT.Name); path != "" {
		secret, err := oprpc.ObtainJWTSecret(log.NewLogger(log.DiscardHandler()), path, false)
		if err != nil {
			return fmt.Errorf("--%s: %w", flags.AdminJWT.Name, err)
		}
		s.Admin.JWT = secret
	}
	if path := ctx.Path(flags.Operators.Name); path != "" {
		genesis, err := operators.LoadGenesis(path)
		if err != nil {
			return fmt.Errorf("--%s: %w", flags.Operators.Name, err)
		}
		s.Agreement.Operators = genesis
	}
	var err error
	if s.Agreement.OperatorKey, err = privateKey(ctx, flags.OperatorKey, flags.OperatorKeyFile); err != nil {
		return err
	}
	s.RelayerKey, err = privateKey(ctx, flags.RelayerKey, flags.RelayerKeyFile)
	return err
}

// readEngines takes each chain's engine from its own flags, else from those of its node.
func (s *SharedSequencer) readEngines(ctx *cli.Context, c *Config, l log.Logger) error {
	urls, err := s.byChain(ctx, flags.Engines.Name)
	if err != nil {
		return err
	}
	jwts, err := s.byChain(ctx, flags.EngineJWTs.Name)
	if err != nil {
		return err
	}
	s.Engines = map[sequence.ChainID]Engine{}
	for _, id := range s.Chains {
		n := c.Nodes[id.ID()]
		if n == nil {
			continue // for Check to report
		}
		l2, ok := n.L2.(*opnodeconfig.L2EndpointConfig)
		if !ok {
			return fmt.Errorf("chain %s: its engine's address is a %T: expected an address in --%s", id, n.L2, flags.Engines.Name)
		}
		e := Engine{URL: l2.L2EngineAddr, JWT: l2.L2EngineJWTSecret}
		if u, ok := urls[id]; ok {
			e.URL = u
		}
		if path, ok := jwts[id]; ok {
			// A missing file is not made: the secret is the engine's to make.
			if e.JWT, err = oprpc.ObtainJWTSecret(l, path, false); err != nil {
				return fmt.Errorf("--%s: chain %s: %w", flags.EngineJWTs.Name, id, err)
			}
		}
		s.Engines[id] = e
	}
	return nil
}

// byChain reads a flag whose values have the form <chainID>=<value>.
func (s *SharedSequencer) byChain(ctx *cli.Context, name string) (map[sequence.ChainID]string, error) {
	out := map[sequence.ChainID]string{}
	for i, v := range ctx.StringSlice(name) {
		key, value, ok := strings.Cut(strings.TrimSpace(v), "=")
		id, err := strconv.ParseUint(key, 10, 64)
		if !ok || err != nil || value == "" {
			// Not repeated: a URL may hold credentials.
			return nil, fmt.Errorf("--%s: value %d: expected <chainID>=<value>", name, i+1)
		}
		chain := sequence.ChainID(id)
		if !slices.Contains(s.Chains, chain) {
			return nil, fmt.Errorf("--%s: chain %s is not sequenced here: expected one of %v", name, chain, s.Chains)
		}
		if _, twice := out[chain]; twice {
			return nil, fmt.Errorf("--%s: chain %s is named twice", name, chain)
		}
		out[chain] = value
	}
	return out, nil
}

// privateKey reads a key that is given itself or in a file, nil if neither is. Its errors
// never hold any of it.
func privateKey(ctx *cli.Context, direct *cli.StringFlag, inFile *cli.PathFlag) (*ecdsa.PrivateKey, error) {
	text, file := ctx.String(direct.Name), ctx.Path(inFile.Name)
	switch {
	case text == "" && file == "":
		return nil, nil
	case text != "" && file != "":
		return nil, fmt.Errorf("--%s and --%s are both set: expected one of them", direct.Name, inFile.Name)
	case file != "":
		key, err := ReadKey(file)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", inFile.Name, err)
		}
		return key, nil
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", direct.Name, err)
	}
	return key, nil
}

// ReadKey reads a private key in hex from a file. Its errors never hold any of it.
func ReadKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKey(string(data))
}

func parseKey(text string) (*ecdsa.PrivateKey, error) {
	key, err := crypto.HexToECDSA(strings.TrimPrefix(strings.TrimSpace(text), "0x"))
	if err != nil {
		return nil, errors.New("not a private key: expected 32 bytes in hex, between 1 and the order of secp256k1")
	}
	return key, nil
}
