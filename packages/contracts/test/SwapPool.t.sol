// SPDX-License-Identifier: MIT
pragma solidity 0.8.25;

import { Test } from "forge-std/Test.sol";
import { Vm } from "forge-std/Vm.sol";
import { ERC20 } from "@solady-v0.0.245/tokens/ERC20.sol";
import { ReentrancyGuard } from "@solady-v0.0.245/utils/ReentrancyGuard.sol";
import { SafeCastLib } from "@solady-v0.0.245/utils/SafeCastLib.sol";
import { SafeTransferLib } from "@solady-v0.0.245/utils/SafeTransferLib.sol";
import { L2ToL2CrossDomainMessenger, MessageDestinationSameChain } from "@optimism/src/L2/L2ToL2CrossDomainMessenger.sol";
import { SuperchainTokenBridge } from "@optimism/src/L2/SuperchainTokenBridge.sol";
import { Predeploys } from "@optimism/src/libraries/Predeploys.sol";
import { ICrossL2Inbox, Identifier } from "interfaces/L2/ICrossL2Inbox.sol";

import { InteropTestToken } from "@shared-sequencer/src/InteropTestToken.sol";
import { SwapPool } from "@shared-sequencer/src/swap/SwapPool.sol";

/// @notice A pool with two test tokens, and accounts.
abstract contract PoolTest is Test {
    uint256 internal constant CHAIN_A = 901;
    uint256 internal constant CHAIN_B = 902;
    uint256 internal constant DEADLINE = 1_000_000;

    address internal maker = makeAddr("maker");
    address internal trader = makeAddr("trader");

    address internal token0;
    address internal token1;
    SwapPool internal pool;

    function setUp() public virtual {
        vm.chainId(CHAIN_A);
        vm.warp(DEADLINE - 10);
        (token0, token1) = sorted(address(new InteropTestToken()), address(new InteropTestToken()));
        pool = new SwapPool(token0, token1);
        approve(maker, pool);
        approve(trader, pool);
    }

    function sorted(address _a, address _b) internal pure returns (address, address) {
        return _a < _b ? (_a, _b) : (_b, _a);
    }

    function approve(address _owner, SwapPool _pool) internal {
        vm.startPrank(_owner);
        ERC20(_pool.TOKEN0()).approve(address(_pool), type(uint256).max);
        ERC20(_pool.TOKEN1()).approve(address(_pool), type(uint256).max);
        vm.stopPrank();
    }

    function provide(SwapPool _pool, uint256 _amount0, uint256 _amount1) internal returns (uint256 shares_) {
        give(_pool.TOKEN0(), maker, _amount0);
        give(_pool.TOKEN1(), maker, _amount1);
        vm.prank(maker);
        (,, shares_) = _pool.addLiquidity(_amount0, _amount1, 0, DEADLINE);
    }

    /// @notice Gives an account tokens, which count in the token's supply: those that are sent are burned from it.
    function give(address _token, address _to, uint256 _amount) internal {
        deal(_token, _to, _amount, true);
    }

    /// @notice What is true of a pool after every call.
    function checkPool(SwapPool _pool) internal view {
        (uint256 reserve0, uint256 reserve1) = _pool.reserves();
        uint256 total = _pool.totalShares();
        assertGe(ERC20(_pool.TOKEN0()).balanceOf(address(_pool)), reserve0, "reserve of token 0 is there");
        assertGe(ERC20(_pool.TOKEN1()).balanceOf(address(_pool)), reserve1, "reserve of token 1 is there");
        assertLe(total * total, reserve0 * reserve1, "a share is worth at least what was given for it");
    }

    function balance(address _token, address _owner) internal view returns (uint256) {
        return ERC20(_token).balanceOf(_owner);
    }
}

