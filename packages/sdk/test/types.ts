// Checked by the compiler only.
import {
  type Bundle,
  type BundleState,
  type BundleStatus,
  bundle,
  type PublicActionsSharedSequencer,
  publicActionsSharedSequencer,
  type SharedSequencerRpcSchema,
  type SignBundleParameters,
} from '@op-shared-sequencer/sdk'
import { createClient, createPublicClient, createWalletClient, type Hash, http, rpcSchema } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { optimism } from 'viem/chains'

type Equal<a, b> = (<t>() => t extends a ? 1 : 2) extends <t>() => t extends b ? 1 : 2 ? true : false
const is = <_ extends true>() => {}

export async function types(transport: ReturnType<typeof http>, account: ReturnType<typeof privateKeyToAccount>) {
  // Every kind of client can be extended, also after other actions.
  const client = createClient({ transport }).extend(publicActionsSharedSequencer())
  createPublicClient({ chain: optimism, transport }).extend(publicActionsSharedSequencer()) satisfies PublicActionsSharedSequencer
  createWalletClient({ account, transport }).extend(publicActionsSharedSequencer()) satisfies PublicActionsSharedSequencer

  const sent = await client.sendBundle(bundle().transaction(optimism, '0x02').relay(902))
  is<Equal<typeof sent, { bundleHash: Hash; expirySlot: bigint }>>()
  const status = await client.waitForBundle(sent)
  is<Equal<typeof status, BundleStatus>>()
  is<Equal<(typeof status)['state'], BundleState>>()
  is<Equal<(typeof status)['slot'], bigint | undefined>>()

  const item = { chainId: 901, transaction: '0x02' } as const
  ;({ items: [item], maxSlots: 5 }) satisfies Bundle
  ;({ items: [item], expirySlot: 5n }) satisfies Bundle
  // @ts-expect-error at most one of them
  ;({ items: [item], expirySlot: 5n, maxSlots: 5 }) satisfies Bundle
  // @ts-expect-error either a transaction or a relay step
  ;({ items: [{ ...item, relay: true }] }) satisfies Bundle
  // @ts-expect-error neither
  ;({ items: [{ chainId: 901 }] }) satisfies Bundle
  // @ts-expect-error a relay step cannot revert alone
  ;({ items: [{ chainId: 901, relay: true, mayRevert: true }] }) satisfies Bundle
  // @ts-expect-error slots are bigints
  bundle().until(5)
  // @ts-expect-error somebody has to sign
  client.cancelBundle({ bundleHash: '0x' })
  // @ts-expect-error not a state to wait for
  client.waitForBundle({ bundleHash: '0x', until: 'pending' })

  ;({ chains: [client], items: [{ chainId: 901, account, to: account.address }, { chainId: 902, relay: true }, item] }) satisfies SignBundleParameters

  const raw = createClient({ transport, rpcSchema: rpcSchema<SharedSequencerRpcSchema>() })
  const turns = await raw.request({ method: 'sharedseq_leaderSchedule', params: ['0x8'] })
  is<Equal<(typeof turns)[number]['height'], `0x${string}`>>()
}
