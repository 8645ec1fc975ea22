package audit

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// maxListed is how many violations, and patterns, a report lists. It counts all.
const maxListed = 10_000

// Kinds of violations.
const (
	KindAgreement    = "agreement"    // votes, who led, its signature, the operators' state
	KindParent       = "parent"       // a subblock does not follow the one before
	KindPlace        = "place"        // of cross-chain work in its subblock
	KindOrder        = "order"        // of a fill
	KindBlock        = "block"        // its hash, or what it was opened with
	KindTransactions = "transactions" // of a block are not the subblocks'
	KindResult       = "result"       // of a block is not the one that was agreed on
)

// Report is what an audit found. JSON; quantities are numbers.
type Report struct {
	// OK: there are no violations, which are what must not be.
	OK         bool        `json:"ok"`
	Violations []Violation `json:"violations"` // the first maxListed
	// ViolationCount and PatternCount are how many there are in all.
	ViolationCount uint64 `json:"violationCount"`
	PatternCount   uint64 `json:"patternCount"`

	From         sequence.Slot `json:"from"` // first and last slot that was audited; 0: none
	To           sequence.Slot `json:"to"`
	Slots        uint64        `json:"slots"`
	Subblocks    uint64        `json:"subblocks"`
	Transactions uint64        `json:"transactions"` // deposits left out
	Order        string        `json:"order"`        // rule for fills; empty: not checked
	ToleranceMs  int64         `json:"toleranceMs"`

	Leaders []*Leader `json:"leaders"` // descending by subblocks
	// Patterns have the shape of a sandwich. Many are harmless. The first maxListed.
	Patterns []Found `json:"patterns"`

	Unproven []Unproven `json:"unproven"` // subblocks whose votes or leader could not be checked, by reason
	Missing  uint64     `json:"missing"`  // blocks that are not in the ledger: their hash, results and tips are not checked
	GivenUp  uint64     `json:"givenUp"`  // times that subblocks were given up between two slots, or are not in the ledger
	Rebased  uint64     `json:"rebased"`  // times that a chain had gone back, or had blocks from derivation in between
}

// Violation is what must not be. It is said of the leader of its subblock.
type Violation struct {
	Slot     sequence.Slot    `json:"slot"`
	Height   uint64           `json:"height,omitempty"`
	Subblock int              `json:"subblock"`
	Chain    sequence.ChainID `json:"chainId,omitempty"`
	Leader   common.Address   `json:"leader"`
	Name     string           `json:"name,omitempty"`
	Kind     string           `json:"kind"` // one of Kind…
	Text     string           `json:"text"`
}

// Leader is what the subblocks of one leader come to. Who is alone has no address.
type Leader struct {
	Leader     common.Address `json:"leader"`
	Name       string         `json:"name,omitempty"`
	Subblocks  uint64         `json:"subblocks"`
	Missed     uint64         `json:"missed"` // turns in which it did not deliver
	Violations uint64         `json:"violations"`
	Patterns   uint64         `json:"patterns"` // whose middle is in its subblocks

	Fills        uint64 `json:"fills"`
	Transactions uint64 `json:"transactions"` // in them
	OutOfOrder   uint64 `json:"outOfOrder"`   // of these, by the rule
	Bundles      uint64 `json:"bundles"`

	Arrival       Deviations `json:"arrival"`       // of the transactions of fills
	BundleArrival Deviations `json:"bundleArrival"` // of bundles before the fills, and of those after them
}

// Deviations are from the order of arrival, over pairs of which the auditing operator saw both.
type Deviations struct {
	Pairs    uint64 `json:"pairs"`
	Inverted uint64 `json:"inverted"` // more than the tolerance
	WorstMs  int64  `json:"worstMs"`
}

func (d *Deviations) add(n inversions) {
	d.Pairs, d.Inverted = d.Pairs+n.pairs, d.Inverted+n.inverted
	d.WorstMs = max(d.WorstMs, n.worst.Milliseconds())
}

func (d *Deviations) String() string {
	if d.Pairs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%% of %d (worst %d ms)", 100*float64(d.Inverted)/float64(d.Pairs), d.Pairs, d.WorstMs)
}

// Found is a pattern in a block.
type Found struct {
	Slot     sequence.Slot    `json:"slot"`
	Chain    sequence.ChainID `json:"chainId"`
	Block    uint64           `json:"block"`
	Leader   common.Address   `json:"leader"` // of the subblock that the middle is in
	Name     string           `json:"name,omitempty"`
	Contract common.Address   `json:"contract"`
	Around   common.Address   `json:"around"`  // account of the first and the last
	Between  common.Address   `json:"between"` // account of the middle
	Txs      [3]common.Hash   `json:"txs"`
	Places   [3]string        `json:"places"` // bundle, fill, relay or late bundle
}

