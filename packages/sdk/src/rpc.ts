// The sharedseq namespace on the wire, and back. Quantities are 0x-prefixed hex.
import {
  type Address,
  type Client,
  formatLog,
  type Hash,
  type Hex,
  isHex,
  numberToHex,
  type RpcLog,
} from 'viem'
import { BundleFormError, toSharedSequencerError } from './errors.js'
import type {
  AgreementStatus,
  Bundle,
  BundleConditions,
  BundleFailure,
  BundleItem,
  BundleState,
  BundleStatus,
  ExecutedItem,
  MessageIdentifier,
  Operators,
  OperatorSetChange,
  SharedSequencerStatus,
  SimulatedItem,
  Simulation,
  StoredBundle,
  Subblock,
  Turn,
} from './types.js'

export type RpcConditions = {
  chainId: Hex
  blockNumberMin?: Hex
  blockNumberMax?: Hex
  timestampMin?: Hex
  timestampMax?: Hex
  knownAccounts?: Record<Address, Hash | Record<Hash, Hash>>
}
export type RpcBundleItem = { chainId: Hex; tx?: Hex; relay?: boolean; mayRevert?: boolean }
export type RpcBundle = {
  items: RpcBundleItem[]
  firstSlot?: Hex
  expirySlot?: Hex
  maxSlots?: Hex
  replacementId?: Hash
  replacementSignature?: Hex
  conditions?: RpcConditions[]
}
/** As upstream spells it. */
export type RpcIdentifier = { origin: Address; blockNumber: Hex; logIndex: Hex; timestamp: Hex; chainID: Hex }
export type RpcItem = {
  item: Hex
  chainId: Hex
  txHash: Hash
  blockNumber: Hex
  status: Hex
  gasUsed: Hex
  logs?: RpcLog[]
  returnData?: Hex
  revertReason?: string
  position?: Hex
  messages?: {
    identifier: RpcIdentifier
    payloadHash: Hash
    payload: Hex
    checksum: Hash
    accessList: Hash[]
    destination?: Hex
  }[]
}
export type RpcFailure = { item?: Hex; chainId?: Hex; txHash?: Hash; reason: string; returnData?: Hex }
export type RpcBundleStatus = {
  bundleHash: Hash
  state: BundleState
  expirySlot: Hex
  attempts: Hex
  undone: Hex
  slot?: Hex
  items?: RpcItem[]
  failure?: RpcFailure
  replacedBy?: Hash
}
export type RpcSimulation = { success: boolean; slot: Hex; items: RpcItem[]; failure?: RpcFailure }
export type RpcStoredBundle = {
  bundleHash: Hash
  items: RpcBundleItem[]
  firstSlot?: Hex
  expirySlot: Hex
  replacementId?: Hash
  replacementSignature?: Hex
  conditions?: RpcConditions[]
  bid: Hex
}
export type RpcTurn = { height: Hex; leader: Address; expected?: Hex }
export type RpcChange = {
  kind: OperatorSetChange['kind']
  name?: string
  address?: Address
  consensusKey?: string
  power?: Hex
  chainId?: Hex
  nonce: Hex
  expirySlot: Hex
}
export type RpcOperators = {
  set: Hash
  height: Hex
  counted: Hex
  operators: {
    name: string
    address: Address
    consensusKey: string
    power: Hex
    missed: Hex
    shortened: boolean
    led: Hex
    passed: Hex
    voted: Hex
    lastVoted: Hex
  }[]
  totalPower: Hex
  chains: Hex[]
  pending: { id: Hash; change: RpcChange; proposer: Address; approvals: Address[]; power: Hex; needed: Hex }[]
}
export type RpcStatus = {
  slot: Hex
  leader: boolean
  pendingBundles: Hex
  bundles: { pending: Hex; pendingBytes: Hex; executed: Hex; undone: Hex; ended: Hex }
  chains: {
    chainId: Hex
    ready: boolean
    reason?: string
    head: { hash: Hash; number: Hex; timestamp: Hex }
    lastSlot: Hex
  }[]
  agreement?: {
    nodeId: string
    operator: Address
    power: Hex
    height: Hex
    durable: Hex
    running: boolean
    syncing: boolean
    peers: Hex
    connected: string[] | null
    lastLeader: Address
    lastRound: Hex
  }
}
export type RpcSubblock = {
  height: Hex
  slot: Hex
  index: Hex
  last: boolean
  leader: Address
  chains: { chainId: Hex; blockNumber: Hex; transactions: Hash[] | null; gasUsed: Hex; blockHash?: Hash }[] | null
}

