package commands

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	keyFileFlag = &cli.PathFlag{Name: "key-file", Usage: "File with the operator's private key: hex, or protected.", TakesFile: true, EnvVars: envVars("key-file")}
	genesisFlag = &cli.PathFlag{Name: "operators", Usage: "Genesis file of the set. With it the RPC's word for the set is not taken.", TakesFile: true, EnvVars: envVars("operators")}
	expiryFlag  = &cli.DurationFlag{Name: "expires-in", Usage: "How long the change may wait for approval.", Value: 24 * time.Hour, EnvVars: envVars("expires-in")}
	nonceFlag   = &cli.Uint64Flag{Name: "nonce", Usage: "Tells changes apart that say the same. Default: a random number.", EnvVars: envVars("nonce")}
)

// operatorsCommand is how the set changes.
func operatorsCommand(env Env, t *terminal) *cli.Command {
	return &cli.Command{
		Name: "operators", Usage: "show the set of operators, and change it",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "show the set, and the changes that wait",
				Flags: flagSet(rpcFlag, timeoutFlag), Action: func(c *cli.Context) error { return listOperators(c, env) }},
			{Name: "propose", Usage: "propose a change: add <name> <address> <consensus key> <power>, remove <address>, power <address> <power>, join <chain> or leave <chain>",
				ArgsUsage: "<change>", Flags: flagSet(rpcFlag, timeoutFlag, keyFileFlag, passwordFlag, genesisFlag, expiryFlag, nonceFlag),
				Action: func(c *cli.Context) error { return propose(c, env, t) }},
			{Name: "approve", Usage: "approve a change that waits",
				ArgsUsage: "<ID>", Flags: flagSet(rpcFlag, timeoutFlag, keyFileFlag, passwordFlag, genesisFlag),
				Action: func(c *cli.Context) error { return approve(c, env, t) }},
		},
	}
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

func listOperators(c *cli.Context, env Env) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		set, err := client.Operators(ctx)
		if err != nil {
			return called(err)
		}
		return printJSON(env.Out, set)
	})
}

func propose(c *cli.Context, env Env, t *terminal) error {
	change, err := parseChange(c.Args().Slice())
	if err != nil {
		return &Exit{ExitUsage, err}
	}
	if c.Duration(expiryFlag.Name) <= 0 {
		return usage("--%s: %s: expected more than zero", expiryFlag.Name, c.Duration(expiryFlag.Name))
	}
	if change.Nonce = c.Uint64(nonceFlag.Name); !c.IsSet(nonceFlag.Name) {
		change.Nonce = rand.Uint64N(math.MaxUint64)
	}
	key, err := signingKey(c, t) // before the time for the calls begins: a password may be asked for
	if err != nil {
		return err
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		st, err := client.Status(ctx)
		if err != nil {
			return called(err)
		}
		change.Expiry = sequence.Slot(st.Slot) + sequence.Slot(c.Duration(expiryFlag.Name)/time.Second)
		return submit(ctx, c, env, key, client, *change)
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

func approve(c *cli.Context, env Env, t *terminal) error {
	var id common.Hash
	if c.NArg() != 1 || id.UnmarshalText([]byte(c.Args().First())) != nil {
		return usage("which change: expected its ID, 0x and 64 hex digits, as operators list shows it")
	}
	key, err := signingKey(c, t)
	if err != nil {
		return err
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		set, err := client.Operators(ctx)
		if err != nil {
			return called(err)
		}
		for i := range set.Pending {
			if p := &set.Pending[i]; p.ID == id {
				change := p.Change.Governed()
				if change.ID() != id {
					return fmt.Errorf("the RPC says that change %s is %q, which has another ID: do not trust it", id, &change)
				}
				return submit(ctx, c, env, key, client, change)
			}
		}
		return fmt.Errorf("no change %s waits: it is in force, has expired, or was never proposed", id)
	})
}

// submit signs a change and sends it.
func submit(ctx context.Context, c *cli.Context, env Env, key *ecdsa.PrivateKey, client *rpc.Client, change operators.Change) error {
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
		return called(err)
	}
	fmt.Fprintf(env.Out, "%s\n%s, until slot %d; approved by %s\n", hexutil.Encode(id[:]), &change, change.Expiry, crypto.PubkeyToAddress(key.PublicKey))
	return nil
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
		return common.Hash{}, called(err)
	}
	return set.Set, nil
}
