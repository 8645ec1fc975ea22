package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/urfave/cli/v2"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// The two rollups of the demo.
const (
	chainA = 901
	chainB = 902
)

// defaultLoad is how many transfers a second each rollup gets during the demo.
const defaultLoad = 50

// stepTime bounds each step of the demo: many times what it takes on a machine with nothing else to do.
const stepTime = 3 * time.Minute

// report is what the demo writes.
type report struct {
	Bundles  []bundleReport  `json:"bundles"` // the executed ones
	Reverted *revertedReport `json:"reverted,omitempty"`
	// Arbitrage: what the bundle of that name, which is among Bundles, brought.
	Arbitrage *arbitrageReport `json:"arbitrage,omitempty"`
	// Relay: a message of a plain transaction, which the sequencer executed.
	Relay *relayReport `json:"relay,omitempty"`
	// SameTimestamp: every executed bundle has all its transactions at one timestamp.
	SameTimestamp bool `json:"sameTimestamp"`
	// RevertedBundleIncluded: some chain has something of the bundle that reverts.
	RevertedBundleIncluded bool `json:"revertedBundleIncluded"`
	// Safe: the chains as derived from L1 hold the first bundle's blocks.
	Safe bool `json:"safe"`
	// CrossVerified: op-supernode has verified their messages, with the same hashes, and
	// serves the super root at their timestamp.
	CrossVerified bool             `json:"crossVerified"`
	SuperRoot     common.Hash      `json:"superRoot"`
	Load          *loadReport      `json:"load,omitempty"`
	Timings       map[string]int64 `json:"timingsMs"`
	Failures      []string         `json:"failures"`
}

type bundleReport struct {
	Name         string            `json:"name"`
	Hash         common.Hash       `json:"hash"`
	Slot         uint64            `json:"slot"`
	Transactions []devnet.Executed `json:"transactions"`
}

type revertedReport struct {
	Name   string           `json:"name"`
	Hash   common.Hash      `json:"hash"`
	State  bundlepool.State `json:"state"`
	Item   uint64           `json:"item"` // the one that failed
	Reason string           `json:"reason"`
	// Unchanged: nonces and balances of everybody in it are the same as before.
	Unchanged bool `json:"unchanged"`
}

type arbitrageReport struct {
	Hash     common.Hash `json:"hash"`
	Spent    *big.Int    `json:"spent"` // these three in 10^-18 of the token that prices are in
	Received *big.Int    `json:"received"`
	Profit   *big.Int    `json:"profit"`
	// CommittedMs: from sending the bundle until its sender was told that it is in agreed blocks.
	CommittedMs int64 `json:"sendToCommittedMs"`
}

type relayReport struct {
	Transaction common.Hash `json:"transaction"` // that sent it, on the first rollup
	SentAt      uint64      `json:"sentTimestamp"`
	ExecutedAt  uint64      `json:"executedTimestamp"` // on the second one
}

type loadReport struct {
	PerSecond int               `json:"perSecond"`
	Sent      map[uint64]uint64 `json:"sent"` // by chain
	Slots     int               `json:"slots"`
	Missed    int               `json:"slotsWithoutAllChains"`
}

func demo(c *cli.Context) error {
	begin := time.Now()
	cfg, logFile, err := baseConfig(c)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cfg.Chains = []uint64{chainA, chainB}
	cfg.Relays = relay.All
	s := &show{out: c.App.Writer, begin: begin, rep: report{Bundles: []bundleReport{}, Timings: map[string]int64{}, Failures: []string{}}}
	s.rate, s.blockTime = defaultLoad, cfg.L2BlockTime
	if c.IsSet(loadFlag.Name) {
		s.rate = c.Int(loadFlag.Name)
	}
	s.say("starting L1, two rollups, op-node with the shared sequencer, batchers and proposer")
	s.say("log of all services: %s", logFile.Name())
	path := c.String(reportFlag.Name)
	err = run(c.Context, cfg, func(ctx context.Context, d *devnet.Devnet) error {
		s.d = d
		s.took("start", begin)
		err := s.all(ctx)
		// Written before the stop: it is true whatever becomes of that.
		return errors.Join(err, s.finish(path))
	})
	if s.d == nil && err != nil {
		s.fail("start", err)
		err = errors.Join(err, s.finish(path))
	}
	if err != nil {
		// What all services said is needed to understand it.
		return fmt.Errorf("%w (report: %s)", err, path)
	}
	return nil
}

