package executor_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/holiman/uint256"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// The scene of the table: chain 901 has 1 s blocks, 902 has 2 s blocks, interop activates
// at 1000 on both, and messages live 500 s. Every case executes one message on 902.
//
//	rule                    accepted                      refused
//	dependency set          901, self                     unknown, outside the set, above 64 bits, executing chain outside
//	executing activation    first block after             activation block, before, unscheduled
//	initiating activation   first block after             activation block, before
//	timestamp               same, earlier                 later
//	expiry                  exactly the window            one more
//	exact place             right                         block, log, time, chain, origin, payload
//	declared                alone, among others, split    missing, other, elsewhere, malformed
//	order                   earlier, same transaction     later, itself, same place in an unopened block
const (
	chainA, chainB, stranger = chainID(901), chainID(902), chainID(903)
	activation               = uint64(1000)
	window                   = uint64(500)
)

type scene struct {
	history *memory
	cfg     executor.Config
	slot    uint64
	parents map[chainID]eth.BlockID
	// sent is the message that the case executes, unless it changes it.
	sent messages.Message
	// before is applied first.
	before map[chainID][]executor.Tx
	list   *types.AccessList // nil: declares what is executed
}

// newScene has a block on each chain with three logs at time sent, and opens slot.
func newScene(t require.TestingT, sent, slot uint64) *scene {
	s := &scene{history: newMemory(), slot: slot, parents: map[chainID]eth.BlockID{}, before: map[chainID][]executor.Tx{}}
	for _, c := range []chainID{chainA, chainB, stranger} {
		b := ref(c, 50, sent, 0)
		logs := []*types.Log{plain(0, "zero"), plain(1, "one"), plain(2, "two")}
		s.history.add(c, b, logs...)
		if c == chainA {
			s.sent = identify(c, b, logs[1])
		}
		head := ref(c, 60, slot-1, 0)
		s.history.add(c, head)
		s.parents[c] = head.ID()
	}
	s.cfg = executor.Config{
		DependencySet: set(t, window, chainA, chainB),
		Chains: []executor.ChainConfig{
			{ID: chainA, BlockTime: 1, InteropTime: ptr(activation)},
			{ID: chainB, BlockTime: 2, InteropTime: ptr(activation)},
			{ID: stranger, BlockTime: 1, InteropTime: ptr(activation)},
		},
		History: s.history,
	}
	return s
}

func (s *scene) run(t *testing.T, on chainID) error {
	x := newExecutor(t, s.cfg)
	slot := x.Begin(sequence.Slot(s.slot), s.parents)
	index := uint(0)
	for c, txs := range s.before {
		require.NoError(t, slot.Apply(c, txs))
		if c == on {
			for _, tx := range txs {
				index += uint(len(tx.Logs))
			}
		}
	}
	list := declare(s.sent)
	if s.list != nil {
		list = *s.list
	}
	return slot.Apply(on, []executor.Tx{{Hash: common.Hash{7}, AccessList: list, Logs: []*types.Log{executing(index, s.sent)}}})
}

