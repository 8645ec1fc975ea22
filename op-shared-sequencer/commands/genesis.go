package commands

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	outFlag     = &cli.PathFlag{Name: "out", Usage: "Genesis file to write.", Value: "operators.json", EnvVars: envVars("out")}
	setFlag     = &cli.StringFlag{Name: "set", Usage: "Name of the set.", EnvVars: envVars("set")}
	entryFlag   = &cli.StringSliceFlag{Name: "operator", Usage: "An operator, as <name>=<address>,<consensus key>,<power> (repeatable). keys show prints the second and the third.", EnvVars: envVars("operator")}
	entryChains = &cli.Uint64SliceFlag{Name: "chains", Usage: "IDs of the chains that are sequenced (repeatable or comma-separated).", EnvVars: envVars("chains")}
	timeFlag    = &cli.TimestampFlag{Name: "time", Layout: time.RFC3339, Usage: "When the set begins to agree, as 2006-01-02T15:04:05Z. Default: now.", EnvVars: envVars("time")}
)

func genesisCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "genesis", Usage: "write the genesis file of a set: its operators and its chains. All operators use the same file",
		Flags: flagSet(outFlag, setFlag, entryFlag, entryChains, timeFlag), Action: func(c *cli.Context) error { return makeGenesis(c, env) },
	}
}

func makeGenesis(c *cli.Context, env Env) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	g := &operators.Genesis{Set: c.String(setFlag.Name), Time: env.Now().UTC().Truncate(time.Second)}
	if t := c.Timestamp(timeFlag.Name); t != nil {
		g.Time = t.UTC()
	}
	// The library has split the values at their commas.
	entries := c.StringSlice(entryFlag.Name)
	for len(entries) > 0 {
		n := min(3, len(entries))
		o, err := parseOperator(entries[:n])
		if err != nil {
			return usage("--%s: %w", entryFlag.Name, err)
		}
		g.Operators, entries = append(g.Operators, *o), entries[n:]
	}
	for _, id := range c.Uint64Slice(entryChains.Name) {
		g.Chains = append(g.Chains, sequence.ChainID(id))
	}
	out := c.Path(outFlag.Name)
	if exists(out) {
		return fmt.Errorf("--%s: %s exists: a set that began with it goes on with it only", outFlag.Name, out)
	}
	if err := g.Write(out); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s: set %s (%s) of %d operators, the same file for all of them\n", out, g.Set, g.ID(), len(g.Operators))
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
