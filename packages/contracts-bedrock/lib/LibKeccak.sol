// SPDX-License-Identifier: MIT
pragma solidity ^0.8.0;

/// @title LibKeccak
/// @notice Keccak-256 in steps, as the fault proof's PreimageOracle needs it to check one permutation at a time.
///         Written from FIPS 202 (the sponge and Keccak-f[1600]) with the original Keccak padding (0x01 … 0x80).
///         Lane (x, y) of the state is at index x + 5y. It has the interface of the library that upstream's
///         contracts import and that the Go module does not carry; it is not the same bytecode, so PreimageOracle's
///         init code differs from upstream's. Speed does not matter here: nothing but a disputed large preimage runs it.
library LibKeccak {
    /// @notice The 1600 bit state as 25 lanes.
    struct StateMatrix {
        uint64[25] state;
    }

    /// @notice Pads to a multiple of the rate (136 bytes); always adds at least one byte.
    function pad(bytes calldata _data) internal pure returns (bytes memory padded_) {
        padded_ = new bytes(_data.length + 136 - _data.length % 136);
        for (uint256 i = 0; i < _data.length; i++) padded_[i] = _data[i];
        padded_[_data.length] = 0x01;
        padded_[padded_.length - 1] |= 0x80;
    }

    /// @notice Adds one block of exactly 136 bytes to the state. Does not permute.
    function absorb(StateMatrix memory _s, bytes memory _input) internal pure {
        require(_input.length == 136, "LibKeccak: block size");
        for (uint256 i = 0; i < 136; i++) {
            _s.state[i >> 3] ^= uint64(uint8(_input[i])) << uint64(8 * (i & 7));
        }
    }

    /// @notice The first 32 bytes of the state: the hash, after the last permutation.
    function squeeze(StateMatrix memory _s) internal pure returns (bytes32 hash_) {
        uint256 h;
        for (uint256 i = 0; i < 32; i++) h = (h << 8) | uint8(_s.state[i >> 3] >> uint64(8 * (i & 7)));
        hash_ = bytes32(h);
    }

    /// @notice Keccak-f[1600], 24 rounds.
    function permutation(StateMatrix memory _s) internal pure {
        unchecked {
            uint64[25] memory a = _s.state;
            uint64[25] memory b;
            uint64[5] memory c;
            // Round constants (FIPS 202, 3.2.5), 8 bytes each, and rotation offsets (3.2.2), one byte per lane.
            bytes memory rcs = hex"00000000000000010000000000008082800000000000808a8000000080008000000000000000808b000000008000000180000000800080818000000000008009000000000000008a00000000000000880000000080008009000000008000000a000000008000808b800000000000008b8000000000008089800000000000800380000000000080028000000000000080000000000000800a800000008000000a8000000080008081800000000000808000000000800000018000000080008008";
            bytes memory rots = hex"00013e1c1b242c063714030a2b1927292d0f150812023d380e";
            for (uint256 r = 0; r < 24; r++) {
                for (uint256 x = 0; x < 5; x++) c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
                for (uint256 x = 0; x < 5; x++) {
                    uint64 d = c[(x + 4) % 5] ^ _rotl(c[(x + 1) % 5], 1);
                    for (uint256 y = 0; y < 25; y += 5) a[x + y] ^= d;
                }
                for (uint256 x = 0; x < 5; x++) {
                    for (uint256 y = 0; y < 5; y++) {
                        b[y + 5 * ((2 * x + 3 * y) % 5)] = _rotl(a[x + 5 * y], uint8(rots[x + 5 * y]));
                    }
                }
                for (uint256 y = 0; y < 25; y += 5) {
                    for (uint256 x = 0; x < 5; x++) a[y + x] = b[y + x] ^ (~b[y + (x + 1) % 5] & b[y + (x + 2) % 5]);
                }
                uint64 rc;
                assembly {
                    rc := shr(192, mload(add(add(rcs, 0x20), mul(r, 8))))
                }
                a[0] ^= rc;
            }
        }
    }

    function _rotl(uint64 _v, uint64 _n) private pure returns (uint64) {
        unchecked {
            return (_v << _n) | (_v >> (64 - _n));
        }
    }
}
