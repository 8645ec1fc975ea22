package devnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/log"

	"github.com/ethereum-optimism/optimism/op-service/sources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// Operator is one operator of a devnet: an op-node, and an op-geth per chain. It runs in
// this process, or in one of its own (Config.Separate). Its addresses stay the same when
// it is stopped and started again. Safe for concurrent use.
type Operator struct {
	index   int
	address common.Address
	chains  []uint64
	log     log.Logger

	life       sync.Mutex     // held while it is started and stopped
	local      *localOperator // nil: in a process of its own
	plan       *operatorPlan
	command    []string                    // of its process
	commandNow func(operator int) []string // may be nil

	mu        sync.Mutex // of what follows
	child     *Child
	ports     operatorPorts
	eth       map[uint64]*ethclient.Client
	rollups   map[uint64]*sources.RollupClient
	superNode *sources.SuperNodeClient
	sequencer *rpc.Client
}

// operatorPorts are where it listens, as far as is known.
type operatorPorts struct {
	node, rpc, status, streams int
	engines                    map[uint64]int
}

// Index is its place among the devnet's operators, from 0.
func (o *Operator) Index() int { return o.index }

// Address is that of the key it signs subblocks with.
func (o *Operator) Address() common.Address { return o.address }

// Dir is where its data is.
func (o *Operator) Dir() string { return o.plan.Dir }

// SequencerDir is where its shared sequencer's data are, LedgerDir where its ledger is, for
// those who use them when the operator is stopped.
func (o *Operator) SequencerDir() string { return filepath.Join(o.plan.Dir, sequencerDir) }
func (o *Operator) LedgerDir() string    { return filepath.Join(o.SequencerDir(), "ledger") }

// OperatorsFile is the genesis file of the set; empty if this operator is alone.
func (o *Operator) OperatorsFile() string { return o.plan.Operators }

// DenyListDir is where its op-supernode keeps which blocks of a chain it has invalidated, for
// those who read it when the operator is stopped.
func (o *Operator) DenyListDir(chain uint64) string {
	return filepath.Join(o.plan.Dir, "node", strconv.FormatUint(chain, 10), "denylist")
}

// NodeURL serves the super roots; NodeRPC is a chain's op-node.
func (o *Operator) NodeURL() string { return localURL(o.where().node) }
func (o *Operator) NodeRPC(chain uint64) string {
	return o.NodeURL() + "/" + strconv.FormatUint(chain, 10)
}

// SharedSequencerURL serves sharedseq.
func (o *Operator) SharedSequencerURL() string { return localURL(o.where().rpc) }

// StatusPageURL is its status page, empty if it serves none.
func (o *Operator) StatusPageURL() string {
	if p := o.where().status; o.plan.StatusPage && p != 0 {
		return localURL(p)
	}
	return ""
}

// SubblocksURL is the Subblocks stream of a chain, empty if there is none.
func (o *Operator) SubblocksURL(chain uint64) string {
	if p := o.where().streams; o.plan.Streams && p != 0 {
		return fmt.Sprintf("ws://127.0.0.1:%d/%d", p, chain)
	}
	return ""
}

// EngineRPC and EngineWS are a chain's public RPC.
func (o *Operator) EngineRPC(chain uint64) string { return localURL(o.where().engines[chain]) }
func (o *Operator) EngineWS(chain uint64) string {
	return "ws://127.0.0.1:" + strconv.Itoa(o.where().engines[chain])
}

