package drill

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/conductor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
)

const (
	chainA = 901
	chainB = 902
	length = 6 // blocks of each chain, one per slot
	begin  = 1000
)

func hash(kind byte, chain, n uint64) common.Hash {
	return common.Hash{kind, byte(chain), byte(n)}
}

// sound is evidence of four operators with which nothing is wrong: one good bundle in
// slot 3, a bad one, and a ledger that begins later than the others.
func sound() *evidence {
	e := &evidence{announced: map[uint64][][]conductor.Head{}, chains: map[uint64][][]block{}, statuses: map[placed]uint64{}, remains: map[placed]bool{}}
	good := &sent{hash: hash('g', 0, 0), good: true, states: map[bundlepool.State]string{bundlepool.Pending: "", bundlepool.Executed: ""}}
	bad := &sent{hash: hash('f', 0, 0), states: map[bundlepool.State]string{bundlepool.Failed: "reverted"}}
	for _, chain := range []uint64{chainA, chainB} {
		good.txs = append(good.txs, placed{chain, hash('t', chain, 3)})
		bad.txs = append(bad.txs, placed{chain, hash('n', chain, 3)})
		e.statuses[good.txs[len(good.txs)-1]] = 1
		for range maxOperators {
			var blocks []block
			var heads []conductor.Head
			for n := uint64(1); n <= length; n++ {
				blocks = append(blocks, block{
					Number: hexutil.Uint64(n), Hash: hash('b', chain, n), Parent: hash('b', chain, n-1), Time: hexutil.Uint64(begin + n), Txs: []common.Hash{hash('t', chain, n)},
				})
				heads = append(heads, conductor.Head{Number: n, Hash: hash('b', chain, n), Time: begin + n})
			}
			e.chains[chain], e.announced[chain] = append(e.chains[chain], blocks), append(e.announced[chain], heads)
		}
	}
	e.bundles = []*sent{good, bad}
	for i := range maxOperators {
		var l []slot
		for n := uint64(1); n <= length; n++ {
			s := slot{Slot: begin + n, Parent: hash('s', 0, n-1), Subblocks: []common.Hash{hash('r', 0, n), hash('s', 0, n)}, Blocks: map[uint64]sealed{}}
			for _, chain := range []uint64{chainA, chainB} {
				s.Blocks[chain] = sealed{n, hash('b', chain, n)}
			}
			if n == 3 {
				s.Bundles = []common.Hash{good.hash}
			}
			l = append(l, s)
		}
		if i == 2 {
			l = l[2:]
		}
		e.ledgers = append(e.ledgers, l)
	}
	return e
}

// What is wrong with the evidence is counted, as what it is.
func TestJudge(t *testing.T) {
	require.False(t, new(Counts).any())
	counts := sound().judge()
	require.False(t, counts.any(), counts.Findings)

	for name, c := range map[string]struct {
		spoil                  func(e *evidence)
		lost, changed, doubled bool
	}{
		"an announced block is not in one chain":    {spoil: func(e *evidence) { e.chains[chainA][1] = e.chains[chainA][1][:length-1] }, lost: true},
		"an announced block is another in the end":  {spoil: func(e *evidence) { e.announced[chainB][3][4].Hash = hash('x', 0, 0) }, changed: true, lost: true},
		"two chains differ":                         {spoil: func(e *evidence) { e.chains[chainB][2][length-1].Hash = hash('x', 0, 0) }, changed: true},
		"a chain has a hole":                        {spoil: func(e *evidence) { e.chains[chainA][0][3].Parent = hash('x', 0, 0) }, lost: true},
		"a transaction is in a chain twice":         {spoil: func(e *evidence) { e.chains[chainA][0][4].Txs = e.chains[chainA][0][1].Txs }, doubled: true},
		"a ledger is empty":                         {spoil: func(e *evidence) { e.ledgers[1] = nil }, lost: true},
		"a ledger lacks a slot":                     {spoil: func(e *evidence) { l := e.ledgers[1]; e.ledgers[1] = append(l[:3:3], l[4:]...) }, lost: true, changed: true},
		"a ledger lacks the newest announced block": {spoil: func(e *evidence) { e.ledgers[3] = e.ledgers[3][:length-1] }, lost: true},
		"ledgers have different subblocks":          {spoil: func(e *evidence) { e.ledgers[1][2].Subblocks[0] = hash('x', 0, 0) }, changed: true},
		"a ledger is of another history":            {spoil: func(e *evidence) { e.ledgers[2][0].Parent = hash('x', 0, 0) }, lost: true},
		"a ledger has another block than the chain": {spoil: func(e *evidence) { e.ledgers[0][1].Blocks[chainA] = sealed{2, hash('x', 0, 0)} }, changed: true, lost: true},
		"a subblock is agreed on twice":             {spoil: func(e *evidence) { e.ledgers[0][5].Subblocks[0] = e.ledgers[0][1].Subblocks[0] }, doubled: true, changed: true},
		"a bundle is executed twice":                {spoil: func(e *evidence) { e.ledgers[0][5].Bundles = e.ledgers[0][2].Bundles }, doubled: true},
		"half of a bundle is there":                 {spoil: func(e *evidence) { e.bundles[0].txs[1].hash = hash('x', 0, 0) }, changed: true},
		"a bundle is in two slots":                  {spoil: func(e *evidence) { e.bundles[0].txs[1].hash = hash('t', chainB, 4) }, changed: true},
		"an executed bundle is not there":           {spoil: func(e *evidence) { e.bundles[0].txs = e.bundles[1].txs }, lost: true},
		"a failed bundle is there":                  {spoil: func(e *evidence) { e.bundles[0].states[bundlepool.Failed] = "" }, changed: true},
		"an expired bundle is there":                {spoil: func(e *evidence) { e.bundles[0].states[bundlepool.Expired] = "" }, changed: true},
		"a bundle is undone":                        {spoil: func(e *evidence) { e.bundles[1].states[bundlepool.Undone] = "" }, lost: true},
		"a transaction of a bundle failed":          {spoil: func(e *evidence) { e.statuses[e.bundles[0].txs[0]] = 0 }, changed: true},
		"a bad bundle is there":                     {spoil: func(e *evidence) { e.bundles[0].good = false }, changed: true},
		"a bad bundle left something":               {spoil: func(e *evidence) { e.remains[placed{chainB, e.bundles[1].hash}] = true }, changed: true},
		"a relay of a bundle is missing": {spoil: func(e *evidence) {
			e.bundles[0].items = []placed{{chainB, hash('x', 0, 0)}}
		}, changed: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := sound()
			c.spoil(e)
			got := e.judge()
			require.Equal(t, []bool{c.lost, c.changed, c.doubled}, []bool{got.Lost > 0, got.Changed > 0, got.Doubled > 0}, got.Findings)
			require.NotEmpty(t, (&Report{Counts: got}).Failed())
		})
	}
}

// What an operator's ledger leaves open is not missing from it.
func TestOpenBlock(t *testing.T) {
	e := sound()
	e.ledgers[1][4].Blocks[chainA] = sealed{Number: 5}
	got := e.judge()
	require.False(t, got.any(), got.Findings)
}

func TestFindingsAreBounded(t *testing.T) {
	e := sound()
	for n := range e.chains[chainA][0] {
		e.chains[chainA][0][n].Txs = make([]common.Hash, 2*maxFindings)
	}
	got := e.judge()
	require.Greater(t, got.Doubled, maxFindings)
	require.Len(t, got.Findings, maxFindings)
}
