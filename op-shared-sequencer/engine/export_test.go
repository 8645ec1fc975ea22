package engine

import (
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// SetCallTimeout changes the timeout of the calls from now on.
func (c *Client) SetCallTimeout(d time.Duration) { c.rpc.timeout = d }

// SetMaxTxs makes the client split lists at n transactions.
func (c *Client) SetMaxTxs(n int) { c.maxTxs = n }

// Known is the digest of the transactions that a session has seen.
func Known(s Session) common.Hash {
	_, digest := s.(*clientSession).known.take()
	return digest
}

// Codes are the error codes the client knows, by their name in op-geth.
var Codes = map[string]int{
	"CodeUnknownSession":         codeUnknownSession,
	"CodeTooManySessions":        codeTooManySessions,
	"CodeSessionExpired":         codeSessionExpired,
	"CodeUnknownParent":          codeUnknownParent,
	"CodeParentStateUnavailable": codeParentStateUnavailable,
	"CodeForcedTx":               codeForcedTx,
	"CodeUnknownSavepoint":       codeUnknownSavepoint,
	"CodeBadTransaction":         codeBadTransaction,
	"CodeTooManyTransactions":    codeTooManyTransactions,
	"CodePoolBehind":             codePoolBehind,
	"CodeUnknownSealedBlock":     codeUnknownSealedBlock,
	"CodeSealFailed":             codeSealFailed,
	"CodeInsertFailed":           codeInsertFailed,
	"CodeCondition":              codeCondition,
	"CodeNoCut":                  codeNoCut,
}
