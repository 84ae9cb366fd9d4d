/** Large canaries on their way to a service, one at a time: each has its time, and gives way to scans, but not for ever. */
import type { CanaryAnswer } from "./canary-run.ts";
import { waitFor } from "./deadline.ts";
import { type LargeCanary, largeCanary } from "./large-canary.ts";

export interface LargeCanariesOptions {
  /** May reject; that is `unreachable`. */
  readonly send: (canary: LargeCanary, signal: AbortSignal) => Promise<CanaryAnswer>;
  /** Milliseconds for one. */
  readonly timeout: number;
}

/** Milliseconds before one that gave way is sent again, twice as long each time; after the last pause it gives way no more. */
const FIRST_PAUSE = 2_000;
const LAST_PAUSE = 16_000;

export class LargeCanaries {
  readonly #options: LargeCanariesOptions;
  /** Of the one under way; undefined while none is, or that gives way no more. */
  #way: AbortController | undefined;

  constructor(options: LargeCanariesOptions) {
    this.#options = options;
  }

  /** @throws the signal's reason, once it has given way; before, an aborted signal is `unreachable`. */
  async send(size: number, signal: AbortSignal): Promise<CanaryAnswer> {
    for (let pause = FIRST_PAUSE; ; pause *= 2) {
      const answer = await this.#sendOnce(size, pause <= LAST_PAUSE, signal);
      if (answer !== undefined) return answer;
      await rest(pause, signal);
    }
  }

  /** A scan waits for what the canary takes up. */
  giveWay(): void {
    this.#way?.abort(new Error("scans go first"));
  }

  async #sendOnce(size: number, givesWay: boolean, signal: AbortSignal): Promise<CanaryAnswer | undefined> {
    const { send, timeout } = this.#options;
    const way = new AbortController();
    const limit = AbortSignal.timeout(timeout);
    if (givesWay) this.#way = way;
    try {
      return await send(largeCanary(size), AbortSignal.any([signal, limit, way.signal]));
    } catch (error) {
      if (way.signal.aborted) return undefined;
      const why = limit.aborted ? "a canary was not answered in time" : error instanceof Error ? error.message : String(error);
      return { outcome: "unreachable", why };
    } finally {
      this.#way = undefined;
    }
  }
}

/** @throws the signal's reason. */
async function rest(milliseconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds).unref();
  try {
    await waitFor(promise, signal);
  } finally {
    clearTimeout(timer);
  }
}