contract SwapPool_Test is PoolTest {
    function test_constructor_badTokens_reverts() external {
        vm.expectRevert(SwapPool.UnsortedTokens.selector);
        new SwapPool(token1, token0);
        vm.expectRevert(SwapPool.UnsortedTokens.selector);
        new SwapPool(token0, token0);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.NoToken.selector, address(0)));
        new SwapPool(address(0), token1);
        address none = address(type(uint160).max);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.NoToken.selector, none));
        new SwapPool(token0, none);
    }

    function test_addLiquidity_firstAndSecond_succeeds() external {
        uint256 first = provide(pool, 4e18, 1e18);
        assertEq(first, 2e18 - pool.LOCKED_SHARES());
        assertEq(pool.totalShares(), 2e18);

        // The second takes the pool's proportion, and leaves what is too much.
        give(token0, trader, 4e18);
        give(token1, trader, 4e18);
        vm.prank(trader);
        (uint256 amount0, uint256 amount1, uint256 shares) = pool.addLiquidity(4e18, 4e18, 2e18, DEADLINE);
        assertEq(amount0, 4e18);
        assertEq(amount1, 1e18);
        assertEq(shares, 2e18);
        assertEq(balance(token1, trader), 3e18);
        assertEq(pool.sharesOf(trader), 2e18);
        checkPool(pool);
    }

    function test_addLiquidity_tooFewShares_reverts() external {
        give(token0, maker, 10e18);
        give(token1, maker, 10e18);
        vm.startPrank(maker);
        // What is locked is all there would be.
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientShares.selector, 0, 0));
        pool.addLiquidity(1000, 1000, 0, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientShares.selector, 1e18 - 1000, 1e18));
        pool.addLiquidity(1e18, 1e18, 1e18, DEADLINE);
        pool.addLiquidity(1e18, 1e18, 0, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientShares.selector, 0, 0));
        pool.addLiquidity(1e18, 0, 0, DEADLINE);
    }

    function test_addLiquidity_tooMuch_reverts() external {
        vm.prank(maker);
        vm.expectRevert(SafeCastLib.Overflow.selector);
        pool.addLiquidity(uint256(type(uint112).max) + 1, 1e18, 0, DEADLINE);
    }

    /// @notice Tokens that are given to the pool do not make its shares dearer for those who come later.
    function test_addLiquidity_donation_hasNoEffect() external {
        provide(pool, 2000, 2000);
        InteropTestToken(token0).mint(address(pool), 1e30);
        give(token0, trader, 1000);
        give(token1, trader, 1000);
        vm.prank(trader);
        (uint256 amount0,, uint256 shares) = pool.addLiquidity(1000, 1000, 1000, DEADLINE);
        assertEq(amount0, 1000);
        assertEq(shares, 1000);
        assertEq(pool.quote(token1, 100), 96);
    }

    function test_removeLiquidity_succeeds() external {
        uint256 shares = provide(pool, 4e18, 1e18);
        vm.startPrank(maker);
        (uint256 amount0, uint256 amount1) = pool.removeLiquidity(1e18, 2e18, 0.5e18, DEADLINE);
        assertEq(amount0, 2e18);
        assertEq(amount1, 0.5e18);
        pool.removeLiquidity(shares - 1e18, 0, 0, DEADLINE);
        vm.stopPrank();
        // What is locked is all that stays.
        assertEq(pool.totalShares(), pool.LOCKED_SHARES());
        assertEq(balance(token0, address(pool)), 2000);
        assertEq(balance(token1, address(pool)), 500);
        checkPool(pool);
    }

    function test_removeLiquidity_reverts() external {
        uint256 shares = provide(pool, 4e18, 1e18);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientShares.selector, 0, 1));
        vm.prank(trader);
        pool.removeLiquidity(1, 0, 0, DEADLINE);

        vm.startPrank(maker);
        vm.expectRevert(SwapPool.NothingGiven.selector);
        pool.removeLiquidity(0, 0, 0, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientShares.selector, shares, shares + 1));
        pool.removeLiquidity(shares + 1, 0, 0, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, 2e18, 2e18 + 1));
        pool.removeLiquidity(1e18, 2e18 + 1, 0, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, 0.5e18, 0.5e18 + 1));
        pool.removeLiquidity(1e18, 0, 0.5e18 + 1, DEADLINE);
    }

    function test_swap_bothDirections_succeeds() external {
        provide(pool, 1e6, 1e6);
        give(token0, trader, 100_000);
        // 99.7 * 1000 / (1000 + 99.7) = 90.66108…
        assertEq(pool.quote(token0, 100_000), 90_661);
        vm.expectEmit(address(pool));
        emit SwapPool.Swapped(trader, token0, maker, 100_000, 90_661, CHAIN_A);
        vm.prank(trader);
        assertEq(pool.swap(token0, 100_000, 90_661, maker, DEADLINE), 90_661);
        assertEq(balance(token0, trader), 0);
        assertEq(balance(token1, maker), 90_661);
        (uint256 reserve0, uint256 reserve1) = pool.reserves();
        assertEq(reserve0, 1_100_000);
        assertEq(reserve1, 909_339);

        // 90.389017 * 1100 / (909.339 + 90.389017) = 99.45496…
        vm.prank(maker);
        assertEq(pool.swap(token1, 90_661, 0, trader, DEADLINE), 99_454);
        assertEq(balance(token0, trader), 99_454);
        checkPool(pool);
    }

    function test_swap_badArguments_reverts() external {
        // An empty pool has nothing to give.
        vm.startPrank(trader);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, 0, 0));
        pool.swap(token0, 100_000, 0, trader, DEADLINE);
        vm.stopPrank();
        provide(pool, 1e6, 1e6);
        give(token0, trader, 100_000);
        vm.startPrank(trader);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, 90_661, 90_662));
        pool.swap(token0, 100_000, 90_662, trader, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, 0, 0));
        pool.swap(token0, 1, 0, trader, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.NotInPool.selector, trader));
        pool.swap(trader, 100_000, 0, trader, DEADLINE);
        vm.expectRevert(SwapPool.NothingGiven.selector);
        pool.swap(token0, 0, 0, trader, DEADLINE);
        vm.expectRevert(SwapPool.ZeroRecipient.selector);
        pool.swap(token0, 100_000, 0, address(0), DEADLINE);
        vm.expectRevert(SafeCastLib.Overflow.selector);
        pool.swap(token0, type(uint256).max, 0, trader, DEADLINE);
        vm.expectRevert(SafeTransferLib.TransferFromFailed.selector);
        pool.swap(token0, 100_001, 0, trader, DEADLINE);
        assertEq(balance(token0, trader), 100_000);
    }

    function test_swapAll_takesAll_succeeds() external {
        provide(pool, 1e6, 1e6);
        vm.prank(trader);
        vm.expectRevert(SwapPool.NothingGiven.selector);
        pool.swapAll(token0, 0, trader, DEADLINE);
        // The amount comes from the balance, whatever has arrived.
        give(token0, trader, 100_000);
        vm.prank(trader);
        assertEq(pool.swapAll(token0, 90_661, trader, DEADLINE), 90_661);
        assertEq(balance(token0, trader), 0);
        assertEq(balance(token1, trader), 90_661);
    }

    function test_swapAll_otherToken_reverts() external {
        provide(pool, 1e6, 1e6);
        address other = address(new InteropTestToken());
        give(other, trader, 100);
        vm.startPrank(trader);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.NotInPool.selector, other));
        pool.swapAll(other, 0, trader, DEADLINE);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.NotInPool.selector, trader));
        pool.swapAll(trader, 0, trader, DEADLINE);
    }

    function test_everything_afterDeadline_reverts() external {
        provide(pool, 1e6, 1e6);
        vm.warp(DEADLINE);
        give(token0, trader, 100);
        vm.prank(trader);
        pool.swap(token0, 50, 0, trader, DEADLINE); // the deadline itself is in time
        vm.warp(DEADLINE + 1);
        bytes memory expired = abi.encodeWithSelector(SwapPool.Expired.selector, DEADLINE);
        vm.startPrank(trader);
        vm.expectRevert(expired);
        pool.swap(token0, 50, 0, trader, DEADLINE);
        vm.expectRevert(expired);
        pool.swapAll(token0, 0, trader, DEADLINE);
        vm.expectRevert(expired);
        pool.swapAndSend(token0, 50, 0, trader, CHAIN_B, DEADLINE);
        vm.expectRevert(expired);
        pool.swapAllAndSend(token0, 0, trader, CHAIN_B, DEADLINE);
        vm.expectRevert(expired);
        pool.addLiquidity(50, 50, 0, DEADLINE);
        vm.expectRevert(expired);
        pool.removeLiquidity(1, 0, 0, DEADLINE);
    }

    /// @notice Whoever swaps there and back has not gained.
    function testFuzz_swap_thereAndBack_noGain(uint112 _reserve0, uint112 _reserve1, uint112 _amount) external {
        uint256 amount0 = bound(_reserve0, 1e6, type(uint112).max / 4);
        provide(pool, amount0, bound(_reserve1, 1e6, type(uint112).max / 4));
        uint256 amount = bound(_amount, 1, type(uint112).max / 4);
        vm.assume(pool.quote(token0, amount) > 0);
        give(token0, trader, amount);
        vm.startPrank(trader);
        uint256 out = pool.swap(token0, amount, 0, trader, DEADLINE);
        assertEq(balance(token1, trader), out);
        checkPool(pool);
        if (pool.quote(token1, out) == 0) return;
        assertLe(pool.swapAll(token1, 0, trader, DEADLINE), amount);
        checkPool(pool);
    }

    /// @notice Whoever puts tokens in and takes them out has not gained.
    function testFuzz_liquidity_inAndOut_noGain(uint112 _reserve0, uint112 _reserve1, uint112 _max0, uint112 _max1) external {
        uint256 had0 = bound(_reserve0, 1e6, type(uint112).max / 4);
        uint256 had1 = bound(_reserve1, 1e6, type(uint112).max / 4);
        provide(pool, had0, had1);
        uint256 max0 = bound(_max0, 1, type(uint112).max / 4);
        uint256 max1 = bound(_max1, 1, type(uint112).max / 4);
        vm.assume(max0 * pool.totalShares() >= had0 && max1 * pool.totalShares() >= had1);
        give(token0, trader, max0);
        give(token1, trader, max1);
        vm.startPrank(trader);
        (uint256 in0, uint256 in1, uint256 shares) = pool.addLiquidity(max0, max1, 0, DEADLINE);
        assertLe(in0, max0);
        assertLe(in1, max1);
        checkPool(pool);
        (uint256 out0, uint256 out1) = pool.removeLiquidity(shares, 0, 0, DEADLINE);
        assertLe(out0, in0);
        assertLe(out1, in1);
        checkPool(pool);
    }
}