func TestRules(t *testing.T) {
	t.Parallel()
	type rule = executor.Rule
	id := func(s *scene) *messages.Identifier { return &s.sent.Identifier }
	cases := []struct {
		name       string
		sent, slot uint64 // 0: 1400, 1500
		on         chainID
		change     func(t *testing.T, s *scene)
		want       rule // 0: accepted
	}{
		{name: "from another chain"},
		{name: "from itself", on: chainA},
		{name: "unknown chain", change: func(t *testing.T, s *scene) { id(s).ChainID = chainID(7).ID() }, want: executor.RuleDependencySet},
		{name: "configured chain outside the set", change: func(t *testing.T, s *scene) { id(s).ChainID = stranger.ID() }, want: executor.RuleDependencySet},
		{name: "chain of the set without history here", change: func(t *testing.T, s *scene) {
			s.cfg.DependencySet = set(t, window, chainA, chainB, 7)
			id(s).ChainID = chainID(7).ID()
		}, want: executor.RuleDependencySet},
		{name: "chain ID above 64 bits", change: func(t *testing.T, s *scene) {
			big := new(uint256.Int).Lsh(uint256.NewInt(1), 64)
			id(s).ChainID = eth.ChainID(*big.Add(big, uint256.NewInt(uint64(chainA))))
		}, want: executor.RuleDependencySet},
		{name: "executed outside the set", on: stranger, want: executor.RuleDependencySet},

		{name: "executed right after activation", sent: 1001, slot: 1002},
		{name: "executed in the activation block", sent: 1000, slot: 1000, want: executor.RuleExecutingActivation},
		{name: "executed in an activation block that is not aligned", sent: 1001, slot: 1001, want: executor.RuleExecutingActivation},
		{name: "executed before activation", sent: 900, slot: 999, want: executor.RuleExecutingActivation},
		{name: "executed without interop", change: func(t *testing.T, s *scene) { s.cfg.Chains[1].InteropTime = nil }, want: executor.RuleExecutingActivation},
		{name: "activation beyond the end of time", change: func(t *testing.T, s *scene) { s.cfg.Chains[1].InteropTime = ptr(uint64(math.MaxUint64)) }, want: executor.RuleExecutingActivation},

		{name: "initiated right after activation", sent: 1001, slot: 1100},
		{name: "initiated in the activation block", sent: 1000, slot: 1100, want: executor.RuleInitiatingActivation},
		{name: "initiated before activation", sent: 999, slot: 1100, want: executor.RuleInitiatingActivation},
		{name: "initiated without interop", change: func(t *testing.T, s *scene) { s.cfg.Chains[0].InteropTime = nil }, want: executor.RuleInitiatingActivation},

		{name: "initiated later", change: func(t *testing.T, s *scene) { id(s).Timestamp = 1501 }, want: executor.RuleTimestamp},
		{name: "as old as the window", sent: 1100, slot: 1600},
		{name: "older than the window", sent: 1100, slot: 1601, want: executor.RuleExpiry},

		{name: "other block", change: func(t *testing.T, s *scene) { id(s).BlockNumber++ }, want: executor.RuleExists},
		{name: "block behind the parent", change: func(t *testing.T, s *scene) { id(s).BlockNumber = 61 }, want: executor.RuleExists},
		{name: "other log", change: func(t *testing.T, s *scene) { id(s).LogIndex = 2 }, want: executor.RuleExists},
		{name: "log that is not there", change: func(t *testing.T, s *scene) { id(s).LogIndex = 3 }, want: executor.RuleExists},
		{name: "other time", change: func(t *testing.T, s *scene) { id(s).Timestamp-- }, want: executor.RuleExists},
		{name: "other chain", change: func(t *testing.T, s *scene) { id(s).ChainID = chainB.ID(); id(s).BlockNumber = 51 }, want: executor.RuleExists},
		{name: "other origin", change: func(t *testing.T, s *scene) { id(s).Origin[0]++ }, want: executor.RuleExists},
		{name: "other payload", change: func(t *testing.T, s *scene) { s.sent.PayloadHash[0]++ }, want: executor.RuleExists},

		{name: "not declared", change: func(t *testing.T, s *scene) { s.list = &types.AccessList{} }, want: executor.RuleDeclared},
		{name: "no access list", change: func(t *testing.T, s *scene) { s.list = new(types.AccessList) }, want: executor.RuleDeclared},
		{name: "declared under another address", change: func(t *testing.T, s *scene) {
			l := declare(s.sent)
			l[0].Address[0]++
			s.list = &l
		}, want: executor.RuleDeclared},
		{name: "another one declared", change: func(t *testing.T, s *scene) {
			other := s.sent
			other.Identifier.LogIndex = 2
			s.list = ptr(declare(other))
		}, want: executor.RuleDeclared},
		{name: "checksum without its place", change: func(t *testing.T, s *scene) {
			l := declare(s.sent)
			l[0].StorageKeys = l[0].StorageKeys[1:]
			s.list = &l
		}, want: executor.RuleDeclared},
		{name: "right checksum at another place", change: func(t *testing.T, s *scene) {
			l, other := declare(s.sent), s.sent
			other.Identifier.LogIndex = 2
			l[0].StorageKeys[0] = declare(other)[0].StorageKeys[0]
			s.list = &l
		}, want: executor.RuleDeclared},
		{name: "declared with a trailing entry", change: func(t *testing.T, s *scene) {
			l := declare(s.sent)
			l[0].StorageKeys = append(l[0].StorageKeys, common.Hash{1})
			s.list = &l
		}, want: executor.RuleDeclared},
		{name: "declared among others", change: func(t *testing.T, s *scene) {
			other := s.sent
			other.Identifier.LogIndex = 2
			s.list = ptr(append(types.AccessList{{Address: common.Address{1}, StorageKeys: []common.Hash{{9}}}}, declare(other, s.sent, other)...))
		}},
		{name: "declared over two entries of the list", change: func(t *testing.T, s *scene) {
			l := declare(s.sent)
			keys := l[0].StorageKeys
			s.list = &types.AccessList{{Address: predeploys.CrossL2InboxAddr, StorageKeys: keys[:1]}, {Address: predeploys.CrossL2InboxAddr, StorageKeys: keys[1:]}}
		}},

		{name: "earlier in the slot", change: func(t *testing.T, s *scene) { s.initiate(chainA, 61, plain(0, "now")) }},
		{name: "earlier in the slot on the same chain", on: chainA, change: func(t *testing.T, s *scene) { s.initiate(chainA, 61, plain(0, "now")) }},
		{name: "earlier in the slot, other payload", change: func(t *testing.T, s *scene) {
			s.initiate(chainA, 61, plain(0, "now"))
			s.sent.PayloadHash[3]++
		}, want: executor.RuleExists},
		{name: "later in the slot", change: func(t *testing.T, s *scene) {
			s.initiate(chainA, 61, plain(0, "now"))
			s.before = nil
		}, want: executor.RuleOrder},
		{name: "itself", on: chainA, change: func(t *testing.T, s *scene) {
			s.sent = messages.Message{Identifier: messages.Identifier{BlockNumber: 61, Timestamp: 1500, ChainID: chainA.ID()}}
		}, want: executor.RuleOrder},
		{name: "other block at the slot's time", change: func(t *testing.T, s *scene) {
			s.initiate(chainA, 61, plain(0, "now"))
			id(s).BlockNumber = 62
		}, want: executor.RuleExists},
		{name: "block of the slot at another time", change: func(t *testing.T, s *scene) {
			s.initiate(chainA, 61, plain(0, "now"))
			id(s).Timestamp = 1499
		}, want: executor.RuleExists},
		{name: "chain without a block in the slot", change: func(t *testing.T, s *scene) {
			delete(s.parents, chainA)
			id(s).Timestamp, id(s).BlockNumber = 1500, 61
		}, want: executor.RuleExists},
		{name: "older message of a chain without a block in the slot", change: func(t *testing.T, s *scene) { delete(s.parents, chainA) }},

		{name: "history incomplete", change: func(t *testing.T, s *scene) { s.history.incomplete[chainA] = true }, want: executor.RuleHistory},
		{name: "history of another chain incomplete", change: func(t *testing.T, s *scene) { s.history.incomplete[chainB] = true }},
		{name: "no history", change: func(t *testing.T, s *scene) {
			delete(s.parents, chainA)
			s.history.blocks[chainA] = nil
		}, want: executor.RuleHistory},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.slot == 0 {
				tc.sent, tc.slot = 1400, 1500
			}
			if tc.on == 0 {
				tc.on = chainB
			}
			s := newScene(t, tc.sent, tc.slot)
			if tc.change != nil {
				tc.change(t, s)
			}
			err := s.run(t, tc.on)
			if tc.want == 0 {
				require.NoError(t, err)
				return
			}
			me := refusedBy(t, err, tc.want)
			require.Equal(t, tc.on, me.Chain)
			require.Equal(t, sequence.Slot(tc.slot), me.Slot)
			require.Equal(t, common.Hash{7}, me.Tx)
			require.Equal(t, s.sent.Checksum(), me.Message.Checksum)
			require.Contains(t, err.Error(), tc.want.String())
			require.NotContains(t, err.Error(), "\n")
			for r := executor.RuleDependencySet; r <= executor.RuleHistory; r++ {
				require.Equal(t, r == tc.want, errors.Is(err, r), "%s", r)
			}
		})
	}
}

