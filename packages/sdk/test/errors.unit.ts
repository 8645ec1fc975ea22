import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  BundleExpiryError,
  bundle,
  bundleFaults,
  changeFaults,
  errorClasses,
  InternalNodeError,
  InvalidBundleError,
  publicActionsSharedSequencer,
  SharedSequencerRpcError,
} from '@op-shared-sequencer/sdk'
import { BaseError, createClient, custom, http, MethodNotFoundRpcError } from 'viem'
import { testdata } from './testdata.js'
import { Refused, type RpcError, type Server, serve } from './server.js'

const hash = `0x${'ab'.repeat(32)}` as const
const known = testdata('errors.json')

describe('errors', () => {
  let server: Server
  let answer: RpcError
  const refuse = () => {
    throw new Refused(answer)
  }
  before(async () => {
    server = await serve({
      sharedseq_bundleStatus: refuse,
      sharedseq_sendBundle: refuse,
    })
  })
  after(() => server.close())
  const client = () =>
    createClient({ transport: http(server.http, { retryCount: 0 }) }).extend(publicActionsSharedSequencer())

  test('every code of the Go code has a class, and no other', () => {
    assert.deepEqual([...errorClasses.keys()].sort(), Object.values<number>(known.codes).sort())
  })

  test('so has every fault', () => {
    assert.deepEqual([...bundleFaults], known.bundleFaults)
    assert.deepEqual([...changeFaults], known.changeFaults)
  })

  test('each comes as its class through viem', async () => {
    for (const [name, code] of Object.entries<number>(known.codes)) {
      answer = { code, message: `about ${name}`, data: { kind: 'gas', item: '0x2', chainId: '0x385' } }
      await assert.rejects(client().getBundleStatus({ bundleHash: hash }), (e: Error) => {
        assert.ok(e instanceof errorClasses.get(code)!, `${name}: ${e}`)
        assert.ok(e instanceof SharedSequencerRpcError && e instanceof BaseError)
        assert.equal(e.code, code)
        assert.equal(e.method, 'sharedseq_bundleStatus')
        assert.equal(e.shortMessage, `about ${name}`)
        assert.equal(e.name, e.constructor.name)
        if (e instanceof InvalidBundleError) {
          assert.equal(e.kind, 'gas')
          assert.equal(e.item, 2)
          assert.equal(e.chainId, 901)
        }
        return true
      })
    }
  })

  test('a fault of the whole bundle blames no item', async () => {
    answer = { code: -38101, message: 'late', data: { kind: 'expired' } }
    await assert.rejects(client().getBundleStatus({ bundleHash: hash }), (e: Error) => {
      assert.ok(e instanceof BundleExpiryError && e instanceof InvalidBundleError)
      assert.deepEqual([e.kind, e.item, e.chainId], ['expired', undefined, undefined])
      return true
    })
  })

  test('from a provider that is not of viem', async () => {
    const transport = custom({
      request: async () => {
        throw Object.assign(new Error('no such bundle'), { code: -38104 })
      },
    }, { retryCount: 0 })
    const c = createClient({ transport }).extend(publicActionsSharedSequencer())
    await assert.rejects(c.getBundleStatus({ bundleHash: hash }), { name: 'UnknownBundleError', shortMessage: 'no such bundle' })
  })

  test('a bundle is sent again after a fault only if that cannot make two of it', async () => {
    const c = createClient({ transport: http(server.http, { retryCount: 2, retryDelay: 1 }) }).extend(publicActionsSharedSequencer())
    answer = { code: -32603, message: 'a fault' }
    for (const [sent, times] of [[bundle().transaction(901, '0x02'), 1], [bundle().transaction(901, '0x02').until(9n), 3]] as const) {
      server.calls.length = 0
      await assert.rejects(c.sendBundle(sent), InternalNodeError)
      assert.equal(server.calls.length, times)
    }
  })

  test('others stay what they are', async () => {
    await assert.rejects(client().getBundle({ bundleHash: hash }), MethodNotFoundRpcError)
    answer = { code: -38199, message: 'of a newer node' }
    await assert.rejects(client().getBundleStatus({ bundleHash: hash }), (e: Error) => !(e instanceof SharedSequencerRpcError))
  })
})