/// @notice A token that calls the pool back, or keeps part of what is transferred.
contract HostileToken is ERC20 {
    address internal pool;
    bytes internal callback;
    bool internal greedy;
    bytes public returned;

    function name() public pure override returns (string memory) {
        return "";
    }

    function symbol() public pure override returns (string memory) {
        return "";
    }

    function mint(address _to, uint256 _amount) external {
        _mint(_to, _amount);
    }

    function beGreedy() external {
        greedy = true;
    }

    function callBack(address _pool, bytes memory _callback) external {
        (pool, callback) = (_pool, _callback);
    }

    function _afterTokenTransfer(address _from, address _to, uint256 _amount) internal override {
        if (_from == address(0) || _to == address(0)) return;
        if (greedy && _amount > 0) _burn(_to, 1);
        if (callback.length == 0) return;
        (bool ok, bytes memory data) = pool.call(callback);
        require(!ok, "the pool let itself be called back");
        returned = data;
    }
}

contract SwapPool_HostileToken_Test is PoolTest {
    HostileToken internal hostile;

    function setUp() public override {
        super.setUp();
        hostile = new HostileToken();
        (token0, token1) = sorted(address(hostile), token0);
        pool = new SwapPool(token0, token1);
        approve(maker, pool);
        approve(trader, pool);
        provide(pool, 1e6, 1e6);
        hostile.mint(trader, 100);
    }

    function test_reentrancy_everyEntry_refused() external {
        address token = address(hostile);
        bytes[6] memory calls = [
            abi.encodeCall(pool.swap, (token, 1, 0, trader, DEADLINE)),
            abi.encodeCall(pool.swapAll, (token, 0, trader, DEADLINE)),
            abi.encodeCall(pool.swapAndSend, (token, 1, 0, trader, CHAIN_B, DEADLINE)),
            abi.encodeCall(pool.swapAllAndSend, (token, 0, trader, CHAIN_B, DEADLINE)),
            abi.encodeCall(pool.addLiquidity, (1, 1, 0, DEADLINE)),
            abi.encodeCall(pool.removeLiquidity, (1, 0, 0, DEADLINE))
        ];
        for (uint256 i = 0; i < calls.length; i++) {
            hostile.callBack(address(pool), calls[i]);
            vm.prank(trader);
            pool.swap(token, 10, 0, trader, DEADLINE);
            assertEq(hostile.returned(), abi.encodeWithSelector(ReentrancyGuard.Reentrancy.selector));
            checkPool(pool);
        }
    }

    function test_feeOnTransfer_refused() external {
        hostile.beGreedy();
        bytes memory short = abi.encodeWithSelector(SwapPool.ShortTransfer.selector, address(hostile));
        vm.prank(trader);
        vm.expectRevert(short);
        pool.swap(address(hostile), 10, 0, trader, DEADLINE);

        address other = token0 == address(hostile) ? token1 : token0;
        give(other, trader, 100);
        vm.prank(trader);
        vm.expectRevert(short);
        pool.addLiquidity(100, 100, 0, DEADLINE);
    }
}

