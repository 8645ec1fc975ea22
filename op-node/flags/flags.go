// Package flags names the command-line flags of op-node: upstream's op-supernode
// flags, its per-chain vn.* flags, and the shared sequencer's own.
package flags

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	opservice "github.com/ethereum-optimism/optimism/op-service"
	snflags "github.com/ethereum-optimism/optimism/op-supernode/flags"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/relay"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
)

// EnvVarPrefix starts the environment variables of the shared sequencer's flags.
// Upstream's flags keep upstream's prefix, OP_SUPERNODE.
const EnvVarPrefix = "OP_NODE"

// Category groups the shared sequencer's flags in the help text.
const Category = "SHARED SEQUENCER"

func env(name string) []string {
	return opservice.PrefixEnvVar(EnvVarPrefix, "SHARED_SEQUENCER_"+name)
}

var (
	Enabled = &cli.BoolFlag{
		Name:     "shared-sequencer.enabled",
		Usage:    "Sequence the chains of the interop set together. Without it op-node is upstream's op-supernode.",
		EnvVars:  env("ENABLED"),
		Category: Category,
	}
	Chains = &cli.Uint64SliceFlag{
		Name:     "shared-sequencer.chains",
		Usage:    "IDs of the chains that are sequenced together (repeatable or comma-separated). Default: all of --chains. A chain outside the set runs as its vn.<chainID>.* flags say.",
		EnvVars:  env("CHAINS"),
		Category: Category,
	}
	DataDir = &cli.PathFlag{
		Name:        "shared-sequencer.data-dir",
		Usage:       "Directory of the shared sequencer's ledger and message history.",
		EnvVars:     env("DATA_DIR"),
		DefaultText: "shared-sequencer in --data-dir",
		Category:    Category,
	}
	RPCAddr = &cli.StringFlag{
		Name:     "shared-sequencer.rpc.addr",
		Usage:    "Listening address of the sharedseq RPC, which also serves the engines' interop ingress check.",
		EnvVars:  env("RPC_ADDR"),
		Value:    "127.0.0.1",
		Category: Category,
	}
	RPCPort = &cli.IntFlag{
		Name:     "shared-sequencer.rpc.port",
		Usage:    "Listening port of the sharedseq RPC. 0 takes any free port.",
		EnvVars:  env("RPC_PORT"),
		Value:    8570,
		Category: Category,
	}
	AdminAddr = &cli.StringFlag{
		Name:     "shared-sequencer.admin.addr",
		Usage:    "Listening address of the admin RPC, which sets the failsafe. Without one there is none.",
		EnvVars:  env("ADMIN_ADDR"),
		Category: Category,
	}
	AdminPort = &cli.IntFlag{
		Name:     "shared-sequencer.admin.port",
		Usage:    "Listening port of the admin RPC. 0 takes any free port.",
		EnvVars:  env("ADMIN_PORT"),
		Value:    8571,
		Category: Category,
	}
	AdminJWT = &cli.PathFlag{
		Name:      "shared-sequencer.admin.jwt-secret",
		Usage:     "File with the JWT secret (32 bytes in hex) that callers of the admin RPC have. Needed with an admin address.",
		EnvVars:   env("ADMIN_JWT_SECRET"),
		TakesFile: true,
		Category:  Category,
	}
	StatusAddr = &cli.StringFlag{
		Name:     "shared-sequencer.status.addr",
		Usage:    "Listening address of the status page, which shows what is sequenced and changes nothing. Without one there is none.",
		EnvVars:  env("STATUS_ADDR"),
		Category: Category,
	}
	StatusPort = &cli.IntFlag{
		Name:     "shared-sequencer.status.port",
		Usage:    "Listening port of the status page. 0 takes any free port.",
		EnvVars:  env("STATUS_PORT"),
		Value:    8572,
		Category: Category,
	}
	SubblocksAddr = &cli.StringFlag{
		Name:     "shared-sequencer.subblocks.addr",
		Usage:    "Listening address of the Subblocks (formerly Flashblocks) streams, one for each chain at /<chain ID>, over WebSocket. Without one there are none.",
		EnvVars:  env("SUBBLOCKS_ADDR"),
		Category: Category,
	}
	SubblocksPort = &cli.IntFlag{
		Name:     "shared-sequencer.subblocks.port",
		Usage:    "Listening port of the Subblocks streams. 0 takes any free port.",
		EnvVars:  env("SUBBLOCKS_PORT"),
		Value:    8573,
		Category: Category,
	}
	RPCRate = &cli.Float64Flag{
		Name:     "shared-sequencer.rpc.rate-limit",
		Usage:    "What one IP address may ask the sharedseq RPC for in a second: reading counts 1, sending a bundle 5, simulating one 20. Loopback addresses are not limited. 0: no limit.",
		EnvVars:  env("RPC_RATE_LIMIT"),
		Value:    100,
		Category: Category,
	}
	Engines = &cli.StringSliceFlag{
		Name:        "shared-sequencer.engines",
		Usage:       "Address of a chain's patched op-geth for sessions, as <chainID>=<URL> of its authenticated RPC (repeatable or comma-separated).",
		EnvVars:     env("ENGINES"),
		DefaultText: "each chain's vn.<chainID>.l2",
		Category:    Category,
	}
	EngineJWTs = &cli.StringSliceFlag{
		Name:        "shared-sequencer.engines.jwt-secret",
		Usage:       "File with the JWT secret for a chain's engine, as <chainID>=<path> (repeatable or comma-separated).",
		EnvVars:     env("ENGINES_JWT_SECRET"),
		DefaultText: "each chain's vn.<chainID>.l2.jwt-secret",
		Category:    Category,
	}
	RelayerKey = &cli.StringFlag{
		Name:     "shared-sequencer.relayer-key",
		Usage:    "Private key (32 bytes in hex) of the account that signs the relay steps of bundles. Prefer a file. Without a key, bundles with relay steps are refused.",
		EnvVars:  env("RELAYER_KEY"),
		Category: Category,
	}
	RelayerKeyFile = &cli.PathFlag{
		Name:      "shared-sequencer.relayer-key-file",
		Usage:     "File with the relayer's private key in hex.",
		EnvVars:   env("RELAYER_KEY_FILE"),
		TakesFile: true,
		Category:  Category,
	}
	RelayPolicy = &cli.StringFlag{
		Name:     "shared-sequencer.relay.policy",
		Usage:    "Which cross-chain messages this operator relays in the slot they are sent in, when it leads, with the relayer key and at its cost: off; bundles (relay steps of bundles); allow-list (also messages of plain transactions from or to the accounts of relay.allow); all.",
		EnvVars:  env("RELAY_POLICY"),
		Value:    string(relay.DefaultPolicy().Mode),
		Category: Category,
	}
	RelayAllow = &cli.StringSliceFlag{
		Name:     "shared-sequencer.relay.allow",
		Usage:    "Senders and targets whose messages are relayed with the policy allow-list (repeatable or comma-separated).",
		EnvVars:  env("RELAY_ALLOW"),
		Category: Category,
	}
	RelayGas = &cli.Uint64Flag{
		Name:     "shared-sequencer.relay.message-gas",
		Usage:    "Most gas the execution of a relayed message may use.",
		EnvVars:  env("RELAY_MESSAGE_GAS"),
		Value:    relay.DefaultConfig().Gas,
		Category: Category,
	}
	RelaySlotGas = &cli.Uint64Flag{
		Name:     "shared-sequencer.relay.slot-gas",
		Usage:    "Most gas that relays of plain transactions' messages use in a slot, on all chains together.",
		EnvVars:  env("RELAY_SLOT_GAS"),
		Value:    relay.DefaultPolicy().SlotGas,
		Category: Category,
	}
	RelaySenderGas = &cli.Uint64Flag{
		Name:     "shared-sequencer.relay.sender-gas",
		Usage:    "Most gas that relays of one sender's messages use in a slot.",
		EnvVars:  env("RELAY_SENDER_GAS"),
		Value:    relay.DefaultPolicy().SenderGas,
		Category: Category,
	}
	ChainGrace = &cli.DurationFlag{
		Name:     "shared-sequencer.chain-grace",
		Usage:    "How long the set waits for a chain that is not ready before it goes on without it.",
		EnvVars:  env("CHAIN_GRACE"),
		Value:    sequencer.DefaultConfig().Grace,
		Category: Category,
	}
	FillLead = &cli.DurationFlag{
		Name:     "shared-sequencer.fill-lead",
		Usage:    "How long before a slot's timestamp its blocks are filled from the transaction pools; earlier where fills take longer, up to half the time between subblocks before the seal.",
		EnvVars:  env("FILL_LEAD"),
		Value:    sequencer.DefaultConfig().FillLead,
		Category: Category,
	}
	SealLead = &cli.DurationFlag{
		Name:     "shared-sequencer.seal-lead",
		Usage:    "How long before a slot's timestamp its blocks are sealed.",
		EnvVars:  env("SEAL_LEAD"),
		Value:    sequencer.DefaultConfig().SealLead,
		Category: Category,
	}
	Order = &cli.StringFlag{
		Name:     "shared-sequencer.order",
		Usage:    "In which order this operator takes plain transactions from a chain's pool when it leads: priority (highest effective tip first, as upstream) or fcfs (first come, first served: by arrival at its op-geth, equal times by hash). Bundles and relays have their place in the slot under either.",
		EnvVars:  env("ORDER"),
		Value:    string(sequencer.DefaultConfig().Order),
		Category: Category,
	}
	Arrivals = &cli.PathFlag{
		Name:     "shared-sequencer.arrivals",
		Usage:    "File in which this operator keeps when it was sent which bundle, for op-shared-sequencer audit. It and the one before, which has .1 behind its name, take up to 64 MiB each. Without one nothing is kept.",
		EnvVars:  env("ARRIVALS"),
		Category: Category,
	}
	Rotation = &cli.StringFlag{
		Name:     "shared-sequencer.rotation",
		Usage:    "How leaders are found: solo (this operator alone) or cometbft (a set of operators that agree on every subblock).",
		EnvVars:  env("ROTATION"),
		Value:    "solo",
		Category: Category,
	}
	Operators = &cli.PathFlag{
		Name:      "shared-sequencer.operators",
		Usage:     "Genesis file of the set of operators, the same at all of them; op-shared-sequencer genesis makes it. For the rotation cometbft.",
		EnvVars:   env("OPERATORS"),
		TakesFile: true,
		Category:  Category,
	}
	OperatorKey = &cli.StringFlag{
		Name:     "shared-sequencer.operator-key",
		Usage:    "Private key (32 bytes in hex) of this operator, with which it signs its subblocks. Prefer a file. Without a key this node verifies and does not lead.",
		EnvVars:  env("OPERATOR_KEY"),
		Category: Category,
	}
	OperatorKeyFile = &cli.PathFlag{
		Name:      "shared-sequencer.operator-key-file",
		Usage:     "File with the operator's private key: hex, or protected by a password as op-shared-sequencer keys makes it.",
		EnvVars:   env("OPERATOR_KEY_FILE"),
		TakesFile: true,
		Category:  Category,
	}
	OperatorPasswordFile = &cli.PathFlag{
		Name:      "shared-sequencer.operator-password-file",
		Usage:     "File whose first line is the password of this operator's keys: that of --shared-sequencer.operator-key-file and the consensus key in the data directory. Needed if they are protected; plain keys need none.",
		EnvVars:   env("OPERATOR_PASSWORD_FILE"),
		TakesFile: true,
		Category:  Category,
	}
	ConsensusListen = &cli.StringFlag{
		Name:     "shared-sequencer.consensus.listen",
		Usage:    "Listening address of the agreement between operators, as <host>:<port>.",
		EnvVars:  env("CONSENSUS_LISTEN"),
		Value:    "127.0.0.1:26656",
		Category: Category,
	}
	ConsensusPeers = &cli.StringSliceFlag{
		Name:     "shared-sequencer.consensus.peers",
		Usage:    "The other operators, as <node ID>@<host>:<port> (repeatable or comma-separated). op-shared-sequencer keys show prints an operator's node ID.",
		EnvVars:  env("CONSENSUS_PEERS"),
		Category: Category,
	}
	TimeoutPropose = &cli.DurationFlag{
		Name:     "shared-sequencer.consensus.timeout-propose",
		Usage:    "How long a leader's subblock is waited for, once it is due, before the next leader's turn.",
		EnvVars:  env("CONSENSUS_TIMEOUT_PROPOSE"),
		Value:    250 * time.Millisecond,
		Category: Category,
	}
	TimeoutVote = &cli.DurationFlag{
		Name:     "shared-sequencer.consensus.timeout-vote",
		Usage:    "How long the missing votes are waited for once two thirds have come in and do not agree.",
		EnvVars:  env("CONSENSUS_TIMEOUT_VOTE"),
		Value:    50 * time.Millisecond,
		Category: Category,
	}
	Subblocks = &cli.IntFlag{
		Name:     "shared-sequencer.subblocks-per-slot",
		Usage:    "In how many parts a slot is agreed on, each a pre-confirmation of the transactions in it.",
		EnvVars:  env("SUBBLOCKS_PER_SLOT"),
		Value:    1,
		Category: Category,
	}
	TracingEndpoint = &cli.StringFlag{
		Name:     "shared-sequencer.tracing.endpoint",
		Usage:    "URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318, that is sent a trace of each slot. Without one there are no traces.",
		EnvVars:  env("TRACING_ENDPOINT"),
		Category: Category,
	}
	TracingSampleRatio = &cli.Float64Flag{
		Name:     "shared-sequencer.tracing.sample-ratio",
		Usage:    "Share of the slots that are traced, 0 to 1. Operators with the same ratio trace the same slots.",
		EnvVars:  env("TRACING_SAMPLE_RATIO"),
		Value:    1,
		Category: Category,
	}
	BundleMaxItems = &cli.IntFlag{
		Name:     "shared-sequencer.bundles.max-items",
		Usage:    "Most transactions and relay steps in one bundle.",
		EnvVars:  env("BUNDLES_MAX_ITEMS"),
		Value:    bundlepool.DefaultConfig().MaxItems,
		Category: Category,
	}
	BundleMaxBytes = &cli.IntFlag{
		Name:     "shared-sequencer.bundles.max-bytes",
		Usage:    "Most bytes of one bundle, encoded.",
		EnvVars:  env("BUNDLES_MAX_BYTES"),
		Value:    bundlepool.DefaultConfig().MaxBundleBytes,
		Category: Category,
	}
	BundleMaxPending = &cli.IntFlag{
		Name:     "shared-sequencer.bundles.max-pending",
		Usage:    "Most bundles waiting for a slot.",
		EnvVars:  env("BUNDLES_MAX_PENDING"),
		Value:    bundlepool.DefaultConfig().MaxBundles,
		Category: Category,
	}
	BundleMaxPerSender = &cli.IntFlag{
		Name:     "shared-sequencer.bundles.max-per-sender",
		Usage:    "Most waiting bundles whose transactions one account has signed.",
		EnvVars:  env("BUNDLES_MAX_PER_SENDER"),
		Value:    bundlepool.DefaultConfig().MaxPerSender,
		Category: Category,
	}
)

