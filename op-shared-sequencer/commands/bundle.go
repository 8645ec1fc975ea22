package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// maxBundleFile is above what an operator takes.
const maxBundleFile = 8 << 20

var (
	waitFlag     = &cli.BoolFlag{Name: "wait", Usage: "Wait until it is executed, or has ended otherwise. The exit code says which.", EnvVars: envVars("wait")}
	safeFlag     = &cli.BoolFlag{Name: "safe", Usage: "With --wait: wait until it is safe, derived from L1 and verified on all its chains.", EnvVars: envVars("safe")}
	waitTimeFlag = &cli.DurationFlag{Name: "wait-timeout", Usage: "How long --wait waits.", Value: 2 * time.Minute, EnvVars: envVars("wait-timeout")}
)

func bundleCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "bundle", Usage: "send, simulate and look up bundles",
		Subcommands: []*cli.Command{
			{Name: "send", Usage: "send a bundle: JSON of the shape that sharedseq_sendBundle takes, from a file or from standard input", ArgsUsage: "[<file>|-]",
				Description: "Exit code 0 if it was taken, or with --wait executed; 1 if it was refused or failed, 5 if it expired, 6 if it was undone, 7 if it has not ended after --wait-timeout, 8 if it was cancelled or replaced.",
				Flags:       flagSet(rpcFlag, timeoutFlag, jsonFlag, waitFlag, safeFlag, waitTimeFlag), Action: func(c *cli.Context) error { return sendBundle(c, env) }},
			{Name: "simulate", Usage: "run a bundle on the present blocks and leave no trace", ArgsUsage: "[<file>|-]",
				Flags: flagSet(rpcFlag, timeoutFlag, jsonFlag), Action: func(c *cli.Context) error { return simulateBundle(c, env) }},
			{Name: "status", Usage: "what became of a bundle", ArgsUsage: "<bundle hash>",
				Description: "Exit code 0 if it is executed or safe, 1 if it failed or is not known, 5 if it expired, 6 if it was undone, 7 if it is pending, 8 if it was cancelled or replaced.",
				Flags:       flagSet(rpcFlag, timeoutFlag, jsonFlag), Action: func(c *cli.Context) error { return bundleStatus(c, env) }},
		},
	}
}

// readBundle reads the file that is named, or standard input.
func readBundle(c *cli.Context, env Env) (rpc.BundleArgs, error) {
	var args rpc.BundleArgs
	if c.NArg() > 1 {
		return args, usage("%d arguments: expected one file, or - for standard input; flags come before it", c.NArg())
	}
	in, name := env.In, "standard input"
	if path := c.Args().First(); path != "" && path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return args, usage("%w", err)
		}
		defer f.Close()
		in, name = f, path
	}
	data, err := io.ReadAll(io.LimitReader(in, maxBundleFile+1))
	if err != nil {
		return args, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxBundleFile {
		return args, usage("%s: more than %d bytes", name, maxBundleFile)
	}
	if err := args.UnmarshalJSON(data); err != nil {
		return args, usage("%s: not a bundle: %w: expected {\"items\":[{\"chainId\":\"0x385\",\"tx\":\"0x…\"},{\"chainId\":\"0x386\",\"relay\":true}]}", name, err)
	}
	return args, nil
}

