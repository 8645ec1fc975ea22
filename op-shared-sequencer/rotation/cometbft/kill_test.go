package cometbft

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// killedEnv names the directory of the operator that this process is, for TestKill.
const killedEnv = "COMETBFT_TEST_KILLED"

// A process that is killed at any moment comes back to the same subblocks: none is lost,
// none is another, and nothing is signed twice. Each life would build other subblocks.
func TestKill(t *testing.T) {
	lives := 12
	if testing.Short() {
		lives = 3
	}
	c, o := alone(t, nil)
	dir := t.TempDir()
	require.NoError(t, c.genesis.Write(filepath.Join(dir, "genesis.json")))
	require.NoError(t, crypto.SaveECDSA(filepath.Join(dir, "key"), o.key))
	require.NoError(t, os.Rename(o.dir, filepath.Join(dir, "consensus")))

	commits := filepath.Join(dir, "commits")
	lines := func() int {
		data, _ := os.ReadFile(commits)
		n := 0
		for _, b := range data {
			if b == '\n' {
				n++
			}
		}
		return n
	}
	for life := range lives {
		cmd := exec.Command(os.Args[0], "-test.run", "XXX")
		cmd.Env = append(os.Environ(), killedEnv+"="+dir)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		from := lines()
		c.wait("it to agree on something", func() bool {
			select {
			case err := <-ended:
				t.Fatalf("life %d ended: %v", life, err)
			default:
			}
			return lines() > from+5
		})
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // any moment
		require.NoError(t, cmd.Process.Kill())
		<-ended
	}

	agreed := oneHash(t, commits)
	top := slices.Max(slices.Collect(maps.Keys(agreed)))
	require.Len(t, agreed, top, "no height is left out")
	require.Greater(t, top, 4*lives)
	signed := oneHash(t, filepath.Join(dir, "proposals"))
	for height, hash := range signed {
		if h, ok := agreed[height]; ok { // the last may have been killed before
			require.Equal(t, hash, h)
		}
	}
	t.Logf("%d heights in %d lives", top, lives)
}

// oneHash reads lines of height and hash, and wants one hash for each height.
func oneHash(t *testing.T, path string) map[int]string {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	byHeight := map[int]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		var height int
		var hash string
		if n, _ := fmt.Sscanf(s.Text(), "%d %s", &height, &hash); n < 2 || len(hash) < 64 {
			continue // cut off by the kill
		}
		if before, ok := byHeight[height]; ok {
			require.Equal(t, before, hash, "%s: height %d has two subblocks", filepath.Base(path), height)
		}
		byHeight[height] = hash
	}
	return byHeight
}

// runKilled is the process that is killed.
func runKilled(dir string) error {
	genesis, err := operators.LoadGenesis(filepath.Join(dir, "genesis.json"))
	if err != nil {
		return err
	}
	key, err := crypto.LoadECDSA(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	ledger, file, err := openFileLedger(filepath.Join(dir, "ledger"))
	if err != nil {
		return err
	}
	commits, err := os.OpenFile(filepath.Join(dir, "commits"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	proposals, err := os.OpenFile(filepath.Join(dir, "proposals"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	m := newFakeMachine("killed", crypto.PubkeyToAddress(key.PublicKey), 3, &pacer{interval: time.Millisecond}, ledger)
	m.content = []byte(fmt.Sprint(rand.Uint64()))
	m.afterward = func(s *sequence.Subblock, height int) error {
		// Before the ledger: what is in the ledger is not committed again.
		if _, err := fmt.Fprintf(commits, "%d %s\n", height, s.Hash()); err != nil {
			return err
		}
		if s.Last() {
			n := len(ledger.slots) - 1
			var slot []string
			for _, s := range ledger.slots[n] {
				slot = append(slot, hex.EncodeToString(s.Encode()))
			}
			if err := json.NewEncoder(file).Encode(fileSlot{slot, hex.EncodeToString(ledger.agreed[n])}); err != nil {
				return err
			}
			return file.Sync()
		}
		return nil
	}
	fatal := make(chan error, 1)
	r, err := New(Config{
		Dir: filepath.Join(dir, "consensus"), Genesis: genesis, OperatorKey: key, Listen: "127.0.0.1:0",
		Fatal: func(err error) { fatal <- err }, Log: log.NewLogger(log.DiscardHandler()),
		intercept: func(height uint64, txs [][]byte) [][]byte {
			if len(txs) > 0 {
				if s, err := operators.DecodeSignedSubblock(txs[0], subblockLimits); err == nil {
					fmt.Fprintf(proposals, "%d %s\n", height, s.Subblock.Hash())
				}
			}
			return txs
		},
	}, m)
	if err != nil {
		return err
	}
	if err := r.Start(context.Background()); err != nil {
		return err
	}
	return <-fatal
}

type fileSlot struct {
	Subblocks []string
	Agreement string
}

// openFileLedger reads a ledger, and cuts off what a kill left half written.
func openFileLedger(path string) (*memLedger, *os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	ledger := &memLedger{}
	d := json.NewDecoder(file)
	end := int64(0)
	for {
		var s fileSlot
		if d.Decode(&s) != nil {
			break
		}
		end = d.InputOffset() + 1
		var slot []*sequence.Subblock
		for _, enc := range s.Subblocks {
			data, err := hex.DecodeString(enc)
			if err != nil {
				return nil, nil, err
			}
			sub, err := sequence.DecodeSubblock(data)
			if err != nil {
				return nil, nil, err
			}
			slot = append(slot, sub)
		}
		agreement, err := hex.DecodeString(s.Agreement)
		if err != nil {
			return nil, nil, err
		}
		ledger.slots, ledger.agreed = append(ledger.slots, slot), append(ledger.agreed, agreement)
	}
	if err := file.Truncate(end); err != nil {
		return nil, nil, err
	}
	_, err = file.Seek(end, 0)
	return ledger, file, err
}
