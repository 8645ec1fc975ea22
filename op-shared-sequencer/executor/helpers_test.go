package executor_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/interop/depset"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

type chainID = sequence.ChainID

func ptr[T any](v T) *T { return &v }

// set makes a dependency set with an expiry window in seconds.
func set(t require.TestingT, expiry uint64, chains ...chainID) depset.DependencySet {
	deps := map[eth.ChainID]*depset.StaticConfigDependency{}
	for _, c := range chains {
		deps[c.ID()] = &depset.StaticConfigDependency{}
	}
	s, err := depset.NewStaticConfigDependencySetWithMessageExpiryOverride(deps, expiry)
	require.NoError(t, err)
	return s
}

// ref names block n of a chain; salt tells branches apart.
func ref(chain chainID, n, time, salt uint64) eth.BlockRef {
	b := eth.BlockRef{Hash: blockHash(chain, n, salt), Number: n, Time: time}
	if n > 0 {
		b.ParentHash = blockHash(chain, n-1, salt)
	}
	return b
}

func blockHash(chain chainID, n, salt uint64) common.Hash {
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], uint64(chain))
	binary.BigEndian.PutUint64(b[8:], n)
	binary.BigEndian.PutUint64(b[16:], salt)
	return crypto.Keccak256Hash(b[:])
}

// plain is a log that initiates a message.
func plain(index uint, payload string) *types.Log {
	return &types.Log{Address: common.HexToAddress("0xc0ffee"), Topics: []common.Hash{crypto.Keccak256Hash([]byte("Sent"))}, Data: []byte(payload), Index: index}
}

// identify names a log of a block.
func identify(chain chainID, block eth.BlockRef, l *types.Log) messages.Message {
	return messages.Message{
		Identifier:  messages.Identifier{Origin: l.Address, BlockNumber: block.Number, LogIndex: uint32(l.Index), Timestamp: block.Time, ChainID: chain.ID()},
		PayloadHash: crypto.Keccak256Hash(messages.LogToMessagePayload(l)),
	}
}

// executing is the log the CrossL2Inbox leaves for a message: ExecutingMessage(bytes32
// indexed msgHash, Identifier id), predeploys.md.
func executing(index uint, m messages.Message) *types.Log {
	data := make([]byte, 0, 160)
	word := func(v uint64) { data = append(data, common.BigToHash(new(big.Int).SetUint64(v)).Bytes()...) }
	data = append(data, common.BytesToHash(m.Identifier.Origin[:]).Bytes()...)
	word(m.Identifier.BlockNumber)
	word(uint64(m.Identifier.LogIndex))
	word(m.Identifier.Timestamp)
	chain := m.Identifier.ChainID.Bytes32()
	data = append(data, chain[:]...)
	return &types.Log{Address: predeploys.CrossL2InboxAddr, Topics: []common.Hash{messages.ExecutingMessageEventTopic, m.PayloadHash}, Data: data, Index: index}
}

// declare is the access list for messages.
func declare(ms ...messages.Message) types.AccessList {
	var list []messages.Access
	for _, m := range ms {
		list = append(list, m.Access())
	}
	return types.AccessList{{Address: predeploys.CrossL2InboxAddr, StorageKeys: messages.EncodeAccessList(list)}}
}

// memory is the simplest history: every block with its logs.
type memory struct {
	mu         sync.Mutex
	blocks     map[chainID][]memoryBlock
	incomplete map[chainID]bool
}

type memoryBlock struct {
	ref  eth.BlockRef
	logs []*types.Log
	kept []executor.Log // instead of logs, if it was appended
}

func (b *memoryBlock) checksum(chain chainID, index uint32) (sum messages.MessageChecksum, ok bool) {
	switch {
	case uint64(index) < uint64(len(b.logs)):
		m := identify(chain, b.ref, b.logs[index])
		return m.Checksum(), true
	case uint64(index) < uint64(len(b.kept)):
		return messages.ChecksumArgs{BlockNumber: b.ref.Number, LogIndex: index, Timestamp: b.ref.Time, ChainID: chain.ID(), LogHash: b.kept[index].Hash()}.Checksum(), true
	default:
		return sum, false
	}
}

func newMemory() *memory {
	return &memory{blocks: map[chainID][]memoryBlock{}, incomplete: map[chainID]bool{}}
}

func (m *memory) add(chain chainID, block eth.BlockRef, logs ...*types.Log) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[chain] = append(m.blocks[chain], memoryBlock{ref: block, logs: logs})
}

func (m *memory) Contains(chain sequence.ChainID, head eth.BlockID, q messages.ContainsQuery) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.incomplete[chain] {
		return executor.ErrHistoryIncomplete
	}
	for _, b := range m.blocks[chain] {
		if b.ref.Number != q.BlockNum || b.ref.Number > head.Number || b.ref.Time != q.Timestamp {
			continue
		}
		if sum, ok := b.checksum(chain, q.LogIdx); ok && sum == q.Checksum {
			return nil
		}
	}
	return fmt.Errorf("%w: %v", executor.ErrNoSuchMessage, q)
}

func (m *memory) Head(chain sequence.ChainID) (eth.BlockRef, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bs := m.blocks[chain]
	if len(bs) == 0 {
		return eth.BlockRef{}, false
	}
	return bs[len(bs)-1].ref, true
}

func (m *memory) Append(_ context.Context, chain sequence.ChainID, block eth.BlockRef, logs []executor.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[chain] = append(m.blocks[chain], memoryBlock{ref: block, kept: logs})
	return nil
}

func newExecutor(t require.TestingT, cfg executor.Config) *executor.Executor {
	x, err := executor.New(cfg)
	require.NoError(t, err)
	return x
}

func refusedBy(t *testing.T, err error, rule executor.Rule) *executor.MessageError {
	t.Helper()
	require.ErrorIs(t, err, rule)
	var me *executor.MessageError
	require.ErrorAs(t, err, &me)
	require.Equal(t, rule, me.Rule)
	return me
}
