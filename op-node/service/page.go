package service

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/statuspage"
)

// pageTurns is how many of the next turns the status page shows.
const pageTurns = 8

// makePage makes the status page. The sequencer tells it from then on.
func (sh *shared) makePage(c *config.SharedSequencer, slotSeconds uint64) {
	cfg := statuspage.DefaultConfig()
	cfg.SlotSeconds, cfg.Subblocks, cfg.Log = slotSeconds, c.Subblocks, sh.log
	sh.page = statuspage.New(cfg, pageSource{sh})
}

// servePage opens the status page, if there is to be one.
func (sh *shared) servePage() error {
	if sh.page == nil {
		return nil
	}
	url, err := sh.page.Listen(net.JoinHostPort(sh.status.ListenAddr, strconv.Itoa(sh.status.ListenPort)))
	if err != nil {
		return err
	}
	sh.page.Start()
	sh.pageURL = url
	sh.log.Info("Started status page", "url", url)
	return nil
}

// pageStopTime is how long the stop waits for the page: the sequencer is stopped after it.
const pageStopTime = time.Second

func (sh *shared) stopPage(ctx context.Context) error {
	if sh.page == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pageStopTime)
	defer cancel()
	return sh.page.Stop(ctx)
}

// pageSource answers what the status page asks.
type pageSource struct{ sh *shared }

func (s pageSource) Bundle(hash common.Hash) (bundlepool.Status, error) {
	return s.sh.pool.Status(hash)
}

func (s pageSource) Status() statuspage.Status {
	out := statuspage.Status{Chains: s.sh.core.Status(), Pending: s.sh.pool.Stats().Pending}
	r := s.sh.comet
	if r == nil {
		return out
	}
	st := r.Status()
	a := &statuspage.Agreement{Self: s.sh.self, Height: st.Height, Syncing: st.Syncing, Next: r.Schedule(pageTurns)}
	for _, o := range st.Operators {
		a.Operators = append(a.Operators, statuspage.Operator{
			Name: o.Name, Address: o.Address, Power: o.Power, Missed: o.Missed, Shortened: o.Shortened, Online: o.Connected,
		})
	}
	out.Agreement = a
	return out
}
