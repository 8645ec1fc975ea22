import { BaseError, type Hash } from 'viem'
import type { BundleFailure, BundleStatus, Simulation } from './types.js'

/** What can be wrong with a bundle. */
export const bundleFaults = [
  'empty',
  'too-many-items',
  'too-large',
  'expired',
  'too-far-ahead',
  'unknown-chain',
  'malformed',
  'transaction-type',
  'wrong-chain',
  'signature',
  'duplicate',
  'nonce-order',
  'gas',
  'relay',
  'invalid-transaction',
  'terms',
] as const
export type BundleFault = (typeof bundleFaults)[number]

/** Why an approval of a change of the set is not taken. */
export const changeFaults = [
  'malformed',
  'not-operator',
  'duplicate',
  'ended',
  'expiry',
  'not-applicable',
  'limit',
] as const
export type ChangeFault = (typeof changeFaults)[number]

/** A string of a known set, or one that a newer node has added. */
type Open<T extends string> = T | (string & {})

type RpcErrorData = { item?: string; chainId?: string; kind?: string }
type RpcErrorParameters = { cause: Error; method: string; message: string; data?: RpcErrorData | undefined }

/** An error that the `sharedseq` namespace answered with. */
export class SharedSequencerRpcError extends BaseError {
  override name = 'SharedSequencerRpcError'
  /** JSON-RPC error code. */
  readonly code: number
  /** JSON-RPC method that failed. */
  readonly method: string

  constructor(code: number, { cause, method, message }: RpcErrorParameters) {
    super(message, { cause, metaMessages: [`Method: ${method}`] })
    this.code = code
    this.method = method
  }
}

/** -32602: the request is not of the documented form. */
export class InvalidRequestError extends SharedSequencerRpcError {
  static readonly code = -32602
  override name = 'InvalidRequestError'
  constructor(args: RpcErrorParameters) {
    super(InvalidRequestError.code, args)
  }
}

/** -32603: a fault of the operator's node. */
export class InternalNodeError extends SharedSequencerRpcError {
  static readonly code = -32603
  override name = 'InternalNodeError'
  constructor(args: RpcErrorParameters) {
    super(InternalNodeError.code, args)
  }
}

/** -38100: the bundle can never be executed as it is. */
export class InvalidBundleError extends SharedSequencerRpcError {
  static readonly code: number = -38100
  override name = 'InvalidBundleError'
  /** The fault, one of {@link bundleFaults}. */
  readonly kind: Open<BundleFault>
  /** Index of the item that is meant; absent if the bundle as a whole is. */
  readonly item: number | undefined
  readonly chainId: number | undefined
  constructor(args: RpcErrorParameters, code = InvalidBundleError.code) {
    super(code, args)
    this.kind = args.data?.kind ?? ''
    this.item = args.data?.item === undefined ? undefined : Number(args.data.item)
    this.chainId = args.data?.chainId === undefined ? undefined : Number(args.data.chainId)
  }
}

/** -38101: the bundle's last slot has passed, or is too far ahead; `kind` says which. */
export class BundleExpiryError extends InvalidBundleError {
  static override readonly code: number = -38101
  override name = 'BundleExpiryError'
  constructor(args: RpcErrorParameters) {
    super(args, BundleExpiryError.code)
  }
}

/** -38102: no room now; send the bundle again later. */
export class BundlePoolFullError extends SharedSequencerRpcError {
  static readonly code = -38102
  override name = 'BundlePoolFullError'
  constructor(args: RpcErrorParameters) {
    super(BundlePoolFullError.code, args)
  }
}

/** -38103: too many pending bundles of one sender; send it again later. */
export class SenderLimitError extends SharedSequencerRpcError {
  static readonly code = -38103
  override name = 'SenderLimitError'
  constructor(args: RpcErrorParameters) {
    super(SenderLimitError.code, args)
  }
}

/** -38104: the bundle was never received by this operator, or ended too long ago. */
export class UnknownBundleError extends SharedSequencerRpcError {
  static readonly code = -38104
  override name = 'UnknownBundleError'
  constructor(args: RpcErrorParameters) {
    super(UnknownBundleError.code, args)
  }
}

/** -38105: too many simulations, or one that takes too long; try again later. */
export class SimulationBusyError extends SharedSequencerRpcError {
  static readonly code = -38105
  override name = 'SimulationBusyError'
  constructor(args: RpcErrorParameters) {
    super(SimulationBusyError.code, args)
  }
}

/** -38106: the sequencer cannot do it now, for the reason given. */
export class SequencerUnavailableError extends SharedSequencerRpcError {
  static readonly code = -38106
  override name = 'SequencerUnavailableError'
  constructor(args: RpcErrorParameters) {
    super(SequencerUnavailableError.code, args)
  }
}

/** -38108: the bundle was cancelled or replaced, and is not taken again. */
export class BundleCancelledError extends SharedSequencerRpcError {
  static readonly code = -38108
  override name = 'BundleCancelledError'
  constructor(args: RpcErrorParameters) {
    super(BundleCancelledError.code, args)
  }
}

