import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { type BundleStatus, publicActionsSharedSequencer, type Subblock, SubscriptionError, type Unwatch, WebSocketRequiredError } from '@op-shared-sequencer/sdk'
import { createClient, fallback, http, type TransactionReceipt, webSocket } from 'viem'
import type { WebSocket } from 'ws'
import { Refused, type Server, serve, until } from './server.js'

const hash = `0x${'ab'.repeat(32)}` as const
const zero = '0x0000000000000000000000000000000000000000'
const subblock = {
  height: '0x5',
  slot: '0x63',
  index: '0x1',
  last: true,
  leader: zero,
  chains: [{ chainId: '0x385', blockNumber: '0x9', transactions: [hash], gasUsed: '0x5208', blockHash: hash }],
}

describe('watching', () => {
  let server: Server
  /** Subscriptions that were made, and those that were ended. */
  let subscriptions: { id: string; socket: WebSocket; params: any[] }[]
  let ended: string[]
  /** Sent before the answer to the subscription. */
  let early: unknown[]
  let states: string[]
  let unwatch: Unwatch | undefined
  let closeClient: (() => Promise<unknown>) | undefined

  const notify = (socket: WebSocket, subscription: string, result: unknown) =>
    socket.send(JSON.stringify({ jsonrpc: '2.0', method: 'sharedseq_subscription', params: { subscription, result } }))

  beforeEach(async () => {
    ;[subscriptions, ended, early, states] = [[], [], [], ['pending']]
    server = await serve({
      sharedseq_subscribe: (params, socket) => {
        if (params[0] === 'subblocks' && params[1]) throw new Refused({ code: -32602, message: 'too many arguments' })
        if (params[0] === 'bundles' && params[1]?.bundleHash === zero)
          throw new Refused({ code: -32601, message: 'no "bundles" subscription in sharedseq namespace' })
        const id = `0x${subscriptions.length + 1}`
        for (const e of early) notify(socket!, id, e)
        subscriptions.push({ id, socket: socket!, params })
        return id
      },
      sharedseq_unsubscribe: ([id]) => {
        ended.push(id)
        return true
      },
      sharedseq_bundleStatus: ([bundleHash]) => ({
        bundleHash, state: states.length > 1 ? states.shift() : states[0], expirySlot: '0x1', attempts: '0x0', undone: '0x0',
      }),
    })
  })
  afterEach(async () => {
    unwatch?.()
    await closeClient?.() // before the server: viem would connect again
    unwatch = closeClient = undefined
    await server.close()
  })

  const transport = () => {
    const ws = webSocket(server.ws, { reconnect: { delay: 10 }, keepAlive: false })
    const { transport: t } = createClient({ transport: ws }) // its connection is that of all with the same options
    closeClient = () => t.getRpcClient().then((rpc) => rpc.close())
    return ws
  }
  const client = () => createClient({ transport: transport() }).extend(publicActionsSharedSequencer())
  const made = (n: number) => until(() => subscriptions[n - 1])

  test('subblocks, also those that come before the subscription is known', async () => {
    early = [subblock]
    const seen: Subblock[] = []
    unwatch = client().watchSubblocks({ onSubblock: (s) => seen.push(s) })
    const { id, socket, params } = await made(1)
    assert.deepEqual(params, ['subblocks'])
    notify(socket, '0xothers', { ...subblock, height: '0x63' })
    notify(socket, id, { ...subblock, height: '0x6', chains: null })
    await until(() => seen.length >= 2)
    assert.deepEqual(seen, [
      {
        height: 5n,
        slot: 99n,
        index: 1,
        last: true,
        leader: zero,
        chains: [{ chainId: 901, blockNumber: 9n, transactions: [hash], gasUsed: 21_000n, blockHash: hash }],
      },
      { height: 6n, slot: 99n, index: 1, last: true, leader: zero, chains: [] },
    ])
    unwatch()
    assert.deepEqual(await until(() => ended.length > 0 && ended), [id])
    notify(socket, id, subblock)
    unwatch = undefined
    assert.equal(seen.length, 2)
  })

  test('receipts', async () => {
    const seen: TransactionReceipt[] = []
    unwatch = client().watchReceipts({ chainId: 901, transactionHashes: [hash], onReceipt: (r) => seen.push(r) })
    const { id, socket, params } = await made(1)
    assert.deepEqual(params, ['receipts', { chainId: '0x385', transactionHashes: [hash] }])
    const receipt = { transactionHash: hash, status: '0x1', gasUsed: '0x5208', blockNumber: '0x9', logs: [], type: '0x2' }
    notify(socket, id, receipt)
    notify(socket, id, [receipt, { ...receipt, status: '0x0' }])
    await until(() => seen.length === 3)
    assert.deepEqual(seen.map((r) => [r.status, r.gasUsed]), [['success', 21_000n], ['success', 21_000n], ['reverted', 21_000n]])
  })

  test('bundles, over a fallback transport, and a callback that throws', async () => {
    const seen: string[] = []
    const errors: Error[] = []
    const c = createClient({ transport: fallback([http(server.http), transport()]) })
    unwatch = c.extend(publicActionsSharedSequencer()).watchBundles({
      bundleHash: hash,
      onStatus: (s) => {
        seen.push(s.state)
        if (s.state === 'pending') throw new Error('of the callback')
      },
      onError: (e) => errors.push(e),
    })
    const { id, socket, params } = await made(1)
    assert.deepEqual(params, ['bundles', { bundleHash: hash }])
    const status = { bundleHash: hash, expirySlot: '0x1', attempts: '0x0', undone: '0x0' }
    notify(socket, id, { ...status, state: 'pending' })
    notify(socket, id, { ...status, state: 'executed' })
    await until(() => seen.length === 2)
    assert.deepEqual(seen, ['pending', 'executed'])
    assert.deepEqual(errors.map((e) => e.message), ['of the callback'])
  })

  test('a lost connection is told, and the subscription made again', async () => {
    const seen: bigint[] = []
    const errors: Error[] = []
    unwatch = client().watchSubblocks({ onSubblock: (s) => seen.push(s.height), onError: (e) => errors.push(e), retryDelay: 10 })
    const first = await made(1)
    first.socket.terminate()
    const second = await made(2)
    notify(second.socket, second.id, subblock)
    await until(() => seen.length > 0)
    assert.deepEqual(seen, [5n])
    assert.equal(errors.length, 1)
    assert.equal(errors[0]?.name, 'SocketClosedError')
  })

  test('a subscription that the node ends is told, and made again', async () => {
    const seen: bigint[] = []
    const errors: Error[] = []
    unwatch = client().watchSubblocks({ onSubblock: (s) => seen.push(s.height), onError: (e) => errors.push(e), retryDelay: 10 })
    const first = await made(1)
    notify(first.socket, first.id, { error: { code: -38112, message: 'the subscriber does not keep up' } })
    const second = await made(2)
    notify(second.socket, second.id, subblock)
    await until(() => seen.length > 0)
    assert.equal(errors.length, 1)
    assert.ok(errors[0] instanceof SubscriptionError)
    assert.match(errors[0].message, /does not keep up/)
    assert.deepEqual(ended, [], 'there is nothing left to unsubscribe')
  })

  test('a subscription the node does not have is told once and given up', async () => {
    const errors: Error[] = []
    unwatch = client().watchBundles({ bundleHash: zero as `0x${string}`, onStatus: () => {}, onError: (e) => errors.push(e), retryDelay: 1 })
    await until(() => errors.length > 0)
    assert.match(errors[0]!.message, /no "bundles" subscription/)
    // Another one would come before this.
    await client().getBundleStatus({ bundleHash: hash })
    assert.equal(server.calls.filter((c) => c.method === 'sharedseq_subscribe').length, 1)
  })

  test('over HTTP one bundle is asked for, and told when it changes', async () => {
    states = ['pending', 'pending', 'executed', 'executed', 'safe']
    const seen: BundleStatus[] = []
    const c = createClient({ transport: http(server.http) }).extend(publicActionsSharedSequencer())
    unwatch = c.watchBundles({ bundleHash: hash, onStatus: (s) => seen.push(s), pollingInterval: 1 })
    await until(() => seen.at(-1)?.state === 'safe')
    assert.deepEqual(seen.map((s) => s.state), ['pending', 'executed', 'safe'])
  })

  test('over HTTP nothing else can be watched', () => {
    const c = createClient({ transport: http(server.http) }).extend(publicActionsSharedSequencer())
    assert.throws(() => c.watchSubblocks({ onSubblock: () => {} }), WebSocketRequiredError)
    assert.throws(() => c.watchReceipts({ chainId: 901, onReceipt: () => {} }), WebSocketRequiredError)
    assert.throws(() => c.watchBundles({ onStatus: () => {} }), WebSocketRequiredError)
  })
})
