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
  #left: number;
  #again = AGAIN;
  #since: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #over = false;

  /** Begins at once. `ranOut`: whether that is the end of it. */
  constructor(milliseconds: number, ranOut: () => boolean) {
    this.#left = milliseconds;
    this.#ranOut = ranOut;
    this.#resume();
  }

  /** The same bytes; while the next of them are awaited, no time passes. */
  async *watch(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    this.#pause();
    try {
      for await (const bytes of body) {
        this.#resume();
        yield bytes;
        this.#pause();
      }
    } finally {
      this.#resume();
    }
  }

  #resume(): void {
    if (this.#over || this.#since !== undefined) return;
    this.#since = performance.now();
    this.#timer = setTimeout(() => {
      this.#since = undefined;
      this.#left = this.#again;
      this.#again = Math.min(2 * this.#again, LONGEST);
      if (this.#ranOut()) this[Symbol.dispose]();
      else this.#resume();
    }, this.#left);
  }

  #pause(): void {
    clearTimeout(this.#timer);
    if (this.#since === undefined) return;
    this.#left = Math.max(0, this.#left - (performance.now() - this.#since));
    this.#since = undefined;
  }

  /** It can't run out any more. */
  [Symbol.dispose](): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }
}