/** -38109: another bundle waits under its replacement ID, and it bids too little to take its place. */
export class BundleUnderpricedError extends SharedSequencerRpcError {
  static readonly code = -38109
  override name = 'BundleUnderpricedError'
  constructor(args: RpcErrorParameters) {
    super(BundleUnderpricedError.code, args)
  }
}

/** -38110: no sender of the bundle signed the cancellation. */
export class NotBundleSenderError extends SharedSequencerRpcError {
  static readonly code = -38110
  override name = 'NotBundleSenderError'
  constructor(args: RpcErrorParameters) {
    super(NotBundleSenderError.code, args)
  }
}

/** -38111: the bundle does not wait any more. */
export class BundleNotPendingError extends SharedSequencerRpcError {
  static readonly code = -38111
  override name = 'BundleNotPendingError'
  constructor(args: RpcErrorParameters) {
    super(BundleNotPendingError.code, args)
  }
}

/** -38112: the node has as many subscriptions as it takes, or has ended this one. */
export class SubscriptionError extends SharedSequencerRpcError {
  static readonly code = -38112
  override name = 'SubscriptionError'
  constructor(args: RpcErrorParameters) {
    super(SubscriptionError.code, args)
  }
}

/** -38113: too many requests from this IP address; slow down. */
export class RateLimitError extends SharedSequencerRpcError {
  static readonly code = -38113
  override name = 'RateLimitError'
  constructor(args: RpcErrorParameters) {
    super(RateLimitError.code, args)
  }
}

/** -38107: the set does not take this approval of a change. */
export class InvalidChangeError extends SharedSequencerRpcError {
  static readonly code = -38107
  override name = 'InvalidChangeError'
  /** The fault, one of {@link changeFaults}. */
  readonly kind: Open<ChangeFault>
  constructor(args: RpcErrorParameters) {
    super(InvalidChangeError.code, args)
    this.kind = args.data?.kind ?? ''
  }
}

const classes = [
  InvalidRequestError,
  InternalNodeError,
  InvalidBundleError,
  BundleExpiryError,
  BundlePoolFullError,
  SenderLimitError,
  UnknownBundleError,
  SimulationBusyError,
  SequencerUnavailableError,
  BundleCancelledError,
  BundleUnderpricedError,
  NotBundleSenderError,
  BundleNotPendingError,
  SubscriptionError,
  RateLimitError,
  InvalidChangeError,
] as const

/** Class of the errors of each code of the namespace. */
export const errorClasses: ReadonlyMap<number, (typeof classes)[number]> = new Map(classes.map((c) => [c.code, c]))

/** An error thrown by the transport, as the class of its code; others are returned as they are. */
export function toSharedSequencerError(error: unknown, method: string): unknown {
  // viem wraps: the innermost error with a code is the server's.
  let found: { code: number; message: string; details?: unknown; data?: unknown } | undefined
  for (let e = error; e instanceof Object; e = (e as { cause?: unknown }).cause)
    if ('code' in e && typeof e.code === 'number' && errorClasses.has(e.code)) found = e as never
  if (!found || !(error instanceof Error)) return error
  const Class = errorClasses.get(found.code)!
  // The details of viem's errors are the server's message.
  const message = typeof found.details === 'string' && found.details ? found.details : found.message
  const data = found.data instanceof Object ? (found.data as RpcErrorData) : undefined
  return new Class({ cause: error, method, message, data })
}

/** A bundle that was waited for did not come to be executed. */
export class BundleNotExecutedError extends BaseError {
  override name = 'BundleNotExecutedError'
  readonly status: BundleStatus
  constructor(status: BundleStatus) {
    super(`Bundle ${status.bundleHash} is ${status.state}${because(status.failure)}.`)
    this.status = status
  }
}

/** A bundle did not come to the state it was waited for in time. */
export class WaitForBundleTimeoutError extends BaseError {
  override name = 'WaitForBundleTimeoutError'
  /** What was known of it last. */
  readonly status: BundleStatus | undefined
  constructor(bundleHash: Hash, timeout: number, status: BundleStatus | undefined) {
    const state = status ? ` It is ${status.state}${because(status.failure)}.` : ''
    super(`Bundle ${bundleHash} did not end within ${timeout} ms.${state}`)
    this.status = status
  }
}

/** A bundle whose gas limits were to be found out fails when it is simulated. */
export class BundleSimulationError extends BaseError {
  override name = 'BundleSimulationError'
  readonly simulation: Simulation
  constructor(simulation: Simulation, metaMessages?: string[]) {
    super(`The bundle would fail${because(simulation.failure)}.`, metaMessages ? { metaMessages } : {})
    this.simulation = simulation
  }
}

/** A bundle that is not sent, as it cannot be right. */
export class BundleFormError extends BaseError {
  override name = 'BundleFormError'
}

/** Subscriptions need a client with viem's `webSocket` transport. */
export class WebSocketRequiredError extends BaseError {
  override name = 'WebSocketRequiredError'
  constructor(action: string) {
    super(`${action} needs a client with a webSocket transport.`)
  }
}

function because(failure: BundleFailure | undefined): string {
  if (!failure) return ''
  const where =
    failure.item === undefined
      ? ''
      : `item ${failure.item}${failure.chainId === undefined ? '' : ` on chain ${failure.chainId}`}: `
  return `: ${where}${failure.reason}`
}
