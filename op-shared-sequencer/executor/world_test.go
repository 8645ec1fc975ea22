package executor_test

import (
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
)

// draw is where random choices come from: rapid, a fuzzer's bytes, a seed.
type draw interface {
	// intn is in [0, n).
	intn(n int) int
}

func (w *world) chance(d draw, percent int) bool { return d.intn(100) < percent }

// world is a set of chains with everything that ever happened on them, and the reference
// model of the rules: it looks at whole messages and whole lists of logs, and knows neither
// checksums, indices nor the order of the rules.
type world struct {
	activation, expiry uint64
	chains             []*worldChain
	slot               uint64
	salt               uint64
	txs                uint64
	// whole: no chain is ever left out of a slot.
	whole bool
}

type worldChain struct {
	cfg    executor.ChainConfig
	inSet  bool
	blocks []memoryBlock
	// open has the logs of the block under construction, nil if there is none.
	open *memoryBlock
}

// newWorld has genesis blocks at 997; interop activates at 1000, in the middle of a block
// of the second chain.
func newWorld() *world {
	w := &world{activation: 1000, expiry: 12, slot: 997}
	for i, blockTime := range []uint64{1, 2, 1, 1} {
		id := chainID(901 + i)
		genesis := ref(id, 0, 997, 0)
		w.chains = append(w.chains, &worldChain{
			cfg: executor.ChainConfig{
				ID: id, BlockTime: blockTime, InteropTime: &w.activation, Genesis: genesis.ID(), GenesisTime: 997,
			},
			inSet:  i < 3,
			blocks: []memoryBlock{{ref: genesis}},
		})
	}
	return w
}

func (w *world) configs() (out []executor.ChainConfig) {
	for _, c := range w.chains {
		out = append(out, c.cfg)
	}
	return out
}

func (w *world) set() (out []chainID) {
	for _, c := range w.chains {
		if c.inSet {
			out = append(out, c.cfg.ID)
		}
	}
	return append(out, 999) // in the set, and sequenced elsewhere
}

func (w *world) chain(id eth.ChainID) *worldChain {
	for _, c := range w.chains {
		if c.cfg.ID.ID() == id {
			return c
		}
	}
	return nil
}

func (c *worldChain) head() eth.BlockRef { return c.blocks[len(c.blocks)-1].ref }

// begin opens the blocks of the next slot; a chain may be left out.
func (w *world) begin(d draw) map[chainID]eth.BlockID {
	w.slot++
	parents := map[chainID]eth.BlockID{}
	for _, c := range w.chains {
		c.open = nil
		if head := c.head(); w.slot == head.Time+c.cfg.BlockTime || (w.slot > head.Time && (w.slot-head.Time)%c.cfg.BlockTime == 0 && w.chance(d, 50)) {
			if !w.whole && w.chance(d, 4) {
				continue
			}
			w.salt++
			c.open = &memoryBlock{ref: eth.BlockRef{
				Hash: blockHash(c.cfg.ID, head.Number+1, w.salt), Number: head.Number + 1, ParentHash: head.Hash, Time: w.slot,
			}}
			parents[c.cfg.ID] = head.ID()
		}
	}
	return parents
}

func (w *world) openChains() (out []*worldChain) {
	for _, c := range w.chains {
		if c.open != nil {
			out = append(out, c)
		}
	}
	return out
}

// seal ends the slot.
func (w *world) seal() map[chainID]eth.BlockRef {
	sealed := map[chainID]eth.BlockRef{}
	for _, c := range w.openChains() {
		c.blocks = append(c.blocks, *c.open)
		sealed[c.cfg.ID] = c.open.ref
		c.open = nil
	}
	return sealed
}

// goBack takes all chains back to a slot, as an L1 reorg does.
func (w *world) goBack(slot uint64) {
	for _, c := range w.chains {
		for len(c.blocks) > 1 && c.head().Time > slot {
			c.blocks = c.blocks[:len(c.blocks)-1]
		}
		c.open = nil
	}
	w.slot = slot
}

// worldTx is a transaction with what the model has to know of it.
type worldTx struct {
	chain     *worldChain
	tx        executor.Tx
	messages  map[int]messages.Message // by log of the transaction
	declared  []messages.Message
	malformed bool
}