// initiate applies a log to the chain's open block and makes it the message to execute.
func (s *scene) initiate(chain chainID, number uint64, l *types.Log) {
	s.before[chain] = append(s.before[chain], executor.Tx{Logs: []*types.Log{l}})
	s.sent = identify(chain, eth.BlockRef{Number: number, Time: s.slot}, l)
}

// A log of the CrossL2Inbox that is not an ExecutingMessage executes nothing; one that
// says it is and cannot be decoded cannot have been declared.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	s := newScene(t, 1400, 1500)
	good := executing(0, s.sent)
	for i, tc := range []struct {
		change func(l *types.Log)
		want   error
	}{
		{func(l *types.Log) { l.Data = l.Data[:159] }, executor.RuleDeclared},
		{func(l *types.Log) { l.Data = append([]byte{}, l.Data...); l.Data[32]++ }, executor.RuleDeclared},
		{func(l *types.Log) { l.Data = nil }, executor.RuleDeclared},
		{func(l *types.Log) { l.Topics = l.Topics[:1] }, nil},
		{func(l *types.Log) { l.Topics = []common.Hash{{1}, {2}} }, nil},
		{func(l *types.Log) { l.Address[0]++; l.Data = nil }, nil},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			l := *good
			tc.change(&l)
			slot := newExecutor(t, s.cfg).Begin(1500, s.parents)
			err := slot.Apply(chainB, []executor.Tx{{AccessList: declare(s.sent), Logs: []*types.Log{&l}}})
			if tc.want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, tc.want)
			}
		})
	}
}

