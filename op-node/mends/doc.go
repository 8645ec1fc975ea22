// Package mends holds the tests and benchmarks of what the patch queue mends in
// upstream, and of what is worked around outside it (see op-node/patches/README.md):
//
//   - L2Client.L2BlockRefByNumber downloads a block only once (mended).
//   - L2Client.SystemConfigByL2Hash downloads the parent block in every slot. The
//     sequencer answers it from the blocks it has sealed itself (worked around).
//   - EngineController.ProcessPayload sends the engine blocks that it has stored
//     already (mended, with AnswerStored).
//   - EngineController.SafeL2Head asks the engine for the same block several times for
//     each block (mended, with RememberCanonical).
//   - Interop.VerifiedBlockAtL1, which gives the finalized head, searches all results that
//     L1 has not finalized each time (mended: VerifiedDB remembers).
package mends
