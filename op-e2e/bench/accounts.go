package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"runtime"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/sync/errgroup"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// sender is an account that only the benchmark uses, with its next nonce on each chain.
type sender struct {
	devnet.Account
	nonces map[uint64]uint64
}

// funds is what a sender gets, 5 ETH in wei: all of them together less than a development account has.
var funds = new(big.Int).Mul(big.NewInt(5), big.NewInt(1e18))

// newSenders makes n accounts, the same in every run.
func newSenders(n int) ([]*sender, error) {
	out := make([]*sender, n)
	for i := range out {
		key, err := crypto.ToECDSA(crypto.Keccak256(binary.BigEndian.AppendUint64([]byte("bench"), uint64(i))))
		if err != nil {
			return nil, err
		}
		out[i] = &sender{devnet.NewAccount(key), map[uint64]uint64{}}
	}
	return out, nil
}

// fund gives the senders money on every chain, and waits until they have it.
func fund(ctx context.Context, s *system, senders []*sender) error {
	from, err := devnet.User(0)
	if err != nil {
		return err
	}
	for _, chain := range s.chains {
		var txs []*types.Transaction
		for i, to := range senders {
			tx, err := from.Sign(devnet.Transfer(chain, uint64(i), to.Address, funds))
			if err != nil {
				return err
			}
			txs = append(txs, tx)
		}
		if err := send(ctx, s.clients[chain], txs); err != nil {
			return fmt.Errorf("chain %d: fund senders: %w", chain, err)
		}
		if err := s.awaitMined(ctx, chain, txs[len(txs)-1].Hash()); err != nil {
			return err
		}
	}
	return nil
}

// renumber sets the senders' nonces to those of the chains, when nothing of theirs is under way.
func (s *system) renumber(ctx context.Context, senders []*sender) error {
	for _, chain := range s.chains {
		for _, by := range senders {
			n, err := s.eth[chain].NonceAt(ctx, by.Address, nil)
			if err != nil {
				return fmt.Errorf("chain %d of %s: %w", chain, s.name, err)
			}
			by.nonces[chain] = n
		}
	}
	return nil
}

// batchSize is how many transactions go into one request.
const batchSize = 250

// send hands transactions to a chain's pool, all of which it has to take.
func send(ctx context.Context, c *rpc.Client, txs []*types.Transaction) error {
	for len(txs) > 0 {
		n := min(batchSize, len(txs))
		batch := make([]rpc.BatchElem, n)
		for i, tx := range txs[:n] {
			raw, err := tx.MarshalBinary()
			if err != nil {
				return err
			}
			batch[i] = rpc.BatchElem{Method: "eth_sendRawTransaction", Args: []any{hexutil.Bytes(raw)}, Result: new(common.Hash)}
		}
		if err := c.BatchCallContext(ctx, batch); err != nil {
			return err
		}
		for _, e := range batch {
			if e.Error != nil {
				return e.Error
			}
		}
		txs = txs[n:]
	}
	return nil
}

// sign makes n transactions of a workload for a chain, from all senders in turn. It takes the
// time of all processors, so nothing is measured meanwhile.
func sign(senders []*sender, w workload, chain uint64, n int) ([]*types.Transaction, error) {
	out := make([]*types.Transaction, n)
	group := new(errgroup.Group)
	group.SetLimit(runtime.NumCPU())
	for i, s := range senders {
		first := s.nonces[chain]
		group.Go(func() (err error) {
			for j, nonce := i, first; j < n; j, nonce = j+len(senders), nonce+1 {
				if out[j], err = s.Sign(w.tx(chain, nonce, j)); err != nil {
					return err
				}
			}
			return nil
		})
		if i < n {
			s.nonces[chain] += uint64((n - i + len(senders) - 1) / len(senders))
		}
	}
	return out, group.Wait()
}
