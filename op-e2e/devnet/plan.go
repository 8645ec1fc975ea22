package devnet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/embedded"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

// Names in a devnet's directory.
const (
	genesisDir    = "genesis"
	operatorsDir  = "operators"
	operatorsFile = "operators.json" // genesis of the set
	sequencerDir  = "sequencer"
	planFile      = "plan.json"
	operatorLog   = "operator.log"
)

// operatorPlan says how one operator is run. It is a file for an operator that is a
// process of its own.
type operatorPlan struct {
	Index   int        `json:"index"`
	Root    string     `json:"root"` // the devnet's directory
	Dir     string     `json:"dir"`  // the operator's; the first one's is the devnet's
	L1      string     `json:"l1"`
	Beacon  string     `json:"beacon"`
	Chains  []uint64   `json:"chains"`
	Mode    EngineMode `json:"engines"`
	Geth    string     `json:"geth,omitempty"`
	Small   bool       `json:"smallCaches"`
	Filter  bool       `json:"ingressFilter"`
	Archive bool       `json:"archive"`

	Node        int                 `json:"nodePort"` // 0: any free one, which it then keeps
	RPC         int                 `json:"sharedSequencerPort"`
	StatusPage  bool                `json:"statusPage"`
	Status      int                 `json:"statusPort"`
	Relays      relay.Mode          `json:"relays,omitempty"`
	Streams     bool                `json:"streams"`
	Subblocks   int                 `json:"streamsPort"`
	Metrics     int                 `json:"metricsPort,omitempty"` // 0: none are served
	Engine      map[uint64]int      `json:"enginePorts"`
	EngineP2P   map[uint64]int      `json:"engineP2PPorts,omitempty"`
	EnginePeers map[uint64][]string `json:"enginePeers,omitempty"` // enode URLs

	Operators string   `json:"operators,omitempty"` // genesis file of the set; empty: this operator is alone
	Listen    string   `json:"consensus,omitempty"`
	Peers     []string `json:"consensusPeers,omitempty"`

	ConfDepth uint64        `json:"confDepth"`
	L1Poll    time.Duration `json:"l1Poll,omitempty"` // ns
	P2P       bool          `json:"p2p"`
	Tuning    tuning        `json:"tuning"`
	LogLevel  string        `json:"logLevel"`
}

// tuning is what Config.Sequencer may change for operators in processes of their own.
type tuning struct {
	ChainGrace     time.Duration  `json:"chainGrace"` // ns, as all of them
	FillLead       time.Duration  `json:"fillLead"`
	SealLead       time.Duration  `json:"sealLead"`
	Subblocks      int            `json:"subblocks"`
	Bundles        config.Bundles `json:"bundles"`
	TimeoutPropose time.Duration  `json:"timeoutPropose"`
	TimeoutVote    time.Duration  `json:"timeoutVote"`
	RPCRate        float64        `json:"rpcRate"`
	RelaySlotGas   uint64         `json:"relaySlotGas"`
	RelaySenderGas uint64         `json:"relaySenderGas"`
}

func tuningOf(s *config.SharedSequencer) tuning {
	return tuning{s.ChainGrace, s.FillLead, s.SealLead, s.Subblocks, s.Bundles, s.Agreement.TimeoutPropose, s.Agreement.TimeoutVote, s.RPCRate, s.Relays.SlotGas, s.Relays.SenderGas}
}

func (t *tuning) apply(s *config.SharedSequencer) {
	s.ChainGrace, s.FillLead, s.SealLead, s.Subblocks, s.Bundles = t.ChainGrace, t.FillLead, t.SealLead, t.Subblocks, t.Bundles
	s.Agreement.TimeoutPropose, s.Agreement.TimeoutVote = t.TimeoutPropose, t.TimeoutVote
	s.RPCRate, s.Relays.SlotGas, s.Relays.SenderGas = t.RPCRate, t.RelaySlotGas, t.RelaySenderGas
}

// plans lays out all operators, those that join last: directories, ports, keys, who knows whom.
func (d *Devnet) plans() ([]*operatorPlan, error) {
	n := d.cfg.operators() + d.cfg.Joiners
	plans := make([]*operatorPlan, n)
	ss := config.DefaultSharedSequencer()
	if d.cfg.Subblocks != 0 {
		ss.Subblocks = d.cfg.Subblocks
	}
	if d.cfg.Sequencer != nil {
		d.cfg.Sequencer(&ss)
	}
	for i := range plans {
		p := &operatorPlan{
			Index: i, Root: d.dir, Dir: d.dir, L1: d.l1.HTTP(), Beacon: d.l1.Beacon(), Chains: d.chains,
			Mode: d.cfg.Engines, Geth: d.cfg.Geth, Small: n > 1, ConfDepth: d.cfg.ConfDepth, L1Poll: d.cfg.L1Poll, P2P: d.cfg.P2P, Filter: d.cfg.IngressFilter, Archive: d.cfg.Archive,
			Tuning: tuningOf(&ss), LogLevel: cmp.Or(d.cfg.LogLevel, "info"),
		}
		if i > 0 {
			p.Dir = filepath.Join(d.dir, operatorsDir, strconv.Itoa(i))
		}
		p.Node, p.RPC, p.Status, p.Engine = d.cfg.Ports.of(i)
		p.StatusPage, p.Streams, p.Relays = d.cfg.StatusPage, d.cfg.Streams, d.cfg.Relays
		p.Metrics = d.cfg.Ports.metrics(i)
		plans[i] = p
	}
	ports := newPorts()
	if n == 1 && !d.cfg.Separate {
		if d.cfg.IngressFilter { // the engines have to know it before anything listens there
			plans[0].RPC = ports.next(plans[0].RPC)
		}
		return plans, ports.err
	}
	return plans, d.connect(plans, ports)
}