/// @notice The pools of two chains, with upstream's bridge and messenger. The chains share this EVM's state, so their
///         pools are two contracts; which chain it is says the chain ID. That a message was really sent is CrossL2Inbox's
///         to check, which is mocked here and real in op-e2e/system.
contract SwapPool_CrossChain_Test is PoolTest {
    SwapPool internal poolA;
    SwapPool internal poolB;
    address internal quoteToken;
    address internal baseToken;

    function setUp() public override {
        super.setUp();
        vm.etch(Predeploys.SUPERCHAIN_TOKEN_BRIDGE, address(new SuperchainTokenBridge()).code);
        vm.etch(Predeploys.L2_TO_L2_CROSS_DOMAIN_MESSENGER, address(new L2ToL2CrossDomainMessenger()).code);
        vm.mockCall(Predeploys.CROSS_L2_INBOX, abi.encodeWithSelector(ICrossL2Inbox.validateMessage.selector), "");
        (poolA, poolB) = (pool, new SwapPool(token0, token1));
        approve(maker, poolB);
        approve(trader, poolB);
        (quoteToken, baseToken) = (token0, token1);
        provide(poolA, 1000e18, 1000e18); // base costs 1 on A
        provide(poolB, 2000e18, 1000e18); // and 2 on B
        give(quoteToken, trader, 100e18);
        give(baseToken, trader, 0);
    }

    /// @notice Executes on a chain what the logs say was sent to it, as a relay step of a bundle does.
    function relay(uint256 _from, uint256 _to, Vm.Log[] memory _logs) internal returns (uint256 relayed_) {
        vm.chainId(_to);
        for (uint256 i = 0; i < _logs.length; i++) {
            if (_logs[i].emitter != Predeploys.L2_TO_L2_CROSS_DOMAIN_MESSENGER) continue;
            bytes memory payload = abi.encodePacked(_logs[i].topics, _logs[i].data);
            Identifier memory id = Identifier(_logs[i].emitter, block.number, i, block.timestamp, _from);
            L2ToL2CrossDomainMessenger(Predeploys.L2_TO_L2_CROSS_DOMAIN_MESSENGER).relayMessage(id, payload);
            relayed_++;
        }
    }

    function test_arbitrage_thereAndBack_succeeds() external {
        uint256 bought = poolA.quote(quoteToken, 100e18);
        uint256 sold = poolB.quote(baseToken, bought);

        vm.recordLogs();
        vm.prank(trader);
        assertEq(poolA.swapAndSend(quoteToken, 100e18, 1, trader, CHAIN_B, DEADLINE), bought);
        assertEq(balance(baseToken, address(poolA)), 1000e18 - bought, "it was burned");
        assertEq(balance(baseToken, trader), 0, "and is on its way");
        assertEq(relay(CHAIN_A, CHAIN_B, vm.getRecordedLogs()), 1);
        assertEq(balance(baseToken, trader), bought);

        vm.recordLogs();
        vm.prank(trader);
        assertEq(poolB.swapAllAndSend(baseToken, 150e18, trader, CHAIN_A, DEADLINE), sold);
        assertEq(balance(quoteToken, trader), 0);
        assertEq(relay(CHAIN_B, CHAIN_A, vm.getRecordedLogs()), 1);
        assertEq(balance(quoteToken, trader), sold);
        assertEq(balance(baseToken, trader), 0);
        assertGt(sold, 165e18, "100 became more than 165");
        checkPool(poolA);
        checkPool(poolB);
    }

    /// @notice The second with the same bundle: the first leg would go through, the limit of the second stops it.
    function test_arbitrage_gapIsGone_reverts() external {
        vm.recordLogs();
        vm.prank(trader);
        poolA.swapAndSend(quoteToken, 100e18, 1, trader, CHAIN_B, DEADLINE);
        relay(CHAIN_A, CHAIN_B, vm.getRecordedLogs());
        vm.prank(trader);
        poolB.swapAll(baseToken, 0, trader, DEADLINE);

        vm.chainId(CHAIN_A);
        give(quoteToken, trader, 100e18);
        vm.recordLogs();
        vm.prank(trader);
        uint256 bought = poolA.swapAndSend(quoteToken, 100e18, 1, trader, CHAIN_B, DEADLINE);
        relay(CHAIN_A, CHAIN_B, vm.getRecordedLogs());
        uint256 out = poolB.quote(baseToken, bought);
        vm.prank(trader);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, out, 150e18));
        poolB.swapAllAndSend(baseToken, 150e18, trader, CHAIN_A, DEADLINE);
    }

    /// @notice A leg that is run without the others, as a leader could, keeps to its limit; one that nothing has been
    ///         sent to does nothing.
    function test_leg_alone_isBounded() external {
        vm.startPrank(trader);
        uint256 bought = poolA.quote(quoteToken, 100e18);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.InsufficientOutput.selector, bought, bought + 1));
        poolA.swapAndSend(quoteToken, 100e18, bought + 1, trader, CHAIN_B, DEADLINE);
        vm.chainId(CHAIN_B);
        vm.expectRevert(SwapPool.NothingGiven.selector);
        poolB.swapAllAndSend(baseToken, 150e18, trader, CHAIN_A, DEADLINE);
    }

    function test_swapAndSend_badArguments_reverts() external {
        vm.startPrank(trader);
        vm.expectRevert(SwapPool.ZeroRecipient.selector);
        poolA.swapAndSend(quoteToken, 100e18, 1, address(0), CHAIN_B, DEADLINE);
        vm.expectRevert(MessageDestinationSameChain.selector);
        poolA.swapAndSend(quoteToken, 100e18, 1, trader, CHAIN_A, DEADLINE);
        assertEq(balance(quoteToken, trader), 100e18);
    }

    /// @notice Only ERC-7802 tokens can be sent; others can be swapped.
    function test_swapAndSend_plainToken_reverts() external {
        HostileToken plain = new HostileToken();
        (address a, address b) = sorted(address(plain), quoteToken);
        SwapPool other = new SwapPool(a, b);
        approve(maker, other);
        approve(trader, other);
        provide(other, 1e6, 1e6);
        vm.startPrank(trader);
        vm.expectRevert();
        other.swapAndSend(quoteToken, 100, 1, trader, CHAIN_B, DEADLINE);
        assertEq(other.swap(quoteToken, 100_000, 1, trader, DEADLINE), 90_661);
    }
}

