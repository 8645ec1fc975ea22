// Package compose lays out a devnet whose components are containers, brings it up with
// docker compose, changes it while it runs, and checks it. It is behind `make devnet-up` and
// its like; ops/docker/README.md is for those who use it.
package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	// MaxChains and MaxOperators are more than one machine runs. The ports of an operator
	// depend on them, see ports.go.
	MaxChains    = 16
	MaxOperators = 16
	// firstChain is the chain ID of the first rollup; the others follow it.
	firstChain = 901
)

// DefaultPortBase is the first of the ports that are published, all on 127.0.0.1.
const DefaultPortBase = 18500

// Config says what a devnet is made of.
type Config struct {
	// Chains and Operators are how many there are. One operator is alone and agrees with nobody.
	Chains    int
	Operators int
	// Blobs makes the batchers post blobs instead of calldata.
	Blobs bool
	// PortBase is the first of the published ports.
	PortBase int
	// Project is docker compose's name for it: two devnets of one machine need two.
	Project string
	// Tag is that of the images.
	Tag string
	// Artifacts are the built contracts. Empty: those of the repository around the working
	// directory.
	Artifacts string
	// Monitoring is where prometheus/ and grafana/ with rules and dashboards are, for the
	// profile "monitoring".
	Monitoring string
}

var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// Check says what is wrong with the configuration, in one line.
func (c *Config) Check() error {
	switch {
	case c.Chains < 1 || c.Chains > MaxChains:
		return fmt.Errorf("%d chains: expected 1 to %d", c.Chains, MaxChains)
	case c.Operators < 1 || c.Operators > MaxOperators:
		return fmt.Errorf("%d operators: expected 1 to %d", c.Operators, MaxOperators)
	case c.PortBase < 1024 || c.PortBase+portSpan > 65536:
		return fmt.Errorf("port base %d: expected 1024 to %d, %d ports follow it", c.PortBase, 65536-portSpan, portSpan)
	case !projectName.MatchString(c.Project):
		return fmt.Errorf("project %q: expected lower-case letters, digits, - and _", c.Project)
	case c.Tag == "" || strings.ContainsAny(c.Tag, " :/"):
		return fmt.Errorf("tag %q: expected that of images, such as dev", c.Tag)
	}
	return nil
}

// Powers are the votes of n operators, such that all but the last one have more than two
// thirds, if n is 3 or more. Three with the same power could not do without any: two thirds
// is not more than two thirds. So the first two have 2 and the third has 1.
func Powers(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = 1
	}
	if n == 3 {
		out[0], out[1] = 2, 2
	}
	return out
}

// canMiss says whether the others go on without operator i.
func canMiss(powers []uint64, i int) bool {
	var total uint64
	for _, p := range powers {
		total += p
	}
	return 3*(total-powers[i]) > 2*total
}

// standsOut are the operators any one of which may fail, from 1.
func standsOut(powers []uint64) []int {
	var out []int
	for i := range powers {
		if canMiss(powers, i) {
			out = append(out, i+1)
		}
	}
	return out
}

// Tolerance says in words which operators the devnet can do without.
func Tolerance(powers []uint64) string {
	out := standsOut(powers)
	switch {
	case len(powers) == 1:
		return "one operator, which is alone: without it there are no slots"
	case len(out) == 0:
		return fmt.Sprintf("%d operators with powers %v: all of them are needed, slots stop when one is down", len(powers), powers)
	case len(out) == len(powers):
		return fmt.Sprintf("%d operators with powers %v: slots go on when any one of them is down", len(powers), powers)
	}
	names := make([]string, len(out))
	for i, n := range out {
		names[i] = fmt.Sprint(n)
	}
	return fmt.Sprintf("%d operators with powers %v: slots go on when operator %s is down, not without another", len(powers), powers, strings.Join(names, " or "))
}

// layout is what a directory holds: what was written, and what was added since.
type layout struct {
	Config
	ChainIDs []uint64   `json:"chainIds"` // ascending
	Members  []operator `json:"operators"`
}

// operator is one of the set, or about to be.
type operator struct {
	Number int    `json:"number"` // from 1
	Power  uint64 `json:"power"`
	NodeID string `json:"nodeId"` // in the agreement; empty if it is alone
}

const layoutFile = "layout.json"

func (l *layout) powers() []uint64 {
	out := make([]uint64, len(l.Members))
	for i, m := range l.Members {
		out[i] = m.Power
	}
	return out
}

func (l *layout) alone() bool { return len(l.Members) == 1 }

// errNone: there is no devnet in the directory.
var errNone = errors.New("there is no devnet")

func readLayout(dir string) (*layout, error) {
	data, err := os.ReadFile(filepath.Join(dir, layoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: make devnet-up makes one", errNone, dir)
	}
	if err != nil {
		return nil, err
	}
	l := new(layout)
	if err := json.Unmarshal(data, l); err != nil {
		return nil, fmt.Errorf("%s in %s: %w", layoutFile, dir, err)
	}
	return l, nil
}

func (l *layout) write(dir string) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, layoutFile), append(data, '\n'))
}

// writeFile writes a file that is either as it was or whole.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
