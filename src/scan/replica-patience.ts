/** How long a scan has waited for its replica. */

/** Milliseconds after which it is tried again whether there is anything to be done; twice as long each time, up to a minute. */
const AGAIN = 1_000;
const LONGEST = 60_000;

/**
 * Runs out when a replica has kept a scan waiting for so long in all, and then again, ever less often, until something could be done about it. What
 * the media's own source takes is not counted: media that arrives slowly says nothing of who scans it.
 */
export class Patience implements Disposable {
  readonly #ranOut: () => boolean;
  /** Of what was left at `#since`; undefined while no time passes. */
  #left: number;
  #since: number | undefined;
  #again = AGAIN;
  /** Left alone while no time passes: when it fires, it is looked how much is left. */
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  /** Begins at once. `ranOut`: whether that is the end of it. */
  constructor(milliseconds: number, ranOut: () => boolean) {
    this.#left = milliseconds;
    this.#ranOut = ranOut;
    this.resume();
  }

  /** The same bytes; while the next of them are awaited, no time passes. */
  watch(body: AsyncIterable<Uint8Array>): AsyncIterableIterator<Uint8Array> {
    return new Watched(body[Symbol.asyncIterator](), this);
  }

  /** From now on no time passes. Idempotent. */
  pause(): void {
    if (this.#since === undefined) return;
    this.#left -= performance.now() - this.#since;
    this.#since = undefined;
  }

  /** Time passes again. Idempotent. */
  resume(): void {
    if (this.#over || this.#since !== undefined) return;
    this.#since = performance.now();
    if (this.#timer === undefined) this.#arm();
  }

  #arm(): void {
    this.#timer = setTimeout(() => this.#look(), Math.max(0, Math.ceil(this.#left)));
  }

  #look(): void {
    this.#timer = undefined;
    if (this.#since === undefined) return;
    this.pause();
    if (this.#left > 0) return this.resume();
    this.#left = this.#again;
    this.#again = Math.min(2 * this.#again, LONGEST);
    if (this.#ranOut()) this[Symbol.dispose]();
    else this.resume();
  }

  /** It can't run out any more. */
  [Symbol.dispose](): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }
}

class Watched implements AsyncIterableIterator<Uint8Array> {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #patience: Patience;

  constructor(source: AsyncIterator<Uint8Array>, patience: Patience) {
    this.#source = source;
    this.#patience = patience;
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    this.#patience.pause();
    try {
      return await this.#source.next();
    } finally {
      this.#patience.resume();
    }
  }

  async return(): Promise<IteratorResult<Uint8Array>> {
    await this.#source.return?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
