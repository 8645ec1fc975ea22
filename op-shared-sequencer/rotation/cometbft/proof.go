package cometbft

import (
	"errors"
	"fmt"

	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// proof is what a height's votes are for. With it, they prove to whoever has the operators'
// keys that this subblock was agreed on, and who led it.
type proof struct {
	header    *types.Header
	signature operators.Signature // the leader's, of the subblock
	changes   [][]byte            // what was in the block beside the subblock
}

// A proof stands behind the votes in the ledger, as further fields of their protobuf
// message: versions that do not know these skip them.
const (
	fieldHeader    protowire.Number = 101 // CometBFT's header, protobuf
	fieldSignature protowire.Number = 102
	fieldChange    protowire.Number = 103 // repeated
)

func (p *proof) appendTo(votes []byte) ([]byte, error) {
	header, err := p.header.ToProto().Marshal()
	if err != nil {
		return nil, err
	}
	field := func(n protowire.Number, data []byte) {
		votes = protowire.AppendBytes(protowire.AppendTag(votes, n, protowire.BytesType), data)
	}
	field(fieldHeader, header)
	field(fieldSignature, p.signature[:])
	for _, c := range p.changes {
		field(fieldChange, c)
	}
	return votes, nil
}

// parseVotes reads votes with their proof, which is nil if they have none.
func parseVotes(data []byte) (*types.Commit, *proof, error) {
	var pc cmtproto.Commit
	if err := pc.Unmarshal(data); err != nil {
		return nil, nil, fmt.Errorf("votes: %w", err)
	}
	commit, err := types.CommitFromProto(&pc)
	if err != nil {
		return nil, nil, fmt.Errorf("votes: %w", err)
	}
	var p proof
	for len(data) > 0 {
		n, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return nil, nil, fmt.Errorf("votes: %w", protowire.ParseError(size))
		}
		data = data[size:]
		if size = protowire.ConsumeFieldValue(n, kind, data); size < 0 {
			return nil, nil, fmt.Errorf("votes: %w", protowire.ParseError(size))
		}
		value := data[:size]
		data = data[size:]
		if n < fieldHeader || n > fieldChange {
			continue
		}
		if kind != protowire.BytesType {
			return nil, nil, fmt.Errorf("proof of the votes: field %d has type %d", n, kind)
		}
		value, _ = protowire.ConsumeBytes(value)
		if err := p.take(n, value); err != nil {
			return nil, nil, fmt.Errorf("proof of the votes: %w", err)
		}
	}
	if p.header == nil {
		return commit, nil, nil
	}
	return commit, &p, nil
}

func (p *proof) take(n protowire.Number, value []byte) error {
	switch n {
	case fieldHeader:
		var h cmtproto.Header
		if err := h.Unmarshal(value); err != nil {
			return err
		}
		header, err := types.HeaderFromProto(&h)
		if err != nil {
			return err
		}
		p.header = &header
	case fieldSignature:
		if len(value) != len(p.signature) {
			return errors.New("a leader's signature of another length")
		}
		p.signature = operators.Signature(value)
	case fieldChange:
		p.changes = append(p.changes, value)
	}
	return nil
}
