package bench

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/metrics"
)

const (
	// busyChains have traffic, the others have none.
	busyChains = 2
	busyRate   = 10 // transfers a second on each
)

// scale measures sets of more and more chains, of which two have traffic.
func (c *Config) scale(ctx context.Context, r *Report) error {
	sizes := []int{2, 4, 8, 16, 29}
	if c.Quick {
		sizes = []int{2, 4}
	}
	for _, n := range sizes {
		if err := fresh(ctx, c.startOurs, chainIDs(n), 1, func(ctx context.Context, s *system, senders []*sender) error {
			return c.scaleRun(ctx, s, senders, r)
		}); err != nil {
			return fmt.Errorf("%d chains: %w", n, err)
		}
	}
	return nil
}

func (c *Config) scaleRun(ctx context.Context, s *system, senders []*sender, r *Report) error {
	n := len(s.chains)
	if err := s.awaitOnTime(ctx); err != nil {
		return err
	}
	heads, err := watchHeads(ctx, s)
	if err != nil {
		return err
	}
	defer heads.stop()
	before, err := stages(ctx, s.metrics)
	if err != nil {
		return err
	}
	seconds := c.pick(10, 30)
	w, err := s.during(ctx, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, chain := range s.chains[:busyChains] {
			txs, err := sign(senders, transfers(), chain, busyRate*seconds)
			if err != nil {
				return err
			}
			group.Go(func() error {
				start := time.Now()
				for i := range txs {
					if err := sleep(ctx, time.Until(start.Add(time.Duration(i)*time.Second/busyRate))); err != nil {
						return err
					}
					if err := send(ctx, s.clients[chain], txs[i:i+1]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
	if err != nil {
		return err
	}
	after, err := stages(ctx, s.metrics)
	if err != nil {
		return err
	}
	out := Scale{Chains: n, Busy: busyChains, Rate: busyRate, Seconds: seconds, Missed: int(math.Ceil(w.missed * float64(n))), Memory: sig(w.used.Memory), Stages: map[string]float64{}}
	blocks := 0
	for _, list := range w.blocks {
		blocks += len(list)
	}
	out.Slots = blocks / n
	out.CPU = sig(float64(w.used.CPU.Microseconds()) / 1000 / float64(max(1, out.Slots)))
	out.CPUPerChain = sig(out.CPU / float64(n))
	heads.mu.Lock()
	out.Late = sig(percentile(heads.behind(), 99))
	heads.mu.Unlock()
	slots := after.slots - before.slots
	for name, sum := range after.seconds {
		if d := sum - before.seconds[name]; slots > 0 {
			out.Stages[name] = sig(d * 1000 / slots)
		}
	}
	r.Scale = append(r.Scale, out)
	fmt.Fprintf(c.Out, "  ours  %2d chains  %.1f ms CPU a slot, %.2f a chain  %d of %d slots missed  p99 %.0f ms behind  %.0f MB  %v\n",
		n, out.CPU, out.CPUPerChain, out.Missed, seconds, out.Late, out.Memory, out.Stages)
	return nil
}

// stageSums are the sums of the histogram of stages, in seconds, and how many slots they are of.
type stageSums struct {
	seconds map[string]float64
	slots   float64
}

// stages reads what the stages of all slots took so far from op-node's metrics.
func stages(ctx context.Context, url string) (*stageSums, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	const name = metrics.Namespace + "_slot_stage_seconds"
	f := families[name]
	if f == nil {
		return nil, fmt.Errorf("metrics: %s has no %s", url, name)
	}
	out := &stageSums{seconds: map[string]float64{}}
	for _, m := range f.Metric {
		stage := label(m, "stage")
		out.seconds[stage] = m.Histogram.GetSampleSum()
		out.slots = max(out.slots, float64(m.Histogram.GetSampleCount()))
	}
	return out, nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
