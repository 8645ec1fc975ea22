// Package preflight says what is wrong with op-node's arguments before it is started, and
// starts, makes and changes nothing.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	opnodeflags "github.com/ethereum-optimism/optimism/op-node/flags"
	"github.com/ethereum-optimism/optimism/op-node/p2p"
	"github.com/ethereum-optimism/optimism/op-service/cliapp"
	snflags "github.com/ethereum-optimism/optimism/op-supernode/flags"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/flags"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Finding is what is wrong, in one line. A warning does not keep op-node from starting.
type Finding struct {
	Text    string `json:"text"`
	Warning bool   `json:"warning"`
}

// Options say how far the checks go.
type Options struct {
	Online  bool // ask L1 and the engines
	Ports   bool // see whether ports are free
	Timeout time.Duration
	Getenv  func(string) string // for --chains; flags read the process's environment
}

// Check reads arguments and environment as op-node does. The arguments are without the
// program's name. Findings are in the order in which op-node would stumble over them.
func Check(ctx context.Context, args []string, opts Options) []Finding {
	c := &check{opts: opts, log: log.NewLogger(log.DiscardHandler())}
	if err := c.run(ctx, args); err != nil {
		c.wrong("%s", err)
	}
	return c.found
}

type check struct {
	opts  Options
	log   log.Logger
	found []Finding
}

func (c *check) add(warning bool, format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	c.found = append(c.found, Finding{Text: text, Warning: warning})
}

func (c *check) wrong(format string, args ...any) { c.add(false, format, args...) }
func (c *check) warn(format string, args ...any)  { c.add(true, format, args...) }

func (c *check) run(ctx context.Context, args []string) error {
	args = append([]string{"op-node"}, args...)
	chains, err := flags.ChainIDs(args, c.opts.Getenv)
	if err != nil {
		return err
	}
	app := cli.NewApp()
	app.Name, app.HideHelp, app.HideVersion = "op-node", true, true
	app.Writer, app.ErrWriter = io.Discard, io.Discard
	app.ExitErrHandler = func(*cli.Context, error) {}
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return err }
	app.Flags = cliapp.ProtectFlags(flags.All(chains))
	app.Action = func(cc *cli.Context) error { return c.read(cc, chains) }
	return app.RunContext(ctx, args)
}

func (c *check) read(cc *cli.Context, chains []uint64) error {
	for _, name := range flags.UnknownEnv(os.Environ()) {
		c.wrong("environment variable %s: not one of op-node's", name)
	}
	dataDir := cc.String(snflags.DataDirFlag.Name)
	tmp, err := os.MkdirTemp("", "op-node-check")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := c.shield(cc, chains, tmp); err != nil {
		return err
	}
	cfg, errs := config.Inspect(cc, c.log)
	for _, err := range errs {
		c.wrong("%s", strings.ReplaceAll(err.Error(), tmp, dataDir))
	}
	c.dir("--"+snflags.DataDirFlag.Name, dataDir)
	if cfg == nil {
		return nil
	}
	if cfg.SharedSequencer.Enabled {
		if cc.Path(flags.DataDir.Name) == "" {
			cfg.SharedSequencer.DataDir = filepath.Join(dataDir, "shared-sequencer")
		}
		c.agreement(cc, &cfg.SharedSequencer)
		c.secrets(cc)
	} else {
		c.warn("--%s is not set: op-node will run as upstream's op-supernode", flags.Enabled.Name)
	}
	if c.opts.Ports {
		c.ports(cfg)
	}
	if c.opts.Online {
		c.online(cc.Context, cfg)
	}
	return nil
}

// shield has what op-node makes at its start made in a directory that is thrown away, and
// tells of secrets that are not there: op-node would make new ones, which nobody else has.
func (c *check) shield(cc *cli.Context, chains []uint64, tmp string) error {
	if err := cc.Set(snflags.DataDirFlag.Name, tmp); err != nil {
		return err
	}
	prefixes := []string{snflags.VNFlagGlobalPrefix}
	for _, id := range chains {
		prefixes = append(prefixes, fmt.Sprintf("%s%d.", snflags.VNFlagNamePrefix, id))
	}
	for i, prefix := range prefixes {
		for _, f := range []struct {
			name string
			told bool
		}{{opnodeflags.L2EngineJWTSecret.Name, true}, {opnodeflags.P2PPrivPathName, false}} {
			name := prefix + f.name
			path := cc.String(name)
			if !cc.IsSet(name) || path == "" {
				continue
			}
			if _, err := os.Stat(path); err == nil {
				continue
			} else if f.told {
				c.wrong("--%s: %s: expected the file with the secret that op-geth has", name, unwrapPath(err))
			}
			stand := filepath.Join(tmp, f.name+strconv.Itoa(i))
			if f.told {
				if err := os.WriteFile(stand, []byte(strings.Repeat("00", 32)), 0o600); err != nil {
					return err
				}
			}
			if err := cc.Set(name, stand); err != nil {
				return err
			}
		}
	}
	return nil
}

