import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  crossL2InboxAddress,
  l2ToL2CrossDomainMessengerAddress,
  messageAccessList,
  messageChecksum,
  messageFromLog,
  relayMessageCall,
  validateMessageCall,
} from '@op-shared-sequencer/sdk'
import { testdata } from './testdata.js'

const { messages: vectors, together } = testdata('messages.json')
const messages = vectors.map((v: any) =>
  messageFromLog(
    { address: v.address, topics: v.topics, data: v.data, blockNumber: BigInt(v.blockNumber), logIndex: v.logIndex },
    { chainId: BigInt(v.chainId), timestamp: BigInt(v.timestamp) },
  ),
)

test('messages of logs are what Go makes of them', () => {
  assert.ok(vectors.length > 0)
  vectors.forEach((v: any, i: number) => {
    assert.equal(messages[i].payloadHash, v.payloadHash)
    assert.equal(messageChecksum(messages[i]), v.checksum)
    assert.deepEqual(messageAccessList(messages[i]), [{ address: crossL2InboxAddress, storageKeys: v.storageKeys }])
    const accessList = [{ address: crossL2InboxAddress, storageKeys: v.storageKeys }]
    assert.deepEqual(relayMessageCall(messages[i]), { to: l2ToL2CrossDomainMessengerAddress, data: v.relay, accessList })
    assert.deepEqual(validateMessageCall(messages[i]), { to: crossL2InboxAddress, data: v.validate, accessList })
  })
})

test('one access list for several messages', () => {
  assert.deepEqual(messageAccessList(messages), [{ address: crossL2InboxAddress, storageKeys: together }])
})

test('a log of no block is no message yet', () => {
  const log = { address: crossL2InboxAddress, topics: [], data: '0x', blockNumber: null, logIndex: null } as const
  assert.throws(() => messageFromLog(log, { chainId: 1, timestamp: 1n }), /of no block yet/)
})
