package commands

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var (
	poolsFlag       = &cli.StringSliceFlag{Name: "pool", Usage: "A chain's op-geth, as <chainID>=<URL> of its public WebSocket RPC or path of its IPC socket (repeatable or comma-separated).", EnvVars: envVars("pool")}
	arrivalsOutFlag = &cli.PathFlag{Name: "out", Usage: "File to write behind.", Value: "arrivals.jsonl", EnvVars: envVars("out")}
	fileBytesFlag   = &cli.Int64Flag{Name: "max-bytes", Usage: "Size from which a new file is begun. The one before is kept under its name with .1 behind it, older ones are not.", Value: 1 << 30, EnvVars: envVars("max-bytes")}
)

// again is how long a pool that does not answer is left alone.
const again = time.Second

func arrivalsCommand(env Env) *cli.Command {
	return &cli.Command{
		Name: "arrivals", Usage: "write down when the pools of chains see transactions first, for audit",
		Description: "It goes on until it is interrupted. What comes while a pool is not connected is not seen.",
		Flags:       flagSet(poolsFlag, arrivalsOutFlag, fileBytesFlag),
		Action:      func(c *cli.Context) error { return recordArrivals(c, env) },
	}
}

func recordArrivals(c *cli.Context, env Env) (err error) {
	if err := onlyFlags(c); err != nil {
		return err
	}
	pools := map[sequence.ChainID]string{}
	for _, v := range c.StringSlice(poolsFlag.Name) {
		id, url, ok := strings.Cut(strings.TrimSpace(v), "=")
		chain, err := strconv.ParseUint(id, 10, 64)
		if !ok || err != nil || chain == 0 || strings.HasPrefix(url, "http") {
			return usage("--%s: expected <chainID>=<URL> of a WebSocket, or an IPC socket's path", poolsFlag.Name) // a URL may hold credentials
		}
		pools[sequence.ChainID(chain)] = url
	}
	if len(pools) == 0 {
		return usage("--%s: missing: expected at least one chain's", poolsFlag.Name)
	}
	file, err := arrivals.Record(c.Path(arrivalsOutFlag.Name), c.Int64(fileBytesFlag.Name))
	if err != nil {
		return fmt.Errorf("--%s: %w", arrivalsOutFlag.Name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(env.Err, format+"\n", args...)
	}
	group, ctx := errgroup.WithContext(c.Context)
	for chain, url := range pools {
		group.Go(func() error {
			for ctx.Err() == nil {
				err := watchPool(ctx, env.Now, say, file, chain, url)
				if errors.Is(err, errNotWritten) {
					return err
				}
				if ctx.Err() == nil {
					say("chain %s: its pool is not seen: %s", chain, oneLine(err))
				}
				_ = sleep(ctx, again)
			}
			return nil // it was interrupted
		})
	}
	return group.Wait()
}

var errNotWritten = errors.New("arrivals cannot be written")

// watchPool notes what a pool takes in until the connection ends.
func watchPool(ctx context.Context, now func() time.Time, say func(string, ...any), file *arrivals.Recorder, chain sequence.ChainID, url string) error {
	client, err := gethrpc.DialContext(ctx, url)
	if err != nil {
		return err
	}
	defer client.Close()
	hashes := make(chan common.Hash, 1024)
	sub, err := client.EthSubscribe(ctx, hashes, "newPendingTransactions")
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	say("chain %s: its pool is watched", chain)
	for {
		select {
		case hash := <-hashes:
			if err := file.Note(arrivals.Arrival{Time: now().UTC(), Chain: chain, Hash: hash}); err != nil {
				return fmt.Errorf("%w: %w", errNotWritten, err)
			}
		case err := <-sub.Err():
			return fmt.Errorf("connection ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
