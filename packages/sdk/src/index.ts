export * from './actions.js'
export { replacementMessage, signReplacement } from './replacement.js'
export { type BundleBuilder, bundle, type ChainOrId } from './bundle.js'
export { type PublicActionsSharedSequencer, publicActionsSharedSequencer } from './decorator.js'
export {
  BundleCancelledError,
  type BundleFault,
  BundleExpiryError,
  BundleFormError,
  BundleNotExecutedError,
  BundleNotPendingError,
  RateLimitError,
  SubscriptionError,
  BundlePoolFullError,
  BundleSimulationError,
  BundleUnderpricedError,
  bundleFaults,
  type ChangeFault,
  changeFaults,
  errorClasses,
  InternalNodeError,
  InvalidBundleError,
  InvalidChangeError,
  InvalidRequestError,
  NotBundleSenderError,
  SenderLimitError,
  SequencerUnavailableError,
  SharedSequencerRpcError,
  SimulationBusyError,
  UnknownBundleError,
  WaitForBundleTimeoutError,
  WebSocketRequiredError,
} from './errors.js'
export * from './interop.js'
export type { SharedSequencerRpcSchema } from './rpc.js'
export { type SignBundleParameters, type SignBundleReturnType, signBundle, type UnsignedItem } from './sign.js'
export type * from './types.js'
export * from './watch.js'
