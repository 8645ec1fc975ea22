package main

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/log"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/ethereum-optimism/optimism/op-service/cliapp"
	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

var errRead = errors.New("configuration read")

// parse reads arguments as the command does and returns the configuration, instead
// of starting, with everything that was printed.
func parse(t *testing.T, args ...string) (*config.Config, string, error) {
	t.Helper()
	args = append([]string{"op-node"}, args...)
	var got *config.Config
	app, err := newApp(args, func(_ *cli.Context, c *config.Config, _ log.Logger, _ context.CancelCauseFunc) (cliapp.Lifecycle, error) {
		got = c
		return nil, errRead
	})
	if err != nil {
		return nil, "", err
	}
	var out strings.Builder
	app.Writer, app.ErrWriter = &out, io.Discard
	err = app.RunContext(context.Background(), args)
	if errors.Is(err, errRead) {
		err = nil
	}
	return got, out.String(), err
}

// mainnets are arguments that start two chains of one L1.
func mainnets(t *testing.T, more ...string) []string {
	t.Helper()
	dir := t.TempDir()
	jwt := filepath.Join(dir, "jwt")
	require.NoError(t, os.WriteFile(jwt, []byte(strings.Repeat("11", 32)), 0o600))
	return append([]string{
		"--chains=10,130", "--data-dir=" + filepath.Join(dir, "data"), "--disable-p2p",
		"--l1=http://127.0.0.1:1", "--l1.beacon=http://127.0.0.1:2", "--vn.all.l2.jwt-secret=" + jwt,
		"--vn.10.network=op-mainnet", "--vn.10.l2=ws://127.0.0.1:3",
		"--vn.130.network=unichain-mainnet", "--vn.130.l2=ws://127.0.0.1:4",
	}, more...)
}

func TestDefaults(t *testing.T) {
	t.Run("off", func(t *testing.T) {
		c, _, err := parse(t, mainnets(t)...)
		require.NoError(t, err)
		require.Equal(t, config.SharedSequencer{}, c.SharedSequencer)
		require.Equal(t, []uint64{10, 130}, c.Host.Chains)
		require.Len(t, c.Nodes, 2)
		for id, n := range c.Nodes {
			require.False(t, n.Driver.SequencerEnabled, "chain %s", id)
			require.Nil(t, n.Driver.SequencerFactory, "chain %s", id)
		}
	})
	t.Run("on", func(t *testing.T) {
		args := mainnets(t, "--shared-sequencer.enabled")
		c, _, err := parse(t, args...)
		require.NoError(t, err)
		want := config.DefaultSharedSequencer()
		want.Enabled = true
		want.Chains = []sequence.ChainID{10, 130}
		want.DataDir = filepath.Join(c.Host.DataDir, "shared-sequencer")
		jwt := eth.Bytes32([]byte(strings.Repeat("\x11", 32)))
		want.Engines = map[sequence.ChainID]config.Engine{
			10: {URL: "ws://127.0.0.1:3", JWT: jwt}, 130: {URL: "ws://127.0.0.1:4", JWT: jwt},
		}
		require.Equal(t, want, c.SharedSequencer)
		require.Equal(t, "127.0.0.1", c.SharedSequencer.RPC.ListenAddr, "closed to other machines unless opened")
		for id, n := range c.Nodes {
			require.True(t, n.Driver.SequencerEnabled, "chain %s: the driver asks for a sequencer only then", id)
		}
	})
}