// show runs the demo.
type show struct {
	out   io.Writer
	begin time.Time
	d     *devnet.Devnet
	rep   report
	rate  int
	// blockTime of the rollups, in seconds
	blockTime uint64
	user      devnet.Account // 0: bridges
	shy       devnet.Account // 1: its bundle reverts
	trader    devnet.Account // 2: buys on one rollup and sells on the other
	maker     devnet.Account // 3: gives both rollups something to trade
}

func (s *show) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (s *show) took(what string, since time.Time) {
	s.rep.Timings[what] = time.Since(since).Milliseconds()
}

func (s *show) fail(what string, err error) {
	s.rep.Failures = append(s.rep.Failures, what+": "+oneLine(err))
}

// all runs every step it can, also after one has failed.
func (s *show) all(ctx context.Context) error {
	var errs []error
	step := func(what string, f func(context.Context) error) bool {
		start := time.Now()
		bounded, cancel := context.WithTimeout(ctx, stepTime)
		defer cancel()
		err := f(bounded)
		s.took(what, start)
		if err != nil {
			s.say("FAILED %s: %s", what, oneLine(err))
			s.fail(what, err)
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		return err == nil
	}
	if !step("first slots", s.firstSlots) {
		return errors.Join(errs...)
	}
	watch := s.d.Watch()
	defer watch.Stop()
	var load *devnet.Load
	if s.rate > 0 {
		var err error
		if load, err = s.d.StartLoad(s.rate); err != nil {
			return errors.Join(append(errs, err)...)
		}
		defer load.Stop()
		s.say("loading both rollups with %d transfers a second each", s.rate)
	}
	bridged := step("eth bundle", s.ethBundle)
	step("token bundle", s.tokenBundle)
	step("reverting bundle", s.revertingBundle)
	step("arbitrage", s.arbitrage)
	step("relay", s.relay)
	if bridged {
		step("safe on L1", s.safe)
		step("cross-verified", s.crossVerified)
	}
	step("load", func(ctx context.Context) error { return s.loaded(ctx, load, watch) })
	return errors.Join(errs...)
}

func (s *show) firstSlots(ctx context.Context) error {
	for i, a := range []*devnet.Account{&s.user, &s.shy, &s.trader, &s.maker} {
		var err error
		if *a, err = devnet.User(uint64(i)); err != nil {
			return err
		}
	}
	if err := s.d.AwaitOnTime(ctx); err != nil {
		return err
	}
	s.say("both rollups make blocks, a slot every %d s", s.blockTime)
	return nil
}

// ethBundle: the user sends ETH from A to a new account on B, which spends it there.
func (s *show) ethBundle(ctx context.Context) error {
	fresh, err := devnet.FreshAccount()
	if err != nil {
		return err
	}
	s.say("bundle 1: send 1 ETH on %d, relay it to a new account on %d, spend half of it there", chainA, chainB)
	st, err := s.d.NewBundle().
		Tx(s.user, devnet.SendETH(chainA, 0, fresh.Address, chainB, ether(1))).
		Relay(chainB).
		Tx(fresh, devnet.Transfer(chainB, 0, s.user.Address, new(big.Int).Div(ether(1), big.NewInt(2)))).
		Run(ctx)
	if err != nil {
		return err
	}
	if err := s.executed(ctx, "bridge ETH and spend it", st, 3); err != nil {
		return err
	}
	left, err := s.d.Balance(ctx, chainB, fresh.Address)
	if err != nil {
		return err
	}
	if left.Sign() == 0 || left.Cmp(ether(1)) >= 0 {
		return fmt.Errorf("the new account has %s wei on %d: expected what is left of 1 ETH after spending half", left, chainB)
	}
	return nil
}

// tokenBundle: the same with an ERC-7802 token that the user makes on A first.
func (s *show) tokenBundle(ctx context.Context) error {
	friend, err := devnet.FreshAccount()
	if err != nil {
		return err
	}
	token, amount := s.d.Genesis().TestToken, big.NewInt(1000)
	half := new(big.Int).Div(amount, big.NewInt(2))
	before, err := s.d.TokenBalance(ctx, chainB, s.user.Address)
	if err != nil {
		return err
	}
	s.say("bundle 2: make 1000 ERC-7802 tokens on %d, send them, relay them to %d, pass half on there", chainA, chainB)
	st, err := s.d.NewBundle().
		Tx(s.user, devnet.MintToken(chainA, 0, token, s.user.Address, amount)).
		Tx(s.user, devnet.SendToken(chainA, 0, token, s.user.Address, chainB, amount)).
		Relay(chainB).
		Tx(s.user, devnet.TransferToken(chainB, 0, token, friend.Address, half)).
		Run(ctx)
	if err != nil {
		return err
	}
	if err := s.executed(ctx, "bridge a token and spend it", st, 4); err != nil {
		return err
	}
	after, err := s.d.TokenBalance(ctx, chainB, s.user.Address)
	if err != nil {
		return err
	}
	got, err := s.d.TokenBalance(ctx, chainB, friend.Address)
	if err != nil {
		return err
	}
	if kept := new(big.Int).Sub(after, before); kept.Cmp(half) != 0 || got.Cmp(half) != 0 {
		return fmt.Errorf("on %d the sender has %s tokens more and the receiver %s: expected %s each", chainB, kept, got, half)
	}
	return nil
}

// relay: a plain transaction on A sends ETH to a new account on B. Nobody relays it but the
// sequencer, whose policy is to.
func (s *show) relay(ctx context.Context) error {
	fresh, err := devnet.FreshAccount()
	if err != nil {
		return err
	}
	s.say("a plain transaction sends 1 ETH from %d to a new account on %d; the sequencer relays it", chainA, chainB)
	r, err := s.d.SendMessage(ctx, s.user, devnet.SendETH(chainA, 0, fresh.Address, chainB, ether(1)), fresh.Address, chainB)
	if err != nil {
		return err
	}
	s.rep.Relay = &relayReport{Transaction: r.Transaction, SentAt: r.Sent, ExecutedAt: r.Executed}
	if r.Executed != r.Sent {
		return fmt.Errorf("the message of %s was sent in slot %d and executed in slot %d: expected the same", r.Transaction, r.Sent, r.Executed)
	}
	s.say("sent and executed in slot %s", clockOf(r.Sent))
	return nil
}

// executed checks a bundle against the chains, and notes it.
func (s *show) executed(ctx context.Context, name string, st *rpc.BundleStatus, want int) error {
	if st.State != bundlepool.Executed && st.State != bundlepool.Safe {
		return fmt.Errorf("bundle %s is %s: expected executed%s", st.BundleHash, st.State, because(st.Failure))
	}
	txs, err := s.d.Receipts(ctx, st)
	if err != nil {
		return err
	}
	b := bundleReport{Name: name, Hash: st.BundleHash, Transactions: txs}
	if st.Slot != nil {
		b.Slot = uint64(*st.Slot)
	}
	first := len(s.rep.Bundles) == 0
	s.rep.Bundles = append(s.rep.Bundles, b)
	same, both := true, map[uint64]bool{}
	for _, tx := range txs {
		same = same && tx.Timestamp == txs[0].Timestamp
		both[tx.Chain] = true
	}
	s.rep.SameTimestamp = same && (first || s.rep.SameTimestamp)
	switch {
	case len(txs) != want:
		return fmt.Errorf("bundle %s has %d transactions on the chains: expected %d", st.BundleHash, len(txs), want)
	case !both[chainA] || !both[chainB]:
		return fmt.Errorf("bundle %s is on one chain only", st.BundleHash)
	case !same:
		return fmt.Errorf("bundle %s has blocks of different timestamps", st.BundleHash)
	}
	for i, tx := range txs {
		if tx.Status != 1 {
			return fmt.Errorf("transaction %d of bundle %s reverted on chain %d", i, st.BundleHash, tx.Chain)
		}
	}
	s.say("executed on both rollups in slot %s", clockOf(txs[0].Timestamp))
	return nil
}

// standing is what a bundle could change of an account on a chain.
type standing struct {
	nonce   uint64
	balance string
	tokens  string
}

func (s *show) standing(ctx context.Context, accounts ...common.Address) (map[string]standing, error) {
	out := map[string]standing{}
	for _, chain := range []uint64{chainA, chainB} {
		for _, a := range accounts {
			nonce, err := s.d.Nonce(ctx, chain, a)
			if err != nil {
				return nil, err
			}
			balance, err := s.d.Balance(ctx, chain, a)
			if err != nil {
				return nil, err
			}
			tokens, err := s.d.TokenBalance(ctx, chain, a)
			if err != nil {
				return nil, err
			}
			out[fmt.Sprintf("%s on %d", a, chain)] = standing{nonce, balance.String(), tokens.String()}
		}
	}
	return out, nil
}

// revertingBundle: two good transactions and a relay, and a last one that reverts.
func (s *show) revertingBundle(ctx context.Context) error {
	fresh, err := devnet.FreshAccount()
	if err != nil {
		return err
	}
	before, err := s.standing(ctx, s.shy.Address, fresh.Address)
	if err != nil {
		return err
	}
	s.say("bundle 3: as bundle 1, but its last transaction reverts (it sends ETH to nobody)")
	b := s.d.NewBundle().
		Tx(s.shy, devnet.SendETH(chainA, 0, fresh.Address, chainB, ether(2))).
		Relay(chainB).
		Tx(fresh, devnet.Transfer(chainB, 0, s.shy.Address, ether(1))).
		Tx(s.shy, devnet.SendETH(chainB, 0, common.Address{}, chainA, ether(1)))
	args, hashes, err := b.Sign(ctx)
	if err != nil {
		return err
	}
	client, err := s.d.Sequencer(ctx)
	if err != nil {
		return err
	}
	sent, err := client.SendBundle(ctx, args)
	if err != nil {
		return err
	}
	st, err := s.d.AwaitBundle(ctx, sent.BundleHash)
	if err != nil {
		return err
	}
	// Anything of it that is somewhere on its way gets two slots to show up.
	if err := s.d.AwaitSlots(ctx, 2); err != nil {
		return err
	}
	after, err := s.standing(ctx, s.shy.Address, fresh.Address)
	if err != nil {
		return err
	}
	r := &revertedReport{Name: "last transaction reverts", Hash: sent.BundleHash, State: st.State, Unchanged: true}
	s.rep.Reverted = r
	if st.Failure != nil {
		r.Reason = st.Failure.Reason
		if st.Failure.Item != nil {
			r.Item = uint64(*st.Failure.Item)
		}
	}
	var wrong []string
	for who, was := range before {
		if after[who] != was {
			r.Unchanged = false
			wrong = append(wrong, fmt.Sprintf("%s was %+v and is %+v", who, was, after[who]))
		}
	}
	for i, hash := range hashes {
		if hash == (common.Hash{}) {
			continue // the relay step; its effect is the new account's balance
		}
		client, err := s.d.Eth([]uint64{chainA, chainB, chainB, chainB}[i])
		if err != nil {
			return err
		}
		if _, err := client.TransactionReceipt(ctx, hash); err == nil {
			wrong = append(wrong, fmt.Sprintf("transaction %d is in a block", i))
		} else if !errors.Is(err, ethereum.NotFound) {
			return err
		}
	}
	s.rep.RevertedBundleIncluded = len(wrong) > 0
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("the bundle left traces: %s", strings.Join(wrong, "; "))
	case st.State != bundlepool.Failed:
		return fmt.Errorf("the bundle is %s: expected failed", st.State)
	case r.Item != 3 || r.Reason == "":
		return fmt.Errorf("transaction %d is blamed with reason %q: expected 3 with the revert reason", r.Item, r.Reason)
	}
	s.say("no rollup has any of it; the sender was told: %s", r.Reason)
	return nil
}

