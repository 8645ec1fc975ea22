// This file only keeps `go build ./...` of the main module out of this directory:
// the packages here compile inside op-geth. It is not copied there.
module github.com/op-shared-sequencer/op-shared-sequencer/op-geth-patches

go 1.26.0
