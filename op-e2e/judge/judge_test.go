package judge

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
)

func TestMain(m *testing.M) {
	// L1's fake proof of stake and some of geth log to the default logger.
	log.SetDefault(log.NewLogger(log.DiscardHandler()))
	// What geth and CometBFT leave running when they are closed.
	const (
		geth  = "github.com/ethereum/go-ethereum/"
		comet = "github.com/cometbft/cometbft/"
	)
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(geth+"eth/catalyst.(*ConsensusAPI).heartbeat"),
		goleak.IgnoreAnyFunction(geth+"core.(*txSenderCacher).cache"),
		goleak.IgnoreAnyFunction(geth+"miner.(*Miner).buildPayload.func1"),
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
		goleak.IgnoreTopFunction(comet+"libs/autofile.OpenAutoFile.func1"),
		goleak.IgnoreTopFunction(comet+"libs/autofile.(*AutoFile).closeFileRoutine"),
		goleak.IgnoreAnyFunction(comet+"blocksync.(*BlockPool).makeRequestersRoutine"),
		goleak.IgnoreAnyFunction(comet+"consensus.(*Reactor).queryMaj23Routine"),
	)
}

// patience bounds the judge, so that operators that stand still fail it.
const patience = 10 * time.Minute

// Messages are executed and refused as they must be, op-supernode invalidates nothing, and what
// is forced into blocks both we and op-supernode catch.
func TestJudgeQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three rollups with two operators")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := filepath.Abs(filepath.Join("..", "..", "build", "system"))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	file, err := os.Create(filepath.Join(dir, t.Name()+".log"))
	require.NoError(t, err)
	defer file.Close()

	const forced = 2
	out := new(bytes.Buffer)
	cfg := DefaultConfig(out, log.NewLogger(log.NewTerminalHandlerWithLevel(file, log.LevelDebug, false)))
	cfg.Devnet.Dir, cfg.Devnet.MessageExpiry = t.TempDir(), 12
	cfg.Duration, cfg.Forced = 50*time.Second, forced
	rep, err := Run(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, rep.Print(out))
	t.Logf("log of all services: %s\n%s", file.Name(), out)
	require.Empty(t, rep.Failed())
	require.Positive(t, rep.ExecutedSameSlot)
	require.Positive(t, rep.ExecutedLater)
	require.Positive(t, rep.Refused[executor.RuleExists.String()])
	require.Equal(t, rep.Sent, rep.ExecutedSameSlot+rep.ExecutedLater+rep.refusals()+rep.Late, "every message is accounted for")
	require.Equal(t, forced, rep.Forced)
	require.Len(t, rep.Rounds, forced)
	require.Positive(t, rep.Blocks)
}

// What is wrong is counted as what it is.
func TestCounts(t *testing.T) {
	t.Parallel()
	tx := func(n byte) placed { return placed{901, common.Hash{n}} }
	exists := &forgery{name: "payload hash", rule: executor.RuleExists}
	at := func(initiated, executed uint64) []executedMessage {
		return []executedMessage{{initiated, executed}}
	}
	for name, c := range map[string]struct {
		attempt attempt
		in      map[placed][]executedMessage
		want    Counts
	}{
		"same slot":             {attempt{verdict: executed}, map[placed][]executedMessage{tx(1): at(5, 5)}, Counts{ExecutedSameSlot: 1}},
		"later":                 {attempt{verdict: executed}, map[placed][]executedMessage{tx(1): at(5, 6)}, Counts{ExecutedLater: 1}},
		"executed, not there":   {attempt{verdict: executed}, nil, Counts{Unknown: 1}},
		"there, not executed":   {attempt{verdict: late}, map[placed][]executedMessage{tx(1): at(5, 6)}, Counts{Unknown: 1}},
		"late":                  {attempt{verdict: late}, nil, Counts{Late: 1}},
		"valid, refused":        {attempt{verdict: refused}, nil, Counts{WronglyRefused: 1}},
		"valid, expired":        {attempt{verdict: refused, rule: executor.RuleExpiry.String()}, nil, Counts{Late: 1}},
		"unknown":               {attempt{verdict: unknown}, nil, Counts{Unknown: 1}},
		"invalid, refused":      {attempt{forged: exists, verdict: refused, rule: exists.refusedBy()}, nil, Counts{Refused: map[string]int{exists.refusedBy(): 1}}},
		"by another rule":       {attempt{forged: exists, verdict: refused, rule: executor.RuleExpiry.String()}, nil, Counts{Unknown: 1}},
		"invalid, executed":     {attempt{forged: exists, verdict: executed}, nil, Counts{WronglyExecuted: 1}},
		"invalid, in the chain": {attempt{forged: exists, verdict: refused, rule: exists.refusedBy()}, map[placed][]executedMessage{tx(1): at(5, 6)}, Counts{WronglyExecuted: 1}},
		"of nobody":             {attempt{verdict: late}, map[placed][]executedMessage{tx(9): at(5, 6)}, Counts{Late: 1, WronglyExecuted: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			a, got := c.attempt, Counts{}
			a.messages, a.txs = 1, []placed{tx(1)}
			got.countTraffic([]*attempt{&a}, c.in)
			bad := got.WronglyExecuted + got.WronglyRefused + got.Unknown
			require.Len(t, got.Findings, bad)
			require.Equal(t, bad > 0, (&Report{Counts: got}).Failed() != "")
			got.Findings = nil
			c.want.Sent = 1
			if c.want.Refused == nil {
				c.want.Refused = map[string]int{}
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestForcedCounts(t *testing.T) {
	t.Parallel()
	block := func(n uint64) deniedBlock { return deniedBlock{901, n, common.Hash{byte(n)}} }
	f := func(n uint64) *forced {
		return &forced{forgery: &forgery{}, block: block(n), caught: true, replaced: time.Second}
	}
	var c Counts
	c.countForced([]*forced{f(1), f(2)}, [][]deniedBlock{{block(1), block(2)}, {block(2), block(1)}})
	require.Equal(t, Counts{Forced: 2, CaughtByUs: 2, CaughtBySupernode: 2}, c)

	c = Counts{}
	missed, stands := f(3), f(4)
	missed.caught, stands.replaced = false, 0
	c.countForced([]*forced{f(2), missed, stands}, [][]deniedBlock{{block(2), block(3), block(4), block(7)}, {block(3), block(4), block(7)}})
	require.Len(t, c.Findings, 3)
	require.Contains(t, (&Report{Counts: c}).Failed(), "of 3 forced blocks, we caught 2 and op-supernode 1")
	c.Findings = nil
	require.Equal(t, Counts{Forced: 3, CaughtByUs: 2, CaughtBySupernode: 1, Invalidated: 1}, c)
}

func TestRefuser(t *testing.T) {
	t.Parallel()
	for r := executor.RuleDependencySet; r <= executor.RuleHistory; r++ {
		err := &executor.MessageError{Rule: r, Reason: "it is so"}
		require.Equal(t, r.String(), refuser(fmt.Sprintf("bundle failed: %v", err)))
	}
	require.Equal(t, byContract, refuser("reverted: NotInAccessList()"))
	require.Empty(t, refuser("the slot ended before the bundle did"))
}