// askEvery is how often it is asked whether the arbitrage is committed, which is timed.
const askEvery = 10 * time.Millisecond

// arbitrage: a token is twice as dear on B. The trader buys on A, sells on B what has
// arrived there, and has the proceeds back on A, in one slot.
func (s *show) arbitrage(ctx context.Context) error {
	market, err := s.d.OpenMarket(ctx, s.maker, map[uint64]devnet.Liquidity{
		chainA: {Base: ether(1000), Quote: ether(1000)},
		chainB: {Base: ether(1000), Quote: ether(2000)},
	})
	if err != nil {
		return err
	}
	funded, err := s.d.NewBundle().Tx(s.maker, devnet.MintToken(chainA, 0, market.Quote, s.trader.Address, ether(100))).Run(ctx)
	if err != nil {
		return err
	}
	if funded.State != bundlepool.Executed && funded.State != bundlepool.Safe {
		return fmt.Errorf("the trader's tokens: bundle %s is %s%s", funded.BundleHash, funded.State, because(funded.Failure))
	}
	head, err := s.d.Head(ctx, chainA)
	if err != nil {
		return err
	}
	trade := devnet.Arbitrage{
		Trader: s.trader, Buy: chainA, Sell: chainB, Spend: ether(100), MinBought: ether(90), MinReceived: ether(150),
		Deadline: head.Time + uint64(stepTime.Seconds()),
	}
	s.say("bundle 4: buy for 100 tokens on %d, sell on %d where the price is twice that, bring the proceeds back", chainA, chainB)
	args, _, err := market.Bundle(trade).Sign(ctx)
	if err != nil {
		return err
	}
	conn, err := gethrpc.DialContext(ctx, s.d.SharedSequencerURL())
	if err != nil {
		return err
	}
	client := rpc.NewClient(conn, askEvery)
	defer client.Close()
	begin := time.Now()
	sent, err := client.SendBundle(ctx, args)
	if err != nil {
		return err
	}
	if _, err := client.WaitBundle(ctx, sent.BundleHash); err != nil {
		return err
	}
	committed := time.Since(begin)
	st, err := s.d.AwaitBundle(ctx, sent.BundleHash)
	if err != nil {
		return err
	}
	// Four transactions of the trader's and two relays.
	if err := s.executed(ctx, "arbitrage there and back", st, 6); err != nil {
		return err
	}
	received, err := s.d.BalanceOf(ctx, chainA, market.Quote, s.trader.Address)
	if err != nil {
		return err
	}
	r := &arbitrageReport{
		Hash: sent.BundleHash, Spent: trade.Spend, Received: received,
		Profit: new(big.Int).Sub(received, trade.Spend), CommittedMs: committed.Milliseconds(),
	}
	s.rep.Arbitrage = r
	if received.Cmp(trade.MinReceived) < 0 {
		return fmt.Errorf("the trader has %s of 10^-18 tokens on %d: expected %s or more", received, chainA, trade.MinReceived)
	}
	s.say("100 tokens became %s; from sending it to committed confirmation: %d ms", tokens(received), r.CommittedMs)
	return nil
}

