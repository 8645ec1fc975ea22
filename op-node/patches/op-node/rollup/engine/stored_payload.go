package engine

import (
	"context"

	"github.com/ethereum/go-ethereum/common"

	"github.com/ethereum-optimism/optimism/op-service/eth"
)

// AnswerStored has NewPayload answered here, as VALID, for blocks of which stored says that the
// engine has them: NewPayload is there to execute and store a block, and sends all of it. To be
// called before the driver starts.
func (e *EngineController) AnswerStored(stored func(block common.Hash) bool) {
	e.engine = &storedPayloads{e.engine, stored}
}

type storedPayloads struct {
	ExecEngine
	stored func(block common.Hash) bool
}

func (s *storedPayloads) NewPayload(ctx context.Context, payload *eth.ExecutionPayload, parentBeaconBlockRoot *common.Hash) (*eth.PayloadStatusV1, error) {
	if hash := payload.BlockHash; s.stored(hash) {
		return &eth.PayloadStatusV1{Status: eth.ExecutionValid, LatestValidHash: &hash}, nil
	}
	return s.ExecEngine.NewPayload(ctx, payload, parentBeaconBlockRoot)
}
