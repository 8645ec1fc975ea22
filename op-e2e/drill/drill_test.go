package drill

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// operatorArg makes the test binary an operator: `<test binary> operator-process --datadir … --index …`.
const operatorArg = "operator-process"

func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == operatorArg {
		os.Exit(operatorProcess(os.Args[3], os.Args[5]))
	}
	log.SetDefault(log.NewLogger(log.DiscardHandler()))
	os.Exit(m.Run())
}

// patience bounds the drill, so that operators that stand still fail it.
const patience = 10 * time.Minute

// Three leaders are killed while users send transfers and bundles. Nothing is lost,
// changed or done twice, and everybody votes again.
func TestDrillQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("runs four operators in processes of their own")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	self, err := os.Executable()
	require.NoError(t, err)
	dir, err := filepath.Abs(filepath.Join("..", "..", "build", "system"))
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	file, err := os.Create(filepath.Join(dir, t.Name()+".log"))
	require.NoError(t, err)
	defer file.Close()

	const kills = 3
	out := new(bytes.Buffer)
	cfg := DefaultConfig(out, log.NewLogger(log.NewTerminalHandlerWithLevel(file, log.LevelInfo, false)))
	cfg.Devnet.Dir, cfg.Devnet.Command = t.TempDir(), []string{self, operatorArg}
	cfg.Kills, cfg.Calm, cfg.Stop, cfg.Cut, cfg.Freeze = kills, 5, 0, 0, 0
	rep, err := Run(ctx, cfg)
	t.Logf("log of the drill: %s\n%s", file.Name(), out)
	require.NoError(t, err)
	require.Empty(t, rep.Failed())
	require.Len(t, rep.Kills, kills)
	require.Len(t, rep.CommitGap.All, kills)
	for _, k := range rep.Kills {
		require.Positive(t, k.VotesMs)
		require.GreaterOrEqual(t, k.OutageMs, k.GapMs)
	}
	require.Positive(t, rep.Bundles.Executed)
	require.Positive(t, rep.Bundles.Failed)
	require.Positive(t, rep.Transfers)
	require.NoError(t, rep.Print(out))
	t.Log(out)
}

func operatorProcess(dir, index string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	i, err := strconv.Atoi(index)
	if err == nil {
		err = runOperator(ctx, dir, i)
	}
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

func runOperator(ctx context.Context, dir string, index int) error {
	file, _, err := devnet.OperatorLog(dir, index)
	if err != nil {
		return err
	}
	defer file.Close()
	l := log.NewLogger(log.NewTerminalHandlerWithLevel(file, log.LevelInfo, false))
	log.SetDefault(l)
	return devnet.RunOperator(ctx, dir, index, l)
}
