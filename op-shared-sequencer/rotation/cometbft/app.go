package cometbft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// interceptor sees what the app answers, and may change it: tests make operators lie.
type interceptor func(height uint64, txs [][]byte) [][]byte

var subblockLimits = operators.Limits{Bytes: maxSubblockBytes, Items: operators.DefaultLimits.Items}

// app is what CometBFT drives: it maps ABCI to the machine. CometBFT makes one of the calls
// PrepareProposal, ProcessProposal, FinalizeBlock and Commit at a time, from one goroutine at
// a time: while blocks are synced another than afterwards. An error or a panic in one of them
// ends CometBFT's consensus for good, so what can go wrong in a proposal is a pass or a
// rejection, and only a failed commit is an error.
type app struct {
	abci.BaseApplication

	cfg     *Config
	comet   *cmtcfg.Config // its consensus timeouts are set in Commit
	machine rotation.Machine
	signer  *operators.Signer // nil for a follower
	self    voter             // of this node's consensus key
	setID   common.Hash
	pool    *operators.EvidencePool
	stores  *stores
	changes *changePool
	allowed *peerList
	present *present
	log     log.Logger
	fatal   func(error)
	phase   func() phase

	turnCtx   context.Context // of Propose and Verify: ends when the rotation is stopped
	commitCtx context.Context // of Commit: ends when the stop does not wait any longer

	watch watch

	mu    sync.RWMutex
	state *state // what was committed; replaced, never changed

	// Below, only calls of CometBFT's consensus go.
	block    *block   // between FinalizeBlock and Commit
	votes    [][]byte // for the heights of the slot that is under way
	tallies  tallies
	durable  atomic.Uint64             // the height that the newest slot in the ledger ends with
	proposed *operators.SignedSubblock // by this operator, newest
	decoded  decoded                   // newest: the same one comes several times
	// ready is by the votes for the newest block. Whoever notices that a leader is gone
	// reads it, too.
	ready atomic.Pointer[[]sequence.ChainID]
}

func (a *app) quorumReady() []sequence.ChainID {
	if r := a.ready.Load(); r != nil {
		return *r
	}
	return nil
}

// decoded is a subblock as a block carries it, with who signed it.
type decoded struct {
	tx     []byte
	signed *operators.SignedSubblock
	leader common.Address
}

// block is what FinalizeBlock hands to Commit.
type block struct {
	*outcome
	sub     *sequence.Subblock
	leader  common.Address // that signed it
	proof   proof          // without the header
	changes []*operators.SignedChange
	began   time.Time
}

// phase of a node's life: where calls of the app come from.
type phase int

const (
	replaying phase = iota // heights behind the ledger's last, at the start
	syncing                // heights that others have agreed on already
	voting
)

func (a *app) current() *state {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.state
}

// Info says where the ledger ends: at the last slot boundary. CometBFT gives the heights
// behind it again, to FinalizeBlock and Commit.
func (a *app) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	s := a.current()
	info := &abci.ResponseInfo{Data: "op-shared-sequencer", AppVersion: 1, LastBlockHeight: int64(s.height)}
	if s.height > 0 {
		info.LastBlockAppHash = s.hash[:]
	}
	return info, nil
}

func (a *app) InitChain(_ context.Context, req *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	if req.ChainId != a.cfg.Genesis.Set {
		return nil, fmt.Errorf("consensus data are of set %s, this is %s", req.ChainId, a.cfg.Genesis.Set)
	}
	s := a.current()
	return &abci.ResponseInitChain{AppHash: s.hash[:]}, nil
}

// Query answers whether a node may connect.
func (a *app) Query(_ context.Context, req *abci.RequestQuery) (*abci.ResponseQuery, error) {
	if id, ok := strings.CutPrefix(req.Path, "/p2p/filter/id/"); ok && !a.cfg.Public && !a.allowed.has(id) {
		a.cfg.Metrics.ConnectionRefused()
		return &abci.ResponseQuery{Code: 1, Log: "not among the peers of this node"}, nil
	}
	return &abci.ResponseQuery{}, nil
}

// PrepareProposal is this operator's turn. An empty block passes it on.
func (a *app) PrepareProposal(_ context.Context, req *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	txs, err := a.propose(uint64(req.Height), req)
	if err != nil {
		a.cfg.Metrics.Passed()
		level := log.LevelInfo
		if a.turnCtx.Err() != nil {
			level = log.LevelDebug
		}
		a.log.Log(level, "Turn is passed on", "height", req.Height, "err", err)
		txs = nil
	}
	if a.cfg.intercept != nil {
		txs = a.cfg.intercept(uint64(req.Height), txs)
	}
	return &abci.ResponsePrepareProposal{Txs: txs}, nil
}