// connect gives operators of a set their places: ports, which have to be known before
// anything runs, and peers.
func (d *Devnet) connect(plans []*operatorPlan, ports *ports) error {
	for _, p := range plans {
		p.EngineP2P, p.EnginePeers = map[uint64]int{}, map[uint64][]string{}
		engine := map[uint64]int{}
		for _, id := range d.chains {
			p.EngineP2P[id], engine[id] = ports.next(0), ports.next(p.Engine[id])
		}
		p.Node, p.RPC, p.Engine = ports.next(p.Node), ports.next(p.RPC), engine
		if p.StatusPage {
			p.Status = ports.next(p.Status)
		}
		if p.Streams {
			p.Subblocks = ports.next(0)
		}
		p.Listen = fmt.Sprintf("127.0.0.1:%d", ports.next(0))
	}
	if ports.err != nil {
		return ports.err
	}
	if len(plans) == 1 {
		plans[0].Listen = "" // alone: in a process of its own, that is all
		return nil
	}
	file := filepath.Join(d.dir, operatorsFile)
	ids, err := initSet(file, plans, d.cfg.powers(), d.keys)
	if err != nil {
		return err
	}
	for i, p := range plans {
		p.Operators = file
		for j, q := range plans {
			if i == j {
				continue
			}
			addr := q.Listen
			if d.cfg.ConsensusDial != nil {
				addr = d.cfg.ConsensusDial(i, j, addr)
			}
			p.Peers = append(p.Peers, ids[j]+"@"+addr)
			for _, id := range d.chains {
				key, err := d.keys.EngineNode(j, id)
				if err != nil {
					return err
				}
				node := embedded.Peer(&key.PublicKey, net.IPv4(127, 0, 0, 1), q.EngineP2P[id])
				p.EnginePeers[id] = append(p.EnginePeers[id], node.URLv4())
			}
		}
	}
	return nil
}

// consensusDir is where an operator keeps what the agreement needs, its keys among it.
func (p *operatorPlan) consensusDir() string {
	return config.ConsensusDir(filepath.Join(p.Dir, sequencerDir))
}

// initSet makes the operators' consensus keys and the genesis of a set of the first of
// them, those that have power, unless they are there, and returns all node IDs.
func initSet(file string, plans []*operatorPlan, powers []uint64, keys *genesis.Keys) ([]string, error) {
	var ids []string
	g := &operators.Genesis{Set: "devnet", Time: time.Now().UTC().Truncate(time.Second), Chains: chainIDs(plans[0].Chains)}
	for i, p := range plans {
		k, err := cometbft.InitKeys(p.consensusDir())
		if err != nil {
			return nil, fmt.Errorf("operator %d: %w", i, err)
		}
		ids = append(ids, k.NodeID)
		if i >= len(powers) {
			continue
		}
		key, err := keys.Operator(i)
		if err != nil {
			return nil, err
		}
		g.Operators = append(g.Operators, operators.Operator{
			Name: fmt.Sprintf("operator-%d", i), Address: crypto.PubkeyToAddress(key.PublicKey), ConsensusKey: k.ConsensusKey, Power: powers[i],
		})
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return ids, err // nil: it was made before
	}
	return ids, g.Write(file)
}

// write puts the plan where the operator's process looks for it.
func (p *operatorPlan) write() error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	path := planPath(p.Root, p.Index)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func planPath(root string, index int) string {
	return filepath.Join(root, operatorsDir, strconv.Itoa(index), planFile)
}

// logPath is where an operator's process logs.
func (p *operatorPlan) logPath() string {
	return filepath.Join(p.Root, operatorsDir, strconv.Itoa(p.Index), operatorLog)
}

func readPlan(root string, index int) (*operatorPlan, error) {
	path := planPath(root, index)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("operator %d: %w: expected a directory in which a devnet with operators in processes of their own runs", index, err)
	}
	p := new(operatorPlan)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ports gives out free ports. They are below those the kernel gives to connections and
// to listeners that do not care, so that nothing takes them before they are used.
type ports struct {
	at  int
	err error
}

const (
	firstPort = 20_000
	lastPort  = 31_999
)

// newPorts begins somewhere else each time: several devnets may be started at once.
func newPorts() *ports { return &ports{at: firstPort + rand.IntN(lastPort-firstPort)} }

// next is the given port, or a free one if that is 0.
func (p *ports) next(given int) int {
	if given != 0 {
		return given
	}
	for range lastPort - firstPort {
		if p.at++; p.at > lastPort {
			p.at = firstPort
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.at))
		if err != nil {
			continue
		}
		if err := l.Close(); err == nil {
			return p.at
		}
	}
	p.err = fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
	return 0
}
