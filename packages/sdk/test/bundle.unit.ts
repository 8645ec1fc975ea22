import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Bundle, BundleFormError, bundle, publicActionsSharedSequencer, replacementMessage } from '@op-shared-sequencer/sdk'
import { createClient, type Hex, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { testdata } from './testdata.js'
import { type Server, serve } from './server.js'

const hash: Hex = `0x${'ab'.repeat(32)}`
const status = { bundleHash: hash, state: 'pending', expirySlot: '0x64', attempts: '0x0', undone: '0x0' }

describe('bundles on the wire', () => {
  let server: Server
  const answers: Record<string, unknown> = {}
  const client = () => createClient({ transport: http(server.http) }).extend(publicActionsSharedSequencer())
  const lastParams = () => server.calls.at(-1)?.params

  before(async () => {
    server = await serve(
      Object.fromEntries(
        ['sendBundle', 'simulateBundle', 'cancelBundle', 'getBundle', 'bundleStatus', 'leaderSchedule', 'operators', 'status'].map(
          (name) => [`sharedseq_${name}`, () => answers[name]],
        ),
      ),
    )
    answers.sendBundle = { bundleHash: hash, expirySlot: '0x64' }
  })
  after(() => server.close())

  test('fields that are not set are not sent: an older node would refuse them', async () => {
    const sent = await client().sendBundle(bundle().transaction(901, '0x02aa').relay({ id: 902 }).transaction(902, '0x02bb'))
    assert.deepEqual(sent, { bundleHash: hash, expirySlot: 100n })
    assert.deepEqual(lastParams(), [
      { items: [{ chainId: '0x385', tx: '0x02aa' }, { chainId: '0x386', relay: true }, { chainId: '0x386', tx: '0x02bb' }] },
    ])
  })

  test('every option', async () => {
    await client().sendBundle(
      bundle()
        .transaction(901, '0x02aa', { mayRevert: true })
        .from(90n)
        .within(7)
        .until(100n) // instead of within
        .replaceable(hash)
        .condition(901, { blockNumberMin: 1n, blockNumberMax: 2n, timestampMin: 3n, timestampMax: 4n })
        .condition(902, { knownAccounts: { '0x4200000000000000000000000000000000000022': hash } }),
    )
    assert.deepEqual(lastParams(), [
      {
        items: [{ chainId: '0x385', tx: '0x02aa', mayRevert: true }],
        firstSlot: '0x5a',
        expirySlot: '0x64',
        replacementId: hash,
        conditions: [
          { chainId: '0x385', blockNumberMin: '0x1', blockNumberMax: '0x2', timestampMin: '0x3', timestampMax: '0x4' },
          { chainId: '0x386', knownAccounts: { '0x4200000000000000000000000000000000000022': hash } },
        ],
      },
    ])
    await client().sendBundle(bundle().transaction(901, '0x02aa').until(1n).within(7))
    assert.deepEqual(lastParams(), [{ items: [{ chainId: '0x385', tx: '0x02aa' }], maxSlots: '0x7' }])
  })

  test('builders do not change', () => {
    const first = bundle().transaction(901, '0x02aa')
    first.relay(902)
    assert.equal(first.items.length, 1)
  })

  test('what cannot be right is not sent', async () => {
    const before = server.calls.length
    const tx = { chainId: 901, transaction: '0x02' as Hex }
    for (const [wrong, message] of [
      [{ items: [] }, /has no items/],
      [{ items: [{ chainId: 901, transaction: '0x' }] }, /Item 0 has no transaction/],
      [{ items: [tx, { chainId: 901 }] }, /Item 1 has no transaction/],
      [{ items: [{ ...tx, relay: true }] }, /both a transaction and relay/],
      [{ items: [{ ...tx, chainId: 1.5 }] }, /chain ID of item 0 is 1.5/],
      [{ items: [tx], maxSlots: -1 }, /maxSlots is -1/],
      [{ items: [tx], maxSlots: 1, expirySlot: 1n }, /both expirySlot and maxSlots/],
    ] as const)
      await assert.rejects(client().sendBundle(wrong as unknown as Bundle), (e: Error) => {
        assert.ok(e instanceof BundleFormError)
        assert.match(e.message, message)
        return true
      })
    assert.equal(server.calls.length, before)
  })

  test('what is signed for a replacement ID is what Go says', async () => {
    for (const vector of testdata('replacement.json')) {
      answers.getBundle = vector.bundle
      const stored = await client().getBundle({ bundleHash: hash })
      assert.equal(replacementMessage(stored), vector.message)
    }
    assert.throws(() => replacementMessage(bundle().transaction(901, '0x02').replaceable(hash)), /needs expirySlot/)
    assert.throws(() => replacementMessage(bundle().transaction(901, '0x02').until(1n)), /has no replacementId/)
  })

  test('a cancellation is signed as Go signs it', async () => {
    const vector = testdata('cancel.json')
    answers.cancelBundle = { ...status, state: 'cancelled' }
    const account = privateKeyToAccount(vector.privateKey)
    const got = await client().cancelBundle({ bundleHash: vector.bundleHash, account })
    assert.equal(got.state, 'cancelled')
    assert.deepEqual(lastParams(), [{ bundleHash: vector.bundleHash, signature: vector.signature }])
    await client().cancelBundle({ bundleHash: vector.bundleHash, signature: '0x12' })
    assert.deepEqual(lastParams(), [{ bundleHash: vector.bundleHash, signature: '0x12' }])
  })

  test('getBundle', async () => {
    answers.getBundle = {
      bundleHash: hash,
      items: [{ chainId: '0x385', tx: '0x02aa', mayRevert: true }, { chainId: '0x386', relay: true }],
      expirySlot: '0x64',
      conditions: [{ chainId: '0x385', timestampMax: '0x4' }],
      bid: '0x3b9aca00',
    }
    const got = await client().getBundle({ bundleHash: hash })
    assert.deepEqual(got.items, [{ chainId: 901, transaction: '0x02aa', mayRevert: true }, { chainId: 902, relay: true }])
    assert.equal(got.bid, 1_000_000_000n)
    assert.equal(got.expirySlot, 100n)
    assert.equal(got.conditions?.[0]?.timestampMax, 4n)
    assert.deepEqual(lastParams(), [hash])
  })

  test('statuses', async () => {
    answers.bundleStatus = {
      ...status,
      state: 'replaced',
      slot: '0x63',
      items: [{ item: '0x1', chainId: '0x386', txHash: hash, blockNumber: '0x9', status: '0x0', gasUsed: '0x5208', revertReason: 'no' }],
      failure: { item: '0x0', chainId: '0x385', txHash: hash, reason: 'why', returnData: '0x01' },
      replacedBy: hash,
    }
    assert.deepEqual(await client().getBundleStatus({ bundleHash: hash }), {
      bundleHash: hash,
      state: 'replaced',
      expirySlot: 100n,
      attempts: 0,
      undone: 0,
      slot: 99n,
      items: [
        { item: 1, chainId: 902, transactionHash: hash, blockNumber: 9n, status: 'reverted', gasUsed: 21000n, revertReason: 'no' },
      ],
      failure: { item: 0, chainId: 901, transactionHash: hash, reason: 'why', returnData: '0x01' },
      replacedBy: hash,
    })
  })

  test('simulations, with the messages they would initiate', async () => {
    const identifier = {
      origin: '0x4200000000000000000000000000000000000023',
      blockNumber: '0x9',
      logIndex: '0x2',
      timestamp: '0x63',
      chainID: '0x385',
    }
    answers.simulateBundle = {
      success: false,
      slot: '0x63',
      items: [
        {
          item: '0x0',
          chainId: '0x385',
          txHash: hash,
          blockNumber: '0x9',
          status: '0x1',
          gasUsed: '0x5208',
          position: '0x3',
          logs: [{ address: identifier.origin, topics: [hash], data: '0x', blockNumber: '0x9', logIndex: '0x2' }],
          messages: [{ destination: '0x386', identifier, payloadHash: hash, payload: '0x01' }],
        },
        { item: '0x1', chainId: '0x386', txHash: hash, blockNumber: '0x9', status: '0x0', gasUsed: '0x1', returnData: '0x08c379a0' },
      ],
      failure: { reason: 'reverted' },
    }
    const got = await client().simulateBundle(bundle().transaction(901, '0x02'))
    assert.equal(got.success, false)
    assert.equal(got.items[0]?.position, 3)
    assert.equal(got.items[0]?.logs[0]?.logIndex, 2)
    assert.deepEqual(got.items[0]?.messages, [
      {
        destination: 902,
        identifier: { origin: identifier.origin, blockNumber: 9n, logIndex: 2, timestamp: 99n, chainId: 901 },
        payloadHash: hash,
        payload: '0x01',
      },
    ])
    assert.equal(got.items[1]?.returnData, '0x08c379a0')
    assert.deepEqual(got.items[1]?.messages, [])
  })

  test('the sequencer and its operators', async () => {
    const zero = '0x0000000000000000000000000000000000000000'
    answers.leaderSchedule = [{ height: '0x5', leader: zero, expected: '0x10' }, { height: '0x6', leader: zero }]
    assert.deepEqual(await client().getLeaderSchedule({ turns: 2 }), [
      { height: 5n, leader: zero, expected: 16 },
      { height: 6n, leader: zero, expected: undefined },
    ])
    assert.deepEqual(lastParams(), ['0x2'])
    await client().getLeaderSchedule()
    assert.deepEqual(lastParams(), ['0x8'])
    await assert.rejects(client().getLeaderSchedule({ turns: 257 }), BundleFormError)

    answers.operators = {
      set: hash,
      height: '0x5',
      counted: '0x3',
      totalPower: '0x4',
      chains: ['0x385', '0x386'],
      operators: [
        {
          name: 'a', address: zero, consensusKey: hash, power: '0x4', missed: '0x1', shortened: true,
          led: '0x1', passed: '0x2', voted: '0x3', lastVoted: '0x4',
        },
      ],
      pending: [
        {
          id: hash,
          change: { kind: 'setPower', address: zero, power: '0x2', nonce: '0x1', expirySlot: '0x64' },
          proposer: zero,
          approvals: [zero],
          power: '0x1',
          needed: '0x3',
        },
      ],
    }
    const operators = await client().getOperators()
    assert.deepEqual(operators.chains, [901, 902])
    assert.deepEqual(operators.operators, [
      {
        name: 'a', address: zero, consensusKey: hash, power: 4n, missed: 1, shortened: true,
        led: 1n, passed: 2n, voted: 3n, lastVoted: 4n,
      },
    ])
    assert.equal(operators.pending[0]?.change.power, 2n)
    assert.equal(operators.pending[0]?.needed, 3n)

    answers.status = {
      slot: '0x64',
      leader: true,
      pendingBundles: '0x2',
      bundles: { pending: '0x2', pendingBytes: '0x12c', executed: '0x3', undone: '0x0', ended: '0x4' },
      agreement: {
        nodeId: 'id', operator: zero, power: '0x1', height: '0x9', durable: '0x8', running: true, syncing: false, peers: '0x1',
        connected: ['other'], lastLeader: zero, lastRound: '0x2',
      },
      chains: [{ chainId: '0x385', ready: false, reason: 'why', head: { hash, number: '0x1', timestamp: '0x63' }, lastSlot: '0x62' }],
    }
    assert.deepEqual(await client().getSharedSequencerStatus(), {
      slot: 100n,
      leader: true,
      pendingBundles: 2,
      bundles: { pending: 2, pendingBytes: 300, executed: 3, undone: 0, ended: 4 },
      chains: [{ chainId: 901, ready: false, reason: 'why', head: { hash, number: 1n, timestamp: 99n }, lastSlot: 98n }],
      agreement: {
        nodeId: 'id', operator: zero, power: 1n, height: 9n, durable: 8n, running: true, syncing: false, peers: 1,
        connected: ['other'], lastLeader: zero, lastRound: 2,
      },
    })
  })
})