// SharedSequencer are the flags of the shared sequencer.
var SharedSequencer = []cli.Flag{
	Enabled, Chains, DataDir, RPCAddr, RPCPort, RPCRate, AdminAddr, AdminPort, AdminJWT, StatusAddr, StatusPort, SubblocksAddr, SubblocksPort, Engines, EngineJWTs, RelayerKey, RelayerKeyFile,
	RelayPolicy, RelayAllow, RelayGas, RelaySlotGas, RelaySenderGas,
	ChainGrace, FillLead, SealLead, Subblocks, Order, Arrivals,
	Rotation, Operators, OperatorKey, OperatorKeyFile, OperatorPasswordFile, ConsensusListen, ConsensusPeers, TimeoutPropose, TimeoutVote,
	BundleMaxItems, BundleMaxBytes, BundleMaxPending, BundleMaxPerSender,
	TracingEndpoint, TracingSampleRatio,
}

// ChainIDs finds the chains in the arguments, before the flags that depend on them
// can be made; if the arguments name none, in the environment.
func ChainIDs(args []string, getenv func(string) string) ([]uint64, error) {
	ids, err := snflags.ParseChains(args)
	if err == nil && len(ids) == 0 {
		ids, err = snflags.ParseChains([]string{"--" + snflags.ChainsFlag.Name + "=" + getenv(snflags.ChainsFlag.EnvVars[0])})
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w: expected chain IDs in decimal, separated by commas", snflags.ChainsFlag.Name, err)
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return nil, fmt.Errorf("--%s: chain %d is named twice", snflags.ChainsFlag.Name, id)
		}
	}
	return ids, nil
}

// All are op-node's flags for the given chains: upstream's, then the shared sequencer's.
func All(chains []uint64) []cli.Flag {
	all := append(snflags.FullDynamicFlags(chains), SharedSequencer...)
	for i, f := range all {
		// A copy: parsing keeps in a flag whether it was set, and these are globals.
		c := reflect.New(reflect.TypeOf(f).Elem())
		c.Elem().Set(reflect.ValueOf(f).Elem())
		// The CLI library answers a missing required flag with the whole help text,
		// a thousand lines here. snflags.CheckRequired says it in one.
		if r := c.Elem().FieldByName("Required"); r.IsValid() {
			r.SetBool(false)
		}
		all[i] = c.Interface().(cli.Flag)
	}
	return all
}

// UnknownEnv names the variables of an environment that look like the shared
// sequencer's and are not. Their values may be secret.
func UnknownEnv(environ []string) []string {
	known := map[string]bool{}
	for _, f := range SharedSequencer {
		for _, name := range f.(interface{ GetEnvVars() []string }).GetEnvVars() {
			known[name] = true
		}
	}
	var out []string
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, env("")[0]) && !known[name] {
			out = append(out, name)
		}
	}
	return out
}