// safe waits until derivation from L1 has passed the first bundle's blocks.
func (s *show) safe(ctx context.Context) error {
	ts := s.rep.Bundles[0].Transactions[0].Timestamp
	s.say("waiting until the batchers have brought slot %s to L1", clockOf(ts))
	for _, id := range []uint64{chainA, chainB} {
		if err := devnet.WaitFor(ctx, fmt.Sprintf("chain %d to be derived from L1", id), func(ctx context.Context) (bool, error) {
			local, _, err := s.d.Safety(ctx, id, ts)
			return local, err
		}); err != nil {
			return err
		}
	}
	if err := s.sameBlocks(ctx); err != nil {
		return err
	}
	s.rep.Safe = true
	s.say("its blocks are derived from L1, with the same hashes")
	return nil
}

// crossVerified waits until op-supernode has verified the messages of the first bundle.
func (s *show) crossVerified(ctx context.Context) error {
	ts := s.rep.Bundles[0].Transactions[0].Timestamp
	for _, id := range []uint64{chainA, chainB} {
		if err := devnet.WaitFor(ctx, fmt.Sprintf("chain %d to be verified by op-supernode", id), func(ctx context.Context) (bool, error) {
			_, cross, err := s.d.Safety(ctx, id, ts)
			return cross, err
		}); err != nil {
			return err
		}
	}
	if err := devnet.WaitFor(ctx, "the super root", func(ctx context.Context) (bool, error) {
		r, err := s.d.SuperNode().SuperRootAtTimestamp(ctx, ts)
		if err != nil || r.Data == nil {
			return false, err
		}
		s.rep.SuperRoot = common.Hash(r.Data.SuperRoot)
		return true, nil
	}); err != nil {
		return err
	}
	if err := s.sameBlocks(ctx); err != nil {
		return err
	}
	s.rep.CrossVerified = true
	s.say("op-supernode has verified its messages; super root %s", s.rep.SuperRoot)
	return nil
}

