import {
  type AccessList,
  type Address,
  type Client,
  type Hash,
  type Hex,
  keccak256,
  type LocalAccount,
  parseTransaction,
  recoverTransactionAddress,
  type TransactionSerialized,
} from 'viem'
import { estimateMaxPriorityFeePerGas, getBlock, getTransactionCount } from 'viem/actions'
import { simulateBundle } from './actions.js'
import { BundleFormError, BundleSimulationError } from './errors.js'
import type { Bundle, BundleItem, BundleOptions, RelayItem, Simulation, TransactionItem } from './types.js'

/** A transaction of a bundle that is not signed yet. What is not given is found out. */
export type UnsignedItem = {
  chainId: number
  /** Sends and signs the transaction. */
  account: Pick<LocalAccount, 'address' | 'signTransaction'>
  /** Without it the transaction creates a contract. */
  to?: Address | undefined
  /** In wei. */
  value?: bigint | undefined
  data?: Hex | undefined
  accessList?: AccessList | undefined
  /** @default The next of the account on the chain, pending transactions and earlier items included. */
  nonce?: number | undefined
  /** @default What the simulation used, and half as much again. */
  gas?: bigint | undefined
  /** Wei per gas. @default Twice the base fee, and the priority fee. */
  maxFeePerGas?: bigint | undefined
  /** Wei per gas. @default What the chain's node suggests. */
  maxPriorityFeePerGas?: bigint | undefined
  mayRevert?: boolean | undefined
  relay?: undefined
  transaction?: undefined
}

export type SignBundleParameters = {
  /** Clients of the rollups, for nonces and fees. Not needed for chains of which everything is given. */
  chains: readonly Client[]
  items: readonly (UnsignedItem | TransactionItem | RelayItem)[]
  /** Gas limit with which transactions are simulated whose gas is to be found out. @default 1_000_000n */
  simulationGas?: bigint | undefined
} & BundleOptions

export type SignBundleReturnType = {
  /** What `sendBundle` takes. */
  bundle: Bundle
  /** Hash of each item's transaction; undefined for a relay step. */
  hashes: (Hash | undefined)[]
  /** How the bundle ran as it is signed; absent if no gas had to be found out. */
  simulation?: Simulation | undefined
}

const defaultSimulationGas = 1_000_000n

/** Fees of a transaction, in wei per gas. */
type Fees = { maxFeePerGas: bigint; maxPriorityFeePerGas: bigint }
type Prepared = Fees & { item: UnsignedItem; nonce: number }

/**
 * Signs the transactions of a bundle with local accounts: nonces follow one another over
 * several transactions of an account on a chain, fees are the chain's, and gas limits come
 * from a simulation of the whole bundle, as a transaction's gas may depend on those before it
 * on other chains. The signed bundle is simulated once more, with its final limits.
 *
 * The account must be able to pay for `simulationGas`: if it is about to be funded by the
 * bundle itself, give the item a `gas` of its own.
 *
 * Errors: `BundleSimulationError` if the bundle would fail, and those of `simulateBundle`.
 *
 * @example
 * const { bundle } = await client.signBundle({
 *   chains: [rollupA, rollupB],
 *   items: [
 *     { chainId: 901, account, to: bridge, data },
 *     { chainId: 902, relay: true },
 *     { chainId: 902, account, to: pool, data: swap },
 *   ],
 * })
 */
export async function signBundle(client: Client, parameters: SignBundleParameters): Promise<SignBundleReturnType> {
  const { chains, items, simulationGas = defaultSimulationGas, ...options } = parameters
  const byId = await clientsById(chains)
  const prepared = await prepare(items, byId)
  const sign = async (gasOf: (i: number) => bigint): Promise<Bundle> => ({
    ...options,
    items: await Promise.all(
      prepared.map(async (p, i): Promise<BundleItem> => {
        if (!('item' in p)) return p
        const { account, chainId, to, value, data, accessList, mayRevert } = p.item
        const transaction = await account.signTransaction({
          type: 'eip1559',
          chainId,
          nonce: p.nonce,
          gas: gasOf(i),
          maxFeePerGas: p.maxFeePerGas,
          maxPriorityFeePerGas: p.maxPriorityFeePerGas,
          to,
          value,
          data,
          accessList,
        })
        return { chainId, transaction, mayRevert }
      }),
    ),
  })
  const known = prepared.map((p) => ('item' in p ? p.item.gas : 0n))
  let signed = await sign((i) => known[i] ?? simulationGas)
  let simulation: Simulation | undefined
  if (known.includes(undefined)) {
    const probe = await simulateBundle(client, signed)
    if (!probe.success)
      throw new BundleSimulationError(probe, [
        `It was simulated with a gas limit of ${simulationGas} where none was given: set gas, or simulationGas.`,
      ])
    signed = await sign((i) => known[i] ?? limit(probe, i))
    // Gas limits can change what a transaction does: what is returned has run as it is.
    simulation = await simulateBundle(client, signed)
    if (!simulation.success) throw new BundleSimulationError(simulation)
  }
  return {
    bundle: signed,
    hashes: signed.items.map((it) => (it.transaction === undefined ? undefined : keccak256(it.transaction))),
    simulation,
  }
}

