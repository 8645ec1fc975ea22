package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	oplog "github.com/ethereum-optimism/optimism/op-service/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/snapshot"
)

var (
	snapshotFromFlag = &cli.PathFlag{Name: "data-dir", Usage: "--shared-sequencer.data-dir of an operator that is stopped."}
	snapshotOutFlag  = &cli.PathFlag{Name: "out", Usage: "File to write."}
	snapshotInFlag   = &cli.PathFlag{Name: "in", Usage: "Snapshot of another operator.", TakesFile: true}
	snapshotToFlag   = &cli.PathFlag{Name: "data-dir", Usage: "The new operator's --shared-sequencer.data-dir. It may hold what `keys make` makes, and nothing else."}
	maxBytesFlag     = &cli.Int64Flag{Name: "max-bytes", Usage: "Refuse to unpack more.", Value: snapshot.DefaultLimits.Bytes}
)

// snapshotCommand is how a new operator gets what the others have agreed on.
func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Usage: "pack what was agreed on for a new operator: blocks and states of the agreement, ledger and messages, never keys",
		Subcommands: []*cli.Command{
			{Name: "create", Usage: "write a snapshot of an operator that is stopped",
				Flags: flagSet(snapshotFromFlag, snapshotOutFlag), Action: createSnapshot},
			{Name: "restore", Usage: "begin a new operator with a snapshot",
				Flags: flagSet(snapshotInFlag, snapshotToFlag, maxBytesFlag), Action: restoreSnapshot},
		},
	}
}

// paths are the values of flags that must be set.
func paths(c *cli.Context, flags ...*cli.PathFlag) error {
	if err := onlyFlags(c); err != nil {
		return err
	}
	for _, f := range flags {
		if c.Path(f.Name) == "" {
			return usage("--%s: missing: expected a path", f.Name)
		}
	}
	return nil
}

func createSnapshot(c *cli.Context) error {
	if err := paths(c, snapshotFromFlag, snapshotOutFlag); err != nil {
		return err
	}
	out := c.Path(snapshotOutFlag.Name)
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--%s: %s exists", snapshotOutFlag.Name, out)
	}
	position, err := writeSnapshot(c.Context, c.Path(snapshotFromFlag.Name), out, c.App.ErrWriter)
	if err != nil {
		return err
	}
	printPosition(c.App.Writer, position)
	return nil
}

// writeSnapshot writes the file under another name first: one that is there is whole.
func writeSnapshot(ctx context.Context, dataDir, out string, logs io.Writer) (_ *snapshot.Position, err error) {
	part := out + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	position, err := snapshot.Create(ctx, dataDir, f, oplog.NewLogger(logs, oplog.DefaultCLIConfig()))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return position, os.Rename(part, out)
}

func restoreSnapshot(c *cli.Context) error {
	if err := paths(c, snapshotInFlag, snapshotToFlag); err != nil {
		return err
	}
	in, err := os.Open(c.Path(snapshotInFlag.Name))
	if err != nil {
		return fmt.Errorf("--%s: %w", snapshotInFlag.Name, err)
	}
	defer in.Close()
	limits := snapshot.DefaultLimits
	limits.Bytes = c.Int64(maxBytesFlag.Name)
	position, err := snapshot.Restore(c.Context, in, c.Path(snapshotToFlag.Name), limits, oplog.NewLogger(c.App.ErrWriter, oplog.DefaultCLIConfig()))
	if err != nil {
		return err
	}
	printPosition(c.App.Writer, position)
	return nil
}

// printPosition says where a snapshot ends. The blocks of the chains can be held against
// any other operator's.
func printPosition(w io.Writer, p *snapshot.Position) {
	row := func(what string, value any) { fmt.Fprintf(w, "%-14s %v\n", what, value) }
	row("set", p.Set)
	row("slot", uint64(p.Slot))
	row("height", p.Height)
	row("app hash", p.AppHash)
	row("block hash", p.BlockHash)
	for _, h := range p.Chains {
		row(fmt.Sprintf("chain %s", h.Chain), fmt.Sprintf("%d %s", h.Number, h.Hash))
	}
}
