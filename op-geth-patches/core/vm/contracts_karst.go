// Copyright 2026 The op-shared-sequencer Authors
// This file is an addition to the go-ethereum library.
//
// It is free software: you can redistribute it and/or modify it under the terms
// of the GNU Lesser General Public License as published by the Free Software
// Foundation, either version 3 of the License, or (at your option) any later
// version.
//
// It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY;
// without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
// PARTICULAR PURPOSE. See the GNU Lesser General Public License for more details.
//
// You should have received a copy of the GNU Lesser General Public License along
// with the go-ethereum library. If not, see <http://www.gnu.org/licenses/>.

package vm

import (
	"maps"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/params"
)

// PrecompiledContractsKarst is Jovian's set with the three changes Karst lists
// (specification: protocol/karst/overview.md, "Execution Layer", and
// protocol/karst/exec-engine.md):
//
//   - MODEXP with Osaka's input bounds and gas (EIP-7823, EIP-7883);
//   - P256VERIFY at Ethereum's gas (EIP-7951);
//   - bn256Pairing with a lower input limit.
//
// The other variable-input limits are unchanged from Jovian, and so are the
// addresses: ActivePrecompiles goes on with Jovian's.
var PrecompiledContractsKarst = func() PrecompiledContracts {
	set := maps.Clone(PrecompiledContracts(PrecompiledContractsJovian))
	set[common.BytesToAddress([]byte{5})] = &bigModExp{eip2565: true, eip7823: true, eip7883: true}
	set[common.BytesToAddress([]byte{8})] = &bn256PairingKarst{}
	set[common.BytesToAddress([]byte{0x01, 0x00})] = &p256Verify{}
	return set
}()

// bn256PairingKarst is bn256Pairing with Karst's input limit.
type bn256PairingKarst struct{ bn256PairingIstanbul }

func (c *bn256PairingKarst) Run(input []byte) ([]byte, error) {
	if len(input) > int(params.Bn256PairingMaxInputSizeKarst) {
		return nil, errBadPairingInputSize
	}
	return runBn256Pairing(input)
}