// Unproven are subblocks of which something could not be checked.
type Unproven struct {
	Reason    string        `json:"reason"`
	Subblocks uint64        `json:"subblocks"`
	From      sequence.Slot `json:"from"` // first and last
	To        sequence.Slot `json:"to"`
}

func newReport(cfg Config) *Report {
	r := &Report{Violations: []Violation{}, Leaders: []*Leader{}, Patterns: []Found{}, Unproven: []Unproven{}, ToleranceMs: cfg.Tolerance.Milliseconds()}
	if cfg.Rule != nil {
		r.Order = cfg.Rule.Name()
	}
	return r
}

func (r *Report) slot(slot sequence.Slot) {
	if r.Slots == 0 {
		r.From, r.To = slot, slot
	}
	r.Slots++
	r.From, r.To = min(r.From, slot), max(r.To, slot)
}

const alone = "the operator was alone: nobody voted"

func (r *Report) unproven(slot sequence.Slot, h *cometbft.Height) {
	reason := cmp.Or(h.Unproven, alone)
	i := slices.IndexFunc(r.Unproven, func(u Unproven) bool { return u.Reason == reason })
	if i < 0 {
		i = len(r.Unproven)
		r.Unproven = append(r.Unproven, Unproven{Reason: reason, From: slot})
	}
	r.Unproven[i].Subblocks++
	r.Unproven[i].To = slot
}

func (r *Report) finish(leaders map[common.Address]*Leader) {
	for _, l := range leaders {
		r.Leaders = append(r.Leaders, l)
	}
	slices.SortFunc(r.Leaders, func(a, b *Leader) int {
		return cmp.Or(cmp.Compare(b.Subblocks, a.Subblocks), a.Leader.Cmp(b.Leader))
	})
	r.OK = r.ViolationCount == 0
}

// shown is how many violations and patterns are written for people.
const shown = 20

// Write tells a person what was found.
func (r *Report) Write(w io.Writer) error {
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	say("slots %d to %d: %d slots, %d subblocks, %d transactions", r.From, r.To, r.Slots, r.Subblocks, r.Transactions)
	for i, v := range r.Violations {
		if i == shown {
			say("… and %d more (--json)", r.ViolationCount-shown)
			break
		}
		on := ""
		if v.Chain != 0 {
			on = fmt.Sprintf(", chain %s", v.Chain)
		}
		say("VIOLATION (%s) slot %d, subblock %d%s, leader %s: %s", v.Kind, v.Slot, v.Subblock, on, cmp.Or(v.Name, v.Leader.Hex()), v.Text)
	}
	if r.OK {
		say("no violations")
	}
	for _, u := range r.Unproven {
		say("not proven: %d subblocks, slots %d to %d: %s", u.Subblocks, u.From, u.To, u.Reason)
	}
	for _, n := range []struct {
		n    uint64
		what string
	}{
		{r.Missing, "blocks are not in this ledger: neither hash, results nor tips were checked"},
		{r.GivenUp, "times there is something missing between two slots: subblocks that were given up"},
		{r.Rebased, "times a chain went back, or has blocks that derivation made"},
	} {
		if n.n > 0 {
			say("%d %s", n.n, n.what)
		}
	}
	say("")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintf(t, "leader\tsubblocks\tmissed\tviolations\tplain\tnot as %s\tbundles\tpatterns\tinverted by arrival\tbundles inverted\n", cmp.Or(r.Order, "(no order)"))
	errs = append(errs, err)
	for _, l := range r.Leaders {
		_, err := fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", cmp.Or(l.Name, l.Leader.Hex()), l.Subblocks, l.Missed, l.Violations,
			l.Transactions, l.OutOfOrder, l.Bundles, l.Patterns, &l.Arrival, &l.BundleArrival)
		errs = append(errs, err)
	}
	errs = append(errs, t.Flush())
	if len(r.Patterns) > 0 {
		say("")
		say("calls of a contract around another account's (most are harmless):")
	}
	for i, p := range r.Patterns {
		if i == shown {
			say("… and %d more (--json)", r.PatternCount-shown)
			break
		}
		say("slot %d, chain %s, block %d, leader %s: contract %s, %s around %s: %s (%s), %s (%s), %s (%s)", p.Slot, p.Chain, p.Block,
			cmp.Or(p.Name, p.Leader.Hex()), p.Contract, p.Around, p.Between, p.Txs[0], p.Places[0], p.Txs[1], p.Places[1], p.Txs[2], p.Places[2])
	}
	return errors.Join(errs...)
}
