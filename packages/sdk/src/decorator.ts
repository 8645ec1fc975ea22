import type { Account, Chain, Client, Transport } from 'viem'
import {
  type BundleParameters,
  type CancelBundleParameters,
  cancelBundle,
  type GetLeaderScheduleParameters,
  getBundle,
  getBundleStatus,
  getLeaderSchedule,
  getOperators,
  getSharedSequencerStatus,
  type SendBundleReturnType,
  sendBundle,
  simulateBundle,
  type WaitForBundleParameters,
  waitForBundle,
} from './actions.js'
import { type SignBundleParameters, type SignBundleReturnType, signBundle } from './sign.js'
import type { Bundle, BundleStatus, Operators, SharedSequencerStatus, Simulation, StoredBundle, Turn } from './types.js'
import {
  type Unwatch,
  type WatchBundlesParameters,
  type WatchReceiptsParameters,
  type WatchSubblocksParameters,
  watchBundles,
  watchReceipts,
  watchSubblocks,
} from './watch.js'

/** The actions of the `sharedseq` namespace, as methods of a client. */
export type PublicActionsSharedSequencer = {
  /** {@inheritDoc sendBundle} */
  sendBundle: (bundle: Bundle) => Promise<SendBundleReturnType>
  /** {@inheritDoc simulateBundle} */
  simulateBundle: (bundle: Bundle) => Promise<Simulation>
  /** {@inheritDoc signBundle} */
  signBundle: (parameters: SignBundleParameters) => Promise<SignBundleReturnType>
  /** {@inheritDoc cancelBundle} */
  cancelBundle: (parameters: CancelBundleParameters) => Promise<BundleStatus>
  /** {@inheritDoc getBundle} */
  getBundle: (parameters: BundleParameters) => Promise<StoredBundle>
  /** {@inheritDoc getBundleStatus} */
  getBundleStatus: (parameters: BundleParameters) => Promise<BundleStatus>
  /** {@inheritDoc waitForBundle} */
  waitForBundle: (parameters: WaitForBundleParameters) => Promise<BundleStatus>
  /** {@inheritDoc watchSubblocks} */
  watchSubblocks: (parameters: WatchSubblocksParameters) => Unwatch
  /** {@inheritDoc watchReceipts} */
  watchReceipts: (parameters: WatchReceiptsParameters) => Unwatch
  /** {@inheritDoc watchBundles} */
  watchBundles: (parameters: WatchBundlesParameters) => Unwatch
  /** {@inheritDoc getLeaderSchedule} */
  getLeaderSchedule: (parameters?: GetLeaderScheduleParameters) => Promise<Turn[]>
  /** {@inheritDoc getOperators} */
  getOperators: () => Promise<Operators>
  /** {@inheritDoc getSharedSequencerStatus} */
  getSharedSequencerStatus: () => Promise<SharedSequencerStatus>
}

/**
 * Extends a viem client, whose transport leads to an operator's `sharedseq` RPC, with the
 * actions of the shared sequencer.
 *
 * @example
 * import { createClient, http } from 'viem'
 * import { publicActionsSharedSequencer } from '@op-shared-sequencer/sdk'
 *
 * const client = createClient({ transport: http('http://127.0.0.1:8570') }).extend(publicActionsSharedSequencer())
 */
export function publicActionsSharedSequencer() {
  return <
    transport extends Transport,
    chain extends Chain | undefined = Chain | undefined,
    account extends Account | undefined = Account | undefined,
  >(
    client: Client<transport, chain, account>,
  ): PublicActionsSharedSequencer => {
    const c = client as Client
    return {
      sendBundle: (bundle) => sendBundle(c, bundle),
      simulateBundle: (bundle) => simulateBundle(c, bundle),
      signBundle: (parameters) => signBundle(c, parameters),
      cancelBundle: (parameters) => cancelBundle(c, parameters),
      getBundle: (parameters) => getBundle(c, parameters),
      getBundleStatus: (parameters) => getBundleStatus(c, parameters),
      waitForBundle: (parameters) => waitForBundle(c, parameters),
      watchSubblocks: (parameters) => watchSubblocks(c, parameters),
      watchReceipts: (parameters) => watchReceipts(c, parameters),
      watchBundles: (parameters) => watchBundles(c, parameters),
      getLeaderSchedule: (parameters) => getLeaderSchedule(c, parameters),
      getOperators: () => getOperators(c),
      getSharedSequencerStatus: () => getSharedSequencerStatus(c),
    }
  }
}
