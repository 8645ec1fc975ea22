package commands

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/urfave/cli/v2"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/audit"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/ledger"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	auditDirFlag    = &cli.PathFlag{Name: "data-dir", Usage: "--shared-sequencer.data-dir of an operator, which may run, or a copy of it. Only the ledger in it is read.", EnvVars: envVars("data-dir")}
	auditSetFlag    = &cli.PathFlag{Name: "operators", Usage: "Genesis file of the set. Without one the set is what the ledger says.", TakesFile: true, EnvVars: envVars("operators")}
	fromFlag        = &cli.Uint64Flag{Name: "from", Usage: "First slot, in Unix seconds. 0: the ledger's first.", EnvVars: envVars("from")}
	toFlag          = &cli.Uint64Flag{Name: "to", Usage: "Last slot, in Unix seconds. 0: the ledger's last.", EnvVars: envVars("to")}
	orderFlag       = &cli.StringFlag{Name: "order", Usage: "Order that the operators have agreed to fill in: priority, fcfs (needs --arrivals), or none, to leave it out.", Value: string(engine.Priority), EnvVars: envVars("order")}
	prioFlag        = &cli.StringSliceFlag{Name: "priority-accounts", Usage: "Accounts that come first in the order priority (repeatable or comma-separated): the operators' op-geths' --txpool.locals.", EnvVars: envVars("priority-accounts")}
	arrivalsInFlag  = &cli.StringSliceFlag{Name: "arrivals", Usage: "File of what was seen when, by the command arrivals or op-node's --shared-sequencer.arrivals (repeatable or comma-separated).", EnvVars: envVars("arrivals")}
	toleranceFlag   = &cli.DurationFlag{Name: "tolerance", Usage: "Transactions that were seen this close to each other may have come in another order elsewhere.", Value: 500 * time.Millisecond, EnvVars: envVars("tolerance")}
	noOrder         = "none"
	auditLedgerName = "ledger"
)

func auditCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "check afterwards what a ledger says was agreed on: votes, leaders, blocks and the order of transactions",
		Description: "It reads the ledger of an operator, also of one that runs, and changes nothing. Exit code 0 if nothing is wrong, 4 if something is.",
		Flags:       flagSet(auditDirFlag, auditSetFlag, fromFlag, toFlag, orderFlag, prioFlag, arrivalsInFlag, toleranceFlag, jsonFlag),
		Action:      func(c *cli.Context) error { return runAudit(c, env) },
	}
}

func runAudit(c *cli.Context, env Env) error {
	if err := paths(c, auditDirFlag); err != nil {
		return err
	}
	cfg := audit.Config{
		From: sequence.Slot(c.Uint64(fromFlag.Name)), To: sequence.Slot(c.Uint64(toFlag.Name)), Tolerance: c.Duration(toleranceFlag.Name),
	}
	if cfg.To != 0 && cfg.To < cfg.From {
		return usage("--%s: %d: expected none before --%s, %d", toFlag.Name, cfg.To, fromFlag.Name, cfg.From)
	}
	if cfg.Tolerance < 0 {
		return usage("--%s: %s: expected zero or more", toleranceFlag.Name, cfg.Tolerance)
	}
	var err error
	if cfg.Rule, err = auditRule(c, cfg.Tolerance); err != nil {
		return err
	}
	var genesis *operators.Genesis
	if path := c.Path(auditSetFlag.Name); path != "" {
		if genesis, err = operators.LoadGenesis(path); err != nil {
			return fmt.Errorf("--%s: %w", auditSetFlag.Name, err)
		}
	}
	cfg.Agreement = cometbft.NewAuditor(genesis)
	cfg.Seen = arrivals.Seen{}
	for _, path := range c.StringSlice(arrivalsInFlag.Name) {
		if err := cfg.Seen.Load(path); err != nil {
			return fmt.Errorf("--%s: %w", arrivalsInFlag.Name, err)
		}
	}
	led, err := ledger.OpenReadOnly(filepath.Join(c.Path(auditDirFlag.Name), auditLedgerName), log.NewLogger(log.DiscardHandler()))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf("--%s: %s has no ledger", auditDirFlag.Name, c.Path(auditDirFlag.Name))
	}
	if err != nil {
		return err
	}
	defer led.Close()
	cfg.Payload = func(chain sequence.ChainID, hash common.Hash) (*eth.ExecutionPayloadEnvelope, bool) {
		env, err := led.Payload(chain, hash)
		return env, err == nil
	}
	report, err := audit.Run(c.Context, led.Slots(cfg.From-min(cfg.From, audit.Before)), cfg)
	if err != nil {
		return err
	}
	if report.Slots == 0 {
		last, _, _ := led.Last()
		return fmt.Errorf("no slot from %d to %d is in the ledger, whose last one is %d", cfg.From, cfg.To, last)
	}
	if c.Bool(jsonFlag.Name) {
		err = printJSON(env.Out, report)
	} else {
		err = report.Write(env.Out)
	}
	if err == nil && !report.OK {
		err = &Exit{Code: ExitDegraded}
	}
	return err
}

// auditRule is the rule that the flags name; nil: none.
func auditRule(c *cli.Context, tolerance time.Duration) (audit.Rule, error) {
	prio := map[common.Address]bool{}
	for _, a := range c.StringSlice(prioFlag.Name) {
		if !common.IsHexAddress(a) {
			return nil, usage("--%s: %q: expected an address in hex", prioFlag.Name, a)
		}
		prio[common.HexToAddress(a)] = true
	}
	switch order := c.String(orderFlag.Name); order {
	case string(engine.Priority):
		return audit.Priority{Accounts: prio}, nil
	case string(engine.FCFS):
		if len(c.StringSlice(arrivalsInFlag.Name)) == 0 {
			return nil, usage("--%s: %s: which transaction came first is only known from --%s", orderFlag.Name, order, arrivalsInFlag.Name)
		}
		return audit.FCFS{Tolerance: tolerance}, nil
	case noOrder:
		return nil, nil
	default:
		return nil, usage("--%s: %q: expected %s, %s or %s", orderFlag.Name, order, engine.Priority, engine.FCFS, noOrder)
	}
}
