import {
  type Client,
  formatTransactionReceipt,
  type Hash,
  InvalidParamsRpcError,
  MethodNotFoundRpcError,
  numberToHex,
  RpcRequestError,
  type RpcTransactionReceipt,
  SocketClosedError,
  type Transport,
  type TransactionReceipt,
  type WebSocketTransport,
} from 'viem'
import { getBundleStatus } from './actions.js'
import { toSharedSequencerError, WebSocketRequiredError } from './errors.js'
import { fromRpcBundleStatus, fromRpcSubblock, type RpcBundleStatus, type RpcSubblock } from './rpc.js'
import type { BundleStatus, Subblock } from './types.js'

/** Ends a watch. */
export type Unwatch = () => void

export type WatchParameters = {
  /**
   * Told when the subscription fails or the connection is lost, and of what callbacks throw. A
   * subscription that is lost is tried again until it works, and what happens meanwhile is not
   * told later; one that the node does not have, or does not take, is given up.
   */
  onError?: ((error: Error) => void) | undefined
  /** Time before a lost subscription is tried again, in ms. @default 2_000 */
  retryDelay?: number | undefined
}

export type WatchSubblocksParameters = WatchParameters & { onSubblock: (subblock: Subblock) => void }

/**
 * Tells of every subblock when it is agreed on. Needs a `webSocket` transport.
 * Error: `WebSocketRequiredError`.
 */
export function watchSubblocks(client: Client, parameters: WatchSubblocksParameters): Unwatch {
  const { onSubblock } = parameters
  return subscribe(client, 'watchSubblocks', ['subblocks'], parameters, (s: RpcSubblock) =>
    onSubblock(fromRpcSubblock(s)),
  )
}

export type WatchReceiptsParameters = WatchParameters & {
  chainId: number
  /** Only those of these transactions. */
  transactionHashes?: readonly Hash[] | undefined
  onReceipt: (receipt: TransactionReceipt) => void
}

/**
 * Tells of receipts of a chain when the subblock with their transaction is agreed on, which
 * is before its block is sealed. Needs a `webSocket` transport. Error: `WebSocketRequiredError`.
 */
export function watchReceipts(client: Client, parameters: WatchReceiptsParameters): Unwatch {
  const { chainId, transactionHashes, onReceipt } = parameters
  const filter = { chainId: numberToHex(chainId), ...(transactionHashes ? { transactionHashes } : {}) }
  // One at a time, or as many as a subblock has.
  const onData = (r: RpcTransactionReceipt | RpcTransactionReceipt[]) => {
    for (const one of Array.isArray(r) ? r : [r]) onReceipt(formatTransactionReceipt(one))
  }
  return subscribe(client, 'watchReceipts', ['receipts', filter], parameters, onData)
}

export type WatchBundlesParameters = WatchParameters & {
  /** Only this one. Without it, all that the operator has. */
  bundleHash?: Hash | undefined
  onStatus: (status: BundleStatus) => void
  /** Between two questions when the transport is not a `webSocket`, in ms. @default The client's, at most 500. */
  pollingInterval?: number | undefined
}

/**
 * Tells of bundles when their status changes. Over a transport that is not a `webSocket` the
 * status of one bundle is asked for again and again. Error: `WebSocketRequiredError` without
 * `bundleHash` over such a transport.
 */
export function watchBundles(client: Client, parameters: WatchBundlesParameters): Unwatch {
  const { bundleHash, onStatus } = parameters
  if (bundleHash && !socketTransport(client)) return pollBundle(client, { ...parameters, bundleHash })
  const filter = bundleHash ? [{ bundleHash }] : []
  return subscribe(client, 'watchBundles', ['bundles', ...filter], parameters, (s: RpcBundleStatus) =>
    onStatus(fromRpcBundleStatus(s)),
  )
}

function pollBundle(client: Client, parameters: WatchBundlesParameters & { bundleHash: Hash }): Unwatch {
  const { bundleHash, onStatus, onError, pollingInterval = Math.min(client.pollingInterval, 500) } = parameters
  let stopped = false
  let timer: ReturnType<typeof setTimeout> | undefined
  let last: string | undefined
  const ask = async () => {
    try {
      const status = await getBundleStatus(client, { bundleHash })
      const text = JSON.stringify(status, (_, v) => (typeof v === 'bigint' ? String(v) : v))
      if (!stopped && text !== last) onStatus(status)
      last = text
    } catch (error) {
      if (!stopped) onError?.(error as Error)
    }
    if (!stopped) timer = setTimeout(ask, pollingInterval)
  }
  void ask()
  return () => {
    stopped = true
    clearTimeout(timer)
  }
}