/**
 * The gas limit for what an item used. Refunds are paid afterwards, up to a fifth of what was
 * used before them, and each call keeps a 64th back: half as much again covers both.
 */
function limit(probe: Simulation, i: number): bigint {
  const ran = probe.items.find((it) => it.item === i)
  if (!ran) throw new BundleFormError(`The simulation has no result for item ${i}: set its gas.`)
  return (ran.gasUsed * 3n) / 2n
}

async function clientsById(chains: readonly Client[]): Promise<Map<number, Client>> {
  return new Map(
    await Promise.all(
      chains.map(async (c): Promise<[number, Client]> => {
        if (c.chain) return [c.chain.id, c]
        return [Number(await c.request({ method: 'eth_chainId' } as never)), c]
      }),
    ),
  )
}

/** Gives the unsigned items their nonces and fees. */
async function prepare(
  items: SignBundleParameters['items'],
  clients: Map<number, Client>,
): Promise<(Prepared | BundleItem)[]> {
  const client = (chainId: number) => {
    const c = clients.get(chainId)
    if (!c) throw new BundleFormError(`No client for chain ${chainId}: expected one of it in chains.`)
    return c
  }
  const next = new Map<string, number>()
  const feesOf = new Map<number, Fees>()
  const out: (Prepared | BundleItem)[] = []
  for (const item of items) {
    if (item.relay) {
      out.push(item)
      continue
    }
    if (item.transaction !== undefined) {
      // Its account may have unsigned transactions after it.
      const serializedTransaction = item.transaction as TransactionSerialized
      const sender = await recoverTransactionAddress({ serializedTransaction })
      next.set(`${item.chainId} ${sender.toLowerCase()}`, (parseTransaction(serializedTransaction).nonce ?? 0) + 1)
      out.push(item)
      continue
    }
    const { chainId, account } = item
    const place = `${chainId} ${account.address.toLowerCase()}`
    const nonce =
      item.nonce ??
      next.get(place) ??
      (await getTransactionCount(client(chainId), { address: account.address, blockTag: 'pending' }))
    next.set(place, nonce + 1)
    let { maxFeePerGas, maxPriorityFeePerGas } = item
    if (maxFeePerGas === undefined || maxPriorityFeePerGas === undefined) {
      let fees = feesOf.get(chainId)
      if (!fees) feesOf.set(chainId, (fees = await currentFees(client(chainId))))
      // A cap that is given also bounds the priority fee that is not.
      const suggested = fees.maxPriorityFeePerGas
      maxPriorityFeePerGas ??= maxFeePerGas !== undefined && maxFeePerGas < suggested ? maxFeePerGas : suggested
      maxFeePerGas ??= fees.maxFeePerGas - suggested + maxPriorityFeePerGas
    }
    out.push({ item, nonce, maxFeePerGas, maxPriorityFeePerGas })
  }
  return out
}

/**
 * Twice the base fee: at the OP Stack's usual 2 % a block it cannot rise by more in the 25
 * slots that a bundle waits by default.
 */
async function currentFees(client: Client): Promise<Fees> {
  const [block, maxPriorityFeePerGas] = await Promise.all([getBlock(client), estimateMaxPriorityFeePerGas(client)])
  return { maxFeePerGas: (block.baseFeePerGas ?? 0n) * 2n + maxPriorityFeePerGas, maxPriorityFeePerGas }
}
