import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { BundleFormError, BundleSimulationError, publicActionsSharedSequencer, type TransactionItem } from '@op-shared-sequencer/sdk'
import { createClient, defineChain, type Hex, http, keccak256, parseTransaction, recoverTransactionAddress } from 'viem'
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts'
import { type Server, serve } from './server.js'

const alice = privateKeyToAccount(generatePrivateKey())
const bob = privateKeyToAccount(generatePrivateKey())
const to = '0x4200000000000000000000000000000000000023'
const gwei = 1_000_000_000n

describe('signBundle', () => {
  /** Two rollups, and the sequencer. */
  let a: Server, b: Server, sequencer: Server
  let simulated: any[] // results, one after another
  const rollup = (nonces: Record<string, Hex>) =>
    serve({
      eth_chainId: () => '0x386',
      eth_getTransactionCount: ([address, tag]) => {
        assert.equal(tag, 'pending')
        return nonces[address.toLowerCase()]
      },
      eth_getBlockByNumber: () => ({ number: '0x9', timestamp: '0x63', baseFeePerGas: '0x3b9aca00', transactions: [], gasLimit: '0x1', gasUsed: '0x0' }),
      eth_maxPriorityFeePerGas: () => '0x5',
    })
  before(async () => {
    a = await rollup({ [alice.address.toLowerCase()]: '0x7', [bob.address.toLowerCase()]: '0x0' })
    b = await rollup({ [alice.address.toLowerCase()]: '0x2' })
    sequencer = await serve({ sharedseq_simulateBundle: () => simulated.shift() })
  })
  beforeEach(() => {
    sequencer.calls.length = 0
    a.calls.length = 0
  })
  after(() => Promise.all([a, b, sequencer].map((s) => s.close())))

  const chainA = defineChain({ id: 901, name: 'A', nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 }, rpcUrls: { default: { http: [] } } })
  const client = () => createClient({ transport: http(sequencer.http) }).extend(publicActionsSharedSequencer())
  // The second one does not say which chain it is of: it is asked.
  const chains = () => [createClient({ chain: chainA, transport: http(a.http) }), createClient({ transport: http(b.http) })]
  const ran = (item: number, gasUsed: Hex, status = '0x1') => ({
    item: `0x${item.toString(16)}`, chainId: '0x385', txHash: `0x${'00'.repeat(32)}`, blockNumber: '0x1', status, gasUsed,
  })
  const transactionOf = (item: unknown) => parseTransaction((item as TransactionItem).transaction)

  test('nonces, fees, and gas from a simulation', async () => {
    const good = {
      success: true,
      slot: '0x63',
      // The relay step has two messages.
      items: [ran(0, '0x5208'), ran(1, '0x186a0'), ran(2, '0x1'), ran(2, '0x1'), ran(3, '0x30d40'), ran(4, '0x5208'), ran(5, '0x5209')],
    }
    simulated = [good, good]
    const { bundle, hashes, simulation } = await client().signBundle({
      chains: chains(),
      maxSlots: 4,
      items: [
        { chainId: 901, account: alice, to, value: 3n },
        { chainId: 901, account: alice, to, data: '0x1234', accessList: [{ address: to, storageKeys: [] }] },
        { chainId: 902, relay: true },
        { chainId: 902, account: alice, to },
        { chainId: 901, account: bob, to, gas: 77_000n, maxPriorityFeePerGas: 9n, mayRevert: true },
        { chainId: 901, account: alice, to, maxFeePerGas: 2n, nonce: 11 },
      ],
    })
    assert.equal(simulation?.success, true)
    assert.equal(bundle.maxSlots, 4)
    assert.deepEqual(bundle.items[2], { chainId: 902, relay: true })
    assert.equal(hashes[2], undefined)
    const txs = [0, 1, 3, 4, 5].map((i) => transactionOf(bundle.items[i]))
    assert.deepEqual(txs.map((t) => t.nonce ?? 0), [7, 8, 2, 0, 11])
    assert.deepEqual(txs.map((t) => t.chainId), [901, 901, 902, 901, 901])
    assert.deepEqual(txs.map((t) => t.gas), [31_500n, 150_000n, 300_000n, 77_000n, 31_501n])
    assert.deepEqual(txs.map((t) => t.maxFeePerGas), [2n * gwei + 5n, 2n * gwei + 5n, 2n * gwei + 5n, 2n * gwei + 9n, 2n])
    assert.deepEqual(txs.map((t) => t.maxPriorityFeePerGas), [5n, 5n, 5n, 9n, 2n])
    assert.equal(txs[0]?.value, 3n)
    assert.equal(txs[1]?.data, '0x1234')
    assert.deepEqual(txs[1]?.accessList, [{ address: to, storageKeys: [] }])
    assert.equal((bundle.items[4] as TransactionItem).mayRevert, true)
    for (const i of [0, 4]) {
      const { transaction } = bundle.items[i] as TransactionItem
      assert.equal(hashes[i], keccak256(transaction))
      assert.equal(await recoverTransactionAddress({ serializedTransaction: transaction as `0x02${string}` }), [alice, , , , bob][i]?.address)
    }
    // First with the limit for simulations, then as it is signed.
    assert.equal(sequencer.calls.length, 2)
    assert.equal(parseTransaction(sequencer.calls[0]?.params[0].items[0].tx).gas, 1_000_000n)
    assert.equal(sequencer.calls[1]?.params[0].items[0].tx, (bundle.items[0] as TransactionItem).transaction)
    // Each thing is asked once for each chain.
    assert.equal(a.calls.filter((c) => c.method === 'eth_maxPriorityFeePerGas').length, 1)
    assert.equal(a.calls.filter((c) => c.method === 'eth_getTransactionCount').length, 2)
  })

  test('nothing is asked if everything is given', async () => {
    const fees = { maxFeePerGas: gwei, maxPriorityFeePerGas: 0n }
    const { bundle } = await client().signBundle({
      chains: [],
      items: [{ chainId: 901, account: alice, to, nonce: 1, gas: 21_000n, ...fees }, { chainId: 901, account: alice, to, gas: 21_000n, ...fees }],
    })
    assert.deepEqual(bundle.items.map((it) => transactionOf(it).nonce), [1, 2])
    assert.equal(sequencer.calls.length, 0)
  })

  test('the nonce follows a transaction that is signed already', async () => {
    const signed = await alice.signTransaction({ chainId: 901, nonce: 20, gas: 21_000n, maxFeePerGas: gwei, to })
    const { bundle } = await client().signBundle({
      chains: chains(),
      items: [{ chainId: 901, transaction: signed }, { chainId: 901, account: alice, to, gas: 21_000n }],
    })
    assert.equal((bundle.items[0] as TransactionItem).transaction, signed)
    assert.equal(transactionOf(bundle.items[1]).nonce, 21)
  })

  test('a bundle that fails when it is simulated, with either limits', async () => {
    const bad = {
      success: false,
      slot: '0x63',
      items: [ran(0, '0x5208', '0x0')],
      failure: { item: '0x0', chainId: '0x385', reason: 'reverted: no', returnData: '0x1234' },
    }
    const good = { success: true, slot: '0x63', items: [ran(0, '0x5208')] }
    for (const results of [[bad], [good, bad]]) {
      simulated = [...results]
      await assert.rejects(client().signBundle({ chains: chains(), items: [{ chainId: 901, account: alice, to }] }), (e: Error) => {
        assert.ok(e instanceof BundleSimulationError)
        assert.match(e.shortMessage, /item 0 on chain 901: reverted: no/)
        assert.equal(e.simulation.failure?.returnData, '0x1234')
        return true
      })
    }
  })

  test('a chain that there is no client of', async () => {
    await assert.rejects(client().signBundle({ chains: [], items: [{ chainId: 901, account: alice, to }] }), (e: Error) => {
      assert.ok(e instanceof BundleFormError)
      assert.match(e.message, /No client for chain 901/)
      return true
    })
  })
})
