// Package sim runs operators that need not trust each other in one thread, on a clock of
// its own, from a seed: the sequencer core, executor, builder, bundle pool, relayer and
// ledger of production over fake engines, fake drivers, a simulated L1, and a simulated
// agreement over a network that loses, delays and splits. Everything that may go wrong
// goes wrong at random, and after every step what must hold is checked (check.go). The
// same seed gives the same run, event by event.
//
// # Time
//
// Only the event loop moves the clock. A call of the core that waits on its clock does not
// wait: its own clock goes ahead, and the operator takes in nothing else until the others
// have come to that time (clock.go). So calls do not interleave within one operator, except
// where the clock lets something in on purpose; races are for go test -race.
//
// # What stands in for what
//
// Tendermint is written down once more here (agreement.go) as rotation/cometbft uses it:
// height = subblock, a proposal is judged by Machine.Verify, a commit survives crashes
// before Machine.Commit sees it, what was committed behind Machine.Agreed is committed again
// after a restart. Message history is kept in memory with the contract of
// executor/history, whose database preallocates files that are too large for thousands of
// runs; the ledger is the real one on ledger.Memory, which loses what was not synced.
package sim
