/** When the size of a service is to be proven again. Pure: times are handed in (ms). */

/** One that falls short is looked at again after this, and then after twice that, and so on: an operator may have set what is missing. */
const FIRST_PAUSE = 30_000;
/** One that could not be found out, sooner. */
const FIRST_PAUSE_UNSURE = 2_000;

export interface Ended {
  /** `unsure`: it did not come to its end. */
  readonly result: "all" | "short" | "unsure";
  /** When what it came to was proven. */
  readonly at: number;
  /** Milliseconds. */
  readonly took: number;
}

/** Never is more than half of the time spent on proofs that do not come out well. */
export class SizeRetries {
  readonly #interval: number;
  /** Proofs in a row that fell short, or came to no end. */
  #failures = 0;
  #notBefore = Number.NEGATIVE_INFINITY;

  /** @param interval from one good proof to the next; no pause is longer */
  constructor(interval: number) {
    this.#interval = interval;
  }

  /** None may begin before. */
  get notBefore(): number {
    return this.#notBefore;
  }

  /** Another service, or one that has changed. */
  forget(): void {
    this.#failures = 0;
    this.#notBefore = Number.NEGATIVE_INFINITY;
  }

  /** @returns when the next one is due */
  ended({ result, at, took }: Ended, now: number): number {
    if (result === "all") {
      this.forget();
      return at + this.#interval;
    }
    const pause = this.#pause(result === "short" ? FIRST_PAUSE : FIRST_PAUSE_UNSURE);
    this.#failures += 1;
    return now + Math.max(pause, took);
  }

  /** The service went away in the middle of one. The next begins as soon as it is back; but not time after time: it may be the proof that ends it. */
  interrupted(now: number): void {
    if (this.#failures > 0) this.#notBefore = now + this.#pause(FIRST_PAUSE_UNSURE);
    this.#failures += 1;
  }

  #pause(first: number): number {
    return Math.min(first * 2 ** Math.min(this.#failures, 20), this.#interval);
  }
}
