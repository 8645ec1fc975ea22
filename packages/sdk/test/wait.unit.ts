import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { BundleNotExecutedError, publicActionsSharedSequencer, WaitForBundleTimeoutError } from '@op-shared-sequencer/sdk'
import { createClient, http } from 'viem'
import { Refused, type Server, serve } from './server.js'

const bundleHash = `0x${'ab'.repeat(32)}` as const

describe('waitForBundle', () => {
  let server: Server
  /** The states that are told, one after another; the last one stays. */
  let states: string[]
  before(async () => {
    server = await serve({
      sharedseq_bundleStatus: ([hash]) => {
        const state = states.length > 1 ? states.shift() : states[0]
        if (state === 'unknown') throw new Refused({ code: -38104, message: 'unknown bundle' })
        const failure = state === 'failed' ? { item: '0x3', chainId: '0x386', reason: 'reverted: no' } : undefined
        return { bundleHash: hash, state, expirySlot: '0x1', attempts: '0x0', undone: '0x0', failure }
      },
    })
  })
  after(() => server.close())
  const client = () => createClient({ transport: http(server.http) }).extend(publicActionsSharedSequencer())
  const wait = (told: string[], more: object = {}) => {
    states = told
    return client().waitForBundle({ bundleHash, pollingInterval: 1, ...more })
  }

  test('until it is executed', async () => {
    assert.equal((await wait(['pending', 'pending', 'executed'])).state, 'executed')
  })

  test('until it is safe, also when it was put back meanwhile', async () => {
    const told = ['pending', 'executed', 'pending', 'executed', 'safe']
    assert.equal((await wait(told, { until: 'safe' })).state, 'safe')
    assert.deepEqual(told, ['safe'])
  })

  test('every other end is told', async () => {
    for (const state of ['failed', 'expired', 'undone', 'cancelled', 'replaced'])
      for (const until of ['executed', 'safe'] as const)
        assert.equal((await wait(['pending', state], { until })).state, state)
  })

  test('or thrown', async () => {
    await assert.rejects(wait(['failed'], { throwOnFailure: true }), (e: Error) => {
      assert.ok(e instanceof BundleNotExecutedError)
      assert.equal(e.status.state, 'failed')
      assert.match(e.shortMessage, /is failed: item 3 on chain 902: reverted: no/)
      return true
    })
    assert.equal((await wait(['executed'], { throwOnFailure: true })).state, 'executed')
  })

  test('a bundle that nobody knows', async () => {
    await assert.rejects(wait(['unknown']), { name: 'UnknownBundleError' })
  })

  test('not for ever', async () => {
    await assert.rejects(wait(['pending'], { timeout: 100 }), WaitForBundleTimeoutError)
  })

  test('not after its caller has lost interest', async () => {
    const controller = new AbortController()
    const waiting = wait(['pending'], { signal: controller.signal, timeout: 0 })
    const reason = new Error('never mind')
    controller.abort(reason)
    await assert.rejects(waiting, reason)
    await assert.rejects(wait(['pending'], { signal: controller.signal }), reason)
  })
})
