// Package sdk has the tests that keep the TypeScript SDK beside it true to the Go code: test
// vectors, and the error codes of the RPC.
package sdk