func localURL(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

func (o *Operator) where() operatorPorts {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ports
}

// note keeps where it listens.
func (o *Operator) note() {
	p := operatorPorts{node: o.plan.Node, rpc: o.plan.RPC, status: o.plan.Status, streams: o.plan.Subblocks, engines: map[uint64]int{}}
	for id, port := range o.plan.Engine {
		p.engines[id] = port
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ports = p
}

// EngineProcess is a chain's op-geth process, nil if it is embedded or the operator is in
// a process of its own.
func (o *Operator) EngineProcess(chain uint64) *Geth {
	o.life.Lock()
	defer o.life.Unlock()
	if o.local == nil {
		return nil
	}
	g, _ := o.local.engines[chain].(*Geth)
	return g
}

// Service is its op-node, nil unless it runs in this process.
func (o *Operator) Service() *service.Service {
	o.life.Lock()
	defer o.life.Unlock()
	if o.local == nil {
		return nil
	}
	return o.local.node
}

// Eth is a client of a chain's public RPC. It belongs to the devnet.
func (o *Operator) Eth(chain uint64) (*ethclient.Client, error) {
	url := o.EngineRPC(chain)
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.eth[chain]; c != nil {
		return c, nil
	}
	if _, ok := o.ports.engines[chain]; !ok {
		return nil, fmt.Errorf("no chain %d", chain)
	}
	c, err := ethclient.DialContext(context.Background(), url)
	if err != nil {
		return nil, fmt.Errorf("engine of chain %d: %w", chain, err)
	}
	o.eth[chain] = c
	return c, nil
}

// Rollup is a client of a chain's op-node, nil before the operator's first start. It
// belongs to the devnet.
func (o *Operator) Rollup(chain uint64) *sources.RollupClient {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rollups[chain]
}

// SuperNode is a client of the super root RPC. It belongs to the devnet.
func (o *Operator) SuperNode() *sources.SuperNodeClient {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.superNode
}

// Sequencer is a client of sharedseq. It belongs to the devnet.
func (o *Operator) Sequencer(ctx context.Context) (*rpc.Client, error) {
	url := o.SharedSequencerURL()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sequencer == nil {
		c, err := rpc.Dial(ctx, url)
		if err != nil {
			return nil, err
		}
		o.sequencer = c
	}
	return o.sequencer, nil
}

// Start runs the operator and returns when it answers.
func (o *Operator) Start(ctx context.Context) error {
	o.life.Lock()
	defer o.life.Unlock()
	if o.local == nil {
		return o.wrap(o.startChild(ctx))
	}
	if o.local.engines != nil {
		return o.wrap(errors.New("it runs already"))
	}
	err := o.local.startEngines(ctx)
	o.note()
	if err == nil {
		err = o.startNode(ctx)
	}
	if err != nil {
		return o.wrap(errors.Join(err, o.local.stop(context.WithoutCancel(ctx))))
	}
	return nil
}

func (o *Operator) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("operator %d: %w", o.index, err)
}

// startEngines is the first half of Start, startNodeOnly the second.
func (o *Operator) startEngines(ctx context.Context) error {
	o.life.Lock()
	defer o.life.Unlock()
	defer o.note()
	return o.local.startEngines(ctx)
}

// StartNode runs the op-node of an operator in this process, whose engines run.
func (o *Operator) StartNode(ctx context.Context) error {
	o.life.Lock()
	defer o.life.Unlock()
	if o.local == nil || o.local.engines == nil {
		return o.wrap(errors.New("its engines do not run in this process"))
	}
	return o.startNode(ctx)
}

func (o *Operator) startNode(ctx context.Context) error {
	if err := o.local.startNode(ctx); err != nil {
		return err
	}
	o.note()
	return o.await(ctx)
}

// StopNode stops the op-node of an operator in this process cleanly; its engines go on.
func (o *Operator) StopNode(ctx context.Context) error {
	o.life.Lock()
	defer o.life.Unlock()
	if o.local == nil {
		return o.wrap(errors.New("its op-node does not run in this process"))
	}
	return o.local.stopNode(ctx)
}

// Stop stops it cleanly.
func (o *Operator) Stop(ctx context.Context) error {
	o.life.Lock()
	defer o.life.Unlock()
	if o.local != nil {
		return o.wrap(o.local.stop(ctx))
	}
	if p := o.take(); p != nil {
		return p.Stop(ctx)
	}
	return nil
}

// Kill ends its process at once (SIGKILL), engines and all.
func (o *Operator) Kill() error {
	o.life.Lock()
	defer o.life.Unlock()
	p := o.take()
	if p == nil {
		return o.wrap(errors.New("it is not a process that runs"))
	}
	p.Kill()
	return nil
}

// Signal sends its process a signal, SIGSTOP and SIGCONT for instance. Engines that are
// processes do not get it.
func (o *Operator) Signal(sig syscall.Signal) error {
	o.mu.Lock()
	p := o.child
	o.mu.Unlock()
	if p == nil {
		return o.wrap(errors.New("it is not a process that runs"))
	}
	return o.wrap(p.Signal(sig))
}

// Running says whether it runs: the op-node, or the process.
func (o *Operator) Running() bool {
	if o.local != nil {
		return o.Service() != nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.child != nil
}

// PID is its process's id, 0 if it has none of its own or does not run.
func (o *Operator) PID() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.child == nil {
		return 0
	}
	return o.child.PID()
}

// take takes the process out, so that its end is no surprise.
func (o *Operator) take() *Child {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.child
	o.child = nil
	return p
}

// startChild runs the operator's process until it answers.
func (o *Operator) startChild(ctx context.Context) error {
	if o.Running() {
		return errors.New("it runs already")
	}
	if err := o.plan.write(); err != nil {
		return err
	}
	o.note()
	command := o.command
	if o.commandNow != nil {
		if c := o.commandNow(o.index); len(c) > 0 {
			command = c
		}
	}
	args := append(command[1:len(command):len(command)], "--datadir", o.plan.Root, "--index", strconv.Itoa(o.index))
	l := o.log.New("operator", o.index)
	var mu sync.Mutex
	last := ""
	child, err := StartChild(fmt.Sprintf("operator %d", o.index), command[0], args, func(line string) {
		l.Info("Output", "line", line) // its log is a file of its own: this is a panic, or how it ends
		mu.Lock()
		last = line
		mu.Unlock()
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.child = child
	o.mu.Unlock()
	starting, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		<-child.Done()
		mu.Lock()
		err := fmt.Errorf("its process ended by itself: %w: %s", child.err, last)
		mu.Unlock()
		ended(err)
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.child == child {
			o.child = nil
			l.Error("The operator's process ended by itself", "err", err, "log", o.plan.logPath())
		}
	}()
	if err := o.await(starting); err != nil {
		o.take()
		child.Kill()
		return err
	}
	return nil
}

// await waits until each chain's op-node has looked at its engine, and sharedseq answers.
func (o *Operator) await(ctx context.Context) error {
	for _, id := range o.chains {
		c := o.Rollup(id)
		if c == nil {
			var err error
			if c, err = rollupClient(ctx, o.NodeRPC(id), o.log); err != nil {
				return err
			}
			o.mu.Lock()
			o.rollups[id] = c
			o.mu.Unlock()
		}
		if err := awaitSyncStatus(ctx, id, c); err != nil {
			return err
		}
	}
	if o.SuperNode() == nil {
		c, err := superNodeClient(ctx, o.NodeURL(), o.log)
		if err != nil {
			return err
		}
		o.mu.Lock()
		o.superNode = c
		o.mu.Unlock()
	}
	return WaitFor(ctx, "sharedseq", func(ctx context.Context) (bool, error) {
		c, err := o.Sequencer(ctx)
		if err != nil {
			return false, err
		}
		_, err = c.Status(ctx)
		return err == nil, err
	})
}

// hangUp closes the clients.
func (o *Operator) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.eth {
		c.Close()
	}
	for _, c := range o.rollups {
		c.Close()
	}
	if o.superNode != nil {
		o.superNode.Close()
	}
	if o.sequencer != nil {
		o.sequencer.Close()
	}
	o.eth, o.rollups, o.superNode, o.sequencer = map[uint64]*ethclient.Client{}, map[uint64]*sources.RollupClient{}, nil, nil
}

// newOperator makes the operator of a plan.
func (d *Devnet) newOperator(p *operatorPlan) (*Operator, error) {
	key, err := d.keys.Operator(p.Index)
	if err != nil {
		return nil, err
	}
	o := &Operator{
		index: p.Index, address: crypto.PubkeyToAddress(key.PublicKey), chains: d.chains, log: d.log, plan: p,
		eth: map[uint64]*ethclient.Client{}, rollups: map[uint64]*sources.RollupClient{},
	}
	if d.cfg.operators() > 1 {
		o.log = d.log.New("operator", p.Index)
	}
	o.note()
	if d.cfg.Separate {
		o.command, o.commandNow = d.cfg.Command, d.cfg.OperatorCommand
		if len(o.command) == 0 {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			o.command = []string{self, "operator"}
		}
		return o, nil
	}
	o.local = &localOperator{
		plan: p, genesis: d.genesis, keys: d.keys, log: o.log, sequencer: d.cfg.Sequencer,
		options: func(opts *service.Options) {
			if d.cfg.Options != nil {
				d.cfg.Options(opts)
			}
			if d.cfg.OperatorOptions != nil {
				d.cfg.OperatorOptions(p.Index, opts)
			}
		},
		fail: func(err error) {
			if d.cfg.operators() > 1 {
				err = fmt.Errorf("operator %d: %w", p.Index, err)
			}
			if d.cfg.OperatorFailed != nil {
				d.cfg.OperatorFailed(p.Index, err)
				return
			}
			d.fail(err)
		},
	}
	return o, nil
}

// RunOperator is the process of an operator of the devnet in root, until ctx ends. It
// returns why it could not go on, nil if it was ctx.
func RunOperator(ctx context.Context, root string, index int, l log.Logger) error {
	p, err := readPlan(root, index)
	if err != nil {
		return err
	}
	keys, err := genesis.DevKeys()
	if err != nil {
		return err
	}
	g, err := genesis.Load(genesisPath(root))
	if err != nil {
		return err
	}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	o := &localOperator{plan: p, genesis: g, keys: keys, log: l, fail: fail}
	if err = o.startEngines(running); err == nil {
		err = o.startNode(running)
	}
	if err == nil {
		<-running.Done()
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineStopTime)
	defer cancel()
	stopped := o.stop(stopping)
	if ctx.Err() != nil { // asked to end, perhaps while it started
		return stopped
	}
	if err == nil {
		err = context.Cause(running)
	}
	return errors.Join(err, stopped)
}

// OperatorLog opens the log file of an operator's process, and says which level it is to have.
func OperatorLog(root string, index int) (file *os.File, level string, err error) {
	p, err := readPlan(root, index)
	if err != nil {
		return nil, "", err
	}
	file, err = os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return file, p.LogLevel, err
}
