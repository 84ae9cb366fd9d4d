/** When failed scans add up to a pause, and how long that is. Pure: the time is handed in (ms, never stepping back). */

export interface SuspensionRules {
  /** So many scans that failed … */
  readonly failures: number;
  /** … within so many milliseconds are followed by a pause. */
  readonly within: number;
  /** Milliseconds of the first pause; each one soon after another is twice as long, up to `maxPause`. */
  readonly pause: number;
  readonly maxPause: number;
}

export class Suspension {
  readonly #rules: SuspensionRules;
  /** When the last failures were; fewer than would make a pause. */
  #failures: number[] = [];
  #nextPause: number;
  /** When the last pause ends or ended, and so much time after it makes the next one short again. */
  #last: { readonly end: number; readonly length: number } | undefined;

  constructor(rules: SuspensionRules) {
    this.#rules = rules;
    this.#nextPause = Math.min(rules.pause, rules.maxPause);
  }

  /** A scan failed. @returns milliseconds of the pause that begins now; undefined when none does. */
  failed(now: number): number | undefined {
    const { failures, within, maxPause } = this.#rules;
    this.#failures = [...this.#failures.filter((at) => now - at < within), now];
    if (this.#failures.length < failures) return undefined;
    this.#failures = [];
    const length = this.#nextPause;
    this.#last = { end: now + length, length };
    this.#nextPause = Math.min(2 * length, maxPause);
    return length;
  }

  /**
   * A scan succeeded. Once that happens after as long a time of work as the last pause took (and no shorter than failures are remembered), with no
   * failure in living memory, what was before is forgiven.
   */
  succeeded(now: number): void {
    const { within, pause, maxPause } = this.#rules;
    if (this.#last === undefined || now - this.#last.end < Math.max(this.#last.length, within)) return;
    if (this.#failures.some((at) => now - at < within)) return;
    this.#last = undefined;
    this.#nextPause = Math.min(pause, maxPause);
  }
}
