/** Takes longer than it may. */
class LimitError extends Error {
  override readonly name = "LimitError";

  constructor(milliseconds: number) {
    super(`no answer within ${milliseconds} ms`);
  }
}

/**
 * What comes of it, if it comes in time: an answer that is there already when the time is over, and has only not been read because this process was busy,
 * is in time. The work itself ends by limits of its own.
 * @throws LimitError, or whatever the work throws.
 */
export async function within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  // Whoever gave up leaves nobody to hear of a failure.
  work.catch(() => undefined);
  const { promise, reject } = Promise.withResolvers<never>();
  // Between a timer and an immediate, Node reads what has come.
  const timer = setTimeout(() => setImmediate(reject, new LimitError(milliseconds)), milliseconds);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}
