/** Waiting with an end: signals that carry the error which the end means. */

/** What a signal may depend on. */
export type Parent = AbortSignal | Fanout;

/**
 * An AbortController whose signal aborts with its first parent that does, too, and with that one's reason. Disposing it lets go of the parents, which
 * `AbortSignal.any` does only when garbage is collected: some of them outlive many thousands of these.
 */
export class LinkedController implements Disposable {
  readonly #controller = new AbortController();
  readonly #links: { readonly parent: Parent; readonly abort: () => void }[] = [];

  constructor(...parents: readonly Parent[]) {
    for (const parent of parents) {
      const abort = (): void => this.#controller.abort(parent.reason);
      if (parent.aborted) abort();
      else {
        parent.addEventListener("abort", abort, ONCE);
        this.#links.push({ parent, abort });
      }
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** No effect once it has ended. */
  abort(reason: Error): void {
    this.#controller.abort(reason);
  }

  [Symbol.dispose](): void {
    for (const { parent, abort } of this.#links) parent.removeEventListener("abort", abort);
  }
}

const ONCE = { once: true } as const;

/**
 * One signal that many others depend on, all at the same time: they hang on one listener, since a signal looks through all of its listeners whenever
 * one comes or goes. It has as much of a signal's interface as `LinkedController` asks for. The one listener is never taken off.
 */
export class Fanout {
  readonly #signal: AbortSignal;
  readonly #listeners = new Set<() => void>();

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#listeners.forEach((listener) => listener()), ONCE);
  }

  get aborted(): boolean {
    return this.#signal.aborted;
  }

  get reason(): unknown {
    return this.#signal.reason;
  }

  addEventListener(_type: "abort", listener: () => void, _options: { readonly once: true }): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_type: "abort", listener: () => void): void {
    this.#listeners.delete(listener);
  }
}

/** A signal that aborts with `expired()` after `milliseconds`, or with a parent's reason; disposing it lets go of timer and parents. */
export class Deadline extends LinkedController {
  #timer: NodeJS.Timeout;

  constructor(milliseconds: number, expired: () => Error, ...parents: readonly Parent[]) {
    super(...parents);
    this.#timer = setTimeout(() => this.abort(expired()), milliseconds);
  }

  /** So much time from now, and another meaning of its end. No effect once it has ended. */
  extend(milliseconds: number, expired: () => Error): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.abort(expired()), milliseconds);
  }

  /** Time no longer ends it; the parents still do. */
  lift(): void {
    clearTimeout(this.#timer);
  }

  override [Symbol.dispose](): void {
    this.lift();
    super[Symbol.dispose]();
  }
}

/**
 * Waits for work that others share, or that is meant to outlive this wait: the signal ends the wait, never the work.
 * @throws the signal's reason, or whatever the work throws.
 */
export function waitFor<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    const leave = (): void => signal.removeEventListener("abort", abort);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    work.then(
      (result) => {
        leave();
        return resolve(result);
      },
      // Heard in any case: whoever gave up early leaves nobody else to hear of a failure.
      (error: unknown) => {
        leave();
        return reject(error);
      },
    );
  });
}