func unwrapPath(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Path + ": " + p.Err.Error()
	}
	return err.Error()
}

// dir: a directory, or one that can be made.
func (c *check) dir(name, path string) {
	for p := path; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist) && p != filepath.Dir(p):
			continue
		case err != nil:
			c.wrong("%s: %s", name, unwrapPath(err))
		case !info.IsDir():
			c.wrong("%s: %s is not a directory", name, p)
		case info.Mode().Perm()&0o200 == 0:
			c.wrong("%s: %s cannot be written to", name, p)
		}
		return
	}
}

// agreement holds keys, set and peers against each other.
func (c *check) agreement(cc *cli.Context, s *config.SharedSequencer) {
	a := &s.Agreement
	g := a.Operators
	if s.Rotation != config.CometBFT || g == nil {
		return
	}
	for _, id := range g.Chains {
		if !slices.Contains(s.Chains, id) {
			c.wrong("--%s: chain %s of the set is not in it: expected every chain of %s", flags.Chains.Name, id, cc.Path(flags.Operators.Name))
		}
	}
	for _, id := range s.Chains {
		if !slices.Contains(g.Chains, id) {
			c.warn("--%s: chain %s is not in %s: it makes no blocks until the set takes it in", flags.Chains.Name, id, cc.Path(flags.Operators.Name))
		}
	}
	if len(a.Peers) < len(g.Operators)-1 {
		c.warn("--%s: %d peers, %d other operators: expected all of them", flags.ConsensusPeers.Name, len(a.Peers), len(g.Operators)-1)
	}
	dir := config.ConsensusDir(s.DataDir)
	keys, err := cometbft.ReadKeys(dir)
	switch {
	case a.OperatorKey == nil:
		if cc.Path(flags.OperatorKeyFile.Name) == "" && cc.String(flags.OperatorKey.Name) == "" {
			c.warn("--%s is not set: this node follows and never leads", flags.OperatorKeyFile.Name)
		}
	case errors.Is(err, fs.ErrNotExist):
		c.wrong("--%s: no consensus key in %s: expected it from op-shared-sequencer keys make --data-dir %s", flags.DataDir.Name, dir, s.DataDir)
		return
	case err != nil:
		c.wrong("--%s: %s", flags.DataDir.Name, err)
		return
	}
	if err != nil {
		return
	}
	if err := cometbft.CheckKeys(dir, a.Password); errors.Is(err, keyfile.ErrProtected) {
		c.wrong("--%s: %s: expected --%s", flags.DataDir.Name, err, flags.OperatorPasswordFile.Name)
	} else if err != nil {
		c.wrong("--%s: %s", flags.DataDir.Name, err)
	}
	for _, p := range a.Peers {
		if strings.HasPrefix(p, keys.NodeID+"@") {
			c.wrong("--%s: %s is this node itself", flags.ConsensusPeers.Name, p)
		}
	}
	if a.OperatorKey == nil {
		return
	}
	address := crypto.PubkeyToAddress(a.OperatorKey.PublicKey)
	for _, o := range g.Operators {
		switch {
		case o.Address == address && o.ConsensusKey != keys.ConsensusKey:
			c.wrong("--%s: operator %s votes with %s in %s, and the consensus key in %s is %s", flags.Operators.Name, o.Name, o.ConsensusKey, cc.Path(flags.Operators.Name), dir, keys.ConsensusKey)
			return
		case o.Address == address:
			return
		case o.ConsensusKey == keys.ConsensusKey:
			c.wrong("--%s: the consensus key in %s is operator %s's, whose address is %s; the operator key's is %s", flags.Operators.Name, dir, o.Name, o.Address, address)
			return
		}
	}
	c.warn("--%s: %s is not an operator in %s: this node follows until the set takes it in", flags.OperatorKeyFile.Name, address, cc.Path(flags.Operators.Name))
}

