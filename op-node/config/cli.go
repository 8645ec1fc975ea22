package config

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	opnodeconfig "github.com/ethereum-optimism/optimism/op-node/config"
	oprpc "github.com/ethereum-optimism/optimism/op-service/rpc"
	snconfig "github.com/ethereum-optimism/optimism/op-supernode/config"
	snflags "github.com/ethereum-optimism/optimism/op-supernode/flags"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/tracing"
)

// FromCLI reads the configuration from the arguments and checks it. The context must
// have been made with flags.All.
func FromCLI(ctx *cli.Context, l log.Logger) (*Config, error) {
	c, errs := Inspect(ctx, l)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return c, nil
}

// Inspect does what FromCLI does and goes on behind mistakes, as far as it can: it tells
// all it finds, each in one line, the one that FromCLI tells first. With mistakes the
// configuration is incomplete, and may be nil.
func Inspect(ctx *cli.Context, l log.Logger) (*Config, []error) {
	if err := snflags.CheckRequired(ctx); err != nil {
		return nil, []error{err}
	}
	if ctx.NArg() > 0 {
		return nil, []error{fmt.Errorf("%q is not a flag: expected only flags (lists are separated by commas, without spaces)", ctx.Args().First())}
	}
	c := &Config{Host: snconfig.NewConfig(ctx)}
	errs := join(c.Host.Check())
	seq := &c.SharedSequencer
	enabled := ctx.Bool(flags.Enabled.Name)
	if enabled {
		errs = append(errs, seq.read(ctx, c.Host)...)
	}
	sequenced := func(id uint64) bool { return slices.Contains(seq.Chains, sequence.ChainID(id)) }
	nodes, more := nodeConfigs(ctx, c.Host, sequenced, l)
	c.Nodes = nodes
	errs = append(errs, more...)
	if enabled {
		errs = append(errs, seq.readEngines(ctx, c, l)...)
		errs = append(errs, seq.problems()...)
		for _, err := range c.chainProblems() {
			if len(more) == 0 { // else a chain may be missing for what was told already
				errs = append(errs, err)
			}
		}
	}
	return c, distinct(errs)
}

// distinct leaves out what follows from another mistake: a second error about a flag whose
// value could not be read.
func distinct(errs []error) []error {
	told := map[string]bool{}
	return slices.DeleteFunc(errs, func(err error) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "--"), ": ")
		if !strings.HasPrefix(name, "shared-sequencer.") {
			return false
		}
		defer func() { told[name] = true }()
		return told[name]
	})
}

