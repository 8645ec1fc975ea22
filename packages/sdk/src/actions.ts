import { type Client, type Hash, type Hex, type LocalAccount, numberToHex } from 'viem'
import { BundleFormError, BundleNotExecutedError, WaitForBundleTimeoutError } from './errors.js'
import {
  fromRpcBundleStatus,
  fromRpcOperators,
  fromRpcSimulation,
  fromRpcStatus,
  fromRpcStoredBundle,
  fromRpcTurn,
  request,
  toRpcBundle,
} from './rpc.js'
import type {
  Bundle,
  BundleStatus,
  Operators,
  SharedSequencerStatus,
  Simulation,
  StoredBundle,
  Turn,
} from './types.js'

export type SendBundleReturnType = {
  /** Hash the bundle is asked for by. */
  bundleHash: Hash
  /** Last slot it may be executed in. */
  expirySlot: bigint
}

/**
 * Sends a bundle, to be executed on all its chains in one slot, in order, or on none. Sending
 * the same bundle with the same `expirySlot` again changes nothing. Without one the node works
 * it out when the bundle arrives, and a later slot makes it another bundle, with another hash:
 * so such a bundle is sent once, whatever the transport's `retryCount`.
 *
 * Errors: `InvalidBundleError`, `BundleExpiryError`, `BundlePoolFullError`, `SenderLimitError`,
 * `BundleUnderpricedError`, `BundleCancelledError`.
 */
export async function sendBundle(client: Client, bundle: Bundle): Promise<SendBundleReturnType> {
  const once = bundle.expirySlot === undefined ? { retryCount: 0 } : {}
  const { bundleHash, expirySlot } = await request(client, 'sharedseq_sendBundle', [toRpcBundle(bundle)], once)
  return { bundleHash, expirySlot: BigInt(expirySlot) }
}

/**
 * Runs a bundle on top of the chains as they are and leaves no trace. That the bundle fails
 * is in the result. Transactions that wait in the pools are not seen.
 *
 * Errors: `InvalidBundleError`, `BundleExpiryError`, `SimulationBusyError`, `SequencerUnavailableError`.
 */
export async function simulateBundle(client: Client, bundle: Bundle): Promise<Simulation> {
  return fromRpcSimulation(await request(client, 'sharedseq_simulateBundle', [toRpcBundle(bundle)]))
}

/** The text whose EIP-191 signature by a sender of the bundle cancels it. */
export function cancelBundleMessage(bundleHash: Hash): string {
  return `Cancel bundle ${bundleHash.toLowerCase()}`
}

export type CancelBundleParameters = { bundleHash: Hash } & (
  | {
      /** Sender of one of the bundle's transactions. */
      account: Pick<LocalAccount, 'signMessage'>
      signature?: undefined
    }
  | {
      account?: undefined
      /** Of {@link cancelBundleMessage}, by a sender of one of the bundle's transactions. */
      signature: Hex
    }
)

/**
 * Cancels a pending bundle. Operators that lead before they hear of it may still execute it:
 * the status tells.
 *
 * Errors: `UnknownBundleError`, `NotBundleSenderError`, `BundleNotPendingError`.
 */
export async function cancelBundle(client: Client, parameters: CancelBundleParameters): Promise<BundleStatus> {
  const { bundleHash, account } = parameters
  const signature = account
    ? await account.signMessage({ message: cancelBundleMessage(bundleHash) })
    : parameters.signature
  return fromRpcBundleStatus(await request(client, 'sharedseq_cancelBundle', [{ bundleHash, signature }]))
}

export type BundleParameters = { bundleHash: Hash }

/** Asks for a bundle as this operator has it. Error: `UnknownBundleError`. */
export async function getBundle(client: Client, { bundleHash }: BundleParameters): Promise<StoredBundle> {
  return fromRpcStoredBundle(await request(client, 'sharedseq_getBundle', [bundleHash]))
}

/** Asks what became of a bundle. Error: `UnknownBundleError`. */
export async function getBundleStatus(client: Client, { bundleHash }: BundleParameters): Promise<BundleStatus> {
  return fromRpcBundleStatus(await request(client, 'sharedseq_bundleStatus', [bundleHash]))
}

export type WaitForBundleParameters = {
  bundleHash: Hash
  /**
   * `executed`: until it is no longer pending. `safe`: until its blocks are safe on all its
   * chains; a bundle whose blocks are replaced meanwhile is waited for again.
   * @default 'executed'
   */
  until?: 'executed' | 'safe' | undefined
  /** Throws `BundleNotExecutedError` if the bundle ends in another state than `executed` or `safe`. */
  throwOnFailure?: boolean | undefined
  /** Between two questions, in ms. @default The client's, at most 500. */
  pollingInterval?: number | undefined
  /** In ms. @default 60_000, and 600_000 until safe. 0 waits without end. */
  timeout?: number | undefined
  /** Ends the waiting: it fails with the signal's reason. */
  signal?: AbortSignal | undefined
}

/**
 * Waits until a bundle has ended. That it failed, expired, or was cancelled is in the
 * status, not an error, except with `throwOnFailure`.
 *
 * Errors: `WaitForBundleTimeoutError`, `BundleNotExecutedError`, `UnknownBundleError`.
 */
export async function waitForBundle(client: Client, parameters: WaitForBundleParameters): Promise<BundleStatus> {
  const { bundleHash, until = 'executed', throwOnFailure = false, signal } = parameters
  const { pollingInterval = Math.min(client.pollingInterval, 500) } = parameters
  const { timeout = until === 'safe' ? 600_000 : 60_000 } = parameters
  let last: BundleStatus | undefined
  let end: () => void = () => {}
  const ended = new Promise<never>((_, reject) => {
    const abort = () => reject(signal?.reason)
    const timer =
      timeout > 0
        ? setTimeout(() => reject(new WaitForBundleTimeoutError(bundleHash, timeout, last)), timeout)
        : undefined
    signal?.addEventListener('abort', abort)
    end = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
    if (signal?.aborted) abort()
  })
  try {
    for (;;) {
      last = await Promise.race([getBundleStatus(client, { bundleHash }), ended])
      const waiting = last.state === 'pending' || (until === 'safe' && last.state === 'executed')
      if (!waiting) break
      await Promise.race([pause(pollingInterval), ended])
    }
  } finally {
    end()
  }
  if (throwOnFailure && last.state !== 'executed' && last.state !== 'safe') throw new BundleNotExecutedError(last)
  return last
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export type GetLeaderScheduleParameters = {
  /** How many turns, 1 to 256. @default 8 */
  turns?: number | undefined
}

/**
 * Asks who proposes the next subblocks, the one that is agreed on now first. Later turns
 * change when operators come, go, or do not deliver.
 */
export async function getLeaderSchedule(
  client: Client,
  { turns = 8 }: GetLeaderScheduleParameters = {},
): Promise<Turn[]> {
  if (!Number.isInteger(turns) || turns < 1 || turns > 256)
    throw new BundleFormError(`${turns} turns: expected 1 to 256.`)
  return (await request(client, 'sharedseq_leaderSchedule', [numberToHex(turns)])).map(fromRpcTurn)
}

/**
 * Asks for the set of operators, and the changes of it that wait for approval.
 * Error: `SequencerUnavailableError` if there is one operator, which is alone.
 */
export async function getOperators(client: Client): Promise<Operators> {
  return fromRpcOperators(await request(client, 'sharedseq_operators', []))
}

/** Asks how the sequencer and its chains are doing. */
export async function getSharedSequencerStatus(client: Client): Promise<SharedSequencerStatus> {
  return fromRpcStatus(await request(client, 'sharedseq_status', []))
}
