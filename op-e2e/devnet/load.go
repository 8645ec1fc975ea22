package devnet

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rpc"
)

// loadTick is how often the load generator sends.
const loadTick = 100 * time.Millisecond

// Load sends plain transfers to chains at a steady rate, from one funded account per
// chain. It takes the next nonce from the chain's pool each time, so it goes on by
// itself after a restart or a reorg has dropped transactions.
type Load struct {
	log    log.Logger
	cancel context.CancelFunc
	done   sync.WaitGroup
	sent   map[uint64]*atomic.Uint64
}

// LoadTarget is one chain to send to.
type LoadTarget struct {
	Chain uint64
	RPC   string // endpoint of the execution engine
	From  Account
}

// StartLoad sends rate transfers a second to each target until Stop.
func StartLoad(targets []LoadTarget, rate int, l log.Logger) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	ld := &Load{log: l.New("service", "load"), cancel: cancel, sent: map[uint64]*atomic.Uint64{}}
	for _, t := range targets {
		n := new(atomic.Uint64)
		ld.sent[t.Chain] = n
		ld.done.Add(1)
		go func() {
			defer ld.done.Done()
			ld.run(ctx, t, rate, n)
		}()
	}
	return ld
}

// Sent counts the transfers that the chain's pool took.
func (l *Load) Sent(chain uint64) uint64 {
	if n := l.sent[chain]; n != nil {
		return n.Load()
	}
	return 0
}

// Stop ends the load and returns when nothing is sent any more.
func (l *Load) Stop() {
	l.cancel()
	l.done.Wait()
}

func (l *Load) run(ctx context.Context, t LoadTarget, rate int, sent *atomic.Uint64) {
	var client *rpc.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	tick := time.NewTicker(loadTick)
	defer tick.Stop()
	start, counted := time.Now(), 0 // transfers that were due so far
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds()*float64(rate)) - counted
		counted += due
		// After a pause the missed transfers are not made up for.
		if most := rate; due > most {
			due = most
		}
		if due <= 0 {
			continue
		}
		var err error
		if client == nil {
			client, err = rpc.DialContext(ctx, t.RPC)
		}
		if err == nil {
			var n int
			n, err = sendTransfers(ctx, client, t, due, rate)
			sent.Add(uint64(n))
		}
		if err != nil && ctx.Err() == nil {
			l.log.Debug("Transfers not sent", "chain", t.Chain, "err", err)
			if client != nil {
				client.Close()
				client = nil
			}
		}
	}
}

// maxBacklog is how many seconds of transfers may wait in the pool.
const maxBacklog = 10

// sendTransfers sends up to n transfers in one RPC batch and returns how many were taken.
func sendTransfers(ctx context.Context, c *rpc.Client, t LoadTarget, n, rate int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var pending, latest hexutil.Uint64
	nonces := []rpc.BatchElem{
		{Method: "eth_getTransactionCount", Args: []any{t.From.Address, "pending"}, Result: &pending},
		{Method: "eth_getTransactionCount", Args: []any{t.From.Address, "latest"}, Result: &latest},
	}
	if err := c.BatchCallContext(ctx, nonces); err != nil {
		return 0, err
	}
	if err := errors.Join(nonces[0].Error, nonces[1].Error); err != nil {
		return 0, fmt.Errorf("nonce of %s: %w", t.From.Address, err)
	}
	if pending > latest && uint64(pending-latest) > uint64(maxBacklog*rate) {
		return 0, nil
	}
	batch := make([]rpc.BatchElem, n)
	for i := range batch {
		tx, err := t.From.Sign(Tx{Chain: t.Chain, Nonce: uint64(pending) + uint64(i), To: loadSink, Value: big.NewInt(1)})
		if err != nil {
			return 0, err
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			return 0, err
		}
		batch[i] = rpc.BatchElem{Method: "eth_sendRawTransaction", Args: []any{hexutil.Bytes(raw)}, Result: new(common.Hash)}
	}
	if err := c.BatchCallContext(ctx, batch); err != nil {
		return 0, err
	}
	taken := 0
	for _, e := range batch {
		if e.Error == nil {
			taken++
		}
	}
	return taken, nil
}

// loadSink receives the transfers.
var loadSink = common.HexToAddress("0x000000000000000000000000000000000000feed")
