// Package ledger is the synced write-ahead log of what was agreed and sealed. A slot
// goes into it before any engine or op-node is told of its blocks, so after a crash it
// can bring every engine back to the head the chain had (Refill).
//
// # Why not a library
//
// The log must do three things that the stores in this module's graph do not. A damaged
// record with later records behind it must stop the start, because going on would
// silently drop agreed blocks: pebble v1 takes any bad chunk of the newest WAL for its
// end (DB.replayWAL). A full disk must fail the append and leave the log usable: in
// pebble v1 a failed WAL write ends the process (DB.applyInternal calls Fatalf). A second
// opener must get an error at once: hashicorp/raft-wal, which calls itself experimental,
// waits for bbolt's lock without end. What is left is a few files of checksummed frames;
// that is what segment.go is.
//
// # Files
//
// A log is a directory of segments, named by the sequence number of their first frame:
//
//	segment: magic [8] ‖ first [8] ‖ mark [8] ‖ crc32c of these [4] ‖ frame…
//	frame:   mark [8] ‖ seq [8] ‖ size [4] ‖ crc32c of the body [4] ‖ crc32c of these [4] ‖ body [size]
//	body:    kind [1] ‖ content
//
// Integers are little-endian. Each append is one write and one fsync, and the next one
// does not start before it: a crash can tear only the last frame of the last segment.
// Open cuts that off and warns. Damage anywhere else is ErrCorrupt; damage to that last
// frame after it was synced cannot be told from a torn write. The
// mark is random per segment: users choose the content of transactions, and without it
// they could put bytes into a block that look like a frame behind a torn one.
//
// A segment begins with the state the log was in, so older segments can be deleted.
//
// # Chains, heads and runs
//
// The payloads of a chain are linked by parent hash. Most of a chain's blocks are in the
// log, but blocks that derivation makes (after an L1 reorg, an invalidation, or while the
// chain was left out) are not: a payload on a parent the log does not hold starts a new
// run. The head is the newest payload, or the block the last Rewind named. Payloads that
// the head does not descend from are void: they stay readable, but are never refilled.
package ledger
