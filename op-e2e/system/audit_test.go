package system

import (
	"context"
	"math/big"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/arrivals"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/audit"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/commands"
)

// audited: what the operators' ledgers say of everything before is proven from the set's
// genesis on, and in the stated order, while they go on.
func audited(s *scenario) {
	before := s.slotNow()
	client, err := s.Eth(chainA)
	require.NoError(s.t, err)
	arrived := filepath.Join(s.t.TempDir(), "arrivals.jsonl")
	file, err := arrivals.Record(arrived, 1<<20)
	require.NoError(s.t, err)
	var last common.Hash
	for i, tip := range []int64{3e6, 9e6, 1e6, 7e6, 5e6} {
		from := s.user(uint64(i))
		nonce, err := s.Nonce(s.ctx, chainA, from.Address)
		require.NoError(s.t, err)
		tx, err := from.Sign(devnet.Tx{Chain: chainA, Nonce: nonce, To: from.Address, Tip: big.NewInt(tip)})
		require.NoError(s.t, err)
		require.NoError(s.t, client.SendTransaction(s.ctx, tx))
		require.NoError(s.t, file.Note(arrivals.Arrival{Time: time.Now().UTC(), Chain: chainA, Hash: tx.Hash()}))
		last = tx.Hash()
	}
	require.NoError(s.t, file.Close())
	s.until("the last one to be included", func(context.Context) (bool, error) { return s.included(chainA, last), nil })
	b, _ := s.bridge(s.user(5), chainA, chainB)
	s.executes(b)
	for i, o := range s.Operators() {
		var r audit.Report
		s.until("its ledger to have come so far", func(context.Context) (bool, error) {
			r = audit.Report{}
			code := s.cliJSON(&r, "", "audit", "--data-dir", o.SequencerDir(), "--operators", o.OperatorsFile(), "--arrivals", arrived)
			require.Equal(s.t, commands.ExitOK, code, "operator %d: %+v", i, r.Violations)
			return uint64(r.To) > before, nil
		})
		require.Empty(s.t, r.Unproven, "operator %d", i)
		require.Equal(s.t, "priority", r.Order)
		require.NotZero(s.t, r.Transactions)
		led, fills := 0, uint64(0)
		for _, l := range r.Leaders {
			if l.Subblocks > 0 {
				led++
			}
			fills += l.Fills
			require.Zero(s.t, l.OutOfOrder, "operator %d: leader %s", i, l.Name)
			require.NotEmpty(s.t, l.Name)
		}
		require.Equal(s.t, len(s.Operators()), led)
		require.NotZero(s.t, fills)
	}
}
