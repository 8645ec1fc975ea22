// SPDX-License-Identifier: MIT
pragma solidity 0.8.15;

import { LibKeccak } from "@lib-keccak/LibKeccak.sol";

/// @notice Runs LibKeccak over whole inputs, so that a test can compare it with a reference implementation.
contract LibKeccakHarness {
    function hash(bytes calldata _data) external pure returns (bytes32) {
        bytes memory padded = LibKeccak.pad(_data);
        LibKeccak.StateMatrix memory state;
        bytes memory chunk = new bytes(136);
        for (uint256 at = 0; at < padded.length; at += 136) {
            for (uint256 i = 0; i < 136; i++) chunk[i] = padded[at + i];
            LibKeccak.absorb(state, chunk);
            LibKeccak.permutation(state);
        }
        return LibKeccak.squeeze(state);
    }
}
