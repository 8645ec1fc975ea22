package audit

import (
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var began = time.Unix(1_700_000_000, 0)

// anyTxs draws what a pool may offer, by account, ascending by nonce.
func anyTxs(t *rapid.T) map[common.Address][]Tx {
	pool := map[common.Address][]Tx{}
	n := byte(0)
	for from := range byte(rapid.IntRange(1, 6).Draw(t, "accounts")) {
		for range rapid.IntRange(1, 5).Draw(t, "transactions") {
			n++
			a := common.Address{from + 1}
			pool[a] = append(pool[a], Tx{
				Hash: common.Hash{n}, From: a, Tip: big.NewInt(rapid.Int64Range(0, 5).Draw(t, "tip")),
				Arrived: began.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "arrived")) * time.Second),
			})
		}
	}
	return pool
}

// build takes from a pool as a builder does; which of equal ones is drawn.
func build(t *rapid.T, pool map[common.Address][]Tx, better func(a, b *Tx) bool) (out []Tx) {
	for {
		var best []common.Address
		for from, list := range pool {
			switch {
			case len(list) == 0:
			case len(best) == 0 || better(&list[0], &pool[best[0]][0]):
				best = []common.Address{from}
			case !better(&pool[best[0]][0], &list[0]):
				best = append(best, from)
			}
		}
		if len(best) == 0 {
			return out
		}
		slices.SortFunc(best, common.Address.Cmp)
		from := rapid.SampledFrom(best).Draw(t, "next")
		// One that does not fit any more is left out, with the later ones of its account.
		if rapid.IntRange(0, 9).Draw(t, "fits") == 0 {
			pool[from] = nil
			continue
		}
		out = append(out, pool[from][0])
		pool[from] = pool[from][1:]
	}
}

func byTip(a, b *Tx) bool     { return a.Tip.Cmp(b.Tip) > 0 }
func byArrival(a, b *Tx) bool { return a.Arrived.Before(b.Arrived) }

// What is built in an order passes it, and two transactions of it that change places do not.
func TestRulesPassWhatIsBuilt(t *testing.T) {
	for name, order := range map[string]struct {
		rule   Rule
		better func(a, b *Tx) bool
	}{"priority": {Priority{}, byTip}, "fcfs": {FCFS{}, byArrival}} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, name, order.rule.Name())
			rapid.Check(t, func(t *rapid.T) {
				txs := build(t, anyTxs(t), order.better)
				require.Empty(t, order.rule.Check(&Fill{Txs: txs}))
				for i := 1; i < len(txs); i++ {
					a, b := txs[i-1], txs[i]
					if a.From == b.From || !order.better(&a, &b) {
						continue
					}
					swapped := slices.Clone(txs)
					swapped[i-1], swapped[i] = b, a
					found := order.rule.Check(&Fill{Txs: swapped})
					require.NotEmpty(t, found)
					require.Equal(t, b.Hash, found[0].Tx.Hash)
				}
			})
		})
	}
}

func txs(list ...Tx) []Tx {
	for i := range list {
		list[i].Hash = common.Hash{byte(i + 1)}
	}
	return list
}

func tip(from byte, tip int64) Tx { return Tx{From: common.Address{from}, Tip: big.NewInt(tip)} }

func TestPriority(t *testing.T) {
	for name, c := range map[string]struct {
		fill Fill
		rule Priority
		want int
	}{
		"falling":                 {Fill{Txs: txs(tip(1, 9), tip(2, 8), tip(3, 8), tip(4, 1))}, Priority{}, 0},
		"an account's own nonces": {Fill{Txs: txs(tip(2, 5), tip(1, 3), tip(1, 9), tip(3, 2))}, Priority{}, 0},
		"a favourite":             {Fill{Txs: txs(tip(4, 1), tip(1, 9), tip(2, 8))}, Priority{}, 1},
		"one put back":            {Fill{Txs: txs(tip(2, 8), tip(3, 7), tip(1, 9))}, Priority{}, 2},
		"behind a lower nonce it was free": {
			Fill{Txs: txs(tip(1, 9), tip(2, 3), tip(1, 8))}, Priority{}, 1,
		},
		"priority accounts":                   {Fill{Txs: txs(tip(7, 1), tip(1, 9))}, Priority{Accounts: map[common.Address]bool{{7}: true}}, 0},
		"priority accounts among themselves":  {Fill{Txs: txs(tip(7, 1), tip(8, 2), tip(1, 9))}, Priority{Accounts: map[common.Address]bool{{7}: true, {8}: true}}, 1},
		"a priority account that comes later": {Fill{Txs: txs(tip(1, 9), tip(7, 1), tip(2, 3))}, Priority{Accounts: map[common.Address]bool{{7}: true}}, 1},
		"an account from earlier in the block": {
			Fill{Txs: txs(tip(1, 3), tip(2, 9)), Before: map[common.Address]bool{{2}: true}}, Priority{}, 0,
		},
		"no base fee": {Fill{Txs: txs(Tx{From: common.Address{1}}, tip(2, 9))}, Priority{}, 0},
	} {
		t.Run(name, func(t *testing.T) { require.Len(t, c.rule.Check(&c.fill), c.want) })
	}
}