/** The methods of the namespace, for viem's `rpcSchema`. */
export type SharedSequencerRpcSchema = [
  { Method: 'sharedseq_sendBundle'; Parameters: [RpcBundle]; ReturnType: { bundleHash: Hash; expirySlot: Hex } },
  { Method: 'sharedseq_simulateBundle'; Parameters: [RpcBundle]; ReturnType: RpcSimulation },
  {
    Method: 'sharedseq_cancelBundle'
    Parameters: [{ bundleHash: Hash; signature: Hex }]
    ReturnType: RpcBundleStatus
  },
  { Method: 'sharedseq_getBundle'; Parameters: [Hash]; ReturnType: RpcStoredBundle },
  { Method: 'sharedseq_bundleStatus'; Parameters: [Hash]; ReturnType: RpcBundleStatus },
  { Method: 'sharedseq_leaderSchedule'; Parameters: [Hex]; ReturnType: RpcTurn[] },
  { Method: 'sharedseq_operators'; Parameters: []; ReturnType: RpcOperators },
  { Method: 'sharedseq_status'; Parameters: []; ReturnType: RpcStatus },
]

type Method = SharedSequencerRpcSchema[number]['Method']
type Entry<method extends Method> = Extract<SharedSequencerRpcSchema[number], { Method: method }>

/** Calls a method; what it fails with has the class of its code. Options override the transport's. */
export async function request<method extends Method>(
  client: Client,
  method: method,
  params: Entry<method>['Parameters'],
  options?: { retryCount?: number },
): Promise<Entry<method>['ReturnType']> {
  try {
    return (await client.request({ method, params } as never, options)) as Entry<method>['ReturnType']
  } catch (error) {
    throw toSharedSequencerError(error, method)
  }
}

/** Leaves out what is undefined: nodes refuse fields they do not know. */
function given<T extends object>(fields: { [k in keyof T]: T[k] | undefined }): T {
  return Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined)) as T
}

function quantity(value: number | bigint, what: string): Hex {
  // Also what a caller without types passes, and numbers that have lost digits.
  const whole = typeof value === 'bigint' || Number.isSafeInteger(value)
  if (!whole || value < 0) throw new BundleFormError(`${what} is ${value}: expected a whole number, 0 or more.`)
  return numberToHex(value)
}

function optional(value: number | bigint | undefined, what: string): Hex | undefined {
  return value === undefined ? undefined : quantity(value, what)
}

export function toRpcBundle(bundle: Bundle): RpcBundle {
  const { items, firstSlot, expirySlot, maxSlots, replacementId, replacementSignature, conditions } = bundle
  if (items.length === 0) throw new BundleFormError('The bundle has no items: expected at least one transaction.')
  if (expirySlot !== undefined && maxSlots !== undefined)
    throw new BundleFormError('The bundle has both expirySlot and maxSlots: expected at most one of them.')
  return given<RpcBundle>({
    items: items.map(toRpcItem),
    firstSlot: optional(firstSlot, 'firstSlot'),
    expirySlot: optional(expirySlot, 'expirySlot'),
    maxSlots: optional(maxSlots, 'maxSlots'),
    replacementId,
    replacementSignature,
    conditions: conditions?.map(toRpcConditions),
  })
}

function toRpcItem(item: BundleItem, i: number): RpcBundleItem {
  const chainId = quantity(item.chainId, `The chain ID of item ${i}`)
  if (item.relay) {
    if (item.transaction !== undefined)
      throw new BundleFormError(`Item ${i} has both a transaction and relay: expected one of them.`)
    return { chainId, relay: true }
  }
  if (!isHex(item.transaction) || item.transaction.length <= 2)
    throw new BundleFormError(`Item ${i} has no transaction: expected a signed one as hex, or relay.`)
  return item.mayRevert ? { chainId, tx: item.transaction, mayRevert: true } : { chainId, tx: item.transaction }
}

function toRpcConditions(c: BundleConditions): RpcConditions {
  return given<RpcConditions>({
    chainId: quantity(c.chainId, 'The chain ID of a condition'),
    blockNumberMin: optional(c.blockNumberMin, 'blockNumberMin'),
    blockNumberMax: optional(c.blockNumberMax, 'blockNumberMax'),
    timestampMin: optional(c.timestampMin, 'timestampMin'),
    timestampMax: optional(c.timestampMax, 'timestampMax'),
    knownAccounts: c.knownAccounts,
  })
}

const number = (v: Hex | undefined) => (v === undefined ? undefined : Number(v))
const bigint = (v: Hex | undefined) => (v === undefined ? undefined : BigInt(v))

function fromRpcItem(i: RpcItem): ExecutedItem {
  return {
    item: Number(i.item),
    chainId: Number(i.chainId),
    transactionHash: i.txHash,
    blockNumber: BigInt(i.blockNumber),
    status: BigInt(i.status) === 1n ? 'success' : 'reverted',
    gasUsed: BigInt(i.gasUsed),
    revertReason: i.revertReason,
  }
}

function fromRpcFailure(f: RpcFailure | undefined): BundleFailure | undefined {
  if (!f) return undefined
  return {
    item: number(f.item),
    chainId: number(f.chainId),
    transactionHash: f.txHash,
    reason: f.reason,
    returnData: f.returnData,
  }
}

function fromRpcIdentifier(id: RpcIdentifier): MessageIdentifier {
  const chainId = BigInt(id.chainID)
  return {
    origin: id.origin,
    blockNumber: BigInt(id.blockNumber),
    logIndex: Number(id.logIndex),
    timestamp: BigInt(id.timestamp),
    chainId: chainId <= Number.MAX_SAFE_INTEGER ? Number(chainId) : chainId,
  }
}

