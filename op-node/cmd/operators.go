package main

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/snapshot"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// operatorKeyFile is the operator's key in the directory that `operators keys` fills.
const operatorKeyFile = snapshot.OperatorKeyFile

// callTime bounds a call of an operator's RPC.
const callTime = 15 * time.Second

var (
	keysDirFlag = &cli.PathFlag{Name: "dir", Usage: "The operator's --shared-sequencer.data-dir."}
	outFlag     = &cli.PathFlag{Name: "out", Usage: "Genesis file to write.", Value: "operators.json"}
	setFlag     = &cli.StringFlag{Name: "set", Usage: "Name of the set."}
	entryFlag   = &cli.StringSliceFlag{Name: "operator", Usage: "An operator, as <name>=<address>,<consensus key>,<power> (repeatable). operators keys prints the second and the third."}
	entryChains = &cli.Uint64SliceFlag{Name: "chains", Usage: "IDs of the chains that are sequenced (repeatable or comma-separated)."}
	timeFlag    = &cli.TimestampFlag{Name: "time", Layout: time.RFC3339, Usage: "When the set begins to agree, as 2006-01-02T15:04:05Z. Default: now."}
	rpcFlag     = &cli.StringFlag{Name: "rpc", Usage: "sharedseq RPC of an operator.", Value: "http://127.0.0.1:8570"}
	keyFileFlag = &cli.PathFlag{Name: "key-file", Usage: "File with the operator's private key in hex.", TakesFile: true}
	genesisFlag = &cli.PathFlag{Name: "operators", Usage: "Genesis file of the set. With it the RPC's word for the set is not taken.", TakesFile: true}
	expiryFlag  = &cli.DurationFlag{Name: "expires-in", Usage: "How long the change may wait for approval.", Value: 24 * time.Hour}
	nonceFlag   = &cli.Uint64Flag{Name: "nonce", Usage: "Tells changes apart that say the same. Default: a random number."}
)

// operatorsCommand is what operators do about their set, apart from running a node.
func operatorsCommand() *cli.Command {
	usage := func(_ *cli.Context, err error, _ bool) error {
		return fmt.Errorf("%w (see op-node operators --help)", err)
	}
	snapshots := snapshotCommand()
	c := &cli.Command{
		Name: "operators", Usage: "keys, genesis and changes of a set of operators", OnUsageError: usage,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("%q is not a command of operators: expected keys, init-genesis, list, propose, approve or snapshot", c.Args().First())
			}
			return errors.New("no command: expected keys, init-genesis, list, propose, approve or snapshot")
		},
		Subcommands: []*cli.Command{
			{Name: "keys", Usage: "make an operator's keys, unless they are there, and print what the others need to know",
				Flags: []cli.Flag{keysDirFlag}, Action: operatorKeys},
			{Name: "init-genesis", Usage: "write the genesis file of a set",
				Flags: []cli.Flag{outFlag, setFlag, entryFlag, entryChains, timeFlag}, Action: initGenesis},
			{Name: "list", Usage: "show the set, and the changes that wait",
				Flags: []cli.Flag{rpcFlag}, Action: listOperators},
			{Name: "propose", Usage: "propose a change: add <name> <address> <consensus key> <power>, remove <address>, power <address> <power>, join <chain> or leave <chain>",
				ArgsUsage: "<change>", Flags: []cli.Flag{rpcFlag, keyFileFlag, genesisFlag, expiryFlag, nonceFlag}, Action: propose},
			{Name: "approve", Usage: "approve a change that waits",
				ArgsUsage: "<ID>", Flags: []cli.Flag{rpcFlag, keyFileFlag, genesisFlag}, Action: approve},
			snapshots,
		},
	}
	for _, s := range slices.Concat(c.Subcommands, snapshots.Subcommands) {
		s.OnUsageError, s.HideHelpCommand = usage, true
	}
	return c
}

// onlyFlags refuses arguments that are none.
func onlyFlags(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("%q is not a flag: expected only flags", c.Args().First())
	}
	return nil
}