func TestSharedSequencerFlags(t *testing.T) {
	dir := t.TempDir()
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("relayer")))
	require.NoError(t, err)
	keyFile, jwt := filepath.Join(dir, "key"), filepath.Join(dir, "jwt")
	require.NoError(t, os.WriteFile(keyFile, []byte("0x"+hex.EncodeToString(crypto.FromECDSA(key))+"\n"), 0o600))
	require.NoError(t, os.WriteFile(jwt, []byte(strings.Repeat("22", 32)), 0o600))

	c, _, err := parse(t, mainnets(t, "--shared-sequencer.enabled",
		"--shared-sequencer.chains=130", "--shared-sequencer.data-dir="+dir,
		"--shared-sequencer.rpc.addr=0.0.0.0", "--shared-sequencer.rpc.port=0",
		"--shared-sequencer.admin.addr=127.0.0.2", "--shared-sequencer.admin.port=7", "--shared-sequencer.admin.jwt-secret="+jwt,
		"--shared-sequencer.status.addr=127.0.0.3", "--shared-sequencer.status.port=8",
		"--shared-sequencer.subblocks.addr=127.0.0.4", "--shared-sequencer.subblocks.port=9", "--shared-sequencer.rpc.rate-limit=2.5",
		"--shared-sequencer.engines=130=http://user:pass@127.0.0.1:5", "--shared-sequencer.engines.jwt-secret=130="+jwt,
		"--shared-sequencer.relayer-key-file="+keyFile, "--shared-sequencer.chain-grace=2s",
		"--shared-sequencer.relay.policy=allow-list", "--shared-sequencer.relay.allow=0x0000000000000000000000000000000000000001",
		"--shared-sequencer.relay.message-gas=9", "--shared-sequencer.relay.slot-gas=10", "--shared-sequencer.relay.sender-gas=11",
		"--shared-sequencer.fill-lead=500ms", "--shared-sequencer.seal-lead=200ms",
		"--shared-sequencer.bundles.max-items=1", "--shared-sequencer.bundles.max-bytes=2",
		"--shared-sequencer.bundles.max-pending=3", "--shared-sequencer.bundles.max-per-sender=4",
		"--shared-sequencer.subblocks-per-slot=5", "--shared-sequencer.order=fcfs", "--shared-sequencer.arrivals=arrivals.jsonl")...)
	require.NoError(t, err)
	require.Equal(t, config.SharedSequencer{
		Enabled: true, Chains: []sequence.ChainID{130}, DataDir: dir,
		RPC:    config.RPC{ListenAddr: "0.0.0.0"},
		Admin:  config.Admin{ListenAddr: "127.0.0.2", ListenPort: 7, JWT: eth.Bytes32([]byte(strings.Repeat("\x22", 32)))},
		Status: config.RPC{ListenAddr: "127.0.0.3", ListenPort: 8}, Streams: config.RPC{ListenAddr: "127.0.0.4", ListenPort: 9}, RPCRate: 2.5,
		Engines: map[sequence.ChainID]config.Engine{
			130: {URL: "http://user:pass@127.0.0.1:5", JWT: eth.Bytes32([]byte(strings.Repeat("\x22", 32)))},
		},
		RelayerKey: key, Relays: relay.Policy{Mode: relay.AllowList, Allowed: []common.Address{{19: 1}}, SlotGas: 10, SenderGas: 11}, RelayGas: 9,
		Tracing:    config.DefaultSharedSequencer().Tracing,
		ChainGrace: 2 * time.Second,
		FillLead:   500 * time.Millisecond, SealLead: 200 * time.Millisecond,
		Bundles:   config.Bundles{MaxItems: 1, MaxBytes: 2, MaxPending: 3, MaxPerSender: 4},
		Subblocks: 5, Order: engine.FCFS, Arrivals: "arrivals.jsonl", Rotation: config.Solo, Agreement: config.DefaultSharedSequencer().Agreement,
	}, c.SharedSequencer)
	require.False(t, c.Nodes[eth.ChainIDFromUInt64(10)].Driver.SequencerEnabled, "chain 10 is not in the set")
	require.True(t, c.Nodes[eth.ChainIDFromUInt64(130)].Driver.SequencerEnabled)
}

// genesisFile is a set of one operator.
func genesisFile(t *testing.T) (string, *operators.Genesis) {
	t.Helper()
	g := &operators.Genesis{
		Set: "test", Time: time.Unix(1_700_000_000, 0).UTC(), Chains: []sequence.ChainID{10, 130},
		Operators: []operators.Operator{{Name: "one", Address: common.Address{1}, ConsensusKey: operators.ConsensusKey{1}, Power: 1}},
	}
	path := filepath.Join(t.TempDir(), "operators.json")
	require.NoError(t, g.Write(path))
	return path, g
}