func (a *app) propose(height uint64, req *abci.RequestPrepareProposal) ([][]byte, error) {
	if err := a.turnCtx.Err(); err != nil {
		return nil, err
	}
	if a.signer == nil {
		return nil, errors.New("this node has votes and no operator key")
	}
	s := a.current()
	if height != s.height+1 {
		return nil, fmt.Errorf("height %d is agreed on", s.height)
	}
	// CometBFT does not say which round it is. The first is shorter for operators that do
	// not deliver.
	limit := a.cfg.Timeouts.Propose
	if again := a.proposed != nil && a.proposed.Height == height; !again && proposer(s.now) == a.self && s.turns[a.self].Short {
		limit = a.cfg.Timeouts.Short
	}
	if limit > a.cfg.Timeouts.Margin {
		limit -= a.cfg.Timeouts.Margin
	}
	ctx, cancel := context.WithTimeout(a.turnCtx, limit)
	defer cancel()

	signed, err := a.subblock(ctx, height, quorumReady(proposersVotes(req.LocalLastCommit)))
	if err != nil {
		return nil, err
	}
	enc := signed.Encode()
	size := int64(len(enc)) + 8 // and its length, in CometBFT's count
	if len(enc) > maxSubblockBytes || size > req.MaxTxBytes {
		return nil, fmt.Errorf("the subblock has %d bytes, at most %d can be proposed", len(enc), min(maxSubblockBytes, req.MaxTxBytes-8))
	}
	a.proposed, a.decoded = signed, decoded{enc, signed, a.signer.Address()}
	txs := [][]byte{enc}
	for _, c := range a.changes.valid(s.set, signed.Subblock.Slot, maxBlockChanges) {
		enc := c.Encode()
		if size += int64(len(enc)) + 8; size > req.MaxTxBytes {
			break
		}
		txs = append(txs, enc)
	}
	return txs, nil
}

// subblock is what this operator proposes: what it did at this height before, if it still
// agrees with it, or a new one.
func (a *app) subblock(ctx context.Context, height uint64, ready []sequence.ChainID) (*operators.SignedSubblock, error) {
	defer a.watch.enter("Propose")()
	if p := a.proposed; p != nil && p.Height == height && a.machine.Verify(ctx, p.Subblock) == nil {
		return p, nil
	}
	sub, err := a.machine.Propose(ctx, ready)
	if err != nil {
		return nil, err
	}
	signed, err := a.signer.Sign(height, sub)
	if err != nil {
		return nil, err
	}
	if signed.Subblock != sub && signed.Hash() != sub.Hash() {
		// It was signed before a restart, or before the machine changed its mind. Signing the
		// new one as well would be equivocation.
		if err := a.machine.Verify(ctx, signed.Subblock); err != nil {
			return nil, fmt.Errorf("another subblock is signed for this height, and is not valid now: %w", err)
		}
	}
	return signed, nil
}

// rejection is why a proposal is not voted for.
type rejection struct {
	reason string // one of Reject…
	err    error
}

func (r *rejection) Error() string { return r.err.Error() }

func reject(reason, format string, args ...any) *rejection {
	return &rejection{reason, fmt.Errorf(format, args...)}
}

func (a *app) ProcessProposal(_ context.Context, req *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	s := a.current()
	if r := a.check(s, req); r != nil {
		if a.turnCtx.Err() != nil {
			r.reason = RejectStopping
		}
		a.cfg.Metrics.Rejected(r.reason)
		level := log.LevelWarn
		if r.reason == RejectPass || r.reason == RejectStopping {
			level = log.LevelDebug
		}
		leader := s.operator(voter(req.ProposerAddress))
		a.log.Log(level, "Proposal is rejected", "height", req.Height, "leader", leader, "reason", r.reason, "err", r.err)
		if a.cfg.OnRejected != nil && r.reason != RejectStopping {
			a.cfg.OnRejected(rotation.Turn{Height: uint64(req.Height), Leader: leader}, r.reason, r.err)
		}
		return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
	}
	a.mayLead(s, s.height+2)
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}

