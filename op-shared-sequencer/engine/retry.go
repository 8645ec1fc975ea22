package engine

import (
	"errors"
	"strings"

	"github.com/ethereum/go-ethereum/core"
)

// later are the reasons not to include a transaction that another block may not have.
// Over RPC only their text arrives.
var later = []error{
	core.ErrGasLimitReached, core.ErrNonceTooHigh, core.ErrFeeCapTooLow,
	errors.New("DA footprint would exceed the block gas limit"), errors.New("block size limit reached"),
}

// MayFitLater says whether a transaction that could not be included (TxResult.Err) may
// be includable in a later block without anything wrong having been mended: the block
// was full, the base fee too high, or an earlier nonce has yet to come.
func MayFitLater(err error) bool {
	if err == nil {
		return false
	}
	for _, l := range later {
		if errors.Is(err, l) || strings.Contains(err.Error(), l.Error()) {
			return true
		}
	}
	return false
}
