// Package overview says in one value how a shared sequencer stands: what an operator's RPC
// and its op-nodes tell, with names, lags, and what is wrong. It is for people and scripts;
// Prometheus has its own metrics.
package overview

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"golang.org/x/sync/errgroup"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// Sequencer is an operator's sharedseq RPC. rpc.Client is one.
type Sequencer interface {
	Status(context.Context) (*rpc.Status, error)
	LeaderSchedule(ctx context.Context, n uint64) ([]rpc.Turn, error)
	// The others fail with rpc.CodeUnavailable at an operator that is alone.
	Operators(context.Context) (*rpc.Operators, error)
	Evidence(context.Context) (*rpc.Evidence, error)
}

// Node is an operator's op-node.
type Node interface {
	SyncStatus(ctx context.Context, chain uint64) (*eth.SyncStatus, error)
}

// Overview is how things stand at one operator. Its JSON is documented in docs/cli.md: members
// are added to it, and neither renamed nor taken away.
type Overview struct {
	Time time.Time `json:"time"`
	// Healthy: there are no Problems, each of which is a sentence.
	Healthy  bool      `json:"healthy"`
	Problems []Problem `json:"problems"`
	Slot     uint64    `json:"slot"`  // built now, or next: Unix seconds
	Leads    bool      `json:"leads"` // whether this operator leads it
	// Last is the newest turn of which it is known who delivered. Absent if the operator is
	// alone, or has just started.
	Last    *Turn   `json:"last,omitempty"`
	Next    []Turn  `json:"next"` // the one that is agreed on now first
	Chains  []Chain `json:"chains"`
	Bundles Bundles `json:"bundles"`
	// Agreement is absent if the operator is alone.
	Agreement *Agreement `json:"agreement,omitempty"`
}

// Turn is a leader's.
type Turn struct {
	Height uint64         `json:"height"`
	Leader common.Address `json:"leader"`
	Name   string         `json:"name,omitempty"`
	// Round, of a turn that is over, is how many rounds passed before it was delivered.
	Round uint64 `json:"round,omitempty"`
	// At is when it is due. Absent while the set is behind.
	At *time.Time `json:"at,omitempty"`
}

// Chain is how one rollup stands.
type Chain struct {
	ChainID uint64 `json:"chainId"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"` // why it is not sequenced
	// LastSlot is the last one that the chain took part in.
	LastSlot uint64 `json:"lastSlot"`
	// LagSeconds is how far the unsafe head is behind the clock.
	LagSeconds int64 `json:"lagSeconds"`
	Unsafe     Block `json:"unsafe"`
	// As op-node has derived and verified them; absent if it does not answer, or has none.
	LocalSafe *Block `json:"localSafe,omitempty"`
	CrossSafe *Block `json:"crossSafe,omitempty"`
	Finalized *Block `json:"finalized,omitempty"`
	// Error is why op-node did not answer.
	Error string `json:"error,omitempty"`
}

// Block is a block of a chain.
type Block struct {
	Number    uint64      `json:"number"`
	Hash      common.Hash `json:"hash"`
	Timestamp uint64      `json:"timestamp"`
}

// Bundles counts those that the operator knows.
type Bundles struct {
	Pending      uint64 `json:"pending"`
	PendingBytes uint64 `json:"pendingBytes"`
	Executed     uint64 `json:"executed"` // and not safe yet
	Undone       uint64 `json:"undone"`
	Ended        uint64 `json:"ended"`
}

// Agreement is how the operator takes part in it.
type Agreement struct {
	Set        common.Hash    `json:"set"`
	Operator   common.Address `json:"operator"` // zero: it follows and never leads
	NodeID     string         `json:"nodeId"`
	Height     uint64         `json:"height"`
	Durable    uint64         `json:"durable"`
	Running    bool           `json:"running"`
	Syncing    bool           `json:"syncing"`
	Connected  []string       `json:"connected"` // node IDs
	Counted    uint64         `json:"counted"`   // heights that the operators' counters are of
	TotalPower uint64         `json:"totalPower"`
	Operators  []Operator     `json:"operators"`
	Pending    int            `json:"pendingChanges"`
	Evidence   int            `json:"evidence"` // proofs that operators were dishonest
}

// Operator is one of the set, and what it did at the counted heights.
type Operator struct {
	Name    string         `json:"name"`
	Address common.Address `json:"address"`
	Self    bool           `json:"self"`
	Power   uint64         `json:"power"`
	// Votes: its vote was with one of the newest heights.
	Votes     bool   `json:"votes"`
	LastVoted uint64 `json:"lastVoted"`
	Voted     uint64 `json:"voted"`
	Led       uint64 `json:"led"`
	Passed    uint64 `json:"passed"` // turns in which it did not deliver
	Missed    uint64 `json:"missed"` // of them, in a row now
	Shortened bool   `json:"shortened"`
}

