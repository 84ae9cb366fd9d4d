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
 * @param begun the time counts from then on; from now on, without it
 * @throws LimitError, or whatever the work throws.
 */
export async function within<T>(milliseconds: number, work: Promise<T>, begun?: Promise<void>): Promise<T> {
  // Whoever gave up leaves nobody to hear of a failure.
  work.catch(() => undefined);
  const { promise, reject } = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  let over = false;
  const begin = (): void => {
    // Between a timer and an immediate, Node reads what has come.
    if (!over) timer = setTimeout(() => setImmediate(reject, new LimitError(milliseconds)), milliseconds);
  };
  if (begun === undefined) begin();
  else void begun.then(begin);
  try {
    return await Promise.race([work, promise]);
  } finally {
    over = true;
    clearTimeout(timer);
  }
}
