import { IcapError } from "../errors.ts";

/**
 * Does `work` under a signal that is aborted with the caller's, or with a `timeout` once `ms` are over. No limit at all for Infinity.
 * `step` is what did not happen by then.
 */
export async function within<T>(ms: number, step: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  if (ms === Infinity) return await work(signal);
  const over = new AbortController();
  const timer = setTimeout(() => {
    over.abort(new IcapError("timeout", `${step} within ${ms} ms`));
  }, ms);
  try {
    return await work(AbortSignal.any([signal, over.signal]));
  } finally {
    clearTimeout(timer);
  }
}