// Limits are from when on something is a problem. Zero: never.
type Limits struct {
	Lag     time.Duration // of a chain's unsafe head behind the clock
	SafeLag time.Duration // of its cross-safe head
}

// recent is how many heights ago a vote may be, for its operator to be voting: late votes
// are not in a block.
const recent = 5

// Taker asks for overviews.
type Taker struct {
	Sequencer Sequencer
	Node      Node // nil: heads below the unsafe ones are not asked for
	Limits    Limits
	Turns     uint64 // of the schedule
	Now       func() time.Time
}

// Take asks once. It fails if the sharedseq RPC does not answer; what else does not is among
// the problems.
func (t *Taker) Take(ctx context.Context) (*Overview, error) {
	var (
		status   *rpc.Status
		turns    []rpc.Turn
		set      *rpc.Operators
		evidence *rpc.Evidence
	)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { status, err = t.Sequencer.Status(gctx); return err })
	g.Go(func() (err error) { turns, err = t.Sequencer.LeaderSchedule(gctx, max(t.Turns, 1)); return err })
	g.Go(func() (err error) { set, err = t.Sequencer.Operators(gctx); return unlessAlone(err) })
	g.Go(func() (err error) { evidence, err = t.Sequencer.Evidence(gctx); return unlessAlone(err) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	now := t.Now()
	o := &Overview{
		Time: now.UTC(), Problems: []Problem{}, Slot: uint64(status.Slot), Leads: status.Leader, Next: []Turn{}, Chains: make([]Chain, len(status.Chains)),
		Bundles: Bundles{
			Pending: uint64(status.Bundles.Pending), PendingBytes: uint64(status.Bundles.PendingBytes), Executed: uint64(status.Bundles.Executed),
			Undone: uint64(status.Bundles.Undone), Ended: uint64(status.Bundles.Ended),
		},
	}
	names := Names(set)
	for _, turn := range turns {
		o.Next = append(o.Next, NewTurn(turn, names))
	}
	heads, _ := errgroup.WithContext(ctx)
	for i, c := range status.Chains {
		heads.Go(func() error { o.Chains[i] = t.chain(ctx, now, c); return nil })
	}
	_ = heads.Wait()
	if status.Agreement != nil && set != nil {
		o.agreement(status.Agreement, set, evidence, names)
	}
	o.judge(t.Limits, t.Node != nil)
	return o, nil
}

func unlessAlone(err error) error {
	if rpc.ErrorCode(err) == rpc.CodeUnavailable {
		return nil
	}
	return err
}

// Names of the operators; nil has none.
func Names(set *rpc.Operators) map[common.Address]string {
	names := map[common.Address]string{}
	if set != nil {
		for _, o := range set.Operators {
			names[o.Address] = o.Name
		}
	}
	return names
}

// NewTurn gives a turn that is to come its name and time.
func NewTurn(t rpc.Turn, names map[common.Address]string) Turn {
	out := Turn{Height: uint64(t.Height), Leader: t.Leader, Name: names[t.Leader]}
	if t.Expected != nil {
		at := time.UnixMilli(int64(*t.Expected)).UTC()
		out.At = &at
	}
	return out
}

func (t *Taker) chain(ctx context.Context, now time.Time, c rpc.ChainStatus) Chain {
	out := Chain{
		ChainID: uint64(c.ChainID), Ready: c.Ready, Reason: c.Reason, LastSlot: uint64(c.LastSlot),
		Unsafe:     Block{uint64(c.Head.Number), c.Head.Hash, uint64(c.Head.Timestamp)},
		LagSeconds: lag(now, c.Head.Timestamp),
	}
	if t.Node == nil {
		return out
	}
	s, err := t.Node.SyncStatus(ctx, out.ChainID)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.LocalSafe, out.CrossSafe, out.Finalized = block(s.LocalSafeL2), block(s.SafeL2), block(s.FinalizedL2)
	return out
}

func lag(now time.Time, timestamp hexutil.Uint64) int64 { return max(0, now.Unix()-int64(timestamp)) }

// block is nil just after a node has started, when its status is all zeros.
func block(r eth.L2BlockRef) *Block {
	if r.Hash == (common.Hash{}) {
		return nil
	}
	return &Block{r.Number, r.Hash, r.Time}
}

func (o *Overview) agreement(st *rpc.AgreementStatus, set *rpc.Operators, evidence *rpc.Evidence, names map[common.Address]string) {
	a := &Agreement{
		Set: set.Set, Operator: st.Operator, NodeID: st.NodeID, Height: uint64(st.Height), Durable: uint64(st.Durable),
		Running: st.Running, Syncing: st.Syncing, Connected: append([]string{}, st.Connected...), Counted: uint64(set.Counted),
		TotalPower: uint64(set.TotalPower), Operators: []Operator{}, Pending: len(set.Pending),
	}
	if evidence != nil {
		a.Evidence = len(evidence.Subblocks) + len(evidence.Votes)
	}
	for _, op := range set.Operators {
		a.Operators = append(a.Operators, Operator{
			Name: op.Name, Address: op.Address, Self: op.Address == st.Operator, Power: uint64(op.Power),
			Votes:     op.LastVoted > 0 && uint64(op.LastVoted)+recent >= uint64(set.Height),
			LastVoted: uint64(op.LastVoted), Voted: uint64(op.Voted), Led: uint64(op.Led), Passed: uint64(op.Passed),
			Missed: uint64(op.Missed), Shortened: op.Shortened,
		})
	}
	if st.LastLeader != (common.Address{}) && st.Height > 0 {
		o.Last = &Turn{Height: uint64(st.Height) - 1, Leader: st.LastLeader, Name: names[st.LastLeader], Round: uint64(st.LastRound)}
	}
	o.Agreement = a
}

// Problem is something that is not as it should be. In JSON it is its text.
type Problem struct {
	Kind string // the same as long as the same is wrong with the same chain or operator: the text has numbers that change
	Text string
}

func (p Problem) MarshalText() ([]byte, error) { return []byte(p.Text), nil }

func (p *Problem) UnmarshalText(text []byte) error {
	p.Kind, p.Text = string(text), string(text)
	return nil
}

// withoutNumbers is a reason without what changes in it while it stays the same.
func withoutNumbers(reason string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, reason)
}