func sendBundle(c *cli.Context, env Env) error {
	args, err := readBundle(c, env)
	if err != nil {
		return err
	}
	if c.Bool(safeFlag.Name) && !c.Bool(waitFlag.Name) {
		return usage("--%s: only with --%s", safeFlag.Name, waitFlag.Name)
	}
	var sent *rpc.SendResult
	if err := withClient(c, func(ctx context.Context, client *rpc.Client) error {
		sent, err = client.SendBundle(ctx, args)
		return called(err)
	}); err != nil {
		return err
	}
	asJSON := c.Bool(jsonFlag.Name)
	if !c.Bool(waitFlag.Name) {
		if asJSON {
			return printJSON(env.Out, sent)
		}
		_, err := fmt.Fprintf(env.Out, "%s until slot %d\n", sent.BundleHash, uint64(sent.ExpirySlot))
		return err
	}
	if !asJSON {
		fmt.Fprintf(env.Err, "%s until slot %d\n", sent.BundleHash, uint64(sent.ExpirySlot))
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(waitTimeFlag.Name))
	defer cancel()
	client, err := dial(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	wait := client.WaitBundle
	if c.Bool(safeFlag.Name) {
		wait = client.WaitBundleFinal
	}
	st, err := wait(ctx, sent.BundleHash)
	if errors.Is(err, context.DeadlineExceeded) {
		return &Exit{ExitPending, fmt.Errorf("%w: ask again with bundle status %s", err, sent.BundleHash)}
	}
	if err != nil {
		return called(err)
	}
	return writeBundle(c, env, st)
}

func bundleStatus(c *cli.Context, env Env) error {
	var hash common.Hash
	if c.NArg() != 1 || hash.UnmarshalText([]byte(c.Args().First())) != nil {
		return usage("which bundle: expected its hash, 0x and 64 hex digits")
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		st, err := client.BundleStatus(ctx, hash)
		if err != nil {
			return called(err)
		}
		return writeBundle(c, env, st)
	})
}

func writeBundle(c *cli.Context, env Env, st *rpc.BundleStatus) error {
	var err error
	if c.Bool(jsonFlag.Name) {
		err = printJSON(env.Out, st)
	} else {
		fmt.Fprintf(env.Out, "%s %s", st.BundleHash, st.State)
		if st.Slot != nil {
			fmt.Fprintf(env.Out, " in slot %d", uint64(*st.Slot))
		}
		fmt.Fprintln(env.Out)
		err = writeItems(env.Out, st.Items, st.Failure)
	}
	if code := fate(st.State); err == nil && code != ExitOK {
		err = &Exit{Code: code}
	}
	return err
}

// fate is the exit code for a bundle's state.
func fate(s bundlepool.State) int {
	switch s {
	case bundlepool.Executed, bundlepool.Safe:
		return ExitOK
	case bundlepool.Expired:
		return ExitExpired
	case bundlepool.Undone:
		return ExitUndone
	case bundlepool.Pending:
		return ExitPending
	case bundlepool.Cancelled, bundlepool.Replaced:
		return ExitCancelled
	default:
		return ExitFailed
	}
}

func simulateBundle(c *cli.Context, env Env) error {
	args, err := readBundle(c, env)
	if err != nil {
		return err
	}
	return withClient(c, func(ctx context.Context, client *rpc.Client) error {
		sim, err := client.SimulateBundle(ctx, args)
		if err != nil {
			return called(err)
		}
		if c.Bool(jsonFlag.Name) {
			err = printJSON(env.Out, sim)
		} else {
			says := "would fail"
			if sim.Success {
				says = "would be executed"
			}
			fmt.Fprintf(env.Out, "%s in slot %d\n", says, uint64(sim.Slot))
			err = writeItems(env.Out, sim.Items, sim.Failure)
		}
		if err == nil && !sim.Success {
			err = &Exit{Code: ExitFailed}
		}
		return err
	})
}

func writeItems(w io.Writer, items []rpc.Item, failure *rpc.Failure) error {
	for _, it := range items {
		said := "succeeded"
		if it.Status != 1 {
			said = "reverted: " + it.RevertReason
		}
		if _, err := fmt.Fprintf(w, "  item %d  chain %d  block %d  %s  gas %d  %s\n", it.Item, it.ChainID, it.BlockNumber, it.TxHash, it.GasUsed, said); err != nil {
			return err
		}
	}
	if failure == nil {
		return nil
	}
	where := ""
	if failure.Item != nil {
		where += fmt.Sprintf("item %d: ", uint64(*failure.Item))
	}
	if failure.ChainID != nil {
		where += fmt.Sprintf("chain %d: ", uint64(*failure.ChainID))
	}
	_, err := fmt.Fprintf(w, "  why: %s%s\n", where, failure.Reason)
	return err
}
