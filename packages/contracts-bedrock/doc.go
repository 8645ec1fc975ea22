// Package contracts has the tests of the Solidity sources in this build kit. The kit's program is in cmd/build.
package contracts
