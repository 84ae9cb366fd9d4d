import { IcapError } from "../errors.ts";
import { asError } from "./connection.ts";
import type { Limit } from "./deadline.ts";

/**
 * Does `work` under a signal that is aborted with the first of these, or with a `timeout` once the limit has passed; it need not be aborted any more when the
 * work is done. `step` is what did not happen by then.
 */
export async function within<T>(
  limit: Limit,
  step: string,
  signals: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const abort = (): void => over.abort(asError(signals.find(({ aborted }) => aborted)?.reason));
  for (const signal of signals) {
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  }
  const left = Math.max(1, limit.until - performance.now());
  const timer =
    left === Infinity ? undefined : setTimeout(() => over.abort(new IcapError("timeout", `${step} within ${limit.milliseconds} ms`)), left);
  try {
    return await work(over.signal);
  } finally {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener("abort", abort);
  }
}