/// @notice Does with a pool what anybody may, in any order.
contract Users is Test {
    SwapPool internal pool;
    address[2] internal tokens;
    address[3] internal users = [address(0xa1), address(0xa2), address(0xa3)];

    constructor(SwapPool _pool) {
        pool = _pool;
        tokens = [_pool.TOKEN0(), _pool.TOKEN1()];
        for (uint256 i = 0; i < users.length; i++) {
            for (uint256 j = 0; j < 2; j++) {
                vm.prank(users[i]);
                ERC20(tokens[j]).approve(address(_pool), type(uint256).max);
            }
        }
    }

    function add(uint256 _user, uint256 _max0, uint256 _max1) external {
        address user = users[_user % 3];
        (uint256 max0, uint256 max1) = (bound(_max0, 1e4, 1e24), bound(_max1, 1e4, 1e24));
        (uint256 had0, uint256 had1) = pool.reserves();
        uint256 total = pool.totalShares();
        if (total > 0 && (max0 * total < had0 || max1 * total < had1)) return;
        InteropTestToken(tokens[0]).mint(user, max0);
        InteropTestToken(tokens[1]).mint(user, max1);
        vm.prank(user);
        pool.addLiquidity(max0, max1, 0, block.timestamp);
    }

    function remove(uint256 _user, uint256 _shares) external {
        address user = users[_user % 3];
        uint256 own = pool.sharesOf(user);
        if (own == 0) return;
        vm.prank(user);
        pool.removeLiquidity(bound(_shares, 1, own), 0, 0, block.timestamp);
    }

    function swap(uint256 _user, uint256 _token, uint256 _amount) external {
        address user = users[_user % 3];
        address token = tokens[_token % 2];
        uint256 amount = bound(_amount, 1, 1e24);
        if (pool.totalShares() == 0 || pool.quote(token, amount) == 0) return;
        InteropTestToken(token).mint(user, amount);
        vm.prank(user);
        pool.swap(token, amount, 0, user, block.timestamp);
    }

    function donate(uint256 _token, uint256 _amount) external {
        InteropTestToken(tokens[_token % 2]).mint(address(pool), bound(_amount, 1, 1e24));
    }

    function sumOfShares() external view returns (uint256 sum_) {
        for (uint256 i = 0; i < users.length; i++) {
            sum_ += pool.sharesOf(users[i]);
        }
    }
}

contract SwapPool_Invariant_Test is PoolTest {
    Users internal users;

    function setUp() public override {
        super.setUp();
        users = new Users(pool);
        targetContract(address(users));
    }

    function invariant_pool() external view {
        checkPool(pool);
        uint256 total = pool.totalShares();
        if (total > 0) assertEq(users.sumOfShares() + pool.LOCKED_SHARES(), total, "shares add up");
    }
}