func operatorKeys(c *cli.Context) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	dir := c.Path(keysDirFlag.Name)
	if dir == "" {
		return fmt.Errorf("--%s: missing: expected a directory", keysDirFlag.Name)
	}
	keys, err := cometbft.InitKeys(config.ConsensusDir(dir))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, operatorKeyFile)
	key, err := config.ReadKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = crypto.GenerateKey(); err == nil {
			err = crypto.SaveECDSA(file, key) // 0600
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	w := c.App.Writer
	row := func(what, value string) { fmt.Fprintf(w, "%-14s %s\n", what, value) }
	row("address", crypto.PubkeyToAddress(key.PublicKey).Hex())
	row("consensus key", keys.ConsensusKey.String())
	row("node ID", keys.NodeID)
	row("key file", file)
	return nil
}

func initGenesis(c *cli.Context) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	g := &operators.Genesis{Set: c.String(setFlag.Name), Time: time.Now().UTC().Truncate(time.Second)}
	if t := c.Timestamp(timeFlag.Name); t != nil {
		g.Time = t.UTC()
	}
	// The library has split the values at their commas.
	entries := c.StringSlice(entryFlag.Name)
	for len(entries) > 0 {
		n := min(3, len(entries))
		o, err := parseOperator(entries[:n])
		if err != nil {
			return fmt.Errorf("--%s: %w", entryFlag.Name, err)
		}
		g.Operators, entries = append(g.Operators, *o), entries[n:]
	}
	for _, id := range c.Uint64Slice(entryChains.Name) {
		g.Chains = append(g.Chains, sequence.ChainID(id))
	}
	out := c.Path(outFlag.Name)
	if _, err := os.Lstat(out); err == nil {
		return fmt.Errorf("--%s: %s exists: a set that began with it goes on with it only", outFlag.Name, out)
	}
	if err := g.Write(out); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: set %s (%s) of %d operators, the same file for all of them\n", out, g.Set, g.ID(), len(g.Operators))
	return nil
}

// parseOperator reads <name>=<address>, <consensus key> and <power>.
func parseOperator(parts []string) (*operators.Operator, error) {
	name, address, ok := strings.Cut(parts[0], "=")
	if !ok || len(parts) != 3 {
		return nil, fmt.Errorf("%q: expected <name>=<address>,<consensus key>,<power>", strings.Join(parts, ","))
	}
	return operatorOf(name, address, parts[1], parts[2])
}

func operatorOf(name, address, key, power string) (*operators.Operator, error) {
	o := &operators.Operator{Name: name}
	var err error
	if o.Address, err = parseAddress(address); err != nil {
		return nil, err
	}
	if err := o.ConsensusKey.UnmarshalText([]byte(key)); err != nil {
		return nil, fmt.Errorf("consensus key %q: expected 0x and 64 hex digits", key)
	}
	if o.Power, err = parseNumber("power", power); err != nil {
		return nil, err
	}
	return o, o.Check()
}

func parseAddress(s string) (common.Address, error) {
	if !strings.HasPrefix(s, "0x") || !common.IsHexAddress(s) {
		return common.Address{}, fmt.Errorf("address %q: expected 0x and 40 hex digits", s)
	}
	return common.HexToAddress(s), nil
}

func parseNumber(what, s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s %q: expected a number", what, s)
	}
	return n, nil
}

// withClient dials the operator that the flags name, for the time of a call.
func withClient(c *cli.Context, f func(context.Context, *rpc.Client) error) error {
	ctx, cancel := context.WithTimeout(c.Context, callTime)
	defer cancel()
	client, err := rpc.Dial(ctx, c.String(rpcFlag.Name))
	if err != nil {
		return fmt.Errorf("--%s: %w", rpcFlag.Name, err)
	}
	defer client.Close()
	return f(ctx, client)
}

func listOperators(c *cli.Context) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		set, err := client.Operators(ctx)
		if err != nil {
			return err
		}
		return printJSON(c.App.Writer, set)
	})
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func propose(c *cli.Context) error {
	change, err := parseChange(c.Args().Slice())
	if err != nil {
		return err
	}
	if c.Duration(expiryFlag.Name) <= 0 {
		return fmt.Errorf("--%s: %s: expected more than zero", expiryFlag.Name, c.Duration(expiryFlag.Name))
	}
	if change.Nonce = c.Uint64(nonceFlag.Name); !c.IsSet(nonceFlag.Name) {
		change.Nonce = rand.Uint64N(math.MaxUint64)
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		change.Expiry = sequence.Slot(st.Slot) + sequence.Slot(c.Duration(expiryFlag.Name)/time.Second)
		return submit(ctx, c, client, *change)
	})
}