type SocketTransport = Pick<ReturnType<WebSocketTransport>['value'] & object, 'getRpcClient'>

/** The transport's socket, of a fallback transport the first one's that has one. */
function socketTransport(client: Client): SocketTransport | undefined {
  const { transport } = client
  if (transport.type === 'webSocket') return transport as unknown as SocketTransport
  if (transport.type !== 'fallback') return undefined
  const all = (transport as unknown as { transports: ReturnType<Transport>[] }).transports
  return all.find((t) => t.config.type === 'webSocket')?.value as SocketTransport | undefined
}

/** How often a connection is looked at before it is given up for a new one. */
const patience = 8

/**
 * Keeps a subscription of the namespace. viem's transports know those of `eth` only, so the
 * notifications are read from the socket itself.
 */
function subscribe<data>(
  client: Client,
  action: string,
  params: readonly unknown[],
  { onError, retryDelay = 2_000 }: WatchParameters,
  onData: (data: data) => void,
): Unwatch {
  const transport = socketTransport(client)
  if (!transport) throw new WebSocketRequiredError(action)
  let stopped = false
  let timer: ReturnType<typeof setTimeout> | undefined
  let detach: () => void = () => {}
  let dead = 0

  const start = async () => {
    // A connection that is lost also fails the request on it.
    let over = false
    const failed = (error: unknown, retry: boolean) => {
      if (over) return
      over = true
      detach()
      if (stopped) return
      onError?.(error as Error)
      if (retry) timer = setTimeout(start, retryDelay)
    }
    try {
      const rpc = await transport.getRpcClient()
      if (stopped) return
      const { socket } = rpc
      if (socket.readyState !== socket.OPEN) {
        // viem connects again by itself for a while, and then keeps what is dead.
        if (++dead >= patience) rpc.close()
        timer = setTimeout(start, retryDelay)
        return
      }
      dead = 0
      const body = { method: 'sharedseq_subscribe', params }
      let id: unknown
      // Notifications may come before the ID that they belong to is known here.
      let early: { subscription: unknown; result: data }[] | undefined = []
      const deliver = (note: { subscription: unknown; result: data }) => {
        if (stopped || note.subscription !== id) return
        // The node's last word: it has ended the subscription, because this client was slow.
        const { error } = note.result as { error?: { code: number; message: string } }
        if (error) {
          id = undefined
          return failed(toSharedSequencerError(new RpcRequestError({ body, error, url: rpc.url }), body.method), true)
        }
        try {
          onData(note.result)
        } catch (error) {
          onError?.(error as Error)
        }
      }
      const onMessage = ({ data: text }: MessageEvent) => {
        if (typeof text !== 'string' || !text.includes('"sharedseq_subscription"')) return
        const { method, params: note } = JSON.parse(text)
        if (method !== 'sharedseq_subscription') return
        if (early) early.push(note)
        else deliver(note)
      }
      const onClose = () => failed(new SocketClosedError({ url: rpc.url }), true)
      socket.addEventListener('message', onMessage)
      socket.addEventListener('close', onClose)
      detach = () => {
        socket.removeEventListener('message', onMessage)
        socket.removeEventListener('close', onClose)
        if (id !== undefined && socket.readyState === socket.OPEN)
          rpc.request({ body: { method: 'sharedseq_unsubscribe', params: [id] }, onResponse: () => {} })
        id = undefined
      }
      const { error, result } = await rpc.requestAsync({ body })
      if (error) {
        const refused = error.code === MethodNotFoundRpcError.code || error.code === InvalidParamsRpcError.code
        return failed(toSharedSequencerError(new RpcRequestError({ body, error, url: rpc.url }), body.method), !refused)
      }
      id = result
      if (stopped) return detach()
      const waiting = early
      early = undefined
      waiting.forEach(deliver)
    } catch (error) {
      failed(error, true)
    }
  }
  void start()
  return () => {
    stopped = true
    clearTimeout(timer)
    detach()
  }
}