// judge says what is wrong.
func (o *Overview) judge(l Limits, node bool) {
	problem := func(of any, format string, args ...any) {
		o.Problems = append(o.Problems, Problem{Kind: fmt.Sprint(format, of), Text: fmt.Sprintf(format, args...)})
	}
	if len(o.Chains) == 0 {
		problem("", "no chain is sequenced")
	}
	for _, c := range o.Chains {
		if !c.Ready {
			problem(fmt.Sprint(c.ChainID, withoutNumbers(c.Reason)), "chain %d is not sequenced: %s", c.ChainID, c.Reason)
		}
		if behind := time.Duration(c.LagSeconds) * time.Second; l.Lag > 0 && behind > l.Lag {
			problem(c.ChainID, "chain %d is %s behind", c.ChainID, behind)
		}
		switch {
		case c.Error != "":
			problem(c.ChainID, "chain %d: op-node does not answer: %s", c.ChainID, c.Error)
		case node && l.SafeLag > 0 && c.CrossSafe != nil:
			if behind := time.Duration(o.Time.Unix()-int64(c.CrossSafe.Timestamp)) * time.Second; behind > l.SafeLag {
				problem(c.ChainID, "chain %d: its cross-safe head is %s behind: look at its batcher, and at L1", c.ChainID, behind)
			}
		}
	}
	a := o.Agreement
	if a == nil {
		o.Healthy = len(o.Problems) == 0
		return
	}
	if !a.Running {
		problem("", "this operator's agreement does not run")
	}
	if a.Syncing {
		problem("", "this operator fetches what the others have agreed on, and does not vote")
	}
	var voting uint64
	for _, op := range a.Operators {
		if op.Votes {
			voting += op.Power
		}
	}
	seen := a.Counted > recent // too few heights say nothing
	for _, op := range a.Operators {
		switch {
		case seen && !op.Votes && op.LastVoted == 0:
			problem(op.Address, "operator %s does not vote", op.Name)
		case seen && !op.Votes:
			problem(op.Address, "operator %s does not vote: last at height %d of %d", op.Name, op.LastVoted, a.Height)
		case op.Shortened:
			problem(op.Address, "operator %s does not deliver: its turns are shortened until it has voted for a while", op.Name)
		}
	}
	if seen && 3*voting <= 2*a.TotalPower {
		problem("", "power %d of %d votes: more than two thirds have to", voting, a.TotalPower)
	}
	if a.Evidence > 0 {
		problem(a.Evidence, "%d proofs that operators were dishonest: see sharedseq_evidence", a.Evidence)
	}
	o.Healthy = len(o.Problems) == 0
}
