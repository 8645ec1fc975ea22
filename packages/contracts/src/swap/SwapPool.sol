// SPDX-License-Identifier: MIT
pragma solidity 0.8.25;

// Contracts
import { ReentrancyGuard } from "@solady-v0.0.245/utils/ReentrancyGuard.sol";

// Libraries
import { FixedPointMathLib } from "@solady-v0.0.245/utils/FixedPointMathLib.sol";
import { SafeCastLib } from "@solady-v0.0.245/utils/SafeCastLib.sol";
import { SafeTransferLib } from "@solady-v0.0.245/utils/SafeTransferLib.sol";
import { Predeploys } from "@optimism/src/libraries/Predeploys.sol";

// Interfaces
import { ISuperchainTokenBridge } from "interfaces/L2/ISuperchainTokenBridge.sol";

/// @title SwapPool
/// @notice An example of an application over several rollups: a constant product pool of two tokens that can send what
///         was bought to another chain in the same call. Deployed on two chains, a bundle can buy on one and sell on the
///         other in one slot, or not at all.
///         Whoever signs the legs of such a bundle does not know yet what the earlier ones will bring. So no leg names
///         that amount: `swapAndSend` sends all it has bought, `swapAll` and `swapAllAndSend` sell all that has arrived,
///         and the least that must come out is the limit.
///         Nobody has special rights. The fee of 0.3 % stays in the pool, for those who have put tokens into it.
/// @dev    Reserves are what the pool has accounted for, never its balances: tokens sent to it without a call are nobody's
///         and move no price. Tokens that take a fee on transfers are refused, tokens whose balances change by
///         themselves must not be used.
contract SwapPool is ReentrancyGuard {
    using SafeTransferLib for address;
    using SafeCastLib for uint256;

    /// @notice The tokens are not in ascending order of their addresses, which gives a pair one address only.
    error UnsortedTokens();

    /// @notice There is no contract at the token's address on this chain.
    error NoToken(address token);

    /// @notice The pool does not have this token.
    error NotInPool(address token);

    /// @notice The block is later than the caller allows.
    error Expired(uint256 deadline);

    /// @notice The amount is zero: there is nothing to swap or to remove.
    error NothingGiven();

    /// @notice What would come out is nothing, or less than the caller asks for.
    error InsufficientOutput(uint256 amount, uint256 least);

    /// @notice The shares are none, fewer than the caller asks for, or more than the caller has.
    error InsufficientShares(uint256 shares, uint256 wanted);

    /// @notice The token did not bring the pool what was to be transferred.
    error ShortTransfer(address token);

    /// @notice Tokens would go to the zero address.
    error ZeroRecipient();

    /// @notice Emitted when somebody puts tokens into the pool.
    event LiquidityAdded(address indexed provider, uint256 amount0, uint256 amount1, uint256 shares);

    /// @notice Emitted when somebody takes tokens out of the pool.
    event LiquidityRemoved(address indexed provider, uint256 amount0, uint256 amount1, uint256 shares);

    /// @notice Emitted at each swap.
    /// @param trader      Who gave amountIn.
    /// @param tokenIn     The token that was given.
    /// @param to          Who gets amountOut.
    /// @param destination Chain ID of where the recipient gets it.
    event Swapped(
        address indexed trader,
        address indexed tokenIn,
        address indexed to,
        uint256 amountIn,
        uint256 amountOut,
        uint256 destination
    );

    /// @notice What a swap costs, in thousandths of the amount that is given.
    uint256 public constant FEE = 3;

    /// @notice Shares that stay in the pool for ever, taken from its first provider: without them the price of a
    ///         share could be driven up until later providers lose by rounding.
    uint256 public constant LOCKED_SHARES = 1000;

    /// @notice The pool's tokens, in ascending order of their addresses.
    address public immutable TOKEN0;
    address public immutable TOKEN1;

    uint112 internal reserve0;
    uint112 internal reserve1;

    /// @notice All shares, LOCKED_SHARES included. At most the square root of the product of the reserves.
    uint256 public totalShares;

    /// @notice Shares in the pool by provider. They cannot be transferred.
    mapping(address provider => uint256 shares) public sharesOf;

    /// @param _token0 One token, with a contract on this chain.
    /// @param _token1 The other, with a higher address.
    constructor(address _token0, address _token1) {
        if (_token0 >= _token1) revert UnsortedTokens();
        if (_token0.code.length == 0) revert NoToken(_token0);
        if (_token1.code.length == 0) revert NoToken(_token1);
        TOKEN0 = _token0;
        TOKEN1 = _token1;
    }

    modifier until(uint256 _deadline) {
        if (block.timestamp > _deadline) revert Expired(_deadline);
        _;
    }

    /// @notice What the pool holds of its tokens.
    function reserves() external view returns (uint256 reserve0_, uint256 reserve1_) {
        return (reserve0, reserve1);
    }

    /// @notice What a swap would bring now.
    /// @param _tokenIn  Token that is given.
    /// @param _amountIn How much of it.
    /// @return amountOut_ How much of the other token comes out.
    function quote(address _tokenIn, uint256 _amountIn) external view returns (uint256 amountOut_) {
        (uint256 reserveIn, uint256 reserveOut) = _isToken0(_tokenIn) ? (reserve0, reserve1) : (reserve1, reserve0);
        return _amountOut(_amountIn, reserveIn, reserveOut);
    }

    /// @notice Puts tokens into the pool, in the proportion of its reserves; the first provider sets it. The caller must
    ///         have approved the pool for both tokens.
    /// @param _max0      Most to take of TOKEN0.
    /// @param _max1      Most to take of TOKEN1.
    /// @param _minShares Least shares to get for them.
    /// @param _deadline  Last timestamp at which this may happen.
    function addLiquidity(
        uint256 _max0,
        uint256 _max1,
        uint256 _minShares,
        uint256 _deadline
    )
        external
        nonReentrant
        until(_deadline)
        returns (uint256 amount0_, uint256 amount1_, uint256 shares_)
    {
        (uint256 max0, uint256 max1) = (_max0.toUint112(), _max1.toUint112());
        uint256 total = totalShares;
        if (total == 0) {
            (amount0_, amount1_) = (max0, max1);
            shares_ = FixedPointMathLib.zeroFloorSub(FixedPointMathLib.sqrt(max0 * max1), LOCKED_SHARES);
            total = LOCKED_SHARES;
        } else {
            (uint256 had0, uint256 had1) = (reserve0, reserve1);
            shares_ = FixedPointMathLib.min(max0 * total / had0, max1 * total / had1);
            // Rounded up, and still not above the maxima.
            amount0_ = FixedPointMathLib.mulDivUp(shares_, had0, total);
            amount1_ = FixedPointMathLib.mulDivUp(shares_, had1, total);
        }
        if (shares_ == 0 || shares_ < _minShares) revert InsufficientShares(shares_, _minShares);

        reserve0 = (reserve0 + amount0_).toUint112();
        reserve1 = (reserve1 + amount1_).toUint112();
        totalShares = total + shares_;
        sharesOf[msg.sender] += shares_;
        emit LiquidityAdded(msg.sender, amount0_, amount1_, shares_);

        _take(TOKEN0, amount0_, reserve0);
        _take(TOKEN1, amount1_, reserve1);
    }

    /// @notice Takes the caller's part of both reserves out of the pool.
    /// @param _shares   How many of the caller's shares to give up.
    /// @param _min0     Least to get of TOKEN0.
    /// @param _min1     Least to get of TOKEN1.
    /// @param _deadline Last timestamp at which this may happen.
    function removeLiquidity(
        uint256 _shares,
        uint256 _min0,
        uint256 _min1,
        uint256 _deadline
    )
        external
        nonReentrant
        until(_deadline)
        returns (uint256 amount0_, uint256 amount1_)
    {
        if (_shares == 0) revert NothingGiven();
        uint256 own = sharesOf[msg.sender];
        if (_shares > own) revert InsufficientShares(own, _shares);
        amount0_ = _shares * reserve0 / totalShares;
        amount1_ = _shares * reserve1 / totalShares;
        if (amount0_ < _min0) revert InsufficientOutput(amount0_, _min0);
        if (amount1_ < _min1) revert InsufficientOutput(amount1_, _min1);

        sharesOf[msg.sender] = own - _shares;
        totalShares -= _shares;
        reserve0 = (reserve0 - amount0_).toUint112();
        reserve1 = (reserve1 - amount1_).toUint112();
        emit LiquidityRemoved(msg.sender, amount0_, amount1_, _shares);

        TOKEN0.safeTransfer(msg.sender, amount0_);
        TOKEN1.safeTransfer(msg.sender, amount1_);
    }

    /// @notice Swaps an amount of one token for the other. The caller must have approved the pool for it.
    /// @param _tokenIn  Token to give.
    /// @param _amountIn How much of it.
    /// @param _minOut   Least to get of the other token.
    /// @param _to       Who gets it.
    /// @param _deadline Last timestamp at which this may happen.
    /// @return amountOut_ How much of the other token came out.
    function swap(
        address _tokenIn,
        uint256 _amountIn,
        uint256 _minOut,
        address _to,
        uint256 _deadline
    )
        external
        nonReentrant
        until(_deadline)
        returns (uint256 amountOut_)
    {
        return _swap(_tokenIn, _amountIn, _minOut, _to, block.chainid);
    }

    /// @notice Swaps all the caller has of a token: what a message has just brought here, and what was there before.
    /// @param _tokenIn  Token to give.
    /// @param _minOut   Least to get of the other token.
    /// @param _to       Who gets it.
    /// @param _deadline Last timestamp at which this may happen.
    /// @return amountOut_ How much of the other token came out.
    function swapAll(
        address _tokenIn,
        uint256 _minOut,
        address _to,
        uint256 _deadline
    )
        external
        nonReentrant
        until(_deadline)
        returns (uint256 amountOut_)
    {
        return _swap(_tokenIn, _tokenIn.balanceOf(msg.sender), _minOut, _to, block.chainid);
    }

    /// @notice Swaps an amount of one token, and sends all that comes out to another chain through SuperchainTokenBridge.
    ///         The recipient has it once the message has been relayed there. The token that comes out must be an
    ///         ERC-7802 token which is at the same address on the other chain.
    /// @param _tokenIn     Token to give.
    /// @param _amountIn    How much of it.
    /// @param _minOut      Least to send of the other token.
    /// @param _to          Who gets it.
    /// @param _destination Chain ID of where. It must be in the dependency set: on others nobody can ever have it.
    /// @param _deadline    Last timestamp at which this may happen here.
    /// @return amountOut_ How much of the other token is on its way.
    function swapAndSend(
        address _tokenIn,
        uint256 _amountIn,
        uint256 _minOut,
        address _to,
        uint256 _destination,
        uint256 _deadline
    )
        external
        nonReentrant
        until(_deadline)
        returns (uint256 amountOut_)
    {
        return _swapAndSend(_tokenIn, _amountIn, _minOut, _to, _destination);
    }

    /// @notice swapAndSend with all the caller has of a token.
    /// @param _tokenIn     Token to give.
    /// @param _minOut      Least to send of the other token.
    /// @param _to          Who gets it.
    /// @param _destination Chain ID of where, as in swapAndSend.
    /// @param _deadline    Last timestamp at which this may happen here.
    /// @return amountOut_ How much of the other token is on its way.
    function swapAllAndSend(
        address _tokenIn,
        uint256 _minOut,
        address _to,
        uint256 _destination,
        uint256 _deadline
    )
        external
        nonReentrant
        until(_deadline)
        returns (uint256 amountOut_)
    {
        return _swapAndSend(_tokenIn, _tokenIn.balanceOf(msg.sender), _minOut, _to, _destination);
    }

    function _swap(
        address _tokenIn,
        uint256 _amountIn,
        uint256 _minOut,
        address _to,
        uint256 _destination
    )
        internal
        returns (uint256 amountOut_)
    {
        if (_to == address(0)) revert ZeroRecipient();
        address tokenOut;
        (tokenOut, amountOut_) = _exchange(_tokenIn, _amountIn, _minOut, _to, _destination);
        tokenOut.safeTransfer(_to, amountOut_);
    }

    function _swapAndSend(
        address _tokenIn,
        uint256 _amountIn,
        uint256 _minOut,
        address _to,
        uint256 _destination
    )
        internal
        returns (uint256 amountOut_)
    {
        if (_to == address(0)) revert ZeroRecipient();
        address tokenOut;
        (tokenOut, amountOut_) = _exchange(_tokenIn, _amountIn, _minOut, _to, _destination);
        // The bridge burns it here, from the pool, which is its caller.
        ISuperchainTokenBridge(Predeploys.SUPERCHAIN_TOKEN_BRIDGE).sendERC20(tokenOut, _to, amountOut_, _destination);
    }

    /// @notice Does what swaps have in common: everything but handing over what comes out.
    function _exchange(
        address _tokenIn,
        uint256 _amountIn,
        uint256 _minOut,
        address _to,
        uint256 _destination
    )
        internal
        returns (address tokenOut_, uint256 amountOut_)
    {
        bool in0 = _isToken0(_tokenIn);
        if (_amountIn == 0) revert NothingGiven();
        (uint256 reserveIn, uint256 reserveOut) = in0 ? (reserve0, reserve1) : (reserve1, reserve0);
        amountOut_ = _amountOut(_amountIn, reserveIn, reserveOut);
        if (amountOut_ == 0 || amountOut_ < _minOut) revert InsufficientOutput(amountOut_, _minOut);

        uint112 afterIn = (reserveIn + _amountIn).toUint112();
        uint112 afterOut = (reserveOut - amountOut_).toUint112();
        (reserve0, reserve1) = in0 ? (afterIn, afterOut) : (afterOut, afterIn);
        emit Swapped(msg.sender, _tokenIn, _to, _amountIn, amountOut_, _destination);

        _take(_tokenIn, _amountIn, afterIn);
        tokenOut_ = in0 ? TOKEN1 : TOKEN0;
    }

    /// @notice Takes tokens from the caller.
    /// @param _reserve What the pool must hold afterwards.
    function _take(address _token, uint256 _amount, uint256 _reserve) internal {
        _token.safeTransferFrom(msg.sender, address(this), _amount);
        if (_token.balanceOf(address(this)) < _reserve) revert ShortTransfer(_token);
    }

    function _isToken0(address _token) internal view returns (bool) {
        if (_token == TOKEN0) return true;
        if (_token == TOKEN1) return false;
        revert NotInPool(_token);
    }

    /// @notice The product of the reserves does not get smaller: what comes out is rounded down. It is always less than
    ///         the whole reserve.
    function _amountOut(uint256 _amountIn, uint256 _reserveIn, uint256 _reserveOut) internal pure returns (uint256) {
        uint256 charged = uint256(_amountIn.toUint112()) * (1000 - FEE);
        if (charged == 0) return 0;
        return charged * _reserveOut / (_reserveIn * 1000 + charged);
    }
}
