import type { Address, Hash, Hex, Log } from 'viem'

/** A transaction of a bundle, signed. */
export type TransactionItem = {
  /** Chain the transaction is signed for. */
  chainId: number
  /** EIP-2718 envelope of the signed transaction. */
  transaction: Hex
  /** The bundle executes also if this transaction reverts. Without it, a revert fails the bundle. */
  mayRevert?: boolean | undefined
  relay?: undefined
}

/** A relay step: executes on its chain the L2ToL2 messages that the items before it sent there. */
export type RelayItem = {
  /** Chain the messages are executed on. */
  chainId: number
  relay: true
  transaction?: undefined
  mayRevert?: undefined
}

/** A step of a bundle: they execute in their order. */
export type BundleItem = TransactionItem | RelayItem

/**
 * What must hold on a chain of the bundle when it begins, as in
 * `eth_sendRawTransactionConditional`. Until it expires the bundle waits for that. Bounds are
 * inclusive, of the block that the bundle would be in.
 */
export type BundleConditions = {
  chainId: number
  blockNumberMin?: bigint | undefined
  blockNumberMax?: bigint | undefined
  /** Unix seconds. */
  timestampMin?: bigint | undefined
  /** Unix seconds. */
  timestampMax?: bigint | undefined
  /** By account: the root of its storage, or values by slot. */
  knownAccounts?: Readonly<Record<Address, Hash | Readonly<Record<Hash, Hash>>>> | undefined
}

/** Options of a bundle. Slots are L2 timestamps, in seconds. */
export type BundleOptions = {
  /** First slot it may be executed in. */
  firstSlot?: bigint | undefined
  /**
   * Of the bundles with the same ID and the same signer one waits at a time; another takes its
   * place if it bids a tenth more: `BundleUnderpricedError` if not. `signReplacement` signs.
   */
  replacementId?: Hash | undefined
  /** Over `replacementMessage`, by whose the ID is. */
  replacementSignature?: Hex | undefined
  conditions?: readonly BundleConditions[] | undefined
} & (
  | {
      /** Last slot it may be executed in. */
      expirySlot?: bigint | undefined
      maxSlots?: undefined
    }
  | {
      expirySlot?: undefined
      /** How many slots it may wait for, the current one included. */
      maxSlots?: number | undefined
    }
)

/**
 * Transactions over one or more chains that execute in order, in one slot, all or nothing.
 * Without `expirySlot` and `maxSlots` it waits for the operator's default number of slots.
 */
export type Bundle = { items: readonly BundleItem[] } & BundleOptions

/**
 * Where a bundle stands.
 *
 * | state | meaning |
 * |---|---|
 * | `pending` | waits to be executed |
 * | `executed` | in agreed blocks that are not safe yet |
 * | `safe` | its blocks are derived from L1 on all its chains |
 * | `failed` | a transaction could not be included or reverted; no chain has any of it |
 * | `expired` | its last slot passed before it was executed |
 * | `undone` | it was executed, its blocks were replaced, and it was not executed again |
 * | `cancelled` | one of its senders cancelled it |
 * | `replaced` | a bundle with the same replacement ID took its place |
 */
export type BundleState =
  | 'pending'
  | 'executed'
  | 'safe'
  | 'failed'
  | 'expired'
  | 'undone'
  | 'cancelled'
  | 'replaced'

/** One transaction of a bundle as it ran. A relay step has one for each message. */
export type ExecutedItem = {
  /** Index of the bundle's item. */
  item: number
  chainId: number
  transactionHash: Hash
  blockNumber: bigint
  status: 'success' | 'reverted'
  gasUsed: bigint
  /** Readable; only if it reverted. */
  revertReason?: string | undefined
}

/** Why a bundle did not execute. */
export type BundleFailure = {
  /** Index of the item to blame; absent if none is. */
  item?: number | undefined
  chainId?: number | undefined
  /** Absent if it never came to a transaction. */
  transactionHash?: Hash | undefined
  /** One line. */
  reason: string
  /** What the transaction reverted with: for `decodeErrorResult`. */
  returnData?: Hex | undefined
}

/** What became of a bundle. */
export type BundleStatus = {
  bundleHash: Hash
  state: BundleState
  expirySlot: bigint
  /** How often it was tried. */
  attempts: number
  /** How often its blocks were replaced. */
  undone: number
  /**
   * Slot of the execution in agreed blocks. In the states `pending` and `undone` it is
   * absent or of one whose blocks were replaced; so are `items`.
   */
  slot?: bigint | undefined
  items: ExecutedItem[]
  /** Why it failed, expired or was undone; in state `pending`, why the last attempt was put off. */
  failure?: BundleFailure | undefined
  /** In state `replaced`: the bundle that took its place. */
  replacedBy?: Hash | undefined
}

/** Names a log on a chain, as the OP Stack's interop specification does. */
export type MessageIdentifier = {
  /** Account that emitted the log. */
  origin: Address
  blockNumber: bigint
  /** Index in the block. */
  logIndex: number
  /** Of the block, Unix seconds. */
  timestamp: bigint
  chainId: number | bigint
}

/** An initiating message: a log that transactions on other chains may execute. */
export type Message = {
  identifier: MessageIdentifier
  /** The log's topics and data, one after another. */
  payload: Hex
  /** keccak256 of the payload. */
  payloadHash: Hash
}