function fromRpcSimulatedItem(i: RpcItem): SimulatedItem {
  return {
    ...fromRpcItem(i),
    logs: (i.logs ?? []).map((l) => formatLog(l)),
    returnData: i.returnData ?? '0x',
    position: Number(i.position ?? 0),
    messages: (i.messages ?? []).map((m) => ({
      destination: number(m.destination),
      identifier: fromRpcIdentifier(m.identifier),
      payload: m.payload,
      payloadHash: m.payloadHash,
    })),
  }
}

export function fromRpcSimulation(s: RpcSimulation): Simulation {
  return {
    success: s.success,
    slot: BigInt(s.slot),
    items: s.items.map(fromRpcSimulatedItem),
    failure: fromRpcFailure(s.failure),
  }
}

export function fromRpcBundleStatus(s: RpcBundleStatus): BundleStatus {
  return {
    bundleHash: s.bundleHash,
    state: s.state,
    expirySlot: BigInt(s.expirySlot),
    attempts: Number(s.attempts),
    undone: Number(s.undone),
    slot: bigint(s.slot),
    items: (s.items ?? []).map(fromRpcItem),
    failure: fromRpcFailure(s.failure),
    replacedBy: s.replacedBy,
  }
}

export function fromRpcStoredBundle(b: RpcStoredBundle): StoredBundle {
  return {
    bundleHash: b.bundleHash,
    items: b.items.map(({ chainId, tx, relay, mayRevert }): BundleItem =>
      relay || tx === undefined
        ? { chainId: Number(chainId), relay: true }
        : { chainId: Number(chainId), transaction: tx, mayRevert: mayRevert ?? false },
    ),
    firstSlot: bigint(b.firstSlot),
    expirySlot: BigInt(b.expirySlot),
    replacementId: b.replacementId,
    replacementSignature: b.replacementSignature,
    conditions: b.conditions?.map((c) => ({
      chainId: Number(c.chainId),
      blockNumberMin: bigint(c.blockNumberMin),
      blockNumberMax: bigint(c.blockNumberMax),
      timestampMin: bigint(c.timestampMin),
      timestampMax: bigint(c.timestampMax),
      knownAccounts: c.knownAccounts,
    })),
    bid: BigInt(b.bid),
  }
}

export function fromRpcTurn(t: RpcTurn): Turn {
  return { height: BigInt(t.height), leader: t.leader, expected: number(t.expected) }
}

export function fromRpcOperators(o: RpcOperators): Operators {
  return {
    set: o.set,
    height: BigInt(o.height),
    counted: BigInt(o.counted),
    operators: o.operators.map((p) => ({
      ...p,
      power: BigInt(p.power),
      missed: Number(p.missed),
      led: BigInt(p.led),
      passed: BigInt(p.passed),
      voted: BigInt(p.voted),
      lastVoted: BigInt(p.lastVoted),
    })),
    totalPower: BigInt(o.totalPower),
    chains: o.chains.map(Number),
    pending: o.pending.map((p) => ({
      ...p,
      change: {
        ...p.change,
        power: bigint(p.change.power),
        chainId: number(p.change.chainId),
        nonce: BigInt(p.change.nonce),
        expirySlot: BigInt(p.change.expirySlot),
      },
      power: BigInt(p.power),
      needed: BigInt(p.needed),
    })),
  }
}

export function fromRpcStatus(s: RpcStatus): SharedSequencerStatus {
  const a = s.agreement
  const agreement: AgreementStatus | undefined = a && {
    ...a,
    power: BigInt(a.power),
    height: BigInt(a.height),
    durable: BigInt(a.durable),
    peers: Number(a.peers),
    connected: a.connected ?? [],
    lastRound: Number(a.lastRound),
  }
  return {
    slot: BigInt(s.slot),
    leader: s.leader,
    pendingBundles: Number(s.pendingBundles),
    bundles: {
      pending: Number(s.bundles.pending),
      pendingBytes: Number(s.bundles.pendingBytes),
      executed: Number(s.bundles.executed),
      undone: Number(s.bundles.undone),
      ended: Number(s.bundles.ended),
    },
    chains: s.chains.map((c) => ({
      chainId: Number(c.chainId),
      ready: c.ready,
      reason: c.reason,
      head: { hash: c.head.hash, number: BigInt(c.head.number), timestamp: BigInt(c.head.timestamp) },
      lastSlot: BigInt(c.lastSlot),
    })),
    agreement,
  }
}

export function fromRpcSubblock(s: RpcSubblock): Subblock {
  return {
    height: BigInt(s.height),
    slot: BigInt(s.slot),
    index: Number(s.index),
    last: s.last,
    leader: s.leader,
    chains: (s.chains ?? []).map((c) => ({
      chainId: Number(c.chainId),
      blockNumber: BigInt(c.blockNumber),
      transactions: c.transactions ?? [],
      gasUsed: BigInt(c.gasUsed),
      blockHash: c.blockHash,
    })),
  }
}
