package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// startTime and stopTime bound how long the devnet may take to start and to stop.
const (
	startTime = 4 * time.Minute
	stopTime  = time.Minute
)

func up(c *cli.Context) error {
	chains, err := parseChains(c.String(chainsFlag.Name))
	if err != nil {
		return err
	}
	ports, err := parsePorts(c, chains)
	if err != nil {
		return err
	}
	if c.Duration(forFlag.Name) < 0 {
		return fmt.Errorf("--%s: %v: expected 0 or more", forFlag.Name, c.Duration(forFlag.Name))
	}
	if n := c.Int(bundlesFlag.Name); n < 0 || n > 600 || (n > 0 && len(chains) < 2) {
		return fmt.Errorf("--%s: %d: expected 0 to 600 a minute, and at least two rollups for them", bundlesFlag.Name, n)
	}
	cfg, logFile, err := baseConfig(c)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cfg.Chains, cfg.Ports, cfg.P2P, cfg.StatusPage = chains, ports, c.Bool(p2pFlag.Name), true
	out := c.App.Writer
	fmt.Fprintln(out, "starting L1, op-geth, op-node, batchers and proposer; data in "+cfg.Dir)
	return run(c.Context, cfg, func(ctx context.Context, d *devnet.Devnet) error {
		if err := printEndpoints(out, d, logFile.Name()); err != nil {
			return err
		}
		if n := c.Int(loadFlag.Name); n > 0 {
			load, err := d.StartLoad(n)
			if err != nil {
				return err
			}
			defer load.Stop()
		}
		if n := c.Int(bundlesFlag.Name); n > 0 {
			bundles, err := d.StartBundles(n)
			if err != nil {
				return err
			}
			defer bundles.Stop()
		}
		if t := c.Duration(forFlag.Name); t > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, t)
			defer cancel()
		}
		watch := d.Watch()
		defer watch.Stop()
		line := newStatusLine(out)
		defer line.end()
		for {
			select {
			case <-ctx.Done():
				return nil
			case s := <-watch.Slots():
				line.show(s, d.Chains(), waiting(ctx, d))
			}
		}
	})
}

// run starts a devnet, does f, and stops it. f's context ends at an interrupt, or when
// the devnet cannot go on.
func run(ctx context.Context, cfg devnet.Config, f func(context.Context, *devnet.Devnet) error) error {
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	d, err := devnet.Start(starting, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted while starting")
		}
		return fmt.Errorf("start: %w", err)
	}
	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case err := <-d.Failed():
			end(err)
		case <-running.Done():
		}
	}()
	err = f(running, d)
	end(nil)
	<-watched
	if cause := context.Cause(running); err == nil && ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(err, d.Stop(stopping))
}

// waiting is how many bundles wait for a slot, -1 if the sequencer does not say.
func waiting(ctx context.Context, d *devnet.Devnet) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := d.Sequencer(ctx)
	if err != nil {
		return -1
	}
	st, err := client.Status(ctx)
	if err != nil {
		return -1
	}
	return int(st.PendingBundles)
}

func printEndpoints(w io.Writer, d *devnet.Devnet, logFile string) error {
	e := d.Endpoints()
	row := func(what, value string) { fmt.Fprintf(w, "  %-28s %s\n", what, value) }
	fmt.Fprintln(w, "\nendpoints")
	row(fmt.Sprintf("L1, chain %d", e.L1ChainID), e.L1)
	for _, id := range d.Chains() {
		row(fmt.Sprintf("rollup, chain %d", id), e.Chains[id].RPC)
		row(fmt.Sprintf("op-node of chain %d", id), e.Chains[id].Node)
	}
	for i, o := range e.Operators {
		if i == 0 {
			continue // above and below
		}
		for _, id := range d.Chains() {
			row(fmt.Sprintf("operator %d, chain %d", i, id), o.Chains[id].RPC)
		}
		row(fmt.Sprintf("operator %d, sharedseq", i), o.SharedSequencer)
		row(fmt.Sprintf("operator %d, status page", i), o.StatusPage)
	}
	row("super roots", e.Node)
	row("sharedseq", e.SharedSequencer)
	row("status page", e.StatusPage)
	if e.Metrics != "" {
		row("op-node's metrics", e.Metrics)
	}
	row("L1 beacon API", e.L1Beacon)
	row("ERC-7802 token, open mint", e.TestToken.Hex())
	fmt.Fprintln(w, "\nfunded keys, on L1 and every rollup; everybody knows them")
	for i := range 3 {
		key, err := d.Keys().User(i)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %s  %x\n", crypto.PubkeyToAddress(key.PublicKey), crypto.FromECDSA(key))
	}
	fmt.Fprintln(w, "\nall endpoints as JSON: "+filepath.Join(d.Dir(), devnet.EndpointsFile))
	fmt.Fprintln(w, "log of all services:   "+logFile)
	fmt.Fprintln(w, "\nstop with ctrl-c")
	return nil
}

// statusLine shows one line per slot: rewritten on a terminal, else one after another.
type statusLine struct {
	w        io.Writer
	terminal bool
	shown    bool
}

func newStatusLine(w io.Writer) *statusLine {
	s := &statusLine{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

func (s *statusLine) show(slot devnet.SlotSeen, chains []uint64, bundles int) {
	line := "slot " + time.Unix(int64(slot.Slot), 0).UTC().Format("15:04:05")
	for _, id := range chains {
		b, ok := slot.Blocks[id]
		if !ok {
			line += fmt.Sprintf(" | %d left out", id)
			continue
		}
		when := "early"
		if b.Late > 0 {
			when = "late"
		}
		line += fmt.Sprintf(" | %d #%d %d tx %.2f Mgas %d ms %s", id, b.Number, b.Txs, float64(b.GasUsed)/1e6, b.Late.Abs().Milliseconds(), when)
	}
	if bundles >= 0 {
		line += fmt.Sprintf(" | %d bundles wait", bundles)
	}
	if s.terminal {
		fmt.Fprint(s.w, "\r\033[K"+line)
	} else {
		fmt.Fprintln(s.w, line)
	}
	s.shown = true
}

func (s *statusLine) end() {
	if s.terminal && s.shown {
		fmt.Fprintln(s.w)
	}
}