/** A message that a simulated transaction would initiate. */
export type SimulatedMessage = Message & {
  /** Of an L2ToL2 message: the chain it is sent to. */
  destination?: number | undefined
}

/** One transaction of a simulated bundle. */
export type SimulatedItem = ExecutedItem & {
  logs: Log[]
  /** What it returned or reverted with. */
  returnData: Hex
  /** Index in its block, if the bundle is the first in the slot. */
  position: number
  /**
   * What it would initiate. The identifiers hold if the bundle is executed in the slot that
   * was simulated, as the first.
   */
  messages: SimulatedMessage[]
}

/** What executing a bundle would come to. */
export type Simulation = {
  success: boolean
  /** Slot it was simulated in. */
  slot: bigint
  /** The transactions as they ran, up to the one that failed. */
  items: SimulatedItem[]
  failure?: BundleFailure | undefined
}

/** A bundle as an operator has it. */
export type StoredBundle = {
  bundleHash: Hash
  items: BundleItem[]
  firstSlot?: bigint | undefined
  expirySlot: bigint
  replacementId?: Hash | undefined
  replacementSignature?: Hex | undefined
  conditions?: BundleConditions[] | undefined
  /** Sum of priority fees times gas limits, in wei. */
  bid: bigint
}

/** A leader's turn to propose one subblock. */
export type Turn = {
  /** Height of the subblock, from 1; 0 if the operator is alone. */
  height: bigint
  /** Signs the subblock; the zero address if the operator is alone. */
  leader: Address
  /** When it is proposed if all goes well, Unix milliseconds. Absent while the set is behind. */
  expected?: number | undefined
}

/** One operator, and how it delivers. */
export type Operator = {
  name: string
  address: Address
  consensusKey: string
  power: bigint
  /** Turns missed in a row. */
  missed: number
  /** Its turns are shortened, until it has voted for a while. */
  shortened: boolean
  /** Heights with its subblock; this and the next two are of the set's `counted` heights. */
  led: bigint
  /** Turns in which it did not deliver. */
  passed: bigint
  /** Heights agreed on with its vote. */
  voted: bigint
  /** The last of them, 0 if there is none. */
  lastVoted: bigint
}

/** A change of the set of operators. */
export type OperatorSetChange = {
  kind: 'addOperator' | 'removeOperator' | 'setPower' | 'joinChain' | 'leaveChain'
  name?: string | undefined
  address?: Address | undefined
  consensusKey?: string | undefined
  power?: bigint | undefined
  chainId?: number | undefined
  nonce: bigint
  /** The last slot at whose end it can come in force. */
  expirySlot: bigint
}

/** A change that waits for approval: it comes in force when `power` is at least `needed`. */
export type PendingChange = {
  id: Hash
  change: OperatorSetChange
  proposer: Address
  approvals: Address[]
  power: bigint
  needed: bigint
}

/** The set of operators. */
export type Operators = {
  /** ID of the set: part of all that is signed. */
  set: Hash
  /** Height of the subblock agreed on last. */
  height: bigint
  /** Heights that the operator's process has seen agreed on. */
  counted: bigint
  operators: Operator[]
  totalPower: bigint
  /** Chains that take part, ascending. */
  chains: number[]
  pending: PendingChange[]
}

/** How a chain is doing. */
export type ChainStatus = {
  chainId: number
  ready: boolean
  /** Why it is not ready. */
  reason?: string | undefined
  head: { hash: Hash; number: bigint; timestamp: bigint }
  /** The last slot the chain took part in. */
  lastSlot: bigint
}

/** How an operator takes part in the agreement with the others. */
export type AgreementStatus = {
  nodeId: string
  /** The zero address: it follows and never leads. */
  operator: Address
  power: bigint
  /** Height of the subblock agreed on last. */
  height: bigint
  /** Height of the last subblock of the newest slot in its ledger. */
  durable: bigint
  running: boolean
  syncing: boolean
  peers: number
  /** Node IDs of the peers. */
  connected: string[]
  /** Has made the subblock of the height before `height`; the zero address until it is known. */
  lastLeader: Address
  /** Round it was agreed on in: so many leaders before had missed their turn. */
  lastRound: number
}

/** How the sequencer is doing. */
export type SharedSequencerStatus = {
  /** Built now, or next. */
  slot: bigint
  /** Whether this operator leads it. */
  leader: boolean
  pendingBundles: number
  /** How many bundles of each state this operator knows; `ended` are those that are remembered. */
  bundles: { pending: number; pendingBytes: number; executed: number; undone: number; ended: number }
  chains: ChainStatus[]
  /** Absent if the operator is alone. */
  agreement?: AgreementStatus | undefined
}

/** A subblock that was agreed on: the next piece of the global order. */
export type Subblock = {
  height: bigint
  slot: bigint
  /** Index in its slot. */
  index: number
  /** Whether it seals the slot. */
  last: boolean
  leader: Address
  chains: {
    chainId: number
    blockNumber: bigint
    transactions: Hash[]
    gasUsed: bigint
    /** Only of the last subblock of a slot. */
    blockHash?: Hash | undefined
  }[]
}
