/** By when something has to be done. */
export interface Limit {
  /** How long that was from the start; for the message. */
  readonly milliseconds: number;
  /** As `performance.now` tells it; Infinity: never. */
  readonly until: number;
}

export const NO_LIMIT: Limit = { milliseconds: Infinity, until: Infinity };

/** So many milliseconds from now. */
export function limitOf(milliseconds: number): Limit {
  return { milliseconds, until: performance.now() + milliseconds };
}

/**
 * A moment that is set anew many times, and hardly ever comes. The timer behind it is left alone when the moment moves away or is given up: it looks when it
 * fires whether there is anything to be done, and is set again for what is left. It keeps no process alive.
 */
export class Deadline {
  readonly #passed: () => void;
  #until = Infinity;
  #timer: NodeJS.Timeout | undefined;
  #firesAt = Infinity;

  /** `passed` is called once the moment has come. */
  constructor(passed: () => void) {
    this.#passed = passed;
  }

  /** As `performance.now` tells it; Infinity: never. Replaces what was set. */
  set(until: number): void {
    this.#until = until;
    if (until < this.#firesAt) this.#arm(until - performance.now());
  }

  [Symbol.dispose](): void {
    this.#until = Infinity;
    this.#firesAt = Infinity;
    clearTimeout(this.#timer);
  }

  #arm(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#firesAt = this.#until;
    this.#timer = setTimeout(() => this.#look(), Math.max(1, Math.ceil(milliseconds))).unref();
  }

  #look(): void {
    this.#firesAt = Infinity;
    if (this.#until === Infinity) return;
    const left = this.#until - performance.now();
    if (left > 0) {
      this.#arm(left);
      return;
    }
    this.#until = Infinity;
    this.#passed();
  }
}