// secrets should be readable by their owner alone.
func (c *check) secrets(cc *cli.Context) {
	for _, f := range []string{flags.OperatorKeyFile.Name, flags.OperatorPasswordFile.Name, flags.RelayerKeyFile.Name, flags.AdminJWT.Name} {
		path := cc.Path(f)
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			c.warn("--%s: others can read %s (mode %04o): expected 0600", f, path, info.Mode().Perm())
		}
	}
}

// ports are free, and each is one listener's.
func (c *check) ports(cfg *config.Config) {
	taken := map[string]string{}
	look := func(flag, host string, port int) {
		if port == 0 {
			return // any free one
		}
		at := net.JoinHostPort(host, strconv.Itoa(port))
		if other, ok := taken[strconv.Itoa(port)]; ok {
			c.wrong("--%s: port %d is --%s's too", flag, port, other)
			return
		}
		taken[strconv.Itoa(port)] = flag
		l, err := net.Listen("tcp", at)
		if err != nil {
			var op *net.OpError
			if errors.As(err, &op) {
				err = op.Err
			}
			c.wrong("--%s: cannot listen on %s: %s. Does op-node run already?", flag, at, err)
			return
		}
		_ = l.Close()
	}
	h := cfg.Host
	look("rpc.port", h.RPCConfig.ListenAddr, h.RPCConfig.ListenPort)
	if h.MetricsConfig.Enabled {
		look("metrics.port", h.MetricsConfig.ListenAddr, h.MetricsConfig.ListenPort)
	}
	if h.PprofConfig.ListenEnabled {
		look("pprof.port", h.PprofConfig.ListenAddr, h.PprofConfig.ListenPort)
	}
	if s := &cfg.SharedSequencer; s.Enabled {
		look(flags.RPCPort.Name, s.RPC.ListenAddr, s.RPC.ListenPort)
		if s.Admin.ListenAddr != "" {
			look(flags.AdminPort.Name, s.Admin.ListenAddr, s.Admin.ListenPort)
		}
		if host, port, err := net.SplitHostPort(s.Agreement.Listen); err == nil && s.Rotation == config.CometBFT {
			n, _ := strconv.Atoi(port)
			look(flags.ConsensusListen.Name, host, n)
		}
	}
	for _, id := range h.Chains {
		n := cfg.Nodes[sequence.ChainID(id).ID()]
		if n == nil {
			continue
		}
		if p, ok := n.P2P.(*p2p.Config); ok && !p.DisableP2P {
			look(fmt.Sprintf("%s%d.%s", snflags.VNFlagNamePrefix, id, opnodeflags.ListenTCPPortName), p.ListenIP.String(), int(p.ListenTCPPort))
		}
	}
}

// online asks L1 and the engines who they are.
func (c *check) online(ctx context.Context, cfg *config.Config) {
	l1, err := c.chainID(ctx, cfg.Host.L1NodeAddr)
	if err != nil {
		c.wrong("--%s: %s", snflags.L1NodeAddr.Name, err)
	}
	for _, id := range cfg.Host.Chains {
		chain := sequence.ChainID(id)
		n := cfg.Nodes[chain.ID()]
		if n == nil {
			continue
		}
		if want := n.Rollup.L1ChainID; err == nil && (want == nil || want.Uint64() != l1) {
			c.wrong("--%s: it is chain %d, and chain %d's L1 is chain %v", snflags.L1NodeAddr.Name, l1, id, want)
		}
		at, ok := cfg.SharedSequencer.Engines[chain]
		if !ok {
			continue
		}
		dctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
		e, err := engine.Dial(dctx, c.log, &n.Rollup, at.URL, at.JWT, engine.Options{})
		cancel()
		if err != nil {
			c.wrong("%s", err)
			continue
		}
		e.Close()
	}
}

func (c *check) chainID(ctx context.Context, address string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	client, err := ethclient.DialContext(ctx, address)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	id, err := client.ChainID(ctx)
	if err != nil {
		var u *url.Error // the URL may hold credentials
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, fmt.Errorf("L1 does not answer: %w", err)
	}
	return id.Uint64(), nil
}