func TestAgreementFlags(t *testing.T) {
	file, genesis := genesisFile(t)
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("operator")))
	require.NoError(t, err)
	keyFile := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(keyFile, []byte(hex.EncodeToString(crypto.FromECDSA(key))), 0o600))
	a, b := strings.Repeat("0a", 20)+"@one.example:26656", strings.Repeat("0b", 20)+"@10.0.0.2:1"
	c, _, err := parse(t, mainnets(t, "--shared-sequencer.enabled", "--shared-sequencer.rotation=cometbft",
		"--shared-sequencer.operators="+file, "--shared-sequencer.operator-key-file="+keyFile,
		"--shared-sequencer.consensus.listen=:0", "--shared-sequencer.consensus.peers="+a+","+b,
		"--shared-sequencer.consensus.timeout-propose=1s", "--shared-sequencer.consensus.timeout-vote=2s")...)
	require.NoError(t, err)
	require.Equal(t, config.CometBFT, c.SharedSequencer.Rotation)
	require.Equal(t, config.Agreement{
		Operators: genesis, OperatorKey: key, Listen: ":0", Peers: []string{a, b}, TimeoutPropose: time.Second, TimeoutVote: 2 * time.Second,
	}, c.SharedSequencer.Agreement)

	// The same key under a password.
	sealed, err := keyfile.Encode(key, "correct horse", keyfile.Light)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(keyFile, sealed, 0o600))
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("correct horse\n"), 0o600))
	protected := mainnets(t, "--shared-sequencer.enabled", "--shared-sequencer.rotation=cometbft",
		"--shared-sequencer.operators="+file, "--shared-sequencer.operator-key-file="+keyFile)
	c, _, err = parse(t, append(protected, "--shared-sequencer.operator-password-file="+password)...)
	require.NoError(t, err)
	require.True(t, key.Equal(c.SharedSequencer.Agreement.OperatorKey))
	require.True(t, c.SharedSequencer.Agreement.Password == "correct horse")
	_, _, err = parse(t, protected...)
	require.ErrorContains(t, err, "protected by a password, and none was given: expected --shared-sequencer.operator-password-file")
	require.NoError(t, os.WriteFile(password, []byte("wrong"), 0o600))
	_, _, err = parse(t, append(protected, "--shared-sequencer.operator-password-file="+password)...)
	require.ErrorContains(t, err, "--shared-sequencer.operator-key-file: "+keyFile+": wrong password")

	c, _, err = parse(t, mainnets(t, "--shared-sequencer.enabled", "--shared-sequencer.rotation=cometbft", "--shared-sequencer.operators="+file)...)
	require.NoError(t, err)
	require.Nil(t, c.SharedSequencer.Agreement.OperatorKey, "a node without a key follows")
}

func TestEnvironment(t *testing.T) {
	t.Setenv("OP_SUPERNODE_CHAINS", "10,130")
	t.Setenv("OP_SUPERNODE_VN_10_NETWORK", "op-mainnet")
	t.Setenv("OP_NODE_SHARED_SEQUENCER_ENABLED", "true")
	t.Setenv("OP_NODE_SHARED_SEQUENCER_CHAIN_GRACE", "7s")
	args := mainnets(t)[1:] // without --chains
	args = append(args[:5:5], args[6:]...)
	c, _, err := parse(t, args...)
	require.NoError(t, err)
	require.Equal(t, []sequence.ChainID{10, 130}, c.SharedSequencer.Chains)
	require.Equal(t, 7*time.Second, c.SharedSequencer.ChainGrace)
	require.Equal(t, big.NewInt(10), c.Nodes[eth.ChainIDFromUInt64(10)].Rollup.L2ChainID)
}

