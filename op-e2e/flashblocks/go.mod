// The decoder of the optimism module is of an older version than the one the project is built
// with, so it has a module of its own.
module github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/flashblocks

go 1.26

require github.com/ethereum-optimism/optimism v1.16.0
