package judge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
)

// Counts is what became of the messages that users tried to have executed, by what the
// chains hold. A try that executes two messages counts twice.
type Counts struct {
	Sent             int            `json:"sent"`
	ExecutedSameSlot int            `json:"executedSameSlot"`
	ExecutedLater    int            `json:"executedLater"`
	Refused          map[string]int `json:"refused"` // by rule
	// Late were not tried in time: a bundle's slots, or a message's time, were over.
	Late int `json:"late"`
	// The others are to be 0.
	WronglyExecuted int `json:"wronglyExecuted"` // invalid, and in a block
	WronglyRefused  int `json:"wronglyRefused"`  // valid, and refused for another reason than its age
	Unknown         int `json:"unknown"`         // nobody could say what became of it
	// Contested are proposals without a forced message that an operator refused for one.
	Contested int `json:"contested"`
	// Replaced are blocks that were announced as unsafe and are not the ones that op-supernode
	// verified, among those of the traffic.
	Replaced int `json:"replaced"`
	// Invalidated are blocks without a forced message that op-supernode invalidated.
	Invalidated int `json:"invalidated"`

	Forced            int `json:"forced"`            // blocks with an invalid message that were agreed on
	CaughtByUs        int `json:"caughtByUs"`        // refused by the operator that does not lie
	CaughtBySupernode int `json:"caughtBySupernode"` // invalidated at every operator

	// Findings says what was counted that should not be, the first ones of each kind.
	Findings []string `json:"findings"`
}

// maxFindings bounds the report, not the counts.
const maxFindings = 10

// find counts n of a kind, and says why.
func (c *Counts) find(count *int, n int, kind, format string, args ...any) {
	*count += n
	c.note(kind, format, args...)
}

// note is a finding that is not counted, or elsewhere.
func (c *Counts) note(kind, format string, args ...any) {
	told := 0
	for _, f := range c.Findings {
		if strings.HasPrefix(f, kind+": ") {
			told++
		}
	}
	if told < maxFindings {
		c.Findings = append(c.Findings, kind+": "+fmt.Sprintf(format, args...))
	}
}

// refusals are all that were refused, by whatever rule.
func (c *Counts) refusals() int {
	n := 0
	for _, k := range c.Refused {
		n += k
	}
	return n
}

// executedMessage is an executing message in a chain: when it was initiated, and executed.
type executedMessage struct{ initiated, executed uint64 }

// countTraffic counts what became of attempts. in are the executing messages that the chains hold,
// by transaction.
func (c *Counts) countTraffic(attempts []*attempt, in map[placed][]executedMessage) {
	c.Refused = map[string]int{}
	explained := map[placed]bool{}
	for _, a := range attempts {
		c.Sent += a.messages
		var found []executedMessage
		for _, tx := range a.txs {
			found = append(found, in[tx]...)
			explained[tx] = true
		}
		switch {
		case a.forged != nil && (len(found) > 0 || a.verdict == executed):
			c.find(&c.WronglyExecuted, a.messages, "wrongly executed", "%s, of which the chains hold %d messages", a, len(found))
		case len(found) > 0 && len(found) != a.messages:
			c.find(&c.Unknown, a.messages, "unknown", "%s has executed %d of %d messages", a, len(found), a.messages)
		case len(found) > 0 && a.verdict != executed:
			c.find(&c.Unknown, a.messages, "unknown", "%s is executed, but its sender was told that it is %s: %s", a, a.verdict, a.why)
		case len(found) > 0:
			for _, m := range found {
				if m.initiated == m.executed {
					c.ExecutedSameSlot++
				} else {
					c.ExecutedLater++
				}
			}
		case a.verdict == late, a.verdict == refused && a.forged == nil && a.rule == executor.RuleExpiry.String():
			c.Late += a.messages
		case a.verdict == refused && a.forged == nil:
			c.find(&c.WronglyRefused, a.messages, "wrongly refused", "%s: %s", a, a.why)
		case a.verdict == refused && a.rule == a.forged.refusedBy():
			c.Refused[a.rule] += a.messages
		default:
			c.find(&c.Unknown, a.messages, "unknown", "%s is %s by rule %q: %s", a, a.verdict, a.rule, a.why)
		}
	}
	for tx, found := range in {
		if !explained[tx] {
			c.find(&c.WronglyExecuted, len(found), "wrongly executed", "transaction %s on chain %d, with %d messages of nobody", tx.tx, tx.chain, len(found))
		}
	}
}

// deniedBlock is a block that op-supernode has invalidated.
type deniedBlock struct {
	chain, number uint64
	hash          common.Hash
}

// countForced counts what became of forced messages. lists are the blocks that op-supernode has
// invalidated, by operator.
func (c *Counts) countForced(all []*forced, lists [][]deniedBlock) {
	others := map[deniedBlock]bool{}
	for i, list := range lists {
		for _, b := range list {
			if !others[b] && !slices.ContainsFunc(all, func(f *forced) bool { return f.block == b }) {
				others[b] = true
				c.find(&c.Invalidated, 1, "invalidated", "block %d of chain %d, %s, at operator %d", b.number, b.chain, b.hash, i)
			}
		}
	}
	for _, f := range all {
		c.Forced++
		if f.caught {
			c.CaughtByUs++
		} else {
			c.note("not refused", "%s, at operator %d", f, honest)
		}
		f.denied = f.replaced > 0
		for i, list := range lists {
			if !slices.Contains(list, f.block) {
				f.denied = false
				c.note("not invalidated", "%s, at operator %d", f, i)
			}
		}
		if f.denied {
			c.CaughtBySupernode++
		}
	}
}