// parseChange reads what a change does.
func parseChange(args []string) (*operators.Change, error) {
	usage := errors.New("no such change: expected add <name> <address> <consensus key> <power>, remove <address>, power <address> <power>, join <chain> or leave <chain>")
	kinds := map[string]struct {
		kind operators.Kind
		args int
	}{
		"add": {operators.AddOperator, 4}, "remove": {operators.RemoveOperator, 1}, "power": {operators.SetPower, 2},
		"join": {operators.JoinChain, 1}, "leave": {operators.LeaveChain, 1},
	}
	if len(args) == 0 {
		return nil, usage
	}
	k, ok := kinds[args[0]]
	if args = args[1:]; !ok || len(args) != k.args {
		return nil, usage
	}
	change := &operators.Change{Kind: k.kind}
	var err error
	switch k.kind {
	case operators.AddOperator:
		o, err := operatorOf(args[0], args[1], args[2], args[3])
		if err != nil {
			return nil, err
		}
		change.Operator = *o
	case operators.RemoveOperator, operators.SetPower:
		if change.Operator.Address, err = parseAddress(args[0]); err == nil && k.kind == operators.SetPower {
			change.Operator.Power, err = parseNumber("power", args[1])
		}
	default:
		var id uint64
		id, err = parseNumber("chain", args[0])
		change.Chain = sequence.ChainID(id)
	}
	if err != nil {
		return nil, err
	}
	return change, change.Check()
}

func approve(c *cli.Context) error {
	var id common.Hash
	if c.NArg() != 1 || id.UnmarshalText([]byte(c.Args().First())) != nil {
		return errors.New("which change: expected its ID, 0x and 64 hex digits, as operators list shows it")
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		set, err := client.Operators(ctx)
		if err != nil {
			return err
		}
		for i := range set.Pending {
			if p := &set.Pending[i]; p.ID == id {
				change := p.Change.Governed()
				if change.ID() != id {
					return fmt.Errorf("the RPC says that change %s is %q, which has another ID: do not trust it", id, &change)
				}
				return submit(ctx, c, client, change)
			}
		}
		return fmt.Errorf("no change %s waits: it is in force, has expired, or was never proposed", id)
	})
}

// submit signs a change and sends it.
func submit(ctx context.Context, c *cli.Context, client *rpc.Client, change operators.Change) error {
	key, err := signingKey(c)
	if err != nil {
		return err
	}
	setID, err := setID(ctx, c, client)
	if err != nil {
		return err
	}
	signed, err := operators.SignChange(setID, change, key)
	if err != nil {
		return err
	}
	id, err := client.SubmitChange(ctx, signed)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s\n%s, until slot %d; approved by %s\n", hexutil.Encode(id[:]), &change, change.Expiry, crypto.PubkeyToAddress(key.PublicKey))
	return nil
}

func signingKey(c *cli.Context) (*ecdsa.PrivateKey, error) {
	path := c.Path(keyFileFlag.Name)
	if path == "" {
		return nil, fmt.Errorf("--%s: missing: expected the file with the operator's key", keyFileFlag.Name)
	}
	key, err := config.ReadKey(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", keyFileFlag.Name, err)
	}
	return key, nil
}

// setID is the genesis file's, else the RPC's.
func setID(ctx context.Context, c *cli.Context, client *rpc.Client) (common.Hash, error) {
	if path := c.Path(genesisFlag.Name); path != "" {
		g, err := operators.LoadGenesis(path)
		if err != nil {
			return common.Hash{}, fmt.Errorf("--%s: %w", genesisFlag.Name, err)
		}
		return g.ID(), nil
	}
	set, err := client.Operators(ctx)
	if err != nil {
		return common.Hash{}, err
	}
	return set.Set, nil
}