func seen(from byte, seconds float64) Tx {
	return Tx{From: common.Address{from}, Arrived: began.Add(time.Duration(seconds * float64(time.Second)))}
}

func TestFCFS(t *testing.T) {
	rule := FCFS{Tolerance: time.Second}
	require.False(t, rule.Proves())
	require.Empty(t, rule.Check(&Fill{Txs: txs(seen(1, 0.5), seen(2, 0), Tx{From: common.Address{9}}, seen(3, 2))}), "within the tolerance")
	found := rule.Check(&Fill{Txs: txs(seen(1, 5), seen(2, 0))})
	require.Len(t, found, 1)
	require.Equal(t, "it was seen 5s after the other", found[0].Reason)
	// Neighbours that are within the tolerance do not hide who waited for long.
	var late []Tx
	for i := range 8 {
		late = append(late, seen(byte(i+1), 5-float64(i)*.6))
	}
	for range 20 { // in whatever order the accounts are looked at
		require.Len(t, rule.Check(&Fill{Txs: txs(late...)}), 6)
	}
}

func TestPatterns(t *testing.T) {
	x, y := common.Address{0xaa}, common.Address{0xbb}
	call := func(from byte, to *common.Address) Tx { return Tx{From: common.Address{from}, To: to, Call: true} }
	for name, c := range map[string]struct {
		txs  []Tx
		want []Pattern
	}{
		"a sandwich":                        {[]Tx{call(1, &x), call(2, &x), call(1, &x)}, []Pattern{{x, common.Address{1}, common.Address{2}, [3]int{0, 1, 2}}}},
		"with others in between":            {[]Tx{call(1, &x), call(5, &y), call(2, &x), call(1, &y), call(1, &x)}, []Pattern{{x, common.Address{1}, common.Address{2}, [3]int{0, 2, 4}}}},
		"one account":                       {[]Tx{call(1, &x), call(1, &x), call(1, &x)}, nil},
		"three accounts":                    {[]Tx{call(1, &x), call(2, &x), call(3, &x)}, nil},
		"two contracts":                     {[]Tx{call(1, &x), call(2, &y), call(1, &x)}, nil},
		"payments are no calls":             {[]Tx{{From: common.Address{1}, To: &x}, {From: common.Address{2}, To: &x}, {From: common.Address{1}, To: &x}}, nil},
		"creations have no target":          {[]Tx{call(1, nil), call(2, nil), call(1, nil)}, nil},
		"two in a row share their edge":     {[]Tx{call(1, &x), call(2, &x), call(1, &x), call(3, &x), call(1, &x)}, []Pattern{{x, common.Address{1}, common.Address{2}, [3]int{0, 1, 2}}, {x, common.Address{1}, common.Address{3}, [3]int{2, 3, 4}}}},
		"an account that takes turns twice": {[]Tx{call(1, &x), call(2, &x), call(3, &x), call(1, &x)}, nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, patterns(c.txs)) })
	}
}

// Inversions are counted as looking at all pairs counts them.
func TestInverted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tolerance := time.Duration(rapid.IntRange(0, 3).Draw(t, "tolerance")) * time.Second
		var list []Tx
		for range rapid.IntRange(0, 30).Draw(t, "transactions") {
			tx := seen(byte(rapid.IntRange(1, 8).Draw(t, "account")), float64(rapid.IntRange(0, 20).Draw(t, "arrived")))
			if rapid.IntRange(0, 5).Draw(t, "unseen") == 0 {
				tx.Arrived = time.Time{}
			}
			list = append(list, tx)
		}
		ready := make([]time.Time, len(list)) // with the nonces before it
		var want inversions
		for j, b := range list {
			ready[j] = b.Arrived
			for i, a := range list[:j] {
				if a.From == b.From && ready[i].After(ready[j]) && !b.Arrived.IsZero() {
					ready[j] = ready[i]
				}
			}
			for i, a := range list[:j] {
				if a.From == b.From || a.Arrived.IsZero() || b.Arrived.IsZero() {
					continue
				}
				want.pairs++
				if late := ready[i].Sub(ready[j]); late > tolerance {
					want.inverted++
					want.worst = max(want.worst, late)
				}
			}
		}
		require.Equal(t, want, inverted(list, tolerance))
	})
}