// read fills in everything but the engines, whose defaults are the nodes'.
func (s *SharedSequencer) read(ctx *cli.Context, host *snconfig.CLIConfig) (errs []error) {
	*s = SharedSequencer{
		Enabled: true,
		DataDir: ctx.Path(flags.DataDir.Name),
		RPC:     RPC{ListenAddr: ctx.String(flags.RPCAddr.Name), ListenPort: ctx.Int(flags.RPCPort.Name)},
		Admin:   Admin{ListenAddr: ctx.String(flags.AdminAddr.Name), ListenPort: ctx.Int(flags.AdminPort.Name)},
		Status:  RPC{ListenAddr: ctx.String(flags.StatusAddr.Name), ListenPort: ctx.Int(flags.StatusPort.Name)},
		Streams: RPC{ListenAddr: ctx.String(flags.SubblocksAddr.Name), ListenPort: ctx.Int(flags.SubblocksPort.Name)},
		RPCRate: ctx.Float64(flags.RPCRate.Name),
		Relays: relay.Policy{
			Mode: relay.Mode(ctx.String(flags.RelayPolicy.Name)), SlotGas: ctx.Uint64(flags.RelaySlotGas.Name), SenderGas: ctx.Uint64(flags.RelaySenderGas.Name),
		},
		RelayGas:   ctx.Uint64(flags.RelayGas.Name),
		ChainGrace: ctx.Duration(flags.ChainGrace.Name),
		FillLead:   ctx.Duration(flags.FillLead.Name),
		SealLead:   ctx.Duration(flags.SealLead.Name),
		Subblocks:  ctx.Int(flags.Subblocks.Name),
		Order:      engine.Order(ctx.String(flags.Order.Name)),
		Arrivals:   ctx.Path(flags.Arrivals.Name),
		Rotation:   Rotation(ctx.String(flags.Rotation.Name)),
		Agreement: Agreement{
			Listen:         ctx.String(flags.ConsensusListen.Name),
			TimeoutPropose: ctx.Duration(flags.TimeoutPropose.Name),
			TimeoutVote:    ctx.Duration(flags.TimeoutVote.Name),
		},
		Tracing: tracing.Config{Endpoint: ctx.String(flags.TracingEndpoint.Name), SampleRatio: ctx.Float64(flags.TracingSampleRatio.Name)},
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
	fail := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", name, err))
		}
	}
	for _, a := range ctx.StringSlice(flags.RelayAllow.Name) {
		if a = strings.TrimSpace(a); !common.IsHexAddress(a) {
			fail(flags.RelayAllow.Name, fmt.Errorf("%q: expected an address in hex", a))
			continue
		}
		s.Relays.Allowed = append(s.Relays.Allowed, common.HexToAddress(a))
	}
	var err error
	if path := ctx.Path(flags.AdminJWT.Name); path != "" {
		s.Admin.JWT, err = oprpc.ObtainJWTSecret(log.NewLogger(log.DiscardHandler()), path, false)
		fail(flags.AdminJWT.Name, err)
	}
	if path := ctx.Path(flags.Operators.Name); path != "" {
		s.Agreement.Operators, err = operators.LoadGenesis(path)
		fail(flags.Operators.Name, err)
	}
	password := flags.OperatorPasswordFile.Name
	if path := ctx.Path(password); path != "" {
		s.Agreement.Password, err = keyfile.ReadPassword(path)
		fail(password, err)
	}
	s.Agreement.OperatorKey, err = privateKey(ctx, flags.OperatorKey, flags.OperatorKeyFile, s.Agreement.Password)
	if errors.Is(err, keyfile.ErrProtected) {
		err = fmt.Errorf("%w: expected --%s", err, password)
	}
	errs = append(errs, join(err)...)
	s.RelayerKey, err = privateKey(ctx, flags.RelayerKey, flags.RelayerKeyFile, "")
	return append(errs, join(err)...)
}

// readEngines takes each chain's engine from its own flags, else from those of its node.
func (s *SharedSequencer) readEngines(ctx *cli.Context, c *Config, l log.Logger) (errs []error) {
	urls, err := s.byChain(ctx, flags.Engines.Name)
	errs = append(errs, join(err)...)
	jwts, err := s.byChain(ctx, flags.EngineJWTs.Name)
	errs = append(errs, join(err)...)
	s.Engines = map[sequence.ChainID]Engine{}
	for _, id := range s.Chains {
		n := c.Nodes[id.ID()]
		if n == nil {
			continue // for Check to report
		}
		l2, ok := n.L2.(*opnodeconfig.L2EndpointConfig)
		if !ok {
			errs = append(errs, fmt.Errorf("chain %s: its engine's address is a %T: expected an address in --%s", id, n.L2, flags.Engines.Name))
			continue
		}
		e := Engine{URL: l2.L2EngineAddr, JWT: l2.L2EngineJWTSecret}
		if u, ok := urls[id]; ok {
			e.URL = u
		}
		if path, ok := jwts[id]; ok {
			// A missing file is not made: the secret is the engine's to make.
			if e.JWT, err = oprpc.ObtainJWTSecret(l, path, false); err != nil {
				errs = append(errs, fmt.Errorf("--%s: chain %s: %w", flags.EngineJWTs.Name, id, err))
			}
		}
		s.Engines[id] = e
	}
	return errs
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
func privateKey(ctx *cli.Context, direct *cli.StringFlag, inFile *cli.PathFlag, password keyfile.Password) (*ecdsa.PrivateKey, error) {
	text, file := ctx.String(direct.Name), ctx.Path(inFile.Name)
	switch {
	case text == "" && file == "":
		return nil, nil
	case text != "" && file != "":
		return nil, fmt.Errorf("--%s and --%s are both set: expected one of them", direct.Name, inFile.Name)
	case file != "":
		key, err := keyfile.Read(file, password)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", inFile.Name, err)
		}
		return key, nil
	}
	key, err := keyfile.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", direct.Name, err)
	}
	return key, nil
}
