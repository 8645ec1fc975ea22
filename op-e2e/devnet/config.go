package devnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/log"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/service"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
)

// EngineMode says how the op-geths run.
type EngineMode string

const (
	// Embedded engines run in this process.
	Embedded EngineMode = "embedded"
	// Process engines are processes of their own, reached over the authenticated RPC.
	Process EngineMode = "process"
)

// Config says what a devnet is made of. Start with DefaultConfig.
type Config struct {
	// Dir keeps everything; a devnet goes on from where it was left there. Empty: a
	// temporary directory that Stop removes.
	Dir string
	// RemoveDir makes Stop remove Dir.
	RemoveDir bool
	// Artifacts are the built contracts, needed for a new Dir. Empty: those of the
	// repository around the working directory.
	Artifacts string
	// Chains are the rollups' chain IDs. A Dir that exists must hold the same.
	Chains []uint64
	// L1BlockTime and L2BlockTime in seconds.
	L1BlockTime, L2BlockTime uint64
	// BlockTimes are those of chains that differ from L2BlockTime, by chain.
	BlockTimes map[uint64]uint64
	// MessageExpiry overrides how long a message may be executed, in seconds. 0: the
	// protocol's time.
	MessageExpiry uint64

	// Operators is how many operators the set has; 0 is 1, which is alone and agrees with
	// nobody. A Dir that exists must be of as many.
	Operators int
	// Powers are the operators' shares of the votes, in their order; those left out have 1.
	Powers []uint64
	// Joiners are operators beside those: laid out, known to the others, with an L1 and
	// chains to follow, but neither in the set when it begins nor started. See Devnet.Joiner.
	Joiners int
	// Separate runs each operator in a process of its own.
	Separate bool
	// Command runs such a process, as `devnet operator` does, with further arguments.
	// Empty: this program with the argument "operator".
	Command []string
	// OperatorCommand is Command for one operator, asked each time it is started: to run
	// another version. nil, or an empty answer: Command.
	OperatorCommand func(operator int) []string
	// ConsensusDial maps the address at which operator from dials operator to, for a proxy
	// between them. May be nil.
	ConsensusDial func(from, to int, addr string) string
	// Subblocks is in how many parts a slot is agreed on. 0: op-node's default.
	Subblocks int

	// Relays is which messages of plain transactions the operators relay in their slot. Empty:
	// op-node's default.
	Relays relay.Mode

	// StatusPage has every operator serve its status page.
	StatusPage bool
	// Streams has every operator serve the Subblocks streams.
	Streams bool

	Engines EngineMode
	// Geth is the patched op-geth's binary, for process engines.
	Geth  string
	Ports Ports

	// Blobs makes the batchers post blobs instead of calldata.
	Blobs      bool
	NoBatcher  bool
	NoProposer bool
	// Bare is L1 and the rollups' genesis alone, without operators, batchers and proposer: for
	// other software to run the rollups on. What asks an operator does not work then.
	Bare bool
	// ProposalInterval is the time between the proposer's dispute games.
	ProposalInterval time.Duration
	// Archive has embedded engines write the state of every block, so that a crash loses none.
	Archive bool
	// IngressFilter has the engines' pools ask their operator's executor before they take a
	// transaction in that executes messages.
	IngressFilter bool
	// P2P switches gossip of unsafe blocks on.
	P2P bool
	// L1Poll is how often op-nodes ask for L1's head. 0: 100 ms, so that tests wait for little.
	L1Poll time.Duration
	// ConfDepth is how many L1 blocks behind the L1 head the origin of a block stays.
	ConfDepth uint64

	// Sequencer changes the shared sequencer's configuration, of every operator. May be nil.
	// For operators in processes of their own it is called once, and only times, limits and
	// the number of subblocks are taken.
	Sequencer func(*config.SharedSequencer)
	// Options changes what the op-node is given beside its configuration, OperatorOptions
	// what that of one operator is given. May be nil. Not for processes of their own.
	Options         func(*service.Options)
	OperatorOptions func(operator int, o *service.Options)
	// OperatorFailed is told when an operator in this process cannot go on. nil: the devnet
	// cannot either.
	OperatorFailed func(operator int, err error)

	Log log.Logger
	// LogLevel is that of operators in processes of their own, which log to files. Empty: info.
	LogLevel string
}

// operators is how many there are.
func (c *Config) operators() int { return max(1, c.Operators) }

// powers are the shares of the votes of all operators of the set.
func (c *Config) powers() []uint64 {
	out := make([]uint64, c.operators())
	for i := range out {
		out[i] = 1
	}
	copy(out, c.Powers)
	return out
}

// maxOperators is more than one machine runs.
const maxOperators = 16

// Ports are the ports to listen on, on 127.0.0.1; 0 takes a free one.
type Ports struct {
	L1              int            // HTTP and WebSocket
	Beacon          int            // L1's beacon API
	Node            int            // op-node of chain C: /C/; super roots: /
	SharedSequencer int            // sharedseq
	Status          int            // status page
	Metrics         int            // of op-node; 0: none are served, as upstream's server names no free port
	Engines         map[uint64]int // HTTP and WebSocket, by chain
	// Node, SharedSequencer, Status, Metrics and Engines are the first operator's; Stride is how far those
	// of the next one are behind. 0: the others take free ones.
	Stride int
}

// of are the ports of an operator.
func (p *Ports) of(operator int) (node, rpc, status int, engines map[uint64]int) {
	at := func(port int) int {
		if operator == 0 || port == 0 {
			return port
		}
		if p.Stride == 0 {
			return 0
		}
		return port + operator*p.Stride
	}
	engines = map[uint64]int{}
	for id, port := range p.Engines {
		engines[id] = at(port)
	}
	return at(p.Node), at(p.SharedSequencer), at(p.Status), engines
}

