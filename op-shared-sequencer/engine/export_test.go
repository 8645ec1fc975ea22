package engine

import "time"

// SetCallTimeout changes the timeout of the calls from now on.
func (c *Client) SetCallTimeout(d time.Duration) { c.rpc.timeout = d }

// SetMaxTxs makes the client split lists at n transactions.
func (c *Client) SetMaxTxs(n int) { c.maxTxs = n }

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