// A deposit may initiate a message and never executes one.
func TestDeposits(t *testing.T) {
	t.Parallel()
	s := newScene(t, 1400, 1500)
	slot := newExecutor(t, s.cfg).Begin(1500, s.parents)
	deposit := types.NewTx(&types.DepositTx{})
	l := plain(0, "deposited")
	require.NoError(t, slot.Apply(chainA, []executor.Tx{executor.NewTx(deposit, []*types.Log{l})}))
	m := identify(chainA, eth.BlockRef{Number: 61, Time: 1500}, l)
	refusedBy(t, slot.Apply(chainB, []executor.Tx{executor.NewTx(deposit, []*types.Log{executing(0, m)})}), executor.RuleDeclared)
	user := types.NewTx(&types.DynamicFeeTx{AccessList: declare(m)})
	require.NoError(t, slot.Apply(chainB, []executor.Tx{executor.NewTx(user, []*types.Log{executing(0, m)})}))
}

// A→B→C→A in one slot, and several messages in one transaction, one of them initiated by
// the transaction itself.
func TestChainOfMessages(t *testing.T) {
	t.Parallel()
	s := newScene(t, 1400, 1500)
	s.cfg.DependencySet = set(t, window, chainA, chainB, stranger)
	slot := newExecutor(t, s.cfg).Begin(1500, s.parents)
	now := eth.BlockRef{Number: 61, Time: 1500}
	apply := func(c chainID, list types.AccessList, logs ...*types.Log) {
		require.NoError(t, slot.Apply(c, []executor.Tx{{AccessList: list, Logs: logs}}))
	}
	start := plain(0, "start")
	apply(chainA, nil, start)
	toB := identify(chainA, now, start)
	onB := executing(0, toB)
	apply(chainB, declare(toB), onB)
	toC := identify(chainB, now, onB) // an executing log is an initiating message too
	onC := executing(0, toC)
	apply(stranger, declare(toC, toB), onC, executing(1, toB), plain(2, "back"))
	back := identify(stranger, now, plain(2, "back"))
	own := plain(2, "own")
	toSelf := identify(chainA, now, own)
	apply(chainA, declare(back, toSelf, back), executing(1, back), own, executing(3, toSelf), executing(4, back))
}

