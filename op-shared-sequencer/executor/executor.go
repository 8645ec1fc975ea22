// Package executor decides whether executing messages are valid. It keeps the logs of
// the slot under construction in the order in which they were made over all chains,
// looks into the chains' history for older ones, and applies the rules of the OP Stack
// interop specification (see Rule). Leader and followers run the same code on the same
// order; its verdicts equal those of upstream's op-supernode on the blocks that result,
// and are stricter where RuleDeclared and RuleOrder say so.
//
// It reads no clock, starts no goroutine that outlives a call and keeps nothing in memory
// that grows with the history.
package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"golang.org/x/sync/errgroup"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

type blockID = eth.BlockID

var (
	// ErrNoSuchMessage: the history is complete and has no such log at that place.
	ErrNoSuchMessage = errors.New("no such message")
	// ErrHistoryIncomplete: the history of a chain does not reach from the oldest message
	// that can still be executed to the head asked for. Executing messages of the chain
	// are refused until it does (RuleHistory).
	ErrHistoryIncomplete = errors.New("message history is not complete")
	// ErrNotLinked: a block does not follow any block of the history. It has to be synced.
	ErrNotLinked = errors.New("block does not follow the message history")
	// ErrUnknownChain: a chain this executor was not configured with.
	ErrUnknownChain = errors.New("chain is not configured")
	// ErrMisuse: the caller broke the contract of a method, e.g. left out a transaction.
	ErrMisuse = errors.New("executor misused")
)

// ChainConfig is what the executor must know of a chain.
type ChainConfig struct {
	ID        sequence.ChainID
	BlockTime uint64 // seconds, at least 1
	// InteropTime is the timestamp interop activates at, nil if it is not scheduled.
	InteropTime *uint64
	// Genesis is the first block of the rollup. It holds no messages.
	Genesis     eth.BlockID
	GenesisTime uint64 // seconds
}

// History is the logs of the chains' agreed blocks. Reads may run concurrently with
// each other and with appends.
type History interface {
	// Contains says whether a log is in the chain that ends in head, head included:
	// nil if it is at exactly that place with that checksum, ErrNoSuchMessage if not,
	// ErrHistoryIncomplete or any other error if that is not known.
	Contains(chain sequence.ChainID, head eth.BlockID, query messages.ContainsQuery) error
	// Head is the newest block, false if there is none.
	Head(chain sequence.ChainID) (eth.BlockRef, bool)
	// Append adds a block with its logs, in order. It does nothing if the block is there,
	// and first takes back the blocks that it replaces. ErrNotLinked if the block's parent
	// is not in the history.
	Append(ctx context.Context, chain sequence.ChainID, block eth.BlockRef, logs []Log) error
}

// Log is what is kept of a log, by its place in the block: the hash that a message which
// names it is compared with, and the message it executes itself.
type Log struct {
	Executes *messages.ExecutingMessage // nil: none

	log   *types.Log
	hash  common.Hash // zero: not worked out yet
	names common.Hash // the Hash of the log that Executes names
}

// Hash is that of origin and payload: messaging.md, "Message Identifier", "Message Payload".
// Not to be called concurrently.
func (l *Log) Hash() common.Hash {
	if l.hash == (common.Hash{}) {
		l.hash = messages.LogToLogHash(l.log)
	}
	return l.hash
}

// Logs are the logs of a block's receipts, in order.
func Logs(receipts types.Receipts) []Log {
	var logs []Log
	for _, r := range receipts {
		for _, l := range r.Logs {
			kept, _ := newLog(l)
			logs = append(logs, kept)
		}
	}
	return logs
}

// newLog also says why a log that pretends to execute a message does not, as upstream sees it.
func newLog(l *types.Log) (Log, error) {
	out := Log{log: l}
	m, err := messages.MessageFromLog(l)
	if err == nil && m != nil {
		args := m.ToCheckSumArgs()
		executes := messageOf(args.Access())
		out.Executes, out.names = &executes, args.LogHash
	}
	return out, err
}

// Source is where a chain's canonical blocks come from: its engine.
// A History is filled from it.
type Source interface {
	// Head is the head of the chain.
	Head(ctx context.Context) (eth.BlockRef, error)
	// Block is the canonical block at a height.
	Block(ctx context.Context, number uint64) (eth.BlockRef, error)
	// Receipts are the receipts of a block by its hash, in order.
	Receipts(ctx context.Context, hash common.Hash) (types.Receipts, error)
}

// Config is what an Executor is made of.
type Config struct {
	DependencySet depset.DependencySet
	// Chains are the chains this node has a history of. Messages from or to chains of the
	// dependency set that are not among them are refused, as by op-supernode.
	Chains  []ChainConfig
	History History
}

// Executor judges messages. Its methods may be called concurrently.
type Executor struct {
	depset  depset.DependencySet
	expiry  uint64 // seconds
	chains  map[sequence.ChainID]*ChainConfig
	history History

	failsafe atomic.Bool
}

// New makes an executor.
func New(cfg Config) (*Executor, error) {
	if cfg.DependencySet == nil {
		return nil, errors.New("executor: no dependency set")
	}
	if cfg.History == nil {
		return nil, errors.New("executor: no message history")
	}
	x := &Executor{
		depset: cfg.DependencySet, expiry: cfg.DependencySet.MessageExpiryWindow(),
		chains: make(map[sequence.ChainID]*ChainConfig, len(cfg.Chains)), history: cfg.History,
	}
	for _, c := range cfg.Chains {
		if err := c.Check(); err != nil {
			return nil, fmt.Errorf("executor: %w", err)
		}
		if x.chains[c.ID] != nil {
			return nil, fmt.Errorf("executor: chain %s is configured twice", c.ID)
		}
		x.chains[c.ID] = &c
	}
	return x, nil
}

