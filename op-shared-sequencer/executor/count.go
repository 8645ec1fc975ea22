package executor

import "github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"

// Logs is how many logs the chain's block has so far, and how many of them execute messages.
func (s *Slot) Logs(chain sequence.ChainID) (logs, executing int) {
	b := s.open[chain]
	if b == nil {
		return 0, 0
	}
	for i := range b.logs {
		if b.logs[i].Executes != nil {
			executing++
		}
	}
	return len(b.logs), executing
}
