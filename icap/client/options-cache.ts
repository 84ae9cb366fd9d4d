import { asError } from "./connection.ts";
import type { ServiceInfo } from "./types.ts";

interface Fetch {
  readonly work: Promise<ServiceInfo>;
  readonly controller: AbortController;
  /** Callers that wait for it; a fetch in the background has none and goes on by itself. */
  waiters: number;
}

/** From this part of its time on, an answer is fetched anew while it still holds. */
const REFRESH_AT = 0.9;
/** Milliseconds between two fetches that nobody waits for, whatever replicas say. */
const MIN_INTERVAL = 1000;

/** What OPTIONS said, for as long as that holds. At most one fetch is under way; it ends when the last caller that waits for it goes. */
export class OptionsCache {
  readonly #load: (signal: AbortSignal) => Promise<ServiceInfo>;
  readonly #clock: () => number;
  #info: ServiceInfo | undefined;
  #loadedAt = 0;
  #refreshAt = 0;
  #fetch: Fetch | undefined;

  /** `clock` gives milliseconds since any fixed moment. */
  constructor(load: (signal: AbortSignal) => Promise<ServiceInfo>, clock: () => number) {
    this.#load = load;
    this.#clock = clock;
  }

  /**
   * A promise where it has to be fetched. `fresh`: by a fetch that has not ended yet, whatever is remembered.
   * @throws whatever the fetch throws; the signal's reason.
   */
  get(signal: AbortSignal, fresh = false): ServiceInfo | Promise<ServiceInfo> {
    signal.throwIfAborted();
    const now = this.#clock();
    const info = this.#info;
    if (fresh || info === undefined || now >= this.#loadedAt + info.optionsTtl * 1000)
      return this.#join(this.#fetch ?? this.#begin(), signal);
    if (now >= this.#refreshAt && this.#fetch === undefined) this.#refresh(now);
    return info;
  }

  /** An answer came under this tag: another one than OPTIONS' means that what it said may have changed (RFC 3507 section 4.7). */
  sawTag(tag: string): void {
    if (this.#info === undefined || this.#info.isTag === tag) return;
    this.#refreshAt = Math.min(this.#refreshAt, this.#loadedAt + MIN_INTERVAL);
  }

  #refresh(now: number): void {
    this.#refreshAt = now + MIN_INTERVAL;
    // What failed is tried again in a while; once the time is over, somebody waits for it and hears.
    this.#begin().work.catch(() => undefined);
  }

  #begin(): Fetch {
    const controller = new AbortController();
    const fetch: Fetch = { work: this.#run(controller.signal), controller, waiters: 0 };
    this.#fetch = fetch;
    const over = (): void => {
      if (this.#fetch === fetch) this.#fetch = undefined;
    };
    fetch.work.then(over, over);
    return fetch;
  }

  async #run(signal: AbortSignal): Promise<ServiceInfo> {
    const info = await this.#load(signal);
    this.#info = info;
    this.#loadedAt = this.#clock();
    this.#refreshAt = this.#loadedAt + Math.max(MIN_INTERVAL, info.optionsTtl * 1000 * REFRESH_AT);
    return info;
  }

  #join(fetch: Fetch, signal: AbortSignal): Promise<ServiceInfo> {
    fetch.waiters++;
    return new Promise((resolve, reject) => {
      let waiting = true;
      const leave = (): void => {
        if (!waiting) return;
        waiting = false;
        fetch.waiters--;
        signal.removeEventListener("abort", abort);
      };
      const abort = (): void => {
        leave();
        reject(asError(signal.reason));
        if (fetch.waiters > 0) return;
        if (this.#fetch === fetch) this.#fetch = undefined;
        fetch.controller.abort(signal.reason);
      };
      signal.addEventListener("abort", abort, { once: true });
      void fetch.work.then(resolve, (error: unknown) => reject(asError(error))).finally(leave);
    });
  }
}
