// The SDK against two real rollups with the shared sequencer.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  BundleCancelledError,
  BundleNotPendingError,
  BundleSimulationError,
  BundleUnderpricedError,
  bundle,
  InvalidBundleError,
  l2ToL2CrossDomainMessengerAbi,
  l2ToL2CrossDomainMessengerAddress,
  messageFromLog,
  NotBundleSenderError,
  publicActionsSharedSequencer,
  relayMessageCall,
  SequencerUnavailableError,
  type Subblock,
  superchainETHBridgeAbi,
  superchainETHBridgeAddress,
  type TransactionItem,
  UnknownBundleError,
  signReplacement,
} from '@op-shared-sequencer/sdk'
import {
  type Address,
  createClient,
  createPublicClient,
  decodeErrorResult,
  encodeFunctionData,
  type Hash,
  http,
  parseAbi,
  parseEther,
  parseEventLogs,
  type TransactionReceipt,
  TransactionReceiptNotFoundError,
  webSocket,
  zeroAddress,
} from 'viem'
import { generatePrivateKey, mnemonicToAccount, privateKeyToAccount } from 'viem/accounts'
import { type Devnet, startDevnet } from './devnet.js'
import { until } from './server.js'

const [A, B] = [901, 902]
/** The development keys that everybody knows. */
const user = (addressIndex: number) =>
  mnemonicToAccount('test test test test test test test test test test test junk', { addressIndex })

const sendETH = (to: Address, chain: number) => ({
  to: superchainETHBridgeAddress,
  data: encodeFunctionData({ abi: superchainETHBridgeAbi, functionName: 'sendETH', args: [to, BigInt(chain)] }),
})

