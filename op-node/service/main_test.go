package service

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// One pool per process, never stopped.
		goleak.IgnoreTopFunction("github.com/ethereum/go-ethereum/core.(*txSenderCacher).cache"),
		// Ends a second after its database was closed.
		goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
		// CometBFT does not close its write-ahead log's file, only what is behind it.
		goleak.IgnoreTopFunction("github.com/cometbft/cometbft/libs/autofile.OpenAutoFile.func1"),
		goleak.IgnoreTopFunction("github.com/cometbft/cometbft/libs/autofile.(*AutoFile).closeFileRoutine"),
		// op-supernode's chain containers dial themselves in process
		// (attachInProcRollupClient) and do not close that client when they are stopped
		// while they start. We dial nothing in process.
		goleak.IgnoreAnyFunction("github.com/ethereum/go-ethereum/rpc.(*Server).ServeCodec"),
		goleak.IgnoreAnyFunction("github.com/ethereum/go-ethereum/rpc.(*Client).dispatch"),
		goleak.IgnoreTopFunction("net.(*pipe).read"),
	)
}