func (a *app) check(s *state, req *abci.RequestProcessProposal) *rejection {
	if len(req.Txs) == 0 {
		return reject(RejectPass, "the leader passes")
	}
	if len(req.Txs) > 1+maxBlockChanges {
		return reject(RejectMalformed, "%d changes, at most %d", len(req.Txs)-1, maxBlockChanges)
	}
	signed, leader, err := a.decode(req.Txs[0])
	if err != nil {
		return &rejection{RejectMalformed, err}
	}
	if !s.leads(voter(req.ProposerAddress), leader) {
		return reject(RejectLeader, "the subblock is signed by %s, who did not propose it", leader)
	}
	a.observe(signed)
	if signed.Height != uint64(req.Height) || signed.Height != s.height+1 {
		return reject(RejectHeight, "the subblock is signed for height %d", signed.Height)
	}
	set := s.set.Clone()
	for _, tx := range req.Txs[1:] {
		c, err := operators.DecodeSignedChange(tx)
		if err == nil {
			err = set.Apply(c, signed.Subblock.Slot)
		}
		if err != nil {
			return &rejection{RejectChange, err}
		}
	}
	defer a.watch.enter("Verify")()
	if err := a.machine.Verify(a.turnCtx, signed.Subblock); err != nil {
		return &rejection{RejectVerify, err}
	}
	return nil
}

// decode reads a block's subblock and recovers who signed it.
func (a *app) decode(tx []byte) (*operators.SignedSubblock, common.Address, error) {
	if d := a.decoded; d.signed != nil && bytes.Equal(tx, d.tx) {
		return d.signed, d.leader, nil
	}
	signed, err := operators.DecodeSignedSubblock(tx, subblockLimits)
	if err != nil {
		return nil, common.Address{}, err
	}
	leader, err := signed.Leader(a.setID)
	if err == nil {
		a.decoded = decoded{tx, signed, leader}
	}
	return signed, leader, err
}

// observe looks for equivocation. The subblock's signer is an operator.
func (a *app) observe(signed *operators.SignedSubblock) {
	e, err := a.pool.Observe(signed)
	if e != nil {
		leader, _ := e.Check(a.setID)
		a.log.Error("Operator signed two subblocks for one height", "operator", leader, "height", e.Height, "view", e.View, "one", e.Hashes[0], "other", e.Hashes[1])
	}
	if err != nil {
		a.log.Error("Evidence is not kept", "err", err)
	}
}

func (a *app) ExtendVote(context.Context, *abci.RequestExtendVote) (*abci.ResponseExtendVote, error) {
	return &abci.ResponseExtendVote{VoteExtension: encodeReady(a.machine.Ready())}, nil
}

func (a *app) VerifyVoteExtension(_ context.Context, req *abci.RequestVerifyVoteExtension) (*abci.ResponseVerifyVoteExtension, error) {
	if _, err := decodeReady(req.VoteExtension); err != nil {
		a.cfg.Metrics.VoteRefused()
		a.log.Warn("Vote with bad readiness is refused", "height", req.Height, "operator", a.current().operator(voter(req.ValidatorAddress)), "err", err)
		return &abci.ResponseVerifyVoteExtension{Status: abci.ResponseVerifyVoteExtension_REJECT}, nil
	}
	return &abci.ResponseVerifyVoteExtension{Status: abci.ResponseVerifyVoteExtension_ACCEPT}, nil
}

// FinalizeBlock works out what an agreed block makes of the state. It does not run the
// subblock: nothing in its answer depends on execution.
func (a *app) FinalizeBlock(_ context.Context, req *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	s := a.current()
	b := &block{began: a.stores.began.commit()}
	if uint64(req.Height) != s.height+1 || len(req.Txs) == 0 {
		return nil, fmt.Errorf("height %d with %d transactions was agreed on behind height %d", req.Height, len(req.Txs), s.height)
	}
	signed, leader, err := a.decode(req.Txs[0])
	if err != nil {
		return nil, fmt.Errorf("height %d: two thirds agreed on a bad subblock: %w", req.Height, err)
	}
	// Also here: when a leader shows others another subblock, they agree on one that was
	// never proposed to this node.
	if s.leads(voter(req.ProposerAddress), leader) {
		a.observe(signed)
	}
	b.sub, b.leader, b.proof.signature = signed.Subblock, leader, signed.Signature
	results := make([]*abci.ExecTxResult, len(req.Txs))
	results[0] = &abci.ExecTxResult{}
	for i, tx := range req.Txs[1:] {
		b.proof.changes = append(b.proof.changes, bytes.Clone(tx))
		results[i+1] = &abci.ExecTxResult{Code: 1}
		if c, err := operators.DecodeSignedChange(tx); err == nil {
			results[i+1].Code = 0
			b.changes = append(b.changes, c)
		}
	}
	b.outcome, err = s.advance(b.sub, signed.Hash(), b.changes, voter(req.ProposerAddress), req.DecidedLastCommit, a.cfg.Timeouts)
	if err != nil {
		return nil, err
	}
	if s.height > 0 {
		a.tallies.count(s, req.DecidedLastCommit)
	}
	for i, err := range b.refused {
		if err != nil {
			a.cfg.Metrics.ChangeWithoutEffect()
			a.log.Warn("Agreed change has no effect", "height", req.Height, "change", &b.changes[i].Change, "err", err)
		}
	}
	for _, m := range req.Misbehavior {
		v := operators.VoteEvidence{
			Kind: m.Type.String(), Operator: s.operator(voter(m.Validator.Address)), Address: common.BytesToAddress(m.Validator.Address), Height: uint64(m.Height),
			Time: uint64(m.Time.Unix()), Power: uint64(m.Validator.Power),
		}
		a.log.Error("Operator voted twice", "operator", v.Operator, "kind", v.Kind, "height", v.Height)
		if err := a.pool.AddVotes(v); err != nil {
			a.log.Error("Evidence is not kept", "err", err)
		}
	}
	a.block = b
	hash := bytes.Clone(b.state.hash[:])
	return &abci.ResponseFinalizeBlock{TxResults: results, ValidatorUpdates: b.updates, AppHash: hash}, nil
}