// metrics is the port of an operator's metrics, 0 if it serves none.
func (p *Ports) metrics(operator int) int {
	if p.Metrics == 0 || (operator > 0 && p.Stride == 0) {
		return 0
	}
	return p.Metrics + operator*p.Stride
}

// DefaultConfig is two chains with blocks of one second on an L1 with blocks of two,
// all in one process, on free ports, with a batcher per chain and a proposer.
func DefaultConfig(l log.Logger) Config {
	return Config{
		Chains: []uint64{901, 902}, L1BlockTime: 2, L2BlockTime: 1,
		Engines: Embedded, ProposalInterval: 12 * time.Second, ConfDepth: 2, Log: l,
	}
}

// Check says what is wrong with the configuration, in one line.
func (c *Config) Check() error {
	switch {
	case len(c.Chains) == 0:
		return errors.New("no chains: expected at least one chain ID")
	case c.L1BlockTime < minL1BlockTime:
		return fmt.Errorf("L1 block time of %d s: expected at least %d s", c.L1BlockTime, minL1BlockTime)
	case c.L2BlockTime == 0:
		return errors.New("L2 block time of 0 s: expected at least 1 s")
	case c.L2BlockTime > c.L1BlockTime:
		return fmt.Errorf("L2 block time of %d s: expected at most the L1 block time of %d s", c.L2BlockTime, c.L1BlockTime)
	case slices.ContainsFunc(slices.Collect(maps.Values(c.BlockTimes)), func(t uint64) bool { return t == 0 || t > c.L1BlockTime }):
		return fmt.Errorf("L2 block times %v: expected 1 s to the L1 block time of %d s", c.BlockTimes, c.L1BlockTime)
	case c.Engines != Embedded && c.Engines != Process:
		return fmt.Errorf("engine mode %q: expected %q or %q", c.Engines, Embedded, Process)
	case c.Engines == Process && c.Geth == "":
		return errors.New("no op-geth binary for engines as processes: expected its path")
	case !c.NoProposer && c.ProposalInterval <= 0:
		return fmt.Errorf("proposal interval %v: expected more than 0", c.ProposalInterval)
	case c.Operators < 0 || c.Operators > maxOperators:
		return fmt.Errorf("%d operators: expected 1 to %d", c.Operators, maxOperators)
	case len(c.Powers) > c.operators() || slices.Contains(c.Powers, 0):
		return fmt.Errorf("powers %v of %d operators: expected at most one for each, of 1 or more", c.Powers, c.operators())
	case c.Joiners < 0 || c.operators()+c.Joiners > maxOperators:
		return fmt.Errorf("%d operators that join %d: expected at most %d in all", c.Joiners, c.operators(), maxOperators)
	case c.Subblocks < 0:
		return fmt.Errorf("%d subblocks in a slot: expected 1 or more", c.Subblocks)
	case c.Separate && (c.Options != nil || c.OperatorOptions != nil):
		return errors.New("options of the op-node cannot be changed when operators are processes of their own")
	case c.Log == nil:
		return errors.New("no logger")
	}
	if c.Engines == Process {
		if info, err := os.Stat(c.Geth); err != nil || info.IsDir() {
			return fmt.Errorf("op-geth binary %s: no such file: `make build` makes bin/op-geth", c.Geth)
		}
	}
	return nil
}

// blockTime of a chain, in seconds.
func (c *Config) blockTime(chain uint64) uint64 {
	if t, ok := c.BlockTimes[chain]; ok {
		return t
	}
	return c.L2BlockTime
}

// kept are the settings that a directory is bound to.
type kept struct {
	Chains        []uint64          `json:"chains"`
	L1BlockTime   uint64            `json:"l1BlockTime"`
	L2BlockTime   uint64            `json:"l2BlockTime"`
	BlockTimes    map[uint64]uint64 `json:"blockTimes,omitempty"`
	MessageExpiry uint64            `json:"messageExpiry"`
	Operators     int               `json:"operators,omitempty"` // 0: one that is alone
}

const keptFile = "devnet.json"

// keep binds dir to the settings, or says which of them differs from what it is bound to.
func (c *Config) keep(dir string) error {
	chains := slices.Sorted(slices.Values(c.Chains))
	now := kept{Chains: chains, L1BlockTime: c.L1BlockTime, L2BlockTime: c.L2BlockTime, BlockTimes: c.BlockTimes, MessageExpiry: c.MessageExpiry}
	if n := c.operators(); n > 1 {
		now.Operators = n
	}
	path := filepath.Join(dir, keptFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path+".tmp", data, 0o644); err != nil {
			return err
		}
		return os.Rename(path+".tmp", path)
	}
	if err != nil {
		return err
	}
	var was kept
	if err := json.Unmarshal(data, &was); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	differs := func(what string, is, was any) error {
		return fmt.Errorf("%s is %v, but %s was made with %v: use that, or another directory", what, is, dir, was)
	}
	switch {
	case !slices.Equal(was.Chains, now.Chains):
		return differs("the set of chains", now.Chains, was.Chains)
	case was.L1BlockTime != now.L1BlockTime:
		return differs("the L1 block time", now.L1BlockTime, was.L1BlockTime)
	case was.L2BlockTime != now.L2BlockTime:
		return differs("the L2 block time", now.L2BlockTime, was.L2BlockTime)
	case !maps.Equal(was.BlockTimes, now.BlockTimes):
		return differs("the chains' block times", now.BlockTimes, was.BlockTimes)
	case was.MessageExpiry != now.MessageExpiry:
		return differs("the message expiry", now.MessageExpiry, was.MessageExpiry)
	case was.Operators != now.Operators:
		return differs("the number of operators", max(1, now.Operators), max(1, was.Operators))
	}
	return nil
}
