package bench

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// How long the parts may take. All are many times what they take when nothing is wrong.
const (
	startTime = 2 * time.Minute
	roundTime = 10 * time.Minute
	stopTime  = time.Minute
)

// accounts is how many senders there are: op-geth's pool keeps their transactions in order, and
// a block of many senders is what chains have.
const accounts = 100

// againstStock measures saturation, overhead and messages: on stock and on ours in turn, each
// time on fresh chains. A quick run leaves out ours with engines split off,
// storage and tokens.
func (c *Config) againstStock(ctx context.Context, r *Report) error {
	r.Overhead = c.newOverhead()
	if r.CrossChain == nil {
		r.CrossChain = new(CrossChain)
	}
	r.CrossChain.Messages = &Messages{Seconds: c.pick(6, 12)}
	return c.besideStock(ctx, func(ctx context.Context, s *system, senders []*sender) error {
		return c.stockRound(ctx, s, senders, r)
	})
}

// overheadAlone measures nothing but what is paid when nothing crosses chains.
func (c *Config) overheadAlone(ctx context.Context, r *Report) error {
	r.Overhead = c.newOverhead()
	return c.besideStock(ctx, func(ctx context.Context, s *system, senders []*sender) error {
		return c.overhead(ctx, s, senders[0], r.Overhead)
	})
}

// newOverhead has windows of a minute: in some of 20 s, rounds of ours swing by a third.
func (c *Config) newOverhead() *Overhead {
	return &Overhead{Chains: stockChains, Rate: overheadRate, Seconds: c.pick(8, 60)}
}

// stockChains is how many rollups are sequenced, by stock each alone.
const stockChains = 2

// besideStock runs a round on each system, in turn and several times.
func (c *Config) besideStock(ctx context.Context, run func(ctx context.Context, s *system, senders []*sender) error) error {
	systems := []starter{c.startStock, c.startOurs, c.startSplit}
	if c.Quick {
		systems = systems[:2]
	}
	for round := range cmp.Or(c.Rounds, c.pick(1, 3)) {
		// Each is the first one once, and each comes after each other one.
		for i := range systems {
			start := systems[(round+i)%len(systems)]
			if err := fresh(ctx, start, chainIDs(stockChains), accounts, run); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
		}
	}
	return nil
}

// stockRound is one round on one system.
func (c *Config) stockRound(ctx context.Context, s *system, senders []*sender, r *Report) error {
	contracts := map[uint64]common.Address{}
	if !c.Quick {
		if err := mint(ctx, s, senders, s.token); err != nil {
			return err
		}
		for _, chain := range s.chains {
			var err error
			if contracts[chain], err = deployWriter(ctx, s, senders[0], chain); err != nil {
				return err
			}
		}
	}
	if err := c.overhead(ctx, s, senders[0], r.Overhead); err != nil {
		return fmt.Errorf("overhead: %w", err)
	}
	if err := c.messages(ctx, s, senders, r.CrossChain.Messages); err != nil {
		return fmt.Errorf("messages: %w", err)
	}
	workloads := []workload{transfers()}
	if !c.Quick {
		workloads = append(workloads, storage(contracts[s.chains[0]]), tokens(s.token))
	}
	for i, w := range workloads {
		if len(r.Saturation) == i {
			r.Saturation = append(r.Saturation, Saturation{Workload: w.name, Chains: len(s.chains), Seconds: c.pick(6, 30)})
		}
		if err := c.saturate(ctx, s, senders, w, &r.Saturation[i]); err != nil {
			return fmt.Errorf("saturation, %s: %w", w.name, err)
		}
	}
	return nil
}