// Commit hands the agreed subblock to the machine. CometBFT has saved the block, its votes,
// and what FinalizeBlock answered: it needs them when the process ends between the ledger's
// write here and its own.
func (a *app) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	b := a.block
	if b == nil {
		return nil, errors.New("commit without a block")
	}
	seen, err := a.commit(b)
	if err != nil {
		err = fmt.Errorf("commit of height %d (subblock %d of slot %d): %w", b.state.height, b.sub.Index, b.sub.Slot, err)
		a.fatal(err)
		a.giveUp()
		return nil, err
	}
	a.block = nil
	s := b.state
	if b.sub.Last() {
		a.durable.Store(s.height)
	}
	a.mu.Lock()
	a.state = s
	a.mu.Unlock()
	a.changes.committed(s.set, s.set.Slot(), b.changes)
	for i := range b.inForce {
		a.log.Warn("Change is in force", "height", s.height, "slot", b.sub.Slot, "change", &b.inForce[i])
	}
	if slices.ContainsFunc(b.inForce, func(c operators.Change) bool { return c.Kind == operators.JoinChain || c.Kind == operators.LeaveChain }) {
		if err := a.machine.SetChains(s.set.Chains()); err != nil {
			a.log.Error("Chains of the set that this operator does not serve", "err", err)
		}
	}
	var ready []sequence.ChainID
	if !a.cfg.NoReadiness {
		ready = quorumReady(storedVotes(a.stores.blocks.LoadBlockExtendedCommit(int64(s.height)), s.last))
	}
	a.ready.Store(&ready)
	a.pace(s, b.began)
	a.cfg.Metrics.Committed(s.height, seen.Round, a.cfg.Clock.Since(b.began))
	a.cfg.Metrics.Shortened(s.shortened())
	a.tellVotes(b, seen)
	return &abci.ResponseCommit{RetainHeight: a.retain(s)}, nil
}

func (a *app) commit(b *block) (seen *types.Commit, err error) {
	defer a.watch.enter("Commit")()
	if err := a.commitCtx.Err(); err != nil {
		return nil, err
	}
	seen = a.stores.blocks.LoadSeenCommit(int64(b.state.height))
	if seen == nil {
		return nil, errors.New("its votes are not stored")
	}
	meta := a.stores.blocks.LoadBlockMeta(int64(b.state.height))
	if meta == nil {
		return nil, errors.New("its header is not stored")
	}
	votes, err := seen.ToProto().Marshal()
	if err == nil {
		b.proof.header = &meta.Header
		votes, err = b.proof.appendTo(votes)
	}
	if err != nil {
		return nil, fmt.Errorf("its votes: %w", err)
	}
	if b.sub.Index == 0 { // also when the slot before was given up
		a.votes = nil
	}
	a.votes = append(a.votes, votes)
	var agreement []byte
	if b.sub.Last() {
		if agreement, err = b.state.encode(a.votes); err != nil {
			return nil, err
		}
		a.votes = nil
	}
	if w, ok := a.machine.(rotation.Witness); ok {
		w.Witness(rotation.Agreed{
			Turn: rotation.Turn{Height: b.state.height, Leader: b.leader}, Round: int(seen.Round), Missed: a.current().missed(seen.Round),
		})
	}
	return seen, a.machine.Commit(a.commitCtx, b.sub, agreement)
}

