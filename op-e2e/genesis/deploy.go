package genesis

import (
	"context"
	"fmt"
	"math/big"
	"os"
	"path/filepath"

	"github.com/ethereum-optimism/optimism/op-chain-ops/devkeys"
	"github.com/ethereum-optimism/optimism/op-core/devfeatures"
	opforks "github.com/ethereum-optimism/optimism/op-core/forks"
	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer"
	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer/artifacts"
	"github.com/ethereum-optimism/optimism/op-deployer/pkg/deployer/state"
	"github.com/ethereum-optimism/optimism/op-e2e/e2eutils/intentbuilder"
	"github.com/ethereum-optimism/optimism/op-service/eth"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
)

// deploy runs op-deployer's pipeline for the genesis target and installs our additions in the L2 states.
//
// Nothing in the result but st.L1DevGenesis and the chains' StartBlock depends on cfg.Timestamp: the contracts are
// deployed by scripts that see block time 0, and only the pipeline's last stages read the clock. render makes both anew.
func deploy(ctx context.Context, cfg *Config) (*state.State, error) {
	extras, err := readExtras(cfg.Artifacts)
	if err != nil {
		return nil, err
	}
	intent, err := makeIntent(cfg)
	if err != nil {
		return nil, err
	}
	st, err := runPipeline(ctx, cfg, intent)
	if err != nil {
		return nil, err
	}
	for _, chain := range st.Chains {
		if err := extras.install(chain.Allocs.Data.Accounts); err != nil {
			return nil, fmt.Errorf("genesis: chain %s: %w", chain.ID.Big(), err)
		}
	}
	return st, nil
}

func makeIntent(cfg *Config) (*state.Intent, error) {
	keys, err := DevKeys()
	if err != nil {
		return nil, err
	}
	book := &addressBook{keys: keys}
	path, err := filepath.Abs(cfg.Artifacts)
	if err != nil {
		return nil, err
	}
	locator, err := artifacts.NewFileLocator(path)
	if err != nil {
		return nil, fmt.Errorf("genesis: artifacts: %w", err)
	}
	million := *new(uint256.Int).Mul(uint256.NewInt(1e6), uint256.NewInt(params.Ether))

	b := intentbuilder.New()
	b.WithL1ContractsLocator(locator)
	b.WithL2ContractsLocator(locator)
	l1ID := cfg.l1ChainID()
	_, l1 := b.WithL1(eth.ChainIDFromUInt64(l1ID))
	l1.WithTimestamp(cfg.Timestamp)
	l1.WithGasLimit(DefaultGasLimit)
	l1.WithL1BlobSchedule(l1BlobSchedule())
	_, superchain := b.WithSuperchain()
	superchain.WithGuardian(book.role(devkeys.SuperchainConfigGuardianKey, l1ID))
	superchain.WithProxyAdminOwner(book.role(devkeys.L1ProxyAdminOwnerRole, l1ID))
	superchain.WithChallenger(book.role(devkeys.ChallengerRole, l1ID))
	l1.WithPrefundedAccount(book.role(devkeys.L1ProxyAdminOwnerRole, l1ID), million)
	for i := range Users {
		l1.WithPrefundedAccount(book.address(keys.User(i)), million)
	}
	l1.WithPrefundedAccount(book.address(keys.Relayer()), million)

	for _, chain := range cfg.Chains {
		_, l2 := b.WithL2(eth.ChainIDFromUInt64(chain.ID))
		l2.WithBlockTime(chain.BlockTime)
		l2.WithGasLimit(chain.gasLimit())
		l2.WithForkAtGenesis(opforks.Lagoon)

		l2.WithBaseFeeVaultRecipient(book.role(devkeys.BaseFeeVaultRecipientRole, chain.ID))
		l2.WithSequencerFeeVaultRecipient(book.role(devkeys.SequencerFeeVaultRecipientRole, chain.ID))
		l2.WithL1FeeVaultRecipient(book.role(devkeys.L1FeeVaultRecipientRole, chain.ID))
		l2.WithOperatorFeeVaultRecipient(book.role(devkeys.OperatorFeeVaultRecipientRole, chain.ID))
		l2.WithL1ProxyAdminOwner(book.role(devkeys.L1ProxyAdminOwnerRole, l1ID))
		l2.WithL2ProxyAdminOwner(book.role(devkeys.L2ProxyAdminOwnerRole, chain.ID))
		l2.WithSystemConfigOwner(book.role(devkeys.SystemConfigOwner, chain.ID))
		l2.WithUnsafeBlockSigner(book.role(devkeys.SequencerP2PRole, chain.ID))
		l2.WithBatcher(book.role(devkeys.BatcherRole, chain.ID))
		l2.WithProposer(book.role(devkeys.ProposerRole, chain.ID))
		l2.WithChallenger(book.role(devkeys.ChallengerRole, chain.ID))
		for _, role := range []devkeys.Role{devkeys.BatcherRole, devkeys.ProposerRole, devkeys.ChallengerRole, devkeys.SystemConfigOwner} {
			l1.WithPrefundedAccount(book.role(role, chain.ID), million)
		}
	}
	// The interop predeploys come only with all three: Lagoon at genesis, UseInterop, and this flag.
	b.WithGlobalOverride("devFeatureBitmap", devfeatures.EnableDevFeature(common.Hash{}, devfeatures.OptimismPortalInteropFlag))
	b.WithUseInterop(true)
	for key, value := range map[string]uint64{
		"proofMaturityDelaySeconds":       cfg.ProofMaturityDelay,
		"disputeGameFinalityDelaySeconds": cfg.FinalityDelay,
		"sequencerWindowSize":             cfg.SequencerWindow,
	} {
		if value != 0 {
			b.WithGlobalOverride(key, value)
		}
	}
	if book.err != nil {
		return nil, book.err
	}
	intent, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	intent.FundDevAccounts = true
	intent.L1DevGenesisParams.PragueTimeOffset = new(uint64)
	return intent, nil
}

func runPipeline(ctx context.Context, cfg *Config, intent *state.Intent) (*state.State, error) {
	keys, err := DevKeys()
	if err != nil {
		return nil, err
	}
	deployerKey, err := keys.secret(devkeys.DeployerRole.Key(new(big.Int)))
	if err != nil {
		return nil, err
	}
	logger := cfg.Log
	if logger == nil {
		logger = log.NewLogger(log.DiscardHandler())
	}
	// op-deployer unpacks downloads here; artifacts in a directory are read in place.
	scratch, err := os.MkdirTemp("", "genesis-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	var writer lastState
	err = deployer.ApplyPipeline(ctx, deployer.ApplyPipelineOpts{
		DeploymentTarget:   deployer.DeploymentTargetGenesis,
		DeployerPrivateKey: deployerKey,
		Intent:             intent,
		State:              &state.State{Version: 1, Create2Salt: create2Salt},
		Logger:             logger,
		StateWriter:        &writer,
		CacheDir:           scratch,
	})
	if err != nil {
		return nil, fmt.Errorf("genesis: op-deployer: %w", err)
	}
	return writer.st, nil
}

// lastState takes the state that the pipeline would write to a file after each stage.
type lastState struct{ st *state.State }

func (w *lastState) WriteState(st *state.State) error {
	w.st = st
	return nil
}

// l1BlobSchedule covers the forks that are active on the development L1, up to Prague.
func l1BlobSchedule() *params.BlobScheduleConfig {
	return &params.BlobScheduleConfig{Cancun: params.DefaultCancunBlobConfig, Prague: params.DefaultPragueBlobConfig}
}
