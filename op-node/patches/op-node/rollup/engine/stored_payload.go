package engine

import (
	"context"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

// AnswerStored has NewPayload answered here, as VALID, for payloads of which stored says that the
// engine has their blocks: NewPayload is there to execute and store a block, and sends all of it.
// A payload is known by its address, so that no other call is meant. To be called before the
// driver starts.
func (e *EngineController) AnswerStored(stored func(payload *eth.ExecutionPayload) bool) {
	e.engine = &storedPayloads{e.engine, stored}
}

type storedPayloads struct {
	ExecEngine
	stored func(payload *eth.ExecutionPayload) bool
}

func (s *storedPayloads) NewPayload(ctx context.Context, payload *eth.ExecutionPayload, parentBeaconBlockRoot *common.Hash) (*eth.PayloadStatusV1, error) {
	if s.stored(payload) {
		hash := payload.BlockHash
		return &eth.PayloadStatusV1{Status: eth.ExecutionValid, LatestValidHash: &hash}, nil
	}
	return s.ExecEngine.NewPayload(ctx, payload, parentBeaconBlockRoot)
}