func TestCheckAccessList(t *testing.T) {
	t.Parallel()
	in := func(chain chainID, t, timeout uint64) messages.ExecutingDescriptor {
		return messages.ExecutingDescriptor{ChainID: chain.ID(), Timestamp: t, Timeout: timeout}
	}
	for _, tc := range []struct {
		name   string
		change func(s *scene)
		in     messages.ExecutingDescriptor
		level  safety.Level
		keys   func(keys []common.Hash) []common.Hash
		want   error
		code   int
	}{
		{name: "good", in: in(chainB, 1500, 0)},
		{name: "good, local unsafe", in: in(chainB, 1500, 0), level: safety.LocalUnsafe},
		{name: "nothing declared", in: in(chainB, 1500, 0), keys: func([]common.Hash) []common.Hash { return nil }},
		{name: "level", in: in(chainB, 1500, 0), level: safety.Finalized, want: interop.ErrOutOfScope, code: -321100},
		{name: "expires before the timeout", in: in(chainB, 1500, 401), want: executor.RuleExpiry, code: -320600},
		{name: "expires at the timeout", in: in(chainB, 1500, 400)},
		{name: "timeout beyond the end of time", in: in(chainB, 1500, math.MaxUint64), want: executor.RuleExpiry, code: -320600},
		{name: "expired", in: in(chainB, 1901, 0), want: executor.RuleExpiry, code: -320600},
		{name: "future", in: in(chainB, 1399, 0), want: executor.RuleTimestamp, code: -320600},
		{name: "executing chain", in: in(stranger, 1500, 0), want: executor.RuleDependencySet, code: -320501},
		{name: "initiating chain", in: in(chainB, 1500, 0), change: func(s *scene) { s.sent.Identifier.ChainID = chainID(7).ID() }, want: executor.RuleDependencySet, code: -320501},
		{name: "wrong", in: in(chainB, 1500, 0), change: func(s *scene) { s.sent.PayloadHash[1]++ }, want: executor.RuleExists},
		{name: "history", in: in(chainB, 1500, 0), change: func(s *scene) { s.history.blocks[chainA] = nil }, want: executor.RuleHistory, code: -320400},
		{name: "second one wrong", in: in(chainB, 1500, 0), keys: func(k []common.Hash) []common.Hash {
			bad := k[1]
			bad[9]++
			return append(k, k[0], bad)
		}, want: executor.RuleExists},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, 1400, 1500)
			if tc.change != nil {
				tc.change(s)
			}
			keys := declare(s.sent)[0].StorageKeys
			if tc.keys != nil {
				keys = tc.keys(keys)
			}
			if tc.level == "" {
				tc.level = safety.CrossUnsafe
			}
			err := newExecutor(t, s.cfg).CheckAccessList(keys, tc.level, tc.in)
			if tc.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tc.want)
			if tc.code != 0 {
				require.Equal(t, tc.code, interop.GetErrorCode(err))
			}
		})
	}
	s := newScene(t, 1400, 1500)
	keys := declare(s.sent)[0].StorageKeys
	require.Error(t, newExecutor(t, s.cfg).CheckAccessList(keys[:1], safety.CrossUnsafe, in(chainB, 1500, 0)))
}

func TestNew(t *testing.T) {
	t.Parallel()
	good := func() executor.Config {
		return executor.Config{DependencySet: set(t, 1, chainA), Chains: []executor.ChainConfig{{ID: chainA, BlockTime: 1}}, History: newMemory()}
	}
	newExecutor(t, good())
	for want, change := range map[string]func(*executor.Config){
		"no dependency set":             func(c *executor.Config) { c.DependencySet = nil },
		"no message history":            func(c *executor.Config) { c.History = nil },
		"chain 901 is configured twice": func(c *executor.Config) { c.Chains = append(c.Chains, c.Chains[0]) },
		"chain 901: block time is 0":    func(c *executor.Config) { c.Chains[0].BlockTime = 0 },
	} {
		cfg := good()
		change(&cfg)
		_, err := executor.New(cfg)
		require.ErrorContains(t, err, want)
	}
}
