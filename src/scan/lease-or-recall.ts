/** What several instances want to know is found out by one of them, so that one sends the large canaries for all. */
import { setTimeout as sleep } from "node:timers/promises";

import type { SharedProof, SharedProofs } from "../verdicts/shared-proofs.ts";

const POLL = 1_000;

/**
 * What another instance has proven, or else a lease to prove it. Waits while another is at it, at most `patience` milliseconds; then goes
 * ahead without a lease: two proofs at once do no harm.
 * @param fits whether what was recalled will do.
 * @throws the signal's reason.
 */
export async function recallOrLease(
  { proofs, key }: { readonly proofs: SharedProofs; readonly key: string },
  fits: (proof: SharedProof) => boolean,
  patience: number,
  signal: AbortSignal,
): Promise<SharedProof | AsyncDisposable> {
  for (let waited = 0; ; waited += POLL) {
    const before = await proofs.recall(key);
    if (before !== undefined && fits(before)) return before;
    signal.throwIfAborted();
    const lease = waited < patience ? await proofs.lease(key) : NO_LEASE;
    if (lease !== undefined) {
      // Between the two questions the other may have ended.
      const meanwhile = await proofs.recall(key);
      if (meanwhile === undefined || !fits(meanwhile)) return lease;
      await lease[Symbol.asyncDispose]();
      return meanwhile;
    }
    await sleep(POLL, undefined, { signal, ref: false });
  }
}

const NO_LEASE: AsyncDisposable = { async [Symbol.asyncDispose]() {} };
