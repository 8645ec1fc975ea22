package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/clock"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/metrics"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/tracing"
)

// Methods whose calls are counted by name.
var (
	publicMethods = slices.Concat(
		metrics.Methods(rpc.Namespace, "sendBundle", "cancelBundle", "bundleStatus", "getBundle", "simulateBundle", "status", "leaderSchedule", "operators", "evidence", "submitChange", "subscribe", "unsubscribe"),
		metrics.Methods("supervisor", "checkAccessList"), metrics.Methods("interop", "checkAccessList"),
		metrics.Methods("admin", "getFailsafeEnabled"))
	adminMethods = metrics.Methods("admin", "getFailsafeEnabled", "setFailsafeEnabled")
)

// watch has the metrics tell how things stand.
func (sh *shared) watch(c *config.SharedSequencer, opts *Options, slot time.Duration) {
	sh.metrics.SetFixed(metrics.Fixed{
		Version: opts.Version, Commit: opts.Commit, Rotation: string(c.Rotation), Start: clock.SystemClock.Now(), LastFailure: sh.lastFailure(c),
		Slot: slot, SealLead: c.SealLead, Subblocks: c.Subblocks, Peers: len(c.Agreement.Peers),
	})
	s := &metrics.Sources{
		Chains: sh.core.States, Bundles: sh.pool.Stats, Ledger: sh.ledger.Stats, History: sh.history, Failsafe: sh.executor.Failsafe, FillLead: sh.core.FillLead,
		Disk: func() (free, size uint64, ok bool) { return diskSpace(c.DataDir) },
	}
	if sh.comet != nil {
		s.Agreement, s.Evidence = sh.comet.Status, sh.comet.Evidence
	}
	sh.metrics.Watch(s)
}

// openTracer makes the tracer, nil if tracing is off.
func (sh *shared) openTracer(ctx context.Context, c *config.SharedSequencer) (*tracing.Tracer, error) {
	who := tracing.Operator{Version: sh.version, Chains: c.Chains}
	if key := c.Agreement.OperatorKey; key != nil {
		who.Address = crypto.PubkeyToAddress(key.PublicKey)
	}
	// What it is made with outlives the start.
	return tracing.New(context.WithoutCancel(ctx), c.Tracing, who, clock.SystemClock.Now, sh.log)
}

// failureFile holds why the process last ended by itself, and is as old.
const failureFile = "last-failure"

// noteFailure keeps the reason for an end for the next start: whoever restarts the process
// does not see what its log said.
func (sh *shared) noteFailure(c *config.SharedSequencer, stop func(error)) func(error) {
	return func(err error) {
		if werr := os.WriteFile(filepath.Join(c.DataDir, failureFile), fmt.Appendln(nil, err), 0o600); werr != nil {
			sh.log.Warn("Reason for the end of the process is not kept", "err", werr)
		}
		stop(err)
	}
}

// lastFailure is when the process last ended by itself, zero if it never did.
func (sh *shared) lastFailure(c *config.SharedSequencer) time.Time {
	path := filepath.Join(c.DataDir, failureFile)
	info, err := os.Stat(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			sh.log.Warn("Whether the process ended by itself before is not known", "err", err)
		}
		return time.Time{}
	}
	why, _ := os.ReadFile(path)
	sh.log.Info("The process has ended by itself before", "at", info.ModTime().UTC().Format(time.RFC3339), "why", string(why))
	return info.ModTime()
}

// countedJudge counts what op-geth's pool is answered.
type countedJudge struct {
	messageJudge
	count func(err error)
}

func (j countedJudge) CheckAccessList(entries []common.Hash, level safety.Level, in messages.ExecutingDescriptor) error {
	err := j.messageJudge.CheckAccessList(entries, level, in)
	j.count(err)
	return err
}
