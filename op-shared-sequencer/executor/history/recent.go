package history

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/lru"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// recent keeps the log hashes of blocks that were added or asked for lately, of all chains
// together, in bounded memory. It only ever says yes: what it does not find there, and why
// not, is the database's to say.
type recent struct {
	blocks *lru.SizeConstrainedCache[recentKey, []byte]
}

// recentKey names a block of a chain. Blocks that were taken back are of an older branch,
// and are forgotten in time.
type recentKey struct {
	chain  sequence.ChainID
	branch uint64
	number uint64
}

func newRecent(bytes uint64) *recent {
	return &recent{lru.NewSizeConstrainedCache[recentKey, []byte](bytes)}
}

// add keeps a block: its timestamp [8] and the hashes of its logs [32 each].
func (r *recent) add(k recentKey, time uint64, hashes []byte) {
	r.blocks.Add(k, append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(hashes)), time), hashes...))
}

// has says whether the block is kept, and if it is, whether the log is in it: the
// comparison of the database's Contains.
func (r *recent) has(k recentKey, q *messages.ContainsQuery) (known, ok bool) {
	block, known := r.blocks.Get(k)
	if !known {
		return false, false
	}
	time, hashes := binary.BigEndian.Uint64(block), block[8:]
	if time != q.Timestamp || uint64(q.LogIdx) >= uint64(len(hashes))/32 {
		return true, false
	}
	sum := messages.ChecksumArgs{
		BlockNumber: q.BlockNum, LogIndex: q.LogIdx, Timestamp: time, ChainID: k.chain.ID(),
		LogHash: common.Hash(hashes[uint64(q.LogIdx)*32:][:32]),
	}.Checksum()
	return true, sum == q.Checksum
}
