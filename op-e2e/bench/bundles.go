package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

const (
	// bundleSenders have one bundle under way each: so many are the most that wait.
	bundleSenders = 1500
	// bundleTime is how long a bundle may take: many times what one takes.
	bundleTime = 30 * time.Second
	// sendersAtOnce is how many requests are open.
	sendersAtOnce = 16
	// conflictGroup is how many bundles exclude each other.
	conflictGroup  = 4
	conflictGroups = 25
)

// bundles measures how many bundles are executed, over two, three and five chains.
func (c *Config) bundles(ctx context.Context, r *Report) error {
	if r.CrossChain == nil {
		r.CrossChain = new(CrossChain)
	}
	sizes := []int{2, 3, 5}
	if c.Quick {
		sizes = []int{2}
	}
	for i, n := range sizes {
		if err := fresh(ctx, c.startOurs, chainIDs(n), bundleSenders, func(ctx context.Context, s *system, senders []*sender) error {
			return c.bundleRun(ctx, s, senders, r.CrossChain, i == 0)
		}); err != nil {
			return fmt.Errorf("%d chains: %w", n, err)
		}
	}
	return nil
}

func (c *Config) bundleRun(ctx context.Context, s *system, senders []*sender, out *CrossChain, conflict bool) error {
	b := Bundles{Chains: len(s.chains), Seconds: c.pick(6, 15)}
	for range c.pick(1, 3) {
		if err := c.bundleRound(ctx, s, senders, &b); err != nil {
			return err
		}
	}
	out.Bundles = append(out.Bundles, b)
	if !conflict {
		return nil
	}
	out.Conflict = &Conflict{Group: conflictGroup}
	for range c.pick(1, 3) {
		if err := c.conflictRound(ctx, s, senders, out.Conflict); err != nil {
			return fmt.Errorf("conflicts: %w", err)
		}
	}
	return nil
}

// sentBundle is one that was sent, with its transactions' hashes in the order of the chains.
type sentBundle struct {
	hash common.Hash
	txs  []common.Hash
}

// signBundle makes a transfer on every chain, by the sender of each. It takes no nonce.
func signBundle(s *system, by []*sender, i int) (rpc.BundleArgs, []common.Hash, error) {
	var args rpc.BundleArgs
	var hashes []common.Hash
	for j, chain := range s.chains {
		tx, err := by[j].Sign(devnet.Transfer(chain, by[j].nonces[chain], recipient(i), common.Big1))
		if err != nil {
			return args, nil, err
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			return args, nil, err
		}
		args.Items, hashes = append(args.Items, rpc.Transaction(sequence.ChainID(chain), raw)), append(hashes, tx.Hash())
	}
	return args, hashes, nil
}

// repeat gives every chain the same sender.
func repeat(by *sender, n int) []*sender {
	out := make([]*sender, n)
	for i := range out {
		out[i] = by
	}
	return out
}

// bundleRound has every sender send a bundle whenever its last one is in a block.
func (c *Config) bundleRound(ctx context.Context, s *system, senders []*sender, out *Bundles) error {
	heads, err := watchHeads(ctx, s)
	if err != nil {
		return err
	}
	defer heads.stop()
	sending, stop := context.WithCancel(ctx)
	defer stop()
	group, sending := errgroup.WithContext(sending)
	limit := make(chan struct{}, sendersAtOnce)
	var number, failed atomic.Int64
	for _, by := range senders {
		group.Go(func() error {
			for sending.Err() == nil {
				args, hashes, err := signBundle(s, repeat(by, len(s.chains)), int(number.Add(1)))
				if err != nil {
					return err
				}
				limit <- struct{}{}
				res, err := s.shared.SendBundle(ctx, args)
				<-limit
				if err != nil {
					return err
				}
				waiting, cancel := context.WithTimeout(ctx, bundleTime)
				err = heads.wait(waiting, hashes)
				cancel()
				if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
					st, err := s.shared.BundleStatus(ctx, res.BundleHash)
					if err != nil {
						return err
					}
					fmt.Fprintf(c.Out, "  bundle %s is %s after %v\n", res.BundleHash, st.State, bundleTime)
					failed.Add(1)
					return nil // its nonces are not known any more
				}
				if err != nil {
					return err
				}
				for _, chain := range s.chains {
					by.nonces[chain]++
				}
			}
			return nil
		})
	}
	w, err := s.during(ctx, func(ctx context.Context) error { return sleep(sending, time.Duration(out.Seconds)*time.Second) })
	stop()
	if ended := group.Wait(); ended != nil {
		return ended
	}
	if err != nil {
		return err
	}
	executed := w.txs / float64(len(s.chains))
	out.PerSecond = append(out.PerSecond, sig(executed/w.took.Seconds()))
	out.Failed = append(out.Failed, float64(failed.Load()))
	out.Missed = append(out.Missed, sig(w.missed))
	cpu := float64(w.used.CPU.Microseconds()) / 1000 / max(1, executed)
	out.CPU = append(out.CPU, sig(cpu))
	fmt.Fprintf(c.Out, "  ours  bundles   %d chains  %.0f a second  %.2f ms CPU each  %.1f slots missed\n", len(s.chains), executed/w.took.Seconds(), cpu, w.missed)
	return s.awaitOnTime(ctx)
}

// conflictRound sends groups of bundles that want the same nonce on the first chain.
func (c *Config) conflictRound(ctx context.Context, s *system, senders []*sender, out *Conflict) error {
	var all []sentBundle
	next := conflictGroups // of the senders that are in one bundle alone
	for g := range conflictGroups {
		for range conflictGroup {
			by := repeat(senders[next], len(s.chains))
			by[0] = senders[g]
			next++
			args, hashes, err := signBundle(s, by, next)
			if err != nil {
				return err
			}
			res, err := s.shared.SendBundle(ctx, args)
			if err != nil {
				return err
			}
			all = append(all, sentBundle{res.BundleHash, hashes})
		}
	}
	states := map[common.Hash]bundlepool.State{}
	for _, b := range all {
		st, err := s.shared.WaitBundle(ctx, b.hash)
		if err != nil {
			return err
		}
		states[b.hash] = st.State
	}
	if err := s.awaitBlocks(ctx, 2); err != nil { // so that heads have all that was executed
		return err
	}
	executed, half := 0, 0
	for _, b := range all {
		in := 0
		for i, chain := range s.chains {
			if _, err := s.eth[chain].TransactionReceipt(ctx, b.txs[i]); err == nil {
				in++
			}
		}
		switch {
		case in == len(s.chains):
			executed++
		case in > 0:
			half++
			fmt.Fprintf(c.Out, "  bundle %s (%s) is half in the chains\n", b.hash, states[b.hash])
		}
	}
	if err := s.renumber(ctx, senders[:next]); err != nil {
		return err
	}
	out.Sent = append(out.Sent, float64(len(all)))
	out.Executed = append(out.Executed, float64(executed))
	out.AbortRate = append(out.AbortRate, sig(1-float64(executed)/float64(len(all))))
	out.Half = append(out.Half, float64(half))
	fmt.Fprintf(c.Out, "  ours  conflicts %d sent, %d executed, %d half\n", len(all), executed, half)
	return nil
}
