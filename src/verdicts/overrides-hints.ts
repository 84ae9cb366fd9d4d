/** Names of fields that may have changed, to be looked at soon. Anybody can send them, so there is a limit to how many are, and how fast. */

/** Names that wait. */
const MOST = 500;
/** Looked at in one go, and milliseconds until the next one. */
const AT_ONCE = 20;
const PAUSE = 100;

export class Hints implements Disposable {
  readonly #look: (fields: readonly string[]) => Promise<void>;
  readonly #waiting = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #looking = false;
  #closed = false;

  /** @param look never rejects; it is not called again before it is done */
  constructor(look: (fields: readonly string[]) => Promise<void>) {
    this.#look = look;
  }

  /** One that finds no room is lost: other ways lead there, later. */
  add(field: string): void {
    if (this.#closed || this.#waiting.size >= MOST) return;
    this.#waiting.add(field);
    if (!this.#looking && this.#timer === undefined) void this.#go();
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#waiting.clear();
  }

  async #go(): Promise<void> {
    const fields = [...this.#waiting].slice(0, AT_ONCE);
    for (const field of fields) this.#waiting.delete(field);
    this.#looking = true;
    await this.#look(fields);
    this.#looking = false;
    if (this.#closed) return;
    // Also where none waits: what comes meanwhile waits for its end.
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#waiting.size > 0) void this.#go();
    }, PAUSE).unref();
  }
}