describe('a devnet with two rollups', { timeout: 20 * 60_000 }, () => {
  let devnet: Devnet
  const client = () => createClient({ transport: http(devnet.endpoints.sharedSequencer) }).extend(publicActionsSharedSequencer())
  const rollup = (chain: number) => createPublicClient({ transport: http(devnet.endpoints.chains[chain]!.rpc) })
  const rollups = () => [rollup(A), rollup(B)]
  /** The receipt, once the chain's head has caught up with what the sequencer agreed on. */
  const receiptOf = (chain: number, hash: Hash): Promise<TransactionReceipt> =>
    until(() => receiptNow(chain, hash))
  const receiptNow = (chain: number, hash: Hash) =>
    rollup(chain)
      .getTransactionReceipt({ hash })
      .catch((error) => {
        if (error instanceof TransactionReceiptNotFoundError) return undefined
        throw error
      })

  before(async () => {
    devnet = await startDevnet()
    await until(async () => {
      const { chains } = await client().getSharedSequencerStatus()
      return chains.length === 2 && chains.every((c) => c.ready && c.head.number > 0n)
    })
  })
  after(() => devnet?.stop())

  test('status and turns', async () => {
    const status = await client().getSharedSequencerStatus()
    assert.deepEqual(status.chains.map((c) => c.chainId), [A, B])
    const turns = await client().getLeaderSchedule({ turns: 3 })
    assert.equal(turns.length, 3)
    assert.equal(turns[0]?.leader, zeroAddress) // one operator, alone
    await assert.rejects(client().getOperators(), SequencerUnavailableError)
  })

  test('an atomic bundle: send ETH, relay it, spend it, in one slot, up to safe', async () => {
    const [alice, fresh] = [user(0), privateKeyToAccount(generatePrivateKey())]
    const { bundle: signed, hashes, simulation } = await client().signBundle({
      chains: rollups(),
      items: [
        { chainId: A, account: alice, value: parseEther('1'), ...sendETH(fresh.address, B) },
        { chainId: B, relay: true },
        { chainId: B, account: fresh, to: alice.address, value: parseEther('0.5') },
      ],
    })
    assert.deepEqual(simulation?.items.map((i) => [i.item, i.chainId, i.status]), [[0, A, 'success'], [1, B, 'success'], [2, B, 'success']])
    const { bundleHash } = await client().sendBundle(signed)
    const status = await client().waitForBundle({ bundleHash, throwOnFailure: true })
    assert.deepEqual(status.items.map((i) => [i.item, i.chainId, i.status]), [[0, A, 'success'], [1, B, 'success'], [2, B, 'success']])
    assert.equal(status.items[0]?.transactionHash, hashes[0])
    assert.equal(status.items[2]?.transactionHash, hashes[2])
    for (const { chainId, transactionHash, blockNumber, gasUsed } of status.items) {
      const receipt = await receiptOf(chainId, transactionHash)
      assert.equal(receipt.status, 'success')
      assert.equal(receipt.blockNumber, blockNumber)
      assert.equal(receipt.gasUsed, gasUsed)
      const block = await rollup(chainId).getBlock({ blockHash: receipt.blockHash })
      assert.equal(block.timestamp, status.slot)
    }
    const left = await rollup(B).getBalance({ address: fresh.address })
    assert.ok(left > 0n && left < parseEther('0.5'), `${left} wei left`)
    // Sending it again changes nothing: its last slot is part of its hash.
    const again = await client().sendBundle({ ...signed, maxSlots: undefined, expirySlot: status.expirySlot })
    assert.equal(again.bundleHash, bundleHash)
    const safe = await client().waitForBundle({ bundleHash, until: 'safe', throwOnFailure: true })
    assert.equal(safe.state, 'safe')
  })

  test('a bundle that fails leaves no trace', async () => {
    const [bob, fresh] = [user(1), privateKeyToAccount(generatePrivateKey())]
    const gas = 500_000n // of which there is no simulation, as that would fail
    const { bundle: signed, hashes } = await client().signBundle({
      chains: rollups(),
      maxSlots: 5,
      items: [
        { chainId: A, account: bob, gas, value: parseEther('2'), ...sendETH(fresh.address, B) },
        { chainId: B, relay: true },
        { chainId: B, account: bob, gas, value: 1n, ...sendETH(zeroAddress, A) },
      ],
    })
    const standing = () =>
      Promise.all(
        [A, B].flatMap((chain) =>
          [bob.address, fresh.address].flatMap((address): Promise<unknown>[] => [
            rollup(chain).getBalance({ address }),
            rollup(chain).getTransactionCount({ address }),
          ]),
        ),
      )
    const before = await standing()
    const { bundleHash } = await client().sendBundle(signed)
    const status = await client().waitForBundle({ bundleHash })
    assert.equal(status.state, 'failed')
    assert.equal(status.failure?.item, 2)
    assert.equal(status.failure?.chainId, B)
    // Two more slots, for what may still be on its way.
    for (const chain of [A, B]) {
      const seen = await rollup(chain).getBlockNumber({ cacheTime: 0 })
      await until(async () => (await rollup(chain).getBlockNumber({ cacheTime: 0 })) >= seen + 2n)
    }
    assert.deepEqual(await standing(), before)
    assert.equal(await receiptNow(A, hashes[0]!), undefined)
    assert.equal(await receiptNow(B, hashes[2]!), undefined)
  })

  test('a simulation tells what a transaction reverts with', async () => {
    const item = { chainId: A, account: user(1), value: 1n, ...sendETH(zeroAddress, B) }
    const { bundle: signed } = await client().signBundle({ chains: rollups(), items: [{ ...item, gas: 500_000n }] })
    const result = await client().simulateBundle(signed)
    assert.equal(result.success, false)
    assert.equal(result.items[0]?.status, 'reverted')
    const abi = parseAbi(['error ZeroAddress()'])
    assert.equal(decodeErrorResult({ abi, data: result.failure!.returnData! }).errorName, 'ZeroAddress')
    await assert.rejects(client().signBundle({ chains: rollups(), items: [item] }), BundleSimulationError)
  })

  test('errors of a real node', async () => {
    const account = user(1)
    const transaction = await account.signTransaction({ chainId: A, nonce: 0, gas: 21_000n, maxFeePerGas: 1n, to: zeroAddress })
    await assert.rejects(client().sendBundle(bundle().transaction(B, transaction)), (e: Error) => {
      assert.ok(e instanceof InvalidBundleError, String(e))
      assert.deepEqual([e.kind, e.item, e.chainId], ['wrong-chain', 0, B])
      return true
    })
    await assert.rejects(client().getBundleStatus({ bundleHash: `0x${'12'.repeat(32)}` }), UnknownBundleError)
  })

  test('a message is executed later, with the access list made from its log', async () => {
    const account = user(2)
    const send = await client().signBundle({
      chains: rollups(),
      items: [
        {
          chainId: A,
          account,
          to: l2ToL2CrossDomainMessengerAddress,
          data: encodeFunctionData({
            abi: l2ToL2CrossDomainMessengerAbi,
            functionName: 'sendMessage',
            args: [BigInt(B), account.address, '0x1234'],
          }),
        },
      ],
    })
    const { bundleHash } = await client().sendBundle(send.bundle)
    const sent = await client().waitForBundle({ bundleHash, throwOnFailure: true })
    const receipt = await receiptOf(A, send.hashes[0]!)
    const [log] = parseEventLogs({ abi: l2ToL2CrossDomainMessengerAbi, eventName: 'SentMessage', logs: receipt.logs })
    const message = messageFromLog(log!, { chainId: A, timestamp: sent.slot! })

    // The simulation names the same message, at the place of its own slot.
    const { slot, items } = send.simulation!
    const foretold = items[0]!.messages.find((m) => m.destination === B)!
    assert.equal(foretold.payload, message.payload)
    assert.equal(foretold.payloadHash, message.payloadHash)
    const simulated = messageFromLog(items[0]!.logs.find((l) => l.logIndex === foretold.identifier.logIndex)!, { chainId: A, timestamp: slot })
    assert.deepEqual({ ...foretold, destination: undefined }, { ...simulated, destination: undefined })

    const relay = await client().signBundle({ chains: rollups(), items: [{ chainId: B, account, ...relayMessageCall(message) }] })
    await client().waitForBundle({ ...(await client().sendBundle(relay.bundle)), throwOnFailure: true })
    const relayed = await receiptOf(B, relay.hashes[0]!)
    const events = parseEventLogs({ abi: l2ToL2CrossDomainMessengerAbi, eventName: 'RelayedMessage', logs: relayed.logs })
    assert.equal(events[0]?.args.source, BigInt(A))
    assert.equal(events[0]?.args.messageNonce, log!.args.messageNonce)
  })

  test('a bundle that waits is read back, replaced, and cancelled', async () => {
    const account = user(3)
    const { slot } = await client().getSharedSequencerStatus()
    const replacementId = `0x${'07'.repeat(32)}` as const
    const sign = async (maxPriorityFeePerGas: bigint) => {
      const item = { chainId: A, account, to: zeroAddress, gas: 21_000n, maxPriorityFeePerGas }
      const waits = { firstSlot: slot + 300n, expirySlot: slot + 400n, replacementId }
      const conditions = [{ chainId: A, timestampMax: slot + 350n }]
      const { bundle } = await client().signBundle({ chains: rollups(), items: [item], ...waits, conditions })
      return signReplacement(bundle, account)
    }
    const first = await client().sendBundle(await sign(1000n))
    await assert.rejects(sign(1099n).then(client().sendBundle), BundleUnderpricedError)
    const signed = await sign(1100n)
    const { bundleHash } = await client().sendBundle(signed)
    const replaced = await client().waitForBundle(first)
    assert.deepEqual([replaced.state, replaced.replacedBy], ['replaced', bundleHash])
    const stored = await client().getBundle({ bundleHash })
    assert.equal(stored.bundleHash, bundleHash)
    assert.equal(stored.firstSlot, slot + 300n)
    assert.equal(stored.expirySlot, slot + 400n)
    assert.equal(stored.replacementId, replacementId)
    assert.equal(stored.replacementSignature, signed.replacementSignature)
    assert.deepEqual(stored.conditions?.map((c) => [c.chainId, c.timestampMax]), [[A, slot + 350n]])
    assert.equal(stored.bid, 21_000n * 1100n)
    assert.equal((stored.items[0] as TransactionItem).transaction, (signed.items[0] as TransactionItem).transaction)
    await assert.rejects(client().cancelBundle({ bundleHash, account: user(4) }), NotBundleSenderError)
    assert.equal((await client().cancelBundle({ bundleHash, account })).state, 'cancelled')
    assert.equal((await client().waitForBundle({ bundleHash })).state, 'cancelled')
    await assert.rejects(client().cancelBundle({ ...first, account }), BundleNotPendingError)
    await assert.rejects(client().sendBundle(signed), BundleCancelledError)
  })

  test('what may revert does not fail the bundle', async () => {
    const account = user(5)
    const item = { chainId: A, account, value: 1n, ...sendETH(zeroAddress, B), mayRevert: true }
    const made = await client().signBundle({ chains: rollups(), items: [item, { chainId: B, account, to: zeroAddress }] })
    const status = await client().waitForBundle({ ...(await client().sendBundle(made.bundle)), throwOnFailure: true })
    assert.deepEqual(status.items.map((i) => i.status), ['reverted', 'success'])
    assert.equal((await receiptOf(A, made.hashes[0]!)).status, 'reverted')
  })

  test('subblocks, receipts and statuses are told as they happen', async () => {
    const transport = webSocket(devnet.endpoints.sharedSequencer.replace(/^http/, 'ws'), { keepAlive: false })
    const socket = createClient({ transport })
    const watcher = socket.extend(publicActionsSharedSequencer())
    const close = async () => (await socket.transport.getRpcClient()).close()
    const subblocks: Subblock[] = []
    const errors: Error[] = []
    const onError = (error: Error) => errors.push(error)
    const stop = [watcher.watchSubblocks({ onSubblock: (s) => subblocks.push(s), onError })]
    try {
      await until(() => subblocks.length > 0 || errors.length > 0)
      assert.deepEqual(errors, [])

      const account = user(6)
      const made = await client().signBundle({
        chains: rollups(),
        items: [{ chainId: A, account, to: zeroAddress, gas: 21_000n }, { chainId: B, account, to: zeroAddress, gas: 21_000n }],
      })
      const receipts: TransactionReceipt[] = []
      const states: string[] = []
      stop.push(watcher.watchReceipts({ chainId: B, transactionHashes: [made.hashes[1]!], onReceipt: (r) => receipts.push(r), onError }))
      stop.push(watcher.watchBundles({ onStatus: (s) => states.push(s.state), onError }))
      // The subscriptions are made before the bundle is sent: requests of a connection are answered in order.
      await watcher.getSharedSequencerStatus()
      const { bundleHash } = await watcher.sendBundle(made.bundle)
      await watcher.waitForBundle({ bundleHash, throwOnFailure: true })
      await until(() => receipts.length > 0 && states.includes('executed'))
      assert.equal(receipts[0]?.transactionHash, made.hashes[1])
      assert.equal(receipts[0]?.status, 'success')
      const both = await until(() => subblocks.find((s) => s.chains.some((c) => c.transactions.includes(made.hashes[1]!))))
      assert.ok(both.chains.some((c) => c.chainId === A && c.transactions.includes(made.hashes[0]!)))
      assert.deepEqual(errors, [])
    } finally {
      for (const unwatch of stop) unwatch()
      await close()
    }
  })
})
