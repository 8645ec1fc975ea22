package operators

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// maxGenesisBytes is the largest genesis file that is read.
const maxGenesisBytes = 1 << 20

// Genesis is the set as it began: the same file at every operator. JSON.
type Genesis struct {
	Set       string             `json:"set"`  // name of the set; CometBFT's chain ID
	Time      time.Time          `json:"time"` // when the set begins to agree; UTC
	Operators []Operator         `json:"operators"`
	Chains    []sequence.ChainID `json:"chains"`
}

// LoadGenesis reads and checks a genesis file.
func LoadGenesis(path string) (*Genesis, error) {
	data, err := readFile(osFiles{}, path, maxGenesisBytes)
	if err != nil {
		return nil, fmt.Errorf("operators' genesis: %w", err)
	}
	g, err := DecodeGenesis(data)
	if err != nil {
		return nil, fmt.Errorf("operators' genesis %s: %w", path, err)
	}
	return g, nil
}

// DecodeGenesis reads a genesis file's content and checks it. Unknown fields are errors:
// a misspelt one would make another set than the one that was meant.
func DecodeGenesis(data []byte) (*Genesis, error) {
	if len(data) > maxGenesisBytes {
		return nil, fmt.Errorf("%w genesis: %d bytes, at most %d", ErrMalformed, len(data), maxGenesisBytes)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	g := new(Genesis)
	if err := d.Decode(g); err != nil {
		return nil, fmt.Errorf("%w genesis: %w", ErrMalformed, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w genesis: something stands behind the JSON object", ErrMalformed)
	}
	return g, g.Check()
}

// Write writes the file, synced, replacing it whole or not at all.
func (g *Genesis) Write(path string) error {
	if err := g.Check(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("operators' genesis: %w", err)
	}
	if err := replaceFile(osFiles{}, path, append(data, '\n')); err != nil {
		return fmt.Errorf("operators' genesis: %w", err)
	}
	return nil
}

// Check says whether a set can begin like this.
func (g *Genesis) Check() error {
	if !validName(g.Set) {
		return fmt.Errorf("%w genesis: set name %.80q must have 1 to %d letters, digits, dots, dashes or underscores", ErrMalformed, g.Set, MaxNameBytes)
	}
	// Times that int64 nanoseconds hold: the time is hashed as such.
	if y := g.Time.UTC().Year(); y < 1971 || y > 2261 {
		return fmt.Errorf("%w genesis: time %s must be set, between 1971 and 2261", ErrMalformed, g.Time)
	}
	if err := checkOperators(g.Operators); err != nil {
		return err
	}
	return checkChains(sortedChains(g.Chains))
}

var genesisDomain = crypto.Keccak256Hash([]byte("op-shared-sequencer/genesis/1"))

// ID is the hash of what the genesis says, and part of everything the operators sign. The
// order of operators and chains in the file does not matter.
func (g *Genesis) ID() common.Hash {
	enc, err := rlp.EncodeToBytes(&struct {
		Set       string
		Time      uint64
		Operators []Operator
		Chains    []sequence.ChainID
	}{g.Set, uint64(g.Time.UnixNano()), sortedOperators(g.Operators), sortedChains(g.Chains)})
	if err != nil { // every field has an RLP form
		panic(err)
	}
	return crypto.Keccak256Hash(genesisDomain[:], enc)
}

func sortedOperators(list []Operator) []Operator {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b Operator) int { return a.Address.Cmp(b.Address) })
	return out
}

func sortedChains(list []sequence.ChainID) []sequence.ChainID {
	out := slices.Clone(list)
	slices.SortFunc(out, cmp.Compare[sequence.ChainID])
	return out
}

// checkChains wants them ascending.
func checkChains(list []sequence.ChainID) error {
	if len(list) == 0 || len(list) > MaxChains {
		return fmt.Errorf("%w set: it has %d chains, it must have 1 to %d", ErrMalformed, len(list), MaxChains)
	}
	if list[0] == 0 {
		return fmt.Errorf("%w set: chain ID 0", ErrMalformed)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1] >= list[i] {
			return fmt.Errorf("%w set: chain %s is not behind chain %s", ErrMalformed, list[i], list[i-1])
		}
	}
	return nil
}
