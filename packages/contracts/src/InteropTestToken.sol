// SPDX-License-Identifier: MIT
pragma solidity 0.8.25;

import { SuperchainERC20 } from "@optimism/src/L2/SuperchainERC20.sol";

/// @title InteropTestToken
/// @notice An ERC-7802 token for devnets and tests: anyone can mint it. Moving it between chains is upstream's
///         SuperchainERC20: only the SuperchainTokenBridge predeploy may call crosschainMint and crosschainBurn.
///         It has no constructor and no initial state, so its runtime code can be put into a genesis as it is.
contract InteropTestToken is SuperchainERC20 {
    function name() public pure override returns (string memory) {
        return "Interop Test Token";
    }

    function symbol() public pure override returns (string memory) {
        return "ITT";
    }

    /// @notice Creates tokens out of nothing, for whoever asks. Never use this contract where value is at stake.
    function mint(address _to, uint256 _amount) external {
        _mint(_to, _amount);
    }
}
