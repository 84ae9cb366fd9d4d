/** Waiting with an end: signals that carry the error which the end means. */

/** A signal that aborts with `expired()` after `milliseconds`, or with a parent's reason; disposing it lets go of timer and parents. */
export class Deadline implements Disposable {
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout;
  readonly #links: { parent: AbortSignal; abort: () => void }[] = [];

  constructor(milliseconds: number, expired: () => Error, ...parents: AbortSignal[]) {
    this.#timer = setTimeout(() => this.#controller.abort(expired()), milliseconds);
    for (const parent of parents) {
      const abort = (): void => this.#controller.abort(parent.reason);
      if (parent.aborted) abort();
      else {
        parent.addEventListener("abort", abort, { once: true });
        this.#links.push({ parent, abort });
      }
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** So much time from now, and another meaning of its end. No effect once it has ended. */
  extend(milliseconds: number, expired: () => Error): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(expired()), milliseconds);
  }

  /** Time no longer ends it; the parents still do. */
  lift(): void {
    clearTimeout(this.#timer);
  }

  [Symbol.dispose](): void {
    this.lift();
    for (const { parent, abort } of this.#links) parent.removeEventListener("abort", abort);
  }
}

/**
 * Waits for work that others share, or that is meant to outlive this wait: the signal ends the wait, never the work.
 * @throws the signal's reason, or whatever the work throws.
 */
export async function waitFor<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  // Whoever gives up early still leaves nobody to hear of a failure.
  work.catch(() => undefined);
  signal.throwIfAborted();
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