// Check says whether the configuration can be used.
func (c *ChainConfig) Check() error {
	if c.BlockTime == 0 {
		return fmt.Errorf("chain %s: block time is 0, expected at least 1 s", c.ID)
	}
	return nil
}

// Begin starts the overlay of a slot: no transaction has been applied yet. parents has the
// parent of the block under construction for every chain that has a block in the slot.
// Other chains are read from the history as it stands now.
func (x *Executor) Begin(slot sequence.Slot, parents map[sequence.ChainID]eth.BlockID) *Slot {
	s := &Slot{x: x, slot: slot, open: make(map[sequence.ChainID]*openBlock, len(parents)), heads: make(map[sequence.ChainID]eth.BlockID, len(x.chains))}
	for chain, parent := range parents {
		s.open[chain] = &openBlock{parent: parent, number: parent.Number + 1}
	}
	for chain := range x.chains {
		if b := s.open[chain]; b != nil {
			s.heads[chain] = b.parent
		} else if head, ok := x.history.Head(chain); ok {
			s.heads[chain] = head.ID()
		}
	}
	return s
}

// Commit adds the sealed blocks of a slot to the history, with the logs of the overlay,
// and waits until they are durable. Every chain in sealed must be open in the slot. It is
// idempotent, and after an error it may be called again.
func (x *Executor) Commit(ctx context.Context, s *Slot, sealed map[sequence.ChainID]eth.BlockRef) error {
	for chain, block := range sealed {
		b := s.open[chain]
		if b == nil {
			return fmt.Errorf("%w: commit of slot %d: chain %s has no block in it", ErrMisuse, s.slot, chain)
		}
		if block.Number != b.number || block.ParentHash != b.parent.Hash || block.Time != uint64(s.slot) {
			return fmt.Errorf("%w: commit of slot %d: chain %s: block %s at %d does not follow %s", ErrMisuse, s.slot, chain, block, block.Time, b.parent)
		}
	}
	var group errgroup.Group
	group.SetLimit(8) // each append waits for the disk
	for _, chain := range slices.Sorted(maps.Keys(sealed)) {
		if x.chains[chain] == nil {
			continue // its logs are no messages
		}
		group.Go(func() error {
			return x.history.Append(ctx, chain, sealed[chain], s.open[chain].logs)
		})
	}
	return group.Wait()
}

// SetFailsafe stops or resumes what executes messages, at this operator: CheckAccessList
// refuses all, and blocks that it leads have none. It does not refuse those of other
// leaders, which would stop slots instead of messages: every operator has its own.
func (x *Executor) SetFailsafe(on bool) { x.failsafe.Store(on) }

// Failsafe says whether what executes messages is stopped.
func (x *Executor) Failsafe() bool { return x.failsafe.Load() }

// CheckAccessList says whether every message that a transaction declares could be executed
// by the described block, from what the history holds: for op-geth's transaction pool, with
// the arguments of supervisor_checkAccessList / interop_checkAccessList. entries are the
// storage keys listed for the CrossL2Inbox. With a timeout, the messages must not expire
// before it. Messages of the slot under construction are not seen; a pool has to ask again.
//
// The history holds agreed blocks only, whose messages were all checked, so it serves the
// safety levels local-unsafe and cross-unsafe alike and no other.
func (x *Executor) CheckAccessList(entries []common.Hash, level safety.Level, in messages.ExecutingDescriptor) error {
	if x.Failsafe() {
		return interop.ErrFailsafeEnabled
	}
	if level != safety.LocalUnsafe && level != safety.CrossUnsafe {
		return fmt.Errorf("safety level %q cannot be checked, expected %q or %q: %w", level, safety.LocalUnsafe, safety.CrossUnsafe, interop.ErrOutOfScope)
	}
	id, ok := in.ChainID.Uint64()
	if !ok {
		return fmt.Errorf("executing chain %s: %w", in.ChainID, interop.ErrUnknownChain)
	}
	chain, slot := sequence.ChainID(id), sequence.Slot(in.Timestamp)
	for n := uint32(0); len(entries) > 0; n++ {
		rest, access, err := messages.ParseAccess(entries)
		if err != nil {
			return fmt.Errorf("chain %s slot %d: access %d: %w", chain, slot, n, err)
		}
		entries = rest
		m := messageOf(access)
		initiating, no := x.link(chain, in.Timestamp, &m)
		// link has made sure that the message has not expired at in.Timestamp.
		if no == nil && in.Timeout > x.expiry-(in.Timestamp-m.Timestamp) {
			no = refuse(RuleExpiry, "%d s old, will be older than %d s before the timeout of %d s", in.Timestamp-m.Timestamp, x.expiry, in.Timeout)
		}
		if no == nil {
			head, ok := x.history.Head(initiating)
			if !ok {
				no = &refusal{rule: RuleHistory, reason: fmt.Sprintf("chain %s has no history yet", initiating), cause: errIncomplete}
			} else {
				no = x.lookup(initiating, head.ID(), &m)
			}
		}
		if no != nil {
			return no.at(chain, slot, common.Hash{}, n, &m)
		}
	}
	return nil
}

// errIncomplete is ErrHistoryIncomplete with the upstream error for it.
var errIncomplete = fmt.Errorf("%w: %w", ErrHistoryIncomplete, interop.ErrUninitialized)

func messageOf(a messages.Access) messages.ExecutingMessage {
	return messages.ExecutingMessage{ChainID: a.ChainID, BlockNum: a.BlockNumber, LogIdx: a.LogIndex, Timestamp: a.Timestamp, Checksum: a.Checksum}
}