// missed are the leaders of the next height's rounds before the given one.
func (s *state) missed(round int32) []common.Address {
	if round == 0 {
		return nil
	}
	var out []common.Address
	vals := s.now.Copy()
	for range min(int(round), vals.Size()) {
		if o := s.operator(proposer(vals)); !slices.Contains(out, o) {
			out = append(out, o)
		}
		vals.IncrementProposerPriority(1)
	}
	return out
}

// giveUp is the end of a commit that failed. CometBFT's consensus takes an error for a
// panic of its own that it survives; but when blocks are being synced that ends the
// process, so the sync's goroutine ends here, once the rotation is being stopped.
func (a *app) giveUp() {
	if a.phase() == syncing {
		<-a.turnCtx.Done()
		runtime.Goexit()
	}
}

// maxWait is the longest time between two heights, however late the next is due.
const maxWait = time.Hour

// pace sets when the next height begins. CometBFT reads it in the goroutine that has
// called Commit: it counts TimeoutCommit from where the votes were there.
func (a *app) pace(s *state, began time.Time) {
	t := a.cfg.Timeouts
	lead := t.Lead
	if a.skips(s, proposer(s.now)) {
		// The turn of an operator that does not deliver begins early enough to be over when the
		// subblock is due, with two rounds of votes for nothing, so that the second leader is on
		// time.
		lead += t.Short + t.Vote + t.Margin
	}
	a.comet.Consensus.TimeoutCommit = min(max(0, a.machine.Due(a.quorumReady()).Add(-lead).Sub(began)), maxWait)
	a.mayLead(s, s.height+1)
}

// enterStep sets how long a step of a round may take: CometBFT reads it next, in the same
// goroutine.
func (a *app) enterStep(step string, height int64, round int32) {
	s, t, k := a.current(), a.cfg.Timeouts, a.comet.Consensus
	if uint64(height) != s.height+1 {
		return
	}
	vals := s.now
	if round > 0 {
		vals = vals.CopyIncrementProposerPriority(round)
	}
	leader := proposer(vals)
	gone := leader != a.self && a.present.gone(s.operator(leader))
	switch step {
	case stepPropose:
		wait := grown(t.Propose, round)
		switch {
		case gone:
			wait = t.Gone
		case s.turns[leader].Short && round == 0:
			wait = t.Short
		}
		k.TimeoutPropose, k.TimeoutProposeDelta = wait, 0
	case stepPrecommit:
		k.TimeoutPrecommit, k.TimeoutPrecommitDelta = grown(t.Vote, round), 0
		if gone {
			k.TimeoutPrecommit = t.Gone
		}
	case stepPrevote:
		k.TimeoutPrevote, k.TimeoutPrevoteDelta = grown(t.Vote, round), 0
	}
}

// grown is a timeout in a later round. Each round is longer than the one before, so that a set
// that is slow for once comes to an agreement; but not without an end: when leaders have
// nothing to propose for some minutes, thousands of rounds go by, and the set must be back
// at once afterwards.
func grown(timeout time.Duration, round int32) time.Duration {
	return timeout + time.Duration(min(max(round, 0), 40))*timeout/4
}

// skips says whether a turn is not waited for as long as others: the leader is known to
// be gone, or has not delivered for a while.
func (a *app) skips(s *state, leader voter) bool {
	return s.turns[leader].Short || (leader != a.self && a.present.gone(s.operator(leader)))
}

// mayLead has the machine build the subblock of a height ahead if this operator will
// probably lead it: it is the first leader that is not skipped.
func (a *app) mayLead(s *state, height uint64) {
	if a.signer == nil {
		return
	}
	vals := s.voters(height).Copy()
	for range vals.Size() {
		switch v := proposer(vals); {
		case v == a.self:
			a.machine.Lead(a.quorumReady())
			return
		case !a.skips(s, v):
			return
		}
		vals.IncrementProposerPriority(1)
	}
}

// retainEvery is how often old heights are deleted: it costs a synced write.
const retainEvery = 100

// retain is the lowest height that is kept.
func (a *app) retain(s *state) int64 {
	if s.height%retainEvery != 0 || s.height <= a.cfg.KeepHeights {
		return 0
	}
	// From the boundary that Info reports, everything is needed.
	keep := min(s.height-a.cfg.KeepHeights, a.durable.Load())
	if a.cfg.Retain != nil {
		keep = min(keep, a.cfg.Retain())
	}
	return int64(keep)
}
