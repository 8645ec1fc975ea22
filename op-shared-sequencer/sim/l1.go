package sim

import (
	"context"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	optypes "github.com/ethereum-optimism/optimism/op-core/types"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/testutils"
)

// l1Start is the number of the L1 block that the rollups begin at.
const l1Start = 100

type l1Block = testutils.MockBlockInfo

// l1Chain is L1: its branches, newest last. A branch begins with the one before it up to
// where it left it.
type l1Chain struct {
	interval uint64 // seconds between blocks
	branches [][]*l1Block
	byHash   map[common.Hash]*l1Block
}

func newL1(interval uint64) *l1Chain {
	return &l1Chain{interval: interval, branches: [][]*l1Block{nil}, byHash: map[common.Hash]*l1Block{}}
}

// at is a block of a branch, whether it is time for it or not.
func (l *l1Chain) at(branch int, number uint64) *l1Block {
	for b := &l.branches[branch]; uint64(len(*b)) <= number-l1Start; {
		n := l1Start + uint64(len(*b))
		block := &l1Block{
			InfoNum: n, InfoTime: uint64(epoch.Unix()) + (n-l1Start)*l.interval, InfoBaseFee: big.NewInt(7), InfoBlobBaseFee: big.NewInt(1),
			InfoGasLimit: 30_000_000, InfoHash: crypto.Keccak256Hash(fmt.Appendf(nil, "L1 block %d of branch %d", n, branch)),
			InfoParentBeaconRoot: &common.Hash{3},
		}
		if n > l1Start {
			block.InfoParentHash = (*b)[len(*b)-1].InfoHash
		}
		*b = append(*b, block)
		l.byHash[block.InfoHash] = block
	}
	return l.branches[branch][number-l1Start]
}

// reorg begins a branch that replaces the blocks from a number on.
func (l *l1Chain) reorg(from uint64) {
	newest := len(l.branches) - 1
	l.at(newest, from)
	l.branches = append(l.branches, l.branches[newest][:from-l1Start:from-l1Start])
}

// canonical says whether a block is in L1 as it is now.
func (l *l1Chain) canonical(id eth.BlockID) bool {
	return l.at(len(l.branches)-1, id.Number).InfoHash == id.Hash
}

// l1View is L1 as one operator sees it: late, and a reorg later than others may.
type l1View struct {
	s      *sim
	lag    time.Duration
	branch int
	err    error // of every call
}

// head is the number of the newest block seen.
func (v *l1View) head() uint64 {
	at := (v.s.now - v.lag) / time.Second
	if at < 0 {
		return l1Start
	}
	return l1Start + uint64(at)/v.s.l1.interval
}

func (v *l1View) L1BlockRefByLabel(context.Context, eth.BlockLabel) (eth.L1BlockRef, error) {
	return v.s.l1.at(v.branch, v.head()).BlockRef(), v.err
}

func (v *l1View) L1BlockRefByNumber(_ context.Context, number uint64) (eth.L1BlockRef, error) {
	if v.err != nil {
		return eth.L1BlockRef{}, v.err
	}
	if number > v.head() || number < l1Start {
		return eth.L1BlockRef{}, ethereum.NotFound
	}
	v.s.l1mu.Lock()
	defer v.s.l1mu.Unlock()
	return v.s.l1.at(v.branch, number).BlockRef(), nil
}

func (v *l1View) InfoByHash(_ context.Context, hash common.Hash) (eth.BlockInfo, error) {
	if v.err != nil {
		return nil, v.err
	}
	v.s.l1mu.Lock()
	defer v.s.l1mu.Unlock()
	if b := v.s.l1.byHash[hash]; b != nil {
		return b, nil
	}
	return nil, ethereum.NotFound
}

func (v *l1View) L1BlockRefByHash(ctx context.Context, hash common.Hash) (eth.L1BlockRef, error) {
	b, err := v.InfoByHash(ctx, hash)
	if err != nil {
		return eth.L1BlockRef{}, err
	}
	return eth.InfoToL1BlockRef(b), nil
}

func (v *l1View) FetchReceipts(ctx context.Context, hash common.Hash) (eth.BlockInfo, optypes.Receipts, error) {
	b, err := v.InfoByHash(ctx, hash)
	return b, nil, err
}
