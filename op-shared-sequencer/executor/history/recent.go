package history

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/lru"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/executor"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// recent keeps what identifies the logs of blocks that were added or asked for lately, of all
// chains together, in bounded memory. It only ever says yes: what it does not find there, and
// why not, is the database's to say.
type recent struct {
	blocks *lru.SizeConstrainedCache[recentKey, []byte]
	asked  *lru.Cache[recentKey, struct{}] // once, lately
}

// askedBlocks is how many blocks are remembered to have been asked for. Asking for blocks
// further apart costs what the database costs, and pushes nothing out.
const askedBlocks = 1024

// recentKey names a block of a chain. Blocks that were taken back are of an older branch,
// and are forgotten in time.
type recentKey struct {
	chain  sequence.ChainID
	branch uint64
	number uint64
}

// A block is kept as 32 bytes for each log, its timestamp [8] and what the 32 bytes are [1].
const (
	keptTail     = 9
	areHashes    = 0 // of the logs, as the database has them
	areChecksums = 1 // of the messages that the logs are: nothing is left to be worked out
)

func newRecent(bytes uint64) *recent {
	return &recent{lru.NewSizeConstrainedCache[recentKey, []byte](bytes), lru.NewCache[recentKey, struct{}](askedBlocks)}
}

func keep(logs []byte, time uint64, are byte) []byte {
	return append(binary.BigEndian.AppendUint64(logs, time), are)
}

// added keeps a block that was added just now: its messages are likely to be executed
// soon, so their checksums are worked out here, where nobody waits for them.
func (r *recent) added(k recentKey, time uint64, logs []executor.Log) {
	if len(logs) == 0 {
		return // nothing is in it, and the database says so
	}
	sums := make([]byte, 0, 32*len(logs)+keptTail)
	for i := range logs {
		sum := k.checksum(uint32(i), time, logs[i].Hash())
		sums = append(sums, sum[:]...)
	}
	r.blocks.Add(k, keep(sums, time, areChecksums))
}

// again says whether a block was asked for lately, and remembers that it is now.
func (r *recent) again(k recentKey) bool {
	if _, ok := r.asked.Get(k); ok {
		return true
	}
	r.asked.Add(k, struct{}{})
	return false
}

// read keeps a block that was read from the database.
func (r *recent) read(k recentKey, time uint64, hashes []byte) []byte {
	block := keep(hashes, time, areHashes)
	r.blocks.Add(k, block)
	return block
}

// has says whether the block is kept, and if it is, whether the message is in it.
func (r *recent) has(k recentKey, q *messages.ContainsQuery) (known, ok bool) {
	block, known := r.blocks.Get(k)
	return known, known && k.in(block, q)
}

// in is the comparison of the database's Contains.
func (k *recentKey) in(block []byte, q *messages.ContainsQuery) bool {
	logs, tail := block[:len(block)-keptTail], block[len(block)-keptTail:]
	time := binary.BigEndian.Uint64(tail)
	if time != q.Timestamp || uint64(q.LogIdx) >= uint64(len(logs))/32 {
		return false
	}
	have := [32]byte(logs[uint64(q.LogIdx)*32:][:32])
	if tail[8] == areHashes {
		have = k.checksum(q.LogIdx, time, have)
	}
	return have == q.Checksum
}

func (k *recentKey) checksum(log uint32, time uint64, hash common.Hash) messages.MessageChecksum {
	return messages.ChecksumArgs{BlockNumber: k.number, LogIndex: log, Timestamp: time, ChainID: k.chain.ID(), LogHash: hash}.Checksum()
}
