/** One instance at a time does what all of them would: the others wait for what comes of it. */
import type { Lease } from "./lease.ts";
import type { Records } from "./records.ts";

/** What somebody else has found out, or the right to find out. Whoever gets a lease must dispose of it; there is none where nobody else could have it. */
export type Turn<T> = { readonly known: T } | { readonly lease: AsyncDisposable | undefined };

export interface Sharing {
  /** There is no other instance: names don't matter, and nobody sees them. */
  readonly alone: boolean;
  /**
   * Waits while another instance is at it. When that one has ended, whatever came of it, or has died, the next one's turn comes, unless it is known
   * by then. A store that can't be asked gives the right to everybody: that spares no work, but nothing waits for it.
   * @param known what is known by now; asked again each time that there may be news.
   * @throws the signal's reason; whatever `known` throws.
   */
  lead<T>(name: string, known: () => Promise<T | undefined>, signal: AbortSignal): Promise<Turn<T>>;
  /** The same without waiting: `taken` while another instance is at it. */
  tryLead<T>(name: string, known: () => Promise<T | undefined>): Promise<Turn<T> | "taken">;
}

/** There is no other instance. */
export class LocalSharing implements Sharing {
  readonly alone = true;

  lead<T>(name: string, known: () => Promise<T | undefined>): Promise<Turn<T>> {
    return this.tryLead(name, known);
  }

  async tryLead<T>(_name: string, known: () => Promise<T | undefined>): Promise<Turn<T>> {
    const found = await known();
    return found === undefined ? UNLEASED : { known: found };
  }
}

const UNLEASED = { lease: undefined } as const;

export interface LeaseSharingOptions {
  /** Closed by whoever opened it. */
  readonly records: Pick<Records, "lease" | "publish" | "subscribe">;
  /**
   * Milliseconds that anybody waits for others, who then goes ahead without a lease: longer than the work can take. Only somebody who writes to the
   * records himself can keep a lease for as long.
   */
  readonly patience: number;
}

/** Milliseconds that a lease outlives its holder. */
const LEASE = 5_000;
/** Milliseconds after which one looks again without a hint. */
const POLL = 300;
/** Milliseconds between two looks, however many hints there are: anybody may send them. */
const PAUSE = 25;
/** Messages are names of leases that were let go of while somebody waited for them. */
const RELEASED = "released";

/** By leases. Whoever can read the records can read the names. */
export class LeaseSharing implements Sharing, Disposable {
  readonly alone = false;
  readonly #records: LeaseSharingOptions["records"];
  readonly #patience: number;
  readonly #waiting = new Map<string, Set<Waiting>>();
  readonly #news: Disposable;

  constructor({ records, patience }: LeaseSharingOptions) {
    this.#records = records;
    this.#patience = patience;
    const released = (name: string): void => this.#waiting.get(name)?.forEach((one) => one.hint());
    const missed = (): void => this.#waiting.forEach((all) => all.forEach((one) => one.hint()));
    this.#news = records.subscribe(RELEASED, released, missed);
  }

  async lead<T>(name: string, known: () => Promise<T | undefined>, signal: AbortSignal): Promise<Turn<T>> {
    // Listens before it asks, or it would miss a release in between.
    const waiting = new Waiting();
    this.#listen(name, waiting);
    try {
      const since = performance.now();
      for (;;) {
        signal.throwIfAborted();
        const turn = await this.tryLead(name, known);
        if (turn !== "taken") return turn;
        if (performance.now() - since > this.#patience) return UNLEASED;
        await waiting.next(signal);
      }
    } finally {
      this.#unlisten(name, waiting);
    }
  }

  async tryLead<T>(name: string, known: () => Promise<T | undefined>): Promise<Turn<T> | "taken"> {
    // Asked in one round trip, and answered in this order. Nodes of a Cluster may answer in another: now and then, one does there what another just has done.
    const taking = this.#records.lease(name, LEASE);
    let found: T | undefined;
    try {
      found = await known();
      const lease = await taking;
      if (found === undefined) return lease === "taken" ? lease : { lease: { [Symbol.asyncDispose]: () => this.#letGo(name, lease) } };
    } catch (error) {
      await this.#letGo(name, await taking);
      throw error;
    }
    await this.#letGo(name, await taking);
    return { known: found };
  }

  [Symbol.dispose](): void {
    this.#news[Symbol.dispose]();
  }

  async #letGo(name: string, lease: Lease | "taken"): Promise<void> {
    // Only if somebody waits: all instances hear of it.
    if (lease !== "taken" && (await lease.release())) void this.#records.publish(RELEASED, name);
  }

  #listen(name: string, waiting: Waiting): void {
    const others = this.#waiting.get(name);
    if (others === undefined) this.#waiting.set(name, new Set([waiting]));
    else others.add(waiting);
  }

  #unlisten(name: string, waiting: Waiting): void {
    const others = this.#waiting.get(name);
    if (others?.delete(waiting) === true && others.size === 0) this.#waiting.delete(name);
  }
}

/** One who waits; a hint that comes while it looks is not lost. */
class Waiting {
  #hinted = false;
  #wake: (() => void) | undefined;

  hint(): void {
    this.#hinted = true;
    this.#wake?.();
  }

  /** Resolves with the next hint, though not at once, or when it is time to look without one. @throws the signal's reason. */
  async next(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", abort, { once: true });
    const poll = setTimeout(resolve, POLL);
    let rested = false;
    const pause = setTimeout(() => {
      rested = true;
      if (this.#hinted) resolve();
    }, PAUSE);
    this.#wake = () => {
      if (rested) resolve();
    };
    try {
      await promise;
    } finally {
      this.#wake = undefined;
      this.#hinted = false;
      clearTimeout(poll);
      clearTimeout(pause);
      signal.removeEventListener("abort", abort);
    }
  }
}
