package genesis

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ethereum-optimism/optimism/op-chain-ops/foundry"
	opgenesis "github.com/ethereum-optimism/optimism/op-chain-ops/genesis"
	"github.com/ethereum-optimism/optimism/op-core/predeploys"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
)

// SuperchainTokenBridgeAddr is the predeploy that upstream had here up to v1.16 and specifies for interop.
var SuperchainTokenBridgeAddr = common.HexToAddress("0x4200000000000000000000000000000000000028")

// tokenBridgeImpl is where upstream's L2Genesis script puts the implementation of a proxied predeploy: the code namespace.
var tokenBridgeImpl = common.HexToAddress("0xc0D3C0d3C0d3C0D3c0d3C0d3c0D3C0d3c0d30028")

// extras are the contracts that are in every L2 genesis beside upstream's.
type extras struct {
	tokenBridge []byte // runtime code
	token       []byte // runtime code
	tokenAddr   common.Address
}

func readExtras(artifacts string) (*extras, error) {
	bridge, err := readArtifact(artifacts, "SuperchainTokenBridge")
	if err != nil {
		return nil, err
	}
	token, err := readArtifact(artifacts, "InteropTestToken")
	if err != nil {
		return nil, err
	}
	return &extras{
		tokenBridge: bridge.DeployedBytecode.Object,
		token:       token.DeployedBytecode.Object,
		// Where the deterministic deployment proxy would create it with salt 0: a chain that joins later can deploy it there.
		tokenAddr: crypto.CreateAddress2(predeploys.DeterministicDeploymentProxyAddr, common.Hash{}, crypto.Keccak256(token.Bytecode.Object)),
	}, nil
}

func readArtifact(dir, contract string) (*foundry.Artifact, error) {
	a, err := foundry.OpenArtifactsDir(dir).ReadArtifact(contract+".sol", contract)
	if err != nil {
		return nil, fmt.Errorf("genesis: contract artifacts in %s are not usable, run `make contracts`: %w", filepath.Clean(dir), err)
	}
	if len(a.DeployedBytecode.Object) == 0 {
		return nil, fmt.Errorf("genesis: artifact of %s has no runtime code, run `make contracts`", contract)
	}
	return a, nil
}

// install puts SuperchainTokenBridge behind the proxy that every predeploy address has, as upstream's L2Genesis does with
// its predeploys: code and EIP-1967 admin at the code namespace address, implementation slot in the proxy, whose admin
// stays. The test token is put to its address without a proxy. It has no state: anyone can mint.
func (e *extras) install(alloc types.GenesisAlloc) error {
	proxy, ok := alloc[SuperchainTokenBridgeAddr]
	admin := common.BytesToHash(predeploys.ProxyAdminAddr[:])
	if !ok || len(proxy.Code) == 0 || proxy.Storage[opgenesis.AdminSlot] != admin {
		return fmt.Errorf("%s is not a predeploy proxy in upstream's genesis", SuperchainTokenBridgeAddr)
	}
	if proxy.Storage[opgenesis.ImplementationSlot] != (common.Hash{}) {
		return errors.New("upstream's genesis has a SuperchainTokenBridge of its own: do not install another")
	}
	for _, addr := range []common.Address{tokenBridgeImpl, e.tokenAddr} {
		if _, ok := alloc[addr]; ok {
			return fmt.Errorf("%s is in use in upstream's genesis", addr)
		}
	}
	proxy.Storage[opgenesis.ImplementationSlot] = common.BytesToHash(tokenBridgeImpl[:])
	alloc[tokenBridgeImpl] = types.Account{
		Code:    e.tokenBridge,
		Balance: common.Big0,
		Storage: map[common.Hash]common.Hash{opgenesis.AdminSlot: admin},
	}
	alloc[e.tokenAddr] = types.Account{Code: e.token, Balance: common.Big0, Nonce: 1}
	return nil
}