// sameBlocks checks that the executed bundles are still in the same canonical blocks.
func (s *show) sameBlocks(ctx context.Context) error {
	for _, b := range s.rep.Bundles {
		for _, tx := range b.Transactions {
			c, err := s.d.Eth(tx.Chain)
			if err != nil {
				return err
			}
			h, err := c.HeaderByNumber(ctx, new(big.Int).SetUint64(tx.BlockNumber))
			if err != nil {
				return err
			}
			if h.Hash() != tx.BlockHash {
				return fmt.Errorf("block %d of chain %d was %s and is now %s", tx.BlockNumber, tx.Chain, tx.BlockHash, h.Hash())
			}
		}
	}
	return nil
}

// loaded checks that the load was executed, and that both chains took part in every slot.
func (s *show) loaded(ctx context.Context, load *devnet.Load, watch *devnet.Watch) error {
	if load == nil {
		return nil
	}
	load.Stop()
	r := &loadReport{PerSecond: s.rate, Sent: map[uint64]uint64{chainA: load.Sent(chainA), chainB: load.Sent(chainB)}}
	s.rep.Load = r
	watch.Stop()
	var last uint64
	var gaps []string
	txs := map[uint64]uint{}
	for len(watch.Slots()) > 0 {
		slot := <-watch.Slots()
		r.Slots++
		for id, b := range slot.Blocks {
			txs[id] += b.Txs
		}
		// The first slot that was seen may have been under way.
		if last != 0 && (len(slot.Blocks) != 2 || slot.Slot != last+s.blockTime) {
			r.Missed++
			gaps = append(gaps, fmt.Sprintf("%d after %d with %d blocks", slot.Slot, last, len(slot.Blocks)))
		}
		last = slot.Slot
	}
	for id, sent := range r.Sent {
		if sent == 0 || txs[id] == 0 {
			return fmt.Errorf("chain %d took %d transfers and executed %d transactions", id, sent, txs[id])
		}
	}
	if r.Missed > 0 {
		return fmt.Errorf("%d of %d slots are not whole: %s", r.Missed, r.Slots, strings.Join(gaps, ", "))
	}
	s.say("meanwhile: %d slots, every one with a block of both rollups; %d and %d transfers", r.Slots, r.Sent[chainA], r.Sent[chainB])
	return nil
}

