import { concat, type Hash, type Hex, keccak256, type LocalAccount, numberToHex, stringToHex, toRlp } from 'viem'
import { BundleFormError } from './errors.js'
import type { Bundle, BundleConditions, BundleItem } from './types.js'

type Rlp = Hex | readonly Rlp[]

const domain = keccak256(stringToHex('op-shared-sequencer/bundle/1'))
const zero: Hash = `0x${'00'.repeat(32)}`

/**
 * What the owner of a replacement ID signs, as a personal message (EIP-191), so that the bundle
 * has it. The hash in it is the bundle's without that signature.
 *
 * @throws BundleFormError without `replacementId` or `expirySlot`.
 */
export function replacementMessage(bundle: Bundle): string {
  const { replacementId, expirySlot } = bundle
  if (replacementId === undefined) throw new BundleFormError('The bundle has no replacementId.')
  if (expirySlot === undefined)
    throw new BundleFormError('A bundle with a replacementId needs expirySlot: its signature covers the last slot.')
  const conditions = [...(bundle.conditions ?? [])].sort((a, b) => a.chainId - b.chainId).map(rlpCondition)
  const terms: Rlp = [integer(bundle.firstSlot ?? 0n), replacementId, '0x', conditions]
  const hash = keccak256(concat([domain, toRlp([bundle.items.map(rlpItem), integer(expirySlot), terms] as Hex[])]))
  return `Replacement ${replacementId.toLowerCase()} is bundle ${hash}`
}

/** Signs that a bundle has its `replacementId`, which is the account's own. */
export async function signReplacement(bundle: Bundle, account: Pick<LocalAccount, 'signMessage'>): Promise<Bundle> {
  return { ...bundle, replacementSignature: await account.signMessage({ message: replacementMessage(bundle) }) }
}

function integer(value: number | bigint): Hex {
  return BigInt(value) === 0n ? '0x' : numberToHex(value)
}

function rlpItem(item: BundleItem): Rlp {
  const fields: Rlp[] = [integer(item.chainId), item.transaction ?? '0x']
  return item.mayRevert ? [...fields, '0x01'] : fields
}

function rlpCondition(c: BundleConditions): Rlp {
  const accounts = sorted(c.knownAccounts ?? {}).map(([address, known]): Rlp =>
    typeof known === 'string'
      ? [address, known, []]
      : [address, zero, sorted(known).map(([key, value]): Rlp => [key, value])],
  )
  const bounds = [c.blockNumberMin, c.blockNumberMax, c.timestampMin, c.timestampMax].map((b) => integer(b ?? 0n))
  return [integer(c.chainId), ...bounds, accounts]
}

function sorted<V>(record: Readonly<Record<Hex, V>>): [Hex, V][] {
  const entries = Object.entries(record) as [Hex, V][]
  return entries.map(([key, v]): [Hex, V] => [key.toLowerCase() as Hex, v]).sort(([a], [b]) => (a < b ? -1 : 1))
}
