package devnet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ethereum/go-ethereum/common"
)

// Endpoints is where a devnet listens, for people and tools. Node, SharedSequencer and
// Chains are the first operator's.
type Endpoints struct {
	L1              string                    `json:"l1"`
	L1WS            string                    `json:"l1WS"`
	L1Beacon        string                    `json:"l1Beacon"`
	L1ChainID       uint64                    `json:"l1ChainId"`
	Node            string                    `json:"node"`
	SharedSequencer string                    `json:"sharedSequencer"`
	StatusPage      string                    `json:"statusPage,omitempty"`
	Metrics         string                    `json:"metrics,omitempty"` // of op-node
	Chains          map[uint64]ChainEndpoints `json:"chains"`
	TestToken       common.Address            `json:"testToken"` // ERC-7802, on every L2
	Operators       []OperatorEndpoints       `json:"operators,omitempty"`
}

// OperatorEndpoints is where one operator of several listens.
type OperatorEndpoints struct {
	Address         common.Address            `json:"address"` // of its key
	Node            string                    `json:"node"`
	SharedSequencer string                    `json:"sharedSequencer"`
	StatusPage      string                    `json:"statusPage,omitempty"`
	Chains          map[uint64]ChainEndpoints `json:"chains"`
	PID             int                       `json:"pid,omitempty"` // of its process, if it has its own
}

// ChainEndpoints is where one rollup's services listen.
type ChainEndpoints struct {
	RPC  string `json:"rpc"`
	WS   string `json:"ws"`
	Node string `json:"node"`
}

// EndpointsFile is the name of the file with the endpoints in the devnet's directory. It
// is written when everything runs, and is of the last start.
const EndpointsFile = "endpoints.json"

// Endpoints says where everything listens.
func (d *Devnet) Endpoints() Endpoints {
	e := Endpoints{
		L1: d.l1.HTTP(), L1WS: d.l1.WS(), L1Beacon: d.l1.Beacon(), L1ChainID: d.genesis.L1.Config.ChainID.Uint64(),
		Node: d.NodeURL(), SharedSequencer: d.SharedSequencerURL(), StatusPage: d.ops[0].StatusPageURL(),
		Chains: d.ops[0].endpoints(), TestToken: d.genesis.TestToken,
	}
	if port := d.cfg.Ports.metrics(0); port != 0 {
		e.Metrics = fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
	}
	if len(d.ops) > 1 {
		for _, o := range d.ops {
			e.Operators = append(e.Operators, OperatorEndpoints{
				Address: o.Address(), Node: o.NodeURL(), SharedSequencer: o.SharedSequencerURL(), StatusPage: o.StatusPageURL(), Chains: o.endpoints(), PID: o.PID(),
			})
		}
	}
	return e
}

func (o *Operator) endpoints() map[uint64]ChainEndpoints {
	out := map[uint64]ChainEndpoints{}
	for _, id := range o.chains {
		out[id] = ChainEndpoints{RPC: o.EngineRPC(id), WS: o.EngineWS(id), Node: o.NodeRPC(id)}
	}
	return out
}

func (d *Devnet) writeEndpoints() error {
	data, err := json.MarshalIndent(d.Endpoints(), "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir, EndpointsFile)
	if err := os.WriteFile(path+".tmp", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// ReadEndpoints reads the endpoints of the devnet in dir.
func ReadEndpoints(dir string) (*Endpoints, error) {
	data, err := os.ReadFile(filepath.Join(dir, EndpointsFile))
	if err != nil {
		return nil, err
	}
	e := new(Endpoints)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("%s in %s: %w", EndpointsFile, dir, err)
	}
	return e, nil
}