// Every mistake is answered with one line that names the flag and what is expected.
func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	require.NoError(t, os.WriteFile(bad, []byte("not hex"), 0o600))
	missing := filepath.Join(dir, "missing")
	secret := strings.Repeat("ab", 31)

	on := "--shared-sequencer.enabled"
	file, _ := genesisFile(t)
	// agree are the arguments of an operator of a set, with more.
	agree := func(more ...string) []string {
		return append([]string{on, "--shared-sequencer.rotation=cometbft", "--shared-sequencer.operators=" + file}, more...)
	}
	node := strings.Repeat("0a", 20)
	for name, tt := range map[string]struct {
		args []string
		want []string
		hide string // must not be in the error
	}{
		"unknown flag":      {[]string{"--shared-sequencer.enable"}, []string{"flag provided but not defined", "shared-sequencer.enable"}, ""},
		"not a bool":        {[]string{on + "=yes"}, []string{"yes", "enabled"}, ""},
		"not a duration":    {[]string{on, "--shared-sequencer.fill-lead=300"}, []string{"300", "fill-lead"}, ""},
		"stray argument":    {[]string{on, "130"}, []string{`"130"`, "expected only flags"}, ""},
		"unknown chain":     {[]string{on, "--shared-sequencer.chains=11"}, []string{"shared-sequencer.chains", "chain 11 is not in --chains"}, ""},
		"chain twice":       {[]string{on, "--shared-sequencer.chains=10,10"}, []string{"shared-sequencer.chains", "chain 10", "twice"}, ""},
		"port":              {[]string{on, "--shared-sequencer.rpc.port=65536"}, []string{"rpc.port", "65536", "between 0 and 65535"}, ""},
		"engine form":       {[]string{on, "--shared-sequencer.engines=http://user:hunter2@127.0.0.1:5"}, []string{"shared-sequencer.engines", "<chainID>=<value>"}, "hunter2"},
		"engine chain":      {[]string{on, "--shared-sequencer.engines=11=http://127.0.0.1:5"}, []string{"shared-sequencer.engines", "chain 11", "expected one of"}, ""},
		"engine twice":      {[]string{on, "--shared-sequencer.engines=10=http://127.0.0.1:5,10=http://127.0.0.1:6"}, []string{"shared-sequencer.engines", "chain 10", "twice"}, ""},
		"engine scheme":     {[]string{on, "--shared-sequencer.engines=10=ftp://127.0.0.1:5"}, []string{"shared-sequencer.engines", "chain 10", "ftp", "http, https, ws or wss"}, ""},
		"engine URL":        {[]string{on, "--shared-sequencer.engines=10=127.0.0.1"}, []string{"shared-sequencer.engines", "chain 10", "not a URL"}, ""},
		"engine jwt file":   {[]string{on, "--shared-sequencer.engines.jwt-secret=10=" + missing}, []string{"engines.jwt-secret", "chain 10", "does not exist"}, ""},
		"engine jwt":        {[]string{on, "--shared-sequencer.engines.jwt-secret=10=" + bad}, []string{"engines.jwt-secret", "chain 10", "32 hex"}, ""},
		"relayer key":       {[]string{on, "--shared-sequencer.relayer-key=0x" + secret}, []string{"relayer-key", "32 bytes in hex"}, secret},
		"relayer key zero":  {[]string{on, "--shared-sequencer.relayer-key=" + strings.Repeat("0", 64)}, []string{"relayer-key", "between 1 and the order"}, ""},
		"relayer key file":  {[]string{on, "--shared-sequencer.relayer-key-file=" + missing}, []string{"relayer-key-file", "no such file"}, ""},
		"relayer key bytes": {[]string{on, "--shared-sequencer.relayer-key-file=" + bad}, []string{"relayer-key-file", "32 bytes in hex"}, "not hex"},
		"two relayer keys":  {[]string{on, "--shared-sequencer.relayer-key=" + secret, "--shared-sequencer.relayer-key-file=" + bad}, []string{"both set"}, secret},
		"grace":             {[]string{on, "--shared-sequencer.chain-grace=-1s"}, []string{"chain-grace", "-1s", "zero or more"}, ""},
		"seal lead":         {[]string{on, "--shared-sequencer.seal-lead=0s"}, []string{"seal-lead", "more than zero"}, ""},
		"leads":             {[]string{on, "--shared-sequencer.fill-lead=100ms"}, []string{"fill-lead", "more than shared-sequencer.seal-lead (100ms)"}, ""},
		"fill lead":         {[]string{on, "--shared-sequencer.fill-lead=1s"}, []string{"fill-lead (1s)", "block time (1 s)", "chain 130"}, ""},
		"bundle items":      {[]string{on, "--shared-sequencer.bundles.max-items=0"}, []string{"bundles.max-items", "more than zero"}, ""},
		"bundle bytes":      {[]string{on, "--shared-sequencer.bundles.max-bytes=-1"}, []string{"bundles.max-bytes", "more than zero"}, ""},
		"bundles pending":   {[]string{on, "--shared-sequencer.bundles.max-pending=0"}, []string{"bundles.max-pending", "more than zero"}, ""},
		"bundles of sender": {[]string{on, "--shared-sequencer.bundles.max-per-sender=0"}, []string{"bundles.max-per-sender", "more than zero"}, ""},
		"rotation":          {[]string{on, "--shared-sequencer.rotation=raft"}, []string{"shared-sequencer.rotation", `"raft"`, "solo or cometbft"}, ""},
		"no operators":      {[]string{on, "--shared-sequencer.rotation=cometbft"}, []string{"shared-sequencer.operators", "genesis file"}, ""},
		"operators file":    {agree("--shared-sequencer.operators=" + missing), []string{"--shared-sequencer.operators", "no such file"}, ""},
		"operators content": {agree("--shared-sequencer.operators=" + bad), []string{"--shared-sequencer.operators", "malformed"}, "not hex"},
		"solo operators":    {[]string{on, "--shared-sequencer.operators=" + file}, []string{"shared-sequencer.operators", "only with", "cometbft"}, ""},
		"solo key":          {[]string{on, "--shared-sequencer.operator-key=" + secret + "ab"}, []string{"operator-key", "only with"}, secret},
		"solo peers":        {[]string{on, "--shared-sequencer.consensus.peers=" + node + "@h:1"}, []string{"consensus.peers", "only with"}, ""},
		"operator key":      {agree("--shared-sequencer.operator-key=" + secret), []string{"--shared-sequencer.operator-key", "32 bytes in hex"}, secret},
		"two operator keys": {agree("--shared-sequencer.operator-key="+secret, "--shared-sequencer.operator-key-file="+bad), []string{"both set"}, secret},
		"consensus listen":  {agree("--shared-sequencer.consensus.listen=26656"), []string{"consensus.listen", "<host>:<port>"}, ""},
		"peer without ID":   {agree("--shared-sequencer.consensus.peers=10.0.0.1:1"), []string{"consensus.peers", "<node ID>@<host>:<port>"}, ""},
		"peer port":         {agree("--shared-sequencer.consensus.peers=" + node + "@10.0.0.1:65536"), []string{"consensus.peers", "65535"}, ""},
		"peer port zero":    {agree("--shared-sequencer.consensus.peers=" + node + "@10.0.0.1:0"), []string{"consensus.peers", "port 0"}, ""},
		"peer without host": {agree("--shared-sequencer.consensus.peers=" + node + "@:1"), []string{"consensus.peers", "no host"}, ""},
		"peer twice":        {agree("--shared-sequencer.consensus.peers=" + node + "@a:1," + node + "@b:1"), []string{"consensus.peers", "named twice"}, ""},
		"timeout propose":   {agree("--shared-sequencer.consensus.timeout-propose=0s"), []string{"timeout-propose", "more than zero"}, ""},
		"timeout vote":      {agree("--shared-sequencer.consensus.timeout-vote=-1s"), []string{"timeout-vote", "more than zero"}, ""},
		"order":             {[]string{on, "--shared-sequencer.order=lifo"}, []string{"shared-sequencer.order", `"lifo"`, "priority or fcfs"}, ""},
		"subblocks":         {[]string{on, "--shared-sequencer.subblocks-per-slot=0"}, []string{"subblocks-per-slot", "1 to 20"}, ""},
		"sequencer off":     {[]string{on, "--vn.10.sequencer.enabled=false"}, []string{"chain 10", "vn.10.sequencer.enabled"}, ""},
		"conductor":         {[]string{on, "--vn.10.conductor.enabled"}, []string{"chain 10", "vn.10.conductor.enabled"}, ""},
		"wrong rollup":      {[]string{on, "--vn.10.network=unichain-mainnet"}, []string{"chain 10", "rollup config is of chain 130"}, ""},
		"other L1":          {[]string{on, "--chains=11155420", "--vn.11155420.network=op-sepolia", "--vn.11155420.l2=ws://127.0.0.1:6"}, []string{"chain 11155420", "its L1 is chain 11155111", "is 1"}, ""},
		"upstream flag":     {[]string{"--vn.10.network=no-such-network"}, []string{"chain 10", "no-such-network"}, ""},
		"chains":            {[]string{"--chains=ten"}, []string{"--chains", `"ten"`, "decimal"}, ""},
		"chains twice":      {[]string{"--chains=10"}, []string{"--chains", "chain 10", "twice"}, ""},
		"dependency set":    {[]string{"--dependency-set=" + missing}, []string{"--dependency-set", "no such file"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := parse(t, mainnets(t, tt.args...)...)
			require.Error(t, err)
			line := oneLine(err)
			for _, want := range tt.want {
				require.Contains(t, line, want)
			}
			require.NotContains(t, line, "\n")
			require.Less(t, len(line), 400)
			require.NotContains(t, out, "USAGE:", "the help text hides the mistake")
			if tt.hide != "" {
				require.NotContains(t, line, tt.hide)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		_, out, err := parse(t)
		require.EqualError(t, err, "failed to setup: flag chains is required")
		require.Empty(t, out)
	})
	t.Run("no L1", func(t *testing.T) {
		_, out, err := parse(t, "--chains=10")
		require.EqualError(t, err, "failed to setup: flag l1 is required")
		require.Empty(t, out)
	})
	t.Run("p2p ports", func(t *testing.T) {
		args := mainnets(t, "--vn.all.p2p.listen.tcp=9222")
		args = append(args[:2:2], args[3:]...) // without --disable-p2p
		_, _, err := parse(t, args...)
		require.ErrorContains(t, err, "--vn.all.p2p.listen.tcp: 9222: every chain would listen on it")
	})
}

// The help text shows defaults after the environment was read: it must not show keys.
func TestHelpHidesKeys(t *testing.T) {
	relayer, operator := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	t.Setenv("OP_NODE_SHARED_SEQUENCER_RELAYER_KEY", relayer)
	t.Setenv("OP_NODE_SHARED_SEQUENCER_OPERATOR_KEY", operator)
	_, out, err := parse(t, "--help")
	require.NoError(t, err)
	require.Contains(t, out, "--shared-sequencer.relayer-key value")
	require.Contains(t, out, "--shared-sequencer.operator-key value")
	require.NotContains(t, out, relayer)
	require.NotContains(t, out, operator)
}

// lifecycle is a service that starts and stops as it is told.
type lifecycle struct{ startErr, stopErr error }

func (l lifecycle) Start(context.Context) error { return l.startErr }
func (l lifecycle) Stop(context.Context) error  { return l.stopErr }
func (l lifecycle) Stopped() bool               { return false }

func TestExit(t *testing.T) {
	boom := errors.New("boom")
	live := context.Background()
	ended, cancel := context.WithCancel(live)
	cancel()
	quiet := log.NewLogger(log.DiscardHandler())

	require.ErrorIs(t, (&process{Lifecycle: lifecycle{startErr: boom}, log: quiet}).Start(live), boom)
	require.NoError(t, (&process{Lifecycle: lifecycle{startErr: boom}, log: quiet}).Start(ended), "interrupted")
	require.NoError(t, (&process{Lifecycle: lifecycle{}, log: quiet}).Stop(live))
	require.ErrorIs(t, (&process{Lifecycle: lifecycle{stopErr: boom}, log: quiet}).Stop(live), boom)

	failed := &process{Lifecycle: lifecycle{startErr: boom}, log: quiet}
	why := errors.New("port in use")
	failed.failure.Store(&why)
	require.ErrorIs(t, failed.Start(ended), boom, "it has stopped itself")
	require.ErrorIs(t, failed.Stop(ended), why)
}