// makeTx makes a transaction of up to four logs on an open chain; about one message in
// bad percent is wrong.
func (w *world) makeTx(d draw, bad int) *worldTx {
	open := w.openChains()
	if len(open) == 0 {
		return nil
	}
	w.txs++
	chain := open[d.intn(len(open))]
	if !chain.inSet && !w.chance(d, 20) {
		chain = open[0]
	}
	t := &worldTx{chain: chain, messages: map[int]messages.Message{}}
	t.tx.Hash = crypto.Keccak256Hash(fmt.Appendf(nil, "tx %d", w.txs))
	var undeclared bool
	for i := range 1 + d.intn(4) {
		index := uint(len(t.chain.open.logs) + i)
		if w.chance(d, 40) {
			t.tx.Logs = append(t.tx.Logs, plain(index, fmt.Sprintf("%d/%d", w.txs, d.intn(2))))
			continue
		}
		m := w.pick(d, t)
		if w.chance(d, bad) {
			if d.intn(6) == 0 {
				undeclared = true
			} else {
				w.spoil(d, &m, t)
			}
		}
		t.messages[i] = m
		t.declared = append(t.declared, m)
		t.tx.Logs = append(t.tx.Logs, executing(index, m))
	}
	if undeclared && len(t.declared) > 0 {
		at := d.intn(len(t.declared))
		t.declared = append(t.declared[:at:at], t.declared[at+1:]...)
	}
	if w.chance(d, 10) {
		t.declared = append(t.declared, w.pick(d, t)) // declared, not executed
	}
	t.tx.AccessList = declare(t.declared...)
	switch d.intn(12) {
	case 0: // spread over several entries
		keys := t.tx.AccessList[0].StorageKeys
		at := d.intn(len(keys) + 1)
		t.tx.AccessList = types.AccessList{
			{Address: predeploys.CrossL2InboxAddr, StorageKeys: keys[:at]}, {Address: common.Address{1}, StorageKeys: []common.Hash{{1}}},
			{Address: predeploys.CrossL2InboxAddr, StorageKeys: keys[at:]},
		}
	case 1:
		if w.chance(d, bad) {
			t.tx.AccessList[0].StorageKeys = append(t.tx.AccessList[0].StorageKeys, common.Hash{1})
			t.malformed = true
		}
	}
	return t
}

// pick chooses a log that exists, mostly a recent one: of the slot, the transaction
// itself, or of a block.
func (w *world) pick(d draw, t *worldTx) messages.Message {
	for range 10 {
		c := w.chains[d.intn(3)]
		if w.chance(d, 3) {
			c = w.chains[len(w.chains)-1]
		}
		block := c.open
		logs := []*types.Log(nil)
		if block != nil {
			logs = block.logs
			if c == t.chain {
				logs = append(logs[:len(logs):len(logs)], t.tx.Logs...)
			}
		}
		if len(logs) == 0 || w.chance(d, 50) {
			block = &c.blocks[max(0, len(c.blocks)-1-d.intn(1+d.intn(12)))]
			logs = block.logs
		}
		if len(logs) > 0 {
			return identify(c.cfg.ID, block.ref, logs[d.intn(len(logs))])
		}
	}
	return identify(w.chains[0].cfg.ID, w.chains[0].head(), plain(0, "nothing there"))
}

// spoil changes a message so that it is wrong, mostly.
func (w *world) spoil(d draw, m *messages.Message, t *worldTx) {
	id := &m.Identifier
	some := func() uint64 { return uint64(1 + d.intn(3)) }
	switch d.intn(12) {
	case 0:
		id.BlockNumber += some()
	case 1:
		id.BlockNumber -= min(id.BlockNumber, some())
	case 2:
		id.LogIndex += uint32(some())
	case 3:
		id.LogIndex -= min(id.LogIndex, uint32(some()))
	case 4:
		id.Timestamp += some()
	case 5:
		id.Timestamp -= some()
	case 6:
		id.Origin[d.intn(20)]++
	case 7:
		m.PayloadHash[d.intn(32)]++
	case 8:
		id.ChainID = chainID(901 + d.intn(4)).ID()
	case 9:
		id.ChainID = chainID([]uint64{999, 7, 0}[d.intn(3)]).ID()
	case 10: // a log that is still to come, or is the executing one itself
		c := t.chain
		if open := w.openChains(); w.chance(d, 50) {
			c = open[d.intn(len(open))]
		}
		*m = identify(c.cfg.ID, c.open.ref, plain(uint(len(c.open.logs)+len(t.tx.Logs)+d.intn(2)), "later"))
	case 11: // an old one
		c := w.chains[d.intn(len(w.chains))]
		if b := c.blocks[d.intn(len(c.blocks))]; len(b.logs) > 0 {
			*m = identify(c.cfg.ID, b.ref, b.logs[d.intn(len(b.logs))])
		}
	}
}

