// Messages of the OP Stack's interop protocol.
import {
  type AccessList,
  type Address,
  concat,
  encodeFunctionData,
  type Hash,
  type Hex,
  keccak256,
  numberToHex,
  parseAbi,
} from 'viem'
import { BundleFormError } from './errors.js'
import type { Message, MessageIdentifier } from './types.js'

/** CrossL2Inbox: validates executing messages. */
export const crossL2InboxAddress: Address = '0x4200000000000000000000000000000000000022'
/** L2ToL2CrossDomainMessenger: sends and relays messages to contracts of other chains. */
export const l2ToL2CrossDomainMessengerAddress: Address = '0x4200000000000000000000000000000000000023'
/** SuperchainETHBridge: sends ETH to other chains. */
export const superchainETHBridgeAddress: Address = '0x4200000000000000000000000000000000000024'

const identifier =
  'struct Identifier { address origin; uint256 blockNumber; uint256 logIndex; uint256 timestamp; uint256 chainId; }'

export const crossL2InboxAbi = parseAbi([
  identifier,
  'function validateMessage(Identifier id, bytes32 msgHash)',
  'event ExecutingMessage(bytes32 indexed msgHash, Identifier id)',
  'error NotInAccessList()',
])
export const l2ToL2CrossDomainMessengerAbi = parseAbi([
  identifier,
  'function sendMessage(uint256 destination, address target, bytes message) returns (bytes32 messageHash)',
  'function relayMessage(Identifier id, bytes sentMessage) payable returns (bytes returnData)',
  'event SentMessage(uint256 indexed destination, address indexed target, uint256 indexed messageNonce, address sender, bytes message)',
  'event RelayedMessage(uint256 indexed source, uint256 indexed messageNonce, bytes32 indexed messageHash, bytes32 returnDataHash)',
])
export const superchainETHBridgeAbi = parseAbi([
  'function sendETH(address to, uint256 chainId) payable returns (bytes32 messageHash)',
])

/** What names a message: its place and the hash of its payload. */
export type MessageReference = Pick<Message, 'identifier' | 'payloadHash'>

/** Makes the message of a log, as another chain may execute it. */
export function messageFromLog(
  log: { address: Address; topics: readonly Hex[]; data: Hex; blockNumber: bigint | null; logIndex: number | null },
  /** Chain that emitted the log, and the timestamp of its block in Unix seconds. */
  block: { chainId: number | bigint; timestamp: bigint },
): Message {
  if (log.blockNumber === null || log.logIndex === null)
    throw new BundleFormError('The log is of no block yet: expected one with a block number and an index.')
  const payload = concat([...log.topics, log.data])
  return {
    identifier: {
      origin: log.address,
      blockNumber: log.blockNumber,
      logIndex: log.logIndex,
      timestamp: block.timestamp,
      chainId: block.chainId,
    },
    payload,
    payloadHash: keccak256(payload),
  }
}

// An access list entry begins with its type.
const lookupEntry = '0x01'
const chainIdEntry = '0x02'
const checksumEntry = '0x03'

const bytes = (value: bigint | number, size: number) => numberToHex(value, { size })
/** The part of a chain ID that the lookup entry has room for. */
const lowChainId = (chainId: number | bigint) => BigInt.asUintN(64, BigInt(chainId))

/** The checksum of a message: what CrossL2Inbox looks for in the access list, with 0x03 as first byte. */
export function messageChecksum({ identifier: id, payloadHash }: MessageReference): Hash {
  const logHash = keccak256(concat([id.origin, payloadHash]))
  const place = concat([bytes(id.blockNumber, 20), bytes(id.timestamp, 8), bytes(id.logIndex, 4)])
  const hash = keccak256(concat([keccak256(concat([logHash, place])), bytes(id.chainId, 32)]))
  return concat([checksumEntry, `0x${hash.slice(4)}`])
}

/**
 * The access list of a transaction that executes messages: without it CrossL2Inbox reverts.
 * Other entries of the transaction may stand before or after it.
 */
export function messageAccessList(messages: MessageReference | readonly MessageReference[]): AccessList {
  const list = 'identifier' in messages ? [messages] : messages
  const storageKeys = list.flatMap((message) => {
    const { blockNumber, timestamp, logIndex, chainId } = message.identifier
    const place = [bytes(lowChainId(chainId), 8), bytes(blockNumber, 8), bytes(timestamp, 8), bytes(logIndex, 4)]
    const keys: Hex[] = [concat([lookupEntry, bytes(0, 3), ...place])]
    const high = BigInt(chainId) >> 64n
    if (high > 0n) keys.push(concat([chainIdEntry, bytes(0, 7), bytes(high, 24)]))
    return [...keys, messageChecksum(message)]
  })
  return [{ address: crossL2InboxAddress, storageKeys }]
}

/** Part of a transaction: pass it on to `signBundle` or `sendTransaction`. */
export type MessageCall = { to: Address; data: Hex; accessList: AccessList }

const identifierArg = (id: MessageIdentifier) =>
  ({ ...id, logIndex: BigInt(id.logIndex), chainId: BigInt(id.chainId) }) as const

/** The call that executes an L2ToL2 message (a `SentMessage` log of the messenger) on its destination. */
export function relayMessageCall(message: Message): MessageCall {
  return {
    to: l2ToL2CrossDomainMessengerAddress,
    data: encodeFunctionData({
      abi: l2ToL2CrossDomainMessengerAbi,
      functionName: 'relayMessage',
      args: [identifierArg(message.identifier), message.payload],
    }),
    accessList: messageAccessList(message),
  }
}

/** The call that has CrossL2Inbox validate a message, and does nothing else. */
export function validateMessageCall(message: MessageReference): MessageCall {
  return {
    to: crossL2InboxAddress,
    data: encodeFunctionData({
      abi: crossL2InboxAbi,
      functionName: 'validateMessage',
      args: [identifierArg(message.identifier), message.payloadHash],
    }),
    accessList: messageAccessList(message),
  }
}
