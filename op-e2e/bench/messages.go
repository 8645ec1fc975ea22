package bench

import (
	"context"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"golang.org/x/sync/errgroup"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum-optimism/optimism/op-service/txintent"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// messageRate is how many messages a second are sent.
const messageRate = 20

// Events of the L2ToL2CrossDomainMessenger. Of the first the topics are destination, target and
// nonce, of the second source, nonce and message hash.
var (
	sentMessage    = crypto.Keccak256Hash([]byte("SentMessage(uint256,address,uint256,address,bytes)"))
	relayedMessage = crypto.Keccak256Hash([]byte("RelayedMessage(uint256,uint256,bytes32,bytes32)"))
)

// messages sends plain transactions on the first chain, each with a message to the second. Ours
// relays them itself. Stock has a relayer beside it, which hears of each head at once, and is the
// only one there is: nothing is faster that goes by what is in blocks.
func (c *Config) messages(ctx context.Context, s *system, senders []*sender, out *Messages) (err error) {
	from, to := s.chains[0], s.chains[1]
	heads, err := watchHeads(ctx, s)
	if err != nil {
		return err
	}
	defer heads.stop()
	relaying, cancel := context.WithCancel(ctx)
	group, relaying := errgroup.WithContext(relaying)
	if s.name == nameStock {
		r := &relayer{from: from, to: to, on: s, account: senders[len(senders)-1]}
		group.Go(func() error {
			if err := r.run(relaying, s.ws[from]); err != nil && relaying.Err() == nil {
				return fmt.Errorf("relayer: %w", err)
			}
			return nil
		})
	}
	defer func() {
		cancel()
		if ended := group.Wait(); err == nil {
			err = ended
		}
	}()
	sent := map[common.Hash]time.Time{}
	var began time.Time
	got, err := s.during(ctx, func(ctx context.Context) error {
		began = time.Now()
		for i := range messageRate * out.Seconds {
			if err := sleep(ctx, time.Until(began.Add(time.Duration(i)*time.Second/messageRate))); err != nil {
				return err
			}
			by := senders[i%(len(senders)-1)]
			tx, err := by.Sign(devnet.SendETH(from, by.nonces[from], recipient(i), to, common.Big1))
			if err != nil {
				return err
			}
			by.nonces[from]++
			at := time.Now()
			if err := send(ctx, s.clients[from], []*types.Transaction{tx}); err != nil {
				return err
			}
			sent[tx.Hash()] = at
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(got.blocks[from]) == 0 {
		return fmt.Errorf("chain %d of %s has no block in %d s", from, s.name, out.Seconds)
	}
	first := got.blocks[from][0].NumberU64()
	done, err := s.awaitRelayed(relaying, from, to, first, len(sent))
	if err != nil {
		return err
	}
	var slots []time.Duration // seconds between the two blocks
	var latency []time.Duration
	within := 0
	for _, m := range done {
		slots = append(slots, time.Duration(m.executed-m.initiated)*time.Second)
		if err := heads.wait(ctx, []common.Hash{m.by}); err != nil {
			return err
		}
		seen, _, _ := heads.seen(m.by) // it has been
		latency = append(latency, seen.Sub(sent[m.tx]))
		if seen.Before(began.Add(time.Duration(out.Seconds) * time.Second)) {
			within++
		}
	}
	out.PerSecond.add(s.name, float64(within)/float64(out.Seconds))
	out.Slots.add(s.name, percentile(slots, 50)/1000)
	out.SlotsMax.add(s.name, percentile(slots, 100)/1000)
	out.LatencyP50.add(s.name, percentile(latency, 50))
	fmt.Fprintf(c.Out, "  %-5s messages  %d executed, %.0f slots after the one they were sent in (%.0f at most), p50 %.0f ms\n",
		s.name, len(done), percentile(slots, 50)/1000, percentile(slots, 100)/1000, percentile(latency, 50))
	return nil
}

// relayedOnce is a message that was executed.
type relayedOnce struct {
	tx, by              common.Hash // that sent it, and that executed it
	initiated, executed uint64      // timestamps of their blocks
}

// awaitRelayed waits until n messages that were sent from a block on have been executed.
func (s *system) awaitRelayed(ctx context.Context, from, to, first uint64, n int) ([]relayedOnce, error) {
	var out []relayedOnce
	err := devnet.WaitFor(ctx, fmt.Sprintf("%d messages to be executed on chain %d of %s", n, to, s.name), func(ctx context.Context) (bool, error) {
		sends, err := s.logs(ctx, from, first, sentMessage)
		if err != nil {
			return false, err
		}
		relays, err := s.logs(ctx, to, 0, relayedMessage)
		if err != nil {
			return false, err
		}
		by := map[common.Hash]types.Log{}
		for _, l := range relays {
			by[l.Topics[2]] = l
		}
		out = out[:0]
		for _, l := range sends {
			if r, ok := by[l.Topics[3]]; ok {
				out = append(out, relayedOnce{l.TxHash, r.TxHash, l.BlockTimestamp, r.BlockTimestamp})
			}
		}
		return len(out) == n, nil
	})
	return out, err
}

func (s *system) logs(ctx context.Context, chain, first uint64, event common.Hash) ([]types.Log, error) {
	return s.eth[chain].FilterLogs(ctx, ethereum.FilterQuery{
		FromBlock: new(big.Int).SetUint64(first), Addresses: []common.Address{predeploys.L2toL2CrossDomainMessengerAddr}, Topics: [][]common.Hash{{event}},
	})
}

// relayer executes messages from one chain on another as soon as a head has them, as relayers of
// stock chains do.
type relayer struct {
	from, to uint64
	on       *system
	account  *sender
}

func (r *relayer) run(ctx context.Context, ws string) error {
	c, err := ethclient.DialContext(ctx, ws)
	if err != nil {
		return err
	}
	defer c.Close()
	heads := make(chan *types.Header, 256)
	sub, err := c.SubscribeNewHead(ctx, heads)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	for {
		select {
		case h := <-heads:
			if err := r.relay(ctx, c, h); err != nil {
				return err
			}
		case err := <-sub.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// relay sends what executes the messages of one block.
func (r *relayer) relay(ctx context.Context, c *ethclient.Client, h *types.Header) error {
	hash := h.Hash()
	logs, err := c.FilterLogs(ctx, ethereum.FilterQuery{
		BlockHash: &hash, Addresses: []common.Address{predeploys.L2toL2CrossDomainMessengerAddr}, Topics: [][]common.Hash{{sentMessage}},
	})
	if err != nil {
		return err
	}
	var txs []*types.Transaction
	for _, l := range logs {
		payload := messages.LogToMessagePayload(&l)
		t := &txintent.RelayTrigger{Payload: payload, ExecTrigger: txintent.ExecTrigger{
			Executor: predeploys.L2toL2CrossDomainMessengerAddr,
			Msg: messages.Message{
				Identifier: messages.Identifier{
					Origin: l.Address, BlockNumber: l.BlockNumber, LogIndex: uint32(l.Index), Timestamp: h.Time, ChainID: eth.ChainIDFromUInt64(r.from),
				},
				PayloadHash: crypto.Keccak256Hash(payload),
			},
		}}
		data, err := t.EncodeInput()
		if err != nil {
			return err
		}
		list, err := t.AccessList()
		if err != nil {
			return err
		}
		tx, err := r.account.Sign(devnet.Tx{
			Chain: r.to, Nonce: r.account.nonces[r.to], Gas: 500_000, To: predeploys.L2toL2CrossDomainMessengerAddr, Data: data, AccessList: list,
		})
		if err != nil {
			return err
		}
		r.account.nonces[r.to]++
		txs = append(txs, tx)
	}
	if len(txs) == 0 {
		return nil
	}
	return send(ctx, r.on.clients[r.to], txs)
}