// finish prints the table and writes the report.
func (s *show) finish(path string) error {
	s.took("total", s.begin)
	s.table()
	data, err := json.MarshalIndent(&s.rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	s.say("report: %s", path)
	return nil
}

func (s *show) table() {
	fmt.Fprintln(s.out)
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "bundle\tchain\tblock\tslot (UTC)\ttransaction\tresult")
	for _, b := range s.rep.Bundles {
		name := b.Name
		for _, tx := range b.Transactions {
			result := "executed"
			if tx.Status != 1 {
				result = "REVERTED"
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\n", name, tx.Chain, tx.BlockNumber, clockOf(tx.Timestamp), short(tx.TxHash), result)
			name = ""
		}
	}
	if r := s.rep.Reverted; r != nil {
		trace := "no rollup has any of it"
		if s.rep.RevertedBundleIncluded {
			trace = "LEFT TRACES"
		}
		fmt.Fprintf(w, "%s\t-\t-\t-\t-\t%s: %s\n", r.Name, trace, r.Reason)
	}
	w.Flush()
	fmt.Fprintln(s.out)
	if r := s.rep.Arbitrage; r != nil {
		fmt.Fprintf(s.out, "arbitrage: spent %s, received %s, profit %s; %d ms from send to committed confirmation\n",
			tokens(r.Spent), tokens(r.Received), tokens(r.Profit), r.CommittedMs)
	}
	if r := s.rep.Relay; r != nil {
		fmt.Fprintf(s.out, "plain message: sent in slot %s, executed in slot %s\n", clockOf(r.SentAt), clockOf(r.ExecutedAt))
	}
	fmt.Fprintf(s.out, "one slot for all of a bundle: %s   derived from L1: %s   verified by op-supernode: %s\n\n",
		yes(s.rep.SameTimestamp), yes(s.rep.Safe), yes(s.rep.CrossVerified))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

func because(f *rpc.Failure) string {
	if f == nil {
		return ""
	}
	return ": " + f.Reason
}

func ether(n int64) *big.Int { return new(big.Int).Mul(big.NewInt(n), big.NewInt(1e18)) }

// tokens shows an amount of 10^-18 with two decimals, rounded down.
func tokens(amount *big.Int) string {
	cents := new(big.Int).Div(amount, big.NewInt(1e16))
	whole, rest := new(big.Int).DivMod(cents, big.NewInt(100), new(big.Int))
	return fmt.Sprintf("%d.%02d", whole, rest)
}

func clockOf(slot uint64) string { return time.Unix(int64(slot), 0).UTC().Format("15:04:05") }

func short(h common.Hash) string { return h.Hex()[:10] + "…" }
