import type { Chain, Hash, Hex } from 'viem'
import type { Bundle, BundleConditions, BundleItem } from './types.js'

/** A chain, or its ID. */
export type ChainOrId = number | Pick<Chain, 'id'>

/** The ID of a chain. */
export function chainIdOf(chain: ChainOrId): number {
  return typeof chain === 'number' ? chain : chain.id
}

/** Makes bundles step by step. Builders do not change: each method returns a new one, which is a {@link Bundle}. */
export type BundleBuilder = Bundle & {
  /** Adds a signed transaction. */
  transaction(chain: ChainOrId, signed: Hex, options?: { mayRevert?: boolean | undefined }): BundleBuilder
  /** Adds a step that executes on the chain the L2ToL2 messages which the items before it sent there. */
  relay(chain: ChainOrId): BundleBuilder
  /** Sets the first slot it may be executed in. */
  from(slot: bigint): BundleBuilder
  /** Sets the last slot it may be executed in, instead of a number of slots. */
  until(slot: bigint): BundleBuilder
  /** Sets for how many slots it may wait, the current one included, instead of a last slot. */
  within(slots: number): BundleBuilder
  /** Names it, so that it can be replaced by one of a higher bid under the same ID: see `signReplacement`. */
  replaceable(id: Hash): BundleBuilder
  /** Adds what must hold on a chain. */
  condition(chain: ChainOrId, holds: Omit<BundleConditions, 'chainId'>): BundleBuilder
}

/**
 * Starts an empty bundle.
 *
 * @example
 * const { bundleHash } = await client.sendBundle(
 *   bundle().transaction(901, signedSend).relay(902).transaction(902, signedSwap).within(5),
 * )
 */
export function bundle(): BundleBuilder {
  return builder({ items: [] })
}

function builder(b: Bundle): BundleBuilder {
  const { expirySlot: _, maxSlots: __, ...rest } = b
  const add = (item: BundleItem) => builder({ ...b, items: [...b.items, item] })
  const methods = {
    transaction: (chain: ChainOrId, transaction: Hex, { mayRevert }: { mayRevert?: boolean | undefined } = {}) =>
      add({ chainId: chainIdOf(chain), transaction, mayRevert }),
    relay: (chain: ChainOrId) => add({ chainId: chainIdOf(chain), relay: true }),
    from: (firstSlot: bigint) => builder({ ...b, firstSlot }),
    until: (expirySlot: bigint) => builder({ ...rest, expirySlot }),
    within: (maxSlots: number) => builder({ ...rest, maxSlots }),
    replaceable: (replacementId: Hash) => builder({ ...b, replacementId }),
    condition: (chain: ChainOrId, holds: Omit<BundleConditions, 'chainId'>) =>
      builder({ ...b, conditions: [...(b.conditions ?? []), { ...holds, chainId: chainIdOf(chain) }] }),
  }
  return { ...b, ...methods }
}
