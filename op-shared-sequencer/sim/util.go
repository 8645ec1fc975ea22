package sim

import (
	"context"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
)

var bg = context.Background()

type loggedAt struct {
	*types.Log
	number, time uint64
}

func txHash(raw []byte) common.Hash { return crypto.Keccak256Hash(raw) }

func payloadHash(l *types.Log) common.Hash {
	return crypto.Keccak256Hash(messages.LogToMessagePayload(l))
}
