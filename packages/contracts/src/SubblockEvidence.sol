// SPDX-License-Identifier: MIT
pragma solidity 0.8.25;

/// @title SubblockEvidence
/// @notice Proves that a leader of a shared sequencer set signed two subblocks for one height and view, which an honest
///         leader never does. It holds nothing and decides nothing: contracts that know the operators, such as one that
///         holds their bonds, call it and act on the address it returns.
contract SubblockEvidence {
    /// @notice Both signatures are under the same subblock, which proves nothing.
    error SameSubblock();

    /// @notice A signature does not have the one form that is accepted: 65 bytes r, s, v, with s in the lower half and
    ///         v 27 or 28.
    /// @param index 0 or 1.
    error MalformedSignature(uint256 index);

    /// @notice Nobody can have made a signature: r or s is out of range.
    /// @param index 0 or 1.
    error NoSigner(uint256 index);

    /// @notice The signatures are of different keys, which proves nothing.
    error TwoSigners(address first, address second);

    /// @notice Keeps what leaders sign apart from everything else their keys sign.
    bytes32 public constant DOMAIN = keccak256("op-shared-sequencer/subblock-signature/1");

    /// @notice Half the order of secp256k1, rounded down: s above it is the other form of the same signature.
    uint256 internal constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    /// @notice What a leader signs.
    /// @param _setID        Hash of the set's genesis.
    /// @param _height       Place of the subblock in the set's history, from 1.
    /// @param _view         Hash of the heads the subblock builds on, zero if it does not begin a slot.
    /// @param _subblockHash Hash of the subblock.
    function digest(
        bytes32 _setID,
        uint256 _height,
        bytes32 _view,
        bytes32 _subblockHash
    )
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(DOMAIN, _setID, _height, _view, _subblockHash));
    }

    /// @notice Returns the leader who signed both subblocks, and reverts if this is no evidence.
    /// @param _setID      Hash of the set's genesis.
    /// @param _height     Height both subblocks were signed for.
    /// @param _view       View both subblocks were signed for.
    /// @param _hashes     Hashes of the two subblocks, in any order.
    /// @param _signatures Signatures under them, in the same order.
    function equivocator(
        bytes32 _setID,
        uint256 _height,
        bytes32 _view,
        bytes32[2] calldata _hashes,
        bytes[2] calldata _signatures
    )
        external
        pure
        returns (address)
    {
        if (_hashes[0] == _hashes[1]) revert SameSubblock();
        address first = _recover(0, digest(_setID, _height, _view, _hashes[0]), _signatures[0]);
        address second = _recover(1, digest(_setID, _height, _view, _hashes[1]), _signatures[1]);
        if (first != second) revert TwoSigners(first, second);
        return first;
    }

    function _recover(uint256 _index, bytes32 _digest, bytes calldata _signature) internal pure returns (address signer) {
        if (_signature.length != 65) revert MalformedSignature(_index);
        bytes32 r = bytes32(_signature[0:32]);
        bytes32 s = bytes32(_signature[32:64]);
        uint8 v = uint8(_signature[64]);
        if (uint256(s) > HALF_ORDER || (v != 27 && v != 28)) revert MalformedSignature(_index);
        signer = ecrecover(_digest, v, r, s);
        if (signer == address(0)) revert NoSigner(_index);
    }
}