// judge says which rules the transaction breaks, at its first log that breaks any, in
// the slot as it is.
func (w *world) judge(t *worldTx) (log int, broken []executor.Rule) {
	so := t.chain.open.logs
	defer func() { t.chain.open.logs = so }()
	for i, l := range t.tx.Logs {
		if m, ok := t.messages[i]; ok {
			if broken := w.broken(t, m); len(broken) > 0 {
				return i, broken
			}
		}
		t.chain.open.logs = append(t.chain.open.logs[:len(t.chain.open.logs):len(t.chain.open.logs)], l)
	}
	return 0, nil
}

// broken is the specification, rule by rule.
func (w *world) broken(t *worldTx, m messages.Message) (out []executor.Rule) {
	id := m.Identifier
	from := w.chain(id.ChainID)
	if from == nil || !from.inSet || !t.chain.inSet {
		return []executor.Rule{executor.RuleDependencySet}
	}
	// The activation block is the first at or after activation; later blocks are a
	// block time away.
	if t.chain.open.ref.Time < w.activation+t.chain.cfg.BlockTime {
		out = append(out, executor.RuleExecutingActivation)
	}
	if id.Timestamp < w.activation+from.cfg.BlockTime {
		out = append(out, executor.RuleInitiatingActivation)
	}
	if id.Timestamp > w.slot {
		out = append(out, executor.RuleTimestamp)
	}
	if id.Timestamp+w.expiry < w.slot {
		out = append(out, executor.RuleExpiry)
	}
	declared := false
	for _, other := range t.declared {
		declared = declared || other == m
	}
	if !declared || t.malformed {
		out = append(out, executor.RuleDeclared)
	}
	for _, b := range append(from.blocks[:len(from.blocks):len(from.blocks)], from.now()...) {
		if b.ref.Number != id.BlockNumber || b.ref.Time != id.Timestamp {
			continue
		}
		for i, l := range b.logs {
			if uint32(i) == id.LogIndex && l.Address == id.Origin && crypto.Keccak256Hash(payload(l)) == m.PayloadHash {
				return out
			}
		}
	}
	// Nothing there: or is it only not there yet?
	if o := from.open; o != nil && o.ref.Number == id.BlockNumber && o.ref.Time == id.Timestamp && int(id.LogIndex) >= len(o.logs) {
		return append(out, executor.RuleOrder)
	}
	return append(out, executor.RuleExists)
}

func (c *worldChain) now() []memoryBlock {
	if c.open == nil {
		return nil
	}
	return []memoryBlock{*c.open}
}

// payload is messaging.md, "Message payload".
func payload(l *types.Log) []byte {
	var msg []byte
	for _, topic := range l.Topics {
		msg = append(msg, topic[:]...)
	}
	return append(msg, l.Data...)
}

// take adds the transaction to the slot.
func (t *worldTx) take() {
	t.chain.open.logs = append(t.chain.open.logs[:len(t.chain.open.logs):len(t.chain.open.logs)], t.tx.Logs...)
}

// lengths and cut are the model's marks.
func (w *world) lengths() (out []int) {
	for _, c := range w.chains {
		n := 0
		if c.open != nil {
			n = len(c.open.logs)
		}
		out = append(out, n)
	}
	return out
}

func (w *world) cut(lengths []int) {
	for i, c := range w.chains {
		if c.open != nil {
			c.open.logs = c.open.logs[:lengths[i]]
		}
	}
}
